//! Decoupled annealing posterior sampling, Zhang et al. (2024), <https://arxiv.org/abs/2407.01521>.

use super::annealing::AnnealingSettings;
use super::inner::flow;
use super::residual::half_square_gradient;
use super::{Annealing, BuildSampler, Needs, Noise, Observer, Problem, Renoise, Sampler, Structure, settings, within};
use crate::Result;
use crate::schedules::{Karras, Schedule};
use crate::solvers::anneal;
use candle_core::Tensor;
use serde::Deserialize;
use std::ops::RangeInclusive;
use tweedie_operators::{Entry, Rng};

/// At every level: a clean image along the probability-flow ODE, Langevin steps towards what was measured, fresh noise.
///
/// 1. `x̂₀` from `(x, σ)` by a few Euler steps along Karras' points down to `ode_end`, ρ that of the levels;
/// 2. from `u = x̂₀`, k times `u ← u + l [−∇‖A u − y‖²/τ² + (x̂₀ − u)/σ²] + √(2l) n`, where the step `l` falls linearly
///    from the first level to `decay` of itself behind the last;
/// 3. `x' = u + σ' n`.
///
/// The square has no factor ½, as in the authors' code, so Gaussian noise of σ_y is `τ = √2 σ_y`; their own τ is 0.01
/// for every noise. With `momentum` γ step 2 is Hamiltonian, `v ← γ v + √l g + √(2(1−γ)) n`,
/// `u ← u + √l v` with the same `g` in brackets, `v` standard normal at first. A step is stable while
/// `l (2s²/τ² + 1/σ²) < 2` for the largest singular value s and the least σ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Daps {
    annealing: Annealing,
    /// Euler steps of the ODE, each one network evaluation.
    ode_steps: usize,
    /// Where the ODE ends, limited to what the prior is good for.
    ode_end: f64,
    /// Langevin steps a level.
    langevin_steps: usize,
    /// Langevin step at the first level, the square of the unit of pixels.
    lr: f64,
    /// What is left of the step in the end.
    decay: f64,
    /// τ, the unit of the measurement.
    tau: f64,
    /// γ of the Hamiltonian form; 0 is Langevin's.
    momentum: f64,
}

impl Daps {
    /// Levels of the ODE from `sigma`; the last one is where it ends, 0 if a single evaluation is all there is to do.
    fn ode(&self, sigma: f64, range: &RangeInclusive<f64>) -> Vec<f64> {
        let end = self.ode_end.max(*range.start());
        if sigma <= end {
            return vec![sigma, 0.0];
        }
        let mut sigmas = Karras { steps: self.ode_steps + 1, rho: self.annealing.rho }.sigmas(&(end..=sigma));
        sigmas.pop();
        // Exactly, whatever its root and power have done.
        sigmas[0] = sigma;
        sigmas
    }

    /// Draws from about `p(u | y) ∝ p(y | u) N(u; x̂₀, σ²)`.
    fn langevin(&self, problem: &Problem<'_>, x0: &Tensor, sigma: f64, lr: f64, rng: &mut Rng) -> Result<Tensor> {
        let mut u = x0.clone();
        let mut velocity = if self.momentum > 0.0 { Some(rng.normal_like(x0)?) } else { None };
        for _ in 0..self.langevin_steps {
            let of_data = half_square_gradient(problem.measurement, &u)?.affine(-2.0 / self.tau.powi(2), 0.0)?;
            let gradient = (of_data + (x0 - &u)?.affine(sigma.powi(-2), 0.0)?)?;
            let noise = rng.normal_like(x0)?;
            let change = match velocity.take() {
                None => (gradient.affine(lr, 0.0)? + noise.affine((2.0 * lr).sqrt(), 0.0)?)?,
                Some(before) => {
                    let pushed = (before.affine(self.momentum, 0.0)? + gradient.affine(lr.sqrt(), 0.0)?)?;
                    let now = (pushed + noise.affine((2.0 * (1.0 - self.momentum)).sqrt(), 0.0)?)?;
                    let change = now.affine(lr.sqrt(), 0.0)?;
                    velocity = Some(now);
                    change
                }
            };
            u = (u + change)?;
        }
        Ok(u)
    }
}

impl Sampler for Daps {
    fn sample(
        &self,
        problem: &Problem<'_>,
        shape: (usize, usize, usize),
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let range = problem.prior.sigma_range();
        let sigmas = self.annealing.sigmas(&range);
        let levels = (sigmas.len() - 1) as f64;
        let mut step = 0;
        anneal(
            problem.start(shape, sigmas[0], rng)?,
            &sigmas,
            self.annealing.renoise,
            rng,
            observer,
            |x, level, rng| {
                let x0 = flow(problem.prior, x.clone(), &self.ode(level.from, &range), rng, step)?;
                let lr = self.lr * (1.0 + step as f64 / levels * (self.decay - 1.0));
                step += 1;
                self.langevin(problem, &x0, level.from, lr, rng)
            },
        )
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

    fn evaluations(&self, range: &RangeInclusive<f64>) -> usize {
        let sigmas = self.annealing.sigmas(range);
        sigmas[..sigmas.len() - 1].iter().map(|&sigma| self.ode(sigma, range).len() - 1).sum()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Noise levels and renoising.
    annealing: AnnealingSettings,
    /// Euler steps of the ODE.
    ode_steps: usize,
    /// Where the ODE ends.
    ode_end: f64,
    /// Langevin steps a level.
    langevin_steps: usize,
    /// Langevin step at the first level.
    lr: f64,
    /// What is left of the step in the end.
    decay: f64,
    /// τ, the unit of the measurement.
    tau: f64,
    /// γ.
    momentum: f64,
}

/// Noise levels and renoising unless told otherwise.
const ANNEALING: Annealing =
    Annealing { steps: 200, sigma_start: 100.0, sigma_end: 0.1, rho: 7.0, renoise: Renoise::All, ..Annealing::DEFAULT };

impl Default for Config {
    fn default() -> Self {
        Self {
            annealing: AnnealingSettings::default(),
            ode_steps: 5,
            ode_end: 0.01,
            langevin_steps: 100,
            lr: 5e-5,
            decay: 0.01,
            tau: 0.01,
            momentum: 0.0,
        }
    }
}

pub(super) const ENTRY: Entry<BuildSampler> = Entry {
    name: "daps",
    about: "Decoupled annealing: an ODE to a clean image, Langevin steps to the measurement, fresh noise",
    fields: &[
        ("annealing", "table of steps, sigma_start, sigma_end, rho and renoise"),
        ("ode_steps", "Euler steps of the ODE at every level, one evaluation each, 1 to 1000; default 5"),
        ("ode_end", "noise level where the ODE ends; default 0.01"),
        ("langevin_steps", "Langevin steps at every level, 0 to 100000; default 100"),
        ("lr", "Langevin step at the first level; the paper has 1e-4 and 5e-5; default 5e-5"),
        ("decay", "what is left of lr behind the last level, 0 to 1; default 0.01"),
        ("tau", "τ, assumed error of the measurement, √2 σ for Gaussian noise of σ; default 0.01"),
        ("momentum", "γ of the Hamiltonian form, 0 to below 1, 0 is Langevin's; default 0"),
    ],
    example: "annealing = { steps = 3 }\node_steps = 2\nlangevin_steps = 5",
    build: |table| {
        let Config { annealing, ode_steps, ode_end, langevin_steps, lr, decay, tau, momentum } =
            settings("daps", table)?;
        within("ode_steps", ode_steps as f64, 1.0..=1000.0)?;
        within("langevin_steps", langevin_steps as f64, 0.0..=100_000.0)?;
        Ok(Box::new(Daps {
            annealing: annealing.over(ANNEALING)?,
            ode_steps,
            ode_end: within("ode_end", ode_end, 1e-4..=1e4)?,
            langevin_steps,
            lr: within("lr", lr, 0.0..=1e3)?,
            decay: within("decay", decay, 0.0..=1.0)?,
            tau: within("tau", tau, 1e-6..=1e6)?,
            momentum: within("momentum", momentum, 0.0..=0.9999)?,
        }))
    },
};
