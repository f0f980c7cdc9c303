//! Where a run stands, as a file.

use super::config::TrainConfig;
use super::muon::Muon;
use crate::checkpoints::{TensorFile, write_tensors};
use crate::image::write_atomically_with;
use crate::{Error, Result};
use safetensors::tensor::Dtype;
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tweedie_kernels::{Adam, AdamOptions, Moments, Parameters};

/// Everything that the next step depends on; random numbers and data are functions of the step.
#[derive(Clone, Debug)]
pub struct State {
    /// Steps taken.
    pub step: u64,
    /// What it is trained on: [`Photos::digest`](super::Photos::digest).
    pub data: String,
    /// The parameters.
    pub parameters: Parameters,
    /// Their averages, in the order of the configuration.
    pub averages: Vec<Parameters>,
    /// The optimiser.
    pub adam: Adam,
    /// That of the matrices, where they have one of their own.
    pub muon: Muon,
}

/// What the file's metadata call it.
const FORMAT: &str = "tweedie-training";
const VERSION: &str = "1";

impl State {
    /// Before the first step.
    pub fn new(parameters: Parameters, config: &TrainConfig, data: String) -> Self {
        let averages = vec![parameters.clone(); config.average.len()];
        Self { step: 0, data, averages, parameters, adam: Adam::new(adam_options(config)), muon: Muon::default() }
    }

    /// Writes `checkpoint-STEP.safetensors` into `folder` whole or not at all, and removes all but the newest ones, as many as
    /// the configuration keeps, and the newest one that had taken `best` steps at most.
    ///
    /// # Errors
    /// `Io`, `Image` if it cannot be written.
    pub fn write(&self, folder: &Path, config: &TrainConfig, best: Option<u64>) -> Result<PathBuf> {
        let keep = config.checkpoint.keep;
        let path = folder.join(file_name(self.step));
        let config = serde_json::to_string(config).expect("a configuration is JSON");
        let metadata = BTreeMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("version".to_owned(), VERSION.to_owned()),
            ("step".to_owned(), self.step.to_string()),
            ("data".to_owned(), self.data.clone()),
            ("optimiser_steps".to_owned(), self.adam.steps().to_string()),
            ("config".to_owned(), config),
        ]);
        let mut named: Vec<(String, &[f32])> = Vec::new();
        named.extend(self.parameters.iter().map(|(name, values)| (format!("parameters.{name}"), &values[..])));
        for (index, average) in self.averages.iter().enumerate() {
            named.extend(average.iter().map(|(name, values)| (format!("average.{index}.{name}"), &values[..])));
        }
        for (name, moments) in self.adam.moments() {
            named.push((format!("first.{name}"), &moments.first));
            named.push((format!("second.{name}"), &moments.second));
        }
        named.extend(self.muon.momenta.iter().map(|(name, values)| (format!("momentum.{name}"), &values[..])));
        let shapes: Vec<[usize; 1]> = named.iter().map(|(_, values)| [values.len()]).collect();
        let tensors: Vec<(&str, &[usize], &[f32])> =
            named.iter().zip(&shapes).map(|((name, values), shape)| (name.as_str(), &shape[..], *values)).collect();
        write_atomically_with(&path, true, |file, _| {
            let failed = |source| Error::Io { path: path.clone(), source };
            let mut file = BufWriter::new(file);
            write_tensors(&mut file, &metadata, &tensors, Dtype::F32).map_err(failed)?;
            file.flush().map_err(failed)
        })?;
        let all = checkpoints(folder)?;
        let best = all.iter().rev().find(|(step, _)| best.is_some_and(|best| *step <= best)).map(|(step, _)| *step);
        let old = &all[..all.len().saturating_sub(keep)];
        for (_, old) in old.iter().filter(|(step, _)| Some(*step) != best) {
            std::fs::remove_file(old).map_err(|source| Error::Io { path: old.clone(), source })?;
        }
        Ok(path)
    }

    /// Reads a file that [`write`](Self::write) wrote, of a run of the same configuration but for what may change.
    ///
    /// # Errors
    /// `Model` for a file that is no such checkpoint; `Config` naming the first setting that is another.
    pub fn read(path: &Path, config: &TrainConfig) -> Result<Self> {
        let file = TensorFile::open(path)?;
        let refuse = |reason: String| Error::Model { model: path.display().to_string(), reason };
        let field = |key: &str| {
            file.metadata
                .get(key)
                .ok_or_else(|| refuse(format!("has no `{key}`: it is no checkpoint of a training run")))
        };
        if field("format")? != FORMAT || field("version")? != VERSION {
            return Err(refuse(format!("is no checkpoint of a training run of version {VERSION}")));
        }
        let whole = |key: &str| -> Result<u64> {
            let text = field(key)?;
            text.parse().map_err(|_| refuse(format!("has `{key}` = `{text}`, expected a number")))
        };
        let stored: TrainConfig = serde_json::from_str(field("config")?)
            .map_err(|error| refuse(format!("has another configuration: {error}")))?;
        same(&stored, config)?;
        let (step, optimiser_steps) = (whole("step")?, whole("optimiser_steps")?);
        let mut state = Self::new(Parameters::new(), config, field("data")?.clone());
        let mut moments: BTreeMap<String, Moments> = BTreeMap::new();
        for name in file.index().into_keys() {
            let values = file.numbers(&name)?;
            let (part, rest) = name.split_once('.').unwrap_or_default();
            match part {
                "parameters" => drop(state.parameters.insert(rest.into(), values)),
                "momentum" => drop(state.muon.momenta.insert(rest.into(), values)),
                "first" => moments.entry(rest.into()).or_default().first = values,
                "second" => moments.entry(rest.into()).or_default().second = values,
                "average" => {
                    let (index, rest) = rest.split_once('.').unwrap_or_default();
                    let index: usize = index.parse().map_err(|_| refuse(format!("has a tensor {name}")))?;
                    match state.averages.get_mut(index) {
                        Some(average) => drop(average.insert(rest.into(), values)),
                        None => {
                            return Err(refuse(format!(
                                "has {name}, and the configuration {} averages",
                                config.average.len()
                            )));
                        }
                    }
                }
                _ => return Err(refuse(format!("has a tensor {name}"))),
            }
        }
        state.step = step;
        state.adam = Adam::resume(adam_options(config), optimiser_steps, moments);
        Ok(state)
    }
}

/// The options of the optimiser; its learning rate changes with every step.
pub(super) fn adam_options(config: &TrainConfig) -> AdamOptions {
    let optimiser = &config.optimiser;
    AdamOptions {
        learning_rate: optimiser.learning_rate.rate,
        first_decay: optimiser.decays.0,
        second_decay: optimiser.decays.1,
        epsilon: optimiser.epsilon,
        weight_decay: optimiser.weight_decay,
    }
}

/// Refuses a configuration under which the rest of the run would be another one than it began as. What says when it ends and
/// what is written may change, and the learning rate: a run that diverges is resumed from before that with a smaller one.
fn same(stored: &TrainConfig, now: &TrainConfig) -> Result<()> {
    let mut free = stored.clone();
    free.steps = now.steps;
    free.log_every = now.log_every;
    free.validation.clone_from(&now.validation);
    free.checkpoint = now.checkpoint;
    free.name.clone_from(&now.name);
    free.optimiser.learning_rate = now.optimiser.learning_rate;
    // Where the same photos lie.
    free.data.folder.clone_from(&now.data.folder);
    free.data.validation.clone_from(&now.data.validation);
    let value = |config: &TrainConfig| serde_json::to_value(config).unwrap_or_default();
    match difference("", &value(&free), &value(now)) {
        None => Ok(()),
        Some((name, stored, now)) => Err(Error::Config {
            name: format!("{name} of a run that is resumed"),
            got: now,
            expected: format!("{stored}, as it began; a run with another one needs a folder of its own"),
        }),
    }
}

/// Name and values of the first leaf that is another one.
fn difference(name: &str, a: &serde_json::Value, b: &serde_json::Value) -> Option<(String, String, String)> {
    use serde_json::Value;
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            keys.into_iter().find_map(|key| {
                let inner = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
                difference(&inner, &of(a), &of(b))
            })
        }
        (a, b) if a == b => None,
        (a, b) => Some((name.into(), a.to_string(), b.to_string())),
    }
}

fn file_name(step: u64) -> String {
    format!("checkpoint-{step:09}.safetensors")
}

/// Checkpoints in a folder with their steps, the oldest first.
///
/// # Errors
/// `Io` if the folder cannot be read.
pub fn checkpoints(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let failed = |source| Error::Io { path: folder.into(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let step = name.to_str().and_then(|name| name.strip_prefix("checkpoint-")?.strip_suffix(".safetensors"));
        if let Some(step) = step.and_then(|step| step.parse().ok()) {
            found.push((step, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}
