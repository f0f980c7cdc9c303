//! The same bytes whatever lies in the same batch, in memory, or on other threads.

use crate::reference::{Random, Reference, Sketch};
use crate::steps::kinds;
use tweedie_kernels::network::Resample;
use tweedie_kernels::{FusedNetwork, InstructionSet, Precision};

/// Both resolutions, a skip, groups across values, blocks that are not full and such that are: three bands, rows of
/// uneven tiles, four blocks of queries and two of keys.
fn reference() -> Reference {
    let mut sketch = Sketch::new(3);
    let a = sketch.push(vec![sketch.source(&[0], 32, 3, Resample::Same, 0, false)], true, None);
    let b = sketch.push(vec![sketch.source(&[a], 33, 3, Resample::Down { before: 1 }, 4, true)], false, None);
    let b = sketch.attention_block(b, 3, 11);
    let c = sketch.push(vec![sketch.source(&[b], 19, 3, Resample::Up, 3, true)], false, None);
    let d = sketch.push(vec![sketch.source(&[c, a], 32, 3, Resample::Same, 3, true)], true, Some(a));
    let d = sketch.push(vec![sketch.source(&[d], 32, 3, Resample::Same, 4, true)], false, None);
    sketch.push(vec![sketch.source(&[d], 3, 1, Resample::Same, 0, true)], false, None);
    Reference::new(sketch.network, &mut Random(11))
}

fn fused(reference: &Reference, (isa, precision): (InstructionSet, Precision)) -> FusedNetwork {
    FusedNetwork::new(&reference.network, isa, precision, |name| reference.parameters.get(name).cloned()).unwrap()
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

fn both(network: &FusedNetwork, x: &[f32], v: &[f32], shape: [usize; 4], noise: &[f32]) -> [Vec<u32>; 2] {
    let (value, tape) = network.forward_with_tape(x, shape, noise, 1.0).unwrap();
    [bits(&value), bits(&network.pullback(&tape, v, 1.0).unwrap())]
}

const SHAPE: [usize; 4] = [3, 3, 18, 26];
const IMAGE: usize = 3 * 18 * 26;

#[test]
fn a_batch_of_three_has_the_bytes_of_three_single_images() {
    let reference = reference();
    let mut random = Random(12);
    let (x, v, noise) = (random.numbers(3 * IMAGE), random.numbers(3 * IMAGE), [0.2, -0.9, 1.4]);
    for kind in kinds() {
        let network = fused(&reference, kind);
        let [value, gradient] = both(&network, &x, &v, SHAPE, &noise);
        for (b, &noise) in noise.iter().enumerate() {
            let of_image = b * IMAGE..(b + 1) * IMAGE;
            let single = both(
                &network,
                &x[of_image.clone()],
                &v[of_image.clone()],
                [1, 3, 18, 26],
                std::slice::from_ref(&noise),
            );
            assert!(single[0] == value[of_image.clone()], "value of image {b} on {kind:?}");
            assert!(single[1] == gradient[of_image], "gradient of image {b} on {kind:?}");
        }
    }
}

#[test]
fn one_noise_coordinate_is_shared_by_the_batch() {
    let reference = reference();
    let mut random = Random(13);
    let (x, v) = (random.numbers(3 * IMAGE), random.numbers(3 * IMAGE));
    let network = fused(&reference, (InstructionSet::detect(), Precision::F32));
    assert!(both(&network, &x, &v, SHAPE, &[0.7]) == both(&network, &x, &v, SHAPE, &[0.7; 3]));
    assert!(both(&network, &x, &v, SHAPE, &[0.7]) != both(&network, &x, &v, SHAPE, &[0.6; 3]), "noise is looked at");
}

#[test]
fn the_number_of_threads_changes_no_byte() {
    let reference = reference();
    let mut random = Random(14);
    let (x, v) = (random.numbers(3 * IMAGE), random.numbers(3 * IMAGE));
    for kind in kinds() {
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| both(&fused(&reference, kind), &x, &v, SHAPE, &[0.7]))
        };
        let one = on(1);
        for threads in [2, 3, 5] {
            assert!(one == on(threads), "{threads} threads on {kind:?}");
        }
    }
}

/// The pool hands out memory with what was in it: here not a number, in every lane. Whoever read a lane that it has not
/// written in this run would let one through.
/// The bytes of the gradients of all parameters.
fn gradients(network: &FusedNetwork, x: &[f32], v: &[f32], shape: [usize; 4]) -> Vec<Vec<u32>> {
    let (_, tape) = network.forward_for_gradients(x, shape, &[0.7], 1.0).unwrap();
    network.gradients(&tape, v, None).unwrap().parameters.values().map(|values| bits(values)).collect()
}

#[test]
fn nothing_is_read_of_what_earlier_runs_left_in_memory() {
    let reference = reference();
    let mut random = Random(15);
    let (x, v) = (random.numbers(3 * IMAGE), random.numbers(3 * IMAGE));
    for kind in kinds() {
        let clean = both(&fused(&reference, kind), &x, &v, SHAPE, &[0.7]);
        let network = fused(&reference, kind);
        // Of the same size, and somewhat larger, so that the pieces end behind the maps.
        for shape in [SHAPE, [3, 3, 20, 30]] {
            let poison = vec![f32::NAN; shape.iter().product()];
            let [value, gradient] = both(&network, &poison, &poison, shape, &[0.7]);
            let is_nan = |bits: &u32| f32::from_bits(*bits).is_nan();
            assert!(value.iter().all(is_nan) && gradient.iter().all(is_nan), "an error stays visible on {kind:?}");
            gradients(&network, &poison, &poison, shape);
        }
        let after = both(&network, &x, &v, SHAPE, &[0.7]);
        assert!(after.iter().flatten().all(|&bits| f32::from_bits(bits).is_finite()), "{kind:?}");
        assert!(after == clean, "{kind:?}");
        assert!(gradients(&network, &x, &v, SHAPE) == gradients(&fused(&reference, kind), &x, &v, SHAPE), "{kind:?}");
    }
}

/// One pixel that is not a number reaches the output through an activation alone, on every instruction set.
#[test]
fn an_activation_does_not_hide_what_is_not_a_number() {
    let mut sketch = Sketch::new(1);
    sketch.push(vec![sketch.source(&[0], 1, 1, Resample::Same, 0, true)], false, None);
    let reference = Reference::new(sketch.network, &mut Random(16));
    for kind in kinds() {
        let network = fused(&reference, kind);
        let x = [0.5, f32::NAN, -0.5, 2.0];
        let (value, tape) = network.forward_with_tape(&x, [1, 1, 1, 4], &[0.7], 1.0).unwrap();
        let gradient = network.pullback(&tape, &[1.0; 4], 1.0).unwrap();
        let nan = |x: &[f32]| x.iter().map(|x| x.is_nan()).collect::<Vec<_>>();
        assert_eq!(nan(&value), [false, true, false, false], "{kind:?}");
        assert_eq!(nan(&gradient), [false, true, false, false], "{kind:?}");
    }
}
