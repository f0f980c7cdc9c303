//! Deblurring.

use super::Case;
use super::case::{colours, sigma};
use super::guess::smoothest;
use crate::Result;
use crate::image::Photo;
use candle_core::{DType, Device};
use std::path::Path;
use tweedie_operators::noise::Gaussian;
use tweedie_operators::{OPERATORS, Site, find};

impl Case {
    /// A photo blurred by a kernel, with white Gaussian noise of a standard deviation of `levels` 8-bit levels.
    ///
    /// `kernel` is the table of that name of the operator `blur`, `folder` where its files are. What lies outside the photo
    /// was blurred into it and is not known: the image that is sampled is larger by the kernel's reach, and its middle is
    /// the result.
    ///
    /// # Errors
    /// `Operator` for a kernel that cannot be, or a noise below 0.
    pub fn deblur(photo: &Photo, kernel: toml::Table, levels: f64, folder: &Path) -> Result<Self> {
        let y = colours(photo)?;
        let table = toml::Table::from_iter([
            ("kernel".into(), toml::Value::Table(kernel)),
            ("padding".into(), toml::Value::String("valid".into())),
        ]);
        let entry = find(OPERATORS, "blur")?;
        let within = |image| Site { folder, ..Site::new(image, &Device::Cpu, DType::F32) };
        let (channels, height, width) = entry.image_shape(&table, &y.dims()[1..], within((0, 0, 0)))?;
        let operator = entry.create(table, within((channels, height, width)))?;
        let noise = Box::new(Gaussian::new(sigma(levels, photo))?);
        let guess = smoothest(&*operator, &*noise, &y, (height, width))?;
        let offset = ((height - photo.height()) / 2, (width - photo.width()) / 2);
        Ok(Self { operator, noise, y, canvas: photo.clone(), size: (height, width), offset, guess, luma: None })
    }
}
