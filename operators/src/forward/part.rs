//! Operators that another one is made of, as tables of its configuration.

use candle_core::Tensor;

use super::{BuildOperator, ForwardOperator};
use crate::registry::{Entry, Site, find};
use crate::{Error, Result};

/// A table `{ name = "..", ..settings }`, looked up.
pub(super) struct Part<'a> {
    entry: &'a Entry<BuildOperator>,
    settings: toml::Table,
}

impl<'a> Part<'a> {
    /// Looks the name up among the operators there are.
    ///
    /// # Errors
    /// [`Error::Config`] without a name that is a text, [`Error::Unknown`] with the known ones.
    pub(super) fn new(mut settings: toml::Table, list: &'a [Entry<BuildOperator>]) -> Result<Self> {
        match settings.remove("name") {
            Some(toml::Value::String(name)) => Ok(Self { entry: find(list, &name)?, settings }),
            Some(other) => Err(Error::config("name", format!("got {other}, expected the name of an operator"))),
            None => Err(Error::config("name", "missing, expected the name of an operator")),
        }
    }

    pub(super) fn build(self, site: Site<'_>) -> Result<Box<dyn ForwardOperator>> {
        self.entry.create(self.settings, site)
    }

    pub(super) fn image_shape(&self, y: &[usize], site: Site<'_>) -> Result<(usize, usize, usize)> {
        self.entry.image_shape(&self.settings, y, site)
    }
}

/// Says in an error which part of an operator it is from.
pub(super) fn located(owner: &str, place: &str, error: Error) -> Error {
    let text = format!("{place}: {error}");
    match error {
        Error::Config { .. } | Error::Unknown { .. } | Error::Shape { .. } => Error::config(owner, text),
        Error::External(_) => Error::External(text.into()),
        other => other,
    }
}

/// The place of part `index` of several, counted from one.
pub(super) fn place(index: usize) -> String {
    format!("operator {}", index + 1)
}

/// The shape of a measurement, without its batch, found by measuring a grey image.
pub(super) fn measurement_shape(operator: &dyn ForwardOperator, site: Site<'_>) -> Result<Vec<usize>> {
    let (channels, height, width) = site.image;
    let grey = Tensor::zeros((1, channels, height, width), site.dtype, site.device)?;
    Ok(operator.forward(&grey)?.dims()[1..].to_vec())
}
