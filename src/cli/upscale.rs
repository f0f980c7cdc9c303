//! `tweedie upscale`: makes one photo larger.

use super::failure::Outcome;
use super::restoring::{self, Common, Session};
use crate::tasks::NoiseLevel;
use crate::{Interpolation, Task, tasks};

/// Make a photo larger
///
/// Draws samples of the large photo that this small one could have been made from.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_long_help = EXAMPLES)]
pub(crate) struct Upscale {
    #[command(flatten)]
    pub(crate) common: Common,
    /// How many times larger: 2, 3, 4, 8 or 3/2
    ///
    /// A whole number or a ratio above 1, at most 16.
    #[arg(short, long, value_name = "X", default_value = "2", help_heading = super::MEASUREMENT)]
    scale: String,
    /// bicubic, box or lanczos
    ///
    /// How the photo was made small.
    #[arg(short, long, value_name = "KERNEL", value_enum, default_value_t, hide_possible_values = true,
        help_heading = super::MEASUREMENT)]
    kernel: Kernel,
    /// Noise's std in 8-bit levels, or auto
    ///
    /// Noise of the small photo, such as traces of JPEG; auto estimates it.
    #[arg(long, value_name = "L", allow_negative_numbers = true, default_value = "0",
        help_heading = super::MEASUREMENT)]
    noise: NoiseLevel,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Kernel {
    #[default]
    Bicubic,
    Box,
    Lanczos,
}

impl From<Kernel> for Interpolation {
    fn from(kernel: Kernel) -> Self {
        match kernel {
            Kernel::Bicubic => Self::Bicubic,
            Kernel::Box => Self::Box,
            Kernel::Lanczos => Self::Lanczos,
        }
    }
}

const EXAMPLES: &str = "\
Examples:
  tweedie upscale photo.jpg
  tweedie upscale photo.png --scale 4 -o large.png
  tweedie upscale photo.jpg --scale 3/2 --kernel lanczos --noise 2
  tweedie upscale photo.png --scale 4 --samples 8 --mean --sheet -o large/";

/// Runs the command.
pub(crate) fn run(arguments: &Upscale, session: Session<'_>) -> Outcome<()> {
    let task = Task::Upscale(tasks::Upscale {
        scale: arguments.scale.clone(),
        kernel: arguments.kernel.into(),
        noise: arguments.noise,
    });
    restoring::run(&task, None, &arguments.common, session)
}
