//! Squares of pixels as the channels of one pixel, and back.

use rayon::prelude::*;
use std::borrow::Cow;

/// `[B, C, H, W]` with every square of `patch × patch` pixels as one pixel of `C · patch²` channels, and its shape.
pub(crate) fn gathered(x: &[f32], shape: [usize; 4], patch: usize) -> (Cow<'_, [f32]>, [usize; 4]) {
    if patch == 1 {
        return (Cow::Borrowed(x), shape);
    }
    let [batch, channels, height, width] = shape;
    let (rows, columns) = (height / patch, width / patch);
    let mut values = vec![0.0; x.len()];
    // A plane of the result is every `patch`-th pixel of every `patch`-th row.
    values.par_chunks_mut(rows * columns).enumerate().for_each(|(plane, values)| {
        let (of, square) = (plane / (patch * patch), plane % (patch * patch));
        let (i, j) = (square / patch, square % patch);
        for (y, row) in values.chunks_exact_mut(columns).enumerate() {
            let from = &x[(of * height + y * patch + i) * width + j..];
            row.iter_mut().zip(from.iter().step_by(patch)).for_each(|(to, from)| *to = *from);
        }
    });
    (Cow::Owned(values), [batch, channels * patch * patch, rows, columns])
}

/// What [`gathered`] was made of, an image of `shape`.
pub(crate) fn scattered(values: Vec<f32>, shape: [usize; 4], patch: usize) -> Vec<f32> {
    if patch == 1 {
        return values;
    }
    let [_, _, height, width] = shape;
    let (rows, columns) = (height / patch, width / patch);
    let mut x = vec![0.0; values.len()];
    x.par_chunks_mut(height * width).enumerate().for_each(|(of, x)| {
        for (y, to) in x.chunks_exact_mut(width).enumerate() {
            for j in 0..patch {
                let plane = of * patch * patch + y % patch * patch + j;
                let from = &values[(plane * rows + y / patch) * columns..][..columns];
                to[j..].iter_mut().step_by(patch).zip(from).for_each(|(to, from)| *to = *from);
            }
        }
    });
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, number by number, and the way back.
    #[test]
    fn squares_become_channels() {
        let shape = [2, 3, 4, 6];
        let x: Vec<f32> = (0..144).map(|k| k as f32).collect();
        let (values, to) = gathered(&x, shape, 2);
        assert_eq!(to, [2, 12, 2, 3]);
        for b in 0..2 {
            for c in 0..3 {
                for y in 0..4 {
                    for column in 0..6 {
                        let channel = (c * 2 + y % 2) * 2 + column % 2;
                        let got = values[((b * 12 + channel) * 2 + y / 2) * 3 + column / 2];
                        assert_eq!(got, x[((b * 3 + c) * 4 + y) * 6 + column]);
                    }
                }
            }
        }
        assert_eq!(scattered(values.into_owned(), shape, 2), x);
    }
}
