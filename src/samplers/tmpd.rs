//! Tweedie moment projection, Boys et al. (2023), <https://arxiv.org/abs/2310.06721>, solved by conjugate gradients as in
//! Peng et al. (2024), <https://arxiv.org/abs/2402.02149>.

use super::annealing::AnnealingSettings;
use super::covariance::{dot, root_times, shaped};
use super::ddnm::project;
use super::{Annealing, BuildSampler, Needs, Noise, Observer, Problem, Sampler, Structure, settings, within};
use crate::Result;
use crate::solvers::anneal;
use candle_core::Tensor;
use serde::Deserialize;
use tweedie_operators::{CgParams, Entry, LinearOperator, Rng, solve_gram};

/// The posterior mean with `p(x₀ | x)` taken for `N(D, Σ)`, `Σ = σ² J`: mean *and* covariance by Tweedie's formulas.
///
/// `x̂₀ = D + Σ Aᵀ (A Σ Aᵀ + (σ_y² + λσ²) I)⁻¹ (y − A D)`, `J = ∂D/∂x`, each number within 4σ of D's. A few conjugate gradients
/// solve the system, each costs one application of the pullback; the first one alone is [`super::Pigdm`] with the best step
/// length in the place of `σ²/r²`, for each image. Exact for every Gaussian prior once the gradients have converged, but for
/// what is further than 4σ from D.
///
/// Where nothing is noisy and a pseudo-inverse is known the result is projected on the measurement.
#[derive(Clone, Debug)]
pub struct Tmpd {
    annealing: Annealing,
    /// Conjugate gradients a step.
    iterations: usize,
    /// λ: `λ σ²` is added to the variance of the measurement, for what the Gaussian approximation does not know.
    ridge: f64,
    /// Whether a draw from the Gaussian is taken, and not its mean.
    draw: bool,
}

impl Sampler for Tmpd {
    fn sample(
        &self,
        problem: &Problem<'_>,
        shape: (usize, usize, usize),
        rng: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let measurement = problem.measurement;
        let operator = measurement.linear("tmpd")?;
        let sigma_y = measurement.gaussian_sigma("tmpd")?;
        let sigmas = self.annealing.sigmas(&problem.prior.sigma_range());
        anneal(
            problem.start(shape, sigmas[0], rng)?,
            &sigmas,
            self.annealing.renoise,
            rng,
            observer,
            |x, level, rng| {
                let (mut denoised, pullback) = problem.prior.denoise_with_pullback(x, level.from)?;
                let mean = denoised.clone();
                let mut misfit = None;
                if self.draw && level.to > 0.0 {
                    // Matheron's rule: the correction for a draw of the prior and of the noise is a draw of the posterior.
                    let root = root_times(|v| Ok(pullback.apply(v)?), &rng.normal_like(x)?)?;
                    denoised = (denoised + root.affine(level.from, 0.0)?)?;
                    let drawn = (&measurement.y - operator.forward(&denoised)?)?;
                    misfit =
                        Some(if sigma_y > 0.0 { (&drawn + (rng.normal_like(&drawn)? * sigma_y)?)? } else { drawn });
                }
                let misfit = match misfit {
                    Some(misfit) => misfit,
                    None => (&measurement.y - operator.forward(&denoised)?)?,
                };
                // Noise in coordinates that A never reaches says nothing, and would cost gradients.
                let unreached = if operator.reaches_everything() { None } else { operator.as_spectral() };
                let misfit = match unreached {
                    Some(spectral) => spectral.forward(&spectral.pseudo_inverse(&misfit)?)?,
                    None => misfit,
                };
                // Everything is divided by σ²: J in the place of Σ.
                let ridge = (sigma_y / level.from).powi(2) + self.ridge;
                let spread = problem.prior.spread().powi(2);
                let spread = spread / (spread + level.from.powi(2));
                let apply = |v: &Tensor| Ok(pullback.apply(v)?);
                let x0 = self.solve(operator, apply, misfit, ridge, spread, denoised)?;
                drop(pullback);
                let x0 = within_reach(&x0, &mean, level.from)?;
                // A decomposition may have to be found first: it is asked for only where it is used.
                match if sigma_y == 0.0 { operator.as_spectral() } else { None } {
                    Some(spectral) => project(spectral, &x0, &measurement.y),
                    None => Ok(x0),
                }
            },
        )
    }

    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        Needs { structure: Structure::Linear, noise: Noise::Gaussian, noiseless: false }
    }

    fn annealing(&self) -> &Annealing {
        &self.annealing
    }

    fn pullbacks(&self) -> usize {
        self.iterations + if self.draw { 2 } else { 0 }
    }
}

impl Tmpd {
    /// `denoised + J Aᵀ u` for the `u` that conjugate gradients find for `(A J Aᵀ + ridge) u = misfit`, every image with step lengths
    /// of its own; `pullback` is `J`, and `spread` what it is about.
    ///
    /// The system with `spread` in the place of `J`, which costs no network, is the preconditioner: one step solves it where `J`
    /// is a multiple of the identity, however badly conditioned `A` is. Its own solution may be inexact, hence Polak and
    /// Ribière's form of the directions. Nothing is kept longer than it is needed: each of these is as large as the image.
    fn solve(
        &self,
        operator: &dyn LinearOperator,
        pullback: impl Fn(&Tensor) -> Result<Tensor>,
        misfit: Tensor,
        ridge: f64,
        spread: f64,
        denoised: Tensor,
    ) -> Result<Tensor> {
        let precondition = |v: &Tensor| precondition(operator, v, ridge / spread);
        let tiny = f64::from(f32::MIN_POSITIVE);
        let mut x0 = denoised;
        let mut residual = misfit;
        let mut direction = precondition(&residual)?;
        let mut square = dot(&residual, &direction)?;
        for iteration in 0..self.iterations {
            let back = operator.adjoint(&direction)?;
            let moved = pullback(&back)?;
            // A learned J is neither quite symmetric nor quite positive; without a floor one bad direction is a jump.
            let curvature = dot(&back, &moved)?.maximum(&(dot(&back, &back)? * LEAST_EIGENVALUE)?)?;
            drop(back);
            let curvature = (curvature + dot(&direction, &direction)?.affine(ridge, tiny)?)?;
            // The least error along the direction, whichever that is: of a system that is solved already nothing but rounding
            // is left to make directions of, which the usual numerator, `square`, would follow far.
            let step = (dot(&residual, &direction)? / curvature)?;
            if iteration + 1 < self.iterations {
                let product = (operator.forward(&moved)? + direction.affine(ridge, 0.0)?)?;
                let change = product.broadcast_mul(&shaped(&step, &product)?)?;
                residual = (residual - &change)?;
                let next = precondition(&residual)?;
                // `r' − r` is the change with its sign turned.
                let ratio = (dot(&change, &next)?.neg()?.relu()? / square.affine(1.0, tiny)?)?;
                direction = (&next + direction.broadcast_mul(&shaped(&ratio, &direction)?)?)?;
                square = dot(&residual, &next)?;
            }
            let part = moved.broadcast_mul(&shaped(&step, &moved)?)?;
            drop(moved);
            x0 = (x0 + part)?;
        }
        Ok(x0)
    }
}

/// `x0`, no number further than `REACH · σ` from `mean`.
///
/// `p(x₀ | x)` has at most the variance σ² where the prior is log-concave, so what is further away is as good as impossible.
/// A learned J, whose transpose is what the pullback applies, can be off by orders of magnitude in a few pixels; what it says
/// there is noise that no operator that smooths would notice, and that the next steps make larger.
fn within_reach(x0: &Tensor, mean: &Tensor, sigma: f64) -> Result<Tensor> {
    let reach = REACH * sigma;
    Ok(x0.maximum(&mean.affine(1.0, -reach)?)?.minimum(&mean.affine(1.0, reach)?)?)
}

/// Standard deviations of the noise: of a Gaussian one number in 16,000 is further away.
const REACH: f64 = 4.0;

/// Smallest eigenvalue of J that a step is taken for.
const LEAST_EIGENVALUE: f64 = 0.02;

/// `(AAᵀ + λI)⁻¹ v`, exactly where a closed form is known; else about that, by a fixed number of conjugate gradients, of which
/// nothing is read back from the device.
fn precondition(operator: &dyn LinearOperator, v: &Tensor, ridge: f64) -> Result<Tensor> {
    if operator.as_gram().is_some() || operator.as_spectral().is_some() {
        return Ok(solve_gram(operator, v, ridge, &CgParams::default())?.0);
    }
    let tiny = f64::from(f32::MIN_POSITIVE);
    let mut solution = v.zeros_like()?;
    let (mut residual, mut direction) = (v.clone(), v.clone());
    let mut square = dot(v, v)?;
    for _ in 0..INNER {
        let product = (operator.forward(&operator.adjoint(&direction)?)? + direction.affine(ridge, 0.0)?)?;
        let step = (&square / dot(&direction, &product)?.affine(1.0, tiny)?)?;
        solution = (solution + direction.broadcast_mul(&shaped(&step, v)?)?)?;
        residual = (residual - product.broadcast_mul(&shaped(&step, v)?)?)?;
        let next = dot(&residual, &residual)?;
        let ratio = (&next / square.affine(1.0, tiny)?)?;
        direction = (&residual + direction.broadcast_mul(&shaped(&ratio, v)?)?)?;
        square = next;
    }
    Ok(solution)
}

/// Conjugate gradients of the preconditioner; each costs `A` and its adjoint once.
const INNER: usize = 15;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Noise levels and renoising.
    annealing: AnnealingSettings,
    /// Conjugate gradients a step, each one application of the pullback.
    iterations: usize,
    /// λ, in units of σ².
    ridge: f64,
    /// Draw from the Gaussian in the place of its mean.
    draw: bool,
}

/// Noise levels and renoising unless told otherwise.
const ANNEALING: Annealing = Annealing::DEFAULT;

impl Default for Config {
    fn default() -> Self {
        Self { annealing: AnnealingSettings::default(), iterations: 2, ridge: 0.0, draw: false }
    }
}

pub(super) const ENTRY: Entry<BuildSampler> = Entry {
    name: "tmpd",
    about: "Tweedie moment projection: the network's own covariance, a few conjugate gradients a step",
    fields: &[
        ("annealing", "table of steps, sigma_start, sigma_end, rho, renoise and schedule"),
        ("iterations", "conjugate gradients a step; default 2"),
        ("ridge", "λ, added to the measurement's variance in units of σ²; default 0"),
        ("draw", "whether each step draws from its Gaussian in the place of its mean; default false"),
    ],
    example: "annealing = { steps = 4 }\niterations = 2",
    build: |table| {
        let Config { annealing, iterations, ridge, draw } = settings("tmpd", table)?;
        within("iterations", iterations as f64, 1.0..=1000.0)?;
        Ok(Box::new(Tmpd {
            annealing: annealing.over(ANNEALING)?,
            iterations,
            ridge: within("ridge", ridge, 0.0..=1e3)?,
            draw,
        }))
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use tweedie_operators::{OPERATORS, Site, find};

    #[test]
    fn nothing_leaves_the_reach_of_the_noise() {
        let row = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        let limited = within_reach(&row(&[0.5, 9.0, -9.0, 0.9]), &row(&[0.0, 0.25, 0.25, 0.5]), 0.125).unwrap();
        assert_eq!(limited.to_vec1::<f32>().unwrap(), [0.5, 0.75, -0.25, 0.9]);
    }

    /// A blur with reflecting borders has no closed form; the fixed number of gradients solves its system, row by row.
    #[test]
    fn the_preconditioner_solves_the_system_without_the_network() {
        let site = Site::new((3, 16, 16), &Device::Cpu, DType::F64);
        let settings = "kernel = { shape = 'gaussian', sigma = 1.5 }\npadding = 'reflect'".parse().unwrap();
        let blur = find(OPERATORS, "blur").unwrap().create(settings, site).unwrap();
        let linear = blur.as_linear().unwrap();
        assert!(linear.as_spectral().is_none() && linear.as_gram().is_none());
        let v =
            Rng::new(3, 0..2).normal_like(&Tensor::zeros((2, 3, 16, 16), DType::F64, &Device::Cpu).unwrap()).unwrap();
        let solved = precondition(linear, &v, 0.05).unwrap();
        let back = (linear.forward(&linear.adjoint(&solved).unwrap()).unwrap() + (&solved * 0.05).unwrap()).unwrap();
        let square = |x: &Tensor| dot(x, x).unwrap().to_vec1::<f64>().unwrap();
        for (left, all) in square(&(back - &v).unwrap()).into_iter().zip(square(&v)) {
            assert!((left / all).sqrt() < 1e-3, "{}", (left / all).sqrt());
        }
        let alone = precondition(linear, &v.narrow(0, 1, 1).unwrap(), 0.05).unwrap();
        let difference = square(&(alone - solved.narrow(0, 1, 1).unwrap()).unwrap());
        assert_eq!(difference, [0.0], "a row depends on the others");
    }
}
