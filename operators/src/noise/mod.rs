//! The random half of a measurement: the noise models, and the list of them.

use std::fmt::Debug;

use candle_core::Tensor;

use crate::pullback::pullback;
use crate::registry::Entry;
use crate::rng::Rng;
use crate::{Error, Result};

mod density;
mod gaussian;
mod laplace;
mod poisson;
mod poisson_gaussian;
mod salt_and_pepper;
mod speckle;
mod uniform;

pub use gaussian::Gaussian;
pub use laplace::Laplace;
pub use poisson::Poisson;
pub use poisson_gaussian::PoissonGaussian;
pub use salt_and_pepper::SaltAndPepper;
pub use speckle::Speckle;
pub use uniform::Uniform;

/// Makes a noise model of a configuration.
pub type BuildNoise = fn(toml::Table) -> Result<Box<dyn NoiseModel>>;

/// All noise models that have a name.
pub const NOISES: &[Entry<BuildNoise>] = &[
    gaussian::ENTRY,
    poisson::ENTRY,
    poisson_gaussian::ENTRY,
    uniform::ENTRY,
    salt_and_pepper::ENTRY,
    laplace::ENTRY,
    speckle::ENTRY,
];

/// A density `p(y | z)` around the clean measurement `z = A(x)`.
///
/// [`corrupt`](Self::corrupt) and [`log_likelihood`](Self::log_likelihood) must be written, and must agree.
///
/// # Laws
/// Checked for every entry of [`NOISES`]: rows are independent, and `score` is the derivative of `log_likelihood`.
pub trait NoiseModel: Debug + Send + Sync {
    /// Draws `y` from `p(y | z)`; row `i` depends on `z[i]` and on stream `i` of `rng` only.
    fn corrupt(&self, z: &Tensor, rng: &mut Rng) -> Result<Tensor>;

    /// `log p(y | z)` in nats, up to a term free of `z`.
    ///
    /// # Shapes
    /// `z` and `y`: `[B, ..]`, the same shape; returns `[B]`.
    fn log_likelihood(&self, z: &Tensor, y: &Tensor) -> Result<Tensor>;

    /// `∇_z log p(y | z)`, by differentiation of [`log_likelihood`](Self::log_likelihood).
    fn score(&self, z: &Tensor, y: &Tensor) -> Result<Tensor> {
        let (value, pullback) = pullback(z, |z| self.log_likelihood(z, y))?;
        pullback.apply(&value.ones_like()?)
    }

    /// Standard deviation in the unit of `y`, if the noise is additive, white and Gaussian.
    fn gaussian_sigma(&self) -> Option<f64> {
        None
    }
}

/// Refuses a setting that is not finite or not in its range.
fn check_setting(name: &str, field: &str, value: f64, in_range: bool, range: &str) -> Result<()> {
    if in_range && value.is_finite() {
        return Ok(());
    }
    Err(Error::config(name, format!("{field} is {value}, expected a finite number {range}")))
}
