//! The network of a run: what it computes, where its numbers come from, and the file that it becomes.

use super::config::ModelConfig;
use crate::checkpoints::write_tensors;
use crate::models::{Architecture, Checkpoint, Family, Origin, Pick, Recipe, TensorIndex, native_metadata};
use crate::priors::Parameterization;
use crate::{Error, Result};
use safetensors::tensor::Dtype;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use tweedie_kernels::Parameters;
use tweedie_kernels::network::Network;

/// A network that is trained, and how it is written.
#[derive(Clone, Debug)]
pub struct Subject {
    /// What is computed.
    pub network: Network,
    /// Whether the sum of its outputs is an energy, and it is read as minus the gradient.
    pub energy: bool,
    /// How its outputs become denoised images.
    pub parameterization: Parameterization,
    /// Noise levels it is good for.
    pub sigma_range: (f64, f64),
    family: String,
    config: Value,
    origins: BTreeMap<String, Origin>,
}

impl Subject {
    /// The network that a configuration names; with the numbers of `init_from` where there is one.
    ///
    /// # Errors
    /// `Config` for a family or a configuration that cannot be; `Model` for a checkpoint that cannot be read, is no list of
    /// steps, or has not these parameters.
    pub fn of(config: &ModelConfig) -> Result<(Self, Option<Parameters>)> {
        let refuse =
            |got: String, expected: &str| Error::Config { name: "model".into(), got, expected: expected.into() };
        let checkpoint = config.init_from.as_deref().map(Checkpoint::named).transpose()?;
        let described = match (&config.architecture, &config.config, &checkpoint) {
            (Some(family), Some(config), _) => Some((family.clone(), config.clone())),
            (_, _, Some(checkpoint)) => Some((checkpoint.family.to_owned(), checkpoint.config.clone())),
            _ => None,
        };
        let Some((family, value)) = described else {
            return Err(refuse("incomplete".into(), "an architecture and its config, or init_from alone"));
        };
        let recipe = Family::named(&family)
            .and_then(|family| (family.recipe)(&value, &TensorIndex::new()))
            .and_then(|recipe| recipe.check().map(|()| recipe))
            .map_err(|reason| refuse(reason, "a network that can be built"))?;
        let origins = recipe.origins();
        if let Some(origin) = origins.values().find(|origin| origin.pick != Pick::Whole) {
            let got = format!("{family}, whose {} is made of {}", origin.parameter, origin.tensor);
            return Err(refuse(
                got,
                "a family whose parameters are the tensors of its files, such as UNet2DModel or PatchUNet",
            ));
        }
        let Recipe { network, parameterization, sigma_range, .. } = recipe;
        let (network, energy) = match network {
            Architecture::Steps(network) => (network, false),
            Architecture::Energy(network) => (network, true),
            Architecture::RefineNet(_) | Architecture::Drunet(_) => {
                return Err(refuse(family, "a family that is a list of steps, such as UNet2DModel or PatchUNet"));
            }
        };
        let sigma_range = checkpoint.as_ref().map_or(sigma_range, |checkpoint| checkpoint.sigma_range);
        let subject = Self { network, energy, parameterization, sigma_range, family, config: value, origins };
        let parameters = checkpoint.map(|checkpoint| subject.parameters_of(&checkpoint)).transpose()?;
        Ok((subject, parameters))
    }

    /// The family of the network, as its files name it.
    pub fn family(&self) -> &str {
        &self.family
    }

    fn parameters_of(&self, checkpoint: &Checkpoint) -> Result<Parameters> {
        let mut parameters = Parameters::new();
        for parameter in self.network.parameters() {
            let values = checkpoint.parameter(&parameter.name).filter(|values| values.len() == parameter.elements());
            let Some(values) = values else {
                let (name, shape) = (&parameter.name, &parameter.shape);
                let reason = format!("has no {name} of shape {shape:?}, which the network to be trained needs");
                return Err(Error::Model { model: checkpoint.name.clone(), reason });
            };
            parameters.insert(parameter.name.clone(), values);
        }
        Ok(parameters)
    }

    /// Writes these numbers as a native file of a model called `name`, rounded to `dtype`, with entries added to its metadata.
    ///
    /// # Errors
    /// `Io` with `path`.
    pub fn write(
        &self,
        name: &str,
        parameters: &Parameters,
        additions: &[(&str, String)],
        dtype: Dtype,
        (to, path): (&mut dyn Write, &Path),
    ) -> Result<()> {
        let (low, high) = self.sigma_range;
        let mut metadata = native_metadata(name, &self.family, &self.config);
        let levels = [("sigma_min", low.to_string()), ("sigma_max", high.to_string())];
        metadata.extend(levels.iter().chain(additions).map(|(key, value)| ((*key).to_owned(), value.clone())));
        let tensors: Vec<(&str, &[usize], &[f32])> = self
            .origins
            .values()
            .filter_map(|origin| Some((&*origin.tensor, &origin.shape[..], &parameters.get(&origin.parameter)?[..])))
            .collect();
        let failed = |source| Error::Io { path: path.into(), source };
        write_tensors(to, &metadata, &tensors, dtype).map_err(failed)
    }
}
