//! Every kind of step, alone and together, under every instruction set of the machine.

use crate::reference::{Image, Random, Reference, Sketch, sum, with_everything};
use std::collections::HashMap;
use tweedie_kernels::network::{Classes, Features, Filter, Network, Norm, Parameter, Resample, Step};
use tweedie_kernels::{Error, FusedNetwork, InstructionSet, Precision};

const RESAMPLES: [Resample; 4] =
    [Resample::Same, Resample::Down { before: 0 }, Resample::Down { before: 1 }, Resample::Up];
const CHANNELS: [usize; 6] = [1, 3, 16, 17, 40, 96];

pub(crate) fn relative(got: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let error: f64 = got.iter().zip(expected).map(|(g, e)| (f64::from(*g) - e).powi(2)).sum();
    (error / expected.iter().map(|e| e * e).sum::<f64>()).sqrt()
}

fn length(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Largest relative errors of the value and of the gradient that a case may have.
///
/// A sum of n products in single precision, rounded at every addition, is off by at most about `2⁻²⁴ √n / 2` of the
/// result's size (independent roundings of partial sums that grow to it): 9e-7 for 9 · 100 products. The gradient of a
/// whole network goes through several such sums and, with norms, through differences of them.
///
/// In `bfloat16` every factor is rounded by up to 2⁻⁹, half of that on average, and so is every value that is kept; the
/// transforms of a 3×3 window round sums of up to four values of either sign, which are about twice as large as the
/// result. Independent errors of many products average out, those of a small sum do not; each further step adds its own.
fn bounds(precision: Precision) -> (f64, f64) {
    match precision {
        Precision::F32 => (1e-6, 3e-6),
        Precision::Bf16 => (8e-3, 1.3e-2),
    }
}

/// The same of the gradient of a parameter. The few numbers of a norm or a bias are sums over all pixels that nearly
/// cancel, of which `bfloat16` leaves less.
fn parameter_bound(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 3e-6,
        Precision::Bf16 => 5e-2,
    }
}

pub(crate) fn check(reference: &Reference, shape: [usize; 4], random: &mut Random, what: &str) -> (f64, f64) {
    let [batch, channels, height, width] = shape;
    let x = random.numbers(shape.iter().product());
    let noise: Vec<f32> = (0..batch).map(|b| 0.3 - 0.5 * b as f32).collect();
    let image = |data: &[f32], of: &Image| Image { data: data.iter().map(|&x| f64::from(x)).collect(), ..*of };
    let images: Vec<Vec<Image>> = x
        .chunks(channels * height * width)
        .zip(&noise)
        .map(|(data, &noise)| {
            let empty = Image { channels, height, width, data: Vec::new() };
            reference.values(&image(data, &empty), noise)
        })
        .collect();
    let output = images[0].last().unwrap();
    let v = random.numbers(batch * output.data.len());
    let empty = Image { data: Vec::new(), ..*output };
    let mut expected = (Vec::new(), Vec::new());
    let mut parameters: HashMap<String, Vec<f64>> = HashMap::new();
    for ((values, v), &noise) in images.iter().zip(v.chunks(output.data.len())).zip(&noise) {
        let (of_image, of_parameters) = reference.gradients(values, noise, &image(v, &empty));
        expected.0.extend(&values.last().unwrap().data);
        expected.1.extend(of_image.data);
        for (name, g) in of_parameters {
            let sums = parameters.entry(name).or_insert_with(|| vec![0.0; g.len()]);
            sums.iter_mut().zip(g).for_each(|(sum, g)| *sum += g);
        }
    }
    // The gradient of a parameter before a norm may all but cancel: what is left is measured by the size of the others.
    let all: Vec<f64> = parameters.values().flatten().copied().collect();
    let typical = length(&all) / (all.len() as f64).sqrt();
    let mut worst = (0.0_f64, 0.0_f64);
    for (isa, precision) in kinds() {
        let kind = format!("{what} {shape:?} on {isa} in {precision}");
        let mut network =
            FusedNetwork::new(&reference.network, isa, precision, |name| reference.parameters.get(name).cloned())
                .unwrap();
        network.set_class(reference.class).unwrap();
        let alone = network.forward(&x, shape, &noise, 1.0).unwrap();
        let (value, tape) = network.forward_with_tape(&x, shape, &noise, 1.0).unwrap();
        assert_eq!(alone, value, "{kind}: the tape changes the value");
        let gradient = network.pullback(&tape, &v, 1.0).unwrap();
        let error = (relative(&value, &expected.0), relative(&gradient, &expected.1));
        let bounds = bounds(precision);
        assert!(error.0 <= bounds.0, "{kind}: value off by {:.2e}", error.0);
        assert!(error.1 <= bounds.1, "{kind}: gradient off by {:.2e}", error.1);
        if precision == Precision::F32 {
            worst = (worst.0.max(error.0), worst.1.max(error.1));
        }

        let (value, tape) = network.forward_for_gradients(&x, shape, &noise, 1.0).unwrap();
        assert_eq!(alone, value, "{kind}: the tape changes the value");
        let gradients = match network.gradients(&tape, &v, Some(1.0)) {
            Ok(gradients) => gradients,
            Err(Error::Unsupported(what)) if !trained(&reference.network) => {
                assert!(what.starts_with("the gradient of the parameters around "), "{what}");
                continue;
            }
            Err(error) => panic!("{kind}: {error}"),
        };
        assert!(trained(&reference.network), "{kind}: gradients that the reference does not know");
        assert_eq!(gradients.input.as_ref(), Some(&gradient), "{kind}: two gradients of the input");
        assert_eq!(gradients.parameters.len(), parameters.len());
        let of_parameters = parameter_bound(precision);
        for (name, got) in &gradients.parameters {
            let expected = &parameters[name];
            let floor = typical * (expected.len() as f64).sqrt();
            let difference: Vec<f64> = got.iter().zip(expected).map(|(g, e)| f64::from(*g) - e).collect();
            let error = length(&difference) / length(expected).max(floor);
            assert!(error <= of_parameters, "{kind}: gradient of {name} off by {error:.2e}");
            if precision == Precision::F32 {
                worst.1 = worst.1.max(error);
            }
        }
        assert_eq!(network.gradients(&tape, &v, None).unwrap().parameters, gradients.parameters, "{kind}");
    }
    worst
}

/// Whether the network has nothing but what gradients of parameters are taken of.
fn trained(network: &Network) -> bool {
    let plain = |norm: Option<&Norm>| norm.is_none_or(|norm| norm.modulation.is_none());
    network.embedding.classes.is_none()
        && network.steps.iter().all(|step| match step {
            Step::Sum(sum) => sum.scale == 1.0 && sum.sources.iter().all(|source| plain(source.norm.as_ref())),
            Step::Attention(_) => true,
            Step::Resize(_) => false,
        })
}

/// Every instruction set of the machine in both precisions.
pub(crate) fn kinds() -> impl Iterator<Item = (InstructionSet, Precision)> {
    let both = |isa| [(isa, Precision::F32), (isa, Precision::Bf16)];
    InstructionSet::available().into_iter().flat_map(both)
}

/// Sizes up to two bands and more than two tiles of any instruction set; even where the resolution is halved.
fn size(random: &mut Random, resample: Resample, work: usize) -> (usize, usize) {
    let even = matches!(resample, Resample::Down { .. });
    let double = if even { 2 } else { 1 };
    let (mut height, width) = (random.of(&[3, 5, 9, 11, 17]), random.of(&[3, 7, 11, 12, 13, 25, 27]));
    while height > 3 && height * width * work > 1_500_000 {
        height = if height > 9 { 9 } else { 3 };
    }
    (height * double, width * double)
}

#[test]
fn every_single_step_agrees_with_plain_loops() {
    let mut random = Random(1);
    let mut worst = (0.0_f64, 0.0_f64);
    for resample in RESAMPLES {
        for kernel in [1, 3] {
            for inputs in CHANNELS {
                for outputs in CHANNELS {
                    let groups = random.of(&[0, if inputs % 8 == 0 { 8 } else { 1 }]);
                    let silu = random.below(2) == 1;
                    let mut sketch = Sketch::new(inputs);
                    let source = sketch.source(&[0], outputs, kernel, resample, groups, silu);
                    let residual = (resample == Resample::Same && inputs == outputs).then_some(0);
                    let embedding = random.below(2) == 1;
                    sketch.push(vec![source], embedding, residual);
                    let (height, width) = size(&mut random, resample, inputs * outputs * kernel * kernel);
                    let batch = if inputs * outputs > 2000 { 1 } else { 1 + random.below(3) };
                    let reference = Reference::new(sketch.network, &mut random);
                    let what = format!("{resample:?} {kernel}×{kernel}, {groups} groups, silu {silu}");
                    let shape = [batch, inputs, height, width];
                    let error = check(&reference, shape, &mut random, &what);
                    worst = (worst.0.max(error.0), worst.1.max(error.1));
                }
            }
        }
    }
    println!("worst relative errors: value {:.2e}, gradient {:.2e}", worst.0, worst.1);
}

/// Inputs of sizes that fill no block, groups that begin in one value and end in the next, a shortcut of the same values.
#[test]
fn concatenated_inputs_with_groups_across_them_agree_with_plain_loops() {
    let mut random = Random(2);
    // The number of groups divides the sum of the channels and none of the parts.
    for (parts, groups) in [([3, 17, 1], 7), ([40, 5, 3], 3), ([17, 16, 15], 6), ([1, 96, 3], 4)] {
        for resample in RESAMPLES {
            let mut sketch = Sketch::new(3);
            let mut inputs = Vec::new();
            for part in parts {
                let source = sketch.source(&[0], part, 1, Resample::Same, 0, false);
                inputs.push(sketch.push(vec![source], false, None));
            }
            let outputs = random.of(&CHANNELS);
            let sources = vec![
                sketch.source(&inputs, outputs, 3, resample, groups, true),
                sketch.source(&inputs, outputs, 1, resample, 0, random.below(2) == 1),
            ];
            sketch.push(sources, true, None);
            let (height, width) = size(&mut random, resample, 100 * outputs * 9);
            let batch = 1 + random.below(2);
            let reference = Reference::new(sketch.network, &mut random);
            let what = format!("{parts:?} to {outputs} in {groups} groups, {resample:?}");
            check(&reference, [batch, 3, height, width], &mut random, &what);
        }
    }
}

#[test]
fn a_value_concatenated_with_itself_gets_both_gradients() {
    let mut random = Random(3);
    let mut sketch = Sketch::new(17);
    let source = sketch.source(&[0, 0], 17, 3, Resample::Same, 2, true);
    sketch.push(vec![source], false, Some(0));
    let reference = Reference::new(sketch.network, &mut random);
    check(&reference, [2, 17, 9, 13], &mut random, "twice the same value");
}

#[test]
fn filters_agree_with_plain_loops() {
    let mut random = Random(11);
    let taps = [vec![1.0, 3.0, 3.0, 1.0], vec![1.0, 2.0, 4.0], vec![0.5, 1.0], vec![1.0, -2.0, 3.0, 5.0, 4.0, 1.0]];
    let fir = taps.into_iter().flat_map(|taps| [Filter::FirUp(taps.clone()), Filter::FirDown(taps)]);
    for filter in [Filter::Nearest, Filter::Average].into_iter().chain(fir) {
        for (channels, groups, silu) in [(3, 0, false), (17, 0, true), (18, 3, true), (48, 4, false)] {
            for (height, width) in [(2, 2), (6, 10), (14, 34)] {
                let mut sketch = Sketch::new(channels);
                sketch.resize(0, filter.clone(), groups, silu);
                let reference = Reference::new(sketch.network, &mut random);
                let what = format!("{filter:?}, {groups} groups, silu {silu}");
                check(&reference, [2, channels, height, width], &mut random, &what);
            }
        }
    }
}

/// Every image has a noise coordinate of its own, so scale and shift are others for each.
#[test]
fn norms_that_the_embedding_modulates_agree_with_plain_loops() {
    let mut random = Random(12);
    for (channels, outputs, groups) in [(6, 16, 3), (17, 17, 1), (40, 3, 8)] {
        for resample in RESAMPLES {
            for silu in [false, true] {
                let mut sketch = Sketch::new(channels);
                let mut source = sketch.source(&[0], outputs, 3, resample, groups, silu);
                source.norm = sketch.modulated(source.norm);
                sketch.push(vec![source], false, None);
                let (height, width) = size(&mut random, resample, channels * outputs * 9);
                let reference = Reference::new(sketch.network, &mut random);
                let what = format!("{groups} modulated groups, {resample:?}, silu {silu}");
                check(&reference, [2, channels, height, width], &mut random, &what);
            }
        }
    }
}

#[test]
fn sums_times_a_number_agree_with_plain_loops() {
    let mut random = Random(13);
    for scale in [0.5_f64.sqrt(), 3.0] {
        for (channels, residual) in [(5, Some(0)), (33, Some(0)), (20, None)] {
            let mut sketch = Sketch::new(channels);
            let source = sketch.source(&[0], channels, 3, Resample::Same, 0, true);
            let shortcut = sketch.source(&[0], channels, 1, Resample::Same, 0, false);
            let a = sketch.push(vec![source, shortcut], true, residual);
            sum(&mut sketch.network, a - 1).scale = scale;
            // The only gradient of the first value arrives through the residual, and is scaled on its own.
            sketch.push(vec![sketch.source(&[0], channels, 1, Resample::Same, 0, false)], false, Some(a));
            sum(&mut sketch.network, a).scale = 1.0 / scale;
            let reference = Reference::new(sketch.network, &mut random);
            check(&reference, [2, channels, 7, 13], &mut random, &format!("times {scale}"));
        }
    }
}

#[test]
fn a_network_of_everything_agrees_with_plain_loops() {
    let mut random = Random(14);
    let mut reference = with_everything(&mut random);
    for class in [None, Some(0), Some(3)] {
        reference.class = class;
        check(&reference, [3, 3, 10, 26], &mut random, &format!("everything, class {class:?}"));
    }
    let mut other = reference.network.clone();
    other.embedding.features = Features::Learned { table: Parameter::new("levels", &[3, 8]) };
    other.embedding.classes = Some(Classes {
        weight: Parameter::new("classes", &[4, 8]),
        scale: 2.5,
        bias: Some(Parameter::new("classes.bias", &[8])),
        after: 0,
        required: false,
    });
    let mut other = Reference::new(other, &mut random);
    for class in [None, Some(2)] {
        other.class = class;
        check(&other, [2, 3, 8, 8], &mut random, &format!("a table and a bias, class {class:?}"));
    }
    let lookup = |name: &str| reference.parameters.get(name).cloned();
    let isa = InstructionSet::detect();
    let mut network = FusedNetwork::new(&reference.network, isa, Precision::F32, lookup).unwrap();
    let error = network.set_class(Some(4)).unwrap_err();
    assert_eq!(error.to_string(), "class 4 of a network of 4 classes, numbered from 0");
}

/// Two levels, skips, shortcuts and residuals: values with several readers, gradients that arrive in several parts.
#[test]
fn a_small_u_net_agrees_with_plain_loops() {
    for before in [0, 1] {
        let mut random = Random(4 + before as u64);
        let mut sketch = Sketch::new(3);
        let first = sketch.push(vec![sketch.source(&[0], 20, 3, Resample::Same, 0, false)], false, None);
        let a = sketch.push(vec![sketch.source(&[first], 20, 3, Resample::Same, 4, true)], true, None);
        let a = sketch.push(vec![sketch.source(&[a], 20, 3, Resample::Same, 4, true)], false, Some(first));
        let down = sketch.push(vec![sketch.source(&[a], 36, 3, Resample::Down { before }, 0, false)], false, None);
        let b = sketch.push(vec![sketch.source(&[down], 36, 3, Resample::Same, 6, true)], true, None);
        let up = sketch.push(vec![sketch.source(&[b], 36, 3, Resample::Up, 0, false)], false, None);
        let c = sketch.push(vec![sketch.source(&[up, first], 20, 3, Resample::Same, 7, true)], true, None);
        let sources = vec![
            sketch.source(&[c], 20, 3, Resample::Same, 5, true),
            sketch.source(&[up, first], 20, 1, Resample::Same, 0, false),
        ];
        let c = sketch.push(sources, false, None);
        sketch.push(vec![sketch.source(&[c], 3, 3, Resample::Same, 4, true)], false, None);
        let reference = Reference::new(sketch.network, &mut random);
        assert_eq!(reference.network.stride(), 2);
        check(&reference, [2, 3, 18, 26], &mut random, "U-Net");
    }
}

/// Rows longer than the tiles that are transformed together, and a point beside a window: blocks that are not full, and
/// inputs that matrices are made of.
#[test]
fn long_rows_are_worked_on_in_pieces() {
    let mut random = Random(41);
    for (inputs, outputs) in [(17, 19), (32, 48)] {
        for (height, width) in [(5, 207), (2, 97), (1, 96)] {
            let mut sketch = Sketch::new(inputs);
            let sources = vec![
                sketch.source(&[0], outputs, 3, Resample::Same, 0, true),
                sketch.source(&[0], outputs, 1, Resample::Same, 0, false),
            ];
            let a = sketch.push(sources, true, None);
            let b = sketch.push(vec![sketch.source(&[0], outputs, 1, Resample::Same, 0, false)], false, None);
            sketch.push(vec![sketch.source(&[a, b], outputs, 3, Resample::Same, 2, true)], false, Some(a));
            let reference = Reference::new(sketch.network, &mut random);
            check(&reference, [2, inputs, height, width], &mut random, "long rows");
        }
    }
}

#[test]
fn factors_scale_the_input_and_the_gradient() {
    let mut random = Random(6);
    let mut sketch = Sketch::new(3);
    sketch.push(vec![sketch.source(&[0], 5, 3, Resample::Same, 0, true)], false, None);
    let reference = Reference::new(sketch.network, &mut random);
    let (x, v) = (random.numbers(3 * 35), random.numbers(5 * 35));
    for isa in InstructionSet::available() {
        let network =
            FusedNetwork::new(&reference.network, isa, Precision::F32, |name| reference.parameters.get(name).cloned())
                .unwrap();
        // A power of two, with which products are exact.
        let quarter: Vec<f32> = x.iter().map(|x| x / 4.0).collect();
        let (value, tape) = network.forward_with_tape(&x, [1, 3, 5, 7], &[0.1], 0.25).unwrap();
        let (expected, other) = network.forward_with_tape(&quarter, [1, 3, 5, 7], &[0.1], 1.0).unwrap();
        assert_eq!(value, expected);
        let gradient: Vec<f32> = network.pullback(&other, &v, 1.0).unwrap().iter().map(|g| g / 4.0).collect();
        assert_eq!(network.pullback(&tape, &v, 0.25).unwrap(), gradient);
    }
}

/// The moments come from sums of squares of single-precision numbers: what cancels in `E[x²] − E[x]²` is lost, a part of
/// about `2⁻²⁴ (mean / deviation)²`.
#[test]
fn a_mean_of_many_deviations_costs_as_many_digits_and_no_more() {
    for offset in [10.0_f32, 30.0, 100.0] {
        let mut random = Random(31);
        let mut sketch = Sketch::new(3);
        let a = sketch.push(vec![sketch.source(&[0], 16, 1, Resample::Same, 0, false)], false, None);
        sketch.push(vec![sketch.source(&[a], 16, 1, Resample::Same, 2, false)], false, None);
        let mut reference = Reference::new(sketch.network, &mut random);
        reference.parameters.get_mut("0.1.1.bias").unwrap().fill(offset);
        let x = random.numbers(3 * 32 * 32);
        let image = Image { data: x.iter().map(|&x| f64::from(x)).collect(), ..Image::zeros(3, 32, 32) };
        let values = reference.values(&image, 0.0);
        for isa in InstructionSet::available() {
            let network = FusedNetwork::new(&reference.network, isa, Precision::F32, |name| {
                reference.parameters.get(name).cloned()
            })
            .unwrap();
            let value = network.forward(&x, [1, 3, 32, 32], &[0.0], 1.0).unwrap();
            let error = relative(&value, &values[2].data);
            println!("{offset} {isa} {error:.2e}");
            let bound = 1e-6 * f64::from(offset) + 6e-8 * f64::from(offset).powi(2);
            assert!(error <= bound, "a mean of {offset} on {isa}: off by {error:.2e}");
        }
    }
}
