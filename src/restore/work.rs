//! What is to be done with a photo.

use super::{Case, Restoration, RestoreOptions, Restored};
use crate::Result;
use crate::image::{Mask, Photo};
use crate::models::Model;

/// What is to be done with a photo: made by a [`Task`](super::Task), or by hand.
#[derive(Debug)]
pub enum Work {
    /// Fill the pixels of a mask.
    Holes(Mask),
    /// Restore the whole of it.
    Whole(Box<Case>),
}

impl Work {
    /// The pixels that are filled; without one, every pixel is new.
    pub fn mask(&self) -> Option<&Mask> {
        match self {
            Self::Holes(mask) => Some(mask),
            Self::Whole(_) => None,
        }
    }

    /// What the result is painted on.
    pub fn canvas<'a>(&'a self, photo: &'a Photo) -> &'a Photo {
        match self {
            Self::Holes(_) => photo,
            Self::Whole(case) => &case.canvas,
        }
    }

    /// Lines about samples that look wrong, see [`Restored::warnings`] and [`Restored::warnings_of_whole`]; `photo` is `None`
    /// where there is none to compare with, as for a measurement.
    pub fn warnings(&self, photo: Option<&Photo>, result: &Restored) -> Vec<String> {
        match (self, photo) {
            (Self::Holes(mask), Some(photo)) => result.warnings(photo, mask),
            _ => result.warnings_of_whole(photo),
        }
    }
}

impl<'a> Restoration<'a> {
    /// Plans to do `work` on a photo with `model`, whatever model `options` name.
    ///
    /// # Errors
    /// As [`Restoration::inpaint`] and [`Restoration::new`].
    pub fn of(work: &'a Work, photo: &'a Photo, options: &RestoreOptions<'_>, model: &'a Model) -> Result<Self> {
        match work {
            Work::Holes(mask) => Self::inpaint(photo, mask, options, model),
            Work::Whole(case) => Self::new(case, options, model),
        }
    }
}
