//! A measurement in the coordinates of its operator's singular vectors.

use crate::Result;
use candle_core::Tensor;
use tweedie_operators::{Measurement, Rng, SpectralOperator};

/// Singular values below this part of the largest count as zero wherever a method divides by them: single precision
/// leaves nothing of such a coordinate but rounding errors.
const LEAST_SINGULAR_VALUE: f64 = 1e-3;

/// What was measured, one coordinate at a time: `ȳ = Uᵀy / s`, which is `Vᵀx` plus noise of `σ_y / s` where `s > 0`.
///
/// For a mask `V = I`, for grey photos it turns the colours of each pixel.
#[derive(Debug)]
pub(super) struct Spectrum<'a> {
    operator: &'a dyn SpectralOperator,
    /// `ȳ`, `[B, C, H, W]`, 0 where nothing is seen.
    pub(super) y: Tensor,
    /// 1 where something is seen, 0 elsewhere: `[1, C, H, W]`.
    pub(super) seen: Tensor,
    /// `1/s` where something is seen, 0 elsewhere: `[1, C, H, W]`.
    inverse: Tensor,
    noiseless: bool,
}

impl<'a> Spectrum<'a> {
    /// The coordinates of `measurement`, for `method`.
    ///
    /// # Errors
    /// `Unsupported` if the singular values are not known.
    pub(super) fn new(method: &'static str, measurement: &Measurement<'a>) -> Result<Self> {
        let operator = measurement.spectral(method)?;
        let y = operator.measurement_to_spectrum(&measurement.y)?;
        let (_, channels, height, width) = y.dims4()?;
        let s = operator.singular_values().to_dtype(y.dtype())?.to_device(y.device())?;
        let s = s.broadcast_as((1, channels, height, width))?.contiguous()?;
        let least = (s.max_all()? * LEAST_SINGULAR_VALUE)?;
        let seen = s.broadcast_gt(&least)?.to_dtype(s.dtype())?;
        // Where nothing is seen the divisor is at least 1.
        let inverse = (&seen / (s + seen.affine(-1.0, 1.0)?)?)?;
        let y = y.broadcast_mul(&inverse)?;
        let noiseless = measurement.noise.gaussian_sigma() == Some(0.0);
        Ok(Self { operator, y, seen, inverse, noiseless })
    }

    /// `Vᵀ x`.
    pub(super) fn of(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.operator.image_to_spectrum(x)?)
    }

    /// `V` times a spectrum.
    pub(super) fn image(&self, spectrum: &Tensor) -> Result<Tensor> {
        Ok(self.operator.spectrum_to_image(spectrum)?)
    }

    /// `σ_y / s`, the noise of `ȳ`, 0 where nothing is seen: `[1, C, H, W]`.
    pub(super) fn deviation(&self, sigma_y: f64) -> Result<Tensor> {
        Ok((&self.inverse * sigma_y)?)
    }

    /// `w ȳ + (1 − w) x̄`, where 1 and 0 choose without rounding.
    ///
    /// # Shapes
    /// `weight`: `[1, C, H, W]`, 0 where nothing is seen; `spectrum`: `[B, C, H, W]`.
    pub(super) fn mix(&self, weight: &Tensor, spectrum: &Tensor) -> Result<Tensor> {
        Ok((self.y.broadcast_mul(weight)?.broadcast_add(&spectrum.broadcast_mul(&weight.affine(-1.0, 1.0)?)?))?)
    }

    /// `x` with its seen coordinates moved to `λ (ȳ + σ n̄) + (1 − λ) x̄`; one draw `n`, turned by `Vᵀ`, unless σ is 0.
    pub(super) fn pull(&self, x: &Tensor, lambda: f64, sigma: f64, rng: &mut Rng) -> Result<Tensor> {
        let weight = (&self.seen * lambda)?;
        let mut pulled = self.mix(&weight, &self.of(x)?)?;
        if sigma > 0.0 {
            let noise = self.of(&rng.normal_like(x)?)?;
            pulled = (pulled + noise.broadcast_mul(&(weight * sigma)?)?)?;
        }
        self.image(&pulled)
    }

    /// `x` with its seen coordinates replaced by `ȳ + σ n̄`; one draw unless σ is 0.
    pub(super) fn paste(&self, x: &Tensor, sigma: f64, rng: &mut Rng) -> Result<Tensor> {
        self.pull(x, 1.0, sigma, rng)
    }

    /// An estimate as it becomes the result: measurements without noise are pasted, all others are noisier than what the
    /// prior made of them.
    pub(super) fn finish(&self, x0: Tensor) -> Result<Tensor> {
        if self.noiseless { self.image(&self.mix(&self.seen, &self.of(&x0)?)?) } else { Ok(x0) }
    }
}
