//! Points of two or three coordinates as images of so many channels and one pixel, to which all priors, solvers and
//! objectives apply.
#![allow(dead_code, reason = "every example needs a part of this")]

use candle_core::{DType, Device, Tensor};
use tweedie::Result;
use tweedie::priors::{Denoiser, Mixture};
use tweedie_operators::Rng;

/// `[B, N, 1, 1]` of B points.
pub(crate) fn tensor<const N: usize>(points: &[[f64; N]]) -> Result<Tensor> {
    Ok(Tensor::from_vec(points.concat(), (points.len(), N, 1, 1), &Device::Cpu)?)
}

/// The points of `[B, N, 1, 1]`.
pub(crate) fn points<const N: usize>(x: &Tensor) -> Result<Vec<[f64; N]>> {
    let values = x.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    Ok(values.as_chunks::<N>().0.to_vec())
}

/// Weight, mean and covariance.
pub(crate) type Component<const N: usize> = (f64, [f64; N], [[f64; N]; N]);

/// `Σ_k w_k N(m_k, C_k)`.
pub(crate) fn mixture<const N: usize>(components: &[Component<N>]) -> Result<Mixture> {
    let weights: Vec<f64> = components.iter().map(|(weight, _, _)| *weight).collect();
    let means: Vec<[f64; N]> = components.iter().map(|(_, mean, _)| *mean).collect();
    let covariances: Vec<f64> = components.iter().flat_map(|(_, _, covariance)| covariance.concat()).collect();
    let covariances = Tensor::from_vec(covariances, (components.len(), N, N), &Device::Cpu)?;
    Mixture::new(&weights, &tensor(&means)?, &covariances)
}

/// `Σ_k w_k N(m_k, v I)` of (w, m): many times as fast.
pub(crate) fn round<const N: usize>(modes: &[(f64, [f64; N])], variance: f64) -> Result<Mixture> {
    let (weights, means): (Vec<f64>, Vec<[f64; N]>) = modes.iter().copied().unzip();
    Mixture::isotropic(&weights, &tensor(&means)?, &vec![variance; modes.len()])
}

/// The toy of the paper at a tenth of its size: a fifth of the points around (−½, −½), the others around (½, ½), each with
/// standard deviation 0.1. Song and Ermon (2019), <https://arxiv.org/abs/1907.05600>, section 3.2.
pub(crate) fn two_modes() -> Result<Mixture> {
    round(&[(0.2, [-0.5, -0.5]), (0.8, [0.5, 0.5])], 0.01)
}

/// So many points of a distribution, in single precision as training takes them.
pub(crate) fn draws<const N: usize>(of: &Mixture, count: usize, seed: u64) -> Result<Vec<[f64; N]>> {
    points(&of.sample(&mut Rng::new(seed, 0..count as u64))?)
}

/// `∇ log p_σ` at points.
pub(crate) fn scores<const N: usize>(of: &dyn Denoiser, at: &[[f64; N]], sigma: f64) -> Result<Vec<[f64; N]>> {
    points(&of.score(&tensor(at)?, sigma)?)
}

/// `log p_σ` at points.
pub(crate) fn log_densities<const N: usize>(of: &Mixture, at: &[[f64; N]], sigma: f64) -> Result<Vec<f64>> {
    Ok(of.log_density(&tensor(at)?, sigma)?.to_vec1()?)
}

/// Densities at points as shades of up to 0.6, the largest among them.
pub(crate) fn shades(of: &Mixture, at: &[[f64; 2]], sigma: f64) -> Result<Vec<f64>> {
    let densities = log_densities(of, at, sigma)?;
    let most = densities.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Ok(densities.into_iter().map(|density| 0.6 * (density - most).exp()).collect())
}

/// The density below which the share `outside` of a distribution's points lies, in the logarithm.
pub(crate) fn quantile(of: &Mixture, outside: f64, sigma: f64) -> Result<f64> {
    let clean: Vec<[f64; 2]> = draws(of, 4000, 77)?;
    let noise = Rng::new(78, 0..4000).normal((4000, 2, 1, 1), &Device::Cpu)?.to_dtype(DType::F64)?;
    let noisy = (tensor(&clean)? + (noise * sigma)?)?;
    let mut values: Vec<f64> = of.log_density(&noisy, sigma)?.to_vec1()?;
    values.sort_by(f64::total_cmp);
    Ok(values[(outside * values.len() as f64) as usize])
}

/// Length of a vector.
pub(crate) fn norm<const N: usize>(v: [f64; N]) -> f64 {
    v.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// How two vectors differ.
pub(crate) fn difference<const N: usize>(a: [f64; N], b: [f64; N]) -> [f64; N] {
    std::array::from_fn(|k| a[k] - b[k])
}
