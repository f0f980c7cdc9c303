//! Which mask belongs to which photo.

use super::inputs::{Except, Found, Gathered, Selection, kind, regular};
use super::{BatchError, Skipped, Why, relative};
use crate::image::MaskSource;
use crate::{Error, Result};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the masks of a batch come from. They pair by name, never by position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Masks {
    /// There are none.
    #[default]
    None,
    /// A folder with the tree of the photos: the mask of `a/cat.jpg` is `a/cat.jpg` there, else the only `a/cat.*`.
    Folder(PathBuf),
    /// Beside the photos: with `.mask.png`, the mask of `cat.jpg` is `cat.jpg.mask.png` or `cat.mask.png`.
    Suffix(String),
    /// The same for all photos.
    One(MaskSource),
}

impl Masks {
    /// A mask of the kind that all photos have.
    pub fn example(&self) -> Option<MaskSource> {
        match self {
            Self::None => None,
            Self::Folder(_) | Self::Suffix(_) => Some(MaskSource::File(PathBuf::new())),
            Self::One(source) => Some(source.clone()),
        }
    }
}

/// What is done with photos without a mask and masks without a photo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unpaired {
    /// The batch is refused before any work.
    #[default]
    Refuse,
    /// They are left out, and listed.
    Skip,
}

/// What the search for photos passes over because of the masks.
pub(super) fn except(masks: &Masks, except: &mut Except) -> Result<()> {
    match masks {
        Masks::None | Masks::One(MaskSource::Alpha | MaskSource::Color { .. }) => {}
        Masks::Suffix(suffix) => {
            if suffix.is_empty() || suffix.contains(['/', '\\']) {
                return Err(Error::Config {
                    name: "--mask-suffix".into(),
                    got: format!("`{suffix}`"),
                    expected: "the end of a name, such as .mask.png".into(),
                });
            }
            except.mask_suffix = Some(suffix.clone());
        }
        Masks::Folder(path) | Masks::One(MaskSource::File(path)) => {
            let wants_folder = matches!(masks, Masks::Folder(_));
            match path.metadata() {
                Ok(metadata) if metadata.is_dir() == wants_folder && (wants_folder || metadata.is_file()) => {
                    except.masks = path.canonicalize().ok();
                }
                Ok(metadata) => {
                    return Err(Error::Config {
                        name: "--masks".into(),
                        got: format!("{}, {}", path.display(), kind(metadata.file_type())),
                        expected: "a folder of masks or one mask".into(),
                    });
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(BatchError::NoSuchInput { path: path.clone() }.into());
                }
                Err(source) => return Err(Error::Io { path: path.clone(), source }),
            }
        }
    }
    Ok(())
}

/// The photos with their masks; what has no partner is refused or goes to what was skipped.
pub(super) fn pair(
    photos: Vec<Found>,
    beside: Vec<Found>,
    masks: &Masks,
    unpaired: Unpaired,
    selection: &Selection,
    skipped: &mut Vec<Skipped>,
) -> Result<Vec<(Found, Option<Arc<MaskSource>>)>> {
    let mut pairs = Pairs::default();
    match masks {
        Masks::None => return Ok(photos.into_iter().map(|photo| (photo, None)).collect()),
        Masks::One(source) => {
            let mask = Arc::new(source.clone());
            return Ok(photos.into_iter().map(|photo| (photo, Some(mask.clone()))).collect());
        }
        Masks::Folder(folder) => pairs.by_path(photos, folder, selection, skipped),
        Masks::Suffix(suffix) => pairs.by_suffix(photos, beside, suffix, selection.follow_links),
    }
    let Pairs { paired, missing, extra, ambiguous } = pairs;
    let has_strays = !missing.is_empty() || !extra.is_empty();
    if !ambiguous.is_empty() || has_strays && unpaired == Unpaired::Refuse {
        return Err(BatchError::Unpaired { missing, extra, ambiguous }.into());
    }
    skipped.extend(missing.into_iter().map(|path| Skipped { path, why: Why::NoMask }));
    skipped.extend(extra.into_iter().map(|path| Skipped { path, why: Why::NoPhoto }));
    Ok(paired)
}

#[derive(Default)]
struct Pairs {
    paired: Vec<(Found, Option<Arc<MaskSource>>)>,
    missing: Vec<PathBuf>,
    extra: Vec<PathBuf>,
    ambiguous: Vec<(PathBuf, [PathBuf; 2])>,
}

impl Pairs {
    fn by_path(&mut self, photos: Vec<Found>, folder: &Path, selection: &Selection, skipped: &mut Vec<Skipped>) {
        let mut there = Gathered::default();
        // A mask lies as deep as its photo, whatever pattern found that.
        let everywhere = Selection { recursive: true, ..selection.clone() };
        there.walk(folder, None, &everywhere, &Except::default());
        skipped.extend(there.skipped.into_iter().filter(|skipped| skipped.why != Why::Empty));
        let masks = there.photos;
        let mut by_path = HashMap::new();
        let mut by_stem: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
        for (at, mask) in masks.iter().enumerate() {
            by_path.insert(relative::key(&mask.relative), at);
            by_stem.entry(stem(&mask.relative)).or_default().push(at);
        }
        let mut used = vec![false; masks.len()];
        for photo in photos {
            let found = match by_path.get(&relative::key(&photo.relative)) {
                Some(&at) => Some(at),
                None => match by_stem.get(&stem(&photo.relative)).map(Vec::as_slice) {
                    None => None,
                    Some(&[at]) => Some(at),
                    Some(several) => {
                        several.iter().for_each(|&at| used[at] = true);
                        let two = [several[0], several[1]].map(|at| masks[at].path());
                        self.ambiguous.push((photo.path(), two));
                        continue;
                    }
                },
            };
            match found {
                None => self.missing.push(photo.path()),
                Some(at) => {
                    used[at] = true;
                    self.paired.push((photo, Some(Arc::new(MaskSource::File(masks[at].path())))));
                }
            }
        }
        self.extra = masks.iter().zip(used).filter(|(_, used)| !used).map(|(mask, _)| mask.path()).collect();
    }

    fn by_suffix(&mut self, photos: Vec<Found>, beside: Vec<Found>, suffix: &str, follow_links: bool) {
        let mut unused: HashMap<PathBuf, ()> = beside.iter().map(|mask| (mask.path(), ())).collect();
        for photo in photos {
            let path = photo.path();
            let of = |name: &std::ffi::OsStr| {
                let mut name = name.to_owned();
                name.push(suffix);
                path.with_file_name(name)
            };
            let full = of(path.file_name().unwrap_or_default());
            let short = of(path.file_stem().unwrap_or_default());
            let is_there = |mask: &Path| mask != path && regular(mask, follow_links).is_some();
            match (is_there(&full), full != short && is_there(&short)) {
                (false, false) => self.missing.push(path),
                (true, true) => {
                    unused.remove(&full);
                    unused.remove(&short);
                    self.ambiguous.push((path, [full, short]));
                }
                (is_full, _) => {
                    let mask = if is_full { full } else { short };
                    unused.remove(&mask);
                    self.paired.push((photo, Some(Arc::new(MaskSource::File(mask)))));
                }
            }
        }
        self.extra = unused.into_keys().collect();
        self.extra.sort_unstable();
    }
}

/// The relative path without the extension.
fn stem(relative: &Path) -> Vec<u8> {
    relative::key(&relative.with_extension(""))
}
