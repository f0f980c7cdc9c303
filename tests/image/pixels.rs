//! From samples to tensors and back: what is not painted does not change.

use candle_core::{Device, Tensor};
use tweedie::image::{EncodeOptions, ImageError, Mask, OutputFormat, Photo, Region};

use super::{decode, encode, samples, varied};

const CPU: Device = Device::Cpu;

#[test]
fn the_tensor_is_the_encoded_value_on_minus_one_to_one() {
    let photo = Photo::from_u8(2, 1, 3, vec![0, 128, 255, 10, 20, 30]).unwrap();
    let x = photo.tensor(Region { x: 0, y: 0, width: 2, height: 1 }, &CPU).unwrap();
    assert_eq!(x.dims(), [1, 3, 1, 2]);
    let expected = [0, 10, 128, 20, 255, 30].map(|v| 2.0 * v as f32 / 255.0 - 1.0);
    for (found, expected) in x.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().zip(expected) {
        assert!((found - expected).abs() < 1e-6);
    }
    // Grey is replicated, alpha left out, 16 bits use their own scale.
    let photo = Photo::from_u16(2, 2, 2, vec![0, 5, 65535, 6, 32768, 7, 0, 8]).unwrap();
    let x = photo.tensor(Region { x: 0, y: 1, width: 1, height: 1 }, &CPU).unwrap();
    for value in x.flatten_all().unwrap().to_vec1::<f32>().unwrap() {
        assert!((value - (2.0 * 32768.0 / 65535.0 - 1.0)).abs() < 1e-6);
    }
}

/// Faults 17, 19, 25; the promise that the whole program is built around.
#[test]
fn what_is_not_painted_is_equal_in_the_file() {
    let mask = Mask::from_fn(11, 9, |x, y| (3..7).contains(&x) && (2..6).contains(&y) && (x + y) % 3 != 0);
    let region = Region { x: 2, y: 1, width: 6, height: 7 };
    for depth_16 in [false, true] {
        for channels in 1..=4 {
            for format in [OutputFormat::Png, OutputFormat::Tiff] {
                let before = varied(11, 9, channels, depth_16);
                let mut photo = before.clone();
                let x = Tensor::full(0.5f32, (1, 3, 7, 6), &CPU).unwrap();
                photo.paint(region, &mask, &x).unwrap();
                let after = decode(&encode(&photo, format)).unwrap();
                let painted = if depth_16 { 49151 } else { 191 };
                for y in 0..9 {
                    for x in 0..11 {
                        for channel in 0..channels {
                            let is_alpha = channels % 2 == 0 && channel == channels - 1;
                            let (old, new) = (before.sample(x, y, channel), after.sample(x, y, channel));
                            let is_clear = channels % 2 == 0 && before.sample(x, y, channels - 1) == 0;
                            if mask.is_set(x, y) && !is_alpha && !is_clear {
                                assert_eq!(new, painted, "{channels} channels at ({x}, {y}, {channel})");
                            } else {
                                assert_eq!(new, old, "{channels} channels at ({x}, {y}, {channel})");
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn painting_what_was_read_changes_nothing() {
    for depth_16 in [false, true] {
        for channels in 1..=4 {
            let before = varied(16, 16, channels, depth_16);
            let mut photo = before.clone();
            let all = Region { x: 0, y: 0, width: 16, height: 16 };
            let x = photo.tensor(all, &CPU).unwrap();
            photo.paint(all, &Mask::from_fn(16, 16, |_, _| true), &x).unwrap();
            assert_eq!(samples(&photo), samples(&before));
        }
    }
}

#[test]
fn painting_rounds_clamps_and_averages_to_grey() {
    let all = Region { x: 0, y: 0, width: 2, height: 1 };
    let mask = Mask::from_fn(2, 1, |_, _| true);
    let x = Tensor::new(&[[[-7f32, 0.0]], [[2.0, 0.001]], [[0.1, -0.003]]], &CPU).unwrap();
    let mut photo = Photo::from_u8(2, 1, 3, vec![9; 6]).unwrap();
    photo.paint(all, &mask, &x).unwrap();
    assert_eq!(photo.samples_u8().unwrap(), [0, 255, 140, 128, 128, 127]);
    let mut photo = Photo::from_u8(2, 1, 1, vec![9; 2]).unwrap();
    let x = Tensor::new(&[[[-0.5f32, 0.0]], [[0.5, 0.3]], [[0.6, 0.3]]], &CPU).unwrap();
    photo.paint(all, &mask, &x).unwrap();
    assert_eq!(photo.samples_u8().unwrap(), [153, 153]);
}

/// Fault 19.
#[test]
fn pixels_of_alpha_0_are_unknown_and_never_written() {
    let mut photo = Photo::from_u8(2, 1, 4, vec![10, 20, 30, 0, 40, 50, 60, 1]).unwrap();
    let unknown = photo.unknown().unwrap();
    assert!(unknown.is_set(0, 0) && !unknown.is_set(1, 0));
    let all = Region { x: 0, y: 0, width: 2, height: 1 };
    let mask = Mask::from_fn(2, 1, |_, _| true);
    let x = Tensor::ones((3, 1, 2), candle_core::DType::F32, &CPU).unwrap();
    photo.paint(all, &mask, &x).unwrap();
    assert_eq!(photo.samples_u8().unwrap(), [10, 20, 30, 0, 255, 255, 255, 1]);
    assert_eq!(samples(&decode(&encode(&photo, OutputFormat::WebP)).unwrap()), samples(&photo));
    // Unless the hole is what is to be filled.
    photo.make_opaque(&unknown);
    photo.paint(all, &unknown, &x).unwrap();
    assert_eq!(photo.samples_u8().unwrap(), [255, 255, 255, 255, 255, 255, 255, 1]);
    assert!(photo.unknown().is_none());
    assert!(varied(3, 3, 3, false).unknown().is_none());
}

#[test]
fn what_does_not_fit_is_an_error_and_paints_nothing() {
    let before = varied(4, 4, 3, false);
    let mut photo = before.clone();
    let mask = Mask::from_fn(4, 4, |_, _| true);
    let region = Region { x: 1, y: 1, width: 2, height: 2 };
    let mut values = vec![0f32; 12];
    values[5] = f32::NAN;
    let nan = Tensor::from_vec(values, (1, 3, 2, 2), &CPU).unwrap();
    let error = photo.paint(region, &mask, &nan).unwrap_err().to_string();
    assert!(error.contains("value at (2, 1) is not finite"), "{error}");
    let x = Tensor::zeros((1, 3, 2, 3), candle_core::DType::F32, &CPU).unwrap();
    let error = photo.paint(region, &mask, &x).unwrap_err().to_string();
    assert!(error.contains("expected [1, 3, 2, 2] or [3, 2, 2], got [1, 3, 2, 3]"), "{error}");
    let x = Tensor::zeros((1, 3, 2, 2), candle_core::DType::F32, &CPU).unwrap();
    assert!(photo.paint(region, &Mask::from_fn(4, 5, |_, _| true), &x).is_err());
    for region in [
        Region { x: 3, y: 1, width: 2, height: 2 },
        Region { x: 0, y: 0, width: 0, height: 2 },
        Region { x: usize::MAX, y: 0, width: 2, height: 2 },
    ] {
        assert!(photo.paint(region, &mask, &x).is_err());
        assert!(photo.tensor(region, &CPU).is_err());
        assert!(mask.tensor(region, &CPU).is_err());
    }
    assert_eq!(samples(&photo), samples(&before));
    // A NaN that nobody wants is not looked at.
    photo.paint(region, &Mask::from_fn(4, 4, |x, y| (x, y) == (1, 1)), &nan).unwrap();
    assert_ne!(samples(&photo), samples(&before));
}

#[test]
fn a_photo_of_the_wrong_number_of_samples_is_refused() {
    let error = Photo::from_u8(2, 2, 3, vec![0; 11]).unwrap_err();
    assert_eq!(error.to_string(), "2x2 with 3 channels needs 12 samples, got 11; channels are 1 to 4");
    assert!(matches!(Photo::from_u16(0, 2, 3, vec![]), Err(ImageError::Shape { .. })));
    assert!(matches!(Photo::from_u8(1, 1, 5, vec![0; 5]), Err(ImageError::Shape { .. })));
}

#[test]
fn a_saved_photo_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("photo.png");
    let photo = varied(5, 4, 4, true);
    photo.save(&path, OutputFormat::Png, &EncodeOptions::default(), false).unwrap();
    let back = Photo::open(&path, &Default::default()).unwrap();
    assert_eq!(samples(&back), samples(&photo));
    assert_eq!(back.path(), path);
}

#[test]
fn public_types_can_be_sent_and_shared() {
    fn check<T: Send + Sync + std::fmt::Debug>() {}
    check::<Photo>();
    check::<Mask>();
    check::<ImageError>();
    check::<EncodeOptions>();
}
