//! Diffusion posterior sampling, Chung et al. (2023), <https://arxiv.org/abs/2209.14687>.

use super::annealing::AnnealingSettings;
use super::residual::norm_gradient;
use super::{
    Annealing, BuildSampler, Needs, Noise, Observer, Problem, Renoise, Sampler, Structure, Variance, settings, within,
};
use crate::solvers::{Estimate, Level, Transition, descend, renoised};
use crate::{Error, Result};
use candle_core::Tensor;
use serde::Deserialize;
use tweedie_operators::{Entry, Rng};

/// A step along the gradient of the residual's norm, through the denoiser.
///
/// `x̂₀ = D − ζ √((1+σ²)(1+σ'²)) σ²/(σ²−σ'²) ∇_x ‖y − A D(x; σ)‖₂`: the paper's ancestral step followed by
/// `−ζ∇‖y − A x̂₀‖`, carried from its variance-preserving coordinates to `x = x₀ + σ n`. The norm is not squared and is
/// taken for each image of the batch. At σ' = 0 the factor is `ζ √(1+σ²)`.
///
/// The authors' code clips `D` to [-1, 1], lets the gradient pass through the clip, and takes the variance of the step from
/// the network: [`clip`](Self::clip) and [`variance`](Self::variance) do as it does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dps {
    /// Noise levels and renoising.
    pub annealing: Annealing,
    /// ζ, no unit; the paper's configurations have 0.5 for inpainting with 1000 steps.
    pub scale: f64,
    /// Whether `D` is limited to [-1, 1]; values beyond get no gradient.
    pub clip: bool,
    /// Whether the norm is weighted by the mean of `1/|y|`, as the paper does for photon counts; values of y nearer to 0
    /// than a level of 255 count as one.
    pub relative: bool,
    /// Noise of the ancestral step; any but [`Variance::Small`] asks for [`Renoise::Ancestral`].
    pub variance: Variance,
}

/// The paper's scale for inpainting, in a tenth of its steps.
impl Default for Dps {
    fn default() -> Self {
        let annealing = Annealing { steps: 100, renoise: Renoise::Ancestral, ..Annealing::DEFAULT };
        Self { annealing, scale: 0.5, clip: false, relative: false, variance: Variance::Small }
    }
}

/// Least `|y|` of the relative norm: one of 255 levels.
const DARKEST: f64 = 2.0 / 255.0;

impl Dps {
    /// As [`Sampler::sample`], from the state `x` along noise levels of the caller's own: `x` is one of `sigmas[0]`, the last
    /// level is 0.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    pub fn along(
        &self,
        problem: &Problem<'_>,
        x: Tensor,
        sigmas: &[f64],
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        descend(x, sigmas, rng, observer, |x, level, rng| self.step(problem, x, level, rng))
    }

    pub(super) fn step(&self, problem: &Problem<'_>, x: &Tensor, level: Level, rng: &mut Rng) -> Result<Transition> {
        let (mut denoised, pullback) = problem.prior.denoise_with_pullback(x, level.from)?;
        let mut inside = None;
        if self.clip {
            inside = Some(denoised.abs()?.le(1.0)?.to_dtype(denoised.dtype())?);
            denoised = denoised.clamp(-1.0, 1.0)?;
        }
        let mut direction = norm_gradient(problem.measurement, &denoised)?;
        if let Some(inside) = inside {
            direction = (direction * inside)?;
        }
        if self.relative {
            let y = problem.measurement.y.abs()?.maximum(DARKEST)?.recip()?.flatten_from(1)?;
            direction = direction.broadcast_mul(&y.mean_keepdim(1)?.reshape(((), 1, 1, 1))?)?;
        }
        let gradient = pullback.apply(&direction)?;
        drop(pullback);
        let (from, to) = (level.from.powi(2), level.to.powi(2));
        let factor = ((1.0 + from) * (1.0 + to)).sqrt() * from / (from - to);
        let x0 = (denoised - gradient.affine(self.scale * factor, 0.0)?)?;
        let estimate = Estimate { x0, eps: None };
        let next = match self.variance {
            Variance::Small => renoised(x, &estimate, level, self.annealing.renoise, rng)?,
            variance => ancestral(x, &estimate.x0, level, variance, rng)?,
        };
        Ok(Transition { x0: estimate.x0, next })
    }
}

/// `x̂₀ + (σ'/σ)² (x − x̂₀) + √V n`; at σ' = 0 the estimate.
fn ancestral(x: &Tensor, x0: &Tensor, level: Level, variance: Variance, rng: &mut Rng) -> Result<Tensor> {
    if level.to == 0.0 {
        return Ok(x0.clone());
    }
    let mean = (x0 + (x - x0)?.affine((level.to / level.from).powi(2), 0.0)?)?;
    Ok((mean + rng.normal_like(x)?.affine(variance.of(level.from, level.to).sqrt(), 0.0)?)?)
}

impl Sampler for Dps {
    fn sample(
        &self,
        problem: &Problem<'_>,
        shape: (usize, usize, usize),
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let sigmas = self.annealing.sigmas(&problem.prior.sigma_range());
        self.along(problem, problem.start(shape, sigmas[0], rng)?, &sigmas, rng, observer)
    }

    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        Needs { structure: Structure::Derivative, noise: Noise::Any, noiseless: false }
    }

    fn annealing(&self) -> &Annealing {
        &self.annealing
    }

    fn pullbacks(&self) -> usize {
        1
    }
}

/// The variance, if the way of renoising has a place for it.
pub(super) fn checked_variance(variance: Variance, renoise: Renoise) -> Result<Variance> {
    if variance != Variance::Small && renoise != Renoise::Ancestral {
        let expected = "renoise = 'ancestral' beside a variance other than small".into();
        return Err(Error::Config { name: "renoise".into(), got: format!("{renoise:?}"), expected });
    }
    variance.checked()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Noise levels and renoising.
    annealing: AnnealingSettings,
    /// ζ, no unit.
    scale: f64,
    /// Whether `D` is limited to [-1, 1].
    clip: bool,
    /// Whether the norm is weighted by the mean of `1/|y|`.
    relative: bool,
    /// Noise of the ancestral step.
    variance: Variance,
}

impl Default for Config {
    fn default() -> Self {
        let Dps { annealing: _, scale, clip, relative, variance } = Dps::default();
        Self { annealing: AnnealingSettings::default(), scale, clip, relative, variance }
    }
}

pub(super) const ENTRY: Entry<BuildSampler> = Entry {
    name: "dps",
    about: "Diffusion posterior sampling: a gradient step on the residual's norm, for any operator",
    fields: &[
        ("annealing", "table of steps, sigma_start, sigma_end, rho, renoise and schedule"),
        ("scale", "ζ, the length of the guiding step, no unit; default 0.5"),
        ("clip", "whether the denoised image is limited to [-1, 1], as in the authors' code; default false"),
        ("relative", "whether the norm is weighted by the mean of 1/|y|, for photon counts; default false"),
        ("variance", "noise of the ancestral step: small, large or { learned = 0 to 1 }; default small"),
    ],
    example: "annealing = { steps = 4 }\nscale = 0.5",
    build: |table| {
        let Config { annealing, scale, clip, relative, variance } = settings("dps", table)?;
        let annealing = annealing.over(Dps::default().annealing)?;
        let variance = checked_variance(variance, annealing.renoise)?;
        Ok(Box::new(Dps { annealing, scale: within("scale", scale, 0.0..=1e6)?, clip, relative, variance }))
    },
};
