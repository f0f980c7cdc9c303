//! Which noise levels a sampler visits.
//!
//! | schedule | evenly spaced in |
//! | --- | --- |
//! | [`Karras`] | `σ^{1/ρ}` |
//! | [`Geometric`] | `ln σ` |
//! | [`VpLinear`], [`VpCosine`] | the index of a discrete variance-preserving process, [`Discrete`] |
//! | [`Quad`] | the square of that index, from above |
//! | [`VpContinuous`] | the time of the continuous variance-preserving process |
//!
//! Settings choose one by its name in [`SCHEDULES`].

mod discrete;
mod geometric;
mod karras;
mod named;
mod vp;

pub use discrete::{Discrete, respaced, strided};
pub use geometric::Geometric;
pub use karras::Karras;
pub use named::{BuildSchedule, Named, SCHEDULES};
pub use vp::{Quad, VpContinuous, VpCosine, VpLinear};

use std::fmt::Debug;
use std::ops::RangeInclusive;

/// A list of noise levels.
pub trait Schedule: Debug + Send + Sync {
    /// Strictly decreasing from the end of `range` to its start, then exactly `0.0`.
    fn sigmas(&self, range: &RangeInclusive<f64>) -> Vec<f64>;
}

/// `level(0) … level(1)` at `steps` evenly spaced places, then zero.
fn levels(steps: usize, level: impl Fn(f64) -> f64) -> Vec<f64> {
    let at = |i: usize| if steps > 1 { i as f64 / (steps - 1) as f64 } else { 0.0 };
    (0..steps).map(|i| level(at(i))).chain([0.0]).collect()
}

/// The same with the ends of `range` exactly where `level` would have them but for rounding.
fn between(steps: usize, range: &RangeInclusive<f64>, level: impl Fn(f64) -> f64) -> Vec<f64> {
    let mut sigmas = levels(steps, level);
    if steps > 1 {
        sigmas[steps - 1] = *range.start();
    }
    sigmas[0] = *range.end();
    sigmas
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schedule_falls_from_the_largest_level_to_exactly_zero() {
        for entry in SCHEDULES {
            for range in [0.002..=80.0, 0.05..=0.5, 0.01..=700.0] {
                for steps in [1, 2, 3, 20, 1500] {
                    let schedule = (entry.build)(steps, 7.0);
                    let sigmas = schedule.sigmas(&range);
                    assert_eq!(sigmas.len(), steps + 1);
                    assert!((sigmas[0] - range.end()).abs() < 1e-9, "{schedule:?} starts at {}", sigmas[0]);
                    assert!(sigmas.windows(2).all(|pair| pair[0] > pair[1]), "{schedule:?}: {sigmas:?}");
                    assert_eq!(sigmas[steps], 0.0);
                    assert!(steps == 1 || (sigmas[steps - 1] - range.start()).abs() < 1e-9);
                }
            }
        }
    }

    #[test]
    fn every_schedule_has_a_name_of_its_own() {
        for (index, entry) in SCHEDULES.iter().enumerate() {
            assert!(entry.name.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
            assert!(SCHEDULES[..index].iter().all(|other| other.name != entry.name), "{} twice", entry.name);
            assert!(!entry.about.is_empty() && !entry.about.ends_with('.'));
            assert_eq!(Named::new(entry.name).map(Named::name), Some(entry.name));
        }
        assert_eq!(Named::default().name(), "karras");
        assert_eq!(Named::KARRAS.sigmas(5, 7.0, &(0.3..=0.3)), [0.3, 0.0]);
    }

    #[test]
    fn karras_agrees_with_the_formula_of_the_paper() {
        // Eq. 5 with ρ = 7, 0.002…80, N = 18 at i = 9, by mpmath with 30 digits.
        let sigmas = Karras { steps: 18, rho: 7.0 }.sigmas(&(0.002..=80.0));
        assert!((sigmas[9] / 1.923_339_837_040_049_9 - 1.0).abs() < 1e-12, "{}", sigmas[9]);
    }

    #[test]
    fn a_place_between_two_training_levels_is_found_again() {
        let process = Discrete::cosine(1000);
        for k in [-0.5, 0.0, 0.25, 17.0, 500.5, 999.0, 1003.5] {
            assert!((process.place(process.sigma(k)) - k).abs() < 1e-9, "{k}");
        }
        assert_eq!(process.sigma(-1.0), 0.0);
    }

    #[test]
    fn quad_is_the_schedule_of_diffpir_before_its_rounding_to_whole_indices() {
        let process = Discrete::linear(1000);
        let sigmas = Quad { steps: 100 }.sigmas(&(process.sigma(0.0)..=process.sigma(999.0)));
        for (i, sigma) in sigmas[..100].iter().enumerate() {
            // k_i = max(0, T − 1 − ⌊T √(i/(N−1))⌋)
            let paper = (999.0 - (1000.0 * (i as f64 / 99.0).sqrt()).floor()).max(0.0);
            assert!((process.place(*sigma) - paper).abs() <= 1.0, "{i}: {} and {paper}", process.place(*sigma));
        }
    }
}
