//! `UNet2DModel` of diffusers, as a list of steps.
//!
//! Parameter names are those of the checkpoints. What the configuration can say and this file cannot build is refused by
//! name: attention, FIR and skip blocks, residual up- and down-sampling blocks, class conditions.

use serde::Deserialize;
use tweedie_kernels::network::{Dense, Embedding, Network, Norm, Parameter, Resample, Source, Step};

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
    pub sample_size: Option<serde_json::Value>,
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
        let mut build = Builder { config: self, embedded, steps: Vec::new(), channels: vec![self.in_channels] };

        let mut x = build.convolution("conv_in", &[0], first, None, Resample::Same);
        let mut skips = vec![x];
        for (level, &out) in channels.iter().enumerate() {
            for layer in 0..self.layers_per_block {
                x = build.resnet(&format!("down_blocks.{level}.resnets.{layer}"), &[x], out);
                skips.push(x);
            }
            if level + 1 < channels.len() {
                let name = format!("down_blocks.{level}.downsamplers.0.conv");
                x = build.convolution(&name, &[x], out, None, Resample::Down { before: self.downsample_padding });
                skips.push(x);
            }
        }
        let bottom = channels[channels.len() - 1];
        for layer in 0..2 {
            x = build.resnet(&format!("mid_block.resnets.{layer}"), &[x], bottom);
        }
        for (level, &out) in channels.iter().rev().enumerate() {
            for layer in 0..=self.layers_per_block {
                let skip = skips.pop().unwrap_or_default();
                x = build.resnet(&format!("up_blocks.{level}.resnets.{layer}"), &[x, skip], out);
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
                channels: first,
                cosine_first: self.flip_sin_to_cos,
                frequency_shift: self.freq_shift,
                layers: vec![layer("linear_1", first, false), layer("linear_2", embedded, true)],
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
        if self.down_block_types.iter().any(|kind| kind != "DownBlock2D") {
            return refuse("down_block_types", &self.down_block_types, "DownBlock2D");
        }
        if self.up_block_types.iter().any(|kind| kind != "UpBlock2D") {
            return refuse("up_block_types", &self.up_block_types, "UpBlock2D");
        }
        if self.add_attention {
            return refuse("add_attention", &true, "false");
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
        let groups = self.norm_num_groups.unwrap_or(32);
        if let Some(channels) = self.block_out_channels.iter().find(|&c| groups == 0 || c % groups != 0) {
            return Err(format!("UNet2DModel: {channels} channels are not a multiple of norm_num_groups = {groups}"));
        }
        Ok(())
    }
}

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
            norm: norm.map(|name| Norm {
                groups: self.config.norm_num_groups.unwrap_or(32),
                epsilon: self.config.norm_eps,
                weight: Parameter::new(format!("{name}.weight"), &[channels]),
                bias: Parameter::new(format!("{name}.bias"), &[channels]),
            }),
            silu: norm.is_some(),
            weight: Parameter::new(format!("{name}.weight"), &[outputs, channels, size, size]),
            bias: Some(Parameter::new(format!("{name}.bias"), &[outputs])),
            resample: Resample::Same,
        }
    }

    fn push(&mut self, step: Step) -> usize {
        self.channels.push(step.channels);
        self.steps.push(step);
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
        self.push(Step { sources: vec![source], embedding: None, residual: None, channels: outputs })
    }

    /// `x + conv2(silu(norm2(conv1(silu(norm1(x))) + W silu(embedding))))`, a 1×1 convolution of `x` where the number of
    /// channels changes.
    fn resnet(&mut self, name: &str, inputs: &[usize], outputs: usize) -> usize {
        let channels: usize = inputs.iter().map(|&value| self.channels[value]).sum();
        let first = self.source(&format!("{name}.conv1"), inputs, outputs, 3, Some(&format!("{name}.norm1")));
        let hidden = self.push(Step {
            sources: vec![first],
            embedding: Some(dense(&format!("{name}.time_emb_proj"), self.embedded, outputs, true)),
            residual: None,
            channels: outputs,
        });
        let second = self.source(&format!("{name}.conv2"), &[hidden], outputs, 3, Some(&format!("{name}.norm2")));
        let mut sources = vec![second];
        let same = channels == outputs && inputs.len() == 1;
        if !same {
            sources.push(self.source(&format!("{name}.conv_shortcut"), inputs, outputs, 1, None));
        }
        self.push(Step { sources, embedding: None, residual: same.then(|| inputs[0]), channels: outputs })
    }
}

fn dense(name: &str, inputs: usize, outputs: usize, silu: bool) -> Dense {
    Dense {
        weight: Parameter::new(format!("{name}.weight"), &[outputs, inputs]),
        bias: Parameter::new(format!("{name}.bias"), &[outputs]),
        silu,
    }
}
