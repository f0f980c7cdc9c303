//! `tweedie doctor`: what this binary is, what the machine offers, and whether the two get along.

use super::device;
use super::events::{print, print_json};
use super::exit::ExitCode;
use super::failure::{Failure, Outcome};
use super::flags::PrecisionFlags;
use super::models::table;
use crate::models::{Model, ModelOptions};
use serde::Serialize;
use tweedie_kernels::InstructionSet;

/// Check this installation; the output belongs into a bug report
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Doctor {
    #[command(flatten)]
    precision: PrecisionFlags,
    /// Print one JSON object
    #[arg(long, help_heading = super::DIAGNOSTICS)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  tweedie doctor
  tweedie doctor --precision f32 --json
  tweedie doctor && echo fit for work";

#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    target: String,
    features: Vec<&'static str>,
    cpu: Option<String>,
    instructions: Vec<&'static str>,
    /// The instruction set that the network's kernels run with.
    kernels: String,
    /// What they multiply.
    precision: String,
    threads: usize,
    memory: Option<u64>,
    devices: Vec<DeviceReport>,
    model: Option<ModelReport>,
    model_error: Option<String>,
}

#[derive(Debug, Serialize)]
struct DeviceReport {
    name: &'static str,
    available: bool,
    /// What is missing; `null` if nothing.
    missing: Option<String>,
}

#[derive(Debug, Serialize)]
struct ModelReport {
    name: String,
    sha256: String,
    /// Relative error; `null` if the model stores no result to compare with.
    self_test_error: Option<f64>,
    self_test_limit: f64,
    self_test_passed: bool,
    self_test_seconds: f64,
}

pub(crate) fn run(arguments: &Doctor, instruction_set: InstructionSet) -> Outcome<()> {
    let options = ModelOptions { instruction_set, precision: arguments.precision.chosen(), ..ModelOptions::default() };
    let tested = self_test(&options);
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        features: features(),
        cpu: cpu_info("model name"),
        instructions: instructions(),
        kernels: instruction_set.to_string(),
        precision: options.network_precision()?.to_string(),
        threads: rayon::current_num_threads(),
        memory: memory(),
        devices: devices(),
        model_error: tested.as_ref().err().map(Failure::message),
        model: tested.ok(),
    };
    if arguments.json {
        print_json(&report)?;
    } else {
        print(text(&report).as_bytes())?;
    }
    match report.model {
        Some(ModelReport { self_test_passed: true, .. }) => Ok(()),
        Some(model) => {
            Err(Failure::new(ExitCode::Model, format!("self-test of {} failed: {}", model.name, model.deviation())))
        }
        // Who leaves the prior out of the binary wants it so.
        None if !cfg!(feature = "embedded-prior") => Ok(()),
        None => Err(Failure::new(ExitCode::Model, report.model_error.unwrap_or_default())),
    }
}

fn self_test(options: &ModelOptions) -> Outcome<ModelReport> {
    let model = Model::embedded(options)?;
    let start = std::time::Instant::now();
    let error = model.self_test()?;
    let limit = model.self_test_limit();
    Ok(ModelReport {
        self_test_error: error,
        self_test_limit: limit,
        self_test_passed: error.is_some_and(|error| error <= limit),
        self_test_seconds: start.elapsed().as_secs_f64(),
        name: model.name,
        sha256: model.hash,
    })
}

impl ModelReport {
    fn deviation(&self) -> String {
        match self.self_test_error {
            Some(error) => format!("relative error {error:.2e}, limit {:.0e}", self.self_test_limit),
            None => "the model stores no result to compare with".into(),
        }
    }
}

fn text(report: &Report) -> String {
    let or_none = |names: &[&str]| if names.is_empty() { "none".to_string() } else { names.join(" ") };
    let mut rows = vec![
        ("version", report.version.to_string()),
        ("target", report.target.clone()),
        ("features", or_none(&report.features)),
        ("processor", report.cpu.clone().unwrap_or_else(|| "unknown".into())),
        ("instructions", or_none(&report.instructions)),
        ("kernels", report.kernels.clone()),
        ("precision", report.precision.clone()),
        ("threads", report.threads.to_string()),
        ("memory", report.memory.map_or_else(|| "unknown".into(), super::terminal::bytes)),
    ];
    for device in &report.devices {
        rows.push((device.name, device.missing.clone().unwrap_or_else(|| "available".into())));
    }
    match (&report.model, &report.model_error) {
        (Some(model), _) => {
            rows.push(("model", model.name.clone()));
            rows.push(("sha256", model.sha256.clone()));
            let verdict = if model.self_test_passed { "passed" } else { "FAILED" };
            rows.push(("self-test", format!("{verdict}: {}, {:.2} s", model.deviation(), model.self_test_seconds)));
        }
        (None, error) => rows.push(("model", error.clone().unwrap_or_default())),
    }
    table(&rows)
}

fn devices() -> Vec<DeviceReport> {
    let mut devices = vec![DeviceReport { name: "cpu", available: true, missing: None }];
    devices.extend(device::accelerators().map(|(name, missing)| DeviceReport {
        name,
        available: missing.is_none(),
        missing,
    }));
    devices
}

/// The cargo features that this binary was built with.
fn features() -> Vec<&'static str> {
    let all = [
        ("embedded-prior", cfg!(feature = "embedded-prior")),
        ("cuda", cfg!(feature = "cuda")),
        ("cudnn", cfg!(feature = "cudnn")),
        ("metal", cfg!(feature = "metal")),
        ("accelerate", cfg!(feature = "accelerate")),
        ("mkl", cfg!(feature = "mkl")),
    ];
    all.into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
}

/// The instruction sets of the processor that make a difference here.
fn instructions() -> Vec<&'static str> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        let detected = [
            ("avx2", std::arch::is_x86_feature_detected!("avx2")),
            ("fma", std::arch::is_x86_feature_detected!("fma")),
            ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
            ("avx512bf16", std::arch::is_x86_feature_detected!("avx512bf16")),
        ];
        found.extend(detected.into_iter().filter_map(|(name, there)| there.then_some(name)));
        // The standard library does not detect AMX; the kernel's list says also whether it may be used.
        let flags = cpu_info("flags").unwrap_or_default();
        let amx = ["amx_tile", "amx_bf16", "amx_int8"];
        found.extend(amx.into_iter().filter(|name| flags.split_whitespace().any(|flag| flag == *name)));
    }
    #[cfg(target_arch = "aarch64")]
    {
        let detected = [
            ("neon", std::arch::is_aarch64_feature_detected!("neon")),
            ("fp16", std::arch::is_aarch64_feature_detected!("fp16")),
            ("bf16", std::arch::is_aarch64_feature_detected!("bf16")),
        ];
        found.extend(detected.into_iter().filter_map(|(name, there)| there.then_some(name)));
    }
    found
}

/// A field of the first processor in Linux' list.
fn cpu_info(field: &str) -> Option<String> {
    field_of(&std::fs::read_to_string("/proc/cpuinfo").ok()?, field)
}

/// Memory of the machine in bytes, where the system says.
pub(crate) fn memory() -> Option<u64> {
    kibibytes(&field_of(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemTotal")?)
}

/// The value of `field: value` in one of Linux' lists.
fn field_of(list: &str, field: &str) -> Option<String> {
    list.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == field)
        .map(|(_, value)| value.trim().to_string())
}

fn kibibytes(value: &str) -> Option<u64> {
    value.strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_the_system_are_read() {
        let status = "Name:\ttweedie\nVmPeak:\t  400 kB\nVmHWM:\t  123 kB\n";
        assert_eq!(field_of(status, "VmHWM").as_deref().and_then(kibibytes), Some(123 * 1024));
        assert_eq!(field_of(status, "VmRSS"), None);
    }
}
