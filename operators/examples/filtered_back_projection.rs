//! Reconstructs an image from its projections, to compare the result with other programs.
//!
//! `cargo run -p tweedie-operators --release --example filtered_back_projection -- HEIGHT WIDTH in.safetensors out.safetensors`
//!
//! The first file holds `x`, the projections `[B, C, angles, detectors]`, and `degrees`, the angles; the second one gets `x`,
//! the image.

use std::collections::HashMap;
use std::error::Error;

use candle_core::{Device, safetensors};
use tweedie_operators::{Site, forward::Radon};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [height, width, input, output] = arguments.as_slice() else {
        return Err("expected HEIGHT WIDTH in.safetensors out.safetensors".into());
    };
    let tensors = safetensors::load(input, &Device::Cpu)?;
    let get = |name: &str| tensors.get(name).ok_or_else(|| format!("the first file holds no tensor {name}"));
    let y = get("x")?;
    let (_, channels, _, detectors) = y.dims4()?;
    let site = Site::new((channels, height.parse()?, width.parse()?), &Device::Cpu, y.dtype());
    let radon = Radon::new(get("degrees")?.to_vec1()?, Some(detectors), site)?;
    Ok(safetensors::save(&HashMap::from([("x", radon.filtered_back_projection(y)?)]), output)?)
}
