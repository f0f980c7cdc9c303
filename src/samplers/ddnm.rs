//! Denoising diffusion null-space model, Wang et al. (2023), <https://arxiv.org/abs/2212.00490>.

use super::annealing::AnnealingSettings;
use super::travel::{Travel, below};
use super::{Annealing, BuildSampler, Needs, Noise, Observer, Problem, Sampler, Structure, settings};
use crate::Result;
use crate::solvers::{Estimate, Level, Transition, descend, renoised};
use candle_core::Tensor;
use serde::Deserialize;
use std::ops::RangeInclusive;
use tweedie_operators::{Entry, Rng, SpectralOperator};

/// Keeps what was measured and takes the rest from the denoised image.
///
/// `x̂₀ = D(x; σ) − A⁺ (A D(x; σ) − y)`, renoised with the noise of the *unprojected* image, `ε̂ = (x − D)/σ`, as in the
/// paper. For measurements without noise: `A x̂₀ = y` to rounding. A jump back up renoises the last *unprojected* image.
#[derive(Clone, Debug)]
pub struct Ddnm {
    annealing: Annealing,
    travel: Travel,
}

impl Sampler for Ddnm {
    fn sample(
        &self,
        problem: &Problem<'_>,
        shape: (usize, usize, usize),
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let operator = problem.measurement.spectral("ddnm")?;
        let y = &problem.measurement.y;
        let sigmas = self.annealing.sigmas(&problem.prior.sigma_range());
        let path = self.travel.path(&sigmas);
        descend(problem.start(shape, sigmas[0], rng)?, &path, rng, observer, |x, level, rng| {
            let denoised = problem.prior.denoise(x, level.from)?;
            let down = Level { to: below(&sigmas, level.from), ..level };
            let eps = Some(((x - &denoised)? / level.from)?);
            let estimate = Estimate { x0: project(operator, &denoised, y)?, eps };
            let next = if level.to > down.to {
                (denoised + rng.normal_like(x)?.affine(level.to, 0.0)?)?
            } else {
                renoised(x, &estimate, down, self.annealing.renoise, rng)?
            };
            Ok(Transition { x0: estimate.x0, next })
        })
    }

    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        Needs { structure: Structure::SingularValues, noise: Noise::Any, noiseless: true }
    }

    fn annealing(&self) -> &Annealing {
        &self.annealing
    }

    fn steps(&self, range: &RangeInclusive<f64>) -> usize {
        self.travel.path(&self.annealing.sigmas(range)).len() - 1
    }
}

/// The image nearest to `x` that the measurement `y` allows: `x − A⁺(A x − y)`.
pub(super) fn project(operator: &dyn SpectralOperator, x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let misfit = operator.forward(x)?.broadcast_sub(y)?;
    Ok((x - operator.pseudo_inverse(&misfit)?)?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Config {
    /// Noise levels and renoising.
    annealing: AnnealingSettings,
    /// Jumps back up.
    travel: Travel,
}

/// Noise levels and renoising unless told otherwise.
const ANNEALING: Annealing = Annealing::DEFAULT;

pub(super) const ENTRY: Entry<BuildSampler> = Entry {
    name: "ddnm",
    about: "Null-space projection: keeps the measured part, denoises the rest",
    fields: &[
        ("annealing", "table of steps, sigma_start, sigma_end, rho, renoise and schedule"),
        ("travel", "table of length, the levels of a jump back up, and visits of each turning point; default 1 and 1"),
    ],
    example: "annealing = { steps = 4 }",
    build: |table| {
        let Config { annealing, travel } = settings("ddnm", table)?;
        Ok(Box::new(Ddnm { annealing: annealing.over(ANNEALING)?, travel: travel.checked()? }))
    },
};
