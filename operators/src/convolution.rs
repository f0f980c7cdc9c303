//! Convolution of planes with one kernel: borders, and three ways to compute the same sum.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use realfft::num_complex::Complex;

use crate::dft::{Dft, Filter};
use crate::kernel::Kernel;
use crate::map::{self, Real, RowMap};
use crate::padding::Padding;
use crate::{Error, Result};

/// One dimension: `y[p] = Σ_j t[j] x̃[p + j]` with the padded line `x̃[i] = x[source[i]]`.
#[derive(Clone, Debug)]
struct Axis {
    image: usize,
    output: usize,
    taps: usize,
    /// For every position of the padded line its pixel; none is zero.
    source: Vec<Option<usize>>,
    /// For every pixel its positions in the padded line.
    positions: Vec<Vec<usize>>,
    /// Where the padded line holds the image itself.
    inside: Range<usize>,
    /// The pixel at `inside.start`.
    first: usize,
}

impl Axis {
    /// `taps` taps of a kernel whose value at `centre` stays in place.
    fn new(image: usize, taps: usize, centre: isize, padding: Padding) -> Self {
        let (output, start) = match padding {
            Padding::Valid => (image + 1 - taps, 0),
            _ => (image, centre + 1 - taps as isize),
        };
        let source: Vec<_> =
            (0..output + taps - 1).map(|i| padding.pixel((start + i as isize) as i64, image)).collect();
        let mut positions = vec![Vec::new(); image];
        for (position, pixel) in source.iter().enumerate() {
            if let Some(pixel) = *pixel {
                positions[pixel].push(position);
            }
        }
        let length = source.len() as isize;
        let from = (-start).clamp(0, length);
        let to = (image as isize - start).clamp(from, length);
        let first = (start + from).max(0) as usize;
        Self { image, output, taps, source, positions, inside: from as usize..to as usize, first }
    }

    /// The padded line of `line`.
    fn pad<T: Real>(&self, line: &[T], padded: &mut [T]) {
        let border = |i: usize| self.source[i].map_or(T::zero(), |pixel| line[pixel]);
        let Range { start, end } = self.inside;
        padded[start..end].copy_from_slice(&line[self.first..][..end - start]);
        padded[..start].iter_mut().enumerate().for_each(|(i, value)| *value = border(i));
        padded[end..].iter_mut().enumerate().for_each(|(i, value)| *value = border(end + i));
    }

    /// The transpose of [`pad`](Self::pad), added to `line`.
    fn fold<T: Real>(&self, padded: &[T], line: &mut [T]) {
        let Range { start, end } = self.inside;
        let inner = &mut line[self.first..][..end - start];
        inner.iter_mut().zip(&padded[start..end]).for_each(|(value, &more)| *value += more);
        for i in (0..start).chain(end..padded.len()) {
            if let Some(pixel) = self.source[i] {
                line[pixel] += padded[i];
            }
        }
    }
}

/// How the sum is computed.
#[derive(Clone, Debug)]
enum Method {
    /// `t[j, l] = column[j] row[l]`; the taps that are not zero.
    Separable { column: Vec<(usize, f64)>, row: Vec<(usize, f64)> },
    /// The taps that are not zero: row, column, value.
    Direct(Vec<(usize, usize, f64)>),
    /// Products of Fourier transforms of the padded image.
    Fourier(Filter),
}

/// Which method is wanted; a test may ask for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The one that the sizes tell.
    Sizes,
    #[cfg(test)]
    Separable,
    #[cfg(test)]
    Direct,
    #[cfg(test)]
    Fourier,
}

/// Multiplications of a direct sum that take the time of one butterfly, `1/(N log₂ N)` of a transform and its inverse;
/// measured once on a 1024 × 1024 image and kept, so that the choice never depends on a clock.
const BUTTERFLY: f64 = 6.0;

/// Convolution of every plane with one kernel.
#[derive(Clone, Debug)]
pub(crate) struct Convolution {
    rows: Axis,
    columns: Axis,
    padding: Padding,
    /// All of them, row by row.
    taps: Vec<f64>,
    method: Method,
}

impl Convolution {
    /// For images of `height × width` pixels.
    ///
    /// # Errors
    /// [`Error::Config`] if the image has no pixel, or with [`Padding::Valid`] if the kernel does not fit it.
    pub(crate) fn new(
        kernel: &Kernel,
        (height, width): (usize, usize),
        padding: Padding,
        choice: Choice,
    ) -> Result<Self> {
        if height == 0 || width == 0 {
            return Err(Error::config("convolution", format!("image is {width}x{height}, expected at least 1x1")));
        }
        if padding == Padding::Valid && (kernel.height() > height || kernel.width() > width) {
            let reason = format!(
                "kernel is {}x{}, expected at most {width}x{height}, the size of the image, without padding",
                kernel.width(),
                kernel.height()
            );
            return Err(Error::config("convolution", reason));
        }
        // Zeros around a kernel change nothing but the size of a measurement without padding.
        let part = match padding {
            Padding::Valid => (0..kernel.height(), 0..kernel.width()),
            _ => kernel.support(),
        };
        let (down, across) = (part.0.len(), part.1.len());
        let centre = kernel.centre();
        let rows = Axis::new(height, down, centre.0 as isize - part.0.start as isize, padding);
        let columns = Axis::new(width, across, centre.1 as isize - part.1.start as isize, padding);
        // Taps run against the kernel: t[j, l] = k[−j, −l].
        let taps: Vec<f64> = part.0.rev().flat_map(|y| part.1.clone().rev().map(move |x| kernel.at(y, x))).collect();
        let count = taps.iter().filter(|&&tap| tap != 0.0).count();
        let separable = factors(&taps, across);
        let fast = (fast_size(rows.source.len()), fast_size(columns.source.len()));
        let area = (fast.0 * fast.1) as f64;
        let fourier = BUTTERFLY * area * area.log2();
        let sums = separable.as_ref().map_or(count, |(column, row)| column.len() + row.len());
        let direct = (sums * rows.output * columns.output) as f64;
        let all = || {
            Method::Direct(
                taps.iter()
                    .enumerate()
                    .filter(|(_, tap)| **tap != 0.0)
                    .map(|(i, &tap)| (i / across, i % across, tap))
                    .collect(),
            )
        };
        let transforms = || {
            let dft = Dft::new(fast.0, fast.1);
            let mut plane = vec![0.0; fast.0 * fast.1];
            plane.chunks_mut(fast.1).zip(taps.chunks(across)).for_each(|(to, from)| to[..across].copy_from_slice(from));
            // A sum over x̃[p + j] is a correlation.
            let transfer = dft.spectrum(&plane).iter().map(Complex::conj).collect();
            Method::Fourier(Filter { dft, transfer: vec![transfer] })
        };
        let method = match (choice, separable) {
            #[cfg(test)]
            (Choice::Direct, _) => all(),
            #[cfg(test)]
            (Choice::Fourier, _) => transforms(),
            #[cfg(test)]
            (Choice::Separable, Some((column, row))) => Method::Separable { column, row },
            _ if fourier < direct => transforms(),
            (_, Some((column, row))) => Method::Separable { column, row },
            (_, None) => all(),
        };
        Ok(Self { rows, columns, padding, taps, method })
    }

    /// Height and width of a measurement.
    pub(crate) fn output(&self) -> (usize, usize) {
        (self.rows.output, self.columns.output)
    }

    fn forward_plane<T: Real>(&self, x: &[T], y: &mut [T]) {
        let (rows, columns) = (&self.rows, &self.columns);
        let (width, padded_width, output) = (columns.image, columns.source.len(), columns.output);
        match &self.method {
            Method::Separable { column, row } => {
                y.par_chunks_mut(output).enumerate().for_each_init(
                    || (vec![T::zero(); width], vec![T::zero(); padded_width]),
                    |(line, padded), (p, y)| {
                        let sources = column.iter().filter_map(|&(j, tap)| {
                            rows.source[p + j].map(|pixel| (&x[pixel * width..][..width], T::of(tap)))
                        });
                        weighted_sum(&sources.collect::<Vec<_>>(), line);
                        columns.pad(line, padded);
                        weighted_sum(&shifted(row, padded, output), y);
                    },
                );
            }
            Method::Direct(taps) => {
                let mut padded = vec![T::zero(); rows.image * padded_width];
                let lines = padded.par_chunks_mut(padded_width).zip(x.par_chunks(width));
                lines.for_each(|(padded, line)| columns.pad(line, padded));
                y.par_chunks_mut(output).enumerate().for_each(|(p, y)| {
                    let sources = taps.iter().filter_map(|&(j, l, tap)| {
                        rows.source[p + j].map(|pixel| (&padded[pixel * padded_width + l..][..output], T::of(tap)))
                    });
                    weighted_sum(&sources.collect::<Vec<_>>(), y);
                });
            }
            Method::Fourier(filter) => {
                let mut plane = vec![T::zero(); filter.dft.height * filter.dft.width];
                plane.par_chunks_mut(filter.dft.width).zip(&rows.source).for_each(|(to, source)| {
                    if let Some(pixel) = *source {
                        columns.pad(&x[pixel * width..][..width], &mut to[..padded_width]);
                    }
                });
                let spectrum = filter.dft.spectrum(&plane);
                filter.dft.plane(product(spectrum, &filter.transfer[0], |k| k), &mut plane);
                let lines = y.par_chunks_mut(output).zip(plane.par_chunks(filter.dft.width));
                lines.for_each(|(y, line)| y.copy_from_slice(&line[..output]));
            }
        }
    }

    fn transpose_plane<T: Real>(&self, y: &[T], x: &mut [T]) {
        let (rows, columns) = (&self.rows, &self.columns);
        let (width, padded_width, output) = (columns.image, columns.source.len(), columns.output);
        // A line of y between margins, so that every shift of it that a tap may ask for exists.
        let margin = columns.taps - 1;
        match &self.method {
            Method::Separable { column, row } => {
                x.par_chunks_mut(width).enumerate().for_each_init(
                    || (vec![T::zero(); output + 2 * margin], vec![T::zero(); padded_width]),
                    |(line, padded), (pixel, x)| {
                        let sources = rows.positions[pixel].iter().flat_map(|&position| {
                            let rows_of_y = move |&(j, tap): &(usize, f64)| {
                                let p = position.checked_sub(j).filter(|&p| p < rows.output)?;
                                Some((&y[p * output..][..output], T::of(tap)))
                            };
                            column.iter().filter_map(rows_of_y)
                        });
                        weighted_sum(&sources.collect::<Vec<_>>(), &mut line[margin..][..output]);
                        let sources: Vec<_> =
                            row.iter().map(|&(l, tap)| (&line[margin - l..][..padded_width], T::of(tap))).collect();
                        weighted_sum(&sources, padded);
                        columns.fold(padded, x);
                    },
                );
            }
            Method::Direct(taps) => {
                let stride = output + 2 * margin;
                let mut spread = vec![T::zero(); rows.output * stride];
                let lines = spread.par_chunks_mut(stride).zip(y.par_chunks(output));
                lines.for_each(|(spread, line)| spread[margin..][..output].copy_from_slice(line));
                x.par_chunks_mut(width).enumerate().for_each_init(
                    || vec![T::zero(); padded_width],
                    |padded, (pixel, x)| {
                        let sources = rows.positions[pixel].iter().flat_map(|&position| {
                            let spread = &spread;
                            taps.iter().filter_map(move |&(j, l, tap)| {
                                let p = position.checked_sub(j).filter(|&p| p < rows.output)?;
                                Some((&spread[p * stride + margin - l..][..padded_width], T::of(tap)))
                            })
                        });
                        weighted_sum(&sources.collect::<Vec<_>>(), padded);
                        columns.fold(padded, x);
                    },
                );
            }
            Method::Fourier(filter) => {
                let mut plane = vec![T::zero(); filter.dft.height * filter.dft.width];
                let lines = plane.par_chunks_mut(filter.dft.width).zip(y.par_chunks(output));
                lines.for_each(|(to, y)| to[..output].copy_from_slice(y));
                let spectrum = filter.dft.spectrum(&plane);
                filter.dft.plane(product(spectrum, &filter.transfer[0], |k| k.conj()), &mut plane);
                x.par_chunks_mut(width).zip(&rows.positions).for_each(|(x, positions)| {
                    for position in positions {
                        columns.fold(&plane[position * filter.dft.width..][..padded_width], x);
                    }
                });
            }
        }
    }
}

impl RowMap for Convolution {
    const NAME: &'static str = "convolution";

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        check("image for a convolution", input, (self.rows.image, self.columns.image))?;
        Ok(vec![input[0], self.rows.output, self.columns.output])
    }

    fn input_shape(&self, output: &[usize]) -> Result<Vec<usize>> {
        check("measurement of a convolution", output, self.output())?;
        Ok(vec![output[0], self.rows.image, self.columns.image])
    }

    fn forward<T: Real>(&self, _: &[usize], x: &[T], y: &mut [T]) {
        let (from, to) = (self.rows.image * self.columns.image, self.rows.output * self.columns.output);
        y.par_chunks_mut(to).zip(x.par_chunks(from)).for_each(|(y, x)| self.forward_plane(x, y));
    }

    fn transpose<T: Real>(&self, _: &[usize], y: &[T], x: &mut [T]) {
        let (to, from) = (self.rows.image * self.columns.image, self.rows.output * self.columns.output);
        x.par_chunks_mut(to).zip(y.par_chunks(from)).for_each(|(x, y)| self.transpose_plane(y, x));
    }
}

/// `A x` for a batch of images, differentiable: by the fast loops on the host, by the device's own convolution elsewhere.
pub(crate) fn apply(convolution: &Arc<Convolution>, x: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() { map::apply(convolution, x) } else { convolution.forward_tensor(x) }
}

/// `Aᵀ y` for a batch of measurements, differentiable.
pub(crate) fn transpose(convolution: &Arc<Convolution>, y: &Tensor) -> Result<Tensor> {
    if y.device().is_cpu() { map::transpose(convolution, y) } else { convolution.transpose_tensor(y) }
}

impl Axis {
    /// Pixels of the padded line, for [`Tensor::index_select`].
    fn index(&self, device: &Device) -> Result<Tensor> {
        let pixels: Vec<u32> = self.source.iter().map(|source| source.unwrap_or(0) as u32).collect();
        Ok(Tensor::new(pixels, device)?)
    }

    fn pad_tensor(&self, padding: Padding, x: &Tensor, dimension: usize) -> Result<Tensor> {
        let Range { start, end } = self.inside;
        match padding {
            Padding::Valid => Ok(x.clone()),
            Padding::Zero => {
                let inner = x.narrow(dimension, self.first, end - start)?;
                Ok(inner.pad_with_zeros(dimension, start, self.source.len() - end)?)
            }
            _ => Ok(x.contiguous()?.index_select(&self.index(x.device())?, dimension)?),
        }
    }

    fn fold_tensor(&self, padding: Padding, padded: &Tensor, dimension: usize) -> Result<Tensor> {
        let Range { start, end } = self.inside;
        match padding {
            Padding::Valid => Ok(padded.clone()),
            Padding::Zero => {
                let inner = padded.narrow(dimension, start, end - start)?;
                Ok(inner.pad_with_zeros(dimension, self.first, self.image - self.first - (end - start))?)
            }
            _ => {
                let mut shape = padded.dims().to_vec();
                shape[dimension] = self.image;
                let zeros = Tensor::zeros(shape, padded.dtype(), padded.device())?;
                Ok(zeros.index_add(&self.index(padded.device())?, &padded.contiguous()?, dimension)?)
            }
        }
    }
}

/// The same by operations that every device has, channels as rows of the batch.
impl Convolution {
    fn weight(&self, like: &Tensor) -> Result<Tensor> {
        let shape = (1, 1, self.rows.taps, self.columns.taps);
        let taps = Tensor::from_slice(&self.taps, shape, &Device::Cpu)?.to_dtype(like.dtype())?;
        Ok(taps.to_device(like.device())?)
    }

    fn forward_tensor(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, channels, ..) = x.dims4()?;
        let padded = self.rows.pad_tensor(self.padding, x, 2)?;
        let padded = self.columns.pad_tensor(self.padding, &padded, 3)?;
        let planes = padded.reshape((batch * channels, 1, self.rows.source.len(), self.columns.source.len()))?;
        let y = planes.contiguous()?.conv2d(&self.weight(x)?, 0, 1, 1, 1)?;
        Ok(y.reshape((batch, channels, self.rows.output, self.columns.output))?)
    }

    fn transpose_tensor(&self, y: &Tensor) -> Result<Tensor> {
        let (batch, channels, ..) = y.dims4()?;
        let planes = y.reshape((batch * channels, 1, self.rows.output, self.columns.output))?.contiguous()?;
        let padded = planes.conv_transpose2d(&self.weight(y)?, 0, 0, 1, 1)?;
        let padded = padded.reshape((batch, channels, self.rows.source.len(), self.columns.source.len()))?;
        let folded = self.columns.fold_tensor(self.padding, &padded, 3)?;
        self.rows.fold_tensor(self.padding, &folded, 2)
    }
}

/// Checks the last two dimensions of a row.
pub(crate) fn check(what: &str, row: &[usize], (height, width): (usize, usize)) -> Result<()> {
    match *row {
        [_, h, w] if (h, w) == (height, width) => Ok(()),
        _ => Err(Error::Shape {
            what: what.into(),
            got: row.to_vec(),
            expected: format!("[_, {height}, {width}] in every row"),
        }),
    }
}

/// The shifts of a padded line that the taps ask for.
fn shifted<'a, T: Real>(taps: &[(usize, f64)], padded: &'a [T], length: usize) -> Vec<(&'a [T], T)> {
    taps.iter().map(|&(l, tap)| (&padded[l..][..length], T::of(tap))).collect()
}

fn product<T: Real>(
    mut spectrum: Vec<Complex<T>>,
    transfer: &[Complex<f64>],
    factor: impl Fn(Complex<f64>) -> Complex<f64> + Sync,
) -> Vec<Complex<T>> {
    spectrum.par_iter_mut().with_min_len(4096).zip(transfer).for_each(|(value, &k)| {
        let k = factor(k);
        *value *= Complex::new(T::of(k.re), T::of(k.im));
    });
    spectrum
}

/// `sum = Σ weight · values`, in the order of the terms; every slice is as long as `sum`.
fn weighted_sum<T: Real>(terms: &[(&[T], T)], sum: &mut [T]) {
    sum.fill(T::zero());
    let length = sum.len();
    // Eight terms in one pass: the sum is read and written once for eight multiplications.
    let mut eights = terms.chunks_exact(8);
    for group in &mut eights {
        let values: [&[T]; 8] = std::array::from_fn(|i| &group[i].0[..length]);
        let weights: [T; 8] = std::array::from_fn(|i| group[i].1);
        for i in 0..length {
            let mut total = sum[i];
            for (values, weight) in values.iter().zip(weights) {
                total += weight * values[i];
            }
            sum[i] = total;
        }
    }
    for (values, weight) in eights.remainder() {
        sum.iter_mut().zip(*values).for_each(|(sum, &value)| *sum += *weight * value);
    }
}

/// The taps of one direction that are not zero: position and value.
type Line = Vec<(usize, f64)>;

/// The two factors of an outer product, to 1e-12 of the largest tap; none if it is not one.
fn factors(taps: &[f64], across: usize) -> Option<(Line, Line)> {
    let largest = taps.iter().enumerate().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()))?.0;
    let (y, x) = (largest / across, largest % across);
    let pivot = taps[largest];
    if pivot == 0.0 {
        return None;
    }
    let column: Vec<f64> = taps.iter().skip(x).step_by(across).copied().collect();
    let row: Vec<f64> = taps[y * across..][..across].iter().map(|tap| tap / pivot).collect();
    let close = |(i, tap): (usize, &f64)| (tap - column[i / across] * row[i % across]).abs() <= 1e-12 * pivot.abs();
    let nonzero = |line: Vec<f64>| line.into_iter().enumerate().filter(|(_, tap)| *tap != 0.0).collect();
    taps.iter().enumerate().all(close).then(|| (nonzero(column), nonzero(row)))
}

/// The least number from `size` on without a prime factor above 7: what Fourier transforms are fast at.
fn fast_size(size: usize) -> usize {
    let smooth = |&size: &usize| {
        let rest = [2, 3, 5, 7].iter().fold(size, |rest, &prime| {
            let mut rest = rest;
            while rest % prime == 0 {
                rest /= prime;
            }
            rest
        });
        rest == 1
    };
    (size.max(1)..).find(smooth).unwrap_or(size)
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;

    const PADDINGS: [Padding; 6] =
        [Padding::Circular, Padding::Reflect, Padding::Replicate, Padding::Zero, Padding::Symmetric, Padding::Valid];

    fn numbers(count: usize) -> Vec<f64> {
        (0..count).map(|i| ((i * i + 5 * i) as f64 * 0.61).sin()).collect()
    }

    /// Kernels smaller and larger than the image, of odd and even sides, off centre, with zeros around, of rank one.
    fn kernels() -> Vec<Kernel> {
        let outer = numbers(5).iter().flat_map(|y| numbers(4).into_iter().map(move |x| x * y)).collect();
        let mut padded = vec![0.0; 49];
        padded[10] = 0.4;
        padded[12] = -0.3;
        vec![
            Kernel::new(3, 3, numbers(9)).unwrap(),
            Kernel::new(2, 5, numbers(10)).unwrap().with_centre(1, 4).unwrap(),
            Kernel::new(5, 4, outer).unwrap(),
            Kernel::new(7, 7, padded).unwrap(),
            Kernel::new(11, 17, numbers(187)).unwrap(),
            Kernel::new(1, 1, vec![0.0]).unwrap(),
        ]
    }

    /// The sum as it is defined, one product at a time.
    fn definition(kernel: &Kernel, padding: Padding, (height, width): (usize, usize), x: &[f64]) -> Vec<f64> {
        let (mut rows, mut columns, mut centre) = (height, width, kernel.centre());
        if padding == Padding::Valid {
            (rows, columns) = (height + 1 - kernel.height(), width + 1 - kernel.width());
            centre = (kernel.height() - 1, kernel.width() - 1);
        }
        let mut y = vec![0.0; rows * columns];
        for (i, sum) in y.iter_mut().enumerate() {
            for (j, tap) in kernel.values().iter().enumerate() {
                let place = |p: usize, centre: usize, q: usize| p as i64 + centre as i64 - q as i64;
                let row = padding.pixel(place(i / columns, centre.0, j / kernel.width()), height);
                let column = padding.pixel(place(i % columns, centre.1, j % kernel.width()), width);
                if let (Some(row), Some(column)) = (row, column) {
                    *sum += tap * x[row * width + column];
                }
            }
        }
        y
    }

    #[test]
    fn every_method_computes_the_definition_and_its_transpose() {
        for size in [(12, 17), (6, 7), (1, 5), (3, 1)] {
            for (number, kernel) in kernels().iter().enumerate() {
                for padding in PADDINGS {
                    for choice in [Choice::Sizes, Choice::Direct, Choice::Separable, Choice::Fourier] {
                        let Ok(convolution) = Convolution::new(kernel, size, padding, choice) else {
                            assert!(padding == Padding::Valid, "kernel {number} on {size:?}");
                            continue;
                        };
                        let label = format!("kernel {number} on {size:?}, {padding:?}, {choice:?}");
                        let area = size.0 * size.1;
                        let x = numbers(2 * area);
                        let shape = [2, size.0, size.1];
                        let (height, width) = convolution.output();
                        let mut y = vec![0.0; 2 * height * width];
                        convolution.forward(&shape, &x, &mut y);
                        let expected = x.chunks(area).flat_map(|x| definition(kernel, padding, size, x));
                        assert!(y.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{label}");
                        // The transpose against every column of the matrix.
                        let v = numbers(2 * height * width);
                        let mut back = vec![0.0; 2 * area];
                        convolution.transpose(&shape, &v, &mut back);
                        for (i, &got) in back[..area].iter().enumerate() {
                            let mut unit = vec![0.0; area];
                            unit[i] = 1.0;
                            let column = definition(kernel, padding, size, &unit);
                            let expected: f64 = column.iter().zip(&v).map(|(a, v)| a * v).sum();
                            assert!((got - expected).abs() < 1e-12, "{label}, pixel {i}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn devices_compute_what_the_host_does() {
        for (size, kernel, padding) in
            kernels().iter().flat_map(|kernel| PADDINGS.map(|padding| ((12, 17), kernel, padding)))
        {
            let convolution = Arc::new(Convolution::new(kernel, size, padding, Choice::Sizes).unwrap());
            let x = Tensor::from_vec(numbers(6 * 12 * 17), (2, 3, 12, 17), &Device::Cpu).unwrap();
            let same = |a: Tensor, b: Tensor| {
                let values = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
                assert_eq!(a.dims(), b.dims());
                assert!(values(a).iter().zip(values(b)).all(|(a, b)| (a - b).abs() < 1e-12), "{padding:?}");
            };
            let y = map::apply(&convolution, &x).unwrap();
            same(convolution.forward_tensor(&x).unwrap(), y.clone());
            let v = Tensor::from_vec(numbers(y.elem_count()), y.shape(), &Device::Cpu).unwrap();
            same(convolution.transpose_tensor(&v).unwrap(), map::transpose(&convolution, &v).unwrap());
            assert_eq!(convolution.forward_tensor(&x.to_dtype(DType::F32).unwrap()).unwrap().dtype(), DType::F32);
        }
    }

    #[test]
    fn outer_products_are_found_to_a_trillionth() {
        let [column, row] = [numbers(5), numbers(7)];
        let mut taps: Vec<f64> = column.iter().flat_map(|y| row.iter().map(move |x| x * y)).collect();
        assert!(factors(&taps, 7).is_some());
        taps[3] += 1e-9;
        assert!(factors(&taps, 7).is_none());
        assert!(factors(&[0.0; 6], 3).is_none());
    }

    #[test]
    fn fast_sizes_have_small_prime_factors() {
        assert_eq!([1, 7, 11, 13, 97, 1023, 1085].map(fast_size), [1, 7, 12, 14, 98, 1024, 1120]);
    }
}

#[cfg(test)]
mod timing {
    use super::*;

    #[test]
    #[ignore = "a measurement, meant for optimised builds"]
    fn milliseconds_of_three_channels_of_1024_pixels() {
        let shape = [3, 1024, 1024];
        let x: Vec<f32> = (0..3 << 20).map(|i| (i % 251) as f32 / 125.0 - 1.0).collect();
        let mut y = vec![0f32; x.len()];
        let gaussian = |size: usize, angle: f64| Kernel::gaussian([3.0, 2.0], angle, Some(size)).unwrap();
        let cases = [
            ("gaussian 25x25", gaussian(25, 0.0)),
            ("gaussian 9x9 turned", gaussian(9, 20.0)),
            ("gaussian 17x17 turned", gaussian(17, 20.0)),
            ("gaussian 25x25 turned", gaussian(25, 20.0)),
            ("gaussian 41x41 turned", gaussian(41, 20.0)),
            ("motion 61x61", Kernel::trajectory(61, 0.5, 0).unwrap()),
        ];
        for (name, kernel) in cases {
            let taps = kernel.values().iter().filter(|&&tap| tap != 0.0).count();
            for choice in [Choice::Sizes, Choice::Direct, Choice::Fourier] {
                let convolution = Convolution::new(&kernel, (1024, 1024), Padding::Reflect, choice).unwrap();
                let mut best = [f64::MAX; 2];
                for _ in 0..5 {
                    let start = std::time::Instant::now();
                    convolution.forward(&shape, &x, &mut y);
                    best[0] = best[0].min(start.elapsed().as_secs_f64() * 1e3);
                    let mut back = vec![0f32; x.len()];
                    let start = std::time::Instant::now();
                    convolution.transpose(&shape, &y, &mut back);
                    best[1] = best[1].min(start.elapsed().as_secs_f64() * 1e3);
                }
                println!("{name}, {taps} taps, {choice:?}: forward {:.1} ms, transpose {:.1} ms", best[0], best[1]);
            }
        }
        let filter = Filter { dft: Dft::new(1024, 1024), transfer: vec![vec![Complex::new(0.5, 0.1); 1024 * 513]] };
        let mut best = f64::MAX;
        for _ in 0..5 {
            let start = std::time::Instant::now();
            filter.forward(&shape, &x, &mut y);
            best = best.min(start.elapsed().as_secs_f64() * 1e3);
        }
        println!("circular filter: {best:.1} ms");
    }
}
