//! Pictures that were stored as JPEG.

use std::sync::Arc;

use candle_core::Tensor;
use rayon::prelude::*;
use serde::Deserialize;

use self::colour::Colour;
use self::tables::{Block, Cosine, SIDE, scaled};
use super::grayscale::shape;
use super::quantize::{soft_round, soft_round_slope};
use super::{BuildOperator, ForwardOperator};
use crate::function::{RowFunction, apply, pull};
use crate::map::Real;
use crate::registry::Entry;
use crate::{Error, Result};

mod colour;
mod integer;
mod tables;

/// `y` is `x` after coding and decoding by baseline JPEG.
///
/// Levels `127.5 (x + 1)` become luma and two chroma components (ITU-T T.871, JFIF); with `420` the chroma is the mean of
/// 2 × 2 pixels and comes back by triangle interpolation, weights 3/4 and 1/4. Blocks of 8 × 8 samples, with edges
/// repeated where they are incomplete, go through the cosine transform; each coefficient is rounded to a multiple of its
/// step in the tables of ITU-T T.81, Annex K, in the Independent JPEG Group's scale of quality. Images of one channel
/// are luma alone.
///
/// [`measure`](ForwardOperator::measure) rounds whatever a codec rounds: samples, components, coefficients, decoded
/// levels, which are clipped to 0 to 255. [`forward`](ForwardOperator::forward) rounds coefficients only, and by
/// `⌊u⌉ + (u − ⌊u⌉)³`, which has a useful slope; it clips nothing.
///
/// Shin and Song (2017), JPEG-resistant adversarial images, workshop on machine learning and computer security of NIPS.
#[derive(Clone, Debug)]
pub struct Jpeg {
    smooth: Arc<Codec>,
    exact: Arc<Codec>,
}

/// How densely chroma is sampled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subsampling {
    /// At every pixel, `444`.
    Full,
    /// Once for 2 × 2 pixels, `420`.
    #[default]
    Half,
}

impl Jpeg {
    /// With `quality` as the Independent JPEG Group counts it.
    ///
    /// # Errors
    /// [`Error::Config`] unless `quality` is from 1 to 100.
    pub fn new(quality: u32, subsampling: Subsampling) -> Result<Self> {
        if !(1..=100).contains(&quality) {
            return Err(Error::config("jpeg", format!("quality is {quality}, expected 1 to 100")));
        }
        let steps = scaled(quality);
        let codec = |exact| Arc::new(Codec { steps, subsampling, exact });
        Ok(Self { smooth: codec(false), exact: codec(true) })
    }
}

#[derive(Debug)]
struct Codec {
    /// Of coefficients: for luma and for chroma.
    steps: [Block<i32>; 2],
    subsampling: Subsampling,
    /// Whether to round as a codec does.
    exact: bool,
}

/// Samples of one component, level-shifted so that the middle is 0; whole blocks.
struct Plane<T> {
    /// Of the samples that belong to the image.
    height: usize,
    /// Of the whole plane, a multiple of 8.
    stride: usize,
    values: Vec<T>,
}

impl<T: Real> Plane<T> {
    fn new(height: usize, width: usize) -> Self {
        let stride = width.next_multiple_of(SIDE);
        Self { height, stride, values: vec![T::zero(); stride * height.next_multiple_of(SIDE)] }
    }

    fn row(&self, row: usize) -> &[T] {
        &self.values[row * self.stride..][..self.stride]
    }

    /// Repeats the last row of the image below it.
    fn repeat_bottom(&mut self) {
        let (image, below) = self.values.split_at_mut(self.height * self.stride);
        let last = &image[image.len() - self.stride..];
        below.chunks_mut(self.stride).for_each(|row| row.copy_from_slice(last));
    }

    /// The transpose: adds what lies below the image to its last row.
    fn fold_bottom(&mut self) {
        let (image, below) = self.values.split_at_mut(self.height * self.stride);
        let start = image.len() - self.stride;
        for row in below.chunks(self.stride) {
            image[start..].iter_mut().zip(row).for_each(|(last, &value)| *last += value);
        }
    }

    /// Replaces every block by `change(block)`; `other` is the same block of another plane.
    fn change_blocks(&mut self, other: &Self, change: impl Fn(&Block<T>, &Block<T>) -> Block<T> + Sync) {
        let (stride, strip) = (self.stride, self.stride * SIDE);
        self.values.par_chunks_mut(strip).zip(other.values.par_chunks(strip)).for_each(|(strip, other)| {
            for left in (0..stride).step_by(SIDE) {
                let block = change(&block(strip, stride, left), &block(other, stride, left));
                for (row, values) in strip.chunks_mut(stride).zip(&block) {
                    row[left..left + SIDE].copy_from_slice(values);
                }
            }
        });
    }

    /// Replaces every block by `change(block)`.
    fn map_blocks(&mut self, change: impl Fn(&Block<T>) -> Block<T> + Sync) {
        let (stride, strip) = (self.stride, self.stride * SIDE);
        self.values.par_chunks_mut(strip).for_each(|strip| {
            for left in (0..stride).step_by(SIDE) {
                let block = change(&block(strip, stride, left));
                for (row, values) in strip.chunks_mut(stride).zip(&block) {
                    row[left..left + SIDE].copy_from_slice(values);
                }
            }
        });
    }
}

#[inline]
fn block<T: Real>(strip: &[T], stride: usize, left: usize) -> Block<T> {
    let mut block = [[T::zero(); SIDE]; SIDE];
    for (block, row) in block.iter_mut().zip(strip.chunks(stride)) {
        block.copy_from_slice(&row[left..left + SIDE]);
    }
    block
}

/// The two rows (or columns) of coarse chroma at a fine one: the nearer, with weight 3/4, and the other, with 1/4. At
/// the border they are the same.
fn neighbours(fine: usize, coarse: usize) -> (usize, usize) {
    let near = fine / 2;
    let far = if fine.is_multiple_of(2) { near.saturating_sub(1) } else { (near + 1).min(coarse - 1) };
    (near, far)
}

/// The fine rows (or columns) that a coarse one reaches, each with its weight in quarters.
fn reached(coarse: usize, count: usize, fine: usize) -> impl Iterator<Item = (usize, f64)> {
    ((2 * coarse).saturating_sub(1)..(2 * coarse + 3).min(fine)).map(move |at| {
        let (near, far) = neighbours(at, count);
        (at, 3.0 * f64::from(u8::from(near == coarse)) + f64::from(u8::from(far == coarse)))
    })
}

impl Codec {
    /// Components of an image, edges repeated.
    fn split<T: Real>(&self, shape: &[usize], x: &[T]) -> Vec<Plane<T>> {
        let (channels, height, width) = (shape[0], shape[1], shape[2]);
        let colour = Colour { exact: self.exact };
        let mut luma = Plane::new(height, width);
        let mut planes = Vec::new();
        let stride = luma.stride;
        if let ([red, green, blue], 3) = (thirds(x), channels) {
            let factor = self.factor();
            let (rows, columns) = (height.div_ceil(factor), width.div_ceil(factor));
            let (mut cb, mut cr) = (Plane::new(rows, columns), Plane::new(rows, columns));
            let coarse = cb.stride;
            let lines = luma.values.par_chunks_mut(stride * factor).zip(cb.values.par_chunks_mut(coarse));
            lines.zip(cr.values.par_chunks_mut(coarse)).take(rows).enumerate().for_each(|(line, ((luma, cb), cr))| {
                // Fine chroma of one or two rows, as wide as the coarse plane asks for.
                let mut fine = [vec![T::zero(); coarse * factor * factor], vec![T::zero(); coarse * factor * factor]];
                let [fine_cb, fine_cr] = &mut fine;
                let parts = fine_cb.chunks_mut(coarse * factor).zip(fine_cr.chunks_mut(coarse * factor));
                for (part, ((fine_cb, fine_cr), luma)) in parts.zip(luma.chunks_mut(stride)).enumerate() {
                    let row = (line * factor + part).min(height - 1);
                    let [red, green, blue] = [red, green, blue].map(|plane| &plane[row * width..][..width]);
                    colour.components([red, green, blue], [luma, fine_cb, fine_cr]);
                    repeat_right(luma, width);
                    repeat_right(fine_cb, width);
                    repeat_right(fine_cr, width);
                }
                for (coarse, fine) in [(cb, &fine[0]), (cr, &fine[1])] {
                    match self.subsampling {
                        Subsampling::Full => coarse.copy_from_slice(fine),
                        Subsampling::Half => self.halve(fine, coarse),
                    }
                }
            });
            cb.repeat_bottom();
            cr.repeat_bottom();
            planes.extend([cb, cr]);
        } else {
            luma.values.par_chunks_mut(stride).zip(x.par_chunks(width)).for_each(|(luma, x)| {
                colour.grey(x, luma);
                repeat_right(luma, width);
            });
        }
        luma.repeat_bottom();
        planes.insert(0, luma);
        planes
    }

    /// Means of 2 × 2 samples; `fine` holds two rows.
    fn halve<T: Real>(&self, fine: &[T], coarse: &mut [T]) {
        let (upper, lower) = fine.split_at(fine.len() / 2);
        let quads = upper.chunks_exact(2).zip(lower.chunks_exact(2));
        if self.exact {
            // Halves are rounded up and down in turn, so that the mean of the image stays.
            for ((coarse, (a, b)), bias) in coarse.iter_mut().zip(quads).zip([1.0, 2.0].into_iter().cycle()) {
                *coarse = ((a[0] + a[1] + b[0] + b[1] + T::of(bias)) * T::of(0.25)).floor();
            }
        } else {
            for (coarse, (a, b)) in coarse.iter_mut().zip(quads) {
                *coarse = (a[0] + a[1] + b[0] + b[1]) * T::of(0.25);
            }
        }
    }

    /// Pixels of a row of chroma, interpolated from the coarse plane.
    fn interpolate<T: Real>(&self, plane: &Plane<T>, row: usize, width: usize, blend: &mut [T], fine: &mut [T]) {
        let coarse = width.div_ceil(2);
        let (near, far) = neighbours(row, plane.height);
        for ((blend, &near), &far) in blend.iter_mut().zip(plane.row(near)).zip(plane.row(far)) {
            *blend = T::of(3.0) * near + far;
        }
        let blend = &blend[..coarse];
        let before = std::iter::once(&blend[0]).chain(blend);
        let after = blend[1..].iter().chain(std::iter::once(&blend[coarse - 1]));
        let sixteenth = T::of(1.0 / 16.0);
        for (((fine, &here), &before), &after) in fine.chunks_mut(2).zip(blend).zip(before).zip(after) {
            let pair = [T::of(3.0) * here + before, T::of(3.0) * here + after];
            for ((fine, sum), bias) in fine.iter_mut().zip(pair).zip([8.0, 7.0]) {
                *fine = if self.exact { ((sum + T::of(bias)) * sixteenth).floor() } else { sum * sixteenth };
            }
        }
    }

    /// The image of components.
    fn join<T: Real>(&self, shape: &[usize], planes: &[Plane<T>], y: &mut [T]) {
        let (height, width) = (shape[1], shape[2]);
        let colour = Colour { exact: self.exact };
        let [luma, cb, cr] = planes else {
            let rows = y.par_chunks_mut(width).enumerate();
            return rows.for_each(|(row, y)| colour.level(&planes[0].row(row)[..width], y));
        };
        let (red, rest) = y.split_at_mut(height * width);
        let (green, blue) = rest.split_at_mut(height * width);
        let rows = red.par_chunks_mut(width).zip(green.par_chunks_mut(width)).zip(blue.par_chunks_mut(width));
        rows.enumerate().with_min_len(8).for_each_init(
            || [vec![T::zero(); cb.stride], vec![T::zero(); width], vec![T::zero(); width]],
            |[blend, fine_cb, fine_cr], (row, ((red, green), blue))| {
                let chroma = match self.subsampling {
                    Subsampling::Full => [&cb.row(row)[..width], &cr.row(row)[..width]],
                    Subsampling::Half => {
                        self.interpolate(cb, row, width, blend, fine_cb);
                        self.interpolate(cr, row, width, blend, fine_cr);
                        [&**fine_cb, &**fine_cr]
                    }
                };
                colour.levels([&luma.row(row)[..width], chroma[0], chroma[1]], [red, green, blue]);
            },
        );
    }

    /// The transpose of the smooth [`join`](Self::join).
    fn join_transposed<T: Real>(&self, shape: &[usize], v: &[T]) -> Vec<Plane<T>> {
        let (channels, height, width) = (shape[0], shape[1], shape[2]);
        let colour = Colour { exact: false };
        let mut luma = Plane::new(height, width);
        let stride = luma.stride;
        let lines = luma.values.par_chunks_mut(stride).take(height).enumerate();
        if channels == 1 {
            lines.for_each(|(row, luma)| colour.level_transposed(&v[row * width..][..width], luma));
            return vec![luma];
        }
        let rows = |row: usize| thirds(v).map(|plane| &plane[row * width..][..width]);
        lines.for_each(|(row, luma)| colour.luma_transposed(rows(row), luma));
        let factor = self.factor();
        let (coarse_rows, coarse_columns) = (height.div_ceil(factor), width.div_ceil(factor));
        let (mut cb, mut cr) = (Plane::new(coarse_rows, coarse_columns), Plane::new(coarse_rows, coarse_columns));
        let coarse = cb.stride;
        let lines = cb.values.par_chunks_mut(coarse).zip(cr.values.par_chunks_mut(coarse)).take(coarse_rows);
        lines.enumerate().with_min_len(8).for_each_init(
            || [(); 5].map(|()| vec![T::zero(); width]),
            |[red, green, blue, fine_cb, fine_cr], (row, (cb, cr))| match self.subsampling {
                Subsampling::Full => colour.chroma_transposed(rows(row), [cb, cr]),
                Subsampling::Half => {
                    // Rows first, while there are three colours, then columns of the two components.
                    let mut sums = [red, green, blue];
                    sums.iter_mut().for_each(|sum| sum.fill(T::zero()));
                    for (fine, weight) in reached(row, coarse_rows, height) {
                        let weight = T::of(weight / 16.0);
                        for (sum, row) in sums.iter_mut().zip(rows(fine)) {
                            sum.iter_mut().zip(row).for_each(|(sum, &v)| *sum += weight * v);
                        }
                    }
                    colour.chroma_transposed(sums.map(|sum| &**sum), [fine_cb, fine_cr]);
                    for (coarse, fine) in [(cb, &*fine_cb), (cr, &*fine_cr)] {
                        gather(fine, &mut coarse[..coarse_columns]);
                    }
                }
            },
        );
        vec![luma, cb, cr]
    }

    /// The transpose of the smooth [`split`](Self::split).
    fn split_transposed<T: Real>(&self, shape: &[usize], mut planes: Vec<Plane<T>>, u: &mut [T]) {
        let (height, width) = (shape[1], shape[2]);
        let colour = Colour { exact: false };
        planes.iter_mut().for_each(Plane::fold_bottom);
        let [luma, cb, cr] = &*planes else {
            let luma = &planes[0];
            return u.par_chunks_mut(width).enumerate().for_each_init(
                || vec![T::zero(); width],
                |fine, (row, u)| {
                    fold_right(luma.row(row), fine, 1);
                    colour.grey_transposed(fine, u);
                },
            );
        };
        let (red, rest) = u.split_at_mut(height * width);
        let (green, blue) = rest.split_at_mut(height * width);
        let rows = red.par_chunks_mut(width).zip(green.par_chunks_mut(width)).zip(blue.par_chunks_mut(width));
        let factor = self.factor();
        rows.enumerate().with_min_len(8).for_each_init(
            || [(); 3].map(|()| vec![T::zero(); width]),
            |[fine_luma, fine_cb, fine_cr], (row, ((red, green), blue))| {
                fold_right(luma.row(row), fine_luma, 1);
                // The last row of an odd height stands for the missing one below it as well.
                let copies = if factor == 2 && row + 1 == height && height % 2 == 1 { 2.0 } else { 1.0 };
                let weight = T::of(copies / (factor * factor) as f64);
                for (plane, fine) in [(cb, &mut *fine_cb), (cr, &mut *fine_cr)] {
                    fold_right(plane.row(row / factor), fine, factor);
                    fine.iter_mut().for_each(|value| *value *= weight);
                }
                colour.components_transposed([fine_luma, fine_cb, fine_cr], [red, green, blue]);
            },
        );
    }

    fn factor(&self) -> usize {
        match self.subsampling {
            Subsampling::Full => 1,
            Subsampling::Half => 2,
        }
    }

    /// Steps of the component with this index, and what one divided by them is.
    fn steps<T: Real>(&self, component: usize) -> [Block<T>; 2] {
        let steps = self.steps[component.min(1)].map(|row| row.map(f64::from));
        [steps.map(|row| row.map(T::of)), steps.map(|row| row.map(|step| T::of(1.0 / step)))]
    }
}

/// The planes of red, green and blue.
fn thirds<T>(x: &[T]) -> [&[T]; 3] {
    let plane = x.len() / 3;
    [&x[..plane], &x[plane..2 * plane], &x[2 * plane..3 * plane]]
}

/// Repeats the last of `width` samples up to the end.
fn repeat_right<T: Copy>(row: &mut [T], width: usize) {
    let (image, beyond) = row.split_at_mut(width);
    beyond.fill(image[width - 1]);
}

/// The transpose, for samples that stand for `factor` pixels each.
fn fold_right<T: Real>(row: &[T], pixels: &mut [T], factor: usize) {
    for (pixels, &value) in pixels.chunks_mut(factor).zip(row) {
        pixels.fill(value);
    }
    let width = pixels.len();
    let beyond = (width..row.len() * factor).fold(T::zero(), |sum, column| sum + row[column / factor]);
    pixels[width - 1] += beyond;
}

/// The transpose of the interpolation of columns; sixteenths are taken with the rows.
fn gather<T: Real>(fine: &[T], coarse: &mut [T]) {
    let count = coarse.len();
    let edge = |column: usize| {
        reached(column, count, fine.len()).fold(T::zero(), |sum, (at, weight)| sum + T::of(weight) * fine[at])
    };
    for column in [0, count - 1, count.saturating_sub(2)] {
        coarse[column] = edge(column);
    }
    if count > 3 {
        // Away from the borders the weights are 1, 3, 3, 1.
        for (coarse, fine) in coarse[1..count - 2].iter_mut().zip(fine[1..].windows(4).step_by(2)) {
            *coarse = fine[0] + fine[3] + T::of(3.0) * (fine[1] + fine[2]);
        }
    }
}

/// Each number of a block with its partner.
#[inline]
fn zip_blocks<T: Real>(a: &Block<T>, b: &Block<T>, f: impl Fn(T, T) -> T) -> Block<T> {
    let mut result = *a;
    for (a, b) in result.iter_mut().zip(b) {
        a.iter_mut().zip(b).for_each(|(a, &b)| *a = f(*a, b));
    }
    result
}

impl RowFunction for Codec {
    const NAME: &'static str = "jpeg";

    fn check(&self, x: &Tensor) -> Result<()> {
        match *x.dims() {
            [_, 1 | 3, height, width] if height > 0 && width > 0 => Ok(()),
            ref dims => Err(shape("image for jpeg", dims, "[_, 1 or 3, _, _]")),
        }
    }

    fn value<T: Real>(&self, shape: &[usize], x: &[T], y: &mut [T]) {
        let cosine = Cosine::new();
        let mut planes = self.split(shape, x);
        for (component, plane) in planes.iter_mut().enumerate() {
            let [steps, inverse] = self.steps(component);
            if self.exact {
                let steps = &self.steps[component.min(1)];
                plane.map_blocks(|block| {
                    let whole = block.map(|row| row.map(|value| value.to_i32().unwrap_or(0)));
                    integer::code(&whole, steps).map(|row| row.map(|value| T::of(f64::from(value))))
                });
            } else {
                plane.map_blocks(|block| {
                    let soft =
                        zip_blocks(&cosine.analyse(block), &inverse, |value, inverse| soft_round(value * inverse));
                    cosine.synthesise(&zip_blocks(&soft, &steps, |value, step| value * step))
                });
            }
        }
        self.join(shape, &planes, y);
    }

    fn pull<T: Real>(&self, shape: &[usize], x: &[T], v: &[T], u: &mut [T]) {
        let cosine = Cosine::new();
        let mut gradient = self.join_transposed(shape, v);
        for (component, (gradient, plane)) in gradient.iter_mut().zip(self.split(shape, x)).enumerate() {
            let [_, inverse] = self.steps(component);
            gradient.change_blocks(&plane, |gradient, block| {
                // Division by the steps and multiplication with them cancel.
                let coefficients = zip_blocks(&cosine.analyse(block), &inverse, |value, inverse| value * inverse);
                let slope = |value, coefficient| value * soft_round_slope(coefficient);
                cosine.synthesise(&zip_blocks(&cosine.analyse(gradient), &coefficients, slope))
            });
        }
        self.split_transposed(shape, gradient, u);
    }
}

impl ForwardOperator for Jpeg {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        apply(&self.smooth, x)
    }

    fn vjp(&self, x: &Tensor, v: &Tensor) -> Result<Tensor> {
        pull(&self.smooth, x, v)
    }

    fn measure(&self, x: &Tensor) -> Result<Tensor> {
        apply(&self.exact, &x.detach())
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Quality from 1 to 100 as the Independent JPEG Group counts it.
    quality: u32,
    /// Density of chroma: `444` or `420`; default 420.
    #[serde(default)]
    subsampling: Named,
}

#[derive(Debug, Default, Deserialize)]
enum Named {
    #[serde(rename = "444")]
    Full,
    #[default]
    #[serde(rename = "420")]
    Half,
}

/// `jpeg`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "jpeg",
    about: "Coded and decoded as JPEG",
    fields: &[
        ("quality", "quality as the Independent JPEG Group counts it, 1 to 100"),
        ("subsampling", "'444' for chroma at every pixel, '420' for chroma of 2 x 2 pixels; default 420"),
    ],
    example: "quality = 5",
    build: BuildOperator::same_shape(|table, site| {
        let Config { quality, subsampling } = table.try_into()?;
        if !matches!(site.image.0, 1 | 3) {
            return Err(Error::config("jpeg", format!("image has {} channels, expected 1 or 3", site.image.0)));
        }
        let subsampling = match subsampling {
            Named::Full => Subsampling::Full,
            Named::Half => Subsampling::Half,
        };
        Ok(Box::new(Jpeg::new(quality, subsampling)?))
    }),
};
