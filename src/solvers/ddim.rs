//! Denoising diffusion implicit models, Song et al. (2021), <https://arxiv.org/abs/2010.02502>.

use super::levels::{Levels, RHO, SCHEDULE};
use super::{BuildSolver, Observer, Renoise, Solver, anneal, settings, within};
use crate::Result;
use crate::priors::Denoiser;
use crate::schedules::Named;
use candle_core::Tensor;
use serde::Deserialize;
use std::ops::RangeInclusive;
use tweedie_operators::{Entry, Rng};

/// `x' = D + σ' (√(1−ζ) ε̂ + √ζ n)`, `ε̂ = (x − D)/σ`, `ζ = η² (1 − (σ'/σ)²)`.
///
/// η = 0 is Euler's method for the probability-flow ODE, η = 1 ancestral sampling, DDPM.
#[derive(Clone, Copy, Debug)]
pub struct Ddim {
    levels: Levels,
    eta: f64,
}

impl Solver for Ddim {
    fn solve(
        &self,
        prior: &dyn Denoiser,
        x: Tensor,
        range: &RangeInclusive<f64>,
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        anneal(x, &self.sigmas(range), Renoise::Ddim(self.eta), rng, observer, |x, level, _| {
            prior.denoise(x, level.from)
        })
    }

    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn sigmas(&self, range: &RangeInclusive<f64>) -> Vec<f64> {
        self.levels.sigmas(range)
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
    /// η.
    eta: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { steps: 100, schedule: Named::KARRAS, rho: 7.0, eta: 0.0 }
    }
}

pub(super) const ENTRY: Entry<BuildSolver> = Entry {
    name: "ddim",
    about: "DDIM(η): Euler's method for the ODE at η = 0, ancestral sampling at η = 1",
    fields: &[
        ("steps", "noise levels above zero; default 100"),
        SCHEDULE,
        RHO,
        ("eta", "η, the part of the ancestral noise, 0 to 1; default 0"),
    ],
    example: "steps = 4\neta = 1.0",
    build: |table| {
        let Config { steps, schedule, rho, eta } = settings("ddim", table)?;
        Ok(Box::new(Ddim { levels: Levels::new(steps, schedule, rho)?, eta: within("eta", eta, 0.0..=1.0)? }))
    },
};
