//! Convolutions in every direction as one kernel: sums over taps of small matrices.
//!
//! A convolution with stride 1 or 2, its data gradient, a nearest-neighbour up-sampling followed by a convolution, and
//! that one's data gradient all have the form
//!
//! `out[w·y + p] = Σ_taps M_tap · in[r·y + d_tap]`
//!
//! with a reading stride `r`, a writing stride `w`, and `w²` phases `p` with taps of their own. Up-sampling first and
//! convolving 3×3 is four phases of 2×2 taps whose matrices are sums of the original ones: 2.25 times less work.
//!
//! Work is cut into bands of output rows. A band keeps the input rows it needs in a ring, already normalised, activated
//! and padded, so that the normalised image never exists in memory; sums for the next normalisation are taken from the
//! registers that hold the result.

use crate::isa::InstructionSet;
use crate::map::{Lanes, Layout, Plane};
#[cfg(target_arch = "x86_64")]
use crate::vector::{Avx2, Avx512};
use crate::vector::{Portable, Vector, sigmoid};
use rayon::prelude::*;
use std::ops::Range;

/// One matrix `[out, in]` applied to the pixel at offset `(dy, dx)`.
#[derive(Clone, Debug)]
pub(crate) struct Tap {
    pub(crate) dy: isize,
    pub(crate) dx: isize,
    pub(crate) matrix: Vec<f32>,
}

/// Output pixels `w·y + (y, x)` and the taps they sum, for each source.
#[derive(Clone, Debug)]
pub(crate) struct Phase {
    pub(crate) y: usize,
    pub(crate) x: usize,
    pub(crate) sources: Vec<Vec<Tap>>,
}

#[derive(Debug)]
struct PackedPhase {
    y: usize,
    x: usize,
    /// Offsets of the taps of each source.
    taps: Vec<Vec<(isize, isize)>>,
    /// For each group of output blocks: for each source, input block, tap and input lane, the output lanes.
    groups: Vec<Vec<Lanes>>,
}

/// Weights packed for one instruction set.
#[derive(Debug)]
pub(crate) struct Correlation {
    isa: InstructionSet,
    /// Used lanes of each block of each source.
    lanes: Vec<Vec<usize>>,
    output_blocks: usize,
    group: usize,
    read_stride: usize,
    write_stride: usize,
    phases: Vec<PackedPhase>,
    /// Smallest and largest offset of any tap, rows and columns.
    rows: (isize, isize),
    columns: (isize, isize),
}

impl Correlation {
    pub(crate) fn new(
        isa: InstructionSet,
        read_stride: usize,
        write_stride: usize,
        phases: &[Phase],
        inputs: &[Layout],
        output: &Layout,
    ) -> Self {
        let taps = || phases.iter().flat_map(|phase| phase.sources.iter().flatten());
        let span = |of: fn(&Tap) -> isize| {
            (taps().map(of).min().unwrap_or(0).min(0), taps().map(of).max().unwrap_or(0).max(0))
        };
        let group = match isa {
            InstructionSet::Portable => Portable::BLOCKS,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => Avx2::BLOCKS,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 | InstructionSet::Avx512Bf16 => Avx512::BLOCKS,
            #[cfg(not(target_arch = "x86_64"))]
            _ => Portable::BLOCKS,
        };
        let input_lanes: Vec<Vec<Option<usize>>> = inputs.iter().map(Layout::lanes).collect();
        let output_lanes = output.lanes();
        let pack = |phase: &Phase| {
            let groups = (0..output.blocks()).step_by(group).map(|first| {
                let out = &output_lanes[first * 16..(first + group).min(output.blocks()) * 16];
                let mut packed = Vec::new();
                for ((taps, lanes), layout) in phase.sources.iter().zip(&input_lanes).zip(inputs) {
                    for block in lanes.chunks(16) {
                        for tap in taps {
                            for &channel in block.iter().flatten() {
                                for chunk in out.chunks(16) {
                                    let mut row = [0.0; 16];
                                    for (to, from) in row.iter_mut().zip(chunk) {
                                        *to = from.map_or(0.0, |o| tap.matrix[o * layout.channels() + channel]);
                                    }
                                    packed.push(Lanes(row));
                                }
                            }
                        }
                    }
                }
                packed
            });
            PackedPhase {
                y: phase.y,
                x: phase.x,
                taps: phase.sources.iter().map(|taps| taps.iter().map(|t| (t.dy, t.dx)).collect()).collect(),
                groups: groups.collect(),
            }
        };
        Self {
            isa,
            lanes: input_lanes
                .iter()
                .map(|lanes| lanes.chunks(16).map(|block| block.iter().flatten().count()).collect())
                .collect(),
            output_blocks: output.blocks(),
            group,
            read_stride,
            write_stride,
            phases: phases.iter().map(pack).collect(),
            rows: span(|t| t.dy),
            columns: span(|t| t.dx),
        }
    }

    /// Runs over a batch of images.
    ///
    /// The rows of each image are computed in bands, one band per task; what is written does not depend on the bands.
    pub(crate) fn run(&self, job: &Job<'_>) {
        debug_assert_eq!(job.outputs.len(), self.output_blocks);
        let rows = job.output_size.0.div_ceil(self.write_stride);
        let height = rows.div_ceil(8).max(8);
        let bands = rows.div_ceil(height);
        (0..job.batch * bands).into_par_iter().for_each_init(Vec::new, |ring, index| {
            let (b, band) = (index / bands, index % bands);
            let range = band * height..rows.min((band + 1) * height);
            // SAFETY: the instruction set was detected on this machine; the planes of the job are alive and of the
            // sizes it states; bands write disjoint rows.
            unsafe {
                match self.isa {
                    InstructionSet::Portable => run_band::<Portable>(self, job, b, range, ring),
                    #[cfg(target_arch = "x86_64")]
                    InstructionSet::Avx2 => run_band_avx2(self, job, b, range, ring),
                    #[cfg(target_arch = "x86_64")]
                    InstructionSet::Avx512 | InstructionSet::Avx512Bf16 => run_band_avx512(self, job, b, range, ring),
                    #[cfg(not(target_arch = "x86_64"))]
                    _ => run_band::<Portable>(self, job, b, range, ring),
                }
            }
        });
    }
}

/// What happens to an input pixel before it is convolved: `silu(scale · x + shift)`, numbers per image and lane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading<'a> {
    pub(crate) scale: &'a [f32],
    pub(crate) shift: &'a [f32],
    pub(crate) silu: bool,
}

/// The derivative of a [`Reading`]'s activation, which a data gradient is multiplied with.
#[derive(Debug)]
pub(crate) struct Gate<'a> {
    /// The values that were read, one plane per output block.
    pub(crate) values: Vec<Plane>,
    pub(crate) reading: Reading<'a>,
}

/// One plane of the result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) plane: Plane,
    /// Adds to what is there.
    pub(crate) accumulate: bool,
}

/// Arguments of one run.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) batch: usize,
    pub(crate) input_size: (usize, usize),
    pub(crate) output_size: (usize, usize),
    /// Planes of each source.
    pub(crate) inputs: Vec<Vec<Plane>>,
    pub(crate) readings: Vec<Option<Reading<'a>>>,
    pub(crate) outputs: Vec<Output>,
    /// Per image and output lane; empty for none.
    pub(crate) bias: &'a [f32],
    /// Added pixel by pixel, one plane per output block; empty for none.
    pub(crate) add: Vec<Plane>,
    pub(crate) gate: Option<Gate<'a>>,
    /// Per image, output row and output block: sums of the result, and of its squares (with a gate: of the result times
    /// the gate's values). Empty for none.
    pub(crate) sums: Sums,
}

/// Where the row sums go: `[batch][row][block][2][16]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sums(*mut f32);

// SAFETY: an address alone; bands write the sums of their own rows.
unsafe impl Send for Sums {}
// SAFETY: as above.
unsafe impl Sync for Sums {}

impl Sums {
    pub(crate) const NONE: Self = Self(std::ptr::null_mut());

    /// Room for the sums of `rows` rows in all.
    pub(crate) fn buffer(rows: usize, blocks: usize) -> Vec<Lanes> {
        vec![Lanes([0.0; 16]); rows * blocks * 2]
    }

    pub(crate) fn of(buffer: &mut [Lanes]) -> Self {
        Self(buffer.as_mut_ptr().cast())
    }
}

/// One source block under one tap: where its pixels and its weights begin.
#[derive(Clone, Copy)]
struct Term {
    pixels: *const f32,
    weights: *const f32,
    lanes: usize,
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn run_band_avx512(c: &Correlation, job: &Job<'_>, b: usize, rows: Range<usize>, ring: &mut Vec<Lanes>) {
    // SAFETY: passed on.
    unsafe { run_band::<Avx512>(c, job, b, rows, ring) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_band_avx2(c: &Correlation, job: &Job<'_>, b: usize, rows: Range<usize>, ring: &mut Vec<Lanes>) {
    // SAFETY: passed on.
    unsafe { run_band::<Avx2>(c, job, b, rows, ring) }
}

/// # Safety
/// V's instruction set is there; the planes of `job` are alive, of the stated sizes, and nobody else writes `rows`.
#[inline(always)]
unsafe fn run_band<V: Vector>(c: &Correlation, job: &Job<'_>, b: usize, rows: Range<usize>, ring: &mut Vec<Lanes>) {
    let (out_height, out_width) = job.output_size;
    let stride = c.read_stride as isize;
    let left = (-c.columns.0) as usize;
    let columns = out_width.div_ceil(c.write_stride);
    let width = left + job.input_size.1.max((columns - 1) * c.read_stride + c.columns.1 as usize + 1);
    let blocks: usize = c.lanes.iter().map(Vec::len).sum();
    let slots = (c.rows.1 - c.rows.0 + 1) as usize;
    ring.clear();
    ring.resize(slots * blocks * width, Lanes([0.0; 16]));
    let ring: *mut f32 = ring.as_mut_ptr().cast();
    let slot = |row: isize| row.rem_euclid(slots as isize) as usize * blocks * width * 16;
    let mut terms: Vec<Term> = Vec::new();
    let mut filled = rows.start as isize * stride + c.rows.0 - 1;
    for y in rows {
        // SAFETY: every offset below stays inside the ring (`slots` rows of `blocks × width` lanes), the packed weights
        // (walked in the order they were packed) and the job's planes.
        unsafe {
            while filled < y as isize * stride + c.rows.1 {
                filled += 1;
                fill_row::<V>(job, b, filled, ring.add(slot(filled)), left, width);
            }
            for phase in &c.phases {
                let out_row = y * c.write_stride + phase.y;
                if out_row >= out_height {
                    continue;
                }
                let count = (out_width - phase.x.min(out_width)).div_ceil(c.write_stride);
                for (index, weights) in phase.groups.iter().enumerate() {
                    let first = index * c.group;
                    let size = (c.output_blocks - first).min(c.group);
                    terms.clear();
                    let mut weights: *const f32 = weights.as_ptr().cast();
                    let mut block = 0;
                    for (lanes, taps) in c.lanes.iter().zip(&phase.taps) {
                        for &lanes in lanes {
                            for &(dy, dx) in taps {
                                let row = ring.add(slot(y as isize * stride + dy) + block * width * 16);
                                let pixels = row.add((left as isize + dx) as usize * 16);
                                terms.push(Term { pixels, weights, lanes });
                                weights = weights.add(lanes * size * 16);
                            }
                            block += 1;
                        }
                    }
                    let target = Target { b, row: out_row, x: phase.x, step: c.write_stride, first, size };
                    let step = c.read_stride * 16;
                    let mut x = 0;
                    while x < count {
                        let pixels = (count - x).min(V::PIXELS);
                        if V::BLOCKS == 2 && size == 2 {
                            tile_of::<V, 2>(job, &terms, &target, x, pixels, step);
                        } else {
                            tile_of::<V, 1>(job, &terms, &target, x, pixels, step);
                        }
                        x += pixels;
                    }
                }
            }
        }
    }
}

/// Where a tile goes.
struct Target {
    b: usize,
    row: usize,
    x: usize,
    step: usize,
    first: usize,
    size: usize,
}

/// Writes input row `row` (zeros outside the image) as the convolution wants to read it.
#[inline(always)]
unsafe fn fill_row<V: Vector>(job: &Job<'_>, b: usize, row: isize, to: *mut f32, left: usize, width: usize) {
    let (height, input_width) = job.input_size;
    let total: usize = job.inputs.iter().map(Vec::len).sum();
    // SAFETY: `to` has `total × width` lanes; planes have `input_width` pixels a row; scales have 16 numbers a block.
    unsafe {
        if row < 0 || row >= height as isize {
            std::ptr::write_bytes(to, 0, total * width * 16);
            return;
        }
        let mut block_to = to;
        for (planes, reading) in job.inputs.iter().zip(&job.readings) {
            for (block, plane) in planes.iter().enumerate() {
                let from: *const f32 = plane.row(b, row as usize);
                std::ptr::write_bytes(block_to, 0, left * 16);
                let inside = block_to.add(left * 16);
                match reading {
                    None => std::ptr::copy_nonoverlapping(from, inside, input_width * 16),
                    Some(reading) => {
                        let lane = (b * planes.len() + block) * 16;
                        let scale = V::load_unaligned(&reading.scale[lane..lane + 16]);
                        let shift = V::load_unaligned(&reading.shift[lane..lane + 16]);
                        for x in 0..input_width {
                            let z = V::load(from.add(x * 16)).mul_add(scale, shift);
                            let z = if reading.silu { z.mul(sigmoid(z)) } else { z };
                            z.store(inside.add(x * 16));
                        }
                    }
                }
                std::ptr::write_bytes(inside.add(input_width * 16), 0, (width - left - input_width) * 16);
                block_to = block_to.add(width * 16);
            }
        }
    }
}

/// Dispatches on the number of pixels, so that every tile is unrolled.
#[inline(always)]
unsafe fn tile_of<V: Vector, const K: usize>(
    job: &Job<'_>,
    terms: &[Term],
    target: &Target,
    x: usize,
    pixels: usize,
    step: usize,
) {
    // SAFETY: passed on.
    unsafe {
        match pixels {
            12 => tile::<V, 12, K>(job, terms, target, x, step),
            11 => tile::<V, 11, K>(job, terms, target, x, step),
            10 => tile::<V, 10, K>(job, terms, target, x, step),
            9 => tile::<V, 9, K>(job, terms, target, x, step),
            8 => tile::<V, 8, K>(job, terms, target, x, step),
            7 => tile::<V, 7, K>(job, terms, target, x, step),
            6 => tile::<V, 6, K>(job, terms, target, x, step),
            5 => tile::<V, 5, K>(job, terms, target, x, step),
            4 => tile::<V, 4, K>(job, terms, target, x, step),
            3 => tile::<V, 3, K>(job, terms, target, x, step),
            2 => tile::<V, 2, K>(job, terms, target, x, step),
            _ => tile::<V, 1, K>(job, terms, target, x, step),
        }
    }
}

/// `P` neighbouring pixels of `K` blocks: all terms in registers, then the epilogue.
///
/// Every output is the sum of its terms in the same order whatever `P` and `K` are, so that neither the band nor the
/// place of a pixel in a row changes a bit of it.
#[inline(always)]
unsafe fn tile<V: Vector, const P: usize, const K: usize>(
    job: &Job<'_>,
    terms: &[Term],
    target: &Target,
    x: usize,
    step: usize,
) {
    if P > V::PIXELS || K > V::BLOCKS {
        // Tiles that this instruction set has no registers for are never asked for, and not compiled.
        unreachable!("a tile of {P} pixels and {K} blocks");
    }
    // SAFETY: see `run_band`.
    unsafe {
        let zero = V::splat(0.0);
        let mut acc = [[zero; K]; P];
        for term in terms {
            let pixels = term.pixels.add(x * step);
            let mut weights = term.weights;
            for lane in 0..term.lanes {
                let mut w = [zero; K];
                for (k, w) in w.iter_mut().enumerate() {
                    *w = V::load(weights.add(k * 16));
                }
                for (p, acc) in acc.iter_mut().enumerate() {
                    let value = V::splat(*pixels.add(p * step + lane));
                    for (acc, w) in acc.iter_mut().zip(w) {
                        *acc = value.mul_add(w, *acc);
                    }
                }
                weights = weights.add(K * 16);
            }
        }
        // Copied out before the epilogue, whose loops index them: the accumulators themselves never leave the registers.
        let mut result = [[Lanes([0.0; 16]); K]; P];
        for (result, acc) in result.iter_mut().zip(acc) {
            for (result, acc) in result.iter_mut().zip(acc) {
                acc.store(result.0.as_mut_ptr());
            }
        }
        let Target { b, row, .. } = *target;
        let blocks = job.outputs.len();
        for k in 0..target.size.min(K) {
            let block = target.first + k;
            let output = job.outputs[block];
            let place = |p: usize| (target.x + (x + p) * target.step) * 16;
            let to = output.plane.row(b, row);
            let lane = (b * blocks + block) * 16;
            let mut sum = zero;
            let mut square = zero;
            let bias = if job.bias.is_empty() { zero } else { V::load_unaligned(&job.bias[lane..lane + 16]) };
            for (p, result) in result.iter().enumerate() {
                let mut value = V::load(result[k].0.as_ptr()).add(bias);
                if let Some(add) = job.add.get(block) {
                    value = value.add(V::load(add.row(b, row).add(place(p))));
                }
                let mut partner = value;
                if let Some(gate) = &job.gate {
                    let from = V::load(gate.values[block].row(b, row).add(place(p)));
                    if gate.reading.silu {
                        let scale = V::load_unaligned(&gate.reading.scale[lane..lane + 16]);
                        let shift = V::load_unaligned(&gate.reading.shift[lane..lane + 16]);
                        let z = from.mul_add(scale, shift);
                        let s = sigmoid(z);
                        // d/dz z·s(z) = s + z s (1 − s)
                        value = value.mul(z.mul(s).mul_add(V::splat(1.0).sub(s), s));
                    }
                    partner = from;
                }
                sum = sum.add(value);
                square = if job.gate.is_some() { value.mul_add(partner, square) } else { value.mul_add(value, square) };
                if output.accumulate {
                    value = value.add(V::load(to.add(place(p))));
                }
                value.store(to.add(place(p)));
            }
            if !job.sums.0.is_null() {
                let at = job.sums.0.add(((b * job.output_size.0 + row) * blocks + block) * 32);
                V::load(at).add(sum).store(at);
                V::load(at.add(16)).add(square).store(at.add(16));
            }
        }
    }
}

/// `to (+)= scale · u + slope · x + shift`, numbers per image and lane: the end of a group norm's data gradient.
#[derive(Debug)]
pub(crate) struct Affine<'a> {
    pub(crate) u: Plane,
    pub(crate) x: Plane,
    pub(crate) output: Output,
    /// 16 numbers for each image, `stride` apart.
    pub(crate) scale: &'a [f32],
    pub(crate) slope: &'a [f32],
    pub(crate) shift: &'a [f32],
    pub(crate) stride: usize,
}

impl Affine<'_> {
    pub(crate) fn run(&self, isa: InstructionSet, batch: usize, height: usize, width: usize) {
        (0..batch * height).into_par_iter().with_min_len(8).for_each(|index| {
            let (b, y) = (index / height, index % height);
            // SAFETY: the instruction set was detected; rows lie in living planes of this size, each written once.
            unsafe {
                match isa {
                    InstructionSet::Portable => affine_row::<Portable>(self, b, y, width),
                    #[cfg(target_arch = "x86_64")]
                    InstructionSet::Avx2 => affine_row_avx2(self, b, y, width),
                    #[cfg(target_arch = "x86_64")]
                    InstructionSet::Avx512 | InstructionSet::Avx512Bf16 => affine_row_avx512(self, b, y, width),
                    #[cfg(not(target_arch = "x86_64"))]
                    _ => affine_row::<Portable>(self, b, y, width),
                }
            }
        });
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn affine_row_avx512(a: &Affine<'_>, b: usize, y: usize, width: usize) {
    // SAFETY: passed on.
    unsafe { affine_row::<Avx512>(a, b, y, width) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn affine_row_avx2(a: &Affine<'_>, b: usize, y: usize, width: usize) {
    // SAFETY: passed on.
    unsafe { affine_row::<Avx2>(a, b, y, width) }
}

#[inline(always)]
unsafe fn affine_row<V: Vector>(a: &Affine<'_>, b: usize, y: usize, width: usize) {
    // SAFETY: the planes have `width` pixels a row; the slices have 16 numbers for image `b`.
    unsafe {
        let at = b * a.stride;
        let scale = V::load_unaligned(&a.scale[at..at + 16]);
        let slope = V::load_unaligned(&a.slope[at..at + 16]);
        let shift = V::load_unaligned(&a.shift[at..at + 16]);
        let (u, x, to) = (a.u.row(b, y), a.x.row(b, y), a.output.plane.row(b, y));
        for i in 0..width {
            let mut value = V::load(u.add(i * 16)).mul_add(scale, V::load(x.add(i * 16)).mul_add(slope, shift));
            if a.output.accumulate {
                value = value.add(V::load(to.add(i * 16)));
            }
            value.store(to.add(i * 16));
        }
    }
}
