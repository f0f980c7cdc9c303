//! White Gaussian noise, and none at all.

use candle_core::Tensor;
use serde::Deserialize;

use super::{BuildNoise, NoiseModel};
use crate::registry::Entry;
use crate::rng::Rng;
use crate::{Error, Result};

/// `y = z + σ n` with standard normal `n`; `σ = 0` is a measurement without noise.
///
/// Without noise there is no density: `log_likelihood` and `score` are then [`Error::Unsupported`], and methods use the
/// residual or a projection in their place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gaussian {
    sigma: f64,
}

impl Gaussian {
    /// Noise of standard deviation `sigma`, in the unit of `y`.
    ///
    /// # Errors
    /// [`Error::Config`] unless `sigma` is finite and at least 0.
    pub fn new(sigma: f64) -> Result<Self> {
        if sigma >= 0.0 && sigma.is_finite() {
            Ok(Self { sigma })
        } else {
            Err(Error::config("gaussian", format!("sigma is {sigma}, expected a finite number of at least 0")))
        }
    }

    fn precision(&self, method: &'static str) -> Result<f64> {
        if self.sigma == 0.0 {
            return Err(Error::Unsupported { method, needs: "noise with sigma above 0" });
        }
        Ok(self.sigma.powi(-2))
    }
}

impl NoiseModel for Gaussian {
    fn corrupt(&self, z: &Tensor, rng: &mut Rng) -> Result<Tensor> {
        if self.sigma == 0.0 {
            // Still one draw, so that what is drawn afterwards does not depend on σ.
            rng.skip();
            return Ok(z.clone());
        }
        Ok((z + (rng.normal_like(z)? * self.sigma)?)?)
    }

    fn log_likelihood(&self, z: &Tensor, y: &Tensor) -> Result<Tensor> {
        let precision = self.precision("log_likelihood")?;
        Ok(((y - z)?.sqr()?.flatten_from(1)?.sum(1)? * (-0.5 * precision))?)
    }

    fn score(&self, z: &Tensor, y: &Tensor) -> Result<Tensor> {
        let precision = self.precision("score")?;
        Ok(((y - z)? * precision)?)
    }

    fn gaussian_sigma(&self) -> Option<f64> {
        Some(self.sigma)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Standard deviation in the unit of the measurement, at least 0.
    sigma: f64,
}

/// `gaussian`
pub(crate) const ENTRY: Entry<BuildNoise> = Entry {
    name: "gaussian",
    about: "White Gaussian noise; sigma 0 is none",
    fields: &[("sigma", "standard deviation in the unit of the measurement, at least 0")],
    example: "sigma = 0.05",
    build: |table| {
        let Config { sigma } = table.try_into()?;
        Ok(Box::new(Gaussian::new(sigma)?))
    },
};
