//! How far the network is from its reference: relative L2 errors of everything that is stored beside a checkpoint.
//!
//! `cargo run --release --example parity -- FOLDER [f32|bf16]`, a diffusers folder with an `io.safetensors` whose tensors are called
//! `NAME.sigmaσ.x`, `.denoised`, `.v` and `.grad_x`.

use candle_core::{DType, Device, Tensor};
use std::error::Error;
use tweedie::models::{Model, ModelOptions};
use tweedie_kernels::Precision;

/// `|a − b| / |b|` over the whole batch, and the largest of any image in it.
fn error(a: &Tensor, b: &Tensor) -> candle_core::Result<(f64, f64)> {
    let norm = |x: &Tensor| -> candle_core::Result<f64> {
        x.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>().map(f64::sqrt)
    };
    let relative = |a: &Tensor, b: &Tensor| Ok(norm(&(a - b)?)? / norm(b)?);
    let rows: candle_core::Result<Vec<f64>> = (0..b.dim(0)?).map(|row| relative(&a.get(row)?, &b.get(row)?)).collect();
    Ok((relative(a, b)?, rows?.into_iter().fold(0.0, f64::max)))
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("expected the folder of a checkpoint with an io.safetensors")?;
    let device = Device::Cpu;
    let precision = std::env::args().nth(2).map(|name| name.parse::<Precision>()).transpose()?;
    let model = Model::open(&folder, &ModelOptions { precision, ..ModelOptions::default() })?;
    println!("{} with {}", model.precision(), model.instruction_set());
    let stored = candle_core::safetensors::load(format!("{folder}/io.safetensors"), &device)?;
    let mut cases: Vec<&str> = stored.keys().filter_map(|name| name.strip_suffix(".x")).collect();
    cases.sort_unstable();
    println!("{:<20} {:>10} {:>10} {:>10} {:>10}", "case", "denoised", "worst row", "grad_x", "worst row");
    for case in cases {
        let sigma: f64 = case.rsplit_once("sigma").ok_or("a case without a sigma")?.1.parse()?;
        let get = |name: &str| &stored[&format!("{case}.{name}")];
        let (denoised, pullback) = model.denoiser().denoise_with_pullback(get("x"), sigma)?;
        let gradient = pullback.apply(get("v"))?;
        let (value, gradient) = (error(&denoised, get("denoised"))?, error(&gradient, get("grad_x"))?);
        println!("{case:<20} {:>10.1e} {:>10.1e} {:>10.1e} {:>10.1e}", value.0, value.1, gradient.0, gradient.1);
    }
    Ok(())
}
