//! Density, denoiser and its derivative.

use super::{Mixture, Parameters};
use crate::priors::Denoiser;
use crate::{Error, Result};
use candle_core::{D, Tensor};
use std::f64::consts::TAU;
use std::ops::RangeInclusive;
use tweedie_operators::Pullback;

/// `D(x; σ) = Σ_k r_k (m_k + S_k (x − m_k))`, `S_k = C_k (C_k + σ²)⁻¹`, with the responsibilities
/// `r_k ∝ w_k N(x; m_k, C_k + σ² I)`; the pullback is `J = Cov[x₀ | x] / σ²`, which is symmetric.
impl Denoiser for Mixture {
    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        Ok(self.expect(x, sigma)?.denoised.reshape(x.shape())?)
    }

    fn channels(&self) -> Option<usize> {
        Some(self.shape.0)
    }

    /// Up to ten times the radius of the mixture, or 80: the noise to start from must hide where its modes are.
    fn sigma_range(&self) -> RangeInclusive<f64> {
        0.002..=(10.0 * self.radius()).clamp(80.0, 1e4)
    }

    fn spread(&self) -> f64 {
        self.standard_deviation()
    }

    fn native_size(&self) -> Option<(usize, usize)> {
        Some((self.shape.1, self.shape.2))
    }

    fn denoise_with_pullback<'a>(&'a self, x: &Tensor, sigma: f64) -> Result<(Tensor, Pullback<'a>)> {
        let expectation = self.expect(x, sigma)?;
        let denoised = expectation.denoised.reshape(x.shape())?;
        let shape = x.shape().clone();
        let apply = move |v: &Tensor| {
            let product = expectation.covariance_times(&v.flatten_from(1)?, sigma);
            let product = product.map_err(|error| tweedie_operators::Error::External(Box::new(error)))?;
            Ok(product.reshape(&shape)?)
        };
        Ok((denoised, Pullback::new(apply)))
    }
}

/// What is known of `x₀` given `x`.
struct Expectation {
    parameters: Parameters,
    /// `E[x₀ | x]`, `[B, D]`.
    denoised: Tensor,
    /// Responsibilities `[B, K]`.
    weights: Tensor,
    /// `E[x₀ | x, k]` minus `E[x₀ | x]` in the subspace, `[B, K, p]`.
    apart: Tensor,
    /// The factor of `outside` in the same: `s_k − Σ r s`, `[B, K]`.
    apart_outside: Tensor,
    /// `x` outside of the subspace, `[B, D]`.
    outside: Option<Tensor>,
    /// `λ/(λ + σ²)`, `[1, K, p]`.
    shrink: Tensor,
    /// `Σ r s` of the variance outside, `[B, 1]`.
    shrink_outside: Tensor,
}

impl Mixture {
    /// `log p_σ(x)` in nats, the density of `x₀ + σ n`.
    ///
    /// # Shapes
    /// `x`: `[B, C, H, W]`; returns `[B]`.
    /// # Errors
    /// `Config` where there is no density: σ below 0, or 0 with a variance that is 0.
    pub fn log_density(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        let outside = |component: &super::Component| self.basis.is_some() && component.rest == 0.0;
        let flat = self.components.iter().any(|c| outside(c) || c.variances.contains(&0.0));
        if !(sigma >= 0.0 && sigma.is_finite()) || (sigma == 0.0 && flat) {
            let expected = "a finite number of at least 0, and above 0 if the mixture is flat in some direction";
            return super::refuse("noise level of the density", sigma, expected);
        }
        let parameters = self.parameters.like(x)?;
        let (inside, outside) = around(&parameters, &self.flat(x)?)?;
        let along = along_axes(&parameters, &inside)?;
        let logits = logits(&parameters, &along, outside.as_ref(), self.center.len(), sigma)?;
        let largest = logits.max_keepdim(1)?;
        let sum = logits.broadcast_sub(&largest)?.exp()?.sum(1)?;
        Ok(((sum.log()? + largest.squeeze(1)?)? - 0.5 * self.center.len() as f64 * TAU.ln())?)
    }

    /// `[B, D]`.
    fn flat(&self, x: &Tensor) -> Result<Tensor> {
        let (channels, height, width) = self.shape;
        if x.rank() != 4 || x.dims()[1..] != [channels, height, width] {
            return Err(Error::Operator(tweedie_operators::Error::Shape {
                what: "image for a mixture".into(),
                got: x.dims().to_vec(),
                expected: format!("[_, {channels}, {height}, {width}]"),
            }));
        }
        Ok(x.flatten_from(1)?)
    }

    fn expect(&self, x: &Tensor, sigma: f64) -> Result<Expectation> {
        let parameters = self.parameters.like(x)?;
        let (inside, outside) = around(&parameters, &self.flat(x)?)?;
        let along = along_axes(&parameters, &inside)?;
        let logits = logits(&parameters, &along, outside.as_ref(), self.center.len(), sigma)?;
        let weights = logits.broadcast_sub(&logits.max_keepdim(1)?)?.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(1)?)?;
        let shrink = (&parameters.variances / parameters.variances.affine(1.0, sigma * sigma)?)?;
        let shrink_rest = (&parameters.rest / parameters.rest.affine(1.0, sigma * sigma)?)?;
        let shrunk = off_axes(&parameters, &along.broadcast_mul(&shrink)?)?;
        let estimates = shrunk.broadcast_add(&parameters.means)?;
        let mean = estimates.broadcast_mul(&weights.unsqueeze(2)?)?.sum_keepdim(1)?;
        let shrink_outside = weights.broadcast_mul(&shrink_rest)?.sum_keepdim(1)?;
        let mut denoised = whole(&parameters, &mean.squeeze(1)?)?.broadcast_add(&parameters.center)?;
        if let Some(outside) = &outside {
            denoised = (denoised + outside.broadcast_mul(&shrink_outside)?)?;
        }
        Ok(Expectation {
            denoised,
            apart: estimates.broadcast_sub(&mean)?,
            apart_outside: shrink_rest.broadcast_sub(&shrink_outside)?,
            weights,
            outside,
            shrink,
            shrink_outside,
            parameters,
        })
    }
}

impl Expectation {
    /// `Cov[x₀ | x] v / σ²`: `Σ r_k S_k v` of the components, and their means apart from one another.
    fn covariance_times(&self, v: &Tensor, sigma: f64) -> Result<Tensor> {
        let (coordinates, outside) = split(&self.parameters, v)?;
        let (rows, size) = coordinates.dims2()?;
        let repeated = coordinates.unsqueeze(1)?.broadcast_as((rows, self.weights.dim(1)?, size))?;
        let along = along_axes(&self.parameters, &repeated)?;
        let shrunk = off_axes(&self.parameters, &along.broadcast_mul(&self.shrink)?)?;
        let mut products = self.apart.broadcast_mul(&coordinates.unsqueeze(1)?)?.sum(D::Minus1)?;
        if let (Some(x), Some(v)) = (&self.outside, &outside) {
            products = (products + self.apart_outside.broadcast_mul(&(x * v)?.sum_keepdim(1)?)?)?;
        }
        let pulls = ((products * &self.weights)? / (sigma * sigma))?;
        let inside = shrunk.broadcast_mul(&self.weights.unsqueeze(2)?)?;
        let inside = (inside + self.apart.broadcast_mul(&pulls.unsqueeze(2)?)?)?.sum(1)?;
        let result = whole(&self.parameters, &inside)?;
        Ok(match (&self.outside, &outside) {
            (Some(x), Some(v)) => {
                let pull = (pulls * &self.apart_outside)?.sum_keepdim(1)?;
                ((result + v.broadcast_mul(&self.shrink_outside)?)? + x.broadcast_mul(&pull)?)?
            }
            _ => result,
        })
    }
}

/// Coordinates in the subspace, `[B, p]`, and what is left, `[B, D]`, of `v`, `[B, D]`; nothing is left of everything.
fn split(parameters: &Parameters, v: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
    let Some(basis) = &parameters.basis else { return Ok((v.clone(), None)) };
    let coordinates = times(basis, v)?;
    let outside = (v - times(&basis.t()?, &coordinates)?)?;
    Ok((coordinates, Some(outside)))
}

/// `x`, `[B, D]`, minus each of the means: within the subspace, `[B, K, p]`, and outside of it.
fn around(parameters: &Parameters, x: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
    let (coordinates, outside) = split(parameters, &x.broadcast_sub(&parameters.center)?)?;
    Ok((coordinates.unsqueeze(1)?.broadcast_sub(&parameters.means)?, outside))
}

/// The image with these coordinates, `[B, p]`.
fn whole(parameters: &Parameters, coordinates: &Tensor) -> Result<Tensor> {
    match &parameters.basis {
        Some(basis) => times(&basis.t()?, coordinates),
        None => Ok(coordinates.clone()),
    }
}

/// `Q_kᵀ v_k` of `[B, K, p]`.
fn along_axes(parameters: &Parameters, v: &Tensor) -> Result<Tensor> {
    each(v, &parameters.axes.iter().collect::<Vec<_>>())
}

/// `Q_k v_k` of `[B, K, p]`.
fn off_axes(parameters: &Parameters, v: &Tensor) -> Result<Tensor> {
    let axes = parameters.axes.iter().map(Tensor::t).collect::<Result<Vec<_>, _>>()?;
    each(v, &axes.iter().collect::<Vec<_>>())
}

fn each(v: &Tensor, matrices: &[&Tensor]) -> Result<Tensor> {
    if matrices.is_empty() {
        return Ok(v.clone());
    }
    let products: Result<Vec<Tensor>> =
        matrices.iter().enumerate().map(|(k, matrix)| times(matrix, &v.narrow(1, k, 1)?.squeeze(1)?)).collect();
    Ok(Tensor::stack(&products?, 1)?)
}

/// Matrices of no more entries are not worth a product of their own for every row.
const SMALL: usize = 64;

/// `M v` of every row, `[B, n]`.
///
/// One product of a matrix and a vector each: that of two matrices would add in an order that depends on the number of
/// rows.
fn times(matrix: &Tensor, v: &Tensor) -> Result<Tensor> {
    let (rows, size) = matrix.dims2()?;
    if rows * size <= SMALL {
        return Ok(v.unsqueeze(1)?.broadcast_mul(&matrix.unsqueeze(0)?)?.sum(2)?);
    }
    let matrices = matrix.unsqueeze(0)?.broadcast_as((v.dim(0)?, rows, size))?;
    Ok(matrices.matmul(&v.contiguous()?.unsqueeze(2)?)?.squeeze(2)?)
}

/// `log (w_k N(x; m_k, C_k + σ² I))` but for `−D/2 log 2π`, `[B, K]`.
fn logits(
    parameters: &Parameters,
    along: &Tensor,
    outside: Option<&Tensor>,
    dimensions: usize,
    sigma: f64,
) -> Result<Tensor> {
    let variances = parameters.variances.affine(1.0, sigma * sigma)?;
    let mut twice = along.sqr()?.broadcast_div(&variances)?.sum(D::Minus1)?.broadcast_add(&variances.log()?.sum(2)?)?;
    if let Some(outside) = outside {
        let rest = parameters.rest.affine(1.0, sigma * sigma)?;
        let free = (dimensions - along.dim(2)?) as f64;
        let square = outside.sqr()?.sum_keepdim(1)?.broadcast_div(&rest)?;
        twice = (twice + square.broadcast_add(&rest.log()?.affine(free, 0.0)?)?)?;
    }
    Ok(twice.affine(-0.5, 0.0)?.broadcast_add(&parameters.log_weights)?)
}
