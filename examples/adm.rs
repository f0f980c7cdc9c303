//! One evaluation of the published ADM of FFHQ (93.6 million parameters) with random weights, and its pullback: time, and
//! the largest resident memory of the process.
//!
//! `cargo run --release --example adm -- f32|bf16 [SIDE] [ROUNDS]`
//!
//! SIDE is 256 and ROUNDS 3 unless told; `benches/peers/adm.py` does the same with PyTorch. One precision a run, because
//! the largest memory is that of the whole process.

use candle_core::{Device, Tensor};
use serde_json::json;
use std::error::Error;
use std::time::Instant;
use tweedie::models::{Family, Fused, ScoreModel, TensorIndex};
use tweedie_kernels::{InstructionSet, Precision};

/// Numbers between −1 and 1 from a multiplicative congruence.
fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 23) as f32) - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Largest resident memory of the process since its start, MiB; 0 where the system does not say.
fn largest_memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    kibibytes.unwrap_or_default() / 1024.0
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let precision: Precision = arguments.first().ok_or("expected f32 or bf16")?.parse()?;
    let side: usize = arguments.get(1).map_or(Ok(256), |side| side.parse())?;
    let rounds: usize = arguments.get(2).map_or(Ok(3), |rounds| rounds.parse())?;
    let config = json!({
        "image_size": 256, "num_channels": 128, "num_res_blocks": 1, "attention_resolutions": "16", "learn_sigma": true,
        "num_head_channels": 64, "resblock_updown": true, "use_scale_shift_norm": true, "class_cond": false,
    });
    let recipe = (Family::named("adm")?.recipe)(&config, &TensorIndex::new())?;
    let network = recipe.network.steps().ok_or("a network of steps")?;
    let parameters = network.parameters();
    let lookup = |name: &str| {
        let index = parameters.iter().position(|parameter| parameter.name == name)?;
        let fan_in: usize = parameters[index].shape[1..].iter().product();
        let (middle, scale) = match parameters[index].shape.len() {
            1 if name.ends_with("weight") => (1.0, 0.1),
            1 => (0.0, 0.1),
            _ => (0.0, (3.0 / fan_in as f32).sqrt()),
        };
        let values = numbers(parameters[index].elements(), index as u64 + 1);
        Some(values.into_iter().map(|value| middle + scale * value).collect())
    };
    let clock = Instant::now();
    let model = Fused::new(network, InstructionSet::detect(), precision, lookup)?;
    let count: usize = parameters.iter().map(|parameter| parameter.elements()).sum();
    let operations = network.operations(side, side) / 1e9;
    println!("{count} parameters, {operations:.0} GFLOP at {side}x{side}, {} {precision}", InstructionSet::detect());
    println!("packed in {:.2} s, largest memory {:.0} MiB", clock.elapsed().as_secs_f64(), largest_memory());
    let x = Tensor::from_vec(numbers(3 * side * side, 7), (1, 3, side, side), &Device::Cpu)?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        let clock = Instant::now();
        model.forward(&x, 500.0)?;
        times.push(clock.elapsed().as_secs_f64());
    }
    println!("forward: {times:.3?} s, largest memory {:.0} MiB", largest_memory());
    times.clear();
    for _ in 0..rounds {
        let clock = Instant::now();
        let (output, pullback) = model.forward_with_pullback(&x, 500.0)?;
        pullback.apply(&output)?;
        times.push(clock.elapsed().as_secs_f64());
    }
    println!("forward and pullback: {times:.3?} s, largest memory {:.0} MiB", largest_memory());
    Ok(())
}
