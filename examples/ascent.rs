//! Sampling is ascent with noise: the score alone leads to the modes, with noise to the distribution.
//!
//! `cargo run --release --example ascent [-- FILE.svg]`
//!
//! Both methods take the same steps along the exact score, `x ← x + α s(x)`, from the same starts; Langevin dynamics adds
//! `√(2α) n` each time. Without noise every point climbs to the mode whose basin it started in: what is left are as many
//! points as there are modes. With noise the points spread as the distribution does, within the modes and between them,
//! since these modes overlap; what happens where they do not is shown by `mode_weights`.
//!
//! A few paths, the end points beside exact draws, and the end points' distribution along x₁ beside the exact one.
//!
//! Roberts and Tweedie (1996), <https://doi.org/10.2307/3318418>; Song and Ermon (2019), <https://arxiv.org/abs/1907.05600>,
//! section 2.2.

mod figure;
mod plane;
#[path = "mixture_benchmark/sliced_wasserstein.rs"]
mod sliced_wasserstein;

use candle_core::{DType, Device};
use figure::{Axis, BLACK, BLUE, Figure, GREEN, GREY, Mark, RED, Ramp, at, cells};
use sliced_wasserstein::sliced_wasserstein;
use tweedie::Result;
use tweedie::priors::{Denoiser, Mixture};
use tweedie_operators::Rng;

const SAMPLES: usize = 2500;
const STEPS: usize = 2000;
/// α, a fortieth of the smallest variance of a mode.
const STEP: f64 = 2.5e-4;
/// In the place of σ = 0.
const NONE: f64 = 1e-3;
/// Paths that are drawn: a few without noise, and one with it for each of the first starts.
const ASCENTS: usize = 60;
const WALKS: usize = 2;
const EDGE: f64 = 0.8;
const BINS: usize = 48;

/// Three modes that overlap, of which two are longish.
fn prior() -> Result<Mixture> {
    plane::mixture(&[
        (0.5, [-0.22, -0.12], [[0.03, 0.016], [0.016, 0.022]]),
        (0.3, [0.28, -0.05], [[0.012, 0.0], [0.0, 0.03]]),
        (0.2, [0.05, 0.36], [[0.02, -0.006], [-0.006, 0.01]]),
    ])
}

/// Every state of every point: `states[step][point]`.
fn climb(prior: &Mixture, noise: bool) -> Result<Vec<Vec<[f64; 2]>>> {
    let mut rng = Rng::new(3, 0..SAMPLES as u64);
    let uniform = rng.uniform((SAMPLES, 2, 1, 1), &Device::Cpu)?.to_dtype(DType::F64)?;
    let mut x = uniform.affine(2.0 * EDGE, -EDGE)?;
    let mut states = vec![plane::points(&x)?];
    for _ in 0..STEPS {
        x = (&x + (prior.score(&x, NONE)? * STEP)?)?;
        if noise {
            let step = (rng.normal_like(&x)? * (2.0 * STEP).sqrt())?;
            x = (x + step)?;
        }
        states.push(plane::points(&x)?);
    }
    Ok(states)
}

/// Places of a point on its way that are so far from one another, and the last.
fn path(states: &[Vec<[f64; 2]>], point: usize, apart: f64) -> Vec<[f64; 2]> {
    let mut kept: Vec<[f64; 2]> = Vec::new();
    for place in states.iter().map(|points| points[point]) {
        if kept.last().is_none_or(|last| plane::norm(plane::difference(place, *last)) > apart) {
            kept.push(place);
        }
    }
    kept.extend(states.last().map(|points| points[point]));
    kept
}

/// Shares of points in bins of x₁ over their width.
fn histogram(points: &[[f64; 2]]) -> Vec<(f64, f64, f64)> {
    let width = 2.0 * EDGE / BINS as f64;
    let mut counts = vec![0.0; BINS];
    for [x, _] in points {
        let bin = (x + EDGE) / width;
        if (0.0..BINS as f64).contains(&bin) {
            counts[bin as usize] += 1.0 / (points.len() as f64 * width);
        }
    }
    let place = |k: usize| -EDGE + k as f64 * width;
    counts.into_iter().enumerate().map(|(k, count)| (place(k), place(k + 1), count)).collect()
}

/// Standard deviations of both coordinates.
fn spread(points: &[[f64; 2]]) -> [f64; 2] {
    let count = points.len() as f64;
    [0, 1].map(|k| {
        let mean = points.iter().map(|point| point[k]).sum::<f64>() / count;
        (points.iter().map(|point| (point[k] - mean).powi(2)).sum::<f64>() / count).sqrt()
    })
}

/// Points that differ by more than a hundredth of a mode's size.
fn distinct(points: &[[f64; 2]]) -> usize {
    let mut kept: Vec<[f64; 2]> = Vec::new();
    for point in points {
        if kept.iter().all(|other| plane::norm(plane::difference(*point, *other)) > 1e-3) {
            kept.push(*point);
        }
    }
    kept.len()
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let prior = prior()?;
    let exact: Vec<[f64; 2]> = plane::draws(&prior, SAMPLES, 0)?;
    let again: Vec<[f64; 2]> = plane::draws(&prior, SAMPLES, 1)?;
    let ascent = climb(&prior, false)?;
    let langevin = climb(&prior, true)?;
    let (tops, ends) = (&ascent[STEPS], &langevin[STEPS]);

    println!("{SAMPLES} points, {STEPS} steps of the exact score; W: sliced Wasserstein distance to exact draws");
    println!("{:<18}{:>9}{:>9}{:>9}{:>10}{:>16}", "", "std x1", "std x2", "W", "points", "mean log p");
    for (name, points) in [("exact draws", &again), ("ascent", tops), ("Langevin", ends)] {
        let [first, second] = spread(points);
        let distance = sliced_wasserstein(&plane::tensor(points)?, &plane::tensor(&exact)?, 100, 0)?;
        let densities = plane::log_densities(&prior, points, NONE)?;
        let mean = densities.iter().sum::<f64>() / densities.len() as f64;
        let count = distinct(points);
        println!("{name:<18}{first:>9.3}{second:>9.3}{distance:>9.3}{count:>10}{mean:>16.2}");
    }

    let about = format!(
        "The same 2,000 steps along the exact score from the same 2,500 starts. Gradient ascent, x ← x + α ∇log p, leaves \
         {} different points: the modes. Langevin dynamics adds √(2α) n to each step and leaves samples of the distribution.",
        distinct(tops)
    );
    let mut figure = Figure::new("Sampling is ascent with noise", &about, 3, &[300.0, 300.0]);
    let square = || (Axis::linear(-EDGE, EDGE, "x₁"), Axis::linear(-EDGE, EDGE, "x₂"));
    let shades = plane::shades(&prior, &cells(&square(), 64), 0.0)?;
    let note = format!("{ASCENTS} of the paths, from grey starts to the modes, over the density");
    figure.panel(at(0, 0), ("Without noise: the paths", &note), square(), |panel| {
        panel.heat(64, &shades, Ramp::Amount);
        (0..ASCENTS).for_each(|point| panel.line(&path(&ascent, point, 0.02), (RED, 0.8)));
        panel.dots(&ascent[0][..ASCENTS], (GREY, 4.0, 1.0));
        panel.dots(&tops[..ASCENTS], (BLACK, 7.0, 1.0));
    });
    let note = format!("{WALKS} of the paths from grey starts, over the density");
    figure.panel(at(0, 1), ("With noise: the paths", &note), square(), |panel| {
        panel.heat(64, &shades, Ramp::Amount);
        for (point, color) in (0..WALKS).zip([BLUE, GREEN]) {
            panel.line(&path(&langevin, point, 0.04), (color, 0.6));
        }
        panel.dots(&langevin[0][..WALKS], (GREY, 7.0, 1.0));
    });
    let axes = (Axis::linear(-EDGE, EDGE, "x₁"), Axis::linear(0.0, 4.5, "density of x₁"));
    let cuts: Vec<[f64; 2]> = (0..=120).map(|k| [-EDGE + 2.0 * EDGE * f64::from(k) / 120.0, 0.0]).collect();
    let mut density = Vec::new();
    for [x, _] in &cuts {
        // The density of x₁ is the integral over x₂.
        let line: Vec<[f64; 2]> = (0..=200).map(|k| [*x, -1.5 + 0.015 * f64::from(k)]).collect();
        let sum: f64 = plane::log_densities(&prior, &line, 0.0)?.into_iter().map(f64::exp).sum();
        density.push([*x, 0.015 * sum]);
    }
    let (spikes, bars) = (histogram(tops), histogram(ends));
    figure.panel(
        at(0, 2),
        ("Where the points end", "the distribution of x₁; ascent's bars go on above the panel"),
        axes,
        |panel| {
            panel.bars(&bars, (BLUE, 0.45));
            panel.bars(&spikes, (RED, 0.8));
            panel.line(&density, (BLACK, 2.0));
            let entries =
                [(Mark::Line(BLACK), "exact density"), (Mark::Bar(BLUE), "Langevin"), (Mark::Bar(RED), "ascent")];
            panel.legend([1.0, 1.0], &entries);
        },
    );
    let sets = [
        ("Without noise: the ends", tops, RED, 9.0, 1.0),
        ("With noise: the ends", ends, BLUE, 1.8, 0.5),
        ("Exact draws", &exact, GREY, 1.8, 0.5),
    ];
    for (column, (name, points, color, size, opacity)) in sets.into_iter().enumerate() {
        let [first, second] = spread(points);
        let note = format!("standard deviations {first:.3} and {second:.3}; 2,000 of the points");
        figure.panel(at(1, column), (name, &note), square(), |panel| {
            panel.heat(64, &shades, Ramp::Amount);
            panel.dots(&points[..2000], (color, size, opacity));
        });
    }
    figure.save("ascent")?;
    Ok(())
}
