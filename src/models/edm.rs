//! The networks of EDM, `SongUNet` (DDPM++, NCSN++) and `DhariwalUNet` (ADM), in each of their preconditionings.
//!
//! The configuration is that of the pickled network: its class and the arguments it was made with. What re-exports of the
//! weights alone leave out of it is read off the tensors. Keys may begin with `model.`, as those of the preconditioned
//! network do, or not, as those of the network inside it.
//!
//! Karras et al. (2022), <https://arxiv.org/abs/2206.00364>; <https://github.com/NVlabs/edm>

use super::bounds::{Extent, MOST_STEPS};
use super::draft::{Affine, Draft, Residual, affine, dense, groups_of_four, norm, sum};
use super::{Family, Origin, Pick, Recipe, TensorIndex};
use crate::priors::{
    LinearProcess, NoiseCoordinate, Parameterization, Prediction, Time, VarianceExploding, VariancePreserving,
};
use crate::schedules::Discrete;
use serde::Deserialize;
use serde_json::Value;
use std::f64::consts::FRAC_1_SQRT_2;
use tweedie_kernels::network::{Classes, Embedding, Features, Filter, Network, Norm, Parameter, Source, Sum};

/// Class and arguments of a preconditioned network.
#[derive(Clone, Debug, Deserialize)]
pub struct EdmConfig {
    /// `…EDMPrecond`, `…VPPrecond`, `…VEPrecond` or `…iDDPMPrecond`; what stands before the last full stop is ignored.
    pub class_name: String,
    /// What it was made with.
    pub init_kwargs: Arguments,
}

/// `init_kwargs`; absent fields have the defaults of the class.
#[derive(Clone, Debug, Deserialize)]
pub struct Arguments {
    /// Side of the images.
    pub img_resolution: usize,
    /// Channels of the images.
    pub img_channels: usize,
    /// Number of classes; 0 if it knows none.
    #[serde(default)]
    pub label_dim: usize,
    /// How often no class was told in training.
    #[serde(default)]
    pub label_dropout: f64,
    /// `SongUNet` or `DhariwalUNet`; that of the preconditioning if absent.
    pub model_type: Option<String>,
    /// Channels of the first level.
    pub model_channels: Option<usize>,
    /// What they are multiplied by in each level.
    pub channel_mult: Option<Vec<usize>>,
    /// What they are multiplied by in the embedding.
    pub channel_mult_emb: Option<usize>,
    /// Residual blocks of a level on the way down; one more on the way up.
    pub num_blocks: Option<usize>,
    /// Sides of the images that are attended to.
    pub attn_resolutions: Option<Vec<usize>>,
    /// `positional` or `fourier`.
    pub embedding_type: Option<String>,
    /// What the channels of the first level are multiplied by in the features of the noise.
    pub channel_mult_noise: Option<usize>,
    /// `standard` or `residual`.
    pub encoder_type: Option<String>,
    /// `standard`.
    pub decoder_type: Option<String>,
    /// Taps of the filter between resolutions.
    pub resample_filter: Option<Vec<f64>>,
    /// Of the data, for EDM's preconditioning.
    pub sigma_data: Option<f64>,
    /// β₁ − β₀ of the variance preserving process.
    pub beta_d: Option<f64>,
    /// β₀ of the variance preserving process.
    pub beta_min: Option<f64>,
    /// Number of steps of the variance preserving processes.
    #[serde(rename = "M")]
    pub steps: Option<usize>,
    /// Bound of the ratio of signals between two of iDDPM's levels.
    #[serde(rename = "C_1")]
    pub c_1: Option<f64>,
    /// Offset of iDDPM's cosine schedule.
    #[serde(rename = "C_2")]
    pub c_2: Option<f64>,
    /// The smallest time of the variance preserving process.
    pub epsilon_t: Option<f64>,
    /// The smallest noise level that is defined.
    pub sigma_min: Option<f64>,
    /// The largest noise level that is defined.
    pub sigma_max: Option<f64>,
}

/// The networks of EDM.
pub(super) const FAMILY: Family = Family {
    name: "edm",
    about: "EDM's SongUNet and DhariwalUNet, also in the preconditionings of VP, VE and iDDPM: NVlabs/edm",
    recipe,
    recognise,
};

fn recipe(config: &Value, tensors: &TensorIndex) -> Result<Recipe, String> {
    let prefix = if tensors.is_empty() || tensors.contains_key("model.map_layer0.weight") { "model." } else { "" };
    let config = match config.get("init_kwargs") {
        Some(_) => EdmConfig::deserialize(config).map_err(|error| format!("config: {error}"))?,
        None => EdmConfig::of(tensors, prefix)?,
    };
    let mut recipe = config.recipe(prefix)?;
    // Of every filter the file may hold the taps, of augmentation a map that is not used when sampling.
    let harmless = |name: &&String| name.ends_with(".resample_filter") || name.ends_with("map_augment.weight");
    recipe.ignored = tensors.keys().filter(harmless).cloned().collect();
    Ok(recipe)
}

fn recognise(tensors: &TensorIndex) -> bool {
    ["model.", ""].iter().any(|prefix| {
        let first = format!("{prefix}enc.");
        tensors.contains_key(&format!("{prefix}map_layer0.weight"))
            && tensors.keys().any(|name| name.starts_with(&first) && name.ends_with("_conv.weight"))
    })
}

/// Noise levels that EDM samples between, which its preconditioning does not limit.
const USUAL_RANGE: (f64, f64) = (0.002, 80.0);

impl EdmConfig {
    /// What the shapes of the tensors say of a network in EDM's preconditioning.
    ///
    /// # Errors
    /// A sentence if they are not those of such a network.
    pub fn of(tensors: &TensorIndex, prefix: &str) -> Result<Self, String> {
        let shape = |name: &str| tensors.get(&format!("{prefix}{name}")).map(|(_, shape)| shape.as_slice());
        let encoder = format!("{prefix}enc.");
        // `32x32_block0.norm0.weight` of `enc.32x32_block0.norm0.weight`.
        let parts = || tensors.keys().filter_map(|name| name.strip_prefix(&encoder));
        let side = |part: &str| part.split_once('x').and_then(|(side, _)| side.parse::<usize>().ok());
        let first = parts().find(|part| part.ends_with("_conv.weight"));
        let incomplete = || "has no configuration and lacks the first convolution, which says its size".to_owned();
        let img_resolution = first.and_then(side).ok_or_else(incomplete)?;
        let name = format!("enc.{img_resolution}x{img_resolution}_conv.weight");
        let &[model_channels, img_channels, ..] = shape(&name).ok_or_else(incomplete)? else {
            return Err(incomplete());
        };
        if model_channels == 0 {
            return Err(incomplete());
        }
        let mut sides: Vec<usize> = parts().filter_map(side).collect();
        sides.sort_unstable_by(|a, b| b.cmp(a));
        sides.dedup();
        let block = |side: usize, index: usize, part: &str| {
            shape(&format!("enc.{side}x{side}_block{index}.{part}")).map(<[usize]>::to_vec)
        };
        let multiplier = |&side: &usize| {
            let outputs = block(side, 0, "conv1.weight").and_then(|shape| shape.first().copied());
            outputs.map(|outputs| outputs / model_channels)
        };
        let channel_mult: Option<Vec<usize>> = sides.iter().map(multiplier).collect();
        let num_blocks = (0..).take_while(|&index| block(img_resolution, index, "conv0.weight").is_some()).count();
        let attended = |&side: &usize| block(side, 0, "qkv.weight").is_some();
        let dhariwal = shape("out_conv.weight").is_some();
        let fourier = shape("map_noise.freqs").is_some();
        let residual = parts().any(|part| part.contains("_aux_residual."));
        let features = shape("map_layer0.weight").and_then(|shape| shape.get(1).copied()).unwrap_or_default();
        let embedded = shape("map_layer0.weight").and_then(|shape| shape.first().copied()).unwrap_or_default();
        let taps = tensors.iter().find(|(name, _)| name.ends_with(".resample_filter"));
        let resample_filter = match taps.and_then(|(_, (_, shape))| shape.last().copied()) {
            Some(4) => vec![1.0, 3.0, 3.0, 1.0],
            Some(2) => vec![1.0, 1.0],
            Some(count) => return Err(format!("has no configuration and a filter of {count} taps; known: 2, 4")),
            None if fourier => vec![1.0, 3.0, 3.0, 1.0],
            None => vec![1.0, 1.0],
        };
        let text = |truth: bool, yes: &str, no: &str| Some(if truth { yes } else { no }.to_owned());
        Ok(Self {
            class_name: "EDMPrecond".into(),
            init_kwargs: Arguments {
                img_resolution,
                img_channels,
                label_dim: shape("map_label.weight").and_then(|shape| shape.get(1).copied()).unwrap_or_default(),
                label_dropout: 0.0,
                model_type: text(dhariwal, "DhariwalUNet", "SongUNet"),
                model_channels: Some(model_channels),
                channel_mult,
                channel_mult_emb: Some(embedded / model_channels),
                num_blocks: Some(num_blocks),
                attn_resolutions: Some(sides.iter().copied().filter(|side| attended(side)).collect()),
                embedding_type: text(fourier, "fourier", "positional"),
                channel_mult_noise: Some(features / model_channels),
                encoder_type: text(residual, "residual", "standard"),
                decoder_type: Some("standard".into()),
                resample_filter: Some(resample_filter),
                sigma_data: None,
                beta_d: None,
                beta_min: None,
                steps: None,
                c_1: None,
                c_2: None,
                epsilon_t: None,
                sigma_min: None,
                sigma_max: None,
            },
        })
    }

    /// The network and how it was trained; the names of its tensors begin with `prefix`.
    ///
    /// # Errors
    /// A sentence naming the argument that cannot be built, its value, and what can.
    pub fn recipe(&self, prefix: &str) -> Result<Recipe, String> {
        let (parameterization, sigma_range, outputs) = self.parameterization()?;
        let shape = Shape::of(&self.init_kwargs, self.class(), outputs)?;
        let (network, tensors) = shape.network(prefix)?;
        let native_size = Some(shape.arguments.img_resolution);
        Ok(Recipe { tensors, native_size, ..Recipe::new(network, parameterization, sigma_range) })
    }

    fn class(&self) -> &str {
        self.class_name.rsplit('.').next().unwrap_or_default()
    }

    /// How the network was trained, its noise levels, and its outputs for each channel of the image.
    fn parameterization(&self) -> Result<(Parameterization, (f64, f64), usize), String> {
        let arguments = &self.init_kwargs;
        let steps = arguments.steps.unwrap_or(1000);
        if !(2..=MOST_STEPS).contains(&steps) {
            return FAMILY.refuse("M", &steps, &format!("2 to {MOST_STEPS}"));
        }
        match self.class() {
            "EDMPrecond" => {
                let sigma_data = arguments.sigma_data.unwrap_or(0.5);
                let low = arguments.sigma_min.filter(|&sigma| sigma > 0.0).unwrap_or(USUAL_RANGE.0);
                let high = arguments.sigma_max.filter(|sigma| sigma.is_finite()).unwrap_or(USUAL_RANGE.1);
                Ok((Parameterization::Edm { sigma_data }, (low, high), 1))
            }
            "VPPrecond" => {
                let beta_min = arguments.beta_min.unwrap_or(0.1);
                let process = LinearProcess {
                    beta_min,
                    beta_max: beta_min + arguments.beta_d.unwrap_or(19.9),
                    time_scale: (steps - 1) as f64,
                    sub: false,
                };
                let first = arguments.epsilon_t.unwrap_or(1e-5);
                let range = (process.sigma(first), process.sigma(1.0));
                Ok((Parameterization::LinearProcess(process), range, 1))
            }
            "VEPrecond" => {
                let process = VarianceExploding {
                    unit: 0.5,
                    centred: true,
                    coordinate: NoiseCoordinate::Logarithm,
                    divided: false,
                };
                let range = (arguments.sigma_min.unwrap_or(0.02), arguments.sigma_max.unwrap_or(100.0));
                Ok((Parameterization::VarianceExploding(process), range, 1))
            }
            // Its table of noise levels is that of the cosine schedule.
            "iDDPMPrecond" => {
                for (field, got, built) in [("C_1", arguments.c_1, 0.001), ("C_2", arguments.c_2, 0.008)] {
                    if let Some(other) = got.filter(|&got| got != built) {
                        return FAMILY.refuse(field, &other, &built.to_string());
                    }
                }
                let process = VariancePreserving::new(Discrete::cosine(steps), Prediction::Noise, Time::Nearest);
                let range = process.sigma_range();
                Ok((Parameterization::VariancePreserving(process.into()), range, 2))
            }
            other => {
                FAMILY.refuse("class_name", &other, "\"EDMPrecond\", \"VPPrecond\", \"VEPrecond\" and \"iDDPMPrecond\"")
            }
        }
    }
}

/// Arguments with the defaults of their class.
struct Shape<'a> {
    arguments: &'a Arguments,
    /// Whether it is a `DhariwalUNet`, a `SongUNet` otherwise.
    dhariwal: bool,
    channels: usize,
    multipliers: Vec<usize>,
    embedded: usize,
    blocks: usize,
    attended: Vec<usize>,
    /// Channels of the noise's features.
    features: usize,
    taps: Vec<f64>,
    /// For each channel of the image.
    outputs: usize,
}

impl<'a> Shape<'a> {
    fn of(arguments: &'a Arguments, class: &str, outputs: usize) -> Result<Self, String> {
        let usual = if matches!(class, "EDMPrecond" | "iDDPMPrecond") { "DhariwalUNet" } else { "SongUNet" };
        let dhariwal = match arguments.model_type.as_deref().unwrap_or(usual) {
            "DhariwalUNet" => true,
            "SongUNet" => false,
            other => return FAMILY.refuse("model_type", &other, "\"SongUNet\" and \"DhariwalUNet\""),
        };
        let or = |given: &Option<Vec<usize>>, dhariwal_value: &[usize], song_value: &[usize]| {
            given.clone().unwrap_or_else(|| if dhariwal { dhariwal_value } else { song_value }.to_vec())
        };
        let channels = arguments.model_channels.unwrap_or(if dhariwal { 192 } else { 128 });
        let times = |factor: usize| channels.saturating_mul(factor);
        let shape = Self {
            arguments,
            dhariwal,
            channels,
            multipliers: or(&arguments.channel_mult, &[1, 2, 3, 4], &[1, 2, 2, 2]),
            embedded: times(arguments.channel_mult_emb.unwrap_or(4)),
            blocks: arguments.num_blocks.unwrap_or(if dhariwal { 3 } else { 4 }),
            attended: or(&arguments.attn_resolutions, &[32, 16, 8], &[16]),
            features: if dhariwal { channels } else { times(arguments.channel_mult_noise.unwrap_or(1)) },
            taps: match dhariwal {
                true => vec![1.0, 1.0],
                false => arguments.resample_filter.clone().unwrap_or_else(|| vec![1.0, 1.0]),
            },
            outputs: arguments.img_channels.saturating_mul(outputs),
        };
        shape.check()?;
        Ok(shape)
    }

    fn extent(&self) -> Extent<'_> {
        Extent {
            image_channels: self.arguments.img_channels,
            image_size: self.arguments.img_resolution,
            channels: self.channels,
            multipliers: &self.multipliers,
            blocks: self.blocks,
        }
    }

    fn check(&self) -> Result<(), String> {
        self.extent().check(&FAMILY)?;
        let arguments = self.arguments;
        let most = 1 << 16;
        for (field, got) in [("channel_mult_emb", self.embedded), ("channel_mult_noise", self.features)] {
            if !(2..=most).contains(&got) || got % 2 > 0 {
                return FAMILY.refuse(
                    &format!("channels by {field}"),
                    &got,
                    &format!("an even number from 2 to {most}"),
                );
            }
        }
        if arguments.label_dim > most {
            return FAMILY.refuse("label_dim", &arguments.label_dim, &format!("up to {most}"));
        }
        if self.dhariwal {
            return Ok(());
        }
        let of = |field: &str, got: &Option<String>, known: &[&str]| match got {
            Some(got) if !known.contains(&got.as_str()) => {
                FAMILY.refuse(field, got, &known.iter().map(|k| format!("{k:?}")).collect::<Vec<_>>().join(" and "))
            }
            _ => Ok(()),
        };
        of("embedding_type", &arguments.embedding_type, &["positional", "fourier"])?;
        of("encoder_type", &arguments.encoder_type, &["standard", "residual"])?;
        of("decoder_type", &arguments.decoder_type, &["standard"])?;
        match self.taps.len().is_multiple_of(2) && (2..=16).contains(&self.taps.len()) {
            true => Ok(()),
            false => FAMILY.refuse("resample_filter", &self.taps, "an even number of taps up to 16"),
        }
    }

    /// The network, and where those of its parameters lie that do not lie under their name.
    fn network(&self, prefix: &str) -> Result<(Network, Vec<Origin>), String> {
        let arguments = self.arguments;
        let extent = self.extent();
        let mut build = Build { shape: self, prefix, draft: Draft::new(arguments.img_channels) };
        let attended = |level: usize| self.attended.contains(&extent.side(level));
        let name = |level: usize, part: &str| format!("{0}x{0}_{part}", extent.side(level));
        let residual = !self.dhariwal && arguments.encoder_type.as_deref() == Some("residual");

        let map = affine(&format!("{prefix}enc.{}", name(0, "conv")), arguments.img_channels, self.channels, 3);
        let mut x = build.draft.convolution(0, None, map);
        let mut skips = vec![x];
        let mut input = 0;
        for (level, multiplier) in self.multipliers.iter().enumerate() {
            if level > 0 {
                let channels = build.draft.channels(&[x]);
                x = build.block(&format!("enc.{}", name(level, "down")), &[x], channels, Some(false), false);
                if residual {
                    input = build.input_residual(&format!("enc.{}", name(level, "aux_residual")), input, x);
                    x = input;
                }
                skips.push(x);
            }
            for index in 0..self.blocks {
                let block = format!("enc.{}", name(level, &format!("block{index}")));
                x = build.block(&block, &[x], self.channels * multiplier, None, attended(level));
                skips.push(x);
            }
        }
        for (level, multiplier) in self.multipliers.iter().enumerate().rev() {
            let channels = build.draft.channels(&[x]);
            if level + 1 == self.multipliers.len() {
                x = build.block(&format!("dec.{}", name(level, "in0")), &[x], channels, None, true);
                x = build.block(&format!("dec.{}", name(level, "in1")), &[x], channels, None, false);
            } else {
                x = build.block(&format!("dec.{}", name(level, "up")), &[x], channels, Some(true), false);
            }
            for index in 0..=self.blocks {
                let skip = skips.pop().unwrap_or_default();
                let block = format!("dec.{}", name(level, &format!("block{index}")));
                let attended = attended(level) && (self.dhariwal || index == self.blocks);
                x = build.block(&block, &[x, skip], self.channels * multiplier, None, attended);
            }
        }
        let (norm_name, conv_name) = match self.dhariwal {
            true => ("out_norm".into(), "out_conv".into()),
            false => (format!("dec.{}", name(0, "aux_norm")), format!("dec.{}", name(0, "aux_conv"))),
        };
        let channels = build.draft.channels(&[x]);
        let norm = build.norm(&norm_name, channels);
        build.draft.convolution(x, Some(norm), affine(&format!("{prefix}{conv_name}"), channels, self.outputs, 3));
        let embedding = build.embedding();
        Ok((
            Network { channels: arguments.img_channels, patch: 1, embedding, steps: build.draft.steps },
            build.draft.tensors,
        ))
    }
}

struct Build<'a> {
    shape: &'a Shape<'a>,
    prefix: &'a str,
    draft: Draft,
}

impl Build<'_> {
    fn embedding(&mut self) -> Embedding {
        let (shape, prefix) = (self.shape, self.prefix);
        let features = match shape.arguments.embedding_type.as_deref() {
            Some("fourier") if !shape.dhariwal => Features::Fourier {
                frequencies: Parameter::new(format!("{prefix}map_noise.freqs"), &[shape.features / 2]),
                cosine_first: false,
            },
            _ => Features::Positional {
                channels: shape.features,
                cosine_first: shape.dhariwal,
                frequency_shift: if shape.dhariwal { 0.0 } else { 1.0 },
            },
        };
        let layers = vec![
            dense(&format!("{prefix}map_layer0"), shape.features, shape.embedded, false),
            dense(&format!("{prefix}map_layer1"), shape.embedded, shape.embedded, true),
        ];
        Embedding { features, layers, classes: self.classes() }
    }

    /// A `DhariwalUNet` adds a column of a matrix to its embedding, a `SongUNet` to the features of the noise: √n times that
    /// of one of n classes, and a bias, which is there without a class as well.
    fn classes(&mut self) -> Option<Classes> {
        let Shape { embedded, features, dhariwal, arguments, .. } = *self.shape;
        let count = arguments.label_dim;
        if count == 0 {
            return None;
        }
        let channels = if dhariwal { embedded } else { features };
        let weight = Parameter::new(format!("{}map_label.weight", self.prefix), &[count, channels]);
        self.draft.tensors.push(Origin {
            parameter: weight.name.clone(),
            tensor: weight.name.clone(),
            shape: vec![channels, count],
            pick: Pick::Transposed,
        });
        Some(Classes {
            weight,
            scale: if dhariwal { 1.0 } else { (count as f64).sqrt() },
            bias: (!dhariwal).then(|| Parameter::new(format!("{}map_label.bias", self.prefix), &[channels])),
            after: if dhariwal { 2 } else { 0 },
            required: arguments.label_dropout == 0.0,
        })
    }

    /// ε is 1e-6 in `SongUNet` and 1e-5 in `DhariwalUNet`.
    fn norm(&self, name: &str, channels: usize) -> Norm {
        let epsilon = if self.shape.dhariwal { 1e-5 } else { 1e-6 };
        norm(&format!("{}{name}", self.prefix), channels, groups_of_four(channels), epsilon)
    }

    /// What a sum of two is multiplied by.
    fn scale(&self) -> f64 {
        if self.shape.dhariwal { 1.0 } else { FRAC_1_SQRT_2 }
    }

    fn filter(&self, up: bool) -> Filter {
        let taps = &self.shape.taps;
        match (up, taps[..] == [1.0, 1.0]) {
            (true, true) => Filter::Nearest,
            (false, true) => Filter::Average,
            (true, false) => Filter::FirUp(taps.clone()),
            (false, false) => Filter::FirDown(taps.clone()),
        }
    }

    /// A residual block, then attention; `up` says in which direction the resolution changes.
    fn block(&mut self, name: &str, inputs: &[usize], outputs: usize, up: Option<bool>, attended: bool) -> usize {
        let Shape { dhariwal, embedded, .. } = *self.shape;
        let full = format!("{}{name}", self.prefix);
        let channels = self.draft.channels(inputs);
        let projected = channels != outputs || up.is_some() && !dhariwal;
        let mut second = self.norm(&format!("{name}.norm1"), outputs);
        let projection = |outputs| dense(&format!("{full}.affine"), embedded, outputs, true);
        if dhariwal {
            second.modulation = Some(projection(2 * outputs));
        }
        let block = Residual {
            inputs,
            norms: [self.norm(&format!("{name}.norm0"), channels), second],
            convolutions: [
                affine(&format!("{full}.conv0"), channels, outputs, 3),
                affine(&format!("{full}.conv1"), outputs, outputs, 3),
            ],
            embedding: (!dhariwal).then(|| projection(outputs)),
            shortcut: projected.then(|| affine(&format!("{full}.skip"), channels, outputs, 1)),
            filter: up.map(|up| self.filter(up)),
            scale: self.scale(),
        };
        let x = self.draft.residual(block);
        if attended { self.attention(name, x) } else { x }
    }

    /// The rows of `qkv` are those of the query, the key and the value by turns.
    fn attention(&mut self, name: &str, x: usize) -> usize {
        let full = format!("{}{name}", self.prefix);
        let channels = self.draft.channels(&[x]);
        let heads = if self.shape.dhariwal { (channels / 64).max(1) } else { 1 };
        let [query, key, value] = [("query", 0), ("key", 1), ("value", 2)].map(|(part, first)| {
            let mut picked = |tensor: &str, shape: &[usize], whole: Vec<usize>| {
                let parameter = Parameter::new(format!("{full}.qkv.{part}.{tensor}"), shape);
                self.draft.tensors.push(Origin {
                    parameter: parameter.name.clone(),
                    tensor: format!("{full}.qkv.{tensor}"),
                    shape: whole,
                    pick: Pick::Rows((0..channels).map(|row| 3 * row + first).collect()),
                });
                parameter
            };
            Affine {
                weight: picked("weight", &[channels, channels], vec![3 * channels, channels, 1, 1]),
                bias: picked("bias", &[channels], vec![3 * channels]),
            }
        });
        let out = affine(&format!("{full}.proj"), channels, channels, 1);
        let norm = self.norm(&format!("{name}.norm2"), channels);
        let scale = self.scale();
        self.draft.attention(x, &norm, [query, key, value, out], heads, scale)
    }

    /// `x` plus a strided convolution of what stands for the input.
    fn input_residual(&mut self, name: &str, input: usize, x: usize) -> usize {
        let channels = self.draft.channels(&[x]);
        let map = affine(&format!("{}{name}", self.prefix), self.draft.channels(&[input]), channels, 3);
        let source: Source = self.draft.filtered_down(input, &self.shape.taps, map);
        let scale = self.scale();
        self.draft.sum(Sum { residual: Some(x), scale, ..sum(vec![source], channels) })
    }
}
