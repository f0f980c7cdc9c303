//! The kinds of checkpoints that can be read.

use super::{Recipe, adm, ddpm, drunet, edm, patch_unet, perceptron, refinenet, score_sde, unet2d};
use safetensors::tensor::Dtype;
use serde_json::Value;
use std::collections::BTreeMap;

/// Type and shape of every tensor of a checkpoint, by its name.
pub type TensorIndex = BTreeMap<String, (Dtype, Vec<usize>)>;

/// A kind of checkpoint: the networks of one program.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// What a native file calls it, and `--family`.
    pub name: &'static str,
    /// One line for lists.
    pub about: &'static str,
    /// The recipe of a configuration in the program's own form, where the checkpoint has these tensors.
    ///
    /// What the configuration does not say is read off the tensors where they can say it; neither is to be trusted. With
    /// no tensors at all, as where parameters are only counted, the configuration has to say everything.
    ///
    /// Errors: a sentence that names what is wrong or cannot be built.
    pub recipe: fn(config: &Value, tensors: &TensorIndex) -> Result<Recipe, String>,
    /// Whether names and shapes are those of this family.
    pub recognise: fn(&TensorIndex) -> bool,
}

/// All of them; a new one is a file and a line.
pub const FAMILIES: &[Family] = &[
    unet2d::FAMILY,
    adm::FAMILY,
    ddpm::FAMILY,
    score_sde::FAMILY,
    edm::FAMILY,
    refinenet::NCSN,
    refinenet::NCSN_V2,
    drunet::FAMILY,
    patch_unet::FAMILY,
    perceptron::FAMILY,
];

impl Family {
    /// The family of this name.
    ///
    /// # Errors
    /// A sentence with the names that there are.
    pub fn named(name: &str) -> Result<&'static Self, String> {
        FAMILIES.iter().find(|family| family.name == name).ok_or_else(|| {
            let known: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
            format!("has the architecture `{name}`; known: {}", known.join(", "))
        })
    }

    /// The family whose checkpoints have such tensors.
    pub fn of(tensors: &TensorIndex) -> Option<&'static Self> {
        FAMILIES.iter().find(|family| (family.recognise)(tensors))
    }
}
