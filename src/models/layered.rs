//! Networks on any device: candle's tensor operations, one after the other, differentiable.

use super::ScoreModel;
use crate::Result;
use candle_core::{D, Device, Tensor};
use std::collections::HashMap;
use tweedie_kernels::network::{Attention, Dense, Network, Norm, Parameter, Resample, Source, Step, Sum};

/// A network interpreted step by step with candle.
#[derive(Debug)]
pub struct Layered {
    network: Network,
    parameters: HashMap<String, Tensor>,
    device: Device,
}

impl Layered {
    /// Puts the parameters that `lookup` finds by name on `device`.
    ///
    /// # Errors
    /// `None` of `lookup` becomes candle's error for a tensor that cannot be found.
    pub fn new(
        network: &Network,
        device: &Device,
        mut lookup: impl FnMut(&str) -> Option<Vec<f32>>,
    ) -> candle_core::Result<Self> {
        let mut parameters = HashMap::new();
        for Parameter { name, shape } in network.parameters() {
            let missing = || candle_core::Error::CannotFindTensor { path: name.clone() };
            let values = lookup(name).ok_or_else(missing)?;
            parameters.insert(name.clone(), Tensor::from_vec(values, shape.as_slice(), device)?);
        }
        Ok(Self { network: network.clone(), parameters, device: device.clone() })
    }

    fn get(&self, parameter: &Parameter) -> &Tensor {
        &self.parameters[&parameter.name]
    }

    fn dense(&self, layer: &Dense, v: &Tensor) -> candle_core::Result<Tensor> {
        let v = if layer.silu { v.silu()? } else { v.clone() };
        v.matmul(&self.get(&layer.weight).t()?)?.broadcast_add(self.get(&layer.bias))
    }

    fn embed(&self, noise: f64) -> candle_core::Result<Tensor> {
        let embedding = &self.network.embedding;
        let half = embedding.channels / 2;
        let angles: Vec<f32> = (0..half)
            .map(|k| {
                let exponent = -(10_000_f32.ln()) * k as f32 / (half as f32 - embedding.frequency_shift as f32);
                exponent.exp() * noise as f32
            })
            .collect();
        let angles = Tensor::from_vec(angles, (1, half), &self.device)?;
        let (sin, cos) = (angles.sin()?, angles.cos()?);
        let mut v = match embedding.cosine_first {
            true => Tensor::cat(&[cos, sin], 1)?,
            false => Tensor::cat(&[sin, cos], 1)?,
        };
        for layer in &embedding.layers {
            v = self.dense(layer, &v)?;
        }
        Ok(v)
    }

    fn normalise(&self, norm: &Norm, x: &Tensor) -> candle_core::Result<Tensor> {
        let (batch, channels, height, width) = x.dims4()?;
        let grouped = x.reshape((batch, norm.groups, ()))?;
        let centred = grouped.broadcast_sub(&grouped.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let normalised = centred.broadcast_div(&(variance + norm.epsilon)?.sqrt()?)?;
        let per_channel = |p: &Parameter| self.get(p).reshape((1, channels, 1, 1));
        normalised
            .reshape((batch, channels, height, width))?
            .broadcast_mul(&per_channel(&norm.weight)?)?
            .broadcast_add(&per_channel(&norm.bias)?)
    }

    fn source(&self, source: &Source, values: &[Tensor]) -> candle_core::Result<Tensor> {
        let inputs: Vec<&Tensor> = source.inputs.iter().map(|&value| &values[value]).collect();
        let mut x = if inputs.len() == 1 { inputs[0].clone() } else { Tensor::cat(&inputs, 1)? };
        if let Some(norm) = &source.norm {
            x = self.normalise(norm, &x)?;
        }
        if source.silu {
            x = x.silu()?;
        }
        let (kernel, weight) = (source.kernel(), self.get(&source.weight));
        // A matrix is a convolution of 1 × 1.
        let weight = &weight.reshape((weight.dim(0)?, weight.dim(1)?, kernel, kernel))?;
        let half = kernel / 2;
        let y = match source.resample {
            Resample::Same => x.conv2d(weight, half, 1, 1, 1)?,
            Resample::Down { before: 1 } => x.conv2d(weight, half, 2, 1, 1)?,
            Resample::Down { before } => {
                x.pad_with_zeros(2, before, 1)?.pad_with_zeros(3, before, 1)?.conv2d(weight, 0, 2, 1, 1)?
            }
            Resample::Up => {
                // Not `upsample_nearest2d`, whose backward replaces what its input has accumulated.
                let (b, c, h, w) = x.dims4()?;
                let doubled = x.reshape((b, c, h, 1, w, 1))?.broadcast_as((b, c, h, 2, w, 2))?;
                doubled.contiguous()?.reshape((b, c, 2 * h, 2 * w))?.conv2d(weight, half, 1, 1, 1)?
            }
        };
        match &source.bias {
            Some(bias) => y.broadcast_add(&self.get(bias).reshape((1, (), 1, 1))?),
            None => Ok(y),
        }
    }
}

/// At most so many rows of the matrix of scores exist at the same time, each of as many numbers as the image has pixels.
const QUERIES: usize = 1024;

/// Softmax over the keys, block by block of queries.
fn attend(attention: &Attention, values: &[Tensor]) -> candle_core::Result<Tensor> {
    let (batch, channels, height, width) = values[attention.value].dims4()?;
    let pixels = height * width;
    // [B · heads, channels of a head, pixels]
    let heads = |value: usize| values[value].reshape((batch * attention.heads, (), pixels));
    let (query, key, value) = (heads(attention.query)?, heads(attention.key)?, heads(attention.value)?);
    let scale = 1.0 / (query.dim(1)? as f64).sqrt();
    let transposed = value.t()?.contiguous()?;
    let block = |first: usize| {
        let query = query.narrow(2, first, QUERIES.min(pixels - first))?;
        let scores = (query.t()?.contiguous()?.matmul(&key)? * scale)?;
        // The largest score changes nothing but the rounding: no gradient goes through it.
        let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
        weights.matmul(&transposed)
    };
    let blocks = (0..pixels).step_by(QUERIES).map(block).collect::<candle_core::Result<Vec<Tensor>>>()?;
    Tensor::cat(&blocks, 1)?.t()?.contiguous()?.reshape((batch, channels, height, width))
}

impl Layered {
    fn sum(&self, step: &Sum, values: &[Tensor], embedding: &Tensor) -> candle_core::Result<Tensor> {
        let mut sources = step.sources.iter().map(|source| self.source(source, values));
        let Some(first) = sources.next() else { candle_core::bail!("a sum of no convolutions") };
        let mut y = sources.try_fold(first?, |sum, y| sum + y?)?;
        if let Some(layer) = &step.embedding {
            let projected = self.dense(layer, embedding)?;
            y = y.broadcast_add(&projected.reshape((1, step.channels, 1, 1))?)?;
        }
        match step.residual {
            Some(value) => y + &values[value],
            None => Ok(y),
        }
    }
}

impl ScoreModel for Layered {
    fn forward(&self, x: &Tensor, noise: f64) -> Result<Tensor> {
        let embedding = self.embed(noise)?;
        let mut values = vec![x.clone()];
        for step in &self.network.steps {
            let value = match step {
                Step::Sum(sum) => self.sum(sum, &values, &embedding)?,
                Step::Attention(attention) => attend(attention, &values)?,
            };
            values.push(value);
        }
        Ok(values.swap_remove(self.network.steps.len()))
    }

    fn channels(&self) -> usize {
        self.network.channels
    }

    fn stride(&self) -> usize {
        self.network.stride()
    }

    fn operations(&self, height: usize, width: usize) -> f64 {
        self.network.operations(height, width)
    }
}
