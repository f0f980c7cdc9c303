//! How much noise an ancestral step adds.

use super::within;
use crate::Result;
use serde::Deserialize;

/// Variance of the noise of an ancestral step from σ to σ', whose mean is `x̂₀ + (σ'/σ)² (x − x̂₀)`.
///
/// Nichol and Dhariwal (2021), <https://arxiv.org/abs/2102.09672>, Eq. 15, carried to `x = x₀ + σ n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variance {
    /// `σ'² (σ² − σ'²) / σ²`, DDPM's β̃: right if the image is known exactly.
    #[default]
    Small,
    /// `(σ² − σ'²) (1 + σ'²) / (1 + σ²)`, DDPM's β: right if images are white noise of standard deviation 1.
    Large,
    /// Between the two in the logarithm: 0 is small, 1 large. Networks of learned range predict it; `(v + 1) / 2` of their
    /// output v.
    Learned(f64),
}

impl Variance {
    /// The variance of the step from noise level `from` to `to < from`.
    pub fn of(self, from: f64, to: f64) -> f64 {
        let (from, to) = (from * from, to * to);
        let small = to * (from - to) / from;
        let large = (from - to) * (1.0 + to) / (1.0 + from);
        match self {
            Self::Small => small,
            Self::Large => large,
            Self::Learned(fraction) => large.powf(fraction) * small.powf(1.0 - fraction),
        }
    }

    /// The setting, if it is in its range.
    pub(super) fn checked(self) -> Result<Self> {
        if let Self::Learned(fraction) = self {
            within("variance", fraction, 0.0..=1.0)?;
        }
        Ok(self)
    }
}
