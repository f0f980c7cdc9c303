//! The deterministic half of a measurement: what each operator can do, and the list of them.

use std::fmt::Debug;

use candle_core::Tensor;

pub use crate::padding::Padding;
use crate::pullback::pullback;
use crate::registry::{Entry, Site};
use crate::{Error, Result};

mod bayer;
mod blur;
mod blur_separable;
mod blur_varying;
mod clip;
mod compose;
mod downsample_box;
mod downsample_kernel;
mod fourier;
mod gamma;
mod gaussian_matrix;
mod grayscale;
mod grayscale_hints;
mod hadamard;
mod identity;
mod inpaint;
mod jpeg;
mod matrix;
mod part;
mod phase;
mod picture;
mod planes;
mod process;
mod quantize;
mod radon;
mod resize;
mod scale;
mod select_channels;
mod stack;

pub use bayer::{Bayer, BayerPattern};
pub use blur::Blur;
pub use blur_separable::BlurSeparable;
pub use blur_varying::BlurVarying;
pub use clip::Clip;
pub use compose::Compose;
pub use downsample_box::DownsampleBox;
pub use downsample_kernel::{DownsampleKernel, LowPass};
pub use fourier::{FourierPattern, FourierSubsample};
pub use gamma::Gamma;
pub use gaussian_matrix::GaussianMatrix;
pub use grayscale::Grayscale;
pub use grayscale_hints::GrayscaleHints;
pub use hadamard::CompressedSensing;
pub use identity::Identity;
pub use inpaint::{Direction, Inpaint, Lines, Side};
pub use jpeg::{Jpeg, Subsampling};
pub use matrix::Matrix;
pub use phase::{PhaseRange, PhaseRetrieval};
pub use process::Process;
pub use quantize::Quantize;
pub use radon::Radon;
pub use resize::{Align, Factor, Resize, ResizeKernel};
pub use scale::Scale;
pub use select_channels::SelectChannels;
pub use stack::Stack;

/// How an operator comes to be.
#[derive(Clone, Copy, Debug)]
pub struct BuildOperator {
    /// Makes it of a configuration, for images of the site's shape.
    pub operator: MakeOperator,
    /// The shape of the image, given the configuration and the shape of a measurement.
    pub image_shape: FindImageShape,
}

/// From settings and the shape of an image to an operator.
pub type MakeOperator = fn(toml::Table, Site<'_>) -> Result<Box<dyn ForwardOperator>>;

/// From settings and the shape of a measurement, without its batch, to `(channels, height, width)` of its image; the
/// image of the site means nothing here.
pub type FindImageShape = fn(&toml::Table, &[usize], Site<'_>) -> Result<(usize, usize, usize)>;

impl BuildOperator {
    /// An operator whose measurements are shaped like its images.
    pub const fn same_shape(operator: MakeOperator) -> Self {
        Self {
            operator,
            image_shape: |_, y, _| match *y {
                [channels, height, width] => Ok((channels, height, width)),
                _ => Err(Error::config("image_shape", format!("measurement is {y:?}, expected [C, H, W]"))),
            },
        }
    }

    /// An operator whose measurements have another shape.
    pub const fn reshaping(operator: MakeOperator, image_shape: FindImageShape) -> Self {
        Self { operator, image_shape }
    }
}

/// All operators that have a name.
pub const OPERATORS: &[Entry<BuildOperator>] = &[
    identity::ENTRY,
    inpaint::BOX,
    inpaint::RANDOM,
    inpaint::FILE,
    inpaint::HALF,
    inpaint::LINES,
    inpaint::OUTPAINT,
    grayscale::ENTRY,
    grayscale_hints::ENTRY,
    bayer::ENTRY,
    select_channels::ENTRY,
    downsample_box::ENTRY,
    clip::ENTRY,
    gamma::ENTRY,
    quantize::ENTRY,
    jpeg::ENTRY,
    compose::ENTRY,
    stack::ENTRY,
    scale::ENTRY,
    matrix::ENTRY,
    process::ENTRY,
    blur::ENTRY,
    blur_varying::ENTRY,
    fourier::ENTRY,
    phase::ENTRY,
    hadamard::ENTRY,
    gaussian_matrix::ENTRY,
    radon::ENTRY,
    resize::ENTRY,
    downsample_kernel::ENTRY,
    blur_separable::ENTRY,
];

/// The deterministic half of a measurement, `y = N(A(x))`.
///
/// Only [`forward`](Self::forward) must be written. Built from differentiable candle operations it gets
/// [`vjp`](Self::vjp) by reverse-mode differentiation; an operator that calls foreign code overrides `vjp`.
/// No sampler differentiates *through* an operator, so either kind works with every method.
///
/// # Laws
/// Checked for every entry of [`OPERATORS`]:
/// * rows are independent: `A([x₁; x₂]) = [A(x₁); A(x₂)]`;
/// * `vjp` is the derivative: `⟨v, A(x + εd) − A(x − εd)⟩ / 2ε → ⟨vjp(x, v), d⟩`.
pub trait ForwardOperator: Debug + Send + Sync {
    /// `A(x)`, in the operator's own unit.
    ///
    /// # Shapes
    /// `x`: `[B, C, H, W]`, values outside `[-1, 1]` allowed; returns `[B, ..]` of the same type.
    fn forward(&self, x: &Tensor) -> Result<Tensor>;

    /// `J_A(x)ᵀ v`.
    ///
    /// # Shapes
    /// `v`: like `forward(x)`; returns `[B, C, H, W]`.
    fn vjp(&self, x: &Tensor, v: &Tensor) -> Result<Tensor> {
        match self.as_linear() {
            Some(linear) => linear.adjoint(v),
            None => pullback(x, |x| self.forward(x))?.1.apply(v),
        }
    }

    /// What an instrument records of `x`, where [`forward`](Self::forward) is a smooth stand-in for it, as for rounding; the
    /// default is `forward`.
    ///
    /// # Shapes
    /// As [`forward`](Self::forward).
    fn measure(&self, x: &Tensor) -> Result<Tensor> {
        self.forward(x)
    }

    /// This operator as a linear one; `None`, the default, if it is not.
    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        None
    }
}

/// `A` is a matrix, and its transpose is known.
///
/// # Laws
/// `⟨A(x), y⟩ = ⟨x, adjoint(y)⟩` to rounding, for random `x` and `y`; `A(ax + bz) = a A(x) + b A(z)`.
pub trait LinearOperator: ForwardOperator {
    /// `Aᵀ y`.
    ///
    /// # Shapes
    /// `y`: `[B, ..]` like `forward`'s result; returns `[B, C, H, W]`.
    fn adjoint(&self, y: &Tensor) -> Result<Tensor>;

    /// With its singular value decomposition; `None`, the default, if none is known.
    fn as_spectral(&self) -> Option<&dyn SpectralOperator> {
        None
    }

    /// Whether every measurement is that of some image, so that `A A⁺ = 1`; `false`, the default, if that is not known.
    fn reaches_everything(&self) -> bool {
        false
    }

    /// With a closed form for `(AAᵀ + λI)⁻¹`; `None`, the default, if none is known. Beside
    /// [`as_spectral`](Self::as_spectral), which says more, only where it is cheaper.
    fn as_gram(&self) -> Option<&dyn GramOperator> {
        None
    }
}

/// `AAᵀ` is easily inverted, as that of a circular blur followed by a stride.
///
/// # Laws
/// `(AAᵀ + λI) solve_gram(y, λ) = y` for λ > 0; `AAᵀ solve_gram(Ax, 0) = Ax`.
pub trait GramOperator: LinearOperator {
    /// `(AAᵀ + λI)⁻¹ y`; with λ = 0 the pseudo-inverse of `AAᵀ`.
    ///
    /// # Shapes
    /// `y`: `[B, ..]` like `forward`'s result, as is the value; `ridge` is λ ≥ 0.
    fn solve_gram(&self, y: &Tensor, ridge: f64) -> Result<Tensor>;
}

/// `A = U diag(s) Vᵀ` with cheap factors.
///
/// A spectrum has the shape of an image; where `s` is 0 nothing is seen.
///
/// # Laws
/// `V` is orthonormal, `U` is so where `s > 0`, `Uᵀ A x = s ⊙ Vᵀ x`, and `A A⁺ A = A`.
pub trait SpectralOperator: LinearOperator {
    /// `s ≥ 0`, broadcastable to `[B, C, H, W]`.
    fn singular_values(&self) -> &Tensor;

    /// `Vᵀ x`.
    fn image_to_spectrum(&self, x: &Tensor) -> Result<Tensor>;

    /// `V` times a spectrum.
    fn spectrum_to_image(&self, spectrum: &Tensor) -> Result<Tensor>;

    /// `Uᵀ y`, zero where `s` is zero.
    fn measurement_to_spectrum(&self, y: &Tensor) -> Result<Tensor>;

    /// `A⁺ y = V (Uᵀ y / s)`, with `1/0 = 0`.
    fn pseudo_inverse(&self, y: &Tensor) -> Result<Tensor> {
        let spectrum = self.measurement_to_spectrum(y)?;
        let s = like(self.singular_values(), &spectrum)?;
        let unseen = s.eq(0.0)?.to_dtype(s.dtype())?;
        // Uᵀ y is zero where the divisor is replaced by one.
        self.spectrum_to_image(&spectrum.broadcast_div(&(s + unseen)?)?)
    }
}

/// A constant in the type and on the device of `x`.
pub(crate) fn like(constant: &Tensor, x: &Tensor) -> Result<Tensor> {
    Ok(constant.to_dtype(x.dtype())?.to_device(x.device())?)
}

/// Checks the last three dimensions of a batch of images; `None` allows any number.
pub(crate) fn check_image(what: &str, x: &Tensor, expected: [Option<usize>; 3]) -> Result<()> {
    let fits = |dims: &[usize]| dims.iter().zip(expected).all(|(&got, expected)| expected.is_none_or(|e| e == got));
    match x.dims() {
        [_, image @ ..] if image.len() == 3 && fits(image) => Ok(()),
        dims => {
            let expected = expected.map(|size| size.map_or("_".into(), |size| size.to_string())).join(", ");
            Err(Error::Shape { what: what.into(), got: dims.to_vec(), expected: format!("[_, {expected}]") })
        }
    }
}
