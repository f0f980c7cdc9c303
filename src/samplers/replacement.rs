//! Inpainting by annealed Langevin dynamics, Song and Ermon (2019), <https://arxiv.org/abs/1907.05600>.

use super::annealing::AnnealingSettings;
use super::langevin::{Langevin, langevin_step};
use super::spectrum::Spectrum;
use super::{Annealing, BuildSampler, Needs, Noise, Observer, Problem, Sampler, Structure, settings, within};
use crate::Result;
use crate::schedules::Named;
use crate::solvers::Transition;
use candle_core::Tensor;
use serde::Deserialize;
use std::ops::RangeInclusive;
use tweedie_operators::{Entry, Rng};

/// Langevin dynamics of the prior, with what was measured pasted over the state, as noisy as the state, before every step.
///
/// `x ← V [ȳ + σ n̄ where seen, else Vᵀx]`, then `x ← x + a (D(x; σ) − x) + √(2a) σ n`, some times at each level;
/// `ȳ = Uᵀy / s`. At the end the state is denoised once more, and a measurement without noise is pasted, so that
/// `A x̂ = y` to rounding. Singular values below 1/1000 of the largest count as unseen.
///
/// The step of the paper, `α = ε (σ/σ_L)²`, is `a σ²` with `a = ε/σ_L²`, a number without unit: 0.2 in the paper. The paper starts
/// from uniform noise, this from Gaussian noise of the first level. Exact only where the prior makes the seen and the unseen
/// coordinates independent, and then as the steps shrink.
#[derive(Clone, Debug)]
pub struct Replacement {
    annealing: Annealing,
    /// Langevin steps at each level.
    repeats: usize,
    /// a: length of a step in units of σ².
    step: f64,
}

impl Sampler for Replacement {
    fn sample(
        &self,
        problem: &Problem<'_>,
        shape: (usize, usize, usize),
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let spectrum = Spectrum::new("replacement", problem.measurement)?;
        let sigmas = self.annealing.sigmas(&problem.prior.sigma_range());
        let x = problem.start(shape, sigmas[0], rng)?;
        let update = |x: &Tensor, sigma: f64, rng: &mut Rng| {
            let x = spectrum.paste(x, sigma, rng)?;
            let denoised = problem.prior.denoise(&x, sigma)?;
            let next = langevin_step(&x, &(&denoised - &x)?, self.step, sigma, rng)?;
            Ok(Transition { x0: denoised, next })
        };
        let langevin = Langevin { prior: problem.prior, sigmas: &sigmas, repeats: self.repeats };
        langevin.run(x, rng, observer, update, |x0| spectrum.finish(x0))
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
        Langevin::evaluations(&self.annealing.sigmas(range), self.repeats)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Noise levels.
    annealing: AnnealingSettings,
    /// Langevin steps at each level.
    repeats: usize,
    /// a, in units of σ².
    step: f64,
}

/// Noise levels unless told otherwise. The paper's ten levels from 1 to 0.01 on [0, 1].
const ANNEALING: Annealing =
    Annealing { steps: 10, sigma_start: 2.0, sigma_end: 0.02, schedule: Named::GEOMETRIC, ..Annealing::DEFAULT };

impl Default for Config {
    fn default() -> Self {
        Self { annealing: AnnealingSettings::default(), repeats: 100, step: 0.2 }
    }
}

pub(super) const ENTRY: Entry<BuildSampler> = Entry {
    name: "replacement",
    about: "Annealed Langevin dynamics with the measured part pasted in before every step",
    fields: &[
        ("annealing", "table of steps, sigma_start, sigma_end, rho and schedule; renoise is not used"),
        ("repeats", "Langevin steps at each level; default 100"),
        ("step", "length of a Langevin step in units of σ², no unit; default 0.2"),
    ],
    example: "annealing = { steps = 3 }\nrepeats = 2\nstep = 0.2",
    build: |table| {
        let Config { annealing, repeats, step } = settings("replacement", table)?;
        within("repeats", repeats as f64, 1.0..=10_000.0)?;
        Ok(Box::new(Replacement {
            annealing: annealing.over(ANNEALING)?,
            repeats,
            step: within("step", step, 0.0..=2.0)?,
        }))
    },
};
