//! Tomography with parallel beams.

use std::f64::consts::PI;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use realfft::num_complex::Complex;
use serde::Deserialize;

use super::{BuildOperator, ForwardOperator, LinearOperator};
use crate::dft::Dft;
use crate::map::{self, Real, RowMap};
use crate::registry::{Entry, Site};
use crate::{Error, Result};

/// The Radon transform of each channel: integrals along parallel lines, in pixels times the pixels' unit.
///
/// `y(θ, t) = ∫ x(c + t (cos θ, −sin θ) + s (sin θ, cos θ)) ds` in coordinates (column, row), with the centre
/// `c = (⌊W/2⌋, ⌊H/2⌋)`, zeros outside the image, and detectors at `t = d − ⌊D/2⌋` for `d = 0, …, D − 1`: one pixel apart. This
/// is the geometry of scikit-image's `radon(circle=False)`.
///
/// The integral is Joseph's: a line that is nearer to the vertical crosses every row of pixels once, between two
/// neighbours whose values are interpolated linearly, and each crossing stands for a length of `1/|cos θ|`; other lines
/// cross columns. The adjoint has the same weights.
///
/// A measurement is `[B, C, angles, detectors]`.
///
/// Joseph (1982), An improved algorithm for reprojecting rays through pixel images,
/// <https://doi.org/10.1109/TMI.1982.4307572>.
#[derive(Clone, Debug)]
pub struct Radon {
    projection: Arc<Projection>,
}

/// Fractions of a pixel in a fixed-point position; steps of this size are added up without rounding.
const FRACTION: u32 = 40;
/// Numbers of a measurement in each channel; a number of angles alone must not take memory without measure.
const LARGEST: usize = 1 << 24;
const ONE: f64 = (1u64 << FRACTION) as f64;

/// Angles whose projections read a line of the image while it is in the cache, and lines that read a projection.
const GROUP: usize = 4;

#[derive(Clone, Copy, Debug)]
struct Ray {
    /// Place in the measurement.
    index: usize,
    cos: f64,
    sin: f64,
    /// Whether the crossings are with columns.
    columns: bool,
}

impl Ray {
    fn new(index: usize, degrees: f64) -> Self {
        let (sin, cos) = libm::sincos(degrees * (PI / 180.0));
        Self { index, cos, sin, columns: sin.abs() > cos.abs() }
    }

    /// Pixels that the crossing with a line moves for one detector, and for one line.
    fn slopes(&self) -> (f64, f64) {
        if self.columns { (-1.0 / self.sin, self.cos / self.sin) } else { (1.0 / self.cos, self.sin / self.cos) }
    }

    /// Whether detectors are counted backwards so that crossings move to the right.
    fn backwards(&self) -> bool {
        self.slopes().0 < 0.0
    }
}

#[derive(Debug)]
struct Projection {
    height: usize,
    width: usize,
    detectors: usize,
    degrees: Vec<f64>,
}

/// Where rays cross one line of pixels: for the detectors from `first` on, the pixel before the crossing and the fraction
/// of a pixel after it.
struct Crossings<T> {
    first: usize,
    count: usize,
    /// Counted from one pixel before the line; in whole blocks, of which only `count` mean something.
    index: Vec<u32>,
    fraction: Vec<T>,
}

/// Positions that are computed side by side, so that a compiler may use vectors.
const LANES: usize = 8;

impl<T: Real> Crossings<T> {
    /// For as many as this at a time.
    fn new(most: usize) -> Self {
        let length = most.next_multiple_of(LANES);
        Self { first: 0, count: 0, index: vec![0; length], fraction: vec![T::zero(); length] }
    }

    /// Crossings with the line `offset` lines after the centre; `length` pixels, the centre at `centre`.
    fn find(&mut self, ray: &Ray, detectors: usize, offset: f64, centre: f64, length: usize) {
        let (step, shift) = ray.slopes();
        let first_detector =
            if ray.backwards() { (detectors - 1 - detectors / 2) as f64 } else { -((detectors / 2) as f64) };
        let step_fixed = (step.abs() * ONE) as i64;
        let start = ((centre + 1.0 + first_detector * step + offset * shift) * ONE).floor() as i64;
        let end = ((length as i64 + 1) << FRACTION) - start;
        // From one pixel before the line up to one after it, which has a weight of zero.
        let crossing = |distance: i64| {
            let steps = (distance.max(0) as u64).div_ceil(step_fixed.max(1) as u64);
            steps.min(detectors as u64) as usize
        };
        let (first, last) = (crossing(-start), crossing(end));
        (self.first, self.count) = (first, last.saturating_sub(first));
        self.fill(start + first as i64 * step_fixed, step_fixed, i64::MAX);
    }

    /// Positions `start + i · step`, held between 0 and `last`.
    #[inline]
    fn fill(&mut self, start: i64, step: i64, last: i64) {
        // 31 bits of the fraction fit an i32, whose conversion to a float is one instruction.
        const SCALE: f64 = 1.0 / (1u64 << 31) as f64;
        let mut lanes: [i64; LANES] = std::array::from_fn(|i| start + i as i64 * step);
        let blocks = self.count.div_ceil(LANES);
        let blocks = self.index.chunks_exact_mut(LANES).zip(self.fraction.chunks_exact_mut(LANES)).take(blocks);
        for (index, fraction) in blocks {
            for ((index, fraction), lane) in index.iter_mut().zip(fraction).zip(&mut lanes) {
                let position = if last == i64::MAX { *lane } else { (*lane).clamp(0, last) };
                *index = (position >> FRACTION) as u32;
                *fraction = T::of(f64::from(((position >> (FRACTION - 31)) & 0x7fff_ffff) as i32) * SCALE);
                *lane += step * LANES as i64;
            }
        }
    }

    /// `sum += (1 − f) line[i] + f line[i + 1]` for each crossing.
    #[inline]
    fn gather(&self, line: &[T], sums: &mut [T]) {
        let sums = &mut sums[self.first..][..self.count];
        for ((sum, &index), &fraction) in sums.iter_mut().zip(&self.index).zip(&self.fraction) {
            if let Some(&[left, right]) = line.get(index as usize..index as usize + 2) {
                *sum += left + fraction * (right - left);
            }
        }
    }

    /// The transpose: `line[i] += (1 − f) value`, `line[i + 1] += f value`. Every second crossing goes to another line;
    /// crossings are at least a pixel apart, so that none waits for the sum of the one before.
    #[inline]
    fn scatter(&self, values: &[T], even: &mut [T], odd: &mut [T]) {
        let add = |line: &mut [T], index: u32, fraction: T, value: T| {
            if let Some([left, right]) = line.get_mut(index as usize..index as usize + 2) {
                let part = fraction * value;
                *left += value - part;
                *right += part;
            }
        };
        let values = &values[self.first..][..self.count];
        let pairs = self.index.chunks_exact(2).zip(self.fraction.chunks_exact(2)).zip(values.chunks_exact(2));
        for ((index, fraction), value) in pairs {
            add(even, index[0], fraction[0], value[0]);
            add(odd, index[1], fraction[1], value[1]);
        }
        if let [value] = values.chunks_exact(2).remainder() {
            add(even, self.index[self.count - 1], self.fraction[self.count - 1], *value);
        }
    }
}

/// The planes of an image line by line, `[line][channel][pixel]`, with a zero at both ends of a line.
struct Lines<T> {
    values: Vec<T>,
    /// Lines, and pixels in a line.
    count: usize,
    length: usize,
    channels: usize,
}

impl<T: Real> Lines<T> {
    fn zeros(count: usize, length: usize, channels: usize) -> Self {
        Self { values: vec![T::zero(); count * channels * (length + 2)], count, length, channels }
    }

    fn centre(&self) -> (f64, f64) {
        ((self.count / 2) as f64, (self.length / 2) as f64)
    }
}

impl Projection {
    fn rays(&self, columns: bool) -> Vec<Ray> {
        let rays = self.degrees.iter().enumerate().map(|(index, &degrees)| Ray::new(index, degrees));
        rays.filter(|ray| ray.columns == columns).collect()
    }

    fn channels(&self, shape: &[usize]) -> usize {
        shape.first().copied().unwrap_or(0)
    }

    /// Rows of an image, or its columns.
    fn lines<T: Real>(&self, x: &[T], channels: usize, columns: bool) -> Lines<T> {
        let (height, width) = (self.height, self.width);
        let (count, length) = if columns { (width, height) } else { (height, width) };
        let mut lines = Lines::zeros(count, length, channels);
        /// Columns that are copied together, so that a row of a cache line is read once.
        const BLOCK: usize = 16;
        let line = channels * (length + 2);
        lines.values.par_chunks_mut(line * BLOCK).enumerate().for_each(|(block, lines)| {
            for channel in 0..channels {
                let plane = &x[channel * height * width..][..height * width];
                let start = channel * (length + 2) + 1;
                if !columns {
                    for (i, to) in lines.chunks_mut(line).enumerate() {
                        to[start..][..length].copy_from_slice(&plane[(block * BLOCK + i) * width..][..width]);
                    }
                    continue;
                }
                for (row, from) in plane.chunks(width).enumerate() {
                    let from = &from[block * BLOCK..];
                    lines.chunks_mut(line).zip(from).for_each(|(to, &value)| to[start + row] = value);
                }
            }
        });
        lines
    }

    /// Projections of all channels, `[channel][detector]`, along some rays that read the same lines.
    fn project<T: Real>(&self, lines: &Lines<T>, rays: &[Ray]) -> Vec<Vec<T>> {
        let mut sums = vec![vec![T::zero(); lines.channels * self.detectors]; rays.len()];
        let mut crossings = Crossings::<T>::new(self.detectors);
        let (middle, centre) = lines.centre();
        let padded = lines.length + 2;
        for (number, line) in lines.values.chunks(lines.channels * padded).enumerate() {
            for (ray, sums) in rays.iter().zip(&mut sums) {
                crossings.find(ray, self.detectors, number as f64 - middle, centre, lines.length);
                for (line, sums) in line.chunks(padded).zip(sums.chunks_mut(self.detectors)) {
                    crossings.gather(line, sums);
                }
            }
        }
        for (ray, sums) in rays.iter().zip(&mut sums) {
            let length = T::of(ray.slopes().0.abs());
            sums.iter_mut().for_each(|sum| *sum *= length);
            if ray.backwards() {
                sums.chunks_mut(self.detectors).for_each(<[T]>::reverse);
            }
        }
        sums
    }

    /// The transpose of all projections along rays that cross these lines.
    fn back_project<T: Real>(&self, y: &[T], rays: &[Ray], lines: &mut Lines<T>) {
        let (middle, centre) = lines.centre();
        let (length, padded, channels) = (lines.length, lines.length + 2, lines.channels);
        // Scaled, and in the order of crossings: `[ray][channel][detector]`.
        let mut sorted = vec![T::zero(); rays.len() * channels * self.detectors];
        let own = sorted.par_chunks_mut((channels * self.detectors).max(1)).zip(rays);
        own.for_each(|(own, ray)| {
            let scale = T::of(ray.slopes().0.abs());
            for (channel, own) in own.chunks_mut(self.detectors).enumerate() {
                let from = &y[(channel * self.degrees.len() + ray.index) * self.detectors..][..self.detectors];
                own.iter_mut().zip(from).for_each(|(to, &from)| *to = from * scale);
                if ray.backwards() {
                    own.reverse();
                }
            }
        });
        let group = channels * padded;
        lines.values.par_chunks_mut((group * GROUP).max(1)).enumerate().for_each_init(
            || (Crossings::<T>::new(self.detectors), Vec::new()),
            |(crossings, odd), (block, lines)| {
                odd.clear();
                odd.resize(lines.len(), T::zero());
                for (ray, own) in rays.iter().zip(sorted.chunks(channels * self.detectors)) {
                    for (i, (even, odd)) in lines.chunks_mut(group).zip(odd.chunks_mut(group)).enumerate() {
                        let offset = (block * GROUP + i) as f64 - middle;
                        crossings.find(ray, self.detectors, offset, centre, length);
                        let planes = even.chunks_mut(padded).zip(odd.chunks_mut(padded));
                        for ((even, odd), own) in planes.zip(own.chunks(self.detectors)) {
                            crossings.scatter(own, even, odd);
                        }
                    }
                }
                lines.iter_mut().zip(odd.iter()).for_each(|(even, &odd)| *even += odd);
            },
        );
    }
}

impl RowMap for Projection {
    const NAME: &'static str = "Radon transform";

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        match *input {
            [channels, height, width] if (height, width) == (self.height, self.width) => {
                Ok(vec![channels, self.degrees.len(), self.detectors])
            }
            _ => Err(Error::Shape {
                what: "image for radon".into(),
                got: input.to_vec(),
                expected: format!("[_, {}, {}] in every row", self.height, self.width),
            }),
        }
    }

    fn input_shape(&self, output: &[usize]) -> Result<Vec<usize>> {
        match *output {
            [channels, angles, detectors] if (angles, detectors) == (self.degrees.len(), self.detectors) => {
                Ok(vec![channels, self.height, self.width])
            }
            _ => Err(Error::Shape {
                what: "measurement of radon".into(),
                got: output.to_vec(),
                expected: format!("[_, {}, {}] in every row", self.degrees.len(), self.detectors),
            }),
        }
    }

    fn forward<T: Real>(&self, shape: &[usize], x: &[T], y: &mut [T]) {
        let channels = self.channels(shape);
        for columns in [false, true] {
            let rays = self.rays(columns);
            if rays.is_empty() {
                continue;
            }
            let lines = self.lines(x, channels, columns);
            let projections: Vec<Vec<Vec<T>>> = rays.par_chunks(GROUP).map(|rays| self.project(&lines, rays)).collect();
            for (ray, projection) in rays.iter().zip(projections.iter().flatten()) {
                for (channel, projection) in projection.chunks(self.detectors).enumerate() {
                    let start = (channel * self.degrees.len() + ray.index) * self.detectors;
                    y[start..][..self.detectors].copy_from_slice(projection);
                }
            }
        }
    }

    fn transpose<T: Real>(&self, shape: &[usize], y: &[T], x: &mut [T]) {
        let (channels, height, width) = (self.channels(shape), self.height, self.width);
        let mut rows = Lines::zeros(height, width, channels);
        self.back_project(y, &self.rays(false), &mut rows);
        let mut columns = Lines::zeros(width, height, channels);
        self.back_project(y, &self.rays(true), &mut columns);
        /// Rows of the image that are put together at once, so that a cache line of a column is read once.
        const BLOCK: usize = 16;
        x.par_chunks_mut(height * width).enumerate().for_each(|(channel, x)| {
            x.par_chunks_mut(width * BLOCK).enumerate().for_each(|(block, x)| {
                let first = block * BLOCK;
                for (i, x) in x.chunks_mut(width).enumerate() {
                    let line = &rows.values[((first + i) * channels + channel) * (width + 2) + 1..];
                    x.copy_from_slice(&line[..width]);
                }
                for column in 0..width {
                    let line = &columns.values[(column * channels + channel) * (height + 2) + 1..];
                    let own = &line[first..];
                    x.chunks_mut(width).zip(own).for_each(|(x, &value)| x[column] += value);
                }
            });
        });
    }
}

impl Radon {
    /// Projections under these angles on `detectors` detectors; none means `⌈√2 max(H, W)⌉`, which sees every pixel.
    ///
    /// # Errors
    /// [`Error::Config`] unless there is an angle, a detector and a pixel, all angles are finite, and there are at most 2²⁴ pairs
    /// of an angle and a detector.
    pub fn new(degrees: Vec<f64>, detectors: Option<usize>, site: Site<'_>) -> Result<Self> {
        let (_, height, width) = site.image;
        let refuse = |reason: String| Err(Error::config("radon", reason));
        // Fixed-point positions reach no further.
        const SIDE: usize = 1 << 20;
        if height == 0 || width == 0 || height.max(width) > SIDE {
            return refuse(format!("image is {width}x{height}, expected sides from 1 to {SIDE}"));
        }
        if degrees.is_empty() {
            return refuse("there are 0 angles, expected at least 1".into());
        }
        if let Some(angle) = degrees.iter().find(|angle| !angle.is_finite()) {
            return refuse(format!("an angle is {angle}, expected finite numbers of degrees"));
        }
        let detectors = detectors.unwrap_or((std::f64::consts::SQRT_2 * height.max(width) as f64).ceil() as usize);
        if detectors == 0 || detectors > 2 * SIDE {
            return refuse(format!("detectors is {detectors}, expected 1 to {}", 2 * SIDE));
        }
        if degrees.len().saturating_mul(detectors) > LARGEST {
            let angles = degrees.len();
            return refuse(format!("{angles} angles of {detectors} detectors, expected at most {LARGEST} numbers"));
        }
        Ok(Self { projection: Arc::new(Projection { height, width, detectors, degrees }) })
    }

    /// Projections under `angles` equidistant angles from 0° on, 180° exclusive.
    ///
    /// # Errors
    /// [`Error::Config`] as for [`new`](Self::new).
    pub fn equidistant(angles: usize, detectors: Option<usize>, site: Site<'_>) -> Result<Self> {
        if angles > LARGEST {
            return Err(Error::config("radon", format!("angles is {angles}, expected 1 to {LARGEST}")));
        }
        Self::new((0..angles).map(|i| 180.0 * i as f64 / angles as f64).collect(), detectors, site)
    }

    /// A first guess of the image: filtered back-projection, for angles that cover 180° (or 360°) evenly.
    ///
    /// Projections are convolved with the band-limited ramp, `1/4` at 0, `−1/(πt)²` at odd `t`, 0 elsewhere, and spread back with
    /// linear interpolation between detectors, `x(p) = π/N Σ_θ q(θ, t_θ(p))`.
    ///
    /// # Shapes
    /// `y`: `[B, C, angles, detectors]`; returns `[B, C, H, W]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `y` does not fit.
    ///
    /// Kak and Slaney (1988), Principles of computerized tomographic imaging, section 3.3.
    pub fn filtered_back_projection(&self, y: &Tensor) -> Result<Tensor> {
        let Some((&batch, row)) = y.dims().split_first() else {
            let expected = "[_, _, angles, detectors]".into();
            return Err(Error::Shape { what: "measurement of radon".into(), got: vec![], expected });
        };
        let image = self.projection.input_shape(row)?;
        let shape = (batch, image[0], image[1], image[2]);
        let flat = y.to_device(&Device::Cpu)?.flatten_all()?;
        let x = if y.dtype() == DType::F64 {
            Tensor::from_vec(self.projection.reconstruct::<f64>(&flat.to_vec1()?), shape, &Device::Cpu)?
        } else {
            let values = self.projection.reconstruct::<f32>(&flat.to_dtype(DType::F32)?.to_vec1()?);
            Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(y.dtype())?
        };
        Ok(x.to_device(y.device())?)
    }
}

impl Projection {
    fn reconstruct<T: Real>(&self, y: &[T]) -> Vec<T> {
        let detectors = self.detectors;
        // Twice the length, so that the circular convolution does not wrap.
        let length = (2 * detectors).next_power_of_two();
        let dft = Dft::new(1, length);
        let mut ramp = vec![0f64; length];
        ramp[0] = 0.25;
        for t in (1..length / 2).step_by(2) {
            let value = -1.0 / (PI * t as f64).powi(2);
            (ramp[t], ramp[length - t]) = (value, value);
        }
        let transfer: Vec<f64> = dft.spectrum(&ramp).into_iter().map(|value| value.re).collect();
        // A zero at both ends: beyond the detectors there is nothing.
        let mut filtered = vec![T::zero(); y.len() / detectors * (detectors + 2)];
        let projections = filtered.par_chunks_mut(detectors + 2).zip(y.par_chunks(detectors));
        projections.for_each_init(
            || vec![T::zero(); length],
            |padded, (to, from)| {
                padded.fill(T::zero());
                padded[..detectors].copy_from_slice(from);
                let mut spectrum = dft.spectrum(padded);
                for (value, &factor) in spectrum.iter_mut().zip(&transfer) {
                    *value = Complex::new(value.re * T::of(factor), value.im * T::of(factor));
                }
                dft.plane(spectrum, padded);
                to[1..=detectors].copy_from_slice(&padded[..detectors]);
            },
        );
        let (width, angles) = (self.width, self.degrees.len());
        let channels = y.len() / (angles * detectors);
        let directions: Vec<(f64, f64)> = self.degrees.iter().map(|&a| libm::sincos(a * (PI / 180.0))).collect();
        let scale = T::of(PI / angles as f64);
        let last = (((detectors + 1) as u64) << FRACTION) as i64 - 1;
        // `[row][channel][column]`, so that planes share the positions.
        let mut rows = vec![T::zero(); self.height * channels * width];
        rows.par_chunks_mut((channels * width).max(1)).enumerate().for_each_init(
            || Crossings::<T>::new(width),
            |crossings, (row, planes)| {
                let across = row as f64 - (self.height / 2) as f64;
                crossings.count = width;
                for (angle, &(sin, cos)) in directions.iter().enumerate() {
                    let start = 1.0 + (detectors / 2) as f64 - (width / 2) as f64 * cos - across * sin;
                    crossings.fill((start * ONE).floor() as i64, (cos * ONE) as i64, last);
                    for (channel, line) in planes.chunks_mut(width).enumerate() {
                        let projection = &filtered[(channel * angles + angle) * (detectors + 2)..][..detectors + 2];
                        crossings.gather(projection, line);
                    }
                }
            },
        );
        let mut x = vec![T::zero(); rows.len()];
        x.par_chunks_mut(width).enumerate().for_each(|(line, x)| {
            let (channel, row) = (line / self.height, line % self.height);
            let own = &rows[(row * channels + channel) * width..][..width];
            x.iter_mut().zip(own).for_each(|(to, &from)| *to = from * scale);
        });
        x
    }
}

impl ForwardOperator for Radon {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        map::apply(&self.projection, x)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for Radon {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        map::transpose(&self.projection, y)
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "angles must be a whole number or an array of degrees")]
enum Angles {
    Number(usize),
    Degrees(Vec<f64>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Number of equidistant angles over [0°, 180°), or the angles in degrees.
    #[serde(default = "Config::angles")]
    angles: Angles,
    /// Detectors, one pixel apart; by default as many as the diagonal of the longer side's square is long.
    detectors: Option<usize>,
}

impl Config {
    fn angles() -> Angles {
        Angles::Number(180)
    }
}

/// `radon`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "radon",
    about: "Integrals along parallel lines, as in computed tomography",
    fields: &[
        ("angles", "number of equidistant angles over 180 degrees, or an array of angles in degrees; default 180"),
        ("detectors", "number of detectors, one pixel apart; default ceil(sqrt(2) * longer side)"),
    ],
    example: "angles = [0.0, 40.0, 90.0]",
    build: BuildOperator::reshaping(
        |table, site| {
            let Config { angles, detectors } = table.try_into()?;
            Ok(Box::new(match angles {
                Angles::Number(angles) => Radon::equidistant(angles, detectors, site)?,
                Angles::Degrees(degrees) => Radon::new(degrees, detectors, site)?,
            }))
        },
        |_, y, _| {
            let reason = format!("measurement is {y:?}, which does not tell height and width of the image");
            Err(Error::config("radon", reason))
        },
    ),
};
