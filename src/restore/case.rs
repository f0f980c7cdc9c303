//! What was measured of a photo.

use super::guess::smoothest;
use crate::Result;
use crate::image::{Depth, Photo, Region};
use candle_core::{DType, Device, Tensor};
use tweedie_operators::{ForwardOperator, Measurement, NoiseModel};

/// A measurement that is to be restored, and the picture that the result is painted on.
#[derive(Debug)]
pub struct Case {
    /// `A`.
    pub operator: Box<dyn ForwardOperator>,
    /// `N`.
    pub noise: Box<dyn NoiseModel>,
    /// `y`: `[1, ..]`, on the host.
    pub y: Tensor,
    /// Size, depth, alpha and metadata of the result; its colours are replaced, but for pixels with alpha 0.
    pub canvas: Photo,
    /// Height and width of the image that `A` takes, at least those of the canvas.
    pub size: (usize, usize),
    /// Row and column of the image at which the canvas begins.
    pub offset: (usize, usize),
    /// Where sampling starts, `[1, 3, H, W]`; `None` starts at noise around grey.
    pub guess: Option<Tensor>,
    /// Luma of rec. 601 that the result must have to the level, `[1, 1, H, W]`, for colourisation.
    pub luma: Option<Tensor>,
}

impl Case {
    /// A measurement `y` (`[1, ..]`) by `operator` with `noise`, of an image that is painted on `canvas`.
    ///
    /// # Errors
    /// `Operator` if `y` does not fit the operator.
    pub fn new(
        operator: Box<dyn ForwardOperator>,
        noise: Box<dyn NoiseModel>,
        y: Tensor,
        canvas: Photo,
    ) -> Result<Self> {
        let size = (canvas.height(), canvas.width());
        let guess = smoothest(&*operator, &*noise, &y, size)?;
        Ok(Self { operator, noise, y, canvas, size, offset: (0, 0), guess, luma: None })
    }

    /// How far the measurement of a picture is from `y`: root mean square of `A x − y` over σ of the noise, or in units of
    /// `[-1, 1]` where the noise has none. `None` where the picture is a part of what was measured.
    ///
    /// # Errors
    /// `Operator` if the picture has another size than the canvas.
    pub fn residual(&self, picture: &Photo) -> Result<Option<f64>> {
        if self.size != (self.canvas.height(), self.canvas.width()) {
            return Ok(None);
        }
        let difference = (self.operator.forward(&colours(picture)?)? - &self.y)?;
        let square = difference.sqr()?.mean_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        let sigma = self.noise.gaussian_sigma().filter(|&sigma| sigma > 0.0).unwrap_or(1.0);
        Ok(Some(square.sqrt() / sigma))
    }

    /// The measurement as the samplers see it.
    pub(super) fn measurement(&self) -> Measurement<'_> {
        Measurement { operator: &*self.operator, noise: &*self.noise, y: self.y.clone() }
    }
}

/// Colours of a whole photo, `[1, 3, H, W]` on the host; those of pixels that nobody knows are filled smoothly.
pub(super) fn colours(photo: &Photo) -> Result<Tensor> {
    let whole = Region { x: 0, y: 0, width: photo.width(), height: photo.height() };
    let x = photo.tensor(whole, &Device::Cpu)?;
    Ok(match photo.unknown() {
        Some(unknown) => super::filled(&x, &unknown)?,
        None => x,
    })
}

/// `σ` in units of `[-1, 1]` for a standard deviation of `levels` 8-bit levels, with what the file's own rounding adds:
/// `√(L² + r²/12) · 2/255`, `r` the step of the file in 8-bit levels.
pub(super) fn sigma(levels: f64, photo: &Photo) -> f64 {
    let step = match photo.depth() {
        Depth::Eight => 1.0,
        Depth::Sixteen => 255.0 / 65535.0,
    };
    // A level below zero stays one, so that it is refused where it is used.
    let sign = if levels < 0.0 { -1.0 } else { 1.0 };
    sign * (levels * levels + step * step / 12.0).sqrt() * 2.0 / 255.0
}

/// The standard deviation of the noise of a photo in 8-bit levels, estimated.
///
/// # Errors
/// `Operator` if the photo is too small to say.
pub fn estimate_levels(photo: &Photo) -> Result<f64> {
    Ok(tweedie_operators::noise::estimate_sigma(&colours(photo)?)? * 127.5)
}
