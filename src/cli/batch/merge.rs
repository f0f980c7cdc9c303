//! `tweedie batch merge`: the records of all shards in one file.

use super::Merge;
use crate::batch::merge;
use crate::cli::failure::Outcome;
use crate::cli::terminal::{Console, count};

/// Runs the command.
pub(super) fn run(arguments: &Merge, console: Console) -> Outcome<()> {
    let merged = merge(&arguments.out)?;
    for damaged in &merged.damaged {
        console.warn(&format!("{}: the line at byte {}: {}", damaged.path.display(), damaged.offset, damaged.reason));
    }
    let photos = count(merged.done + merged.failed, "photo");
    console.note(&format!("wrote {} ({photos}, {} failed)", merged.path.display(), merged.failed));
    Ok(())
}
