//! What is to be done with a photo.

use super::{Case, Plan, Restoration, RestoreOptions, Restored};
use crate::Result;
use crate::image::{EncodeOptions, Mask, OutputFormat, Photo};
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

    /// Lines that the user should know before anything is drawn, each once: of the photo, what it becomes, the mask and the plan,
    /// and what the formats in which the result is written cannot hold.
    pub fn remarks(
        &self,
        photo: &Photo,
        plan: &Plan,
        formats: &[OutputFormat],
        encoding: &EncodeOptions,
    ) -> Vec<String> {
        let canvas = self.canvas(photo);
        let of_mask = self.mask().map_or(&[][..], Mask::warnings);
        let known = photo.warnings().iter().chain(canvas.warnings()).chain(of_mask).chain(&plan.warnings).cloned();
        let lost = formats.iter().flat_map(|&format| canvas.encode_warnings(format, encoding));
        let mut remarks: Vec<String> = Vec::new();
        for remark in known.chain(lost) {
            if !remarks.contains(&remark) {
                remarks.push(remark);
            }
        }
        remarks
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
