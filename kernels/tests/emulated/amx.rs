//! `amx.rs` of this crate on a bare emulated processor, against a plain loop in double precision. See `check-amx.sh`.
#![allow(dead_code, missing_docs, unreachable_pub)]

#[path = "../../src/amx.rs"]
mod amx;

mod correlation {
    #[derive(Clone, Copy, Debug)]
    #[repr(C)]
    pub(crate) struct Term {
        pub(crate) pixels: *const f32,
        pub(crate) weights: *const f32,
        pub(crate) values: usize,
    }
}

use correlation::Term;
use std::arch::asm;

/// What lies around the sums and has to stay.
const GUARD: u32 = 0x7fc0_1234;
const TERMS: usize = 20;

fn print(byte: u8) {
    // SAFETY: the emulator's console.
    unsafe { asm!("out dx, al", in("dx") 0xe9_u16, in("al") byte) };
}

fn print_text(text: &[u8]) {
    text.iter().for_each(|&byte| print(byte));
}

fn print_number(number: u64) {
    if number >= 10 {
        print_number(number / 10);
    }
    print(b'0' + (number % 10) as u8);
}

struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A `bfloat16` between −1 and 1.
    fn bf16(&mut self) -> u16 {
        let bits = self.bits();
        let x = (bits >> 40) as f32 / (1 << 23) as f32 - 1.0;
        (x.to_bits() >> 16) as u16
    }
}

fn wide(bits: u16) -> f64 {
    f64::from(f32::from_bits(u32::from(bits) << 16))
}

/// The largest error in 2⁻²⁴ of the sum of the products' absolute values; `None` where a guard or a bit has changed.
///
/// # Safety
/// 12 MiB of memory at 4 MiB.
unsafe fn check<const K: usize>(
    count: usize,
    step: usize,
    terms: usize,
    offset: usize,
    random: &mut Random,
) -> Option<u64> {
    // SAFETY: 4 MiB for each of the three.
    unsafe {
        let pixels = 0x40_0000 as *mut u16;
        let weights = 0x80_0000 as *mut u16;
        let sums = 0xc0_0000 as *mut f32;
        let row = step * 2;
        let plane = offset * 2 + count * row;
        for i in 0..terms * plane {
            pixels.add(i).write_volatile(random.bf16());
        }
        for i in 0..terms * 16 * K * 32 {
            weights.add(i).write_volatile(random.bf16());
        }
        for i in 0..(count + 64) * K * 16 {
            sums.add(i).cast::<u32>().write_volatile(GUARD);
        }
        let mut list = [Term { pixels: pixels.cast(), weights: weights.cast(), values: 16 }; TERMS];
        for (i, term) in list.iter_mut().enumerate().take(terms) {
            term.pixels = pixels.add(i * plane).cast();
            term.weights = weights.add(i * 16 * K * 32).cast();
        }
        let to = sums.add(32 * K * 16);
        let list = std::slice::from_raw_parts(list.as_ptr(), terms);
        amx::products::<K>(list, offset, step, count, to);
        for i in 0..32 * K * 16 {
            let after = to.add(count * K * 16 + i).cast::<u32>();
            if sums.add(i).cast::<u32>().read_volatile() != GUARD || after.read_volatile() != GUARD {
                return None;
            }
        }
        let mut worst = 0;
        for pixel in 0..count {
            for output in 0..K * 16 {
                let (mut sum, mut size) = (0.0_f64, 0.0_f64);
                for term in list {
                    let x = term.pixels.cast::<u16>().add(offset * 2 + pixel * row);
                    let w = term.weights.cast::<u16>();
                    for channel in 0..32 {
                        let weight = w.add(channel / 2 * K * 32 + output * 2 + channel % 2);
                        let product = wide(x.add(channel).read_volatile()) * wide(weight.read_volatile());
                        sum += product;
                        size += if product < 0.0 { -product } else { product };
                    }
                }
                let got = f64::from(to.add(pixel * K * 16 + output).read_volatile());
                let error = if got > sum { got - sum } else { sum - got };
                let error = if size == 0.0 { error } else { error / size } * 16_777_216.0;
                // Whatever is not a number counts as wrong.
                let error = if error < 1e6 { (error + 0.999) as u64 } else { 1_000_000 };
                worst = if error > worst { error } else { worst };
            }
        }
        Some(worst)
    }
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "entry")]
pub extern "C" fn test() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut passed, mut failed) = (0, 0);
    // SAFETY: the machine has AMX-BF16 and nobody else; 16 MiB of memory.
    unsafe {
        print_text(if amx::machine_has_it() { b"AMX-BF16 is detected\n" } else { b"AMX-BF16 is not detected\n" });
        let tiles = amx::Tiles::new();
        let mut count = 1;
        while count <= 70 {
            let mut which = 0;
            while which < 8 {
                let (step, terms) = (if which & 1 == 0 { 16 } else { 32 }, [1, 18, 2, 0][which / 2]);
                let offset = (count % 3) * 16;
                let worst = [
                    check::<1>(count, step, terms, offset, &mut random),
                    check::<2>(count, step, terms, offset, &mut random),
                ];
                for (k, worst) in worst.iter().enumerate() {
                    // A sum of pairs has 16 roundings in a term, and two more to join the sums.
                    let bound = 18 + terms as u64;
                    match worst {
                        Some(worst) if *worst <= bound => passed += 1,
                        _ => {
                            failed += 1;
                            print_text(b"failed: pixels, step, terms, blocks, error: ");
                            for number in [count as u64, step as u64, terms as u64, k as u64 + 1] {
                                print_number(number);
                                print(b' ');
                            }
                            match worst {
                                Some(worst) => print_number(*worst),
                                None => print_text(b"guard overwritten"),
                            }
                            print(b'\n');
                        }
                    }
                }
                which += 1;
            }
            count += 1;
        }
        drop(tiles);
    }
    print_number(passed);
    print_text(b" passed, ");
    print_number(failed);
    print_text(b" failed\n");
}
