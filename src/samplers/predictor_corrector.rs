//! One step of the variance-exploding reverse process, Song et al. (2021), <https://arxiv.org/abs/2011.13456>.

use super::langevin::row_norms;
use crate::Result;
use crate::priors::Denoiser;
use crate::solvers::Level;
use candle_core::Tensor;
use tweedie_operators::Rng;

/// The Langevin corrector: `x + α s + √(2α) n`, `α = 2 (r ‖n‖ / ‖s‖)²`, norms of each row; one evaluation, one draw.
pub(super) fn correct(prior: &dyn Denoiser, x: &Tensor, sigma: f64, snr: f64, rng: &mut Rng) -> Result<Tensor> {
    // σ² s
    let g = (prior.denoise(x, sigma)? - x)?;
    let noise = rng.normal_like(x)?;
    // With c = r ‖n‖ / ‖s‖ the step is 2c² s and the noise 2c n.
    let c = (row_norms(&noise)?.affine(snr * sigma * sigma, 0.0)? / row_norms(&g)?)?;
    let along = g.broadcast_mul(&c.sqr()?.affine(2.0 / (sigma * sigma), 0.0)?)?;
    Ok(((x + along)? + noise.broadcast_mul(&(c * 2.0)?)?)?)
}

/// The reverse-diffusion predictor and its denoised image: `x + (σ²−σ'²) s + √(σ²−σ'²) n`, where σ' = 0 without the noise,
/// which is the denoised image; one evaluation, one draw.
pub(super) fn predict(prior: &dyn Denoiser, x: &Tensor, level: Level, rng: &mut Rng) -> Result<(Tensor, Tensor)> {
    let denoised = prior.denoise(x, level.from)?;
    if level.to == 0.0 {
        return Ok((denoised.clone(), denoised));
    }
    let kept = (level.to / level.from).powi(2);
    let mean = (denoised.affine(1.0 - kept, 0.0)? + x.affine(kept, 0.0)?)?;
    let spread = (level.from.powi(2) - level.to.powi(2)).sqrt();
    let next = (mean + rng.normal_like(x)?.affine(spread, 0.0)?)?;
    Ok((denoised, next))
}
