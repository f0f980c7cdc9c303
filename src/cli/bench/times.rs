//! Repeated calls and what is said about their times.

use crate::Result;
use crate::cli::interrupt;
use std::time::Instant;

/// Milliseconds since `clock` was started.
pub(super) fn milliseconds(clock: Instant) -> f64 {
    1e3 * clock.elapsed().as_secs_f64()
}

/// Milliseconds of repeated calls, at least one.
#[derive(Clone, Debug)]
pub(super) struct Times {
    in_order: Vec<f64>,
    sorted: Vec<f64>,
}

impl Times {
    /// Calls `call` at least `rounds` times and for at least `seconds`.
    pub(super) fn measure(rounds: usize, seconds: f64, mut call: impl FnMut() -> Result<()>) -> Result<Self> {
        let mut times = Vec::new();
        let begun = Instant::now();
        while times.len() < rounds || begun.elapsed().as_secs_f64() < seconds {
            interrupt::check()?;
            let clock = Instant::now();
            call()?;
            times.push(milliseconds(clock));
        }
        Ok(Self::new(times))
    }

    pub(super) fn new(in_order: Vec<f64>) -> Self {
        let mut sorted = in_order.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        Self { in_order, sorted }
    }

    pub(super) fn calls(&self) -> usize {
        self.sorted.len()
    }

    /// The time that this share of the calls stays below, between two of them in proportion.
    pub(super) fn quantile(&self, share: f64) -> f64 {
        let place = share * (self.calls() - 1) as f64;
        let (below, above) = (place.floor() as usize, place.ceil() as usize);
        self.sorted[below] + (self.sorted[above] - self.sorted[below]) * place.fract()
    }

    pub(super) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// One number a line, in the order of the calls.
    pub(super) fn lines(&self) -> String {
        self.in_order.iter().map(|time| format!("{time:.4}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_sorted_times() {
        let times = Times::new(vec![4.0, 1.0, 3.0, 10.0, 2.0]);
        let quantiles: Vec<f64> = [0.0, 0.25, 0.5, 0.75, 1.0].map(|share| times.quantile(share)).to_vec();
        assert_eq!(quantiles, [1.0, 2.0, 3.0, 4.0, 10.0]);
        assert_eq!(Times::new(vec![4.0, 1.0]).median(), 2.5);
        assert_eq!(Times::new(vec![7.0]).quantile(0.75), 7.0);
        assert_eq!(Times::new(vec![2.5, 1.0]).lines(), "2.5000\n1.0000\n");
    }

    #[test]
    fn both_the_number_of_calls_and_the_seconds_are_least_ones() {
        let mut calls = 0;
        let counted = Times::measure(3, 0.0, || {
            calls += 1;
            Ok(())
        });
        assert_eq!((counted.unwrap().calls(), calls), (3, 3));
        let clock = Instant::now();
        let timed = Times::measure(1, 0.02, || Ok(())).unwrap();
        assert!(milliseconds(clock) >= 20.0 && timed.calls() > 1);
    }
}
