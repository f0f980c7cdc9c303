//! The numbers that are multiplied: single precision, or pairs of `bfloat16`.
//!
//! Both have one geometry. Four bytes of a pixel (one channel, or two neighbouring ones) are broadcast and multiplied
//! with one register of weights (those of sixteen outputs, or sixteen pairs), so that one kernel serves both: a unit of
//! 64 bytes holds 16 channels of a pixel, or 32. Sums are single precision in both.

use crate::correlation::Term;
use crate::vector::{Vector, rough_sigmoid, sigmoid};

/// How a broadcast value is multiplied with a register of weights.
///
/// # Safety
/// Of every method: the machine has the instruction set; pointers reach four bytes of a value, a register of weights or
/// sixteen channels of a pixel.
pub(crate) trait Operand<V: Vector> {
    /// Channels in the four bytes of one broadcast.
    const CHANNELS: usize;
    /// Floats that sixteen channels of a pixel take.
    const PIXEL: usize = 16 / Self::CHANNELS;
    /// Whether sums are taken by [`matrix`](Self::matrix), and every term has sixteen values.
    const MATRIX: bool = false;
    type Weights: Copy;

    /// The sums over all terms for `count` pixels, `step` floats apart from `offset` on, of `K` blocks:
    /// `[pixel][K][16]`.
    unsafe fn matrix<const K: usize>(_terms: &[Term], _offset: usize, _step: usize, _count: usize, _to: *mut f32) {
        unreachable!("products of whole matrices without an instruction for them")
    }
    unsafe fn weights(from: *const f32) -> Self::Weights;
    /// `sum + value · weights`, of both channels where there are two.
    unsafe fn multiply(value: *const f32, weights: Self::Weights, sum: V) -> V;
    /// Writes sixteen channels of a pixel in this format.
    unsafe fn store(channels: V, to: *mut f32);
    /// Reads sixteen channels of a pixel.
    unsafe fn load(from: *const f32) -> V;
    /// Sixteen channels of a pixel as they are.
    #[inline(always)]
    unsafe fn copy(from: *const f32, to: *mut f32) {
        // SAFETY: passed on.
        unsafe { std::ptr::copy_nonoverlapping(from, to, Self::PIXEL) }
    }
    /// `1 / (1 + e^−x)`, as exactly as the format deserves.
    unsafe fn sigmoid(x: V) -> V;
}

/// Single precision.
#[derive(Debug)]
pub(crate) struct Single;

impl<V: Vector> Operand<V> for Single {
    const CHANNELS: usize = 1;
    type Weights = V;

    #[inline(always)]
    unsafe fn weights(from: *const f32) -> V {
        // SAFETY: passed on.
        unsafe { V::load(from) }
    }
    #[inline(always)]
    unsafe fn multiply(value: *const f32, weights: V, sum: V) -> V {
        // SAFETY: passed on.
        unsafe { V::splat(*value).mul_add(weights, sum) }
    }
    #[inline(always)]
    unsafe fn store(channels: V, to: *mut f32) {
        // SAFETY: passed on.
        unsafe { channels.store(to) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> V {
        // SAFETY: passed on.
        unsafe { V::load(from) }
    }
    #[inline(always)]
    unsafe fn sigmoid(x: V) -> V {
        // SAFETY: passed on.
        unsafe { sigmoid(x) }
    }
}

/// Pairs of `bfloat16`, widened to single precision and multiplied one after the other: for machines that have no
/// instruction for the pair. Half the memory of [`Single`], and a little slower.
#[derive(Debug)]
pub(crate) struct WidenedPair;

impl<V: Vector> Operand<V> for WidenedPair {
    const CHANNELS: usize = 2;
    type Weights = (V, V);

    #[inline(always)]
    unsafe fn weights(from: *const f32) -> (V, V) {
        // SAFETY: passed on.
        unsafe { V::load(from).widen() }
    }
    #[inline(always)]
    unsafe fn multiply(value: *const f32, weights: (V, V), sum: V) -> V {
        // SAFETY: passed on.
        unsafe {
            let bits = (*value).to_bits();
            let (first, second) = (f32::from_bits(bits << 16), f32::from_bits(bits & 0xffff_0000));
            V::splat(second).mul_add(weights.1, V::splat(first).mul_add(weights.0, sum))
        }
    }
    #[inline(always)]
    unsafe fn store(channels: V, to: *mut f32) {
        // SAFETY: passed on.
        unsafe { channels.store_bf16(to.cast()) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> V {
        // SAFETY: passed on.
        unsafe { V::load_bf16(from.cast()) }
    }
    #[inline(always)]
    unsafe fn sigmoid(x: V) -> V {
        // SAFETY: passed on.
        unsafe { rough_sigmoid(x) }
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{DotPair, TilePair};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Operand;
    use crate::amx;
    use crate::correlation::Term;
    use crate::vector::{Avx512, Vector, rough_sigmoid};
    use std::arch::x86_64::*;

    /// Pairs of `bfloat16` under AVX512-BF16: both products and the sum in one instruction, subnormal numbers taken as
    /// zero. With `TILES`, sums are taken by AMX-BF16.
    #[derive(Debug)]
    pub(crate) struct Pair<const TILES: bool>;

    pub(crate) type DotPair = Pair<false>;
    pub(crate) type TilePair = Pair<true>;

    // SAFETY of every method: the caller has AVX512-BF16, and AMX-BF16 for `TILES`; pointers as the trait says.
    impl<const TILES: bool> Operand<Avx512> for Pair<TILES> {
        const CHANNELS: usize = 2;
        const MATRIX: bool = TILES;
        type Weights = __m512bh;

        #[inline(always)]
        unsafe fn matrix<const K: usize>(terms: &[Term], offset: usize, step: usize, count: usize, to: *mut f32) {
            unsafe { amx::products::<K>(terms, offset, step, count, to) }
        }

        #[inline(always)]
        unsafe fn weights(from: *const f32) -> __m512bh {
            // SAFETY: both types are 64 bytes without invalid values.
            unsafe { std::mem::transmute::<__m512, __m512bh>(_mm512_load_ps(from)) }
        }
        #[inline(always)]
        unsafe fn multiply(value: *const f32, weights: __m512bh, sum: Avx512) -> Avx512 {
            unsafe {
                // SAFETY: both types are 64 bytes without invalid values.
                let value = std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(*value.cast()));
                Avx512(_mm512_dpbf16_ps(sum.0, value, weights))
            }
        }
        #[inline(always)]
        unsafe fn store(channels: Avx512, to: *mut f32) {
            unsafe {
                // SAFETY: both types are 32 bytes without invalid values.
                let bits = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(channels.0));
                _mm256_store_si256(to.cast(), bits);
            }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Avx512 {
            unsafe { Avx512::load_bf16(from.cast()) }
        }
        #[inline(always)]
        unsafe fn sigmoid(x: Avx512) -> Avx512 {
            unsafe { rough_sigmoid(x) }
        }
    }
}

/// The nearest `bfloat16`, ties to the even one; not a number stays so.
#[inline(always)]
pub(crate) fn bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// Two channels in four bytes.
pub(crate) fn pair(first: f32, second: f32) -> f32 {
    f32::from_bits(u32::from(bf16(first)) | u32::from(bf16(second)) << 16)
}
