//! Inpainting and colourisation by predictor and corrector, Song et al. (2021), <https://arxiv.org/abs/2011.13456>, appendix I.

use super::annealing::AnnealingSettings;
use super::predictor_corrector::{correct, predict};
use super::spectrum::Spectrum;
use super::{Annealing, BuildSampler, Needs, Noise, Observer, Problem, Sampler, Structure, settings, within};
use crate::Result;
use crate::schedules::Named;
use crate::solvers::{Transition, descend};
use candle_core::Tensor;
use serde::Deserialize;
use std::ops::RangeInclusive;
use tweedie_operators::{Entry, Rng};

/// The reverse process of the prior, with what was measured pasted over the state, as noisy as the state, after every move.
///
/// At each level some corrector moves `x ← x + α s + √(2α) n`, `α = 2 (r ‖n‖/‖s‖)²`, norms for each image, then the
/// reverse-diffusion predictor `x' = x + (σ²−σ'²) s + √(σ²−σ'²) n`; after each `x ← V [ȳ + σ n̄ where seen, else Vᵀx]` with the noise
/// level of the moved state and `ȳ = Uᵀy / s`, for a mask `y` itself, for grey photos the grey axis of an orthonormal colour basis.
/// Singular values below 1/1000 of the largest count as unseen.
///
/// The authors' code pastes with the level that the predictor leaves, and makes its noise-free result of the noisy state in
/// the unseen part; here the result is the mean of the last predictor, `D`. A measurement without noise is pasted over it, so that
/// `A x̂ = y` to rounding. Exact only where the prior makes the seen and the unseen coordinates independent, and then as steps grow.
#[derive(Clone, Debug)]
pub struct ScoreSde {
    annealing: Annealing,
    /// Corrector moves at each level.
    corrections: usize,
    /// r, signal-to-noise ratio of the corrector.
    snr: f64,
}

impl Sampler for ScoreSde {
    fn sample(
        &self,
        problem: &Problem<'_>,
        shape: (usize, usize, usize),
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let spectrum = Spectrum::new("score_sde", problem.measurement)?;
        let prior = problem.prior;
        let sigmas = self.annealing.sigmas(&prior.sigma_range());
        // What is seen starts without noise, as in the authors' code.
        let x = spectrum.paste(&problem.start(shape, sigmas[0], rng)?, 0.0, rng)?;
        descend(x, &sigmas, rng, observer, |x, level, rng| {
            let mut x = x.clone();
            for _ in 0..self.corrections {
                x = spectrum.paste(&correct(prior, &x, level.from, self.snr, rng)?, level.from, rng)?;
            }
            let (denoised, moved) = predict(prior, &x, level, rng)?;
            let next = if level.to == 0.0 { spectrum.finish(moved)? } else { spectrum.paste(&moved, level.to, rng)? };
            Ok(Transition::by(denoised, next, level))
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

    fn evaluations(&self, range: &RangeInclusive<f64>) -> usize {
        (self.annealing.sigmas(range).len() - 1) * (self.corrections + 1)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Noise levels.
    annealing: AnnealingSettings,
    /// Corrector moves at each level.
    corrections: usize,
    /// r, no unit.
    snr: f64,
}

/// Noise levels unless told otherwise. The paper's levels from 50 to 0.01 on [0, 1].
const ANNEALING: Annealing =
    Annealing { steps: 1000, sigma_start: 100.0, sigma_end: 0.02, schedule: Named::GEOMETRIC, ..Annealing::DEFAULT };

impl Default for Config {
    fn default() -> Self {
        Self { annealing: AnnealingSettings::default(), corrections: 1, snr: 0.16 }
    }
}

pub(super) const ENTRY: Entry<BuildSampler> = Entry {
    name: "score_sde",
    about: "Predictor and corrector of the reverse process, with the measured part pasted in after every move",
    fields: &[
        ("annealing", "table of steps, sigma_start, sigma_end, rho and schedule; renoise is not used"),
        ("corrections", "corrector moves at each level, 0 to 1000; default 1"),
        ("snr", "signal-to-noise ratio of the corrector, no unit; default 0.16"),
    ],
    example: "annealing = { steps = 4 }\ncorrections = 1\nsnr = 0.16",
    build: |table| {
        let Config { annealing, corrections, snr } = settings("score_sde", table)?;
        within("corrections", corrections as f64, 0.0..=1000.0)?;
        Ok(Box::new(ScoreSde {
            annealing: annealing.over(ANNEALING)?,
            corrections,
            snr: within("snr", snr, 0.0..=1.0)?,
        }))
    },
};
