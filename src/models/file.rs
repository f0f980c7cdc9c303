//! Checkpoints: a diffusers folder, or the native single file.
//!
//! The native file is a safetensors file whose metadata say what the tensors are:
//!
//! | key | value |
//! | --- | --- |
//! | `format` | `tweedie` |
//! | `version` | `1`; a reader refuses what it does not know |
//! | `name` | what the model is called |
//! | `architecture` | the family, one of [`FAMILIES`](super::FAMILIES) by its name |
//! | `config` | the family's own configuration, JSON |
//! | `parameterization` | JSON, `{"edm": {"sigma_data": 0.5}}`, where the configuration does not say it |
//! | `sigma_min`, `sigma_max` | noise levels the model is good for, pixels in [-1, 1]; those of the training otherwise |
//! | `licence`, `provenance` | of the weights |
//! | `self_test` | JSON: a noise level and some values of the denoised test pattern |

use super::{Family, Origin, Recipe, TensorIndex};
use crate::hub::{Settings, Wanted, index};
use crate::priors::Parameterization;
use crate::{Error, Result};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::ops::Range;
use std::path::Path;
use tweedie_kernels::network::Network;

/// Version of the native file that is written and read.
pub const NATIVE_VERSION: &str = "1";

/// A network's description, how it was trained, and its numbers, before they are packed for a device.
#[derive(Debug)]
pub struct Checkpoint {
    /// What the model is called.
    pub name: String,
    /// The network.
    pub network: Network,
    /// How it was trained.
    pub parameterization: Parameterization,
    /// Smallest and largest noise level it is good for.
    pub sigma_range: (f64, f64),
    /// Side of the images it was trained on.
    pub native_size: Option<usize>,
    /// The file's metadata, or what stands in its place for a folder.
    pub metadata: BTreeMap<String, String>,
    /// Type of the numbers in the file.
    pub dtype: Dtype,
    /// Whether `bytes` are the whole checkpoint.
    native: bool,
    bytes: Cow<'static, [u8]>,
    /// Where every parameter of the network lies.
    origins: BTreeMap<String, Origin>,
    /// Type, shape and place in `bytes` of every tensor.
    index: BTreeMap<String, (Dtype, Vec<usize>, Range<usize>)>,
}

#[cfg(feature = "embedded-prior")]
static EMBEDDED: &[u8] = include_bytes!("../../models/photo-prior-v0.safetensors");

impl Checkpoint {
    /// Reads `embedded`, a native `.safetensors` file, a diffusers folder, or what the cache holds of a model of
    /// [`index`] or of a repository of the hub. Nothing is fetched.
    ///
    /// # Errors
    /// `Model` if there is no such model, and those of [`open`](Self::open).
    pub fn named(name: &str) -> Result<Self> {
        if name == "embedded" {
            return Self::embedded();
        }
        let path = Path::new(name);
        if path.exists() {
            return Self::open(path);
        }
        if index().iter().any(|entry| entry.embedded && entry.name == name) {
            return Self::embedded();
        }
        let Some(wanted) = Wanted::parse(name) else {
            let known = "embedded, gaussian:mean=M,std=S, mixture:FILE, a .safetensors file, a diffusers folder, a name of \
                         `tweedie models list`, owner/repo of the hub";
            return Err(Error::Model { model: name.into(), reason: format!("there is no such model; known: {known}") });
        };
        let mut checkpoint = Self::open(&wanted?.open(&Settings::from_env())?)?;
        if !checkpoint.native {
            // The folder in the cache is called after a commit.
            checkpoint.name = name.into();
            checkpoint.metadata.insert("name".into(), name.into());
        }
        Ok(checkpoint)
    }

    /// The prior inside the binary.
    ///
    /// # Errors
    /// `Model` if the program was built without it.
    #[cfg(feature = "embedded-prior")]
    pub fn embedded() -> Result<Self> {
        Self::from_native(EMBEDDED, "embedded")
    }

    /// The prior inside the binary.
    ///
    /// # Errors
    /// `Model`: the program was built without it.
    #[cfg(not(feature = "embedded-prior"))]
    pub fn embedded() -> Result<Self> {
        let reason = "built without the `embedded-prior` feature; name a file with --model";
        Err(Error::Model { model: "embedded".into(), reason: reason.into() })
    }

    /// Reads a native file or a diffusers folder.
    ///
    /// # Errors
    /// `Model` with what is wrong and what to do.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_dir() { Self::from_diffusers(path) } else { Self::from_native(read(path)?, &path.to_string_lossy()) }
    }

    /// Reads a native file that is in memory.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_native(bytes: impl Into<Cow<'static, [u8]>>, model: &str) -> Result<Self> {
        let bytes = bytes.into();
        let refuse = |reason: String| Error::Model { model: model.into(), reason };
        let pickle = ["pt", "pth", "ckpt", "bin", "pkl"].iter().any(|end| model.ends_with(&format!(".{end}")));
        if pickle || bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(&[0x80, 0x02]) {
            let advice = "is a pickle, which can run code; only safetensors files are loaded: convert it first";
            return Err(refuse(advice.into()));
        }
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| refuse(describe(&error)))?;
        let metadata: BTreeMap<String, String> = header.metadata().clone().unwrap_or_default().into_iter().collect();
        let field = |key: &str| {
            let advice = "is it a native tweedie file? a diffusers checkpoint is loaded by its folder";
            metadata.get(key).cloned().ok_or_else(|| refuse(format!("has no `{key}` in its metadata; {advice}")))
        };
        let version = field("version")?;
        if field("format")? != "tweedie" || version != NATIVE_VERSION {
            let expected = format!("format `tweedie` version `{NATIVE_VERSION}`");
            return Err(refuse(format!("has format `{}` version `{version}`, expected {expected}", field("format")?)));
        }
        let number = |key: &str| -> Result<Option<f64>> {
            let Some(text) = metadata.get(key) else { return Ok(None) };
            let refuse = || refuse(format!("has `{key}` = `{text}`, expected a number"));
            text.parse().map(Some).map_err(|_| refuse())
        };
        let mut config: Value =
            serde_json::from_str(&field("config")?).map_err(|error| refuse(format!("config: {error}")))?;
        if let (Some(text), Some(config)) = (metadata.get("parameterization"), config.as_object_mut()) {
            let value = serde_json::from_str(text)
                .map_err(|error| refuse(format!("has parameterization `{text}`: {error}")))?;
            config.insert("parameterization".into(), value);
        }
        let range = (number("sigma_min")?, number("sigma_max")?);
        let (name, family) = (field("name")?, field("architecture")?);
        Self::new(bytes, model, (name, metadata), (&family, &config), range)
    }

    /// Reads a folder as diffusers writes it: a pipeline with `unet/` and `scheduler/`, or the two side by side.
    fn from_diffusers(folder: &Path) -> Result<Self> {
        let model = folder.to_string_lossy().into_owned();
        let refuse = |reason: String| Error::Model { model: model.clone(), reason };
        let unet = if folder.join("unet").is_dir() { folder.join("unet") } else { folder.to_path_buf() };
        let config = read_text(&unet.join("config.json"))?;
        let mut config: Value =
            serde_json::from_str(&config).map_err(|error| refuse(format!("config.json: {error}")))?;
        let class = config["_class_name"].as_str().unwrap_or("UNet2DModel").to_owned();
        let scheduler = [folder.join("scheduler/scheduler_config.json"), folder.join("scheduler_config.json")];
        let Some(scheduler) = scheduler.iter().find(|path| path.exists()) else {
            return Err(refuse("has no scheduler_config.json, which says how the network was trained".into()));
        };
        let scheduler: Value = serde_json::from_str(&read_text(scheduler)?)
            .map_err(|error| refuse(format!("scheduler_config.json: {error}")))?;
        match config.as_object_mut() {
            Some(config) => drop(config.insert("scheduler".into(), scheduler)),
            None => return Err(refuse("config.json: expected an object".into())),
        }
        let weights = unet.join("diffusion_pytorch_model.safetensors");
        if !weights.exists() && unet.join("diffusion_pytorch_model.bin").exists() {
            let advice = "has its weights as a pickle, which can run code; only safetensors files are loaded";
            return Err(refuse(format!("{advice}: convert it first")));
        }
        let name = folder.file_name().map_or_else(|| model.clone(), |name| name.to_string_lossy().into_owned());
        let metadata = BTreeMap::from([
            ("format".into(), "tweedie".into()),
            ("version".into(), NATIVE_VERSION.into()),
            ("name".into(), name.clone()),
            ("architecture".into(), class.clone()),
            ("config".into(), config.to_string()),
        ]);
        let mut checkpoint =
            Self::new(read(&weights)?.into(), &model, (name, metadata), (&class, &config), (None, None))?;
        checkpoint.native = false;
        Ok(checkpoint)
    }

    /// Reads the tensors of a safetensors file as its family says; noise levels that are given replace the family's.
    fn new(
        bytes: Cow<'static, [u8]>,
        model: &str,
        (name, mut metadata): (String, BTreeMap<String, String>),
        (family, config): (&str, &Value),
        (low, high): (Option<f64>, Option<f64>),
    ) -> Result<Self> {
        let refuse = |reason: String| Error::Model { model: model.into(), reason };
        let family = Family::named(family).map_err(refuse)?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| refuse(describe(&error)))?;
        let shapes: TensorIndex =
            tensors.iter().map(|(name, view)| (name.to_owned(), (view.dtype(), view.shape().to_vec()))).collect();
        let mut recipe = (family.recipe)(config, &shapes).map_err(refuse)?;
        recipe.sigma_range = (low.unwrap_or(recipe.sigma_range.0), high.unwrap_or(recipe.sigma_range.1));
        recipe.check().map_err(refuse)?;
        let index = checked(&recipe, &tensors, bytes.as_ptr().addr()).map_err(refuse)?;
        drop(tensors);
        let dtype = index.values().next().map_or(Dtype::F32, |(dtype, ..)| *dtype);
        for (key, value) in [("sigma_min", recipe.sigma_range.0), ("sigma_max", recipe.sigma_range.1)] {
            metadata.entry(key.into()).or_insert_with(|| value.to_string());
        }
        let origins = recipe.origins();
        let Recipe { network, parameterization, sigma_range, native_size, .. } = recipe;
        let native = true;
        Ok(Self {
            name,
            network,
            parameterization,
            sigma_range,
            native_size,
            metadata,
            dtype,
            native,
            bytes,
            origins,
            index,
        })
    }

    /// SHA-256 of the native file in hexadecimal; empty for a folder, which is more than one file.
    pub fn hash(&self) -> String {
        match self.native {
            true => Sha256::digest(&self.bytes).iter().map(|byte| format!("{byte:02x}")).collect(),
            false => String::new(),
        }
    }

    /// The values of the parameter called `name`, in single precision.
    pub fn parameter(&self, name: &str) -> Option<Vec<f32>> {
        let origin = self.origins.get(name)?;
        let (dtype, _, place) = self.index.get(&origin.tensor)?;
        origin.values(&numbers(*dtype, &self.bytes[place.clone()])?)
    }

    /// The checkpoint as a native file in bf16, with these entries added to its metadata.
    ///
    /// # Errors
    /// `Model` if a value changes by being rounded to bf16 (the file would not be the same model).
    pub fn to_native(&self, additions: &[(&str, &str)]) -> Result<Vec<u8>> {
        let refuse = |reason: String| Error::Model { model: self.name.clone(), reason };
        let mut tensors: Vec<(&str, Vec<usize>, Vec<u8>)> = Vec::new();
        for (name, (dtype, shape, place)) in &self.index {
            let values = numbers(*dtype, &self.bytes[place.clone()]).unwrap_or_default();
            let mut bytes = Vec::with_capacity(values.len() * 2);
            for value in values {
                let half = half::bf16::from_f32(value);
                if half.to_f32() != value {
                    return Err(refuse(format!("tensor {name} is not exactly representable in bf16")));
                }
                bytes.extend(half.to_le_bytes());
            }
            tensors.push((name, shape.clone(), bytes));
        }
        let mut metadata = self.metadata.clone();
        metadata.extend(additions.iter().map(|(key, value)| (key.to_string(), value.to_string())));
        let views = tensors
            .iter()
            .map(|(name, shape, bytes)| Ok((*name, TensorView::new(Dtype::BF16, shape.clone(), bytes)?)))
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
            .map_err(|error| refuse(describe(&error)))?;
        let file = safetensors::serialize(views, None).map_err(|error| refuse(describe(&error)))?;
        with_metadata(&file, &metadata).ok_or_else(|| refuse("cannot be written as a safetensors file".into()))
    }
}

/// A safetensors file with `metadata` in its header.
///
/// The crate takes them from a hash map and writes them in its order, which is another one each time; the same model must
/// be the same bytes.
fn with_metadata(file: &[u8], metadata: &BTreeMap<String, String>) -> Option<Vec<u8>> {
    let length = usize::try_from(u64::from_le_bytes(file.get(..8)?.try_into().ok()?)).ok()?;
    let (header, data) = file.get(8..)?.split_at_checked(length)?;
    let mut header: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header).ok()?;
    header.insert("__metadata__".into(), serde_json::to_value(metadata).ok()?);
    let mut header = serde_json::to_vec(&header).ok()?;
    // The numbers begin at a multiple of eight.
    header.resize(header.len().next_multiple_of(8), b' ');
    Some([&(header.len() as u64).to_le_bytes(), header.as_slice(), data].concat())
}

/// Every tensor that the recipe needs is there, of its shape and of a known type, finite, and no other: their types, shapes
/// and places in the file, whose bytes begin at the address `start`.
fn checked(
    recipe: &Recipe,
    tensors: &SafeTensors<'_>,
    start: usize,
) -> Result<BTreeMap<String, (Dtype, Vec<usize>, Range<usize>)>, String> {
    let expected = recipe.expected()?;
    let listed = |mut names: Vec<&str>| {
        names.sort_unstable();
        let more = names.len().saturating_sub(10);
        names.truncate(10);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{more}", names.join(", "))
    };
    let names: HashSet<&str> = tensors.names().into_iter().collect();
    let missing: Vec<&str> = expected.keys().map(String::as_str).filter(|name| !names.contains(name)).collect();
    if !missing.is_empty() {
        return Err(format!("lacks {} tensors: {}", missing.len(), listed(missing)));
    }
    let ignored: HashSet<&str> = recipe.ignored.iter().map(String::as_str).collect();
    let unknown = |name: &&str| !expected.contains_key(*name) && !ignored.contains(name);
    let extra: Vec<&str> = names.iter().copied().filter(unknown).collect();
    if !extra.is_empty() {
        return Err(format!("has {} tensors its network does not use: {}", extra.len(), listed(extra)));
    }
    let mut index = BTreeMap::new();
    for (name, view) in tensors.iter() {
        let Some(shape) = expected.get(name) else { continue };
        if view.shape() != shape {
            return Err(format!("tensor {name}: expected shape {shape:?}, got {:?}", view.shape()));
        }
        let values = numbers(view.dtype(), view.data())
            .ok_or_else(|| format!("tensor {name}: expected type F32, F16 or BF16, got {:?}", view.dtype()))?;
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(format!("tensor {name} holds {value}, expected finite numbers"));
        }
        let from = view.data().as_ptr().addr() - start;
        index.insert(name.to_owned(), (view.dtype(), shape.clone(), from..from + view.data().len()));
    }
    Ok(index)
}

fn describe(error: &safetensors::SafeTensorError) -> String {
    format!("is not a whole safetensors file ({error}); fetch or convert it again")
}

fn numbers(dtype: Dtype, data: &[u8]) -> Option<Vec<f32>> {
    match dtype {
        Dtype::F32 => Some(data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()),
        Dtype::F16 => Some(data.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()),
        Dtype::BF16 => Some(data.chunks_exact(2).map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect()),
        _ => None,
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|source| unreadable(path, &source))
}

fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|source| unreadable(path, &source))
}

fn unreadable(path: &Path, source: &std::io::Error) -> Error {
    let reason = match source.kind() {
        std::io::ErrorKind::NotFound => "no such file".into(),
        _ => format!("cannot be read: {source}"),
    };
    Error::Model { model: path.to_string_lossy().into_owned(), reason }
}
