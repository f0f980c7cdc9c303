//! What a shard set out to do, on the disk.

use super::record::SCHEMA;
use super::{Name, Naming, Plan, Shard, folder, relative};
use crate::image::{ImageError, write_atomically_with};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// A name has at most 4096 bytes on any system in use; in JSON a byte has at most six.
const LONGEST: u64 = 1 << 16;

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
}

/// A further line.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    input: Name,
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
    pub(super) fn write(out: &Path, plan: &Plan, has_record: &dyn Fn(&[u8]) -> bool) -> Result<()> {
        let folder = folder::plans(out);
        folder::make(&folder)?;
        let path = path(out, plan.shard);
        let is_new =
            |key: &[u8]| plan.items.binary_search_by(|item| relative::key(&item.relative).as_slice().cmp(key)).is_err();
        let mut earlier = Vec::new();
        visit(&path, |name, _, naming| {
            let key = relative::key(name.path());
            if is_new(&key) && !has_record(&key) {
                earlier.push((name, naming.cloned()));
            }
        })?;
        let failed = |source| ImageError::Write { path: path.clone(), source };
        write_atomically_with::<Error>(&path, true, |file, _| {
            let mut writer = BufWriter::with_capacity(1 << 16, file);
            let naming = Some(plan.naming.clone());
            let head = Self { schema: SCHEMA, items: plan.items.len(), total: plan.total, naming };
            let mut put = |line: serde_json::Result<Vec<u8>>| -> Result<()> {
                let mut line = line.map_err(|error| failed(error.into()))?;
                line.push(b'\n');
                Ok(writer.write_all(&line).map_err(failed)?)
            };
            put(serde_json::to_vec(&head))?;
            for item in &plan.items {
                put(serde_json::to_vec(&Line { input: Name::new(&item.relative), earlier: false, naming: None }))?;
            }
            for (input, naming) in earlier {
                put(serde_json::to_vec(&Line { input, earlier: true, naming }))?;
            }
            Ok(writer.flush().map_err(failed)?)
        })
    }

    /// Reads the plan of a shard: its first line, and every name that is in it and not of an earlier one. `None` if there is
    /// no plan, or none that can be read.
    pub(super) fn read(out: &Path, shard: Shard, mut visit_name: impl FnMut(&Name)) -> Result<Option<Self>> {
        visit(&path(out, shard), |name, earlier, _| {
            if !earlier {
                visit_name(&name);
            }
        })
    }

    /// Calls `visit_name` for every name in all plans, earlier ones included, with what its outputs were to be called.
    pub(super) fn names_of_all(out: &Path, mut visit_name: impl FnMut(&Name, &Naming)) -> Result<()> {
        for (_, path) in folder::shards(&folder::plans(out))? {
            visit(&path, |name, _, naming| {
                if let Some(naming) = naming {
                    visit_name(&name, naming);
                }
            })?;
        }
        Ok(())
    }
}

fn path(out: &Path, shard: Shard) -> PathBuf {
    folder::plans(out).join(format!("{}.jsonl", shard.name()))
}

/// Calls `name` for every name. Lines that are none are passed over: the file only tells what is missing and what may be
/// replaced, and a name that is not in it is on the safe side.
fn visit(path: &Path, mut name: impl FnMut(Name, bool, Option<&Naming>)) -> Result<Option<Planned>> {
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
        if let Ok(Line { input, earlier, naming }) = serde_json::from_slice(&line) {
            let of_plan = head.as_ref().and_then(|head| head.naming.as_ref());
            name(input, earlier, naming.as_ref().or(of_plan));
        } else if head.is_none() {
            head = serde_json::from_slice(&line).ok();
        }
    }
}
