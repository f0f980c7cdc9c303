//! Which photos there are: files, folders, patterns and lists, in whatever state the file system is.

use super::plan::SIDECAR;
use super::{BatchError, Skipped, Why};
use crate::{Error, Result};
use globset::{GlobBuilder, GlobMatcher};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, FileType, Metadata};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use walkdir::WalkDir;

/// What to restore, as it was asked for.
///
/// | input | photos | relative path |
/// | --- | --- | --- |
/// | a file | that one, whatever it is called | its name |
/// | a folder | what is a photo in it | below the folder |
/// | a pattern | what matches and is a photo; `**` is any number of folders | below the part without `*`, `?`, `[` and `{` |
/// | a listed name | that one, whatever it is called | as listed, without a leading `/`; below `base` if there is one |
///
/// In folders and patterns a photo is what has the extension of a format that is read here, or no extension of any known kind
/// and the first bytes of such a format. Names that begin with a dot are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Files, folders and patterns. What exists is no pattern.
    pub inputs: Vec<PathBuf>,
    /// Names from a list: see [`read_list`].
    pub listed: Vec<PathBuf>,
    /// The folder that listed names are below of; by default the current one.
    pub base: Option<PathBuf>,
    /// Whether sub-folders of a folder are looked into.
    pub recursive: bool,
    /// Whether symbolic links in folders are followed. A link that is named itself always is.
    pub follow_links: bool,
    /// Whether names that begin with a dot count.
    pub hidden: bool,
}

/// The names in a list: separated by NUL if there is one, as `find -print0` writes them, else one a line. Empty ones are
/// nothing; a byte order mark, and the carriage returns of a file in which every line has one, are no part of a name.
pub fn read_list(content: &[u8]) -> Vec<PathBuf> {
    let is_empty = |name: &&[u8]| !name.is_empty();
    if content.contains(&0) {
        return content.split(|&byte| byte == 0).filter(is_empty).map(path).collect();
    }
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let lines = || content.split(|&byte| byte == b'\n').filter(is_empty);
    let has_returns = lines().all(|line| line.ends_with(b"\r"));
    let name = |line: &'_ [u8]| path(if has_returns { &line[..line.len() - 1] } else { line });
    lines().map(name).filter(|path| !path.as_os_str().is_empty()).collect()
}

#[cfg(unix)]
fn path(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    OsStr::from_bytes(bytes).into()
}

#[cfg(not(unix))]
fn path(bytes: &[u8]) -> PathBuf {
    String::from_utf8_lossy(bytes).into_owned().into()
}

/// A file that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) root: Arc<Path>,
    pub(super) relative: PathBuf,
}

impl Found {
    pub(super) fn path(&self) -> PathBuf {
        self.root.join(&self.relative)
    }
}

/// What a search brought.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) photos: Vec<Found>,
    /// Files in folders that end as masks do.
    pub(super) masks: Vec<Found>,
    pub(super) skipped: Vec<Skipped>,
    /// Files in folders that are no photos, by extension in lower case.
    pub(super) others: BTreeMap<String, usize>,
    pub(super) hidden: usize,
    pub(super) folders: usize,
}

/// What a search passes over.
#[derive(Debug, Default)]
pub(super) struct Except {
    /// The output folder, canonical, if it is there.
    pub(super) out: Option<PathBuf>,
    /// Another folder or file that holds no photos, canonical.
    pub(super) masks: Option<PathBuf>,
    /// The ending of masks that lie beside their photos.
    pub(super) mask_suffix: Option<String>,
}

impl Except {
    fn has(&self, canonical: &Path) -> bool {
        [&self.out, &self.masks].into_iter().flatten().any(|except| except == canonical)
    }

    fn is_mask(&self, name: &OsStr) -> bool {
        let suffix = self.mask_suffix.as_ref();
        suffix.is_some_and(|suffix| name.as_encoded_bytes().ends_with(suffix.as_bytes()))
    }
}

/// Finds everything that is asked for.
pub(super) fn gather(selection: &Selection, out: &Path, except: &Except) -> Result<Gathered> {
    let mut gathered = Gathered::default();
    let inside = |path: &Path| -> Result<()> {
        // Nothing is in a folder that is not there.
        let Some(folder) = &except.out else { return Ok(()) };
        match path.canonicalize() {
            Ok(there) if there.starts_with(folder) => {
                Err(BatchError::InsideOutput { path: path.into(), out: out.into() }.into())
            }
            _ => Ok(()),
        }
    };
    for input in &selection.inputs {
        match fs::metadata(input) {
            Ok(metadata) if metadata.is_dir() => {
                inside(input)?;
                gathered.walk(input, None, selection, except);
            }
            Ok(metadata) if metadata.is_file() => {
                inside(input)?;
                let (Some(folder), Some(name)) = (input.parent(), input.file_name()) else {
                    return Err(BatchError::NoSuchInput { path: input.clone() }.into());
                };
                gathered.photos.push(Found { root: folder.into(), relative: name.into() });
            }
            Ok(metadata) => {
                let kind = kind(metadata.file_type());
                return Err(BatchError::NotAPhoto { path: input.clone(), kind }.into());
            }
            Err(error) if is_absent(&error) => {
                let (base, pattern) = split_pattern(input);
                if pattern.as_os_str().is_empty() {
                    return Err(BatchError::NoSuchInput { path: input.clone() }.into());
                }
                let matcher = matcher(input, &pattern)?;
                match fs::metadata(&base) {
                    Ok(metadata) if metadata.is_dir() => {}
                    _ => return Err(BatchError::NoSuchInput { path: input.clone() }.into()),
                }
                inside(&base)?;
                gathered.walk(&base, Some((input, &pattern, &matcher)), selection, except);
            }
            Err(source) => return Err(Error::Io { path: input.clone(), source }),
        }
    }
    let mut roots = Roots::default();
    for name in &selection.listed {
        let found = roots.place(name, selection.base.as_deref())?;
        let path = found.path();
        let skip = |why| Skipped { path: name.clone(), why };
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => {
                inside(&path)?;
                gathered.photos.push(found);
            }
            Ok(metadata) => gathered.skipped.push(skip(Why::Listed(kind(metadata.file_type())))),
            Err(error) if is_absent(&error) => gathered.skipped.push(skip(Why::Missing)),
            Err(error) => gathered.skipped.push(skip(Why::Unreadable(error.to_string()))),
        }
    }
    Ok(gathered)
}

/// The roots of listed names, so that equal ones are one value.
#[derive(Default)]
struct Roots {
    base: Option<Arc<Path>>,
    here: Option<Arc<Path>>,
    top: Option<Arc<Path>>,
}

impl Roots {
    fn place(&mut self, name: &Path, base: Option<&Path>) -> Result<Found> {
        let refuse = |reason| Err(BatchError::Listed { path: name.into(), reason }.into());
        let (root, below) = match base {
            // The one may be relative to the current folder.
            Some(base) if name.is_absolute() => match std::path::absolute(base).map(|base| name.strip_prefix(base)) {
                Ok(Ok(below)) => (self.base.get_or_insert_with(|| base.into()), below),
                _ => return refuse("lies outside of the --base folder; take a folder that holds all of the list"),
            },
            Some(base) => (self.base.get_or_insert_with(|| base.into()), name),
            None if name.has_root() => {
                let top = name.ancestors().last().unwrap_or(name);
                (self.top.get_or_insert_with(|| top.into()), name.strip_prefix(top).unwrap_or(name))
            }
            None => (self.here.get_or_insert_with(|| Path::new("").into()), name),
        };
        let mut relative = PathBuf::new();
        for part in below.components() {
            match part {
                Component::Normal(part) => relative.push(part),
                Component::CurDir => {}
                _ => {
                    return refuse(
                        "leads out of a folder with `..`, so that its output has no place; list the whole path, or paths \
                         below a --base folder",
                    );
                }
            }
        }
        if relative.as_os_str().is_empty() {
            return refuse("is a folder, expected a photo");
        }
        Ok(Found { root: root.clone(), relative })
    }
}

impl Gathered {
    /// Everything below a folder, or what matches a pattern there.
    ///
    /// The search keeps its own stack and few open folders, so that no depth overflows; a path that is longer than the system
    /// takes is an error of that folder.
    pub(super) fn walk(
        &mut self,
        root: &Path,
        pattern: Option<(&Path, &Path, &GlobMatcher)>,
        selection: &Selection,
        except: &Except,
    ) {
        let shared: Arc<Path> = root.into();
        let canonical = root.canonicalize().ok();
        let depth = match pattern {
            None if selection.recursive => usize::MAX,
            None => 1,
            Some((_, pattern, _)) if pattern.as_os_str().as_encoded_bytes().windows(2).any(|two| two == b"**") => {
                usize::MAX
            }
            Some((_, pattern, _)) => pattern.components().count(),
        };
        let (photos, skips) = (self.photos.len(), self.skipped.len());
        // A link that was named itself is followed, like the arguments of `find -H`.
        let start = if root.as_os_str().is_empty() { Path::new(".") } else { root };
        let walk = WalkDir::new(start).follow_links(selection.follow_links).min_depth(1).max_depth(depth);
        let mut entries = walk.into_iter();
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.skipped.push(skipped(start, &error));
                    continue;
                }
            };
            let (name, kind_of) = (entry.file_name(), entry.file_type());
            if !selection.hidden && name.as_encoded_bytes().starts_with(b".") {
                self.hidden += 1;
                if kind_of.is_dir() {
                    entries.skip_current_dir();
                }
                continue;
            }
            let relative = entry.path().strip_prefix(start).unwrap_or(entry.path());
            let is_excepted = || {
                let there = match &canonical {
                    Some(canonical) if !selection.follow_links => Some(canonical.join(relative)),
                    _ => entry.path().canonicalize().ok(),
                };
                there.is_some_and(|there| except.has(&there))
            };
            if kind_of.is_dir() {
                if is_excepted() {
                    entries.skip_current_dir();
                } else if entry.depth() == depth && pattern.is_none() {
                    self.folders += 1;
                }
                continue;
            }
            if pattern.is_some_and(|(_, _, matcher)| !matcher.is_match(relative)) {
                continue;
            }
            if !kind_of.is_file() {
                let why = if kind_of.is_symlink() { Why::Link } else { Why::Special(kind(kind_of)) };
                self.skipped.push(Skipped { path: entry.into_path(), why });
                continue;
            }
            if name.as_encoded_bytes().ends_with(SIDECAR.as_bytes()) || except.masks.is_some() && is_excepted() {
                continue;
            }
            let found = || Found { root: shared.clone(), relative: relative.into() };
            if except.is_mask(name) {
                self.masks.push(found());
            } else if is_photo(entry.path()) {
                self.photos.push(found());
            } else {
                let extension = Path::new(name).extension().unwrap_or_default().to_string_lossy().to_lowercase();
                *self.others.entry(extension).or_default() += 1;
            }
        }
        if self.photos.len() == photos && self.skipped.len() == skips {
            let path = pattern.map_or(root, |(input, ..)| input);
            self.skipped.push(Skipped { path: path.into(), why: Why::Empty });
        }
    }
}

fn skipped(start: &Path, error: &walkdir::Error) -> Skipped {
    let path = error.path().unwrap_or(start).into();
    let why = match (error.loop_ancestor(), error.io_error()) {
        (Some(_), _) => Why::Loop,
        (None, Some(error)) => Why::Unreadable(error.to_string()),
        (None, None) => Why::Unreadable(error.to_string()),
    };
    Skipped { path, why }
}

/// Whether nothing has this name. A name that is too long for the system, or that goes through a file, is of nothing, too.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename)
}

/// The part of a pattern before the first one with a wildcard, and the rest, which is empty if there is none.
fn split_pattern(pattern: &Path) -> (PathBuf, PathBuf) {
    let is_wild = |part: &Component<'_>| part.as_os_str().as_encoded_bytes().iter().any(|byte| b"*?[{".contains(byte));
    let parts: Vec<_> = pattern.components().collect();
    let split = parts.iter().position(is_wild).unwrap_or(parts.len());
    (parts[..split].iter().collect(), parts[split..].iter().collect())
}

fn matcher(input: &Path, pattern: &Path) -> Result<GlobMatcher> {
    let refuse = |reason: String| Error::from(BatchError::Pattern { pattern: input.into(), reason });
    let text = pattern.to_str().ok_or_else(|| refuse("is not UTF-8".into()))?;
    // `*` ends at the next folder, as in a shell.
    let glob = GlobBuilder::new(text).literal_separator(true).build();
    glob.map(|glob| glob.compile_matcher()).map_err(|error| refuse(error.kind().to_string()))
}

/// What a path is that is no file.
pub(super) fn kind(of: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if of.is_fifo() {
            return "a pipe";
        }
        if of.is_socket() {
            return "a socket";
        }
        if of.is_char_device() || of.is_block_device() {
            return "a device";
        }
    }
    if of.is_dir() {
        "a folder"
    } else if of.is_symlink() {
        "a symbolic link"
    } else {
        "no file"
    }
}

/// Extensions of the formats that are read here.
const READ: [&str; 20] = [
    "png", "apng", "jpg", "jpeg", "jpe", "jfif", "webp", "tif", "tiff", "gif", "bmp", "dib", "pnm", "pbm", "pgm",
    "ppm", "pam", "qoi", "jif", "jfi",
];

/// Extensions of raw formats, whose first bytes are those of TIFF: beside its JPEG, such a file is no second photo.
const RAW: [&str; 20] = [
    "3fr", "arw", "cr2", "cr3", "crw", "dcr", "dng", "erf", "fff", "iiq", "k25", "kdc", "mos", "nef", "nrw", "orf",
    "pef", "raf", "rw2", "srw",
];

/// Whether a file of a folder is meant as a photo: by its name, else by its first bytes.
fn is_photo(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    match extension.as_deref() {
        Some(extension) if READ.contains(&extension) => true,
        Some(extension) if RAW.contains(&extension) => false,
        _ => {
            let mut head = Vec::with_capacity(64);
            let read = File::open(path).and_then(|file| file.take(64).read_to_end(&mut head));
            read.is_ok() && is_read_here(&head)
        }
    }
}

fn is_read_here(head: &[u8]) -> bool {
    use image::ImageFormat::{Bmp, Gif, Jpeg, Png, Pnm, Qoi, Tiff, WebP};
    let is_known = matches!(image::guess_format(head), Ok(Png | Jpeg | WebP | Tiff | Gif | Bmp | Pnm | Qoi));
    // Two characters also begin a text.
    let is_text = match head {
        [b'P', b'1'..=b'6', rest @ ..] => {
            let number = rest.trim_ascii_start();
            number.len() == rest.len() || !matches!(number, [b'0'..=b'9' | b'#', ..])
        }
        [b'P', b'7', rest @ ..] => !rest.starts_with(b"\n"),
        [b'B', b'M', ..] => head.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()),
        _ => false,
    };
    is_known && !is_text
}

/// Whether a file is a regular one; without `follow_links` a link is none.
pub(super) fn regular(path: &Path, follow_links: bool) -> Option<Metadata> {
    let metadata = if follow_links { path.metadata() } else { path.symlink_metadata() };
    metadata.ok().filter(Metadata::is_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(content: &[u8]) -> Vec<String> {
        read_list(content).iter().map(|path| path.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_list_is_read_as_it_was_written() {
        assert_eq!(names(b"a.jpg\nb c.jpg\n\n-d.jpg"), ["a.jpg", "b c.jpg", "-d.jpg"]);
        assert_eq!(names(b"a\nb.jpg\0c.jpg\0"), ["a\nb.jpg", "c.jpg"]);
        assert_eq!(names(b"\xef\xbb\xbfa.jpg\r\nb.jpg\r\n"), ["a.jpg", "b.jpg"]);
        assert_eq!(names(b"a.jpg\r\nb.jpg\n"), ["a.jpg\r", "b.jpg"], "a carriage return can be part of a name");
        assert!(names(b"").is_empty() && names(b"\n\r\n").is_empty() && names(b"\0").is_empty());
    }

    #[test]
    fn a_pattern_begins_where_the_wildcards_do() {
        let split = |text: &str| {
            let (base, rest) = split_pattern(Path::new(text));
            (base.display().to_string(), rest.display().to_string())
        };
        assert_eq!(split("a/b/*.jpg"), ("a/b".into(), "*.jpg".into()));
        assert_eq!(split("/a/**/x"), ("/a".into(), "**/x".into()));
        assert_eq!(split("*.{jpg,png}"), (String::new(), "*.{jpg,png}".into()));
        assert_eq!(split("a/b.jpg"), ("a/b.jpg".into(), String::new()));
    }

    #[test]
    fn content_that_is_no_image_is_none() {
        assert!(
            is_read_here(b"\x89PNG\r\n\x1a\nmore")
                && is_read_here(b"P6\n# x\n1 1\n")
                && is_read_here(b"P7\nWIDTH 1\n")
                && is_read_here(b"qoif0000")
        );
        for other in [&b""[..], b"P", b"P5P is a plan", b"P5 is one", b"BMW is a car", b"%PDF-1.7", b"#!/bin/sh"] {
            assert!(!is_read_here(other), "{other:?}");
        }
    }
}
