//! Settings from one place: a preset, the command line, a file beside a photo.

use super::BatchError;
use crate::{Error, Result, Task};
use serde_json::{Map, Value};
use std::path::Path;

/// Some settings and where they come from; several make [`Settings`](super::Settings).
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// A file, the name of a preset, or `command line`: what an error names.
    pub origin: String,
    /// Keys and values.
    pub table: toml::Table,
}

/// A file of settings is small.
const LARGEST: u64 = 1 << 20;

impl Layer {
    /// From text in TOML.
    ///
    /// # Errors
    /// [`BatchError::Settings`] with line and column for text that is no TOML.
    pub fn parse(origin: &str, text: &str) -> Result<Self> {
        let table = text.parse().map_err(|error: toml::de::Error| {
            let before = &text[..error.span().map_or(0, |span| span.start.min(text.len()))];
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
            BatchError::Settings {
                origin: origin.into(),
                reason: format!("line {line}, column {column}: {}", error.message()),
            }
        })?;
        Ok(Self { origin: origin.into(), table })
    }

    /// From a file; names of files in it start from its folder.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and `Image` for a file that cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let origin = path.display().to_string();
        let unreadable = |source| crate::image::ImageError::Read { path: path.into(), source };
        let metadata = path.metadata().map_err(unreadable)?;
        if !metadata.is_file() || metadata.len() > LARGEST {
            let reason = format!("is no file of settings: expected TOML of at most {LARGEST} bytes");
            return Err(BatchError::Settings { origin, reason }.into());
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let mut layer = Self::parse(&origin, &text)?;
        layer.start_from(path.parent().unwrap_or(Path::new("")));
        Ok(layer)
    }

    fn start_from(&mut self, folder: &Path) {
        for key in ["hints", "operator", "kernel"] {
            let Some(toml::Value::String(text)) = self.table.get_mut(key) else { continue };
            let prefix = if key == "kernel" { "file:" } else { "" };
            if let Some(name) = text.strip_prefix(prefix) {
                *text = format!("{prefix}{}", folder.join(name).display());
            }
        }
    }

    /// Refuses keys that the task does not know.
    pub(super) fn check_keys(&self, task: &str) -> Result<()> {
        let Some(key) = self.table.keys().find(|&key| !keys(task).any(|known| known == key)) else { return Ok(()) };
        let others: Vec<&str> = Task::NAMES.into_iter().filter(|name| own(name).contains(&key.as_str())).collect();
        Err(self.refuse(if others.is_empty() {
            let general: Vec<&str> = GENERAL.into_iter().filter(|&key| key != "task").collect();
            format!("unknown key `{key}`; {task} takes {}, every task {}", own(task).join(", "), general.join(", "))
        } else {
            format!("`{key}` is no setting of {task}, but of {}", names(&others))
        }))
    }

    /// The values as JSON.
    pub(super) fn values(&self) -> Result<Map<String, Value>> {
        match serde_json::to_value(&self.table) {
            Ok(Value::Object(map)) => Ok(map),
            Ok(_) => unreachable!("a table is an object"),
            Err(error) => Err(self.refuse(error.to_string())),
        }
    }

    pub(super) fn refuse(&self, reason: String) -> Error {
        BatchError::Settings { origin: self.origin.clone(), reason }.into()
    }
}

/// Keys of every task.
const GENERAL: [&str; 19] = [
    "task",
    "seed",
    "samples",
    "sampler",
    "quality",
    "steps",
    "set",
    "tile",
    "resize",
    "photo_time_limit",
    "format",
    "jpeg_quality",
    "mean",
    "std",
    "sheet",
    "strip",
    "keep",
    "allow_truncated",
    "max_pixels",
];

/// Keys of one task.
fn own(task: &str) -> &'static [&'static str] {
    match task {
        "inpaint" => &["mask_grow", "mask_resize", "mask_channel", "mask_threshold", "invert_mask"],
        "colorize" => &["hints"],
        "upscale" => &["scale", "kernel", "noise"],
        "deblur" => &["kernel", "noise"],
        "denoise" => &["noise"],
        "restore" => &["operator", "size"],
        _ => &[],
    }
}

/// All keys that settings of a task may have.
pub(super) fn keys(task: &str) -> impl Iterator<Item = &'static str> {
    GENERAL.into_iter().chain(own(task).iter().copied())
}

/// `a, b and c`.
pub(super) fn names(names: &[&str]) -> String {
    match names {
        [rest @ .., last] if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        names => names.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_text_is_refused_with_its_place() {
        let error = Layer::parse("cat.toml", "noise = 3\nsteps = = 4").unwrap_err().to_string();
        assert!(error.starts_with("cat.toml: line 2, column 9: "), "{error}");
    }

    #[test]
    fn files_start_from_the_folder_of_the_file_that_names_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        std::fs::write(&path, "hints = 'dots.png'\noperator = '/blur.toml'\nkernel = 'file:psf.png'").unwrap();
        let table = Layer::read(&path).unwrap().table;
        let there = |name: &str| folder.path().join(name).display().to_string();
        assert_eq!(table["hints"].as_str().unwrap(), there("dots.png"));
        assert_eq!(table["operator"].as_str().unwrap(), "/blur.toml");
        assert_eq!(table["kernel"].as_str().unwrap(), format!("file:{}", there("psf.png")));
        std::fs::write(&path, "kernel = 'disk:2'").unwrap();
        assert_eq!(Layer::read(&path).unwrap().table["kernel"].as_str(), Some("disk:2"));
        assert!(Layer::read(folder.path()).unwrap_err().to_string().contains("is no file of settings"));
    }
}
