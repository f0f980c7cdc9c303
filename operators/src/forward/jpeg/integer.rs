//! Blocks as codecs reckon them, in integers.
//!
//! The values between transform and rounding depend on the arithmetic, and where one lies half-way between two steps the
//! picture does as well. Libraries of the Independent JPEG Group's line use the factorisation of Loeffler, Ligtenberg and
//! Moschytz (1989), <https://doi.org/10.1109/ICASSP.1989.266596>, with constants of 13 fractional bits; rounding happens
//! twice on each way, after rows and after columns. All between is exact, so that a matrix product gives the same bits.

use super::tables::{Block, SIDE};

/// `2¹³ √2 cos((2j + 1) k π / 16)`, for `k = 0` without the root, as the factorisation sums it from its rounded
/// constants: next to the nearest integer in places.
const COSINES: Block<i32> = [
    [8192, 8192, 8192, 8192, 8192, 8192, 8192, 8192],
    [11363, 9633, 6437, 2260, -2260, -6437, -9633, -11363],
    [10703, 4433, -4433, -10703, -10703, -4433, 4433, 10703],
    [9633, -2259, -11362, -6436, 6436, 11362, 2259, -9633],
    [8192, -8192, -8192, 8192, 8192, -8192, -8192, 8192],
    [6437, -11362, 2261, 9633, -9633, -2261, 11362, -6437],
    [4433, -10704, 10704, -4433, -4433, 10704, -10704, 4433],
    [2260, -6436, 9633, -11363, 11363, -9633, 6436, -2260],
];

/// The same, `k` across.
const TRANSPOSED: Block<i32> = transposed(COSINES);

const fn transposed(table: Block<i32>) -> Block<i32> {
    let mut result = [[0; SIDE]; SIDE];
    let mut i = 0;
    while i < SIDE * SIDE {
        result[i % SIDE][i / SIDE] = table[i / SIDE][i % SIDE];
        i += 1;
    }
    result
}

/// `a · b / 2^bits`, halves up.
#[inline]
fn product(a: &Block<i32>, b: &Block<i32>, bits: u32) -> Block<i32> {
    let mut result = [[1 << (bits - 1); SIDE]; SIDE];
    for (result, weights) in result.iter_mut().zip(a) {
        for (&weight, row) in weights.iter().zip(b) {
            result.iter_mut().zip(row).for_each(|(sum, &value)| *sum += weight * value);
        }
        result.iter_mut().for_each(|sum| *sum >>= bits);
    }
    result
}

/// Samples from −128 to 127 after coding with these steps and decoding.
pub(super) fn code(block: &Block<i32>, steps: &Block<i32>) -> Block<i32> {
    // Rows keep two more bits than samples have, coefficients are eightfold.
    let rows = product(block, &TRANSPOSED, 11);
    let mut coefficients = product(&COSINES, &rows, 15);
    for (values, steps) in coefficients.iter_mut().zip(steps) {
        for (value, &step) in values.iter_mut().zip(steps) {
            // To the nearest, halves away from zero.
            let whole = (value.abs() + 4 * step) / (8 * step) * step;
            *value = if *value < 0 { -whole } else { whole };
        }
    }
    let columns = product(&TRANSPOSED, &coefficients, 11);
    product(&columns, &COSINES, 18).map(|row| row.map(|value| value.clamp(-128, 127)))
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::*;

    #[test]
    fn the_table_is_that_of_cosines_to_its_thirteen_bits() {
        for (k, row) in COSINES.iter().enumerate() {
            for (j, &value) in row.iter().enumerate() {
                let root = if k == 0 { 1.0 } else { 2.0f64.sqrt() };
                let expected = 8192.0 * root * ((2 * j + 1) as f64 * k as f64 * PI / 16.0).cos();
                assert!((f64::from(value) - expected).abs() < 1.5, "({k}, {j}): {value} and {expected}");
            }
        }
    }

    #[test]
    fn extreme_blocks_stay_in_range() {
        for step in [1, 255] {
            for pattern in [|_: usize| 127, |_| -128, |i| if (i / 8 + i % 8) % 2 == 0 { 127 } else { -128 }] {
                let mut block = [[0; SIDE]; SIDE];
                block.iter_mut().flatten().enumerate().for_each(|(i, value)| *value = pattern(i));
                let coded = code(&block, &[[step; SIDE]; SIDE]);
                let worst = block.iter().flatten().zip(coded.iter().flatten()).map(|(a, b)| (a - b).abs()).max();
                // Each of 64 coefficients is off by half a step at most, and carries a quarter of it to a pixel.
                assert!(worst <= Some(1 + 8 * step), "step {step}: off by {worst:?}");
            }
        }
    }
}
