//! 3×3 windows by the minimal filtering algorithm F(2×2, 3×3): 16 products for 4 outputs instead of 36.
//!
//! A tile of 2×2 outputs is `Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A` of the 4×4 inputs `d` and the window `g`, with
//!
//! ```text
//!      ⎡1  0 −1  0⎤        ⎡ 1   0   0⎤
//! Bᵀ = ⎢0  1  1  0⎥    G = ⎢1/2 1/2 1/2⎥    Aᵀ = ⎡1 1  1  0⎤
//!      ⎢0 −1  1  0⎥        ⎢1/2 −1/2 1/2⎥        ⎣0 1 −1 −1⎦
//!      ⎣0  1  0 −1⎦        ⎣ 0   0   1⎦
//! ```
//!
//! (Winograd 1980; Lavin & Gray 2016, arXiv 1509.09308). Summed over channels, the product is one small matrix product
//! for each of the 16 positions. The transforms of inputs and outputs are additions alone, taken in single precision; in
//! `bf16` the transformed inputs and windows are rounded, not the images.
//!
//! Larger tiles save more products and lose digits: F(4×4, 3×3) multiplies rounding errors by about ten.
//!
//! Sources with a 1×1 kernel, such as the short cut of a residual block, join as four more positions: the inner pixels
//! of the tile as they are, whose products are added to the outputs.

use crate::correlation::{Correlation, Tap, Term, Units, fill_row, products, unrolled};
use crate::epilogue::{Epilogue, Job};
use crate::map::{Lanes, Layout, Plane};
use crate::operand::{Operand, Single};
use crate::vector::Vector;
use rayon::prelude::*;
use std::ops::Range;

/// Positions of the transformed tile, and outputs of a tile.
const SQUARE: usize = 16;
const POINTS: usize = 4;
/// Tiles that are transformed before they are multiplied: enough that weights are read from the cache many times, few
/// enough that transformed inputs and outputs stay in it.
const TILES: usize = 48;

/// Transformed weights.
#[derive(Debug)]
pub(crate) struct Winograd {
    /// Of each source: whether it is a window or a point.
    windows: Vec<bool>,
    /// For each group of output blocks: for each of the 16 positions the windows' units, then the points' units.
    groups: Vec<Vec<Lanes>>,
}

fn is_point(taps: &[Tap]) -> bool {
    taps.iter().all(|tap| (tap.dy, tap.dx) == (0, 0))
}

impl Winograd {
    /// Whether the sources of a convolution that keeps the resolution are windows of 3×3 or points, and read enough
    /// channels that the transforms cost less than they save.
    pub(crate) fn pays(sources: &[Vec<Tap>], inputs: &[Layout]) -> bool {
        let near = |tap: &Tap| tap.dy.abs() <= 1 && tap.dx.abs() <= 1;
        let windows = sources.iter().zip(inputs).filter(|(taps, _)| !is_point(taps));
        sources.iter().flatten().all(near) && windows.map(|(_, layout)| layout.channels()).sum::<usize>() >= 8
    }

    pub(crate) fn new(sources: &[Vec<Tap>], inputs: &[Layout], units: &[Units], groups: &[&[Option<usize>]]) -> Self {
        let windows: Vec<bool> = sources.iter().map(|taps| !is_point(taps)).collect();
        let transformed: Vec<Vec<[f32; SQUARE]>> = sources
            .iter()
            .zip(&windows)
            .map(|(taps, &window)| if window { transform(taps) } else { Vec::new() })
            .collect();
        let pack = |outputs: &&[Option<usize>]| {
            let mut packed = Vec::new();
            for position in 0..SQUARE {
                for ((units, layout), transformed) in units.iter().zip(inputs).zip(&transformed) {
                    if transformed.is_empty() {
                        continue;
                    }
                    let channels = layout.channels();
                    for unit in 0..units.len() {
                        units.pack(unit, outputs, |o, i| transformed[o * channels + i][position], &mut packed);
                    }
                }
            }
            for ((units, layout), taps) in units.iter().zip(inputs).zip(sources).filter(|(_, taps)| is_point(taps)) {
                let Some(tap) = taps.first() else { continue };
                for unit in 0..units.len() {
                    units.pack(unit, outputs, |o, i| tap.matrix[o * layout.channels() + i], &mut packed);
                }
            }
            packed.shrink_to_fit();
            packed
        };
        Self { groups: groups.par_iter().map(pack).collect(), windows }
    }

    /// Multiplications for a pixel and channel of the result, where the sources have so many channels.
    pub(crate) fn products(&self, channels: &[usize]) -> f64 {
        let of_source =
            |(window, channels): (&bool, &usize)| if *window { SQUARE * channels } else { POINTS * channels };
        self.windows.iter().zip(channels).map(of_source).sum::<usize>() as f64 / POINTS as f64
    }

    /// Scratch memory of bands of up to `rows` rows of tiles.
    pub(crate) fn lanes(&self, c: &Correlation, job: &Job<'_>, rows: usize) -> usize {
        let geometry = Geometry::new(self, c, job, rows);
        geometry.ring + geometry.inputs + geometry.products
    }

    /// Rows `2·rows` and the ones after them.
    ///
    /// # Safety
    /// V's instruction set is there; the planes of `job` are alive, of the stated sizes, and nobody else writes there.
    #[inline(always)]
    pub(crate) unsafe fn band<V: Vector, M: Operand<V>>(
        &self,
        c: &Correlation,
        job: &Job<'_>,
        b: usize,
        rows: Range<usize>,
        scratch: *mut f32,
    ) {
        let geometry = Geometry::new(self, c, job, rows.len());
        // SAFETY: offsets stay inside the three parts of the scratch memory, whose sizes are those above; the rest is the
        // caller's word.
        unsafe {
            let ring = scratch;
            let v = ring.add(geometry.ring * 16);
            let m = v.add(geometry.inputs * 16);
            let Geometry { across, down, columns, ref transformed, stride, has_points, .. } = geometry;
            let mut terms = Vec::new();
            let mut filled = 2 * rows.start as isize - 2;
            for top in rows.clone().step_by(down) {
                let down = down.min(rows.end - top);
                while filled < 2 * (top + down) as isize {
                    filled += 1;
                    let mut to = geometry.row(ring, filled);
                    for (source, transformed) in transformed.iter().enumerate() {
                        if transformed.in_ring {
                            to = fill_row::<V, M, Single>(job, source, (b, filled), to, 1, geometry.width);
                        }
                    }
                }
                for first in (0..across).step_by(columns) {
                    let columns = columns.min(across - first);
                    let mut block = 0;
                    for (source, planes) in transformed.iter().zip(&job.inputs) {
                        for (index, plane) in planes.iter().enumerate() {
                            let (unit, part) = (index / M::CHANNELS, index % M::CHANNELS);
                            for r in 0..down {
                                let to = v.add((source.at + unit * geometry.tiles() + r * columns) * 16);
                                let to = to.add(part * M::PIXEL);
                                let stride = source.stride * 16;
                                if !source.in_ring {
                                    let corner = (2 * (top + r), 2 * first);
                                    copy_points::<V, M>(plane, b, job.input_size, corner, columns, to, stride);
                                    continue;
                                }
                                let mut rows = [std::ptr::null(); 4];
                                for (row, y) in rows.iter_mut().zip(2 * (top + r) as isize - 1..) {
                                    let column = block * geometry.width + 2 * first;
                                    *row = geometry.row(ring, y).add(column * 16).cast_const();
                                }
                                match source.window {
                                    true => transform_row::<V, M>(rows, columns, to, stride),
                                    false => copy_row::<V, M>(rows, columns, to, stride),
                                }
                            }
                            block += usize::from(source.in_ring);
                        }
                    }
                    for (index, weights) in self.groups.iter().enumerate() {
                        let size = (c.output_blocks - index * c.group).min(c.group);
                        let mut weights: *const f32 = weights.as_ptr().cast();
                        for position in 0..if has_points { SQUARE + POINTS } else { SQUARE } {
                            let window = position < SQUARE;
                            terms.clear();
                            // The points' weights are the same ones four times.
                            let mut next = weights;
                            for (source, units) in transformed.iter().zip(&c.units) {
                                if source.window != window {
                                    continue;
                                }
                                let at = source.at + position % SQUARE * source.stride;
                                for (unit, &values) in units.iter().enumerate() {
                                    let pixels = v.add((at + unit * geometry.tiles()) * 16);
                                    terms.push(Term { pixels, weights: next, values });
                                    next = next.add(values * size * 16);
                                }
                            }
                            if window {
                                weights = next;
                            }
                            let to = m.add(position * stride * 16);
                            if V::BLOCKS == 2 && size == 2 {
                                multiply_tiles::<V, M, 2>(&terms, down * columns, to);
                            } else {
                                multiply_tiles::<V, M, 1>(&terms, down * columns, to);
                            }
                        }
                        for k in 0..size {
                            for r in 0..down {
                                let row = Row { b, y: 2 * (top + r), x: 2 * first, block: index * c.group + k };
                                let m = m.add((r * columns * size + k) * 16);
                                write_rows::<V, M>(job, &row, columns, m, size * 16, stride * 16, has_points);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The tiles that are worked on together, and where their numbers lie in the scratch memory: the ring of input rows, then
/// the transformed inputs, then the products. All in lanes.
struct Geometry {
    /// Tiles in a row of the image.
    across: usize,
    /// Tiles that are worked on together.
    down: usize,
    columns: usize,
    /// Pixels of a row of the ring.
    width: usize,
    blocks: usize,
    slots: usize,
    ring: usize,
    transformed: Vec<Transformed>,
    inputs: usize,
    /// From one position of the products to the next.
    stride: usize,
    has_points: bool,
    products: usize,
}

impl Geometry {
    /// For bands of up to `rows` rows of tiles.
    fn new(winograd: &Winograd, c: &Correlation, job: &Job<'_>, rows: usize) -> Self {
        let across = job.output_size.1.div_ceil(2);
        let columns = across.min(TILES);
        let down = (TILES / across).clamp(1, rows);
        let tiles = down * columns;
        let (width, slots) = (2 * across + 2, 2 * down + 2);
        // Positions are an odd number of cache lines apart, so that those of a tile do not fall into the same few sets.
        let mut transformed: Vec<Transformed> = Vec::with_capacity(c.units.len());
        let (mut blocks, mut inputs) = (0, 0);
        for (source, (units, &window)) in c.units.iter().zip(&winograd.windows).enumerate() {
            let stride = (units.len() * tiles) | 1;
            // Points that are read as they are need no neighbours, and come straight from the image.
            let in_ring = window || job.readings[source].is_some();
            blocks += if in_ring { job.inputs[source].len() } else { 0 };
            transformed.push(Transformed { window, in_ring, at: inputs, stride });
            inputs += stride * if window { SQUARE } else { POINTS };
        }
        let has_points = transformed.iter().any(|source| !source.window);
        let stride = (tiles * c.group) | 1;
        let products = stride * if has_points { SQUARE + POINTS } else { SQUARE };
        let ring = slots * blocks * width;
        Self { across, down, columns, width, blocks, slots, ring, transformed, inputs, stride, has_points, products }
    }

    fn tiles(&self) -> usize {
        self.down * self.columns
    }

    /// # Safety
    /// The ring is of this geometry.
    #[inline(always)]
    unsafe fn row(&self, ring: *mut f32, row: isize) -> *mut f32 {
        let slot = row.rem_euclid(self.slots as isize) as usize;
        // SAFETY: inside the ring.
        unsafe { ring.add(slot * self.blocks * self.width * 16) }
    }
}

/// Where the transformed tiles of a source lie, in lanes.
struct Transformed {
    /// A window, or a point.
    window: bool,
    in_ring: bool,
    at: usize,
    /// From one position to the next.
    stride: usize,
}

/// `G g Gᵀ` of every pair of channels.
fn transform(taps: &[Tap]) -> Vec<[f32; SQUARE]> {
    let elements = taps.first().map_or(0, |tap| tap.matrix.len());
    let of = |element| {
        let mut window = [[0.0_f64; 3]; 3];
        for tap in taps {
            window[(tap.dy + 1) as usize][(tap.dx + 1) as usize] += f64::from(tap.matrix[element]);
        }
        let filter = |[a, b, c]: [f64; 3]| [a, (a + b + c) / 2.0, (a - b + c) / 2.0, c];
        let rows = window.map(filter);
        let mut square = [0.0; SQUARE];
        for x in 0..4 {
            let column = filter([rows[0][x], rows[1][x], rows[2][x]]);
            for (y, value) in column.into_iter().enumerate() {
                square[y * 4 + x] = value as f32;
            }
        }
        square
    };
    (0..elements).into_par_iter().with_min_len(4096).map(of).collect()
}

/// `Bᵀ d` of one column.
#[inline(always)]
unsafe fn column<V: Vector>(rows: [*const f32; 4], x: usize) -> [V; 4] {
    // SAFETY: inside the ring's rows.
    unsafe {
        let a = V::load(rows[0].add(x * 16));
        let b = V::load(rows[1].add(x * 16));
        let c = V::load(rows[2].add(x * 16));
        let d = V::load(rows[3].add(x * 16));
        [a.sub(c), b.add(c), c.sub(b), b.sub(d)]
    }
}

/// `Bᵀ d B` of a row of tiles, in the format of the products.
#[inline(always)]
unsafe fn transform_row<V: Vector, M: Operand<V>>(rows: [*const f32; 4], tiles: usize, to: *mut f32, stride: usize) {
    // SAFETY: the ring's rows have two columns more than twice the tiles; `to` has room for the tiles of 16 positions.
    unsafe {
        let (mut a, mut b) = (column::<V>(rows, 0), column::<V>(rows, 1));
        for tile in 0..tiles {
            let (c, d) = (column::<V>(rows, 2 * tile + 2), column::<V>(rows, 2 * tile + 3));
            for y in 0..4 {
                let to = to.add(y * 4 * stride + tile * 16);
                M::store(a[y].sub(c[y]), to);
                M::store(b[y].add(c[y]), to.add(stride));
                M::store(c[y].sub(b[y]), to.add(2 * stride));
                M::store(b[y].sub(d[y]), to.add(3 * stride));
            }
            (a, b) = (c, d);
        }
    }
}

/// The four inner pixels of a row of tiles, in the format of the products.
#[inline(always)]
unsafe fn copy_row<V: Vector, M: Operand<V>>(rows: [*const f32; 4], tiles: usize, to: *mut f32, stride: usize) {
    // SAFETY: as `transform_row`, for 4 positions.
    unsafe {
        for tile in 0..tiles {
            for point in 0..POINTS {
                let from = rows[1 + point / 2].add((2 * tile + 1 + point % 2) * 16);
                M::store(V::load(from), to.add(point * stride + tile * 16));
            }
        }
    }
}

/// The four pixels of every tile of a row as they are in the image, zeros outside.
#[inline(always)]
unsafe fn copy_points<V: Vector, M: Operand<V>>(
    plane: &Plane,
    b: usize,
    (height, width): (usize, usize),
    (top, left): (usize, usize),
    tiles: usize,
    to: *mut f32,
    stride: usize,
) {
    // SAFETY: rows and columns are checked against the image; `to` has room for the tiles of 4 positions.
    unsafe {
        for point in 0..POINTS {
            let (y, x) = (top + point / 2, left + point % 2);
            let to = to.add(point * stride);
            // Pixels of this point inside the image.
            let inside = if y < height { tiles.min((width + 1 - x.min(width)) / 2) } else { 0 };
            if inside > 0 {
                let from: *const f32 = plane.row(b, y).add(x * M::PIXEL);
                for tile in 0..inside {
                    V::prefetch(from.wrapping_add((2 * width + 2 * tile) * M::PIXEL));
                    M::copy(from.add(2 * tile * M::PIXEL), to.add(tile * 16));
                }
            }
            for tile in inside..tiles {
                M::store(V::splat(0.0), to.add(tile * 16));
            }
        }
    }
}

/// The matrix product of one position: for each tile, the sums of `K` blocks.
#[inline(always)]
unsafe fn multiply_tiles<V: Vector, M: Operand<V>, const K: usize>(terms: &[Term], tiles: usize, to: *mut f32) {
    if M::MATRIX {
        // SAFETY: `to` has room for `K` blocks of every tile.
        return unsafe { M::matrix::<K>(terms, 0, 16, tiles, to) };
    }
    let mut tile = 0;
    while tile < tiles {
        let count = (tiles - tile).min(V::PIXELS);
        // SAFETY: `to` has room for `K` blocks of every tile.
        unsafe { unrolled!(count, P => store_products::<V, M, P, K>(terms, tile, to)) };
        tile += count;
    }
}

#[inline(always)]
unsafe fn store_products<V: Vector, M: Operand<V>, const P: usize, const K: usize>(
    terms: &[Term],
    tile: usize,
    to: *mut f32,
) {
    if P > V::PIXELS || K > V::BLOCKS {
        unreachable!("a tile of {P} pixels and {K} blocks");
    }
    // SAFETY: passed on.
    unsafe {
        let sums = products::<V, M, P, K>(terms, tile * 16, 16);
        for (p, sums) in sums.into_iter().enumerate() {
            for (k, sum) in sums.into_iter().enumerate() {
                sum.store(to.add(((tile + p) * K + k) * 16));
            }
        }
    }
}

/// `Aᵀ` of four.
#[inline(always)]
unsafe fn ends<V: Vector>([a, b, c, d]: [V; 4]) -> [V; 2] {
    // SAFETY: the caller has V's instruction set.
    unsafe { [a.add(b).add(c), b.sub(c).sub(d)] }
}

/// Where a row of tiles goes.
struct Row {
    b: usize,
    y: usize,
    x: usize,
    block: usize,
}

/// `Aᵀ m A` of a row of tiles, `step` floats apart and the positions `stride` apart, through the epilogue.
#[inline(always)]
unsafe fn write_rows<V: Vector, M: Operand<V>>(
    job: &Job<'_>,
    row: &Row,
    tiles: usize,
    m: *const f32,
    step: usize,
    stride: usize,
    points: bool,
) {
    // SAFETY: `m` holds the tiles; pixels outside the image are left out.
    unsafe {
        let (height, width) = job.output_size;
        let below = row.y + 1 < height;
        let mut upper = Epilogue::<V, M>::new(job, row.b, row.y, row.block);
        // Never written through where there is no row below.
        let mut lower = Epilogue::<V, M>::new(job, row.b, row.y + usize::from(below), row.block);
        for tile in 0..tiles {
            let m = m.add(tile * step);
            let mut first = [V::splat(0.0); 4];
            let mut second = first;
            for x in 0..4 {
                let upper = V::load(m.add((4 + x) * stride));
                let lower = V::load(m.add((8 + x) * stride));
                first[x] = V::load(m.add(x * stride)).add(upper).add(lower);
                second[x] = upper.sub(lower).sub(V::load(m.add((12 + x) * stride)));
            }
            let mut first = ends(first);
            let mut second = ends(second);
            if points {
                for x in 0..2 {
                    first[x] = first[x].add(V::load(m.add((SQUARE + x) * stride)));
                    second[x] = second[x].add(V::load(m.add((SQUARE + 2 + x) * stride)));
                }
            }
            let x = row.x + 2 * tile;
            let inside = x + 1 < width;
            upper.write(x, first[0]);
            if inside {
                upper.write(x + 1, first[1]);
            }
            if below {
                lower.write(x, second[0]);
                if inside {
                    lower.write(x + 1, second[1]);
                }
            }
        }
        upper.finish();
        if below {
            lower.finish();
        }
    }
}
