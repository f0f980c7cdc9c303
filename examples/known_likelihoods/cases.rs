//! Priors whose density is a formula, an image of each, and its density by plain arithmetic.

use candle_core::{DType, Device, Tensor};
use std::f64::consts::{PI, TAU};
use tweedie::Result;
use tweedie::likelihood::{Density, Likelihood, Stage, Trace};
use tweedie::priors::{Denoiser, Gaussian, Mixture};
use tweedie_operators::Rng;

/// Noise of the image: the start of the path.
pub(crate) const SIGMA_MIN: f64 = 0.002;

type Shape = (usize, usize, usize);

/// 2, 64 and 3,072 numbers.
const SHAPES: [Shape; 3] = [(1, 1, 2), (1, 8, 8), (3, 32, 32)];

/// A prior, an image of it, and how likely that is.
pub(crate) struct Case {
    /// The prior.
    pub(crate) name: &'static str,
    pub(crate) prior: Box<dyn Denoiser>,
    /// `[1, C, H, W]`.
    pub(crate) x: Tensor,
    /// `log p(x)` of images with noise of [`SIGMA_MIN`].
    pub(crate) exact: f64,
    /// The same without noise.
    pub(crate) clean: f64,
    pub(crate) traces: Vec<Trace>,
}

/// What was found of a case, and what it should be, in bits per dimension.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) dimensions: usize,
    pub(crate) trace: Trace,
    pub(crate) exact: f64,
    pub(crate) error: f64,
    pub(crate) standard_error: f64,
    /// What the noise of the start is worth.
    pub(crate) noise: f64,
    pub(crate) evaluations: usize,
}

/// All cases.
pub(crate) fn cases() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for shape in SHAPES {
        cases.push(gaussian(shape)?);
        cases.push(mixture(shape)?);
        if dimensions(shape) < 1000 {
            cases.push(correlated(shape)?);
        }
    }
    Ok(cases)
}

/// Measures a case in one way.
pub(crate) fn line(case: &Case, trace: Trace) -> Result<Line> {
    let method = Likelihood { trace, ..Likelihood::default() };
    let quiet = &mut |_: &Stage| Ok(());
    let found = method.log_density(case.prior.as_ref(), &case.x, &mut Rng::new(11, 0..1), quiet)?;
    let Density { nats, standard_error, evaluations, .. } = found[0];
    let dimensions = case.x.elem_count();
    let bits = |nats: f64| nats / (dimensions as f64 * std::f64::consts::LN_2);
    Ok(Line {
        name: case.name,
        dimensions,
        trace,
        exact: 7.0 - bits(case.exact),
        error: bits(case.exact - nats),
        standard_error: bits(standard_error.unwrap_or(f64::NAN)),
        noise: bits(case.clean - case.exact),
        evaluations,
    })
}

/// Probes enough for a standard error of a few thousandths of a bit, and the exact trace where that is cheap.
fn traces(dimensions: usize) -> Vec<Trace> {
    match dimensions {
        2 => vec![Trace::Rademacher(16_384), Trace::Gaussian(65_536), Trace::Exact],
        64 => vec![Trace::Rademacher(1024), Trace::Gaussian(1024), Trace::Exact],
        _ => vec![Trace::Rademacher(8), Trace::Gaussian(8)],
    }
}

fn dimensions((channels, height, width): Shape) -> usize {
    channels * height * width
}

fn image(values: &[f64], (channels, height, width): Shape) -> Result<Tensor> {
    Ok(Tensor::from_slice(values, (1, channels, height, width), &Device::Cpu)?)
}

/// Standard normal numbers.
fn normals(seed: u64, count: usize) -> Result<Vec<f64>> {
    let values = Rng::new(seed, 0..1).normal((1, 1, 1, count), &Device::Cpu)?;
    Ok(values.to_dtype(DType::F64)?.flatten_all()?.to_vec1()?)
}

/// `log N(r; 0, v)`.
fn log_normal(residual: f64, variance: f64) -> f64 {
    -0.5 * (residual * residual / variance + (TAU * variance).ln())
}

fn case(
    name: &'static str,
    prior: Box<dyn Denoiser>,
    x: &[f64],
    shape: Shape,
    log_density: impl Fn(f64) -> f64,
) -> Result<Case> {
    let (exact, clean) = (log_density(SIGMA_MIN), log_density(0.0));
    Ok(Case { name, prior, x: image(x, shape)?, exact, clean, traces: traces(x.len()) })
}

/// Independent pixels, with a mean.
fn gaussian(shape: Shape) -> Result<Case> {
    const MEAN: f64 = 0.2;
    const STD: f64 = 0.3;
    let x: Vec<f64> = normals(1, dimensions(shape))?.into_iter().map(|normal| MEAN + STD * normal).collect();
    let log_density = |sigma: f64| x.iter().map(|x| log_normal(x - MEAN, STD * STD + sigma * sigma)).sum();
    case("Gaussian", Box::new(Gaussian::new(MEAN, STD)?), &x, shape, log_density)
}

/// Three modes of unequal weights and widths; the image is of the second one.
fn mixture(shape: Shape) -> Result<Case> {
    const WEIGHTS: [f64; 3] = [0.5, 0.3, 0.2];
    const STDS: [f64; 3] = [0.15, 0.25, 0.4];
    let size = dimensions(shape);
    // Modes that are nearer in many dimensions, so that none of them has all the weight.
    let apart = 0.8 / (size as f64 / 2.0).sqrt();
    let means: Vec<Vec<f64>> = (0..3)
        .map(|k| Ok(normals(20 + k, size)?.into_iter().map(|normal| 0.1 + apart * normal).collect()))
        .collect::<Result<_>>()?;
    let noise = normals(30, size)?;
    let x: Vec<f64> = (0..size).map(|i| means[1][i] + STDS[1] * noise[i]).collect();
    let log_density = |sigma: f64| {
        let logs: Vec<f64> = (0..3)
            .map(|k| {
                let variance = STDS[k] * STDS[k] + sigma * sigma;
                WEIGHTS[k].ln() + x.iter().zip(&means[k]).map(|(x, m)| log_normal(x - m, variance)).sum::<f64>()
            })
            .collect();
        let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        largest + logs.iter().map(|log| (log - largest).exp()).sum::<f64>().ln()
    };
    let (channels, height, width) = shape;
    let all = Tensor::from_vec(means.concat(), (3, channels, height, width), &Device::Cpu)?;
    let variances = STDS.map(|std| std * std);
    case("mixture", Box::new(Mixture::isotropic(&WEIGHTS, &all, &variances)?), &x, shape, log_density)
}

/// A Gaussian that is smooth, as photos are: the axes of its covariance are cosines, the slow ones have the largest variance.
fn correlated(shape: Shape) -> Result<Case> {
    const MEAN: f64 = -0.1;
    let (_, height, width) = shape;
    let size = dimensions(shape);
    let wave = |frequency: usize, at: usize, length: usize| {
        let norm = if frequency == 0 { 1.0 } else { 2.0 } / length as f64;
        norm.sqrt() * (PI * frequency as f64 * (at as f64 + 0.5) / length as f64).cos()
    };
    let axis = |k: usize, i: usize| wave(k / width, i / width, height) * wave(k % width, i % width, width);
    let variance = |k: usize| 0.2 / (1.0 + 0.5 * (k / width + k % width) as f64);
    let coordinates: Vec<f64> =
        normals(40, size)?.into_iter().enumerate().map(|(k, n)| n * variance(k).sqrt()).collect();
    let x: Vec<f64> = (0..size).map(|i| MEAN + (0..size).map(|k| axis(k, i) * coordinates[k]).sum::<f64>()).collect();
    let log_density = |sigma: f64| (0..size).map(|k| log_normal(coordinates[k], variance(k) + sigma * sigma)).sum();
    let entry = |at: usize| {
        let (i, j) = (at / size, at % size);
        (0..size).map(|k| axis(k, i) * variance(k) * axis(k, j)).sum::<f64>()
    };
    let covariance = Tensor::from_vec((0..size * size).map(entry).collect(), (size, size), &Device::Cpu)?;
    let mean = image(&vec![MEAN; size], shape)?.squeeze(0)?;
    case("correlated Gaussian", Box::new(Mixture::gaussian(&mean, &covariance)?), &x, shape, log_density)
}
