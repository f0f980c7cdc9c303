//! Runs of a solver inside the step of a sampler.

use crate::priors::Denoiser;
use crate::solvers::{Level, Observer, Renoise, Step, Transition, anneal, descend};
use crate::{Error, Result};
use candle_core::Tensor;
use tweedie_operators::Rng;

/// Nobody watches a run inside a step.
struct Unwatched;

impl Observer for Unwatched {
    fn step(&mut self, _: &Step<'_>) -> Result<()> {
        Ok(())
    }
}

/// Euler's method for the probability-flow ODE, `dx/dσ = (x − D)/σ`, from the state `x` at `sigmas[0]`; an error names
/// `step`, that of the run around it.
pub(super) fn flow(prior: &dyn Denoiser, x: Tensor, sigmas: &[f64], rng: &mut Rng, step: usize) -> Result<Tensor> {
    let denoise = |x: &Tensor, level: Level, _: &mut Rng| prior.denoise(x, level.from);
    anneal(x, sigmas, Renoise::None, rng, &mut Unwatched, denoise).map_err(|error| at(error, step))
}

/// The reverse-time SDE by `x' = x + 2 (σ' − σ)(x − D)/σ + √(2σ(σ − σ')) n`, as [`flow`]; at σ' = 0 the denoised image.
pub(super) fn diffuse(prior: &dyn Denoiser, x: Tensor, sigmas: &[f64], rng: &mut Rng, step: usize) -> Result<Tensor> {
    let one = |x: &Tensor, Level { from, to }: Level, rng: &mut Rng| {
        let x0 = prior.denoise(x, from)?;
        if to == 0.0 {
            return Ok(Transition { next: x0.clone(), x0 });
        }
        let mean = (x + (x - &x0)?.affine(2.0 * (to - from) / from, 0.0)?)?;
        let noise = rng.normal_like(x)?.affine((2.0 * from * (from - to)).sqrt(), 0.0)?;
        Ok(Transition { next: (mean + noise)?, x0 })
    };
    descend(x, sigmas, rng, &mut Unwatched, one).map_err(|error| at(error, step))
}

fn at(error: Error, step: usize) -> Error {
    match error {
        Error::NonFinite { sigma, .. } => Error::NonFinite { step, sigma },
        other => other,
    }
}
