//! The networks of score_sde, `ncsnpp` (NCSN++, DDPM++) and `ddpm`.
//!
//! A checkpoint numbers its modules in the order of construction, so that only the configuration says what
//! `all_modules.7` is: they are walked here in that order. Taken are the names of the network's own state, without the
//! `module.` of a checkpoint. What no published checkpoint uses is refused by name.
//!
//! Song et al. (2021), <https://arxiv.org/abs/2011.13456>; <https://github.com/yang-song/score_sde_pytorch>

use super::bounds::{Extent, MOST_STEPS};
use super::draft::{Affine, Draft, Residual, affine, dense, groups_of_four, norm, source, sum};
use super::{Family, Origin, Pick, Recipe, TensorIndex};
use crate::priors::{
    LinearProcess, NoiseCoordinate, Parameterization, Prediction, Time, VarianceExploding, VariancePreserving,
};
use crate::schedules::Discrete;
use serde::Deserialize;
use serde_json::Value;
use std::f64::consts::FRAC_1_SQRT_2;
use tweedie_kernels::network::{Embedding, Features, Filter, Network, Norm, Parameter, Resample, Source, Sum};

/// A configuration of `ml_collections`, as far as it says what the network is and how it was trained.
#[derive(Clone, Debug, Deserialize)]
pub struct ScoreSdeConfig {
    /// The images.
    pub data: Data,
    /// The network.
    pub model: Architecture,
    /// The process.
    pub training: Training,
}

/// `config.data`.
#[derive(Clone, Debug, Deserialize)]
pub struct Data {
    /// Side of the images; says at which levels there is attention.
    pub image_size: usize,
    /// Channels of the images.
    pub num_channels: usize,
    /// Whether the images are in [-1, 1]; in [0, 1] otherwise, and the network maps them to [-1, 1].
    #[serde(default)]
    pub centered: bool,
}

/// `config.training`.
#[derive(Clone, Debug, Deserialize)]
pub struct Training {
    /// `vesde`, `vpsde` or `subvpsde`.
    pub sde: String,
    /// Whether any time was trained, or whole numbers only.
    pub continuous: bool,
}

/// `config.model`; absent fields are those that a network of the class `ddpm` does not have.
#[derive(Clone, Debug, Deserialize)]
pub struct Architecture {
    /// `ncsnpp` or `ddpm`.
    pub name: String,
    /// Channels of the first level.
    pub nf: usize,
    /// What they are multiplied by in each level.
    pub ch_mult: Vec<usize>,
    /// Residual blocks of a level on the way down; one more on the way up.
    pub num_res_blocks: usize,
    /// Sides of the images that are attended to.
    pub attn_resolutions: Vec<usize>,
    /// Whether the network knows the noise level; it has to.
    #[serde(default = "yes")]
    pub conditional: bool,
    /// Whether a change of resolution has a convolution where it can; it has to.
    #[serde(default = "yes")]
    pub resamp_with_conv: bool,
    /// `swish`.
    #[serde(default = "swish")]
    pub nonlinearity: String,
    /// `fourier` or `positional`; always positional in the class `ddpm`.
    #[serde(default = "positional")]
    pub embedding_type: String,
    /// Whether resolutions are changed with a filter.
    #[serde(default)]
    pub fir: bool,
    /// Its taps.
    #[serde(default = "binomial")]
    pub fir_kernel: Vec<f64>,
    /// Whether sums of two are divided by √2.
    #[serde(default)]
    pub skip_rescale: bool,
    /// `biggan` or `ddpm`.
    #[serde(default = "ddpm")]
    pub resblock_type: String,
    /// How the output is put together: `none` or `output_skip`.
    #[serde(default = "none")]
    pub progressive: String,
    /// How the input enters the lower levels: `none`, `input_skip` or `residual`.
    #[serde(default = "none")]
    pub progressive_input: String,
    /// `sum`.
    #[serde(default = "combine_by_sum")]
    pub progressive_combine: String,
    /// Whether the output is divided by σ.
    #[serde(default)]
    pub scale_by_sigma: bool,
    /// Of a variance exploding process, in the unit of the images.
    #[serde(default)]
    pub sigma_min: f64,
    /// Of a variance exploding process, in the unit of the images.
    #[serde(default)]
    pub sigma_max: f64,
    /// Of a variance preserving process.
    #[serde(default = "beta_min")]
    pub beta_min: f64,
    /// Of a variance preserving process.
    #[serde(default = "beta_max")]
    pub beta_max: f64,
    /// Number of noise levels.
    pub num_scales: usize,
}

fn yes() -> bool {
    true
}

fn swish() -> String {
    "swish".into()
}

fn positional() -> String {
    "positional".into()
}

fn binomial() -> Vec<f64> {
    vec![1.0, 3.0, 3.0, 1.0]
}

fn ddpm() -> String {
    "ddpm".into()
}

fn none() -> String {
    "none".into()
}

fn combine_by_sum() -> String {
    "sum".into()
}

fn beta_min() -> f64 {
    0.1
}

fn beta_max() -> f64 {
    20.0
}

/// The networks of score_sde.
pub(super) const FAMILY: Family = Family {
    name: "score_sde",
    about: "score_sde's NCSN++, DDPM++ and DDPM: yang-song/score_sde_pytorch",
    recipe,
    recognise,
};

fn recipe(config: &Value, _: &TensorIndex) -> Result<Recipe, String> {
    ScoreSdeConfig::deserialize(config).map_err(|error| format!("config: {error}"))?.recipe()
}

fn recognise(tensors: &TensorIndex) -> bool {
    let walked = |name: &str| tensors.contains_key(name);
    walked("all_modules.0.weight") && walked("all_modules.1.weight")
        || walked("all_modules.0.W") && walked("all_modules.1.weight")
}

/// Epsilon of every normalisation.
const EPSILON: f64 = 1e-6;

/// The time below which a continuous variance preserving process is not sampled.
const FIRST_TIME: f64 = 1e-3;

impl ScoreSdeConfig {
    /// The network and how it was trained.
    ///
    /// # Errors
    /// A sentence naming the field that cannot be built, its value, and what can.
    pub fn recipe(&self) -> Result<Recipe, String> {
        let (parameterization, sigma_range) = self.parameterization()?;
        let (network, tensors) = self.network()?;
        let ignored = vec!["sigmas".into()];
        let native_size = Some(self.data.image_size);
        Ok(Recipe { tensors, ignored, native_size, ..Recipe::new(network, parameterization, sigma_range) })
    }

    fn extent(&self) -> Extent<'_> {
        Extent {
            image_channels: self.data.num_channels,
            image_size: self.data.image_size,
            channels: self.model.nf,
            multipliers: &self.model.ch_mult,
            blocks: self.model.num_res_blocks,
        }
    }

    fn fourier(&self) -> bool {
        self.model.name == "ncsnpp" && self.model.embedding_type == "fourier"
    }

    fn parameterization(&self) -> Result<(Parameterization, (f64, f64)), String> {
        let Self { data, model, training } = self;
        if !(2..=MOST_STEPS).contains(&model.num_scales) {
            return FAMILY.refuse("num_scales", &model.num_scales, &format!("2 to {MOST_STEPS}"));
        }
        if training.sde == "vesde" {
            let (low, high) = (model.sigma_min, model.sigma_max);
            if !(low > 0.0 && low < high && high.is_finite()) {
                return FAMILY.refuse("sigma_min, sigma_max", &(low, high), "0 < sigma_min < sigma_max");
            }
            if self.fourier() != training.continuous {
                let got = (&model.name, &model.embedding_type, training.continuous);
                let can = "ncsnpp's \"fourier\" with true, \"positional\" with false";
                return FAMILY.refuse("name, embedding_type, training.continuous", &got, can);
            }
            let coordinate = match training.continuous {
                true => NoiseCoordinate::Logarithm,
                false => NoiseCoordinate::Level { largest: high, smallest: low, count: model.num_scales },
            };
            let process = VarianceExploding {
                unit: if data.centered { 1.0 } else { 0.5 },
                centred: true,
                coordinate,
                divided: !model.scale_by_sigma,
            };
            let range = (low / process.unit, high / process.unit);
            return Ok((Parameterization::VarianceExploding(process), range));
        }
        if model.scale_by_sigma {
            return FAMILY.refuse("scale_by_sigma", &true, &format!("false with {}", training.sde));
        }
        if self.fourier() {
            return FAMILY.refuse("embedding_type", &model.embedding_type, "\"positional\" with vpsde and subvpsde");
        }
        if !data.centered {
            return FAMILY.refuse("data.centered", &false, "true with vpsde and subvpsde");
        }
        let (beta_min, beta_max) = (model.beta_min, model.beta_max);
        if !(beta_min > 0.0 && beta_min < beta_max && beta_max.is_finite()) {
            return FAMILY.refuse("beta_min, beta_max", &(beta_min, beta_max), "0 < beta_min < beta_max");
        }
        let sub = match training.sde.as_str() {
            "vpsde" => false,
            "subvpsde" => true,
            other => return FAMILY.refuse("training.sde", &other, "\"vesde\", \"vpsde\" and \"subvpsde\""),
        };
        if training.continuous {
            let process = LinearProcess { beta_min, beta_max, time_scale: 999.0, sub };
            let range = (process.sigma(FIRST_TIME), process.sigma(1.0));
            return Ok((Parameterization::LinearProcess(process), range));
        }
        if sub {
            return FAMILY.refuse("training.continuous", &false, "true with subvpsde");
        }
        let count = model.num_scales;
        let beta = |k: usize| (beta_min + (beta_max - beta_min) * k as f64 / (count - 1) as f64) / count as f64;
        let Some(levels) = Discrete::of_betas((0..count).map(beta).collect()) else {
            return FAMILY.refuse("beta_max", &beta_max, &format!("less than num_scales = {count}"));
        };
        let process = VariancePreserving::new(levels, Prediction::Noise, Time::Interpolated);
        let range = process.sigma_range();
        Ok((Parameterization::VariancePreserving(process.into()), range))
    }

    fn check(&self) -> Result<(), String> {
        let model = &self.model;
        let of = |field: &str, got: &String, known: &[&str]| match known.contains(&got.as_str()) {
            true => Ok(()),
            false => FAMILY.refuse(field, got, &known.iter().map(|k| format!("{k:?}")).collect::<Vec<_>>().join(", ")),
        };
        self.extent().check(&FAMILY)?;
        of("name", &model.name, &["ncsnpp", "ddpm"])?;
        of("nonlinearity", &model.nonlinearity, &["swish"])?;
        if !model.conditional {
            return FAMILY.refuse("conditional", &false, "true");
        }
        if !model.resamp_with_conv {
            return FAMILY.refuse("resamp_with_conv", &false, "true");
        }
        if model.name == "ddpm" {
            return Ok(());
        }
        of("embedding_type", &model.embedding_type, &["fourier", "positional"])?;
        of("resblock_type", &model.resblock_type, &["biggan", "ddpm"])?;
        of("progressive", &model.progressive, &["none", "output_skip"])?;
        of("progressive_input", &model.progressive_input, &["none", "input_skip", "residual"])?;
        of("progressive_combine", &model.progressive_combine, &["sum"])?;
        if model.fir && model.resblock_type != "biggan" {
            return FAMILY.refuse("fir with resblock_type", &model.resblock_type, "\"biggan\"");
        }
        if model.fir && !(model.fir_kernel.len().is_multiple_of(2) && (2..=16).contains(&model.fir_kernel.len())) {
            return FAMILY.refuse("fir_kernel", &model.fir_kernel, "an even number of taps up to 16");
        }
        Ok(())
    }

    /// The network, and where those of its parameters lie that do not lie under their name.
    fn network(&self) -> Result<(Network, Vec<Origin>), String> {
        self.check()?;
        let Self { data, model, .. } = self;
        let extent = self.extent();
        let mut walk = Walk { model, draft: Draft::new(data.num_channels), next: 0, embedded: 4 * model.nf };
        let attended = |level: usize| model.attn_resolutions.contains(&extent.side(level));
        let plain = model.name == "ddpm";

        let features = match self.fourier() {
            true => Features::Fourier {
                frequencies: Parameter::new(format!("{}.W", walk.name()), &[model.nf]),
                cosine_first: false,
            },
            false => Features::Positional { channels: model.nf, cosine_first: false, frequency_shift: 1.0 },
        };
        let embedded = walk.embedded;
        let first = dense(&walk.name(), features.channels(), embedded, false);
        let layers = vec![first, dense(&walk.name(), embedded, embedded, true)];

        let name = walk.name();
        let mut x = walk.draft.convolution(0, None, affine(&name, data.num_channels, model.nf, 3));
        let mut skips = vec![x];
        // The input at the present resolution, or what has been made of it.
        let mut input = 0;
        let last = model.ch_mult.len() - 1;
        for (level, multiplier) in model.ch_mult.iter().enumerate() {
            for _ in 0..model.num_res_blocks {
                x = walk.block(&[x], model.nf * multiplier);
                if attended(level) {
                    x = walk.attention(x);
                }
                skips.push(x);
            }
            if level < last {
                x = walk.down(x);
                match model.progressive_input.as_str() {
                    _ if plain => {}
                    "input_skip" => (input, x) = walk.input_skip(input, x),
                    "residual" => {
                        input = walk.input_residual(input, x);
                        x = input;
                    }
                    _ => {}
                }
                skips.push(x);
            }
        }
        let bottom = walk.draft.channels(&[x]);
        x = walk.block(&[x], bottom);
        x = walk.attention(x);
        x = walk.block(&[x], bottom);
        let output_skip = !plain && model.progressive == "output_skip";
        let mut output = None;
        for (level, multiplier) in model.ch_mult.iter().enumerate().rev() {
            for _ in 0..=model.num_res_blocks {
                let skip = skips.pop().unwrap_or_default();
                x = walk.block(&[x, skip], model.nf * multiplier);
            }
            if attended(level) {
                x = walk.attention(x);
            }
            if output_skip {
                output = Some(walk.output_skip(output, x, data.num_channels));
            }
            if level > 0 {
                x = walk.up(x);
            }
        }
        if !output_skip {
            walk.output(x, data.num_channels, None);
        }
        let embedding = Embedding { features, layers, classes: None };
        Ok((Network { channels: data.num_channels, patch: 1, embedding, steps: walk.draft.steps }, walk.draft.tensors))
    }
}

/// The modules in the order of their numbers.
struct Walk<'a> {
    model: &'a Architecture,
    draft: Draft,
    next: usize,
    embedded: usize,
}

impl Walk<'_> {
    /// What the next module is called.
    fn name(&mut self) -> String {
        self.next += 1;
        format!("all_modules.{}", self.next - 1)
    }

    fn plain(&self) -> bool {
        self.model.name == "ddpm"
    }

    fn biggan(&self) -> bool {
        !self.plain() && self.model.resblock_type == "biggan"
    }

    fn norm(&self, name: &str, channels: usize) -> Norm {
        let groups = if self.plain() { 32 } else { groups_of_four(channels) };
        norm(name, channels, groups, EPSILON)
    }

    /// What a sum of two is multiplied by.
    fn scale(&self) -> f64 {
        if self.model.skip_rescale && !self.plain() { FRAC_1_SQRT_2 } else { 1.0 }
    }

    fn filter(&self, up: bool) -> Filter {
        match (up, self.model.fir) {
            (true, true) => Filter::FirUp(self.model.fir_kernel.clone()),
            (true, false) => Filter::Nearest,
            (false, true) => Filter::FirDown(self.model.fir_kernel.clone()),
            (false, false) => Filter::Average,
        }
    }

    /// A matrix that the checkpoint has as `[in, out]`.
    fn matrix(&mut self, name: &str, inputs: usize, outputs: usize) -> Affine {
        let weight = Parameter::new(format!("{name}.W"), &[outputs, inputs]);
        self.draft.tensors.push(Origin {
            parameter: weight.name.clone(),
            tensor: weight.name.clone(),
            shape: vec![inputs, outputs],
            pick: Pick::Transposed,
        });
        Affine { weight, bias: Parameter::new(format!("{name}.b"), &[outputs]) }
    }

    fn block(&mut self, inputs: &[usize], outputs: usize) -> usize {
        self.resampled_block(inputs, outputs, None)
    }

    fn resampled_block(&mut self, inputs: &[usize], outputs: usize, filter: Option<Filter>) -> usize {
        let name = self.name();
        let channels = self.draft.channels(inputs);
        let shortcut = match channels != outputs || filter.is_some() {
            false => None,
            true if self.biggan() => Some(affine(&format!("{name}.Conv_2"), channels, outputs, 1)),
            true => Some(self.matrix(&format!("{name}.NIN_0"), channels, outputs)),
        };
        let norms = [("GroupNorm_0", channels), ("GroupNorm_1", outputs)];
        let convolutions = [("Conv_0", channels), ("Conv_1", outputs)];
        let block = Residual {
            inputs,
            norms: norms.map(|(part, channels)| self.norm(&format!("{name}.{part}"), channels)),
            convolutions: convolutions.map(|(part, channels)| affine(&format!("{name}.{part}"), channels, outputs, 3)),
            embedding: Some(dense(&format!("{name}.Dense_0"), self.embedded, outputs, true)),
            shortcut,
            filter,
            scale: self.scale(),
        };
        self.draft.residual(block)
    }

    fn attention(&mut self, x: usize) -> usize {
        let name = self.name();
        let channels = self.draft.channels(&[x]);
        let maps = [0, 1, 2, 3].map(|k| self.matrix(&format!("{name}.NIN_{k}"), channels, channels));
        let norm = self.norm(&format!("{name}.GroupNorm_0"), channels);
        let scale = self.scale();
        self.draft.attention(x, &norm, maps, 1, scale)
    }

    /// A convolution `name.Conv_0` with stride 2.
    fn strided(&mut self, name: &str, x: usize, outputs: usize) -> Source {
        let map = affine(&format!("{name}.Conv_0"), self.draft.channels(&[x]), outputs, 3);
        Source { resample: Resample::Down { before: 0 }, ..source(&[x], map) }
    }

    fn down(&mut self, x: usize) -> usize {
        let channels = self.draft.channels(&[x]);
        if self.biggan() {
            return self.resampled_block(&[x], channels, Some(self.filter(false)));
        }
        let name = self.name();
        let source = self.strided(&name, x, channels);
        self.draft.sum(sum(vec![source], channels))
    }

    fn up(&mut self, x: usize) -> usize {
        let channels = self.draft.channels(&[x]);
        if self.biggan() {
            return self.resampled_block(&[x], channels, Some(self.filter(true)));
        }
        let map = affine(&format!("{}.Conv_0", self.name()), channels, channels, 3);
        self.draft.sum(sum(vec![Source { resample: Resample::Up, ..source(&[x], map) }], channels))
    }

    /// The input at the next resolution, and `x` plus a convolution of 1 × 1 of it.
    fn input_skip(&mut self, input: usize, x: usize) -> (usize, usize) {
        let name = self.name();
        let filter = self.filter(false);
        let input = self.draft.resize(input, None, filter);
        let (from, channels) = (self.draft.channels(&[input]), self.draft.channels(&[x]));
        let map = affine(&format!("{name}.Conv_0"), from, channels, 1);
        (input, self.draft.sum(Sum { residual: Some(x), ..sum(vec![source(&[input], map)], channels) }))
    }

    /// `x` plus a strided convolution of what stands for the input.
    fn input_residual(&mut self, input: usize, x: usize) -> usize {
        let name = self.name();
        let channels = self.draft.channels(&[x]);
        let source = match self.model.fir {
            true => {
                let map = affine(&format!("{name}.Conv2d_0"), self.draft.channels(&[input]), channels, 3);
                self.draft.filtered_down(input, &self.model.fir_kernel, map)
            }
            false => self.strided(&name, input, channels),
        };
        let scale = self.scale();
        self.draft.sum(Sum { residual: Some(x), scale, ..sum(vec![source], channels) })
    }

    /// The output so far at the next resolution, plus what this level adds to it.
    fn output_skip(&mut self, output: Option<usize>, x: usize, channels: usize) -> usize {
        let filter = self.filter(true);
        let residual = output.map(|output| self.draft.resize(output, None, filter));
        self.output(x, channels, residual)
    }

    /// A norm and a convolution, each with a number of its own.
    fn output(&mut self, x: usize, channels: usize, residual: Option<usize>) -> usize {
        let (norm_name, name) = (self.name(), self.name());
        let from = self.draft.channels(&[x]);
        let norm = Some(self.norm(&norm_name, from));
        let source = Source { norm, silu: true, ..source(&[x], affine(&name, from, channels, 3)) };
        self.draft.sum(Sum { residual, ..sum(vec![source], channels) })
    }
}
