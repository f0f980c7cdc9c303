//! The tone curve of a display or a camera.

use std::sync::Arc;

use candle_core::Tensor;
use serde::Deserialize;

use super::{BuildOperator, ForwardOperator};
use crate::function::{Pointwise, apply, pull};
use crate::map::Real;
use crate::registry::Entry;
use crate::{Error, Result};

/// Where a power below one, whose slope at black is infinite, gives way to a polynomial: the first of 255 steps.
const TOE: f64 = 1.0 / 255.0;

/// `y = 2 f((x + 1) / 2) − 1` with `f(u) = u^γ`.
///
/// Below black `f` is odd, `f(−u) = −f(u)`, so that images outside `[-1, 1]` have values and slopes. For γ < 1 the slope
/// of the power is infinite at black; there, for `|u| < 1/255`, `f(u) = au + bu³` with `a = (3 − γ) ε^(γ−1) / 2` and
/// `b = (γ − 1) ε^(γ−3) / 2`, which meets value and slope of the power at `ε = 1/255`. Of the 256 levels of an 8-bit
/// picture all are mapped by the power itself.
#[derive(Clone, Debug)]
pub struct Gamma {
    curve: Arc<Curve>,
}

impl Gamma {
    /// With the exponent γ.
    ///
    /// # Errors
    /// [`Error::Config`] unless `exponent` is finite and above 0.
    pub fn new(exponent: f64) -> Result<Self> {
        if !(exponent > 0.0 && exponent.is_finite()) {
            return Err(Error::config("gamma", format!("exponent is {exponent}, expected a finite number above 0")));
        }
        let toe = if exponent < 1.0 { TOE } else { 0.0 };
        let linear = 0.5 * (3.0 - exponent) * TOE.powf(exponent - 1.0);
        let cubic = 0.5 * (exponent - 1.0) * TOE.powf(exponent - 3.0);
        Ok(Self { curve: Arc::new(Curve { exponent, toe, linear, cubic }) })
    }
}

#[derive(Debug)]
struct Curve {
    exponent: f64,
    /// Below this `f` is the polynomial.
    toe: f64,
    linear: f64,
    cubic: f64,
}

impl Pointwise for Curve {
    const NAME: &'static str = "gamma";

    fn at<T: Real>(&self, x: T) -> T {
        let u = (x + T::one()) * T::of(0.5);
        let size = u.abs();
        let f = if size < T::of(self.toe) {
            u * (T::of(self.linear) + T::of(self.cubic) * u * u)
        } else {
            size.powf(T::of(self.exponent)).copysign(u)
        };
        f + f - T::one()
    }

    /// The halving before and the doubling after cancel.
    fn slope<T: Real>(&self, x: T) -> T {
        let u = (x + T::one()) * T::of(0.5);
        let size = u.abs();
        if size < T::of(self.toe) {
            T::of(self.linear) + T::of(3.0 * self.cubic) * u * u
        } else {
            T::of(self.exponent) * size.powf(T::of(self.exponent - 1.0))
        }
    }
}

impl ForwardOperator for Gamma {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        apply(&self.curve, x)
    }

    fn vjp(&self, x: &Tensor, v: &Tensor) -> Result<Tensor> {
        pull(&self.curve, x, v)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Exponent on brightness from 0 to 1; below 1 brightens.
    exponent: f64,
}

/// `gamma`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "gamma",
    about: "Tone curve: a power of brightness",
    fields: &[("exponent", "exponent on brightness from 0 to 1, above 0; below 1 brightens")],
    example: "exponent = 2.2",
    build: BuildOperator::same_shape(|table, _| {
        let Config { exponent } = table.try_into()?;
        Ok(Box::new(Gamma::new(exponent)?))
    }),
};
