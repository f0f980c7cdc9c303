//! `tweedie batch status`: how far a batch is.

use super::Status;
use crate::batch::{Name, Record, status_with};
use crate::cli::ExitCode;
use crate::cli::events::{Event, ShardState, print, print_json};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::restoring::Session;
use crate::cli::terminal::{count, escape};

/// Runs the command.
pub(super) fn run(arguments: &Status, session: Session<'_>) -> Outcome<()> {
    let mut failed: Vec<Record> = Vec::new();
    let mut missing: Vec<Name> = Vec::new();
    let progress = status_with(
        &arguments.out,
        |record| failed.push(record),
        |name| {
            if arguments.missing {
                missing.push(name.clone());
            }
        },
    )?;
    for damaged in &progress.damaged {
        let text = format!("{}: the line at byte {}: {}", damaged.path.display(), damaged.offset, damaged.reason);
        session.console.warn(&text);
    }
    if arguments.json {
        for record in &failed {
            print_json(&Event::Failed { record })?;
        }
        for input in &missing {
            print_json(&Event::Missing { input })?;
        }
        print_json(&Event::Status {
            planned: progress.planned,
            done: progress.done,
            failed: progress.failed,
            missing: progress.missing(),
            unplanned: progress.unplanned,
            complete: progress.is_complete(),
            shards: progress
                .shards
                .iter()
                .map(|shard| ShardState {
                    shard: shard.shard.to_string(),
                    planned: shard.planned,
                    done: shard.done,
                    failed: shard.failed,
                })
                .collect(),
        })?;
    } else {
        let mut text = format!(
            "{} of {} done, {} failed, {} missing\n",
            progress.done,
            count(progress.planned, "photo"),
            progress.failed,
            progress.missing()
        );
        if progress.unplanned > 0 {
            text += &format!("{} of earlier runs not in the last one\n", count(progress.unplanned, "photo"));
        }
        if progress.shards.len() > 1 {
            for shard in &progress.shards {
                text += &format!(
                    "shard {}: {} of {} done, {} failed\n",
                    shard.shard, shard.done, shard.planned, shard.failed
                );
            }
        }
        for record in &failed {
            let name = record.input.path().display().to_string();
            text += &format!("failed {}: {}\n", escape(&name), escape(record.error.as_deref().unwrap_or("")));
        }
        for name in &missing {
            text += &format!("missing {}\n", escape(&name.path().display().to_string()));
        }
        print(text.as_bytes())?;
    }
    if progress.is_complete() {
        return Ok(());
    }
    let left = progress.planned - progress.done;
    let failure = Failure::new(ExitCode::Failed, format!("{} of {} not done", left, count(progress.planned, "photo")));
    Err(failure.hint(match progress.failed {
        0 => "the same `tweedie batch` command continues",
        _ => "the same `tweedie batch` command continues; --retry-failed tries again what failed",
    }))
}
