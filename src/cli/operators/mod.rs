//! `tweedie operators`: what can be measured, and whether an operator keeps its laws.

mod check;
mod list;
mod show;

use super::DIAGNOSTICS;
use super::failure::Outcome;
use crate::Catalog;
use candle_core::{DType, Device};
use serde::Serialize;
use tweedie_operators::{BuildOperator, Entry, ForwardOperator, LinearOperator, Result, Site};

/// List the ways to measure a photo, explain or check one
///
/// Without a name, all measurement operators and noise models; with one, its settings and an example of a file. What is
/// known of an operator is that of its example; a question mark stands where this needs a file or a program that is not
/// there.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, after_long_help = EXAMPLES)]
pub(crate) struct Operators {
    #[command(subcommand)]
    command: Option<Command>,
    /// Operator or noise model to explain
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Print one JSON object
    #[arg(long, help_heading = DIAGNOSTICS)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Check(check::Check),
}

const EXAMPLES: &str = "\
Examples:
  tweedie operators
  tweedie operators downsample_box
  tweedie operators check configs/operators/super_resolution_x4.toml";

pub(crate) fn run(arguments: &Operators, catalog: &Catalog) -> Outcome<()> {
    match (&arguments.command, &arguments.name) {
        (Some(Command::Check(check)), _) => check::run(check, catalog),
        (None, Some(name)) => show::run(name, arguments.json, catalog),
        (None, None) => list::run(arguments.json, catalog),
    }
}

/// What an operator can do besides measuring.
#[derive(Clone, Copy, Debug, Serialize)]
struct Abilities {
    linear: bool,
    singular_values: bool,
    /// A closed form of `(AAᵀ + λI)⁻¹`; one follows from the singular values, too.
    gram: bool,
}

impl Abilities {
    fn of(operator: &dyn ForwardOperator) -> Self {
        let linear = operator.as_linear();
        Self {
            linear: linear.is_some(),
            singular_values: linear.and_then(LinearOperator::as_spectral).is_some(),
            gram: linear.and_then(LinearOperator::as_gram).is_some(),
        }
    }

    /// Those of the entry's example, for small images of three channels.
    fn of_example(entry: &Entry<BuildOperator>, catalog: &Catalog) -> Result<Self> {
        // A list starts no programs, not even one of the example's name that lies around.
        if entry.name == "process" {
            return Err(tweedie_operators::Error::config("process", "its example is a program of yours"));
        }
        let site = Site { operators: &catalog.operators, ..Site::new((3, 8, 8), &Device::Cpu, DType::F32) };
        Ok(Self::of(&*entry.create(entry.example.parse()?, site)?))
    }

    fn linear(self) -> &'static str {
        if self.linear { "yes" } else { "no" }
    }

    /// What is known in closed form, in one word or two.
    fn closed_form(self) -> &'static str {
        match self {
            Self { singular_values: true, .. } => "SVD",
            Self { gram: true, .. } => "Gram matrix",
            _ => "-",
        }
    }
}
