//! Dead and saturated samples.

use candle_core::Tensor;
use serde::Deserialize;

use super::density::{self, SampleDensity};
use super::{BuildNoise, NoiseModel, check_setting};
use crate::registry::Entry;
use crate::rng::Rng;
use crate::{Error, Result};

/// A fraction `f` of the samples, each by itself, is `-1` or `1` with equal chance; the others are `z + σ n` with
/// standard normal `n`.
///
/// `p(y | z) = (1 − f) N(y; z, σ²) + ½ f N(y; −1, σ²) + ½ f N(y; 1, σ²)`: the two atoms are given the width of the
/// others, so that a density exists and a white pixel of the photo is not taken for a flipped one. With `σ = 0` there
/// is none: `log_likelihood` and `score` are then [`Error::Unsupported`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SaltAndPepper {
    fraction: f64,
    sigma: f64,
}

impl SaltAndPepper {
    /// Flips `fraction` of the samples; `sigma` is the standard deviation of the others, in the unit of `y`.
    ///
    /// # Errors
    /// [`Error::Config`] unless `fraction` is from 0 to 1 and `sigma` finite and at least 0.
    pub fn new(fraction: f64, sigma: f64) -> Result<Self> {
        check_setting("salt_and_pepper", "fraction", fraction, (0.0..=1.0).contains(&fraction), "from 0 to 1")?;
        check_setting("salt_and_pepper", "sigma", sigma, sigma >= 0.0, "of at least 0")?;
        Ok(Self { fraction, sigma })
    }

    fn check_density(&self, method: &'static str) -> Result<()> {
        if self.sigma > 0.0 {
            return Ok(());
        }
        Err(Error::Unsupported { method, needs: "salt-and-pepper noise with sigma above 0" })
    }

    /// Exponents of `z`, `-1` and `1`, up to a common term.
    fn exponents(&self, z: f64, y: f64) -> [f64; 3] {
        let exponent = |mean: f64, weight: f64| {
            let distance = (y - mean) / self.sigma;
            libm::log(weight) - 0.5 * distance * distance
        };
        [exponent(z, 1.0 - self.fraction), exponent(-1.0, 0.5 * self.fraction), exponent(1.0, 0.5 * self.fraction)]
    }
}

impl NoiseModel for SaltAndPepper {
    fn corrupt(&self, z: &Tensor, rng: &mut Rng) -> Result<Tensor> {
        let u = rng.uniform_like(z)?;
        let kept = if self.sigma == 0.0 {
            // Still a draw, so that what is drawn afterwards does not depend on σ.
            rng.skip();
            z.clone()
        } else {
            (z + (rng.normal_like(z)? * self.sigma)?)?
        };
        let pepper = u.lt(0.5 * self.fraction)?;
        let salt = u.gt(1.0 - 0.5 * self.fraction)?;
        let kept = pepper.where_cond(&z.ones_like()?.neg()?, &kept)?;
        Ok(salt.where_cond(&z.ones_like()?, &kept)?)
    }

    fn log_likelihood(&self, z: &Tensor, y: &Tensor) -> Result<Tensor> {
        self.check_density("log_likelihood")?;
        density::log_likelihood(*self, z, y)
    }

    fn score(&self, z: &Tensor, y: &Tensor) -> Result<Tensor> {
        self.check_density("score")?;
        density::score(*self, z, y)
    }
}

impl SampleDensity for SaltAndPepper {
    fn log_density(&self, z: f64, y: f64) -> f64 {
        let exponents = self.exponents(z, y);
        let largest = exponents.into_iter().fold(f64::NEG_INFINITY, f64::max);
        // Added, not only compared: a z that is not a number stays so.
        largest + libm::log(exponents.into_iter().map(|exponent| libm::exp(exponent - largest)).sum())
    }

    fn derivative(&self, z: f64, y: f64) -> f64 {
        let exponents = self.exponents(z, y);
        // The chance that the sample was not flipped.
        let share = 1.0 / exponents.into_iter().map(|exponent| libm::exp(exponent - exponents[0])).sum::<f64>();
        // At a fraction of 1 the share is the inverse of infinity, or of what is no number.
        if self.fraction == 1.0 { 0.0 * z } else { share * (y - z) / (self.sigma * self.sigma) }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Fraction of the samples that are flipped, 0 to 1.
    fraction: f64,
    /// Standard deviation of the others in the unit of the measurement, at least 0; default 0.01.
    #[serde(default = "default_sigma")]
    sigma: f64,
}

/// A little more than one of 255 levels.
fn default_sigma() -> f64 {
    0.01
}

/// `salt_and_pepper`
pub(crate) const ENTRY: Entry<BuildNoise> = Entry {
    name: "salt_and_pepper",
    about: "A fraction of the samples is black or white",
    fields: &[
        ("fraction", "fraction of the samples that are flipped, 0 to 1"),
        ("sigma", "standard deviation of the others in the unit of the measurement, at least 0; default 0.01"),
    ],
    example: "fraction = 0.2\nsigma = 0.1",
    build: |table| {
        let Config { fraction, sigma } = table.try_into()?;
        Ok(Box::new(SaltAndPepper::new(fraction, sigma)?))
    },
};
