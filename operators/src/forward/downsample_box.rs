//! Down-sampling by the mean of square blocks.

use candle_core::Tensor;
use serde::Deserialize;

use super::{BuildOperator, ForwardOperator, LinearOperator, SpectralOperator, check_image, like};
use crate::registry::{Entry, Site};
use crate::{Error, Result};

/// `y` is the mean of each block of `f × f` pixels; incomplete blocks at the bottom and the right are not seen.
#[derive(Clone, Debug)]
pub struct DownsampleBox {
    factor: usize,
    /// Height and width of the image.
    image: (usize, usize),
    /// `[1, 1, H, W]`: 1 at the top-left pixel of each block, where the spectrum keeps what is seen.
    corners: Tensor,
    /// `[1, 1, H, W]`: `1 / f` at the corners.
    singular_values: Tensor,
}

impl DownsampleBox {
    /// For images of the site's height and width, any number of channels.
    ///
    /// # Errors
    /// [`Error::Config`] unless `factor` is at least 1 and one block fits the image.
    pub fn new(factor: usize, site: Site<'_>) -> Result<Self> {
        let (_, height, width) = site.image;
        if factor == 0 || factor > height.min(width) {
            let reason =
                format!("factor is {factor}, expected 1 to {} for an image of {width}x{height}", height.min(width));
            return Err(Error::config("downsample_box", reason));
        }
        let (bottom, right) = (height / factor * factor, width / factor * factor);
        let mut corners = vec![0f32; height * width];
        for y in (0..bottom).step_by(factor) {
            (0..right).step_by(factor).for_each(|x| corners[y * width + x] = 1.0);
        }
        let corners = Tensor::from_vec(corners, (1, 1, height, width), site.device)?.to_dtype(site.dtype)?;
        let singular_values = (&corners / factor as f64)?;
        Ok(Self { factor, image: (height, width), corners, singular_values })
    }

    /// Mean of each block.
    fn mean(&self, x: &Tensor) -> Result<Tensor> {
        check_image("image for downsample_box", x, [None, Some(self.image.0), Some(self.image.1)])?;
        let complete = |size: usize| size / self.factor * self.factor;
        // The gradient of candle's pooling is wrong where blocks are incomplete, so they are cut off first.
        let x = x.narrow(2, 0, complete(self.image.0))?.narrow(3, 0, complete(self.image.1))?;
        Ok(x.avg_pool2d(self.factor)?)
    }

    /// Copies each pixel to its block; zero where blocks are incomplete.
    fn spread(&self, y: &Tensor) -> Result<Tensor> {
        let (factor, (height, width)) = (self.factor, self.image);
        let (rows, columns) = (height / factor, width / factor);
        check_image("measurement of downsample_box", y, [None, Some(rows), Some(columns)])?;
        let (batch, channels, ..) = y.dims4()?;
        let blocks = y.reshape((batch, channels, rows, 1, columns, 1))?;
        let blocks = blocks.broadcast_as((batch, channels, rows, factor, columns, factor))?;
        let image = blocks.reshape((batch, channels, rows * factor, columns * factor))?;
        let image = image.pad_with_zeros(2, 0, height - rows * factor)?;
        Ok(image.pad_with_zeros(3, 0, width - columns * factor)?)
    }

    /// `V x`, which is also `Vᵀ x`: in every block the Householder reflection that exchanges the corner's unit vector
    /// and the constant vector `1 / f`.
    ///
    /// With `t = x_corner − f · mean` the corner becomes `f · mean` and every other pixel gains `t / (f − 1)`.
    fn reflect(&self, x: &Tensor) -> Result<Tensor> {
        if self.factor == 1 {
            return Ok(x.clone());
        }
        let factor = self.factor as f64;
        let corners = like(&self.corners, x)?;
        let scaled_mean = (self.mean(x)? * factor)?;
        let corner = (self.mean(&x.broadcast_mul(&corners)?)? * (factor * factor))?;
        let gain = self.spread(&((corner - &scaled_mean)? / (factor - 1.0))?)?;
        let others = (x + gain)?.broadcast_mul(&corners.affine(-1.0, 1.0)?)?;
        Ok((others + self.spread(&scaled_mean)?.broadcast_mul(&corners)?)?)
    }
}

impl ForwardOperator for DownsampleBox {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.mean(x)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for DownsampleBox {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        Ok((self.spread(y)? / (self.factor * self.factor) as f64)?)
    }

    fn reaches_everything(&self) -> bool {
        true
    }

    fn as_spectral(&self) -> Option<&dyn SpectralOperator> {
        Some(self)
    }
}

/// `s = 1 / f` at the corner of each block, whose column of `V` is constant over the block; `U` places `y` there.
impl SpectralOperator for DownsampleBox {
    fn singular_values(&self) -> &Tensor {
        &self.singular_values
    }

    fn image_to_spectrum(&self, x: &Tensor) -> Result<Tensor> {
        self.reflect(x)
    }

    fn spectrum_to_image(&self, spectrum: &Tensor) -> Result<Tensor> {
        self.reflect(spectrum)
    }

    fn measurement_to_spectrum(&self, y: &Tensor) -> Result<Tensor> {
        Ok(self.spread(y)?.broadcast_mul(&like(&self.corners, y)?)?)
    }

    /// `f² Aᵀ y`: each value copied to its block.
    fn pseudo_inverse(&self, y: &Tensor) -> Result<Tensor> {
        self.spread(y)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Side of a block, in pixels.
    factor: usize,
}

/// `downsample_box`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "downsample_box",
    about: "Mean of square blocks",
    fields: &[("factor", "side of a block in pixels, at least 1")],
    example: "factor = 2",
    build: BuildOperator::reshaping(
        |table, site| {
            let Config { factor } = table.try_into()?;
            Ok(Box::new(DownsampleBox::new(factor, site)?))
        },
        |table, y, _| {
            let Config { factor } = table.clone().try_into()?;
            match *y {
                [channels, height, width] => Ok((channels, height * factor, width * factor)),
                _ => Err(Error::config("downsample_box", format!("measurement is {y:?}, expected [C, H, W]"))),
            }
        },
    ),
};
