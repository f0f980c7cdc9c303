//! Annealed Langevin dynamics: NCSN, Song and Ermon (2019), <https://arxiv.org/abs/1907.05600>, and NCSNv2, Song and Ermon
//! (2020), <https://arxiv.org/abs/2006.09011>, whose rules choose its numbers.

use super::{BuildSolver, Level, Observer, Solver, Transition, descend, settings, within};
use crate::Result;
use crate::priors::Denoiser;
use crate::schedules::{Geometric, Schedule};
use candle_core::Tensor;
use serde::Deserialize;
use std::ops::RangeInclusive;
use tweedie_operators::{Entry, Rng};

/// How long Langevin dynamics runs at each level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Langevin {
    /// T, steps at each level.
    pub steps: usize,
    /// ε, the step size at the last level, in the square of σ's unit.
    pub epsilon: f64,
    /// Whether the result is the denoised last state, as in NCSNv2.
    pub denoise: bool,
}

/// At each level above zero of `sigmas`, T times `x ← x + α s(x; σ) + √(2α) n`, `α = ε (σ/σ_L)²`; at the end
/// `x ← D(x; σ_L)` if `denoise` is set.
///
/// The paper starts from numbers uniform on the pixels' range. T draws a level.
///
/// # Errors
/// As [`descend`].
pub fn annealed_langevin(
    prior: &dyn Denoiser,
    x: Tensor,
    sigmas: &[f64],
    langevin: &Langevin,
    rng: &mut Rng,
    observer: &mut dyn Observer,
) -> Result<Tensor> {
    let Langevin { steps, epsilon, denoise } = *langevin;
    let last = sigmas.iter().copied().filter(|&sigma| sigma > 0.0).fold(f64::INFINITY, f64::min);
    descend(x, sigmas, rng, observer, |x, Level { from, to }, rng| {
        // α s = ε/σ_L² (D − x): the level cancels.
        let (drift, spread) = (epsilon / (last * last), (2.0 * epsilon).sqrt() * from / last);
        let mut x = x.clone();
        let mut x0 = None;
        for _ in 0..steps {
            let denoised = prior.denoise(&x, from)?;
            let noise = rng.normal_like(&x)?.affine(spread, 0.0)?;
            x = ((&x + (&denoised - &x)?.affine(drift, 0.0)?)? + noise)?;
            x0 = Some(denoised);
        }
        if to == 0.0 && denoise {
            x = prior.denoise(&x, from)?;
            x0 = Some(x.clone());
        }
        Ok(Transition { x0: x0.unwrap_or_else(|| x.clone()), next: x })
    })
}

/// Rules of NCSNv2 for noise levels and steps; all numbers in one unit of pixels, whichever.
pub mod rules {
    /// The first level: the largest Euclidean distance between two images of the data, so that Langevin dynamics passes from
    /// any image to any other. Technique 1.
    pub fn first_level(largest_distance: f64) -> f64 {
        largest_distance
    }

    /// How much of a Gaussian's shell of radius at `σ_{i−1} = γ σ_i` is within three standard deviations of the shell at
    /// `σ_i`, in `dimensions` dimensions: `Φ(√(2D)(γ−1) + 3γ) − Φ(√(2D)(γ−1) − 3γ)`.
    pub fn overlap(dimensions: usize, ratio: f64) -> f64 {
        let offset = (2.0 * dimensions as f64).sqrt() * (ratio - 1.0);
        normal(offset + 3.0 * ratio) - normal(offset - 3.0 * ratio)
    }

    /// The ratio γ of neighbouring levels at which [`overlap`] is a half. Technique 2.
    pub fn ratio(dimensions: usize) -> f64 {
        // It falls from 0.997 at γ = 1; with D ≥ 13 it comes below a half, else γ has no bound.
        let (mut low, mut high) = (1.0, 1e3);
        for _ in 0..200 {
            let middle = 0.5 * (low + high);
            if overlap(dimensions, middle) > 0.5 { low = middle } else { high = middle }
        }
        low
    }

    /// How many levels lead from `first` to `last` in steps of the ratio `ratio` at most.
    pub fn count(first: f64, last: f64, ratio: f64) -> usize {
        // A ratio that was computed of these very numbers is not to cost one level more.
        ((first / last).ln() / ratio.ln() - 1e-9).ceil().max(0.0) as usize + 1
    }

    /// The variance, in units of `σ_i²`, after `steps` Langevin steps at `σ_i` of a sample that came from level `γ σ_i`:
    /// `(1−a)^{2T} (γ² − q) + q`, `q = 2a/(1 − (1−a)²)`, `a = ε/σ_L²`; 1 is exact.
    pub fn variance(steps: usize, ratio: f64, a: f64) -> f64 {
        let q = 1.0 / (1.0 - 0.5 * a);
        (1.0 - a).powf(2.0 * steps as f64) * (ratio * ratio - q) + q
    }

    /// ε: the step size at `last`, σ_L, that brings [`variance`] nearest to 1. Technique 4.
    pub fn epsilon(steps: usize, last: f64, ratio: f64) -> f64 {
        // One valley between a = 0, where nothing moves, and a = 1: golden sections of it, in the logarithm.
        let golden = 0.5 * (5.0f64.sqrt() - 1.0);
        let value = |log: f64| variance(steps, ratio, log.exp());
        let (mut low, mut high) = (1e-9f64.ln(), 0.0);
        for _ in 0..100 {
            let (left, right) = (high - golden * (high - low), low + golden * (high - low));
            if value(left) < value(right) { high = right } else { low = left }
        }
        (0.5 * (low + high)).exp() * last * last
    }

    /// The distribution function of a standard normal number.
    fn normal(x: f64) -> f64 {
        0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
    }
}

/// [`annealed_langevin`] along a schedule.
#[derive(Clone, Copy, Debug)]
pub struct AnnealedLangevin {
    levels: usize,
    steps: usize,
    /// `None`: by [`rules::epsilon`].
    epsilon: Option<f64>,
    denoise: bool,
}

impl Solver for AnnealedLangevin {
    fn solve(
        &self,
        prior: &dyn Denoiser,
        x: Tensor,
        range: &RangeInclusive<f64>,
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let sigmas = self.sigmas(range);
        let last = sigmas[sigmas.len() - 2];
        let levels = sigmas.len() - 1;
        let ratio = (sigmas[0] / last).powf(1.0 / levels.saturating_sub(1).max(1) as f64);
        let epsilon = self.epsilon.unwrap_or_else(|| rules::epsilon(self.steps, last, ratio.max(1.01)));
        let langevin = Langevin { steps: self.steps, epsilon, denoise: self.denoise };
        annealed_langevin(prior, x, &sigmas, &langevin, rng, observer)
    }

    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn sigmas(&self, range: &RangeInclusive<f64>) -> Vec<f64> {
        Geometric { steps: if range.start() < range.end() { self.levels } else { 1 } }.sigmas(range)
    }

    fn evaluations(&self, range: &RangeInclusive<f64>) -> Option<usize> {
        Some((self.sigmas(range).len() - 1) * self.steps + usize::from(self.denoise))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// L, noise levels above zero.
    steps: usize,
    /// T.
    steps_per_level: usize,
    /// ε; chosen by the rule if absent.
    epsilon: Option<f64>,
    /// Whether the last state is denoised.
    denoise: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { steps: 232, steps_per_level: 5, epsilon: None, denoise: true }
    }
}

pub(super) const ENTRY: Entry<BuildSolver> = Entry {
    name: "annealed_langevin",
    about: "Annealed Langevin dynamics of NCSN and NCSNv2",
    fields: &[
        ("steps", "L, noise levels above zero, geometric; default 232"),
        ("steps_per_level", "T, Langevin steps at each level, 1 to 10000; default 5"),
        ("epsilon", "ε, step size at the last level, in squared pixel units of [-1, 1]; default by NCSNv2's rule"),
        ("denoise", "whether the last state is denoised, as in NCSNv2; default true"),
    ],
    example: "steps = 4\nsteps_per_level = 2",
    build: |table| {
        let Config { steps, steps_per_level, epsilon, denoise } = settings(ENTRY.name, table)?;
        within("steps", steps as f64, 1.0..=100_000.0)?;
        within("steps_per_level", steps_per_level as f64, 1.0..=10_000.0)?;
        let epsilon = epsilon.map(|epsilon| within("epsilon", epsilon, 1e-12..=1.0)).transpose()?;
        Ok(Box::new(AnnealedLangevin { levels: steps, steps: steps_per_level, epsilon, denoise }))
    },
};
