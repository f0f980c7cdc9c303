//! The part of a plan that one process does.

use super::{Item, relative};
use crate::digest;
use crate::{Error, Result};
use std::fmt;

/// The part of a plan that one process does. Indices count from 1.
///
/// The shards of one count are disjoint and cover the plan. By hash a photo stays in its shard when others come or go; slices
/// have equal sizes but shift.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Shard {
    /// Everything.
    #[default]
    All,
    /// Photos whose relative path has a hash that is `index − 1` modulo `count`.
    Hash {
        /// From 1 to `count`.
        index: u32,
        /// Number of shards.
        count: u32,
    },
    /// Every `count`-th photo of the sorted plan, from the `index`-th.
    Slice {
        /// From 1 to `count`.
        index: u32,
        /// Number of shards.
        count: u32,
    },
}

/// What [`Shard::parse`] takes.
const EXPECTED: &str = "i/n, hash:i/n or slice:i/n with i from 1 to n, auto, or auto/n";

impl Shard {
    /// `i/n`, `hash:i/n`, `slice:i/n`; `auto` and `auto/n` ask `variable`, as [`std::env::var`] does, for what the
    /// scheduler says.
    ///
    /// * Slurm arrays: `SLURM_ARRAY_TASK_ID` counted from `SLURM_ARRAY_TASK_MIN` in steps of `SLURM_ARRAY_TASK_STEP`, of
    ///   `SLURM_ARRAY_TASK_COUNT`. An array with gaps is refused, and so is `auto/n` if its tasks are not n: after
    ///   `--array=3,7` the numbers say nothing about the shards of the first run.
    /// * Kubernetes indexed jobs: `JOB_COMPLETION_INDEX` from 0. The count is not told, hence `auto/n`.
    ///
    /// # Errors
    /// `Config` for another text, an index outside of 1 to n, or variables that are not there or do not fit.
    pub fn parse(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let refuse = || refused(text, EXPECTED);
        if text == "auto" {
            return automatic(None, variable);
        }
        if let Some(count) = text.strip_prefix("auto/") {
            let count = count.parse().ok().filter(|&count| count > 0).ok_or_else(refuse)?;
            return automatic(Some(count), variable);
        }
        let (by_slice, part) = match text.split_once(':') {
            None => (false, text),
            Some(("hash", part)) => (false, part),
            Some(("slice", part)) => (true, part),
            Some(_) => return Err(refuse()),
        };
        let (index, count) = part.split_once('/').ok_or_else(refuse)?;
        let (index, count) = (number(index).ok_or_else(refuse)?, number(count).ok_or_else(refuse)?);
        if index == 0 || index > count {
            return Err(refuse());
        }
        Ok(if by_slice { Self::Slice { index, count } } else { Self::Hash { index, count } })
    }

    /// Whether this shard does `item`, which is at `position` of the whole sorted plan, from 0.
    pub fn takes(self, item: &Item, position: usize) -> bool {
        match self {
            Self::All => true,
            Self::Hash { index, count } => {
                let hash = digest::number(&[b"tweedie batch shard", &relative::key(&item.relative)]);
                hash % u64::from(count) == u64::from(index - 1)
            }
            Self::Slice { index, count } => position % count as usize == index as usize - 1,
        }
    }

    /// Number of shards.
    pub fn count(self) -> u32 {
        match self {
            Self::All => 1,
            Self::Hash { count, .. } | Self::Slice { count, .. } => count,
        }
    }

    /// The name of its files: `all`, `hash-1-of-3`, `slice-1-of-3`.
    pub fn name(self) -> String {
        match self {
            Self::All => "all".into(),
            Self::Hash { index, count } => format!("hash-{index}-of-{count}"),
            Self::Slice { index, count } => format!("slice-{index}-of-{count}"),
        }
    }

    /// The shard whose files have this name.
    pub fn from_name(name: &str) -> Option<Self> {
        let of = |text: &str| {
            let (index, count) = text.split_once("-of-")?;
            let (index, count) = (number(index)?, number(count)?);
            (1..=count).contains(&index).then_some((index, count))
        };
        let shard = match name.split_once('-') {
            None => (name == "all").then_some(Self::All),
            Some(("hash", part)) => of(part).map(|(index, count)| Self::Hash { index, count }),
            Some(("slice", part)) => of(part).map(|(index, count)| Self::Slice { index, count }),
            Some(_) => None,
        };
        shard.filter(|shard| shard.name() == name)
    }

    /// All shards of the same kind and count: what works on one folder at the same time. `all`, `hash/3`, `slice/3`.
    pub(super) fn division(self) -> String {
        match self {
            Self::All => "all".into(),
            Self::Hash { count, .. } => format!("hash/{count}"),
            Self::Slice { count, .. } => format!("slice/{count}"),
        }
    }
}

impl fmt::Display for Shard {
    /// As [`Shard::parse`] reads it; `1/1` for everything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => write!(f, "1/1"),
            Self::Hash { index, count } => write!(f, "hash:{index}/{count}"),
            Self::Slice { index, count } => write!(f, "slice:{index}/{count}"),
        }
    }
}

/// Digits only: no sign, no space.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn refused(got: &str, expected: &str) -> Error {
    Error::Config { name: "--shard".into(), got: got.into(), expected: expected.into() }
}

fn automatic(wanted: Option<u32>, variable: &dyn Fn(&str) -> Option<String>) -> Result<Shard> {
    let read = |name: &str| match variable(name).filter(|value| !value.is_empty()) {
        None => Ok(None),
        Some(value) => match number(&value) {
            Some(number) => Ok(Some(number)),
            None => Err(refused(&format!("auto, with {name}={value}"), "a number in this variable")),
        },
    };
    let need = |name: &str| {
        let missing = || refused(&format!("auto, without {name}"), "this variable of Slurm, or --shard i/n");
        read(name)?.ok_or_else(missing)
    };
    if let Some(id) = read("SLURM_ARRAY_TASK_ID")? {
        let (first, count) = (need("SLURM_ARRAY_TASK_MIN")?, need("SLURM_ARRAY_TASK_COUNT")?);
        let last = read("SLURM_ARRAY_TASK_MAX")?;
        let step = read("SLURM_ARRAY_TASK_STEP")?.unwrap_or(1).max(1);
        let index = id.checked_sub(first).map(|above| (above / step, above % step));
        let has_gaps = last.is_some_and(|last| {
            last.checked_sub(first) != count.checked_sub(1).and_then(|steps| steps.checked_mul(step))
        });
        return match index {
            Some((index, 0)) if index < count && !has_gaps => match wanted {
                Some(wanted) if wanted != count => Err(refused(
                    &format!("auto/{wanted} in an array of {count} tasks"),
                    "as many tasks as shards; to run some of them again: --shard \"$((SLURM_ARRAY_TASK_ID - FIRST + 1))/n\"",
                )),
                _ => Ok(Shard::Hash { index: index + 1, count }),
            },
            _ => Err(refused(
                &format!("auto, task {id} of an array of {count} tasks from {first} in steps of {step}"),
                "an array without gaps, such as --array=1-8; else --shard i/n",
            )),
        };
    }
    match (read("JOB_COMPLETION_INDEX")?, wanted) {
        (Some(index), Some(count)) if index < count => Ok(Shard::Hash { index: index + 1, count }),
        (Some(index), Some(count)) => Err(refused(
            &format!("auto/{count}, with JOB_COMPLETION_INDEX={index}"),
            "an index below n: n is the job's number of completions",
        )),
        (Some(_), None) => Err(refused("auto", "auto/n: Kubernetes does not tell the number of completions")),
        (None, _) => Err(refused(
            "auto, without SLURM_ARRAY_TASK_ID and JOB_COMPLETION_INDEX",
            "an array of Slurm or an indexed job of Kubernetes, or --shard i/n",
        )),
    }
}
