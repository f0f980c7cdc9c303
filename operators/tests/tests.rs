//! One binary for all integration tests of the crate.

/// Blurs and their kernels.
mod blur;
/// Tasks written down in TOML.
mod description;
/// Numbers of other programs.
mod goldens;
/// Numbers of other programs, for resizing and striding.
mod goldens_resize;
/// Laws of every entry of the lists.
mod laws;
/// Likelihood, proximal map and conjugate gradients.
mod measurement;
/// Noise models and the estimate of a photo's noise.
mod noise;
/// Compositions, and operators of a user: matrices and programs.
mod own;
/// Masks, colour, and operators that act on values one by one or on blocks.
mod pointwise;
/// Transposed Jacobians.
mod pullback;
/// Names and configuration.
mod registry;
/// Resizing and striding.
mod resize;
/// Random numbers.
mod rng;
/// Linear systems, norms and the check of an operator.
mod solve;

use std::path::Path;
/// Fourier, Walsh and Radon transforms, magnitudes, dense matrices.
mod transforms;

use candle_core::{DType, Device, Tensor};
use tweedie_operators::{Rng, Site};

/// Even, odd and non-square images.
const SIZES: [(usize, usize); 3] = [(8, 8), (7, 7), (6, 11)];

/// With a folder that holds `mask.png` and `hints.png` of this size, for the examples that name them, if it is in `SIZES`.
fn site(image: (usize, usize, usize), dtype: DType) -> Site<'static> {
    let folder = match (image.1, image.2) {
        (8, 8) => concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/8x8"),
        (7, 7) => concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/7x7"),
        (6, 11) => concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/11x6"),
        _ => "",
    };
    Site { folder: Path::new(folder), ..Site::new(image, &Device::Cpu, dtype) }
}

/// Normal numbers, different for every `label`.
fn random(shape: &[usize], label: u64, dtype: DType) -> Tensor {
    let like = Tensor::zeros(shape, dtype, &Device::Cpu).unwrap();
    Rng::new(label, 0..shape[0] as u64).normal_like(&like).unwrap()
}

fn values(x: &Tensor) -> Vec<f64> {
    x.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

fn inner(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    values(a).iter().zip(values(b)).map(|(a, b)| a * b).sum()
}

fn norm(a: &Tensor) -> f64 {
    inner(a, a).sqrt()
}

/// `‖a − b‖ / ‖b‖`.
fn relative_error(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let difference: f64 = values(a).iter().zip(values(b)).map(|(a, b)| (a - b).powi(2)).sum();
    difference.sqrt() / norm(b)
}
