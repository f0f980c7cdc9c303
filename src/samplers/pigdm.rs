//! Pseudo-inverse guidance, Song et al. (2023), <https://openreview.net/forum?id=9_gsMA8MRKQ>.

use super::annealing::AnnealingSettings;
use super::ddnm::project;
use super::{Annealing, BuildSampler, Needs, Noise, Observer, Problem, Sampler, Structure, settings, within};
use crate::Result;
use crate::solvers::anneal;
use candle_core::Tensor;
use serde::Deserialize;
use tweedie_operators::{CgParams, Entry, Rng};

/// Tweedie's formula for the posterior, with `p(x₀ | x)` taken for `N(D, r² I)`.
///
/// `x̂₀ = D + σ² Jᵀ Aᵀ (r² A Aᵀ + σ_y² I)⁻¹ (y − A D)`, `J = ∂D/∂x`, `r² = τ²σ²/(τ²+σ²)`, τ the spread of the prior.
///
/// Exact for a Gaussian prior of standard deviation τ. The inverse is found by the singular values, the Gram matrix or
/// conjugate gradients, whichever the operator allows. Where nothing is noisy and a pseudo-inverse is known the result is
/// projected on the measurement ([`super::Ddnm`]'s step), which changes nothing in the exact case.
#[derive(Clone, Debug)]
pub struct Pigdm {
    annealing: Annealing,
    /// τ: standard deviation of the prior, pixels in [-1, 1]; the prior's own if `None`.
    prior_std: Option<f64>,
    /// Factor of the guidance; 1 is Bayes' rule.
    scale: f64,
}

impl Sampler for Pigdm {
    fn sample(
        &self,
        problem: &Problem<'_>,
        shape: (usize, usize, usize),
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let measurement = problem.measurement;
        let operator = measurement.linear("pigdm")?;
        let sigma_y = measurement.gaussian_sigma("pigdm")?;
        let sigmas = self.annealing.sigmas(&problem.prior.sigma_range());
        anneal(problem.start(shape, sigmas[0], rng)?, &sigmas, self.annealing.renoise, rng, observer, |x, level, _| {
            let prior_std = self.prior_std.unwrap_or(problem.prior.spread());
            let (prior, noise) = (prior_std.powi(2), level.from.powi(2));
            let spread = prior * noise / (prior + noise);
            let (denoised, pullback) = problem.prior.denoise_with_pullback(x, level.from)?;
            // r² Aᵀ(r²AAᵀ + σ_y²)⁻¹(y − A D) is the step of the proximal map from D. Conjugate gradients that stopped early
            // guide as well, only less far in what is hardly seen.
            let (nearest, _) = measurement.prox_with(&denoised, spread.sqrt(), &CgParams::default())?;
            let step = (nearest - &denoised)?;
            let guide = pullback.apply(&step)?;
            drop(pullback);
            let x0 = (denoised + guide.affine(self.scale * noise / spread, 0.0)?)?;
            // A decomposition may have to be found first: it is asked for only where it is used.
            match if sigma_y == 0.0 { operator.as_spectral() } else { None } {
                Some(spectral) => project(spectral, &x0, &measurement.y),
                None => Ok(x0),
            }
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

    fn pullbacks(&self) -> usize {
        1
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Noise levels and renoising.
    annealing: AnnealingSettings,
    /// τ, pixels in [-1, 1].
    prior_std: Option<f64>,
    /// Factor of the guidance.
    scale: f64,
}

/// Noise levels and renoising unless told otherwise.
const ANNEALING: Annealing = Annealing::DEFAULT;

impl Default for Config {
    fn default() -> Self {
        Self { annealing: AnnealingSettings::default(), prior_std: None, scale: 1.0 }
    }
}

pub(super) const ENTRY: Entry<BuildSampler> = Entry {
    name: "pigdm",
    about: "Pseudo-inverse guidance: a Gaussian approximation of the posterior, through the network's pullback",
    fields: &[
        ("annealing", "table of steps, sigma_start, sigma_end, rho, renoise and schedule"),
        ("prior_std", "τ, spread of the prior, pixels in [-1, 1]; default its own, 0.5 for photos"),
        ("scale", "factor of the guidance; default 1"),
    ],
    example: "annealing = { steps = 4 }\nprior_std = 0.5",
    build: |table| {
        let Config { annealing, prior_std, scale } = settings("pigdm", table)?;
        let prior_std = prior_std.map(|std| within("prior_std", std, 1e-3..=1e3)).transpose()?;
        Ok(Box::new(Pigdm {
            annealing: annealing.over(ANNEALING)?,
            prior_std,
            scale: within("scale", scale, 0.0..=1e3)?,
        }))
    },
};
