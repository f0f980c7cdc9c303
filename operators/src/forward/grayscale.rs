//! Grey photos: one weighted sum of the channels is observed.

use candle_core::{Device, Tensor};
use serde::Deserialize;

use super::{BuildOperator, ForwardOperator, LinearOperator, SpectralOperator, check_image, like};
use crate::registry::{Entry, Site};
use crate::{Error, Result};

/// Luma of red, green and blue, ITU-R recommendation BT.601.
const REC601: [f64; 3] = [0.299, 0.587, 0.114];

/// `y = Σ_c w_c x_c` at every pixel.
#[derive(Clone, Debug)]
pub struct Grayscale {
    /// `[1, C, 1, 1]`, in f64 on the host so that every input type gets its own rounding.
    weights: Tensor,
    /// `[1, C, 1, 1]`: ‖w‖, 0, …, 0.
    singular_values: Tensor,
    /// `[1, C, 1, 1]`: a vector `h` with `V = I − h hᵀ`, zero if `V = I`.
    reflector: Tensor,
}

impl Grayscale {
    /// One weight per channel.
    ///
    /// # Errors
    /// [`Error::Config`] unless there is a weight, all are finite, and their norm is not zero.
    pub fn new(weights: &[f64]) -> Result<Self> {
        let norm = weights.iter().map(|w| w * w).sum::<f64>().sqrt();
        if !(norm > 0.0 && norm.is_finite()) {
            return Err(Error::config(
                "grayscale",
                format!("weights are {weights:?}, expected finite ones, not all zero"),
            ));
        }
        let column = |values: Vec<f64>| Tensor::from_vec(values, (1, weights.len(), 1, 1), &Device::Cpu);
        let mut singular_values = vec![0.0; weights.len()];
        singular_values[0] = norm;
        // Householder: the reflection that exchanges e₁ and w/‖w‖ has w/‖w‖ as its first column.
        let mut reflector: Vec<f64> = weights.iter().map(|w| -w / norm).collect();
        reflector[0] += 1.0;
        let length = reflector.iter().map(|h| h * h).sum::<f64>();
        if length > 0.0 {
            reflector.iter_mut().for_each(|h| *h *= (2.0 / length).sqrt());
        }
        Ok(Self {
            weights: column(weights.to_vec())?,
            singular_values: column(singular_values)?,
            reflector: column(reflector)?,
        })
    }

    /// The luma of an RGB photo.
    pub fn rec601() -> Result<Self> {
        Self::new(&REC601)
    }

    fn channels(&self) -> usize {
        self.weights.dims()[1]
    }

    /// `V x`, which is also `Vᵀ x`.
    fn reflect(&self, what: &str, x: &Tensor) -> Result<Tensor> {
        check_image(what, x, [Some(self.channels()), None, None])?;
        let reflector = like(&self.reflector, x)?;
        let along = x.broadcast_mul(&reflector)?.sum_keepdim(1)?;
        Ok((x - along.broadcast_mul(&reflector)?)?)
    }
}

impl ForwardOperator for Grayscale {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        check_image("image for grayscale", x, [Some(self.channels()), None, None])?;
        Ok(x.broadcast_mul(&like(&self.weights, x)?)?.sum_keepdim(1)?)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for Grayscale {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        check_image("measurement of grayscale", y, [Some(1), None, None])?;
        Ok(y.broadcast_mul(&like(&self.weights, y)?)?)
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
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {}

/// `grayscale`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "grayscale",
    about: "Luma of an RGB photo, weights of rec. 601",
    fields: &[],
    example: "",
    build: BuildOperator::reshaping(
        |table, Site { image: (channels, ..), .. }| {
            let Config {} = table.try_into()?;
            if channels != REC601.len() {
                return Err(Error::config("grayscale", format!("image has {channels} channels, expected 3")));
            }
            Ok(Box::new(Grayscale::rec601()?))
        },
        |_, y, _| match *y {
            [1, height, width] => Ok((REC601.len(), height, width)),
            _ => Err(Error::config("grayscale", format!("measurement is {y:?}, expected [1, H, W]"))),
        },
    ),
};
