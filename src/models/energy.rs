//! Networks that are minus the gradient of an energy.

use super::ScoreModel;
use crate::Result;
use candle_core::Tensor;
use tweedie_operators::Pullback;

/// `F(x, c) = −∇_x E(x, c)`, E the sum of all outputs of another network.
///
/// Every [`Scalings`](crate::priors::Scalings) of it are a gradient as well, so that `s = (D − x)/σ²` is conservative, as a
/// score is.
#[derive(Debug)]
pub struct Energy(Box<dyn ScoreModel>);

/// Size of a step along which a derivative is a difference, in standard deviations of the network's input: a third of that
/// cubed is the rounding of single precision, so that both errors are alike.
const STEP: f64 = 1e-2;

impl Energy {
    /// Minus the gradient of what `network` makes.
    pub fn new(network: Box<dyn ScoreModel>) -> Self {
        Self(network)
    }
}

/// `h` such that the root mean square of `h v` is [`STEP`], for every image; 0 where there is no direction.
///
/// # Shapes
/// Returns `[B, 1, 1, 1]`
pub(crate) fn step_along(v: &Tensor) -> candle_core::Result<Tensor> {
    let squares = v.flatten_from(1)?.sqr()?.mean_keepdim(1)?;
    let some = squares.gt(0.0)?.to_dtype(v.dtype())?;
    // Where there is no direction, 0/1.
    let lengths = (squares.sqrt()? + (1.0 - &some)?)?;
    (some.broadcast_div(&lengths)? * STEP)?.reshape((v.dim(0)?, 1, 1, 1))
}

/// `1/2h`, and 0 where h is.
pub(crate) fn over_twice(h: &Tensor) -> candle_core::Result<Tensor> {
    let none = h.eq(0.0)?.to_dtype(h.dtype())?;
    (1.0 - &none)?.div(&((h * 2.0)? + &none)?)
}

impl ScoreModel for Energy {
    fn forward(&self, x: &Tensor, noise: f64) -> Result<Tensor> {
        let (energy, pullback) = self.0.forward_with_pullback(x, noise)?;
        Ok(pullback.apply(&energy.ones_like()?)?.neg()?)
    }

    /// The derivative is symmetric, so that its pullback is the derivative along v, a central difference.
    fn forward_with_pullback<'a>(&'a self, x: &Tensor, noise: f64) -> Result<(Tensor, Pullback<'a>)> {
        let x = x.detach();
        let output = self.forward(&x, noise)?;
        let pullback = Pullback::new(move |v| {
            let h = step_along(v)?;
            let step = v.broadcast_mul(&h)?;
            let at = |x: Tensor| self.forward(&x, noise).map_err(candle_core::Error::wrap);
            let change = (at((&x + &step)?)? - at((&x - &step)?)?)?;
            Ok(change.broadcast_mul(&over_twice(&h)?)?)
        });
        Ok((output, pullback))
    }

    fn channels(&self) -> usize {
        self.0.channels()
    }

    fn stride(&self) -> usize {
        self.0.stride()
    }

    fn operations(&self, height: usize, width: usize) -> f64 {
        // Forward and back.
        2.0 * self.0.operations(height, width)
    }

    fn release_memory(&self) {
        self.0.release_memory();
    }
}
