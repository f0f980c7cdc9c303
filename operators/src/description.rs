//! A task written down: operator and noise in one TOML file.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Table, Value};

use crate::forward::{BuildOperator, ForwardOperator};
use crate::noise::{BuildNoise, Gaussian, NoiseModel};
use crate::registry::{Entry, Site, find};
use crate::{Error, Result};

/// What was measured and how, as text: an operator and its noise, each a table with its `name` and its settings.
///
/// ```
/// use candle_core::{DType, Device};
/// use tweedie_operators::{Description, NOISES, Site};
///
/// let text = r#"
///     about = "Super-resolution ×4 with a little noise"
///     [operator]
///     name = "downsample_box"
///     factor = 4
///     [noise]
///     name = "gaussian"
///     sigma = 0.05
/// "#;
/// let task = Description::parse(text, ".")?;
/// let (operator, noise) = task.build(Site::new((3, 32, 32), &Device::Cpu, DType::F32), NOISES)?;
/// assert_eq!(noise.gaussian_sigma(), Some(0.05));
/// # let x = candle_core::Tensor::zeros((1, 3, 32, 32), DType::F32, &Device::Cpu)?;
/// assert_eq!(operator.forward(&x)?.dims(), [1, 3, 8, 8]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// What the task is and where it comes from, one line.
    pub about: Option<String>,
    /// The operator: its `name` and its settings.
    pub operator: Table,
    /// The noise model: its `name` and its settings; `None` is a measurement without noise.
    pub noise: Option<Table>,
    /// The folder that relative names of files start from.
    pub folder: PathBuf,
}

/// What stands in a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    about: Option<String>,
    operator: Table,
    noise: Option<Table>,
}

impl Description {
    /// Reads TOML; relative names of files inside it start from `folder`.
    ///
    /// # Errors
    /// [`Error::Config`] with line and column for text that is no TOML, for a key that is unknown or missing, and for a
    /// table without `name`. Names and settings are checked by [`build`](Self::build).
    pub fn parse(text: &str, folder: impl Into<PathBuf>) -> Result<Self> {
        let Form { about, operator, noise } =
            toml::from_str(text).map_err(|error| Error::config("description", located(text, &error)))?;
        named("operator", &operator)?;
        noise.as_ref().map(|noise| named("noise", noise)).transpose()?;
        Ok(Self { about, operator, noise, folder: folder.into() })
    }

    /// Reads a file; relative names of files inside it start from its folder.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), with the path in the place of "description"; [`Error::Config`] also for a file that
    /// cannot be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let name = path.to_string_lossy();
        let text = std::fs::read_to_string(path).map_err(|error| Error::config(&name, error.to_string()))?;
        Self::parse(&text, path.parent().unwrap_or(Path::new(""))).map_err(|error| match error {
            Error::Config { name: part, reason } if part == "description" => Error::config(&name, reason),
            Error::Config { name: part, reason } => Error::config(&name, format!("{part}: {reason}")),
            other => other,
        })
    }

    /// Makes the operator of `site.operators` and the noise model of `noises`; the site's folder is not used.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a name that is in no list, [`Error::Config`] with the entry's name for settings.
    pub fn build(
        &self,
        site: Site<'_>,
        noises: &[Entry<BuildNoise>],
    ) -> Result<(Box<dyn ForwardOperator>, Box<dyn NoiseModel>)> {
        let (name, settings) = named("operator", &self.operator)?;
        let operator = find(site.operators, name)?.create(settings, Site { folder: &self.folder, ..site })?;
        let noise: Box<dyn NoiseModel> = match &self.noise {
            None => Box::new(Gaussian::new(0.0)?),
            Some(table) => {
                let (name, settings) = named("noise", table)?;
                find(noises, name)?.create(settings)?
            }
        };
        Ok((operator, noise))
    }

    /// `(channels, height, width)` of the images whose measurements have the shape `y`, without its batch.
    ///
    /// # Errors
    /// [`Error::Config`] if no image has such a measurement, or if its shape does not tell the image's;
    /// [`Error::Unknown`] for an operator that is not in `operators`.
    pub fn image_shape(&self, y: &[usize], operators: &[Entry<BuildOperator>]) -> Result<(usize, usize, usize)> {
        let (name, settings) = named("operator", &self.operator)?;
        find(operators, name)?.image_shape(&settings, y, operators)
    }
}

/// The name that a table gives, and its settings.
fn named<'a>(key: &str, table: &'a Table) -> Result<(&'a str, Table)> {
    let name = match table.get("name") {
        Some(Value::String(name)) => name,
        Some(other) => {
            return Err(Error::config(key, format!("name is {other}, expected a string such as \"identity\"")));
        }
        None => return Err(Error::config(key, format!("missing field `name` in [{key}]"))),
    };
    let settings = table.iter().filter(|(key, _)| *key != "name").map(|(key, value)| (key.clone(), value.clone()));
    Ok((name, settings.collect()))
}

/// An error of the parser as one line, with the place where it was found.
fn located(text: &str, error: &toml::de::Error) -> String {
    let reason = error.message().lines().collect::<Vec<_>>().join("; ");
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => {
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            format!("line {line}, column {column}: {reason}")
        }
        None => reason,
    }
}
