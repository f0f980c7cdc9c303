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

use super::{Architecture, Family, Origin, Recipe, TensorIndex};
use crate::checkpoints::{Container, TensorFile};
use crate::hub::{Settings, Wanted, index};
use crate::priors::Parameterization;
use crate::{Error, Result};
use safetensors::tensor::Dtype;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Version of the native file that is written and read.
pub const NATIVE_VERSION: &str = "1";

/// A network's description, how it was trained, and its numbers, before they are packed for a device.
#[derive(Debug)]
pub struct Checkpoint {
    /// What the model is called.
    pub name: String,
    /// The network.
    pub network: Architecture,
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
    /// The family that its configuration is of.
    pub(crate) family: &'static str,
    /// The configuration, with how it was trained.
    pub(crate) config: Value,
    /// Whether the file of tensors is the whole checkpoint.
    native: bool,
    file: TensorFile,
    /// Where every parameter of the network lies.
    origins: BTreeMap<String, Origin>,
}

/// What a checkpoint says of itself, or what stands in its place.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) name: String,
    pub(super) metadata: BTreeMap<String, String>,
    /// Name of the family.
    pub(super) family: String,
    pub(super) config: Value,
    /// Noise levels that replace the family's.
    pub(super) sigma_range: (Option<f64>, Option<f64>),
}

/// Bytes of a text that is parsed, more than any configuration has.
const MOST_TEXT: usize = 1 << 20;

#[cfg(feature = "embedded-prior")]
static EMBEDDED: &[u8] = include_bytes!("../../models/photo-prior-v1.safetensors");

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
    /// `Model` with what is wrong and what to do; `Pickle` with the command that converts it.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Self::from_diffusers(path);
        }
        let model = path.to_string_lossy();
        if has_name_of_a_pickle(&model) || Container::of(path)?.is_pickle() {
            return Err(pickle(path));
        }
        Self::native(TensorFile::open(path)?, &model)
    }

    /// Reads a native file that is in memory.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_native(bytes: impl Into<Cow<'static, [u8]>>, model: &str) -> Result<Self> {
        let bytes = bytes.into();
        if has_name_of_a_pickle(model) || begins_as_pickle(&bytes) {
            return Err(pickle(Path::new(model)));
        }
        let file = TensorFile::from_bytes(bytes, model)?;
        if file.container.is_pickle() {
            return Err(pickle(Path::new(model)));
        }
        Self::native(file, model)
    }

    /// Reads tensors whose metadata are those of a native file.
    pub(super) fn native(file: TensorFile, model: &str) -> Result<Self> {
        let refuse = |reason: String| Error::Model { model: model.into(), reason };
        let metadata = file.metadata.clone();
        let field = |key: &str| {
            let advice = "is it a native tweedie file? a diffusers checkpoint is loaded by its folder, others once \
                          `tweedie models convert` has made a native file of them";
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
        let config = field("config")?;
        check_length("config", config.len() as u64).map_err(refuse)?;
        let mut config: Value = serde_json::from_str(&config).map_err(|error| refuse(format!("config: {error}")))?;
        if let (Some(text), Some(config)) = (metadata.get("parameterization"), config.as_object_mut()) {
            check_length("parameterization", text.len() as u64).map_err(refuse)?;
            let value = serde_json::from_str(text)
                .map_err(|error| refuse(format!("has parameterization `{text}`: {error}")))?;
            config.insert("parameterization".into(), value);
        }
        let sigma_range = (number("sigma_min")?, number("sigma_max")?);
        let (name, family) = (field("name")?, field("architecture")?);
        let mut checkpoint = Self::new(file, model, Said { name, metadata, family, config, sigma_range })?;
        checkpoint.native = true;
        Ok(checkpoint)
    }

    /// Reads a folder as diffusers writes it: a pipeline with `unet/` and `scheduler/`, or the two side by side.
    fn from_diffusers(folder: &Path) -> Result<Self> {
        let said = Said::of_diffusers(folder)?;
        match diffusers_weights(folder)? {
            weights if Container::of(&weights)?.is_pickle() => Err(pickle(folder)),
            weights => Self::new(TensorFile::open(&weights)?, &folder.to_string_lossy(), said),
        }
    }

    /// Reads the tensors of a file as their family says.
    pub(super) fn new(file: TensorFile, model: &str, said: Said) -> Result<Self> {
        let refuse = |reason: String| Error::Model { model: model.into(), reason };
        let Said { name, mut metadata, family, config, sigma_range: (low, high) } = said;
        let family = Family::named(&family).map_err(refuse)?;
        let index = file.index();
        let mut recipe = (family.recipe)(&config, &index).map_err(refuse)?;
        recipe.sigma_range = (low.unwrap_or(recipe.sigma_range.0), high.unwrap_or(recipe.sigma_range.1));
        recipe.check().map_err(refuse)?;
        let names = checked(&recipe, &index, file.container).map_err(refuse)?;
        let finite = names.iter().try_for_each(|name| file.check_finite(name));
        finite.map_err(|error| match error {
            Error::Model { reason, .. } => refuse(reason),
            other => other,
        })?;
        let dtype = names.first().map_or(Dtype::F32, |name| index[name].0);
        for (key, value) in [("sigma_min", recipe.sigma_range.0), ("sigma_max", recipe.sigma_range.1)] {
            metadata.entry(key.into()).or_insert_with(|| value.to_string());
        }
        let origins = recipe.origins();
        let Recipe { network, parameterization, sigma_range, native_size, .. } = recipe;
        let native = false;
        let family = family.name;
        Ok(Self {
            name,
            network,
            parameterization,
            sigma_range,
            native_size,
            metadata,
            dtype,
            family,
            config,
            native,
            file,
            origins,
        })
    }

    /// SHA-256 of the native file in hexadecimal; empty for a folder, which is more than one file.
    ///
    /// # Errors
    /// `Model` if the file cannot be read.
    pub fn hash(&self) -> Result<String> {
        match self.native {
            true => Ok(self.file.hash()?.unwrap_or_default()),
            false => Ok(String::new()),
        }
    }

    /// The values of the parameter called `name`, in single precision.
    pub fn parameter(&self, name: &str) -> Option<Vec<f32>> {
        let origin = self.origins.get(name)?;
        origin.values(&self.file.numbers(&origin.tensor).ok()?)
    }

    /// Writes the checkpoint as a native file to `to`, which is called `path` in messages, with these entries added to its
    /// metadata. All tensors are kept under their own names.
    ///
    /// Numbers are rounded to `dtype`; without one they stay as they are, except that double precision becomes single.
    ///
    /// # Errors
    /// `Model` for a number that `dtype` cannot hold; `Io` if the file cannot be written.
    pub fn write(
        &self,
        additions: &[(&str, &str)],
        dtype: Option<Dtype>,
        (to, path): (&mut dyn Write, &Path),
    ) -> Result<()> {
        let mut metadata = self.metadata.clone();
        metadata.extend(additions.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let index = self.file.index();
        let names: Vec<&str> = index.keys().map(String::as_str).collect();
        self.file.write(&names, &metadata, dtype, (to, path))
    }
}

impl Said {
    /// What a folder of diffusers says in its files.
    pub(super) fn of_diffusers(folder: &Path) -> Result<Self> {
        let model = folder.to_string_lossy().into_owned();
        let refuse = |reason: String| Error::Model { model: model.clone(), reason };
        let unet = if folder.join("unet").is_dir() { folder.join("unet") } else { folder.to_path_buf() };
        let config = read_text(&unet.join("config.json"))?;
        let mut config: Value =
            serde_json::from_str(&config).map_err(|error| refuse(format!("config.json: {error}")))?;
        let family = config["_class_name"].as_str().unwrap_or("UNet2DModel").to_owned();
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
        let name = folder.file_name().map_or_else(|| model.clone(), |name| name.to_string_lossy().into_owned());
        Ok(Self::new(name, family, config))
    }

    /// The metadata of a native file of this name, family and configuration.
    pub(super) fn new(name: String, family: String, config: Value) -> Self {
        let metadata = native_metadata(&name, &family, &config);
        Self { name, metadata, family, config, sigma_range: (None, None) }
    }
}

/// The metadata that every native file has, of a model of this name, family and configuration.
pub(crate) fn native_metadata(name: &str, family: &str, config: &Value) -> BTreeMap<String, String> {
    let config = config.to_string();
    let entries = [
        ("format", "tweedie"),
        ("version", NATIVE_VERSION),
        ("name", name),
        ("architecture", family),
        ("config", &config),
    ];
    entries.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// The file of a diffusers folder that holds the weights, those that cannot run anything first.
pub(super) fn diffusers_weights(folder: &Path) -> Result<PathBuf> {
    const NAMES: [&str; 5] = [
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.safetensors.index.json",
        "model.safetensors",
        "diffusion_pytorch_model.bin",
        "pytorch_model.bin",
    ];
    let unet = if folder.join("unet").is_dir() { folder.join("unet") } else { folder.to_path_buf() };
    let found = NAMES.iter().map(|name| unet.join(name)).find(|path| path.exists());
    found.ok_or_else(|| {
        let reason = format!("has no weights; looked for {}", NAMES.join(", "));
        Error::Model { model: folder.to_string_lossy().into_owned(), reason }
    })
}

/// An archive, or a stream of one of the protocols 2 to 5.
fn begins_as_pickle(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || matches!(bytes, [0x80, 2..=5, ..])
}

fn has_name_of_a_pickle(model: &str) -> bool {
    ["pt", "pth", "ckpt", "bin", "pkl"].iter().any(|end| model.ends_with(&format!(".{end}")))
}

/// What to do with a pickle.
fn pickle(path: &Path) -> Error {
    let quoted = |path: &Path| match path.to_string_lossy() {
        plain if plain.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./_-+=@:".contains(&byte)) => plain.into(),
        odd => format!("'{}'", odd.replace('\'', r"'\''")),
    };
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    let command =
        format!("tweedie models convert {} {}", quoted(path), quoted(Path::new(&format!("{name}.safetensors"))));
    Error::Pickle { model: path.to_string_lossy().into_owned(), command }
}

/// The tensors that the recipe needs: each is there, of its shape and of a known type, and there is no other that is not
/// known to be harmless.
fn checked(recipe: &Recipe, index: &TensorIndex, container: Container) -> Result<Vec<String>, String> {
    let expected = recipe.expected()?;
    let listed = |names: &[&str]| {
        let more = names.len().saturating_sub(10);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("{}{more}", names[..names.len().min(10)].join(", "))
    };
    let missing: Vec<&str> = expected.keys().filter(|name| !index.contains_key(*name)).map(String::as_str).collect();
    if !missing.is_empty() {
        return Err(format!("lacks {} tensors: {}", missing.len(), listed(&missing)));
    }
    let ignored: BTreeSet<&String> = recipe.ignored.iter().collect();
    let unknown = |name: &&String| !expected.contains_key(*name) && !ignored.contains(name);
    let extra: Vec<&str> = index.keys().filter(unknown).map(String::as_str).collect();
    if !extra.is_empty() {
        return Err(format!("has {} tensors its network does not use: {}", extra.len(), listed(&extra)));
    }
    for (name, shape) in &expected {
        let (dtype, got) = &index[name];
        if got != shape {
            return Err(format!("tensor {name}: expected shape {shape:?}, got {got:?}"));
        }
        // A conversion makes single of double precision; a native file has none.
        let double = *dtype == Dtype::F64 && container.is_pickle();
        if !double && !matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(format!("tensor {name}: expected type F32, F16 or BF16, got {dtype:?}"));
        }
    }
    Ok(expected.into_keys().collect())
}

/// Whether a text of so many bytes is short enough to be parsed.
pub(super) fn check_length(what: &str, length: u64) -> Result<(), String> {
    match length <= MOST_TEXT as u64 {
        true => Ok(()),
        false => Err(format!("{what}: {length} bytes, at most {MOST_TEXT} are read")),
    }
}

/// Reads a regular file that is no longer than a configuration; anything else could block, or never end.
pub(super) fn read_text(path: &Path) -> Result<String> {
    let refuse = |reason: String| Error::Model { model: path.to_string_lossy().into_owned(), reason };
    let kind = fs::metadata(path).map_err(|source| unreadable(path, &source))?;
    if !kind.is_file() {
        return Err(refuse("is not a regular file".into()));
    }
    check_length("is no configuration", kind.len()).map_err(refuse)?;
    fs::read_to_string(path).map_err(|source| unreadable(path, &source))
}

fn unreadable(path: &Path, source: &std::io::Error) -> Error {
    let reason = match source.kind() {
        std::io::ErrorKind::NotFound => "no such file".into(),
        _ => format!("cannot be read: {source}"),
    };
    Error::Model { model: path.to_string_lossy().into_owned(), reason }
}
