//! Whether a picture explains its measurement.

use super::levels::shape;
use crate::Result;
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use tweedie_operators::{ForwardOperator, Measurement, gains};

/// How far `A x̂` is from `y`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Residual {
    /// `‖y − A x̂‖ / (√m σ_y)` for Gaussian noise of σ_y > 0: 1 for the truth, less where noise was fitted.
    Normalised(f64),
    /// `‖y − A x̂‖ / √m` in the unit of `y`, for noise of σ_y = 0 and noise that is not Gaussian.
    Rms(f64),
}

impl Residual {
    /// Of one picture, neither rounded nor clipped; `m` counts the values of `y` that depend on the image
    /// (see [`observed`]).
    ///
    /// # Shapes
    /// `x`: `[1, C, H, W]`, `y` of the measurement: `[1, ..]`
    /// # Errors
    /// `Operator` if the picture does not fit the operator.
    pub fn of(measurement: &Measurement<'_>, x: &Tensor, observed: Option<&[bool]>) -> Result<Self> {
        let z = measurement.operator.forward(x)?;
        if z.dims() != measurement.y.dims() {
            return Err(shape("measurement", z.dims(), &format!("{:?}", measurement.y.dims())));
        }
        let difference = (z - &measurement.y)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
        let difference = difference.flatten_all()?.to_vec1::<f64>()?;
        let counts = |i: usize| observed.is_none_or(|observed| observed[i]);
        let (mut squares, mut count) = (0.0, 0_usize);
        for (_, value) in difference.iter().enumerate().filter(|(i, _)| counts(*i)) {
            squares += value * value;
            count += 1;
        }
        let rms = (squares / count.max(1) as f64).sqrt();
        Ok(match measurement.noise.gaussian_sigma() {
            Some(sigma) if sigma > 0.0 => Self::Normalised(rms / sigma),
            _ => Self::Rms(rms),
        })
    }

    /// The number alone.
    pub fn value(self) -> f64 {
        match self {
            Self::Normalised(value) | Self::Rms(value) => value,
        }
    }
}

/// Which values of an image a mask lets through, channel by channel; `None` if the operator is no mask or hides nothing.
///
/// A mask is a linear operator that multiplies every value of the image by a number of its own, see [`gains`].
///
/// # Errors
/// `Operator` if the operator takes no image of `shape`, `(C, H, W)`.
pub fn observed(operator: &dyn ForwardOperator, shape: (usize, usize, usize)) -> Result<Option<Vec<bool>>> {
    let Some(gains) = gains(operator, shape, &Device::Cpu)? else { return Ok(None) };
    let gains = gains.flatten_all()?.to_vec1::<f32>()?;
    Ok(gains.contains(&0.0).then(|| gains.iter().map(|gain| *gain != 0.0).collect()))
}
