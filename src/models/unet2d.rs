//! `UNet2DModel` of diffusers, as a list of steps.
//!
//! Parameter names are those of the checkpoints. What the configuration can say and this file cannot build is refused by
//! name.

use super::bounds::{MOST_BLOCKS, MOST_CHANNELS, MOST_CLASSES, MOST_LEVELS, MOST_STEPS};
use super::draft::{Affine, Draft, Residual, affine, dense, norm, source, sum};
use super::preconditioning::Preconditioning;
use super::scheduler::{SchedulerConfig, time};
use super::{Family, Origin, Pick, Recipe, TensorIndex, unet2d_skip};
use crate::priors::{Parameterization, Time};
use serde::Deserialize;
use serde_json::Value;
use tweedie_kernels::network::{Classes, Embedding, Features, Filter, Network, Parameter, Resample, Source};

/// `config.json` of a `UNet2DModel`; absent fields have the library's defaults, as in the hosted files of 2022.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct UNet2dConfig {
    /// Channels of the input.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Channels of each level, the full resolution first.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of a level on the way down; one more on the way up.
    pub layers_per_block: usize,
    /// Kinds of the levels on the way down.
    pub down_block_types: Vec<String>,
    /// Kinds of the levels on the way up, the lowest resolution first.
    pub up_block_types: Vec<String>,
    /// Groups of every normalisation.
    pub norm_num_groups: Option<usize>,
    /// ε of every normalisation.
    pub norm_eps: f64,
    /// Zeros before each axis in front of a strided convolution.
    pub downsample_padding: usize,
    /// Cosines first in the embedding.
    pub flip_sin_to_cos: bool,
    /// Shift of the embedding's frequencies.
    pub freq_shift: f64,
    /// Kind of embedding.
    pub time_embedding_type: String,
    /// Attention in the middle block.
    pub add_attention: bool,
    /// Channels of one head of every attention; one head of all channels if `None`.
    pub attention_head_dim: Option<usize>,
    /// Groups of the normalisation in the middle block's attention; `norm_num_groups` if `None`.
    pub attn_norm_num_groups: Option<usize>,
    /// Whether the network centres an input in [0, 1] by itself.
    pub center_input_sample: bool,
    /// How the embedding enters a block.
    pub resnet_time_scale_shift: String,
    /// The residual sums of the middle block are divided by this.
    pub mid_block_scale_factor: f64,
    /// Kind of the middle block; none if `None`.
    pub mid_block_type: Option<String>,
    /// Channels of the embedding; four times those of the first level if `None`.
    pub time_embedding_dim: Option<usize>,
    /// Activation.
    pub act_fn: String,
    /// Kind of down-sampling.
    pub downsample_type: String,
    /// Kind of up-sampling.
    pub upsample_type: String,
    /// Classes of a conditional model.
    pub num_class_embeds: Option<usize>,
    /// Kind of class condition.
    pub class_embed_type: Option<String>,
    /// Rows of a learned embedding.
    pub num_train_timesteps: Option<usize>,
    /// Side of the images it was trained on.
    pub sample_size: Option<Value>,
}

/// `UNet2DModel`, called as diffusers calls it.
pub(super) const FAMILY: Family = Family {
    name: "UNet2DModel",
    about: "diffusers' unconditional U-Nets: google/ddpm-*, google/ncsnpp-* and the community's",
    recipe,
    recognise,
};

/// What `config.json` does not say: the file beside it, under the key `scheduler`, or the parameterisation itself.
#[derive(Deserialize)]
struct Training {
    scheduler: Option<SchedulerConfig>,
}

fn recipe(config: &Value, tensors: &TensorIndex) -> Result<Recipe, String> {
    let architecture: UNet2dConfig = Deserialize::deserialize(config).map_err(|error| format!("config: {error}"))?;
    let training: Training = Deserialize::deserialize(config).map_err(|error| format!("scheduler: {error}"))?;
    let preconditioning = Preconditioning::of(config)?;
    let learned = architecture.time_embedding_type == LEARNED;
    let (parameterization, sigma_range) = match (preconditioning, training.scheduler) {
        (Some(preconditioning), _) => preconditioning.parameterization(),
        (None, Some(scheduler)) => {
            let time = match (learned, config.get("time")) {
                // Between the rows of a table there is nothing.
                (true, None) => Time::Nearest,
                _ => time(config)?,
            };
            scheduler.parameterization(architecture.center_input_sample, time)?
        }
        (None, None) => return Err("has no scheduler, which says how the network was trained".into()),
    };
    let fourier = architecture.time_embedding_type == "fourier";
    if fourier != matches!(parameterization, Parameterization::VarianceExploding(_)) {
        let kind = &architecture.time_embedding_type;
        return Err(format!(
            "UNet2DModel with time_embedding_type = {kind:?} cannot be one that is {parameterization}"
        ));
    }
    if learned {
        let levels = match &parameterization {
            Parameterization::VariancePreserving(process) if process.time == Time::Nearest => {
                process.levels.betas().len()
            }
            _ => 0,
        };
        if architecture.num_train_timesteps != Some(levels) {
            let rows = architecture.num_train_timesteps.unwrap_or_default();
            let kind = "with a learned embedding of num_train_timesteps";
            return Err(format!(
                "UNet2DModel {kind} = {rows} cannot be one that is {parameterization}: it needs as many levels, the nearest told"
            ));
        }
    }
    let native_size = architecture.sample_size.as_ref().and_then(Value::as_u64).map(|size| size as usize);
    let network = architecture.network()?;
    // The library of 2022 stored the frequencies twice.
    let ignored = tensors.contains_key(FORMER_FREQUENCIES).then(|| FORMER_FREQUENCIES.to_owned());
    let (tensors, ignored) = (renamed(&network, tensors), ignored.into_iter().collect());
    Ok(Recipe { native_size, tensors, ignored, ..Recipe::new(network, parameterization, sigma_range) })
}

/// What the projections of an attention were called in the files of 2022.
const FORMER: [(&str, &str); 4] =
    [(".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn.")];

/// What `time_proj.weight` was called, and stored as beside it.
const FORMER_FREQUENCIES: &str = "time_proj.W";

/// Origins of parameters that the checkpoint has under their former names.
fn renamed(network: &Network, tensors: &TensorIndex) -> Vec<Origin> {
    let origin = |parameter: &&Parameter| {
        let Parameter { name, shape } = parameter;
        let (now, former) = FORMER.iter().find(|(now, _)| name.contains(now) && name.contains(".attentions."))?;
        let former = name.replace(now, former);
        let found = !tensors.contains_key(name) && tensors.contains_key(&former);
        found.then(|| Origin { parameter: name.clone(), tensor: former, shape: shape.clone(), pick: Pick::Whole })
    };
    network.parameters().iter().filter_map(origin).collect()
}

fn recognise(tensors: &TensorIndex) -> bool {
    ["time_embedding.linear_1.weight", "conv_in.weight", "conv_norm_out.weight", "mid_block.resnets.0.norm1.weight"]
        .iter()
        .all(|name| tensors.contains_key(*name))
}

impl Default for UNet2dConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            block_out_channels: vec![224, 448, 672, 896],
            layers_per_block: 2,
            down_block_types: ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"]
                .map(String::from)
                .to_vec(),
            up_block_types: ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"].map(String::from).to_vec(),
            norm_num_groups: Some(32),
            norm_eps: 1e-5,
            downsample_padding: 1,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            time_embedding_type: "positional".into(),
            add_attention: true,
            attention_head_dim: Some(8),
            attn_norm_num_groups: None,
            center_input_sample: false,
            resnet_time_scale_shift: "default".into(),
            mid_block_scale_factor: 1.0,
            mid_block_type: Some(MIDDLE.into()),
            time_embedding_dim: None,
            act_fn: "silu".into(),
            downsample_type: "conv".into(),
            upsample_type: "conv".into(),
            num_class_embeds: None,
            class_embed_type: None,
            num_train_timesteps: None,
            sample_size: None,
        }
    }
}

impl UNet2dConfig {
    /// The network that this configuration describes.
    ///
    /// # Errors
    /// A sentence naming the field that cannot be built, its value, and what can.
    pub fn network(&self) -> Result<Network, String> {
        if unet2d_skip::has_skip_blocks(self) {
            return unet2d_skip::network(self);
        }
        self.check()?;
        let channels = &self.block_out_channels;
        let levels = channels.len();
        let mut draft = Draft::new(self.in_channels);
        let mut x = draft.convolution(0, None, affine("conv_in", self.in_channels, channels[0], 3));
        let mut skips = vec![x];
        for (level, (&out, kind)) in channels.iter().zip(&self.down_block_types).enumerate() {
            let name = format!("down_blocks.{level}");
            for layer in 0..self.layers_per_block {
                x = self.residual(&mut draft, &format!("{name}.resnets.{layer}"), &[x], out, None);
                if kind == ATTENTION_DOWN {
                    x = self.attention(&mut draft, &format!("{name}.attentions.{layer}"), x, self.norm_groups());
                }
                skips.push(x);
            }
            if level + 1 < levels {
                let name = format!("{name}.downsamplers.0");
                let residual = kind == RESIDUAL_DOWN || kind == ATTENTION_DOWN && self.downsample_type == "resnet";
                x = match residual {
                    true => self.residual(&mut draft, &name, &[x], out, Some(Filter::Average)),
                    false => resample(&mut draft, &name, x, Resample::Down { before: self.downsample_padding }),
                };
                skips.push(x);
            }
        }
        if self.mid_block_type.is_some() {
            x = self.middle(&mut draft, x);
        }
        for (level, (&out, kind)) in channels.iter().rev().zip(&self.up_block_types).enumerate() {
            let name = format!("up_blocks.{level}");
            for layer in 0..=self.layers_per_block {
                let skip = skips.pop().unwrap_or_default();
                x = self.residual(&mut draft, &format!("{name}.resnets.{layer}"), &[x, skip], out, None);
                if kind == ATTENTION_UP {
                    x = self.attention(&mut draft, &format!("{name}.attentions.{layer}"), x, self.norm_groups());
                }
            }
            if level + 1 < levels {
                let name = format!("{name}.upsamplers.0");
                let residual = kind == RESIDUAL_UP || kind == ATTENTION_UP && self.upsample_type == "resnet";
                x = match residual {
                    true => self.residual(&mut draft, &name, &[x], out, Some(Filter::Nearest)),
                    false => resample(&mut draft, &name, x, Resample::Up),
                };
            }
        }
        let before = norm("conv_norm_out", channels[0], self.norm_groups(), self.norm_eps);
        draft.convolution(x, Some(before), affine("conv_out", channels[0], self.out_channels, 3));
        Ok(Network { channels: self.in_channels, patch: 1, embedding: self.embedding(), steps: draft.steps })
    }

    /// How the noise level and the class enter.
    pub(super) fn embedding(&self) -> Embedding {
        let (first, embedded) = (self.block_out_channels[0], self.embedded());
        let features = match self.time_embedding_type.as_str() {
            "fourier" => {
                Features::Fourier { frequencies: Parameter::new("time_proj.weight", &[first]), cosine_first: false }
            }
            LEARNED => {
                let levels = self.num_train_timesteps.unwrap_or_default();
                Features::Learned { table: Parameter::new("time_proj.weight", &[levels, first]) }
            }
            _ => Features::Positional {
                channels: first,
                cosine_first: self.flip_sin_to_cos,
                frequency_shift: self.freq_shift,
            },
        };
        let layer = |name: &str, inputs, silu| dense(&format!("time_embedding.{name}"), inputs, embedded, silu);
        let layers = vec![layer("linear_1", features.channels(), false), layer("linear_2", embedded, true)];
        let classes = self.num_class_embeds.map(|classes| Classes {
            weight: Parameter::new("class_embedding.weight", &[classes, embedded]),
            scale: 1.0,
            bias: None,
            after: layers.len(),
            required: true,
        });
        Embedding { features, layers, classes }
    }

    /// Channels of the embedding.
    pub(super) fn embedded(&self) -> usize {
        self.time_embedding_dim.unwrap_or(4 * self.block_out_channels[0])
    }

    /// Whether the embedding can be built, of channels that are known to be in bounds.
    ///
    /// # Errors
    /// A sentence naming the field that cannot be built, its value, and what can.
    pub(super) fn check_embedding(&self) -> Result<(), String> {
        let kinds = ["positional", "fourier", LEARNED];
        if !kinds.contains(&self.time_embedding_type.as_str()) {
            let can = kinds.map(|kind| format!("{kind:?}")).join(", ");
            return FAMILY.refuse("time_embedding_type", &self.time_embedding_type, &can);
        }
        let levels = self.num_train_timesteps.unwrap_or_default();
        if self.time_embedding_type == LEARNED && !(2..=MOST_STEPS).contains(&levels) {
            let can = format!("2 to {MOST_STEPS} with a learned embedding");
            return FAMILY.refuse("num_train_timesteps", &self.num_train_timesteps, &can);
        }
        // What the others take for a class is a number or a vector, of which no table says how many there are.
        if self.class_embed_type.is_some() {
            return FAMILY.refuse("class_embed_type", &self.class_embed_type, "null, a table of num_class_embeds rows");
        }
        if self.num_class_embeds.is_some_and(|classes| !(1..=MOST_CLASSES).contains(&classes)) {
            return FAMILY.refuse("num_class_embeds", &self.num_class_embeds, &format!("1 to {MOST_CLASSES}"));
        }
        if !(1..=4 * MOST_CHANNELS).contains(&self.embedded()) {
            return FAMILY.refuse("time_embedding_dim", &self.embedded(), &format!("1 to {}", 4 * MOST_CHANNELS));
        }
        // The exponents of the frequencies are divided by what is left of the half.
        let half = self.block_out_channels[0] as f64 / 2.0;
        if self.time_embedding_type == "positional" && !(self.freq_shift.is_finite() && self.freq_shift < half) {
            let can = format!("numbers below half of the first channels, {half}");
            return FAMILY.refuse("freq_shift", &self.freq_shift, &can);
        }
        Ok(())
    }

    fn middle(&self, draft: &mut Draft, x: usize) -> usize {
        let bottom = self.block_out_channels[self.block_out_channels.len() - 1];
        let scale = 1.0 / self.mid_block_scale_factor;
        let block = |draft: &mut Draft, index: usize, x: usize| {
            let block = self.block(&format!("mid_block.resnets.{index}"), (bottom, bottom), None);
            draft.residual(Residual { inputs: &[x], scale, ..block })
        };
        let mut x = block(draft, 0, x);
        if self.add_attention {
            let groups = self.attn_norm_num_groups.unwrap_or(self.norm_groups());
            x = self.scaled_attention(draft, "mid_block.attentions.0", x, groups, scale);
        }
        block(draft, 1, x)
    }

    fn check(&self) -> Result<(), String> {
        let levels = self.block_out_channels.len();
        if levels == 0 || self.down_block_types.len() != levels || self.up_block_types.len() != levels {
            let lengths = (levels, self.down_block_types.len(), self.up_block_types.len());
            return FAMILY.refuse(
                "block_out_channels, down_block_types, up_block_types of lengths",
                &lengths,
                "equal ones",
            );
        }
        // A file's numbers are not to be trusted: each of these bounds memory and time before anything is built.
        if levels > MOST_LEVELS {
            return FAMILY.refuse("block_out_channels of length", &levels, &format!("up to {MOST_LEVELS}"));
        }
        if self.layers_per_block.saturating_mul(levels) > MOST_BLOCKS {
            return FAMILY.refuse(
                "layers_per_block",
                &self.layers_per_block,
                &format!("up to {}", MOST_BLOCKS / levels),
            );
        }
        if !(1..=MOST_CHANNELS).contains(&self.in_channels) {
            return FAMILY.refuse("in_channels", &self.in_channels, &format!("1 to {MOST_CHANNELS}"));
        }
        if self.out_channels != self.in_channels && self.out_channels != 2 * self.in_channels {
            let can = format!("in_channels, {}, or twice as many", self.in_channels);
            return FAMILY.refuse("out_channels", &self.out_channels, &can);
        }
        let outside = |channels: &usize| !(1..=MOST_CHANNELS).contains(channels);
        if self.block_out_channels.iter().any(outside) || !self.block_out_channels[0].is_multiple_of(2) {
            let can = format!("1 to {MOST_CHANNELS} channels and an even number of the first");
            return FAMILY.refuse("block_out_channels", &self.block_out_channels, &can);
        }
        let of_kinds = |types: &[String], kinds: [&str; 3]| types.iter().all(|kind| kinds.contains(&kind.as_str()));
        if !of_kinds(&self.down_block_types, ["DownBlock2D", ATTENTION_DOWN, RESIDUAL_DOWN]) {
            let can = format!("DownBlock2D, {ATTENTION_DOWN} and {RESIDUAL_DOWN}");
            return FAMILY.refuse("down_block_types", &self.down_block_types, &can);
        }
        if !of_kinds(&self.up_block_types, ["UpBlock2D", ATTENTION_UP, RESIDUAL_UP]) {
            let can = format!("UpBlock2D, {ATTENTION_UP} and {RESIDUAL_UP}");
            return FAMILY.refuse("up_block_types", &self.up_block_types, &can);
        }
        let modulated = self.resnet_time_scale_shift == "scale_shift";
        if self.resnet_time_scale_shift != "default" && !modulated {
            let can = "\"default\" and \"scale_shift\"";
            return FAMILY.refuse("resnet_time_scale_shift", &self.resnet_time_scale_shift, can);
        }
        // The library leaves the norm out then.
        if modulated && self.mid_block_type.is_some() && self.add_attention && self.attn_norm_num_groups.is_none() {
            let got = (&self.resnet_time_scale_shift, self.attn_norm_num_groups);
            return FAMILY.refuse("resnet_time_scale_shift, attn_norm_num_groups", &got, "a number of groups");
        }
        if self.act_fn != "silu" && self.act_fn != "swish" {
            return FAMILY.refuse("act_fn", &self.act_fn, "\"silu\"");
        }
        if [&self.downsample_type, &self.upsample_type].into_iter().any(|kind| kind != "conv" && kind != "resnet") {
            let got = (&self.downsample_type, &self.upsample_type);
            return FAMILY.refuse("downsample_type, upsample_type", &got, "\"conv\" and \"resnet\"");
        }
        if self.downsample_padding > 1 {
            return FAMILY.refuse("downsample_padding", &self.downsample_padding, "0 and 1");
        }
        if !(self.mid_block_scale_factor > 0.0 && self.mid_block_scale_factor.is_finite()) {
            return FAMILY.refuse("mid_block_scale_factor", &self.mid_block_scale_factor, "numbers above 0");
        }
        if self.mid_block_type.as_ref().is_some_and(|kind| kind != MIDDLE) {
            return FAMILY.refuse("mid_block_type", &self.mid_block_type, &format!("{MIDDLE:?} and null"));
        }
        self.check_embedding()?;
        // The library takes groups of four channels then, but in skip blocks alone.
        if self.norm_num_groups.is_none() {
            return FAMILY.refuse("norm_num_groups", &self.norm_num_groups, "a number of groups without skip blocks");
        }
        let groups = self.norm_groups();
        if let Some(channels) = self.block_out_channels.iter().find(|&c| groups == 0 || c % groups != 0) {
            return Err(format!("UNet2DModel: {channels} channels are not a multiple of norm_num_groups = {groups}"));
        }
        let bottom = self.block_out_channels[levels - 1];
        let groups = self.attn_norm_num_groups.unwrap_or(groups);
        if self.add_attention && !bottom.is_multiple_of(groups) {
            return Err(format!(
                "UNet2DModel: {bottom} channels are not a multiple of attn_norm_num_groups = {groups}"
            ));
        }
        if let Some(width) = self.attention_head_dim {
            let channels = &self.block_out_channels;
            let down = channels.iter().zip(&self.down_block_types).filter(|(_, kind)| *kind == ATTENTION_DOWN);
            let up = channels.iter().rev().zip(&self.up_block_types).filter(|(_, kind)| *kind == ATTENTION_UP);
            let mut attended =
                down.chain(up).map(|(channels, _)| channels).chain(self.add_attention.then_some(&bottom));
            if let Some(channels) = attended.find(|channels| !channels.is_multiple_of(width)) {
                return Err(format!(
                    "UNet2DModel: {channels} channels are not a multiple of attention_head_dim = {width}"
                ));
            }
        }
        Ok(())
    }

    fn norm_groups(&self) -> usize {
        self.norm_num_groups.unwrap_or(32)
    }

    /// One after the other: norm, SiLU, convolution, projection of the embedding, norm, SiLU, convolution; a convolution of
    /// 1 × 1 beside them where the number of channels changes.
    fn block(&self, name: &str, (channels, outputs): (usize, usize), filter: Option<Filter>) -> Residual<'static> {
        let groups = self.norm_groups();
        let mut second = norm(&format!("{name}.norm2"), outputs, groups, self.norm_eps);
        let projection = format!("{name}.time_emb_proj");
        let modulated = self.resnet_time_scale_shift == "scale_shift";
        let embedding = match modulated {
            true => {
                second.modulation = Some(dense(&projection, self.embedded(), 2 * outputs, true));
                None
            }
            false => Some(dense(&projection, self.embedded(), outputs, true)),
        };
        Residual {
            inputs: &[],
            norms: [norm(&format!("{name}.norm1"), channels, groups, self.norm_eps), second],
            convolutions: [
                affine(&format!("{name}.conv1"), channels, outputs, 3),
                affine(&format!("{name}.conv2"), outputs, outputs, 3),
            ],
            embedding,
            shortcut: (channels != outputs).then(|| affine(&format!("{name}.conv_shortcut"), channels, outputs, 1)),
            filter,
            scale: 1.0,
        }
    }

    fn residual(
        &self,
        draft: &mut Draft,
        name: &str,
        inputs: &[usize],
        outputs: usize,
        filter: Option<Filter>,
    ) -> usize {
        let channels = draft.channels(inputs);
        draft.residual(Residual { inputs, ..self.block(name, (channels, outputs), filter) })
    }

    fn attention(&self, draft: &mut Draft, name: &str, x: usize, groups: usize) -> usize {
        self.scaled_attention(draft, name, x, groups, 1.0)
    }

    /// All four projections are fully connected over the channels.
    fn scaled_attention(&self, draft: &mut Draft, name: &str, x: usize, groups: usize, scale: f64) -> usize {
        let channels = draft.channels(&[x]);
        let heads = self.attention_head_dim.map_or(1, |width| channels / width);
        let maps = ["to_q", "to_k", "to_v", "to_out.0"].map(|map| Affine {
            weight: Parameter::new(format!("{name}.{map}.weight"), &[channels, channels]),
            bias: Parameter::new(format!("{name}.{map}.bias"), &[channels]),
        });
        let before = norm(&format!("{name}.group_norm"), channels, groups, self.norm_eps);
        draft.attention(x, &before, maps, heads, scale)
    }
}

/// A convolution `name.conv` that changes the resolution.
fn resample(draft: &mut Draft, name: &str, x: usize, resample: Resample) -> usize {
    let channels = draft.channels(&[x]);
    let map = affine(&format!("{name}.conv"), channels, channels, 3);
    draft.sum(sum(vec![Source { resample, ..source(&[x], map) }], channels))
}

/// A time embedding that is a table.
const LEARNED: &str = "learned";

const ATTENTION_DOWN: &str = "AttnDownBlock2D";
const ATTENTION_UP: &str = "AttnUpBlock2D";
const RESIDUAL_DOWN: &str = "ResnetDownsampleBlock2D";
const RESIDUAL_UP: &str = "ResnetUpsampleBlock2D";
pub(super) const MIDDLE: &str = "UNetMidBlock2D";
