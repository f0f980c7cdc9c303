//! `tweedie models`: what a model file says about itself, and the models of others.

mod list;
mod path;
mod pull;
mod remove;
mod verify;

pub(super) use pull::{Fetch, fetch};

mod convert;

use super::events::{print, print_json};
use super::failure::Outcome;
use super::terminal::{Console, escape};
use crate::models::{Model, ModelOptions};
use crate::{Error, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Fetch models, check them, look at them
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, subcommand_required = true)]
pub(crate) struct Models {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    List(list::List),
    Pull(pull::Pull),
    Verify(verify::Verify),
    Path(path::Path),
    Remove(remove::Remove),
    Inspect(Inspect),
    Convert(convert::Convert),
}

/// Print what a model is: architecture, parameterisation, licence, origin, hash
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_long_help = EXAMPLES)]
struct Inspect {
    /// Model file, diffusers folder, name, owner/repo, or `embedded` for the prior inside the binary
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Class of the image, for models trained with classes [default: 0 where one is needed]
    #[arg(long, value_name = "N", help_heading = super::MODEL)]
    class: Option<usize>,
    /// Print one JSON object
    #[arg(long, help_heading = super::DIAGNOSTICS)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  tweedie models inspect embedded
  tweedie models inspect prior.safetensors
  tweedie models inspect ./ddpm-church/ --json";

pub(crate) fn run(arguments: &Models, console: Console) -> Outcome<()> {
    let arguments = match &arguments.command {
        Command::List(arguments) => return list::run(arguments),
        Command::Pull(arguments) => return pull::run(arguments, console),
        Command::Verify(arguments) => return verify::run(arguments, console),
        Command::Path(arguments) => return path::run(arguments),
        Command::Remove(arguments) => return remove::run(arguments, console),
        Command::Inspect(arguments) => arguments,
        Command::Convert(arguments) => return convert::run(arguments),
    };
    let model = open(arguments)?;
    if arguments.json {
        #[derive(Serialize)]
        struct Inspected<'a> {
            name: &'a str,
            sha256: &'a str,
            facts: BTreeMap<&'a str, &'a str>,
        }
        let facts = model.facts.iter().map(|(field, value)| (field.as_str(), value.as_str())).collect();
        return print_json(&Inspected { name: &model.name, sha256: &model.hash, facts });
    }
    let rows: Vec<_> = model.facts.iter().map(|(field, value)| (field.as_str(), value)).collect();
    print(table(&rows).as_bytes())
}

/// The model; what is said about it is the same for every class, so one that needs a class gets the first.
fn open(arguments: &Inspect) -> Result<Model> {
    let name = arguments.model.to_string_lossy();
    let open = |class| Model::open(&name, &ModelOptions { class, ..ModelOptions::default() });
    match open(arguments.class) {
        Err(Error::Config { name, .. }) if name == "class" && arguments.class.is_none() => open(Some(0)),
        result => result,
    }
}

/// Two aligned columns.
pub(crate) fn table<T: AsRef<str>>(rows: &[(&str, T)]) -> String {
    let width = rows.iter().map(|(field, _)| field.chars().count()).max().unwrap_or(0);
    rows.iter().map(|(field, value)| format!("{field:width$}  {}\n", escape(value.as_ref()))).collect()
}
