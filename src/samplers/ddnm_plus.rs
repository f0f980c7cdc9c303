//! DDNM+, for noisy measurements, Wang et al. (2023), <https://arxiv.org/abs/2212.00490>, section 3.3 and appendix.

use super::annealing::AnnealingSettings;
use super::ddrm::SpectralStep;
use super::spectrum::Spectrum;
use super::travel::{Travel, below};
use super::{Annealing, BuildSampler, Needs, Noise, Observer, Problem, Renoise, Sampler, Structure, settings};
use crate::Result;
use crate::schedules::Named;
use crate::solvers::{Estimate, Level, Transition, descend, renoised};
use candle_core::Tensor;
use serde::Deserialize;
use std::ops::RangeInclusive;
use tweedie_operators::{Entry, Rng};

/// [`super::Ddnm`] with each coordinate of the singular vectors corrected as far as its measurement allows, so that measured and added
/// noise are `σ'²` together.
///
/// `x̂₀ = D − V λ (VᵀD − ȳ)` with `ȳ = Uᵀy / s`, and the noise that is added to it:
///
/// | coordinate | λ | noise |
/// | --- | --- | --- |
/// | unseen | 0 | `σ' (√(1−ζ) ē + √ζ n̄)` |
/// | `s σ' ≥ σ_y` | 1 | `√(σ'² − σ_y²/s²) n̄` |
/// | `s σ' < σ_y` | `√(1−ζ) s σ'/σ_y` | `√ζ σ' n̄` |
///
/// `ē = Vᵀ(x − D)/σ`, `ζ = η²` of `renoise`: the steps of [`super::Ddrm`] with η_b = 1, from noise alone. Without noise it is
/// [`super::Ddnm`], whose noise in seen coordinates is that of the unseen ones; so it is in the authors' code. Singular values below
/// 1/1000 of the largest count as unseen.
///
/// A jump back up renoises the last *unprojected* image.
#[derive(Clone, Debug)]
pub struct DdnmPlus {
    annealing: Annealing,
    travel: Travel,
}

impl Sampler for DdnmPlus {
    fn sample(
        &self,
        problem: &Problem<'_>,
        shape: (usize, usize, usize),
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let sigma_y = problem.measurement.gaussian_sigma("ddnm_plus")?;
        let spectrum = Spectrum::new("ddnm_plus", problem.measurement)?;
        let deviation = spectrum.deviation(sigma_y)?;
        let renoise = self.annealing.renoise;
        let step = SpectralStep { spectrum, deviation, renoise, eta_b: 1.0, temperature: 1.0 };
        let sigmas = self.annealing.sigmas(&problem.prior.sigma_range());
        let path = self.travel.path(&sigmas);
        descend(problem.start(shape, sigmas[0], rng)?, &path, rng, observer, |x, level, rng| {
            let denoised = problem.prior.denoise(x, level.from)?;
            let down = Level { to: below(&sigmas, level.from), ..level };
            let next = if level.to > down.to {
                (&denoised + rng.normal_like(x)?.affine(level.to, 0.0)?)?
            } else if sigma_y > 0.0 {
                step.next(x, &denoised, down, rng)?
            } else {
                let eps = Some(((x - &denoised)? / level.from)?);
                renoised(x, &Estimate { x0: step.spectrum.finish(denoised.clone())?, eps }, down, renoise, rng)?
            };
            Ok(Transition::by(denoised, next, level))
        })
    }

    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        Needs { structure: Structure::SingularValues, noise: Noise::Gaussian, noiseless: false }
    }

    fn annealing(&self) -> &Annealing {
        &self.annealing
    }

    fn steps(&self, range: &RangeInclusive<f64>) -> usize {
        self.travel.path(&self.annealing.sigmas(range)).len() - 1
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Noise levels and renoising.
    annealing: AnnealingSettings,
    /// Jumps back up.
    travel: Travel,
}

/// Noise levels and renoising unless told otherwise: η = 0.85.
const ANNEALING: Annealing = Annealing {
    steps: 100,
    sigma_start: 80.0,
    sigma_end: 0.01,
    schedule: Named::VP_LINEAR,
    renoise: Renoise::Fraction(0.7225),
    ..Annealing::DEFAULT
};

pub(super) const ENTRY: Entry<BuildSampler> = Entry {
    name: "ddnm_plus",
    about: "Null-space projection for noisy measurements: each singular vector corrected as far as its noise allows",
    fields: &[
        (
            "annealing",
            "table of steps, sigma_start, sigma_end, rho, schedule and renoise, whose fraction is η²; default 0.85²",
        ),
        ("travel", "table of length, the levels of a jump back up, and visits of each turning point; default 1 and 1"),
    ],
    example: "annealing = { steps = 4 }\ntravel = { length = 2, visits = 2 }",
    build: |table| {
        let Config { annealing, travel } = settings("ddnm_plus", table)?;
        Ok(Box::new(DdnmPlus { annealing: annealing.over(ANNEALING)?, travel: travel.checked()? }))
    },
};
