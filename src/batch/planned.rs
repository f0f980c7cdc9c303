//! What a shard set out to do, on the disk.

use super::record::SCHEMA;
use super::{Item, Name, Naming, Plan, Record, Shard, Wanted, folder, relative, seed};
use crate::image::{ImageError, write_atomically_with};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// A name has at most 4096 bytes on any system in use; in JSON a byte has at most six.
const LONGEST: u64 = 1 << 16;

/// What the records of a run will say, by which [`status`](super::status()) tells them from those of other runs.
#[derive(Clone, Copy, Debug)]
pub struct Intent<'a> {
    /// Hash of the settings of the run, and of the model.
    pub wanted: Wanted<'a>,
    /// Seed of the run.
    pub seed: u64,
    /// Hashes of the settings of photos that have a file of their own, by relative path; empty where that file makes no sense, as
    /// in the record of such a photo.
    pub own_hashes: &'a BTreeMap<PathBuf, String>,
}

/// The first line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Planned {
    schema: u32,
    /// Photos of this shard.
    pub(super) items: usize,
    /// Photos of all shards.
    pub(super) total: usize,
    /// What its outputs are called.
    #[serde(default)]
    naming: Option<Naming>,
    /// What they are made with.
    #[serde(default)]
    made: Option<Made>,
}

/// What the outputs of a run are made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    /// Hash of the settings, but for photos that have their own.
    options_hash: String,
    model_hash: String,
    /// Seed of the run.
    seed: u64,
}

/// A further line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) input: Name,
    /// Hash of the photo's own settings, if it has a file of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    options_hash: Option<String>,
    /// Whether an earlier plan holds it and this one does not.
    #[serde(default, skip_serializing_if = "is_false")]
    earlier: bool,
    /// What its outputs were to be called in that plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    naming: Option<Naming>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Planned {
    /// Writes the plan. Names of the plan before this one, for which there is neither a place in this one nor a record, stay:
    /// their outputs may be there.
    pub(super) fn write(
        out: &Path,
        plan: &Plan,
        intent: &Intent<'_>,
        has_record: &dyn Fn(&[u8]) -> bool,
    ) -> Result<()> {
        let folder = folder::plans(out);
        folder::make(&folder)?;
        let path = path(out, plan.shard);
        let is_new =
            |key: &[u8]| plan.items.binary_search_by(|item| relative::key(&item.relative).as_slice().cmp(key)).is_err();
        let mut earlier = Vec::new();
        visit(&path, |before, line| {
            let key = relative::key(line.input.path());
            if is_new(&key) && !has_record(&key) {
                let naming = line.naming.or_else(|| before?.naming.clone());
                earlier.push(Line { input: line.input, options_hash: None, earlier: true, naming });
            }
            Ok(())
        })?;
        let failed = |source| ImageError::Write { path: path.clone(), source };
        write_atomically_with::<Error>(&path, true, |file, _| {
            let mut writer = BufWriter::with_capacity(1 << 16, file);
            let naming = Some(plan.naming.clone());
            let Intent { wanted: Wanted { options_hash, model_hash }, seed, own_hashes } = *intent;
            let made = Some(Made { options_hash: options_hash.into(), model_hash: model_hash.into(), seed });
            let head = Self { schema: SCHEMA, items: plan.items.len(), total: plan.total, naming, made };
            let mut put = |line: serde_json::Result<Vec<u8>>| -> Result<()> {
                let mut line = line.map_err(|error| failed(error.into()))?;
                line.push(b'\n');
                Ok(writer.write_all(&line).map_err(failed)?)
            };
            put(serde_json::to_vec(&head))?;
            for item in &plan.items {
                let Item { relative, .. } = item;
                let options_hash = own_hashes.get(relative).cloned();
                let line = Line { input: Name::new(relative), options_hash, earlier: false, naming: None };
                put(serde_json::to_vec(&line))?;
            }
            for line in earlier {
                put(serde_json::to_vec(&line))?;
            }
            Ok(writer.flush().map_err(failed)?)
        })
    }

    /// Reads the plan of a shard: its first line, and with it every line that is of this plan and not of an earlier one. `None`
    /// if there is no plan, or none that can be read.
    pub(super) fn read(
        out: &Path,
        shard: Shard,
        mut visit_line: impl FnMut(Option<&Self>, Line) -> Result<()>,
    ) -> Result<Option<Self>> {
        visit(&path(out, shard), |head, line| if line.earlier { Ok(()) } else { visit_line(head, line) })
    }

    /// Whether this plan makes photos as `other` does. Plans that do not say make them as any does.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.made.is_none() || other.made.is_none() || self.made == other.made
    }

    /// Whether a record is what this plan was to make of a photo, whose own settings are those of `line` if it is given.
    pub(super) fn wants(&self, record: &Record, line: Option<&Line>) -> bool {
        let Some(Made { options_hash, model_hash, seed: of_run }) = &self.made else { return true };
        let options_hash = line.and_then(|line| line.options_hash.as_ref()).unwrap_or(options_hash);
        record.options_hash == *options_hash
            && record.model_hash == *model_hash
            && record.seed == seed(*of_run, record.input.path())
    }

    /// Calls `visit_name` for every name in all plans, earlier ones included, with what its outputs were to be called.
    pub(super) fn names_of_all(out: &Path, mut visit_name: impl FnMut(&Name, &Naming)) -> Result<()> {
        for (_, path) in folder::shards(&folder::plans(out))? {
            visit(&path, |head, line| {
                let of_plan = head.and_then(|head| head.naming.as_ref());
                if let Some(naming) = line.naming.as_ref().or(of_plan) {
                    visit_name(&line.input, naming);
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

fn path(out: &Path, shard: Shard) -> PathBuf {
    folder::plans(out).join(format!("{}.jsonl", shard.name()))
}

/// Calls `visit_line` for every line with a name. Others are passed over: the file only tells what is missing and what may be
/// replaced, and a name that is not in it is on the safe side.
fn visit(path: &Path, mut visit_line: impl FnMut(Option<&Planned>, Line) -> Result<()>) -> Result<Option<Planned>> {
    let failed = |source| Error::Io { path: path.into(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut head: Option<Planned> = None;
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut reader).take(LONGEST).read_until(b'\n', &mut line).map_err(failed)? == 0 {
            return Ok(head);
        }
        if let Ok(line) = serde_json::from_slice(&line) {
            visit_line(head.as_ref(), line)?;
        } else if head.is_none() {
            head = serde_json::from_slice(&line).ok();
        }
    }
}
