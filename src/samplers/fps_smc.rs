//! Filtering posterior sampling, Dou and Song (2024), <https://openreview.net/forum?id=tplXNcHZs1>.

use super::annealing::AnnealingSettings;
use super::particles::{Cloud, Resampling, checked_particles, checked_renoise};
use super::seen::Seen;
use super::{Annealing, BuildSampler, Needs, Noise, Observer, Problem, Renoise, Sampler, Structure, settings};
use crate::Result;
use crate::solvers::{Transition, descend};
use candle_core::Tensor;
use serde::Deserialize;
use std::ops::RangeInclusive;
use tweedie_operators::{Entry, Rng};

/// Particles that follow a path of measurements, one for every noise level.
///
/// The path is the diffusion of the measurement, in singular coordinates `Ȳ' = ȳ + √(1−ζ) (σ'/σ)(Ȳ − ȳ) + √ζ σ' z`, the same
/// for all particles of an image, so that `Ȳ = x + τ n` with the one noise of the measurement at every level,
/// `τ = σ_y/s`. A particle goes to a draw from `N(m, v) N(Ȳ'; x', τ²)`, `m = D + √(1−ζ) σ' (x − D)/σ`, `v = ζ σ'²`; its
/// weight is `N(Ȳ'; m, v + τ²)`.
///
/// These weights are exact without noise, as particles and steps grow. With noise they count the measurement once for every
/// level, although its noise is the same in all: the draws come out too certain. With `own_noise` every particle has a
/// noise of its own, `n ~ N(0, 1)`, drawn at the start and kept, and follows `Ȳ − τ n` as if that had no noise: the weights
/// `N(Ȳ' − τ n; m, v)` are exact again, and resampling chooses the noise along with the image. That takes more particles
/// the more is measured; for more than a dozen numbers the paper's bias is the lesser evil.
///
/// The paper has ζ = 0.95 at every step, whose limit of many steps is another distribution than the prior's; ancestral
/// steps converge.
#[derive(Clone, Debug)]
pub struct FpsSmc {
    annealing: Annealing,
    particles: usize,
    resampling: Resampling,
    /// Whether every particle has a noise of its own.
    own_noise: bool,
}

impl Sampler for FpsSmc {
    fn sample(
        &self,
        problem: &Problem<'_>,
        shape: (usize, usize, usize),
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let seen = Seen::new("fps_smc", problem.measurement)?;
        let sigmas = self.annealing.sigmas(&problem.prior.sigma_range());
        let cloud = Cloud::new(self.particles, self.resampling, rng.streams(), &problem.measurement.y)?;
        let unseen = seen.mask.affine(-1.0, 1.0)?;
        // τ n for each particle, or τ² of the noise that is left to all.
        let (mut own, noise) = if self.own_noise {
            let shape = (rng.streams(), shape.0, shape.1, shape.2);
            let like = cloud.repeat(&seen.values.broadcast_as(shape)?.contiguous()?)?;
            let own = cloud.normal(&like, rng)?.broadcast_mul(&seen.levels)?;
            (Some(own), seen.levels.zeros_like()?)
        } else {
            (None, seen.levels.sqr()?)
        };
        let followed = |path: &Tensor, own: &Option<Tensor>| -> Result<Tensor> {
            let path = cloud.repeat(path)?;
            Ok(match own {
                Some(own) => path.broadcast_sub(own)?,
                None => path,
            })
        };
        // K = v/(v + τ²) and 1/(v + τ²) where something is seen.
        let share_of = |variance: f64| -> Result<(Tensor, Tensor)> {
            let total = (noise.affine(1.0, variance)? + &unseen)?;
            let precision = (&seen.mask / total)?;
            Ok((precision.affine(variance, 0.0)?, precision))
        };
        let row = rng.normal((rng.streams(), shape.0, shape.1, shape.2), problem.measurement.y.device())?;
        let mut path = (row.to_dtype(seen.values.dtype())? * sigmas[0])?.broadcast_add(&seen.values)?;
        let start = cloud.start(problem, shape, sigmas[0], rng)?;
        let y = followed(&path, &own)?;
        let mut state = seen.drawn_towards(problem, &start, &y, &share_of(sigmas[0].powi(2))?.0)?;
        let mut images = seen.image(&state)?;
        let mut log_weights = cloud.sums(&state)?.zeros_like()?;
        descend(cloud.first(&images)?, &sigmas, rng, observer, |_, level, rng| {
            let denoised = problem.prior.denoise(&images, level.from)?;
            let d = seen.spectrum(&denoised)?;
            let fraction = self.annealing.renoise.fraction(level.from, level.to);
            let kept = (1.0 - fraction).max(0.0).sqrt() * level.to / level.from;
            let mean = (&d + (&state - &d)?.affine(kept, 0.0)?)?;
            // The last step goes to x₀, for which p(x₀ | x) is taken to be as wide as the noise.
            let last = level.to == 0.0;
            let variance = if last { level.from.powi(2) } else { fraction * level.to.powi(2) };
            let mut next_path = (&path.broadcast_sub(&seen.values)? * kept)?;
            if !last {
                let fresh = (rng.normal_like(&next_path)? * variance.sqrt())?;
                next_path = (next_path + fresh)?;
            }
            next_path = next_path.broadcast_add(&seen.values)?;
            let next_y = followed(&next_path, &own)?;
            let (share, precision) = share_of(variance)?;
            let twice = next_y.broadcast_sub(&mean)?.sqr()?.broadcast_mul(&precision)?;
            log_weights = (&log_weights - (cloud.sums(&twice)? * 0.5)?)?;
            let next = next_y.broadcast_mul(&share)?.broadcast_add(&mean.broadcast_mul(&share.affine(-1.0, 1.0)?)?)?;
            if last {
                let x0 = cloud.pick(&seen.image(&next)?, &log_weights, rng)?;
                return Ok(Transition { next: x0.clone(), x0 });
            }
            let x0 = cloud.mean(&denoised, &log_weights)?;
            let (chosen, left) = cloud.resample(&log_weights, rng)?;
            log_weights = left;
            own = own.as_ref().map(|own| own.index_select(&chosen, 0)).transpose()?;
            // √(K τ²) where something is seen, √v elsewhere.
            let std = ((&share * &noise)? + unseen.affine(variance, 0.0)?)?.sqrt()?;
            state = (next.index_select(&chosen, 0)? + cloud.normal(&next, rng)?.broadcast_mul(&std)?)?;
            images = seen.image(&state)?;
            path = next_path;
            Ok(Transition { x0, next: cloud.first(&images)? })
        })
    }

    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        Needs { structure: Structure::SingularValues, noise: Noise::Gaussian, noiseless: false }
    }

    fn annealing(&self) -> &Annealing {
        &self.annealing
    }

    fn evaluations(&self, range: &RangeInclusive<f64>) -> usize {
        self.particles * (self.annealing.sigmas(range).len() - 1)
    }

    fn particles(&self) -> usize {
        self.particles
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Noise levels and renoising.
    annealing: AnnealingSettings,
    /// Particles for each image.
    particles: usize,
    /// When and how they are resampled.
    resampling: Resampling,
    /// Whether every particle has a noise of its own.
    own_noise: bool,
}

/// Noise levels and renoising unless told otherwise.
const ANNEALING: Annealing = Annealing { steps: 100, renoise: Renoise::Ancestral, ..Annealing::DEFAULT };

impl Default for Config {
    fn default() -> Self {
        Self {
            annealing: AnnealingSettings::default(),
            particles: 20,
            resampling: Resampling::default(),
            own_noise: false,
        }
    }
}

pub(super) const ENTRY: Entry<BuildSampler> = Entry {
    name: "fps_smc",
    about: "Filtering posterior sampling: particles follow a path of measurements, one for every noise level",
    fields: &[
        ("annealing", "table of steps, sigma_start, sigma_end, rho and renoise, which must not be none"),
        ("particles", "particles for each image, each one network evaluation a step; default 20"),
        (
            "resampling",
            "table of scheme, systematic or multinomial, and threshold, the fraction of effective particles to resample at; \
             default systematic, 1 (always)",
        ),
        (
            "own_noise",
            "whether every particle has a noise of its own, which is exact and for a few measured numbers; false is the \
             paper's; default false",
        ),
    ],
    example: "annealing = { steps = 4, renoise = \"ancestral\" }\nparticles = 2",
    build: |table| {
        let Config { annealing, particles, resampling, own_noise } = settings("fps_smc", table)?;
        let annealing = annealing.over(ANNEALING)?;
        checked_renoise(annealing.renoise)?;
        let (particles, resampling) = (checked_particles(particles)?, resampling.checked()?);
        Ok(Box::new(FpsSmc { annealing, particles, resampling, own_noise }))
    },
};
