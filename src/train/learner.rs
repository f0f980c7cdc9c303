//! Networks whose parameters are being found.

use super::energy_learner::EnergyLearner;
use super::layered_learner::LayeredLearner;
use super::objective::{Loss, LossOf, column};
use super::subject::Subject;
use crate::models::ModelOptions;
use crate::priors::{Parameterization, Scalings};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use std::fmt::Debug;
use tweedie_kernels::network::{Network, Resample, Source, Step};
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

    /// Gradient of the sum of all outputs with respect to the inputs, `∂ ΣF(x, noise)/∂x`, image by image.
    ///
    /// # Shapes
    /// As [`gradients`](Self::gradients); returns that of `x`
    /// # Errors
    /// Those of the network.
    fn slope(&self, x: &Tensor, noise: &[f32]) -> Result<Tensor>;

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
        FusedNetwork::has_gradients(network).map_err(failed)?;
        let lookup = |name: &str| parameters.get(name).cloned();
        Ok(Self(FusedNetwork::new(network, instruction_set, precision, lookup).map_err(failed)?))
    }
}

/// The learner for a subject: the CPU's kernels where they know the gradient of all of its steps, candle's differentiation
/// for others, for points and on other devices; and for an energy what makes a gradient of it.
///
/// # Errors
/// `Config` for `bf16` where it is not to be had; the name of a parameter that is missing.
pub fn learner(
    subject: &Subject,
    parameters: &Parameters,
    options: &ModelOptions,
    precision: Precision,
) -> Result<Box<dyn Learner>> {
    let network = &subject.network;
    let fused = options.device.is_cpu() && !is_dense(network) && FusedNetwork::has_gradients(network).is_ok();
    let inner: Box<dyn Learner> = match (fused, precision) {
        (true, _) => Box::new(FusedLearner::new(network, parameters, options.instruction_set, precision)?),
        (false, Precision::F32) => Box::new(LayeredLearner::new(network, parameters, &options.device)?),
        (false, Precision::Bf16) => {
            return Err(Error::Config {
                name: "precision".into(),
                got: precision.to_string(),
                expected: "f32 for a network whose gradient is none of the CPU's kernels".into(),
            });
        }
    };
    Ok(if subject.energy { Box::new(EnergyLearner::new(inner)) } else { inner })
}

/// Whether it is fully connected: made of matrices alone, so that what it takes are points.
fn is_dense(network: &Network) -> bool {
    let matrix = |source: &Source| source.kernel() == 1 && source.resample == Resample::Same && source.norm.is_none();
    let dense = |step: &Step| matches!(step, Step::Sum(sum) if sum.sources.iter().all(matrix));
    network.patch == 1 && network.steps.iter().all(dense)
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

    fn slope(&self, x: &Tensor, noise: &[f32]) -> Result<Tensor> {
        let (n, c, h, w) = x.dims4()?;
        let values = x.flatten_all()?.to_vec1::<f32>()?;
        let (output, tape) = self.0.forward_with_tape(&values, [n, c, h, w], noise, 1.0).map_err(failed)?;
        let slope = self.0.pullback(&tape, &vec![1.0; output.len()], 1.0).map_err(failed)?;
        Ok(Tensor::from_vec(slope, x.shape(), &Device::Cpu)?)
    }

    fn set_parameters(&mut self, parameters: &Parameters) -> Result<()> {
        self.0.set_parameters(|name| parameters.get(name).cloned()).map_err(failed)
    }
}

/// Gradient of a loss of denoised images, through the parameterisation: `D = skip x + out F(input x + shift) + offset`.
///
/// # Errors
/// Those of the network and of the loss.
pub fn gradients(
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
