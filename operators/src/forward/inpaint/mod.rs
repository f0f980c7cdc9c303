//! Inpainting: some pixels are not observed.

use std::fmt;
use std::sync::Arc;

use candle_core::{DType, Tensor};
use serde::Deserialize;

use super::{ForwardOperator, LinearOperator, SpectralOperator, check_image, like};
use crate::map::{self, Real, RowMap};
use crate::registry::Site;
use crate::rng::Rng;
use crate::{Error, Result};
use tweedie_kernels::collect_chunks;

mod file;
mod half;
mod lines;
mod outpaint;
mod random;
mod rectangle;

pub(crate) use file::ENTRY as FILE;
pub(crate) use half::ENTRY as HALF;
pub use half::Side;
pub(crate) use lines::ENTRY as LINES;
pub use lines::{Direction, Lines};
pub(crate) use outpaint::ENTRY as OUTPAINT;
pub(crate) use random::ENTRY as RANDOM;
pub(crate) use rectangle::ENTRY as BOX;

/// `y = m ⊙ x` with a mask `m` of ones (seen) and zeros (missing).
///
/// What is missing is zero in `y` whatever it was in `x`.
#[derive(Clone, Debug)]
pub struct Inpaint {
    /// `[1, 1, H, W]` or `[1, C, H, W]`.
    mask: Tensor,
    seen: Arc<Seen>,
}

impl Inpaint {
    /// Sees the pixels where the mask is 1.
    ///
    /// # Shapes
    /// `mask`: `[1, 1, H, W]`, shared by the channels, or `[1, C, H, W]`; any type.
    ///
    /// # Errors
    /// [`Error::Shape`] for another shape, [`Error::Config`] for a value that is neither 0 nor 1.
    pub fn new(mask: &Tensor) -> Result<Self> {
        check_image("mask of inpaint", mask, [None; 3])?;
        if mask.dims()[0] != 1 {
            let expected = "[1, _, _, _], one mask for all rows".into();
            return Err(Error::Shape { what: "mask of inpaint".into(), got: mask.dims().to_vec(), expected });
        }
        // Zeros and ones are exact in every type, so one copy serves all.
        let mask = if mask.dtype() == DType::F64 { mask.clone() } else { mask.to_dtype(DType::F32)? };
        let values = mask.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        if let Some(value) = values.iter().find(|&&value| value != 0.0 && value != 1.0) {
            return Err(Error::config("inpaint", format!("mask holds {value}, expected 0 (missing) or 1 (seen)")));
        }
        let (_, channels, height, width) = mask.dims4()?;
        let seen = values.into_iter().map(|value| value == 1.0).collect();
        Ok(Self { mask, seen: Arc::new(Seen { channels, height, width, seen }) })
    }

    /// The mask: `[1, 1, H, W]` or `[1, C, H, W]`, 1 where seen.
    pub fn mask(&self) -> &Tensor {
        &self.mask
    }

    /// One mask for all channels, from what is hidden at `(row, column)`.
    fn from_hidden(site: Site<'_>, hidden: impl Fn(usize, usize) -> bool) -> Result<Self> {
        let (_, height, width) = site.image;
        Self::from_seen(site, 1, (0..height * width).map(|i| !hidden(i / width, i % width)).collect())
    }

    /// From flags of the shape `[channels, H, W]`.
    fn from_seen(site: Site<'_>, channels: usize, seen: Vec<bool>) -> Result<Self> {
        let (_, height, width) = site.image;
        let mask: Vec<f32> = seen.iter().map(|&seen| f32::from(u8::from(seen))).collect();
        let mask = Tensor::from_vec(mask, (1, channels, height, width), site.device)?.to_dtype(site.dtype)?;
        // A half-precision site keeps its mask in f32, as `new` does.
        let mask = if site.dtype == DType::F64 { mask } else { mask.to_dtype(DType::F32)? };
        Ok(Self { mask, seen: Arc::new(Seen { channels, height, width, seen }) })
    }

    fn apply(&self, what: &str, x: &Tensor) -> Result<Tensor> {
        let (_, channels, height, width) = self.mask.dims4()?;
        check_image(what, x, [(channels > 1).then_some(channels), Some(height), Some(width)])?;
        if x.device().is_cpu() && matches!(x.dtype(), DType::F32 | DType::F64) {
            return map::apply(&self.seen, x);
        }
        Ok(x.broadcast_mul(&like(&self.mask, x)?)?)
    }
}

/// The mask as flags, `[1 or C, H, W]`.
struct Seen {
    channels: usize,
    height: usize,
    width: usize,
    seen: Vec<bool>,
}

impl fmt::Debug for Seen {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.seen.iter().filter(|&&seen| seen).count();
        write!(formatter, "Seen({count} of {})", self.seen.len())
    }
}

impl RowMap for Seen {
    const NAME: &'static str = "inpaint";

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        let fits = matches!(*input, [channels, height, width] if (height, width) == (self.height, self.width)
            && (self.channels == 1 || channels == self.channels));
        if !fits {
            let expected = format!("{} channels of {}x{}", self.channels, self.height, self.width);
            return Err(Error::Shape { what: "row for inpaint".into(), got: input.to_vec(), expected });
        }
        Ok(input.to_vec())
    }

    fn input_shape(&self, output: &[usize]) -> Result<Vec<usize>> {
        self.output_shape(output)
    }

    fn forward<T: Real>(&self, shape: &[usize], x: &[T], y: &mut [T]) {
        if let Some(all) = self.forward_all(shape, x) {
            y.copy_from_slice(&all);
        }
    }

    fn forward_all<T: Real>(&self, _: &[usize], x: &[T]) -> Option<Vec<T>> {
        let period = self.seen.len().max(1);
        // As many lines at a time as divide the image: so that a run of pixels lies in one copy of the mask.
        let lines = (1..=32).rev().find(|&lines| self.height.is_multiple_of(lines)).unwrap_or(1);
        Some(collect_chunks(x.len(), (self.width * lines).max(1), |run| {
            let seen = &self.seen[run.start % period..][..run.len()];
            x[run].iter().zip(seen).map(|(&x, &seen)| if seen { x } else { T::zero() })
        }))
    }

    fn transpose_all<T: Real>(&self, shape: &[usize], y: &[T]) -> Option<Vec<T>> {
        self.forward_all(shape, y)
    }

    fn transpose<T: Real>(&self, shape: &[usize], y: &[T], x: &mut [T]) {
        self.forward(shape, y, x);
    }
}

/// `count` of `0..keys.len()`: those with the smallest keys, the lower number first among equals.
fn smallest(keys: &[f32], count: usize) -> impl Iterator<Item = usize> {
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_unstable_by(|&a, &b| keys[a].total_cmp(&keys[b]).then(a.cmp(&b)));
    order.into_iter().take(count)
}

/// Numbers of one draw from `seed`, line by line.
fn draw(seed: u64, shape: (usize, usize, usize)) -> Result<Vec<f32>> {
    let (channels, height, width) = shape;
    let keys = Rng::new(seed, 0..1).uniform((1, channels, height, width), &candle_core::Device::Cpu)?;
    Ok(keys.flatten_all()?.to_vec1::<f32>()?)
}

/// How many of `total` are missing.
///
/// # Errors
/// [`Error::Config`] unless `missing` is in `[0, 1]`.
fn missing_count(name: &str, missing: f64, total: usize) -> Result<usize> {
    if !(0.0..=1.0).contains(&missing) {
        return Err(Error::config(name, format!("missing is {missing}, expected a fraction from 0 to 1")));
    }
    Ok((missing * total as f64).floor() as usize)
}

/// One number for all sides, or one for each.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a number of pixels or a list with one for each side")]
enum Pixels<const N: usize> {
    All(usize),
    #[serde(with = "each")]
    Each([usize; N]),
}

impl<const N: usize> Pixels<N> {
    fn each(self) -> [usize; N] {
        match self {
            Self::All(size) => [size; N],
            Self::Each(sizes) => sizes,
        }
    }
}

/// Lists of a fixed length, for which serde has no rule of its own if the length is a parameter.
mod each {
    use serde::de::{Deserialize, Deserializer, Error};

    pub(super) fn deserialize<'de, const N: usize, D: Deserializer<'de>>(list: D) -> Result<[usize; N], D::Error> {
        let list = Vec::<usize>::deserialize(list)?;
        let length = list.len();
        list.try_into().map_err(|_| D::Error::invalid_length(length, &"another number of entries"))
    }
}

impl ForwardOperator for Inpaint {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.apply("image for inpaint", x)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for Inpaint {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        self.apply("measurement of inpaint", y)
    }

    fn as_spectral(&self) -> Option<&dyn SpectralOperator> {
        Some(self)
    }
}

/// `U = V = I`, `s = m`.
impl SpectralOperator for Inpaint {
    fn singular_values(&self) -> &Tensor {
        &self.mask
    }

    fn image_to_spectrum(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.clone())
    }

    fn spectrum_to_image(&self, spectrum: &Tensor) -> Result<Tensor> {
        Ok(spectrum.clone())
    }

    fn measurement_to_spectrum(&self, y: &Tensor) -> Result<Tensor> {
        self.adjoint(y)
    }

    fn pseudo_inverse(&self, y: &Tensor) -> Result<Tensor> {
        self.adjoint(y)
    }
}
