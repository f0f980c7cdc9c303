//! What settings make of every photo, with those of the file beside it.

use super::recipe::{Prepared, Recipe};
use super::{Item, Layer, Settings};
use crate::image::{DecodeOptions, Photo};
use crate::models::Model;
use crate::{Catalog, Result, Work};
use std::borrow::Cow;

/// The recipe of a run: its settings, which the file beside a photo (`cat.jpg.tweedie.toml` for `cat.jpg`) changes for that
/// photo.
#[derive(Debug)]
pub struct BySettings<'a> {
    /// Those of the run.
    pub settings: &'a Settings,
    /// The prior, which stands in the hash of the options.
    pub model: &'a Model,
    /// What the settings can name.
    pub catalog: &'a Catalog,
}

impl BySettings<'_> {
    /// The settings of one photo.
    ///
    /// # Errors
    /// As [`Layer::read`] and [`Settings::with`].
    pub fn settings(&self, item: &Item) -> Result<Cow<'_, Settings>> {
        let Some(path) = item.sidecar() else { return Ok(Cow::Borrowed(self.settings)) };
        let settings = self.settings.with(&Layer::read(&path)?)?;
        settings.check_with(self.catalog)?;
        Ok(Cow::Owned(settings))
    }
}

impl Recipe for BySettings<'_> {
    fn options_hash(&self, item: &Item) -> Result<String> {
        self.settings(item)?.hash(item.mask.as_deref(), self.model)
    }

    fn decoding(&self, item: &Item) -> Result<DecodeOptions> {
        Ok(self.settings(item)?.decoding())
    }

    fn prepare(&self, item: &Item, content: &[u8]) -> Result<Prepared<'_>> {
        let settings = self.settings(item)?;
        let (decoding, encoding) = (settings.decoding(), settings.encoding()?);
        let format = settings.writing.format;
        let mut photo = Photo::decode(content, &item.path(), &decoding)?;
        photo.check_encode(format, &encoding)?;
        let (work, told) = settings.task.work(&mut photo, item.mask.as_deref(), decoding, self.catalog)?;
        work.canvas(&photo).check_encode(format, &encoding)?;
        let name = settings.task.name();
        let command = match &work {
            Work::Holes(_) => name.into(),
            Work::Whole(_) => format!("{name} ({told})"),
        };
        Ok(Prepared {
            photo,
            work,
            command,
            options: settings.options(item.seed, self.catalog),
            time_limit: settings.photo_time_limit(),
            format,
            encoding,
        })
    }
}
