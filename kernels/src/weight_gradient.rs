//! The gradient of a convolution's weights, in every form that [`crate::correlation`] computes.
//!
//! A convolution is `out[w·y + p] = Σ_taps M_tap · in[r·y + d_tap]`, so the gradient of each tap's matrix is
//!
//! `∂L/∂M_tap[o, i] = Σ_y ∂L/∂out[w·y + p][o] · in[r·y + d_tap][i]`
//!
//! and that of the weights follows by adding up the taps that an element of the kernel is part of. An up-sampling
//! followed by a 3×3 convolution has 4 phases of 4 taps here instead of 4 · 9: 2.25 times less work.
//!
//! The sum over the pixels is taken in registers that hold some input channels times some blocks of output channels;
//! rows are normalised and activated into a ring, as for the convolution itself. The pixels are cut into pieces and the
//! input channels into groups, by the shapes alone: every piece of every group is one task with sums of its own, and the
//! pieces are added in their order. So the result does not depend on the number of threads.

use crate::correlation::activate;
use crate::dispatch::compiled;
use crate::epilogue::Reading;
use crate::isa::InstructionSet;
use crate::map::{Lanes, Layout, Map, Plane, Pool, Scratch};
use crate::operand::{Operand, Single};
use crate::precision::Precision;
#[cfg(target_arch = "x86_64")]
use crate::vector::{Avx2, Avx512};
use crate::vector::{Portable, Vector};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

mod winograd;

/// Register tiles of this kernel.
///
/// # Safety
/// As for [`Vector`].
trait Tile: Vector {
    /// Input channels of a tile; even, at most eight.
    const LANES: usize;
    /// Blocks of output channels of a tile.
    const OUTPUTS: usize;
}

impl Tile for Portable {
    const LANES: usize = 2;
    const OUTPUTS: usize = 1;
}

#[cfg(target_arch = "x86_64")]
impl Tile for Avx2 {
    // 12 accumulators, 2 gradients, 1 broadcast: 15 of the 16 registers.
    const LANES: usize = 6;
    const OUTPUTS: usize = 1;
}

#[cfg(target_arch = "x86_64")]
impl Tile for Avx512 {
    // 16 accumulators keep both units busy; 10 loads for 16 products leave the load ports idle a third of the time.
    const LANES: usize = 8;
    const OUTPUTS: usize = 2;
}

/// Pixels that are summed in registers before they are added to memory: what they read stays in the first cache.
const RUN: usize = 128;

/// Output pixels `w·y + (y, x)` and the offsets of the taps they sum.
#[derive(Clone, Debug)]
pub(crate) struct PhaseTaps {
    pub(crate) y: usize,
    pub(crate) x: usize,
    pub(crate) taps: Vec<(isize, isize)>,
}

/// Arguments of one run: one source of a step, and the gradient of the step's result.
#[derive(Debug)]
pub(crate) struct WeightGradient<'a> {
    pub(crate) isa: InstructionSet,
    /// Of the inputs and of the gradient; products and sums are in single precision.
    pub(crate) precision: Precision,
    pub(crate) batch: usize,
    pub(crate) input_size: (usize, usize),
    pub(crate) output_size: (usize, usize),
    pub(crate) read_stride: usize,
    pub(crate) write_stride: usize,
    pub(crate) phases: &'a [PhaseTaps],
    /// For each element of the kernel the taps (counted through all phases) whose matrices it is added to.
    pub(crate) elements: &'a [Vec<usize>],
    /// Channels of the source and where they lie.
    pub(crate) layout: &'a Layout,
    pub(crate) inputs: Vec<Plane>,
    pub(crate) reading: Option<Reading<'a>>,
    /// One plane per output block.
    pub(crate) gradient: Vec<Plane>,
    /// Where the sums of the gradient go: per image, block and output row, one pixel wide.
    pub(crate) row_sums: Option<Vec<Plane>>,
}

/// How a run is cut into tasks.
#[derive(Clone, Debug)]
struct Cut {
    /// Rows of a unit, which is what the registers sum over.
    unit: usize,
    units: usize,
    /// Pieces of the units with sums of their own.
    pieces: usize,
    /// Input blocks of a task.
    group: usize,
    groups: usize,
    /// Matrices to be summed.
    taps: usize,
    inputs: usize,
    outputs: usize,
}

impl Cut {
    /// By the shapes alone, so that the order of all sums is fixed.
    ///
    /// Pieces are what costs memory (each holds all weights) and one more addition of everything; groups cost another
    /// reading of the gradient. So there are pieces of no fewer than 2048 pixels, at most eight, and groups where that
    /// leaves fewer than sixteen tasks.
    fn new(w: &WeightGradient<'_>, rows: usize, unit: usize, taps: usize) -> Self {
        let units = rows.div_ceil(unit);
        let pixels = w.batch * w.output_size.0 * w.output_size.1 / (w.write_stride * w.write_stride);
        let pieces = (pixels / 2048).clamp(1, 8).min(units);
        let inputs = w.inputs.len();
        let group = (inputs * pieces / 16).clamp(1, 4);
        Self { unit, units, pieces, group, groups: inputs.div_ceil(group), taps, inputs, outputs: w.gradient.len() }
    }

    /// Of the direct form, whose units lie within an image.
    fn direct(w: &WeightGradient<'_>) -> Self {
        let (rows, columns) = (w.rows(), w.output_size.1.div_ceil(w.write_stride));
        let unit = (RUN / columns).clamp(1, rows);
        let taps = w.phases.iter().map(|phase| phase.taps.len()).sum();
        Self::new(w, w.batch * rows.div_ceil(unit) * unit, unit, taps)
    }

    /// Units of a piece.
    fn piece(&self, piece: usize) -> Range<usize> {
        self.units * piece / self.pieces..self.units * (piece + 1) / self.pieces
    }

    /// Input blocks of a group.
    fn blocks(&self, group: usize) -> Range<usize> {
        group * self.group..self.inputs.min((group + 1) * self.group)
    }
}

/// Gradients of the matrices of all taps, one part per task: `[group block][tap][input lane][output block][16]`.
#[derive(Debug)]
pub(crate) struct TapGradients {
    parts: Map,
    cut: Cut,
    /// Each element of the kernel as a sum of taps with factors.
    elements: Vec<Vec<(usize, f32)>>,
}

impl WeightGradient<'_> {
    /// Rows of an image, before writing strides.
    fn rows(&self) -> usize {
        self.output_size.0.div_ceil(self.write_stride)
    }

    /// Sums over all pixels of the batch.
    pub(crate) fn run(&self, pool: &Arc<Pool>) -> TapGradients {
        let winograd = winograd::pays(self);
        let (cut, elements) = match winograd {
            true => (winograd::cut(self), winograd::elements()),
            false => {
                let element = |taps: &Vec<usize>| taps.iter().map(|&tap| (tap, 1.0)).collect();
                (Cut::direct(self), self.elements.iter().map(element).collect())
            }
        };
        let tasks = cut.pieces * cut.groups;
        let size = (1, cut.group * cut.taps * 16 * cut.outputs);
        let mut parts = Map::new(pool, Precision::F32, tasks, 1, size);
        let to = parts.write(0);
        let scratch = if winograd { winograd::lanes(self, &cut) } else { Ring::of(self, &cut).lanes() };
        let run = task_for(self.isa, self.precision);
        (0..tasks).into_par_iter().for_each_init(
            || Scratch::new(pool, scratch),
            |scratch, task| {
                let task =
                    Task { cut: &cut, winograd, piece: task / cut.groups, group: task % cut.groups, index: task };
                // SAFETY: the instruction set was detected on this machine; the planes are alive and of the stated
                // sizes; every task writes its own part, and the row sums of its own rows in the first group; the
                // scratch memory is as large as the form says.
                unsafe { run(self, &task, to.row(task.index, 0), scratch.as_mut_ptr()) }
            },
        );
        TapGradients { parts, cut, elements }
    }
}

impl TapGradients {
    /// The gradient `[outputs, inputs, elements]` of the weights.
    pub(crate) fn weights(&self, outputs: usize, layout: &Layout) -> Vec<f32> {
        let cut = &self.cut;
        let (inputs, lanes, elements) = (layout.channels(), layout.lanes(), self.elements.len());
        let mut weights = vec![0.0; outputs * inputs * elements];
        weights.par_chunks_mut(16 * inputs * elements).enumerate().for_each(|(output, weights)| {
            let mut taps = vec![Lanes([0.0; 16]); cut.taps];
            for (lane, channel) in lanes.iter().enumerate() {
                let Some(channel) = channel else { continue };
                let (group, block) = (lane / 16 / cut.group, lane / 16 % cut.group);
                for (tap, sum) in taps.iter_mut().enumerate() {
                    let at = ((block * cut.taps + tap) * 16 + lane % 16) * cut.outputs + output;
                    *sum = self.parts.lanes(group)[at];
                    for piece in 1..cut.pieces {
                        let part = self.parts.lanes(piece * cut.groups + group)[at];
                        sum.0.iter_mut().zip(part.0).for_each(|(sum, part)| *sum += part);
                    }
                }
                for (element, of) in self.elements.iter().enumerate() {
                    let mut sum = [0.0; 16];
                    for &(tap, factor) in of {
                        sum.iter_mut().zip(taps[tap].0).for_each(|(sum, x)| *sum += factor * x);
                    }
                    let column = weights[channel * elements + element..].iter_mut().step_by(inputs * elements);
                    column.zip(sum).for_each(|(weight, sum)| *weight = sum);
                }
            }
        });
        weights
    }
}

/// One piece of the pixels and one group of the input blocks.
struct Task<'a> {
    cut: &'a Cut,
    winograd: bool,
    piece: usize,
    group: usize,
    index: usize,
}

/// A task; the last arguments are its part of the result and scratch memory.
type Run = unsafe fn(&WeightGradient<'_>, &Task<'_>, *mut f32, *mut f32);

fn task_for(isa: InstructionSet, precision: Precision) -> Run {
    compiled!(run_task, fn(w: &WeightGradient<'_>, task: &Task<'_>, to: *mut f32, scratch: *mut f32), isa, precision)
}

/// # Safety
/// V's instruction set is there; the planes are alive and of the stated sizes; `to` has room for the part of this task,
/// and nobody else touches it; the scratch memory has the lanes that the form asks for.
#[inline(always)]
unsafe fn run_task<V: Tile, M: Operand<V>>(w: &WeightGradient<'_>, task: &Task<'_>, to: *mut f32, scratch: *mut f32) {
    // SAFETY: passed on.
    unsafe {
        match task.winograd {
            true => winograd::run_task::<V, M>(w, task, to, scratch),
            false => run_taps::<V, M>(w, task, to, scratch),
        }
    }
}

/// The input rows that a task of the direct form keeps.
struct Ring {
    /// Smallest and largest offset of any tap, down the image.
    rows: (isize, isize),
    /// Pixels before column 0.
    left: usize,
    width: usize,
    slots: usize,
    /// Most blocks of a task.
    blocks: usize,
}

impl Ring {
    fn of(w: &WeightGradient<'_>, cut: &Cut) -> Self {
        let taps = || w.phases.iter().flat_map(|phase| &phase.taps);
        let rows = (taps().map(|t| t.0).min().unwrap_or(0).min(0), taps().map(|t| t.0).max().unwrap_or(0).max(0));
        let left = (-taps().map(|t| t.1).min().unwrap_or(0).min(0)) as usize;
        let right = taps().map(|t| t.1).max().unwrap_or(0).max(0) as usize;
        let columns = w.output_size.1.div_ceil(w.write_stride);
        Self {
            rows,
            left,
            width: left + w.input_size.1.max((columns - 1) * w.read_stride + right + 1),
            slots: (cut.unit - 1) * w.read_stride + (rows.1 - rows.0) as usize + 1,
            blocks: cut.group,
        }
    }

    fn lanes(&self) -> usize {
        self.slots * self.blocks * self.width
    }

    /// Where a row of a block begins, in floats.
    #[inline(always)]
    fn row(&self, row: isize, block: usize) -> usize {
        (row.rem_euclid(self.slots as isize) as usize * self.blocks + block) * self.width * 16
    }
}

/// A row of pixels of one tap: where the inputs and the gradients of the output blocks begin.
#[derive(Clone, Copy)]
struct Row {
    pixels: *const f32,
    gradients: [*const f32; 2],
}

/// # Safety
/// As [`run_task`].
#[inline(always)]
unsafe fn run_taps<V: Tile, M: Operand<V>>(w: &WeightGradient<'_>, task: &Task<'_>, to: *mut f32, scratch: *mut f32) {
    let cut = task.cut;
    let blocks = cut.blocks(task.group);
    let lanes = w.layout.lanes();
    let stride = w.read_stride as isize;
    let (out_height, out_width) = w.output_size;
    let ring = Ring::of(w, cut);
    let mut rows: Vec<Row> = Vec::with_capacity(cut.unit);
    let mut filled = (usize::MAX, 0);
    let units_per_image = w.rows().div_ceil(cut.unit);
    let units = cut.piece(task.piece);
    for unit in units.clone() {
        let (b, first) = (unit / units_per_image, unit % units_per_image * cut.unit);
        let range = first..w.rows().min(first + cut.unit);
        if filled.0 != b {
            filled = (b, first as isize * stride + ring.rows.0 - 1);
        }
        // SAFETY: offsets stay inside the ring (`slots` rows of `blocks × width` lanes), the planes (rows below
        // `out_height`, pixels below `out_width`) and this task's part (`blocks × taps × 16 × outputs` lanes).
        unsafe {
            while filled.1 < (range.end - 1) as isize * stride + ring.rows.1 {
                filled.1 += 1;
                for (index, block) in blocks.clone().enumerate() {
                    let to = scratch.add(ring.row(filled.1, index));
                    fill_row::<V, M>(w, block, (b, filled.1), to, ring.left, ring.width);
                }
            }
            if let (Some(sums), 0) = (&w.row_sums, task.group) {
                for y in range.start * w.write_stride..out_height.min(range.end * w.write_stride) {
                    sum_row::<V, M>(w, sums, b, y);
                }
            }
            for (index, block) in blocks.clone().enumerate() {
                let used = lanes[block * 16..block * 16 + 16].iter().flatten().count();
                for output in (0..cut.outputs).step_by(V::OUTPUTS) {
                    let size = V::OUTPUTS.min(cut.outputs - output);
                    let mut tap = 0;
                    for phase in w.phases {
                        let count = (out_width - phase.x.min(out_width)).div_ceil(w.write_stride);
                        for &(dy, dx) in &phase.taps {
                            let part = to.add(((index * cut.taps + tap) * 16 * cut.outputs + output) * 16);
                            tap += 1;
                            // At least once, so that the part is always written.
                            for segment in 0..count.div_ceil(RUN).max(1) {
                                let x = segment * RUN;
                                rows.clear();
                                for y in range.clone() {
                                    let out_row = y * w.write_stride + phase.y;
                                    if out_row >= out_height {
                                        continue;
                                    }
                                    let at = (x * w.write_stride + phase.x) * M::PIXEL;
                                    let gradient =
                                        |k: usize| w.gradient[output + k].row(b, out_row).add(at).cast_const();
                                    let from = (ring.left as isize + dx) as usize + x * w.read_stride;
                                    rows.push(Row {
                                        pixels: scratch.add(ring.row(y as isize * stride + dy, index) + from * 16),
                                        gradients: [gradient(0), gradient(size - 1)],
                                    });
                                }
                                let job = Piece {
                                    rows: &rows,
                                    count: RUN.min(count - x.min(count)),
                                    read: w.read_stride * 16,
                                    write: w.write_stride * M::PIXEL,
                                    stride: cut.outputs * 16,
                                    fresh: unit == units.start && segment == 0,
                                };
                                for lane in (0..used).step_by(V::LANES) {
                                    let to = part.add(lane * cut.outputs * 16);
                                    match V::OUTPUTS == 2 && size == 2 {
                                        true => tile_of::<V, M, 2>(&job, V::LANES.min(used - lane), lane, to),
                                        false => tile_of::<V, M, 1>(&job, V::LANES.min(used - lane), lane, to),
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Writes row `row` of an input block (zeros outside the image), normalised and activated.
#[inline(always)]
unsafe fn fill_row<V: Vector, M: Operand<V>>(
    w: &WeightGradient<'_>,
    block: usize,
    (b, row): (usize, isize),
    to: *mut f32,
    left: usize,
    width: usize,
) {
    let (height, input_width) = w.input_size;
    // SAFETY: `to` has `width` lanes; the plane has `input_width` pixels a row; scales have 16 numbers a block.
    unsafe {
        if row < 0 || row >= height as isize {
            std::ptr::write_bytes(to, 0, width * 16);
            return;
        }
        let from: *const f32 = w.inputs[block].row(b, row as usize);
        std::ptr::write_bytes(to, 0, left * 16);
        let inside = to.add(left * 16);
        let lane = (b * w.inputs.len() + block) * 16;
        activate::<V, M, Single>(from, inside, input_width, w.reading.as_ref(), lane);
        std::ptr::write_bytes(inside.add(input_width * 16), 0, (width - left - input_width) * 16);
    }
}

/// Sums the gradient over the pixels of a row, block by block.
#[inline(always)]
unsafe fn sum_row<V: Vector, M: Operand<V>>(w: &WeightGradient<'_>, sums: &[Plane], b: usize, y: usize) {
    for (gradient, to) in w.gradient.iter().zip(sums) {
        // SAFETY: the planes have `out_width` pixels a row and one; this task alone writes the sums of row `y`.
        unsafe {
            let from: *const f32 = gradient.row(b, y);
            let mut sum = V::splat(0.0);
            for x in 0..w.output_size.1 {
                sum = sum.add(M::load(from.add(x * M::PIXEL)));
            }
            sum.store(to.row(b, y));
        }
    }
}

/// What one register tile sums over, and where it goes.
struct Piece<'a> {
    rows: &'a [Row],
    /// Pixels of each row.
    count: usize,
    /// From one pixel to the next, input and gradient.
    read: usize,
    write: usize,
    /// From one input lane to the next in the result.
    stride: usize,
    /// Nothing is there yet to be added to.
    fresh: bool,
}

/// Dispatches on the number of input lanes, so that every tile is unrolled. An odd one takes a lane of padding along,
/// whose input is zero.
#[inline(always)]
unsafe fn tile_of<V: Tile, M: Operand<V>, const K: usize>(piece: &Piece<'_>, lanes: usize, lane: usize, to: *mut f32) {
    // SAFETY: passed on.
    unsafe {
        match lanes {
            7.. => tile::<V, M, 8, K>(piece, lane, to),
            5 | 6 => tile::<V, M, 6, K>(piece, lane, to),
            3 | 4 => tile::<V, M, 4, K>(piece, lane, to),
            _ => tile::<V, M, 2, K>(piece, lane, to),
        }
    }
}

/// `I` input channels, in single precision, times `K` output blocks of gradients in the format `M`.
#[inline(always)]
unsafe fn tile<V: Tile, M: Operand<V>, const I: usize, const K: usize>(piece: &Piece<'_>, lane: usize, to: *mut f32) {
    if I > V::LANES || K > V::OUTPUTS {
        // Tiles that this instruction set has no registers for are never asked for, and not compiled.
        unreachable!("a tile of {I} channels and {K} blocks");
    }
    // SAFETY: see `run_task`.
    unsafe {
        let zero = V::splat(0.0);
        let mut acc = [[zero; K]; I];
        for row in piece.rows {
            let mut pixel = row.pixels.add(lane);
            let mut gradients = row.gradients;
            for _ in 0..piece.count {
                let mut g = [zero; K];
                for (g, from) in g.iter_mut().zip(&mut gradients) {
                    *g = M::load(*from);
                    // Behind the last pixel this leaves the row, where nothing is read.
                    *from = from.wrapping_add(piece.write);
                }
                for (i, acc) in acc.iter_mut().enumerate() {
                    let value = V::splat(*pixel.add(i));
                    for (acc, g) in acc.iter_mut().zip(g) {
                        *acc = value.mul_add(g, *acc);
                    }
                }
                pixel = pixel.wrapping_add(piece.read);
            }
        }
        for (i, acc) in acc.into_iter().enumerate() {
            for (k, acc) in acc.into_iter().enumerate() {
                let to = to.add(i * piece.stride + k * 16);
                let sum = if piece.fresh { acc } else { acc.add(V::load(to)) };
                sum.store(to);
            }
        }
    }
}
