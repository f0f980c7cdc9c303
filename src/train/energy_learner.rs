//! Energies in training, by first derivatives alone.

use super::learner::{Learner, LossOfOutputs};
use super::objective::Loss;
use crate::Result;
use crate::models::{over_twice, step_along};
use candle_core::Tensor;
use tweedie_kernels::Parameters;

/// `F(x, c) = −∇_x E(x, c)`, E the sum of all outputs of another learner.
///
/// With v the gradient of the loss with respect to F, held fixed, `∂L/∂θ = −∂/∂θ Σ vᵀ∇_x E`, and the derivative of E along v
/// is the central difference `(E(x + hv) − E(x − hv))/2h`: no derivative is taken twice. h is such that the step is a
/// hundredth of the input's standard deviation.
#[derive(Debug)]
pub struct EnergyLearner(Box<dyn Learner>);

impl EnergyLearner {
    /// Minus the gradient of what `inner` makes.
    pub fn new(inner: Box<dyn Learner>) -> Self {
        Self(inner)
    }
}

impl Learner for EnergyLearner {
    fn gradients(&self, x: &Tensor, noise: &[f32], loss: LossOfOutputs<'_>) -> Result<(Loss, Parameters)> {
        let (loss, v) = loss(&self.0.slope(x, noise)?.neg()?)?;
        let h = step_along(&v)?;
        let step = v.broadcast_mul(&h)?;
        let points = Tensor::cat(&[(x + &step)?, (x - &step)?], 0)?;
        let noise = if noise.len() == 1 { noise.to_vec() } else { noise.repeat(2) };
        let factors = over_twice(&h)?;
        let factors = Tensor::cat(&[factors.neg()?, factors], 0)?;
        let (_, gradients) = self.0.gradients(&points, &noise, &mut |energy| {
            let v = factors.broadcast_as(energy.shape())?.contiguous()?;
            Ok((Loss { values: Vec::new(), gradient: v.clone() }, v))
        })?;
        Ok((loss, gradients))
    }

    /// The derivative of the gradient along the vector of ones.
    fn slope(&self, x: &Tensor, noise: &[f32]) -> Result<Tensor> {
        let ones = x.ones_like()?;
        let h = step_along(&ones)?;
        let step = ones.broadcast_mul(&h)?;
        let change = (self.0.slope(&(x - &step)?, noise)? - self.0.slope(&(x + &step)?, noise)?)?;
        Ok(change.broadcast_mul(&over_twice(&h)?)?)
    }

    fn set_parameters(&mut self, parameters: &Parameters) -> Result<()> {
        self.0.set_parameters(parameters)
    }
}
