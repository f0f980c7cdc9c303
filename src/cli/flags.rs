//! Groups of flags that mean the same in every subcommand.

use super::device::{self, Choice as DeviceChoice};
use super::failure::{Failure, Outcome};
use super::models::{Fetch, fetch};
use super::terminal::Console;
use super::{DEVICE, INPUT_OUTPUT, MASK, MODEL, SAMPLER, amount};
use crate::hub::{Cache, Settings, Wanted};
use crate::image::{EncodeOptions, MaskChannel, MaskSource, OutputFormat, Strip};
use crate::models::{Model, ModelOptions};
use crate::samplers::{Choice, Quality};
use crate::tasks::{Inpaint, MaskResize};
use clap::builder::RangedU64ValueParser;
use std::borrow::Cow;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use tweedie_kernels::{InstructionSet, Precision};

/// Numbers from `least` to `most`.
pub(crate) fn range(least: u64, most: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(least..=most)
}

#[derive(Debug, clap::Args)]
pub(crate) struct MaskFlags {
    /// White = fill: FILE, alpha, color:#RRGGBB[,TOL]
    ///
    /// A file of the photo's size; `alpha` fills what is transparent in the photo itself, `color:` what is painted in
    /// that colour. May be left out with --allow-truncated, which masks what is missing.
    #[arg(short, long, value_name = "MASK", required_unless_present = "allow_truncated", help_heading = MASK)]
    pub(crate) mask: Option<OsString>,
    /// Pixels to fill around it, too
    #[arg(long, value_name = "PX", default_value = "0", value_parser = pixels, help_heading = MASK)]
    mask_grow: f64,
    /// Fit a mask of another size: nearest
    ///
    /// Every pixel of the photo takes the value of the nearest one of the mask.
    #[arg(long, value_name = "HOW", value_enum, hide_possible_values = true, help_heading = MASK)]
    mask_resize: Option<Resize>,
    /// auto, luma, alpha or red
    ///
    /// The channel of the mask's file that says what is filled; auto takes what the mask seems to be painted in, and
    /// says so.
    #[arg(long, value_name = "CHANNEL", value_enum, default_value_t, hide_possible_values = true, help_heading = MASK)]
    mask_channel: Channel,
    /// Fill what is above, 0 to 255
    #[arg(long, value_name = "T", default_value_t = 127, help_heading = MASK)]
    mask_threshold: u8,
    /// Black = fill
    #[arg(long, help_heading = MASK)]
    invert_mask: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Resize {
    Nearest,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Channel {
    #[default]
    Auto,
    Luma,
    Alpha,
    Red,
}

fn pixels(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.0..=Inpaint::MOST_GROWTH).contains(&value) => Ok(value),
        _ => Err("expected a number of pixels from 0 to 1000".into()),
    }
}

impl MaskFlags {
    /// Where the mask comes from; `None` if none was given.
    pub(crate) fn source(&self) -> Outcome<Option<MaskSource>> {
        let Some(given) = &self.mask else { return Ok(None) };
        match given.to_str() {
            Some("-") => Err(Failure::usage("the mask cannot come from standard input").hint("name a file")),
            Some(text) => Ok(Some(text.parse()?)),
            // A file name need not be text; everything else that `--mask` takes is.
            None => Ok(Some(MaskSource::File(PathBuf::from(given)))),
        }
    }

    /// How it is read.
    pub(crate) fn task(&self) -> Inpaint {
        Inpaint {
            mask_grow: self.mask_grow,
            mask_resize: self.mask_resize.map(|Resize::Nearest| MaskResize::Nearest),
            mask_channel: match self.mask_channel {
                Channel::Auto => MaskChannel::Auto,
                Channel::Luma => MaskChannel::Luma,
                Channel::Alpha => MaskChannel::Alpha,
                Channel::Red => MaskChannel::Red,
            },
            mask_threshold: self.mask_threshold,
            invert_mask: self.invert_mask,
        }
    }
}

/// `HxW`.
pub(crate) fn size(text: &str) -> Result<(usize, usize), String> {
    let sizes = text.split_once(['x', 'X']).and_then(|(h, w)| Some((h.parse().ok()?, w.parse().ok()?)));
    match sizes {
        Some((height, width)) if (1..=16_384).contains(&height) && (1..=16_384).contains(&width) => Ok((height, width)),
        _ => Err("expected HEIGHTxWIDTH in pixels, such as 256x384, sides from 1 to 16384".into()),
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct ModelFlags {
    /// File, folder, name or owner/repo
    ///
    /// A safetensors file, a diffusers folder, a name that `tweedie models list` shows, a repository of the hub as
    /// owner/repo[@revision], a prior that is a formula (gaussian:mean=M,std=S or mixture:FILE), or `embedded`, the one
    /// inside the program. Names and repositories are looked up in the cache.
    /// The environment variable TWEEDIE_MODEL sets it, too.
    #[arg(long, value_name = "MODEL", default_value = "embedded", env = "TWEEDIE_MODEL", hide_env = true,
        help_heading = MODEL)]
    model: PathBuf,
    /// Class of the image, for models trained with classes
    #[arg(long, value_name = "N", help_heading = MODEL)]
    class: Option<usize>,
    /// Fetch the model if it is not in the cache
    ///
    /// As `tweedie models pull` does; without it nothing is fetched.
    #[arg(long, help_heading = MODEL)]
    pull: bool,
}

impl ModelFlags {
    pub(crate) fn name(&self) -> Cow<'_, str> {
        self.model.to_string_lossy()
    }

    pub(crate) fn open(&self, options: &ModelOptions, console: Console) -> Outcome<Model> {
        // A name that cannot be fetched is an error below, or the prior inside the program.
        if self.pull
            && !self.model.exists()
            && let Some(Ok(wanted)) = Wanted::parse(&self.name())
        {
            let settings = Settings::from_env();
            if wanted.find(&Cache::new(&settings.cache))?.is_none() {
                fetch(&wanted, &settings, &Fetch::default(), console)?;
            }
        }
        let options = ModelOptions { class: self.class, ..options.clone() };
        let model = Model::open(&self.name(), &options)?;
        console.detail(&format!("model: {}, {} with {}", model.name, model.precision(), model.instruction_set()));
        Ok(model)
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct ResizeFlags {
    /// Fit the photo to the model's own size: fit
    ///
    /// A model that was trained on images of one size works in overlapping windows of it. With `fit` the photo is laid into
    /// one such image as a whole, restored there and brought back: the model sees all of it, and makes nothing finer than
    /// that size has. What was measured stays as it is: pixels outside a mask, the brightness that is coloured.
    #[arg(long, value_name = "HOW", value_enum, hide_possible_values = true, conflicts_with = "tile", help_heading = MODEL)]
    resize: Option<Fitting>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Fitting {
    Fit,
}

impl ResizeFlags {
    pub(crate) fn chosen(&self) -> crate::Resize {
        match self.resize {
            Some(Fitting::Fit) => crate::Resize::Fit,
            None => crate::Resize::Windows,
        }
    }
}

/// Pictures beside the samples.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct SideFlags {
    /// Write also the mean of the samples
    #[arg(long, help_heading = INPUT_OUTPUT)]
    pub(crate) mean: bool,
    /// Write also a picture of the samples' spread
    ///
    /// Black where known or certain; four levels stand for one 8-bit level of standard deviation. How well the spread fits
    /// the errors was measured: docs/samplers.md.
    #[arg(long, help_heading = INPUT_OUTPUT)]
    pub(crate) std: bool,
    /// Write also a sheet with before and after
    #[arg(long, help_heading = INPUT_OUTPUT)]
    pub(crate) sheet: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct SamplerFlags {
    /// Seed of all random numbers
    #[arg(long, value_name = "S", default_value_t = 0, help_heading = SAMPLER)]
    pub(crate) seed: u64,
    /// draft, standard or best
    ///
    /// Three points on the measured curve of time and error (docs/samplers.md): draft takes about a third of standard's time,
    /// best two to three times as long. Other samplers than auto's own have one setting only.
    #[arg(long, value_name = "QUALITY", value_enum, default_value_t, hide_possible_values = true,
        help_heading = SAMPLER)]
    quality: Effort,
    /// Time to stay within, such as 20s or 5m
    ///
    /// From the start of the program: if the noise levels do not fit, fewer are taken, and the result then depends on how
    /// fast the machine is. The number taken is reported; --steps repeats it.
    #[arg(long, value_name = "TIME", value_parser = amount::parse_time, help_heading = SAMPLER)]
    pub(crate) time_limit: Option<std::time::Duration>,
    /// Noise levels, 1 to 1000 [default: the sampler's]
    #[arg(long, value_name = "N", value_parser = range(1, 1000), help_heading = SAMPLER)]
    pub(crate) steps: Option<usize>,
    /// Sampling method
    #[arg(long, value_name = "NAME", default_value = "auto", help_heading = SAMPLER)]
    pub(crate) sampler: String,
    /// A setting of the sampler: sampler.KEY=VALUE
    ///
    /// May be given several times; `tweedie samplers NAME` lists the keys. VALUE is TOML, or a word:
    /// sampler.annealing.sigma_end=0.02, sampler.annealing.renoise=ancestral.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting, help_heading = SAMPLER)]
    set: Vec<toml::Table>,
    /// Side of a window, 64 to 4096 [default: 512 or 384]
    ///
    /// By default 512 where each region that is sampled fits into one such window, else 384.
    #[arg(long, value_name = "PX", value_parser = range(64, 4096), help_heading = SAMPLER)]
    pub(crate) tile: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Effort {
    Draft,
    #[default]
    Standard,
    Best,
}

/// `sampler.annealing.steps=20` as the table that says so.
pub(crate) fn setting(text: &str) -> Result<toml::Table, String> {
    assignment(text, "sampler.").ok_or("expected sampler.KEY=VALUE, such as sampler.annealing.steps=20".into())
}

/// `KEY=VALUE` as the table that says so, keys after `prefix`; a value that is no TOML is a text.
pub(crate) fn assignment(text: &str, prefix: &str) -> Option<toml::Table> {
    let (key, value) = text.split_once('=')?;
    let key = key.trim().strip_prefix(prefix)?;
    if key.split('.').any(|part| part.is_empty() || part.contains(|c: char| !c.is_ascii_alphanumeric() && c != '_')) {
        return None;
    }
    let quoted = toml::Value::String(value.trim().into());
    let line = |value: &str| format!("{key} = {value}").parse::<toml::Table>();
    line(value.trim()).or_else(|_| line(&quoted.to_string())).ok()
}

impl SamplerFlags {
    /// What `--set` says, the last word counting.
    pub(crate) fn settings(&self) -> toml::Table {
        let choice = Choice::of("", toml::Table::new());
        self.set.iter().cloned().fold(choice, Choice::with).settings
    }

    pub(crate) fn quality(&self) -> Quality {
        match self.quality {
            Effort::Draft => Quality::Draft,
            Effort::Standard => Quality::Standard,
            Effort::Best => Quality::Best,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct DeviceFlags {
    /// auto, cpu, cuda[:INDEX] or metal
    ///
    /// auto takes the first accelerator that is there, else the CPU. The environment variable TWEEDIE_DEVICE sets it,
    /// too.
    #[arg(long, value_name = "DEVICE", default_value = "auto", env = "TWEEDIE_DEVICE", hide_env = true,
        help_heading = DEVICE)]
    device: DeviceChoice,
    /// Threads to use, 1 to 1024 [default: all cores]
    ///
    /// The result does not depend on it. The environment variable TWEEDIE_THREADS sets it, too.
    #[arg(long, value_name = "N", env = "TWEEDIE_THREADS", hide_env = true, value_parser = range(1, 1024),
        help_heading = DEVICE)]
    threads: Option<usize>,
    #[command(flatten)]
    precision: PrecisionFlags,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PrecisionFlags {
    /// auto, f32 or bf16
    ///
    /// The numbers that the network multiplies; it adds in single precision. auto is bf16 where the processor multiplies
    /// it faster than f32 (a fixed table, never a timing), else f32. The environment variable TWEEDIE_PRECISION sets it,
    /// too.
    #[arg(long, value_name = "NUMBERS", value_enum, default_value_t, hide_possible_values = true,
        env = "TWEEDIE_PRECISION", hide_env = true, help_heading = DEVICE)]
    precision: Numbers,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Numbers {
    #[default]
    Auto,
    F32,
    Bf16,
}

impl PrecisionFlags {
    /// `None` for auto.
    pub(crate) fn chosen(&self) -> Option<Precision> {
        match self.precision {
            Numbers::Auto => None,
            Numbers::F32 => Some(Precision::F32),
            Numbers::Bf16 => Some(Precision::Bf16),
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct MemoryFlags {
    /// Memory to stay within, such as 512M or 2GiB
    ///
    /// The environment variable TWEEDIE_MEMORY sets it, too.
    #[arg(long, value_name = "SIZE", env = "TWEEDIE_MEMORY", hide_env = true, value_parser = amount::parse,
        help_heading = DEVICE)]
    pub(crate) memory: Option<u64>,
}

impl DeviceFlags {
    /// Sizes the one pool of threads; to be called before anything runs on it.
    pub(crate) fn start_threads(&self) -> Outcome<()> {
        let Some(threads) = self.threads else { return Ok(()) };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build_global().map_err(|error| Failure::usage(format!("cannot use {threads} threads: {error}")))
    }

    /// How a model is to be opened.
    pub(crate) fn open(&self, instruction_set: InstructionSet, console: Console) -> Outcome<ModelOptions> {
        let device = self.device.open(console)?;
        console.detail(&format!("device: {}, {} threads", device::name(&device), rayon::current_num_threads()));
        Ok(ModelOptions { device, instruction_set, precision: self.precision.chosen(), class: None })
    }
}

/// How pictures are written.
#[derive(Debug, clap::Args)]
pub(crate) struct WritingFlags {
    /// png, jpg, webp, tiff, bmp, ppm or qoi
    ///
    /// By default the extension of the output says it, and PNG is written where there is none to say it: into folders and to
    /// standard output.
    #[arg(long, value_name = "FORMAT", help_heading = INPUT_OUTPUT)]
    pub(crate) format: Option<OutputFormat>,
    /// Quality of a JPEG, 1 to 100
    #[arg(long, value_name = "Q", default_value_t = 95, value_parser = clap::value_parser!(u8).range(1..=100),
        help_heading = INPUT_OUTPUT)]
    jpeg_quality: u8,
    /// Metadata to leave out: all, gps or a list
    ///
    /// all is everything but the colour profile, gps where the photo was taken; a list has some of exif, gps, icc, iptc, text
    /// and xmp, separated by commas.
    #[arg(long, value_name = "WHAT", help_heading = INPUT_OUTPUT)]
    strip: Option<Strip>,
    /// Metadata to keep, and no other: a list
    ///
    /// Some of exif, icc, iptc, text and xmp, separated by commas; the colour profile is always kept.
    #[arg(long, value_name = "WHAT", value_parser = Strip::all_but, conflicts_with = "strip", help_heading = INPUT_OUTPUT)]
    keep: Option<Strip>,
}

impl WritingFlags {
    /// How pictures are encoded, without their provenance.
    pub(crate) fn encoding(&self) -> EncodeOptions {
        let strip = self.strip.or(self.keep).unwrap_or_default();
        EncodeOptions { quality: self.jpeg_quality, strip, software: None }
    }

    /// The format where no extension says it.
    pub(crate) fn default_format(&self) -> OutputFormat {
        self.format.unwrap_or(OutputFormat::Png)
    }

    /// The format of a file, and where it is asked for twice, that it is the same.
    pub(crate) fn format_of(&self, path: &Path) -> Outcome<OutputFormat> {
        let shown = path.display();
        match (self.format, OutputFormat::from_path(path)) {
            (Some(format), Ok(by_name)) if by_name != format => {
                let message = format!("{shown}: the extension says {}, --format {}", by_name.name(), format.name());
                Err(Failure::usage(message).hint("leave out --format, or name the output otherwise"))
            }
            (Some(format), _) => Ok(format),
            (None, Ok(by_name)) => Ok(by_name),
            (None, Err(_)) if path.extension().is_none() => {
                Err(Failure::usage(format!("{shown}: an output needs an extension"))
                    .hint(format!("{shown}.png for a file, {shown}/ for a folder; or --format FORMAT")))
            }
            (None, Err(error)) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::setting;

    #[test]
    fn settings_are_toml_or_words() {
        for (text, expected) in [
            ("sampler.scale=0.3", "scale = 0.3"),
            ("sampler.annealing.steps = 20", "[annealing]\nsteps = 20"),
            ("sampler.annealing.renoise=ancestral", "[annealing]\nrenoise = 'ancestral'"),
            ("sampler.annealing.renoise={ fraction = 0.5 }", "[annealing.renoise]\nfraction = 0.5"),
            ("sampler.draw=true", "draw = true"),
        ] {
            assert_eq!(setting(text), Ok(expected.parse().unwrap()), "{text}");
        }
        for text in ["", "scale=1", "sampler.scale", "sampler.=1", "sampler.a b=1", "sampler.a..b=1"] {
            assert!(setting(text).is_err(), "{text}");
        }
    }
}
