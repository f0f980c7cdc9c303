//! Parts that the U-Nets of several families are made of.

use super::{Origin, Pick};
use tweedie_kernels::network::{
    Attention, Dense, Embedding, Features, Filter, Norm, Parameter, Resample, Resize, Source, Step, Sum,
};

/// The steps of a network that is being written down, and where its parameters lie.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) steps: Vec<Step>,
    pub(super) tensors: Vec<Origin>,
    /// Of every value, the input first.
    channels: Vec<usize>,
}

/// The two parameters of a linear map.
#[derive(Clone, Debug)]
pub(super) struct Affine {
    pub(super) weight: Parameter,
    pub(super) bias: Parameter,
}

/// `scale · (s(r(x)) + conv₂(silu(norm₂(conv₁(r(silu(norm₁(x)))) + W silu(e)))))` of the concatenated inputs `x`.
///
/// `r` changes the resolution, or nothing; `s` is a convolution of 1 × 1, or nothing.
#[derive(Debug)]
pub(super) struct Residual<'a> {
    pub(super) inputs: &'a [usize],
    pub(super) norms: [Norm; 2],
    /// Convolutions of 3 × 3.
    pub(super) convolutions: [Affine; 2],
    /// `W`; `None` where the embedding modulates the second norm instead.
    pub(super) embedding: Option<Dense>,
    pub(super) shortcut: Option<Affine>,
    pub(super) filter: Option<Filter>,
    pub(super) scale: f64,
}

impl Draft {
    pub(super) fn new(channels: usize) -> Self {
        Self { steps: Vec::new(), tensors: Vec::new(), channels: vec![channels] }
    }

    /// Channels of these values together.
    pub(super) fn channels(&self, values: &[usize]) -> usize {
        values.iter().map(|&value| self.channels[value]).sum()
    }

    pub(super) fn push(&mut self, step: impl Into<Step>, channels: usize) -> usize {
        self.channels.push(channels);
        self.steps.push(step.into());
        self.steps.len()
    }

    /// `step`, as many channels as its convolutions make.
    pub(super) fn sum(&mut self, step: Sum) -> usize {
        let channels = step.channels;
        self.push(step, channels)
    }

    pub(super) fn resize(&mut self, input: usize, norm: Option<Norm>, filter: Filter) -> usize {
        let silu = norm.is_some();
        self.push(Resize { input, norm, silu, filter }, self.channels[input])
    }

    pub(super) fn residual(&mut self, block: Residual<'_>) -> usize {
        let [first, second] = block.convolutions;
        let [before, between] = block.norms;
        let outputs = first.bias.elements();
        let mut inputs = block.inputs.to_vec();
        let first = match block.filter {
            None => Source { norm: Some(before), silu: true, ..source(&inputs, first) },
            // A convolution doubles pixels by itself.
            Some(Filter::Nearest) => {
                let first = Source { norm: Some(before), silu: true, resample: Resample::Up, ..source(&inputs, first) };
                inputs = vec![self.resize(inputs[0], None, Filter::Nearest)];
                first
            }
            Some(filter) => {
                let activated = self.resize(inputs[0], Some(before), filter.clone());
                inputs = vec![self.resize(inputs[0], None, filter)];
                source(&[activated], first)
            }
        };
        let hidden = self.sum(Sum { embedding: block.embedding, ..sum(vec![first], outputs) });
        let mut sources = vec![Source { norm: Some(between), silu: true, ..source(&[hidden], second) }];
        let residual = match block.shortcut {
            Some(shortcut) => {
                sources.push(source(&inputs, shortcut));
                None
            }
            None => Some(inputs[0]),
        };
        self.sum(Sum { residual, scale: block.scale, ..sum(sources, outputs) })
    }

    /// `scale · (x + out(attention(q(norm(x)), k(norm(x)), v(norm(x)))))` with the four maps in this order.
    pub(super) fn attention(&mut self, x: usize, norm: &Norm, maps: [Affine; 4], heads: usize, scale: f64) -> usize {
        let channels = self.channels[x];
        let [query, key, value, out] = maps;
        let [query, key, value] = [query, key, value].map(|map| {
            let source = Source { norm: Some(norm.clone()), ..source(&[x], map) };
            self.sum(sum(vec![source], channels))
        });
        let attended = self.push(Attention { query, key, value, heads }, channels);
        self.sum(Sum { residual: Some(x), scale, ..sum(vec![source(&[attended], out)], channels) })
    }

    /// A convolution of one value, with its norm and SiLU before it where there is one.
    pub(super) fn convolution(&mut self, input: usize, norm: Option<Norm>, map: Affine) -> usize {
        let (silu, outputs) = (norm.is_some(), map.bias.elements());
        self.sum(sum(vec![Source { norm, silu, ..source(&[input], map) }], outputs))
    }

    /// A convolution of 3 × 3 with stride 2 after a filter of `taps`: as a convolution of `taps` + 2, which is computed
    /// from the checkpoint's when that is read.
    pub(super) fn filtered_down(&mut self, input: usize, taps: &[f64], map: Affine) -> Source {
        let Affine { mut weight, bias } = map;
        self.tensors.push(Origin {
            parameter: weight.name.clone(),
            tensor: weight.name.clone(),
            shape: weight.shape.clone(),
            pick: Pick::Filtered(taps.to_vec()),
        });
        let size = taps.len() + 2;
        weight.shape[2..].fill(size);
        Source { resample: Resample::Down { before: taps.len() / 2 }, ..source(&[input], Affine { weight, bias }) }
    }
}

/// `sources` alone.
pub(super) fn sum(sources: Vec<Source>, channels: usize) -> Sum {
    Sum { sources, embedding: None, residual: None, channels, scale: 1.0 }
}

/// A convolution of the values as they are.
pub(super) fn source(inputs: &[usize], map: Affine) -> Source {
    Source {
        inputs: inputs.to_vec(),
        norm: None,
        silu: false,
        weight: map.weight,
        bias: Some(map.bias),
        resample: Resample::Same,
    }
}

/// `name.weight` of `size × size` and `name.bias`.
pub(super) fn affine(name: &str, inputs: usize, outputs: usize, size: usize) -> Affine {
    Affine {
        weight: Parameter::new(format!("{name}.weight"), &[outputs, inputs, size, size]),
        bias: Parameter::new(format!("{name}.bias"), &[outputs]),
    }
}

/// `name.weight` and `name.bias` of a fully connected layer.
pub(super) fn dense(name: &str, inputs: usize, outputs: usize, silu: bool) -> Dense {
    Dense {
        weight: Parameter::new(format!("{name}.weight"), &[outputs, inputs]),
        bias: Parameter::new(format!("{name}.bias"), &[outputs]),
        silu,
    }
}

/// The embedding of the noise level in tweedie's own networks, `width` numbers by two layers.
pub(super) fn embedding(width: usize) -> Embedding {
    // The slow ones of the sines and cosines are as good as constants.
    const FEATURES: usize = 64;
    let features = Features::Positional { channels: FEATURES, cosine_first: true, frequency_shift: 0.0 };
    let layers = vec![dense("embedding.0", FEATURES, width, false), dense("embedding.1", width, width, true)];
    Embedding { features, layers, classes: None }
}

/// `name.weight` and `name.bias` of a group normalisation.
pub(super) fn norm(name: &str, channels: usize, groups: usize, epsilon: f64) -> Norm {
    Norm {
        groups,
        epsilon,
        weight: Parameter::new(format!("{name}.weight"), &[channels]),
        bias: Parameter::new(format!("{name}.bias"), &[channels]),
        modulation: None,
    }
}

/// Groups of a normalisation that wants four channels or more in each and 32 groups at most.
pub(super) fn groups_of_four(channels: usize) -> usize {
    (channels / 4).min(32)
}
