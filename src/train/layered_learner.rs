//! Networks in training by candle's differentiation.

use super::learner::{Learner, LossOfOutputs};
use super::objective::Loss;
use crate::Result;
use crate::models::Layered;
use candle_core::{Device, Tensor, Var};
use tweedie_kernels::Parameters;
use tweedie_kernels::network::Network;

/// Any network, on any device: [`Layered`] with its parameters as variables.
///
/// Examples and losses stay where they are; inputs, outputs and gradients travel.
#[derive(Debug)]
pub struct LayeredLearner(Layered);

impl LayeredLearner {
    /// Puts these parameters on `device`.
    ///
    /// # Errors
    /// The name of one that is missing; those of tensor operations.
    pub fn new(network: &Network, parameters: &Parameters, device: &Device) -> Result<Self> {
        let layered = Layered::new(network, device, |name| parameters.get(name).cloned())?;
        Ok(Self(layered.into_variables()?))
    }
}

impl Learner for LayeredLearner {
    fn gradients(&self, x: &Tensor, noise: &[f32], loss: LossOfOutputs<'_>) -> Result<(Loss, Parameters)> {
        let device = self.0.device();
        let output = self.0.apply(&x.to_device(device)?, noise)?;
        let (loss, v) = loss(&output.detach().to_device(x.device())?)?;
        let mut found = (output * v.to_device(device)?.detach())?.sum_all()?.backward()?;
        let network = self.0.network();
        // Of images of no class the rows of the classes are not asked for.
        let idle = network.embedding.classes.as_ref().map(|classes| &classes.weight.name);
        let mut gradients = Parameters::new();
        for parameter in network.parameters() {
            let values = match found.remove(&self.0.parameters()[&parameter.name]) {
                Some(gradient) => gradient.flatten_all()?.to_vec1()?,
                None if idle == Some(&parameter.name) => vec![0.0; parameter.elements()],
                None => return Err(tweedie_operators::Error::NoGradient.into()),
            };
            gradients.insert(parameter.name.clone(), values);
        }
        Ok((loss, gradients))
    }

    fn slope(&self, x: &Tensor, noise: &[f32]) -> Result<Tensor> {
        let leaf = Var::from_tensor(&x.to_device(self.0.device())?)?;
        let mut found = self.0.apply(leaf.as_tensor(), noise)?.sum_all()?.backward()?;
        let slope = found.remove(leaf.as_tensor()).ok_or(tweedie_operators::Error::NoGradient)?;
        Ok(slope.to_device(x.device())?)
    }

    fn set_parameters(&mut self, parameters: &Parameters) -> Result<()> {
        *self = Self::new(self.0.network(), parameters, self.0.device())?;
        Ok(())
    }
}
