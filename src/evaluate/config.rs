//! The TOML file of an evaluation.

use super::Budget;
use super::subject::pictures_of;
use crate::samplers::{BuildSampler, find_sampler};
use crate::{Error, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use tweedie_operators::{Description, Entry};

/// The method that users get who choose none.
pub const AUTO: &str = "auto";

/// Which methods are tried on which tasks with which photos.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// What it is for, one line.
    pub about: Option<String>,
    /// Photos, in the order of the file, or of their names in a folder.
    pub images: Vec<PathBuf>,
    /// Side in pixels of the square that is cut out of the middle of each photo; `None` takes the whole.
    pub crop: Option<usize>,
    /// Posterior samples of each measurement.
    pub samples: usize,
    /// Seed of every random number.
    pub seed: u64,
    /// What decides the noise levels of the methods, but for `auto`.
    pub budget: Budget,
    /// What was measured.
    pub tasks: Vec<Task>,
    /// What restores.
    pub methods: Vec<Method>,
}

/// A measurement that photos are put through.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its name in the tables.
    pub name: String,
    /// Operator and noise.
    pub description: Description,
}

/// A sampler with settings.
#[derive(Clone, Debug)]
pub struct Method {
    /// Its name in the tables.
    pub label: String,
    /// Its name in the catalog, or `auto`.
    pub name: String,
    /// Settings in the place of its defaults.
    pub settings: toml::Table,
}

/// Calls a sample where nothing else is said.
const CALLS: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    about: Option<String>,
    images: OneOrMany,
    crop: Option<usize>,
    #[serde(default = "one")]
    samples: usize,
    #[serde(default)]
    seed: u64,
    calls: Option<usize>,
    steps: Option<usize>,
    samplers: Option<OneOrMany>,
    #[serde(default)]
    task: Vec<TaskForm>,
    #[serde(default)]
    sampler: Vec<MethodForm>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskForm {
    name: String,
    about: Option<String>,
    file: Option<String>,
    operator: Option<toml::Table>,
    noise: Option<toml::Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MethodForm {
    name: String,
    label: Option<String>,
    #[serde(default)]
    settings: toml::Table,
}

fn one() -> usize {
    1
}

impl Evaluation {
    /// Reads a file; relative names inside it start from its folder. Samplers are those of `list`.
    ///
    /// # Errors
    /// `Config` for text that is no TOML, a key that is unknown or missing and a value out of range; `Unknown` with the names
    /// there are for a sampler; `Io` for a file that cannot be read.
    pub fn open(path: &Path, list: &[Entry<BuildSampler>]) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.into(), source })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let form: Form = toml::from_str(&text).map_err(|error| Error::Config {
            name: path.display().to_string(),
            got: located(&text, &error),
            expected: "an evaluation as docs/evaluate.md describes it".into(),
        })?;
        let images = match form.images {
            OneOrMany::One(name) if folder.join(&name).is_dir() => pictures_of(&folder.join(&name))?,
            OneOrMany::One(name) => vec![folder.join(name)],
            OneOrMany::Many(names) => names.iter().map(|name| folder.join(name)).collect(),
        };
        if images.is_empty() {
            return refuse("images", "none".into(), "at least one photo, or a folder with photos");
        }
        number("samples", form.samples, 1, 10_000)?;
        if let Some(crop) = form.crop {
            number("crop", crop, 16, 16_384)?;
        }
        let budget = match (form.calls, form.steps) {
            (Some(_), Some(_)) => return refuse("calls", "calls and steps".into(), "one of the two"),
            (None, Some(steps)) => Budget::Steps(number("steps", steps, 1, 100_000)?),
            (calls, None) => Budget::Calls(number("calls", calls.unwrap_or(CALLS), 1, 100_000)?),
        };
        let tasks = form.task.into_iter().map(|task| task.read(folder)).collect::<Result<Vec<_>>>()?;
        let methods = methods(form.samplers, form.sampler, list)?;
        distinct("task", tasks.iter().map(|task| &*task.name))?;
        distinct("sampler", methods.iter().map(|method| &*method.label))?;
        if tasks.is_empty() {
            return refuse("task", "none".into(), "at least one [[task]] with a name and an operator or a file");
        }
        let Form { about, crop, samples, seed, .. } = form;
        Ok(Self { about, images, crop, samples, seed, budget, tasks, methods })
    }
}

impl TaskForm {
    fn read(self, folder: &Path) -> Result<Task> {
        let Self { name, about, file, operator, noise } = self;
        let description = match (file, operator) {
            (Some(file), None) if noise.is_none() => Description::open(folder.join(file))?,
            (None, Some(operator)) => Description { about: None, operator, noise, folder: folder.into() },
            (None, None) => {
                return refuse(
                    &format!("task `{name}`"),
                    "no operator".into(),
                    "a table `operator`, or a `file` with it",
                );
            }
            _ => {
                let got = "a file beside an operator or a noise".into();
                return refuse(&format!("task `{name}`"), got, "one of the two");
            }
        };
        let about = about.or(description.about);
        Ok(Task { name, description: Description { about, ..description } })
    }
}

/// The methods of `samplers`, then those with settings.
fn methods(samplers: Option<OneOrMany>, forms: Vec<MethodForm>, list: &[Entry<BuildSampler>]) -> Result<Vec<Method>> {
    let plain = |name: String| MethodForm { name, label: None, settings: toml::Table::new() };
    let mut all: Vec<MethodForm> = match samplers {
        None => Vec::new(),
        Some(OneOrMany::One(word)) if word == "all" => {
            [AUTO].into_iter().chain(list.iter().map(|entry| entry.name)).map(|name| plain(name.into())).collect()
        }
        Some(OneOrMany::One(name)) => vec![plain(name)],
        Some(OneOrMany::Many(names)) => names.into_iter().map(plain).collect(),
    };
    all.extend(forms);
    if all.is_empty() {
        return refuse("samplers", "none".into(), "`samplers = \"all\"`, a list of names, or a [[sampler]]");
    }
    all.into_iter()
        .map(|MethodForm { name, label, settings }| {
            if name != AUTO {
                find_sampler(list, &name, settings.clone()).map_err(|error| match error {
                    Error::Unknown { kind, name, known } => {
                        Error::Unknown { kind, name, known: format!("{AUTO}, {known}") }
                    }
                    other => other,
                })?;
            }
            Ok(Method { label: label.unwrap_or_else(|| name.clone()), name, settings })
        })
        .collect()
}

fn distinct<'a>(kind: &str, names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if name.trim().is_empty() || name.contains(char::is_control) {
            return refuse(kind, format!("the name {name:?}"), "a name of one line");
        }
        if !seen.insert(name) {
            return refuse(kind, format!("`{name}` twice"), "a name or label of its own for each");
        }
    }
    Ok(())
}

fn number(name: &str, value: usize, least: usize, most: usize) -> Result<usize> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    refuse(name, value.to_string(), &format!("a number from {least} to {most}"))
}

pub(super) fn refuse<T>(name: &str, got: String, expected: &str) -> Result<T> {
    Err(Error::Config { name: name.into(), got, expected: expected.into() })
}

/// An error of the parser as one line, with the place where it was found.
fn located(text: &str, error: &toml::de::Error) -> String {
    let reason = error.message().lines().collect::<Vec<_>>().join("; ");
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => format!("wrong in line {}: {reason}", before.matches('\n').count() + 1),
        None => format!("wrong: {reason}"),
    }
}
