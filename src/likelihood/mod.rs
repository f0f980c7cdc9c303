//! How likely a prior holds an image to be: the logarithm of its density, by the probability-flow ODE.
//!
//! The flow `dx/d ln σ = x − D(x; σ)` carries the density of images at σ_min to that of noise at σ_max, and on the way
//! the density changes by the divergence `tr(I − ∂D/∂x)`. With the spread `s` and the mean `m` of the prior's images the
//! standardised image `u = (x − m)/√(σ² + s²)` follows
//!
//! `du/d ln σ = (m + c (x − m) − D(x; σ))/√(σ² + s²)`, `c = s²/(σ² + s²)`
//!
//! `log p(x) = log N(u(σ_max); 0, I) − D/2 ln(σ_min² + s²) + ∫ tr(c I − ∂D/∂x) d ln σ`
//!
//! with D numbers in an image. This is the same path and the same integral in better coordinates: what a Gaussian of that
//! spread would do is done by the formula, so that the slope falls to zero at both ends of the range and only what the prior
//! knows beyond its first two moments is left to the solver; and `u` stays near 1 from σ = 0.002 to 80, so that a tolerance
//! means the same everywhere. In σ or in x the solver would follow a growth by σ_max/s.
//!
//! The trace is Hutchinson's estimate `vᵀ(c I − ∂D/∂x)v` ([`Trace`]) with probes that are held fixed along the path, or
//! exact. The density that starts the other end is `N(m, (σ_max² + s²) I)`, with `m = D(0; σ_max)(1 + s²/σ_max²)`, and not
//! `N(0, σ_max² I)`: it is exact for a Gaussian of any mean, right to the first order in `s²/σ_max²` for everything else,
//! and it is a density, so that what comes out is the density of a law whose integral is 1. (With the mean taken at every
//! image's own end, `D(x; σ_max)`, it would not be.)
//!
//! Images are integrated one after the other, each with its own steps, in double precision outside the network; none
//! depends on another.
//!
//! Chen et al. (2018), <https://arxiv.org/abs/1806.07366>; Grathwohl et al. (2019), <https://arxiv.org/abs/1810.01367>; Song et al.
//! (2021), <https://arxiv.org/abs/2011.13456>, section 4.3

mod density;
mod flow;
mod levels;
mod path;
mod trace;

pub use density::Density;
pub use levels::Levels;
pub use trace::Trace;

use crate::priors::Denoiser;
use crate::solvers::within;
use crate::{Error, Result};
use candle_core::Tensor;
use flow::Flow;
use std::ops::RangeInclusive;
use trace::Probes;
use tweedie_operators::Rng;

/// How the density of images is computed.
#[derive(Clone, Debug, PartialEq)]
pub struct Likelihood {
    /// How the divergence is; default four Rademacher probes.
    pub trace: Trace,
    /// Error of a step, relative and absolute, of the standardised image and of the integral in nats per number of the image;
    /// 1e-9 to 0.1, default 1e-4.
    pub tolerance: f64,
    /// Noise levels at which the path starts and ends; `None`, the default, for all that the prior is good for. The density
    /// is that of images with noise of the first.
    pub sigma_range: Option<RangeInclusive<f64>>,
}

impl Default for Likelihood {
    fn default() -> Self {
        Self { trace: Trace::Rademacher(4), tolerance: 1e-4, sigma_range: None }
    }
}

/// How far the density of one of the images is, after every evaluation of the prior.
#[derive(Clone, Copy, Debug)]
pub struct Stage {
    /// Index of the image.
    pub row: usize,
    /// Where the prior was evaluated.
    pub sigma: f64,
    /// Which part of the path is done, 0 to 1.
    pub done: f64,
    /// Evaluations of the prior for this image so far.
    pub evaluations: usize,
}

impl Likelihood {
    /// Whether the settings are such that a density can be computed.
    ///
    /// # Errors
    /// `Config` for a tolerance out of range and for no probes.
    pub fn check(&self) -> Result<()> {
        within("tolerance", self.tolerance, 1e-9..=0.1)?;
        self.trace.check()
    }

    /// `log p(x)` of every image; row `i` depends on `x[i]` and on stream `i` of `rng` only, to the bit.
    ///
    /// # Shapes
    /// `x`: `[B, C, H, W]`, `B` the number of streams; one draw. The prior sees the type and the device of `x`.
    /// # Errors
    /// `Config` for settings that [`check`](Self::check) refuses, for a range of σ that the prior is not good for, for an exact
    /// trace of too many numbers, and where the tolerance takes more than 20,000 evaluations; `NonFinite` with step and
    /// σ; whatever `observer` returns.
    pub fn log_density(
        &self,
        prior: &dyn Denoiser,
        x: &Tensor,
        rng: &mut Rng,
        observer: &mut dyn FnMut(&Stage) -> Result<()>,
    ) -> Result<Vec<Density>> {
        self.check()?;
        let range = self.range(prior)?;
        let probes = self.trace.draw(x, rng)?;
        let mut densities = Vec::with_capacity(probes.len());
        for (row, probes) in probes.into_iter().enumerate() {
            let image = x.narrow(0, row, 1)?.contiguous()?;
            densities
                .push(self.of_one(prior, &image, probes, &range, &mut |stage| observer(&Stage { row, ..*stage }))?);
        }
        Ok(densities)
    }

    fn of_one(
        &self,
        prior: &dyn Denoiser,
        x: &Tensor,
        probes: Probes,
        range: &RangeInclusive<f64>,
        observer: &mut dyn FnMut(&Stage) -> Result<()>,
    ) -> Result<Density> {
        let mut flow = Flow::new(prior, x, probes, range, observer)?;
        let (image, integrals) = path::follow(&mut flow, x, range, self.tolerance)?;
        let constant = flow.log_density_of_noise(&image) - flow.log_volume(*range.start());
        let nats: Vec<f64> = integrals.iter().map(|integral| constant + integral * image.len() as f64).collect();
        let (nats, standard_error) = density::mean(&nats);
        Ok(Density {
            nats,
            standard_error: if self.trace == Trace::Exact { Some(0.0) } else { standard_error },
            evaluations: flow.evaluations(),
            pullbacks: flow.pullbacks(),
        })
    }

    /// From where to where the path leads.
    fn range(&self, prior: &dyn Denoiser) -> Result<RangeInclusive<f64>> {
        let good = prior.sigma_range();
        let range = self.sigma_range.clone().unwrap_or_else(|| good.clone());
        let (start, end) = (*range.start(), *range.end());
        let refuse = |expected: String| {
            Err(Error::Config { name: "range of sigma".into(), got: format!("{start} to {end}"), expected })
        };
        if !(start > 0.0 && start < end && end.is_finite()) {
            return refuse("two numbers above 0, the smaller first".into());
        }
        if !(good.contains(&start) && good.contains(&end)) {
            return refuse(format!("levels that the prior is good for, {} to {}", good.start(), good.end()));
        }
        Ok(range)
    }
}
