//! Trained networks, and the files they come from.
//!
//! A network is described once, as a [`tweedie_kernels::network::Network`]; on a CPU the fused executor runs it
//! ([`Fused`]), on other devices candle's tensor operations do ([`Layered`]). An architecture is a function from its
//! configuration to that description and to where a checkpoint keeps the numbers, a [`Recipe`]:
//!
//! | module | family |
//! | --- | --- |
//! | [`unet2d`] | `UNet2DModel` of diffusers |
//! | [`adm`] | guided-diffusion's U-Net, ADM |
//! | [`ddpm`] | the U-Net of DDPM and DDIM |
//! | [`score_sde`] | NCSN++, DDPM++ and DDPM of score_sde |
//! | [`edm`] | `SongUNet` and `DhariwalUNet` of EDM |
//! | [`PatchUNetConfig`] | tweedie's own: a U-Net of patches of pixels |
//! | [`PerceptronConfig`] | tweedie's own: fully connected layers, for points |
//! | [`RefineNetConfig`] | NCSN and NCSNv2, which [`RefineNet`] runs |
//! | [`DrunetConfig`] | DRUNet, which [`Drunet`] runs |

pub mod adm;
mod architecture;
mod bounds;
mod convolution;
pub mod ddpm;
mod draft;
mod drunet;
pub mod edm;
mod energy;
mod family;
mod file;
mod fused;
mod import;
mod layered;
mod model;
mod options;
mod patch_unet;
mod perceptron;
mod preconditioning;
mod quarters;
mod recipe;
mod reference;
mod refinenet;
mod scheduler;
pub mod score_sde;
pub mod unet2d;
mod unet2d_skip;
mod verify;

pub use architecture::Architecture;
pub use drunet::{Drunet, DrunetConfig, DrunetShape};
pub use energy::Energy;
pub(crate) use energy::{over_twice, step_along};
pub use family::{FAMILIES, Family, TensorIndex};
pub(crate) use file::native_metadata;
pub use file::{Checkpoint, NATIVE_VERSION};
pub use fused::Fused;
pub use import::Import;
pub use layered::Layered;
pub use model::Model;
pub use options::ModelOptions;
pub use patch_unet::PatchUNetConfig;
pub use perceptron::PerceptronConfig;
pub use recipe::{Origin, Pick, Recipe};
pub use refinenet::{RefineNet, RefineNetConfig, RefineNetShape};
pub use verify::{Comparison, Stored, Verification, verify};

use crate::Result;
use candle_core::Tensor;
use std::fmt::Debug;
use tweedie_operators::{Pullback, pullback};

/// A network: the raw map `F(x, c)` that [`crate::priors::Preconditioned`] makes a denoiser of.
pub trait ScoreModel: Debug + Send + Sync {
    /// `F(x, noise)`.
    ///
    /// # Shapes
    /// `x`: `[B, C, H, W]`, H and W multiples of [`stride`](Self::stride); `noise`: the network's own coordinate (EDM:
    /// `ln σ / 4`), shared by the batch.
    fn forward(&self, x: &Tensor, noise: f64) -> Result<Tensor>;

    /// `F(x, noise)` and `v ↦ (∂F/∂x)ᵀ v`, by candle's differentiation unless the model knows better.
    fn forward_with_pullback<'a>(&'a self, x: &Tensor, noise: f64) -> Result<(Tensor, Pullback<'a>)> {
        pullback(x, |x| self.forward(x, noise))
    }

    /// Channels of the images.
    fn channels(&self) -> usize;

    /// What height and width have to be multiples of.
    fn stride(&self) -> usize;

    /// Multiplications and additions of one evaluation of an image of `height × width`.
    fn operations(&self, height: usize, width: usize) -> f64;

    /// Returns working memory that is kept between calls to the system.
    fn release_memory(&self) {}
}
