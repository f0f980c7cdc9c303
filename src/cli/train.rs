//! `tweedie train`: a prior of a folder of photos.

use super::events::print_json;
use super::failure::{Failure, Outcome};
use super::flags::DeviceFlags;
use super::restoring::Session;
use super::terminal::{count, duration};
use super::{DIAGNOSTICS, INPUT_OUTPUT, MODEL, interrupt};
use crate::Error;
use crate::train::{End, Line, TrainConfig, Training};
use std::path::PathBuf;

/// Train a prior on a folder of photos
///
/// What is trained, on what and how is said by a TOML file, docs/training.md; OUT holds the log, checkpoints and the model,
/// which every other command takes with --model. Ctrl-C saves and stops, and --resume goes on, to the same bytes on a CPU.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Train {
    /// The run, a TOML file
    #[arg(long, value_name = "FILE", help_heading = INPUT_OUTPUT)]
    config: PathBuf,
    /// Folder of the run [default: the name of the model]
    #[arg(short, long, value_name = "OUT", help_heading = INPUT_OUTPUT)]
    output: Option<PathBuf>,
    /// Go on with the run in the folder, from its newest checkpoint
    #[arg(long, help_heading = INPUT_OUTPUT)]
    resume: bool,
    /// A setting in the place of the file's, such as optimiser.batch=32
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting, help_heading = MODEL)]
    set: Vec<toml::Table>,
    /// Begin with the numbers of this model: a name, a file, a folder, owner/repo
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
  tweedie train --config configs/train/photos.toml -o runs/photos
  tweedie train --config configs/train/photos.toml -o runs/photos --resume
  tweedie train --config tune.toml --init-from embedded --set steps=500 -o runs/mine";

/// `optimiser.batch=32` as the table that says so.
fn setting(text: &str) -> Result<toml::Table, String> {
    const EXPECTED: &str = "expected KEY=VALUE, such as optimiser.batch=32";
    let (key, value) = text.split_once('=').ok_or(EXPECTED)?;
    let quoted = toml::Value::String(value.trim().into());
    let line = |value: &str| format!("{} = {value}", key.trim()).parse::<toml::Table>();
    line(value.trim()).or_else(|_| line(&quoted.to_string())).map_err(|_| EXPECTED.into())
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
    let folder = arguments.output.clone().unwrap_or_else(|| PathBuf::from(&config.name));
    let steps = config.steps;
    let mut training = Training::open(config, &folder, &options, arguments.resume)?;
    for (path, reason) in &training.skipped {
        console.warn(&format!("{}: {reason}: not trained on", path.display()));
    }
    let mut failed = None;
    let end = training.run(&|| interrupt::signal().is_some(), &mut |line| {
        if arguments.json {
            failed = failed.take().or(print_json(line).err());
        } else if let Some(text) = describe(line, steps) {
            console.note(&text);
        }
    })?;
    if let Some(failure) = failed {
        return Err(failure);
    }
    match end {
        End::Done => Ok(()),
        End::Interrupted => Err(Error::Interrupted.into()),
    }
}

/// A line of the log for people.
fn describe(line: &Line, steps: u64) -> Option<String> {
    match line {
        Line::Step(p) => {
            let left = (steps - p.step) as f64 * p.images as f64 / p.step as f64 / p.images_per_second;
            Some(format!(
                "step {}/{steps}: loss {:.5}, gradient {:.3}, {:.1} patches a second, {} left",
                p.step,
                p.loss,
                p.gradient_norm,
                p.images_per_second,
                duration(left)
            ))
        }
        Line::Validation(v) => {
            let psnr: Vec<String> = v.psnr.iter().map(|(sigma, psnr)| format!("{psnr:.2} dB at {sigma:.3}")).collect();
            Some(format!("validation at step {}: loss {:.5}; {}", v.step, v.loss, psnr.join(", ")))
        }
        Line::End { step, why, .. } => Some(format!("{why} after {}", count(*step as usize, "step"))),
        Line::Start { .. } | Line::Checkpoint { .. } => None,
    }
}
