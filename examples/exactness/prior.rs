//! A Gaussian of images whose covariance no operator shares its axes with.

use candle_core::{DType, Device, Tensor};
use faer::{Mat, Side};
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Mutex;
use tweedie::Result;
use tweedie::priors::Denoiser;
use tweedie_operators::Pullback;

/// How far pixels go together, in pixels.
const LENGTH: f64 = 2.0;

/// Correlation of two channels, by how far they are apart in the list.
const CHANNELS: [f64; 3] = [1.0, 0.7, 0.5];

/// Mean `[C, H, W]` and covariance `[D, D]` in `f64`: `s_i s_j ρ(c_i − c_j) exp(−|p_i − p_j|/2)` for the pixels at `p`, with
/// standard deviations s of about 0.4 that differ from pixel to pixel.
pub(super) fn moments((channels, height, width): (usize, usize, usize)) -> Result<(Tensor, Tensor)> {
    let size = channels * height * width;
    let place = |i: usize| (i / (height * width), (i / width % height) as f64, (i % width) as f64);
    let std = |i: usize| 0.4 * (1.0 + 0.2 * (1.7 * i as f64).cos());
    let covariance = |at: usize| {
        let (i, j) = (at / size, at % size);
        let ((c, y, x), (d, v, u)) = (place(i), place(j));
        std(i) * std(j) * CHANNELS[c.abs_diff(d)] * (-(y - v).hypot(x - u) / LENGTH).exp()
    };
    let mean = |i: usize| 0.3 * (0.9 * i as f64).sin();
    let covariance =
        Tensor::from_vec((0..size * size).map(covariance).collect::<Vec<f64>>(), (size, size), &Device::Cpu)?;
    Ok((
        Tensor::from_vec((0..size).map(mean).collect::<Vec<f64>>(), (channels, height, width), &Device::Cpu)?,
        covariance,
    ))
}

/// Eigenvalues and eigenvectors, as columns, of a symmetric matrix `[D, D]`.
pub(super) fn eigen(matrix: &Tensor) -> Result<(Vec<f64>, Tensor)> {
    let size = matrix.dim(0)?;
    let values = matrix.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let matrix = Mat::from_fn(size, size, |i, j| 0.5 * (values[i * size + j] + values[j * size + i]));
    let eigen = matrix.self_adjoint_eigen(Side::Lower).expect("finite entries");
    let vectors: Vec<f64> = (0..size * size).map(|at| eigen.U()[(at / size, at % size)]).collect();
    Ok(((0..size).map(|i| eigen.S()[i]).collect(), Tensor::from_vec(vectors, (size, size), &Device::Cpu)?))
}

/// The same Gaussian as [`Mixture::gaussian`](tweedie::priors::Mixture::gaussian) with one product of matrices for a whole
/// batch: many times as fast, and the bits of a row depend on how many there are, which nothing here looks at.
#[derive(Debug)]
pub(super) struct Batched {
    /// `[1, C, H, W]`.
    mean: Tensor,
    variances: Vec<f64>,
    /// `[D, D]`, columns.
    axes: Tensor,
    range: RangeInclusive<f64>,
    /// `C (C + σ²)⁻¹` of the latest σ, by their bits.
    shrinks: Mutex<HashMap<u64, Tensor>>,
}

/// Matrices to keep, some 300 kB each.
const KEPT: usize = 400;

impl Batched {
    /// `range`: the noise levels to be good for.
    pub(super) fn new(mean: &Tensor, covariance: &Tensor, range: RangeInclusive<f64>) -> Result<Self> {
        let (variances, axes) = eigen(covariance)?;
        Ok(Self { mean: mean.unsqueeze(0)?, variances, axes, range, shrinks: Mutex::default() })
    }

    /// `C (C + σ²)⁻¹`, which is symmetric.
    fn shrink(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        let kept = || self.shrinks.lock().expect("no thread panics with it");
        if let Some(shrink) = kept().get(&sigma.to_bits()) {
            return Ok(shrink.to_dtype(x.dtype())?);
        }
        let shrink: Vec<f64> = self.variances.iter().map(|variance| variance / (variance + sigma * sigma)).collect();
        let shrink = Tensor::from_vec(shrink, (1, self.variances.len()), &Device::Cpu)?;
        let shrink = self.axes.broadcast_mul(&shrink)?.matmul(&self.axes.t()?)?;
        let mut kept = kept();
        if kept.len() == KEPT {
            kept.clear();
        }
        kept.insert(sigma.to_bits(), shrink.clone());
        Ok(shrink.to_dtype(x.dtype())?)
    }
}

fn times(x: &Tensor, matrix: &Tensor) -> candle_core::Result<Tensor> {
    x.flatten_from(1)?.contiguous()?.matmul(matrix)?.reshape(x.shape())
}

/// `D(x; σ) = m + C (C + σ²)⁻¹ (x − m)`
impl Denoiser for Batched {
    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        Ok(self.denoise_with_pullback(x, sigma)?.0)
    }

    fn denoise_with_pullback<'a>(&'a self, x: &Tensor, sigma: f64) -> Result<(Tensor, Pullback<'a>)> {
        let (mean, shrink) = (self.mean.to_dtype(x.dtype())?, self.shrink(x, sigma)?);
        let denoised = times(&x.broadcast_sub(&mean)?, &shrink)?.broadcast_add(&mean)?;
        Ok((denoised, Pullback::new(move |v| Ok(times(v, &shrink)?))))
    }

    fn channels(&self) -> Option<usize> {
        Some(self.mean.dims()[1])
    }

    fn sigma_range(&self) -> RangeInclusive<f64> {
        self.range.clone()
    }
}
