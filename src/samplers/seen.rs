//! A measurement in singular coordinates, as particle methods look at it.

use super::Problem;
use crate::Result;
use candle_core::Tensor;
use tweedie_operators::{Measurement, SpectralOperator};

/// `ȳ = Uᵀy/s = x₀ + τ n` with `τ = σ_y/s` where something is seen.
pub(super) struct Seen<'a> {
    operator: &'a dyn SpectralOperator,
    /// ȳ, `[B, C, H, W]`; 0 where nothing is seen.
    pub(super) values: Tensor,
    /// τ, `[1, C, H, W]`; 0 where nothing is seen.
    pub(super) levels: Tensor,
    /// 1 where something is seen, 0 elsewhere.
    pub(super) mask: Tensor,
}

impl<'a> Seen<'a> {
    pub(super) fn new(method: &'static str, measurement: &Measurement<'a>) -> Result<Self> {
        let operator = measurement.spectral(method)?;
        let sigma_y = measurement.gaussian_sigma(method)?;
        let spectrum = operator.measurement_to_spectrum(&measurement.y)?;
        let s = operator.singular_values().to_dtype(spectrum.dtype())?.to_device(spectrum.device())?;
        let (_, channels, height, width) = spectrum.dims4()?;
        let s = s.broadcast_as((1, channels, height, width))?.contiguous()?;
        let unseen = s.eq(0.0)?.to_dtype(s.dtype())?;
        let divisor = (&s + &unseen)?;
        let mask = unseen.affine(-1.0, 1.0)?;
        let levels = (mask.affine(sigma_y, 0.0)? / &divisor)?;
        Ok(Self { operator, values: spectrum.broadcast_div(&divisor)?, levels, mask })
    }

    /// 1 where something is seen whose own noise τ is below `sigma`.
    pub(super) fn above(&self, sigma: f64) -> Result<Tensor> {
        Ok((&self.mask * self.levels.lt(sigma)?.to_dtype(self.mask.dtype())?)?)
    }

    /// 1 where something is seen whose own noise τ is at most `sigma`.
    pub(super) fn above_or_at(&self, sigma: f64) -> Result<Tensor> {
        Ok((&self.mask * self.levels.le(sigma)?.to_dtype(self.mask.dtype())?)?)
    }

    /// `V(σ) = σ² − τ²` where the mask is 1, 0 elsewhere.
    pub(super) fn spread(&self, mask: &Tensor, sigma: f64) -> Result<Tensor> {
        let product = (self.levels.affine(-1.0, sigma)? * self.levels.affine(1.0, sigma)?)?;
        Ok((product * mask)?)
    }

    /// `Vᵀ x`.
    pub(super) fn spectrum(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.operator.image_to_spectrum(x)?)
    }

    /// `V` times a spectrum.
    pub(super) fn image(&self, spectrum: &Tensor) -> Result<Tensor> {
        Ok(self.operator.spectrum_to_image(spectrum)?)
    }

    /// First states `g + σ n` as draws, in singular coordinates, from their density times another around `y`, whose
    /// mean has the `share` of `y`: `share y + (1 − share) g + √(1 − share) σ n`.
    pub(super) fn drawn_towards(
        &self,
        problem: &Problem<'_>,
        start: &Tensor,
        y: &Tensor,
        share: &Tensor,
    ) -> Result<Tensor> {
        let rest = share.affine(-1.0, 1.0)?;
        let states = self.spectrum(start)?;
        let drawn = match &problem.guess {
            Some(guess) => {
                let guess = self.spectrum(&guess.to_dtype(start.dtype())?)?;
                // A guess is one for all, or one for each image: those of one image follow one another.
                let copies = start.dim(0)? / guess.dim(0)?;
                let mut shape = guess.dims().to_vec();
                shape.insert(1, copies);
                let guess = guess.unsqueeze(1)?.broadcast_as(shape)?.flatten(0, 1)?;
                ((&states - &guess)?.broadcast_mul(&rest.sqrt()?)? + guess.broadcast_mul(&rest)?)?
            }
            None => states.broadcast_mul(&rest.sqrt()?)?,
        };
        Ok(drawn.broadcast_add(&y.broadcast_mul(share)?)?)
    }
}
