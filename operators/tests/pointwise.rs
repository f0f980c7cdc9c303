use std::path::Path;

use candle_core::{DType, Device, Tensor};
use tweedie_operators::forward::{
    Bayer, BayerPattern, Clip, Direction, Gamma, GrayscaleHints, Inpaint, Jpeg, Lines, Quantize, SelectChannels, Side,
    Subsampling,
};
use tweedie_operators::{ForwardOperator, LinearOperator, OPERATORS, Site, SpectralOperator, find};

use crate::{inner, norm, random, relative_error, site, values};

fn create(name: &str, settings: &str, site: Site<'_>) -> Box<dyn ForwardOperator> {
    find(OPERATORS, name).unwrap().create(settings.parse().unwrap(), site).unwrap()
}

fn refusal(name: &str, settings: &str, site: Site<'_>) -> String {
    find(OPERATORS, name).unwrap().create(settings.parse().unwrap(), site).unwrap_err().to_string()
}

/// The mask of the first channel as a picture: `#` is missing.
fn drawing(operator: &dyn ForwardOperator, (height, width): (usize, usize)) -> Vec<String> {
    let ones = Tensor::ones((1, 3, height, width), DType::F32, &Device::Cpu).unwrap();
    let seen = values(&operator.forward(&ones).unwrap());
    let row = |row: &[f64]| row.iter().map(|&seen| if seen == 0.0 { '#' } else { '.' }).collect();
    seen[..height * width].chunks(width).map(row).collect()
}

fn image(values: &[f64], shape: (usize, usize, usize, usize)) -> Tensor {
    Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
}

#[test]
fn rectangles_lie_where_they_are_put() {
    let site = site((3, 4, 6), DType::F32);
    let draw = |settings: &str| drawing(&*create("inpaint_box", settings, site), (4, 6));
    assert_eq!(draw("size = [1, 3]"), ["......", ".###..", "......", "......"]);
    assert_eq!(draw("size = [2, 3]\nposition = [2, 3]"), ["......", "......", "...###", "...###"]);
    assert_eq!(draw("size = 2\nposition = [0, 1]"), [".##...", ".##...", "......", "......"]);
    assert_eq!(
        refusal("inpaint_box", "size = 2\nposition = [3, 0]", site),
        "inpaint_box: position is [3, 0], expected [0 to 2, 0 to 4] for a box of [2, 2] in an image of 6x4"
    );
    assert_eq!(
        refusal("inpaint_box", "size = [5, 1]", site),
        "inpaint_box: size is [5, 1], expected [1 to 4, 1 to 6] for an image of 6x4"
    );
    let message = refusal("inpaint_box", "size = [1, 2, 3]", site);
    assert!(message.contains("expected a number of pixels or a list with one for each side"), "{message}");
}

#[test]
fn halves_of_odd_images_are_the_smaller_ones() {
    let site = site((3, 3, 5), DType::F32);
    let draw = |side: Side| drawing(&Inpaint::half(side, site).unwrap(), (3, 5));
    assert_eq!(draw(Side::Left), ["##...", "##...", "##..."]);
    assert_eq!(draw(Side::Right), ["...##", "...##", "...##"]);
    assert_eq!(draw(Side::Top), ["#####", ".....", "....."]);
    assert_eq!(draw(Side::Bottom), [".....", ".....", "#####"]);
}

#[test]
fn outpainting_keeps_what_lies_between_the_margins() {
    let site = site((3, 4, 6), DType::F32);
    let draw = |settings: &str| drawing(&*create("outpaint", settings, site), (4, 6));
    assert_eq!(draw("margin = 1"), ["######", "#....#", "#....#", "######"]);
    assert_eq!(draw("margin = [0, 1, 2, 3]"), ["###..#", "###..#", "######", "######"]);
    assert_eq!(draw("margin = 0"), ["......"; 4]);
    let message = refusal("outpaint", "margin = 2", site);
    assert_eq!(
        message,
        "outpaint: margin is [2, 2, 2, 2], expected top + bottom below 4 and left + right below 6 for an image of 6x4"
    );
}

#[test]
fn lines_are_lost_by_period_or_at_random() {
    let site = site((3, 5, 4), DType::F32);
    let draw = |settings: &str| drawing(&*create("inpaint_lines", settings, site), (5, 4));
    assert_eq!(draw("period = 2"), ["....", "####", "....", "####", "...."]);
    assert_eq!(draw("period = 3\nkeep = 2"), ["....", "....", "####", "....", "...."]);
    assert_eq!(draw("period = 2\ndirection = 'columns'"), [".#.#"; 5]);
    assert_eq!(draw("period = 1"), ["...."; 5]);
    let random = draw("missing = 0.5");
    assert_eq!(random.iter().filter(|row| *row == "####").count(), 2, "half of 5, rounded down");
    assert_eq!(random.iter().filter(|row| *row == "....").count(), 3);
    let many = crate::site((3, 64, 64), DType::F32);
    let lines = |seed| Inpaint::lines(Lines::Random { missing: 0.5, seed }, Direction::Columns, many).unwrap();
    assert_ne!(values(lines(0).mask()), values(lines(1).mask()));
    assert_eq!(values(lines(1).mask()).iter().filter(|&&seen| seen == 0.0).count(), 32 * 64);

    let either = "inpaint_lines: expected either missing, with seed if wanted, or period, with keep if wanted";
    for settings in ["", "missing = 0.5\nperiod = 2", "missing = 0.5\nkeep = 1", "period = 2\nseed = 1"] {
        assert_eq!(refusal("inpaint_lines", settings, site), either);
    }
    assert_eq!(
        refusal("inpaint_lines", "period = 2\nkeep = 3", site),
        "inpaint_lines: keep is 3, expected 1 to 2, the period"
    );
    assert_eq!(refusal("inpaint_lines", "period = 0", site), "inpaint_lines: keep is 1, expected 1 to 0, the period");
    assert_eq!(
        refusal("inpaint_lines", "missing = 2.0", site),
        "inpaint_lines: missing is 2, expected a fraction from 0 to 1"
    );
}

#[test]
fn each_channel_can_miss_pixels_of_its_own() {
    let site = site((3, 20, 30), DType::F32);
    let each = values(Inpaint::random_each(0.3, 5, site).unwrap().mask());
    let shared = values(Inpaint::random(0.3, 5, site).unwrap().mask());
    for channel in each.chunks(600) {
        assert_eq!(channel.iter().filter(|&&seen| seen == 0.0).count(), 180);
    }
    assert_eq!(each[..600], shared);
    assert_ne!(each[..600], each[600..1200]);
    assert_ne!(each[600..1200], each[1200..]);
}

#[test]
fn what_is_missing_cannot_be_seen_even_if_it_is_no_number() {
    let x = image(&[f64::NAN, 1.0, f64::INFINITY, -2.0], (1, 1, 2, 2));
    let mask = Tensor::from_slice(&[0u8, 1, 0, 1], (1, 1, 2, 2), &Device::Cpu).unwrap();
    assert_eq!(values(&Inpaint::new(&mask).unwrap().forward(&x).unwrap()), [0.0, 1.0, 0.0, -2.0]);
}

/// A folder for the pictures of one test.
fn folder(name: &str) -> std::path::PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn masks_come_from_pictures_whose_white_is_missing() {
    let folder = folder("masks");
    let site = Site { folder: &folder, ..site((3, 2, 3), DType::F32) };
    let grey = image::GrayImage::from_raw(3, 2, vec![0, 127, 128, 255, 60, 61]).unwrap();
    for name in ["mask.png", "mask.bmp", "mask.pgm"] {
        grey.save(folder.join(name)).unwrap();
        let operator = create("inpaint_file", &format!("file = '{name}'"), site);
        assert_eq!(drawing(&*operator, (2, 3)), ["..#", "#.."], "{name}");
    }
    let lower = create("inpaint_file", "file = 'mask.png'\nthreshold = 60", site);
    assert_eq!(drawing(&*lower, (2, 3)), [".##", "#.#"]);
    // Luma of pure red is 76, of green 150, of blue 29.
    let colours = vec![255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 0, 0, 0, 0, 255, 0, 255];
    image::RgbImage::from_raw(3, 2, colours).unwrap().save(folder.join("colours.png")).unwrap();
    let colours = create("inpaint_file", "file = 'colours.png'", site);
    assert_eq!(drawing(&*colours, (2, 3)), [".#.", "#.."]);
}

#[test]
fn pictures_that_do_not_fit_are_refused_with_both_sizes() {
    let folder = folder("misfits");
    let site = Site { folder: &folder, ..site((3, 2, 3), DType::F32) };
    image::GrayImage::new(2, 3).save(folder.join("mask.png")).unwrap();
    image::RgbImage::new(3, 2).save(folder.join("opaque.png")).unwrap();
    std::fs::write(folder.join("text.png"), "no picture").unwrap();
    let place = folder.display();
    assert_eq!(
        refusal("inpaint_file", "file = 'mask.png'", site),
        format!("inpaint_file: file {place}/mask.png is 2x3, expected 3x2, as the image")
    );
    assert_eq!(
        refusal("grayscale_hints", "file = 'mask.png'", site),
        format!("grayscale_hints: file {place}/mask.png is 2x3, expected 3x2, as the image")
    );
    assert_eq!(
        refusal("grayscale_hints", "file = 'opaque.png'", site),
        format!("grayscale_hints: file {place}/opaque.png has no transparency, expected alpha above 127 at hints")
    );
    for name in ["text.png", "nowhere.png"] {
        let message = refusal("inpaint_file", &format!("file = '{name}'"), site);
        assert!(message.starts_with(&format!("inpaint_file: file {place}/{name} cannot be read: ")), "{message}");
    }
    let message = refusal("inpaint_file", "file = 'mask.png'\nthreshold = 256", site);
    assert!(message.contains("256") && message.contains("u8"), "{message}");
}

#[test]
fn weights_of_grey_have_names_or_are_listed() {
    let x = image(&[1.0, 0.5, -1.0], (1, 3, 1, 1));
    let grey =
        |settings: &str| values(&create("grayscale", settings, site((3, 1, 1), DType::F64)).forward(&x).unwrap())[0];
    for (settings, expected) in [
        ("", 0.299 + 0.2935 - 0.114),
        ("weights = 'rec601'", 0.299 + 0.2935 - 0.114),
        ("weights = 'rec709'", 0.2126 + 0.3576 - 0.0722),
        ("weights = 'mean'", 0.5 / 3.0),
        ("weights = [1.0, 2, -1.5]", 3.5),
    ] {
        assert!((grey(settings) - expected).abs() < 1e-15, "{settings}");
    }
    let four = site((4, 2, 2), DType::F64);
    assert_eq!(refusal("grayscale", "weights = 'rec709'", four), "grayscale: image has 4 channels, expected 3");
    assert_eq!(refusal("grayscale", "weights = [1, 2]", four), "grayscale: image has 4 channels, expected 2");
    let message = refusal("grayscale", "weights = 'rec2020'", four);
    assert!(message.contains("expected rec601, rec709, mean or a list of numbers"), "{message}");
    let mean = create("grayscale", "weights = 'mean'", four)
        .forward(&Tensor::ones((1, 4, 2, 2), DType::F64, &Device::Cpu).unwrap());
    assert_eq!(values(&mean.unwrap()), [1.0; 4]);
}

#[test]
fn hints_keep_their_colour_and_the_rest_becomes_luma() {
    let x = image(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], (1, 3, 1, 2));
    let hints = Tensor::from_slice(&[0u8, 1], (1, 1, 1, 2), &Device::Cpu).unwrap();
    let operator = GrayscaleHints::new(&[0.5, 0.25, 0.25], &hints).unwrap();
    // Pixel 0 is (1, 3, 5): 0.5 + 0.75 + 1.25; pixel 1 is (2, 4, 6).
    assert_eq!(values(&operator.forward(&x).unwrap()), [2.5, 2.0, 0.0, 4.0, 0.0, 6.0]);
    assert_eq!(values(&operator.adjoint(&x).unwrap()), [0.5, 2.0, 0.25, 4.0, 0.25, 6.0]);
    let pinv = values(&operator.pseudo_inverse(&x).unwrap());
    let expected = [0.5 / 0.375, 2.0, 0.25 / 0.375, 4.0, 0.25 / 0.375, 6.0];
    assert!(pinv.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-15), "{pinv:?}");
    let s = values(operator.singular_values());
    assert_eq!(s, [0.375f64.sqrt(), 1.0, 0.0, 1.0, 0.0, 1.0]);

    let refusal = |hints: Tensor| GrayscaleHints::new(&[1.0; 3], &hints).unwrap_err().to_string();
    let half = (hints.to_dtype(DType::F32).unwrap() * 0.5).unwrap();
    assert_eq!(refusal(half), "grayscale_hints: hints hold 0.5, expected 0 (luma) or 1 (colour)");
    let each = hints.broadcast_as((1, 3, 1, 2)).unwrap();
    assert_eq!(refusal(each), "hints of grayscale_hints has shape [1, 3, 1, 2], expected [_, 1, _, _]");
    let message = operator.forward(&x.narrow(3, 0, 1).unwrap()).unwrap_err().to_string();
    assert_eq!(message, "image for grayscale_hints has shape [1, 3, 1, 1], expected [_, 3, 1, 2]");
}

#[test]
fn hints_come_from_the_opaque_pixels_of_a_picture() {
    let folder = folder("hints");
    let site = Site { folder: &folder, ..site((3, 1, 3), DType::F64) };
    let pixels = vec![9, 9, 9, 127, 0, 0, 0, 128, 255, 255, 255, 0];
    image::RgbaImage::from_raw(3, 1, pixels).unwrap().save(folder.join("hints.png")).unwrap();
    let x = image(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], (1, 3, 1, 3));
    let y = create("grayscale_hints", "file = 'hints.png'\nweights = 'mean'", site).forward(&x).unwrap();
    let expected = [4.0, 2.0, 6.0, 0.0, 5.0, 0.0, 0.0, 8.0, 0.0];
    assert!(values(&y).iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-14), "{y}");
}

#[test]
fn bayer_patterns_see_the_colours_of_their_names() {
    // Red is 0, green 1, blue 2 everywhere.
    let colours: Vec<f64> = [0.0, 1.0, 2.0].iter().flat_map(|&c| vec![c; 9]).collect();
    let x = image(&colours, (1, 3, 3, 3));
    for (name, pattern) in [
        ("rggb", BayerPattern::Rggb),
        ("bggr", BayerPattern::Bggr),
        ("grbg", BayerPattern::Grbg),
        ("gbrg", BayerPattern::Gbrg),
    ] {
        let operator = Bayer::new(pattern, site((3, 3, 3), DType::F64)).unwrap();
        let y = operator.forward(&x).unwrap();
        assert_eq!(y.dims(), [1, 1, 3, 3]);
        let colour: Vec<f64> = name.chars().map(|c| "rgb".find(c).unwrap() as f64).collect();
        let [a, b, c, d] = [colour[0], colour[1], colour[2], colour[3]];
        assert_eq!(values(&y), [a, b, a, c, d, c, a, b, a], "{name}");
        let back = values(&operator.adjoint(&Tensor::ones((1, 1, 3, 3), DType::F64, &Device::Cpu).unwrap()).unwrap());
        assert_eq!(back, values(operator.singular_values()), "{name}");
        assert_eq!(back.iter().sum::<f64>(), 9.0);
    }
    assert_eq!(refusal("bayer", "", site((1, 3, 3), DType::F32)), "bayer: image has 1 channels, expected 3");
}

#[test]
fn bayer_takes_its_values_from_their_own_places() {
    let x = random(&[1, 3, 5, 7], 3, DType::F64);
    let operator = Bayer::new(BayerPattern::Gbrg, site((3, 5, 7), DType::F64)).unwrap();
    let (x, y) = (values(&x), values(&operator.forward(&x).unwrap()));
    for (i, y) in y.iter().enumerate() {
        assert_eq!(*y, x[BayerPattern::Gbrg.channel(i / 7, i % 7) * 35 + i]);
    }
}

#[test]
fn selected_channels_come_in_the_order_asked_for() {
    let x = image(&[1.0, 2.0, 3.0, 4.0], (1, 4, 1, 1));
    let operator = SelectChannels::new(&[3, 0], 4).unwrap();
    assert_eq!(values(&operator.forward(&x).unwrap()), [4.0, 1.0]);
    assert_eq!(values(&operator.adjoint(&image(&[5.0, 6.0], (1, 2, 1, 1))).unwrap()), [6.0, 0.0, 0.0, 5.0]);
    let refusal = |keep: &[usize]| SelectChannels::new(keep, 3).unwrap_err().to_string();
    assert_eq!(refusal(&[]), "select_channels: keep is [], expected a channel at least");
    assert_eq!(refusal(&[1, 1]), "select_channels: keep is [1, 1], expected every channel once at most");
    assert_eq!(
        refusal(&[0, 3]),
        "select_channels: keep is [0, 3], expected numbers below 3, the channels of the image"
    );
    let message = operator.forward(&x.narrow(1, 0, 3).unwrap()).unwrap_err().to_string();
    assert_eq!(message, "row for select_channels has shape [3, 1, 1], expected [4, _, _]");
}

/// `f(x)` and `f′(x)` of an operator on single values.
fn curve(operator: &dyn ForwardOperator, x: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let x = image(x, (1, 1, 1, x.len()));
    (values(&operator.forward(&x).unwrap()), values(&operator.vjp(&x, &x.ones_like().unwrap()).unwrap()))
}

#[test]
fn clipping_saturates_and_lets_no_slope_through() {
    let (y, slope) = curve(&*create("clip", "", site((1, 1, 1), DType::F64)), &[-0.6, -0.25, 0.0, 0.4, 0.75]);
    assert_eq!(y, [-1.0, -0.5, 0.0, 0.8, 1.0]);
    assert_eq!(slope, [0.0, 2.0, 2.0, 2.0, 0.0]);
    let (y, slope) = curve(&Clip::new(-1.0, 0.0, 0.5).unwrap(), &[-0.6, -0.25, 1.0]);
    assert_eq!((y, slope), (vec![0.5, 0.25, 0.0], vec![0.0, -1.0, 0.0]));
    assert!(curve(&Clip::new(2.0, -1.0, 1.0).unwrap(), &[f64::NAN]).0[0].is_nan());
    let refusal = |gain, low, high| Clip::new(gain, low, high).unwrap_err().to_string();
    assert_eq!(refusal(0.0, -1.0, 1.0), "clip: gain is 0, expected a finite number other than 0");
    assert_eq!(refusal(1.0, 1.0, 1.0), "clip: low is 1 and high is 1, expected finite numbers, low below high");
}

#[test]
fn gamma_is_the_power_at_every_level_of_eight_bits() {
    let levels: Vec<f64> = (0..256).map(|level| f64::from(level) / 127.5 - 1.0).collect();
    for exponent in [1.0 / 2.2, 0.1, 1.0, 2.2] {
        let (y, _) = curve(&Gamma::new(exponent).unwrap(), &levels);
        for (level, y) in y.iter().enumerate() {
            let expected = 2.0 * (level as f64 / 255.0).powf(exponent) - 1.0;
            assert!((y - expected).abs() < 1e-12, "{level} to the power {exponent}: {y} and {expected}");
        }
    }
    assert_eq!(Gamma::new(0.0).unwrap_err().to_string(), "gamma: exponent is 0, expected a finite number above 0");
}

#[test]
fn gamma_is_smooth_and_odd_around_black() {
    let epsilon = 1.0 / 255.0;
    for exponent in [0.3, 0.45, 1.0, 2.2] {
        let gamma = Gamma::new(exponent).unwrap();
        let black: Vec<f64> = (-30..=30).map(|i| f64::from(i) * 0.1 * epsilon * 2.0 - 1.0).collect();
        let (y, slope) = curve(&gamma, &black);
        for i in 0..=30 {
            assert!((y[30 + i] + y[30 - i] + 2.0).abs() < 1e-12, "odd");
            assert!((slope[30 + i] - slope[30 - i]).abs() < 1e-9 * slope[30].max(1.0), "an even slope");
            assert!(slope[30 + i].is_finite() && slope[30 + i] >= 0.0);
        }
        // Both sides of the place where the polynomial ends.
        let at = |side: f64| curve(&gamma, &[2.0 * epsilon * (1.0 + side * 1e-9) - 1.0]);
        let (below, above) = (at(-1.0), at(1.0));
        assert!((below.0[0] - above.0[0]).abs() < 1e-8 && (below.1[0] / above.1[0] - 1.0).abs() < 1e-6);
        // Slopes are those of the values.
        let step = 1e-7;
        let difference = |x: f64| (curve(&gamma, &[x + step]).0[0] - curve(&gamma, &[x - step]).0[0]) / (2.0 * step);
        for &x in &[-1.3, -1.001, -0.999, -0.99, 0.2, 1.5] {
            let slope = curve(&gamma, &[x]).1[0];
            assert!((difference(x) / slope - 1.0).abs() < 1e-4, "{exponent} at {x}: {} and {slope}", difference(x));
        }
    }
}

#[test]
fn levels_are_fixed_points_of_quantisation() {
    for levels in [2, 3, 16, 256] {
        let all: Vec<f64> = (0..levels).map(|k| 2.0 * k as f64 / (levels - 1) as f64 - 1.0).collect();
        let operator = Quantize::new(levels).unwrap();
        let x = image(&all, (1, 1, 1, levels));
        for y in [operator.forward(&x).unwrap(), operator.measure(&x).unwrap()] {
            assert!(values(&y).iter().zip(&all).all(|(y, x)| (y - x).abs() < 1e-12), "{levels} levels");
        }
    }
    for levels in [0, 1, 65537] {
        let message = Quantize::new(levels).unwrap_err().to_string();
        assert_eq!(message, format!("quantize: levels is {levels}, expected 2 to 65536"));
    }
}

#[test]
fn quantisation_rounds_in_measurements_and_softly_elsewhere() {
    // Levels at -1, 0 and 1: x = 0.3 is 0.3 of a step above the middle.
    let operator = Quantize::new(3).unwrap();
    let x = [-1.75, -0.6, 0.3, 0.9, 1.2];
    assert_eq!(values(&operator.measure(&image(&x, (1, 1, 1, 5))).unwrap()), [-1.0, -1.0, 0.0, 1.0, 1.0]);
    let (y, slope) = curve(&operator, &x);
    let expected =
        [-2.0 + 0.25f64.powi(3), -1.0 + 0.4f64.powi(3), 0.3f64.powi(3), 1.0 - 0.1f64.powi(3), 1.0 + 0.2f64.powi(3)];
    let expected_slope = [0.25f64, 0.4, 0.3, 0.1, 0.2].map(|rest| 3.0 * rest * rest);
    for i in 0..5 {
        assert!((y[i] - expected[i]).abs() < 1e-12, "{}: {}", x[i], y[i]);
        assert!((slope[i] - expected_slope[i]).abs() < 1e-12, "{}: slope {}", x[i], slope[i]);
    }
}

/// The coder of one block from its definition: levels, cosine transform, soft rounding, and back.
fn naive_block(x: &[f64], steps: &[f64; 64]) -> Vec<f64> {
    use std::f64::consts::PI;
    let scale = |k: usize| if k == 0 { 0.125f64.sqrt() } else { 0.5 };
    let wave = |k: usize, j: usize| scale(k) * ((2 * j + 1) as f64 * k as f64 * PI / 16.0).cos();
    let mut y = vec![0.0; 64];
    for (k, &step) in steps.iter().enumerate() {
        let basis = |i: usize| wave(k / 8, i / 8) * wave(k % 8, i % 8);
        let coefficient: f64 = (0..64).map(|i| basis(i) * ((x[i] + 1.0) * 127.5 - 128.0)).sum();
        let whole = (coefficient / step).round();
        let soft = step * (whole + (coefficient / step - whole).powi(3));
        (0..64).for_each(|i| y[i] += basis(i) * soft);
    }
    y.iter().map(|y| (y + 128.0) / 127.5 - 1.0).collect()
}

#[test]
fn a_grey_block_is_coded_as_it_is_defined() {
    /// ITU-T T.81, table K.1, at quality 50.
    #[rustfmt::skip]
    const LUMINANCE: [f64; 64] = [
        16., 11., 10., 16., 24., 40., 51., 61., 12., 12., 14., 19., 26., 58., 60., 55.,
        14., 13., 16., 24., 40., 57., 69., 56., 14., 17., 22., 29., 51., 87., 80., 62.,
        18., 22., 37., 56., 68., 109., 103., 77., 24., 35., 55., 64., 81., 104., 113., 92.,
        49., 64., 78., 87., 103., 121., 120., 101., 72., 92., 95., 98., 112., 100., 103., 99.,
    ];
    let x = (random(&[1, 1, 8, 8], 4, DType::F64) * 0.4).unwrap();
    let y = Jpeg::new(50, Subsampling::Half).unwrap().forward(&x).unwrap();
    let expected = naive_block(&values(&x), &LUMINANCE);
    for (y, expected) in values(&y).iter().zip(expected) {
        assert!((y - expected).abs() < 1e-12, "{y} and {expected}");
    }
}

#[test]
fn equal_colours_survive_jpeg_as_far_as_their_steps_allow() {
    // Levels (200, 100, 50) are luma 124.2, Cb 86.13, Cr 182.07; at quality 100 all steps are 1, and the first
    // coefficient of a flat block counts eighths of a level.
    let colour = [200.0, 100.0, 50.0];
    let pixels: Vec<f64> = colour.iter().flat_map(|level| vec![level / 127.5 - 1.0; 11 * 13]).collect();
    let x = image(&pixels, (1, 3, 11, 13));
    for subsampling in [Subsampling::Full, Subsampling::Half] {
        let jpeg = Jpeg::new(100, subsampling).unwrap();
        let worst = |y: &Tensor, channel: usize| {
            let levels = values(y)[channel * 143..][..143].iter().map(|y| (y + 1.0) * 127.5).collect::<Vec<_>>();
            levels.iter().map(|level| (level - colour[channel]).abs()).fold(0.0, f64::max)
        };
        for channel in 0..3 {
            assert!(worst(&jpeg.forward(&x).unwrap(), channel) < 0.2, "{subsampling:?}");
            assert!(worst(&jpeg.measure(&x).unwrap(), channel) <= 1.0 + 1e-9, "{subsampling:?}");
        }
        let levels = values(&jpeg.measure(&x).unwrap());
        assert!(levels.iter().all(|y| ((y + 1.0) * 127.5 - ((y + 1.0) * 127.5).round()).abs() < 1e-9), "whole levels");
    }
}

#[test]
fn jpeg_of_any_size_has_the_transpose_of_its_derivative() {
    for (height, width) in [(1, 1), (1, 9), (2, 3), (3, 2), (5, 4), (16, 16), (17, 15), (9, 33)] {
        for channels in [1, 3] {
            for subsampling in [Subsampling::Full, Subsampling::Half] {
                let jpeg = Jpeg::new(3, subsampling).unwrap();
                let shape = [1, channels, height, width];
                let [x, v, d] = [1, 2, 3].map(|label| (random(&shape, label, DType::F64) * 0.5).unwrap());
                let at = |step: f64| inner(&jpeg.forward(&(&x + (&d * step).unwrap()).unwrap()).unwrap(), &v);
                let difference = (at(1e-6) - at(-1e-6)) / 2e-6;
                let derivative = inner(&jpeg.vjp(&x, &v).unwrap(), &d);
                let error = (difference - derivative).abs() / (norm(&d) * norm(&v));
                assert!(error < 1e-7, "{shape:?}, {subsampling:?}: {difference} and {derivative}");
            }
        }
    }
}

/// Pictures coded and decoded by Pillow 13.0 with libjpeg-turbo.
#[test]
fn measurements_by_jpeg_are_the_pictures_of_pillow() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/jpeg.safetensors");
    let file = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let check = |input: &str, quality: u32, subsampling, expected: &str| {
        let x = file[input].to_dtype(DType::F32).unwrap().affine(1.0 / 127.5, -1.0).unwrap();
        let y = Jpeg::new(quality, subsampling).unwrap().measure(&x).unwrap();
        let differences: Vec<f64> = values(&y)
            .iter()
            .zip(values(&file[expected]))
            .map(|(y, level)| ((y + 1.0) * 127.5 - level).abs())
            .collect();
        let worst = differences.iter().copied().fold(0.0, f64::max);
        assert!(worst < 1e-3, "{expected}: off by {worst} levels");
    };
    for quality in [10, 50, 75, 95] {
        check("x", quality, Subsampling::Full, &format!("{quality}.444"));
        check("x", quality, Subsampling::Half, &format!("{quality}.420"));
    }
    check("grey", 50, Subsampling::Half, "50.grey");
}

#[test]
fn jpeg_in_single_precision_is_jpeg() {
    let x = (random(&[2, 3, 21, 34], 9, DType::F64) * 0.3).unwrap();
    let jpeg = Jpeg::new(30, Subsampling::Half).unwrap();
    let single = jpeg.forward(&x.to_dtype(DType::F32).unwrap()).unwrap().to_dtype(DType::F64).unwrap();
    let error = relative_error(&single, &jpeg.forward(&x).unwrap());
    assert!(error < 1e-5, "relative error {error:e}");
}

#[test]
fn settings_of_jpeg_are_checked() {
    let at = |channels| site((channels, 8, 8), DType::F32);
    assert_eq!(refusal("jpeg", "quality = 0", at(3)), "jpeg: quality is 0, expected 1 to 100");
    assert_eq!(refusal("jpeg", "quality = 101", at(3)), "jpeg: quality is 101, expected 1 to 100");
    assert_eq!(refusal("jpeg", "quality = 50", at(4)), "jpeg: image has 4 channels, expected 1 or 3");
    let message = refusal("jpeg", "quality = 50\nsubsampling = '411'", at(3));
    assert!(message.contains("unknown variant `411`, expected `444` or `420`"), "{message}");
    let message = Jpeg::new(50, Subsampling::Full).unwrap().forward(&random(&[1, 2, 8, 8], 1, DType::F32)).unwrap_err();
    assert_eq!(message.to_string(), "image for jpeg has shape [1, 2, 8, 8], expected [_, 1 or 3, _, _]");
}
