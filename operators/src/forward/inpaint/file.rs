//! A picture of what is missing.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Inpaint;
use crate::Result;
use crate::forward::{BuildOperator, picture};
use crate::registry::{Entry, Site};

impl Inpaint {
    /// Hides the pixels at which the luma of a picture, ITU-R BT.601 on a scale from 0 to 255, is above `threshold`.
    ///
    /// PNG, JPEG, BMP and PNM are read; a relative name starts at the folder of the site; transparency does not count.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if the file cannot be read or has another size than the image.
    pub fn file(path: &Path, threshold: u8, site: Site<'_>) -> Result<Self> {
        let picture = picture::open("inpaint_file", path, site)?.into_rgb16();
        // Weights in thousandths, so that grey is compared without rounding.
        let limit = u32::from(threshold) * 257 * 1000;
        let luma = |pixel: [u16; 3]| pixel.iter().zip([299, 587, 114]).map(|(&v, w)| u32::from(v) * w).sum::<u32>();
        let seen = picture.pixels().map(|pixel| luma(pixel.0) <= limit).collect();
        Self::from_seen(site, 1, seen)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The picture, white where pixels are missing.
    file: PathBuf,
    /// Luma above which a pixel is missing, 0 to 255; default 127.
    #[serde(default = "Config::threshold")]
    threshold: u8,
}

impl Config {
    fn threshold() -> u8 {
        127
    }
}

/// `inpaint_file`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "inpaint_file",
    about: "Missing pixels are white in a picture",
    fields: &[
        ("file", "picture as large as the image, white where pixels are missing: PNG, JPEG, BMP or PNM"),
        ("threshold", "luma above which a pixel is missing, 0 to 255; default 127"),
    ],
    example: "file = 'mask.png'",
    build: BuildOperator::same_shape(|table, site| {
        let Config { file, threshold } = table.try_into()?;
        Ok(Box::new(Inpaint::file(&file, threshold, site)?))
    }),
};
