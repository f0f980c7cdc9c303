//! Random numbers that depend on what they are for, and on nothing else.

use std::f64::consts::FRAC_PI_2;
use std::ops::Range;

use candle_core::{Device, Tensor};
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
}

impl Rng {
    /// One stream for each of `samples`, at the first draw.
    pub fn new(seed: u64, samples: Range<u64>) -> Self {
        Self { seed, samples, draw: 0, origin: (0, 0) }
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
        self.fill(shape, device, |mut words, from, row| {
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
        self.fill(shape, device, |mut words, from, row| {
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
        let shape = match *like.dims() {
            [rows, channels, height, width] => (rows, channels, height, width),
            [rows, ..] => (rows, 1, 1, like.elem_count() / rows.max(1)),
            [] => (1, 1, 1, 1),
        };
        Ok(self.normal(shape, like.device())?.reshape(like.shape())?.to_dtype(like.dtype())?)
    }

    /// Calls `line(words, x, values)` for every line of pixels; the words stand at the even position at or below `x`.
    fn fill(
        &mut self,
        (rows, channels, height, width): (usize, usize, usize, usize),
        device: &Device,
        line: impl Fn(ChaCha8Rng, usize, &mut [f32]) + Sync,
    ) -> Result<Tensor> {
        if rows != self.streams() {
            return Err(Error::Shape {
                what: "random draw".into(),
                got: vec![rows, channels, height, width],
                expected: format!("[{}, _, _, _], one row per stream", self.streams()),
            });
        }
        let mut values = vec![0f32; rows * channels * height * width];
        let (top, left) = self.origin;
        values.par_chunks_mut(width.max(1)).enumerate().for_each(|(index, values)| {
            let (plane, y) = (index / height, index % height);
            let (row, channel) = (plane / channels, plane % channels);
            let mut words = ChaCha8Rng::from_seed(self.key(row as u64, channel as u64));
            words.set_stream((top + y) as u64);
            words.set_word_pos((left & !1) as u128);
            line(words, left, values);
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
