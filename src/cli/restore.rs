//! `tweedie restore`: undoes any damage that a file describes.

use super::failure::{Failure, Outcome};
use super::restoring::{self, Common, Session, is_measurement};
use crate::{Task, tasks};
use std::path::PathBuf;

/// Undo any damage that a file describes
///
/// The photo, or a measurement saved by `degrade`, is taken for what the operator of a TOML file made of an image, with
/// the file's noise; samples of that image are drawn. `tweedie operators` lists what an operator can be.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_long_help = EXAMPLES)]
pub(crate) struct Restore {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Operator and noise; needless for a measurement
    ///
    /// A TOML file with the tables [operator] and [noise], see `tweedie operators`.
    #[arg(long, value_name = "TOML", help_heading = super::MEASUREMENT)]
    operator: Option<PathBuf>,
    /// Size of the image, if the photo's does not tell
    #[arg(long, value_name = "HxW", value_parser = super::flags::size, help_heading = super::MEASUREMENT)]
    size: Option<(usize, usize)>,
}

const EXAMPLES: &str = "\
Examples:
  tweedie restore photo.png --operator old_photo.toml
  tweedie degrade photo.png --operator phase.toml --save-measurement y.safetensors
  tweedie restore y.safetensors -o restored.png
  tweedie restore small.png --operator super_resolution_x4.toml --samples 4 --sheet -o restored/";

/// Runs the command.
pub(crate) fn run(arguments: &Restore, session: Session<'_>) -> Outcome<()> {
    if arguments.operator.is_none() && !is_measurement(&arguments.common.image) {
        return Err(Failure::usage("no operator was given")
            .hint("--operator FILE.toml says what happened to the photo; `tweedie operators` lists what there is"));
    }
    let task = Task::Restore(tasks::Restore { operator: arguments.operator.clone(), size: arguments.size });
    restoring::run(&task, None, &arguments.common, session)
}
