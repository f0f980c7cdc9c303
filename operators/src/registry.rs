//! Names of things: in configuration files, on the command line, in listings, in the tests.

use std::path::Path;

use candle_core::{DType, Device};

use crate::forward::{BuildOperator, ForwardOperator, OPERATORS};
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
    /// Its settings: each name with one line that says meaning, unit, range and default.
    pub fields: &'static [(&'static str, &'static str)],
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
    /// The operators that another one may be made of.
    pub operators: &'a [Entry<BuildOperator>],
    /// The folder that relative names of files start from.
    pub folder: &'a Path,
}

impl<'a> Site<'a> {
    /// Images of `(channels, height, width)` on `device`, all built-in operators, files from the working folder.
    pub fn new(image: (usize, usize, usize), device: &'a Device, dtype: DType) -> Self {
        Self { image, device, dtype, operators: OPERATORS, folder: Path::new("") }
    }
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
        (self.build.operator)(table, site).map_err(|error| self.named(error))
    }

    /// `(channels, height, width)` of the images whose measurements have the shape `y`, without its batch; the image
    /// of the site is not looked at.
    ///
    /// # Errors
    /// [`Error::Config`] if no image has such a measurement, or if its shape does not tell the image's.
    pub fn image_shape(&self, table: &toml::Table, y: &[usize], site: Site<'_>) -> Result<(usize, usize, usize)> {
        (self.build.image_shape)(table, y, site).map_err(|error| self.named(error))
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
