//! The manifests of all shards in one.

use super::index::Damaged;
use super::manifest::write_lines;
use super::{Status, folder, status};
use crate::Result;
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
    /// Lines that were no records, and are not in it.
    pub damaged: Vec<Damaged>,
}

/// Writes `OUT/manifest.jsonl`: the newest record of every photo, of all shards and runs, sorted by relative path. Lines are
/// copied byte for byte; the manifests stay. The file is old or new at every moment.
///
/// What any division into shards leaves is the same, but for times, as what one run leaves.
///
/// # Errors
/// [`BatchError::NoRecord`](super::BatchError::NoRecord) if `out` is no output folder of a batch; `Io`;
/// [`BatchError::LaterVersion`](super::BatchError::LaterVersion).
pub fn merge(out: &Path) -> Result<Merged> {
    let index = status::read(out)?;
    let places = index.sorted(|_| true);
    let path = folder::merged(out);
    write_lines(&path, &index, &places)?;
    let done = places.iter().filter(|place| place.status == Status::Done).count();
    Ok(Merged { path, done, failed: places.len() - done, damaged: index.damaged })
}
