//! Loss-guided diffusion with Monte Carlo, Song et al. (2023), <https://proceedings.mlr.press/v202/song23k.html>.

use super::annealing::AnnealingSettings;
use super::residual::norm_gradient;
use super::{Annealing, BuildSampler, Needs, Noise, Observer, Problem, Renoise, Sampler, Structure, settings, within};
use crate::Result;
use crate::solvers::anneal;
use candle_core::Tensor;
use serde::Deserialize;
use tweedie_operators::{Entry, Rng};

/// [`super::Dps`] with the residual's gradient averaged over images that the denoised one stands for.
///
/// `x̂₀ = D − ζ √((1+σ²)(1+σ'²)) σ²/(σ²−σ'²) Jᵀ (1/k) Σᵢ ∇_u ‖y − A u‖₂ at uᵢ = D + r nᵢ`, `J = ∂D/∂x`,
/// `r = σ/√(1+σ²)`: for each step k draws and one pullback.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LgdMc {
    annealing: Annealing,
    /// ζ, no unit, as that of [`super::Dps`].
    scale: f64,
    /// k.
    samples: usize,
}

impl Sampler for LgdMc {
    fn sample(
        &self,
        problem: &Problem<'_>,
        shape: (usize, usize, usize),
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let sigmas = self.annealing.sigmas(&problem.prior.sigma_range());
        anneal(
            problem.start(shape, sigmas[0], rng)?,
            &sigmas,
            self.annealing.renoise,
            rng,
            observer,
            |x, level, rng| {
                let (denoised, pullback) = problem.prior.denoise_with_pullback(x, level.from)?;
                let (from, to) = (level.from.powi(2), level.to.powi(2));
                let spread = (from / (1.0 + from)).sqrt();
                let mut direction = denoised.zeros_like()?;
                for _ in 0..self.samples {
                    let u = (&denoised + rng.normal_like(x)?.affine(spread, 0.0)?)?;
                    direction = (direction + norm_gradient(problem.measurement, &u)?)?;
                }
                let gradient = pullback.apply(&(direction / self.samples as f64)?)?;
                drop(pullback);
                let factor = ((1.0 + from) * (1.0 + to)).sqrt() * from / (from - to);
                Ok((denoised - gradient.affine(self.scale * factor, 0.0)?)?)
            },
        )
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
    annealing: AnnealingSettings,
    /// ζ, no unit.
    scale: f64,
    /// k.
    samples: usize,
}

/// Noise levels and renoising unless told otherwise.
const ANNEALING: Annealing = Annealing {
    steps: 100,
    renoise: Renoise::Ancestral,
    sigma_start: 1.0,
    sigma_end: 0.02,
    rho: 3.0,
    ..Annealing::DEFAULT
};

impl Default for Config {
    fn default() -> Self {
        Self { annealing: AnnealingSettings::default(), scale: 0.5, samples: 3 }
    }
}

pub(super) const ENTRY: Entry<BuildSampler> = Entry {
    name: "lgd_mc",
    about: "Loss-guided diffusion: the step of dps, averaged over images around the denoised one",
    fields: &[
        ("annealing", "table of steps, sigma_start, sigma_end, rho and renoise"),
        ("scale", "ζ, the length of the guiding step, no unit; default 0.5"),
        ("samples", "k, images that the gradient is averaged over, 1 to 1000; default 3"),
    ],
    example: "annealing = { steps = 4 }\nsamples = 2",
    build: |table| {
        let Config { annealing, scale, samples } = settings("lgd_mc", table)?;
        within("samples", samples as f64, 1.0..=1000.0)?;
        Ok(Box::new(LgdMc {
            annealing: annealing.over(ANNEALING)?,
            scale: within("scale", scale, 0.0..=1e6)?,
            samples,
        }))
    },
};
