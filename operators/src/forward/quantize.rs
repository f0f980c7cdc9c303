//! Few levels per pixel.

use std::sync::Arc;

use candle_core::Tensor;
use serde::Deserialize;

use super::{BuildOperator, ForwardOperator};
use crate::function::{Pointwise, apply, clamp, pull};
use crate::map::Real;
use crate::registry::Entry;
use crate::{Error, Result};

/// Each value becomes the nearest of `n` levels that are spread evenly over `[-1, 1]`.
///
/// [`measure`](ForwardOperator::measure) rounds, and clips to the levels there are. Rounding has no useful derivative, so
/// [`forward`](ForwardOperator::forward) puts `⌊u⌉ + (u − ⌊u⌉)³` in its place, `u` counting levels: it equals rounding at
/// the levels, and its slope is above zero between them. It goes on in the same way outside `[-1, 1]`.
///
/// Shin and Song (2017), JPEG-resistant adversarial images, workshop on machine learning and computer security of NIPS.
#[derive(Clone, Debug)]
pub struct Quantize {
    surrogate: Arc<Surrogate>,
    levels: Arc<Levels>,
}

impl Quantize {
    /// With this number of levels.
    ///
    /// # Errors
    /// [`Error::Config`] unless `levels` is from 2 to 65536.
    pub fn new(levels: usize) -> Result<Self> {
        if !(2..=65536).contains(&levels) {
            return Err(Error::config("quantize", format!("levels is {levels}, expected 2 to 65536")));
        }
        let steps = (levels - 1) as f64;
        Ok(Self { surrogate: Arc::new(Surrogate { steps }), levels: Arc::new(Levels { steps }) })
    }
}

/// The nearest integer, by an addition after which there are no digits for a fraction; ties go to even. For
/// `|u| < 2²²`, which vectorises where the instruction for rounding is not at hand.
#[inline]
pub(super) fn nearest<T: Real>(u: T) -> T {
    let shift = T::of(if T::epsilon() > T::of(1e-10) { 1.5 * (1u64 << 23) as f64 } else { 1.5 * (1u64 << 52) as f64 });
    (u + shift) - shift
}

/// `⌊u⌉ + (u − ⌊u⌉)³`
#[inline]
pub(super) fn soft_round<T: Real>(u: T) -> T {
    let whole = nearest(u);
    let rest = u - whole;
    whole + rest * rest * rest
}

/// Derivative of [`soft_round`].
#[inline]
pub(super) fn soft_round_slope<T: Real>(u: T) -> T {
    let rest = u - nearest(u);
    T::of(3.0) * rest * rest
}

#[derive(Debug)]
struct Surrogate {
    /// Levels less one.
    steps: f64,
}

impl Pointwise for Surrogate {
    const NAME: &'static str = "quantize";

    fn at<T: Real>(&self, x: T) -> T {
        let u = (x + T::one()) * T::of(0.5 * self.steps);
        soft_round(u) * T::of(2.0 / self.steps) - T::one()
    }

    /// The scales before and after cancel.
    fn slope<T: Real>(&self, x: T) -> T {
        soft_round_slope((x + T::one()) * T::of(0.5 * self.steps))
    }
}

#[derive(Debug)]
struct Levels {
    /// Levels less one.
    steps: f64,
}

impl Pointwise for Levels {
    const NAME: &'static str = "quantize";

    fn at<T: Real>(&self, x: T) -> T {
        let u = ((x + T::one()) * T::of(0.5 * self.steps)).round();
        clamp(u, 0.0, self.steps) * T::of(2.0 / self.steps) - T::one()
    }

    fn slope<T: Real>(&self, _: T) -> T {
        T::zero()
    }
}

impl ForwardOperator for Quantize {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        apply(&self.surrogate, x)
    }

    fn vjp(&self, x: &Tensor, v: &Tensor) -> Result<Tensor> {
        pull(&self.surrogate, x, v)
    }

    fn measure(&self, x: &Tensor) -> Result<Tensor> {
        Ok(apply(&self.levels, x)?.detach())
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Number of levels from −1 to 1.
    levels: usize,
}

/// `quantize`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "quantize",
    about: "Few levels per pixel, rounded to the nearest",
    fields: &[("levels", "number of levels from -1 to 1, 2 to 65536")],
    example: "levels = 4",
    build: BuildOperator::same_shape(|table, _| {
        let Config { levels } = table.try_into()?;
        Ok(Box::new(Quantize::new(levels)?))
    }),
};
