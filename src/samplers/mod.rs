//! Draws from the posterior `p(x | y)`.
//!
//! | sampler | estimate of `x₀` given `x` and `y` | needs |
//! | --- | --- | --- |
//! | [`Ddnm`] | the denoised image, projected on what was measured | a pseudo-inverse |
//! | [`Pigdm`] | Tweedie's formula under a Gaussian approximation of `p(x₀ | x)` | singular values, the pullback |
//! | [`Tmpd`] | the same with the network's own covariance `σ² J` | `adjoint`, the pullback |
//! | [`Dps`] | the denoised image minus a step along the residual's gradient | `vjp`, the pullback |
//! | [`Tweedie`] | the denoised measurement, once | singular values that are all the same |
//! | [`McgDiff`] | of particles drawn towards the measurement, one by its weight | singular values |
//! | [`Tds`] | of particles guided and weighed, one by its weight | `vjp`, the pullback |
//! | [`FpsSmc`] | of particles that follow a path of measurements, one by its weight | singular values |
//!
//! Those above [`Tweedie`] anneal ([`crate::solvers::anneal`]); they differ in one closure. Those below it carry several
//! particles for each image, and are exact as these grow in number.

mod annealing;
mod ddnm;
mod dps;
mod fps_smc;
mod mcg_diff;
mod needs;
mod particles;
mod pigdm;
mod seen;
mod tds;
mod tmpd;
mod tweedie;

pub use crate::solvers::{Observer, Renoise, Step};
pub use annealing::Annealing;
pub use ddnm::Ddnm;
pub use dps::Dps;
pub use fps_smc::FpsSmc;
pub use mcg_diff::McgDiff;
pub use needs::{Needs, Noise, Structure, check_suitable, suitable};
pub use particles::{Resampling, Scheme};
pub use pigdm::Pigdm;
pub use tds::Tds;
pub use tmpd::Tmpd;
pub use tweedie::Tweedie;
pub(crate) use tweedie::even_gain;

use crate::priors::Denoiser;
use crate::solvers::{settings, within};
use crate::{Error, Result};
use candle_core::Tensor;
use std::fmt::Debug;
use std::ops::RangeInclusive;
use tweedie_operators::{Entry, Measurement, Rng};

/// A prior and a measurement: what there is to know about an image.
#[derive(Debug)]
pub struct Problem<'a> {
    /// What images are like.
    pub prior: &'a dyn Denoiser,
    /// What was measured of this one.
    pub measurement: &'a Measurement<'a>,
    /// A first guess `[B, C, H, W]`, noise is added to it; without one, sampling starts from noise around zero.
    pub guess: Option<Tensor>,
}

impl Problem<'_> {
    /// The first state of most methods, at noise level `sigma`: the guess, or zero, plus `σ n`; one draw.
    ///
    /// # Shapes
    /// Returns `[B, C, H, W]`, one row per stream, in the type and on the device of `y`; `shape` is `(C, H, W)`.
    pub fn start(&self, (channels, height, width): (usize, usize, usize), sigma: f64, rng: &mut Rng) -> Result<Tensor> {
        let y = &self.measurement.y;
        let noise = rng.normal((rng.streams(), channels, height, width), y.device())?;
        let x = (noise.to_dtype(y.dtype())? * sigma)?;
        Ok(match &self.guess {
            Some(guess) => x.broadcast_add(&guess.to_dtype(y.dtype())?)?,
            None => x,
        })
    }
}

/// A method.
pub trait Sampler: Debug + Send + Sync {
    /// One image per row of `y`; row `i` depends on `y[i]` and on stream `i` of `rng` only.
    ///
    /// # Shapes
    /// Returns `[B, C, H, W]`; `shape` is `(C, H, W)`.
    /// # Errors
    /// `Unsupported` if the method needs more of the operator or the noise than they offer; `NonFinite` with step and σ;
    /// whatever `observer` returns, which is how a caller stops a run.
    fn sample(
        &self,
        problem: &Problem<'_>,
        shape: (usize, usize, usize),
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor>;

    /// Its name in [`SAMPLERS`].
    fn name(&self) -> &'static str;

    /// What it needs of a measurement.
    fn needs(&self) -> Needs;

    /// Whether the measurement is enough for it; by default whether it meets [`needs`](Self::needs).
    ///
    /// # Errors
    /// `Operator` (`Unsupported`), naming what is missing.
    fn check(&self, measurement: &Measurement<'_>) -> Result<()> {
        self.needs().check(self.name(), measurement)
    }

    /// The noise levels it visits and how it renoises.
    fn annealing(&self) -> &Annealing;

    /// Network evaluations of a sample, given the noise levels that the prior is good for.
    fn evaluations(&self, range: &RangeInclusive<f64>) -> usize {
        self.annealing().sigmas(range).len() - 1
    }

    /// Images that it carries for each that it returns; 1 by default.
    fn particles(&self) -> usize {
        1
    }

    /// How many times a step applies the pullback of its evaluation.
    fn pullbacks(&self) -> usize;
}

/// Builds a sampler from its settings.
pub type BuildSampler = fn(toml::Table) -> Result<Box<dyn Sampler>>;

/// All samplers, by name.
pub const SAMPLERS: &[Entry<BuildSampler>] =
    &[ddnm::ENTRY, pigdm::ENTRY, dps::ENTRY, tmpd::ENTRY, tweedie::ENTRY, mcg_diff::ENTRY, tds::ENTRY, fps_smc::ENTRY];

/// The sampler of `list` called `name`, with these settings in the place of its defaults.
///
/// # Errors
/// `Unknown` with the names there are; `Config` naming a setting that is unknown or out of range.
pub fn find_sampler(list: &[Entry<BuildSampler>], name: &str, settings: toml::Table) -> Result<Box<dyn Sampler>> {
    let entry = list.iter().find(|entry| entry.name == name).ok_or_else(|| Error::Unknown {
        kind: "sampler",
        name: name.into(),
        known: list.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", "),
    })?;
    (entry.build)(settings)
}
