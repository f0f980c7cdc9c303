//! `tweedie samplers`: the methods, what they need and what they cost.

mod list;
mod show;

use super::DIAGNOSTICS;
use super::failure::Outcome;
use crate::Catalog;
use crate::samplers::{BuildSampler, Needs, Noise, Structure};
use crate::solvers::BuildSolver;
use serde::Serialize;
use std::ops::RangeInclusive;
use tweedie_operators::Entry;

/// List the sampling methods, or explain one
///
/// Without a name, all methods: those that restore, which `--sampler` of `restore` and its like takes, and those that
/// draw from the prior alone, for `sample`. With one, its settings and an example of them. Costs are those of the default
/// settings.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Samplers {
    /// Method to explain
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Print one JSON object
    #[arg(long, help_heading = DIAGNOSTICS)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  tweedie samplers
  tweedie samplers dps
  tweedie samplers heun --json";

pub(crate) fn run(arguments: &Samplers, catalog: &Catalog) -> Outcome<()> {
    match &arguments.name {
        Some(name) => show::run(name, arguments.json, catalog),
        None => list::run(arguments.json, catalog),
    }
}

/// Noise levels of the priors that costs are told for; methods stay within them.
const RANGE: RangeInclusive<f64> = 0.002..=80.0;

/// What a method needs and costs with its default settings.
#[derive(Clone, Copy, Debug, Serialize)]
struct Traits {
    /// `null` for one that restores nothing.
    #[serde(flatten)]
    needs: Option<Needs>,
    /// Noise levels above zero.
    steps: usize,
    /// Network evaluations of an image; `null` if the method decides while it runs.
    evaluations: Option<usize>,
    /// How often a step goes back through its network evaluation.
    pullbacks: usize,
}

impl Traits {
    fn of_sampler(entry: &Entry<BuildSampler>) -> Outcome<Self> {
        let sampler = (entry.build)(toml::Table::new())?;
        Ok(Self {
            needs: Some(sampler.needs()),
            steps: sampler.annealing().sigmas(&RANGE).len() - 1,
            evaluations: Some(sampler.evaluations(&RANGE)),
            pullbacks: sampler.pullbacks(),
        })
    }

    fn of_solver(entry: &Entry<BuildSolver>) -> Outcome<Self> {
        let solver = (entry.build)(toml::Table::new())?;
        let steps = solver.sigmas(&RANGE).len() - 1;
        Ok(Self { needs: None, steps, evaluations: solver.evaluations(&RANGE), pullbacks: 0 })
    }

    /// What must be known of the operator, in a word or two.
    fn operator(&self) -> &'static str {
        match self.needs.map(|needs| needs.structure) {
            Some(Structure::Derivative) => "any",
            Some(Structure::Linear) => "linear",
            Some(Structure::SingularValues) => "SVD",
            None => "-",
        }
    }

    /// What must be known of the noise, in a word or two.
    fn noise(&self) -> &'static str {
        match self.needs {
            Some(Needs { noiseless: true, .. }) => "none",
            Some(Needs { noise: Noise::Any, .. }) => "any",
            Some(Needs { noise: Noise::Density, .. }) => "density",
            Some(Needs { noise: Noise::Gaussian, .. }) => "Gaussian",
            Some(Needs { noise: Noise::GaussianAboveZero, .. }) => "Gaussian > 0",
            None => "-",
        }
    }

    fn evaluations(&self) -> String {
        self.evaluations.map_or_else(|| "adaptive".into(), |evaluations| evaluations.to_string())
    }
}
