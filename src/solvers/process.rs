//! The processes of score-based generative modelling through SDEs, Song et al. (2021), <https://arxiv.org/abs/2011.13456>, and
//! the steps that lead back through them.

use crate::priors::Denoiser;
use crate::schedules::VpContinuous;
use crate::{Error, Result};
use candle_core::Tensor;
use serde::Deserialize;
use std::ops::RangeInclusive;
use tweedie_operators::Rng;

/// How noise comes to an image as time goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Formulation {
    /// Variance exploding: `x_t = x₀ + σ(t) n`, `σ(t) = σ_min (σ_max/σ_min)^t`.
    Ve,
    /// Variance preserving: `x_t = m x₀ + √(1−m²) n`, `m² = ᾱ(t) = exp(−½ β_d t² − β_min t)`.
    Vp,
    /// Less noise than that: `x_t = m x₀ + (1−m²) n`.
    SubVp,
}

impl Formulation {
    /// Refuses what has no formula.
    pub(super) fn check(self, predictor: Predictor, probability_flow: bool) -> Result<()> {
        let refuse = |expected: &str| {
            Err(Error::Config { name: "predictor".into(), got: "ancestral".into(), expected: expected.into() })
        };
        match predictor {
            Predictor::Ancestral if self == Self::SubVp => refuse("euler_maruyama or reverse_diffusion for sub_vp"),
            Predictor::Ancestral if probability_flow => {
                refuse("euler_maruyama or reverse_diffusion with probability_flow")
            }
            _ => Ok(()),
        }
    }
}

/// The step that takes the state to an earlier time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Predictor {
    /// Euler and Maruyama's step of the reverse-time SDE.
    EulerMaruyama,
    /// The forward step's discretisation, turned round.
    ReverseDiffusion,
    /// The mean and variance of the discrete Markov chain; not for `SubVp`, which has none.
    Ancestral,
    /// No step.
    None,
}

/// The step that brings the state nearer to the distribution of its own time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Corrector {
    /// `2κ (r ‖n‖/‖s‖)²` is the size of its step.
    Langevin,
    /// `2κ (r σ)²` is, annealed Langevin dynamics.
    Ald,
    /// No step.
    None,
}

/// Where a step leads.
#[derive(Clone, Debug)]
pub struct Move {
    /// The next state.
    pub x: Tensor,
    /// The same without the noise of this step.
    pub mean: Tensor,
}

/// A process in N steps: times in `(0, 1]`, and states `x_t = m x` in the process's own coordinates, where `x = x₀ + σ n` is
/// the state that a [`Denoiser`] knows.
///
/// Tables are those of the paper's program: an entry is found at `⌊t (N−1)⌋` in single precision, the variance-exploding one
/// goes down to 0 below its first entry, and `β_k` is `linspace(0.1/N, 20/N, N)`. A prior that does not know the noise of
/// t = 1 begins at an earlier time, and N steps lead through what is left.
#[derive(Clone, Debug)]
pub struct Process {
    formulation: Formulation,
    steps: usize,
    sigmas: RangeInclusive<f64>,
    /// The first time, and the last one.
    start: f64,
    end: f64,
}

impl Process {
    /// From noise of the end of `range` to that of its start.
    ///
    /// # Errors
    /// `Config` if N is so small that a β of the table is 1 or more.
    pub fn new(formulation: Formulation, range: &RangeInclusive<f64>, steps: usize) -> Result<Self> {
        let (start, end) = match formulation {
            Formulation::Ve => (1.0, 1e-5),
            Formulation::Vp => (VpContinuous::time(*range.end()), VpContinuous::time(*range.start())),
            Formulation::SubVp => (sub_vp_time(*range.end()), sub_vp_time(*range.start())),
        };
        let process = Self { formulation, steps, sigmas: range.clone(), start, end };
        let beta = process.beta(steps.saturating_sub(1));
        if formulation == Formulation::Vp && beta >= 1.0 {
            let least = (beta * steps as f64).floor() as usize + 1;
            return Err(Error::Config {
                name: "steps".into(),
                got: steps.to_string(),
                expected: format!("at least {least} for vp, whose largest β would be {beta:.2}"),
            });
        }
        Ok(process)
    }

    /// N times, evenly spaced from the first to the last, in the paper's single precision.
    pub fn times(&self) -> Vec<f64> {
        let (end, steps) = ((self.end / self.start) as f32, self.steps);
        let stride = if steps > 1 { (end - 1.0) / (steps - 1) as f32 } else { 0.0 };
        let place = |i: usize| {
            // From the nearer end, so that both are exact.
            if i < steps / 2 || i == 0 { 1.0 + stride * i as f32 } else { end - stride * (steps - 1 - i) as f32 }
        };
        (0..steps).map(|i| self.start * f64::from(place(i))).collect()
    }

    /// `m(t)`, the factor of the image in the state.
    pub fn scale(&self, t: f64) -> f64 {
        match self.formulation {
            Formulation::Ve => 1.0,
            Formulation::Vp | Formulation::SubVp => vp_scale(t),
        }
    }

    /// Standard deviation of the noise in the state.
    pub fn std(&self, t: f64) -> f64 {
        match self.formulation {
            Formulation::Ve => self.sigmas.start() * (self.sigmas.end() / self.sigmas.start()).powf(t),
            Formulation::Vp => (-2.0 * vp_scale(t).ln()).exp_m1().sqrt() * vp_scale(t),
            Formulation::SubVp => -(2.0 * vp_scale(t).ln()).exp_m1(),
        }
    }

    /// σ, the noise of the state divided by its scale.
    pub fn sigma(&self, t: f64) -> f64 {
        self.std(t) / self.scale(t)
    }

    /// The drift is `f x_t`, the diffusion `g`: `dx_t = f x_t dt + g dw`.
    ///
    /// Returns (f, g).
    pub fn coefficients(&self, t: f64) -> (f64, f64) {
        let beta = VpContinuous::BETA_MIN + VpContinuous::BETA_D * t;
        match self.formulation {
            Formulation::Ve => {
                (0.0, self.std(t) * (2.0 * (self.sigmas.end() / self.sigmas.start()).ln()).max(0.0).sqrt())
            }
            Formulation::Vp => (-0.5 * beta, beta.sqrt()),
            Formulation::SubVp => (-0.5 * beta, (-beta * (4.0 * vp_scale(t).ln()).exp_m1()).sqrt()),
        }
    }

    /// The same for one step: `x_{k+1} = x_k + f x_k + g n`.
    ///
    /// Returns (f, g).
    pub fn discrete(&self, t: f64) -> (f64, f64) {
        match self.formulation {
            Formulation::Ve => {
                let (here, below) = self.ve_levels(t);
                (0.0, (here * here - below * below).max(0.0).sqrt())
            }
            Formulation::Vp => {
                let beta = self.beta(self.index(t));
                ((1.0 - beta).sqrt() - 1.0, beta.sqrt())
            }
            Formulation::SubVp => {
                let (f, g) = self.coefficients(t);
                (f * self.stride(), g * self.stride().sqrt())
            }
        }
    }

    /// The denoised image and `∇ log p_t(x_t) = (m D(x_t/m; σ) − x_t)/(m σ)²`.
    pub fn score(&self, prior: &dyn Denoiser, t: f64, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let (scale, std) = (self.scale(t), self.std(t));
        // At t = 0 rounding may leave what the prior knows.
        let sigma = self.sigma(t).clamp(*self.sigmas.start(), self.sigmas.end().max(*self.sigmas.start()));
        let denoised = prior.denoise(&x.affine(1.0 / scale, 0.0)?, sigma)?;
        let score = (denoised.affine(scale, 0.0)? - x)?.affine(1.0 / (std * std), 0.0)?;
        Ok((denoised, score))
    }

    /// One step of the predictor from time `t`. `probability_flow` takes half of the score and no noise: the ODE, for
    /// [`Predictor::EulerMaruyama`] and [`Predictor::ReverseDiffusion`]. One draw otherwise.
    ///
    /// # Errors
    /// `Config` for the ancestral step of `SubVp` or of the ODE.
    pub fn predict(
        &self,
        predictor: Predictor,
        probability_flow: bool,
        t: f64,
        x: &Tensor,
        score: &Tensor,
        rng: &mut Rng,
    ) -> Result<Move> {
        let (mean, std) = match predictor {
            Predictor::None => return Ok(Move { x: x.clone(), mean: x.clone() }),
            Predictor::EulerMaruyama | Predictor::ReverseDiffusion => {
                let (f, g) = match predictor {
                    Predictor::EulerMaruyama => {
                        let (f, g) = self.coefficients(t);
                        (f * self.stride(), g * self.stride().sqrt())
                    }
                    _ => self.discrete(t),
                };
                let part = if probability_flow { 0.5 } else { 1.0 };
                ((x.affine(1.0 - f, 0.0)? + score.affine(part * g * g, 0.0)?)?, g)
            }
            Predictor::Ancestral => {
                self.formulation.check(predictor, probability_flow)?;
                if self.formulation == Formulation::Ve {
                    let (here, below) = self.ve_levels(t);
                    let added = (here * here - below * below).max(0.0);
                    ((x + score.affine(added, 0.0)?)?, below / here * added.sqrt())
                } else {
                    let beta = self.beta(self.index(t));
                    ((x + score.affine(beta, 0.0)?)?.affine(1.0 / (1.0 - beta).sqrt(), 0.0)?, beta.sqrt())
                }
            }
        };
        if probability_flow {
            return Ok(Move { x: mean.clone(), mean });
        }
        Ok(Move { x: (&mean + rng.normal_like(x)?.affine(std, 0.0)?)?, mean })
    }

    /// The size α of a corrector's step for each row, from the norms of that row alone; the paper's program takes those of
    /// the batch. `κ` is `1 − β` of a variance-preserving process and 1 of an exploding one.
    ///
    /// # Shapes
    /// `score`, `noise`: `[B, C, H, W]`; returns `[B, 1, 1, 1]`
    pub fn step_size(&self, corrector: Corrector, snr: f64, t: f64, score: &Tensor, noise: &Tensor) -> Result<Tensor> {
        let kept = match self.formulation {
            Formulation::Vp => 1.0 - self.beta(self.index(t)),
            Formulation::Ve | Formulation::SubVp => 1.0,
        };
        let squares = |x: &Tensor| x.sqr()?.flatten_from(1)?.sum_keepdim(1)?.reshape((x.dim(0)?, 1, 1, 1));
        let sizes = match corrector {
            // A score of exactly zero asks for no step, and has no direction.
            Corrector::Langevin => {
                (squares(noise)? / squares(score)?.maximum(f64::from(f32::MIN_POSITIVE))?)?.affine(snr * snr, 0.0)?
            }
            Corrector::Ald => squares(noise)?.affine(0.0, (snr * self.std(t)).powi(2))?,
            Corrector::None => squares(noise)?.affine(0.0, 0.0)?,
        };
        Ok(sizes.affine(2.0 * kept, 0.0)?)
    }

    /// One step of the corrector, `x ← x + α s + √(2α) n`.
    ///
    /// # Shapes
    /// `size`: α, `[B, 1, 1, 1]`
    pub fn correct(x: &Tensor, score: &Tensor, noise: &Tensor, size: &Tensor) -> Result<Move> {
        let mean = (x + score.broadcast_mul(size)?)?;
        Ok(Move { x: (&mean + noise.broadcast_mul(&size.affine(2.0, 0.0)?.sqrt()?)?)?, mean })
    }

    /// Time of one step.
    fn stride(&self) -> f64 {
        self.start / self.steps as f64
    }

    /// The entry of the tables for time `t`.
    fn index(&self, t: f64) -> usize {
        let place = (t / self.start) as f32 * self.steps.saturating_sub(1) as f32;
        (place.max(0.0) as usize).min(self.steps.saturating_sub(1))
    }

    /// `β_k`
    fn beta(&self, k: usize) -> f64 {
        let place = if self.steps > 1 { k as f64 / (self.steps - 1) as f64 } else { 1.0 };
        (VpContinuous::BETA_MIN + VpContinuous::BETA_D * self.start * place) * self.stride()
    }

    /// The level of the table at time `t`, and the one below it.
    fn ve_levels(&self, t: f64) -> (f64, f64) {
        let level = |k: usize| {
            let place = if self.steps > 1 { k as f64 / (self.steps - 1) as f64 } else { 1.0 };
            self.sigmas.start() * (self.sigmas.end() / self.sigmas.start()).powf(place)
        };
        let k = self.index(t);
        (level(k), if k > 0 { level(k - 1) } else { 0.0 })
    }
}

/// `m = exp(−¼ β_d t² − ½ β_min t)`
fn vp_scale(t: f64) -> f64 {
    (-0.25 * VpContinuous::BETA_D * t * t - 0.5 * VpContinuous::BETA_MIN * t).exp()
}

/// The time at which `(1−m²)/m` is σ: `m = (√(σ²+4) − σ)/2`, and `σ² = 1/m² − 1` of a variance-preserving process with that m.
fn sub_vp_time(sigma: f64) -> f64 {
    // asinh(σ/2) = −ln m without cancellation.
    VpContinuous::time((2.0 * (0.5 * sigma).asinh()).exp_m1().sqrt())
}
