//! Evenly spaced in the time of a variance-preserving process.

use super::{Discrete, Schedule, between};
use std::ops::RangeInclusive;

/// Training levels of the networks that this family knows.
const TRAINED: usize = 1000;

/// `σ = √((1 − ᾱ)/ᾱ)` evenly spaced in the index of DDPM's 1000 linear β, [`Discrete::linear`]; all of its levels run from
/// 0.010 to 157.
///
/// Ho et al. (2020), <https://arxiv.org/abs/2006.11239>.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VpLinear {
    /// N, the number of levels above zero.
    pub steps: usize,
}

impl Schedule for VpLinear {
    fn sigmas(&self, range: &RangeInclusive<f64>) -> Vec<f64> {
        spread(&Discrete::linear(TRAINED), self.steps, range, |at| at)
    }
}

/// The same with the cosine's ᾱ, [`Discrete::cosine`].
///
/// Nichol and Dhariwal (2021), <https://arxiv.org/abs/2102.09672>.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VpCosine {
    /// N, the number of levels above zero.
    pub steps: usize,
}

impl Schedule for VpCosine {
    fn sigmas(&self, range: &RangeInclusive<f64>) -> Vec<f64> {
        spread(&Discrete::cosine(TRAINED), self.steps, range, |at| at)
    }
}

/// DDPM's levels with dense steps at small noise: `k_i = K − (K − k) √(i/(N−1))`, from the place K of the largest level to
/// the place k of the smallest one.
///
/// Zhu et al. (2023), <https://arxiv.org/abs/2305.08995>, whose program rounds to whole indices: 999, 899, 857, …, 5, 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quad {
    /// N, the number of levels above zero.
    pub steps: usize,
}

impl Schedule for Quad {
    fn sigmas(&self, range: &RangeInclusive<f64>) -> Vec<f64> {
        spread(&Discrete::linear(TRAINED), self.steps, range, f64::sqrt)
    }
}

/// Levels at `pace(i/(N−1))` of the way from one end to the other in the index.
fn spread(process: &Discrete, steps: usize, range: &RangeInclusive<f64>, pace: impl Fn(f64) -> f64) -> Vec<f64> {
    let (first, last) = (process.place(*range.end()), process.place(*range.start()));
    between(steps, range, |at| process.sigma(first + pace(at) * (last - first)))
}

/// `σ(t) = √(exp(½ β_d t² + β_min t) − 1)` evenly spaced in t.
///
/// Song et al. (2021), <https://arxiv.org/abs/2011.13456>, appendix C; the paper goes from t = 1 to 1e-3.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VpContinuous {
    /// N, the number of levels above zero.
    pub steps: usize,
}

impl VpContinuous {
    /// `β(0)`
    pub const BETA_MIN: f64 = 0.1;
    /// `β(1) − β(0)`
    pub const BETA_D: f64 = 19.9;

    /// σ at time `t`.
    pub fn sigma(t: f64) -> f64 {
        (0.5 * Self::BETA_D * t * t + Self::BETA_MIN * t).exp_m1().sqrt()
    }

    /// The time of σ, `(√(β_min² + 2 β_d ln(1 + σ²)) − β_min)/β_d`.
    pub fn time(sigma: f64) -> f64 {
        let discriminant = Self::BETA_MIN.powi(2) + 2.0 * Self::BETA_D * (sigma * sigma).ln_1p();
        (discriminant.sqrt() - Self::BETA_MIN) / Self::BETA_D
    }
}

impl Schedule for VpContinuous {
    fn sigmas(&self, range: &RangeInclusive<f64>) -> Vec<f64> {
        let (first, last) = (Self::time(*range.end()), Self::time(*range.start()));
        between(self.steps, range, |at| Self::sigma(first + at * (last - first)))
    }
}
