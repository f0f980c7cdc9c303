//! Figures of merit beside scikit-image's and piq's, and beside what they must be by their definition.

use candle_core::{DType, Device, Tensor};
use std::path::Path;
use tweedie::metrics::{Coverage, Interval, Levels, Residual, Statistics, gmsd, observed, psnr, ssim, ssim_within};
use tweedie_operators::forward::{Grayscale, Inpaint};
use tweedie_operators::noise::{Gaussian, Laplace};
use tweedie_operators::{ForwardOperator, Measurement, NoiseModel, Rng};

/// What `benches/peers/metrics.py` wrote, with scikit-image 0.26.0 and piq 0.8.0.
#[derive(serde::Deserialize)]
struct Case {
    size: String,
    picture: String,
    weight: f64,
    psnr: f64,
    ssim: f64,
    ssim_masked: f64,
    gmsd: f64,
}

fn data() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/metrics")
}

/// A PNG as `[3, H, W]` in f64, pixels in `[-1, 1]`.
fn pixels(name: &str) -> Tensor {
    let image = image::open(data().join(name)).unwrap().to_rgb8();
    let (width, height) = (image.width() as usize, image.height() as usize);
    let values: Vec<f64> = image.into_raw().into_iter().map(|v| f64::from(v) / 127.5 - 1.0).collect();
    Tensor::from_vec(values, (height, width, 3), &Device::Cpu).unwrap().permute((2, 0, 1)).unwrap()
}

#[test]
fn figures_are_those_of_scikit_image_and_piq() {
    let cases: Vec<Case> =
        serde_json::from_str(&std::fs::read_to_string(data().join("figures.json")).unwrap()).unwrap();
    assert_eq!(cases.len(), 12);
    for case in cases {
        let truth = pixels(&format!("{}.truth.png", case.size));
        let picture = pixels(&format!("{}.{}.png", case.size, case.picture));
        let mixed = ((picture * case.weight).unwrap() + (&truth * (1.0 - case.weight)).unwrap()).unwrap();
        let (_, height, width) = truth.dims3().unwrap();
        let (truth, mixed) = (Levels::of(&truth).unwrap(), Levels::of(&mixed).unwrap());
        let mask: Vec<bool> = (0..height * width)
            .map(|i| i / width < height / 2 && (width / 4..width / 2).contains(&(i % width)))
            .collect();
        for (name, found, expected) in [
            ("PSNR", psnr(&truth, &mixed).unwrap(), case.psnr),
            ("SSIM", ssim(&truth, &mixed).unwrap(), case.ssim),
            ("SSIM of a mask", ssim_within(&truth, &mixed, &mask).unwrap().unwrap(), case.ssim_masked),
            ("GMSD", gmsd(&truth, &mixed).unwrap(), case.gmsd),
        ] {
            let at = format!("{} of {} {} with weight {}", name, case.size, case.picture, case.weight);
            assert!((found - expected).abs() < 1e-7, "{at}: {found}, expected {expected}");
        }
    }
}

#[test]
fn a_picture_beside_itself_is_perfect_and_values_beyond_the_scale_are_clipped() {
    let truth = pixels("even.truth.png");
    let levels = Levels::of(&truth).unwrap();
    assert_eq!(psnr(&levels, &levels).unwrap(), f64::INFINITY);
    assert!((ssim(&levels, &levels).unwrap() - 1.0).abs() < 1e-12);
    assert_eq!(gmsd(&levels, &levels).unwrap(), 0.0);
    let white = Levels::of(&Tensor::full(1.0, (3, 16, 16), &Device::Cpu).unwrap()).unwrap();
    let beyond = Levels::of(&Tensor::full(7.0, (3, 16, 16), &Device::Cpu).unwrap()).unwrap();
    assert_eq!(white, beyond);
    let black = Levels::of(&Tensor::full(-1.5, (3, 16, 16), &Device::Cpu).unwrap()).unwrap();
    assert_eq!(psnr(&white, &black).unwrap(), 0.0);
    assert!(psnr(&white, &levels).unwrap_err().to_string().contains("[3, 16, 16]"));
    let small = Levels::of(&Tensor::zeros((3, 10, 16), DType::F32, &Device::Cpu).unwrap()).unwrap();
    assert!(ssim(&small, &small).unwrap_err().to_string().contains("at least 11 pixels a side"));
}

#[test]
fn the_truth_has_a_residual_of_one() {
    let shape = (1, 3, 40, 40);
    let x = Rng::new(1, 0..1).normal(shape, &Device::Cpu).unwrap();
    let mask = Rng::new(2, 0..1).uniform((1, 1, 40, 40), &Device::Cpu).unwrap().ge(0.7).unwrap();
    let mask = mask.to_dtype(DType::F32).unwrap();
    let hiding = Inpaint::new(&mask).unwrap();
    let grey = Grayscale::rec601().unwrap();
    for operator in [&hiding as &dyn ForwardOperator, &grey] {
        let seen = observed(operator, (3, 40, 40)).unwrap();
        for sigma in [0.05, 0.4] {
            let noise = Gaussian::new(sigma).unwrap();
            let truth = Measurement::simulate(operator, &noise, &x, &mut Rng::new(3, 0..1)).unwrap();
            let Residual::Normalised(value) = Residual::of(&truth, &x, seen.as_deref()).unwrap() else {
                panic!("noise of {sigma} is Gaussian")
            };
            // χ² of about 1440 or 1600 values: a deviation of 1.9 % at most.
            assert!((value - 1.0).abs() < 0.06, "{value} for σ = {sigma}");
            // An image that is off by 2 σ everywhere has √(1 + 4), as noise is independent of it.
            let off = (&x + 2.0 * sigma).unwrap();
            let value = Residual::of(&truth, &off, seen.as_deref()).unwrap().value();
            assert!((value - 5_f64.sqrt()).abs() < 0.15, "{value} for σ = {sigma}");
        }
    }
    // Without noise, or with another than Gaussian, it is the root of the mean square itself.
    for noise in [Box::new(Gaussian::new(0.0).unwrap()) as Box<dyn NoiseModel>, Box::new(Laplace::new(0.1).unwrap())] {
        let y = hiding.forward(&x).unwrap();
        let measurement = Measurement { operator: &hiding, noise: &*noise, y };
        let seen = observed(&hiding, (3, 40, 40)).unwrap();
        let off = (&x + 0.25).unwrap();
        let Residual::Rms(value) = Residual::of(&measurement, &off, seen.as_deref()).unwrap() else {
            panic!("{noise:?} has no σ above 0")
        };
        assert!((value - 0.25).abs() < 1e-6, "{value}");
    }
}

#[test]
fn masks_are_recognised_and_other_operators_are_not_taken_for_one() {
    let mask = Tensor::from_vec(vec![1_f32, 0.0, 1.0, 1.0], (1, 1, 2, 2), &Device::Cpu).unwrap();
    let hiding = Inpaint::new(&mask).unwrap();
    assert_eq!(observed(&hiding, (3, 2, 2)).unwrap().unwrap(), [true, false, true, true].repeat(3));
    let nothing = Inpaint::new(&mask.ones_like().unwrap()).unwrap();
    assert_eq!(observed(&nothing, (3, 2, 2)).unwrap(), None);
    assert_eq!(observed(&Grayscale::rec601().unwrap(), (3, 2, 2)).unwrap(), None);
}

/// Truth and samples from one distribution, which differs from value to value: the intervals hold the truth as often as they
/// say, for every number of samples.
#[test]
fn a_calibrated_sampler_has_the_nominal_coverage_for_every_number_of_samples() {
    let values = 40_000;
    let draw = |stream: u64| -> Vec<f32> {
        let x = Rng::new(11, stream..stream + 1).normal((1, 1, 200, 200), &Device::Cpu).unwrap();
        let x = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        // Skewed, and of another location and scale each.
        x.iter().enumerate().map(|(i, x)| (i % 7) as f32 + (1.0 + (i % 3) as f32) * x.exp()).collect()
    };
    let truth = draw(0);
    let indices: Vec<usize> = (0..values).collect();
    for count in [2, 3, 4, 5, 8, 19, 20, 33] {
        let samples: Vec<Vec<f32>> = (1..=count).map(draw).collect();
        for p in [0.5, 0.9] {
            let found = Coverage::of(p, &samples, &truth, &indices).unwrap();
            let level = p.min((count as f64 - 1.0) / (count as f64 + 1.0));
            assert!((found.level - level).abs() < 1e-12, "{} for {count} samples", found.level);
            let error = (level * (1.0 - level) / values as f64).sqrt();
            assert!((found.share - level).abs() < 4.0 * error, "{found:?} for {count} samples, within {error}");
            assert!(found.error <= 1.1 * error && found.error > 0.0);
            // Samples that spread half as much hold it less often.
            let narrow: Vec<Vec<f32>> = samples
                .iter()
                .map(|sample| {
                    let middle = |i: usize| (i % 7) as f32 + (1.0 + (i % 3) as f32);
                    sample.iter().enumerate().map(|(i, x)| middle(i) + 0.5 * (x - middle(i))).collect()
                })
                .collect();
            let found = Coverage::of(p, &narrow, &truth, &indices).unwrap();
            assert!(found.share < level - 20.0 * error, "{found:?} for {count} samples");
        }
    }
}

/// Every place of the truth among the samples is as likely as any other.
#[test]
fn the_level_of_an_interval_is_its_mean_over_all_places_of_the_truth() {
    for samples in 2..40 {
        for p in [0.1, 0.5, 0.68, 0.9, 0.99] {
            let interval = Interval::central(p, samples).unwrap();
            let mean = (0..=samples).map(|rank| interval.holds(rank, 0)).sum::<f64>() / (samples + 1) as f64;
            assert!((mean - interval.level()).abs() < 1e-12, "{mean} and {} of {samples}", interval.level());
            // A truth that equals every sample takes any place.
            assert!((interval.holds(0, samples) - interval.level()).abs() < 1e-12);
            // One outside all samples is in no interval of samples.
            assert_eq!((interval.holds(0, 0), interval.holds(samples, 0)), (0.0, 0.0));
        }
    }
    assert!(Interval::central(0.5, 1).is_none());
}

#[test]
fn spread_and_the_mean_of_samples_are_taken_where_a_mask_hid_something() {
    let tensor = |values: &[f32]| Tensor::from_slice(values, (1, 1, 1, 2), &Device::Cpu).unwrap();
    let truth = tensor(&[0.0, 0.0]);
    let samples = [tensor(&[0.1, 0.2]), tensor(&[0.1, -0.2]), tensor(&[0.1, 0.3])];
    let of = Statistics::of(&samples, &truth, Some(&[true, false])).unwrap().unwrap();
    // Standard deviation of 0.2, −0.2, 0.3 with the divisor 2.
    assert!((of.spread - 127.5 * 0.07_f64.sqrt()).abs() < 1e-4, "{}", of.spread);
    assert!(of.hidden_only);
    // The mean is 0.1 off in both: 12.75 levels.
    assert!((of.psnr_of_mean - 20.0 * (255.0 / 12.75_f64).log10()).abs() < 1e-4, "{}", of.psnr_of_mean);
    // Three samples have one interval: all between the smallest and the largest, 50 %.
    assert_eq!(of.coverage.len(), 1);
    assert_eq!((of.coverage[0].level, of.coverage[0].share), (0.5, 1.0));
    let all = Statistics::of(&samples, &truth, None).unwrap().unwrap();
    assert!((all.spread - of.spread / 2.0).abs() < 1e-4);
    assert_eq!(all.coverage[0].share, 0.5);
    assert_eq!(Statistics::of(&samples[..1], &truth, None).unwrap(), None);
}
