//! The residual's norm as a function of the image.

use crate::Result;
use candle_core::Tensor;
use tweedie_operators::Measurement;

/// `∇_u ‖y − A u‖₂`, the norm taken row by row.
pub(super) fn norm_gradient(measurement: &Measurement<'_>, u: &Tensor) -> Result<Tensor> {
    let residual = measurement.operator.forward(u)?.broadcast_sub(&measurement.y)?;
    let norm = residual.sqr()?.flatten_from(1)?.sum_keepdim(1)?.sqrt()?;
    // A residual of exactly zero has no direction.
    let norm = norm.maximum(f64::from(f32::MIN_POSITIVE))?.reshape((u.dim(0)?, 1, 1, 1))?;
    Ok(measurement.operator.vjp(u, &residual)?.broadcast_div(&norm)?)
}

/// Half of `∇_u ‖y − A u‖₂²`: `J_A(u)ᵀ (A u − y)`.
pub(super) fn half_square_gradient(measurement: &Measurement<'_>, u: &Tensor) -> Result<Tensor> {
    let residual = measurement.operator.forward(u)?.broadcast_sub(&measurement.y)?;
    Ok(measurement.operator.vjp(u, &residual)?)
}
