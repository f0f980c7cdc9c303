//! Stochastic solution of noisy inverse problems, Kawar et al. (2021), <https://arxiv.org/abs/2105.14951>.

use super::annealing::AnnealingSettings;
use super::langevin::Langevin;
use super::spectrum::Spectrum;
use super::{Annealing, BuildSampler, Needs, Noise, Observer, Problem, Sampler, Structure, settings, within};
use crate::Result;
use crate::schedules::Named;
use crate::solvers::Transition;
use candle_core::Tensor;
use serde::Deserialize;
use std::ops::RangeInclusive;
use tweedie_operators::{Entry, Rng};

/// Langevin dynamics in the coordinates of the singular vectors, where the noise of the measurement is a part of the noise of the
/// state: above `σ_y/s` the measurement is the less noisy of the two, below it the state.
///
/// With `x̄ = Vᵀx`, `ȳ = Uᵀy / s`, `q = min(1, s²σ²/σ_y²)`, 0 where nothing is seen, and `v = σ² (1 − q)`, but `σ² − σ_y²/s²` where q is 1:
/// `x̄ ← x̄ + a [q (ȳ − x̄) + (1 − q) (Vᵀ D − x̄)] + √(2a v) n`, some steps at each level. That is the paper's table of three cases, its
/// step `ε/σ_L²` called a. Singular values below 1/1000 of the largest count as unseen.
///
/// At the end the state is denoised once more, and a measurement without noise is pasted. Not exact in general.
#[derive(Clone, Debug)]
pub struct Snips {
    annealing: Annealing,
    /// Langevin steps at each level.
    repeats: usize,
    /// a: length of a step in units of σ².
    step: f64,
}

impl Sampler for Snips {
    fn sample(
        &self,
        problem: &Problem<'_>,
        shape: (usize, usize, usize),
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let spectrum = Spectrum::new("snips", problem.measurement)?;
        let deviation = spectrum.deviation(problem.measurement.gaussian_sigma("snips")?)?;
        let sigmas = self.annealing.sigmas(&problem.prior.sigma_range());
        let x = problem.start(shape, sigmas[0], rng)?;
        let update = |x: &Tensor, sigma: f64, rng: &mut Rng| {
            let denoised = problem.prior.denoise(x, sigma)?;
            // σ_y/s in units of σ: where nothing is seen it would be infinite, and is 0.
            let ratio = (&deviation / sigma)?.sqr()?;
            let one = ratio.ones_like()?;
            // Above 1 its inverse is q.
            let q = (&spectrum.seen * (&one / ratio.maximum(&one)?)?)?;
            let free = ((&one - ratio.minimum(&one)?)? * &spectrum.seen)?;
            let amplitude = ((&one - &q)? + free)?.sqrt()?;
            let state = spectrum.of(x)?;
            let drift = (spectrum.mix(&q, &spectrum.of(&denoised)?)? - &state)?;
            let noise = spectrum.of(&rng.normal_like(x)?)?;
            let noise = noise.broadcast_mul(&(amplitude * ((2.0 * self.step).sqrt() * sigma))?)?;
            let next = spectrum.image(&((state + (drift * self.step)?)? + noise)?)?;
            Ok(Transition { x0: denoised, next })
        };
        let langevin = Langevin { prior: problem.prior, sigmas: &sigmas, repeats: self.repeats };
        langevin.run(x, rng, observer, update, |x0| spectrum.finish(x0))
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

/// Noise levels and renoising unless told otherwise. The levels of the 64-pixel faces, 90 to 0.01 on [0, 1]: geometric.
const ANNEALING: Annealing =
    Annealing { steps: 500, sigma_start: 180.0, sigma_end: 0.02, schedule: Named::GEOMETRIC, ..Annealing::DEFAULT };

impl Default for Config {
    fn default() -> Self {
        Self { annealing: AnnealingSettings::default(), repeats: 5, step: 0.033 }
    }
}

pub(super) const ENTRY: Entry<BuildSampler> = Entry {
    name: "snips",
    about: "Langevin dynamics in the operator's singular vectors, with measured and added noise coupled",
    fields: &[
        ("annealing", "table of steps, sigma_start, sigma_end, rho and schedule; renoise is not used"),
        ("repeats", "Langevin steps at each level; default 5"),
        ("step", "length of a Langevin step in units of σ², no unit; default 0.033"),
    ],
    example: "annealing = { steps = 3 }\nrepeats = 2\nstep = 0.1",
    build: |table| {
        let Config { annealing, repeats, step } = settings("snips", table)?;
        within("repeats", repeats as f64, 1.0..=10_000.0)?;
        Ok(Box::new(Snips { annealing: annealing.over(ANNEALING)?, repeats, step: within("step", step, 0.0..=2.0)? }))
    },
};
