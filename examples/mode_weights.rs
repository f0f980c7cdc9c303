//! Langevin dynamics does not find how much weight the modes of a distribution have; annealed Langevin dynamics does.
//!
//! `cargo run --release --example mode_weights [-- FILE.svg]`
//!
//! A fifth of all points belong to one mode, four fifths to the other, and next to nothing is between them. Both methods have
//! the exact score, start from points uniform on a square and take 1,000 steps. Where two modes do not overlap the score of
//! each is what it would be without the other: it does not know the weights, and the share of points that end in a mode
//! is that of the starts nearer to it. Under noise that makes the modes overlap, points change from one to the other, and the
//! shares that they have found there stay what they are as the noise goes.
//!
//! The samples of each method, the share of the smaller mode after every number of steps, and the densities along the
//! diagonal through both modes.
//!
//! Song and Ermon (2019), <https://arxiv.org/abs/1907.05600>, section 3.2.2 and figure 3, at a tenth of the size.

mod figure;
mod plane;

use candle_core::{DType, Device, Tensor};
use figure::{Axis, BLUE, Figure, GREEN, GREY, Mark, ORANGE, Place, RED, Ramp, SKY, at, cells};
use tweedie::Result;
use tweedie::priors::Mixture;
use tweedie::schedules::{Geometric, Schedule};
use tweedie::solvers::{Langevin, Step, annealed_langevin};
use tweedie_operators::Rng;

const SAMPLES: usize = 5000;
/// Half the side of the square of the starts.
const EDGE: f64 = 0.8;
/// Noise levels, and steps at each; as many in all without levels.
const LEVELS: usize = 10;
const STEPS: usize = 100;
/// From noise that hides the modes to noise that blurs none.
const SIGMAS: std::ops::RangeInclusive<f64> = 0.03..=1.0;
/// Step over σ².
const RELATIVE_STEP: f64 = 0.2;
/// Step of Langevin dynamics without annealing, a twentieth of the variance of a mode.
const STEP: f64 = 5e-4;
/// In the place of σ = 0: a hundredth of a mode's standard deviation.
const NONE: f64 = 1e-3;

/// What a method did.
struct Run {
    /// (Steps, share of the smaller mode).
    shares: Vec<[f64; 2]>,
    ends: Vec<[f64; 2]>,
}

fn share(points: &[[f64; 2]]) -> f64 {
    points.iter().filter(|[x, y]| x + y < 0.0).count() as f64 / points.len() as f64
}

/// Points uniform on the square.
fn starts(rng: &mut Rng) -> Result<Tensor> {
    let uniform = rng.uniform((rng.streams(), 2, 1, 1), &Device::Cpu)?.to_dtype(DType::F64)?;
    Ok(uniform.affine(2.0 * EDGE, -EDGE)?)
}

fn run(prior: &Mixture, sigmas: &[f64], epsilon: f64, steps: usize, repeats: usize) -> Result<Run> {
    let mut rng = Rng::new(1, 0..SAMPLES as u64);
    let mut x = starts(&mut rng)?;
    let mut shares = Vec::new();
    let mut taken = 0;
    for _ in 0..repeats {
        let langevin = Langevin { steps, epsilon, denoise: false };
        x = annealed_langevin(prior, x, sigmas, &langevin, &mut rng, &mut |step: &Step<'_>| {
            shares.push([taken as f64, share(&plane::points(step.x)?)]);
            taken += steps;
            Ok(())
        })?;
    }
    let ends = plane::points(&x)?;
    shares.push([taken as f64, share(&ends)]);
    Ok(Run { shares, ends })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let prior = plane::two_modes()?;
    let exact: Vec<[f64; 2]> = plane::draws(&prior, SAMPLES, 0)?;
    let plain = run(&prior, &[NONE, 0.0], STEP, 20, LEVELS * STEPS / 20)?;
    let sigmas = Geometric { steps: LEVELS }.sigmas(&SIGMAS);
    let annealed = run(&prior, &sigmas, RELATIVE_STEP * SIGMAS.start().powi(2), STEPS, 1)?;

    println!("share of the smaller mode, {SAMPLES} samples, {} evaluations of the exact score each:", LEVELS * STEPS);
    println!("{:<24}{:>8}", "true", 0.2);
    for (name, ends) in [("exact draws", &exact), ("Langevin", &plain.ends), ("annealed Langevin", &annealed.ends)] {
        println!("{name:<24}{:>8.3}", share(ends));
    }

    let about = format!(
        "A fifth of the points lie around (−½, −½), four fifths around (½, ½). Langevin dynamics with the exact score, started \
         uniformly on the square, leaves {:.0} % of its samples in the smaller mode: between the modes there is no density and \
         nothing to tell their weights. Annealed Langevin dynamics, which begins under noise that joins the modes, leaves {:.0} %. \
         Song and Ermon (2019), arXiv:1907.05600.",
        100.0 * share(&plain.ends),
        100.0 * share(&annealed.ends)
    );
    let mut figure = Figure::new("Langevin dynamics misses the weights of modes", &about, 3, &[300.0, 230.0]);
    let sets = [
        ("Exact draws", &exact, GREY),
        ("Langevin, 1,000 steps", &plain.ends, RED),
        ("Annealed Langevin, 10 × 100 steps", &annealed.ends, BLUE),
    ];
    for (column, (name, points, color)) in sets.into_iter().enumerate() {
        let axes = (Axis::linear(-0.95, 0.95, "x₁"), Axis::linear(-0.95, 0.95, "x₂"));
        let note = "2,000 of the samples over the density";
        let shades = plane::shades(&prior, &cells(&axes, 64), 0.0)?;
        figure.panel(at(0, column), (name, note), axes, |panel| {
            panel.heat(64, &shades, Ramp::Amount);
            panel.dots(&points[..2000], (color, 1.8, 0.5));
            let percent = 100.0 * share(points);
            panel.label([-0.5, -0.1], &format!("{percent:.1} %"), color);
            panel.label([0.5, 0.9], &format!("{:.1} %", 100.0 - percent), color);
        });
    }

    let axes =
        (Axis::linear(0.0, 1000.0, "evaluations of the score"), Axis::linear(0.0, 0.7, "share of the smaller mode"));
    let note = "Langevin dynamics stays where it began. Annealed, points change modes under the noise of the first levels, and the \
                shares found there are kept.";
    figure.panel(Place { row: 1, column: 0, span: 2 }, ("The share of the smaller mode", note), axes, |panel| {
        panel.dashes(&[[0.0, 0.2], [1000.0, 0.2]], (GREY, 1.5));
        panel.line(&plain.shares, (RED, 2.0));
        panel.line(&annealed.shares, (BLUE, 2.0));
        panel.dots(&annealed.shares, (BLUE, 6.0, 1.0));
        for (level, sigma) in sigmas.iter().take(LEVELS).enumerate() {
            let decimals = if *sigma < 0.1 { 3 } else { 2 };
            let place = [(level * STEPS + STEPS / 2) as f64, 0.05];
            panel.label(place, &format!("σ {sigma:.decimals$}"), BLUE);
        }
        let entries = [
            (Mark::Line(RED), "Langevin"),
            (Mark::Line(BLUE), "annealed Langevin"),
            (Mark::Dashes(GREY), "true share"),
        ];
        panel.legend([1.0, 1.0], &entries);
    });

    let axes =
        (Axis::linear(-1.2, 1.2, "place on the diagonal, x₁ = x₂"), Axis::linear(0.0, 1.05, "density / largest"));
    let along: Vec<[f64; 2]> = (0..=160).map(|k| -1.2 + 0.015 * f64::from(k)).map(|t| [t, t]).collect();
    let mut lines = Vec::new();
    for (sigma, color) in [(0.0, GREY), (0.3, SKY), (0.6, GREEN), (1.0, ORANGE)] {
        let values = plane::log_densities(&prior, &along, sigma)?;
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let line: Vec<[f64; 2]> = along.iter().zip(values).map(|(at, value)| [at[0], (value - most).exp()]).collect();
        lines.push((line, color));
    }
    let note = "Without noise nothing is between the modes; under enough noise a point can pass.";
    figure.panel(at(1, 2), ("What noise does to the gap", note), axes, |panel| {
        lines.iter().for_each(|(line, color)| panel.line(line, (color, 2.0)));
        let entries = [
            (Mark::Line(GREY), "σ = 0"),
            (Mark::Line(SKY), "σ = 0.3"),
            (Mark::Line(GREEN), "σ = 0.6"),
            (Mark::Line(ORANGE), "σ = 1"),
        ];
        panel.legend([0.0, 0.8], &entries);
    });
    figure.save("mode_weights")?;
    Ok(())
}
