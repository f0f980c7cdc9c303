//! Networks on any device: candle's tensor operations, one after the other, differentiable.

use super::ScoreModel;
use crate::Result;
use candle_core::{D, Device, Tensor, Var};
use std::collections::HashMap;
use tweedie_kernels::network::{
    Attention, Dense, Features, Filter, Network, Norm, Parameter, Resample, Resize, Source, Step, Sum,
};

/// The parameters that `lookup` finds by name, on `device`.
///
/// # Errors
/// `None` of `lookup` becomes candle's error for a tensor that cannot be found.
pub(super) fn tensors<'a>(
    parameters: impl IntoIterator<Item = &'a Parameter>,
    device: &Device,
    mut lookup: impl FnMut(&str) -> Option<Vec<f32>>,
) -> candle_core::Result<HashMap<String, Tensor>> {
    let tensor = |Parameter { name, shape }: &Parameter| {
        let missing = || candle_core::Error::CannotFindTensor { path: name.clone() };
        let values = lookup(name).ok_or_else(missing)?;
        Ok((name.clone(), Tensor::from_vec(values, shape.as_slice(), device)?))
    };
    parameters.into_iter().map(tensor).collect()
}

/// A network interpreted step by step with candle.
#[derive(Debug)]
pub struct Layered {
    network: Network,
    parameters: HashMap<String, Tensor>,
    device: Device,
    class: Option<usize>,
}

impl Layered {
    /// Puts the parameters that `lookup` finds by name on `device`.
    ///
    /// # Errors
    /// `None` of `lookup` becomes candle's error for a tensor that cannot be found.
    pub fn new(
        network: &Network,
        device: &Device,
        lookup: impl FnMut(&str) -> Option<Vec<f32>>,
    ) -> candle_core::Result<Self> {
        let parameters = tensors(network.parameters(), device, lookup)?;
        Ok(Self { network: network.clone(), parameters, device: device.clone(), class: None })
    }

    /// The same network of images of one class; of no class if `None`.
    ///
    /// # Errors
    /// A class that the network does not know.
    pub fn with_class(self, class: Option<usize>) -> Result<Self, tweedie_kernels::Error> {
        let classes = self.network.embedding.classes.as_ref().map_or(0, |classes| classes.weight.shape[0]);
        match class.filter(|&class| class >= classes) {
            Some(got) => Err(tweedie_kernels::Error::Class { got, classes }),
            None => Ok(Self { class, ..self }),
        }
    }

    fn get(&self, parameter: &Parameter) -> &Tensor {
        &self.parameters[&parameter.name]
    }

    fn dense(&self, layer: &Dense, v: &Tensor) -> candle_core::Result<Tensor> {
        let v = if layer.silu { v.silu()? } else { v.clone() };
        v.matmul(&self.get(&layer.weight).t()?)?.broadcast_add(self.get(&layer.bias))
    }

    /// Its parameters as variables, so that what it makes can be differentiated with respect to them.
    ///
    /// # Errors
    /// Those of tensor operations.
    pub fn into_variables(mut self) -> candle_core::Result<Self> {
        for parameter in self.parameters.values_mut() {
            *parameter = Var::from_tensor(parameter)?.into_inner();
        }
        Ok(self)
    }

    /// What it computes.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The tensors of its parameters, by name.
    pub fn parameters(&self) -> &HashMap<String, Tensor> {
        &self.parameters
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// `[N, channels]` for N noise coordinates.
    fn embed(&self, noise: &[f32]) -> candle_core::Result<Tensor> {
        let mut v = self.features(noise)?;
        let embedding = &self.network.embedding;
        for index in 0..=embedding.layers.len() {
            if let Some(classes) = embedding.classes.as_ref().filter(|classes| classes.after == index) {
                if let Some(bias) = &classes.bias {
                    v = v.broadcast_add(self.get(bias))?;
                }
                if let Some(class) = self.class {
                    v = v.broadcast_add(&(self.get(&classes.weight).narrow(0, class, 1)? * classes.scale)?)?;
                }
            }
            if let Some(layer) = embedding.layers.get(index) {
                v = self.dense(layer, &v)?;
            }
        }
        Ok(v)
    }

    /// `[N, channels]`
    fn features(&self, noise: &[f32]) -> candle_core::Result<Tensor> {
        let (angles, cosine_first) = match &self.network.embedding.features {
            Features::Positional { channels, cosine_first, frequency_shift } => {
                let half = channels / 2;
                let frequency = |k: usize| {
                    let exponent = -(10_000_f32.ln()) * k as f32 / (half as f32 - *frequency_shift as f32);
                    exponent.exp()
                };
                let frequencies: Vec<f32> = (0..half).map(frequency).collect();
                let angles = noise.iter().flat_map(|c| frequencies.iter().map(move |f| f * c)).collect::<Vec<f32>>();
                (Tensor::from_vec(angles, (noise.len(), half), &self.device)?, *cosine_first)
            }
            Features::Fourier { frequencies, cosine_first } => {
                let column = Tensor::from_slice(noise, (noise.len(), 1), &self.device)?;
                // In this order, as the networks were trained: the arguments are large.
                let angles = (self.get(frequencies).unsqueeze(0)?.broadcast_mul(&column)? * 2.0)?;
                ((angles * std::f64::consts::PI)?, *cosine_first)
            }
            Features::Learned { table } => {
                let rows: Vec<u32> = noise.iter().map(|&c| Features::row(c, table.shape[0]) as u32).collect();
                return self.get(table).index_select(&Tensor::from_vec(rows, noise.len(), &self.device)?, 0);
            }
        };
        let (sin, cos) = (angles.sin()?, angles.cos()?);
        match cosine_first {
            true => Tensor::cat(&[cos, sin], 1),
            false => Tensor::cat(&[sin, cos], 1),
        }
    }

    fn normalise(&self, norm: &Norm, x: &Tensor, embedding: &Tensor) -> candle_core::Result<Tensor> {
        let (batch, channels, height, width) = x.dims4()?;
        let grouped = x.reshape((batch, norm.groups, ()))?;
        let centred = grouped.broadcast_sub(&grouped.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let normalised = centred.broadcast_div(&(variance + norm.epsilon)?.sqrt()?)?;
        let per_channel = |p: &Parameter| self.get(p).reshape((1, channels, 1, 1));
        let normalised = normalised
            .reshape((batch, channels, height, width))?
            .broadcast_mul(&per_channel(&norm.weight)?)?
            .broadcast_add(&per_channel(&norm.bias)?)?;
        let Some(layer) = &norm.modulation else { return Ok(normalised) };
        let modulation = self.dense(layer, embedding)?.reshape(((), 2 * channels, 1, 1))?;
        let (scale, shift) = (modulation.narrow(1, 0, channels)?, modulation.narrow(1, channels, channels)?);
        normalised.broadcast_mul(&(scale + 1.0)?)?.broadcast_add(&shift)
    }

    fn resize(&self, resize: &Resize, values: &[Tensor], embedding: &Tensor) -> candle_core::Result<Tensor> {
        let mut x = values[resize.input].clone();
        if let Some(norm) = &resize.norm {
            x = self.normalise(norm, &x, embedding)?;
        }
        if resize.silu {
            x = x.silu()?;
        }
        let (b, c, h, w) = x.dims4()?;
        match &resize.filter {
            Filter::Nearest => doubled(&x),
            Filter::Average => x.reshape((b, c, h / 2, 2, w / 2, 2))?.mean(5)?.mean(3),
            Filter::FirUp(taps) => {
                // A zero after every pixel; both axes gain a factor of two, which the zeros had taken.
                let zeros = x.reshape((b * c, h, 1, w, 1))?.pad_with_zeros(4, 0, 1)?.pad_with_zeros(2, 0, 1)?;
                let x = zeros.reshape((b * c, 1, 2 * h, 2 * w))?;
                let k = taps.len();
                let x = filtered(&x, taps, 2.0, (k.div_ceil(2), (k - 2) / 2), 1)?;
                x.reshape((b, c, 2 * h, 2 * w))
            }
            Filter::FirDown(taps) => {
                let k = taps.len();
                let x = filtered(&x.reshape((b * c, 1, h, w))?, taps, 1.0, ((k - 1) / 2, (k - 2) / 2), 2)?;
                x.reshape((b, c, h / 2, w / 2))
            }
        }
    }

    fn source(&self, source: &Source, values: &[Tensor], embedding: &Tensor) -> candle_core::Result<Tensor> {
        let inputs: Vec<&Tensor> = source.inputs.iter().map(|&value| &values[value]).collect();
        let mut x = if inputs.len() == 1 { inputs[0].clone() } else { Tensor::cat(&inputs, 1)? };
        if let Some(norm) = &source.norm {
            x = self.normalise(norm, &x, embedding)?;
        }
        if source.silu {
            x = x.silu()?;
        }
        let (kernel, weight) = (source.kernel(), self.get(&source.weight));
        // A matrix is a convolution of 1 × 1.
        let weight = &weight.reshape((weight.dim(0)?, weight.dim(1)?, kernel, kernel))?;
        let half = kernel / 2;
        let y = match source.resample {
            // A point: candle's convolution would take a product for each.
            Resample::Same if kernel == 1 && x.dims()[2..] == [1, 1] => {
                x.flatten_from(1)?.matmul(&weight.flatten_from(1)?.t()?)?.unsqueeze(2)?.unsqueeze(3)?
            }
            Resample::Same => x.conv2d(weight, half, 1, 1, 1)?,
            Resample::Down { before: 1 } if kernel == 3 => x.conv2d(weight, half, 2, 1, 1)?,
            Resample::Down { before } => {
                let after = kernel.saturating_sub(2 + before);
                x.pad_with_zeros(2, before, after)?.pad_with_zeros(3, before, after)?.conv2d(weight, 0, 2, 1, 1)?
            }
            Resample::Up => doubled(&x)?.conv2d(weight, half, 1, 1, 1)?,
        };
        match &source.bias {
            Some(bias) => y.broadcast_add(&self.get(bias).reshape((1, (), 1, 1))?),
            None => Ok(y),
        }
    }
}

/// Every pixel 2 × 2 times. Not `upsample_nearest2d`, whose backward replaces what its input has accumulated.
fn doubled(x: &Tensor) -> candle_core::Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let doubled = x.reshape((b, c, h, 1, w, 1))?.broadcast_as((b, c, h, 2, w, 2))?;
    doubled.contiguous()?.reshape((b, c, 2 * h, 2 * w))
}

/// Every square of `patch × patch` pixels as one pixel, as [`Network::patch`] says.
fn gathered(x: &Tensor, patch: usize) -> candle_core::Result<Tensor> {
    if patch == 1 {
        return Ok(x.clone());
    }
    let (b, c, h, w) = x.dims4()?;
    let squares = x.reshape((b, c, h / patch, patch, w / patch, patch))?.permute((0, 1, 3, 5, 2, 4))?;
    squares.contiguous()?.reshape((b, c * patch * patch, h / patch, w / patch))
}

/// What [`gathered`] was made of.
fn scattered(x: &Tensor, patch: usize) -> candle_core::Result<Tensor> {
    if patch == 1 {
        return Ok(x.clone());
    }
    let (b, c, h, w) = x.dims4()?;
    let squares = x.reshape((b, c / (patch * patch), patch, patch, h, w))?.permute((0, 1, 4, 2, 5, 3))?;
    squares.contiguous()?.reshape((b, c / (patch * patch), h * patch, w * patch))
}

/// Images of one channel convolved with the outer product of `taps`, which sum to `gain`, with itself.
fn filtered(
    x: &Tensor,
    taps: &[f64],
    gain: f64,
    (before, after): (usize, usize),
    stride: usize,
) -> candle_core::Result<Tensor> {
    let (k, sum) = (taps.len(), taps.iter().sum::<f64>());
    let tap = |i: usize| gain * taps[k - 1 - i] / sum;
    let kernel = (0..k * k).map(|i| (tap(i / k) * tap(i % k)) as f32).collect::<Vec<_>>();
    let kernel = Tensor::from_vec(kernel, (1, 1, k, k), x.device())?;
    x.pad_with_zeros(2, before, after)?.pad_with_zeros(3, before, after)?.conv2d(&kernel, 0, stride, 1, 1)
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
        let mut sources = step.sources.iter().map(|source| self.source(source, values, embedding));
        let Some(first) = sources.next() else { candle_core::bail!("a sum of no convolutions") };
        let mut y = sources.try_fold(first?, |sum, y| sum + y?)?;
        if let Some(layer) = &step.embedding {
            let projected = self.dense(layer, embedding)?;
            y = y.broadcast_add(&projected.reshape(((), step.channels, 1, 1))?)?;
        }
        if let Some(value) = step.residual {
            y = (y + &values[value])?;
        }
        if step.scale == 1.0 { Ok(y) } else { y * step.scale }
    }
}

impl Layered {
    /// `F(x, noise)` with one noise coordinate for all images, or one for each.
    ///
    /// # Shapes
    /// `x`: `[B, C, H, W]`; `noise`: 1 or B numbers
    /// # Errors
    /// Those of tensor operations.
    pub fn apply(&self, x: &Tensor, noise: &[f32]) -> candle_core::Result<Tensor> {
        let embedding = self.embed(noise)?;
        let mut values = vec![gathered(x, self.network.patch)?];
        for step in &self.network.steps {
            let value = match step {
                Step::Sum(sum) => self.sum(sum, &values, &embedding)?,
                Step::Attention(attention) => attend(attention, &values)?,
                Step::Resize(resize) => self.resize(resize, &values, &embedding)?,
            };
            values.push(value);
        }
        scattered(&values.swap_remove(self.network.steps.len()), self.network.patch)
    }
}

impl ScoreModel for Layered {
    fn forward(&self, x: &Tensor, noise: f64) -> Result<Tensor> {
        Ok(self.apply(x, &[noise as f32])?)
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
