//! The output folder and where the record lies in it.

use super::{BatchError, Shard};
use crate::{Error, Result};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The folder of the record.
pub(super) const STATE: &str = ".tweedie";

pub(super) fn state(out: &Path) -> PathBuf {
    out.join(STATE)
}

pub(super) fn manifests(out: &Path) -> PathBuf {
    state(out).join("manifest")
}

pub(super) fn plans(out: &Path) -> PathBuf {
    state(out).join("plan")
}

/// The folder of a shard's outputs that are not complete.
pub(super) fn parts(out: &Path, shard: Shard) -> PathBuf {
    state(out).join("parts").join(shard.name())
}

pub(super) fn merged(out: &Path) -> PathBuf {
    out.join("manifest.jsonl")
}

/// Removes what killed processes left half written of outputs and record; only for who works on the folder alone.
pub(super) fn remove_incomplete(out: &Path) {
    for folder in [state(out), manifests(out), plans(out)] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            if name.starts_with(b".tweedie-") && name.ends_with(b".part") {
                // Litter is no reason to stop: the next run tries again.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
    for shard in fs::read_dir(state(out).join("parts")).into_iter().flatten().flatten() {
        for entry in fs::read_dir(shard.path()).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "part") {
                let _ = fs::remove_file(entry.path());
            }
        }
        // It stays if something else lies in it.
        let _ = fs::remove_dir(shard.path());
    }
}

/// The shards that have a file in `folder`, with it, sorted by name; none if there is no such folder.
pub(super) fn shards(folder: &Path) -> Result<Vec<(Shard, PathBuf)>> {
    let failed = |source| Error::Io { path: folder.into(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".jsonl"));
        if let Some(shard) = name.and_then(Shard::from_name) {
            found.push((shard, path));
        }
    }
    found.sort_by(|(_, one), (_, other)| one.cmp(other));
    Ok(found)
}

/// Makes sure that a batch can write into `out`, before anything expensive begins. With `create`, `out` is made if only it is
/// missing.
///
/// # Errors
/// [`BatchError::OutputFolder`] if it is a file, lies in a folder that is not there, or takes no files.
pub fn check_output_folder(out: &Path, create: bool) -> Result<()> {
    let refuse = |reason: String| Err(BatchError::OutputFolder { path: out.into(), reason }.into());
    let probed = match out.metadata() {
        Ok(metadata) if !metadata.is_dir() => return refuse("is a file, expected a folder for the outputs".into()),
        Ok(_) => out,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if out.symlink_metadata().is_ok() {
                return refuse("is a link to what is not there".into());
            }
            let parent = match out.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            match parent.metadata() {
                Ok(metadata) if metadata.is_dir() => {}
                Ok(_) => return refuse(format!("cannot be made, {} is a file", parent.display())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let shown = parent.display();
                    return refuse(format!("cannot be made, {shown} does not exist; mkdir -p {shown} makes it"));
                }
                Err(error) => return refuse(format!("cannot be made in {}: {error}", parent.display())),
            }
            match create {
                false => parent,
                true => match fs::create_dir(out) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return refuse(format!("cannot be made: {error}"));
                    }
                    _ => out,
                },
            }
        }
        Err(error) => return refuse(format!("cannot be used: {error}")),
    };
    // Permission bits do not tell all (owner, read-only mounts): only a file without a name does.
    match tempfile::tempfile_in(probed) {
        Ok(_) => Ok(()),
        Err(error) => refuse(format!("{} takes no files: {error}", probed.display())),
    }
}

/// Makes `folder` and those it lies in.
pub(super) fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|source| Error::Io { path: folder.into(), source })
}

/// Makes the names in a folder durable; not every file system can.
pub(super) fn sync(folder: &Path) -> Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match fs::File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied) => {
            Err(Error::Io { path: folder.into(), source: error })
        }
        _ => Ok(()),
    }
}
