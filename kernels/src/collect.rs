//! Results computed in parallel into memory that nobody has filled with zeros before.

use rayon::prelude::*;
use std::mem::MaybeUninit;
use std::ops::Range;

/// `len` values, computed in parallel in chunks: `values(range)` gives those of `range`, in order.
///
/// For results that are written once and as fast as memory takes them, where a `vec![0; len]` would write them twice.
///
/// # Panics
/// If an iterator ends before its range does, or `chunk` is 0.
pub fn collect_chunks<T: Copy + Send, I: Iterator<Item = T>>(
    len: usize,
    chunk: usize,
    values: impl Fn(Range<usize>) -> I + Sync,
) -> Vec<T> {
    let mut result: Vec<T> = Vec::with_capacity(len);
    let slots: &mut [MaybeUninit<T>] = &mut result.spare_capacity_mut()[..len];
    slots.par_chunks_mut(chunk).enumerate().for_each(|(index, slots)| {
        let (start, length) = (index * chunk, slots.len());
        let mut written = 0;
        for (slot, value) in slots.iter_mut().zip(values(start..start + length)) {
            slot.write(value);
            written += 1;
        }
        assert_eq!(written, length, "an iterator ended early");
    });
    // SAFETY: the capacity is at least `len`, and every slot below it was written: a chunk that was not would have panicked.
    unsafe { result.set_len(len) };
    result
}

#[cfg(test)]
mod tests {
    use super::collect_chunks;

    #[test]
    fn values_are_those_of_their_place() {
        for (len, chunk) in [(0, 3), (1, 3), (10, 3), (9, 3), (1000, 7)] {
            let values = collect_chunks(len, chunk, |range| range.map(|i| i * i));
            assert_eq!(values, (0..len).map(|i| i * i).collect::<Vec<_>>());
        }
    }

    #[test]
    #[should_panic = "ended early"]
    fn too_few_values_are_a_panic() {
        collect_chunks(10, 4, |range| range.take(3));
    }
}
