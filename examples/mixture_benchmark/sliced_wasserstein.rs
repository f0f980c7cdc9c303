//! A distance between two sets of points in many dimensions.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use tweedie_operators::Rng;

/// `√E_u[W₂²(⟨u, a⟩, ⟨u, b⟩)]` over `slices` random directions `u` of length 1; on a line W₂ pairs sorted points.
///
/// # Shapes
/// `a` and `b`: `[N, ..]`, as many points of as many numbers.
///
/// Bonneel et al. (2015), <https://doi.org/10.1007/s10851-014-0506-3>
pub(crate) fn sliced_wasserstein(a: &Tensor, b: &Tensor, slices: usize, seed: u64) -> candle_core::Result<f64> {
    let points = |x: &Tensor| x.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_from(1);
    let (a, b) = (points(a)?, points(b)?);
    if a.dims() != b.dims() {
        candle_core::bail!("points of shape {:?} and {:?}, expected as many of the same size", a.dims(), b.dims());
    }
    let size = a.dim(1)?;
    let directions = Rng::new(seed, 0..1).normal((1, 1, slices, size), &Device::Cpu);
    let directions = directions.map_err(candle_core::Error::wrap)?.reshape((slices, size))?.to_dtype(DType::F64)?;
    let directions = directions.broadcast_div(&directions.sqr()?.sum_keepdim(1)?.sqrt()?)?;
    let along = |x: &Tensor| directions.matmul(&x.t()?)?.to_vec2::<f64>();
    let (a, b) = (along(&a)?, along(&b)?);
    let squares: f64 = a.into_par_iter().zip(b).map(|(a, b)| squared_distance(a, b)).sum();
    Ok((squares / slices as f64).sqrt())
}

/// `W₂²` of two sets of as many points on a line.
fn squared_distance(mut a: Vec<f64>, mut b: Vec<f64>) -> f64 {
    a.sort_by(f64::total_cmp);
    b.sort_by(f64::total_cmp);
    a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / a.len() as f64
}
