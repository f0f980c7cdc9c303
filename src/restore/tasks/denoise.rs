//! A photo without its noise.

use super::NoiseLevel;
use crate::Result;
use crate::image::Photo;
use crate::restore::{Case, Work};
use serde::{Deserialize, Serialize};

/// How noisy a photo is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Denoise {
    /// The noise; default estimated.
    pub noise: NoiseLevel,
}

impl Denoise {
    pub(super) fn work(&self, photo: &Photo) -> Result<(Work, String)> {
        let levels = self.noise.levels(photo)?;
        let case = Case::denoise(photo, levels)?;
        Ok((Work::Whole(Box::new(case)), format!("noise of {levels:.2} levels")))
    }
}
