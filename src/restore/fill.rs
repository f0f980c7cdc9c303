//! A smooth fill of missing pixels: where sampling starts from.

/// Fills the unknown values of an image `height × width` with a function that is harmonic inside the holes, nearly: a
/// pyramid of averages of what is known, each level interpolated and relaxed from the coarser one.
///
/// Pull–push after Gortler et al. (1996), "The Lumigraph", §3.4, with a few relaxations of Laplace's equation a level.
/// Nothing known gives zero, the middle grey.
pub(super) fn smooth_fill(values: &mut [f32], known: &[bool], height: usize, width: usize) {
    if known.iter().all(|known| *known) {
        return;
    }
    if !known.contains(&true) {
        values.fill(0.0);
        return;
    }
    let (half_height, half_width) = (height.div_ceil(2), width.div_ceil(2));
    let mut coarse = vec![0.0; half_height * half_width];
    let mut seen = vec![false; half_height * half_width];
    for y in 0..half_height {
        for x in 0..half_width {
            let (mut sum, mut count) = (0.0, 0.0);
            for v in 2 * y..height.min(2 * y + 2) {
                for u in 2 * x..width.min(2 * x + 2) {
                    if known[v * width + u] {
                        sum += values[v * width + u];
                        count += 1.0;
                    }
                }
            }
            if count > 0.0 {
                coarse[y * half_width + x] = sum / count;
                seen[y * half_width + x] = true;
            }
        }
    }
    smooth_fill(&mut coarse, &seen, half_height, half_width);
    let holes: Vec<usize> = (0..height * width).filter(|&i| !known[i]).collect();
    for &i in &holes {
        values[i] = coarse[i / width / 2 * half_width + i % width / 2];
    }
    for _ in 0..RELAXATIONS {
        // Red, then black: a value depends on the four neighbours of the other colour, in no order of its own.
        for colour in 0..2 {
            for &i in holes.iter().filter(|&&i| (i / width + i % width) % 2 == colour) {
                let (y, x) = (i / width, i % width);
                let (mut sum, mut count) = (0.0, 0.0);
                let mut add = |inside: bool, at: usize| {
                    if inside {
                        sum += values[at];
                        count += 1.0;
                    }
                };
                add(y > 0, i.wrapping_sub(width));
                add(y + 1 < height, i + width);
                add(x > 0, i.wrapping_sub(1));
                add(x + 1 < width, i + 1);
                if count > 0.0 {
                    values[i] = sum / count;
                }
            }
        }
    }
}

/// Relaxations a level; after eight the coarser level's blocks are gone.
const RELAXATIONS: usize = 8;

#[cfg(test)]
mod tests {
    use super::smooth_fill;

    #[test]
    fn a_linear_ramp_is_harmonic_and_comes_back() {
        let (height, width) = (24, 31);
        let ramp = |i: usize| (i % width) as f32 * 0.02 - (i / width) as f32 * 0.01;
        let known: Vec<bool> =
            (0..height * width).map(|i| !(8..14).contains(&(i / width)) || !(10..20).contains(&(i % width))).collect();
        let mut values: Vec<f32> = (0..height * width).map(|i| if known[i] { ramp(i) } else { 9.0 }).collect();
        smooth_fill(&mut values, &known, height, width);
        let worst = (0..height * width).map(|i| (values[i] - ramp(i)).abs()).fold(0.0, f32::max);
        assert!(worst < 0.02, "differs by {worst}, a pixel's step is 0.02");
    }

    #[test]
    fn nothing_known_is_middle_grey_and_everything_known_is_left_alone() {
        let mut values = vec![0.7; 6];
        smooth_fill(&mut values, &[false; 6], 2, 3);
        assert_eq!(values, [0.0; 6]);
        let mut values = vec![0.7; 6];
        smooth_fill(&mut values, &[true; 6], 2, 3);
        assert_eq!(values, [0.7; 6]);
    }
}
