use candle_core::{DType, Device, Tensor};
use tweedie_operators::{ForwardOperator, LinearOperator, OPERATORS, SpectralOperator, find, forward};

use crate::goldens::{Golden, SIZES};
use crate::{relative_error, site, values};

fn resize(factor: usize, cutoff: f64, height: usize, width: usize) -> forward::Resize {
    let factor = forward::Factor::new(factor, 1).unwrap();
    let site = site((3, height, width), DType::F32);
    forward::Resize::new(factor, forward::ResizeKernel::Bicubic, true, forward::Align::Centre, cutoff, site).unwrap()
}

/// Singular values that are not zero, largest first, of `channels` channels.
fn seen(spectral: &dyn SpectralOperator, channels: usize) -> Vec<f64> {
    let s = values(spectral.singular_values());
    let mut seen: Vec<f64> = s.into_iter().filter(|&s| s > 0.0).flat_map(|s| vec![s; channels]).collect();
    seen.sort_by(|a, b| b.total_cmp(a));
    seen
}

fn assert_singular_values(golden: &Golden, spectral: &dyn SpectralOperator, channels: usize) {
    let mut expected = values(&golden.file["singulars"]);
    expected.sort_by(|a, b| b.total_cmp(a));
    let got = seen(spectral, channels);
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.into_iter().zip(expected) {
        assert!((got - expected).abs() < 1e-6 * expected, "{got} and {expected}");
    }
}

#[test]
fn resizing_gives_the_numbers_of_dps() {
    for (name, factor) in [("resizer_bicubic_x2", 2), ("resizer_bicubic_x4", 4)] {
        for (size, height, width) in SIZES {
            Golden::load(name, size).check(&resize(factor, 0.0, height, width));
        }
    }
}

#[test]
fn resizing_through_its_decomposition_gives_the_numbers_of_ddrm() {
    for (name, factor) in [("ddrm_sr_bicubic2", 2), ("ddrm_sr_bicubic4", 4)] {
        let golden = Golden::load(name, "32x32");
        // DDRM cuts factors below 0.03, of which there are none here: both ways must give the same.
        for cutoff in [0.0, 0.03] {
            let operator = resize(factor, cutoff, 32, 32);
            golden.check(&operator);
            assert_singular_values(&golden, operator.as_spectral().unwrap(), 3);
        }
        let taps = forward::LowPass::Bicubic.taps(factor);
        let expected = values(&golden.file["kernel"]);
        assert!(taps.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-7), "{taps:?}");
    }
}

#[test]
fn block_means_give_the_numbers_of_ddrm() {
    for (name, factor) in [("ddrm_sr2", 2), ("ddrm_sr4", 4)] {
        let golden = Golden::load(name, "32x32");
        let operator = forward::DownsampleBox::new(factor, site((3, 32, 32), DType::F32)).unwrap();
        golden.check(&operator);
        assert_singular_values(&golden, &operator, 3);
    }
}

#[test]
fn area_resizing_is_the_block_mean() {
    for (name, factor) in [("box_average_x2", 2), ("box_average_x4", 4)] {
        let settings = format!("factor = {factor}\nkernel = 'box'").parse().unwrap();
        let operator = find(OPERATORS, "downsample").unwrap().create(settings, site((3, 32, 32), DType::F32)).unwrap();
        Golden::load(name, "32x32").check(operator.as_linear().unwrap());
    }
}

#[test]
fn grey_values_give_the_numbers_of_ddrm() {
    let golden = Golden::load("ddrm_color", "32x32");
    let operator = forward::Grayscale::new(&[0.3333, 0.3334, 0.3333]).unwrap();
    golden.check(&operator);
    // One for each of the 32 × 32 pixels, where ours stands once for all of them.
    let [norm] = seen(&operator, 1)[..] else { panic!("one singular value is not zero") };
    let expected = values(&golden.file["singulars"]);
    assert!(expected.len() == 1024 && expected.iter().all(|s| (s - norm).abs() < 1e-6), "{norm}");
}

#[test]
fn flat_grey_values_give_the_numbers_of_deepinv() {
    for (size, ..) in SIZES {
        let golden = Golden::load("decolorize_flat", size);
        let weights = values(&golden.file["weights"]);
        golden.check(&forward::Grayscale::new(&weights).unwrap());
    }
}

#[test]
fn masks_give_the_numbers_of_ddrm_in_its_order_of_pixels() {
    let golden = Golden::load("ddrm_inpainting", "32x32");
    // Its entries are numbered pixel by pixel, channels last.
    let mut kept = vec![true; 3 * 1024];
    values(&golden.file["missing_indices"]).into_iter().for_each(|missing| kept[missing as usize] = false);
    let kept: Vec<usize> = (0..kept.len()).filter(|&entry| kept[entry]).collect();
    let place = |entry: usize| entry % 3 * 1024 + entry / 3;
    // A list of what is kept, as an image with zeros elsewhere.
    let image = |list: Vec<f64>| {
        let mut image = vec![0f32; 3 * 1024];
        kept.iter().zip(list).for_each(|(&entry, value)| image[place(entry)] = value as f32);
        Tensor::from_vec(image, (1, 3, 32, 32), &Device::Cpu).unwrap()
    };
    let operator = forward::Inpaint::new(&image(vec![1.0; kept.len()])).unwrap();
    let near = |a: Tensor, b: &Tensor| assert!(relative_error(&a, b) < 1e-6);
    near(operator.forward(golden.input("x")).unwrap(), &image(values(golden.get("y"))));
    let v = image(values(golden.get("v")));
    near(operator.adjoint(&v).unwrap(), golden.get("At_v"));
    near(operator.pseudo_inverse(&v).unwrap(), golden.get("pinv_v"));
    assert!(values(&golden.file["singulars"]).iter().all(|&s| s == 1.0));
    assert_eq!(seen(&operator, 1).len(), kept.len());
}

#[test]
fn filters_with_a_stride_give_the_numbers_of_deepinv() {
    use forward::{LowPass, Padding};
    for (name, low_pass, factor, padding) in [
        ("downsampling_bicubic_x2_circular", LowPass::Bicubic, 2, Padding::Circular),
        ("downsampling_bicubic_x2_constant", LowPass::Bicubic, 2, Padding::Zero),
        ("downsampling_bicubic_x2_reflect", LowPass::Bicubic, 2, Padding::Reflect),
        ("downsampling_bicubic_x4_circular", LowPass::Bicubic, 4, Padding::Circular),
        ("downsampling_bicubic_x4_constant", LowPass::Bicubic, 4, Padding::Zero),
        ("downsampling_bicubic_x4_reflect", LowPass::Bicubic, 4, Padding::Reflect),
        ("downsampling_bilinear_x2_circular", LowPass::Bilinear, 2, Padding::Circular),
        ("downsampling_gaussian_x2_circular", LowPass::Gaussian, 2, Padding::Circular),
    ] {
        for (size, height, width) in SIZES {
            let golden = Golden::load(name, size);
            let stored = golden.file["kernel"].squeeze(0).unwrap().squeeze(0).unwrap();
            let taps = Tensor::new(low_pass.taps(factor).as_slice(), &Device::Cpu).unwrap();
            let kernel = taps.unsqueeze(1).unwrap().matmul(&taps.unsqueeze(0).unwrap()).unwrap();
            assert!(relative_error(&kernel, &stored) < 1e-6, "{name}");
            let site = site((3, height, width), DType::F32);
            for kernel in [stored, kernel] {
                golden.check(&forward::DownsampleKernel::new(&kernel, factor, padding, site).unwrap());
            }
        }
    }
}
