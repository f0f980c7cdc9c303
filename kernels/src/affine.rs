//! An affine map of two images, pixel by pixel.

use crate::dispatch::compiled;
use crate::epilogue::Output;
use crate::isa::InstructionSet;
use crate::map::Plane;
use crate::operand::Operand;
use crate::precision::Precision;
use crate::vector::Vector;
use rayon::prelude::*;

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
    pub(crate) fn run(&self, (isa, precision): (InstructionSet, Precision), batch: usize, height: usize, width: usize) {
        let row = compiled!(affine_row, fn(a: &Affine<'_>, b: usize, y: usize, width: usize), isa, precision);
        (0..batch * height).into_par_iter().with_min_len(8).for_each(|index| {
            // SAFETY: the instruction set was detected; rows lie in living planes of this size, each written once.
            unsafe { row(self, index / height, index % height, width) }
        });
    }
}

/// # Safety
/// V's instruction set is there; image and row lie in the living planes, and nobody else writes this row.
#[inline(always)]
unsafe fn affine_row<V: Vector, M: Operand<V>>(a: &Affine<'_>, b: usize, y: usize, width: usize) {
    // SAFETY: the planes have `width` pixels a row; the slices have 16 numbers for image `b`.
    unsafe {
        let at = b * a.stride;
        let scale = V::load_unaligned(&a.scale[at..at + 16]);
        let slope = V::load_unaligned(&a.slope[at..at + 16]);
        let shift = V::load_unaligned(&a.shift[at..at + 16]);
        let (u, x, to) = (a.u.row(b, y), a.x.row(b, y), a.output.plane.row(b, y));
        for i in 0..width {
            let i = i * M::PIXEL;
            let mut value = M::load(u.add(i)).mul_add(scale, M::load(x.add(i)).mul_add(slope, shift));
            if a.output.accumulate {
                value = value.add(M::load(to.add(i)));
            }
            M::store(value, to.add(i));
        }
    }
}
