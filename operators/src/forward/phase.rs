//! Phase retrieval: only the magnitude of the Fourier transform is observed.

use std::fmt;
use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor};
use rayon::prelude::*;
use realfft::num_complex::Complex;
use serde::Deserialize;

use super::{BuildOperator, ForwardOperator, check_image};
use crate::dft::Dft;
use crate::map::Real;
use crate::registry::{Entry, Site};
use crate::{Error, Result};

/// `y = |F pad(x)|` for each channel, with the orthonormal Fourier transform of the image between zeros.
///
/// `⌊oversample/8 · H⌋` rows of zeros are added above and as many below, `⌊oversample/8 · W⌋` columns at the left and the
/// right; frequency zero is in the middle of a measurement, at `(⌊H'/2⌋, ⌊W'/2⌋)` of its `H' × W'` numbers. Where the origin
/// of the image lies changes phases alone, so it does not matter.
///
/// With `z = F pad(x)` the transposed Jacobian is `v ↦ padᵀ Re Fᴴ (v ⊙ z/|z|)`, zero where `|z|` is zero.
///
/// Chung et al. (2023), <https://arxiv.org/abs/2209.14687>: oversampling 2, images in `[-1, 1]`; Zhang et al. (2024),
/// <https://arxiv.org/abs/2407.01521>: images in `[0, 1]`.
#[derive(Clone)]
pub struct PhaseRetrieval(Arc<Plan>);

/// In which unit the magnitude of an image is taken.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum PhaseRange {
    /// Pixels as they are, in `[-1, 1]`.
    #[default]
    Signed,
    /// Pixels as `(x + 1)/2`, in `[0, 1]`.
    Unit,
}

struct Plan {
    image: (usize, usize),
    pad: (usize, usize),
    range: PhaseRange,
    /// For padded images.
    dft: Dft,
}

impl fmt::Debug for PhaseRetrieval {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { image, pad, range, .. } = &*self.0;
        formatter
            .debug_struct("PhaseRetrieval")
            .field("image", image)
            .field("pad", pad)
            .field("range", range)
            .finish_non_exhaustive()
    }
}

/// Zeros on each of two sides.
fn padding(oversample: f64, size: usize) -> usize {
    (oversample / 8.0 * size as f64).floor() as usize
}

fn check_oversample(oversample: f64) -> Result<()> {
    if (0.0..=16.0).contains(&oversample) {
        return Ok(());
    }
    Err(Error::config("phase_retrieval", format!("oversample is {oversample}, expected a number from 0 to 16")))
}

impl PhaseRetrieval {
    /// For images of the site's height and width, any number of channels.
    ///
    /// # Errors
    /// [`Error::Config`] unless `oversample` is from 0 to 16 and there is a pixel.
    pub fn new(oversample: f64, range: PhaseRange, site: Site<'_>) -> Result<Self> {
        let (_, height, width) = site.image;
        check_oversample(oversample)?;
        if height == 0 || width == 0 {
            let reason = format!("image is {width}x{height}, expected at least one pixel");
            return Err(Error::config("phase_retrieval", reason));
        }
        let pad = (padding(oversample, height), padding(oversample, width));
        let dft = Dft::new(height + 2 * pad.0, width + 2 * pad.1);
        Ok(Self(Arc::new(Plan { image: (height, width), pad, range, dft })))
    }
}

impl Plan {
    /// The half spectrum of a padded plane, row by row, not normalised.
    fn spectrum<T: Real>(&self, x: &[T]) -> Vec<Complex<T>> {
        let (dft, width) = (&self.dft, self.image.1);
        let mut padded = vec![T::zero(); dft.height * dft.width];
        for (line, x) in padded[self.pad.0 * dft.width..].chunks_mut(dft.width).zip(x.chunks(width)) {
            let line = &mut line[self.pad.1..][..width];
            match self.range {
                PhaseRange::Signed => line.copy_from_slice(x),
                PhaseRange::Unit => {
                    let half = T::of(0.5);
                    line.iter_mut().zip(x).for_each(|(value, &x)| *value = (x + T::one()) * half);
                }
            }
        }
        dft.spectrum_by_rows(&padded)
    }

    fn magnitude<T: Real>(&self, x: &[T], y: &mut [T]) {
        let (height, width, columns) = (self.dft.height, self.dft.width, self.dft.columns());
        let norm = T::of(1.0 / ((height * width) as f64).sqrt());
        let rows = self.spectrum(x);
        // |X(−k)| = |X(k)|, so half of them are enough.
        let mut magnitudes = vec![T::zero(); height * columns];
        magnitudes.par_chunks_mut(columns).zip(rows.par_chunks(columns)).for_each(|(line, row)| {
            line.iter_mut().zip(row).for_each(|(value, z)| *value = (z.re * z.re + z.im * z.im).sqrt() * norm);
        });
        y.par_chunks_mut(width).enumerate().for_each(|(line_index, line)| {
            let ky = (line_index + height.div_ceil(2)) % height;
            let here = &magnitudes[ky * columns..][..columns];
            let there = &magnitudes[(height - ky) % height * columns..][..columns];
            // In the middle is kx = 0, at its right 1, 2, …; at its left −1, −2, … down to −⌊W/2⌋.
            let (negative, positive) = line.split_at_mut(width / 2);
            positive.iter_mut().zip(here).for_each(|(value, &z)| *value = z);
            negative.iter_mut().rev().zip(&there[1..]).for_each(|(value, &z)| *value = z);
        });
    }

    fn transposed_jacobian<T: Real>(&self, x: &[T], v: &[T], result: &mut [T]) {
        let (height, width, columns) = (self.dft.height, self.dft.width, self.dft.columns());
        // √N: 1/√N of the transform beside the 1/N of the inverse. The two halves of a real image's spectrum share the mean
        // of their cotangents. For pixels in [0, 1] there is another half.
        let scale = match self.range {
            PhaseRange::Signed => 0.5,
            PhaseRange::Unit => 0.25,
        };
        let norm = T::of(scale * ((height * width) as f64).sqrt());
        let mut rows = self.spectrum(x);
        rows.par_chunks_mut(columns).enumerate().for_each(|(ky, row)| {
            let line = |ky: usize| &v[(ky + height / 2) % height * width..][..width];
            let (here, there) = (line(ky), line((height - ky) % height));
            for (kx, z) in row.iter_mut().enumerate() {
                let v = here[(kx + width / 2) % width] + there[(width - kx + width / 2) % width];
                let length = (z.re * z.re + z.im * z.im).sqrt();
                let factor = if length > T::zero() { v * norm / length } else { T::zero() };
                *z = Complex::new(z.re * factor, z.im * factor);
            }
        });
        let mut padded = vec![T::zero(); height * width];
        self.dft.plane_by_rows(rows, &mut padded);
        let (inner, own) = (self.image.1, padded[self.pad.0 * width..].chunks(width));
        result.chunks_mut(inner).zip(own).for_each(|(line, own)| line.copy_from_slice(&own[self.pad.1..][..inner]));
    }

    fn all_magnitudes<T: Real>(&self, x: &[T]) -> Vec<T> {
        let (from, to) = (self.image.0 * self.image.1, self.dft.height * self.dft.width);
        let mut y = vec![T::zero(); x.len() / from * to];
        y.par_chunks_mut(to).zip(x.par_chunks(from)).for_each(|(y, x)| self.magnitude(x, y));
        y
    }

    fn all_transposed<T: Real>(&self, x: &[T], v: &[T]) -> Vec<T> {
        let (from, to) = (self.image.0 * self.image.1, self.dft.height * self.dft.width);
        let mut result = vec![T::zero(); x.len()];
        let planes = result.par_chunks_mut(from).zip(x.par_chunks(from)).zip(v.par_chunks(to));
        planes.for_each(|((result, x), v)| self.transposed_jacobian(x, v, result));
        result
    }
}

/// The operation that candle records.
struct Magnitude(Arc<Plan>);

impl CustomOp1 for Magnitude {
    fn name(&self) -> &'static str {
        "magnitude of a Fourier transform"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            return Err(candle_core::Error::RequiresContiguous { op: self.name() }.bt());
        };
        let result = match storage {
            CpuStorage::F32(x) => CpuStorage::F32(self.0.all_magnitudes(&x[start..end])),
            CpuStorage::F64(x) => CpuStorage::F64(self.0.all_magnitudes(&x[start..end])),
            other => {
                let dtype = candle_core::backend::BackendStorage::dtype(other);
                return Err(candle_core::Error::UnsupportedDTypeForOp(dtype, self.name()).bt());
            }
        };
        let shape = [layout.dims()[0], layout.dims()[1], self.0.dft.height, self.0.dft.width];
        Ok((result, Shape::from(&shape)))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let result = PhaseRetrieval(self.0.clone()).vjp(x, gradient);
        result.map(Some).map_err(|error| candle_core::Error::wrap(error).bt())
    }
}

impl ForwardOperator for PhaseRetrieval {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        check_image("image for phase_retrieval", x, [None, Some(self.0.image.0), Some(self.0.image.1)])?;
        let y = x.to_device(&Device::Cpu)?.contiguous()?.apply_op1(Magnitude(self.0.clone()))?;
        Ok(y.to_device(x.device())?)
    }

    fn vjp(&self, x: &Tensor, v: &Tensor) -> Result<Tensor> {
        let Plan { image, dft, .. } = &*self.0;
        check_image("image for phase_retrieval", x, [None, Some(image.0), Some(image.1)])?;
        check_image("cotangent of phase_retrieval", v, [None, Some(dft.height), Some(dft.width)])?;
        if v.dims()[..2] != x.dims()[..2] {
            let expected = format!("[{}, {}, {}, {}]", x.dims()[0], x.dims()[1], dft.height, dft.width);
            return Err(Error::Shape { what: "cotangent of phase_retrieval".into(), got: v.dims().to_vec(), expected });
        }
        let host = |t: &Tensor| t.detach().to_device(&Device::Cpu)?.flatten_all();
        let (flat_x, flat_v) = (host(x)?, host(&v.to_dtype(x.dtype())?)?);
        let result = if x.dtype() == candle_core::DType::F64 {
            let result = self.0.all_transposed::<f64>(&flat_x.to_vec1()?, &flat_v.to_vec1()?);
            Tensor::from_vec(result, x.shape(), &Device::Cpu)?
        } else {
            let result = self.0.all_transposed::<f32>(&flat_x.to_vec1()?, &flat_v.to_vec1()?);
            Tensor::from_vec(result, x.shape(), &Device::Cpu)?
        };
        Ok(result.to_device(x.device())?)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Zeros around the image: `oversample/8` of its height above and below, of its width left and right.
    #[serde(default = "Config::oversample")]
    oversample: f64,
    /// Unit of the pixels.
    #[serde(default)]
    range: PhaseRange,
}

impl Config {
    fn oversample() -> f64 {
        2.0
    }
}

/// `phase_retrieval`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "phase_retrieval",
    about: "Magnitude of the Fourier transform of the image between zeros",
    fields: &[
        ("oversample", "each side gets oversample/8 of the image's size in zeros, 0 to 16; default 2"),
        ("range", "signed: pixels in [-1, 1]; unit: (x + 1)/2, in [0, 1]; default signed"),
    ],
    example: "oversample = 2.0",
    build: BuildOperator::reshaping(
        |table, site| {
            let Config { oversample, range } = table.try_into()?;
            Ok(Box::new(PhaseRetrieval::new(oversample, range, site)?))
        },
        |table, y, _| {
            let Config { oversample, .. } = table.clone().try_into()?;
            check_oversample(oversample)?;
            let side = |padded: usize| (1..=padded).find(|&size| size + 2 * padding(oversample, size) == padded);
            match *y {
                [channels, height, width] => side(height).zip(side(width)).map(|(h, w)| (channels, h, w)),
                _ => None,
            }
            .ok_or_else(|| {
                let reason =
                    format!("measurement is {y:?}, expected [C, H, W] of a padded image at oversample {oversample}");
                Error::config("phase_retrieval", reason)
            })
        },
    ),
};
