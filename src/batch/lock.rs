//! Who works on an output folder.

use super::{Shard, folder};
use crate::image::write_atomically;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often it is looked whether the others are done.
const PATIENCE: Duration = Duration::from_millis(200);

/// "No locks available", of Linux.
const ENOLCK: i32 = 37;

/// The right to work on an output folder: of one process alone, or of different shards of one division.
///
/// The operating system takes it back when the process ends, however that happens. Where a file system has no locks,
/// [`FolderLock::is_held`] is false and the work goes on: two runs then cost double work, while every file still appears
/// whole.
///
/// `lock` is held exclusively by a run of everything, and shared by shards, each of which holds `lock-<shard>` exclusively.
/// Which division the shards are of stands in `holder`; it is read and written under `lock-gate`, which is held for that
/// moment only.
#[derive(Debug)]
pub struct FolderLock {
    out: PathBuf,
    shard: Shard,
    held: Vec<File>,
}

/// Who works on the folder, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    division: String,
    process: u32,
}

/// What is told while a process waits: once, and then several times a second.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// The output folder.
    pub out: PathBuf,
    /// The process that came first, if it is known.
    pub process: Option<u32>,
    /// Whether this is told for the first time.
    pub is_first: bool,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.process {
            Some(process) => write!(f, "process {process} works on {}", self.out.display()),
            None => write!(f, "another process works on {}", self.out.display()),
        }?;
        f.write_str("; waiting until it is done")
    }
}

enum Attempt {
    Held(Vec<File>),
    Busy,
}

impl FolderLock {
    /// Waits until nobody works on `out` who must not beside `shard`, at most `limit`. `tell` is called while waiting, and its
    /// error ends that.
    ///
    /// # Errors
    /// `Locked` after `limit`; `Io` if the files of the lock cannot be made; those of `tell`.
    pub fn acquire(
        out: &Path,
        shard: Shard,
        limit: Duration,
        tell: &mut dyn FnMut(&Waiting) -> Result<()>,
    ) -> Result<Self> {
        let state = folder::state(out);
        folder::make(&state)?;
        let begun = Instant::now();
        let mut is_first = true;
        loop {
            match attempt(&state, shard)? {
                Attempt::Held(held) => {
                    if shard == Shard::All && !held.is_empty() {
                        folder::remove_incomplete(out);
                    }
                    return Ok(Self { out: out.into(), shard, held });
                }
                Attempt::Busy if begun.elapsed() >= limit => {
                    return Err(Error::Locked { path: state.join("lock"), seconds: limit.as_secs() });
                }
                Attempt::Busy => {}
            }
            let process = holder(&state).map(|holder| holder.process);
            tell(&Waiting { out: out.into(), process, is_first })?;
            is_first = false;
            std::thread::sleep(PATIENCE.min(limit.saturating_sub(begun.elapsed())));
        }
    }

    /// The output folder.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// Whose part of the work is locked.
    pub fn shard(&self) -> Shard {
        self.shard
    }

    /// False where the file system has no locks.
    pub fn is_held(&self) -> bool {
        !self.held.is_empty()
    }
}

fn holder(state: &Path) -> Option<Holder> {
    serde_json::from_slice(&fs::read(state.join("holder")).ok()?).ok()
}

fn attempt(state: &Path, shard: Shard) -> Result<Attempt> {
    let open = |name: &str| {
        let path = state.join(name);
        // Over NFS, a shared lock needs a file that can be read, an exclusive one a file that can be written.
        let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        opened.map(|file| (file, path.clone())).map_err(|source| Error::Io { path, source })
    };
    // Not every file system has locks, nor every NFS its lock daemon.
    let is_unsupported = |error: &io::Error| {
        let has_no_daemon = cfg!(target_os = "linux") && error.raw_os_error() == Some(ENOLCK);
        has_no_daemon || error.kind() == io::ErrorKind::Unsupported
    };
    let (gate, path) = open("lock-gate")?;
    match gate.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Attempt::Busy),
        Err(TryLockError::Error(error)) if is_unsupported(&error) => return Ok(Attempt::Held(Vec::new())),
        Err(TryLockError::Error(source)) => return Err(Error::Io { path, source }),
    }
    let (lock, path) = open("lock")?;
    let failed = |source| Error::Io { path: path.clone(), source };
    match lock.try_lock() {
        Ok(()) => {
            let holder = Holder { division: shard.division(), process: std::process::id() };
            let holder = serde_json::to_vec(&holder).map_err(|error| failed(error.into()))?;
            write_atomically(&state.join("holder"), &holder, true)?;
            if shard == Shard::All {
                return Ok(Attempt::Held(vec![lock]));
            }
            // Whether a lock can change its kind differs between systems. Nobody comes in between: the gate is closed.
            lock.unlock().map_err(failed)?;
        }
        Err(TryLockError::WouldBlock) => {
            let is_ours = holder(state).is_some_and(|holder| holder.division == shard.division());
            if shard == Shard::All || !is_ours {
                return Ok(Attempt::Busy);
            }
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    match lock.try_lock_shared() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Attempt::Busy),
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    let (own, path) = open(&format!("lock-{}", shard.name()))?;
    match own.try_lock() {
        Ok(()) => Ok(Attempt::Held(vec![lock, own])),
        Err(TryLockError::WouldBlock) => Ok(Attempt::Busy),
        Err(TryLockError::Error(source)) => Err(Error::Io { path, source }),
    }
}
