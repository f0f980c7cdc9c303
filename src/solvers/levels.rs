//! The noise levels of a solver, as its settings say them.

use super::within;
use crate::Result;
use crate::schedules::Named;
use std::ops::RangeInclusive;

/// A number of levels and their spacing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Levels {
    /// Noise levels above zero.
    steps: usize,
    /// How they are spaced.
    schedule: Named,
    /// ρ of Karras' schedule.
    rho: f64,
}

impl Levels {
    pub(super) fn new(steps: usize, schedule: Named, rho: f64) -> Result<Self> {
        within("steps", steps as f64, 1.0..=100_000.0)?;
        within("rho", rho, 0.1..=100.0)?;
        Ok(Self { steps, schedule, rho })
    }

    pub(super) fn sigmas(&self, range: &RangeInclusive<f64>) -> Vec<f64> {
        self.schedule.sigmas(self.steps, self.rho, range)
    }
}

/// What the settings of these names mean.
pub(super) const SCHEDULE: (&str, &str) =
    ("schedule", "karras, geometric, vp_linear, vp_cosine, vp_continuous or quad; default karras");
pub(super) const RHO: (&str, &str) = ("rho", "ρ of karras, 0.1 to 100; default 7");
