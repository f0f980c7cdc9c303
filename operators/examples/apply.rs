//! Applies an operator to tensors in a file, to compare it with other programs.
//!
//! `cargo run -p tweedie-operators --release --example apply -- NAME 'SETTINGS' in.safetensors out.safetensors`
//!
//! The first file holds `x`, `[B, C, H, W]`, and may hold `v`, shaped like a measurement. The second one gets `y`,
//! `measured`, and with `v` also `vjp` and, of a linear operator, `adjoint`, and `pseudo_inverse` where it is known.
//! Names of files in the settings start at the working folder.

use std::collections::HashMap;
use std::error::Error;

use candle_core::{Device, safetensors};
use tweedie_operators::{LinearOperator, OPERATORS, Site, find};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, settings, input, output] = arguments.as_slice() else {
        return Err("expected NAME SETTINGS in.safetensors out.safetensors".into());
    };
    let tensors = safetensors::load(input, &Device::Cpu)?;
    let x = tensors.get("x").ok_or("the first file holds no tensor x")?;
    let (_, channels, height, width) = x.dims4()?;
    let site = Site::new((channels, height, width), &Device::Cpu, x.dtype());
    let operator = find(OPERATORS, name)?.create(settings.parse()?, site)?;

    let mut results = HashMap::from([("y", operator.forward(x)?), ("measured", operator.measure(x)?)]);
    if let Some(v) = tensors.get("v") {
        results.insert("vjp", operator.vjp(x, v)?);
        if let Some(linear) = operator.as_linear() {
            results.insert("adjoint", linear.adjoint(v)?);
        }
        if let Some(spectral) = operator.as_linear().and_then(LinearOperator::as_spectral) {
            results.insert("pseudo_inverse", spectral.pseudo_inverse(v)?);
        }
    }
    Ok(safetensors::save(&results, output)?)
}
