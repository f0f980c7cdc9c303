//! Which pixels are filled.

use crate::image::{DecodeOptions, ImageError, Mask, MaskChannel, MaskOptions, MaskSource, Photo};
use crate::restore::Work;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// How the mask is read that says what is filled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Inpaint {
    /// Pixels to fill around the mask, 0 to 1000; default 0.
    pub mask_grow: f64,
    /// How a mask of another size is fitted; default not at all.
    pub mask_resize: Option<MaskResize>,
    /// Which channel of the mask's file counts; default automatic.
    pub mask_channel: MaskChannel,
    /// What is above is filled, on the scale 0–255; default 127.
    pub mask_threshold: u8,
    /// Whether black is filled; default false.
    pub invert_mask: bool,
}

/// How a mask of another size than the photo's is fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaskResize {
    /// Every pixel of the photo takes the value of the nearest one of the mask.
    Nearest,
}

impl Default for Inpaint {
    fn default() -> Self {
        let MaskOptions { threshold, channel, invert, grow, .. } = MaskOptions::default();
        Self {
            mask_grow: grow,
            mask_resize: None,
            mask_channel: channel,
            mask_threshold: threshold,
            invert_mask: invert,
        }
    }
}

impl Inpaint {
    /// Most pixels that a mask grows by.
    pub const MOST_GROWTH: f64 = 1000.0;

    pub(super) fn check(&self) -> Result<()> {
        if (0.0..=Self::MOST_GROWTH).contains(&self.mask_grow) {
            return Ok(());
        }
        let expected = "a number of pixels from 0 to 1000";
        let (name, got) = ("mask_grow", self.mask_grow.to_string());
        Err(Error::Image(ImageError::Setting { name, got, expected }))
    }

    fn options(&self, decode: DecodeOptions) -> MaskOptions {
        MaskOptions {
            threshold: self.mask_threshold,
            channel: self.mask_channel,
            invert: self.invert_mask,
            grow: self.mask_grow,
            resize_nearest: self.mask_resize == Some(MaskResize::Nearest),
            // A mask is made for the photo: a part of it is none.
            decode: DecodeOptions { allow_truncated: false, ..decode },
        }
    }

    /// Without a mask only what is missing from a truncated photo is filled.
    pub(super) fn work(
        &self,
        photo: &mut Photo,
        source: Option<&MaskSource>,
        decode: DecodeOptions,
    ) -> Result<(Work, String)> {
        let nothing = || Mask::from_fn(photo.width(), photo.height(), |_, _| false);
        let mask = match source {
            Some(source) => Mask::open(source, photo, &self.options(decode))?,
            None => nothing(),
        };
        let mask = mask.union(&photo.missing().unwrap_or_else(nothing));
        if source == Some(&MaskSource::Alpha) {
            photo.make_opaque(&mask);
        }
        Ok((Work::Holes(mask), "a mask".into()))
    }
}
