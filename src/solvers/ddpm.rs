//! Ancestral sampling, Ho et al. (2020), <https://arxiv.org/abs/2006.11239>.

use super::levels::{Levels, RHO};
use super::{BuildSolver, Level, Observer, Solver, Transition, descend, settings, within};
use crate::Result;
use crate::priors::Denoiser;
use crate::schedules::Named;
use candle_core::Tensor;
use serde::Deserialize;
use std::ops::RangeInclusive;
use tweedie_operators::{Entry, Rng};

/// Takes `x`, a state at `sigmas[0]`, along `sigmas`: `x' = D + (σ'/σ)² (x − D) + √V n`, at σ' = 0 without noise.
///
/// `V = V_small^{1−v} V_large^v` with `V_small = σ'² (σ²−σ'²)/σ²`, right for an image that is known, called β̃, and
/// `V_large = (1+σ'²)/(1+σ²) · (σ²−σ'²)`, right for pixels of unit variance, called β. `v` is `variance`; networks that
/// learned it, Nichol and Dhariwal (2021), <https://arxiv.org/abs/2102.09672>, say a v for every pixel.
///
/// # Errors
/// As [`descend`].
pub fn ancestral(
    prior: &dyn Denoiser,
    x: Tensor,
    sigmas: &[f64],
    variance: f64,
    rng: &mut Rng,
    observer: &mut dyn Observer,
) -> Result<Tensor> {
    descend(x, sigmas, rng, observer, |x, Level { from, to }, rng| {
        let x0 = prior.denoise(x, from)?;
        if to == 0.0 {
            return Ok(Transition { next: x0.clone(), x0 });
        }
        let kept = (to / from).powi(2);
        let added = from * from - to * to;
        let (small, large) = (kept * added, (1.0 + to * to) / (1.0 + from * from) * added);
        let std = (small.powf(1.0 - variance) * large.powf(variance)).sqrt();
        let mean = (x0.affine(1.0 - kept, 0.0)? + x.affine(kept, 0.0)?)?;
        Ok(Transition { next: (mean + rng.normal_like(x)?.affine(std, 0.0)?)?, x0 })
    })
}

/// [`ancestral`] along a schedule.
#[derive(Clone, Copy, Debug)]
pub struct Ddpm {
    levels: Levels,
    variance: f64,
}

impl Solver for Ddpm {
    fn solve(
        &self,
        prior: &dyn Denoiser,
        x: Tensor,
        range: &RangeInclusive<f64>,
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        ancestral(prior, x, &self.sigmas(range), self.variance, rng, observer)
    }

    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn sigmas(&self, range: &RangeInclusive<f64>) -> Vec<f64> {
        self.levels.sigmas(range)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Noise levels above zero.
    steps: usize,
    /// How they are spaced.
    schedule: Named,
    /// ρ of Karras' schedule.
    rho: f64,
    /// v.
    variance: f64,
}

impl Default for Config {
    fn default() -> Self {
        let schedule = Named::new("vp_linear").unwrap_or_default();
        Self { steps: 1000, schedule, rho: 7.0, variance: 0.0 }
    }
}

pub(super) const ENTRY: Entry<BuildSolver> = Entry {
    name: "ddpm",
    about: "Ancestral sampling with a variance between the two bounds of DDPM",
    fields: &[
        ("steps", "noise levels above zero; default 1000"),
        ("schedule", "karras, geometric, vp_linear, vp_cosine, vp_continuous or quad; default vp_linear"),
        RHO,
        ("variance", "v, 0 for the smaller variance β̃ to 1 for the larger one β; default 0"),
    ],
    example: "steps = 4\nvariance = 0.5",
    build: |table| {
        let Config { steps, schedule, rho, variance } = settings("ddpm", table)?;
        let variance = within("variance", variance, 0.0..=1.0)?;
        Ok(Box::new(Ddpm { levels: Levels::new(steps, schedule, rho)?, variance }))
    },
};
