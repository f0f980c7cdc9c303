//! A sensor that saturates.

use std::sync::Arc;

use candle_core::Tensor;
use serde::Deserialize;

use super::{BuildOperator, ForwardOperator};
use crate::function::{Pointwise, apply, clamp, pull};
use crate::map::Real;
use crate::registry::Entry;
use crate::{Error, Result};

/// `y = clip(g x, a, b)`: what a sensor of a small dynamic range records of a scene of a large one.
///
/// Zhang et al. (2024), <https://arxiv.org/abs/2407.01521>, reconstruction of high dynamic range, with g = 2, a = −1,
/// b = 1.
#[derive(Clone, Debug)]
pub struct Clip {
    saturation: Arc<Saturation>,
}

impl Clip {
    /// `gain` and the range from `low` to `high` of a measurement, in the unit of a pixel.
    ///
    /// # Errors
    /// [`Error::Config`] unless all are finite, `gain` is not zero, and `low` is below `high`.
    pub fn new(gain: f64, low: f64, high: f64) -> Result<Self> {
        if !gain.is_finite() || gain == 0.0 {
            return Err(Error::config("clip", format!("gain is {gain}, expected a finite number other than 0")));
        }
        if !(low.is_finite() && high.is_finite() && low < high) {
            let reason = format!("low is {low} and high is {high}, expected finite numbers, low below high");
            return Err(Error::config("clip", reason));
        }
        Ok(Self { saturation: Arc::new(Saturation { gain, low, high }) })
    }
}

#[derive(Debug)]
struct Saturation {
    gain: f64,
    low: f64,
    high: f64,
}

impl Pointwise for Saturation {
    const NAME: &'static str = "clip";

    fn at<T: Real>(&self, x: T) -> T {
        clamp(x * T::of(self.gain), self.low, self.high)
    }

    /// The gain up to the bounds, zero beyond.
    fn slope<T: Real>(&self, x: T) -> T {
        let scaled = x * T::of(self.gain);
        // `&` and not `&&`: without a branch the loop over pixels vectorises.
        let inside = (scaled >= T::of(self.low)) & (scaled <= T::of(self.high));
        if inside { T::of(self.gain) } else { T::zero() }
    }
}

impl ForwardOperator for Clip {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        apply(&self.saturation, x)
    }

    fn vjp(&self, x: &Tensor, v: &Tensor) -> Result<Tensor> {
        pull(&self.saturation, x, v)
    }
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Factor before clipping; default 2.
    gain: f64,
    /// Lower end of a measurement, in the unit of a pixel; default −1.
    low: f64,
    /// Upper end of a measurement, in the unit of a pixel; default 1.
    high: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { gain: 2.0, low: -1.0, high: 1.0 }
    }
}

/// `clip`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "clip",
    about: "Sensor that saturates, for high dynamic range",
    fields: &[
        ("gain", "factor before clipping, not 0; default 2"),
        ("low", "lower end of a measurement in the unit of a pixel; default -1"),
        ("high", "upper end of a measurement in the unit of a pixel, above low; default 1"),
    ],
    example: "gain = 2.0",
    build: BuildOperator::same_shape(|table, _| {
        let Config { gain, low, high } = table.try_into()?;
        Ok(Box::new(Clip::new(gain, low, high)?))
    }),
};
