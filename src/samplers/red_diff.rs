//! Regularisation by denoising diffusion, Mardani et al. (2024), <https://arxiv.org/abs/2305.04391>.

use super::adam::Adam;
use super::annealing::AnnealingSettings;
use super::residual::half_square_gradient;
use super::{Annealing, BuildSampler, Needs, Noise, Observer, Problem, Renoise, Sampler, Structure, settings, within};
use crate::Result;
use crate::schedules::Named;
use crate::solvers::{Transition, descend};
use candle_core::Tensor;
use serde::Deserialize;
use tweedie_operators::{CgParams, Entry, LinearOperator, Rng};

/// How much the prior weighs at a noise level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// `σ`: the prior's term is the residual of a denoiser, `μ − D(μ + σn; σ)`.
    #[default]
    Linear,
    /// `√σ`.
    Sqrt,
    /// `σ²`.
    Square,
    /// `ln(1 + σ)`.
    Log,
    /// `min(σ, 1)`.
    Clip,
    /// `σ^⅔`.
    TwoThirds,
    /// 1.
    Const,
}

impl Weight {
    /// f(σ).
    pub fn at(self, sigma: f64) -> f64 {
        match self {
            Self::Linear => sigma,
            Self::Sqrt => sigma.sqrt(),
            Self::Square => sigma * sigma,
            Self::Log => sigma.ln_1p(),
            Self::Clip => sigma.min(1.0),
            Self::TwoThirds => sigma.powf(2.0 / 3.0),
            Self::Const => 1.0,
        }
    }
}

/// Minimises the measurement's misfit and the denoiser's residual over images, one step of Adam a level.
///
/// At every σ, from large to small: `x = μ + σ n`, gradient `(λ f(σ)/N) (ε̂ − n) + (v/M) J_Aᵀ (A μ − y)`, `ε̂ = (x − D)/σ`, N and
/// M the numbers of values of image and measurement; `μ ← μ − Adam(l)`. μ starts at the guess if there is one, else at
/// `(AᵀA + σ_y²)⁻¹ Aᵀ y`, which without noise is the paper's `A⁺y`, where a closed form is known, else at 0.
///
/// It seeks a mode: the result is `μ`, samples of one measurement are alike, and `renoise` has no meaning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RedDiff {
    annealing: Annealing,
    /// l, pixels in [-1, 1].
    lr: f64,
    /// λ.
    prior: f64,
    /// f.
    weight: Weight,
    /// v.
    data: f64,
}

/// Decay of Adam's means, the authors' values.
const BETA: (f64, f64) = (0.9, 0.99);

impl RedDiff {
    fn start(problem: &Problem<'_>, (channels, height, width): (usize, usize, usize), rows: usize) -> Result<Tensor> {
        let measurement = problem.measurement;
        let y = &measurement.y;
        let zeros = Tensor::zeros((rows, channels, height, width), y.dtype(), y.device())?;
        if let Some(guess) = &problem.guess {
            return Ok(zeros.broadcast_add(&guess.to_dtype(y.dtype())?)?);
        }
        let linear = measurement.operator.as_linear();
        let closed = |linear: &dyn LinearOperator| linear.as_gram().is_some() || linear.as_spectral().is_some();
        if linear.is_some_and(closed) && measurement.noise.gaussian_sigma().is_some() {
            return Ok(measurement.prox_with(&zeros, 1.0, &CgParams::default())?.0);
        }
        Ok(zeros)
    }
}

impl Sampler for RedDiff {
    fn sample(
        &self,
        problem: &Problem<'_>,
        shape: (usize, usize, usize),
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let sigmas = self.annealing.sigmas(&problem.prior.sigma_range());
        let mut mean = Self::start(problem, shape, rng.streams())?;
        let values = (shape.0 * shape.1 * shape.2) as f64;
        let measured = problem.measurement.y.dims()[1..].iter().product::<usize>() as f64;
        let mut adam = Adam::new(self.lr, BETA);
        let mut noise = rng.normal_like(&mean)?;
        let x = (&mean + noise.affine(sigmas[0], 0.0)?)?;
        descend(x, &sigmas, rng, observer, |x, level, rng| {
            let denoised = problem.prior.denoise(x, level.from)?;
            let of_prior = ((x - denoised)?.affine(level.from.recip(), 0.0)? - &noise)?;
            let of_data = half_square_gradient(problem.measurement, &mean)?;
            let weight = self.prior * self.weight.at(level.from) / values;
            let gradient = (of_prior.affine(weight, 0.0)? + of_data.affine(self.data / measured, 0.0)?)?;
            mean = (&mean - adam.step(&gradient)?)?;
            if level.to == 0.0 {
                return Ok(Transition { x0: mean.clone(), next: mean.clone() });
            }
            noise = rng.normal_like(&mean)?;
            Ok(Transition { x0: mean.clone(), next: (&mean + noise.affine(level.to, 0.0)?)? })
        })
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
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Noise levels.
    annealing: AnnealingSettings,
    /// l, pixels in [-1, 1].
    lr: f64,
    /// λ.
    prior: f64,
    /// f.
    weight: Weight,
    /// v.
    data: f64,
}

/// Noise levels and renoising unless told otherwise.
const ANNEALING: Annealing = Annealing {
    steps: 100,
    sigma_start: 150.0,
    sigma_end: 0.01,
    schedule: Named::VP_LINEAR,
    renoise: Renoise::All,
    ..Annealing::DEFAULT
};

impl Default for Config {
    fn default() -> Self {
        Self { annealing: AnnealingSettings::default(), lr: 0.1, prior: 0.25, weight: Weight::Linear, data: 1.0 }
    }
}

pub(super) const ENTRY: Entry<BuildSampler> = Entry {
    name: "red_diff",
    about: "Regularisation by denoising: minimises misfit and denoising residual, a mode and not a sample",
    fields: &[
        ("annealing", "table of steps, sigma_start, sigma_end and rho; renoise has no meaning here"),
        ("lr", "step of Adam, pixels in [-1, 1]; the paper has 0.1 to 0.5; default 0.1"),
        ("prior", "λ, weight of the prior; default 0.25"),
        ("weight", "f(σ): linear, sqrt, square, log, clip, two_thirds or const; default linear"),
        ("data", "v, weight of the measurement; default 1"),
    ],
    example: "annealing = { steps = 4 }\nlr = 0.1",
    build: |table| {
        let Config { annealing, lr, prior, weight, data } = settings("red_diff", table)?;
        Ok(Box::new(RedDiff {
            annealing: annealing.over(ANNEALING)?,
            lr: within("lr", lr, 0.0..=1e3)?,
            prior: within("prior", prior, 0.0..=1e6)?,
            weight,
            data: within("data", data, 0.0..=1e6)?,
        }))
    },
};
