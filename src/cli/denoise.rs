//! `tweedie denoise`: takes noise out of one photo.

use super::failure::Outcome;
use super::restoring::{self, Common, Session};
use crate::tasks::NoiseLevel;
use crate::{Task, tasks};

/// Take noise out of a photo
///
/// One sample asked for is the posterior mean, by Tweedie's formula in one evaluation of the network; several are drawn
/// from the posterior.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_long_help = EXAMPLES)]
pub(crate) struct Denoise {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Its std in 8-bit levels, or auto
    ///
    /// 25 is what the literature calls σ = 25; auto estimates it from the photo.
    #[arg(long, value_name = "L", allow_negative_numbers = true, default_value = "auto",
        help_heading = super::MEASUREMENT)]
    noise: NoiseLevel,
}

const EXAMPLES: &str = "\
Examples:
  tweedie denoise photo.jpg
  tweedie denoise photo.png --noise 25 -o clean.png
  tweedie denoise photo.png --noise 25 --samples 8 --mean --std --sheet -o denoised/";

/// Runs the command.
pub(crate) fn run(arguments: &Denoise, session: Session<'_>) -> Outcome<()> {
    let task = Task::Denoise(tasks::Denoise { noise: arguments.noise });
    restoring::run(&task, None, &arguments.common, session)
}
