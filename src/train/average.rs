//! Averages of the weights over the steps of training.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tweedie_kernels::Parameters;

/// How fast an average forgets.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Decay {
    /// `min(μ, (1 + n)/(10 + n))` after n updates, as in score_sde: a rate that a short run does not suffer from.
    Rate(f64),
    /// `0.5^(b / min(h, r n))` after n images in batches of b: half of the weight in the last `h` images, at most in the
    /// share `r` of those seen: Karras et al. (2022), <https://arxiv.org/abs/2206.00364>, with r = 0.05.
    HalfLife(f64),
    /// `1 − (1 + n)^(−power)` after n updates, at most 0.9999.
    Power(f64),
}

/// Share of the images seen that an average with a half-life reaches back at most.
const RAMP: f64 = 0.05;
/// Largest rate of [`Decay::Power`].
const SLOWEST: f64 = 0.9999;

impl Decay {
    /// What is kept of the average at update `updates` (from 0), when `images` have been seen in batches of `batch`.
    pub fn rate(self, updates: u64, images: u64, batch: usize) -> f64 {
        let n = updates as f64;
        match self {
            Self::Rate(rate) => rate.min((1.0 + n) / (10.0 + n)),
            Self::HalfLife(images_half) => {
                let half = images_half.min(RAMP * images as f64).max(f64::MIN_POSITIVE);
                0.5_f64.powf(batch as f64 / half)
            }
            Self::Power(power) => (1.0 - (1.0 + n).powf(-power)).min(SLOWEST),
        }
    }

    /// Whether its number is one that can be.
    ///
    /// # Errors
    /// A sentence with the number.
    pub fn check(self) -> Result<(), String> {
        match self {
            Self::Rate(rate) if (0.0..1.0).contains(&rate) => Ok(()),
            Self::Rate(rate) => Err(format!("rate = {rate}, expected 0 to less than 1")),
            Self::HalfLife(images) if images > 0.0 && images.is_finite() => Ok(()),
            Self::HalfLife(images) => Err(format!("half_life = {images}, expected a number of images above 0")),
            Self::Power(power) if power > 0.0 && power <= 1.0 => Ok(()),
            Self::Power(power) => Err(format!("power = {power}, expected a number above 0 and at most 1")),
        }
    }
}

/// `average ← rate · average + (1 − rate) · parameters`.
pub(super) fn update(average: &mut Parameters, parameters: &Parameters, rate: f64) {
    let (keep, new) = (rate as f32, (1.0 - rate) as f32);
    for (name, values) in average {
        let parameters = &parameters[name];
        values.par_chunks_mut(CHUNK).zip(parameters.par_chunks(CHUNK)).for_each(|(values, parameters)| {
            values.iter_mut().zip(parameters).for_each(|(a, x)| *a = keep * *a + new * x);
        });
    }
}

/// Numbers of a task.
const CHUNK: usize = 1 << 14;
