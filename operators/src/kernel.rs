//! Point-spread functions.

use std::f64::consts::PI;
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::Device;
use serde::Deserialize;

use crate::rng::Rng;
use crate::{Error, Result};

/// Longest side of a kernel, in pixels.
const LARGEST: usize = 4096;

/// What an image of a single bright pixel looks like: `y[p] = Σ_q k[q] x[p − (q − centre)]`.
///
/// Rows go down and columns to the right, as in an image. A kernel made of a shape has the sum 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    height: usize,
    width: usize,
    values: Vec<f64>,
    centre: (usize, usize),
}

impl Kernel {
    /// `height × width` values, row by row, taken as they are. The centre is the middle, `height / 2` and
    /// `width / 2`: of two rows or columns in the middle the second.
    ///
    /// # Errors
    /// [`Error::Config`] unless there are `height · width` finite values, and 1 to 4096 rows and columns.
    pub fn new(height: usize, width: usize, values: Vec<f64>) -> Result<Self> {
        if !(1..=LARGEST).contains(&height) || !(1..=LARGEST).contains(&width) {
            return Err(refuse(format!("size is {width}x{height}, expected 1 to {LARGEST} in each direction")));
        }
        if values.len() != height * width {
            return Err(refuse(format!("{} values, expected {height} rows of {width}", values.len())));
        }
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(refuse(format!("holds {value}, expected finite numbers")));
        }
        Ok(Self { height, width, values, centre: (height / 2, width / 2) })
    }

    /// The same values divided by their sum.
    ///
    /// # Errors
    /// [`Error::Config`] unless the sum is above 0.
    pub fn normalized(mut self) -> Result<Self> {
        let sum: f64 = self.values.iter().sum();
        if !(sum > 0.0 && sum.is_finite()) {
            return Err(refuse(format!("values sum to {sum}, expected a sum above 0")));
        }
        self.values.iter_mut().for_each(|value| *value /= sum);
        Ok(self)
    }

    /// Turned by 180° about its centre: convolution with the one is correlation with the other.
    pub fn turned(&self) -> Self {
        Self {
            values: self.values.iter().rev().copied().collect(),
            centre: (self.height - 1 - self.centre.0, self.width - 1 - self.centre.1),
            ..*self
        }
    }

    /// A Gaussian, `exp(−u²/2σ₁² − v²/2σ₂²)` sampled at the pixels and normalised, `u` along the angle.
    ///
    /// `sigma`: σ₁ along and σ₂ across, in pixels; `angle`: degrees counter-clockwise from +x; `size`: odd side in pixels,
    /// by default `2⌈4 max σ⌉ + 1`.
    ///
    /// # Errors
    /// [`Error::Config`] unless both σ are above 0, the angle is finite and the size odd and at most 4096.
    pub fn gaussian(sigma: [f64; 2], angle: f64, size: Option<usize>) -> Result<Self> {
        let widest = check_sigma(sigma)?;
        check_angle(angle)?;
        let size = match size {
            Some(size) => size,
            None => 2 * (4.0 * widest).ceil() as usize + 1,
        };
        let radius = check_odd(size)? as f64;
        let (sin, cos) = angle.to_radians().sin_cos();
        let value = |y: f64, x: f64| {
            // y goes down.
            let (along, across) = (x * cos - y * sin, x * sin + y * cos);
            (-0.5 * ((along / sigma[0]).powi(2) + (across / sigma[1]).powi(2))).exp()
        };
        let values = if angle % 90.0 == 0.0 {
            // The product of two lines, to the last bit.
            let [x, y] = if angle % 180.0 == 0.0 { sigma } else { [sigma[1], sigma[0]] };
            let line = |sigma: f64| -> Vec<f64> {
                let line: Vec<f64> = positions(size, radius).map(|p| (-0.5 * (p / sigma).powi(2)).exp()).collect();
                let sum: f64 = line.iter().sum();
                line.iter().map(|value| value / sum).collect()
            };
            outer(&line(y), &line(x))
        } else {
            positions(size, radius).flat_map(|y| positions(size, radius).map(move |x| value(y, x))).collect()
        };
        Self::new(size, size, values)?.normalized()
    }

    /// What `scipy.ndimage.gaussian_filter` with its default border makes of an impulse in the middle of `size × size`
    /// zeros: taps up to `⌊truncate σ + ½⌋` pixels away, normalised, and mirrored at the array's border.
    ///
    /// # Errors
    /// [`Error::Config`] unless σ and `truncate` are above 0 and the size odd and at most 4096.
    pub fn gaussian_impulse(sigma: f64, truncate: f64, size: usize) -> Result<Self> {
        check_sigma([sigma; 2])?;
        if !(truncate > 0.0 && truncate * sigma < LARGEST as f64) {
            return Err(refuse(format!(
                "truncate is {truncate}, expected a number above 0 and below {LARGEST} / sigma"
            )));
        }
        let middle = check_odd(size)?;
        let radius = (truncate * sigma + 0.5).floor() as isize;
        let taps: Vec<f64> = (-radius..=radius).map(|i| (-0.5 * (i as f64 / sigma).powi(2)).exp()).collect();
        let sum: f64 = taps.iter().sum();
        let mut line = vec![0.0; size];
        for (tap, i) in taps.iter().zip(-radius..) {
            // The border's pixel is repeated: … b a | a b c | c b …, with a period of two sizes.
            let folded = (middle as isize + i).rem_euclid(2 * size as isize) as usize;
            line[folded.min(2 * size - 1 - folded)] += tap / sum;
        }
        Self::new(size, size, outer(&line, &line))
    }

    /// The mean of `height × width` pixels.
    ///
    /// # Errors
    /// [`Error::Config`] unless there are 1 to 4096 rows and columns.
    pub fn uniform(height: usize, width: usize) -> Result<Self> {
        let area = height.saturating_mul(width).min(LARGEST * LARGEST);
        Self::new(height, width, vec![1.0 / area as f64; area])
    }

    /// A lens out of focus: a disk, every pixel weighted by the part of it that the disk covers; normalised.
    ///
    /// `radius` in pixels, from the middle of the central pixel.
    ///
    /// # Errors
    /// [`Error::Config`] unless the radius is above 0 and at most 2000.
    pub fn disk(radius: f64) -> Result<Self> {
        if !(radius > 0.0 && radius <= 2000.0) {
            return Err(refuse(format!("radius is {radius}, expected a number above 0 and at most 2000")));
        }
        let reach = (radius - 0.5).ceil().max(0.0);
        let size = 2 * reach as usize + 1;
        let corner = |y: f64, x: f64| quadrant(x.abs(), y.abs(), radius) * x.signum() * y.signum();
        let covered = |y: f64, x: f64| {
            let (top, bottom, left, right) = (y - 0.5, y + 0.5, x - 0.5, x + 0.5);
            (corner(bottom, right) - corner(bottom, left) - corner(top, right) + corner(top, left)).max(0.0)
        };
        let values = positions(size, reach).flat_map(|y| positions(size, reach).map(move |x| covered(y, x))).collect();
        Self::new(size, size, values)?.normalized()
    }

    /// Motion along a line, of one speed: `max(0, 1 − d)` with the distance `d` from the segment of `length − 1` pixels
    /// about the centre, normalised. An odd length at 0° is the mean of so many pixels; length 1 is the identity.
    ///
    /// `length` in pixels, `angle` in degrees counter-clockwise from +x.
    ///
    /// # Errors
    /// [`Error::Config`] unless the length is 1 to 4000 and the angle finite.
    pub fn line(length: f64, angle: f64) -> Result<Self> {
        if !(1.0..=4000.0).contains(&length) {
            return Err(refuse(format!("length is {length}, expected 1 to 4000 pixels")));
        }
        check_angle(angle)?;
        let half = (length - 1.0) / 2.0;
        // Right angles are exact, so that their kernels are as thin as they should be.
        let (sin, cos) = match angle.rem_euclid(180.0) {
            0.0 => (0.0, 1.0),
            90.0 => (1.0, 0.0),
            angle => angle.to_radians().sin_cos(),
        };
        let weight = |y: f64, x: f64| {
            let (along, across) = (x * cos - y * sin, x * sin + y * cos);
            let beyond = (along.abs() - half).max(0.0);
            (1.0 - beyond.hypot(across)).max(0.0)
        };
        let reach = |part: f64| (half * part.abs()).ceil() + 1.0;
        let (down, right) = (reach(sin), reach(cos));
        let rows = positions(2 * down as usize + 1, down);
        let values = rows.flat_map(|y| positions(2 * right as usize + 1, right).map(move |x| weight(y, x))).collect();
        Self::new(2 * down as usize + 1, 2 * right as usize + 1, values)?.trimmed_about_centre().normalized()
    }

    /// The random path of a shaking camera, after the generator of L. Borodenko, <https://github.com/LeviBorodenko/motionblur>,
    /// in its distributions but not its pixels: the path is drawn by bilinear points under a Gaussian of half a pixel in
    /// 61.
    ///
    /// `size`: odd side in pixels; `intensity`: 0, nearly straight, to 1, strongly bent; a path of its own for every `seed`.
    ///
    /// # Errors
    /// [`Error::Config`] unless the size is odd and at most 4096 and the intensity 0 to 1.
    pub fn trajectory(size: usize, intensity: f64, seed: u64) -> Result<Self> {
        let middle = check_odd(size)? as f64;
        if !(0.0..=1.0).contains(&intensity) {
            return Err(refuse(format!("intensity is {intensity}, expected 0 to 1")));
        }
        let mut numbers = Numbers { rng: Rng::new(seed, 0..1), left: Vec::new() };
        let path = path(intensity, &mut numbers)?;
        // The unit of the path is the diagonal of a canvas twice as wide as the kernel, which then shrinks to half.
        let scale = size as f64 * 2f64.sqrt();
        let mut drawn = vec![0.0; size * size];
        let mut dot = |y: f64, x: f64, weight: f64| {
            let (top, left) = (y.floor(), x.floor());
            for (row, part_y) in [(top, 1.0 - (y - top)), (top + 1.0, y - top)] {
                for (column, part_x) in [(left, 1.0 - (x - left)), (left + 1.0, x - left)] {
                    let inside = |p: f64| (0.0..size as f64).contains(&p);
                    if inside(row) && inside(column) {
                        drawn[row as usize * size + column as usize] += weight * part_y * part_x;
                    }
                }
            }
        };
        for ends in path.windows(2) {
            let [(from_y, from_x), (to_y, to_x)] =
                [ends[0], ends[1]].map(|(y, x)| (middle + scale * y, middle + scale * x));
            let length = (to_y - from_y).hypot(to_x - from_x);
            let dots = (4.0 * length).ceil().max(1.0);
            for i in 0..dots as usize {
                let t = (i as f64 + 0.5) / dots;
                dot(from_y + t * (to_y - from_y), from_x + t * (to_x - from_x), length / dots);
            }
        }
        let sigma = 0.5 * size as f64 / 61.0;
        let radius = (4.0 * sigma).ceil() as isize;
        let taps: Vec<f64> = (-radius..=radius).map(|i| (-0.5 * (i as f64 / sigma).powi(2)).exp()).collect();
        let smooth = |values: &[f64], step: usize, along: fn(usize, usize) -> usize| -> Vec<f64> {
            let at = |i: usize, offset: isize| {
                let place = along(i, size) as isize + offset;
                let there = || values[(i as isize + offset * step as isize) as usize];
                if (0..size as isize).contains(&place) { there() } else { 0.0 }
            };
            (0..values.len())
                .map(|i| taps.iter().zip(-radius..).map(|(tap, offset)| tap * at(i, offset)).sum())
                .collect()
        };
        let drawn = smooth(&smooth(&drawn, 1, |i, size| i % size), size, |i, size| i / size);
        Self::new(size, size, drawn)?.normalized()
    }

    /// The mean of the channels of a picture, normalised; transparency is not looked at.
    ///
    /// # Errors
    /// [`Error::Config`] with the file's name if it is no PNG, JPEG, BMP or PNM picture, is black or too large.
    pub fn picture(file: &Path) -> Result<Self> {
        let wrong = |reason: String| refuse(format!("file {}: {reason}", file.display()));
        let reader = || -> Result<image::ImageReader<std::io::BufReader<std::fs::File>>> {
            let reader = image::ImageReader::open(file).map_err(|error| wrong(error.to_string()))?;
            reader.with_guessed_format().map_err(|error| wrong(error.to_string()))
        };
        // The size is judged before anything is decoded.
        let (width, height) = reader()?.into_dimensions().map_err(|error| wrong(error.to_string()))?;
        if width.max(height) > 4096 {
            return Err(wrong(format!("{width}x{height} pixels, expected at most 4096 a side")));
        }
        let picture = reader()?.decode().map_err(|error| wrong(error.to_string()))?.into_rgb16();
        let values = picture.pixels().map(|pixel| pixel.0.iter().map(|&value| f64::from(value)).sum()).collect();
        let reason = |error| match error {
            Error::Config { reason, .. } => wrong(reason),
            other => other,
        };
        Self::new(picture.height() as usize, picture.width() as usize, values)
            .and_then(Self::normalized)
            .map_err(reason)
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The values, row by row.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Row and column of the value by which a pixel stays in its place.
    pub fn centre(&self) -> (usize, usize) {
        self.centre
    }

    /// The same values about another centre.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no such row or column.
    pub fn with_centre(self, row: usize, column: usize) -> Result<Self> {
        if row >= self.height || column >= self.width {
            let reason = format!("centre is ({row}, {column}), expected it inside {} x {}", self.height, self.width);
            return Err(refuse(reason));
        }
        Ok(Self { centre: (row, column), ..self })
    }

    pub(crate) fn at(&self, row: usize, column: usize) -> f64 {
        self.values[row * self.width + column]
    }

    /// The rows and columns that hold all that is not zero, at least one of each.
    pub(crate) fn support(&self) -> (Range<usize>, Range<usize>) {
        let row = |&y: &usize| (0..self.width).any(|x| self.at(y, x) != 0.0);
        let column = |&x: &usize| (0..self.height).any(|y| self.at(y, x) != 0.0);
        let span = |first: Option<usize>, last: Option<usize>| first.unwrap_or(0)..last.unwrap_or(0) + 1;
        (
            span((0..self.height).find(row), (0..self.height).rev().find(row)),
            span((0..self.width).find(column), (0..self.width).rev().find(column)),
        )
    }

    /// Without the zeros around it, as far as the centre stays in the middle.
    fn trimmed_about_centre(self) -> Self {
        let (rows, columns) = self.support();
        let reach = |span: &Range<usize>, centre: usize| {
            centre.saturating_sub(span.start).max((span.end - 1).saturating_sub(centre))
        };
        let (down, right) = (reach(&rows, self.centre.0), reach(&columns, self.centre.1));
        let (top, left) = (self.centre.0 - down, self.centre.1 - right);
        let values = (top..=top + 2 * down)
            .flat_map(|y| (left..=left + 2 * right).map(move |x| (y, x)))
            .map(|(y, x)| self.at(y, x))
            .collect();
        Self { height: 2 * down + 1, width: 2 * right + 1, values, centre: (down, right) }
    }
}

fn refuse(reason: String) -> Error {
    Error::config("kernel", format!("kernel: {reason}"))
}

/// Checks the widths and returns the larger.
fn check_sigma(sigma: [f64; 2]) -> Result<f64> {
    let largest = (LARGEST / 8) as f64;
    match sigma.iter().all(|&sigma| sigma > 0.0 && sigma < largest) {
        true => Ok(sigma[0].max(sigma[1])),
        false => Err(refuse(format!("sigma is {sigma:?}, expected numbers above 0 and below {largest}"))),
    }
}

fn check_angle(angle: f64) -> Result<()> {
    match angle.is_finite() {
        true => Ok(()),
        false => Err(refuse(format!("angle is {angle}, expected a finite number of degrees"))),
    }
}

/// Checks a side and returns its middle.
fn check_odd(size: usize) -> Result<usize> {
    match size % 2 == 1 && size < LARGEST {
        true => Ok(size / 2),
        false => Err(refuse(format!("size is {size}, expected an odd number below {LARGEST}"))),
    }
}

/// `−middle, …, size − 1 − middle`.
fn positions(size: usize, middle: f64) -> impl Iterator<Item = f64> {
    (0..size).map(move |i| i as f64 - middle)
}

fn outer(column: &[f64], row: &[f64]) -> Vec<f64> {
    column.iter().flat_map(|y| row.iter().map(move |x| y * x)).collect()
}

/// The area of `[0, a] × [0, b]` inside a disk about the origin.
fn quadrant(a: f64, b: f64, radius: f64) -> f64 {
    let (a, b) = (a.min(radius), b.min(radius));
    if a.hypot(b) <= radius {
        return a * b;
    }
    // ∫₀ᵃ min(b, √(r² − u²)) du; the circle is above b up to `flat`.
    let flat = (radius * radius - b * b).max(0.0).sqrt();
    let under = |u: f64| 0.5 * (u * (radius * radius - u * u).max(0.0).sqrt() + radius * radius * (u / radius).asin());
    b * flat + under(a) - under(flat)
}

/// Uniform numbers on (0, 1), one after the other.
struct Numbers {
    rng: Rng,
    left: Vec<f32>,
}

impl Numbers {
    fn next(&mut self) -> Result<f64> {
        if self.left.is_empty() {
            self.left = self.rng.uniform((1, 1, 1, 1024), &Device::Cpu)?.flatten_all()?.to_vec1()?;
            self.left.reverse();
        }
        Ok(self.left.pop().map_or(0.5, f64::from))
    }

    /// Uniform on `(from, to)`.
    fn between(&mut self, from: f64, to: f64) -> Result<f64> {
        Ok(from + (to - from) * self.next()?)
    }
}

/// The corners of a random path, `(y, x)` in diagonals of the canvas, their mean at the origin.
fn path(intensity: f64, numbers: &mut Numbers) -> Result<Vec<(f64, f64)>> {
    const SLACK: f64 = 0.1;
    // A length of nearly nothing would wait forever for a step that is shorter.
    let total = (0.75 * (numbers.next()? + numbers.between(0.0, intensity * intensity)?)).max(1e-3);
    let mut steps = Vec::new();
    let mut length = 0.0;
    while length < total {
        // Beta(1, 30), by its inverse distribution function.
        let step = (1.0 - numbers.next()?.powf(1.0 / 30.0)) * (1.0 - intensity + SLACK);
        if step < total {
            steps.push(step);
            length += step;
        }
    }
    let largest = numbers.between(0.0, intensity * PI)?;
    // Beta(2, 20): the second smallest of 21 uniform numbers.
    let mut uniform = (0..21).map(|_| numbers.next()).collect::<Result<Vec<_>>>()?;
    uniform.sort_unstable_by(f64::total_cmp);
    let flips = uniform[1];
    let mut angle = numbers.between(-largest, largest)?;
    let (mut y, mut x) = (0.0, 0.0);
    let mut corners = vec![(y, x)];
    for (i, step) in steps.iter().enumerate() {
        if i > 0 {
            // Triangular on (0, θ) with its mode at iθ.
            let (u, mode) = (numbers.next()?, intensity);
            let size = if u < mode { (u * mode).sqrt() } else { 1.0 - ((1.0 - u) * (1.0 - mode)).sqrt() };
            let sign = if numbers.next()? < flips { -angle.signum() } else { angle.signum() };
            angle = sign * size * largest;
        }
        (y, x) = (y - step * angle.sin(), x + step * angle.cos());
        corners.push((y, x));
    }
    let count = corners.len() as f64;
    let mean = corners.iter().fold((0.0, 0.0), |sum, corner| (sum.0 + corner.0 / count, sum.1 + corner.1 / count));
    let (sin, cos) = numbers.between(0.0, PI)?.sin_cos();
    let turned = |(y, x): (f64, f64)| {
        let (y, x) = (y - mean.0, x - mean.1);
        (y * cos - x * sin, y * sin + x * cos)
    };
    Ok(corners.into_iter().map(turned).collect())
}

/// One number, or one for each of two directions.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Pair<T> {
    One(T),
    Two([T; 2]),
}

impl<T: Copy> Pair<T> {
    fn both(self) -> [T; 2] {
        match self {
            Self::One(value) => [value; 2],
            Self::Two(values) => values,
        }
    }
}

/// A kernel in a configuration, `kernel = { shape = "gaussian", sigma = 3.0 }`.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "shape", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Config {
    /// [`Kernel::gaussian`], or [`Kernel::gaussian_impulse`] if `truncate` is given.
    Gaussian {
        /// Standard deviation in pixels, or that along and that across the angle.
        sigma: Pair<f64>,
        /// Degrees counter-clockwise from +x; default 0.
        #[serde(default)]
        angle: f64,
        /// Odd side in pixels; default `2⌈4σ⌉ + 1`.
        size: Option<usize>,
        /// Reach in units of σ of a filtered impulse; by default the Gaussian is sampled.
        truncate: Option<f64>,
    },
    /// [`Kernel::uniform`].
    Uniform {
        /// Side in pixels, or height and width.
        size: Pair<usize>,
    },
    /// [`Kernel::disk`].
    Disk {
        /// In pixels.
        radius: f64,
    },
    /// [`Kernel::line`].
    Line {
        /// In pixels, at least 1.
        length: f64,
        /// Degrees counter-clockwise from +x; default 0.
        #[serde(default)]
        angle: f64,
    },
    /// [`Kernel::trajectory`].
    Trajectory {
        /// Odd side in pixels; default 61.
        #[serde(default = "Config::side")]
        size: usize,
        /// 0, nearly straight, to 1, strongly bent; default 0.5.
        #[serde(default = "Config::intensity")]
        intensity: f64,
        /// Which path; default 0.
        #[serde(default)]
        seed: u64,
    },
    /// [`Kernel::picture`].
    Image {
        /// Relative to the folder of the configuration.
        file: PathBuf,
        /// Turned by 180°; default false.
        #[serde(default)]
        correlate: bool,
    },
    /// [`Kernel::new`].
    Values {
        /// Rows of one length.
        rows: Vec<Vec<f64>>,
        /// Divide by the sum; default false.
        #[serde(default)]
        normalize: bool,
    },
}

impl Config {
    fn side() -> usize {
        61
    }

    fn intensity() -> f64 {
        0.5
    }

    /// Reads and computes the values; relative names of files start from `folder`.
    pub(crate) fn build(&self, folder: &Path) -> Result<Kernel> {
        match self {
            Self::Gaussian { sigma, angle, size, truncate: None } => Kernel::gaussian(sigma.both(), *angle, *size),
            Self::Gaussian { sigma, angle, size, truncate: Some(truncate) } => {
                let [along, across] = sigma.both();
                if along != across || *angle != 0.0 {
                    let reason = "truncate stands beside an angle or two sigmas, expected one sigma and no angle";
                    return Err(refuse(reason.into()));
                }
                let reach = (truncate * along + 0.5).clamp(0.0, LARGEST as f64) as usize;
                Kernel::gaussian_impulse(along, *truncate, size.unwrap_or(2 * reach + 1))
            }
            Self::Uniform { size } => {
                let [height, width] = size.both();
                Kernel::uniform(height, width)
            }
            Self::Disk { radius } => Kernel::disk(*radius),
            Self::Line { length, angle } => Kernel::line(*length, *angle),
            Self::Trajectory { size, intensity, seed } => Kernel::trajectory(*size, *intensity, *seed),
            Self::Image { file, correlate } => {
                let kernel = Kernel::picture(&folder.join(file))?;
                Ok(if *correlate { kernel.turned() } else { kernel })
            }
            Self::Values { rows, normalize } => {
                let width = rows.first().map_or(0, Vec::len);
                if let Some(row) = rows.iter().find(|row| row.len() != width) {
                    return Err(refuse(format!(
                        "rows have {width} and {} values, expected rows of one length",
                        row.len()
                    )));
                }
                let kernel = Kernel::new(rows.len(), width, rows.concat())?;
                if *normalize { kernel.normalized() } else { Ok(kernel) }
            }
        }
    }

    /// [`build`](Self::build), turned by 180° if the operator `name` is told to correlate.
    ///
    /// # Errors
    /// [`Error::Config`] also if a picture is turned already.
    pub(crate) fn oriented(&self, correlate: bool, name: &str, folder: &Path) -> Result<Kernel> {
        match (correlate, self) {
            (true, Self::Image { correlate: true, .. }) => {
                let reason = "correlate is set for the kernel and for the operator, expected once";
                Err(Error::config(name, reason))
            }
            (true, _) => Ok(self.build(folder)?.turned()),
            (false, _) => self.build(folder),
        }
    }
}
