//! `--layers`: every step of the network beside the least time that it could take.

use super::calls::images;
use super::report::Ceilings;
use super::times::{Times, milliseconds};
use super::{Bench, SIGMA};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::{ExitCode, interrupt};
use crate::models::{Checkpoint, Model};
use serde::Serialize;
use std::fmt::Write as _;
use std::time::Instant;
use tweedie_kernels::{Error, FusedNetwork};

/// The steps of one evaluation. The rest of it is the change of layout at both ends and the embedding of the noise.
#[derive(Debug, Serialize)]
pub(super) struct Layers {
    steps: Vec<Layer>,
    /// Sum over the steps.
    floor_ms: f64,
    /// Sum over the steps.
    median_ms: f64,
    /// Of a whole evaluation.
    call_median_ms: f64,
    /// How many times its floor an evaluation takes.
    call_times_floor: f64,
}

/// One step: a convolution with what is fused into it.
#[derive(Debug, Serialize)]
struct Layer {
    /// That of its first convolution in the checkpoint.
    name: String,
    input_channels: usize,
    output_channels: usize,
    /// Of the result, in pixels.
    height: usize,
    width: usize,
    /// As the convolution is written down.
    operations: f64,
    /// Those that the kernels carry out.
    operations_taken: f64,
    /// Values read once and written once, weights read once, in the numbers that they are kept in.
    bytes: f64,
    /// The longer of operations taken at the highest rate and bytes at the rate of a copy. Less than that is possible with
    /// values that are still in a cache.
    floor_ms: f64,
    median_ms: f64,
    /// How many times its floor it takes.
    times_floor: f64,
}

/// Times the steps, with a network packed for this alone: a denoiser does not say what it is made of.
pub(super) fn measure(arguments: &Bench, model: &Model, ceilings: &Ceilings) -> Outcome<Layers> {
    let Bench { size, batch, rounds, seconds, .. } = *arguments;
    let failed = |error: Error| Failure::new(ExitCode::Model, error.to_string());
    let checkpoint = Checkpoint::named(&arguments.model.name())?;
    let Some(network) = checkpoint.network.steps() else {
        return Err(Failure::usage(format!("--layers: the model {} is not made of steps", model.name)));
    };
    let lookup = |name: &str| checkpoint.parameter(name);
    let fused = FusedNetwork::new(network, model.instruction_set(), model.precision(), lookup).map_err(failed)?;
    let shape = [batch, network.channels, size, size];
    let x = images(model, 0, batch, size)?.flatten_all().and_then(|x| x.to_vec1::<f32>());
    let x = x.map_err(crate::Error::from)?;
    let noise = [SIGMA.ln() as f32 / 4.0];

    let mut of_step = vec![Vec::new(); network.steps.len()];
    let mut of_call = Vec::new();
    // The first call finds its memory and is not counted.
    fused.forward(&x, shape, &noise, 1.0).map_err(failed)?;
    let begun = Instant::now();
    while of_call.len() < rounds || begun.elapsed().as_secs_f64() < seconds {
        interrupt::check()?;
        let clock = Instant::now();
        let mut observer = |step: usize, time: std::time::Duration| of_step[step].push(1e3 * time.as_secs_f64());
        fused.forward_observed(&x, shape, &noise, 1.0, &mut observer).map_err(failed)?;
        of_call.push(milliseconds(clock));
    }

    let (value_bytes, weight_bytes) = fused.number_bytes();
    let work = network.work(size, size).into_iter().zip(fused.step_operations(size, size));
    let steps: Vec<Layer> = (network.steps.iter().zip(work).zip(of_step))
        .map(|((step, (work, taken)), times)| {
            let operations_taken = batch as f64 * taken;
            let bytes = work.bytes(batch, value_bytes, weight_bytes);
            let floor = (operations_taken / ceilings.operations_per_second).max(bytes / ceilings.bytes_per_second);
            let (floor_ms, median_ms) = (1e3 * floor, Times::new(times).median());
            Layer {
                name: step.name().to_owned(),
                input_channels: work.input_channels,
                output_channels: work.output_channels,
                height: work.size.0,
                width: work.size.1,
                operations: batch as f64 * work.operations,
                operations_taken,
                bytes,
                floor_ms,
                median_ms,
                times_floor: median_ms / floor_ms,
            }
        })
        .collect();
    let floor_ms = steps.iter().map(|step| step.floor_ms).sum();
    let call_median_ms = Times::new(of_call).median();
    Ok(Layers {
        median_ms: steps.iter().map(|step| step.median_ms).sum(),
        call_times_floor: call_median_ms / floor_ms,
        floor_ms,
        call_median_ms,
        steps,
    })
}

impl Layers {
    /// A table with a line for every step and for their sum.
    pub(super) fn text(&self) -> String {
        let name = self.steps.iter().map(|step| step.name.chars().count()).max().unwrap_or(0).max(12);
        let mut text = format!(
            "{:name$}  {:>9}  {:>9}  {:>8}  {:>8}  {:>8}  {:>8}  {:>9}  {:>7}\n",
            "step", "channels", "size", "GFLOP", "taken", "MB", "floor ms", "median ms", "x floor"
        );
        let mut line = |step: &str, [channels, size]: [String; 2], figures: [f64; 5]| {
            let [operations, taken, bytes, floor, median] = figures;
            let (gflop, taken, megabytes) = (1e-9 * operations, 1e-9 * taken, 1e-6 * bytes);
            let ratio = median / floor;
            // Writing into a text does not fail.
            let _ = writeln!(
                text,
                "{step:name$}  {channels:>9}  {size:>9}  {gflop:>8.3}  {taken:>8.3}  {megabytes:>8.2}  {floor:>8.3}  \
                 {median:>9.3}  {ratio:>7.2}"
            );
        };
        for step in &self.steps {
            let channels = format!("{}>{}", step.input_channels, step.output_channels);
            let size = format!("{}x{}", step.width, step.height);
            let figures = [step.operations, step.operations_taken, step.bytes, step.floor_ms, step.median_ms];
            line(&step.name, [channels, size], figures);
        }
        let sum = |of: fn(&Layer) -> f64| self.steps.iter().map(of).sum::<f64>();
        let [operations, taken] = [sum(|step| step.operations), sum(|step| step.operations_taken)];
        let work = |median| [operations, taken, sum(|step| step.bytes), self.floor_ms, median];
        line("all steps", Default::default(), work(self.median_ms));
        line("evaluation", Default::default(), work(self.call_median_ms));
        text
    }
}
