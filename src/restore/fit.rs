//! A photo at the size that a prior was trained on, as a whole.
//!
//! The prior knows images `u` of one size. In the middle of such an image the photo is laid as large as it fits, and what is
//! around it is unknown: `x = R u`, cubic convolution of that part alone. A measurement `y = A(x) + n` is then one of `u`,
//! `y = A(R u) + n + e`, where `e` is the detail of the photo that no `u` has. It is taken as white noise of its own size, as
//! errors of representation are in the assimilation of data.
//!
//! Keys (1981), <https://doi.org/10.1109/TASSP.1981.1163711>

use super::{Case, filled};
use crate::Result;
use crate::image::{Mask, Photo, Region};
use candle_core::{DType, Device, Tensor};
use tweedie_operators::forward::{ForwardOperator, Inpaint, LinearOperator, Resize, ResizeKernel};
use tweedie_operators::noise::Gaussian;
use tweedie_operators::{Measurement, NoiseModel, Site};

/// Where a picture lies in an image of the prior's size, and the matrices between the two.
#[derive(Clone, Debug)]
pub(super) struct Fit {
    /// Height and width of the prior's images.
    pub(super) size: (usize, usize),
    /// The picture's place in them.
    inside: Region,
    /// Pixels of the picture in a length of one of the prior's.
    ratio: f64,
    /// `R`
    enlarging: Resize,
    /// Weighted means the other way.
    shrinking: Resize,
}

impl Fit {
    /// A picture of `height × width` in images of `size`, a height and a width, that are sampled on `device`.
    pub(super) fn new((height, width): (usize, usize), size: (usize, usize), device: &Device) -> Result<Self> {
        let ratio = (size.0 as f64 / height as f64).min(size.1 as f64 / width as f64);
        let side = |of: usize, most: usize| ((of as f64 * ratio).round() as usize).clamp(1, most);
        let (h, w) = (side(height, size.0), side(width, size.1));
        let inside = Region { x: (size.1 - w) / 2, y: (size.0 - h) / 2, width: w, height: h };
        let part = || (inside.y..inside.y + h, inside.x..inside.x + w);
        let whole = || (0..height, 0..width);
        let site = |height, width, device| Site::new((3, height, width), device, DType::F32);
        let enlarging =
            Resize::between(part(), whole(), (height, width), ResizeKernel::Bicubic, site(size.0, size.1, device))?;
        let shrinking =
            Resize::between(whole(), part(), size, ResizeKernel::Bilinear, site(height, width, &Device::Cpu))?;
        Ok(Self { size, inside, ratio: 1.0 / ratio, enlarging, shrinking })
    }

    /// `R u`: `[B, C, H, W]` of `[B, C, h, w]`.
    pub(super) fn enlarged(&self, u: &Tensor) -> tweedie_operators::Result<Tensor> {
        self.enlarging.forward(u)
    }

    /// `Rᵀ v`
    fn enlarged_transposed(&self, v: &Tensor) -> tweedie_operators::Result<Tensor> {
        self.enlarging.adjoint(v)
    }

    /// Means weighted by a triangle two pixels wide, of the prior's or of the picture's, whichever are larger; zero around the
    /// picture's place: `[B, C, h, w]` of `[B, C, H, W]`.
    pub(super) fn shrunk(&self, x: &Tensor) -> tweedie_operators::Result<Tensor> {
        self.shrinking.forward(x)
    }
}

/// `A ∘ R`
#[derive(Debug)]
struct Through<'a> {
    operator: &'a dyn ForwardOperator,
    fit: Fit,
}

impl ForwardOperator for Through<'_> {
    fn forward(&self, u: &Tensor) -> tweedie_operators::Result<Tensor> {
        self.operator.forward(&self.fit.enlarged(u)?)
    }

    fn vjp(&self, u: &Tensor, v: &Tensor) -> tweedie_operators::Result<Tensor> {
        self.fit.enlarged_transposed(&self.operator.vjp(&self.fit.enlarged(u)?, v)?)
    }

    fn measure(&self, u: &Tensor) -> tweedie_operators::Result<Tensor> {
        self.operator.measure(&self.fit.enlarged(u)?)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        self.operator.as_linear().is_some().then_some(self)
    }
}

impl LinearOperator for Through<'_> {
    fn adjoint(&self, y: &Tensor) -> tweedie_operators::Result<Tensor> {
        match self.operator.as_linear() {
            Some(linear) => self.fit.enlarged_transposed(&linear.adjoint(y)?),
            None => Err(tweedie_operators::Error::Unsupported { method: "adjoint", needs: "a linear operator" }),
        }
    }
}

/// A measurement of an image of the prior's size, and what becomes of its samples.
#[derive(Debug)]
pub(super) struct Fitted<'a> {
    pub(super) fit: Fit,
    operator: Box<dyn ForwardOperator + 'a>,
    noise: Noise<'a>,
    pub(super) y: Tensor,
    pub(super) guess: Option<Tensor>,
    /// What was measured, where it is more than which pixels are known.
    pub(super) case: Option<&'a Case>,
    /// What the result is painted on, and which of its pixels.
    pub(super) canvas: &'a Photo,
    pub(super) fill: Mask,
}

#[derive(Debug)]
enum Noise<'a> {
    /// With what no image of the prior's size has.
    Gaussian(Gaussian),
    /// As it was measured.
    Own(&'a dyn NoiseModel),
}

/// A pixel of the prior's is known where so much of its weight is.
const KNOWN: f64 = 0.5;

impl<'a> Fitted<'a> {
    /// The pixels of a photo that are known, without the `unknown` ones; those of `fill` are painted.
    pub(super) fn holes(
        photo: &'a Photo,
        unknown: &Mask,
        fill: Mask,
        size: (usize, usize),
        device: &Device,
    ) -> Result<Self> {
        let (width, height) = (photo.width(), photo.height());
        let whole = Region { x: 0, y: 0, width, height };
        let fit = Fit::new((height, width), size, device)?;
        let known = unknown.tensor(whole, &Device::Cpu)?;
        let weight = fit.shrunk(&known)?;
        let sums = fit.shrunk(&photo.tensor(whole, &Device::Cpu)?.broadcast_mul(&known)?)?;
        let known = weight.ge(KNOWN)?;
        // Of a pixel that is known in part the mean of that part, of others nothing.
        let means = sums.broadcast_div(&weight.maximum(KNOWN)?)?;
        let known = known.to_dtype(DType::F32)?;
        let y = means.broadcast_mul(&known)?;
        let seen = known.flatten_all()?.to_vec1::<f32>()?;
        let unknown = Mask::from_fn(size.1, size.0, |x, y| seen[y * size.1 + x] == 0.0);
        let guess = Some(filled(&y, &unknown)?);
        let operator = Box::new(Inpaint::new(&known)?);
        let noise = Noise::Gaussian(Gaussian::new(0.0)?);
        Ok(Self { fit, operator, noise, y, guess, case: None, canvas: photo, fill })
    }

    /// The measurement of a case.
    pub(super) fn whole(case: &'a Case, size: (usize, usize), device: &Device) -> Result<Self> {
        let fit = Fit::new(case.size, size, device)?;
        let mut guess = None;
        let mut beyond = 0.0;
        if let Some(start) = &case.guess {
            let inside = fit.inside;
            let within = |x: usize, y: usize| {
                (inside.x..inside.x + inside.width).contains(&x) && (inside.y..inside.y + inside.height).contains(&y)
            };
            let around = Mask::from_fn(size.1, size.0, |x, y| !within(x, y));
            let small = fit.shrunk(start)?;
            let residual = (case.operator.forward(&fit.enlarged(&small)?)? - &case.y)?;
            let squares = residual.sqr()?.mean_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
            beyond = if squares.is_finite() { squares.sqrt() } else { 0.0 };
            guess = Some(filled(&small, &around)?);
        }
        let noise = match case.noise.gaussian_sigma() {
            Some(sigma) => Noise::Gaussian(Gaussian::new(sigma.max(beyond))?),
            None => Noise::Own(&*case.noise),
        };
        let operator = Box::new(Through { operator: &*case.operator, fit: fit.clone() });
        let fill = Mask::from_fn(case.canvas.width(), case.canvas.height(), |_, _| true);
        let (y, canvas) = (case.y.clone(), &case.canvas);
        Ok(Self { fit, operator, noise, y, guess, case: Some(case), canvas, fill })
    }

    pub(super) fn operator(&self) -> &dyn ForwardOperator {
        &*self.operator
    }

    pub(super) fn noise(&self) -> &dyn NoiseModel {
        match &self.noise {
            Noise::Gaussian(gaussian) => gaussian,
            Noise::Own(noise) => *noise,
        }
    }

    /// The measurement as the samplers see it.
    pub(super) fn measurement(&self) -> Measurement<'_> {
        Measurement { operator: self.operator(), noise: self.noise(), y: self.y.clone() }
    }

    /// What the user should know of it.
    pub(super) fn warning(&self) -> String {
        let &Fit { size: (height, width), inside, ratio, .. } = &self.fit;
        let from = self.canvas;
        let what = format!(
            "the picture of {}x{} pixels is restored as one of {}x{} within the {width}x{height} that the model was trained on",
            from.width(),
            from.height(),
            inside.width,
            inside.height
        );
        match ratio > 1.0 {
            true => format!("{what}, and brought back: nothing that it makes is finer than {ratio:.1} pixels"),
            false => format!("{what}, and brought back"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(height: usize, width: usize, of: impl Fn(usize, usize) -> f32) -> Tensor {
        let values: Vec<f32> = (0..height * width).map(|i| of(i / width, i % width)).collect();
        Tensor::from_vec(values, (1, 1, height, width), &Device::Cpu).unwrap()
    }

    fn rows(x: &Tensor) -> Vec<Vec<f32>> {
        x.squeeze(0).unwrap().squeeze(0).unwrap().to_vec2().unwrap()
    }

    #[test]
    fn a_ramp_is_a_ramp_at_every_size_away_from_its_ends() {
        let fit = Fit::new((24, 36), (12, 12), &Device::Cpu).unwrap();
        assert_eq!(fit.inside, Region { x: 0, y: 2, width: 12, height: 8 });
        // Pixel centres at (i + ½)/24 of the height, (j + ½)/36 of the width.
        let ramp = |height: usize, width: usize, y: f64, x: f64| {
            (2.0 * (y + 0.5) / height as f64 - (x + 0.5) / width as f64) as f32
        };
        let agrees = |got: &Tensor, within: Region, expected: &dyn Fn(f64, f64) -> f32| {
            for (y, row) in rows(got).into_iter().enumerate().skip(within.y).take(within.height) {
                for (x, value) in row.into_iter().enumerate().skip(within.x).take(within.width) {
                    let expected = expected(y as f64, x as f64);
                    assert!((value - expected).abs() < 1e-5, "({x}, {y}): {value} and {expected}");
                }
            }
        };
        let small = fit.shrunk(&image(24, 36, |y, x| ramp(24, 36, y as f64, x as f64))).unwrap();
        agrees(&small, Region { x: 1, y: 3, width: 10, height: 6 }, &|y, x| ramp(8, 12, y - 2.0, x));
        let around = rows(&small);
        assert_eq!([around[1][4], around[10][4]], [0.0; 2], "around the picture there is nothing");
        let large = fit.enlarged(&image(12, 12, |y, x| ramp(8, 12, y as f64 - 2.0, x as f64))).unwrap();
        agrees(&large, Region { x: 5, y: 5, width: 26, height: 14 }, &|y, x| ramp(24, 36, y, x));
    }

    #[test]
    fn a_picture_of_the_priors_size_stays_as_it_is() {
        let fit = Fit::new((9, 9), (9, 9), &Device::Cpu).unwrap();
        let x = image(9, 9, |y, x| ((7 * y + 3 * x) % 5) as f32);
        assert_eq!(rows(&fit.shrunk(&x).unwrap()), rows(&x));
        assert_eq!(rows(&fit.enlarged(&x).unwrap()), rows(&x));
    }

    #[test]
    fn the_transpose_is_one() {
        let fit = Fit::new((7, 10), (16, 16), &Device::Cpu).unwrap();
        let u = image(16, 16, |y, x| ((5 * y + 11 * x) % 7) as f32 - 3.0);
        let v = image(7, 10, |y, x| ((3 * y + 2 * x) % 5) as f32 - 2.0);
        let dot = |a: &Tensor, b: &Tensor| (a * b).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        let (left, right) = (dot(&fit.enlarged(&u).unwrap(), &v), dot(&u, &fit.enlarged_transposed(&v).unwrap()));
        assert!((left - right).abs() < 1e-4 * left.abs().max(1.0), "{left} and {right}");
    }

    #[test]
    fn pixels_that_are_mostly_missing_are_unknown_and_of_others_what_is_missing_does_not_count() {
        let missing = |x: usize, y: usize| x >= 4 && y >= 4 || x == 0;
        let level = |i: usize| if missing(i % 8, i / 8) { 255 } else { 51 };
        let photo = Photo::from_u8(8, 8, 1, (0..64).map(level).collect()).unwrap();
        let mask = Mask::from_fn(8, 8, missing);
        let fitted = Fitted::holes(&photo, &mask, mask.clone(), (2, 2), &Device::Cpu).unwrap();
        let y = fitted.y.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for channel in y.chunks(4) {
            assert_eq!(channel[3], 0.0, "a quarter of it is known, and that is of its neighbours");
            for value in &channel[..3] {
                assert!((value + 0.6).abs() < 1e-6, "{value}, expected what 51 of 255 stands for");
            }
        }
    }
}
