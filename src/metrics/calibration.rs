//! Whether intervals of samples hold the truth as often as they say.

use serde::{Deserialize, Serialize};

/// A central interval of `N` samples with a level that a calibrated sampler has exactly, whatever `N` and the distribution.
///
/// If truth and samples are exchangeable, the number `r` of samples below the truth is uniform on `0..=N`. Between the `k`-th
/// smallest and the `k`-th largest sample the truth lies when `k ≤ r ≤ N − k`, with probability `1 − 2k / (N + 1)`. A level `p`
/// asks for `k = (1 − p)(N + 1) / 2`; where that is no whole number, the indicators of the two neighbouring intervals are
/// averaged with the weights that make the expectation `p`. (Quantiles interpolated between samples have no such law: their
/// level depends on the distribution.) Intervals wider than all samples there are none, so `p` is at most
/// `(N − 1) / (N + 1)`: 19 samples are needed for 90 %, 3 for 50 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    samples: usize,
    /// k, at least 1.
    k: f64,
}

impl Interval {
    /// With level `p`, or the largest that `samples` samples have; `None` for fewer than two.
    pub fn central(p: f64, samples: usize) -> Option<Self> {
        (samples >= 2).then(|| Self { samples, k: ((1.0 - p) * (samples + 1) as f64 / 2.0).max(1.0) })
    }

    /// The probability that it holds the truth, for a calibrated sampler.
    pub fn level(self) -> f64 {
        1.0 - 2.0 * self.k / (self.samples + 1) as f64
    }

    /// Whether the truth is inside, from 0 to 1: with `below` samples below the truth and `equal` equal to it, the mean over
    /// the places that it could take among its equals.
    pub fn holds(self, below: usize, equal: usize) -> f64 {
        let whole = self.k.floor() as usize;
        // Places of the truth inside either interval; the inner one may be none.
        let places = |k: usize| (self.samples + 1).saturating_sub(2 * k) as f64;
        let (outer, inner) = (places(whole), places(whole + 1));
        let wanted = self.level() * (self.samples + 1) as f64;
        let weight = if outer > inner { (outer - wanted) / (outer - inner) } else { 0.0 };
        let inside = |k: usize, rank: usize| f64::from(k <= rank && rank + k <= self.samples);
        let sum: f64 = (below..=below + equal)
            .map(|rank| (1.0 - weight) * inside(whole, rank) + weight * inside(whole + 1, rank))
            .sum();
        sum / (equal + 1) as f64
    }
}

/// How often a central interval holds the truth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// What a calibrated sampler would have.
    pub level: f64,
    /// The share of values inside.
    pub share: f64,
    /// `√(share (1 − share) / n)`, the binomial error as if values were independent: neighbours are not, and it is too small.
    pub error: f64,
}

impl Coverage {
    /// Of the values `indices` of the truth. `samples` are as long as `truth`. `None` for fewer than two samples or no values.
    pub fn of(p: f64, samples: &[Vec<f32>], truth: &[f32], indices: &[usize]) -> Option<Self> {
        let interval = Interval::central(p, samples.len())?;
        if indices.is_empty() {
            return None;
        }
        let count = |i: usize, is: &dyn Fn(f32, f32) -> bool| samples.iter().filter(|s| is(s[i], truth[i])).count();
        let held: f64 =
            indices.iter().map(|&i| interval.holds(count(i, &|s, t| s < t), count(i, &|s, t| s == t))).sum();
        let n = indices.len() as f64;
        let share = held / n;
        Some(Self { level: interval.level(), share, error: (share * (1.0 - share) / n).max(0.0).sqrt() })
    }
}
