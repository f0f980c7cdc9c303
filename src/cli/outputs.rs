//! Names of outputs: a pure function of the input's name and the options, known before any work starts.
//!
//! | `-o` | one sample | several samples |
//! | --- | --- | --- |
//! | absent | `<stem>.<verb>.png` beside the input | `<stem>.<verb>-0000.png` … |
//! | file | that file | `<stem>-0000.<ext>` … |
//! | folder | `<folder>/<stem>.png` | `<folder>/<stem>-0000.png` … |
//! | `-` | standard output | refused |
//!
//! Mean, spread and sheet are called `-mean`, `-std` and `-sheet` where a sample is called `-0000`.

use super::failure::{Failure, Outcome};
use crate::image::OutputFormat;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Where a picture is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    Stdin,
    File(PathBuf),
}

impl Input {
    pub(crate) fn new(name: &Path) -> Self {
        if name == Path::new("-") { Self::Stdin } else { Self::File(name.into()) }
    }

    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Stdin => None,
            Self::File(path) => Some(path),
        }
    }

    pub(crate) fn name(&self) -> &Path {
        self.path().unwrap_or(Path::new("-"))
    }
}

/// Where a picture goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Stdout,
    File(PathBuf),
}

impl Target {
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Stdout => None,
            Self::File(path) => Some(path),
        }
    }
}

/// What is to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) samples: usize,
    pub(crate) mean: bool,
    pub(crate) std: bool,
    pub(crate) sheet: bool,
    /// What is written where no extension says it.
    pub(crate) format: OutputFormat,
}

/// Every file of one input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outputs {
    pub(crate) samples: Vec<Target>,
    pub(crate) mean: Option<PathBuf>,
    pub(crate) std: Option<PathBuf>,
    pub(crate) sheet: Option<PathBuf>,
}

impl Outputs {
    /// The names for one input; `verb` is the subcommand.
    pub(crate) fn new(input: &Input, verb: &str, output: Option<&Path>, wanted: Wanted) -> Outcome<Self> {
        let several = wanted.samples > 1 || wanted.mean || wanted.std || wanted.sheet;
        if output == Some(Path::new("-")) {
            if several {
                return Err(Failure::usage("standard output takes one picture, several were asked for")
                    .hint("-o FILE or -o FOLDER/ writes them all"));
            }
            return Ok(Self { samples: vec![Target::Stdout], mean: None, std: None, sheet: None });
        }
        let (folder, stem, extension) = match output {
            Some(output) if !is_folder(output) => {
                let stem = output.file_stem().unwrap_or_default().to_owned();
                let extension = output.extension().map(OsStr::to_owned).unwrap_or_default();
                (output.parent().unwrap_or(Path::new("")).to_owned(), stem, extension)
            }
            folder => {
                let Input::File(input) = input else {
                    return Err(Failure::usage(
                        "a picture from standard input has no name to derive the output's from",
                    )
                    .hint("name the output: -o FILE, or -o - for standard output"));
                };
                let mut stem = input.file_stem().unwrap_or_default().to_owned();
                let beside = input.parent().unwrap_or(Path::new(""));
                if folder.is_none() {
                    stem.push(".");
                    stem.push(verb);
                }
                (folder.unwrap_or(beside).to_owned(), stem, wanted.format.extensions()[0].into())
            }
        };
        let name = |suffix: &str, extension: &OsStr| {
            let mut name = OsString::from(&stem);
            name.push(suffix);
            if !extension.is_empty() {
                name.push(".");
                name.push(extension);
            }
            folder.join(name)
        };
        let side = |asked: bool, suffix: &str| asked.then(|| name(suffix, &extension));
        let samples = match wanted.samples {
            1 => vec![Target::File(name("", &extension))],
            n => (0..n).map(|k| Target::File(name(&format!("-{k:04}"), &extension))).collect(),
        };
        Ok(Self {
            samples,
            mean: side(wanted.mean, "-mean"),
            std: side(wanted.std, "-std"),
            sheet: wanted.sheet.then(|| name("-sheet", OsStr::new("png"))),
        })
    }

    /// The files that show the photo or its spread, in the format that was asked for.
    pub(crate) fn pictures(&self) -> impl Iterator<Item = &Path> {
        let sides = [&self.mean, &self.std].into_iter().filter_map(Option::as_deref);
        self.samples.iter().filter_map(Target::path).chain(sides)
    }

    /// All files, in the order in which they are written.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let sides = [&self.mean, &self.std, &self.sheet].into_iter().filter_map(Option::as_deref);
        self.samples.iter().filter_map(Target::path).chain(sides)
    }

    /// Refuses what must not or cannot be written, so that nobody waits for a result that has no place.
    pub(crate) fn check(&self, inputs: &[&Path], force: bool) -> Outcome<()> {
        let mut existing = Vec::new();
        for path in self.files() {
            let shown = path.display();
            if path.file_name().is_some_and(|name| name.len() > 255) {
                return Err(Failure::usage(format!(
                    "{shown}: the name is {} bytes long, file systems take 255",
                    path.file_name().map_or(0, OsStr::len)
                ))
                .hint("-o FILE gives a shorter one"));
            }
            check_folder(path)?;
            if let Ok(written) = path.canonicalize()
                && inputs.iter().any(|input| input.canonicalize().is_ok_and(|input| input == written))
            {
                return Err(Failure::usage(format!("{shown}: is an input, and inputs are never overwritten"))
                    .hint("-o FILE names another output"));
            }
            if path.is_dir() {
                return Err(Failure::usage(format!("{shown}: is a folder, expected the name of a file")));
            }
            // Not `exists`: a dangling link would be replaced, too.
            if path.symlink_metadata().is_ok() {
                existing.push(shown.to_string());
            }
        }
        match existing.as_slice() {
            [] => Ok(()),
            _ if force => Ok(()),
            [one] => Err(Failure::usage(format!("{one}: exists already")).hint("--force overwrites it")),
            [first, rest @ ..] => Err(Failure::usage(format!("{first} and {} more outputs exist already", rest.len()))
                .hint("--force overwrites them")),
        }
    }
}

/// Whether `-o` names a folder: by its trailing separator, or because there is one.
fn is_folder(output: &Path) -> bool {
    let bytes = output.as_os_str().as_encoded_bytes();
    bytes.last().is_some_and(|&last| std::path::is_separator(last.into())) || output.is_dir()
}

/// The folder of an output must be there and take files.
fn check_folder(output: &Path) -> Outcome<()> {
    let folder = match output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let shown = folder.display();
    match folder.metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Failure::usage(format!("{shown}: the output folder does not exist"))
                .hint(format!("mkdir -p {shown} creates it")))
        }
        Err(error) => Err(Failure::usage(format!("{shown}: the output folder cannot be used: {error}"))),
        Ok(metadata) if !metadata.is_dir() => {
            Err(Failure::usage(format!("{shown}: is a file, expected a folder for the output")))
        }
        // Permission bits do not tell all (owner, read-only mounts): only a file without a name does.
        Ok(_) => match tempfile::tempfile_in(folder) {
            Ok(_) => Ok(()),
            Err(error) => Err(Failure::usage(format!("{shown}: the output folder takes no files: {error}"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PNG: OutputFormat = OutputFormat::Png;
    const ONE: Wanted = Wanted { samples: 1, mean: false, std: false, sheet: false, format: PNG };
    const ALL: Wanted = Wanted { samples: 2, mean: true, std: true, sheet: true, format: PNG };

    fn names(input: &str, output: Option<&str>, wanted: Wanted) -> Vec<String> {
        let outputs = Outputs::new(&Input::new(Path::new(input)), "inpaint", output.map(Path::new), wanted).unwrap();
        outputs.files().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn names_follow_the_table() {
        assert_eq!(names("a/cat.jpg", None, ONE), ["a/cat.inpaint.png"]);
        assert_eq!(
            names("a/cat.jpg", None, ALL),
            [
                "a/cat.inpaint-0000.png",
                "a/cat.inpaint-0001.png",
                "a/cat.inpaint-mean.png",
                "a/cat.inpaint-std.png",
                "a/cat.inpaint-sheet.png"
            ]
        );
        assert_eq!(names("cat.png", Some("b/out.tiff"), ONE), ["b/out.tiff"]);
        assert_eq!(
            names("cat.png", Some("out.v2.tiff"), ALL),
            ["out.v2-0000.tiff", "out.v2-0001.tiff", "out.v2-mean.tiff", "out.v2-std.tiff", "out.v2-sheet.png"]
        );
        assert_eq!(names("a/cat.jpg", Some("b/"), ONE), ["b/cat.png"]);
        assert_eq!(names("a/cat.jpg", Some("b/"), ALL)[..3], ["b/cat-0000.png", "b/cat-0001.png", "b/cat-mean.png"]);
        assert_eq!(names("-", Some("b/out.png"), ONE), ["b/out.png"]);
        let jpeg = Wanted { format: OutputFormat::Jpeg, ..ALL };
        assert_eq!(names("a/cat.png", Some("b/"), jpeg)[..2], ["b/cat-0000.jpg", "b/cat-0001.jpg"]);
        assert_eq!(names("a/cat.png", None, jpeg)[4], "a/cat.inpaint-sheet.png");
    }

    #[test]
    fn standard_streams_need_one_name_and_one_picture() {
        let stdin = Input::new(Path::new("-"));
        let piped = Outputs::new(&stdin, "inpaint", Some(Path::new("-")), ONE).unwrap();
        assert_eq!(piped.samples, [Target::Stdout]);
        for (output, wanted) in [(None, ONE), (Some(Path::new("b/")), ONE), (Some(Path::new("-")), ALL)] {
            assert_eq!(
                Outputs::new(&stdin, "inpaint", output, wanted).unwrap_err().code,
                super::super::ExitCode::Usage
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_no_text_keep_their_bytes() {
        use std::os::unix::ffi::OsStrExt;
        let input = Input::File(PathBuf::from(OsStr::from_bytes(b"\xff cat\n.png")));
        let outputs = Outputs::new(&input, "inpaint", None, ONE).unwrap();
        assert_eq!(outputs.files().next().unwrap().as_os_str().as_bytes(), b"\xff cat\n.inpaint.png");
    }
}
