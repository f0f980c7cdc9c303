//! What the outputs of a photo are called.

use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Bytes that a name may have on the file systems in use.
pub(super) const LONGEST: usize = 255;

/// What is written for every photo, and with which extension; with the relative path it decides the names.
///
/// | samples | names below `OUT`, for `a/cat.jpg` |
/// | --- | --- |
/// | 1 | `a/cat.png` |
/// | several | `a/cat-0000.png`, `a/cat-0001.png`, … |
///
/// Mean, spread and sheet are called `-mean`, `-std` and `-sheet` where a sample is called `-0000`; the sheet is a PNG.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Naming {
    /// Without the dot.
    pub extension: String,
    /// Number of samples, ≥ 1.
    pub samples: usize,
    /// Whether the mean of the samples is written.
    pub mean: bool,
    /// Whether their standard deviation is written.
    pub std: bool,
    /// Whether a contact sheet is written.
    pub sheet: bool,
}

impl Default for Naming {
    fn default() -> Self {
        Self { extension: "png".into(), samples: 1, mean: false, std: false, sheet: false }
    }
}

/// The files of one photo, relative to the output folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outputs {
    /// One a sample.
    pub samples: Vec<PathBuf>,
    /// The mean, if it was asked for.
    pub mean: Option<PathBuf>,
    /// The standard deviation, if it was asked for.
    pub std: Option<PathBuf>,
    /// The contact sheet, if it was asked for.
    pub sheet: Option<PathBuf>,
}

impl Outputs {
    /// All of them, in the order in which they are written.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let sides = [&self.mean, &self.std, &self.sheet].into_iter().filter_map(Option::as_deref);
        self.samples.iter().map(PathBuf::as_path).chain(sides)
    }
}

impl Naming {
    /// The names for the photo at `relative`.
    pub fn outputs(&self, relative: &Path) -> Outputs {
        let side = |asked: bool, suffix: &str| asked.then(|| name(relative, suffix, &self.extension));
        let samples = match self.samples {
            1 => vec![name(relative, "", &self.extension)],
            n => (0..n).map(|k| name(relative, &format!("-{k:04}"), &self.extension)).collect(),
        };
        Outputs {
            samples,
            mean: side(self.mean, "-mean"),
            std: side(self.std, "-std"),
            sheet: self.sheet.then(|| name(relative, "-sheet", "png")),
        }
    }

    /// The names by which two photos can collide: the first sample and the sides.
    ///
    /// The others need no look. Every suffix of several samples begins with the only dash of its own, so none is the end of
    /// another, and equal names have equal suffixes and stems.
    pub(super) fn telling(&self, relative: &Path) -> Outputs {
        let first = if self.samples == 1 { "" } else { "-0000" };
        let one = Self { samples: 1, ..self.clone() };
        Outputs { samples: vec![name(relative, first, &self.extension)], ..one.outputs(relative) }
    }

    /// The length in bytes of the longest name of the photo's outputs.
    pub(super) fn longest(&self, relative: &Path) -> usize {
        let last = match self.samples {
            1 => String::new(),
            n => format!("-{:04}", n - 1),
        };
        let length = |path: &Path| path.file_name().map_or(0, |name| name.len());
        let last = length(&name(relative, &last, &self.extension));
        self.telling(relative).files().map(length).fold(last, usize::max)
    }
}

fn name(relative: &Path, suffix: &str, extension: &str) -> PathBuf {
    let mut name = OsString::from(relative.file_stem().unwrap_or_default());
    name.push(suffix);
    name.push(".");
    name.push(extension);
    relative.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(naming: &Naming, relative: &str) -> Vec<String> {
        naming.outputs(Path::new(relative)).files().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn names_follow_the_table() {
        let one = Naming::default();
        assert_eq!(names(&one, "a/cat.jpg"), ["a/cat.png"]);
        assert_eq!(names(&one, "cat.v2.tiff"), ["cat.v2.png"]);
        assert_eq!(names(&one, "a/cat"), ["a/cat.png"]);
        assert_eq!(names(&one, "-f"), ["-f.png"]);
        let all = Naming { extension: "jpg".into(), samples: 2, mean: true, std: true, sheet: true };
        let expected = ["a/cat-0000.jpg", "a/cat-0001.jpg", "a/cat-mean.jpg", "a/cat-std.jpg", "a/cat-sheet.png"];
        assert_eq!(names(&all, "a/cat.png"), expected);
        assert_eq!(all.longest(Path::new("a/cat.png")), "cat-sheet.png".len());
        let many = Naming { samples: 10_001, ..one };
        assert_eq!(many.longest(Path::new("cat.jpg")), "cat-10000.png".len());
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_no_text_keep_their_bytes() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        let relative = Path::new(OsStr::from_bytes(b"b\xfe/\xff cat\n.jpg"));
        let outputs = Naming::default().outputs(relative);
        assert_eq!(outputs.samples[0].as_os_str().as_bytes(), b"b\xfe/\xff cat\n.png");
    }
}
