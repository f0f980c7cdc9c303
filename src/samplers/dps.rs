//! Diffusion posterior sampling, Chung et al. (2023), <https://arxiv.org/abs/2209.14687>.

use super::{Annealing, BuildSampler, Needs, Noise, Observer, Problem, Renoise, Sampler, Structure, settings, within};
use crate::Result;
use crate::solvers::anneal;
use candle_core::Tensor;
use serde::Deserialize;
use tweedie_operators::{Entry, Rng};

/// A step along the gradient of the residual's norm, through the denoiser.
///
/// `x̂₀ = D − ζ √((1+σ²)(1+σ'²)) σ²/(σ²−σ'²) ∇_x ‖y − A D(x; σ)‖₂`: the paper's ancestral step followed by
/// `−ζ∇‖y − A x̂₀‖`, carried from its variance-preserving coordinates to `x = x₀ + σ n`. The norm is not squared and is
/// taken for each image of the batch. At σ' = 0 the factor is `ζ √(1+σ²)`.
#[derive(Clone, Debug)]
pub struct Dps {
    annealing: Annealing,
    /// ζ, no unit; the paper's configurations have 0.5 for inpainting with 1000 steps.
    scale: f64,
}

impl Sampler for Dps {
    fn sample(
        &self,
        problem: &Problem<'_>,
        shape: (usize, usize, usize),
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let measurement = problem.measurement;
        let sigmas = self.annealing.sigmas(&problem.prior.sigma_range());
        anneal(problem.start(shape, sigmas[0], rng)?, &sigmas, self.annealing.renoise, rng, observer, |x, level, _| {
            let (denoised, pullback) = problem.prior.denoise_with_pullback(x, level.from)?;
            let residual = measurement.operator.forward(&denoised)?.broadcast_sub(&measurement.y)?;
            let norm = residual.sqr()?.flatten_from(1)?.sum_keepdim(1)?.sqrt()?;
            // A residual of exactly zero has no direction.
            let norm = norm.maximum(f64::from(f32::MIN_POSITIVE))?.reshape((x.dim(0)?, 1, 1, 1))?;
            let direction = measurement.operator.vjp(&denoised, &residual)?.broadcast_div(&norm)?;
            let gradient = pullback.apply(&direction)?;
            let (from, to) = (level.from.powi(2), level.to.powi(2));
            let factor = ((1.0 + from) * (1.0 + to)).sqrt() * from / (from - to);
            Ok((denoised - gradient.affine(self.scale * factor, 0.0)?)?)
        })
    }

    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        Needs { structure: Structure::Derivative, noise: Noise::Any, noiseless: false }
    }

    fn annealing(&self) -> &Annealing {
        &self.annealing
    }

    fn pullbacks(&self) -> usize {
        1
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Noise levels and renoising.
    annealing: Annealing,
    /// ζ, no unit.
    scale: f64,
}

impl Default for Config {
    fn default() -> Self {
        let annealing = Annealing { steps: 100, renoise: Renoise::Ancestral, ..Annealing::default() };
        Self { annealing, scale: 0.5 }
    }
}

pub(super) const ENTRY: Entry<BuildSampler> = Entry {
    name: "dps",
    about: "Diffusion posterior sampling: a gradient step on the residual's norm, for any operator",
    fields: &[
        ("annealing", "table of steps, sigma_start, sigma_end, rho, renoise and schedule"),
        ("scale", "ζ, the length of the guiding step, no unit; default 0.5"),
    ],
    example: "annealing = { steps = 4 }\nscale = 0.5",
    build: |table| {
        let Config { annealing, scale } = settings("dps", table)?;
        Ok(Box::new(Dps { annealing: annealing.checked()?, scale: within("scale", scale, 0.0..=1e6)? }))
    },
};
