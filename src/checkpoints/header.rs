//! The header of a safetensors file.
//!
//! Eight bytes with the header's length, the header in JSON, the numbers; <https://github.com/huggingface/safetensors>. The
//! names have to differ, and the numbers of all tensors together fill the rest of the file without a hole or an overlap.

use super::bytes::Bytes;
use super::numbers;
use safetensors::tensor::Dtype;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io::{self, Write};

/// Names, types, shapes and places of the tensors, and the metadata.
#[derive(Debug, Default)]
pub(super) struct Header {
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) tensors: Vec<(String, Described)>,
}

/// A tensor in a header.
#[derive(Debug, Deserialize)]
pub(super) struct Described {
    pub(super) dtype: Dtype,
    pub(super) shape: Shape,
    /// First byte and end, counted from the end of the header; from the start of the file once it has been read.
    pub(super) data_offsets: (u64, u64),
}

/// Sizes of a tensor, a few of them.
#[derive(Debug)]
pub(super) struct Shape(pub(super) Vec<usize>);

const MOST_BYTES: u64 = 1 << 25;
const MOST_TENSORS: usize = 1 << 16;
const MOST_DIMENSIONS: usize = 16;

impl Header {
    /// Reads and checks the header of a file.
    ///
    /// # Errors
    /// What is wrong, with the name of the tensor.
    pub(super) fn read(bytes: &Bytes) -> Result<Self, String> {
        let file = bytes.length();
        let mut length = [0; 8];
        if file < 8 {
            return Err(format!("{file} bytes, a header needs 8"));
        }
        bytes.read_at(0, &mut length)?;
        let length = u64::from_le_bytes(length);
        if length > MOST_BYTES {
            return Err(format!("a header of {length} bytes, at most {MOST_BYTES} are read"));
        }
        if length > file - 8 {
            return Err(format!("a header of {length} bytes in a file of {file}"));
        }
        let start = 8 + length;
        let text = String::from_utf8(bytes.copy(8..start)?).map_err(|_| "a header that is not UTF-8")?;
        let mut header: Self = serde_json::from_str(&text).map_err(|error| format!("header: {error}"))?;
        drop(text);
        let mut order: Vec<&mut (String, Described)> = header.tensors.iter_mut().collect();
        order.sort_by_key(|(_, tensor)| tensor.data_offsets);
        let mut end = 0;
        for (name, tensor) in order {
            let (from, to) = tensor.data_offsets;
            if from != end || to < from {
                return Err(format!("tensor {name} at bytes {from} to {to}, expected it to begin at {end}"));
            }
            let (dtype, shape) = (tensor.dtype, &tensor.shape.0);
            let size = numbers::size(dtype).ok_or_else(|| format!("tensor {name} of type {dtype:?}"))?;
            let expected = shape.iter().try_fold(size, |product, &size| product.checked_mul(size as u64));
            if expected != Some(to - from) {
                return Err(format!("tensor {name} of {shape:?} {dtype:?} in {} bytes", to - from));
            }
            end = to;
            // Within the file, as is checked below.
            tensor.data_offsets = (from.saturating_add(start), to.saturating_add(start));
        }
        match end == file - start {
            true => Ok(header),
            false => Err(format!("{} bytes behind the header, its tensors take {end}", file - start)),
        }
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Header;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut header = Header::default();
                let mut names = HashSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    if names.len() == MOST_TENSORS {
                        return Err(A::Error::custom(format!("more than {MOST_TENSORS} tensors")));
                    }
                    if name == "__metadata__" {
                        header.metadata = map.next_value::<Unique>()?.0;
                    } else {
                        header.tensors.push((name.clone(), map.next_value()?));
                    }
                    if names.contains(&name) {
                        return Err(A::Error::custom(format!("{name} twice")));
                    }
                    names.insert(name);
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sizes;
        impl<'de> Visitor<'de> for Sizes {
            type Value = Shape;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of sizes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Shape, A::Error> {
                let mut sizes = Vec::new();
                while let Some(size) = sequence.next_element()? {
                    if sizes.len() == MOST_DIMENSIONS {
                        return Err(A::Error::custom(format!("more than {MOST_DIMENSIONS} dimensions")));
                    }
                    sizes.push(size);
                }
                Ok(Shape(sizes))
            }
        }
        deserializer.deserialize_seq(Sizes)
    }
}

/// A map of texts in which no key is twice.
#[derive(Debug)]
pub(super) struct Unique(pub(super) BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = Unique;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique, A::Error> {
                let mut texts = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    if texts.len() == MOST_TENSORS {
                        return Err(A::Error::custom(format!("more than {MOST_TENSORS} entries")));
                    }
                    if texts.insert(key.clone(), value).is_some() {
                        return Err(A::Error::custom(format!("{key} twice")));
                    }
                }
                Ok(Unique(texts))
            }
        }
        deserializer.deserialize_map(Texts)
    }
}

/// `model.safetensors.index.json`: which file has which tensor.
#[derive(Debug, Deserialize)]
pub(super) struct ShardIndex {
    #[serde(default, rename = "metadata")]
    _metadata: IgnoredAny,
    pub(super) weight_map: Unique,
}

impl ShardIndex {
    /// Reads the file; `None` if it is JSON of another kind.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(bytes: &Bytes) -> Result<Self, String> {
        if bytes.length() > MOST_BYTES {
            return Err(format!("is an index of {} bytes, at most {MOST_BYTES} are read", bytes.length()));
        }
        let text = bytes.copy(0..bytes.length())?;
        serde_json::from_slice(&text).map_err(|error| format!("is no index of safetensors files: {error}"))
    }
}

/// Writes a safetensors header; the tensors' numbers follow it in the order of the list, without gaps.
///
/// The `safetensors` crate takes metadata from a hash map and writes them in its order, which is another one each time;
/// here the same model is the same bytes.
///
/// # Errors
/// Those of `to`.
pub(super) fn write(
    to: &mut dyn Write,
    metadata: &BTreeMap<String, String>,
    tensors: &[(&str, Dtype, &[usize])],
) -> io::Result<()> {
    #[derive(Serialize)]
    struct Place<'a> {
        dtype: Dtype,
        shape: &'a [usize],
        data_offsets: (u64, u64),
    }
    let mut header = serde_json::Map::from_iter([("__metadata__".to_owned(), serde_json::to_value(metadata)?)]);
    let mut end = 0;
    for &(name, dtype, shape) in tensors {
        let start = end;
        end += numbers::size(dtype).unwrap_or(0) * shape.iter().product::<usize>() as u64;
        header.insert(name.into(), serde_json::to_value(Place { dtype, shape, data_offsets: (start, end) })?);
    }
    let mut header = serde_json::to_vec(&header)?;
    // The numbers begin at a multiple of eight.
    header.resize(header.len().next_multiple_of(8), b' ');
    to.write_all(&(header.len() as u64).to_le_bytes())?;
    to.write_all(&header)
}
