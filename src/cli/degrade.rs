//! `tweedie degrade`: makes test cases of good photos.

use super::events::print;
use super::failure::{Failure, Outcome};
use super::flags::Stripped;
use super::outputs::{Input, Outputs, Target, Wanted};
use super::terminal::Console;
use super::{INPUT_OUTPUT, MEASUREMENT};
use crate::image::{DecodeOptions, EncodeOptions, OutputFormat, Photo, Strip, write_atomically};
use crate::{Catalog, Error, Measured, degrade};
use candle_core::{DType, Device};
use clap::builder::RangedU64ValueParser;
use std::path::{Path, PathBuf};
use tweedie_operators::{Description, Site};

/// Damage a photo as a file describes
///
/// Makes test cases: what an instrument with the operator and the noise of a TOML file would have recorded of a photo.
/// `restore` undoes it.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_long_help = EXAMPLES)]
pub(crate) struct Degrade {
    /// Photo to damage
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// Operator and noise
    ///
    /// A TOML file with the tables [operator] and [noise], see `tweedie operators`.
    #[arg(long, value_name = "TOML", help_heading = MEASUREMENT)]
    operator: PathBuf,
    /// Seed of the noise
    #[arg(long, value_name = "S", default_value_t = 0, help_heading = MEASUREMENT)]
    seed: u64,
    /// File, folder/ or - [default: <stem>.degrade.png]
    ///
    /// The measurement as a picture, if it is one: rounded to the photo's depth and clamped.
    #[arg(short, long, value_name = "OUT", help_heading = INPUT_OUTPUT)]
    output: Option<PathBuf>,
    /// Write also the measurement itself
    ///
    /// A safetensors file that `restore` accepts: the numbers as measured, with the operator and the noise.
    #[arg(long, value_name = "FILE", help_heading = INPUT_OUTPUT)]
    save_measurement: Option<PathBuf>,
    /// Quality of a lossy output, 1 to 100
    #[arg(long, value_name = "Q", default_value_t = 95, value_parser = clap::value_parser!(u8).range(1..=100),
        help_heading = INPUT_OUTPUT)]
    quality: u8,
    /// Metadata to leave out: all or gps
    #[arg(long, value_name = "WHAT", value_enum, hide_possible_values = true, help_heading = INPUT_OUTPUT)]
    strip: Option<Stripped>,
    /// Refuse photos with more pixels
    #[arg(long, value_name = "N", default_value_t = DecodeOptions::default().max_pixels,
        value_parser = RangedU64ValueParser::<u64>::new().range(1..), help_heading = INPUT_OUTPUT)]
    max_pixels: u64,
    /// Overwrite existing outputs
    #[arg(short, long, help_heading = INPUT_OUTPUT)]
    force: bool,
}

const EXAMPLES: &str = "\
Examples:
  tweedie degrade photo.png --operator blur.toml -o blurred.png
  tweedie degrade photo.png --operator blur.toml --seed 1 --save-measurement y.safetensors";

/// Runs the command.
pub(crate) fn run(arguments: &Degrade, catalog: &Catalog, console: Console) -> Outcome<()> {
    let input = Input::File(arguments.image.clone());
    for path in [&arguments.image, &arguments.operator] {
        if let Err(error) = path.metadata() {
            let reason = match error.kind() {
                std::io::ErrorKind::NotFound => "no such file".into(),
                _ => error.to_string(),
            };
            return Err(Failure::usage(format!("{}: {reason}", path.display())));
        }
    }
    let wanted = Wanted { samples: 1, mean: false, std: false, sheet: false };
    let outputs = Outputs::new(&input, "degrade", arguments.output.as_deref(), wanted)?;
    // A picture is written unless only the measurement was asked for.
    let picture = (arguments.output.is_some() || arguments.save_measurement.is_none()).then(|| &outputs.samples[0]);
    let inputs = [arguments.image.as_path(), arguments.operator.as_path()];
    if picture.is_some() {
        for output in outputs.files() {
            OutputFormat::from_path(output)?;
        }
        outputs.check(&inputs, arguments.force)?;
    }
    if let Some(path) = &arguments.save_measurement {
        let one = Outputs { samples: vec![Target::File(path.clone())], mean: None, std: None, sheet: None };
        one.check(&inputs, arguments.force)?;
    }

    let description = Description::open(&arguments.operator).map_err(Error::from)?;
    let options = DecodeOptions { max_pixels: arguments.max_pixels, ..DecodeOptions::default() };
    let photo = Photo::open(&arguments.image, &options)?;
    photo.warnings().iter().for_each(|warning| console.warn(warning));
    let image = (3, photo.height(), photo.width());
    let site = Site { operators: &catalog.operators, ..Site::new(image, &Device::Cpu, DType::F32) };
    let (operator, noise) = description.build(site, &catalog.noises).map_err(Error::from)?;
    let degraded = degrade(&photo, &*operator, &*noise, arguments.seed)?;

    if let Some(path) = &arguments.save_measurement {
        let text = std::fs::read_to_string(&arguments.operator);
        let text = text.map_err(|source| Error::Io { path: arguments.operator.clone(), source })?;
        let folder = arguments.operator.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).canonicalize();
        let folder = folder.map_err(|source| Error::Io { path: arguments.operator.clone(), source })?;
        let folder = folder.to_string_lossy().into_owned();
        let measured = Measured { y: degraded.y.clone(), description: text, folder, image };
        measured.save(path, arguments.force)?;
        console.note(&format!("wrote {}", path.display()));
    }
    let Some(target) = picture else { return Ok(()) };
    let Some(picture) = &degraded.picture else {
        return Err(Failure::usage(format!("the measurement has shape {:?}, which is no picture", degraded.y.dims()))
            .hint("--save-measurement FILE.safetensors without -o keeps it"));
    };
    let software = format!(
        "tweedie {} degrade, {}, seed {}",
        env!("CARGO_PKG_VERSION"),
        arguments.operator.file_name().unwrap_or_default().to_string_lossy(),
        arguments.seed
    );
    let strip = arguments.strip.map_or(Strip::None, Into::into);
    let encoding = EncodeOptions { quality: arguments.quality, strip, software: Some(software) };
    match target {
        Target::Stdout => print(&picture.encode(OutputFormat::Png, &encoding)?)?,
        Target::File(path) => {
            let format = OutputFormat::from_path(path)?;
            picture.check_encode(format, &encoding)?;
            picture.encode_warnings(format, &encoding).iter().for_each(|warning| console.warn(warning));
            write_atomically(path, &picture.encode(format, &encoding)?, arguments.force)?;
            console.note(&format!("wrote {}", path.display()));
        }
    }
    Ok(())
}
