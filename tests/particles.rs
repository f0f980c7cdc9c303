//! Particle methods against exact posteriors, and the distance that the benchmark measures them with.

#[path = "../examples/mixture_benchmark/sliced_wasserstein.rs"]
mod sliced_wasserstein;

use candle_core::{DType, Device, Tensor};
use sliced_wasserstein::sliced_wasserstein;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use tweedie::Result;
use tweedie::priors::{Denoiser, Gaussian as GaussianPrior, Mixture};
use tweedie::samplers::{Problem, SAMPLERS, Step, find_sampler};
use tweedie_operators::forward::{ForwardOperator, Inpaint};
use tweedie_operators::noise::Gaussian;
use tweedie_operators::{Measurement, Rng};

const METHODS: [&str; 3] = ["mcg_diff", "tds", "fps_smc"];

fn tensor(values: &[f64], shape: impl Into<candle_core::Shape>) -> Tensor {
    Tensor::from_vec(values.to_vec(), shape, &Device::Cpu).unwrap()
}

fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Two pixels, of which the first is seen.
fn first_pixel() -> Inpaint {
    Inpaint::new(&tensor(&[1.0, 0.0], (1, 1, 1, 2))).unwrap()
}

/// Pixels that go together.
fn correlated() -> Mixture {
    Mixture::gaussian(&tensor(&[0.2, -0.1], (1, 1, 2)), &tensor(&[0.5, 0.35, 0.35, 0.4], (2, 2))).unwrap()
}

/// Two modes, far apart in the pixel that is hidden and near in the one that is seen.
fn bimodal() -> Mixture {
    let means = tensor(&[-0.4, -1.5, 0.4, 1.5], (2, 1, 1, 2));
    Mixture::isotropic(&[0.6, 0.4], &means, &[0.25, 0.09]).unwrap()
}

/// Draws from the posterior given that the first pixel is `y`.
fn draw(method: &str, settings: &str, prior: &Mixture, y: f64, sigma_y: f64, rows: usize) -> Vec<f64> {
    let (operator, noise) = (first_pixel(), Gaussian::new(sigma_y).unwrap());
    let y = tensor(&[y, 0.0].repeat(rows), (rows, 1, 1, 2));
    let measurement = Measurement { operator: &operator, noise: &noise, y };
    let annealing = "[annealing]\nsteps = 120\nsigma_start = 20.0\nsigma_end = 0.01\nrho = 7.0\nrenoise = 'ancestral'";
    // The weights that the paper has count a noisy measurement more than once.
    let exact = if method == "fps_smc" { "own_noise = true" } else { "" };
    let settings = toml::from_str(&format!("{settings}\n{exact}\n{annealing}")).unwrap();
    let sampler = find_sampler(SAMPLERS, method, settings).unwrap();
    let problem = Problem { prior, measurement: &measurement, guess: None };
    let mut rng = Rng::new(7, 0..rows as u64);
    values(&sampler.sample(&problem, (1, 1, 2), &mut rng, &mut |_: &Step<'_>| Ok(())).unwrap())
}

fn exact(prior: &Mixture, y: f64, sigma_y: f64) -> Mixture {
    let operator = first_pixel();
    prior.posterior(operator.as_linear().unwrap(), sigma_y, &tensor(&[y, 0.0], (1, 1, 1, 2))).unwrap()
}

fn mean_and_variance(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    (mean, values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64)
}

/// The mean to 4 standard errors and 5 % of the standard deviation, the variance to 4 standard errors and 8 %: 120 steps
/// and 16 particles are not infinitely many.
#[test]
fn particles_draw_from_the_posterior_of_correlated_pixels() {
    let prior = correlated();
    let rows = 600;
    for method in METHODS {
        for sigma_y in [0.0, 0.4] {
            let posterior = exact(&prior, 1.1, sigma_y);
            let (means, covariance) = (values(&posterior.means().unwrap()), values(&posterior.covariances().unwrap()));
            let x = draw(method, "particles = 16", &prior, 1.1, sigma_y, rows);
            for pixel in 0..2 {
                let drawn: Vec<f64> = x.iter().skip(pixel).step_by(2).copied().collect();
                let (mean, variance) = mean_and_variance(&drawn);
                let expected = covariance[3 * pixel];
                let what = format!("{method}, σ_y {sigma_y}, pixel {pixel}");
                let tolerance = (4.0 / (rows as f64).sqrt() + 0.05) * expected.sqrt() + 1e-5;
                assert!(
                    (mean - means[pixel]).abs() < tolerance,
                    "{what}: mean {mean}, expected {} ± {tolerance}",
                    means[pixel]
                );
                let tolerance = (4.0 * (2.0 / rows as f64).sqrt() + 0.08) * expected + 1e-9;
                assert!(
                    (variance - expected).abs() < tolerance,
                    "{what}: variance {variance}, expected {expected} ± {tolerance}"
                );
            }
        }
    }
}

/// Which mode is decided by the weights alone: one particle cannot know, many do.
#[test]
fn particles_find_how_much_each_mode_weighs() {
    let prior = bimodal();
    let rows = 500;
    for (y, sigma_y) in [(0.3, 0.0), (0.3, 0.5)] {
        let posterior = exact(&prior, y, sigma_y);
        let (weights, means) = (posterior.weights(), values(&posterior.means().unwrap()));
        assert!(means[1] < -1.0 && means[3] > 1.0, "{means:?}");
        let error = (weights[1] * (1.0 - weights[1]) / rows as f64).sqrt();
        for method in METHODS {
            let upper = |particles: usize| {
                let x = draw(method, &format!("particles = {particles}"), &prior, y, sigma_y, rows);
                x.iter().skip(1).step_by(2).filter(|x| **x > 0.0).count() as f64 / rows as f64
            };
            let many = upper(32);
            let what = format!("{method}, y {y}, σ_y {sigma_y}: {many} in the upper mode, {} expected", weights[1]);
            assert!((many - weights[1]).abs() < 4.0 * error + 0.03, "{what} ± {error}");
        }
    }
}

/// A prior that counts the images it is given.
#[derive(Debug)]
struct Counting {
    prior: GaussianPrior,
    images: AtomicUsize,
}

impl Denoiser for Counting {
    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        self.images.fetch_add(x.dim(0)?, Ordering::Relaxed);
        self.prior.denoise(x, sigma)
    }

    fn channels(&self) -> Option<usize> {
        None
    }

    fn sigma_range(&self) -> RangeInclusive<f64> {
        0.002..=80.0
    }
}

#[test]
fn every_particle_is_an_evaluation_at_every_level() {
    let (operator, noise) = (first_pixel(), Gaussian::new(0.1).unwrap());
    let measurement = Measurement { operator: &operator, noise: &noise, y: tensor(&[0.4; 6], (3, 1, 1, 2)) };
    for method in METHODS {
        for (particles, steps) in [(1, 3), (5, 4)] {
            let prior = Counting { prior: GaussianPrior::new(0.0, 0.5).unwrap(), images: AtomicUsize::new(0) };
            let settings = format!("particles = {particles}\n[annealing]\nsteps = {steps}\nrenoise = 'ancestral'");
            let sampler = find_sampler(SAMPLERS, method, toml::from_str(&settings).unwrap()).unwrap();
            let problem = Problem { prior: &prior, measurement: &measurement, guess: None };
            sampler.sample(&problem, (1, 1, 2), &mut Rng::new(1, 0..3), &mut |_: &Step<'_>| Ok(())).unwrap();
            assert_eq!(sampler.particles(), particles);
            assert_eq!(sampler.evaluations(&prior.sigma_range()), particles * steps, "{method}");
            assert_eq!(prior.images.into_inner(), 3 * particles * steps, "{method}: three images");
        }
    }
}

#[test]
fn a_schedule_without_fresh_noise_and_no_particles_are_refused() {
    for method in METHODS {
        let message =
            |settings: &str| find_sampler(SAMPLERS, method, toml::from_str(settings).unwrap()).unwrap_err().to_string();
        assert_eq!(
            message("annealing = { renoise = 'none' }"),
            "renoise is None, expected a part of fresh noise above 0, without which all particles are one"
        );
        assert_eq!(message("particles = 0"), "particles is 0, expected 1 to 100000");
        assert_eq!(message("resampling = { threshold = 1.5 }"), "threshold is 1.5, expected 0 to 1");
        let text = message("resampling = { scheme = 'residual' }");
        assert!(text.contains("`systematic` or `multinomial`"), "{text}");
    }
}

#[test]
fn both_ways_of_resampling_draw_from_the_posterior() {
    let prior = bimodal();
    let posterior = exact(&prior, 0.3, 0.5);
    let means = values(&posterior.means().unwrap());
    let weights = posterior.weights();
    let (expected, rows) = (weights[0] * means[1] + weights[1] * means[3], 300);
    for method in METHODS {
        for resampling in ["{ scheme = 'multinomial' }", "{ scheme = 'systematic', threshold = 0.3 }"] {
            let x = draw(method, &format!("particles = 24\nresampling = {resampling}"), &prior, 0.3, 0.5, rows);
            let hidden: Vec<f64> = x.iter().skip(1).step_by(2).copied().collect();
            let (mean, variance) = mean_and_variance(&hidden);
            let error = 4.0 * (variance / rows as f64).sqrt() + 0.05 * variance.sqrt();
            assert!((mean - expected).abs() < error, "{method}, {resampling}: {mean}, expected {expected} ± {error}");
        }
    }
}

#[test]
fn the_sliced_distance_of_points_that_are_moved_or_stretched_is_a_formula() {
    let a = Rng::new(5, 0..400).normal((400, 1, 1, 6), &Device::Cpu).unwrap();
    let move_by = tensor(&[1.0, -2.0, 0.5, 0.0, 0.0, 2.0], (1, 1, 1, 6)).to_dtype(DType::F32).unwrap();
    let moved = a.broadcast_add(&move_by).unwrap();
    // E⟨u, δ⟩² = |δ|²/D.
    let expected = ((1.0 + 4.0 + 0.25 + 4.0) / 6.0_f64).sqrt();
    let got = sliced_wasserstein(&a, &moved, 20_000, 1).unwrap();
    assert!((got / expected - 1.0).abs() < 0.02, "{got}, expected {expected}");
    let stretched = (&a * 3.0).unwrap();
    let expected = 2.0 * (values(&a).iter().map(|x| x * x).sum::<f64>() / 2400.0).sqrt();
    let got = sliced_wasserstein(&a, &stretched, 20_000, 1).unwrap();
    assert!((got / expected - 1.0).abs() < 0.02, "{got}, expected {expected}");
    assert_eq!(sliced_wasserstein(&a, &a, 100, 1).unwrap(), 0.0);
    // On a line there is nothing to slice, and the order of points does not matter.
    let (one, other) = (tensor(&[0.0, 1.0, 2.0], (3, 1)), tensor(&[2.5, 0.0, 1.5], (3, 1)));
    let got = sliced_wasserstein(&one, &other, 5, 1).unwrap();
    assert!((got - (0.5_f64 / 3.0).sqrt()).abs() < 1e-12, "{got}");
    assert!(sliced_wasserstein(&one, &a, 5, 1).is_err());
}

/// The spread of a mixture is that of all its pixels: inside the components and between them.
#[test]
fn a_mixture_knows_its_spread() {
    let within = 0.6 * 0.25 + 0.4 * 0.09;
    // Means of ±(0.4, 1.5) with weights 0.6 and 0.4.
    let between = 4.0 * 0.6 * 0.4 * (0.4_f64.powi(2) + 1.5_f64.powi(2)) / 2.0;
    assert!((bimodal().spread() - f64::sqrt(within + between)).abs() < 1e-12, "{}", bimodal().spread());
    assert!((correlated().spread() - 0.45_f64.sqrt()).abs() < 1e-12, "{}", correlated().spread());
}

/// Where one number is measured one gradient all but solves the system; what more of them find is rounding, and must not be
/// followed.
#[test]
fn gradients_beyond_the_solution_change_nothing() {
    let (operator, noise) = (first_pixel(), Gaussian::new(0.1).unwrap());
    let y = Tensor::new(&[[[[0.3_f32, 0.0]]]], &Device::Cpu).unwrap().broadcast_as((20, 1, 1, 2)).unwrap();
    let measurement = Measurement { operator: &operator, noise: &noise, y: y.contiguous().unwrap() };
    let prior = bimodal();
    let drawn = |iterations: usize| {
        let settings =
            format!("iterations = {iterations}\nannealing = {{ steps = 30, sigma_start = 50.0, rho = 7.0 }}");
        let sampler = find_sampler(SAMPLERS, "tmpd", toml::from_str(&settings).unwrap()).unwrap();
        let problem = Problem { prior: &prior, measurement: &measurement, guess: None };
        values(&sampler.sample(&problem, (1, 1, 2), &mut Rng::new(3, 0..20), &mut |_: &Step<'_>| Ok(())).unwrap())
    };
    for (one, many) in drawn(1).into_iter().zip(drawn(8)) {
        assert!((one - many).abs() < 0.02 * (1.0 + one.abs()), "{one} and {many}");
    }
}
