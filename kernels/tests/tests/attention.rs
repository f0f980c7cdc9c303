//! Attention alone and within a network, under every instruction set of the machine.

use crate::reference::{Image, Random, Reference, Sketch};
use crate::steps::{check, kinds, relative};
use tweedie_kernels::network::Resample;
use tweedie_kernels::{FusedNetwork, Precision};

/// Projections of the input to queries, keys and values, and their attention.
fn attention(inputs: usize, heads: usize, width: usize, depth: usize) -> Sketch {
    let mut sketch = Sketch::new(inputs);
    let values = [width, width, depth].map(|channels| {
        let source = sketch.source(&[0], heads * channels, 1, Resample::Same, 0, false);
        sketch.push(vec![source], false, None)
    });
    sketch.attention(values, heads);
    sketch
}

/// Heads that fill no block, several blocks, parts of two; from one pixel to several blocks of queries and of keys.
#[test]
fn attention_agrees_with_plain_loops() {
    let mut random = Random(41);
    let mut worst = (0.0_f64, 0.0_f64);
    for (heads, width) in [(1, 1), (1, 5), (3, 5), (2, 8), (5, 3), (2, 24), (1, 40), (3, 16), (7, 7), (1, 96)] {
        for (height, wide) in [(1, 1), (1, 3), (3, 5), (4, 4), (7, 9), (11, 13)] {
            let depth = random.of(&[width, width, 2, 17]);
            let reference = Reference::new(attention(3, heads, width, depth).network, &mut random);
            let what = format!("{heads} heads of {width} and {depth} channels");
            let shape = [1 + random.below(3), 3, height, wide];
            let error = check(&reference, shape, &mut random, &what);
            worst = (worst.0.max(error.0), worst.1.max(error.1));
        }
    }
    println!("worst relative errors: value {:.2e}, gradient {:.2e}", worst.0, worst.1);
}

/// More pixels than any block has: 25 of keys, 50 of queries.
#[test]
fn long_sequences_agree_with_plain_loops() {
    let mut random = Random(42);
    for (heads, width) in [(2, 5), (1, 18)] {
        let reference = Reference::new(attention(3, heads, width, width).network, &mut random);
        let error = check(&reference, [1, 3, 40, 40], &mut random, "a long sequence");
        println!("relative errors: value {:.2e}, gradient {:.2e}", error.0, error.1);
    }
}

#[test]
fn attention_blocks_within_a_network_agree_with_plain_loops() {
    let mut random = Random(43);
    let mut sketch = Sketch::new(3);
    let first = sketch.push(vec![sketch.source(&[0], 20, 3, Resample::Same, 0, false)], false, None);
    let down = sketch.push(vec![sketch.source(&[first], 36, 3, Resample::Down { before: 0 }, 4, true)], true, None);
    let down = sketch.attention_block(down, 6, 4);
    let middle = sketch.push(vec![sketch.source(&[down], 36, 3, Resample::Same, 4, true)], true, Some(down));
    let middle = sketch.attention_block(middle, 4, 1);
    let up = sketch.push(vec![sketch.source(&[middle, down], 20, 3, Resample::Up, 8, true)], false, None);
    let up = sketch.push(vec![sketch.source(&[up, first], 20, 3, Resample::Same, 5, true)], false, None);
    let up = sketch.attention_block(up, 5, 2);
    sketch.push(vec![sketch.source(&[up], 3, 3, Resample::Same, 4, true)], false, None);
    let reference = Reference::new(sketch.network, &mut random);
    assert_eq!(reference.network.stride(), 2);
    check(&reference, [2, 3, 14, 10], &mut random, "a U-Net with attention");
}

/// The gradients of query, key and value meet in one place, and in one that others add to as well.
#[test]
fn a_value_that_attends_to_itself_gets_all_three_gradients() {
    let mut random = Random(44);
    let mut sketch = Sketch::new(6);
    let own = sketch.attention([0, 0, 0], 2);
    let source = sketch.source(&[0, own], 6, 1, Resample::Same, 3, true);
    let mixed = sketch.push(vec![source], false, Some(own));
    sketch.attention([own, mixed, own], 3);
    let reference = Reference::new(sketch.network, &mut random);
    check(&reference, [2, 6, 5, 9], &mut random, "attention of one value");
}

/// Group norm takes its sums from an attention as from any other value.
#[test]
fn the_result_of_an_attention_can_be_normalised() {
    let mut random = Random(45);
    let mut sketch = attention(3, 2, 9, 9);
    let value = sketch.network.steps.len();
    sketch.push(vec![sketch.source(&[value], 5, 3, Resample::Same, 3, true)], false, None);
    let reference = Reference::new(sketch.network, &mut random);
    check(&reference, [2, 3, 7, 11], &mut random, "a normalised attention");
}

/// Scores of ±80 and beyond, whose exponentials single precision does not have. A score of 80 is itself only known to
/// about `80 · 2⁻²⁴ √n`, and a weight to as much of itself; in `bfloat16` to no digit.
#[test]
fn large_scores_do_not_overflow() {
    for size in [9.0_f32, 30.0] {
        let mut random = Random(46);
        let mut reference = Reference::new(attention(4, 2, 12, 12).network, &mut random);
        for name in ["0.1.1.weight", "1.1.1.weight"] {
            reference.parameters.get_mut(name).unwrap().iter_mut().for_each(|w| *w *= size);
        }
        let (x, v) = (random.numbers(4 * 143), random.numbers(24 * 143));
        let image = |data: &[f32], channels: usize| Image {
            data: data.iter().map(|&x| f64::from(x)).collect(),
            ..Image::zeros(channels, 11, 13)
        };
        let values = reference.values(&image(&x, 4), 0.0);
        let of_pixel =
            |i: usize| (0..12).map(|c| values[1].data[c * 143 + i] * values[2].data[c * 143 + i]).sum::<f64>();
        let largest = (0..143).map(|i| of_pixel(i).abs() / 12_f64.sqrt()).fold(0.0, f64::max);
        assert!(largest > 80.0, "scores up to {largest}");
        let expected = reference.pullback(&values, 0.0, &image(&v, 24));
        for (isa, precision) in kinds() {
            let lookup = |name: &str| reference.parameters.get(name).cloned();
            let network = FusedNetwork::new(&reference.network, isa, precision, lookup).unwrap();
            let (value, tape) = network.forward_with_tape(&x, [1, 4, 11, 13], &[0.0], 1.0).unwrap();
            let gradient = network.pullback(&tape, &v, 1.0).unwrap();
            assert!(value.iter().chain(&gradient).all(|x| x.is_finite()), "{isa} in {precision}");
            if precision == Precision::F32 {
                let error = (relative(&value, &values[4].data), relative(&gradient, &expected.data));
                println!("scores up to {largest} on {isa}: value {:.2e}, gradient {:.2e}", error.0, error.1);
                assert!(error.0 <= 1e-5 && error.1 <= 5e-4, "scores up to {largest} on {isa}: {error:?}");
            }
        }
    }
}
