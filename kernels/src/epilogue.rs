//! What happens to a sum before it is written: bias, residual, the derivative of an activation, sums over the row.

use crate::map::{Lanes, Plane};
use crate::operand::Operand;
use crate::vector::Vector;
use std::marker::PhantomData;

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
    /// What the added pixels are multiplied by.
    pub(crate) add_factor: f32,
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

/// Writes pixels of one output row and block, in the order of the row.
pub(crate) struct Epilogue<V, M> {
    to: *mut f32,
    accumulate: bool,
    bias: V,
    /// Null for none.
    add: *const f32,
    add_factor: V,
    /// Null for none.
    gate: *const f32,
    silu: bool,
    scale: V,
    shift: V,
    /// Null for none.
    sums: *mut f32,
    sum: V,
    square: V,
    format: PhantomData<M>,
}

impl<V: Vector, M: Operand<V>> Epilogue<V, M> {
    /// # Safety
    /// V's instruction set is there; image, row and block lie inside the living planes of `job`, and nobody else writes
    /// there while this lives.
    #[inline(always)]
    pub(crate) unsafe fn new(job: &Job<'_>, b: usize, row: usize, block: usize) -> Self {
        // SAFETY: the caller vouches for the planes; lane slices have 16 numbers per image and block.
        unsafe {
            let blocks = job.outputs.len();
            let lane = (b * blocks + block) * 16;
            let zero = V::splat(0.0);
            let output = &job.outputs[block];
            let (mut gate, mut silu, mut scale, mut shift) = (std::ptr::null(), false, zero, zero);
            if let Some(of) = &job.gate {
                gate = of.values[block].row(b, row).cast_const();
                silu = of.reading.silu;
                if silu {
                    (scale, shift) = (
                        V::load_unaligned(&of.reading.scale[lane..lane + 16]),
                        V::load_unaligned(&of.reading.shift[lane..lane + 16]),
                    );
                }
            }
            Self {
                to: output.plane.row(b, row),
                accumulate: output.accumulate,
                bias: if job.bias.is_empty() { zero } else { V::load_unaligned(&job.bias[lane..lane + 16]) },
                add: job.add.get(block).map_or(std::ptr::null(), |add| add.row(b, row).cast_const()),
                add_factor: V::splat(job.add_factor),
                gate,
                silu,
                scale,
                shift,
                sums: match job.sums.0.is_null() {
                    true => std::ptr::null_mut(),
                    false => job.sums.0.add(((b * job.output_size.0 + row) * blocks + block) * 32),
                },
                sum: zero,
                square: zero,
                format: PhantomData,
            }
        }
    }

    /// # Safety
    /// `x` lies inside the row.
    #[inline(always)]
    pub(crate) unsafe fn write(&mut self, x: usize, sum: V) {
        // SAFETY: inside the rows that `new` was given.
        unsafe {
            let place = x * M::PIXEL;
            let mut value = sum.add(self.bias);
            if !self.add.is_null() {
                value = M::load(self.add.add(place)).mul_add(self.add_factor, value);
            }
            let mut partner = value;
            if !self.gate.is_null() {
                partner = M::load(self.gate.add(place));
                if self.silu {
                    let z = partner.mul_add(self.scale, self.shift);
                    let s = M::sigmoid(z);
                    // d/dz z·s(z) = s + z s (1 − s)
                    value = value.mul(z.mul(s).mul_add(V::splat(1.0).sub(s), s));
                }
            }
            self.sum = self.sum.add(value);
            self.square = value.mul_add(partner, self.square);
            if self.accumulate {
                value = value.add(M::load(self.to.add(place)));
            }
            M::store(value, self.to.add(place));
        }
    }

    /// # Safety
    /// As `new`.
    #[inline(always)]
    pub(crate) unsafe fn finish(self) {
        if !self.sums.is_null() {
            // SAFETY: two registers of this row and block.
            unsafe {
                V::load(self.sums).add(self.sum).store(self.sums);
                V::load(self.sums.add(16)).add(self.square).store(self.sums.add(16));
            }
        }
    }
}
