//! Samplers against exact posteriors, and what every sampler promises.
//!
//! For independent Gaussian pixels everything is known: a pixel of prior `N(m, τ²)` seen through noise of σ_y has the
//! posterior `N((m σ_y² + y τ²) / (τ² + σ_y²), v)`, `v = τ² σ_y² / (τ² + σ_y²)`; an unseen one keeps its prior.

use crate::models::{EMBEDDED, scattered_image};
use candle_core::{DType, Device, Tensor};
use std::ops::RangeInclusive;
use tweedie::priors::{Denoiser, Gaussian as GaussianPrior};
use tweedie::samplers::{BuildSampler, Problem, Renoise, SAMPLERS, Sampler, Step, find_sampler};
use tweedie::schedules::SCHEDULES;
use tweedie::{Error, Result};
use tweedie_operators::forward::{ForwardOperator, Inpaint};
use tweedie_operators::noise::{Gaussian, NoiseModel};
use tweedie_operators::{Entry, Measurement, Pullback, Rng};

/// Mean and standard deviation of the prior, and a size at which a chessboard hides half of the pixels.
const MEAN: f64 = 0.3;
const STD: f64 = 0.5;
const SHAPE: (usize, usize, usize) = (3, 8, 8);
const VALUES: usize = 3 * 8 * 8;

fn prior() -> GaussianPrior {
    GaussianPrior::new(MEAN, STD).unwrap()
}

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn sampler(name: &str, settings: &str) -> Box<dyn Sampler> {
    find_sampler(SAMPLERS, name, toml::from_str(settings).unwrap()).unwrap()
}

fn is_seen(i: usize) -> bool {
    (i / 8 + i % 8).is_multiple_of(2)
}

fn chessboard() -> Inpaint {
    let mask: Vec<f32> = (0..64).map(|i| if is_seen(i) { 1.0 } else { 0.0 }).collect();
    Inpaint::new(&Tensor::from_vec(mask, (1, 1, 8, 8), &Device::Cpu).unwrap()).unwrap()
}

/// A measurement of rows that all differ.
fn measure<'a>(operator: &'a dyn ForwardOperator, noise: &'a Gaussian, rows: usize) -> Measurement<'a> {
    let truth = scattered_image((rows, 3, 8, 8), 31);
    let mut rng = Rng::new(77, 0..rows as u64);
    Measurement::simulate(operator, noise, &truth, &mut rng).unwrap()
}

fn draw(sampler: &dyn Sampler, prior: &dyn Denoiser, measurement: &Measurement<'_>, seed: u64) -> Result<Tensor> {
    let rows = measurement.y.dim(0).unwrap() as u64;
    let (_, channels, height, width) = measurement.y.dims4().unwrap();
    let problem = Problem { prior, measurement, guess: None };
    sampler.sample(&problem, (channels, height, width), &mut Rng::new(seed, 0..rows), &mut |_: &Step<'_>| Ok(()))
}

/// The variance that annealing gives a pixel whose posterior is `N(μ, v)`, if its estimate is the posterior mean given the
/// state, `x̂₀ = (v x + σ² μ) / (v + σ²)`: a linear recursion.
fn annealed(v: f64, sigmas: &[f64], renoise: Renoise) -> f64 {
    let mut variance = sigmas[0].powi(2);
    for pair in sigmas.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        let fresh = match renoise {
            Renoise::None => 0.0,
            Renoise::Ancestral => 1.0 - (to / from).powi(2),
            Renoise::Fraction(fraction) => fraction,
            Renoise::Ddim(eta) => eta * eta * (1.0 - (to / from).powi(2)),
            Renoise::All => 1.0,
        };
        let kept = v / (v + from * from);
        let factor = kept + (1.0 - kept) * (1.0 - fresh).sqrt() * to / from;
        variance = factor * factor * variance + fresh * to * to;
    }
    variance
}

fn posterior_mean(y: f64, sigma_y: f64) -> f64 {
    (MEAN * sigma_y.powi(2) + y * STD.powi(2)) / (STD.powi(2) + sigma_y.powi(2))
}

/// Mean and variance of the values of one kind, with the posterior's mean subtracted from each.
struct Moments {
    mean: f64,
    variance: f64,
    count: f64,
}

fn moments(x: &Tensor, y: &Tensor, sigma_y: f64, seen: bool) -> Moments {
    let of_kind = values(x).into_iter().zip(values(y)).enumerate().filter(|(i, _)| is_seen(i % 64) == seen);
    let errors: Vec<f64> =
        of_kind.map(|(_, (x, y))| f64::from(x) - if seen { posterior_mean(y.into(), sigma_y) } else { MEAN }).collect();
    let count = errors.len() as f64;
    let mean = errors.iter().sum::<f64>() / count;
    let variance = errors.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / (count - 1.0);
    Moments { mean, variance, count }
}

/// The posterior's mean and this variance, each to four standard errors: one of 16,000 tests fails by chance, and the seed
/// is fixed.
#[track_caller]
fn assert_moments(what: &str, got: &Moments, variance: f64) {
    let (of_mean, of_variance) = (4.0 * (variance / got.count).sqrt(), 4.0 * variance * (2.0 / got.count).sqrt());
    assert!(got.mean.abs() < of_mean + 1e-5, "{what}: the mean is off by {}, its error is {of_mean}", got.mean);
    let error = (got.variance - variance).abs();
    assert!(error < of_variance + 1e-9, "{what}: variance {} against {variance} ± {of_variance}", got.variance);
}

#[test]
fn pigdm_with_the_spread_of_a_gaussian_prior_draws_from_its_posterior() {
    let (prior, operator) = (prior(), chessboard());
    for sigma_y in [0.0, 0.3] {
        let noise = Gaussian::new(sigma_y).unwrap();
        let measurement = measure(&operator, &noise, 128);
        let settings = "prior_std = 0.5\n[annealing]\nsteps = 400\nsigma_start = 20.0\nsigma_end = 0.01\nrho = 7.0\n\
            renoise = 'ancestral'";
        let pigdm = sampler("pigdm", settings);
        let sigmas = pigdm.annealing().sigmas(&prior.sigma_range());
        let x = draw(pigdm.as_ref(), &prior, &measurement, 5).unwrap();
        let seen_variance = STD.powi(2) * sigma_y.powi(2) / (STD.powi(2) + sigma_y.powi(2));
        for (seen, v) in [(true, seen_variance), (false, STD.powi(2))] {
            // 400 steps leave 3 % of the variance: the recursion is the posterior to that, the samples to their own error.
            let variance = annealed(v, &sigmas, Renoise::Ancestral);
            assert!((0.97 * v..=v).contains(&variance), "{variance} of {v}");
            let what = format!("sigma_y {sigma_y}, seen {seen}");
            assert_moments(&what, &moments(&x, &measurement.y, sigma_y, seen), variance);
        }
    }
}

// Few steps are not exact. All fresh noise never is: with many steps it ends at half of the posterior's variance.
#[test]
fn pigdm_with_few_steps_has_the_variance_of_its_own_recursion() {
    let (prior, operator, noise) = (prior(), chessboard(), Gaussian::new(0.3).unwrap());
    let measurement = measure(&operator, &noise, 128);
    // From its own mean, so that a short run does not remember a start at zero.
    let mean = |(i, y): (usize, f32)| if is_seen(i % 64) { posterior_mean(y.into(), 0.3) as f32 } else { MEAN as f32 };
    let guess: Vec<f32> = values(&measurement.y).into_iter().enumerate().map(mean).collect();
    let guess = Tensor::from_vec(guess, (128, 3, 8, 8), &Device::Cpu).unwrap();
    for (text, renoise) in [
        ("'none'", Renoise::None),
        ("'ancestral'", Renoise::Ancestral),
        ("{ fraction = 0.3 }", Renoise::Fraction(0.3)),
        ("'all'", Renoise::All),
    ] {
        let settings = format!("[annealing]\nsteps = 20\nsigma_start = 5.0\nrenoise = {text}");
        let pigdm = sampler("pigdm", &settings);
        assert_eq!(pigdm.annealing().renoise, renoise);
        let sigmas = pigdm.annealing().sigmas(&prior.sigma_range());
        let problem = Problem { prior: &prior, measurement: &measurement, guess: Some(guess.clone()) };
        let x = pigdm.sample(&problem, SHAPE, &mut Rng::new(6, 0..128), &mut |_: &Step<'_>| Ok(())).unwrap();
        let spread = (STD * 0.3).powi(2) / (STD.powi(2) + 0.3_f64.powi(2));
        for (seen, v) in [(true, spread), (false, STD.powi(2))] {
            let what = format!("{renoise:?}, seen {seen}");
            assert_moments(&what, &moments(&x, &measurement.y, 0.3, seen), annealed(v, &sigmas, renoise));
        }
    }
    let many = sampler("pigdm", "annealing = { steps = 1000, renoise = 'all' }");
    let variance = annealed(1.0, &many.annealing().sigmas(&prior.sigma_range()), Renoise::All);
    assert!((variance - 0.5).abs() < 0.01, "{variance}");
}

#[test]
fn ddnm_keeps_what_was_measured_and_draws_the_rest_from_the_prior() {
    let (prior, operator, noise) = (prior(), chessboard(), Gaussian::new(0.0).unwrap());
    let measurement = measure(&operator, &noise, 128);
    let ddnm = sampler(
        "ddnm",
        "[annealing]\nsteps = 400\nsigma_start = 20.0\nsigma_end = 0.01\nrho = 7.0\nrenoise = 'ancestral'",
    );
    let x = draw(ddnm.as_ref(), &prior, &measurement, 7).unwrap();
    let misfit = (operator.forward(&x).unwrap() - &measurement.y).unwrap();
    let largest = values(&misfit).into_iter().fold(0.0, |largest: f32, m| largest.max(m.abs()));
    assert!(largest <= 2.0 * f32::EPSILON, "{largest}");
    let variance = annealed(STD.powi(2), &ddnm.annealing().sigmas(&prior.sigma_range()), Renoise::Ancestral);
    assert_moments("unseen", &moments(&x, &measurement.y, 0.0, false), variance);
}

#[test]
fn ddnm_renoises_with_the_noise_of_the_unprojected_image() {
    let (prior, operator, noise) = (prior(), chessboard(), Gaussian::new(0.0).unwrap());
    let measurement = measure(&operator, &noise, 2);
    let ddnm = sampler("ddnm", "annealing = { steps = 2, sigma_start = 2.0, sigma_end = 0.5, renoise = 'none' }");
    let mut states = Vec::new();
    let mut watch = |step: &Step<'_>| {
        states.push((step.x.clone(), step.x0.clone()));
        Ok(())
    };
    let problem = Problem { prior: &prior, measurement: &measurement, guess: None };
    ddnm.sample(&problem, SHAPE, &mut Rng::new(2, 0..2), &mut watch).unwrap();
    let (first, second) = (&states[0], &states[1]);
    let (x, x0, next) = (values(&first.0), values(&first.1), values(&second.0));
    for (i, y) in values(&measurement.y).into_iter().enumerate() {
        // σ goes from 2 to 1/2, so the noise keeps a quarter of its size; the spread of the prior is 1/2.
        let denoised = (0.25 * x[i] + 4.0 * MEAN as f32) / 4.25;
        let projected = if is_seen(i % 64) { y } else { denoised };
        assert!((x0[i] - projected).abs() < 1e-5, "estimate {i}: {} against {projected}", x0[i]);
        let expected = projected + 0.25 * (x[i] - denoised);
        assert!((next[i] - expected).abs() < 1e-5, "state {i}: {} against {expected}", next[i]);
    }
}

/// The σ clock's ancestral step of a Gaussian prior, then the paper's `−ζ ∇‖y − A D‖`, in plain double precision.
fn dps_by_hand(y: &[f32], sigmas: &[f64], scale: f64, seed: u64, row: u64) -> Vec<f64> {
    let mut rng = Rng::new(seed, row..row + 1);
    let mut noise = || values(&rng.normal((1, 3, 8, 8), &Device::Cpu).unwrap());
    let mut x: Vec<f64> = noise().into_iter().map(|n| sigmas[0] * f64::from(n)).collect();
    for pair in sigmas.windows(2) {
        let (from, to) = (pair[0].powi(2), pair[1].powi(2));
        let slope = STD.powi(2) / (STD.powi(2) + from);
        let denoised: Vec<f64> = x.iter().map(|x| slope * x + (1.0 - slope) * MEAN).collect();
        let residual: Vec<f64> =
            (0..VALUES).map(|i| if is_seen(i % 64) { f64::from(y[i]) - denoised[i] } else { 0.0 }).collect();
        let norm = residual.iter().map(|r| r * r).sum::<f64>().sqrt();
        let fresh = if to > 0.0 { noise() } else { vec![0.0; VALUES] };
        for i in 0..VALUES {
            let gradient = -slope * residual[i] / norm;
            let ancestral =
                denoised[i] + to / from * (x[i] - denoised[i]) + (to * (from - to) / from).sqrt() * f64::from(fresh[i]);
            x[i] = ancestral - scale * ((1.0 + from) * (1.0 + to)).sqrt() * gradient;
        }
    }
    x
}

#[test]
fn dps_is_the_ancestral_step_minus_the_gradient_of_each_rows_own_residual() {
    let (prior, operator, noise) = (prior(), chessboard(), Gaussian::new(0.0).unwrap());
    let measurement = measure(&operator, &noise, 3);
    let settings = |scale: f64| {
        format!("scale = {scale}\nannealing = {{ steps = 60, sigma_start = 10.0, renoise = 'ancestral' }}")
    };
    let guided = sampler("dps", &settings(0.4));
    let sigmas = guided.annealing().sigmas(&prior.sigma_range());
    let x = draw(guided.as_ref(), &prior, &measurement, 8).unwrap();
    let free = draw(sampler("dps", &settings(0.0)).as_ref(), &prior, &measurement, 8).unwrap();
    let misfit = |x: &[f32], y: &[f32]| -> f32 {
        (0..VALUES).filter(|i| is_seen(i % 64)).map(|i| (x[i] - y[i]).powi(2)).sum::<f32>().sqrt()
    };
    let (x, free, y) = (values(&x), values(&free), values(&measurement.y));
    for row in 0..3 {
        let part = row * VALUES..(row + 1) * VALUES;
        let (x, free, y) = (&x[part.clone()], &free[part.clone()], &y[part]);
        let expected = dps_by_hand(y, &sigmas, 0.4, 8, row as u64);
        let worst = x.iter().zip(&expected).map(|(&x, e)| (f64::from(x) - e).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-3, "row {row} differs by {worst}");
        assert!(misfit(x, y) < 0.3 * misfit(free, y), "row {row}: {} of {}", misfit(x, y), misfit(free, y));
    }
}

#[test]
fn fresh_noise_is_what_the_table_of_methods_says() {
    let close = |renoise: Renoise, expected: f64| assert!((renoise.fraction(2.0, 1.0) - expected).abs() < 1e-15);
    close(Renoise::None, 0.0);
    close(Renoise::Ancestral, 0.75);
    close(Renoise::Fraction(0.3), 0.3);
    close(Renoise::All, 1.0);
    assert_eq!(Renoise::Ancestral.fraction(2.0, 0.0), 1.0);
}

#[test]
fn every_sampler_has_a_name_of_its_own_and_builds_from_its_example() {
    for (index, entry) in SAMPLERS.iter().enumerate() {
        let snake_case = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(entry.name.starts_with(|c: char| c.is_ascii_lowercase()) && entry.name.chars().all(snake_case));
        assert!(SAMPLERS[..index].iter().all(|other| other.name != entry.name), "{} twice", entry.name);
        assert!(
            !entry.about.is_empty() && !entry.about.ends_with('.') && !entry.about.contains('\n'),
            "{}",
            entry.about
        );
        assert_eq!(sampler(entry.name, entry.example).name(), entry.name);
        assert_eq!(sampler(entry.name, "").name(), entry.name, "without settings");
    }
}

/// With a Gaussian prior `J` is a multiple of the identity and one conjugate gradient solves the system: every estimate
/// of Tweedie moment projection is the exact posterior mean given the state and the measurement.
#[test]
fn tmpd_estimates_the_exact_posterior_mean_of_a_gaussian_prior() {
    let (operator, prior) = (chessboard(), prior());
    for (sigma_y, iterations) in [(0.3, 1), (0.3, 3), (0.0, 1), (0.0, 2)] {
        let noise = Gaussian::new(sigma_y).unwrap();
        // In double precision, where conjugate gradients leave nothing to rounding.
        let measurement = measure(&operator, &noise, 3);
        let measurement = Measurement { y: measurement.y.to_dtype(DType::F64).unwrap(), ..measurement };
        let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let settings = format!("iterations = {iterations}\nannealing = {{ steps = 5, sigma_start = 3.0 }}");
        let problem = Problem { prior: &prior, measurement: &measurement, guess: None };
        let y = values(&measurement.y);
        let mut steps = 0;
        let mut check = |step: &Step<'_>| {
            let (x, estimate, variance) = (values(step.x), values(step.x0), step.sigma * step.sigma);
            let spread = STD * STD * variance / (STD * STD + variance);
            for i in 0..x.len() {
                let denoised = (STD * STD * x[i] + variance * MEAN) / (STD * STD + variance);
                let gain = if is_seen(i % 64) { spread / (spread + sigma_y * sigma_y) } else { 0.0 };
                let exact = denoised + gain * (y[i] - denoised);
                let error = (estimate[i] - exact).abs();
                assert!(error < 1e-9, "sigma {}, pixel {i}: {} instead of {exact}", step.sigma, estimate[i]);
            }
            steps += 1;
            Ok(())
        };
        sampler("tmpd", &settings).sample(&problem, SHAPE, &mut Rng::new(5, 0..3), &mut check).unwrap();
        assert_eq!(steps, 5);
    }
}

/// Drawing from the Gaussian at every step keeps the posterior's variance with any number of levels: what is lost is the last
/// step's, which takes the mean, `v → v²/(v + σ²)`.
#[test]
fn tmpd_that_draws_has_the_posteriors_variance_after_few_steps() {
    let (operator, prior) = (chessboard(), prior());
    for (sigma_y, steps) in [(0.3, 8), (0.3, 20), (0.0, 8)] {
        let noise = Gaussian::new(sigma_y).unwrap();
        let measurement = measure(&operator, &noise, 128);
        let (start, end) = (5.0, 0.05);
        let settings = format!(
            "iterations = 1\ndraw = true\nannealing = {{ steps = {steps}, sigma_start = {start:?}, sigma_end = {end} }}"
        );
        let tmpd = sampler("tmpd", &settings);
        assert_eq!(tmpd.pullbacks(), 3);
        let x = draw(tmpd.as_ref(), &prior, &measurement, 5).unwrap();
        let spread = (STD * sigma_y).powi(2) / (STD.powi(2) + sigma_y.powi(2));
        for (seen, v) in [(true, spread), (false, STD.powi(2))] {
            let what = format!("sigma_y {sigma_y}, {steps} steps, seen {seen}");
            let variance = if v > 0.0 { v * v / (v + end * end) } else { 0.0 };
            assert_moments(&what, &moments(&x, &measurement.y, sigma_y, seen), variance);
        }
    }
}

/// Those that anneal: `tweedie` takes one step, and has tests of its own.
fn annealed_samplers() -> impl Iterator<Item = &'static Entry<BuildSampler>> {
    SAMPLERS.iter().filter(|entry| entry.name != "tweedie")
}

#[test]
fn tweedie_is_the_exact_posterior_mean_of_noise_alone_and_says_what_it_needs() {
    let site = tweedie_operators::Site::new((3, 8, 8), &Device::Cpu, DType::F32);
    let identity = tweedie_operators::forward::Identity::new(site).unwrap();
    let (prior, noise) = (prior(), Gaussian::new(0.2).unwrap());
    let measurement = measure(&identity, &noise, 2);
    let x = draw(sampler("tweedie", "").as_ref(), &prior, &measurement, 1).unwrap();
    // N(m, s²) seen through noise of σ: (s² y + σ² m) / (s² + σ²).
    let (variance, noise) = (STD * STD, 0.04);
    for (x, y) in values(&x).iter().zip(values(&measurement.y)) {
        let expected = (variance * f64::from(y) + noise * MEAN) / (variance + noise);
        assert!((f64::from(*x) - expected).abs() < 1e-5, "{x} and {expected}");
    }
    let (mask, none) = (chessboard(), Gaussian::new(0.0).unwrap());
    for measurement in [measure(&mask, &Gaussian::new(0.2).unwrap(), 1), measure(&identity, &none, 1)] {
        let message = draw(sampler("tweedie", "").as_ref(), &prior, &measurement, 1).unwrap_err().to_string();
        assert!(message.starts_with("tweedie needs an operator whose singular values are all the same"), "{message}");
    }
}

#[test]
fn settings_that_no_sampler_knows_or_allows_are_refused_with_what_is_allowed() {
    let message = |name: &str, settings: &str| {
        find_sampler(SAMPLERS, name, toml::from_str(settings).unwrap()).unwrap_err().to_string()
    };
    for entry in annealed_samplers() {
        let text = message(entry.name, "stepz = 3");
        assert!(text.starts_with(&format!("configuration of the sampler {} is stepz = 3, ", entry.name)), "{text}");
        assert!(text.contains("unknown field `stepz`"), "{text}");
        // What is documented is what is accepted, no more and no less.
        let expected = text.split("expected").last().unwrap();
        let mut accepted: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        let mut documented: Vec<&str> = entry.fields.iter().map(|&(field, _)| field).collect();
        accepted.sort_unstable();
        documented.sort_unstable();
        assert_eq!(accepted, documented, "{}: {text}", entry.name);
        assert!(entry.fields.iter().all(|(_, about)| !about.is_empty()), "{}", entry.name);
        let text = message(entry.name, "annealing = { step = 3 }");
        let of_annealing = "one of `steps`, `sigma_start`, `sigma_end`, `rho`, `renoise`";
        assert!(text.contains("unknown field `step`") && text.contains(of_annealing), "{text}");
        assert_eq!(message(entry.name, "annealing = { steps = 0 }"), "steps is 0, expected 1 to 100000");
        let text = message(entry.name, "annealing = { sigma_start = 0.1, sigma_end = 0.2 }");
        assert_eq!(text, "sigma_end is 0.2, expected 0.0001 to 0.1");
        let text = message(entry.name, "annealing = { renoise = { fraction = 1.5 } }");
        assert_eq!(text, "renoise is 1.5, expected 0 to 1");
        assert_eq!(message(entry.name, "annealing = { rho = nan }"), "rho is NaN, expected 0.1 to 100");
    }
    assert_eq!(message("pigdm", "prior_std = 0.0"), "prior_std is 0, expected 0.001 to 1000");
    assert_eq!(message("dps", "scale = -1.0"), "scale is -1, expected 0 to 1000000");
    let known = SAMPLERS.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
    assert_eq!(message("pgdm", ""), format!("unknown sampler `pgdm`; known: {known}"));
}

#[test]
fn levels_lie_between_their_ends_as_the_schedule_of_that_name_spaces_them() {
    let levels = |name: &str, schedule: &str| {
        let ends = "steps = 9, sigma_start = 5.0, sigma_end = 0.05, rho = 7.0";
        let settings = format!("annealing = {{ {ends}, schedule = '{schedule}' }}");
        sampler(name, &settings).annealing().sigmas(&prior().sigma_range())
    };
    for entry in annealed_samplers() {
        for schedule in SCHEDULES {
            let sigmas = levels(entry.name, schedule.name);
            assert_eq!((sigmas.len(), sigmas[9]), (10, 0.0));
            assert!((sigmas[0] - 5.0).abs() < 1e-12 && (sigmas[8] - 0.05).abs() < 1e-12, "{sigmas:?}");
            assert!(sigmas.windows(2).all(|pair| pair[0] > pair[1]), "{sigmas:?}");
        }
        let middle = |schedule: &str, expected: f64| {
            let got = levels(entry.name, schedule)[4];
            assert!((got / expected - 1.0).abs() < 1e-12, "{schedule}: {got} and {expected}");
        };
        middle("geometric", 0.5);
        middle("karras", (0.5 * (5f64.powf(1.0 / 7.0) + 0.05f64.powf(1.0 / 7.0))).powi(7));
        // ln(1 + σ²) = 9.95 t² + 0.1 t
        let time = |sigma: f64| ((0.01 + 4.0 * 9.95 * (1.0 + sigma * sigma).ln()).sqrt() - 0.1) / 19.9;
        let t = 0.5 * (time(5.0) + time(0.05));
        middle("vp_continuous", ((9.95 * t * t + 0.1 * t).exp() - 1.0).sqrt());
        let wrong = toml::from_str("annealing = { schedule = 'cosine' }").unwrap();
        let message = find_sampler(SAMPLERS, entry.name, wrong).unwrap_err().to_string();
        assert!(message.contains("unknown schedule `cosine`; known: karras, geometric, "), "{message}");
    }
}

#[test]
fn a_row_does_not_depend_on_the_other_rows_and_a_seed_gives_the_same_bits_again() {
    let (operator, noise) = (chessboard(), Gaussian::new(0.0).unwrap());
    let measurement = measure(&operator, &noise, 3);
    let gaussian = prior();
    for entry in annealed_samplers() {
        let sampler = sampler(entry.name, entry.example);
        for prior in [&gaussian, EMBEDDED.denoiser()] {
            let what = format!("{} with {prior:?}", entry.name).chars().take(60).collect::<String>();
            let together = draw(sampler.as_ref(), prior, &measurement, 9).unwrap();
            let again = draw(sampler.as_ref(), prior, &measurement, 9).unwrap();
            assert!(values(&together) == values(&again), "{what}: the same seed");
            let other = draw(sampler.as_ref(), prior, &measurement, 10).unwrap();
            assert!(values(&together) != values(&other), "{what}: another seed");
            for row in 0..3 {
                let alone = Measurement { y: measurement.y.narrow(0, row, 1).unwrap(), ..measurement.clone() };
                let problem = Problem { prior, measurement: &alone, guess: None };
                let mut rng = Rng::new(9, row as u64..row as u64 + 1);
                let x = sampler.sample(&problem, SHAPE, &mut rng, &mut |_: &Step<'_>| Ok(())).unwrap();
                assert!(values(&x) == values(&together.narrow(0, row, 1).unwrap()), "{what}: row {row}");
            }
        }
    }
}

/// A Gaussian prior whose pullback puts a thousand times of every number beside it, where the chessboard sees nothing.
#[derive(Debug)]
struct Wild(GaussianPrior);

impl Denoiser for Wild {
    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        self.0.denoise(x, sigma)
    }

    fn channels(&self) -> Option<usize> {
        None
    }

    fn sigma_range(&self) -> RangeInclusive<f64> {
        self.0.sigma_range()
    }

    fn denoise_with_pullback<'a>(&'a self, x: &Tensor, sigma: f64) -> Result<(Tensor, Pullback<'a>)> {
        let (denoised, pullback) = self.0.denoise_with_pullback(x, sigma)?;
        Ok((denoised, Pullback::new(move |v: &Tensor| Ok((pullback.apply(v)? + (v.roll(1, 3)? * 1e3)?)?))))
    }
}

/// A learned Jacobian can be far off where the measurement does not notice: no pixel goes further than the noise allows.
#[test]
fn tmpd_survives_a_wild_pullback() {
    let (operator, noise) = (chessboard(), Gaussian::new(0.1).unwrap());
    let measurement = measure(&operator, &noise, 4);
    let tmpd = sampler("tmpd", "annealing = { steps = 8, sigma_start = 1.0, sigma_end = 0.05, renoise = 'all' }");
    let prior = Wild(prior());
    let x = draw(tmpd.as_ref(), &prior, &measurement, 3).unwrap();
    let largest = values(&x).into_iter().map(|value| (f64::from(value) - MEAN).abs()).fold(0.0, f64::max);
    // From x = m + d the denoised image is m + d τ² / (τ² + σ²), x₀ is 4σ further at most, and noise of the next level is added:
    // 5 of its standard deviations at most, as the start is.
    let mut bound = MEAN;
    for sigma in tmpd.annealing().sigmas(&prior.sigma_range()).into_iter().filter(|sigma| *sigma > 0.0) {
        bound = (bound + 5.0 * sigma) * STD.powi(2) / (STD.powi(2) + sigma.powi(2)) + 4.0 * sigma;
    }
    assert!(bound < 20.0 && largest <= bound, "{largest}, {bound} at most");
}

/// A prior that fails below a noise level.
#[derive(Debug)]
struct Broken {
    below: f64,
    value: f64,
}

impl Denoiser for Broken {
    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        Ok((x * if sigma < self.below { self.value } else { 0.5 })?)
    }

    fn channels(&self) -> Option<usize> {
        None
    }

    fn sigma_range(&self) -> RangeInclusive<f64> {
        0.002..=80.0
    }
}

/// Whether each step of a run looks at the prior at its own level of `sigmas`, and nowhere else.
fn looks_once_a_level(sampler: &dyn Sampler, sigmas: &[f64]) -> bool {
    let range = 0.002..=80.0;
    let steps = sampler.steps(&range);
    steps == sigmas.len() - 1 && sampler.evaluations(&range) == steps * sampler.particles()
}

/// Fault 55.
#[test]
fn a_prior_that_stops_giving_numbers_ends_the_run_with_its_step_and_noise_level() {
    let (operator, noise) = (chessboard(), Gaussian::new(0.0).unwrap());
    let measurement = measure(&operator, &noise, 2);
    for entry in annealed_samplers() {
        let sampler = sampler(entry.name, entry.example);
        let sigmas = sampler.annealing().sigmas(&(0.002..=80.0));
        for value in [f64::NAN, f64::INFINITY] {
            let broken = Broken { below: sigmas[1], value };
            match draw(sampler.as_ref(), &broken, &measurement, 1).unwrap_err() {
                Error::NonFinite { step, sigma } if looks_once_a_level(&*sampler, &sigmas) => {
                    assert_eq!((step, sigma), (2, sigmas[2]), "{}", entry.name);
                }
                // A step that looks further down than its own level, or comes back up, fails earlier.
                Error::NonFinite { step, .. } => assert!(step <= 2, "{}: step {step}", entry.name),
                other => panic!("{}: {other}", entry.name),
            }
        }
        let message =
            draw(sampler.as_ref(), &Broken { below: f64::INFINITY, value: f64::NAN }, &measurement, 1).unwrap_err();
        let expected = format!("model produced an invalid image: not finite at step 0, sigma {}", sigmas[0]);
        assert_eq!(message.to_string(), expected);
    }
}

#[test]
fn an_observer_sees_every_step_and_its_error_ends_the_run() {
    let (prior, operator, noise) = (prior(), chessboard(), Gaussian::new(0.0).unwrap());
    let measurement = measure(&operator, &noise, 2);
    for entry in annealed_samplers() {
        let sampler = sampler(entry.name, entry.example);
        let problem = Problem { prior: &prior, measurement: &measurement, guess: None };
        let (mut seen, mut visited) = (Vec::new(), Vec::new());
        let mut last = None;
        let mut watch = |step: &Step<'_>| {
            assert_eq!((step.x.dims(), step.x0.dims()), (&[2, 3, 8, 8][..], &[2, 3, 8, 8][..]));
            seen.push((step.index, step.total));
            visited.push(step.sigma);
            last = Some(step.x0.clone());
            Ok(())
        };
        let x = sampler.sample(&problem, SHAPE, &mut Rng::new(1, 0..2), &mut watch).unwrap();
        let total = sampler.steps(&prior.sigma_range());
        assert!(total > 1, "{}", entry.name);
        assert_eq!(seen, (0..total).map(|index| (index, total)).collect::<Vec<_>>(), "{}", entry.name);
        let sigmas = sampler.annealing().sigmas(&prior.sigma_range());
        if looks_once_a_level(&*sampler, &sigmas) {
            assert_eq!(visited, sigmas[..total], "{}", entry.name);
        }
        assert_eq!(values(&x), values(&last.unwrap()), "{}: the last estimate is the result", entry.name);
        let mut calls = 0;
        let mut stop = |step: &Step<'_>| {
            calls += 1;
            if step.index == 1 { Err(Error::Interrupted) } else { Ok(()) }
        };
        let error = sampler.sample(&problem, SHAPE, &mut Rng::new(1, 0..2), &mut stop).unwrap_err();
        assert!(matches!(error, Error::Interrupted), "{}: {error}", entry.name);
        assert_eq!(calls, 2, "{}", entry.name);
    }
}

#[test]
fn a_guess_is_where_the_noise_is_added() {
    let (prior, operator, noise) = (prior(), chessboard(), Gaussian::new(0.0).unwrap());
    let measurement = measure(&operator, &noise, 2);
    let guess = scattered_image((1, 3, 8, 8), 40);
    let start = |guess: Option<Tensor>| {
        let problem = Problem { prior: &prior, measurement: &measurement, guess };
        let mut first = None;
        let mut watch = |step: &Step<'_>| {
            first.get_or_insert_with(|| step.x.clone());
            Ok(())
        };
        sampler("ddnm", "").sample(&problem, SHAPE, &mut Rng::new(1, 0..2), &mut watch).unwrap();
        first.unwrap()
    };
    let expected = start(None).broadcast_add(&guess).unwrap();
    assert_eq!(values(&start(Some(guess))), values(&expected));
}

/// What a camera might do, and noise that is not Gaussian.
#[derive(Debug)]
struct Squared;

impl ForwardOperator for Squared {
    fn forward(&self, x: &Tensor) -> tweedie_operators::Result<Tensor> {
        Ok(x.sqr()?)
    }
}

#[derive(Debug)]
struct Uniform;

impl NoiseModel for Uniform {
    fn corrupt(&self, z: &Tensor, _: &mut Rng) -> tweedie_operators::Result<Tensor> {
        Ok(z.clone())
    }

    fn log_likelihood(&self, z: &Tensor, _: &Tensor) -> tweedie_operators::Result<Tensor> {
        Ok(z.flatten_from(1)?.sum(1)?.zeros_like()?)
    }
}

#[test]
fn methods_say_what_they_lack_of_the_operator_and_the_noise() {
    let (prior, operator, noise) = (prior(), chessboard(), Gaussian::new(0.0).unwrap());
    let y = measure(&operator, &noise, 1).y;
    let message = |name: &str, operator: &dyn ForwardOperator, noise: &dyn NoiseModel| {
        let measurement = Measurement { operator, noise, y: y.clone() };
        draw(sampler(name, "annealing = { steps = 2 }").as_ref(), &prior, &measurement, 1).map_err(|e| e.to_string())
    };
    let spectral = "needs an operator with known singular values";
    assert_eq!(message("ddnm", &Squared, &noise).unwrap_err(), format!("ddnm {spectral}"));
    assert_eq!(message("pigdm", &Squared, &noise).unwrap_err(), "pigdm needs a linear operator");
    assert_eq!(message("mcg", &Squared, &noise).unwrap_err(), "mcg needs a linear operator");
    assert_eq!(message("sitcom", &Squared, &Uniform).unwrap_err(), "sitcom needs additive white Gaussian noise");
    let either = "pnp_dm needs a linear operator, or noise with a density";
    assert_eq!(message("pnp_dm", &Squared, &noise).unwrap_err(), either);
    assert_eq!(message("pigdm", &operator, &Uniform).unwrap_err(), "pigdm needs additive white Gaussian noise");
    assert!(message("dps", &Squared, &Uniform).is_ok());
}
