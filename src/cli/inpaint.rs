//! `tweedie inpaint`: fills the masked pixels of one photo.

use super::failure::Outcome;
use super::flags::MaskFlags;
use super::restoring::{self, Common, Session};
use crate::Task;

/// Fill the masked pixels of a photo
///
/// Draws samples of what could have been there, given everything around it. White in the mask means fill. Every pixel
/// outside the mask stays as it is, bit for bit, in a lossless output.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_long_help = EXAMPLES)]
pub(crate) struct Inpaint {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    mask: MaskFlags,
}

const EXAMPLES: &str = "\
Examples:
  tweedie inpaint photo.jpg --mask scratches.png
  tweedie inpaint photo.png --mask alpha --samples 4 --mean --std --sheet -o restored/
  tweedie inpaint scan.tiff --mask color:#ff00ff,20 --mask-grow 3 -o scan.restored.tiff
  tweedie inpaint photo.jpg --mask scratches.png -n";

/// Runs the command.
pub(crate) fn run(arguments: &Inpaint, session: Session<'_>) -> Outcome<()> {
    let source = arguments.mask.source()?;
    restoring::run(&Task::Inpaint(arguments.mask.task()), source.as_ref(), &arguments.common, session)
}
