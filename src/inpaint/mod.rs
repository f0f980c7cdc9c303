//! The main job as one call: fill the masked pixels of a photo.

mod fill;
mod plan;
mod region;
mod result;

use crate::Result;
use crate::image::{Mask, Photo, Region};
use crate::models::{Model, ModelOptions};
use crate::samplers::{BuildSampler, Problem, SAMPLERS, Sampler, Step};
use candle_core::{DType, Device, Tensor};
use fill::smooth_fill;
use plan::{prepare, tiled};
use region::Part;
use result::Moments;
use std::time::Instant;
use tweedie_operators::forward::Inpaint;
use tweedie_operators::noise::Gaussian;
use tweedie_operators::{Entry, Measurement, Rng};

pub use plan::InpaintPlan;
pub use result::Inpainted;

/// How to fill.
#[derive(Clone, Debug)]
pub struct InpaintOptions<'a> {
    /// The prior; `None` is the one inside the binary.
    pub model: Option<&'a Model>,
    /// Number of posterior samples, ≥ 1.
    pub samples: usize,
    /// Seed of every random number of the run.
    pub seed: u64,
    /// The samplers that there are.
    pub samplers: &'a [Entry<BuildSampler>],
    /// Name of the sampler, `auto` for the default.
    pub sampler: String,
    /// Noise levels; `None` is the sampler's default.
    pub steps: Option<usize>,
    /// Settings of the sampler that replace its defaults, as in `configs/inpaint.toml`.
    pub settings: toml::Table,
    /// Largest side of a window in pixels, at least 64; `None` is 512 where every region fits into that, else 384.
    pub tile: Option<usize>,
    /// Pixels around a hole that the prior is shown; `None` is 48.
    pub context: Option<usize>,
    /// Bytes of memory that the run may use; `None` is no limit.
    pub memory: Option<u64>,
}

impl Default for InpaintOptions<'_> {
    fn default() -> Self {
        Self {
            model: None,
            samples: 1,
            seed: 0,
            samplers: SAMPLERS,
            sampler: "auto".into(),
            steps: None,
            settings: toml::Table::new(),
            tile: None,
            context: None,
            memory: None,
        }
    }
}

/// Where a run stands.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Finished steps (sample × region × noise level).
    pub done: usize,
    /// Steps in all.
    pub total: usize,
    /// Sample being drawn, from 0.
    pub sample: usize,
    /// Noise level just finished.
    pub sigma: f64,
}

/// A run that is planned and can start: for who shows the plan first.
#[derive(Debug)]
pub struct Inpainting<'a> {
    photo: &'a Photo,
    model: &'a Model,
    samples: usize,
    seed: u64,
    sampler: Box<dyn Sampler>,
    parts: Vec<Part>,
    /// Pixels that the sampler must not take as known.
    unknown: Mask,
    /// Windows whose pullback keeps its forward pass.
    kept: usize,
    plan: InpaintPlan,
}

impl<'a> Inpainting<'a> {
    /// Plans a run with `model`, whatever model `options` name.
    ///
    /// # Errors
    /// As [`inpaint`].
    pub fn new(photo: &'a Photo, mask: &Mask, options: &InpaintOptions<'_>, model: &'a Model) -> Result<Self> {
        prepare(photo, mask, options, model)
    }

    /// What it will do and cost.
    pub fn plan(&self) -> &InpaintPlan {
        &self.plan
    }

    /// Runs, telling `observer` after every step; an error of the observer stops the run and is returned.
    ///
    /// # Errors
    /// `NonFinite` if the network fails, `Tensor` if memory runs out, and the observer's.
    pub fn run(self, observer: &mut dyn FnMut(Progress) -> Result<()>) -> Result<Inpainted> {
        let start = Instant::now();
        let device = self.model.device();
        let mut samples = vec![self.photo.clone(); self.samples];
        let mut moments = Vec::new();
        let total = self.parts.len() * self.samples * self.plan.steps;
        let mut done = 0;
        // On a CPU one image fills every core; elsewhere a few at once hide what a call costs.
        let batch = if device.is_cpu() { 1 } else { 8 };
        for part in &self.parts {
            let region = part.region;
            let unknown = self.unknown.crop(region);
            let prior = tiled(self.model.denoiser(), part, self.plan.tile)?.on(device)?.keeping(self.kept);
            let known = unknown.tensor(Region { x: 0, y: 0, ..region }, device)?;
            let operator = Inpaint::new(&known)?;
            let noise = Gaussian::new(0.0)?;
            let (y, guess) = {
                let photographed = self.photo.tensor(region, device)?;
                (photographed.broadcast_mul(&known)?, guess(&photographed, &unknown)?)
            };
            let mut of_part = (self.samples > 1).then(|| Moments::new(part));
            for first in (0..self.samples).step_by(batch) {
                let last = self.samples.min(first + batch);
                let rows = last - first;
                // One row is the measurement itself, not a copy of it.
                let repeated = if rows == 1 { y.clone() } else { y.repeat((rows, 1, 1, 1))? };
                let measurement = Measurement { operator: &operator, noise: &noise, y: repeated };
                let problem = Problem { prior: &prior, measurement: &measurement, guess: Some(guess.clone()) };
                let mut rng = Rng::new(self.seed, first as u64..last as u64).at((region.y, region.x));
                let mut step = |step: &Step<'_>| -> Result<()> {
                    done += rows;
                    observer(Progress { done, total, sample: first, sigma: step.sigma })
                };
                let x = self.sampler.sample(&problem, (3, region.height, region.width), &mut rng, &mut step)?;
                for (row, sample) in samples[first..last].iter_mut().enumerate() {
                    let x = x.narrow(0, row, 1)?.to_device(&Device::Cpu)?;
                    sample.paint(region, &part.fill, &x)?;
                    if let Some(moments) = &mut of_part {
                        moments.add(&x.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?);
                    }
                }
            }
            moments.extend(of_part);
        }
        Ok(Inpainted { samples, moments, plan: self.plan, seconds: start.elapsed().as_secs_f64() })
    }
}

/// Plans with the model of the options, or with the embedded one, and does `then`.
fn planned<T>(
    photo: &Photo,
    mask: &Mask,
    options: &InpaintOptions<'_>,
    then: impl FnOnce(Inpainting<'_>) -> Result<T>,
) -> Result<T> {
    match options.model {
        Some(model) => then(Inpainting::new(photo, mask, options, model)?),
        None => then(Inpainting::new(photo, mask, options, &Model::embedded(&ModelOptions::default())?)?),
    }
}

/// What [`inpaint`] would do.
///
/// # Errors
/// As [`inpaint`].
pub fn plan_inpaint(photo: &Photo, mask: &Mask, options: &InpaintOptions<'_>) -> Result<InpaintPlan> {
    planned(photo, mask, options, |inpainting| Ok(inpainting.plan))
}

/// Fills the masked pixels of a photo with samples of the posterior.
///
/// Every pixel outside the mask is the photo's own, sample by sample. The result depends on the seed, the options and
/// the pixels alone, and sample `k` is the same whether one or eight are drawn.
///
/// # Errors
/// `Config` for options out of range or a mask of another size, `Unknown` for a sampler that there is not, `Memory` if
/// the smallest plan does not fit, `NonFinite` if the network fails.
pub fn inpaint(photo: &Photo, mask: &Mask, options: &InpaintOptions<'_>) -> Result<Inpainted> {
    inpaint_observed(photo, mask, options, &mut |_| Ok(()))
}

/// As [`inpaint`], telling `observer` after every step; an error of the observer stops the run.
///
/// # Errors
/// As [`inpaint`], and the observer's.
pub fn inpaint_observed(
    photo: &Photo,
    mask: &Mask,
    options: &InpaintOptions<'_>,
    observer: &mut dyn FnMut(Progress) -> Result<()>,
) -> Result<Inpainted> {
    planned(photo, mask, options, |inpainting| inpainting.run(observer))
}

/// A smooth fill of the unknown pixels of `y`: `[1, 3, h, w]`.
fn guess(y: &Tensor, unknown: &Mask) -> Result<Tensor> {
    let (_, channels, height, width) = y.dims4()?;
    let mut values = y.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
    let known: Vec<bool> = (0..height * width).map(|i| !unknown.is_set(i % width, i / width)).collect();
    for plane in values.chunks_mut(height * width) {
        smooth_fill(plane, &known, height, width);
    }
    Ok(Tensor::from_vec(values, (1, channels, height, width), y.device())?)
}
