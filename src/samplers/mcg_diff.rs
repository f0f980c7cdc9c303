//! Monte Carlo guided diffusion, Cardoso et al. (2023), <https://arxiv.org/abs/2308.07983>.

use super::annealing::AnnealingSettings;
use super::particles::{Cloud, Resampling, checked_particles, checked_renoise};
use super::seen::Seen;
use super::{Annealing, BuildSampler, Needs, Noise, Observer, Problem, Renoise, Sampler, Structure, settings};
use crate::Result;
use crate::solvers::{Level, Transition, descend};
use candle_core::Tensor;
use serde::Deserialize;
use std::ops::RangeInclusive;
use tweedie_operators::{Entry, Rng};

/// Particles that are drawn towards the measurement as towards a state of the diffusion.
///
/// In singular coordinates `ȳ = Uᵀy/s = x₀ + τ n` with `τ = σ_y/s`: what was measured *is* a state at noise level τ. While
/// σ > τ a coordinate is proposed from the product of the prior's step `N(m, v)` and `N(ȳ; x', V(σ'))`,
/// `V(σ) = σ² − τ²`, with weights `∏ N(ȳ; m, v + V(σ')) / N(ȳ; x, V(σ))`; at σ = τ it equals ȳ, and below it diffuses
/// freely. Exact as particles and steps grow.
///
/// The paper adds κ = 10⁻⁴ to V and ends the guidance at a level of the grid; here the step that passes τ goes through it, so
/// that κ is not needed. Without noise the last step takes what was measured, weighed with `p(x₀ | x) = N(D, σ²)`. The paper
/// resamples by independent draws; systematic resampling does the same with less noise.
#[derive(Clone, Debug)]
pub struct McgDiff {
    annealing: Annealing,
    particles: usize,
    resampling: Resampling,
}

impl Sampler for McgDiff {
    fn sample(
        &self,
        problem: &Problem<'_>,
        shape: (usize, usize, usize),
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let seen = Seen::new("mcg_diff", problem.measurement)?;
        let sigmas = self.annealing.sigmas(&problem.prior.sigma_range());
        let cloud = Cloud::new(self.particles, self.resampling, rng.streams(), &problem.measurement.y)?;
        let y = cloud.repeat(&seen.values)?;
        let start = cloud.start(problem, shape, sigmas[0], rng)?;
        let active = seen.above(sigmas[0])?;
        // The start's N(g, σ²) times N(ȳ; x, V).
        let spread = seen.spread(&active, sigmas[0])?;
        let share = (&active / spread.affine(sigmas[0].powi(-2), 1.0)?)?;
        let mut state = seen.drawn_towards(problem, &start, &y, &share)?;
        let mut images = seen.image(&state)?;
        let mut log_weights = cloud.sums(&state)?.zeros_like()?;
        descend(cloud.first(&images)?, &sigmas, rng, observer, |_, level, rng| {
            let denoised = problem.prior.denoise(&images, level.from)?;
            let d = seen.spectrum(&denoised)?;
            let step = Step::new(&seen, level, self.annealing.renoise)?;
            let mean = (&d + (&state - &d)?.broadcast_mul(&step.kept)?)?;
            let ahead = y.broadcast_sub(&mean)?.sqr()?.broadcast_mul(&step.precision_ahead)?;
            let behind = y.broadcast_sub(&state)?.sqr()?.broadcast_mul(&step.precision_behind)?;
            log_weights = (&log_weights + (cloud.sums(&(behind - ahead)?)? * 0.5)?)?;
            let next = (mean.broadcast_mul(&step.of_mean)? + d.broadcast_mul(&step.of_denoised)?)?;
            let next = next.broadcast_add(&y.broadcast_mul(&step.of_y)?)?;
            if level.to == 0.0 {
                let x0 = cloud.pick(&seen.image(&next)?, &log_weights, rng)?;
                return Ok(Transition { next: x0.clone(), x0 });
            }
            let x0 = cloud.mean(&denoised, &log_weights)?;
            let (chosen, left) = cloud.resample(&log_weights, rng)?;
            log_weights = left;
            state = (next.index_select(&chosen, 0)? + cloud.normal(&next, rng)?.broadcast_mul(&step.of_noise)?)?;
            images = seen.image(&state)?;
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

/// The next state, `of_y ȳ + of_mean m + of_denoised D + of_noise z`, and what weighs it; each `[1, C, H, W]`.
struct Step {
    /// `m = D + kept (x − D)`, at the level that the coordinate goes to, or τ if that comes first.
    kept: Tensor,
    /// `1/(v + V(σ'))` where the measurement draws, 0 elsewhere.
    precision_ahead: Tensor,
    /// `1/V(σ)` there.
    precision_behind: Tensor,
    of_y: Tensor,
    of_mean: Tensor,
    of_denoised: Tensor,
    of_noise: Tensor,
}

impl Step {
    fn new(seen: &Seen<'_>, Level { from, to }: Level, renoise: Renoise) -> Result<Self> {
        let active = seen.above(from)?;
        let not = |mask: &Tensor| mask.affine(-1.0, 1.0);
        // Those that go no further than their own level, at which they are known.
        let passing = (&active - seen.above_or_at(to)?.broadcast_mul(&active)?)?;
        let target = (&seen.levels * &passing)?.broadcast_add(&not(&passing)?.affine(to, 0.0)?)?;
        let drawn = (&active - &passing)?;
        let ratio = target.affine(1.0 / from, 0.0)?;
        let fraction = fresh(renoise, &ratio)?;
        let kept = (not(&fraction)?.sqrt()? * ratio)?;
        let mut variance = (&fraction * target.sqr()?)?;
        if to == 0.0 {
            // Without noise p(x₀ | x) is what is left to weigh with.
            variance = (variance + drawn.affine(from * from, 0.0)?)?;
        }
        let ahead = seen.spread(&drawn, to)?;
        // A level that is passed at once leaves no variance in single precision.
        let total = ((&variance + &ahead)? + not(&active)?)?.maximum(1e-12 * from * from)?;
        let share = ((&variance * &drawn)? / &total)?;
        // From ȳ at level τ freely on to σ'.
        let ratio = (passing.affine(to, 0.0)? / (&seen.levels + not(&passing)?)?)?;
        let free = fresh(renoise, &ratio)?;
        let onward = (not(&free)?.sqrt()? * &ratio)?;
        let onward_noise = (free.sqrt()? * to)?;
        let drawn_noise = (&share * &ahead)?.sqrt()?;
        let noise = ((variance.sqrt()? * not(&active)?)? + (drawn_noise * &drawn)?)?;
        Ok(Self {
            precision_ahead: (&active / &total)?,
            precision_behind: (&active / (seen.spread(&active, from)? + not(&active)?)?)?,
            of_y: (&share + (&onward * &passing)?)?,
            of_mean: (not(&share)? * not(&passing)?)?,
            of_denoised: (not(&onward)? * &passing)?,
            of_noise: (noise + (onward_noise * &passing)?)?,
            kept,
        })
    }
}

/// ζ of steps to these fractions of the noise level.
fn fresh(renoise: Renoise, ratio: &Tensor) -> Result<Tensor> {
    let (constant, square) = match renoise {
        Renoise::None => (0.0, 0.0),
        Renoise::Ancestral => (1.0, -1.0),
        Renoise::Fraction(fraction) => (fraction, 0.0),
        Renoise::Ddim(eta) => (eta * eta, -eta * eta),
        Renoise::All => (1.0, 0.0),
    };
    Ok(ratio.sqr()?.affine(square, constant)?)
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
}

/// Noise levels and renoising unless told otherwise.
const ANNEALING: Annealing = Annealing { steps: 100, renoise: Renoise::Ancestral, ..Annealing::DEFAULT };

impl Default for Config {
    fn default() -> Self {
        Self { annealing: AnnealingSettings::default(), particles: 32, resampling: Resampling::default() }
    }
}

pub(super) const ENTRY: Entry<BuildSampler> = Entry {
    name: "mcg_diff",
    about: "Monte Carlo guided diffusion: particles drawn towards the measurement, exact as they grow in number",
    fields: &[
        ("annealing", "table of steps, sigma_start, sigma_end, rho and renoise, which must not be none"),
        ("particles", "particles for each image, each one network evaluation a step; default 32"),
        (
            "resampling",
            "table of scheme, systematic or multinomial, and threshold, the fraction of effective particles to resample at; \
             default systematic, 1 (always)",
        ),
    ],
    example: "annealing = { steps = 4, renoise = \"ancestral\" }\nparticles = 2",
    build: |table| {
        let Config { annealing, particles, resampling } = settings("mcg_diff", table)?;
        let annealing = annealing.over(ANNEALING)?;
        checked_renoise(annealing.renoise)?;
        Ok(Box::new(McgDiff { annealing, particles: checked_particles(particles)?, resampling: resampling.checked()? }))
    },
};
