//! Colourisation.

use super::Case;
use super::case::{colours, sigma};
use crate::image::Photo;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use tweedie_operators::ForwardOperator;
use tweedie_operators::forward::{Grayscale, GrayscaleHints};
use tweedie_operators::noise::Gaussian;

/// Luma of red, green and blue, ITU-R BT.601.
const LUMA: [f64; 3] = [0.299, 0.587, 0.114];

impl Case {
    /// A photo of which only the luma (rec. 601, of the encoded values) is believed, and the colours of `hints`: a picture of
    /// the photo's size with coloured pixels on transparent ground, those with alpha above a half.
    ///
    /// The result has the photo's luma, within one level of its depth.
    ///
    /// # Errors
    /// `Config` if the sizes differ or the hints have neither colour nor transparency.
    pub fn colorize(photo: &Photo, hints: Option<&Photo>) -> Result<Self> {
        let luma = luma(&colours(photo)?)?;
        let sigma = sigma(0.0, photo);
        let size = (photo.height(), photo.width());
        let grey = luma.broadcast_as((1, 3, size.0, size.1))?.contiguous()?;
        let noise = Box::new(Gaussian::new(sigma)?);
        let case = |operator: Box<dyn ForwardOperator>, y, guess| Self {
            operator,
            noise,
            y,
            canvas: photo.in_colour(),
            size,
            offset: (0, 0),
            guess: Some(guess),
            luma: Some(luma.clone()),
        };
        let Some(hints) = hints else {
            return Ok(case(Box::new(Grayscale::rec601()?), luma.clone(), grey));
        };
        if (hints.width(), hints.height()) != (photo.width(), photo.height()) {
            return Err(Error::Config {
                name: "size of the hints".into(),
                got: format!("{}x{}", hints.width(), hints.height()),
                expected: format!("that of the photo, {}x{}", photo.width(), photo.height()),
            });
        }
        if !hints.has_alpha() {
            return Err(Error::Config {
                name: "picture of hints".into(),
                got: "opaque".into(),
                expected: "coloured dots on transparent ground".into(),
            });
        }
        let hinted = hints
            .opaque_pixels()
            .tensor(crate::image::Region { x: 0, y: 0, width: size.1, height: size.0 }, &Device::Cpu)?;
        // The mask's tensor is one where pixels are not in it.
        let hinted = hinted.affine(-1.0, 1.0)?;
        // A hint says a colour, the photo says how bright it is.
        let colour = with_luma(&colours_as_they_are(hints)?, &luma)?;
        let rest = hinted.affine(-1.0, 1.0)?;
        let first = Tensor::cat(&[&luma, &luma.zeros_like()?, &luma.zeros_like()?], 1)?;
        let y = (colour.broadcast_mul(&hinted)? + first.broadcast_mul(&rest)?)?;
        let guess = with_luma(&diffused(&colour, &hinted, &luma)?, &luma)?;
        Ok(case(Box::new(GrayscaleHints::new(&LUMA, &hinted)?), y, guess))
    }
}

fn colours_as_they_are(photo: &Photo) -> Result<Tensor> {
    let region = crate::image::Region { x: 0, y: 0, width: photo.width(), height: photo.height() };
    Ok(photo.tensor(region, &Device::Cpu)?)
}

/// `[B, 1, H, W]` of `[B, 3, H, W]`.
pub(super) fn luma(x: &Tensor) -> Result<Tensor> {
    let weights = Tensor::new(&LUMA, x.device())?.to_dtype(x.dtype())?.reshape((1, 3, 1, 1))?;
    Ok(x.broadcast_mul(&weights)?.sum_keepdim(1)?)
}

/// `x` with another luma and its own colour differences, as far as `[-1, 1]` has such a colour: what would leave it is drawn
/// towards grey, which keeps the luma.
///
/// # Shapes
/// `x`: `[B, 3, H, W]`, `wanted`: `[1, 1, H, W]`
pub(super) fn with_luma(x: &Tensor, wanted: &Tensor) -> Result<Tensor> {
    let wanted = wanted.to_dtype(x.dtype())?.broadcast_as((x.dim(0)?, 1, x.dim(2)?, x.dim(3)?))?;
    let chroma = x.broadcast_sub(&luma(x)?)?;
    // The largest t ≤ 1 with wanted + t · chroma inside.
    let small = 1e-6;
    let above = ((wanted.affine(-1.0, 1.0)?) / chroma.max_keepdim(1)?.maximum(small)?)?;
    let below = ((wanted.affine(1.0, 1.0)?) / chroma.neg()?.max_keepdim(1)?.maximum(small)?)?;
    let t = above.minimum(&below)?.clamp(0.0, 1.0)?;
    Ok(chroma.broadcast_mul(&t)?.broadcast_add(&wanted)?)
}

/// The hints' colour differences spread over the photo, further where its luma is even: grey far from every hint of like
/// brightness.
///
/// Levin, Lischinski & Weiss (2004), "Colorization using optimization", with Jacobi sweeps over a pyramid in the place of its
/// sparse solver.
fn diffused(colour: &Tensor, hinted: &Tensor, luma: &Tensor) -> Result<Tensor> {
    let (_, _, height, width) = colour.dims4()?;
    let chroma = colour.broadcast_sub(luma)?.broadcast_mul(hinted)?.flatten_all()?.to_vec1::<f32>()?;
    let hinted = hinted.flatten_all()?.to_vec1::<f32>()?;
    let luma = luma.flatten_all()?.to_vec1::<f32>()?;
    let planes = diffuse(&chroma, &hinted, &luma, height, width);
    Ok(Tensor::from_vec(planes, (1, 3, height, width), &Device::Cpu)?.to_dtype(DType::F32)?)
}

/// Luma differences of this size, pixels in `[-1, 1]`, stop a colour.
const EDGE: f32 = 0.08;

/// Sweeps a level.
const SWEEPS: usize = 60;

/// Three planes of colour differences from hinted ones, coarse to fine.
fn diffuse(chroma: &[f32], hinted: &[f32], luma: &[f32], height: usize, width: usize) -> Vec<f32> {
    let area = height * width;
    let mut planes = if height.min(width) <= 4 {
        vec![0.0; 3 * area]
    } else {
        let (h, w) = (height.div_ceil(2), width.div_ceil(2));
        let mean = |plane: &[f32], weight: &[f32], y: usize, x: usize| {
            let (mut sum, mut total) = (0.0, 0.0);
            for v in 2 * y..height.min(2 * y + 2) {
                for u in 2 * x..width.min(2 * x + 2) {
                    sum += plane[v * width + u] * weight[v * width + u];
                    total += weight[v * width + u];
                }
            }
            if total > 0.0 { sum / total } else { 0.0 }
        };
        let cells = || (0..h).flat_map(|y| (0..w).map(move |x| (y, x)));
        let ones = vec![1.0; area];
        let coarse_luma: Vec<f32> = cells().map(|(y, x)| mean(luma, &ones, y, x)).collect();
        let coarse_hinted: Vec<f32> =
            cells().map(|(y, x)| if mean(hinted, &ones, y, x) > 0.0 { 1.0 } else { 0.0 }).collect();
        let coarse_chroma: Vec<f32> = chroma
            .chunks(area)
            .flat_map(|plane| cells().map(|(y, x)| mean(plane, hinted, y, x)).collect::<Vec<_>>())
            .collect();
        let coarse = diffuse(&coarse_chroma, &coarse_hinted, &coarse_luma, h, w);
        let fine =
            |plane: &[f32]| -> Vec<f32> { (0..area).map(|i| plane[i / width / 2 * w + i % width / 2]).collect() };
        coarse.chunks(h * w).flat_map(fine).collect()
    };
    let weight = |i: usize, j: usize| (-((luma[i] - luma[j]) / EDGE).powi(2)).exp() + 1e-4;
    for plane in 0..3 {
        let values = &mut planes[plane * area..(plane + 1) * area];
        for (i, value) in values.iter_mut().enumerate().filter(|(i, _)| hinted[*i] > 0.0) {
            *value = chroma[plane * area + i];
        }
        for _ in 0..SWEEPS {
            // Red, then black: a value depends on the four neighbours of the other colour, in no order of its own.
            for parity in 0..2 {
                for i in (0..area).filter(|&i| hinted[i] == 0.0 && (i / width + i % width) % 2 == parity) {
                    let (y, x) = (i / width, i % width);
                    let (mut sum, mut total) = (0.0, 0.0);
                    for j in [
                        (y > 0).then(|| i - width),
                        (y + 1 < height).then(|| i + width),
                        (x > 0).then(|| i - 1),
                        (x + 1 < width).then(|| i + 1),
                    ]
                    .into_iter()
                    .flatten()
                    {
                        sum += weight(i, j) * values[j];
                        total += weight(i, j);
                    }
                    if total > 0.0 {
                        values[i] = sum / total;
                    }
                }
            }
        }
    }
    planes
}
