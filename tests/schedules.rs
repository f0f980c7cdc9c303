//! Schedules and solvers against what the programs of their authors computed.
//!
//! The numbers in `tests/data/schedules` were made by running score_sde_pytorch cb1f359, ncsnv2 1bcea03, edm 008a4e5,
//! guided-diffusion 22e0df8 and diffusers 0.42.1 on images `N(μ, s²)` with stored μ, for which the score is known, and with
//! every random number stored as `<run>.noise<i>`. Errors are relative, of each row of a batch: 1e-5 for a step and a table
//! in single precision, 1e-4 for a loop, 1e-10 for what was computed in double precision.

use candle_core::{DType, Device, Tensor};
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Mutex;
use tweedie::Result;
use tweedie::priors::Denoiser;
use tweedie::schedules::{Discrete, Geometric, Karras, Schedule, VpContinuous, respaced, strided};
use tweedie::solvers::{
    Churn, Correction, Corrector, Estimate, Formulation, Langevin, Predictor, Process, Renoise, SOLVERS, Step,
    ancestral, anneal, annealed_langevin, find_solver, heun, multistep, rules,
};
use tweedie_operators::Rng;

/// A file of the authors' numbers.
struct Golden(HashMap<String, Tensor>);

impl Golden {
    fn open(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/schedules");
        Self(candle_core::safetensors::load(folder.join(format!("{name}.safetensors")), &Device::Cpu).unwrap())
    }

    fn get(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    fn numbers(&self, name: &str) -> Vec<f64> {
        numbers(self.get(name))
    }

    fn indices(&self, name: &str) -> Vec<usize> {
        self.get(name).to_vec1::<i64>().unwrap().into_iter().map(|index| index as usize).collect()
    }

    /// The draws `<run>.noise<i>` of these i.
    fn noise(&self, run: &str, which: impl IntoIterator<Item = usize>) -> Rng {
        let draws: Vec<Tensor> = which.into_iter().map(|i| self.get(&format!("{run}.noise{i}")).clone()).collect();
        let rows = draws.first().map_or(2, |draw| draw.dim(0).unwrap());
        Rng::recorded(rows, draws)
    }
}

fn numbers(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

/// Largest relative error of a row.
#[track_caller]
fn error(got: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(got.dims(), expected.dims());
    let row = got.elem_count() / got.dim(0).unwrap();
    let (got, expected) = (numbers(got), numbers(expected));
    let rows = got.chunks(row).zip(expected.chunks(row));
    rows.map(|(got, expected)| {
        norm(got.iter().zip(expected).map(|(a, b)| a - b)) / norm(expected.iter().copied()).max(1e-300)
    })
    .fold(0.0, f64::max)
}

#[track_caller]
fn assert_close(what: &str, got: &Tensor, expected: &Tensor, tolerance: f64) {
    let error = error(got, expected);
    assert!(error < tolerance, "{what}: {error:e}, {tolerance:e} allowed");
}

/// Every entry of a table.
#[track_caller]
fn assert_table(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (k, (got, expected)) in got.iter().zip(expected).enumerate() {
        let error = (got - expected).abs();
        assert!(error <= tolerance * expected.abs(), "{what}[{k}]: {got:e} and {expected:e}");
    }
}

/// Images `N(μ, s²)`; remembers what it was asked.
#[derive(Debug)]
struct Images {
    mean: Tensor,
    std: f64,
    /// Whether the estimate is limited to the range of pixels, as some programs do.
    clipped: bool,
    asked: Mutex<Vec<(Tensor, f64)>>,
}

impl Images {
    fn new(golden: &Golden, mean: &str, std: f64) -> Self {
        Self { mean: golden.get(mean).clone(), std, clipped: false, asked: Mutex::default() }
    }

    fn clipped(golden: &Golden) -> Self {
        Self { clipped: true, ..Self::new(golden, "mu", 0.3) }
    }

    /// What it was asked since the last time.
    fn asked(&self) -> Vec<(Tensor, f64)> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Denoiser for Images {
    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        self.asked.lock().unwrap().push((x.clone(), sigma));
        let slope = self.std.powi(2) / (self.std.powi(2) + sigma * sigma);
        let mean = self.mean.to_dtype(x.dtype())?;
        let x0 = x.affine(slope, 0.0)?.broadcast_add(&mean.affine(1.0 - slope, 0.0)?)?;
        Ok(if self.clipped { x0.clamp(-1.0, 1.0)? } else { x0 })
    }

    fn channels(&self) -> Option<usize> {
        Some(3)
    }

    fn sigma_range(&self) -> RangeInclusive<f64> {
        1e-6..=1e6
    }
}

/// Nobody looks.
fn unseen(_: &Step<'_>) -> Result<()> {
    Ok(())
}

/// `x_t = x/√(1+σ²)`
fn preserved(x: &Tensor, sigma: f64) -> Tensor {
    x.affine(1.0 / (1.0 + sigma * sigma).sqrt(), 0.0).unwrap()
}

fn exploded(x: &Tensor, sigma: f64) -> Tensor {
    x.affine((1.0 + sigma * sigma).sqrt(), 0.0).unwrap()
}

#[test]
fn discrete_schedules_are_those_of_guided_diffusion() {
    let golden = Golden::open("tables_ddpm");
    for (name, process) in [
        ("linear_1000", Discrete::linear(1000)),
        ("cosine_1000", Discrete::cosine(1000)),
        ("cosine_4000", Discrete::cosine(4000)),
    ] {
        assert_table(name, process.betas(), &golden.numbers(&format!("{name}.betas")), 1e-10);
        let alpha_bars = golden.numbers(&format!("{name}.alphas_cumprod"));
        assert_table(name, &process.alpha_bars(), &alpha_bars, 1e-10);
        for (k, alpha_bar) in alpha_bars.iter().enumerate().step_by(37) {
            let sigma = ((1.0 - alpha_bar) / alpha_bar).sqrt();
            assert!((process.sigma(k as f64) / sigma - 1.0).abs() < 1e-9, "{name}, σ_{k}");
        }
    }
    for (counts, name) in [
        (&[10][..], "respace_10"),
        (&[25], "respace_25"),
        (&[100], "respace_100"),
        (&[250], "respace_250"),
        (&[10, 15, 20], "respace_10_15_20"),
    ] {
        assert_eq!(respaced(1000, counts), golden.indices(name), "{name}");
    }
    for count in [25, 50] {
        // Their own indices begin at 0, too; DDIM's paper shifts them by one.
        assert_eq!(strided(1000, count), golden.indices(&format!("respace_ddim{count}")));
    }
}

#[test]
fn discrete_schedules_are_those_of_diffusers() {
    let golden = Golden::open("tables_diffusers");
    for (name, process) in [("linear", Discrete::linear(1000)), ("squaredcos_cap_v2", Discrete::cosine(1000))] {
        assert_table(name, process.betas(), &golden.numbers(&format!("{name}.betas")), 1e-5);
        let expected = golden.numbers(&format!("{name}.alphas_cumprod"));
        assert_table(name, &process.alpha_bars(), &expected, 2e-5);
    }
    let leading: Vec<usize> = strided(1000, 50).into_iter().rev().collect();
    assert_eq!(leading, golden.indices("ddim50_leading"));
    let process = Discrete::linear(1000);
    let plain: Vec<f64> = golden.indices("dpm20_plain.timesteps").iter().map(|&k| process.sigma(k as f64)).collect();
    assert_table("plain", &[&plain[..], &[0.0]].concat(), &golden.numbers("dpm20_plain.sigmas"), 2e-5);
    // Its smallest level is 1 − ᾱ in single precision, off by a part in 10⁴: the schedule is between its own ends.
    let expected = golden.numbers("dpm20_karras.sigmas");
    let karras = Karras { steps: 20, rho: 7.0 }.sigmas(&(expected[19]..=expected[0]));
    assert_table("karras", &karras, &expected, 1e-5);
    assert!(
        (expected[0] / process.sigma(999.0) - 1.0).abs() < 2e-5
            && (expected[19] / process.sigma(0.0) - 1.0).abs() < 1e-3
    );
}

#[test]
fn schedules_are_those_of_edm() {
    let golden = Golden::open("tables_edm");
    for steps in [18, 40, 256] {
        let sigmas = Karras { steps, rho: 7.0 }.sigmas(&(0.002..=80.0));
        assert_table("edm", &sigmas, &golden.numbers(&format!("edm_{steps}")), 1e-10);
    }
    let levels = |schedule: &dyn Schedule, range| schedule.sigmas(&range)[..18].to_vec();
    let edm = levels(&Karras { steps: 18, rho: 7.0 }, 0.002..=80.0);
    assert_table("edm", &edm, &golden.numbers("ablation_edm_18"), 1e-10);
    let whole = VpContinuous::sigma(1e-3)..=VpContinuous::sigma(1.0);
    assert_table("vp", &levels(&VpContinuous { steps: 18 }, whole), &golden.numbers("ablation_vp_18"), 1e-10);
    assert_table("ve", &levels(&Geometric { steps: 18 }, 0.02..=100.0), &golden.numbers("ablation_ve_18"), 1e-10);
    // Its table u descends and ends with the clean image.
    let process = Discrete::cosine(1000);
    let u: Vec<f64> = (0..=1000).map(|j| process.sigma(999.0 - f64::from(j))).collect();
    // Both tables add up 1 + σ² in single precision, which leaves few digits of small levels.
    let squares = |sigmas: &[f64]| sigmas.iter().map(|sigma| 1.0 + sigma * sigma).collect::<Vec<_>>();
    assert_table("iddpm", &squares(&u), &squares(&golden.numbers("iddpm_u")), 1e-5);
    assert_table("iddpm", &squares(&iddpm(18)), &squares(&golden.numbers("ablation_iddpm_18")), 1e-5);
    let times = golden.numbers("vp_t");
    let sigmas: Vec<f64> = times.iter().map(|&t| VpContinuous::sigma(t)).collect();
    assert_table("vp sigma", &sigmas, &golden.numbers("vp_sigma"), 1e-10);
    for (sigma, t) in sigmas.iter().zip(golden.numbers("vp_sigma_inv")) {
        assert!((VpContinuous::time(*sigma) - t).abs() < 1e-10, "{t}");
    }
}

/// The levels of iDDPM's sampler between 0.002 and 81, without the final zero.
fn iddpm(steps: usize) -> Vec<f64> {
    let process = Discrete::cosine(1000);
    let u: Vec<f64> = (0..1000).map(|j| process.sigma(999.0 - f64::from(j))).collect();
    let inside: Vec<f64> = u.into_iter().filter(|sigma| (0.002..=81.0).contains(sigma)).collect();
    let stride = (inside.len() - 1) as f64 / (steps - 1) as f64;
    (0..steps).map(|i| inside[(i as f64 * stride).round_ties_even() as usize]).collect()
}

#[test]
fn geometric_levels_are_those_of_ncsn() {
    let golden = Golden::open("tables_ncsn");
    for (name, first, steps) in [
        ("ncsn", 1.0, 10),
        ("ncsnv2_cifar10", 50.0, 232),
        ("ncsnv2_celeba", 90.0, 500),
        ("ncsnv2_church", 140.0, 788),
        ("ncsnv2_bedroom_tower", 190.0, 1086),
        ("ncsnv2_ffhq", 348.0, 2311),
    ] {
        let sigmas = Geometric { steps }.sigmas(&(0.01..=first));
        assert_table(name, &sigmas[..steps], &golden.numbers(name), 1e-5);
    }
}

/// NCSNv2's own configurations: side of the images, first level, number of levels, T, ε, and the left side of technique 4.
const NCSN_V2: [(usize, f64, usize, usize, f64, f64); 5] = [
    (32, 50.0, 232, 5, 6.2e-6, 1.055),
    (64, 90.0, 500, 5, 3.3e-6, 1.031),
    (96, 140.0, 788, 4, 4.9e-6, 1.025),
    (128, 190.0, 1086, 3, 1.8e-6, 1.017),
    (256, 348.0, 2311, 3, 9e-7, 1.009),
];

#[test]
fn the_rules_of_ncsnv2_reproduce_its_configurations() {
    for (side, first, levels, steps, epsilon, variance) in NCSN_V2 {
        let dimensions = 3 * side * side;
        let gamma = (first / 0.01f64).powf(1.0 / (levels - 1) as f64);
        assert_eq!(rules::count(first, 0.01, gamma), levels);
        // They rounded an overlap of 0.57 to a half.
        assert!(
            (rules::overlap(dimensions, gamma) - 0.57).abs() < 0.01,
            "{side}: {}",
            rules::overlap(dimensions, gamma)
        );
        let ratio = rules::ratio(dimensions);
        assert!((rules::overlap(dimensions, ratio) - 0.5).abs() < 1e-9);
        assert!(ratio > gamma && ratio - 1.0 < 1.1 * (gamma - 1.0), "{side}: {ratio} and {gamma}");
        let a = epsilon / 0.01f64.powi(2);
        let got = rules::variance(steps, gamma, a);
        assert!((got - variance).abs() < 6e-4, "{side}: {got}");
        // Their ε is the best one or as good: the valley is flat.
        let best = rules::epsilon(steps, 0.01, gamma);
        let least = rules::variance(steps, gamma, best / 0.01f64.powi(2));
        assert!(least <= got + 1e-12 && least > 1.0, "{side}: {least} and {got}");
        println!("{side}: ε {best:e} against {epsilon:e}, {least} against {got}");
    }
}

#[test]
fn annealed_langevin_is_the_loop_of_ncsnv2() {
    let golden = Golden::open("loop_ncsn_ald");
    let sigmas = [&golden.numbers("sigmas")[..], &[0.0]].concat();
    for (run, denoise) in [("denoise", true), ("plain", false)] {
        let prior = Images::new(&golden, "mu", 0.15);
        let langevin = Langevin { steps: 3, epsilon: 2e-5, denoise };
        let x = golden.get("x0").clone();
        let x =
            annealed_langevin(&prior, x, &sigmas, &langevin, &mut golden.noise("shared", 0..15), &mut unseen).unwrap();
        let trajectory = golden.get(&format!("{run}.trajectory"));
        let mut states: Vec<Tensor> = prior.asked().into_iter().skip(1).map(|(x, _)| x).collect();
        states.push(x);
        assert_eq!(states.len(), trajectory.dim(0).unwrap());
        for (k, state) in states.iter().enumerate() {
            assert_close(&format!("{run}, step {k}"), state, &trajectory.get(k).unwrap(), 1e-5);
        }
    }
}

/// The process of a run: numbers of the paper, N steps.
fn process(name: &str, steps: usize) -> Process {
    let sub_vp = |t: f64| {
        let m = (-0.25 * 19.9 * t * t - 0.05 * t).exp();
        (1.0 - m * m) / m
    };
    let (formulation, range) = match name {
        "ve" => (Formulation::Ve, 0.01..=50.0),
        "ve_ffhq" => (Formulation::Ve, 0.01..=348.0),
        "vp" => (Formulation::Vp, VpContinuous::sigma(1e-3)..=VpContinuous::sigma(1.0)),
        "subvp" => (Formulation::SubVp, sub_vp(1e-3)..=sub_vp(1.0)),
        other => panic!("{other}"),
    };
    Process::new(formulation, &range, steps).unwrap()
}

#[test]
fn processes_are_those_of_score_sde() {
    let golden = Golden::open("tables_score_sde");
    let times = golden.numbers("t_grid");
    for (name, steps) in [("ve", 1000), ("ve_ffhq", 2000), ("vp", 1000), ("subvp", 1000)] {
        let process = process(name, steps);
        let table = |what: &str, of: &dyn Fn(f64) -> f64| {
            let got: Vec<f64> = times.iter().map(|&t| of(t)).collect();
            let expected = golden.numbers(&format!("{name}.{what}"));
            for ((got, expected), t) in got.iter().zip(&expected).zip(&times) {
                // Single precision loses digits where neighbours in a table of levels are subtracted, and all but few where
                // a variance is 1 minus a number near 1: it is off by its last digit, 1.2e-7, or two.
                let relative = if name.starts_with("ve") && what == "disc_G" { 1e-4 } else { 1e-5 };
                let beta = 0.1 + 19.9 * t;
                let error_of_variance = (got * got - expected * expected).abs();
                let is_cancelled = match (name, what) {
                    ("vp", "std") => error_of_variance < 2.5e-7,
                    ("subvp", "std") => (got - expected).abs() < 2.5e-7,
                    ("subvp", "diffusion") => error_of_variance < 2.5e-7 * beta,
                    ("subvp", "disc_G") => error_of_variance < 2.5e-7 * beta / 1000.0,
                    ("vp", "disc_f_coeff") => (got - expected).abs() < 1.2e-7,
                    _ => false,
                };
                let error = (got - expected).abs();
                assert!(
                    error <= relative * expected.abs() || is_cancelled,
                    "{name}.{what}({t}): {got:e} and {expected:e}"
                );
            }
        };
        table("mean_coeff", &|t| process.scale(t));
        table("drift_coeff", &|t| process.coefficients(t).0);
        table("diffusion", &|t| process.coefficients(t).1);
        table("disc_f_coeff", &|t| process.discrete(t).0);
        table("disc_G", &|t| process.discrete(t).1);
        table("std", &|t| process.std(t));
    }
}

/// The sizes of a corrector's step for all rows, with norms averaged over the batch as in the authors' program: the library's
/// own, multiplied by what that changes.
fn sizes_of_batch(
    process: &Process,
    corrector: Corrector,
    times: &[f64],
    score: &Tensor,
    noise: &Tensor,
) -> Vec<Tensor> {
    let norms = |x: &Tensor| -> Vec<f64> {
        times.iter().enumerate().map(|(row, _)| norm(numbers(&x.get(row).unwrap()).into_iter())).collect()
    };
    let (noises, scores) = (norms(noise), norms(score));
    let of_batch = noises.iter().sum::<f64>() / scores.iter().sum::<f64>();
    let size = |(row, &t): (usize, &f64)| {
        let (score, noise) = (score.narrow(0, row, 1).unwrap(), noise.narrow(0, row, 1).unwrap());
        let own = process.step_size(corrector, 0.16, t, &score, &noise).unwrap();
        match corrector {
            Corrector::Langevin => own.affine((of_batch * scores[row] / noises[row]).powi(2), 0.0).unwrap(),
            _ => own,
        }
    };
    times.iter().enumerate().map(size).collect()
}

#[test]
fn single_steps_are_those_of_score_sde() {
    let golden = Golden::open("steps_score_sde");
    let times = golden.numbers("t");
    for (name, mean, std) in [("ve", "mu_01", 0.15), ("vp", "mu_pm", 0.3), ("subvp", "mu_pm", 0.3)] {
        let process = process(name, 1000);
        let prior = Images::new(&golden, mean, std);
        let row = |x: &Tensor, row: usize| x.narrow(0, row, 1).unwrap();
        let score = |x: &Tensor| {
            let rows: Vec<Tensor> = (0..2).map(|i| process.score(&prior, times[i], &row(x, i)).unwrap().1).collect();
            Tensor::cat(&rows, 0).unwrap()
        };
        let x = golden.get(&format!("{name}.x"));
        assert_close(&format!("{name}.score"), &score(x), golden.get(&format!("{name}.score")), 1e-5);
        for (run, predictor, flow) in [
            ("euler_maruyama", Predictor::EulerMaruyama, false),
            ("reverse_diffusion", Predictor::ReverseDiffusion, false),
            ("reverse_diffusion_pf", Predictor::ReverseDiffusion, true),
            ("ancestral_sampling", Predictor::Ancestral, false),
        ] {
            let run = format!("{name}.{run}");
            if !golden.0.contains_key(&format!("{run}.x_next")) {
                assert_eq!(run, "subvp.ancestral_sampling");
                continue;
            }
            let score = score(x);
            let noise = golden.get(&format!("{run}.noise0"));
            for (i, &t) in times.iter().enumerate() {
                let mut rng = Rng::recorded(1, [row(noise, i)]);
                let step = process.predict(predictor, flow, t, &row(x, i), &row(&score, i), &mut rng).unwrap();
                assert_close(&run, &step.x, &row(golden.get(&format!("{run}.x_next")), i), 1e-5);
                assert_close(&run, &step.mean, &row(golden.get(&format!("{run}.x_mean")), i), 1e-5);
            }
        }
        for (run, corrector) in [("langevin", Corrector::Langevin), ("ald", Corrector::Ald)] {
            let run = format!("{name}.{run}");
            if name == "subvp" {
                assert!(!golden.0.contains_key(&format!("{run}.x_next")));
                continue;
            }
            let (mut x, mut mean) = (x.clone(), x.clone());
            for k in 0..2 {
                let (score, noise) = (score(&x), golden.get(&format!("{run}.noise{k}")));
                let sizes = Tensor::cat(&sizes_of_batch(&process, corrector, &times, &score, noise), 0).unwrap();
                let step = Process::correct(&x, &score, noise, &sizes).unwrap();
                (x, mean) = (step.x, step.mean);
            }
            assert_close(&run, &x, golden.get(&format!("{run}.x_next")), 1e-5);
            assert_close(&run, &mean, golden.get(&format!("{run}.x_mean")), 1e-5);
        }
    }
}

/// The noise levels of a whole process.
fn whole(name: &str) -> RangeInclusive<f64> {
    let process = process(name, 1000);
    match name {
        "ve" => 0.01..=50.0,
        _ => process.sigma(1e-3)..=process.sigma(1.0),
    }
}

#[test]
fn predictors_alone_are_the_loops_of_score_sde() {
    let golden = Golden::open("loops_score_sde");
    for (run, name, settings, steps, drawn) in [
        ("ve_ancestral", "ve", "formulation = 've'\npredictor = 'ancestral'", 12, 1..13),
        ("vp_em", "vp", "formulation = 'vp'\npredictor = 'euler_maruyama'", 24, 1..25),
        ("vp_ancestral", "vp", "formulation = 'vp'\npredictor = 'ancestral'", 24, 1..25),
        ("subvp_em", "subvp", "formulation = 'sub_vp'\npredictor = 'euler_maruyama'", 12, 1..13),
        ("vp_rd_pf", "vp", "formulation = 'vp'\nprobability_flow = true", 24, 0..0),
    ] {
        let settings = format!("{settings}\nsteps = {steps}\ncorrector = 'none'");
        let solver = find_solver(SOLVERS, "predictor_corrector", toml::from_str(&settings).unwrap()).unwrap();
        let (mean, std) = if name == "ve" { ("mu_01", 0.15) } else { ("mu_pm", 0.3) };
        let prior = Images::new(&golden, mean, std);
        // The first state is a draw of unit variance in their coordinates, of σ_max for the exploding process.
        let first = golden.get(&format!("{run}.noise0"));
        let factor = if name == "ve" { 50.0 } else { 1.0 / process(name, 1000).scale(1.0) };
        let x = first.affine(factor, 0.0).unwrap();
        let range = whole(name);
        let x = solver.solve(&prior, x, &range, &mut golden.noise(run, drawn), &mut unseen).unwrap();
        assert_eq!(prior.asked().len(), steps);
        assert_close(run, &x, golden.get(&format!("{run}.out")), 1e-4);
    }
}

/// The solver's loop with the one number that its rows may not share there: the size of the corrector's step.
#[test]
fn predictor_and_corrector_are_the_loop_of_score_sde() {
    let golden = Golden::open("loops_score_sde");
    let (process, prior) = (process("ve", 12), Images::new(&golden, "mu_01", 0.15));
    let draw = |k: usize| golden.get(&format!("ve_pc.noise{k}"));
    let mut rng = golden.noise("ve_pc", (1..=12).map(|k| 2 * k));
    let mut x = draw(0).affine(50.0, 0.0).unwrap();
    let mut mean = x.clone();
    for (k, t) in process.times().into_iter().enumerate() {
        let score = process.score(&prior, t, &x).unwrap().1;
        let noise = draw(2 * k + 1);
        let sizes = Tensor::cat(&sizes_of_batch(&process, Corrector::Langevin, &[t; 2], &score, noise), 0).unwrap();
        x = Process::correct(&x, &score, noise, &sizes).unwrap().x;
        let score = process.score(&prior, t, &x).unwrap().1;
        let step = process.predict(Predictor::ReverseDiffusion, false, t, &x, &score, &mut rng).unwrap();
        (x, mean) = (step.x, step.mean);
    }
    assert_close("ve_pc", &mean, golden.get("ve_pc.out"), 1e-4);
}

/// A single row shares no norm with others, so that the solver as a whole is the loop above.
#[test]
fn the_solver_of_one_image_is_the_loop_of_its_steps() {
    let golden = Golden::open("loops_score_sde");
    let (process, prior) = (process("ve", 12), Images::new(&golden, "mu_01", 0.15));
    let draw = |k: usize| golden.get(&format!("ve_pc.noise{k}")).narrow(0, 1, 1).unwrap();
    let settings = "formulation = 've'\nsteps = 12\nsnr = 0.16";
    let solver = find_solver(SOLVERS, "predictor_corrector", toml::from_str(settings).unwrap()).unwrap();
    let start = draw(0).affine(50.0, 0.0).unwrap();
    let mut rng = Rng::recorded(1, (1..25).map(draw));
    let solved = solver.solve(&prior, start.clone(), &(0.01..=50.0), &mut rng, &mut unseen).unwrap();
    let mut rng = Rng::recorded(1, (1..=12).map(|k| draw(2 * k)));
    let (mut x, mut mean) = (start.clone(), start);
    for (k, t) in process.times().into_iter().enumerate() {
        let score = process.score(&prior, t, &x).unwrap().1;
        let noise = draw(2 * k + 1);
        // r = 0.16: 2 (r ‖n‖/‖s‖)².
        let ratio = norm(numbers(&noise).into_iter()) / norm(numbers(&score).into_iter());
        let size = 2.0 * (0.16 * ratio).powi(2);
        x = ((x + score.affine(size, 0.0).unwrap()).unwrap() + noise.affine((2.0 * size).sqrt(), 0.0).unwrap())
            .unwrap();
        let score = process.score(&prior, t, &x).unwrap().1;
        let step = process.predict(Predictor::ReverseDiffusion, false, t, &x, &score, &mut rng).unwrap();
        (x, mean) = (step.x, step.mean);
    }
    assert_close("one row", &solved, &mean, 1e-5);
}

#[test]
fn the_adaptive_solver_follows_the_flow_of_score_sde() {
    let golden = Golden::open("loops_score_sde");
    for (run, name, end) in [("ode_ve", "ve", 1e-5), ("ode_vp", "vp", 1e-3), ("ode_subvp", "subvp", 1e-3)] {
        let (mean, std) = if name == "ve" { ("mu_01", 0.15) } else { ("mu_pm", 0.3) };
        let process = process(name, 1000);
        let range = process.sigma(end)..=process.sigma(1.0);
        let solver = find_solver(SOLVERS, "rk45", toml::from_str("denoise = false").unwrap()).unwrap();
        for dtype in [DType::F32, DType::F64] {
            let prior = Images::new(&golden, mean, std);
            let z = golden.get(&format!("{run}.z")).to_dtype(dtype).unwrap();
            let x = z.affine(1.0 / process.scale(1.0), 0.0).unwrap();
            let x = solver.solve(&prior, x, &range, &mut Rng::new(0, 0..2), &mut unseen).unwrap();
            let x = x.affine(process.scale(end), 0.0).unwrap().to_dtype(DType::F64).unwrap();
            let calls = prior.asked().len() / 2;
            let error = error(&x, golden.get(&format!("{run}.exact")));
            println!(
                "{run} in {dtype:?}: {error:e} with {calls} evaluations a row, theirs {:?}",
                golden.get(&format!("{run}.nfe")).to_vec1::<i64>()
            );
            assert!(error < 1e-4, "{run}: {error:e}");
        }
    }
}

#[test]
fn heun_with_and_without_churn_is_the_loop_of_edm() {
    let golden = Golden::open("loops_edm");
    let churn = Churn { amount: 40.0, least: 0.05, most: 50.0, noise: 1.003 };
    for (run, steps, churn) in [("heun_18", 18, Churn::NONE), ("heun_churn_6", 6, churn)] {
        let prior = Images::new(&golden, "mu", 0.3);
        let sigmas = Karras { steps, rho: 7.0 }.sigmas(&(0.002..=80.0));
        // They draw in every step, also where no noise is added.
        let drawn = (0..steps).filter(|&i| churn.amount > 0.0 && (0.05..=50.0).contains(&sigmas[i]));
        let x = golden.get("latents").affine(80.0, 0.0).unwrap();
        let x = heun(&prior, x, &sigmas, &churn, &mut golden.noise(run, drawn), &mut unseen).unwrap();
        assert_close(run, &x, golden.get(&format!("{run}.out")), 1e-10);
        assert_asked(&golden, run, &prior);
    }
}

/// Every call of the network was with the same state at the same level.
#[track_caller]
fn assert_asked(golden: &Golden, run: &str, prior: &Images) {
    let asked = prior.asked();
    let levels: Vec<f64> = asked.iter().map(|(_, sigma)| *sigma).collect();
    assert_table(run, &levels, &golden.numbers(&format!("{run}.net_sigmas")), 1e-10);
    for (k, (x, _)) in asked.iter().enumerate() {
        let expected = golden.get(&format!("{run}.net_inputs")).get(k).unwrap();
        assert_close(&format!("{run}, call {k}"), x, &expected, 1e-10);
    }
}

/// The ablation with σ(t) = t is the same method on other levels. Those with σ(t) = √t and in variance-preserving coordinates
/// take their steps in another variable, which no solver here does.
#[test]
fn heun_on_the_levels_of_iddpm_is_the_ablation_of_edm() {
    let golden = Golden::open("loops_edm");
    let prior = Images::new(&golden, "mu", 0.3);
    let run = "abl_iddpm_heun_6";
    // Their levels, computed in single precision; a step begins with every second call.
    let called = golden.numbers(&format!("{run}.net_sigmas"));
    let sigmas: Vec<f64> = called.iter().copied().step_by(2).chain([0.0]).collect();
    for (sigma, own) in sigmas.iter().zip(iddpm(6)) {
        assert!((sigma - own).abs() < 1e-3 * own, "{sigma} and {own}");
    }
    let x = golden.get("latents").affine(sigmas[0], 0.0).unwrap();
    let x = heun(&prior, x, &sigmas, &Churn::NONE, &mut Rng::new(0, 0..2), &mut unseen).unwrap();
    assert_close(run, &x, golden.get(&format!("{run}.out")), 1e-10);
    assert_asked(&golden, run, &prior);
}

/// σ of training levels, and a zero.
fn levels_of(indices: impl IntoIterator<Item = usize>) -> Vec<f64> {
    let process = Discrete::linear(1000);
    indices.into_iter().map(|k| process.sigma(k as f64)).chain([0.0]).collect()
}

/// The states after each step in variance-preserving coordinates: what the prior was asked after its first call, and the
/// result, at `sigmas[1..]`.
#[track_caller]
fn assert_trajectory(golden: &Golden, run: &str, prior: &Images, x: Tensor, sigmas: &[f64]) {
    let trajectory = golden.get(&format!("{run}.trajectory"));
    let states: Vec<Tensor> = prior.asked().into_iter().skip(1).map(|(x, _)| x).chain([x]).collect();
    assert_eq!(states.len(), trajectory.dim(0).unwrap(), "{run}");
    assert_eq!(states.len() + 1, sigmas.len(), "{run}");
    for (k, (state, &sigma)) in states.iter().zip(&sigmas[1..]).enumerate() {
        let expected = trajectory.get(k).unwrap();
        assert_close(&format!("{run}, step {k}"), &preserved(state, sigma), &expected, 1e-4);
    }
}

#[test]
fn ancestral_sampling_is_the_loop_of_guided_diffusion() {
    let golden = Golden::open("loops_guided_diffusion");
    // The network said 0.3 for every pixel: v = (0.3 + 1)/2.
    for (run, variance, clipped) in [
        ("ancestral_learned_10", 0.65, false),
        ("ancestral_fixedlarge_10", 1.0, false),
        ("ancestral_fixedsmall_10", 0.0, true),
    ] {
        let prior = if clipped { Images::clipped(&golden) } else { Images::new(&golden, "mu", 0.3) };
        let sigmas = levels_of(golden.indices(&format!("{run}.timestep_map")).into_iter().rev());
        let x = exploded(golden.get("x_T"), sigmas[0]);
        let x = ancestral(&prior, x, &sigmas, variance, &mut golden.noise(run, 0..9), &mut unseen).unwrap();
        assert_trajectory(&golden, run, &prior, x, &sigmas);
    }
}

#[test]
fn ddim_is_the_loop_of_guided_diffusion() {
    let golden = Golden::open("loops_guided_diffusion");
    for (run, eta, clipped, drawn) in [("ddim_eta0_ddim10", 0.0, false, 0..0), ("ddim_eta05_ddim10", 0.5, true, 0..9)] {
        let prior = if clipped { Images::clipped(&golden) } else { Images::new(&golden, "mu", 0.3) };
        let sigmas = levels_of(golden.indices(&format!("{run}.timestep_map")).into_iter().rev());
        let x = exploded(golden.get("x_T"), sigmas[0]);
        let mut rng = golden.noise(run, drawn);
        let x =
            anneal(x, &sigmas, Renoise::Ddim(eta), &mut rng, &mut unseen, |x, level, _| prior.denoise(x, level.from));
        assert_trajectory(&golden, run, &prior, x.unwrap(), &sigmas);
    }
}

#[test]
fn ddim_and_ddpm_are_the_loops_of_diffusers() {
    let golden = Golden::open("loops_diffusers");
    let sigmas_of = |run: &str| levels_of(golden.indices(&format!("{run}.timesteps")));
    let sigmas = sigmas_of("ddim_eta0");
    let prior = Images::new(&golden, "mu", 0.3);
    let start = |sigmas: &[f64]| exploded(golden.get("x_T"), sigmas[0]);
    let euler = |x: &Tensor, sigma: f64| prior.denoise(x, sigma);
    let x = anneal(start(&sigmas), &sigmas, Renoise::Ddim(0.0), &mut Rng::new(0, 0..2), &mut unseen, |x, level, _| {
        euler(x, level.from)
    });
    assert_trajectory(&golden, "ddim_eta0", &prior, x.unwrap(), &sigmas);

    // It ends at the first training level, not at zero; the clipped image goes with the noise of the image before it.
    let mut sigmas = sigmas_of("ddim_eta05_clip");
    *sigmas.last_mut().unwrap() = Discrete::linear(1000).sigma(0.0);
    let mut rng = golden.noise("ddim_eta05_clip", 0..8);
    let x = anneal(start(&sigmas), &sigmas, Renoise::Ddim(0.5), &mut rng, &mut unseen, |x, level, _| {
        let x0 = prior.denoise(x, level.from)?;
        let eps = (x - &x0)?.affine(1.0 / level.from, 0.0)?;
        Ok(Estimate { x0: x0.clamp(-1.0, 1.0)?, eps: Some(eps) })
    });
    assert_trajectory(&golden, "ddim_eta05_clip", &prior, x.unwrap(), &sigmas);

    for (run, variance, clipped) in [("ddpm_small", 0.0, true), ("ddpm_large", 1.0, false)] {
        let prior = if clipped { Images::clipped(&golden) } else { Images::new(&golden, "mu", 0.3) };
        let sigmas = sigmas_of(run);
        let x =
            ancestral(&prior, start(&sigmas), &sigmas, variance, &mut golden.noise(run, 0..7), &mut unseen).unwrap();
        assert_trajectory(&golden, run, &prior, x, &sigmas);
    }
}

/// Takes the noise from the score at a training level beside σ, as a network that knows whole indices only.
#[derive(Debug)]
struct Rounded {
    images: Images,
    indices: Mutex<Vec<usize>>,
}

impl Denoiser for Rounded {
    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        self.images.asked.lock().unwrap().push((x.clone(), sigma));
        let level = Discrete::linear(1000).sigma(self.indices.lock().unwrap().remove(0) as f64);
        let (state, alpha_bar) = (preserved(x, sigma), 1.0 / (1.0 + level * level));
        let mean = self.images.mean.affine(alpha_bar.sqrt(), 0.0)?;
        let variance = alpha_bar * self.images.std.powi(2) + 1.0 - alpha_bar;
        let eps = state.broadcast_sub(&mean)?.affine((1.0 - alpha_bar).sqrt() / variance, 0.0)?;
        Ok((x - eps.affine(sigma, 0.0)?)?)
    }

    fn channels(&self) -> Option<usize> {
        Some(3)
    }

    fn sigma_range(&self) -> RangeInclusive<f64> {
        self.images.sigma_range()
    }
}

/// `dpmpp_3m` and `dpmsolver_2`, which are stored as well, are of methods that are not here.
#[test]
fn multistep_solvers_are_the_loops_of_diffusers() {
    let golden = Golden::open("loops_diffusers");
    let process = Discrete::linear(1000);
    let karras = Karras { steps: 8, rho: 7.0 }.sigmas(&(process.sigma(0.0)..=process.sigma(999.0)));
    for (run, correction, eta, drawn) in [
        ("dpmpp_2m", Correction::Midpoint, 0.0, 0..0),
        ("dpmpp_2m_heun_karras", Correction::Heun, 0.0, 0..0),
        ("dpmpp_2m_sde", Correction::Midpoint, 1.0, 0..7),
    ] {
        let indices = golden.indices(&format!("{run}.timesteps"));
        let sigmas = if run.contains("karras") { karras.clone() } else { levels_of(indices.iter().copied()) };
        let prior = Rounded { images: Images::new(&golden, "mu", 0.3), indices: Mutex::new(indices) };
        let x = exploded(golden.get("x_T"), sigmas[0]);
        let x = multistep(&prior, x, &sigmas, correction, eta, &mut golden.noise(run, drawn), &mut unseen).unwrap();
        assert_trajectory(&golden, run, &prior.images, x, &sigmas);
    }
}
