//! Inpainting with resampling, Lugmayr et al. (2022), <https://arxiv.org/abs/2201.09865>.

use super::annealing::AnnealingSettings;
use super::spectrum::Spectrum;
use super::travel::{Travel, below};
use super::{Annealing, BuildSampler, Needs, Noise, Observer, Problem, Renoise, Sampler, Structure, settings};
use crate::Result;
use crate::schedules::Named;
use crate::solvers::{Estimate, Level, Transition, descend, renoised};
use candle_core::Tensor;
use serde::Deserialize;
use std::ops::RangeInclusive;
use tweedie_operators::{Entry, Rng};

/// Steps of the prior from states with the measured part pasted in, and back up again and again, until both parts agree.
///
/// Down: `x ← V [ȳ + σ n̄ where seen, else Vᵀx]`, `ȳ = Uᵀy / s`, then `x' = D + σ' (…)`. Up from σ' to σ, several levels at once, which is the
/// same in law as one by one: `x ← x' + √(σ²−σ'²) n`. A step is one move down with the jump that follows, if one does; the paper's
/// learned variance is that of `renoise`. Singular values below 1/1000 of the largest count as unseen.
///
/// A measurement without noise is pasted over the result, so that `A x̂ = y` to rounding. Exact where the prior makes the
/// seen and the unseen coordinates independent, as steps grow.
#[derive(Clone, Debug)]
pub struct RePaint {
    annealing: Annealing,
    travel: Travel,
}

impl Sampler for RePaint {
    fn sample(
        &self,
        problem: &Problem<'_>,
        shape: (usize, usize, usize),
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let spectrum = Spectrum::new("repaint", problem.measurement)?;
        let sigmas = self.annealing.sigmas(&problem.prior.sigma_range());
        let path = self.travel.path(&sigmas);
        descend(problem.start(shape, sigmas[0], rng)?, &path, rng, observer, |x, level, rng| {
            let x = spectrum.paste(x, level.from, rng)?;
            let estimate = Estimate::from(problem.prior.denoise(&x, level.from)?);
            let down = Level { to: below(&sigmas, level.from), ..level };
            let mut next = renoised(&x, &estimate, down, self.annealing.renoise, rng)?;
            if level.to > down.to {
                let spread = (level.to.powi(2) - down.to.powi(2)).sqrt();
                next = (next + rng.normal_like(&x)?.affine(spread, 0.0)?)?;
            }
            if level.to == 0.0 {
                next = spectrum.finish(next)?;
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

    fn steps(&self, range: &RangeInclusive<f64>) -> usize {
        self.travel.path(&self.annealing.sigmas(range)).len() - 1
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Noise levels and renoising.
    annealing: AnnealingSettings,
    /// Jumps back up.
    travel: Travel,
}

/// Noise levels and renoising unless told otherwise.
const ANNEALING: Annealing = Annealing {
    steps: 250,
    sigma_start: 80.0,
    sigma_end: 0.01,
    schedule: Named::VP_LINEAR,
    renoise: Renoise::Ancestral,
    ..Annealing::DEFAULT
};

impl Default for Config {
    fn default() -> Self {
        Self { annealing: AnnealingSettings::default(), travel: Travel { length: 10, visits: 10 } }
    }
}

pub(super) const ENTRY: Entry<BuildSampler> = Entry {
    name: "repaint",
    about: "Steps of the prior with the measured part pasted in, up and down the noise levels many times",
    fields: &[
        ("annealing", "table of steps, sigma_start, sigma_end, rho, renoise and schedule"),
        (
            "travel",
            "table of length, the levels of a jump back up, and visits of each turning point; default 10 and 10",
        ),
    ],
    example: "annealing = { steps = 4 }\ntravel = { length = 2, visits = 2 }",
    build: |table| {
        let Config { annealing, travel } = settings("repaint", table)?;
        Ok(Box::new(RePaint { annealing: annealing.over(ANNEALING)?, travel: travel.checked()? }))
    },
};
