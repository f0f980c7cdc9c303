//! From noise to an image of the prior: the reverse-time processes of a score model.
//!
//! A [`Solver`] takes a state `x = x₀ + σ n` down to σ = 0; started from noise it draws from the prior, started from a noisy
//! photo from the posterior of denoising, and inside a posterior sampler it answers "which image may this state become?".
//!
//! All loops are one, [`descend`]: it numbers the steps, tells the observer, and stops where a number is none. [`anneal`] is
//! that loop with the update rule that most methods share.
//!
//! | solver | what it follows | evaluations of N levels |
//! | --- | --- | --- |
//! | [`Heun`] | the ODE, of second order; with churn an SDE | 2N − 1 |
//! | [`Dpmpp`] | the ODE or the SDE, of second order by memory | N |
//! | [`Ddim`] | the ODE, of first order; at η > 0 a Markov chain | N |
//! | [`Ddpm`] | the Markov chain that was trained | N |
//! | [`Rk45`] | the ODE, to a tolerance | as many as it takes |
//! | [`PredictorCorrector`] | the SDE, with Langevin steps between | N (1 + corrections) |
//! | [`AnnealedLangevin`] | Langevin dynamics at every level | T N + 1 |
//!
//! Each is a function of a list of noise levels ([`heun()`], [`multistep()`], [`ancestral()`], …) and a solver that makes the list
//! of its settings.

mod anneal;
mod ddim;
mod ddpm;
pub(crate) mod dormand_prince;
mod dpmpp;
mod heun;
mod langevin;
mod levels;
mod multistep;
mod predictor_corrector;
mod process;
mod rk45;

pub use anneal::{Estimate, Level, Renoise, Transition, anneal, descend};
pub(crate) use anneal::{check_finite, renoised};
pub use ddim::Ddim;
pub use ddpm::{Ddpm, ancestral};
pub use dpmpp::Dpmpp;
pub use heun::{Churn, Heun, heun};
pub use langevin::{AnnealedLangevin, Langevin, annealed_langevin, rules};
pub use multistep::{Correction, multistep};
pub use predictor_corrector::PredictorCorrector;
pub use process::{Corrector, Formulation, Move, Predictor, Process};
pub use rk45::Rk45;

use crate::priors::Denoiser;
use crate::{Error, Result};
use candle_core::Tensor;
use std::fmt::Debug;
use std::ops::RangeInclusive;
use tweedie_operators::{Entry, Rng};

/// Progress bars, snapshots, tests. Any `FnMut(&Step) -> Result<()>` is an observer.
pub trait Observer {
    /// Called after every step.
    ///
    /// # Errors
    /// An error stops the run and is returned by it.
    fn step(&mut self, step: &Step<'_>) -> Result<()>;
}

impl<F: FnMut(&Step<'_>) -> Result<()>> Observer for F {
    fn step(&mut self, step: &Step<'_>) -> Result<()> {
        self(step)
    }
}

/// What an observer sees.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// From 0.
    pub index: usize,
    /// Steps in all.
    pub total: usize,
    /// The noise level of `x`.
    pub sigma: f64,
    /// The state before the step.
    pub x: &'a Tensor,
    /// The estimate of the clean image.
    pub x0: &'a Tensor,
}

/// A method that takes a state of a prior's diffusion to σ = 0.
pub trait Solver: Debug + Send + Sync {
    /// The image that the state `x` at noise level `range.end()` becomes; row `i` depends on `x[i]` and on stream `i` of `rng`
    /// only.
    ///
    /// # Shapes
    /// `x`: `[B, C, H, W]`, as is the result; `range` lies within what the prior is good for, and the last level above zero
    /// is its start.
    /// # Errors
    /// `NonFinite` with step and σ; whatever `observer` returns.
    fn solve(
        &self,
        prior: &dyn Denoiser,
        x: Tensor,
        range: &RangeInclusive<f64>,
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor>;

    /// Its name in [`SOLVERS`].
    fn name(&self) -> &'static str;

    /// The noise levels that it visits, the last one 0.
    fn sigmas(&self, range: &RangeInclusive<f64>) -> Vec<f64>;

    /// Network evaluations of an image; by default one a level. `None` if the method decides while it runs.
    fn evaluations(&self, range: &RangeInclusive<f64>) -> Option<usize> {
        Some(self.sigmas(range).len() - 1)
    }
}

/// Builds a solver from its settings.
pub type BuildSolver = fn(toml::Table) -> Result<Box<dyn Solver>>;

/// All solvers, by name.
pub const SOLVERS: &[Entry<BuildSolver>] = &[
    heun::ENTRY,
    dpmpp::ODE,
    dpmpp::SDE,
    ddim::ENTRY,
    ddpm::ENTRY,
    rk45::ENTRY,
    predictor_corrector::ENTRY,
    langevin::ENTRY,
];

/// The solver of `list` called `name`, with these settings in the place of its defaults.
///
/// # Errors
/// `Unknown` with the names there are; `Config` naming a setting that is unknown or out of range.
pub fn find_solver(list: &[Entry<BuildSolver>], name: &str, settings: toml::Table) -> Result<Box<dyn Solver>> {
    let entry = list.iter().find(|entry| entry.name == name).ok_or_else(|| Error::Unknown {
        kind: "solver",
        name: name.into(),
        known: list.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", "),
    })?;
    (entry.build)(settings)
}

/// A table of settings as the typed configuration of the method `name`.
pub(crate) fn settings<C: serde::de::DeserializeOwned>(name: &str, table: toml::Table) -> Result<C> {
    let got = table.to_string().trim().replace('\n', ", ");
    table.try_into().map_err(|error: toml::de::Error| Error::Config {
        name: format!("configuration of the sampler {name}"),
        got,
        expected: error.message().to_owned(),
    })
}

/// `value` if it lies in `range`.
pub(crate) fn within(name: &str, value: f64, range: RangeInclusive<f64>) -> Result<f64> {
    if range.contains(&value) {
        return Ok(value);
    }
    let expected = format!("{} to {}", range.start(), range.end());
    Err(Error::Config { name: name.into(), got: value.to_string(), expected })
}
