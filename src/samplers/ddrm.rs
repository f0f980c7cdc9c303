//! Denoising diffusion restoration models, Kawar et al. (2022), <https://arxiv.org/abs/2201.11793>.

use super::annealing::AnnealingSettings;
use super::spectrum::Spectrum;
use super::{Annealing, BuildSampler, Needs, Noise, Observer, Problem, Renoise, Sampler, Structure, settings, within};
use crate::Result;
use crate::schedules::Named;
use crate::solvers::{Level, Transition, descend};
use candle_core::Tensor;
use serde::Deserialize;
use tweedie_operators::{Entry, Rng};

/// A step for each coordinate of the singular vectors, by how noisy its measurement is.
///
/// With `θ = VᵀD`, `ē = Vᵀ(x − D)/σ`, `ȳ = Uᵀy / s`, `ζ = η²` of `renoise`:
///
/// | coordinate | next |
/// | --- | --- |
/// | unseen | `θ + σ' (√(1−ζ) ē + √ζ n̄)` |
/// | `s σ' < σ_y` | `θ + σ' (√(1−ζ) s (ȳ − θ)/σ_y + √ζ n̄)` |
/// | `s σ' ≥ σ_y` | `(1−η_b) θ + η_b ȳ + √(σ'² − η_b² σ_y²/s²) n̄` |
///
/// It starts at `ȳ + √(σ² − σ_y²/s²) n̄` where `s σ > σ_y`, else at `σ n̄`. Both inequalities are strict in the authors' code; with ≥ the last
/// step at σ_y = 0 returns ȳ, so that with η_b = 1 `A x̂ = y` to rounding. The code divides its start by σ, this by `√(1+σ²)`, the scale
/// of its coordinates. Singular values below 1/1000 of the largest count as unseen; the code cuts blurs at 0.03.
///
/// The draws are made in the image and turned by `Vᵀ`. Not exact with noise, and less so the more steps there are: where the
/// measurement is the noisier one the estimate stands in for the state, and no draw of the prior is left.
#[derive(Clone, Debug)]
pub struct Ddrm {
    annealing: Annealing,
    /// η_b
    eta_b: f64,
    /// Factor of all noise that is drawn.
    temperature: f64,
}

impl Sampler for Ddrm {
    fn sample(
        &self,
        problem: &Problem<'_>,
        shape: (usize, usize, usize),
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let spectrum = Spectrum::new("ddrm", problem.measurement)?;
        let deviation = spectrum.deviation(problem.measurement.gaussian_sigma("ddrm")?)?;
        let step = SpectralStep {
            spectrum,
            deviation,
            renoise: self.annealing.renoise,
            eta_b: self.eta_b,
            temperature: self.temperature,
        };
        let sigmas = self.annealing.sigmas(&problem.prior.sigma_range());
        let x = step.start(problem, shape, sigmas[0], rng)?;
        descend(x, &sigmas, rng, observer, |x, level, rng| {
            let denoised = problem.prior.denoise(x, level.from)?;
            let next = step.next(x, &denoised, level, rng)?;
            Ok(Transition::by(denoised, next, level))
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
}

/// The table of [`Ddrm`], as tensors.
#[derive(Debug)]
pub(super) struct SpectralStep<'a> {
    pub(super) spectrum: Spectrum<'a>,
    /// `σ_y / s`
    pub(super) deviation: Tensor,
    /// ζ
    pub(super) renoise: Renoise,
    pub(super) eta_b: f64,
    /// Factor of all noise that is drawn.
    pub(super) temperature: f64,
}

impl SpectralStep<'_> {
    /// 1 where something is seen with noise of at most σ.
    fn clearer_than(&self, sigma: f64) -> Result<Tensor> {
        Ok((self.deviation.le(sigma)?.to_dtype(self.deviation.dtype())? * &self.spectrum.seen)?)
    }

    /// The first state at `sigma`; one draw.
    fn start(&self, problem: &Problem<'_>, shape: (usize, usize, usize), sigma: f64, rng: &mut Rng) -> Result<Tensor> {
        let blind = Problem { guess: None, ..*problem };
        let noise = self.spectrum.of(&blind.start(shape, 1.0, rng)?)?;
        let guess = self.spectrum.of(&problem.guessed(noise.zeros_like()?)?)?;
        let clearer = self.clearer_than(sigma)?;
        let measured = self.deviation.sqr()?.affine(-1.0, sigma * sigma)?.relu()?.sqrt()?;
        let amplitude = (((&clearer * measured)? + (clearer.affine(-1.0, 1.0)? * sigma)?)? * self.temperature)?;
        let mean = self.spectrum.mix(&clearer, &guess)?;
        self.spectrum.image(&mean.broadcast_add(&noise.broadcast_mul(&amplitude)?)?)
    }

    /// The next state; one draw unless σ' is 0.
    pub(super) fn next(&self, x: &Tensor, denoised: &Tensor, level: Level, rng: &mut Rng) -> Result<Tensor> {
        let Self { spectrum, deviation, eta_b, .. } = self;
        let fraction = if level.to > 0.0 { self.renoise.fraction(level.from, level.to) } else { 0.0 };
        let kept = level.to * (1.0 - fraction).sqrt();
        let clearer = self.clearer_than(level.to)?;
        let noisier = (&spectrum.seen - &clearer)?;
        // Elsewhere the divisor is at least 1.
        let towards = ((&noisier * kept)? / (deviation + noisier.affine(-1.0, 1.0)?)?)?;
        let weight = ((&clearer * *eta_b)? + towards)?;
        let mut next = spectrum.mix(&weight, &spectrum.of(denoised)?)?;
        if level.to == 0.0 {
            return spectrum.image(&next);
        }
        if kept > 0.0 {
            let unseen = spectrum.seen.affine(-1.0, 1.0)?;
            let noise = spectrum.of(&(x - denoised)?)?;
            next = (next + noise.broadcast_mul(&(unseen * (kept / level.from))?)?)?;
        }
        let measured = deviation.sqr()?.affine(-eta_b.powi(2), level.to.powi(2))?.relu()?.sqrt()?;
        let fresh = (clearer.affine(-1.0, 1.0)? * (level.to * fraction.sqrt()))?;
        let amplitude = (((clearer * measured)? + fresh)? * self.temperature)?;
        let noise = spectrum.of(&rng.normal_like(x)?)?;
        spectrum.image(&(next + noise.broadcast_mul(&amplitude)?)?)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Noise levels and renoising.
    annealing: AnnealingSettings,
    /// η_b
    eta_b: f64,
    /// Factor of all noise that is drawn.
    temperature: f64,
}

/// Noise levels and renoising unless told otherwise: η = 0.85.
const ANNEALING: Annealing = Annealing {
    steps: 20,
    sigma_start: 120.0,
    sigma_end: 0.01,
    schedule: Named::VP_LINEAR,
    renoise: Renoise::Fraction(0.7225),
    ..Annealing::DEFAULT
};

impl Default for Config {
    fn default() -> Self {
        Self { annealing: AnnealingSettings::default(), eta_b: 1.0, temperature: 1.0 }
    }
}

pub(super) const ENTRY: Entry<BuildSampler> = Entry {
    name: "ddrm",
    about: "A step of its own for every singular vector, by how noisy its measurement is",
    fields: &[
        (
            "annealing",
            "table of steps, sigma_start, sigma_end, rho, schedule and renoise, whose fraction is η²; default 0.85²",
        ),
        ("eta_b", "η_b, trust in coordinates measured more clearly than the next state, 0 to 1; default 1"),
        (
            "temperature",
            "factor of all noise that is drawn, 0 to 1: the network smooths more than there is; deepinv's is 1/√2; default 1",
        ),
    ],
    example: "annealing = { steps = 4 }\neta_b = 1.0",
    build: |table| {
        let Config { annealing, eta_b, temperature } = settings("ddrm", table)?;
        Ok(Box::new(Ddrm {
            annealing: annealing.over(ANNEALING)?,
            eta_b: within("eta_b", eta_b, 0.0..=1.0)?,
            temperature: within("temperature", temperature, 0.0..=1.0)?,
        }))
    },
};
