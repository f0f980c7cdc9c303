//! Predictor-corrector sampling, Song et al. (2021), <https://arxiv.org/abs/2011.13456>, algorithms 1 to 3.

use super::process::{Corrector, Formulation, Predictor, Process};
use super::{BuildSolver, Observer, Solver, Transition, descend, settings, within};
use crate::priors::Denoiser;
use crate::{Error, Result};
use candle_core::Tensor;
use serde::Deserialize;
use std::ops::RangeInclusive;
use tweedie_operators::{Entry, Rng};

/// In each of N steps a few of the corrector at the state's own time, then one of the predictor to the next; the result is the
/// last predictor's mean, without its noise. The steps are those of [`Process`], in its own coordinates.
#[derive(Clone, Debug)]
pub struct PredictorCorrector {
    config: Config,
}

impl Solver for PredictorCorrector {
    fn solve(
        &self,
        prior: &dyn Denoiser,
        x: Tensor,
        range: &RangeInclusive<f64>,
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let Config { formulation, steps, predictor, probability_flow, corrector, corrector_steps, snr } = self.config;
        let process = Process::new(formulation, range, steps)?;
        let times = process.times();
        let mut left = times.iter().copied().peekable();
        descend(x, &self.sigmas(range), rng, observer, |x, level, rng| {
            let t = left.next().unwrap_or_default();
            let mut x = x.affine(process.scale(t), 0.0)?;
            let (mut x0, mut mean) = (None, None);
            for _ in 0..if corrector == Corrector::None { 0 } else { corrector_steps } {
                let (denoised, score) = process.score(prior, t, &x)?;
                let noise = rng.normal_like(&x)?;
                let size = process.step_size(corrector, snr, t, &score, &noise)?;
                let moved = Process::correct(&x, &score, &noise, &size)?;
                (x, mean, x0) = (moved.x, Some(moved.mean), Some(denoised));
            }
            if predictor != Predictor::None {
                let (denoised, score) = process.score(prior, t, &x)?;
                let moved = process.predict(predictor, probability_flow, t, &x, &score, rng)?;
                (x, mean, x0) = (moved.x, Some(moved.mean), Some(denoised));
            }
            let next = match left.peek() {
                Some(&t) if level.to > 0.0 => x.affine(1.0 / process.scale(t), 0.0)?,
                // m(0) = 1.
                _ => mean.unwrap_or(x),
            };
            Ok(Transition { x0: x0.unwrap_or_else(|| next.clone()), next })
        })
    }

    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn sigmas(&self, range: &RangeInclusive<f64>) -> Vec<f64> {
        match Process::new(self.config.formulation, range, self.config.steps) {
            Ok(process) => process.times().into_iter().map(|t| process.sigma(t)).chain([0.0]).collect(),
            // Solving says why.
            Err(_) => vec![*range.end(), 0.0],
        }
    }

    fn evaluations(&self, _: &RangeInclusive<f64>) -> Option<usize> {
        let Config { steps, predictor, corrector, corrector_steps, .. } = self.config;
        let corrections = if corrector == Corrector::None { 0 } else { corrector_steps };
        Some(steps * (corrections + usize::from(predictor != Predictor::None)))
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// The process.
    formulation: Formulation,
    /// N.
    steps: usize,
    /// The predictor.
    predictor: Predictor,
    /// Whether the predictor follows the ODE.
    probability_flow: bool,
    /// The corrector.
    corrector: Corrector,
    /// Corrections at each time.
    corrector_steps: usize,
    /// r, the signal-to-noise ratio of the corrector's step.
    snr: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            formulation: Formulation::Ve,
            steps: 1000,
            predictor: Predictor::ReverseDiffusion,
            probability_flow: false,
            corrector: Corrector::Langevin,
            corrector_steps: 1,
            snr: 0.16,
        }
    }
}

impl Config {
    fn checked(self) -> Result<Self> {
        within("steps", self.steps as f64, 1.0..=100_000.0)?;
        within("corrector_steps", self.corrector_steps as f64, 1.0..=1000.0)?;
        within("snr", self.snr, 1e-4..=10.0)?;
        let refuse = |name: &str, got: &str, expected: &str| {
            Err(Error::Config { name: name.into(), got: got.into(), expected: expected.into() })
        };
        if self.predictor == Predictor::None && self.corrector == Corrector::None {
            return refuse("predictor", "none", "another one if the corrector is none, too");
        }
        if self.formulation == Formulation::SubVp && self.corrector != Corrector::None {
            return refuse("corrector", "langevin or ald", "none for sub_vp, which the method has no step size for");
        }
        self.formulation.check(self.predictor, self.probability_flow)?;
        Ok(self)
    }
}

pub(super) const ENTRY: Entry<BuildSolver> = Entry {
    name: "predictor_corrector",
    about: "Predictor and corrector of score SDEs: VE, VP and sub-VP",
    fields: &[
        ("formulation", "ve, vp or sub_vp, the process that is turned round; default ve"),
        ("steps", "N, times; for vp more than 20; default 1000"),
        (
            "predictor",
            "euler_maruyama, reverse_diffusion, ancestral (not for sub_vp) or none; default reverse_diffusion",
        ),
        ("probability_flow", "whether the predictor follows the ODE, without noise; default false"),
        ("corrector", "langevin, ald or none (for sub_vp only none); default langevin"),
        ("corrector_steps", "corrections at each time, 1 to 1000; default 1"),
        ("snr", "r, signal-to-noise ratio of the corrector's step, 0.0001 to 10; default 0.16"),
    ],
    example: "formulation = \"vp\"\nsteps = 24\npredictor = \"ancestral\"\ncorrector = \"none\"",
    build: |table| {
        let config: Config = settings(ENTRY.name, table)?;
        Ok(Box::new(PredictorCorrector { config: config.checked()? }))
    },
};
