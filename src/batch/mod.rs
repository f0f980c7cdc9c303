//! Whole folders: which photos there are, what their results are called, and the record of what was done.
//!
//! A [`Selection`] of files, folders, patterns and lists becomes a [`Plan`], one [`Item`] a photo, sorted by relative
//! path. Everything about an item is a pure function of its relative path and the settings of the run: the names of its
//! outputs ([`Naming`]), its [`seed`], the [`Shard`] that does it. So the order of work, the number of workers and the
//! number of machines change no byte.
//!
//! The record lies in the output folder, beside what it is about:
//!
//! | file below `OUT` | holds |
//! | --- | --- |
//! | `.tweedie/manifest/<shard>.jsonl` | the [`Manifest`] of a shard: a [`Record`] a line, once the output is safely on disk |
//! | `.tweedie/plan/<shard>.jsonl` | what the shard's last run set out to do; it makes "missing" a fact |
//! | `.tweedie/parts/<shard>/` | outputs that are not complete; empty when no run is at work |
//! | `.tweedie/lock*`, `.tweedie/holder` | the [`FolderLock`] |
//! | `manifest.jsonl` | all manifests in one, by [`merge()`] |
//!
//! There is no daemon and no database: a run that ends in any way leaves complete lines, and the next one goes on behind
//! them. The alternative, one state file that is rewritten, would cost a rewrite a photo and would have to be shared by
//! the shards.

mod budget;
mod collisions;
mod decoder;
mod encoder;
mod error;
mod fitting;
mod folder;
mod forecast;
mod index;
mod inputs;
mod layer;
mod lines;
mod lock;
mod manifest;
mod merge;
mod naming;
mod pairing;
mod pipeline;
mod plan;
mod planned;
mod possible;
mod preset;
mod recipe;
mod record;
mod relative;
mod restorer;
mod seed;
mod settings;
mod shard;
mod sidecar;
mod status;
mod summary;
mod writer;

pub use crate::digest::{sha256, sha256_of_file};
pub(crate) use decoder::Stamp;
pub use error::BatchError;
pub use folder::check_output_folder;
pub use forecast::{Forecast, Forecaster};
pub use index::Damaged;
pub use inputs::{Selection, read_list};
pub use layer::Layer;
pub use lines::{Content, Line, Lines};
pub use lock::{FolderLock, Waiting};
pub use manifest::{Cause, Changed, Decision, Manifest, Policy, Wanted};
pub use merge::{Merged, merge};
pub use naming::{Naming, Outputs};
pub use pairing::{Masks, Unpaired};
pub use pipeline::{Event, Limits, Pipeline};
pub use plan::{Item, Plan, Request, Skipped, Why};
pub use planned::Intent;
pub use preset::presets;
pub use recipe::{Prepared, Recipe};
pub use record::{MaskFile, Modified, Name, Record, Status, Written};
pub use seed::seed;
pub use settings::{Reading, Sampling, Settings, Writing};
pub use shard::Shard;
pub use sidecar::BySettings;
pub use status::{Progress, ShardProgress, status, status_with};
pub use summary::{Failures, Signal, Stopped, Summary, lacks_resources};
