//! Linear systems of an operator: by its closed forms where it has any, else by conjugate gradients.

use candle_core::{DType, Device, Tensor};

use crate::conjugate::{CgInfo, CgParams, conjugate_gradients};
use crate::forward::{LinearOperator, SpectralOperator, like};
use crate::rng::Rng;
use crate::rows::dot;
use crate::{Error, Result};

/// When to stop the power method, and where it starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PowerParams {
    /// Relative residual `‖AᵀA v − s² v‖ / s²` that is good enough; default 1e-2, with which `s` is within 0.5 % of a
    /// singular value and in practice much closer to the largest.
    pub tolerance: f64,
    /// Products with `AᵀA` at most; default 500.
    pub max_iterations: usize,
    /// Seed of the image it starts from; default 0.
    pub seed: u64,
}

impl Default for PowerParams {
    fn default() -> Self {
        Self { tolerance: 1e-2, max_iterations: 500, seed: 0 }
    }
}

/// How the power method went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PowerInfo {
    /// Products with `AᵀA`.
    pub iterations: usize,
    /// Relative residual `‖AᵀA v − s² v‖ / s²` at the end.
    pub residual: f64,
}

impl PowerInfo {
    /// Checks that the tolerance was reached.
    ///
    /// # Errors
    /// [`Error::NotConverged`] with the numbers.
    pub fn converged(&self, params: &PowerParams) -> Result<()> {
        let &Self { iterations, residual } = self;
        if residual <= params.tolerance {
            return Ok(());
        }
        Err(Error::NotConverged { method: "power method", iterations, residual, tolerance: params.tolerance })
    }
}

/// The norm of an operator, its largest singular value, for images of `(channels, height, width)`.
///
/// `v ← AᵀA v / ‖AᵀA v‖` from a random image, and `s² = ⟨v, AᵀA v⟩`, which comes from below. In f64 on the host. Not
/// reaching the tolerance is no error here; see [`PowerInfo::converged`]. An operator that sees nothing has norm 0.
///
/// # Errors
/// Those of the operator; [`Error::NonFinite`] if a product stops being a number.
///
/// von Mises and Pollaczek-Geiringer (1929), <https://doi.org/10.1002/zamm.19290090206>
pub fn power_method(
    operator: &dyn LinearOperator,
    image: (usize, usize, usize),
    params: &PowerParams,
) -> Result<(f64, PowerInfo)> {
    let (channels, height, width) = image;
    let start = Tensor::zeros((1, channels, height, width), DType::F64, &Device::Cpu)?;
    let mut v = Rng::new(params.seed, 0..1).normal_like(&start)?;
    let length = norm(&v)?;
    if length == 0.0 {
        return Ok((0.0, PowerInfo { iterations: 0, residual: 0.0 }));
    }
    v = (v / length)?;
    let mut square = 0.0;
    let mut residual = f64::INFINITY;
    for iteration in 1..=params.max_iterations {
        let product = operator.adjoint(&operator.forward(&v)?)?;
        let length = norm(&product)?;
        if !length.is_finite() {
            return Err(Error::NonFinite { what: format!("product of the power method at iteration {iteration}") });
        }
        if length == 0.0 {
            return Ok((0.0, PowerInfo { iterations: iteration, residual: 0.0 }));
        }
        square = dot(&v, &product)?.into_iter().sum::<f64>().max(0.0);
        residual = norm(&(&product - (&v * square)?)?)? / square;
        if residual <= params.tolerance {
            return Ok((square.sqrt(), PowerInfo { iterations: iteration, residual }));
        }
        v = (product / length)?;
    }
    Ok((square.sqrt(), PowerInfo { iterations: params.max_iterations, residual }))
}

/// `A⁺ y`, the image of least norm among those whose measurement is nearest to `y`.
///
/// By the singular values or the Gram matrix where they are known, and then without information; else `AᵀA x = Aᵀ y` by
/// conjugate gradients from zero. The system of images is solved even where `y` is smaller, since it has a solution for
/// every `y`, and `AAᵀ u = y` only for measurements without noise.
///
/// # Shapes
/// `y`: `[B, ..]` like `forward`'s result; returns `[B, C, H, W]`.
///
/// # Errors
/// Those of the operator and of [`conjugate_gradients`].
pub fn pseudo_inverse(
    operator: &dyn LinearOperator,
    y: &Tensor,
    params: &CgParams,
) -> Result<(Tensor, Option<CgInfo>)> {
    regularized_inverse(operator, y, 0.0, params)
}

/// `(AᵀA + λI)⁻¹ Aᵀ y`, the image that minimises `‖A x − y‖² + λ ‖x‖²`; with λ = 0 the [`pseudo_inverse`].
///
/// By the singular values, `V s / (s² + λ) Uᵀ y`, or the Gram matrix, `Aᵀ (AAᵀ + λI)⁻¹ y`, where they are known, and
/// then without information; else by conjugate gradients on `AᵀA + λI` from zero.
///
/// # Shapes
/// As [`pseudo_inverse`]; `ridge` is λ ≥ 0.
///
/// # Errors
/// [`Error::Config`] unless `ridge` is finite and at least 0; those of the operator and of [`conjugate_gradients`].
pub fn regularized_inverse(
    operator: &dyn LinearOperator,
    y: &Tensor,
    ridge: f64,
    params: &CgParams,
) -> Result<(Tensor, Option<CgInfo>)> {
    check_ridge("regularized_inverse", ridge)?;
    match (operator.as_spectral(), operator.as_gram()) {
        (Some(spectral), _) if ridge == 0.0 => Ok((spectral.pseudo_inverse(y)?, None)),
        (Some(spectral), _) => {
            let spectrum = spectral.measurement_to_spectrum(y)?;
            let s = like(spectral.singular_values(), &spectrum)?;
            let weight = (&s / s.sqr()?.affine(1.0, ridge)?)?;
            Ok((spectral.spectrum_to_image(&spectrum.broadcast_mul(&weight)?)?, None))
        }
        (None, Some(gram)) => Ok((gram.adjoint(&gram.solve_gram(y, ridge)?)?, None)),
        (None, None) => {
            let product = |x: &Tensor| plus_ridge(operator.adjoint(&operator.forward(x)?)?, x, ridge);
            let (x, info) = conjugate_gradients(product, &operator.adjoint(y)?, params)?;
            Ok((x, Some(info)))
        }
    }
}

/// `(AᵀA + λI)⁻¹ b`; with λ = 0 the pseudo-inverse of `AᵀA`.
///
/// By the singular values or, through `(b − Aᵀ (AAᵀ + λI)⁻¹ A b) / λ`, by the Gram matrix where they are known, and
/// then without information; else by conjugate gradients from zero, where with λ = 0 `b` must be in the range of `Aᵀ`.
/// What the operator does not see is divided by λ, and so are the rounding errors of the Gram matrix.
///
/// # Shapes
/// `b`: `[B, C, H, W]`, as is the result; `ridge` is λ ≥ 0.
///
/// # Errors
/// [`Error::Config`] unless `ridge` is finite and at least 0; those of the operator and of [`conjugate_gradients`].
pub fn solve_normal(
    operator: &dyn LinearOperator,
    b: &Tensor,
    ridge: f64,
    params: &CgParams,
) -> Result<(Tensor, Option<CgInfo>)> {
    check_ridge("solve_normal", ridge)?;
    match (operator.as_spectral(), operator.as_gram()) {
        (Some(spectral), _) => {
            let spectrum = spectral.image_to_spectrum(b)?;
            let weight = inverse(&like(spectral.singular_values(), &spectrum)?.sqr()?, ridge)?;
            Ok((spectral.spectrum_to_image(&spectrum.broadcast_mul(&weight)?)?, None))
        }
        (None, Some(gram)) => {
            let solved = gram.solve_gram(&gram.forward(b)?, ridge)?;
            if ridge == 0.0 {
                return Ok((gram.adjoint(&gram.solve_gram(&solved, 0.0)?)?, None));
            }
            Ok((((b - gram.adjoint(&solved)?)? / ridge)?, None))
        }
        (None, None) => {
            let product = |x: &Tensor| plus_ridge(operator.adjoint(&operator.forward(x)?)?, x, ridge);
            let (x, info) = conjugate_gradients(product, b, params)?;
            Ok((x, Some(info)))
        }
    }
}

/// `(AAᵀ + λI)⁻¹ b`; with λ = 0 the pseudo-inverse of `AAᵀ`.
///
/// By the Gram matrix or the singular values where they are known, and then without information; else by conjugate
/// gradients from zero, where with λ = 0 `b` must be in the range of `A`. What no image can produce is divided by λ,
/// and so are the rounding errors of the singular vectors.
///
/// # Shapes
/// `b`: `[B, ..]` like `forward`'s result, as is the value; `ridge` is λ ≥ 0.
///
/// # Errors
/// [`Error::Config`] unless `ridge` is finite and at least 0; those of the operator and of [`conjugate_gradients`].
pub fn solve_gram(
    operator: &dyn LinearOperator,
    b: &Tensor,
    ridge: f64,
    params: &CgParams,
) -> Result<(Tensor, Option<CgInfo>)> {
    check_ridge("solve_gram", ridge)?;
    match (operator.as_gram(), operator.as_spectral()) {
        (Some(gram), _) => Ok((gram.solve_gram(b, ridge)?, None)),
        (None, Some(spectral)) => Ok((spectral_gram(spectral, b, ridge)?, None)),
        (None, None) => {
            let product = |u: &Tensor| plus_ridge(operator.forward(&operator.adjoint(u)?)?, u, ridge);
            let (u, info) = conjugate_gradients(product, b, params)?;
            Ok((u, Some(info)))
        }
    }
}

/// `U (s² + λ)⁻¹ Uᵀ b + (b − U Uᵀ b) / λ`, with `U c = A V (c / s)`.
fn spectral_gram(operator: &dyn SpectralOperator, b: &Tensor, ridge: f64) -> Result<Tensor> {
    let spectrum = operator.measurement_to_spectrum(b)?;
    let s = like(operator.singular_values(), &spectrum)?;
    let to_measurement = |weight: &Tensor| -> Result<Tensor> {
        operator.forward(&operator.spectrum_to_image(&spectrum.broadcast_mul(&(weight * inverse(&s, 0.0)?)?)?)?)
    };
    let seen = to_measurement(&inverse(&s.sqr()?, ridge)?)?;
    if ridge == 0.0 {
        return Ok(seen);
    }
    let unreached = (b - to_measurement(&s.ones_like()?)?)?;
    Ok((seen + (unreached / ridge)?)?)
}

/// `1 / (values + ridge)`, with `1/0 = 0`.
fn inverse(values: &Tensor, ridge: f64) -> Result<Tensor> {
    let total = values.affine(1.0, ridge)?;
    let zero = total.eq(0.0)?.to_dtype(total.dtype())?;
    Ok((zero.affine(-1.0, 1.0)? / (total + &zero)?)?)
}

fn plus_ridge(product: Tensor, x: &Tensor, ridge: f64) -> Result<Tensor> {
    if ridge == 0.0 {
        return Ok(product);
    }
    Ok((product + (x * ridge)?)?)
}

fn check_ridge(method: &str, ridge: f64) -> Result<()> {
    if ridge >= 0.0 && ridge.is_finite() {
        return Ok(());
    }
    Err(Error::config(method, format!("ridge is {ridge}, expected a finite number of at least 0")))
}

fn norm(x: &Tensor) -> Result<f64> {
    Ok(dot(x, x)?.into_iter().sum::<f64>().sqrt())
}
