//! Times a training step of a U-Net: forward, gradient of the denoising loss, gradients of all parameters, Adam,
//! packing.
//!
//! `cargo run --release -p tweedie-kernels --example train_step -- [batch] [side] [repetitions] [threads …]`
//!
//! Prints the median of the wall time and of the processor time per step, and operations per second of wall time: three
//! times those of the convolutions forward.

use std::fmt::Write as _;
use std::time::{Duration, Instant};
use tweedie_kernels::network::{Dense, Embedding, Features, Network, Norm, Parameter, Resample, Source, Sum};
use tweedie_kernels::{Adam, AdamOptions, FusedNetwork, InstructionSet, Parameters, Precision, Trainer};

/// Residual blocks as in the `UNet2DModel` of diffusers.
struct UNet {
    network: Network,
    groups: usize,
}

impl UNet {
    fn network(levels: &[usize], blocks: usize, groups: usize) -> Network {
        let first = levels[0];
        let embedded = first * 4;
        let layers = vec![dense("linear_1", first, embedded, false), dense("linear_2", embedded, embedded, true)];
        let features = Features::Positional { channels: first, cosine_first: true, frequency_shift: 0.0 };
        let embedding = Embedding { features, layers, classes: None };
        let mut net = Self { network: Network { channels: 3, patch: 1, embedding, steps: Vec::new() }, groups };
        let mut x = net.convolution(0, first, Resample::Same, false);
        let mut skips = vec![x];
        for (level, &channels) in levels.iter().enumerate() {
            for _ in 0..blocks {
                x = net.residual(&[x], channels);
                skips.push(x);
            }
            if level + 1 < levels.len() {
                x = net.convolution(x, channels, Resample::Down { before: 1 }, false);
                skips.push(x);
            }
        }
        for _ in 0..2 {
            x = net.residual(&[x], levels[levels.len() - 1]);
        }
        for (level, &channels) in levels.iter().enumerate().rev() {
            for _ in 0..=blocks {
                x = net.residual(&[x, skips.pop().expect("as many as there are blocks")], channels);
            }
            if level > 0 {
                x = net.convolution(x, channels, Resample::Up, false);
            }
        }
        net.convolution(x, 3, Resample::Same, true);
        net.network
    }

    fn source(&self, name: &str, inputs: &[usize], outputs: usize, size: usize, normalise: bool) -> Source {
        let name = format!("{}.{name}", self.network.steps.len());
        let channels = inputs.iter().map(|&value| self.network.value_channels(value)).sum();
        Source {
            inputs: inputs.to_vec(),
            norm: normalise.then(|| Norm {
                groups: self.groups,
                epsilon: 1e-5,
                weight: Parameter::new(format!("{name}.norm.weight"), &[channels]),
                bias: Parameter::new(format!("{name}.norm.bias"), &[channels]),
                modulation: None,
            }),
            silu: normalise,
            weight: Parameter::new(format!("{name}.weight"), &[outputs, channels, size, size]),
            bias: Some(Parameter::new(format!("{name}.bias"), &[outputs])),
            resample: Resample::Same,
        }
    }

    fn push(&mut self, sources: Vec<Source>, embedding: Option<Dense>, residual: Option<usize>) -> usize {
        let channels = sources[0].weight.shape[0];
        self.network.steps.push(Sum { sources, embedding, residual, channels, scale: 1.0 }.into());
        self.network.steps.len()
    }

    fn convolution(&mut self, x: usize, outputs: usize, resample: Resample, normalise: bool) -> usize {
        let source = Source { resample, ..self.source("conv", &[x], outputs, 3, normalise) };
        self.push(vec![source], None, None)
    }

    fn residual(&mut self, inputs: &[usize], outputs: usize) -> usize {
        let channels: usize = inputs.iter().map(|&value| self.network.value_channels(value)).sum();
        let name = format!("{}.projection", self.network.steps.len());
        let projection = dense(&name, self.network.embedding.features.channels() * 4, outputs, true);
        let hidden = self.push(vec![self.source("conv1", inputs, outputs, 3, true)], Some(projection), None);
        let mut sources = vec![self.source("conv2", &[hidden], outputs, 3, true)];
        let same = channels == outputs;
        if !same {
            sources.push(self.source("shortcut", inputs, outputs, 1, false));
        }
        self.push(sources, None, same.then(|| inputs[0]))
    }
}

fn dense(name: &str, inputs: usize, outputs: usize, silu: bool) -> Dense {
    Dense {
        weight: Parameter::new(format!("{name}.weight"), &[outputs, inputs]),
        bias: Parameter::new(format!("{name}.bias"), &[outputs]),
        silu,
    }
}

/// Numbers in [−1, 1) that look random (a linear congruential generator).
fn numbers(n: usize, seed: &mut u64) -> Vec<f32> {
    let mut next = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Processor time of all threads of this process so far; none where the system does not tell.
fn processor_time() -> Option<Duration> {
    let mut total = Duration::ZERO;
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        let stat = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        total += Duration::from_nanos(stat.split_whitespace().next()?.parse().ok()?);
    }
    Some(total)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let arguments: Vec<usize> = std::env::args().skip(1).map(|a| a.parse().expect("a number")).collect();
    let argument = |index: usize, default: usize| arguments.get(index).copied().unwrap_or(default);
    let (batch, side, repetitions) = (argument(0, 16), argument(1, 64), argument(2, 5));
    let threads = if arguments.len() > 3 { arguments[3..].to_vec() } else { vec![1, 2] };
    let network = UNet::network(&[32, 64, 96, 128], 2, 8);
    let mut seed = 1;
    let parameters: Parameters = network
        .parameters()
        .into_iter()
        .map(|parameter| {
            let fan_in: usize = parameter.shape[1..].iter().product();
            let scale = (1.0 / fan_in as f32).sqrt();
            let values = match parameter.name.ends_with("norm.weight") {
                true => vec![1.0; parameter.elements()],
                false => numbers(parameter.elements(), &mut seed).iter().map(|x| scale * x).collect(),
            };
            (parameter.name.clone(), values)
        })
        .collect();
    let count: usize = parameters.values().map(Vec::len).sum();
    let shape = [batch, 3, side, side];
    let clean = numbers(shape.iter().product(), &mut seed);
    let noise = numbers(clean.len(), &mut seed);
    let x: Vec<f32> = clean.iter().zip(&noise).map(|(x, z)| x + z).collect();
    let levels: Vec<f32> = (0..batch).map(|b| 20.0 * b as f32).collect();
    let work = network.operations(side, side) * batch as f64;
    println!("{count} parameters, {:.1} GFLOP forward, {batch} × 3 × {side} × {side}", work / 1e9);

    // ‖F − z‖²/n, the loss of a network that predicts the noise.
    let loss = |output: &[f32]| {
        let n = output.len() as f64;
        let difference: Vec<f32> = output.iter().zip(&noise).map(|(f, z)| f - z).collect();
        let loss = difference.iter().map(|d| f64::from(*d).powi(2)).sum::<f64>() / n;
        (loss, difference.into_iter().map(|d| (2.0 / n) as f32 * d).collect::<Vec<f32>>())
    };
    let isa = InstructionSet::detect();
    for &threads in &threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| {
            let adam = Adam::new(AdamOptions { learning_rate: 1e-4, ..AdamOptions::default() });
            let mut trainer = Trainer::new(&network, isa, Precision::F32, parameters.clone(), adam).expect("a network");
            let (mut wall, mut processor, mut losses) = (Vec::new(), Vec::new(), String::new());
            for repetition in 0..=repetitions {
                let (start, before) = (Instant::now(), processor_time());
                let step = trainer.step(&x, shape, &levels, loss).expect("a step");
                // The first step allocates.
                if repetition > 0 {
                    wall.push(start.elapsed().as_secs_f64());
                    processor
                        .extend(processor_time().zip(before).map(|(after, before)| (after - before).as_secs_f64()));
                }
                let _ = write!(losses, " {:.5}", step.loss);
            }
            let wall = median(wall);
            print!("{isa}, {threads} threads: {:.0} ms, {:.0} GFLOP/s", wall * 1e3, 3.0 * work / wall / 1e9);
            if !processor.is_empty() {
                print!("; {:.0} ms of processor time", median(processor) * 1e3);
            }
            println!("; losses{losses}");
            parts(trainer.network(), trainer.parameters(), &x, shape, &levels, &loss);
        });
    }
}

/// The parts of a step, each once, in milliseconds of processor time.
fn parts(
    network: &FusedNetwork,
    parameters: &Parameters,
    x: &[f32],
    shape: [usize; 4],
    levels: &[f32],
    loss: &impl Fn(&[f32]) -> (f64, Vec<f32>),
) {
    let Some(mut before) = processor_time() else { return };
    let mut lap = |name: &str| {
        let now = processor_time().unwrap_or(before);
        println!("  {name}: {:.0} ms", (now - before).as_secs_f64() * 1e3);
        before = now;
    };
    let (output, tape) = network.forward_for_gradients(x, shape, levels, 1.0).expect("a value");
    lap("forward");
    let (_, v) = loss(&output);
    lap("loss");
    drop(network.pullback(&tape, &v, 1.0).expect("a gradient"));
    lap("pullback alone, with the packing of the data gradient");
    let gradients = network.gradients(&tape, &v, None).expect("gradients");
    lap("gradients, data and parameters");
    let mut adam = Adam::new(AdamOptions::default());
    let mut moved = parameters.clone();
    adam.step(&mut moved, &gradients.parameters).expect("a step");
    lap("Adam, the first step");
    adam.step(&mut moved, &gradients.parameters).expect("a step");
    lap("Adam, another");
    let isa = network.instruction_set();
    let packed = FusedNetwork::new(network.network(), isa, Precision::F32, |name| moved.get(name).cloned());
    drop(packed.expect("a network"));
    lap("packing of the forward pass");
}
