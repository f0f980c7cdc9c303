use candle_core::{DType, Device, Tensor};
use tweedie_operators::forward::{
    Align, BlurSeparable, DownsampleKernel, Factor, LowPass, Padding, Resize, ResizeKernel,
};
use tweedie_operators::{ForwardOperator, GramOperator, LinearOperator, Measurement, OPERATORS, find, noise};

use crate::{SIZES, inner, norm, random, relative_error, site, values};

const PADDINGS: [Padding; 5] =
    [Padding::Circular, Padding::Zero, Padding::Reflect, Padding::Replicate, Padding::Symmetric];

/// A kernel that is no product.
fn kernel(rows: usize, columns: usize) -> Tensor {
    let taps: Vec<f64> = (0..rows * columns).map(|i| ((i * i + 2) as f64 * 0.61).sin()).collect();
    Tensor::from_vec(taps, (rows, columns), &Device::Cpu).unwrap()
}

/// The pixel at any place, by walking step by step from inside the image.
fn beyond(padding: Padding, index: i64, size: i64) -> Option<i64> {
    let mut index = index;
    loop {
        index = match (padding, index < 0, index >= size) {
            (_, false, false) => return Some(index),
            (Padding::Zero, ..) => return None,
            (Padding::Circular, true, _) => index + size,
            (Padding::Circular, ..) => index - size,
            (Padding::Replicate, true, _) => 0,
            (Padding::Replicate, ..) => size - 1,
            (Padding::Symmetric, true, _) => -index - 1,
            (Padding::Symmetric, ..) => 2 * size - 1 - index,
            (Padding::Reflect, true, _) => -index,
            (Padding::Reflect, ..) => 2 * size - 2 - index,
            _ => panic!("unknown padding"),
        }
    }
}

#[test]
fn a_filter_with_a_stride_is_what_its_formula_says() {
    for (height, width) in SIZES {
        for (rows, columns, factor) in [(1, 1, 2), (3, 3, 1), (3, 4, 2), (4, 5, 3), (9, 14, 2), (2, 13, 5)] {
            for padding in PADDINGS {
                let kernel = kernel(rows, columns);
                let operator =
                    DownsampleKernel::new(&kernel, factor, padding, site((2, height, width), DType::F64)).unwrap();
                let x = random(&[1, 2, height, width], 1, DType::F64);
                let (k, pixels) = (values(&kernel), values(&x));
                let mut expected = Vec::new();
                for channel in 0..2 {
                    for i in 0..height.div_ceil(factor) {
                        for j in 0..width.div_ceil(factor) {
                            let mut sum = 0.0;
                            for (tap, k) in k.iter().enumerate() {
                                let (a, b) = (tap / columns, tap % columns);
                                let row = (i * factor + rows / 2) as i64 - a as i64;
                                let column = (j * factor + columns / 2) as i64 - b as i64;
                                let row = beyond(padding, row, height as i64);
                                let column = beyond(padding, column, width as i64);
                                if let (Some(row), Some(column)) = (row, column) {
                                    sum += k * pixels[(channel * height + row as usize) * width + column as usize];
                                }
                            }
                            expected.push(sum);
                        }
                    }
                }
                let y = operator.forward(&x).unwrap();
                let what = format!("{rows}x{columns}, factor {factor}, {padding:?} at {height}x{width}");
                let scale = norm(&y);
                let close = |(a, b): (f64, f64)| (a - b).abs() <= 1e-13 * scale;
                assert!(values(&y).into_iter().zip(expected).all(close), "{what}");
                let v = random(y.dims(), 2, DType::F64);
                let gap = inner(&y, &v) - inner(&x, &operator.adjoint(&v).unwrap());
                assert!(gap.abs() <= 1e-13 * scale * norm(&v), "{what}: adjoint {gap:e}");
                let gram =
                    padding == Padding::Circular && height.is_multiple_of(factor) && width.is_multiple_of(factor);
                assert_eq!(operator.as_gram().is_some(), gram, "{what}");
            }
        }
    }
}

#[test]
fn a_product_gives_the_same_numbers_as_any_other_kernel() {
    let site = site((3, 37, 41), DType::F64);
    let taps = Tensor::new(LowPass::Gaussian.taps(3).as_slice(), &Device::Cpu).unwrap();
    let product = taps.unsqueeze(1).unwrap().matmul(&taps.unsqueeze(0).unwrap()).unwrap();
    let corner = Tensor::eye(1, DType::F64, &Device::Cpu).unwrap();
    let (rows, columns) = product.dims2().unwrap();
    let corner = corner.pad_with_zeros(0, 0, rows - 1).unwrap().pad_with_zeros(1, 0, columns - 1).unwrap();
    let x = random(&[2, 3, 37, 41], 1, DType::F64);
    for padding in PADDINGS {
        // The filter with a tap more is no product; the tap alone is one.
        let operator = |kernel: &Tensor| DownsampleKernel::new(kernel, 3, padding, site).unwrap();
        let (both, alone) = (operator(&(&product + &corner).unwrap()), operator(&corner));
        let product = operator(&product);
        assert!(product.as_spectral().is_some() && alone.as_spectral().is_some() && both.as_spectral().is_none());
        let sum = (product.forward(&x).unwrap() + alone.forward(&x).unwrap()).unwrap();
        assert!(relative_error(&both.forward(&x).unwrap(), &sum) < 1e-14, "{padding:?}");
        let v = random(sum.dims(), 2, DType::F64);
        let sum = (product.adjoint(&v).unwrap() + alone.adjoint(&v).unwrap()).unwrap();
        assert!(relative_error(&both.adjoint(&v).unwrap(), &sum) < 1e-14, "{padding:?}");
    }
}

#[test]
fn both_closed_forms_of_a_proximal_map_agree() {
    for (padding, height, width) in [(Padding::Circular, 12, 20), (Padding::Circular, 6, 4)] {
        let taps = Tensor::new(LowPass::Bicubic.taps(2).as_slice(), &Device::Cpu).unwrap();
        let kernel = taps.unsqueeze(1).unwrap().matmul(&taps.unsqueeze(0).unwrap()).unwrap();
        let operator = DownsampleKernel::new(&kernel, 2, padding, site((3, height, width), DType::F64)).unwrap();
        let (x, z) = (random(&[1, 3, height, width], 1, DType::F64), random(&[1, 3, height, width], 2, DType::F64));
        let y = operator.forward(&x).unwrap();
        let (spectral, gram) = (operator.as_spectral().unwrap(), operator.as_gram().unwrap());
        let pinv = gram.adjoint(&gram.solve_gram(&y, 0.0).unwrap()).unwrap();
        assert!(relative_error(&pinv, &spectral.pseudo_inverse(&y).unwrap()) < 1e-12);
        let noise = noise::Gaussian::new(0.2).unwrap();
        let prox = |operator: &dyn ForwardOperator| Measurement { operator, noise: &noise, y: y.clone() }.prox(&z, 0.7);
        // The decomposition alone, without the Gram matrix.
        assert!(relative_error(&prox(&operator).unwrap(), &prox(spectral).unwrap()) < 1e-12);
    }
}

#[test]
fn a_table_of_values_is_the_filter_of_that_name() {
    let x = random(&[1, 2, 12, 18], 1, DType::F64);
    let forward = |settings: &str| {
        let entry = find(OPERATORS, "downsample_kernel").unwrap();
        entry.create(settings.parse().unwrap(), site((2, 12, 18), DType::F64)).unwrap().forward(&x).unwrap()
    };
    let taps = LowPass::Bicubic.taps(3);
    let rows: Vec<Vec<f64>> = taps.iter().map(|y| taps.iter().map(|x| y * x).collect()).collect();
    for more in ["", "correlate = true", "padding = 'reflect'", "padding = 'zero'\ncorrelate = true"] {
        let named = forward(&format!("factor = 3\nkernel = 'bicubic'\n{more}"));
        let table = forward(&format!("factor = 3\nkernel = {{ shape = 'values', rows = {rows:?} }}\n{more}"));
        assert!(relative_error(&table, &named) < 1e-14, "{more}");
    }
}

#[test]
fn a_stride_keeps_every_pixel_of_the_blur_that_it_would_keep() {
    let x = random(&[1, 1, 11, 14], 1, DType::F64);
    let forward = |name: &str, settings: &str| {
        let entry = find(OPERATORS, name).unwrap();
        entry.create(settings.parse().unwrap(), site((1, 11, 14), DType::F64)).unwrap().forward(&x).unwrap()
    };
    let kernels = [
        "{ shape = 'values', rows = [[0.1, 0.7, 0.2, 0.4], [0.3, -0.2, 0.5, 0.6]] }",
        "{ shape = 'values', rows = [[0.1, 0.7, 0.2], [0.3, -0.2, 0.5], [0.9, 0.8, 0.6]] }",
        "{ shape = 'gaussian', sigma = 1.0 }",
    ];
    for kernel in kernels {
        for padding in ["circular", "zero", "reflect", "replicate", "symmetric"] {
            for correlate in [false, true] {
                let settings = format!("kernel = {kernel}\npadding = '{padding}'\ncorrelate = {correlate}\n");
                let blurred =
                    forward("blur", &(settings.clone() + if padding == "circular" { "cutoff = 0" } else { "" }));
                let kept = |count: u32| Tensor::arange_step(0, count, 3, &Device::Cpu).unwrap();
                let expected = blurred.index_select(&kept(11), 2).unwrap().index_select(&kept(14), 3).unwrap();
                let got = forward("downsample_kernel", &(settings.clone() + "factor = 3"));
                assert!(relative_error(&got, &expected) < 1e-14, "{settings}");
            }
        }
    }
}

#[test]
fn gram_matrices_of_any_kernel_are_inverted() {
    for (rows, columns, factor) in [(3, 5, 2), (9, 14, 4), (2, 2, 3), (30, 31, 2)] {
        let site = site((1, 12, 24), DType::F64);
        let operator = DownsampleKernel::new(&kernel(rows, columns), factor, Padding::Circular, site).unwrap();
        let v = random(&[1, 1, 12 / factor, 24 / factor], 1, DType::F64);
        let u = operator.solve_gram(&v, 0.3).unwrap();
        let back = (operator.forward(&operator.adjoint(&u).unwrap()).unwrap() + (u * 0.3).unwrap()).unwrap();
        assert!(relative_error(&back, &v) < 1e-12, "{rows}x{columns} at {factor}");
    }
    let elsewhere = DownsampleKernel::new(&kernel(3, 3), 2, Padding::Zero, site((1, 12, 24), DType::F64)).unwrap();
    let error = elsewhere.solve_gram(&random(&[1, 1, 6, 12], 1, DType::F64), 0.3).unwrap_err().to_string();
    assert_eq!(error, "solve_gram needs a circular border and sizes that are multiples of the factor");
}

#[test]
fn resizing_laws_hold_for_all_kernels_and_factors() {
    let kernels = [ResizeKernel::Bicubic, ResizeKernel::Bilinear, ResizeKernel::Lanczos, ResizeKernel::Box];
    for (height, width) in [(8, 8), (7, 7), (6, 11), (19, 40)] {
        for (p, q) in [(1, 1), (5, 4), (3, 2), (2, 1), (3, 1), (5, 1)] {
            for kernel in kernels {
                for (antialias, align) in
                    [(true, Align::Corner), (true, Align::Centre), (false, Align::Centre), (false, Align::Corner)]
                {
                    let factor = Factor::new(p, q).unwrap();
                    let site = site((2, height, width), DType::F64);
                    let operator = Resize::new(factor, kernel, antialias, align, 0.0, site).unwrap();
                    let what = format!("{kernel:?} by {p}/{q}, antialias {antialias}, {align:?}, at {height}x{width}");
                    let x = random(&[1, 2, height, width], 1, DType::F64);
                    let y = operator.forward(&x).unwrap();
                    let size = |size: usize| (size * q).div_ceil(p);
                    assert_eq!(y.dims(), [1, 2, size(height), size(width)], "{what}");
                    let v = random(y.dims(), 2, DType::F64);
                    let gap = inner(&y, &v) - inner(&x, &operator.adjoint(&v).unwrap());
                    assert!(gap.abs() <= 1e-13 * norm(&y) * norm(&v), "{what}: adjoint {gap:e}");
                    let constant = operator.forward(&x.ones_like().unwrap()).unwrap();
                    assert!(values(&constant).iter().all(|y| (y - 1.0).abs() < 1e-13), "{what}: constants");
                    if p == q {
                        assert!(relative_error(&y, &x) < 1e-15, "{what}: identity");
                    }
                    let spectral = operator.as_spectral().unwrap();
                    let again = operator.forward(&spectral.pseudo_inverse(&y).unwrap()).unwrap();
                    assert!(relative_error(&again, &y) < 1e-9, "{what}: pseudo-inverse");
                }
            }
        }
    }
}

#[test]
fn lines_are_resized_as_computed_by_hand() {
    let check = |settings: &str, x: &[f64], expected: &[f64]| {
        // A row of square images: all lines are the same, and so are those of the result.
        let size = x.len();
        let image =
            Tensor::new(x, &Device::Cpu).unwrap().broadcast_as((1, 1, size, size)).unwrap().contiguous().unwrap();
        let entry = find(OPERATORS, "downsample").unwrap();
        let operator = entry.create(settings.parse().unwrap(), site((1, size, size), DType::F64)).unwrap();
        let y = values(&operator.forward(&image).unwrap());
        for line in y.chunks(expected.len()) {
            assert!(line.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-14), "{settings}: {line:?}");
        }
    };
    // Areas of 3/2 pixels; half of the last lies beyond the border, in the mirrored last pixel.
    check("factor = '3/2'\nkernel = 'box'", &[3.0, 6.0, 9.0, 12.0], &[4.0, 8.0, 12.0]);
    // The same in the middle: 1/4 of a pixel lies beyond each end.
    check("factor = '3/2'\nkernel = 'box'\nalign = 'centre'", &[3.0, 6.0, 9.0, 12.0], &[3.5, 7.5, 11.5]);
    // Triangles of radius 2 at 1/2 and 5/2: weights 1/8, 3/8, 3/8, 1/8, the outermost on the mirrored pixel.
    check("factor = 2\nkernel = 'bilinear'", &[8.0, 0.0, 0.0, 16.0], &[4.0, 8.0]);
    // Not antialiased at 1/2 and 5/2: cubic weights −1/16, 9/16, 9/16, −1/16.
    check("factor = 2\nantialias = false", &[16.0, 0.0, 0.0, 32.0], &[8.0, 16.0]);
    // Nearest pixels of the places 1 and 4.
    check("factor = 3\nkernel = 'box'\nantialias = false", &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2.0, 5.0]);
}

#[test]
fn small_singular_values_are_cut_off_in_the_operator_itself() {
    let site = site((2, 12, 16), DType::F64);
    let build = |cutoff: f64| {
        Resize::new(Factor::new(2, 1).unwrap(), ResizeKernel::Bilinear, true, Align::Corner, cutoff, site)
    };
    let (full, cut) = (build(0.0).unwrap(), build(0.4).unwrap());
    let s = |operator: &Resize| values(operator.as_spectral().unwrap().singular_values());
    let kept = s(&cut).iter().filter(|&&s| s > 0.0).count();
    assert!(kept > 0 && kept < s(&full).iter().filter(|&&s| s > 0.0).count());
    // The part of what the full operator gives that lies in the range of the other.
    let x = random(&[1, 2, 12, 16], 1, DType::F64);
    let spectral = cut.as_spectral().unwrap();
    let (y, all) = (cut.forward(&x).unwrap(), full.forward(&x).unwrap());
    let part = spectral.forward(&spectral.pseudo_inverse(&all).unwrap()).unwrap();
    assert!(relative_error(&y, &part) < 1e-13);
    let v = random(y.dims(), 2, DType::F64);
    assert!((inner(&y, &v) - inner(&x, &cut.adjoint(&v).unwrap())).abs() < 1e-13 * norm(&y) * norm(&v));
    let message = build(3.0).unwrap_err().to_string();
    assert!(
        message.starts_with("downsample: cutoff is 3, expected less than the largest singular value 0."),
        "{message}"
    );
    let message = build(f64::NAN).unwrap_err().to_string();
    assert_eq!(message, "downsample: cutoff is NaN, expected a finite number of at least 0");
}

#[test]
fn images_shapes_follow_from_the_factor() {
    let shape = |name: &str, settings: &str, y: &[usize]| {
        find(OPERATORS, name)
            .unwrap()
            .image_shape(&settings.parse().unwrap(), y, crate::site((0, 0, 0), DType::F32))
            .map_err(|e| e.to_string())
    };
    assert_eq!(shape("downsample", "factor = 4", &[3, 9, 12]), Ok((3, 36, 48)));
    assert_eq!(shape("downsample", "factor = 1.5", &[1, 9, 12]), Ok((1, 13, 18)));
    assert_eq!(shape("downsample_kernel", "factor = 3", &[1, 9, 12]), Ok((1, 27, 36)));
    let message = "downsample: measurement is [9, 12], expected [C, H, W]".to_string();
    assert_eq!(shape("downsample", "factor = 4", &[9, 12]), Err(message));
}

#[test]
fn kernels_and_factors_that_do_not_fit_are_refused() {
    let refusal = |name: &str, settings: &str| {
        let entry = find(OPERATORS, name).unwrap();
        entry.create(settings.parse().unwrap(), site((3, 6, 9), DType::F32)).unwrap_err().to_string()
    };
    let message = refusal("downsample", "factor = 7");
    assert_eq!(message, "downsample: factor is 7/1, expected 1 to 6 for an image of 9x6");
    let message = refusal("downsample", "factor = 2\nkernel = 'cubic'");
    assert!(message.starts_with("downsample: unknown variant `cubic`, expected one of `bicubic`"), "{message}");
    let message = refusal("downsample_kernel", "factor = 0");
    assert_eq!(message, "downsample_kernel: factor is 0, expected 1 to 6 for an image of 9x6");
    let message = refusal("blur_separable", "taps = [1]\nsigma = 1");
    assert_eq!(message, "blur_separable: taps and sigma are both given, expected one of them");
    let message = refusal("blur_separable", "sigma = 10");
    assert_eq!(message, "blur_separable: sigma is 10, expected a number above 0, at most 9 for an image of 9x6");
    let message = refusal("blur_separable", "taps = []");
    assert_eq!(message, "blur_separable: taps are [], expected finite ones, not all zero");
    let message = refusal("downsample_kernel", "factor = 2\nkernel = 3");
    let expected = "kernel is 3, expected a name such as \"bicubic\" or a table with a shape";
    assert!(message.starts_with("downsample_kernel: ") && message.contains(expected), "{message}");
    let message = refusal("downsample_kernel", "factor = 2\nkernel = 'box'");
    assert!(message.contains("unknown variant `box`, expected one of `bicubic`, `bilinear`, `gaussian`"), "{message}");
    let message = refusal("downsample_kernel", "factor = 2\nkernel = { shape = 'gaussian' }");
    assert!(message.contains("missing field `sigma`"), "{message}");
    for (name, settings) in [("downsample_kernel", "factor = 2"), ("blur_separable", "sigma = 1")] {
        let message = refusal(name, &format!("padding = 'valid'\n{settings}"));
        let expected = "padding is valid, expected circular, zero, reflect, replicate or symmetric";
        assert_eq!(message, format!("{name}: {expected}"));
    }
    let build = |kernel: Tensor| {
        DownsampleKernel::new(&kernel, 2, Padding::Zero, site((3, 6, 9), DType::F32)).unwrap_err().to_string()
    };
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    assert_eq!(build(zeros(&[2, 2])), "downsample_kernel: kernel is all zeros, expected a tap that is not");
    assert_eq!(build(zeros(&[2])), "kernel of downsample_kernel has shape [2], expected [_, _], at least one tap");
    assert_eq!(build((zeros(&[2, 2]) + f64::NAN).unwrap()), "kernel of downsample_kernel is not finite");
}

#[test]
fn blurs_of_two_lines_are_those_of_their_product() {
    let (vertical, horizontal) = ([0.1, 0.5, 0.7, -0.2], [0.3, 0.4, 0.9]);
    let column = Tensor::new(&vertical, &Device::Cpu).unwrap().unsqueeze(1).unwrap();
    let product = column.matmul(&Tensor::new(&horizontal, &Device::Cpu).unwrap().unsqueeze(0).unwrap()).unwrap();
    let x = random(&[2, 3, 9, 14], 1, DType::F64);
    for padding in PADDINGS {
        let site = site((3, 9, 14), DType::F64);
        let blur = BlurSeparable::new(&vertical, &horizontal, padding, 0.0, site).unwrap();
        let expected = DownsampleKernel::new(&product, 1, padding, site).unwrap().forward(&x).unwrap();
        assert!(relative_error(&blur.forward(&x).unwrap(), &expected) < 1e-14, "{padding:?}");
    }
}

#[test]
fn the_box_of_ddrm_has_the_singular_values_of_its_matrix() {
    // A zero border and symmetric taps: W is symmetric, and W² has the traces that its values must have.
    let table = "taps = [0.2, 0.2, 0.2, 0.2, 0.2]".parse().unwrap();
    let operator = find(OPERATORS, "blur_separable").unwrap().create(table, site((1, 12, 12), DType::F64)).unwrap();
    let spectral = operator.as_linear().unwrap().as_spectral().unwrap();
    let sum: f64 = values(spectral.singular_values()).iter().map(|s| s * s).sum();
    // ‖W‖² = 12 · 5 entries of 1/25, less the 2 + 1 that each end cuts off on each side.
    let frobenius: f64 = (60.0 - 6.0) / 25.0;
    assert!((sum - frobenius * frobenius).abs() < 1e-12, "{sum}");
}
