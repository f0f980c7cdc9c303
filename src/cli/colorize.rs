//! `tweedie colorize`: gives one grey photo colours.

use super::failure::Outcome;
use super::restoring::{self, Common, Session};
use crate::{Task, tasks};
use std::path::PathBuf;

/// Give a grey photo colours
///
/// How bright a pixel is stays as it was, to the level; colours come from the hints and from what the prior knows, which
/// is little about the colours of things: without hints expect muted ones.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_long_help = EXAMPLES)]
pub(crate) struct Colorize {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Coloured dots on transparent ground
    ///
    /// A picture of the photo's size; where it is opaque, the photo has its colour.
    #[arg(long, value_name = "PNG", help_heading = super::MEASUREMENT)]
    hints: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  tweedie colorize photo.jpg
  tweedie colorize photo.jpg --hints dots.png -o colour.png
  tweedie colorize photo.jpg --hints dots.png --samples 4 --sheet -o colour/";

/// Runs the command.
pub(crate) fn run(arguments: &Colorize, session: Session<'_>) -> Outcome<()> {
    let task = Task::Colorize(tasks::Colorize { hints: arguments.hints.clone() });
    restoring::run(&task, None, &arguments.common, session)
}
