//! Denoising.

use super::Case;
use super::case::{colours, sigma};
use crate::Result;
use crate::image::Photo;
use candle_core::{DType, Device};
use tweedie_operators::Site;
use tweedie_operators::forward::Identity;
use tweedie_operators::noise::Gaussian;

impl Case {
    /// A photo with white Gaussian noise of a standard deviation of `levels` 8-bit levels.
    ///
    /// # Errors
    /// `Operator` unless `levels` is a number of at least 0.
    pub fn denoise(photo: &Photo, levels: f64) -> Result<Self> {
        let y = colours(photo)?;
        let size = (photo.height(), photo.width());
        let operator = Box::new(Identity::new(Site::new((3, size.0, size.1), &Device::Cpu, DType::F32))?);
        let noise = Box::new(Gaussian::new(sigma(levels, photo))?);
        let guess = Some(y.clone());
        Ok(Self { operator, noise, y, canvas: photo.clone(), size, offset: (0, 0), guess, luma: None })
    }
}
