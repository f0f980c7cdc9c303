//! Networks of the continuous variance-preserving processes with a linear β.

use super::Scalings;
use std::fmt;

/// A network `F(x_t, t)` that predicts the noise, with `x_t = α_t x₀ + s_t n` at any time `0 < t ≤ 1`.
///
/// `ln α = −t² (β₁ − β₀)/4 − t β₀/2`, and `s² = 1 − α²`; in the sub-VP process `s = 1 − α²`. With `σ = s/α` and
/// `x = x₀ + σ n`, `x_t = α x`.
///
/// Song et al. (2021), <https://arxiv.org/abs/2011.13456>, appendix C
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearProcess {
    /// `β₀`
    pub beta_min: f64,
    /// `β₁`
    pub beta_max: f64,
    /// What t is multiplied by before the network sees it: 999 for a network of 1000 steps.
    pub time_scale: f64,
    /// Whether it is the sub-VP process.
    pub sub: bool,
}

impl LinearProcess {
    /// The noise level at time `t`.
    pub fn sigma(&self, t: f64) -> f64 {
        let log = t * t * (self.beta_max - self.beta_min) / 2.0 + t * self.beta_min;
        // −2 ln α, and with it 1/α² − 1.
        let variance = log.exp_m1();
        if self.sub { variance * (-log / 2.0).exp() } else { variance.sqrt() }
    }

    /// The time of noise level `sigma`: [`sigma`](Self::sigma) inverted.
    pub fn time(&self, sigma: f64) -> f64 {
        let log = -2.0 * self.alpha(sigma).ln();
        let slope = self.beta_max - self.beta_min;
        // The root of `slope t²/2 + β₀ t = log`, written so that nothing cancels.
        2.0 * log / (self.beta_min + (self.beta_min * self.beta_min + 2.0 * slope * log).sqrt())
    }

    /// What EDM's program tells the network at noise level `sigma`: `time_scale` times [`time`](Self::time) in single precision
    /// and in its order, which at small σ cancels all but a few digits.
    pub(crate) fn single_precision_noise(&self, sigma: f64) -> f64 {
        let sigma = sigma as f32;
        let (slope, beta_min) = (self.beta_max - self.beta_min, self.beta_min);
        let log = (1.0 + sigma * sigma).ln();
        let root = ((beta_min * beta_min) as f32 + (2.0 * slope) as f32 * log).sqrt();
        f64::from(self.time_scale as f32 * ((root - beta_min as f32) / slope as f32))
    }

    /// α at noise level `sigma`.
    fn alpha(&self, sigma: f64) -> f64 {
        match self.sub {
            false => 1.0 / (1.0 + sigma * sigma).sqrt(),
            // The root of `1 − α² = σ α`.
            true => 2.0 / (sigma + (sigma * sigma + 4.0).sqrt()),
        }
    }

    /// The numbers for noise level `sigma`.
    pub fn scalings(&self, sigma: f64) -> Scalings {
        let noise = self.time_scale * self.time(sigma);
        Scalings { skip: 1.0, out: -sigma, input: self.alpha(sigma), shift: 0.0, noise, offset: 0.0 }
    }

    /// Whether its numbers are such that a network can have been trained like this.
    ///
    /// # Errors
    /// A sentence with the numbers that are not.
    pub fn check(&self) -> Result<(), String> {
        let Self { beta_min, beta_max, time_scale, .. } = *self;
        if !(beta_min > 0.0 && beta_min < beta_max && beta_max.is_finite()) {
            return Err(format!("has β from {beta_min} to {beta_max}, expected 0 < beta_min < beta_max"));
        }
        match time_scale > 0.0 && time_scale.is_finite() {
            true => Ok(()),
            false => Err(format!("has times of up to {time_scale}, expected a finite number above 0")),
        }
    }
}

impl fmt::Display for LinearProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { beta_min, beta_max, sub, .. } = self;
        write!(f, "{}variance preserving, any time, beta from {beta_min} to {beta_max}", if *sub { "sub-" } else { "" })
    }
}
