//! Methods that are exact for a Gaussian of any covariance, against its posteriors.

#[path = "../examples/exactness/moments.rs"]
mod moments;
#[path = "../examples/exactness/prior.rs"]
mod prior;

use candle_core::{DType, Device, Tensor};
use moments::{Deviation, Whitening};
use prior::Batched;
use tweedie::priors::Mixture;
use tweedie::samplers::{Problem, SAMPLERS, Step, find_sampler};
use tweedie_operators::forward::{Blur, ForwardOperator, Inpaint};
use tweedie_operators::noise::Gaussian;
use tweedie_operators::{Kernel, Measurement, Padding, Rng, Site};

/// 48 dimensions.
const SHAPE: (usize, usize, usize) = (3, 4, 4);
const ROWS: usize = 500;
const SIGMA_Y: f64 = 0.1;

/// Levels from where all is noise to where all that is left is well below the posteriors' smallest spread.
const LEVELS: &str = "sigma_start = 20.0, sigma_end = 0.004, rho = 7.0, renoise = 'ancestral'";

fn operators() -> [(&'static str, Box<dyn ForwardOperator>); 2] {
    let site = Site::new(SHAPE, &Device::Cpu, DType::F64);
    let kernel = Kernel::gaussian([0.75, 0.75], 0.0, None).unwrap();
    [
        ("mask", Box::new(Inpaint::random(0.5, 3, site).unwrap())),
        ("blur", Box::new(Blur::new(&kernel, Padding::Circular, Blur::CUTOFF, site).unwrap())),
    ]
}

/// How the draws of `method` differ from the posterior whose measurement had noise of √(σ_y² + `extra`²), and that
/// posterior.
fn deviation(operator: &dyn ForwardOperator, method: &str, settings: &str, extra: f64) -> Deviation {
    let (mean, covariance) = prior::moments(SHAPE).unwrap();
    let exact = Mixture::gaussian(&mean, &covariance).unwrap();
    let prior = Batched::new(&mean, &covariance, 0.004..=20.0).unwrap();
    let noise = Gaussian::new(SIGMA_Y).unwrap();
    let mut rng = Rng::new(1, 0..1);
    let truth = exact.sample(&mut rng).unwrap().to_dtype(DType::F64).unwrap();
    let y = Measurement::simulate(operator, &noise, &truth, &mut rng).unwrap().y;
    let posterior = exact.posterior(operator.as_linear().unwrap(), SIGMA_Y.hypot(extra), &y).unwrap();
    let repeated = Tensor::cat(&vec![y; ROWS], 0).unwrap();
    let measurement = Measurement { operator, noise: &noise, y: repeated };
    let problem = Problem { prior: &prior, measurement: &measurement, guess: None };
    let sampler = find_sampler(SAMPLERS, method, toml::from_str(settings).unwrap()).unwrap();
    let mut rng = Rng::new(2, 0..ROWS as u64);
    let drawn = sampler.sample(&problem, SHAPE, &mut rng, &mut |_: &Step<'_>| Ok(())).unwrap();
    Whitening::new(&posterior).unwrap().deviation(&drawn).unwrap().unwrap()
}

/// Errors of the mean of 48 directions and of variances within 4.5 standard errors, and what is said of the discretisation.
#[track_caller]
fn assert_exact(what: &str, deviation: Deviation, mean: f64, variance: f64) {
    let (rows, directions) = (ROWS as f64, 48.0);
    // √(χ²/48) is 1 ± 1/√96.
    let bound = (1.0 + 4.5 / 96.0_f64.sqrt()) / rows.sqrt() + mean;
    assert!(deviation.mean < bound, "{what}: mean off by {}, expected at most {bound}", deviation.mean);
    let bound = 4.5 * (2.0 / (rows * directions)).sqrt() + variance;
    assert!((deviation.variance - 1.0).abs() < bound, "{what}: variance {}, expected 1 ± {bound}", deviation.variance);
    let bound = 4.5 * (2.0 / rows).sqrt() + 2.0 * variance;
    for along in deviation.along {
        assert!(
            (along - 1.0).abs() < bound,
            "{what}: {:?} along three directions, expected 1 ± {bound}",
            deviation.along
        );
    }
}

/// Draws of every step from its Gaussian leave the last step, without one, and the square root of two Lanczos steps.
#[test]
fn tweedie_moment_projection_with_draws_is_exact_for_every_covariance() {
    for (name, operator) in operators() {
        let settings = format!("annealing = {{ steps = 30, {LEVELS} }}\niterations = 15\ndraw = true");
        assert_exact(&format!("tmpd, {name}"), deviation(&*operator, "tmpd", &settings, 0.0), 0.01, 0.02);
    }
}

/// Without draws the steps alone cost variance, by a known amount, and nothing else is wrong.
#[test]
fn tweedie_moment_projection_without_draws_loses_what_ancestral_steps_lose() {
    let (mean, covariance) = prior::moments(SHAPE).unwrap();
    let exact = Mixture::gaussian(&mean, &covariance).unwrap();
    let [(_, operator), _] = operators();
    let y = operator.forward(&mean.unsqueeze(0).unwrap()).unwrap();
    let whitening = Whitening::new(&exact.posterior(operator.as_linear().unwrap(), SIGMA_Y, &y).unwrap()).unwrap();
    let steps = 30;
    let sigmas = tweedie::schedules::Schedule::sigmas(&tweedie::schedules::Karras { steps, rho: 7.0 }, &(0.004..=20.0));
    let expected = whitening.of_steps(&sigmas).unwrap().unwrap();
    assert!(expected.variance < 0.97, "{expected:?}: too few are lost to see");
    let settings = format!("annealing = {{ steps = {steps}, {LEVELS} }}\niterations = 15");
    let got = deviation(&*operator, "tmpd", &settings, 0.0);
    let relative = Deviation {
        mean: got.mean,
        variance: got.variance / expected.variance,
        along: [0, 1, 2].map(|i| got.along[i] / expected.along[i]),
    };
    assert_exact("tmpd without draws", relative, 0.01 + expected.mean, 0.005);
}

/// A mask has `A Aᵀ = 1` where it sees: the law at ρ is the posterior with noise √(σ_y² + ρ²). Seven or more Euler steps of
/// the reverse process a round are not infinitely many.
#[test]
fn gibbs_rounds_draw_from_the_posterior_with_more_noise() {
    let [(name, operator), _] = operators();
    let settings = "annealing = { steps = 40, sigma_start = 3.0, sigma_end = 0.05 }\ndecay = 0.85\ngrid = 60";
    assert_exact(&format!("pnp_dm, {name}"), deviation(&*operator, "pnp_dm", settings, 0.05), 0.02, 0.05);
}
