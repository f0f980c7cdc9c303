//! Random numbers that depend on what they are for, and on nothing else.

use std::collections::VecDeque;
use std::f64::consts::FRAC_PI_2;
use std::ops::Range;

use candle_core::{DType, Device, Tensor, WithDType};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};
use rayon::prelude::*;

use crate::{Error, Result};

/// One stream of random numbers per row of a batch.
///
/// A number is a function of (seed, sample, draw, channel, y, x) alone, where (y, x) is the absolute position of the
/// pixel: a crop or a window draws what the whole photo would, sample `k` is the same whether 1 or 8 samples are drawn,
/// and threads change nothing. The key of ChaCha8 is (seed, sample, draw, channel), its stream is y and its word is x.
/// Normals come from the Box–Muller transform over pairs of neighbours in x, through `libm`, so that every platform
/// computes the same bits.
///
/// # Laws
/// * a crop at `(y, x)` equals the crop of the whole;
/// * the numbers of a sample do not depend on the other samples of the batch;
/// * a golden test fixes the first numbers, so the stream never changes silently.
#[derive(Clone, Debug)]
pub struct Rng {
    seed: u64,
    samples: Range<u64>,
    draw: u64,
    origin: (usize, usize),
    /// Numbers to hand out instead.
    recorded: Option<VecDeque<Tensor>>,
}

impl Rng {
    /// One stream for each of `samples`, at the first draw.
    pub fn new(seed: u64, samples: Range<u64>) -> Self {
        Self { seed, samples, draw: 0, origin: (0, 0), recorded: None }
    }

    /// Hands out `draws`, whatever is asked for, in their order: the random numbers of another program, to compare results
    /// with it. Every draw needs the shape that is asked for; [`normal_like`](Self::normal_like) keeps all digits of f64.
    pub fn recorded(streams: usize, draws: impl IntoIterator<Item = Tensor>) -> Self {
        Self { recorded: Some(draws.into_iter().collect()), ..Self::new(0, 0..streams as u64) }
    }

    /// The next recorded draw; `None` without a record.
    fn replay(&mut self, shape: &[usize]) -> Result<Option<Tensor>> {
        let Some(draws) = &mut self.recorded else { return Ok(None) };
        let what = format!("recorded draw {}", self.draw);
        self.draw += 1;
        match draws.pop_front() {
            Some(draw) if draw.elem_count() == shape.iter().product::<usize>() => Ok(Some(draw.reshape(shape)?)),
            draw => {
                let got = draw.map_or_else(Vec::new, |draw| draw.dims().to_vec());
                Err(Error::Shape { what, got, expected: format!("{shape:?}") })
            }
        }
    }

    /// The same streams for tensors whose top-left pixel is at `origin = (y, x)` of the whole photo.
    pub fn at(self, origin: (usize, usize)) -> Self {
        Self { origin, ..self }
    }

    /// Number of streams, which is the number of rows that a draw must have.
    pub fn streams(&self) -> usize {
        self.samples.end.saturating_sub(self.samples.start) as usize
    }

    /// Index of the next draw.
    pub fn draw(&self) -> u64 {
        self.draw
    }

    /// Passes over one draw, as if its numbers had been drawn and thrown away.
    pub fn skip(&mut self) {
        self.draw += 1;
    }

    /// Standard normal numbers; one draw.
    ///
    /// # Shapes
    /// `shape`: `(B, C, H, W)` with `B` the number of streams; returns `f32`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `B` is another number.
    pub fn normal(&mut self, shape: (usize, usize, usize, usize), device: &Device) -> Result<Tensor> {
        if let Some(draw) = self.replay(&[shape.0, shape.1, shape.2, shape.3])? {
            return Ok(draw.to_dtype(DType::F32)?.to_device(device)?);
        }
        self.fill(shape, device, |Line { mut words, x: from, .. }, row| {
            // A pair starts at an even x, wherever the crop starts.
            let head = from % 2;
            if head == 1 {
                row[0] = pair(&mut words).1;
            }
            for chunk in row[head..].chunks_mut(2) {
                let (even, odd) = pair(&mut words);
                chunk[0] = even;
                if let Some(next) = chunk.get_mut(1) {
                    *next = odd;
                }
            }
        })
    }

    /// Numbers uniform on the open interval (0, 1); one draw.
    ///
    /// # Shapes
    /// `shape`: `(B, C, H, W)` with `B` the number of streams; returns `f32`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `B` is another number.
    pub fn uniform(&mut self, shape: (usize, usize, usize, usize), device: &Device) -> Result<Tensor> {
        if let Some(draw) = self.replay(&[shape.0, shape.1, shape.2, shape.3])? {
            return Ok(draw.to_dtype(DType::F32)?.to_device(device)?);
        }
        self.fill(shape, device, |Line { mut words, x: from, .. }, row| {
            if from % 2 == 1 {
                words.next_u32();
            }
            // 23 bits and a half: the largest is 1 − 2⁻²⁴, which f32 holds.
            row.iter_mut().for_each(|value| *value = ((words.next_u32() >> 9) as f32 + 0.5) / (1 << 23) as f32);
        })
    }

    /// Standard normal numbers with the shape, type and device of `like`; one draw.
    ///
    /// # Shapes
    /// `like`: `[B, ..]`. Tensors of four dimensions are images; all others count as one line of pixels.
    pub fn normal_like(&mut self, like: &Tensor) -> Result<Tensor> {
        if let Some(draw) = self.replay(like.dims())? {
            return Ok(draw.to_dtype(like.dtype())?.to_device(like.device())?);
        }
        Ok(self.normal(lines(like), like.device())?.reshape(like.shape())?.to_dtype(like.dtype())?)
    }

    /// Numbers uniform on (0, 1) with the shape, type and device of `like`; one draw.
    ///
    /// # Shapes
    /// As [`normal_like`](Self::normal_like).
    pub fn uniform_like(&mut self, like: &Tensor) -> Result<Tensor> {
        if let Some(draw) = self.replay(like.dims())? {
            return Ok(draw.to_dtype(like.dtype())?.to_device(like.device())?);
        }
        Ok(self.uniform(lines(like), like.device())?.reshape(like.shape())?.to_dtype(like.dtype())?)
    }

    /// Counts `k ~ Poisson(mean)`, with `mean ≤ 0` giving 0 and a mean that is not a number giving none; one draw.
    ///
    /// Means below 10 by inversion of one uniform number of 53 bits, the others by transformed rejection. A first
    /// attempt takes the two words of its pixel's line, as a normal number would; further ones come from a stream that
    /// belongs to the pixel alone, so that no pixel moves its neighbours' numbers.
    ///
    /// # Shapes
    /// `mean`: as [`normal_like`](Self::normal_like); the result has its shape, type and device.
    ///
    /// Hörmann (1993), "The transformed rejection method for generating Poisson random variables", algorithm PTRS,
    /// <https://doi.org/10.1016/0167-6687(93)90997-4>
    pub fn poisson(&mut self, mean: &Tensor) -> Result<Tensor> {
        let means: Vec<f64> = mean.flatten_all()?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec1()?;
        let counts = self.fill(lines(mean), &Device::Cpu, |line, counts: &mut [f64]| {
            let Line { mut words, mut own, x, y, start } = line;
            words.set_word_pos(2 * x as u128);
            let means = &means[start..start + counts.len()];
            for (index, (count, &mean)) in counts.iter_mut().zip(means).enumerate() {
                let first = [words.next_u32(), words.next_u32()];
                *count = poisson(mean, first, || {
                    // Lines use the streams below 2³².
                    own.set_stream(((x + index + 1) as u64) << 32 | (y as u64 & 0xffff_ffff));
                    own.set_word_pos(0);
                    own.clone()
                });
            }
        })?;
        // To the type first: a device may have no f64.
        Ok(counts.reshape(mean.shape())?.to_dtype(mean.dtype())?.to_device(mean.device())?)
    }

    /// Calls `line(place, values)` for every line of pixels.
    fn fill<T: WithDType>(
        &mut self,
        (rows, channels, height, width): (usize, usize, usize, usize),
        device: &Device,
        line: impl Fn(Line, &mut [T]) + Sync,
    ) -> Result<Tensor> {
        if rows != self.streams() {
            return Err(Error::Shape {
                what: "random draw".into(),
                got: vec![rows, channels, height, width],
                expected: format!("[{}, _, _, _], one row per stream", self.streams()),
            });
        }
        let mut values = vec![T::zero(); rows * channels * height * width];
        let (top, left) = self.origin;
        values.par_chunks_mut(width.max(1)).enumerate().for_each(|(index, values)| {
            let (plane, y) = (index / height, index % height);
            let (row, channel) = (plane / channels, plane % channels);
            let mut words = ChaCha8Rng::from_seed(self.key(row as u64, channel as u64));
            let own = words.clone();
            words.set_stream((top + y) as u64);
            words.set_word_pos((left & !1) as u128);
            line(Line { words, own, x: left, y: top + y, start: index * width }, values);
        });
        self.draw += 1;
        Ok(Tensor::from_vec(values, (rows, channels, height, width), device)?)
    }

    fn key(&self, row: u64, channel: u64) -> [u8; 32] {
        let mut key = [0; 32];
        for (bytes, number) in key.chunks_mut(8).zip([self.seed, self.samples.start + row, self.draw, channel]) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
        key
    }
}

/// A line of pixels and where its numbers come from.
struct Line {
    /// The line's stream, at the even position at or below `x`.
    words: ChaCha8Rng,
    /// The same key, for streams of single pixels.
    own: ChaCha8Rng,
    /// Absolute position of the first pixel.
    x: usize,
    y: usize,
    /// Index of the first pixel in the tensor.
    start: usize,
}

/// The shape of a draw for `like`: an image, or one line of pixels.
fn lines(like: &Tensor) -> (usize, usize, usize, usize) {
    match *like.dims() {
        [rows, channels, height, width] => (rows, channels, height, width),
        [rows, ..] => (rows, 1, 1, like.elem_count() / rows.max(1)),
        [] => (1, 1, 1, 1),
    }
}

/// A Poisson number from two words, and from the stream that `more` gives if they do not suffice.
fn poisson(mean: f64, first: [u32; 2], more: impl FnOnce() -> ChaCha8Rng) -> f64 {
    if mean.is_nan() || mean == f64::INFINITY {
        return mean;
    }
    if mean <= 0.0 {
        return 0.0;
    }
    if mean < 10.0 {
        return inverted_poisson(mean, first);
    }
    let rejection = Rejection::new(mean);
    rejection.attempt(first).unwrap_or_else(|| {
        let mut words = more();
        loop {
            if let Some(count) = rejection.attempt([words.next_u32(), words.next_u32()]) {
                return count;
            }
        }
    })
}

/// The smallest `k` with `P(K ≤ k) > u`.
fn inverted_poisson(mean: f64, [high, low]: [u32; 2]) -> f64 {
    let mut u = ((u64::from(high) << 21 | u64::from(low >> 11)) as f64 + 0.5) / (1u64 << 53) as f64;
    let mut probability = libm::exp(-mean);
    let mut count = 0.0;
    // Beyond 100 the probabilities of means below 10 are less than the rounding of u.
    while u > probability && count < 100.0 {
        u -= probability;
        count += 1.0;
        probability *= mean / count;
    }
    count
}

/// The constants of PTRS for one mean of at least 10, in the paper's letters.
struct Rejection {
    mean: f64,
    a: f64,
    b: f64,
    v_r: f64,
    inverse_alpha: f64,
}

impl Rejection {
    fn new(mean: f64) -> Self {
        let b = 0.931 + 2.53 * mean.sqrt();
        Self {
            mean,
            a: -0.059 + 0.02483 * b,
            b,
            v_r: 0.9277 - 3.6224 / (b - 2.0),
            inverse_alpha: 1.1239 + 1.1328 / (b - 3.4),
        }
    }

    fn attempt(&self, words: [u32; 2]) -> Option<f64> {
        let &Self { mean, a, b, v_r, inverse_alpha } = self;
        let [u, v] = words.map(|word| (f64::from(word) + 0.5) / (1u64 << 32) as f64);
        let u = u - 0.5;
        let us = 0.5 - u.abs();
        let count = ((2.0 * a / us + b) * u + mean + 0.43).floor();
        if us >= 0.07 && v <= v_r {
            return Some(count);
        }
        if count < 0.0 || (us < 0.013 && v > us) {
            return None;
        }
        let hat = libm::log(v * inverse_alpha / (a / (us * us) + b));
        (hat <= log_poisson(count, mean)).then_some(count)
    }
}

/// `log (mean^k e^−mean / k!)`
fn log_poisson(k: f64, mean: f64) -> f64 {
    if k < 16.0 {
        return k * libm::log(mean) - mean - libm::lgamma(k + 1.0);
    }
    // Stirling's series, so that large numbers that nearly cancel are never formed.
    const HALF_LOG_TAU: f64 = 0.918_938_533_204_672_8;
    let relative = (mean - k) / k;
    let correction = (1.0 / 12.0 - (1.0 / 360.0 - 1.0 / (1260.0 * k * k)) / (k * k)) / k;
    -k * (relative - libm::log1p(relative)) - HALF_LOG_TAU - 0.5 * libm::log(k) - correction
}

/// Two independent standard normals from two words.
#[inline]
fn pair(words: &mut ChaCha8Rng) -> (f32, f32) {
    // The half keeps the logarithm finite; the largest radius is √(2 · 33 ln 2) = 6.8.
    let radius = (-2.0 * libm::log((f64::from(words.next_u32()) + 0.5) / (1u64 << 32) as f64)).sqrt();
    let (cos, sin) = direction(words.next_u32());
    ((radius * cos) as f32, (radius * sin) as f32)
}

/// Cosine and sine of an angle: the upper two bits choose the quadrant, the others an angle within π/4 of its axis, so
/// that the slow reduction of large arguments is never needed.
#[inline]
fn direction(word: u32) -> (f64, f64) {
    const STEP: f64 = FRAC_PI_2 / (1u32 << 30) as f64;
    let (quadrant, rest) = (word >> 30, word & ((1 << 30) - 1));
    let (sin, cos) = libm::sincos((f64::from(rest) - f64::from(1 << 29)) * STEP);
    match quadrant {
        0 => (cos, sin),
        1 => (-sin, cos),
        2 => (-cos, -sin),
        _ => (sin, -cos),
    }
}

/// A uniformly random order of `0..count`, after Fisher and Yates.
///
/// # Errors
/// [`Error::Config`] for more than 2³² − 1 things.
pub(crate) fn permutation(seed: u64, count: usize) -> Result<Vec<u32>> {
    let Ok(last) = u32::try_from(count) else {
        return Err(Error::config("permutation", format!("{count} things to order, expected at most {}", u32::MAX)));
    };
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut words = ChaCha8Rng::from_seed(key);
    let mut order: Vec<u32> = (0..last).collect();
    for i in (1..count).rev() {
        // The upper half of a product: no number below i + 1 is favoured by more than 2⁻³².
        let j = (u128::from(words.next_u64()) * (i as u128 + 1)) >> 64;
        order.swap(i, j as usize);
    }
    Ok(order)
}
