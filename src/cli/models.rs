//! `tweedie models`: what a model file says about itself, and the models of others.

mod list;
mod path;
mod pull;
mod remove;
mod verify;

pub(super) use pull::{Fetch, fetch};

use super::events::{print, print_json};
use super::failure::Outcome;
use super::terminal::{Console, escape};
use crate::image::write_atomically;
use crate::models::{Checkpoint, Model, ModelOptions};
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
    Convert(Convert),
}

/// Print what a model is: architecture, parameterisation, licence, origin, hash
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_long_help = EXAMPLES)]
struct Inspect {
    /// Model file, diffusers folder, name, owner/repo, or `embedded` for the prior inside the binary
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Print one JSON object
    #[arg(long, help_heading = super::DIAGNOSTICS)]
    json: bool,
}

/// Write a checkpoint as one native safetensors file
///
/// The file holds the weights in bf16 and, in its metadata, the network's configuration, how it was trained, and what
/// --metadata adds. A checkpoint whose weights bf16 cannot hold exactly is refused.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_long_help = CONVERT_EXAMPLES)]
struct Convert {
    /// diffusers folder, or a native file whose metadata is to be changed
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// File to write
    #[arg(value_name = "OUT.safetensors")]
    output: PathBuf,
    /// Entry of the metadata, such as name, licence, provenance; repeatable
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value, help_heading = super::MODEL)]
    metadata: Vec<(String, String)>,
    /// Replace an existing file
    #[arg(short, long, help_heading = super::INPUT_OUTPUT)]
    force: bool,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.into(), value.into()))
}

const CONVERT_EXAMPLES: &str = "\
Examples:
  tweedie models convert ./my-prior/ my-prior.safetensors
  tweedie models convert ./my-prior/ my-prior.safetensors --metadata licence=CC0-1.0
  tweedie models convert prior.safetensors renamed.safetensors --metadata name=renamed";

fn convert(arguments: &Convert) -> Outcome<()> {
    let checkpoint = Checkpoint::open(&arguments.input)?;
    let metadata: Vec<_> = arguments.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let bytes = checkpoint.to_native(&metadata)?;
    // What is written can be read again, whatever the metadata say.
    Checkpoint::from_native(bytes.clone(), &arguments.output.to_string_lossy())?;
    Ok(write_atomically(&arguments.output, &bytes, arguments.force)?)
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
        Command::Convert(arguments) => return convert(arguments),
    };
    let model = Model::open(&arguments.model.to_string_lossy(), &ModelOptions::default())?;
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

/// Two aligned columns.
pub(crate) fn table<T: AsRef<str>>(rows: &[(&str, T)]) -> String {
    let width = rows.iter().map(|(field, _)| field.chars().count()).max().unwrap_or(0);
    rows.iter().map(|(field, value)| format!("{field:width$}  {}\n", escape(value.as_ref()))).collect()
}
