//! Conjugate gradients, for systems known through their products alone.

use candle_core::Tensor;

use crate::rows::{dot, scale};
use crate::{Error, Result};

/// When to stop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CgParams {
    /// Relative residual `‖b − M u‖ / ‖b‖` of a row that is good enough; default 1e-5.
    pub tolerance: f64,
    /// Products with `M` at most; default 500.
    pub max_iterations: usize,
}

impl Default for CgParams {
    fn default() -> Self {
        Self { tolerance: 1e-5, max_iterations: 500 }
    }
}

/// How it went, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct CgInfo {
    /// Iterations in which the row still changed.
    pub iterations: Vec<usize>,
    /// Relative residual as the recurrence knows it.
    pub residual: Vec<f64>,
}

impl CgInfo {
    /// Checks that every row reached the tolerance.
    ///
    /// # Errors
    /// [`Error::NotConverged`] with the worst row's numbers.
    pub fn converged(&self, method: &'static str, params: &CgParams) -> Result<()> {
        let residual = self.residual.iter().copied().fold(0.0, f64::max);
        let iterations = self.iterations.iter().copied().max().unwrap_or(0);
        if residual <= params.tolerance {
            return Ok(());
        }
        Err(Error::NotConverged { method, iterations, residual, tolerance: params.tolerance })
    }
}

/// Solves `M u = b` for a symmetric positive semi-definite `M`, starting at zero.
///
/// Rows are systems of their own: each has its own step sizes and stops by itself, so a row's solution is the same in
/// every batch. With a singular `M` and a `b` in its range the solution is the one of least norm. Not reaching the
/// tolerance is no error here; see [`CgInfo::converged`].
///
/// # Shapes
/// `b` and the argument and result of `product`: `[B, ..]`.
///
/// # Errors
/// Those of `product`; [`Error::NonFinite`] if a residual stops being a number.
///
/// Hestenes and Stiefel (1952), <https://doi.org/10.6028/jres.049.044>.
pub fn conjugate_gradients(
    product: impl Fn(&Tensor) -> Result<Tensor>,
    b: &Tensor,
    params: &CgParams,
) -> Result<(Tensor, CgInfo)> {
    let norm: Vec<f64> = dot(b, b)?;
    let mut squared = norm.clone();
    let relative = |squared: &[f64]| -> Vec<f64> {
        let ratio = |(&r, &b): (&f64, &f64)| if b == 0.0 { 0.0 } else { (r / b).sqrt() };
        squared.iter().zip(&norm).map(ratio).collect()
    };
    let mut iterations = vec![0; norm.len()];
    let mut u = b.zeros_like()?;
    let mut residual = b.clone();
    let mut direction = b.clone();
    for iteration in 0..=params.max_iterations {
        let now = relative(&squared);
        if now.iter().any(|r| !r.is_finite()) {
            return Err(Error::NonFinite { what: format!("residual of conjugate gradients at iteration {iteration}") });
        }
        let active: Vec<bool> = now.iter().map(|&r| r > params.tolerance).collect();
        if iteration == params.max_iterations || !active.contains(&true) {
            break;
        }
        let image = product(&direction)?;
        let curvature = dot(&direction, &image)?;
        // A finished row gets steps of zero: it keeps its solution while the others go on.
        let only_active = |row: usize, value: f64| if active[row] && value.is_finite() { value } else { 0.0 };
        let step: Vec<f64> =
            squared.iter().zip(&curvature).enumerate().map(|(row, (r, c))| only_active(row, r / c)).collect();
        u = (u + scale(&direction, &step)?)?;
        residual = (residual - scale(&image, &step)?)?;
        let next = dot(&residual, &residual)?;
        let ratio: Vec<f64> =
            next.iter().zip(&squared).enumerate().map(|(row, (new, old))| only_active(row, new / old)).collect();
        direction = (&residual + scale(&direction, &ratio)?)?;
        squared = next;
        active.iter().zip(&mut iterations).filter(|(active, _)| **active).for_each(|(_, count)| *count += 1);
    }
    let residual = relative(&squared);
    Ok((u, CgInfo { iterations, residual }))
}
