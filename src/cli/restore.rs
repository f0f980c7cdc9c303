//! `tweedie restore`: undoes any damage that a file describes.

use super::failure::{Failure, Outcome};
use super::restoring::{self, Common, Session, Task, Work};
use crate::image::Photo;
use crate::{Case, Measured};
use std::path::{Path, PathBuf};
use tweedie_operators::Description;

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
    let task = Task {
        verb: "restore",
        common: &arguments.common,
        second: arguments.operator.as_deref(),
        is_photo: !is_measurement(&arguments.common.image),
    };
    let described = |path: &Path| format!("operator of {}", path.display());
    let catalog = session.catalog;
    restoring::run(&task, session, |job| {
        let file = arguments.common.image.as_path();
        let given = arguments.operator.as_deref().map(Description::open).transpose().map_err(crate::Error::from)?;
        if is_measurement(file) {
            let mut measured = Measured::open(file)?;
            if let Some((height, width)) = arguments.size {
                measured.image = (3, height, width);
            }
            let description = match given {
                Some(description) => description,
                None => measured.described(file)?,
            };
            let case = Case::measured(&measured, &description, catalog)?;
            let (_, height, width) = measured.image;
            let blank = Photo::from_u8(width, height, 3, vec![0; 3 * width * height])?;
            let what = arguments.operator.as_deref().map_or("operator of the measurement".into(), described);
            return Ok((blank, Work::Whole(Box::new(case)), what));
        }
        let (Some(description), Some(path)) = (given, &arguments.operator) else {
            return Err(Failure::usage("no operator was given").hint(
                "--operator FILE.toml says what happened to the photo; `tweedie operators` lists what there is",
            ));
        };
        let photo = job.read()?;
        let case = Case::described(&photo, &description, arguments.size, catalog)?;
        Ok((photo, Work::Whole(Box::new(case)), described(path)))
    })
}

/// Whether a file holds a measurement, by its name.
fn is_measurement(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors"))
}
