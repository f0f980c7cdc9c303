//! Predictor alone, corrector alone, and both, with as many evaluations of the exact score.
//!
//! `cargo run --release --example predictor_corrector [-- FILE.svg]`
//!
//! A predictor takes the state to less noise by a step of the reverse-time SDE; a corrector, a step of Langevin dynamics,
//! brings it nearer to the distribution of the noise level where it is. N predictor steps, N corrector steps and N/2 of each cost
//! the same. The corrector alone never uses that it knows how noise levels follow one another and lags behind them; the
//! predictor alone keeps the errors that its steps have made; together they correct one another.
//!
//! The samples of each at one budget, their sliced Wasserstein distance to exact draws over budgets, and the weights of the
//! eight modes. The corrector's step is `2 (r σ)²`, that of annealed Langevin dynamics: the other rule of the paper divides by the
//! norm of a score, which in two dimensions is often next to nothing.
//!
//! Song et al. (2021), <https://arxiv.org/abs/2011.13456>, section 4.2 and table 1.

mod figure;
mod plane;
#[path = "mixture_benchmark/sliced_wasserstein.rs"]
mod sliced_wasserstein;

use candle_core::{DType, Device};
use figure::{Axis, BLACK, BLUE, Figure, GREY, Mark, ORANGE, Place, RED, Ramp, at, cells};
use sliced_wasserstein::sliced_wasserstein;
use std::f64::consts::TAU;
use tweedie::Result;
use tweedie::priors::Mixture;
use tweedie::solvers::{SOLVERS, Step, find_solver};
use tweedie_operators::Rng;

const SAMPLES: usize = 5000;
const BUDGETS: [usize; 6] = [16, 32, 64, 128, 256, 512];
/// The budget whose samples are drawn.
const SHOWN: usize = 64;
const SIGMAS: std::ops::RangeInclusive<f64> = 0.01..=3.0;
/// r of the corrector's step.
const RATIO: f64 = 0.4;
const MODES: usize = 8;
const RADIUS: f64 = 0.6;
const VARIANCE: f64 = 0.0016;
const EDGE: f64 = 0.9;

/// Weights of the modes.
const WEIGHTS: [f64; MODES] = [0.25, 0.05, 0.15, 0.05, 0.2, 0.1, 0.05, 0.15];

/// (Name, colour, settings for so many evaluations.)
type Method = (&'static str, &'static str, fn(usize) -> String);

const METHODS: [Method; 3] = [
    ("predictor only", ORANGE, |n| format!("steps = {n}\ncorrector = 'none'")),
    ("corrector only", RED, |n| format!("steps = {n}\npredictor = 'none'\ncorrector = 'ald'\nsnr = {RATIO}")),
    ("both", BLUE, |n| format!("steps = {}\ncorrector = 'ald'\nsnr = {RATIO}", n / 2)),
];

fn mean(mode: usize) -> [f64; 2] {
    let (sin, cos) = (TAU * mode as f64 / MODES as f64).sin_cos();
    [RADIUS * cos, RADIUS * sin]
}

fn prior() -> Result<Mixture> {
    let components: Vec<_> = (0..MODES).map(|mode| (WEIGHTS[mode], mean(mode), plane::round(VARIANCE))).collect();
    plane::mixture(&components)
}

fn draw(prior: &Mixture, settings: &str) -> std::result::Result<Vec<[f64; 2]>, Box<dyn std::error::Error>> {
    let solver = find_solver(SOLVERS, "predictor_corrector", toml::from_str(settings)?)?;
    let mut rng = Rng::new(5, 0..SAMPLES as u64);
    let noise = rng.normal((SAMPLES, 2, 1, 1), &Device::Cpu)?.to_dtype(DType::F64)?;
    let x = (noise * *SIGMAS.end())?;
    Ok(plane::points(&solver.solve(prior, x, &SIGMAS, &mut rng, &mut |_: &Step<'_>| Ok(()))?)?)
}

/// Share of the points nearest to each mode.
fn shares(points: &[[f64; 2]]) -> [f64; MODES] {
    let mut shares = [0.0; MODES];
    for [x, y] in points {
        let mode = (y.atan2(*x) / TAU * MODES as f64).round().rem_euclid(MODES as f64);
        shares[mode as usize % MODES] += 1.0 / points.len() as f64;
    }
    shares
}

/// Root of the mean squared distance to the nearest mode, per coordinate.
fn spread(points: &[[f64; 2]]) -> f64 {
    let nearest = |point: &[f64; 2]| {
        (0..MODES).map(|mode| plane::norm(plane::difference(*point, mean(mode))).powi(2)).fold(f64::INFINITY, f64::min)
    };
    (points.iter().map(nearest).sum::<f64>() / (2 * points.len()) as f64).sqrt()
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let prior = prior()?;
    let exact = plane::tensor(&plane::draws::<2>(&prior, SAMPLES, 0)?)?;
    let again: Vec<[f64; 2]> = plane::draws(&prior, SAMPLES, 1)?;
    let distance = |points: &[[f64; 2]]| -> Result<f64> {
        Ok(sliced_wasserstein(&plane::tensor(points)?, &exact, 100, 0)?)
    };
    let floor = distance(&again)?;

    println!("sliced Wasserstein distance of {SAMPLES} samples to exact draws, by evaluations of the exact score:");
    print!("{:<16}", "");
    BUDGETS.iter().for_each(|budget| print!("{budget:>9}"));
    println!("{:>22}", format!("std in a mode, {SHOWN}"));
    let mut lines = Vec::new();
    let mut shown = Vec::new();
    for (name, color, settings) in METHODS {
        let mut line = Vec::new();
        print!("{name:<16}");
        for budget in BUDGETS {
            let points = draw(&prior, &settings(budget))?;
            let distance = distance(&points)?;
            print!("{distance:>9.4}");
            line.push([budget as f64, distance]);
            if budget == SHOWN {
                shown.push((name, color, points, distance));
            }
        }
        println!("{:>22.4}", spread(&shown[lines.len()].2));
        lines.push((line, color, name));
    }
    println!("{:<16}{floor:>9.4}{:>67.4}", "exact draws", spread(&again));

    let about = format!(
        "Eight modes of different weights, the exact score, a variance exploding process from σ = {} to {}. The predictor is the \
         reverse diffusion step, the corrector a step of Langevin dynamics with r = {RATIO}; with half of each the \
         number of evaluations is the same. W is the sliced Wasserstein distance to exact draws, {floor:.3} between two sets of them. \
         Song et al. (2021), arXiv:2011.13456.",
        SIGMAS.end(),
        SIGMAS.start()
    );
    let mut figure = Figure::new("Predictor, corrector, and both", &about, 3, &[300.0, 250.0]);
    let square = || (Axis::linear(-EDGE, EDGE, "x₁"), Axis::linear(-EDGE, EDGE, "x₂"));
    let shades = plane::shades(&prior, &cells(&square(), 72), 0.0)?;
    for (column, (name, color, points, distance)) in shown.iter().enumerate() {
        let title = format!("{}{}", name[..1].to_uppercase(), &name[1..]);
        let std = spread(points);
        let note = format!(
            "{SHOWN} evaluations: W = {distance:.3}; standard deviation within a mode {std:.3}, true {:.3}",
            VARIANCE.sqrt()
        );
        figure.panel(at(0, column), (&title, &note), square(), |panel| {
            panel.heat(72, &shades, Ramp::Amount);
            panel.dots(&points[..2000], (color, 1.8, 0.5));
        });
    }
    let axes = (
        Axis::logarithmic(12.0, 700.0, "evaluations of the score"),
        Axis::logarithmic(0.004, 1.0, "W to exact draws"),
    );
    let note = "Below the broken line two sets of exact draws would not come, either.";
    let ticks: Vec<String> = BUDGETS.iter().map(|budget| budget.to_string()).collect();
    figure.panel(Place { row: 1, column: 0, span: 2 }, ("Distance over budgets", note), axes, |panel| {
        panel.dashes(&[[10.0, floor], [1000.0, floor]], (GREY, 1.5));
        for (line, color, _) in &lines {
            panel.line(line, (color, 2.0));
            panel.dots(line, (color, 7.0, 1.0));
        }
        for (budget, words) in BUDGETS.iter().zip(&ticks) {
            panel.label([*budget as f64, 0.0047], words, GREY);
        }
        let mut entries: Vec<_> = lines.iter().map(|(_, color, name)| (Mark::Line(color), *name)).collect();
        entries.push((Mark::Dashes(GREY), "two sets of exact draws"));
        panel.legend([1.0, 1.0], &entries);
    });
    let axes = (
        Axis::named(&["1", "2", "3", "4", "5", "6", "7", "8"], "mode, counted from the right against the clock"),
        Axis::linear(0.0, 0.3, "share of the samples"),
    );
    let note = format!("{SHOWN} evaluations; grey: the true weights");
    figure.panel(at(1, 2), ("Weights of the modes", &note), axes, |panel| {
        let bars: Vec<_> = (0..MODES).map(|k| (k as f64 + 0.1, k as f64 + 0.9, WEIGHTS[k])).collect();
        panel.bars(&bars, ("#bbbbbb", 0.8));
        for (index, (_, color, points, _)) in shown.iter().enumerate() {
            let place = |k: usize| k as f64 + 0.25 * (index + 1) as f64;
            let dots: Vec<[f64; 2]> = shares(points).into_iter().enumerate().map(|(k, share)| [place(k), share]).collect();
            panel.dots(&dots, (color, 6.0, 1.0));
        }
        panel.line(&[[0.0, 0.0], [8.0, 0.0]], (BLACK, 1.0));
    });
    figure.save("predictor_corrector")?;
    Ok(())
}
