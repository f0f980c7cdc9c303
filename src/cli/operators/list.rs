//! All operators and noise models, a line each.

use super::Abilities;
use crate::Catalog;
use crate::cli::columns::{aligned, width};
use crate::cli::events::{print, print_json};
use crate::cli::failure::Outcome;
use serde::Serialize;

#[derive(Debug, Serialize)]
struct List {
    operators: Vec<Operator>,
    noises: Vec<Noise>,
}

#[derive(Debug, Serialize)]
struct Operator {
    name: &'static str,
    about: &'static str,
    /// Of the example; `null` if the example needs what is not there.
    #[serde(flatten)]
    abilities: Option<Abilities>,
}

#[derive(Debug, Serialize)]
struct Noise {
    name: &'static str,
    about: &'static str,
}

pub(super) fn run(json: bool, catalog: &Catalog) -> Outcome<()> {
    let operators = catalog.operators.iter().map(|entry| Operator {
        name: entry.name,
        about: entry.about,
        abilities: Abilities::of_example(entry, catalog).ok(),
    });
    let noises = catalog.noises.iter().map(|entry| Noise { name: entry.name, about: entry.about });
    let list = List { operators: operators.collect(), noises: noises.collect() };
    if json { print_json(&list) } else { print(list.text(width()).as_bytes()) }
}

impl List {
    fn text(&self, width: Option<usize>) -> String {
        let mut operators = vec![["operator", "linear", "closed form", "about"]];
        operators.extend(self.operators.iter().map(|operator| match operator.abilities {
            Some(abilities) => [operator.name, abilities.linear(), abilities.closed_form(), operator.about],
            None => [operator.name, "?", "?", operator.about],
        }));
        let mut noises = vec![["noise", "about"]];
        noises.extend(self.noises.iter().map(|noise| [noise.name, noise.about]));
        format!("{}\n{}", aligned(&operators, 0, width), aligned(&noises, 0, width))
    }
}
