//! A fully connected network of points, tweedie's own: a point of d numbers is an image of d channels and one pixel.

use super::bounds::{MOST_BLOCKS, MOST_CHANNELS};
use super::draft::{Draft, affine, dense, embedding, source, sum};
use super::preconditioning::Preconditioning;
use super::{Architecture, Family, Recipe, TensorIndex};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tweedie_kernels::network::{Network, Source, Sum};

/// What such a network is made of.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PerceptronConfig {
    /// Numbers of a point; default 2.
    #[serde(default = "two")]
    pub channels: usize,
    /// Numbers of a hidden layer; default 64.
    #[serde(default = "width")]
    pub width: usize,
    /// Residual blocks of two layers each; default 3.
    #[serde(default = "three")]
    pub blocks: usize,
    /// Numbers of the embedding of the noise level; default 32.
    #[serde(default = "embedded")]
    pub embedding: usize,
    /// Whether it has one output, an energy, and is read as minus its gradient; default false.
    #[serde(default)]
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

fn width() -> usize {
    64
}

fn embedded() -> usize {
    32
}

/// `Perceptron`.
pub(super) const FAMILY: Family = Family {
    name: "Perceptron",
    about: "tweedie's own: fully connected layers, for points",
    recipe,
    recognise: |tensors: &TensorIndex| {
        ["embedding.0.weight", "stem.weight", "blocks.0.layer1.weight"].iter().all(|name| tensors.contains_key(*name))
    },
};

fn recipe(config: &Value, _tensors: &TensorIndex) -> Result<Recipe, String> {
    let architecture: PerceptronConfig =
        Deserialize::deserialize(config).map_err(|error| format!("config: {error}"))?;
    let (parameterization, sigma_range) = Preconditioning::of_own(config)?;
    let network = Architecture::of_own(architecture.network()?, architecture.energy);
    Ok(Recipe::new(network, parameterization, sigma_range))
}

impl PerceptronConfig {
    /// The network that this configuration describes; of an energy, the one that makes it.
    ///
    /// Layers are convolutions of 1 × 1, so that an image of more pixels is as many points.
    ///
    /// # Errors
    /// A sentence naming the field that cannot be built, its value, and what can.
    pub fn network(&self) -> Result<Network, String> {
        FAMILY.within("channels", self.channels, 1..=MOST_CHANNELS)?;
        FAMILY.within("width", self.width, 1..=MOST_CHANNELS)?;
        FAMILY.within("blocks", self.blocks, 1..=MOST_BLOCKS)?;
        FAMILY.within("embedding", self.embedding, 1..=MOST_CHANNELS)?;
        let mut draft = Draft::new(self.channels);
        let mut x = draft.convolution(0, None, affine("stem", self.channels, self.width, 1));
        for block in 0..self.blocks {
            x = self.residual(&mut draft, &format!("blocks.{block}"), x);
        }
        let outputs = if self.energy { 1 } else { self.channels };
        let head = Source { silu: true, ..source(&[x], affine("head", self.width, outputs, 1)) };
        draft.sum(sum(vec![head], outputs));
        let embedding = embedding(self.embedding);
        Ok(Network { channels: self.channels, patch: 1, embedding, steps: draft.steps })
    }

    /// `x + W₂ silu(W₁ silu(x) + W silu(e))`
    fn residual(&self, draft: &mut Draft, name: &str, x: usize) -> usize {
        let projection = dense(&format!("{name}.embedding"), self.embedding, self.width, true);
        let layer = |input: usize, number: usize| {
            let map = affine(&format!("{name}.layer{number}"), self.width, self.width, 1);
            vec![Source { silu: true, ..source(&[input], map) }]
        };
        let hidden = draft.sum(Sum { embedding: Some(projection), ..sum(layer(x, 1), self.width) });
        draft.sum(Sum { residual: Some(x), ..sum(layer(hidden, 2), self.width) })
    }
}
