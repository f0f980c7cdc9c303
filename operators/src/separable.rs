//! Linear maps that act on the columns and on the rows of an image by one matrix each.
//!
//! `Y = W₁ X W₂ᵀ`, the same for every channel. With `W_i = U_i S_i V_iᵀ` the map has `U = U₁ ⊗ U₂`, `V = V₁ ⊗ V₂` and the
//! singular values `s_i s_j`, so that two small decompositions stand for one of the size of the image.

use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device, Tensor};
use faer::Mat;
use rayon::prelude::*;

use crate::forward::{ForwardOperator, LinearOperator, SpectralOperator, check_image, like};
use crate::map::{Real, RowMap, apply, transpose};
use crate::padding::Padding;
use crate::registry::Site;
use crate::{Error, Result};

/// Rows that the horizontal pass works on together, side by side in memory: two vectors of AVX-512 or eight of SSE in f32.
const LANES: usize = 16;

/// A matrix with few entries in every row.
#[derive(Clone, Debug)]
pub(crate) struct Sparse {
    columns: usize,
    /// Where the entries of each row begin, and the end of the last.
    starts: Vec<usize>,
    /// Column and value, sorted by columns.
    entries: Vec<(usize, f64)>,
}

impl Sparse {
    /// The matrix of these rows; values of the same place add up.
    pub(crate) fn new(columns: usize, rows: impl Iterator<Item = Vec<(usize, f64)>>) -> Self {
        let (mut starts, mut entries) = (vec![0], Vec::new());
        for mut row in rows {
            // A stable sort, so that equal columns add up in the order given.
            row.sort_by_key(|&(column, _)| column);
            for same in row.chunk_by(|a, b| a.0 == b.0) {
                let sum: f64 = same.iter().map(|(_, value)| value).sum();
                if sum != 0.0 {
                    entries.push((same[0].0, sum));
                }
            }
            starts.push(entries.len());
        }
        Self { columns, starts, entries }
    }

    /// Filters a line of `columns` pixels, `y[o] = Σ_a k[a] x[o · stride + ⌊K/2⌋ − a]`, at every `stride`-th pixel.
    pub(crate) fn filter(taps: &[f64], stride: usize, padding: Padding, columns: usize) -> Self {
        let row = |output: usize| {
            let centre = (output * stride + taps.len() / 2) as i64;
            let place = |(tap, &value): (usize, &f64)| Some((padding.pixel(centre - tap as i64, columns)?, value));
            taps.iter().enumerate().filter_map(place).collect()
        };
        Self::new(columns, (0..columns.div_ceil(stride)).map(row))
    }

    pub(crate) fn rows(&self) -> usize {
        self.starts.len() - 1
    }

    fn row(&self, row: usize) -> &[(usize, f64)] {
        &self.entries[self.starts[row]..self.starts[row + 1]]
    }

    fn transposed(&self) -> Self {
        let mut rows = vec![Vec::new(); self.columns];
        for row in 0..self.rows() {
            self.row(row).iter().for_each(|&(column, value)| rows[column].push((row, value)));
        }
        Self::new(self.rows(), rows.into_iter())
    }

    /// Its entries in another type.
    fn rounded<T: Real>(&self) -> Rounded<'_, T> {
        let entries = self.entries.iter().map(|&(column, value)| (column, T::of(value))).collect();
        Rounded { starts: &self.starts, entries }
    }

    fn dense(&self) -> Mat<f64> {
        let mut dense = Mat::zeros(self.rows(), self.columns);
        for row in 0..self.rows() {
            self.row(row).iter().for_each(|&(column, value)| dense[(row, column)] = value);
        }
        dense
    }
}

/// A sparse matrix in the type of the pixels.
struct Rounded<'a, T> {
    starts: &'a [usize],
    entries: Vec<(usize, T)>,
}

impl<T: Real> Rounded<'_, T> {
    fn row(&self, row: usize) -> &[(usize, T)] {
        &self.entries[self.starts[row]..self.starts[row + 1]]
    }

    /// `Σ_k w_k · line_k` of lines as long as `sum`, for one row of the matrix.
    fn mix(&self, row: usize, lines: &[T], sum: &mut [T]) {
        let length = sum.len();
        sum.fill(T::zero());
        add_lines(self.row(row), |line| &lines[line * length..(line + 1) * length], sum);
    }

    /// The matrix times every line of a block of at most [`LANES`] lines.
    ///
    /// `lanes` holds the block transposed: what is the same column of all lines lies side by side, and one vector
    /// operation serves them all, whatever the entries of the matrix.
    fn across(&self, lanes: &[[T; LANES]], length: usize, block: &mut [T]) {
        for column in 0..length {
            let mut sum = [T::zero(); LANES];
            for &(from, weight) in self.row(column) {
                for (sum, &value) in sum.iter_mut().zip(&lanes[from]) {
                    *sum += weight * value;
                }
            }
            for (line, value) in block.chunks_exact_mut(length).zip(sum) {
                line[column] = value;
            }
        }
    }
}

/// Adds weighted lines, four at a time so that the sum is read and written a fourth as often.
pub(crate) fn add_lines<'a, T: Real, I: Copy>(terms: &[(I, T)], line: impl Fn(I) -> &'a [T], sum: &mut [T]) {
    let fours = terms.chunks_exact(4);
    let rest = fours.remainder();
    for four in fours {
        let &[(a, wa), (b, wb), (c, wc), (d, wd)] = four else { continue };
        for ((((sum, &a), &b), &c), &d) in sum.iter_mut().zip(line(a)).zip(line(b)).zip(line(c)).zip(line(d)) {
            *sum += (wa * a + wb * b) + (wc * c + wd * d);
        }
    }
    for &(index, weight) in rest {
        for (sum, &value) in sum.iter_mut().zip(line(index)) {
            *sum += weight * value;
        }
    }
}

/// Puts a line into one lane.
fn place<T: Copy>(line: &[T], lane: usize, lanes: &mut [[T; LANES]]) {
    for (lanes, &value) in lanes.iter_mut().zip(line) {
        lanes[lane] = value;
    }
}

/// Both matrices and their transposes, as loops.
#[derive(Clone, Debug)]
struct Bands {
    vertical: Sparse,
    horizontal: Sparse,
    vertical_transposed: Sparse,
    horizontal_transposed: Sparse,
}

impl Bands {
    fn shape(&self, what: &str, row: &[usize], expected: (usize, usize), result: (usize, usize)) -> Result<Vec<usize>> {
        match *row {
            [channels, height, width] if (height, width) == expected => Ok(vec![channels, result.0, result.1]),
            _ => Err(Error::Shape {
                what: what.into(),
                got: row.to_vec(),
                expected: format!("[_, {}, {}] in every row", expected.0, expected.1),
            }),
        }
    }

    fn image(&self) -> (usize, usize) {
        (self.vertical.columns, self.horizontal.columns)
    }

    fn measurement(&self) -> (usize, usize) {
        (self.vertical.rows(), self.horizontal.rows())
    }
}

impl RowMap for Bands {
    const NAME: &'static str = "separable map";

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        self.shape("image for a separable map", input, self.image(), self.measurement())
    }

    fn input_shape(&self, output: &[usize]) -> Result<Vec<usize>> {
        self.shape("measurement of a separable map", output, self.measurement(), self.image())
    }

    /// Columns first: a map that shrinks leaves the second pass, which has to transpose, less to do.
    fn forward<T: Real>(&self, _: &[usize], x: &[T], y: &mut [T]) {
        let ((height, width), (rows, columns)) = (self.image(), self.measurement());
        let (vertical, horizontal) = (self.vertical.rounded::<T>(), self.horizontal.rounded::<T>());
        y.par_chunks_mut(rows * columns).zip(x.par_chunks(height * width)).for_each(|(y, x)| {
            y.par_chunks_mut(LANES * columns).enumerate().for_each_init(
                || (vec![T::zero(); width], vec![[T::zero(); LANES]; width]),
                |(line, lanes), (block, y)| {
                    for lane in 0..y.len() / columns {
                        vertical.mix(block * LANES + lane, x, line);
                        place(line, lane, lanes);
                    }
                    horizontal.across(lanes, columns, y);
                },
            );
        });
    }

    /// The passes of `forward` backwards, rows first.
    fn transpose<T: Real>(&self, _: &[usize], y: &[T], x: &mut [T]) {
        let ((height, width), (rows, columns)) = (self.image(), self.measurement());
        let (vertical, horizontal) =
            (self.vertical_transposed.rounded::<T>(), self.horizontal_transposed.rounded::<T>());
        x.par_chunks_mut(height * width).zip(y.par_chunks(rows * columns)).for_each(|(x, y)| {
            let mut wide = vec![T::zero(); rows * width];
            wide.par_chunks_mut(LANES * width).zip(y.par_chunks(LANES * columns)).for_each_init(
                || vec![[T::zero(); LANES]; columns],
                |lanes, (wide, y)| {
                    y.chunks_exact(columns).enumerate().for_each(|(lane, line)| place(line, lane, lanes));
                    horizontal.across(lanes, width, wide);
                },
            );
            x.par_chunks_mut(width).enumerate().for_each(|(row, line)| vertical.mix(row, &wide, line));
        });
    }
}

/// `Y = W₁ X W₂ᵀ` for every channel, with its singular value decomposition on demand.
#[derive(Clone, Debug)]
pub(crate) struct Separable {
    action: Action,
    site: (Device, DType),
    /// Found when it is asked for first; `None` inside if the iteration did not converge.
    spectral: OnceLock<Option<Spectral>>,
}

impl Separable {
    /// The map of `vertical` (`W₁`) and `horizontal` (`W₂`).
    ///
    /// Singular values of either matrix below `cutoff`, in their own unit, are set to 0 and the map is that of the
    /// matrices that remain. Those that are 0 but for rounding count as 0 in the decomposition.
    ///
    /// # Errors
    /// [`Error::Config`] unless `cutoff` is finite, at least 0 and below the largest singular value.
    pub(crate) fn new(
        name: &'static str,
        vertical: Sparse,
        horizontal: Sparse,
        cutoff: f64,
        site: Site<'_>,
    ) -> Result<Self> {
        if !(cutoff >= 0.0 && cutoff.is_finite()) {
            return Err(Error::config(name, format!("cutoff is {cutoff}, expected a finite number of at least 0")));
        }
        let (vertical_transposed, horizontal_transposed) = (vertical.transposed(), horizontal.transposed());
        let bands = Bands { vertical, horizontal, vertical_transposed, horizontal_transposed };
        let mut action = Action { name, bands: Arc::new(bands), dense: None };
        let site = (site.device.clone(), site.dtype);
        let spectral = OnceLock::new();
        if cutoff > 0.0 {
            let factors = action.factors(cutoff)?;
            if let Some(factor) = factors.iter().find(|factor| factor.s.iter().all(|&s| s == 0.0)) {
                let reason =
                    format!("cutoff is {cutoff}, expected less than the largest singular value {}", factor.largest);
                return Err(Error::config(name, reason));
            }
            let [vertical, horizontal] = factors.each_ref().map(|factor| factor.product(|s| s));
            action.dense = Some(dense(&vertical, &horizontal, &site)?);
            spectral.set(Some(Spectral::new(action.clone(), factors, &site)?)).ok();
        }
        if action.dense.is_none() && !site.0.is_cpu() {
            action.dense = Some(dense(&action.bands.vertical.dense(), &action.bands.horizontal.dense(), &site)?);
        }
        Ok(Self { action, site, spectral })
    }

    /// The map of a filter with the values `vertical[i] · horizontal[j]`, at every `stride`-th pixel.
    pub(crate) fn filter(
        name: &'static str,
        (vertical, horizontal): (&[f64], &[f64]),
        stride: usize,
        padding: Padding,
        cutoff: f64,
        site: Site<'_>,
    ) -> Result<Self> {
        let (_, height, width) = site.image;
        let vertical = Sparse::filter(vertical, stride, padding, height);
        Self::new(name, vertical, Sparse::filter(horizontal, stride, padding, width), cutoff, site)
    }
}

impl ForwardOperator for Separable {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.action.forward(x)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for Separable {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        self.action.adjoint(y)
    }

    fn as_spectral(&self) -> Option<&dyn SpectralOperator> {
        let find = || {
            let factors = self.action.factors(0.0).ok()?;
            Spectral::new(self.action.clone(), factors, &self.site).ok()
        };
        self.spectral.get_or_init(find).as_ref().map(|spectral| spectral as &dyn SpectralOperator)
    }
}

/// What a separable map does.
#[derive(Clone, Debug)]
struct Action {
    name: &'static str,
    bands: Arc<Bands>,
    /// `W₁` and `W₂ᵀ`, where small singular values were cut off, and on devices to which loops on the host would have to
    /// bring every image and back.
    dense: Option<(Tensor, Tensor)>,
}

impl Action {
    /// The decompositions of `W₁` and `W₂`.
    fn factors(&self, cutoff: f64) -> Result<[Factor; 2]> {
        let factor = |matrix| {
            Factor::new(matrix, cutoff).ok_or_else(|| {
                Error::config(self.name, "singular value decomposition of a resizing matrix did not converge")
            })
        };
        Ok([factor(&self.bands.vertical)?, factor(&self.bands.horizontal)?])
    }
}

impl Action {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (height, width) = self.bands.image();
        check_image(&format!("image for {}", self.name), x, [None, Some(height), Some(width)])?;
        match &self.dense {
            Some((vertical, horizontal)) => between(vertical, x, horizontal),
            None => apply(&self.bands, x),
        }
    }

    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        let (rows, columns) = self.bands.measurement();
        check_image(&format!("measurement of {}", self.name), y, [None, Some(rows), Some(columns)])?;
        match &self.dense {
            Some((vertical, horizontal)) => between(&vertical.t()?, y, &horizontal.t()?),
            None => transpose(&self.bands, y),
        }
    }
}

/// `L X R` of every channel.
fn between(left: &Tensor, x: &Tensor, right: &Tensor) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let (left, right) = (like(left, x)?, like(right, x)?);
    let planes = x.contiguous()?.reshape((batch * channels, height, width))?;
    // One product for each channel: candle takes those of a batch together, in an order of summation that depends on it.
    let products = (0..batch * channels)
        .map(|plane| Ok(left.matmul(&planes.get(plane)?)?.matmul(&right)?))
        .collect::<Result<Vec<_>>>()?;
    let (rows, columns) = (left.dims()[0], right.dims()[1]);
    Ok(Tensor::stack(&products, 0)?.reshape((batch, channels, rows, columns))?)
}

/// `W = U diag(s) Vᵀ`.
struct Factor {
    /// As many columns as there are singular values; zero where `s` is.
    u: Mat<f64>,
    /// Descending.
    s: Vec<f64>,
    /// Square: what is not seen has its columns too.
    v: Mat<f64>,
    /// The largest singular value before any was cut off.
    largest: f64,
}

impl Factor {
    fn new(matrix: &Sparse, cutoff: f64) -> Option<Self> {
        let svd = matrix.dense().svd().ok()?;
        let count = matrix.rows().min(matrix.columns);
        let values: Vec<f64> = svd.S().column_vector().iter().copied().collect();
        let largest = values.iter().copied().fold(0.0, f64::max);
        // What the decomposition of a matrix of lower rank leaves of its zeros (Golub and Van Loan, section 5.5.8).
        let rounding = largest * f64::EPSILON * matrix.rows().max(matrix.columns) as f64;
        let s: Vec<f64> =
            values.iter().take(count).map(|&s| if s < cutoff || s <= rounding { 0.0 } else { s }).collect();
        let u = Mat::from_fn(matrix.rows(), count, |i, j| if s[j] > 0.0 { svd.U()[(i, j)] } else { 0.0 });
        Some(Self { u, s, v: svd.V().to_owned(), largest })
    }

    /// `U diag(f(s)) Vᵀ`, with 0 where `s` is.
    fn product(&self, f: impl Fn(f64) -> f64) -> Mat<f64> {
        let count = self.s.len();
        let scaled = Mat::from_fn(self.u.nrows(), count, |i, j| match self.s[j] {
            0.0 => 0.0,
            s => self.u[(i, j)] * f(s),
        });
        scaled * self.v.get(.., ..count).transpose()
    }
}

/// `W₁` and `W₂ᵀ`
fn dense(vertical: &Mat<f64>, horizontal: &Mat<f64>, site: &(Device, DType)) -> Result<(Tensor, Tensor)> {
    Ok((tensor(vertical, site)?, tensor(&horizontal.transpose().to_owned(), site)?))
}

fn tensor(matrix: &Mat<f64>, (device, dtype): &(Device, DType)) -> Result<Tensor> {
    let (rows, columns) = (matrix.nrows(), matrix.ncols());
    let values: Vec<f64> = (0..rows * columns).map(|i| matrix[(i / columns, i % columns)]).collect();
    Ok(Tensor::from_vec(values, (rows, columns), &Device::Cpu)?.to_dtype(*dtype)?.to_device(device)?)
}

/// A matrix and its transpose.
#[derive(Clone, Debug)]
struct Both {
    plain: Tensor,
    transposed: Tensor,
}

impl Both {
    fn new(matrix: &Mat<f64>, site: &(Device, DType)) -> Result<Self> {
        Ok(Self { plain: tensor(matrix, site)?, transposed: tensor(&matrix.transpose().to_owned(), site)? })
    }
}

/// A separable map with its decomposition.
#[derive(Clone, Debug)]
struct Spectral {
    action: Action,
    /// Of `W₁` and of `W₂`.
    u: [Both; 2],
    v: [Both; 2],
    /// `W₁⁺` and `W₂⁺`.
    inverse: [Both; 2],
    /// `[1, 1, H, W]`: `s_i s_j` at `(i, j)`, zero where either matrix has no more singular values.
    singular_values: Tensor,
}

impl Spectral {
    fn new(action: Action, [vertical, horizontal]: [Factor; 2], site: &(Device, DType)) -> Result<Self> {
        let (height, width) = action.bands.image();
        let mut s = vec![0f64; height * width];
        for (line, &first) in s.chunks_exact_mut(width).zip(&vertical.s) {
            line.iter_mut().zip(&horizontal.s).for_each(|(s, &second)| *s = first * second);
        }
        let s = Tensor::from_vec(s, (1, 1, height, width), &Device::Cpu)?;
        let both = |first: &Mat<f64>, second: &Mat<f64>| -> Result<[Both; 2]> {
            Ok([Both::new(first, site)?, Both::new(second, site)?])
        };
        let inverse = |factor: &Factor| factor.product(|s| 1.0 / s).transpose().to_owned();
        Ok(Self {
            u: both(&vertical.u, &horizontal.u)?,
            v: both(&vertical.v, &horizontal.v)?,
            inverse: both(&inverse(&vertical), &inverse(&horizontal))?,
            singular_values: s.to_dtype(site.1)?.to_device(&site.0)?,
            action,
        })
    }
}

impl ForwardOperator for Spectral {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.action.forward(x)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for Spectral {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        self.action.adjoint(y)
    }

    fn as_spectral(&self) -> Option<&dyn SpectralOperator> {
        Some(self)
    }
}

impl SpectralOperator for Spectral {
    fn singular_values(&self) -> &Tensor {
        &self.singular_values
    }

    fn image_to_spectrum(&self, x: &Tensor) -> Result<Tensor> {
        let [first, second] = &self.v;
        between(&first.transposed, x, &second.plain)
    }

    fn spectrum_to_image(&self, spectrum: &Tensor) -> Result<Tensor> {
        let [first, second] = &self.v;
        between(&first.plain, spectrum, &second.transposed)
    }

    fn measurement_to_spectrum(&self, y: &Tensor) -> Result<Tensor> {
        let [first, second] = &self.u;
        let seen = between(&first.transposed, y, &second.plain)?;
        let (height, width) = self.action.bands.image();
        let (_, _, rows, columns) = seen.dims4()?;
        Ok(seen.pad_with_zeros(2, 0, height - rows)?.pad_with_zeros(3, 0, width - columns)?)
    }

    /// `W₁⁺ Y W₂⁺ᵀ`
    fn pseudo_inverse(&self, y: &Tensor) -> Result<Tensor> {
        let [first, second] = &self.inverse;
        between(&first.plain, y, &second.transposed)
    }
}
