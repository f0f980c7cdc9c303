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

/// How good and how expensive; means over the samples. Numbers have nine digits: they are read from JSON as they were
/// written, which longer ones need not be, so that tables do not depend on where a run was stopped.
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

impl Figures {
    /// With nine digits a number.
    pub(super) fn rounded(mut self) -> Self {
        let digits = |value: &mut f64| *value = format!("{value:.8e}").parse().unwrap_or(*value);
        [&mut self.seconds, &mut self.psnr, &mut self.ssim, &mut self.gmsd].into_iter().for_each(digits);
        match &mut self.residual {
            Residual::Normalised(value) | Residual::Rms(value) => digits(value),
        }
        if let Some(statistics) = &mut self.statistics {
            digits(&mut statistics.psnr_of_mean);
            digits(&mut statistics.spread);
            for of in &mut statistics.coverage {
                [&mut of.level, &mut of.share, &mut of.error].into_iter().for_each(digits);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Coverage;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let third = |power: i32| 10_f64.powi(power) / 3.0;
        for power in -12..6 {
            let figures = Figures {
                method: "dps".into(),
                samples: 2,
                steps: 3,
                evaluations: 3,
                pullbacks: 3,
                seconds: third(power),
                peak_memory: None,
                psnr: f64::INFINITY,
                ssim: 2.0 * third(power),
                gmsd: third(power),
                residual: Residual::Rms(third(power) * 0.7),
                statistics: Some(Statistics {
                    psnr_of_mean: 1e3 / third(power),
                    spread: third(power),
                    coverage: vec![Coverage { level: 0.5, share: third(0), error: third(power) }],
                    hidden_only: true,
                }),
            }
            .rounded();
            let text = serde_json::to_string(&figures).unwrap();
            assert_eq!(serde_json::from_str::<Figures>(&text).unwrap(), figures, "{text}");
        }
    }
}
