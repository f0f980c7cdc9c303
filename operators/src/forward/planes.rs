//! Pixels across channels.

use rayon::prelude::*;

/// Pixels that one thread takes at a time.
const CHUNK: usize = 1 << 13;

/// Cuts an image of planes of `plane` pixels into runs of pixels and calls `run(pixels, channels)` for each in parallel;
/// `channels` holds those pixels of every plane.
pub(super) fn for_runs<T: Send>(
    image: &mut [T],
    plane: usize,
    run: impl Fn(std::ops::Range<usize>, &mut [&mut [T]]) + Sync,
) {
    let mut runs: Vec<Vec<&mut [T]>> = (0..plane.div_ceil(CHUNK)).map(|_| Vec::new()).collect();
    for channel in image.chunks_mut(plane.max(1)) {
        runs.iter_mut().zip(channel.chunks_mut(CHUNK)).for_each(|(run, pixels)| run.push(pixels));
    }
    runs.into_par_iter().enumerate().for_each(|(index, mut channels)| {
        let start = index * CHUNK;
        run(start..(start + CHUNK).min(plane), &mut channels);
    });
}

/// Those pixels of every plane.
pub(super) fn runs_of<'a, T>(
    image: &'a [T],
    plane: usize,
    pixels: &std::ops::Range<usize>,
) -> impl Iterator<Item = &'a [T]> {
    let pixels = pixels.clone();
    image.chunks(plane.max(1)).map(move |channel| &channel[pixels.clone()])
}
