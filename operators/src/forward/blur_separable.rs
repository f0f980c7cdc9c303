//! Blur by a vertical and a horizontal kernel, with its singular values at any border.

use candle_core::Tensor;
use serde::Deserialize;

use super::{BuildOperator, ForwardOperator, LinearOperator, SpectralOperator};
use crate::padding::Padding;
use crate::registry::{Entry, Site};
use crate::separable::Separable;
use crate::{Error, Result};

/// `y(i, j) = Σ h(a) w(b) x(i + c − a, j + d − b)`: convolutions with `h` along columns and with `w` along rows, centred at
/// `c = ⌊K/2⌋` and `d = ⌊L/2⌋` of `K` and `L` taps.
///
/// The decomposition comes from those of two small matrices, as by Kawar et al. (2022), <https://arxiv.org/abs/2201.11793>.
#[derive(Clone, Debug)]
pub struct BlurSeparable {
    map: Separable,
}

const NAME: &str = "blur_separable";

impl BlurSeparable {
    /// For images of the site's height and width, any number of channels; `vertical` is `h`, `horizontal` is `w`.
    ///
    /// Singular values of either of the two matrices below `cutoff` are set to 0 in the operator itself.
    ///
    /// # Errors
    /// [`Error::Config`] for [`Padding::Valid`], and unless both kernels have a tap that is not 0 and all taps are finite,
    /// and `cutoff` is finite, at least 0 and below the largest singular value.
    pub fn new(vertical: &[f64], horizontal: &[f64], padding: Padding, cutoff: f64, site: Site<'_>) -> Result<Self> {
        padding.fills(NAME)?;
        for taps in [vertical, horizontal] {
            if taps.iter().all(|&tap| tap == 0.0) || !taps.iter().all(|tap| tap.is_finite()) {
                return Err(Error::config(NAME, format!("taps are {taps:?}, expected finite ones, not all zero")));
            }
        }
        Ok(Self { map: Separable::filter(NAME, (vertical, horizontal), 1, padding, cutoff, site)? })
    }
}

impl ForwardOperator for BlurSeparable {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.map.forward(x)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for BlurSeparable {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        self.map.adjoint(y)
    }

    /// Found when first asked for, by decompositions of both matrices.
    fn as_spectral(&self) -> Option<&dyn SpectralOperator> {
        self.map.as_spectral()
    }
}

/// A bell of sum 1, cut off beyond 4σ.
fn bell(sigma: f64, (_, height, width): (usize, usize, usize)) -> Result<Vec<f64>> {
    let largest = height.max(width) as f64;
    if !(sigma > 0.0 && sigma <= largest) {
        let reason =
            format!("sigma is {sigma}, expected a number above 0, at most {largest} for an image of {width}x{height}");
        return Err(Error::config(NAME, reason));
    }
    let radius = (4.0 * sigma + 0.5).floor() as i64;
    let taps: Vec<f64> = (-radius..=radius).map(|i| libm::exp(-0.5 * (i as f64 / sigma).powi(2))).collect();
    let sum: f64 = taps.iter().sum();
    Ok(taps.into_iter().map(|tap| tap / sum).collect())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Kernel of both directions, its middle at half its length.
    taps: Option<Vec<f64>>,
    /// Standard deviation in pixels, for a Gaussian kernel instead of `taps`.
    sigma: Option<f64>,
    /// What lies beyond the border; default zero.
    #[serde(default = "Config::padding")]
    padding: Padding,
    /// Singular values of the two matrices below this are set to 0; default 0.
    #[serde(default)]
    cutoff: f64,
}

impl Config {
    fn padding() -> Padding {
        Padding::Zero
    }
}

/// `blur_separable`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: NAME,
    about: "The same blur along columns and along rows, singular values at any border",
    fields: &[
        ("taps", "kernel of both directions, a list of numbers, its middle at half its length"),
        ("sigma", "standard deviation in pixels above 0, for a Gaussian kernel instead of taps"),
        ("padding", "beyond the border: zero, circular, reflect, replicate or symmetric; default zero"),
        ("cutoff", "singular values of either matrix below this are set to 0, at least 0; default 0"),
    ],
    example: "sigma = 1.0\ncutoff = 0.2",
    build: BuildOperator::same_shape(|table, site| {
        let Config { taps, sigma, padding, cutoff } = table.try_into()?;
        let taps = match (taps, sigma) {
            (Some(taps), None) => taps,
            (None, Some(sigma)) => bell(sigma, site.image)?,
            (Some(_), Some(_)) => {
                return Err(Error::config(NAME, "taps and sigma are both given, expected one of them"));
            }
            (None, None) => return Err(Error::config(NAME, "neither taps nor sigma is given, expected one of them")),
        };
        Ok(Box::new(BlurSeparable::new(&taps, &taps, padding, cutoff, site)?))
    }),
};
