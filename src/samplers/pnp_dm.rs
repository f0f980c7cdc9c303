//! Plug-and-play diffusion models, Wu et al. (2024), <https://arxiv.org/abs/2405.18782>.

use super::annealing::AnnealingSettings;
use super::inner::{diffuse, flow};
use super::nearest::nearest;
use super::{Annealing, BuildSampler, Needs, Noise, Observer, Problem, Renoise, Sampler, Structure, settings, within};
use crate::Result;
use crate::schedules::{Karras, Schedule};
use crate::solvers::{Transition, descend};
use candle_core::Tensor;
use serde::Deserialize;
use std::ops::RangeInclusive;
use tweedie_operators::{Entry, Error, Measurement, Rng};

/// How an image is drawn from the prior, given that image plus noise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reverse {
    /// The reverse-time SDE, a draw from `p(x | u)`.
    #[default]
    Sde,
    /// The probability-flow ODE: an image of the prior, but not a draw given `u`.
    Ode,
}

/// A Gibbs sampler that alternates between the measurement and the prior, coupled at a noise level ρ that falls.
///
/// Rounds, at `ρ_i = max(ρ₀ δⁱ, ρ_end)` with ρ₀ and ρ_end the levels of [`annealing`](Sampler::annealing), whose `steps` are
/// the rounds and whose other settings have no meaning:
///
/// 1. `u ~ p(u | x, y) ∝ p(y | u) N(u; x, ρ²)`. For linear operators and Gaussian noise exactly: perturb, then solve,
///    `Q u = Aᵀ(y + σ_y n₁)/σ_y² + (x + ρ n₂)/ρ²`, `Q = AᵀA/σ_y² + 1/ρ²`, by singular values, the Gram matrix or conjugate
///    gradients; without noise that is a projection. Else Langevin steps from `x`, `u ← u + l [∇ log p(y|u) + (x − u)/ρ²] + √(2l) n`.
/// 2. `x ~ p(x | u) ∝ p(x) N(u; x, ρ²)`: the reverse process from `u` at level ρ, along the points of Karras' grid
///    (ρ = 7, over all that the prior is good for) below it.
///
/// The last round's `x` is the sample. Its law, once the rounds at one ρ have forgotten the start and the steps are many, is
/// the posterior of a measurement whose covariance is `σ_y² + ρ² AAᵀ`, so the posterior itself as ρ → 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PnpDm {
    annealing: Annealing,
    /// δ.
    decay: f64,
    /// Points of the grid.
    grid: usize,
    /// How images are drawn.
    reverse: Reverse,
    /// Langevin steps a round.
    langevin_steps: usize,
    /// l, the square of the unit of pixels.
    lr: f64,
}

/// ρ of Karras' grid.
const RHO: f64 = 7.0;

impl PnpDm {
    /// ρ of every round, then 0.
    fn rounds(&self, range: &RangeInclusive<f64>) -> Vec<f64> {
        let start = self.annealing.sigmas(range)[0];
        let end = self.annealing.sigma_end.max(*range.start()).min(start);
        let level = |round: usize| (start * self.decay.powi(round as i32)).max(end);
        (0..self.annealing.steps).map(level).chain([0.0]).collect()
    }

    /// Levels of the reverse process from ρ, the last one 0.
    fn levels(&self, rho: f64, range: &RangeInclusive<f64>) -> Vec<f64> {
        let grid = Karras { steps: self.grid, rho: RHO }.sigmas(range);
        [rho].into_iter().chain(grid.into_iter().filter(|&sigma| sigma < rho)).collect()
    }

    fn likelihood(&self, measurement: &Measurement<'_>, x: &Tensor, rho: f64, rng: &mut Rng) -> Result<Tensor> {
        if let (Some(_), Some(sigma)) = (measurement.operator.as_linear(), measurement.noise.gaussian_sigma()) {
            let x = (x + rng.normal_like(x)?.affine(rho, 0.0)?)?;
            if sigma == 0.0 {
                return nearest(measurement, &x, rho);
            }
            let y = (&measurement.y + rng.normal_like(&measurement.y)?.affine(sigma, 0.0)?)?;
            return nearest(&Measurement { y, ..measurement.clone() }, &x, rho);
        }
        let mut u = x.clone();
        for _ in 0..self.langevin_steps {
            let gradient = (measurement.score(&u)? + (x - &u)?.affine(rho.powi(-2), 0.0)?)?;
            let noise = rng.normal_like(x)?.affine((2.0 * self.lr).sqrt(), 0.0)?;
            u = ((u + gradient.affine(self.lr, 0.0)?)? + noise)?;
        }
        Ok(u)
    }
}

impl Sampler for PnpDm {
    fn sample(
        &self,
        problem: &Problem<'_>,
        shape: (usize, usize, usize),
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        self.check(problem.measurement)?;
        let range = problem.prior.sigma_range();
        let rounds = self.rounds(&range);
        let mut round = 0;
        descend(problem.start(shape, rounds[0], rng)?, &rounds, rng, observer, |x, level, rng| {
            let u = self.likelihood(problem.measurement, x, level.from, rng)?;
            let levels = self.levels(level.from, &range);
            let x = match self.reverse {
                Reverse::Sde => diffuse(problem.prior, u, &levels, rng, round)?,
                Reverse::Ode => flow(problem.prior, u, &levels, rng, round)?,
            };
            round += 1;
            Ok(Transition { x0: x.clone(), next: x })
        })
    }

    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        Needs { structure: Structure::Derivative, noise: Noise::Any, noiseless: false }
    }

    /// A linear operator with Gaussian noise, σ_y = 0 included, or any with noise that has a density.
    fn check(&self, measurement: &Measurement<'_>) -> Result<()> {
        if measurement.operator.as_linear().is_none() && measurement.noise.gaussian_sigma() == Some(0.0) {
            let needs = "a linear operator, or noise with a density";
            return Err(Error::Unsupported { method: "pnp_dm", needs }.into());
        }
        Ok(())
    }

    fn annealing(&self) -> &Annealing {
        &self.annealing
    }

    fn evaluations(&self, range: &RangeInclusive<f64>) -> usize {
        let rounds = self.rounds(range);
        rounds[..rounds.len() - 1].iter().map(|&rho| self.levels(rho, range).len() - 1).sum()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Rounds, first and last ρ.
    annealing: AnnealingSettings,
    /// δ.
    decay: f64,
    /// Points of the grid.
    grid: usize,
    /// How images are drawn.
    reverse: Reverse,
    /// Langevin steps a round.
    langevin_steps: usize,
    /// l.
    lr: f64,
}

/// Noise levels and renoising unless told otherwise.
const ANNEALING: Annealing =
    Annealing { steps: 100, sigma_start: 10.0, sigma_end: 0.3, rho: 3.0, renoise: Renoise::All, ..Annealing::DEFAULT };

impl Default for Config {
    fn default() -> Self {
        Self {
            annealing: AnnealingSettings::default(),
            decay: 0.9,
            grid: 100,
            reverse: Reverse::Sde,
            langevin_steps: 100,
            lr: 1e-4,
        }
    }
}

pub(super) const ENTRY: Entry<BuildSampler> = Entry {
    name: "pnp_dm",
    about: "Plug-and-play diffusion: draws from likelihood and prior in turn, exact as their coupling shrinks",
    fields: &[
        ("annealing", "table of steps, the rounds, sigma_start and sigma_end, ρ of the first and of the last"),
        ("decay", "δ, what ρ is multiplied by after each round, 0.01 to 1; default 0.9"),
        ("grid", "points of the reverse process over the prior's whole range, those below ρ are used; default 100"),
        ("reverse", "sde, a draw given the noisy image, or ode; default sde"),
        ("langevin_steps", "for operators that are not linear or noise that is not Gaussian; default 100"),
        ("lr", "length of these steps; default 1e-4"),
    ],
    example: "annealing = { steps = 3 }\ngrid = 10",
    build: |table| {
        let Config { annealing, decay, grid, reverse, langevin_steps, lr } = settings("pnp_dm", table)?;
        within("grid", grid as f64, 1.0..=100_000.0)?;
        within("langevin_steps", langevin_steps as f64, 1.0..=100_000.0)?;
        Ok(Box::new(PnpDm {
            annealing: annealing.over(ANNEALING)?,
            decay: within("decay", decay, 0.01..=1.0)?,
            grid,
            reverse,
            langevin_steps,
            lr: within("lr", lr, 1e-12..=1e3)?,
        }))
    },
};
