//! The manifests of all shards in one.

use super::index::Damaged;
use super::manifest::write_lines;
use super::{BatchError, Content, Lines, Status, folder, status};
use crate::{Error, Result};
use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::{Path, PathBuf};

/// What was merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The file with all records.
    pub path: PathBuf,
    /// Photos in it whose outputs are on the disk.
    pub done: usize,
    /// Photos in it that failed.
    pub failed: usize,
    /// Photos that were planned and are not in it: their shards are not done, or lie elsewhere.
    pub missing: usize,
    /// Lines that were no records, and are not in it.
    pub damaged: Vec<Damaged>,
}

/// Writes `OUT/manifest.jsonl`: the newest record of every photo, of all shards and runs, sorted by relative path. Lines are
/// copied byte for byte; the manifests stay. The file is old or new at every moment.
///
/// What any division into shards leaves is the same, but for times, as what one run leaves.
///
/// # Errors
/// [`BatchError::NoRecord`] if `out` is no output folder of a batch; [`BatchError::NotMerged`] if the file holds something else
/// than records; `Io`; [`BatchError::LaterVersion`].
pub fn merge(out: &Path) -> Result<Merged> {
    let path = folder::merged(out);
    let index = status::read(out)?;
    check_replaceable(&path)?;
    let progress = status::status(out)?;
    let places = index.sorted(|_| true);
    write_lines(&path, &index, &places)?;
    let done = places.iter().filter(|place| place.status == Status::Done).count();
    let missing = (progress.planned + progress.unplanned).saturating_sub(places.len());
    Ok(Merged { path, done, failed: places.len() - done, missing, damaged: index.damaged })
}

/// A file that begins with a record, or holds nothing, is of an earlier merge.
fn check_replaceable(path: &Path) -> Result<()> {
    let refuse = || Err(BatchError::NotMerged { path: path.into() }.into());
    let failed = |source| Error::Io { path: path.into(), source };
    match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(failed(source)),
        Ok(metadata) if !metadata.is_file() => return refuse(),
        Ok(_) => {}
    }
    let file = File::open(path).map_err(failed)?;
    match Lines::new(BufReader::new(file)).next().transpose().map_err(failed)?.map(|line| line.content) {
        None | Some(Content::Record(_) | Content::Later(_)) => Ok(()),
        Some(Content::Damaged(_) | Content::Torn) => refuse(),
    }
}
