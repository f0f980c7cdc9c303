//! Errors that are equally likely within a bound.

use candle_core::Tensor;
use serde::Deserialize;

use super::density::{self, SampleDensity};
use super::{BuildNoise, NoiseModel, check_setting};
use crate::registry::Entry;
use crate::rng::Rng;
use crate::{Error, Result};

/// `y = z + w u + e l` with `u` uniform on `[-1, 1]` and `l` of the standard logistic distribution.
///
/// With the edge `e = 0` the density is a box: the log-likelihood of a row is 0 if all its samples are within `w` of
/// `z`, else −∞, and the score is [`Error::Unsupported`], since no gradient leads back into a box. With `e > 0` it is a
/// box with soft edges, `p ∝ s((w + d) / e) − s((d − w) / e)`, `d = y − z` and `s(t) = 1 / (1 + exp(−t))`, exactly that
/// of the sum above, and `d/dz log p = [s((d − w) / e) − s(−(w + d) / e)] / e`: near zero inside, ±1/e far outside.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Uniform {
    half_width: f64,
    edge: f64,
}

impl Uniform {
    /// Noise within `half_width`, with edges of the logistic scale `edge`, both in the unit of `y`.
    ///
    /// # Errors
    /// [`Error::Config`] unless both are finite, `half_width` above 0 and `edge` at least 0.
    pub fn new(half_width: f64, edge: f64) -> Result<Self> {
        check_setting("uniform", "half_width", half_width, half_width > 0.0, "above 0")?;
        check_setting("uniform", "edge", edge, edge >= 0.0, "of at least 0")?;
        Ok(Self { half_width, edge })
    }
}

impl NoiseModel for Uniform {
    fn corrupt(&self, z: &Tensor, rng: &mut Rng) -> Result<Tensor> {
        let y = (z + rng.uniform_like(z)?.affine(2.0 * self.half_width, -self.half_width)?)?;
        if self.edge == 0.0 {
            // Still a draw, so that what is drawn afterwards does not depend on the edge.
            rng.skip();
            return Ok(y);
        }
        let u = rng.uniform_like(z)?;
        let logistic = (u.log()? - u.affine(-1.0, 1.0)?.log()?)?;
        Ok((y + (logistic * self.edge)?)?)
    }

    fn log_likelihood(&self, z: &Tensor, y: &Tensor) -> Result<Tensor> {
        density::log_likelihood(*self, z, y)
    }

    fn score(&self, z: &Tensor, y: &Tensor) -> Result<Tensor> {
        if self.edge == 0.0 {
            return Err(Error::Unsupported { method: "score", needs: "uniform noise with edge above 0" });
        }
        density::score(*self, z, y)
    }
}

impl SampleDensity for Uniform {
    fn log_density(&self, z: f64, y: f64) -> f64 {
        let (d, w, e) = (y - z, self.half_width, self.edge);
        if e == 0.0 {
            // As a comparison with a sum, so that a number that is none stays so.
            return if d.abs() > w { f64::NEG_INFINITY } else { 0.0 * d };
        }
        // s(a) − s(b) = s(a) s(−b) (1 − exp(b − a)), and b − a is constant.
        -softplus(-(w + d) / e) - softplus((d - w) / e)
    }

    fn derivative(&self, z: f64, y: f64) -> f64 {
        let (d, w, e) = (y - z, self.half_width, self.edge);
        if e == 0.0 {
            return f64::NAN;
        }
        (sigmoid((d - w) / e) - sigmoid(-(w + d) / e)) / e
    }
}

/// `log(1 + exp(t))`
fn softplus(t: f64) -> f64 {
    (if t > 0.0 { t } else { 0.0 * t }) + libm::log1p(libm::exp(-t.abs()))
}

fn sigmoid(t: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-t))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Largest error in the unit of the measurement, above 0.
    half_width: f64,
    /// Scale of the edges in the same unit, at least 0; default 0, a box that has no score.
    #[serde(default)]
    edge: f64,
}

/// `uniform`
pub(crate) const ENTRY: Entry<BuildNoise> = Entry {
    name: "uniform",
    about: "Errors equally likely within a bound; edges may be soft",
    fields: &[
        ("half_width", "largest error in the unit of the measurement, above 0"),
        ("edge", "logistic scale of the edges in the unit of the measurement, at least 0; default 0, without a score"),
    ],
    example: "half_width = 0.1\nedge = 0.02",
    build: |table| {
        let Config { half_width, edge } = table.try_into()?;
        Ok(Box::new(Uniform::new(half_width, edge)?))
    },
};
