//! Colours for a grey photo.

use crate::Result;
use crate::image::{DecodeOptions, Photo};
use crate::restore::{Case, Work};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Which colours are known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Colorize {
    /// Coloured dots on transparent ground, a picture of the photo's size; default none.
    pub hints: Option<PathBuf>,
}

impl Colorize {
    pub(super) fn work(&self, photo: &Photo, decode: DecodeOptions) -> Result<(Work, String)> {
        let hints = self.hints.as_ref().map(|path| Photo::open(path, &decode)).transpose()?;
        let case = Case::colorize(photo, hints.as_ref())?;
        let with = if hints.is_some() { "luma, with hints" } else { "luma" };
        Ok((Work::Whole(Box::new(case)), with.into()))
    }
}
