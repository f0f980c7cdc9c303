//! The loop that all methods share, and the update rule of most of them.

use super::{Observer, Step};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
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
    /// `ζ = η² (1 − (σ'/σ)²)`: DDIM(η) of Song et al. (2021), <https://arxiv.org/abs/2010.02502>.
    Ddim(f64),
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
            Self::Ddim(eta) => eta * eta * (1.0 - (to / from).powi(2)),
            Self::All => 1.0,
        }
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

/// `ε̂` is what the estimate says it is.
impl From<Tensor> for Estimate {
    fn from(x0: Tensor) -> Self {
        Self { x0, eps: None }
    }
}

/// A step that was taken.
#[derive(Debug)]
pub struct Transition {
    /// The estimate of the clean image.
    pub x0: Tensor,
    /// The state at the next level; where that is 0, the result.
    pub next: Tensor,
}

impl Transition {
    /// To `next`, by way of `estimate`; at σ' = 0 the next state is the estimate.
    pub(crate) fn by(estimate: Tensor, next: Tensor, level: Level) -> Self {
        Self { x0: if level.to == 0.0 { next.clone() } else { estimate }, next }
    }
}

/// Takes `x`, a state at `sigmas[0]`, along `sigmas`: `step(x, level, rng)` says where to.
///
/// # Errors
/// `NonFinite` with step and σ if a sum over the estimate or the next state is no number; those of `step` and `observer`.
pub fn descend(
    x: Tensor,
    sigmas: &[f64],
    rng: &mut Rng,
    observer: &mut dyn Observer,
    mut step: impl FnMut(&Tensor, Level, &mut Rng) -> Result<Transition>,
) -> Result<Tensor> {
    let mut x = x;
    let total = sigmas.len().saturating_sub(1);
    for (index, pair) in sigmas.windows(2).enumerate() {
        let level = Level { from: pair[0], to: pair[1] };
        let Transition { x0, next } = step(&x, level, rng)?;
        check_finite(&x0, index, level.from)?;
        observer.step(&Step { index, total, sigma: level.from, x: &x, x0: &x0 })?;
        x = next;
    }
    Ok(x)
}

/// Anneals `x`, a state at `sigmas[0]`: `x' = x̂₀ + σ' (√(1−ζ) ε̂ + √ζ n)`, where `estimate(x, level, rng)` gives
/// `x̂₀(x, σ, y)`, all that differs in this family; at σ' = 0 the estimate is the result.
///
/// With `ε̂ = (x − x̂₀)/σ` the rule is DDIM(η) in variance-preserving coordinates, DDPM, Euler and Euler-ancestral of the
/// variance-exploding ones, and the renoising of DiffPIR and DAPS.
///
/// # Errors
/// As [`descend`].
pub fn anneal<E: Into<Estimate>>(
    x: Tensor,
    sigmas: &[f64],
    renoise: Renoise,
    rng: &mut Rng,
    observer: &mut dyn Observer,
    mut estimate: impl FnMut(&Tensor, Level, &mut Rng) -> Result<E>,
) -> Result<Tensor> {
    descend(x, sigmas, rng, observer, |x, level, rng| {
        let estimate = estimate(x, level, rng)?.into();
        let next = renoised(x, &estimate, level, renoise, rng)?;
        Ok(Transition { x0: estimate.x0, next })
    })
}

/// `x̂₀ + σ' (√(1−ζ) ε̂ + √ζ n)`, one draw unless ζ or σ' is 0.
pub(crate) fn renoised(
    x: &Tensor,
    Estimate { x0, eps }: &Estimate,
    level: Level,
    renoise: Renoise,
    rng: &mut Rng,
) -> Result<Tensor> {
    if level.to == 0.0 {
        return Ok(x0.clone());
    }
    let fraction = renoise.fraction(level.from, level.to);
    let mut next = x0.clone();
    if fraction < 1.0 {
        let factor = level.to * (1.0 - fraction).sqrt();
        next = match eps {
            Some(eps) => (next + eps.affine(factor, 0.0)?)?,
            None => (next + (x - x0)?.affine(factor / level.from, 0.0)?)?,
        };
    }
    if fraction > 0.0 {
        next = (next + rng.normal_like(x)?.affine(level.to * fraction.sqrt(), 0.0)?)?;
    }
    Ok(next)
}

/// One number per call is read back from the device: a sum, which is finite only if every value is.
pub(crate) fn check_finite(x: &Tensor, step: usize, sigma: f64) -> Result<()> {
    let sum = x.sum_all()?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
    if sum.is_finite() { Ok(()) } else { Err(Error::NonFinite { step, sigma }) }
}
