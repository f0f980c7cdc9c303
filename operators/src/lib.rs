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
//!   [`estimate_sigma`](noise::estimate_sigma) measures how much of it a photo has.
//! * [`Measurement`]: operator, noise and data; the likelihood of an image, its score and its proximal map.
//! * [`pseudo_inverse`], [`solve_normal`], [`solve_gram`]: linear systems of an operator, by its closed forms or by
//!   conjugate gradients; [`power_method`]: its norm.
//! * [`check_operator`]: the laws that an operator claims, measured.
//! * [`pullback()`]: `v ↦ J_f(x)ᵀ v` of any function of tensors, and [`Pullback`] for whoever knows a better way.
//! * [`Rng`]: numbers keyed by what they are for, so that crops, batches and threads change nothing.
//! * [`Entry`] and [`find`]: names. [`OPERATORS`] and [`NOISES`] are plain slices; a program adds its own entries to a copy.
//! * [`Description`]: operator and noise by name and settings, as they stand in a TOML file.
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
//! | `inpaint_box` | `size`, `position` | singular values | a rectangle is missing |
//! | `inpaint_random` | `missing`, `seed`, `channels` | singular values | all channels of a pixel, or each its own |
//! | `inpaint_file` | `file`, `threshold` | singular values | white is missing |
//! | `inpaint_half` | `side` | singular values | |
//! | `inpaint_lines` | `missing`, `seed` or `period`, `keep`; `direction` | singular values | rows or columns |
//! | `outpaint` | `margin` | singular values | all but a rectangle is missing |
//! | `grayscale` | `weights` | singular values | luma of rec. 601 or 709, the mean, any weights |
//! | `grayscale_hints` | `weights`, `file` | singular values | colour at the pixels of a picture |
//! | `bayer` | `pattern` | singular values | one colour per pixel |
//! | `select_channels` | `keep` | singular values | |
//! | `downsample_box` | `factor` | singular values | incomplete blocks at the border are not seen |
//! | `compose` | `operators` | as its parts | the first listed is applied first |
//! | `stack` | `operators` | adjoint, if its parts' are | measurements of one image, one behind the other |
//! | `scale` | `factor`, `operator` | as its part | |
//! | `matrix` | `file`, `per_channel`, `image`, `measurement` | adjoint | a user's sparse matrix |
//! | `process` | `command`, `timeout`, `linear` | adjoint, if the program has one | a user's program |
//! | `clip` | `gain`, `low`, `high` | | high dynamic range |
//! | `gamma` | `exponent` | | odd below black |
//! | `quantize` | `levels` | | smooth stand-in; `measure` rounds |
//! | `jpeg` | `quality`, `subsampling` | | smooth stand-in; `measure` rounds |
//! | `blur` | `kernel`, `padding`, `correlate`, `cutoff` | singular values if circular | convolution; the borders are exact |
//! | `blur_varying` | `kernels`, `grid`, `padding` | adjoint | a kernel for every part of the image |
//! | `fourier_subsample` | `pattern`, `keep`, `calibration`, `seed` | singular values | MRI-like; real and imaginary parts |
//! | `phase_retrieval` | `oversample`, `range` | not linear | magnitude of the Fourier transform |
//! | `compressed_sensing` | `keep`, `seed` | singular values | Walsh–Hadamard coefficients |
//! | `gaussian_matrix` | `keep`, `seed` | singular values | dense, for small images |
//! | `radon` | `angles`, `detectors` | adjoint | parallel beams; filtered back-projection |
//! | `downsample` | `factor`, `kernel`, `antialias`, `align`, `cutoff` | singular values | as MATLAB's imresize |
//! | `downsample_kernel` | `factor`, `kernel`, `correlate`, `padding` | singular values; Gram matrix if circular | every f-th pixel of a filtered image |
//! | `blur_separable` | `taps` or `sigma`, `padding`, `cutoff` | singular values | any border |
//! | `gaussian` | `sigma` | `gaussian_sigma` | σ = 0 is a measurement without noise |
//! | `poisson` | `rate`, `clamp` | | photon counts |
//! | `poisson_gaussian` | `rate`, `sigma` | | likelihood by mean and variance |
//! | `uniform` | `half_width`, `edge` | | no score without an edge |
//! | `salt_and_pepper` | `fraction`, `sigma` | | every sample by itself |
//! | `laplace` | `scale` | | |
//! | `speckle` | `sigma` | | in proportion to the intensity |
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

mod check;
mod conjugate;
mod convolution;
mod description;
mod dft;
mod error;
pub mod forward;
mod function;
mod gains;
mod kernel;
mod map;
mod measurement;
pub mod noise;
mod padding;
mod pullback;
mod registry;
mod rng;
mod rows;
mod separable;
mod solve;
mod sparse;

pub use check::{AdjointCheck, Law, Report, check_adjoint, check_operator};
pub use conjugate::{CgInfo, CgParams, conjugate_gradients};
pub use description::Description;
pub use error::{Error, Result};
pub use forward::{BuildOperator, ForwardOperator, GramOperator, LinearOperator, OPERATORS, SpectralOperator};
pub use gains::gains;
pub use kernel::Kernel;
pub use measurement::Measurement;
pub use noise::{BuildNoise, NOISES, NoiseModel};
pub use padding::Padding;
pub use pullback::{Pullback, pullback};
pub use registry::{Entry, Site, find};
pub use rng::Rng;
pub use solve::{PowerInfo, PowerParams, power_method, pseudo_inverse, regularized_inverse, solve_gram, solve_normal};
