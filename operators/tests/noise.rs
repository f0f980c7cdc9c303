use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use tweedie_operators::noise::{
    Gaussian, Laplace, Poisson, PoissonGaussian, SaltAndPepper, Speckle, Uniform, estimate_sigma, sigma_by_patches,
    sigma_by_wavelets,
};
use tweedie_operators::{NOISES, NoiseModel, Rng, find, pullback};

use crate::{random, relative_error, values};

fn constant(value: f64, shape: (usize, usize, usize, usize)) -> Tensor {
    Tensor::full(value, shape, &Device::Cpu).unwrap()
}

/// Mean and variance of 120 000 noisy samples of one value.
fn moments(noise: &dyn NoiseModel, z: f64) -> (f64, f64) {
    let y = values(&noise.corrupt(&constant(z, (1, 3, 200, 200)), &mut Rng::new(7, 0..1)).unwrap());
    let mean = y.iter().sum::<f64>() / y.len() as f64;
    (mean, y.iter().map(|y| (y - mean).powi(2)).sum::<f64>() / y.len() as f64)
}

#[test]
fn means_and_variances_are_those_of_theory() {
    let third = 1.0 / 3.0;
    // Mean and variance at z = 0.2, the intensity 0.6, and the kurtosis, on which the error of the variance depends.
    let z = 0.2;
    let cases: [(Box<dyn NoiseModel>, f64, f64, f64); 8] = [
        (Box::new(Poisson::new(1.0, false).unwrap()), z, 4.0 * 0.6 / 255.0, 3.1),
        (Box::new(Poisson::new(0.01, false).unwrap()), z, 4.0 * 0.6 / 2.55, 3.7),
        (Box::new(PoissonGaussian::new(0.1, 0.1).unwrap()), z, 4.0 * 0.6 / 25.5 + 0.01, 3.1),
        (Box::new(Uniform::new(0.3, 0.0).unwrap()), z, 0.09 * third, 1.8),
        (Box::new(Uniform::new(0.3, 0.05).unwrap()), z, 0.09 * third + 0.0025 * 3.2899, 2.2),
        (Box::new(Laplace::new(0.1).unwrap()), z, 0.02, 6.0),
        (Box::new(Speckle::new(0.25).unwrap()), z, 0.09, 3.0),
        // Mean (1 − f) z; second moment (1 − f) (z² + σ²) + f.
        (Box::new(SaltAndPepper::new(0.3, 0.1).unwrap()), 0.14, 0.7 * 0.05 + 0.3 - 0.14 * 0.14, 3.0),
    ];
    for (noise, mean, variance, kurtosis) in cases {
        let (got_mean, got_variance) = moments(&*noise, z);
        let n = 120_000f64;
        let errors = [
            (got_mean - mean) / (variance / n).sqrt(),
            (got_variance / variance - 1.0) / ((kurtosis - 1.0) / n).sqrt(),
        ];
        assert!(errors.iter().all(|error| error.abs() < 4.5), "{noise:?}: {got_mean}, {got_variance}: {errors:?}");
    }
}

/// Largest distance of the empirical distribution from `cdf`, times √n.
fn kolmogorov(mut numbers: Vec<f64>, cdf: impl Fn(f64) -> f64) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let n = numbers.len() as f64;
    let distance = |(i, x): (usize, &f64)| (cdf(*x) - (i as f64 + 0.5) / n).abs();
    numbers.iter().enumerate().map(distance).fold(0.0, f64::max) * n.sqrt()
}

#[test]
fn continuous_noises_have_their_distributions() {
    let draw = |noise: &dyn NoiseModel| {
        values(&noise.corrupt(&constant(0.0, (1, 1, 200, 200)), &mut Rng::new(3, 0..1)).unwrap())
    };
    // Above 1.95 once in a thousand seeds.
    let uniform = kolmogorov(draw(&Uniform::new(0.5, 0.0).unwrap()), |y| (y + 0.5).clamp(0.0, 1.0));
    assert!(uniform < 1.95, "{uniform}");
    let laplace = kolmogorov(draw(&Laplace::new(0.2).unwrap()), |y| {
        if y < 0.0 { 0.5 * (y / 0.2).exp() } else { 1.0 - 0.5 * (-y / 0.2).exp() }
    });
    assert!(laplace < 1.95, "{laplace}");
    let speckle = kolmogorov(draw(&Speckle::new(0.3).unwrap()), |y| 0.5 * libm::erfc(-y / 0.3 / 2f64.sqrt()));
    assert!(speckle < 1.95, "{speckle}");
    // The integral of [s((w + d) / e) − s((d − w) / e)] / 2w.
    let (w, e) = (0.4, 0.1);
    let soft = |t: f64| (t / e).exp().ln_1p() * e;
    let edges = kolmogorov(draw(&Uniform::new(w, e).unwrap()), |y| (soft(y + w) - soft(y - w)) / (2.0 * w));
    assert!(edges < 1.95, "{edges}");
}

/// Pearson's statistic in standard deviations above its mean, bins of at least ten expected counts.
fn chi_square(counts: &[f64], mean: f64) -> f64 {
    let n = counts.len() as f64;
    let mut histogram: HashMap<u64, f64> = HashMap::new();
    counts.iter().for_each(|&count| *histogram.entry(count as u64).or_default() += 1.0);
    let (mut statistic, mut bins) = (0.0, 0.0);
    let (mut expected, mut observed, mut left) = (0.0, 0.0, n);
    let last = (mean + 12.0 * mean.sqrt() + 30.0) as u64;
    for k in 0..=last {
        let share = n * (k as f64 * mean.ln() - mean - libm::lgamma(k as f64 + 1.0)).exp();
        (expected, left) = (expected + share, left - share);
        observed += histogram.get(&k).copied().unwrap_or(0.0);
        if (expected >= 10.0 && left >= 10.0) || k == last {
            statistic += (observed - expected).powi(2) / expected.max(1e-9);
            bins += 1.0;
            (expected, observed) = (0.0, 0.0);
        }
        assert!(k < last || histogram.keys().all(|&count| count <= last), "a count beyond {last} at mean {mean}");
    }
    (statistic - (bins - 1.0)) / (2.0 * (bins - 1.0f64)).sqrt()
}

#[test]
fn counts_have_the_probabilities_of_poisson() {
    // Both methods, on both sides of where one takes over from the other.
    for mean in [0.02, 0.7, 4.0, 9.99, 10.01, 14.0, 40.0, 255.0, 2550.0] {
        let counts = Rng::new(5, 0..1).poisson(&constant(mean, (1, 1, 400, 500))).unwrap();
        let excess = chi_square(&values(&counts), mean);
        assert!(excess.abs() < 4.0, "mean {mean}: {excess} standard deviations");
    }
}

#[test]
fn very_large_and_impossible_means_are_answered() {
    let means = [0.0, -3.0, f64::NAN, f64::INFINITY, 1e-300, 1e12, 1e18];
    let means = Tensor::from_slice(&means, (1, 1, 1, 7), &Device::Cpu).unwrap();
    let counts = values(&Rng::new(5, 0..1).poisson(&means).unwrap());
    assert_eq!(counts[..2], [0.0, 0.0]);
    assert!(counts[2].is_nan() && counts[3] == f64::INFINITY && counts[4] == 0.0, "{counts:?}");
    assert!((counts[5] - 1e12).abs() < 6e6 && (counts[6] - 1e18).abs() < 6e9, "{counts:?}");
    let large = values(&Rng::new(5, 0..1).poisson(&constant(1e12, (1, 1, 100, 100))).unwrap());
    let deviation = (large.iter().map(|count| (count - 1e12).powi(2)).sum::<f64>() / 1e4).sqrt();
    assert!((deviation / 1e6 - 1.0).abs() < 0.04, "{deviation}");
}

#[test]
fn a_crop_of_counts_is_that_of_the_whole_and_neighbours_do_not_matter() {
    let means = random(&[2, 3, 12, 40], 1, DType::F64).sqr().unwrap().affine(40.0, 0.0).unwrap();
    let whole = Rng::new(3, 0..2).poisson(&means).unwrap();
    for (y, x, height, width) in [(0, 0, 12, 40), (3, 7, 5, 8), (11, 39, 1, 1), (2, 16, 4, 7)] {
        let cut = |t: &Tensor| t.narrow(2, y, height).unwrap().narrow(3, x, width).unwrap();
        let crop = Rng::new(3, 0..2).at((y, x)).poisson(&cut(&means)).unwrap();
        assert_eq!(values(&crop), values(&cut(&whole)), "{height}x{width} at ({y}, {x})");
    }
    // Another mean everywhere else.
    let mut other = vec![300.0; 2 * 3 * 12 * 40];
    other[1000] = values(&means)[1000];
    let other = Tensor::from_vec(other, (2, 3, 12, 40), &Device::Cpu).unwrap();
    assert_eq!(values(&Rng::new(3, 0..2).poisson(&other).unwrap())[1000], values(&whole)[1000]);
    // Uniform numbers of tensors that are no images are those of one line.
    let flat = Rng::new(3, 0..2).uniform_like(&constant(0.0, (2, 1, 1, 6)).reshape((2, 6)).unwrap()).unwrap();
    let line = Rng::new(3, 0..2).uniform((2, 1, 1, 6), &Device::Cpu).unwrap();
    assert_eq!((flat.dims(), values(&flat)), (&[2, 6][..], values(&line)));
}

#[test]
fn threads_change_neither_noise_nor_likelihood() {
    let z = random(&[2, 3, 70, 70], 1, DType::F32);
    for entry in NOISES {
        let noise = entry.create(entry.example.parse().unwrap()).unwrap();
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let y = noise.corrupt(&z, &mut Rng::new(4, 0..2)).unwrap();
                (values(&y), values(&noise.log_likelihood(&z, &y).unwrap()))
            })
        };
        assert_eq!(run(1), run(3), "{}", entry.name);
    }
}

#[test]
fn scores_are_those_of_automatic_differentiation_in_both_types() {
    for entry in NOISES {
        let noise = entry.create(entry.example.parse().unwrap()).unwrap();
        for (dtype, rounding) in [(DType::F32, 1e-6), (DType::F64, 1e-13)] {
            let z = random(&[2, 3, 4, 5], 1, dtype);
            let y = noise.corrupt(&z, &mut Rng::new(2, 0..2)).unwrap();
            let (value, pullback) = pullback(&z, |z| noise.log_likelihood(z, &y)).unwrap();
            assert_eq!((value.dims(), value.dtype()), (&[2][..], dtype), "{}", entry.name);
            // Different weights for the rows.
            let weights = Tensor::new(&[1.0, -2.0], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            let expected = noise.score(&z, &y).unwrap();
            let expected = expected.broadcast_mul(&weights.reshape((2, 1, 1, 1)).unwrap()).unwrap();
            let error = relative_error(&pullback.apply(&weights).unwrap(), &expected);
            assert!(error < rounding, "{} in {dtype:?}: {error:e}", entry.name);
        }
    }
}

/// `log p(y | z) − log p(y | z₀)` by the model.
fn likelihood_ratio(noise: &dyn NoiseModel, y: f64, z: f64, z0: f64) -> f64 {
    let y = constant(y, (1, 1, 1, 1));
    let at = |z: f64| values(&noise.log_likelihood(&constant(z, (1, 1, 1, 1)), &y).unwrap())[0];
    at(z) - at(z0)
}

fn score(noise: &dyn NoiseModel, y: f64, z: f64) -> f64 {
    values(&noise.score(&constant(z, (1, 1, 1, 1)), &constant(y, (1, 1, 1, 1))).unwrap())[0]
}

fn normal(y: f64, mean: f64, sigma: f64) -> f64 {
    (-0.5 * ((y - mean) / sigma).powi(2)).exp() / sigma
}

#[test]
fn likelihoods_are_the_densities() {
    let close = |got: f64, expected: f64, what: &str| {
        assert!((got - expected).abs() < 1e-10 * (1.0 + expected.abs()), "{what}: {got} and {expected}");
    };
    // 12 photons where 10 or 20 are expected: 12 log(10 / 20) − (10 − 20).
    let poisson = Poisson::new(0.2, false).unwrap();
    let level = |photons: f64| 2.0 * photons / 51.0 - 1.0;
    let expected = 12.0 * 0.5f64.ln() + 10.0;
    close(likelihood_ratio(&poisson, level(12.0), level(10.0), level(20.0)), expected, "poisson");
    close(score(&poisson, level(12.0), level(10.0)), 25.5 * 0.2, "score of poisson");

    let both = PoissonGaussian::new(0.2, 0.1).unwrap();
    let sigma = |z: f64| (4.0 / 51.0 * (z + 1.0) / 2.0 + 0.01f64).sqrt();
    let expected = (normal(0.3, 0.1, sigma(0.1)) / normal(0.3, -0.4, sigma(-0.4))).ln();
    close(likelihood_ratio(&both, 0.3, 0.1, -0.4), expected, "poisson_gaussian");

    let speckle = Speckle::new(0.3).unwrap();
    let expected = (normal(0.3, 0.1, 0.33) / normal(0.3, -0.4, 0.18)).ln();
    close(likelihood_ratio(&speckle, 0.3, 0.1, -0.4), expected, "speckle");

    let flips = SaltAndPepper::new(0.2, 0.1).unwrap();
    let density = |y: f64, z: f64| 0.8 * normal(y, z, 0.1) + 0.1 * normal(y, -1.0, 0.1) + 0.1 * normal(y, 1.0, 0.1);
    for y in [-1.0, 0.9, 0.3, 1.0] {
        let expected = (density(y, 0.8) / density(y, 0.2)).ln();
        close(likelihood_ratio(&flips, y, 0.8, 0.2), expected, "salt_and_pepper");
    }

    let laplace = Laplace::new(0.1).unwrap();
    close(likelihood_ratio(&laplace, 0.3, 0.1, -0.4), 5.0, "laplace");
    assert_eq!([score(&laplace, 0.3, 0.1), score(&laplace, 0.1, 0.3), score(&laplace, 0.3, 0.3)], [10.0, -10.0, 0.0]);

    let uniform = Uniform::new(0.2, 0.05).unwrap();
    let s = |t: f64| 1.0 / (1.0 + (-t / 0.05).exp());
    let density = |d: f64| s(0.2 + d) - s(d - 0.2);
    close(likelihood_ratio(&uniform, 0.3, 0.1, 0.2), (density(0.2) / density(0.1)).ln(), "uniform");
    assert!((score(&uniform, 5.0, 0.0) - 20.0).abs() < 1e-12 && score(&uniform, 0.0, 0.0) == 0.0);
}

#[test]
fn a_box_has_a_likelihood_and_no_score() {
    let uniform = Uniform::new(0.25, 0.0).unwrap();
    let z = constant(0.0, (2, 1, 1, 2));
    let y = Tensor::from_slice(&[0.25, -0.1, 0.1, 0.26], (2, 1, 1, 2), &Device::Cpu).unwrap();
    assert_eq!(values(&uniform.log_likelihood(&z, &y).unwrap()), [0.0, f64::NEG_INFINITY]);
    assert_eq!(uniform.score(&z, &y).unwrap_err().to_string(), "score needs uniform noise with edge above 0");
}

#[test]
fn edges_and_sigmas_do_not_change_what_is_drawn_afterwards() {
    let z = constant(0.5, (1, 1, 4, 5));
    let drawn = |noise: &dyn NoiseModel| {
        let mut rng = Rng::new(1, 0..1);
        let y = noise.corrupt(&z, &mut rng).unwrap();
        (rng.draw(), values(&y))
    };
    assert_eq!(drawn(&Uniform::new(0.1, 0.0).unwrap()).0, drawn(&Uniform::new(0.1, 0.2).unwrap()).0);
    let (count, y) = drawn(&SaltAndPepper::new(0.5, 0.0).unwrap());
    assert_eq!(count, drawn(&SaltAndPepper::new(0.5, 0.1).unwrap()).0);
    assert!(y.iter().all(|y| [-1.0, 0.5, 1.0].contains(y)) && y.contains(&0.5) && y.contains(&1.0), "{y:?}");
    let noiseless = SaltAndPepper::new(0.5, 0.0).unwrap();
    for error in [noiseless.score(&z, &z).unwrap_err(), noiseless.log_likelihood(&z, &z).unwrap_err()] {
        assert!(error.to_string().ends_with("needs salt-and-pepper noise with sigma above 0"), "{error}");
    }
}

#[test]
fn flipped_samples_are_counted() {
    let z = constant(0.0, (1, 1, 300, 300));
    for (fraction, tolerance) in [(0.0, 0.0), (0.1, 0.004), (1.0, 0.0)] {
        let noise = SaltAndPepper::new(fraction, 0.05).unwrap();
        let y = values(&noise.corrupt(&z, &mut Rng::new(1, 0..1)).unwrap());
        let share = |value: f64| y.iter().filter(|&&y| y == value).count() as f64 / y.len() as f64;
        let flipped = share(-1.0) + share(1.0);
        assert!((flipped - fraction).abs() <= tolerance, "{fraction}: {flipped}");
        assert!((share(1.0) - share(-1.0)).abs() < 0.015, "{fraction}: {} salt, {} pepper", share(1.0), share(-1.0));
        let score = values(&noise.score(&z, &constant(0.9, (1, 1, 300, 300))).unwrap())[0];
        // 0.9 is far from 0 and near 1: a flip explains it, if there are any.
        assert_eq!(score, if fraction == 0.0 { 0.9 / (0.05 * 0.05) } else { score.clamp(0.0, 1e-9) }, "{fraction}");
    }
}

#[test]
fn black_and_beyond_have_finite_likelihoods_and_scores_that_lead_back() {
    for entry in NOISES {
        let noise = entry.create(entry.example.parse().unwrap()).unwrap();
        for z in [-1.0, -1.0 - 1e-12, -3.0, 5.0] {
            let y = -0.5;
            let (likelihood, score) = (likelihood_ratio(&*noise, y, z, 0.0), score(&*noise, y, z));
            assert!(likelihood.is_finite() && score.is_finite(), "{} at {z}: {likelihood}, {score}", entry.name);
        }
        if entry.name != "salt_and_pepper" && entry.name != "speckle" {
            assert!(score(&*noise, -0.5, -1.5) > 0.0 && score(&*noise, -0.5, 5.0) < 0.0, "{}", entry.name);
        }
        let black = noise.corrupt(&constant(-1.0, (1, 1, 1, 8)), &mut Rng::new(1, 0..1)).unwrap();
        assert!(values(&black).iter().all(|y| y.is_finite()));
    }
    // No photons leave a black pixel, and none seen does not pull it further down.
    let poisson = Poisson::new(1.0, false).unwrap();
    let black = poisson.corrupt(&constant(-1.0, (1, 1, 1, 8)), &mut Rng::new(1, 0..1)).unwrap();
    assert_eq!(values(&black), [-1.0; 8]);
    assert_eq!(score(&poisson, -1.0, -1.2), 0.0);
    // A number that is none is not made one.
    for entry in NOISES {
        let noise = entry.create(entry.example.parse().unwrap()).unwrap();
        assert!(likelihood_ratio(&*noise, 0.0, f64::NAN, 0.0).is_nan(), "{}", entry.name);
        assert!(score(&*noise, 0.0, f64::NAN).is_nan(), "{}", entry.name);
    }
}

#[test]
fn clamped_counts_end_at_white() {
    let z = constant(0.9, (1, 1, 50, 50));
    let draw = |settings: &str| {
        let noise = find(NOISES, "poisson").unwrap().create(settings.parse().unwrap()).unwrap();
        values(&noise.corrupt(&z, &mut Rng::new(1, 0..1)).unwrap())
    };
    let (free, clamped) = (draw("rate = 0.2"), draw("rate = 0.2\nclamp = true"));
    assert!(free.iter().any(|&y| y > 1.0));
    assert_eq!(clamped, free.iter().map(|y| y.clamp(-1.0, 1.0)).collect::<Vec<_>>());
    assert_eq!(draw(""), draw("rate = 1.0\nclamp = false"));
}

#[test]
fn settings_of_noises_are_checked() {
    let refusals = [
        ("poisson", "rate = 0.0", "poisson: rate is 0, expected a finite number above 0"),
        ("poisson_gaussian", "sigma = 0.0", "poisson_gaussian: sigma is 0, expected a finite number above 0"),
        ("uniform", "half_width = -1.0", "uniform: half_width is -1, expected a finite number above 0"),
        ("uniform", "half_width = 1.0\nedge = -1.0", "uniform: edge is -1, expected a finite number of at least 0"),
        ("salt_and_pepper", "fraction = 1.1", "salt_and_pepper: fraction is 1.1, expected a finite number from 0 to 1"),
        ("laplace", "scale = inf", "laplace: scale is inf, expected a finite number above 0"),
        ("speckle", "sigma = nan", "speckle: sigma is NaN, expected a finite number above 0"),
    ];
    for (name, settings, expected) in refusals {
        let error = find(NOISES, name).unwrap().create(settings.parse().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let laplace = Laplace::new(0.1).unwrap();
    let error = laplace.score(&constant(0.0, (1, 1, 2, 2)), &constant(0.0, (1, 1, 2, 3))).unwrap_err();
    assert_eq!(error.to_string(), "measurement has shape [1, 1, 2, 3], expected [1, 1, 2, 2]");
}

/// Crops of 128x128 of three photos in the public domain.
fn photos() -> Vec<(String, Tensor)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/photos.safetensors");
    let photos = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let scaled = |x: Tensor| x.to_dtype(DType::F64).unwrap().affine(2.0 / 255.0, -1.0).unwrap();
    photos.into_iter().map(|(name, x)| (name, scaled(x))).collect()
}

fn noisy(x: &Tensor, levels: f64) -> Tensor {
    Gaussian::new(2.0 * levels / 255.0).unwrap().corrupt(x, &mut Rng::new(1, 0..1)).unwrap()
}

/// As a file of 8 bits holds it.
fn recorded(x: &Tensor) -> Tensor {
    let levels = x.affine(127.5, 127.5).unwrap().round().unwrap().clamp(0.0, 255.0).unwrap();
    levels.affine(2.0 / 255.0, -1.0).unwrap()
}

/// Both methods in levels of 8 bits.
fn estimates(x: &Tensor) -> [f64; 2] {
    [sigma_by_wavelets(x), sigma_by_patches(x)].map(|sigma| sigma.unwrap() * 127.5)
}

#[test]
fn noise_levels_of_photos_are_found() {
    let (mut wavelets, mut patches) = (0.0, 0.0);
    for (name, x) in photos() {
        // What is allowed for texture shrinks as the noise grows.
        for (levels, tolerance) in [(2.0, 0.8), (5.0, 0.5), (10.0, 0.4), (15.0, 0.4), (25.0, 0.5), (50.0, 1.0)] {
            let y = noisy(&x, levels);
            let [by_wavelets, by_patches] = estimates(&y);
            println!("{name}: {levels}: {by_wavelets:.2} {by_patches:.2}");
            assert!((by_patches - levels).abs() < tolerance, "{name}: {by_patches} for {levels}");
            wavelets += (by_wavelets / levels - 1.0).abs();
            patches += (by_patches / levels - 1.0).abs();
            if [5.0, 25.0, 50.0].contains(&levels) {
                // Clipped and rounded: 5 % more.
                let recorded = estimate_sigma(&recorded(&y)).unwrap() * 127.5;
                println!("{name}: {levels} in a file: {recorded:.2}");
                assert!((recorded - levels).abs() < tolerance + 0.05 * levels, "{name}: {recorded} for {levels}");
            }
        }
    }
    assert!(patches < 0.5 * wavelets, "the method chosen is the better one: {patches} and {wavelets}");
}

#[test]
fn noise_on_a_flat_grey_is_measured_to_a_percent() {
    let y = noisy(&constant(0.1, (1, 3, 128, 128)), 10.0);
    for estimate in estimates(&y) {
        assert!((estimate / 10.0 - 1.0).abs() < 0.02, "{estimate}");
    }
    // Grey, and grey three times over.
    let grey = y.narrow(1, 0, 1).unwrap();
    let three = Tensor::cat(&[&grey, &grey, &grey], 1).unwrap();
    assert_eq!(estimates(&grey), estimates(&three));
    let [_, by_patches] = estimates(&grey.to_dtype(DType::F32).unwrap());
    assert!((by_patches / 10.0 - 1.0).abs() < 0.02, "{by_patches}");
}

#[test]
fn frames_and_burnt_areas_do_not_count_as_photo() {
    for (name, x) in photos() {
        let inside = noisy(&x, 10.0).narrow(2, 0, 80).unwrap();
        let frame = |value: f64| constant(value, (1, 3, 48, 128));
        for value in [-1.0, 0.25, 1.0] {
            let y = recorded(&Tensor::cat(&[&inside, &frame(value)], 2).unwrap());
            let [by_wavelets, by_patches] = estimates(&y);
            assert!((by_wavelets - 10.0).abs() < 2.0, "{name}: {by_wavelets} with a frame of {value}");
            assert!((by_patches - 10.0).abs() < 1.0, "{name}: {by_patches} with a frame of {value}");
        }
    }
}

#[test]
fn pictures_without_noise_have_none() {
    for estimate in estimates(&constant(0.1, (1, 3, 96, 96))) {
        assert_eq!(estimate, 0.0);
    }
    // A ramp of 8 bits, whose rounding is all there is.
    let ramp = Tensor::arange(0.0, 128.0, &Device::Cpu).unwrap().affine(0.01, -0.7).unwrap();
    let ramp = recorded(&ramp.reshape((1, 1, 1, 128)).unwrap().broadcast_as((1, 1, 128, 128)).unwrap());
    for estimate in estimates(&ramp) {
        assert!(estimate < 0.3, "{estimate}");
    }
}

#[test]
fn estimates_do_not_depend_on_threads() {
    let y = noisy(&photos()[0].1, 10.0);
    let run = |threads: usize| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| estimates(&y))
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn photos_that_tell_nothing_are_refused() {
    let message = |x: &Tensor| estimate_sigma(x).unwrap_err().to_string();
    let expected =
        "photo for a noise estimate has shape [1, 3, 8, 40], expected [1, _, H, W] with H and W of at least 16";
    assert_eq!(message(&constant(0.0, (1, 3, 8, 40))), expected);
    assert!(message(&constant(0.0, (2, 3, 40, 40))).starts_with("photo for a noise estimate has shape [2, 3, 40, 40]"));
    let small = random(&[1, 3, 20, 20], 1, DType::F64);
    let expected = "noise estimate: 169 windows are neither clipped nor constant, expected at least 3072";
    assert_eq!(message(&small), expected);
    assert_eq!(message(&constant(f64::NAN, (1, 1, 40, 40))), "photo for a noise estimate is not finite");
    let white = "noise estimate: 0 windows are neither clipped nor constant, expected at least 256";
    assert_eq!(message(&constant(1.0, (1, 3, 96, 96))), white);
}
