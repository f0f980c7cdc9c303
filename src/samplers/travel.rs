//! Going back to larger noise, so that what was restored can agree with what was measured.

use super::within;
use crate::Result;
use serde::Deserialize;

/// Every `length` levels the run goes back up by as many, until that level has been reached `visits` times.
///
/// Counted from the smallest level above zero, the turning points are `0, length, 2·length, …` below `steps − length`.
/// A single visit is no travel.
///
/// Lugmayr et al. (2022), <https://arxiv.org/abs/2201.09865>, appendix B.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Travel {
    /// Levels of one jump.
    pub(super) length: usize,
    /// Visits of each turning point.
    pub(super) visits: usize,
}

impl Default for Travel {
    fn default() -> Self {
        Self { length: 1, visits: 1 }
    }
}

impl Travel {
    /// The settings, if each is in its range.
    pub(super) fn checked(self) -> Result<Self> {
        within("length", self.length as f64, 1.0..=10_000.0)?;
        within("visits", self.visits as f64, 1.0..=1000.0)?;
        Ok(self)
    }

    /// The noise levels at which the network is called, in their order, then 0; `sigmas` falls to 0.
    ///
    /// From each the run goes down by one level ([`below`]), and from there up to the next of the path.
    pub(super) fn path(self, sigmas: &[f64]) -> Vec<f64> {
        let levels = sigmas.len() - 1;
        let mut jumps_left = vec![self.visits - 1; levels];
        let mut path = Vec::new();
        let mut at = levels;
        while at > 0 {
            at -= 1;
            path.push(sigmas[levels - 1 - at]);
            // The state is now one level lower.
            let Some(lower) = at.checked_sub(1) else { break };
            let turns = lower.is_multiple_of(self.length) && lower + self.length < levels;
            if turns && jumps_left[lower] > 0 {
                jumps_left[lower] -= 1;
                at = lower + self.length + 1;
            }
        }
        path.push(0.0);
        path
    }
}

/// The level under `sigma`.
pub(super) fn below(sigmas: &[f64], sigma: f64) -> f64 {
    sigmas.iter().copied().find(|&level| level < sigma).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_turns_where_the_authors_schedule_does() {
        let sigmas = [5.0, 4.0, 3.0, 2.0, 1.0, 0.0];
        assert_eq!(Travel::default().path(&sigmas), sigmas);
        // By hand, of the authors' indices 4 3 2 [3 4] 3 2 1 0 [1 2] 1 0: their call happens at the level that is left.
        let travel = Travel { length: 2, visits: 2 };
        assert_eq!(travel.path(&sigmas), [5.0, 4.0, 5.0, 4.0, 3.0, 2.0, 3.0, 2.0, 1.0, 0.0]);
        assert_eq!(Travel { length: 9, visits: 5 }.path(&sigmas), sigmas);
    }

    #[test]
    fn published_settings_cost_what_their_papers_say() {
        let calls = |steps: usize, travel: Travel| {
            let sigmas: Vec<f64> = (0..=steps).rev().map(|level| level as f64).collect();
            travel.path(&sigmas).len() - 1
        };
        assert_eq!(calls(250, Travel { length: 10, visits: 10 }), 2410);
        assert_eq!(calls(100, Travel { length: 10, visits: 3 }), 280);
    }
}
