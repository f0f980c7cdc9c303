//! Which noise levels a sampler visits.

mod geometric;
mod karras;

pub use geometric::Geometric;
pub use karras::Karras;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schedule_falls_from_the_largest_level_to_exactly_zero() {
        for steps in [1, 2, 3, 20] {
            let schedules: [Box<dyn Schedule>; 2] =
                [Box::new(Karras { steps, rho: 7.0 }), Box::new(Geometric { steps })];
            for schedule in schedules {
                let sigmas = schedule.sigmas(&(0.002..=80.0));
                assert_eq!(sigmas.len(), steps + 1);
                assert!((sigmas[0] - 80.0).abs() < 1e-9, "{schedule:?} starts at {}", sigmas[0]);
                assert!(sigmas.windows(2).all(|pair| pair[0] > pair[1]), "{schedule:?}: {sigmas:?}");
                assert_eq!(sigmas[steps], 0.0);
                assert!(steps == 1 || (sigmas[steps - 1] - 0.002).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn karras_agrees_with_the_formula_of_the_paper() {
        // Eq. 5 with ρ = 7, 0.002…80, N = 18 at i = 9, by mpmath with 30 digits.
        let sigmas = Karras { steps: 18, rho: 7.0 }.sigmas(&(0.002..=80.0));
        assert!((sigmas[9] / 1.923_339_837_040_049_9 - 1.0).abs() < 1e-12, "{}", sigmas[9]);
    }
}
