//! What a network in training has learned, on images it has not seen.

use super::config::TrainConfig;
use super::journal::Validation;
use super::objective::Objective;
use crate::Result;
use crate::image::{Photo, Region};
use crate::priors::Denoiser;
use candle_core::{Device, Tensor};
use tweedie_operators::Rng;

/// Seed of the noise of validation: the same in every run, so that runs can be compared.
const SEED: u64 = 0x7765;
/// Held-out examples whose loss is taken.
const EXAMPLES: usize = 64;

/// Images that are never trained on.
#[derive(Debug)]
pub struct HeldOut {
    /// To be denoised at the noise levels of the configuration: `[1, C, H, W]` each, pixels in [-1, 1].
    pub crops: Vec<Tensor>,
    /// Those whose loss is taken: `[N, C, H, W]` of the size that is trained on.
    pub examples: Tensor,
}

impl HeldOut {
    /// The middles of these photos, and patches of them.
    ///
    /// # Errors
    /// Those of tensor operations.
    pub fn of_photos(photos: &[Photo], config: &TrainConfig, channels: usize, stride: usize) -> Result<Self> {
        let square = |photo: &Photo, side: usize, (y, x): (f64, f64)| -> Result<Tensor> {
            let side = side.min(photo.width()).min(photo.height());
            let at = |share: f64, size: usize| (share * (size - side) as f64) as usize;
            let region = Region { x: at(x, photo.width()), y: at(y, photo.height()), width: side, height: side };
            let photo = if channels == 1 {
                photo.in_grey().tensor(region, &Device::Cpu)?
            } else {
                photo.tensor(region, &Device::Cpu)?
            };
            Ok(photo.narrow(1, 0, channels)?)
        };
        let side = config.validation.crop / stride * stride;
        let crops = photos.iter().map(|photo| square(photo, side, (0.5, 0.5))).collect::<Result<Vec<_>>>()?;
        let example = |k: usize| {
            // Places that fill a square evenly: multiples of the plastic number's powers (Roberts, 2018).
            let share = |root: f64| (0.5 + k as f64 * root).fract();
            square(&photos[k % photos.len()], config.data.patch, (share(0.754_877_666), share(0.569_840_291)))
        };
        let examples = (0..EXAMPLES).map(example).collect::<Result<Vec<_>>>()?;
        Ok(Self { crops, examples: Tensor::cat(&examples, 0)? })
    }

    /// Denoises every crop at every level, and takes the loss of held-out examples.
    ///
    /// # Errors
    /// Those of the denoiser.
    pub fn measure(
        &self,
        denoiser: &dyn Denoiser,
        objective: &dyn Objective,
        config: &TrainConfig,
        step: u64,
    ) -> Result<Validation> {
        let mut psnr = Vec::new();
        for &sigma in config.validation.sigmas.iter().filter(|_| !self.crops.is_empty()) {
            let mut sum = 0.0;
            for (index, clean) in self.crops.iter().enumerate() {
                let noisy = noisy(clean, sigma, index)?;
                let denoised = denoiser.denoise(&noisy, sigma)?.clamp(-1.0, 1.0)?;
                let error = (denoised - clean)?.sqr()?.mean_all()?.to_scalar::<f32>()?;
                sum += 10.0 * (4.0 / f64::from(error)).log10();
            }
            psnr.push((sigma, sum / self.crops.len() as f64));
        }
        let count = self.examples.dim(0)? as u64;
        let draw = objective.draw(&self.examples, &mut Rng::new(SEED, 0..count))?;
        let mut denoised = Vec::with_capacity(draw.sigmas.len());
        for (index, &sigma) in draw.sigmas.iter().enumerate() {
            denoised.push(denoiser.denoise(&draw.x.narrow(0, index, 1)?, sigma)?);
        }
        let values = (draw.loss)(&Tensor::cat(&denoised, 0)?)?.values;
        let loss = values.iter().sum::<f64>() / values.len() as f64;
        Ok(Validation { step, psnr, loss, picture: None })
    }
}

/// A crop with noise that is its own.
///
/// # Errors
/// Those of drawing numbers.
pub(super) fn noisy(clean: &Tensor, sigma: f64, index: usize) -> Result<Tensor> {
    let noise = Rng::new(SEED, index as u64..index as u64 + 1).normal_like(clean)?;
    Ok((clean + (noise * sigma)?)?)
}
