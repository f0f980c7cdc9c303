//! Whether an operator keeps the laws that every method relies on.

use super::Abilities;
use crate::Catalog;
use crate::cli::columns::{aligned, width};
use crate::cli::events::{print, print_json};
use crate::cli::exit::ExitCode;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::terminal::count;
use candle_core::{DType, Device, Tensor};
use serde::Serialize;
use std::path::PathBuf;
use tweedie_operators::{Description, Error, Law, Site, check_adjoint, check_operator};

/// Check the operator that a file describes
///
/// Builds it for images of three channels and measures on random ones, in double precision, how well it keeps the laws
/// that methods rely on: the rows of a batch are independent, `vjp` is the derivative, and, as far as the operator claims
/// them, linearity, the adjoint, singular values, the Gram matrix. The exit code is 1 if a law is broken, 2 if the file
/// makes no sense.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_long_help = EXAMPLES)]
pub(super) struct Check {
    /// File that describes it, as configs/operators/*.toml
    #[arg(value_name = "FILE.toml")]
    file: PathBuf,
    /// Height and width of the images
    #[arg(long, value_name = "HxW", default_value = "64x64", value_parser = size, help_heading = crate::cli::MEASUREMENT)]
    size: (usize, usize),
    /// Seed of the random images
    #[arg(long, value_name = "S", default_value_t = 0, help_heading = crate::cli::MEASUREMENT)]
    seed: u64,
    /// Print one JSON object
    #[arg(long, help_heading = crate::cli::DIAGNOSTICS)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  tweedie operators check my-operator.toml
  tweedie operators check configs/operators/inpaint_box.toml --size 256x256
  tweedie operators check my-operator.toml --size 33x48 --seed 7 --json";

/// Sides from 1 to 8192, `HEIGHTxWIDTH`.
fn size(text: &str) -> Result<(usize, usize), String> {
    let side = |text: &str| text.parse().ok().filter(|side| (1..=8192).contains(side));
    let (height, width) = text.split_once('x').unwrap_or_default();
    side(height).zip(side(width)).ok_or_else(|| "expected HEIGHTxWIDTH, such as 64x64, sides from 1 to 8192".into())
}

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    file: String,
    about: Option<String>,
    operator: String,
    #[serde(flatten)]
    abilities: Abilities,
    noise: String,
    /// Channels, height and width.
    image: [usize; 3],
    measurement: Vec<usize>,
    seed: u64,
    laws: Vec<Finding>,
    /// `⟨Ax, y⟩ / ⟨x, Aᵀy⟩`, 1 if the adjoint is the transpose; `null` if there is none.
    adjoint_ratio: Option<f64>,
    passed: bool,
}

#[derive(Debug, Serialize)]
struct Finding {
    law: &'static str,
    /// Relative deviation; `null` if it could not be measured.
    measured: f64,
    limit: f64,
    passed: bool,
    /// More numbers, or why it could not be measured.
    note: String,
}

impl From<Law> for Finding {
    fn from(law: Law) -> Self {
        let passed = law.passed();
        Self { law: law.name, measured: law.measured, limit: law.limit, passed, note: law.note }
    }
}

pub(super) fn run(arguments: &Check, catalog: &Catalog) -> Outcome<()> {
    let report = examine(arguments, catalog)?;
    if arguments.json {
        print_json(&report)?;
    } else {
        print(report.text(width()).as_bytes())?;
    }
    report.verdict()
}

fn examine(arguments: &Check, catalog: &Catalog) -> Outcome<Report> {
    let file = arguments.file.to_string_lossy().into_owned();
    let task = Description::open(&arguments.file).map_err(|error| Failure::usage(error.to_string()))?;
    let (height, width) = arguments.size;
    let (image, dtype, device, seed) = ((3, height, width), DType::F64, &Device::Cpu, arguments.seed);
    let site = Site { operators: &catalog.operators, ..Site::new(image, device, dtype) };
    let built = task.build(site, &catalog.noises);
    let (operator, _) = built.map_err(|error| Failure::usage(format!("{file}: {error}")))?;

    let failed = |error: Error| Failure::new(ExitCode::Failed, format!("{file}: {error}"));
    let found = check_operator(&*operator, image, dtype, device, seed).map_err(failed)?;
    let adjoint = operator.as_linear().map(|linear| check_adjoint(linear, image, dtype, device, seed));
    let grey = Tensor::zeros((1, 3, height, width), dtype, device).map_err(|error| failed(error.into()))?;
    let y = operator.forward(&grey).map_err(failed)?;
    let name = |table: &toml::Table| table.get("name").and_then(toml::Value::as_str).unwrap_or_default().to_owned();
    Ok(Report {
        about: task.about,
        operator: name(&task.operator),
        abilities: Abilities::of(&*operator),
        noise: task.noise.as_ref().map_or_else(|| "none".into(), name),
        image: [3, height, width],
        measurement: y.dims()[1..].to_vec(),
        seed,
        passed: found.passed(),
        laws: found.laws.into_iter().map(Finding::from).collect(),
        // An adjoint that cannot be applied is a broken law already.
        adjoint_ratio: adjoint.and_then(Result::ok).map(|adjoint| adjoint.ratio),
        file,
    })
}

impl Report {
    fn verdict(&self) -> Outcome<()> {
        let broken: Vec<&str> = self.laws.iter().filter(|law| !law.passed).map(|law| law.law).collect();
        if broken.is_empty() {
            return Ok(());
        }
        let (file, all) = (&self.file, count(self.laws.len(), "law"));
        let message = format!("{file}: {} of {all} broken: {}", broken.len(), broken.join(", "));
        Err(Failure::new(ExitCode::Failed, message))
    }

    fn text(&self, width: Option<usize>) -> String {
        let shape = |sides: &[usize]| sides.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
        let (image, measurement) = (shape(&self.image), shape(&self.measurement));
        let facts = [
            ["about", self.about.as_deref().unwrap_or("-")],
            ["operator", &self.operator],
            ["linear", self.abilities.linear()],
            ["closed form", self.abilities.closed_form()],
            ["noise", &self.noise],
            ["image", &image],
            ["measurement", &measurement],
        ];
        let mut laws = vec![["", "measured", "limit", "law"].map(str::to_owned)];
        laws.extend(self.laws.iter().map(|finding| {
            let Finding { law, measured, limit, passed, note } = finding;
            let verdict = if *passed { "PASS" } else { "FAIL" };
            // What was compared concerns who looks for a mistake.
            let law = if *passed || note.is_empty() { (*law).to_owned() } else { format!("{law}: {note}") };
            [verdict.to_owned(), figure(*measured), figure(*limit), law]
        }));
        let laws: Vec<_> = laws.iter().map(|row| row.each_ref().map(String::as_str)).collect();
        let mut text = format!("{}\n{}", aligned(&facts, 0, width), aligned(&laws, 0, width));
        if let Some(ratio) = self.adjoint_ratio {
            text += &format!("\nadjoint ratio ⟨Ax, y⟩ / ⟨x, Aᵀy⟩ = {ratio:.12}\n");
        }
        text
    }
}

/// Two digits, and a zero that is one at a glance.
fn figure(value: f64) -> String {
    if value == 0.0 { "0".into() } else { format!("{value:.1e}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tweedie_operators::{BuildOperator, Entry, ForwardOperator, LinearOperator};

    /// `3x` with an adjoint that forgets the factor.
    #[derive(Debug)]
    struct Thrice;

    impl ForwardOperator for Thrice {
        fn forward(&self, x: &Tensor) -> tweedie_operators::Result<Tensor> {
            Ok((x * 3.0)?)
        }

        fn as_linear(&self) -> Option<&dyn LinearOperator> {
            Some(self)
        }
    }

    impl LinearOperator for Thrice {
        fn adjoint(&self, y: &Tensor) -> tweedie_operators::Result<Tensor> {
            Ok(y.clone())
        }
    }

    #[test]
    fn a_wrong_adjoint_is_found_and_its_factor_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("thrice.toml");
        std::fs::write(&file, "about = 'Three times'\n[operator]\nname = 'thrice'").unwrap();
        let mut catalog = Catalog::default();
        catalog.operators.push(Entry {
            name: "thrice",
            about: "Three times the image",
            fields: &[],
            example: "",
            build: BuildOperator::same_shape(|_, _| Ok(Box::new(Thrice))),
        });
        let arguments = Check { file: file.clone(), size: (8, 8), seed: 0, json: false };
        let report = examine(&arguments, &catalog).unwrap();
        assert!(!report.passed && (report.adjoint_ratio.unwrap() - 3.0).abs() < 1e-9, "{report:?}");
        let text = report.text(None);
        assert!(text.contains("\nFAIL  ") && text.contains("⟨x, Aᵀy⟩ = 3.000000000000\n"), "{text}");
        let broken: Vec<_> = report.laws.iter().filter(|law| !law.passed).map(|law| law.law).collect();
        assert_eq!(broken, ["vjp is the derivative", "⟨A x, y⟩ = ⟨x, Aᵀ y⟩"]);
        let failure = report.verdict().unwrap_err();
        assert_eq!(failure.code, ExitCode::Failed);
        let laws = report.laws.len();
        let message = format!("{}: 2 of {laws} laws broken: {}", file.display(), broken.join(", "));
        assert_eq!(failure.message(), message);
    }
}
