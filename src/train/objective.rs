//! What a network is trained to do.

use crate::Result;
use candle_core::{DType, Tensor};
use std::fmt;
use tweedie_operators::Rng;

/// A loss whose minimum is the score of the data.
///
/// Every objective of score matching is a function of the denoised images at some points: of one for each example in
/// denoising score matching, of several where a derivative of the score is a difference. So a network in training has to
/// give nothing but its outputs and the gradient of a weighted sum of them, whatever it is trained for.
pub trait Objective: fmt::Debug + Send + Sync {
    /// The points for a batch of examples and what is lost there.
    ///
    /// # Shapes
    /// `clean`: `[B, C, H, W]`, pixels in [-1, 1]; `rng` has B streams
    /// # Errors
    /// Those of tensor operations.
    fn draw(&self, clean: &Tensor, rng: &mut Rng) -> Result<Draw>;
}

/// What is lost at some points, of the denoised images there.
pub type LossOf = Box<dyn Fn(&Tensor) -> Result<Loss> + Send>;

/// Where the network is to be evaluated for some examples.
pub struct Draw {
    /// `[N, C, H, W]`.
    pub x: Tensor,
    /// Noise level of each of the N points.
    pub sigmas: Vec<f64>,
    /// Takes `D(x; σ)`, of the shape of `x`.
    pub loss: LossOf,
}

impl fmt::Debug for Draw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draw").field("x", &self.x.shape()).field("sigmas", &self.sigmas).finish_non_exhaustive()
    }
}

/// What a batch lost.
#[derive(Clone, Debug)]
pub struct Loss {
    /// Of every example; the loss of the batch is their mean.
    pub values: Vec<f64>,
    /// Of the batch's loss with respect to the denoised images, in their shape.
    pub gradient: Tensor,
}

/// `[N, 1, 1, 1]` of one number for each of N images.
pub(crate) fn column(values: impl IntoIterator<Item = f64>, like: &Tensor) -> candle_core::Result<Tensor> {
    let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
    let count = values.len();
    Tensor::from_vec(values, (count, 1, 1, 1), like.device())?.to_dtype(like.dtype())
}

/// Sum over all numbers of each image.
pub(crate) fn sums(x: &Tensor) -> candle_core::Result<Vec<f64>> {
    x.flatten_from(1)?.to_dtype(DType::F64)?.sum(1)?.to_vec1()
}
