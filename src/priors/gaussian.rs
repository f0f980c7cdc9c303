//! Independent Gaussian pixels: the prior whose denoiser, score and posteriors are known exactly.

use super::Denoiser;
use crate::{Error, Result};
use candle_core::Tensor;
use std::ops::RangeInclusive;

/// Every value of every pixel is `N(mean, std²)`, independently.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gaussian {
    mean: f64,
    std: f64,
}

impl Gaussian {
    /// # Errors
    /// `Config` if `mean` is not finite or `std` is not a finite positive number.
    pub fn new(mean: f64, std: f64) -> Result<Self> {
        let refuse = |name: &str, got: f64, expected: &str| {
            Err(Error::Config { name: name.into(), got: got.to_string(), expected: expected.into() })
        };
        if !mean.is_finite() {
            return refuse("mean of the gaussian prior", mean, "a finite number");
        }
        if !(std.is_finite() && std > 0.0) {
            return refuse("std of the gaussian prior", std, "a finite number above 0");
        }
        Ok(Self { mean, std })
    }

    /// Mean of every pixel.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// Standard deviation of every pixel.
    pub fn std(&self) -> f64 {
        self.std
    }
}

/// `D(x; σ) = (τ² x + σ² m) / (τ² + σ²)`.
impl Denoiser for Gaussian {
    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        let (prior, noise) = (self.std * self.std, sigma * sigma);
        Ok(x.affine(prior / (prior + noise), noise * self.mean / (prior + noise))?)
    }

    fn channels(&self) -> Option<usize> {
        None
    }

    fn sigma_range(&self) -> RangeInclusive<f64> {
        0.002..=80.0
    }

    fn spread(&self) -> f64 {
        self.std
    }
}
