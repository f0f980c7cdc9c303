//! `tweedie batch merge`: the records of all shards in one file.

use super::Merge;
use crate::batch::merge;
use crate::cli::ExitCode;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::terminal::{Console, count};

/// Runs the command.
pub(super) fn run(arguments: &Merge, console: Console) -> Outcome<()> {
    let merged = merge(&arguments.out)?;
    for damaged in &merged.damaged {
        console.warn(&format!("{}: the line at byte {}: {}", damaged.path.display(), damaged.offset, damaged.reason));
    }
    let recorded = merged.done + merged.failed;
    let photos = count(recorded, "photo");
    console.note(&format!("wrote {} ({photos}, {} failed)", merged.path.display(), merged.failed));
    match merged.missing {
        0 => Ok(()),
        missing => {
            let all = count(recorded + missing, "photo");
            Err(Failure::new(ExitCode::Failed, format!("{missing} of {all} have no record yet"))
                .hint("`tweedie batch status OUT` tells which shards have begun; merge again once all are done"))
        }
    }
}
