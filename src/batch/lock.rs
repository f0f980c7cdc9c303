//! Who works on an output folder.

use super::{BatchError, Shard, folder};
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
/// The operating system takes it back when the process ends, however that happens. Where a file system has no locks, two runs
/// would remove each other's unfinished outputs and tear each other's records: only who knows that nobody else works there
/// goes on, with [`FolderLock::alone`].
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
    /// The file system has no locks.
    Impossible,
}

/// How a file is locked.
type TryLock = fn(&File) -> Result<(), TryLockError>;

impl FolderLock {
    /// Waits until nobody works on `out` who must not beside `shard`, at most `limit`. `tell` is called while waiting, and its
    /// error ends that.
    ///
    /// # Errors
    /// [`BatchError::NoLocks`] where the file system has none; `Locked` after `limit`; `Io` if the files of the lock cannot be
    /// made; those of `tell`.
    pub fn acquire(
        out: &Path,
        shard: Shard,
        limit: Duration,
        tell: &mut dyn FnMut(&Waiting) -> Result<()>,
    ) -> Result<Self> {
        Self::acquire_by(File::try_lock, out, shard, limit, tell)
    }

    fn acquire_by(
        try_lock: TryLock,
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
            match attempt(try_lock, out, shard)? {
                Attempt::Held(held) => return Ok(Self { out: out.into(), shard, held }),
                Attempt::Impossible => return Err(BatchError::NoLocks { path: out.into() }.into()),
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

    /// The right to work on `out` without a lock, on the word of who knows that nobody else works there.
    ///
    /// # Errors
    /// `Io` if the folder of the record cannot be made.
    pub fn alone(out: &Path, shard: Shard) -> Result<Self> {
        folder::make(&folder::state(out))?;
        folder::remove_incomplete(out);
        Ok(Self { out: out.into(), shard, held: Vec::new() })
    }

    /// The output folder.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// Whose part of the work is locked.
    pub fn shard(&self) -> Shard {
        self.shard
    }

    /// False for who works without a lock.
    pub fn is_held(&self) -> bool {
        !self.held.is_empty()
    }
}

fn holder(state: &Path) -> Option<Holder> {
    serde_json::from_slice(&fs::read(state.join("holder")).ok()?).ok()
}

fn attempt(try_lock: TryLock, out: &Path, shard: Shard) -> Result<Attempt> {
    let state = &folder::state(out);
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
    match try_lock(&gate) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Attempt::Busy),
        Err(TryLockError::Error(error)) if is_unsupported(&error) => return Ok(Attempt::Impossible),
        Err(TryLockError::Error(source)) => return Err(Error::Io { path, source }),
    }
    let (lock, path) = open("lock")?;
    let failed = |source| Error::Io { path: path.clone(), source };
    match try_lock(&lock) {
        Ok(()) => {
            // Nobody else works here now, whatever the division.
            folder::remove_incomplete(out);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_locks_must_say_that_nobody_else_works_there() {
        let folder = tempfile::tempdir().unwrap();
        let acquire = |try_lock: TryLock| {
            FolderLock::acquire_by(try_lock, folder.path(), Shard::All, Duration::ZERO, &mut |_| Ok(()))
        };
        let kinds: [TryLock; 2] = [
            |_| Err(TryLockError::Error(io::Error::from_raw_os_error(ENOLCK))),
            |_| Err(TryLockError::Error(io::ErrorKind::Unsupported.into())),
        ];
        for try_lock in &kinds[usize::from(!cfg!(target_os = "linux"))..] {
            let error = acquire(*try_lock).unwrap_err();
            assert!(error.to_string().ends_with("--no-lock goes on if no other process works there"), "{error}");
        }
        let broken = acquire(|_| Err(TryLockError::Error(io::ErrorKind::PermissionDenied.into()))).unwrap_err();
        assert!(matches!(broken, Error::Io { .. }), "{broken}");
        assert!(!FolderLock::alone(folder.path(), Shard::All).unwrap().is_held());
        assert!(acquire(File::try_lock).unwrap().is_held());
    }

    #[test]
    fn what_a_killed_process_left_unfinished_is_removed_by_any_division() {
        let folder = tempfile::tempdir().unwrap();
        let acquire =
            |shard| FolderLock::acquire(folder.path(), shard, Duration::from_secs(60), &mut |_| Ok(())).unwrap();
        let half = Shard::Hash { index: 1, count: 2 };
        let third = Shard::Hash { index: 2, count: 3 };
        for (left, next) in [(half, Shard::All), (Shard::All, half), (half, third)] {
            let parts = folder::parts(folder.path(), left);
            fs::create_dir_all(&parts).unwrap();
            fs::write(parts.join("0.part"), "half").unwrap();
            drop(acquire(next));
            assert!(!parts.exists(), "{left} {next}");
        }
        // Those of a process that is at work stay.
        let held = acquire(half);
        let parts = folder::parts(folder.path(), half);
        fs::create_dir_all(&parts).unwrap();
        fs::write(parts.join("0.part"), "half").unwrap();
        drop(acquire(Shard::Hash { index: 2, count: 2 }));
        assert!(parts.join("0.part").exists());
        drop(held);
    }
}
