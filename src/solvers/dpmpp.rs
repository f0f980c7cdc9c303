//! DPM-Solver++ of second order along a schedule, for the ODE and for the SDE.

use super::levels::{Levels, RHO, SCHEDULE};
use super::{BuildSolver, Correction, Observer, Solver, multistep, settings, within};
use crate::Result;
use crate::priors::Denoiser;
use crate::schedules::Named;
use candle_core::Tensor;
use serde::Deserialize;
use std::ops::RangeInclusive;
use tweedie_operators::{Entry, Rng};

/// [`multistep()`] along a schedule.
#[derive(Clone, Copy, Debug)]
pub struct Dpmpp {
    name: &'static str,
    levels: Levels,
    correction: Correction,
    eta: f64,
}

impl Solver for Dpmpp {
    fn solve(
        &self,
        prior: &dyn Denoiser,
        x: Tensor,
        range: &RangeInclusive<f64>,
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        multistep(prior, x, &self.sigmas(range), self.correction, self.eta, rng, observer)
    }

    fn name(&self) -> &'static str {
        self.name
    }

    fn sigmas(&self, range: &RangeInclusive<f64>) -> Vec<f64> {
        self.levels.sigmas(range)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Ode {
    /// Noise levels above zero.
    steps: usize,
    /// How they are spaced.
    schedule: Named,
    /// ρ of Karras' schedule.
    rho: f64,
    /// How two estimates are combined.
    correction: Correction,
}

impl Default for Ode {
    fn default() -> Self {
        Self { steps: 20, schedule: Named::KARRAS, rho: 7.0, correction: Correction::Midpoint }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Sde {
    /// Noise levels above zero.
    steps: usize,
    /// How they are spaced.
    schedule: Named,
    /// ρ of Karras' schedule.
    rho: f64,
    /// How two estimates are combined.
    correction: Correction,
    /// η.
    eta: f64,
}

impl Default for Sde {
    fn default() -> Self {
        Self { steps: 30, schedule: Named::KARRAS, rho: 7.0, correction: Correction::Midpoint, eta: 1.0 }
    }
}

const CORRECTION: (&str, &str) = ("correction", "midpoint or heun, how two estimates are combined; default midpoint");

pub(super) const ODE: Entry<BuildSolver> = Entry {
    name: "dpmpp_2m",
    about: "DPM-Solver++ for the ODE, of second order at one evaluation a step",
    fields: &[("steps", "noise levels above zero; default 20"), SCHEDULE, RHO, CORRECTION],
    example: "steps = 4\ncorrection = \"heun\"",
    build: |table| {
        let Ode { steps, schedule, rho, correction } = settings(ODE.name, table)?;
        Ok(Box::new(Dpmpp { name: ODE.name, levels: Levels::new(steps, schedule, rho)?, correction, eta: 0.0 }))
    },
};

pub(super) const SDE: Entry<BuildSolver> = Entry {
    name: "dpmpp_2m_sde",
    about: "DPM-Solver++ for the reverse-time SDE, of second order but for the noise",
    fields: &[
        ("steps", "noise levels above zero; default 30"),
        SCHEDULE,
        RHO,
        CORRECTION,
        ("eta", "η, how much noise is exchanged, 0 to 10; default 1"),
    ],
    example: "steps = 4\neta = 0.5",
    build: |table| {
        let Sde { steps, schedule, rho, correction, eta } = settings(SDE.name, table)?;
        let eta = within("eta", eta, 0.0..=10.0)?;
        Ok(Box::new(Dpmpp { name: SDE.name, levels: Levels::new(steps, schedule, rho)?, correction, eta }))
    },
};
