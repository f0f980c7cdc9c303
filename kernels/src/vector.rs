//! Sixteen single-precision lanes, under every instruction set.
//!
//! The kernels are written once over [`Vector`] and compiled once per instruction set: each is `#[inline(always)]` and
//! called from a function with the matching `#[target_feature]`.

/// Sixteen lanes of `f32`.
///
/// # Safety
/// Every method must run on a machine with the implementor's instruction set; `load` and `store` reach sixteen floats,
/// at a multiple of 64 bytes.
pub(crate) trait Vector: Copy {
    /// Pixels of a register tile.
    const PIXELS: usize;
    /// Blocks of sixteen output channels of a register tile.
    const BLOCKS: usize;

    unsafe fn splat(value: f32) -> Self;
    /// From any sixteen floats.
    #[inline(always)]
    unsafe fn load_unaligned(from: &[f32]) -> Self {
        let mut lanes = crate::map::Lanes([0.0; 16]);
        lanes.0.copy_from_slice(from);
        // SAFETY: sixteen aligned floats.
        unsafe { Self::load(lanes.0.as_ptr()) }
    }
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// `self * factor + addend`.
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// `other` where one of the two is not a number.
    unsafe fn min(self, other: Self) -> Self;
    /// `other` where one of the two is not a number.
    unsafe fn max(self, other: Self) -> Self;
    /// To the nearest integer, of numbers between −2²² and 2²².
    unsafe fn round(self) -> Self;
    /// `2^self` of integers between −126 and 127.
    unsafe fn exp2_of_integer(self) -> Self;
    /// `self · 2^exponent` for integers between −126 and 127.
    #[inline(always)]
    unsafe fn scale(self, exponent: Self) -> Self {
        // SAFETY: passed on.
        unsafe { self.mul(exponent.exp2_of_integer()) }
    }
    /// Writes sixteen `bfloat16`, rounded to the nearest, at a multiple of 32 bytes.
    unsafe fn store_bf16(self, to: *mut u16);
    /// Sixteen `bfloat16` at a multiple of 32 bytes.
    unsafe fn load_bf16(from: *const u16) -> Self;
    /// Hints that the cache line at an address, which need not exist, will be read soon.
    #[inline(always)]
    unsafe fn prefetch(_from: *const f32) {}
    /// The first and the second `bfloat16` of the pair in each lane.
    unsafe fn widen(self) -> (Self, Self);
}

/// `e^x`, relative error below 2e-7 on [−87, 87], clamped outside; not a number for what is none.
///
/// Cody–Waite reduction to `|r| ≤ ln 2 / 2`, then the Taylor polynomial of degree 7, whose remainder there is 2e-8
/// (`r⁸/8!`).
#[inline(always)]
pub(crate) unsafe fn exp<V: Vector>(x: V) -> V {
    // SAFETY: the caller has V's instruction set; no memory is touched.
    unsafe {
        // In this order: the bounds return their second argument where one is not a number.
        let x = V::splat(-87.0).max(V::splat(87.0).min(x));
        let n = x.mul(V::splat(std::f32::consts::LOG2_E)).round();
        // ln 2 in two parts, the first with few bits so that n times it is exact.
        let r = n.mul_add(V::splat(-0.693_359_4), x);
        let r = n.mul_add(V::splat(2.121_944_4e-4), r);
        let mut p = V::splat(1.0 / 5040.0);
        for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = p.mul_add(r, V::splat(c));
        }
        p.scale(n)
    }
}

/// `1 / (1 + e^−x)`.
#[inline(always)]
pub(crate) unsafe fn sigmoid<V: Vector>(x: V) -> V {
    // SAFETY: the caller has V's instruction set; no memory is touched.
    unsafe {
        let one = V::splat(1.0);
        one.div(one.add(exp(V::splat(0.0).sub(x))))
    }
}

/// `1 / (1 + e^−x)`, relative error below 1e-4 on [−80, 80]: enough for what is rounded to `bfloat16` next.
///
/// `2^t` for `t = −x log₂ e`: the integer part exactly, the rest in [−1/2, 1/2] by the Taylor polynomial of degree 4,
/// whose remainder is `(ln 2 / 2)⁵/5!` = 4e-5.
#[inline(always)]
pub(crate) unsafe fn rough_sigmoid<V: Vector>(x: V) -> V {
    // SAFETY: the caller has V's instruction set; no memory is touched.
    unsafe {
        let one = V::splat(1.0);
        let t = x.mul(V::splat(-std::f32::consts::LOG2_E));
        let t = V::splat(-126.0).max(V::splat(126.0).min(t));
        let n = t.round();
        let r = t.sub(n);
        let mut p = V::splat(9.618_129e-3);
        for c in [5.550_411e-2, 2.402_265e-1, 6.931_472e-1, 1.0] {
            p = p.mul_add(r, V::splat(c));
        }
        one.div(p.scale(n).add(one))
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) use Plain as Portable;
/// Lanes of what every processor of the target has.
///
/// On x86-64 in so many words: of plain arrays LLVM gathers other lanes into a register than those that lie side by side,
/// and spends half of a tile's time on bringing them together.
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::Sse2 as Portable;

/// Plain arrays, for any target; the loops are written so that the compiler vectorises them.
#[cfg(any(test, not(target_arch = "x86_64")))]
#[derive(Clone, Copy)]
pub(crate) struct Plain([f32; 16]);

#[cfg(any(test, not(target_arch = "x86_64")))]
impl Plain {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut out = self.0;
        for (a, b) in out.iter_mut().zip(other.0) {
            *a = f(*a, b);
        }
        Self(out)
    }
}

#[cfg(any(test, not(target_arch = "x86_64")))]
impl Vector for Plain {
    // 24 accumulators of four lanes, 4 weights, 1 broadcast: 29 of the 32 registers of aarch64.
    const PIXELS: usize = if cfg!(target_arch = "aarch64") { 6 } else { 2 };
    const BLOCKS: usize = 1;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 16])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for sixteen floats.
        Self(unsafe { from.cast::<[f32; 16]>().read() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller vouches for sixteen floats.
        unsafe { to.cast::<[f32; 16]>().write(self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
        let mut out = self.0;
        for ((a, b), c) in out.iter_mut().zip(factor.0).zip(addend.0) {
            // `f32::mul_add` is a call of the C library where no processor of the target has to have the instruction.
            *a = if cfg!(target_arch = "aarch64") { a.mul_add(b, c) } else { *a * b + c };
        }
        Self(out)
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        // Adding and subtracting 1.5 · 2²³ rounds to nearest for |x| < 2²²; the arguments here are below 127.
        self.zip(self, |a, _| (a + 12_582_912.0) - 12_582_912.0)
    }
    #[inline(always)]
    unsafe fn exp2_of_integer(self) -> Self {
        self.zip(self, |a, _| f32::from_bits((((a as i32) + 127) as u32) << 23))
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut u16) {
        // SAFETY: the caller vouches for sixteen numbers.
        unsafe { to.cast::<[u16; 16]>().write(self.0.map(crate::operand::bf16)) }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> Self {
        // SAFETY: the caller vouches for sixteen numbers.
        Self(unsafe { from.cast::<[u16; 16]>().read() }.map(|bits| f32::from_bits(u32::from(bits) << 16)))
    }
    #[inline(always)]
    unsafe fn widen(self) -> (Self, Self) {
        (
            self.zip(self, |a, _| f32::from_bits(a.to_bits() << 16)),
            self.zip(self, |a, _| f32::from_bits(a.to_bits() & 0xffff_0000)),
        )
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Vector;
    use std::arch::x86_64::*;

    /// One register of AVX-512F.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(pub(crate) __m512);

    // SAFETY of every method: the caller has AVX-512F; pointers reach sixteen floats, 64-byte aligned.
    impl Vector for Avx512 {
        // 24 accumulators, 2 weights, and registers to spare for the broadcasts.
        const PIXELS: usize = 12;
        const BLOCKS: usize = 2;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            Self(unsafe { _mm512_set1_ps(value) })
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            Self(unsafe { _mm512_load_ps(from) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm512_store_ps(to, self.0) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            Self(unsafe { _mm512_add_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            Self(unsafe { _mm512_sub_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            Self(unsafe { _mm512_mul_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn div(self, other: Self) -> Self {
            Self(unsafe { _mm512_div_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
            Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, addend.0) })
        }
        #[inline(always)]
        unsafe fn min(self, other: Self) -> Self {
            Self(unsafe { _mm512_min_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            Self(unsafe { _mm512_max_ps(self.0, other.0) })
        }
        #[inline(always)]
        unsafe fn round(self) -> Self {
            Self(unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
        }
        #[inline(always)]
        unsafe fn exp2_of_integer(self) -> Self {
            unsafe {
                let n = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(127));
                Self(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(n)))
            }
        }
        #[inline(always)]
        unsafe fn scale(self, exponent: Self) -> Self {
            Self(unsafe { _mm512_scalef_ps(self.0, exponent.0) })
        }
        #[inline(always)]
        unsafe fn store_bf16(self, to: *mut u16) {
            unsafe {
                let bits = _mm512_castps_si512(self.0);
                let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
                let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
                let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x40_0000));
                let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0);
                let kept = _mm512_srli_epi32::<16>(_mm512_mask_mov_epi32(rounded, nan, quiet));
                _mm256_store_si256(to.cast(), _mm512_cvtepi32_epi16(kept));
            }
        }
        #[inline(always)]
        unsafe fn prefetch(from: *const f32) {
            unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
        }
        #[inline(always)]
        unsafe fn load_bf16(from: *const u16) -> Self {
            unsafe {
                let bits = _mm512_cvtepu16_epi32(_mm256_load_si256(from.cast()));
                Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits)))
            }
        }
        #[inline(always)]
        unsafe fn widen(self) -> (Self, Self) {
            unsafe {
                let bits = _mm512_castps_si512(self.0);
                let second = _mm512_and_si512(bits, _mm512_set1_epi32(0xffff_0000_u32 as i32));
                (Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))), Self(_mm512_castsi512_ps(second)))
            }
        }
    }

    /// The nearest `bfloat16`s, in the low halves of the lanes.
    #[inline(always)]
    unsafe fn rounded_to_bf16(x: __m256) -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe {
            let bits = _mm256_castps_si256(x);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(x, x));
            _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan))
        }
    }

    /// Four registers of SSE2, which every x86-64 has.
    #[derive(Clone, Copy)]
    pub(crate) struct Sse2([__m128; 4]);

    impl Sse2 {
        #[inline(always)]
        fn each(f: impl Fn(usize) -> __m128) -> Self {
            Self([f(0), f(1), f(2), f(3)])
        }
    }

    // SAFETY of every method: SSE2 belongs to the target; pointers reach sixteen floats, 16-byte aligned.
    impl Vector for Sse2 {
        // 8 accumulators, 4 weights, the broadcast and the product of the two: 14 of the 16 registers.
        const PIXELS: usize = 2;
        const BLOCKS: usize = 1;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            Self([unsafe { _mm_set1_ps(value) }; 4])
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            Self::each(|i| unsafe { _mm_load_ps(from.add(4 * i)) })
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            for (i, lanes) in self.0.into_iter().enumerate() {
                unsafe { _mm_store_ps(to.add(4 * i), lanes) }
            }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            Self::each(|i| unsafe { _mm_add_ps(self.0[i], other.0[i]) })
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            Self::each(|i| unsafe { _mm_sub_ps(self.0[i], other.0[i]) })
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            Self::each(|i| unsafe { _mm_mul_ps(self.0[i], other.0[i]) })
        }
        #[inline(always)]
        unsafe fn div(self, other: Self) -> Self {
            Self::each(|i| unsafe { _mm_div_ps(self.0[i], other.0[i]) })
        }
        #[inline(always)]
        unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
            Self::each(|i| unsafe { _mm_add_ps(_mm_mul_ps(self.0[i], factor.0[i]), addend.0[i]) })
        }
        #[inline(always)]
        unsafe fn min(self, other: Self) -> Self {
            Self::each(|i| unsafe { _mm_min_ps(self.0[i], other.0[i]) })
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            Self::each(|i| unsafe { _mm_max_ps(self.0[i], other.0[i]) })
        }
        #[inline(always)]
        unsafe fn round(self) -> Self {
            // Adding and subtracting 1.5 · 2²³ rounds to nearest for |x| < 2²²; the instruction came with SSE4.1.
            unsafe {
                let large = Self::splat(12_582_912.0);
                self.add(large).sub(large)
            }
        }
        #[inline(always)]
        unsafe fn exp2_of_integer(self) -> Self {
            Self::each(|i| unsafe {
                let n = _mm_add_epi32(_mm_cvtps_epi32(self.0[i]), _mm_set1_epi32(127));
                _mm_castsi128_ps(_mm_slli_epi32::<23>(n))
            })
        }
        #[inline(always)]
        unsafe fn store_bf16(self, to: *mut u16) {
            let rounded = |i: usize| unsafe {
                let bits = _mm_castps_si128(self.0[i]);
                let odd = _mm_and_si128(_mm_srli_epi32::<16>(bits), _mm_set1_epi32(1));
                let rounded = _mm_add_epi32(bits, _mm_add_epi32(odd, _mm_set1_epi32(0x7fff)));
                let quiet = _mm_or_si128(bits, _mm_set1_epi32(0x40_0000));
                let nan = _mm_castps_si128(_mm_cmpunord_ps(self.0[i], self.0[i]));
                let kept = _mm_or_si128(_mm_and_si128(nan, quiet), _mm_andnot_si128(nan, rounded));
                // With its sign, so that nothing is saturated when it is packed.
                _mm_srai_epi32::<16>(kept)
            };
            unsafe {
                _mm_store_si128(to.cast(), _mm_packs_epi32(rounded(0), rounded(1)));
                _mm_store_si128(to.add(8).cast(), _mm_packs_epi32(rounded(2), rounded(3)));
            }
        }
        #[inline(always)]
        unsafe fn load_bf16(from: *const u16) -> Self {
            unsafe {
                let zero = _mm_setzero_si128();
                let (a, b) = (_mm_load_si128(from.cast()), _mm_load_si128(from.add(8).cast()));
                let parts = [_mm_unpacklo_epi16(zero, a), _mm_unpackhi_epi16(zero, a)];
                let more = [_mm_unpacklo_epi16(zero, b), _mm_unpackhi_epi16(zero, b)];
                Self([parts[0], parts[1], more[0], more[1]].map(|part| _mm_castsi128_ps(part)))
            }
        }
        #[inline(always)]
        unsafe fn widen(self) -> (Self, Self) {
            let first = |i: usize| unsafe { _mm_castsi128_ps(_mm_slli_epi32::<16>(_mm_castps_si128(self.0[i]))) };
            let mask = unsafe { _mm_castsi128_ps(_mm_set1_epi32(0xffff_0000_u32 as i32)) };
            (Self::each(first), Self::each(|i| unsafe { _mm_and_ps(self.0[i], mask) }))
        }
    }

    /// Two registers of AVX2.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(__m256, __m256);

    // SAFETY of every method: the caller has AVX2 and FMA; pointers reach sixteen floats, 32-byte aligned.
    impl Vector for Avx2 {
        // 12 accumulators, 2 weights, 1 broadcast: 15 of the 16 registers.
        const PIXELS: usize = 6;
        const BLOCKS: usize = 1;

        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            let v = unsafe { _mm256_set1_ps(value) };
            Self(v, v)
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { Self(_mm256_load_ps(from), _mm256_load_ps(from.add(8))) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe {
                _mm256_store_ps(to, self.0);
                _mm256_store_ps(to.add(8), self.1);
            }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            unsafe { Self(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            unsafe { Self(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)) }
        }
        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            unsafe { Self(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
        }
        #[inline(always)]
        unsafe fn div(self, other: Self) -> Self {
            unsafe { Self(_mm256_div_ps(self.0, other.0), _mm256_div_ps(self.1, other.1)) }
        }
        #[inline(always)]
        unsafe fn mul_add(self, factor: Self, addend: Self) -> Self {
            unsafe { Self(_mm256_fmadd_ps(self.0, factor.0, addend.0), _mm256_fmadd_ps(self.1, factor.1, addend.1)) }
        }
        #[inline(always)]
        unsafe fn min(self, other: Self) -> Self {
            unsafe { Self(_mm256_min_ps(self.0, other.0), _mm256_min_ps(self.1, other.1)) }
        }
        #[inline(always)]
        unsafe fn max(self, other: Self) -> Self {
            unsafe { Self(_mm256_max_ps(self.0, other.0), _mm256_max_ps(self.1, other.1)) }
        }
        #[inline(always)]
        unsafe fn round(self) -> Self {
            unsafe {
                Self(
                    _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0),
                    _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.1),
                )
            }
        }
        #[inline(always)]
        unsafe fn exp2_of_integer(self) -> Self {
            unsafe {
                let bias = _mm256_set1_epi32(127);
                let a = _mm256_add_epi32(_mm256_cvtps_epi32(self.0), bias);
                let b = _mm256_add_epi32(_mm256_cvtps_epi32(self.1), bias);
                Self(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(a)), _mm256_castsi256_ps(_mm256_slli_epi32::<23>(b)))
            }
        }
        #[inline(always)]
        unsafe fn store_bf16(self, to: *mut u16) {
            unsafe {
                // Packs within halves: 0–3 and 8–11, then 4–7 and 12–15.
                let packed = _mm256_packus_epi32(rounded_to_bf16(self.0), rounded_to_bf16(self.1));
                _mm256_store_si256(to.cast(), _mm256_permute4x64_epi64::<0b11_01_10_00>(packed));
            }
        }
        #[inline(always)]
        unsafe fn prefetch(from: *const f32) {
            unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
        }
        #[inline(always)]
        unsafe fn load_bf16(from: *const u16) -> Self {
            unsafe {
                let a = _mm256_cvtepu16_epi32(_mm_load_si128(from.cast()));
                let b = _mm256_cvtepu16_epi32(_mm_load_si128(from.add(8).cast()));
                Self(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(a)), _mm256_castsi256_ps(_mm256_slli_epi32::<16>(b)))
            }
        }
        #[inline(always)]
        unsafe fn widen(self) -> (Self, Self) {
            unsafe {
                let a = _mm256_slli_epi32::<16>(_mm256_castps_si256(self.0));
                let b = _mm256_slli_epi32::<16>(_mm256_castps_si256(self.1));
                let mask = _mm256_castsi256_ps(_mm256_set1_epi32(0xffff_0000_u32 as i32));
                let second = Self(_mm256_and_ps(self.0, mask), _mm256_and_ps(self.1, mask));
                (Self(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b)), second)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::InstructionSet;
    use crate::map::Lanes;

    type Function = unsafe fn(&mut Lanes);

    /// A function of sixteen lanes under every instruction set of the machine.
    macro_rules! under_every_set {
        ($name:ident, $x:ident => $result:expr) => {
            fn $name() -> Vec<(InstructionSet, Function)> {
                #[inline(always)]
                unsafe fn generic<V: Vector>(lanes: &mut Lanes) {
                    // SAFETY: the caller has V's instruction set; sixteen aligned lanes.
                    unsafe {
                        let $x = V::load(lanes.0.as_ptr());
                        $result.store(lanes.0.as_mut_ptr());
                    }
                }
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx2,fma")]
                unsafe fn avx2(lanes: &mut Lanes) {
                    // SAFETY: passed on.
                    unsafe { generic::<Avx2>(lanes) }
                }
                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx512f")]
                unsafe fn avx512(lanes: &mut Lanes) {
                    // SAFETY: passed on.
                    unsafe { generic::<Avx512>(lanes) }
                }
                // Plain arrays are tested on every machine, under the name of the portable set.
                let plain = (InstructionSet::Portable, generic::<Plain> as Function);
                let function = |isa| match isa {
                    #[cfg(target_arch = "x86_64")]
                    InstructionSet::Avx2 => avx2 as Function,
                    #[cfg(target_arch = "x86_64")]
                    InstructionSet::Avx512 | InstructionSet::Avx512Bf16 | InstructionSet::Amx => avx512 as Function,
                    _ => generic::<Portable> as Function,
                };
                InstructionSet::available().into_iter().map(|isa| (isa, function(isa))).chain([plain]).collect()
            }
        };
    }
    under_every_set!(exps, x => exp(x));
    under_every_set!(sigmoids, x => sigmoid(x));
    under_every_set!(silus, x => x.mul(sigmoid(x)));
    under_every_set!(rough_sigmoids, x => rough_sigmoid(x));

    fn apply(function: Function, xs: &[f32]) -> Vec<f32> {
        let mut out = Vec::new();
        for chunk in xs.chunks(16) {
            let mut lanes = Lanes([0.0; 16]);
            lanes.0[..chunk.len()].copy_from_slice(chunk);
            // SAFETY: the instruction set was detected.
            unsafe { function(&mut lanes) };
            out.extend_from_slice(&lanes.0[..chunk.len()]);
        }
        out
    }

    /// From −87 to 87, both and zero among them, and the small numbers around zero.
    fn grid() -> Vec<f32> {
        let mut grid: Vec<f32> = (-870_000..=870_000).map(|i| i as f32 / 10_000.0).collect();
        grid.extend((0..149).flat_map(|i| [2_f32.powi(-i), -(2_f32.powi(-i))]));
        grid.extend([0.0, -0.0, 87.0, -87.0]);
        grid
    }

    #[test]
    fn exp_is_off_by_less_than_two_in_ten_million() {
        let grid = grid();
        for (isa, exp) in exps() {
            for (x, y) in grid.iter().zip(apply(exp, &grid)) {
                let exact = f64::from(*x).exp();
                let error = (f64::from(y) / exact - 1.0).abs();
                assert!(error < 2e-7, "exp({x}) = {y} on {isa}: {error:.2e}");
            }
        }
    }

    #[test]
    fn exp_is_held_at_both_ends() {
        let beyond = [88.0, 89.0, 1e10, f32::MAX, f32::INFINITY];
        for (isa, exp) in exps() {
            let ends = apply(exp, &[87.0, -87.0]);
            assert!(ends[1].is_normal(), "no denormal result on {isa}");
            for x in beyond {
                assert_eq!(apply(exp, &[x, -x]), ends, "±{x} on {isa}");
            }
        }
    }

    #[test]
    fn sigmoid_and_silu_agree_with_double_precision() {
        let grid = grid();
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        // Two roundings beside those of the exponential, and a third for the product.
        for (isa, function) in sigmoids() {
            for (x, y) in grid.iter().zip(apply(function, &grid)) {
                let error = (f64::from(y) / sigmoid(f64::from(*x)) - 1.0).abs();
                assert!(error < 3.2e-7, "sigmoid({x}) = {y} on {isa}: {error:.2e}");
            }
        }
        for (isa, function) in silus() {
            for (x, y) in grid.iter().zip(apply(function, &grid)) {
                let exact = f64::from(*x) * sigmoid(f64::from(*x));
                // Below the normal numbers an absolute error of half the smallest one is all that can be had.
                let bound = 4e-7 * exact.abs() + f64::from(f32::from_bits(1));
                assert!((f64::from(y) - exact).abs() <= bound, "silu({x}) = {y} on {isa}, exactly {exact}");
            }
        }
    }

    #[test]
    fn the_rough_sigmoid_is_off_by_less_than_one_in_ten_thousand() {
        let grid: Vec<f32> = grid().into_iter().filter(|x| x.abs() <= 80.0).collect();
        for (isa, function) in rough_sigmoids() {
            for (x, y) in grid.iter().zip(apply(function, &grid)) {
                let error = (f64::from(y) * (1.0 + (-f64::from(*x)).exp()) - 1.0).abs();
                assert!(error < 1e-4, "sigmoid({x}) = {y} on {isa}: {error:.2e}");
            }
            let ends = apply(function, &[1e10, f32::MAX, -1e10, -f32::MAX]);
            assert!(ends[..2] == [1.0, 1.0] && ends[2..].iter().all(|y| *y < 1e-37), "{ends:?} on {isa}");
            assert!(apply(function, &[f32::NAN])[0].is_nan(), "{isa}");
        }
    }

    /// Every set rounds and widens as the plain function says, in the same places.
    #[test]
    fn bfloat16_is_written_and_read_in_order_and_to_the_nearest() {
        under_every_set!(rounded, x => {
            let mut bits = Aligned([0_u16; 16]);
            x.store_bf16(bits.0.as_mut_ptr());
            V::load_bf16(bits.0.as_ptr())
        });
        under_every_set!(first_of_pairs, x => x.widen().0);
        under_every_set!(second_of_pairs, x => x.widen().1);
        // Ties in both directions and their neighbours, the largest numbers, subnormal ones.
        let mut xs: Vec<f32> =
            (0..512).flat_map(|i| (-1..=1).map(move |d| 0x3f80_8000 + (i << 16) + d)).map(f32_of).collect();
        xs.extend([0.0, -0.0, 1e-40, f32::MIN_POSITIVE, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, -1.0, -2.5]);
        let widened = |x: f32| f32::from_bits(u32::from(crate::operand::bf16(x)) << 16);
        for (isa, function) in rounded() {
            for (x, y) in xs.iter().zip(apply(function, &xs)) {
                assert_eq!(y.to_bits(), widened(*x).to_bits(), "{x} on {isa}");
            }
            assert!(apply(function, &[1.0, f32::NAN])[1].is_nan(), "{isa}");
        }
        let pairs: Vec<f32> = xs.chunks_exact(2).map(|x| crate::operand::pair(x[0], x[1])).collect();
        for (functions, which) in [(first_of_pairs(), 0), (second_of_pairs(), 1)] {
            for (isa, function) in functions {
                for (x, y) in xs.chunks_exact(2).zip(apply(function, &pairs)) {
                    assert_eq!(y.to_bits(), widened(x[which]).to_bits(), "{x:?} on {isa}");
                }
            }
        }
    }

    #[repr(align(32))]
    struct Aligned([u16; 16]);

    fn f32_of(bits: i32) -> f32 {
        f32::from_bits(bits as u32)
    }

    #[test]
    fn silu_of_large_numbers_is_themselves_or_nothing() {
        for (isa, silu) in silus() {
            for x in [100.0, 1e10, f32::MAX, f32::INFINITY] {
                assert_eq!(apply(silu, &[x]), [x], "{isa}");
            }
            // 1e-38 is the least that the sigmoid gets to.
            assert!(apply(silu, &[-100.0, -1e10]).iter().all(|y| y.abs() < 1e-27), "{isa}");
        }
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        for functions in [exps(), sigmoids(), silus()] {
            for (isa, function) in functions {
                // Between numbers: no lane takes another's.
                let y = apply(function, &[1.0, f32::NAN, 2.0, -f32::NAN]);
                assert_eq!(y.iter().map(|y| y.is_nan()).collect::<Vec<_>>(), [false, true, false, true], "{isa}");
            }
        }
    }

    #[test]
    fn rounding_goes_to_the_nearest_integer_and_ties_to_the_even_one() {
        under_every_set!(rounds, x => x.round());
        let grid: Vec<f32> = (-1280..=1280).map(|i| i as f32 / 10.0).chain([0.5, 1.5, 2.5, -0.5, -1.5]).collect();
        for (isa, round) in rounds() {
            for (x, y) in grid.iter().zip(apply(round, &grid)) {
                assert_eq!(y, x.round_ties_even(), "{x} on {isa}");
            }
        }
    }
}
