//! Quantisation tables and the cosine transform of blocks.

use std::f64::consts::PI;

use crate::map::Real;

/// Side of a block.
pub(super) const SIDE: usize = 8;

/// A block of 8 × 8 samples or coefficients, row by row.
pub(super) type Block<T> = [[T; SIDE]; SIDE];

/// ITU-T T.81, Annex K, table K.1.
const LUMINANCE: Block<i32> = [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
];

/// ITU-T T.81, Annex K, table K.2.
const CHROMINANCE: Block<i32> = [
    [17, 18, 24, 47, 99, 99, 99, 99],
    [18, 21, 26, 66, 99, 99, 99, 99],
    [24, 26, 56, 99, 99, 99, 99, 99],
    [47, 66, 99, 99, 99, 99, 99, 99],
    [99, 99, 99, 99, 99, 99, 99, 99],
    [99, 99, 99, 99, 99, 99, 99, 99],
    [99, 99, 99, 99, 99, 99, 99, 99],
    [99, 99, 99, 99, 99, 99, 99, 99],
];

/// The standard tables, luminance and chrominance, in the scale of the Independent JPEG Group: unchanged at quality 50,
/// all ones at 100, entries from 1 to 255.
pub(super) fn scaled(quality: u32) -> [Block<i32>; 2] {
    let quality = quality.clamp(1, 100) as i32;
    let percent = if quality < 50 { 5000 / quality } else { 200 - 2 * quality };
    [LUMINANCE, CHROMINANCE].map(|table| table.map(|row| row.map(|q| ((q * percent + 50) / 100).clamp(1, 255))))
}

/// `c[k][j] = √2 cos((2j + 1) k π / 16)`, and 1 for `k = 0`: the cosine transform times √8.
fn cosines() -> Block<f64> {
    let mut table = [[0.0; SIDE]; SIDE];
    for (k, row) in table.iter_mut().enumerate() {
        for (j, value) in row.iter_mut().enumerate() {
            let angle = ((2 * j + 1) * k) as f64 * PI / 16.0;
            *value = if k == 0 { 1.0 } else { angle.cos() * 2.0f64.sqrt() };
        }
    }
    table
}

/// What the transform of blocks needs.
#[derive(Debug)]
pub(super) struct Cosine<T> {
    /// `c`
    analysis: Block<T>,
    /// `cᵀ`
    synthesis: Block<T>,
}

impl<T: Real> Cosine<T> {
    pub(super) fn new() -> Self {
        let table = cosines();
        let mut synthesis = table;
        for (k, row) in table.iter().enumerate() {
            row.iter().enumerate().for_each(|(j, &value)| synthesis[j][k] = value);
        }
        Self { analysis: table.map(|row| row.map(T::of)), synthesis: synthesis.map(|row| row.map(T::of)) }
    }

    /// Two-dimensional DCT-II of samples, orthonormal.
    #[inline]
    pub(super) fn analyse(&self, block: &Block<T>) -> Block<T> {
        both_ways(&self.analysis, block, &self.synthesis)
    }

    /// The inverse, which is the transpose.
    #[inline]
    pub(super) fn synthesise(&self, block: &Block<T>) -> Block<T> {
        both_ways(&self.synthesis, block, &self.analysis)
    }
}

/// `left · block · right / 8`, row by row so that eight numbers are in work at a time.
#[inline]
fn both_ways<T: Real>(left: &Block<T>, block: &Block<T>, right: &Block<T>) -> Block<T> {
    let mut result = [[T::zero(); SIDE]; SIDE];
    for (result, weights) in result.iter_mut().zip(left) {
        let down = combine(weights, block);
        *result = combine(&down, right).map(|value| value * T::of(0.125));
    }
    result
}

/// `Σ_j w_j rows_j`
#[inline]
fn combine<T: Real>(weights: &[T; SIDE], rows: &Block<T>) -> [T; SIDE] {
    let mut sum = [T::zero(); SIDE];
    for (&weight, row) in weights.iter().zip(rows) {
        for (sum, &value) in sum.iter_mut().zip(row) {
            *sum += weight * value;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quality_50_is_annex_k_and_quality_100_is_all_ones() {
        assert_eq!(scaled(50), [LUMINANCE, CHROMINANCE]);
        assert_eq!(LUMINANCE.iter().flatten().sum::<i32>(), 3688, "sum of table K.1");
        assert_eq!(CHROMINANCE.iter().flatten().sum::<i32>(), 5505, "sum of table K.2");
        assert!(scaled(100).iter().flatten().flatten().all(|&q| q == 1));
        assert!(scaled(1).iter().flatten().flatten().all(|&q| q == 255));
        // (16 · 50 + 50) / 100 and (99 · 50 + 50) / 100, rounded down.
        assert_eq!((scaled(75)[0][0][0], scaled(75)[1][7][7]), (8, 50));
        assert_eq!((scaled(10)[0][0][0], scaled(10)[0][0][7], scaled(10)[0][4][5]), (80, 255, 255));
        assert_eq!(scaled(25)[0][0][1], 22);
    }

    #[test]
    fn the_transform_is_the_orthonormal_cosine_transform() {
        let mut block = [[0.0f64; SIDE]; SIDE];
        for (i, value) in block.iter_mut().flatten().enumerate() {
            *value = ((i * i * 37 + 11 * i) % 101) as f64 - 50.0;
        }
        let cosine = Cosine::<f64>::new();
        let got = cosine.analyse(&block);
        let scale = |k: usize| if k == 0 { 0.125f64.sqrt() } else { 0.5 };
        let wave = |k: usize, j: usize| scale(k) * ((2 * j + 1) as f64 * k as f64 * PI / 16.0).cos();
        for (u, got) in got.iter().enumerate() {
            for (v, got) in got.iter().enumerate() {
                let mut sum = 0.0;
                for (i, row) in block.iter().enumerate() {
                    sum += row.iter().enumerate().map(|(j, x)| wave(u, i) * wave(v, j) * x).sum::<f64>();
                }
                assert!((got - sum).abs() < 1e-11, "({u}, {v}): {got} and {sum}");
            }
        }
        let back = cosine.synthesise(&got);
        for (back, block) in back.iter().flatten().zip(block.iter().flatten()) {
            assert!((back - block).abs() < 1e-11);
        }
    }
}
