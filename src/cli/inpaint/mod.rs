//! `tweedie inpaint`: fills the masked pixels of one photo.

mod job;
mod report;
mod write;

use super::events::{Event, Events, print};
use super::failure::Outcome;
use super::flags::{DeviceFlags, MaskFlags, MemoryFlags, ModelFlags, SamplerFlags, Stripped, range};
use super::progress::Bar;
use super::terminal::{Console, bytes};
use super::{INPUT_OUTPUT, device, doctor, interrupt};
use crate::image::DecodeOptions;
use crate::{Catalog, InpaintOptions, Inpainting, Progress};
use clap::builder::RangedU64ValueParser;
use job::Job;
use report::{Report, estimate};
use std::path::PathBuf;
use std::time::Instant;
use tweedie_kernels::InstructionSet;
use write::Writer;

/// Runs longer than this many seconds are announced with their estimate.
const LONG: f64 = 3.0;

/// Fill the masked pixels of a photo
///
/// Draws samples of what could have been there, given everything around it. White in the mask means fill. Every pixel
/// outside the mask stays as it is, bit for bit, in a lossless output.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_long_help = EXAMPLES)]
pub(crate) struct Inpaint {
    /// Photo to restore; - reads standard input
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// File, folder/ or - [default: <stem>.inpaint.png]
    ///
    /// The extension says the format: png, jpg, webp, tiff, bmp, ppm or qoi. Several samples are numbered, `-0000`,
    /// `-0001` and so on, before the extension. `-` is standard output.
    #[arg(short, long, value_name = "OUT", help_heading = INPUT_OUTPUT)]
    output: Option<PathBuf>,
    /// Number of samples to draw, 1 to 10000
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = range(1, 10_000), help_heading = INPUT_OUTPUT)]
    samples: usize,
    /// Write also the mean of the samples
    #[arg(long, help_heading = INPUT_OUTPUT)]
    mean: bool,
    /// Write also a picture of the samples' spread
    ///
    /// Black where known or certain; four levels stand for one 8-bit level of standard deviation. The default settings
    /// draw samples that spread less than the posterior does (docs/inpainting.md), by about a third.
    #[arg(long, help_heading = INPUT_OUTPUT)]
    std: bool,
    /// Write also a sheet with before, mask and after
    #[arg(long, help_heading = INPUT_OUTPUT)]
    sheet: bool,
    /// Quality of a lossy output, 1 to 100
    #[arg(long, value_name = "Q", default_value_t = 95, value_parser = clap::value_parser!(u8).range(1..=100),
        help_heading = INPUT_OUTPUT)]
    quality: u8,
    /// Metadata to leave out: all or gps
    ///
    /// gps leaves out where the photo was taken, all everything but the colour profile.
    #[arg(long, value_name = "WHAT", value_enum, hide_possible_values = true, help_heading = INPUT_OUTPUT)]
    strip: Option<Stripped>,
    /// Accept a truncated PNG and fill its missing rows
    #[arg(long, help_heading = INPUT_OUTPUT)]
    allow_truncated: bool,
    /// Refuse photos with more pixels
    #[arg(long, value_name = "N", default_value_t = DecodeOptions::default().max_pixels,
        value_parser = RangedU64ValueParser::<u64>::new().range(1..), help_heading = INPUT_OUTPUT)]
    max_pixels: u64,
    /// Overwrite existing outputs
    #[arg(short, long, help_heading = INPUT_OUTPUT)]
    force: bool,
    /// Print the plan, its time and memory
    #[arg(short = 'n', long, visible_alias = "plan", help_heading = INPUT_OUTPUT)]
    dry_run: bool,

    #[command(flatten)]
    mask: MaskFlags,
    #[command(flatten)]
    model: ModelFlags,
    #[command(flatten)]
    sampler: SamplerFlags,
    #[command(flatten)]
    device: DeviceFlags,
    #[command(flatten)]
    memory: MemoryFlags,

    /// Print one JSON object per event
    #[arg(long, help_heading = super::DIAGNOSTICS)]
    pub(crate) json: bool,
}

const EXAMPLES: &str = "\
Examples:
  tweedie inpaint photo.jpg --mask scratches.png
  tweedie inpaint photo.png --mask alpha --samples 4 --mean --std --sheet -o restored/
  tweedie inpaint scan.tiff --mask color:#ff00ff,20 --mask-grow 3 -o scan.restored.tiff
  tweedie inpaint photo.jpg --mask scratches.png -n";

/// Runs the command. Whatever can be refused is refused before the photo is decoded, and the photo before the model
/// is loaded.
pub(crate) fn run(
    arguments: &Inpaint,
    catalog: &Catalog,
    instruction_set: InstructionSet,
    console: Console,
    events: Events,
) -> Outcome<()> {
    let clock = Instant::now();
    let job = Job::new(arguments)?;
    let bar = Bar::new(console, arguments.samples);
    arguments.device.start_threads()?;

    bar.phase("reading the photo");
    let (photo, mask) = job.read()?;
    interrupt::check()?;
    bar.phase("loading the model");
    let model = bar.aside(|| {
        let options = arguments.device.open(instruction_set, console)?;
        arguments.model.open(&options, console)
    })?;
    interrupt::check()?;
    bar.phase("planning");
    let options = InpaintOptions {
        samples: arguments.samples,
        seed: arguments.sampler.seed,
        samplers: &catalog.samplers,
        sampler: arguments.sampler.sampler.clone(),
        steps: arguments.sampler.steps,
        tile: arguments.sampler.tile,
        memory: arguments.memory.memory,
        ..InpaintOptions::default()
    };
    let inpainting = Inpainting::new(&photo, &mask, &options, &model)?;
    let plan = inpainting.plan().clone();
    if let Some(installed) = doctor::memory().filter(|&installed| plan.memory > installed) {
        return Err(crate::Error::Memory {
            needs: bytes(plan.memory),
            limit: bytes(installed),
            advice: "draw fewer samples at a time: the machine has no more".into(),
        }
        .into());
    }

    let report = Report {
        job: &job,
        photo: &photo,
        mask: &mask,
        model: &model,
        plan: &plan,
        device: device::name(model.device()),
    };
    let mut warnings = report.warnings()?;
    bar.aside(|| warnings.iter().for_each(|warning| console.warn(warning)));
    events.emit(&report.start(&warnings))?;
    if arguments.dry_run {
        drop(bar);
        if !arguments.json {
            print(report.describe().as_bytes())?;
        }
        return summarise(events, 0, true, clock, 0.0);
    }
    if plan.seconds > LONG || console.is_verbose() {
        bar.aside(|| console.note(&format!("estimate: {}", estimate(&plan))));
    }

    bar.begin(plan.steps * plan.regions * arguments.samples);
    let result = {
        let mut unreported = None;
        let mut observer = |progress: Progress| {
            interrupt::check()?;
            bar.step(progress);
            let Progress { done, total, sample, sigma } = progress;
            events.emit(&Event::Step { done, total, sample, sigma }).map_err(|failure| {
                unreported = Some(failure);
                crate::Error::Interrupted
            })
        };
        let result = inpainting.run(&mut observer);
        match unreported {
            Some(failure) => return Err(failure),
            None => result?,
        }
    };
    bar.phase("writing");
    job.check_unchanged()?;
    for warning in result.warnings(&photo, &mask) {
        if !warnings.contains(&warning) {
            bar.aside(|| console.warn(&warning));
            warnings.push(warning);
        }
    }
    let writer = Writer { report: &report, result: &result, warnings: &warnings, bar: &bar, console, events };
    let files = writer.write()?;
    drop(bar);
    summarise(events, files, false, clock, result.seconds)
}

fn summarise(events: Events, files: usize, dry_run: bool, clock: Instant, sampling_seconds: f64) -> Outcome<()> {
    let seconds = clock.elapsed().as_secs_f64();
    events.emit(&Event::Summary { files, dry_run, seconds, sampling_seconds, exit_code: 0 })
}
