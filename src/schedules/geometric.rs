//! Evenly spaced in the logarithm of σ.

use super::{Schedule, levels};
use std::ops::RangeInclusive;

/// `σ_i = σ_max (σ_min/σ_max)^{i/(N−1)}`, the variance-exploding schedule.
///
/// Song and Ermon (2019), <https://arxiv.org/abs/1907.05600>.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Geometric {
    /// N, the number of levels above zero.
    pub steps: usize,
}

impl Schedule for Geometric {
    fn sigmas(&self, range: &RangeInclusive<f64>) -> Vec<f64> {
        levels(self.steps, |at| range.end() * (range.start() / range.end()).powf(at))
    }
}
