//! Blur: every plane is convolved with one kernel.

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use realfft::num_complex::Complex;
use serde::Deserialize;

use super::{BuildOperator, ForwardOperator, LinearOperator, SpectralOperator, check_image};
use crate::convolution::{self, Choice, Convolution, check};
use crate::dft::{Dft, Filter, Hartley};
use crate::kernel::{self, Kernel};
use crate::map::{self, Real, RowMap};
use crate::padding::Padding;
use crate::registry::{Entry, Site};
use crate::{Error, Result};

/// `y = k * x` in every channel, `y[p] = Σ_q k[q] x[p − (q − centre)]`, with one rule for what lies beyond the border.
///
/// With circular borders it has a singular value decomposition, by the Fourier transform.
#[derive(Clone, Debug)]
pub struct Blur {
    kernel: Kernel,
    image: (usize, usize),
    sum: Arc<Convolution>,
    circular: Option<Circular>,
}

impl Blur {
    /// Singular values below this part of the largest are taken as zero, unless a blur is told otherwise: about the
    /// rounding of `f32`, so that no image of that type tells the difference.
    pub const CUTOFF: f64 = 1e-6;

    /// Blurs images of the site's height and width, any number of channels.
    ///
    /// `cutoff` is meant for circular borders: a frequency whose singular value is below this part of the largest is not
    /// seen, by the operator itself as by its decomposition. Other borders ignore it.
    ///
    /// # Errors
    /// [`Error::Config`] unless the cutoff is from 0 to 1, the image has a pixel, and, for [`Padding::Valid`], the kernel
    /// fits the image.
    pub fn new(kernel: &Kernel, padding: Padding, cutoff: f64, site: Site<'_>) -> Result<Self> {
        if !(0.0..=1.0).contains(&cutoff) {
            return Err(Error::config("blur", format!("cutoff is {cutoff}, expected 0 to 1")));
        }
        let (_, height, width) = site.image;
        let image = (height, width);
        let sum = Arc::new(Convolution::new(kernel, image, padding, Choice::Sizes)?);
        let circular = match padding {
            Padding::Circular => Some(Circular::new(kernel, sum.clone(), cutoff, site)?),
            _ => None,
        };
        Ok(Self { kernel: kernel.clone(), image, sum, circular })
    }

    /// The kernel.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }
}

impl ForwardOperator for Blur {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        check_image("image for blur", x, [None, Some(self.image.0), Some(self.image.1)])?;
        match &self.circular {
            Some(circular) => circular.forward(x),
            None => convolution::apply(&self.sum, x),
        }
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for Blur {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        let (height, width) = self.sum.output();
        check_image("measurement of blur", y, [None, Some(height), Some(width)])?;
        match &self.circular {
            Some(circular) => circular.adjoint(y),
            None => convolution::transpose(&self.sum, y),
        }
    }

    fn as_spectral(&self) -> Option<&dyn SpectralOperator> {
        self.circular.as_ref().map(|circular| circular as &dyn SpectralOperator)
    }
}

/// A blur on the torus, `A = F⁻¹ K F`.
///
/// The Hartley transform is the real `V`, the singular values are `|K|`, and `U` is `V` followed by a filter with the phase
/// of `K`.
#[derive(Clone, Debug)]
struct Circular {
    sum: Arc<Convolution>,
    /// In place of the sum where some frequencies are left out, or where it is faster.
    filter: Option<Arc<Filter>>,
    /// `V`.
    hartley: Arc<Hartley>,
    /// `Uᵀ`.
    phased: Arc<PhasedHartley>,
    /// `[1, 1, H, W]`: `|K|`.
    singular_values: Tensor,
}

impl Circular {
    fn new(kernel: &Kernel, sum: Arc<Convolution>, cutoff: f64, site: Site<'_>) -> Result<Self> {
        let (_, height, width) = site.image;
        let dft = Dft::new(height, width);
        let (transfer, incomplete) = transfer(kernel, &dft, cutoff);
        let sizes = (0..height * width).map(|i| dft.at(&transfer, i / width, i % width).norm()).collect();
        let singular_values = Tensor::from_vec(sizes, (1, 1, height, width), &Device::Cpu)?;
        let singular_values = singular_values.to_dtype(site.dtype)?.to_device(site.device)?;
        let unit = |k: &Complex<f64>| if k.norm() == 0.0 { *k } else { k / k.norm() };
        let phase = transfer.iter().map(unit).collect();
        let phased = Arc::new(PhasedHartley { dft: dft.clone(), phase });
        let hartley = Arc::new(Hartley(dft.clone()));
        // A fixed rule: a transform and its inverse take the time of about thirty taps, on sizes that transforms are fast at.
        let taps = kernel.values().iter().filter(|&&value| value != 0.0).count();
        let faster = taps > 32 && site.device.is_cpu() && is_smooth(height) && is_smooth(width);
        let filter = (incomplete || faster).then(|| Arc::new(Filter { dft, transfer: vec![transfer] }));
        Ok(Self { sum, filter, hartley, phased, singular_values })
    }
}

/// Whether a number has no prime factor above 7.
fn is_smooth(size: usize) -> bool {
    let mut rest = size.max(1);
    for prime in [2, 3, 5, 7] {
        while rest.is_multiple_of(prime) {
            rest /= prime;
        }
    }
    rest == 1
}

impl ForwardOperator for Circular {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.filter {
            Some(filter) => map::apply(filter, x),
            None => convolution::apply(&self.sum, x),
        }
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for Circular {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        match &self.filter {
            Some(filter) => map::transpose(filter, y),
            None => convolution::transpose(&self.sum, y),
        }
    }

    fn as_spectral(&self) -> Option<&dyn SpectralOperator> {
        Some(self)
    }
}

impl SpectralOperator for Circular {
    fn singular_values(&self) -> &Tensor {
        &self.singular_values
    }

    fn image_to_spectrum(&self, x: &Tensor) -> Result<Tensor> {
        map::apply(&self.hartley, x)
    }

    fn spectrum_to_image(&self, spectrum: &Tensor) -> Result<Tensor> {
        map::apply(&self.hartley, spectrum)
    }

    fn measurement_to_spectrum(&self, y: &Tensor) -> Result<Tensor> {
        map::apply(&self.phased, y)
    }
}

/// The half spectrum of a kernel about its centre, zero below the cutoff, and whether anything is zero.
fn transfer(kernel: &Kernel, dft: &Dft, cutoff: f64) -> (Vec<Complex<f64>>, bool) {
    let (height, width) = (dft.height, dft.width);
    let mut plane = vec![0.0; height * width];
    let wrapped =
        |i: usize, centre: usize, size: usize| (i as isize - centre as isize).rem_euclid(size as isize) as usize;
    for y in 0..kernel.height() {
        for x in 0..kernel.width() {
            let (row, column) = (wrapped(y, kernel.centre().0, height), wrapped(x, kernel.centre().1, width));
            plane[row * width + column] += kernel.at(y, x);
        }
    }
    let mut transfer = dft.spectrum(&plane);
    // Two frequencies of these columns are conjugates of each other, and must stay so through rounding and cutoff.
    for kx in [Some(0), (width % 2 == 0).then_some(width / 2)].into_iter().flatten() {
        let column = &mut transfer[kx * height..][..height];
        for ky in 0..=height / 2 {
            let opposite = (height - ky) % height;
            if opposite == ky {
                column[ky].im = 0.0;
            }
            column[opposite] = column[ky].conj();
        }
    }
    let largest = transfer.iter().map(|k| k.norm()).fold(0.0, f64::max);
    let mut incomplete = false;
    for k in &mut transfer {
        if k.norm() < cutoff * largest {
            *k = Complex::new(0.0, 0.0);
            incomplete = true;
        }
    }
    (transfer, incomplete)
}

/// `Uᵀ`: a filter with the conjugate of a phase, then the Hartley transform.
#[derive(Clone, Debug)]
struct PhasedHartley {
    dft: Dft,
    /// A half spectrum of numbers of size 1 or 0.
    phase: Vec<Complex<f64>>,
}

impl RowMap for PhasedHartley {
    const NAME: &'static str = "Hartley transform after a filter of phases";

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        check("measurement of a circular blur", input, (self.dft.height, self.dft.width))?;
        Ok(input.to_vec())
    }

    fn input_shape(&self, output: &[usize]) -> Result<Vec<usize>> {
        check("spectrum of a circular blur", output, (self.dft.height, self.dft.width))?;
        Ok(output.to_vec())
    }

    fn forward<T: Real>(&self, _: &[usize], y: &[T], spectrum: &mut [T]) {
        let dft = &self.dft;
        let plane = dft.height * dft.width;
        let norm = T::of(1.0 / (plane as f64).sqrt());
        spectrum.par_chunks_mut(plane).zip(y.par_chunks(plane)).for_each(|(spectrum, y)| {
            let mut half = dft.spectrum(y);
            half.iter_mut().zip(&self.phase).for_each(|(value, phase)| {
                *value *= Complex::new(T::of(phase.re), T::of(-phase.im));
            });
            spectrum.par_chunks_mut(dft.width).enumerate().for_each(|(ky, line)| {
                for (kx, value) in line.iter_mut().enumerate() {
                    let frequency = dft.at(&half, ky, kx);
                    *value = (frequency.re - frequency.im) * norm;
                }
            });
        });
    }

    fn transpose<T: Real>(&self, shape: &[usize], spectrum: &[T], y: &mut [T]) {
        let dft = &self.dft;
        let mut image = vec![T::zero(); spectrum.len()];
        Hartley(dft.clone()).forward(shape, spectrum, &mut image);
        let plane = dft.height * dft.width;
        y.par_chunks_mut(plane).zip(image.par_chunks(plane)).for_each(|(y, image)| {
            let mut half = dft.spectrum(image);
            half.iter_mut().zip(&self.phase).for_each(|(value, phase)| {
                *value *= Complex::new(T::of(phase.re), T::of(phase.im));
            });
            dft.plane(half, y);
        });
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The point-spread function.
    kernel: kernel::Config,
    /// What lies beyond the border; default reflect.
    #[serde(default = "Config::padding")]
    padding: Padding,
    /// Correlation with the kernel in place of convolution; default false.
    #[serde(default)]
    correlate: bool,
    /// Circular borders: smallest singular value that is seen, relative to the largest; default 1e-6.
    #[serde(default = "Config::cutoff")]
    cutoff: f64,
}

impl Config {
    fn cutoff() -> f64 {
        Blur::CUTOFF
    }

    fn padding() -> Padding {
        Padding::Reflect
    }

    fn kernel(&self, folder: &Path) -> Result<Kernel> {
        self.kernel.oriented(self.correlate, "blur", folder)
    }
}

/// `blur`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "blur",
    about: "Convolution with a kernel: Gaussian, motion, out of focus, or any other",
    fields: &[
        ("kernel", "table with shape = gaussian, uniform, disk, line, trajectory, image or values, and its settings"),
        (
            "padding",
            "border: circular, reflect, replicate, zero, symmetric or valid; default reflect, the edge pixel not repeated",
        ),
        ("correlate", "whether to correlate instead of to convolve, as with the kernel turned by 180°; default false"),
        ("cutoff", "circular only: smallest singular value seen, relative to the largest, 0 to 1; default 1e-6"),
    ],
    example: "kernel = { shape = 'gaussian', sigma = [0.6, 0.4], angle = 30.0, size = 5 }\npadding = 'circular'",
    build: BuildOperator::reshaping(
        |table, site| {
            let config: Config = table.try_into()?;
            Ok(Box::new(Blur::new(&config.kernel(site.folder)?, config.padding, config.cutoff, site)?))
        },
        |table, y, site| {
            let config: Config = table.clone().try_into()?;
            let [channels, height, width] = *y else {
                return Err(Error::config("blur", format!("measurement is {y:?}, expected [C, H, W]")));
            };
            match config.padding {
                Padding::Valid => {
                    let kernel = config.kernel(site.folder)?;
                    Ok((channels, height + kernel.height() - 1, width + kernel.width() - 1))
                }
                _ => Ok((channels, height, width)),
            }
        },
    ),
};
