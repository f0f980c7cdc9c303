//! Where the record of every photo lies, over several manifests.

use super::lines::{Content, Lines};
use super::{BatchError, Record, Status, record, relative};
use crate::{Error, Result};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A line of a manifest that is no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// The manifest.
    pub path: PathBuf,
    /// Where the line begins, in bytes.
    pub offset: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// The newest record of every photo, by where it lies: a hundred bytes a photo, whatever the records hold.
#[derive(Debug, Default)]
pub(super) struct Index {
    sources: Vec<(PathBuf, File)>,
    places: HashMap<Box<[u8]>, Place>,
    pub(super) damaged: Vec<Damaged>,
}

/// Where a record lies, and what is asked of it most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) source: usize,
    offset: u64,
    length: u32,
    finished: u64,
    pub(super) status: Status,
}

impl Index {
    /// Reads a manifest; returns its number and its length up to the last complete line. Records of the same photo: in one
    /// file the later line counts, of two files what was finished later, and at the same time what is done.
    pub(super) fn read(&mut self, path: &Path, file: File) -> Result<(usize, u64)> {
        let failed = |source| Error::Io { path: path.into(), source };
        let source = self.sources.len();
        let mut complete = 0;
        for line in Lines::new(BufReader::with_capacity(1 << 16, &file)) {
            let line = line.map_err(failed)?;
            match line.content {
                Content::Torn => break,
                Content::Record(record) => self.add(source, line.offset, line.length, &record),
                Content::Damaged(reason) => {
                    self.damaged.push(Damaged { path: path.into(), offset: line.offset, reason });
                }
                Content::Later(schema) => {
                    return Err(BatchError::LaterVersion { path: path.into(), schema, known: record::SCHEMA }.into());
                }
            }
            complete = line.offset + line.length;
        }
        self.sources.push((path.into(), file));
        Ok((source, complete))
    }

    /// Opens and reads a manifest that others may be writing.
    pub(super) fn read_path(&mut self, path: &Path) -> Result<()> {
        match File::open(path) {
            Ok(file) => self.read(path, file).map(drop),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(Error::Io { path: path.into(), source }),
        }
    }

    /// Makes room for so many photos at once: growing on the way would need both tables for a moment, each time.
    pub(super) fn reserve(&mut self, photos: usize) {
        self.places.reserve(photos.saturating_sub(self.places.len()));
    }

    /// Notes a record that lies there.
    pub(super) fn add(&mut self, source: usize, offset: u64, length: u64, record: &Record) {
        let Ok(length) = u32::try_from(length) else { return };
        let place = Place { source, offset, length, finished: record.finished, status: record.status };
        match self.places.entry(relative::key(record.input.path()).into()) {
            Entry::Vacant(entry) => drop(entry.insert(place)),
            Entry::Occupied(mut entry) => {
                let rank = |place: &Place| (place.finished, place.status == Status::Done);
                if entry.get().source == source || rank(&place) >= rank(entry.get()) {
                    entry.insert(place);
                }
            }
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Place> {
        self.places.get(key).copied()
    }

    /// All photos with their places, in no order.
    pub(super) fn places(&self) -> impl Iterator<Item = (&[u8], Place)> {
        self.places.iter().map(|(key, place)| (&**key, *place))
    }

    /// Where the records of the photos for which `wanted` holds lie, sorted by relative path.
    pub(super) fn sorted(&self, wanted: impl Fn(Place) -> bool) -> Vec<Place> {
        let mut found: Vec<_> = self.places().filter(|(_, place)| wanted(*place)).collect();
        found.sort_unstable_by_key(|(key, _)| *key);
        found.into_iter().map(|(_, place)| place).collect()
    }

    /// The bytes of a line, with its line feed.
    pub(super) fn line(&self, place: Place) -> Result<Vec<u8>> {
        let (path, file) = &self.sources[place.source];
        let mut file = file;
        let mut line = vec![0; place.length as usize];
        let read = file.seek(SeekFrom::Start(place.offset)).and_then(|_| file.read_exact(&mut line));
        read.map_err(|source| Error::Io { path: path.clone(), source })?;
        Ok(line)
    }

    /// The record of a line.
    pub(super) fn record(&self, place: Place) -> Result<Record> {
        let line = self.line(place)?;
        let path = || self.sources[place.source].0.clone();
        serde_json::from_slice(&line).map_err(|error| Error::Io { path: path(), source: error.into() })
    }

    /// Takes note that a source was written anew, with these of its lines in this order; returns its length.
    pub(super) fn replace(&mut self, source: usize, file: File, lines: &[Place]) -> u64 {
        let mut length = 0;
        let mut moved = HashMap::with_capacity(lines.len());
        for line in lines {
            moved.insert(line.offset, length);
            length += u64::from(line.length);
        }
        for place in self.places.values_mut().filter(|place| place.source == source) {
            place.offset = moved[&place.offset];
        }
        self.sources[source].1 = file;
        length
    }

    /// The file of a source.
    pub(super) fn file(&self, source: usize) -> &File {
        &self.sources[source].1
    }
}
