//! The exact Euclidean distance transform.

/// Calls `row(y, d²)` for every row, `d²[x]` being the squared distance in pixels of `(x, y)` to the nearest site;
/// `None` where there is no site at all.
///
/// Two passes, exact in integers and linear in the number of pixels: distances along columns, then along each row the
/// lower envelope of the parabolas `(x − i)² + g(i)²`.
///
/// Meijster, Roerdink and Hesselink (2000), *A general algorithm for computing distance transforms in linear time*.
pub(super) fn squared_distances(
    width: usize,
    height: usize,
    is_site: impl Fn(usize) -> bool,
    mut row: impl FnMut(usize, &[Option<u64>]),
) {
    const NONE: u32 = u32::MAX;
    let mut column = vec![NONE; width * height];
    for y in 0..height {
        for x in 0..width {
            let i = y * width + x;
            column[i] = if is_site(i) {
                0
            } else if y > 0 {
                column[i - width].saturating_add(1)
            } else {
                NONE
            };
        }
    }
    for y in (0..height.saturating_sub(1)).rev() {
        for x in 0..width {
            let i = y * width + x;
            column[i] = column[i].min(column[i + width].saturating_add(1));
        }
    }
    let mut distances = vec![None; width];
    // Columns of the parabolas of the envelope, and the first x at which each is the lowest.
    let mut envelope: Vec<(usize, i64)> = Vec::with_capacity(width);
    for y in 0..height {
        let g = &column[y * width..][..width];
        let height_of = |i: usize| i64::from(g[i]) * i64::from(g[i]);
        envelope.clear();
        for u in (0..width).filter(|&u| g[u] != NONE) {
            let mut start = 0;
            while let Some(&(v, from)) = envelope.last() {
                let (vi, ui) = (v as i64, u as i64);
                // First x at which the parabola of u is not higher than that of v.
                let crossing =
                    (ui * ui - vi * vi + height_of(u) - height_of(v) + 2 * (ui - vi) - 1).div_euclid(2 * (ui - vi));
                if crossing <= from {
                    envelope.pop();
                } else {
                    start = crossing;
                    break;
                }
            }
            if start < width as i64 {
                envelope.push((u, start));
            }
        }
        let mut k = 0;
        for (x, distance) in distances.iter_mut().enumerate() {
            while k + 1 < envelope.len() && envelope[k + 1].1 <= x as i64 {
                k += 1;
            }
            *distance = envelope.get(k).map(|&(i, _)| (x.abs_diff(i) as u64).pow(2) + u64::from(g[i]).pow(2));
        }
        row(y, &distances);
    }
}
