//! Which noise levels a method visits, as its settings say it.

use super::within;
use crate::Result;
use crate::schedules::Named;
use crate::solvers::Renoise;
use serde::Deserialize;
use std::ops::RangeInclusive;

/// Noise levels of a run: a schedule from `sigma_start` to `sigma_end`, and how fresh noise enters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Annealing {
    /// Number of noise levels above zero.
    pub steps: usize,
    /// First noise level, pixels in [-1, 1]; limited to what the prior is good for.
    pub sigma_start: f64,
    /// Last noise level above zero.
    pub sigma_end: f64,
    /// ρ of Karras' schedule: larger values spend more levels on small noise.
    pub rho: f64,
    /// Fresh noise.
    pub renoise: Renoise,
    /// How the levels are spaced, a name of [`SCHEDULES`](crate::schedules::SCHEDULES).
    pub schedule: Named,
}

impl Default for Annealing {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Annealing {
    /// Twenty levels of Karras' schedule from σ = 1, which is where a smooth first guess is forgotten, all noise fresh.
    pub const DEFAULT: Self =
        Self { steps: 20, sigma_start: 1.0, sigma_end: 0.02, rho: 3.0, renoise: Renoise::All, schedule: Named::KARRAS };

    /// The settings, if each is in its range.
    fn checked(self) -> Result<Self> {
        within("steps", self.steps as f64, 1.0..=100_000.0)?;
        within("sigma_start", self.sigma_start, 1e-3..=1e4)?;
        within("sigma_end", self.sigma_end, 1e-4..=self.sigma_start)?;
        within("rho", self.rho, 0.1..=100.0)?;
        if let Renoise::Fraction(fraction) | Renoise::Ddim(fraction) = self.renoise {
            within("renoise", fraction, 0.0..=1.0)?;
        }
        Ok(self)
    }

    /// The noise levels within what a prior is good for, the last one 0.
    pub fn sigmas(&self, range: &RangeInclusive<f64>) -> Vec<f64> {
        let start = self.sigma_start.min(*range.end());
        let end = self.sigma_end.max(*range.start()).min(start);
        self.schedule.sigmas(self.steps, self.rho, &(end..=start))
    }
}

/// What a table of settings says of an [`Annealing`]; the rest is as the method's own default has it, so that asking for other
/// steps alone changes nothing else.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AnnealingSettings {
    steps: Option<usize>,
    sigma_start: Option<f64>,
    sigma_end: Option<f64>,
    rho: Option<f64>,
    renoise: Option<Renoise>,
    schedule: Option<Named>,
}

impl AnnealingSettings {
    /// `default` with these changes, if each is in its range.
    pub(super) fn over(self, default: Annealing) -> Result<Annealing> {
        let changed = Annealing {
            steps: self.steps.unwrap_or(default.steps),
            sigma_start: self.sigma_start.unwrap_or(default.sigma_start),
            sigma_end: self.sigma_end.unwrap_or(default.sigma_end),
            rho: self.rho.unwrap_or(default.rho),
            renoise: self.renoise.unwrap_or(default.renoise),
            schedule: self.schedule.unwrap_or(default.schedule),
        };
        changed.checked()
    }
}
