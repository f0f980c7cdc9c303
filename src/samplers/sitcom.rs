//! Step-wise triple-consistent diffusion sampling, Alkhouri et al. (2024), <https://arxiv.org/abs/2410.04479>.

use super::adam::Adam;
use super::annealing::AnnealingSettings;
use super::{Annealing, BuildSampler, Needs, Noise, Observer, Problem, Renoise, Sampler, Structure, settings, within};
use crate::Result;
use crate::schedules::Named;
use crate::solvers::{Level, anneal};
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use std::ops::RangeInclusive;
use tweedie_operators::{Entry, LinearOperator, Measurement, Rng, SpectralOperator};

/// At every level: the nearest state whose denoised image fits the measurement, found by Adam through the network.
///
/// From `v = x`, minimise `‖A D(v; σ) − y‖² + λ ‖v − x‖² / (1+σ²)` by Adam with the step `l √(1+σ²)`, until
/// `‖A D(v) − y‖² < (σ_y + δ)² m` for the m values that were measured; `x̂₀ = D(v)`. Carried from the paper's
/// variance-preserving coordinates to `x = x₀ + σ n`.
///
/// Each row stops by itself and keeps its `v` from then on; the network runs `iterations` times for all
/// of them, so that nothing waits for the device. The last of these evaluations is the estimate, so there is one step of
/// Adam less.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sitcom {
    annealing: Annealing,
    /// Network evaluations a level.
    iterations: usize,
    /// l, pixels in [-1, 1] at σ = 0.
    lr: f64,
    /// λ, no unit: the code has 0.
    proximity: f64,
    /// δ, the unit of the measurement.
    slack: f64,
}

/// Decay of Adam's means, its authors' values.
const BETA: (f64, f64) = (0.9, 0.999);

impl Sampler for Sitcom {
    fn sample(
        &self,
        problem: &Problem<'_>,
        shape: (usize, usize, usize),
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let fit = Fit::new(problem.measurement, shape, self.slack)?;
        let sigmas = self.annealing.sigmas(&problem.prior.sigma_range());
        let start = problem.start(shape, sigmas[0], rng)?;
        anneal(start, &sigmas, self.annealing.renoise, rng, observer, |x, level, _| {
            self.estimate(problem, &fit, x, level)
        })
    }

    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        Needs { structure: Structure::Derivative, noise: Noise::Gaussian, noiseless: false }
    }

    fn annealing(&self) -> &Annealing {
        &self.annealing
    }

    fn evaluations(&self, range: &RangeInclusive<f64>) -> usize {
        self.iterations * (self.annealing.sigmas(range).len() - 1)
    }

    /// Of all evaluations of a level but the last.
    fn pullbacks(&self) -> usize {
        usize::from(self.iterations > 1)
    }
}

impl Sitcom {
    fn estimate(&self, problem: &Problem<'_>, fit: &Fit<'_>, x: &Tensor, level: Level) -> Result<Tensor> {
        let measurement = problem.measurement;
        let scale = 1.0 + level.from.powi(2);
        let mut adam = Adam::new(self.lr * scale.sqrt(), BETA);
        let mut v = x.clone();
        let mut active: Option<Tensor> = None;
        for _ in 1..self.iterations {
            let (denoised, pullback) = problem.prior.denoise_with_pullback(&v, level.from)?;
            let residual = measurement.operator.forward(&denoised)?.broadcast_sub(&measurement.y)?;
            let missed = fit.missed(&residual)?;
            let now = match active {
                Some(before) => (before * missed)?,
                None => missed,
            };
            let cotangent = measurement.operator.vjp(&denoised, &residual)?.affine(2.0, 0.0)?;
            let mut gradient = pullback.apply(&cotangent)?;
            drop(pullback);
            if self.proximity > 0.0 {
                gradient = (gradient + (&v - x)?.affine(2.0 * self.proximity / scale, 0.0)?)?;
            }
            v = (v - adam.step(&gradient)?.broadcast_mul(&now)?)?;
            active = Some(now);
        }
        problem.prior.denoise(&v, level.from)
    }
}

/// When a residual is no more than noise.
struct Fit<'a> {
    /// Least squared norm of a residual that is not.
    threshold: f64,
    /// Where a part of `y` is of no image, and its noise of no interest.
    unreached: Option<&'a dyn SpectralOperator>,
}

impl<'a> Fit<'a> {
    fn new(
        measurement: &Measurement<'a>,
        (channels, height, width): (usize, usize, usize),
        slack: f64,
    ) -> Result<Self> {
        let sigma = measurement.gaussian_sigma("sitcom")?;
        let linear = measurement.operator.as_linear().filter(|linear| !linear.reaches_everything());
        let unreached = linear.and_then(LinearOperator::as_spectral);
        let values = match unreached {
            Some(spectral) => {
                let s = spectral.singular_values();
                let seen = s.ne(0.0)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?;
                seen * (channels * height * width) as f64 / s.elem_count() as f64
            }
            None => measurement.y.dims()[1..].iter().product::<usize>() as f64,
        };
        Ok(Self { threshold: (sigma + slack).powi(2) * values, unreached })
    }

    /// 1 for rows whose residual is more than noise, else 0: `[B, 1, 1, 1]`.
    fn missed(&self, residual: &Tensor) -> Result<Tensor> {
        let square = match self.unreached {
            Some(spectral) => spectral.forward(&spectral.pseudo_inverse(residual)?)?.sqr()?,
            None => residual.sqr()?,
        };
        let square = square.flatten_from(1)?.sum(1)?;
        // As "not below", so that a residual that is no number is not frozen out of sight.
        let fits = square.lt(self.threshold)?.to_dtype(residual.dtype())?;
        Ok(fits.affine(-1.0, 1.0)?.reshape(((), 1, 1, 1))?)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Noise levels and renoising.
    annealing: AnnealingSettings,
    /// Network evaluations a level.
    iterations: usize,
    /// l.
    lr: f64,
    /// λ.
    proximity: f64,
    /// δ.
    slack: f64,
}

/// Noise levels and renoising unless told otherwise.
const ANNEALING: Annealing = Annealing {
    steps: 20,
    sigma_start: 150.0,
    sigma_end: 0.01,
    schedule: Named::VP_LINEAR,
    renoise: Renoise::All,
    ..Annealing::DEFAULT
};

impl Default for Config {
    fn default() -> Self {
        Self { annealing: AnnealingSettings::default(), iterations: 30, lr: 0.02, proximity: 0.0, slack: 0.001 }
    }
}

pub(super) const ENTRY: Entry<BuildSampler> = Entry {
    name: "sitcom",
    about: "Step-wise consistency: at every level the state is moved until its denoised image fits the measurement",
    fields: &[
        ("annealing", "table of steps, sigma_start, sigma_end, rho and renoise"),
        ("iterations", "network evaluations at every level, 1 to 10000; default 30"),
        ("lr", "step of Adam at σ = 0, pixels in [-1, 1]; it grows as √(1+σ²); default 0.02"),
        ("proximity", "λ, weight of the distance that the state moves, no unit; default 0"),
        ("slack", "δ, added to the noise of the measurement in the stopping rule; default 0.001"),
    ],
    example: "annealing = { steps = 3 }\niterations = 3",
    build: |table| {
        let Config { annealing, iterations, lr, proximity, slack } = settings("sitcom", table)?;
        within("iterations", iterations as f64, 1.0..=10_000.0)?;
        Ok(Box::new(Sitcom {
            annealing: annealing.over(ANNEALING)?,
            iterations,
            lr: within("lr", lr, 0.0..=1e3)?,
            proximity: within("proximity", proximity, 0.0..=1e6)?,
            slack: within("slack", slack, 0.0..=1e3)?,
        }))
    },
};
