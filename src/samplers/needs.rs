//! What a method needs of a measurement.

use super::{BuildSampler, Sampler};
use crate::Result;
use serde::Serialize;
use tweedie_operators::{Entry, Measurement};

/// What must be known of the operator; each says more than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Structure {
    /// `vjp`: any operator has it.
    Derivative,
    /// `adjoint`: a matrix.
    Linear,
    /// A singular value decomposition.
    SingularValues,
}

/// What must be known of the noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Noise {
    /// Nothing: the method looks at the residual alone.
    Any,
    /// A density `p(y | z)`, so no Gaussian with σ = 0.
    Density,
    /// Additive, white and Gaussian; σ = 0 is allowed.
    Gaussian,
    /// Additive, white and Gaussian with σ above 0.
    GaussianAboveZero,
}

/// What a method needs, and what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Needs {
    /// Of the operator.
    pub structure: Structure,
    /// Of the noise.
    pub noise: Noise,
    /// Whether the method was derived for measurements without noise; it runs with noise, and fits it.
    pub noiseless: bool,
}

impl Needs {
    /// Says what is missing, for `method`.
    ///
    /// # Errors
    /// `Operator` (`Unsupported`) naming the method and its need.
    pub fn check(&self, method: &'static str, measurement: &Measurement<'_>) -> Result<()> {
        match self.structure {
            Structure::Derivative => {}
            Structure::Linear => drop(measurement.linear(method)?),
            Structure::SingularValues => drop(measurement.spectral(method)?),
        }
        let refuse = |needs| Err(tweedie_operators::Error::Unsupported { method, needs }.into());
        let sigma = measurement.noise.gaussian_sigma();
        match self.noise {
            Noise::Any => Ok(()),
            Noise::Density if sigma == Some(0.0) => refuse("noise with a density, as Gaussian noise of sigma above 0"),
            Noise::Density => Ok(()),
            Noise::Gaussian => measurement.gaussian_sigma(method).map(drop).map_err(Into::into),
            Noise::GaussianAboveZero if measurement.gaussian_sigma(method)? == 0.0 => {
                refuse("Gaussian noise of sigma above 0")
            }
            Noise::GaussianAboveZero => Ok(()),
        }
    }
}

/// The methods of `list` whose needs the measurement meets, as they are by default.
///
/// # Errors
/// `Config` if a default cannot be built.
pub fn suitable(list: &[Entry<BuildSampler>], measurement: &Measurement<'_>) -> Result<Vec<&'static str>> {
    let mut names = Vec::new();
    for entry in list {
        let sampler = (entry.build)(toml::Table::new())?;
        if sampler.check(measurement).is_ok() {
            names.push(entry.name);
        }
    }
    Ok(names)
}

/// `sampler`, if the measurement meets its needs.
///
/// # Errors
/// `Unsuitable`, naming what is missing and the methods of `list` that would work.
pub fn check_suitable(
    sampler: &dyn Sampler,
    list: &[Entry<BuildSampler>],
    measurement: &Measurement<'_>,
) -> Result<()> {
    sampler.check(measurement).map_err(|error| match error {
        crate::Error::Operator(tweedie_operators::Error::Unsupported { method, needs }) => {
            let instead = suitable(list, measurement).map_or_else(|error| error.to_string(), |names| names.join(", "));
            crate::Error::Unsuitable { method, needs, instead }
        }
        other => other,
    })
}
