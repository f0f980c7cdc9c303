//! Distances on the disk, so that a table of hours goes on where it was stopped.

use crate::Failure;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;

/// What a distance belongs to.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) dimensions: usize,
    pub(crate) measured: usize,
    pub(crate) seed: u64,
    pub(crate) samples: usize,
    pub(crate) slices: usize,
    /// The method and its settings.
    pub(crate) set: String,
}

/// What came of it.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Drawn {
    /// `null` where it is not finite.
    #[serde(deserialize_with = "or_nan")]
    pub(crate) distance: f64,
    pub(crate) seconds: f64,
}

fn or_nan<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

#[derive(Serialize, Deserialize)]
struct Line {
    #[serde(flatten)]
    key: Key,
    #[serde(flatten)]
    drawn: Drawn,
}

/// A file of one line of JSON for each distance, or none.
pub(crate) struct Records {
    file: Option<File>,
    drawn: HashMap<Key, Drawn>,
}

impl Records {
    /// Reads what is there; a last line that was cut off is left out.
    pub(crate) fn open(path: Option<&str>) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self { file: None, drawn: HashMap::new() }) };
        let text = if std::fs::exists(path)? { std::fs::read_to_string(path)? } else { String::new() };
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        let drawn = lines.map(|Line { key, drawn }| (key, drawn)).collect();
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        if !text.is_empty() && !text.ends_with('\n') {
            writeln!(file)?;
        }
        Ok(Self { file: Some(file), drawn })
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Drawn> {
        self.drawn.get(key).copied()
    }

    pub(crate) fn add(&mut self, key: Key, drawn: Drawn) -> Result<(), Failure> {
        if let Some(file) = &mut self.file {
            writeln!(file, "{}", serde_json::to_string(&Line { key, drawn })?)?;
        }
        Ok(())
    }
}
