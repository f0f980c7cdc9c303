//! Names of things: in configuration files, on the command line, in listings, in the tests.

use candle_core::{DType, Device};

use crate::forward::{BuildOperator, ForwardOperator};
use crate::noise::{BuildNoise, NoiseModel};
use crate::{Error, Result};

/// The line by which a thing gets a name.
///
/// `build` turns a table into an object; [`create`](Entry::create) does the same and says in an error whose fault it is.
#[derive(Clone, Copy, Debug)]
pub struct Entry<F> {
    /// `snake_case`, unique in its list.
    pub name: &'static str,
    /// One line, no full stop.
    pub about: &'static str,
    /// TOML with which tests and documentation build it.
    pub example: &'static str,
    /// From configuration to object.
    pub build: F,
}

/// What a builder knows of the place where its operator will work.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// Channels, height and width of the image `x`.
    pub image: (usize, usize, usize),
    /// Where tensors live.
    pub device: &'a Device,
    /// Type of the constants; inputs of another floating-point type work as well, with constants of this precision.
    pub dtype: DType,
}

/// The entry of this name.
///
/// # Errors
/// [`Error::Unknown`], with the names there are.
pub fn find<'a, F>(list: &'a [Entry<F>], name: &str) -> Result<&'a Entry<F>> {
    list.iter().find(|entry| entry.name == name).ok_or_else(|| Error::Unknown {
        name: name.into(),
        known: list.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", "),
    })
}

impl<F> Entry<F> {
    /// Puts this entry's name into a configuration error.
    fn named(&self, error: Error) -> Error {
        match error {
            Error::Config { reason, .. } => Error::config(self.name, reason),
            other => other,
        }
    }
}

impl Entry<BuildOperator> {
    /// Builds the operator.
    ///
    /// # Errors
    /// [`Error::Config`] with the entry's name for a setting that is unknown, missing or out of range.
    pub fn create(&self, table: toml::Table, site: Site<'_>) -> Result<Box<dyn ForwardOperator>> {
        (self.build)(table, site).map_err(|error| self.named(error))
    }
}

impl Entry<BuildNoise> {
    /// Builds the noise model.
    ///
    /// # Errors
    /// [`Error::Config`] with the entry's name for a setting that is unknown, missing or out of range.
    pub fn create(&self, table: toml::Table) -> Result<Box<dyn NoiseModel>> {
        (self.build)(table).map_err(|error| self.named(error))
    }
}
