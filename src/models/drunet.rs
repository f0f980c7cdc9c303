//! DRUNet, a denoiser that is told the noise level of every pixel.
//!
//! A Gaussian denoiser is a score by Tweedie's formula. Its images and its σ are in [0, 1].
//!
//! Zhang et al. (2021), <https://arxiv.org/abs/2008.13751>; the tensors' names are those of
//! <https://github.com/cszn/DPIR> and of deepinv.

use super::bounds::{MOST_BLOCKS, MOST_CHANNELS};
use super::convolution::{convolve, depth_to_space, space_to_depth};
use super::layered::tensors;
use super::{Architecture, Family, Recipe, ScoreModel, TensorIndex};
use crate::Result;
use crate::priors::Parameterization;
use candle_core::{Device, Tensor};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;
use tweedie_kernels::network::Parameter;

/// Arguments of the class.
#[derive(Clone, Debug, Deserialize)]
pub struct DrunetConfig {
    /// Channels of the input, without the noise level.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Channels of each level, the full resolution first.
    pub nc: [usize; 4],
    /// Residual blocks of a level.
    pub nb: usize,
    /// `R`: ReLU.
    #[serde(default = "rectified")]
    pub act_mode: String,
    /// `strideconv`.
    #[serde(default = "strided")]
    pub downsample_mode: String,
    /// `convtranspose`.
    #[serde(default = "transposed")]
    pub upsample_mode: String,
}

fn rectified() -> String {
    "R".into()
}

fn strided() -> String {
    "strideconv".into()
}

fn transposed() -> String {
    "convtranspose".into()
}

/// DRUNet.
pub(super) const FAMILY: Family = Family {
    name: "drunet",
    about: "DRUNet, a Gaussian denoiser: DPIR's and deepinv's",
    recipe,
    recognise: |tensors| tensors.contains_key("m_head.weight") && tensors.contains_key("m_tail.weight"),
};

/// The noise levels it was trained with, 0 to 50 of 255; below a tenth of one there is nothing to denoise.
const SIGMA_RANGE: (f64, f64) = (0.2 / 255.0, 100.0 / 255.0);

fn recipe(config: &Value, tensors: &TensorIndex) -> Result<Recipe, String> {
    let config = match config.get("nc") {
        Some(_) => DrunetConfig::deserialize(config).map_err(|error| format!("config: {error}"))?,
        None => DrunetConfig::of(tensors)?,
    };
    let shape = config.shape()?;
    Ok(Recipe::new(Architecture::Drunet(shape), Parameterization::UnitDenoiser, SIGMA_RANGE))
}

impl DrunetConfig {
    /// What the shapes of the tensors say.
    ///
    /// # Errors
    /// A sentence if they are not those of such a network.
    pub fn of(tensors: &TensorIndex) -> Result<Self, String> {
        let size = |name: &str, axis: usize| {
            let shape = tensors.get(name).map(|(_, shape)| shape.as_slice());
            shape
                .and_then(|shape| shape.get(axis).copied())
                .ok_or_else(|| format!("has no configuration and lacks {name}"))
        };
        let nb = (0..MOST_BLOCKS).take_while(|k| tensors.contains_key(&format!("m_down1.{k}.res.0.weight"))).count();
        let below = |level: usize| size(&format!("m_down{level}.{nb}.weight"), 0);
        Ok(Self {
            in_channels: size("m_head.weight", 1)?.saturating_sub(1),
            out_channels: size("m_tail.weight", 0)?,
            nc: [size("m_head.weight", 0)?, below(1)?, below(2)?, below(3)?],
            nb,
            act_mode: rectified(),
            downsample_mode: strided(),
            upsample_mode: transposed(),
        })
    }

    /// The network.
    ///
    /// # Errors
    /// A sentence naming the argument that cannot be built, its value, and what can.
    pub fn shape(&self) -> Result<DrunetShape, String> {
        let modes = (self.act_mode.as_str(), self.downsample_mode.as_str(), self.upsample_mode.as_str());
        if modes != ("R", "strideconv", "convtranspose") {
            return FAMILY.refuse(
                "act_mode, downsample_mode, upsample_mode",
                &modes,
                "\"R\", \"strideconv\", \"convtranspose\"",
            );
        }
        if self.in_channels != self.out_channels || !(1..=MOST_CHANNELS).contains(&self.in_channels) {
            let got = (self.in_channels, self.out_channels);
            return FAMILY.refuse("in_channels, out_channels", &got, &format!("equal ones from 1 to {MOST_CHANNELS}"));
        }
        if self.nc.iter().any(|channels| !(1..=MOST_CHANNELS).contains(channels)) {
            return FAMILY.refuse("nc", &self.nc, &format!("1 to {MOST_CHANNELS} channels"));
        }
        if !(1..=MOST_BLOCKS).contains(&self.nb) {
            return FAMILY.refuse("nb", &self.nb, &format!("1 to {MOST_BLOCKS}"));
        }
        Ok(DrunetShape::new(self.in_channels, self.nc, self.nb))
    }
}

/// A DRUNet apart from its numbers.
#[derive(Clone, Debug)]
pub struct DrunetShape {
    channels: usize,
    blocks: usize,
    parameters: Vec<Parameter>,
}

impl DrunetShape {
    fn new(channels: usize, widths: [usize; 4], blocks: usize) -> Self {
        let mut parameters = Vec::new();
        let mut weight = |name: &str, shape: [usize; 4]| {
            parameters.push(Parameter::new(format!("{name}.weight"), &shape));
        };
        weight("m_head", [widths[0], channels + 1, 3, 3]);
        for level in 1..4 {
            let (width, below) = (widths[level - 1], widths[level]);
            for block in 0..blocks {
                for part in [0, 2] {
                    weight(&format!("m_down{level}.{block}.res.{part}"), [width, width, 3, 3]);
                }
            }
            weight(&format!("m_down{level}.{blocks}"), [below, width, 2, 2]);
        }
        for block in 0..blocks {
            for part in [0, 2] {
                weight(&format!("{}.res.{part}", body(blocks, block)), [widths[3], widths[3], 3, 3]);
            }
        }
        for level in (1..4).rev() {
            let (width, below) = (widths[level - 1], widths[level]);
            weight(&format!("m_up{level}.0"), [below, width, 2, 2]);
            for block in 1..=blocks {
                for part in [0, 2] {
                    weight(&format!("m_up{level}.{block}.res.{part}"), [width, width, 3, 3]);
                }
            }
        }
        weight("m_tail", [channels, widths[0], 3, 3]);
        Self { channels, blocks, parameters }
    }

    /// Its parameters.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Channels of the images.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// What height and width have to be multiples of: nothing, it extends images by itself.
    pub fn stride(&self) -> usize {
        1
    }

    /// Multiplications and additions of the convolutions for an image of `height × width`.
    pub fn operations(&self, height: usize, width: usize) -> f64 {
        let (height, width) = extended(height, width);
        let level = |name: &str| match name.as_bytes() {
            [b'm', b'_', b'd', _, _, _, level, ..] => usize::from(level - b'1'),
            [b'm', b'_', b'u', _, level, ..] => usize::from(level - b'1'),
            [b'm', b'_', b'b', ..] => 3,
            _ => 0,
        };
        // Of the four numbers of a kernel of 2 × 2 each pixel of the full resolution meets one.
        let meets = |p: &Parameter| p.elements() as f64 / if p.shape[2] == 2 { 4.0 } else { 1.0 };
        let area = |level: usize| ((height >> level) * (width >> level)) as f64;
        self.parameters.iter().map(|p| 2.0 * meets(p) * area(level(&p.name))).sum()
    }
}

/// What a block of the lowest level is called: a list of one is not numbered.
fn body(blocks: usize, block: usize) -> String {
    if blocks == 1 { "m_body".into() } else { format!("m_body.{block}") }
}

/// The size to which an image is extended: as it is where three halvings leave whole numbers, else a multiple of 16.
fn extended(height: usize, width: usize) -> (usize, usize) {
    let fits = |size: usize| size.is_multiple_of(8) && size >= 32;
    match fits(height) && fits(width) {
        true => (height, width),
        false => (height.next_multiple_of(16), width.next_multiple_of(16)),
    }
}

/// DRUNet, run with candle's tensor operations.
#[derive(Debug)]
pub struct Drunet {
    shape: DrunetShape,
    /// Kernels of 2 × 2 as those of 1 × 1 between pixels and squares of pixels.
    weights: HashMap<String, Tensor>,
}

impl Drunet {
    /// Puts the parameters that `lookup` finds by name on `device`.
    ///
    /// # Errors
    /// `None` of `lookup` becomes candle's error for a tensor that cannot be found.
    pub fn new(
        shape: &DrunetShape,
        device: &Device,
        lookup: impl FnMut(&str) -> Option<Vec<f32>>,
    ) -> candle_core::Result<Self> {
        let mut weights = tensors(&shape.parameters, device, lookup)?;
        for Parameter { name, shape } in &shape.parameters {
            let Some(values) = weights.remove(name) else { continue };
            let weight = match (shape[2], name.starts_with("m_up")) {
                (2, false) => values.reshape((shape[0], 4 * shape[1], 1, 1))?,
                // From `[in, out, 2, 2]`, as a transposed convolution has it.
                (2, true) => values.reshape((shape[0], 4 * shape[1]))?.t()?.contiguous()?.unsqueeze(2)?.unsqueeze(3)?,
                _ => values,
            };
            weights.insert(name.clone(), weight);
        }
        Ok(Self { shape: shape.clone(), weights })
    }

    fn convolve(&self, name: &str, x: &Tensor) -> candle_core::Result<Tensor> {
        convolve(x, &self.weights[&format!("{name}.weight")], 1)
    }

    /// `x + conv(relu(conv(x)))`
    fn block(&self, name: &str, x: &Tensor) -> candle_core::Result<Tensor> {
        let hidden = self.convolve(&format!("{name}.res.0"), x)?.relu()?;
        x + self.convolve(&format!("{name}.res.2"), &hidden)?
    }
}

impl ScoreModel for Drunet {
    /// `noise`: σ in the unit of the images.
    fn forward(&self, x: &Tensor, noise: f64) -> Result<Tensor> {
        let blocks = self.shape.blocks;
        let (batch, _, height, width) = x.dims4()?;
        let (below, right) = extended(height, width);
        let x = x.pad_with_same(2, 0, below - height)?.pad_with_same(3, 0, right - width)?;
        let level = Tensor::full(noise as f32, (batch, 1, below, right), x.device())?;
        let mut x = self.convolve("m_head", &Tensor::cat(&[&x, &level], 1)?)?;
        let mut skips = Vec::new();
        for level in 1..4 {
            skips.push(x.clone());
            for block in 0..blocks {
                x = self.block(&format!("m_down{level}.{block}"), &x)?;
            }
            x = self.convolve(&format!("m_down{level}.{blocks}"), &space_to_depth(&x)?)?;
        }
        let bottom = x.clone();
        for block in 0..blocks {
            x = self.block(&body(blocks, block), &x)?;
        }
        x = (x + bottom)?;
        for level in (1..4).rev() {
            x = depth_to_space(&self.convolve(&format!("m_up{level}.0"), &x)?)?;
            for block in 1..=blocks {
                x = self.block(&format!("m_up{level}.{block}"), &x)?;
            }
            if let Some(skip) = skips.pop() {
                x = (x + skip)?;
            }
        }
        Ok(self.convolve("m_tail", &x)?.narrow(2, 0, height)?.narrow(3, 0, width)?)
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
