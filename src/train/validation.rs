//! What a network in training has learned, on images it has not seen.

use super::config::TrainConfig;
use super::journal::Validation;
use super::objective::Objective;
use crate::image::{Photo, Region};
use crate::priors::Denoiser;
use crate::schedules::Named;
use crate::solvers::{Churn, Step, heun};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use tweedie_operators::Rng;

/// Seed of the noise of validation: the same in every run, so that runs can be compared.
const SEED: u64 = 0x7765;
/// Held-out examples whose loss is taken.
const EXAMPLES: usize = 64;

/// Images of a sheet that are denoised.
const SHEET: usize = 64;

/// Held-out photos that are shown in pictures.
const SHOWN: usize = 4;

/// A held-out photo and what the network makes of it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// `[1, C, H, W]`, pixels in [-1, 1].
    pub clean: Tensor,
    /// At the noise levels of the configuration.
    pub levels: Vec<Denoised>,
}

/// A photo with noise, and without it again.
#[derive(Clone, Debug)]
pub struct Denoised {
    /// Noise level.
    pub sigma: f64,
    /// `[1, C, H, W]`.
    pub noisy: Tensor,
    /// `[1, C, H, W]`, pixels in [-1, 1].
    pub denoised: Tensor,
    /// In dB.
    pub psnr: f64,
}

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
            let side = side.min(photo.width()).min(photo.height()) / stride * stride;
            let (y, x) = (config.data.start(y, photo.height(), side), config.data.start(x, photo.width(), side));
            let region = Region { x, y, width: side, height: side };
            let photo = if channels == 1 { &photo.in_grey() } else { photo };
            Ok(photo.tensor(region, &Device::Cpu)?.narrow(1, 0, channels)?)
        };
        // Places that fill a square evenly: multiples of the powers of the plastic number.
        let place = |k: usize| {
            let share = |root: f64| (0.5 + k as f64 * root).fract();
            (share(0.754_877_666), share(0.569_840_291))
        };
        let crops: Result<Vec<Tensor>> = match config.data.sheet {
            false => photos.iter().map(|photo| square(photo, config.validation.crop, (0.5, 0.5))).collect(),
            true => (0..SHEET).map(|k| square(&photos[k % photos.len()], config.data.patch, place(k))).collect(),
        };
        let crops = crops?;
        let example = |k: usize| square(&photos[k % photos.len()], config.data.patch, place(k));
        let examples = (0..EXAMPLES).map(example).collect::<Result<Vec<_>>>()?;
        Ok(Self { crops, examples: Tensor::cat(&examples, 0)? })
    }

    /// Denoises every crop at every level, and takes the loss of held-out examples; the first few crops are given back.
    ///
    /// # Errors
    /// Those of the denoiser.
    pub fn measure(
        &self,
        denoiser: &dyn Denoiser,
        objective: &dyn Objective,
        config: &TrainConfig,
        step: u64,
    ) -> Result<(Validation, Vec<Shown>)> {
        let mut psnr = Vec::new();
        let show = |clean: &Tensor| Shown { clean: clean.clone(), levels: Vec::new() };
        let mut shown: Vec<Shown> = self.crops.iter().take(SHOWN).map(show).collect();
        for &sigma in config.validation.sigmas.iter().filter(|_| !self.crops.is_empty()) {
            let mut sum = 0.0;
            for (index, clean) in self.crops.iter().enumerate() {
                let noisy = noisy(clean, sigma, index)?;
                let denoised = denoiser.denoise(&noisy, sigma)?.clamp(-1.0, 1.0)?;
                let error = (&denoised - clean)?.sqr()?.mean_all()?.to_scalar::<f32>()?;
                let of_crop = 10.0 * (4.0 / f64::from(error)).log10();
                sum += of_crop;
                if let Some(shown) = shown.get_mut(index) {
                    shown.levels.push(Denoised { sigma, noisy, denoised, psnr: of_crop });
                }
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
        Ok((Validation { step, psnr, loss, picture: None, samples: None }, shown))
    }
}

/// Images drawn from a prior along the probability-flow ODE, from noise that is the same every time, of the size of `examples`
/// or of the configuration's. `None` for none, where examples are points and no images, and if the network is not yet one
/// that can be followed: a number of them is none.
///
/// # Shapes
/// `[N, C, H, W]`, pixels about [-1, 1]
/// # Errors
/// Those of the denoiser.
pub(super) fn draw(denoiser: &dyn Denoiser, examples: &Tensor, config: &TrainConfig) -> Result<Option<Tensor>> {
    let count = config.validation.samples;
    let (_, channels, height, width) = examples.dims4()?;
    if count == 0 || height * width == 1 {
        return Ok(None);
    }
    let (height, width) = config.validation.sample_size.map_or((height, width), |side| (side, side));
    let range = denoiser.sigma_range();
    let mut rng = Rng::new(SEED, 0..count as u64);
    let noise = rng.normal((count, channels, height, width), &Device::Cpu)?.affine(*range.end(), 0.0)?;
    let sigmas = Named::KARRAS.sigmas(LEVELS, RHO, &range);
    match heun(denoiser, noise, &sigmas, &Churn::NONE, &mut rng, &mut |_: &Step<'_>| Ok(())) {
        Ok(samples) => Ok(Some(samples)),
        Err(Error::NonFinite { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Noise levels of a drawn image, and how they are spaced: EDM's.
const LEVELS: usize = 18;
const RHO: f64 = 7.0;

/// A crop with noise that is its own.
///
/// # Errors
/// Those of drawing numbers.
pub(super) fn noisy(clean: &Tensor, sigma: f64, index: usize) -> Result<Tensor> {
    let noise = Rng::new(SEED, index as u64..index as u64 + 1).normal_like(clean)?;
    Ok((clean + (noise * sigma)?)?)
}
