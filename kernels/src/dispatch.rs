//! One generic kernel, compiled for every instruction set and precision.

/// The instance of `$kernel<V: Vector, M: Operand<V>>` for an instruction set and a precision, as a function pointer.
///
/// On x86-64 every combination is named, so that a new instruction set cannot fall back to the portable one unnoticed.
macro_rules! compiled {
    ($kernel:ident, fn($($name:ident: $type:ty),*), $isa:expr, $precision:expr) => {{
        use $crate::isa::InstructionSet::*;
        use $crate::operand::{Single, WidenedPair};
        use $crate::precision::Precision::{Bf16, F32};
        use $crate::vector::Portable as Plain;
        #[cfg(target_arch = "x86_64")]
        use $crate::{operand::DotPair, vector};
        $crate::dispatch::compiled!(@instance avx2, "avx2,fma", vector::Avx2, Single, $kernel, $($name: $type),*);
        $crate::dispatch::compiled!(@instance avx2_bf16, "avx2,fma", vector::Avx2, WidenedPair, $kernel, $($name: $type),*);
        $crate::dispatch::compiled!(@instance avx512, "avx512f", vector::Avx512, Single, $kernel, $($name: $type),*);
        $crate::dispatch::compiled!(@instance avx512_widened, "avx512f", vector::Avx512, WidenedPair, $kernel, $($name: $type),*);
        $crate::dispatch::compiled!(@instance avx512_bf16, "avx512f,avx512bf16", vector::Avx512, DotPair, $kernel, $($name: $type),*);
        let function: unsafe fn($($type),*) = match ($isa, $precision) {
            (Portable, F32) => $kernel::<Plain, Single>,
            (Portable, Bf16) => $kernel::<Plain, WidenedPair>,
            #[cfg(target_arch = "x86_64")]
            (Avx2, F32) => avx2,
            #[cfg(target_arch = "x86_64")]
            (Avx2, Bf16) => avx2_bf16,
            #[cfg(target_arch = "x86_64")]
            (Avx512 | Avx512Bf16 | Amx, F32) => avx512,
            #[cfg(target_arch = "x86_64")]
            (Avx512, Bf16) => avx512_widened,
            #[cfg(target_arch = "x86_64")]
            (Avx512Bf16 | Amx, Bf16) => avx512_bf16,
            #[cfg(not(target_arch = "x86_64"))]
            (isa, _) => unreachable!("{isa} on a processor that is not x86-64"),
        };
        function
    }};
    (@instance $function:ident, $features:literal, $vector:ty, $operand:ty, $kernel:ident, $($name:ident: $type:ty),*) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        unsafe fn $function($($name: $type),*) {
            // SAFETY: passed on.
            unsafe { $kernel::<$vector, $operand>($($name),*) }
        }
    };
}
pub(crate) use compiled;
