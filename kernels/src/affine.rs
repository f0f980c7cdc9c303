//! An affine map of two images, pixel by pixel.

use crate::epilogue::Output;
use crate::isa::InstructionSet;
use crate::map::Plane;
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
