//! An affine map of two images, pixel by pixel.

use crate::epilogue::Output;
use crate::isa::InstructionSet;
use crate::map::Plane;
#[cfg(target_arch = "x86_64")]
use crate::operand::DotPair;
use crate::operand::{Operand, Single, WidenedPair};
use crate::precision::Precision;
#[cfg(target_arch = "x86_64")]
use crate::vector::{Avx2, Avx512};
use crate::vector::{Portable, Vector};
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
        let row = row_for(isa, precision);
        (0..batch * height).into_par_iter().with_min_len(8).for_each(|index| {
            // SAFETY: the instruction set was detected; rows lie in living planes of this size, each written once.
            unsafe { row(self, index / height, index % height, width) }
        });
    }
}

type Row = unsafe fn(&Affine<'_>, usize, usize, usize);

fn row_for(isa: InstructionSet, precision: Precision) -> Row {
    use Precision::{Bf16, F32};
    match (isa, precision) {
        #[cfg(target_arch = "x86_64")]
        (InstructionSet::Avx2, F32) => avx2,
        #[cfg(target_arch = "x86_64")]
        (InstructionSet::Avx2, Bf16) => avx2_bf16,
        #[cfg(target_arch = "x86_64")]
        (InstructionSet::Avx512 | InstructionSet::Avx512Bf16 | InstructionSet::Amx, F32) => avx512,
        #[cfg(target_arch = "x86_64")]
        (InstructionSet::Avx512, Bf16) => avx512_widened,
        #[cfg(target_arch = "x86_64")]
        (InstructionSet::Avx512Bf16 | InstructionSet::Amx, Bf16) => avx512_bf16,
        (_, F32) => affine_row::<Portable, Single>,
        (_, Bf16) => affine_row::<Portable, WidenedPair>,
    }
}

/// [`affine_row`] compiled for an instruction set.
#[cfg(target_arch = "x86_64")]
macro_rules! compiled {
    ($name:ident, $features:literal, $vector:ty, $operand:ty) => {
        #[target_feature(enable = $features)]
        unsafe fn $name(a: &Affine<'_>, b: usize, y: usize, width: usize) {
            // SAFETY: passed on.
            unsafe { affine_row::<$vector, $operand>(a, b, y, width) }
        }
    };
}
#[cfg(target_arch = "x86_64")]
compiled!(avx2, "avx2,fma", Avx2, Single);
#[cfg(target_arch = "x86_64")]
compiled!(avx2_bf16, "avx2,fma", Avx2, WidenedPair);
#[cfg(target_arch = "x86_64")]
compiled!(avx512, "avx512f", Avx512, Single);
#[cfg(target_arch = "x86_64")]
compiled!(avx512_widened, "avx512f", Avx512, WidenedPair);
#[cfg(target_arch = "x86_64")]
compiled!(avx512_bf16, "avx512f,avx512bf16", Avx512, DotPair);

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
