//! Grey photos: one weighted sum of the channels is observed.

use std::fmt;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;

use super::planes::{for_runs, runs_of};
use super::{BuildOperator, ForwardOperator, LinearOperator, SpectralOperator, check_image, like};
use crate::map::{self, Real, RowMap};
use crate::registry::{Entry, Site};
use crate::{Error, Result};

/// Luma of red, green and blue, ITU-R recommendation BT.601.
const REC601: [f64; 3] = [0.299, 0.587, 0.114];
/// Luma of red, green and blue, ITU-R recommendation BT.709.
const REC709: [f64; 3] = [0.2126, 0.7152, 0.0722];

/// `y = Σ_c w_c x_c` at every pixel.
#[derive(Clone, Debug)]
pub struct Grayscale {
    /// `[1, C, 1, 1]`, in f64 on the host so that every input type gets its own rounding.
    weights: Tensor,
    /// `[1, C, 1, 1]`: ‖w‖, 0, …, 0.
    singular_values: Tensor,
    /// `[1, C, 1, 1]`: a vector `h` with `V = I − h hᵀ`, zero if `V = I`.
    reflector: Tensor,
    sum: Arc<WeightedSum>,
    /// With `w / ‖w‖²` in the place of `w`.
    inverse: Arc<WeightedSum>,
    reflection: Arc<Reflection>,
}

impl Grayscale {
    /// One weight per channel.
    ///
    /// # Errors
    /// [`Error::Config`] unless there is a weight, all are finite, and their norm is not zero.
    pub fn new(weights: &[f64]) -> Result<Self> {
        let norm = norm(weights)?;
        let column = |values: Vec<f64>| Tensor::from_vec(values, (1, weights.len(), 1, 1), &Device::Cpu);
        let mut singular_values = vec![0.0; weights.len()];
        singular_values[0] = norm;
        let reflection = Reflection::onto(weights, norm);
        Ok(Self {
            weights: column(weights.to_vec())?,
            singular_values: column(singular_values)?,
            reflector: column(reflection.reflector.clone())?,
            sum: Arc::new(WeightedSum { weights: weights.to_vec() }),
            inverse: Arc::new(WeightedSum { weights: weights.iter().map(|w| w / (norm * norm)).collect() }),
            reflection: Arc::new(reflection),
        })
    }

    /// The luma of an RGB photo, ITU-R BT.601.
    pub fn rec601() -> Result<Self> {
        Self::new(&REC601)
    }

    /// The luma of an RGB photo, ITU-R BT.709.
    pub fn rec709() -> Result<Self> {
        Self::new(&REC709)
    }

    fn channels(&self) -> usize {
        self.weights.dims()[1]
    }

    /// `V x`, which is also `Vᵀ x`.
    fn reflect(&self, what: &str, x: &Tensor) -> Result<Tensor> {
        check_image(what, x, [Some(self.channels()), None, None])?;
        if on_host(x) {
            return map::apply(&self.reflection, x);
        }
        let reflector = like(&self.reflector, x)?;
        let along = x.broadcast_mul(&reflector)?.sum_keepdim(1)?;
        Ok((x - along.broadcast_mul(&reflector)?)?)
    }
}

/// Whether loops over slices can take this tensor as it lies.
pub(super) fn on_host(x: &Tensor) -> bool {
    x.device().is_cpu() && matches!(x.dtype(), DType::F32 | DType::F64)
}

/// ‖w‖
///
/// # Errors
/// [`Error::Config`] unless there is a weight, all are finite, and their norm is not zero.
pub(super) fn norm(weights: &[f64]) -> Result<f64> {
    let norm = weights.iter().map(|w| w * w).sum::<f64>().sqrt();
    if norm > 0.0 && norm.is_finite() {
        return Ok(norm);
    }
    Err(Error::config("grayscale", format!("weights are {weights:?}, expected finite ones, not all zero")))
}

/// The sum of the channels as loops.
#[derive(Debug)]
struct WeightedSum {
    weights: Vec<f64>,
}

impl RowMap for WeightedSum {
    const NAME: &'static str = "grayscale";

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        match *input {
            [channels, height, width] if channels == self.weights.len() => Ok(vec![1, height, width]),
            _ => Err(shape("image for grayscale", input, &format!("[{}, _, _]", self.weights.len()))),
        }
    }

    fn input_shape(&self, output: &[usize]) -> Result<Vec<usize>> {
        match *output {
            [1, height, width] => Ok(vec![self.weights.len(), height, width]),
            _ => Err(shape("measurement of grayscale", output, "[1, _, _]")),
        }
    }

    fn forward<T: Real>(&self, _: &[usize], x: &[T], y: &mut [T]) {
        let plane = y.len();
        for_runs(y, plane, |pixels, y| weigh(&self.weights, runs_of(x, plane, &pixels), y[0]));
    }

    fn transpose<T: Real>(&self, _: &[usize], y: &[T], x: &mut [T]) {
        let plane = y.len();
        for_runs(x, plane, |pixels, x| {
            for (x, &weight) in x.iter_mut().zip(&self.weights) {
                let weight = T::of(weight);
                x.iter_mut().zip(&y[pixels.clone()]).for_each(|(x, &y)| *x = weight * y);
            }
        });
    }
}

/// Adds `Σ_c w_c x_c` to `sum`.
pub(super) fn weigh<'a, T: Real>(weights: &[f64], channels: impl Iterator<Item = &'a [T]>, sum: &mut [T]) {
    for (x, &weight) in channels.zip(weights) {
        let weight = T::of(weight);
        sum.iter_mut().zip(x).for_each(|(sum, &x)| *sum += weight * x);
    }
}

/// `x − h (h · x)` at every pixel but the excepted ones, which stay as they are.
pub(super) struct Reflection {
    reflector: Vec<f64>,
    /// One flag per pixel, or none.
    except: Vec<bool>,
}

impl Reflection {
    /// Householder: the reflection that exchanges `e₁` and `w / ‖w‖` has `w / ‖w‖` as its first column.
    pub(super) fn onto(weights: &[f64], norm: f64) -> Self {
        let mut reflector: Vec<f64> = weights.iter().map(|w| -w / norm).collect();
        reflector[0] += 1.0;
        let length = reflector.iter().map(|h| h * h).sum::<f64>();
        if length > 0.0 {
            reflector.iter_mut().for_each(|h| *h *= (2.0 / length).sqrt());
        }
        Self { reflector, except: Vec::new() }
    }

    /// Leaves these pixels as they are.
    pub(super) fn except(self, except: Vec<bool>) -> Self {
        Self { except, ..self }
    }
}

impl fmt::Debug for Reflection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Reflection").field("reflector", &self.reflector).finish_non_exhaustive()
    }
}

impl RowMap for Reflection {
    const NAME: &'static str = "grayscale";

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        let fits = matches!(*input, [channels, height, width] if channels == self.reflector.len()
            && (self.except.is_empty() || self.except.len() == height * width));
        if !fits {
            return Err(shape("spectrum of grayscale", input, &format!("[{}, _, _]", self.reflector.len())));
        }
        Ok(input.to_vec())
    }

    fn input_shape(&self, output: &[usize]) -> Result<Vec<usize>> {
        self.output_shape(output)
    }

    fn forward<T: Real>(&self, shape: &[usize], x: &[T], y: &mut [T]) {
        let plane = shape[1] * shape[2];
        for_runs(y, plane, |pixels, y| {
            let mut along = vec![T::zero(); pixels.len()];
            weigh(&self.reflector, runs_of(x, plane, &pixels), &mut along);
            if !self.except.is_empty() {
                let except = &self.except[pixels.clone()];
                along.iter_mut().zip(except).for_each(|(a, &except)| *a = if except { T::zero() } else { *a });
            }
            for ((y, x), &weight) in y.iter_mut().zip(runs_of(x, plane, &pixels)).zip(&self.reflector) {
                let weight = T::of(weight);
                y.iter_mut().zip(x).zip(&along).for_each(|((y, &x), &along)| *y = x - weight * along);
            }
        });
    }

    fn transpose<T: Real>(&self, shape: &[usize], y: &[T], x: &mut [T]) {
        self.forward(shape, y, x);
    }
}

pub(super) fn shape(what: &str, got: &[usize], expected: &str) -> Error {
    Error::Shape { what: what.into(), got: got.to_vec(), expected: expected.into() }
}

impl ForwardOperator for Grayscale {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        check_image("image for grayscale", x, [Some(self.channels()), None, None])?;
        if on_host(x) {
            return map::apply(&self.sum, x);
        }
        Ok(x.broadcast_mul(&like(&self.weights, x)?)?.sum_keepdim(1)?)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for Grayscale {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        check_image("measurement of grayscale", y, [Some(1), None, None])?;
        if on_host(y) {
            return map::transpose(&self.sum, y);
        }
        Ok(y.broadcast_mul(&like(&self.weights, y)?)?)
    }

    fn reaches_everything(&self) -> bool {
        true
    }

    fn as_spectral(&self) -> Option<&dyn SpectralOperator> {
        Some(self)
    }
}

/// `U = 1`; the first channel of the spectrum is `w·x / ‖w‖` with `s = ‖w‖`, the others are not seen.
impl SpectralOperator for Grayscale {
    fn singular_values(&self) -> &Tensor {
        &self.singular_values
    }

    fn image_to_spectrum(&self, x: &Tensor) -> Result<Tensor> {
        self.reflect("image for grayscale", x)
    }

    fn spectrum_to_image(&self, spectrum: &Tensor) -> Result<Tensor> {
        self.reflect("spectrum of grayscale", spectrum)
    }

    fn measurement_to_spectrum(&self, y: &Tensor) -> Result<Tensor> {
        check_image("measurement of grayscale", y, [Some(1), None, None])?;
        Ok(y.pad_with_zeros(1, 0, self.channels() - 1)?)
    }

    /// `w y / ‖w‖²`
    fn pseudo_inverse(&self, y: &Tensor) -> Result<Tensor> {
        check_image("measurement of grayscale", y, [Some(1), None, None])?;
        if on_host(y) {
            return map::transpose(&self.inverse, y);
        }
        let weights = Tensor::new(self.inverse.weights.as_slice(), &Device::Cpu)?.reshape(self.weights.shape())?;
        Ok(y.broadcast_mul(&like(&weights, y)?)?)
    }
}

/// Names of weights, or the weights.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected rec601, rec709, mean or a list of numbers")]
pub(super) enum Weights {
    /// By name.
    Standard(Standard),
    /// One number per channel.
    List(Vec<f64>),
}

/// Weights with a name.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Standard {
    /// ITU-R BT.601
    Rec601,
    /// ITU-R BT.709
    Rec709,
    /// The plain mean of all channels.
    Mean,
}

impl Default for Weights {
    fn default() -> Self {
        Self::Standard(Standard::Rec601)
    }
}

impl Weights {
    /// The numbers, for images of `channels` channels.
    ///
    /// # Errors
    /// [`Error::Config`] if there are fewer or more than channels.
    pub(super) fn of(self, channels: usize) -> Result<Vec<f64>> {
        let weights = match self {
            Self::Standard(Standard::Rec601) => REC601.to_vec(),
            Self::Standard(Standard::Rec709) => REC709.to_vec(),
            Self::Standard(Standard::Mean) => vec![1.0 / channels.max(1) as f64; channels],
            Self::List(weights) => weights,
        };
        if weights.len() != channels {
            let reason = format!("image has {channels} channels, expected {}", weights.len());
            return Err(Error::config("grayscale", reason));
        }
        Ok(weights)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Weights of the channels: `rec601` (default), `rec709`, `mean`, or one number per channel.
    #[serde(default)]
    weights: Weights,
}

/// `grayscale`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "grayscale",
    about: "One weighted sum of the channels, as the luma of an RGB photo",
    fields: &[("weights", "rec601, rec709, mean, or a list of one number per channel; default rec601")],
    example: "",
    build: BuildOperator::reshaping(
        |table, Site { image: (channels, ..), .. }| {
            let Config { weights } = table.try_into()?;
            Ok(Box::new(Grayscale::new(&weights.of(channels)?)?))
        },
        |table, y, _| {
            let Config { weights } = table.clone().try_into()?;
            // A mean is taken to be that of an RGB photo.
            let channels = if let Weights::List(weights) = weights { weights.len() } else { REC601.len() };
            match *y {
                [1, height, width] => Ok((channels, height, width)),
                _ => Err(Error::config("grayscale", format!("measurement is {y:?}, expected [1, H, W]"))),
            }
        },
    ),
};
