//! Grey photos with colour at some pixels.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Tensor};
use serde::Deserialize;

use super::grayscale::{Reflection, Weights, norm, shape, weigh};
use super::inpaint::Inpaint;
use super::planes::{for_runs, runs_of};
use super::{BuildOperator, ForwardOperator, LinearOperator, SpectralOperator, check_image, picture};
use crate::map::{self, Real, RowMap};
use crate::registry::{Entry, Site};
use crate::{Error, Result};

/// `y = x` where colour is known, `y = (w·x, 0, …, 0)` elsewhere.
#[derive(Clone, Debug)]
pub struct GrayscaleHints {
    hinted: Arc<Hinted>,
    /// With `w / ‖w‖²` in the place of `w`.
    inverse: Arc<Hinted>,
    reflection: Arc<Reflection>,
    /// What a measurement holds: the first channel and all of hinted pixels.
    seen: Inpaint,
    /// `[1, C, H, W]`: 1 at hints, `(‖w‖, 0, …, 0)` elsewhere.
    singular_values: Tensor,
}

impl GrayscaleHints {
    /// One weight per channel, and the pixels whose colour is known.
    ///
    /// # Shapes
    /// `hints`: `[1, 1, H, W]`, 1 where colour is known and 0 elsewhere; any type.
    ///
    /// # Errors
    /// [`Error::Shape`] for hints of another shape; [`Error::Config`] if they hold anything else, or unless there is a
    /// weight, all are finite, and their norm is not zero.
    pub fn new(weights: &[f64], hints: &Tensor) -> Result<Self> {
        let norm = norm(weights)?;
        check_image("hints of grayscale_hints", hints, [Some(1), None, None])?;
        if hints.dims()[0] != 1 {
            return Err(shape("hints of grayscale_hints", hints.dims(), "[1, 1, _, _], the same for all rows"));
        }
        let (_, _, height, width) = hints.dims4()?;
        let values = hints.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        if let Some(value) = values.iter().find(|&&value| value != 0.0 && value != 1.0) {
            let reason = format!("hints hold {value}, expected 0 (luma) or 1 (colour)");
            return Err(Error::config("grayscale_hints", reason));
        }
        let flags: Vec<bool> = values.iter().map(|&value| value == 1.0).collect();
        let channels = weights.len();
        // At a pixel without a hint, of channel c.
        let spread = |c: usize, first: f64| {
            values.iter().map(move |&hint| {
                if hint == 1.0 {
                    1.0
                } else if c == 0 {
                    first
                } else {
                    0.0
                }
            })
        };
        let tensor = |first: f64| {
            let values: Vec<f64> = (0..channels).flat_map(|c| spread(c, first)).collect();
            Tensor::from_vec(values, (1, channels, height, width), hints.device())
        };
        let hinted = |weights: Vec<f64>| Arc::new(Hinted { weights, hints: flags.clone(), height, width });
        Ok(Self {
            hinted: hinted(weights.to_vec()),
            inverse: hinted(weights.iter().map(|w| w / (norm * norm)).collect()),
            reflection: Arc::new(Reflection::onto(weights, norm).except(flags.clone())),
            seen: Inpaint::new(&tensor(1.0)?)?,
            singular_values: tensor(norm)?,
        })
    }

    /// One weight per channel; colour is known where a picture is more opaque than 127 of 255.
    ///
    /// PNG, BMP and PNM with transparency are read; a relative name starts at the folder of the site.
    ///
    /// # Errors
    /// [`Error::Config`] if the file cannot be read, has no transparency or another size than the image, and for weights
    /// as for [`new`](Self::new).
    pub fn file(weights: &[f64], path: &Path, site: Site<'_>) -> Result<Self> {
        let picture = picture::open("grayscale_hints", path, site)?;
        if !picture.color().has_alpha() {
            let reason = format!(
                "file {} has no transparency, expected alpha above 127 at hints",
                site.folder.join(path).display()
            );
            return Err(Error::config("grayscale_hints", reason));
        }
        let (_, height, width) = site.image;
        let hints: Vec<u8> = picture.into_rgba16().pixels().map(|pixel| u8::from(pixel.0[3] > 127 * 257)).collect();
        Self::new(weights, &Tensor::from_vec(hints, (1, 1, height, width), site.device)?)
    }

    fn check(&self, what: &str, x: &Tensor) -> Result<()> {
        let Hinted { weights, height, width, .. } = &*self.hinted;
        check_image(what, x, [Some(weights.len()), Some(*height), Some(*width)])
    }
}

/// The operator as loops.
struct Hinted {
    weights: Vec<f64>,
    /// `[H, W]`
    hints: Vec<bool>,
    height: usize,
    width: usize,
}

impl fmt::Debug for Hinted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.hints.iter().filter(|&&hint| hint).count();
        write!(formatter, "Hinted({:?}, {count} of {})", self.weights, self.hints.len())
    }
}

impl RowMap for Hinted {
    const NAME: &'static str = "grayscale_hints";

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        let expected = [self.weights.len(), self.height, self.width];
        if *input != expected {
            return Err(shape("row for grayscale_hints", input, &format!("{expected:?}")));
        }
        Ok(input.to_vec())
    }

    fn input_shape(&self, output: &[usize]) -> Result<Vec<usize>> {
        self.output_shape(output)
    }

    fn forward<T: Real>(&self, _: &[usize], x: &[T], y: &mut [T]) {
        let plane = self.hints.len();
        for_runs(y, plane, |pixels, y| {
            let hints = &self.hints[pixels.clone()];
            weigh(&self.weights, runs_of(x, plane, &pixels), y[0]);
            for (c, (y, x)) in y.iter_mut().zip(runs_of(x, plane, &pixels)).enumerate() {
                let values = y.iter_mut().zip(x).zip(hints);
                match c {
                    0 => values.for_each(|((y, &x), &hint)| *y = if hint { x } else { *y }),
                    _ => values.for_each(|((y, &x), &hint)| *y = if hint { x } else { T::zero() }),
                }
            }
        });
    }

    fn transpose<T: Real>(&self, _: &[usize], y: &[T], x: &mut [T]) {
        let plane = self.hints.len();
        for_runs(x, plane, |pixels, x| {
            let (hints, luma) = (&self.hints[pixels.clone()], &y[pixels.clone()]);
            for ((x, y), &weight) in x.iter_mut().zip(runs_of(y, plane, &pixels)).zip(&self.weights) {
                let weight = T::of(weight);
                let values = x.iter_mut().zip(y).zip(luma).zip(hints);
                values.for_each(|(((x, &y), &luma), &hint)| *x = if hint { y } else { weight * luma });
            }
        });
    }
}

impl ForwardOperator for GrayscaleHints {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.check("image for grayscale_hints", x)?;
        map::apply(&self.hinted, x)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for GrayscaleHints {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        self.check("measurement of grayscale_hints", y)?;
        map::transpose(&self.hinted, y)
    }

    fn as_spectral(&self) -> Option<&dyn SpectralOperator> {
        Some(self)
    }
}

/// Pixel by pixel: `U = V = I` and `s = 1` at hints, elsewhere as for [`Grayscale`](super::Grayscale).
impl SpectralOperator for GrayscaleHints {
    fn singular_values(&self) -> &Tensor {
        &self.singular_values
    }

    fn image_to_spectrum(&self, x: &Tensor) -> Result<Tensor> {
        self.check("image for grayscale_hints", x)?;
        map::apply(&self.reflection, x)
    }

    fn spectrum_to_image(&self, spectrum: &Tensor) -> Result<Tensor> {
        self.check("spectrum of grayscale_hints", spectrum)?;
        map::apply(&self.reflection, spectrum)
    }

    fn measurement_to_spectrum(&self, y: &Tensor) -> Result<Tensor> {
        self.check("measurement of grayscale_hints", y)?;
        self.seen.forward(y)
    }

    /// `y` at hints, `w y₁ / ‖w‖²` elsewhere.
    fn pseudo_inverse(&self, y: &Tensor) -> Result<Tensor> {
        self.check("measurement of grayscale_hints", y)?;
        map::transpose(&self.inverse, y)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Weights of the channels: `rec601` (default), `rec709`, `mean`, or one number per channel.
    #[serde(default)]
    weights: Weights,
    /// The picture whose alpha is above 127 where colour is known.
    file: PathBuf,
}

/// `grayscale_hints`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "grayscale_hints",
    about: "One weighted sum of the channels, and full colour at the pixels that a picture marks",
    fields: &[
        ("weights", "rec601, rec709, mean, or a list of one number per channel; default rec601"),
        ("file", "picture as large as the image, its alpha above 127 of 255 where colour is known: PNG or BMP"),
    ],
    example: "file = 'hints.png'",
    build: BuildOperator::same_shape(|table, site| {
        let Config { weights, file } = table.try_into()?;
        Ok(Box::new(GrayscaleHints::file(&weights.of(site.image.0)?, &file, site)?))
    }),
};
