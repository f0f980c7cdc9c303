//! Where a model runs, and in which numbers.

use super::Architecture;
use crate::{Error, Result};
use candle_core::Device;
use tweedie_kernels::{InstructionSet, Precision};

/// How to open a model.
#[derive(Clone, Debug)]
pub struct ModelOptions {
    /// Where it runs; the CPU by default.
    pub device: Device,
    /// What the CPU's kernels may use; [`InstructionSet::detect`] by default.
    pub instruction_set: InstructionSet,
    /// In which numbers products are taken; `None`, the default, is what [`Precision::auto`] says for the instruction set
    /// on a CPU, and `f32` elsewhere.
    pub precision: Option<Precision>,
    /// What the images are of, for a network that was trained with classes; `None` for one that knows images of no class.
    pub class: Option<usize>,
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self { device: Device::Cpu, instruction_set: InstructionSet::detect(), precision: None, class: None }
    }
}

impl ModelOptions {
    /// The precision in which a network runs.
    ///
    /// # Errors
    /// `Config` if the device cannot.
    pub fn network_precision(&self) -> Result<Precision> {
        match self.precision {
            precision if self.device.is_cpu() => Ok(precision.unwrap_or(Precision::auto(self.instruction_set))),
            None | Some(Precision::F32) => Ok(Precision::F32),
            Some(precision) => Err(refuse(precision, "f32 or auto on a device that is no CPU")),
        }
    }

    /// The class, where the network can be told it and has to be.
    ///
    /// # Errors
    /// `Config` if a class is given that the network does not know, or none to one that needs it.
    pub(super) fn network_class(&self, network: &Architecture) -> Result<Option<usize>> {
        let wrong = |got: String, expected: String| Err(Error::Config { name: "class".into(), got, expected });
        match (self.class, network.steps().and_then(|network| network.embedding.classes.as_ref())) {
            (Some(class), None) => wrong(class.to_string(), "none for a network that knows no classes".into()),
            (class, Some(classes)) => {
                let last = classes.weight.shape.first().map_or(0, |count| count.saturating_sub(1));
                match class {
                    Some(class) if class > last => wrong(class.to_string(), format!("0 to {last}")),
                    None if classes.required => {
                        wrong("none".into(), format!("0 to {last} for a network that was trained with classes"))
                    }
                    class => Ok(class),
                }
            }
            (None, None) => Ok(None),
        }
    }

    /// The precision of a prior that is a formula.
    ///
    /// # Errors
    /// `Config` if another one is asked for.
    pub(super) fn formula_precision(&self) -> Result<Precision> {
        match self.precision {
            None | Some(Precision::F32) => Ok(Precision::F32),
            Some(precision) => Err(refuse(precision, "f32 or auto for a prior that is a formula")),
        }
    }
}

fn refuse(precision: Precision, expected: &str) -> Error {
    Error::Config { name: "precision".into(), got: precision.to_string(), expected: expected.into() }
}
