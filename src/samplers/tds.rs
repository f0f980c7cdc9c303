//! Twisted diffusion sampler, Wu et al. (2023), <https://arxiv.org/abs/2306.17775>.

use super::annealing::AnnealingSettings;
use super::ddnm::project;
use super::particles::{Cloud, Resampling, Scheme, checked_particles, checked_renoise};
use super::{Annealing, BuildSampler, Needs, Noise, Observer, Problem, Renoise, Sampler, Structure, settings, within};
use crate::Result;
use crate::solvers::{Transition, descend};
use candle_core::Tensor;
use serde::Deserialize;
use std::ops::RangeInclusive;
use tweedie_operators::{Entry, LinearOperator, Measurement, Rng, SpectralOperator};

/// Particles guided by the gradient of an approximate likelihood, weighed for what it gets wrong.
///
/// The twist is `p̃(y | x) = N(y; A D(x; σ), r² A Aᵀ + σ_y² I)`, `r² = σ²τ²/(σ²+τ²)`, or with `(r² + σ_y²) I` where no
/// singular values are known. A particle takes the prior's step `p(x' | x)` with `D + σ² ∇_x log p̃(y | x)` in the place of
/// `D`, and has the weight `p(x' | x) p̃(y | x') / (p̃(y | x) q(x' | x))`. Exact as particles grow and the last level falls;
/// the result is the twisted estimate of a particle, projected on the measurement where nothing is noisy.
///
/// The paper's twist has no `A Aᵀ`, and σ_y = 0.
#[derive(Clone, Debug)]
pub struct Tds {
    annealing: Annealing,
    particles: usize,
    resampling: Resampling,
    /// τ; 0.7 of the prior's own spread if `None`.
    prior_std: Option<f64>,
}

impl Sampler for Tds {
    fn sample(
        &self,
        problem: &Problem<'_>,
        shape: (usize, usize, usize),
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let sigmas = self.annealing.sigmas(&problem.prior.sigma_range());
        let cloud = Cloud::new(self.particles, self.resampling, rng.streams(), &problem.measurement.y)?;
        let twist = Twist::new(problem.measurement, &cloud)?;
        let mut state = cloud.start(problem, shape, sigmas[0], rng)?;
        // Log weights but for the twist of the level that is come to, which takes a network evaluation.
        let mut log_weights = cloud.sums(&state)?.zeros_like()?;
        descend(cloud.first(&state)?, &sigmas, rng, observer, |_, level, rng| {
            let prior_std = self.prior_std.unwrap_or(TWIST * problem.prior.spread());
            let (prior, noise) = (prior_std.powi(2), level.from.powi(2));
            let (denoised, pullback) = problem.prior.denoise_with_pullback(&state, level.from)?;
            let (log_twist, direction) = twist.at(&cloud, &denoised, prior * noise / (prior + noise))?;
            let shift = pullback.apply(&direction)?.affine(noise, 0.0)?;
            drop(pullback);
            log_weights = (&log_weights + &log_twist)?;
            if level.to == 0.0 {
                let x0 = cloud.pick(&(denoised + shift)?, &log_weights, rng)?;
                let x0 = match twist.exact() {
                    Some(operator) => project(operator, &x0, &problem.measurement.y)?,
                    None => x0,
                };
                return Ok(Transition { next: x0.clone(), x0 });
            }
            let x0 = cloud.mean(&denoised, &log_weights)?;
            let (chosen, left) = cloud.resample(&log_weights, rng)?;
            let of_chosen = |x: &Tensor| x.index_select(&chosen, 0);
            let (denoised, shift) = (of_chosen(&denoised)?, of_chosen(&shift)?);
            let fraction = self.annealing.renoise.fraction(level.from, level.to);
            let kept = (1.0 - fraction).max(0.0).sqrt() * level.to / level.from;
            let variance = fraction * level.to.powi(2);
            let mean = (&denoised + (of_chosen(&state)? - &denoised)?.affine(kept, 0.0)?)?;
            let moved = shift.affine(1.0 - kept, 0.0)?;
            let fresh = cloud.normal(&mean, rng)?.affine(variance.sqrt(), 0.0)?;
            // log p/q = −(⟨√v z, δ⟩ + |δ|²/2)/v, where δ is what the twist moves the mean by.
            let ratio = cloud.sums(&((&fresh + moved.affine(0.5, 0.0)?)? * &moved)?)?.affine(-1.0 / variance, 0.0)?;
            let twists = log_twist.flatten_all()?.index_select(&chosen, 0)?.reshape(left.shape())?;
            log_weights = ((left + ratio)? - twists)?;
            state = ((mean + moved)? + fresh)?;
            Ok(Transition { x0, next: cloud.first(&state)? })
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
        self.particles * (self.annealing.sigmas(range).len() - 1)
    }

    fn particles(&self) -> usize {
        self.particles
    }

    fn pullbacks(&self) -> usize {
        1
    }
}

/// τ by the prior's spread: the paper's τ² = 0.12 for photos, whose spread is about 0.5.
const TWIST: f64 = 0.7;

/// The approximate likelihood of a state.
struct Twist<'a> {
    measurement: &'a Measurement<'a>,
    sigma_y: f64,
    /// `y` for every particle; its spectrum if there is one.
    y: Tensor,
    /// The operator and its squared singular values, with 1 added where nothing is seen.
    spectral: Option<(&'a dyn SpectralOperator, Tensor, Tensor)>,
}

impl<'a> Twist<'a> {
    fn new(measurement: &'a Measurement<'a>, cloud: &Cloud) -> Result<Self> {
        let sigma_y = measurement.gaussian_sigma("tds")?;
        let Some(operator) = measurement.operator.as_linear().and_then(LinearOperator::as_spectral) else {
            return Ok(Self { measurement, sigma_y, y: cloud.repeat(&measurement.y)?, spectral: None });
        };
        let spectrum = operator.measurement_to_spectrum(&measurement.y)?;
        let s = operator.singular_values().to_dtype(spectrum.dtype())?.to_device(spectrum.device())?;
        let unseen = s.eq(0.0)?.to_dtype(s.dtype())?;
        Ok(Self { measurement, sigma_y, y: cloud.repeat(&spectrum)?, spectral: Some((operator, s, unseen)) })
    }

    /// The operator, where there is no noise and it knows its pseudo-inverse.
    fn exact(&self) -> Option<&'a dyn SpectralOperator> {
        self.spectral.as_ref().filter(|_| self.sigma_y == 0.0).map(|(operator, ..)| *operator)
    }

    /// `log p̃`, `[B, P]`, and its gradient with respect to the denoised image.
    fn at(&self, cloud: &Cloud, denoised: &Tensor, spread: f64) -> Result<(Tensor, Tensor)> {
        let noise = self.sigma_y.powi(2);
        let Some((operator, s, unseen)) = &self.spectral else {
            let misfit = self.measurement.operator.forward(denoised)?.broadcast_sub(&self.y)?;
            let precision = 1.0 / (spread + noise);
            let log_twist = cloud.sums(&misfit.sqr()?)?.affine(-0.5 * precision, 0.0)?;
            return Ok((log_twist, self.measurement.operator.vjp(denoised, &misfit.affine(-precision, 0.0)?)?));
        };
        let misfit = self.y.broadcast_sub(&operator.image_to_spectrum(denoised)?.broadcast_mul(s)?)?;
        let variance = (s.sqr()?.affine(spread, noise)? + unseen)?;
        let scaled = misfit.broadcast_div(&variance)?;
        let log_twist = cloud.sums(&(&misfit * &scaled)?)?.affine(-0.5, 0.0)?;
        Ok((log_twist, operator.spectrum_to_image(&scaled.broadcast_mul(s)?)?))
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
    /// τ, pixels in [-1, 1].
    prior_std: Option<f64>,
}

/// Noise levels and renoising unless told otherwise.
const ANNEALING: Annealing = Annealing { steps: 100, renoise: Renoise::Ancestral, ..Annealing::DEFAULT };

impl Default for Config {
    fn default() -> Self {
        let resampling = Resampling { scheme: Scheme::Systematic, threshold: 0.5 };
        Self { annealing: AnnealingSettings::default(), particles: 8, resampling, prior_std: None }
    }
}

pub(super) const ENTRY: Entry<BuildSampler> = Entry {
    name: "tds",
    about: "Twisted diffusion sampler: guided particles, weighed for what the guidance gets wrong",
    fields: &[
        ("annealing", "table of steps, sigma_start, sigma_end, rho and renoise, which must not be none"),
        ("particles", "particles for each image, each one network evaluation and pullback a step; default 8"),
        (
            "resampling",
            "table of scheme, systematic or multinomial, and threshold, the fraction of effective particles to resample at, 1 \
             is always; default systematic, 0.5",
        ),
        ("prior_std", "τ, pixels in [-1, 1]; default 0.7 of the prior's own spread, 0.35 for photos"),
    ],
    example: "annealing = { steps = 4, renoise = \"ancestral\" }\nparticles = 2",
    build: |table| {
        let Config { annealing, particles, resampling, prior_std } = settings("tds", table)?;
        let annealing = annealing.over(ANNEALING)?;
        checked_renoise(annealing.renoise)?;
        let prior_std = prior_std.map(|std| within("prior_std", std, 1e-3..=1e3)).transpose()?;
        let (particles, resampling) = (checked_particles(particles)?, resampling.checked()?);
        Ok(Box::new(Tds { annealing, particles, resampling, prior_std }))
    },
};
