//! Measurement models `y = N(A(x))` for image restoration.
//!
//! A photo `x` is seen through an operator `A` (a mask, the mean of blocks, a blur) and noise `N`. This crate holds both
//! halves and their joint, and knows nothing of priors or samplers:
//!
//! * [`forward`]: the deterministic half. An operator writes [`forward`](forward::ForwardOperator::forward); what more it
//!   can do is a ladder reached by methods that return an `Option`: [`LinearOperator`] adds the adjoint,
//!   [`SpectralOperator`] the singular value decomposition. A method states what it needs, and the error says what is
//!   missing; nothing is guessed, nothing falls back.
//! * [`noise`]: the random half, a density `p(y | z)` around the clean measurement `z = A(x)`. Noise is kept out of the
//!   operator because the same blur occurs with Gaussian and with Poisson noise.
//! * [`Measurement`]: operator, noise and data; the likelihood of an image, its score and its proximal map.
//! * [`pullback()`]: `v ↦ J_f(x)ᵀ v` of any function of tensors, and [`Pullback`] for whoever knows a better way.
//! * [`Rng`]: numbers keyed by what they are for, so that crops, batches and threads change nothing.
//! * [`Entry`] and [`find`]: names. [`OPERATORS`] and [`NOISES`] are plain slices; a program adds its own entries to a copy.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use tweedie_operators::{Measurement, NOISES, OPERATORS, Rng, Site, find};
//!
//! let site = Site::new((3, 16, 16), &Device::Cpu, DType::F32);
//! let operator = find(OPERATORS, "inpaint_box")?.create("size = 4".parse()?, site)?;
//! let noise = find(NOISES, "gaussian")?.create("sigma = 0.05".parse()?)?;
//!
//! let x = Tensor::zeros((1, 3, 16, 16), DType::F32, &Device::Cpu)?;
//! let measurement = Measurement::simulate(&*operator, &*noise, &x, &mut Rng::new(0, 0..1))?;
//!
//! let log_likelihood = measurement.log_likelihood(&x)?.to_vec1::<f32>()?[0];
//! let expected = -0.5 * (3 * (16 * 16 - 4 * 4)) as f32; // −½ per pixel that is seen
//! assert!((log_likelihood / expected - 1.0).abs() < 0.2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Operators and noise models
//!
//! | name | settings | what is known | notes |
//! | --- | --- | --- | --- |
//! | `identity` | | singular values | denoising |
//! | `inpaint_box` | `size` | singular values | a centred square is missing |
//! | `inpaint_random` | `missing`, `seed` | singular values | the same pixels in all channels |
//! | `grayscale` | | singular values | luma of rec. 601 |
//! | `downsample_box` | `factor` | singular values | incomplete blocks at the border are not seen |
//! | `downsample` | `factor`, `kernel`, `antialias`, `align`, `cutoff` | singular values | as MATLAB's imresize |
//! | `downsample_kernel` | `factor`, `kernel`, `padding` | singular values; Gram matrix if circular | every f-th pixel of a filtered image |
//! | `blur_separable` | `taps` or `sigma`, `padding`, `cutoff` | singular values | any border |
//! | `gaussian` | `sigma` | `gaussian_sigma` | σ = 0 is a measurement without noise |
//!
//! # Glossary
//!
//! | symbol | meaning |
//! | --- | --- |
//! | `x` | an image `[B, C, H, W]`, pixels in `[-1, 1]`; a sampler's `x` may be noisy and outside |
//! | `x0` | a clean image, or an estimate of it |
//! | `z` | the clean measurement `A(x)` |
//! | `y` | the measurement `[B, ..]`, in the operator's own unit |
//! | `v` | a cotangent: what a transposed Jacobian is applied to |
//! | `σ` | a standard deviation in the unit of what it disturbs |
//! | `s` | singular values |
//! | `r` | how far a proximal map may go from its centre, in the unit of `x` |
#![forbid(unsafe_code)]

mod conjugate;
mod dft;
mod error;
pub mod forward;
mod map;
mod measurement;
pub mod noise;
mod padding;
mod pullback;
mod registry;
mod rng;
mod rows;
mod separable;

pub use conjugate::{CgInfo, CgParams, conjugate_gradients};
pub use error::{Error, Result};
pub use forward::{BuildOperator, ForwardOperator, GramOperator, LinearOperator, OPERATORS, SpectralOperator};
pub use measurement::Measurement;
pub use noise::{BuildNoise, NOISES, NoiseModel};
pub use pullback::{Pullback, pullback};
pub use registry::{Entry, Site, find};
pub use rng::Rng;
