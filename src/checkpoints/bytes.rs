//! Bytes of a file, read where and when they are needed, never ahead of what is known to be there.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// A file that stays open, or bytes in memory.
#[derive(Debug)]
pub(super) enum Bytes {
    File { file: Mutex<File>, length: u64 },
    Memory(Cow<'static, [u8]>),
}

impl Bytes {
    /// Opens a regular file; anything else (a pipe, a device) could block or never end.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let failed = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => "no such file".to_owned(),
            _ => format!("cannot be read: {error}"),
        };
        let kind = path.metadata().map_err(failed)?;
        if !kind.is_file() {
            return Err("is not a regular file".into());
        }
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        Ok(Self::File { file: Mutex::new(file), length })
    }

    pub(super) fn length(&self) -> u64 {
        match self {
            Self::File { length, .. } => *length,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// Fills `into` with the bytes from `start` on.
    pub(super) fn read_at(&self, start: u64, into: &mut [u8]) -> Result<(), String> {
        self.within(start, into.len() as u64)?;
        match self {
            Self::Memory(bytes) => {
                // Within the length, so the conversion cannot lose anything.
                let start = start as usize;
                into.copy_from_slice(&bytes[start..start + into.len()]);
                Ok(())
            }
            Self::File { file, .. } => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                let read = file.seek(SeekFrom::Start(start)).and_then(|_| file.read_exact(into));
                read.map_err(|error| format!("cannot be read at byte {start}: {error}"))
            }
        }
    }

    /// A copy of these bytes; nothing is allocated unless the file has them.
    pub(super) fn copy(&self, range: Range<u64>) -> Result<Vec<u8>, String> {
        let length = range.end.saturating_sub(range.start);
        self.within(range.start, length)?;
        let length = usize::try_from(length).map_err(|_| format!("{length} bytes do not fit into memory"))?;
        let mut copy = vec![0; length];
        self.read_at(range.start, &mut copy)?;
        Ok(copy)
    }

    /// Calls `each` with successive pieces of these bytes, each but the last a multiple of 64 bytes.
    pub(super) fn pieces(
        &self,
        range: Range<u64>,
        mut each: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        let length = range.end.saturating_sub(range.start);
        self.within(range.start, length)?;
        let mut buffer = vec![0; length.min(PIECE) as usize];
        let mut position = range.start;
        while position < range.end {
            let piece = &mut buffer[..(range.end - position).min(PIECE) as usize];
            self.read_at(position, piece)?;
            each(piece)?;
            position += piece.len() as u64;
        }
        Ok(())
    }

    fn within(&self, start: u64, length: u64) -> Result<(), String> {
        match start.checked_add(length).is_some_and(|end| end <= self.length()) {
            true => Ok(()),
            false => Err(format!("ends at byte {}, {length} bytes at byte {start} are missing", self.length())),
        }
    }
}

const PIECE: u64 = 1 << 18;

/// A place in a file that moves forward.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a Bytes,
    /// Of the next byte that is not in `buffer`.
    position: u64,
    end: u64,
    buffer: Vec<u8>,
    taken: usize,
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `range`, which the file has.
    pub(super) fn new(bytes: &'a Bytes, range: Range<u64>) -> Result<Self, String> {
        bytes.within(range.start, range.end.saturating_sub(range.start))?;
        Ok(Self { bytes, position: range.start, end: range.end, buffer: Vec::new(), taken: 0 })
    }

    /// The place of the next byte in the file.
    pub(super) fn position(&self) -> u64 {
        self.position - (self.buffer.len() - self.taken) as u64
    }

    pub(super) fn remaining(&self) -> u64 {
        self.end - self.position()
    }

    pub(super) fn byte(&mut self) -> Result<u8, String> {
        if self.taken == self.buffer.len() {
            let length = (self.end - self.position).min(1 << 13) as usize;
            if length == 0 {
                return Err(format!("ends at byte {} within a pickle", self.end));
            }
            self.buffer.resize(length, 0);
            self.bytes.read_at(self.position, &mut self.buffer)?;
            self.position += length as u64;
            self.taken = 0;
        }
        self.taken += 1;
        Ok(self.buffer[self.taken - 1])
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        for byte in &mut array {
            *byte = self.byte()?;
        }
        Ok(array)
    }

    /// The place of the next `length` bytes, which are passed over.
    pub(super) fn skip(&mut self, length: u64) -> Result<Range<u64>, String> {
        let start = self.position();
        if length > self.remaining() {
            return Err(format!("ends at byte {}, {length} bytes at byte {start} are missing", self.end));
        }
        let ahead = (self.buffer.len() - self.taken) as u64;
        if length <= ahead {
            self.taken += length as usize;
        } else {
            (self.position, self.taken) = (start + length, 0);
            self.buffer.clear();
        }
        Ok(start..start + length)
    }

    /// The next `length` bytes, if they are no more than `most`.
    pub(super) fn take(&mut self, length: u64, most: usize, what: &str) -> Result<Vec<u8>, String> {
        if length > most as u64 {
            return Err(format!("has {what} of {length} bytes, at most {most} are read"));
        }
        let range = self.skip(length)?;
        self.bytes.copy(range)
    }

    /// The bytes up to the next line feed, which is passed over.
    pub(super) fn line(&mut self, most: usize) -> Result<Vec<u8>, String> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return Ok(line),
                _ if line.len() == most => return Err(format!("has a name of more than {most} bytes")),
                byte => line.push(byte),
            }
        }
    }
}
