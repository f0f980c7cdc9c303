//! Iterative latent variable refinement, Choi et al. (2021), <https://arxiv.org/abs/2108.02938>.

use super::annealing::AnnealingSettings;
use super::spectrum::Spectrum;
use super::{Annealing, BuildSampler, Needs, Noise, Observer, Problem, Renoise, Sampler, Structure, settings, within};
use crate::Result;
use crate::schedules::Named;
use crate::solvers::{Estimate, Transition, descend, renoised};
use candle_core::Tensor;
use serde::Deserialize;
use tweedie_operators::{Entry, Rng};

/// A step of the prior, then the part that the filter φ keeps is exchanged for that of the noisy reference.
///
/// `x' = D + σ' (…)` as the prior alone would take it, then `x' ← x' + φ(ref + σ' n) − φ(x')`. The paper's φ is a low-pass filter; here
/// it is the measurement's own `φ = A⁺A`, a projection, and `ref = A⁺y`, so that for block means it is the paper's with blocks in
/// the place of its bicubic filter. The reference is noised at the level of `x'`, as in the paper; its code takes the level that is
/// left. Singular values below 1/1000 of the largest count as unseen.
///
/// The last part of the steps, `free`, is left to the prior. With `free = 0` and no noise, `A x̂ = y` to rounding.
#[derive(Clone, Debug)]
pub struct Ilvr {
    annealing: Annealing,
    /// Part of the steps, counted from the end, that are the prior's alone.
    free: f64,
}

impl Sampler for Ilvr {
    fn sample(
        &self,
        problem: &Problem<'_>,
        shape: (usize, usize, usize),
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let spectrum = Spectrum::new("ilvr", problem.measurement)?;
        let sigmas = self.annealing.sigmas(&problem.prior.sigma_range());
        let steps = sigmas.len() - 1;
        // The level at which the last refined step ends.
        let last = sigmas[steps - ((self.free * steps as f64).floor() as usize).min(steps)];
        descend(problem.start(shape, sigmas[0], rng)?, &sigmas, rng, observer, |x, level, rng| {
            let estimate = Estimate::from(problem.prior.denoise(x, level.from)?);
            let mut next = renoised(x, &estimate, level, self.annealing.renoise, rng)?;
            if level.to >= last {
                next = spectrum.paste(&next, level.to, rng)?;
            }
            Ok(Transition::by(estimate.x0, next, level))
        })
    }

    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        Needs { structure: Structure::SingularValues, noise: Noise::Any, noiseless: true }
    }

    fn annealing(&self) -> &Annealing {
        &self.annealing
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Noise levels and renoising.
    annealing: AnnealingSettings,
    /// Part of the steps.
    free: f64,
}

/// Noise levels and renoising unless told otherwise.
const ANNEALING: Annealing = Annealing {
    steps: 100,
    sigma_start: 80.0,
    sigma_end: 0.01,
    schedule: Named::VP_LINEAR,
    renoise: Renoise::Ancestral,
    ..Annealing::DEFAULT
};

impl Default for Config {
    fn default() -> Self {
        Self { annealing: AnnealingSettings::default(), free: 0.2 }
    }
}

pub(super) const ENTRY: Entry<BuildSampler> = Entry {
    name: "ilvr",
    about: "Latent variable refinement: steps of the prior, each with the measured part of a noisy reference",
    fields: &[
        ("annealing", "table of steps, sigma_start, sigma_end, rho, renoise and schedule"),
        ("free", "part of the steps at the end that are the prior's alone, 0 to 1; default 0.2"),
    ],
    example: "annealing = { steps = 4 }\nfree = 0.25",
    build: |table| {
        let Config { annealing, free } = settings("ilvr", table)?;
        Ok(Box::new(Ilvr { annealing: annealing.over(ANNEALING)?, free: within("free", free, 0.0..=1.0)? }))
    },
};
