//! What the machine can do at best: the two rates that no network gets past.
//!
//! Both are measured on threads of their own, which begin together; the result is the best of several rounds, because
//! everything else that runs on a machine only ever takes away from it.

use crate::isa::{InstructionSet, InstructionSetError};
use crate::precision::Precision;
#[cfg(target_arch = "x86_64")]
use crate::vector::{Avx2, Avx512};
use crate::vector::{Portable, Vector};
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Rounds of which the best counts.
const ROUNDS: usize = 30;

/// Shortest time of a round: a hundred times what it takes to begin and to end it together, and short enough that some
/// rounds pass without another process on the same cores.
const ROUND: Duration = Duration::from_millis(5);

/// Bytes of the array that is copied, and of the one that it is copied to: several times the largest caches.
const COPIED_BYTES: usize = 128 << 20;

/// Multiplications and additions per second of `threads` threads whose numbers never leave the registers: the loop inside
/// of a matrix product, without its memory.
///
/// `Bf16` is the rate of products of pairs of `bfloat16` summed in single precision where `isa` has them; elsewhere such
/// products are taken in single precision, and so is the rate.
///
/// # Errors
/// `Unavailable` if this machine cannot run `isa`.
pub fn peak_operations(isa: InstructionSet, precision: Precision, threads: usize) -> Result<f64, InstructionSetError> {
    Ok(operation_rate(isa.on_this_machine()?, precision, threads, ROUND))
}

/// `isa` has to be one of this machine; a round takes at least `shortest`.
fn operation_rate(isa: InstructionSet, precision: Precision, threads: usize, shortest: Duration) -> f64 {
    let lap = move |iterations| match (isa, precision) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the instruction set is there.
        (InstructionSet::Amx, Precision::Bf16) => unsafe { x86::amx_lap(iterations) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the instruction set is there.
        (InstructionSet::Avx512Bf16, Precision::Bf16) => unsafe { x86::bf16_lap(iterations) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the instruction set is there.
        (InstructionSet::Avx512 | InstructionSet::Avx512Bf16 | InstructionSet::Amx, _) => unsafe {
            x86::avx512_lap(iterations)
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the instruction set is there.
        (InstructionSet::Avx2, _) => unsafe { x86::avx2_lap(iterations) },
        // SAFETY: every machine has it.
        _ => unsafe { f32_lap::<Portable, 3>(iterations) },
    };
    // As many iterations as fill a round.
    let mut iterations = 1 << 12;
    loop {
        let start = Instant::now();
        lap(iterations);
        if start.elapsed() >= shortest {
            break;
        }
        iterations *= 2;
    }
    let work = || ((), move |(): &mut ()| lap(iterations));
    best_rate(threads, &work)
}

/// Bytes per second that `threads` threads read and write together when they copy memory.
pub fn copy_bandwidth(threads: usize) -> f64 {
    copy_rate(threads, COPIED_BYTES)
}

fn copy_rate(threads: usize, bytes: usize) -> f64 {
    let work = || {
        // Written once, so that the system has given the memory before it is copied, to the thread that copies it.
        let arrays = (vec![1_u8; bytes / threads.max(1)], vec![2_u8; bytes / threads.max(1)]);
        let copy = |(from, to): &mut (Vec<u8>, Vec<u8>)| {
            to.copy_from_slice(from);
            black_box(&mut *to);
            2.0 * from.len() as f64
        };
        (arrays, copy)
    };
    best_rate(threads, &work)
}

/// The highest of several rates of `threads` threads working at the same time. `work` makes a thread's state, and what it
/// does in a round, which returns how much that was.
fn best_rate<S, F: FnMut(&mut S) -> f64>(threads: usize, work: &(impl Fn() -> (S, F) + Sync)) -> f64 {
    let threads = threads.max(1);
    let barrier = Barrier::new(threads);
    let run = || {
        let (mut state, mut lap) = work();
        let laps = (0..ROUNDS).map(|_| {
            barrier.wait();
            let start = Instant::now();
            let amount = lap(&mut state);
            // The round is over when the last thread is.
            barrier.wait();
            (amount, start.elapsed().as_secs_f64())
        });
        laps.collect::<Vec<_>>()
    };
    let laps: Vec<Vec<(f64, f64)>> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        handles.into_iter().map(|handle| handle.join().expect("counting does not panic")).collect()
    });
    let rate = |round: usize| {
        let of_round = || laps.iter().filter_map(|laps| laps.get(round));
        let seconds = of_round().map(|lap| lap.1).fold(0.0, f64::max);
        of_round().map(|lap| lap.0).sum::<f64>() / seconds
    };
    (0..ROUNDS).map(rate).fold(0.0, f64::max)
}

/// `N` chains `a ↦ a·f + s` of sixteen lanes, more than the processor needs at once to hide how long one takes, and few
/// enough for its registers.
///
/// # Safety
/// V's instruction set is there.
#[inline(always)]
unsafe fn f32_lap<V: Vector, const N: usize>(iterations: usize) -> f64 {
    // SAFETY: passed on; the lanes are sixteen and aligned.
    unsafe {
        // Unknown to the compiler; towards 2, neither overflowing nor denormal.
        let (factor, summand) = (V::splat(black_box(0.75)), V::splat(black_box(0.5)));
        let mut chains = [factor; N];
        for (k, chain) in chains.iter_mut().enumerate() {
            *chain = V::splat(black_box(k as f32));
        }
        for _ in 0..iterations {
            for _ in 0..UNROLLED {
                for chain in &mut chains {
                    *chain = chain.mul_add(factor, summand);
                }
            }
        }
        let sum = chains.into_iter().fold(V::splat(0.0), |sum, chain| sum.add(chain));
        let mut lanes = crate::map::Lanes([0.0; 16]);
        sum.store(lanes.0.as_mut_ptr());
        black_box(lanes);
    }
    (iterations * UNROLLED * N * 16 * 2) as f64
}

/// Rounds of the chains between two looks at the counter.
const UNROLLED: usize = 4;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Avx2, Avx512, UNROLLED, black_box, f32_lap};
    use crate::amx;
    use crate::correlation::Term;
    use crate::map::Lanes;
    use std::arch::x86_64::{__m512, __m512bh, _mm512_add_ps, _mm512_dpbf16_ps, _mm512_set1_epi32, _mm512_set1_ps};

    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn avx512_lap(iterations: usize) -> f64 {
        // SAFETY: passed on.
        unsafe { f32_lap::<Avx512, 16>(iterations) }
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn avx2_lap(iterations: usize) -> f64 {
        // SAFETY: passed on.
        unsafe { f32_lap::<Avx2, 6>(iterations) }
    }

    /// Sums of products of the same matrices, 32 × 32 each: tiles come from the nearest cache, as only the sums fit into
    /// the registers.
    ///
    /// # Safety
    /// The machine has AMX-BF16, the process the permission.
    pub(super) unsafe fn amx_lap(iterations: usize) -> f64 {
        const SIDE: usize = 32;
        const TERMS: usize = 64;
        // 2⁻¹³ in pairs, as below.
        let matrix = [Lanes([f32::from_bits(black_box(0x3900_3900)); 16]); SIDE];
        let mut sums = [Lanes([0.0; 16]); 2 * SIDE];
        let from: *const f32 = matrix.as_ptr().cast();
        let terms = [Term { pixels: from, weights: from, values: 16 }; TERMS];
        let laps = iterations.div_ceil(TERMS);
        // SAFETY: the instruction set is there; 32 pixels, 16 pairs of rows of two blocks, and room for 32 × 2 blocks.
        unsafe {
            let _tiles = amx::Tiles::new();
            for _ in 0..laps {
                amx::products::<2>(&terms, 0, 16, SIDE, sums.as_mut_ptr().cast());
            }
        }
        black_box(sums);
        (laps * TERMS * SIDE * SIDE * SIDE * 2) as f64
    }

    /// Sixteen chains `s ↦ s + Σ a b`, pairs of `bfloat16` in each of sixteen lanes.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) unsafe fn bf16_lap(iterations: usize) -> f64 {
        const CHAINS: usize = 16;
        // 2⁻¹³, twice in each lane: the sums stay small.
        let pair = _mm512_set1_epi32(black_box(0x3900_3900));
        // SAFETY: both are 512 bits, and any bits are a vector of bfloat16.
        let pair: __m512bh = unsafe { std::mem::transmute(pair) };
        let mut chains = [_mm512_set1_ps(0.0); CHAINS];
        for (k, chain) in chains.iter_mut().enumerate() {
            *chain = _mm512_set1_ps(black_box(k as f32));
        }
        for _ in 0..iterations {
            for _ in 0..UNROLLED {
                for chain in &mut chains {
                    *chain = _mm512_dpbf16_ps(*chain, pair, pair);
                }
            }
        }
        let sum = chains.into_iter().fold(_mm512_set1_ps(0.0), |sum: __m512, chain| _mm512_add_ps(sum, chain));
        black_box(sum);
        (iterations * UNROLLED * CHAINS * 16 * 4) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No statement about speed: that the loops run, end, and count what they do.
    #[test]
    fn every_rate_is_a_positive_number() {
        for isa in InstructionSet::available() {
            for precision in [Precision::F32, Precision::Bf16] {
                let rate = operation_rate(isa, precision, 2, Duration::from_millis(1));
                assert!(rate.is_finite() && rate > 0.0, "{rate} with {precision} on {isa}");
            }
        }
        let rate = copy_rate(2, 1 << 20);
        assert!(rate.is_finite() && rate > 0.0, "{rate}");
    }
}
