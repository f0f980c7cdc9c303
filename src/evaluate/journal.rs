//! Records on the disk: one line of JSON each, synced, so that a run that ends in any way goes on where it was.

use super::Record;
use crate::{Error, Result};
use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The records so far.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    records: HashMap<String, Record>,
    /// Lines that were no records.
    damaged: usize,
}

impl Journal {
    /// Opens or makes the file, for this process alone. What follows the last complete line is cut off: the process that
    /// wrote it was stopped.
    ///
    /// # Errors
    /// `Io` if the file cannot be read or written, `Config` if another process has it open.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |source| Error::Io { path: path.into(), source };
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Config {
                    name: path.display().to_string(),
                    got: "open in another process".into(),
                    expected: "one evaluation at a time; wait for the other, or name another output".into(),
                });
            }
            // Not every file system can lock.
            Err(TryLockError::Error(_)) => {}
        }
        let mut content = Vec::new();
        file.read_to_end(&mut content).map_err(failed)?;
        let complete = content.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        file.set_len(complete as u64).map_err(failed)?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        let mut records = HashMap::new();
        let mut damaged = 0;
        for line in content[..complete].split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice::<Record>(line) {
                Ok(record) => drop(records.insert(record.key.clone(), record)),
                Err(_) => damaged += 1,
            }
        }
        Ok(Self { path: path.into(), file, records, damaged })
    }

    /// The record with this key.
    pub fn get(&self, key: &str) -> Option<&Record> {
        self.records.get(key)
    }

    /// How many lines were no records, and are done again.
    pub fn damaged(&self) -> usize {
        self.damaged
    }

    /// Forgets all records.
    ///
    /// # Errors
    /// `Io` if the file cannot be written.
    pub fn clear(&mut self) -> Result<()> {
        self.records.clear();
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map(drop).map_err(|source| Error::Io { path: self.path.clone(), source })
    }

    /// Adds a record, and returns when it is on the disk.
    ///
    /// # Errors
    /// `Io` if it cannot be written.
    pub fn append(&mut self, record: Record) -> Result<()> {
        let failed = |source| Error::Io { path: self.path.clone(), source };
        let mut line = serde_json::to_vec(&record).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        self.file.write_all(&line).and_then(|()| self.file.sync_data()).map_err(failed)?;
        self.records.insert(record.key.clone(), record);
        Ok(())
    }
}
