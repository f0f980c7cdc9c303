//! Distributions of images, known through their denoisers.
//!
//! | prior | what it knows | images |
//! | --- | --- | --- |
//! | [`Preconditioned`] | what a network learned | any size, padded by reflection to the network's stride |
//! | [`Tiled`] | the same, in overlapping windows | any size, memory of one window |
//! | [`Gathered`] | the same, for several threads in common calls | as that one |
//! | [`Grey`] | a prior of grey images, of three equal channels | as that one |
//! | [`Gaussian`] | independent pixels, exactly | any size |
//! | [`Mixture`] | several Gaussians of any covariance, exactly, with their posteriors | one size |

mod direct;
mod gathered;
mod gaussian;
mod grey;
mod linear_process;
mod mixture;
mod preconditioned;
mod tiled;
mod variance_exploding;
mod variance_preserving;

pub use direct::{Direct, Quantity};
pub use gathered::Gathered;
pub use gaussian::Gaussian;
pub use grey::Grey;
pub use linear_process::LinearProcess;
pub use mixture::Mixture;
pub use preconditioned::{Parameterization, Preconditioned, Scalings};
pub use tiled::{Tiled, window_starts};
pub use variance_exploding::{NoiseCoordinate, VarianceExploding};
pub use variance_preserving::{Prediction, Time, VariancePreserving};

use crate::Result;
use candle_core::Tensor;
use std::fmt::Debug;
use std::ops::RangeInclusive;
use tweedie_operators::{Pullback, pullback};

/// A distribution of images, known through its posterior mean under Gaussian noise: `x = x₀ + σ n` throughout.
///
/// [`denoise`](Self::denoise), [`channels`](Self::channels) and [`sigma_range`](Self::sigma_range) are required; a prior
/// that is not made of differentiable tensor operations supplies
/// [`denoise_with_pullback`](Self::denoise_with_pullback) as well.
///
/// # Laws
/// * rows are independent: `D([x₁; x₂]) = [D(x₁); D(x₂)]`;
/// * the pullback is the transposed derivative of `denoise`.
pub trait Denoiser: Debug + Send + Sync {
    /// `E[x₀ | x₀ + σ n = x]`.
    ///
    /// # Shapes
    /// `x`: `[B, C, H, W]`, pixels in `[-1, 1]` plus noise; `sigma > 0` in the same unit, shared by the batch.
    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor>;

    /// Channels of the images; `None` if any number will do.
    fn channels(&self) -> Option<usize>;

    /// Noise levels the prior is good for.
    fn sigma_range(&self) -> RangeInclusive<f64>;

    /// Height and width of the images it was made for; `None`, the default, if any size will do.
    fn native_size(&self) -> Option<(usize, usize)> {
        None
    }

    /// Standard deviation of a number of an image, over images and pixels; by default 0.5, about that of photos.
    fn spread(&self) -> f64 {
        0.5
    }

    /// The network that it is made of; `None`, the default, for a prior that is a formula or made of others.
    fn preconditioned(&self) -> Option<&Preconditioned> {
        None
    }

    /// `∇ log p_σ(x) = (E[x₀ | x] − x) / σ²` (Tweedie's formula).
    fn score(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        Ok(((self.denoise(x, sigma)? - x)? / (sigma * sigma))?)
    }

    /// The denoised image and `v ↦ (∂D/∂x)ᵀ v`, by candle's differentiation.
    fn denoise_with_pullback<'a>(&'a self, x: &Tensor, sigma: f64) -> Result<(Tensor, Pullback<'a>)> {
        pullback(x, |x| self.denoise(x, sigma))
    }
}
