//! Mixtures of Gaussians against quadrature, finite differences and conditioning written out by hand.

use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use tweedie::Result;
use tweedie::models::{Model, ModelOptions};
use tweedie::priors::{Denoiser, Mixture};
use tweedie_operators::forward::{ForwardOperator, Inpaint, Matrix};
use tweedie_operators::{Rng, Site};

fn tensor(values: &[f64], shape: impl Into<candle_core::Shape>) -> Tensor {
    Tensor::from_vec(values.to_vec(), shape, &Device::Cpu).unwrap()
}

fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Numbers that look random, between −1 and 1.
fn scattered(count: usize, seed: u32) -> Vec<f64> {
    let fraction = |k: usize| (f64::from(k as u32 + 1) * 0.754_877_666 + f64::from(seed) * 0.569_840_29).fract();
    (0..count).map(|k| 2.0 * fraction(k * k + 3 * k) - 1.0).collect()
}

#[track_caller]
fn assert_close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= tolerance, "{what}: value {i} is {got}, expected {expected}");
    }
}

/// Three components on a line.
fn line() -> (Mixture, impl Fn(f64) -> f64) {
    let (weights, means, variances) = ([0.5, 0.3, 0.2], [-1.5, 0.5, 2.0], [0.2, 0.05, 0.5]);
    let mixture = Mixture::isotropic(&weights, &tensor(&means, (3, 1, 1, 1)), &variances).unwrap();
    (mixture, move |x| (0..3).map(|k| weights[k] * normal(x - means[k], variances[k])).sum())
}

fn normal(x: f64, variance: f64) -> f64 {
    (-0.5 * x * x / variance).exp() / (std::f64::consts::TAU * variance).sqrt()
}

/// Covariances of two components in the plane: entries (0, 0), (0, 1), (1, 1).
const PLANE: [[f64; 3]; 2] = [[0.5, 0.3, 0.4], [0.2, -0.1, 0.6]];
const PLANE_MEANS: [[f64; 2]; 2] = [[-0.8, 0.4], [1.0, -0.5]];
const PLANE_WEIGHTS: [f64; 2] = [0.35, 0.65];

fn plane() -> Mixture {
    let covariances: Vec<f64> = PLANE.iter().flat_map(|[a, b, c]| [*a, *b, *b, *c]).collect();
    let means: Vec<f64> = PLANE_MEANS.concat();
    Mixture::new(&PLANE_WEIGHTS, &tensor(&means, (2, 1, 1, 2)), &tensor(&covariances, (2, 2, 2))).unwrap()
}

fn plane_density(x: f64, y: f64) -> f64 {
    let component = |k: usize| {
        let ([a, b, c], [m, n]) = (PLANE[k], PLANE_MEANS[k]);
        let (determinant, u, v) = (a * c - b * b, x - m, y - n);
        let square = (c * u * u - 2.0 * b * u * v + a * v * v) / determinant;
        PLANE_WEIGHTS[k] * (-0.5 * square).exp() / (std::f64::consts::TAU * determinant.sqrt())
    };
    component(0) + component(1)
}

/// Twelve dimensions.
const SHAPE: (usize, usize, usize) = (3, 2, 2);

/// Three components of 12 dimensions whose covariances are multiples of the identity.
fn isotropic() -> (Mixture, [f64; 3], Vec<f64>, [f64; 3]) {
    let (weights, variances) = ([0.2, 0.5, 0.3], [0.3, 0.1, 0.6]);
    let means = scattered(36, 5);
    let mixture = Mixture::isotropic(&weights, &tensor(&means, (3, 3, 2, 2)), &variances).unwrap();
    (mixture, weights, means, variances)
}

/// A covariance in 12 dimensions, of rank `rank` but for `floor` times the identity.
fn covariance(rank: usize, floor: f64, seed: u32) -> Vec<f64> {
    let factor = scattered(12 * rank, seed);
    let entry = |i: usize, j: usize| {
        let sum = (0..rank).map(|k| factor[i * rank + k] * factor[j * rank + k]).sum::<f64>();
        sum + if i == j { floor } else { 0.0 }
    };
    (0..144).map(|at| entry(at / 12, at % 12)).collect()
}

#[test]
fn density_and_denoiser_on_a_line_are_those_of_quadrature() {
    let (mixture, density) = line();
    let points = [-3.0, -1.2, 0.1, 0.9, 4.0];
    let x = tensor(&points, (5, 1, 1, 1));
    for sigma in [0.1, 0.7, 5.0] {
        let step = 1e-3;
        let sums = points.map(|x| {
            let sum = |weight: fn(f64) -> f64| {
                let at = |k: i32| f64::from(k) * step;
                (-8000..=8000).map(|k| weight(at(k)) * density(at(k)) * normal(x - at(k), sigma * sigma)).sum::<f64>()
            };
            (sum(|_| 1.0) * step, sum(|x0| x0) * step)
        });
        let log_density = values(&mixture.log_density(&x, sigma).unwrap());
        assert_close("density", &log_density, &sums.map(|(mass, _)| mass.ln()), 1e-9);
        let denoised = values(&mixture.denoise(&x, sigma).unwrap());
        assert_close("denoised", &denoised, &sums.map(|(mass, moment)| moment / mass), 1e-9);
    }
    assert_close("σ = 0", &values(&mixture.log_density(&x, 0.0).unwrap()), &points.map(|x| density(x).ln()), 1e-12);
}

#[test]
fn density_and_denoiser_in_the_plane_are_those_of_quadrature() {
    let mixture = plane();
    let points = [[0.0, 0.0], [-1.0, 0.7], [2.0, 1.0], [0.3, -2.0]];
    let x = tensor(&points.concat(), (4, 1, 1, 2));
    for sigma in [0.3, 1.5] {
        let step = 0.03;
        let mut expected = (Vec::new(), Vec::new());
        for [x, y] in points {
            let mut sums = [0.0; 3];
            for at in 0..401 * 401 {
                let (u, v) = (f64::from(at % 401 - 200) * step, f64::from(at / 401 - 200) * step);
                let mass =
                    plane_density(u, v) * normal(x - u, sigma * sigma) * normal(y - v, sigma * sigma) * step * step;
                sums = [sums[0] + mass, sums[1] + mass * u, sums[2] + mass * v];
            }
            expected.0.push(sums[0].ln());
            expected.1.extend([sums[1] / sums[0], sums[2] / sums[0]]);
        }
        assert_close("density", &values(&mixture.log_density(&x, sigma).unwrap()), &expected.0, 1e-8);
        assert_close("denoised", &values(&mixture.denoise(&x, sigma).unwrap()), &expected.1, 1e-8);
    }
}

#[test]
fn what_is_computed_in_a_subspace_is_what_full_covariances_give() {
    let (mixture, weights, means, variances) = isotropic();
    let covariances: Vec<f64> =
        variances.iter().flat_map(|v| (0..144).map(move |at| if at / 12 == at % 12 { *v } else { 0.0 })).collect();
    let full = Mixture::new(&weights, &tensor(&means, (3, 3, 2, 2)), &tensor(&covariances, (3, 12, 12))).unwrap();
    assert_close("means", &values(&mixture.means().unwrap()), &means, 1e-14);
    assert_close("covariances", &values(&mixture.covariances().unwrap()), &covariances, 1e-14);
    let (x, v) = (tensor(&scattered(60, 1), (5, 3, 2, 2)), tensor(&scattered(60, 2), (5, 3, 2, 2)));
    for sigma in [0.05, 0.5, 3.0] {
        let of = |mixture: &Mixture| {
            let (denoised, pullback) = mixture.denoise_with_pullback(&x, sigma).unwrap();
            let log_density = mixture.log_density(&x, sigma).unwrap();
            [values(&denoised), values(&pullback.apply(&v).unwrap()), values(&log_density)]
        };
        for (what, (got, expected)) in
            ["denoised", "pullback", "density"].iter().zip(of(&mixture).iter().zip(of(&full)))
        {
            assert_close(&format!("{what}, σ {sigma}"), got, &expected, 1e-10);
        }
    }
}

/// Row by row, so that the same test covers that rows are independent.
#[test]
fn the_pullback_is_the_derivative_and_the_score_that_of_the_density() -> Result<()> {
    let (isotropic, weights, means, _) = isotropic();
    let covariances = [covariance(12, 0.0, 1), covariance(3, 0.0, 2), covariance(12, 0.1, 3)].concat();
    let full = Mixture::new(&weights, &tensor(&means, (3, 3, 2, 2)), &tensor(&covariances, (3, 12, 12)))?;
    let rows = mixing_matrix();
    let posterior = isotropic.posterior(rows.as_linear().unwrap(), 0.2, &tensor(&[0.3, -0.4], (1, 2)))?;
    let flat = isotropic.posterior(rows.as_linear().unwrap(), 0.0, &tensor(&[0.3, -0.4], (1, 2)))?;
    let (x, v) = (tensor(&scattered(36, 7), (3, 3, 2, 2)), tensor(&scattered(36, 8), (3, 3, 2, 2)));
    let direction = tensor(&scattered(36, 9), (3, 3, 2, 2));
    for (name, mixture) in [("isotropic", &isotropic), ("full", &full), ("posterior", &posterior), ("flat", &flat)] {
        for sigma in [0.3, 1.0] {
            let pulled = mixture.denoise_with_pullback(&x, sigma)?.1.apply(&v)?;
            let step = 1e-5;
            let (ahead, behind) = ((&x + (&direction * step)?)?, (&x - (&direction * step)?)?);
            let change = ((mixture.denoise(&ahead, sigma)? - mixture.denoise(&behind, sigma)?)? / (2.0 * step))?;
            let dot = |a: &Tensor, b: &Tensor| values(&(a * b).unwrap().flatten_from(1).unwrap().sum(1).unwrap());
            let what = format!("{name}, σ {sigma}");
            assert_close(&what, &dot(&pulled, &direction), &dot(&v, &change), 1e-8);
            let densities = (mixture.log_density(&ahead, sigma)? - mixture.log_density(&behind, sigma)?)?;
            let slope = values(&(densities / (2.0 * step))?);
            assert_close(&what, &dot(&mixture.score(&x, sigma)?, &direction), &slope, 1e-6);
        }
    }
    Ok(())
}

/// Two rows over 12 numbers that are neither orthogonal nor of one length.
fn mixing_matrix() -> Matrix {
    let entries: Vec<(usize, usize, f64)> =
        scattered(24, 4).into_iter().enumerate().map(|(at, value)| (at / 12, at % 12, value)).collect();
    Matrix::new((2, 12), &entries, Site::new(SHAPE, &Device::Cpu, DType::F64)).unwrap()
}

#[test]
fn single_precision_is_double_precision_to_rounding_and_rows_do_not_know_of_one_another() {
    let (mixture, ..) = isotropic();
    let x = tensor(&scattered(24 * 12, 3), (24, 3, 2, 2));
    for sigma in [0.02, 0.5, 50.0] {
        let double = mixture.denoise_with_pullback(&x, sigma).unwrap();
        let single = x.to_dtype(DType::F32).unwrap();
        let (denoised, pullback) = mixture.denoise_with_pullback(&single, sigma).unwrap();
        assert_eq!(denoised.dtype(), DType::F32);
        assert_close("denoised", &values(&denoised), &values(&double.0), 2e-5);
        let (got, expected) = (pullback.apply(&single).unwrap(), double.1.apply(&x).unwrap());
        assert_close("pullback", &values(&got), &values(&expected), 2e-4);
        for row in [0, 7, 23] {
            let alone = mixture.denoise(&single.narrow(0, row, 1).unwrap(), sigma).unwrap();
            assert!(values(&alone) == values(&denoised.narrow(0, row, 1).unwrap()), "row {row}, σ {sigma}");
        }
    }
}

#[test]
fn samples_have_the_moments_of_the_mixture() {
    let (isotropic, ..) = isotropic();
    let rows = mixing_matrix();
    let posterior = isotropic.posterior(rows.as_linear().unwrap(), 0.1, &tensor(&[0.6, -0.2], (1, 2))).unwrap();
    for mixture in [plane(), isotropic, posterior] {
        let (weights, count) = (mixture.weights(), 20_000);
        let (means, covariances) = (values(&mixture.means().unwrap()), values(&mixture.covariances().unwrap()));
        let size = means.len() / weights.len();
        let mean = |i: usize| weights.iter().enumerate().map(|(k, w)| w * means[k * size + i]).sum::<f64>();
        let samples = values(&mixture.sample(&mut Rng::new(3, 0..count)).unwrap());
        let got = |f: &dyn Fn(&[f64]) -> f64| {
            let values: Vec<f64> = samples.chunks(size).map(f).collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let square = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
            (mean, (square / values.len() as f64).sqrt())
        };
        for i in 0..size {
            let (value, error) = got(&|x| x[i]);
            assert!((value - mean(i)).abs() < 4.5 * error, "mean {i}: {value} ± {error}, expected {}", mean(i));
            for j in 0..=i {
                let within = |k: usize| covariances[(k * size + i) * size + j];
                let apart = |k: usize| (means[k * size + i] - mean(i)) * (means[k * size + j] - mean(j));
                let expected: f64 = weights.iter().enumerate().map(|(k, w)| w * (within(k) + apart(k))).sum();
                let (value, error) = got(&|x| (x[i] - mean(i)) * (x[j] - mean(j)));
                assert!((value - expected).abs() < 4.5 * error, "({i}, {j}): {value} ± {error}, expected {expected}");
            }
        }
    }
}

/// `log p(x₀|y) = log p(x₀) + log N(y; A x₀, σ_y²) − log p(y)`, whatever `x₀`.
#[test]
fn the_density_of_a_posterior_is_bayes_rule() {
    let operator = mixing_matrix();
    let (isotropic, weights, means, _) = isotropic();
    let covariances = [covariance(12, 0.1, 1), covariance(3, 0.1, 2), covariance(12, 0.2, 3)].concat();
    let full = Mixture::new(&weights, &tensor(&means, (3, 3, 2, 2)), &tensor(&covariances, (3, 12, 12))).unwrap();
    let y = tensor(&[0.3, -0.4], (1, 2));
    let x = tensor(&scattered(60, 11), (5, 3, 2, 2));
    for prior in [isotropic, full] {
        for sigma_y in [0.05_f64, 0.7] {
            let posterior = prior.posterior(operator.as_linear().unwrap(), sigma_y, &y).unwrap();
            let misfit = operator.forward(&x).unwrap().broadcast_sub(&y).unwrap();
            let square = values(&misfit.sqr().unwrap().sum(1).unwrap());
            let prior = values(&prior.log_density(&x, 0.0).unwrap());
            let posterior = values(&posterior.log_density(&x, 0.0).unwrap());
            let evidence = |i: usize| prior[i] - 0.5 * square[i] / sigma_y.powi(2) - posterior[i];
            for i in 1..5 {
                let error = (evidence(i) - evidence(0)).abs() / evidence(0).abs().max(1.0);
                assert!(error < 1e-9, "σ_y {sigma_y}, point {i}: {} and {}", evidence(i), evidence(0));
            }
        }
    }
}

#[test]
fn moments_of_a_posterior_in_the_plane_are_those_of_quadrature() {
    let entries = [(0, 0, 0.8), (0, 1, -1.3)];
    let operator = Matrix::new((1, 2), &entries, Site::new((1, 1, 2), &Device::Cpu, DType::F64)).unwrap();
    let (y, sigma_y) = (0.4, 0.25);
    let posterior = plane().posterior(operator.as_linear().unwrap(), sigma_y, &tensor(&[y], (1, 1, 1))).unwrap();
    let mut sums = [0.0; 6];
    for at in 0..601 * 601 {
        let (u, v) = (f64::from(at % 601 - 300) * 0.02, f64::from(at / 601 - 300) * 0.02);
        let mass = plane_density(u, v) * normal(y - 0.8 * u + 1.3 * v, sigma_y * sigma_y);
        for (sum, value) in sums.iter_mut().zip([1.0, u, v, u * u, u * v, v * v]) {
            *sum += mass * value;
        }
    }
    let expected: Vec<f64> = sums[1..].iter().map(|sum| sum / sums[0]).collect();
    let (weights, means) = (posterior.weights(), values(&posterior.means().unwrap()));
    let covariances = values(&posterior.covariances().unwrap());
    let moment = |value: &dyn Fn(usize) -> f64| (0..2).map(|k| weights[k] * value(k)).sum::<f64>();
    let second = |i: usize, j: usize| moment(&|k| covariances[4 * k + 2 * i + j] + means[2 * k + i] * means[2 * k + j]);
    let got = [moment(&|k| means[2 * k]), moment(&|k| means[2 * k + 1]), second(0, 0), second(0, 1), second(1, 1)];
    assert_close("moments", &got, &expected, 1e-9);
}

/// With two of four numbers seen, `E[u | s] = m_u + C_us (C_ss + σ_y²)⁻¹ (y − m_s)` and
/// `Cov[u | s] = C_uu − C_us (C_ss + σ_y²)⁻¹ C_su`, here with the inverse of a 2×2 matrix written out.
#[test]
fn a_gaussian_under_a_mask_is_conditioned() {
    let factor = scattered(16, 21);
    let c = |i: usize, j: usize| {
        (0..4).map(|k| factor[4 * i + k] * factor[4 * j + k]).sum::<f64>() + if i == j { 0.05 } else { 0.0 }
    };
    let (mean, seen, hidden) = ([0.1, -0.2, 0.3, 0.5], [1, 2], [0, 3]);
    let covariance: Vec<f64> = (0..16).map(|at| c(at / 4, at % 4)).collect();
    let prior = Mixture::gaussian(&tensor(&mean, (1, 2, 2)), &tensor(&covariance, (4, 4))).unwrap();
    let mask = Inpaint::new(&tensor(&[0.0, 1.0, 1.0, 0.0], (1, 1, 2, 2))).unwrap();
    let y = [0.7, -0.6];
    for sigma_y in [0.0, 0.4] {
        let row = tensor(&[0.0, y[0], y[1], 0.0], (1, 1, 2, 2));
        let posterior = prior.posterior(mask.as_linear().unwrap(), sigma_y, &row).unwrap();
        let noise = sigma_y * sigma_y;
        let (a, b, d) = (c(1, 1) + noise, c(1, 2), c(2, 2) + noise);
        let determinant = a * d - b * b;
        let inverse = [[d / determinant, -b / determinant], [-b / determinant, a / determinant]];
        let gain = |i: usize, k: usize| (0..2).map(|l| c(i, seen[l]) * inverse[l][k]).sum::<f64>();
        let shift = |i: usize| (0..2).map(|k| gain(i, k) * (y[k] - mean[seen[k]])).sum::<f64>();
        let expected: Vec<f64> = (0..4).map(|i| mean[i] + shift(i)).collect();
        assert_close("mean", &values(&posterior.means().unwrap()), &expected, 1e-12);
        let covariance = |i: usize, j: usize| c(i, j) - (0..2).map(|k| gain(i, k) * c(seen[k], j)).sum::<f64>();
        let expected: Vec<f64> = (0..16).map(|at| covariance(at / 4, at % 4)).collect();
        assert_close("covariance", &values(&posterior.covariances().unwrap()), &expected, 1e-12);
        if sigma_y == 0.0 {
            let means = values(&posterior.means().unwrap());
            assert_close("seen", &[means[1], means[2]], &y, 1e-12);
            assert!(hidden.iter().all(|&i| expected[5 * i] > 0.01), "the hidden ones stay uncertain");
        }
    }
}

#[test]
fn a_posterior_of_a_posterior_is_that_of_both_measurements() {
    let (prior, ..) = isotropic();
    let both = mixing_matrix();
    let entries = scattered(24, 4);
    let row = |k: usize| {
        let entries: Vec<(usize, usize, f64)> = (0..12).map(|j| (0, j, entries[12 * k + j])).collect();
        Matrix::new((1, 12), &entries, Site::new(SHAPE, &Device::Cpu, DType::F64)).unwrap()
    };
    for sigma_y in [0.0, 0.3] {
        let at_once = prior.posterior(both.as_linear().unwrap(), sigma_y, &tensor(&[0.3, -0.4], (1, 2))).unwrap();
        let first = prior.posterior(row(0).as_linear().unwrap(), sigma_y, &tensor(&[0.3], (1, 1))).unwrap();
        let second = first.posterior(row(1).as_linear().unwrap(), sigma_y, &tensor(&[-0.4], (1, 1))).unwrap();
        assert_close("weights", &second.weights(), &at_once.weights(), 1e-10);
        assert_close("means", &values(&second.means().unwrap()), &values(&at_once.means().unwrap()), 1e-10);
        let (got, expected) = (second.covariances().unwrap(), at_once.covariances().unwrap());
        assert_close("covariances", &values(&got), &values(&expected), 1e-10);
        // What is known already adds nothing.
        let again = at_once.posterior(both.as_linear().unwrap(), 0.0, &tensor(&[0.3, -0.4], (1, 2)));
        if sigma_y == 0.0 {
            let again = again.unwrap();
            assert_close("again", &values(&again.means().unwrap()), &values(&at_once.means().unwrap()), 1e-9);
            let x = again.sample(&mut Rng::new(1, 0..50)).unwrap();
            let seen = values(&both.forward(&x).unwrap());
            assert_close("A x", &seen, &[0.3, -0.4].repeat(50), 1e-7);
        }
    }
}

#[test]
fn without_noise_a_component_must_be_able_to_make_the_measurement() {
    // A point at 1, a point at −1 and a Gaussian around 0.
    let means = tensor(&[1.0, 1.0, -1.0, -1.0, 0.0, 0.0], (3, 1, 1, 2));
    let prior = Mixture::isotropic(&[0.25, 0.25, 0.5], &means, &[0.0, 0.0, 1.0]).unwrap();
    let first = Inpaint::new(&tensor(&[1.0, 0.0], (1, 1, 1, 2))).unwrap();
    let given = |y: f64| prior.posterior(first.as_linear().unwrap(), 0.0, &tensor(&[y, 0.0], (1, 1, 1, 2)));
    // Only the point at 1 has a chance to be exactly 1.
    let posterior = given(1.0).unwrap();
    assert_close("weights", &posterior.weights(), &[1.0], 0.0);
    assert_close("mean", &values(&posterior.means().unwrap()), &[1.0, 1.0], 1e-12);
    let posterior = given(0.3).unwrap();
    assert_close("weights", &posterior.weights(), &[1.0], 0.0);
    assert_close("mean", &values(&posterior.means().unwrap()), &[0.3, 0.0], 1e-12);
    let points = Mixture::isotropic(&[0.5, 0.5], &means.narrow(0, 0, 2).unwrap(), &[0.0, 0.0]).unwrap();
    let refused = points.posterior(first.as_linear().unwrap(), 0.0, &tensor(&[0.3, 0.0], (1, 1, 1, 2)));
    let expected =
        "measurement of a mixture is one that no component can have made, expected A x of an image that has a density";
    assert_eq!(refused.unwrap_err().to_string(), expected);
}

#[test]
fn what_is_no_mixture_is_refused() {
    let means = tensor(&[0.0, 1.0, 2.0, 3.0], (2, 1, 1, 2));
    let message = |result: Result<Mixture>| result.unwrap_err().to_string();
    let isotropic = |weights: &[f64], variances: &[f64]| message(Mixture::isotropic(weights, &means, variances));
    assert_eq!(
        isotropic(&[0.5, 0.6], &[1.0, 1.0]),
        "sum of the weights of a mixture is 1.1, expected 1 to within 1e-6"
    );
    assert_eq!(
        isotropic(&[1.5, -0.5], &[1.0, 1.0]),
        "weights of a mixture is -0.5, expected finite numbers of at least 0"
    );
    assert_eq!(isotropic(&[1.0], &[1.0, 1.0]), "number of weights of a mixture is 1, expected 2, one for each mean");
    assert_eq!(
        isotropic(&[0.5, 0.5], &[1.0, f64::NAN]),
        "variances of a mixture is NaN, expected finite numbers of at least 0"
    );
    assert!(Mixture::isotropic(&[0.5, 0.5 + 5e-7], &means, &[1.0, 1.0]).is_ok(), "rounded weights");
    let full = |covariance: [f64; 4]| {
        let covariances = tensor(&[[1.0, 0.0, 0.0, 1.0], covariance].concat(), (2, 2, 2));
        message(Mixture::new(&[0.5, 0.5], &means, &covariances))
    };
    assert_eq!(
        full([1.0, 0.2, 0.3, 1.0]),
        "entry (1, 0) of covariance 1 of a mixture is 0.3, expected 0.2, which is its entry (0, 1): a symmetric matrix"
    );
    let text = full([1.0, 2.0, 2.0, 1.0]);
    assert!(text.starts_with("smallest eigenvalue of covariance 1 of a mixture is -1") && text.ends_with("at least 0"));
    assert_eq!(
        full([1.0, f64::INFINITY, 0.0, 1.0]),
        "entry of covariance 1 of a mixture is inf, expected a finite number"
    );
    let wrong = Mixture::new(&[0.5, 0.5], &means, &tensor(&[1.0; 8], (2, 4)));
    assert_eq!(
        message(wrong),
        "shape of the covariances of a mixture is [2, 4], expected [2, 2, 2], a matrix for each mean"
    );
    let (mixture, ..) = self::isotropic();
    let other = mixture.denoise(&tensor(&[0.0; 4], (1, 1, 2, 2)), 1.0).unwrap_err();
    assert_eq!(other.to_string(), "image for a mixture has shape [1, 1, 2, 2], expected [_, 3, 2, 2]");
    let points = Mixture::isotropic(&[1.0], &tensor(&[0.0; 2], (1, 1, 1, 2)), &[0.0]).unwrap();
    assert!(points.log_density(&tensor(&[0.0; 2], (1, 1, 1, 2)), 0.0).is_err(), "a point has no density");
}

#[test]
fn a_file_is_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mixture.safetensors");
    let write = |tensors: &[(&str, Tensor)]| {
        let tensors: HashMap<&str, Tensor> = tensors.iter().cloned().collect();
        candle_core::safetensors::save(&tensors, &path).unwrap();
    };
    let open = || Model::open(&format!("mixture:{}", path.display()), &ModelOptions::default());
    let (mixture, weights, means, variances) = isotropic();
    let means = tensor(&means, (3, 3, 2, 2));
    let x = tensor(&scattered(24, 1), (2, 3, 2, 2));
    let expected = values(&mixture.denoise(&x, 0.4).unwrap());
    write(&[
        ("weights", tensor(&weights, 3).to_dtype(DType::F32).unwrap()),
        ("means", means.to_dtype(DType::F32).unwrap()),
        ("variances", tensor(&variances, 3)),
    ]);
    let model = open().unwrap();
    assert_close("variances", &values(&model.denoiser().denoise(&x, 0.4).unwrap()), &expected, 1e-6);
    assert_eq!(model.denoiser().native_size(), Some((2, 2)));
    assert!(model.facts.contains(&("components".into(), "3".into())), "{:?}", model.facts);
    write(&[
        ("weights", tensor(&weights, 3)),
        ("means", means.clone()),
        ("covariances", mixture.covariances().unwrap()),
    ]);
    assert_close("covariances", &values(&open().unwrap().denoiser().denoise(&x, 0.4).unwrap()), &expected, 1e-12);
    let model = format!("model {}: ", path.display());
    let message = || open().unwrap_err().to_string();
    write(&[("weights", tensor(&weights, 3)), ("means", means.clone())]);
    let expected = "has the tensors means, weights; expected `weights`, `means`, and `variances` or `covariances`";
    assert_eq!(message(), format!("{model}{expected}"));
    write(&[("weights", tensor(&weights, (1, 3))), ("means", means.clone()), ("variances", tensor(&variances, 3))]);
    assert_eq!(message(), format!("{model}tensor weights has shape [1, 3], expected [K]"));
    write(&[("weights", tensor(&[0.2; 3], 3)), ("means", means), ("variances", tensor(&variances, 3))]);
    let sum = 0.2 + 0.2 + 0.2;
    assert_eq!(message(), format!("{model}sum of the weights of a mixture is {sum}, expected 1 to within 1e-6"));
    std::fs::write(&path, "no file").unwrap();
    assert!(message().starts_with(&format!("{model}is not a whole safetensors file (")), "{}", message());
    let missing = Model::open("mixture:nowhere.safetensors", &ModelOptions::default()).unwrap_err();
    assert_eq!(missing.to_string(), "model nowhere.safetensors: no such file");
}
