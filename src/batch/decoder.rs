//! The first stage: a photo's file becomes a photo and the work that is to be done with it.

use super::budget::{Budget, Loan};
use super::fitting::check_decoded;
use super::recipe::{Prepared, Recipe};
use super::record::LastMask;
use super::summary::Halt;
use super::{Item, MaskFile, Modified, sha256};
use crate::image::{DecodeOptions, ImageError, MaskSource, Photo};
use crate::{Error, Result};
use std::fs::{self, File};
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// What a file looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Bytes.
    pub(super) size: u64,
    /// When it was written last, where the system says.
    pub(super) modified: Option<Modified>,
}

impl Stamp {
    /// # Errors
    /// If there is no such file, or something else of this name: a pipe would block whoever opens it.
    pub(crate) fn of(path: &Path) -> Result<Self, ImageError> {
        let metadata = fs::metadata(path).map_err(|source| ImageError::Read { path: path.into(), source })?;
        if !metadata.is_file() {
            let kind = if metadata.is_dir() { "a folder" } else { "a pipe, a socket or a device" };
            return Err(ImageError::NotAFile { path: path.into(), kind });
        }
        Ok(Self { size: metadata.len(), modified: Modified::of(&metadata) })
    }

    /// Whether the file at `path` is still the one that was read.
    ///
    /// # Errors
    /// That it is not, and why.
    pub(super) fn check(&self, path: &Path) -> Result<()> {
        let what = match Self::of(path) {
            Ok(now) if now == *self => return Ok(()),
            Ok(_) => "changed",
            Err(_) => "deleted",
        };
        Err(Error::Config {
            name: path.display().to_string(),
            got: format!("{what} while it was being restored"),
            expected: "the same file until its output is written: run again".into(),
        })
    }
}

/// A photo's file as it was read.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) stamp: Stamp,
    /// Of the content, in hexadecimal.
    pub(super) sha256: String,
    /// The file of its mask, if it has one that can be read.
    pub(super) mask: Option<MaskFile>,
}

/// The file's content, and what is lent for it and for what is decoded of it.
#[derive(Debug)]
pub(super) struct Content<'a> {
    pub(super) source: Source,
    bytes: Vec<u8>,
    pub(super) memory: Memory<'a>,
}

/// Bytes that are lent for a photo before it is restored.
#[derive(Debug)]
pub(super) struct Memory<'a> {
    /// Of what is kept for photos that are decoded ahead.
    ahead: Loan<'a>,
    /// Of what photos are restored in, where a photo is so large that the other is too small.
    run: Option<Loan<'a>>,
}

impl<'a> Memory<'a> {
    /// What is lent for the run is now of `bytes`, and nothing is lent ahead.
    pub(super) fn into_run(self, bytes: u64, budget: &'a Budget, halt: &Halt<'_>) -> Result<Loan<'a>> {
        let Self { ahead, run } = self;
        let loan = match run {
            Some(mut loan) => budget.exchange(&mut loan, bytes, halt).map(|()| loan),
            None => budget.lend(bytes, halt),
        };
        drop(ahead);
        loan
    }
}

/// Bytes of a photo that is decoded, and of the measurement that is made of it: 16 bits of four channels twice while it is
/// turned upright, then `y`, a first guess and masks in single precision.
const BYTES_PER_PIXEL: u64 = 64;

/// Bytes of a photo's file and of what becomes of it before it is restored. What cannot be decoded costs nothing more; what is
/// wrong with it is said when that is tried.
pub(super) fn decoded_bytes(content: &[u8], path: &Path) -> u64 {
    let pixels = Photo::announced_pixels(content, path).ok().flatten().unwrap_or(0);
    (content.len() as u64).saturating_add(pixels.saturating_mul(BYTES_PER_PIXEL))
}

/// Reads and decodes.
#[derive(Debug)]
pub(super) struct Decoder<'a> {
    /// Bytes that the run may use, if they are limited.
    pub(super) memory: Option<u64>,
    /// Those of the program in it.
    pub(super) own: u64,
    /// For photos that wait to be restored.
    pub(super) ahead: &'a Budget,
    /// For photos that are being restored.
    pub(super) run: &'a Budget,
    pub(super) halt: &'a Halt<'a>,
    /// Whoever holds it is the only one who waits for memory while holding some.
    pub(super) gate: Mutex<()>,
    pub(super) mask: &'a LastMask,
}

impl<'a> Decoder<'a> {
    /// Reads a file, once there is memory for it and for what it becomes.
    ///
    /// # Errors
    /// `Image` if it cannot be read or is longer than `options` allow, `Memory` if it is too large, `Interrupted`.
    pub(super) fn read(&self, item: &Item, options: &DecodeOptions) -> Result<Content<'a>> {
        let path = &item.path();
        let turn = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.halt.check()?;
        let stamp = Stamp::of(path)?;
        options.check_length(path, stamp.size)?;
        let mut ahead = self.ahead.lend(self.at_most(stamp.size), self.halt)?;
        let mut bytes = Vec::with_capacity(usize::try_from(stamp.size).unwrap_or(0));
        let unreadable = |source| ImageError::Read { path: path.clone(), source };
        // A file that grows meanwhile is another one in the end: no more is read than there was.
        File::open(path).and_then(|file| file.take(stamp.size).read_to_end(&mut bytes)).map_err(unreadable)?;
        let needed = decoded_bytes(&bytes, path);
        check_decoded(needed, self.memory, self.own)?;
        self.ahead.exchange(&mut ahead, self.at_most(needed), self.halt)?;
        let more = needed - self.at_most(needed);
        let run = if more > 0 { Some(self.run.lend(more, self.halt)?) } else { None };
        drop(turn);
        let source = Source { stamp, sha256: sha256(&bytes), mask: self.mask_of(item) };
        Ok(Content { source, bytes, memory: Memory { ahead, run } })
    }

    /// What is wrong with a mask is said when it is used.
    fn mask_of(&self, item: &Item) -> Option<MaskFile> {
        let Some(MaskSource::File(path)) = item.mask.as_deref() else { return None };
        self.mask.file(path)
    }

    fn at_most(&self, bytes: u64) -> u64 {
        bytes.min(self.ahead.limit().unwrap_or(u64::MAX))
    }
}

impl<'a> Content<'a> {
    /// Decodes it and makes the work of it.
    ///
    /// # Errors
    /// Those of the recipe, and a panic in it.
    pub(super) fn prepare<'r>(self, item: &Item, recipe: &'r dyn Recipe) -> Result<(Prepared<'r>, Source, Memory<'a>)> {
        let prepared = guarded(item, || {
            let prepared = recipe.prepare(item, &self.bytes)?;
            // What cannot be written is not restored first.
            prepared.work.canvas(&prepared.photo).check_encode(prepared.format, &prepared.encoding)?;
            Ok(prepared)
        })?;
        Ok((prepared, self.source, self.memory))
    }
}

/// Does `work`, a panic of which costs the photo and not the program.
pub(super) fn guarded<T>(item: &Item, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let reason = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
            .unwrap_or_default();
        Err(Error::Panicked { photo: item.path(), reason })
    })
}
