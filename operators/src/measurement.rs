//! The joint of operator, noise and data.

use candle_core::Tensor;

use crate::conjugate::{CgInfo, CgParams};
use crate::forward::{ForwardOperator, LinearOperator, SpectralOperator, like};
use crate::noise::NoiseModel;
use crate::rng::Rng;
use crate::solve::regularized_inverse;
use crate::{Error, Result};

/// What was observed and how: the likelihood `p(y | x) = p(y | A(x))`.
#[derive(Clone, Debug)]
pub struct Measurement<'a> {
    /// `A`.
    pub operator: &'a dyn ForwardOperator,
    /// `N`.
    pub noise: &'a dyn NoiseModel,
    /// `[B, ..]`: a batch of measurements, or one repeated to draw `B` samples.
    pub y: Tensor,
}

impl<'a> Measurement<'a> {
    /// Measures `x`: one draw of noise, row `i` from stream `i`.
    ///
    /// # Shapes
    /// `x`: `[B, C, H, W]`.
    pub fn simulate(
        operator: &'a dyn ForwardOperator,
        noise: &'a dyn NoiseModel,
        x: &Tensor,
        rng: &mut Rng,
    ) -> Result<Self> {
        let y = noise.corrupt(&operator.measure(x)?, rng)?;
        Ok(Self { operator, noise, y })
    }

    /// `log p(y | x)` in nats, up to a term free of `x`.
    ///
    /// # Shapes
    /// `x`: `[B, C, H, W]`; returns `[B]`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the noise has no density, as Gaussian noise with σ = 0.
    pub fn log_likelihood(&self, x: &Tensor) -> Result<Tensor> {
        self.noise.log_likelihood(&self.operator.forward(x)?, &self.y)
    }

    /// `∇_x log p(y | x) = J_A(x)ᵀ ∇_z log p(y | z)`.
    ///
    /// # Shapes
    /// `x`: `[B, C, H, W]`, as is the result.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the noise has no density, as Gaussian noise with σ = 0.
    pub fn score(&self, x: &Tensor) -> Result<Tensor> {
        let z = self.operator.forward(x)?;
        self.operator.vjp(x, &self.noise.score(&z, &self.y)?)
    }

    /// `argmax_u log p(y | u) − ‖u − x‖² / 2r²`: closed form if singular values or the
    /// Gram matrix are known, else conjugate gradients.
    ///
    /// With noise of σ = 0 this is the projection on the images that fit `y`: what is seen is replaced, whatever `r`.
    ///
    /// # Shapes
    /// `x`: `[B, C, H, W]`, as is the result; `r` in the unit of `x`.
    ///
    /// # Errors
    /// [`Error::Config`] unless `r > 0`; [`Error::Unsupported`] unless the operator is linear and the noise additive,
    /// white and Gaussian; [`Error::NotConverged`] from conjugate gradients with [`CgParams::default`].
    pub fn prox(&self, x: &Tensor, r: f64) -> Result<Tensor> {
        let params = CgParams::default();
        let (u, info) = self.prox_with(x, r, &params)?;
        info.map_or(Ok(()), |info| info.converged("prox", &params))?;
        Ok(u)
    }

    /// As [`prox`](Self::prox), with the caller's stopping rule and without judging the result; no information means
    /// that the closed form was used.
    ///
    /// # Errors
    /// As for [`prox`](Self::prox), but for [`Error::NotConverged`].
    pub fn prox_with(&self, x: &Tensor, r: f64, params: &CgParams) -> Result<(Tensor, Option<CgInfo>)> {
        if r.is_nan() || r <= 0.0 {
            return Err(Error::config("prox", format!("r is {r}, expected a number above 0")));
        }
        let sigma = self.gaussian_sigma("prox")?;
        let ridge = (sigma / r).powi(2);
        let linear = self.linear("prox")?;
        // An operator offers its Gram matrix beside a decomposition because it is cheaper, down to finding neither.
        if linear.as_gram().is_none()
            && let Some(spectral) = linear.as_spectral()
        {
            return Ok((spectral_prox(spectral, &self.y, x, ridge)?, None));
        }
        // u − x = (AᵀA + ridge)⁻¹ Aᵀ (y − A x); ridge = 0 gives the nearest solution.
        let (change, info) = regularized_inverse(linear, &(&self.y - linear.forward(x)?)?, ridge, params)?;
        Ok(((x + change)?, info))
    }

    /// Standard deviation of the noise, for a method that takes nothing but additive white Gaussian noise.
    ///
    /// # Errors
    /// `Unsupported`, naming the method, if the noise is anything else.
    pub fn gaussian_sigma(&self, method: &'static str) -> Result<f64> {
        self.noise.gaussian_sigma().ok_or(Error::Unsupported { method, needs: "additive white Gaussian noise" })
    }

    /// The operator as a linear one, for `method`.
    ///
    /// # Errors
    /// [`Error::Unsupported`], naming the method and its need.
    pub fn linear(&self, method: &'static str) -> Result<&'a dyn LinearOperator> {
        self.operator.as_linear().ok_or(Error::Unsupported { method, needs: "a linear operator" })
    }

    /// The operator with its singular values, for `method`.
    ///
    /// # Errors
    /// [`Error::Unsupported`], naming the method and its need.
    pub fn spectral(&self, method: &'static str) -> Result<&'a dyn SpectralOperator> {
        let spectral = self.operator.as_linear().and_then(LinearOperator::as_spectral);
        spectral.ok_or(Error::Unsupported { method, needs: "an operator with known singular values" })
    }
}

/// `V [(s Uᵀy + ridge Vᵀx) / (s² + ridge)]` where something is seen, `V Vᵀ x` elsewhere.
fn spectral_prox(operator: &dyn SpectralOperator, y: &Tensor, x: &Tensor, ridge: f64) -> Result<Tensor> {
    let prior = operator.image_to_spectrum(x)?;
    let data = operator.measurement_to_spectrum(y)?;
    let s = like(operator.singular_values(), x)?;
    let unseen = s.eq(0.0)?.to_dtype(s.dtype())?;
    // The prior's weight is 1 where nothing is seen, so that no ridge, however small, divides zero by zero.
    let weight = ((unseen.affine(-1.0, 1.0)? * ridge)? + unseen)?;
    let total = (s.sqr()? + &weight)?;
    let from_prior = prior.broadcast_mul(&(weight / &total)?)?;
    let from_data = data.broadcast_mul(&(s / total)?)?;
    operator.spectrum_to_image(&(from_prior + from_data)?)
}
