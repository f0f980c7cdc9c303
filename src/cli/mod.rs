//! The command line: arguments, dispatch, exit codes. One subcommand per file.
//!
//! Results go to standard output, everything else to standard error; the exit code is an [`ExitCode`].

mod amount;
mod batch;
mod bench;
mod colorize;
mod columns;
mod completions;
mod deblur;
mod degrade;
mod denoise;
mod device;
mod doctor;
mod evaluate;
mod events;
mod exit;
mod failure;
mod flags;
mod inpaint;
mod interrupt;
mod likelihood;
mod models;
mod operators;
mod outputs;
mod progress;
mod restore;
mod restoring;
mod sample;
mod samplers;
mod terminal;
mod train;
mod upscale;

pub use exit::ExitCode;

use crate::Catalog;
use clap::{ArgAction, ColorChoice, CommandFactory, FromArgMatches, Parser};
use events::Events;
use failure::{Failure, Outcome};
use restoring::{Common, Session};
use std::ffi::{OsStr, OsString};
use std::time::Instant;
use terminal::{Colour, Console, Verbosity};
use tweedie_kernels::{InstructionSet, InstructionSetError};

// Headings under which options are listed; the same one everywhere for the same option.
const INPUT_OUTPUT: &str = "Input/Output";
const MASK: &str = "Mask";
const MODEL: &str = "Model";
const SAMPLER: &str = "Sampler";
const DEVICE: &str = "Device";
const MEASUREMENT: &str = "Measurement";
const DIAGNOSTICS: &str = "Diagnostics";

/// Restore photos with score models
///
/// Fills what is missing in a photo with samples of a diffusion prior. The prior is inside the program, everything
/// runs on this machine, and nothing is ever sent anywhere; only `models pull` and --pull fetch something.
#[derive(Debug, Parser)]
#[command(
    name = "tweedie",
    version,
    propagate_version = true,
    max_term_width = 98,
    arg_required_else_help = true,
    subcommand_required = true,
    after_long_help = EXAMPLES
)]
struct CommandLine {
    #[command(flatten)]
    general: General,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  tweedie inpaint photo.jpg --mask scratches.png
  tweedie inpaint photo.png --mask alpha --samples 4 --mean --sheet -o restored/
  tweedie doctor

Exit codes:
  0 done · 1 some files failed · 2 usage, nothing was started · 3 nothing matched · 4 model
  5 device, memory or disk · 130 and 143 interrupted by SIGINT and SIGTERM";

/// What every subcommand understands.
#[derive(Debug, clap::Args)]
struct General {
    /// auto, always or never
    ///
    /// auto: on a terminal, unless NO_COLOR is set or TERM is dumb.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t, hide_possible_values = true, global = true,
        help_heading = DIAGNOSTICS)]
    color: Colour,
    /// portable, avx2, avx512, avx512-bf16 or amx-bf16
    ///
    /// What the kernels may use of the processor, for tests; by default the most it has. The environment variable
    /// TWEEDIE_CPU_FEATURES sets it, too.
    #[arg(long, value_name = "SET", value_parser = instruction_set, global = true, help_heading = DIAGNOSTICS)]
    cpu_features: Option<InstructionSet>,
    /// Print errors only
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = DIAGNOSTICS)]
    quiet: bool,
    /// Print more about what is done
    #[arg(short, long, global = true, action = ArgAction::SetTrue, help_heading = DIAGNOSTICS)]
    verbose: bool,
}

impl General {
    fn console(&self) -> Console {
        let verbosity = match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (_, true) => Verbosity::Verbose,
            _ => Verbosity::Normal,
        };
        Console::new(self.color, verbosity)
    }

    /// What the kernels use. A wrong option has been refused by now; a wrong variable is a warning.
    fn instruction_set(&self, console: Console) -> InstructionSet {
        self.cpu_features.unwrap_or_else(|| {
            let detected = InstructionSet::detect();
            if let Some(Err(error)) = InstructionSet::requested() {
                console.warn(&format!("TWEEDIE_CPU_FEATURES: {error}; using {detected}"));
            }
            detected
        })
    }
}

fn instruction_set(name: &str) -> Result<InstructionSet, InstructionSetError> {
    name.parse().and_then(InstructionSet::on_this_machine)
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Inpaint(Box<inpaint::Inpaint>),
    Colorize(Box<colorize::Colorize>),
    Upscale(Box<upscale::Upscale>),
    Deblur(Box<deblur::Deblur>),
    Denoise(Box<denoise::Denoise>),
    Restore(Box<restore::Restore>),
    Degrade(degrade::Degrade),
    Batch(Box<batch::Batch>),
    Sample(Box<sample::Sample>),
    Train(Box<train::Train>),
    Samplers(samplers::Samplers),
    Likelihood(Box<likelihood::Likelihood>),
    Evaluate(evaluate::Evaluate),
    Operators(operators::Operators),
    Models(models::Models),
    Doctor(doctor::Doctor),
    Bench(bench::Bench),
    Completions(completions::Completions),
}

/// Parses the arguments of the process, runs the command, reports. A program with operators of its own adds their entries to
/// the catalog.
pub fn run(catalog: &Catalog) -> std::process::ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    run_with(&arguments, catalog).into()
}

fn run_with(arguments: &[OsString], catalog: &Catalog) -> ExitCode {
    let started = Instant::now();
    let parsed = CommandLine::command()
        .color(help_colour(arguments))
        .try_get_matches_from(arguments)
        .and_then(|matches| CommandLine::from_arg_matches(&matches));
    let CommandLine { general, command } = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return explain(&error),
    };
    let console = general.console();
    interrupt::listen();
    let instruction_set = general.instruction_set(console);
    let session_of = |json: bool| Session { catalog, instruction_set, console, events: Events { wanted: json } };
    let session = |common: &Common| session_of(common.json);
    let silent = Events { wanted: false };
    let (events, outcome) = match &command {
        Command::Inpaint(arguments) => {
            let session = session(&arguments.common);
            (session.events, inpaint::run(arguments, session))
        }
        Command::Colorize(arguments) => {
            let session = session(&arguments.common);
            (session.events, colorize::run(arguments, session))
        }
        Command::Upscale(arguments) => {
            let session = session(&arguments.common);
            (session.events, upscale::run(arguments, session))
        }
        Command::Deblur(arguments) => {
            let session = session(&arguments.common);
            (session.events, deblur::run(arguments, session))
        }
        Command::Denoise(arguments) => {
            let session = session(&arguments.common);
            (session.events, denoise::run(arguments, session))
        }
        Command::Restore(arguments) => {
            let session = session(&arguments.common);
            (session.events, restore::run(arguments, session))
        }
        Command::Batch(arguments) => {
            let session = session_of(arguments.json());
            (session.events, batch::run(arguments, session, started))
        }
        Command::Sample(arguments) => {
            let session = session_of(arguments.json);
            (session.events, sample::run(arguments, session))
        }
        Command::Train(arguments) => {
            let session = session_of(arguments.json);
            (session.events, train::run(arguments, session))
        }
        Command::Likelihood(arguments) => {
            let session = session_of(arguments.json);
            (session.events, likelihood::run(arguments, session))
        }
        Command::Samplers(arguments) => (silent, samplers::run(arguments, catalog)),
        Command::Evaluate(arguments) => {
            let events = Events { wanted: arguments.json };
            (events, evaluate::run(arguments, Session { catalog, instruction_set, console, events }))
        }
        Command::Degrade(arguments) => (silent, degrade::run(arguments, catalog, console)),
        Command::Operators(arguments) => (silent, operators::run(arguments, catalog)),
        Command::Models(arguments) => (silent, models::run(arguments, console)),
        Command::Doctor(arguments) => (silent, doctor::run(arguments, instruction_set)),
        Command::Bench(arguments) => (silent, bench::run(arguments, instruction_set, started, console)),
        Command::Completions(arguments) => (silent, completions::run(arguments)),
    };
    report(outcome, console, events)
}

fn report(outcome: Outcome<()>, console: Console, events: Events) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::Success,
        Err(Failure { broken_pipe: true, .. }) => ExitCode::Success,
        Err(failure) => {
            events.fail(&failure);
            console.fail(&failure);
            failure.code
        }
    }
}

/// Prints help, version or what is wrong with the arguments.
fn explain(error: &clap::Error) -> ExitCode {
    // A reader that has gone does not turn help into a failure.
    let _ = error.print();
    if error.use_stderr() { ExitCode::Usage } else { ExitCode::Success }
}

/// `--color` as far as it concerns clap's own texts, which are printed before the arguments are parsed.
fn help_colour(arguments: &[OsString]) -> ColorChoice {
    let mut arguments = arguments.iter().skip(1).take_while(|argument| *argument != "--").map(OsString::as_os_str);
    let mut choice = None;
    while let Some(argument) = arguments.next() {
        match argument.to_str().and_then(|argument| argument.strip_prefix("--color")) {
            Some("") => choice = arguments.next(),
            Some(value) => choice = value.strip_prefix('=').map(OsStr::new),
            None => {}
        }
    }
    match choice.and_then(OsStr::to_str) {
        Some("always") => ColorChoice::Always,
        Some("never") => ColorChoice::Never,
        _ => ColorChoice::Auto,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn every_leaf_has_examples() {
        fn visit(command: &clap::Command) {
            if command.get_subcommands().next().is_some() {
                command.get_subcommands().for_each(visit);
            } else {
                let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.matches("\n  tweedie ").count() >= 3, "{}", command.get_name());
            }
        }
        visit(&CommandLine::command());
    }

    #[test]
    fn colour_is_known_before_parsing() {
        let choice = |arguments: &[&str]| help_colour(&arguments.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(choice(&["tweedie", "--color", "never", "doctor"]), ColorChoice::Never);
        assert_eq!(choice(&["tweedie", "doctor", "--color=always"]), ColorChoice::Always);
        assert_eq!(choice(&["tweedie", "inpaint", "--", "--color=always"]), ColorChoice::Auto);
    }
}
