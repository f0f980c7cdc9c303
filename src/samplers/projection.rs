//! Projection on a noisy measurement, Song et al. (2022), <https://arxiv.org/abs/2111.08005>.

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

/// The reverse process of the prior, drawn towards the measurement, as noisy as the state, before every move.
///
/// `x ← V [λ (ȳ + σ n̄) + (1 − λ) Vᵀx where seen, else Vᵀx]`, `ȳ = Uᵀy / s`, then a move of [`super::ScoreSde`]: some correctors and a
/// predictor at each level. The paper's transform `T` and subset `Λ` are `Vᵀ` and the coordinates with `s > 0`. λ is the trust in
/// the measurement; nothing is projected after the last move, as in the paper. Singular values below 1/1000 of the largest count as
/// unseen.
#[derive(Clone, Debug)]
pub struct Projection {
    annealing: Annealing,
    /// Corrector moves at each level.
    corrections: usize,
    /// r, signal-to-noise ratio of the corrector.
    snr: f64,
    /// λ
    weight: f64,
}

impl Sampler for Projection {
    fn sample(
        &self,
        problem: &Problem<'_>,
        shape: (usize, usize, usize),
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let spectrum = Spectrum::new("projection", problem.measurement)?;
        let prior = problem.prior;
        let sigmas = self.annealing.sigmas(&prior.sigma_range());
        descend(problem.start(shape, sigmas[0], rng)?, &sigmas, rng, observer, |x, level, rng| {
            let mut x = x.clone();
            for _ in 0..self.corrections {
                let drawn = spectrum.pull(&x, self.weight, level.from, rng)?;
                x = correct(prior, &drawn, level.from, self.snr, rng)?;
            }
            let drawn = spectrum.pull(&x, self.weight, level.from, rng)?;
            let (denoised, next) = predict(prior, &drawn, level, rng)?;
            Ok(Transition { x0: denoised, next })
        })
    }

    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        Needs { structure: Structure::SingularValues, noise: Noise::Any, noiseless: false }
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
    /// λ, no unit.
    weight: f64,
}

/// Noise levels unless told otherwise.
const ANNEALING: Annealing =
    Annealing { steps: 1000, sigma_start: 100.0, sigma_end: 0.02, schedule: Named::GEOMETRIC, ..Annealing::DEFAULT };

impl Default for Config {
    fn default() -> Self {
        Self { annealing: AnnealingSettings::default(), corrections: 1, snr: 0.16, weight: 1.0 }
    }
}

pub(super) const ENTRY: Entry<BuildSampler> = Entry {
    name: "projection",
    about: "Predictor and corrector of the reverse process, drawn towards the noisy measurement before every move",
    fields: &[
        ("annealing", "table of steps, sigma_start, sigma_end, rho and schedule; renoise is not used"),
        ("corrections", "corrector moves at each level, 0 to 1000; default 1"),
        ("snr", "signal-to-noise ratio of the corrector, no unit; default 0.16"),
        ("weight", "λ, trust in the measurement, 0 to 1; default 1"),
    ],
    example: "annealing = { steps = 4 }\ncorrections = 1\nsnr = 0.16\nweight = 0.8",
    build: |table| {
        let Config { annealing, corrections, snr, weight } = settings("projection", table)?;
        within("corrections", corrections as f64, 0.0..=1000.0)?;
        let (snr, weight) = (within("snr", snr, 0.0..=1.0)?, within("weight", weight, 0.0..=1.0)?);
        Ok(Box::new(Projection { annealing: annealing.over(ANNEALING)?, corrections, snr, weight }))
    },
};
