//! One checkpoint, whatever it is kept in: which tensors there are, and their numbers on demand.

use super::archive::{self, Archive, Stored};
use super::bytes::{Bytes, Cursor};
use super::header::{self, Header, ShardIndex};
use super::layout::Weights;
use super::legacy;
use super::numbers;
use super::pickle::{Limits, Pickle};
use crate::digest::hexadecimal;
use crate::{Error, Result};
use safetensors::tensor::Dtype;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Component, Path};

/// What a file of tensors is. A closed set, hence an enum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// safetensors, one file.
    Safetensors,
    /// safetensors, several files and an index.
    Sharded,
    /// A zip archive of `torch.save`.
    Archive,
    /// A stream of `torch.save` before PyTorch 1.6.
    Stream,
    /// A pickle of modules.
    Pickle,
}

/// The tensors of a checkpoint: their types, shapes and places; the numbers stay in the file.
#[derive(Debug)]
pub struct TensorFile {
    /// What it is kept in.
    pub container: Container,
    /// Which of the things in the file the tensors are, such as `ema.shadow_params`, averaged.
    pub found: String,
    /// Texts that a safetensors file keeps beside its tensors.
    pub metadata: BTreeMap<String, String>,
    /// What the file itself says of the network's configuration: EDM's `{class_name, init_kwargs}`.
    pub configuration: Option<Value>,
    model: String,
    parts: Vec<Bytes>,
    tensors: BTreeMap<String, Entry>,
    /// What an archive says its entries' sums are.
    sums: Vec<(String, Stored)>,
}

#[derive(Debug)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    part: usize,
    /// Byte of the first number.
    start: u64,
    /// In numbers; `None` if they follow one another in the order of the shape.
    strides: Option<Vec<u64>>,
}

const MOST_SHARDS: usize = 1 << 10;
const MOST_PICKLE: u64 = 1 << 26;
/// Tensors may share numbers, as tied weights do; a file whose tensors are many times its size is no checkpoint.
const MOST_SHARING: u64 = 4;

impl Container {
    /// What the file at `path` is, by its first bytes.
    ///
    /// # Errors
    /// `Model` if it cannot be read.
    pub fn of(path: &Path) -> Result<Self> {
        let model = path.to_string_lossy();
        let refuse = |reason| Error::Model { model: model.clone().into_owned(), reason };
        Self::sniff(&Bytes::open(path).map_err(refuse)?).map_err(refuse)
    }

    /// Whether it is a pickle, which programs that run pickles must not be given from strangers.
    pub fn is_pickle(self) -> bool {
        matches!(self, Self::Archive | Self::Stream | Self::Pickle)
    }

    fn sniff(bytes: &Bytes) -> Result<Self, String> {
        let head = bytes.copy(0..bytes.length().min(512))?;
        // A length may begin like anything else, 640 like a pickle of protocol 2; what follows it decides.
        let length = head.first_chunk().map_or(u64::MAX, |length| u64::from_le_bytes(*length));
        if length <= bytes.length() && head.get(8) == Some(&b'{') {
            return Ok(Self::Safetensors);
        }
        if head.starts_with(b"PK") {
            return Ok(Self::Archive);
        }
        if head.len() > 1 && head[0] == 0x80 && (2..=5).contains(&head[1]) {
            // 0x8a 0x0a: an integer of ten bytes, the magic number.
            return Ok(if head[2..].starts_with(&[0x8a, 0x0a]) { Self::Stream } else { Self::Pickle });
        }
        let text = head.trim_ascii_start();
        if text.starts_with(b"{") {
            return Ok(Self::Sharded);
        }
        for (start, what) in [
            (&b"version https://git-lfs"[..], "is a pointer of Git LFS, without the numbers; fetch the file itself"),
            (b"<", "is a text, which looks like HTML or XML; was a web page saved in its place?"),
            (b"GGUF", "is a GGUF file, which holds no network that is known here"),
        ] {
            if text.starts_with(start) {
                return Err(what.into());
            }
        }
        if head.get(257..262) == Some(b"ustar") {
            return Err("is a tar archive, as PyTorch wrote before 0.1.10; save it again with a newer one".into());
        }
        Ok(Self::Safetensors)
    }
}

impl TensorFile {
    /// Opens a file of any [`Container`].
    ///
    /// # Errors
    /// `Model` with what is wrong: for a pickle the opcode or the class by its name, for a tensor its name, its shape and
    /// what there is room for.
    pub fn open(path: &Path) -> Result<Self> {
        let model = path.to_string_lossy().into_owned();
        let refuse = |reason| Error::Model { model: model.clone(), reason };
        let bytes = Bytes::open(path).map_err(refuse)?;
        let file = match Container::sniff(&bytes).map_err(refuse)? {
            Container::Sharded => Self::sharded(&bytes, path),
            container => Self::read(bytes, container),
        };
        let file = file.map_err(|reason| Error::Model { model: model.clone(), reason })?;
        Ok(Self { model, ..file })
    }

    /// Reads a file that is in memory, called `model` in messages.
    ///
    /// # Errors
    /// As [`open`](Self::open); an index of several files, of which there is only one.
    pub fn from_bytes(bytes: impl Into<Cow<'static, [u8]>>, model: &str) -> Result<Self> {
        let bytes = Bytes::Memory(bytes.into());
        let file = Container::sniff(&bytes).and_then(|container| match container {
            Container::Sharded => Err("is an index of several files".into()),
            container => Self::read(bytes, container),
        });
        let file = file.map_err(|reason| Error::Model { model: model.into(), reason })?;
        Ok(Self { model: model.into(), ..file })
    }

    fn read(bytes: Bytes, container: Container) -> Result<Self, String> {
        match container {
            Container::Safetensors | Container::Sharded => Self::safetensors(bytes),
            Container::Archive => {
                let (pickle, sums) = archived(&bytes)?;
                Self::weights(bytes, container, &pickle, sums)
            }
            Container::Stream => {
                let pickle = legacy::read(&bytes, 0..bytes.length(), Limits::WHOLE)?;
                Self::weights(bytes, container, &pickle, Vec::new())
            }
            Container::Pickle => {
                let mut cursor = Cursor::new(&bytes, 0..bytes.length())?;
                let pickle = Pickle::read(&bytes, &mut cursor, Limits::WHOLE)?;
                drop(cursor);
                Self::weights(bytes, container, &pickle, Vec::new())
            }
        }
    }

    fn safetensors(bytes: Bytes) -> Result<Self, String> {
        let header = Header::read(&bytes)
            .map_err(|reason| format!("is not a whole safetensors file ({reason}); fetch or convert it again"))?;
        let mut file = Self::empty(Container::Safetensors);
        file.metadata = header.metadata;
        file.tensors = header.tensors.into_iter().map(|(name, tensor)| (name, Entry::described(tensor, 0))).collect();
        file.parts.push(bytes);
        Ok(file)
    }

    fn sharded(index: &Bytes, path: &Path) -> Result<Self, String> {
        let index = ShardIndex::read(index)?.weight_map.0;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut file = Self::empty(Container::Sharded);
        let mut parts = BTreeMap::new();
        for shard in index.values() {
            if parts.contains_key(shard) {
                continue;
            }
            let mut components = Path::new(shard).components();
            let plain = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
            if !plain || shard.contains(['/', '\\']) {
                return Err(format!("names the file {shard:?}, expected one in its own folder"));
            }
            if parts.len() == MOST_SHARDS {
                return Err(format!("names more than {MOST_SHARDS} files"));
            }
            let of = |reason| format!("{shard}: {reason}");
            let bytes = Bytes::open(&folder.join(shard)).map_err(of)?;
            let header = Header::read(&bytes)
                .map_err(|reason| of(format!("is not a whole safetensors file ({reason}); fetch it again")))?;
            let part = parts.len();
            parts.insert(shard, part);
            file.parts.push(bytes);
            for (key, value) in header.metadata {
                file.metadata.entry(key).or_insert(value);
            }
            for (name, tensor) in header.tensors {
                match index.get(&name) {
                    Some(place) if place == shard => drop(file.tensors.insert(name, Entry::described(tensor, part))),
                    Some(place) => return Err(format!("tensor {name} is in {shard}, its place is {place}")),
                    None => return Err(format!("tensor {name} of {shard} is not in the index")),
                }
            }
        }
        if file.parts.is_empty() {
            return Err("is an index that names no file".into());
        }
        match index.iter().find(|(name, _)| !file.tensors.contains_key(*name)) {
            Some((name, shard)) => Err(format!("tensor {name} is not in {shard}")),
            None => Ok(file),
        }
    }

    fn weights(
        bytes: Bytes,
        container: Container,
        pickle: &Pickle,
        sums: Vec<(String, Stored)>,
    ) -> Result<Self, String> {
        let weights = Weights::of(pickle)?;
        let mut file =
            Self { sums, found: weights.found, configuration: weights.configuration, ..Self::empty(container) };
        let mut total = 0_u64;
        for (name, tensor) in weights.tensors {
            let storage = &pickle.storages[tensor.storage];
            let (Some(start), Some(size)) = (storage.start, numbers::size(storage.dtype)) else {
                return Err(format!("tensor {name}: its storage {} is not in the file", storage.key));
            };
            // Every number of a tensor is in its storage, and every storage in the file: nothing here overflows.
            let elements = match &tensor.strides {
                Some(strides) => span(&tensor.shape, strides),
                None => tensor.shape.iter().product::<usize>() as u64,
            };
            total = total.saturating_add(elements * size);
            if total > bytes.length().saturating_mul(MOST_SHARING) {
                let length = bytes.length();
                return Err(format!("has tensors of more than {total} bytes in all in a file of {length}"));
            }
            let start = start + tensor.offset.min(storage.elements) * size;
            let (dtype, shape, strides) = (storage.dtype, tensor.shape, tensor.strides);
            file.tensors.insert(name, Entry { dtype, shape, part: 0, start, strides });
        }
        file.parts.push(bytes);
        Ok(file)
    }

    fn empty(container: Container) -> Self {
        Self {
            container,
            found: "all of it".into(),
            metadata: BTreeMap::new(),
            configuration: None,
            model: String::new(),
            parts: Vec::new(),
            tensors: BTreeMap::new(),
            sums: Vec::new(),
        }
    }

    /// Type and shape of every tensor by its name.
    pub fn index(&self) -> BTreeMap<String, (Dtype, Vec<usize>)> {
        let entry = |(name, entry): (&String, &Entry)| (name.clone(), (entry.dtype, entry.shape.clone()));
        self.tensors.iter().map(entry).collect()
    }

    /// The numbers of a tensor in the order of its shape, little-endian in their own type.
    ///
    /// # Errors
    /// `Model` if there is no such tensor, or the file has become shorter.
    pub fn raw(&self, name: &str) -> Result<Vec<u8>> {
        let mut raw = Vec::new();
        let reserve = self.entry(name).map(Entry::bytes).map_err(|reason| self.refuse(reason))?;
        raw.reserve_exact(reserve);
        self.pieces(name, |piece| {
            raw.extend_from_slice(piece);
            Ok(())
        })
        .map_err(|reason| self.refuse(reason))?;
        Ok(raw)
    }

    /// The numbers of a tensor in single precision.
    ///
    /// # Errors
    /// `Model` if there is no such tensor, or it holds integers.
    pub fn numbers(&self, name: &str) -> Result<Vec<f32>> {
        self.in_single(name).map_err(|reason| self.refuse(reason))
    }

    fn in_single(&self, name: &str) -> Result<Vec<f32>, String> {
        let entry = self.entry(name)?;
        let mut values = Vec::new();
        values.reserve_exact(entry.shape.iter().product());
        self.pieces(name, |piece| {
            numbers::decode(entry.dtype, piece, &mut values).ok_or_else(|| entry.integers(name))
        })?;
        Ok(values)
    }

    /// Whether all numbers of a tensor are finite.
    ///
    /// # Errors
    /// `Model` with the tensor and the first number that is not.
    pub fn check_finite(&self, name: &str) -> Result<()> {
        let check = || {
            let entry = self.entry(name)?;
            let mut values = Vec::new();
            self.pieces(name, |piece| {
                values.clear();
                numbers::decode(entry.dtype, piece, &mut values).ok_or_else(|| entry.integers(name))?;
                match values.iter().find(|value| !value.is_finite()) {
                    Some(value) => Err(format!("tensor {name} holds {value}, expected finite numbers")),
                    None => Ok(()),
                }
            })
        };
        check().map_err(|reason| self.refuse(reason))
    }

    /// Whether every entry of an archive has the sum that the archive says; nothing to do for other containers.
    ///
    /// # Errors
    /// `Model` with the entry and both sums.
    pub fn check_sums(&self) -> Result<()> {
        let check = |(name, stored): &(String, Stored)| archive::check(&self.parts[0], name, stored);
        self.sums.iter().try_for_each(check).map_err(|reason| self.refuse(reason))
    }

    /// SHA-256 of the file in hexadecimal; `None` if there are several.
    ///
    /// # Errors
    /// `Model` if it cannot be read.
    pub fn hash(&self) -> Result<Option<String>> {
        let [part] = &self.parts[..] else { return Ok(None) };
        let mut hasher = Sha256::new();
        part.pieces(0..part.length(), |piece| {
            hasher.update(piece);
            Ok(())
        })
        .map_err(|reason| self.refuse(reason))?;
        Ok(Some(hexadecimal(&hasher.finalize())))
    }

    /// Writes these tensors as a safetensors file, one after another: no more than one piece of one of them is in memory.
    ///
    /// Floating-point numbers are rounded to `dtype`; without one they stay as they are, except that double precision
    /// becomes single. Integers stay integers.
    /// # Errors
    /// `Model` for a number that `dtype` cannot hold, and if the file cannot be read; `Io` with `path` if it cannot be
    /// written.
    pub fn write(
        &self,
        names: &[&str],
        metadata: &BTreeMap<String, String>,
        dtype: Option<Dtype>,
        (to, path): (&mut dyn Write, &Path),
    ) -> Result<()> {
        let failed = |source| Error::Io { path: path.into(), source };
        let mut tensors = Vec::new();
        for &name in names {
            let entry = self.entry(name).map_err(|reason| self.refuse(reason))?;
            let kept = match entry.dtype {
                other if !numbers::is_float(other) => other,
                Dtype::F64 => dtype.unwrap_or(Dtype::F32),
                own => dtype.unwrap_or(own),
            };
            tensors.push((name, kept, entry.shape.as_slice()));
        }
        // Wide numbers first, so that each begins at a multiple of its own size.
        tensors.sort_by_key(|&(name, dtype, _)| (std::cmp::Reverse(dtype.bitsize()), name));
        header::write(to, metadata, &tensors).map_err(failed)?;
        let (mut values, mut bytes) = (Vec::new(), Vec::new());
        for (name, kept, _) in tensors {
            let own = self.entry(name).map_err(|reason| self.refuse(reason))?.dtype;
            let mut written = Ok(());
            let read = self.pieces(name, |piece| {
                let piece = if own == kept {
                    piece
                } else {
                    values.clear();
                    numbers::decode(own, piece, &mut values).ok_or("integers")?;
                    numbers::encode(kept, &values, &mut bytes).map_err(|reason| format!("tensor {name} {reason}"))?;
                    &bytes
                };
                if written.is_ok() {
                    written = to.write_all(piece);
                }
                Ok(())
            });
            written.map_err(failed)?;
            read.map_err(|reason| self.refuse(reason))?;
        }
        Ok(())
    }

    fn refuse(&self, reason: String) -> Error {
        Error::Model { model: self.model.clone(), reason }
    }

    fn entry(&self, name: &str) -> Result<&Entry, String> {
        self.tensors.get(name).ok_or_else(|| format!("has no tensor {name}"))
    }

    /// Calls `each` with successive pieces of a tensor's numbers.
    fn pieces(&self, name: &str, mut each: impl FnMut(&[u8]) -> Result<(), String>) -> Result<(), String> {
        let entry = self.entry(name)?;
        let bytes = &self.parts[entry.part];
        match &entry.strides {
            None => bytes.pieces(entry.start..entry.start + entry.bytes() as u64, each),
            Some(strides) => each(&entry.gathered(bytes, strides)?),
        }
    }
}

impl Entry {
    fn described(tensor: header::Described, part: usize) -> Self {
        let start = tensor.data_offsets.0;
        Self { dtype: tensor.dtype, shape: tensor.shape.0, part, start, strides: None }
    }

    fn integers(&self, name: &str) -> String {
        format!("tensor {name}: expected type F32, F16 or BF16, got {:?}", self.dtype)
    }

    /// Bytes of all numbers, which the file has.
    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }

    /// The numbers in the order of the shape, where another order is that of the file.
    fn gathered(&self, bytes: &Bytes, strides: &[u64]) -> Result<Vec<u8>, String> {
        let size = self.dtype.bitsize() / 8;
        let source = bytes.copy(self.start..self.start + span(&self.shape, strides) * size as u64)?;
        let mut gathered = Vec::with_capacity(self.bytes());
        let mut index = vec![0; self.shape.len()];
        let mut at = 0_usize;
        for _ in 0..self.shape.iter().product() {
            gathered.extend_from_slice(&source[at * size..(at + 1) * size]);
            for ((index, &length), &stride) in index.iter_mut().zip(&self.shape).zip(strides).rev() {
                *index += 1;
                at += stride as usize;
                if *index < length {
                    break;
                }
                at -= length * stride as usize;
                *index = 0;
            }
        }
        Ok(gathered)
    }
}

/// How many numbers lie from the first to the last of a view that has any; as many are read for it.
fn span(shape: &[usize], strides: &[u64]) -> u64 {
    1 + shape.iter().zip(strides).map(|(&size, &stride)| (size as u64 - 1) * stride).sum::<u64>()
}

/// The value of a PyTorch archive, its storages in their places, and the sums of its entries.
fn archived(bytes: &Bytes) -> Result<(Pickle, Vec<(String, Stored)>), String> {
    let archive = Archive::read(bytes)?;
    let prefix = archive.prefix()?.to_owned();
    let get = |name: &str| {
        let name = format!("{prefix}{name}");
        archive.get(&name).cloned().map(|stored| (name, stored))
    };
    if let Some((_, order)) = get("byteorder") {
        let order = bytes.copy(order.range.start..order.range.end.min(order.range.start + 8))?;
        if order != b"little" {
            return Err(format!("has numbers in the order {:?}, expected little", String::from_utf8_lossy(&order)));
        }
    }
    let (name, value) = get("data.pkl").ok_or("has no data.pkl")?;
    let length = value.range.end - value.range.start;
    if length > MOST_PICKLE {
        return Err(format!("has a data.pkl of {length} bytes, at most {MOST_PICKLE} are read"));
    }
    archive::check(bytes, &name, &value)?;
    let mut cursor = Cursor::new(bytes, value.range.clone())?;
    let mut pickle = Pickle::read(bytes, &mut cursor, Limits::WHOLE)?;
    if cursor.remaining() > 0 {
        return Err(format!("has {} bytes behind the value in data.pkl", cursor.remaining()));
    }
    let mut sums = Vec::new();
    for storage in pickle.storages.iter_mut().filter(|storage| storage.start.is_none()) {
        let key = &storage.key;
        let (name, stored) = get(&format!("data/{key}")).ok_or_else(|| format!("has no entry data/{key}"))?;
        let length = stored.range.end - stored.range.start;
        let expected = numbers::size(storage.dtype).and_then(|size| storage.elements.checked_mul(size));
        if expected != Some(length) {
            let (elements, dtype) = (storage.elements, storage.dtype);
            return Err(format!("has storage {key} in {length} bytes, its tensors say {elements} of {dtype:?}"));
        }
        storage.start = Some(stored.range.start);
        sums.push((name, stored));
    }
    Ok((pickle, sums))
}
