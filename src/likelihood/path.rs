//! The path of an image from σ_min to σ_max.

use super::flow::Flow;
use crate::solvers::dormand_prince::{ERROR, NODES, SHORTEST, STAGES, factor};
use crate::{Error, Result};
use candle_core::Tensor;
use std::ops::RangeInclusive;

/// Length of the first step in `ln σ`.
const FIRST: f64 = 0.1;

/// Steps are no longer than this in `ln σ`: a longer one could pass over where the prior decides what the image is of.
const LONGEST: f64 = 1.0;

/// More evaluations are not spent on one image.
const MOST_EVALUATIONS: usize = 20_000;

/// Follows `flow` from `x` at the start of `range` to its end, with steps as long as the error allows; returns the
/// standardised image there and the integral of every estimate of the divergence, over the number of pixels.
///
/// The error of a step is the larger one of two root mean squares, over the numbers of the image and over the integrals.
pub(super) fn follow(
    flow: &mut Flow<'_>,
    x: &Tensor,
    range: &RangeInclusive<f64>,
    tolerance: f64,
) -> Result<(Vec<f64>, Vec<f64>)> {
    let (start, end) = (range.start().ln(), range.end().ln());
    let mut state = flow.standardised(x, *range.start())?;
    let image = state.len();
    state.resize(image + flow.estimates(), 0.0);
    let mut slope = flow.slope(&state[..image], *range.start(), 0.0)?;
    let (mut at, mut stride, mut step) = (start, FIRST, 0);
    while at < end {
        let is_last = stride >= end - at;
        let length = if is_last { end - at } else { stride };
        let done = (at - start) / (end - start);
        let mut slopes = vec![slope];
        let mut next = state.clone();
        for (weights, node) in STAGES.iter().zip(NODES) {
            next.clone_from(&state);
            add(&mut next, weights, &slopes, length);
            let sigma =
                if is_last && node == 1.0 { *range.end() } else { (at + node * length).exp().min(*range.end()) };
            slopes.push(flow.slope(&next[..image], sigma, done)?);
        }
        let mut error = vec![0.0; state.len()];
        add(&mut error, &ERROR, &slopes, length);
        let scaled = error
            .iter()
            .zip(&state)
            .zip(&next)
            .map(|((error, before), after)| error / (tolerance + tolerance * before.abs().max(after.abs())));
        let scaled: Vec<f64> = scaled.collect();
        let (of_image, of_integrals) = scaled.split_at(image);
        // A maximum would pass over what is not a number.
        let sizes = [root_mean_square(of_image), root_mean_square(of_integrals)];
        if sizes.iter().any(|size| !size.is_finite()) {
            return Err(Error::NonFinite { step, sigma: at.exp() });
        }
        let size = sizes[0].max(sizes[1]);
        if size <= 1.0 || length <= SHORTEST {
            state = next;
            slope = slopes.pop().unwrap_or_default();
            at = if is_last { end } else { at + length };
            step += 1;
        } else {
            slope = slopes.swap_remove(0);
        }
        stride = (length * factor(size)).clamp(SHORTEST, LONGEST);
        if at < end && flow.evaluations() >= MOST_EVALUATIONS {
            let done = 100.0 * (at - start) / (end - start);
            return Err(Error::Config {
                name: "tolerance".into(),
                got: tolerance.to_string(),
                expected: format!(
                    "a larger one: {done:.0} % of the path took {MOST_EVALUATIONS} evaluations, sigma is {:.3e}",
                    at.exp()
                ),
            });
        }
    }
    let integrals = state.split_off(image);
    Ok((state, integrals))
}

/// `x + factor Σ w_i k_i`
fn add(x: &mut [f64], weights: &[f64], slopes: &[Vec<f64>], factor: f64) {
    for (weight, slope) in weights.iter().zip(slopes).filter(|(weight, _)| **weight != 0.0) {
        x.iter_mut().zip(slope).for_each(|(x, slope)| *x += factor * weight * slope);
    }
}

fn root_mean_square(values: &[f64]) -> f64 {
    (values.iter().map(|value| value * value).sum::<f64>() / values.len() as f64).sqrt()
}
