//! Denoisers: closed forms, networks on images of any size, windows.

use crate::models::{EMBEDDED, relative_error, scattered_image, tiny_config, tiny_weights};
use candle_core::{Device, Tensor};
use tweedie::image::{DecodeOptions, Photo, Region};
use tweedie::models::Fused;
use tweedie::priors::{Denoiser, Gaussian, Parameterization, Preconditioned, Tiled, window_starts};
use tweedie_kernels::{InstructionSet, Precision};
use tweedie_operators::Rng;

fn values(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    values(a).iter().zip(values(b)).map(|(&a, b)| f64::from(a) * f64::from(b)).sum()
}

/// A denoiser of a small network with a stride of four.
fn tiny() -> Preconditioned {
    let network = tiny_config().network().unwrap();
    let weights = tiny_weights(&network);
    let lookup = |name: &str| weights.get(name).cloned();
    let fused = Fused::new(&network, InstructionSet::detect(), Precision::F32, lookup).unwrap();
    Preconditioned::new(Box::new(fused), Parameterization::Edm { sigma_data: 0.5 }, 0.002..=80.0)
}

/// `⟨v, D(x + εd) − D(x − εd)⟩ / 2ε = ⟨Jᵀv, d⟩`, up to the rounding and the curvature that ε leaves.
#[track_caller]
fn assert_pullback_is_transposed_derivative(prior: &dyn Denoiser, shape: (usize, usize, usize, usize), sigma: f64) {
    let (x, v, d) = (scattered_image(shape, 1), scattered_image(shape, 2), scattered_image(shape, 3));
    let (denoised, pullback) = prior.denoise_with_pullback(&x, sigma).unwrap();
    assert_eq!(values(&denoised), values(&prior.denoise(&x, sigma).unwrap()), "{shape:?}: a tape changes the result");
    let step = 4e-3;
    let at = |step: f64| prior.denoise(&(&x + (&d * step).unwrap()).unwrap(), sigma).unwrap();
    let expected = (dot(&v, &at(step)) - dot(&v, &at(-step))) / (2.0 * step);
    let gradient = pullback.apply(&v).unwrap();
    assert_eq!(gradient.dims(), x.dims());
    let size = (dot(&gradient, &gradient) * dot(&d, &d)).sqrt();
    let error = (dot(&gradient, &d) - expected).abs() / size;
    assert!(error < 1e-3, "{shape:?}: {} against {expected}, {error:e} of {size}", dot(&gradient, &d));
}

#[test]
fn a_gaussian_prior_denoises_and_scores_as_its_closed_form_says() {
    let (mean, std) = (0.2, 0.6);
    let prior = Gaussian::new(mean, std).unwrap();
    let x = scattered_image((2, 3, 5, 4), 7);
    for sigma in [0.01, 0.6, 30.0] {
        // Precisions add: (x/σ² + m/τ²) / (1/σ² + 1/τ²); the state has density N(m, τ² + σ²).
        let (noise, spread) = (1.0 / (sigma * sigma), 1.0 / (std * std));
        let denoised = values(&prior.denoise(&x, sigma).unwrap());
        let score = values(&prior.score(&x, sigma).unwrap());
        for ((x, denoised), score) in values(&x).into_iter().zip(denoised).zip(score) {
            let expected = (f64::from(x) * noise + mean * spread) / (noise + spread);
            assert!((f64::from(denoised) - expected).abs() < 1e-6, "{denoised} against {expected} at {sigma}");
            let expected = (mean - f64::from(x)) / (std * std + sigma * sigma);
            let rounding = 3e-7 * noise;
            assert!((f64::from(score) - expected).abs() < 1e-5 + rounding, "{score} against {expected} at {sigma}");
        }
    }
    let v = scattered_image((2, 3, 5, 4), 8);
    let gradient = prior.denoise_with_pullback(&x, 0.6).unwrap().1.apply(&v).unwrap();
    assert!(relative_error(&gradient, &(&v * 0.5).unwrap()) < 1e-6);
}

#[test]
fn a_gaussian_prior_without_a_spread_or_a_mean_is_refused() {
    let message = |mean: f64, std: f64| Gaussian::new(mean, std).unwrap_err().to_string();
    assert_eq!(message(0.0, 0.0), "std of the gaussian prior is 0, expected a finite number above 0");
    assert_eq!(message(0.0, f64::INFINITY), "std of the gaussian prior is inf, expected a finite number above 0");
    assert_eq!(message(f64::NAN, 1.0), "mean of the gaussian prior is NaN, expected a finite number");
}

#[test]
fn a_network_takes_images_of_any_size_and_its_pullback_stays_its_transposed_derivative() {
    let prior = tiny();
    for (height, width) in [(1, 1), (1, 9), (9, 1), (2, 3), (7, 5), (8, 8), (13, 6)] {
        let denoised = prior.denoise(&scattered_image((2, 3, height, width), 5), 0.5).unwrap();
        assert_eq!(denoised.dims(), [2, 3, height, width]);
        assert!(values(&denoised).iter().all(|value| value.is_finite()), "{height}x{width}");
        assert_pullback_is_transposed_derivative(&prior, (2, 3, height, width), 0.5);
    }
}

#[test]
fn the_embedded_prior_takes_a_single_pixel_and_odd_sizes() {
    for (height, width) in [(1, 1), (1, 9), (7, 5)] {
        let x = scattered_image((1, 3, height, width), 6);
        let (denoised, pullback) = EMBEDDED.denoiser().denoise_with_pullback(&x, 0.3).unwrap();
        let gradient = pullback.apply(&x).unwrap();
        assert_eq!((denoised.dims(), gradient.dims()), (x.dims(), x.dims()));
        assert!(values(&denoised).iter().chain(&values(&gradient)).all(|v| v.is_finite()), "{height}x{width}");
    }
}

#[test]
fn what_is_missing_to_the_stride_is_the_mirrored_image() {
    let prior = tiny();
    let x = scattered_image((1, 3, 7, 5), 9);
    // Rows 0 … 6 5 and columns 0 … 4 3 2 1: the edge itself is not repeated.
    let rows = Tensor::new(&[0u32, 1, 2, 3, 4, 5, 6, 5], &Device::Cpu).unwrap();
    let columns = Tensor::new(&[0u32, 1, 2, 3, 4, 3, 2, 1], &Device::Cpu).unwrap();
    let mirrored = x.index_select(&rows, 2).unwrap().index_select(&columns, 3).unwrap();
    let whole = prior.denoise(&mirrored, 0.7).unwrap();
    let expected = whole.narrow(2, 0, 7).unwrap().narrow(3, 0, 5).unwrap();
    assert_eq!(values(&prior.denoise(&x, 0.7).unwrap()), values(&expected));
}

#[test]
fn the_rows_of_a_batch_are_what_each_would_be_alone_to_the_last_bit() {
    let prior = EMBEDDED.denoiser();
    let (x, v) = (scattered_image((3, 3, 17, 24), 10), scattered_image((3, 3, 17, 24), 11));
    let (denoised, pullback) = prior.denoise_with_pullback(&x, 0.8).unwrap();
    let gradient = pullback.apply(&v).unwrap();
    for row in 0..3 {
        let part = |x: &Tensor| x.narrow(0, row, 1).unwrap();
        let (alone, transpose) = prior.denoise_with_pullback(&part(&x), 0.8).unwrap();
        assert_eq!(values(&part(&denoised)), values(&alone), "row {row}");
        assert_eq!(values(&part(&gradient)), values(&transpose.apply(&part(&v)).unwrap()), "gradient of row {row}");
    }
}

#[test]
fn one_and_two_threads_give_the_same_bits() {
    let (x, v) = (scattered_image((2, 3, 24, 40), 12), scattered_image((2, 3, 24, 40), 13));
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let (denoised, pullback) = EMBEDDED.denoiser().denoise_with_pullback(&x, 0.2).unwrap();
            (values(&denoised), values(&pullback.apply(&v).unwrap()))
        })
    };
    assert!(with(1) == with(2), "results differ between one and two threads");
}

#[test]
fn windows_are_the_fewest_that_cover_and_overlap_enough() {
    for (window, overlap) in [(64, 16), (64, 31), (16, 0), (9, 4)] {
        for size in 1..5 * window {
            let starts = window_starts(size, window, overlap);
            let case = format!("{size} in windows of {window} with {overlap}: {starts:?}");
            if size <= window {
                assert_eq!(starts, [0], "{case}");
                continue;
            }
            assert_eq!((starts[0], starts[starts.len() - 1] + window), (0, size), "{case}");
            assert!(starts.windows(2).all(|s| s[0] < s[1] && s[0] + window >= s[1] + overlap), "{case}");
            // One fewer reaches this far at most.
            assert!((starts.len() - 1) * (window - overlap) + overlap < size, "{case}: too many");
        }
    }
}

#[test]
fn one_window_that_covers_the_image_is_the_network_itself() {
    let prior = EMBEDDED.denoiser();
    let (x, v) = (scattered_image((1, 3, 21, 30), 14), scattered_image((1, 3, 21, 30), 15));
    let tiled = Tiled::new(prior, (21, 30), 64, 16).unwrap();
    assert_eq!((tiled.windows(), tiled.window()), (1, (21, 30)));
    let (expected, transpose) = prior.denoise_with_pullback(&x, 0.4).unwrap();
    let (denoised, pullback) = tiled.denoise_with_pullback(&x, 0.4).unwrap();
    assert_eq!(values(&tiled.denoise(&x, 0.4).unwrap()), values(&expected));
    assert_eq!(values(&denoised), values(&expected));
    assert_eq!(values(&pullback.apply(&v).unwrap()), values(&transpose.apply(&v).unwrap()));
}

// Independent pixels do not see where a window ends, so only weights that add up to one leave them alone.
#[test]
fn a_prior_of_independent_pixels_is_the_same_tiled_and_whole() {
    let prior = Gaussian::new(0.3, 0.5).unwrap();
    let sizes = [1, 8, 63, 64, 65, 72, 111, 112, 113, 127, 128, 129, 160, 200];
    for (index, &height) in sizes.iter().enumerate() {
        // Every height with four widths, no image square but by chance.
        for offset in [1, 4, 7, 10] {
            let width = sizes[(index + offset) % sizes.len()];
            for (window, overlap) in [(64, 16), (64, 0), (64, 31), (24, 8)] {
                let shape = (1, 1, height, width);
                let (x, v) = (scattered_image(shape, 16), scattered_image(shape, 17));
                let tiled = Tiled::new(&prior, (height, width), window, overlap).unwrap();
                let (tall, wide) = tiled.window();
                assert!(tall <= window.min(height) && wide <= window.min(width), "{height}x{width}: {tall}x{wide}");
                let (denoised, pullback) = tiled.denoise_with_pullback(&x, 0.5).unwrap();
                let error = relative_error(&denoised, &prior.denoise(&x, 0.5).unwrap());
                assert!(error < 1e-6, "{height}x{width} in {window} with {overlap} differs by {error:e}");
                let error = relative_error(&pullback.apply(&v).unwrap(), &(&v * 0.5).unwrap());
                assert!(error < 1e-6, "{height}x{width} in {window} with {overlap}: pullback differs by {error:e}");
            }
        }
    }
}

#[test]
fn the_tiled_pullback_is_the_transposed_derivative_however_many_windows_it_keeps() {
    let prior = tiny();
    let shape = (2, 3, 37, 26);
    let (x, v) = (scattered_image(shape, 18), scattered_image(shape, 19));
    let tiled = |kept: usize| Tiled::new(&prior, (37, 26), 16, 4).unwrap().keeping(kept);
    assert!(tiled(0).windows() > 4, "{}", tiled(0).windows());
    let gradient = |kept: usize| values(&tiled(kept).denoise_with_pullback(&x, 0.5).unwrap().1.apply(&v).unwrap());
    let expected = gradient(0);
    for kept in [0, 1, usize::MAX] {
        assert_pullback_is_transposed_derivative(&tiled(kept), shape, 0.5);
        assert!(gradient(kept) == expected, "{kept} windows kept");
    }
}

#[test]
fn windows_that_are_not_needed_are_left_out_and_change_nothing_where_the_others_are() {
    let prior = tiny();
    let x = scattered_image((1, 3, 40, 72), 20);
    let all = Tiled::new(&prior, (40, 72), 16, 4).unwrap();
    let needed = |y: usize, x: usize| (18..21).contains(&y) && (30..34).contains(&x) || (y, x) == (39, 71);
    let some = Tiled::new(&prior, (40, 72), 16, 4).unwrap().restricted(needed);
    assert!((2..all.windows() / 2).contains(&some.windows()), "{} of {}", some.windows(), all.windows());
    let (expected, transpose) = all.denoise_with_pullback(&x, 0.5).unwrap();
    let (denoised, pullback) = some.denoise_with_pullback(&x, 0.5).unwrap();
    let is_needed = |i: usize| needed(i / 72 % 40, i % 72);
    let (expected, denoised) = (values(&expected), values(&denoised));
    assert!((0..denoised.len()).filter(|&i| is_needed(i)).all(|i| denoised[i] == expected[i]));
    // A cotangent on what is needed comes back through the active windows alone.
    let v = scattered_image((1, 3, 40, 72), 21);
    let v = values(&v).into_iter().enumerate().map(|(i, v)| if is_needed(i) { v } else { 0.0 }).collect::<Vec<_>>();
    let v = Tensor::from_vec(v, x.dims(), &Device::Cpu).unwrap();
    assert!(relative_error(&pullback.apply(&v).unwrap(), &transpose.apply(&v).unwrap()) < 1e-6);
    let none = Tiled::new(&prior, (40, 72), 16, 4).unwrap().restricted(|_, _| false);
    assert_eq!(none.windows(), 0);
    assert!(values(&none.denoise(&x, 0.5).unwrap()).iter().all(|&v| v == 0.0));
}

#[test]
fn a_tiled_prior_refuses_another_size_and_too_much_overlap() {
    let prior = Gaussian::new(0.0, 1.0).unwrap();
    let tiled = Tiled::new(&prior, (40, 72), 16, 4).unwrap();
    let message = tiled.denoise(&scattered_image((1, 3, 72, 40), 22), 0.5).unwrap_err().to_string();
    assert_eq!(message, "image of a tiled prior is 40x72, expected 72x40");
    let message = Tiled::new(&prior, (40, 72), 16, 8).unwrap_err().to_string();
    assert_eq!(message, "overlap of windows is 8, expected less than half of the window of 16x16 pixels");
    assert!(Tiled::new(&prior, (40, 72), 0, 0).is_err());
}

#[test]
fn windows_leave_no_seams_in_a_denoised_photo() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/photos/chelsea.png");
    let photo = Photo::open(&path, &DecodeOptions::default()).unwrap();
    let size = 160;
    let clean = photo.tensor(Region { x: 120, y: 60, width: size, height: size }, &Device::Cpu).unwrap();
    let noise = Rng::new(3, 0..1).normal((1, 3, size, size), &Device::Cpu).unwrap();
    let x = (&clean + (noise * 0.4).unwrap()).unwrap();
    let prior = EMBEDDED.denoiser();
    let whole = prior.denoise(&x, 0.4).unwrap();
    let mean_step = |image: &Tensor, borders: &[usize]| -> f64 {
        let steps = |dim: usize| -> f64 {
            let at = |i: usize| image.narrow(dim, i, 1).unwrap();
            let step = |&i: &usize| (at(i) - at(i - 1)).unwrap().abs().unwrap().mean_all().unwrap();
            borders.iter().map(|i| f64::from(step(i).to_scalar::<f32>().unwrap())).sum()
        };
        (steps(2) + steps(3)) / (2 * borders.len()) as f64
    };
    // A photo's own edges lie where they like: the image denoised as a whole says how large steps are at these places.
    let ratio = |image: &Tensor, borders: &[usize]| {
        let elsewhere: Vec<usize> = (1..size).filter(|edge| !borders.contains(edge)).collect();
        let at_borders = |image: &Tensor| mean_step(image, borders) / mean_step(image, &elsewhere);
        at_borders(image) / at_borders(&whole)
    };
    // The first pixel of every window, and the first pixel beyond it.
    let starts = window_starts(size, 64, 16);
    let edges = starts.iter().flat_map(|&start| [start, start + 64]);
    let borders: Vec<usize> = edges.filter(|edge| (1..size).contains(edge)).collect();
    assert_eq!(borders, [64, 48, 112, 96]);
    let tiled = Tiled::new(prior, (size, size), 64, 16).unwrap();
    assert_eq!((tiled.windows(), tiled.window()), (9, (64, 64)));
    let seam = ratio(&tiled.denoise(&x, 0.4).unwrap(), &borders);
    assert!((0.95..1.05).contains(&seam), "steps across borders are {seam} of those in the whole image");
    // What this is to find: windows side by side, without overlap.
    let columns = |row: &Tensor| Tensor::cat(&split(row, 3).map(|part| prior.denoise(&part, 0.4).unwrap()), 3).unwrap();
    let hard = Tensor::cat(&split(&x, 2).map(|row| columns(&row)), 2).unwrap();
    let seam_of_hard = ratio(&hard, &[40, 80, 120]);
    assert!(seam_of_hard > 1.2, "{seam_of_hard}");
}

/// Four equal parts of 40 pixels, so that the borders are at 40, 80 and 120.
fn split(x: &Tensor, dim: usize) -> [Tensor; 4] {
    [0, 40, 80, 120].map(|start| x.narrow(dim, start, 40).unwrap().contiguous().unwrap())
}
