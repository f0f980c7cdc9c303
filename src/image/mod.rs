//! Photos and masks: the only place that knows bytes.

use candle_core::{Device, Tensor};

/// What is wrong with a photo, a mask, or their files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// There is nothing in the file.
    #[error("empty file")]
    Empty,
}

/// A rectangle of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Left edge.
    pub x: usize,
    /// Top edge.
    pub y: usize,
    /// Width.
    pub width: usize,
    /// Height.
    pub height: usize,
}

/// A decoded photo, upright, with the samples its file had.
#[derive(Clone, Debug)]
pub struct Photo {}

/// Which pixels are to be filled, in the upright frame of the photo.
#[derive(Clone, Debug)]
pub struct Mask {}

impl Photo {
    /// Colour of a region as `[1, 3, h, w]` in `[-1, 1]`; grey is replicated, alpha left out.
    pub fn tensor(&self, region: Region, device: &Device) -> candle_core::Result<Tensor> {
        Tensor::zeros((1, 3, region.height, region.width), candle_core::DType::F32, device)
    }
}
