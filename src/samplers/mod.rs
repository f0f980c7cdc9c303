//! Draws from the posterior `p(x | y)`.
//!
//! | sampler | estimate of `x₀` given `x` and `y` | needs |
//! | --- | --- | --- |
//! | [`Ddnm`] | the denoised image, projected on what was measured | a pseudo-inverse |
//! | [`Pigdm`] | Tweedie's formula under a Gaussian approximation of `p(x₀ | x)` | `adjoint`, the pullback |
//! | [`Tmpd`] | the same with the network's own covariance `σ² J` | `adjoint`, the pullback |
//! | [`Dps`] | the denoised image minus a step along the residual's gradient | `vjp`, the pullback |
//! | [`LgdMc`] | the same with the gradient averaged over images around the denoised one | `vjp`, the pullback |
//! | [`Mcg`] | as [`Dps`], the next state projected on the noised measurement | a pseudo-inverse, the pullback |
//! | [`Mpgd`] | the denoised image minus the gradient there | `vjp` |
//! | [`Daps`] | the end of the probability-flow ODE, then Langevin steps | `vjp` |
//! | [`Sitcom`] | the denoised image of a state that Adam moves until it fits | `vjp`, the pullback |
//! | [`RedDiff`] | an image that Adam moves towards `y` and what the denoiser leaves as it is | `vjp` |
//! | [`PnpDm`] | draws from likelihood and prior in turn | a linear operator and Gaussian noise, else a density |
//! | [`Tweedie`] | the denoised measurement, once | singular values that are all the same |
//! | [`Replacement`] | Langevin dynamics, the measured part pasted in before every step | singular values |
//! | [`ScoreSde`] | predictor and corrector, the measured part pasted in after every move | singular values |
//! | [`Projection`] | the same, drawn towards the measurement before every move | singular values |
//! | [`Ald`] | Langevin dynamics along the scores of prior and likelihood | `vjp` |
//! | [`Snips`] | Langevin dynamics with measured and added noise coupled | singular values |
//! | [`Ilvr`] | steps of the prior, each with the measured part of a noisy reference | singular values |
//! | [`RePaint`] | steps of the prior with the measured part pasted in, up and down | singular values |
//! | [`Dmps`] | the denoised image plus the likelihood's score under an uninformative prior | `adjoint` |
//! | [`Ddrm`] | a step for every singular vector, by the noise of its measurement | singular values |
//! | [`DdnmPlus`] | the denoised image, projected as far as the measurement's noise allows | singular values |
//! | [`DiffPir`] | the proximal map of the denoised image | `adjoint`, or `vjp` |
//! | [`McgDiff`] | of particles drawn towards the measurement, one by its weight | singular values |
//! | [`Tds`] | of particles guided and weighed, one by its weight | `vjp`, the pullback |
//! | [`FpsSmc`] | of particles that follow a path of measurements, one by its weight | singular values |
//!
//! Most anneal ([`crate::solvers::anneal`]) and differ in one closure; the others have a loop over the same levels
//! ([`crate::solvers::descend`]). Those that work in the coordinates of the singular vectors take singular values below 1/1000
//! of the largest for zero. The last three carry several particles for each image, and are exact as these grow in number.

mod adam;
mod ald;
mod annealing;
mod auto;
mod covariance;
mod daps;
mod ddnm;
mod ddnm_plus;
mod ddrm;
mod diffpir;
mod dmps;
mod dps;
mod fps_smc;
mod ilvr;
mod inner;
mod langevin;
mod lgd_mc;
mod mcg;
mod mcg_diff;
mod mpgd;
mod nearest;
mod needs;
mod particles;
mod pigdm;
mod pnp_dm;
mod predictor_corrector;
mod projection;
mod red_diff;
mod repaint;
mod replacement;
mod residual;
mod score_sde;
mod seen;
mod sitcom;
mod snips;
mod spectrum;
mod tds;
mod tmpd;
mod travel;
mod tweedie;
mod variance;

pub use crate::solvers::{Observer, Renoise, Step};
pub use ald::Ald;
pub use annealing::Annealing;
pub use auto::{Choice, Damage, Facts, Quality};
pub use daps::Daps;
pub use ddnm::Ddnm;
pub use ddnm_plus::DdnmPlus;
pub use ddrm::Ddrm;
pub use diffpir::DiffPir;
pub use dmps::Dmps;
pub use dps::Dps;
pub use fps_smc::FpsSmc;
pub use ilvr::Ilvr;
pub use lgd_mc::LgdMc;
pub use mcg::{Mcg, ProjectAt};
pub use mcg_diff::McgDiff;
pub use mpgd::Mpgd;
pub use needs::{Needs, Noise, Structure, check_suitable, suitable};
pub use particles::{Resampling, Scheme};
pub use pigdm::Pigdm;
pub use pnp_dm::{PnpDm, Reverse};
pub use projection::Projection;
pub use red_diff::{RedDiff, Weight};
pub use repaint::RePaint;
pub use replacement::Replacement;
pub use score_sde::ScoreSde;
pub use sitcom::Sitcom;
pub use snips::Snips;
pub use tds::Tds;
pub use tmpd::Tmpd;
pub use tweedie::Tweedie;
use tweedie::even_gain;
pub use variance::Variance;

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
        let shape = Tensor::zeros((rng.streams(), channels, height, width), y.dtype(), y.device())?;
        self.guessed((rng.normal_like(&shape)? * sigma)?)
    }

    /// `x` plus the guess, if there is one.
    fn guessed(&self, x: Tensor) -> Result<Tensor> {
        Ok(match &self.guess {
            Some(guess) => x.broadcast_add(&guess.to_dtype(x.dtype())?)?,
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

    /// Steps of a run, which is how often an observer is called, given the noise levels that the prior is good for.
    fn steps(&self, range: &RangeInclusive<f64>) -> usize {
        self.annealing().sigmas(range).len() - 1
    }

    /// Network evaluations of a sample; by default one a step.
    fn evaluations(&self, range: &RangeInclusive<f64>) -> usize {
        self.steps(range)
    }

    /// Images that it carries for each that it returns; 1 by default.
    fn particles(&self) -> usize {
        1
    }

    /// How many times a step applies the pullback of its evaluation; by default not at all.
    fn pullbacks(&self) -> usize {
        0
    }
}

/// Builds a sampler from its settings.
pub type BuildSampler = fn(toml::Table) -> Result<Box<dyn Sampler>>;

/// All samplers, by name.
pub const SAMPLERS: &[Entry<BuildSampler>] = &[
    ddnm::ENTRY,
    pigdm::ENTRY,
    dps::ENTRY,
    tmpd::ENTRY,
    tweedie::ENTRY,
    replacement::ENTRY,
    score_sde::ENTRY,
    projection::ENTRY,
    ald::ENTRY,
    snips::ENTRY,
    ilvr::ENTRY,
    repaint::ENTRY,
    dmps::ENTRY,
    ddrm::ENTRY,
    ddnm_plus::ENTRY,
    diffpir::ENTRY,
    lgd_mc::ENTRY,
    mcg::ENTRY,
    mpgd::ENTRY,
    daps::ENTRY,
    sitcom::ENTRY,
    red_diff::ENTRY,
    pnp_dm::ENTRY,
    mcg_diff::ENTRY,
    tds::ENTRY,
    fps_smc::ENTRY,
];

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
