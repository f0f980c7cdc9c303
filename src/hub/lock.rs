//! A file that only one process may write.

use super::pull::Event;
use crate::{Error, Result};
use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often it is looked whether the other process is done.
const PATIENCE: Duration = Duration::from_millis(200);

/// Held as long as the value lives.
///
/// It is the lock that Python's `filelock` takes, so the two programs wait for each other. The operating system releases it
/// when its process ends, however that happens.
#[derive(Debug)]
pub(super) struct Lock {
    _file: Option<File>,
}

impl Lock {
    /// Waits until no other process holds the lock on `path`, at most `limit`.
    ///
    /// # Errors
    /// `Locked` after that time; `Cache` with `needs` if there can be no such file; those of `tell`.
    pub(super) fn acquire(
        path: &Path,
        limit: Duration,
        needs: u64,
        tell: &mut dyn FnMut(Event<'_>) -> Result<()>,
    ) -> Result<Self> {
        let failed = |source: io::Error| Error::Cache { path: path.into(), needs, source };
        let file = File::options().write(true).create(true).truncate(false).open(path).map_err(failed)?;
        let begun = Instant::now();
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: Some(file) }),
                // Not every file system has locks. Two writers then cost a download, and the hash still decides.
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                    return Ok(Self { _file: None });
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) => {}
            }
            if !told {
                tell(Event::Waiting { lock: path, limit })?;
                told = true;
            }
            if begun.elapsed() >= limit {
                return Err(Error::Locked { path: path.into(), seconds: limit.as_secs() });
            }
            tell(Event::Idle)?;
            std::thread::sleep(PATIENCE);
        }
    }
}
