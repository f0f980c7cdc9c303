//! Methods that follow a gradient, and the Gibbs sampler, against their updates written by hand, against published code and
//! against what is known of their laws.
//!
//! Each `*_by_hand` is a method's whole run for one row in plain double precision: independent Gaussian pixels of
//! `N(MEAN, STD²)`, half of them measured.

use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use tweedie::Result;
use tweedie::priors::{Denoiser, Gaussian as GaussianPrior};
use tweedie::samplers::{Annealing, Dps, Mcg, Problem, ProjectAt, SAMPLERS, Sampler, Step, Variance, find_sampler};
use tweedie_operators::forward::{ForwardOperator, Inpaint, LinearOperator, SpectralOperator};
use tweedie_operators::noise::{Gaussian, NoiseModel};
use tweedie_operators::{Measurement, OPERATORS, Pullback, Rng, Site, find};

const MEAN: f64 = 0.3;
const STD: f64 = 0.5;
const SHAPE: (usize, usize, usize) = (2, 4, 4);
const VALUES: usize = 2 * 4 * 4;
const SEEN: usize = VALUES / 2;
const RANGE: RangeInclusive<f64> = 0.002..=80.0;

fn prior() -> GaussianPrior {
    GaussianPrior::new(MEAN, STD).unwrap()
}

fn sampler(name: &str, settings: &str) -> Box<dyn Sampler> {
    find_sampler(SAMPLERS, name, toml::from_str(settings).unwrap()).unwrap()
}

fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn is_seen(i: usize) -> bool {
    (i % 16 / 4 + i % 4).is_multiple_of(2)
}

fn chessboard() -> Inpaint {
    let mask: Vec<f32> = (0..16).map(|i| if is_seen(i) { 1.0 } else { 0.0 }).collect();
    Inpaint::new(&Tensor::from_vec(mask, (1, 1, 4, 4), &Device::Cpu).unwrap()).unwrap()
}

/// In double precision, of images that all differ; unseen pixels have noise too.
fn measure<'a>(operator: &'a dyn ForwardOperator, noise: &'a dyn NoiseModel, rows: usize) -> Measurement<'a> {
    let zeros = Tensor::zeros((rows, SHAPE.0, SHAPE.1, SHAPE.2), DType::F64, &Device::Cpu).unwrap();
    let mut rng = Rng::new(77, 0..rows as u64);
    let truth = rng.normal_like(&zeros).unwrap().affine(STD, MEAN).unwrap();
    Measurement::simulate(operator, noise, &truth, &mut rng).unwrap()
}

fn draw(sampler: &dyn Sampler, measurement: &Measurement<'_>, seed: u64) -> Tensor {
    let rows = measurement.y.dim(0).unwrap() as u64;
    let problem = Problem { prior: &prior(), measurement, guess: None };
    sampler.sample(&problem, SHAPE, &mut Rng::new(seed, 0..rows), &mut |_: &Step<'_>| Ok(())).unwrap()
}

/// The numbers that a row of a sampler gets, one image after the other.
struct Draws(Rng);

impl Draws {
    fn of(seed: u64, row: usize) -> Self {
        Self(Rng::new(seed, row as u64..row as u64 + 1))
    }

    fn next(&mut self) -> Vec<f64> {
        values(&self.0.normal((1, SHAPE.0, SHAPE.1, SHAPE.2), &Device::Cpu).unwrap())
    }

    fn start(&mut self, sigma: f64) -> Vec<f64> {
        self.next().into_iter().map(|n| sigma * n).collect()
    }
}

/// Element by element.
fn each(f: impl FnMut(usize) -> f64) -> Vec<f64> {
    (0..VALUES).map(f).collect()
}

/// `∂D/∂x`.
fn slope(sigma: f64) -> f64 {
    STD.powi(2) / (STD.powi(2) + sigma.powi(2))
}

fn denoised(x: &[f64], sigma: f64) -> Vec<f64> {
    x.iter().map(|x| slope(sigma) * x + (1.0 - slope(sigma)) * MEAN).collect()
}

/// `A u − y`.
fn residual(u: &[f64], y: &[f64]) -> Vec<f64> {
    each(|i| if is_seen(i) { u[i] - y[i] } else { -y[i] })
}

fn seen_part(v: &[f64]) -> Vec<f64> {
    each(|i| if is_seen(i) { v[i] } else { 0.0 })
}

fn norm(v: &[f64]) -> f64 {
    v.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// `∇_u ‖y − A u‖₂`.
fn norm_gradient(u: &[f64], y: &[f64]) -> Vec<f64> {
    let residual = residual(u, y);
    let length = norm(&residual);
    seen_part(&residual).into_iter().map(|r| r / length).collect()
}

/// Every row of three, against the method by hand: `by_hand(y, row)`.
#[track_caller]
fn assert_by_hand(
    sampler: &dyn Sampler,
    measurement: &Measurement<'_>,
    seed: u64,
    mut by_hand: impl FnMut(&[f64], usize) -> Vec<f64>,
) {
    let (x, y) = (values(&draw(sampler, measurement, seed)), values(&measurement.y));
    for (row, (x, y)) in x.chunks(VALUES).zip(y.chunks(VALUES)).enumerate() {
        let expected = by_hand(y, row);
        let size = norm(&expected).max(1.0);
        let worst = x.iter().zip(&expected).map(|(x, e)| (x - e).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-9 * size, "{} row {row} differs by {worst}, the image has norm {size}", sampler.name());
    }
}

/// `x̂₀ + σ' (√(1−ζ) ε̂ + √ζ n)`; the draw is made if there is a next level and fresh noise.
fn renoise(x0: &[f64], eps: &[f64], to: f64, fraction: f64, draws: &mut Draws) -> Vec<f64> {
    if to == 0.0 {
        return x0.to_vec();
    }
    let n = draws.next();
    each(|i| x0[i] + to * ((1.0 - fraction).sqrt() * eps[i] + fraction.sqrt() * n[i]))
}

/// The ancestral step with variance `variance(σ, σ')`, minus the scaled gradient; `project` has the last word.
fn guided_by_hand(
    sigmas: &[f64],
    draws: &mut Draws,
    variance: impl Fn(f64, f64) -> f64,
    mut gradient: impl FnMut(&[f64], f64, &mut Draws) -> Vec<f64>,
    scale: f64,
    mut project: impl FnMut(Vec<f64>, f64, f64, &mut Draws) -> Vec<f64>,
) -> Vec<f64> {
    let mut x = draws.start(sigmas[0]);
    for pair in sigmas.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        let d = denoised(&x, from);
        let gradient = gradient(&d, from, draws);
        let fresh = if to > 0.0 { draws.next() } else { vec![0.0; VALUES] };
        let factor = scale * ((1.0 + from * from) * (1.0 + to * to)).sqrt() * slope(from);
        let next = each(|i| {
            let mean = d[i] + (to / from).powi(2) * (x[i] - d[i]);
            mean + variance(from, to).sqrt() * fresh[i] - factor * gradient[i]
        });
        x = project(next, from, to, draws);
    }
    x
}

/// A function of σ, and one of σ and σ'.
type OfSigma = fn(f64) -> f64;
type OfLevel = fn(f64, f64) -> f64;

fn small(from: f64, to: f64) -> f64 {
    (to / from).powi(2) * (from * from - to * to)
}

fn large(from: f64, to: f64) -> f64 {
    (1.0 + to * to) / (1.0 + from * from) * (from * from - to * to)
}

#[test]
fn dps_with_any_variance_and_either_norm_is_its_update_by_hand() {
    let (operator, noise) = (chessboard(), Gaussian::new(0.1).unwrap());
    let measurement = measure(&operator, &noise, 3);
    let annealing = "annealing = { steps = 12, sigma_start = 10.0, renoise = 'ancestral' }";
    let geometric = |from: f64, to: f64| (0.65 * large(from, to).ln() + 0.35 * small(from, to).ln()).exp();
    let variances: [(&str, OfLevel); 3] = [("'small'", small), ("'large'", large), ("{ learned = 0.65 }", geometric)];
    for (text, variance) in variances {
        for relative in [false, true] {
            let settings = format!("scale = 0.3\nrelative = {relative}\nvariance = {text}\n{annealing}");
            let dps = sampler("dps", &settings);
            let sigmas = dps.annealing().sigmas(&RANGE);
            assert_by_hand(dps.as_ref(), &measurement, 8, |y, row| {
                let inverse = y.iter().map(|y| 1.0 / y.abs().max(2.0 / 255.0)).sum::<f64>() / VALUES as f64;
                let weight = if relative { inverse } else { 1.0 };
                let gradient =
                    |d: &[f64], _: f64, _: &mut Draws| norm_gradient(d, y).into_iter().map(|g| weight * g).collect();
                let variance = |from, to| if to == 0.0 { 0.0 } else { variance(from, to) };
                guided_by_hand(&sigmas, &mut Draws::of(8, row), variance, gradient, 0.3, |x, _, _, _| x)
            });
        }
    }
    let refused =
        |settings: &str| find_sampler(SAMPLERS, "dps", toml::from_str(settings).unwrap()).unwrap_err().to_string();
    let text = refused("variance = 'large'\nannealing = { renoise = 'all' }");
    assert_eq!(text, "renoise is All, expected renoise = 'ancestral' beside a variance other than small");
    let text = refused("variance = { learned = 2.0 }\nannealing = { renoise = 'ancestral' }");
    assert_eq!(text, "variance is 2, expected 0 to 1");
}

#[test]
fn mcg_is_its_update_by_hand_and_keeps_what_was_measured() {
    let (operator, noise) = (chessboard(), Gaussian::new(0.1).unwrap());
    let measurement = measure(&operator, &noise, 3);
    for project_at in ["entered", "left"] {
        let settings = format!(
            "scale = 0.7\nproject_at = '{project_at}'\nannealing = {{ steps = 8, sigma_start = 5.0, renoise = 'ancestral' }}"
        );
        let mcg = sampler("mcg", &settings);
        let sigmas = mcg.annealing().sigmas(&RANGE);
        assert_by_hand(mcg.as_ref(), &measurement, 4, |y, row| {
            let project = |x: Vec<f64>, from: f64, to: f64, draws: &mut Draws| {
                let (sigma, scale) = match project_at {
                    "entered" => (to, 1.0),
                    _ => (from, ((1.0 + to * to) / (1.0 + from * from)).sqrt()),
                };
                let n = if sigma > 0.0 { draws.next() } else { vec![0.0; VALUES] };
                each(|i| if is_seen(i) { scale * (y[i] + sigma * n[i]) } else { x[i] })
            };
            let gradient = |d: &[f64], _: f64, _: &mut Draws| norm_gradient(d, y);
            guided_by_hand(&sigmas, &mut Draws::of(4, row), small, gradient, 0.7, project)
        });
    }
    let x = draw(sampler("mcg", "annealing = { steps = 5, renoise = 'ancestral' }").as_ref(), &measurement, 1);
    let (x, y) = (values(&x), values(&measurement.y));
    assert!((0..x.len()).filter(|&i| is_seen(i)).all(|i| (x[i] - y[i]).abs() < 1e-12));
}

#[test]
fn lgd_mc_is_its_update_by_hand() {
    let (operator, noise) = (chessboard(), Gaussian::new(0.1).unwrap());
    let measurement = measure(&operator, &noise, 3);
    let settings = "scale = 0.4\nsamples = 3\nannealing = { steps = 10, sigma_start = 5.0, renoise = 'ancestral' }";
    let lgd = sampler("lgd_mc", settings);
    let sigmas = lgd.annealing().sigmas(&RANGE);
    assert_by_hand(lgd.as_ref(), &measurement, 5, |y, row| {
        let gradient = |d: &[f64], sigma: f64, draws: &mut Draws| {
            let spread = sigma / (1.0 + sigma * sigma).sqrt();
            let mut sum = vec![0.0; VALUES];
            for _ in 0..3 {
                let n = draws.next();
                let g = norm_gradient(&each(|i| d[i] + spread * n[i]), y);
                sum = each(|i| sum[i] + g[i] / 3.0);
            }
            sum
        };
        guided_by_hand(&sigmas, &mut Draws::of(5, row), small, gradient, 0.4, |x, _, _, _| x)
    });
}

#[test]
fn mpgd_is_its_update_by_hand() {
    let (operator, noise) = (chessboard(), Gaussian::new(0.1).unwrap());
    let measurement = measure(&operator, &noise, 3);
    let settings = "scale = 0.8\nannealing = { steps = 10, sigma_start = 5.0, renoise = { ddim = 0.5 } }";
    let mpgd = sampler("mpgd", settings);
    let sigmas = mpgd.annealing().sigmas(&RANGE);
    assert_by_hand(mpgd.as_ref(), &measurement, 6, |y, row| {
        let mut draws = Draws::of(6, row);
        let mut x = draws.start(sigmas[0]);
        for pair in sigmas.windows(2) {
            let (from, to) = (pair[0], pair[1]);
            let d = denoised(&x, from);
            let eps = each(|i| (x[i] - d[i]) / from);
            let g = norm_gradient(&d, y);
            let x0 = each(|i| d[i] - 0.8 * (1.0 + to * to).sqrt() * g[i]);
            x = renoise(&x0, &eps, to, 0.25 * (1.0 - (to / from).powi(2)), &mut draws);
        }
        x
    });
}

/// Euler's method for the ODE along Karras' points.
fn ode_by_hand(mut x: Vec<f64>, sigma: f64, end: f64, steps: usize, rho: f64) -> Vec<f64> {
    let (high, low) = (sigma.powf(1.0 / rho), end.powf(1.0 / rho));
    let at = |i: usize| (high + i as f64 / steps as f64 * (low - high)).powf(rho);
    for i in 0..steps {
        let d = denoised(&x, at(i));
        x = each(|j| x[j] + (at(i + 1) - at(i)) * (x[j] - d[j]) / at(i));
    }
    x
}

#[test]
fn daps_is_its_update_by_hand_with_and_without_momentum() {
    let (operator, noise) = (chessboard(), Gaussian::new(0.1).unwrap());
    let measurement = measure(&operator, &noise, 3);
    for gamma in [0.0, 0.8] {
        // The last level lies below the ODE's end: there the image is denoised once.
        let settings = format!(
            "ode_steps = 3\node_end = 0.05\nlangevin_steps = 6\nlr = 0.002\ndecay = 0.1\ntau = 0.1\nmomentum = {gamma}\n\
             annealing = {{ steps = 5, sigma_start = 10.0, sigma_end = 0.04, rho = 7.0 }}"
        );
        let daps = sampler("daps", &settings);
        let sigmas = daps.annealing().sigmas(&RANGE);
        assert_by_hand(daps.as_ref(), &measurement, 7, |y, row| {
            let mut draws = Draws::of(7, row);
            let mut x = draws.start(sigmas[0]);
            for (k, pair) in sigmas.windows(2).enumerate() {
                let (from, to) = (pair[0], pair[1]);
                let x0 = if from <= 0.05 { denoised(&x, from) } else { ode_by_hand(x, from, 0.05, 3, 7.0) };
                let lr: f64 = 0.002 * (1.0 + k as f64 / 5.0 * (0.1 - 1.0));
                let mut u = x0.clone();
                let mut velocity = if gamma > 0.0 { draws.next() } else { vec![0.0; VALUES] };
                for _ in 0..6 {
                    let misfit = seen_part(&residual(&u, y));
                    let g = each(|i| -2.0 * misfit[i] / 0.01 + (x0[i] - u[i]) / (from * from));
                    let n = draws.next();
                    if gamma > 0.0 {
                        velocity =
                            each(|i| gamma * velocity[i] + lr.sqrt() * g[i] + (2.0 * (1.0 - gamma)).sqrt() * n[i]);
                        u = each(|i| u[i] + lr.sqrt() * velocity[i]);
                    } else {
                        u = each(|i| u[i] + lr * g[i] + (2.0 * lr).sqrt() * n[i]);
                    }
                }
                x = renoise(&u, &u, to, 1.0, &mut draws);
            }
            x
        });
    }
}

/// Adam as its paper has it.
struct Adam {
    rate: f64,
    beta: (f64, f64),
    mean: Vec<f64>,
    square: Vec<f64>,
    steps: i32,
}

impl Adam {
    fn new(rate: f64, beta: (f64, f64)) -> Self {
        Self { rate, beta, mean: vec![0.0; VALUES], square: vec![0.0; VALUES], steps: 0 }
    }

    fn step(&mut self, gradient: &[f64]) -> Vec<f64> {
        let (one, two) = self.beta;
        self.steps += 1;
        self.mean = each(|i| one * self.mean[i] + (1.0 - one) * gradient[i]);
        self.square = each(|i| two * self.square[i] + (1.0 - two) * gradient[i] * gradient[i]);
        let corrected = |value: f64, beta: f64| value / (1.0 - beta.powi(self.steps));
        each(|i| self.rate * corrected(self.mean[i], one) / (corrected(self.square[i], two).sqrt() + 1e-8))
    }
}

#[test]
fn sitcom_is_its_update_by_hand_and_every_row_stops_by_itself() {
    let (operator, noise) = (chessboard(), Gaussian::new(0.1).unwrap());
    let measurement = measure(&operator, &noise, 3);
    for proximity in [0.0, 0.2] {
        let settings = format!(
            "iterations = 12\nlr = 0.1\nslack = 0.05\nproximity = {proximity}\n\
             annealing = {{ steps = 6, sigma_start = 5.0, sigma_end = 0.02, rho = 3.0 }}"
        );
        let sitcom = sampler("sitcom", &settings);
        let sigmas = sitcom.annealing().sigmas(&RANGE);
        let mut stops = Vec::new();
        assert_by_hand(sitcom.as_ref(), &measurement, 9, |y, row| {
            let mut draws = Draws::of(9, row);
            let mut x = draws.start(sigmas[0]);
            for pair in sigmas.windows(2) {
                let (from, to) = (pair[0], pair[1]);
                let scale = 1.0 + from * from;
                let mut adam = Adam::new(0.1 * scale.sqrt(), (0.9, 0.999));
                let mut v = x.clone();
                let mut steps = 0;
                while steps < 11 {
                    let misfit = seen_part(&residual(&denoised(&v, from), y));
                    if norm(&misfit).powi(2) < (0.1_f64 + 0.05).powi(2) * SEEN as f64 {
                        break;
                    }
                    let step =
                        adam.step(&each(|i| 2.0 * slope(from) * misfit[i] + 2.0 * proximity * (v[i] - x[i]) / scale));
                    v = each(|i| v[i] - step[i]);
                    steps += 1;
                }
                stops.push(steps);
                let x0 = denoised(&v, from);
                x = renoise(&x0, &x0, to, 1.0, &mut draws);
            }
            x
        });
        let differ = stops.chunks(6).any(|row| row != &stops[..6]);
        assert!(
            differ && stops.contains(&11) && stops.iter().any(|&s| s < 11),
            "{stops:?}: the test has lost its point"
        );
    }
}

#[test]
fn red_diff_is_its_update_by_hand_for_every_weight() {
    let operator = chessboard();
    let weights: [(&str, OfSigma); 7] = [
        ("linear", |s| s),
        ("sqrt", f64::sqrt),
        ("square", |s| s * s),
        ("log", |s| (1.0 + s).ln()),
        ("clip", |s| s.min(1.0)),
        ("two_thirds", |s| s.cbrt().powi(2)),
        ("const", |_| 1.0),
    ];
    for (index, (name, weight)) in weights.into_iter().enumerate() {
        let sigma_y = if index % 2 == 0 { 0.1 } else { 0.0 };
        let noise = Gaussian::new(sigma_y).unwrap();
        let measurement = measure(&operator, &noise, 3);
        let settings = format!(
            "lr = 0.05\nprior = 0.3\ndata = 0.9\nweight = '{name}'\nannealing = {{ steps = 10, sigma_start = 5.0 }}"
        );
        let red = sampler("red_diff", &settings);
        let sigmas = red.annealing().sigmas(&RANGE);
        assert_by_hand(red.as_ref(), &measurement, 10, |y, row| {
            let mut draws = Draws::of(10, row);
            let mut mu = each(|i| if is_seen(i) { y[i] / (1.0 + sigma_y * sigma_y) } else { 0.0 });
            let mut adam = Adam::new(0.05, (0.9, 0.99));
            for &sigma in &sigmas[..sigmas.len() - 1] {
                let n = draws.next();
                let x = each(|i| mu[i] + sigma * n[i]);
                let d = denoised(&x, sigma);
                let misfit = seen_part(&residual(&mu, y));
                let size = VALUES as f64;
                let step = adam.step(&each(|i| {
                    0.3 * weight(sigma) / size * ((x[i] - d[i]) / sigma - n[i]) + 0.9 / size * misfit[i]
                }));
                mu = each(|i| mu[i] - step[i]);
            }
            mu
        });
    }
}

/// The levels below ρ of Karras' grid, ρ itself first and 0 last.
fn grid_by_hand(rho: f64, points: usize) -> Vec<f64> {
    let (high, low) = (RANGE.end().powf(1.0 / 7.0), RANGE.start().powf(1.0 / 7.0));
    let at = |i: usize| (high + i as f64 / (points - 1) as f64 * (low - high)).powi(7);
    [rho].into_iter().chain((0..points).map(at).filter(|&sigma| sigma < rho)).chain([0.0]).collect()
}

fn reverse_by_hand(mut x: Vec<f64>, levels: &[f64], sde: bool, draws: &mut Draws) -> Vec<f64> {
    for pair in levels.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        let d = denoised(&x, from);
        x = if to == 0.0 {
            d
        } else if sde {
            let n = draws.next();
            each(|i| x[i] + 2.0 * (to - from) * (x[i] - d[i]) / from + (2.0 * from * (from - to)).sqrt() * n[i])
        } else {
            each(|i| x[i] + (to - from) * (x[i] - d[i]) / from)
        };
    }
    x
}

#[test]
fn pnp_dm_is_its_update_by_hand_for_both_processes_with_and_without_noise() {
    let operator = chessboard();
    for (reverse, sigma_y) in [("sde", 0.1_f64), ("ode", 0.1), ("sde", 0.0)] {
        let noise = Gaussian::new(sigma_y).unwrap();
        let measurement = measure(&operator, &noise, 3);
        let settings = format!(
            "grid = 20\ndecay = 0.5\nreverse = '{reverse}'\nannealing = {{ steps = 5, sigma_start = 2.0, sigma_end = 0.3 }}"
        );
        let pnp = sampler("pnp_dm", &settings);
        assert_by_hand(pnp.as_ref(), &measurement, 11, |y, row| {
            let mut draws = Draws::of(11, row);
            let mut x = draws.start(2.0);
            for rho in [2.0_f64, 1.0, 0.5, 0.3, 0.3] {
                let of_x = draws.next();
                let of_y = if sigma_y > 0.0 { draws.next() } else { vec![0.0; VALUES] };
                // Between the perturbed measurement and the perturbed image, by their precisions.
                let gain = rho * rho / (rho * rho + sigma_y * sigma_y);
                let u = each(|i| {
                    let near = x[i] + rho * of_x[i];
                    if is_seen(i) { gain * (y[i] + sigma_y * of_y[i]) + (1.0 - gain) * near } else { near }
                });
                x = reverse_by_hand(u, &grid_by_hand(rho, 20), reverse == "sde", &mut draws);
            }
            x
        });
    }
}

/// `A(x) = x²`, which has no adjoint.
#[derive(Debug)]
struct Squared;

impl ForwardOperator for Squared {
    fn forward(&self, x: &Tensor) -> tweedie_operators::Result<Tensor> {
        Ok(x.sqr()?)
    }
}

#[test]
fn pnp_dm_takes_langevin_steps_where_the_operator_is_not_linear() {
    let noise = Gaussian::new(0.2).unwrap();
    let measurement = measure(&Squared, &noise, 3);
    let settings = "grid = 20\ndecay = 0.5\nlangevin_steps = 7\nlr = 0.001\n\
        annealing = { steps = 2, sigma_start = 0.8, sigma_end = 0.4 }";
    assert_by_hand(sampler("pnp_dm", settings).as_ref(), &measurement, 12, |y, row| {
        let mut draws = Draws::of(12, row);
        let mut x = draws.start(0.8);
        for rho in [0.8_f64, 0.4] {
            let mut u = x.clone();
            for _ in 0..7 {
                let n = draws.next();
                u = each(|i| {
                    let gradient = 2.0 * u[i] * (y[i] - u[i] * u[i]) / 0.04 + (x[i] - u[i]) / (rho * rho);
                    u[i] + 0.001 * gradient + 0.002_f64.sqrt() * n[i]
                });
            }
            x = reverse_by_hand(u, &grid_by_hand(rho, 20), true, &mut draws);
        }
        x
    });
}

/// Mean, as `offset + slope · y`, and variance of a pixel after the rounds of [`pnp_dm_has_the_law_of_its_coupling`], whose
/// every step is linear.
fn pnp_moments(rounds: &[f64], sigma_y: f64, seen: bool, points: usize) -> (f64, f64, f64) {
    let (mut offset, mut of_y, mut variance) = (0.0, 0.0, rounds[0].powi(2));
    for &rho in rounds {
        let gain = if seen { rho * rho / (rho * rho + sigma_y * sigma_y) } else { 0.0 };
        variance = gain.powi(2) * sigma_y * sigma_y + (1.0 - gain).powi(2) * (variance + rho * rho);
        (offset, of_y) = ((1.0 - gain) * offset, gain + (1.0 - gain) * of_y);
        for pair in grid_by_hand(rho, points).windows(2) {
            let (from, to) = (pair[0], pair[1]);
            let (factor, fresh) = if to == 0.0 {
                (slope(from), 0.0)
            } else {
                (1.0 + 2.0 * (to - from) / from * (1.0 - slope(from)), 2.0 * from * (from - to))
            };
            offset = MEAN + factor * (offset - MEAN);
            of_y *= factor;
            variance = factor.powi(2) * variance + fresh;
        }
    }
    (offset, of_y, variance)
}

/// Mean, as `offset + slope · y`, and variance of the posterior for noise of this variance.
fn posterior(noise: f64) -> (f64, f64, f64) {
    let total = STD.powi(2) + noise;
    (MEAN * noise / total, STD.powi(2) / total, STD.powi(2) * noise / total)
}

fn assert_pnp_law(settings: &str, rounds: &[f64], points: usize, rows: usize, limit: f64, tolerance: f64) {
    let (operator, sigma_y) = (chessboard(), 0.3);
    let noise = Gaussian::new(sigma_y).unwrap();
    let measurement = measure(&operator, &noise, rows);
    let (x, y) = (values(&draw(sampler("pnp_dm", settings).as_ref(), &measurement, 13)), values(&measurement.y));
    for seen in [true, false] {
        let (offset, of_y, variance) = pnp_moments(rounds, sigma_y, seen, points);
        let (to, of, limit) =
            if seen { posterior(sigma_y * sigma_y + limit * limit) } else { (MEAN, 0.0, STD.powi(2)) };
        let ratio = variance / limit;
        let what = format!("seen {seen}: {offset} + {of_y} y, variance {variance}, against {to} + {of} y, {limit}");
        assert!((offset - to).abs() < tolerance && (of_y - of).abs() < tolerance, "{what}");
        assert!((ratio - 1.0).abs() < tolerance, "{what}");
        let errors: Vec<f64> =
            (0..x.len()).filter(|&i| is_seen(i) == seen).map(|i| x[i] - offset - of_y * y[i]).collect();
        let count = errors.len() as f64;
        let mean = errors.iter().sum::<f64>() / count;
        let spread = errors.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / (count - 1.0);
        // Four standard errors.
        assert!(mean.abs() < 4.0 * (variance / count).sqrt(), "{what}: the mean is off by {mean}");
        assert!((spread - variance).abs() < 4.0 * variance * (2.0 / count).sqrt(), "{what}: the variance is {spread}");
    }
}

/// Rounds at one ρ end at the posterior of a measurement with `σ_y² + ρ²`, samples to their own error and the discrete
/// reverse process to 3 %.
#[test]
fn pnp_dm_has_the_law_of_its_coupling() {
    let settings = "grid = 400\nannealing = { steps = 12, sigma_start = 0.4, sigma_end = 0.4 }";
    assert_pnp_law(settings, &[0.4; 12], 400, 400, 0.4, 0.03);
}

#[test]
fn pnp_dm_draws_from_the_posterior_as_its_coupling_shrinks() {
    let settings = "grid = 300\ndecay = 0.9\nannealing = { steps = 60, sigma_start = 0.5, sigma_end = 0.05 }";
    let rounds: Vec<f64> = (0..60).map(|i| (0.5 * 0.9_f64.powi(i)).max(0.05)).collect();
    assert_pnp_law(settings, &rounds, 300, 200, 0.0, 0.04);
}

/// Of `N(m, τ²)` seen through any linear operator: `x̂₀` is the mean of `p(x₀ | x, y)` where the gradient of its logarithm,
/// `Aᵀ(y − A x₀)/σ_y² + (m − x₀)/τ² + (x − x₀)/σ²`, vanishes.
#[test]
fn pigdm_is_exact_for_a_gaussian_prior_whatever_the_linear_operator_knows_of_itself() {
    let site = Site::new(SHAPE, &Device::Cpu, DType::F64);
    let cases = [
        ("blur", "padding = 'reflect'\nkernel = { shape = 'gaussian', sigma = 1.0, size = 3 }", (false, false)),
        ("blur", "padding = 'circular'\nkernel = { shape = 'gaussian', sigma = 1.0, size = 3 }", (true, false)),
        (
            "downsample_kernel",
            "factor = 2\npadding = 'circular'\nkernel = { shape = 'gaussian', sigma = [0.6, 0.4], angle = 30.0, size = 3 }",
            (false, true),
        ),
    ];
    for (name, settings, known) in cases {
        let operator = find(OPERATORS, name).unwrap().create(toml::from_str(settings).unwrap(), site).unwrap();
        let linear = operator.as_linear().unwrap();
        assert_eq!((linear.as_spectral().is_some(), linear.as_gram().is_some()), known, "{name} {settings}");
        for sigma_y in [0.1, 0.02] {
            let noise = Gaussian::new(sigma_y).unwrap();
            let measurement = measure(operator.as_ref(), &noise, 2);
            let mut steps = 0;
            let mut check = |step: &Step<'_>| {
                let misfit = (&measurement.y - linear.forward(step.x0).unwrap()).unwrap();
                let of_data = values(&linear.adjoint(&misfit).unwrap());
                let (x, x0) = (values(step.x), values(step.x0));
                let precision = STD.powi(-2) + step.sigma.powi(-2);
                for i in 0..x.len() {
                    let of_prior = (MEAN - x0[i]) / STD.powi(2) + (x[i] - x0[i]) / step.sigma.powi(2);
                    // What is left, as a distance that the image would still have to move.
                    let left = (of_data[i] / sigma_y.powi(2) + of_prior) / (precision + sigma_y.powi(-2));
                    assert!(left.abs() < 2e-5, "{name} {settings}, sigma {}: {left}", step.sigma);
                }
                steps += 1;
                Ok(())
            };
            let problem = Problem { prior: &prior(), measurement: &measurement, guess: None };
            let pigdm = sampler("pigdm", "prior_std = 0.5\nannealing = { steps = 5, sigma_start = 3.0 }");
            pigdm.sample(&problem, SHAPE, &mut Rng::new(3, 0..2), &mut check).unwrap();
            assert_eq!(steps, 5);
        }
    }
}

/// Root mean square of `y − A x̂` over what was measured, in units of σ_y.
fn misfit(name: &str, settings: &str, sigma_y: f64) -> f64 {
    let (operator, noise) = (chessboard(), Gaussian::new(sigma_y).unwrap());
    let measurement = measure(&operator, &noise, 64);
    let (x, y) = (values(&draw(sampler(name, settings).as_ref(), &measurement, 14)), values(&measurement.y));
    let seen: Vec<f64> = (0..x.len()).filter(|&i| is_seen(i)).map(|i| x[i] - y[i]).collect();
    norm(&seen) / (seen.len() as f64).sqrt() / sigma_y
}

// Where no pixel tells of another, DPS and LGD-MC fit the noise too: a gradient of fixed length knows no σ_y. With this ζ they
// end at a tenth of it, with a fifth of it far above.
#[test]
fn methods_made_for_noise_leave_a_residual_of_its_size_and_those_of_fixed_length_no_more() {
    let guided =
        "scale = 0.1\nannealing = { steps = 300, sigma_start = 10.0, sigma_end = 0.02, renoise = 'ancestral' }";
    let cases = [
        ("dps", guided, 0.0),
        ("lgd_mc", guided, 0.0),
        (
            "daps",
            "tau = 0.1414\nlr = 2e-3\ndecay = 0.5\nannealing = { steps = 30, sigma_start = 10.0, sigma_end = 0.1 }",
            0.7,
        ),
        ("sitcom", "lr = 0.05\nannealing = { steps = 10, sigma_start = 10.0 }", 0.7),
        ("pnp_dm", "annealing = { steps = 20, sigma_start = 0.3, sigma_end = 0.04 }", 0.7),
    ];
    let found = cases.map(|(name, settings, _)| misfit(name, settings, 0.1));
    for ((name, _, least), found) in cases.into_iter().zip(found) {
        assert!((least..1.3).contains(&found), "{name}: {found} σ_y");
    }
}

#[test]
fn fewer_steps_change_nothing_else_of_a_methods_levels() {
    for name in SAMPLERS.iter().map(|entry| entry.name).filter(|&name| name != "tweedie") {
        let (default, fewer) = (sampler(name, ""), sampler(name, "annealing = { steps = 3 }"));
        assert_eq!(*fewer.annealing(), Annealing { steps: 3, ..*default.annealing() }, "{name}");
    }
}

/// How often a prior was asked.
#[derive(Debug)]
struct Counting {
    inner: GaussianPrior,
    evaluations: AtomicUsize,
    pullbacks: AtomicUsize,
}

impl Denoiser for Counting {
    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        self.evaluations.fetch_add(1, Ordering::Relaxed);
        self.inner.denoise(x, sigma)
    }

    fn channels(&self) -> Option<usize> {
        None
    }

    // Less than a Gaussian can do, so that methods meet both ends.
    fn sigma_range(&self) -> RangeInclusive<f64> {
        0.05..=4.0
    }

    fn denoise_with_pullback<'a>(&'a self, x: &Tensor, sigma: f64) -> Result<(Tensor, Pullback<'a>)> {
        self.evaluations.fetch_add(1, Ordering::Relaxed);
        let (denoised, pullback) = self.inner.denoise_with_pullback(x, sigma)?;
        let counted = move |v: &Tensor| {
            self.pullbacks.fetch_add(1, Ordering::Relaxed);
            pullback.apply(v)
        };
        Ok((denoised, Pullback::new(counted)))
    }
}

#[test]
fn methods_cost_what_they_say() {
    let (operator, noise) = (chessboard(), Gaussian::new(0.1).unwrap());
    let measurement = measure(&operator, &noise, 2);
    for name in ["dps", "mcg", "lgd_mc", "mpgd", "daps", "sitcom", "red_diff", "pnp_dm", "pigdm"] {
        let entry = SAMPLERS.iter().find(|entry| entry.name == name).unwrap();
        for annealing in ["", "annealing = { steps = 7, sigma_start = 90.0, sigma_end = 0.01 }"] {
            let settings = if annealing.is_empty() { entry.example } else { annealing };
            let method = sampler(name, settings);
            let prior = Counting { inner: prior(), evaluations: 0.into(), pullbacks: 0.into() };
            let problem = Problem { prior: &prior, measurement: &measurement, guess: None };
            let mut levels = 0;
            let mut count = |_: &Step<'_>| {
                levels += 1;
                Ok(())
            };
            method.sample(&problem, SHAPE, &mut Rng::new(1, 0..2), &mut count).unwrap();
            let (evaluations, pullbacks) = (prior.evaluations.into_inner(), prior.pullbacks.into_inner());
            assert_eq!(evaluations, method.evaluations(&(0.05..=4.0)), "{name} {settings}");
            // The last evaluation of a level of sitcom is its estimate and needs none.
            let spared = if name == "sitcom" { levels } else { 0 };
            assert_eq!(pullbacks, (evaluations - spared) * method.pullbacks(), "{name} {settings}");
        }
    }
}

/// The prior of the published numbers: independent Gaussian pixels, each with its own mean.
#[derive(Debug)]
struct Around {
    mean: Tensor,
    std: f64,
}

impl Denoiser for Around {
    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        let (of_x, total) = (self.std.powi(2), self.std.powi(2) + sigma * sigma);
        Ok((x.affine(of_x / total, 0.0)? + self.mean.affine(sigma * sigma / total, 0.0)?)?)
    }

    fn channels(&self) -> Option<usize> {
        None
    }

    fn sigma_range(&self) -> RangeInclusive<f64> {
        RANGE
    }
}

/// An operator with what the authors of DPS use for its pseudo-inverse: every pixel repeated.
#[derive(Debug)]
struct Repeated(Box<dyn ForwardOperator>);

impl Repeated {
    fn linear(&self) -> &dyn LinearOperator {
        self.0.as_linear().unwrap()
    }
}

impl ForwardOperator for Repeated {
    fn forward(&self, x: &Tensor) -> tweedie_operators::Result<Tensor> {
        self.0.forward(x)
    }

    fn as_linear(&self) -> Option<&dyn LinearOperator> {
        Some(self)
    }
}

impl LinearOperator for Repeated {
    fn adjoint(&self, y: &Tensor) -> tweedie_operators::Result<Tensor> {
        self.linear().adjoint(y)
    }

    fn as_spectral(&self) -> Option<&dyn SpectralOperator> {
        Some(self)
    }
}

impl SpectralOperator for Repeated {
    fn singular_values(&self) -> &Tensor {
        self.linear().as_spectral().unwrap().singular_values()
    }

    fn image_to_spectrum(&self, x: &Tensor) -> tweedie_operators::Result<Tensor> {
        self.linear().as_spectral().unwrap().image_to_spectrum(x)
    }

    fn spectrum_to_image(&self, spectrum: &Tensor) -> tweedie_operators::Result<Tensor> {
        self.linear().as_spectral().unwrap().spectrum_to_image(spectrum)
    }

    fn measurement_to_spectrum(&self, y: &Tensor) -> tweedie_operators::Result<Tensor> {
        self.linear().as_spectral().unwrap().measurement_to_spectrum(y)
    }

    fn pseudo_inverse(&self, y: &Tensor) -> tweedie_operators::Result<Tensor> {
        Ok(y.upsample_nearest2d(8, 8)?)
    }
}

fn stored() -> HashMap<String, Tensor> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/schedules/loops_dps.safetensors");
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

/// √ᾱ and σ at each of 10 respaced steps of the linear schedule β = 1e-4 … 0.02, T = 1000, from large to small, then of none.
fn respaced(stored: &HashMap<String, Tensor>, method: &str) -> Vec<(f64, f64)> {
    let mut product = 1.0;
    let kept: Vec<f64> = (0..1000)
        .map(|k| {
            product *= 1.0 - (1e-4 + k as f64 / 999.0 * (0.02 - 1e-4));
            product
        })
        .collect();
    let times = stored[&format!("{method}.timestep_map")].to_vec1::<i64>().unwrap();
    let levels = times.into_iter().rev().map(|time| kept[time as usize]).chain([1.0]);
    levels.map(|kept| (kept.sqrt(), ((1.0 - kept) / kept).sqrt())).collect()
}

/// Follows `run` through the stored states of a method, which are in variance-preserving coordinates.
fn assert_stored(
    method: &str,
    draws: impl Fn(usize) -> bool,
    run: impl Fn(&Problem<'_>, Tensor, &[f64], &mut Rng, &mut dyn FnMut(&Step<'_>) -> Result<()>) -> Result<Tensor>,
) {
    let stored = stored();
    let site = Site::new((3, 8, 8), &Device::Cpu, DType::F32);
    let resize = find(OPERATORS, "downsample").unwrap();
    let operator = resize.create("factor = 2\nalign = 'centre'".parse().unwrap(), site).unwrap();
    let operator = Repeated(operator);
    let noise = Gaussian::new(0.05).unwrap();
    let measurement = Measurement { operator: &operator, noise: &noise, y: stored["y"].clone() };
    let prior = Around { mean: stored["mu"].clone(), std: 0.3 };
    let problem = Problem { prior: &prior, measurement: &measurement, guess: None };
    let levels = respaced(&stored, method);
    let sigmas: Vec<f64> = levels.iter().map(|&(_, sigma)| sigma).collect();
    let recorded = (0..20).filter(|&index| draws(index)).map(|index| stored[&format!("{method}.noise{index}")].clone());
    let mut rng = Rng::recorded(1, recorded);
    let trajectory = &stored[&format!("{method}.trajectory")];
    let check = |index: usize, x: &Tensor| {
        let (scale, _) = levels[index];
        let got = values(&(x * scale).unwrap());
        let expected = values(&trajectory.get(index - 1).unwrap());
        let difference: Vec<f64> = got.iter().zip(&expected).map(|(got, expected)| got - expected).collect();
        let error = norm(&difference) / norm(&expected);
        assert!(error < 2e-5, "{method}: after step {index} the relative error is {error}");
    };
    let mut watch = |step: &Step<'_>| {
        if step.index > 0 {
            check(step.index, step.x);
        }
        Ok(())
    };
    let start = (&stored["x_T"] / levels[0].0).unwrap();
    let x = run(&problem, start, &sigmas, &mut rng, &mut watch).unwrap();
    check(10, &x);
}

// `data/schedules/loops_dps.safetensors`: gaussian_diffusion.py (DDPM, 10 respaced steps, clip_denoised, learned_range with
// all network outputs for the variance 0.3) and condition_methods.py (`ps` and `mcg`, scale 0.3) of
// DPS2022/diffusion-posterior-sampling at effbde7, torch 2.15, float32, on an antialiased bicubic reduction by 2 with noise
// of 0.05; prior N(mu, 0.3²). Each step stores the ancestral noise, then the noise of the measurement.
#[test]
fn dps_follows_the_published_code() {
    let dps = Dps { scale: 0.3, clip: true, variance: Variance::Learned(0.65), ..Dps::default() };
    // No ancestral noise in the last step, and none of the measurement at all.
    assert_stored(
        "ps",
        |index| index % 2 == 0 && index != 18,
        |problem, x, sigmas, rng, watch| dps.along(problem, x, sigmas, rng, &mut |step: &Step<'_>| watch(step)),
    );
}

#[test]
fn mcg_follows_the_published_code() {
    let guidance = Dps { scale: 0.3, clip: true, variance: Variance::Learned(0.65), ..Dps::default() };
    let mcg = Mcg { guidance, project_at: ProjectAt::Left };
    assert_stored(
        "mcg",
        |index| index != 18,
        |problem, x, sigmas, rng, watch| mcg.along(problem, x, sigmas, rng, &mut |step: &Step<'_>| watch(step)),
    );
}
