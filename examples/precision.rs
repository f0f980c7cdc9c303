//! What `bf16` changes beside `f32`: errors of the denoiser and its pullback for every noise level, PSNR of restorations.
//!
//! `cargo run --release --example precision -- FOLDER [SIDE]`
//!
//! FOLDER holds `NAME.png` for three photos; a central crop of SIDE pixels (256 unless told) is taken. Restorations: 70 %
//! of the pixels missing, four times less resolution, no colour; the same sampler, seed and measurement in both precisions.

use candle_core::{DType, Device, Tensor};
use std::error::Error;
use std::path::Path;
use tweedie::image::{DecodeOptions, Photo};
use tweedie::models::{Model, ModelOptions};
use tweedie::samplers::{Problem, SAMPLERS, Step, find_sampler};
use tweedie_kernels::Precision;
use tweedie_operators::forward::OPERATORS;
use tweedie_operators::noise::Gaussian;
use tweedie_operators::{Measurement, Rng, Site, find};

const PHOTOS: [&str; 3] = ["astronaut", "chelsea", "rocket"];
const SIGMAS: [f64; 8] = [0.01, 0.05, 0.1, 0.3, 1.0, 3.0, 10.0, 50.0];
/// Name, operator, its settings, standard deviation of the noise.
const TASKS: [(&str, &str, &str, f64); 4] = [
    ("inpaint 70 %", "inpaint_random", "missing = 0.7", 0.0),
    ("upscale ×4", "downsample_box", "factor = 4", 0.0),
    ("deblur", "blur", "kernel = { shape = 'gaussian', sigma = 2.0 }", 0.0157),
    ("colourise", "grayscale", "", 0.0),
];
const SETTINGS: &str = "iterations = 2\nridge = 0.1\nannealing = { steps = 10, sigma_start = 1.0, sigma_end = 0.05 }";

/// A central crop in `[-1, 1]`: `[1, 3, side, side]`.
fn crop(folder: &Path, name: &str, side: usize) -> Result<Tensor, Box<dyn Error>> {
    let photo = Photo::open(&folder.join(format!("{name}.png")), &DecodeOptions::default())?;
    let (left, top) = ((photo.width() - side) / 2, (photo.height() - side) / 2);
    let value = |i: usize| photo.sample(left + i % side, top + i / side % side, i / side / side) as f32 / 127.5 - 1.0;
    Ok(Tensor::from_vec((0..3 * side * side).map(value).collect::<Vec<f32>>(), (1, 3, side, side), &Device::Cpu)?)
}

fn mean_square(x: &Tensor) -> Result<f64, Box<dyn Error>> {
    Ok(x.to_dtype(DType::F64)?.sqr()?.mean_all()?.to_scalar()?)
}

/// `|a − b| / |b|`.
fn relative(a: &Tensor, b: &Tensor) -> Result<f64, Box<dyn Error>> {
    Ok((mean_square(&(a - b)?)? / mean_square(b)?).sqrt())
}

fn psnr(x: &Tensor, truth: &Tensor) -> Result<f64, Box<dyn Error>> {
    Ok(10.0 * (4.0 / mean_square(&(x.clamp(-1.0, 1.0)? - truth)?)?).log10())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (folder, side) = match arguments.as_slice() {
        [folder] => (Path::new(folder), 256),
        [folder, side] => (Path::new(folder), side.parse()?),
        _ => return Err("expected the folder of the photos and at most a side".into()),
    };
    let open = |precision| Model::embedded(&ModelOptions { precision: Some(precision), ..ModelOptions::default() });
    let models = [open(Precision::F32)?, open(Precision::Bf16)?];
    let photos: Result<Vec<Tensor>, _> = PHOTOS.iter().map(|name| crop(folder, name, side)).collect();
    let truth = Tensor::cat(&photos?, 0)?;
    let mut rng = Rng::new(0, 0..3);
    println!("Relative L2 error of bf16 beside f32\n\n| σ | denoised | pullback |\n| --- | --- | --- |");
    for sigma in SIGMAS {
        let noisy = (&truth + (rng.normal_like(&truth)? * sigma)?)?;
        let v = rng.normal_like(&truth)?;
        let mut results = Vec::new();
        for model in &models {
            let (denoised, pullback) = model.denoiser().denoise_with_pullback(&noisy, sigma)?;
            results.push((denoised, pullback.apply(&v)?));
        }
        let errors = (relative(&results[1].0, &results[0].0)?, relative(&results[1].1, &results[0].1)?);
        println!("| {sigma} | {:.1e} | {:.1e} |", errors.0, errors.1);
    }
    println!("\nPSNR in dB\n\n| task | photo | f32 | bf16 | difference |\n| --- | --- | --- | --- | --- |");
    for (task, operator, settings, sigma) in TASKS {
        let site = Site::new((3, side, side), &Device::Cpu, DType::F32);
        let operator = find(OPERATORS, operator)?.create(toml::from_str(settings)?, site)?;
        let noise = Gaussian::new(sigma)?;
        let measurement = Measurement::simulate(operator.as_ref(), &noise, &truth, &mut Rng::new(1, 0..3))?;
        let sampler = find_sampler(SAMPLERS, "tmpd", toml::from_str(SETTINGS)?)?;
        let mut restored = Vec::new();
        for model in &models {
            let problem = Problem { prior: model.denoiser(), measurement: &measurement, guess: None };
            let observer = &mut |_: &Step<'_>| Ok(());
            restored.push(sampler.sample(&problem, (3, side, side), &mut Rng::new(2, 0..3), observer)?);
        }
        for (row, photo) in PHOTOS.iter().enumerate() {
            let of = |x: &Tensor| psnr(&x.narrow(0, row, 1)?, &truth.narrow(0, row, 1)?);
            let (f32, bf16) = (of(&restored[0])?, of(&restored[1])?);
            println!("| {task} | {photo} | {f32:.2} | {bf16:.2} | {:+.3} |", bf16 - f32);
        }
    }
    Ok(())
}
