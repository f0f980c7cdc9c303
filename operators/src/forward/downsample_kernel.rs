//! Down-sampling by a filter and a stride.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use realfft::num_complex::Complex;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use toml::{Table, Value};

use super::{BuildOperator, ForwardOperator, GramOperator, LinearOperator, SpectralOperator};
use crate::dft::{Dft, Filter};
use crate::kernel::{self, Kernel};
use crate::map::{Real, RowMap, apply, transpose};
use crate::padding::Padding;
use crate::registry::{Entry, Site};
use crate::separable::{Separable, add_lines};
use crate::{Error, Result};

/// A filter that is made for its factor `f`, the same vertically and horizontally.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LowPass {
    /// `4f` taps of cubic convolution with a = −1/2, Keys (1981), <https://doi.org/10.1109/TASSP.1981.1163711>.
    #[default]
    Bicubic,
    /// `2f` taps of a triangle.
    Bilinear,
    /// A bell with σ = f pixels, cut off beyond 10σ/3.
    Gaussian,
}

impl LowPass {
    /// Its taps, with sum 1.
    pub fn taps(self, factor: usize) -> Vec<f64> {
        let f = factor as f64;
        let (count, weight): (usize, fn(f64) -> f64) = match self {
            Self::Bicubic => (4 * factor, |t| match t.abs() {
                t if t <= 1.0 => (1.5 * t - 2.5) * t * t + 1.0,
                t => ((-0.5 * t + 2.5) * t - 4.0) * t + 2.0,
            }),
            Self::Bilinear => (2 * factor, |t| 1.0 - t.abs()),
            // ⌊10f/3⌋ + 1 pixels to each side, in integers.
            Self::Gaussian => (2 * (10 * factor / 3 + 1) + 1, |t| libm::exp(-0.5 * t * t)),
        };
        let taps: Vec<f64> = (0..count).map(|i| weight((i as f64 + 0.5 - 0.5 * count as f64) / f)).collect();
        let sum: f64 = taps.iter().sum();
        taps.into_iter().map(|tap| tap / sum).collect()
    }
}

/// `y(i, j) = Σ k(a, b) x(f i + c − a, f j + d − b)`: a convolution with a kernel of `K × L` taps, centred at
/// `c = ⌊K/2⌋`, `d = ⌊L/2⌋`, of which every `f`-th pixel is kept, from the first on.
///
/// Sizes are `⌈size / f⌉`. A kernel that is a product of a vertical and a horizontal one is applied as such, and has a
/// decomposition. With a circular border and sizes that are multiples of `f`, the Gram matrix is a circular convolution of
/// the small image: Zhao et al. (2016), <https://doi.org/10.1109/TIP.2016.2567075>.
#[derive(Clone, Debug)]
pub struct DownsampleKernel {
    action: Action,
    gram: Option<Gram>,
}

#[derive(Clone, Debug)]
enum Action {
    Separable(Separable),
    Direct(Arc<Strided>),
}

const NAME: &str = "downsample_kernel";

impl DownsampleKernel {
    /// For images of the site's height and width, any number of channels.
    ///
    /// # Shapes
    /// `kernel`: `[K, L]`, its sum is the gain of a constant image; any floating-point type.
    ///
    /// # Errors
    /// [`Error::Shape`] for another shape or no taps, [`Error::NonFinite`] for taps that are not finite, [`Error::Config`] if
    /// all taps are 0, for [`Padding::Valid`], or unless `factor` is at least 1 and at most the image's smaller side.
    pub fn new(kernel: &Tensor, factor: usize, padding: Padding, site: Site<'_>) -> Result<Self> {
        padding.fills(NAME)?;
        let (_, height, width) = site.image;
        if factor == 0 || factor > height.min(width) {
            let reason =
                format!("factor is {factor}, expected 1 to {} for an image of {width}x{height}", height.min(width));
            return Err(Error::config(NAME, reason));
        }
        let &[rows @ 1..=usize::MAX, columns @ 1..=usize::MAX] = kernel.dims() else {
            let (got, expected) = (kernel.dims().to_vec(), "[_, _], at least one tap".into());
            return Err(Error::Shape { what: format!("kernel of {NAME}"), got, expected });
        };
        let double = kernel.dtype() == DType::F64;
        let taps: Vec<f64> = kernel.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?;
        if taps.iter().any(|tap| !tap.is_finite()) {
            return Err(Error::NonFinite { what: format!("kernel of {NAME}") });
        }
        if taps.iter().all(|&tap| tap == 0.0) {
            return Err(Error::config(NAME, "kernel is all zeros, expected a tap that is not"));
        }
        let kernel = Taps { rows, columns, taps };
        let epsilon = if double { f64::EPSILON } else { f64::from(f32::EPSILON) };
        let action = match kernel.product(4.0 * epsilon) {
            Some((vertical, horizontal)) => {
                Action::Separable(Separable::filter(NAME, (&vertical, &horizontal), factor, padding, 0.0, site)?)
            }
            None => Action::Direct(Arc::new(Strided::new(kernel.clone(), factor, padding, (height, width)))),
        };
        let divisible = height.is_multiple_of(factor) && width.is_multiple_of(factor);
        let gram = (padding == Padding::Circular && divisible).then(|| Gram::new(&kernel, factor, (height, width)));
        Ok(Self { action, gram })
    }
}

impl ForwardOperator for DownsampleKernel {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.action {
            Action::Separable(map) => map.forward(x),
            Action::Direct(map) => apply(map, x),
        }
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for DownsampleKernel {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        match &self.action {
            Action::Separable(map) => map.adjoint(y),
            Action::Direct(map) => transpose(map, y),
        }
    }

    /// For a kernel that is a product, found when first asked for.
    fn as_spectral(&self) -> Option<&dyn SpectralOperator> {
        match &self.action {
            Action::Separable(map) => map.as_spectral(),
            Action::Direct(_) => None,
        }
    }

    fn as_gram(&self) -> Option<&dyn GramOperator> {
        self.gram.is_some().then_some(self)
    }
}

impl GramOperator for DownsampleKernel {
    fn solve_gram(&self, y: &Tensor, ridge: f64) -> Result<Tensor> {
        match &self.gram {
            Some(gram) => apply(&Arc::new(gram.inverse(ridge)), y),
            None => Err(Error::Unsupported {
                method: "solve_gram",
                needs: "a circular border and sizes that are multiples of the factor",
            }),
        }
    }
}

/// A kernel, row by row.
#[derive(Clone, Debug)]
struct Taps {
    rows: usize,
    columns: usize,
    taps: Vec<f64>,
}

impl Taps {
    /// A vertical and a horizontal kernel whose product this is, to a tolerance relative to its largest tap.
    fn product(&self, tolerance: f64) -> Option<(Vec<f64>, Vec<f64>)> {
        let (pivot, &largest) = self.taps.iter().enumerate().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()))?;
        let (row, column) = (pivot / self.columns, pivot % self.columns);
        let horizontal: Vec<f64> = self.taps.chunks_exact(self.columns).nth(row)?.to_vec();
        let vertical: Vec<f64> = self.taps.iter().skip(column).step_by(self.columns).map(|tap| tap / largest).collect();
        let near = self.taps.chunks_exact(self.columns).zip(&vertical).all(|(line, v)| {
            line.iter().zip(&horizontal).all(|(tap, h)| (tap - v * h).abs() <= tolerance * largest.abs())
        });
        near.then_some((vertical, horizontal))
    }
}

/// The Gram matrix of a circular filter and a stride, on the small image.
#[derive(Clone, Debug)]
struct Gram {
    dft: Dft,
    /// `g(κ)`, the mean of `|K|²` over the frequencies of the image that fold onto `κ`: a half spectrum.
    transfer: Vec<f64>,
}

impl Gram {
    /// By the spectrum of the kernel on the torus of the image.
    fn new(kernel: &Taps, factor: usize, (height, width): (usize, usize)) -> Self {
        let image = Dft::new(height, width);
        let mut plane = vec![0f64; height * width];
        for (i, tap) in kernel.taps.iter().enumerate() {
            plane[i / kernel.columns % height * width + i % kernel.columns % width] += tap;
        }
        let spectrum = image.spectrum(&plane);
        let dft = Dft::new(height / factor, width / factor);
        // |K|² does not depend on where the kernel's centre is.
        let folded = |(kx, ky): (usize, usize)| {
            let onto = (0..factor).flat_map(|a| (0..factor).map(move |b| (a, b)));
            let power = |(a, b)| image.at(&spectrum, ky + a * dft.height, kx + b * dft.width).norm_sqr();
            onto.map(power).sum::<f64>() / (factor * factor) as f64
        };
        let frequencies = (0..dft.columns()).flat_map(|kx| (0..dft.height).map(move |ky| (kx, ky)));
        let transfer = frequencies.map(folded).collect();
        Self { dft, transfer }
    }

    /// `(AAᵀ + λI)⁻¹`; with λ = 0, frequencies that vanish but for rounding stay out.
    fn inverse(&self, ridge: f64) -> Filter {
        let largest = self.transfer.iter().copied().fold(0.0, f64::max);
        let nothing = largest * f64::EPSILON * 16.0;
        let invert = |&g: &f64| match g + ridge {
            total if total > 0.0 && (ridge > 0.0 || g > nothing) => Complex::new(1.0 / total, 0.0),
            _ => Complex::new(0.0, 0.0),
        };
        Filter { dft: self.dft.clone(), transfer: vec![self.transfer.iter().map(invert).collect()] }
    }
}

/// The filter and the stride as loops over what is kept.
///
/// A line of the image, with its border, is sorted into `f` phases: pixels `0, f, 2f, …`, then `1, f + 1, …`, and so on.
/// What a tap takes from the line is then contiguous.
#[derive(Clone, Debug)]
struct Strided {
    kernel: Taps,
    factor: usize,
    image: (usize, usize),
    measurement: (usize, usize),
    /// Pixels of one phase.
    phase: usize,
    /// Which pixel of a line each place of the sorted line is, if any.
    pixels: Vec<Option<usize>>,
    /// For each row of the measurement: a row of the image with a row of the kernel.
    rows: Vec<Vec<(usize, usize)>>,
    /// For each row of the image: a row of the measurement with a row of the kernel.
    rows_transposed: Vec<Vec<(usize, usize)>>,
}

impl Strided {
    fn new(kernel: Taps, factor: usize, padding: Padding, image: (usize, usize)) -> Self {
        let measurement = (image.0.div_ceil(factor), image.1.div_ceil(factor));
        // A convolution: tap a takes the pixel f i + ⌊K/2⌋ − a, so the one before the first by K − 1 − ⌊K/2⌋ comes first.
        let before = (kernel.columns - 1 - kernel.columns / 2) as i64;
        let phase = measurement.1 + (kernel.columns - 1) / factor;
        let pixels = (0..factor * phase)
            .map(|place| padding.pixel((place % phase * factor + place / phase) as i64 - before, image.1))
            .collect();
        let mut rows = vec![Vec::new(); measurement.0];
        let mut rows_transposed = vec![Vec::new(); image.0];
        for (i, pairs) in rows.iter_mut().enumerate() {
            for a in 0..kernel.rows {
                if let Some(row) = padding.pixel((i * factor + kernel.rows / 2) as i64 - a as i64, image.0) {
                    pairs.push((row, a));
                    rows_transposed[row].push((i, a));
                }
            }
        }
        Self { kernel, factor, image, measurement, phase, pixels, rows, rows_transposed }
    }

    /// For each row of the kernel: taps that are not zero, each with its phase and its first pixel in it.
    fn taps<T: Real>(&self) -> Vec<Vec<(usize, usize, T)>> {
        let line = |line: &[f64]| {
            let tap = |(b, &tap): (usize, &f64)| {
                let place = self.kernel.columns - 1 - b;
                (tap != 0.0).then_some((place % self.factor, place / self.factor, T::of(tap)))
            };
            line.iter().enumerate().filter_map(tap).collect()
        };
        self.kernel.taps.chunks_exact(self.kernel.columns).map(line).collect()
    }

    fn check(what: &str, row: &[usize], expected: (usize, usize), result: (usize, usize)) -> Result<Vec<usize>> {
        match *row {
            [channels, height, width] if (height, width) == expected => Ok(vec![channels, result.0, result.1]),
            _ => Err(Error::Shape {
                what: format!("{what} {NAME}"),
                got: row.to_vec(),
                expected: format!("[_, {}, {}] in every row", expected.0, expected.1),
            }),
        }
    }
}

impl RowMap for Strided {
    const NAME: &'static str = "filter and stride";

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        Self::check("image for", input, self.image, self.measurement)
    }

    fn input_shape(&self, output: &[usize]) -> Result<Vec<usize>> {
        Self::check("measurement of", output, self.measurement, self.image)
    }

    fn forward<T: Real>(&self, _: &[usize], x: &[T], y: &mut [T]) {
        let ((height, width), (rows, columns), taps) = (self.image, self.measurement, self.taps::<T>());
        let sorted = self.factor * self.phase;
        y.par_chunks_mut(rows * columns).zip(x.par_chunks(height * width)).for_each(|(y, x)| {
            let mut lines = vec![T::zero(); height * sorted];
            lines.par_chunks_mut(sorted).zip(x.par_chunks(width)).for_each(|(line, x)| {
                for (value, pixel) in line.iter_mut().zip(&self.pixels) {
                    *value = pixel.map_or(T::zero(), |pixel| x[pixel]);
                }
            });
            y.par_chunks_mut(columns).zip(&self.rows).for_each_init(Vec::new, |terms, (line, pairs)| {
                terms.clear();
                for &(row, a) in pairs {
                    terms.extend(
                        taps[a].iter().map(|&(phase, first, tap)| (row * sorted + phase * self.phase + first, tap)),
                    );
                }
                add_lines(terms, |start: usize| &lines[start..start + columns], line);
            });
        });
    }

    fn transpose<T: Real>(&self, _: &[usize], y: &[T], x: &mut [T]) {
        let ((height, width), (rows, columns), taps) = (self.image, self.measurement, self.taps::<T>());
        // Zeros on both sides, so that every tap takes a whole phase.
        let margin = self.phase - columns;
        let padded = columns + 2 * margin;
        x.par_chunks_mut(height * width).zip(y.par_chunks(rows * columns)).for_each(|(x, y)| {
            let mut lines = vec![T::zero(); rows * padded];
            for (line, y) in lines.chunks_exact_mut(padded).zip(y.chunks_exact(columns)) {
                line[margin..margin + columns].copy_from_slice(y);
            }
            x.par_chunks_mut(width).zip(&self.rows_transposed).for_each_init(
                || (Vec::new(), vec![T::zero(); self.factor * self.phase]),
                |(terms, sorted), (line, pairs)| {
                    sorted.fill(T::zero());
                    for (phase, sum) in sorted.chunks_exact_mut(self.phase).enumerate() {
                        terms.clear();
                        for &(row, a) in pairs {
                            let here = taps[a].iter().filter(|tap| tap.0 == phase);
                            terms.extend(here.map(|&(_, first, tap)| (row * padded + margin - first, tap)));
                        }
                        add_lines(terms, |start: usize| &lines[start..start + self.phase], sum);
                    }
                    for (&value, pixel) in sorted.iter().zip(&self.pixels) {
                        if let Some(pixel) = *pixel {
                            line[pixel] += value;
                        }
                    }
                },
            );
        });
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Every how many pixels one is kept.
    factor: usize,
    /// The filter; default bicubic.
    #[serde(default)]
    kernel: Choice,
    /// Correlation with the kernel in place of convolution; default false.
    #[serde(default)]
    correlate: bool,
    /// What lies beyond the border; default circular.
    #[serde(default = "Config::padding")]
    padding: Padding,
}

/// A filter in a configuration.
#[derive(Clone, Debug)]
enum Choice {
    /// Made for the factor, `kernel = "bicubic"`.
    Made(LowPass),
    /// Like that of a blur, `kernel = { shape = "gaussian", sigma = 1.0 }`.
    Shaped(kernel::Config),
}

impl Default for Choice {
    fn default() -> Self {
        Self::Made(LowPass::default())
    }
}

impl<'de> Deserialize<'de> for Choice {
    /// Chosen by the type of the value, so that an error speaks of what was meant; an untagged enum would list nothing.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let made = match Value::deserialize(deserializer)? {
            Value::Table(table) => Table::try_into(table).map(Self::Shaped),
            name @ Value::String(_) => name.try_into().map(Self::Made),
            other => {
                let reason = format!("kernel is {other}, expected a name such as \"bicubic\" or a table with a shape");
                return Err(D::Error::custom(reason));
            }
        };
        made.map_err(|error| D::Error::custom(error.message()))
    }
}

impl Config {
    fn padding() -> Padding {
        Padding::Circular
    }

    /// `[K, L]`, centred at `⌊K/2⌋`, `⌊L/2⌋`.
    fn kernel(&self, site: Site<'_>) -> Result<Tensor> {
        match &self.kernel {
            Choice::Made(filter) => {
                // Before the taps are made, whose number grows with the factor.
                let (_, height, width) = site.image;
                let mut taps = filter.taps(self.factor.clamp(1, height.min(width).max(1)));
                if self.correlate {
                    taps.reverse();
                    // The middle of an even number of taps was the second of two, and is the first now.
                    if taps.len().is_multiple_of(2) {
                        taps.insert(0, 0.0);
                    }
                }
                let line = Tensor::new(taps.as_slice(), &Device::Cpu)?;
                Ok(line.unsqueeze(1)?.matmul(&line.unsqueeze(0)?)?)
            }
            Choice::Shaped(config) => centred(&config.oriented(self.correlate, NAME, site.folder)?),
        }
    }
}

/// `[K, L]`: the kernel with zeros around it, as few as bring its centre to `⌊K/2⌋`, `⌊L/2⌋`.
fn centred(kernel: &Kernel) -> Result<Tensor> {
    let (height, width) = (kernel.height(), kernel.width());
    let values = Tensor::from_slice(kernel.values(), (height, width), &Device::Cpu)?;
    let around =
        |size: usize, centre: usize| ((size - 1).saturating_sub(2 * centre), (2 * centre).saturating_sub(size));
    let ((above, below), (left, right)) = (around(height, kernel.centre().0), around(width, kernel.centre().1));
    Ok(values.pad_with_zeros(0, above, below)?.pad_with_zeros(1, left, right)?)
}

/// `downsample_kernel`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: NAME,
    about: "Every f-th pixel of a filtered image",
    fields: &[
        ("factor", "every how many pixels one is kept, at least 1"),
        (
            "kernel",
            "bicubic, bilinear or gaussian, made for the factor, or a table as the kernel of blur; default bicubic",
        ),
        ("correlate", "whether to correlate instead of to convolve, as with the kernel turned by 180°; default false"),
        ("padding", "beyond the border: circular, zero, reflect, replicate or symmetric; default circular"),
    ],
    example: "factor = 2",
    build: BuildOperator::reshaping(
        |table, site| {
            let config: Config = table.try_into()?;
            let kernel = config.kernel(site)?;
            Ok(Box::new(DownsampleKernel::new(&kernel, config.factor, config.padding, site)?))
        },
        |table, y, _| {
            let Config { factor, .. } = table.clone().try_into()?;
            match *y {
                [channels, height, width] => Ok((channels, height * factor, width * factor)),
                _ => Err(Error::config(NAME, format!("measurement is {y:?}, expected [C, H, W]"))),
            }
        },
    ),
};
