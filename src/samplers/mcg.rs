//! Manifold-constrained gradients, Chung et al. (2022), <https://arxiv.org/abs/2206.00941>.

use super::annealing::AnnealingSettings;
use super::dps::checked_variance;
use super::{
    Annealing, BuildSampler, Dps, Needs, Noise, Observer, Problem, Sampler, Structure, Variance, settings, within,
};
use crate::Result;
use crate::solvers::{Level, Transition, descend};
use candle_core::Tensor;
use serde::Deserialize;
use tweedie_operators::{CgParams, Entry, Rng, pseudo_inverse};

/// How noisy a measurement the state is projected on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProjectAt {
    /// `y + σ' n`, of the level being entered: the paper.
    #[default]
    Entered,
    /// `√((1+σ'²)/(1+σ²)) (y + σ n)`, of the level being left and in its scale: the published code.
    Left,
}

/// [`Dps`]'s step, then a projection on the noised measurement.
///
/// `x' = x'_DPS − A⁺ (A x'_DPS − y_σ')`, `y_σ' = y + σ' n`. For measurements without noise: the result, whose level is 0,
/// has `A x' = y`, and noise of the measurement is reproduced, which is what [`Dps`] does without the projection for.
///
/// Where the decomposition and the Gram matrix are unknown conjugate gradients find `A⁺`, at most 50 of them: of a blur, whose
/// inverse is mostly noise, more would find more of that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mcg {
    /// The guided step; its [`scale`](Dps::scale) is the paper's α, 1 by default.
    pub guidance: Dps,
    /// Level of the noise in the measurement.
    pub project_at: ProjectAt,
}

impl Default for Mcg {
    fn default() -> Self {
        Self { guidance: Dps { scale: 1.0, ..Dps::default() }, project_at: ProjectAt::Entered }
    }
}

impl Mcg {
    /// As [`Dps::along`].
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
        let measurement = problem.measurement;
        let operator = measurement.linear("mcg")?;
        descend(x, sigmas, rng, observer, |x, level, rng| {
            let Transition { x0, next } = self.guidance.step(problem, x, level, rng)?;
            let y = self.noised(&measurement.y, level, rng)?;
            let misfit = operator.forward(&next)?.broadcast_sub(&y)?;
            let gradients = CgParams { max_iterations: 50, ..CgParams::default() };
            let next = (next - pseudo_inverse(operator, &misfit, &gradients)?.0)?;
            Ok(Transition { x0: if level.to == 0.0 { next.clone() } else { x0 }, next })
        })
    }

    fn noised(&self, y: &Tensor, level: Level, rng: &mut Rng) -> Result<Tensor> {
        let (sigma, scale) = match self.project_at {
            ProjectAt::Entered => (level.to, 1.0),
            ProjectAt::Left => (level.from, ((1.0 + level.to.powi(2)) / (1.0 + level.from.powi(2))).sqrt()),
        };
        if sigma == 0.0 {
            return Ok(y.clone());
        }
        Ok((y + rng.normal_like(y)?.affine(sigma, 0.0)?)?.affine(scale, 0.0)?)
    }
}

impl Sampler for Mcg {
    fn sample(
        &self,
        problem: &Problem<'_>,
        shape: (usize, usize, usize),
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let sigmas = self.annealing().sigmas(&problem.prior.sigma_range());
        self.along(problem, problem.start(shape, sigmas[0], rng)?, &sigmas, rng, observer)
    }

    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        Needs { structure: Structure::Linear, noise: Noise::Any, noiseless: true }
    }

    fn annealing(&self) -> &Annealing {
        &self.guidance.annealing
    }

    fn pullbacks(&self) -> usize {
        1
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Noise levels and renoising.
    annealing: AnnealingSettings,
    /// α, no unit.
    scale: f64,
    /// Whether `D` is limited to [-1, 1].
    clip: bool,
    /// Noise of the ancestral step.
    variance: Variance,
    /// Level of the noise in the measurement.
    project_at: ProjectAt,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            annealing: AnnealingSettings::default(),
            scale: 1.0,
            clip: false,
            variance: Variance::Small,
            project_at: ProjectAt::Entered,
        }
    }
}

pub(super) const ENTRY: Entry<BuildSampler> = Entry {
    name: "mcg",
    about: "Manifold-constrained gradients: the step of dps, then a projection on the noised measurement",
    fields: &[
        ("annealing", "table of steps, sigma_start, sigma_end, rho and renoise"),
        ("scale", "α, the length of the guiding step, no unit; default 1"),
        ("clip", "whether the denoised image is limited to [-1, 1], as in the authors' code; default false"),
        ("variance", "noise of the ancestral step: small, large or { learned = 0 to 1 }; default small"),
        ("project_at", "noise of the measurement: entered, the paper's level, or left, the code's; default entered"),
    ],
    example: "annealing = { steps = 4 }\nscale = 0.5",
    build: |table| {
        let Config { annealing, scale, clip, variance, project_at } = settings("mcg", table)?;
        let annealing = annealing.over(Dps::default().annealing)?;
        let variance = checked_variance(variance, annealing.renoise)?;
        let scale = within("scale", scale, 0.0..=1e6)?;
        let guidance = Dps { annealing, scale, clip, relative: false, variance };
        Ok(Box::new(Mcg { guidance, project_at }))
    },
};
