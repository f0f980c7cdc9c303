//! Diffusion model based posterior sampling, Meng and Kabashima (2022), <https://arxiv.org/abs/2211.12343>.

use super::annealing::AnnealingSettings;
use super::nearest::nearest;
use super::{Annealing, BuildSampler, Needs, Noise, Observer, Problem, Renoise, Sampler, Structure, settings, within};
use crate::Result;
use crate::schedules::Named;
use crate::solvers::anneal;
use candle_core::Tensor;
use serde::Deserialize;
use tweedie_operators::{Entry, Rng};

/// The likelihood's score under a prior that knows nothing: `p(x₀ | x) ≈ N(x, σ² I)`.
///
/// `x̂₀ = D + λ σ² G`, `G = Aᵀ (σ² A Aᵀ + σ_y² I)⁻¹ (y − A x)`, at the noisy `x`, so that neither the network nor its derivative stands
/// in it; renoised as DDPM this is the paper's step plus `λ (σ² − σ'²) G`. (Its code evaluates G at the freshly drawn `x'`.) The
/// system is solved by singular values, by the Gram matrix, or else by conjugate gradients: `σ² G` is the step of the proximal map from
/// `x`, which is what remains of it where σ_y = 0.
///
/// λ = 1 would be Bayes' rule under that prior; the paper takes 1.75 for every task.
#[derive(Clone, Debug)]
pub struct Dmps {
    annealing: Annealing,
    /// λ, no unit.
    scale: f64,
}

impl Sampler for Dmps {
    fn sample(
        &self,
        problem: &Problem<'_>,
        shape: (usize, usize, usize),
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let measurement = problem.measurement;
        self.check(measurement)?;
        let sigmas = self.annealing.sigmas(&problem.prior.sigma_range());
        anneal(problem.start(shape, sigmas[0], rng)?, &sigmas, self.annealing.renoise, rng, observer, |x, level, _| {
            let denoised = problem.prior.denoise(x, level.from)?;
            let guide = (nearest(measurement, x, level.from)? - x)?;
            Ok((denoised + guide.affine(self.scale, 0.0)?)?)
        })
    }

    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        Needs { structure: Structure::Linear, noise: Noise::Gaussian, noiseless: false }
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
    scale: f64,
}

/// Noise levels and renoising unless told otherwise.
const ANNEALING: Annealing = Annealing {
    steps: 1000,
    sigma_start: 80.0,
    sigma_end: 0.01,
    schedule: Named::VP_LINEAR,
    renoise: Renoise::Ancestral,
    ..Annealing::DEFAULT
};

impl Default for Config {
    fn default() -> Self {
        Self { annealing: AnnealingSettings::default(), scale: 1.75 }
    }
}

pub(super) const ENTRY: Entry<BuildSampler> = Entry {
    name: "dmps",
    about: "The likelihood's score under an uninformative prior, at the noisy state, for linear operators",
    fields: &[
        ("annealing", "table of steps, sigma_start, sigma_end, rho, renoise and schedule"),
        ("scale", "λ, factor of the guidance, no unit; default 1.75"),
    ],
    example: "annealing = { steps = 4 }\nscale = 1.75",
    build: |table| {
        let Config { annealing, scale } = settings("dmps", table)?;
        Ok(Box::new(Dmps { annealing: annealing.over(ANNEALING)?, scale: within("scale", scale, 0.0..=1e3)? }))
    },
};
