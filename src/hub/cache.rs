//! The folder that models are kept in, laid out as Python's `huggingface_hub` does, which shares it.
//!
//! | path in the cache | |
//! | --- | --- |
//! | `models--owner--repo/blobs/<etag>` | the contents; the etag is the SHA-256 of a large file, git's SHA-1 of a small one |
//! | `models--owner--repo/blobs/<etag>.incomplete` | what has arrived so far |
//! | `models--owner--repo/refs/<revision>` | the commit that a branch or tag stood for when it was fetched |
//! | `models--owner--repo/snapshots/<commit>/<file>` | links to the blobs |
//! | `.locks/models--owner--repo/<etag>.lock` | held while a blob is written |
//!
//! <https://huggingface.co/docs/huggingface_hub/guides/manage-cache>

use super::Repository;
use super::hash::is_hash;
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// A folder of models.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// What was taken out of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Files of snapshots.
    pub files: usize,
    /// What they took on the disk.
    pub bytes: u64,
}

impl Cache {
    /// The cache in this folder, which need not exist.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a repository.
    pub(super) fn repository(&self, repository: &Repository) -> PathBuf {
        self.root.join(repository.folder())
    }

    /// The file that is locked while the blob with this etag is written.
    #[cfg(feature = "hub")]
    pub(super) fn lock(&self, repository: &Repository, etag: &str) -> PathBuf {
        self.locks(repository).join(format!("{etag}.lock"))
    }

    fn locks(&self, repository: &Repository) -> PathBuf {
        self.root.join(".locks").join(repository.folder())
    }

    /// The commit that the repository's revision stands for here.
    pub fn commit(&self, repository: &Repository) -> Option<String> {
        let folder = self.repository(repository);
        let revision = repository.revision();
        if is_hash(revision, 40) && folder.join("snapshots").join(revision).is_dir() {
            return Some(revision.into());
        }
        let commit = fs::read_to_string(folder.join("refs").join(revision)).ok()?;
        let commit = commit.trim();
        is_hash(commit, 40).then(|| commit.to_owned())
    }

    /// The folder with the files of the repository at its revision.
    pub fn snapshot(&self, repository: &Repository) -> Option<PathBuf> {
        let commit = self.commit(repository)?;
        let folder = self.repository(repository).join("snapshots").join(commit);
        folder.is_dir().then_some(folder)
    }

    /// Takes `files` (all if `None`) of the snapshot `commit` (all if `None`) out, and the blobs that nothing needs any
    /// more.
    ///
    /// # Errors
    /// `Locked` if a process is fetching a file of the repository, `Io` for a folder that cannot be read or a file that
    /// cannot be removed.
    pub fn remove(&self, repository: &Repository, commit: Option<&str>, files: Option<&[String]>) -> Result<Removed> {
        let folder = self.repository(repository);
        // The files of the locks stay: who waits for one that is removed holds another one than who comes later.
        let _held = self.hold(repository)?;
        let before = size(&folder);
        let mut removed = Removed::default();
        for snapshot in read(&folder.join("snapshots"))? {
            if commit.is_some_and(|commit| snapshot.file_name().is_none_or(|name| name != commit)) {
                continue;
            }
            for file in tree(&snapshot)? {
                let name = file.strip_prefix(&snapshot).unwrap_or(&file);
                if files.is_none_or(|files| files.iter().any(|wanted| Path::new(wanted) == name)) {
                    fs::remove_file(&file).map_err(at(&file))?;
                    removed.files += 1;
                }
            }
            prune(&snapshot);
        }
        let snapshots = read(&folder.join("snapshots"))?;
        if snapshots.is_empty() {
            match fs::remove_dir_all(&folder) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(at(&folder)(source)),
                _ => {}
            }
        } else {
            Self::sweep(&folder, &snapshots)?;
        }
        removed.bytes = before.saturating_sub(size(&folder));
        Ok(removed)
    }

    /// Removes what none of a repository's snapshots needs.
    fn sweep(folder: &Path, snapshots: &[PathBuf]) -> Result<()> {
        for reference in tree(&folder.join("refs"))? {
            let commit = fs::read_to_string(&reference).unwrap_or_default();
            if !folder.join("snapshots").join(commit.trim()).is_dir() {
                fs::remove_file(&reference).map_err(at(&reference))?;
            }
        }
        let mut needed = BTreeSet::new();
        for snapshot in snapshots {
            needed.extend(tree(snapshot)?.into_iter().filter_map(|file| file.canonicalize().ok()));
        }
        for blob in read(&folder.join("blobs"))? {
            // Nobody knows to which of the models a beginning belongs.
            let begun = blob.extension().is_some_and(|ending| ending == "incomplete");
            if !begun && !blob.canonicalize().is_ok_and(|blob| needed.contains(&blob)) {
                fs::remove_file(&blob).map_err(at(&blob))?;
            }
        }
        Ok(())
    }

    /// The repository's locks, held as long as the files are open.
    fn hold(&self, repository: &Repository) -> Result<Vec<File>> {
        let mut held = Vec::new();
        for path in entries(&self.locks(repository)) {
            let Ok(file) = File::open(&path) else { continue };
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => return Err(Error::Locked { path, seconds: 0 }),
                // Not every file system has locks.
                Ok(()) | Err(TryLockError::Error(_)) => held.push(file),
            }
        }
        Ok(held)
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { path, source }
}

/// What is in a folder, sorted; nothing if it is none.
fn read(folder: &Path) -> Result<Vec<PathBuf>> {
    let found = match fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        found => found.map_err(at(folder))?,
    };
    let paths: io::Result<Vec<PathBuf>> = found.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(at(folder))?;
    paths.sort();
    Ok(paths)
}

/// What is in a folder, sorted; nothing if it cannot be read.
pub(super) fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(found) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = found.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

/// The files and links below a folder; links are not followed.
fn tree(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in read(folder)? {
        if path.symlink_metadata().is_ok_and(|data| data.is_dir()) {
            files.extend(tree(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

/// Bytes of the files below a folder, links not followed; what cannot be read counts nothing.
fn size(folder: &Path) -> u64 {
    let bytes = |path: PathBuf| match path.symlink_metadata() {
        Ok(data) if data.is_dir() => size(&path),
        Ok(data) if data.is_file() => data.len(),
        _ => 0,
    };
    entries(folder).into_iter().map(bytes).sum()
}

/// Removes the folders below and including this one that hold nothing.
fn prune(folder: &Path) {
    for path in entries(folder) {
        if path.symlink_metadata().is_ok_and(|data| data.is_dir()) {
            prune(&path);
        }
    }
    // Fails where something is left, which is what is meant.
    let _ = fs::remove_dir(folder);
}
