//! How far a batch is.

use super::index::{Damaged, Index};
use super::planned::Planned;
use super::{BatchError, Name, Record, Shard, Status, Written, folder, relative};
use crate::Result;
use std::collections::BTreeMap;
use std::path::Path;

/// How far a batch is, by what lies on the disk. Other processes may be at work meanwhile.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Photos of all shards, as they were planned last; the number of records where no plan was left.
    pub planned: usize,
    /// Of these, photos whose outputs are on the disk, made as the plan says.
    pub done: usize,
    /// Of these, photos that failed so.
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
/// of its shards have not begun, their photos are known by number alone, or from plans of earlier divisions. What was made with
/// other settings, another model or another seed than its plan's is missing: the same run would make it anew.
///
/// # Errors
/// [`BatchError::NoRecord`] if `out` is no output folder of a batch; `Io`; [`BatchError::LaterVersion`].
pub fn status(out: &Path) -> Result<Progress> {
    status_with(out, |_| (), |_| ())
}

/// As [`status`], and tells the records of photos that failed, and the photos that are missing, both in the order of their
/// relative paths.
///
/// # Errors
/// The same.
pub fn status_with(out: &Path, mut failed: impl FnMut(Record), mut missing: impl FnMut(&Name)) -> Result<Progress> {
    let index = read(out)?;
    let mut plans = folder::shards(&folder::plans(out))?;
    let written = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    let newest = plans.iter().max_by_key(|(_, path)| written(path)).map(|(shard, _)| *shard);
    // A shard that has not begun will be done as the one that began last.
    let to_come = newest.map(|shard| Planned::read(out, shard, |_, _| Ok(()))).transpose()?.flatten();
    let division = newest.map(Shard::division);
    plans.sort_by_key(|(shard, _)| Some(shard.division()) != division);
    let mut photos: BTreeMap<Vec<u8>, (Name, Option<Status>)> = BTreeMap::new();
    let mut shards = Vec::new();
    let mut total = 0;
    for (shard, _) in plans {
        let is_latest = Some(shard.division()) == division;
        if !is_latest && photos.len() >= total {
            break;
        }
        let mut of = ShardProgress { shard, planned: 0, done: 0, failed: 0 };
        let head = Planned::read(out, shard, |own, line| {
            let key = relative::key(line.input.path());
            let is_wanted = |record: &Record| match (own, &to_come) {
                (Some(own), Some(to_come)) if !is_latest && !own.is_like(to_come) => to_come.wants(record, None),
                (own, _) => own.is_none_or(|own| own.wants(record, Some(&line))),
            };
            let record = index.get(&key).map(|place| index.record(place)).transpose()?.filter(is_wanted);
            let status = record.and_then(|record| status_of(out, &record));
            of.planned += 1;
            match status {
                Some(Status::Done) => of.done += 1,
                Some(Status::Failed) => of.failed += 1,
                None => {}
            }
            photos.entry(key).or_insert((line.input, status));
            Ok(())
        })?;
        if is_latest {
            total = total.max(head.map_or(0, |head| head.total));
            shards.push(of);
        }
    }
    let mut planned = total.max(shards.iter().map(|of| of.planned).sum());
    if newest.is_none() {
        // Nothing but the records says what there was to do.
        for place in index.sorted(|_| true) {
            let record = index.record(place)?;
            let status = status_of(out, &record);
            photos.insert(relative::key(record.input.path()), (record.input, status));
        }
        planned = photos.len();
    }
    let count = |status: Status| photos.values().filter(|(_, of)| *of == Some(status)).count();
    let progress = Progress {
        planned,
        done: count(Status::Done),
        failed: count(Status::Failed),
        unplanned: index.places().filter(|(key, _)| !photos.contains_key(*key)).count(),
        shards,
        damaged: index.damaged.clone(),
    };
    for (key, (name, status)) in &photos {
        match (status, index.get(key)) {
            (Some(Status::Failed), Some(place)) => failed(index.record(place)?),
            (None, _) => missing(name),
            _ => {}
        }
    }
    Ok(progress)
}

/// What a record says; `None` if it says that the photo is done, and an output is not there any more.
fn status_of(out: &Path, record: &Record) -> Option<Status> {
    let is_there = |output: &Written| out.join(output.name.path()).symlink_metadata().is_ok();
    (record.status == Status::Failed || record.outputs.iter().all(is_there)).then_some(record.status)
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
