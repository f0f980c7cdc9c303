//! Noise in proportion to the intensity.

use candle_core::Tensor;
use serde::Deserialize;

use super::density::{self, SampleDensity};
use super::{BuildNoise, NoiseModel, check_setting};
use crate::Result;
use crate::registry::Entry;
use crate::rng::Rng;

/// `y′ = z′ (1 + σ n)` for the intensities `z′ = (z + 1) / 2` and `y′ = (y + 1) / 2`, with standard normal `n`; so
/// `y = z + σ (z + 1) n`.
///
/// `log p(y | z) = −½ (y − z)² / v − ½ log v` with `v = σ² (z + 1)²`. At black the noise vanishes and the density is a
/// spike; within half a level of 8 bits of it, `|z + 1| < 1/255`, the likelihood keeps the variance of half a level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speckle {
    sigma: f64,
}

/// Half a level of 8 bits.
const LOWEST_INTENSITY: f64 = 1.0 / 255.0;

impl Speckle {
    /// Noise of standard deviation `sigma`, a fraction of the intensity.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) unless `sigma` is finite and above 0.
    pub fn new(sigma: f64) -> Result<Self> {
        check_setting("speckle", "sigma", sigma, sigma > 0.0, "above 0")?;
        Ok(Self { sigma })
    }

    /// `v` and `dv/dz`.
    fn variance(&self, z: f64) -> (f64, f64) {
        let intensity = z + 1.0;
        let square = self.sigma * self.sigma;
        if intensity.abs() < LOWEST_INTENSITY {
            (square * LOWEST_INTENSITY * LOWEST_INTENSITY, 0.0)
        } else {
            (square * intensity * intensity, 2.0 * square * intensity)
        }
    }
}

impl NoiseModel for Speckle {
    fn corrupt(&self, z: &Tensor, rng: &mut Rng) -> Result<Tensor> {
        Ok((z + (z.affine(self.sigma, self.sigma)? * rng.normal_like(z)?)?)?)
    }

    fn log_likelihood(&self, z: &Tensor, y: &Tensor) -> Result<Tensor> {
        density::log_likelihood(*self, z, y)
    }

    fn score(&self, z: &Tensor, y: &Tensor) -> Result<Tensor> {
        density::score(*self, z, y)
    }
}

impl SampleDensity for Speckle {
    fn log_density(&self, z: f64, y: f64) -> f64 {
        density::log_normal(y - z, self.variance(z).0)
    }

    fn derivative(&self, z: f64, y: f64) -> f64 {
        density::log_normal_derivative(y - z, self.variance(z))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Standard deviation as a fraction of the intensity, above 0.
    sigma: f64,
}

/// `speckle`
pub(crate) const ENTRY: Entry<BuildNoise> = Entry {
    name: "speckle",
    about: "Noise in proportion to the intensity (z + 1) / 2",
    fields: &[("sigma", "standard deviation as a fraction of the intensity, above 0")],
    example: "sigma = 0.2",
    build: |table| {
        let Config { sigma } = table.try_into()?;
        Ok(Box::new(Speckle::new(sigma)?))
    },
};
