//! Whether a model is what it should be.

use super::table;
use crate::cli::columns::{aligned, width};
use crate::cli::events::{print, print_json};
use crate::cli::exit::ExitCode;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::terminal::{Console, count};
use crate::hub::index;
use crate::models::{Comparison, Model, ModelOptions, Stored, Verification, verify};
use serde::Serialize;
use std::path::PathBuf;
use tweedie_kernels::Precision;

/// Gradients gather the rounding of two passes, and of larger numbers on the way.
const GRADIENTS: f64 = 5.0;

/// Check a model: its hash, its numbers, its own test, or what its own program computed
///
/// Without --io: the SHA-256 against the index and the hub's, every tensor finite and of its shape, the model's own test if it
/// has one. With --io: the network is evaluated in f32 on the inputs that the file stores, entry by entry, and every output and
/// gradient stored beside them is compared.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_long_help = EXAMPLES)]
pub(super) struct Verify {
    /// File, diffusers folder, name of `tweedie models list`, owner/repo[@revision], or embedded
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Inputs and outputs to compare with
    ///
    /// A safetensors file with `x`, one of `sigma`, `t` or `labels`, `class` for models trained with classes, and some of `out`, `denoised`, `pred_x0`,
    /// `pred_xstart`, `score`, `grad_x` with its cotangent `v`, `grad_x0` with `v_x0`, `net_in`, `c_noise`, `grad_net_in`;
    /// several cases under names such as 32x32.x.
    #[arg(long, value_name = "FILE.safetensors", help_heading = crate::cli::INPUT_OUTPUT)]
    io: Option<PathBuf>,
    /// Largest relative error; five times as much for gradients
    #[arg(long, value_name = "T", default_value = "1e-5", value_parser = tolerance, requires = "io",
        help_heading = crate::cli::MODEL)]
    tolerance: f64,
    /// Class of the images, for models trained with classes, where the file of --io stores none
    #[arg(long, value_name = "N", help_heading = crate::cli::MODEL)]
    class: Option<usize>,
    /// Print one JSON object
    #[arg(long, help_heading = crate::cli::DIAGNOSTICS)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  tweedie models verify embedded
  tweedie models verify ddpm-cifar10-32
  tweedie models verify my.safetensors --io io.safetensors --tolerance 1e-4";

fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if value > 0.0 && value < 1.0 => Ok(value),
        _ => Err("expected a number above 0 and below 1, such as 1e-5".into()),
    }
}

#[derive(Serialize)]
struct Compared<'a> {
    model: &'a str,
    tolerance: f64,
    gradient_tolerance: f64,
    passed: bool,
    rows: &'a [Comparison],
    unused: &'a [String],
}

#[derive(Serialize)]
struct Tested<'a> {
    model: &'a str,
    sha256: &'a str,
    /// What the index states; `null` if nothing.
    stated_sha256: Option<&'a str>,
    tensors: usize,
    self_test_error: Option<f64>,
    self_test_limit: f64,
    passed: bool,
}

pub(super) fn run(arguments: &Verify, console: Console) -> Outcome<()> {
    let name = arguments.model.to_string_lossy();
    if let Some(io) = arguments.io.as_ref().filter(|io| !io.exists()) {
        return Err(Failure::usage(format!("--io {}: no such file", io.display())));
    }
    // What other programs stored, they computed in single precision.
    let open = |class: Option<usize>| {
        let options = ModelOptions { precision: Some(Precision::F32), class, ..ModelOptions::default() };
        Model::open(&name, &options)
    };
    match &arguments.io {
        Some(io) => compare(arguments, &name, verify(&Stored::read(io)?, arguments.class, &open)?, console),
        None => test(arguments, &open(arguments.class)?),
    }
}

fn compare(arguments: &Verify, name: &str, verification: Verification, console: Console) -> Outcome<()> {
    let Verification { comparisons, unused } = verification;
    let limit = |row: &Comparison| arguments.tolerance * if row.gradient { GRADIENTS } else { 1.0 };
    // What is no number is no agreement either.
    let agrees = |row: &Comparison| row.error <= limit(row);
    let failures: Vec<&Comparison> = comparisons.iter().filter(|row| !agrees(row)).collect();
    if arguments.json {
        print_json(&Compared {
            model: name,
            tolerance: arguments.tolerance,
            gradient_tolerance: arguments.tolerance * GRADIENTS,
            passed: failures.is_empty(),
            rows: &comparisons,
            unused: &unused,
        })?;
    } else {
        let cells: Vec<[String; 3]> = comparisons
            .iter()
            .map(|row| [row.entry.to_string(), format!("{:.2e}", row.error), format!("{:.0e}", limit(row))])
            .collect();
        let mut rows = vec![["tensor", "entry", "error", "limit", ""]];
        rows.extend(comparisons.iter().zip(&cells).map(|(row, [entry, error, limit])| {
            [row.tensor.as_str(), entry.as_str(), error, limit, if agrees(row) { "agrees" } else { "differs" }]
        }));
        print(aligned(&rows, 0, width()).as_bytes())?;
        if !unused.is_empty() {
            console.note(&format!("{} not compared", count(unused.len(), "tensor")));
            console.detail(&unused.join(", "));
        }
    }
    let Some(worst) = failures.iter().max_by(|a, b| a.error.total_cmp(&b.error)) else { return Ok(()) };
    let message = format!(
        "model {name}: {} of {} differ; {} of entry {} by {:.2e}, {:.0e} allowed",
        failures.len(),
        count(comparisons.len(), "comparison"),
        worst.tensor,
        worst.entry,
        worst.error,
        limit(worst)
    );
    Err(Failure::new(ExitCode::Model, message))
}

fn test(arguments: &Verify, model: &Model) -> Outcome<()> {
    // Opening it has looked at every tensor.
    let tensors = model.network().map_or(0, |network| network.parameters().len());
    let entry = index().iter().find(|entry| entry.name == model.name);
    let stated = entry.and_then(|entry| entry.sha256.values().next()).filter(|_| !model.hash.is_empty());
    let hash_passed = stated.is_none_or(|stated| *stated == model.hash);
    let (error, limit) = (model.self_test()?, model.self_test_limit());
    let passed = hash_passed && error.is_none_or(|error| error <= limit);
    if arguments.json {
        print_json(&Tested {
            model: &model.name,
            sha256: &model.hash,
            stated_sha256: stated.map(String::as_str),
            tensors,
            self_test_error: error,
            self_test_limit: limit,
            passed,
        })?;
    } else {
        let hash = match stated {
            _ if model.hash.is_empty() => "none: a folder is several files".into(),
            None => format!("{}, none stated in the index", model.hash),
            Some(_) if hash_passed => format!("{}, as the index states", model.hash),
            Some(stated) => format!("{}, the index states {stated}", model.hash),
        };
        let self_test = match error {
            None => "none stored".into(),
            Some(error) => format!("relative error {error:.2e}, limit {limit:.0e}"),
        };
        print(
            table(&[
                ("name", model.name.clone()),
                ("sha-256", hash),
                ("tensors", format!("{tensors}, all finite and of their shape")),
                ("self-test", self_test),
            ])
            .as_bytes(),
        )?;
    }
    if passed {
        return Ok(());
    }
    let reason = if hash_passed { "its self-test fails" } else { "SHA-256 mismatch" };
    Err(Failure::new(ExitCode::Model, format!("model {}: {reason}", model.name)))
}
