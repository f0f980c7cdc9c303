//! A user's own linear operator, as a sparse matrix in a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Tensor};
use serde::Deserialize;

use super::{BuildOperator, ForwardOperator, LinearOperator};
use crate::map::{self, Real, RowMap};
use crate::registry::{Entry, Site};
use crate::sparse::{self, Sparse};
use crate::{Error, Result};

/// `y = M x` with a sparse matrix `M`, whose columns are the pixels row by row.
///
/// A matrix for each channel has `H · W` columns and makes `[B, C, rows]`; one for all channels together has `C · H · W`
/// columns, channel by channel, and makes `[B, rows]`. Either may be given another shape.
#[derive(Clone, Debug)]
pub struct Matrix {
    map: Arc<Map>,
}

impl Matrix {
    /// Of entries (row, column, value) counted from zero, for images of the site's shape; equal positions add up.
    ///
    /// # Errors
    /// [`Error::Config`] for an entry outside the matrix or not finite, and unless the columns are the pixels of one channel
    /// or of all.
    pub fn new(size: (usize, usize), entries: &[(usize, usize, f64)], site: Site<'_>) -> Result<Self> {
        let matrix = Sparse::from_entries(size, entries.iter().copied());
        Self::from_sparse(matrix.map_err(|reason| Error::config("matrix", reason))?, None, None, site)
    }

    /// Reads Matrix Market (`.mtx`, coordinate) or SciPy (`.npz`: csr, csc, coo); `per_channel` and `measurement` as in a
    /// configuration.
    ///
    /// # Errors
    /// [`Error::Config`] with the file's name for one that is damaged, or does not fit the image or the measurement.
    pub fn read(
        file: &Path,
        per_channel: Option<bool>,
        measurement: Option<Vec<usize>>,
        site: Site<'_>,
    ) -> Result<Self> {
        let path = site.folder.join(file);
        let matrix = sparse::read(&path);
        let matrix = matrix.map_err(|reason| Error::config("matrix", format!("{}: {reason}", path.display())))?;
        Self::from_sparse(matrix, per_channel, measurement, site)
    }

    fn from_sparse(
        matrix: Sparse<f64>,
        per_channel: Option<bool>,
        measurement: Option<Vec<usize>>,
        site: Site<'_>,
    ) -> Result<Self> {
        let (channels, height, width) = site.image;
        let (one, all) = (height * width, channels * height * width);
        let per_channel = per_channel.unwrap_or(matrix.columns == one);
        let expected = if per_channel { one } else { all };
        if matrix.columns != expected {
            let wanted = match per_channel {
                true => format!("{one} for each channel"),
                false => format!("{all} for all channels, or {one} for each"),
            };
            let reason = format!("matrix has {} columns, expected {wanted} of an image of", matrix.columns);
            return Err(Error::config("matrix", format!("{reason} {width}x{height} with {channels} channels")));
        }
        let output = if per_channel { vec![channels, matrix.rows] } else { vec![matrix.rows] };
        let total: usize = output.iter().product();
        let output = match measurement {
            None => output,
            Some(shape) if size(&shape) == Some(total) => shape,
            Some(shape) => {
                return Err(Error::config("matrix", format!("measurement is {shape:?}, expected {total} numbers")));
            }
        };
        let input = vec![channels, height, width];
        let channels = if per_channel { channels } else { 1 };
        let factors = match site.dtype {
            DType::F64 => Factors::Double(both(matrix)?),
            _ => Factors::Single(both(matrix.cast().map_err(|reason| Error::config("matrix", reason))?)?),
        };
        Ok(Self { map: Arc::new(Map { factors, channels, input, output }) })
    }
}

/// The number of elements, unless it is beyond all numbers.
fn size(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |size, &side| size.checked_mul(side))
}

fn both<V: Real>(matrix: Sparse<V>) -> Result<[Sparse<V>; 2]> {
    let transposed = matrix.transposed();
    Ok([matrix, transposed])
}

impl ForwardOperator for Matrix {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        map::apply(&self.map, x)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for Matrix {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        map::transpose(&self.map, y)
    }
}

/// A matrix and its transpose, in the type of the site.
#[derive(Debug)]
enum Factors {
    Single([Sparse<f32>; 2]),
    Double([Sparse<f64>; 2]),
}

#[derive(Debug)]
struct Map {
    factors: Factors,
    /// How often the matrix is applied.
    channels: usize,
    /// Shapes of a row of `x` and `y`.
    input: Vec<usize>,
    output: Vec<usize>,
}

impl Map {
    fn multiply<T: Real>(&self, transposed: bool, x: &[T], y: &mut [T]) {
        let (from, to) = (x.len() / self.channels, y.len() / self.channels);
        for (x, y) in x.chunks_exact(from).zip(y.chunks_exact_mut(to)) {
            match &self.factors {
                Factors::Single(factors) => factors[usize::from(transposed)].multiply(x, y),
                Factors::Double(factors) => factors[usize::from(transposed)].multiply(x, y),
            }
        }
    }
}

impl RowMap for Map {
    const NAME: &'static str = "matrix";

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        check("image for matrix", input, &self.input)?;
        Ok(self.output.clone())
    }

    fn input_shape(&self, output: &[usize]) -> Result<Vec<usize>> {
        check("measurement of matrix", output, &self.output)?;
        Ok(self.input.clone())
    }

    fn forward<T: Real>(&self, _: &[usize], x: &[T], y: &mut [T]) {
        self.multiply(false, x, y);
    }

    fn transpose<T: Real>(&self, _: &[usize], y: &[T], x: &mut [T]) {
        self.multiply(true, y, x);
    }
}

fn check(what: &str, got: &[usize], expected: &[usize]) -> Result<()> {
    if got == expected {
        return Ok(());
    }
    let expected = expected.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    Err(Error::Shape { what: format!("row of the {what}"), got: got.to_vec(), expected: format!("[{expected}]") })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// File of the matrix, `.mtx` or `.npz`.
    file: PathBuf,
    /// Whether each channel is multiplied on its own; by default if the columns are as many as the pixels of one.
    per_channel: Option<bool>,
    /// Channels, height and width of the image.
    image: Option<(usize, usize, usize)>,
    /// Shape of the measurement, without its batch.
    measurement: Option<Vec<usize>>,
}

/// `matrix`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "matrix",
    about: "A sparse matrix from a file",
    fields: &[
        ("file", "matrix in Matrix Market's .mtx (coordinate) or SciPy's .npz (csr, csc, coo)"),
        ("per_channel", "whether each channel is multiplied on its own; default: if the columns are height x width"),
        ("image", "[channels, height, width] the matrix is made for; needed where only a measurement is given"),
        ("measurement", "shape of a measurement; default [channels, rows] if per channel, else [rows]"),
    ],
    example: "file = \"operator.mtx\"",
    build: BuildOperator::reshaping(
        |table, site| {
            let Config { file, per_channel, image, measurement } = table.try_into()?;
            if let Some(image) = image.filter(|image| *image != site.image) {
                let reason = format!("image is {image:?}, but the image at hand is {:?}", site.image);
                return Err(Error::config("matrix", reason));
            }
            Ok(Box::new(Matrix::read(&file, per_channel, measurement, site)?))
        },
        |table, y, _| {
            let Config { image, measurement, .. } = table.clone().try_into()?;
            if let Some(measurement) = measurement.filter(|measurement| measurement != y) {
                let reason = format!("measurement is {measurement:?}, but the one at hand is {y:?}");
                return Err(Error::config("matrix", reason));
            }
            let reason = "image is not given, expected [C, H, W]: a measurement does not tell it";
            image.ok_or_else(|| Error::config("matrix", reason))
        },
    ),
};
