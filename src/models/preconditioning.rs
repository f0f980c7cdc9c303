//! How a native file names the preconditioning of its network.

use crate::priors::{Direct, Parameterization, Quantity};
use serde::Deserialize;
use serde_json::Value;

/// The key `parameterization` of a configuration, where no scheduler of another program says it.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Preconditioning {
    Edm { sigma_data: f64 },
    Score { sigma_data: f64 },
    Noise { sigma_data: f64 },
    Image { sigma_data: f64 },
    Velocity { sigma_data: f64 },
}

impl Preconditioning {
    /// What the configuration names; `None` if nothing.
    ///
    /// # Errors
    /// A sentence with what it says instead.
    pub(super) fn of(config: &Value) -> Result<Option<Self>, String> {
        match config.get("parameterization") {
            None => Ok(None),
            Some(text) => {
                let read = Self::deserialize(text).map(Some);
                read.map_err(|error| format!("has parameterization `{text}`: {error}"))
            }
        }
    }

    /// That of a network of tweedie's own: what the configuration names, else EDM's with σ_data = 0.5.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub(super) fn of_own(config: &Value) -> Result<(Parameterization, (f64, f64)), String> {
        Ok(Self::of(config)?.unwrap_or(Self::Edm { sigma_data: 0.5 }).parameterization())
    }

    /// The parameterisation, and the noise levels that such networks are trained at.
    pub(super) fn parameterization(self) -> (Parameterization, (f64, f64)) {
        let direct = |quantity, sigma_data| Parameterization::Direct(Direct { quantity, sigma_data });
        let parameterization = match self {
            Self::Edm { sigma_data } => Parameterization::Edm { sigma_data },
            Self::Score { sigma_data } => direct(Quantity::Score, sigma_data),
            Self::Noise { sigma_data } => direct(Quantity::Noise, sigma_data),
            Self::Image { sigma_data } => direct(Quantity::Image, sigma_data),
            Self::Velocity { sigma_data } => direct(Quantity::Velocity, sigma_data),
        };
        (parameterization, (0.002, 80.0))
    }
}
