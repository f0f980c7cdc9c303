//! What a network is, apart from its numbers: a list of convolutions and attentions of earlier values.
//!
//! Every U-Net of this field is made of two kinds of steps. One concatenates some earlier values, normalises them by
//! groups, applies SiLU, resamples, convolves, and adds a bias, a projection of the noise embedding and a residual; the
//! other is the softmax attention of three earlier values, whose projections are steps of the first kind. Described like
//! this, one executor can fuse a step into one pass over memory, another can run it with differentiable tensor
//! operations, and a checkpoint's names and shapes are checked (or its parameters counted) without allocating any.

use std::collections::HashSet;

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

/// The numbers that a noise coordinate `c` is turned into before the layers.
#[derive(Clone, Debug)]
pub enum Features {
    /// Sines and cosines of `c · 10000^(−k / (channels/2 − shift))`.
    Positional {
        /// Number of sines and cosines together.
        channels: usize,
        /// Cosines first; sines first otherwise.
        cosine_first: bool,
        /// Shift of the frequencies.
        frequency_shift: f64,
    },
    /// Sines and cosines of `2π c w_k`, with frequencies `w` of the checkpoint.
    Fourier {
        /// `w`: `[channels/2]`.
        frequencies: Parameter,
        /// Cosines first; sines first otherwise.
        cosine_first: bool,
    },
    /// A row of a table, that of the whole number nearest to `c`.
    Learned {
        /// `[levels, channels]`.
        table: Parameter,
    },
}

impl Features {
    /// How many numbers they are.
    pub fn channels(&self) -> usize {
        match self {
            Self::Positional { channels, .. } => *channels,
            Self::Fourier { frequencies, .. } => 2 * frequencies.elements(),
            Self::Learned { table } => table.shape.last().copied().unwrap_or_default(),
        }
    }

    /// The parameter that they are made of, if they are.
    pub fn parameter(&self) -> Option<&Parameter> {
        match self {
            Self::Positional { .. } => None,
            Self::Fourier { frequencies: parameter, .. } | Self::Learned { table: parameter } => Some(parameter),
        }
    }

    /// Which of `levels` rows of a table stands for `noise`; the first for what is no number.
    pub fn row(noise: f32, levels: usize) -> usize {
        (noise.round().max(0.0) as usize).min(levels.saturating_sub(1))
    }
}

/// What a class adds to the embedding: `scale` times its row of a matrix, and `bias`.
#[derive(Clone, Debug)]
pub struct Classes {
    /// `[classes, channels]`.
    pub weight: Parameter,
    /// Factor of the rows, 1 in most networks.
    pub scale: f64,
    /// `[channels]`, added without a class, too.
    pub bias: Option<Parameter>,
    /// How many of the embedding's layers are applied before it is added.
    pub after: usize,
    /// Whether the network has always been told one; another knows images of no class as well.
    pub required: bool,
}

/// Features of the noise coordinate, then fully connected layers.
#[derive(Clone, Debug)]
pub struct Embedding {
    /// What the layers are applied to.
    pub features: Features,
    /// Applied one after the other.
    pub layers: Vec<Dense>,
    /// For a network that knows classes; without a class no row is added.
    pub classes: Option<Classes>,
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
    /// Projection of the embedding to `2 C` numbers, `s` and then `t`: the result `n` becomes `(1 + s) n + t`.
    pub modulation: Option<Dense>,
}

impl Norm {
    /// Its parameters, in the order of use.
    fn parameters(&self) -> Vec<&Parameter> {
        let mut all = vec![&self.weight, &self.bias];
        if let Some(layer) = &self.modulation {
            all.extend([&layer.weight, &layer.bias]);
        }
        all
    }
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

impl Resample {
    /// How often the result has been halved more than the input.
    fn levels(self) -> i32 {
        match self {
            Self::Same => 0,
            Self::Down { .. } => 1,
            Self::Up => -1,
        }
    }
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
    /// `[C_out, C_in, k, k]`, `k` odd but for stride 2; or `[C_out, C_in]`, which is a convolution of 1 × 1.
    pub weight: Parameter,
    /// `[C_out]`.
    pub bias: Option<Parameter>,
    /// Change of resolution.
    pub resample: Resample,
}

impl Source {
    /// Height and width of the kernel.
    pub fn kernel(&self) -> usize {
        match self.weight.shape[..] {
            [_, _] => 1,
            _ => self.weight.shape.last().copied().unwrap_or_default(),
        }
    }
}

/// The sum of some convolutions, of a projection of the embedding, and of a residual, times a number.
#[derive(Clone, Debug)]
pub struct Sum {
    /// Convolutions whose results are added.
    pub sources: Vec<Source>,
    /// Projection of the embedding, added to every pixel.
    pub embedding: Option<Dense>,
    /// An earlier value of the same shape, added as it is.
    pub residual: Option<usize>,
    /// Channels of the result.
    pub channels: usize,
    /// What the sum is multiplied by: 1, or `1/√2` where a network keeps the variance of its residual sums.
    pub scale: f64,
}

/// Softmax attention over the pixels of three earlier values of one resolution.
///
/// The channels of each value are cut into `heads` equal parts, and in each of them
/// `o_i = Σ_j softmax_j(q_i · k_j / √d) v_j` with `d` channels of the query in a head; the results of the heads lie one
/// after the other. The projections before and after are convolutions of 1 × 1, steps of their own.
///
/// Vaswani et al. (2017), <https://arxiv.org/abs/1706.03762>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attention {
    /// Which value holds the queries.
    pub query: usize,
    /// Which value holds the keys; it has as many channels as the queries.
    pub key: usize,
    /// Which value holds what is averaged; the result has its channels.
    pub value: usize,
    /// Number of heads; divides the numbers of channels.
    pub heads: usize,
}

/// A change of resolution without a convolution that is learned.
#[derive(Clone, Debug)]
pub struct Resize {
    /// Which value.
    pub input: usize,
    /// Its normalisation, before anything else.
    pub norm: Option<Norm>,
    /// SiLU after the normalisation.
    pub silu: bool,
    /// What is done to it.
    pub filter: Filter,
}

/// How [`Resize`] makes pixels of pixels.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// Every pixel becomes 2 × 2 of the same.
    Nearest,
    /// The mean of 2 × 2 pixels.
    Average,
    /// Zeros between the pixels, then the outer product of these taps with themselves, normalised so that a constant is
    /// kept; `⌊(k + 1)/2⌋` zeros before and `⌊(k − 2)/2⌋` after for `k` taps.
    FirUp(Vec<f64>),
    /// The same taps, with a sum of one, and every second pixel: `⌊(k − 1)/2⌋` zeros before and `⌊(k − 2)/2⌋` after.
    FirDown(Vec<f64>),
}

impl Filter {
    pub(crate) fn resample(&self) -> Resample {
        match self {
            Self::Nearest | Self::FirUp(_) => Resample::Up,
            Self::Average | Self::FirDown(_) => Resample::Down { before: 0 },
        }
    }
}

/// How a value is made of earlier ones.
#[derive(Clone, Debug)]
pub enum Step {
    /// A sum of convolutions.
    Sum(Sum),
    /// Attention over the pixels.
    Attention(Attention),
    /// Twice or half the resolution.
    Resize(Resize),
}

impl From<Resize> for Step {
    fn from(resize: Resize) -> Self {
        Self::Resize(resize)
    }
}

impl From<Sum> for Step {
    fn from(sum: Sum) -> Self {
        Self::Sum(sum)
    }
}

impl From<Attention> for Step {
    fn from(attention: Attention) -> Self {
        Self::Attention(attention)
    }
}

impl Step {
    /// The values it reads, those first that are of the resolution it reads at.
    pub fn inputs(&self) -> Vec<usize> {
        match self {
            Self::Sum(sum) => {
                let convolved = sum.sources.iter().flat_map(|source| source.inputs.iter().copied());
                convolved.chain(sum.residual).collect()
            }
            Self::Attention(Attention { query, key, value, .. }) => vec![*query, *key, *value],
            Self::Resize(resize) => vec![resize.input],
        }
    }

    /// How it changes the resolution.
    pub fn resample(&self) -> Resample {
        match self {
            Self::Sum(sum) => sum.sources[0].resample,
            Self::Attention(_) => Resample::Same,
            Self::Resize(resize) => resize.filter.resample(),
        }
    }

    /// What it is called: the name of its first convolution in the checkpoint; an attention has no parameters to be called
    /// by.
    pub fn name(&self) -> &str {
        match self {
            Self::Sum(sum) => {
                let weight = sum.sources.first().map_or("", |source| source.weight.name.as_str());
                weight.strip_suffix(".weight").unwrap_or(weight)
            }
            Self::Attention(_) => "attention",
            Self::Resize(_) => "resize",
        }
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
    /// Channels of the input and of the output.
    pub channels: usize,
    /// Side of the squares of pixels that become one pixel of value 0, with `patch²` times the channels, and that the last
    /// value is cut into again; 1 for a network of the pixels themselves.
    ///
    /// Channel `c` of pixel `(i, j)` of a square is channel `(c · patch + i) · patch + j` of the value (the "pixel
    /// unshuffle" of Shi et al., 2016, <https://arxiv.org/abs/1609.05158>, backwards).
    pub patch: usize,
    /// How the noise coordinate enters.
    pub embedding: Embedding,
    /// In the order of evaluation.
    pub steps: Vec<Step>,
}

impl Network {
    /// Every parameter once, in the order of first use.
    pub fn parameters(&self) -> Vec<&Parameter> {
        let mut all = Vec::new();
        all.extend(self.embedding.features.parameter());
        for layer in &self.embedding.layers {
            all.extend([&layer.weight, &layer.bias]);
        }
        if let Some(classes) = &self.embedding.classes {
            all.push(&classes.weight);
            all.extend(&classes.bias);
        }
        for step in &self.steps {
            let step = match step {
                Step::Sum(step) => step,
                Step::Attention(_) => continue,
                Step::Resize(resize) => {
                    all.extend(resize.norm.iter().flat_map(Norm::parameters));
                    continue;
                }
            };
            for source in &step.sources {
                all.extend(source.norm.iter().flat_map(Norm::parameters));
                all.push(&source.weight);
                all.extend(source.bias.as_ref());
            }
            if let Some(layer) = &step.embedding {
                all.extend([&layer.weight, &layer.bias]);
            }
        }
        let mut seen = HashSet::new();
        all.retain(|parameter| seen.insert((&parameter.name, &parameter.shape)));
        all
    }

    /// Channels of value `index`.
    pub fn value_channels(&self, index: usize) -> usize {
        match index.checked_sub(1).map(|step| &self.steps[step]) {
            None => self.channels * self.patch * self.patch,
            Some(Step::Sum(sum)) => sum.channels,
            Some(Step::Attention(attention)) => self.value_channels(attention.value),
            Some(Step::Resize(resize)) => self.value_channels(resize.input),
        }
    }

    /// Channels of the images that come out, without what [`Network::patch`] makes of them.
    pub fn output_channels(&self) -> usize {
        self.value_channels(self.steps.len()) / (self.patch * self.patch)
    }

    /// The number that height and width have to be a multiple of, so that every up-sampling meets its skip.
    pub fn stride(&self) -> usize {
        let mut level = vec![0_u32; self.steps.len() + 1];
        for (index, step) in self.steps.iter().enumerate() {
            let from = level[step.inputs()[0]];
            level[index + 1] = match step.resample() {
                Resample::Same => from,
                Resample::Down { .. } => from + 1,
                Resample::Up => from.saturating_sub(1),
            };
        }
        self.patch << level.into_iter().max().unwrap_or(0)
    }

    /// Whether the parts fit together: every step reads earlier values of one resolution, and every parameter has the
    /// shape of what it is applied to.
    ///
    /// # Errors
    /// The first part that does not.
    pub fn check(&self) -> Result<(), Inconsistent> {
        let at = |place: String| move |problem: String| Inconsistent { place: place.clone(), problem };
        let square = self.patch * self.patch;
        if square == 0 || !self.value_channels(self.steps.len()).is_multiple_of(square) {
            let channels = self.value_channels(self.steps.len());
            return Err(at("output".into())(format!("{channels} channels for patches of side {}", self.patch)));
        }
        let mut embedded = self.embedding.features.channels();
        if let Features::Learned { table } = &self.embedding.features {
            let levels = table.shape.first().copied().unwrap_or_default().max(1);
            check_shape(table, &[levels, embedded]).map_err(at("embedding".into()))?;
        }
        if !embedded.is_multiple_of(2) {
            return Err(at("embedding".into())(format!("{embedded} channels, expected an even number")));
        }
        let classes = self.embedding.classes.as_ref();
        for (index, layer) in self.embedding.layers.iter().enumerate() {
            check_classes(classes, index, embedded).map_err(at("classes of the embedding".into()))?;
            let outputs = layer.bias.elements();
            check_dense(layer, embedded, outputs).map_err(at(format!("layer {} of the embedding", index + 1)))?;
            embedded = outputs;
        }
        check_classes(classes, self.embedding.layers.len(), embedded).map_err(at("classes of the embedding".into()))?;
        // How often the value has been halved.
        let mut level = vec![0_i32];
        for index in 0..self.steps.len() {
            let to = match &self.steps[index] {
                Step::Sum(sum) => self.check_sum(sum, &level, embedded),
                Step::Attention(attention) => self.check_attention(attention, &level),
                Step::Resize(resize) => self.check_resize(resize, &level, embedded),
            };
            level.push(to.map_err(at(format!("step {}", index + 1)))?);
        }
        Ok(())
    }

    /// The level of the result, where `level` has those of the earlier values.
    fn check_attention(&self, attention: &Attention, level: &[i32]) -> Result<i32, String> {
        let Attention { query, key, value, heads } = *attention;
        for input in [query, key, value] {
            check_earlier(input, level)?;
            if level[input] != level[query] {
                return Err(format!("value {input} has another resolution than the other inputs"));
            }
            let channels = self.value_channels(input);
            if heads == 0 || channels == 0 || !channels.is_multiple_of(heads) {
                return Err(format!("{channels} channels in {heads} heads"));
            }
        }
        let (queries, keys) = (self.value_channels(query), self.value_channels(key));
        if queries != keys {
            return Err(format!("queries of {queries} and keys of {keys} channels"));
        }
        Ok(level[query])
    }

    /// The level of the result, where `level` has those of the earlier values.
    fn check_resize(&self, resize: &Resize, level: &[i32], embedded: usize) -> Result<i32, String> {
        check_earlier(resize.input, level)?;
        if let Some(norm) = &resize.norm {
            check_norm(norm, self.value_channels(resize.input), embedded)?;
        }
        if let Filter::FirUp(taps) | Filter::FirDown(taps) = &resize.filter {
            let sum: f64 = taps.iter().sum();
            if taps.len() < 2 || !sum.is_finite() || sum == 0.0 {
                return Err(format!("a filter of the taps {taps:?}, expected at least two with a sum other than 0"));
            }
        }
        Ok(level[resize.input] + resize.filter.resample().levels())
    }

    /// The level of the result, where `level` has those of the earlier values.
    fn check_sum(&self, step: &Sum, level: &[i32], embedded: usize) -> Result<i32, String> {
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
                check_earlier(value, level)?;
                channels += self.value_channels(value);
                if *from.get_or_insert(level[value]) != level[value] {
                    return Err(format!("value {value} has another resolution than the other inputs"));
                }
            }
            if let Some(norm) = &source.norm {
                check_norm(norm, channels, embedded)?;
            }
            let size = source.kernel();
            if source.weight.shape.len() == 2 {
                check_shape(&source.weight, &[step.channels, channels])?;
            } else {
                check_shape(&source.weight, &[step.channels, channels, size, size])?;
            }
            let whole = size % 2 > 0 || size > 0 && matches!(resample, Resample::Down { .. });
            if !whole {
                return Err(format!("a kernel of {size} × {size}, expected an odd size"));
            }
            if let Some(bias) = &source.bias {
                check_shape(bias, &[step.channels])?;
            }
        }
        if !(step.scale > 0.0 && step.scale.is_finite()) {
            return Err(format!("a sum times {}, expected a finite number above 0", step.scale));
        }
        let to = from.unwrap_or_default() + resample.levels();
        if let Some(layer) = &step.embedding {
            check_dense(layer, embedded, step.channels)?;
        }
        if let Some(value) = step.residual {
            check_earlier(value, level)?;
            if level[value] != to || self.value_channels(value) != step.channels {
                return Err(format!("residual value {value} has another shape than the result"));
            }
        }
        Ok(to)
    }

    /// Multiplications and additions of one evaluation of an image of `height × width`, the convolutions and attentions
    /// alone.
    pub fn operations(&self, height: usize, width: usize) -> f64 {
        self.work(height, width).iter().map(|work| work.operations).sum()
    }

    /// What each step has to do for an image of `height × width`, both multiples of [`stride`](Self::stride).
    pub fn work(&self, height: usize, width: usize) -> Vec<StepWork> {
        let mut sizes = vec![(height / self.patch, width / self.patch)];
        let mut all = Vec::with_capacity(self.steps.len());
        for (index, step) in self.steps.iter().enumerate() {
            let (height, width) = sizes[step.inputs()[0]];
            let to = match step.resample() {
                Resample::Same => (height, width),
                Resample::Down { .. } => (height / 2, width / 2),
                Resample::Up => (height * 2, width * 2),
            };
            let (from, area) = ((height * width) as f64, (to.0 * to.1) as f64);
            let mut inputs = match step {
                Step::Sum(sum) => sum.sources.iter().flat_map(|s| s.inputs.iter().copied()).collect(),
                Step::Attention(_) | Step::Resize(_) => step.inputs(),
            };
            inputs.sort_unstable();
            inputs.dedup();
            let channels = |values: &[usize]| values.iter().map(|&v| self.value_channels(v)).sum::<usize>();
            let (residual, weights, operations) = match step {
                Step::Sum(sum) => {
                    let weights: usize = sum.sources.iter().map(|s| s.weight.elements()).sum();
                    // A residual that is also an input has been read already.
                    let residual = sum.residual.filter(|value| !inputs.contains(value));
                    (residual, weights as f64, 2.0 * area * weights as f64)
                }
                Step::Attention(Attention { query, value, .. }) => {
                    (None, 0.0, 2.0 * area * area * channels(&[*query, *value]) as f64)
                }
                // Additions of a few neighbours: nothing beside the convolutions.
                Step::Resize(_) => (None, 0.0, 0.0),
            };
            let output_channels = self.value_channels(index + 1);
            all.push(StepWork {
                input_channels: channels(&inputs),
                output_channels,
                size: to,
                operations,
                read: from * channels(&inputs) as f64 + area * channels(residual.as_slice()) as f64,
                written: area * output_channels as f64,
                weights,
            });
            sizes.push(to);
        }
        all
    }
}

/// What a step has to do for one image, whatever runs it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepWork {
    /// Channels of all values that are convolved or attended to.
    pub input_channels: usize,
    /// Channels of the result.
    pub output_channels: usize,
    /// Height and width of the result.
    pub size: (usize, usize),
    /// Multiplications and additions of the convolutions, or of the two products of an attention, as they are written
    /// down. An executor may need fewer: for windows of 3 × 3 by Winograd's way, after an up-sampling by adding up the
    /// taps that meet the same pixel.
    pub operations: f64,
    /// Numbers of the values that are convolved, added or attended to, each read once.
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

/// Whether `value` is one of those whose levels are known.
fn check_earlier(value: usize, level: &[i32]) -> Result<(), String> {
    match value < level.len() {
        true => Ok(()),
        false => Err(format!("value {value} is not an earlier one")),
    }
}

fn check_shape(parameter: &Parameter, expected: &[usize]) -> Result<(), String> {
    match parameter.shape == expected {
        true => Ok(()),
        false => Err(format!("{} has shape {:?}, expected {expected:?}", parameter.name, parameter.shape)),
    }
}

fn check_norm(norm: &Norm, channels: usize, embedded: usize) -> Result<(), String> {
    if norm.groups == 0 || !channels.is_multiple_of(norm.groups) {
        return Err(format!("{channels} channels in {} groups", norm.groups));
    }
    check_shape(&norm.weight, &[channels])?;
    check_shape(&norm.bias, &[channels])?;
    norm.modulation.as_ref().map_or(Ok(()), |layer| check_dense(layer, embedded, 2 * channels))
}

/// Whether the rows that classes add after `index` layers are as long as what they are added to.
fn check_classes(classes: Option<&Classes>, index: usize, embedded: usize) -> Result<(), String> {
    match classes {
        Some(classes) if classes.after == index => {
            let count = classes.weight.shape.first().copied().unwrap_or_default();
            check_shape(&classes.weight, &[count, embedded])?;
            classes.bias.as_ref().map_or(Ok(()), |bias| check_shape(bias, &[embedded]))
        }
        _ => Ok(()),
    }
}

fn check_dense(layer: &Dense, inputs: usize, outputs: usize) -> Result<(), String> {
    check_shape(&layer.weight, &[outputs, inputs])?;
    check_shape(&layer.bias, &[outputs])
}
