//! The main job as one call: fill the masked pixels of a photo.

mod fill;
mod region;

use crate::image::{Mask, Photo, Region};
use crate::models::Model;
use crate::priors::{Denoiser, Tiled};
use crate::samplers::{Problem, Sampler, Step, find_sampler};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use fill::smooth_fill;
use region::{Part, parts};
use std::time::Instant;
use tweedie_operators::forward::Inpaint;
use tweedie_operators::noise::Gaussian;
use tweedie_operators::{Measurement, Rng};

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
    /// Settings of the sampler that replace its defaults, as in `configs/inpaint.toml`.
    pub settings: toml::Table,
    /// Largest side of a window in pixels, at least 64; `None` is 256.
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
            sampler: "auto".into(),
            steps: None,
            settings: toml::Table::new(),
            tile: None,
            context: None,
            memory: None,
        }
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
    /// Largest side of a window in pixels; with the seed and the sampler it decides the bytes of the result.
    pub tile: usize,
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
    moments: Option<Vec<Moments>>,
    /// What was planned and done.
    pub plan: InpaintPlan,
    /// Seconds of sampling, without decoding and encoding.
    pub seconds: f64,
}

/// Mean and sum of squared deviations of the filled pixels of one part, over the samples so far.
#[derive(Debug)]
struct Moments {
    region: Region,
    fill: Mask,
    count: f32,
    mean: Vec<f32>,
    squares: Vec<f32>,
}

impl Moments {
    /// Welford's update.
    fn add(&mut self, values: &[f32]) {
        self.count += 1.0;
        for ((value, mean), squares) in values.iter().zip(&mut self.mean).zip(&mut self.squares) {
            let difference = value - *mean;
            *mean += difference / self.count;
            *squares += difference * (value - *mean);
        }
    }

    fn picture(&self, values: Vec<f32>) -> candle_core::Result<Tensor> {
        Tensor::from_vec(values, (3, self.region.height, self.region.width), &Device::Cpu)
    }
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
    ///
    /// # Panics
    /// If there are not so many samples.
    pub fn sample(&self, k: usize) -> &Photo {
        &self.samples[k]
    }

    /// The photo with its masked pixels replaced by the mean of all samples, taken before rounding.
    ///
    /// # Errors
    /// `Tensor` if memory runs out.
    pub fn mean(&self) -> Result<Photo> {
        let mut photo = self.samples[0].clone();
        for moments in self.moments.iter().flatten() {
            photo.paint(moments.region, &moments.fill, &moments.picture(moments.mean.clone())?)?;
        }
        Ok(photo)
    }

    /// The standard deviation of the samples as a picture: black where known or certain; a level is a quarter of an 8-bit
    /// level of standard deviation, white 63 levels and more.
    ///
    /// # Errors
    /// `Tensor` if memory runs out.
    pub fn std(&self) -> Result<Photo> {
        let (width, height) = (self.samples[0].width(), self.samples[0].height());
        let mut photo = Photo::from_u8(width, height, 3, vec![0; width * height * 3])?;
        for moments in self.moments.iter().flatten() {
            let divisor = (moments.count - 1.0).max(1.0);
            // A level of 8 bits is 2/255, and so is one of the picture, in [-1, 1]: four times, from black at -1.
            let level = |square: &f32| (4.0 * (square / divisor).sqrt() - 1.0).min(1.0);
            let picture = moments.picture(moments.squares.iter().map(level).collect())?;
            photo.paint(moments.region, &moments.fill, &picture)?;
        }
        Ok(photo)
    }

    /// Lines about samples that look wrong: of one colour, or saturated, where the known surroundings are not.
    pub fn warnings(&self, photo: &Photo, mask: &Mask) -> Vec<String> {
        if mask.count() <= FEW {
            return Vec::new();
        }
        // Pixels with alpha 0 are never filled, and their colour is nobody's fault.
        let visible = |x, y| !photo.has_alpha() || photo.sample(x, y, photo.channels() - 1) > 0;
        let grown = mask.clone().grow(RIM);
        let rim = |x, y| grown.is_set(x, y) && !mask.is_set(x, y) && visible(x, y);
        let filled = |x, y| mask.is_set(x, y) && visible(x, y);
        let known = saturated(photo, rim);
        let is_saturated = |sample: &Photo| known < 0.25 && saturated(sample, filled) > 0.5;
        let varies_around = !has_one_color(photo, rim);
        let (mut at_end, mut flat) = (0, 0);
        for sample in &self.samples {
            if is_saturated(sample) {
                at_end += 1;
            } else if varies_around && has_one_color(sample, filled) {
                flat += 1;
            }
        }
        let of = self.samples.len();
        let mut lines = Vec::new();
        if at_end > 0 {
            lines.push(format!(
                "{at_end} of {of} samples are black or white in more than half of the filled pixels, {:.0} % of what \
                 surrounds them is: look at the picture before you use it",
                100.0 * known
            ));
        }
        if flat > 0 {
            lines.push(format!(
                "{flat} of {of} samples have one colour in all filled pixels, what surrounds them has more: look at the \
                 picture before you use it"
            ));
        }
        lines
    }
}

/// So few filled pixels may well be all alike.
const FEW: usize = 64;

/// Width in pixels of the known surroundings that filled pixels are compared with.
const RIM: f64 = 2.0;

/// The share of black or white pixels among those at which `is_one`; 0 if there is none.
fn saturated(photo: &Photo, is_one: impl Fn(usize, usize) -> bool) -> f64 {
    let (mut all, mut at_end) = (0_usize, 0_usize);
    for y in 0..photo.height() {
        for x in (0..photo.width()).filter(|&x| is_one(x, y)) {
            let end = |c: usize| [0, photo.max_value()].contains(&photo.sample(x, y, c));
            all += 1;
            at_end += usize::from((0..photo.color_channels()).all(end));
        }
    }
    at_end as f64 / all.max(1) as f64
}

/// Whether all pixels at which `is_one` have the same colour; true if there is none.
fn has_one_color(photo: &Photo, is_one: impl Fn(usize, usize) -> bool) -> bool {
    let mut first = None;
    (0..photo.height()).all(|y| {
        (0..photo.width()).filter(|&x| is_one(x, y)).all(|x| {
            let (u, v) = *first.get_or_insert((x, y));
            (0..photo.color_channels()).all(|c| photo.sample(x, y, c) == photo.sample(u, v, c))
        })
    })
}

/// The sampler and settings that `auto` stands for, chosen by the measurements in `docs/inpainting.md`.
const AUTO: &str = include_str!("../../configs/inpaint.toml");

/// Window and overlap of large regions, and the context of a hole, in pixels: see `docs/inpainting.md`.
const WINDOW: usize = 256;
const OVERLAP: usize = 32;
const CONTEXT: usize = 48;

/// Beyond this distance in pixels from what is known a prior of small patches has nothing to say.
const DEEP: f64 = 16.0;

/// What `configs/inpaint.toml` says.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Auto {
    sampler: String,
    settings: toml::Table,
}

/// A run, ready to start.
struct Work {
    sampler: Box<dyn Sampler>,
    sigmas: usize,
    parts: Vec<Part>,
    /// Pixels that the sampler must not take as known.
    unknown: Mask,
    window: usize,
    /// Windows whose pullback keeps its forward pass.
    kept: usize,
    plan: InpaintPlan,
}

/// The prior for a part: windows that hold none of its pixels are left out.
fn tiled<'a>(prior: &'a dyn Denoiser, part: &Part, window: usize) -> Result<Tiled<'a>> {
    let size = (part.region.height, part.region.width);
    let tiled = Tiled::new(prior, size, window, OVERLAP.min(window / 4))?;
    Ok(tiled.restricted(|y, x| part.fill.is_set(x, y)))
}

fn sampler(options: &InpaintOptions<'_>) -> Result<Box<dyn Sampler>> {
    let auto: Auto = toml::from_str(AUTO).map_err(|error| Error::Config {
        name: "configs/inpaint.toml".into(),
        got: error.message().into(),
        expected: "a sampler and its settings".into(),
    })?;
    let automatic = options.sampler == "auto" || options.sampler == auto.sampler;
    let mut settings = if automatic { auto.settings } else { toml::Table::new() };
    merge(&mut settings, options.settings.clone());
    if let Some(steps) = options.steps {
        let steps = toml::Table::from_iter([("steps".into(), toml::Value::Integer(steps as i64))]);
        merge(&mut settings, toml::Table::from_iter([("annealing".into(), toml::Value::Table(steps))]));
    }
    find_sampler(if automatic { &auto.sampler } else { &options.sampler }, settings)
}

/// Puts the entries of `changes` in the place of those of `table`, sub-table by sub-table.
fn merge(table: &mut toml::Table, changes: toml::Table) {
    for (key, change) in changes {
        match (table.get_mut(&key), change) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(change)) => merge(inner, change),
            (_, change) => {
                table.insert(key, change);
            }
        }
    }
}

fn prepare(photo: &Photo, mask: &Mask, options: &InpaintOptions<'_>, model: &Model) -> Result<Work> {
    let refuse = |name: &str, got: String, expected: String| Err(Error::Config { name: name.into(), got, expected });
    if (mask.width(), mask.height()) != (photo.width(), photo.height()) {
        let got = format!("{}x{}", mask.width(), mask.height());
        return refuse("mask", got, format!("the size of the photo, {}x{}", photo.width(), photo.height()));
    }
    if options.samples == 0 {
        return refuse("samples", "0".into(), "at least 1".into());
    }
    if let Some(channels) = model.denoiser().channels().filter(|&channels| channels != 3) {
        return refuse("channels of the model", channels.to_string(), "3".into());
    }
    let mut window = options.tile.unwrap_or(WINDOW);
    if window < LEAST_WINDOW {
        return refuse("tile", window.to_string(), format!("at least {LEAST_WINDOW} pixels"));
    }
    let sampler = sampler(options)?;
    let sigmas = sampler.annealing().sigmas(&model.denoiser().sigma_range()).len() - 1;
    let parts = parts(mask, options.context.unwrap_or(CONTEXT));
    let unknown = photo.unknown().map_or_else(|| mask.clone(), |unknown| unknown.union(mask));

    // The largest window that fits the memory allowed.
    let pixels = |part: &Part| part.region.width * part.region.height;
    let largest = parts.iter().map(pixels).max().unwrap_or(0);
    let photo_pixels = photo.width() * photo.height();
    let tape = |window: usize| (largest.min(window * window) * PULLBACK_BYTES) as u64;
    let memory = |window: usize, samples: usize| {
        let per_pixel = if sampler.pullbacks() > 0 { PULLBACK_BYTES } else { DENOISE_BYTES };
        let copies = photo_pixels * photo.channels() * if photo.max_value() > 255 { 2 } else { 1 };
        let moments = if samples > 1 { 24 } else { 0 };
        BASE_BYTES
            + (copies * (samples + 2) + photo_pixels * 3) as u64
            + (largest * (STATE_BYTES + moments)) as u64
            + (largest.min(window * window) * per_pixel) as u64
    };
    if let Some(limit) = options.memory {
        // A sample depends on its windows, which must therefore not depend on how many samples are drawn.
        while memory(window, 1) > limit && window > LEAST_WINDOW {
            window = (window / 2).max(LEAST_WINDOW);
        }
        let needed = memory(window, options.samples);
        if needed > limit {
            let mebibytes = |bytes: u64| format!("{} MiB", bytes.div_ceil(1 << 20));
            let advice = if memory(LEAST_WINDOW, options.samples) <= limit {
                format!("--tile {LEAST_WINDOW} makes it fit; draw fewer samples, or allow more with --memory")
            } else if options.samples > 1 {
                "draw fewer samples, or allow more with --memory".into()
            } else {
                "allow more with --memory".into()
            };
            return Err(Error::Memory { needs: mebibytes(needed), limit: mebibytes(limit), advice });
        }
    }

    // What is left of the memory keeps forward passes for the pullback, which are repeated otherwise.
    let spare = options.memory.unwrap_or(COMFORTABLE_BYTES).saturating_sub(memory(window, options.samples));
    let kept = 1 + (spare / tape(window).max(1)) as usize;
    let mut windows = 0;
    let mut network_pixels = 0;
    let mut most_kept = 0;
    let mut repeated = 0;
    for part in &parts {
        let tiled = tiled(model.denoiser(), part, window)?;
        most_kept = tiled.windows().min(kept).max(most_kept);
        repeated += tiled.windows().saturating_sub(kept);
        let (height, width) = tiled.window();
        windows += tiled.windows();
        network_pixels += (tiled.windows() * height.next_multiple_of(8) * width.next_multiple_of(8)) as u64;
    }
    let evaluations = if parts.is_empty() { 0 } else { sigmas * options.samples };
    let network_pixels = network_pixels * evaluations as u64;
    // A forward pass is a third of an evaluation with its pullback.
    let repeats = if sampler.pullbacks() > 0 { repeated as f64 / windows.max(1) as f64 / 3.0 } else { 0.0 };
    let seconds = network_pixels as f64 * seconds_per_pixel(model, sampler.pullbacks())? * (1.0 + repeats);
    let tapes = if sampler.pullbacks() > 0 { tape(window) * most_kept.saturating_sub(1) as u64 } else { 0 };
    let deepest = mask.distance().into_iter().fold(0.0, f32::max).into();
    let mut warnings = Vec::new();
    if deepest > DEEP {
        let deep = if f64::is_finite(deepest) {
            format!("a hole reaches {deepest:.0} pixels away from what is known")
        } else {
            "nothing of the photo is known".into()
        };
        warnings.push(format!(
            "{deep}; this prior knows textures and edges, not scenes: expect a \
             smooth or invented fill"
        ));
    }
    let plan = InpaintPlan {
        sampler: sampler.name(),
        steps: sigmas,
        regions: parts.len(),
        windows,
        tile: window,
        evaluations,
        network_pixels,
        seconds,
        memory: memory(window, options.samples) + tapes,
        deepest,
        warnings,
    };
    Ok(Work { sampler, sigmas, parts, unknown, window, kept, plan })
}

/// Memory that a run may fill without being told so, where that makes it faster.
const COMFORTABLE_BYTES: u64 = 3 << 29;

/// Smallest window, in pixels: the size of the patches that the embedded prior was trained on.
const LEAST_WINDOW: usize = 64;

/// Bytes of memory, measured: of the program with its prior; a pixel of a window during an evaluation, and during one
/// with its pullback; a pixel of the state of a part.
const BASE_BYTES: u64 = 94 << 20;
const DENOISE_BYTES: usize = 1400;
const PULLBACK_BYTES: usize = 4300;
const STATE_BYTES: usize = 160;

/// Seconds that a pixel takes in one evaluation, measured on one small window.
fn seconds_per_pixel(model: &Model, pullbacks: usize) -> Result<f64> {
    let size = 96;
    let x = Tensor::zeros((1, 3, size, size), DType::F32, model.device())?;
    let mut seconds = f64::INFINITY;
    // The first evaluation also finds its memory.
    for _ in 0..2 {
        let start = Instant::now();
        if pullbacks > 0 {
            let (mut v, pullback) = model.denoiser().denoise_with_pullback(&x, 0.5)?;
            for _ in 0..pullbacks {
                v = pullback.apply(&v)?;
            }
            v.to_device(&Device::Cpu)?;
        } else {
            model.denoiser().denoise(&x, 0.5)?.to_device(&Device::Cpu)?;
        }
        seconds = start.elapsed().as_secs_f64().min(seconds);
    }
    Ok(seconds / (size * size) as f64)
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

/// What `inpaint` would do.
///
/// # Errors
/// As [`inpaint`].
pub fn plan_inpaint(photo: &Photo, mask: &Mask, options: &InpaintOptions<'_>) -> Result<InpaintPlan> {
    let embedded;
    let model = match options.model {
        Some(model) => model,
        None => {
            embedded = Model::embedded(&Device::Cpu)?;
            &embedded
        }
    };
    Ok(prepare(photo, mask, options, model)?.plan)
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
    let embedded;
    let model = match options.model {
        Some(model) => model,
        None => {
            embedded = Model::embedded(&Device::Cpu)?;
            &embedded
        }
    };
    let work = prepare(photo, mask, options, model)?;
    let start = Instant::now();
    let mut samples = vec![photo.clone(); options.samples];
    let mut moments = (options.samples > 1).then(Vec::new);
    let total = work.parts.len() * options.samples * work.sigmas;
    let mut done = 0;
    // On a CPU one image fills every core; elsewhere a few at once hide what a call costs.
    let batch = if model.device().is_cpu() { 1 } else { 8 };
    for part in &work.parts {
        let region = part.region;
        let unknown = work.unknown.crop(region);
        let prior = tiled(model.denoiser(), part, work.window)?.on(model.device())?.keeping(work.kept);
        let photographed = photo.tensor(region, model.device())?;
        let guess = guess(&photographed, &unknown)?;
        let frame = Region { x: 0, y: 0, ..region };
        let known = unknown.tensor(frame, model.device())?;
        let operator = Inpaint::new(&known)?;
        let noise = Gaussian::new(0.0)?;
        let y = photographed.broadcast_mul(&known)?;
        drop(photographed);
        let mut of_part = moments.is_some().then(|| Moments {
            region,
            fill: part.fill.clone(),
            count: 0.0,
            mean: vec![0.0; 3 * region.width * region.height],
            squares: vec![0.0; 3 * region.width * region.height],
        });
        for first in (0..options.samples).step_by(batch) {
            let last = options.samples.min(first + batch);
            let rows = last - first;
            // One row is the measurement itself, not a copy of it.
            let repeated = if rows == 1 { y.clone() } else { y.repeat((rows, 1, 1, 1))? };
            let measurement = Measurement { operator: &operator, noise: &noise, y: repeated };
            let problem = Problem { prior: &prior, measurement: &measurement, guess: Some(guess.clone()) };
            let mut rng = Rng::new(options.seed, first as u64..last as u64).at((region.y, region.x));
            let mut step = |step: &Step<'_>| -> Result<()> {
                done += rows;
                observer(Progress { done, total, sample: first, sigma: step.sigma })
            };
            let x = work.sampler.sample(&problem, (3, region.height, region.width), &mut rng, &mut step)?;
            for (row, sample) in samples[first..last].iter_mut().enumerate() {
                let x = x.narrow(0, row, 1)?.to_device(&Device::Cpu)?;
                sample.paint(region, &part.fill, &x)?;
                if let Some(moments) = &mut of_part {
                    moments.add(&x.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?);
                }
            }
        }
        if let (Some(moments), Some(of_part)) = (&mut moments, of_part) {
            moments.push(of_part);
        }
    }
    Ok(Inpainted { samples, moments, plan: work.plan, seconds: start.elapsed().as_secs_f64() })
}
