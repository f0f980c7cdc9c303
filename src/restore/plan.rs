//! What a run will do and cost.

use super::methods::Methods;
use super::region::Part;
use super::{Restoration, RestoreOptions, Source};
use crate::models::Model;
use crate::priors::{Denoiser, Tiled};
use crate::samplers::{Choice, Facts};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use std::time::Instant;
use tweedie_kernels::Precision;

/// What a run will cost, known before it starts.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Name of the sampler that draws the first sample.
    pub sampler: &'static str,
    /// Steps of the first sample.
    pub steps: usize,
    /// Name of the sampler that draws the others, and its steps.
    pub others: (&'static str, usize),
    /// Steps of all samples and regions.
    pub total_steps: usize,
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

/// Side of the largest region that is one window, side of the windows of larger ones, their overlap, and the context of a
/// hole, in pixels: see `docs/inpainting.md`.
const WHOLE: usize = 512;
const WINDOW: usize = 384;
const OVERLAP: usize = 32;
pub(super) const CONTEXT: usize = 48;

impl Plan {
    /// Name of the sampler that draws sample `k`, and its steps.
    pub fn of_sample(&self, k: usize) -> (&'static str, usize) {
        if k == 0 { (self.sampler, self.steps) } else { self.others }
    }
}

/// Beyond this distance in pixels from what is known a prior of small patches has nothing to say.
const DEEP: f64 = 16.0;

/// The prior for a part: windows that hold none of its pixels are left out.
pub(super) fn tiled<'a>(prior: &'a dyn Denoiser, part: &Part, window: usize) -> Result<Tiled<'a>> {
    let size = (part.region.height, part.region.width);
    let tiled = Tiled::new(prior, size, window, OVERLAP.min(window / 4))?;
    Ok(tiled.restricted(|y, x| part.fill.is_set(x, y)))
}

/// The sampler that the options name, with the settings of `auto` where it is that one.
pub(super) fn choose(facts: &Facts, options: &RestoreOptions<'_>) -> Result<Choice> {
    let auto = Choice::auto(facts, options.quality)?;
    let choice = if options.sampler == "auto" {
        auto
    } else if options.sampler == auto.sampler {
        Choice { others: None, ..auto }
    } else {
        Choice::of(&options.sampler, toml::Table::new())
    };
    let choice = choice.with(options.settings.clone());
    Ok(match options.steps {
        Some(steps) => choice.with_steps(steps),
        None => choice,
    })
}

/// Checks everything, chooses the windows, and measures an evaluation.
///
/// `deepest` is the largest distance in pixels of a masked pixel to a known one.
pub(super) fn prepare<'a>(
    source: Source<'a>,
    parts: Vec<Part>,
    choice: Choice,
    deepest: f64,
    options: &RestoreOptions<'_>,
    model: &'a Model,
) -> Result<Restoration<'a>> {
    let refuse = |name: &str, got: String, expected: String| Err(Error::Config { name: name.into(), got, expected });
    let canvas = source.canvas();
    if options.samples == 0 {
        return refuse("samples", "0".into(), "at least 1".into());
    }
    if let Some(channels) = model.colour_denoiser().channels().filter(|&channels| channels != 3) {
        return refuse("channels of the model", channels.to_string(), "3".into());
    }
    // A grey picture is a picture in colour whose channels are equal; one in colour is none of grey.
    if model.denoiser().channels() == Some(1) && canvas.color_channels() > 1 {
        let expected = "a grey one, since the model knows no others: make it grey, or take another --model".into();
        return refuse("photo", "a picture in colour".into(), expected);
    }
    if let Some(tile) = options.tile.filter(|&tile| tile < LEAST_WINDOW) {
        return refuse("tile", tile.to_string(), format!("at least {LEAST_WINDOW} pixels"));
    }
    let methods = Methods::new(&choice, options.samplers)?;
    let range = model.colour_denoiser().sigma_range();
    let pullbacks = methods.drawing(options.samples).map(|(sampler, _)| sampler.pullbacks()).max().unwrap_or(0);

    // The largest window that fits the memory allowed.
    let longest = parts.iter().map(|part| part.region.width.max(part.region.height)).max().unwrap_or(0);
    let own = model.native_window();
    let mut window = options.tile.or(own).unwrap_or(if longest <= WHOLE { WHOLE } else { WINDOW });
    let fitted = match &source {
        Source::Fitted(fitted) => Some(fitted),
        Source::Holes(..) | Source::Whole(_) => None,
    };
    if fitted.is_some() {
        window = longest.max(1);
    }
    let pixels = |part: &Part| part.region.width * part.region.height;
    let largest = parts.iter().map(pixels).max().unwrap_or(0);
    let photo_pixels = canvas.width() * canvas.height();
    let bytes = bytes(model.precision());
    let tape = |window: usize| (largest.min(window * window) * bytes.pullback) as u64;
    // Particles go through the network, and through a pullback, together.
    let particles = methods.drawing(options.samples).map(|(sampler, _)| sampler.particles()).max().unwrap_or(1);
    let memory = |window: usize, samples: usize| {
        let per_pixel = if pullbacks > 0 { bytes.pullback } else { bytes.denoise };
        let copies = photo_pixels * canvas.channels() * if canvas.max_value() > 255 { 2 } else { 1 };
        let moments = if samples > 1 { 24 } else { 0 };
        bytes.base
            + (copies * (samples + 2) + photo_pixels * 3) as u64
            + (largest * (STATE_BYTES * particles + moments)) as u64
            // What was measured stays as large as the photo is, and every particle is brought to that size.
            + if fitted.is_some() { (photo_pixels * (STATE_BYTES * particles + moments)) as u64 } else { 0 }
            + (largest.min(window * window) * per_pixel * particles) as u64
    };
    if let Some(limit) = options.memory {
        // A sample depends on its windows, which must therefore not depend on how many samples are drawn.
        while fitted.is_none() && memory(window, 1) > limit && window > LEAST_WINDOW {
            window = (window * 3 / 4).max(LEAST_WINDOW);
        }
        let needed = memory(window, options.samples);
        if needed > limit {
            let advice = if fitted.is_none() && memory(LEAST_WINDOW, options.samples) <= limit {
                format!("--tile {LEAST_WINDOW} makes it fit; draw fewer samples, or allow more with --memory")
            } else if options.samples > 1 {
                "draw fewer samples, or allow more with --memory".into()
            } else {
                "allow more with --memory".into()
            };
            return Err(Error::Memory { needs: needed, limit, advice });
        }
    }

    // What is left of the memory keeps forward passes for the pullback, which are repeated otherwise.
    let spare = options.memory.unwrap_or(COMFORTABLE_BYTES).saturating_sub(memory(window, options.samples));
    let spare = spare.min(options.spare.unwrap_or(u64::MAX));
    let kept = 1 + (spare / tape(window).max(1)) as usize;
    let mut windows = 0;
    let mut network_pixels = 0;
    let mut most_kept = 0;
    let mut repeated = 0;
    for part in &parts {
        let tiled = tiled(model.colour_denoiser(), part, window)?;
        most_kept = tiled.windows().min(kept).max(most_kept);
        repeated += tiled.windows().saturating_sub(kept);
        let (height, width) = tiled.window();
        windows += tiled.windows();
        network_pixels += (tiled.windows() * height.next_multiple_of(8) * width.next_multiple_of(8)) as u64;
    }
    // Pixels of one evaluation of every part.
    let once = network_pixels;
    let mut seconds = 0.0;
    for (sampler, samples) in methods.drawing(options.samples) {
        // A window that is not kept runs forward once more for every pullback, each about as long as either.
        let pullbacks = sampler.pullbacks();
        let repeats = pullbacks as f64 / (1 + pullbacks) as f64 * repeated as f64 / windows.max(1) as f64;
        let evaluations = sampler.evaluations(&range) * samples;
        seconds += (once * evaluations as u64) as f64 * seconds_per_pixel(model, pullbacks)? * (1.0 + repeats);
    }
    let evaluations = if parts.is_empty() { 0 } else { methods.evaluations(&range, options.samples) };
    let network_pixels = once * evaluations as u64;
    let tapes = if pullbacks > 0 { tape(window) * most_kept.saturating_sub(1) as u64 } else { 0 };
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
    if let Some(fitted) = fitted {
        if !parts.is_empty() {
            warnings.push(fitted.warning());
        }
    } else if let Some(own) = own {
        let (width, height) = (canvas.width(), canvas.height());
        if width.min(height) < own {
            warnings.push(format!(
                "the photo has {width}x{height} pixels, the model was trained on {own}x{own}: what it makes of less is \
                 not what it learned"
            ));
        } else if longest > window {
            warnings.push(format!(
                "the model was trained on {own}x{own} pixels and works in {windows} overlapping windows of {window}: it \
                 sees no scene larger than one of them"
            ));
        }
    }
    let plan = Plan {
        sampler: methods.of(0).name(),
        steps: methods.of(0).steps(&range),
        others: (methods.of(1).name(), methods.of(1).steps(&range)),
        total_steps: methods.steps(&range, options.samples) * parts.len(),
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
    let (samples, seed) = (options.samples, options.seed);
    let restoration =
        Restoration { source, model, prior: model.colour_denoiser(), samples, seed, methods, parts, kept, plan };
    match options.deadline {
        Some(deadline) => restoration.within(deadline, &choice, options),
        None => Ok(restoration),
    }
}

/// Memory that a run may fill without being told so, where that makes it faster.
const COMFORTABLE_BYTES: u64 = 3 << 29;

/// Smallest window, in pixels: the size of the patches that the embedded prior was trained on.
const LEAST_WINDOW: usize = 64;

/// Bytes of memory, measured with `photo-prior-v0` (`tweedie bench --json`, 64×64 and 512×512); the embedded prior needs half
/// of it for a pixel.
struct Bytes {
    /// Of the program with its prior.
    base: u64,
    /// A pixel of a window during an evaluation, and during one with its pullback.
    denoise: usize,
    pullback: usize,
}

fn bytes(precision: Precision) -> Bytes {
    match precision {
        Precision::F32 => Bytes { base: 126 << 20, denoise: 1500, pullback: 4800 },
        Precision::Bf16 => Bytes { base: 90 << 20, denoise: 750, pullback: 2450 },
    }
}

/// Bytes of a pixel of the state of a part, measured.
const STATE_BYTES: usize = 160;

/// Bytes of the program with this model, which every [`Plan::memory`] contains: runs beside one another share them.
pub fn program_memory(model: &Model) -> u64 {
    bytes(model.precision()).base
}

/// Seconds that a pixel takes in one evaluation, measured on one small window, once for a model.
fn seconds_per_pixel(model: &Model, pullbacks: usize) -> Result<f64> {
    model.measured(pullbacks, || measure_pixel(model, pullbacks))
}

fn measure_pixel(model: &Model, pullbacks: usize) -> Result<f64> {
    let (height, width) = model.colour_denoiser().native_size().unwrap_or((96, 96));
    let x = Tensor::zeros((1, 3, height, width), DType::F32, model.device())?;
    let mut seconds = f64::INFINITY;
    // The first evaluation also finds its memory.
    for _ in 0..2 {
        let start = Instant::now();
        if pullbacks > 0 {
            let (mut v, pullback) = model.colour_denoiser().denoise_with_pullback(&x, 0.5)?;
            for _ in 0..pullbacks {
                v = pullback.apply(&v)?;
            }
            v.to_device(&Device::Cpu)?;
        } else {
            model.colour_denoiser().denoise(&x, 0.5)?.to_device(&Device::Cpu)?;
        }
        seconds = start.elapsed().as_secs_f64().min(seconds);
    }
    Ok(seconds / (height * width) as f64)
}
