//! Densities of independent samples, by plain loops as one candle operation whose derivative is the score.

use std::fmt::Debug;

use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Shape, Tensor};
use rayon::prelude::*;

use crate::{Error, Result};

/// `p(y | z) = ∏ᵢ p(yᵢ | zᵢ)`, with one function of two numbers for all samples, in f64 whatever the tensors hold.
pub(super) trait SampleDensity: Copy + Debug + Send + Sync + 'static {
    /// `log p(y | z)` in nats, up to a term free of `z`.
    fn log_density(&self, z: f64, y: f64) -> f64;

    /// `d/dz log p(y | z)`.
    fn derivative(&self, z: f64, y: f64) -> f64;
}

/// Samples that one thread adds up; fixed, so that the order of a sum does not depend on the threads.
const CHUNK: usize = 1 << 12;

/// `log p(y | z)` of each row, differentiable by `z` (once).
///
/// # Shapes
/// `z` and `y`: `[B, ..]`, the same shape; returns `[B]`.
///
/// # Errors
/// [`Error::Shape`] if the shapes differ.
pub(super) fn log_likelihood(density: impl SampleDensity, z: &Tensor, y: &Tensor) -> Result<Tensor> {
    check_pair(z, y)?;
    let operation = LogLikelihood { density, y: y.detach() };
    let there = z.to_device(&Device::Cpu)?.contiguous()?.apply_op1(operation)?;
    Ok(there.to_device(z.device())?)
}

/// `∇_z log p(y | z)`.
///
/// # Shapes
/// `z` and `y`: the same shape, as has the result.
///
/// # Errors
/// [`Error::Shape`] if the shapes differ.
pub(super) fn score(density: impl SampleDensity, z: &Tensor, y: &Tensor) -> Result<Tensor> {
    check_pair(z, y)?;
    let (z_values, y_values) = (host(z)?, host(y)?);
    let mut scores = vec![0.0; z_values.len()];
    scores.par_chunks_mut(CHUNK).zip(z_values.par_chunks(CHUNK).zip(y_values.par_chunks(CHUNK))).for_each(
        |(scores, (z, y))| {
            for (score, (&z, &y)) in scores.iter_mut().zip(z.iter().zip(y)) {
                *score = density.derivative(z, y);
            }
        },
    );
    Ok(Tensor::from_vec(scores, z.shape(), &Device::Cpu)?.to_dtype(z.dtype())?.to_device(z.device())?)
}

/// `log N(d; 0, v)`, up to a constant.
pub(super) fn log_normal(d: f64, v: f64) -> f64 {
    -0.5 * (d * d / v + libm::log(v))
}

/// `d/dz log N(y − z; 0, v(z))` given `d = y − z`, `v` and `dv/dz`.
pub(super) fn log_normal_derivative(d: f64, (v, slope): (f64, f64)) -> f64 {
    d / v + 0.5 * slope * (d * d / v - 1.0) / v
}

fn check_pair(z: &Tensor, y: &Tensor) -> Result<()> {
    if z.rank() > 0 && z.dims() == y.dims() {
        return Ok(());
    }
    Err(Error::Shape { what: "measurement".into(), got: y.dims().to_vec(), expected: format!("{:?}", z.dims()) })
}

fn host(x: &Tensor) -> candle_core::Result<Vec<f64>> {
    x.flatten_all()?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1()
}

struct LogLikelihood<D> {
    density: D,
    y: Tensor,
}

impl<D: SampleDensity> LogLikelihood<D> {
    fn rows(&self, z: &[f64], rows: usize) -> candle_core::Result<Vec<f64>> {
        let y = host(&self.y)?;
        let size = (z.len() / rows.max(1)).max(1);
        let sum =
            |(z, y): (&[f64], &[f64])| -> f64 { z.iter().zip(y).map(|(&z, &y)| self.density.log_density(z, y)).sum() };
        let mut likelihoods: Vec<f64> = (z.par_chunks(size).zip(y.par_chunks(size)))
            .map(|(z, y)| {
                let parts: Vec<f64> = z.par_chunks(CHUNK).zip(y.par_chunks(CHUNK)).map(sum).collect();
                parts.iter().sum()
            })
            .collect();
        // A row without samples.
        likelihoods.resize(rows, 0.0);
        Ok(likelihoods)
    }
}

impl<D: SampleDensity> CustomOp1 for LogLikelihood<D> {
    fn name(&self) -> &'static str {
        "log_likelihood"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            return Err(candle_core::Error::RequiresContiguous { op: self.name() }.bt());
        };
        let rows = layout.dims()[0];
        let result = match storage {
            CpuStorage::F32(z) => {
                let z: Vec<f64> = z[start..end].iter().copied().map(f64::from).collect();
                CpuStorage::F32(self.rows(&z, rows)?.into_iter().map(|sum| sum as f32).collect())
            }
            CpuStorage::F64(z) => CpuStorage::F64(self.rows(&z[start..end], rows)?),
            other => {
                use candle_core::backend::BackendStorage;
                return Err(candle_core::Error::UnsupportedDTypeForOp(other.dtype(), self.name()).bt());
            }
        };
        Ok((result, Shape::from(rows)))
    }

    fn bwd(&self, z: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let score = score(self.density, &z.detach(), &self.y).map_err(candle_core::Error::wrap)?;
        let mut shape = vec![1; z.rank()];
        shape[0] = z.dims()[0];
        Ok(Some(score.broadcast_mul(&gradient.reshape(shape)?)?))
    }
}
