//! What makes a batch impossible as it was asked for; all of it is told before any work.

use std::fmt::Write;
use std::path::PathBuf;

/// What makes a batch impossible as it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// An input that was named is not there.
    #[error("{path}: no such file, folder or pattern")]
    NoSuchInput {
        /// As given.
        path: PathBuf,
    },
    /// An input that was named cannot hold photos.
    #[error("{path}: is {kind}, expected a photo, a folder or a pattern")]
    NotAPhoto {
        /// As given.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A pattern cannot be read.
    #[error("pattern {pattern}: {reason}")]
    Pattern {
        /// As given.
        pattern: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A name of a list says nothing about where its output goes.
    #[error("{path} in the list: {reason}")]
    Listed {
        /// As listed.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: &'static str,
    },
    /// An input lies in the output folder.
    #[error("{path}: lies in the output folder {out}; results must not become inputs: name an output folder beside it")]
    InsideOutput {
        /// The input.
        path: PathBuf,
        /// The output folder.
        out: PathBuf,
    },
    /// The output folder cannot be one.
    #[error("{path}: {reason}")]
    OutputFolder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Two photos would have one output.
    #[error(
        "{first} and {second} would both become {output}{why}; rename one of them, or restore them into two folders",
        why = if *.differ { " where upper and lower case, or composed and decomposed letters, are the same" } else { "" }
    )]
    SharedOutput {
        /// The one.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// The output of the second.
        output: PathBuf,
        /// Whether the names differ in case or composition.
        differ: bool,
    },
    /// An output of one photo would be a folder for another.
    #[error(
        "{output}, the output of {first}, would have to be a folder for the output of {second}; rename one of them"
    )]
    OutputIsFolder {
        /// Whose output it is.
        first: PathBuf,
        /// Whose output lies in it.
        second: PathBuf,
        /// The output.
        output: PathBuf,
    },
    /// Photos and masks do not pair.
    #[error("{}", unpaired(.missing, .extra, .ambiguous))]
    Unpaired {
        /// Photos without a mask.
        missing: Vec<PathBuf>,
        /// Masks without a photo.
        extra: Vec<PathBuf>,
        /// Photos with several masks, and two of these.
        ambiguous: Vec<(PathBuf, [PathBuf; 2])>,
    },
    /// Files lie where outputs would go, and no run of a batch meant to write them.
    #[error("{}; --force replaces {}", listed("file exists already in the output folder", "files exist already in the output folder", .paths), if .paths.len() == 1 { "it" } else { "them" })]
    Exist {
        /// The files.
        paths: Vec<PathBuf>,
    },
    /// Settings that cannot be.
    #[error("{origin}: {reason}")]
    Settings {
        /// Where they stand: a file, a preset, the command line.
        origin: String,
        /// What is wrong with them, and what is expected.
        reason: String,
    },
    /// A manifest of a later version of the program.
    #[error(
        "{path}: written by a later version of tweedie (schema {schema}, this one knows {known}); use that version"
    )]
    LaterVersion {
        /// The manifest.
        path: PathBuf,
        /// Its schema.
        schema: u32,
        /// The schema of this version.
        known: u32,
    },
    /// The file system of the output folder has no locks.
    #[error(
        "{path}: the file system has no locks, and two runs at once would destroy each other's work; --no-lock goes on if no \
         other process works there"
    )]
    NoLocks {
        /// The folder.
        path: PathBuf,
    },
    /// A file that is no record stands where that of all shards would go.
    #[error("{path}: is not of `tweedie batch merge`, which would replace it; rename it or move it away")]
    NotMerged {
        /// The file.
        path: PathBuf,
    },
    /// There is no record in a folder.
    #[error("{path}: has no record of a batch; expected the output folder of `tweedie batch`")]
    NoRecord {
        /// The folder.
        path: PathBuf,
    },
}

/// Names that an error lists, at most.
const LISTED: usize = 10;

/// `3 photos have no mask: a, b, c`; of more than ten, the first ten and how many more.
fn listed(one: &str, several: &str, paths: &[PathBuf]) -> String {
    let mut text = format!("{} {}: ", paths.len(), if paths.len() == 1 { one } else { several });
    for (k, path) in paths.iter().take(LISTED).enumerate() {
        let _ = write!(text, "{}{}", if k == 0 { "" } else { ", " }, path.display());
    }
    if paths.len() > LISTED {
        let _ = write!(text, " and {} more", paths.len() - LISTED);
    }
    text
}

fn unpaired(missing: &[PathBuf], extra: &[PathBuf], ambiguous: &[(PathBuf, [PathBuf; 2])]) -> String {
    let mut parts = Vec::new();
    if !missing.is_empty() {
        parts.push(listed("photo has no mask", "photos have no mask", missing));
    }
    if !extra.is_empty() {
        parts.push(listed("mask has no photo", "masks have no photo", extra));
    }
    for (photo, [one, other]) in ambiguous.iter().take(LISTED) {
        parts.push(format!("{} has two masks, {} and {}", photo.display(), one.display(), other.display()));
    }
    if ambiguous.len() > LISTED {
        parts.push(format!("{} more photos have two masks", ambiguous.len() - LISTED));
    }
    if ambiguous.is_empty() {
        parts.push("masks pair by relative path; --missing-mask skip leaves the others out".into());
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_ten_names_are_listed() {
        let paths = |count: usize| (0..count).map(|k| PathBuf::from(format!("{k}.png"))).collect::<Vec<_>>();
        let error = BatchError::Unpaired { missing: paths(12), extra: paths(1), ambiguous: Vec::new() };
        assert_eq!(
            error.to_string(),
            "12 photos have no mask: 0.png, 1.png, 2.png, 3.png, 4.png, 5.png, 6.png, 7.png, 8.png, 9.png and 2 more; \
             1 mask has no photo: 0.png; masks pair by relative path; --missing-mask skip leaves the others out"
        );
        let error = BatchError::Exist { paths: paths(1) };
        assert_eq!(error.to_string(), "1 file exists already in the output folder: 0.png; --force replaces it");
    }
}
