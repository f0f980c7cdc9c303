//! A dense random matrix, the measurement of the theory of compressed sensing.

use std::fmt;
use std::sync::{Arc, OnceLock};

use candle_core::{Device, Tensor, WithDType};
use faer::Mat;
use rayon::prelude::*;
use serde::Deserialize;

use super::{BuildOperator, ForwardOperator, LinearOperator, SpectralOperator};
use crate::map::{self, Real, RowMap};
use crate::registry::{Entry, Site};
use crate::rng::Rng;
use crate::{Error, Result};

/// More numbers than this (64 MiB, and several times as much for the decomposition) are refused.
const LARGEST: usize = 1 << 24;

/// `y = G x` with `G` of `m × n` independent numbers from `N(0, 1/m)`; `n = C · H · W`, `m = ⌊keep · n⌋`.
///
/// A measurement is `[B, m]`. Singular values are computed when they are first asked for, in about `m² n` operations.
#[derive(Clone)]
pub struct GaussianMatrix {
    dense: Arc<Dense>,
    decomposition: Arc<OnceLock<Option<Decomposition>>>,
}

impl fmt::Debug for GaussianMatrix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("GaussianMatrix").field(&self.dense).finish()
    }
}

impl GaussianMatrix {
    /// For images of the site's shape.
    ///
    /// # Errors
    /// [`Error::Config`] unless `keep` is above 0 and at most 1, keeps at least one number, and the matrix has at most
    /// 2²⁴ entries.
    pub fn new(keep: f64, seed: u64, site: Site<'_>) -> Result<Self> {
        let (channels, height, width) = site.image;
        let columns = channels * height * width;
        if !(keep > 0.0 && keep <= 1.0) {
            let reason = format!("keep is {keep}, expected a fraction above 0 and at most 1");
            return Err(Error::config("gaussian_matrix", reason));
        }
        let rows = (keep * columns as f64).floor() as usize;
        let image = format!("{width}x{height} with {channels} channels");
        if rows == 0 {
            let reason =
                format!("keep {keep} of the {columns} numbers of an image of {image} is none, expected at least 1");
            return Err(Error::config("gaussian_matrix", reason));
        }
        if rows.checked_mul(columns).is_none_or(|entries| entries > LARGEST) {
            let reason =
                format!("matrix for an image of {image} is {rows}x{columns}, expected at most {LARGEST} entries");
            return Err(Error::config("gaussian_matrix", reason));
        }
        let normals = Rng::new(seed, 0..1).normal((1, 1, rows, columns), &Device::Cpu)?;
        let normals = normals.flatten_all()?.to_vec1()?;
        Ok(Self { dense: Arc::new(Dense { image: site.image, rows, normals }), decomposition: Arc::default() })
    }
}

/// `G`.
struct Dense {
    image: (usize, usize, usize),
    rows: usize,
    /// `√m G`, row by row.
    normals: Vec<f32>,
}

impl fmt::Debug for Dense {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Dense").field("image", &self.image).field("rows", &self.rows).finish_non_exhaustive()
    }
}

/// Terms that are added up side by side, so that a compiler may use vectors.
const LANES: usize = 16;

/// `⟨a, x⟩`, in an order that depends on the length alone.
fn dot<A: Copy + Into<f64>, T: Real>(a: &[A], x: &[T]) -> T {
    let mut sums = [T::zero(); LANES];
    let (blocks, x_blocks) = (a.chunks_exact(LANES), x.chunks_exact(LANES));
    let rest = blocks.remainder().iter().zip(x_blocks.remainder());
    let rest = rest.fold(T::zero(), |sum, (&a, &x)| sum + T::of(a.into()) * x);
    for (a, x) in blocks.zip(x_blocks) {
        sums.iter_mut().zip(a).zip(x).for_each(|((sum, &a), &x)| *sum += T::of(a.into()) * x);
    }
    sums.into_iter().fold(rest, |sum, term| sum + term)
}

/// `x += factor · a`.
fn add<A: Copy + Into<f64>, T: Real>(factor: T, a: &[A], x: &mut [T]) {
    x.iter_mut().zip(a).for_each(|(x, &a)| *x += factor * T::of(a.into()));
}

impl Dense {
    fn columns(&self) -> usize {
        self.image.0 * self.image.1 * self.image.2
    }

    fn check_image(&self, what: &str, row: &[usize]) -> Result<()> {
        let (channels, height, width) = self.image;
        if row == [channels, height, width] {
            return Ok(());
        }
        let expected = format!("[{channels}, {height}, {width}] in every row");
        Err(Error::Shape { what: what.into(), got: row.to_vec(), expected })
    }

    fn check_measurement(&self, row: &[usize]) -> Result<()> {
        if row == [self.rows] {
            return Ok(());
        }
        let expected = format!("[{}] in every row", self.rows);
        Err(Error::Shape { what: "measurement of gaussian_matrix".into(), got: row.to_vec(), expected })
    }

    fn image_shape(&self) -> Vec<usize> {
        vec![self.image.0, self.image.1, self.image.2]
    }
}

impl RowMap for Dense {
    const NAME: &'static str = "Gaussian matrix";

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        self.check_image("image for gaussian_matrix", input)?;
        Ok(vec![self.rows])
    }

    fn input_shape(&self, output: &[usize]) -> Result<Vec<usize>> {
        self.check_measurement(output)?;
        Ok(self.image_shape())
    }

    fn forward<T: Real>(&self, _: &[usize], x: &[T], y: &mut [T]) {
        let norm = T::of(1.0 / (self.rows as f64).sqrt());
        y.par_iter_mut().zip(self.normals.par_chunks(self.columns())).for_each(|(y, row)| *y = dot(row, x) * norm);
    }

    fn transpose<T: Real>(&self, _: &[usize], y: &[T], x: &mut [T]) {
        /// Pixels whose sums stay in the first cache.
        const TILE: usize = 256;
        let norm = T::of(1.0 / (self.rows as f64).sqrt());
        x.par_chunks_mut(TILE).enumerate().for_each(|(tile, x)| {
            let first = tile * TILE;
            for (row, &y) in self.normals.chunks(self.columns()).zip(y) {
                add(y * norm, &row[first..][..x.len()], x);
            }
        });
    }
}

/// `G = U [S 0] Vᵀ`.
///
/// With the factors `Gᵀ = Q [R; 0]` and `Rᵀ = U S Wᵀ`, `V = Q diag(W, I)` is square and orthonormal although only the `m`
/// Householder reflections that make up `Q` are stored.
#[derive(Debug)]
struct Decomposition {
    dense: Arc<Dense>,
    v: Arc<RightVectors>,
    u: Arc<LeftVectors>,
    /// `[1, C, H, W]`: the `m` singular values and zeros.
    singular_values: Tensor,
}

impl Decomposition {
    /// None if the iteration for the singular values does not converge.
    fn new(dense: &Arc<Dense>) -> Option<Self> {
        let (rows, columns) = (dense.rows, dense.columns());
        let norm = 1.0 / (rows as f64).sqrt();
        let transposed = Mat::from_fn(columns, rows, |i, j| f64::from(dense.normals[j * columns + i]) * norm);
        let qr = transposed.qr();
        let (basis, coefficients) = (qr.Q_basis(), qr.Q_coeff());
        let reflections = (0..rows)
            .map(|j| {
                // The block coefficients have the τ of each reflection I − v vᵀ/τ on their diagonals.
                let tau = coefficients[(j % coefficients.nrows(), j)];
                let direction = (j..columns).map(|i| if i == j { 1.0 } else { basis[(i, j)] }).collect();
                Reflection { first: j, direction, weight: 1.0 / tau }
            })
            .collect();
        let svd = qr.thin_R().transpose().svd().ok()?;
        let (left, middle) = (svd.U(), svd.V());
        let mut singular_values: Vec<f64> = (0..rows).map(|i| svd.S()[i]).collect();
        singular_values.resize(columns, 0.0);
        let (channels, height, width) = dense.image;
        let singular_values = Tensor::from_vec(singular_values, (1, channels, height, width), &Device::Cpu).ok()?;
        let by_columns = |matrix: faer::MatRef<'_, f64>| -> Vec<f64> {
            (0..rows * rows).map(|k| matrix[(k % rows, k / rows)]).collect()
        };
        Some(Self {
            dense: dense.clone(),
            v: Arc::new(RightVectors { dense: dense.clone(), reflections, middle: by_columns(middle) }),
            u: Arc::new(LeftVectors { dense: dense.clone(), left: by_columns(left) }),
            singular_values,
        })
    }
}

/// `I − w v vᵀ` on everything from `first` on.
#[derive(Debug)]
struct Reflection {
    first: usize,
    direction: Vec<f64>,
    weight: f64,
}

impl Reflection {
    fn apply(&self, x: &mut [f64]) {
        let x = &mut x[self.first..];
        let along = dot(&self.direction, x);
        add(-along * self.weight, &self.direction, x);
    }
}

/// `Mᵀ x` of a square matrix that is stored column by column.
fn times_transposed(matrix: &[f64], x: &[f64]) -> Vec<f64> {
    matrix.chunks(x.len()).map(|column| dot(column, x)).collect()
}

/// `M x`.
fn times(matrix: &[f64], x: &[f64]) -> Vec<f64> {
    let mut y = vec![0.0; x.len()];
    matrix.chunks(x.len()).zip(x).for_each(|(column, &x)| add(x, column, &mut y));
    y
}

fn to_f64<T: Real>(x: &[T]) -> Vec<f64> {
    x.iter().map(|&value| WithDType::to_f64(value)).collect()
}

/// `V`, from spectrum to image.
#[derive(Debug)]
struct RightVectors {
    dense: Arc<Dense>,
    reflections: Vec<Reflection>,
    /// `W`, column by column.
    middle: Vec<f64>,
}

impl RowMap for RightVectors {
    const NAME: &'static str = "right singular vectors of a Gaussian matrix";

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        self.dense.check_image("spectrum of gaussian_matrix", input)?;
        Ok(input.to_vec())
    }

    fn input_shape(&self, output: &[usize]) -> Result<Vec<usize>> {
        self.dense.check_image("image for gaussian_matrix", output)?;
        Ok(output.to_vec())
    }

    fn forward<T: Real>(&self, _: &[usize], spectrum: &[T], image: &mut [T]) {
        let mut values = to_f64(spectrum);
        let seen = times(&self.middle, &values[..self.dense.rows]);
        values[..self.dense.rows].copy_from_slice(&seen);
        self.reflections.iter().rev().for_each(|reflection| reflection.apply(&mut values));
        image.iter_mut().zip(values).for_each(|(to, from)| *to = T::of(from));
    }

    fn transpose<T: Real>(&self, _: &[usize], image: &[T], spectrum: &mut [T]) {
        let mut values = to_f64(image);
        self.reflections.iter().for_each(|reflection| reflection.apply(&mut values));
        let seen = times_transposed(&self.middle, &values[..self.dense.rows]);
        values[..self.dense.rows].copy_from_slice(&seen);
        spectrum.iter_mut().zip(values).for_each(|(to, from)| *to = T::of(from));
    }
}

/// `Uᵀ`, from measurement to spectrum.
#[derive(Debug)]
struct LeftVectors {
    dense: Arc<Dense>,
    /// `U`, column by column.
    left: Vec<f64>,
}

impl RowMap for LeftVectors {
    const NAME: &'static str = "left singular vectors of a Gaussian matrix";

    fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        self.dense.check_measurement(input)?;
        Ok(self.dense.image_shape())
    }

    fn input_shape(&self, output: &[usize]) -> Result<Vec<usize>> {
        self.dense.check_image("spectrum of gaussian_matrix", output)?;
        Ok(vec![self.dense.rows])
    }

    fn forward<T: Real>(&self, _: &[usize], y: &[T], spectrum: &mut [T]) {
        let seen = times_transposed(&self.left, &to_f64(y));
        spectrum.iter_mut().zip(seen).for_each(|(to, from)| *to = T::of(from));
    }

    fn transpose<T: Real>(&self, _: &[usize], spectrum: &[T], y: &mut [T]) {
        let values = times(&self.left, &to_f64(&spectrum[..self.dense.rows]));
        y.iter_mut().zip(values).for_each(|(to, from)| *to = T::of(from));
    }
}

impl ForwardOperator for GaussianMatrix {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        map::apply(&self.dense, x)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for GaussianMatrix {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        map::transpose(&self.dense, y)
    }

    fn as_spectral(&self) -> Option<&dyn SpectralOperator> {
        let decomposition = self.decomposition.get_or_init(|| Decomposition::new(&self.dense));
        decomposition.as_ref().map(|decomposition| decomposition as &dyn SpectralOperator)
    }
}

impl ForwardOperator for Decomposition {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        map::apply(&self.dense, x)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for Decomposition {
    fn adjoint(&self, y: &Tensor) -> Result<Tensor> {
        map::transpose(&self.dense, y)
    }

    fn as_spectral(&self) -> Option<&dyn SpectralOperator> {
        Some(self)
    }
}

/// The first `m` numbers of a spectrum are seen.
impl SpectralOperator for Decomposition {
    fn singular_values(&self) -> &Tensor {
        &self.singular_values
    }

    fn image_to_spectrum(&self, x: &Tensor) -> Result<Tensor> {
        map::transpose(&self.v, x)
    }

    fn spectrum_to_image(&self, spectrum: &Tensor) -> Result<Tensor> {
        map::apply(&self.v, spectrum)
    }

    fn measurement_to_spectrum(&self, y: &Tensor) -> Result<Tensor> {
        map::apply(&self.u, y)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Measured numbers per number of the image, above 0 and at most 1.
    #[serde(default = "Config::keep")]
    keep: f64,
    /// Seed of the matrix.
    #[serde(default)]
    seed: u64,
}

impl Config {
    fn keep() -> f64 {
        0.25
    }
}

/// `gaussian_matrix`
pub(crate) const ENTRY: Entry<BuildOperator> = Entry {
    name: "gaussian_matrix",
    about: "Dense matrix of independent normal numbers, for small images",
    fields: &[
        ("keep", "measured numbers per number of the image, above 0 and at most 1; default 0.25"),
        ("seed", "seed of the matrix; default 0"),
    ],
    example: "keep = 0.25\nseed = 1",
    build: BuildOperator::reshaping(
        |table, site| {
            let Config { keep, seed } = table.try_into()?;
            Ok(Box::new(GaussianMatrix::new(keep, seed, site)?))
        },
        |_, y, _| {
            let reason = format!("measurement is {y:?}, which does not tell channels, height and width of the image");
            Err(Error::config("gaussian_matrix", reason))
        },
    ),
};
