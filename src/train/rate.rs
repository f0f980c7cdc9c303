//! The learning rate over the steps of a run.

use serde::{Deserialize, Serialize};

/// A line from 0, a plateau, half a cosine to 0: all a schedule needs, because a run that goes on longer only moves its
/// end (Hägele et al., 2024, <https://arxiv.org/abs/2405.18392>).
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LearningRate {
    /// Of the plateau; default 2e-4.
    #[serde(default = "plateau")]
    pub rate: f64,
    /// Steps until it is reached; default 500.
    #[serde(default = "warm_up")]
    pub warm_up: u64,
    /// Steps of the cosine at the end; default 0, a constant rate to the end. As many as all steps: a cosine throughout.
    #[serde(default)]
    pub decay: u64,
}

fn plateau() -> f64 {
    2e-4
}

fn warm_up() -> u64 {
    500
}

impl Default for LearningRate {
    fn default() -> Self {
        Self { rate: plateau(), warm_up: warm_up(), decay: 0 }
    }
}

impl LearningRate {
    /// The rate of step `step` (from 0) of `steps`.
    pub fn at(&self, step: u64, steps: u64) -> f64 {
        let rise = ((step + 1) as f64 / self.warm_up.max(1) as f64).min(1.0);
        let left = steps.saturating_sub(step) as f64;
        let share = if self.decay == 0 { 1.0 } else { (left / self.decay as f64).min(1.0) };
        self.rate * rise * 0.5 * (1.0 - (std::f64::consts::PI * share).cos())
    }
}
