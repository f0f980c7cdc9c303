//! Checkpoints as their authors leave them: a file of any container, and what lies beside it.

use super::file::{Said, diffusers_weights, read_text};
use super::{Checkpoint, FAMILIES, Family};
use crate::checkpoints::{TensorFile, from_yaml};
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// What a conversion is told beside the file.
#[derive(Clone, Debug, Default)]
pub struct Import {
    /// The family by its name; recognised from the tensors otherwise.
    pub family: Option<String>,
    /// The configuration in the family's own form, JSON or YAML; otherwise what the file itself says, or `config.json`,
    /// `config.yml` or `config.yaml` beside it.
    pub config: Option<PathBuf>,
    /// What to call the model; the name of the file otherwise.
    pub name: Option<String>,
}

const NEIGHBOURS: [&str; 3] = ["config.json", "config.yml", "config.yaml"];

impl Checkpoint {
    /// Reads a checkpoint of any container and any family, in a file or a diffusers folder, without executing anything.
    ///
    /// # Errors
    /// `Unknown` for a family that is not known; `Model` with what was found and what is missing: the family, a
    /// configuration, a tensor; for a pickle the opcode or the class that is refused.
    pub fn import(path: &Path, import: &Import) -> Result<Self> {
        let model = path.to_string_lossy().into_owned();
        let refuse = |reason: String| Error::Model { model: model.clone(), reason };
        if let Some(name) = &import.family
            && Family::named(name).is_err()
        {
            let known: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
            return Err(Error::Unknown { kind: "family", name: name.clone(), known: known.join(", ") });
        }
        let folder = path.is_dir();
        let weights = if folder { diffusers_weights(path)? } else { path.to_path_buf() };
        let file = TensorFile::open(&weights)?;
        file.check_sums()?;
        let native = file.metadata.get("format").is_some_and(|format| format == "tweedie");
        if native && import.family.is_none() && import.config.is_none() {
            let checkpoint = Self::native(file, &model)?;
            return Ok(checkpoint.called(import.name.clone()));
        }
        let mut said = match import.config.is_none() && folder {
            true => Said::of_diffusers(path)?,
            false => {
                let config = configuration(&file, &weights, import.config.as_deref())?;
                let family = family(&file, config.as_ref(), import.family.as_deref()).map_err(refuse)?;
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let given = config.is_some();
                let said = Said::new(name, family.name.into(), config.unwrap_or_else(|| Value::Object(Map::new())));
                // Without a configuration the family has to say what it lacks before its tensors are compared with it.
                if let (false, Err(reason)) = (given, (family.recipe)(&said.config, &file.index())) {
                    let advice = "no configuration is beside it, name one with --config";
                    return Err(refuse(format!("{}: {reason}; {advice}", family.name)));
                }
                said
            }
        };
        if let Some(family) = &import.family {
            said = Said::new(said.name, family.clone(), said.config);
        }
        for (key, value) in origin(&file, &weights)? {
            said.metadata.entry(key.into()).or_insert(value);
        }
        Ok(Self::new(file, &model, said)?.called(import.name.clone()))
    }

    fn called(mut self, name: Option<String>) -> Self {
        if let Some(name) = name {
            self.metadata.insert("name".into(), name.clone());
            self.name = name;
        }
        self
    }
}

/// The family that was asked for, that the configuration names, or that has such tensors.
fn family(file: &TensorFile, config: Option<&Value>, asked: Option<&str>) -> Result<&'static Family, String> {
    if let Some(name) = asked {
        return Family::named(name);
    }
    let named = config.and_then(|config| config.get("_class_name")).and_then(Value::as_str);
    if let Some(family) = named.and_then(|name| FAMILIES.iter().find(|family| family.name == name)) {
        return Ok(family);
    }
    let index = file.index();
    Family::of(&index).ok_or_else(|| {
        let known: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
        let names: Vec<&str> = index.keys().take(4).map(String::as_str).collect();
        format!(
            "holds {} tensors ({}, …), found as {}, whose family is not recognised; name one with --family, known: {}",
            index.len(),
            names.join(", "),
            file.found,
            known.join(", ")
        )
    })
}

/// The configuration: as asked for, as the file says, or as a file beside it says.
fn configuration(file: &TensorFile, weights: &Path, asked: Option<&Path>) -> Result<Option<Value>> {
    let folder = weights.parent().unwrap_or(Path::new(""));
    let mut config = match asked {
        Some(path) => Some(read_configuration(path)?),
        None if file.configuration.is_some() => file.configuration.clone(),
        None => {
            let beside = NEIGHBOURS.iter().map(|name| folder.join(name)).find(|path| path.is_file());
            beside.map(|path| read_configuration(&path)).transpose()?
        }
    };
    // diffusers keeps how a network was trained in a file of its own.
    let scheduler = [folder.join("scheduler_config.json"), folder.join("../scheduler/scheduler_config.json")];
    if let (Some(Value::Object(config)), Some(path)) = (&mut config, scheduler.iter().find(|path| path.is_file()))
        && config.contains_key("_class_name")
        && !config.contains_key("scheduler")
    {
        config.insert("scheduler".into(), read_configuration(path)?);
    }
    Ok(config)
}

fn read_configuration(path: &Path) -> Result<Value> {
    let refuse = |reason: String| Error::Model { model: path.to_string_lossy().into_owned(), reason };
    let text = read_text(path)?;
    let yaml = path.extension().is_some_and(|end| end == "yml" || end == "yaml");
    let value = if yaml { from_yaml(&text) } else { serde_json::from_str(&text).map_err(|error| error.to_string()) };
    value.map_err(|reason| refuse(format!("is no configuration that is understood: {reason}")))
}

/// Where the weights come from: the file's name and hash, and which of the things in it they are.
fn origin(file: &TensorFile, weights: &Path) -> Result<Vec<(&'static str, String)>> {
    let name = weights.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut origin = vec![("source", name), ("source_tensors", file.found.clone())];
    origin.extend(file.hash()?.map(|hash| ("source_sha256", hash)));
    Ok(origin)
}
