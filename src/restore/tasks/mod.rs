//! What is wanted of a photo, written down: one type per task, with the settings that its command has as flags.

mod colorize;
mod deblur;
mod denoise;
mod inpaint;
mod noise;
mod restore;
mod upscale;

use super::Work;
use crate::image::{DecodeOptions, ImageError, MaskSource, Photo};
use crate::{Catalog, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

pub use colorize::Colorize;
pub use deblur::{BlurKernel, Deblur};
pub use denoise::Denoise;
pub use inpaint::{Inpaint, MaskResize};
pub use noise::NoiseLevel;
pub use restore::Restore;
pub use upscale::Upscale;

/// What is wanted of a photo.
///
/// As TOML it is a table whose `task` is the name, with the settings of that task beside it:
///
/// ```
/// let task: tweedie::Task = toml::from_str("task = 'upscale'\nscale = 4\nnoise = 'auto'")?;
/// assert_eq!(task.name(), "upscale");
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "snake_case")]
pub enum Task {
    /// Fill the pixels of a mask.
    Inpaint(Inpaint),
    /// Give a grey photo colours.
    Colorize(Colorize),
    /// Make a photo larger.
    Upscale(Upscale),
    /// Sharpen a photo whose blur is known.
    Deblur(Deblur),
    /// Take noise out of a photo.
    Denoise(Denoise),
    /// Undo any damage that a file describes.
    Restore(Restore),
}

impl Task {
    /// The names of all tasks, which are also those of the commands.
    pub const NAMES: [&str; 6] = ["inpaint", "colorize", "upscale", "deblur", "denoise", "restore"];

    /// The name of this one.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Inpaint(_) => "inpaint",
            Self::Colorize(_) => "colorize",
            Self::Upscale(_) => "upscale",
            Self::Deblur(_) => "deblur",
            Self::Denoise(_) => "denoise",
            Self::Restore(_) => "restore",
        }
    }

    /// The file that is read beside every photo, if there is one: hints, a kernel, an operator.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Colorize(task) => task.hints.as_deref(),
            Self::Deblur(task) => task.kernel.file(),
            Self::Restore(task) => task.operator.as_deref(),
            Self::Inpaint(_) | Self::Upscale(_) | Self::Denoise(_) => None,
        }
    }

    /// Refuses what can be refused before there is a photo.
    ///
    /// # Errors
    /// `Image` for a file that is not there, `Operator` for a description that is none, `Config` for a setting out of range.
    pub fn check(&self) -> Result<()> {
        if let Some(path) = self.file()
            && let Err(source) = path.metadata()
        {
            return Err(ImageError::Read { path: path.into(), source }.into());
        }
        match self {
            Self::Inpaint(task) => task.check(),
            Self::Upscale(task) => task.check(),
            Self::Restore(task) => task.check(),
            Self::Colorize(_) | Self::Deblur(_) | Self::Denoise(_) => Ok(()),
        }
    }

    /// What is to be done with a photo, and what the photo is taken for in a few words.
    ///
    /// `mask` is of meaning for [`Task::Inpaint`] only; `decode` says how much is accepted of the files that are read beside
    /// the photo. The photo is changed where its own transparency is the mask: it becomes opaque there.
    ///
    /// # Errors
    /// `Image` for files that cannot be read or do not fit the photo, `Operator` and `Config` for settings that do not.
    pub fn work(
        &self,
        photo: &mut Photo,
        mask: Option<&MaskSource>,
        decode: DecodeOptions,
        catalog: &Catalog,
    ) -> Result<(Work, String)> {
        match self {
            Self::Inpaint(task) => task.work(photo, mask, decode),
            Self::Colorize(task) => task.work(photo, decode),
            Self::Upscale(task) => task.work(photo),
            Self::Deblur(task) => task.work(photo),
            Self::Denoise(task) => task.work(photo),
            Self::Restore(task) => task.work(photo, catalog),
        }
    }
}
