//! Lines of a manifest, whatever happened to its file.

use super::record::SCHEMA;
use super::{Record, Status};
use serde::Deserialize;
use std::io::{self, BufRead};
use std::path::{Component, Path};

/// A longer line is damaged: a thousand samples with a warning each stay far below.
const LONGEST: usize = 16 << 20;

/// A line of a manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Its bytes, with the line feed.
    pub length: u64,
    /// What is in it.
    pub content: Content,
}

/// What is in a line.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// A record.
    Record(Box<Record>),
    /// No record, and why; what it was about is not known, so its photo counts as not done.
    Damaged(String),
    /// A record of this later schema.
    Later(u32),
    /// The file ends before the line does: its writer was stopped.
    Torn,
}

/// Reads the lines of a manifest one by one. A damaged line is told and the next one is read; empty lines are nothing.
///
/// Memory is that of the longest line, and no line takes more than 16 MiB.
#[derive(Debug)]
pub struct Lines<R> {
    reader: R,
    offset: u64,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// Of a manifest that is read from its beginning.
    pub fn new(reader: R) -> Self {
        Self { reader, offset: 0, line: Vec::new() }
    }

    /// Reads up to and with the next line feed; of what is longer than [`LONGEST`] only the length is kept.
    fn next_bytes(&mut self) -> io::Result<(u64, bool)> {
        self.line.clear();
        let mut length = 0;
        loop {
            let available = match self.reader.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if available.is_empty() {
                return Ok((length, false));
            }
            let feed = available.iter().position(|&byte| byte == b'\n');
            let taken = feed.map_or(available.len(), |at| at + 1);
            if self.line.len() + taken <= LONGEST {
                self.line.extend_from_slice(&available[..taken]);
            }
            self.reader.consume(taken);
            length += taken as u64;
            if feed.is_some() {
                return Ok((length, true));
            }
        }
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let offset = self.offset;
            let (length, is_complete) = match self.next_bytes() {
                Ok((0, _)) => return None,
                Ok(read) => read,
                Err(error) => return Some(Err(error)),
            };
            self.offset += length;
            let content = if !is_complete {
                Content::Torn
            } else if length > self.line.len() as u64 {
                Content::Damaged(format!("{length} bytes in one line"))
            } else {
                let line = self.line.trim_ascii();
                if line.is_empty() {
                    continue;
                }
                parse(line)
            };
            return Some(Ok(Line { offset, length, content }));
        }
    }
}

fn parse(line: &[u8]) -> Content {
    #[derive(Deserialize)]
    struct Head {
        schema: u32,
    }
    match serde_json::from_slice::<Record>(line) {
        Ok(record) if record.schema == SCHEMA => match check(&record) {
            Ok(()) => Content::Record(Box::new(record)),
            Err(reason) => Content::Damaged(reason.into()),
        },
        parsed => match (serde_json::from_slice::<Head>(line), parsed) {
            (Ok(Head { schema }), _) if schema > SCHEMA => Content::Later(schema),
            (_, Err(error)) => Content::Damaged(error.to_string()),
            (_, Ok(record)) => Content::Damaged(format!("schema {}, which there never was", record.schema)),
        },
    }
}

/// What the types do not say about a record.
pub(super) fn check(record: &Record) -> Result<(), &'static str> {
    let is_hash = |text: &str| text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !is_plain(record.input.path()) || !record.written().all(|output| is_plain(output.name.path())) {
        return Err("a name that is no path below a folder");
    }
    if !record.sha256.as_deref().is_none_or(is_hash) || !record.written().all(|output| is_hash(&output.sha256)) {
        return Err("a hash that is not 64 hexadecimal digits");
    }
    if !record.mask.iter().all(|mask| is_hash(&mask.sha256)) {
        return Err("a mask's hash that is not 64 hexadecimal digits");
    }
    match record.status {
        Status::Done if record.outputs.is_empty() => Err("done without an output"),
        Status::Done if record.sha256.is_none() || record.size.is_none() => {
            Err("done without size and hash of the photo")
        }
        _ => Ok(()),
    }
}

/// Whether a path stays below the folder that it is joined to.
fn is_plain(path: &Path) -> bool {
    path.components().next().is_some() && path.components().all(|part| matches!(part, Component::Normal(_)))
}
