//! Restoring one photo as one call: the masked pixels of a photo, or a photo seen through any measurement.
//!
//! A [`Task`] makes [`Work`] of a photo: a mask whose holes are filled, or a [`Case`], which says what was measured and what the
//! result is painted on. Everything then takes one way: a plan, samples, a [`Restored`].

mod case;
mod colorize;
mod deadline;
mod deblur;
mod degrade;
mod denoise;
mod fill;
mod fit;
mod guess;
mod measured;
mod methods;
mod plan;
mod provenance;
mod region;
mod result;
pub(crate) mod sheet;
pub mod tasks;
mod upscale;
mod work;

use crate::Result;
use crate::image::{Mask, Photo, Region};
use crate::models::{Model, ModelOptions};
use crate::priors::Denoiser;
use crate::samplers::{
    BuildSampler, Choice, Damage, Facts, Observer, Problem, Quality, SAMPLERS, Sampler, Step, Structure, check_suitable,
};
use candle_core::{DType, Device, Tensor};
use fill::smooth_fill;
use fit::Fitted;
use methods::Methods;
use plan::tiled;
use region::{Part, parts};
use result::Moments;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::time::Instant;
use tweedie_operators::forward::Inpaint;
use tweedie_operators::noise::Gaussian;
use tweedie_operators::{Entry, ForwardOperator, Measurement, NoiseModel, Rng};

pub use case::{Case, estimate_levels};
pub use degrade::{Degraded, degrade};
pub use measured::Measured;
pub use plan::{Plan, program_memory};
pub use provenance::{Picture, Provenance};
pub use result::Restored;
pub use tasks::Task;
pub use upscale::Interpolation;
pub use work::Work;

/// How a model that knows images of one size meets photos of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// In overlapping windows of that size.
    #[default]
    Windows,
    /// The photo as a whole, laid into an image of that size and brought back.
    Fit,
}

/// How to restore.
#[derive(Clone, Debug)]
pub struct RestoreOptions<'a> {
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
    /// How much time `auto` takes.
    pub quality: Quality,
    /// Noise levels; `None` is the sampler's default.
    pub steps: Option<usize>,
    /// When the samples are to be there: fewer noise levels are taken where that is needed, and the result then depends on how
    /// fast the machine is, up to its number of steps. `None` is no limit.
    pub deadline: Option<Instant>,
    /// Settings of the sampler that replace its defaults, as in `configs/auto.toml`.
    pub settings: toml::Table,
    /// Largest side of a window in pixels, at least 64; `None` is 512 where every region fits into that, else 384.
    pub tile: Option<usize>,
    /// What becomes of photos of another size than the model's own.
    pub resize: Resize,
    /// Pixels around a hole that the prior is shown; `None` is 48. Of no meaning where there are no holes.
    pub context: Option<usize>,
    /// Bytes of memory that the run may use; `None` is no limit.
    pub memory: Option<u64>,
    /// Bytes of those that it may fill where that makes it nothing but faster; `None` is all that are left, or 1.5 GiB.
    pub spare: Option<u64>,
}

impl Default for RestoreOptions<'_> {
    fn default() -> Self {
        Self {
            model: None,
            samples: 1,
            seed: 0,
            samplers: SAMPLERS,
            sampler: "auto".into(),
            quality: Quality::Standard,
            steps: None,
            deadline: None,
            settings: toml::Table::new(),
            tile: None,
            resize: Resize::Windows,
            context: None,
            memory: None,
            spare: None,
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

/// What is sampled.
#[derive(Debug)]
enum Source<'a> {
    /// Around the holes of a photo; the mask holds the pixels that the sampler must not take as known.
    Holes(&'a Photo, Mask),
    /// The whole of a case.
    Whole(&'a Case),
    /// Either at the model's own size.
    Fitted(Box<Fitted<'a>>),
}

impl<'a> Source<'a> {
    /// A case, or what it is at the model's own size.
    fn of(case: &'a Case, options: &RestoreOptions<'_>, model: &Model) -> Result<Self> {
        Ok(match options.own_size(model)? {
            Some(size) => Self::Fitted(Box::new(Fitted::whole(case, size, model.device())?)),
            None => Self::Whole(case),
        })
    }

    /// What is to be restored where no holes are: the measurement, and height and width of the image.
    fn whole(&self) -> Option<(Measurement<'_>, (usize, usize))> {
        match self {
            Self::Holes(..) => None,
            Self::Whole(case) => Some((case.measurement(), case.size)),
            Self::Fitted(fitted) => Some((fitted.measurement(), fitted.fit.size)),
        }
    }

    fn canvas(&self) -> &'a Photo {
        match self {
            Self::Holes(photo, _) => photo,
            Self::Whole(case) => &case.canvas,
            Self::Fitted(fitted) => fitted.canvas,
        }
    }

    /// The luma that the result must have, where the colours alone are restored.
    fn luma(&self) -> Option<&'a Tensor> {
        match self {
            Self::Holes(..) => None,
            Self::Whole(case) => case.luma.as_ref(),
            Self::Fitted(fitted) => fitted.case.and_then(|case| case.luma.as_ref()),
        }
    }
}

impl RestoreOptions<'_> {
    /// Height and width of the model's own images, if photos are to be laid into one.
    fn own_size(&self, model: &Model) -> Result<Option<(usize, usize)>> {
        if self.resize == Resize::Windows {
            return Ok(None);
        }
        let native = model.native_window().map(|side| (side, side));
        let size = model.denoiser().native_size().or(native).ok_or_else(|| crate::Error::Config {
            name: "resize".into(),
            got: "fit".into(),
            expected: format!("a model that knows images of one size, {} takes any: leave it out", model.name),
        })?;
        match self.tile {
            Some(tile) => Err(crate::Error::Config {
                name: "tile".into(),
                got: tile.to_string(),
                expected: "none where the photo is fitted into one window".into(),
            }),
            None => Ok(Some(size)),
        }
    }
}

/// All of an image as one part.
fn whole_part((height, width): (usize, usize)) -> Part {
    let region = Region { x: 0, y: 0, width, height };
    Part { region, fill: Mask::from_fn(width, height, |_, _| true) }
}

/// A run that is planned and can start: for who shows the plan first.
#[derive(Debug)]
pub struct Restoration<'a> {
    source: Source<'a>,
    model: &'a Model,
    prior: &'a dyn Denoiser,
    samples: usize,
    seed: u64,
    methods: Methods,
    parts: Vec<Part>,
    /// Windows whose pullback keeps its forward pass.
    kept: usize,
    plan: Plan,
}

impl<'a> Restoration<'a> {
    /// Plans to fill the masked pixels of a photo with `model`, whatever model `options` name.
    ///
    /// # Errors
    /// As [`inpaint`].
    pub fn inpaint(photo: &'a Photo, mask: &Mask, options: &RestoreOptions<'_>, model: &'a Model) -> Result<Self> {
        if (mask.width(), mask.height()) != (photo.width(), photo.height()) {
            return Err(crate::Error::Config {
                name: "mask".into(),
                got: format!("{}x{}", mask.width(), mask.height()),
                expected: format!("the size of the photo, {}x{}", photo.width(), photo.height()),
            });
        }
        let unknown = photo.unknown().map_or_else(|| mask.clone(), |unknown| unknown.union(mask));
        let own_size = options.own_size(model)?;
        let parts = match own_size {
            Some(_) if mask.count() == 0 => Vec::new(),
            Some(size) => vec![whole_part(size)],
            None => {
                let least = model.native_window().unwrap_or(0);
                parts(mask, options.context.unwrap_or(plan::CONTEXT), least)
            }
        };
        let facts = Facts {
            damage: Damage::Holes,
            structure: Structure::SingularValues,
            gaussian: true,
            values: 3 * photo.width() * photo.height(),
            measured: 3 * photo.width() * photo.height(),
        };
        let choice = plan::choose(&facts, options)?;
        let deepest = mask.distance().into_iter().fold(0.0, f32::max).into();
        let source = match own_size {
            Some(size) => Source::Fitted(Box::new(Fitted::holes(photo, &unknown, mask.clone(), size, model.device())?)),
            None => Source::Holes(photo, unknown),
        };
        plan::prepare(source, parts, choice, deepest, options, model)
    }

    /// Plans to restore a whole photo with `model`, whatever model `options` name.
    ///
    /// # Errors
    /// As [`restore`].
    pub fn new(case: &'a Case, options: &RestoreOptions<'_>, model: &'a Model) -> Result<Self> {
        let source = Source::of(case, options, model)?;
        let (measurement, (height, width)) = source.whole().unwrap_or((case.measurement(), case.size));
        let mut facts = Facts::of(&measurement, (3, height, width))?;
        facts.damage = match facts.damage {
            _ if case.luma.is_some() => Damage::Colours,
            // Who asks for steps asks for a walk.
            Damage::Noise if options.steps.is_some() => Damage::Other,
            damage => damage,
        };
        Self::of_source(source, plan::choose(&facts, options)?, options, model)
    }

    /// As [`new`](Self::new) with a sampler of the caller's choice, whatever name, quality, steps and settings `options` have.
    ///
    /// # Errors
    /// As [`restore`].
    pub fn with_choice(case: &'a Case, choice: Choice, options: &RestoreOptions<'_>, model: &'a Model) -> Result<Self> {
        Self::of_source(Source::of(case, options, model)?, choice, options, model)
    }

    fn of_source(source: Source<'a>, choice: Choice, options: &RestoreOptions<'_>, model: &'a Model) -> Result<Self> {
        let mut parts = Vec::new();
        if let Some((measurement, size)) = source.whole() {
            parts.push(whole_part(size));
            for (sampler, _) in Methods::new(&choice, options.samplers)?.drawing(options.samples) {
                check_suitable(sampler, options.samplers, &measurement)?;
            }
        }
        plan::prepare(source, parts, choice, 0.0, options, model)
    }

    /// The same with another way to call the model: `prior` must denoise as the model does.
    pub fn through(self, prior: &'a dyn Denoiser) -> Self {
        Self { prior, ..self }
    }

    /// What it will do and cost.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The method that draws the first sample.
    pub fn sampler(&self) -> &dyn Sampler {
        self.methods.of(0)
    }

    /// Runs, telling `observer` after every step; an error of the observer stops the run and is returned.
    ///
    /// # Errors
    /// `NonFinite` if the network fails, `Tensor` if memory runs out, and the observer's.
    pub fn run(self, observer: &mut dyn FnMut(Progress) -> Result<()>) -> Result<Restored> {
        let start = Instant::now();
        let canvas = self.source.canvas();
        let mut samples = vec![canvas.clone(); self.samples];
        let mut moments: Vec<Moments> = Vec::new();
        self.draw(observer, &mut |Drawn { part, sample, target, fill, x }| {
            samples[sample].paint(target, fill, &x)?;
            if self.samples > 1 {
                if moments.len() == part {
                    moments.push(Moments::new(target, fill));
                }
                moments[part].add(&x.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?);
            }
            Ok(())
        })?;
        Ok(Restored { samples, moments, plan: self.plan, seconds: start.elapsed().as_secs_f64() })
    }

    /// Runs as [`run`](Self::run), and returns the samples as they were drawn, neither rounded nor clamped.
    ///
    /// # Shapes
    /// Returns `[1, 3, h, w]` on the host, in `[-1, 1]` or about: every sample of the first part, then of the next; a whole
    /// photo has one part.
    /// # Errors
    /// As [`run`](Self::run).
    pub fn tensors(&self, observer: &mut dyn FnMut(Progress) -> Result<()>) -> Result<Vec<Tensor>> {
        let mut samples = Vec::with_capacity(self.parts.len() * self.samples);
        self.draw(observer, &mut |drawn| {
            samples.push(drawn.x);
            Ok(())
        })?;
        Ok(samples)
    }

    /// Draws every sample of every part, in this order, and hands each to `visit`.
    fn draw(
        &self,
        observer: &mut dyn FnMut(Progress) -> Result<()>,
        visit: &mut dyn FnMut(Drawn<'_>) -> Result<()>,
    ) -> Result<()> {
        let device = self.model.device();
        let total = self.plan.total_steps;
        let mut done = 0;
        // On a CPU one image fills every core; elsewhere a few at once hide what a call costs.
        let batch = if device.is_cpu() { 1 } else { 8 };
        for (index, part) in self.parts.iter().enumerate() {
            let region = part.region;
            let prior = tiled(self.prior, part, self.plan.tile)?.on(device)?.keeping(self.kept);
            let seen = self.seen(region)?;
            // What is painted: a part of the photo, or all of it, which may be a part of what is sampled.
            let (target, fill, offset) = match &self.source {
                Source::Holes(..) => (region, part.fill.clone(), (0, 0)),
                Source::Whole(case) => {
                    let whole = whole_part((case.canvas.height(), case.canvas.width()));
                    (whole.region, whole.fill, case.offset)
                }
                Source::Fitted(fitted) => {
                    let whole = whole_part((fitted.canvas.height(), fitted.canvas.width()));
                    (whole.region, fitted.fill.clone(), fitted.case.map_or((0, 0), |case| case.offset))
                }
            };
            let mut first = 0;
            while first < self.samples {
                let batch = self.methods.batch(first, self.samples, batch);
                let rows = batch.len();
                let mut step = |step: &Step<'_>| -> Result<()> {
                    done += rows;
                    observer(Progress { done, total, sample: first, sigma: step.sigma })
                };
                let mut x = self.draw_rows(self.methods.of(first), &prior, &seen, region, batch, &mut step)?;
                if let Source::Fitted(fitted) = &self.source {
                    x = fitted.fit.enlarged(&x)?;
                }
                x = x.narrow(2, offset.0, target.height)?.narrow(3, offset.1, target.width)?;
                if let Some(luma) = self.source.luma() {
                    x = colorize::with_luma(&x, &luma.to_device(device)?)?;
                }
                for row in 0..rows {
                    let x = x.narrow(0, row, 1)?.to_device(&Device::Cpu)?;
                    visit(Drawn { part: index, sample: first + row, target, fill: &fill, x })?;
                }
                first += rows;
            }
        }
        Ok(())
    }

    /// What was measured of a region, on the device.
    fn seen(&self, region: Region) -> Result<Seen<'_>> {
        let device = self.model.device();
        let (by, y, guess) = match &self.source {
            Source::Holes(photo, unknown) => return around(photo, &unknown.crop(region), region, device),
            Source::Whole(case) => (By::Case(case), &case.y, &case.guess),
            Source::Fitted(fitted) => (By::Fitted(fitted), &fitted.y, &fitted.guess),
        };
        let guess = guess.as_ref().map(|guess| guess.to_device(device)).transpose()?;
        Ok(Seen { by, y: y.to_device(device)?, guess })
    }

    /// Samples `rows` of a region.
    fn draw_rows(
        &self,
        sampler: &dyn Sampler,
        prior: &dyn Denoiser,
        seen: &Seen<'_>,
        region: Region,
        rows: Range<usize>,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        // One row is the measurement itself, not a copy of it.
        let y = if rows.len() == 1 { seen.y.clone() } else { Tensor::cat(&vec![&seen.y; rows.len()], 0)? };
        let measurement = Measurement { operator: seen.operator(), noise: seen.noise(), y };
        let problem = Problem { prior, measurement: &measurement, guess: seen.guess.clone() };
        let mut rng = Rng::new(self.seed, rows.start as u64..rows.end as u64).at((region.y, region.x));
        sampler.sample(&problem, (3, region.height, region.width), &mut rng, observer)
    }
}

/// One sample of one part.
struct Drawn<'a> {
    part: usize,
    sample: usize,
    /// Where it goes, and which pixels of it.
    target: Region,
    fill: &'a Mask,
    /// `[1, 3, h, w]` on the host.
    x: Tensor,
}

/// One part's measurement, on the device.
struct Seen<'a> {
    by: By<'a>,
    y: Tensor,
    guess: Option<Tensor>,
}

/// What measured it.
enum By<'a> {
    Mask(Inpaint, Gaussian),
    Case(&'a Case),
    Fitted(&'a Fitted<'a>),
}

impl Seen<'_> {
    fn operator(&self) -> &dyn ForwardOperator {
        match &self.by {
            By::Mask(mask, _) => mask,
            By::Case(case) => &*case.operator,
            By::Fitted(fitted) => fitted.operator(),
        }
    }

    fn noise(&self) -> &dyn NoiseModel {
        match &self.by {
            By::Mask(_, noise) => noise,
            By::Case(case) => &*case.noise,
            By::Fitted(fitted) => fitted.noise(),
        }
    }
}

/// A region of a photo as a measurement of the pixels that are known there, and a smooth fill of the others.
fn around(photo: &Photo, unknown: &Mask, region: Region, device: &Device) -> Result<Seen<'static>> {
    let known = unknown.tensor(Region { x: 0, y: 0, ..region }, device)?;
    let photographed = photo.tensor(region, device)?;
    let y = photographed.broadcast_mul(&known)?;
    let guess = Some(filled(&photographed, unknown)?);
    Ok(Seen { by: By::Mask(Inpaint::new(&known)?, Gaussian::new(0.0)?), y, guess })
}

/// `y` with its unknown pixels filled smoothly: `[1, C, h, w]`.
fn filled(y: &Tensor, unknown: &Mask) -> Result<Tensor> {
    let (_, channels, height, width) = y.dims4()?;
    let mut values = y.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
    let known: Vec<bool> = (0..height * width).map(|i| !unknown.is_set(i % width, i / width)).collect();
    for plane in values.chunks_mut(height * width) {
        smooth_fill(plane, &known, height, width);
    }
    Ok(Tensor::from_vec(values, (1, channels, height, width), y.device())?)
}

/// Does `then` with the model of the options, or with the embedded one.
fn with_model<T>(options: &RestoreOptions<'_>, then: impl FnOnce(&Model) -> Result<T>) -> Result<T> {
    match options.model {
        Some(model) => then(model),
        None => then(&Model::embedded(&ModelOptions::default())?),
    }
}

/// What [`inpaint`] would do.
///
/// # Errors
/// As [`inpaint`].
pub fn plan_inpaint(photo: &Photo, mask: &Mask, options: &RestoreOptions<'_>) -> Result<Plan> {
    with_model(options, |model| Ok(Restoration::inpaint(photo, mask, options, model)?.plan))
}

/// Fills the masked pixels of a photo with samples of the posterior.
///
/// Every pixel outside the mask is the photo's own, sample by sample. The result depends on the seed, the options and
/// the pixels alone, and sample `k` is the same whether one or eight are drawn.
///
/// # Errors
/// `Config` for options out of range or a mask of another size, `Unknown` for a sampler that there is not, `Memory` if
/// the smallest plan does not fit, `NonFinite` if the network fails.
pub fn inpaint(photo: &Photo, mask: &Mask, options: &RestoreOptions<'_>) -> Result<Restored> {
    inpaint_observed(photo, mask, options, &mut |_| Ok(()))
}

/// As [`inpaint`], telling `observer` after every step; an error of the observer stops the run.
///
/// # Errors
/// As [`inpaint`], and the observer's.
pub fn inpaint_observed(
    photo: &Photo,
    mask: &Mask,
    options: &RestoreOptions<'_>,
    observer: &mut dyn FnMut(Progress) -> Result<()>,
) -> Result<Restored> {
    with_model(options, |model| Restoration::inpaint(photo, mask, options, model)?.run(observer))
}

/// Draws samples of what a measurement was made of.
///
/// # Errors
/// `Config` for options out of range, `Unknown` for a sampler that there is not, `Operator` if the method needs more of the
/// operator than it offers, `Memory` if the smallest plan does not fit, `NonFinite` if the network fails.
pub fn restore(case: &Case, options: &RestoreOptions<'_>) -> Result<Restored> {
    with_model(options, |model| Restoration::new(case, options, model)?.run(&mut |_| Ok(())))
}
