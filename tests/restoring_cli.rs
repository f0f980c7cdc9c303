//! The commands that restore a whole photo, and the one that damages it.

use crate::harness::{Folder, Kind, photo};
use image::{DynamicImage, GenericImageView, Rgba, RgbaImage};

/// A prior whose denoiser is a formula: whatever surrounds the network is tested without it.
const GAUSSIAN: &str = "--model gaussian:mean=0,std=0.5";

#[track_caller]
fn refused(folder: &Folder, line: &str, code: i32, message: &str) {
    let before = folder.names();
    let ran = folder.tweedie(line);
    assert_eq!(ran.code, code, "{line}\n{}", ran.stderr);
    assert!(ran.stderr.contains(message), "{line}\nexpected `{message}` in:\n{}", ran.stderr);
    assert_eq!(folder.names(), before, "{line}");
}

fn luma([red, green, blue]: [u8; 3]) -> f64 {
    0.299 * f64::from(red) + 0.587 * f64::from(green) + 0.114 * f64::from(blue)
}

/// Under a Gaussian prior N(0, s²) the posterior mean of a pixel is y s² / (s² + σ²).
#[test]
fn denoise_writes_the_posterior_mean() {
    let folder = Folder::with_photo(24, 16);
    folder.succeed(&format!("denoise photo.png --noise 40 {GAUSSIAN} -o out.png"));
    let (before, after) = (folder.open("photo.png").to_rgb8(), folder.open("out.png").to_rgb8());
    let sigma = 2.0 * 40.0 / 255.0;
    let shrink = 0.25 / (0.25 + sigma * sigma);
    for (before, after) in before.pixels().zip(after.pixels()) {
        for channel in 0..3 {
            let y = f64::from(before[channel]) * 2.0 / 255.0 - 1.0;
            let expected = (y * shrink + 1.0) * 127.5;
            assert!((f64::from(after[channel]) - expected).abs() <= 0.6, "{} and {expected}", after[channel]);
        }
    }
    // Asked for samples, it draws them: they differ.
    folder.succeed(&format!("denoise photo.png --noise 40 {GAUSSIAN} --samples 2 --steps 3 -o two.png"));
    assert_ne!(folder.bytes("two-0000.png"), folder.bytes("two-0001.png"));
}

#[test]
fn depth_and_alpha_stay_and_sizes_are_those_asked_for() {
    for kind in [Kind::Grey8, Kind::Rgb8, Kind::Rgba8, Kind::Grey16, Kind::Rgba16] {
        let folder = Folder::new();
        let original = photo(22, 18, kind);
        original.save(folder.path("photo.png")).unwrap();
        for (command, size) in [
            ("denoise --noise 5", (22, 18)),
            ("deblur --kernel gaussian:1 --noise 2 --steps 2", (22, 18)),
            ("deblur --kernel motion:5,30 --noise 2 --steps 2", (22, 18)),
            ("upscale --scale 2 --steps 2", (44, 36)),
            ("upscale --scale 3/2 --kernel lanczos --steps 2", (33, 27)),
        ] {
            let (verb, options) = command.split_once(' ').unwrap();
            folder.succeed(&format!("{verb} photo.png {options} {GAUSSIAN} -o out.png -f"));
            let after = folder.open("out.png");
            assert_eq!((after.dimensions(), after.color()), (size, original.color()), "{command} of {kind:?}");
            if size == (22, 18) && kind == Kind::Rgba8 {
                let alpha = |image: &DynamicImage| image.to_rgba8().pixels().map(|p| p[3]).collect::<Vec<_>>();
                assert_eq!(alpha(&original), alpha(&after), "{command}");
            }
        }
    }
}

#[test]
fn colorize_keeps_the_luma_and_takes_the_colour_of_hints() {
    let folder = Folder::new();
    let grey = photo(32, 24, Kind::Grey8);
    grey.save(folder.path("grey.png")).unwrap();
    let mut hints = RgbaImage::new(32, 24);
    hints.put_pixel(10, 12, Rgba([200, 40, 40, 255]));
    hints.put_pixel(20, 5, Rgba([20, 40, 220, 100]));
    hints.save(folder.path("hints.png")).unwrap();
    folder.succeed(&format!("colorize grey.png --hints hints.png --steps 3 {GAUSSIAN} -o out.png"));
    let after = folder.open("out.png");
    assert_eq!(after.color(), image::ColorType::Rgb8);
    let after = after.to_rgb8();
    for (before, after) in grey.to_luma8().pixels().zip(after.pixels()) {
        assert!((f64::from(before[0]) - luma(after.0)).abs() <= 1.0, "{} and {:?}", before[0], after.0);
    }
    let Rgba([red, green, blue, _]) = Rgba([after[(10, 12)][0], after[(10, 12)][1], after[(10, 12)][2], 0]);
    assert!(red > green.saturating_add(60) && red > blue.saturating_add(60), "{red} {green} {blue}");
    refused(&folder, "colorize grey.png --hints grey.png", 2, "coloured dots on transparent ground");
    photo(8, 8, Kind::Rgba8).save(folder.path("small.png")).unwrap();
    refused(
        &folder,
        "colorize grey.png --hints small.png",
        2,
        "size of the hints is 8x8, expected that of the photo, 32x24",
    );
}

#[test]
fn what_degrade_saves_restore_undoes() {
    let folder = Folder::new();
    let blocks = image::RgbImage::from_fn(40, 32, |x, y| {
        let dark = (x / 8 + y / 8) % 2 == 0;
        image::Rgb(if dark { [60, 40, 90] } else { [200, 180, 150] })
    });
    blocks.save(folder.path("photo.png")).unwrap();
    folder.write(
        "blur.toml",
        "[operator]\nname = \"blur\"\nkernel = { shape = \"gaussian\", sigma = 0.8 }\n\
         [noise]\nname = \"gaussian\"\nsigma = 0.02\n",
    );
    folder.succeed("degrade photo.png --operator blur.toml --save-measurement y.safetensors -o blurred.png");
    folder.succeed("degrade photo.png --operator blur.toml -o again.png");
    assert_eq!(folder.bytes("blurred.png"), folder.bytes("again.png"), "the seed decides");
    folder.succeed("degrade photo.png --operator blur.toml --seed 1 -o other.png");
    assert_ne!(folder.bytes("blurred.png"), folder.bytes("other.png"));
    folder.succeed("restore y.safetensors --steps 4 -o from-numbers.png");
    folder.succeed("restore blurred.png --operator blur.toml --steps 4 -o from-picture.png");
    let truth = folder.open("photo.png").to_rgb8();
    let error = |name: &str| {
        let squares = truth
            .iter()
            .zip(folder.open(name).to_rgb8().iter())
            .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2))
            .sum::<f64>();
        (squares / truth.len() as f64).sqrt()
    };
    for name in ["from-numbers.png", "from-picture.png"] {
        assert!(error(name) < 0.7 * error("blurred.png"), "{name}: {} beside {}", error(name), error("blurred.png"));
    }
}

#[test]
fn measurements_that_are_no_pictures_are_kept_as_numbers() {
    let folder = Folder::with_photo(16, 16);
    folder.write("cs.toml", "[operator]\nname = \"compressed_sensing\"\nkeep = 0.5\n");
    refused(&folder, "degrade photo.png --operator cs.toml -o y.png", 2, "is no picture");
    folder.succeed("degrade photo.png --operator cs.toml --save-measurement y.safetensors");
    assert_eq!(folder.names(), ["cs.toml", "mask.png", "photo.png", "y.safetensors"]);
    folder.succeed(&format!("restore y.safetensors --steps 2 {GAUSSIAN} -o out.png"));
    assert_eq!(folder.open("out.png").dimensions(), (16, 16));
    // A grey measurement restores in colour.
    folder.write("grey.toml", "[operator]\nname = \"grayscale\"\n");
    folder.succeed("degrade photo.png --operator grey.toml -o grey.png");
    assert_eq!(folder.open("grey.png").color(), image::ColorType::L8);
    folder.succeed(&format!("restore grey.png --operator grey.toml --steps 2 {GAUSSIAN} -o colour.png"));
    assert_eq!(folder.open("colour.png").color(), image::ColorType::Rgb8);
    // Cut off in the middle, of another kind, not there.
    let bytes = folder.bytes("y.safetensors");
    folder.write("cut.safetensors", &bytes[..bytes.len() / 2]);
    refused(&folder, "restore cut.safetensors -o cut.png", 2, "expected a measurement as");
    refused(&folder, "restore nowhere.safetensors -o cut.png", 2, "no such file");
}

#[test]
fn what_cannot_be_is_refused_with_what_can() {
    let folder = Folder::with_photo(24, 16);
    folder.write("sr.toml", "[operator]\nname = \"downsample\"\nfaktor = 4\n");
    folder.write("big.toml", "[operator]\nname = \"inpaint_box\"\nsize = 99\n");
    for (line, message) in [
        ("upscale photo.png --scale 1", "scale is 1, expected a number or a ratio above 1"),
        ("upscale photo.png --scale 0", "scale is 0"),
        ("upscale photo.png --scale 1000", "scale is 1000"),
        ("upscale photo.png --scale 3/0", "scale is 3/0"),
        ("deblur photo.png", "--kernel"),
        ("deblur photo.png --kernel gauss:2", "expected gaussian:SIGMA"),
        ("deblur photo.png --kernel disk:-2", "radius is -2, expected a number from"),
        ("deblur photo.png --kernel gaussian:nan", "standard deviation is nan"),
        ("deblur photo.png --kernel file:nowhere.png", "nowhere.png: no such file"),
        ("denoise photo.png --noise -1", "--noise"),
        ("denoise photo.png --noise much", "or auto"),
        ("restore photo.png", "no operator was given"),
        ("restore photo.png --operator nowhere.toml", "nowhere.toml: no such file"),
        ("restore photo.png --operator sr.toml", "unknown field `faktor`"),
        ("restore photo.png --operator big.toml", "size is 99"),
        ("degrade photo.png --operator sr.toml", "unknown field `faktor`"),
        ("denoise photo.png --noise 5 -o photo.png", "is an input"),
    ] {
        refused(&folder, line, 2, message);
    }
    let small = Folder::with_photo(8, 8);
    refused(&small, "denoise photo.png --noise auto", 2, "--noise L gives it");
}

#[test]
fn plans_say_what_the_photo_is_taken_for() {
    let folder = Folder::with_photo(24, 16);
    let plan = folder.succeed("upscale photo.png --scale 4 -n");
    assert!(plan.text().contains("24x16, 8-bit RGB, becomes 96x64"), "{}", plan.text());
    assert!(plan.text().contains("bicubic by 4, noise of 0.00 levels"), "{}", plan.text());
    let start = folder.succeed("deblur photo.png --kernel disk:2 --noise 1 -n --json").event("start");
    assert_eq!(start["command"], "deblur");
    assert_eq!(start["measurement"], "blur disk:2, noise of 1.00 levels");
    assert!(start["masked_pixels"].is_null());
    assert_eq!(folder.names(), ["mask.png", "photo.png"]);
}

#[test]
fn a_users_matrix_and_program_restore_as_the_built_in_operator_does() {
    let python = std::env::var("TWEEDIE_PYTHON").unwrap_or_else(|_| "python3".into());
    let folder = Folder::with_photo(16, 12);
    let mut entries = String::from("%%MatrixMarket matrix coordinate real general\n48 192 192\n");
    for row in 0..48 {
        let (y, x) = (row / 8 * 2, row % 8 * 2);
        for (v, u) in [(y, x), (y, x + 1), (y + 1, x), (y + 1, x + 1)] {
            entries += &format!("{} {} 0.25\n", row + 1, v * 16 + u + 1);
        }
    }
    folder.write("mean.mtx", entries);
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/python_operator/measure.py");
    let noise = "[noise]\nname = \"gaussian\"\nsigma = 0.02\n";
    let operators = [
        ("built-in", "name = \"downsample_box\"\nfactor = 2\n".to_string()),
        ("matrix", "name = \"matrix\"\nfile = \"mean.mtx\"\nmeasurement = [3, 6, 8]\nimage = [3, 12, 16]\n".into()),
        ("program", format!("name = \"process\"\ncommand = [\"{python}\", \"{program}\"]\n")),
    ];
    for (name, operator) in &operators {
        folder.write(format!("{name}.toml"), format!("[operator]\n{operator}{noise}"));
    }
    folder.succeed("degrade photo.png --operator built-in.toml -o small.png");
    let has_python = std::process::Command::new(&python).arg("--version").output().is_ok();
    let mut results = Vec::new();
    for (name, _) in operators.iter().filter(|(name, _)| *name != "program" || has_python) {
        let line = format!("restore small.png --operator {name}.toml --size 12x16 --steps 3 {GAUSSIAN}");
        folder.succeed(&format!("{line} --sampler pigdm -o {name}.png"));
        results.push(folder.open(format!("{name}.png")).to_rgb8());
    }
    assert!(!has_python || results.len() == 3);
    for result in &results[1..] {
        let most = result.iter().zip(results[0].iter()).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(most <= Some(1), "differs by {most:?} levels");
    }
}

/// A measurement is data: it starts no program, claims no size that memory cannot hold, and holds numbers.
#[test]
fn hostile_measurements_are_refused() {
    let folder = Folder::with_photo(8, 8);
    let file = |name: &str, operator: &str, image: &str, y: &[f32]| {
        let bytes: Vec<u8> = y.iter().flat_map(|value| value.to_le_bytes()).collect();
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1, y.len()], &bytes).unwrap();
        let metadata = [("format", "tweedie measurement 1"), ("operator", operator), ("folder", ""), ("image", image)];
        let metadata = metadata.into_iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        folder.write(name, safetensors::serialize([("y", view)], Some(metadata)).unwrap());
    };
    let identity = "[operator]\nname = \"identity\"\n";
    let program = "[operator]\nname = \"process\"\ncommand = [\"touch\", \"started\"]\n";
    let nested = format!(
        "[operator]\nname = \"compose\"\noperators = [{{ name = \"scale\", factor = 2.0, operator = {} }}]\n",
        "{ name = \"process\", command = [\"touch\", \"started\"] }"
    );
    for (operator, image, y, message) in [
        (program, "3x2x2", [0.0; 12], "measurements start no programs"),
        (&*nested, "3x2x2", [0.0; 12], "measurements start no programs"),
        (identity, "3x65536x65536", [0.0; 12], "an image of `3x65536x65536`"),
        (identity, "3xfoox2x2", [0.0; 12], "an image of `3xfoox2x2`"),
        (identity, "3x2x2", [f32::NAN; 12], "y that is not finite"),
        (identity, "3x2x2", [0.0; 12], "measurement of an image of 2x2 has shape [1, 12]"),
        ("operator = 1", "3x2x2", [0.0; 12], "invalid type"),
    ] {
        file("y.safetensors", operator, image, &y);
        refused(&folder, &format!("restore y.safetensors {GAUSSIAN} -o out.png"), 2, message);
    }
}
