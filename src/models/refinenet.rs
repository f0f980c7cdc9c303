//! The RefineNets of NCSN and NCSNv2.
//!
//! | class | stages | told |
//! | --- | --- | --- |
//! | `CondRefineNetDilated` (NCSN) | 4 | the level: a norm has a row of numbers for each |
//! | `NCSNv2` | 4 | nothing: the output is σ times the score |
//! | `NCSNv2Deeper` | 5 | the same |
//! | `NCSNv2Deepest` | 6 | the same |
//!
//! The first stages halve the resolution by averaging, the last two widen their convolutions instead. On the way back
//! every stage is refined with what comes from below.
//!
//! Song and Ermon (2019), <https://arxiv.org/abs/1907.05600>, appendix A; (2020), <https://arxiv.org/abs/2006.09011>,
//! appendix B; <https://github.com/ermongroup/ncsn>, <https://github.com/ermongroup/ncsnv2>

use super::bounds::{LARGEST_IMAGE, MOST_CHANNELS, MOST_STEPS};
use super::convolution::Convolution;
use super::layered::tensors;
use super::{Architecture, Family, Recipe, ScoreModel, TensorIndex};
use crate::Result;
use crate::priors::{NoiseCoordinate, Parameterization, VarianceExploding};
use candle_core::{Device, Tensor};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use tweedie_kernels::network::Parameter;

/// A configuration of a run, as far as it says what the network is and how it was trained.
#[derive(Clone, Debug, Deserialize)]
pub struct RefineNetConfig {
    /// `NCSNv2`, `NCSNv2Deeper` or `NCSNv2Deepest`; told by the tensors or the data set if absent.
    #[serde(rename = "_class")]
    pub class: Option<String>,
    /// The images.
    pub data: Data,
    /// The network.
    pub model: Levels,
}

/// `config.data`.
#[derive(Clone, Debug, Deserialize)]
pub struct Data {
    /// `CIFAR10`, `CELEBA`, `LSUN`, `FFHQ`, `MNIST`.
    #[serde(default)]
    pub dataset: String,
    /// Side of the images.
    pub image_size: usize,
    /// Channels of the images.
    pub channels: usize,
    /// Whether the images are in [-1, 1]; in [0, 1] otherwise, and the network maps them to [-1, 1].
    #[serde(default)]
    pub rescaled: bool,
    /// Whether pixels were mapped to all real numbers; they must not have been.
    #[serde(default)]
    pub logit_transform: bool,
}

/// `config.model`.
#[derive(Clone, Debug, Deserialize)]
pub struct Levels {
    /// Channels of the first stage.
    pub ngf: usize,
    /// Number of noise levels.
    pub num_classes: usize,
    /// The largest noise level, in the unit of the images.
    pub sigma_begin: f64,
    /// The smallest.
    pub sigma_end: f64,
    /// `geometric` or `uniform`.
    pub sigma_dist: Option<String>,
    /// `InstanceNorm++`.
    pub normalization: Option<String>,
    /// `elu`.
    pub nonlinearity: Option<String>,
    /// Whether weights were divided by their largest singular value; they must not have been.
    #[serde(default)]
    pub spec_norm: bool,
}

/// NCSN.
pub(super) const NCSN: Family = Family {
    name: "ncsn",
    about: "NCSN's conditional RefineNet: ermongroup/ncsn",
    recipe: |config, tensors| RefineNetConfig::of(config)?.ncsn(tensors),
    recognise: |tensors| tensors.contains_key("normalizer.embed.weight"),
};

/// NCSNv2.
pub(super) const NCSN_V2: Family = Family {
    name: "ncsnv2",
    about: "NCSNv2's RefineNets of three depths: ermongroup/ncsnv2",
    recipe: |config, tensors| RefineNetConfig::of(config)?.ncsnv2(tensors),
    recognise: |tensors| tensors.contains_key("normalizer.alpha") && tensors.contains_key("begin_conv.weight"),
};

impl RefineNetConfig {
    fn of(config: &Value) -> Result<Self, String> {
        Self::deserialize(config).map_err(|error| format!("config: {error}"))
    }

    fn check(&self, family: &Family) -> Result<(), String> {
        let Self { data, model, .. } = self;
        family.within("data.channels", data.channels, 1..=MOST_CHANNELS)?;
        family.within("data.image_size", data.image_size, 1..=LARGEST_IMAGE)?;
        family.within("model.ngf", model.ngf, 2..=MOST_CHANNELS)?;
        family.within("model.num_classes", model.num_classes, 2..=MOST_STEPS)?;
        let (high, low) = (model.sigma_begin, model.sigma_end);
        if !(low > 0.0 && low < high && high.is_finite()) {
            return Err(format!(
                "{} with noise levels from {high} to {low}, expected them to fall and stay above 0",
                family.name
            ));
        }
        let of = |field: &str, got: &Option<String>, known: &[&str]| match got {
            Some(got) if !known.contains(&got.as_str()) => family.refuse(field, got, &known.join(" and ")),
            _ => Ok(()),
        };
        of("sigma_dist", &model.sigma_dist, &["geometric", "uniform"])?;
        of("normalization", &model.normalization, &["InstanceNorm++"])?;
        of("nonlinearity", &model.nonlinearity, &["elu"])?;
        for (field, got) in [("logit_transform", data.logit_transform), ("spec_norm", model.spec_norm)] {
            if got {
                return family.refuse(field, &true, "false");
            }
        }
        Ok(())
    }

    fn recipe(&self, shape: RefineNetShape, coordinate: NoiseCoordinate, divided: bool) -> Recipe {
        let unit = if self.data.rescaled { 1.0 } else { 0.5 };
        let process = VarianceExploding { unit, centred: true, coordinate, divided };
        let range = (self.model.sigma_end / unit, self.model.sigma_begin / unit);
        let recipe = Recipe::new(Architecture::RefineNet(shape), Parameterization::VarianceExploding(process), range);
        Recipe { ignored: vec!["sigmas".into()], native_size: Some(self.data.image_size), ..recipe }
    }

    fn ncsn(&self, _: &TensorIndex) -> Result<Recipe, String> {
        self.check(&NCSN)?;
        // It is told the number of the level, and levels are found by their logarithm.
        if self.model.sigma_dist.as_deref() == Some("uniform") {
            return NCSN.refuse("sigma_dist", &"uniform", "geometric");
        }
        let Levels { ngf, num_classes: count, sigma_begin: largest, sigma_end: smallest, .. } = self.model;
        let shape = RefineNetShape::new(self.data.channels, ngf, Depth::Four, Some(count));
        Ok(self.recipe(shape, NoiseCoordinate::Level { largest, smallest, count }, true))
    }

    fn ncsnv2(&self, tensors: &TensorIndex) -> Result<Recipe, String> {
        self.check(&NCSN_V2)?;
        let stage = |name: &str| tensors.contains_key(&format!("{name}.0.conv1.weight"));
        let depth = match self.class.as_deref() {
            Some("NCSNv2") => Depth::Four,
            Some("NCSNv2Deeper") => Depth::Five,
            Some("NCSNv2Deepest") => Depth::Six,
            Some(other) => return NCSN_V2.refuse("_class", &other, "NCSNv2, NCSNv2Deeper and NCSNv2Deepest"),
            None if stage("res31") || tensors.is_empty() && self.data.dataset == "FFHQ" => Depth::Six,
            None if stage("res5") || tensors.is_empty() && self.data.dataset == "LSUN" => Depth::Five,
            None => Depth::Four,
        };
        let shape = RefineNetShape::new(self.data.channels, self.model.ngf, depth, None);
        // What it would be told is what its output is divided by, and that is done outside, for any level; numbers of levels
        // are how its own program names them.
        let Levels { num_classes: count, sigma_begin: largest, sigma_end: smallest, .. } = self.model;
        let coordinate = match self.model.sigma_dist.as_deref() {
            Some("uniform") => NoiseCoordinate::Logarithm,
            _ => NoiseCoordinate::Level { largest, smallest, count },
        };
        Ok(self.recipe(shape, coordinate, false))
    }
}

/// Number of stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    Four,
    Five,
    Six,
}

impl Depth {
    /// Name of each stage, the full resolution first, and what its channels are multiplied by.
    fn stages(self) -> &'static [(&'static str, usize)] {
        match self {
            Self::Four => &[("1", 1), ("2", 2), ("3", 2), ("4", 2)],
            Self::Five => &[("1", 1), ("2", 2), ("3", 2), ("4", 4), ("5", 4)],
            Self::Six => &[("1", 1), ("2", 2), ("3", 2), ("31", 2), ("4", 4), ("5", 4)],
        }
    }

    /// Names of the refinements, the last stage's first.
    fn refinements(self) -> &'static [&'static str] {
        match self {
            Self::Four => &["1", "2", "3", "4"],
            Self::Five => &["1", "2", "3", "4", "5"],
            Self::Six => &["1", "2", "31", "3", "4", "5"],
        }
    }

    /// Distance of the pixels under the kernels of a stage.
    fn dilation(self, stage: usize) -> usize {
        match self.stages().len() - stage {
            1 => 4,
            2 => 2,
            _ => 1,
        }
    }

    /// How often the resolution has been halved at the end of a stage.
    fn level(self, stage: usize) -> usize {
        stage.min(self.stages().len() - 3)
    }
}

/// A RefineNet apart from its numbers.
#[derive(Clone, Debug)]
pub struct RefineNetShape {
    channels: usize,
    width: usize,
    depth: Depth,
    /// Number of noise levels that the norms know.
    levels: Option<usize>,
    parameters: Vec<Parameter>,
    /// Of every level, the numbers of all kernels that are used there.
    kernels: Vec<usize>,
}

impl RefineNetShape {
    /// For images of `channels`, `width` channels in the first stage.
    fn new(channels: usize, width: usize, depth: Depth, levels: Option<usize>) -> Self {
        let (parameters, kernels) = (Vec::new(), vec![0; depth.stages().len() - 2]);
        let mut shape = Self { channels, width, depth, levels, parameters, kernels };
        shape.describe();
        shape
    }

    /// Its parameters.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Channels of the images.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// What height and width have to be multiples of.
    pub fn stride(&self) -> usize {
        1 << (self.depth.stages().len() - 3)
    }

    /// Multiplications and additions of the convolutions for an image of `height × width`.
    pub fn operations(&self, height: usize, width: usize) -> f64 {
        let at =
            |(level, &kernel): (usize, &usize)| 2.0 * kernel as f64 * ((height >> level) * (width >> level)) as f64;
        self.kernels.iter().enumerate().map(at).sum()
    }

    /// Channels of a stage.
    fn stage_width(&self, stage: usize) -> usize {
        self.width * self.depth.stages()[stage].1
    }

    /// Writes the parameters down.
    fn describe(&mut self) {
        let (width, last) = (self.width, self.depth.stages().len() - 1);
        self.convolution("begin_conv", 0, (self.channels, width), 3, true);
        let mut inputs = width;
        for (stage, (name, _)) in self.depth.stages().iter().enumerate() {
            let outputs = self.stage_width(stage);
            let (level, halved) = (self.depth.level(stage), self.depth.dilation(stage) == 1 && stage > 0);
            // A convolution whose result is averaged sees the resolution from before.
            let before = if halved { level - 1 } else { level };
            let block = format!("res{name}.0");
            self.norm(&format!("{block}.normalize1"), inputs);
            self.norm(&format!("{block}.normalize2"), inputs);
            if stage == 0 {
                self.convolution(&format!("{block}.conv1"), level, (inputs, outputs), 3, true);
                self.convolution(&format!("{block}.conv2"), level, (outputs, outputs), 3, true);
            } else {
                let (inner, size) = if halved { (".conv", 1) } else { ("", 3) };
                self.convolution(&format!("{block}.conv1"), before, (inputs, inputs), 3, true);
                self.convolution(&format!("{block}.conv2{inner}"), before, (inputs, outputs), 3, true);
                self.convolution(&format!("{block}.shortcut{inner}"), before, (inputs, outputs), size, true);
            }
            let block = format!("res{name}.1");
            for part in [1, 2] {
                self.norm(&format!("{block}.normalize{part}"), outputs);
                self.convolution(&format!("{block}.conv{part}"), level, (outputs, outputs), 3, true);
            }
            inputs = outputs;
        }
        let mut from_below = None;
        for (index, name) in self.depth.refinements().iter().enumerate() {
            let stage = last - index;
            let inputs: Vec<usize> = [Some(self.stage_width(stage)), from_below].into_iter().flatten().collect();
            let features = self.stage_width(stage.saturating_sub(1));
            let level = self.depth.level(stage);
            let block = format!("refine{name}");
            for (index, &width) in inputs.iter().enumerate() {
                // What comes from below is refined there, and enlarged by the fusion.
                let level = if index > 0 { self.depth.level(stage + 1) } else { level };
                self.units(&format!("{block}.adapt_convs.{index}"), level, width, 2);
                if inputs.len() > 1 {
                    if self.levels.is_some() {
                        self.norm(&format!("{block}.msf.norms.{index}"), width);
                    }
                    self.convolution(&format!("{block}.msf.convs.{index}"), level, (width, features), 3, true);
                }
            }
            for index in 0..2 {
                if self.levels.is_some() {
                    self.norm(&format!("{block}.crp.norms.{index}"), features);
                }
                self.convolution(&format!("{block}.crp.convs.{index}"), level, (features, features), 3, false);
            }
            self.units(&format!("{block}.output_convs"), level, features, if stage == 0 { 3 } else { 1 });
            from_below = Some(features);
        }
        self.norm("normalizer", width);
        self.convolution("end_conv", 0, (width, self.channels), 3, true);
    }

    /// Residual units of two convolutions each.
    fn units(&mut self, name: &str, level: usize, width: usize, count: usize) {
        for unit in 1..=count {
            for part in [1, 2] {
                if self.levels.is_some() {
                    self.norm(&format!("{name}.{unit}_{part}_norm"), width);
                }
                self.convolution(&format!("{name}.{unit}_{part}_conv"), level, (width, width), 3, false);
            }
        }
    }

    fn norm(&mut self, name: &str, channels: usize) {
        match self.levels {
            Some(levels) => {
                self.parameters.push(Parameter::new(format!("{name}.embed.weight"), &[levels, 3 * channels]));
            }
            None => {
                let part = |part: &str| Parameter::new(format!("{name}.{part}"), &[channels]);
                self.parameters.extend(["gamma", "alpha", "beta"].map(part));
            }
        }
    }

    fn convolution(&mut self, name: &str, level: usize, (inputs, outputs): (usize, usize), size: usize, bias: bool) {
        let weight = Parameter::new(format!("{name}.weight"), &[outputs, inputs, size, size]);
        self.kernels[level] += weight.elements();
        self.parameters.push(weight);
        if bias {
            self.parameters.push(Parameter::new(format!("{name}.bias"), &[outputs]));
        }
    }
}

/// A RefineNet, run with candle's tensor operations.
#[derive(Debug)]
pub struct RefineNet {
    shape: RefineNetShape,
    parameters: HashMap<String, Tensor>,
}

impl RefineNet {
    /// Puts the parameters that `lookup` finds by name on `device`.
    ///
    /// # Errors
    /// `None` of `lookup` becomes candle's error for a tensor that cannot be found.
    pub fn new(
        shape: &RefineNetShape,
        device: &Device,
        lookup: impl FnMut(&str) -> Option<Vec<f32>>,
    ) -> candle_core::Result<Self> {
        let parameters = tensors(&shape.parameters, device, lookup)?;
        Ok(Self { shape: shape.clone(), parameters })
    }

    fn convolve(&self, name: &str, x: &Tensor, dilation: usize) -> candle_core::Result<Tensor> {
        let weight = self.parameters[&format!("{name}.weight")].clone();
        Convolution::new(weight, self.parameters.get(&format!("{name}.bias")).cloned(), dilation).forward(x)
    }

    /// Instance normalisation, and `alpha` times how the channel's mean differs from those of the others, which it
    /// removes; then `gamma` and `beta`.
    fn normalise(&self, name: &str, x: &Tensor, level: usize) -> candle_core::Result<Tensor> {
        let (batch, channels, height, width) = x.dims4()?;
        let pixels = x.reshape((batch, channels, height * width))?;
        let means = pixels.mean_keepdim(2)?;
        let centred = pixels.broadcast_sub(&means)?;
        let variance = centred.sqr()?.mean_keepdim(2)?;
        let normalised = centred.broadcast_div(&(variance + EPSILON)?.sqrt()?)?;
        let others = means.broadcast_sub(&means.mean_keepdim(1)?)?;
        let spread = (others.sqr()?.sum_keepdim(1)? / (channels - 1) as f64)?;
        let others = others.broadcast_div(&(spread + EPSILON)?.sqrt()?)?;
        let [gamma, alpha, beta] = match self.parameters.get(&format!("{name}.embed.weight")) {
            Some(rows) => {
                let row = rows.narrow(0, level, 1)?;
                let part = |index: usize| row.narrow(1, index * channels, channels)?.reshape((1, channels, 1));
                [part(0)?, part(1)?, part(2)?]
            }
            None => {
                let part = |part: &str| self.parameters[&format!("{name}.{part}")].reshape((1, channels, 1));
                [part("gamma")?, part("alpha")?, part("beta")?]
            }
        };
        let normalised = normalised.broadcast_add(&others.broadcast_mul(&alpha)?)?;
        normalised.broadcast_mul(&gamma)?.broadcast_add(&beta)?.reshape((batch, channels, height, width))
    }

    /// The norms between the refining convolutions exist only where they are told the level.
    fn normalise_refined(&self, name: &str, x: &Tensor, level: usize) -> candle_core::Result<Tensor> {
        if self.shape.levels.is_some() { self.normalise(name, x, level) } else { Ok(x.clone()) }
    }

    fn residual(&self, stage: usize, index: usize, x: &Tensor, level: usize) -> candle_core::Result<Tensor> {
        let block = format!("res{}.{index}", self.shape.depth.stages()[stage].0);
        let dilation = self.shape.depth.dilation(stage);
        let first = index == 0 && stage > 0;
        let halved = first && dilation == 1;
        let inner = if halved { ".conv" } else { "" };
        let h = self.normalise(&format!("{block}.normalize1"), x, level)?.elu(1.0)?;
        let h = self.convolve(&format!("{block}.conv1"), &h, dilation)?;
        let h = self.normalise(&format!("{block}.normalize2"), &h, level)?.elu(1.0)?;
        let h = self.convolve(&format!("{block}.conv2{inner}"), &h, dilation)?;
        let shortcut = match first {
            true => self.convolve(&format!("{block}.shortcut{inner}"), x, dilation)?,
            false => x.clone(),
        };
        let sum = (h + shortcut)?;
        if halved { averaged(&sum) } else { Ok(sum) }
    }

    fn units(&self, name: &str, count: usize, x: &Tensor, level: usize) -> candle_core::Result<Tensor> {
        let mut x = x.clone();
        for unit in 1..=count {
            let mut h = x.clone();
            for part in [1, 2] {
                h = self.normalise_refined(&format!("{name}.{unit}_{part}_norm"), &h, level)?.elu(1.0)?;
                h = self.convolve(&format!("{name}.{unit}_{part}_conv"), &h, 1)?;
            }
            x = (x + h)?;
        }
        Ok(x)
    }

    /// A stage and what comes from below, as one of the stage's resolution.
    fn refine(&self, index: usize, inputs: &[&Tensor], level: usize) -> candle_core::Result<Tensor> {
        let block = format!("refine{}", self.shape.depth.refinements()[index]);
        let last = index + 1 == self.shape.depth.refinements().len();
        let (_, _, height, width) = inputs[0].dims4()?;
        let mut fused: Option<Tensor> = None;
        for (index, input) in inputs.iter().enumerate() {
            let mut h = self.units(&format!("{block}.adapt_convs.{index}"), 2, input, level)?;
            if inputs.len() > 1 {
                h = self.normalise_refined(&format!("{block}.msf.norms.{index}"), &h, level)?;
                h = self.convolve(&format!("{block}.msf.convs.{index}"), &h, 1)?;
                h = enlarged(&h, height, width)?;
            }
            fused = Some(match fused {
                Some(sum) => (sum + h)?,
                None => h,
            });
        }
        let Some(fused) = fused else { candle_core::bail!("a refinement of nothing") };
        let mut x = fused.elu(1.0)?;
        let mut path = x.clone();
        for index in 0..2 {
            path = match self.shape.levels {
                Some(_) => mean_of_25(&self.normalise(&format!("{block}.crp.norms.{index}"), &path, level)?)?,
                None => max_of_25(&path)?,
            };
            path = self.convolve(&format!("{block}.crp.convs.{index}"), &path, 1)?;
            x = (x + &path)?;
        }
        self.units(&format!("{block}.output_convs"), if last { 3 } else { 1 }, &x, level)
    }
}

/// Of every normalisation.
const EPSILON: f64 = 1e-5;

/// The mean of 2 × 2 pixels.
fn averaged(x: &Tensor) -> candle_core::Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    x.reshape((b, c, h / 2, 2, w / 2, 2))?.mean(5)?.mean(3)
}

/// The largest of 5 × 5 pixels around each.
fn max_of_25(x: &Tensor) -> candle_core::Result<Tensor> {
    let along = |x: &Tensor, axis: usize| {
        // The pixel at the edge is under every window that a copy of it is under.
        let padded = x.pad_with_same(axis, 2, 2)?;
        let size = x.dim(axis)?;
        let shifted = (1..5).map(|by| padded.narrow(axis, by, size));
        shifted.into_iter().try_fold(padded.narrow(axis, 0, size)?, |most, shifted| most.maximum(&shifted?))
    };
    along(&along(x, 2)?, 3)
}

/// A twenty-fifth of the sum of 5 × 5 pixels around each, with zeros beyond the edges.
fn mean_of_25(x: &Tensor) -> candle_core::Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    let window = |i: usize, j: usize| if i.abs_diff(j) <= 2 { 0.2 } else { 0.0 };
    separable(x, (height, &window), (width, &window))
}

/// Bilinear interpolation that keeps the pixels at the corners.
fn enlarged(x: &Tensor, height: usize, width: usize) -> candle_core::Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    if (h, w) == (height, width) {
        return Ok(x.clone());
    }
    let weight = |from: usize, to: usize| {
        move |i: usize, j: usize| {
            let place = if to > 1 { i as f64 * (from - 1) as f64 / (to - 1) as f64 } else { 0.0 };
            (1.0 - (place - j as f64).abs()).max(0.0)
        }
    };
    separable(x, (height, &weight(h, height)), (width, &weight(w, width)))
}

/// How many rows or columns to make, and the weight of an old one in a new one: (new, old).
type Axis<'a> = (usize, &'a dyn Fn(usize, usize) -> f64);

/// Rows and columns made of rows and columns.
fn separable(x: &Tensor, rows: Axis<'_>, columns: Axis<'_>) -> candle_core::Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let matrix = |(to, weight): Axis<'_>, from: usize| {
        let values = (0..to * from).map(|k| weight(k / from, k % from) as f32).collect::<Vec<f32>>();
        Tensor::from_vec(values, (to, from), x.device())
    };
    let (height, width) = (rows.0, columns.0);
    let across = matrix(columns, w)?.t()?;
    let x = x.reshape((b * c * h, w))?.matmul(&across)?.reshape((b * c, h, width))?;
    let down = matrix(rows, h)?.unsqueeze(0)?.broadcast_as((b * c, height, h))?.contiguous()?;
    down.matmul(&x)?.reshape((b, c, height, width))
}

impl ScoreModel for RefineNet {
    /// `noise`: the number of the level for a network that is told it; anything otherwise.
    fn forward(&self, x: &Tensor, noise: f64) -> Result<Tensor> {
        let level = self.shape.levels.map_or(0, |levels| (noise.max(0.0) as usize).min(levels - 1));
        let mut h = self.convolve("begin_conv", x, 1)?;
        let mut stages = Vec::new();
        for stage in 0..self.shape.depth.stages().len() {
            for index in 0..2 {
                h = self.residual(stage, index, &h, level)?;
            }
            stages.push(h.clone());
        }
        let mut refined: Option<Tensor> = None;
        for index in 0..stages.len() {
            let stage = &stages[stages.len() - 1 - index];
            let inputs: Vec<&Tensor> = std::iter::once(stage).chain(&refined).collect();
            refined = Some(self.refine(index, &inputs, level)?);
        }
        let h = refined.unwrap_or(h);
        let h = self.normalise("normalizer", &h, level)?.elu(1.0)?;
        Ok(self.convolve("end_conv", &h, 1)?)
    }

    fn channels(&self) -> usize {
        self.shape.channels
    }

    fn stride(&self) -> usize {
        self.shape.stride()
    }

    fn operations(&self, height: usize, width: usize) -> f64 {
        self.shape.operations(height, width)
    }
}
