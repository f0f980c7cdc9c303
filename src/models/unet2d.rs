//! `UNet2DModel` of diffusers, as a list of steps.
//!
//! Parameter names are those of the checkpoints. What the configuration can say and this file cannot build is refused by
//! name: FIR and skip blocks, residual up- and down-sampling blocks, class conditions.

use super::scheduler::SchedulerConfig;
use super::{Family, Recipe, TensorIndex};
use crate::priors::Parameterization;
use serde::Deserialize;
use serde_json::Value;
use tweedie_kernels::network::{
    Attention, Dense, Embedding, Features, Network, Norm, Parameter, Resample, Source, Step, Sum,
};

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
    /// The residual sum of a block is divided by this.
    pub mid_block_scale_factor: f64,
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
    parameterization: Option<Preconditioning>,
}

/// How a native file names the preconditioning of its network.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Preconditioning {
    Edm { sigma_data: f64 },
}

fn recipe(config: &Value, _: &TensorIndex) -> Result<Recipe, String> {
    let architecture: UNet2dConfig = Deserialize::deserialize(config).map_err(|error| format!("config: {error}"))?;
    let training: Training =
        Deserialize::deserialize(config).map_err(|error| match config.get("parameterization") {
            Some(text) => format!("has parameterization `{text}`: {error}"),
            None => format!("scheduler: {error}"),
        })?;
    let (parameterization, sigma_range) = match training {
        Training { parameterization: Some(Preconditioning::Edm { sigma_data }), .. } => {
            (Parameterization::Edm { sigma_data }, (0.002, 80.0))
        }
        Training { scheduler: Some(scheduler), .. } => scheduler.parameterization(architecture.center_input_sample)?,
        Training { .. } => return Err("has no scheduler, which says how the network was trained".into()),
    };
    let native_size = architecture.sample_size.as_ref().and_then(Value::as_u64).map(|size| size as usize);
    Ok(Recipe { native_size, ..Recipe::new(architecture.network()?, parameterization, sigma_range) })
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
            act_fn: "silu".into(),
            downsample_type: "conv".into(),
            upsample_type: "conv".into(),
            num_class_embeds: None,
            class_embed_type: None,
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
        self.check()?;
        let channels = &self.block_out_channels;
        let first = channels[0];
        let embedded = first * 4;
        let groups = self.norm_groups();
        let mut build = Builder { config: self, embedded, steps: Vec::new(), channels: vec![self.in_channels] };

        let mut x = build.convolution("conv_in", &[0], first, None, Resample::Same);
        let mut skips = vec![x];
        for (level, &out) in channels.iter().enumerate() {
            for layer in 0..self.layers_per_block {
                x = build.resnet(&format!("down_blocks.{level}.resnets.{layer}"), &[x], out);
                if self.down_block_types[level] == ATTENTION_DOWN {
                    x = build.attention(&format!("down_blocks.{level}.attentions.{layer}"), x, groups);
                }
                skips.push(x);
            }
            if level + 1 < channels.len() {
                let name = format!("down_blocks.{level}.downsamplers.0.conv");
                x = build.convolution(&name, &[x], out, None, Resample::Down { before: self.downsample_padding });
                skips.push(x);
            }
        }
        let bottom = channels[channels.len() - 1];
        x = build.resnet("mid_block.resnets.0", &[x], bottom);
        if self.add_attention {
            x = build.attention("mid_block.attentions.0", x, self.attn_norm_num_groups.unwrap_or(groups));
        }
        x = build.resnet("mid_block.resnets.1", &[x], bottom);
        for (level, &out) in channels.iter().rev().enumerate() {
            for layer in 0..=self.layers_per_block {
                let skip = skips.pop().unwrap_or_default();
                x = build.resnet(&format!("up_blocks.{level}.resnets.{layer}"), &[x, skip], out);
                if self.up_block_types[level] == ATTENTION_UP {
                    x = build.attention(&format!("up_blocks.{level}.attentions.{layer}"), x, groups);
                }
            }
            if level + 1 < channels.len() {
                x = build.convolution(&format!("up_blocks.{level}.upsamplers.0.conv"), &[x], out, None, Resample::Up);
            }
        }
        build.convolution("conv_out", &[x], self.out_channels, Some("conv_norm_out"), Resample::Same);

        let layer = |name: &str, inputs, silu| dense(&format!("time_embedding.{name}"), inputs, embedded, silu);
        Ok(Network {
            channels: self.in_channels,
            embedding: Embedding {
                features: Features::Positional {
                    channels: first,
                    cosine_first: self.flip_sin_to_cos,
                    frequency_shift: self.freq_shift,
                },
                layers: vec![layer("linear_1", first, false), layer("linear_2", embedded, true)],
                classes: None,
            },
            steps: build.steps,
        })
    }

    fn check(&self) -> Result<(), String> {
        let refuse = |field: &str, got: &dyn std::fmt::Debug, can: &str| {
            Err(format!("UNet2DModel with {field} = {got:?} cannot be built yet, only {can}"))
        };
        let levels = self.block_out_channels.len();
        if levels == 0 || self.down_block_types.len() != levels || self.up_block_types.len() != levels {
            let lengths = (levels, self.down_block_types.len(), self.up_block_types.len());
            return refuse("block_out_channels, down_block_types, up_block_types of lengths", &lengths, "equal ones");
        }
        // A file's numbers are not to be trusted: each of these bounds memory and time before anything is built.
        if levels > MOST_LEVELS {
            return refuse("block_out_channels of length", &levels, &format!("up to {MOST_LEVELS}"));
        }
        if self.layers_per_block > MOST_LAYERS {
            return refuse("layers_per_block", &self.layers_per_block, &format!("up to {MOST_LAYERS}"));
        }
        if !(1..=MOST_CHANNELS).contains(&self.in_channels) {
            return refuse("in_channels", &self.in_channels, &format!("1 to {MOST_CHANNELS}"));
        }
        if self.out_channels != self.in_channels {
            return refuse("out_channels", &self.out_channels, &format!("in_channels, {}", self.in_channels));
        }
        let outside = |channels: &usize| !(1..=MOST_CHANNELS).contains(channels);
        if self.block_out_channels.iter().any(outside) || !self.block_out_channels[0].is_multiple_of(2) {
            let can = format!("1 to {MOST_CHANNELS} channels and an even number of the first");
            return refuse("block_out_channels", &self.block_out_channels, &can);
        }
        let of_kinds = |types: &[String], kinds: [&str; 2]| types.iter().all(|kind| kinds.contains(&kind.as_str()));
        if !of_kinds(&self.down_block_types, ["DownBlock2D", ATTENTION_DOWN]) {
            return refuse("down_block_types", &self.down_block_types, "DownBlock2D and AttnDownBlock2D");
        }
        if !of_kinds(&self.up_block_types, ["UpBlock2D", ATTENTION_UP]) {
            return refuse("up_block_types", &self.up_block_types, "UpBlock2D and AttnUpBlock2D");
        }
        if self.time_embedding_type != "positional" {
            return refuse("time_embedding_type", &self.time_embedding_type, "\"positional\"");
        }
        if self.resnet_time_scale_shift != "default" {
            return refuse("resnet_time_scale_shift", &self.resnet_time_scale_shift, "\"default\"");
        }
        if self.act_fn != "silu" && self.act_fn != "swish" {
            return refuse("act_fn", &self.act_fn, "\"silu\"");
        }
        if self.downsample_type != "conv" || self.upsample_type != "conv" {
            return refuse("downsample_type, upsample_type", &(&self.downsample_type, &self.upsample_type), "\"conv\"");
        }
        if self.downsample_padding > 1 {
            return refuse("downsample_padding", &self.downsample_padding, "0 and 1");
        }
        if self.center_input_sample {
            return refuse("center_input_sample", &true, "false");
        }
        if (self.mid_block_scale_factor - 1.0).abs() > 0.0 {
            return refuse("mid_block_scale_factor", &self.mid_block_scale_factor, "1");
        }
        if self.num_class_embeds.is_some() || self.class_embed_type.is_some() {
            return refuse("num_class_embeds", &self.num_class_embeds, "unconditional models");
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
}

const ATTENTION_DOWN: &str = "AttnDownBlock2D";
const ATTENTION_UP: &str = "AttnUpBlock2D";

/// Larger than in any network of this kind that has been published.
const MOST_LEVELS: usize = 16;
const MOST_LAYERS: usize = 64;
const MOST_CHANNELS: usize = 1 << 16;

struct Builder<'a> {
    config: &'a UNet2dConfig,
    embedded: usize,
    steps: Vec<Step>,
    channels: Vec<usize>,
}

impl Builder<'_> {
    fn source(&self, name: &str, inputs: &[usize], outputs: usize, size: usize, norm: Option<&str>) -> Source {
        let channels: usize = inputs.iter().map(|&value| self.channels[value]).sum();
        Source {
            inputs: inputs.to_vec(),
            norm: norm.map(|name| self.norm(name, channels, self.config.norm_groups())),
            silu: norm.is_some(),
            weight: Parameter::new(format!("{name}.weight"), &[outputs, channels, size, size]),
            bias: Some(Parameter::new(format!("{name}.bias"), &[outputs])),
            resample: Resample::Same,
        }
    }

    fn norm(&self, name: &str, channels: usize, groups: usize) -> Norm {
        Norm {
            groups,
            epsilon: self.config.norm_eps,
            weight: Parameter::new(format!("{name}.weight"), &[channels]),
            bias: Parameter::new(format!("{name}.bias"), &[channels]),
            modulation: None,
        }
    }

    fn push(&mut self, step: impl Into<Step>, channels: usize) -> usize {
        self.channels.push(channels);
        self.steps.push(step.into());
        self.steps.len()
    }

    fn convolution(
        &mut self,
        name: &str,
        inputs: &[usize],
        outputs: usize,
        norm: Option<&str>,
        resample: Resample,
    ) -> usize {
        let source = Source { resample, ..self.source(name, inputs, outputs, 3, norm) };
        self.push(
            Sum { sources: vec![source], embedding: None, residual: None, channels: outputs, scale: 1.0 },
            outputs,
        )
    }

    /// `x + conv2(silu(norm2(conv1(silu(norm1(x))) + W silu(embedding))))`, a 1×1 convolution of `x` where the number of
    /// channels changes.
    fn resnet(&mut self, name: &str, inputs: &[usize], outputs: usize) -> usize {
        let channels: usize = inputs.iter().map(|&value| self.channels[value]).sum();
        let first = self.source(&format!("{name}.conv1"), inputs, outputs, 3, Some(&format!("{name}.norm1")));
        let embedding = Some(dense(&format!("{name}.time_emb_proj"), self.embedded, outputs, true));
        let hidden =
            self.push(Sum { sources: vec![first], embedding, residual: None, channels: outputs, scale: 1.0 }, outputs);
        let second = self.source(&format!("{name}.conv2"), &[hidden], outputs, 3, Some(&format!("{name}.norm2")));
        let mut sources = vec![second];
        let same = channels == outputs && inputs.len() == 1;
        if !same {
            sources.push(self.source(&format!("{name}.conv_shortcut"), inputs, outputs, 1, None));
        }
        self.push(
            Sum { sources, embedding: None, residual: same.then(|| inputs[0]), channels: outputs, scale: 1.0 },
            outputs,
        )
    }

    /// `x + out(attention(q(norm(x)), k(norm(x)), v(norm(x))))`, all four of them fully connected over the channels.
    fn attention(&mut self, name: &str, x: usize, groups: usize) -> usize {
        let channels = self.channels[x];
        let heads = self.config.attention_head_dim.map_or(1, |width| channels / width);
        let [query, key, value] = ["to_q", "to_k", "to_v"].map(|layer| {
            let norm = self.norm(&format!("{name}.group_norm"), channels, groups);
            self.matrix(&format!("{name}.{layer}"), x, Some(norm), None)
        });
        let attended = self.push(Attention { query, key, value, heads }, channels);
        self.matrix(&format!("{name}.to_out.0"), attended, None, Some(x))
    }

    /// A fully connected layer over the channels of every pixel, as many as there were.
    fn matrix(&mut self, name: &str, input: usize, norm: Option<Norm>, residual: Option<usize>) -> usize {
        let channels = self.channels[input];
        let source = Source {
            norm,
            weight: Parameter::new(format!("{name}.weight"), &[channels, channels]),
            ..self.source(name, &[input], channels, 1, None)
        };
        self.push(Sum { sources: vec![source], embedding: None, residual, channels, scale: 1.0 }, channels)
    }
}

fn dense(name: &str, inputs: usize, outputs: usize, silu: bool) -> Dense {
    Dense {
        weight: Parameter::new(format!("{name}.weight"), &[outputs, inputs]),
        bias: Parameter::new(format!("{name}.bias"), &[outputs]),
        silu,
    }
}
