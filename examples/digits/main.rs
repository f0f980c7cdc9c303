//! What a prior of handwritten digits knows, on one page.
//!
//! ```text
//! tweedie train --config configs/train/digits.toml -o runs/digits
//! cargo run --release --example digits -- runs/digits/model.safetensors runs/digits/digits.html [SAMPLES]
//! ```
//!
//! Draws SAMPLES digits (default 1000), fills halves of held-out ones, computes the likelihood of held-out digits beside that
//! of images that are none, and looks for the nearest training digit of every sample: a prior that copies would be much
//! nearer than held-out digits are. Beside the page it writes `samples.png`, all samples on one sheet, which
//! `benches/peers/digits.py` classifies.

mod page;

use candle_core::{Device, Tensor};
use page::{Page, Sheet};
use std::error::Error;
use std::path::Path;
use tweedie::image::{DecodeOptions, Photo};
use tweedie::likelihood::{Levels, Likelihood, Trace};
use tweedie::models::{Model, ModelOptions};
use tweedie::priors::Denoiser;
use tweedie::samplers::{Problem, SAMPLERS, Step, find_sampler};
use tweedie::solvers::{SOLVERS, find_solver};
use tweedie_kernels::Precision;
use tweedie_operators::forward::Inpaint;
use tweedie_operators::noise::Gaussian;
use tweedie_operators::{Measurement, Rng};

/// Side of a digit, in pixels.
const SIDE: usize = 8;
const PIXELS: usize = SIDE * SIDE;
/// Grey levels of the digits, and the spacing of their values.
const LEVELS: usize = 17;
const SPACING: f32 = 15.0;
/// Held-out digits whose likelihood is computed.
const SCORED: usize = 100;
/// Held-out digits of which halves are filled, and fillings of each.
const FILLED: usize = 10;
const FILLINGS: usize = 4;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: digits MODEL PAGE [SAMPLES]";
    let (model, page) = (arguments.next().ok_or(usage)?, arguments.next().ok_or(usage)?);
    let samples: usize = arguments.next().map_or(Ok(1000), |text| text.parse())?;
    // The likelihood follows the network's rounding: f32.
    let model = Model::open(&model, &ModelOptions { precision: Some(Precision::F32), ..ModelOptions::default() })?;
    let prior = model.denoiser();
    let (train, held_out) = (digits("train")?, digits("held_out")?);
    let mut words = Page::new(&model.name);

    let drawn = draw(prior, samples)?;
    let sheet = Sheet::of(&drawn, 40);
    let path = Path::new(&page).with_file_name("samples.png");
    std::fs::write(&path, sheet.png()?)?;
    let shown: Vec<Vec<f32>> = drawn.iter().take(200).cloned().collect();
    words.section("Drawn from the prior", "Heun's method, 40 noise levels; the first 200.", &Sheet::of(&shown, 40))?;
    let few: Vec<Vec<f32>> = train.iter().take(200).cloned().collect();
    words.section("Digits that it was trained on", "The first 200 of 1,437.", &Sheet::of(&few, 40))?;

    words.section("Halves filled in", "Each block of rows: held-out digits, what is known of them, and four samples of the posterior by ΠGDM (upper half known in the first block, left half in the second).", &halves(prior, &held_out)?)?;

    let table = likelihoods(prior, &train, &held_out)?;
    words.table("Bits per dimension", "Mean over images ± standard error of that mean, by the probability-flow ODE, 17 levels dequantised; an image of 17 levels told without any model costs log₂ 17 = 4.087.", &table);

    let (rows, sheet) = neighbours(&drawn, &held_out, &train);
    words.section(
        "Nearest training digits",
        "Above samples, below the training digit that is nearest to each.",
        &sheet,
    )?;
    words.table("Distance to the nearest training digit", "Root mean square per pixel, range [-1, 1]: a prior that copies its training data would be far nearer than held-out digits are.", &rows);
    std::fs::write(&page, words.html())?;
    println!("{}", words.text());
    println!("{page} and {}", path.display());
    Ok(())
}

/// Digits of a sheet, values 0 to 240.
fn digits(name: &str) -> Outcome<Vec<Vec<f32>>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/digits/{name}.png"));
    let photo = Photo::open(&path, &DecodeOptions::default())?;
    let (columns, rows) = (photo.width() / SIDE, photo.height() / SIDE);
    let digit = |k: usize| {
        let (x, y) = (k % columns * SIDE, k / columns * SIDE);
        (0..PIXELS).map(|p| f32::from(photo.sample(x + p % SIDE, y + p / SIDE, 0))).collect()
    };
    Ok((0..rows * columns).map(digit).collect())
}

/// Values 0 to 240 of pixels in [-1, 1] that lie in the middle of their level.
fn values(pixels: &[f32]) -> Vec<f32> {
    let level = |x: &f32| ((x + 1.0) * 128.0 / SPACING - 0.5).round().clamp(0.0, (LEVELS - 1) as f32);
    pixels.iter().map(|x| SPACING * level(x)).collect()
}

/// The middle of the level of each value, `[N, 1, 8, 8]`.
fn pixels(digits: &[Vec<f32>]) -> candle_core::Result<Tensor> {
    let numbers: Vec<f32> = digits.iter().flatten().map(|v| (v + SPACING / 2.0) / 128.0 - 1.0).collect();
    Tensor::from_vec(numbers, (digits.len(), 1, SIDE, SIDE), &Device::Cpu)
}

fn rows(x: &Tensor) -> Outcome<Vec<Vec<f32>>> {
    Ok(x.flatten_from(1)?.to_vec2::<f32>()?.iter().map(|row| values(row)).collect())
}

fn draw(prior: &dyn Denoiser, count: usize) -> Outcome<Vec<Vec<f32>>> {
    let settings = toml::Table::from_iter([("steps".to_owned(), toml::Value::Integer(40))]);
    let solver = find_solver(SOLVERS, "heun", settings)?;
    let range = 0.02..=*prior.sigma_range().end();
    let mut drawn = Vec::with_capacity(count);
    for first in (0..count).step_by(100) {
        let batch = (count - first).min(100);
        let mut rng = Rng::new(1, first as u64..(first + batch) as u64);
        let noise = rng.normal((batch, 1, SIDE, SIDE), &Device::Cpu)?;
        let x = solver.solve(prior, noise.affine(*range.end(), 0.0)?, &range, &mut rng, &mut |_: &Step<'_>| Ok(()))?;
        drawn.extend(rows(&x)?);
    }
    Ok(drawn)
}

/// Upper halves and left halves of held-out digits, filled.
fn halves(prior: &dyn Denoiser, held_out: &[Vec<f32>]) -> Outcome<Sheet> {
    let sampler = find_sampler(SAMPLERS, "pigdm", toml::Table::new())?;
    let mut sheet = Vec::new();
    let clean = pixels(&held_out[..FILLED])?;
    for known in [|p: usize| p / SIDE < SIDE / 2, |p: usize| p % SIDE < SIDE / 2] {
        let mask: Vec<f32> = (0..PIXELS).map(|p| f32::from(u8::from(known(p)))).collect();
        let mask = Tensor::from_vec(mask, (1, 1, SIDE, SIDE), &Device::Cpu)?;
        let (operator, noise) = (Inpaint::new(&mask)?, Gaussian::new(0.02)?);
        let measurement = Measurement::simulate(&operator, &noise, &clean, &mut Rng::new(7, 0..FILLED as u64))?;
        sheet.extend(held_out[..FILLED].to_vec());
        let shown = |digit: &Vec<f32>| (0..PIXELS).map(|p| if known(p) { digit[p] } else { 120.0 }).collect();
        sheet.extend(held_out[..FILLED].iter().map(shown));
        for filling in 0..FILLINGS as u64 {
            let problem = Problem { prior, measurement: &measurement, guess: None };
            let mut rng = Rng::new(100 + filling, 0..FILLED as u64);
            let x = sampler.sample(&problem, (1, SIDE, SIDE), &mut rng, &mut |_: &Step<'_>| Ok(()))?;
            sheet.extend(rows(&x)?);
        }
    }
    Ok(Sheet::of(&sheet, FILLED))
}

/// Mean and standard error of bits per dimension of some images.
fn bits(prior: &dyn Denoiser, images: &[Vec<f32>], seed: u64) -> Outcome<String> {
    let numbers: Vec<f32> = images.iter().flatten().copied().collect();
    let x = Tensor::from_vec(numbers, (images.len(), 1, SIDE, SIDE), &Device::Cpu)?;
    let mut rng = Rng::new(seed, 0..images.len() as u64);
    let levels = Levels::new(255, LEVELS)?;
    let x = levels.dequantised(&x, &mut rng)?;
    let range = Some(0.01..=*prior.sigma_range().end());
    let likelihood = Likelihood { trace: Trace::Rademacher(4), tolerance: 1e-4, sigma_range: range };
    let densities = likelihood.log_density(prior, &x, &mut rng, &mut |_| Ok(()))?;
    let bits: Vec<f64> = densities.iter().map(|density| levels.bits_per_dimension(density.nats, PIXELS)).collect();
    let mean = bits.iter().sum::<f64>() / bits.len() as f64;
    let variance = bits.iter().map(|b| (b - mean).powi(2)).sum::<f64>() / (bits.len() - 1) as f64;
    Ok(format!("{mean:.3} ± {:.3}", (variance / bits.len() as f64).sqrt()))
}

fn likelihoods(prior: &dyn Denoiser, train: &[Vec<f32>], held_out: &[Vec<f32>]) -> Outcome<Vec<[String; 2]>> {
    let uniform = Rng::new(3, 0..SCORED as u64).uniform((SCORED, 1, 1, PIXELS), &Device::Cpu)?;
    let uniform: Vec<Vec<f32>> = uniform.reshape((SCORED, PIXELS))?.to_vec2()?;
    let noise: Vec<Vec<f32>> = uniform
        .iter()
        .map(|row| row.iter().map(|u| SPACING * (u * LEVELS as f32).floor().min(16.0)).collect())
        .collect();
    // The same pixels in an order that the noise decides.
    let shuffled = |(digit, keys): (&Vec<f32>, &Vec<f32>)| {
        let mut order: Vec<usize> = (0..PIXELS).collect();
        order.sort_by(|&a, &b| keys[a].total_cmp(&keys[b]));
        order.into_iter().map(|p| digit[p]).collect::<Vec<f32>>()
    };
    let shuffled: Vec<Vec<f32>> = held_out.iter().zip(&uniform).map(shuffled).collect();
    let upside_down: Vec<Vec<f32>> =
        held_out[..SCORED].iter().map(|digit| digit.iter().rev().copied().collect()).collect();
    let sets: [(&str, &[Vec<f32>]); 5] = [
        ("training digits", &train[..SCORED]),
        ("held-out digits", &held_out[..SCORED]),
        ("held-out digits, turned upside down", &upside_down),
        ("held-out digits, pixels shuffled", &shuffled),
        ("uniform noise", &noise),
    ];
    sets.into_iter().map(|(name, images)| Ok([name.to_owned(), bits(prior, images, 5)?])).collect()
}

/// Index of the nearest digit of `among`, and the distance in pixels of [-1, 1].
fn nearest(digit: &[f32], among: &[Vec<f32>]) -> (usize, f32) {
    let square = |other: &Vec<f32>| digit.iter().zip(other).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
    let all = among.iter().map(square).enumerate();
    let (index, sum) = all.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((0, f32::NAN));
    (index, (sum / PIXELS as f32).sqrt() / 128.0)
}

fn neighbours(drawn: &[Vec<f32>], held_out: &[Vec<f32>], train: &[Vec<f32>]) -> (Vec<[String; 2]>, Sheet) {
    let summary = |digits: &[Vec<f32>]| {
        let mut distances: Vec<f32> = digits.iter().map(|digit| nearest(digit, train).1).collect();
        distances.sort_by(f32::total_cmp);
        let at = |share: f64| distances[((distances.len() - 1) as f64 * share) as usize];
        format!("least {:.3}, 5 % {:.3}, median {:.3}, 95 % {:.3}", at(0.0), at(0.05), at(0.5), at(0.95))
    };
    let rows = vec![["samples".to_owned(), summary(drawn)], ["held-out digits".to_owned(), summary(held_out)]];
    let count = drawn.len().min(30);
    let mut sheet = drawn[..count].to_vec();
    sheet.extend(drawn[..count].iter().map(|digit| train[nearest(digit, train).0].clone()));
    (rows, Sheet::of(&sheet, count))
}
