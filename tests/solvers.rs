//! What every solver promises, and how near each comes to what is known exactly.

use crate::models::EMBEDDED;
use candle_core::{DType, Device, Tensor};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use tweedie::priors::{Denoiser, Gaussian};
use tweedie::schedules::{Geometric, Schedule};
use tweedie::solvers::{
    Churn, Correction, Renoise, SOLVERS, Solver, Step, anneal, find_solver, heun, multistep, rules,
};
use tweedie::{Error, Result};
use tweedie_operators::Rng;

const MEAN: f64 = 0.3;
const STD: f64 = 0.5;
const RANGE: RangeInclusive<f64> = 0.01..=20.0;

fn prior() -> Gaussian {
    Gaussian::new(MEAN, STD).unwrap()
}

fn solver(name: &str, settings: &str) -> Box<dyn Solver> {
    find_solver(SOLVERS, name, toml::from_str(settings).unwrap()).unwrap()
}

fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Noise of the largest level for these samples.
fn start(rng: &mut Rng) -> Tensor {
    rng.normal((rng.streams(), 3, 8, 8), &Device::Cpu).unwrap().affine(*RANGE.end(), 0.0).unwrap()
}

fn draw(solver: &dyn Solver, prior: &dyn Denoiser, mut rng: Rng) -> Result<Tensor> {
    let x = start(&mut rng);
    solver.solve(prior, x, &RANGE, &mut rng, &mut |_: &Step<'_>| Ok(()))
}

#[test]
fn every_solver_has_a_name_of_its_own_and_builds_from_its_example() {
    for (index, entry) in SOLVERS.iter().enumerate() {
        let snake_case = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(entry.name.starts_with(|c: char| c.is_ascii_lowercase()) && entry.name.chars().all(snake_case));
        assert!(SOLVERS[..index].iter().all(|other| other.name != entry.name), "{} twice", entry.name);
        assert!(!entry.about.is_empty() && !entry.about.ends_with('.') && !entry.about.contains('\n'));
        assert_eq!(solver(entry.name, entry.example).name(), entry.name);
        assert_eq!(solver(entry.name, "").name(), entry.name, "without settings");
        // `--steps` is a setting of each.
        assert_eq!(entry.fields[entry.fields.iter().position(|field| field.0 == "steps").unwrap()].0, "steps");
        let message = find_solver(SOLVERS, entry.name, toml::from_str("stepz = 3").unwrap()).unwrap_err().to_string();
        assert!(message.contains("unknown field `stepz`"), "{message}");
        for (field, about) in entry.fields {
            assert!(message.contains(&format!("`{field}`")) && !about.is_empty(), "{}: {field}: {message}", entry.name);
        }
    }
}

#[test]
fn settings_out_of_range_are_refused_with_what_is_allowed() {
    for (name, settings, expected) in [
        ("heun", "steps = 0", "steps is 0, expected 1 to 100000"),
        ("heun", "churn = -1.0", "churn is -1, expected 0 to 1000"),
        ("ddim", "rho = 0.0", "rho is 0, expected 0.1 to 100"),
        ("ddpm", "variance = 2.0", "variance is 2, expected 0 to 1"),
        ("rk45", "tolerance = 0.0", "tolerance is 0, expected 0.000000001 to 1"),
        ("annealed_langevin", "steps_per_level = 0", "steps_per_level is 0, expected 1 to 10000"),
        (
            "predictor_corrector",
            "predictor = 'none'\ncorrector = 'none'",
            "predictor is none, expected another one if the corrector is none, too",
        ),
        (
            "predictor_corrector",
            "formulation = 'sub_vp'\npredictor = 'ancestral'\ncorrector = 'none'",
            "predictor is ancestral, expected euler_maruyama or reverse_diffusion for sub_vp",
        ),
        (
            "predictor_corrector",
            "formulation = 'sub_vp'",
            "corrector is langevin or ald, expected none for sub_vp, which the method has no step size for",
        ),
    ] {
        let error = find_solver(SOLVERS, name, toml::from_str(settings).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), expected, "{name}, {settings}");
    }
    let message = find_solver(SOLVERS, "heun", toml::from_str("schedule = 'linear'").unwrap()).unwrap_err().to_string();
    let known = "karras, geometric, vp_linear, vp_cosine, vp_continuous, quad";
    assert!(message.contains(&format!("unknown schedule `linear`; known: {known}")), "{message}");
    let few = solver("predictor_corrector", "formulation = 'vp'\nsteps = 10\ncorrector = 'none'");
    let message = draw(few.as_ref(), &prior(), Rng::new(0, 0..1)).unwrap_err().to_string();
    assert!(message.starts_with("steps is 10, expected at least 1") && message.contains("for vp"), "{message}");
}

#[test]
fn levels_fall_from_the_end_of_the_range_to_exactly_zero() {
    for entry in SOLVERS {
        for settings in ["", entry.example] {
            for range in [RANGE, 0.002..=80.0] {
                let sigmas = solver(entry.name, settings).sigmas(&range);
                assert!((sigmas[0] / range.end() - 1.0).abs() < 1e-6, "{}: {}", entry.name, sigmas[0]);
                assert!(sigmas.windows(2).all(|pair| pair[0] > pair[1]), "{}", entry.name);
                assert_eq!(sigmas.last(), Some(&0.0));
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_other_rows_and_a_seed_gives_the_same_bits_again() {
    let gaussian = prior();
    for entry in SOLVERS {
        let solver = solver(entry.name, entry.example);
        for prior in [&gaussian, EMBEDDED.denoiser()] {
            let what = format!("{} with {prior:?}", entry.name).chars().take(60).collect::<String>();
            let together = draw(solver.as_ref(), prior, Rng::new(9, 0..3)).unwrap();
            let again = draw(solver.as_ref(), prior, Rng::new(9, 0..3)).unwrap();
            assert!(values(&together) == values(&again), "{what}: the same seed");
            let other = draw(solver.as_ref(), prior, Rng::new(10, 0..3)).unwrap();
            assert!(values(&together) != values(&other), "{what}: another seed");
            for row in 0..3 {
                let x = draw(solver.as_ref(), prior, Rng::new(9, row as u64..row as u64 + 1)).unwrap();
                assert!(values(&x) == values(&together.narrow(0, row, 1).unwrap()), "{what}: row {row}");
            }
        }
    }
}

/// Counts its calls, and fails below a noise level.
#[derive(Debug)]
struct Watched {
    calls: AtomicUsize,
    below: f64,
    value: f64,
}

impl Watched {
    fn new(below: f64, value: f64) -> Self {
        Self { calls: AtomicUsize::new(0), below, value }
    }
}

impl Denoiser for Watched {
    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let broken = sigma < self.below;
        Ok(if broken { x.affine(self.value, 0.0)? } else { prior().denoise(x, sigma)? })
    }

    fn channels(&self) -> Option<usize> {
        None
    }

    fn sigma_range(&self) -> RangeInclusive<f64> {
        RANGE
    }
}

#[test]
fn evaluations_are_what_is_told_before() {
    for entry in SOLVERS {
        let solver = solver(entry.name, entry.example);
        let watched = Watched::new(0.0, 0.0);
        draw(solver.as_ref(), &watched, Rng::new(1, 0..2)).unwrap();
        let calls = watched.calls.into_inner();
        match solver.evaluations(&RANGE) {
            Some(evaluations) => assert_eq!(evaluations, calls, "{}", entry.name),
            None => assert_eq!(entry.name, "rk45"),
        }
    }
}

#[test]
fn an_observer_sees_every_level_and_its_error_ends_the_run() {
    for entry in SOLVERS {
        let solver = solver(entry.name, entry.example);
        let sigmas = solver.sigmas(&RANGE);
        let mut seen = Vec::new();
        let mut watch = |step: &Step<'_>| {
            assert_eq!((step.x.dims(), step.x0.dims()), (&[2, 3, 8, 8][..], &[2, 3, 8, 8][..]));
            seen.push((step.index, step.total, step.sigma));
            Ok(())
        };
        let mut rng = Rng::new(1, 0..2);
        let x = start(&mut rng);
        solver.solve(&prior(), x.clone(), &RANGE, &mut rng, &mut watch).unwrap();
        let total = sigmas.len() - 1;
        assert_eq!(seen, (0..total).map(|k| (k, total, sigmas[k])).collect::<Vec<_>>(), "{}", entry.name);
        let mut stop = |step: &Step<'_>| if step.index == 1 { Err(Error::Interrupted) } else { Ok(()) };
        let error = solver.solve(&prior(), x, &RANGE, &mut Rng::new(1, 0..2), &mut stop).unwrap_err();
        assert!(matches!(error, Error::Interrupted), "{}: {error}", entry.name);
    }
}

/// Fault 55.
#[test]
fn a_prior_that_stops_giving_numbers_ends_the_run_with_its_step_and_noise_level() {
    for entry in SOLVERS {
        let solver = solver(entry.name, entry.example);
        let sigmas = solver.sigmas(&RANGE);
        for value in [f64::NAN, f64::INFINITY] {
            let broken = Watched::new(0.5 * (sigmas[1] + sigmas[2]), value);
            match draw(solver.as_ref(), &broken, Rng::new(1, 0..2)).unwrap_err() {
                // Where a step looks at the level that it leads to, before the step that begins there.
                Error::NonFinite { step, .. } => assert!((1..=2).contains(&step), "{}: step {step}", entry.name),
                other => panic!("{}: {other}", entry.name),
            }
        }
        let message = draw(solver.as_ref(), &Watched::new(1e9, f64::NAN), Rng::new(1, 0..2)).unwrap_err();
        let expected = format!("model produced an invalid image: not finite at step 0, sigma {}", sigmas[0]);
        assert_eq!(message.to_string(), expected, "{}", entry.name);
    }
}

/// Where the ODE takes a state of a Gaussian prior: `m + (x − m) √((τ²+σ'²)/(τ²+σ²))`.
fn flowed(x: &Tensor, from: f64, to: f64) -> Vec<f64> {
    let factor = ((STD * STD + to * to) / (STD * STD + from * from)).sqrt();
    values(x).into_iter().map(|x| MEAN + (x - MEAN) * factor).collect()
}

#[test]
fn orders_of_convergence_are_one_and_two() {
    let (from, to) = (10.0, 0.05);
    let mut rng = Rng::new(3, 0..1);
    let x = rng.normal((1, 3, 8, 8), &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap().affine(from, 0.0).unwrap();
    let exact = flowed(&x, from, to);
    let unseen = &mut |_: &Step<'_>| Ok(());
    let mut error = |method: &str, steps: usize| {
        let mut sigmas = Geometric { steps: steps + 1 }.sigmas(&(to..=from));
        // To the last level above zero.
        sigmas.pop();
        let x = x.clone();
        let x = match method {
            "euler" => {
                anneal(x, &sigmas, Renoise::None, &mut rng, unseen, |x, level, _| prior().denoise(x, level.from))
            }
            "heun" => heun(&prior(), x, &sigmas, &Churn::NONE, &mut rng, unseen),
            "2m midpoint" => multistep(&prior(), x, &sigmas, Correction::Midpoint, 0.0, &mut rng, unseen),
            _ => multistep(&prior(), x, &sigmas, Correction::Heun, 0.0, &mut rng, unseen),
        };
        values(&x.unwrap()).iter().zip(&exact).map(|(x, exact)| (x - exact).powi(2)).sum::<f64>().sqrt()
    };
    for (method, order) in [("euler", 1.0), ("heun", 2.0), ("2m midpoint", 2.0), ("2m heun", 2.0)] {
        let (coarse, fine) = (error(method, 160), error(method, 320));
        let got = (coarse / fine).log2();
        println!("{method}: order {got}, error {fine:e}");
        assert!((got - order).abs() < 0.15, "{method}: order {got}");
    }
}

#[test]
fn samples_have_the_mean_and_the_variance_of_the_prior_as_steps_grow() {
    for (name, settings, tolerance) in [
        ("heun", "steps = 60", 0.01),
        ("heun", "steps = 100\nchurn = 40.0", 0.03),
        ("dpmpp_2m", "steps = 60", 0.01),
        ("dpmpp_2m_sde", "steps = 100", 0.01),
        ("dpmpp_2m_sde", "steps = 100\ncorrection = 'heun'\nschedule = 'geometric'", 0.01),
        ("ddim", "steps = 400", 0.03),
        ("ddim", "steps = 400\neta = 1.0", 0.03),
        ("ddpm", "steps = 400\nschedule = 'karras'", 0.03),
        ("rk45", "", 0.01),
        ("predictor_corrector", "steps = 400", 0.05),
        (
            "predictor_corrector",
            "formulation = 'vp'\nsteps = 400\npredictor = 'euler_maruyama'\ncorrector = 'none'",
            0.05,
        ),
        ("predictor_corrector", "formulation = 'vp'\nsteps = 400\ncorrector = 'ald'\nsnr = 0.05", 0.05),
        ("predictor_corrector", "formulation = 'sub_vp'\nsteps = 400\ncorrector = 'none'", 0.05),
    ] {
        let x = values(&draw(solver(name, settings).as_ref(), &prior(), Rng::new(5, 0..64)).unwrap());
        let count = x.len() as f64;
        let mean = x.iter().sum::<f64>() / count;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (count - 1.0);
        let ratio = variance / (STD * STD);
        println!("{name} {settings:?}: mean {mean:.4}, variance {ratio:.4} of the prior's");
        // Four standard errors beside what the steps leave.
        assert!((mean - MEAN).abs() < 4.0 * STD / count.sqrt() + 0.01, "{name} {settings:?}: mean {mean}");
        let error = 4.0 * (2.0 / count).sqrt();
        assert!((ratio - 1.0).abs() < error + tolerance, "{name} {settings:?}: variance {ratio} ± {error}");
    }
}

#[test]
fn types_are_kept_in_double_precision() {
    for entry in SOLVERS {
        let solver = solver(entry.name, entry.example);
        let mut rng = Rng::new(1, 0..2);
        let x = start(&mut rng);
        let double = x.to_dtype(DType::F64).unwrap();
        let unseen = &mut |_: &Step<'_>| Ok(());
        let single = solver.solve(&prior(), x, &RANGE, &mut rng.clone(), unseen).unwrap();
        let double = solver.solve(&prior(), double, &RANGE, &mut rng, unseen).unwrap();
        assert_eq!((single.dtype(), double.dtype()), (DType::F32, DType::F64));
        let worst = values(&single).iter().zip(values(&double)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 1e-3, "{}: {worst}", entry.name);
    }
}

/// Each Langevin step multiplies what is left of the start and adds noise: `v ← (1 − α/(τ²+σ²))² v + 2α`. With few steps the
/// variance lags behind the levels; it is the prior's as they grow.
#[test]
fn annealed_langevin_has_the_variance_of_its_own_recursion() {
    for (levels, steps, excess) in [(200, 5, 0.1..0.2), (400, 40, 0.0..0.03)] {
        let settings = format!("steps = {levels}\nsteps_per_level = {steps}");
        let solver = solver("annealed_langevin", &settings);
        let sigmas = solver.sigmas(&RANGE);
        let last = sigmas[levels - 1];
        let epsilon = rules::epsilon(steps, last, (sigmas[0] / last).powf(1.0 / (levels - 1) as f64));
        let mut expected = sigmas[0].powi(2);
        for sigma in &sigmas[..levels] {
            let (alpha, total) = (epsilon * (sigma / last).powi(2), STD * STD + sigma * sigma);
            for _ in 0..steps {
                expected = (1.0 - alpha / total).powi(2) * expected + 2.0 * alpha;
            }
        }
        expected *= (STD * STD / (STD * STD + last * last)).powi(2);
        assert!(excess.contains(&(expected / (STD * STD) - 1.0)), "{levels}, {steps}: {expected}");
        let x = values(&draw(solver.as_ref(), &prior(), Rng::new(5, 0..32)).unwrap());
        let count = x.len() as f64;
        let mean = x.iter().sum::<f64>() / count;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (count - 1.0);
        println!("{levels} levels of {steps} steps: variance {variance:.4}, expected {expected:.4}");
        assert!((variance / expected - 1.0).abs() < 4.0 * (2.0 / count).sqrt(), "{levels}, {steps}: {variance}");
        assert!((mean - MEAN).abs() < 4.0 * (expected / count).sqrt() + 0.01, "{levels}, {steps}: {mean}");
    }
}
