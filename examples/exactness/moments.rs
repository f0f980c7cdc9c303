//! Mean and covariance of samples, in the units of an exact posterior.

use super::prior::eigen;
use candle_core::{D, DType, Tensor};
use tweedie::Result;
use tweedie::priors::Mixture;

/// Variances below this part of the largest are zero: directions that a measurement without noise has settled.
const SETTLED: f64 = 1e-8;

/// The exact posterior, ready to whiten samples with.
pub(super) struct Whitening {
    /// `[1, D]`.
    mean: Tensor,
    /// Eigenvectors over standard deviations, `[D, r]`, variances ascending.
    directions: Tensor,
    /// Variances that are not zero, ascending.
    variances: Vec<f64>,
}

/// How samples differ from draws of the posterior, whose values are in brackets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deviation {
    /// Root mean square over directions of the error of the mean, in standard deviations (1/√n).
    pub(super) mean: f64,
    /// Mean over directions of the variance (1).
    pub(super) variance: f64,
    /// Variance along the directions of largest, median and smallest variance (1 each).
    pub(super) along: [f64; 3],
}

impl Whitening {
    /// `posterior`: one Gaussian.
    pub(super) fn new(posterior: &Mixture) -> Result<Self> {
        let (variances, axes) = eigen(&posterior.covariances()?.get(0)?)?;
        let largest = variances.iter().copied().fold(0.0, f64::max);
        // They ascend.
        let settled = variances.iter().filter(|&&variance| variance <= SETTLED * largest.max(1e-6)).count();
        let left = variances.len() - settled;
        let scale: Vec<f64> = variances[settled..].iter().map(|variance| variance.sqrt().recip()).collect();
        let directions = match left {
            0 => axes.narrow(1, 0, 0)?,
            _ => axes.narrow(1, settled, left)?.broadcast_mul(&Tensor::from_vec(scale, (1, left), axes.device())?)?,
        };
        Ok(Self { mean: posterior.means()?.flatten_from(1)?, directions, variances: variances[settled..].to_vec() })
    }

    /// In how many directions the posterior has any variance.
    pub(super) fn rank(&self) -> usize {
        self.directions.dims()[1]
    }

    /// What is to be expected of ancestral steps along `sigmas` from noise around zero, if each has the exact mean of the
    /// posterior: what the number of steps alone costs. `None` where nothing has any variance.
    ///
    /// Along a direction of variance λ a step is `x' = m + (s + k (1 − s))(x − m) + √v n`, `s = λ/(λ+σ²)`, `k = (σ'/σ)²`,
    /// `v = σ'² (1 − k)`.
    pub(super) fn of_steps(&self, sigmas: &[f64]) -> Result<Option<Deviation>> {
        if self.rank() == 0 {
            return Ok(None);
        }
        let means = self.mean.matmul(&self.directions)?.flatten_all()?.to_vec1::<f64>()?;
        let run = |(&variance, mean): (&f64, f64)| {
            let start = (-mean, sigmas[0] * sigmas[0] / variance);
            sigmas.windows(2).fold(start, |(mean, spread), levels| {
                let (from, to) = (levels[0] * levels[0], levels[1] * levels[1]);
                let (shrink, kept) = (variance / (variance + from), to / from);
                let factor = shrink + kept * (1.0 - shrink);
                (factor * mean, factor * factor * spread + to * (1.0 - kept) / variance)
            })
        };
        let results: Vec<(f64, f64)> = self.variances.iter().zip(means).map(run).collect();
        let count = results.len();
        Ok(Some(Deviation {
            mean: (results.iter().map(|(mean, _)| mean * mean).sum::<f64>() / count as f64).sqrt(),
            variance: results.iter().map(|(_, variance)| variance).sum::<f64>() / count as f64,
            along: [results[count - 1].1, results[count / 2].1, results[0].1],
        }))
    }

    /// `None` where nothing has any variance.
    ///
    /// # Shapes
    /// `samples`: `[N, C, H, W]`.
    pub(super) fn deviation(&self, samples: &Tensor) -> Result<Option<Deviation>> {
        if self.rank() == 0 {
            return Ok(None);
        }
        let count = samples.dim(0)? as f64;
        let white =
            samples.to_dtype(DType::F64)?.flatten_from(1)?.broadcast_sub(&self.mean)?.matmul(&self.directions)?;
        let mean = white.mean_keepdim(0)?;
        let variances = (white.broadcast_sub(&mean)?.sqr()?.sum(0)? / (count - 1.0))?;
        let along: Vec<f64> = variances.to_vec1()?;
        let last = along.len() - 1;
        Ok(Some(Deviation {
            mean: mean.sqr()?.mean(D::Minus1)?.to_vec1::<f64>()?[0].sqrt(),
            variance: variances.mean(0)?.to_scalar()?,
            along: [along[last], along[along.len() / 2], along[0]],
        }))
    }
}
