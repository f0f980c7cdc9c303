//! What was done with one photo: a line of a manifest.

use super::Item;
use crate::digest::{hexadecimal, sha256_of_file};
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Version of the lines; it grows when a field changes its meaning or goes.
pub(super) const SCHEMA: u32 = 1;

/// What was done with one photo.
///
/// As a line of JSON its fields have these names and this order; what is `None` or empty is left out. Two records of the same
/// photo under the same settings differ in `seconds` and `finished` only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Version of the fields.
    pub schema: u32,
    /// The photo's relative path, which is its name in the batch.
    pub input: Name,
    /// The path it was read from.
    pub source: Name,
    /// Whether there is an output.
    pub status: Status,
    /// Bytes of the photo's file, if it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// When the photo's file was written last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<Modified>,
    /// SHA-256 of the photo's file, if it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The file that the mask was read from, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<MaskFile>,
    /// Hash of everything that decides the output's bytes, but for the photo, the model and the seed.
    pub options_hash: String,
    /// Hash of the model.
    pub model_hash: String,
    /// Version of the program.
    pub version: String,
    /// Seed of this photo: `--seed` with it repeats the photo alone.
    pub seed: u64,
    /// Why there is no output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The exit code of a run that does this photo alone.
    pub code: u8,
    /// What works but may not be what was meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The files written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<Written>,
    /// Files that runs before this one wrote, or began to write, for the photo, and that this one did not replace. A name can
    /// stand here with several sizes: each of them is a run's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Written>,
    /// Width of the photo in pixels, upright.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// Height of the photo in pixels, upright.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<usize>,
    /// The method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampler: Option<String>,
    /// Noise levels of a sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// Largest side of a window in pixels, which `--memory` can make smaller; the bytes depend on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tile: Option<usize>,
    /// Network calls (NFE), of all samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluations: Option<usize>,
    /// How far the measurement of the first sample is from the one given: the norm of the difference over the noise's, or the
    /// root mean square on [-1, 1] where there is no noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residual: Option<f64>,
    /// Seconds of work on this photo.
    pub seconds: f64,
    /// When it was finished, in milliseconds since 1970.
    pub finished: u64,
}

impl Record {
    /// A record of `item` under these hashes, finished now; what is known of the work is filled in by the caller.
    pub fn new(item: &Item, options_hash: &str, model_hash: &str, status: Status) -> Self {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self {
            schema: SCHEMA,
            input: Name::new(&item.relative),
            source: Name::new(&item.path()),
            status,
            size: None,
            modified: None,
            sha256: None,
            mask: None,
            options_hash: options_hash.into(),
            model_hash: model_hash.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            seed: item.seed,
            error: None,
            code: 0,
            warnings: Vec::new(),
            outputs: Vec::new(),
            earlier: Vec::new(),
            width: None,
            height: None,
            sampler: None,
            steps: None,
            tile: None,
            evaluations: None,
            residual: None,
            seconds: 0.0,
            finished: since_1970.as_millis().try_into().unwrap_or(u64::MAX),
        }
    }

    /// All files that are of a batch: those of this record and of the ones before it.
    pub fn written(&self) -> impl Iterator<Item = &Written> {
        self.outputs.iter().chain(&self.earlier)
    }

    /// Takes over the files of the record that this one replaces, but for names that it writes itself.
    pub(super) fn succeed(&mut self, before: &Self) {
        for file in before.written() {
            if self.outputs.iter().all(|output| output.name != file.name) && !self.earlier.contains(file) {
                self.earlier.push(file.clone());
            }
        }
    }

    /// Says that the outputs may be there, whole or in part, and may not.
    pub(super) fn unsettle(&mut self) {
        let outputs = std::mem::take(&mut self.outputs);
        self.earlier.splice(0..0, outputs);
    }

    /// What stands in the manifest while outputs take the place of those of `before`: whichever of them a stopped run leaves,
    /// the next one knows them for its own and makes the photo again.
    pub(super) fn replacing(&self, before: &Self) -> Self {
        let mut record = Self {
            status: Status::Failed,
            code: 5,
            error: Some("the run was stopped while the outputs were replaced".into()),
            ..self.clone()
        };
        record.unsettle();
        record.succeed(before);
        record
    }

    /// The record without what the clock decides.
    pub fn without_times(mut self) -> Self {
        (self.seconds, self.finished) = (0.0, 0);
        self
    }
}

/// What came of a photo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Its outputs are on the disk.
    Done,
    /// There is none; [`Record::error`] says why.
    Failed,
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Its path below the output folder.
    pub name: Name,
    /// Its bytes.
    pub size: u64,
    /// SHA-256 of its content.
    pub sha256: String,
}

/// The file of a mask as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaskFile {
    /// Its path.
    pub source: Name,
    /// Its bytes.
    pub size: u64,
    /// When it was written last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<Modified>,
    /// SHA-256 of its content.
    pub sha256: String,
}

/// The mask that was hashed last: one mask for all photos is read once.
#[derive(Debug, Default)]
pub(super) struct LastMask(Mutex<Option<MaskFile>>);

impl LastMask {
    /// The file at `path`, with its hash; `None` if it cannot be read.
    pub(super) fn file(&self, path: &Path) -> Option<MaskFile> {
        let metadata = path.metadata().ok().filter(Metadata::is_file)?;
        let (size, modified) = (metadata.len(), Modified::of(&metadata));
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_last = last.as_ref().is_some_and(|last| {
            last.source.path() == path && last.size == size && modified.is_some() && last.modified == modified
        });
        if !is_last {
            let sha256 = sha256_of_file(path).ok()?;
            *last = Some(MaskFile { source: Name::new(path), size, modified, sha256 });
        }
        last.clone()
    }
}

/// When a file was written last: nanoseconds since 1970, as far as the file system counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Modified(pub i64);

impl Modified {
    /// Of a file; `None` where the file system does not tell, or tells a time before 1678 or after 2262.
    pub fn of(metadata: &Metadata) -> Option<Self> {
        let time = metadata.modified().ok()?;
        let nanoseconds = match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_nanos()).ok()?,
            Err(before) => -i64::try_from(before.duration().as_nanos()).ok()?,
        };
        Some(Self(nanoseconds))
    }
}

/// A relative path that comes back from JSON with all its bytes.
///
/// Text is a string with `/` between the parts. What is no text is `{"lossy": "caf\u{fffd}.png", "bytes": "636166e92e…"}`: a
/// reader that wants a string sees that there is none, instead of opening a file of another name. On Windows `bytes` holds
/// the 16-bit units, high byte first.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(PathBuf);

impl Name {
    /// The name of a path.
    pub fn new(path: &Path) -> Self {
        Self(path.into())
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Whether it is no text, so that JSON holds its bytes.
    pub fn is_lossy(&self) -> bool {
        self.0.to_str().is_none()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum InJson<'a> {
    Text(std::borrow::Cow<'a, str>),
    Bytes { lossy: std::borrow::Cow<'a, str>, bytes: String },
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.to_str() {
            Some(text) if std::path::MAIN_SEPARATOR == '/' => serializer.serialize_str(text),
            Some(text) => serializer.serialize_str(&text.replace(std::path::MAIN_SEPARATOR, "/")),
            None => {
                let bytes = hexadecimal(&bytes::of(&self.0));
                InJson::Bytes { lossy: self.0.to_string_lossy(), bytes }.serialize(serializer)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match InJson::deserialize(deserializer)? {
            InJson::Text(text) => Ok(Self(PathBuf::from(text.into_owned()))),
            InJson::Bytes { bytes, .. } => bytes::from_hexadecimal(&bytes)
                .and_then(|bytes| bytes::path(&bytes))
                .map(Self)
                .ok_or_else(|| de::Error::custom("the bytes of a name are not pairs of hexadecimal digits")),
        }
    }
}

mod bytes {
    use std::path::{Path, PathBuf};

    pub(super) fn from_hexadecimal(text: &str) -> Option<Vec<u8>> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
        pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
    }

    #[cfg(windows)]
    pub(super) fn of(path: &Path) -> Vec<u8> {
        use std::os::windows::ffi::OsStrExt;
        path.as_os_str().encode_wide().flat_map(u16::to_be_bytes).collect()
    }

    #[cfg(windows)]
    pub(super) fn path(bytes: &[u8]) -> Option<PathBuf> {
        use std::os::windows::ffi::OsStringExt;
        let (units, []) = bytes.as_chunks::<2>() else { return None };
        let units: Vec<u16> = units.iter().map(|&unit| u16::from_be_bytes(unit)).collect();
        Some(std::ffi::OsString::from_wide(&units).into())
    }

    #[cfg(not(windows))]
    pub(super) fn of(path: &Path) -> Vec<u8> {
        path.as_os_str().as_encoded_bytes().into()
    }

    #[cfg(not(windows))]
    pub(super) fn path(bytes: &[u8]) -> Option<PathBuf> {
        use std::os::unix::ffi::OsStrExt;
        Some(Path::new(std::ffi::OsStr::from_bytes(bytes)).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(name: &Name) -> String {
        serde_json::to_string(name).unwrap()
    }

    #[test]
    fn text_is_a_string() {
        for text in ["a/b.png", "with space\nand line.png", "-f", "\u{1f600}\u{301}.png", "a\\b\".png", ".."] {
            let name = Name::new(Path::new(text));
            assert!(!name.is_lossy());
            assert_eq!(serde_json::from_str::<String>(&json(&name)).unwrap(), text);
            assert_eq!(serde_json::from_str::<Name>(&json(&name)).unwrap(), name);
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_text_comes_back_with_its_bytes() {
        use std::os::unix::ffi::OsStrExt;
        let name = Name::new(Path::new(std::ffi::OsStr::from_bytes(b"caf\xe9/\xff.png")));
        assert!(name.is_lossy());
        assert_eq!(json(&name), "{\"lossy\":\"caf\u{fffd}/\u{fffd}.png\",\"bytes\":\"636166e92fff2e706e67\"}");
        assert_eq!(serde_json::from_str::<Name>(&json(&name)).unwrap(), name);
        for damaged in ["6", "6g", "zz"] {
            let text = format!("{{\"lossy\":\"\",\"bytes\":\"{damaged}\"}}");
            assert!(serde_json::from_str::<Name>(&text).is_err(), "{damaged}");
        }
    }
}
