//! Networks that say one quantity in the clock σ.

use super::Scalings;
use std::fmt;

/// What a network says of `x = x₀ + σ n`. A closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// `∇ log p_σ(x)`, which grows as 1/σ.
    Score,
    /// The noise `n`.
    Noise,
    /// The image `x₀`.
    Image,
    /// `v = cos φ n − sin φ x₀/σ_d`, `tan φ = σ/σ_d`: the velocity on the circle of data and noise of Salimans and Ho (2022),
    /// <https://arxiv.org/abs/2202.00512>, for data of spread σ_d.
    Velocity,
}

/// A network `F(x/√(σ² + σ_d²), ln σ / 4)` that says a quantity as it is.
///
/// | says | `D` |
/// | --- | --- |
/// | score | `x + σ² F` |
/// | noise | `x − σ F` |
/// | image | `F` |
/// | velocity | `(σ_d² x − σ σ_d √(σ² + σ_d²) F)/(σ² + σ_d²)`: EDM's with the other sign |
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Direct {
    /// What it says.
    pub quantity: Quantity,
    /// Standard deviation of the data, `σ_d`.
    pub sigma_data: f64,
}

impl Direct {
    /// The numbers for noise level `sigma`.
    pub fn scalings(&self, sigma: f64) -> Scalings {
        let data = self.sigma_data;
        let total = sigma * sigma + data * data;
        let (skip, out) = match self.quantity {
            Quantity::Score => (1.0, sigma * sigma),
            Quantity::Noise => (1.0, -sigma),
            Quantity::Image => (0.0, 1.0),
            Quantity::Velocity => (data * data / total, -sigma * data / total.sqrt()),
        };
        Scalings { skip, out, input: 1.0 / total.sqrt(), shift: 0.0, noise: sigma.ln() / 4.0, offset: 0.0 }
    }

    /// Whether its number is one that can be.
    ///
    /// # Errors
    /// A sentence with the number.
    pub fn check(&self) -> Result<(), String> {
        match self.sigma_data > 0.0 && self.sigma_data.is_finite() {
            true => Ok(()),
            false => Err(format!("has sigma_data = {}, expected a finite number above 0", self.sigma_data)),
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Score => "score",
            Self::Noise => "noise",
            Self::Image => "image",
            Self::Velocity => "velocity",
        })
    }
}

impl fmt::Display for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "predicts the {}, sigma_data {}", self.quantity, self.sigma_data)
    }
}
