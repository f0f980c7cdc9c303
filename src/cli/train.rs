//! `tweedie train`: a prior of a folder of photos.

use super::events::{print, print_json};
use super::failure::{Failure, Outcome};
use super::flags::{DeviceFlags, assignment};
use super::progress::Bar;
use super::restoring::Session;
use super::terminal::{Console, bytes, count, duration};
use super::{DIAGNOSTICS, ExitCode, INPUT_OUTPUT, MODEL, interrupt};
use crate::Error;
use crate::models::ModelOptions;
use crate::train::{End, Line, Progress, TrainConfig, Training, Validation};
use serde::Serialize;
use std::cell::Cell;
use std::path::{Path, PathBuf};

/// Train a prior on a folder of photos
///
/// What is trained, on what and how is said by a TOML file, docs/training.md; OUT holds the log, a page to look at
/// (report.html), checkpoints and the model, which every other command takes with --model. Ctrl-C saves and stops, and
/// --resume goes on, to the same bytes on a CPU.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Train {
    /// The run, a TOML file
    #[arg(long, value_name = "FILE", help_heading = INPUT_OUTPUT)]
    config: PathBuf,
    /// Folder of the run [default: the name of the model]
    #[arg(short, long, value_name = "OUT", help_heading = INPUT_OUTPUT)]
    output: Option<PathBuf>,
    /// Go on from the newest checkpoint in the folder
    #[arg(long, help_heading = INPUT_OUTPUT)]
    resume: bool,
    /// Say what the run would need, after a few steps
    ///
    /// The photos are read, and six steps are taken, which are written nowhere.
    #[arg(short = 'n', long, conflicts_with = "resume", help_heading = INPUT_OUTPUT)]
    dry_run: bool,
    /// Instead of the file's, such as optimiser.batch=32
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting, help_heading = MODEL)]
    set: Vec<toml::Table>,
    /// Begin with the numbers of a model
    ///
    /// A name of `models list`, a file, a folder, owner/repo.
    #[arg(long, value_name = "MODEL", help_heading = MODEL)]
    init_from: Option<String>,

    #[command(flatten)]
    device: DeviceFlags,

    /// Print the lines of the log as they are written
    #[arg(long, help_heading = DIAGNOSTICS)]
    pub(crate) json: bool,
}

const EXAMPLES: &str = "\
Examples:
  tweedie train --config configs/train/photo-prior-v1.toml --dry-run
  tweedie train --config configs/train/photo-prior-v1.toml -o runs/v1
  tweedie train --config configs/train/photo-prior-v1.toml -o runs/v1 --resume
  tweedie train --config tune.toml --init-from embedded --set steps=500 -o runs/mine";

/// `optimiser.batch=32` as the table that says so.
fn setting(text: &str) -> Result<toml::Table, String> {
    assignment(text, "").ok_or("expected KEY=VALUE, such as optimiser.batch=32".into())
}

/// Runs the command.
pub(crate) fn run(arguments: &Train, Session { instruction_set, console, .. }: Session<'_>) -> Outcome<()> {
    let mut settings = arguments.set.clone();
    if let Some(model) = &arguments.init_from {
        let table: toml::Table = [("init_from".into(), toml::Value::String(model.clone()))].into_iter().collect();
        settings.push([("model".into(), toml::Value::Table(table))].into_iter().collect());
    }
    let config = TrainConfig::open(&arguments.config, &settings)?;
    arguments.device.start_threads()?;
    let options = arguments.device.open(instruction_set, console)?;
    if !options.device.is_cpu() {
        return Err(Failure::usage("training runs on the CPU").hint("leave --device out"));
    }
    let bar = Bar::new(console, 1);
    bar.phase("reading photos");
    if arguments.dry_run {
        return dry_run(config, &options, arguments.json, console, &bar);
    }
    let folder = arguments.output.clone().unwrap_or_else(|| PathBuf::from(&config.name));
    let (steps, examples) = (config.steps, config.examples());
    let mut training = Training::open(config, &folder, &options, arguments.resume)?;
    let before = training.state().step;
    bar.aside(|| {
        warn_of(&training.skipped, console);
        let from =
            if before > 0 { format!("goes on after {}; ", count(before as usize, "step")) } else { String::new() };
        console.note(&format!("{from}to look at: {}", folder.join("report.html").display()));
    });
    bar.begin_training(before, steps);
    let mut teller =
        Teller { steps, console, bar: &bar, examples: 0, training: Lowest::default(), validation: Lowest::default() };
    for line in &training.journal().lines {
        teller.risen(line);
    }
    teller.examples = before * examples;
    let mut failed = None;
    // Asked before every step, so the number of questions is that of steps.
    let taken = Cell::new(before);
    let stop = || {
        bar.training(taken.replace(taken.get() + 1));
        interrupt::signal().is_some()
    };
    let end = training.run(&stop, &mut |line| {
        if arguments.json {
            failed = failed.take().or(print_json(line).err());
        }
        teller.tell(line, !arguments.json);
    });
    drop(bar);
    let end = end.map_err(|error| explain(error, &folder))?;
    if let Some(failure) = failed {
        return Err(failure);
    }
    warn_of(training.unreadable(), console);
    match end {
        End::Done => Ok(()),
        End::Interrupted => Err(Failure::from(Error::Interrupted).hint("everything is saved: --resume goes on")),
    }
}

/// Files that are named before only their number is told.
const NAMED: usize = 3;

/// Says which files are not trained on: the first few, and how many more.
fn warn_of(skipped: &[(PathBuf, String)], console: Console) {
    for (path, reason) in skipped.iter().take(NAMED) {
        console.warn(&format!("{}: {reason}: not trained on", path.display()));
    }
    if let Some(more) = skipped.len().checked_sub(NAMED).filter(|more| *more > 0) {
        console.warn(&format!("{} not trained on", count(more, "more file")));
    }
}

/// What a run that fails while it trains can do about it.
fn explain(error: Error, folder: &Path) -> Failure {
    let Error::NonFinite { step, sigma } = error else { return error.into() };
    let what = if sigma.is_nan() { "the gradient is".into() } else { format!("the loss at noise level {sigma} is") };
    let model = folder.join("model.safetensors");
    let failure = Failure::new(ExitCode::Failed, format!("training diverged: {what} not finite at step {step}"))
        .hint("a smaller optimiser.learning_rate.rate, a longer warm_up, or optimiser.clip = 1");
    if !model.is_file() {
        return failure;
    }
    failure
        .hint("--resume goes on from its last checkpoint, an earlier one if that is moved away, with the smaller rate")
}

/// Tells people what the log says.
struct Teller<'a> {
    steps: u64,
    console: Console,
    bar: &'a Bar,
    /// Examples seen until the last line.
    examples: u64,
    /// Losses of lines with examples enough.
    training: Lowest,
    /// Losses of validations.
    validation: Lowest,
}

/// A loss so many times the lowest one is worth a warning.
const RISEN: f64 = 2.0;

/// Of fewer examples the mean of the loss says little.
const ENOUGH: u64 = 500;

/// The lowest loss so far.
#[derive(Default)]
struct Lowest {
    loss: Option<f64>,
    /// Whether the last one was much higher: a warning is given once.
    risen: bool,
}

impl Lowest {
    /// The lowest loss before this one, where this one is the first that is much higher.
    fn risen(&mut self, loss: f64) -> Option<f64> {
        let lowest = self.loss.filter(|&lowest| lowest > 0.0 && loss > RISEN * lowest);
        let before = std::mem::replace(&mut self.risen, lowest.is_some());
        self.loss = Some(self.loss.map_or(loss, |lowest| lowest.min(loss)));
        lowest.filter(|_| !before)
    }
}

impl Teller<'_> {
    /// In the bar where there is one, as lines elsewhere if they are `wanted`.
    fn tell(&mut self, line: &Line, wanted: bool) {
        let note = |text: &str| {
            if wanted {
                self.bar.aside(|| self.console.note(text));
            }
        };
        match line {
            Line::Step(progress) => {
                let left = duration(seconds_of(progress, self.steps - progress.step));
                let Progress { step, loss, gradient_norm, images_per_second: rate, .. } = progress;
                self.bar.training(*step);
                self.bar.say(format!(", loss {loss:.4}, {rate:.1} patches a second, {left} left"));
                if !self.bar.is_visible() {
                    note(&format!(
                        "step {step}/{}: loss {loss:.5}, gradient {gradient_norm:.3}, {rate:.1} patches a second, {left} left",
                        self.steps
                    ));
                }
            }
            Line::Validation(Validation { step, loss, psnr, .. }) => {
                let psnr: Vec<String> =
                    psnr.iter().map(|(sigma, psnr)| format!("{psnr:.2} dB at {sigma:.3}")).collect();
                note(&format!("validation at step {step}: loss {loss:.5}; {}", psnr.join(", ")));
            }
            Line::End { step, why, .. } => note(&format!("{why} after {}", count(*step as usize, "step"))),
            Line::Start { .. } | Line::Checkpoint { .. } => {}
        }
        if let Some((what, loss, lowest)) = self.risen(line) {
            self.warn(what, loss, lowest);
        }
    }

    /// What has become much higher with this line, and what it was at the lowest.
    fn risen(&mut self, line: &Line) -> Option<(&'static str, f64, f64)> {
        match line {
            Line::Step(Progress { images, loss, .. }) => {
                let examples = images.saturating_sub(std::mem::replace(&mut self.examples, *images));
                let lowest = (examples >= ENOUGH).then(|| self.training.risen(*loss)).flatten()?;
                Some(("loss", *loss, lowest))
            }
            Line::Validation(Validation { loss, .. }) => {
                Some(("loss on held-out photos", *loss, self.validation.risen(*loss)?))
            }
            Line::Start { .. } | Line::Checkpoint { .. } | Line::End { .. } => None,
        }
    }

    fn warn(&self, what: &str, loss: f64, lowest: f64) {
        let text = format!(
            "the {what}, {loss:.4}, was {lowest:.4} before: training may be diverging; --resume goes on from the checkpoint \
             before that, with a smaller optimiser.learning_rate.rate, once the later ones are moved away"
        );
        self.bar.aside(|| self.console.warn(&text));
    }
}

/// Seconds of so many steps at the speed of these.
fn seconds_of(progress: &Progress, steps: u64) -> f64 {
    steps as f64 * progress.images as f64 / progress.step as f64 / progress.images_per_second
}

/// Steps of a dry run whose time is taken.
const REHEARSED: u64 = 5;

/// What a run would need.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "plan")]
struct Needs {
    name: String,
    family: String,
    parameters: usize,
    photos: usize,
    pixels: u64,
    /// Files of the folder that would not be trained on.
    skipped: usize,
    steps: u64,
    batch: u64,
    patch: usize,
    patches_per_second: f64,
    /// Share of the time that was spent waiting for data.
    waiting: f64,
    /// Of all steps, without validation.
    estimated_seconds: f64,
    /// Largest resident memory while the steps were taken, bytes; `null` where the system does not say.
    peak_memory: Option<u64>,
    /// Bytes of a checkpoint.
    checkpoint: u64,
    /// How many are kept.
    checkpoints: usize,
}

/// Takes a few steps in a folder that disappears.
fn dry_run(config: TrainConfig, options: &ModelOptions, json: bool, console: Console, bar: &Bar) -> Outcome<()> {
    let scratch = tempfile::tempdir().map_err(|source| Error::Io { path: std::env::temp_dir(), source })?;
    let (name, steps, batch, patch) = (config.name.clone(), config.steps, config.examples(), config.data.patch);
    // The newest ones and the best.
    let (checkpoints, averages) = (config.checkpoint.keep + 1, config.average.len());
    let mut training = Training::open(config, scratch.path(), options, false)?;
    bar.aside(|| warn_of(&training.skipped, console));
    let (photos, pixels) = training
        .journal()
        .lines
        .iter()
        .find_map(|line| match line {
            Line::Start { photos, pixels, .. } => Some((*photos, *pixels)),
            _ => None,
        })
        .unwrap_or_default();
    bar.phase("taking a few steps");
    let progress = training.rehearse(REHEARSED).map_err(|error| explain(error, scratch.path()))?;
    let state = training.state();
    let parameters: usize = state.parameters.values().map(Vec::len).sum();
    let moments: usize = state.adam.moments().values().map(|moments| moments.first.len() + moments.second.len()).sum();
    let remembered = moments + state.muon.momenta.values().map(Vec::len).sum::<usize>();
    let needs = Needs {
        name,
        family: training.subject().family().to_owned(),
        parameters,
        photos,
        pixels,
        skipped: training.skipped.len(),
        steps,
        batch,
        patch,
        patches_per_second: progress.images_per_second,
        waiting: progress.waiting,
        estimated_seconds: seconds_of(&progress, steps),
        peak_memory: crate::evaluate::memory::largest(),
        // Parameters, the averages and what the optimiser remembers, in single precision.
        checkpoint: 4 * (parameters * (1 + averages) + remembered) as u64,
        checkpoints,
    };
    if json { print_json(&needs) } else { print(needs.describe().as_bytes()) }
}

impl Needs {
    fn describe(&self) -> String {
        let Self { name, family, parameters, steps, batch, patch, photos, .. } = self;
        let megapixels = self.pixels as f64 / 1e6;
        let skipped = match self.skipped {
            0 => String::new(),
            skipped => format!("; {} passed over", count(skipped, "file")),
        };
        let memory =
            self.peak_memory.map(|peak| format!("memory  {} at most so far\n", bytes(peak))).unwrap_or_default();
        format!(
            "{name}\nnetwork {family}, {parameters} parameters\ndata    {}, {megapixels:.1} megapixels{skipped}\nsteps   \
             {steps} of {batch} patches of {patch}x{patch}\nspeed   {:.1} patches a second over {REHEARSED} steps, {:.1} % of \
             the time waiting for data\ntime    about {} without validation\n{memory}disk    {} of {}, models of {}\n",
            count(*photos, "photo"),
            self.patches_per_second,
            100.0 * self.waiting,
            duration(self.estimated_seconds),
            count(self.checkpoints, "checkpoint"),
            bytes(self.checkpoint),
            bytes(4 * *parameters as u64),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_that_rises_is_told_once() {
        let mut lowest = Lowest::default();
        let told: Vec<Option<f64>> = [2.0, 1.0, 1.9, 2.1, 5.0, 1.5, 2.1].map(|loss| lowest.risen(loss)).into();
        assert_eq!(told, [None, None, None, Some(1.0), None, None, Some(1.0)]);
    }
}
