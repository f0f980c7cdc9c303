//! Down-sampling with the kernels of photo editors.

use std::ops::Range;

use candle_core::Tensor;
use serde::Deserialize;

use super::{BuildOperator, ForwardOperator, LinearOperator, SpectralOperator};
use crate::padding::Padding;
use crate::registry::{Entry, Site};
use crate::separable::{Separable, Sparse};
use crate::{Error, Result};

/// A kernel that a picture is resized with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ResizeKernel {
    /// Cubic convolution with a = −1/2, Keys (1981), <https://doi.org/10.1109/TASSP.1981.1163711>.
    #[default]
    Bicubic,
    /// A triangle, linear between pixels.
    Bilinear,
    /// `sinc(t) sinc(t/3)` for |t| < 3.
    Lanczos,
    /// The mean over the area of a pixel of the result; the nearest pixel where not antialiased.
    Box,
}

impl ResizeKernel {
    /// `k(t) = 0` beyond this distance.
    fn radius(self) -> f64 {
        match self {
            Self::Bicubic => 2.0,
            Self::Bilinear => 1.0,
            Self::Lanczos => 3.0,
            Self::Box => 0.5,
        }
    }

    fn at(self, t: f64) -> f64 {
        let t = t.abs();
        let sinc =
            |t: f64| if t == 0.0 { 1.0 } else { libm::sin(std::f64::consts::PI * t) / (std::f64::consts::PI * t) };
        match self {
            Self::Bicubic if t <= 1.0 => (1.5 * t - 2.5) * t * t + 1.0,
            Self::Bicubic if t < 2.0 => ((-0.5 * t + 2.5) * t - 4.0) * t + 2.0,
            Self::Bilinear if t < 1.0 => 1.0 - t,
            Self::Lanczos if t < 3.0 => sinc(t) * sinc(t / 3.0),
            Self::Box if t <= 0.5 => 1.0,
            _ => 0.0,
        }
    }
}

/// Where the result lies on an image whose size is no multiple of the factor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Align {
    /// At the first corner, as by MATLAB's imresize: what is more than the image lies behind its end.
    #[default]
    Corner,
    /// In the middle, as in the code of Chung et al. (2023), <https://arxiv.org/abs/2209.14687>: mirrored images give
    /// mirrored results.
    Centre,
}

/// The factor `p / q ≥ 1` between the size of an image and that of its measurement, a pair of integers.
///
/// A fraction, because sizes and the places of kernels must not depend on rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Factor {
    p: usize,
    q: usize,
}

/// The largest denominator that a decimal number is taken for.
const LARGEST_DENOMINATOR: usize = 100;

impl Factor {
    /// `p / q`
    ///
    /// # Errors
    /// [`Error::Config`] unless `p ≥ q ≥ 1`, and `p` and `q` are at most 2²⁰.
    pub fn new(p: usize, q: usize) -> Result<Self> {
        if q == 0 || p < q || p > 1 << 20 {
            let reason = format!("factor is {p}/{q}, expected a fraction of at least 1 and numbers of at most 1048576");
            return Err(Error::config("downsample", reason));
        }
        Ok(Self { p, q })
    }

    /// An integer, a decimal number near a fraction with a small denominator, or a fraction as text.
    fn read(value: &toml::Value) -> Result<Self> {
        let refused = || {
            let allowed = format!(
                "expected an integer, a text as \"3/2\", or a number p/q with q of at most {LARGEST_DENOMINATOR}"
            );
            Error::config("downsample", format!("factor is {value}, {allowed}"))
        };
        match value {
            toml::Value::Integer(integer) => Self::new(usize::try_from(*integer).map_err(|_| refused())?, 1),
            toml::Value::Float(number) if *number >= 1.0 && *number <= f64::from(1 << 20) => {
                let near = |q: &usize| {
                    let p = number * *q as f64;
                    (p - p.round()).abs() <= 1e-12 * p
                };
                let q = (1..=LARGEST_DENOMINATOR).find(near).ok_or_else(refused)?;
                Self::new((number * q as f64).round() as usize, q)
            }
            toml::Value::String(text) => {
                let (p, q) = text.split_once('/').unwrap_or((text, "1"));
                match (p.trim().parse(), q.trim().parse()) {
                    (Ok(p), Ok(q)) => Self::new(p, q),
                    _ => Err(refused()),
                }
            }
            _ => Err(refused()),
        }
    }

    /// `⌈size / factor⌉`
    fn shrink(self, size: usize) -> usize {
        (size * self.q).div_ceil(self.p)
    }

    /// The largest size of at most `factor · size`, which shrinks to `size`.
    fn grow(self, size: usize) -> usize {
        size * self.p / self.q
    }

    /// The matrix that resizes a line of `size` pixels; see [`weights`].
    fn matrix(self, size: usize, kernel: ResizeKernel, antialias: bool, align: Align) -> Sparse {
        let (p, q) = (self.p as i64, self.q as i64);
        let overhang = match align {
            Align::Corner => 0,
            Align::Centre => self.shrink(size) as i64 * p - size as i64 * q,
        };
        let row = |i: usize| weights(kernel, antialias, (p, q), overhang, i as i64, size).collect();
        Sparse::new(size, (0..self.shrink(size)).map(row))
    }
}

/// Pixels and weights of the line of `size` pixels that pixel `i` of a line `p / q` times as short is made of.
///
/// `k((u − j) / w)` of the pixels `j`, its sum made 1, with the place `u = (i + ½) p/q − ½` of pixel `i` in the line and the
/// width `w` of the kernel: `p/q` if antialiased and above 1, else 1. Pixels beyond the border are mirrored, the first and
/// the last pixel repeated, as by MATLAB's imresize. `overhang` says how far the result begins before the line, in units of
/// 1/(2q) of a pixel, so that all places are integers.
fn weights(
    kernel: ResizeKernel,
    antialias: bool,
    (p, q): (i64, i64),
    overhang: i64,
    i: i64,
    size: usize,
) -> impl Iterator<Item = (usize, f64)> {
    let pixel = 2 * q;
    let weights: Vec<(i64, f64)> = match (kernel, antialias) {
        (ResizeKernel::Box, true) => {
            let (from, to) = (2 * i * p - overhang, 2 * (i + 1) * p - overhang);
            let overlap = |j: i64| ((j + 1) * pixel).min(to) - (j * pixel).max(from);
            (from.div_euclid(pixel)..=(to - 1).div_euclid(pixel)).map(|j| (j, overlap(j) as f64)).collect()
        }
        (ResizeKernel::Box, false) => vec![(((2 * i + 1) * p - overhang).div_euclid(pixel), 1.0)],
        _ => {
            let width = if antialias && p > q { p as f64 / q as f64 } else { 1.0 };
            let centre = ((2 * i + 1) * p - q - overhang) as f64 / pixel as f64;
            let radius = kernel.radius() * width;
            let pixels = (centre - radius).ceil() as i64..=(centre + radius).floor() as i64;
            pixels.map(|j| (j, kernel.at((centre - j as f64) / width))).collect()
        }
    };
    let sum: f64 = weights.iter().map(|(_, weight)| weight).sum();
    weights.into_iter().filter_map(move |(j, weight)| Some((Padding::Symmetric.pixel(j, size)?, weight / sum)))
}

/// Down-sampling as MATLAB's imresize does it: `y = W₁ x W₂ᵀ` with a kernel made as wide as the factor.
///
/// Sizes are `⌈size / factor⌉`; pixels beyond the border are mirrored.
#[derive(Clone, Debug)]
pub struct Resize {
    map: Separable,
    /// No singular value was set to 0.
    is_whole: bool,
}

impl Resize {
    /// For images of the site's height and width, any number of channels.
    ///
    /// Without `antialias` the kernel keeps its width, and high frequencies fold. Singular values of `W₁` and `W₂` below
    /// `cutoff` are set to 0 in the operator itself, as by Kawar et al. (2022), <https://arxiv.org/abs/2201.11793>.
    ///
    /// # Errors
    /// [`Error::Config`] unless the factor is at most the image's smaller side, and `cutoff` is finite, at least 0 and below
    /// the largest singular value.
    pub fn new(
        factor: Factor,
        kernel: ResizeKernel,
        antialias: bool,
        align: Align,
        cutoff: f64,
        site: Site<'_>,
    ) -> Result<Self> {
        let (_, height, width) = site.image;
        let Factor { p, q } = factor;
        if p > q * height.min(width) {
            let reason =
                format!("factor is {p}/{q}, expected 1 to {} for an image of {width}x{height}", height.min(width));
            return Err(Error::config("downsample", reason));
        }
        let matrix = |size| factor.matrix(size, kernel, antialias, align);
        Ok(Self {
            map: Separable::new("downsample", matrix(height), matrix(width), cutoff, site)?,
            is_whole: cutoff == 0.0,
        })
    }

    /// The pixels `from` of the site's image, rows and columns, as the pixels `to` of an image of `size`, height and width,
    /// larger or smaller; what is around `from` is not looked at, and around `to` there are zeros. Antialiased where it
    /// gets smaller.
    ///
    /// # Errors
    /// [`Error::Config`] unless both are rows and columns of their images, and at least one of each.
    pub fn between(
        from: (Range<usize>, Range<usize>),
        to: (Range<usize>, Range<usize>),
        size: (usize, usize),
        kernel: ResizeKernel,
        site: Site<'_>,
    ) -> Result<Self> {
        let (_, height, width) = site.image;
        let line = |from: Range<usize>, columns: usize, to: Range<usize>, rows: usize| {
            if from.is_empty() || to.is_empty() || from.end > columns || to.end > rows {
                let reason = format!("pixels {from:?} of {columns} as {to:?} of {rows}, expected some that are there");
                return Err(Error::config("downsample", reason));
            }
            let factor = (from.len() as i64, to.len() as i64);
            let row = |i: usize| match to.contains(&i) {
                true => weights(kernel, true, factor, 0, (i - to.start) as i64, from.len())
                    .map(|(j, weight)| (from.start + j, weight))
                    .collect(),
                false => Vec::new(),
            };
            Ok(Sparse::new(columns, (0..rows).map(row)))
        };
        let is_whole = to == (0..size.0, 0..size.1);
        let vertical = line(from.0, height, to.0, size.0)?;
        let horizontal = line(from.1, width, to.1, size.1)?;
        Ok(Self { map: Separable::new("downsample", vertical, horizontal, 0.0, site)?, is_whole })
    }
}

impl ForwardOperator for Resize {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.map.forward(x)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for Resize {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        self.map.adjoint(y)
    }

    fn reaches_everything(&self) -> bool {
        self.is_whole
    }

    /// Found when first asked for, by decompositions of `W₁` and `W₂`.
    fn as_spectral(&self) -> Option<&dyn SpectralOperator> {
        self.map.as_spectral()
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Size of the image by that of the measurement: an integer, a fraction as text, or a number near one.
    factor: toml::Value,
    /// Kernel of the resizing; default bicubic.
    #[serde(default)]
    kernel: ResizeKernel,
    /// Whether the kernel is as wide as the factor; default true.
    #[serde(default = "Config::antialias")]
    antialias: bool,
    /// Where the result lies if the size is no multiple of the factor; default corner.
    #[serde(default)]
    align: Align,
    /// Singular values of the two matrices below this are set to 0; default 0.
    #[serde(default)]
    cutoff: f64,
}

impl Config {
    fn antialias() -> bool {
        true
    }
}

/// `downsample`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "downsample",
    about: "Smaller picture as by MATLAB's imresize, antialiased",
    fields: &[
        (
            "factor",
            "size of the image by that of the measurement, at least 1: an integer, a fraction as \"3/2\", a number",
        ),
        ("kernel", "bicubic, bilinear, lanczos or box; default bicubic"),
        ("antialias", "whether the kernel is as wide as the factor; default true"),
        ("align", "corner or centre, where the result lies if the size is no multiple of the factor; default corner"),
        ("cutoff", "singular values of either matrix below this are set to 0, at least 0; default 0"),
    ],
    example: "factor = 2",
    build: BuildOperator::reshaping(
        |table, site| {
            let Config { factor, kernel, antialias, align, cutoff } = table.try_into()?;
            Ok(Box::new(Resize::new(Factor::read(&factor)?, kernel, antialias, align, cutoff, site)?))
        },
        |table, y, _| {
            let Config { factor, .. } = table.clone().try_into()?;
            let factor = Factor::read(&factor)?;
            match *y {
                [channels, height, width] => Ok((channels, factor.grow(height), factor.grow(width))),
                _ => Err(Error::config("downsample", format!("measurement is {y:?}, expected [C, H, W]"))),
            }
        },
    ),
};

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(usize, usize)> {
        let table: toml::Table = text.parse()?;
        Factor::read(&table["factor"]).map(|Factor { p, q }| (p, q))
    }

    #[test]
    fn factors_are_integers_fractions_and_numbers_near_fractions() {
        assert_eq!(read("factor = 4").unwrap(), (4, 1));
        assert_eq!(read("factor = '3/2'").unwrap(), (3, 2));
        assert_eq!(read("factor = ' 5 '").unwrap(), (5, 1));
        assert_eq!(read("factor = 2.0").unwrap(), (2, 1));
        assert_eq!(read("factor = 1.25").unwrap(), (5, 4));
        assert_eq!(read("factor = 1.3333333333333333").unwrap(), (4, 3));
        for refused in ["1.333", "'x'", "-2", "0.5", "'2/3'", "'1/0'", "true", "nan", "'9999999/1'", "1e300"] {
            let error = read(&format!("factor = {refused}")).unwrap_err().to_string();
            assert!(error.starts_with("downsample: factor is "), "{error}");
        }
    }

    #[test]
    fn sizes_grow_to_ones_that_shrink_back() {
        for (p, q) in [(1, 1), (2, 1), (4, 1), (3, 2), (7, 3), (101, 100), (13, 10)] {
            let factor = Factor::new(p, q).unwrap();
            for size in 1..200 {
                assert_eq!(factor.shrink(factor.grow(size)), size, "{size} times {p}/{q}");
            }
        }
    }
}
