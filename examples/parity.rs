//! How far the network is from its reference: relative L2 errors of everything that is stored beside a checkpoint.
//!
//! `cargo run --release --example parity -- FOLDER`, a diffusers folder with an `io.safetensors` whose tensors are called
//! `NAME.sigmaσ.x`, `.denoised`, `.v` and `.grad_x`.

use candle_core::{Device, Tensor};
use std::error::Error;
use tweedie::models::Model;

/// `|a − b| / |b|`, the largest over the batch.
fn error(a: &Tensor, b: &Tensor) -> candle_core::Result<f64> {
    let mut worst = 0.0_f64;
    for row in 0..b.dim(0)? {
        let norm = |x: Tensor| -> candle_core::Result<f64> {
            x.to_dtype(candle_core::DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>().map(f64::sqrt)
        };
        let (a, b) = (a.get(row)?, b.get(row)?);
        worst = worst.max(norm((a - &b)?)? / norm(b)?);
    }
    Ok(worst)
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("expected the folder of a checkpoint with an io.safetensors")?;
    let device = Device::Cpu;
    let model = Model::open(&folder, &device)?;
    let stored = candle_core::safetensors::load(format!("{folder}/io.safetensors"), &device)?;
    let mut cases: Vec<&str> = stored.keys().filter_map(|name| name.strip_suffix(".x")).collect();
    cases.sort_unstable();
    println!("{:<20} {:>10} {:>10}", "case", "denoised", "grad_x");
    for case in cases {
        let sigma: f64 = case.rsplit_once("sigma").ok_or("a case without a sigma")?.1.parse()?;
        let get = |name: &str| &stored[&format!("{case}.{name}")];
        let (denoised, pullback) = model.denoiser().denoise_with_pullback(get("x"), sigma)?;
        let gradient = pullback.apply(get("v"))?;
        let errors = (error(&denoised, get("denoised"))?, error(&gradient, get("grad_x"))?);
        println!("{case:<20} {:>10.1e} {:>10.1e}", errors.0, errors.1);
    }
    Ok(())
}
