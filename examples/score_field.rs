//! The score of a mixture of two modes as arrows: exact, and as a network has learned it from points.
//!
//! `cargo run --release --example score_field [-- FILE.svg]`
//!
//! The score of a noised density, `∇ log p_σ(x)`, points to where points of the data are that could have become x, and its
//! length is how far x is from their mean, in units of σ². With little noise there is a ridge between the modes where the
//! field turns over; with more, one arrow field leads to the heavier mode. One network has learned all noise levels from
//! noised points alone, never from a score. Under the arrows: the density of the noised points.
//!
//! Song and Ermon (2019), <https://arxiv.org/abs/1907.05600>, figure 2; the objective is that of Vincent (2011),
//! <https://doi.org/10.1162/NECO_a_00142>, with the noise levels of Karras et al. (2022), <https://arxiv.org/abs/2206.00364>.

mod figure;
mod learned;
mod plane;

use candle_core::{DType, Device};
use figure::{Axis, BLACK, Figure, RED, Ramp, at, cells};
use learned::{Lesson, relative_error};
use tweedie_operators::Rng;

const SIGMAS: [f64; 2] = [0.1, 0.4];
const EDGE: f64 = 1.0;
/// Arrows along a side.
const ARROWS: usize = 17;
/// Points that the error is averaged over.
const PROBES: u64 = 4000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let prior = plane::two_modes()?;
    let lesson = Lesson {
        points: plane::draws::<2>(&prior, 20_000, 0)?,
        objective: "name = 'edm', noise = { mean = -1.5, std = 1.0 }, weight = { sigma_data = 0.4 }",
        spread: 0.4,
        steps: 2000,
        batch: 256,
    };
    let model = lesson.learn()?;

    let about = "The score ∇ log p_σ of a mixture of two modes with weights 0.2 and 0.8, at two noise levels. Left: the formula. \
                 Middle: a network that has only ever seen noised points. Right: how far they are apart, over the length of the \
                 exact score; the line encloses 99 % of the noised points. An arrow's length is the score's, in one scale a row.";
    let mut figure = Figure::new("The score field, exact and learned", about, 3, &[300.0, 300.0]);
    println!("relative error of the learned score over the noised points:");
    for (row, sigma) in SIGMAS.into_iter().enumerate() {
        let noise = Rng::new(9, 0..PROBES).normal((PROBES as usize, 2, 1, 1), &Device::Cpu)?.to_dtype(DType::F64)?;
        let noisy = (prior.sample(&mut Rng::new(8, 0..PROBES))? + (noise * sigma)?)?;
        let noisy: Vec<[f64; 2]> = plane::points(&noisy)?;
        let error = relative_error(&learned::scores(&model, &noisy, sigma)?, &plane::scores(&prior, &noisy, sigma)?);
        println!("  sigma {sigma:<5} {error:.3}");

        let axes = (Axis::linear(-EDGE, EDGE, "x₁"), Axis::linear(-EDGE, EDGE, "x₂"));
        let places = cells(&axes, ARROWS);
        let exact = plane::scores(&prior, &places, sigma)?;
        let found = learned::scores(&model, &places, sigma)?;
        let longest = exact.iter().map(|score| plane::norm(*score)).fold(0.0, f64::max);
        let scale = 2.4 * EDGE / ARROWS as f64 / longest;
        let shades = plane::shades(&prior, &cells(&axes, 64), sigma)?;
        let sets = [("exact", &exact, BLACK), ("learned", &found, RED)];
        for (column, (name, scores, color)) in sets.into_iter().enumerate() {
            let arrow = |(place, score): (&[f64; 2], &[f64; 2])| {
                // Its middle is where it belongs.
                let half = [0, 1].map(|k| 0.5 * scale * score[k]);
                (plane::difference(*place, half), [place[0] + half[0], place[1] + half[1]])
            };
            let arrows: Vec<_> = places.iter().zip(scores).map(arrow).collect();
            let note = match column {
                0 => "the formula, over the density of the noised points".to_owned(),
                _ => format!("the network: {:.1} % off over the noised points", 100.0 * error),
            };
            figure.panel(at(row, column), (&format!("σ = {sigma}, {name}"), &note), axes.clone(), |panel| {
                panel.heat(64, &shades, Ramp::Amount);
                panel.arrows(&arrows, color);
            });
        }
        let fine = cells(&axes, 72);
        let exact = plane::scores(&prior, &fine, sigma)?;
        let found = learned::scores(&model, &fine, sigma)?;
        let errors = learned::shades(&found, &exact);
        let densities = plane::log_densities(&prior, &fine, sigma)?;
        let level = plane::quantile(&prior, 0.01, sigma)?;
        let note = "small where points are, or were in training";
        figure.panel(at(row, 2), (&format!("σ = {sigma}, error"), note), axes, |panel| {
            panel.heat(72, &errors, Ramp::Error);
            panel.contour(72, &densities, level, (BLACK, 1.6));
            panel.scale(Ramp::Error, ["1 %", "10 %", "100 %"]);
        });
    }
    figure.save("score_field")?;
    Ok(())
}
