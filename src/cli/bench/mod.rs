//! `tweedie bench`: how long the network takes, beside what the machine can do at best.

mod calls;
mod layers;
mod report;
mod times;

use super::events::{print, print_json};
use super::failure::{Failure, Outcome};
use super::flags::{DeviceFlags, ModelFlags, range};
use super::terminal::Console;
use super::{MEASUREMENT, device, doctor};
use crate::models::Model;
use calls::What;
use report::{Ceilings, Figures, Report, Settings};
use std::time::Instant;
use times::{Times, milliseconds};
use tweedie_kernels::{InstructionSet, ceiling};

/// Noise level of every call, that of `benches/peers/network.py`; the time does not depend on it.
const SIGMA: f64 = 0.4;

/// Side of the image that the start is measured with.
const FIRST: usize = 64;

/// Time the network on this machine
///
/// The median of repeated calls, its share of the processor's highest rate of multiplications and additions, and the
/// rate at which memory is copied, all measured in the same run with the same number of threads. Operations are those of
/// the convolutions as they are written down; kernels that need fewer can pass the peak.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Bench {
    /// denoise, pullback or train
    ///
    /// denoise: one evaluation of the denoiser. pullback: one evaluation, and the product of a vector with the transposed
    /// Jacobian, which counts as a second one. train: one evaluation, the gradient of the denoising loss with respect to
    /// all parameters, which counts as two, and a step of Adam.
    #[arg(long, value_name = "CALL", value_enum, default_value_t, hide_possible_values = true,
        help_heading = MEASUREMENT)]
    what: What,
    /// Side of the images, 1 to 8192
    #[arg(long, value_name = "PX", default_value_t = 256, value_parser = range(1, 8192), help_heading = MEASUREMENT)]
    size: usize,
    /// Images in a call, 1 to 1024
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = range(1, 1024), help_heading = MEASUREMENT)]
    batch: usize,
    /// Calls to time at least, 1 to 100000
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = range(1, 100_000), help_heading = MEASUREMENT)]
    rounds: usize,
    /// Seconds to go on for at least
    #[arg(long, value_name = "S", default_value = "2", value_parser = seconds, help_heading = MEASUREMENT)]
    seconds: f64,
    /// Time every step of the network, too
    ///
    /// For each convolution of the network its operations, those that the kernels carry out (fewer where there is a
    /// way), the bytes it has to move, the time that the machine's two highest rates leave it (its floor), and the time
    /// it takes.
    #[arg(long, help_heading = MEASUREMENT)]
    layers: bool,

    #[command(flatten)]
    model: ModelFlags,
    #[command(flatten)]
    device: DeviceFlags,

    /// Print one JSON object
    #[arg(long, help_heading = super::DIAGNOSTICS)]
    json: bool,
    /// Print milliseconds alone, a call a line
    #[arg(long, conflicts_with_all = ["json", "layers"], help_heading = super::DIAGNOSTICS)]
    raw: bool,
}

const EXAMPLES: &str = "\
Examples:
  tweedie bench
  tweedie bench --what pullback --size 512 --threads 1 --precision f32
  tweedie bench --layers
  tweedie bench --what train --size 64 --batch 16 --json";

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.0..=3600.0).contains(&value) => Ok(value),
        _ => Err("expected a number of seconds from 0 to 3600".into()),
    }
}

/// Runs the command; `started` is when the program began.
pub(crate) fn run(
    arguments: &Bench,
    instruction_set: InstructionSet,
    started: Instant,
    console: Console,
) -> Outcome<()> {
    let Bench { what, size, batch, rounds, seconds, .. } = *arguments;
    arguments.device.start_threads()?;
    let options = arguments.device.open(instruction_set, console)?;
    let (model, open_ms) = {
        let clock = Instant::now();
        (arguments.model.open(&options, console)?, milliseconds(clock))
    };
    check(arguments, &model)?;
    let name = arguments.model.name();
    What::Denoise.prepare(&model, &name, 1, FIRST)?.run()?;
    let startup_ms = milliseconds(started);

    let mut call = what.prepare(&model, &name, batch, size)?;
    let first_call_ms = {
        let clock = Instant::now();
        call.run()?;
        milliseconds(clock)
    };
    let times = Times::measure(rounds, seconds, || call.run())?;
    if arguments.raw {
        return print(times.lines().as_bytes());
    }
    // Before the ceilings are measured: their memory is none of the network's.
    let peak_memory_bytes = crate::evaluate::memory::largest();
    let ceilings = match model.device().is_cpu() {
        true => {
            let threads = rayon::current_num_threads();
            let peak = ceiling::peak_operations(instruction_set, model.precision(), threads);
            let peak = peak.map_err(|error| Failure::usage(error.to_string()))?;
            Some(Ceilings { operations_per_second: peak, bytes_per_second: ceiling::copy_bandwidth(threads) })
        }
        false => None,
    };
    let layers = match ceilings.filter(|_| arguments.layers) {
        Some(ceilings) => Some(layers::measure(arguments, &model, &ceilings)?),
        None => None,
    };
    let operations = model.network().map(|network| what.evaluations() * batch as f64 * network.operations(size, size));
    let report = Report {
        settings: Settings {
            version: env!("CARGO_PKG_VERSION"),
            command: "bench",
            what: what.name(),
            model: &model.name,
            model_hash: &model.hash,
            device: device::name(model.device()),
            instruction_set: model.instruction_set().to_string(),
            precision: model.precision().to_string(),
            threads: rayon::current_num_threads(),
            size,
            batch,
            sigma: SIGMA,
        },
        figures: Figures::new(&times, operations, ceilings),
        open_ms,
        startup_ms,
        first_call_ms,
        peak_memory_bytes,
        layers,
    };
    if arguments.json { print_json(&report) } else { print(report.text().as_bytes()) }
}

/// Whether this model can be timed like this.
fn check(arguments: &Bench, model: &Model) -> Outcome<()> {
    if let Some(network) = model.network()
        && !arguments.size.is_multiple_of(network.stride())
    {
        let stride = network.stride();
        let message = format!("--size {}: this network takes multiples of {stride}", arguments.size);
        return Err(Failure::usage(message).hint(format!("--size {}", arguments.size.next_multiple_of(stride))));
    }
    let image = 4 * model.denoiser().channels().unwrap_or(3) as u64 * (arguments.size * arguments.size) as u64;
    let images = image * arguments.batch as u64;
    if let Some(memory) = doctor::memory().filter(|&memory| images > memory) {
        let (images, memory) = (images.div_ceil(1 << 30), memory.div_ceil(1 << 30));
        let message = format!("the images alone take {images} GiB, this machine has {memory} GiB");
        return Err(Failure::usage(message).hint("a smaller --size or --batch"));
    }
    if arguments.layers && arguments.what != What::Denoise {
        return Err(Failure::usage("--layers times the steps of one evaluation").hint("leave out --what"));
    }
    let needy = match (arguments.layers, arguments.what) {
        (true, _) => "--layers",
        (_, What::Train) => "--what train",
        _ => return Ok(()),
    };
    if !model.device().is_cpu() {
        let device = device::name(model.device());
        let message = format!("{needy} times the CPU's kernels, the device is {device}");
        return Err(Failure::usage(message).hint("--device cpu"));
    }
    if model.network().is_none() {
        return Err(Failure::usage(format!("{needy} needs a network, the model {} is a formula", model.name)));
    }
    Ok(())
}
