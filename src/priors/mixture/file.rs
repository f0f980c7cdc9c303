//! Mixtures in files.

use super::Mixture;
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use std::collections::HashMap;
use std::path::Path;

impl Mixture {
    /// Reads a safetensors file with `weights` `[K]`, `means` `[K, C, H, W]` and either `variances` `[K]`, of components whose
    /// covariance is a multiple of the identity, or `covariances` `[K, D, D]` with D = C · H · W; f32 or f64.
    ///
    /// # Errors
    /// `Model` with the path and what is wrong.
    pub fn read(path: &Path) -> Result<Self> {
        let model = path.to_string_lossy().into_owned();
        let bytes = std::fs::read(path).map_err(|error| {
            let missing = error.kind() == std::io::ErrorKind::NotFound;
            let reason = if missing { "no such file".into() } else { format!("cannot be read: {error}") };
            Error::Model { model: model.clone(), reason }
        })?;
        Self::from_safetensors(&bytes, &model)
    }

    /// The same from memory; `model` is what messages call it.
    ///
    /// # Errors
    /// `Model` with what is wrong.
    pub fn from_safetensors(bytes: &[u8], model: &str) -> Result<Self> {
        let refuse = |reason: String| Error::Model { model: model.into(), reason };
        let tensors = candle_core::safetensors::load_buffer(bytes, &Device::Cpu)
            .map_err(|error| refuse(format!("is not a whole safetensors file ({error})")))?;
        Self::of_tensors(&tensors).map_err(|error| match error {
            Error::Model { reason, .. } => refuse(reason),
            other => refuse(other.to_string()),
        })
    }

    fn of_tensors(tensors: &HashMap<String, Tensor>) -> Result<Self> {
        let refuse = |reason: String| Error::Model { model: String::new(), reason };
        let mut names: Vec<&str> = tensors.keys().map(String::as_str).collect();
        names.sort_unstable();
        let spread = match names[..] {
            ["means", "variances", "weights"] => "variances",
            ["covariances", "means", "weights"] => "covariances",
            _ => {
                let expected = "expected `weights`, `means`, and `variances` or `covariances`";
                return Err(refuse(format!("has the tensors {}; {expected}", names.join(", "))));
            }
        };
        let numbers = |name: &str| -> Result<Vec<f64>> {
            let tensor = &tensors[name];
            match tensor.rank() {
                1 => super::doubles(tensor),
                _ => Err(refuse(format!("tensor {name} has shape {:?}, expected [K]", tensor.dims()))),
            }
        };
        let (weights, means) = (numbers("weights")?, &tensors["means"]);
        match spread {
            "variances" => Self::isotropic(&weights, means, &numbers("variances")?),
            _ => Self::new(&weights, means, &tensors["covariances"]),
        }
    }
}
