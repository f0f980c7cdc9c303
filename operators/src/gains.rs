//! Operators that multiply every value of an image by a number of its own.

use candle_core::{DType, Device, Tensor};

use crate::forward::ForwardOperator;
use crate::rng::Rng;
use crate::{Error, Result};

/// The numbers `A(1)` with which a linear operator multiplies the values of an image, each by its own; `None` if it does anything
/// else. It is tried on ones and on random numbers, up to rounding. A mask has zeros and ones.
///
/// # Shapes
/// `image`: `(C, H, W)`; returns `[1, C, H, W]` in f32 on `device`.
///
/// # Errors
/// Those of the operator, as for images of another shape.
pub fn gains(
    operator: &dyn ForwardOperator,
    (channels, height, width): (usize, usize, usize),
    device: &Device,
) -> Result<Option<Tensor>> {
    if operator.as_linear().is_none() {
        return Ok(None);
    }
    let shape = (1, channels, height, width);
    let gains = operator.forward(&Tensor::ones(shape, DType::F32, device)?)?;
    let x = Rng::new(0, 0..1).normal(shape, device)?;
    if gains.dims() != x.dims() {
        return Ok(None);
    }
    let difference = (operator.forward(&x)? - (&gains * x)?)?;
    let largest = difference.abs()?.max_all()?.to_device(&Device::Cpu)?.to_scalar::<f32>().map_err(Error::from)?;
    Ok((largest <= 1e-5).then_some(gains))
}
