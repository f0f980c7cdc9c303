//! Heun's method with churn, Karras et al. (2022), <https://arxiv.org/abs/2206.00364>.

use super::levels::{Levels, RHO, SCHEDULE};
use super::{BuildSolver, Level, Observer, Solver, Transition, descend, settings, within};
use crate::Result;
use crate::priors::Denoiser;
use crate::schedules::Named;
use candle_core::Tensor;
use serde::Deserialize;
use std::ops::RangeInclusive;
use tweedie_operators::{Entry, Rng};

/// Noise added before a step, so that errors of earlier ones are forgotten: the letters S of the paper.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Churn {
    /// `S_churn`: the noise of all steps together; 0 is the deterministic method.
    pub amount: f64,
    /// `S_min`: no noise below this level.
    pub least: f64,
    /// `S_max`: none above this one.
    pub most: f64,
    /// `S_noise`: standard deviation of the noise, near 1.
    pub noise: f64,
}

impl Churn {
    /// The deterministic method.
    pub const NONE: Self = Self { amount: 0.0, least: 0.0, most: f64::INFINITY, noise: 1.0 };

    /// γ of a step that leaves `sigma`, of `steps` steps.
    fn gamma(&self, sigma: f64, steps: usize) -> f64 {
        let inside = (self.least..=self.most).contains(&sigma);
        if inside { (self.amount / steps as f64).min(std::f64::consts::SQRT_2 - 1.0) } else { 0.0 }
    }
}

/// Takes `x`, a state at `sigmas[0]`, along the probability-flow ODE `dx/dσ = (x − D)/σ` with the trapezoidal rule.
///
/// `σ̂ = (1 + γ) σ`, `x̂ = x + √(σ̂² − σ²) S_noise n`, `d = (x̂ − D(x̂; σ̂))/σ̂`; then Euler's `x' = x̂ + (σ' − σ̂) d`, and where
/// σ' > 0 the correction `x' = x̂ + (σ' − σ̂)(d + d')/2` with `d' = (x' − D(x'; σ'))/σ'`. Of second order; 2N − 1 evaluations;
/// one draw for every step with γ > 0. Algorithm 2 of the paper.
///
/// # Errors
/// As [`descend`].
pub fn heun(
    prior: &dyn Denoiser,
    x: Tensor,
    sigmas: &[f64],
    churn: &Churn,
    rng: &mut Rng,
    observer: &mut dyn Observer,
) -> Result<Tensor> {
    let steps = sigmas.len().saturating_sub(1);
    descend(x, sigmas, rng, observer, |x, Level { from, to }, rng| {
        let gamma = churn.gamma(from, steps);
        let (from, x) = if gamma > 0.0 {
            let raised = from * (1.0 + gamma);
            let std = (raised * raised - from * from).sqrt() * churn.noise;
            (raised, (x + rng.normal_like(x)?.affine(std, 0.0)?)?)
        } else {
            (from, x.clone())
        };
        let x0 = prior.denoise(&x, from)?;
        if to == 0.0 {
            return Ok(Transition { next: x0.clone(), x0 });
        }
        let slope = (&x - &x0)?.affine(1.0 / from, 0.0)?;
        let euler = (&x + slope.affine(to - from, 0.0)?)?;
        let slope_there = (&euler - prior.denoise(&euler, to)?)?.affine(1.0 / to, 0.0)?;
        let next = (x + (slope + slope_there)?.affine(0.5 * (to - from), 0.0)?)?;
        Ok(Transition { x0, next })
    })
}

/// [`heun()`] along a schedule.
#[derive(Clone, Copy, Debug)]
pub struct Heun {
    levels: Levels,
    churn: Churn,
}

impl Solver for Heun {
    fn solve(
        &self,
        prior: &dyn Denoiser,
        x: Tensor,
        range: &RangeInclusive<f64>,
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        heun(prior, x, &self.sigmas(range), &self.churn, rng, observer)
    }

    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn sigmas(&self, range: &RangeInclusive<f64>) -> Vec<f64> {
        self.levels.sigmas(range)
    }

    fn evaluations(&self, range: &RangeInclusive<f64>) -> Option<usize> {
        Some(2 * (self.sigmas(range).len() - 1) - 1)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Noise levels above zero.
    steps: usize,
    /// How they are spaced.
    schedule: Named,
    /// ρ of Karras' schedule.
    rho: f64,
    /// `S_churn`.
    churn: f64,
    /// `S_min`.
    churn_min: f64,
    /// `S_max`.
    churn_max: f64,
    /// `S_noise`.
    churn_noise: f64,
}

impl Default for Config {
    fn default() -> Self {
        let Churn { amount, least, most, noise } = Churn::NONE;
        Self {
            steps: 18,
            schedule: Named::KARRAS,
            rho: 7.0,
            churn: amount,
            churn_min: least,
            churn_max: most,
            churn_noise: noise,
        }
    }
}

pub(super) const ENTRY: Entry<BuildSolver> = Entry {
    name: "heun",
    about: "EDM: Heun's method for the ODE, of second order, with churn if wanted",
    fields: &[
        ("steps", "noise levels above zero, N; 2N - 1 evaluations; default 18"),
        SCHEDULE,
        RHO,
        ("churn", "S_churn, noise added in all steps together, 0 to 1000; default 0, deterministic"),
        ("churn_min", "S_min, no churn below this noise level; default 0"),
        ("churn_max", "S_max, no churn above this noise level; default inf"),
        ("churn_noise", "S_noise, standard deviation of the churn, 0.5 to 2; default 1"),
    ],
    example: "steps = 4\nchurn = 2.0",
    build: |table| {
        let Config { steps, schedule, rho, churn, churn_min, churn_max, churn_noise } = settings("heun", table)?;
        let churn = Churn {
            amount: within("churn", churn, 0.0..=1000.0)?,
            least: within("churn_min", churn_min, 0.0..=f64::INFINITY)?,
            most: within("churn_max", churn_max, 0.0..=f64::INFINITY)?,
            noise: within("churn_noise", churn_noise, 0.5..=2.0)?,
        };
        Ok(Box::new(Heun { levels: Levels::new(steps, schedule, rho)?, churn }))
    },
};
