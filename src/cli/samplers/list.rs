//! All methods, a line each.

use super::Traits;
use crate::Catalog;
use crate::cli::columns::{aligned, width};
use crate::cli::events::{print, print_json};
use crate::cli::failure::Outcome;
use serde::Serialize;

#[derive(Debug, Serialize)]
struct List {
    samplers: Vec<Method>,
    solvers: Vec<Method>,
}

#[derive(Debug, Serialize)]
struct Method {
    name: &'static str,
    about: &'static str,
    #[serde(flatten)]
    traits: Traits,
}

pub(super) fn run(json: bool, catalog: &Catalog) -> Outcome<()> {
    let samplers = catalog
        .samplers
        .iter()
        .map(|entry| Ok(Method { name: entry.name, about: entry.about, traits: Traits::of_sampler(entry)? }));
    let solvers = catalog
        .solvers
        .iter()
        .map(|entry| Ok(Method { name: entry.name, about: entry.about, traits: Traits::of_solver(entry)? }));
    let list = List { samplers: samplers.collect::<Outcome<_>>()?, solvers: solvers.collect::<Outcome<_>>()? };
    if json { print_json(&list) } else { print(list.text(width()).as_bytes()) }
}

impl List {
    fn text(&self, width: Option<usize>) -> String {
        let cells = |method: &Method| {
            let Method { traits, .. } = method;
            [traits.steps.to_string(), traits.evaluations(), traits.pullbacks.to_string()]
        };
        let costs: Vec<_> = self.samplers.iter().map(cells).collect();
        let mut samplers = vec![["sampler", "operator", "noise", "steps", "calls", "pullbacks", "about"]];
        samplers.extend(self.samplers.iter().zip(&costs).map(
            |(Method { name, about, traits }, [steps, calls, back])| {
                [name, traits.operator(), traits.noise(), steps, calls, back, about]
            },
        ));
        let costs: Vec<_> = self.solvers.iter().map(cells).collect();
        let mut solvers = vec![["solver", "steps", "calls", "about"]];
        solvers.extend(
            self.solvers
                .iter()
                .zip(&costs)
                .map(|(Method { name, about, .. }, [steps, calls, _])| [name, steps.as_str(), calls.as_str(), about]),
        );
        format!("{}\n{}", aligned(&samplers, 0, width), aligned(&solvers, 0, width))
    }
}
