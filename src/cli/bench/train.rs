//! A training step: forward, loss, gradients of all parameters, Adam.

use super::SIGMA;
use crate::Result;
use crate::models::{Checkpoint, Model};
use candle_core::Tensor;
use tweedie_kernels::{Adam, AdamOptions, Parameters, Trainer};

/// A network in training, and the batch of every step.
pub(super) struct Training {
    trainer: Trainer,
    x: Vec<f32>,
    target: Vec<f32>,
    shape: [usize; 4],
}

impl Training {
    /// A copy of the model's network, to learn `target` from `x`: as much work as the denoising loss of any noise level.
    pub(super) fn new(checkpoint: &Checkpoint, model: &Model, x: &Tensor, target: &Tensor) -> Result<Self> {
        let network = &checkpoint.network;
        let names = network.parameters().into_iter().map(|parameter| parameter.name.clone());
        let parameters: Parameters =
            names.filter_map(|name| checkpoint.parameter(&name).map(|values| (name, values))).collect();
        // Small enough that thousands of steps on one batch leave the numbers finite.
        let adam = Adam::new(AdamOptions { learning_rate: 1e-6, ..AdamOptions::default() });
        let trainer = Trainer::new(network, model.instruction_set(), model.precision(), parameters, adam)
            .map_err(candle_core::Error::wrap)?;
        let (batch, channels, height, width) = x.dims4()?;
        let flat = |x: &Tensor| x.flatten_all()?.to_vec1::<f32>();
        Ok(Self { trainer, x: flat(x)?, target: flat(target)?, shape: [batch, channels, height, width] })
    }

    /// One step on the mean square error.
    pub(super) fn step(&mut self) -> Result<()> {
        let target = &self.target;
        let loss = |output: &[f32]| {
            let count = output.len() as f64;
            let difference = output.iter().zip(target).map(|(f, t)| f - t);
            let square: f64 = difference.clone().map(|d| f64::from(d).powi(2)).sum();
            (square / count, difference.map(|d| 2.0 * d / count as f32).collect())
        };
        let noise = [(SIGMA.ln() / 4.0) as f32];
        self.trainer.step(&self.x, self.shape, &noise, loss).map_err(candle_core::Error::wrap)?;
        Ok(())
    }
}
