//! Data on a plane in space have no score; with a little noise they do.
//!
//! `cargo run --release --example manifold [-- FILE.svg]`
//!
//! The density of data on a surface is nothing beside it and infinite on it, so that its gradient is undefined. The score of the
//! noised data is `−d/σ²` across the plane at a distance d from it, without a limit as σ falls. Score matching on the data
//! themselves has no minimum: it gains by ever steeper scores across the plane, its loss falls without end, and what the
//! network says depends on when one stops. On the same data with noise of σ = 0.1 the same objective settles at the
//! value of the exact score, `−½ E‖∇log p_σ‖²`, and the network at the exact score.
//!
//! The data with the score of the noised density around them; that score across the plane at several noise levels; the
//! losses of both runs; and what both networks say across the plane on the way.
//!
//! Song and Ermon (2019), <https://arxiv.org/abs/1907.05600>, section 3.1 and figure 1; Hyvärinen (2005),
//! <https://jmlr.org/papers/v6/hyvarinen05a.html>.

mod figure;
mod learned;
mod plane;

use candle_core::{DType, Device};
use figure::{Axis, BLACK, BLUE, Figure, GREEN, GREY, Mark, ORANGE, PURPLE, RED, SKY, View, at};
use learned::Lesson;
use tweedie::priors::Mixture;
use tweedie_operators::Rng;

const POINTS: usize = 20_000;
const SIGMA: f64 = 0.1;
/// Steps of each run, looked at after each of these.
const LOOKS: [u64; 4] = [100, 300, 600, 1200];
const COLORS: [&str; 4] = [SKY, GREEN, ORANGE, RED];
/// Two directions in the plane and the one across it, of length 1.
const FRAME: [[f64; 3]; 3] = [[1.0, 0.0, 0.0], [0.0, 0.8, 0.6], [0.0, -0.6, 0.8]];
const VIEW: View = View { turn: 0.55, height: 0.35 };

/// `a u + b v + c n`.
fn place([a, b, c]: [f64; 3]) -> [f64; 3] {
    std::array::from_fn(|k| a * FRAME[0][k] + b * FRAME[1][k] + c * FRAME[2][k])
}

/// The component of a vector along an axis of the frame.
fn along(v: [f64; 3], axis: usize) -> f64 {
    v.iter().zip(FRAME[axis]).map(|(a, b)| a * b).sum()
}

/// Two round heaps in the plane, of no thickness.
fn prior() -> tweedie::Result<Mixture> {
    let flat: [[f64; 3]; 3] = std::array::from_fn(|i| {
        std::array::from_fn(|j| 0.03 * (FRAME[0][i] * FRAME[0][j] + FRAME[1][i] * FRAME[1][j]))
    });
    plane::mixture(&[(0.5, place([-0.3, -0.15, 0.0]), flat), (0.5, place([0.3, 0.15, 0.0]), flat)])
}

/// Places across the plane through the middle of a heap, and their distance from it.
fn across() -> (Vec<f64>, Vec<[f64; 3]>) {
    let distances: Vec<f64> = (0..=80).map(|k| 0.01 * f64::from(k) - 0.4).collect();
    let places = distances.iter().map(|&d| place([0.3, 0.15, d])).collect();
    (distances, places)
}

/// (Distance, score across the plane).
fn profile(distances: &[f64], scores: Vec<[f64; 3]>) -> Vec<[f64; 2]> {
    distances.iter().zip(scores).map(|(d, score)| [*d, along(score, 2)]).collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let prior = prior()?;
    let points: Vec<[f64; 3]> = plane::draws(&prior, POINTS, 0)?;
    let noise = Rng::new(7, 0..POINTS as u64).normal((POINTS, 3, 1, 1), &Device::Cpu)?.to_dtype(DType::F64)?;
    let noisy: Vec<[f64; 3]> = plane::points(&(plane::tensor(&points)? + (noise * SIGMA)?)?)?;
    let squares = plane::scores(&prior, &noisy, SIGMA)?.into_iter().map(|score| plane::norm(score).powi(2));
    let minimum = -0.5 * squares.sum::<f64>() / POINTS as f64;

    let (distances, places) = across();
    let slope = |line: &[[f64; 2]]| {
        // Between a hundredth on either side of the plane.
        let middle = line.len() / 2;
        (line[middle + 1][1] - line[middle - 1][1]) / (line[middle + 1][0] - line[middle - 1][0])
    };
    let exact = profile(&distances, plane::scores(&prior, &places, SIGMA)?);
    let mut runs = Vec::new();
    for (name, data) in [("without noise", &points), ("with noise", &noisy)] {
        let objective = format!("name = 'explicit', sigma = {SIGMA}, mean = false");
        let steps = LOOKS[LOOKS.len() - 1];
        let lesson = Lesson { points: data.clone(), objective: &objective, spread: 0.3, steps, batch: 40 };
        let mut pupil = lesson.begin()?;
        let mut profiles = Vec::new();
        let mut before = 0;
        for look in LOOKS {
            pupil.go_on(look - before)?;
            before = look;
            profiles.push(profile(&distances, learned::scores(&pupil.model()?, &places, SIGMA)?));
        }
        runs.push((name, pupil.losses.clone(), profiles));
    }

    println!("explicit score matching on a plane in space; the exact loss with noise of sigma {SIGMA}: {minimum:.1}");
    println!("{:<16}{:>8}{:>12}{:>26}", "", "step", "loss", "slope across the plane");
    for (name, losses, profiles) in &runs {
        for (look, line) in LOOKS.iter().zip(profiles) {
            let recent: Vec<f64> =
                losses.iter().filter(|[step, _]| *step <= *look as f64).rev().take(4).map(|loss| loss[1]).collect();
            let loss = recent.iter().sum::<f64>() / recent.len() as f64;
            println!("{name:<16}{look:>8}{loss:>12.1}{:>26.1}", slope(line));
        }
    }
    println!("{:<16}{:>8}{minimum:>12.1}{:>26.1}", "exact, noise", "", slope(&exact));

    let about = format!(
        "Points on a plane in space: their density has no score. Score matching on them only gets steeper the longer it runs, and its \
         loss falls without end. With Gaussian noise of σ = {SIGMA} on the data the score exists everywhere, −d/σ² at a distance d \
         from the plane, and the same objective finds it. Song and Ermon (2019), arXiv:1907.05600."
    );
    let mut figure = Figure::new("Data on a plane have no score until there is noise", &about, 3, &[300.0, 300.0]);

    let flat = (Axis::linear(-1.15, 1.15, "").bare(), Axis::linear(-1.15, 1.15, "").bare());
    let corners = [[-0.9, -0.75, 0.0], [0.9, -0.75, 0.0], [0.9, 0.75, 0.0], [-0.9, 0.75, 0.0]];
    let corners: Vec<[f64; 2]> = corners.map(|corner| VIEW.project(place(corner))).to_vec();
    let on_paper: Vec<[f64; 2]> = points[..1500].iter().map(|point| VIEW.project(*point)).collect();
    let mut arrows = [Vec::new(), Vec::new()];
    for (side, distance) in [-0.35, 0.35].into_iter().enumerate() {
        let share = |k: usize| (k as f64 - 2.0) * 0.3;
        let places: Vec<[f64; 3]> = (0..25).map(|k| place([share(k % 5), share(k / 5), distance])).collect();
        for (from, score) in places.iter().zip(plane::scores(&prior, &places, 2.0 * SIGMA)?) {
            let to = std::array::from_fn(|k| from[k] + 0.02 * score[k]);
            arrows[side].push((VIEW.project(*from), VIEW.project(to)));
        }
    }
    let note = format!("arrows: the score with noise of σ = {}, on both sides", 2.0 * SIGMA);
    figure.panel(at(0, 0), ("The data, and a score around them", &note), flat, |panel| {
        panel.arrows(&arrows[0], GREY);
        panel.area(&corners, (SKY, 0.35));
        panel.dots(&on_paper, (BLUE, 1.8, 0.7));
        panel.arrows(&arrows[1], BLACK);
    });

    let axes = |reach: f64| {
        let label = "score across the plane";
        (Axis::linear(-0.4, 0.4, "distance d from the plane"), Axis::linear(-reach, reach, label))
    };
    figure.panel(at(0, 1), ("Exact: no limit as noise falls", "the line −d/σ²"), axes(70.0), |panel| {
        let mut entries = Vec::new();
        let sigmas =
            [(0.3, "σ = 0.3", SKY), (0.1, "σ = 0.1", BLACK), (0.03, "σ = 0.03", ORANGE), (0.01, "σ = 0.01", RED)];
        for (sigma, name, color) in sigmas {
            let line: Vec<[f64; 2]> = [-0.4, 0.4].map(|d| [d, -d / (sigma * sigma)]).to_vec();
            panel.line(&line, (color, 2.0));
            entries.push((Mark::Line(color), name));
        }
        panel.legend([1.0, 1.0], &entries);
    });
    let last = LOOKS[LOOKS.len() - 1] as f64;
    let gained = |losses: &[[f64; 2]]| -> Vec<[f64; 2]> { losses.iter().map(|[step, loss]| [*step, -loss]).collect() };
    let loss_axes = (Axis::linear(0.0, last, "step of training"), Axis::logarithmic(10.0, 1e7, "−loss"));
    let note = format!("explicit score matching; the exact score has {:.0} with noise, and no bound without", -minimum);
    figure.panel(at(0, 2), ("What training gains", &note), loss_axes, |panel| {
        panel.dashes(&[[0.0, -minimum], [last, -minimum]], (GREY, 1.5));
        panel.line(&gained(&runs[0].1), (PURPLE, 1.8));
        panel.line(&gained(&runs[1].1), (BLUE, 1.8));
        let entries = [
            (Mark::Line(PURPLE), "without noise"),
            (Mark::Line(BLUE), "with noise"),
            (Mark::Dashes(GREY), "exact score, with noise"),
        ];
        panel.legend([1.0, 0.4], &entries);
    });
    let words: Vec<String> = LOOKS.iter().map(|look| format!("after {look} steps")).collect();
    for (column, (name, _, profiles)) in runs.iter().enumerate() {
        let (note, reach) = match column {
            0 => ("steeper and steeper, with no score to come to (another scale)", 60_000.0),
            _ => ("the exact score, near the data", 70.0),
        };
        figure.panel(at(1, column), (&format!("Learned {name}"), note), axes(reach), |panel| {
            if column == 1 {
                panel.line(&exact, (BLACK, 4.0));
            }
            for (line, color) in profiles.iter().zip(COLORS) {
                panel.line(line, (color, 1.8));
            }
            let mut entries: Vec<_> =
                words.iter().zip(COLORS).map(|(words, color)| (Mark::Line(color), words.as_str())).collect();
            if column == 1 {
                entries.push((Mark::Line(BLACK), "exact, σ = 0.1"));
            }
            panel.legend([1.0, 1.0], &entries);
        });
    }
    let slope_axes = (
        Axis::logarithmic(80.0, 1500.0, "step of training"),
        Axis::logarithmic(10.0, 1e7, "−slope of the score across the plane"),
    );
    let note = "1/σ² = 100 is that of the noised data.";
    figure.panel(at(1, 2), ("The steepness of what was learned", note), slope_axes, |panel| {
        panel.dashes(&[[1.0, -slope(&exact)], [1e4, -slope(&exact)]], (GREY, 1.5));
        for ((_, _, profiles), color) in runs.iter().zip([PURPLE, BLUE]) {
            let line: Vec<[f64; 2]> =
                LOOKS.iter().zip(profiles).map(|(look, line)| [*look as f64, -slope(line)]).collect();
            panel.line(&line, (color, 1.8));
            panel.dots(&line, (color, 7.0, 1.0));
        }
        let entries = [
            (Mark::Line(PURPLE), "without noise"),
            (Mark::Line(BLUE), "with noise"),
            (Mark::Dashes(GREY), "exact, with noise"),
        ];
        panel.legend([1.0, 0.4], &entries);
    });
    figure.save("manifold")?;
    Ok(())
}
