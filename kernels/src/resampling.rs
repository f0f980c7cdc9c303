//! Twice or half the resolution by a fixed filter, the same for every channel, with its data gradient.

use crate::dispatch::compiled;
use crate::epilogue::{Epilogue, Job};
use crate::isa::InstructionSet;
use crate::network::Filter;
use crate::operand::Operand;
use crate::precision::Precision;
use crate::vector::Vector;
use rayon::prelude::*;

/// A linear map along one axis; images go through its outer product with itself.
///
/// Zeros lie beyond the ends of the axis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Resampling {
    /// `to[2 i + p] = Σ w · from[i + offset]` over the taps (offset, w) of parity `p`.
    Up([Vec<(isize, f32)>; 2]),
    /// `to[i] = Σ w · from[2 i + offset]` over the taps (offset, w).
    Down(Vec<(isize, f32)>),
}

impl Resampling {
    /// The map that a filter is along each axis.
    pub(crate) fn new(filter: &Filter) -> Self {
        match filter {
            Filter::Nearest => Self::Up([vec![(0, 1.0)], vec![(0, 1.0)]]),
            Filter::Average => Self::Down(vec![(0, 0.5), (1, 0.5)]),
            // As a correlation the taps come in the reverse order; a zero lies after every pixel, so that those of one
            // parity alone meet any, and the sum over both is twice that of the taps.
            Filter::FirUp(taps) => {
                let (count, before) = (taps.len(), taps.len().div_ceil(2) as isize);
                let of = |parity: isize| {
                    let meets = |&k: &usize| (parity + k as isize - before).rem_euclid(2) == 0;
                    let tap = |k: usize| ((parity + k as isize - before) / 2, 2.0 * reversed(taps, k));
                    (0..count).filter(meets).map(tap).collect()
                };
                Self::Up([of(0), of(1)])
            }
            Filter::FirDown(taps) => {
                let before = (taps.len() as isize - 1) / 2;
                Self::Down((0..taps.len()).map(|k| (k as isize - before, reversed(taps, k))).collect())
            }
        }
    }

    /// The transposed map: what each pixel has been added to.
    pub(crate) fn transposed(&self) -> Self {
        match self {
            Self::Up(taps) => {
                let of = |parity: isize| {
                    taps[parity as usize].iter().map(move |&(offset, weight)| (parity - 2 * offset, weight))
                };
                Self::Down(of(0).chain(of(1)).collect())
            }
            Self::Down(taps) => {
                let of = |parity: isize| {
                    let meets = |(offset, _): &&(isize, f32)| (parity - offset).rem_euclid(2) == 0;
                    taps.iter().filter(meets).map(|&(offset, weight)| ((parity - offset) / 2, weight)).collect()
                };
                Self::Up([of(0), of(1)])
            }
        }
    }

    /// The pixels that pixel `i` of the result is made of, of `size` there are, and their weights.
    fn taps(&self, i: usize, size: usize) -> impl Iterator<Item = (usize, f32)> + '_ {
        let (taps, first) = match self {
            Self::Up(taps) => (&taps[i % 2], i / 2),
            Self::Down(taps) => (taps, 2 * i),
        };
        taps.iter().filter_map(move |&(offset, weight)| {
            let at = first.checked_add_signed(offset).filter(|&at| at < size)?;
            Some((at, weight))
        })
    }

    /// Filters the single source of a job, whose planes are as many as those of the result.
    pub(crate) fn run(&self, job: &Job<'_>, (isa, precision): (InstructionSet, Precision)) {
        assert_eq!(job.inputs.len(), 1, "one source");
        assert_eq!(job.inputs[0].len(), job.outputs.len(), "as many planes as results");
        let row = compiled!(
            filtered_row,
            fn(job: &Job<'_>, rows: &[(usize, f32)], columns: &[Vec<(usize, f32)>], b: usize, y: usize),
            isa,
            precision
        );
        let (height, width) = job.output_size;
        let columns: Vec<Vec<(usize, f32)>> = (0..width).map(|x| self.taps(x, job.input_size.1).collect()).collect();
        (0..job.batch * height).into_par_iter().with_min_len(4).for_each(|index| {
            let (b, y) = (index / height, index % height);
            let rows: Vec<(usize, f32)> = self.taps(y, job.input_size.0).collect();
            // SAFETY: the instruction set was detected; the taps lie inside the input's size, and each row is written once.
            unsafe { row(job, &rows, &columns, b, y) }
        });
    }
}

/// Tap `k` of the reversed filter, normalised to a sum of one.
fn reversed(taps: &[f64], k: usize) -> f32 {
    (taps[taps.len() - 1 - k] / taps.iter().sum::<f64>()) as f32
}

/// # Safety
/// V's instruction set is there; image, row and all taps lie in the living planes of `job`, and nobody else writes this
/// row.
#[inline(always)]
unsafe fn filtered_row<V: Vector, M: Operand<V>>(
    job: &Job<'_>,
    rows: &[(usize, f32)],
    columns: &[Vec<(usize, f32)>],
    b: usize,
    y: usize,
) {
    // SAFETY: the caller vouches for the planes; lane slices have 16 numbers per image and block.
    unsafe {
        let blocks = job.outputs.len();
        for (block, plane) in job.inputs[0].iter().enumerate() {
            let mut epilogue = Epilogue::<V, M>::new(job, b, y, block);
            let lane = (b * blocks + block) * 16;
            let reading = job.readings[0].as_ref().map(|reading| {
                let scale = V::load_unaligned(&reading.scale[lane..lane + 16]);
                (scale, V::load_unaligned(&reading.shift[lane..lane + 16]), reading.silu)
            });
            for (x, columns) in columns.iter().enumerate() {
                let mut sum = V::splat(0.0);
                for &(row, of_row) in rows {
                    let row = plane.row(b, row).cast_const();
                    for &(column, of_column) in columns {
                        let mut value = M::load(row.add(column * M::PIXEL));
                        if let Some((scale, shift, silu)) = reading {
                            value = value.mul_add(scale, shift);
                            if silu {
                                value = value.mul(M::sigmoid(value));
                            }
                        }
                        sum = value.mul_add(V::splat(of_row * of_column), sum);
                    }
                }
                epilogue.write(x, sum);
            }
            epilogue.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The map as a matrix of `to` rows.
    fn matrix(map: &Resampling, from: usize, to: usize) -> Vec<Vec<f32>> {
        let row = |i: usize| {
            let mut row = vec![0.0; from];
            map.taps(i, from).for_each(|(at, weight)| row[at] += weight);
            row
        };
        (0..to).map(row).collect()
    }

    #[test]
    fn the_transposed_map_is_the_transposed_matrix() {
        let taps = vec![1.0, 3.0, 3.5, 1.0];
        for filter in [Filter::Nearest, Filter::FirUp(taps.clone()), Filter::FirUp(vec![1.0, 2.0, 4.0])] {
            let map = Resampling::new(&filter);
            let (up, down) = (matrix(&map, 6, 12), matrix(&map.transposed(), 12, 6));
            assert!((0..6).all(|i| (0..12).all(|j| up[j][i] == down[i][j])), "{filter:?}");
            assert_eq!(matrix(&map.transposed().transposed(), 6, 12), up, "{filter:?}");
        }
        for filter in [Filter::Average, Filter::FirDown(taps), Filter::FirDown(vec![1.0, 2.0])] {
            let map = Resampling::new(&filter);
            let (down, up) = (matrix(&map, 12, 6), matrix(&map.transposed(), 6, 12));
            assert!((0..6).all(|i| (0..12).all(|j| down[i][j] == up[j][i])), "{filter:?}");
        }
    }

    #[test]
    fn constants_stay_away_from_the_ends() {
        for filter in [Filter::Nearest, Filter::FirUp(vec![1.0, 3.0, 3.0, 1.0])] {
            let inner = &matrix(&Resampling::new(&filter), 8, 16)[4..12];
            assert!(inner.iter().all(|row| row.iter().sum::<f32>() == 1.0), "{filter:?}");
        }
        for filter in [Filter::Average, Filter::FirDown(vec![1.0, 3.0, 3.0, 1.0])] {
            let inner = &matrix(&Resampling::new(&filter), 16, 8)[2..6];
            assert!(inner.iter().all(|row| row.iter().sum::<f32>() == 1.0), "{filter:?}");
        }
    }
}
