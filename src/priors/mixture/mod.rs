//! Mixtures of Gaussians over images of one shape: priors whose denoisers and posteriors are formulas.

mod denoise;
mod file;
mod posterior;
mod sample;

use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use faer::{Mat, Side};
use std::fmt;

/// `p(x₀) = Σ_k w_k N(m_k, C_k)` over images of one shape.
///
/// Denoiser, pullback, density, samples and the posterior under a linear operator with Gaussian noise
/// ([`posterior`](Self::posterior)) are exact, whatever σ: the prior to judge a method by, since it can have many modes.
/// One component is a Gaussian of any covariance ([`gaussian`](Self::gaussian)).
///
/// The components differ only within a subspace: with covariances `v_k I` that of their means, at most K − 1 dimensions,
/// and a posterior adds the rows of the operator. Only its coordinates are computed with; what is left of an image is
/// `N(0, v_k I)` in every component. So 800 dimensions cost little more than 8, unless covariances are given in full.
///
/// Parameters are kept in `f64`, tensors are computed in the type and on the device of the image.
#[derive(Clone)]
pub struct Mixture {
    /// Channels, height and width.
    shape: (usize, usize, usize),
    /// Origin of the coordinates, an image.
    center: Vec<f64>,
    /// Orthonormal rows that span the subspace; `None` if it is everything.
    basis: Option<Mat<f64>>,
    components: Vec<Component>,
    /// The same numbers in `f64` on the CPU.
    parameters: Parameters,
}

/// A Gaussian, in coordinates of the subspace.
#[derive(Clone)]
struct Component {
    /// Logarithm of its weight.
    log_weight: f64,
    /// `Bᵀ(m − c)`.
    mean: Vec<f64>,
    /// Variance along each of the axes.
    variances: Vec<f64>,
    /// Eigenvectors of the covariance, as columns; `None` are the coordinates themselves. All components agree on it.
    axes: Option<Mat<f64>>,
    /// Variance outside the subspace.
    rest: f64,
}

/// What tensors are computed with.
#[derive(Clone)]
struct Parameters {
    /// `[1, D]`.
    center: Tensor,
    /// `[p, D]`.
    basis: Option<Tensor>,
    /// `[1, K]`.
    log_weights: Tensor,
    /// `[1, K, p]`.
    means: Tensor,
    /// `[1, K, p]`.
    variances: Tensor,
    /// Transposed eigenvectors, `[p, p]` for each component.
    axes: Vec<Tensor>,
    /// `[1, K]`.
    rest: Tensor,
}

/// Channels, height and width.
type Shape = (usize, usize, usize);

/// Directions shorter than this, relative to the longest, are rounding.
const RANK_TOLERANCE: f64 = 1e-10;

/// How far a file in single precision may be from symmetric and from positive, relative to the largest entry.
const COVARIANCE_TOLERANCE: f64 = 1e-6;

/// What the sum of the weights may miss 1 by.
const WEIGHT_TOLERANCE: f64 = 1e-6;

impl Mixture {
    /// Components `N(m_k, v_k I)`; variance 0 is a point.
    ///
    /// # Shapes
    /// `weights` and `variances`: K numbers; `means`: `[K, C, H, W]`.
    /// # Errors
    /// `Config` for weights that are negative or whose sum is not 1 to 10⁻⁶, for a variance below 0, and for numbers that are
    /// not finite or not as many as there are means.
    pub fn isotropic(weights: &[f64], means: &Tensor, variances: &[f64]) -> Result<Self> {
        let (shape, means) = checked_means(weights, means)?;
        if variances.len() != means.len() {
            return refuse("variances", variances.len(), &format!("{}, one for each mean", means.len()));
        }
        if let Some(variance) = variances.iter().find(|variance| !(variance.is_finite() && **variance >= 0.0)) {
            return refuse("variances", variance, "finite numbers of at least 0");
        }
        let center = weighted_mean(weights, &means);
        let size = center.len();
        let apart = Mat::from_fn(means.len(), size, |k, i| means[k][i] - center[i]);
        // Two directions at least are worth a subspace; a mixture has one even where all means are the same.
        let mut basis = row_space(&apart)?;
        if basis.nrows() == 0 {
            basis = Mat::from_fn(1, size, |_, i| if i == 0 { 1.0 } else { 0.0 });
        }
        let basis = (basis.nrows() < size).then_some(basis);
        let coordinates = match &basis {
            Some(basis) => &apart * basis.transpose(),
            None => apart,
        };
        let components = weights.iter().zip(variances).enumerate().map(|(k, (weight, &variance))| Component {
            log_weight: weight.ln(),
            mean: (0..coordinates.ncols()).map(|j| coordinates[(k, j)]).collect(),
            variances: vec![variance; coordinates.ncols()],
            axes: None,
            rest: variance,
        });
        Self::assemble(shape, center, basis, components.collect())
    }

    /// Components `N(m_k, C_k)`.
    ///
    /// # Shapes
    /// `weights`: K numbers; `means`: `[K, C, H, W]`; `covariances`: `[K, D, D]` with D = C · H · W.
    /// # Errors
    /// As [`isotropic`](Self::isotropic), and `Config` unless every covariance is symmetric and positive semi-definite.
    pub fn new(weights: &[f64], means: &Tensor, covariances: &Tensor) -> Result<Self> {
        let (shape, means) = checked_means(weights, means)?;
        let center = weighted_mean(weights, &means);
        let (count, size) = (means.len(), center.len());
        if covariances.dims() != [count, size, size] {
            let expected = format!("[{count}, {size}, {size}], a matrix for each mean");
            return refuse("shape of the covariances", format!("{:?}", covariances.dims()), &expected);
        }
        let mut components = Vec::with_capacity(count);
        for (k, (weight, mean)) in weights.iter().zip(&means).enumerate() {
            let values = doubles(&covariances.get(k)?)?;
            let (variances, axes) = eigen(k, &values, size)?;
            components.push(Component {
                log_weight: weight.ln(),
                mean: mean.iter().zip(&center).map(|(m, c)| m - c).collect(),
                variances,
                axes: Some(axes),
                rest: 0.0,
            });
        }
        Self::assemble(shape, center, None, components)
    }

    /// A single Gaussian.
    ///
    /// # Shapes
    /// `mean`: `[C, H, W]`; `covariance`: `[D, D]` with D = C · H · W.
    /// # Errors
    /// As [`new`](Self::new).
    pub fn gaussian(mean: &Tensor, covariance: &Tensor) -> Result<Self> {
        Self::new(&[1.0], &mean.unsqueeze(0)?, &covariance.unsqueeze(0)?)
    }

    /// Normalises the weights, leaves out components that have none, and makes the tensors.
    fn assemble(
        shape: (usize, usize, usize),
        center: Vec<f64>,
        basis: Option<Mat<f64>>,
        mut components: Vec<Component>,
    ) -> Result<Self> {
        let largest = components.iter().map(|component| component.log_weight).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = components.iter().map(|component| (component.log_weight - largest).exp()).sum();
        let total = largest + sum.ln();
        components.iter_mut().for_each(|component| component.log_weight -= total);
        components.retain(|component| component.log_weight.exp() > 0.0);
        let parameters = Parameters::new(&center, basis.as_ref(), &components)?;
        Ok(Self { shape, center, basis, components, parameters })
    }

    /// Channels, height and width of its images.
    pub fn shape(&self) -> (usize, usize, usize) {
        self.shape
    }

    /// Weights of the components, whose sum is 1; components of weight 0 are left out.
    pub fn weights(&self) -> Vec<f64> {
        self.components.iter().map(|component| component.log_weight.exp()).collect()
    }

    /// Means of the components, `[K, C, H, W]` in `f64`.
    pub fn means(&self) -> Result<Tensor> {
        let (channels, height, width) = self.shape;
        let coordinates = self.parameters.means.squeeze(0)?;
        let means = match &self.parameters.basis {
            Some(basis) => coordinates.matmul(basis)?,
            None => coordinates,
        };
        let means = means.broadcast_add(&self.parameters.center)?;
        Ok(means.reshape((self.components.len(), channels, height, width))?)
    }

    /// Covariances of the components, `[K, D, D]` in `f64`.
    pub fn covariances(&self) -> Result<Tensor> {
        let size = self.center.len();
        let mut covariances = Vec::with_capacity(self.components.len());
        for component in &self.components {
            let mut excess = component.covariance();
            (0..component.mean.len()).for_each(|i| excess[(i, i)] -= component.rest);
            let excess = match &self.basis {
                Some(basis) => basis.transpose() * excess * basis,
                None => excess,
            };
            let value = |at: usize| {
                let (i, j) = (at / size, at % size);
                excess[(i, j)] + if i == j { component.rest } else { 0.0 }
            };
            covariances.push(Tensor::from_vec((0..size * size).map(value).collect(), (size, size), &Device::Cpu)?);
        }
        Ok(Tensor::stack(&covariances, 0)?)
    }

    /// `√(tr Σ / D)` for the covariance Σ of the whole mixture.
    fn standard_deviation(&self) -> f64 {
        let (mut mean, mut square) = (vec![0.0; self.components.first().map_or(0, |c| c.mean.len())], 0.0);
        for component in &self.components {
            let weight = component.log_weight.exp();
            let outside = (self.center.len() - component.mean.len()) as f64 * component.rest;
            let lengths: f64 = component.mean.iter().map(|x| x * x).sum();
            square += weight * (component.variances.iter().sum::<f64>() + outside + lengths);
            mean.iter_mut().zip(&component.mean).for_each(|(sum, x)| *sum += weight * x);
        }
        let of_mean: f64 = mean.iter().map(|x| x * x).sum();
        ((square - of_mean) / self.center.len() as f64).sqrt()
    }

    /// The distance from 0 within which nearly everything of it lies.
    fn radius(&self) -> f64 {
        let norm = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>().sqrt();
        let spread = |component: &Component| {
            let outside = (self.center.len() - component.mean.len()) as f64 * component.rest;
            (component.variances.iter().sum::<f64>() + outside).sqrt() + norm(&component.mean)
        };
        norm(&self.center) + self.components.iter().map(spread).fold(0.0, f64::max)
    }
}

impl Component {
    /// The covariance in coordinates of the subspace.
    fn covariance(&self) -> Mat<f64> {
        let size = self.variances.len();
        match &self.axes {
            Some(axes) => Mat::from_fn(size, size, |i, j| axes[(i, j)] * self.variances[j]) * axes.transpose(),
            None => Mat::from_fn(size, size, |i, j| if i == j { self.variances[i] } else { 0.0 }),
        }
    }
}

impl Parameters {
    fn new(center: &[f64], basis: Option<&Mat<f64>>, components: &[Component]) -> Result<Self> {
        let (count, size) = (components.len(), components.first().map_or(0, |component| component.mean.len()));
        let line = |values: Vec<f64>| Tensor::from_vec(values, (1, count), &Device::Cpu);
        let lines = |value: fn(&Component) -> &[f64]| {
            let values: Vec<f64> = components.iter().flat_map(value).copied().collect();
            Tensor::from_vec(values, (1, count, size), &Device::Cpu)
        };
        let axes = components.iter().filter_map(|component| component.axes.as_ref());
        Ok(Self {
            center: Tensor::from_vec(center.to_vec(), (1, center.len()), &Device::Cpu)?,
            basis: basis.map(|basis| tensor(basis.nrows(), basis.ncols(), |i, j| basis[(i, j)])).transpose()?,
            log_weights: line(components.iter().map(|component| component.log_weight).collect())?,
            means: lines(|component| &component.mean)?,
            variances: lines(|component| &component.variances)?,
            axes: axes.map(|axes| tensor(size, size, |i, j| axes[(j, i)])).collect::<Result<_>>()?,
            rest: line(components.iter().map(|component| component.rest).collect())?,
        })
    }

    /// In the type and on the device of `x`.
    fn like(&self, x: &Tensor) -> Result<Self> {
        let like = |constant: &Tensor| constant.to_dtype(x.dtype())?.to_device(x.device());
        Ok(Self {
            center: like(&self.center)?,
            basis: self.basis.as_ref().map(like).transpose()?,
            log_weights: like(&self.log_weights)?,
            means: like(&self.means)?,
            variances: like(&self.variances)?,
            axes: self.axes.iter().map(like).collect::<Result<_, _>>()?,
            rest: like(&self.rest)?,
        })
    }
}

impl fmt::Debug for Mixture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = formatter.debug_struct("Mixture");
        debug.field("shape", &self.shape).field("components", &self.components.len()).finish_non_exhaustive()
    }
}

fn refuse<T>(what: &str, got: impl ToString, expected: &str) -> Result<T> {
    Err(Error::Config { name: format!("{what} of a mixture"), got: got.to_string(), expected: expected.into() })
}

fn tensor(rows: usize, columns: usize, value: impl Fn(usize, usize) -> f64) -> Result<Tensor> {
    let values: Vec<f64> = (0..rows * columns).map(|at| value(at / columns, at % columns)).collect();
    Ok(Tensor::from_vec(values, (rows, columns), &Device::Cpu)?)
}

/// All values in double precision.
fn doubles(x: &Tensor) -> Result<Vec<f64>> {
    Ok(x.flatten_all()?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1()?)
}

/// The shape of the images, and the means as vectors, if they and the weights can be those of a mixture.
fn checked_means(weights: &[f64], means: &Tensor) -> Result<(Shape, Vec<Vec<f64>>)> {
    let &[count, channels, height, width] = means.dims() else {
        return refuse("shape of the means", format!("{:?}", means.dims()), "[K, C, H, W]");
    };
    if means.elem_count() == 0 {
        return refuse("shape of the means", format!("{:?}", means.dims()), "at least one image with pixels");
    }
    if weights.len() != count {
        return refuse("number of weights", weights.len(), &format!("{count}, one for each mean"));
    }
    if let Some(weight) = weights.iter().find(|weight| !(weight.is_finite() && **weight >= 0.0)) {
        return refuse("weights", weight, "finite numbers of at least 0");
    }
    let sum: f64 = weights.iter().sum();
    if (sum - 1.0).abs() > WEIGHT_TOLERANCE {
        return refuse("sum of the weights", sum, "1 to within 1e-6");
    }
    let values = doubles(means)?;
    if let Some(value) = values.iter().find(|value| !value.is_finite()) {
        return refuse("means", value, "finite numbers");
    }
    let size = channels * height * width;
    Ok(((channels, height, width), values.chunks(size).map(<[f64]>::to_vec).collect()))
}

fn weighted_mean(weights: &[f64], means: &[Vec<f64>]) -> Vec<f64> {
    let mut center = vec![0.0; means[0].len()];
    for (weight, mean) in weights.iter().zip(means) {
        center.iter_mut().zip(mean).for_each(|(c, m)| *c += weight * m);
    }
    center
}

/// Eigenvalues and eigenvectors of the covariance of component `k`, if it is one.
fn eigen(k: usize, values: &[f64], size: usize) -> Result<(Vec<f64>, Mat<f64>)> {
    let what = |what: &str| format!("{what} {k}");
    if let Some(value) = values.iter().find(|value| !value.is_finite()) {
        return refuse(&what("entry of covariance"), value, "a finite number");
    }
    let largest = values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    for i in 0..size {
        for j in 0..i {
            let (lower, upper) = (values[i * size + j], values[j * size + i]);
            if (lower - upper).abs() > COVARIANCE_TOLERANCE * largest {
                let expected = format!("{upper}, which is its entry ({j}, {i}): a symmetric matrix");
                return refuse(&what(&format!("entry ({i}, {j}) of covariance")), lower, &expected);
            }
        }
    }
    let matrix = Mat::from_fn(size, size, |i, j| 0.5 * (values[i * size + j] + values[j * size + i]));
    let (variances, axes) = self_adjoint_eigen(&matrix)?;
    let smallest = variances.iter().copied().fold(f64::INFINITY, f64::min);
    if smallest < -COVARIANCE_TOLERANCE * largest {
        return refuse(&what("smallest eigenvalue of covariance"), smallest, "at least 0");
    }
    Ok((variances.into_iter().map(|variance| variance.max(0.0)).collect(), axes))
}

/// Eigenvalues and eigenvectors, as columns, of a symmetric matrix.
fn self_adjoint_eigen(matrix: &Mat<f64>) -> Result<(Vec<f64>, Mat<f64>)> {
    let Ok(eigen) = matrix.self_adjoint_eigen(Side::Lower) else {
        return refuse("eigenvalues", "an iteration that did not converge", "finite covariances");
    };
    Ok(((0..matrix.nrows()).map(|i| eigen.S()[i]).collect(), eigen.U().to_owned()))
}

/// Orthonormal rows that span the rows of `matrix`.
fn row_space(matrix: &Mat<f64>) -> Result<Mat<f64>> {
    let Ok(svd) = matrix.thin_svd() else {
        return refuse("subspace", "an iteration that did not converge", "finite means");
    };
    let count = matrix.nrows().min(matrix.ncols());
    let largest = (0..count).map(|i| svd.S()[i]).fold(0.0, f64::max);
    let rank = (0..count).filter(|&i| svd.S()[i] > RANK_TOLERANCE * largest).count();
    Ok(Mat::from_fn(rank, matrix.ncols(), |i, j| svd.V()[(j, i)]))
}
