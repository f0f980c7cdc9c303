//! What one method made of one measurement.

use crate::metrics::{Residual, Statistics, infinite};
use serde::{Deserialize, Serialize};

/// A line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Hash of all that decides the record.
    pub key: String,
    /// Name of the task.
    pub task: String,
    /// File name of the photo.
    pub image: String,
    /// Label of the sampler.
    pub sampler: String,
    /// The seed with which `tweedie degrade` makes the same measurement.
    pub measurement_seed: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Samples were drawn.
    Figures(Box<Figures>),
    /// The method needs what the measurement or the budget does not give: this.
    Unsuitable(String),
    /// The method gave up: why.
    Failed(String),
}

/// How good and how expensive; means over the samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// The method that ran, which `auto` does not tell.
    pub method: String,
    /// Number of samples.
    pub samples: usize,
    /// Noise levels of a sample.
    pub steps: usize,
    /// Network calls of a sample (NFE), of the whole picture.
    pub evaluations: usize,
    /// Applications of the denoiser's pullback, a sample.
    pub pullbacks: usize,
    /// Seconds a sample.
    pub seconds: f64,
    /// Largest resident memory of the process while the samples were drawn, bytes; `None` where the system does not tell.
    pub peak_memory: Option<u64>,
    /// dB.
    #[serde(deserialize_with = "infinite")]
    pub psnr: f64,
    /// Structural similarity.
    pub ssim: f64,
    /// Gradient magnitude similarity deviation.
    pub gmsd: f64,
    /// How far the measurement of the sample is from the one given.
    pub residual: Residual,
    /// Of several samples together.
    pub statistics: Option<Statistics>,
}
