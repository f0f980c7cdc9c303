//! `tweedie colorize`: gives one grey photo colours.

use super::failure::Outcome;
use super::restoring::{self, Common, Session, Task, Work};
use crate::Case;
use crate::image::Photo;
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
    let task = Task { verb: "colorize", common: &arguments.common, second: arguments.hints.as_deref(), is_photo: true };
    restoring::run(&task, session, |job| {
        let photo = job.read()?;
        let hints = arguments.hints.as_ref().map(|path| Photo::open(path, &job.decoding())).transpose()?;
        let case = Case::colorize(&photo, hints.as_ref())?;
        let with = if hints.is_some() { "luma, with hints" } else { "luma" };
        Ok((photo, Work::Whole(Box::new(case)), with.into()))
    })
}
