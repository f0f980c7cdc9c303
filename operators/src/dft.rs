//! The discrete Fourier transform of real images, in two dimensions.
//!
//! A half spectrum holds the frequencies `kx = 0 … W/2`, `ky = 0 … H−1` of `X(ky, kx) = Σ x(v, u) e^{−2πi (ky v/H + kx u/W)}`,
//! column by column: `[kx · H + ky]`. The others are complex conjugates.

use std::sync::Arc;

use rayon::prelude::*;
use realfft::num_complex::Complex;
use rustfft::Fft;
use tweedie_kernels::FourierPlans;

use crate::map::{Real, RowMap};
use crate::{Error, Result};

/// Plans for images of one size.
#[derive(Clone, Debug)]
pub(crate) struct Dft {
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) single: FourierPlans<f32>,
    pub(crate) double: FourierPlans<f64>,
}

impl Dft {
    /// For images of `height × width` pixels, both at least 1.
    pub(crate) fn new(height: usize, width: usize) -> Self {
        Self {
            height,
            width,
            single: FourierPlans::<f32>::new(height, width),
            double: FourierPlans::<f64>::new(height, width),
        }
    }

    /// Columns of a half spectrum.
    pub(crate) fn columns(&self) -> usize {
        self.width / 2 + 1
    }

    /// The half spectrum of one plane.
    pub(crate) fn spectrum<T: Real>(&self, plane: &[T]) -> Vec<Complex<T>> {
        let plans = T::plans(self);
        let (height, width, columns) = (self.height, self.width, self.columns());
        let zero = Complex::new(T::zero(), T::zero());
        let mut rows = vec![zero; height * columns];
        rows.par_chunks_mut(columns).zip(plane.par_chunks(width)).for_each_init(
            || (vec![T::zero(); width], plans.rows.make_scratch_vec()),
            |(line, scratch), (row, plane)| {
                line.copy_from_slice(plane);
                plans.rows.process_with_scratch(line, row, scratch).expect("lengths are the plan's");
            },
        );
        let mut spectrum = vec![zero; height * columns];
        flip(&rows, columns, &mut spectrum, height);
        self.along_columns(&plans.columns, &mut spectrum);
        spectrum
    }

    /// The half spectrum of one plane row by row, `[ky · (W/2 + 1) + kx]`.
    pub(crate) fn spectrum_by_rows<T: Real>(&self, plane: &[T]) -> Vec<Complex<T>> {
        let by_columns = self.spectrum(plane);
        let mut rows = vec![Complex::new(T::zero(), T::zero()); by_columns.len()];
        flip(&by_columns, self.height, &mut rows, self.columns());
        rows
    }

    /// [`plane`](Self::plane) of a half spectrum that lies row by row.
    pub(crate) fn plane_by_rows<T: Real>(&self, rows: Vec<Complex<T>>, plane: &mut [T]) {
        let mut spectrum = vec![Complex::new(T::zero(), T::zero()); rows.len()];
        flip(&rows, self.columns(), &mut spectrum, self.height);
        self.plane(spectrum, plane);
    }

    /// The plane of a half spectrum, `1/(HW)` included. What a real image cannot have is dropped: the imaginary parts of the
    /// frequencies that are their own conjugates.
    pub(crate) fn plane<T: Real>(&self, mut spectrum: Vec<Complex<T>>, plane: &mut [T]) {
        let plans = T::plans(self);
        let (height, width, columns) = (self.height, self.width, self.columns());
        self.along_columns(&plans.columns_back, &mut spectrum);
        let mut rows = vec![Complex::new(T::zero(), T::zero()); height * columns];
        flip(&spectrum, height, &mut rows, columns);
        let norm = T::of(1.0 / (height * width) as f64);
        plane.par_chunks_mut(width).zip(rows.par_chunks_mut(columns)).for_each_init(
            || plans.rows_back.make_scratch_vec(),
            |scratch, (line, row)| {
                row[0].im = T::zero();
                if width % 2 == 0 {
                    row[columns - 1].im = T::zero();
                }
                plans.rows_back.process_with_scratch(row, line, scratch).expect("lengths are the plan's");
                line.iter_mut().for_each(|value| *value *= norm);
            },
        );
    }

    fn along_columns<T: Real>(&self, plan: &Arc<dyn Fft<T>>, spectrum: &mut [Complex<T>]) {
        spectrum.par_chunks_mut(self.height).for_each_init(
            || vec![Complex::new(T::zero(), T::zero()); plan.get_inplace_scratch_len()],
            |scratch, column| plan.process_with_scratch(column, scratch),
        );
    }

    /// The frequency `(ky, kx)` of a half spectrum, for any `ky < H` and `kx < W`.
    pub(crate) fn at<T: Real>(&self, spectrum: &[Complex<T>], ky: usize, kx: usize) -> Complex<T> {
        if kx < self.columns() {
            spectrum[kx * self.height + ky]
        } else {
            spectrum[(self.width - kx) * self.height + (self.height - ky) % self.height].conj()
        }
    }

    /// Checks the last two dimensions of a row.
    pub(crate) fn check(&self, what: &str, row: &[usize]) -> Result<()> {
        match row {
            [_, height, width] if (*height, *width) == (self.height, self.width) => Ok(()),
            _ => Err(Error::Shape {
                what: what.into(),
                got: row.to_vec(),
                expected: format!("[_, {}, {}] in every row", self.height, self.width),
            }),
        }
    }
}

/// `to[x · lines + y] = from[y · length + x]`, in blocks that stay in the cache.
fn flip<T: Copy + Send + Sync>(from: &[T], length: usize, to: &mut [T], lines: usize) {
    const BLOCK: usize = 16;
    to.par_chunks_mut(lines * BLOCK).enumerate().for_each(|(block, to)| {
        for first in (0..lines).step_by(BLOCK) {
            for (i, column) in to.chunks_mut(lines).enumerate() {
                let x = block * BLOCK + i;
                for y in first..lines.min(first + BLOCK) {
                    column[y] = from[y * length + x];
                }
            }
        }
    });
}

/// Circular convolution of every plane, `y = F⁻¹[K ⊙ F x]`; the transpose is multiplication with the conjugate.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    pub(crate) dft: Dft,
    /// `K`: one half spectrum for all channels, or one for each.
    pub(crate) transfer: Vec<Vec<Complex<f64>>>,
}

impl Filter {
    fn run<T: Real>(&self, x: &[T], y: &mut [T], factor: impl Fn(Complex<f64>) -> Complex<f64> + Sync) {
        let plane = self.dft.height * self.dft.width;
        y.par_chunks_mut(plane).zip(x.par_chunks(plane)).enumerate().for_each(|(channel, (y, x))| {
            let mut spectrum = self.dft.spectrum(x);
            let transfer = &self.transfer[channel % self.transfer.len()];
            for (value, &k) in spectrum.iter_mut().zip(transfer) {
                let k = factor(k);
                *value *= Complex::new(T::of(k.re), T::of(k.im));
            }
            self.dft.plane(spectrum, y);
        });
    }
}

impl RowMap for Filter {
    const NAME: &'static str = "circular convolution";

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        self.dft.check("image for a circular convolution", input)?;
        Ok(input.to_vec())
    }

    fn input_shape(&self, output: &[usize]) -> Result<Vec<usize>> {
        self.dft.check("measurement of a circular convolution", output)?;
        Ok(output.to_vec())
    }

    fn forward<T: Real>(&self, _: &[usize], x: &[T], y: &mut [T]) {
        self.run(x, y, |k| k);
    }

    fn transpose<T: Real>(&self, _: &[usize], y: &[T], x: &mut [T]) {
        self.run(y, x, |k| k.conj());
    }
}

/// The Hartley transform, `H(k) = (Re X(k) − Im X(k)) / √(HW)`: real, orthonormal, its own inverse and transpose.
///
/// A filter whose transfer function is real and even is diagonal in it, which makes it the `V` of every circular blur.
#[derive(Clone, Debug)]
pub(crate) struct Hartley(pub(crate) Dft);

impl RowMap for Hartley {
    const NAME: &'static str = "Hartley transform";

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        self.0.check("image for a Hartley transform", input)?;
        Ok(input.to_vec())
    }

    fn input_shape(&self, output: &[usize]) -> Result<Vec<usize>> {
        self.output_shape(output)
    }

    fn forward<T: Real>(&self, _: &[usize], x: &[T], y: &mut [T]) {
        let dft = &self.0;
        let plane = dft.height * dft.width;
        let norm = T::of(1.0 / (plane as f64).sqrt());
        y.par_chunks_mut(plane).zip(x.par_chunks(plane)).for_each(|(y, x)| {
            let rows = dft.spectrum_by_rows(x);
            y.par_chunks_mut(dft.width).enumerate().for_each(|(ky, line)| {
                let here = &rows[ky * dft.columns()..][..dft.columns()];
                let there = &rows[(dft.height - ky) % dft.height * dft.columns()..][..dft.columns()];
                let (left, right) = line.split_at_mut(dft.columns());
                left.iter_mut().zip(here).for_each(|(value, z)| *value = (z.re - z.im) * norm);
                // Columns beyond the half are conjugates from the opposite row.
                let opposite = there[1..dft.width.div_ceil(2)].iter().rev();
                right.iter_mut().zip(opposite).for_each(|(value, z)| *value = (z.re + z.im) * norm);
            });
        });
    }

    fn transpose<T: Real>(&self, shape: &[usize], y: &[T], x: &mut [T]) {
        self.forward(shape, y, x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(height: usize, width: usize) -> Vec<f64> {
        (0..height * width).map(|i| ((i * i + 3 * i) as f64 * 0.37).sin()).collect()
    }

    /// `(Re, Im)` by the definition.
    fn definition(x: &[f64], height: usize, width: usize, ky: usize, kx: usize) -> (f64, f64) {
        let mut sum = (0.0, 0.0);
        for v in 0..height {
            for u in 0..width {
                let turns = (ky * v) as f64 / height as f64 + (kx * u) as f64 / width as f64;
                let (sin, cos) = (std::f64::consts::TAU * turns).sin_cos();
                sum.0 += x[v * width + u] * cos;
                sum.1 -= x[v * width + u] * sin;
            }
        }
        sum
    }

    #[test]
    fn transforms_are_those_of_the_definition_and_come_back() {
        for (height, width) in [(1, 1), (1, 4), (5, 1), (4, 6), (6, 5), (5, 6), (7, 7)] {
            let dft = Dft::new(height, width);
            let x = image(height, width);
            let spectrum = dft.spectrum(&x);
            for ky in 0..height {
                for kx in 0..width {
                    let (re, im) = definition(&x, height, width, ky, kx);
                    let got = dft.at(&spectrum, ky, kx);
                    assert!((got.re - re).abs() + (got.im - im).abs() < 1e-11, "{height}x{width} at {ky}, {kx}");
                }
            }
            let mut back = vec![0.0; x.len()];
            dft.plane(spectrum, &mut back);
            assert!(x.iter().zip(&back).all(|(a, b)| (a - b).abs() < 1e-13), "{height}x{width}");
        }
    }
}
