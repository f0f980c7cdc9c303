//! What a run is going to do.

use super::inputs::{Except, Gathered};
use super::naming::LONGEST;
use super::{Masks, Naming, Outputs, Selection, Shard, Unpaired, collisions, inputs, pairing, relative, seed};
use crate::Result;
use crate::image::MaskSource;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One photo of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its path below the input folder, which is its name in the batch and decides everything else.
    pub relative: PathBuf,
    /// What `relative` is below of.
    pub root: Arc<Path>,
    /// Where its mask comes from, if it has one. Photos with the same mask share the value.
    pub mask: Option<Arc<MaskSource>>,
    /// Whether a file of settings lies beside it.
    pub has_sidecar: bool,
    /// Its seed.
    pub seed: u64,
}

impl Item {
    /// The photo at `root/relative`, without mask and settings of its own.
    pub fn new(root: Arc<Path>, relative: PathBuf, seed_of_run: u64) -> Self {
        let seed = seed(seed_of_run, &relative);
        Self { relative, root, mask: None, has_sidecar: false, seed }
    }

    /// The photo's file.
    pub fn path(&self) -> PathBuf {
        self.root.join(&self.relative)
    }

    /// The file of settings beside it: `cat.jpg.tweedie.toml` for `cat.jpg`.
    pub fn sidecar(&self) -> Option<PathBuf> {
        self.has_sidecar.then(|| sidecar(&self.path()))
    }
}

/// What the file of settings of a photo ends with.
pub(super) const SIDECAR: &str = ".tweedie.toml";

pub(super) fn sidecar(photo: &Path) -> PathBuf {
    let mut name = photo.as_os_str().to_owned();
    name.push(SIDECAR);
    name.into()
}

/// What a run is going to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The photos of this shard, sorted by relative path.
    pub items: Vec<Item>,
    /// What was met and left out, with the reason, sorted by path.
    pub skipped: Vec<Skipped>,
    /// What the outputs are called.
    pub naming: Naming,
    /// The part of the whole that `items` is.
    pub shard: Shard,
    /// Photos of all shards.
    pub total: usize,
    /// Files in folders that are no photos, by name and content: how many of each extension, in lower case.
    pub others: BTreeMap<String, usize>,
    /// Names in folders that begin with a dot and were left out.
    pub hidden: usize,
    /// Folders that were not looked into, because nobody asked for sub-folders.
    pub folders: usize,
}

impl Plan {
    /// A plan of these photos, sorted, and with those of the shard alone.
    pub fn of(mut items: Vec<Item>, naming: Naming, shard: Shard) -> Self {
        items.sort_by_cached_key(|item| relative::key(&item.relative));
        let total = items.len();
        let mut position = 0..;
        items.retain(|item| shard.takes(item, position.next().expect("the range has no end")));
        items.shrink_to_fit();
        Self { items, skipped: Vec::new(), naming, shard, total, others: BTreeMap::new(), hidden: 0, folders: 0 }
    }

    /// The names of a photo's outputs below the output folder.
    pub fn outputs(&self, item: &Item) -> Outputs {
        self.naming.outputs(&item.relative)
    }

    /// Whether something that was asked for cannot be done: the run will end with exit code 1.
    pub fn has_errors(&self) -> bool {
        self.skipped.iter().any(|skipped| skipped.why.is_error())
    }
}

/// What a plan is made of.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The photos.
    pub selection: &'a Selection,
    /// Their masks.
    pub masks: &'a Masks,
    /// What is done with photos without a mask and masks without a photo.
    pub unpaired: Unpaired,
    /// The output folder; it need not be there.
    pub out: &'a Path,
    /// What the outputs are called.
    pub naming: Naming,
    /// The seed of the run.
    pub seed: u64,
    /// The part to be done.
    pub shard: Shard,
}

impl Plan {
    /// Finds the photos and their masks. Nothing is decoded and nothing is written.
    ///
    /// Names, seeds and pairs are checked for all shards, so that every shard refuses what one of them would.
    ///
    /// # Errors
    /// [`BatchError`](super::BatchError) if an input is not there or lies in the output folder, masks do not pair, or two photos
    /// would have one output. What a folder holds besides, unreadable or of another kind, is in [`Plan::skipped`].
    pub fn new(request: &Request<'_>) -> Result<Self> {
        let Request { selection, masks, out, naming, .. } = request;
        let mut except = Except { out: out.canonicalize().ok(), ..Except::default() };
        pairing::except(masks, &mut except)?;
        let Gathered { photos, masks: beside, mut skipped, others, hidden, folders } =
            inputs::gather(selection, out, &except)?;
        let mut named = photos;
        named.retain(|photo| {
            let bytes = naming.longest(&photo.relative);
            let fits = bytes <= LONGEST;
            if !fits {
                skipped.push(Skipped { path: photo.path(), why: Why::LongName(bytes) });
            }
            fits
        });
        named.sort_by_cached_key(|photo| relative::key(&photo.relative));
        named
            .dedup_by(|second, first| first.relative == second.relative && is_same_file(&first.path(), &second.path()));
        let pairs = pairing::pair(named, beside, masks, request.unpaired, selection, &mut skipped)?;
        let items = pairs.into_iter().map(|(photo, mask)| {
            let mut item = Item { mask, ..Item::new(photo.root, photo.relative, request.seed) };
            item.has_sidecar = sidecar(&item.path()).metadata().is_ok();
            item
        });
        let items: Vec<Item> = items.collect();
        collisions::check(&items, naming)?;
        collisions::check_links(&items, out)?;
        skipped.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        Ok(Self { skipped, others, hidden, folders, ..Self::of(items, naming.clone(), request.shard) })
    }
}

/// Whether two paths lead to one file.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let there = |path: &Path| path.canonicalize().ok();
    one == other || there(one).is_some_and(|one| there(other) == Some(one))
}

/// Something that was met and left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its path.
    pub path: PathBuf,
    /// Why.
    pub why: Why,
}

/// Why something was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// A symbolic link; `--follow-links` takes what it points to.
    Link,
    /// A pipe, socket or device: it could block for ever.
    Special(&'static str),
    /// A folder, or a link when links are followed, that cannot be read.
    Unreadable(String),
    /// A name of a list that is not there.
    Missing,
    /// A name of a list that is no file.
    Listed(&'static str),
    /// A link that leads back to a folder that holds it.
    Loop,
    /// The longest name of its outputs has more bytes than file systems take.
    LongName(usize),
    /// It has no mask, and such photos were to be left out.
    NoMask,
    /// A mask without a photo.
    NoPhoto,
    /// A folder or a pattern without photos.
    Empty,
}

impl Why {
    /// Whether work that was asked for is not done because of it.
    pub fn is_error(&self) -> bool {
        matches!(self, Self::Unreadable(_) | Self::Missing | Self::Listed(_) | Self::LongName(_))
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link => f.write_str("symbolic link, not followed; --follow-links does"),
            Self::Special(kind) => write!(f, "{kind}, not a file"),
            Self::Unreadable(reason) => write!(f, "cannot be read: {reason}"),
            Self::Missing => f.write_str("no such file"),
            Self::Listed("a folder") => {
                f.write_str("is a folder, expected a photo; name the folder among the inputs, or list what is in it")
            }
            Self::Listed(kind) => write!(f, "is {kind}, expected a photo"),
            Self::Loop => f.write_str("link to a folder that it lies in"),
            Self::LongName(bytes) => {
                write!(f, "its output's name would have {bytes} bytes, file systems take {}; rename the photo", LONGEST)
            }
            Self::NoMask => f.write_str("no mask"),
            Self::NoPhoto => f.write_str("mask without a photo"),
            Self::Empty => f.write_str("no photos in it"),
        }
    }
}
