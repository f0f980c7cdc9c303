//! `tweedie sample`: images of the prior, without any photo.

use super::events::{Drawing, Drawn, Engine, Event, Events, Name, print};
use super::failure::{Failure, Outcome};
use super::flags::{DeviceFlags, ModelFlags, range};
use super::outputs::{Input, Outputs, Target, Wanted};
use super::progress::Bar;
use super::restoring::Session;
use super::terminal::{Console, count, duration, escape};
use super::{DIAGNOSTICS, INPUT_OUTPUT, SAMPLER, device, interrupt};
use crate::Progress;
use crate::image::{EncodeOptions, Mask, OutputFormat, Photo, Region, write_atomically};
use crate::models::Model;
use crate::restore::sheet::{Sheet, picture};
use crate::solvers::{Solver, Step, find_solver};
use candle_core::Tensor;
use image::codecs::png::PngEncoder;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tweedie_operators::Rng;

/// Side of an image whose model was made for any size.
const SIDE: usize = 64;
/// More samples than this are not put on a sheet.
const SHEET_SAMPLES: usize = 64;
/// Samples go by this name.
const STEM: &str = "sample";

/// Draw images from the prior
///
/// What the model holds for likely before it has seen any photo: a look at what it knows. Sample k is the same whether one
/// or a hundred are drawn.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Sample {
    /// Number of samples to draw, 1 to 10000
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = range(1, 10_000), help_heading = INPUT_OUTPUT)]
    samples: usize,
    /// Size of the images [default: the model's]
    ///
    /// Sides from 1 to 1024; 64x64 if the model was made for any size.
    #[arg(long, value_name = "HxW", value_parser = size, help_heading = INPUT_OUTPUT)]
    size: Option<(usize, usize)>,
    /// File, folder/ or - [default: sample.png]
    ///
    /// The extension says the format: png, jpg, webp, tiff, bmp, ppm or qoi. Several samples are numbered, `-0000`,
    /// `-0001` and so on, before the extension. `-` is standard output.
    #[arg(short, long, value_name = "OUT", help_heading = INPUT_OUTPUT)]
    output: Option<PathBuf>,
    /// Write also a PNG sheet of all samples
    ///
    /// FILE, or `-sheet.png` beside the samples; the first 64 are on it.
    #[arg(long, value_name = "FILE", num_args = 0..=1, help_heading = INPUT_OUTPUT)]
    #[expect(clippy::option_option, reason = "how clap says an option with an optional value")]
    sheet: Option<Option<PathBuf>>,
    /// Overwrite existing outputs
    #[arg(short, long, help_heading = INPUT_OUTPUT)]
    force: bool,
    /// Print the plan and draw nothing
    #[arg(short = 'n', long, help_heading = INPUT_OUTPUT)]
    dry_run: bool,

    #[command(flatten)]
    model: ModelFlags,

    /// Seed of all random numbers
    #[arg(long, value_name = "S", default_value_t = 0, help_heading = SAMPLER)]
    seed: u64,
    /// Noise levels, 1 to 10000 [default: the sampler's]
    #[arg(long, value_name = "N", value_parser = range(1, 10_000), help_heading = SAMPLER)]
    steps: Option<usize>,
    /// A solver of `tweedie samplers`
    #[arg(long, value_name = "NAME", default_value = "heun", help_heading = SAMPLER)]
    sampler: String,

    #[command(flatten)]
    device: DeviceFlags,

    /// Print one JSON object per event
    #[arg(long, help_heading = DIAGNOSTICS)]
    pub(crate) json: bool,
}

const EXAMPLES: &str = "\
Examples:
  tweedie sample
  tweedie sample --samples 16 --size 128x128 --sheet -o drawn/
  tweedie sample --sampler dpmpp_2m_sde --steps 50 --seed 7 -o image.png";

/// `HxW` with sides that a network takes in one piece.
fn size(text: &str) -> Result<(usize, usize), String> {
    let side = |text: &str| text.parse().ok().filter(|side| (1..=1024).contains(side));
    let (height, width) = text.split_once(['x', 'X']).unwrap_or_default();
    side(height).zip(side(width)).ok_or_else(|| "expected HEIGHTxWIDTH, such as 64x96, sides from 1 to 1024".into())
}

/// Runs the command.
pub(crate) fn run(
    arguments: &Sample,
    Session { catalog, instruction_set, console, events }: Session<'_>,
) -> Outcome<()> {
    let clock = Instant::now();
    let mut settings = toml::Table::new();
    if let Some(steps) = arguments.steps {
        settings.insert("steps".into(), toml::Value::Integer(steps as i64));
    }
    if catalog.samplers.iter().any(|entry| entry.name == arguments.sampler)
        && !catalog.solvers.iter().any(|entry| entry.name == arguments.sampler)
    {
        let known = catalog.solvers.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
        return Err(Failure::usage(format!("{} restores measurements, and there is none", arguments.sampler))
            .hint(format!("--sampler takes {known}")));
    }
    let solver = find_solver(&catalog.solvers, &arguments.sampler, settings)?;
    let outputs = arguments.outputs()?;

    let bar = Bar::new(console, arguments.samples);
    arguments.device.start_threads()?;
    bar.phase("loading the model");
    let model = bar.aside(|| {
        let options = arguments.device.open(instruction_set, console)?;
        arguments.model.open(&options, console)
    })?;
    interrupt::check()?;

    let work = Work { arguments, solver: solver.as_ref(), model: &model, outputs: &outputs, console, events };
    let plan = work.plan()?;
    events.emit(&work.start(&plan))?;
    let summary = |files, dry_run, sampling_seconds| Event::Summary {
        files,
        dry_run,
        seconds: clock.elapsed().as_secs_f64(),
        sampling_seconds,
        exit_code: 0,
    };
    if arguments.dry_run {
        drop(bar);
        if !arguments.json {
            print(work.describe(&plan).as_bytes())?;
        }
        return events.emit(&summary(0, true, 0.0));
    }
    let (files, seconds) = work.draw(&plan, &bar)?;
    drop(bar);
    events.emit(&summary(files, false, seconds))
}

impl Sample {
    /// Every file of the run, or why it cannot be.
    fn outputs(&self) -> Outcome<Outputs> {
        // A folder takes the input's name; there is none.
        let input = Input::File(STEM.into());
        let output = self.output.clone().unwrap_or_else(|| format!("{STEM}.png").into());
        let wanted = Wanted {
            samples: self.samples,
            mean: false,
            std: false,
            sheet: self.sheet.is_some(),
            format: OutputFormat::Png,
        };
        let mut outputs = Outputs::new(&input, STEM, Some(&output), wanted)?;
        if let Some(Some(sheet)) = &self.sheet {
            outputs.sheet = Some(sheet.clone());
        }
        if outputs.samples.contains(&Target::Stdout) {
            if self.json {
                return Err(Failure::usage("standard output takes the image or the events of --json, not both")
                    .hint("-o FILE leaves standard output to the events"));
            }
            if std::io::stdout().is_terminal() && !self.dry_run {
                return Err(Failure::usage("standard output is a terminal, which cannot show an image")
                    .hint("redirect it: -o - > out.png"));
            }
        }
        for output in outputs.files() {
            if output.extension().is_none() {
                return Err(Failure::usage(format!("{}: an output needs an extension", output.display()))
                    .hint(format!("{0}.png for a file, {0}/ for a folder", output.display())));
            }
            OutputFormat::from_path(output)?;
        }
        if let Some(sheet) = &outputs.sheet {
            if OutputFormat::from_path(sheet)? != OutputFormat::Png {
                return Err(Failure::usage(format!("{}: a sheet is a PNG file", sheet.display())));
            }
            if outputs.samples.iter().any(|target| target.path() == Some(sheet)) {
                let message = format!("{}: is the name of a sample and of the sheet", sheet.display());
                return Err(Failure::usage(message).hint("--sheet FILE names another one"));
            }
        }
        outputs.check(&[], self.force)?;
        Ok(outputs)
    }
}

/// What is known before anything is drawn.
#[derive(Debug)]
struct Plan {
    channels: usize,
    height: usize,
    width: usize,
    steps: usize,
    /// Network evaluations of a sample.
    evaluations: Option<usize>,
    device: String,
}

#[derive(Debug)]
struct Work<'a> {
    arguments: &'a Sample,
    solver: &'a dyn Solver,
    model: &'a Model,
    outputs: &'a Outputs,
    console: Console,
    events: Events,
}

impl Work<'_> {
    fn plan(&self) -> Outcome<Plan> {
        let denoiser = self.model.denoiser();
        let channels = denoiser.channels().unwrap_or(3);
        if channels != 3 && channels != 1 {
            let message = format!("model {}: has {channels} channels, a picture 1 or 3", self.model.name);
            return Err(Failure::new(super::ExitCode::Model, message));
        }
        let (height, width) = self.arguments.size.or_else(|| denoiser.native_size()).unwrap_or((SIDE, SIDE));
        let range = denoiser.sigma_range();
        Ok(Plan {
            channels,
            height,
            width,
            steps: self.solver.sigmas(&range).len() - 1,
            evaluations: self.solver.evaluations(&range),
            device: device::name(self.model.device()),
        })
    }

    fn start<'a>(&'a self, plan: &'a Plan) -> Event<'a> {
        let outputs: Vec<_> = self.outputs.files().map(Name::new).collect();
        let Self { arguments, model, .. } = self;
        Event::Drawing(Box::new(Drawing {
            version: env!("CARGO_PKG_VERSION"),
            command: "sample",
            lossy_name: outputs.iter().any(|name| name.lossy),
            outputs,
            width: plan.width,
            height: plan.height,
            engine: Engine::new(model, &plan.device),
            seed: arguments.seed,
            samples: arguments.samples,
            sampler: self.solver.name(),
            steps: plan.steps,
            evaluations: plan.evaluations.map(|evaluations| evaluations * arguments.samples),
        }))
    }

    /// The plan as people read it.
    fn describe(&self, plan: &Plan) -> String {
        let Self { arguments, model, outputs, .. } = self;
        let stdout = outputs.samples.contains(&Target::Stdout).then(|| Path::new("-"));
        let names = outputs.files().chain(stdout);
        let mut text: String = names.map(|name| format!("-> {}\n", escape(&name.display().to_string()))).collect();
        let evaluations = plan.evaluations.map_or("as many as the tolerance asks for".into(), |evaluations| {
            (evaluations * arguments.samples).to_string()
        });
        text += &super::models::table(&[
            ("size", format!("{}x{}", plan.width, plan.height)),
            ("model", model.name.clone()),
            ("device", format!("{}, {} with {}", plan.device, model.precision(), model.instruction_set())),
            (
                "sampler",
                format!(
                    "{}, {}, {}, seed {}",
                    self.solver.name(),
                    count(plan.steps, "step"),
                    count(arguments.samples, "sample"),
                    arguments.seed
                ),
            ),
            ("evaluations", evaluations),
        ]);
        text
    }

    /// Draws and writes one sample after the other; returns the number of files and the seconds of sampling.
    fn draw(&self, plan: &Plan, bar: &Bar) -> Outcome<(usize, f64)> {
        let Self { arguments, outputs, events, .. } = *self;
        let total = plan.steps * arguments.samples;
        bar.begin(total);
        let columns = (arguments.samples.min(SHEET_SAMPLES) as f64).sqrt().ceil() as u32;
        let mut sheet = Sheet::with_columns(columns);
        let mut sampling = 0.0;
        for (k, target) in outputs.samples.iter().enumerate() {
            let clock = Instant::now();
            let mut unreported = None;
            let mut observer = |step: &Step<'_>| {
                interrupt::check()?;
                let progress = Progress { done: k * plan.steps + step.index + 1, total, sample: k, sigma: step.sigma };
                bar.step(progress);
                let Progress { done, total, sample, sigma } = progress;
                events.emit(&Event::Step { done, total, sample, sigma }).map_err(|failure| {
                    unreported = Some(failure);
                    crate::Error::Interrupted
                })
            };
            let drawn = self.sample(k as u64, plan, &mut observer);
            let photo = match unreported {
                Some(failure) => return Err(failure),
                None => drawn?,
            };
            let seconds = clock.elapsed().as_secs_f64();
            sampling += seconds;
            if outputs.sheet.is_some() && k < SHEET_SAMPLES {
                sheet.add(format!("sample {k}"), picture(&photo));
            }
            let format = match target {
                Target::Stdout => OutputFormat::Png,
                Target::File(path) => OutputFormat::from_path(path)?,
            };
            let options = EncodeOptions { software: Some(self.provenance(plan, k)), ..EncodeOptions::default() };
            let bytes = photo.encode(format, &options)?;
            match target {
                Target::Stdout => print(&bytes)?,
                Target::File(path) => self.put(path, &bytes, Some((k, seconds)), plan, bar)?,
            }
        }
        if let Some(path) = &outputs.sheet {
            let mut content = Vec::new();
            sheet.draw().write_with_encoder(PngEncoder::new(&mut content)).map_err(std::io::Error::other)?;
            self.put(path, &content, None, plan, bar)?;
        }
        Ok((outputs.samples.len() + usize::from(outputs.sheet.is_some()), sampling))
    }

    /// Sample number `k` as a picture.
    fn sample(
        &self,
        k: u64,
        &Plan { channels, height, width, .. }: &Plan,
        observer: &mut dyn crate::solvers::Observer,
    ) -> crate::Result<Photo> {
        let denoiser = self.model.denoiser();
        let range = denoiser.sigma_range();
        let mut rng = Rng::new(self.arguments.seed, k..k + 1);
        let noise = rng.normal((1, channels, height, width), self.model.device())?;
        let x = self.solver.solve(denoiser, noise.affine(*range.end(), 0.0)?, &range, &mut rng, observer)?;
        let x = if channels == 1 { Tensor::cat(&[&x, &x, &x], 1)? } else { x };
        let mut photo = Photo::from_u8(width, height, channels, vec![0; channels * width * height])?;
        let region = Region { x: 0, y: 0, width, height };
        photo.paint(region, &Mask::from_fn(width, height, |_, _| true), &x)?;
        Ok(photo)
    }

    /// How the picture came to be, for its metadata: enough to make it again.
    fn provenance(&self, plan: &Plan, k: usize) -> String {
        let Self { arguments, model, .. } = self;
        let hash = if model.hash.is_empty() { String::new() } else { format!(" sha256 {}", model.hash) };
        format!(
            "tweedie {} sample, model {}{hash}, sampler {}, steps {}, kernels {}, precision {}, seed {}, sample {k} of {}",
            env!("CARGO_PKG_VERSION"),
            model.name,
            self.solver.name(),
            plan.steps,
            model.instruction_set(),
            model.precision(),
            arguments.seed,
            arguments.samples
        )
    }

    fn put(&self, path: &Path, bytes: &[u8], sample: Option<(usize, f64)>, plan: &Plan, bar: &Bar) -> Outcome<()> {
        interrupt::check()?;
        let Self { arguments, console, .. } = self;
        write_atomically(path, bytes, arguments.force)?;
        let output = Name::new(path);
        let sampler = self.solver.name();
        self.events.emit(&Event::Drawn(Box::new(Drawn {
            lossy_name: output.lossy,
            output,
            kind: if sample.is_some() { "sample" } else { "sheet" },
            sample: sample.map(|(k, _)| k),
            seed: arguments.seed,
            sampler,
            steps: plan.steps,
            evaluations: plan.evaluations,
            seconds: sample.map(|(_, seconds)| seconds),
            peak_memory: crate::evaluate::memory::largest(),
        })))?;
        let name = path.display();
        let line = match sample {
            Some((_, seconds)) => format!("wrote {name} ({sampler}, seed {}, {})", arguments.seed, duration(seconds)),
            None => format!("wrote {name}"),
        };
        bar.aside(|| console.note(&line));
        Ok(())
    }
}
