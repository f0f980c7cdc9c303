//! Convolutions in every direction as one kernel: sums over taps of small matrices.
//!
//! A convolution with stride 1 or 2, its data gradient, a nearest-neighbour up-sampling followed by a convolution, and
//! that one's data gradient all have the form
//!
//! `out[w·y + p] = Σ_taps M_tap · in[r·y + d_tap]`
//!
//! with a reading stride `r`, a writing stride `w`, and `w²` phases `p` with taps of their own. Up-sampling first and
//! convolving 3×3 is four phases of 2×2 taps whose matrices are sums of the original ones: 2.25 times less work. A 3×3
//! window at the same resolution goes through [`winograd`](crate::winograd), again 2.25 times less.
//!
//! Work is cut into bands of output rows. A band keeps the input rows it needs in a ring, already normalised, activated
//! and padded, so that the normalised image never exists in memory; sums for the next normalisation are taken from the
//! registers that hold the result.

#[cfg(target_arch = "x86_64")]
use crate::amx::Tiles;
use crate::dispatch::compiled;
use crate::epilogue::{Epilogue, Job, Reading};
use crate::isa::InstructionSet;
use crate::map::{Lanes, Layout, Pool, Scratch};
#[cfg(target_arch = "x86_64")]
use crate::operand::TilePair;
use crate::operand::{Operand, pair};
use crate::precision::Precision;
#[cfg(target_arch = "x86_64")]
use crate::vector::{Avx2, Avx512};
use crate::vector::{Portable, Vector};
use crate::winograd::Winograd;
use rayon::prelude::*;
use std::ops::Range;

/// Runs an expression with a constant number of pixels, so that every tile is unrolled.
macro_rules! unrolled {
    ($pixels:expr, $P:ident => $run:expr) => {
        unrolled!(@each $pixels, $P, $run, 1 2 3 4 5 6 7 8 9 10 11 12)
    };
    (@each $pixels:expr, $P:ident, $run:expr, $($n:literal)*) => {
        match $pixels {
            $($n => {
                const $P: usize = $n;
                $run
            })*
            pixels => unreachable!("a tile of {pixels} pixels"),
        }
    };
}
pub(crate) use unrolled;

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
    /// For each group of output blocks: for each source, unit, tap and broadcast value, the output lanes.
    groups: Vec<Vec<Lanes>>,
}

#[derive(Debug)]
enum Method {
    Taps(Vec<PackedPhase>),
    Winograd(Winograd),
}

/// One band of output rows of one image; the last argument is scratch memory.
type Band = unsafe fn(&Correlation, &Job<'_>, usize, Range<usize>, *mut f32);

/// Weights packed for one instruction set and precision.
#[derive(Debug)]
pub(crate) struct Correlation {
    band: Band,
    method: Method,
    /// Broadcast values in use of each unit of each source.
    pub(crate) units: Vec<Vec<usize>>,
    pub(crate) output_blocks: usize,
    /// Output blocks whose sums are in registers together.
    pub(crate) group: usize,
    read_stride: usize,
    write_stride: usize,
    /// Smallest and largest offset of any tap, rows and columns.
    rows: (isize, isize),
    columns: (isize, isize),
}

/// The channels of each unit's broadcast values, `None` where there is none: what the packed weights are ordered by.
#[derive(Debug)]
pub(crate) struct Units {
    precision: Precision,
    values: Vec<Vec<[Option<usize>; 2]>>,
}

impl Units {
    fn new(layout: &Layout, precision: Precision) -> Self {
        let lanes = layout.lanes();
        let mut values: Vec<Vec<[Option<usize>; 2]>> = match precision {
            Precision::F32 => lanes.chunks(16).map(|unit| unit.iter().map(|&c| [c, None]).collect()).collect(),
            Precision::Bf16 => lanes.chunks(32).map(|unit| unit.chunks(2).map(|c| [c[0], c[1]]).collect()).collect(),
        };
        for unit in &mut values {
            let used = unit.iter().rposition(|value| value.iter().any(Option::is_some)).map_or(0, |last| last + 1);
            unit.truncate(used);
        }
        Self { precision, values }
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether all sixteen values of every unit are in use.
    fn are_full(&self) -> bool {
        self.values.iter().all(|unit| unit.len() == 16)
    }

    /// Appends the weights of one unit for the output channels of some blocks; `weight(out, in)`.
    pub(crate) fn pack(
        &self,
        unit: usize,
        outputs: &[Option<usize>],
        weight: impl Fn(usize, usize) -> f32,
        to: &mut Vec<Lanes>,
    ) {
        for &[first, second] in &self.values[unit] {
            for block in outputs.chunks(16) {
                let mut row = [0.0; 16];
                for (to, output) in row.iter_mut().zip(block) {
                    let Some(output) = *output else { continue };
                    let of = |channel: Option<usize>| channel.map_or(0.0, |channel| weight(output, channel));
                    *to = match self.precision {
                        Precision::F32 => of(first),
                        Precision::Bf16 => pair(of(first), of(second)),
                    };
                }
                to.push(Lanes(row));
            }
        }
    }
}

impl Correlation {
    pub(crate) fn new(
        (isa, precision): (InstructionSet, Precision),
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
        let units: Vec<Units> = inputs.iter().map(|layout| Units::new(layout, precision)).collect();
        let isa = match isa {
            // Matrices have no shorter side.
            InstructionSet::Amx if !units.iter().all(Units::are_full) => InstructionSet::Avx512Bf16,
            _ => isa,
        };
        let (band, group) = band_for(isa, precision);
        let output_lanes = output.lanes();
        let groups: Vec<&[Option<usize>]> = output_lanes.chunks(group * 16).collect();
        let pack = |phase: &Phase| PackedPhase {
            y: phase.y,
            x: phase.x,
            taps: phase.sources.iter().map(|taps| taps.iter().map(|t| (t.dy, t.dx)).collect()).collect(),
            groups: groups
                .par_iter()
                .map(|outputs| {
                    let mut packed = Vec::new();
                    for ((taps, units), layout) in phase.sources.iter().zip(&units).zip(inputs) {
                        let channels = layout.channels();
                        for unit in 0..units.len() {
                            for tap in taps {
                                units.pack(unit, outputs, |o, i| tap.matrix[o * channels + i], &mut packed);
                            }
                        }
                    }
                    // They stay as long as the network does; and a read behind them is one behind their memory.
                    packed.shrink_to_fit();
                    packed
                })
                .collect(),
        };
        let same = read_stride == 1 && write_stride == 1;
        let method = match phases {
            [phase] if same && Winograd::pays(&phase.sources, inputs) => {
                Method::Winograd(Winograd::new(&phase.sources, inputs, &units, &groups))
            }
            _ => Method::Taps(phases.iter().map(pack).collect()),
        };
        Self {
            band,
            method,
            units: units.iter().map(|units| units.values.iter().map(Vec::len).collect()).collect(),
            output_blocks: output.blocks(),
            group,
            read_stride,
            write_stride,
            rows: span(|t| t.dy),
            columns: span(|t| t.dx),
        }
    }

    /// Multiplications for a pixel and channel of the result, where the sources have so many channels.
    pub(crate) fn products(&self, channels: &[usize]) -> f64 {
        match &self.method {
            Method::Taps(phases) => {
                let of_phase = |phase: &PackedPhase| -> usize {
                    phase.taps.iter().zip(channels).map(|(taps, channels)| taps.len() * channels).sum()
                };
                phases.iter().map(of_phase).sum::<usize>() as f64 / phases.len() as f64
            }
            Method::Winograd(winograd) => winograd.products(channels),
        }
    }

    /// Runs over a batch of images.
    ///
    /// The rows of each image are computed in bands, one band per task; what is written does not depend on the bands.
    pub(crate) fn run(&self, job: &Job<'_>, pool: &Pool) {
        debug_assert_eq!(job.outputs.len(), self.output_blocks);
        let (step, least) = match self.method {
            Method::Taps(_) => (self.write_stride, 8),
            Method::Winograd(_) => (2, 4),
        };
        let rows = job.output_size.0.div_ceil(step);
        let height = rows.div_ceil(8).max(least);
        let bands = rows.div_ceil(height);
        let scratch = match &self.method {
            Method::Taps(_) => Ring::of(self, job).lanes(),
            Method::Winograd(winograd) => winograd.lanes(self, job, height),
        };
        (0..job.batch * bands).into_par_iter().for_each_init(
            || Scratch::new(pool, scratch),
            |scratch, index| {
                let (b, band) = (index / bands, index % bands);
                let range = band * height..rows.min((band + 1) * height);
                // SAFETY: the instruction set was detected on this machine; the planes of the job are alive and of the
                // sizes it states; bands write disjoint rows; the scratch memory is as large as the method says.
                unsafe { (self.band)(self, job, b, range, scratch.as_mut_ptr()) }
            },
        );
    }
}

/// The input rows that a band of taps keeps.
struct Ring {
    slots: usize,
    units: usize,
    /// Pixels before column 0.
    left: usize,
    width: usize,
}

impl Ring {
    #[inline(always)]
    fn of(c: &Correlation, job: &Job<'_>) -> Self {
        let left = (-c.columns.0) as usize;
        let columns = job.output_size.1.div_ceil(c.write_stride);
        Self {
            slots: (c.rows.1 - c.rows.0 + 1) as usize,
            units: c.units.iter().map(Vec::len).sum(),
            left,
            width: left + job.input_size.1.max((columns - 1) * c.read_stride + c.columns.1 as usize + 1),
        }
    }

    fn lanes(&self) -> usize {
        self.slots * self.units * self.width
    }

    /// Where an input row begins, in floats.
    #[inline(always)]
    fn row(&self, row: isize) -> usize {
        row.rem_euclid(self.slots as isize) as usize * self.units * self.width * 16
    }
}

/// The kernel for an instruction set and precision, and how many output blocks it takes together.
fn band_for(isa: InstructionSet, precision: Precision) -> (Band, usize) {
    let blocks = match isa {
        InstructionSet::Portable => Portable::BLOCKS,
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx2 => Avx2::BLOCKS,
        #[cfg(target_arch = "x86_64")]
        InstructionSet::Avx512 | InstructionSet::Avx512Bf16 | InstructionSet::Amx => Avx512::BLOCKS,
        #[cfg(not(target_arch = "x86_64"))]
        isa => unreachable!("{isa} on a processor that is not x86-64"),
    };
    let band = match (isa, precision) {
        #[cfg(target_arch = "x86_64")]
        (InstructionSet::Amx, Precision::Bf16) => amx_bf16,
        _ => compiled!(
            run_band,
            fn(c: &Correlation, job: &Job<'_>, b: usize, rows: Range<usize>, scratch: *mut f32),
            isa,
            precision
        ),
    };
    (band, blocks)
}

/// [`run_band`] with tiles.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn amx_bf16(c: &Correlation, job: &Job<'_>, b: usize, rows: Range<usize>, scratch: *mut f32) {
    // SAFETY: passed on; the tiles are there until the end.
    unsafe {
        let _tiles = Tiles::new();
        run_band::<Avx512, TilePair>(c, job, b, rows, scratch);
    }
}

/// # Safety
/// V's instruction set is there; the planes of `job` are alive, of the stated sizes, and nobody else writes `rows`; the
/// scratch memory has the lanes that the method asks for.
#[inline(always)]
unsafe fn run_band<V: Vector, M: Operand<V>>(
    c: &Correlation,
    job: &Job<'_>,
    b: usize,
    rows: Range<usize>,
    scratch: *mut f32,
) {
    // SAFETY: passed on.
    unsafe {
        match &c.method {
            Method::Taps(phases) => taps_band::<V, M>(c, phases, job, b, rows, scratch),
            Method::Winograd(winograd) => winograd.band::<V, M>(c, job, b, rows, scratch),
        }
    }
}

/// One unit of a source under one tap: where its pixels and its weights begin.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Term {
    pub(crate) pixels: *const f32,
    pub(crate) weights: *const f32,
    /// Broadcast values.
    pub(crate) values: usize,
}

/// # Safety
/// As [`run_band`].
#[inline(always)]
unsafe fn taps_band<V: Vector, M: Operand<V>>(
    c: &Correlation,
    phases: &[PackedPhase],
    job: &Job<'_>,
    b: usize,
    rows: Range<usize>,
    scratch: *mut f32,
) {
    let (out_height, out_width) = job.output_size;
    let stride = c.read_stride as isize;
    let ring = Ring::of(c, job);
    let mut terms: Vec<Term> = Vec::new();
    let mut filled = rows.start as isize * stride + c.rows.0 - 1;
    for y in rows {
        // SAFETY: every offset below stays inside the ring (`slots` rows of `units × width` lanes), the packed weights
        // (walked in the order they were packed) and the job's planes.
        unsafe {
            while filled < y as isize * stride + c.rows.1 {
                filled += 1;
                let mut to = scratch.add(ring.row(filled));
                for source in 0..job.inputs.len() {
                    to = fill_row::<V, M, M>(job, source, (b, filled), to, ring.left, ring.width);
                }
            }
            for phase in phases {
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
                    let mut unit = 0;
                    for (units, taps) in c.units.iter().zip(&phase.taps) {
                        for &values in units {
                            for &(dy, dx) in taps {
                                let row = scratch.add(ring.row(y as isize * stride + dy) + unit * ring.width * 16);
                                let pixels = row.add((ring.left as isize + dx) as usize * 16);
                                terms.push(Term { pixels, weights, values });
                                weights = weights.add(values * size * 16);
                            }
                            unit += 1;
                        }
                    }
                    let target = Target { b, row: out_row, x: phase.x, step: c.write_stride, first };
                    let step = c.read_stride * 16;
                    if M::MATRIX {
                        match size {
                            2 => matrix_row::<V, M, 2>(job, &terms, &target, count, step),
                            _ => matrix_row::<V, M, 1>(job, &terms, &target, count, step),
                        }
                        continue;
                    }
                    let mut x = 0;
                    while x < count {
                        let pixels = (count - x).min(V::PIXELS);
                        if V::BLOCKS == 2 && size == 2 {
                            unrolled!(pixels, P => tile::<V, M, P, 2>(job, &terms, &target, x, step));
                        } else {
                            unrolled!(pixels, P => tile::<V, M, P, 1>(job, &terms, &target, x, step));
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
}

/// Writes input row `row` of a source (zeros outside the image) in the format `R`: for each unit, `width` pixels of which
/// the first is column `-left`. Returns where the next source's begins.
///
/// # Safety
/// As [`run_band`]; `to` has room for the units of the source.
#[inline(always)]
pub(crate) unsafe fn fill_row<V: Vector, M: Operand<V>, R: Operand<V>>(
    job: &Job<'_>,
    source: usize,
    (b, row): (usize, isize),
    to: *mut f32,
    left: usize,
    width: usize,
) -> *mut f32 {
    let (height, input_width) = job.input_size;
    let (planes, reading) = (&job.inputs[source], &job.readings[source]);
    let inside = row >= 0 && row < height as isize;
    let mut unit_to = to;
    // SAFETY: `to` has `width` pixels for each unit; planes have `input_width` pixels a row; scales have 16 numbers a
    // block.
    unsafe {
        for (block, plane) in planes.iter().enumerate() {
            let part = block % R::CHANNELS;
            if part == 0 && inside {
                std::ptr::write_bytes(unit_to, 0, left * 16);
                let after = left + input_width;
                std::ptr::write_bytes(unit_to.add(after * 16), 0, (width - after) * 16);
            } else if part == 0 {
                std::ptr::write_bytes(unit_to, 0, width * 16);
            }
            if inside {
                let from: *const f32 = plane.row(b, row as usize);
                let to = unit_to.add(left * 16 + part * R::PIXEL);
                let lane = (b * planes.len() + block) * 16;
                activate::<V, M, R>(from, to, input_width, reading.as_ref(), lane);
            }
            if part + 1 == R::CHANNELS || block + 1 == planes.len() {
                unit_to = unit_to.add(width * 16);
            }
        }
    }
    unit_to
}

/// Writes `pixels` of one block as they are to be convolved, in the format `R`, 16 floats apart; `lane` is where the
/// block's numbers begin in the reading. While a row is read, the next one of its block is fetched: it lies behind it.
///
/// # Safety
/// V's instruction set is there; both sides have so many pixels.
#[inline(always)]
pub(crate) unsafe fn activate<V: Vector, M: Operand<V>, R: Operand<V>>(
    from: *const f32,
    to: *mut f32,
    pixels: usize,
    reading: Option<&Reading<'_>>,
    lane: usize,
) {
    // SAFETY: by the caller's word.
    unsafe {
        let Some(Reading { scale, shift, silu }) = reading else {
            for x in 0..pixels {
                V::prefetch(from.wrapping_add((pixels + x) * M::PIXEL));
                R::store(M::load(from.add(x * M::PIXEL)), to.add(x * 16));
            }
            return;
        };
        let scale = V::load_unaligned(&scale[lane..lane + 16]);
        let shift = V::load_unaligned(&shift[lane..lane + 16]);
        if *silu {
            for x in 0..pixels {
                V::prefetch(from.wrapping_add((pixels + x) * M::PIXEL));
                let z = M::load(from.add(x * M::PIXEL)).mul_add(scale, shift);
                R::store(z.mul(M::sigmoid(z)), to.add(x * 16));
            }
        } else {
            for x in 0..pixels {
                let z = M::load(from.add(x * M::PIXEL)).mul_add(scale, shift);
                R::store(z, to.add(x * 16));
            }
        }
    }
}

/// The sums over all terms for `P` pixels, `step` floats apart, of `K` blocks, all of them in registers.
///
/// Every sum is taken in the same order whatever `P` and `K` are, so that neither the band nor the place of a pixel in a
/// row changes a bit of it.
///
/// # Safety
/// V's instruction set is there; the terms' pixels and weights are.
#[inline(always)]
pub(crate) unsafe fn products<V: Vector, M: Operand<V>, const P: usize, const K: usize>(
    terms: &[Term],
    offset: usize,
    step: usize,
) -> [[V; K]; P] {
    // SAFETY: by the caller's word.
    unsafe {
        let mut sums = [[V::splat(0.0); K]; P];
        for term in terms {
            let pixels = term.pixels.add(offset);
            let mut weights = term.weights;
            for value in 0..term.values {
                let mut w = [M::weights(weights); K];
                for (k, w) in w.iter_mut().enumerate().skip(1) {
                    *w = M::weights(weights.add(k * 16));
                }
                for (p, sums) in sums.iter_mut().enumerate() {
                    for (sum, w) in sums.iter_mut().zip(w) {
                        *sum = M::multiply(pixels.add(p * step + value), w, *sum);
                    }
                }
                weights = weights.add(K * 16);
            }
        }
        sums
    }
}

/// `P` neighbouring pixels of `K` blocks: all terms in registers, then the epilogue.
#[inline(always)]
unsafe fn tile<V: Vector, M: Operand<V>, const P: usize, const K: usize>(
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
        let sums = products::<V, M, P, K>(terms, x * step, step);
        // Copied out before the epilogue, whose loops index them: the sums themselves never leave the registers.
        let mut result = [[Lanes([0.0; 16]); K]; P];
        for (result, sums) in result.iter_mut().zip(sums) {
            for (result, sum) in result.iter_mut().zip(sums) {
                sum.store(result.0.as_mut_ptr());
            }
        }
        for k in 0..K {
            let mut epilogue = Epilogue::<V, M>::new(job, target.b, target.row, target.first + k);
            for (p, result) in result.iter().enumerate() {
                epilogue.write(target.x + (x + p) * target.step, V::load(result[k].0.as_ptr()));
            }
            epilogue.finish();
        }
    }
}

/// A row of `count` pixels of `K` blocks, piece by piece: all terms as products of matrices, then the epilogue.
#[inline(always)]
unsafe fn matrix_row<V: Vector, M: Operand<V>, const K: usize>(
    job: &Job<'_>,
    terms: &[Term],
    target: &Target,
    count: usize,
    step: usize,
) {
    const PIECE: usize = 32;
    const LEAST: usize = 16;
    let mut sums = [[Lanes([0.0; 16]); K]; PIECE];
    for x in (0..count).step_by(PIECE) {
        let end = count.min(x + PIECE);
        // A short piece at the end of a row begins earlier: its first sums are taken again, and not written.
        let from = x.min(count.saturating_sub(LEAST));
        // SAFETY: see `run_band`; a piece is at most 32 pixels.
        unsafe {
            M::matrix::<K>(terms, from * step, step, end - from, sums.as_mut_ptr().cast());
            for k in 0..K {
                let mut epilogue = Epilogue::<V, M>::new(job, target.b, target.row, target.first + k);
                for (x, sums) in (x..end).zip(&sums[x - from..]) {
                    epilogue.write(target.x + x * target.step, V::load(sums[k].0.as_ptr()));
                }
                epilogue.finish();
            }
        }
    }
}
