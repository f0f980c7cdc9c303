//! A prior of grey images, for images with three channels.

use super::Denoiser;
use crate::Result;
use candle_core::Tensor;
use std::ops::RangeInclusive;
use std::sync::Arc;
use tweedie_operators::Pullback;

/// A prior of grey images as one of colour images whose channels are equal.
///
/// With `x = (g, g, g) + σ n` the mean of the channels says all that x says about g, and its noise is `σ/√3`:
/// `D(x; σ) = (d, d, d)`, `d = D₁(x̄; σ/√3)`, exactly.
#[derive(Clone, Debug)]
pub struct Grey(Arc<dyn Denoiser>);

const CHANNELS: usize = 3;

impl Grey {
    /// `inner`, a prior of images with one channel.
    pub fn new(inner: Arc<dyn Denoiser>) -> Self {
        Self(inner)
    }

    fn sigma(sigma: f64) -> f64 {
        sigma / (CHANNELS as f64).sqrt()
    }

    fn replicate(x: &Tensor) -> candle_core::Result<Tensor> {
        Tensor::cat(&[x; CHANNELS], 1)
    }
}

impl Denoiser for Grey {
    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        Ok(Self::replicate(&self.0.denoise(&x.mean_keepdim(1)?, Self::sigma(sigma))?)?)
    }

    fn channels(&self) -> Option<usize> {
        Some(CHANNELS)
    }

    fn sigma_range(&self) -> RangeInclusive<f64> {
        let (range, factor) = (self.0.sigma_range(), (CHANNELS as f64).sqrt());
        range.start() * factor..=range.end() * factor
    }

    fn native_size(&self) -> Option<(usize, usize)> {
        self.0.native_size()
    }

    fn spread(&self) -> f64 {
        self.0.spread()
    }

    /// The transpose of replicating is the sum of the channels, that of the mean a third for each.
    fn denoise_with_pullback<'a>(&'a self, x: &Tensor, sigma: f64) -> Result<(Tensor, Pullback<'a>)> {
        let (denoised, inner) = self.0.denoise_with_pullback(&x.mean_keepdim(1)?, Self::sigma(sigma))?;
        let pullback = Pullback::new(move |v| {
            let through = inner.apply(&v.sum_keepdim(1)?)?;
            Ok(Self::replicate(&(through / CHANNELS as f64)?)?)
        });
        Ok((Self::replicate(&denoised)?, pullback))
    }
}
