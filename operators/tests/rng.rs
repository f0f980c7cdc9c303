use std::ops::Range;

use candle_core::{Device, Tensor};
use tweedie_operators::Rng;

use crate::values;

const CPU: Device = Device::Cpu;

fn normal(seed: u64, samples: Range<u64>, shape: (usize, usize, usize, usize)) -> Tensor {
    Rng::new(seed, samples).normal(shape, &CPU).unwrap()
}

/// Fixes the stream. The numbers come from ChaCha8 and the Box–Muller transform written in Python.
#[test]
fn the_stream_never_changes() {
    let got: Vec<f32> = normal(1, 2..3, (1, 2, 2, 3)).flatten_all().unwrap().to_vec1().unwrap();
    let expected: [f32; 12] = GOLDEN;
    assert_eq!(got, expected);
    let uniform: Vec<f32> =
        Rng::new(1, 2..3).uniform((1, 1, 1, 3), &CPU).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(uniform, GOLDEN_UNIFORM);
}

const GOLDEN: [f32; 12] = [
    0.5122513,
    1.752878,
    0.9416569,
    -1.1983773,
    1.8127711,
    -0.38549933,
    0.54904354,
    -0.7344327,
    -0.5036579,
    -1.4639273,
    -1.3662547,
    1.1036993,
];
const GOLDEN_UNIFORM: [f32; 3] = [0.18871993, 0.32974952, 0.26773876];

/// ChaCha with 8 rounds as Bernstein (2008) defines it: 64-bit counter, 64-bit stream.
fn chacha8(key: [u64; 4], counter: u64, stream: u64) -> [u32; 16] {
    let mut start = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (slot, word) in start[4..].chunks_mut(2).zip(key.into_iter().chain([counter, stream])) {
        (slot[0], slot[1]) = (word as u32, (word >> 32) as u32);
    }
    let mut state = start;
    let mut quarter = |a: usize, b: usize, c: usize, d: usize| {
        for (to, with, rotated, by) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
            state[to] = state[to].wrapping_add(state[with]);
            state[rotated] = (state[rotated] ^ state[to]).rotate_left(by);
        }
    };
    for _ in 0..4 {
        for i in 0..4 {
            quarter(i, 4 + i, 8 + i, 12 + i);
        }
        for i in 0..4 {
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4);
        }
    }
    std::array::from_fn(|i| state[i].wrapping_add(start[i]))
}

/// The normals of the pixels (y, x) and (y, x + 1), x even, from the definition of the stream.
fn pair_from_the_definition(key: [u64; 4], y: u64, x: u64) -> (f64, f64) {
    let word = |x: u64| f64::from(chacha8(key, x / 16, y)[(x % 16) as usize]);
    let scale = 2f64.powi(-32);
    let radius = (-2.0 * ((word(x) + 0.5) * scale).ln()).sqrt();
    let angle = (word(x + 1) / 2f64.powi(30) - 0.5) * std::f64::consts::FRAC_PI_2;
    (radius * angle.cos(), radius * angle.sin())
}

#[test]
fn normals_are_those_of_the_definition() {
    let mut rng = Rng::new(11, 5..7);
    rng.skip();
    let got = values(&rng.normal((2, 2, 3, 70), &CPU).unwrap());
    for (row, channel, y, x) in [(0, 0, 0, 0), (0, 1, 0, 2), (1, 0, 2, 16), (1, 1, 1, 68), (0, 1, 2, 62)] {
        let (even, odd) = pair_from_the_definition([11, 5 + row, 1, channel], y, x);
        let at = (((row * 2 + channel) * 3 + y) * 70 + x) as usize;
        assert!((got[at] - even).abs() < 1e-6 && (got[at + 1] - odd).abs() < 1e-6, "{row} {channel} {y} {x}");
    }
}

#[test]
fn a_crop_draws_what_the_whole_photo_draws() {
    let whole = normal(3, 0..2, (2, 3, 20, 40));
    for (y, x, height, width) in
        [(0, 0, 20, 40), (4, 6, 5, 8), (3, 7, 5, 8), (19, 39, 1, 1), (2, 33, 4, 7), (1, 16, 2, 1)]
    {
        let crop = Rng::new(3, 0..2).at((y, x)).normal((2, 3, height, width), &CPU).unwrap();
        let expected = whole.narrow(2, y, height).unwrap().narrow(3, x, width).unwrap();
        assert_eq!(values(&crop), values(&expected), "{height}x{width} at ({y}, {x})");
    }
    let whole = Rng::new(3, 0..1).uniform((1, 1, 4, 40), &CPU).unwrap();
    let crop = Rng::new(3, 0..1).at((1, 17)).uniform((1, 1, 2, 9), &CPU).unwrap();
    assert_eq!(values(&crop), values(&whole.narrow(2, 1, 2).unwrap().narrow(3, 17, 9).unwrap()));
}

#[test]
fn a_sample_is_the_same_alone_and_among_eight() {
    let (mut eight, mut alone) = (Rng::new(9, 0..8), Rng::new(9, 5..6));
    for _ in 0..3 {
        let all = eight.normal((8, 3, 4, 5), &CPU).unwrap();
        let one = alone.normal((1, 3, 4, 5), &CPU).unwrap();
        assert_eq!(values(&one), values(&all.narrow(0, 5, 1).unwrap()));
    }
}

#[test]
fn threads_do_not_change_the_numbers() {
    let draw = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| values(&normal(4, 0..3, (3, 3, 32, 32))))
    };
    assert_eq!(draw(1), draw(5));
}

#[test]
fn skipped_draws_are_drawn_draws() {
    let (mut drawn, mut skipped) = (Rng::new(4, 0..1), Rng::new(4, 0..1));
    drawn.normal((1, 1, 2, 2), &CPU).unwrap();
    skipped.skip();
    assert_eq!((drawn.draw(), skipped.draw()), (1, 1));
    let next = |rng: &mut Rng| values(&rng.normal((1, 1, 2, 2), &CPU).unwrap());
    assert_eq!(next(&mut drawn), next(&mut skipped));
}

#[test]
fn another_number_of_rows_is_refused() {
    let error = Rng::new(0, 0..2).normal((3, 1, 4, 4), &CPU).unwrap_err();
    assert_eq!(error.to_string(), "random draw has shape [3, 1, 4, 4], expected [2, _, _, _], one row per stream");
}

/// Largest distance of the empirical distribution from `cdf`, times √n.
fn kolmogorov(mut numbers: Vec<f64>, cdf: impl Fn(f64) -> f64) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let n = numbers.len() as f64;
    let distance = |(i, x): (usize, &f64)| {
        let expected = cdf(*x);
        (expected - i as f64 / n).abs().max(((i + 1) as f64 / n - expected).abs())
    };
    numbers.iter().enumerate().map(distance).fold(0.0, f64::max) * n.sqrt()
}

#[test]
fn normals_are_normal() {
    let numbers = values(&normal(17, 0..1, (1, 1, 250, 400)));
    let n = numbers.len() as f64;
    let moment = |power: i32| numbers.iter().map(|x| x.powi(power)).sum::<f64>() / n;
    // Five standard errors of the first four moments.
    for (power, expected, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0f64)] {
        let error = (moment(power) - expected).abs() / (variance / n).sqrt();
        assert!(error < 5.0, "moment {power} is {} after {error} standard errors", moment(power));
    }
    // Kolmogorov's distribution: above 1.95 once in a thousand seeds.
    let statistic = kolmogorov(numbers, |x| 0.5 * libm::erfc(-x / 2f64.sqrt()));
    assert!(statistic < 1.95, "{statistic}");
}

#[test]
fn uniforms_are_uniform_and_inside() {
    let numbers = values(&Rng::new(17, 0..1).uniform((1, 1, 250, 400), &CPU).unwrap());
    assert!(numbers.iter().all(|&u| u > 0.0 && u < 1.0));
    let statistic = kolmogorov(numbers, |u| u);
    assert!(statistic < 1.95, "{statistic}");
}

#[test]
fn seeds_samples_draws_channels_and_lines_are_uncorrelated() {
    let draw = |seed: u64, samples: Range<u64>, skipped: usize, channels: usize, origin: (usize, usize)| {
        let mut rng = Rng::new(seed, samples).at(origin);
        (0..skipped).for_each(|_| rng.skip());
        let all = values(&rng.normal((1, channels, 100, 100), &CPU).unwrap());
        all[all.len() - 10_000..].to_vec()
    };
    let first = draw(0, 0..1, 0, 1, (0, 0));
    let others = [
        ("seed", draw(1, 0..1, 0, 1, (0, 0))),
        ("sample", draw(0, 1..2, 0, 1, (0, 0))),
        ("draw", draw(0, 0..1, 1, 1, (0, 0))),
        ("channel", draw(0, 0..1, 0, 2, (0, 0))),
        ("line", draw(0, 0..1, 0, 1, (1, 0))),
        ("column", draw(0, 0..1, 0, 1, (0, 1))),
        ("pair", draw(0, 0..1, 0, 1, (0, 2))),
        ("block", draw(0, 0..1, 0, 1, (0, 64))),
    ];
    for (name, other) in others {
        assert_ne!(first, other, "{name}");
        let product = |f: fn(f64) -> f64| first.iter().zip(&other).map(|(a, b)| f(*a) * f(*b)).sum::<f64>() / 1e4;
        // Standard errors 1/100 and 2/100; five of them.
        assert!(product(|x| x).abs() < 0.05, "{name}: correlation {}", product(|x| x));
        assert!(product(|x| x * x - 1.0).abs() < 0.1, "{name}: correlation of squares");
    }
}
