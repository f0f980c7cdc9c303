//! The colour filters of a camera's sensor.

use std::sync::Arc;

use candle_core::{DType, Tensor};
use serde::Deserialize;

use super::grayscale::shape;
use super::{BuildOperator, ForwardOperator, LinearOperator, SpectralOperator};
use crate::map::{self, Real, RowMap};
use crate::registry::{Entry, Site};
use crate::{Error, Result};
use tweedie_kernels::collect_chunks;

/// The colours of the four pixels at the top left, row by row; they repeat over the image.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum BayerPattern {
    /// Red, green / green, blue.
    Rggb,
    /// Blue, green / green, red.
    Bggr,
    /// Green, red / blue, green.
    Grbg,
    /// Green, blue / red, green.
    Gbrg,
}

impl BayerPattern {
    /// The channel seen at a pixel: 0 red, 1 green, 2 blue.
    pub fn channel(self, row: usize, column: usize) -> usize {
        let tile: [[usize; 2]; 2] = match self {
            Self::Rggb => [[0, 1], [1, 2]],
            Self::Bggr => [[2, 1], [1, 0]],
            Self::Grbg => [[1, 0], [2, 1]],
            Self::Gbrg => [[1, 2], [0, 1]],
        };
        tile[row % 2][column % 2]
    }
}

/// One colour of every pixel is observed: `y[i, j] = x[c(i, j), i, j]`.
///
/// B. E. Bayer (1976), color imaging array, US patent 3971065.
#[derive(Clone, Debug)]
pub struct Bayer {
    mosaic: Arc<Mosaic>,
    /// `[1, 3, H, W]`: 1 where a colour is seen.
    singular_values: Tensor,
}

impl Bayer {
    /// For RGB images of the site's height and width.
    ///
    /// # Errors
    /// [`Error::Config`] unless the image has three channels.
    pub fn new(pattern: BayerPattern, site: Site<'_>) -> Result<Self> {
        let (channels, height, width) = site.image;
        if channels != 3 {
            return Err(Error::config("bayer", format!("image has {channels} channels, expected 3")));
        }
        let seen = |c: usize, i: usize| f32::from(u8::from(pattern.channel(i / width, i % width) == c));
        let values: Vec<f32> = (0..3).flat_map(|c| (0..height * width).map(move |i| seen(c, i))).collect();
        // Zeros and ones are exact in every type.
        let dtype = if site.dtype == DType::F64 { DType::F64 } else { DType::F32 };
        let singular_values = Tensor::from_vec(values, (1, 3, height, width), site.device)?.to_dtype(dtype)?;
        Ok(Self { mosaic: Arc::new(Mosaic { pattern, height, width }), singular_values })
    }
}

/// The operator as loops.
#[derive(Debug)]
struct Mosaic {
    pattern: BayerPattern,
    height: usize,
    width: usize,
}

impl Mosaic {
    /// The offset of a line in a plane, and the channels at its even and its odd pixels.
    fn line(&self, row: usize) -> (usize, [usize; 2]) {
        (row * self.width, [self.pattern.channel(row, 0), self.pattern.channel(row, 1)])
    }
}

impl RowMap for Mosaic {
    const NAME: &'static str = "bayer";

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        if *input != [3, self.height, self.width] {
            return Err(shape("row for bayer", input, &format!("[3, {}, {}]", self.height, self.width)));
        }
        Ok(vec![1, self.height, self.width])
    }

    fn input_shape(&self, output: &[usize]) -> Result<Vec<usize>> {
        if *output != [1, self.height, self.width] {
            return Err(shape("measurement of bayer", output, &format!("[1, {}, {}]", self.height, self.width)));
        }
        Ok(vec![3, self.height, self.width])
    }

    fn forward<T: Real>(&self, shape: &[usize], x: &[T], y: &mut [T]) {
        if let Some(all) = self.forward_all(shape, x) {
            y.copy_from_slice(&all);
        }
    }

    fn transpose<T: Real>(&self, shape: &[usize], y: &[T], x: &mut [T]) {
        if let Some(all) = self.transpose_all(shape, y) {
            x.copy_from_slice(&all);
        }
    }

    fn forward_all<T: Real>(&self, _: &[usize], x: &[T]) -> Option<Vec<T>> {
        let (width, plane) = (self.width.max(1), self.height * self.width);
        Some(collect_chunks(x.len() / 3, width, |line| {
            let (image, row) = (line.start / plane, line.start % plane / width);
            let (start, [even, odd]) = self.line(row);
            let of = |channel: usize| &x[(3 * image + channel) * plane + start..][..width];
            let pixels = of(even).iter().zip(of(odd)).enumerate();
            pixels.map(|(column, (&even, &odd))| if column % 2 == 0 { even } else { odd })
        }))
    }

    fn transpose_all<T: Real>(&self, _: &[usize], y: &[T]) -> Option<Vec<T>> {
        let (width, plane) = (self.width.max(1), self.height * self.width);
        Some(collect_chunks(3 * y.len(), width, |line| {
            let (image, channel, row) = (line.start / (3 * plane), line.start / plane % 3, line.start % plane / width);
            let (start, seen) = self.line(row);
            let [even, odd] = seen.map(|seen| seen == channel);
            let pixels = y[image * plane + start..][..width].iter().enumerate();
            pixels.map(move |(column, &y)| if if column % 2 == 0 { even } else { odd } { y } else { T::zero() })
        }))
    }
}

impl ForwardOperator for Bayer {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        map::apply(&self.mosaic, x)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for Bayer {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        map::transpose(&self.mosaic, y)
    }

    fn as_spectral(&self) -> Option<&dyn SpectralOperator> {
        Some(self)
    }
}

/// `V = I`; `U` collects the one colour of each pixel, `s` is 1 for that colour.
impl SpectralOperator for Bayer {
    fn singular_values(&self) -> &Tensor {
        &self.singular_values
    }

    fn image_to_spectrum(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.clone())
    }

    fn spectrum_to_image(&self, spectrum: &Tensor) -> Result<Tensor> {
        Ok(spectrum.clone())
    }

    fn measurement_to_spectrum(&self, y: &Tensor) -> Result<Tensor> {
        self.adjoint(y)
    }

    fn pseudo_inverse(&self, y: &Tensor) -> Result<Tensor> {
        self.adjoint(y)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Colours of the four pixels at the top left, row by row; default rggb.
    #[serde(default = "Config::pattern")]
    pattern: BayerPattern,
}

impl Config {
    fn pattern() -> BayerPattern {
        BayerPattern::Rggb
    }
}

/// `bayer`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "bayer",
    about: "One colour per pixel, as under the filters of a camera's sensor",
    fields: &[("pattern", "colours of the four pixels at the top left: rggb, bggr, grbg or gbrg; default rggb")],
    example: "pattern = 'grbg'",
    build: BuildOperator::reshaping(
        |table, site| {
            let Config { pattern } = table.try_into()?;
            Ok(Box::new(Bayer::new(pattern, site)?))
        },
        |_, y, _| match *y {
            [1, height, width] => Ok((3, height, width)),
            _ => Err(Error::config("bayer", format!("measurement is {y:?}, expected [1, H, W]"))),
        },
    ),
};
