//! `tweedie deblur`: sharpens one photo whose blur is known.

use super::failure::Outcome;
use super::restoring::{self, Common, Session};
use crate::tasks::{BlurKernel, NoiseLevel};
use crate::{Task, tasks};

/// Sharpen a photo whose blur is known
///
/// What lies outside the frame and was blurred into it counts as unknown.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_long_help = EXAMPLES)]
pub(crate) struct Deblur {
    #[command(flatten)]
    pub(crate) common: Common,
    /// gaussian:S, disk:R, motion:LEN,ANGLE, file:PNG
    ///
    /// Standard deviation, radius and length in pixels; the angle in degrees, counter-clockwise from the right. A file is
    /// a picture of what the blur makes of one bright pixel, as large as that pixel becomes.
    #[arg(short, long, value_name = "KERNEL", help_heading = super::MEASUREMENT)]
    kernel: BlurKernel,
    /// Noise's std in 8-bit levels, or auto
    ///
    /// auto estimates it from the photo.
    #[arg(long, value_name = "L", allow_negative_numbers = true, default_value = "auto",
        help_heading = super::MEASUREMENT)]
    noise: NoiseLevel,
}

const EXAMPLES: &str = "\
Examples:
  tweedie deblur photo.jpg --kernel gaussian:1.6
  tweedie deblur photo.png --kernel disk:4 --noise 2 -o sharp.png
  tweedie deblur photo.png --kernel motion:15,30
  tweedie deblur photo.png --kernel file:psf.png --noise auto";

/// Runs the command.
pub(crate) fn run(arguments: &Deblur, session: Session<'_>) -> Outcome<()> {
    let task = Task::Deblur(tasks::Deblur { kernel: arguments.kernel.clone(), noise: arguments.noise });
    restoring::run(&task, None, &arguments.common, session)
}
