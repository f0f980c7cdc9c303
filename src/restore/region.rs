//! Which parts of a photo have to be sampled.

use crate::image::{Mask, Region};

/// A part of a photo and the masked pixels that are filled there.
#[derive(Debug)]
pub(super) struct Part {
    /// What is sampled: the pixels to be filled and their context.
    pub(super) region: Region,
    /// The pixels to be filled, in the frame of the region.
    pub(super) fill: Mask,
}

/// Side of the squares in which the mask is looked at, in pixels.
const CELL: usize = 8;

/// Cuts a mask into parts: masked pixels whose surroundings of `context` pixels touch belong together.
///
/// Every masked pixel is filled by exactly one part; a part reaches `context` pixels beyond its own, as far as there is
/// photo, and starts at multiples of eight, so that it does not depend on the mask by single pixels. Its sides are at least
/// `least` pixels where the photo is as large.
pub(super) fn parts(mask: &Mask, context: usize, least: usize) -> Vec<Part> {
    let (width, height) = (mask.width(), mask.height());
    let (columns, rows) = (width.div_ceil(CELL), height.div_ceil(CELL));
    let mut set = vec![false; columns * rows];
    for y in 0..height {
        for x in 0..width {
            if mask.is_set(x, y) {
                set[y / CELL * columns + x / CELL] = true;
            }
        }
    }
    let reach = context.div_ceil(CELL);
    let near = dilate(&set, columns, rows, reach);
    let labels = components(&near, columns, rows);
    let count = labels.iter().flatten().copied().max().map_or(0, |last| last + 1);
    // Bounding boxes of the cells that hold masked pixels.
    let mut boxes = vec![(usize::MAX, usize::MAX, 0, 0); count];
    for cell in (0..set.len()).filter(|&cell| set[cell]) {
        let Some(label) = labels[cell] else { continue };
        let (x, y) = (cell % columns, cell / columns);
        let (left, top, right, bottom) = boxes[label];
        boxes[label] = (x.min(left), y.min(top), (x + 1).max(right), (y + 1).max(bottom));
    }
    boxes
        .into_iter()
        .enumerate()
        .map(|(label, (left, top, right, bottom))| {
            let (x, y) = (left.saturating_sub(reach) * CELL, top.saturating_sub(reach) * CELL);
            let (x, width) = widened(x, ((right + reach) * CELL).min(width), least, width);
            let (y, height) = widened(y, ((bottom + reach) * CELL).min(height), least, height);
            let region = Region { x, y, width, height };
            let own = |x: usize, y: usize| labels[y / CELL * columns + x / CELL] == Some(label);
            let fill =
                Mask::from_fn(region.width, region.height, |u, v| mask.is_set(x + u, y + v) && own(x + u, y + v));
            Part { region, fill }
        })
        .collect()
}

/// First pixel and number of pixels of `from..to` with as many on both sides as make it `least` of `size` pixels.
fn widened(from: usize, to: usize, least: usize, size: usize) -> (usize, usize) {
    let length = (to - from).max(least.min(size));
    let first = from.saturating_sub((length - (to - from)) / 2).min(size - length);
    (first / CELL * CELL, length + first % CELL)
}

/// Cells within `reach` cells of a set one, along rows and then columns.
fn dilate(set: &[bool], columns: usize, rows: usize, reach: usize) -> Vec<bool> {
    let mut wide = vec![false; set.len()];
    let mut near = vec![false; set.len()];
    for cell in (0..set.len()).filter(|&cell| set[cell]) {
        let (x, y) = (cell % columns, cell / columns);
        wide[y * columns + x.saturating_sub(reach)..=y * columns + (x + reach).min(columns - 1)].fill(true);
    }
    for cell in (0..set.len()).filter(|&cell| wide[cell]) {
        let (x, y) = (cell % columns, cell / columns);
        for row in y.saturating_sub(reach)..=(y + reach).min(rows - 1) {
            near[row * columns + x] = true;
        }
    }
    near
}

/// The number of the connected component of every set cell, in the order of their first cells.
fn components(set: &[bool], columns: usize, rows: usize) -> Vec<Option<usize>> {
    let mut labels = vec![None; set.len()];
    let mut count = 0;
    let mut open = Vec::new();
    for start in 0..set.len() {
        if !set[start] || labels[start].is_some() {
            continue;
        }
        labels[start] = Some(count);
        open.push(start);
        while let Some(cell) = open.pop() {
            let (x, y) = (cell % columns, cell / columns);
            for v in y.saturating_sub(1)..(y + 2).min(rows) {
                for u in x.saturating_sub(1)..(x + 2).min(columns) {
                    let next = v * columns + u;
                    if set[next] && labels[next].is_none() {
                        labels[next] = Some(count);
                        open.push(next);
                    }
                }
            }
        }
        count += 1;
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_far_apart_are_sampled_apart_and_each_pixel_is_filled_once() {
        let hole = |x: usize, y: usize| (20..60).contains(&x) && y == 30 || (400..410).contains(&x) && y > 470;
        let mask = Mask::from_fn(500, 480, hole);
        let parts = parts(&mask, 48, 0);
        let regions: Vec<Region> = parts.iter().map(|part| part.region).collect();
        assert_eq!(
            regions,
            [Region { x: 0, y: 0, width: 112, height: 80 }, Region { x: 352, y: 416, width: 112, height: 64 },]
        );
        let filled: usize = parts.iter().map(|part| part.fill.count()).sum();
        assert_eq!(filled, mask.count());
    }

    #[test]
    fn holes_whose_surroundings_touch_are_sampled_together() {
        let mask = Mask::from_fn(300, 100, |x, y| y == 50 && (x == 100 || x == 180));
        assert_eq!(parts(&mask, 48, 0).len(), 1);
        assert_eq!(parts(&mask, 24, 0).len(), 2);
    }

    #[test]
    fn regions_are_as_large_as_asked_where_the_photo_is() {
        let mask = Mask::from_fn(300, 90, |x, y| (x, y) == (5, 5) || (x, y) == (290, 80));
        let regions: Vec<Region> = parts(&mask, 16, 128).iter().map(|part| part.region).collect();
        assert_eq!(
            regions,
            [Region { x: 0, y: 0, width: 128, height: 90 }, Region { x: 168, y: 0, width: 132, height: 90 }]
        );
        let filled: usize = parts(&mask, 16, 128).iter().map(|part| part.fill.count()).sum();
        assert_eq!(filled, 2);
    }

    #[test]
    fn an_empty_mask_has_no_parts() {
        assert!(parts(&Mask::from_fn(10, 10, |_, _| false), 48, 0).is_empty());
    }
}
