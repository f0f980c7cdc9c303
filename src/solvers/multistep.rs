//! DPM-Solver++(2M), Lu et al. (2022), <https://arxiv.org/abs/2211.01095>.

use super::{Level, Observer, Transition, descend};
use crate::Result;
use crate::priors::Denoiser;
use candle_core::Tensor;
use serde::Deserialize;
use tweedie_operators::Rng;

/// How the last two estimates make one of second order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Correction {
    /// `D + (D − D_prev)/(2r)`.
    Midpoint,
    /// With the exact integral of the line through both.
    Heun,
}

/// Takes `x`, a state at `sigmas[0]`, along `sigmas` with two steps' estimates in each step.
///
/// With `h = ln(σ/σ')`, `r = h_prev/h` and `c = 1 − e^{−(1+η)h}`:
/// `x' = (σ'/σ) e^{−ηh} x + c D + w (D − D_prev) + σ' √(1 − e^{−2ηh}) n`, where `w = c/(2r)` for the midpoint and
/// `w = (1 − c/((1+η)h))/r` for Heun; `w = 0` in the first step, and `x' = D` at σ' = 0. At η = 0 this is the ODE solver 2M,
/// of second order; at η = 1 the SDE solver of the paper. One draw a step unless η or σ' is 0; draws of different numbers of
/// steps belong to different Brownian paths.
///
/// # Errors
/// As [`descend`].
pub fn multistep(
    prior: &dyn Denoiser,
    x: Tensor,
    sigmas: &[f64],
    correction: Correction,
    eta: f64,
    rng: &mut Rng,
    observer: &mut dyn Observer,
) -> Result<Tensor> {
    let mut previous: Option<(Tensor, f64)> = None;
    descend(x, sigmas, rng, observer, |x, Level { from, to }, rng| {
        let x0 = prior.denoise(x, from)?;
        if to == 0.0 {
            return Ok(Transition { next: x0.clone(), x0 });
        }
        let h = (from / to).ln();
        let whole = -(-(1.0 + eta) * h).exp_m1();
        let mut next = (x.affine(to / from * (-eta * h).exp(), 0.0)? + x0.affine(whole, 0.0)?)?;
        if let Some((x0_prev, h_prev)) = &previous {
            let r = h_prev / h;
            let weight = match correction {
                Correction::Midpoint => whole / (2.0 * r),
                Correction::Heun => (1.0 - whole / ((1.0 + eta) * h)) / r,
            };
            next = (next + (&x0 - x0_prev)?.affine(weight, 0.0)?)?;
        }
        if eta > 0.0 {
            let std = to * (-(-2.0 * eta * h).exp_m1()).sqrt();
            next = (next + rng.normal_like(x)?.affine(std, 0.0)?)?;
        }
        previous = Some((x0.clone(), h));
        Ok(Transition { x0, next })
    })
}
