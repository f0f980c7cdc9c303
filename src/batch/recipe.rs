//! What is made of every photo.

use super::Item;
use crate::image::{DecodeOptions, EncodeOptions, OutputFormat, Photo};
use crate::{RestoreOptions, Result, Work};
use std::time::Duration;

/// What a run makes of its photos.
///
/// # Laws
/// * all methods depend on the item and on the content of its files alone, not on what came before or runs beside.
pub trait Recipe: Sync {
    /// Hash of all that decides the bytes of the item's outputs, but for the photo, the model and the seed.
    ///
    /// # Errors
    /// What is wrong with the settings of this photo, which then fails.
    fn options_hash(&self, item: &Item) -> Result<String>;

    /// How much is accepted of a photo's file, which is not read if it is longer; by default the usual.
    ///
    /// # Errors
    /// As [`options_hash`](Self::options_hash).
    fn decoding(&self, _item: &Item) -> Result<DecodeOptions> {
        Ok(DecodeOptions::default())
    }

    /// Decodes a photo, and says what is to be done with it.
    ///
    /// # Errors
    /// What is wrong with the photo, its mask or its own settings: that photo then fails.
    fn prepare(&self, item: &Item, content: &[u8]) -> Result<Prepared<'_>>;
}

/// A photo that is decoded, and what is to be done with it.
#[derive(Debug)]
pub struct Prepared<'a> {
    /// The photo.
    pub photo: Photo,
    /// What is to be done.
    pub work: Work,
    /// What was done, for the outputs' metadata: `inpaint`, `deblur (blur disk:2, …)`.
    pub command: String,
    /// How; the pipeline sets memory and deadline.
    pub options: RestoreOptions<'a>,
    /// How long this photo may take: the fewer noise levels, the shorter; `None` is no limit.
    pub time_limit: Option<Duration>,
    /// The format of samples, mean and spread.
    pub format: OutputFormat,
    /// How they are encoded; what they say of how they were made is added.
    pub encoding: EncodeOptions,
}
