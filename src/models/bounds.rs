//! What the numbers of a configuration can be: a file is not to be trusted, and these bound memory and time before anything is
//! built of it.

use super::Family;
use std::fmt::Debug;
use std::ops::RangeInclusive;

// Larger than in any network that has been published, and small enough for the description of one to be.
pub(super) const MOST_LEVELS: usize = 16;
/// Of all levels together.
pub(super) const MOST_BLOCKS: usize = 128;
pub(super) const MOST_CHANNELS: usize = 1 << 13;
pub(super) const MOST_CLASSES: usize = 1 << 20;
/// Levels of a training process.
pub(super) const MOST_STEPS: usize = 100_000;
pub(super) const LARGEST_IMAGE: usize = 1 << 16;

impl Family {
    /// The error for a field that says what cannot be built; `can` is what can.
    pub(super) fn refuse<T>(&self, field: &str, got: &dyn Debug, can: &str) -> Result<T, String> {
        Err(format!("{} with {field} = {got:?} cannot be built, only {can}", self.name))
    }

    /// `got`, if it is one of `range`.
    ///
    /// # Errors
    /// A sentence with the field, the number and what it can be.
    pub(super) fn within(&self, field: &str, got: usize, range: RangeInclusive<usize>) -> Result<usize, String> {
        match range.contains(&got) {
            true => Ok(got),
            false => Err(format!("{} with {field} = {got}, expected {} to {}", self.name, range.start(), range.end())),
        }
    }
}

/// What a file says of the size of a U-Net.
#[derive(Debug)]
pub(super) struct Extent<'a> {
    pub(super) image_channels: usize,
    pub(super) image_size: usize,
    /// Channels of the first level, and what they are multiplied by in each.
    pub(super) channels: usize,
    pub(super) multipliers: &'a [usize],
    pub(super) blocks: usize,
}

impl Extent<'_> {
    /// Whether it is one that can be.
    ///
    /// # Errors
    /// A sentence with the number and what it can be.
    pub(super) fn check(&self, family: &Family) -> Result<(), String> {
        family.within("image channels", self.image_channels, 1..=MOST_CHANNELS)?;
        family.within("image size", self.image_size, 1..=LARGEST_IMAGE)?;
        family.within("number of levels", self.multipliers.len(), 1..=MOST_LEVELS)?;
        let blocks = self.blocks.saturating_mul(self.multipliers.len());
        family.within("blocks of all levels", blocks, 1..=MOST_BLOCKS)?;
        family.within("channels of the first level", self.channels, 1..=MOST_CHANNELS)?;
        for &multiplier in self.multipliers {
            family.within("channels of a level", self.channels.saturating_mul(multiplier), 1..=MOST_CHANNELS)?;
        }
        match self.channels.is_multiple_of(2) {
            true => Ok(()),
            false => Err(format!("{} with {} channels, expected an even number", family.name, self.channels)),
        }
    }

    /// Side of the image at a level.
    pub(super) fn side(&self, level: usize) -> usize {
        self.image_size >> level
    }
}
