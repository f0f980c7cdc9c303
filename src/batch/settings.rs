//! What a run makes of every photo, as it is written down.

use super::layer::{Layer, names};
use super::possible::check_auto;
use super::{BatchError, Naming, sha256, sha256_of_file};
use crate::image::{DecodeOptions, EncodeOptions, MaskSource, OutputFormat};
use crate::models::Model;
use crate::samplers::{Choice, Quality};
use crate::{Catalog, Error, Resize, RestoreOptions, Result, Task};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::ops::RangeInclusive;
use std::time::Duration;
use tweedie_operators::Description;

/// Everything that decides the bytes and the names of the outputs, but for the photos, their masks and the model.
///
/// As TOML it is one table: the task with its settings, and these:
///
/// ```
/// use tweedie::batch::{Layer, Settings};
///
/// let text = "task = 'upscale'\nscale = 4\nquality = 'draft'\nformat = 'webp'";
/// let settings = Settings::of(&[Layer::parse("an example", text)?])?;
/// assert_eq!(settings.naming().extension, "webp");
/// # Ok::<(), tweedie::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// How photos are read.
    #[serde(flatten)]
    pub reading: Reading,
    /// How samples are drawn.
    #[serde(flatten)]
    pub sampling: Sampling,
    /// How they are written.
    #[serde(flatten)]
    pub writing: Writing,
    /// What is wanted.
    #[serde(flatten)]
    pub task: Task,
}

/// How photos are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reading {
    /// Whether a truncated PNG is accepted, whose missing rows `inpaint` fills; default false.
    pub allow_truncated: bool,
    /// Photos with more pixels are refused; default 268 402 689.
    pub max_pixels: u64,
}

impl Default for Reading {
    fn default() -> Self {
        let DecodeOptions { max_pixels, allow_truncated } = DecodeOptions::default();
        Self { allow_truncated, max_pixels }
    }
}

/// How samples are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sampling {
    /// Seed of the run; that of a photo is [`seed`](super::seed()); default 0.
    pub seed: u64,
    /// Posterior samples of every photo, 1 to 10,000; default 1.
    pub samples: usize,
    /// Name of the method; default `auto`.
    pub sampler: String,
    /// How much time `auto` takes; default standard.
    pub quality: Quality,
    /// Noise levels, 1 to 1000; default the sampler's.
    pub steps: Option<usize>,
    /// Settings of the sampler that replace its defaults.
    pub set: toml::Table,
    /// Largest side of a window in pixels, 64 to 4096; default 512 or 384.
    pub tile: Option<usize>,
    /// What becomes of photos of another size than the model's own; default windows of it.
    pub resize: Resize,
    /// Seconds that a photo may take, at least 1: where they are too few, it is drawn with fewer noise levels, and the result
    /// depends on how fast the machine is; default no limit.
    pub photo_time_limit: Option<f64>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            seed: 0,
            samples: 1,
            sampler: "auto".into(),
            quality: Quality::Standard,
            steps: None,
            set: toml::Table::new(),
            tile: None,
            resize: Resize::Windows,
            photo_time_limit: None,
        }
    }
}

/// How samples are written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Writing {
    /// The format of samples, mean and spread, by its extension; default PNG.
    #[serde(with = "extension")]
    pub format: OutputFormat,
    /// Quality of JPEG, 1 to 100; default 95.
    pub jpeg_quality: u8,
    /// Whether the mean of the samples is written; default false.
    pub mean: bool,
    /// Whether their standard deviation is written; default false.
    pub std: bool,
    /// Whether a sheet of before and after is written; default false.
    pub sheet: bool,
    /// Metadata that is left out, as [`Strip`](crate::image::Strip) is written; default none.
    pub strip: Option<String>,
    /// Metadata that alone is kept; default all.
    pub keep: Option<String>,
}

impl Default for Writing {
    fn default() -> Self {
        Self {
            format: OutputFormat::Png,
            jpeg_quality: EncodeOptions::default().quality,
            mean: false,
            std: false,
            sheet: false,
            strip: None,
            keep: None,
        }
    }
}

mod extension {
    use crate::image::OutputFormat;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
    pub(super) fn serialize<S: Serializer>(format: &OutputFormat, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(format.extensions()[0])
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OutputFormat, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Keys that decide the names of outputs or the seeds, which are those of the whole run.
const OF_THE_RUN: [&str; 7] = ["task", "seed", "samples", "format", "mean", "std", "sheet"];

impl Settings {
    /// The settings that some layers make, the later ones winning; tables are merged key by key.
    ///
    /// # Errors
    /// [`BatchError::Settings`] with the origin of the layer for a key that is unknown or of another task, and for a value that
    /// cannot be; `Config` for one out of range.
    pub fn of(layers: &[Layer]) -> Result<Self> {
        let last = layers.last().map_or("settings", |layer| &layer.origin);
        let task = task_of(layers)?;
        let mut merged = Map::new();
        for layer in layers {
            layer.check_keys(&task)?;
            merge(&mut merged, layer.values()?);
        }
        Self::parse(last, Value::Object(merged))
    }

    /// These settings with those of one photo in their place.
    ///
    /// # Errors
    /// As [`of`](Self::of), and for keys that decide the names of outputs or the seeds.
    pub fn with(&self, layer: &Layer) -> Result<Self> {
        if let Some(key) = OF_THE_RUN.iter().find(|&&key| layer.table.contains_key(key)) {
            return Err(layer.refuse(format!("`{key}` is a setting of the whole run, not of one photo")));
        }
        layer.check_keys(self.task.name())?;
        let own = serde_json::to_value(self).map_err(|error| layer.refuse(error.to_string()))?;
        let Value::Object(mut merged) = own else { unreachable!("a struct is an object") };
        merge(&mut merged, layer.values()?);
        Self::parse(&layer.origin, Value::Object(merged))
    }

    fn parse(origin: &str, value: Value) -> Result<Self> {
        let settings: Self = serde_json::from_value(value).map_err(|error| {
            let reason = match error.to_string() {
                text if text.starts_with("missing field `kernel`") => {
                    "deblur needs a kernel, such as gaussian:1.6; nobody can tell it from the photo".into()
                }
                text => text,
            };
            BatchError::Settings { origin: origin.into(), reason }
        })?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<()> {
        let Sampling { samples, steps, tile, photo_time_limit, .. } = &self.sampling;
        let within = |name: &str, got: usize, range: RangeInclusive<usize>| {
            if range.contains(&got) {
                return Ok(());
            }
            let expected = format!("{} to {}", range.start(), range.end());
            Err(Error::Config { name: name.into(), got: got.to_string(), expected })
        };
        within("samples", *samples, 1..=10_000)?;
        within("jpeg_quality", self.writing.jpeg_quality.into(), 1..=100)?;
        steps.map_or(Ok(()), |steps| within("steps", steps, 1..=1000))?;
        tile.map_or(Ok(()), |tile| within("tile", tile, 64..=4096))?;
        if let Some(seconds) = photo_time_limit.filter(|&seconds| !(1.0..=365.0 * 86_400.0).contains(&seconds)) {
            let (name, expected) = ("photo_time_limit".into(), "at least 1 second".into());
            return Err(Error::Config { name, got: seconds.to_string(), expected });
        }
        if *samples < 2 && (self.writing.mean || self.writing.std) {
            let name = if self.writing.mean { "mean" } else { "std" };
            let expected = "at least 2, such as --samples 8".into();
            return Err(Error::Config {
                name: format!("number of samples for {name}"),
                got: samples.to_string(),
                expected,
            });
        }
        self.encoding()?;
        Ok(())
    }

    /// Refuses what can be refused before there is a photo.
    ///
    /// # Errors
    /// As [`Task::check`], and those of building the sampler; where a photo decides which one, those that all of them have.
    pub fn check_with(&self, catalog: &Catalog) -> Result<()> {
        self.task.check()?;
        if let Task::Restore(task) = &self.task {
            task.needs_operator()?;
        }
        let Sampling { sampler, steps, set, .. } = &self.sampling;
        if sampler == "auto" {
            return check_auto(&self.task, &self.sampling, catalog);
        }
        let choice = Choice::of(sampler, set.clone());
        steps.map_or(choice.clone(), |steps| choice.with_steps(steps)).build(&catalog.samplers).map(drop)
    }

    /// What the outputs are called.
    pub fn naming(&self) -> Naming {
        let Writing { format, mean, std, sheet, .. } = self.writing;
        Naming { extension: format.extensions()[0].into(), samples: self.sampling.samples, mean, std, sheet }
    }

    /// How photos are decoded.
    pub fn decoding(&self) -> DecodeOptions {
        let Reading { allow_truncated, max_pixels } = self.reading;
        DecodeOptions { max_pixels, allow_truncated }
    }

    /// How pictures are encoded, without their provenance.
    ///
    /// # Errors
    /// `Image` for metadata that there is not.
    pub fn encoding(&self) -> Result<EncodeOptions> {
        let Writing { jpeg_quality, strip, keep, .. } = &self.writing;
        let strip = crate::image::Strip::of(strip.as_deref(), keep.as_deref())?;
        Ok(EncodeOptions { quality: *jpeg_quality, strip, software: None })
    }

    /// How a photo with this seed is restored.
    pub fn options<'a>(&self, seed: u64, catalog: &'a Catalog) -> RestoreOptions<'a> {
        let Sampling { samples, sampler, quality, steps, set, tile, resize, .. } = &self.sampling;
        RestoreOptions {
            samples: *samples,
            seed,
            samplers: &catalog.samplers,
            sampler: sampler.clone(),
            quality: *quality,
            steps: *steps,
            settings: set.clone(),
            tile: *tile,
            resize: *resize,
            ..RestoreOptions::default()
        }
    }

    /// How long a photo may take.
    pub fn photo_time_limit(&self) -> Option<Duration> {
        self.sampling.photo_time_limit.map(Duration::from_secs_f64)
    }

    /// SHA-256 of all that decides the bytes of an output but for the photo, the content of its mask and the weights: of these
    /// settings as JSON, with the content of the files that they name in the place of their names; the kind of the mask; the
    /// instruction set, the precision and the class of the model, and its name if it has no hash.
    ///
    /// # Errors
    /// `Image` if a file cannot be read that the settings name.
    pub fn hash(&self, mask: Option<&MaskSource>, model: &Model) -> Result<String> {
        let mut settings = serde_json::to_value(self)
            .map_err(|error| BatchError::Settings { origin: "settings".into(), reason: error.to_string() })?;
        if let Some(path) = self.task.file() {
            let unreadable = |source| crate::image::ImageError::Read { path: path.into(), source };
            let mut contents = vec![sha256_of_file(path).map_err(unreadable)?];
            if let Task::Restore(_) = &self.task {
                let Description { operator, folder, .. } = Description::open(path)?;
                for file in files(&toml::Value::Table(operator)) {
                    let path = folder.join(file);
                    let unreadable = |source| crate::image::ImageError::Read { path: path.clone(), source };
                    contents.push(sha256_of_file(&path).map_err(unreadable)?);
                }
            }
            for key in ["hints", "operator", "kernel"] {
                if let Some(value) = settings.get_mut(key).filter(|value| !value.is_null()) {
                    *value = serde_json::json!({ "sha256": contents });
                }
            }
        }
        let mask = mask.map(|mask| match mask {
            MaskSource::File(_) => "file".into(),
            MaskSource::Alpha => "alpha".into(),
            MaskSource::Color { rgb, tolerance } => format!("color:{rgb:?},{tolerance}"),
        });
        let canonical = serde_json::json!({
            "settings": settings,
            "mask": mask,
            "instruction_set": model.instruction_set().to_string(),
            "precision": model.precision().to_string(),
            "class": model.class(),
            // A formula, or a folder, has no hash that would tell it from another.
            "model": model.hash.is_empty().then_some(&model.name),
        });
        Ok(sha256(sorted(&canonical).to_string().as_bytes()))
    }
}

/// The names of files in a description, as far as they are files.
fn files(value: &toml::Value) -> Vec<&str> {
    match value {
        toml::Value::Table(table) => {
            let own = table.iter().filter(|(key, _)| *key == "file").filter_map(|(_, value)| value.as_str());
            own.chain(table.values().flat_map(files)).collect()
        }
        toml::Value::Array(values) => values.iter().flat_map(files).collect(),
        _ => Vec::new(),
    }
}

/// The one task that all layers mean.
fn task_of(layers: &[Layer]) -> Result<String> {
    let mut task: Option<(&str, &Layer)> = None;
    for layer in layers {
        let Some(value) = layer.table.get("task") else { continue };
        let Some(name) = value.as_str().filter(|name| Task::NAMES.contains(name)) else {
            let unquoted = value.as_str().map_or(value.to_string(), String::from);
            return Err(Error::Unknown { kind: "task", name: unquoted, known: Task::NAMES.join(", ") });
        };
        match task {
            Some((other, before)) if other != name => {
                return Err(layer.refuse(format!("the task is {name}, but {} is for {other}", before.origin)));
            }
            _ => task = Some((name, layer)),
        }
    }
    match task {
        Some((name, _)) => Ok(name.into()),
        None => Err(Error::Config {
            name: "task".into(),
            got: "not given".into(),
            expected: format!("--task NAME with one of {}, or --preset NAME", names(&Task::NAMES)),
        }),
    }
}

/// Puts the entries of `changes` in the place of those of `values`; tables are merged.
fn merge(values: &mut Map<String, Value>, changes: Map<String, Value>) {
    for (key, change) in changes {
        match (values.get_mut(&key), change) {
            (Some(Value::Object(inner)), Value::Object(change)) => merge(inner, change),
            (_, change) => {
                values.insert(key, change);
            }
        }
    }
}

/// The same with the keys of every object in order.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            Value::Object(entries.into_iter().map(|(key, value)| (key.clone(), sorted(value))).collect())
        }
        Value::Array(values) => values.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::ModelOptions;

    fn settings(text: &str) -> Result<Settings> {
        Settings::of(&[Layer::parse("test", text).unwrap()])
    }

    fn message(text: &str) -> String {
        settings(text).unwrap_err().to_string()
    }

    #[test]
    fn later_layers_win_and_tables_are_merged() {
        let layers = [
            "task = 'denoise'\nnoise = 5\nset = { ridge = 0.1, annealing = { steps = 4 } }",
            "noise = 'auto'\nset.annealing.sigma_end = 0.02",
            "steps = 7",
        ];
        let layers: Vec<Layer> = layers.iter().map(|text| Layer::parse("test", text).unwrap()).collect();
        let settings = Settings::of(&layers).unwrap();
        assert_eq!(settings.task, Task::Denoise(crate::tasks::Denoise::default()));
        assert_eq!(settings.sampling.steps, Some(7));
        let set = "ridge = 0.1\nannealing = { steps = 4, sigma_end = 0.02 }".parse().unwrap();
        assert_eq!(settings.sampling.set, set);
    }

    #[test]
    fn what_is_unknown_or_out_of_range_is_refused_with_what_there_is() {
        let unknown = message("task = 'upscale'\nscael = 2");
        assert!(unknown.starts_with("test: unknown key `scael`; upscale takes scale, kernel, noise"), "{unknown}");
        assert!(unknown.contains("jpeg_quality"), "{unknown}");
        assert_eq!(message("task = 'denoise'\nscale = 2"), "test: `scale` is no setting of denoise, but of upscale");
        assert!(message("task = 'paint'").starts_with("unknown task `paint`; known: inpaint, colorize"));
        assert!(message("seed = 1").starts_with("task is not given"));
        assert!(message("task = 'deblur'").contains("deblur needs a kernel"));
        assert!(message("task = 'deblur'\nkernel = 'gauss:2'").contains("expected gaussian:SIGMA"));
        assert!(message("task = 'denoise'\nnoise = -1").contains("0 to 1000"));
        assert!(message("task = 'denoise'\nformat = 'heic'").contains("unknown output format `heic`"));
        assert_eq!(message("task = 'denoise'\nsteps = 0"), "steps is 0, expected 1 to 1000");
        assert_eq!(message("task = 'denoise'\nsamples = 0"), "samples is 0, expected 1 to 10000");
        assert!(message("task = 'denoise'\nmean = true").contains("--samples 8"));
    }

    #[test]
    fn the_keys_that_are_listed_are_those_that_are_taken() {
        let written = |task: &str, more: &str| {
            let value = serde_json::to_value(settings(&format!("task = '{task}'\n{more}")).unwrap()).unwrap();
            let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
            keys.sort();
            keys
        };
        for task in Task::NAMES {
            let more = if task == "deblur" { "kernel = 'disk:2'" } else { "" };
            let mut known: Vec<String> = super::super::layer::keys(task).map(String::from).collect();
            known.sort();
            assert_eq!(written(task, more), known, "{task}");
        }
    }

    #[test]
    fn settings_of_one_photo_leave_names_and_seeds_alone() {
        let all = settings("task = 'upscale'\nscale = 4\nseed = 18").unwrap();
        let one = all.with(&Layer::parse("cat.toml", "noise = 3\nquality = 'best'").unwrap()).unwrap();
        assert_eq!(one.sampling.quality, Quality::Best);
        assert_eq!(one.naming(), all.naming());
        let refused = |text: &str| all.with(&Layer::parse("cat.toml", text).unwrap()).unwrap_err().to_string();
        assert_eq!(refused("format = 'jpg'"), "cat.toml: `format` is a setting of the whole run, not of one photo");
        assert!(refused("mask_grow = 3").contains("no setting of upscale, but of inpaint"));
    }

    #[test]
    fn seeds_of_64_bits_survive_a_layer_above() {
        let mut all = settings("task = 'denoise'").unwrap();
        all.sampling.seed = u64::MAX;
        let one = all.with(&Layer::parse("cat.toml", "noise = 3").unwrap()).unwrap();
        assert_eq!(one.sampling.seed, u64::MAX);
    }

    #[test]
    fn the_hash_changes_with_what_decides_the_bytes_and_with_nothing_else() {
        let model = Model::open("gaussian:", &ModelOptions::default()).unwrap();
        let hash = |text: &str| settings(text).unwrap().hash(None, &model).unwrap();
        let base = hash("task = 'denoise'");
        assert_eq!(base, hash("noise = 'auto'\ntask = 'denoise'\nsamples = 1"));
        let others = ["noise = 0", "samples = 2", "quality = 'draft'", "seed = 1", "strip = 'gps'", "tile = 64"];
        for other in others {
            assert_ne!(base, hash(&format!("task = 'denoise'\n{other}")), "{other}");
        }
        let with_mask = settings("task = 'inpaint'").unwrap();
        assert_ne!(
            with_mask.hash(Some(&MaskSource::Alpha), &model).unwrap(),
            with_mask.hash(Some(&MaskSource::File("a.png".into())), &model).unwrap()
        );
    }

    #[test]
    fn the_hash_sees_the_content_of_files_and_not_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let model = Model::open("gaussian:", &ModelOptions::default()).unwrap();
        let hash = |name: &str, content: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            let layer = Layer::parse("test", &format!("task = 'restore'\noperator = '{}'", path.display())).unwrap();
            Settings::of(&[layer]).unwrap().hash(None, &model).unwrap()
        };
        let blur = "[operator]\nname = 'identity'\n";
        assert_eq!(hash("a.toml", blur), hash("b.toml", blur));
        assert_ne!(hash("a.toml", blur), hash("a.toml", &format!("{blur}[noise]\nname = 'gaussian'\nsigma = 0.1\n")));
    }
}
