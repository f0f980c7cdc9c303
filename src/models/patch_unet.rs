//! A U-Net of patches of pixels, the architecture of tweedie's own priors.
//!
//! Squares of pixels are the channels of its first value, so that no convolution runs at full resolution, where maps of few
//! channels cost memory traffic and little arithmetic: the idea of FFDNet (Zhang et al., 2018,
//! <https://arxiv.org/abs/1710.04026>). Skips are added, not concatenated, as in DRUNet (Zhang et al., 2021,
//! <https://arxiv.org/abs/2008.13751>), and a level is normalised only where the configuration says so.

use super::bounds::{MOST_BLOCKS, MOST_CHANNELS, MOST_LEVELS};
use super::draft::{Draft, affine, dense, embedding, norm, source, sum};
use super::preconditioning::Preconditioning;
use super::{Architecture, Family, Recipe, TensorIndex};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tweedie_kernels::network::{Network, Norm, Resample, Source, Sum};

/// What such a network is made of.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PatchUNetConfig {
    /// Channels of the images; default 3.
    #[serde(default = "three")]
    pub channels: usize,
    /// Side of the squares of pixels that the first value has as channels; default 2.
    #[serde(default = "two")]
    pub patch: usize,
    /// Channels of each level, the highest resolution first.
    pub levels: Vec<usize>,
    /// Residual blocks of each level on the way down, and as many on the way up; the last level has them once.
    pub blocks: Vec<usize>,
    /// Groups of every normalisation of a level, 0 for none; by default none at all.
    #[serde(default)]
    pub groups: Vec<usize>,
    /// Numbers of the embedding of the noise level; default 128.
    #[serde(default = "embedded")]
    pub embedding: usize,
    /// Side of the patches that it was trained on, for whoever asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_size: Option<usize>,
    /// Whether the sum of its outputs is an energy, and it is read as minus the gradient; default false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub energy: bool,
    /// How its output becomes a denoiser, JSON of a native file; default EDM's with σ_data = 0.5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameterization: Option<Value>,
}

fn two() -> usize {
    2
}

fn three() -> usize {
    3
}

fn embedded() -> usize {
    128
}

/// Added to the variance of a group.
const EPSILON: f64 = 1e-5;

/// `PatchUNet`.
pub(super) const FAMILY: Family = Family {
    name: "PatchUNet",
    about: "tweedie's own: a U-Net of patches of pixels",
    recipe,
    recognise: |tensors: &TensorIndex| {
        ["embedding.0.weight", "stem.weight", "down.0.0.conv1.weight"].iter().all(|name| tensors.contains_key(*name))
    },
};

fn recipe(config: &Value, _tensors: &TensorIndex) -> Result<Recipe, String> {
    let architecture: PatchUNetConfig = Deserialize::deserialize(config).map_err(|error| format!("config: {error}"))?;
    let (parameterization, sigma_range) = Preconditioning::of_own(config)?;
    let native_size = architecture.sample_size;
    let network = Architecture::of_own(architecture.network()?, architecture.energy);
    Ok(Recipe { native_size, ..Recipe::new(network, parameterization, sigma_range) })
}

impl PatchUNetConfig {
    /// The network that this configuration describes.
    ///
    /// # Errors
    /// A sentence naming the field that cannot be built, its value, and what can.
    pub fn network(&self) -> Result<Network, String> {
        self.check()?;
        let mut draft = Draft::new(self.channels * self.patch * self.patch);
        let stem = affine("stem", draft.channels(&[0]), self.levels[0], 3);
        let mut x = draft.convolution(0, None, stem);
        let mut skips = Vec::new();
        let last = self.levels.len() - 1;
        for (level, &channels) in self.levels.iter().enumerate() {
            for block in 0..self.blocks[level] {
                x = self.residual(&mut draft, &format!("down.{level}.{block}"), x, level);
            }
            if level < last {
                skips.push(x);
                let map = affine(&format!("down.{level}.resample"), channels, self.levels[level + 1], 2);
                let half = Source { resample: Resample::Down { before: 0 }, ..source(&[x], map) };
                x = draft.sum(sum(vec![half], self.levels[level + 1]));
            }
        }
        for level in (0..last).rev() {
            let channels = self.levels[level];
            let map = affine(&format!("up.{level}.resample"), self.levels[level + 1], channels, 3);
            let double = Source { resample: Resample::Up, ..source(&[x], map) };
            x = draft.sum(Sum { residual: skips.pop(), ..sum(vec![double], channels) });
            for block in 0..self.blocks[level] {
                x = self.residual(&mut draft, &format!("up.{level}.{block}"), x, level);
            }
        }
        let outputs = self.channels * self.patch * self.patch;
        let head = Source { silu: true, ..source(&[x], affine("head", self.levels[0], outputs, 3)) };
        draft.sum(sum(vec![head], outputs));
        let embedding = embedding(self.embedding);
        Ok(Network { channels: self.channels, patch: self.patch, embedding, steps: draft.steps })
    }

    /// `x + conv₂(silu(norm(conv₁(silu(norm(x))) + W silu(e))))`, without the norms on a level that has none.
    fn residual(&self, draft: &mut Draft, name: &str, x: usize, level: usize) -> usize {
        let channels = self.levels[level];
        let projection = dense(&format!("{name}.embedding"), self.embedding, channels, true);
        let part = |input: usize, number: usize| {
            let map = affine(&format!("{name}.conv{number}"), channels, channels, 3);
            Source { norm: self.norm(&format!("{name}.norm{number}"), level), silu: true, ..source(&[input], map) }
        };
        let hidden = draft.sum(Sum { embedding: Some(projection), ..sum(vec![part(x, 1)], channels) });
        draft.sum(Sum { residual: Some(x), ..sum(vec![part(hidden, 2)], channels) })
    }

    fn norm(&self, name: &str, level: usize) -> Option<Norm> {
        let groups = self.groups.get(level).copied().unwrap_or_default();
        (groups > 0).then(|| norm(name, self.levels[level], groups, EPSILON))
    }

    fn check(&self) -> Result<(), String> {
        FAMILY.within("channels", self.channels, 1..=MOST_CHANNELS)?;
        FAMILY.within("patch", self.patch, 1..=16)?;
        FAMILY.within("number of levels", self.levels.len(), 1..=MOST_LEVELS)?;
        FAMILY.within("embedding", self.embedding, 1..=MOST_CHANNELS)?;
        if self.blocks.len() != self.levels.len() {
            let (blocks, levels) = (self.blocks.len(), self.levels.len());
            return Err(format!("PatchUNet with blocks for {blocks} levels, expected one number for each of {levels}"));
        }
        let blocks = self.blocks.iter().fold(0_usize, |sum, &blocks| sum.saturating_add(blocks));
        FAMILY.within("blocks of all levels", blocks, 1..=MOST_BLOCKS)?;
        for &channels in &self.levels {
            FAMILY.within("channels of a level", channels, 1..=MOST_CHANNELS)?;
        }
        if self.groups.len() > self.levels.len() {
            let (groups, levels) = (self.groups.len(), self.levels.len());
            return Err(format!("PatchUNet with groups for {groups} levels, expected at most {levels}"));
        }
        match self.levels.iter().zip(&self.groups).find(|(channels, groups)| **groups > 0 && *channels % *groups != 0) {
            Some((channels, groups)) => Err(format!("PatchUNet with {channels} channels in {groups} groups")),
            None => Ok(()),
        }
    }
}
