//! Networks whose parameters are being found.

use super::objective::{Loss, LossOf, column};
use crate::priors::{Parameterization, Scalings};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use std::fmt::Debug;
use tweedie_kernels::network::Network;
use tweedie_kernels::{FusedNetwork, InstructionSet, Parameters, Precision};

/// What is done with the outputs of a network: the loss, and its gradient with respect to them.
pub type LossOfOutputs<'a> = &'a mut dyn FnMut(&Tensor) -> Result<(Loss, Tensor)>;

/// A network that gives the gradient of its parameters.
pub trait Learner: Debug + Send {
    /// `∂L/∂θ` of a loss of the outputs `F(x, noise)`, by the names of the parameters, and the loss.
    ///
    /// # Shapes
    /// `x`: `[N, C, H, W]`; `noise`: N numbers
    /// # Errors
    /// Those of the loss and of the network.
    fn gradients(&self, x: &Tensor, noise: &[f32], loss: LossOfOutputs<'_>) -> Result<(Loss, Parameters)>;

    /// Replaces all parameters.
    ///
    /// # Errors
    /// The name of one that is missing or has another size.
    fn set_parameters(&mut self, parameters: &Parameters) -> Result<()>;
}

/// A network run by [`tweedie_kernels::FusedNetwork`], on a CPU.
#[derive(Debug)]
pub struct FusedLearner(FusedNetwork);

impl FusedLearner {
    /// Packs these parameters.
    ///
    /// # Errors
    /// The name of one that is missing or has another size; a network that has no gradient of its parameters.
    pub fn new(
        network: &Network,
        parameters: &Parameters,
        instruction_set: InstructionSet,
        precision: Precision,
    ) -> Result<Self> {
        let lookup = |name: &str| parameters.get(name).cloned();
        Ok(Self(FusedNetwork::new(network, instruction_set, precision, lookup).map_err(failed)?))
    }
}

fn failed(error: tweedie_kernels::Error) -> Error {
    candle_core::Error::wrap(error).into()
}

impl Learner for FusedLearner {
    fn gradients(&self, x: &Tensor, noise: &[f32], loss: LossOfOutputs<'_>) -> Result<(Loss, Parameters)> {
        let (n, c, h, w) = x.dims4()?;
        let values = x.flatten_all()?.to_vec1::<f32>()?;
        let (output, tape) = self.0.forward_for_gradients(&values, [n, c, h, w], noise, 1.0).map_err(failed)?;
        let output = Tensor::from_vec(output, (n, self.0.network().output_channels(), h, w), &Device::Cpu)?;
        let (loss, v) = loss(&output)?;
        let gradients = self.0.gradients(&tape, &v.flatten_all()?.to_vec1::<f32>()?, None).map_err(failed)?;
        Ok((loss, gradients.parameters))
    }

    fn set_parameters(&mut self, parameters: &Parameters) -> Result<()> {
        self.0.set_parameters(|name| parameters.get(name).cloned()).map_err(failed)
    }
}

/// Gradient of a loss of denoised images, through the parameterisation: `D = skip x + out F(input x + shift) + offset`.
///
/// # Errors
/// Those of the network and of the loss.
pub(super) fn gradients(
    learner: &dyn Learner,
    parameterization: &Parameterization,
    (x, sigmas): (&Tensor, &[f64]),
    loss: &LossOf,
) -> Result<(Loss, Parameters)> {
    let scalings: Vec<Scalings> = sigmas.iter().map(|&sigma| parameterization.scalings(sigma)).collect();
    let of = |pick: fn(&Scalings) -> f64| column(scalings.iter().map(pick), x);
    let (skip, out, offset) = (of(|s| s.skip)?, of(|s| s.out)?, of(|s| s.offset)?);
    let input = x.broadcast_mul(&of(|s| s.input)?)?.broadcast_add(&of(|s| s.shift)?)?;
    let base = x.broadcast_mul(&skip)?.broadcast_add(&offset)?;
    let noise: Vec<f32> = scalings.iter().map(|s| s.noise as f32).collect();
    let channels = x.dim(1)?;
    learner.gradients(&input, &noise, &mut |f| {
        // A network with more outputs than inputs says something else in the others.
        let more = f.dim(1)? - channels;
        let denoised = (&base + f.narrow(1, 0, channels)?.broadcast_mul(&out)?)?;
        let loss = loss(&denoised)?;
        let v = loss.gradient.broadcast_mul(&out)?.pad_with_zeros(1, 0, more)?;
        Ok((loss, v))
    })
}
