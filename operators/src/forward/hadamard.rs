//! Compressed sensing with the Walsh–Hadamard transform.

use std::sync::Arc;

use candle_core::Tensor;
use rayon::prelude::*;
use serde::Deserialize;

use super::{BuildOperator, ForwardOperator, LinearOperator, SpectralOperator};
use crate::map::{self, Real, RowMap};
use crate::registry::{Entry, Site};
use crate::rng::permutation;
use crate::{Error, Result};

/// `y = S H x` for each channel: some coefficients of an orthonormal Walsh–Hadamard transform.
///
/// A matrix of Hadamard's kind in Sylvester's order, `H(i, j) = (−1)^{popcount(i & j)} / √n`, exists for powers of two. With
/// `n = H · W` such a power the pixels are taken line by line, as in DDRM. Any other `n` is split into the powers of two
/// of its binary expansion, the largest first; each block has its transform, and the pixels are put into a random order
/// first so that every block sees the whole photo. Either way `H` is orthonormal, `s` is 1 for the coefficients that are kept
/// and 0 for all others.
///
/// A measurement is `[B, C, m]`; the coefficients, the same in all channels, are in ascending order.
///
/// Kawar et al. (2022), <https://arxiv.org/abs/2201.11793>; blocks of a permuted image: Gan, Do and Tran (2008), Fast
/// compressive imaging using scrambled block Hadamard ensemble.
#[derive(Clone, Debug)]
pub struct CompressedSensing {
    transform: Arc<Walsh>,
    sensing: Arc<Sensing>,
    selection: Arc<Selection>,
    /// `[1, 1, H, W]`: 1 for the coefficients that are kept.
    singular_values: Tensor,
}

impl CompressedSensing {
    /// Keeps `⌊keep · H · W⌋` coefficients, at least one, drawn without replacement from `seed`.
    ///
    /// # Errors
    /// [`Error::Config`] unless `keep` is above 0 and at most 1 and there is a pixel.
    pub fn new(keep: f64, seed: u64, site: Site<'_>) -> Result<Self> {
        let (_, height, width) = site.image;
        let pixels = height * width;
        if !(keep > 0.0 && keep <= 1.0) {
            let reason = format!("keep is {keep}, expected a fraction above 0 and at most 1");
            return Err(Error::config("compressed_sensing", reason));
        }
        if pixels == 0 {
            let reason = format!("image is {width}x{height}, expected at least one pixel");
            return Err(Error::config("compressed_sensing", reason));
        }
        let count = ((keep * pixels as f64).floor() as usize).max(1);
        let mut kept = permutation(seed, pixels)?;
        kept.truncate(count);
        kept.sort_unstable();
        // Another stream than the one of the coefficients.
        let order = if pixels.is_power_of_two() { None } else { Some(permutation(!seed, pixels)?) };
        let mut ones = vec![0f32; pixels];
        kept.iter().for_each(|&k| ones[k as usize] = 1.0);
        let singular_values = Tensor::from_vec(ones, (1, 1, height, width), site.device)?;
        let transform = Arc::new(Walsh { height, width, order });
        let selection = Arc::new(Selection { height, width, kept });
        let sensing = Arc::new(Sensing { transform: transform.clone(), selection: selection.clone() });
        Ok(Self { transform, sensing, selection, singular_values })
    }
}

/// `√n H` in Sylvester's order, in place; the length is a power of two.
fn walsh<T: Real>(x: &mut [T]) {
    /// Values that stay in the first cache while all short steps are made.
    const TILE: usize = 4096;
    x.par_chunks_mut(TILE).for_each(short_steps);
    let mut half = TILE;
    while 2 * half < x.len() {
        // Two steps at once.
        x.chunks_mut(4 * half).for_each(|block| {
            let (lower, upper) = block.split_at_mut(2 * half);
            let ((a, b), (c, d)) = (lower.split_at_mut(half), upper.split_at_mut(half));
            let tiles = a.par_chunks_mut(TILE).zip(b.par_chunks_mut(TILE));
            let tiles = tiles.zip(c.par_chunks_mut(TILE).zip(d.par_chunks_mut(TILE)));
            tiles.for_each(|((a, b), (c, d))| two_steps(a, b, c, d));
        });
        half *= 4;
    }
    if half < x.len() {
        let (a, b) = x.split_at_mut(half);
        a.par_chunks_mut(TILE).zip(b.par_chunks_mut(TILE)).for_each(|(a, b)| one_step(a, b));
    }
}

fn short_steps<T: Real>(x: &mut [T]) {
    let mut half = 1;
    if x.len() >= 8 {
        for block in x.chunks_exact_mut(8) {
            if let Ok(block) = <&mut [T; 8]>::try_from(block) {
                *block = eight(*block);
            }
        }
        half = 8;
    }
    while 2 * half < x.len() {
        for block in x.chunks_exact_mut(4 * half) {
            let (lower, upper) = block.split_at_mut(2 * half);
            let ((a, b), (c, d)) = (lower.split_at_mut(half), upper.split_at_mut(half));
            two_steps(a, b, c, d);
        }
        half *= 4;
    }
    if half < x.len() {
        let (a, b) = x.split_at_mut(half);
        one_step(a, b);
    }
}

#[inline]
fn eight<T: Real>(x: [T; 8]) -> [T; 8] {
    let [a, b, c, d, e, f, g, h] = x;
    let (a, b, c, d, e, f, g, h) = (a + e, b + f, c + g, d + h, a - e, b - f, c - g, d - h);
    let (a, b, c, d, e, f, g, h) = (a + c, b + d, a - c, b - d, e + g, f + h, e - g, f - h);
    [a + b, a - b, c + d, c - d, e + f, e - f, g + h, g - h]
}

#[inline]
fn one_step<T: Real>(a: &mut [T], b: &mut [T]) {
    a.iter_mut().zip(b).for_each(|(a, b)| (*a, *b) = (*a + *b, *a - *b));
}

#[inline]
fn two_steps<T: Real>(a: &mut [T], b: &mut [T], c: &mut [T], d: &mut [T]) {
    for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
        let (sum_ab, difference_ab) = (*a + *b, *a - *b);
        let (sum_cd, difference_cd) = (*c + *d, *c - *d);
        (*a, *b) = (sum_ab + sum_cd, difference_ab + difference_cd);
        (*c, *d) = (sum_ab - sum_cd, difference_ab - difference_cd);
    }
}

/// `H` of every plane.
#[derive(Debug)]
struct Walsh {
    height: usize,
    width: usize,
    /// The pixel that comes first, second, …; line by line if there is none.
    order: Option<Vec<u32>>,
}

impl Walsh {
    fn check(&self, what: &str, row: &[usize]) -> Result<()> {
        match *row {
            [_, height, width] if (height, width) == (self.height, self.width) => Ok(()),
            _ => Err(Error::Shape {
                what: what.into(),
                got: row.to_vec(),
                expected: format!("[_, {}, {}] in every row", self.height, self.width),
            }),
        }
    }

    /// All blocks, in place.
    fn blocks<T: Real>(&self, mut x: &mut [T]) {
        while !x.is_empty() {
            let length = 1 << x.len().ilog2();
            let (block, rest) = x.split_at_mut(length);
            walsh(block);
            let norm = T::of(1.0 / (length as f64).sqrt());
            block.iter_mut().for_each(|value| *value *= norm);
            x = rest;
        }
    }

    fn coefficients<T: Real>(&self, x: &[T], y: &mut [T]) {
        match &self.order {
            None => y.copy_from_slice(x),
            Some(order) => y.iter_mut().zip(order).for_each(|(value, &i)| *value = x[i as usize]),
        }
        self.blocks(y);
    }

    /// Destroys the coefficients.
    fn pixels<T: Real>(&self, y: &mut [T], x: &mut [T]) {
        self.blocks(y);
        match &self.order {
            None => x.copy_from_slice(y),
            Some(order) => y.iter().zip(order).for_each(|(&value, &i)| x[i as usize] = value),
        }
    }
}

impl RowMap for Walsh {
    const NAME: &'static str = "Walsh–Hadamard transform";

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        self.check("image for compressed_sensing", input)?;
        Ok(input.to_vec())
    }

    fn input_shape(&self, output: &[usize]) -> Result<Vec<usize>> {
        self.check("spectrum of compressed_sensing", output)?;
        Ok(output.to_vec())
    }

    fn forward<T: Real>(&self, _: &[usize], x: &[T], y: &mut [T]) {
        let plane = self.height * self.width;
        y.par_chunks_mut(plane).zip(x.par_chunks(plane)).for_each(|(y, x)| self.coefficients(x, y));
    }

    fn transpose<T: Real>(&self, _: &[usize], y: &[T], x: &mut [T]) {
        let plane = self.height * self.width;
        x.par_chunks_mut(plane).zip(y.par_chunks(plane)).for_each(|(x, y)| self.pixels(&mut y.to_vec(), x));
    }
}

/// `S`: the coefficients that are kept, in ascending order.
#[derive(Debug)]
struct Selection {
    height: usize,
    width: usize,
    kept: Vec<u32>,
}

impl Selection {
    fn check_measurement(&self, row: &[usize]) -> Result<usize> {
        match *row {
            [channels, count] if count == self.kept.len() => Ok(channels),
            _ => Err(Error::Shape {
                what: "measurement of compressed_sensing".into(),
                got: row.to_vec(),
                expected: format!("[_, {}] in every row", self.kept.len()),
            }),
        }
    }

    fn select<T: Real>(&self, spectrum: &[T], y: &mut [T]) {
        y.iter_mut().zip(&self.kept).for_each(|(value, &k)| *value = spectrum[k as usize]);
    }

    fn spread<T: Real>(&self, y: &[T], spectrum: &mut [T]) {
        y.iter().zip(&self.kept).for_each(|(&value, &k)| spectrum[k as usize] = value);
    }
}

impl RowMap for Selection {
    const NAME: &'static str = "selection of coefficients";

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        match *input {
            [channels, height, width] if (height, width) == (self.height, self.width) => {
                Ok(vec![channels, self.kept.len()])
            }
            _ => Err(Error::Shape {
                what: "spectrum of compressed_sensing".into(),
                got: input.to_vec(),
                expected: format!("[_, {}, {}] in every row", self.height, self.width),
            }),
        }
    }

    fn input_shape(&self, output: &[usize]) -> Result<Vec<usize>> {
        Ok(vec![self.check_measurement(output)?, self.height, self.width])
    }

    fn forward<T: Real>(&self, _: &[usize], x: &[T], y: &mut [T]) {
        let planes = x.par_chunks(self.height * self.width);
        y.par_chunks_mut(self.kept.len()).zip(planes).for_each(|(y, x)| self.select(x, y));
    }

    fn transpose<T: Real>(&self, _: &[usize], y: &[T], x: &mut [T]) {
        let planes = x.par_chunks_mut(self.height * self.width);
        planes.zip(y.par_chunks(self.kept.len())).for_each(|(x, y)| self.spread(y, x));
    }
}

/// `S H`.
#[derive(Debug)]
struct Sensing {
    transform: Arc<Walsh>,
    selection: Arc<Selection>,
}

impl RowMap for Sensing {
    const NAME: &'static str = "compressed sensing";

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        self.transform.check("image for compressed_sensing", input)?;
        Ok(vec![input[0], self.selection.kept.len()])
    }

    fn input_shape(&self, output: &[usize]) -> Result<Vec<usize>> {
        self.selection.input_shape(output)
    }

    fn forward<T: Real>(&self, _: &[usize], x: &[T], y: &mut [T]) {
        let plane = self.transform.height * self.transform.width;
        y.par_chunks_mut(self.selection.kept.len()).zip(x.par_chunks(plane)).for_each(|(y, x)| {
            let mut spectrum = vec![T::zero(); plane];
            self.transform.coefficients(x, &mut spectrum);
            self.selection.select(&spectrum, y);
        });
    }

    fn transpose<T: Real>(&self, _: &[usize], y: &[T], x: &mut [T]) {
        let plane = self.transform.height * self.transform.width;
        x.par_chunks_mut(plane).zip(y.par_chunks(self.selection.kept.len())).for_each(|(x, y)| {
            if self.transform.order.is_none() {
                // x arrives as zeros.
                self.selection.spread(y, x);
                self.transform.blocks(x);
                return;
            }
            let mut spectrum = vec![T::zero(); plane];
            self.selection.spread(y, &mut spectrum);
            self.transform.pixels(&mut spectrum, x);
        });
    }
}

impl ForwardOperator for CompressedSensing {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        map::apply(&self.sensing, x)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for CompressedSensing {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        map::transpose(&self.sensing, y)
    }

    fn as_spectral(&self) -> Option<&dyn SpectralOperator> {
        Some(self)
    }
}

/// `Vᵀ = H`, `U = I`, `s` is 1 for what is kept.
impl SpectralOperator for CompressedSensing {
    fn singular_values(&self) -> &Tensor {
        &self.singular_values
    }

    fn image_to_spectrum(&self, x: &Tensor) -> Result<Tensor> {
        map::apply(&self.transform, x)
    }

    fn spectrum_to_image(&self, spectrum: &Tensor) -> Result<Tensor> {
        map::transpose(&self.transform, spectrum)
    }

    fn measurement_to_spectrum(&self, y: &Tensor) -> Result<Tensor> {
        map::transpose(&self.selection, y)
    }

    fn pseudo_inverse(&self, y: &Tensor) -> Result<Tensor> {
        self.adjoint(y)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Fraction of the coefficients, above 0 and at most 1.
    #[serde(default = "Config::keep")]
    keep: f64,
    /// Seed of the coefficients.
    #[serde(default)]
    seed: u64,
}

impl Config {
    fn keep() -> f64 {
        0.25
    }
}

/// `compressed_sensing`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "compressed_sensing",
    about: "Random coefficients of the Walsh-Hadamard transform of each channel",
    fields: &[
        ("keep", "fraction of the coefficients, above 0 and at most 1; default 0.25"),
        ("seed", "seed of the coefficients; default 0"),
    ],
    example: "keep = 0.4\nseed = 1",
    build: BuildOperator::reshaping(
        |table, site| {
            let Config { keep, seed } = table.try_into()?;
            Ok(Box::new(CompressedSensing::new(keep, seed, site)?))
        },
        |_, y, _| {
            let reason = format!("measurement is {y:?}, which does not tell height and width of the image");
            Err(Error::config("compressed_sensing", reason))
        },
    ),
};
