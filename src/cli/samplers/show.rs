//! One method: what it needs and costs, its settings, and an example of them.

use super::Traits;
use crate::cli::columns::{aligned, width};
use crate::cli::events::{print, print_json};
use crate::cli::failure::Outcome;
use crate::samplers::{Needs, Noise, Structure};
use crate::{Catalog, Error};
use serde::Serialize;

#[derive(Debug, Serialize)]
struct Explained {
    name: &'static str,
    /// sampler or solver.
    kind: &'static str,
    about: &'static str,
    #[serde(flatten)]
    traits: Traits,
    settings: Vec<Setting>,
    /// Settings with few steps, as TOML.
    example: &'static str,
}

#[derive(Debug, Serialize)]
struct Setting {
    name: &'static str,
    about: &'static str,
}

pub(super) fn run(name: &str, json: bool, catalog: &Catalog) -> Outcome<()> {
    let explained = explain(name, catalog)?;
    if json { print_json(&explained) } else { print(explained.text(width()).as_bytes()) }
}

fn explain(name: &str, catalog: &Catalog) -> Outcome<Explained> {
    let settings = |fields: &[(&'static str, &'static str)]| {
        fields.iter().map(|&(name, about)| Setting { name, about }).collect::<Vec<_>>()
    };
    if let Some(entry) = catalog.samplers.iter().find(|entry| entry.name == name) {
        return Ok(Explained {
            name: entry.name,
            kind: "sampler",
            about: entry.about,
            traits: Traits::of_sampler(entry)?,
            settings: settings(entry.fields),
            example: entry.example,
        });
    }
    if let Some(entry) = catalog.solvers.iter().find(|entry| entry.name == name) {
        return Ok(Explained {
            name: entry.name,
            kind: "solver",
            about: entry.about,
            traits: Traits::of_solver(entry)?,
            settings: settings(entry.fields),
            example: entry.example,
        });
    }
    let names = catalog.samplers.iter().map(|entry| entry.name).chain(catalog.solvers.iter().map(|entry| entry.name));
    let known = names.collect::<Vec<_>>().join(", ");
    Err(Error::Unknown { kind: "sampler", name: name.into(), known }.into())
}

/// What a method must know of the operator.
fn structure(needs: Needs) -> &'static str {
    match needs.structure {
        Structure::Derivative => "its derivative: any will do",
        Structure::Linear => "linear, with its adjoint",
        Structure::SingularValues => "linear, with known singular values",
    }
}

/// What it must know of the noise.
fn noise(needs: Needs) -> &'static str {
    match (needs.noiseless, needs.noise) {
        (true, _) => "made for none; with noise it fits it",
        (_, Noise::Any) => "any, unknown too",
        (_, Noise::Density) => "with a density p(y | z)",
        (_, Noise::Gaussian) => "additive, white and Gaussian, or none",
        (_, Noise::GaussianAboveZero) => "additive, white and Gaussian, above zero",
    }
}

impl Explained {
    fn text(&self, width: Option<usize>) -> String {
        let Traits { needs, steps, pullbacks, .. } = self.traits;
        let (steps, evaluations, pullbacks) = (steps.to_string(), self.traits.evaluations(), pullbacks.to_string());
        let mut facts = vec![["name", self.name], ["about", self.about]];
        facts.push(["draws from", if needs.is_some() { "the posterior, given a measurement" } else { "the prior" }]);
        if let Some(needs) = needs {
            facts.push(["operator", structure(needs)]);
            facts.push(["noise", noise(needs)]);
        }
        facts.push(["steps", &steps]);
        facts.push(["network calls", &evaluations]);
        facts.push(["pullbacks a step", &pullbacks]);
        let mut text = aligned(&facts, 0, width);
        if !self.settings.is_empty() {
            let settings: Vec<_> = self.settings.iter().map(|setting| [setting.name, setting.about]).collect();
            text += "\nSettings:\n";
            text += &aligned(&settings, 2, width);
        }
        if !self.example.is_empty() {
            text += "\nExample of settings:\n";
            for line in self.example.lines() {
                text += format!("  {line}").trim_end();
                text += "\n";
            }
        }
        text
    }
}
