use std::path::Path;

use candle_core::{DType, Device, Tensor};
use tweedie_operators::{ForwardOperator, Kernel, LinearOperator, OPERATORS, Padding, Site, find, forward};

use crate::goldens::{Golden, SIZES};
use crate::{inner, norm, random, relative_error, site, values};

const PADDINGS: [(&str, Padding); 6] = [
    ("circular", Padding::Circular),
    ("reflect", Padding::Reflect),
    ("replicate", Padding::Replicate),
    ("zero", Padding::Zero),
    ("valid", Padding::Valid),
    ("symmetric", Padding::Symmetric),
];

fn kernel_of(file: &Tensor) -> Kernel {
    let (_, _, height, width) = file.dims4().unwrap();
    Kernel::new(height, width, values(file)).unwrap()
}

fn check(name: &str, padding: Padding, cutoff: f64, prepare: fn(Kernel) -> Kernel) {
    for (size, height, width) in SIZES {
        let golden = Golden::load(name, size);
        let kernel = prepare(kernel_of(&golden.file["kernel"]));
        golden.check(&forward::Blur::new(&kernel, padding, cutoff, site((3, height, width), DType::F32)).unwrap());
    }
}

#[test]
fn blurs_give_the_numbers_of_deepinv() {
    let all = [
        ("gaussian", &PADDINGS[..5]),
        ("anisotropic", &PADDINGS[..2]),
        ("motion", &[PADDINGS[0], PADDINGS[1], PADDINGS[3], PADDINGS[4]]),
        ("evensize", &PADDINGS[..2]),
    ];
    for (kernel, paddings) in all {
        for (name, padding) in paddings {
            let name = if *name == "zero" { "constant" } else { name };
            check(&format!("blur_{kernel}_{name}"), *padding, forward::Blur::CUTOFF, |kernel| kernel);
        }
    }
}

#[test]
fn circular_blurs_give_the_pseudo_inverses_and_proximal_maps_of_deepinv() {
    // The largest singular value is the kernel's sum, 1. deepinv's pseudo-inverse drops what is below 1e-5 and its blur does
    // not: of this motion hardly anything is so small, of this Gaussian much, and the file has no pseudo-inverse of it.
    check("blurfft_motion", Padding::Circular, 1e-5, |kernel| kernel);
    check("blurfft_gaussian", Padding::Circular, 0.0, |kernel| kernel);
}

#[test]
fn gaussian_blurs_give_the_numbers_of_dps() {
    for (name, sigma, size) in [("dps_gaussian_blur_9", 1.5, 9), ("dps_gaussian_blur_61", 3.0, 61)] {
        check(name, Padding::Reflect, 0.0, |kernel| kernel.turned());
        let settings = format!("kernel = {{ shape = 'gaussian', sigma = {sigma}, size = {size}, truncate = 4 }}");
        for (place, height, width) in SIZES {
            let golden = Golden::load(name, place);
            let site = site((3, height, width), DType::F32);
            let blur = find(OPERATORS, "blur").unwrap().create(settings.parse().unwrap(), site).unwrap();
            let error = relative_error(&blur.forward(golden.input("x")).unwrap(), golden.get("y"));
            assert!(error < 2e-6, "{name}: {error:e}");
        }
        let ours = Kernel::gaussian_impulse(sigma, 4.0, size).unwrap();
        let theirs = kernel_of(&Golden::load(name, "32x32").file["kernel"]);
        let off = ours.values().iter().zip(theirs.values()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(off < 1e-8, "{name}: {off:e}");
    }
    // The default size holds the same 25 × 25 pixels.
    let sampled = Kernel::gaussian([3.0; 2], 0.0, None).unwrap();
    let filtered = Kernel::gaussian_impulse(3.0, 4.0, 25).unwrap();
    assert!(sampled.values().iter().zip(filtered.values()).all(|(a, b)| (a - b).abs() < 1e-15));
}

/// A line and what `padding` says lies around it: NumPy's names are wrap, reflect, edge, constant.
fn around(line: &[f64], padding: Padding, i: isize) -> f64 {
    let n = line.len() as isize;
    let pick = |mut i: isize, back: fn(isize, isize) -> isize| {
        while !(0..n).contains(&i) {
            i = back(i, n);
        }
        line[i as usize]
    };
    match padding {
        Padding::Circular => pick(i, |i, n| if i < 0 { i + n } else { i - n }),
        Padding::Reflect => pick(i, |i, n| if i < 0 { -i } else { 2 * (n - 1) - i }),
        Padding::Replicate => pick(i, |i, n| if i < 0 { 0 } else { n - 1 }),
        Padding::Symmetric => pick(i, |i, n| if i < 0 { -i - 1 } else { 2 * n - 1 - i }),
        Padding::Zero | Padding::Valid => {
            if (0..n).contains(&i) {
                line[i as usize]
            } else {
                0.0
            }
        }
        _ => panic!("unknown padding"),
    }
}

#[test]
fn borders_are_those_of_the_definition_and_adjoints_their_transposes() {
    let taps = [[0.1, -0.4, 0.9, 0.3], [0.2, 0.5, -0.7, 0.6], [1.1, 0.8, -0.2, 0.05]];
    let kernel = Kernel::new(3, 4, taps.concat()).unwrap();
    assert_eq!(kernel.centre(), (1, 2));
    let (height, width) = (5, 6);
    let x = random(&[1, 1, height, width], 3, DType::F64);
    let flat = values(&x);
    for (name, padding) in PADDINGS {
        let blur = forward::Blur::new(&kernel, padding, 0.0, site((1, height, width), DType::F64)).unwrap();
        let y = blur.forward(&x).unwrap();
        let valid = padding == Padding::Valid;
        let (rows, columns, shift) = if valid { (3, 3, (2, 3)) } else { (5, 6, (1, 2)) };
        assert_eq!(y.dims(), [1, 1, rows, columns]);
        let mut expected = Vec::new();
        for p in 0..rows as isize {
            for q in 0..columns as isize {
                let mut sum = 0.0;
                for (i, line) in taps.iter().enumerate() {
                    for (j, tap) in line.iter().enumerate() {
                        let lines: Vec<f64> =
                            flat.chunks(width).map(|line| around(line, padding, q + shift.1 - j as isize)).collect();
                        sum += tap * around(&lines, padding, p + shift.0 - i as isize);
                    }
                }
                expected.push(sum);
            }
        }
        assert!(values(&y).iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-13), "{name}");
        let v = random(y.dims(), 4, DType::F64);
        let gap = inner(&y, &v) - inner(&x, &blur.adjoint(&v).unwrap());
        assert!(gap.abs() < 1e-12 * norm(&y) * norm(&v), "{name}: {gap:e}");
    }
}

#[test]
fn circular_blurs_leave_out_what_is_below_the_cutoff() {
    let site = site((1, 8, 8), DType::F64);
    let kernel = Kernel::gaussian([1.0; 2], 0.0, Some(7)).unwrap();
    let blur = forward::Blur::new(&kernel, Padding::Circular, 0.5, site).unwrap();
    let spectral = blur.as_spectral().unwrap();
    let s = values(spectral.singular_values());
    let seen = s.iter().filter(|&&s| s > 0.0).count();
    assert!(s.iter().all(|&s| s == 0.0 || s >= 0.5) && (2..32).contains(&seen), "{s:?}");
    // A checkerboard is a single frequency that is gone, a constant is one that stays.
    let board: Vec<f64> = (0..64).map(|i| if (i / 8 + i % 8) % 2 == 0 { 1.0 } else { -1.0 }).collect();
    let board = Tensor::from_vec(board, (1, 1, 8, 8), &Device::Cpu).unwrap();
    assert!(norm(&blur.forward(&board).unwrap()) < 1e-14);
    let ones = board.ones_like().unwrap();
    assert!(relative_error(&blur.forward(&ones).unwrap(), &ones) < 1e-14);
}

#[test]
fn a_varying_blur_mixes_its_kernels() {
    let site = site((2, 9, 7), DType::F64);
    let x = random(&[2, 2, 9, 7], 5, DType::F64);
    let kernels: Vec<_> =
        [0.5, 1.0, 1.5, 0.8].iter().map(|&s| Kernel::gaussian([s, s / 2.0], 20.0, Some(5)).unwrap()).collect();
    for (name, padding) in PADDINGS {
        let varying = forward::BlurVarying::new(&kernels, [2, 2], padding, site).unwrap();
        // By the definition, with bilinear weights from corner to corner.
        let mut expected: Option<Tensor> = None;
        for (k, kernel) in kernels.iter().enumerate() {
            let weight = |i: usize| {
                let (down, right) = ((i / 7) as f64 / 8.0, (i % 7) as f64 / 6.0);
                let along = |part: f64, far: bool| if far { part } else { 1.0 - part };
                along(down, k >= 2) * along(right, k % 2 == 1)
            };
            let weight = Tensor::from_vec((0..63).map(weight).collect(), (1, 1, 9, 7), &Device::Cpu).unwrap();
            let blur = forward::Blur::new(kernel, padding, 0.0, site).unwrap();
            let part = blur.forward(&x.broadcast_mul(&weight).unwrap()).unwrap();
            expected = Some(expected.map_or(part.clone(), |sum| (sum + part).unwrap()));
        }
        let y = varying.forward(&x).unwrap();
        assert!(relative_error(&y, &expected.unwrap()) < 1e-14, "{name}");
        let v = random(y.dims(), 6, DType::F64);
        let gap = inner(&y, &v) - inner(&x, &varying.adjoint(&v).unwrap());
        assert!(gap.abs() < 1e-12 * norm(&y) * norm(&v), "{name}: {gap:e}");
    }
    // One kernel everywhere is an ordinary blur.
    let same = vec![kernels[1].clone(); 12];
    let varying = forward::BlurVarying::new(&same, [4, 3], Padding::Reflect, site).unwrap();
    let blur = forward::Blur::new(&kernels[1], Padding::Reflect, 0.0, site).unwrap();
    assert!(relative_error(&varying.forward(&x).unwrap(), &blur.forward(&x).unwrap()) < 1e-14);
}

#[test]
fn a_gaussian_has_its_closed_form_and_turns_counter_clockwise() {
    let kernel = Kernel::gaussian([2.0, 1.0], 0.0, None).unwrap();
    assert_eq!((kernel.height(), kernel.width(), kernel.centre()), (17, 17, (8, 8)));
    let at = |y: usize, x: usize| kernel.values()[y * 17 + x];
    assert!((kernel.values().iter().sum::<f64>() - 1.0).abs() < 1e-14);
    assert!((at(8, 10) / at(8, 8) - (-0.5f64).exp()).abs() < 1e-14, "σ = 2 along x");
    assert!((at(9, 8) / at(8, 8) - (-0.5f64).exp()).abs() < 1e-14, "σ = 1 along y");
    let upright = Kernel::gaussian([2.0, 1.0], 90.0, None).unwrap();
    assert!((upright.values()[10 * 17 + 8] / upright.values()[8 * 17 + 8] - (-0.5f64).exp()).abs() < 1e-14);
    // At 30° the bright side is up and to the right.
    let turned = Kernel::gaussian([2.0, 1.0], 30.0, None).unwrap();
    assert!(turned.values()[7 * 17 + 10] > turned.values()[9 * 17 + 10]);
    let (cos, sin) = (0.75f64.sqrt(), 0.5);
    let (along, across) = (2.0 * cos + sin, 2.0 * sin - cos);
    let expected = (-0.5 * ((along / 2.0).powi(2) + across.powi(2))).exp();
    assert!((turned.values()[7 * 17 + 10] / turned.values()[8 * 17 + 8] - expected).abs() < 1e-13);
}

#[test]
fn a_disk_weights_pixels_by_the_area_that_it_covers() {
    assert_eq!(Kernel::disk(0.5).unwrap().values(), [1.0]);
    let disk = Kernel::disk(1.0).unwrap();
    assert_eq!((disk.height(), disk.width()), (3, 3));
    // The whole central pixel, of an area of π.
    assert!((disk.values()[4] - 1.0 / std::f64::consts::PI).abs() < 1e-14);
    let large = Kernel::disk(4.3).unwrap();
    let size = large.width() as f64;
    for (i, &value) in large.values().iter().enumerate() {
        let (y, x) = ((i as f64 / size).floor() - (size - 1.0) / 2.0, i as f64 % size - (size - 1.0) / 2.0);
        // A hundred by a hundred points in the pixel.
        let point = |i: i32| (f64::from(i) + 0.5) / 100.0 - 0.5;
        let inside = (0..10_000).filter(|i| (y + point(i / 100)).hypot(x + point(i % 100)) < 4.3).count();
        let expected = inside as f64 / 1e4 / (std::f64::consts::PI * 4.3 * 4.3);
        assert!((value - expected).abs() < 1e-4, "at {y}, {x}: {value} and {expected}");
    }
}

#[test]
fn a_line_of_motion_is_a_mean_of_pixels() {
    for angle in [0.0, 17.0, 90.0] {
        let kernel = Kernel::line(1.0, angle).unwrap();
        assert_eq!((kernel.height(), kernel.width(), kernel.values()), (1, 1, &[1.0][..]), "length 1 at {angle}°");
    }
    let flat = Kernel::line(5.0, 0.0).unwrap();
    assert_eq!((flat.height(), flat.width(), flat.values()), (1, 5, &[0.2; 5][..]));
    let upright = Kernel::line(5.0, 90.0).unwrap();
    assert_eq!((upright.height(), upright.width()), (5, 1));
    let even = Kernel::line(2.0, 180.0).unwrap();
    assert_eq!(even.values(), [0.25, 0.5, 0.25]);
    let slanted = Kernel::line(9.0, 30.0).unwrap();
    let (height, width) = (slanted.height(), slanted.width());
    assert!(
        slanted.values()[width - 1] + slanted.values()[width - 2] > 0.0,
        "counter-clockwise is up and to the right"
    );
    assert_eq!(slanted.values()[(height - 1) * width + width - 1], 0.0);
    assert!(slanted.turned().values().iter().zip(slanted.values()).all(|(a, b)| (a - b).abs() < 1e-15));
}

#[test]
fn a_trajectory_follows_its_seed() {
    let kernel = Kernel::trajectory(61, 0.5, 3).unwrap();
    assert_eq!((kernel.height(), kernel.width()), (61, 61));
    assert!((kernel.values().iter().sum::<f64>() - 1.0).abs() < 1e-14);
    assert!(kernel.values().iter().all(|&value| value >= 0.0));
    assert_eq!(kernel, Kernel::trajectory(61, 0.5, 3).unwrap());
    assert_ne!(kernel, Kernel::trajectory(61, 0.5, 4).unwrap());
    for (intensity, seed) in [(0.0, 0), (0.5, 1), (1.0, 2), (1.0, 3), (0.0, 4)] {
        let kernel = Kernel::trajectory(31, intensity, seed).unwrap();
        let bright = kernel.values().iter().filter(|&&value| value > 1e-3).count();
        assert!((3..500).contains(&bright), "intensity {intensity}, seed {seed}: {bright} pixels");
    }
}

#[test]
fn pictures_and_tables_are_kernels() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(folder.join("kernel.ppm"), "P3 3 1 255  0 0 0  0 0 0  10 20 30\n").unwrap();
    let here = Site { folder, ..site((1, 4, 5), DType::F64) };
    let blur = |settings: &str| find(OPERATORS, "blur").unwrap().create(settings.parse().unwrap(), here);
    let x = random(&[1, 1, 4, 5], 1, DType::F64);
    let y = |settings: &str| values(&blur(settings).unwrap().forward(&x).unwrap());
    // The picture's one bright pixel is right of the centre: the image moves to the right by one.
    let moved = y("padding = 'circular'\nkernel = { shape = 'image', file = 'kernel.ppm' }");
    let expected: Vec<f64> = values(&x).chunks(5).flat_map(|row| [&row[4..], &row[..4]].concat()).collect();
    assert!(moved.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-14));
    let table = y("padding = 'circular'\nkernel = { shape = 'values', rows = [[0, 0, 2]], normalize = true }");
    assert!(table.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-14));
    let back = y("padding = 'circular'\nkernel = { shape = 'image', file = 'kernel.ppm', correlate = true }");
    let expected: Vec<f64> = values(&x).chunks(5).flat_map(|row| [&row[1..], &row[..1]].concat()).collect();
    assert!(back.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-14));
    assert_eq!(back, y("padding = 'circular'\ncorrelate = true\nkernel = { shape = 'image', file = 'kernel.ppm' }"));
    let both = "correlate = true\nkernel = { shape = 'image', file = 'kernel.ppm', correlate = true }";
    let message = blur(both).unwrap_err().to_string();
    assert_eq!(message, "blur: correlate is set for the kernel and for the operator, expected once");
    let message = blur("kernel = { shape = 'image', file = 'none.png' }").unwrap_err().to_string();
    assert!(message.starts_with("blur: kernel: file ") && message.contains("none.png"), "{message}");
}

#[test]
fn kernels_that_cannot_be_are_refused() {
    let refusal = |settings: &str| {
        let site = site((3, 6, 9), DType::F32);
        find(OPERATORS, "blur").unwrap().create(settings.parse().unwrap(), site).unwrap_err().to_string()
    };
    let cases = [
        ("shape = 'gaussian', sigma = 0", "sigma is [0.0, 0.0], expected numbers above 0 and below 512"),
        ("shape = 'gaussian', sigma = 1, size = 4", "size is 4, expected an odd number below 4096"),
        ("shape = 'uniform', size = 0", "size is 0x0, expected 1 to 4096 in each direction"),
        ("shape = 'disk', radius = -1", "radius is -1, expected a number above 0 and at most 2000"),
        ("shape = 'line', length = 0.5", "length is 0.5, expected 1 to 4000 pixels"),
        ("shape = 'trajectory', intensity = 2", "intensity is 2, expected 0 to 1"),
        ("shape = 'values', rows = [[1], [1, 2]]", "rows have 1 and 2 values, expected rows of one length"),
        ("shape = 'values', rows = [[nan]]", "holds NaN, expected finite numbers"),
        ("shape = 'values', rows = [[-1]], normalize = true", "values sum to -1, expected a sum above 0"),
    ];
    for (kernel, expected) in cases {
        assert_eq!(refusal(&format!("kernel = {{ {kernel} }}")), format!("blur: kernel: {expected}"));
    }
    let message = refusal("kernel = { shape = 'uniform', size = 7 }\npadding = 'valid'");
    assert_eq!(message, "blur: kernel is 7x7, expected at most 9x6, the size of the image, without padding");
    let message = refusal("cutoff = 2\nkernel = { shape = 'uniform', size = 3 }");
    assert_eq!(message, "blur: cutoff is 2, expected 0 to 1");
    let message = refusal("kernel = { shape = 'disk', radius = 1, sigma = 2 }");
    assert!(message.contains("unknown field `sigma`"), "{message}");
}

#[test]
fn without_padding_the_image_is_larger_than_its_measurement() {
    let entry = find(OPERATORS, "blur").unwrap();
    let table = "padding = 'valid'\nkernel = { shape = 'uniform', size = [3, 5] }".parse().unwrap();
    assert_eq!(entry.image_shape(&table, &[3, 6, 8], crate::site((0, 0, 0), DType::F32)).unwrap(), (3, 8, 12));
}
