//! What the pictures of the theory claim, where it is exact: docs/theory.md.

use candle_core::{DType, Device, Tensor};
use std::ops::RangeInclusive;
use tweedie::priors::{Denoiser, Mixture};
use tweedie::schedules::{Geometric, Schedule};
use tweedie::solvers::{Langevin, SOLVERS, Step, annealed_langevin, find_solver};
use tweedie_operators::Rng;

/// Points of `N` coordinates as images of so many channels.
fn tensor<const N: usize>(points: &[[f64; N]]) -> Tensor {
    Tensor::from_vec(points.concat(), (points.len(), N, 1, 1), &Device::Cpu).unwrap()
}

fn points<const N: usize>(x: &Tensor) -> Vec<[f64; N]> {
    x.flatten_all().unwrap().to_vec1::<f64>().unwrap().as_chunks::<N>().0.to_vec()
}

/// A fifth of the points around (−½, −½), the others around (½, ½).
fn two_modes() -> Mixture {
    Mixture::isotropic(&[0.2, 0.8], &tensor(&[[-0.5, -0.5], [0.5, 0.5]]), &[0.01, 0.01]).unwrap()
}

fn uniform(rng: &mut Rng) -> Tensor {
    let uniform = rng.uniform((rng.streams(), 2, 1, 1), &Device::Cpu).unwrap();
    uniform.to_dtype(DType::F64).unwrap().affine(1.6, -0.8).unwrap()
}

/// Share of points in the smaller mode after a thousand steps.
fn share(sigmas: &[f64], langevin: Langevin) -> f64 {
    let mut rng = Rng::new(1, 0..1000);
    let x = uniform(&mut rng);
    let x = annealed_langevin(&two_modes(), x, sigmas, &langevin, &mut rng, &mut |_: &Step<'_>| Ok(())).unwrap();
    points::<2>(&x).iter().filter(|[x, y]| x + y < 0.0).count() as f64 / 1000.0
}

#[test]
fn langevin_dynamics_keeps_the_weights_that_it_started_with_and_annealed_it_finds_those_of_the_modes() {
    // Half of the square is nearer to each mode: without passing between them a half is what is left, within three standard
    // errors of 1.6 %, and what the true share is cannot be told.
    let plain = share(&[1e-3, 0.0], Langevin { steps: 1000, epsilon: 5e-4, denoise: false });
    assert!((plain - 0.5).abs() < 0.05, "{plain}");
    let sigmas = Geometric { steps: 10 }.sigmas(&(0.03..=1.0));
    let annealed = share(&sigmas, Langevin { steps: 100, epsilon: 0.2 * 0.03 * 0.03, denoise: false });
    // Three standard errors of 1.3 %.
    assert!((annealed - 0.2).abs() < 0.04, "{annealed}");
}

#[test]
fn the_score_across_a_plane_of_data_is_minus_the_distance_over_the_variance_of_the_noise() {
    // The plane has the normal (0, −0.6, 0.8).
    let (along, normal) = ([[1.0, 0.0, 0.0], [0.0, 0.8, 0.6]], [0.0, -0.6, 0.8]);
    let flat: Vec<f64> =
        (0..9).map(|at| 0.03 * along.iter().map(|v: &[f64; 3]| v[at / 3] * v[at % 3]).sum::<f64>()).collect();
    let covariances = Tensor::from_vec([flat.clone(), flat].concat(), (2, 3, 3), &Device::Cpu).unwrap();
    let prior = Mixture::new(&[0.5, 0.5], &tensor(&[[-0.3, 0.0, 0.0], [0.3, 0.0, 0.0]]), &covariances).unwrap();
    let distances = [-0.4, -0.01, 0.0, 0.1, 0.3];
    let places = distances.map(|d| [0.2, d * normal[1], d * normal[2]]);
    for sigma in [0.3, 0.1, 0.01] {
        for (score, d) in points::<3>(&prior.score(&tensor(&places), sigma).unwrap()).iter().zip(distances) {
            let across: f64 = score.iter().zip(normal).map(|(s, n)| s * n).sum();
            let expected = -d / (sigma * sigma);
            assert!((across - expected).abs() < 1e-8 * (1.0 + expected.abs()), "σ = {sigma}, d = {d}: {across}");
        }
    }
}

#[test]
fn ascent_ends_in_the_modes_and_langevin_dynamics_in_the_distribution() {
    let modes = [[-0.22, -0.12], [0.28, -0.05]];
    let prior = Mixture::isotropic(&[0.6, 0.4], &tensor(&modes), &[0.02, 0.02]).unwrap();
    let step = 5e-4;
    let mut rng = Rng::new(3, 0..1000);
    let start = uniform(&mut rng);
    let (mut top, mut walk) = (start.clone(), start);
    for _ in 0..800 {
        top = (&top + (prior.score(&top, 1e-3).unwrap() * step).unwrap()).unwrap();
        let noise = (rng.normal_like(&walk).unwrap() * (2.0f64 * step).sqrt()).unwrap();
        let climbed = (&walk + (prior.score(&walk, 1e-3).unwrap() * step).unwrap()).unwrap();
        walk = (climbed + noise).unwrap();
    }
    let (tops, ends) = (points::<2>(&top), points::<2>(&walk));
    // Maxima lie between the means, which the other mode pulls together; only the one saddle is on the way.
    let apart = |a: &[f64; 2], b: &[f64; 2]| (a[0] - b[0]).hypot(a[1] - b[1]);
    let mut kept: Vec<[f64; 2]> = Vec::new();
    for top in &tops {
        if kept.iter().all(|other| apart(top, other) > 0.01) {
            kept.push(*top);
        }
    }
    assert!(kept.len() <= 2, "{kept:?}");
    // E x₁ = −0.02, Var x₁ = 0.02 + 0.24 · 0.5² = 0.08: standard errors 0.009 and 0.003 of as many points.
    let mean = ends.iter().map(|end| end[0]).sum::<f64>() / 1000.0;
    let variance = ends.iter().map(|end| (end[0] - mean).powi(2)).sum::<f64>() / 1000.0;
    assert!((mean + 0.02).abs() < 0.03 && (variance - 0.08).abs() < 0.01, "{mean} {variance}");
}

#[test]
fn a_corrector_in_half_of_the_steps_repairs_what_the_predictor_of_the_ode_does_to_the_width_of_a_mode() {
    const RANGE: RangeInclusive<f64> = 0.01..=3.0;
    let prior = two_modes();
    // Root of the mean squared distance to the nearest mode, over its standard deviation.
    let width = |settings: &str| {
        let solver = find_solver(SOLVERS, "predictor_corrector", toml::from_str(settings).unwrap()).unwrap();
        let mut rng = Rng::new(5, 0..1000);
        let noise = rng.normal((1000, 2, 1, 1), &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
        let x = (noise * *RANGE.end()).unwrap();
        let x = solver.solve(&prior, x, &RANGE, &mut rng, &mut |_: &Step<'_>| Ok(())).unwrap();
        let square = |[x, y]: &[f64; 2]| (x.abs() - 0.5).powi(2) + (y.abs() - 0.5).powi(2);
        (points::<2>(&x).iter().map(square).sum::<f64>() / 2000.0).sqrt() / 0.1
    };
    let alone = width("steps = 32\nprobability_flow = true\ncorrector = 'none'");
    let both = width("steps = 16\nprobability_flow = true\ncorrector = 'ald'\nsnr = 0.5");
    assert!((both - 1.0).abs() < 0.6 * (alone - 1.0).abs(), "{alone} alone, {both} with a corrector");
}
