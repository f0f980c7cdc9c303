//! The gradient of 3×3 weights by Winograd's minimal filtering: 16 products in place of 36.
//!
//! A convolution of four inputs `d` with three weights `w` to two outputs is `yⱼ = Σₖ wₖ dⱼ₊ₖ = Σ_p a_pj (G w)_p (B d)_p`,
//! so with the gradient `v` of the outputs that of the weights is `Gᵀ [(A v) ⊙ (B d)]`:
//!
//! `B d = (d₀ − d₂, d₁ + d₂, d₂ − d₁, d₃ − d₁)`, `A v = (v₀, v₀ + v₁, v₀ − v₁, v₁)`,
//! `G = (1 0 0; ½ ½ ½; ½ −½ ½; 0 0 1)`,
//!
//! along both axes, for tiles of 2×2 outputs. All numbers of `A` and `B` are 0 and ±1, which costs less than a digit.
//!
//! Lavin and Gray (2016), <https://arxiv.org/abs/1509.09308>, transposed

use super::{Cut, Piece, Row, Task, Tile, WeightGradient, fill_row, sum_row, tile_of};
use crate::operand::{Operand, Single};
use crate::vector::Vector;

/// Tiles that are summed in registers: what they read stays in the second cache with the sums of a group.
const TILES: usize = 32;

/// Whether this form is meant and pays: each transformed block is used as often as there are blocks on the other side.
pub(super) fn pays(w: &WeightGradient<'_>) -> bool {
    let square = (0..9).map(|element| (element / 3 - 1, element % 3 - 1));
    w.read_stride == 1
        && w.write_stride == 1
        && matches!(w.phases, [phase] if phase.taps.iter().copied().eq(square))
        && w.inputs.len() > 1
        && w.gradient.len() > 1
}

/// Each of the nine weights from the sixteen products: `Gᵀ M G`.
pub(super) fn elements() -> Vec<Vec<(usize, f32)>> {
    const G: [[f32; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];
    let element = |e: usize| {
        let factor = |p: usize| G[p / 4][e / 3] * G[p % 4][e % 3];
        (0..16).map(|p| (p, factor(p))).filter(|(_, factor)| *factor != 0.0).collect()
    };
    (0..9).map(element).collect()
}

/// By the shapes alone; units are rows of tiles, of all images one after the other.
pub(super) fn cut(w: &WeightGradient<'_>) -> Cut {
    let (rows, columns) = (w.output_size.0.div_ceil(2), w.output_size.1.div_ceil(2));
    let unit = (TILES / columns).clamp(1, w.batch * rows);
    Cut::new(w, w.batch * rows, unit, 16)
}

/// Where everything lies in the scratch memory: four rows of the inputs of a group, their transforms, and those of the
/// gradient. In lanes.
struct Geometry {
    /// Pixels of a row: one column of padding before, one or two behind.
    width: usize,
    /// Most blocks of a task.
    blocks: usize,
    /// From one of the sixteen numbers of a tile to the next: one more than there are tiles in a run, so that they do not
    /// fall into the same few sets of the cache.
    stride: usize,
    ring: usize,
    inputs: usize,
    gradients: usize,
}

impl Geometry {
    fn new(w: &WeightGradient<'_>, cut: &Cut) -> Self {
        let columns = w.output_size.1.div_ceil(2);
        let (width, blocks, stride) = (2 * columns + 2, cut.group, (cut.unit * columns).min(TILES) + 1);
        let (ring, inputs) = (4 * blocks * width, blocks * 16 * stride);
        Self { width, blocks, stride, ring, inputs, gradients: cut.outputs * 16 * stride }
    }

    /// Where an input row of a block begins, in floats.
    #[inline(always)]
    fn row(&self, row: isize, block: usize) -> usize {
        (row.rem_euclid(4) as usize * self.blocks + block) * self.width * 16
    }
}

/// Scratch memory of a task.
pub(super) fn lanes(w: &WeightGradient<'_>, cut: &Cut) -> usize {
    let geometry = Geometry::new(w, cut);
    geometry.ring + geometry.inputs + geometry.gradients
}

/// # Safety
/// As [`super::run_task`].
#[inline(always)]
pub(super) unsafe fn run_task<V: Tile, M: Operand<V>>(
    w: &WeightGradient<'_>,
    task: &Task<'_>,
    to: *mut f32,
    ring: *mut f32,
) {
    let cut = task.cut;
    let blocks = cut.blocks(task.group);
    let lanes = w.layout.lanes();
    let (height, out_width) = w.output_size;
    let (tile_rows, columns) = (height.div_ceil(2), out_width.div_ceil(2));
    let geometry = Geometry::new(w, cut);
    let stride = geometry.stride;
    // SAFETY: the three parts of the scratch memory.
    let (inputs, gradients) =
        unsafe { (ring.add(geometry.ring * 16), ring.add((geometry.ring + geometry.inputs) * 16)) };
    let mut filled = (usize::MAX, 0);
    let units = cut.piece(task.piece);
    for unit in units.clone() {
        let range = unit * cut.unit..(w.batch * tile_rows).min((unit + 1) * cut.unit);
        for first in (0..columns).step_by(TILES) {
            let tiles = TILES.min(columns - first);
            let mut count = 0;
            // SAFETY: offsets stay inside the ring (four rows of `blocks × width` lanes), the transforms (16 · `stride`
            // lanes a block, of which a unit uses no more than `stride − 1` each), the planes and this task's part
            // (`blocks × 16 × 16 × outputs` lanes).
            unsafe {
                for row in range.clone() {
                    let (b, y) = (row / tile_rows, row % tile_rows * 2);
                    if filled.0 != b {
                        filled = (b, y as isize - 2);
                    }
                    while filled.1 < y as isize + 2 {
                        filled.1 += 1;
                        for (index, block) in blocks.clone().enumerate() {
                            let to = ring.add(geometry.row(filled.1, index));
                            fill_row::<V, M>(w, block, (b, filled.1), to, 1, geometry.width);
                        }
                    }
                    if let (Some(sums), 0, 0) = (&w.row_sums, task.group, first) {
                        for y in y..height.min(y + 2) {
                            sum_row::<V, M>(w, sums, b, y);
                        }
                    }
                    for index in 0..blocks.len() {
                        let rows = [-1, 0, 1, 2]
                            .map(|dy| ring.add(geometry.row(y as isize + dy, index) + first * 32).cast_const());
                        transform_input::<V>(rows, tiles, inputs.add((index * 16 * stride + count) * 16), stride * 16);
                    }
                    for (output, plane) in w.gradient.iter().enumerate() {
                        let rows = [y, y + 1]
                            .map(|y| (y < height).then(|| plane.row(b, y).add(2 * first * M::PIXEL).cast_const()));
                        let to = gradients.add((output * 16 * stride + count) * 16);
                        transform_gradient::<V, M>(rows, out_width - 2 * first, tiles, to, stride * 16);
                    }
                    count += tiles;
                }
                for (index, block) in blocks.clone().enumerate() {
                    let used = lanes[block * 16..block * 16 + 16].iter().flatten().count();
                    for output in (0..cut.outputs).step_by(V::OUTPUTS) {
                        let size = V::OUTPUTS.min(cut.outputs - output);
                        for p in 0..16 {
                            let gradient = |k: usize| gradients.add(((output + k) * 16 + p) * stride * 16).cast_const();
                            let row = Row {
                                pixels: inputs.add((index * 16 + p) * stride * 16),
                                gradients: [gradient(0), gradient(size - 1)],
                            };
                            let job = Piece {
                                rows: &[row],
                                count,
                                read: 16,
                                write: 16,
                                stride: cut.outputs * 16,
                                fresh: unit == units.start && first == 0,
                            };
                            let part = to.add(((index * 16 + p) * 16 * cut.outputs + output) * 16);
                            for lane in (0..used).step_by(V::LANES) {
                                let to = part.add(lane * cut.outputs * 16);
                                match V::OUTPUTS == 2 && size == 2 {
                                    true => tile_of::<V, Single, 2>(&job, V::LANES.min(used - lane), lane, to),
                                    false => tile_of::<V, Single, 1>(&job, V::LANES.min(used - lane), lane, to),
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// `B d Bᵀ` of each tile of 4×4 inputs, two pixels apart: number p of tile t goes to `to + p · stride + 16 t`.
///
/// # Safety
/// The rows reach `2 · tiles + 2` pixels, the result as far as it says.
#[inline(always)]
unsafe fn transform_input<V: Vector>(rows: [*const f32; 4], tiles: usize, to: *mut f32, stride: usize) {
    // SAFETY: the caller's word.
    unsafe {
        let down = |x: usize| {
            let [d0, d1, d2, d3] = rows.map(|row| V::load(row.add(x * 16)));
            [d0.sub(d2), d1.add(d2), d2.sub(d1), d3.sub(d1)]
        };
        // The last two columns of a tile are the first two of the next.
        let (mut c0, mut c1) = (down(0), down(1));
        for t in 0..tiles {
            let (c2, c3) = (down(2 * t + 2), down(2 * t + 3));
            for p in 0..4 {
                let to = to.add(4 * p * stride + t * 16);
                c0[p].sub(c2[p]).store(to);
                c1[p].add(c2[p]).store(to.add(stride));
                c2[p].sub(c1[p]).store(to.add(2 * stride));
                c3[p].sub(c1[p]).store(to.add(3 * stride));
            }
            (c0, c1) = (c2, c3);
        }
    }
}

/// `A v Aᵀ` of each tile of 2×2 gradients, zeros outside the image; as [`transform_input`].
///
/// # Safety
/// The rows reach `width` pixels, the result as far as it says.
#[inline(always)]
unsafe fn transform_gradient<V: Vector, M: Operand<V>>(
    rows: [Option<*const f32>; 2],
    width: usize,
    tiles: usize,
    to: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's word.
    unsafe {
        let zero = V::splat(0.0);
        let down = |x: usize| {
            let [v0, v1] = rows.map(|row| match row {
                Some(row) if x < width => M::load(row.add(x * M::PIXEL)),
                _ => zero,
            });
            [v0, v0.add(v1), v0.sub(v1), v1]
        };
        for t in 0..tiles {
            let (c0, c1) = (down(2 * t), down(2 * t + 1));
            for p in 0..4 {
                let to = to.add(4 * p * stride + t * 16);
                c0[p].store(to);
                c0[p].add(c1[p]).store(to.add(stride));
                c0[p].sub(c1[p]).store(to.add(2 * stride));
                c1[p].store(to.add(3 * stride));
            }
        }
    }
}
