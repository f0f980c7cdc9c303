//! What the particle methods share: draws, weights and resampling, for each image on its own and all on the device.

use super::{Problem, within};
use crate::{Error, Result};
use candle_core::{D, DType, Tensor};
use serde::Deserialize;
use tweedie_operators::Rng;

/// How survivors are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// Points `(i + u)/P` on the cumulated weights, one `u` for an image: the least noise, and equal weights lose nobody.
    Systematic,
    /// P independent draws.
    Multinomial,
}

/// When and how particles are resampled.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resampling {
    /// How survivors are chosen.
    pub scheme: Scheme,
    /// Resamples where the effective number of particles, `1/Σ w²`, is at most this fraction of all; 1 is always.
    pub threshold: f64,
}

impl Default for Resampling {
    fn default() -> Self {
        Self { scheme: Scheme::Systematic, threshold: 1.0 }
    }
}

impl Resampling {
    pub(super) fn checked(self) -> Result<Self> {
        within("threshold", self.threshold, 0.0..=1.0)?;
        Ok(self)
    }
}

/// The number of particles, if there can be as many.
pub(super) fn checked_particles(particles: usize) -> Result<usize> {
    within("particles", particles as f64, 1.0..=100_000.0)?;
    Ok(particles)
}

/// Particles need a proposal that is random.
pub(super) fn checked_renoise(renoise: super::Renoise) -> Result<()> {
    if renoise.fraction(2.0, 1.0) > 0.0 {
        return Ok(());
    }
    let expected = "a part of fresh noise above 0, without which all particles are one".into();
    Err(Error::Config { name: "renoise".into(), got: format!("{renoise:?}"), expected })
}

/// Entries of the tables that compare every particle with every other at once.
const TABLE: usize = 1 << 24;

/// P particles for each of B images: row `b P + p` of every tensor, or `[B, P]` for one number each.
pub(super) struct Cloud {
    rows: usize,
    particles: usize,
    resampling: Resampling,
    /// `b P`, `[B, 1]`.
    offsets: Tensor,
    /// `0 … P − 1`, `[1, P]`.
    order: Tensor,
    /// `1` where the row is at most the column, `[1, P, P]`.
    upper: Tensor,
}

impl Cloud {
    pub(super) fn new(particles: usize, resampling: Resampling, rows: usize, like: &Tensor) -> Result<Self> {
        let (device, count) = (like.device(), particles as u32);
        let offsets = Tensor::arange(0, rows as u32, device)?.affine(f64::from(count), 0.0)?.unsqueeze(1)?;
        let order = Tensor::arange(0, count, device)?.unsqueeze(0)?;
        let upper = Tensor::triu2(particles, like.dtype(), device)?.unsqueeze(0)?;
        Ok(Self { rows, particles, resampling, offsets, order, upper })
    }

    /// The first states, one draw for each particle.
    pub(super) fn start(
        &self,
        problem: &Problem<'_>,
        shape: (usize, usize, usize),
        sigma: f64,
        rng: &mut Rng,
    ) -> Result<Tensor> {
        let draws: Result<Vec<Tensor>> = (0..self.particles).map(|_| problem.start(shape, sigma, rng)).collect();
        Ok(Tensor::stack(&draws?, 1)?.flatten(0, 1)?)
    }

    /// Standard normal numbers for all particles; one draw of B rows for each of the P, so that an image draws the same
    /// whatever the others.
    ///
    /// `like`: `[B P, C, H, W]`.
    pub(super) fn normal(&self, like: &Tensor, rng: &mut Rng) -> Result<Tensor> {
        let row = like.narrow(0, 0, self.rows)?;
        let draws: Result<Vec<Tensor>, _> = (0..self.particles).map(|_| rng.normal_like(&row)).collect();
        Ok(Tensor::stack(&draws?, 1)?.flatten(0, 1)?)
    }

    /// What belongs to each image, or one for all, for every particle.
    pub(super) fn repeat(&self, rows: &Tensor) -> Result<Tensor> {
        if rows.dim(0)? == 1 {
            return Ok(rows.clone());
        }
        let mut shape = rows.dims().to_vec();
        shape.insert(1, self.particles);
        Ok(rows.unsqueeze(1)?.broadcast_as(shape)?.flatten(0, 1)?)
    }

    /// One number for each particle, `[B, P]`: the sum over its values.
    pub(super) fn sums(&self, values: &Tensor) -> Result<Tensor> {
        Ok(values.flatten_from(1)?.sum(1)?.reshape((self.rows, self.particles))?)
    }

    /// The particle that stands for each image, whatever the weights.
    pub(super) fn first(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.apart(x)?.narrow(1, 0, 1)?.squeeze(1)?)
    }

    /// `Σ w x` for each image.
    pub(super) fn mean(&self, x: &Tensor, log_weights: &Tensor) -> Result<Tensor> {
        let weights = weights(log_weights)?.reshape((self.rows, self.particles, 1, 1, 1))?;
        Ok(self.apart(x)?.broadcast_mul(&weights)?.sum(1)?)
    }

    /// One particle for each image, by the weights; one draw.
    pub(super) fn pick(&self, x: &Tensor, log_weights: &Tensor, rng: &mut Rng) -> Result<Tensor> {
        let weights = weights(log_weights)?;
        let at = rng.uniform_like(&weights.narrow(1, 0, 1)?)?;
        let chosen = self.ancestors(&weights, &at)?.add(&self.offsets)?.flatten_all()?;
        Ok(x.index_select(&chosen, 0)?)
    }

    /// Who goes on, as rows `[B P]`, and the log weights that they have then; one draw.
    pub(super) fn resample(&self, log_weights: &Tensor, rng: &mut Rng) -> Result<(Tensor, Tensor)> {
        let weights = weights(log_weights)?;
        let positions = match self.resampling.scheme {
            Scheme::Systematic => {
                let order = self.order.to_dtype(weights.dtype())?;
                let shift = rng.uniform_like(&weights.narrow(1, 0, 1)?)?;
                (order.broadcast_add(&shift)? / self.particles as f64)?
            }
            Scheme::Multinomial => rng.uniform_like(&weights)?,
        };
        let chosen = self.ancestors(&weights, &positions)?;
        let zero = log_weights.zeros_like()?;
        let (chosen, log_weights) = if self.resampling.threshold >= 1.0 {
            (chosen, zero)
        } else {
            let effective = weights.sqr()?.sum_keepdim(1)?.recip()?;
            let few = effective.le(self.resampling.threshold * self.particles as f64)?.broadcast_as(weights.shape())?;
            let stay = self.order.broadcast_as(weights.shape())?;
            (few.where_cond(&chosen, &stay)?, few.where_cond(&zero, log_weights)?)
        };
        Ok((chosen.broadcast_add(&self.offsets)?.flatten_all()?, log_weights))
    }

    /// The particles whose shares of the weights the positions lie in: `[B, N]` for positions `[B, N]` from 0 to 1.
    fn ancestors(&self, weights: &Tensor, positions: &Tensor) -> Result<Tensor> {
        let count = positions.dim(1)?;
        // A product for each row: that of two matrices would depend on how many rows there are.
        let upper = self.upper.broadcast_as((self.rows, self.particles, self.particles))?;
        let ends = upper.transpose(1, 2)?.matmul(&weights.unsqueeze(2)?.contiguous()?)?.transpose(1, 2)?;
        let block = (TABLE / (self.particles * count)).clamp(1, self.rows);
        let mut blocks = Vec::new();
        for start in (0..self.rows).step_by(block) {
            let rows = block.min(self.rows - start);
            let positions = positions.narrow(0, start, rows)?.unsqueeze(2)?;
            let passed = ends.narrow(0, start, rows)?.broadcast_lt(&positions)?.to_dtype(DType::F32)?.sum(D::Minus1)?;
            // The shares add up to 1 but for rounding.
            blocks.push(passed.minimum((self.particles - 1) as f64)?.to_dtype(DType::U32)?);
        }
        Ok(Tensor::cat(&blocks, 0)?)
    }

    /// `[B, P, C, H, W]`.
    fn apart(&self, x: &Tensor) -> Result<Tensor> {
        let (_, channels, height, width) = x.dims4()?;
        Ok(x.reshape((self.rows, self.particles, channels, height, width))?)
    }
}

/// Weights whose sum is 1 for each image, `[B, P]`.
pub(super) fn weights(log_weights: &Tensor) -> Result<Tensor> {
    let weights = log_weights.broadcast_sub(&log_weights.max_keepdim(1)?)?.exp()?;
    Ok(weights.broadcast_div(&weights.sum_keepdim(1)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn log_weights(rows: &[[f64; 4]]) -> Tensor {
        let logs: Vec<f64> = rows.iter().flatten().map(|weight| weight.ln()).collect();
        Tensor::from_vec(logs, (rows.len(), 4), &Device::Cpu).unwrap()
    }

    /// How often each particle of each row goes on.
    fn offspring(rows: &[[f64; 4]], resampling: Resampling, seed: u64) -> Vec<[usize; 4]> {
        let log_weights = log_weights(rows);
        let cloud = Cloud::new(4, resampling, rows.len(), &log_weights).unwrap();
        let (chosen, _) = cloud.resample(&log_weights, &mut Rng::new(seed, 0..rows.len() as u64)).unwrap();
        let mut counts = vec![[0; 4]; rows.len()];
        for (at, chosen) in chosen.to_vec1::<u32>().unwrap().into_iter().enumerate() {
            assert_eq!(chosen as usize / 4, at / 4, "survivors stay with their image");
            counts[at / 4][chosen as usize % 4] += 1;
        }
        counts
    }

    const ROWS: [[f64; 4]; 3] = [[0.5, 0.3, 0.15, 0.05], [0.25, 0.25, 0.25, 0.25], [0.0, 0.0, 1.0, 0.0]];

    #[test]
    fn systematic_resampling_rounds_the_expected_number_up_or_down_and_is_right_on_average() {
        let mut sums = [[0; 4]; 3];
        for seed in 0..2000 {
            for (row, counts) in offspring(&ROWS, Resampling::default(), seed).into_iter().enumerate() {
                for (k, count) in counts.into_iter().enumerate() {
                    let expected = 4.0 * ROWS[row][k];
                    assert!((count as f64 - expected).abs() < 1.0, "{count} of {expected} expected");
                    sums[row][k] += count;
                }
            }
        }
        for (sums, weights) in sums.iter().zip(ROWS) {
            for (sum, weight) in sums.iter().zip(weights) {
                assert!((f64::from(*sum as u32) / 2000.0 - 4.0 * weight).abs() < 0.05, "{sum}, weight {weight}");
            }
        }
    }

    #[test]
    fn independent_draws_are_right_on_average_and_vary() {
        let resampling = Resampling { scheme: Scheme::Multinomial, threshold: 1.0 };
        let draws: Vec<f64> = (0..4000).map(|seed| offspring(&ROWS, resampling, seed)[0][1] as f64).collect();
        let mean = draws.iter().sum::<f64>() / 4000.0;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 4000.0;
        // A binomial of 4 draws with chance 0.3.
        assert!((mean - 1.2).abs() < 0.06 && (variance - 0.84).abs() < 0.08, "{mean}, {variance}");
    }

    #[test]
    fn rows_with_enough_effective_particles_are_left_as_they_are() {
        let log_weights = log_weights(&ROWS);
        // Effective numbers are 2.74, 4 and 1.
        let resampling = Resampling { threshold: 0.5, ..Resampling::default() };
        let cloud = Cloud::new(4, resampling, 3, &log_weights).unwrap();
        let (chosen, left) = cloud.resample(&log_weights, &mut Rng::new(3, 0..3)).unwrap();
        assert_eq!(chosen.to_vec1::<u32>().unwrap(), [0, 1, 2, 3, 4, 5, 6, 7, 10, 10, 10, 10]);
        let left = left.to_vec2::<f64>().unwrap();
        assert_eq!(left[0], log_weights.to_vec2::<f64>().unwrap()[0]);
        assert_eq!(left[2], [0.0; 4]);
    }

    #[test]
    fn one_particle_is_picked_by_the_weights() {
        let cloud = Cloud::new(4, Resampling::default(), 3, &log_weights(&ROWS)).unwrap();
        let particles = Tensor::arange(0.0, 12.0, &Device::Cpu).unwrap().reshape((12, 1, 1, 1)).unwrap();
        let mut first = [0; 4];
        for seed in 0..2000 {
            let picked = cloud.pick(&particles, &log_weights(&ROWS), &mut Rng::new(seed, 0..3)).unwrap();
            let picked = picked.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            assert_eq!(picked[2], 10.0);
            first[picked[0] as usize] += 1;
        }
        for (count, weight) in first.iter().zip(ROWS[0]) {
            let share = f64::from(*count) / 2000.0;
            assert!((share - weight).abs() < 0.045, "{share} for {weight}");
        }
    }
}
