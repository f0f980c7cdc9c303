//! Conditional annealed Langevin dynamics, Jalal et al. (2021), <https://arxiv.org/abs/2108.01368>.

use super::annealing::AnnealingSettings;
use super::langevin::{Langevin, langevin_step, row_norms};
use super::{Annealing, BuildSampler, Needs, Noise, Observer, Problem, Sampler, Structure, settings, within};
use crate::Result;
use crate::schedules::Named;
use crate::solvers::Transition;
use candle_core::Tensor;
use serde::Deserialize;
use std::ops::RangeInclusive;
use tweedie_operators::{Entry, Rng};

/// How much the measurement weighs.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Form {
    /// By its likelihood, with noise that is annealed.
    Paper,
    /// As a multiple of the prior's score.
    Code,
}

/// Langevin dynamics along the scores of prior and likelihood, some steps at each level.
///
/// `x ← x + a σ² (s + Jᵀ(y − A(x)) / (σ_y² + γ²)) + √(2a) σ n`, `J = ∂A/∂x`, `s` the score of the prior at σ, `γ = g σ`: the paper's form.
/// In the form of its code the likelihood's part is `−m ‖s‖ v/‖v‖`, `v = Jᵀ(A(x) − y)`, norms for each image, and needs nothing of the
/// noise. The paper's step `α = ε (σ/σ_L)²` is `a σ²`; its configuration has a = 1.15 in the code's form, which the paper's form does
/// not survive: there `a (1 + ‖A‖² σ²/(σ_y² + γ²))` must stay below 2. At the end the state is denoised once more.
///
/// Not exact: the likelihood belongs to the clean image, and its annealing is a guess of what σ does to it.
#[derive(Clone, Debug)]
pub struct Ald {
    annealing: Annealing,
    /// Langevin steps at each level.
    repeats: usize,
    /// a: length of a step in units of σ².
    step: f64,
    form: Form,
    /// g: annealed noise of the measurement in units of σ.
    gamma: f64,
    /// m: length of the likelihood's part in units of the prior's.
    weight: f64,
}

impl Sampler for Ald {
    fn sample(
        &self,
        problem: &Problem<'_>,
        shape: (usize, usize, usize),
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let measurement = problem.measurement;
        self.check(measurement)?;
        let sigma_y = measurement.noise.gaussian_sigma().unwrap_or(0.0);
        let sigmas = self.annealing.sigmas(&problem.prior.sigma_range());
        let x = problem.start(shape, sigmas[0], rng)?;
        let update = |x: &Tensor, sigma: f64, rng: &mut Rng| {
            let denoised = problem.prior.denoise(x, sigma)?;
            let misfit = measurement.operator.forward(x)?.broadcast_sub(&measurement.y)?;
            let gradient = measurement.operator.vjp(x, &misfit)?;
            // Scores in units of 1/σ².
            let score = (&denoised - x)?;
            let guide = match self.form {
                Form::Paper => {
                    let variance = sigma_y.powi(2) + (self.gamma * sigma).powi(2);
                    gradient.affine(sigma * sigma / variance, 0.0)?
                }
                Form::Code => {
                    let length = (row_norms(&score)?.affine(self.weight, 0.0)? / row_norms(&gradient)?)?;
                    gradient.broadcast_mul(&length)?
                }
            };
            let next = langevin_step(x, &(score - guide)?, self.step, sigma, rng)?;
            Ok(Transition { x0: denoised, next })
        };
        let langevin = Langevin { prior: problem.prior, sigmas: &sigmas, repeats: self.repeats };
        langevin.run(x, rng, observer, update, Ok)
    }

    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        let noise = match self.form {
            Form::Paper => Noise::Gaussian,
            Form::Code => Noise::Any,
        };
        Needs { structure: Structure::Derivative, noise, noiseless: false }
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
    /// Weight of the measurement.
    form: Form,
    /// g, in units of σ.
    gamma: f64,
    /// m, in units of the prior's score.
    weight: f64,
}

/// Noise levels unless told otherwise. The second half of 2311 levels, which is all that the authors' code visits; its 3 steps
/// become 4 near the end.
const ANNEALING: Annealing =
    Annealing { steps: 1155, sigma_start: 2.46, sigma_end: 0.0132, schedule: Named::GEOMETRIC, ..Annealing::DEFAULT };

impl Default for Config {
    fn default() -> Self {
        Self {
            annealing: AnnealingSettings::default(),
            repeats: 3,
            step: 0.2,
            form: Form::Paper,
            gamma: 1.0,
            weight: 5.0,
        }
    }
}

pub(super) const ENTRY: Entry<BuildSampler> = Entry {
    name: "ald",
    about: "Annealed Langevin dynamics along the scores of prior and likelihood, for any operator",
    fields: &[
        ("annealing", "table of steps, sigma_start, sigma_end, rho and schedule; renoise is not used"),
        ("repeats", "Langevin steps at each level; default 3"),
        ("step", "length of a Langevin step in units of σ², no unit; default 0.2"),
        ("form", "paper: the likelihood with annealed noise; code: a multiple of the prior's score; default paper"),
        ("gamma", "annealed noise of the measurement in units of σ, for the paper's form; default 1"),
        ("weight", "length of the likelihood's part in units of the prior's, for the code's form; default 5"),
    ],
    example: "annealing = { steps = 3 }\nrepeats = 2\nstep = 0.2",
    build: |table| {
        let Config { annealing, repeats, step, form, gamma, weight } = settings("ald", table)?;
        let annealing = annealing.over(ANNEALING)?;
        within("repeats", repeats as f64, 1.0..=10_000.0)?;
        within("step", step, 0.0..=2.0)?;
        // Without any noise the likelihood would be infinitely steep.
        let (gamma, weight) = (within("gamma", gamma, 1e-3..=1e3)?, within("weight", weight, 0.0..=1e3)?);
        Ok(Box::new(Ald { annealing, repeats, step, form, gamma, weight }))
    },
};
