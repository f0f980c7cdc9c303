//! Bayes' rule.

use super::{Component, Mixture, RANK_TOLERANCE, doubles, refuse, row_space, self_adjoint_eigen};
use crate::Result;
use candle_core::{DType, Device, Tensor};
use faer::Mat;
use std::f64::consts::TAU;
use tweedie_operators::LinearOperator;

/// Eigenvalues of the covariance of a measurement without noise below this, relative to the largest there can be, are zero.
const DEGENERATE: f64 = 1e-11;

/// How far, relative to its size, a measurement may be from the only value it can have.
const IMPOSSIBLE: f64 = 1e-6;

impl Mixture {
    /// The posterior `p(x₀ | y)` of `y = A x₀ + σ_y n`, again a mixture:
    /// `m' = m + G (y − A m)`, `C' = (I − G A) C (I − G A)ᵀ + σ_y² G Gᵀ`, `G = C Aᵀ (A C Aᵀ + σ_y² I)⁻¹`,
    /// `w' ∝ w N(y; A m, A C Aᵀ + σ_y² I)`.
    ///
    /// With σ_y = 0 what the prior already knows adds nothing, and a component that cannot have made `y` gets no weight; the
    /// part of `y` that no image at all explains is left out.
    ///
    /// # Shapes
    /// `y`: one row, `[1, ..]`; `sigma_y ≥ 0` in its unit.
    /// # Errors
    /// `Config` for σ_y below 0, for more rows than one, and for a measurement without noise that no component can have made.
    pub fn posterior(&self, operator: &dyn LinearOperator, sigma_y: f64, y: &Tensor) -> Result<Self> {
        if !(sigma_y >= 0.0 && sigma_y.is_finite()) {
            return refuse("noise of the posterior", sigma_y, "a finite number of at least 0");
        }
        if y.rank() == 0 || y.dim(0)? != 1 {
            return refuse("measurement for the posterior", format!("{:?}", y.dims()), "one row, [1, ..]");
        }
        let seen = Seen::new(self, operator, y)?;
        let (basis, directions) = self.extended(&seen.directions)?;
        let size = basis.as_ref().map_or(self.center.len(), Mat::nrows);
        let mut updates = Vec::with_capacity(self.components.len());
        for component in &self.components {
            if let Some(update) = seen.update(component, &directions, size, sigma_y)? {
                updates.push(update);
            }
        }
        // A density in fewer dimensions is infinitely larger than one in more.
        let Some(least) = updates.iter().map(|(_, rank)| *rank).min() else {
            return refuse("measurement", "one that no component can have made", "A x of an image that has a density");
        };
        updates.retain(|(_, rank)| *rank == least);
        let components = updates.into_iter().map(|(component, _)| component).collect();
        Self::assemble(self.shape, self.center.clone(), basis, components)
    }

    /// The subspace with the rows of `rows` in it, and their coordinates there.
    fn extended(&self, rows: &Mat<f64>) -> Result<(Option<Mat<f64>>, Mat<f64>)> {
        let Some(basis) = &self.basis else { return Ok((None, rows.clone())) };
        let outside = |rows: &Mat<f64>| rows - rows * basis.transpose() * basis;
        let left = outside(rows);
        let new = if left.norm_max() > RANK_TOLERANCE { row_space(&left)? } else { Mat::zeros(0, rows.ncols()) };
        // What is left of nearly nothing points anywhere: a second pass makes it orthogonal again.
        let new = if new.nrows() > 0 { row_space(&outside(&new))? } else { new };
        let old = basis.nrows();
        let both = Mat::from_fn(old + new.nrows(), rows.ncols(), |i, j| match i.checked_sub(old) {
            Some(i) => new[(i, j)],
            None => basis[(i, j)],
        });
        let coordinates = rows * both.transpose();
        Ok((Some(both), coordinates))
    }
}

/// A measurement in coordinates in which the operator is `diag(s)`.
struct Seen {
    /// Orthonormal rows: what is seen of an image.
    directions: Mat<f64>,
    /// Singular values.
    gains: Vec<f64>,
    /// `Uᵀ y − s Vᵀ c`, without the centre of the mixture.
    values: Vec<f64>,
    /// Size of the measurement.
    norm: f64,
}

impl Seen {
    fn new(mixture: &Mixture, operator: &dyn LinearOperator, y: &Tensor) -> Result<Self> {
        let (count, size) = (y.elem_count(), mixture.center.len());
        let mut dims = y.dims().to_vec();
        dims[0] = count;
        let units = Tensor::eye(count, DType::F64, &Device::Cpu)?.reshape(dims)?;
        let rows = operator.adjoint(&units)?;
        let (channels, height, width) = mixture.shape;
        if rows.dims() != [count, channels, height, width] {
            let expected = format!("images of {:?}, as those of the mixture", mixture.shape);
            return refuse("operator for the posterior", format!("one for {:?}", &rows.dims()[1..]), &expected);
        }
        let rows = doubles(&rows)?;
        let matrix = Mat::from_fn(count, size, |i, j| rows[i * size + j]);
        let Ok(svd) = matrix.thin_svd() else {
            return refuse("operator for the posterior", "one without a decomposition", "finite entries");
        };
        let gains: Vec<f64> = (0..count.min(size)).map(|i| svd.S()[i]).collect();
        let largest = gains.iter().copied().fold(0.0, f64::max);
        let gains: Vec<f64> = gains.into_iter().filter(|&gain| gain > RANK_TOLERANCE * largest).collect();
        let directions = Mat::from_fn(gains.len(), size, |i, j| svd.V()[(j, i)]);
        let y = doubles(y)?;
        let value = |i: usize| -> f64 {
            let measured: f64 = (0..count).map(|j| svd.U()[(j, i)] * y[j]).sum();
            let center: f64 = (0..size).map(|j| directions[(i, j)] * mixture.center[j]).sum();
            measured - gains[i] * center
        };
        let values: Vec<f64> = (0..gains.len()).map(value).collect();
        let norm = y.iter().map(|y| y * y).sum::<f64>().sqrt();
        Ok(Self { directions, gains, values, norm })
    }

    /// The component given the measurement, in the larger subspace of `size` dimensions in which `directions` are the
    /// coordinates of what is seen, and in how many dimensions the measurement has a density; `None` if it cannot have made
    /// the measurement.
    fn update(
        &self,
        component: &Component,
        directions: &Mat<f64>,
        size: usize,
        sigma_y: f64,
    ) -> Result<Option<(Component, usize)>> {
        let old = component.mean.len();
        let inside = component.covariance();
        let covariance = Mat::from_fn(size, size, |i, j| match (i < old, j < old) {
            (true, true) => inside[(i, j)],
            (false, false) if i == j => component.rest,
            _ => 0.0,
        });
        let operator = Mat::from_fn(self.gains.len(), size, |i, j| self.gains[i] * directions[(i, j)]);
        let mean: Vec<f64> = component.mean.iter().copied().chain(vec![0.0; size - old]).collect();
        let expected = |i: usize| (0..size).map(|j| operator[(i, j)] * mean[j]).sum::<f64>();
        let misfit: Vec<f64> = (0..self.gains.len()).map(|i| self.values[i] - expected(i)).collect();
        let crossed = &covariance * operator.transpose();
        let noise = sigma_y * sigma_y;
        let seen = &operator * &crossed;
        let seen = Mat::from_fn(self.gains.len(), self.gains.len(), |i, j| {
            0.5 * (seen[(i, j)] + seen[(j, i)]) + if i == j { noise } else { 0.0 }
        });
        let (values, vectors) = self_adjoint_eigen(&seen)?;
        // What could be seen of the component at most: where it is flat, all the eigenvalues are rounding.
        let widest = component.variances.iter().copied().fold(component.rest, f64::max);
        let largest = widest * self.gains.iter().map(|gain| gain * gain).fold(0.0, f64::max);
        let mut inverse = vec![0.0; values.len()];
        let mut twice = 0.0;
        for (k, &value) in values.iter().enumerate() {
            let along: f64 = misfit.iter().enumerate().map(|(i, misfit)| vectors[(i, k)] * misfit).sum();
            if noise > 0.0 || value > DEGENERATE * largest {
                twice += along * along / value + (TAU * value).ln();
                inverse[k] = 1.0 / value;
                continue;
            }
            let length = misfit.iter().map(|misfit| misfit * misfit).sum::<f64>().sqrt();
            if along.abs() > IMPOSSIBLE * (self.norm + length) {
                return Ok(None);
            }
        }
        let rank = inverse.iter().filter(|inverse| **inverse > 0.0).count();
        let scaled = Mat::from_fn(values.len(), values.len(), |i, k| vectors[(i, k)] * inverse[k]);
        let gain = &crossed * (scaled * vectors.transpose());
        let kept = Mat::from_fn(size, size, |i, j| if i == j { 1.0 } else { 0.0 }) - &gain * &operator;
        // Joseph's form stays positive, whatever is rounded.
        let updated = &kept * &covariance * kept.transpose() + &gain * gain.transpose() * faer::Scale(noise);
        let updated = Mat::from_fn(size, size, |i, j| 0.5 * (updated[(i, j)] + updated[(j, i)]));
        let (variances, axes) = self_adjoint_eigen(&updated)?;
        let shift = |i: usize| (0..misfit.len()).map(|j| gain[(i, j)] * misfit[j]).sum::<f64>();
        let component = Component {
            log_weight: component.log_weight - 0.5 * twice,
            mean: (0..size).map(|i| mean[i] + shift(i)).collect(),
            variances: variances.into_iter().map(|variance| variance.max(0.0)).collect(),
            axes: Some(axes),
            rest: component.rest,
        };
        Ok(Some((component, rank)))
    }
}
