//! Photon counts.

use candle_core::Tensor;
use serde::Deserialize;

use super::density::{self, SampleDensity};
use super::{BuildNoise, NoiseModel, check_setting};
use crate::Result;
use crate::registry::Entry;
use crate::rng::Rng;

/// Photon counts `k ~ Poisson(g z′)`, `y = 2 k / g − 1`, with the intensity `z′ = (z + 1) / 2` and `g = 255 · rate`
/// photons in a white pixel.
///
/// Intensities below black send no photons; those above white are allowed.
///
/// `log p(y | z) = k log λ − λ` with `λ = g z′` and `k = max(g (y + 1) / 2, 0)`. Below `λ₀ =` 0.1 photons the logarithm
/// is continued by its expansion to second order at `λ₀`, and below black the second term stays zero: samplers visit
/// images outside of `[-1, 1]`, where the exact density is zero and has no gradient. If measurements are clamped, the
/// likelihood takes no notice of it.
///
/// Measurement and range after Chung et al. (2023), <https://arxiv.org/abs/2209.14687>, whose code clamps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Poisson {
    /// `g`.
    photons: f64,
    clamp: bool,
}

/// Counts below which the logarithm is continued as a parabola.
const LOWEST_MEAN: f64 = 0.1;

impl Poisson {
    /// `255 · rate` photons in a white pixel; with `clamp`, measurements end at `[-1, 1]`.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) unless `rate` is finite and above 0.
    pub fn new(rate: f64, clamp: bool) -> Result<Self> {
        check_setting("poisson", "rate", rate, rate > 0.0, "above 0")?;
        Ok(Self { photons: 255.0 * rate, clamp })
    }
}

impl NoiseModel for Poisson {
    fn corrupt(&self, z: &Tensor, rng: &mut Rng) -> Result<Tensor> {
        let counts = rng.poisson(&z.affine(0.5 * self.photons, 0.5 * self.photons)?)?;
        let y = counts.affine(2.0 / self.photons, -1.0)?;
        Ok(if self.clamp { y.clamp(-1.0, 1.0)? } else { y })
    }

    fn log_likelihood(&self, z: &Tensor, y: &Tensor) -> Result<Tensor> {
        density::log_likelihood(*self, z, y)
    }

    fn score(&self, z: &Tensor, y: &Tensor) -> Result<Tensor> {
        density::score(*self, z, y)
    }
}

impl SampleDensity for Poisson {
    fn log_density(&self, z: f64, y: f64) -> f64 {
        let mean = 0.5 * self.photons * (z + 1.0);
        let count = (0.5 * self.photons * (y + 1.0)).max(0.0);
        let log = if mean >= LOWEST_MEAN {
            libm::log(mean)
        } else {
            let step = mean / LOWEST_MEAN - 1.0;
            libm::log(LOWEST_MEAN) + step - 0.5 * step * step
        };
        // As a comparison, so that a mean that is not a number stays so.
        count * log - if mean < 0.0 { 0.0 } else { mean }
    }

    fn derivative(&self, z: f64, y: f64) -> f64 {
        let mean = 0.5 * self.photons * (z + 1.0);
        let count = (0.5 * self.photons * (y + 1.0)).max(0.0);
        let log = if mean >= LOWEST_MEAN { 1.0 / mean } else { (2.0 - mean / LOWEST_MEAN) / LOWEST_MEAN };
        0.5 * self.photons * (count * log - if mean < 0.0 { 0.0 } else { 1.0 })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// Photons in a white pixel, divided by 255; above 0, default 1.
    rate: f64,
    /// Whether measurements end at [-1, 1]; default false.
    clamp: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { rate: 1.0, clamp: false }
    }
}

/// `poisson`
pub(crate) const ENTRY: Entry<BuildNoise> = Entry {
    name: "poisson",
    about: "Photon counts of the intensity (z + 1) / 2",
    fields: &[
        ("rate", "photons in a white pixel divided by 255, above 0; default 1"),
        ("clamp", "whether measurements end at [-1, 1]; default false"),
    ],
    example: "rate = 0.05",
    build: |table| {
        let Config { rate, clamp } = table.try_into()?;
        Ok(Box::new(Poisson::new(rate, clamp)?))
    },
};
