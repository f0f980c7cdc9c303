//! `tweedie inpaint`: fills the masked pixels of one photo.

use super::failure::Outcome;
use super::flags::MaskFlags;
use super::restoring::{self, Common, Job, Session, Task, Work};
use crate::image::{DecodeOptions, Mask, MaskSource, Photo};

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
    let second = match &source {
        Some(MaskSource::File(path)) => Some(path.as_path()),
        _ => None,
    };
    let task = Task { verb: "inpaint", common: &arguments.common, second, is_photo: true };
    restoring::run(&task, session, |job| {
        let mut photo = job.read()?;
        let mask = mask(arguments, &source, job, &mut photo)?;
        Ok((photo, Work::Holes(mask), "a mask".into()))
    })
}

fn mask(arguments: &Inpaint, source: &Option<MaskSource>, job: &Job<'_>, photo: &mut Photo) -> Outcome<Mask> {
    let nothing = || Mask::from_fn(photo.width(), photo.height(), |_, _| false);
    let mask = match source {
        Some(source) => {
            let options = DecodeOptions { allow_truncated: false, ..job.decoding() };
            Mask::open(source, photo, &arguments.mask.options(options))?
        }
        None => nothing(),
    };
    let mask = mask.union(&photo.missing().unwrap_or_else(nothing));
    if *source == Some(MaskSource::Alpha) {
        photo.make_opaque(&mask);
    }
    Ok(mask)
}
