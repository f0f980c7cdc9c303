//! The density of images: against formulas, and what it depends on.

#[path = "../examples/known_likelihoods/cases.rs"]
mod cases;

use crate::harness::{Folder, Ran};
use crate::models::EMBEDDED;
use candle_core::{DType, Device, Tensor};
use cases::SIGMA_MIN;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use tweedie::likelihood::{Density, Levels, Likelihood, Stage, Trace};
use tweedie::priors::{Denoiser, Gaussian};
use tweedie::{Error, Result};
use tweedie_operators::Rng;

fn density(method: &Likelihood, prior: &dyn Denoiser, x: &Tensor, mut rng: Rng) -> Result<Vec<Density>> {
    method.log_density(prior, x, &mut rng, &mut |_: &Stage| Ok(()))
}

fn exact(tolerance: f64) -> Likelihood {
    Likelihood { trace: Trace::Exact, tolerance, sigma_range: None }
}

fn one(value: f64) -> Tensor {
    Tensor::from_slice(&[value], (1, 1, 1, 1), &Device::Cpu).unwrap()
}

#[test]
fn known_densities_are_found_within_three_standard_errors_and_a_hundredth_of_a_bit() {
    for case in cases::cases().unwrap() {
        for &trace in &case.traces {
            let line = cases::line(&case, trace).unwrap();
            let what =
                format!("{} of {} dimensions, {:?}, {} bits", line.name, line.dimensions, line.trace, line.exact);
            // The solver's own error, some steps of its tolerance: independent pixels and exact traces leave no other.
            let solver = 5e-4;
            assert!(
                line.error.abs() < 3.0 * line.standard_error + solver,
                "{what}: {} ± {}",
                line.error,
                line.standard_error
            );
            assert!(line.error.abs() < 0.01, "{what}: {}", line.error);
            assert!(line.standard_error < 0.007, "{what}: a check that says something: {}", line.standard_error);
            assert!(
                line.noise.abs() < 2e-4,
                "{what}: noise of {SIGMA_MIN} is nothing beside its spread: {}",
                line.noise
            );
            assert!((60..500).contains(&line.evaluations), "{what}: {}", line.evaluations);
        }
    }
}

#[test]
fn the_standard_error_is_what_other_probes_change() {
    let cases = cases::cases().unwrap();
    let case = cases.iter().find(|case| case.name == "correlated Gaussian" && case.x.elem_count() == 64).unwrap();
    for trace in [Trace::Rademacher(8), Trace::Gaussian(8)] {
        let method = Likelihood { trace, tolerance: 1e-3, sigma_range: None };
        let rows = case.x.repeat((60, 1, 1, 1)).unwrap();
        let found = density(&method, case.prior.as_ref(), &rows, Rng::new(3, 0..60)).unwrap();
        let mean = found.iter().map(|density| density.nats).sum::<f64>() / 60.0;
        let spread = (found.iter().map(|density| (density.nats - mean).powi(2)).sum::<f64>() / 59.0).sqrt();
        let told = (found.iter().map(|density| density.standard_error.unwrap().powi(2)).sum::<f64>() / 60.0).sqrt();
        // A standard deviation of 60 numbers is known to 9 %.
        assert!((spread / told - 1.0).abs() < 0.3, "{trace:?}: {spread} and {told}");
        assert!((mean - case.exact).abs() < 4.0 * told / 60f64.sqrt(), "{trace:?}: {mean}, exactly {}", case.exact);
    }
}

#[test]
fn the_noise_at_the_end_has_the_mean_and_the_spread_of_the_prior() {
    // σ_max is only three times the mean: under N(0, σ_max²) the result would be off by a third of a nat.
    let prior = Gaussian::new(0.7, 0.4).unwrap();
    let method = Likelihood { sigma_range: Some(0.1..=2.0), ..exact(1e-6) };
    for x in [-1.0, 0.3, 2.0] {
        let found = density(&method, &prior, &one(x), Rng::new(0, 0..1)).unwrap()[0];
        let variance: f64 = 0.4 * 0.4 + 0.1 * 0.1;
        let formula = -0.5 * ((x - 0.7f64).powi(2) / variance + (std::f64::consts::TAU * variance).ln());
        assert!((found.nats - formula).abs() < 1e-9, "{x}: {}, formula {formula}", found.nats);
    }
}

#[test]
fn a_smaller_tolerance_is_nearer_and_costs_more() {
    let cases = cases::cases().unwrap();
    let case = cases.iter().find(|case| case.name == "mixture" && case.x.elem_count() == 2).unwrap();
    let of = |tolerance| {
        let found = density(&exact(tolerance), case.prior.as_ref(), &case.x, Rng::new(0, 0..1)).unwrap()[0];
        ((found.nats - case.exact).abs(), found.evaluations)
    };
    let (coarse, fine) = (of(1e-2), of(1e-7));
    assert!(fine.0 < 1e-4 && fine.0 < coarse.0, "{fine:?} and {coarse:?}");
    assert!(fine.1 > coarse.1, "{fine:?} and {coarse:?}");
}

#[test]
fn an_image_has_the_same_density_alone_and_among_others_to_the_bit() {
    let cases = cases::cases().unwrap();
    let case = cases.iter().find(|case| case.name == "mixture" && case.x.elem_count() == 64).unwrap();
    let noise = Rng::new(5, 0..3).normal((3, 1, 8, 8), &Device::Cpu).unwrap();
    let rows = case.x.broadcast_add(&noise.affine(0.3, 0.0).unwrap().to_dtype(DType::F64).unwrap()).unwrap();
    let colours = Rng::new(6, 0..3).normal((3, 3, 8, 8), &Device::Cpu).unwrap().affine(0.3, 0.0).unwrap();
    // A network does not need the whole path to show it.
    for (prior, x, tolerance, sigma_range) in
        [(case.prior.as_ref(), &rows, 1e-5, None), (EMBEDDED.denoiser(), &colours, 0.05, Some(0.2..=2.0))]
    {
        for trace in [Trace::Rademacher(3), Trace::Gaussian(2)] {
            let method = Likelihood { trace, tolerance, sigma_range: sigma_range.clone() };
            let together = density(&method, prior, x, Rng::new(9, 0..3)).unwrap();
            for row in 0..3u64 {
                let image = x.narrow(0, row as usize, 1).unwrap();
                let alone = density(&method, prior, &image, Rng::new(9, row..row + 1)).unwrap();
                assert_eq!(alone, together[row as usize..=row as usize], "{trace:?}, {prior:?}");
            }
            assert_ne!(together[0].nats, together[1].nats);
        }
    }
}

#[test]
fn probabilities_of_all_levels_add_up_to_one() {
    // A Gaussian whose spread is several levels and which lies inside of them.
    let prior = Gaussian::new(-0.05, 0.15).unwrap();
    for levels in [Levels::all(255), Levels::new(255, 17).unwrap()] {
        let spacing = 255 / (levels.count() - 1);
        let mut sum = 0.0;
        for level in 0..levels.count() {
            let value = one((level * spacing) as f64).to_dtype(DType::F32).unwrap().repeat((8, 1, 1, 1)).unwrap();
            let mut rng = Rng::new(2, 0..8);
            let x = levels.dequantised(&value, &mut rng).unwrap();
            let nats = density(&exact(1e-3), &prior, &x, rng).unwrap();
            let bits = nats.iter().map(|density| levels.bits_per_dimension(density.nats, 1));
            sum += bits.map(|bits| (-bits).exp2()).sum::<f64>() / 8.0;
        }
        // Means over 8 draws of a density that changes by half within a wide level.
        assert!((sum - 1.0).abs() < 0.02, "{} levels: {sum}", levels.count());
    }
}

#[test]
fn progress_is_told_after_every_evaluation_and_can_stop() {
    let prior = Gaussian::new(0.0, 0.5).unwrap();
    let x = Tensor::zeros((2, 1, 2, 2), DType::F32, &Device::Cpu).unwrap();
    let mut stages = Vec::new();
    let mut observer = |stage: &Stage| {
        stages.push(*stage);
        Ok(())
    };
    let method = Likelihood::default();
    let found = method.log_density(&prior, &x, &mut Rng::new(0, 0..2), &mut observer).unwrap();
    for (row, found) in found.iter().enumerate() {
        let of_row: Vec<&Stage> = stages.iter().filter(|stage| stage.row == row).collect();
        assert_eq!(of_row.len(), found.evaluations);
        // Four probes at every evaluation but that of the mean.
        assert_eq!(found.pullbacks, 4 * (found.evaluations - 1));
        assert!(of_row.windows(2).all(|pair| pair[0].done <= pair[1].done));
        assert!(of_row.iter().all(|stage| (0.0..=1.0).contains(&stage.done) && (0.002..=80.0).contains(&stage.sigma)));
        assert_eq!(of_row.iter().map(|stage| stage.evaluations).max(), Some(found.evaluations));
    }
    let mut calls = 0;
    let mut stop = |_: &Stage| {
        calls += 1;
        if calls < 5 { Ok(()) } else { Err(Error::Interrupted) }
    };
    let stopped = method.log_density(&prior, &x, &mut Rng::new(0, 0..2), &mut stop);
    assert!(matches!(stopped, Err(Error::Interrupted)) && calls == 5);
}

#[test]
fn settings_that_make_no_sense_are_refused_with_what_is_allowed() {
    let prior = Gaussian::new(0.0, 0.5).unwrap();
    let x = Tensor::zeros((1, 1, 2, 2), DType::F32, &Device::Cpu).unwrap();
    let default = Likelihood::default;
    for (method, expected) in [
        (Likelihood { tolerance: 0.0, ..default() }, "tolerance is 0, expected 0.000000001 to 0.1"),
        (Likelihood { tolerance: f64::NAN, ..default() }, "tolerance is NaN, expected 0.000000001 to 0.1"),
        (Likelihood { trace: Trace::Rademacher(0), ..default() }, "number of probes is 0, expected at least 1"),
        (Likelihood { trace: Trace::Gaussian(0), ..default() }, "number of probes is 0, expected at least 1"),
        (
            Likelihood { sigma_range: Some(0.0..=1.0), ..default() },
            "range of sigma is 0 to 1, expected two numbers above 0, the smaller first",
        ),
        (
            Likelihood { sigma_range: Some(1.0..=1.0), ..default() },
            "range of sigma is 1 to 1, expected two numbers above 0, the smaller first",
        ),
        (
            Likelihood { sigma_range: Some(0.001..=80.0), ..default() },
            "range of sigma is 0.001 to 80, expected levels that the prior is good for, 0.002 to 80",
        ),
    ] {
        assert_eq!(density(&method, &prior, &x, Rng::new(0, 0..1)).unwrap_err().to_string(), expected);
    }
    let large = Tensor::zeros((1, 1, 65, 64), DType::F32, &Device::Cpu).unwrap();
    let message = density(&exact(1e-3), &prior, &large, Rng::new(0, 0..1)).unwrap_err().to_string();
    let expected = "expected at most 4096, each takes a pullback in every evaluation";
    assert_eq!(message, format!("number of diagonal entries of an exact trace is 4160, {expected}"));
    let message = density(&default(), &prior, &x, Rng::new(0, 0..2)).unwrap_err().to_string();
    assert!(message.contains("[2, _, _, _], one row per stream"), "{message}");
}

/// A prior whose result jumps with every change of σ, as no method can follow.
#[derive(Debug)]
struct Rough;

impl Denoiser for Rough {
    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        Ok(x.affine(0.5 + 0.4 * (1e9 * sigma).sin(), 0.0)?)
    }

    fn channels(&self) -> Option<usize> {
        None
    }

    fn sigma_range(&self) -> std::ops::RangeInclusive<f64> {
        0.002..=80.0
    }
}

/// A prior that gives up at small noise.
#[derive(Debug)]
struct Broken;

impl Denoiser for Broken {
    fn denoise(&self, x: &Tensor, sigma: f64) -> Result<Tensor> {
        Ok(x.affine(if sigma < 1.0 { f64::NAN } else { 0.1 }, 0.0)?)
    }

    fn channels(&self) -> Option<usize> {
        None
    }

    fn sigma_range(&self) -> std::ops::RangeInclusive<f64> {
        0.002..=80.0
    }
}

#[test]
fn a_path_that_cannot_be_followed_is_an_error_that_says_where() {
    let x = one(0.5);
    let message = density(&exact(1e-6), &Rough, &x, Rng::new(0, 0..1)).unwrap_err().to_string();
    assert!(message.starts_with("tolerance is 0.000001, expected a larger one: "), "{message}");
    assert!(message.contains(" % of the path took 20000 evaluations, sigma is "), "{message}");
    let error = density(&exact(1e-3), &Broken, &x, Rng::new(0, 0..1)).unwrap_err();
    assert!(matches!(error, Error::NonFinite { step: 0, sigma } if (sigma / 0.002 - 1.0).abs() < 1e-9), "{error}");
}

/// A grey image of `side × side` pixels, each a function of its place.
fn grey(folder: &Folder, name: &str, side: u32, level: impl Fn(u32, u32) -> u8) {
    image::GrayImage::from_fn(side, side, |x, y| image::Luma([level(x, y)])).save(folder.path(name)).unwrap();
}

const GAUSSIAN: &str = "--model gaussian:mean=0,std=0.25";

fn bits(ran: &Ran) -> f64 {
    ran.event("file")["bits_per_dimension"].as_f64().unwrap()
}

#[test]
fn the_command_finds_the_bits_of_a_formula() {
    let folder = Folder::new();
    grey(&folder, "even.png", 4, |_, _| 160);
    // 2 · 160.5/256 − 1 = 0.2539 on average over the noise, whose variance is (2/256)²/12.
    let (mean, variance) = (2.0 * 160.5 / 256.0 - 1.0, (2.0 / 256.0f64).powi(2) / 12.0);
    let total: f64 = 0.25 * 0.25 + 0.002 * 0.002;
    let nats = -0.5 * ((mean * mean + variance) / total + (std::f64::consts::TAU * total).ln());
    let expected = 7.0 - nats / std::f64::consts::LN_2;
    let ran = folder.succeed(&format!("likelihood even.png {GAUSSIAN} --draws 40 --json"));
    let file = ran.event("file");
    let error = file["standard_error"].as_f64().unwrap();
    assert!((bits(&ran) - expected).abs() < 4.0 * error && error < 2e-3, "{file}, expected {expected}");
    let fields: Vec<_> = ["width", "height", "channels", "levels"].iter().map(|field| file[field].clone()).collect();
    assert_eq!(fields, [4, 4, 1, 256]);
    assert!((file["log_density"].as_f64().unwrap() / 16.0 - nats).abs() < 4.0 * error, "{file}");
    let start = ran.event("start");
    assert_eq!((&start["probes"], &start["probe_kind"]), (&4.into(), &"rademacher".into()));
    assert_eq!((&start["sigma_min"], &start["sigma_max"]), (&0.002.into(), &80.0.into()));
    assert_eq!(ran.event("summary")["bits_per_dimension"], file["bits_per_dimension"]);

    let ran = folder.succeed(&format!("likelihood even.png {GAUSSIAN} --no-dequantize --probe-kind exact --json"));
    let x: f64 = 2.0 * 160.0 / 255.0 - 1.0;
    let nats = -0.5 * (x * x / total + (std::f64::consts::TAU * total).ln());
    assert!((bits(&ran) - (7.0 - nats / std::f64::consts::LN_2)).abs() < 1e-4, "{}", bits(&ran));
    assert_eq!(ran.event("file")["standard_error"], 0.0);
    assert_eq!(ran.event("start")["probes"], serde_json::Value::Null);
}

#[test]
fn fewer_levels_take_fewer_bits() {
    let folder = Folder::new();
    grey(&folder, "digit.png", 8, |x, y| 15 * ((x + 2 * y) % 17) as u8);
    let all = bits(&folder.succeed(&format!("likelihood digit.png {GAUSSIAN} --json --no-dequantize")));
    let few = bits(&folder.succeed(&format!("likelihood digit.png {GAUSSIAN} --json --no-dequantize --levels 17")));
    // A level is 15 times as wide.
    assert!((all - few - 15f64.log2()).abs() < 1e-9, "{all} and {few}");
    grey(&folder, "photo.png", 8, |x, y| (x * y) as u8);
    let ran = folder.tweedie(&format!("likelihood photo.png {GAUSSIAN} --levels 17"));
    let message = "error: photo.png: a value of the image is 1, expected one of the 17 levels 0, 15, …, 240";
    assert_eq!((ran.code, ran.stderr.lines().next()), (2, Some(message)));
    assert!(ran.stderr.contains("hint: --levels says how many there are"), "{}", ran.stderr);
}

#[test]
fn a_photo_is_likelier_than_noise_and_threads_change_nothing() {
    let folder = Folder::new();
    let photo = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/photos/chelsea.png");
    let noise = Rng::new(1, 0..1).uniform((1, 3, 16, 16), &Device::Cpu).unwrap().flatten_all().unwrap();
    let noise: Vec<u8> = noise.to_vec1::<f32>().unwrap().into_iter().map(|value| (value * 256.0) as u8).collect();
    image::RgbImage::from_raw(16, 16, noise).unwrap().save(folder.path("noise.png")).unwrap();
    let line = "likelihood PHOTO noise.png --crop 16x16 --tolerance 1e-2 --probes 2 --seed 4 --json";
    let run = |threads: usize, order: &str| {
        let line = format!("{} --threads {threads}", line.replace("PHOTO noise.png", order)).replace("PHOTO", photo);
        let events = folder.succeed(&line).events();
        let files = events.into_iter().filter(|event| event["event"] == "file");
        files.map(|event| (event["bits_per_dimension"].as_f64().unwrap(), event["evaluations"].clone())).collect()
    };
    let one: Vec<_> = run(1, "PHOTO noise.png");
    assert!(one[0].0 + 2.0 < one[1].0, "{one:?}");
    assert!(one[1].0 > 7.5, "eight bits are all that noise takes: {one:?}");
    let two: Vec<_> = run(2, "noise.png PHOTO");
    assert_eq!(one, [two[1].clone(), two[0].clone()], "whatever the threads and the order");
}

#[test]
fn the_table_has_every_image_and_their_mean() {
    let folder = Folder::new();
    grey(&folder, "a.png", 4, |x, y| (100 + 3 * x + 5 * y) as u8);
    grey(&folder, "b.png", 6, |x, y| (10 * x + 20 * y) as u8);
    let ran = folder.succeed(&format!("likelihood a.png b.png {GAUSSIAN} --probes 1"));
    let lines: Vec<Vec<&str>> = ran.text().lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["image", "size", "bits/dim", "±", "evaluations", "seconds"]);
    assert_eq!((lines[1][0], lines[1][1], lines[1][3]), ("a.png", "4x4", "-"), "one probe does not say");
    assert_eq!((lines[2][0], lines[2][1]), ("b.png", "6x6"));
    assert_eq!(lines[3][..3], ["mean", "of", "2"]);
    let number = |text: &str| text.parse::<f64>().unwrap();
    let (a, b) = (number(lines[1][2]), number(lines[2][2]));
    assert!((number(lines[3][3]) - 0.5 * (a + b)).abs() < 2e-4);
    // Of two numbers the standard error of the mean is half of their distance.
    assert!((number(lines[3][4]) - 0.5 * (a - b).abs()).abs() < 2e-4);
}

#[test]
fn one_bad_image_costs_no_other() {
    let folder = Folder::new();
    grey(&folder, "good.png", 4, |_, _| 120);
    folder.write("bad.png", "no image");
    let ran = folder.tweedie(&format!("likelihood bad.png good.png {GAUSSIAN} --json"));
    assert_eq!(ran.code, 1);
    let kinds: Vec<String> = ran.events().iter().map(|event| event["event"].as_str().unwrap().into()).collect();
    assert_eq!(kinds, ["start", "failed", "file", "error"]);
    assert!(ran.event("failed")["message"].as_str().unwrap().contains("bad.png"));
    assert_eq!(ran.stderr.lines().last(), Some("error: 1 of 2 images could not be measured"));
    let text = folder.tweedie(&format!("likelihood bad.png good.png {GAUSSIAN}"));
    assert!(text.code == 1 && text.text().contains("good.png"), "{}", text.text());
}

#[test]
fn what_cannot_be_measured_is_refused_before_any_work() {
    let folder = Folder::new();
    grey(&folder, "a.png", 8, |x, _| x as u8);
    grey(&folder, "large.png", 600, |x, _| x as u8);
    // The model is never looked at.
    let nowhere = "--model nowhere.safetensors";
    for (arguments, message) in [
        ("none.png", "none.png: no such file"),
        (". ", ".: is a folder"),
        ("a.png --tolerance 0.5", "tolerance is 0.5, expected 0.000000001 to 0.1"),
        ("a.png --probe-kind exact --probes 3", "--probes counts random probes, --probe-kind exact has none"),
    ] {
        let ran = folder.tweedie(&format!("likelihood {arguments} {nowhere}"));
        assert_eq!((ran.code, ran.stderr.lines().next()), (2, Some(format!("error: {message}").as_str())));
    }
    for arguments in
        ["", "a.png --probes 0", "a.png --tolerance -1", "a.png --draws 2 --no-dequantize", "a.png --levels 1"]
    {
        let ran = folder.tweedie(&format!("likelihood {arguments}"));
        assert!(ran.code == 2 && ran.stdout.is_empty(), "{arguments}: {}", ran.stderr);
    }
    for (arguments, message) in [
        ("large.png", "large.png: 600x600 pixels, at most 262144 are taken in one piece"),
        ("a.png --crop 9x4", "a.png: 8x8 pixels, --crop asks for 4x9"),
        (
            "a.png --sigma-min 0.001",
            "a.png: range of sigma is 0.001 to 80, expected levels that the prior is good for, 0.002 to 80",
        ),
        ("a.png --levels 300", "number of levels is 300, expected 2 to 256"),
    ] {
        let ran = folder.tweedie(&format!("likelihood {arguments} {GAUSSIAN}"));
        assert_eq!((ran.code, ran.stderr.lines().next()), (2, Some(format!("error: {message}").as_str())));
    }
    let ran = folder.succeed(&format!("likelihood a.png {GAUSSIAN} --sigma-max 1"));
    let warning = "warning: at sigma 1 images are not hidden, their spread is 0.25: the number is no likelihood";
    assert_eq!(ran.stderr.lines().next(), Some(warning));
}

#[test]
fn a_plan_says_what_a_pixel_costs_and_measures_nothing() {
    let folder = Folder::new();
    grey(&folder, "large.png", 600, |x, _| x as u8);
    let ran = folder.succeed(&format!("likelihood large.png --crop 100x50 {GAUSSIAN} -n"));
    let lines: Vec<Vec<&str>> = ran.text().lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][..4], ["image", "size", "numbers", "about"]);
    assert_eq!(lines[1][..3], ["large.png", "50x100", "5000"]);
    assert!(ran.text().contains(" ms, ") && ran.text().contains("of them an evaluation"), "{}", ran.text());
    let ran = folder.succeed(&format!("likelihood large.png --crop 100x50 {GAUSSIAN} -n --json"));
    let summary = ran.event("summary");
    assert_eq!((&summary["dry_run"], &summary["images"]), (&true.into(), &0.into()));
    assert!(summary["estimated_seconds"].as_f64().unwrap() > 0.0);
}

#[cfg(unix)]
#[test]
fn a_signal_stops_and_what_is_done_is_told() {
    let folder = Folder::new();
    grey(&folder, "small.png", 4, |x, _| x as u8);
    grey(&folder, "large.png", 512, |x, y| (x + y) as u8);
    let line = format!("likelihood small.png large.png {GAUSSIAN} --probes 400 --json");
    let mut command = folder.command(&line.split(' ').collect::<Vec<_>>());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut events = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(events.any(|line| line.unwrap().contains(r#""event":"file""#)), "no image was told");
    let sent = std::process::Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
    let last: serde_json::Value =
        serde_json::from_str(&events.map(std::result::Result::unwrap).last().unwrap()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!((&last["event"], &last["exit_code"]), (&"error".into(), &130.into()));
}
