//! `tweedie batch`: restores whole folders.

mod flags;
mod forecast;
mod merge;
mod run;
mod status;
mod watch;

use super::failure::Outcome;
use super::restoring::Session;
use super::{DIAGNOSTICS, INPUT_OUTPUT};
use std::path::PathBuf;
use std::time::Instant;

/// Restore whole folders, and continue where that ended
///
/// Does to every photo of some folders what the command of the task does to one, and records each in OUT/.tweedie once its
/// outputs are safely on the disk. The same command once more continues: what is done and unchanged is left alone. A file
/// `cat.jpg.tweedie.toml` beside `cat.jpg` holds settings for that photo alone.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true,
    after_long_help = EXAMPLES)]
pub(crate) struct Batch {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: run::Run,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Status(Status),
    Merge(Merge),
}

/// Tell how far a batch is
///
/// Reads the records of all shards. The exit code is 0 only if every photo that was planned is done.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_long_help = STATUS_EXAMPLES)]
pub(crate) struct Status {
    /// Output folder of the batch
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// List also the photos that are missing
    #[arg(long, help_heading = INPUT_OUTPUT)]
    missing: bool,
    /// Print one JSON object per line
    #[arg(long, help_heading = DIAGNOSTICS)]
    json: bool,
}

/// Put the records of all shards into one file
///
/// Writes OUT/manifest.jsonl, sorted by the photos' names: whatever the shards were, it is what one run would have left, but
/// for times.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_long_help = MERGE_EXAMPLES)]
pub(crate) struct Merge {
    /// Output folder of the batch
    #[arg(value_name = "OUT")]
    out: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  tweedie batch photos/ restored/ --task denoise -n
  tweedie batch photos/ restored/ --task inpaint --masks masks/ -r
  tweedie batch scans/*.tiff large/ --preset upscale_x2 --format tiff --memory 8G
  tweedie batch photos/ restored/ --task denoise --shard 2/8
  tweedie batch status restored/

Presets:
  denoise, proofs, scratches, soft, upscale_x2 and upscale_x4: see configs/tasks

Exit codes:
  0 all done · 1 some photos failed · 2 usage, nothing was started · 3 nothing matched · 4 model
  5 memory, disk or time ran out · 130 and 143 interrupted by SIGINT and SIGTERM: run it again";

const STATUS_EXAMPLES: &str = "\
Examples:
  tweedie batch status restored/
  tweedie batch status restored/ --missing
  tweedie batch status restored/ --json && echo complete";

const MERGE_EXAMPLES: &str = "\
Examples:
  tweedie batch merge restored/
  tweedie batch merge restored/ && tweedie batch status restored/
  tweedie batch merge restored/ && wc -l restored/manifest.jsonl";

impl Batch {
    /// Whether events are wanted on standard output.
    pub(crate) fn json(&self) -> bool {
        match &self.command {
            Some(Command::Status(status)) => status.json,
            Some(Command::Merge(_)) => false,
            None => self.run.json,
        }
    }
}

/// Runs the command.
pub(crate) fn run(arguments: &Batch, session: Session<'_>, started: Instant) -> Outcome<()> {
    match &arguments.command {
        Some(Command::Status(arguments)) => status::run(arguments, session),
        Some(Command::Merge(arguments)) => merge::run(arguments, session.console),
        None => run::run(&arguments.run, session, started),
    }
}
