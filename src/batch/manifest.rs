//! The record of a shard (for the time being).

use super::Record;
use crate::{Error, Result};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Lines of records.
#[derive(Debug)]
pub struct Manifest {
    file: File,
    path: PathBuf,
    staging: PathBuf,
}

impl Manifest {
    /// Opens it.
    ///
    /// # Errors
    /// `Io`.
    pub fn open(out: &Path) -> Result<Self> {
        let path = out.join(".tweedie/manifest/all.jsonl");
        let failed = |source| Error::Io { path: path.clone(), source };
        std::fs::create_dir_all(out.join(".tweedie/manifest")).map_err(failed)?;
        let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
        Ok(Self { file, path: path.clone(), staging: out.join(".tweedie/parts/all") })
    }

    pub(super) fn staging(&self) -> PathBuf {
        self.staging.clone()
    }

    pub(super) fn append<'a>(&mut self, records: impl Iterator<Item = &'a Record>) -> Result<()> {
        let failed = |source| Error::Io { path: self.path.clone(), source };
        let mut lines = Vec::new();
        for record in records {
            serde_json::to_writer(&mut lines, record).map_err(|error| failed(error.into()))?;
            lines.push(b'\n');
        }
        self.file.write_all(&lines).and_then(|()| self.file.sync_data()).map_err(failed)
    }
}
