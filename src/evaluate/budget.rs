//! How much a method may cost.

use crate::Result;
use crate::samplers::{BuildSampler, Choice, Sampler, find_sampler};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use tweedie_operators::Entry;

/// What decides the number of a method's noise levels, unless its own settings do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// Network calls a sample: every method takes the most noise levels that stay within.
    Calls(usize),
    /// Noise levels, whatever they cost.
    Steps(usize),
}

/// A method and the settings that the budget gave it.
pub(super) type Fitted = (Box<dyn Sampler>, toml::Table);

/// The sampler with `settings`, at most as expensive as the budget allows; `None` if even one noise level is too much.
///
/// `range` holds the noise levels that the prior is good for. A method that says what it costs without looking at its steps,
/// and settings that name their steps, are taken as they are.
pub(super) fn fitted(
    list: &[Entry<BuildSampler>],
    name: &str,
    settings: &toml::Table,
    budget: Budget,
    range: &RangeInclusive<f64>,
) -> Result<Option<Fitted>> {
    // Whatever is wrong with the settings is said about them, not about those of the budget.
    let given = find_sampler(list, name, settings.clone())?;
    let anneals =
        list.iter().any(|entry| entry.name == name && entry.fields.iter().any(|(field, _)| *field == "annealing"));
    let has_steps = settings.get("annealing").and_then(|annealing| annealing.get("steps")).is_some();
    if has_steps {
        return Ok(Some((given, settings.clone())));
    }
    if !anneals {
        let too_much = matches!(budget, Budget::Calls(calls) if given.evaluations(range) > calls);
        return Ok((!too_much).then(|| (given, settings.clone())));
    }
    let with = |steps: usize| -> Result<Fitted> {
        let choice = Choice::of(name, settings.clone()).with_steps(steps);
        Ok((choice.build(list)?, choice.settings))
    };
    let calls = match budget {
        Budget::Steps(steps) => return with(steps).map(Some),
        Budget::Calls(calls) => calls,
    };
    let fits = |steps: usize| -> Result<Option<Fitted>> {
        let fitted = with(steps)?;
        Ok((fitted.0.evaluations(range) <= calls).then_some(fitted))
    };
    // A step costs at least a call, and more steps cost more.
    let Some(mut best) = fits(1)? else { return Ok(None) };
    let (mut low, mut high) = (1, calls + 1);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        match fits(middle)? {
            Some(fitted) => (low, best) = (middle, fitted),
            None => high = middle,
        }
    }
    Ok(Some(best))
}
