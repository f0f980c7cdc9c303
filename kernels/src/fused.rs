//! A whole network as one operation on the CPU, with its data gradient.
//!
//! Values stay in the blocked layout between the first and the last step; a step is one pass: normalise, activate, pad,
//! resample, convolve, add bias, embedding and residual, and take the sums of the next normalisation.

use crate::affine::Affine;
use crate::attention::{Attention, Softmax};
use crate::correlation::{Correlation, Phase, Tap};
use crate::epilogue::{Gate, Job, Output, Reading, Sums};
use crate::isa::{InstructionSet, InstructionSetError};
use crate::map::{Lanes, Layout, Map, Plane, Pool};
use crate::network::{
    Dense, Features, Inconsistent, Network, Norm, Parameter, Resample, Resize, Source, Step, StepWork, Sum,
};
use crate::patches;
use crate::precision::Precision;
use crate::resampling::Resampling;
use rayon::prelude::*;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

mod gradients;

use gradients::Collector;
pub use gradients::{Gradients, Parameters};

/// What is wrong with the arguments.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The machine cannot run the instruction set.
    #[error(transparent)]
    InstructionSet(#[from] InstructionSetError),
    /// The description does not fit together.
    #[error(transparent)]
    Network(#[from] Inconsistent),
    /// A parameter is not there.
    #[error("missing parameter {0}")]
    Missing(String),
    /// A parameter has another number of elements.
    #[error("parameter {name}: expected shape {expected:?}, got {got} elements")]
    Elements {
        /// Its name.
        name: String,
        /// As the network describes it.
        expected: Vec<usize>,
        /// What was given.
        got: usize,
    },
    /// The input has a shape the network cannot take.
    #[error("input of shape {got:?}, expected [B, {channels}, multiple of {stride}, multiple of {stride}]")]
    Shape {
        /// What was given.
        got: [usize; 4],
        /// Channels of the network.
        channels: usize,
        /// See [`Network::stride`].
        stride: usize,
    },
    /// The number of noise coordinates is neither one nor one per image.
    #[error("{got} noise coordinates for a batch of {batch}, expected 1 or {batch}")]
    Noise {
        /// What was given.
        got: usize,
        /// Images.
        batch: usize,
    },
    /// The gradient of the parameters around a part that no kernel takes it of; every network can be evaluated.
    #[error("{0} is not fused")]
    Unsupported(String),
    /// There are more or fewer numbers than the shape has.
    #[error("{got} elements for shape {shape:?}")]
    Length {
        /// What was given.
        got: usize,
        /// `[B, C, H, W]`.
        shape: [usize; 4],
    },
    /// The network knows no such class.
    #[error("class {got} of a network of {classes} classes, numbered from 0")]
    Class {
        /// What was given.
        got: usize,
        /// How many it knows.
        classes: usize,
    },
    /// The tape of one network was given to another.
    #[error("the tape belongs to another network")]
    Tape,
    /// The tape was kept for a pullback, and gradients of the parameters need more.
    #[error("the tape does not keep what the gradients of the parameters need")]
    Kept,
    /// A loss or the gradient of a parameter is infinite or not a number.
    #[error("{0} is not finite")]
    NotFinite(String),
}

#[derive(Debug)]
struct FusedNorm {
    groups: usize,
    epsilon: f64,
    weight: Vec<f32>,
    bias: Vec<f32>,
    modulation: Option<FusedDense>,
}

#[derive(Debug)]
struct FusedSource {
    inputs: Vec<usize>,
    layout: Layout,
    norm: Option<FusedNorm>,
    silu: bool,
    /// As in the description, which `backward` is packed from.
    source: Source,
    weight: Arc<Vec<f32>>,
    /// Data gradient, from the step's result to the concatenated inputs; packed when it is first asked for.
    backward: OnceLock<Correlation>,
}

#[derive(Debug)]
struct FusedDense {
    weight: Vec<f32>,
    bias: Vec<f32>,
    silu: bool,
}

impl FusedDense {
    fn apply(&self, v: &[f32]) -> Vec<f32> {
        let v: Vec<f32> = if self.silu { v.iter().map(|x| x / (1.0 + (-x).exp())).collect() } else { v.to_vec() };
        let row = |(row, bias): (&[f32], &f32)| bias + dot(row, &v);
        self.weight.chunks_exact(v.len()).zip(&self.bias).map(row).collect()
    }
}

/// `Σ a b` in sixteen partial sums, which the compiler keeps in vectors.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; 16];
    for (a, b) in a.chunks(16).zip(b.chunks(16)) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum()
}

#[derive(Debug)]
struct FusedSum {
    forward: Correlation,
    sources: Vec<FusedSource>,
    bias: Vec<f32>,
    embedding: Option<FusedDense>,
    residual: Option<usize>,
    /// Of the residual; the weights, the bias and the projection have it in them.
    scale: f32,
    layout: Layout,
    resample: Resample,
    /// Whether a later step normalises the result.
    sums: bool,
}

#[derive(Debug)]
enum FusedStep {
    Sum(Box<FusedSum>),
    Attention {
        kernel: Attention,
        /// Query, key and value.
        inputs: [usize; 3],
    },
    Resize(Box<FusedResize>),
}

#[derive(Debug)]
struct FusedResize {
    input: usize,
    layout: Layout,
    norm: Option<FusedNorm>,
    silu: bool,
    forward: Resampling,
    backward: Resampling,
    resample: Resample,
}

/// A network packed for the instruction set of this machine, and its working memory.
///
/// All methods may be called from several threads at once. The result of an image depends on nothing but the image: not
/// on the batch it is in, nor on the number of threads.
#[derive(Debug)]
pub struct FusedNetwork {
    network: Network,
    isa: InstructionSet,
    precision: Precision,
    /// What the features of the noise are made of: frequencies, or a row for every level.
    features: Vec<f32>,
    layers: Vec<FusedDense>,
    /// Of every class, one after the other; empty for a network that knows none.
    classes: Vec<f32>,
    /// Added to those, and without a class; may be empty.
    class_bias: Vec<f32>,
    /// The one that images are of.
    class: Option<usize>,
    steps: Vec<FusedStep>,
    /// For each step the values that no later one reads.
    last_reads: Vec<Vec<usize>>,
    pool: Arc<Pool>,
    /// How often the parameters have been replaced.
    version: u64,
}

/// What a forward pass leaves behind for its data gradient.
#[derive(Debug)]
pub struct Tape {
    values: Vec<Option<Map>>,
    norms: Vec<Vec<Option<NormState>>>,
    /// Of each step that is an attention.
    softmaxes: Vec<Option<Softmax>>,
    sizes: Vec<(usize, usize)>,
    batch: usize,
    noise: Vec<f32>,
    keep: Keep,
    /// The memory of the network that made it, by which it is recognised.
    pool: Arc<Pool>,
    /// The parameters it was made with.
    version: u64,
}

/// Which values outlive a forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    Nothing,
    /// Those that are normalised or activated, that go into an attention, or come out of one.
    ForPullback,
    /// These and all that are convolved.
    ForGradients,
}

/// What a source does to its inputs before the convolution, for one batch: per image and lane, and per image and group.
#[derive(Debug)]
struct NormState {
    scale: Vec<f32>,
    shift: Vec<f32>,
    /// Per image and channel what the normalised values are multiplied by; empty for an activation alone.
    weights: Vec<f64>,
    /// (mean, 1 / standard deviation) of each image's groups; empty for an activation alone.
    moments: Vec<(f64, f64)>,
}

/// Sums and sums of squares per image and channel.
type ChannelSums = Vec<(f64, f64)>;

impl FusedNetwork {
    /// Packs the parameters that `lookup` finds by name.
    ///
    /// # Errors
    /// `InstructionSet`, `Network`; `Missing` or `Elements`, naming the parameter.
    pub fn new(
        network: &Network,
        isa: InstructionSet,
        precision: Precision,
        mut lookup: impl FnMut(&str) -> Option<Vec<f32>>,
    ) -> Result<Self, Error> {
        // What the kernels rely on: they check neither instructions nor indices.
        let isa = isa.on_this_machine()?;
        network.check()?;
        // A large network's kernels are there once and packed, not a third time.
        let mut parameters: HashMap<String, Arc<Vec<f32>>> = HashMap::new();
        for parameter in network.parameters() {
            let values = lookup(&parameter.name).ok_or_else(|| Error::Missing(parameter.name.clone()))?;
            if values.len() != parameter.elements() {
                let (name, expected) = (parameter.name.clone(), parameter.shape.clone());
                return Err(Error::Elements { name, expected, got: values.len() });
            }
            parameters.insert(parameter.name.clone(), Arc::new(values));
        }
        let get = |parameter: &Parameter| parameters[&parameter.name].to_vec();
        let dense = |layer: &Dense| FusedDense { weight: get(&layer.weight), bias: get(&layer.bias), silu: layer.silu };
        let normed = |norm: &Norm| FusedNorm {
            groups: norm.groups,
            epsilon: norm.epsilon,
            weight: get(&norm.weight),
            bias: get(&norm.bias),
            modulation: norm.modulation.as_ref().map(dense),
        };
        let pack_sum = |step: &Sum| {
            let factor = step.scale as f32;
            let scaled = |mut values: Vec<f32>| {
                values.iter_mut().for_each(|value| *value *= factor);
                values
            };
            let output = Layout { parts: vec![step.channels] };
            let layouts: Vec<Layout> = step
                .sources
                .iter()
                .map(|s| Layout { parts: s.inputs.iter().map(|&v| network.value_channels(v)).collect() })
                .collect();
            let weight = |source: &Source| match factor {
                1.0 => Arc::clone(&parameters[&source.weight.name]),
                _ => Arc::new(scaled(get(&source.weight))),
            };
            let weights: Vec<Arc<Vec<f32>>> = step.sources.iter().map(weight).collect();
            let resample = step.sources[0].resample;
            let (read, write) = resample.strides();
            let phases = forward_phases(&step.sources, &weights, resample);
            let forward = Correlation::new((isa, precision), read, write, &phases, &layouts, &output);
            let sources = step
                .sources
                .iter()
                .zip(&layouts)
                .zip(weights)
                .map(|((source, layout), weight)| FusedSource {
                    inputs: source.inputs.clone(),
                    layout: layout.clone(),
                    norm: source.norm.as_ref().map(normed),
                    silu: source.silu,
                    source: source.clone(),
                    weight,
                    backward: OnceLock::new(),
                })
                .collect();
            let mut bias = vec![0.0; output.blocks() * 16];
            for source in step.sources.iter().filter_map(|s| s.bias.as_ref()) {
                for (sum, value) in bias.iter_mut().zip(parameters[&source.name].iter()) {
                    *sum += value;
                }
            }
            FusedSum {
                forward,
                sources,
                bias: scaled(bias),
                embedding: step.embedding.as_ref().map(|layer| FusedDense {
                    weight: scaled(get(&layer.weight)),
                    bias: scaled(get(&layer.bias)),
                    silu: layer.silu,
                }),
                residual: step.residual,
                scale: factor,
                layout: output,
                resample,
                sums: false,
            }
        };
        let pack_resize = |resize: &Resize| {
            let forward = Resampling::new(&resize.filter);
            FusedResize {
                input: resize.input,
                layout: Layout { parts: vec![network.value_channels(resize.input)] },
                norm: resize.norm.as_ref().map(normed),
                silu: resize.silu,
                backward: forward.transposed(),
                forward,
                resample: resize.filter.resample(),
            }
        };
        let pack = |step: &Step| match step {
            Step::Sum(sum) => FusedStep::Sum(Box::new(pack_sum(sum))),
            Step::Attention(attention) => FusedStep::Attention {
                kernel: Attention {
                    isa,
                    heads: attention.heads,
                    channels: network.value_channels(attention.query),
                    value_channels: network.value_channels(attention.value),
                },
                inputs: [attention.query, attention.key, attention.value],
            },
            Step::Resize(resize) => FusedStep::Resize(Box::new(pack_resize(resize))),
        };
        let mut steps: Vec<FusedStep> = network.steps.par_iter().map(pack).collect();
        let mut last_read = vec![0; network.steps.len() + 1];
        for (index, step) in network.steps.iter().enumerate() {
            for value in step.inputs() {
                last_read[value] = index;
            }
            let normalised: Vec<usize> = match step {
                Step::Sum(step) => {
                    let sources = step.sources.iter().filter(|source| source.norm.is_some());
                    sources.flat_map(|source| source.inputs.iter().copied()).collect()
                }
                Step::Resize(resize) => resize.norm.iter().map(|_| resize.input).collect(),
                Step::Attention(_) => Vec::new(),
            };
            for value in normalised {
                if let Some(FusedStep::Sum(step)) = value.checked_sub(1).map(|step| &mut steps[step]) {
                    step.sums = true;
                }
            }
        }
        let mut last_reads = vec![Vec::new(); network.steps.len()];
        for (value, &index) in last_read.iter().enumerate().take(network.steps.len()) {
            last_reads[index].push(value);
        }
        let classes = network.embedding.classes.as_ref();
        Ok(Self {
            network: network.clone(),
            isa,
            precision,
            features: network.embedding.features.parameter().map_or_else(Vec::new, &get),
            layers: network.embedding.layers.iter().map(dense).collect(),
            classes: classes.map_or_else(Vec::new, |classes| get(&classes.weight)),
            class_bias: classes.and_then(|classes| classes.bias.as_ref()).map_or_else(Vec::new, &get),
            class: None,
            steps,
            last_reads,
            pool: Arc::default(),
            version: 0,
        })
    }

    /// Replaces all parameters by those that `lookup` finds by name; tapes of the earlier ones are refused from then on.
    ///
    /// # Errors
    /// `Missing` or `Elements`, naming the parameter; the network is as before then.
    pub fn set_parameters(&mut self, lookup: impl FnMut(&str) -> Option<Vec<f32>>) -> Result<(), Error> {
        let packed = Self::new(&self.network, self.isa, self.precision, lookup)?;
        let (pool, version, class) = (Arc::clone(&self.pool), self.version + 1, self.class);
        *self = Self { pool, version, class, ..packed };
        Ok(())
    }

    /// Says which class all images are of; `None`, as at first, adds nothing to the embedding.
    ///
    /// # Errors
    /// `Class` for one that the network does not know.
    pub fn set_class(&mut self, class: Option<usize>) -> Result<(), Error> {
        let classes = self.network.embedding.classes.as_ref().map_or(0, |classes| classes.weight.shape[0]);
        if let Some(got) = class.filter(|&class| class >= classes) {
            return Err(Error::Class { got, classes });
        }
        self.class = class;
        // What a tape says of the embedding is no longer so.
        self.version += 1;
        Ok(())
    }

    /// What was packed.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The instruction set it was packed for.
    pub fn instruction_set(&self) -> InstructionSet {
        self.isa
    }

    /// The precision of its products.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Bytes of a number of the values that pass from step to step, and of a weight.
    pub fn number_bytes(&self) -> (usize, usize) {
        match self.precision {
            Precision::F32 => (4, 4),
            Precision::Bf16 => (2, 2),
        }
    }

    /// Multiplications and additions of the products that each step takes for an image of `height × width`: those of
    /// [`Network::work`], or fewer where the kernels have a way.
    pub fn step_operations(&self, height: usize, width: usize) -> Vec<f64> {
        let of_step = |(work, step): (StepWork, &FusedStep)| {
            let FusedStep::Sum(step) = step else { return work.operations };
            let channels: Vec<usize> = step.sources.iter().map(|source| source.layout.channels()).collect();
            let values = work.size.0 * work.size.1 * work.output_channels;
            2.0 * values as f64 * step.forward.products(&channels)
        };
        self.network.work(height, width).into_iter().zip(&self.steps).map(of_step).collect()
    }

    /// Returns the working memory to the system.
    pub fn release_memory(&self) {
        self.pool.clear();
    }

    /// `F(factor · x, noise)`.
    ///
    /// # Shapes
    /// `x`: `[B, C, H, W]` in `shape`, H and W multiples of [`Network::stride`]; `noise`: one number, or one per image.
    /// # Errors
    /// `Shape`, `Length`, `Noise`.
    pub fn forward(&self, x: &[f32], shape: [usize; 4], noise: &[f32], factor: f32) -> Result<Vec<f32>, Error> {
        self.forward_observed(x, shape, noise, factor, &mut |_, _| ())
    }

    /// [`forward`](Self::forward), telling `observer` the index of every step and how long it took.
    ///
    /// # Errors
    /// As `forward`.
    pub fn forward_observed(
        &self,
        x: &[f32],
        shape: [usize; 4],
        noise: &[f32],
        factor: f32,
        observer: &mut dyn FnMut(usize, Duration),
    ) -> Result<Vec<f32>, Error> {
        Ok(self.run(x, shape, noise, factor, Keep::Nothing, observer)?.0)
    }

    /// [`forward`](Self::forward), and what its data gradient needs.
    ///
    /// # Errors
    /// As `forward`.
    pub fn forward_with_tape(
        &self,
        x: &[f32],
        shape: [usize; 4],
        noise: &[f32],
        factor: f32,
    ) -> Result<(Vec<f32>, Tape), Error> {
        self.run(x, shape, noise, factor, Keep::ForPullback, &mut |_, _| ())
    }

    /// [`forward`](Self::forward), and what the [`gradients`](Self::gradients) of the parameters need: every value that
    /// is convolved, so more memory than for a pullback.
    ///
    /// # Errors
    /// As `forward`.
    pub fn forward_for_gradients(
        &self,
        x: &[f32],
        shape: [usize; 4],
        noise: &[f32],
        factor: f32,
    ) -> Result<(Vec<f32>, Tape), Error> {
        self.run(x, shape, noise, factor, Keep::ForGradients, &mut |_, _| ())
    }

    fn run(
        &self,
        x: &[f32],
        shape: [usize; 4],
        noise: &[f32],
        factor: f32,
        keep: Keep,
        observer: &mut dyn FnMut(usize, Duration),
    ) -> Result<(Vec<f32>, Tape), Error> {
        let [batch, channels, height, width] = shape;
        let stride = self.network.stride();
        let fits = channels == self.network.channels && height % stride == 0 && width % stride == 0;
        if !fits || height == 0 || width == 0 || batch == 0 {
            return Err(Error::Shape { got: shape, channels: self.network.channels, stride });
        }
        check_length(x, shape)?;
        if noise.len() != 1 && noise.len() != batch {
            return Err(Error::Noise { got: noise.len(), batch });
        }
        let embeddings: Vec<Vec<f32>> = noise.iter().map(|&c| self.embed(c)).collect();
        let count = self.steps.len() + 1;
        let mut values: Vec<Option<Map>> = (0..count).map(|_| None).collect();
        let mut sums: Vec<Option<ChannelSums>> = vec![None; count];
        let patch = self.network.patch;
        let mut sizes = vec![(height / patch, width / patch); count];
        let mut norms = Vec::with_capacity(count);
        let mut softmaxes = Vec::with_capacity(count);
        let (x, shape) = patches::gathered(x, shape, patch);
        values[0] = Some(Map::from_planes(&self.pool, self.precision, &x, shape, factor));
        for (index, step) in self.steps.iter().enumerate() {
            let start = Instant::now();
            let step = match step {
                FusedStep::Sum(step) => step,
                FusedStep::Attention { kernel, inputs } => {
                    let (output, softmax) = kernel.forward(inputs.map(|input| read(&values, input)));
                    softmaxes.push(Some(softmax));
                    norms.push(Vec::new());
                    sizes[index + 1] = sizes[inputs[0]];
                    values[index + 1] = Some(output);
                    self.forget(index, keep, &mut values);
                    observer(index, start.elapsed());
                    continue;
                }
                FusedStep::Resize(step) => {
                    let size = sizes[step.input];
                    let state = match &step.norm {
                        Some(norm) => {
                            let known = Known { values: &values, sums: &sums, sizes: &sizes };
                            Some(norm_state(norm, (&[step.input], &step.layout), &known, &embeddings, batch))
                        }
                        None => step.silu.then(|| NormState::identity(&step.layout, batch)),
                    };
                    let to = step.resample.size(size);
                    let mut output = Map::new(&self.pool, self.precision, batch, step.layout.blocks(), to);
                    let job = Job {
                        batch,
                        input_size: size,
                        output_size: to,
                        inputs: vec![planes(&values, &[step.input])],
                        readings: vec![state.as_ref().map(|state| state.reading(step.silu))],
                        outputs: (0..output.blocks)
                            .map(|block| Output { plane: output.write(block), accumulate: false })
                            .collect(),
                        bias: &[],
                        add: Vec::new(),
                        add_factor: 1.0,
                        gate: None,
                        sums: Sums::NONE,
                    };
                    step.forward.run(&job, (self.isa, self.precision));
                    values[index + 1] = Some(output);
                    sizes[index + 1] = to;
                    norms.push(vec![state]);
                    softmaxes.push(None);
                    self.forget(index, keep, &mut values);
                    observer(index, start.elapsed());
                    continue;
                }
            };
            let first = step.sources[0].inputs[0];
            let input_size = sizes[first];
            let output_size = step.resample.size(input_size);
            let states: Vec<Option<NormState>> = step
                .sources
                .iter()
                .map(|source| match &source.norm {
                    Some(norm) => {
                        let known = Known { values: &values, sums: &sums, sizes: &sizes };
                        Some(norm_state(norm, (&source.inputs, &source.layout), &known, &embeddings, batch))
                    }
                    None => source.silu.then(|| NormState::identity(&source.layout, batch)),
                })
                .collect();
            let mut bias = Vec::with_capacity(batch * step.bias.len());
            for b in 0..batch {
                bias.extend_from_slice(&step.bias);
                if let Some(layer) = &step.embedding {
                    let projected = layer.apply(&embeddings[b.min(embeddings.len() - 1)]);
                    let at = b * step.bias.len();
                    for (sum, value) in bias[at..].iter_mut().zip(projected) {
                        *sum += value;
                    }
                }
            }
            let mut output = Map::new(&self.pool, self.precision, batch, step.layout.blocks(), output_size);
            let mut row_sums = match step.sums {
                true => Sums::buffer(batch * output_size.0, output.blocks),
                false => Vec::new(),
            };
            step.forward.run(
                &Job {
                    batch,
                    input_size,
                    output_size,
                    inputs: step.sources.iter().map(|source| planes(&values, &source.inputs)).collect(),
                    readings: step
                        .sources
                        .iter()
                        .zip(&states)
                        .map(|(source, state)| state.as_ref().map(|state| state.reading(source.silu)))
                        .collect(),
                    outputs: (0..output.blocks)
                        .map(|block| Output { plane: output.write(block), accumulate: false })
                        .collect(),
                    bias: &bias,
                    add: step.residual.map(|value| planes(&values, &[value])).unwrap_or_default(),
                    add_factor: step.scale,
                    gate: None,
                    sums: if step.sums { Sums::of(&mut row_sums) } else { Sums::NONE },
                },
                &self.pool,
            );
            if step.sums {
                sums[index + 1] = Some(channel_sums(&row_sums, &step.layout, batch, output_size.0));
            }
            values[index + 1] = Some(output);
            sizes[index + 1] = output_size;
            norms.push(states);
            softmaxes.push(None);
            self.forget(index, keep, &mut values);
            observer(index, start.elapsed());
        }
        let last = self.steps.len();
        let output = values[last].as_ref().map(|map| map.to_planes(self.network.value_channels(last), 1.0));
        if !self.kept(last, keep) {
            values[last] = None;
        }
        let (pool, version) = (Arc::clone(&self.pool), self.version);
        let tape = Tape { values, norms, softmaxes, sizes, batch, noise: noise.to_vec(), keep, pool, version };
        let shape = [batch, self.network.output_channels(), height, width];
        Ok((patches::scattered(output.unwrap_or_default(), shape, patch), tape))
    }

    /// Drops the values that are of no use after step `index`.
    fn forget(&self, index: usize, keep: Keep, values: &mut [Option<Map>]) {
        for &value in &self.last_reads[index] {
            if !self.kept(value, keep) {
                values[value] = None;
            }
        }
    }

    /// Whether the way back reads the value again.
    fn kept(&self, value: usize, keep: Keep) -> bool {
        let read_by = |step: &FusedStep| match step {
            FusedStep::Sum(step) => step.sources.iter().any(|source| {
                let transformed = source.norm.is_some() || source.silu || keep == Keep::ForGradients;
                transformed && source.inputs.contains(&value)
            }),
            FusedStep::Attention { inputs, .. } => inputs.contains(&value),
            FusedStep::Resize(step) => (step.norm.is_some() || step.silu) && step.input == value,
        };
        let made_by = value.checked_sub(1).map(|step| &self.steps[step]);
        let attended = matches!(made_by, Some(FusedStep::Attention { .. }));
        keep != Keep::Nothing && (attended || self.steps.iter().any(read_by))
    }

    /// `v ↦ (∂F/∂x)ᵀ v · factor`, with the tape of a forward pass.
    ///
    /// # Shapes
    /// `v`: like the output of that pass; returns the shape of its input.
    /// # Errors
    /// `Tape`; `Length` if `v` has another number of elements than the output.
    pub fn pullback(&self, tape: &Tape, v: &[f32], factor: f32) -> Result<Vec<f32>, Error> {
        self.go_back(tape, v, Some(factor), None)
    }

    /// One way back through the steps: the gradient of the input, times `factor`, where there is one, and those of the
    /// parameters into `collector`.
    fn go_back(
        &self,
        tape: &Tape,
        v: &[f32],
        factor: Option<f32>,
        mut collector: Option<&mut Collector<'_>>,
    ) -> Result<Vec<f32>, Error> {
        if !Arc::ptr_eq(&tape.pool, &self.pool) || tape.version != self.version {
            return Err(Error::Tape);
        }
        let patch = self.network.patch;
        let (height, width) = tape.sizes[self.steps.len()];
        let (height, width) = (height * patch, width * patch);
        let shape = [tape.batch, self.network.output_channels(), height, width];
        check_length(v, shape)?;
        let (v, shape) = patches::gathered(v, shape, patch);
        let mut gradients: Vec<Option<Map>> = tape.sizes.iter().map(|_| None).collect();
        gradients[self.steps.len()] = Some(Map::from_planes(&self.pool, self.precision, &v, shape, 1.0));
        for (index, step) in self.steps.iter().enumerate().rev() {
            let Some(gradient) = gradients[index + 1].take() else { continue };
            let step = match step {
                FusedStep::Sum(step) => step,
                FusedStep::Attention { kernel, inputs } => {
                    if factor.is_none() && inputs.iter().all(|&value| value == 0) {
                        continue;
                    }
                    let softmax = tape.softmaxes[index].as_ref().expect("every attention leaves its own");
                    let result = read(&tape.values, index + 1);
                    let maps = inputs.map(|input| read(&tape.values, input));
                    for (&value, gradient) in inputs.iter().zip(kernel.backward(maps, softmax, result, &gradient)) {
                        self.add_gradient(&mut gradients[value], gradient, 1.0);
                    }
                    continue;
                }
                FusedStep::Resize(step) => {
                    if factor.is_none() && step.input == 0 {
                        continue;
                    }
                    let of = (&[step.input][..], &step.layout, step.norm.as_ref(), step.silu);
                    let back = |job: Job<'_>| step.backward.run(&job, (self.isa, self.precision));
                    self.through(tape, &mut gradients, (index, 0), of, &gradient, back);
                    continue;
                }
            };
            if let Some(collector) = &mut collector {
                collector.step(tape, index, &gradient);
            }
            for (number, (source, state)) in step.sources.iter().zip(&tape.norms[index]).enumerate() {
                if factor.is_none() && source.norm.is_none() && source.inputs.iter().all(|&value| value == 0) {
                    continue;
                }
                let correlation = self.backward(step, source);
                let back = |job: Job<'_>| correlation.run(&job, &self.pool);
                let of = (&source.inputs[..], &source.layout, source.norm.as_ref(), source.silu);
                let sums = self.through(tape, &mut gradients, (index, number), of, &gradient, back);
                if let (Some(collector), Some(state), Some(sums)) = (&mut collector, state, sums) {
                    collector.norm((index, number), state, &sums);
                }
            }
            if let Some(value) = step.residual {
                self.add_gradient(&mut gradients[value], gradient, step.scale);
            }
        }
        let input = gradients[0].take().zip(factor);
        let input = input.map(|(map, factor)| map.to_planes(self.network.value_channels(0), factor));
        let (height, width) = tape.sizes[0];
        let shape = [tape.batch, self.network.channels, height * patch, width * patch];
        Ok(input.map(|values| patches::scattered(values, shape, patch)).unwrap_or_default())
    }

    /// Carries the gradient of a step's result through a linear map that `back` transposes, and through the activation and
    /// the norm before it, to the values that were read; gives the sums of the gradient behind a norm.
    fn through(
        &self,
        tape: &Tape,
        gradients: &mut [Option<Map>],
        (index, number): (usize, usize),
        (inputs, layout, norm, silu): (&[usize], &Layout, Option<&FusedNorm>, bool),
        gradient: &Map,
        back: impl FnOnce(Job<'_>),
    ) -> Option<ChannelSums> {
        let (batch, size) = (tape.batch, tape.sizes[inputs[0]]);
        let incoming = vec![(0..gradient.blocks).map(|block| gradient.read(block)).collect()];
        let job = |outputs, gate, sums| Job {
            batch,
            input_size: tape.sizes[index + 1],
            output_size: size,
            inputs: incoming,
            readings: vec![None],
            outputs,
            bias: &[],
            add: Vec::new(),
            add_factor: 1.0,
            gate,
            sums,
        };
        let state = tape.norms[index][number].as_ref();
        let values = planes(&tape.values, inputs);
        let gate = state.map(|state| Gate { values: values.clone(), reading: state.reading(silu) });
        let (Some(state), Some(norm)) = (state, norm) else {
            let outputs = self.accumulators(gradients, (inputs, layout), batch, size);
            back(job(outputs, gate, Sums::NONE));
            return None;
        };
        let mut gated = Map::new(&self.pool, self.precision, batch, layout.blocks(), size);
        let outputs = (0..gated.blocks).map(|block| Output { plane: gated.write(block), accumulate: false }).collect();
        let mut row_sums = Sums::buffer(batch * size.0, gated.blocks);
        back(job(outputs, gate, Sums::of(&mut row_sums)));
        let sums = channel_sums(&row_sums, layout, batch, size.0);
        let [scale, slope, shift] = norm_gradient(norm, state, &sums, layout, batch, size.0 * size.1);
        let outputs = self.accumulators(gradients, (inputs, layout), batch, size);
        for (block, output) in outputs.into_iter().enumerate() {
            Affine {
                u: gated.read(block),
                x: values[block],
                output,
                scale: &scale[block * 16..],
                slope: &slope[block * 16..],
                shift: &shift[block * 16..],
                stride: gated.blocks * 16,
            }
            .run((self.isa, self.precision), batch, size.0, size.1);
        }
        Some(sums)
    }

    /// Adds `factor` times a gradient.
    fn add_gradient(&self, sum: &mut Option<Map>, gradient: Map, factor: f32) {
        match sum {
            None if factor == 1.0 => *sum = Some(gradient),
            None => {
                let size = (gradient.height, gradient.width);
                let mut scaled = Map::new(&self.pool, self.precision, gradient.batch, gradient.blocks, size);
                add((self.isa, self.precision), (&mut scaled, false), &gradient, factor);
                *sum = Some(scaled);
            }
            Some(sum) => add((self.isa, self.precision), (sum, true), &gradient, factor),
        }
    }

    /// The data gradient of a source's convolution.
    fn backward<'a>(&self, step: &FusedSum, source: &'a FusedSource) -> &'a Correlation {
        source.backward.get_or_init(|| {
            let phases = backward_phases(&source.source, &source.weight);
            // Forward and backward exchange the strides and the two sides.
            let (read, write) = step.resample.strides();
            let instructions = (self.isa, self.precision);
            Correlation::new(instructions, write, read, &phases, std::slice::from_ref(&step.layout), &source.layout)
        })
    }

    /// Planes of the gradients of these values, made where there are none yet.
    fn accumulators(
        &self,
        gradients: &mut [Option<Map>],
        (inputs, layout): (&[usize], &Layout),
        batch: usize,
        size: (usize, usize),
    ) -> Vec<Output> {
        let mut outputs = Vec::with_capacity(layout.blocks());
        for (&value, channels) in inputs.iter().zip(&layout.parts) {
            let accumulate = gradients[value].is_some();
            let map = gradients[value]
                .get_or_insert_with(|| Map::new(&self.pool, self.precision, batch, channels.div_ceil(16), size));
            outputs.extend((0..map.blocks).map(|block| Output { plane: map.write(block), accumulate }));
        }
        outputs
    }

    fn embed(&self, noise: f32) -> Vec<f32> {
        let mut v = self.features(noise);
        for (index, layer) in self.layers.iter().enumerate() {
            self.add_class(index, &mut v);
            v = layer.apply(&v);
        }
        self.add_class(self.layers.len(), &mut v);
        v
    }

    /// Adds the row of the class to what `index` layers of the embedding have made.
    fn add_class(&self, index: usize, v: &mut [f32]) {
        let Some(classes) = self.network.embedding.classes.as_ref().filter(|classes| classes.after == index) else {
            return;
        };
        v.iter_mut().zip(&self.class_bias).for_each(|(v, x)| *v += x);
        if let Some(class) = self.class {
            debug_assert_eq!(classes.weight.shape[1], v.len());
            let row = &self.classes[class * v.len()..][..v.len()];
            v.iter_mut().zip(row).for_each(|(v, x)| *v += classes.scale as f32 * x);
        }
    }

    /// The features of a noise coordinate.
    fn features(&self, noise: f32) -> Vec<f32> {
        let (angles, cosine_first): (Vec<f32>, bool) = match &self.network.embedding.features {
            Features::Positional { channels, cosine_first, frequency_shift } => {
                let half = channels / 2;
                let angle = |k: usize| {
                    // In single precision and in this order, as the networks were trained.
                    let exponent = -(10_000_f32.ln()) * k as f32 / (half as f32 - *frequency_shift as f32);
                    exponent.exp() * noise
                };
                ((0..half).map(angle).collect(), *cosine_first)
            }
            Features::Fourier { cosine_first, .. } => {
                let angle = |frequency: &f32| noise * frequency * 2.0 * std::f32::consts::PI;
                (self.features.iter().map(angle).collect(), *cosine_first)
            }
            Features::Learned { table } => {
                let channels = table.shape[1];
                return self.features[Features::row(noise, table.shape[0]) * channels..][..channels].to_vec();
            }
        };
        let sines = angles.iter().map(|angle| angle.sin());
        let cosines = angles.iter().map(|angle| angle.cos());
        match cosine_first {
            true => cosines.chain(sines).collect(),
            false => sines.chain(cosines).collect(),
        }
    }
}

impl Resample {
    /// Of a convolution that reads and writes with these strides.
    fn strides(self) -> (usize, usize) {
        match self {
            Self::Same => (1, 1),
            Self::Down { .. } => (2, 1),
            Self::Up => (1, 2),
        }
    }

    /// Height and width of the result for those of the input.
    fn size(self, (height, width): (usize, usize)) -> (usize, usize) {
        match self {
            Self::Same => (height, width),
            Self::Down { .. } => (height / 2, width / 2),
            Self::Up => (height * 2, width * 2),
        }
    }
}

impl NormState {
    fn identity(layout: &Layout, batch: usize) -> Self {
        let lanes = batch * layout.blocks() * 16;
        Self { scale: vec![1.0; lanes], shift: vec![0.0; lanes], weights: Vec::new(), moments: Vec::new() }
    }

    fn reading(&self, silu: bool) -> Reading<'_> {
        Reading { scale: &self.scale, shift: &self.shift, silu }
    }
}

fn check_length(x: &[f32], shape: [usize; 4]) -> Result<(), Error> {
    let elements = shape.iter().try_fold(1_usize, |product, &n| product.checked_mul(n));
    if elements == Some(x.len()) { Ok(()) } else { Err(Error::Length { got: x.len(), shape }) }
}

fn read(values: &[Option<Map>], value: usize) -> &Map {
    values[value].as_ref().expect("a value that is read is there")
}

/// The planes of these values, one after the other; none of a value that the tape does not keep.
fn planes(values: &[Option<Map>], inputs: &[usize]) -> Vec<Plane> {
    inputs
        .iter()
        .filter_map(|&value| values[value].as_ref())
        .flat_map(|map| (0..map.blocks).map(|block| map.read(block)))
        .collect()
}

/// `sum + factor · other`, or that alone where nothing is to be accumulated.
fn add(instructions: (InstructionSet, Precision), (sum, accumulate): (&mut Map, bool), other: &Map, factor: f32) {
    let (scale, zero) = (vec![factor; sum.batch * 16], vec![0.0; sum.batch * 16]);
    for block in 0..sum.blocks {
        let output = Output { plane: sum.write(block), accumulate };
        let (u, x) = (other.read(block), other.read(block));
        Affine { u, x, output, scale: &scale, slope: &zero, shift: &zero, stride: 16 }.run(
            instructions,
            sum.batch,
            sum.height,
            sum.width,
        );
    }
}

/// Adds up the row sums of each channel, in the order of the rows and in double precision.
fn channel_sums(rows: &[Lanes], layout: &Layout, batch: usize, height: usize) -> ChannelSums {
    let blocks = layout.blocks();
    let mut sums = vec![(0.0, 0.0); batch * layout.channels()];
    let lanes = layout.lanes();
    for (index, of_row) in rows.chunks(blocks * 2).take(batch * height).enumerate() {
        let sums = &mut sums[index / height * layout.channels()..];
        for (both, lanes) in of_row.chunks(2).zip(lanes.chunks(16)) {
            for (lane, channel) in lanes.iter().enumerate() {
                let Some(channel) = *channel else { continue };
                sums[channel].0 += f64::from(both[0].0[lane]);
                sums[channel].1 += f64::from(both[1].0[lane]);
            }
        }
    }
    sums
}

/// What a forward pass has made so far: the values, the sums of those that a step left, and their heights and widths.
struct Known<'a> {
    values: &'a [Option<Map>],
    sums: &'a [Option<ChannelSums>],
    sizes: &'a [(usize, usize)],
}

/// Mean and deviation of every group, and from them scale and shift of every lane: `γ (1 + s)` and `β (1 + s) + t` take
/// the place of γ and β where the embedding modulates them.
fn norm_state(
    norm: &FusedNorm,
    (inputs, layout): (&[usize], &Layout),
    known: &Known<'_>,
    embeddings: &[Vec<f32>],
    batch: usize,
) -> NormState {
    let Known { values, sums, sizes } = *known;
    let channels = layout.channels();
    let width = channels / norm.groups;
    let (height, row) = sizes[inputs[0]];
    let count = (width * height * row) as f64;
    let mut moments = Vec::with_capacity(batch * norm.groups);
    let (mut scale, mut shift, mut weights) = (Vec::new(), Vec::new(), Vec::new());
    let modulations: Vec<Vec<f32>> =
        norm.modulation.iter().flat_map(|layer| embeddings.iter().map(|v| layer.apply(v))).collect();
    for b in 0..batch {
        let modulation = modulations.get(b.min(embeddings.len() - 1));
        let factor = |c: usize| modulation.map_or(1.0, |numbers| 1.0 + f64::from(numbers[c]));
        let added = |c: usize| modulation.map_or(0.0, |numbers| f64::from(numbers[channels + c]));
        weights.extend((0..channels).map(|c| f64::from(norm.weight[c]) * factor(c)));
        let mut of_channel: Vec<(f64, f64)> = Vec::with_capacity(channels);
        for (&value, &part) in inputs.iter().zip(&layout.parts) {
            match &sums[value] {
                Some(sums) => of_channel.extend_from_slice(&sums[b * part..(b + 1) * part]),
                None => of_channel.extend((0..part).map(|channel| {
                    read(values, value).channel(b, channel).fold((0.0, 0.0), |(sum, square), x| {
                        let x = f64::from(x);
                        (sum + x, square + x * x)
                    })
                })),
            }
        }
        let first = moments.len();
        for group in of_channel.chunks(width) {
            let (sum, square) = group.iter().fold((0.0, 0.0), |s, c| (s.0 + c.0, s.1 + c.1));
            let mean = sum / count;
            let variance = (square / count - mean * mean).max(0.0);
            moments.push((mean, 1.0 / (variance + norm.epsilon).sqrt()));
        }
        let (of_image, weights) = (&moments[first..], &weights[b * channels..]);
        scale.extend(layout.spread(|c| (of_image[c / width].1 * weights[c]) as f32));
        shift.extend(layout.spread(|c| {
            let (mean, inverse) = of_image[c / width];
            (f64::from(norm.bias[c]) * factor(c) + added(c) - mean * inverse * weights[c]) as f32
        }));
    }
    NormState { scale, shift, weights, moments }
}

/// Coefficients of `∂L/∂x = scale · u + slope · x + shift`, with `u = ∂L/∂(γ x̂ + β)` and its sums per channel.
///
/// With `x̂ = (x − μ) r` and N elements a group: `∂L/∂x = r (γ u − Σγu/N − x̂ Σγu x̂/N)`.
fn norm_gradient(
    norm: &FusedNorm,
    state: &NormState,
    sums: &ChannelSums,
    layout: &Layout,
    batch: usize,
    area: usize,
) -> [Vec<f32>; 3] {
    let channels = layout.channels();
    let width = channels / norm.groups;
    let count = (width * area) as f64;
    let (mut scale, mut slope, mut shift) = (Vec::new(), Vec::new(), Vec::new());
    for b in 0..batch {
        let weights = &state.weights[b * channels..];
        let groups: Vec<(f64, f64)> = (0..norm.groups)
            .map(|group| {
                let (mean, inverse) = state.moments[b * norm.groups + group];
                let (mut first, mut second) = (0.0, 0.0);
                for c in group * width..(group + 1) * width {
                    let (u, ux) = sums[b * channels + c];
                    first += weights[c] * u;
                    second += weights[c] * inverse * (ux - mean * u);
                }
                (first / count, second / count)
            })
            .collect();
        let moments = &state.moments[b * norm.groups..];
        scale.extend(layout.spread(|c| (moments[c / width].1 * weights[c]) as f32));
        slope.extend(layout.spread(|c| {
            let (_, inverse) = moments[c / width];
            (-inverse * inverse * groups[c / width].1) as f32
        }));
        shift.extend(layout.spread(|c| {
            let (mean, inverse) = moments[c / width];
            let (first, second) = groups[c / width];
            (-inverse * first + inverse * inverse * mean * second) as f32
        }));
    }
    [scale, slope, shift]
}

/// `weight[:, :, ky, kx]` as a matrix `[out, in]`, transposed where asked for, added to `sum`.
fn add_kernel_matrix(sum: &mut Vec<f32>, weight: &[f32], parameter: &Parameter, at: (usize, usize), transposed: bool) {
    let (outputs, inputs) = (parameter.shape[0], parameter.shape[1]);
    let k = parameter.shape.get(2).copied().unwrap_or(1);
    sum.resize(outputs * inputs, 0.0);
    for o in 0..outputs {
        for i in 0..inputs {
            let value = weight[((o * inputs + i) * k + at.0) * k + at.1];
            sum[if transposed { i * outputs + o } else { o * inputs + i }] += value;
        }
    }
}

/// Adds a kernel element to the tap at this offset, which is made where there is none.
fn add_tap(taps: &mut Vec<Tap>, dy: isize, dx: isize, add: impl FnOnce(&mut Vec<f32>)) {
    let index = taps.iter().position(|tap| tap.dy == dy && tap.dx == dx).unwrap_or_else(|| {
        taps.push(Tap { dy, dx, matrix: Vec::new() });
        taps.len() - 1
    });
    add(&mut taps[index].matrix);
}

/// Kernel offsets along one axis that reach into the low resolution: the row of an up-sampled image under kernel row
/// `k` for an output of parity `phase`.
fn up_offset(phase: usize, k: usize, size: usize) -> isize {
    (phase as isize + k as isize - (size / 2) as isize).div_euclid(2)
}

/// Where kernel row `k` of a convolution reads, along one axis, for an output of parity `phase`.
fn forward_offset(resample: Resample, phase: usize, k: usize, size: usize) -> isize {
    match resample {
        Resample::Same => k as isize - (size / 2) as isize,
        Resample::Down { before } => k as isize - before as isize,
        Resample::Up => up_offset(phase, k, size),
    }
}

fn forward_phases(sources: &[Source], weights: &[Arc<Vec<f32>>], resample: Resample) -> Vec<Phase> {
    let parities: &[usize] = if resample == Resample::Up { &[0, 1] } else { &[0] };
    let mut phases = Vec::new();
    for &y in parities {
        for &x in parities {
            let sources = sources.iter().zip(weights).map(|(source, weight)| {
                let size = source.kernel();
                let mut taps = Vec::new();
                for ky in 0..size {
                    for kx in 0..size {
                        let offset = |phase, k| forward_offset(resample, phase, k, size);
                        add_tap(&mut taps, offset(y, ky), offset(x, kx), |matrix| {
                            add_kernel_matrix(matrix, weight, &source.weight, (ky, kx), false);
                        });
                    }
                }
                taps
            });
            phases.push(Phase { y, x, sources: sources.collect() });
        }
    }
    phases
}

fn backward_phases(source: &Source, weight: &[f32]) -> Vec<Phase> {
    let size = source.kernel();
    let parities: &[usize] = if matches!(source.resample, Resample::Down { .. }) { &[0, 1] } else { &[0] };
    let mut phases = Vec::new();
    for &y in parities {
        for &x in parities {
            let mut taps = Vec::new();
            for ky in 0..size {
                for kx in 0..size {
                    // Where the outputs lie that this element carried the input pixel to, along one axis.
                    let offsets = |parity: usize, k: usize| -> Vec<isize> {
                        match source.resample {
                            Resample::Same => vec![(size / 2) as isize - k as isize],
                            Resample::Down { before } => {
                                let from = parity as isize + before as isize - k as isize;
                                if from.rem_euclid(2) == 0 { vec![from / 2] } else { Vec::new() }
                            }
                            Resample::Up => (0..2).map(|p| p as isize - 2 * up_offset(p, k, size)).collect(),
                        }
                    };
                    for dy in offsets(y, ky) {
                        for dx in offsets(x, kx) {
                            add_tap(&mut taps, dy, dx, |matrix| {
                                add_kernel_matrix(matrix, weight, &source.weight, (ky, kx), true);
                            });
                        }
                    }
                }
            }
            phases.push(Phase { y, x, sources: vec![taps] });
        }
    }
    phases
}
