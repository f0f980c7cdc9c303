//! What a network is, apart from its numbers: a list of convolutions of earlier values.
//!
//! Every U-Net of this field is made of one kind of step: concatenate some earlier values, normalise them by groups,
//! apply SiLU, resample, convolve, and add a bias, a projection of the noise embedding and a residual. Described like
//! this, one executor can fuse a step into one pass over memory, another can run it with differentiable tensor
//! operations, and a checkpoint's names and shapes are checked (or its parameters counted) without allocating any.

/// A named parameter and its shape, as in the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Key in the checkpoint.
    pub name: String,
    /// Its shape there.
    pub shape: Vec<usize>,
}

impl Parameter {
    /// A parameter called `name` of this shape.
    pub fn new(name: impl Into<String>, shape: &[usize]) -> Self {
        Self { name: name.into(), shape: shape.to_vec() }
    }

    /// Number of its elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A fully connected layer `v ↦ W v + b`, with SiLU before it where `silu` is set.
#[derive(Clone, Debug)]
pub struct Dense {
    /// `W`: `[out, in]`.
    pub weight: Parameter,
    /// `b`: `[out]`.
    pub bias: Parameter,
    /// Whether the argument goes through SiLU first.
    pub silu: bool,
}

/// Sines and cosines of the noise coordinate, then fully connected layers.
#[derive(Clone, Debug)]
pub struct Embedding {
    /// Number of sines and cosines together.
    pub channels: usize,
    /// Cosines first; sines first otherwise.
    pub cosine_first: bool,
    /// `s` in the frequencies `10000^(−k / (channels/2 − s))`.
    pub frequency_shift: f64,
    /// Applied one after the other.
    pub layers: Vec<Dense>,
}

/// Group normalisation, `γ (x − mean) / √(var + ε) + β` over the pixels and channels of each group.
#[derive(Clone, Debug)]
pub struct Norm {
    /// Number of groups; divides the number of channels.
    pub groups: usize,
    /// Added to the variance.
    pub epsilon: f64,
    /// `γ`: `[C]`.
    pub weight: Parameter,
    /// `β`: `[C]`.
    pub bias: Parameter,
}

/// How a convolution changes the resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resample {
    /// Same size: `k/2` zeros on every side.
    Same,
    /// Stride 2, with this many zeros before each axis (the reference networks use 0 or 1) and as many after it as half
    /// the size needs.
    Down {
        /// Zeros above and to the left.
        before: usize,
    },
    /// Nearest-neighbour ×2 before the convolution.
    Up,
}

/// One convolution within a step.
#[derive(Clone, Debug)]
pub struct Source {
    /// Values that are concatenated along the channels.
    pub inputs: Vec<usize>,
    /// Normalisation of the concatenated values.
    pub norm: Option<Norm>,
    /// SiLU after the normalisation.
    pub silu: bool,
    /// `[C_out, C_in, k, k]`, `k` odd.
    pub weight: Parameter,
    /// `[C_out]`.
    pub bias: Option<Parameter>,
    /// Change of resolution.
    pub resample: Resample,
}

/// One step: the sum of its sources, of a projection of the embedding, and of a residual.
#[derive(Clone, Debug)]
pub struct Step {
    /// Convolutions whose results are added.
    pub sources: Vec<Source>,
    /// Projection of the embedding, added to every pixel.
    pub embedding: Option<Dense>,
    /// An earlier value of the same shape, added as it is.
    pub residual: Option<usize>,
    /// Channels of the result.
    pub channels: usize,
}

impl Step {
    /// What it is called: the name of its first convolution in the checkpoint.
    pub fn name(&self) -> &str {
        let weight = self.sources.first().map_or("", |source| source.weight.name.as_str());
        weight.strip_suffix(".weight").unwrap_or(weight)
    }
}

/// A description that does not fit together.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{place}: {problem}")]
pub struct Inconsistent {
    /// Part of the network.
    pub place: String,
    /// What is wrong there.
    pub problem: String,
}

/// A network `F(x, c)`: value 0 is its input, step `i` makes value `i + 1`, the last value is its output.
#[derive(Clone, Debug)]
pub struct Network {
    /// Channels of the input.
    pub channels: usize,
    /// How the noise coordinate enters.
    pub embedding: Embedding,
    /// In the order of evaluation.
    pub steps: Vec<Step>,
}

impl Network {
    /// Every parameter once, in the order of first use.
    pub fn parameters(&self) -> Vec<&Parameter> {
        let mut all = Vec::new();
        for layer in &self.embedding.layers {
            all.extend([&layer.weight, &layer.bias]);
        }
        for step in &self.steps {
            for source in &step.sources {
                if let Some(norm) = &source.norm {
                    all.extend([&norm.weight, &norm.bias]);
                }
                all.push(&source.weight);
                all.extend(source.bias.as_ref());
            }
            if let Some(layer) = &step.embedding {
                all.extend([&layer.weight, &layer.bias]);
            }
        }
        all
    }

    /// Channels of value `index`.
    pub fn value_channels(&self, index: usize) -> usize {
        if index == 0 { self.channels } else { self.steps[index - 1].channels }
    }

    /// The number that height and width have to be a multiple of, so that every up-sampling meets its skip.
    pub fn stride(&self) -> usize {
        let mut level = vec![0_u32; self.steps.len() + 1];
        for (index, step) in self.steps.iter().enumerate() {
            let source = &step.sources[0];
            let from = level[source.inputs[0]];
            level[index + 1] = match source.resample {
                Resample::Same => from,
                Resample::Down { .. } => from + 1,
                Resample::Up => from.saturating_sub(1),
            };
        }
        1 << level.into_iter().max().unwrap_or(0)
    }

    /// Whether the parts fit together: every step reads earlier values of one resolution, and every parameter has the
    /// shape of what it is applied to.
    ///
    /// # Errors
    /// The first part that does not.
    pub fn check(&self) -> Result<(), Inconsistent> {
        let at = |place: String| move |problem: String| Inconsistent { place: place.clone(), problem };
        let mut embedded = self.embedding.channels;
        if !embedded.is_multiple_of(2) {
            return Err(at("embedding".into())(format!("{embedded} channels, expected an even number")));
        }
        for (index, layer) in self.embedding.layers.iter().enumerate() {
            let outputs = layer.bias.elements();
            check_dense(layer, embedded, outputs).map_err(at(format!("layer {} of the embedding", index + 1)))?;
            embedded = outputs;
        }
        // How often the value has been halved.
        let mut level = vec![0_i32];
        for index in 0..self.steps.len() {
            let to = self.check_step(index, &level, embedded).map_err(at(format!("step {}", index + 1)))?;
            level.push(to);
        }
        Ok(())
    }

    /// The level of the result of step `index`.
    fn check_step(&self, index: usize, level: &[i32], embedded: usize) -> Result<i32, String> {
        let step = &self.steps[index];
        let earlier = |value: usize| match value <= index {
            true => Ok(()),
            false => Err(format!("value {value} is not an earlier one")),
        };
        let Some(resample) = step.sources.first().map(|source| source.resample) else {
            return Err("no source".into());
        };
        let mut from = None;
        for source in &step.sources {
            if source.inputs.is_empty() {
                return Err("a source without inputs".into());
            }
            if source.resample != resample {
                return Err(format!("sources with {resample:?} and {:?}", source.resample));
            }
            let mut channels = 0;
            for &value in &source.inputs {
                earlier(value)?;
                channels += self.value_channels(value);
                if *from.get_or_insert(level[value]) != level[value] {
                    return Err(format!("value {value} has another resolution than the other inputs"));
                }
            }
            if let Some(norm) = &source.norm {
                if norm.groups == 0 || !channels.is_multiple_of(norm.groups) {
                    return Err(format!("{channels} channels in {} groups", norm.groups));
                }
                check_shape(&norm.weight, &[channels])?;
                check_shape(&norm.bias, &[channels])?;
            }
            let size = source.weight.shape.last().copied().unwrap_or_default();
            check_shape(&source.weight, &[step.channels, channels, size, size])?;
            if size % 2 == 0 {
                return Err(format!("a kernel of {size} × {size}, expected an odd size"));
            }
            if let Some(bias) = &source.bias {
                check_shape(bias, &[step.channels])?;
            }
        }
        let to = from.unwrap_or_default()
            + match resample {
                Resample::Same => 0,
                Resample::Down { .. } => 1,
                Resample::Up => -1,
            };
        if let Some(layer) = &step.embedding {
            check_dense(layer, embedded, step.channels)?;
        }
        if let Some(value) = step.residual {
            earlier(value)?;
            if level[value] != to || self.value_channels(value) != step.channels {
                return Err(format!("residual value {value} has another shape than the result"));
            }
        }
        Ok(to)
    }

    /// Multiplications and additions of one evaluation of an image of `height × width`, the convolutions alone.
    pub fn operations(&self, height: usize, width: usize) -> f64 {
        self.work(height, width).iter().map(|work| work.operations).sum()
    }

    /// What each step has to do for an image of `height × width`, both multiples of [`stride`](Self::stride).
    pub fn work(&self, height: usize, width: usize) -> Vec<StepWork> {
        let mut sizes = vec![(height, width)];
        let mut all = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let (from, to) = {
                let (height, width) = sizes[step.sources[0].inputs[0]];
                let to = match step.sources[0].resample {
                    Resample::Same => (height, width),
                    Resample::Down { .. } => (height / 2, width / 2),
                    Resample::Up => (height * 2, width * 2),
                };
                ((height * width) as f64, to)
            };
            let area = (to.0 * to.1) as f64;
            let mut inputs: Vec<usize> = step.sources.iter().flat_map(|s| s.inputs.iter().copied()).collect();
            inputs.sort_unstable();
            inputs.dedup();
            let channels = |values: &[usize]| values.iter().map(|&v| self.value_channels(v)).sum::<usize>();
            // A residual that is also an input has been read already.
            let residual = step.residual.filter(|value| !inputs.contains(value));
            let weights: usize = step.sources.iter().map(|s| s.weight.elements()).sum();
            all.push(StepWork {
                input_channels: channels(&inputs),
                output_channels: step.channels,
                size: to,
                operations: 2.0 * area * weights as f64,
                read: from * channels(&inputs) as f64 + area * channels(residual.as_slice()) as f64,
                written: area * step.channels as f64,
                weights: weights as f64,
            });
            sizes.push(to);
        }
        all
    }
}

/// What a step has to do for one image, whatever runs it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepWork {
    /// Channels of all values that are convolved.
    pub input_channels: usize,
    /// Channels of the result.
    pub output_channels: usize,
    /// Height and width of the result.
    pub size: (usize, usize),
    /// Multiplications and additions of the convolutions as they are written down. An executor may need fewer: for windows
    /// of 3 × 3 by Winograd's way, after an up-sampling by adding up the taps that meet the same pixel.
    pub operations: f64,
    /// Numbers of the values that are convolved or added, each read once.
    pub read: f64,
    /// Numbers of the result.
    pub written: f64,
    /// Numbers of the kernels, which a batch shares.
    pub weights: f64,
}

impl StepWork {
    /// Bytes that have to move for `batch` images when a number of a value takes `value_bytes` and a weight
    /// `weight_bytes`: values read once and written once, weights read once.
    pub fn bytes(&self, batch: usize, value_bytes: usize, weight_bytes: usize) -> f64 {
        batch as f64 * (self.read + self.written) * value_bytes as f64 + self.weights * weight_bytes as f64
    }
}

fn check_shape(parameter: &Parameter, expected: &[usize]) -> Result<(), String> {
    match parameter.shape == expected {
        true => Ok(()),
        false => Err(format!("{} has shape {:?}, expected {expected:?}", parameter.name, parameter.shape)),
    }
}

fn check_dense(layer: &Dense, inputs: usize, outputs: usize) -> Result<(), String> {
    check_shape(&layer.weight, &[outputs, inputs])?;
    check_shape(&layer.bias, &[outputs])
}
