//! Evenly spaced in a root of σ.

use super::{Schedule, levels};
use std::ops::RangeInclusive;

/// `σ_i = (σ_max^{1/ρ} + i/(N−1) (σ_min^{1/ρ} − σ_max^{1/ρ}))^ρ`.
///
/// Karras et al. (2022), <https://arxiv.org/abs/2206.00364>, Eq. 5.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Karras {
    /// N, the number of levels above zero.
    pub steps: usize,
    /// ρ; the paper takes 7. Larger values spend more levels on small σ.
    pub rho: f64,
}

impl Schedule for Karras {
    fn sigmas(&self, range: &RangeInclusive<f64>) -> Vec<f64> {
        let (low, high) = (range.start().powf(1.0 / self.rho), range.end().powf(1.0 / self.rho));
        levels(self.steps, |at| (high + at * (low - high)).powf(self.rho))
    }
}
