//! How far a batch is.

use super::index::{Damaged, Index};
use super::planned::Planned;
use super::{BatchError, Name, Record, Shard, Status, folder, relative};
use crate::Result;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// How far a batch is, by what lies on the disk. Other processes may be at work meanwhile.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Photos of all shards, as they were planned last; the number of records where no plan was left.
    pub planned: usize,
    /// Of these, photos whose outputs are on the disk.
    pub done: usize,
    /// Of these, photos that failed.
    pub failed: usize,
    /// Photos with a record that the last plans do not hold.
    pub unplanned: usize,
    /// The shards that have begun, in the order of their names.
    pub shards: Vec<ShardProgress>,
    /// Lines that are no records.
    pub damaged: Vec<Damaged>,
}

/// How far a shard is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardProgress {
    /// Which.
    pub shard: Shard,
    /// Its photos.
    pub planned: usize,
    /// Of these, photos whose outputs are on the disk.
    pub done: usize,
    /// Of these, photos that failed.
    pub failed: usize,
}

impl Progress {
    /// Photos that were neither done nor failed.
    pub fn missing(&self) -> usize {
        self.planned.saturating_sub(self.done + self.failed)
    }

    /// Whether every planned photo is done.
    pub fn is_complete(&self) -> bool {
        self.done == self.planned
    }
}

/// Reads all manifests and plans of an output folder.
///
/// What is planned is what the runs of the latest division (everything, or so many shards) set out to do. As long as some
/// of its shards have not begun, their photos are known by number alone, or from plans of earlier divisions.
///
/// # Errors
/// [`BatchError::NoRecord`] if `out` is no output folder of a batch; `Io`; [`BatchError::LaterVersion`].
pub fn status(out: &Path) -> Result<Progress> {
    status_with(out, |_| (), |_| ())
}

/// As [`status`], and tells the records of photos that failed, and the photos without a record or without the outputs that it
/// names, both in the order of their relative paths.
///
/// # Errors
/// The same.
pub fn status_with(out: &Path, mut failed: impl FnMut(Record), mut missing: impl FnMut(&Name)) -> Result<Progress> {
    let index = read(out)?;
    let gone = without_outputs(out, &index)?;
    let status = |key: &[u8]| index.get(key).map(|place| place.status).filter(|_| !gone.contains(key));
    let mut plans = folder::shards(&folder::plans(out))?;
    let written = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    let latest = plans.iter().max_by_key(|(_, path)| written(path)).map(|(shard, _)| shard.division());
    plans.sort_by_key(|(shard, _)| Some(shard.division()) != latest);
    let mut names: BTreeMap<Vec<u8>, Name> = BTreeMap::new();
    let mut shards = Vec::new();
    let mut total = 0;
    for (shard, _) in plans {
        let is_latest = Some(shard.division()) == latest;
        if !is_latest && names.len() >= total {
            break;
        }
        let mut of = ShardProgress { shard, planned: 0, done: 0, failed: 0 };
        let head = Planned::read(out, shard, |name| {
            let key = relative::key(name.path());
            of.planned += 1;
            match status(&key) {
                Some(Status::Done) => of.done += 1,
                Some(Status::Failed) => of.failed += 1,
                None => {}
            }
            names.insert(key, name.clone());
        })?;
        if is_latest {
            total = total.max(head.map_or(0, |head| head.total));
            shards.push(of);
        }
    }
    // Without a plan, nothing but the records says what there was to do.
    let is_planned = |key: &[u8]| latest.is_none() || names.contains_key(key);
    let mut progress = Progress {
        planned: if latest.is_none() {
            index.places().count()
        } else {
            total.max(shards.iter().map(|of| of.planned).sum())
        },
        done: 0,
        failed: 0,
        unplanned: 0,
        shards,
        damaged: index.damaged.clone(),
    };
    for (key, place) in index.places() {
        match place.status {
            _ if !is_planned(key) => progress.unplanned += 1,
            Status::Done => progress.done += usize::from(!gone.contains(key)),
            Status::Failed => progress.failed += 1,
        }
    }
    for place in index.sorted(|place| place.status == Status::Failed) {
        let record = index.record(place)?;
        if is_planned(&relative::key(record.input.path())) {
            failed(record);
        }
    }
    names.iter().filter(|(key, _)| status(key).is_none()).for_each(|(_, name)| missing(name));
    Ok(progress)
}

/// The keys of the photos that were done and of whose outputs one is not there any more.
fn without_outputs(out: &Path, index: &Index) -> Result<HashSet<Vec<u8>>> {
    let mut gone = HashSet::new();
    for (key, place) in index.places().filter(|(_, place)| place.status == Status::Done) {
        let record = index.record(place)?;
        if record.outputs.iter().any(|output| out.join(output.name.path()).symlink_metadata().is_err()) {
            gone.insert(key.to_vec());
        }
    }
    Ok(gone)
}

/// All manifests of a folder.
pub(super) fn read(out: &Path) -> Result<Index> {
    let manifests = folder::shards(&folder::manifests(out))?;
    if manifests.is_empty() && folder::shards(&folder::plans(out))?.is_empty() {
        return Err(BatchError::NoRecord { path: out.into() }.into());
    }
    let mut index = Index::default();
    for (_, path) in manifests {
        index.read_path(&path)?;
    }
    Ok(index)
}
