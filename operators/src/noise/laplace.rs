//! Noise with exponential tails.

use candle_core::Tensor;
use serde::Deserialize;

use super::density::{self, SampleDensity};
use super::{BuildNoise, NoiseModel, check_setting};
use crate::Result;
use crate::registry::Entry;
use crate::rng::Rng;

/// `y = z + b l` with `l` of the standard Laplace distribution: `p(y | z) = exp(−|y − z| / b) / 2b`, of standard
/// deviation `√2 b`.
///
/// The score is `sign(y − z) / b`, and 0 where `y = z`, one of the subgradients there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Laplace {
    scale: f64,
}

impl Laplace {
    /// Noise of mean absolute value `scale`, in the unit of `y`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) unless `scale` is finite and above 0.
    pub fn new(scale: f64) -> Result<Self> {
        check_setting("laplace", "scale", scale, scale > 0.0, "above 0")?;
        Ok(Self { scale })
    }
}

impl NoiseModel for Laplace {
    fn corrupt(&self, z: &Tensor, rng: &mut Rng) -> Result<Tensor> {
        // v uniform on (−1, 1): −log(1 − |v|) is exponential, its sign is that of v.
        let v = rng.uniform_like(z)?.affine(2.0, -1.0)?;
        let size = v.abs()?.affine(-1.0, 1.0)?.log()?;
        Ok((z + (size * v.sign()?)?.affine(-self.scale, 0.0)?)?)
    }

    fn log_likelihood(&self, z: &Tensor, y: &Tensor) -> Result<Tensor> {
        density::log_likelihood(*self, z, y)
    }

    fn score(&self, z: &Tensor, y: &Tensor) -> Result<Tensor> {
        density::score(*self, z, y)
    }
}

impl SampleDensity for Laplace {
    fn log_density(&self, z: f64, y: f64) -> f64 {
        -(y - z).abs() / self.scale
    }

    fn derivative(&self, z: f64, y: f64) -> f64 {
        let d = y - z;
        if d == 0.0 { 0.0 } else { d.signum() / self.scale }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Mean absolute error in the unit of the measurement, above 0.
    scale: f64,
}

/// `laplace`
pub(crate) const ENTRY: Entry<BuildNoise> = Entry {
    name: "laplace",
    about: "Noise with exponential tails",
    fields: &[("scale", "mean absolute error in the unit of the measurement, above 0")],
    example: "scale = 0.1",
    build: |table| {
        let Config { scale } = table.try_into()?;
        Ok(Box::new(Laplace::new(scale)?))
    },
};
