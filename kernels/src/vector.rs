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
        p.mul(n.exp2_of_integer())
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

/// Plain arrays, for any target; the loops are written so that the compiler vectorises them.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; 16]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        let mut out = self.0;
        for (a, b) in out.iter_mut().zip(other.0) {
            *a = f(*a, b);
        }
        Self(out)
    }
}

impl Vector for Portable {
    const PIXELS: usize = 2;
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
        // Not `f32::mul_add`: without an FMA instruction that is a call of the C library.
        let mut out = self.0;
        for ((a, b), c) in out.iter_mut().zip(factor.0).zip(addend.0) {
            *a = *a * b + c;
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
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Vector;
    use std::arch::x86_64::*;

    /// One register of AVX-512F.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(__m512);

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
    }
}
