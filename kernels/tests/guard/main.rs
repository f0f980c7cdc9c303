//! No kernel reads or writes outside its memory: a page that nobody may touch begins where a piece ends, or ends where it
//! begins, and whoever touches it is killed.
#![cfg(target_os = "linux")]

mod allocator;
#[path = "../tests/reference.rs"]
mod reference;

use allocator::{Side, guard, largest};
use reference::{Random, Reference, Sketch};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tweedie_kernels::network::Resample;
use tweedie_kernels::{FusedNetwork, InstructionSet, Precision};

/// The side of the guard and the largest piece belong to one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everything that can be asked of a network, on both sides, under every instruction set and in both precisions.
///
/// The working memory is given back in between, so that no piece is larger than what it is used for.
fn run(sketch: Sketch, shape: [usize; 4], random: &mut Random) {
    let reference = Reference::new(sketch.network, random);
    let batch = shape[0];
    for side in [Side::End, Side::Start] {
        guard(side);
        let x = random.numbers(shape.iter().product());
        for isa in InstructionSet::available() {
            for precision in [Precision::F32, Precision::Bf16] {
                let lookup = |name: &str| reference.parameters.get(name).cloned();
                let network = FusedNetwork::new(&reference.network, isa, precision, lookup).unwrap();
                let noise = random.numbers(batch);
                let value = network.forward(&x, shape, &noise[..1], 1.0).unwrap();
                assert!(value.iter().all(|x| x.is_finite()), "{isa} in {precision}");
                network.release_memory();
                let (value, tape) = network.forward_with_tape(&x, shape, &noise, 0.5).unwrap();
                network.release_memory();
                let gradient = network.pullback(&tape, &value, 2.0).unwrap();
                assert!(gradient.iter().all(|x| x.is_finite()), "{isa} in {precision}");
                network.release_memory();
                let (value, tape) = network.forward_for_gradients(&x, shape, &noise, 1.0).unwrap();
                network.release_memory();
                let gradients = network.gradients(&tape, &value, Some(1.0)).unwrap();
                assert!(gradients.norm().is_finite(), "{isa} in {precision}");
            }
        }
    }
}

const RESAMPLES: [Resample; 4] =
    [Resample::Same, Resample::Down { before: 0 }, Resample::Down { before: 1 }, Resample::Up];

#[test]
fn single_convolutions_stay_within_their_memory() {
    let _alone = alone();
    let mut random = Random(51);
    for resample in RESAMPLES {
        for kernel in [1, 3, 5] {
            for (inputs, outputs) in [(1, 1), (3, 40), (17, 16), (16, 33), (40, 3), (48, 64)] {
                // From one pixel to more than a tile and a band of any instruction set.
                // The last ones are longer than any piece of a row; with few channels, they would take long.
                let long: &[(usize, usize)] = if inputs == 17 { &[(1, 97), (2, 207), (2, 274)] } else { &[] };
                for &(height, width) in [(1, 1), (1, 13), (9, 2), (3, 25), (17, 7)].iter().chain(long) {
                    let double = if matches!(resample, Resample::Down { .. }) { 2 } else { 1 };
                    let mut sketch = Sketch::new(inputs);
                    let groups = random.of(&[0, 1]);
                    let silu = random.below(2) == 1;
                    let source = sketch.source(&[0], outputs, kernel, resample, groups, silu);
                    let residual = (resample == Resample::Same && inputs == outputs).then_some(0);
                    sketch.push(vec![source], random.below(2) == 1, residual);
                    let batch = 1 + random.below(2);
                    run(sketch, [batch, inputs, height * double, width * double], &mut random);
                }
            }
        }
    }
}

#[test]
fn attentions_stay_within_their_memory() {
    let _alone = alone();
    let mut random = Random(52);
    for (heads, width) in [(1, 1), (3, 5), (2, 8), (1, 16), (2, 17), (1, 40)] {
        for (height, wide) in [(1, 1), (3, 5), (4, 8), (7, 9), (11, 13)] {
            // Of the input itself, and in the usual block.
            let mut sketch = Sketch::new(heads * width);
            sketch.attention([0, 0, 0], heads);
            run(sketch, [2, heads * width, height, wide], &mut random);
            let mut sketch = Sketch::new(heads * width);
            sketch.attention_block(0, heads, heads);
            run(sketch, [1, heads * width, height, wide], &mut random);
        }
    }
}

#[test]
fn a_u_net_stays_within_its_memory() {
    let _alone = alone();
    let mut random = Random(53);
    for (before, height, width) in [(0, 2, 2), (1, 6, 26), (0, 18, 10)] {
        let mut sketch = Sketch::new(3);
        let first = sketch.push(vec![sketch.source(&[0], 20, 3, Resample::Same, 0, false)], false, None);
        let a = sketch.push(vec![sketch.source(&[first], 20, 3, Resample::Same, 4, true)], true, Some(first));
        let down = sketch.push(vec![sketch.source(&[a], 36, 3, Resample::Down { before }, 0, false)], false, None);
        let b = sketch.attention_block(down, 6, 4);
        let up = sketch.push(vec![sketch.source(&[b], 36, 3, Resample::Up, 0, false)], false, None);
        let sources = vec![
            sketch.source(&[up, first], 20, 3, Resample::Same, 7, true),
            sketch.source(&[up, first], 20, 1, Resample::Same, 0, false),
        ];
        let c = sketch.push(sources, true, None);
        sketch.push(vec![sketch.source(&[c], 3, 3, Resample::Same, 4, true)], false, None);
        run(sketch, [2, 3, height, width], &mut random);
    }
}

/// 2304 pixels, so 5.3 million scores a head: 21 MB. A map of 2304 pixels and 16 channels has 147 kB, the input in planes
/// half of that.
#[test]
fn attention_does_not_store_its_scores() {
    let _alone = alone();
    let mut random = Random(54);
    let mut sketch = Sketch::new(8);
    sketch.attention([0, 0, 0], 2);
    let reference = Reference::new(sketch.network, &mut random);
    let shape = [1, 8, 48, 48];
    let x = random.numbers(shape.iter().product());
    let lookup = |name: &str| reference.parameters.get(name).cloned();
    let network = FusedNetwork::new(&reference.network, InstructionSet::detect(), Precision::F32, lookup).unwrap();
    largest();
    let (value, tape) = network.forward_with_tape(&x, shape, &[0.0], 1.0).unwrap();
    network.pullback(&tape, &value, 1.0).unwrap();
    let largest = largest();
    assert!(largest <= 200_000, "a piece of {largest} bytes");
}

/// Every way of leaving a piece of 1332 bytes, in a process of its own: this test, run again.
#[test]
fn leaving_a_piece_ends_the_process() {
    const CASE: &str = "TWEEDIE_TEST_LEAVE_A_PIECE";
    const LENGTH: usize = 333;
    let _alone = alone();
    if let Some(case) = std::env::var_os(CASE) {
        let case = case.to_str().unwrap();
        guard(if case.ends_with("first") { Side::Start } else { Side::End });
        let mut piece = vec![1.0_f32; LENGTH];
        let data = piece.as_mut_ptr();
        // SAFETY: inside the piece, or wrong on purpose: then the page there is not mapped for reading.
        unsafe {
            match case {
                "read the last" => assert!(data.add(LENGTH - 1).read_volatile() > 0.0),
                "read the first" => assert!(data.read_volatile() > 0.0),
                "read after the last" => assert!(data.wrapping_add(LENGTH).read_volatile() > 0.0),
                "write after the last" => data.wrapping_add(LENGTH).write_volatile(1.0),
                // As a register is loaded of which only the last lanes lie outside.
                "read across the last" => {
                    assert!(data.wrapping_add(LENGTH - 15).cast::<[f32; 16]>().read_volatile()[0] > 0.0);
                }
                "read before the first" => assert!(data.wrapping_sub(1).read_volatile() > 0.0),
                "write before the first" => data.wrapping_sub(1).write_volatile(1.0),
                case => panic!("{case}"),
            }
        }
        return;
    }
    let name = std::thread::current().name().unwrap().to_string();
    for (case, killed) in [
        ("read the last", false),
        ("read the first", false),
        ("read after the last", true),
        ("write after the last", true),
        ("read across the last", true),
        ("read before the first", true),
        ("write before the first", true),
    ] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let output = command.args([&name, "--exact", "--test-threads=1"]).env(CASE, case).output().unwrap();
        match killed {
            true => assert_eq!(output.status.signal(), Some(libc::SIGSEGV), "{case}"),
            false => assert!(output.status.success(), "{case}: {}", output.status),
        }
    }
}
