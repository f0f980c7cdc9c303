//! Networks of a discrete variance-preserving process.

use super::Scalings;
use crate::schedules::Discrete;
use std::fmt;

/// What a network's output stands for, with `x_t = √ᾱ x₀ + √(1 − ᾱ) n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prediction {
    /// The noise `n`.
    Noise,
    /// `v = √ᾱ n − √(1 − ᾱ) x₀`.
    ///
    /// Salimans and Ho (2022), <https://arxiv.org/abs/2202.00512>
    Velocity,
    /// The image `x₀`.
    Image,
}

impl fmt::Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Noise => "noise",
            Self::Velocity => "velocity",
            Self::Image => "image",
        })
    }
}

/// Which time a network is told between two of the levels it was trained at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// The whole number next to it.
    Nearest,
    /// The place between them, [`Discrete::place`].
    Interpolated,
}

/// A network `F(x_t, t)` with `x_t = √ᾱ_t x₀ + √(1 − ᾱ_t) n`, `t = 0 … T − 1`.
///
/// With `σ² = (1 − ᾱ)/ᾱ` and `x = x₀ + σ n`, `x_t = x/√(1 + σ²)`.
///
/// Ho et al. (2020), <https://arxiv.org/abs/2006.11239>
#[derive(Clone, Debug, PartialEq)]
pub struct VariancePreserving {
    /// ᾱ and σ of every t.
    pub levels: Discrete,
    /// What the output stands for.
    pub prediction: Prediction,
    /// Which t the network is told.
    pub time: Time,
    /// What t is multiplied by before the network sees it; 1 for most.
    pub time_scale: f64,
    /// Whether the network sees `2 x_t − 1`.
    pub centred: bool,
}

impl VariancePreserving {
    /// A network that is told t itself and sees `x_t` itself.
    pub fn new(levels: Discrete, prediction: Prediction, time: Time) -> Self {
        Self { levels, prediction, time, time_scale: 1.0, centred: false }
    }

    /// σ of the first and of the last level.
    pub fn sigma_range(&self) -> (f64, f64) {
        (self.levels.sigma(0.0), self.levels.sigma((self.levels.betas().len() - 1) as f64))
    }

    /// The place of `sigma` among the levels, none below the first or above the last.
    pub fn time(&self, sigma: f64) -> f64 {
        let time = self.levels.place(sigma).clamp(0.0, (self.levels.betas().len() - 1) as f64);
        let nearest = time.round();
        // A level of the training is a whole number, whatever the logarithms left of it.
        if self.time == Time::Nearest || (time - nearest).abs() < 1e-6 { nearest } else { time }
    }

    /// The numbers for noise level `sigma`.
    pub fn scalings(&self, sigma: f64) -> Scalings {
        let total = 1.0 + sigma * sigma;
        let (skip, out) = match self.prediction {
            Prediction::Noise => (1.0, -sigma),
            Prediction::Velocity => (1.0 / total, -sigma / total.sqrt()),
            Prediction::Image => (0.0, 1.0),
        };
        let (factor, shift) = if self.centred { (2.0, -1.0) } else { (1.0, 0.0) };
        let noise = self.time(sigma) * self.time_scale;
        Scalings { skip, out, input: factor / total.sqrt(), shift, noise, offset: 0.0 }
    }
}
