//! `UNet2DModel` of diffusers with skip blocks: NCSN++.
//!
//! The input at every resolution is added to what goes down, the output is put together from every level on the way up, and
//! all changes of resolution go through a filter.
//!
//! Song et al. (2021), <https://arxiv.org/abs/2011.13456>

use super::bounds::Extent;
use super::draft::{Affine, Draft, Residual, affine, dense, groups_of_four, norm, source, sum};
use super::unet2d::{FAMILY, MIDDLE, UNet2dConfig};
use std::f64::consts::FRAC_1_SQRT_2;
use tweedie_kernels::network::{Filter, Network, Norm, Parameter, Source, Sum};

const DOWN: [&str; 2] = ["SkipDownBlock2D", "AttnSkipDownBlock2D"];
const UP: [&str; 2] = ["SkipUpBlock2D", "AttnSkipUpBlock2D"];

/// The library fixes the filter.
const TAPS: [f64; 4] = [1.0, 3.0, 3.0, 1.0];

/// The library fixes the groups of attention in the skip blocks.
const ATTENTION_GROUPS: usize = 32;

/// The library fixes the colours of what is added and put together.
const COLOURS: usize = 3;

/// Whether the configuration has skip blocks.
pub(super) fn has_skip_blocks(config: &UNet2dConfig) -> bool {
    config.down_block_types.iter().chain(&config.up_block_types).any(|kind| kind.contains("Skip"))
}

fn check(config: &UNet2dConfig) -> Result<(), String> {
    let refuse = |field: &str, got: &dyn std::fmt::Debug, can: &str| {
        FAMILY.refuse(&format!("skip blocks and {field}"), got, can)
    };
    let levels = config.block_out_channels.len();
    if config.down_block_types.len() != levels || config.up_block_types.len() != levels {
        let lengths = (levels, config.down_block_types.len(), config.up_block_types.len());
        return refuse("block_out_channels, down_block_types, up_block_types of lengths", &lengths, "equal ones");
    }
    let extent = Extent {
        image_channels: config.in_channels,
        image_size: 1,
        channels: config.block_out_channels.first().copied().unwrap_or_default(),
        multipliers: &vec![1; levels],
        blocks: config.layers_per_block,
    };
    extent.check(&FAMILY)?;
    for &channels in &config.block_out_channels {
        Extent { channels, ..extent }.check(&FAMILY)?;
    }
    if (config.in_channels, config.out_channels) != (COLOURS, COLOURS) {
        return refuse("in_channels, out_channels", &(config.in_channels, config.out_channels), "3");
    }
    if !config.down_block_types.iter().all(|kind| DOWN.contains(&kind.as_str())) {
        return refuse("down_block_types", &config.down_block_types, &DOWN.join(" and "));
    }
    if !config.up_block_types.iter().all(|kind| UP.contains(&kind.as_str())) {
        return refuse("up_block_types", &config.up_block_types, &UP.join(" and "));
    }
    if config.resnet_time_scale_shift != "default" {
        return refuse("resnet_time_scale_shift", &config.resnet_time_scale_shift, "\"default\"");
    }
    if config.mid_block_type.as_deref() != Some(MIDDLE) {
        return refuse("mid_block_type", &config.mid_block_type, &format!("{MIDDLE:?}"));
    }
    config.check_embedding()?;
    if config.act_fn != "silu" && config.act_fn != "swish" {
        return refuse("act_fn", &config.act_fn, "\"silu\"");
    }
    let Some(width) = config.attention_head_dim else { return check_scale(config) };
    let down = config.block_out_channels.iter().zip(&config.down_block_types).filter(|(_, kind)| **kind == DOWN[1]);
    let up = config.block_out_channels.iter().rev().zip(&config.up_block_types).filter(|(_, kind)| **kind == UP[1]);
    let middle = config.block_out_channels.last().filter(|_| config.add_attention);
    let mut attended = down.chain(up).map(|(channels, _)| channels).chain(middle);
    if let Some(channels) = attended.find(|channels| width == 0 || !channels.is_multiple_of(width)) {
        return Err(format!("UNet2DModel: {channels} channels are not a multiple of attention_head_dim = {width}"));
    }
    check_scale(config)
}

fn check_scale(config: &UNet2dConfig) -> Result<(), String> {
    let scale = config.mid_block_scale_factor;
    if !(scale > 0.0 && scale.is_finite()) {
        return Err(format!("UNet2DModel with mid_block_scale_factor = {scale}, expected a finite number above 0"));
    }
    Ok(())
}

/// The network that a configuration with skip blocks describes.
///
/// # Errors
/// A sentence naming the field that cannot be built, its value, and what can.
pub(super) fn network(config: &UNet2dConfig) -> Result<Network, String> {
    check(config)?;
    let channels = &config.block_out_channels;
    let first = channels[0];
    let mut build = Build { config, draft: Draft::new(config.in_channels), embedded: config.embedded() };
    let last = channels.len() - 1;

    let mut x = build.draft.convolution(0, None, affine("conv_in", config.in_channels, first, 3));
    let mut skips = vec![x];
    let mut input = 0;
    for (level, &outputs) in channels.iter().enumerate() {
        let block = format!("down_blocks.{level}");
        for layer in 0..config.layers_per_block {
            x = build.resnet(&format!("{block}.resnets.{layer}"), &[x], outputs, None);
            if config.down_block_types[level] == DOWN[1] {
                x = build.attention(&format!("{block}.attentions.{layer}"), x, ATTENTION_GROUPS, FRAC_1_SQRT_2);
            }
            skips.push(x);
        }
        if level < last {
            x = build.resnet(&format!("{block}.resnet_down"), &[x], outputs, Some(Filter::FirDown(TAPS.to_vec())));
            input = build.draft.resize(input, None, Filter::FirDown(TAPS.to_vec()));
            let map = affine(&format!("{block}.skip_conv"), COLOURS, outputs, 1);
            x = build.draft.sum(Sum { residual: Some(x), ..sum(vec![source(&[input], map)], outputs) });
            skips.push(x);
        }
    }
    x = build.middle("mid_block.resnets.0", x);
    if config.add_attention {
        let groups = config.attn_norm_num_groups.or(config.norm_num_groups);
        let groups = groups.unwrap_or(groups_of_four(channels[last]));
        x = build.attention("mid_block.attentions.0", x, groups, 1.0 / config.mid_block_scale_factor);
    }
    x = build.middle("mid_block.resnets.1", x);
    let mut output = None;
    for (index, &outputs) in channels.iter().rev().enumerate() {
        let block = format!("up_blocks.{index}");
        for layer in 0..=config.layers_per_block {
            let skip = skips.pop().unwrap_or_default();
            let groups = build.meeting_groups(x, skip, config.up_block_types[index] == UP[1]);
            let groups = [groups, groups_of_four(outputs)];
            let name = format!("{block}.resnets.{layer}");
            x = build.block(&name, &[x, skip], outputs, None, groups, FRAC_1_SQRT_2);
        }
        if config.up_block_types[index] == UP[1] {
            x = build.attention(&format!("{block}.attentions.0"), x, ATTENTION_GROUPS, FRAC_1_SQRT_2);
        }
        let up = Filter::FirUp(TAPS.to_vec());
        output = output.map(|output| build.draft.resize(output, None, up.clone()));
        if index < last {
            let norm = build.norm(&format!("{block}.skip_norm"), outputs, groups_of_four(outputs));
            output = Some(build.colours(&format!("{block}.skip_conv"), x, norm, output));
            x = build.resnet(&format!("{block}.resnet_up"), &[x], outputs, Some(up));
        }
    }
    let groups = config.norm_num_groups.unwrap_or(groups_of_four(first));
    let norm = build.norm("conv_norm_out", first, groups);
    build.colours("conv_out", x, norm, output);

    let embedding = config.embedding();
    Ok(Network { channels: config.in_channels, patch: 1, embedding, steps: build.draft.steps })
}

struct Build<'a> {
    config: &'a UNet2dConfig,
    draft: Draft,
    embedded: usize,
}

impl Build<'_> {
    fn norm(&self, name: &str, channels: usize, groups: usize) -> Norm {
        norm(name, channels, groups, self.config.norm_eps)
    }

    /// Groups where two values meet: with attention the library takes a quarter of the second alone.
    fn meeting_groups(&self, x: usize, skip: usize, attended: bool) -> usize {
        match attended {
            true => (self.draft.channels(&[x]) + self.draft.channels(&[skip]) / 4).min(32),
            false => groups_of_four(self.draft.channels(&[x, skip])),
        }
    }

    fn resnet(&mut self, name: &str, inputs: &[usize], outputs: usize, filter: Option<Filter>) -> usize {
        let groups = groups_of_four(self.draft.channels(inputs));
        self.block(name, inputs, outputs, filter, [groups, groups_of_four(outputs)], FRAC_1_SQRT_2)
    }

    fn middle(&mut self, name: &str, x: usize) -> usize {
        let channels = self.draft.channels(&[x]);
        let groups = self.config.norm_num_groups.unwrap_or(groups_of_four(channels));
        self.block(name, &[x], channels, None, [groups; 2], 1.0 / self.config.mid_block_scale_factor)
    }

    fn block(
        &mut self,
        name: &str,
        inputs: &[usize],
        outputs: usize,
        filter: Option<Filter>,
        groups: [usize; 2],
        scale: f64,
    ) -> usize {
        let channels = self.draft.channels(inputs);
        let projected = channels != outputs || filter.is_some();
        let block = Residual {
            inputs,
            norms: [
                self.norm(&format!("{name}.norm1"), channels, groups[0]),
                self.norm(&format!("{name}.norm2"), outputs, groups[1]),
            ],
            convolutions: [
                affine(&format!("{name}.conv1"), channels, outputs, 3),
                affine(&format!("{name}.conv2"), outputs, outputs, 3),
            ],
            embedding: Some(dense(&format!("{name}.time_emb_proj"), self.embedded, outputs, true)),
            shortcut: projected.then(|| affine(&format!("{name}.conv_shortcut"), channels, outputs, 1)),
            filter,
            scale,
        };
        self.draft.residual(block)
    }

    fn attention(&mut self, name: &str, x: usize, groups: usize, scale: f64) -> usize {
        let channels = self.draft.channels(&[x]);
        let heads = self.config.attention_head_dim.map_or(1, |width| channels / width);
        let maps = ["to_q", "to_k", "to_v", "to_out.0"].map(|map| Affine {
            weight: Parameter::new(format!("{name}.{map}.weight"), &[channels, channels]),
            bias: Parameter::new(format!("{name}.{map}.bias"), &[channels]),
        });
        let norm = self.norm(&format!("{name}.group_norm"), channels, groups);
        self.draft.attention(x, &norm, maps, heads, scale)
    }

    /// A convolution to the colours of the output, and what has been put together so far.
    fn colours(&mut self, name: &str, x: usize, norm: Norm, residual: Option<usize>) -> usize {
        let map = affine(name, self.draft.channels(&[x]), COLOURS, 3);
        let source = Source { norm: Some(norm), silu: true, ..source(&[x], map) };
        self.draft.sum(Sum { residual, ..sum(vec![source], COLOURS) })
    }
}
