//! How the noise levels of training are drawn.

use super::objective::check_positive;
use crate::priors::LinearProcess;
use crate::schedules::Discrete;
use serde::{Deserialize, Serialize};

/// A distribution of noise levels σ, pixels in [-1, 1].
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum NoiseLevels {
    /// One level, that of denoising score matching (Vincent, 2011).
    One {
        /// σ.
        sigma: f64,
    },
    /// `ln σ ~ N(mean, std²)`: Karras et al. (2022), <https://arxiv.org/abs/2206.00364>, Table 1.
    LogNormal {
        /// Mean of ln σ.
        mean: f64,
        /// Standard deviation of ln σ.
        std: f64,
    },
    /// One of `count` levels of constant ratio, each as likely: Song and Ermon (2019), <https://arxiv.org/abs/1907.05600>.
    Geometric {
        /// Smallest σ.
        sigma_min: f64,
        /// Largest σ.
        sigma_max: f64,
        /// Number of levels, at least 2.
        count: usize,
    },
    /// `σ = σ_min (σ_max/σ_min)^t`, t uniform in (1e-5, 1): the variance exploding process of Song et al. (2021),
    /// <https://arxiv.org/abs/2011.13456>.
    VarianceExploding {
        /// Smallest σ.
        sigma_min: f64,
        /// Largest σ.
        sigma_max: f64,
    },
    /// σ(t) of the variance preserving process with β from `beta_min` to `beta_max`, t uniform in (1e-5, 1); of the sub-VP
    /// process with `sub`. The same source.
    Linear {
        /// β at t = 0.
        beta_min: f64,
        /// β at t = 1.
        beta_max: f64,
        /// Whether it is the sub-VP process.
        #[serde(default)]
        sub: bool,
    },
    /// `σ = σ_d tan θ`, θ uniform between those of `sigma_min` and `sigma_max`: the cosine of simple diffusion (Hoogeboom et al.,
    /// 2023, <https://arxiv.org/abs/2301.11093>), and what k-diffusion calls cosine-interpolated, for images of its reference
    /// size; for larger ones it moves to more noise.
    Cosine {
        /// σ_d, the spread of the data.
        sigma_data: f64,
        /// Smallest σ.
        sigma_min: f64,
        /// Largest σ.
        sigma_max: f64,
    },
    /// σ_k of a discrete process of `count` linear β, k uniform: Ho et al. (2020), <https://arxiv.org/abs/2006.11239>.
    Discrete {
        /// Number of levels.
        count: usize,
    },
}

/// Smallest time of the continuous processes, where their score is not yet unbounded.
pub(super) const EARLIEST: f64 = 1e-5;

impl NoiseLevels {
    /// σ of a number uniform in [0, 1) and a standard normal one; each distribution takes one of them.
    pub fn sigma(&self, uniform: f64, normal: f64) -> f64 {
        let time = EARLIEST + (1.0 - EARLIEST) * uniform;
        match *self {
            Self::One { sigma } => sigma,
            Self::LogNormal { mean, std } => (mean + std * normal).exp(),
            Self::Geometric { sigma_min, sigma_max, count } => {
                sigma_min * (sigma_max / sigma_min).powf(level(uniform, count) / (count as f64 - 1.0))
            }
            Self::VarianceExploding { sigma_min, sigma_max } => sigma_min * (sigma_max / sigma_min).powf(time),
            Self::Linear { .. } => self.process().map_or(1.0, |process| process.sigma(time)),
            Self::Cosine { sigma_data, sigma_min, sigma_max } => {
                let (low, high) = ((sigma_min / sigma_data).atan(), (sigma_max / sigma_data).atan());
                sigma_data * (low + (high - low) * uniform).tan()
            }
            Self::Discrete { count } => Discrete::linear(count).sigma(level(uniform, count)),
        }
    }

    /// [`sigma`](Self::sigma) of each of these numbers.
    pub fn sigmas(&self, numbers: impl Iterator<Item = (f64, f64)>) -> Vec<f64> {
        match *self {
            // Its table is made once.
            Self::Discrete { count } => {
                let levels = Discrete::linear(count);
                numbers.map(|(uniform, _)| levels.sigma(level(uniform, count))).collect()
            }
            _ => numbers.map(|(uniform, normal)| self.sigma(uniform, normal)).collect(),
        }
    }

    /// σ at the earliest and at the latest time of a process.
    pub(super) fn ends(&self) -> (f64, f64) {
        (self.sigma(0.0, 0.0), self.sigma(1.0, 0.0))
    }

    /// `g(t)²/std(t)²` at the time of noise level `sigma`, the diffusion of the process over its variance; 1 where the levels
    /// are those of no process.
    pub(super) fn rate(&self, sigma: f64) -> f64 {
        match *self {
            // σ² = σ_min² r^(2t), and g² is its derivative.
            Self::VarianceExploding { sigma_min, sigma_max } => 2.0 * (sigma_max / sigma_min).ln(),
            Self::Linear { beta_min, beta_max, sub } => {
                let time = self.process().map_or(0.0, |process| process.time(sigma));
                let beta = beta_min + time * (beta_max - beta_min);
                let log = time * time * (beta_max - beta_min) / 2.0 + time * beta_min;
                // 1 − e^(−∫β), the variance of the one process and the deviation of the other.
                let part = -(-log).exp_m1();
                if sub { beta * -(-2.0 * log).exp_m1() / (part * part) } else { beta / part }
            }
            _ => 1.0,
        }
    }

    /// Whether they are those of a process in continuous time.
    pub(super) fn is_process(&self) -> bool {
        matches!(self, Self::VarianceExploding { .. } | Self::Linear { .. })
    }

    /// The process of [`Linear`](Self::Linear).
    pub(super) fn process(&self) -> Option<LinearProcess> {
        match *self {
            Self::Linear { beta_min, beta_max, sub } => {
                Some(LinearProcess { beta_min, beta_max, time_scale: 999.0, sub })
            }
            _ => None,
        }
    }

    /// Whether its numbers are such that levels can be drawn.
    ///
    /// # Errors
    /// A sentence with the number that is not.
    pub fn check(&self) -> Result<(), String> {
        let ordered = |low: f64, high: f64| {
            check_positive("sigma_min", low)?;
            match low < high && high.is_finite() {
                true => Ok(()),
                false => Err(format!("sigma_max = {high}, expected more than sigma_min = {low}")),
            }
        };
        match *self {
            Self::One { sigma } => check_positive("sigma", sigma),
            Self::LogNormal { mean, std } if mean.is_finite() => check_positive("std", std),
            Self::LogNormal { mean, .. } => Err(format!("mean = {mean}, expected a finite number")),
            Self::Geometric { sigma_min, sigma_max, count } => {
                ordered(sigma_min, sigma_max)?;
                match count {
                    2..=100_000 => Ok(()),
                    _ => Err(format!("count = {count}, expected 2 to 100000")),
                }
            }
            Self::VarianceExploding { sigma_min, sigma_max } => ordered(sigma_min, sigma_max),
            Self::Cosine { sigma_data, sigma_min, sigma_max } => {
                check_positive("sigma_data", sigma_data)?;
                ordered(sigma_min, sigma_max)
            }
            Self::Linear { .. } => self.process().map_or(Ok(()), |process| process.check()),
            Self::Discrete { count: 1..=100_000 } => Ok(()),
            Self::Discrete { count } => Err(format!("count = {count}, expected 1 to 100000")),
        }
    }
}

/// Which of `count` levels a number uniform in [0, 1) is.
fn level(uniform: f64, count: usize) -> f64 {
    (uniform * count as f64).floor().min(count as f64 - 1.0)
}
