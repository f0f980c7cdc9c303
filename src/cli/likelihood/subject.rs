//! One image, and what a model sees of it.

use super::Likelihood;
use crate::cli::ExitCode;
use crate::cli::failure::{Failure, Outcome};
use crate::digest;
use crate::image::{DecodeOptions, Photo};
use crate::likelihood::Levels;
use crate::models::Model;
use candle_core::{Device, Tensor};
use std::path::{Path, PathBuf};

/// Pixels that are taken in one piece: what a window of the restoring commands has at most by default. A pullback keeps
/// every layer of the whole image in memory.
const MOST_PIXELS: usize = 512 * 512;

/// An image that a model can see.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) path: PathBuf,
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) channels: usize,
    /// Whole numbers as in the file, `[1, C, H, W]`.
    pub(super) values: Tensor,
    pub(super) levels: Levels,
    pub(super) warnings: Vec<String>,
}

/// Name and size.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) path: PathBuf,
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) channels: usize,
}

/// Refuses names that are no files before anything is loaded.
pub(super) fn check_names(images: &[PathBuf]) -> Outcome<()> {
    for path in images {
        let shown = path.display();
        match path.metadata() {
            Ok(metadata) if metadata.is_dir() => {
                let hint = format!("name its images: {}", path.join("*").display());
                return Err(Failure::usage(format!("{shown}: is a folder")).hint(hint));
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Failure::usage(format!("{shown}: no such file")));
            }
            Err(error) => return Err(Failure::usage(format!("{shown}: {error}"))),
        }
    }
    Ok(())
}

impl Subject {
    /// Decodes an image, as the model and the arguments want it.
    pub(super) fn read(path: &Path, arguments: &Likelihood, model: &Model) -> Outcome<Self> {
        let options = DecodeOptions { max_pixels: arguments.max_pixels, allow_truncated: false };
        let photo = Photo::open(path, &options)?;
        let shown = path.display();
        let mut warnings: Vec<String> = photo.warnings().iter().map(|warning| format!("{shown}: {warning}")).collect();
        if photo.has_alpha() {
            warnings.push(format!("{shown}: opacity is left out, what is transparent counts as it is coloured"));
        }
        let channels = match (model.denoiser().channels(), photo.color_channels()) {
            (None, channels) => channels,
            (Some(1), 3) => {
                warnings.push(format!("{shown}: the model {} is of grey images: its brightness is taken", model.name));
                1
            }
            (Some(3), 1) => {
                warnings.push(format!("{shown}: the model {} is of colour images: three equal channels", model.name));
                3
            }
            (Some(channels @ (1 | 3)), _) => channels,
            (Some(channels), _) => {
                let message = format!("model {}: has {channels} channels, a picture 1 or 3", model.name);
                return Err(Failure::new(ExitCode::Model, message));
            }
        };
        let (top, left, height, width) = place(&photo, arguments, model)?;
        let photo = if channels == 1 { photo.in_grey() } else { photo.in_colour() };
        let mut values = Vec::with_capacity(channels * height * width);
        for channel in 0..channels {
            for y in top..top + height {
                values.extend((left..left + width).map(|x| f32::from(photo.sample(x, y, channel))));
            }
        }
        let values =
            Tensor::from_vec(values, (1, channels, height, width), &Device::Cpu).map_err(crate::Error::from)?;
        let levels = match arguments.levels {
            Some(count) => Levels::new(photo.max_value(), count)?,
            None => Levels::all(photo.max_value()),
        };
        Ok(Self { path: path.into(), width, height, channels, values, levels, warnings })
    }

    /// Numbers of the image.
    pub(super) fn dimensions(&self) -> usize {
        self.channels * self.height * self.width
    }

    pub(super) fn head(&self) -> Head {
        Head { path: self.path.clone(), width: self.width, height: self.height, channels: self.channels }
    }

    /// The seed of the image's own random numbers: a hash of the seed of the run and of its pixels.
    ///
    /// With the same probes for all images their errors would be alike, and the mean over images would keep them; with
    /// those of its place in the list an image would depend on the others. 53 bits, as for `batch`.
    pub(super) fn seed(&self, of_run: u64) -> u64 {
        let values = self.values.flatten_all().and_then(|values| values.to_vec1::<f32>()).unwrap_or_default();
        let values: Vec<u8> = values.iter().flat_map(|value| (*value as u16).to_le_bytes()).collect();
        let size: Vec<u8> =
            [self.channels, self.height, self.width].iter().flat_map(|&length| (length as u64).to_le_bytes()).collect();
        digest::number(&[b"tweedie likelihood seed", &of_run.to_le_bytes(), &size, &values]) >> 11
    }

    /// An error with the image's name, and what to do about it.
    pub(super) fn failure(&self, error: crate::Error) -> Failure {
        let is_level = matches!(&error, crate::Error::Config { name, .. } if name == "a value of the image");
        let mut failure = Failure::from(error);
        if matches!(failure.code, ExitCode::Interrupted | ExitCode::Terminated) {
            return failure;
        }
        if let Some(first) = failure.chain.first_mut() {
            *first = format!("{}: {first}", self.path.display());
        }
        if is_level { failure.hint("--levels says how many there are") } else { failure }
    }
}

/// Top, left, height and width of what is measured.
fn place(photo: &Photo, arguments: &Likelihood, model: &Model) -> Outcome<(usize, usize, usize, usize)> {
    let shown = photo.path().display();
    let (high, wide) = (photo.height(), photo.width());
    let (height, width) = arguments.crop.unwrap_or((high, wide));
    if height > high || width > wide {
        return Err(Failure::usage(format!("{shown}: {wide}x{high} pixels, --crop asks for {width}x{height}")));
    }
    if let Some((tall, broad)) = model.denoiser().native_size()
        && (height, width) != (tall, broad)
    {
        let message = format!("{shown}: {width}x{height} pixels, the model {} knows {broad}x{tall} only", model.name);
        return Err(match tall <= high && broad <= wide {
            true => Failure::usage(message).hint(format!("--crop {tall}x{broad} takes its middle")),
            false => Failure::usage(message),
        });
    }
    if height * width > MOST_PIXELS {
        let message = format!("{shown}: {width}x{height} pixels, at most {MOST_PIXELS} are taken in one piece");
        return Err(
            Failure::usage(message).hint("--crop 512x512 takes its middle, --crop 128x128 a sixteenth of the time")
        );
    }
    Ok(((high - height) / 2, (wide - width) / 2, height, width))
}
