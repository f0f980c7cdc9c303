//! The U-Net of DDPM as DDIM's program has it, as a list of steps.
//!
//! Ho et al. (2020), <https://arxiv.org/abs/2006.11239>; Song et al. (2021), <https://arxiv.org/abs/2010.02502>

use super::bounds::Extent;
use super::draft::{Draft, Residual, affine, dense, norm, source, sum};
use super::recipe::prefix;
use super::scheduler::{levels, time};
use super::{Family, Recipe, TensorIndex};
use crate::priors::{Parameterization, Prediction, VariancePreserving};
use serde::Deserialize;
use serde_json::Value;
use tweedie_kernels::network::{Embedding, Features, Filter, Network, Resample, Source};

/// ermongroup/ddim, and what was converted for it.
pub(super) const FAMILY: Family = Family {
    name: "ddpm",
    about: "DDPM's U-Nets in DDIM's form: CelebA-HQ of SDEdit, DDRM and DDNM, converted LSUN and CIFAR-10 models",
    recipe,
    recognise,
};

/// The program's configuration, as far as it says what the network is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DdpmConfig {
    /// Of the network.
    pub model: DdpmModel,
    /// Of the images.
    pub data: DdpmData,
    /// Of the training process.
    pub diffusion: DdpmDiffusion,
}

/// Part `model`; what is absent is read off the tensors.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DdpmModel {
    /// Channels of the images.
    pub in_channels: Option<usize>,
    /// Channels of the output.
    pub out_ch: Option<usize>,
    /// Channels that the multipliers refer to.
    pub ch: Option<usize>,
    /// Channels of each level in units of `ch`.
    pub ch_mult: Option<Vec<usize>>,
    /// Residual blocks of a level on the way down; one more on the way up.
    pub num_res_blocks: Option<usize>,
    /// Sides of the images at the levels with attention.
    pub attn_resolutions: Option<Vec<usize>>,
    /// Whether convolutions change the resolution; they do unless it says otherwise.
    pub resamp_with_conv: Option<bool>,
}

/// Part `data`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DdpmData {
    /// Side of the images, which `attn_resolutions` refers to.
    pub image_size: Option<usize>,
}

/// Part `diffusion`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct DdpmDiffusion {
    /// How β runs.
    pub beta_schedule: String,
    /// The first β.
    pub beta_start: f64,
    /// The last one.
    pub beta_end: f64,
    /// How many there are.
    pub num_diffusion_timesteps: usize,
}

impl Default for DdpmDiffusion {
    /// That of every published model.
    fn default() -> Self {
        Self { beta_schedule: "linear".into(), beta_start: 1e-4, beta_end: 0.02, num_diffusion_timesteps: 1000 }
    }
}

/// Of every norm.
const GROUPS: usize = 32;
const EPSILON: f64 = 1e-6;

const FIRST: &str = "temb.dense.0.weight";

fn recognise(tensors: &TensorIndex) -> bool {
    let Some(prefix) = prefix(tensors, FIRST) else { return false };
    let names = ["conv_in.weight", "down.0.block.0.norm1.weight", "mid.block_1.conv1.weight", "norm_out.weight"];
    names.iter().all(|name| tensors.contains_key(&format!("{prefix}{name}")))
}

fn recipe(config: &Value, tensors: &TensorIndex) -> Result<Recipe, String> {
    let config_of: DdpmConfig = match config {
        Value::Null => DdpmConfig::default(),
        config => Deserialize::deserialize(config).map_err(|error| format!("config: {error}"))?,
    };
    let prefix = prefix(tensors, FIRST).unwrap_or_default();
    let DdpmConfig { model, data, diffusion } = &config_of;
    let anatomy = Anatomy::of(model, data.image_size, tensors, &prefix)?;
    let (start, end) = (diffusion.beta_start, diffusion.beta_end);
    let levels = levels(&diffusion.beta_schedule, (start, end), diffusion.num_diffusion_timesteps)?;
    let process = VariancePreserving::new(levels, Prediction::Noise, time(config)?);
    let range = process.sigma_range();
    let parameterization = Parameterization::VariancePreserving(process.into());
    let recipe = Recipe::new(anatomy.network(), parameterization, range);
    Ok(Recipe { native_size: data.image_size, ..recipe }.prefixed(&prefix))
}

/// What the network is made of, all of it known.
#[derive(Debug)]
struct Anatomy {
    image_channels: usize,
    width: usize,
    channels: Vec<usize>,
    attention: Vec<bool>,
    blocks: usize,
    convolved: bool,
}

impl Anatomy {
    fn of(model: &DdpmModel, image_size: Option<usize>, tensors: &TensorIndex, prefix: &str) -> Result<Self, String> {
        let lacks = |field: &str| format!("ddpm: the configuration has no {field}, and the tensors do not say it");
        let shape = |name: String| tensors.get(&format!("{prefix}{name}")).map(|(_, shape)| shape.as_slice());
        let axis = |name: &str, axis: usize| shape(name.into())?.get(axis).copied();
        let count = |name: &dyn Fn(usize) -> String| (0..).take_while(|&i| shape(name(i)).is_some()).count();
        let width = model.ch.or(axis("conv_in.weight", 0)).ok_or_else(|| lacks("model.ch"))?;
        let seen_levels = count(&|level| format!("down.{level}.block.0.conv1.weight"));
        let multipliers = match &model.ch_mult {
            Some(multipliers) => multipliers.clone(),
            None if seen_levels == 0 => return Err(lacks("model.ch_mult")),
            None => (0..seen_levels)
                .map(|level| axis(&format!("down.{level}.block.0.conv1.weight"), 0).unwrap_or_default() / width.max(1))
                .collect(),
        };
        let seen_blocks = count(&|block| format!("down.0.block.{block}.conv1.weight"));
        let blocks = model.num_res_blocks.or((seen_blocks > 0).then_some(seen_blocks));
        let blocks = blocks.ok_or_else(|| lacks("model.num_res_blocks"))?;
        let image_channels = model.in_channels.or(axis("conv_in.weight", 1)).unwrap_or(3);
        let extent = Extent {
            image_channels,
            image_size: image_size.unwrap_or(1 << multipliers.len().min(16)),
            channels: width,
            multipliers: &multipliers,
            blocks,
        };
        extent.check(&FAMILY)?;
        let outputs = model.out_ch.or(axis("conv_out.weight", 0)).unwrap_or(image_channels);
        if outputs != image_channels {
            return Err(format!("ddpm with out_ch = {outputs}, expected in_channels, {image_channels}"));
        }
        let attention = match (&model.attn_resolutions, image_size) {
            (Some(sides), Some(_)) => (0..multipliers.len()).map(|level| sides.contains(&extent.side(level))).collect(),
            (Some(_), None) => {
                return Err("ddpm with attn_resolutions needs data.image_size, which they refer to".into());
            }
            (None, _) if seen_levels == 0 => return Err(lacks("model.attn_resolutions")),
            (None, _) => {
                (0..multipliers.len()).map(|level| shape(format!("down.{level}.attn.0.q.weight")).is_some()).collect()
            }
        };
        let channels: Vec<usize> = multipliers.iter().map(|multiplier| multiplier * width).collect();
        if let Some(channels) = channels.iter().chain([&width]).find(|channels| !channels.is_multiple_of(GROUPS)) {
            return Err(format!("ddpm: {channels} channels of a level are not a multiple of {GROUPS} groups"));
        }
        let convolved = model.resamp_with_conv.unwrap_or(true);
        Ok(Self { image_channels, width, channels, attention, blocks, convolved })
    }

    fn network(&self) -> Network {
        let mut draft = Draft::new(self.image_channels);
        let bottom = self.channels.len() - 1;
        let mut x = draft.convolution(0, None, affine("conv_in", self.image_channels, self.width, 3));
        let mut skips = vec![x];
        for (level, &channels) in self.channels.iter().enumerate() {
            for block in 0..self.blocks {
                x = self.residual(&mut draft, &format!("down.{level}.block.{block}"), &[x], channels);
                if self.attention[level] {
                    x = attend(&mut draft, &format!("down.{level}.attn.{block}"), x);
                }
                skips.push(x);
            }
            if level < bottom {
                // No zeros before, one after.
                let resample = (Resample::Down { before: 0 }, Filter::Average);
                x = self.resample(&mut draft, &format!("down.{level}.downsample.conv"), x, resample);
                skips.push(x);
            }
        }
        x = self.residual(&mut draft, "mid.block_1", &[x], self.channels[bottom]);
        x = attend(&mut draft, "mid.attn_1", x);
        x = self.residual(&mut draft, "mid.block_2", &[x], self.channels[bottom]);
        for (level, &channels) in self.channels.iter().enumerate().rev() {
            for block in 0..=self.blocks {
                let skip = skips.pop().unwrap_or_default();
                x = self.residual(&mut draft, &format!("up.{level}.block.{block}"), &[x, skip], channels);
                if self.attention[level] {
                    x = attend(&mut draft, &format!("up.{level}.attn.{block}"), x);
                }
            }
            if level > 0 {
                let resample = (Resample::Up, Filter::Nearest);
                x = self.resample(&mut draft, &format!("up.{level}.upsample.conv"), x, resample);
            }
        }
        let channels = draft.channels(&[x]);
        let before = norm("norm_out", channels, GROUPS, EPSILON);
        draft.convolution(x, Some(before), affine("conv_out", channels, self.image_channels, 3));
        let embedded = 4 * self.width;
        let features = Features::Positional { channels: self.width, cosine_first: false, frequency_shift: 1.0 };
        let layers =
            vec![dense("temb.dense.0", self.width, embedded, false), dense("temb.dense.1", embedded, embedded, true)];
        let embedding = Embedding { features, layers, classes: None };
        Network { channels: self.image_channels, patch: 1, embedding, steps: draft.steps }
    }

    fn residual(&self, draft: &mut Draft, name: &str, inputs: &[usize], outputs: usize) -> usize {
        let channels = draft.channels(inputs);
        draft.residual(Residual {
            inputs,
            norms: [
                norm(&format!("{name}.norm1"), channels, GROUPS, EPSILON),
                norm(&format!("{name}.norm2"), outputs, GROUPS, EPSILON),
            ],
            convolutions: [
                affine(&format!("{name}.conv1"), channels, outputs, 3),
                affine(&format!("{name}.conv2"), outputs, outputs, 3),
            ],
            embedding: Some(dense(&format!("{name}.temb_proj"), 4 * self.width, outputs, true)),
            shortcut: (channels != outputs).then(|| affine(&format!("{name}.nin_shortcut"), channels, outputs, 1)),
            filter: None,
            scale: 1.0,
        })
    }

    fn resample(&self, draft: &mut Draft, name: &str, x: usize, (resample, filter): (Resample, Filter)) -> usize {
        let channels = draft.channels(&[x]);
        if !self.convolved {
            return draft.resize(x, None, filter);
        }
        let map = affine(name, channels, channels, 3);
        draft.sum(sum(vec![Source { resample, ..source(&[x], map) }], channels))
    }
}

/// One head of all channels.
fn attend(draft: &mut Draft, name: &str, x: usize) -> usize {
    let channels = draft.channels(&[x]);
    let maps = ["q", "k", "v", "proj_out"].map(|map| affine(&format!("{name}.{map}"), channels, channels, 1));
    draft.attention(x, &norm(&format!("{name}.norm"), channels, GROUPS, EPSILON), maps, 1, 1.0)
}
