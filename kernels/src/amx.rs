//! Products of whole matrices under AMX-BF16.
//!
//! The geometry is that of the [operands](crate::operand): a row of a tile is a pixel's unit of 32 channels, or sixteen
//! outputs of one pair of channels. One instruction multiplies 16 pixels × 32 channels with 32 channels × 16 outputs and
//! adds to 16 × 16 sums; four such sums are kept together, so that every tile that is loaded is used twice.
//!
//! The compiler knows nothing of tile registers on a stable channel, hence the assembly: no tile register outlives a block
//! of it. The shapes of the tiles do, from [`Tiles::new`] until it is dropped.

use crate::correlation::Term;
use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _xgetbv};
use std::mem::{offset_of, size_of};
use std::sync::OnceLock;

/// Pixels of a tile.
pub(crate) const ROWS: usize = 16;

/// Whether this machine has AMX-BF16 and the system lets this process use it.
///
/// The permission holds for all threads and is asked for once.
pub(crate) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| machine_has_it() && is_permitted())
}

pub(crate) fn machine_has_it() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const BF16_AND_TILE: u32 = 1 << 22 | 1 << 24;
    const CONFIGURATION_AND_DATA: u64 = 1 << 17 | 1 << 18;
    #[target_feature(enable = "xsave")]
    fn enabled_states() -> u64 {
        // SAFETY: the register exists wherever the instruction does.
        unsafe { _xgetbv(0) }
    }
    #[allow(unused_unsafe, reason = "safe from Rust 1.94 on")]
    // SAFETY: every x86-64 has the instruction.
    let leaf = |leaf| unsafe { __cpuid_count(leaf, 0) };
    if leaf(0).eax < 7 || leaf(1).ecx & OSXSAVE == 0 || leaf(7).edx & BF16_AND_TILE != BF16_AND_TILE {
        return false;
    }
    // SAFETY: the system has enabled the instruction.
    let states = unsafe { enabled_states() };
    states & CONFIGURATION_AND_DATA == CONFIGURATION_AND_DATA
}

/// Linux gives the 8 KiB of tiles to processes that ask.
fn is_permitted() -> bool {
    const ARCH_PRCTL: usize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XTILEDATA: usize = 18;
    if !cfg!(target_os = "linux") {
        return false;
    }
    let result: isize;
    // SAFETY: a system call that touches no memory of the process; it overwrites the three registers named.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// What `ldtilecfg` reads: palette 1, and of each tile the bytes of a row and the rows.
#[derive(Debug)]
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Gives the tiles their shapes: 0–3 are sums and 4–5 pixels, of which there are up to 16; 6–7 are weights.
///
/// # Safety
/// The machine has AMX-BF16, the process the permission.
#[inline(always)]
unsafe fn shape(pixels: usize) {
    let (p, weights) = (pixels as u8, ROWS as u8);
    let row_bytes = [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0];
    let rows = [p, p, p, p, p, p, weights, weights, 0, 0, 0, 0, 0, 0, 0, 0];
    let shapes = Shapes { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows };
    // SAFETY: 64 bytes are read.
    unsafe {
        asm!(
            "ldtilecfg [{}]", in(reg) &shapes,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack, readonly, preserves_flags),
        );
    }
}

/// Tiles with the shapes that [`products`] needs; given back when dropped, so that the system no longer saves them.
#[derive(Debug)]
pub(crate) struct Tiles(());

impl Tiles {
    /// # Safety
    /// The machine has AMX-BF16, the process the permission.
    #[inline(always)]
    pub(crate) unsafe fn new() -> Self {
        // SAFETY: passed on.
        unsafe { shape(ROWS) };
        Self(())
    }
}

impl Drop for Tiles {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: there are tiles, as this exists.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, nomem, preserves_flags),
            );
        }
    }
}

/// The sums over all terms for `count` pixels, `step` floats apart from `offset` on, of `K` blocks:
/// `[pixel][K][16]`.
///
/// A last tile of fewer than 16 pixels begins earlier, and takes some sums twice. Every sum is taken in the same order
/// whatever the number of pixels and blocks.
///
/// # Safety
/// [`Tiles`] are there; the terms' pixels and weights are, all of them with 16 values; `to` has room for the sums.
#[inline(always)]
pub(crate) unsafe fn products<const K: usize>(terms: &[Term], offset: usize, step: usize, count: usize, to: *mut f32) {
    debug_assert!(count > 0 && terms.iter().all(|term| term.values == ROWS));
    let last = count.saturating_sub(ROWS);
    // SAFETY: tiles begin at pixels from 0 to `last`, and end with the last pixel where there are fewer than 16.
    unsafe {
        if count < ROWS {
            shape(count);
        }
        for pixel in (0..count).step_by(2 * ROWS) {
            let (first, second) = (pixel.min(last), (pixel + ROWS).min(last));
            let place = Place {
                first: (offset + first * step) * 4,
                down: (second - first) * step * 4,
                step: step * 4,
                to: to.add(first * K * 16),
                to_down: (second - first) * K * 64,
            };
            match (pixel + ROWS < count, K) {
                (true, 2) => two_by_two(terms, &place),
                (true, 1) => two_by_one(terms, &place),
                (false, 2) => one_by_two(terms, &place),
                (false, 1) => one_by_one(terms, &place),
                _ => unreachable!("{K} blocks"),
            }
        }
        if count < ROWS {
            shape(ROWS);
        }
    }
}

/// Which pixels are multiplied, in bytes from those of the terms, and where the sums go.
#[derive(Debug)]
struct Place {
    first: usize,
    /// From the first to the second tile of pixels.
    down: usize,
    /// From one pixel to the next.
    step: usize,
    to: *mut f32,
    /// From the sums of the first to those of the second tile of pixels, in bytes.
    to_down: usize,
}

/// One or two tiles of pixels times one or two blocks of outputs, `$row` bytes of weights or sums apart.
macro_rules! sums {
    ($name:ident, $row:literal, zero [$($zero:literal)*], load [$($load:literal)*], multiply [$($multiply:literal)*],
     store [$($store:literal)*]) => {
        /// # Safety
        /// As [`products`]; the pixels and sums of both tiles are there.
        #[inline(always)]
        unsafe fn $name(terms: &[Term], place: &Place) {
            // SAFETY: 16 rows of weights of each term, and as many rows of pixels and sums as the tiles' shapes say, are
            // read and written.
            unsafe {
                asm!(
                    $($zero,)*
                    "test {left}, {left}",
                    "jz 3f",
                    "2:",
                    "mov {pixels}, [{term} + {PIXELS}]",
                    "mov {weights}, [{term} + {WEIGHTS}]",
                    "add {term}, {TERM}",
                    "add {pixels}, {first}",
                    $($load,)*
                    $($multiply,)*
                    "dec {left}",
                    "jnz 2b",
                    "3:",
                    $($store,)*
                    "# A single tile of pixels has no use for {down} and {to_down}.",
                    term = inout(reg) terms.as_ptr() => _,
                    left = inout(reg) terms.len() => _,
                    pixels = out(reg) _,
                    weights = out(reg) _,
                    to = inout(reg) place.to => _,
                    first = in(reg) place.first,
                    down = in(reg) place.down,
                    step = in(reg) place.step,
                    to_down = in(reg) place.to_down,
                    row = in(reg) $row,
                    PIXELS = const offset_of!(Term, pixels),
                    WEIGHTS = const offset_of!(Term, weights),
                    TERM = const size_of::<Term>(),
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

sums!(two_by_two, 128_usize,
    zero ["tilezero tmm0" "tilezero tmm1" "tilezero tmm2" "tilezero tmm3"],
    load [
        "tileloadd tmm4, [{pixels} + {step}]"
        "tileloadd tmm6, [{weights} + {row}]"
        "tileloadd tmm7, [{weights} + {row} + 64]"
        "add {pixels}, {down}"
        "tileloadd tmm5, [{pixels} + {step}]"
    ],
    multiply [
        "tdpbf16ps tmm0, tmm4, tmm6"
        "tdpbf16ps tmm1, tmm4, tmm7"
        "tdpbf16ps tmm2, tmm5, tmm6"
        "tdpbf16ps tmm3, tmm5, tmm7"
    ],
    store [
        "tilestored [{to} + {row}], tmm0"
        "tilestored [{to} + {row} + 64], tmm1"
        "add {to}, {to_down}"
        "tilestored [{to} + {row}], tmm2"
        "tilestored [{to} + {row} + 64], tmm3"
    ]
);
sums!(two_by_one, 64_usize,
    zero ["tilezero tmm0" "tilezero tmm2"],
    load [
        "tileloadd tmm4, [{pixels} + {step}]"
        "tileloadd tmm6, [{weights} + {row}]"
        "add {pixels}, {down}"
        "tileloadd tmm5, [{pixels} + {step}]"
    ],
    multiply ["tdpbf16ps tmm0, tmm4, tmm6" "tdpbf16ps tmm2, tmm5, tmm6"],
    store [
        "tilestored [{to} + {row}], tmm0"
        "add {to}, {to_down}"
        "tilestored [{to} + {row}], tmm2"
    ]
);
sums!(one_by_two, 128_usize,
    zero ["tilezero tmm0" "tilezero tmm1"],
    load [
        "tileloadd tmm4, [{pixels} + {step}]"
        "tileloadd tmm6, [{weights} + {row}]"
        "tileloadd tmm7, [{weights} + {row} + 64]"
    ],
    multiply ["tdpbf16ps tmm0, tmm4, tmm6" "tdpbf16ps tmm1, tmm4, tmm7"],
    store ["tilestored [{to} + {row}], tmm0" "tilestored [{to} + {row} + 64], tmm1"]
);
sums!(one_by_one, 64_usize,
    zero ["tilezero tmm0"],
    load ["tileloadd tmm4, [{pixels} + {step}]" "tileloadd tmm6, [{weights} + {row}]"],
    multiply ["tdpbf16ps tmm0, tmm4, tmm6"],
    store ["tilestored [{to} + {row}], tmm0"]
);
