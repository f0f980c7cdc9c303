//! The U-Net of guided-diffusion, known as ADM, as a list of steps.
//!
//! Residual blocks whose embedding modulates the second norm, resolution changed inside of residual blocks, attention in
//! heads at several resolutions, and for most checkpoints as many outputs again, which say how uncertain the predicted
//! noise is. The program writes weights alone, so what a file can say is read off names and shapes; what it cannot (the
//! heads, the order of q, k and v, the noise schedule) comes from a configuration, or from the published networks' list.
//!
//! Dhariwal and Nichol (2021), <https://arxiv.org/abs/2105.05233>

use super::bounds::{MOST_BLOCKS, MOST_CHANNELS, MOST_CLASSES, MOST_LEVELS, MOST_STEPS};
use super::draft::{Affine, Draft, Residual, affine, dense, norm, source, sum};
use super::recipe::prefix;
use super::scheduler::time;
use super::{Family, Origin, Pick, Recipe, TensorIndex};
use crate::priors::{Parameterization, Prediction, VariancePreserving};
use crate::schedules::Discrete;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;
use tweedie_kernels::network::{Classes, Embedding, Features, Filter, Network, Parameter, Resample, Source};

/// guided-diffusion.
pub(super) const FAMILY: Family = Family {
    name: "adm",
    about: "guided-diffusion's U-Nets: ffhq_10m, OpenAI's ImageNet and LSUN models",
    recipe,
    recognise,
};

/// The program's own settings, by its names; what is absent is read off the tensors where they say it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AdmConfig {
    /// Side of the images it was trained on, which `attention_resolutions` refers to.
    pub image_size: Option<usize>,
    /// Channels of the images; 3.
    pub in_channels: Option<usize>,
    /// Channels that the multipliers refer to.
    pub num_channels: Option<usize>,
    /// Residual blocks of a level on the way down; one more on the way up.
    pub num_res_blocks: Option<usize>,
    /// Channels of each level in units of `num_channels`: `"1,2,3,4"`; those of `image_size` if empty.
    pub channel_mult: Option<Value>,
    /// Sides of the images at the levels with attention: `"32,16,8"`.
    pub attention_resolutions: Option<Value>,
    /// Heads of every attention, where `num_head_channels` is −1.
    pub num_heads: Option<i64>,
    /// The same on the way up; `num_heads` if −1.
    pub num_heads_upsample: Option<i64>,
    /// Channels of a head, or −1.
    pub num_head_channels: Option<i64>,
    /// Whether q, k and v are split before the heads are.
    pub use_new_attention_order: Option<bool>,
    /// Whether the embedding modulates the second norm of a block.
    pub use_scale_shift_norm: Option<bool>,
    /// Whether residual blocks change the resolution.
    pub resblock_updown: Option<bool>,
    /// Whether convolutions do, otherwise.
    pub conv_resample: Option<bool>,
    /// Whether classes are told.
    pub class_cond: Option<bool>,
    /// How many there are.
    pub num_classes: Option<usize>,
    /// Whether there are as many outputs again, for the variance.
    pub learn_sigma: Option<bool>,
    /// Levels of the training process; 1000.
    pub diffusion_steps: Option<usize>,
    /// `linear` or `cosine`.
    pub noise_schedule: Option<String>,
    /// Whether the output is the image instead of the noise.
    pub predict_xstart: bool,
    /// Whether the network is told `1000 t/T`.
    pub rescale_timesteps: bool,
}

/// How the resolution is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// Inside of a residual block.
    Residual,
    /// By a convolution.
    Convolution,
    /// By the mean of four pixels, or by doubling them.
    Plain,
}

/// How many heads an attention has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heads {
    /// One for so many channels.
    Width(usize),
    /// So many on the way down and in the middle, and on the way up.
    Count(usize, usize),
}

/// What the network is made of, all of it known.
#[derive(Clone, Debug)]
struct Anatomy {
    image_channels: usize,
    outputs: usize,
    /// Channels of the embedding's sines and cosines.
    width: usize,
    /// Of each level, the full resolution first.
    channels: Vec<usize>,
    attention: Vec<bool>,
    blocks: usize,
    heads: Heads,
    new_order: bool,
    modulated: bool,
    change: Change,
    classes: Option<usize>,
}

/// A network that has been published, with what its tensors do not say.
struct Published {
    width: usize,
    blocks: usize,
    multipliers: &'static [f64],
    image_size: usize,
    heads: Heads,
    new_order: bool,
    cosine: bool,
}

/// `README.md` and `model-card.md` of guided-diffusion; the first is of ILVR and P2 (jychoi118), its settings those of DPS.
const PUBLISHED: [Published; 5] = [
    Published {
        width: 128,
        blocks: 1,
        multipliers: &[1.0, 1.0, 2.0, 2.0, 4.0, 4.0],
        image_size: 256,
        heads: Heads::Width(64),
        new_order: false,
        cosine: false,
    },
    Published {
        width: 256,
        blocks: 2,
        multipliers: &[1.0, 1.0, 2.0, 2.0, 4.0, 4.0],
        image_size: 256,
        heads: Heads::Width(64),
        new_order: false,
        cosine: false,
    },
    Published {
        width: 256,
        blocks: 2,
        multipliers: &[0.5, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0],
        image_size: 512,
        heads: Heads::Width(64),
        new_order: false,
        cosine: false,
    },
    Published {
        width: 256,
        blocks: 2,
        multipliers: &[1.0, 1.0, 2.0, 3.0, 4.0],
        image_size: 128,
        heads: Heads::Count(4, 4),
        new_order: false,
        cosine: false,
    },
    Published {
        width: 192,
        blocks: 3,
        multipliers: &[1.0, 2.0, 3.0, 4.0],
        image_size: 64,
        heads: Heads::Width(64),
        new_order: true,
        cosine: true,
    },
];

const FIRST: &str = "input_blocks.0.0.weight";

fn recognise(tensors: &TensorIndex) -> bool {
    let Some(prefix) = prefix(tensors, FIRST) else { return false };
    let names = ["time_embed.0.weight", "middle_block.1.qkv.weight", "out.2.weight"];
    names.iter().all(|name| tensors.contains_key(&format!("{prefix}{name}")))
}

fn recipe(config: &Value, tensors: &TensorIndex) -> Result<Recipe, String> {
    let settings: AdmConfig = match config {
        Value::Null => AdmConfig::default(),
        config => Deserialize::deserialize(config).map_err(|error| format!("config: {error}"))?,
    };
    let prefix = prefix(tensors, FIRST).unwrap_or_default();
    let seen = Seen::of(tensors, &prefix);
    let published = settings.published(seen.as_ref());
    let anatomy = settings.anatomy(seen.as_ref(), published)?;
    let (parameterization, sigma_range) = settings.parameterization(published, config)?;
    let (network, tensors) = anatomy.network()?;
    let native_size = settings.image_size.or(published.map(|published| published.image_size));
    let recipe = Recipe { tensors, native_size, ..Recipe::new(network, parameterization, sigma_range) };
    Ok(recipe.prefixed(&prefix))
}

/// What names and shapes say.
#[derive(Debug)]
struct Seen {
    image_channels: usize,
    outputs: usize,
    width: usize,
    channels: Vec<usize>,
    attention: Vec<bool>,
    blocks: usize,
    modulated: bool,
    change: Change,
    classes: Option<usize>,
}

impl Seen {
    /// `None` where they are not those of such a network.
    fn of(tensors: &TensorIndex, prefix: &str) -> Option<Self> {
        let shape = |name: String| tensors.get(&format!("{prefix}{name}")).map(|(_, shape)| shape.as_slice());
        let axis = |name: &str, axis: usize| shape(name.into())?.get(axis).copied();
        let has = |name: String| shape(name).is_some();
        let count = (0..).take_while(|i| has(format!("output_blocks.{i}.0.in_layers.0.weight"))).count();
        let doubles = |i: &usize| {
            let place = |k: usize| format!("output_blocks.{i}.{k}");
            (1..3).any(|k| has(format!("{}.conv.weight", place(k))) || has(format!("{}.in_layers.0.weight", place(k))))
        };
        let levels = (0..count).filter(doubles).count() + 1;
        if count == 0 || !count.is_multiple_of(levels) || count / levels < 2 {
            return None;
        }
        let blocks = count / levels - 1;
        let first = |level: usize| 1 + level * (blocks + 1);
        let channels: Option<Vec<usize>> =
            (0..levels).map(|level| axis(&format!("input_blocks.{}.0.out_layers.3.weight", first(level)), 0)).collect();
        let channels = channels?;
        Some(Self {
            image_channels: axis(FIRST, 1)?,
            outputs: axis("out.2.weight", 0)?,
            width: axis("time_embed.0.weight", 1)?,
            attention: (0..levels).map(|level| has(format!("input_blocks.{}.1.qkv.weight", first(level)))).collect(),
            blocks,
            modulated: axis("input_blocks.1.0.emb_layers.1.weight", 0)? == 2 * channels[0],
            change: match has(format!("input_blocks.{}.0.op.weight", blocks + 1)) {
                true => Change::Convolution,
                false => Change::Residual,
            },
            classes: axis("label_emb.weight", 0),
            channels,
        })
    }
}

/// Numbers of a text, `"32,16,8"`, of a list or of one number; none of an empty text.
fn numbers(value: &Value) -> Option<Vec<f64>> {
    match value {
        Value::Number(number) => Some(vec![number.as_f64()?]),
        Value::Array(values) => values.iter().map(Value::as_f64).collect(),
        Value::String(text) if text.trim().is_empty() => Some(Vec::new()),
        Value::String(text) => text.split(',').map(|number| number.trim().parse().ok()).collect(),
        _ => None,
    }
}

/// Multipliers that the program takes for a size of images where none are given.
fn usual_multipliers(image_size: usize) -> Option<&'static [f64]> {
    PUBLISHED.iter().find(|published| published.image_size == image_size).map(|published| published.multipliers)
}

impl AdmConfig {
    /// The multipliers as they are written, or those of the size.
    fn multipliers(&self) -> Result<Option<Vec<f64>>, String> {
        let wrong =
            |value: &Value| format!("adm with channel_mult = {value}, expected numbers such as \"1,1,2,2,4,4\"");
        let written = match &self.channel_mult {
            Some(value) => numbers(value).ok_or_else(|| wrong(value))?,
            None => Vec::new(),
        };
        Ok(match (written.is_empty(), self.image_size) {
            (false, _) => Some(written),
            (true, Some(size)) => usual_multipliers(size).map(<[f64]>::to_vec),
            (true, None) => None,
        })
    }

    /// Channels of every level, as the settings say them.
    fn channels(&self) -> Result<Option<Vec<usize>>, String> {
        let (Some(multipliers), Some(width)) = (self.multipliers()?, self.num_channels) else { return Ok(None) };
        let channels = |multiplier: &f64| (multiplier * width as f64) as usize;
        Ok(Some(multipliers.iter().map(channels).collect()))
    }

    /// The published network of these channels and blocks.
    fn published(&self, seen: Option<&Seen>) -> Option<&'static Published> {
        let width = self.num_channels.or(seen.map(|seen| seen.width))?;
        let blocks = self.num_res_blocks.or(seen.map(|seen| seen.blocks))?;
        let channels = self.channels().ok().flatten().or(seen.map(|seen| seen.channels.clone()))?;
        PUBLISHED.iter().find(|published| {
            let of_levels = published.multipliers.iter().map(|multiplier| (multiplier * width as f64) as usize);
            published.width == width && published.blocks == blocks && of_levels.eq(channels.iter().copied())
        })
    }

    fn anatomy(&self, seen: Option<&Seen>, published: Option<&Published>) -> Result<Anatomy, String> {
        let lacks = |field: &str| format!("adm: the configuration has no {field}, and the tensors do not say it");
        let within = |field: &str, got: usize, most: usize| FAMILY.within(field, got, 1..=most);
        let width = self.num_channels.or(seen.map(|seen| seen.width)).ok_or_else(|| lacks("num_channels"))?;
        let width = within("num_channels", width, MOST_CHANNELS)?;
        let channels = self.channels()?.or(seen.map(|seen| seen.channels.clone()));
        let channels = channels.ok_or_else(|| lacks("channel_mult"))?;
        within("number of levels", channels.len(), MOST_LEVELS)?;
        for &channels in &channels {
            within("channels of a level", channels, MOST_CHANNELS)?;
            if !channels.is_multiple_of(GROUPS) {
                return Err(format!("adm: {channels} channels of a level are not a multiple of {GROUPS} groups"));
            }
        }
        let blocks = self.num_res_blocks.or(seen.map(|seen| seen.blocks)).ok_or_else(|| lacks("num_res_blocks"))?;
        let blocks = within("num_res_blocks", blocks, MOST_BLOCKS)?;
        within("blocks of all levels", blocks * channels.len(), MOST_BLOCKS)?;
        let image_channels = self.in_channels.or(seen.map(|seen| seen.image_channels)).unwrap_or(3);
        let image_channels = within("in_channels", image_channels, MOST_CHANNELS)?;
        let outputs = match (self.learn_sigma, seen) {
            (Some(learned), _) => image_channels * if learned { 2 } else { 1 },
            (None, Some(seen)) => seen.outputs,
            (None, None) => return Err(lacks("learn_sigma")),
        };
        if outputs != image_channels && outputs != 2 * image_channels {
            let expected = format!("{image_channels}, or {} with a learned variance", 2 * image_channels);
            return Err(format!("adm with {outputs} outputs, expected {expected}"));
        }
        let classes = match (self.class_cond, seen) {
            (Some(true), seen) => {
                let classes = self.num_classes.or(seen.and_then(|seen| seen.classes)).unwrap_or(1000);
                Some(within("num_classes", classes, MOST_CLASSES)?)
            }
            (Some(false), _) | (None, None) => None,
            (None, Some(seen)) => seen.classes,
        };
        let change = match (self.resblock_updown, self.conv_resample, seen) {
            (Some(true), _, _) => Change::Residual,
            (Some(false), Some(false), _) => Change::Plain,
            (Some(false), _, _) => Change::Convolution,
            (None, _, Some(seen)) => seen.change,
            (None, _, None) => return Err(lacks("resblock_updown")),
        };
        let modulated = self.use_scale_shift_norm.or(seen.map(|seen| seen.modulated));
        Ok(Anatomy {
            image_channels,
            outputs,
            width,
            attention: self.attention(channels.len(), seen)?,
            channels,
            blocks,
            heads: self.heads(published)?,
            new_order: self.use_new_attention_order.unwrap_or(published.is_some_and(|published| published.new_order)),
            modulated: modulated.ok_or_else(|| lacks("use_scale_shift_norm"))?,
            change,
            classes,
        })
    }

    /// Which levels have attentions.
    fn attention(&self, levels: usize, seen: Option<&Seen>) -> Result<Vec<bool>, String> {
        let Some(value) = &self.attention_resolutions else {
            let of_tensors = seen.filter(|seen| seen.attention.len() == levels).map(|seen| seen.attention.clone());
            let reason = "adm: the configuration has no attention_resolutions, and the tensors do not say it";
            return of_tensors.ok_or_else(|| reason.into());
        };
        let sides = numbers(value).ok_or_else(|| {
            format!("adm with attention_resolutions = {value}, expected sides of images such as \"32,16,8\"")
        })?;
        let Some(size) = self.image_size else {
            return Err("adm with attention_resolutions needs image_size, which they refer to".into());
        };
        let has = |level: usize| sides.iter().any(|&side| side >= 1.0 && size / side as usize == 1 << level);
        Ok((0..levels).map(has).collect())
    }

    fn heads(&self, published: Option<&Published>) -> Result<Heads, String> {
        let given = |field: &str, number: Option<i64>| match number {
            None | Some(-1) => Ok(None),
            Some(number) => match usize::try_from(number).ok().filter(|&number| number > 0) {
                Some(number) => Ok(Some(number)),
                None => Err(format!("adm with {field} = {number}, expected a number above 0, or -1 for none")),
            },
        };
        if let Some(width) = given("num_head_channels", self.num_head_channels)? {
            return Ok(Heads::Width(width));
        }
        if let Some(count) = given("num_heads", self.num_heads)? {
            let up = given("num_heads_upsample", self.num_heads_upsample)?.unwrap_or(count);
            return Ok(Heads::Count(count, up));
        }
        let advice = "say it in a configuration: {\"num_head_channels\": 64} or {\"num_heads\": 4}";
        published.map(|published| published.heads).ok_or_else(|| {
            format!("adm: no tensor says how many heads the attentions have, and it is no published network; {advice}")
        })
    }

    fn parameterization(
        &self,
        published: Option<&Published>,
        config: &Value,
    ) -> Result<(Parameterization, (f64, f64)), String> {
        let steps = self.diffusion_steps.unwrap_or(1000);
        if !(2..=MOST_STEPS).contains(&steps) {
            return Err(format!("adm with diffusion_steps = {steps}, expected 2 to {MOST_STEPS}"));
        }
        let usual = if published.is_some_and(|published| published.cosine) { "cosine" } else { "linear" };
        let levels = match self.noise_schedule.as_deref().unwrap_or(usual) {
            // From 20 levels on all β are below 1.
            "linear" if steps > 20 => Discrete::linear(steps),
            "linear" => return Err(format!("adm with diffusion_steps = {steps}, expected more than 20")),
            "cosine" => Discrete::cosine(steps),
            other => return Err(format!("adm with noise_schedule = {other:?}; known: \"linear\" and \"cosine\"")),
        };
        let prediction = if self.predict_xstart { Prediction::Image } else { Prediction::Noise };
        let time_scale = if self.rescale_timesteps { 1000.0 / steps as f64 } else { 1.0 };
        let process = VariancePreserving { time_scale, ..VariancePreserving::new(levels, prediction, time(config)?) };
        let range = process.sigma_range();
        Ok((Parameterization::VariancePreserving(process.into()), range))
    }
}

/// Of every norm.
const GROUPS: usize = 32;
const EPSILON: f64 = 1e-5;

impl Anatomy {
    /// The network, and where its parameters lie.
    fn network(&self) -> Result<(Network, Vec<Origin>), String> {
        let mut draft = Draft::new(self.image_channels);
        let bottom = self.channels.len() - 1;
        let first = affine("input_blocks.0.0", self.image_channels, self.channels[0], 3);
        let mut x = draft.convolution(0, None, first);
        let mut skips = vec![x];
        for (level, &channels) in self.channels.iter().enumerate() {
            for _ in 0..self.blocks {
                let name = format!("input_blocks.{}", skips.len());
                x = self.residual(&mut draft, &format!("{name}.0"), &[x], channels, None);
                if self.attention[level] {
                    x = self.attend(&mut draft, &format!("{name}.1"), x, false)?;
                }
                skips.push(x);
            }
            if level < bottom {
                let name = format!("input_blocks.{}.0", skips.len());
                x = self.resample(&mut draft, &name, x, Filter::Average);
                skips.push(x);
            }
        }
        x = self.residual(&mut draft, "middle_block.0", &[x], self.channels[bottom], None);
        x = self.attend(&mut draft, "middle_block.1", x, false)?;
        x = self.residual(&mut draft, "middle_block.2", &[x], self.channels[bottom], None);
        let mut block = 0;
        for (level, &channels) in self.channels.iter().enumerate().rev() {
            for of_level in 0..=self.blocks {
                let skip = skips.pop().unwrap_or_default();
                let name = format!("output_blocks.{block}");
                x = self.residual(&mut draft, &format!("{name}.0"), &[x, skip], channels, None);
                let mut next = 1;
                if self.attention[level] {
                    x = self.attend(&mut draft, &format!("{name}.1"), x, true)?;
                    next = 2;
                }
                if level > 0 && of_level == self.blocks {
                    x = self.resample(&mut draft, &format!("{name}.{next}"), x, Filter::Nearest);
                }
                block += 1;
            }
        }
        let channels = draft.channels(&[x]);
        let before = norm("out.0", channels, GROUPS, EPSILON);
        draft.convolution(x, Some(before), affine("out.2", channels, self.outputs, 3));

        let embedded = 4 * self.width;
        let features = Features::Positional { channels: self.width, cosine_first: true, frequency_shift: 0.0 };
        let layers =
            vec![dense("time_embed.0", self.width, embedded, false), dense("time_embed.2", embedded, embedded, true)];
        let classes = self.classes.map(|classes| Classes {
            weight: Parameter::new("label_emb.weight", &[classes, embedded]),
            scale: 1.0,
            bias: None,
            after: layers.len(),
            required: true,
        });
        let embedding = Embedding { features, layers, classes };
        Ok((Network { channels: self.image_channels, patch: 1, embedding, steps: draft.steps }, draft.tensors))
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
        let embedding = format!("{name}.emb_layers.1");
        let mut second = norm(&format!("{name}.out_layers.0"), outputs, GROUPS, EPSILON);
        let projection = match self.modulated {
            true => {
                second.modulation = Some(dense(&embedding, 4 * self.width, 2 * outputs, true));
                None
            }
            false => Some(dense(&embedding, 4 * self.width, outputs, true)),
        };
        let shortcut = (channels != outputs).then(|| affine(&format!("{name}.skip_connection"), channels, outputs, 1));
        draft.residual(Residual {
            inputs,
            norms: [norm(&format!("{name}.in_layers.0"), channels, GROUPS, EPSILON), second],
            convolutions: [
                affine(&format!("{name}.in_layers.2"), channels, outputs, 3),
                affine(&format!("{name}.out_layers.3"), outputs, outputs, 3),
            ],
            embedding: projection,
            shortcut,
            filter,
            scale: 1.0,
        })
    }

    /// Twice the resolution for `Nearest`, half of it for `Average`.
    fn resample(&self, draft: &mut Draft, name: &str, x: usize, filter: Filter) -> usize {
        let channels = draft.channels(&[x]);
        let (place, resample) = match filter {
            Filter::Average => ("op", Resample::Down { before: 1 }),
            _ => ("conv", Resample::Up),
        };
        match self.change {
            Change::Residual => self.residual(draft, name, &[x], channels, Some(filter)),
            Change::Convolution => {
                let map = affine(&format!("{name}.{place}"), channels, channels, 3);
                draft.sum(sum(vec![Source { resample, ..source(&[x], map) }], channels))
            }
            Change::Plain => draft.resize(x, None, filter),
        }
    }

    fn attend(&self, draft: &mut Draft, name: &str, x: usize, up: bool) -> Result<usize, String> {
        let channels = draft.channels(&[x]);
        let heads = match self.heads {
            Heads::Width(width) => channels / width * usize::from(channels.is_multiple_of(width)),
            Heads::Count(count, _) if !up => count,
            Heads::Count(_, count) => count,
        };
        if heads == 0 || !channels.is_multiple_of(heads) {
            return Err(format!("adm: {channels} channels at {name} cannot be divided into heads as {:?}", self.heads));
        }
        let width = channels / heads;
        let matrix = |weight: String, bias: String| Affine {
            weight: Parameter::new(weight, &[channels, channels]),
            bias: Parameter::new(bias, &[channels]),
        };
        let [query, key, value] = [(0, "q"), (1, "k"), (2, "v")].map(|(index, part)| {
            // The old order has the three of a head side by side, the new one the heads of each of the three.
            let first = |head: usize| match self.new_order {
                true => index * channels + head * width,
                false => (3 * head + index) * width,
            };
            let rows: Arc<[usize]> = (0..heads).flat_map(|head| first(head)..first(head) + width).collect();
            let [weight, bias] = ["weight", "bias"].map(|what| format!("{name}.qkv.{part}.{what}"));
            for (parameter, tensor, shape) in [
                (&weight, format!("{name}.qkv.weight"), vec![3 * channels, channels, 1]),
                (&bias, format!("{name}.qkv.bias"), vec![3 * channels]),
            ] {
                let (parameter, pick) = (parameter.clone(), Pick::Rows(Arc::clone(&rows)));
                draft.tensors.push(Origin { parameter, tensor, shape, pick });
            }
            matrix(weight, bias)
        });
        let out = format!("{name}.proj_out.weight");
        draft.tensors.push(Origin {
            parameter: out.clone(),
            tensor: out.clone(),
            shape: vec![channels, channels, 1],
            pick: Pick::Whole,
        });
        let out = matrix(out, format!("{name}.proj_out.bias"));
        let before = norm(&format!("{name}.norm"), channels, GROUPS, EPSILON);
        Ok(draft.attention(x, &before, [query, key, value, out], heads, 1.0))
    }
}
