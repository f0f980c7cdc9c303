//! Sampling of the Fourier transform, as in magnetic resonance imaging.

use std::f64::consts::PI;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use realfft::num_complex::Complex;
use serde::Deserialize;

use super::{BuildOperator, ForwardOperator, LinearOperator, SpectralOperator};
use crate::dft::{Dft, Hartley};
use crate::map::{self, Real, RowMap};
use crate::registry::{Entry, Site};
use crate::rng::permutation;
use crate::{Error, Result};

/// Part of each axis around frequency zero that random and Cartesian patterns sample in full.
const CALIBRATION: f64 = 0.08;

/// `y = m ⊙ F x` for each channel: some frequencies of the orthonormal Fourier transform.
///
/// A measurement `[B, 2C, H, W]` holds the real and the imaginary part of each channel, frequency zero first, and zeros
/// where nothing is sampled.
///
/// The image is real, so `X(−k)` is the conjugate of `X(k)`, and both belong to the pair of coefficients `H(k)`, `H(−k)` of
/// the Hartley transform, `H = Re X − Im X`: `|X(k)|² = |X(−k)|² = (H(k)² + H(−k)²)/2`. Hence
/// `‖y‖² = Σ_k ½ (m(k) + m(−k)) H(k)²`, and the singular values are `s(k) = √(½ (m(k) + m(−k)))` with the Hartley transform
/// as `V`, whether the mask is symmetric or not.
#[derive(Clone, Debug)]
pub struct FourierSubsample {
    sampling: Arc<Sampling>,
    hartley: Arc<Hartley>,
    to_spectrum: Arc<ToSpectrum>,
    /// `[1, 1, H, W]`.
    mask: Tensor,
    /// `[1, 1, H, W]`, in f64 on the host so that every input type gets its own rounding.
    singular_values: Tensor,
}

/// Which frequencies are sampled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FourierPattern {
    /// `⌊keep · H · W⌋` single frequencies without replacement, among them a rectangle around zero of `calibration` of each
    /// side.
    Random {
        /// Fraction of each side around zero that is sampled in full.
        calibration: f64,
        /// Seed of the frequencies.
        seed: u64,
    },
    /// As many equidistant lines through zero as it takes to sample the fraction `keep`: a frequency belongs to a line if
    /// it is at most half a pixel away from it.
    Radial {
        /// Seed of the angle of the first line.
        seed: u64,
    },
    /// `⌊keep · W⌋` whole columns, among them `⌊calibration · W⌋` around zero.
    Cartesian {
        /// Fraction of the columns, around zero, that is sampled in full.
        calibration: f64,
        /// Seed of the columns.
        seed: u64,
    },
}

impl FourierSubsample {
    /// Samples the frequencies `[ky · W + kx]` of images of `height × width` pixels where the mask is true, frequency zero
    /// first.
    ///
    /// # Errors
    /// [`Error::Config`] unless the mask has `height · width` values and there is a pixel.
    pub fn new(mask: Vec<bool>, (height, width): (usize, usize), device: &Device) -> Result<Self> {
        if mask.is_empty() || mask.len() != height * width {
            let reason = format!(
                "mask has {} values, expected {} for an image of {width}x{height}, at least 1",
                mask.len(),
                height * width
            );
            return Err(Error::config("fourier_subsample", reason));
        }
        let dft = Dft::new(height, width);
        let shape = (1, 1, height, width);
        let opposite = |k: usize| (height - k / width) % height * width + (width - k % width) % width;
        let count = |k: usize| f64::from(u8::from(mask[k]) + u8::from(mask[opposite(k)]));
        let singular_values: Vec<f64> = (0..mask.len()).map(|k| (count(k) / 2.0).sqrt()).collect();
        let ones: Vec<f32> = mask.iter().map(|&sampled| f32::from(u8::from(sampled))).collect();
        let mask = Arc::new(mask);
        Ok(Self {
            to_spectrum: Arc::new(ToSpectrum { height, width, mask: mask.clone() }),
            sampling: Arc::new(Sampling { dft: dft.clone(), mask }),
            hartley: Arc::new(Hartley(dft)),
            mask: Tensor::from_vec(ones, shape, device)?,
            singular_values: Tensor::from_vec(singular_values, shape, &Device::Cpu)?,
        })
    }

    /// Samples a fraction `keep` of the frequencies in a pattern.
    ///
    /// # Errors
    /// [`Error::Config`] unless `keep` is above 0 and at most 1, and the calibration fits into it.
    pub fn pattern(keep: f64, pattern: FourierPattern, site: Site<'_>) -> Result<Self> {
        let (_, height, width) = site.image;
        if !(keep > 0.0 && keep <= 1.0) {
            let reason = format!("keep is {keep}, expected a fraction above 0 and at most 1");
            return Err(Error::config("fourier_subsample", reason));
        }
        let mask = match pattern {
            FourierPattern::Random { calibration, seed } => random(keep, calibration, seed, height, width)?,
            FourierPattern::Radial { seed } => radial(keep, seed, height, width),
            FourierPattern::Cartesian { calibration, seed } => cartesian(keep, calibration, seed, height, width)?,
        };
        Self::new(mask, (height, width), site.device)
    }

    /// `[1, 1, H, W]`: 1 where a frequency is sampled, frequency zero first.
    pub fn mask(&self) -> &Tensor {
        &self.mask
    }
}

/// How many of `size` indices around zero, and whether `index` is one of them; for an even number the odd one is negative.
fn centre(calibration: f64, size: usize) -> Result<(usize, impl Fn(usize) -> bool)> {
    if !(0.0..=1.0).contains(&calibration) {
        let reason = format!("calibration is {calibration}, expected a fraction from 0 to 1");
        return Err(Error::config("fourier_subsample", reason));
    }
    let count = (calibration * size as f64).floor() as usize;
    Ok((count, move |index: usize| (index + count / 2) % size < count))
}

/// Adds to what is sampled already the first others of an order until there are `total`.
fn fill_up(mask: &mut [bool], total: usize, order: Vec<u32>, calibration: f64, keep: f64) -> Result<()> {
    let sampled = mask.iter().filter(|&&sampled| sampled).count();
    if sampled > total {
        let reason =
            format!("calibration {calibration} alone samples {sampled} of {}, keep {keep} allows {total}", mask.len());
        return Err(Error::config("fourier_subsample", reason));
    }
    let others: Vec<usize> = order.into_iter().map(|i| i as usize).filter(|&i| !mask[i]).collect();
    others.iter().take(total - sampled).for_each(|&i| mask[i] = true);
    Ok(())
}

fn random(keep: f64, calibration: f64, seed: u64, height: usize, width: usize) -> Result<Vec<bool>> {
    let ((_, in_rows), (_, in_columns)) = (centre(calibration, height)?, centre(calibration, width)?);
    let mut mask: Vec<bool> = (0..height * width).map(|k| in_rows(k / width) && in_columns(k % width)).collect();
    let total = (keep * mask.len() as f64).floor() as usize;
    fill_up(&mut mask, total, permutation(seed, height * width)?, calibration, keep)?;
    Ok(mask)
}

fn cartesian(keep: f64, calibration: f64, seed: u64, height: usize, width: usize) -> Result<Vec<bool>> {
    let (_, inside) = centre(calibration, width)?;
    let mut columns: Vec<bool> = (0..width).map(inside).collect();
    let total = (keep * width as f64).floor() as usize;
    fill_up(&mut columns, total, permutation(seed, width)?, calibration, keep)?;
    Ok((0..height * width).map(|k| columns[k % width]).collect())
}

fn radial(keep: f64, seed: u64, height: usize, width: usize) -> Vec<bool> {
    let signed = |k: usize, size: usize| if 2 * k < size { k as f64 } else { k as f64 - size as f64 };
    // The angle of each frequency and half the angle under which a pixel is seen from zero; all lines meet zero itself.
    let seen: Vec<(f64, f64)> = (0..height * width)
        .map(|k| {
            let (ky, kx) = (signed(k / width, height), signed(k % width, width));
            let radius = libm::hypot(ky, kx);
            let half = if radius > 0.5 { libm::asin(0.5 / radius) } else { PI };
            ((libm::atan2(ky, kx) + PI) % PI, half)
        })
        .collect();
    let turn = (seed as f64 * 0.618_033_988_749_894_9).fract();
    let on_a_line = |lines: usize, &(angle, half): &(f64, f64)| {
        let step = PI / lines as f64;
        let beyond = (angle + (1.0 - turn) * step) % step;
        beyond <= half || step - beyond <= half
    };
    let count = |lines: usize| seen.iter().filter(|frequency| on_a_line(lines, frequency)).count();
    // With this many lines no frequency is missed.
    let (mut few, mut enough) = (0, height + width + (height + width) * 2 / 3 + 1);
    let wanted = keep * seen.len() as f64;
    while enough - few > 1 {
        let middle = (few + enough) / 2;
        if (count(middle) as f64) < wanted {
            few = middle;
        } else {
            enough = middle;
        }
    }
    seen.iter().map(|frequency| on_a_line(enough, frequency)).collect()
}

fn check_measurement(what: &str, row: &[usize], height: usize, width: usize) -> Result<()> {
    match *row {
        [channels, h, w] if channels % 2 == 0 && (h, w) == (height, width) => Ok(()),
        _ => Err(Error::Shape {
            what: what.into(),
            got: row.to_vec(),
            expected: format!("[2C, {height}, {width}] in every row, real and imaginary parts of C channels"),
        }),
    }
}

/// `[C, H, W] → [2C, H, W]`: the orthonormal transform where it is sampled, zero elsewhere.
#[derive(Clone, Debug)]
struct Sampling {
    dft: Dft,
    mask: Arc<Vec<bool>>,
}

impl RowMap for Sampling {
    const NAME: &'static str = "sampled Fourier transform";

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        self.dft.check("image for fourier_subsample", input)?;
        Ok(vec![2 * input[0], input[1], input[2]])
    }

    fn input_shape(&self, output: &[usize]) -> Result<Vec<usize>> {
        check_measurement("measurement of fourier_subsample", output, self.dft.height, self.dft.width)?;
        Ok(vec![output[0] / 2, output[1], output[2]])
    }

    fn forward<T: Real>(&self, _: &[usize], x: &[T], y: &mut [T]) {
        let (height, width, columns) = (self.dft.height, self.dft.width, self.dft.columns());
        let plane = height * width;
        let norm = T::of(1.0 / (plane as f64).sqrt());
        y.par_chunks_mut(2 * plane).zip(x.par_chunks(plane)).for_each(|(y, x)| {
            let rows = self.dft.spectrum_by_rows(x);
            let (re, im) = y.split_at_mut(plane);
            let lines = re.par_chunks_mut(width).zip(im.par_chunks_mut(width)).zip(self.mask.par_chunks(width));
            lines.enumerate().for_each(|(ky, ((re, im), mask))| {
                let here = &rows[ky * columns..][..columns];
                let there = &rows[(height - ky) % height * columns..][..columns];
                let factor = |sampled: bool| if sampled { norm } else { T::zero() };
                let (re_left, re_right) = re.split_at_mut(columns);
                let (im_left, im_right) = im.split_at_mut(columns);
                for (((re, im), value), &sampled) in re_left.iter_mut().zip(im_left).zip(here).zip(mask) {
                    let factor = factor(sampled);
                    (*re, *im) = (value.re * factor, value.im * factor);
                }
                // The columns W/2 + 1, … are the conjugates of (W + 1)/2 − 1, …, 1 in the opposite row.
                let opposite = there[1..width.div_ceil(2)].iter().rev();
                for (((re, im), value), &sampled) in
                    re_right.iter_mut().zip(im_right).zip(opposite).zip(&mask[columns..])
                {
                    let factor = factor(sampled);
                    (*re, *im) = (value.re * factor, -value.im * factor);
                }
            });
        });
    }

    fn transpose<T: Real>(&self, _: &[usize], y: &[T], x: &mut [T]) {
        let (height, width, columns) = (self.dft.height, self.dft.width, self.dft.columns());
        let plane = height * width;
        // 1/√N beside the 1/N of the inverse, and the mean of a frequency and the conjugate of its opposite.
        let half = T::of(0.5 * (plane as f64).sqrt());
        x.par_chunks_mut(plane).zip(y.par_chunks(2 * plane)).for_each(|(x, y)| {
            let (re, im) = y.split_at(plane);
            let mut rows = vec![Complex::new(T::zero(), T::zero()); height * columns];
            rows.par_chunks_mut(columns).enumerate().for_each(|(ky, row)| {
                let opposite = (height - ky) % height;
                let factor = |sampled: bool| if sampled { half } else { T::zero() };
                let (mask, mask_there) = (&self.mask[ky * width..][..width], &self.mask[opposite * width..][..width]);
                let (re_here, im_here) = (&re[ky * width..][..width], &im[ky * width..][..width]);
                let (re_there, im_there) = (&re[opposite * width..][..width], &im[opposite * width..][..width]);
                for ((value, (&re, &im)), &sampled) in row.iter_mut().zip(re_here.iter().zip(im_here)).zip(mask) {
                    let factor = factor(sampled);
                    *value = Complex::new(re * factor, im * factor);
                }
                // From kx = 1 on the opposite runs from W − 1 down; at 0 it is 0.
                let first = factor(mask_there[0]);
                row[0] += Complex::new(re_there[0] * first, -im_there[0] * first);
                let there = re_there.iter().zip(im_there).zip(mask_there).rev();
                for (value, ((&re, &im), &sampled)) in row[1..].iter_mut().zip(there) {
                    let factor = factor(sampled);
                    *value += Complex::new(re * factor, -im * factor);
                }
            });
            self.dft.plane_by_rows(rows, x);
        });
    }
}

/// `Uᵀ: [2C, H, W] → [C, H, W]`.
///
/// The adjoint of the sampling, seen in the Hartley basis, is `½ [m(k) (Re y(k) − Im y(k)) + m(−k) (Re y(−k) + Im y(−k))]`;
/// what is left after division by `s(k)` is `Uᵀ y`.
#[derive(Clone, Debug)]
struct ToSpectrum {
    height: usize,
    width: usize,
    mask: Arc<Vec<bool>>,
}

impl RowMap for ToSpectrum {
    const NAME: &'static str = "spectrum of a sampled Fourier transform";

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        check_measurement("measurement of fourier_subsample", input, self.height, self.width)?;
        Ok(vec![input[0] / 2, self.height, self.width])
    }

    fn input_shape(&self, output: &[usize]) -> Result<Vec<usize>> {
        match *output {
            [channels, height, width] if (height, width) == (self.height, self.width) => {
                Ok(vec![2 * channels, height, width])
            }
            _ => Err(Error::Shape {
                what: "spectrum of fourier_subsample".into(),
                got: output.to_vec(),
                expected: format!("[_, {}, {}] in every row", self.height, self.width),
            }),
        }
    }

    fn forward<T: Real>(&self, _: &[usize], y: &[T], spectrum: &mut [T]) {
        let (height, width, plane) = (self.height, self.width, self.height * self.width);
        let factors = self.factors::<T>();
        spectrum.par_chunks_mut(plane).zip(y.par_chunks(2 * plane)).for_each(|(spectrum, y)| {
            let (re, im) = y.split_at(plane);
            spectrum.par_chunks_mut(width).enumerate().for_each(|(ky, line)| {
                let opposite = (height - ky) % height * width;
                for (kx, value) in line.iter_mut().enumerate() {
                    let (here, there) = (ky * width + kx, opposite + (width - kx) % width);
                    let factor = factors[usize::from(self.mask[here])][usize::from(self.mask[there])];
                    *value = (re[here] - im[here]) * factor[0] + (re[there] + im[there]) * factor[1];
                }
            });
        });
    }

    fn transpose<T: Real>(&self, _: &[usize], spectrum: &[T], y: &mut [T]) {
        let (height, width, plane) = (self.height, self.width, self.height * self.width);
        let factors = self.factors::<T>();
        y.par_chunks_mut(2 * plane).zip(spectrum.par_chunks(plane)).for_each(|(y, spectrum)| {
            let (re, im) = y.split_at_mut(plane);
            re.par_chunks_mut(width).zip(im.par_chunks_mut(width)).enumerate().for_each(|(ky, (re, im))| {
                let opposite = (height - ky) % height * width;
                for (kx, (re, im)) in re.iter_mut().zip(im).enumerate() {
                    let (here, there) = (ky * width + kx, opposite + (width - kx) % width);
                    let factor = factors[usize::from(self.mask[here])][usize::from(self.mask[there])];
                    let (own, other) = (spectrum[here] * factor[0], spectrum[there] * factor[0]);
                    (*re, *im) = (own + other, other - own);
                }
            });
        });
    }
}

impl ToSpectrum {
    /// `½ [m(k), m(−k)] / s(k)`, by `m(k)` and `m(−k)`.
    fn factors<T: Real>(&self) -> [[[T; 2]; 2]; 2] {
        let one = T::of(std::f64::consts::FRAC_1_SQRT_2);
        let (zero, both) = (T::zero(), T::of(0.5));
        [[[zero, zero], [zero, one]], [[one, zero], [both, both]]]
    }
}

impl ForwardOperator for FourierSubsample {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        map::apply(&self.sampling, x)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for FourierSubsample {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        map::transpose(&self.sampling, y)
    }

    fn as_spectral(&self) -> Option<&dyn SpectralOperator> {
        Some(self)
    }
}

/// `V` is the Hartley transform, `s = √(½ (m(k) + m(−k)))`.
impl SpectralOperator for FourierSubsample {
    fn singular_values(&self) -> &Tensor {
        &self.singular_values
    }

    fn image_to_spectrum(&self, x: &Tensor) -> Result<Tensor> {
        map::apply(&self.hartley, x)
    }

    fn spectrum_to_image(&self, spectrum: &Tensor) -> Result<Tensor> {
        map::apply(&self.hartley, spectrum)
    }

    fn measurement_to_spectrum(&self, y: &Tensor) -> Result<Tensor> {
        map::apply(&self.to_spectrum, y)
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PatternName {
    #[default]
    Random,
    Radial,
    Cartesian,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Which frequencies are sampled.
    #[serde(default)]
    pattern: PatternName,
    /// Fraction of the frequencies, above 0 and at most 1.
    #[serde(default = "Config::keep")]
    keep: f64,
    /// Fraction of each axis (cartesian: of the columns) around zero that is sampled in full; by default 0.08, or what
    /// `keep` allows of it. Radial patterns have none.
    calibration: Option<f64>,
    /// Seed of the pattern.
    #[serde(default)]
    seed: u64,
}

impl Config {
    fn keep() -> f64 {
        0.25
    }

    fn build(self, site: Site<'_>) -> Result<FourierSubsample> {
        let Self { keep, seed, .. } = self;
        let calibration = self.calibration.unwrap_or(CALIBRATION.min(keep));
        let pattern = match self.pattern {
            PatternName::Random => FourierPattern::Random { calibration, seed },
            PatternName::Cartesian => FourierPattern::Cartesian { calibration, seed },
            PatternName::Radial => match self.calibration {
                None => FourierPattern::Radial { seed },
                Some(calibration) => {
                    let reason = format!(
                        "calibration is {calibration}, expected none for pattern radial, all of whose lines pass through zero"
                    );
                    return Err(Error::config("fourier_subsample", reason));
                }
            },
        };
        FourierSubsample::pattern(keep, pattern, site)
    }
}

/// `fourier_subsample`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "fourier_subsample",
    about: "Some frequencies of the Fourier transform, as in magnetic resonance imaging",
    fields: &[
        ("pattern", "which frequencies: random, radial (lines through zero) or cartesian (columns); default random"),
        ("keep", "fraction of the frequencies, above 0 and at most 1; default 0.25"),
        (
            "calibration",
            "fraction of each axis around frequency zero that is sampled in full, not for radial; default 0.08, at most keep",
        ),
        ("seed", "seed of the pattern; default 0"),
    ],
    example: "pattern = 'random'\nkeep = 0.4\ncalibration = 0.3\nseed = 1",
    build: BuildOperator::reshaping(
        |table, site| {
            let config: Config = table.try_into()?;
            Ok(Box::new(config.build(site)?))
        },
        |_, y, _| match *y {
            [channels, height, width] if channels % 2 == 0 => Ok((channels / 2, height, width)),
            _ => Err(Error::config("fourier_subsample", format!("measurement is {y:?}, expected [2C, H, W]"))),
        },
    ),
};
