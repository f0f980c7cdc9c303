use candle_core::{DType, Device, Tensor};
use tweedie_operators::{ForwardOperator, NOISES, OPERATORS, Result, find, forward, noise};

use crate::{random, site, values};

fn refusal(name: &str, settings: &str) -> String {
    let entry = find(OPERATORS, name).unwrap();
    entry.create(settings.parse().unwrap(), site((3, 6, 9), DType::F32)).unwrap_err().to_string()
}

#[test]
fn unknown_names_are_answered_with_the_known_ones() {
    assert_eq!(
        find(OPERATORS, "blurr").unwrap_err().to_string(),
        "unknown name `blurr`; known: identity, inpaint_box, inpaint_random, grayscale, downsample_box, downsample, \
         downsample_kernel, blur_separable"
    );
    assert_eq!(find(NOISES, "gauss").unwrap_err().to_string(), "unknown name `gauss`; known: gaussian");
}

#[test]
fn wrong_settings_are_answered_with_what_is_allowed() {
    assert_eq!(refusal("inpaint_box", "sise = 3"), "inpaint_box: unknown field `sise`, expected `size`");
    assert_eq!(refusal("inpaint_box", ""), "inpaint_box: missing field `size`");
    let message = refusal("inpaint_random", "misssing = 0.5");
    assert_eq!(message, "inpaint_random: unknown field `misssing`, expected `missing` or `seed`");
    let message = refusal("inpaint_box", "size = 'large'");
    assert!(message.contains("invalid type: string \"large\", expected usize"), "{message}");
    assert!(message.starts_with("inpaint_box: ") && !message.contains('\n'), "{message}");
}

#[test]
fn settings_out_of_range_are_answered_with_the_range() {
    let message = refusal("inpaint_box", "size = 7");
    assert_eq!(message, "inpaint_box: size is 7, expected 1 to 6 for an image of 9x6");
    let message = refusal("inpaint_random", "missing = 1.5");
    assert_eq!(message, "inpaint_random: missing is 1.5, expected a fraction from 0 to 1");
    let message = refusal("downsample_box", "factor = 0");
    assert_eq!(message, "downsample_box: factor is 0, expected 1 to 6 for an image of 9x6");
    let entry = find(OPERATORS, "grayscale").unwrap();
    let error = entry.create(toml::Table::new(), site((1, 6, 9), DType::F32)).unwrap_err();
    assert_eq!(error.to_string(), "grayscale: image has 1 channels, expected 3");
    let error = find(NOISES, "gaussian").unwrap().create("sigma = -1.0".parse().unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "gaussian: sigma is -1, expected a finite number of at least 0");
    assert!(noise::Gaussian::new(f64::NAN).is_err());
}

#[test]
fn the_centred_box_hides_its_square() {
    let mask = forward::Inpaint::centred_box(2, site((3, 4, 5), DType::F32)).unwrap();
    #[rustfmt::skip]
    let expected = [
        1., 1., 1., 1., 1.,
        1., 0., 0., 1., 1.,
        1., 0., 0., 1., 1.,
        1., 1., 1., 1., 1.,
    ];
    assert_eq!(values(mask.mask()), expected);
}

#[test]
fn random_masks_hide_the_fraction_asked_for() {
    let site = site((3, 20, 30), DType::F32);
    let build = |settings: &str| -> Result<Vec<f64>> {
        let operator = find(OPERATORS, "inpaint_random")?.create(settings.parse().unwrap(), site)?;
        let ones = Tensor::ones((1, 3, 20, 30), DType::F32, &Device::Cpu)?;
        Ok(values(&operator.forward(&ones)?))
    };
    let default = build("").unwrap();
    assert_eq!(default.iter().filter(|&&seen| seen == 0.0).count(), 3 * 420, "0.7 of 600 pixels, in 3 channels");
    assert_eq!(default[..600], default[600..1200], "channels share the mask");
    assert_eq!(default, build("missing = 0.7\nseed = 0").unwrap());
    assert_ne!(default, build("seed = 1").unwrap());
    assert!(build("missing = 0").unwrap().iter().all(|&seen| seen == 1.0));
    assert!(build("missing = 1.0").unwrap().iter().all(|&seen| seen == 0.0));
}

#[test]
fn masks_of_one_channel_and_of_each_channel_work() {
    let x = random(&[2, 3, 2, 2], 1, DType::F64);
    let shared = Tensor::from_slice(&[1u8, 0, 0, 1], (1, 1, 2, 2), &Device::Cpu).unwrap();
    let each = shared.broadcast_as((1, 3, 2, 2)).unwrap().contiguous().unwrap();
    let one = forward::Inpaint::new(&shared).unwrap().forward(&x).unwrap();
    let three = forward::Inpaint::new(&each).unwrap().forward(&x).unwrap();
    assert_eq!(one.dtype(), DType::F64);
    assert_eq!(values(&one), values(&three));
}

#[test]
fn masks_and_images_that_do_not_fit_are_refused() {
    let mask = |shape: (usize, usize, usize, usize), value: f32| {
        forward::Inpaint::new(&Tensor::full(value, shape, &Device::Cpu).unwrap())
    };
    let message = mask((2, 1, 2, 2), 1.0).unwrap_err().to_string();
    assert_eq!(message, "mask of inpaint has shape [2, 1, 2, 2], expected [1, _, _, _], one mask for all rows");
    let message = mask((1, 1, 2, 2), 0.5).unwrap_err().to_string();
    assert_eq!(message, "inpaint: mask holds 0.5, expected 0 (missing) or 1 (seen)");
    let message = mask((1, 3, 2, 2), 1.0).unwrap().forward(&random(&[1, 1, 2, 3], 1, DType::F32)).unwrap_err();
    assert_eq!(message.to_string(), "image for inpaint has shape [1, 1, 2, 3], expected [_, 3, 2, 2]");
    let grayscale = forward::Grayscale::rec601().unwrap();
    let message = grayscale.forward(&random(&[1, 1, 2, 3], 1, DType::F32)).unwrap_err();
    assert_eq!(message.to_string(), "image for grayscale has shape [1, 1, 2, 3], expected [_, 3, _, _]");
}
