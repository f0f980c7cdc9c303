//! The loop that most methods share.

use super::{Observer, Problem, Step, within};
use crate::schedules::{Karras, Schedule};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use serde::Deserialize;
use std::ops::RangeInclusive;
use tweedie_operators::Rng;

/// The fraction `ζ` of fresh noise in `x' = x̂₀ + σ' (√(1−ζ) ε̂ + √ζ n)`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Renoise {
    /// `ζ = 0`: deterministic, Euler's method for the probability-flow ODE, DDIM(0).
    None,
    /// `ζ = 1 − (σ'/σ)²`: ancestral sampling, DDPM.
    Ancestral,
    /// A fixed ζ between 0 and 1: DiffPIR; `η²`: DDNM.
    Fraction(f64),
    /// `ζ = 1`: DAPS, SITCOM.
    All,
}

impl Renoise {
    /// ζ of the step from noise level `from` to `to`.
    pub fn fraction(self, from: f64, to: f64) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Ancestral => 1.0 - (to / from).powi(2),
            Self::Fraction(fraction) => fraction,
            Self::All => 1.0,
        }
    }
}

/// Noise levels of a run: Karras' schedule from `sigma_start` to `sigma_end`, and how fresh noise enters.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Annealing {
    /// Number of noise levels above zero.
    pub steps: usize,
    /// First noise level, pixels in [-1, 1]; limited to what the prior is good for.
    pub sigma_start: f64,
    /// Last noise level above zero.
    pub sigma_end: f64,
    /// ρ of the schedule: larger values spend more levels on small noise.
    pub rho: f64,
    /// Fresh noise.
    pub renoise: Renoise,
}

impl Default for Annealing {
    fn default() -> Self {
        Self { steps: 20, sigma_start: 1.0, sigma_end: 0.02, rho: 3.0, renoise: Renoise::All }
    }
}

impl Annealing {
    /// The settings, if each is in its range.
    pub(super) fn checked(self) -> Result<Self> {
        within("steps", self.steps as f64, 1.0..=100_000.0)?;
        within("sigma_start", self.sigma_start, 1e-3..=1e4)?;
        within("sigma_end", self.sigma_end, 1e-4..=self.sigma_start)?;
        within("rho", self.rho, 0.1..=100.0)?;
        if let Renoise::Fraction(fraction) = self.renoise {
            within("renoise", fraction, 0.0..=1.0)?;
        }
        Ok(self)
    }

    /// The noise levels within what a prior is good for, the last one 0.
    pub fn sigmas(&self, range: &RangeInclusive<f64>) -> Vec<f64> {
        let start = self.sigma_start.min(*range.end());
        let end = self.sigma_end.max(*range.start()).min(start);
        if start == end {
            return vec![start, 0.0];
        }
        Karras { steps: self.steps, rho: self.rho }.sigmas(&(end..=start))
    }
}

/// One step of the schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// Noise level of the state.
    pub from: f64,
    /// Noise level of the next state.
    pub to: f64,
}

/// What a method makes of a state.
#[derive(Debug)]
pub struct Estimate {
    /// `x̂₀`, given the state and the measurement.
    pub x0: Tensor,
    /// What takes the place of `ε̂ = (x − x̂₀)/σ`; `None` is that.
    pub eps: Option<Tensor>,
}

/// Anneals along `sigmas`: `x' = x̂₀ + σ' (√(1−ζ) ε̂ + √ζ n)`, where `estimate(x, level)` gives `x̂₀(x, σ, y)`, all that
/// differs in this family.
///
/// The first state is the problem's guess, or zero, plus `σ₀ n`. With `ε̂ = (x − x̂₀)/σ` the rule is DDIM(η) in
/// variance-preserving coordinates, DDPM, Euler and Euler-ancestral of the variance-exploding ones, and the renoising of
/// DiffPIR and DAPS.
///
/// # Errors
/// `NonFinite` with step and σ; those of `estimate` and `observer`.
pub fn anneal(
    problem: &Problem<'_>,
    shape: (usize, usize, usize),
    sigmas: &[f64],
    renoise: Renoise,
    rng: &mut Rng,
    observer: &mut dyn Observer,
    mut estimate: impl FnMut(&Tensor, Level) -> Result<Tensor>,
) -> Result<Tensor> {
    anneal_with(problem, shape, sigmas, renoise, rng, observer, |x, level| {
        Ok(Estimate { x0: estimate(x, level)?, eps: None })
    })
}

/// [`anneal`] for methods that say what `ε̂` is.
pub(super) fn anneal_with(
    problem: &Problem<'_>,
    (channels, height, width): (usize, usize, usize),
    sigmas: &[f64],
    renoise: Renoise,
    rng: &mut Rng,
    observer: &mut dyn Observer,
    mut estimate: impl FnMut(&Tensor, Level) -> Result<Estimate>,
) -> Result<Tensor> {
    let device = problem.measurement.y.device().clone();
    let shape = (rng.streams(), channels, height, width);
    let mut x = (rng.normal(shape, &device)? * sigmas[0])?;
    if let Some(guess) = &problem.guess {
        x = x.broadcast_add(guess)?;
    }
    let total = sigmas.len() - 1;
    for (index, pair) in sigmas.windows(2).enumerate() {
        let level = Level { from: pair[0], to: pair[1] };
        let Estimate { x0, eps } = estimate(&x, level)?;
        check_finite(&x0, index, level.from)?;
        observer.step(&Step { index, total, sigma: level.from, x: &x, x0: &x0 })?;
        if level.to == 0.0 {
            return Ok(x0);
        }
        let fraction = renoise.fraction(level.from, level.to);
        let mut next = x0.clone();
        if fraction < 1.0 {
            let factor = level.to * (1.0 - fraction).sqrt();
            next = match eps {
                Some(eps) => (next + eps.affine(factor, 0.0)?)?,
                None => (next + (&x - &x0)?.affine(factor / level.from, 0.0)?)?,
            };
        }
        drop(x0);
        if fraction > 0.0 {
            next = (next + rng.normal(shape, &device)?.affine(level.to * fraction.sqrt(), 0.0)?)?;
        }
        x = next;
    }
    Ok(x)
}

/// One number per call is read back from the device: a sum, which is finite only if every value is.
pub(super) fn check_finite(x: &Tensor, step: usize, sigma: f64) -> Result<()> {
    let sum = x.sum_all()?.to_device(&Device::Cpu)?.to_dtype(candle_core::DType::F32)?.to_scalar::<f32>()?;
    if sum.is_finite() { Ok(()) } else { Err(Error::NonFinite { step, sigma }) }
}
