//! Plug-and-play restoration with a diffusion prior, Zhu et al. (2023), <https://arxiv.org/abs/2305.08995>.

use super::annealing::AnnealingSettings;
use super::nearest::nearest;
use super::{Annealing, BuildSampler, Needs, Noise, Observer, Problem, Renoise, Sampler, Structure, settings, within};
use crate::Result;
use crate::schedules::Named;
use crate::solvers::anneal;
use candle_core::Tensor;
use serde::Deserialize;
use tweedie_operators::{Entry, Rng};

/// The image between the denoised one and the measurement: half-quadratic splitting with the noise level as its penalty.
///
/// `x̂₀ = argmin_u ‖y − A u‖² + ρ ‖u − D‖²`, `ρ = λ σ_n²/σ²`, renoised by `ζ` of `renoise`; the last step is the prior's alone, as published.
/// The authors' σ_n is on [0, 1] where σ is on [-1, 1], so their λ is kept by the proximal map with `r = 2σ/√λ`; Bayes' own choice is λ = 4.
///
/// For an operator that is not linear one gradient step from D: `x̂₀ = D + Jᵀ(y − A(D)) / (1 + ρ)`. The paper divides by ρ alone, which is
/// beyond the minimum wherever `ρ < ‖J‖²`, as it is until the last steps; 1 stands for ‖J‖², with which the step is the proximal map of
/// a mask.
///
/// Published: deblurring λ 7, ζ 0.3; super-resolution λ 15, ζ 0.25 (faces) or λ 35, ζ 0.35; inpainting λ 1, ζ 1 in 20 steps.
#[derive(Clone, Debug)]
pub struct DiffPir {
    annealing: Annealing,
    /// λ, no unit.
    lambda: f64,
}

impl Sampler for DiffPir {
    fn sample(
        &self,
        problem: &Problem<'_>,
        shape: (usize, usize, usize),
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let measurement = problem.measurement;
        let operator = measurement.operator;
        let sigma_y = measurement.gaussian_sigma("diffpir")?;
        let sigmas = self.annealing.sigmas(&problem.prior.sigma_range());
        anneal(problem.start(shape, sigmas[0], rng)?, &sigmas, self.annealing.renoise, rng, observer, |x, level, _| {
            let denoised = problem.prior.denoise(x, level.from)?;
            let r = 2.0 * level.from / self.lambda.sqrt();
            if level.to == 0.0 {
                return Ok(denoised);
            }
            if operator.as_linear().is_some() {
                return nearest(measurement, &denoised, r);
            }
            let misfit = operator.forward(&denoised)?.broadcast_sub(&measurement.y)?;
            let length = 1.0 / (1.0 + (sigma_y / r).powi(2));
            Ok((&denoised - operator.vjp(&denoised, &misfit)?.affine(length, 0.0)?)?)
        })
    }

    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        Needs { structure: Structure::Derivative, noise: Noise::Gaussian, noiseless: false }
    }

    fn annealing(&self) -> &Annealing {
        &self.annealing
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Noise levels and renoising.
    annealing: AnnealingSettings,
    /// λ, no unit.
    lambda: f64,
}

/// Noise levels and renoising unless told otherwise.
const ANNEALING: Annealing = Annealing {
    steps: 100,
    sigma_start: 80.0,
    sigma_end: 0.01,
    schedule: Named::QUAD,
    renoise: Renoise::Fraction(0.3),
    ..Annealing::DEFAULT
};

impl Default for Config {
    fn default() -> Self {
        Self { annealing: AnnealingSettings::default(), lambda: 7.0 }
    }
}

pub(super) const ENTRY: Entry<BuildSampler> = Entry {
    name: "diffpir",
    about: "Plug-and-play: the denoised image and the measurement by turns, through the proximal map",
    fields: &[
        (
            "annealing",
            "table of steps, sigma_start, sigma_end, rho, schedule and renoise, whose fraction is ζ; default 0.3",
        ),
        ("lambda", "λ, weight of the prior, no unit, as published; default 7"),
    ],
    example: "annealing = { steps = 4 }\nlambda = 7.0",
    build: |table| {
        let Config { annealing, lambda } = settings("diffpir", table)?;
        Ok(Box::new(DiffPir { annealing: annealing.over(ANNEALING)?, lambda: within("lambda", lambda, 1e-6..=1e6)? }))
    },
};
