//! `tweedie likelihood`: how likely a model holds images to be, in bits per dimension.

mod report;
mod subject;

use super::events::{Engine, Event, Events, Measuring, Name, print};
use super::failure::{Failure, Outcome};
use super::flags::{DeviceFlags, ModelFlags, range, size};
use super::progress::Bar;
use super::restoring::Session;
use super::terminal::{Console, count, duration};
use super::{DIAGNOSTICS, ExitCode, INPUT_OUTPUT, MEASUREMENT, device, interrupt};
use crate::image::DecodeOptions;
use crate::likelihood::{Density, Likelihood as Method, Stage, Trace};
use crate::models::Model;
use clap::builder::RangedU64ValueParser;
use report::{Report, Row};
use std::path::PathBuf;
use std::time::Instant;
use subject::Subject;
use tweedie_operators::Rng;

/// Evaluations that most paths take, for estimates.
const TYPICAL: f64 = 100.0;

/// Runs longer than this many seconds are announced with their estimate.
const LONG: f64 = 3.0;

/// Measure how likely a model holds images to be
///
/// Bits per dimension: what a number of the image (a pixel has three in colour) would cost if images were compressed by what
/// the model knows. Less is more likely; 8 is what an image costs of which nothing is known. The density comes from the
/// probability-flow ODE, whose divergence is estimated with random probes; ± is the standard error that they leave.
/// docs/likelihood.md says what the number depends on and what limits it.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_long_help = EXAMPLES)]
pub(crate) struct Likelihood {
    /// Images to measure
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<PathBuf>,
    /// The middle of each image only
    ///
    /// Time grows with the number of pixels, bits per dimension do not: a part tells nearly as much. At most 512x512 pixels are
    /// taken in one piece.
    #[arg(long, value_name = "HxW", value_parser = size, help_heading = INPUT_OUTPUT)]
    crop: Option<(usize, usize)>,
    /// Refuse photos with more pixels
    #[arg(long, value_name = "N", default_value_t = DecodeOptions::default().max_pixels,
        value_parser = RangedU64ValueParser::<u64>::new().range(1..), help_heading = INPUT_OUTPUT)]
    max_pixels: u64,
    /// Print what it would cost
    #[arg(short = 'n', long, visible_alias = "plan", help_heading = INPUT_OUTPUT)]
    dry_run: bool,

    #[command(flatten)]
    model: ModelFlags,

    /// Random probes, 1 to 65536 [default: 4]
    ///
    /// Each takes one pullback of the network, about two evaluations, at every point of the path; the standard error falls with
    /// the root of their number. A single one has no standard error.
    #[arg(long, value_name = "K", value_parser = range(1, 65_536), help_heading = MEASUREMENT)]
    probes: Option<usize>,
    /// rademacher, gaussian or exact
    ///
    /// Probes of random signs, or of normal numbers, which scatter more; exact takes one pullback for every number of the
    /// image, at most 4096.
    #[arg(long, value_name = "KIND", value_enum, default_value_t, hide_possible_values = true,
        help_heading = MEASUREMENT)]
    probe_kind: Kind,
    /// Error of a step, 1e-9 to 0.1 [default: 1e-4]
    ///
    /// Relative and absolute, of the adaptive method of Dormand and Prince.
    #[arg(long, value_name = "E", value_parser = positive, help_heading = MEASUREMENT)]
    tolerance: Option<f64>,
    /// Noise level at the start [the model's]
    ///
    /// Pixels are in [-1, 1]. The density is that of images with so much noise.
    #[arg(long, value_name = "S", value_parser = positive, help_heading = MEASUREMENT)]
    sigma_min: Option<f64>,
    /// Noise level at the end [the model's]
    ///
    /// It has to hide the image.
    #[arg(long, value_name = "S", value_parser = positive, help_heading = MEASUREMENT)]
    sigma_max: Option<f64>,
    /// Grey levels of the images [all]
    ///
    /// 256 of 8-bit images and 65536 of 16-bit ones. With N the levels are multiples of 255/(N - 1), rounded down: 17 are 0, 15,
    /// ..., 240.
    #[arg(long, value_name = "N", value_parser = range(2, 65_536), help_heading = MEASUREMENT)]
    levels: Option<usize>,
    /// Take the levels as they are
    ///
    /// A density knows no whole numbers: by default uniform noise of a level's width is added, with which the result is, on
    /// average, no less than the bits that an image really takes.
    #[arg(long, conflicts_with = "draws", help_heading = MEASUREMENT)]
    no_dequantize: bool,
    /// Draws of that noise, 1 to 10000
    ///
    /// The mean is told, and with two or more the standard error is what they differ by. Draw k is the same however many there
    /// are.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = range(1, 10_000), help_heading = MEASUREMENT)]
    draws: usize,
    /// Seed of all random numbers
    ///
    /// Each image has random numbers of its own, that depend on the seed and on its pixels only.
    #[arg(long, value_name = "S", default_value_t = 0, help_heading = MEASUREMENT)]
    seed: u64,

    #[command(flatten)]
    device: DeviceFlags,

    /// Print one JSON object per event
    #[arg(long, help_heading = DIAGNOSTICS)]
    pub(crate) json: bool,
}

const EXAMPLES: &str = "\
Examples:
  tweedie likelihood photo.jpg --crop 64x64
  tweedie likelihood photos/*.png --crop 128x128 --probes 8 --json
  tweedie likelihood digit.png --model digits.safetensors --levels 17 --probe-kind exact
  tweedie likelihood photo.png -n";

/// What the probes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, clap::ValueEnum)]
enum Kind {
    #[default]
    Rademacher,
    Gaussian,
    Exact,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Rademacher => "rademacher",
            Self::Gaussian => "gaussian",
            Self::Exact => "exact",
        }
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if value > 0.0 && f64::is_finite(value) => Ok(value),
        _ => Err("expected a number above 0".into()),
    }
}

/// Runs the command. One bad image costs no other.
pub(crate) fn run(
    arguments: &Likelihood,
    Session { instruction_set, console, events, .. }: Session<'_>,
) -> Outcome<()> {
    let clock = Instant::now();
    let mut method = arguments.method()?;
    method.check()?;
    subject::check_names(&arguments.images)?;
    let bar = Bar::new(console, 1);
    arguments.device.start_threads()?;
    bar.phase("loading the model");
    let model = bar.aside(|| {
        let options = arguments.device.open(instruction_set, console)?;
        arguments.model.open(&options, console)
    })?;
    interrupt::check()?;
    method.sigma_range = Some(arguments.sigma_range(&model, console));

    let work = Work { arguments, method: &method, model: &model, console, events };
    events.emit(&work.start(&device::name(model.device())))?;
    let mut report = Report::default();
    if arguments.dry_run {
        bar.phase("measuring an evaluation");
        work.plan(&mut report, &bar)?;
        drop(bar);
        if !arguments.json {
            print(report.plan().as_bytes())?;
        }
    } else {
        bar.begin_shares();
        let stopped = work.measure(&mut report, &bar).err();
        drop(bar);
        // What is done is told even if the rest is not to come.
        if !arguments.json && !report.rows.is_empty() {
            print(report.table().as_bytes())?;
        }
        if let Some(failure) = stopped {
            return Err(failure);
        }
    }
    report.check(arguments.images.len())?;
    events.emit(&report.summary(arguments.dry_run, clock.elapsed().as_secs_f64()))
}

impl Likelihood {
    /// How densities are computed, over the model's own noise levels.
    fn method(&self) -> Outcome<Method> {
        let default = Method::default();
        let probes = self.probes.unwrap_or(4);
        let trace = match self.probe_kind {
            Kind::Rademacher => Trace::Rademacher(probes),
            Kind::Gaussian => Trace::Gaussian(probes),
            Kind::Exact if self.probes.is_some() => {
                let message = "--probes counts random probes, --probe-kind exact has none";
                return Err(Failure::usage(message).hint("leave out --probes"));
            }
            Kind::Exact => Trace::Exact,
        };
        Ok(Method { trace, tolerance: self.tolerance.unwrap_or(default.tolerance), ..default })
    }

    /// From where to where the path leads.
    fn sigma_range(&self, model: &Model, console: Console) -> std::ops::RangeInclusive<f64> {
        let denoiser = model.denoiser();
        let own = denoiser.sigma_range();
        let (start, end) = (self.sigma_min.unwrap_or(*own.start()), self.sigma_max.unwrap_or(*own.end()));
        // Ten times the spread leaves a hundredth of a signal's power.
        if end < 10.0 * denoiser.spread() {
            console.warn(&format!(
                "at sigma {end} images are not hidden, their spread is {}: the number is no likelihood",
                denoiser.spread()
            ));
        }
        start..=end
    }

    /// Applications of the pullback at every point of the path.
    fn pullbacks(&self, dimensions: usize) -> usize {
        if self.probe_kind == Kind::Exact { dimensions } else { self.probes.unwrap_or(4) }
    }
}

#[derive(Debug)]
struct Work<'a> {
    arguments: &'a Likelihood,
    method: &'a Method,
    model: &'a Model,
    console: Console,
    events: Events,
}

impl Work<'_> {
    fn start<'a>(&'a self, device: &'a str) -> Event<'a> {
        let Self { arguments, method, model, .. } = self;
        let images: Vec<_> = arguments.images.iter().map(|path| Name::new(path)).collect();
        let (sigma_min, sigma_max) = method.sigma_range.clone().unwrap_or(0.0..=0.0).into_inner();
        let probes = match method.trace {
            Trace::Rademacher(probes) | Trace::Gaussian(probes) => Some(probes),
            Trace::Exact => None,
        };
        Event::Measuring(Box::new(Measuring {
            version: env!("CARGO_PKG_VERSION"),
            command: "likelihood",
            lossy_name: images.iter().any(|name| name.lossy),
            images,
            engine: Engine::new(model, device),
            seed: arguments.seed,
            probes,
            probe_kind: arguments.probe_kind.name(),
            tolerance: method.tolerance,
            sigma_min,
            sigma_max,
            draws: arguments.draws,
            dequantized: !arguments.no_dequantize,
        }))
    }

    /// Reads the images one after the other; those that cannot be used are told and counted.
    fn each(
        &self,
        report: &mut Report,
        bar: &Bar,
        mut work: impl FnMut(usize, &Subject, &mut Report) -> Outcome<()>,
    ) -> Outcome<()> {
        for (index, path) in self.arguments.images.iter().enumerate() {
            interrupt::check()?;
            let done = Subject::read(path, self.arguments, self.model).and_then(|subject| {
                bar.aside(|| subject.warnings.iter().for_each(|warning| self.console.warn(warning)));
                work(index, &subject, report)
            });
            let Err(failure) = done else { continue };
            if failure.broken_pipe || matches!(failure.code, ExitCode::Interrupted | ExitCode::Terminated) {
                return Err(failure);
            }
            report.failed += 1;
            if self.arguments.images.len() == 1 {
                return Err(failure);
            }
            bar.aside(|| self.console.fail(&failure));
            let input = Name::new(path);
            self.events.emit(&Event::Unmeasured { lossy_name: input.lossy, input, message: failure.message() })?;
        }
        Ok(())
    }

    /// What every image would cost, from one small evaluation.
    fn plan(&self, report: &mut Report, bar: &Bar) -> Outcome<()> {
        self.each(report, bar, |_, subject, report| {
            let pullbacks = self.arguments.pullbacks(subject.dimensions());
            let seconds = self.pixel(pullbacks)? * (subject.width * subject.height) as f64;
            report.plans.push(report::Plan {
                subject: subject.head(),
                seconds: seconds * TYPICAL * self.arguments.draws as f64,
                evaluation: seconds,
            });
            Ok(())
        })
    }

    /// Seconds that a pixel takes in one evaluation, measured on a small image.
    fn pixel(&self, pullbacks: usize) -> Outcome<f64> {
        let denoiser = self.model.denoiser();
        let (height, width) = denoiser.native_size().unwrap_or((64, 64));
        let channels = denoiser.channels().unwrap_or(3);
        // What one application takes is not what the first takes.
        let measured = pullbacks.min(4);
        let seconds = self.model.measured(measured, || {
            let options = (candle_core::DType::F32, self.model.device());
            let x = candle_core::Tensor::zeros((1, channels, height, width), options.0, options.1)?;
            let mut seconds = f64::INFINITY;
            // The first evaluation also finds its memory.
            for _ in 0..2 {
                let clock = Instant::now();
                let (mut v, pullback) = denoiser.denoise_with_pullback(&x, 0.5)?;
                for _ in 0..measured {
                    v = pullback.apply(&v)?;
                }
                v.to_device(&candle_core::Device::Cpu)?;
                seconds = clock.elapsed().as_secs_f64().min(seconds);
            }
            Ok(seconds / (height * width) as f64)
        })?;
        Ok(seconds * (1 + 2 * pullbacks) as f64 / (1 + 2 * measured) as f64)
    }

    fn measure(&self, report: &mut Report, bar: &Bar) -> Outcome<()> {
        let images = self.arguments.images.len();
        self.each(report, bar, |index, subject, report| {
            let clock = Instant::now();
            let share = |draw: usize, done: f64| {
                let here = (draw as f64 + done) / self.arguments.draws as f64;
                let what = if images > 1 { format!(", image {} of {images}", index + 1) } else { String::new() };
                bar.share((index as f64 + here) / images as f64, what);
            };
            let mut densities = Vec::with_capacity(self.arguments.draws);
            for draw in 0..self.arguments.draws {
                let mut observer = |stage: &Stage| {
                    interrupt::check()?;
                    share(draw, stage.done);
                    // The mean has no pullback: the second evaluation is the first whole one.
                    if index == 0 && draw == 0 && stage.evaluations == 2 {
                        self.announce(clock.elapsed().as_secs_f64(), bar);
                    }
                    Ok(())
                };
                densities.push(self.density(subject, draw as u64, &mut observer)?);
            }
            let Some(density) = Density::pooled(&densities) else { return Ok(()) };
            let row = Row::new(subject, &density, clock.elapsed().as_secs_f64());
            self.events.emit(&row.event(self.arguments.seed))?;
            report.rows.push(row);
            Ok(())
        })
    }

    /// Says what is to come if that is long.
    fn announce(&self, evaluation: f64, bar: &Bar) {
        let paths = self.arguments.images.len() * self.arguments.draws;
        let seconds = evaluation * TYPICAL * paths as f64;
        if seconds > LONG || self.console.is_verbose() {
            let each = format!("some {TYPICAL} evaluations of {}", duration(evaluation));
            let of = count(self.arguments.images.len(), "image");
            bar.aside(|| self.console.note(&format!("estimate: {} for {of}, {each} each", duration(seconds))));
        }
    }

    /// The density of one draw of the noise.
    fn density(
        &self,
        subject: &Subject,
        draw: u64,
        observer: &mut dyn FnMut(&Stage) -> crate::Result<()>,
    ) -> Outcome<Density> {
        let mut rng = Rng::new(subject.seed(self.arguments.seed), draw..draw + 1);
        let x = match self.arguments.no_dequantize {
            false => subject.levels.dequantised(&subject.values, &mut rng),
            true => subject.levels.pixels(&subject.values),
        };
        let x =
            x.map_err(|error| subject.failure(error))?.to_device(self.model.device()).map_err(crate::Error::from)?;
        let found = self.method.log_density(self.model.denoiser(), &x, &mut rng, observer);
        let found = found.map_err(|error| subject.failure(error))?;
        found.first().copied().ok_or_else(|| Failure::new(ExitCode::Failed, "no density was found"))
    }
}
