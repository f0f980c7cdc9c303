//! `tweedie degrade`: makes test cases of good photos.

use super::events::print;
use super::failure::{Failure, Outcome};
use super::flags::WritingFlags;
use super::outputs::{Input, Outputs, Target, Wanted};
use super::terminal::Console;
use super::{INPUT_OUTPUT, MEASUREMENT};
use crate::image::{DecodeOptions, EncodeOptions, Photo, write_atomically};
use crate::{Catalog, Error, Measured, degrade};
use candle_core::{DType, Device};
use clap::builder::RangedU64ValueParser;
use std::io::IsTerminal;
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
    /// File, folder/ or - [<stem>.degrade.png]
    ///
    /// The measurement as a picture, if it is one: rounded to the photo's depth and clamped.
    #[arg(short, long, value_name = "OUT", help_heading = INPUT_OUTPUT)]
    output: Option<PathBuf>,
    /// Write also the measurement itself
    ///
    /// A safetensors file that `restore` accepts: the numbers as measured, with the operator and the noise.
    #[arg(long, value_name = "FILE", help_heading = INPUT_OUTPUT)]
    save_measurement: Option<PathBuf>,
    #[command(flatten)]
    writing: WritingFlags,
    /// Refuse larger photos
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
  tweedie degrade photo.png --operator configs/operators/super_resolution_x4.toml
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
    let format = arguments.writing.default_format();
    let wanted = Wanted { samples: 1, mean: false, std: false, sheet: false, format };
    let outputs = Outputs::new(&input, "degrade", arguments.output.as_deref(), wanted)?;
    // A picture is written unless only the measurement was asked for.
    let picture = (arguments.output.is_some() || arguments.save_measurement.is_none()).then(|| &outputs.samples[0]);
    let inputs = [arguments.image.as_path(), arguments.operator.as_path()];
    if picture.is_some() {
        for output in outputs.files() {
            arguments.writing.format_of(output)?;
        }
        outputs.check(&inputs, arguments.force)?;
    }
    if picture == Some(&Target::Stdout) && std::io::stdout().is_terminal() {
        return Err(Failure::usage("standard output is a terminal, which cannot show a photo")
            .hint("redirect it: -o - > out.png"));
    }
    if let Some(path) = &arguments.save_measurement {
        if !path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors")) {
            let message = format!("{}: a measurement is a safetensors file", path.display());
            return Err(Failure::usage(message).hint(format!("{}.safetensors", path.display())));
        }
        let one = Outputs { samples: vec![Target::File(path.clone())], mean: None, std: None, sheet: None };
        one.check(&inputs, arguments.force)?;
        if outputs.files().any(|output| output == path) && picture.is_some() {
            let message = format!("{}: is the name of the picture and of the measurement", path.display());
            return Err(Failure::usage(message));
        }
    }

    let description = Description::open(&arguments.operator).map_err(Error::from)?;
    let options = DecodeOptions { max_pixels: arguments.max_pixels, ..DecodeOptions::default() };
    let photo = Photo::open(&arguments.image, &options)?;
    photo.warnings().iter().for_each(|warning| console.warn(warning));
    let image = (3, photo.height(), photo.width());
    let site = Site { operators: &catalog.operators, ..Site::new(image, &Device::Cpu, DType::F32) };
    let (operator, noise) = description.build(site, &catalog.noises).map_err(Error::from)?;
    let degraded = degrade(&photo, &*operator, &*noise, arguments.seed)?;

    // Whatever can be refused is refused before anything is written.
    let software = format!(
        "tweedie {} degrade, {}, seed {}",
        env!("CARGO_PKG_VERSION"),
        arguments.operator.file_name().unwrap_or_default().to_string_lossy(),
        arguments.seed
    );
    let encoding = EncodeOptions { software: Some(software), ..arguments.writing.encoding() };
    let drawn = match picture {
        None => None,
        Some(target) => {
            let Some(picture) = &degraded.picture else {
                return Err(Failure::usage(format!(
                    "the measurement has shape {:?}, which is no picture",
                    degraded.y.dims()
                ))
                .hint("--save-measurement FILE.safetensors without -o keeps it"));
            };
            let format = match target {
                Target::Stdout => format,
                Target::File(path) => arguments.writing.format_of(path)?,
            };
            picture.check_encode(format, &encoding)?;
            picture
                .warnings()
                .iter()
                .filter(|warning| !photo.warnings().contains(warning))
                .for_each(|w| console.warn(w));
            picture.encode_warnings(format, &encoding).iter().for_each(|warning| console.warn(warning));
            Some((target, picture.encode(format, &encoding)?))
        }
    };
    if let Some(path) = &arguments.save_measurement {
        let text = std::fs::read_to_string(&arguments.operator);
        let text = text.map_err(|source| Error::Io { path: arguments.operator.clone(), source })?;
        let folder = folder_of_files(&description, &arguments.operator, path)?;
        let measured = Measured { y: degraded.y.clone(), description: text, folder, image };
        measured.save(path, arguments.force)?;
        console.note(&format!("wrote {}", path.display()));
    }
    match drawn {
        None => {}
        Some((Target::Stdout, bytes)) => print(&bytes)?,
        Some((Target::File(path), bytes)) => {
            write_atomically(path, &bytes, arguments.force)?;
            console.note(&format!("wrote {}", path.display()));
        }
    }
    Ok(())
}

/// Where the files start that a description names, as it is written into a measurement beside it: nothing if it names none,
/// the way from the measurement's folder if that leads downwards, else the whole path.
fn folder_of_files(description: &Description, operator: &Path, measurement: &Path) -> Outcome<String> {
    fn names_files(value: &toml::Value) -> bool {
        match value {
            toml::Value::Table(table) => {
                table.iter().any(|(key, value)| key == "file" || key == "command" || names_files(value))
            }
            toml::Value::Array(values) => values.iter().any(names_files),
            _ => false,
        }
    }
    if !names_files(&toml::Value::Table(description.operator.clone())) {
        return Ok(String::new());
    }
    let folder = |file: &Path| {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        folder.canonicalize().map_err(|source| Error::Io { path: file.into(), source })
    };
    let (here, there) = (folder(measurement)?, folder(operator)?);
    Ok(there.strip_prefix(&here).unwrap_or(&there).to_string_lossy().into_owned())
}
