//! The proximal map of a measurement, as well as it can be had.

use crate::Result;
use candle_core::Tensor;
use tweedie_operators::{CgParams, Measurement};

/// [`Measurement::prox`] that takes what conjugate gradients reach: in single precision a badly conditioned operator ends
/// somewhat above any tight tolerance, and an iterate that stopped early is still a step in the right direction.
///
/// # Shapes
/// `x`: `[B, C, H, W]`, as is the result; `r` in the unit of `x`.
///
/// # Errors
/// As [`Measurement::prox_with`].
pub(super) fn nearest(measurement: &Measurement<'_>, x: &Tensor, r: f64) -> Result<Tensor> {
    let tolerance = if x.dtype() == candle_core::DType::F64 { 1e-8 } else { 1e-4 };
    Ok(measurement.prox_with(x, r, &CgParams { tolerance, max_iterations: 200 })?.0)
}
