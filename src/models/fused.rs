//! Networks on a CPU: the whole network is one operation.

use super::ScoreModel;
use crate::Result;
use candle_core::{Device, Tensor};
use tweedie_kernels::network::Network;
use tweedie_kernels::{FusedNetwork, InstructionSet, Precision};
use tweedie_operators::Pullback;

/// A network run by [`tweedie_kernels::FusedNetwork`].
#[derive(Debug)]
pub struct Fused(FusedNetwork);

impl Fused {
    /// Packs the parameters that `lookup` finds by name.
    ///
    /// # Errors
    /// The name of a parameter that is missing or has another size; an instruction set that this machine lacks.
    pub fn new(
        network: &Network,
        instruction_set: InstructionSet,
        precision: Precision,
        lookup: impl FnMut(&str) -> Option<Vec<f32>>,
    ) -> Result<Self, tweedie_kernels::Error> {
        Ok(Self(FusedNetwork::new(network, instruction_set, precision, lookup)?))
    }

    /// The same network of images of one class; of no class if `None`.
    ///
    /// # Errors
    /// A class that the network does not know.
    pub fn with_class(mut self, class: Option<usize>) -> Result<Self, tweedie_kernels::Error> {
        self.0.set_class(class)?;
        Ok(self)
    }

    /// A tensor of what the network made of an input of this shape.
    fn output(&self, values: Vec<f32>, [batch, _, height, width]: [usize; 4]) -> candle_core::Result<Tensor> {
        Tensor::from_vec(values, (batch, self.0.network().output_channels(), height, width), &Device::Cpu)
    }
}

/// Arguments out of range are the caller's bug, reported like every other failed tensor operation.
fn failed(error: tweedie_kernels::Error) -> candle_core::Error {
    candle_core::Error::wrap(error)
}

fn flat(x: &Tensor) -> candle_core::Result<(Vec<f32>, [usize; 4])> {
    let (batch, channels, height, width) = x.dims4()?;
    Ok((x.flatten_all()?.to_vec1()?, [batch, channels, height, width]))
}

impl ScoreModel for Fused {
    fn forward(&self, x: &Tensor, noise: f64) -> Result<Tensor> {
        let (values, shape) = flat(x)?;
        let output = self.0.forward(&values, shape, &[noise as f32], 1.0).map_err(failed)?;
        Ok(self.output(output, shape)?)
    }

    fn forward_with_pullback<'a>(&'a self, x: &Tensor, noise: f64) -> Result<(Tensor, Pullback<'a>)> {
        let (values, shape) = flat(x)?;
        let (output, tape) = self.0.forward_with_tape(&values, shape, &[noise as f32], 1.0).map_err(failed)?;
        let pullback = Pullback::new(move |v| {
            let gradient = self.0.pullback(&tape, &flat(v)?.0, 1.0).map_err(failed)?;
            Ok(Tensor::from_vec(gradient, &shape, &Device::Cpu)?)
        });
        Ok((self.output(output, shape)?, pullback))
    }

    fn channels(&self) -> usize {
        self.0.network().channels
    }

    fn stride(&self) -> usize {
        self.0.network().stride()
    }

    fn operations(&self, height: usize, width: usize) -> f64 {
        self.0.network().operations(height, width)
    }

    fn release_memory(&self) {
        self.0.release_memory();
    }
}
