//! Predictor alone, corrector alone, and both, with as many evaluations of the exact score.
//!
//! `cargo run --release --example predictor_corrector [-- FILE.svg]`
//!
//! A predictor takes the state to less noise by a step of the reverse-time SDE or ODE; a corrector, a step of Langevin dynamics,
//! brings it nearer to the distribution of the noise level where it is. N predictor steps, N corrector steps and N/2 of
//! each cost the same. The corrector alone does not use that it knows how noise levels follow one another, and lags behind
//! them. The ODE's step keeps every error that it has made, and half as many of them with a corrector come nearer. The SDE's
//! step adds noise of its own, which corrects as Langevin dynamics does: with an exact score, as here, it gains nothing by
//! a corrector that costs as much as itself.
//!
//! The samples of three of them at one budget, the sliced Wasserstein distance of all to exact draws over budgets, and the
//! weights of the eight modes. The corrector's step is `2 (r σ)²`, that of annealed Langevin dynamics: the other rule of the
//! paper divides by the norm of a score, which in two dimensions is often next to nothing.
//!
//! Song et al. (2021), <https://arxiv.org/abs/2011.13456>, section 4.2 and table 1, where the scores
//! are learned ones of images: there a corrector helps with both, and with the ODE by far the most.

mod figure;
mod plane;
#[path = "mixture_benchmark/sliced_wasserstein.rs"]
mod sliced_wasserstein;

use candle_core::{DType, Device};
use figure::{Axis, BLUE, Figure, Mark, ORANGE, Place, RED, Ramp, at, cells};
use rayon::prelude::*;
use sliced_wasserstein::sliced_wasserstein;
use std::f64::consts::TAU;
use tweedie::Result;
use tweedie::priors::Mixture;
use tweedie::solvers::{SOLVERS, Step, find_solver};
use tweedie_operators::Rng;

const SAMPLES: usize = 8000;
const BUDGETS: [usize; 5] = [8, 16, 32, 64, 128];
/// The budget whose samples are drawn.
const SHOWN: usize = 32;
const SIGMAS: std::ops::RangeInclusive<f64> = 0.01..=3.0;
/// r of the corrector's step.
const RATIO: f64 = 0.5;
const MODES: usize = 8;
const RADIUS: f64 = 0.6;
const VARIANCE: f64 = 0.0016;
const EDGE: f64 = 0.9;

/// Weights of the modes.
const WEIGHTS: [f64; MODES] = [0.25, 0.05, 0.15, 0.05, 0.2, 0.1, 0.05, 0.15];

/// A way to spend evaluations.
struct Method {
    name: &'static str,
    color: &'static str,
    /// Whether the line is broken.
    broken: bool,
    /// Evaluations of a step.
    cost: usize,
    settings: &'static str,
}

const METHODS: [Method; 5] = [
    Method {
        name: "predictor (ODE)",
        color: ORANGE,
        broken: false,
        cost: 1,
        settings: "probability_flow = true\ncorrector = 'none'",
    },
    Method { name: "corrector", color: RED, broken: false, cost: 1, settings: "predictor = 'none'\ncorrector = 'ald'" },
    Method {
        name: "predictor (ODE) and corrector",
        color: BLUE,
        broken: false,
        cost: 2,
        settings: "probability_flow = true\ncorrector = 'ald'",
    },
    Method { name: "predictor (SDE)", color: ORANGE, broken: true, cost: 1, settings: "corrector = 'none'" },
    Method { name: "predictor (SDE) and corrector", color: BLUE, broken: true, cost: 2, settings: "corrector = 'ald'" },
];

/// What a method made of a budget.
struct Run {
    points: Vec<[f64; 2]>,
    /// To exact draws.
    distance: f64,
}

fn mean(mode: usize) -> [f64; 2] {
    let (sin, cos) = (TAU * mode as f64 / MODES as f64).sin_cos();
    [RADIUS * cos, RADIUS * sin]
}

fn prior() -> Result<Mixture> {
    plane::round(&(0..MODES).map(|mode| (WEIGHTS[mode], mean(mode))).collect::<Vec<_>>(), VARIANCE)
}

fn draw(prior: &Mixture, method: &Method, budget: usize) -> Result<Vec<[f64; 2]>> {
    let settings = format!("steps = {}\nsnr = {RATIO}\n{}", budget / method.cost, method.settings);
    let settings = settings.parse().expect("settings are TOML");
    let solver = find_solver(SOLVERS, "predictor_corrector", settings)?;
    let mut rng = Rng::new(5, 0..SAMPLES as u64);
    let noise = rng.normal((SAMPLES, 2, 1, 1), &Device::Cpu)?.to_dtype(DType::F64)?;
    let x = (noise * *SIGMAS.end())?;
    plane::points(&solver.solve(prior, x, &SIGMAS, &mut rng, &mut |_: &Step<'_>| Ok(()))?)
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
    let distance =
        |points: &[[f64; 2]]| -> Result<f64> { Ok(sliced_wasserstein(&plane::tensor(points)?, &exact, 100, 0)?) };
    let floor = distance(&again)?;

    let jobs: Vec<(&Method, usize)> =
        METHODS.iter().flat_map(|method| BUDGETS.map(|budget| (method, budget))).collect();
    let runs = jobs.into_par_iter().map(|(method, budget)| -> Result<Run> {
        let points = draw(&prior, method, budget)?;
        let distance = distance(&points)?;
        Ok(Run { points, distance })
    });
    let runs: Vec<Run> = runs.collect::<Result<_>>()?;
    let runs: Vec<&[Run]> = runs.chunks(BUDGETS.len()).collect();
    let shown = BUDGETS.iter().position(|&budget| budget == SHOWN).unwrap_or(0);

    println!("sliced Wasserstein distance of {SAMPLES} samples to exact draws, by evaluations of the exact score:");
    print!("{:<32}", "");
    BUDGETS.iter().for_each(|budget| print!("{budget:>8}"));
    println!("{:>22}", format!("std in a mode, {SHOWN}"));
    for (method, runs) in METHODS.iter().zip(&runs) {
        print!("{:<32}", method.name);
        runs.iter().for_each(|run| print!("{:>8.3}", run.distance));
        println!("{:>22.4}", spread(&runs[shown].points));
    }
    println!("{:<32}{floor:>8.3}{:>54.4}", "exact draws", spread(&again));

    let about = format!(
        "Eight modes of different weights, the exact score, noise from σ = {} to {}. A predictor step leads to the next noise level, \
         along the reverse-time ODE or SDE; a corrector step, Langevin dynamics, stays at one. Both together take half as many of \
         each for the same number of evaluations. A corrector repairs what the ODE's steps did; the SDE's own noise already \
         does. W is the sliced Wasserstein distance to exact draws, {floor:.3} between two sets of them. Song et al. (2021), arXiv:2011.13456.",
        SIGMAS.end(),
        SIGMAS.start()
    );
    let mut figure = Figure::new("Predictor, corrector, and both", &about, 3, &[300.0, 260.0]);
    let square = || (Axis::linear(-EDGE, EDGE, "x₁"), Axis::linear(-EDGE, EDGE, "x₂"));
    let shades = plane::shades(&prior, &cells(&square(), 72), 0.0)?;
    let titles = ["Predictor (ODE) only", "Corrector only", "Both"];
    for (column, title) in titles.into_iter().enumerate() {
        let Run { points, distance } = &runs[column][shown];
        let std = spread(points);
        let note = format!(
            "{SHOWN} evaluations: W = {distance:.3}; standard deviation within a mode {std:.3}, true {:.3}",
            VARIANCE.sqrt()
        );
        figure.panel(at(0, column), (title, &note), square(), |panel| {
            panel.heat(72, &shades, Ramp::Amount);
            panel.dots(&points[..2000], (METHODS[column].color, 1.8, 0.5));
        });
    }
    let ticks: Vec<String> = BUDGETS.iter().map(|budget| budget.to_string()).collect();
    let ticks: Vec<&str> = ticks.iter().map(String::as_str).collect();
    let axes = (Axis::named(&ticks, "evaluations of the score"), Axis::logarithmic(0.005, 0.5, "W to exact draws"));
    let note = "Two sets of exact draws are as far apart as the grey line.";
    figure.panel(Place { row: 1, column: 0, span: 2 }, ("Distance over budgets", note), axes, |panel| {
        panel.line(&[[0.0, floor], [10.0, floor]], ("#999999", 1.5));
        let mut entries = Vec::new();
        for (method, runs) in METHODS.iter().zip(&runs) {
            let line: Vec<[f64; 2]> = runs.iter().enumerate().map(|(k, run)| [k as f64 + 0.5, run.distance]).collect();
            match method.broken {
                true => panel.dashes(&line, (method.color, 2.0)),
                false => panel.line(&line, (method.color, 2.0)),
            }
            panel.dots(&line, (method.color, 6.0, 1.0));
            let mark = if method.broken { Mark::Dashes(method.color) } else { Mark::Line(method.color) };
            entries.push((mark, method.name));
        }
        panel.legend([1.0, 1.0], &entries);
    });
    let axes = (
        Axis::named(&["1", "2", "3", "4", "5", "6", "7", "8"], "mode, counted from the right against the clock"),
        Axis::linear(0.0, 0.3, "share of the samples"),
    );
    let note = format!("{SHOWN} evaluations, colours as above; grey: the true weights");
    figure.panel(at(1, 2), ("Weights of the modes", &note), axes, |panel| {
        let bars: Vec<_> = (0..MODES).map(|k| (k as f64 + 0.1, k as f64 + 0.9, WEIGHTS[k])).collect();
        panel.bars(&bars, ("#bbbbbb", 0.8));
        for (index, color) in [ORANGE, RED, BLUE].into_iter().enumerate() {
            let place = |k: usize| k as f64 + 0.25 * (index + 1) as f64;
            let shares = shares(&runs[index][shown].points);
            let dots: Vec<[f64; 2]> = shares.into_iter().enumerate().map(|(k, share)| [place(k), share]).collect();
            panel.dots(&dots, (color, 6.0, 1.0));
        }
    });
    figure.save("predictor_corrector")?;
    Ok(())
}
