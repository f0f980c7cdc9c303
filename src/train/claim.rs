//! A run's folder, to be written by one process at a time.

use crate::{Error, Result};
use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

/// Holds the folder until it is dropped, or the process ends in any way.
#[derive(Debug)]
pub(super) struct Claim {
    _lock: File,
}

/// Beside the log; it stays.
const NAME: &str = ".lock";

impl Claim {
    /// Takes the folder, and clears away temporary files of processes that were killed while they wrote.
    ///
    /// # Errors
    /// `Config` if another process is at work there; `Io` if there can be no lock.
    pub(super) fn of(folder: &Path) -> Result<Self> {
        let path = folder.join(NAME);
        let failed = |source| Error::Io { path: path.clone(), source };
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Error::Config {
                name: format!("folder {}", folder.display()),
                got: "one that another process trains in".into(),
                expected: "another folder, or to wait until that process has ended".into(),
            },
            TryLockError::Error(source) => failed(source),
        })?;
        let failed = |source| Error::Io { path: folder.into(), source };
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(".tweedie-") && name.ends_with(".part") {
                std::fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(Self { _lock: lock })
    }
}
