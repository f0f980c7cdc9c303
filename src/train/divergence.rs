//! Losses of a score and of its derivatives along directions.

use super::objective::{Draw, Loss, column};
use crate::Result;
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};
use tweedie_operators::Rng;

/// How a direction is drawn; both have `E[v vᵀ] = I`, so that `E[vᵀ ∇s v]` is the trace.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Directions {
    /// Standard normal numbers.
    Gaussian,
    /// Every number 1 or −1; the trace has less variance, none at all for a diagonal derivative.
    Rademacher,
}

impl Directions {
    /// One for each stream.
    ///
    /// # Shapes
    /// Returns that of `like`
    /// # Errors
    /// Those of drawing numbers.
    pub(super) fn draw(self, like: &Tensor, rng: &mut Rng) -> Result<Tensor> {
        Ok(match self {
            Self::Gaussian => rng.normal_like(like)?,
            Self::Rademacher => rng.uniform_like(like)?.ge(0.5)?.to_dtype(like.dtype())?.affine(2.0, -1.0)?,
        })
    }
}

/// What of the score is squared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Square {
    /// `½‖s‖²`
    Whole,
    /// `½(vᵀs)²`, on average over the directions.
    Projected,
}

/// `w (½ square + share · Σ_m v_mᵀ ∇s v_m)` at some points, with `vᵀ ∇s v = vᵀ(s(x + hv) − s(x − hv))/2h`.
///
/// The step is `h = step · σ`. A central difference errs by `h²/6` times the third derivative, about `(h/ℓ)²/6` of the value
/// where the score varies over a length ℓ, and by the rounding of single precision, `ε/h`: least at `h ≈ (3ε)^⅓ ℓ`, 0.6 % of
/// ℓ. A noised density varies over no less than σ, hence 1 % of σ, which costs 2e-5 by the one and a few 1e-4 by the other.
///
/// Pang et al. (2020), <https://arxiv.org/abs/2007.03317>
pub(super) struct Divergence {
    /// `[B, C, H, W]`
    pub(super) x: Tensor,
    /// Of every example.
    pub(super) sigmas: Vec<f64>,
    /// `v_m`: `[B, C, H, W]` each, or `[1, C, H, W]` for the same of all examples.
    pub(super) directions: Vec<Tensor>,
    /// What the sum over directions is multiplied by.
    pub(super) share: f64,
    pub(super) square: Square,
    /// `w` of every example.
    pub(super) weights: Vec<f64>,
    /// h over σ.
    pub(super) step: f64,
}

impl Divergence {
    /// The points `x, x + h v_1, x − h v_1, …` of every example, and the loss there.
    pub(super) fn draw(self) -> Result<Draw> {
        let Self { x, sigmas, directions, share, square, weights, step } = self;
        let batch = sigmas.len();
        let steps = column(sigmas.iter().map(|sigma| step * sigma), &x)?;
        let mut points = vec![x.clone()];
        for direction in &directions {
            let step = direction.broadcast_mul(&steps)?;
            points.extend([(&x + &step)?, (&x - step)?]);
        }
        let count = points.len();
        let points = Tensor::stack(&points, 1)?.flatten(0, 1)?;
        let flat = |tensor: &Tensor| tensor.to_dtype(DType::F64)?.flatten_from(1)?.unsqueeze(1);
        let directions = directions.iter().map(flat).collect::<candle_core::Result<Vec<Tensor>>>()?;
        let double = |values: Vec<f64>| Tensor::from_vec(values, (batch, 1, 1), x.device());
        let squares = double(sigmas.iter().map(|sigma| sigma * sigma).collect())?;
        let slopes = double(sigmas.iter().map(|sigma| share / (2.0 * step * sigma)).collect())?;
        let factors = double(sigmas.iter().zip(&weights).map(|(s, w)| w / (s * s * batch as f64)).collect())?;
        let each = sigmas.iter().flat_map(|&sigma| std::iter::repeat_n(sigma, count)).collect();
        let x = points.clone();
        let loss = move |denoised: &Tensor| {
            // In double precision: what is wanted is a difference of differences.
            let change = (denoised.to_dtype(DType::F64)? - points.to_dtype(DType::F64)?)?;
            let scores = change.reshape((batch, count, ()))?.broadcast_div(&squares)?;
            let first = scores.narrow(1, 0, 1)?;
            let mut values = Tensor::zeros((batch, 1, 1), DType::F64, first.device())?;
            let mut here = Tensor::zeros(first.shape(), DType::F64, first.device())?;
            let mut there = Vec::new();
            for (index, v) in directions.iter().enumerate() {
                let v = &v.broadcast_as(first.shape())?;
                let change = (scores.narrow(1, 1 + 2 * index, 1)? - scores.narrow(1, 2 + 2 * index, 1)?)?;
                values = (values + (change * v)?.sum_keepdim(2)?.mul(&slopes)?)?;
                if square == Square::Projected {
                    let part = (&first * v)?.sum_keepdim(2)?;
                    values = (values + (part.sqr()? * (0.5 * share))?)?;
                    here = (here + (v.broadcast_mul(&part)? * share)?)?;
                }
                let slope = v.broadcast_mul(&slopes)?;
                there.extend([slope.clone(), slope.neg()?]);
            }
            if square == Square::Whole {
                values = (values + (first.sqr()?.sum_keepdim(2)? * 0.5)?)?;
                here = first.clone();
            }
            let values = values.flatten_all()?.to_vec1::<f64>()?;
            let values = values.into_iter().zip(&weights).map(|(value, weight)| value * weight).collect();
            let gradient = Tensor::cat(&[vec![here], there].concat(), 1)?.broadcast_mul(&factors)?;
            let gradient = gradient.reshape(denoised.shape())?.to_dtype(denoised.dtype())?;
            Ok(Loss { values, gradient })
        };
        Ok(Draw { x, sigmas: each, loss: Box::new(loss) })
    }
}
