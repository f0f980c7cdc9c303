//! Blur that varies over the image.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use serde::Deserialize;

use super::{BuildOperator, ForwardOperator, LinearOperator, check_image};
use crate::convolution::{self, Choice, Convolution};
use crate::kernel::{self, Kernel};
use crate::map::{self, Real, RowMap};
use crate::padding::Padding;
use crate::registry::{Entry, Site};
use crate::{Error, Result};

/// `y = Σ_k h_k * (w_k ⊙ x)`: a kernel at each point of a grid, and between the points the mixture of the nearest.
///
/// The points of `R × C` are spread evenly from corner to corner; `w_k` is 1 at its own, falls linearly to 0 at its
/// neighbours in each direction, and the weights of a pixel sum to 1.
///
/// Nagy and O'Leary (1998), <https://doi.org/10.1137/S106482759528507X>.
#[derive(Clone, Debug)]
pub struct BlurVarying {
    image: (usize, usize),
    parts: Arc<Parts>,
}

#[derive(Debug)]
struct Parts(Vec<Part>);

/// One kernel and its weights, the product of those of rows and of columns.
#[derive(Debug)]
struct Part {
    convolution: Arc<Convolution>,
    rows: Vec<f64>,
    columns: Vec<f64>,
}

/// The hat about point `index` of `count` on a line of `size` pixels.
fn hat(index: usize, count: usize, size: usize) -> Vec<f64> {
    let step = if size > 1 { (count - 1) as f64 / (size - 1) as f64 } else { 0.0 };
    (0..size).map(|i| (1.0 - (i as f64 * step - index as f64).abs()).max(0.0)).collect()
}

impl BlurVarying {
    /// Blurs images of the site's height and width, any number of channels; `kernels` row by row of the grid.
    ///
    /// # Errors
    /// [`Error::Config`] unless the grid has as many points as there are kernels and no more rows or columns than the
    /// image; unless, for [`Padding::Valid`], the kernels fit the image and are of one size.
    pub fn new(kernels: &[Kernel], grid: [usize; 2], padding: Padding, site: Site<'_>) -> Result<Self> {
        let refuse = |reason: String| Err(Error::config("blur_varying", reason));
        let (_, height, width) = site.image;
        let [rows, columns] = grid;
        if !(1..=height).contains(&rows) || !(1..=width).contains(&columns) {
            return refuse(format!("grid is {grid:?}, expected [1, 1] to [{height}, {width}], the size of the image"));
        }
        if kernels.len() != rows * columns {
            return refuse(format!("{} kernels, expected {} for a grid of {grid:?}", kernels.len(), rows * columns));
        }
        let size = |kernel: &Kernel| (kernel.height(), kernel.width());
        if let Some(other) =
            kernels.iter().find(|kernel| padding == Padding::Valid && size(kernel) != size(&kernels[0]))
        {
            let (first, other) = (size(&kernels[0]), size(other));
            return refuse(format!("kernels are {first:?} and {other:?} large, expected one size without padding"));
        }
        let part = |(k, kernel): (usize, &Kernel)| {
            Ok(Part {
                convolution: Arc::new(Convolution::new(kernel, (height, width), padding, Choice::Sizes)?),
                rows: hat(k / columns, rows, height),
                columns: hat(k % columns, columns, width),
            })
        };
        let parts = Arc::new(Parts(kernels.iter().enumerate().map(part).collect::<Result<_>>()?));
        Ok(Self { image: (height, width), parts })
    }
}

impl Part {
    /// The rows whose weight is not zero.
    fn seen(&self) -> Range<usize> {
        let first = self.rows.iter().position(|&weight| weight > 0.0).unwrap_or(0);
        first..self.rows.iter().rposition(|&weight| weight > 0.0).map_or(first, |last| last + 1)
    }

    /// `[1, 1, H, W]`, like `x`.
    fn weights(&self, x: &Tensor) -> Result<Tensor> {
        let (height, width) = (self.rows.len(), self.columns.len());
        let weights: Vec<f64> = self.rows.iter().flat_map(|row| self.columns.iter().map(move |w| row * w)).collect();
        let weights = Tensor::from_vec(weights, (1, 1, height, width), &Device::Cpu)?.to_dtype(x.dtype())?;
        Ok(weights.to_device(x.device())?)
    }
}

impl RowMap for Parts {
    const NAME: &'static str = "varying convolution";

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        self.0[0].convolution.output_shape(input)
    }

    fn input_shape(&self, output: &[usize]) -> Result<Vec<usize>> {
        self.0[0].convolution.input_shape(output)
    }

    fn forward<T: Real>(&self, shape: &[usize], x: &[T], y: &mut [T]) {
        let (height, width) = (shape[1], shape[2]);
        let (mut weighted, mut blurred) = (vec![T::zero(); x.len()], vec![T::zero(); y.len()]);
        for part in &self.0 {
            let seen = part.seen();
            weighted.par_chunks_mut(width).zip(x.par_chunks(width)).enumerate().for_each(|(i, (to, from))| {
                let row = part.rows[i % height];
                match seen.contains(&(i % height)) {
                    true => to.iter_mut().zip(from).zip(&part.columns).for_each(|((to, &from), weight)| {
                        *to = T::of(row * weight) * from;
                    }),
                    false => to.fill(T::zero()),
                }
            });
            part.convolution.forward(shape, &weighted, &mut blurred);
            y.par_chunks_mut(1 << 14).zip(blurred.par_chunks(1 << 14)).for_each(|(y, blurred)| {
                y.iter_mut().zip(blurred).for_each(|(y, &blurred)| *y += blurred);
            });
        }
    }

    fn transpose<T: Real>(&self, shape: &[usize], y: &[T], x: &mut [T]) {
        let (height, width) = (shape[1], shape[2]);
        let mut spread = vec![T::zero(); x.len()];
        for part in &self.0 {
            let seen = part.seen();
            spread.par_chunks_mut(1 << 14).for_each(|spread| spread.fill(T::zero()));
            part.convolution.transpose(shape, y, &mut spread);
            x.par_chunks_mut(width).zip(spread.par_chunks(width)).enumerate().for_each(|(i, (to, from))| {
                let row = part.rows[i % height];
                if seen.contains(&(i % height)) {
                    to.iter_mut().zip(from).zip(&part.columns).for_each(|((to, &from), weight)| {
                        *to += T::of(row * weight) * from;
                    });
                }
            });
        }
    }
}

impl ForwardOperator for BlurVarying {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        check_image("image for blur_varying", x, [None, Some(self.image.0), Some(self.image.1)])?;
        if x.device().is_cpu() {
            return map::apply(&self.parts, x);
        }
        let blurred = |part: &Part| convolution::apply(&part.convolution, &x.broadcast_mul(&part.weights(x)?)?);
        let mut sum = blurred(&self.parts.0[0])?;
        for part in &self.parts.0[1..] {
            sum = (sum + blurred(part)?)?;
        }
        Ok(sum)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for BlurVarying {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        let (height, width) = self.parts.0[0].convolution.output();
        check_image("measurement of blur_varying", y, [None, Some(height), Some(width)])?;
        if y.device().is_cpu() {
            return map::transpose(&self.parts, y);
        }
        let spread = |part: &Part| {
            let image = convolution::transpose(&part.convolution, y)?;
            Ok::<_, Error>(image.broadcast_mul(&part.weights(y)?)?)
        };
        let mut sum = spread(&self.parts.0[0])?;
        for part in &self.parts.0[1..] {
            sum = (sum + spread(part)?)?;
        }
        Ok(sum)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// One kernel for every point of the grid, row by row.
    kernels: Vec<kernel::Config>,
    /// Rows and columns of points.
    grid: [usize; 2],
    /// What lies beyond the border; default reflect.
    #[serde(default = "Config::padding")]
    padding: Padding,
}

impl Config {
    fn padding() -> Padding {
        Padding::Reflect
    }
}

/// `blur_varying`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "blur_varying",
    about: "Convolution with kernels that change over the image",
    fields: &[
        ("kernels", "one table for each point of the grid, row by row, as the kernel of blur"),
        ("grid", "[rows, columns] of points spread from corner to corner"),
        (
            "padding",
            "border: circular, reflect, replicate, zero, symmetric or valid; default reflect, the edge pixel not repeated",
        ),
    ],
    example: "grid = [1, 2]\nkernels = [{ shape = 'gaussian', sigma = 0.7 }, { shape = 'line', length = 3, angle = 45 }]",
    build: BuildOperator::reshaping(
        |table, site| {
            let config: Config = table.try_into()?;
            let kernels: Vec<_> =
                config.kernels.iter().map(|kernel| kernel.build(site.folder)).collect::<Result<_>>()?;
            Ok(Box::new(BlurVarying::new(&kernels, config.grid, config.padding, site)?))
        },
        |table, y, site| {
            let config: Config = table.clone().try_into()?;
            let [channels, height, width] = *y else {
                return Err(Error::config("blur_varying", format!("measurement is {y:?}, expected [C, H, W]")));
            };
            match (config.padding, config.kernels.first()) {
                (Padding::Valid, Some(kernel)) => {
                    let kernel = kernel.build(site.folder)?;
                    Ok((channels, height + kernel.height() - 1, width + kernel.width() - 1))
                }
                _ => Ok((channels, height, width)),
            }
        },
    ),
};
