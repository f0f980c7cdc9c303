use std::f64::consts::{PI, TAU};

use candle_core::{DType, Device, Tensor};
use tweedie_operators::forward::{
    CompressedSensing, FourierPattern, FourierSubsample, GaussianMatrix, PhaseRange, PhaseRetrieval, Radon,
};
use tweedie_operators::{ForwardOperator, LinearOperator, OPERATORS, SpectralOperator, find};

use crate::{inner, norm, random, relative_error, site, values};

fn images(values: Vec<f64>, (height, width): (usize, usize)) -> Tensor {
    let rows = values.len() / (height * width);
    Tensor::from_vec(values, (rows, 1, height, width), &Device::Cpu).unwrap()
}

/// Every unit image of this size, as a batch.
fn unit_images((height, width): (usize, usize)) -> Tensor {
    let pixels = height * width;
    images((0..pixels * pixels).map(|i| f64::from(u8::from(i / pixels == i % pixels))).collect(), (height, width))
}

/// Row `i` is what `A` makes of the unit image `i`: the transpose of its matrix.
fn dense(operator: &dyn ForwardOperator, size: (usize, usize)) -> Vec<Vec<f64>> {
    let y = operator.forward(&unit_images(size)).unwrap().flatten_from(1).unwrap();
    y.to_vec2().unwrap()
}

/// `(Re, Im)` of the orthonormal transform of one plane at one frequency, by the definition.
fn definition(x: &[f64], (height, width): (usize, usize), ky: f64, kx: f64) -> (f64, f64) {
    let mut sum = (0.0, 0.0);
    for v in 0..height {
        for u in 0..width {
            let (sin, cos) = (TAU * (ky * v as f64 / height as f64 + kx * u as f64 / width as f64)).sin_cos();
            sum.0 += x[v * width + u] * cos;
            sum.1 -= x[v * width + u] * sin;
        }
    }
    let length = ((height * width) as f64).sqrt();
    (sum.0 / length, sum.1 / length)
}

fn refusal(name: &str, settings: &str, image: (usize, usize, usize)) -> String {
    let entry = find(OPERATORS, name).unwrap();
    entry.create(settings.parse().unwrap(), site(image, DType::F32)).unwrap_err().to_string()
}

#[test]
fn sampled_frequencies_are_those_of_the_definition_and_others_are_zero() {
    for size in [(1, 1), (1, 4), (5, 1), (4, 6), (6, 5), (7, 7)] {
        let (height, width) = size;
        let pixels = height * width;
        for every in [1, 3] {
            let mask: Vec<bool> = (0..pixels).map(|k| k % every == 0).collect();
            let operator = FourierSubsample::new(mask.clone(), size, &Device::Cpu).unwrap();
            let x = random(&[1, 1, height, width], 1, DType::F64);
            let y = values(&operator.forward(&x).unwrap());
            let x = values(&x);
            for k in 0..pixels {
                let (re, im) = definition(&x, size, (k / width) as f64, (k % width) as f64);
                let expected = if mask[k] { (re, im) } else { (0.0, 0.0) };
                let error = (y[k] - expected.0).abs() + (y[pixels + k] - expected.1).abs();
                assert!(error < 1e-13, "{size:?} at {k}: {error:e}");
            }
        }
    }
}

#[test]
fn the_adjoint_of_a_sampling_is_the_transpose_of_its_matrix() {
    for size in [(8, 8), (5, 6)] {
        let pixels = size.0 * size.1;
        let mask = (0..pixels).map(|k| k * k % 5 < 2).collect();
        let operator = FourierSubsample::new(mask, size, &Device::Cpu).unwrap();
        let matrix = dense(&operator, size);
        let v = random(&[1, 2, size.0, size.1], 2, DType::F64);
        let adjoint = values(&operator.adjoint(&v).unwrap());
        let v = values(&v);
        for (row, got) in matrix.iter().zip(adjoint) {
            let expected: f64 = row.iter().zip(&v).map(|(a, b)| a * b).sum();
            assert!((got - expected).abs() < 1e-13);
        }
    }
}

#[test]
fn singular_values_of_a_sampling_count_a_frequency_and_its_opposite() {
    // One of the pair (0, 1), (0, 3), which are conjugates, and frequency zero, its own.
    let mask = vec![true, true, false, false];
    let operator = FourierSubsample::new(mask, (1, 4), &Device::Cpu).unwrap();
    let half = 0.5f64.sqrt();
    assert_eq!(values(operator.singular_values()), [1.0, half, 0.0, half]);
    // The Gram matrix of the dense form has their squares as its trace.
    let trace: f64 = dense(&operator, (1, 4)).iter().flatten().map(|a| a * a).sum();
    assert!((trace - 2.0).abs() < 1e-14);
}

#[test]
fn patterns_keep_the_fraction_asked_for_and_the_centre() {
    let site = site((3, 40, 50), DType::F32);
    let mask = |keep: f64, pattern: FourierPattern| {
        let operator = FourierSubsample::pattern(keep, pattern, site).unwrap();
        let mask = values(operator.mask());
        assert_eq!(mask[0], 1.0, "frequency zero of {pattern:?}");
        mask
    };
    let count = |mask: &[f64]| mask.iter().filter(|&&m| m == 1.0).count();
    let at = |mask: &[f64], ky: i64, kx: i64| mask[(ky.rem_euclid(40) * 50 + kx.rem_euclid(50)) as usize];

    let random = mask(0.3, FourierPattern::Random { calibration: 0.1, seed: 4 });
    assert_eq!(count(&random), 600);
    for ky in -2..2 {
        assert!((-2..=2).all(|kx| at(&random, ky, kx) == 1.0), "4 rows and 5 columns around zero");
    }
    assert_ne!(random, mask(0.3, FourierPattern::Random { calibration: 0.1, seed: 5 }));

    let cartesian = mask(0.3, FourierPattern::Cartesian { calibration: 0.1, seed: 4 });
    assert_eq!(count(&cartesian), 15 * 40);
    assert!((0..2000).all(|k| cartesian[k] == cartesian[k % 50]), "whole columns");
    assert!((-2..=2).all(|kx| at(&cartesian, 0, kx) == 1.0));

    let radial = mask(0.3, FourierPattern::Radial { seed: 0 });
    let fraction = count(&radial) as f64 / 2000.0;
    assert!((0.3..0.33).contains(&fraction), "{fraction}");
    for ky in -19..20 {
        for kx in -24..25 {
            assert_eq!(at(&radial, ky, kx), at(&radial, -ky, -kx), "opposite of {ky}, {kx}");
        }
    }
    assert!((0..25).all(|kx| at(&radial, 0, kx) == 1.0), "the first line of seed 0 lies along the columns' axis");
    assert_eq!(count(&mask(1.0, FourierPattern::Radial { seed: 3 })), 2000);
}

#[test]
fn settings_of_a_sampling_that_do_not_fit_are_refused() {
    let image = (3, 20, 20);
    let refused = |settings: &str| refusal("fourier_subsample", settings, image);
    assert_eq!(refused("keep = 0.0"), "fourier_subsample: keep is 0, expected a fraction above 0 and at most 1");
    assert_eq!(refused("calibration = 1.5"), "fourier_subsample: calibration is 1.5, expected a fraction from 0 to 1");
    assert_eq!(
        refused("pattern = 'cartesian'\nkeep = 0.2\ncalibration = 0.5"),
        "fourier_subsample: calibration 0.5 alone samples 10 of 20, keep 0.2 allows 4"
    );
    assert_eq!(
        refused("pattern = 'radial'\ncalibration = 0.1"),
        "fourier_subsample: calibration is 0.1, expected none for pattern radial, all of whose lines pass through zero"
    );
    assert!(refused("pattern = 'spiral'").contains("expected one of `random`, `radial`, `cartesian`"));
}

#[test]
fn magnitudes_are_those_of_the_centred_transform_of_the_padded_image() {
    for (size, oversample, pad) in
        [((8, 8), 2.0, (2, 2)), ((7, 5), 2.0, (1, 1)), ((4, 9), 3.0, (1, 3)), ((5, 6), 0.0, (0, 0))]
    {
        for (range, unit) in [(PhaseRange::Signed, false), (PhaseRange::Unit, true)] {
            let (height, width) = size;
            let padded = (height + 2 * pad.0, width + 2 * pad.1);
            let operator = PhaseRetrieval::new(oversample, range, site((1, height, width), DType::F64)).unwrap();
            let x = random(&[1, 1, height, width], 1, DType::F64);
            let y = operator.forward(&x).unwrap();
            assert_eq!(y.dims(), [1, 1, padded.0, padded.1]);
            let mut image = vec![0.0; padded.0 * padded.1];
            for (i, x) in values(&x).into_iter().enumerate() {
                let place = (i / width + pad.0) * padded.1 + i % width + pad.1;
                image[place] = if unit { (x + 1.0) / 2.0 } else { x };
            }
            for (k, got) in values(&y).into_iter().enumerate() {
                let shifted = |k: usize, size: usize| k as f64 - (size / 2) as f64;
                let (ky, kx) = (shifted(k / padded.1, padded.0), shifted(k % padded.1, padded.1));
                let (re, im) = definition(&image, padded, ky, kx);
                assert!((got - re.hypot(im)).abs() < 1e-13, "{size:?} at {k}");
            }
        }
    }
}

#[test]
fn the_derivative_of_magnitudes_is_that_of_dense_matrices_by_autograd() {
    let (size, padded, pad) = ((6, 7), (8, 9), 1);
    for (range, scale) in [(PhaseRange::Signed, (1.0, 0.0)), (PhaseRange::Unit, (0.5, 0.5))] {
        let operator = PhaseRetrieval::new(1.34, range, site((1, size.0, size.1), DType::F64)).unwrap();
        let x = random(&[1, 1, size.0, size.1], 1, DType::F64);
        let v = random(&[1, 1, padded.0, padded.1], 2, DType::F64);
        let (count, pixels) = (padded.0 * padded.1, size.0 * size.1);
        let mut matrices = (Vec::new(), Vec::new());
        for k in 0..count {
            let ky = (k / padded.1) as f64 - (padded.0 / 2) as f64;
            let kx = (k % padded.1) as f64 - (padded.1 / 2) as f64;
            for p in 0..pixels {
                let (row, column) = ((p / size.1 + pad) as f64, (p % size.1 + pad) as f64);
                let turns = ky * row / padded.0 as f64 + kx * column / padded.1 as f64;
                matrices.0.push((TAU * turns).cos() / (count as f64).sqrt());
                matrices.1.push(-(TAU * turns).sin() / (count as f64).sqrt());
            }
        }
        let matrix = |values| Tensor::from_vec(values, (count, pixels), &Device::Cpu).unwrap();
        let (re, im) = (matrix(matrices.0), matrix(matrices.1));
        let (_, pullback) = tweedie_operators::pullback(&x, |x| {
            let column = x.affine(scale.0, scale.1)?.reshape((pixels, 1))?;
            let squared = (re.matmul(&column)?.sqr()? + im.matmul(&column)?.sqr()?)?;
            Ok::<_, tweedie_operators::Error>(squared.sqrt()?.reshape((1, 1, padded.0, padded.1))?)
        })
        .unwrap();
        let error = relative_error(&operator.vjp(&x, &v).unwrap(), &pullback.apply(&v).unwrap());
        assert!(error < 1e-12, "{range:?}: {error:e}");
    }
}

#[test]
fn where_a_magnitude_is_zero_its_derivative_is_taken_as_zero() {
    let operator = PhaseRetrieval::new(2.0, PhaseRange::Signed, site((1, 8, 8), DType::F32)).unwrap();
    let x = Tensor::zeros((1, 1, 8, 8), DType::F32, &Device::Cpu).unwrap();
    let v = random(operator.forward(&x).unwrap().dims(), 2, DType::F32);
    assert!(values(&operator.vjp(&x, &v).unwrap()).into_iter().all(|value| value == 0.0));
}

#[test]
fn padding_is_that_of_diffusion_posterior_sampling() {
    let operator = PhaseRetrieval::new(2.0, PhaseRange::Signed, site((3, 256, 256), DType::F32)).unwrap();
    let x = Tensor::zeros((1, 3, 256, 256), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(operator.forward(&x).unwrap().dims(), [1, 3, 384, 384], "64 zeros on each side");
    let message = refusal("phase_retrieval", "oversample = -1.0", (3, 8, 8));
    assert_eq!(message, "phase_retrieval: oversample is -1, expected a number from 0 to 16");
}

#[test]
fn coefficients_are_those_of_sylvesters_matrix() {
    // Below, at and above the length of a tile, with an even and an odd number of steps.
    for size in [(1, 1), (1, 2), (2, 2), (8, 8), (64, 64), (64, 128), (128, 128), (256, 512)] {
        let pixels = size.0 * size.1;
        let operator = CompressedSensing::new(1.0, 3, site((1, size.0, size.1), DType::F64)).unwrap();
        let x = random(&[1, 1, size.0, size.1], 1, DType::F64);
        let y = values(&operator.forward(&x).unwrap());
        assert_eq!(y.len(), pixels);
        let x = values(&x);
        let some = (0..pixels).step_by((pixels / 64).max(1)).chain([pixels - 1, pixels / 3]);
        for k in some {
            let sign = |p: usize| if (p & k).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
            let expected: f64 = x.iter().enumerate().map(|(p, x)| sign(p) * x).sum::<f64>() / (pixels as f64).sqrt();
            assert!((y[k] - expected).abs() < 1e-11, "{size:?} at {k}");
        }
    }
}

#[test]
fn a_size_that_is_no_power_of_two_has_an_orthonormal_transform_in_blocks() {
    // 49 = 32 + 16 + 1 and 66 = 64 + 2.
    for (size, blocks) in [((7, 7), vec![32, 16, 1]), ((6, 11), vec![64, 2])] {
        let pixels = size.0 * size.1;
        let operator = CompressedSensing::new(1.0, 3, site((1, size.0, size.1), DType::F64)).unwrap();
        let rows = dense(&operator, size);
        for (i, a) in rows.iter().enumerate() {
            for (j, b) in rows.iter().enumerate() {
                let product: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                assert!((product - f64::from(u8::from(i == j))).abs() < 1e-14);
            }
        }
        let mut first = 0;
        for length in blocks {
            for k in first..first + length {
                let seen: Vec<f64> = rows.iter().map(|row| row[k].abs()).filter(|&a| a > 0.0).collect();
                assert_eq!(seen.len(), length, "coefficient {k} sees a block");
                assert!(seen.iter().all(|a| (a - (length as f64).powf(-0.5)).abs() < 1e-15));
            }
            first += length;
        }
        assert_eq!(first, pixels);
    }
}

#[test]
fn the_fraction_of_coefficients_is_kept_and_shared_by_the_channels() {
    let site = site((3, 16, 16), DType::F64);
    let all = CompressedSensing::new(1.0, 0, site).unwrap();
    let some = CompressedSensing::new(0.3, 7, site).unwrap();
    let x = random(&[1, 3, 16, 16], 1, DType::F64);
    let y = some.forward(&x).unwrap();
    assert_eq!(y.dims(), [1, 3, 76], "0.3 of 256");
    let kept = values(some.singular_values());
    let expected: Vec<f64> = values(&all.forward(&x).unwrap())
        .into_iter()
        .enumerate()
        .filter_map(|(i, value)| (kept[i % 256] == 1.0).then_some(value))
        .collect();
    assert_eq!(values(&y), expected);
    assert_ne!(kept, values(CompressedSensing::new(0.3, 8, site).unwrap().singular_values()));
    let message = refusal("compressed_sensing", "keep = 1.5", (3, 16, 16));
    assert_eq!(message, "compressed_sensing: keep is 1.5, expected a fraction above 0 and at most 1");
}

#[test]
fn a_gaussian_matrix_has_the_moments_and_the_singular_values_it_should_have() {
    let size = (16, 25);
    let operator = GaussianMatrix::new(0.25, 5, site((1, size.0, size.1), DType::F64)).unwrap();
    let rows = dense(&operator, size);
    let entries: Vec<f64> = rows.iter().flatten().copied().collect();
    let (count, m) = (entries.len() as f64, 100.0);
    assert_eq!(count, 400.0 * m);
    let mean = entries.iter().sum::<f64>() / count;
    let variance = entries.iter().map(|a| a * a).sum::<f64>() / count;
    // Five standard errors each.
    assert!(mean.abs() < 5.0 * (1.0 / m / count).sqrt(), "mean {mean}");
    assert!((variance * m - 1.0).abs() < 5.0 * (2.0 / count).sqrt(), "variance {variance}");

    let spectral = operator.as_spectral().unwrap();
    let s = values(spectral.singular_values());
    assert!(s[..100].iter().all(|&s| s > 0.0) && s[100..].iter().all(|&s| s == 0.0));
    let squares: f64 = s.iter().map(|s| s * s).sum();
    assert!((squares / (variance * count) - 1.0).abs() < 1e-12, "‖s‖² = ‖G‖²");
    // Marchenko and Pastur: between √(n/m) − 1 and √(n/m) + 1 = 1 and 3, but for the fluctuations of a finite matrix.
    assert!(s[..100].iter().all(|s| (0.8..3.2).contains(s)), "{s:?}");
}

#[test]
fn a_square_gaussian_matrix_is_inverted() {
    let operator = GaussianMatrix::new(1.0, 5, site((1, 5, 5), DType::F64)).unwrap();
    let x = random(&[2, 1, 5, 5], 1, DType::F64);
    let back = operator.as_spectral().unwrap().pseudo_inverse(&operator.forward(&x).unwrap()).unwrap();
    assert!(relative_error(&back, &x) < 1e-10);
}

#[test]
fn a_gaussian_matrix_that_is_too_large_is_refused_with_the_numbers() {
    assert_eq!(
        refusal("gaussian_matrix", "", (3, 64, 64)),
        "gaussian_matrix: matrix for an image of 64x64 with 3 channels is 3072x12288, expected at most 16777216 entries"
    );
    assert_eq!(
        refusal("gaussian_matrix", "keep = 0.01", (1, 2, 2)),
        "gaussian_matrix: keep 0.01 of the 4 numbers of an image of 2x2 with 1 channels is none, expected at least 1"
    );
}

/// Joseph's weights by their definition: row `(angle, detector)`, column pixel.
fn joseph(degrees: &[f64], detectors: usize, (height, width): (usize, usize)) -> Vec<Vec<f64>> {
    let mut rows = Vec::new();
    for degrees in degrees {
        let (sin, cos) = (degrees * PI / 180.0).sin_cos();
        for d in 0..detectors {
            let t = d as f64 - (detectors / 2) as f64;
            let mut row = vec![0.0; height * width];
            for (p, weight) in row.iter_mut().enumerate() {
                let (y, x) = (p / width, p % width);
                let (y, x) = (y as f64 - (height / 2) as f64, x as f64 - (width / 2) as f64);
                // How far the line is from the pixel along its row, or along its column.
                let distance = if sin.abs() > cos.abs() { y - (x * cos - t) / sin } else { x - (t + y * sin) / cos };
                *weight = (1.0 - distance.abs()).max(0.0) / sin.abs().max(cos.abs());
            }
            rows.push(row);
        }
    }
    rows
}

#[test]
fn projections_have_josephs_weights_and_their_exact_transpose() {
    let degrees = vec![0.0, 10.0, 44.9, 45.1, 77.0, 90.0, 100.0, 134.0, 136.0, 170.0, 200.0, 300.0, -30.0];
    for (size, detectors) in
        [((8, 8), None), ((7, 5), Some(9)), ((6, 11), Some(30)), ((1, 4), Some(4)), ((5, 1), Some(1))]
    {
        let operator = Radon::new(degrees.clone(), detectors, site((1, size.0, size.1), DType::F64)).unwrap();
        let columns = dense(&operator, size);
        let expected = joseph(&degrees, columns[0].len() / degrees.len(), size);
        for (i, row) in expected.iter().enumerate() {
            for (p, expected) in row.iter().enumerate() {
                let error = (columns[p][i] - expected).abs();
                assert!(error < 5e-9, "{size:?}: line {i}, pixel {p}: {} and {expected}", columns[p][i]);
            }
        }
        // Unit measurements give the rows of the same matrix, to the last bits.
        let lines = columns[0].len();
        let unit = (0..lines * lines).map(|i| f64::from(u8::from(i / lines == i % lines))).collect();
        let unit = Tensor::from_vec(unit, (lines, 1, degrees.len(), lines / degrees.len()), &Device::Cpu).unwrap();
        let rows: Vec<Vec<f64>> = operator.adjoint(&unit).unwrap().flatten_from(1).unwrap().to_vec2().unwrap();
        for (i, row) in rows.iter().enumerate() {
            for (p, value) in row.iter().enumerate() {
                assert!((value - columns[p][i]).abs() < 1e-15, "{size:?}: line {i}, pixel {p}");
            }
        }
    }
}

#[test]
fn projections_at_right_angles_are_sums_of_columns_and_of_rows() {
    let operator = Radon::new(vec![0.0, 90.0], Some(5), site((1, 2, 3), DType::F64)).unwrap();
    let x = images(vec![1.0, 2.0, 3.0, 10.0, 20.0, 30.0], (2, 3));
    // The centre is the pixel (row 1, column 1); under 90° detectors go up.
    let expected = [0.0, 11.0, 22.0, 33.0, 0.0, 0.0, 0.0, 60.0, 6.0, 0.0];
    let got = values(&operator.forward(&x).unwrap());
    assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-8), "{got:?}");
}

/// A Gaussian blob and its projections in closed form.
fn blob(degrees: &[f64], detectors: usize, (height, width): (usize, usize)) -> (Tensor, Tensor) {
    let (row, column, deviation) = (7.3, -5.6, 3.0f64);
    let mut image = Vec::new();
    for p in 0..height * width {
        let y = (p / width) as f64 - (height / 2) as f64 - row;
        let x = (p % width) as f64 - (width / 2) as f64 - column;
        image.push((-(x * x + y * y) / (2.0 * deviation * deviation)).exp());
    }
    let mut projections = Vec::new();
    for degrees in degrees {
        let (sin, cos) = (degrees * PI / 180.0).sin_cos();
        for d in 0..detectors {
            let t = d as f64 - (detectors / 2) as f64 - (column * cos - row * sin);
            projections.push(deviation * TAU.sqrt() * (-t * t / (2.0 * deviation * deviation)).exp());
        }
    }
    let shape = (1, 1, degrees.len(), detectors);
    (images(image, (height, width)), Tensor::from_vec(projections, shape, &Device::Cpu).unwrap())
}

#[test]
fn projections_of_a_gaussian_blob_are_gaussians() {
    let size = (50, 61);
    let degrees: Vec<f64> = (0..36).map(|i| 5.0 * i as f64).collect();
    let operator = Radon::equidistant(36, None, site((1, size.0, size.1), DType::F64)).unwrap();
    let (image, expected) = blob(&degrees, 87, size);
    let y = operator.forward(&image).unwrap();
    // Linear interpolation widens the blob's variance by a sixth of a pixel at most, 1 % of its peak here.
    let error = relative_error(&y, &expected);
    assert!(error < 0.01, "relative error {error}");
    let single = operator.forward(&image.to_dtype(DType::F32).unwrap()).unwrap();
    assert!(relative_error(&single, &y) < 1e-6);
}

#[test]
fn filtered_back_projection_gives_a_smooth_image_back() {
    let size = (50, 61);
    let operator = Radon::equidistant(180, None, site((1, size.0, size.1), DType::F64)).unwrap();
    let degrees: Vec<f64> = (0..180).map(f64::from).collect();
    let (image, projections) = blob(&degrees, 87, size);
    let back = operator.filtered_back_projection(&projections).unwrap();
    let error = relative_error(&back, &image);
    assert!(error < 0.02, "relative error {error}");
    // The rows of a batch and the channels are apart.
    let batch = Tensor::cat(&[&projections, &(&projections * 2.0).unwrap()], 1).unwrap();
    let both = operator.filtered_back_projection(&batch.to_dtype(DType::F32).unwrap()).unwrap();
    assert_eq!((both.dims(), both.dtype()), (&[1, 2, 50, 61][..], DType::F32));
    assert!(relative_error(&both.narrow(1, 0, 1).unwrap(), &back) < 1e-5);
    assert!((norm(&both.narrow(1, 1, 1).unwrap()) / norm(&back) - 2.0).abs() < 1e-5);
}

#[test]
fn the_adjoint_of_large_projections_is_the_transpose() {
    let operator = Radon::equidistant(23, None, site((3, 130, 201), DType::F64)).unwrap();
    let x = random(&[1, 3, 130, 201], 1, DType::F64);
    let v = random(&[1, 3, 23, 285], 2, DType::F64);
    let (left, right) = (inner(&operator.forward(&x).unwrap(), &v), inner(&x, &operator.adjoint(&v).unwrap()));
    assert!((left - right).abs() < 1e-12 * norm(&x) * norm(&v), "{left} and {right}");
}

#[test]
fn settings_of_projections_that_make_no_sense_are_refused() {
    let refused = |settings: &str| refusal("radon", settings, (3, 8, 8));
    assert_eq!(refused("angles = 0"), "radon: there are 0 angles, expected at least 1");
    assert_eq!(refused("angles = []"), "radon: there are 0 angles, expected at least 1");
    assert_eq!(refused("angles = [0.0, nan]"), "radon: an angle is NaN, expected finite numbers of degrees");
    assert_eq!(refused("detectors = 0"), "radon: detectors is 0, expected 1 to 2097152");
    assert_eq!(refused("angles = 1000000000000000"), "radon: angles is 1000000000000000, expected 1 to 16777216");
    assert_eq!(refused("angles = 2000000"), "radon: 2000000 angles of 12 detectors, expected at most 16777216 numbers");
    assert!(refused("angles = 'many'").contains("angles must be a whole number or an array of degrees"));
    let entry = find(OPERATORS, "radon").unwrap();
    let operator = entry.create("angles = [0, 90]".parse().unwrap(), site((3, 8, 8), DType::F32)).unwrap();
    assert_eq!(operator.forward(&random(&[1, 3, 8, 8], 1, DType::F32)).unwrap().dims(), [1, 3, 2, 12]);
}
