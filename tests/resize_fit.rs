//! `--resize fit`: photos of any size at the one that a model knows.

use crate::harness::{Folder, Kind, photo};
use crate::models::data;
use candle_core::{Device, Tensor};
use std::collections::HashMap;
use std::fs;

/// A prior of images of 8 × 12 that are all but equal to one: in the second colour a ramp from the left to the right.
fn ramp(folder: &Folder) -> &'static str {
    let level = |c: usize, x: usize| [0.5, -0.8 + 1.6 * (x as f32 + 0.5) / 12.0, -0.5][c];
    let values: Vec<f32> = (0..3 * 8 * 12).map(|i| level(i / 96, i % 12)).collect();
    let tensors = HashMap::from([
        ("weights", Tensor::new(&[1.0_f32], &Device::Cpu).unwrap()),
        ("variances", Tensor::new(&[1e-8_f32], &Device::Cpu).unwrap()),
        ("means", Tensor::from_vec(values, (1, 3, 8, 12), &Device::Cpu).unwrap()),
    ]);
    candle_core::safetensors::save(&tensors, folder.path("ramp.safetensors")).unwrap();
    "mixture:ramp.safetensors"
}

// 48 × 32 pixels are 12 × 8 of the prior's four times over. Cubic convolution reaches over two of them: further than that from what
// is known the holes hold the prior's ramp, as large as the photo is.
#[test]
fn holes_are_filled_with_what_the_prior_makes_of_the_whole_photo() {
    let folder = Folder::with_photo(48, 32);
    let model = ramp(&folder);
    let hole = |x: u32, y: u32| (4..44).contains(&x) && (4..28).contains(&y);
    let mask = image::GrayImage::from_fn(48, 32, |x, y| image::Luma([if hole(x, y) { 255 } else { 0 }]));
    mask.save(folder.path("hole.png")).unwrap();
    folder.succeed(&format!("inpaint photo.png -m hole.png --resize fit --model {model} -o out.png"));
    let (before, after) = (folder.open("photo.png").to_rgb8(), folder.open("out.png").to_rgb8());
    for (x, y, pixel) in after.enumerate_pixels() {
        if !hole(x, y) {
            assert_eq!(*pixel, before[(x, y)], "({x}, {y}) is known");
        }
        if !(14..34).contains(&x) || !(14..18).contains(&y) {
            continue;
        }
        let ramp = -0.8 + 1.6 * (f64::from(x) + 0.5) / 48.0;
        for (value, expected) in pixel.0.into_iter().zip([0.5, ramp, -0.5]) {
            let expected = (expected + 1.0) * 127.5;
            assert!((f64::from(value) - expected).abs() <= 1.0, "({x}, {y}): {value}, expected {expected}");
        }
    }
}

// 48 × 16 pixels lie in the middle of 12 × 4 of the prior's 8 rows.
#[test]
fn a_photo_of_another_shape_lies_in_the_middle_of_what_the_prior_knows() {
    let folder = Folder::with_photo(48, 16);
    let model = ramp(&folder);
    let ran = folder
        .succeed(&format!("denoise photo.png --noise 60 --steps 3 --resize fit --model {model} --json -o out.png"));
    let expected = "the picture of 48x16 pixels is restored as one of 12x4 within the 12x8 that the model was trained on, and \
                    brought back: nothing that it makes is finer than 4.0 pixels";
    assert_eq!(ran.event("start")["warnings"], serde_json::json!([expected]));
    for (x, y, pixel) in folder.open("out.png").to_rgb8().enumerate_pixels().filter(|(x, ..)| (6..42).contains(x)) {
        let expected = (-0.8 + 1.6 * (f64::from(x) + 0.5) / 48.0 + 1.0) * 127.5;
        assert!((f64::from(pixel[1]) - expected).abs() <= 1.5, "({x}, {y}): {}, expected {expected}", pixel[1]);
    }
}

/// A network of diffusers for images of 16 × 16, with random weights, and a photo of 60 × 40.
fn with_network() -> Folder {
    let folder = Folder::with_photo(60, 40);
    fs::create_dir(folder.path("model")).unwrap();
    for file in ["config.json", "diffusion_pytorch_model.safetensors", "scheduler_config.json"] {
        fs::copy(data("diffusers/ddpm-google").join(file), folder.path("model").join(file)).unwrap();
    }
    folder
}

#[test]
fn every_command_fits_the_photo_and_says_so() {
    let folder = with_network();
    photo(60, 40, Kind::Grey16).save(folder.path("grey.png")).unwrap();
    folder.write(
        "blur.toml",
        "[operator]\nname = \"blur\"\nkernel = { shape = \"gaussian\", sigma = 1.5 }\n[noise]\nname = \"gaussian\"\nsigma = 0.02\n",
    );
    folder.succeed("degrade photo.png --operator blur.toml --save-measurement y.safetensors -o blurred.png");
    for (command, size) in [
        ("inpaint photo.png -m mask.png", (60, 40)),
        ("inpaint grey.png -m mask.png --samples 2 --mean --std", (60, 40)),
        ("colorize grey.png", (60, 40)),
        ("upscale photo.png --scale 2", (120, 80)),
        ("deblur photo.png --kernel gaussian:2 --noise 2", (60, 40)),
        ("denoise photo.png --noise 20", (60, 40)),
        ("restore blurred.png --operator blur.toml", (60, 40)),
        ("restore y.safetensors", (60, 40)),
    ] {
        let name = command.replace(['/', ' '], "_");
        let ran = folder.succeed(&format!("{command} --resize fit --model model --steps 2 --json -o {name}.png"));
        let start = ran.event("start");
        assert_eq!(
            (&start["windows"], &start["regions"], &start["tile"]),
            (&1.into(), &1.into(), &16.into()),
            "{command}"
        );
        let warnings = start["warnings"].to_string();
        let (width, height) = size;
        // Beyond the border of a blurred photo there is more of the picture.
        let inner = if command.starts_with("deblur") { "16x12" } else { "16x11" };
        let part = format!("the picture of {width}x{height} pixels is restored as one of {inner} within the 16x16");
        assert!(warnings.contains(&part), "{command}: {warnings}");
        let out =
            folder.open(if command.contains("samples") { format!("{name}-0000.png") } else { format!("{name}.png") });
        assert_eq!((out.width(), out.height()), size, "{command}");
    }
}

// 480 × 320 pixels in three channels of single precision, for every particle.
#[test]
fn memory_is_that_of_every_particle_at_the_size_of_what_was_measured() {
    let folder = Folder::with_photo(120, 80);
    let model = ramp(&folder);
    let memory = |particles: usize| {
        let line = format!("upscale photo.png --scale 4 --resize fit --model {model} --sampler tds --steps 2");
        let ran = folder.succeed(&format!("{line} --set sampler.particles={particles} -n --json"));
        ran.event("start")["estimated_memory"].as_u64().unwrap()
    };
    let more = memory(33) - memory(1);
    assert!(more >= 32 * 480 * 320 * 3 * 4, "{more} bytes for 32 particles more");
}

#[test]
fn colours_are_fitted_and_brightness_is_the_photos_own() {
    let folder = with_network();
    let grey = photo(60, 40, Kind::Grey8);
    grey.save(folder.path("grey.png")).unwrap();
    folder.succeed("colorize grey.png --resize fit --model model --steps 2 -o out.png");
    let grey = grey.to_luma8();
    for (x, y, pixel) in folder.open("out.png").to_rgb8().enumerate_pixels() {
        let [red, green, blue] = pixel.0.map(f64::from);
        let luma = 0.299 * red + 0.587 * green + 0.114 * blue;
        assert!((luma - f64::from(grey[(x, y)][0])).abs() <= 1.0, "({x}, {y}): {luma}");
    }
}

#[test]
fn what_cannot_be_fitted_is_refused_and_an_empty_mask_changes_nothing() {
    let folder = with_network();
    let refused = |line: &str, message: &str| {
        let ran = folder.tweedie(line);
        assert_eq!(ran.code, 2, "{line}\n{}", ran.stderr);
        assert!(ran.stderr.contains(message), "{line}\n{}", ran.stderr);
    };
    refused(
        "inpaint photo.png -m mask.png --resize fit -o out.png",
        "resize is fit, expected a model that knows images of one size, ",
    );
    refused("inpaint photo.png -m mask.png --model model --resize fit --tile 64", "cannot be used with '--tile");
    refused("inpaint photo.png -m mask.png --model model --resize tile", "invalid value 'tile' for '--resize <HOW>'");
    image::GrayImage::new(60, 40).save(folder.path("empty.png")).unwrap();
    let ran = folder.succeed("inpaint photo.png -m empty.png --model model --resize fit --json -o same.png");
    let warnings = ran.event("start")["warnings"].to_string();
    assert!(!warnings.contains("is restored as one of"), "{warnings}");
    assert_eq!(folder.open("same.png").as_bytes(), folder.open("photo.png").as_bytes());
}
