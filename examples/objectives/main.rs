//! Every objective of score matching learns the same density of points, and every reading of a network does.
//!
//! Prints the error of the learned score relative to the exact one, weighted by the density, and draws both as arrows.
//! Optimised it takes a few seconds an objective:
//!
//! ```text
//! cargo run --release --example objectives -- objectives.svg
//! ```
//!
//! A second argument chooses the studies whose names contain it. The networks are small: `RAYON_NUM_THREADS=1` is the faster
//! where other programs run.

mod study;

use candle_core::{Device, Tensor};
use std::fmt::Write;
use study::{Learned, MODES, SPREAD, STUDIES, Study, exact};

/// Points of a step.
const BATCH: usize = 256;
/// Side of a panel in units of the picture, arrows along it, and the part of the plane that it shows.
const PANEL: f64 = 220.0;
const ARROWS: usize = 15;
const EXTENT: f64 = 1.6;
/// Panels in a row.
const COLUMNS: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_else(|| "objectives.svg".into());
    let only = arguments.next().unwrap_or_default();
    println!("{:<26} {:>8}  relative error of the score at noise level", "objective", "seconds");
    let mut panels = String::new();
    let mut worst: f64 = 0.0;
    for (index, study) in STUDIES.iter().filter(|study| study.name.contains(&only)).enumerate() {
        let folder = tempfile::tempdir()?;
        let learned = study.train(study.steps, BATCH, folder.path())?;
        let errors = study.errors(&learned)?;
        let each: Vec<String> = errors.iter().map(|(sigma, error)| format!("{sigma}: {error:.3}")).collect();
        println!("{:<26} {:>8.1}  {}", study.name, learned.seconds, each.join("  "));
        worst = errors.iter().map(|(_, error)| *error).fold(worst, f64::max);
        let sigma = errors[0].0;
        let title = format!("{}: {:.3}", study.name, errors[0].1);
        panels += &panel(index, &title, study, &learned, sigma)?;
    }
    println!("largest {worst:.3}");
    let rows = STUDIES.len().div_ceil(COLUMNS);
    let (width, height) = (COLUMNS as f64 * PANEL, rows as f64 * (PANEL + 20.0) + 40.0);
    let svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>
<text x="10" y="24" font-size="15">Scores of three modes: exact (grey) and learned (red), where the density is; the number is the relative error at the smallest noise level shown</text>
{panels}</svg>
"##
    );
    std::fs::write(&path, svg)?;
    println!("{path}");
    Ok(())
}

/// The learned field over the exact one, at noise level `sigma`.
fn panel(index: usize, title: &str, study: &Study, learned: &Learned, sigma: f64) -> tweedie::Result<String> {
    let (left, top) = ((index % COLUMNS) as f64 * PANEL, 40.0 + (index / COLUMNS) as f64 * (PANEL + 20.0));
    let place = |k: usize| EXTENT * (2.0 * (k as f64 + 0.5) / ARROWS as f64 - 1.0);
    let grid: Vec<[f64; 2]> = (0..ARROWS * ARROWS).map(|k| [place(k % ARROWS), place(k / ARROWS)]).collect();
    // Where next to no points lie nothing is learned and nothing is weighed.
    let grid: Vec<[f64; 2]> = grid.into_iter().filter(|&x| near(x, sigma)).collect();
    let numbers: Vec<f32> = grid.iter().flatten().map(|&x| x as f32).collect();
    let x = Tensor::from_vec(numbers, (grid.len(), 2, 1, 1), &Device::Cpu)?;
    let mut text = format!("<text x=\"{}\" y=\"{}\">{title}</text>\n", left + 8.0, top + 14.0);
    let screen =
        |[a, b]: [f64; 2]| [left + PANEL * (0.5 + 0.48 * a / EXTENT), top + 20.0 + PANEL * (0.5 - 0.48 * b / EXTENT)];
    for (_, mean) in MODES {
        let ([x, y], radius) = (screen(mean), PANEL * 0.48 / EXTENT * SPREAD);
        let _ = writeln!(text, r##"<circle cx="{x:.1}" cy="{y:.1}" r="{radius:.1}" fill="#dde8f4"/>"##);
    }
    for (&at, learned) in grid.iter().zip(study.scores(learned, &x, sigma)?) {
        for (score, colour, width) in [(exact(at, sigma), "#999", 2.6), (learned, "#c22", 1.0)] {
            let tip = [at[0] + 0.02 * score[0], at[1] + 0.02 * score[1]];
            let ([x1, y1], [x2, y2]) = (screen(at), screen(tip));
            let _ = writeln!(
                text,
                r#"<path d="M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}" stroke="{colour}" stroke-width="{width}"/>"#
            );
        }
        let [x, y] = screen(at);
        let _ = writeln!(text, r##"<circle cx="{x:.1}" cy="{y:.1}" r="1.3" fill="#555"/>"##);
    }
    Ok(text)
}

/// Whether a point is within three standard deviations of a mode.
fn near(x: [f64; 2], sigma: f64) -> bool {
    let reach = 9.0 * (SPREAD * SPREAD + sigma * sigma);
    MODES.iter().any(|(_, mean)| (x[0] - mean[0]).powi(2) + (x[1] - mean[1]).powi(2) < reach)
}
