//! What a training run is to do: a TOML file.

use super::average::Decay;
use super::chosen::ObjectiveConfig;
use super::objective::{expectation, overlay};
use super::photos::DataConfig;
use super::rate::LearningRate;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;
use tweedie_kernels::Precision;

/// A training run: data, network, objective, optimiser, averages, what is written when.
///
/// Everything that the resulting numbers depend on is here; two runs of one configuration on a CPU are the same bytes.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// What the model is to be called.
    pub name: String,
    /// Seed of every random number; default 0.
    #[serde(default)]
    pub seed: u64,
    /// Steps of the optimiser.
    pub steps: u64,
    /// Numbers in which products are taken, `f32` or `bf16`; default f32.
    #[serde(default)]
    pub precision: PrecisionName,
    /// Where examples come from; a run in memory needs to say nothing.
    #[serde(default)]
    pub data: DataConfig,
    /// What is trained.
    #[serde(default)]
    pub model: ModelConfig,
    /// What it is trained to do; default `{ name = "edm" }`.
    #[serde(default)]
    pub objective: ObjectiveConfig,
    /// How.
    #[serde(default)]
    pub optimiser: OptimiserConfig,
    /// Averages of the weights; the first is the one that is validated and exported. Default `rate = 0.999`.
    #[serde(default = "averages")]
    pub average: Vec<Decay>,
    /// What is measured on held-out photos.
    #[serde(default)]
    pub validation: ValidationConfig,
    /// What is written.
    #[serde(default)]
    pub checkpoint: CheckpointConfig,
    /// Steps between two lines of the log; default 50.
    #[serde(default = "fifty")]
    pub log_every: u64,
}

/// As [`Precision`] is written in a file.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionName {
    /// Single precision.
    #[default]
    F32,
    /// Factors of products rounded to 8 bits, sums in single precision.
    Bf16,
}

impl From<PrecisionName> for Precision {
    fn from(name: PrecisionName) -> Self {
        match name {
            PrecisionName::F32 => Self::F32,
            PrecisionName::Bf16 => Self::Bf16,
        }
    }
}

/// What is trained: a family of checkpoints by its name, and its configuration, or a checkpoint to go on from.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Name of the family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// Its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
    /// A checkpoint whose numbers, and without an `architecture` whose network, training starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_from: Option<String>,
}

/// How parameters are moved.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// AdamW for all.
    #[default]
    Adam,
    /// [`Muon`](super::Muon) for the filters of convolutions between 16 channels or more, AdamW for the others.
    Muon,
}

/// The optimiser and its learning rate.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OptimiserConfig {
    /// `adam` or `muon`; default adam.
    #[serde(default)]
    pub method: Method,
    /// Examples of a pass through the network; default 16.
    #[serde(default = "sixteen")]
    pub batch: usize,
    /// Passes whose gradients are averaged to a step; default 1.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// The learning rate.
    #[serde(default)]
    pub learning_rate: LearningRate,
    /// Largest norm of the gradient of all parameters; a longer one is shortened to it. Default 1; 0 for no limit.
    #[serde(default = "clip")]
    pub clip: f64,
    /// Decoupled weight decay; default 0.
    #[serde(default)]
    pub weight_decay: f64,
    /// Decays of the two moments; default 0.9 and 0.999.
    #[serde(default = "decays")]
    pub decays: (f64, f64),
    /// Added to the root of the second moment; default 1e-8.
    #[serde(default = "epsilon")]
    pub epsilon: f64,
}

impl Default for OptimiserConfig {
    fn default() -> Self {
        Self {
            method: Method::default(),
            batch: sixteen(),
            accumulate: one(),
            learning_rate: LearningRate::default(),
            clip: clip(),
            weight_decay: 0.0,
            decays: decays(),
            epsilon: epsilon(),
        }
    }
}

/// What is measured on held-out photos.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationConfig {
    /// Steps between two validations; default 1000; 0 for none but the last.
    #[serde(default = "thousand")]
    pub every: u64,
    /// Noise levels at which photos are denoised, in the unit of pixels in [-1, 1]; default 10, 25, 50, 100 of 255.
    #[serde(default = "sigmas")]
    pub sigmas: Vec<f64>,
    /// Side of the square in the middle of a photo that is looked at, in pixels; default 256.
    #[serde(default = "side")]
    pub crop: usize,
    /// Images drawn from the prior; default 8.
    #[serde(default = "eight")]
    pub samples: usize,
    /// Side of a drawn image, in pixels; default that of the patches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_size: Option<usize>,
}

impl Default for ValidationConfig {
    fn default() -> Self {
        Self { every: thousand(), sigmas: sigmas(), crop: side(), samples: eight(), sample_size: None }
    }
}

/// What is written, and when.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Steps between two checkpoints; default 1000.
    #[serde(default = "thousand")]
    pub every: u64,
    /// Checkpoints that are kept, the newest, beside the one that was best on held-out photos; default 2.
    #[serde(default = "two")]
    pub keep: usize,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { every: thousand(), keep: two() }
    }
}

fn averages() -> Vec<Decay> {
    vec![Decay::Rate(0.999)]
}

fn one() -> usize {
    1
}

fn two() -> usize {
    2
}

fn eight() -> usize {
    8
}

fn sixteen() -> usize {
    16
}

fn side() -> usize {
    256
}

fn fifty() -> u64 {
    50
}

fn thousand() -> u64 {
    1000
}

fn clip() -> f64 {
    1.0
}

fn epsilon() -> f64 {
    1e-8
}

fn decays() -> (f64, f64) {
    (0.9, 0.999)
}

fn sigmas() -> Vec<f64> {
    [10.0, 25.0, 50.0, 100.0].map(|sigma| sigma / 127.5).to_vec()
}

fn refuse<T>(name: &str, got: impl ToString, expected: impl Into<String>) -> Result<T> {
    Err(Error::Config { name: name.into(), got: got.to_string(), expected: expected.into() })
}

impl TrainConfig {
    /// Reads a file, with `settings` in the place of what it says; names of files start from its folder.
    ///
    /// # Errors
    /// `Io` for a file that cannot be read; `Config` for text that is no TOML, keys that are unknown and values out of range.
    pub fn open(path: &Path, settings: &[toml::Table]) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.into(), source })?;
        let invalid = |error: toml::de::Error| Error::Config {
            name: path.display().to_string(),
            got: error.to_string().trim_end().to_owned(),
            expected: "a training run as docs/training.md describes it".into(),
        };
        let mut table: toml::Table = text.parse().map_err(invalid)?;
        for settings in settings {
            overlay(&mut table, settings.clone());
        }
        let mut config: Self = table.try_into().map_err(invalid)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        if config.data.folder.as_os_str().is_empty() {
            return refuse("data.folder", "empty", "a folder of photos");
        }
        config.data.folder = folder.join(&config.data.folder);
        config.data.validation = config.data.validation.map(|validation| folder.join(validation));
        config.check()?;
        Ok(config)
    }

    /// Whether every value is one that can be.
    ///
    /// # Errors
    /// `Config` with the first that is not.
    pub fn check(&self) -> Result<()> {
        let whole = |name: &str, got: u64, least: u64, most: u64| match (least..=most).contains(&got) {
            true => Ok(()),
            false => refuse(name, got, format!("{least} to {most}")),
        };
        let number = |name: &str, got: f64, least: f64, most: f64| match (least..=most).contains(&got) {
            true => Ok(()),
            false => refuse(name, got, format!("{least} to {most}")),
        };
        whole("steps", self.steps, 1, 1 << 40)?;
        whole("log_every", self.log_every, 1, 1 << 40)?;
        whole("data.patch", self.data.patch as u64, 1, 1024)?;
        number("data.rescale", self.data.rescale, 1.0, 16.0)?;
        number("data.reuse", self.data.reuse, 1e-3, 1e6)?;
        if let Some(levels) = self.data.levels {
            whole("data.levels", levels as u64, 2, 256)?;
            if self.data.rescale != 1.0 {
                return refuse("data.rescale", self.data.rescale, "1 for photos of so many levels");
            }
        }
        if self.data.sheet && self.data.rescale != 1.0 {
            return refuse("data.rescale", self.data.rescale, "1 for the images of a sheet");
        }
        whole("optimiser.batch", self.optimiser.batch as u64, 1, 1 << 16)?;
        whole("optimiser.accumulate", self.optimiser.accumulate as u64, 1, 1 << 16)?;
        number("optimiser.learning_rate.rate", self.optimiser.learning_rate.rate, 0.0, 10.0)?;
        number("optimiser.clip", self.optimiser.clip, 0.0, f64::MAX)?;
        number("optimiser.weight_decay", self.optimiser.weight_decay, 0.0, 10.0)?;
        number("optimiser.decays", self.optimiser.decays.0, 0.0, 0.999_999)?;
        number("optimiser.decays", self.optimiser.decays.1, 0.0, 0.999_999)?;
        number("optimiser.epsilon", self.optimiser.epsilon, f64::MIN_POSITIVE, 1.0)?;
        whole("checkpoint.every", self.checkpoint.every, 1, 1 << 40)?;
        whole("checkpoint.keep", self.checkpoint.keep as u64, 1, 1 << 20)?;
        whole("validation.crop", self.validation.crop as u64, 8, 4096)?;
        whole("validation.samples", self.validation.samples as u64, 0, 256)?;
        whole("validation.sample_size", self.validation.sample_size.unwrap_or(1) as u64, 1, 1024)?;
        for &sigma in &self.validation.sigmas {
            number("validation.sigmas", sigma, 1e-4, 1e4)?;
        }
        if self.average.is_empty() {
            return refuse("average", "empty", "at least one, such as { rate = 0.999 }");
        }
        for decay in &self.average {
            if let Err(reason) = decay.check() {
                let (got, expected) = expectation(&reason);
                return refuse("average", got, expected);
            }
        }
        if self.objective.objective().differences() && self.precision == PrecisionName::Bf16 {
            let expected = format!("f32 with the objective {}, which takes small differences", self.objective.name());
            return refuse("precision", "bf16", expected);
        }
        match (&self.model.architecture, &self.model.config, &self.model.init_from) {
            (Some(_), Some(_), _) | (None, None, Some(_)) => Ok(()),
            _ => refuse("model", "incomplete", "an architecture and its config, or init_from alone"),
        }
    }

    /// Examples of a step.
    pub fn examples(&self) -> u64 {
        (self.optimiser.batch * self.optimiser.accumulate) as u64
    }
}
