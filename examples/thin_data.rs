//! Score matching without noise fails where there are no data; noise of many sizes repairs it.
//!
//! `cargo run --release --example thin_data [-- FILE.svg]`
//!
//! Explicit score matching minimises `E_p ‖s − ∇log p‖²`: what the network says where p is next to nothing costs nothing. Between
//! and around the modes of this mixture its score is a guess, and a sampler that starts there goes wrong. Noised data are
//! everywhere once the noise is as large as the gaps, so the score of the noised density is learned there; a network that
//! learns all noise levels has, for every place, a level at which it knows the way.
//!
//! The data and the error of both networks over the plane, the score along the diagonal through the modes over a histogram
//! of the data, and the error at every noise level, over the points and over the whole square.
//!
//! Hyvärinen (2005), <https://jmlr.org/papers/v6/hyvarinen05a.html>; Song and Ermon (2019),
//! <https://arxiv.org/abs/1907.05600>, sections 3.2.1 and 4.2 and figure 2.

mod figure;
mod learned;
mod plane;

use candle_core::{DType, Device};
use figure::{Axis, BLACK, BLUE, Figure, GREEN, GREY, Mark, Place, RED, Ramp, at, cells};
use learned::{Lesson, relative_error};
use tweedie::models::Model;
use tweedie::priors::Mixture;
use tweedie::schedules::{Geometric, Schedule};
use tweedie_operators::Rng;

const POINTS: usize = 10_000;
const EDGE: f64 = 0.95;
const LEVELS: usize = 7;
const SIGMAS: std::ops::RangeInclusive<f64> = 0.05..=1.6;
/// How the network without noise is read: `s = (D(x; σ) − x)/σ²` at the size of a mode.
const NOMINAL: f64 = 0.1;
/// Cells along a side of the maps.
const FINE: usize = 72;
const BINS: usize = 40;

/// A network at a noise level, beside the exact score of that level.
struct Judged {
    /// Of the points; 0 for none.
    sigma: f64,
    /// Shades of the error at the cells.
    shades: Vec<f64>,
    densities: Vec<f64>,
    /// The density below which 1 % of the points lie.
    level: f64,
    /// Relative errors over the points, over the square.
    errors: [f64; 2],
    /// Share of the square within that density.
    covered: f64,
    /// (Place on the diagonal, score along it), exact and learned.
    profiles: [Vec<[f64; 2]>; 2],
    /// Density of the points by their place along the diagonal, with the largest as 1.
    histogram: Vec<(f64, f64, f64)>,
}

fn axes() -> (Axis, Axis) {
    (Axis::linear(-EDGE, EDGE, "x₁"), Axis::linear(-EDGE, EDGE, "x₂"))
}

/// `read` is the noise level that the network is told.
fn judge(prior: &Mixture, model: &Model, sigma: f64, read: f64) -> Result<Judged, Box<dyn std::error::Error>> {
    let noise = Rng::new(9, 0..4000).normal((4000, 2, 1, 1), &Device::Cpu)?.to_dtype(DType::F64)?;
    let noisy = (prior.sample(&mut Rng::new(8, 0..4000))? + (noise * sigma)?)?;
    let noisy: Vec<[f64; 2]> = plane::points(&noisy)?;
    // A density without noise has a score, but no denoiser.
    let true_sigma = sigma.max(1e-3);
    let error = |places: &[[f64; 2]]| -> tweedie::Result<f64> {
        let found = learned::scores(model, places, read)?;
        Ok(relative_error(&found, &plane::scores(prior, places, true_sigma)?))
    };
    let fine = cells(&axes(), FINE);
    let densities = plane::log_densities(prior, &fine, sigma)?;
    let level = plane::quantile(prior, 0.01, sigma)?;
    let covered = densities.iter().filter(|density| **density > level).count() as f64 / densities.len() as f64;
    let diagonal: Vec<[f64; 2]> = (0..=190).map(|k| -EDGE + f64::from(k) * EDGE / 95.0).map(|t| [t, t]).collect();
    let along = |scores: Vec<[f64; 2]>| -> Vec<[f64; 2]> {
        diagonal.iter().zip(scores).map(|(place, [a, b])| [place[0], (a + b) / 2f64.sqrt()]).collect()
    };
    let profiles =
        [along(plane::scores(prior, &diagonal, true_sigma)?), along(learned::scores(model, &diagonal, read)?)];
    let mut counts = vec![0.0; BINS];
    for [a, b] in &noisy {
        let bin = (0.5 * (a + b) + EDGE) / (2.0 * EDGE) * BINS as f64;
        if (0.0..BINS as f64).contains(&bin) {
            counts[bin as usize] += 1.0;
        }
    }
    let most = counts.iter().copied().fold(0.0, f64::max);
    let place = |k: usize| -EDGE + 2.0 * EDGE * k as f64 / BINS as f64;
    let histogram = counts.iter().enumerate().map(|(k, count)| (place(k), place(k + 1), count / most)).collect();
    let shades = learned::shades(&learned::scores(model, &fine, read)?, &plane::scores(prior, &fine, true_sigma)?);
    let errors = [error(&noisy)?, error(&fine)?];
    Ok(Judged { sigma, shades, densities, level, errors, covered, profiles, histogram })
}

fn map(figure: &mut Figure, place: Place, title: &str, judged: &Judged) {
    let [near, everywhere] = judged.errors.map(|error| 100.0 * error);
    let note = format!("{near:.0} % off over the points, {everywhere:.0} % over the square; line: 99 % of the points");
    figure.panel(place, (title, &note), axes(), |panel| {
        panel.heat(FINE, &judged.shades, Ramp::Error);
        panel.contour(FINE, &judged.densities, judged.level, (BLACK, 1.8));
        panel.scale(Ramp::Error, ["1 %", "10 %", "100 %"]);
    });
}

fn profile(figure: &mut Figure, place: Place, title: &str, judged: &Judged, reach: f64) {
    let axes =
        (Axis::linear(-EDGE, EDGE, "place on the diagonal, x₁ = x₂"), Axis::linear(-reach, reach, "score along it"));
    let note = "grey: how many points there are at each place";
    figure.panel(place, (title, note), axes, |panel| {
        let bars: Vec<_> =
            judged.histogram.iter().map(|&(from, to, share)| (from, to, reach * (0.9 * share - 1.0))).collect();
        panel.bars(&bars, ("#999999", 0.45));
        panel.line(&[[-EDGE, 0.0], [EDGE, 0.0]], ("#bbbbbb", 1.0));
        panel.line(&judged.profiles[0], (BLACK, 2.2));
        panel.line(&judged.profiles[1], (RED, 1.8));
        panel.legend([1.0, 1.0], &[(Mark::Line(BLACK), "exact"), (Mark::Line(RED), "learned")]);
    });
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let prior = plane::two_modes()?;
    let points: Vec<[f64; 2]> = plane::draws(&prior, POINTS, 0)?;
    let (low, high) = (SIGMAS.start(), SIGMAS.end());
    let objective = format!("name = 'annealed', noise = {{ sigma_min = {low}, sigma_max = {high}, count = {LEVELS} }}");
    let lesson = |objective, steps, batch| Lesson { points: points.clone(), objective, spread: 0.4, steps, batch };
    // An example of explicit score matching takes five evaluations.
    let naive = lesson("name = 'explicit', sigma = 0.1", 1200, 64).learn()?;
    let model = lesson(&objective, 2000, 192).learn()?;

    let without = judge(&prior, &naive, 0.0, NOMINAL)?;
    let sigmas = Geometric { steps: LEVELS }.sigmas(&SIGMAS);
    let with: Vec<Judged> =
        sigmas.iter().rev().skip(1).map(|&sigma| judge(&prior, &model, sigma, sigma)).collect::<Result<_, _>>()?;
    println!("relative error of the learned score, and the share of the square in which 99 % of the points lie:");
    println!("{:<12}{:>14}{:>16}{:>10}", "", "over points", "over the square", "share");
    for judged in std::iter::once(&without).chain(&with) {
        let name = if judged.sigma == 0.0 { "no noise".into() } else { format!("sigma {:.2}", judged.sigma) };
        println!("{name:<12}{:>14.3}{:>16.3}{:>10.2}", judged.errors[0], judged.errors[1], judged.covered);
    }

    let about = "A network that learns the score of the data alone (explicit score matching) is right where data are and wrong \
                 everywhere else, since nothing there counts. Noise of many sizes (annealed denoising score matching, one network for \
                 all of them) puts points everywhere: each noise level is learned where its points are, and the largest \
                 covers the plane. Red: the error is as large as the score. Song and Ermon (2019), arXiv:1907.05600.";
    let mut figure = Figure::new("No data, no score; noise repairs it", about, 3, &[300.0, 300.0, 250.0]);
    let note = format!("2,000 of {POINTS} points: a fifth of them below, four fifths above, none between");
    figure.panel(at(0, 0), ("The data", &note), axes(), |panel| panel.dots(&points[..2000], (BLUE, 1.8, 0.6)));
    map(&mut figure, at(0, 1), "No noise: error of the score", &without);
    profile(&mut figure, at(0, 2), "No noise: the score on the diagonal", &without, 60.0);
    let shown = [0, 3, LEVELS - 1];
    for (column, index) in shown.into_iter().enumerate() {
        let judged = &with[index];
        map(&mut figure, at(1, column), &format!("Many noise levels: error at σ = {:.2}", judged.sigma), judged);
    }
    let names: Vec<String> =
        std::iter::once("none".to_owned()).chain(with.iter().map(|judged| format!("{:.2}", judged.sigma))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let axes = (Axis::named(&names, "noise level σ"), Axis::logarithmic(0.004, 4.0, "relative error of the score"));
    let note =
        "Over the points of its level the score is known; over the whole square only where these are everywhere.";
    figure.panel(Place { row: 2, column: 0, span: 2 }, ("Error by noise level", note), axes, |panel| {
        let all: Vec<&Judged> = std::iter::once(&without).chain(&with).collect();
        for (which, color) in [(1, RED), (0, GREEN)] {
            let line: Vec<[f64; 2]> =
                all.iter().enumerate().map(|(k, judged)| [k as f64 + 0.5, judged.errors[which]]).collect();
            panel.line(&line[1..], (color, 1.5));
            panel.dots(&line, (color, 9.0, 1.0));
        }
        for (k, judged) in all.iter().enumerate() {
            panel.label([k as f64 + 0.5, 0.0053], &format!("{:.0} %", 100.0 * judged.covered), GREY);
        }
        let entries = [
            (Mark::Dot(RED), "over the whole square"),
            (Mark::Dot(GREEN), "over the points of the level"),
            (Mark::Bar("none"), "grey: share of the square with 99 % of the points"),
        ];
        panel.legend([1.0, 1.0], &entries);
    });
    let judged = &with[3];
    profile(&mut figure, at(2, 2), &format!("σ = {:.2}: the score on the diagonal", judged.sigma), judged, 12.0);
    figure.save("thin_data")?;
    Ok(())
}
