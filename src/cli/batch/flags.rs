//! What the flags of a batch say about every photo: a layer of its settings, above the preset.
//!
//! A flag means what it means in the command of the task. Where two commands have a flag of one name, such as `--kernel`, the
//! task decides what its value can be.

use crate::batch::{Layer, Settings};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::flags::{SideFlags, range, setting, size};
use crate::cli::{INPUT_OUTPUT, MASK, MEASUREMENT, MODEL, SAMPLER, amount};
use crate::samplers::Choice;
use crate::{Catalog, Task};
use clap::builder::{PossibleValuesParser, RangedU64ValueParser};
use std::path::PathBuf;
use std::time::Duration;
use toml::{Table, Value};

/// Name of the layer, for errors.
const ORIGIN: &str = "command line";

#[derive(Debug, clap::Args)]
pub(super) struct SettingsFlags {
    /// inpaint, colorize, upscale, deblur, denoise, restore
    ///
    /// What is done to every photo: what the command of this name does to one. Flags of other tasks are refused.
    #[arg(short, long, value_name = "TASK", value_parser = PossibleValuesParser::new(Task::NAMES),
        hide_possible_values = true)]
    task: Option<String>,
    /// Settings with a name, or a TOML file of settings
    ///
    /// Flags stand above it, and files of settings beside the photos above these.
    #[arg(long, value_name = "PRESET")]
    preset: Option<String>,

    /// Pixels to fill around masks, too
    #[arg(long, value_name = "PX", help_heading = MASK)]
    mask_grow: Option<f64>,
    /// Fit masks of another size: nearest
    #[arg(long, value_name = "HOW", value_parser = ["nearest"], hide_possible_values = true, help_heading = MASK)]
    mask_resize: Option<String>,
    /// auto, luma, alpha or red
    #[arg(long, value_name = "CHANNEL", value_parser = ["auto", "luma", "alpha", "red"], hide_possible_values = true,
        help_heading = MASK)]
    mask_channel: Option<String>,
    /// Fill what is above, 0 to 255
    #[arg(long, value_name = "T", help_heading = MASK)]
    mask_threshold: Option<u8>,
    /// Black = fill
    #[arg(long, help_heading = MASK)]
    invert_mask: bool,

    /// colorize: coloured dots on transparent ground
    #[arg(long, value_name = "PNG", help_heading = MEASUREMENT)]
    hints: Option<PathBuf>,
    /// upscale: how many times larger
    #[arg(short, long, value_name = "X", help_heading = MEASUREMENT)]
    scale: Option<String>,
    /// upscale, deblur: as their commands have it
    ///
    /// For upscale bicubic, box or lanczos; for deblur gaussian:S, disk:R, motion:LEN,ANGLE or file:PNG.
    #[arg(short, long, value_name = "KERNEL", help_heading = MEASUREMENT)]
    kernel: Option<String>,
    /// Noise's std in 8-bit levels, or auto
    ///
    /// upscale, deblur and denoise; auto estimates it from each photo.
    #[arg(long, value_name = "L", allow_negative_numbers = true, help_heading = MEASUREMENT)]
    noise: Option<String>,
    /// restore: a TOML file of operator and noise
    #[arg(long, value_name = "TOML", help_heading = MEASUREMENT)]
    operator: Option<PathBuf>,
    /// restore: size of the images, if need be
    #[arg(long, value_name = "HxW", value_parser = size, help_heading = MEASUREMENT)]
    size: Option<(usize, usize)>,

    /// png, jpg, webp, tiff, bmp, ppm or qoi [png]
    #[arg(long, value_name = "FORMAT", help_heading = INPUT_OUTPUT)]
    format: Option<String>,
    /// Quality of a JPEG, 1 to 100 [95]
    #[arg(long, value_name = "Q", value_parser = clap::value_parser!(u8).range(1..=100), help_heading = INPUT_OUTPUT)]
    jpeg_quality: Option<u8>,
    /// Metadata to leave out: all, gps or a list
    ///
    /// all is everything but the colour profile, gps where the photo was taken; a list has some of exif, gps, icc, iptc, text
    /// and xmp, separated by commas.
    #[arg(long, value_name = "WHAT", conflicts_with = "keep", help_heading = INPUT_OUTPUT)]
    strip: Option<String>,
    /// Metadata to keep, and no other: a list
    ///
    /// Some of exif, icc, iptc, text and xmp, separated by commas; the colour profile is always kept.
    #[arg(long, value_name = "WHAT", help_heading = INPUT_OUTPUT)]
    keep: Option<String>,
    /// Samples of every photo, 1 to 10000 [1]
    #[arg(long, value_name = "N", value_parser = range(1, 10_000), help_heading = INPUT_OUTPUT)]
    samples: Option<usize>,
    #[command(flatten)]
    sides: SideFlags,
    /// Accept truncated PNGs and fill missing rows
    #[arg(long, help_heading = INPUT_OUTPUT)]
    allow_truncated: bool,
    /// Refuse photos with more pixels
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<u64>::new().range(1..=i64::MAX as u64),
        help_heading = INPUT_OUTPUT)]
    max_pixels: Option<u64>,

    /// Seed of the run [0]
    ///
    /// Every photo has a seed of its own, made of this one and of its relative path, so that the order, jobs and shards change
    /// nothing. It is recorded: --seed with it repeats the photo with the command of the task.
    #[arg(long, value_name = "S", help_heading = SAMPLER)]
    seed: Option<u64>,
    /// draft, standard or best [standard]
    #[arg(long, value_name = "QUALITY", value_parser = ["draft", "standard", "best"], hide_possible_values = true,
        help_heading = SAMPLER)]
    quality: Option<String>,
    /// Time for one photo, such as 20s or 5m
    ///
    /// Fewer noise levels are taken where they do not fit; the result then depends on how fast the machine is.
    #[arg(long, value_name = "TIME", value_parser = amount::parse_time, help_heading = SAMPLER)]
    photo_time_limit: Option<Duration>,
    /// Noise levels, 1 to 1000
    #[arg(long, value_name = "N", value_parser = range(1, 1000), help_heading = SAMPLER)]
    steps: Option<usize>,
    /// Sampling method [auto]
    #[arg(long, value_name = "NAME", help_heading = SAMPLER)]
    sampler: Option<String>,
    /// A setting of the sampler: sampler.KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting, help_heading = SAMPLER)]
    set: Vec<Table>,
    /// Side of a window, 64 to 4096
    #[arg(long, value_name = "PX", value_parser = range(64, 4096), help_heading = SAMPLER)]
    tile: Option<usize>,
    /// Fit photos to the model's own size: fit
    #[arg(long, value_name = "HOW", value_parser = ["fit"], hide_possible_values = true, conflicts_with = "tile",
        help_heading = MODEL)]
    resize: Option<String>,
}

impl SettingsFlags {
    /// The settings of the run, checked as far as that is possible without a photo.
    pub(super) fn settings(&self, catalog: &Catalog) -> Outcome<Settings> {
        let preset = self.preset.as_deref().map(Layer::preset).transpose()?;
        let layers: Vec<Layer> = preset.into_iter().chain([self.layer()?]).collect();
        let mut settings = Settings::of(&layers)?;
        // TOML has no number as large as a seed can be.
        if let Some(seed) = self.seed {
            settings.sampling.seed = seed;
        }
        settings.check_with(catalog)?;
        Ok(settings)
    }

    /// The flags that were given.
    fn layer(&self) -> Outcome<Layer> {
        let mut table = Table::new();
        let texts = [
            ("task", &self.task),
            ("mask_resize", &self.mask_resize),
            ("mask_channel", &self.mask_channel),
            ("scale", &self.scale),
            ("kernel", &self.kernel),
            ("format", &self.format),
            ("strip", &self.strip),
            ("keep", &self.keep),
            ("quality", &self.quality),
            ("resize", &self.resize),
            ("sampler", &self.sampler),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                table.insert(key.into(), Value::String(text.clone()));
            }
        }
        for (key, path) in [("hints", &self.hints), ("operator", &self.operator)] {
            let Some(path) = path else { continue };
            let Some(text) = path.to_str() else {
                return Err(Failure::usage(format!("--{key} {}: the name is no text", path.display()))
                    .hint("rename the file, or link to it"));
            };
            table.insert(key.into(), Value::String(text.into()));
        }
        let flags = [
            ("invert_mask", self.invert_mask),
            ("mean", self.sides.mean),
            ("std", self.sides.std),
            ("sheet", self.sides.sheet),
            ("allow_truncated", self.allow_truncated),
        ];
        for (key, flag) in flags {
            if flag {
                table.insert(key.into(), Value::Boolean(true));
            }
        }
        let numbers = [
            ("mask_threshold", self.mask_threshold.map(i64::from)),
            ("jpeg_quality", self.jpeg_quality.map(i64::from)),
            ("samples", self.samples.map(|n| n as i64)),
            ("steps", self.steps.map(|n| n as i64)),
            ("tile", self.tile.map(|n| n as i64)),
            ("max_pixels", self.max_pixels.map(|n| n as i64)),
        ];
        for (key, number) in numbers {
            if let Some(number) = number {
                table.insert(key.into(), Value::Integer(number));
            }
        }
        let floats =
            [("mask_grow", self.mask_grow), ("photo_time_limit", self.photo_time_limit.map(|time| time.as_secs_f64()))];
        for (key, number) in floats {
            if let Some(number) = number {
                table.insert(key.into(), Value::Float(number));
            }
        }
        if let Some(text) = &self.noise {
            let noise = text.parse().map_or_else(|_| Value::String(text.clone()), Value::Float);
            table.insert("noise".into(), noise);
        }
        if let Some((height, width)) = self.size {
            table.insert("size".into(), vec![height as i64, width as i64].into());
        }
        if !self.set.is_empty() {
            let set = self.set.iter().cloned().fold(Choice::of("", Table::new()), Choice::with).settings;
            table.insert("set".into(), Value::Table(set));
        }
        Ok(Layer { origin: ORIGIN.into(), table })
    }
}
