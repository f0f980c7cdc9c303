//! One operator or noise model: its settings, and a file to begin with.

use super::Abilities;
use crate::cli::columns::{aligned, width};
use crate::cli::events::{print, print_json};
use crate::cli::failure::{Failure, Outcome};
use crate::{Catalog, Error};
use serde::Serialize;

#[derive(Debug, Serialize)]
struct Explained<'a> {
    name: &'a str,
    /// operator or noise.
    kind: &'static str,
    about: &'static str,
    /// Of the example; `null` if the example needs what is not there.
    #[serde(flatten)]
    abilities: Option<Abilities>,
    #[serde(skip)]
    obstacle: Option<String>,
    settings: Vec<Setting>,
    /// A whole file.
    example: String,
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

fn explain<'a>(name: &'a str, catalog: &Catalog) -> Outcome<Explained<'a>> {
    let settings = |fields: &[(&'static str, &'static str)]| {
        fields.iter().map(|&(name, about)| Setting { name, about }).collect::<Vec<_>>()
    };
    if let Some(entry) = catalog.operators.iter().find(|entry| entry.name == name) {
        let (abilities, obstacle) = match Abilities::of_example(entry, catalog) {
            Ok(abilities) => (Some(abilities), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let example = format!("{}\n{}", section("operator", name, entry.example)?, GAUSSIAN);
        let settings = settings(entry.fields);
        return Ok(Explained { name, kind: "operator", about: entry.about, abilities, obstacle, settings, example });
    }
    if let Some(entry) = catalog.noises.iter().find(|entry| entry.name == name) {
        let example = format!("{IDENTITY}\n{}", section("noise", name, entry.example)?);
        let settings = settings(entry.fields);
        let (abilities, obstacle) = (None, None);
        return Ok(Explained { name, kind: "noise", about: entry.about, abilities, obstacle, settings, example });
    }
    let names = catalog.operators.iter().map(|entry| entry.name).chain(catalog.noises.iter().map(|entry| entry.name));
    let known = names.collect::<Vec<_>>().join(", ");
    Err(Error::Unknown { kind: "operator or noise model", name: name.into(), known }.into())
}

const GAUSSIAN: &str = "[noise]\nname = \"gaussian\"\nsigma = 0.05\n";
const IDENTITY: &str = "[operator]\nname = \"identity\"\n";

/// The settings of an example as a table of a file.
fn section(key: &str, name: &str, example: &str) -> Outcome<String> {
    // Settings that are written as tables of their own would leave the section that they stand in.
    if !example.lines().any(|line| line.trim_start().starts_with('[')) {
        let end = if example.is_empty() { "" } else { "\n" };
        return Ok(format!("[{key}]\nname = \"{name}\"\n{example}{end}"));
    }
    let broken = |reason: String| {
        Failure::from(Error::Config { name: format!("example of {name}"), got: reason, expected: "TOML".into() })
    };
    let mut table: toml::Table = example.parse().map_err(|error: toml::de::Error| broken(error.to_string()))?;
    table.insert("name".into(), name.into());
    let file = toml::Table::from_iter([(key.into(), toml::Value::Table(table))]);
    toml::to_string(&file).map_err(|error| broken(error.to_string()))
}

impl Explained<'_> {
    fn text(&self, width: Option<usize>) -> String {
        let mut facts = vec![["name", self.name], ["about", self.about]];
        match (&self.abilities, &self.obstacle) {
            (Some(abilities), _) => {
                facts.push(["linear", abilities.linear()]);
                facts.push([
                    "closed form",
                    match abilities {
                        Abilities { singular_values: true, .. } => "singular values",
                        Abilities { gram: true, .. } => "Gram matrix (A Aᵀ + λ)⁻¹",
                        Abilities { linear: true, .. } => "none: conjugate gradients",
                        _ => "none: derivatives only",
                    },
                ]);
            }
            (None, Some(obstacle)) => facts.push(["linear", obstacle]),
            (None, None) => {}
        }
        let mut text = aligned(&facts, 0, width);
        if !self.settings.is_empty() {
            let settings: Vec<_> = self.settings.iter().map(|setting| [setting.name, setting.about]).collect();
            text += "\nSettings:\n";
            text += &aligned(&settings, 2, width);
        }
        text += "\nExample of a file:\n";
        for line in self.example.lines() {
            text += format!("  {line}").trim_end();
            text += "\n";
        }
        text
    }
}
