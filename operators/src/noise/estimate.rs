//! How noisy a photo is.

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use crate::{Error, Result};

/// Standard deviation of the white Gaussian noise in a photo, in the unit of its pixels, `[-1, 1]`.
///
/// By [`sigma_by_patches`], the better of the two methods on photos: with noise of 2, 5, 10, 15, 25 and 50 levels of 8
/// bits added to three photos its estimates are 2.6, 5.3, 10.1, 15.0, 25.0 and 49.9 in the mean, those of
/// [`sigma_by_wavelets`] 2.8, 5.7, 10.6, 15.5, 25.4 and 50.3; in colour photos without noise both find the finest
/// texture, 0.6 to 2.2 levels.
///
/// What is estimated is the noise as recorded: rounding to 8 bits is part of it, `(2/255)² / 12` of the variance. Noise
/// that is not white, as after JPEG compression or demosaicking, is not what either method measures.
///
/// # Handling of special areas
/// * A photo with samples at exactly -1 or 1 and none beyond is clipped there. A window with such a sample is left out,
///   and in a second pass the windows are chosen by their mean instead, more than three of the first pass's deviations
///   away from the clipped end (less if too few are left): choosing samples by their own value would keep those with
///   little noise. Where no patch is 2.5 deviations away the answer is that of [`sigma_by_wavelets`], which may go down
///   to 1.5.
/// * Windows that hold one value throughout are painted, not photographed, and are left out; if they are the majority
///   the answer is 0, as the median of all would be.
///
/// # Shapes
/// `x`: `[1, C, H, W]`.
///
/// # Errors
/// [`Error::Shape`] unless there is one photo of at least 16x16 pixels; [`Error::NonFinite`] for a sample that is no
/// number; [`Error::Config`] with fewer than sixteen windows per sample of a window, as in colour photos below 63x63.
pub fn estimate_sigma(x: &Tensor) -> Result<f64> {
    sigma_by_patches(x)
}

/// The noise level by the median absolute value of the finest diagonal wavelet coefficients, divided by 0.6745.
///
/// Daubechies' wavelet of four taps, undecimated, all channels together. Fine texture counts as noise, so low levels
/// are overestimated.
///
/// # Shapes and errors
/// As for [`estimate_sigma`], with the same handling of special areas.
///
/// Donoho and Johnstone (1994), <https://doi.org/10.1093/biomet/81.3.425>
pub fn sigma_by_wavelets(x: &Tensor) -> Result<f64> {
    Photo::new(x)?.by_wavelets()
}

/// The noise level by the small eigenvalues of the covariance of patches.
///
/// Patches of 8x8 pixels with all their channels lie near a subspace, and noise adds `σ²` to every eigenvalue
/// `λ₁ ≥ λ₂ ≥ …` The largest are put aside one by one until the mean of those that remain has as many of them above as
/// below; that mean is `σ²`. A channel that repeats another one, as in a grey photo with three, is left out.
///
/// # Shapes and errors
/// As for [`estimate_sigma`].
///
/// Chen, Zhu and Heng (2015), "An efficient statistical method for image noise level estimation",
/// <https://doi.org/10.1109/ICCV.2015.62>
pub fn sigma_by_patches(x: &Tensor) -> Result<f64> {
    Photo::new(x)?.by_patches()
}

/// Side of a patch.
const PATCH: usize = 8;

/// Windows at most, of each channel where they are taken apart; more would not change the third digit.
const MAX_WINDOWS: usize = 1 << 16;

/// Distances from a clipped end, in deviations of the noise: at the first, noise is as good as never clipped; the
/// others are for noise so strong that no window is that far from both ends.
const CLEARANCES: [f64; 4] = [3.0, 2.5, 2.0, 1.5];

/// The median of `|n|` for a standard normal `n`.
const MEDIAN_OF_A_NORMAL: f64 = 0.674_489_750_196_081_7;

/// High-pass filter of Daubechies' wavelet with two vanishing moments: `(1 − √3, √3 − 3, 3 + √3, −1 − √3) / 4√2`.
const TAPS: [f64; 4] =
    [-0.129_409_522_551_260_37, -0.224_143_868_042_013_4, 0.836_516_303_737_807_7, -0.482_962_913_144_534_1];

/// Position of a window's first sample, in the first of its channels.
#[derive(Clone, Copy)]
struct Window {
    channel: usize,
    y: usize,
    x: usize,
}

/// What a window of one size holds.
struct Content {
    constant: bool,
    clipped: bool,
    /// Lowest and highest mean of a channel.
    means: (f64, f64),
}

struct Photo {
    channels: usize,
    height: usize,
    width: usize,
    values: Vec<f64>,
    /// Whether samples end at -1, and at 1.
    clipped: [bool; 2],
}

impl Photo {
    fn new(x: &Tensor) -> Result<Self> {
        let (height, width) = match *x.dims() {
            [1, channels, height, width] if channels > 0 && height >= 2 * PATCH && width >= 2 * PATCH => {
                (height, width)
            }
            _ => {
                return Err(Error::Shape {
                    what: "photo for a noise estimate".into(),
                    got: x.dims().to_vec(),
                    expected: format!("[1, _, H, W] with H and W of at least {}", 2 * PATCH),
                });
            }
        };
        let values: Vec<f64> = x.flatten_all()?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1()?;
        if values.iter().any(|value| !value.is_finite()) {
            return Err(Error::NonFinite { what: "photo for a noise estimate".into() });
        }
        let area = height * width;
        let distinct: Vec<&[f64]> = values.chunks(area).fold(Vec::new(), |mut kept, channel| {
            if !kept.contains(&channel) {
                kept.push(channel);
            }
            kept
        });
        let channels = distinct.len();
        let values = distinct.concat();
        let (least, most) = values
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), &value| (least.min(value), most.max(value)));
        Ok(Self { channels, height, width, values, clipped: [least == -1.0, most == 1.0] })
    }

    /// The samples of a line of a window, `channel` counted from its first.
    fn line(&self, window: Window, channel: usize, line: usize, size: usize) -> &[f64] {
        let start = ((window.channel + channel) * self.height + window.y + line) * self.width + window.x;
        &self.values[start..start + size]
    }

    fn content(&self, window: Window, size: usize, depth: usize) -> Content {
        let mut content = Content { constant: true, clipped: false, means: (f64::INFINITY, f64::NEG_INFINITY) };
        for channel in 0..depth {
            let first = self.line(window, channel, 0, 1)[0];
            let mut sum = 0.0;
            for line in 0..size {
                for &value in self.line(window, channel, line, size) {
                    content.constant &= value == first;
                    content.clipped |= (self.clipped[0] && value == -1.0) || (self.clipped[1] && value == 1.0);
                    sum += value;
                }
            }
            let mean = sum / (size * size) as f64;
            content.means = (content.means.0.min(mean), content.means.1.max(mean));
        }
        content
    }

    /// Windows of `size`x`size` in `depth` channels: all, or a regular choice of them.
    fn windows(&self, size: usize, depth: usize) -> Vec<(Window, Content)> {
        let (height, width) = (self.height + 1 - size, self.width + 1 - size);
        // An odd stride, so that the choice is not in step with the blocks of a compressed photo.
        let stride = if height * width > MAX_WINDOWS { (height * width).div_ceil(MAX_WINDOWS) | 1 } else { 1 };
        let groups = self.channels / depth;
        let windows = (0..groups * height * width).into_par_iter().step_by(stride).map(|index| {
            let channel = index / (height * width) * depth;
            let window = Window { channel, y: index / width % height, x: index % width };
            (window, self.content(window, size, depth))
        });
        windows.collect()
    }

    fn by_wavelets(&self) -> Result<f64> {
        let estimate = |windows: &[Window]| {
            let mut sizes: Vec<f64> = windows.par_iter().map(|&window| self.diagonal(window).abs()).collect();
            median(&mut sizes) / MEDIAN_OF_A_NORMAL
        };
        Ok(self.in_passes(TAPS.len(), 1, &CLEARANCES, estimate, Err)?.0)
    }

    fn by_patches(&self) -> Result<f64> {
        let estimate = |windows: &[Window]| tail_mean(eigenvalues(self.covariance(windows))).sqrt();
        // Noise so strong that every patch is clipped somewhere: a median of small windows suffers less.
        let start = |too_few| if self.clipped == [false; 2] { Err(too_few) } else { self.by_wavelets() };
        let (sigma, clear) = self.in_passes(PATCH, self.channels, &CLEARANCES[..2], estimate, start)?;
        if clear { Ok(sigma) } else { self.by_wavelets() }
    }

    /// `estimate` over the windows that show noise; `start` if at first there are too few of them, given the error that
    /// says so. Also whether the windows were as far from clipped ends as one of `clearances`.
    fn in_passes(
        &self,
        size: usize,
        depth: usize,
        clearances: &[f64],
        estimate: impl Fn(&[Window]) -> f64,
        start: impl Fn(Error) -> Result<f64>,
    ) -> Result<(f64, bool)> {
        // So many times the samples of a window that the spread of a covariance's eigenvalues by chance is small.
        let needed = 16 * size * size * depth;
        let all = self.windows(size, depth);
        let open = all.iter().filter(|(_, content)| !content.clipped).count();
        let painted = all.iter().filter(|(_, content)| !content.clipped && content.constant).count();
        if 2 * painted > open {
            return Ok((0.0, true));
        }
        let choose = |keep: &dyn Fn(&Content) -> bool| -> Vec<Window> {
            let kept = all.iter().filter(|(_, content)| !content.constant && keep(content));
            kept.map(|&(window, _)| window).collect()
        };
        let whole = choose(&|content| !content.clipped);
        let clear = |sigma: f64| {
            clearances.iter().find_map(|clearance| {
                let bound = 1.0 - clearance * sigma;
                let windows = choose(&|content| {
                    (!self.clipped[0] || content.means.0 > -bound) && (!self.clipped[1] || content.means.1 < bound)
                });
                (windows.len() >= needed).then_some(windows)
            })
        };
        let mut sigma = if whole.len() >= needed {
            estimate(&whole)
        } else {
            let reason =
                format!("{} windows are neither clipped nor constant, expected at least {needed}", whole.len());
            start(Error::config("noise estimate", reason))?
        };
        if self.clipped == [false; 2] {
            return Ok((sigma, true));
        }
        // The first estimate is too low if much is clipped, and with it the clearance: once more with a better one.
        for _ in 0..2 {
            match clear(sigma) {
                Some(windows) => sigma = estimate(&windows),
                None => return Ok((sigma, false)),
            }
        }
        Ok((sigma, true))
    }

    /// The diagonal coefficient of a window of four by four.
    fn diagonal(&self, window: Window) -> f64 {
        let row = |line| self.line(window, 0, line, TAPS.len()).iter().zip(TAPS).map(|(x, tap)| x * tap).sum::<f64>();
        (0..TAPS.len()).map(|line| TAPS[line] * row(line)).sum()
    }

    /// The covariance of patches, row after row.
    fn covariance(&self, windows: &[Window]) -> Vec<f64> {
        let size = self.channels * PATCH * PATCH;
        // Sums of fixed parts, added in order: the same bits for any number of threads.
        let parts: Vec<(Vec<f64>, Vec<f64>)> = windows
            .par_chunks(1 << 11)
            .map(|windows| {
                let (mut products, mut sums) = (vec![0.0; size * size], vec![0.0; size]);
                let mut patch = vec![0.0; size];
                for &window in windows {
                    for (line, pixels) in patch.chunks_mut(PATCH).enumerate() {
                        pixels.copy_from_slice(self.line(window, line / PATCH, line % PATCH, PATCH));
                    }
                    for (row, (&value, sum)) in patch.iter().zip(&mut sums).enumerate() {
                        *sum += value;
                        // The upper triangle.
                        let products = &mut products[row * size + row..(row + 1) * size];
                        products.iter_mut().zip(&patch[row..]).for_each(|(product, other)| *product += value * other);
                    }
                }
                (products, sums)
            })
            .collect();
        let (mut products, mut sums) = (vec![0.0; size * size], vec![0.0; size]);
        for (part_products, part_sums) in parts {
            products.iter_mut().zip(part_products).for_each(|(total, part)| *total += part);
            sums.iter_mut().zip(part_sums).for_each(|(total, part)| *total += part);
        }
        let count = windows.len() as f64;
        for row in 0..size {
            for column in row..size {
                let covariance = (products[row * size + column] - sums[row] * sums[column] / count) / (count - 1.0);
                products[row * size + column] = covariance;
                products[column * size + row] = covariance;
            }
        }
        products
    }
}

fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// The mean of the smallest eigenvalues, as many as have their mean for a median.
fn tail_mean(mut eigenvalues: Vec<f64>) -> f64 {
    eigenvalues.sort_by(f64::total_cmp);
    for count in (1..=eigenvalues.len()).rev() {
        let tail = &eigenvalues[..count];
        let mean = tail.iter().sum::<f64>() / count as f64;
        let above = tail.iter().filter(|&&value| value > mean).count();
        let below = tail.iter().filter(|&&value| value < mean).count();
        if above >= below {
            // Rounding may make the eigenvalues of a photo without noise negative.
            return mean.max(0.0);
        }
    }
    0.0
}

/// Eigenvalues of a symmetric matrix by Jacobi's rotations, in no order.
///
/// Golub and Van Loan (2013), "Matrix computations", section 8.5.
fn eigenvalues(mut matrix: Vec<f64>) -> Vec<f64> {
    let size = matrix.len().isqrt();
    let trace: f64 = (0..size).map(|i| matrix[i * size + i].abs()).sum();
    // Convergence is quadratic, and the error of an eigenvalue is of second order in what remains.
    for _ in 0..20 {
        let off: f64 =
            (0..size).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| matrix[i * size + j].powi(2)).sum();
        if off.sqrt() <= 1e-11 * trace {
            break;
        }
        for p in 0..size {
            for q in p + 1..size {
                // Elements that cannot matter, all of them together.
                if matrix[p * size + q].abs() * size as f64 > 1e-12 * trace {
                    rotate(&mut matrix, size, p, q);
                }
            }
        }
    }
    (0..size).map(|i| matrix[i * size + i]).collect()
}

/// Makes the elements `(p, q)` and `(q, p)` zero.
fn rotate(matrix: &mut [f64], size: usize, p: usize, q: usize) {
    let off = matrix[p * size + q];
    let theta = (matrix[q * size + q] - matrix[p * size + p]) / (2.0 * off);
    // The smaller root of t² + 2 θ t − 1 = 0, the tangent of the angle.
    let tangent = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let cosine = 1.0 / (tangent * tangent + 1.0).sqrt();
    let sine = tangent * cosine;
    let turn = |a: &mut f64, b: &mut f64| (*a, *b) = (cosine * *a - sine * *b, sine * *a + cosine * *b);
    let (upper, lower) = matrix.split_at_mut(q * size);
    upper[p * size..(p + 1) * size].iter_mut().zip(&mut lower[..size]).for_each(|(a, b)| turn(a, b));
    for row in matrix.chunks_mut(size) {
        let (left, right) = row.split_at_mut(q);
        turn(&mut left[p], &mut right[0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wavelet_is_orthonormal_with_two_vanishing_moments() {
        let moment = |power: i32| TAPS.iter().enumerate().map(|(i, tap)| tap * (i as f64).powi(power)).sum::<f64>();
        assert!((TAPS.iter().map(|tap| tap * tap).sum::<f64>() - 1.0).abs() < 1e-15);
        assert!(moment(0).abs() < 1e-15 && moment(1).abs() < 1e-15);
        assert!((TAPS[0] * TAPS[2] + TAPS[1] * TAPS[3]).abs() < 1e-15);
        let root = 3f64.sqrt();
        let expected = [1.0 - root, root - 3.0, 3.0 + root, -1.0 - root].map(|tap| tap / (4.0 * 2f64.sqrt()));
        assert!(TAPS.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-15), "{expected:?}");
    }

    #[test]
    fn eigenvalues_of_a_second_difference_are_the_known_ones() {
        // tridiag(-1, 2, -1) of size n has 2 − 2 cos(πk / (n + 1)).
        let size = 12;
        let element = |i: usize, j: usize| [2.0, -1.0, 0.0][i.abs_diff(j).min(2)];
        let matrix = (0..size * size).map(|k| element(k / size, k % size)).collect();
        let mut got = eigenvalues(matrix);
        got.sort_by(f64::total_cmp);
        for (k, got) in got.iter().enumerate() {
            let expected = 2.0 - 2.0 * (std::f64::consts::PI * (k + 1) as f64 / (size + 1) as f64).cos();
            assert!((got - expected).abs() < 1e-13, "{got} and {expected}");
        }
    }

    #[test]
    fn the_tail_ends_where_its_mean_is_its_median() {
        assert_eq!(tail_mean(vec![100.0, 1.0, 1.1, 0.9, 20.0]), 1.0);
        assert_eq!(tail_mean(vec![2.0; 5]), 2.0);
        assert_eq!(tail_mean(vec![-1e-20, -1e-20]), 0.0);
    }
}
