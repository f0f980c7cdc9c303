//! Super-resolution.

use super::Case;
use super::case::{colours, sigma};
use crate::image::Photo;
use crate::{Error, Result};
use candle_core::{DType, Device};
use serde::{Deserialize, Serialize};
use tweedie_operators::noise::Gaussian;
use tweedie_operators::{OPERATORS, Site, find};

/// How the small photo came from the large one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// Bicubic with anti-aliasing, as MATLAB's `imresize` and most programs.
    #[default]
    Bicubic,
    /// The mean of each pixel's area, as a sensor with larger pixels.
    Box,
    /// Lanczos' kernel with three lobes, anti-aliased.
    Lanczos,
}

impl Interpolation {
    /// Its name in the operator `downsample`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bicubic => "bicubic",
            Self::Box => "box",
            Self::Lanczos => "lanczos",
        }
    }
}

/// A scale as text, as the operator `downsample` takes it.
///
/// # Errors
/// `Config` unless it is above 1 and at most 16.
pub(super) fn factor(scale: &str) -> Result<toml::Value> {
    let value = match scale.split_once('/') {
        Some((p, q)) => p.trim().parse::<f64>().ok().zip(q.trim().parse::<f64>().ok()).map(|(p, q)| p / q),
        None => scale.parse().ok(),
    };
    if !value.is_some_and(|value| value > 1.0 && value <= 16.0) {
        let expected = "a number or a ratio above 1, at most 16, such as 2 or 3/2".into();
        return Err(Error::Config { name: "scale".into(), got: scale.into(), expected });
    }
    Ok(scale.parse().map_or_else(|_| toml::Value::String(scale.into()), toml::Value::Float))
}

impl Case {
    /// A photo that is `scale` times smaller than the one wanted, with white Gaussian noise of a standard deviation of
    /// `levels` 8-bit levels; `scale` is a number or a ratio as text, such as `2` or `3/2`.
    ///
    /// # Errors
    /// `Config` unless `scale` is above 1 and at most 16, `Operator` if it fits no size.
    pub fn upscale(photo: &Photo, scale: &str, kernel: Interpolation, levels: f64) -> Result<Self> {
        let factor = factor(scale)?;
        let y = colours(photo)?;
        let table = toml::Table::from_iter([
            ("factor".into(), factor),
            ("kernel".into(), toml::Value::String(kernel.name().into())),
        ]);
        let entry = find(OPERATORS, "downsample")?;
        let image = entry.image_shape(&table, &y.dims()[1..], Site::new((0, 0, 0), &Device::Cpu, DType::F32))?;
        let operator = entry.create(table, Site::new(image, &Device::Cpu, DType::F32))?;
        let noise = Box::new(Gaussian::new(sigma(levels, photo))?);
        Self::new(operator, noise, y, photo.resized(image.2, image.1))
    }
}
