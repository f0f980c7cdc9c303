//! Photon counts read by noisy electronics.

use candle_core::Tensor;
use serde::Deserialize;

use super::density::{self, SampleDensity};
use super::{BuildNoise, NoiseModel, check_setting};
use crate::Result;
use crate::registry::Entry;
use crate::rng::Rng;

/// `y = 2 k / g − 1 + σ n` with photon counts `k ~ Poisson(g z′)`, `z′ = (z + 1) / 2`, `g = 255 · rate`, and standard
/// normal `n`: the noise of a camera's raw data.
///
/// The exact density is an infinite sum over counts. The likelihood is that of the Gaussian with the same mean and
/// variance, `log p = −½ (y − z)² / v − ½ log v` with `v = a max(z′, 0) + σ²` and `a = 4 / g`: good where tens of
/// photons are counted or σ exceeds a photon's worth, `2 / g`; too narrow to the right of its mean elsewhere.
///
/// Foi et al. (2008), "Practical Poissonian-Gaussian noise modeling and fitting for single-image raw-data",
/// <https://doi.org/10.1109/TIP.2008.2001399>
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PoissonGaussian {
    /// `g`.
    photons: f64,
    sigma: f64,
}

impl PoissonGaussian {
    /// `255 · rate` photons in a white pixel; `sigma` is the standard deviation of the reading, in the unit of `y`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) unless both are finite and above 0.
    pub fn new(rate: f64, sigma: f64) -> Result<Self> {
        check_setting("poisson_gaussian", "rate", rate, rate > 0.0, "above 0")?;
        check_setting("poisson_gaussian", "sigma", sigma, sigma > 0.0, "above 0")?;
        Ok(Self { photons: 255.0 * rate, sigma })
    }

    /// `v` and `dv/dz`.
    fn variance(&self, z: f64) -> (f64, f64) {
        let slope = 2.0 / self.photons;
        let read = self.sigma * self.sigma;
        if z < -1.0 { (read, 0.0) } else { (slope * (z + 1.0) + read, slope) }
    }
}

impl NoiseModel for PoissonGaussian {
    fn corrupt(&self, z: &Tensor, rng: &mut Rng) -> Result<Tensor> {
        let counts = rng.poisson(&z.affine(0.5 * self.photons, 0.5 * self.photons)?)?;
        Ok((counts.affine(2.0 / self.photons, -1.0)? + (rng.normal_like(z)? * self.sigma)?)?)
    }

    fn log_likelihood(&self, z: &Tensor, y: &Tensor) -> Result<Tensor> {
        density::log_likelihood(*self, z, y)
    }

    fn score(&self, z: &Tensor, y: &Tensor) -> Result<Tensor> {
        density::score(*self, z, y)
    }
}

impl SampleDensity for PoissonGaussian {
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
    /// Photons in a white pixel, divided by 255; above 0, default 1.
    #[serde(default = "one")]
    rate: f64,
    /// Standard deviation of the reading in the unit of the measurement, above 0.
    sigma: f64,
}

fn one() -> f64 {
    1.0
}

/// `poisson_gaussian`
pub(crate) const ENTRY: Entry<BuildNoise> = Entry {
    name: "poisson_gaussian",
    about: "Photon counts with Gaussian noise of the reading",
    fields: &[
        ("rate", "photons in a white pixel divided by 255, above 0; default 1"),
        ("sigma", "standard deviation of the reading in the unit of the measurement, above 0"),
    ],
    example: "rate = 0.1\nsigma = 0.05",
    build: |table| {
        let Config { rate, sigma } = table.try_into()?;
        Ok(Box::new(PoissonGaussian::new(rate, sigma)?))
    },
};
