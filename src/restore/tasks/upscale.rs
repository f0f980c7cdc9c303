//! A larger photo.

use super::NoiseLevel;
use crate::Result;
use crate::image::Photo;
use crate::restore::upscale::factor;
use crate::restore::{Case, Interpolation, Work};
use serde::{Deserialize, Deserializer, Serialize};

/// How much larger, and how the photo was made small.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upscale {
    /// A number or a ratio above 1, at most 16, such as `2` or `3/2`; default 2.
    #[serde(deserialize_with = "number_or_text")]
    pub scale: String,
    /// How the photo was made small; default bicubic.
    pub kernel: Interpolation,
    /// Noise of the small photo; default none.
    pub noise: NoiseLevel,
}

impl Default for Upscale {
    fn default() -> Self {
        Self { scale: "2".into(), kernel: Interpolation::Bicubic, noise: NoiseLevel::Levels(0.0) }
    }
}

fn number_or_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a number above 1, or a ratio as text such as \"3/2\"")]
    enum Form {
        Number(f64),
        Text(String),
    }
    Ok(match Form::deserialize(deserializer)? {
        Form::Number(number) => number.to_string(),
        Form::Text(text) => text,
    })
}

impl Upscale {
    pub(super) fn check(&self) -> Result<()> {
        factor(&self.scale).map(|_| ())
    }

    pub(super) fn work(&self, photo: &Photo) -> Result<(Work, String)> {
        let levels = self.noise.levels(photo)?;
        let case = Case::upscale(photo, &self.scale, self.kernel, levels)?;
        let name = self.kernel.name();
        Ok((Work::Whole(Box::new(case)), format!("{name} by {}, noise of {levels:.2} levels", self.scale)))
    }
}
