//! The probability flow of standardised images.

use super::Stage;
use super::trace::Probes;
use crate::Result;
use crate::priors::Denoiser;
use candle_core::{DType, Device, Tensor};
use std::f64::consts::TAU;
use std::fmt;
use std::ops::RangeInclusive;

/// `du/d ln σ` and the divergences beside it.
pub(super) struct Flow<'a> {
    prior: &'a dyn Denoiser,
    /// `[R, C, H, W]`, R the rows of the probes.
    like: Tensor,
    mean: Vec<f64>,
    spread: f64,
    probes: Probes,
    evaluations: usize,
    pullbacks: usize,
    observer: &'a mut dyn FnMut(&Stage) -> Result<()>,
}

impl<'a> Flow<'a> {
    /// The flow of images like `x`, `[1, C, H, W]`; one evaluation for their mean.
    pub(super) fn new(
        prior: &'a dyn Denoiser,
        x: &Tensor,
        probes: Probes,
        range: &RangeInclusive<f64>,
        observer: &'a mut dyn FnMut(&Stage) -> Result<()>,
    ) -> Result<Self> {
        let (spread, sigma) = (prior.spread(), *range.end());
        let mean = prior.denoise(&x.zeros_like()?, sigma)?;
        crate::solvers::check_finite(&mean, 0, sigma)?;
        // A Gaussian says `D(0) = m σ²/(σ² + s²)`.
        let factor = 1.0 + (spread / sigma).powi(2);
        let mean = doubles(&mean)?.into_iter().map(|mean| mean * factor).collect();
        let like = Tensor::cat(&vec![x; probes.rows()], 0)?;
        let mut flow = Self { prior, like, mean, spread, probes, evaluations: 0, pullbacks: 0, observer };
        flow.evaluated(sigma, 0.0)?;
        Ok(flow)
    }

    /// `√(σ² + s²)`
    fn scale(&self, sigma: f64) -> f64 {
        sigma.hypot(self.spread)
    }

    /// The standardised image of `x`.
    pub(super) fn standardised(&self, x: &Tensor, sigma: f64) -> Result<Vec<f64>> {
        let scale = self.scale(sigma);
        Ok(doubles(x)?.iter().zip(&self.mean).map(|(x, mean)| (x - mean) / scale).collect())
    }

    /// Estimates of the divergence.
    pub(super) fn estimates(&self) -> usize {
        self.probes.estimates()
    }

    /// The slope of the standardised image `u`, followed by that of the integral of every estimate of the divergence, over
    /// the number of pixels; `done` of the path lies behind.
    pub(super) fn slope(&mut self, u: &[f64], sigma: f64, done: f64) -> Result<Vec<f64>> {
        let scale = self.scale(sigma);
        let c = (self.spread / scale).powi(2);
        let x: Vec<f64> = u.iter().zip(&self.mean).map(|(u, mean)| mean + scale * u).collect();
        let dims = &self.like.dims()[1..];
        let row = Tensor::from_vec(x, (1, dims[0], dims[1], dims[2]), &Device::Cpu)?.to_dtype(self.like.dtype())?;
        let rows = row.to_device(self.like.device())?.broadcast_as(self.like.shape())?.contiguous()?;
        let (denoised, pullback) = self.prior.denoise_with_pullback(&rows, sigma)?;
        let denoised = doubles(&denoised.narrow(0, 0, 1)?)?;
        let each = u.iter().zip(&self.mean).zip(denoised);
        let mut slope: Vec<f64> = each.map(|((u, mean), x0)| c * u + (mean - x0) / scale).collect();
        slope.extend(self.probes.traces(&pullback, c)?);
        self.pullbacks += self.probes.pullbacks();
        self.evaluated(sigma, done)?;
        Ok(slope)
    }

    fn evaluated(&mut self, sigma: f64, done: f64) -> Result<()> {
        self.evaluations += 1;
        (self.observer)(&Stage { row: 0, sigma, done, evaluations: self.evaluations })
    }

    pub(super) fn evaluations(&self) -> usize {
        self.evaluations
    }

    pub(super) fn pullbacks(&self) -> usize {
        self.pullbacks
    }

    /// `log N(u; 0, I)`: of standardised images at σ_max.
    pub(super) fn log_density_of_noise(&self, u: &[f64]) -> f64 {
        -0.5 * (u.iter().map(|u| u * u).sum::<f64>() + u.len() as f64 * TAU.ln())
    }

    /// The logarithm of the volume that a standardised image's unit stands for.
    pub(super) fn log_volume(&self, sigma: f64) -> f64 {
        self.mean.len() as f64 * self.scale(sigma).ln()
    }
}

impl fmt::Debug for Flow<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Flow");
        debug.field("prior", &self.prior).field("evaluations", &self.evaluations).finish_non_exhaustive()
    }
}

/// All values in double precision.
fn doubles(x: &Tensor) -> Result<Vec<f64>> {
    Ok(x.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}
