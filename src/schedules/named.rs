//! A schedule by its name.

use super::{Geometric, Karras, Quad, Schedule, VpContinuous, VpCosine, VpLinear};
use serde::{Deserialize, Deserializer};
use std::fmt::{self, Debug, Formatter};
use std::ops::RangeInclusive;
use tweedie_operators::Entry;

/// Makes a schedule of a number of levels above zero and ρ, which only Karras' has.
pub type BuildSchedule = fn(steps: usize, rho: f64) -> Box<dyn Schedule>;

/// All schedules, by name.
pub const SCHEDULES: &[Entry<BuildSchedule>] = &[
    entry("karras", "evenly spaced in the ρ-th root of σ", |steps, rho| Box::new(Karras { steps, rho })),
    entry("geometric", "evenly spaced in the logarithm of σ", |steps, _| Box::new(Geometric { steps })),
    entry("vp_linear", "evenly spaced in the index of DDPM's linear β", |steps, _| Box::new(VpLinear { steps })),
    entry("vp_cosine", "evenly spaced in the index of the cosine's ᾱ", |steps, _| Box::new(VpCosine { steps })),
    entry("vp_continuous", "evenly spaced in the time of the continuous VP process", |steps, _| {
        Box::new(VpContinuous { steps })
    }),
    entry("quad", "DDPM's levels with dense steps at small noise, as DiffPIR takes them", |steps, _| {
        Box::new(Quad { steps })
    }),
];

const fn entry(name: &'static str, about: &'static str, build: BuildSchedule) -> Entry<BuildSchedule> {
    Entry { name, about, fields: &[], example: "", build }
}

/// One of [`SCHEDULES`], as settings name it.
#[derive(Clone, Copy)]
pub struct Named(&'static Entry<BuildSchedule>);

impl Named {
    /// Karras' schedule.
    pub const KARRAS: Self = Self(&SCHEDULES[0]);
    /// Evenly spaced in the logarithm of σ.
    pub const GEOMETRIC: Self = Self(&SCHEDULES[1]);
    /// DDPM's levels.
    pub const VP_LINEAR: Self = Self(&SCHEDULES[2]);
    /// DiffPIR's levels.
    pub const QUAD: Self = Self(&SCHEDULES[5]);

    /// The schedule of this name; `None` if there is none.
    pub fn new(name: &str) -> Option<Self> {
        SCHEDULES.iter().find(|entry| entry.name == name).map(Self)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Strictly decreasing from the end of `range` to its start, then exactly `0.0`; one level above zero where the range is
    /// a single one.
    pub fn sigmas(self, steps: usize, rho: f64, range: &RangeInclusive<f64>) -> Vec<f64> {
        if range.start() >= range.end() {
            return vec![*range.end(), 0.0];
        }
        (self.0.build)(steps, rho).sigmas(range)
    }
}

impl Debug for Named {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Default for Named {
    fn default() -> Self {
        Self::KARRAS
    }
}

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::new(&name).ok_or_else(|| {
            let known: Vec<_> = SCHEDULES.iter().map(|entry| entry.name).collect();
            serde::de::Error::custom(format!("unknown schedule `{name}`; known: {}", known.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Named;

    #[test]
    fn the_constants_are_what_they_are_called() {
        let names = [Named::KARRAS, Named::GEOMETRIC, Named::VP_LINEAR, Named::QUAD].map(Named::name);
        assert_eq!(names, ["karras", "geometric", "vp_linear", "quad"]);
    }
}
