//! Where sampling starts from: the smoothest image that fits the measurement.

use crate::Result;
use candle_core::Tensor;
use tweedie_operators::{CgParams, ForwardOperator, NoiseModel, conjugate_gradients};

/// `argmin_x ‖y − A x‖² / 2σ² + ‖∇x‖² / 2τ² + ‖x − x̄‖² / 2κ² + ‖x‖² / 2ρ²` with `x̄` the mean of the channels: the
/// posterior mean under a Gaussian prior that knows that photos are smooth and mostly grey, nearly: a few dozen conjugate
/// gradients are enough for a start.
///
/// `None` if the operator is not linear and `y` is no image of that size, which else is the start itself.
///
/// # Shapes
/// `y`: `[1, ..]`; returns `[1, 3, H, W]`, `size` is `(H, W)`.
pub(super) fn smoothest(
    operator: &dyn ForwardOperator,
    noise: &dyn NoiseModel,
    y: &Tensor,
    size: (usize, usize),
) -> Result<Option<Tensor>> {
    let Some(linear) = operator.as_linear() else {
        let is_image = y.dims() == [1, 3, size.0, size.1];
        return Ok(is_image.then(|| y.clamp(-1.0, 1.0)).transpose()?);
    };
    let variance = noise.gaussian_sigma().unwrap_or(LEAST_SIGMA).max(LEAST_SIGMA).powi(2);
    let b = linear.adjoint(y)?;
    if b.dims() != [1, 3, size.0, size.1] {
        return Err(tweedie_operators::Error::Shape {
            what: "image of the measurement".into(),
            got: b.dims().to_vec(),
            expected: format!("[1, 3, {}, {}]", size.0, size.1),
        }
        .into());
    }
    let product = |x: &Tensor| {
        let prior = ((roughness(x)? * GRADIENT.powi(-2))?
            + ((x.broadcast_sub(&x.mean_keepdim(1)?)? * COLOUR.powi(-2))? + (x * BRIGHTNESS.powi(-2))?)?)?;
        Ok((linear.adjoint(&linear.forward(x)?)? + (prior * variance)?)?)
    };
    let (x, _) = conjugate_gradients(product, &b, &CgParams { tolerance: 1e-3, max_iterations: 60 })?;
    Ok(Some(x))
}

/// Standard deviations, pixels in `[-1, 1]`: of the measurement at least, so that the system stays easy; of the difference of
/// neighbours; of a channel from the mean of the channels; of everything.
const LEAST_SIGMA: f64 = 0.01;
const GRADIENT: f64 = 0.1;
const COLOUR: f64 = 0.3;
const BRIGHTNESS: f64 = 2.0;

/// `∇ᵀ∇ x`: minus the Laplacian, mirrored at the border.
fn roughness(x: &Tensor) -> candle_core::Result<Tensor> {
    let mut sum = x.zeros_like()?;
    for dim in [2, 3] {
        let size = x.dim(dim)?;
        if size < 2 {
            continue;
        }
        let difference = (x.narrow(dim, 1, size - 1)? - x.narrow(dim, 0, size - 1)?)?;
        sum = (sum + (difference.pad_with_zeros(dim, 1, 0)? - difference.pad_with_zeros(dim, 0, 1)?)?)?;
    }
    Ok(sum)
}
