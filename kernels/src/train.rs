//! A training step: forward, gradient of a loss, backward, optimiser.

use crate::adam::Adam;
use crate::fused::{Error, FusedNetwork, Parameters};
use crate::isa::InstructionSet;
use crate::network::Network;
use crate::precision::Precision;

/// A network with the parameters it is packed from and their optimiser.
///
/// Parameters, moments and results are single-precision numbers whatever the network's precision; the bytes of a step do
/// not depend on the number of threads.
#[derive(Debug)]
pub struct Trainer {
    network: FusedNetwork,
    parameters: Parameters,
    adam: Adam,
}

/// What a training step has to report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingStep {
    /// The loss before the step.
    pub loss: f64,
    /// Euclidean norm of its gradient.
    pub gradient_norm: f64,
}

impl Trainer {
    /// Packs the parameters for an instruction set.
    ///
    /// # Errors
    /// As [`FusedNetwork::new`].
    pub fn new(
        network: &Network,
        isa: InstructionSet,
        precision: Precision,
        parameters: Parameters,
        adam: Adam,
    ) -> Result<Self, Error> {
        let network = FusedNetwork::new(network, isa, precision, |name| parameters.get(name).cloned())?;
        Ok(Self { network, parameters, adam })
    }

    /// One step of the optimiser on a batch.
    ///
    /// `loss` takes `F(x, noise)` and returns the loss and its gradient with respect to that. For the denoising loss
    /// `w ‖F − target‖²` that is `2 w (F − target)`; the coefficients of a parameterisation go into `x` and into the
    /// target.
    ///
    /// # Shapes
    /// `x`: `[B, C, H, W]` in `shape`, H and W multiples of [`Network::stride`]; `noise`: one number, or one per image
    /// # Errors
    /// `Shape`, `Length`, `Noise`; `NotFinite` if the loss or a gradient is not. Parameters and optimiser are as before
    /// then.
    pub fn step(
        &mut self,
        x: &[f32],
        shape: [usize; 4],
        noise: &[f32],
        loss: impl FnOnce(&[f32]) -> (f64, Vec<f32>),
    ) -> Result<TrainingStep, Error> {
        let (output, tape) = self.network.forward_for_gradients(x, shape, noise, 1.0)?;
        let (loss, v) = loss(&output);
        if !loss.is_finite() {
            return Err(Error::NotFinite("the loss".into()));
        }
        let gradients = self.network.gradients(&tape, &v, None)?;
        drop(tape);
        let gradient_norm = gradients.norm();
        if !gradient_norm.is_finite() {
            let bad = gradients.parameters.iter().find(|(_, values)| values.iter().any(|g| !g.is_finite()));
            let name = bad.map_or("all parameters", |(name, _)| name);
            return Err(Error::NotFinite(format!("the gradient of {name}")));
        }
        self.adam.step(&mut self.parameters, &gradients.parameters)?;
        self.network.set_parameters(|name| self.parameters.get(name).cloned())?;
        Ok(TrainingStep { loss, gradient_norm })
    }

    /// The network with its present parameters.
    pub fn network(&self) -> &FusedNetwork {
        &self.network
    }

    /// The present parameters.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The optimiser and its state.
    pub fn adam(&self) -> &Adam {
        &self.adam
    }

    /// The optimiser, to change its options between two steps.
    pub fn adam_mut(&mut self) -> &mut Adam {
        &mut self.adam
    }
}
