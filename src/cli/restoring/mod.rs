//! What every command that restores one photo does, from its arguments to its files: `inpaint`, `colorize`, `upscale`,
//! `deblur`, `denoise` and `restore` differ in the work that they make of a photo.

mod job;
mod report;
mod write;

use super::events::{Event, Events, print};
use super::failure::Outcome;
use super::flags::{DeviceFlags, MemoryFlags, ModelFlags, ResizeFlags, SamplerFlags, SideFlags, WritingFlags, range};
use super::progress::Bar;
use super::terminal::Console;
use super::{INPUT_OUTPUT, device, doctor, interrupt};
use crate::image::{DecodeOptions, MaskSource};
use crate::{Catalog, Progress, Restoration, RestoreOptions, Task};
use clap::builder::RangedU64ValueParser;
use job::Job;
use report::{Report, estimate};
use std::path::{Path, PathBuf};
use std::time::Instant;
use tweedie_kernels::InstructionSet;
use write::Writer;

/// Runs longer than this many seconds are announced with their estimate.
const LONG: f64 = 3.0;

/// Arguments of every command that restores one photo.
#[derive(Debug, clap::Args)]
pub(crate) struct Common {
    /// Photo to restore; - reads standard input
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,
    /// File, folder/ or - [default: <stem>.<command>.png]
    ///
    /// The extension says the format. Several samples are numbered, `-0000`,
    /// `-0001` and so on, before the extension. `-` is standard output.
    #[arg(short, long, value_name = "OUT", help_heading = INPUT_OUTPUT)]
    output: Option<PathBuf>,
    /// Number of samples to draw, 1 to 10000
    ///
    /// With the default sampler the first is the one closest to the truth, the others spread as the posterior does; sample k is
    /// the same however many are drawn.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = range(1, 10_000), help_heading = INPUT_OUTPUT)]
    samples: usize,
    #[command(flatten)]
    sides: SideFlags,
    #[command(flatten)]
    writing: WritingFlags,
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
    model: ModelFlags,
    #[command(flatten)]
    resize: ResizeFlags,
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

/// How a command was started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) instruction_set: InstructionSet,
    pub(crate) console: Console,
    pub(crate) events: Events,
}

/// Runs a command. Whatever can be refused is refused before the photo is decoded, and the photo before the model is loaded.
pub(crate) fn run(
    task: &Task,
    mask: Option<&MaskSource>,
    arguments: &Common,
    Session { catalog, instruction_set, console, events }: Session<'_>,
) -> Outcome<()> {
    let clock = Instant::now();
    // The file that is read beside the photo.
    let second = match mask {
        Some(MaskSource::File(path)) => Some(path.as_path()),
        _ => task.file(),
    };
    let job = Job::new(task.name(), arguments, second.as_slice())?;
    task.check()?;
    let bar = Bar::new(console, arguments.samples);
    arguments.device.start_threads()?;

    bar.phase("reading the photo");
    let (photo, work, measurement) = match task {
        Task::Restore(task) if is_measurement(&arguments.image) => task.of_measurement(&arguments.image, catalog)?,
        task => {
            let mut photo = job.read()?;
            let (work, measurement) = task.work(&mut photo, mask, job.decoding(), catalog)?;
            (photo, work, measurement)
        }
    };
    interrupt::check()?;
    bar.phase("loading the model");
    let model = bar.aside(|| {
        let options = arguments.device.open(instruction_set, console)?;
        arguments.model.open(&options, console)
    })?;
    interrupt::check()?;
    bar.phase("planning");
    let options = RestoreOptions {
        samples: arguments.samples,
        seed: arguments.sampler.seed,
        samplers: &catalog.samplers,
        sampler: arguments.sampler.sampler.clone(),
        quality: arguments.sampler.quality(),
        deadline: arguments.sampler.time_limit.map(|limit| clock + limit),
        steps: arguments.sampler.steps,
        settings: arguments.sampler.settings(),
        tile: arguments.sampler.tile,
        resize: arguments.resize.chosen(),
        memory: arguments.memory.memory,
        ..RestoreOptions::default()
    };
    let canvas = work.canvas(&photo);
    let formats = job.photo_formats()?;
    for &format in &formats {
        canvas.check_encode(format, &job.encoding())?;
    }
    let restoration = Restoration::of(&work, &photo, &options, &model)?;
    let plan = restoration.plan().clone();
    if let Some(installed) = doctor::memory().filter(|&installed| plan.memory > installed) {
        return Err(crate::Error::Memory {
            needs: plan.memory,
            limit: installed,
            advice: "draw fewer samples at a time: the machine has no more".into(),
        }
        .into());
    }

    let report = Report {
        job: &job,
        photo: &photo,
        mask: work.mask(),
        second,
        measurement: &measurement,
        canvas,
        model: &model,
        plan: &plan,
        device: device::name(model.device()),
    };
    let mut warnings = work.remarks(&photo, &plan, &formats, &job.encoding());
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

    bar.begin(plan.total_steps);
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
        let result = restoration.run(&mut observer);
        match unreported {
            Some(failure) => return Err(failure),
            None => result?,
        }
    };
    bar.phase("writing");
    job.check_unchanged()?;
    for warning in work.warnings((!is_measurement(&arguments.image)).then_some(&photo), &result) {
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

/// Whether a file holds a measurement, by its name.
pub(super) fn is_measurement(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors"))
}
