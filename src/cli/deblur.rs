//! `tweedie deblur`: sharpens one photo whose blur is known.

use super::failure::Outcome;
use super::flags::Noise;
use super::restoring::{self, Common, Session, Task, Work};
use crate::Case;
use std::path::Path;

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
    #[arg(short, long, value_name = "KERNEL", value_parser = kernel, help_heading = super::MEASUREMENT)]
    kernel: Kernel,
    /// Noise's std in 8-bit levels, or auto
    ///
    /// auto estimates it from the photo.
    #[arg(long, value_name = "L", value_parser = super::flags::noise, allow_negative_numbers = true, default_value = "auto",
        help_heading = super::MEASUREMENT)]
    noise: Noise,
}

const EXAMPLES: &str = "\
Examples:
  tweedie deblur photo.jpg --kernel gaussian:1.6
  tweedie deblur photo.png --kernel disk:4 --noise 2 -o sharp.png
  tweedie deblur photo.png --kernel motion:15,30
  tweedie deblur photo.png --kernel file:psf.png --noise auto";

/// A kernel as it was typed and as a table of the operator `blur`.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    text: String,
    table: toml::Table,
}

fn kernel(text: &str) -> Result<Kernel, String> {
    const EXPECTED: &str = "expected gaussian:SIGMA, disk:RADIUS, motion:LENGTH,ANGLE or file:PICTURE";
    let (shape, values) = text.split_once(':').ok_or(EXPECTED)?;
    let number = |text: &str, what: &str, least: f64, most: f64| match text.trim().parse::<f64>() {
        Ok(value) if (least..=most).contains(&value) => Ok(toml::Value::Float(value)),
        _ => Err(format!("{what} is {text}, expected a number from {least} to {most}")),
    };
    let settings = match shape {
        "gaussian" => vec![("shape", "gaussian".into()), ("sigma", number(values, "standard deviation", 0.05, 100.0)?)],
        "disk" => vec![("shape", "disk".into()), ("radius", number(values, "radius", 0.1, 200.0)?)],
        "motion" => {
            let (length, angle) = values.split_once(',').unwrap_or((values, "0"));
            vec![
                ("shape", "line".into()),
                ("length", number(length, "length", 1.0, 500.0)?),
                ("angle", number(angle, "angle", -360.0, 360.0)?),
            ]
        }
        "file" => vec![("shape", "image".into()), ("file", toml::Value::String(values.into()))],
        _ => return Err(EXPECTED.into()),
    };
    let table = settings.into_iter().map(|(name, value): (&str, toml::Value)| (name.to_string(), value)).collect();
    Ok(Kernel { text: text.into(), table })
}

/// Runs the command.
pub(crate) fn run(arguments: &Deblur, session: Session<'_>) -> Outcome<()> {
    let file = arguments.kernel.table.get("file").and_then(toml::Value::as_str).map(Path::new);
    let task = Task { verb: "deblur", common: &arguments.common, second: file, is_photo: true };
    restoring::run(&task, session, |job| {
        let photo = job.read()?;
        let levels = arguments.noise.levels(&photo)?;
        let case = Case::deblur(&photo, arguments.kernel.table.clone(), levels, Path::new(""))?;
        Ok((photo, Work::Whole(Box::new(case)), format!("blur {}, noise of {levels:.2} levels", arguments.kernel.text)))
    })
}
