//! Adam, Kingma and Ba (2015), <https://arxiv.org/abs/1412.6980>.

use candle_core::{Result, Tensor};

/// Steps of an optimiser that treats every pixel apart, and so the rows of a batch.
#[derive(Debug)]
pub(super) struct Adam {
    /// Learning rate, in the unit of what is optimised.
    rate: f64,
    /// Decay of the means of the gradient and of its square.
    beta: (f64, f64),
    means: Option<(Tensor, Tensor)>,
    steps: i32,
}

/// Keeps a step finite where there never was a gradient.
const EPSILON: f64 = 1e-8;

impl Adam {
    pub(super) fn new(rate: f64, beta: (f64, f64)) -> Self {
        Self { rate, beta, means: None, steps: 0 }
    }

    /// What to subtract: `α m̂ / (√v̂ + ε)`.
    pub(super) fn step(&mut self, gradient: &Tensor) -> Result<Tensor> {
        let (one, two) = self.beta;
        let (new, square) = (gradient.affine(1.0 - one, 0.0)?, gradient.sqr()?.affine(1.0 - two, 0.0)?);
        let (mean, variance) = match self.means.take() {
            Some((mean, variance)) => ((mean.affine(one, 0.0)? + new)?, (variance.affine(two, 0.0)? + square)?),
            None => (new, square),
        };
        self.steps += 1;
        let (of_mean, of_variance) = (1.0 - one.powi(self.steps), 1.0 - two.powi(self.steps));
        let root = variance.sqrt()?.affine(of_variance.sqrt().recip(), EPSILON)?;
        let step = (mean.affine(self.rate / of_mean, 0.0)? / root)?;
        self.means = Some((mean, variance));
        Ok(step)
    }
}
