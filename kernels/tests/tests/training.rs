//! The optimiser against its formula in double precision, and whole training steps.

use crate::reference::{Image, Random, Reference, Sketch, sum};
use crate::steps::relative;
use std::collections::BTreeMap;
use tweedie_kernels::network::Resample;
use tweedie_kernels::{
    Adam, AdamOptions, Error, FusedNetwork, InstructionSet, Moments, Parameters, Precision, Trainer,
};

/// Algorithm 1 of the paper, line by line, on more elements than a task has.
#[test]
fn adam_takes_the_steps_of_the_paper() {
    let all = [
        AdamOptions::default(),
        AdamOptions { learning_rate: 3e-2, first_decay: 0.5, second_decay: 0.95, epsilon: 1e-3, weight_decay: 0.0 },
        AdamOptions { weight_decay: 0.1, ..AdamOptions::default() },
    ];
    for options in all {
        let mut random = Random(41);
        let n = 40_001;
        let start = random.numbers(n);
        let mut parameters = Parameters::from([("a".to_string(), start.clone()), ("b".to_string(), vec![2.0])]);
        let mut adam = Adam::new(options);
        let mut x: Vec<f64> = start.iter().map(|&x| f64::from(x)).collect();
        let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
        for t in 1..=5 {
            let g = random.numbers(n);
            let gradients = Parameters::from([("a".to_string(), g.clone()), ("b".to_string(), vec![0.0])]);
            adam.step(&mut parameters, &gradients).unwrap();
            for (i, &g) in g.iter().enumerate() {
                let g = f64::from(g);
                m[i] = options.first_decay * m[i] + (1.0 - options.first_decay) * g;
                v[i] = options.second_decay * v[i] + (1.0 - options.second_decay) * g * g;
                let m_hat = m[i] / (1.0 - options.first_decay.powi(t));
                let v_hat = v[i] / (1.0 - options.second_decay.powi(t));
                x[i] -= options.learning_rate * options.weight_decay * x[i];
                x[i] -= options.learning_rate * m_hat / (v_hat.sqrt() + options.epsilon);
            }
            // What was added so far, not the parameters themselves, which hardly move.
            let moved: Vec<f64> = x.iter().zip(&start).map(|(x, s)| x - f64::from(*s)).collect();
            let got: Vec<f32> = parameters["a"].iter().zip(&start).map(|(x, s)| x - s).collect();
            let error = relative(&got, &moved);
            // A parameter of size one is stored to 2⁻²⁵ ≈ 3e-8 at every step, and a step is as large as the rate.
            let bound = 1e-6 + 6e-8 / options.learning_rate;
            assert!(error < bound, "{options:?}, step {t}: off by {error:.2e}");
        }
        assert_eq!(adam.steps(), 5);
        assert!(relative(&adam.moments()["a"].first, &m) < 3e-7);
        assert!(relative(&adam.moments()["a"].second, &v) < 3e-7);
        let decayed = 2.0 * (1.0 - options.learning_rate * options.weight_decay).powi(5);
        assert!((f64::from(parameters["b"][0]) - decayed).abs() < 1e-6, "no gradient, no step");
    }
}

/// `|m̂ / √v̂| = 1` in the first step, whatever the gradient.
#[test]
fn the_first_step_of_adam_is_the_learning_rate() {
    let mut parameters = Parameters::from([("a".to_string(), vec![0.0; 3])]);
    let gradients = Parameters::from([("a".to_string(), vec![1e-3, -5.0, 1e4])]);
    let options = AdamOptions { learning_rate: 0.25, epsilon: 0.0, ..AdamOptions::default() };
    Adam::new(options).step(&mut parameters, &gradients).unwrap();
    for (x, expected) in parameters["a"].iter().zip([-0.25, 0.25, -0.25]) {
        assert!((x - expected).abs() < 1e-6, "{x} and {expected}");
    }
}

#[test]
fn adam_refuses_what_does_not_fit_and_changes_nothing() {
    let mut parameters = Parameters::from([("a".to_string(), vec![1.0]), ("b".to_string(), vec![1.0, 2.0])]);
    let before = parameters.clone();
    let mut adam = Adam::new(AdamOptions::default());
    let mut gradients = Parameters::from([("a".to_string(), vec![1.0])]);
    assert_eq!(adam.step(&mut parameters, &gradients), Err(Error::Missing("b".into())));
    gradients.insert("b".into(), vec![1.0; 3]);
    let error = adam.step(&mut parameters, &gradients).unwrap_err();
    assert_eq!(error.to_string(), "parameter b: expected shape [2], got 3 elements");
    gradients.insert("b".into(), vec![1.0; 2]);
    let moments = Moments { first: vec![0.0; 2], second: vec![0.0; 1] };
    let mut resumed = Adam::resume(AdamOptions::default(), 7, BTreeMap::from([("b".to_string(), moments)]));
    let error = resumed.step(&mut parameters, &gradients).unwrap_err();
    assert_eq!(error, Error::Elements { name: "b".into(), expected: vec![2], got: 1 });
    assert_eq!((adam.steps(), resumed.steps(), &parameters), (0, 7, &before));
}

const SHAPE: [usize; 4] = [3, 3, 18, 26];
const IMAGE: usize = 3 * 18 * 26;

/// Every form of convolution, shortcuts, groups across values, blocks that are not full; enough pixels for pieces.
fn reference() -> Reference {
    let mut sketch = Sketch::new(3);
    let a = sketch.push(vec![sketch.source(&[0], 20, 3, Resample::Same, 0, false)], true, None);
    let b = sketch.push(vec![sketch.source(&[a], 33, 3, Resample::Down { before: 1 }, 5, true)], false, None);
    let c = sketch.push(vec![sketch.source(&[b], 19, 3, Resample::Up, 3, true)], false, None);
    let sources = vec![
        sketch.source(&[c, a], 20, 3, Resample::Same, 13, true),
        sketch.source(&[c, a], 20, 1, Resample::Same, 0, false),
    ];
    let d = sketch.push(sources, true, Some(a));
    sketch.push(vec![sketch.source(&[d], 3, 1, Resample::Same, 0, true)], false, None);
    Reference::new(sketch.network, &mut Random(51))
}

fn fused(reference: &Reference, isa: InstructionSet) -> FusedNetwork {
    FusedNetwork::new(&reference.network, isa, Precision::F32, |name| reference.parameters.get(name).cloned()).unwrap()
}

fn gradients(network: &FusedNetwork, x: &[f32], v: &[f32], shape: [usize; 4], noise: &[f32]) -> Parameters {
    let (_, tape) = network.forward_for_gradients(x, shape, noise, 1.0).unwrap();
    network.gradients(&tape, v, None).unwrap().parameters
}

#[test]
fn the_gradient_of_a_batch_is_the_sum_of_those_of_its_images() {
    let reference = reference();
    let mut random = Random(52);
    let (x, v, noise) = (random.numbers(3 * IMAGE), random.numbers(3 * IMAGE), [0.2, -0.9, 1.4]);
    for isa in InstructionSet::available() {
        let network = fused(&reference, isa);
        let together = gradients(&network, &x, &v, SHAPE, &noise);
        let mut sums: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for b in 0..3 {
            let image = b * IMAGE..(b + 1) * IMAGE;
            for (name, g) in gradients(&network, &x[image.clone()], &v[image], [1, 3, 18, 26], &noise[b..=b]) {
                let sum = sums.entry(name).or_insert_with(|| vec![0.0; g.len()]);
                sum.iter_mut().zip(g).for_each(|(sum, g)| *sum += f64::from(g));
            }
        }
        for (name, sum) in sums {
            let error = relative(&together[&name], &sum);
            assert!(error < 3e-6, "{name} on {isa}: off by {error:.2e}");
        }
    }
}

#[test]
fn a_shared_noise_coordinate_has_the_gradient_of_equal_ones() {
    let reference = reference();
    let mut random = Random(53);
    let (x, v) = (random.numbers(3 * IMAGE), random.numbers(3 * IMAGE));
    let network = fused(&reference, InstructionSet::detect());
    let shared = gradients(&network, &x, &v, SHAPE, &[0.7]);
    for (name, g) in gradients(&network, &x, &v, SHAPE, &[0.7; 3]) {
        let exact: Vec<f64> = g.iter().map(|&g| f64::from(g)).collect();
        assert!(relative(&shared[&name], &exact) < 1e-6, "{name}");
    }
}

#[test]
fn parameters_have_the_gradients_of_the_definition_where_a_batch_is_cut_into_pieces() {
    let reference = reference();
    let mut random = Random(54);
    // 9 · 468 pixels: two pieces at the full resolution.
    let (batch, noise) = (9, 0.7);
    let (x, v) = (random.numbers(batch * IMAGE), random.numbers(batch * IMAGE));
    let image = |data: &[f32]| Image { data: data.iter().map(|&x| f64::from(x)).collect(), ..Image::zeros(3, 18, 26) };
    let mut expected: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for (x, v) in x.chunks(IMAGE).zip(v.chunks(IMAGE)) {
        for (name, g) in reference.gradients(&reference.values(&image(x), noise), noise, &image(v)).1 {
            let sum = expected.entry(name).or_insert_with(|| vec![0.0; g.len()]);
            sum.iter_mut().zip(g).for_each(|(sum, g)| *sum += g);
        }
    }
    for isa in InstructionSet::available() {
        let network = fused(&reference, isa);
        for (name, got) in gradients(&network, &x, &v, [batch, 3, 18, 26], &[noise]) {
            let error = relative(&got, &expected[&name]);
            assert!(error < 3e-6, "{name} on {isa}: off by {error:.2e}");
        }
    }
}

/// Rows that are longer than what the registers sum over, of one image alone, with few channels and with many.
#[test]
fn long_rows_have_the_gradients_of_the_definition() {
    for (inputs, outputs) in [(3, 5), (17, 20)] {
        for resample in [Resample::Same, Resample::Down { before: 1 }, Resample::Up] {
            let mut sketch = Sketch::new(inputs);
            sketch.push(vec![sketch.source(&[0], outputs, 3, resample, 0, true)], true, None);
            let reference = Reference::new(sketch.network, &mut Random(55));
            let mut random = Random(56);
            let mut image = |channels, height, width| {
                let data = random.numbers(channels * height * width).into_iter().map(f64::from).collect();
                Image { channels, height, width, data }
            };
            let x = image(inputs, 2, 274);
            let values = reference.values(&x, 0.7);
            let v = image(outputs, values[1].height, values[1].width);
            let (_, expected) = reference.gradients(&values, 0.7, &v);
            let [x, v] = [x, v].map(|image| image.data.iter().map(|&x| x as f32).collect::<Vec<f32>>());
            for isa in InstructionSet::available() {
                for (name, got) in gradients(&fused(&reference, isa), &x, &v, [1, inputs, 2, 274], &[0.7]) {
                    let error = relative(&got, &expected[&name]);
                    assert!(error < 3e-6, "{name}, {resample:?} on {isa}: off by {error:.2e}");
                }
            }
        }
    }
}

#[test]
fn a_parameter_that_the_output_does_not_depend_on_has_a_gradient_of_zeros() {
    let mut reference = reference();
    // The last step reads the first value instead; everything between is dead.
    let last = reference.network.steps.len() - 1;
    sum(&mut reference.network, last).sources[0].inputs = vec![1];
    let network = fused(&reference, InstructionSet::detect());
    let mut random = Random(57);
    let (x, v) = (random.numbers(IMAGE), random.numbers(IMAGE));
    let gradients = gradients(&network, &x, &v, [1, 3, 18, 26], &[0.7]);
    let names: Vec<&str> = reference.network.parameters().iter().map(|p| p.name.as_str()).collect();
    assert_eq!(gradients.len(), names.len());
    let alive = |name: &str| name.starts_with("0.") || name.starts_with("4.") || name.starts_with("embedding");
    for (name, g) in gradients {
        assert_eq!(g.iter().any(|&g| g != 0.0), alive(&name), "{name}");
    }
}

#[test]
fn a_tape_for_a_pullback_is_refused() {
    let network = fused(&reference(), InstructionSet::Portable);
    let x = vec![0.5; IMAGE];
    let (value, tape) = network.forward_with_tape(&x, [1, 3, 18, 26], &[0.0], 1.0).unwrap();
    let error = network.gradients(&tape, &value, None).unwrap_err();
    assert_eq!(error, Error::Kept);
    assert_eq!(error.to_string(), "the tape does not keep what the gradients of the parameters need");
}

#[test]
fn replaced_parameters_are_those_of_a_new_network() {
    let (old, mut new) = (reference(), reference());
    new.parameters = Reference::new(new.network.clone(), &mut Random(58)).parameters;
    let mut random = Random(59);
    let (x, v) = (random.numbers(3 * IMAGE), random.numbers(3 * IMAGE));
    for isa in InstructionSet::available() {
        let mut network = fused(&old, isa);
        let (_, tape) = network.forward_with_tape(&x, SHAPE, &[0.7], 1.0).unwrap();
        // What is refused changes nothing.
        assert_eq!(network.set_parameters(|_| None), Err(Error::Missing("embedding.weight".into())));
        assert!(network.pullback(&tape, &v, 1.0).is_ok());
        network.set_parameters(|name| new.parameters.get(name).cloned()).unwrap();
        assert_eq!(network.pullback(&tape, &v, 1.0), Err(Error::Tape), "a tape of the old ones");
        let fresh = fused(&new, isa);
        assert_eq!(gradients(&network, &x, &v, SHAPE, &[0.7]), gradients(&fresh, &x, &v, SHAPE, &[0.7]), "{isa}");
        let [value, expected] = [&network, &fresh].map(|network| network.forward(&x, SHAPE, &[0.7], 1.0).unwrap());
        assert_eq!(value, expected, "{isa}");
    }
}

fn trainer(reference: &Reference, isa: InstructionSet) -> Trainer {
    let parameters = reference.parameters.clone().into_iter().collect();
    let options = AdamOptions { learning_rate: 3e-3, ..AdamOptions::default() };
    Trainer::new(&reference.network, isa, Precision::F32, parameters, Adam::new(options)).unwrap()
}

fn squares(target: &[f32]) -> impl Fn(&[f32]) -> (f64, Vec<f32>) {
    move |output| {
        let difference: Vec<f32> = output.iter().zip(target).map(|(f, t)| f - t).collect();
        let loss = difference.iter().map(|d| f64::from(*d).powi(2)).sum::<f64>();
        (loss, difference.iter().map(|d| 2.0 * d).collect())
    }
}

#[test]
fn the_number_of_threads_changes_no_byte_of_a_training_run() {
    let reference = reference();
    let mut random = Random(60);
    let (batch, shape) = (9, [9, 3, 18, 26]);
    let (x, target) = (random.numbers(batch * IMAGE), random.numbers(batch * IMAGE));
    for isa in InstructionSet::available() {
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut trainer = trainer(&reference, isa);
                let steps = [(); 3].map(|()| trainer.step(&x, shape, &[0.7], squares(&target)).unwrap());
                let bits = |values: &Vec<f32>| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                (steps, trainer.parameters().values().map(bits).collect::<Vec<_>>())
            })
        };
        let one = on(1);
        for threads in [2, 3, 5] {
            assert!(one == on(threads), "{threads} threads on {isa}");
        }
    }
}

#[test]
fn training_lowers_the_loss_and_a_resumed_run_continues_it() {
    let reference = reference();
    let mut random = Random(61);
    let (x, target) = (random.numbers(2 * IMAGE), vec![0.5; 2 * IMAGE]);
    let isa = InstructionSet::detect();
    let mut all = trainer(&reference, isa);
    let shape = [2, 3, 18, 26];
    let step = |trainer: &mut Trainer| trainer.step(&x, shape, &[0.1, 0.9], squares(&target)).unwrap();
    let first = step(&mut all);
    for _ in 0..20 {
        step(&mut all);
    }
    let adam = Adam::resume(all.adam().options, all.adam().steps(), all.adam().moments().clone());
    let mut resumed = Trainer::new(&reference.network, isa, Precision::F32, all.parameters().clone(), adam).unwrap();
    let last = step(&mut all);
    assert!(last.loss < 0.5 * first.loss, "{} after {}", last.loss, first.loss);
    assert_eq!(step(&mut resumed), last);
    assert_eq!(resumed.parameters(), all.parameters());
}

#[test]
fn a_loss_or_a_gradient_that_is_not_finite_stops_before_anything_changes() {
    let reference = reference();
    let mut trainer = trainer(&reference, InstructionSet::detect());
    let before = trainer.parameters().clone();
    let (x, shape) = (vec![0.5; IMAGE], [1, 3, 18, 26]);
    let error = trainer.step(&x, shape, &[0.7], |v| (f64::NAN, v.to_vec())).unwrap_err();
    assert_eq!(error.to_string(), "the loss is not finite");
    let error = trainer.step(&x, shape, &[0.7], |v| (1.0, vec![f32::INFINITY; v.len()])).unwrap_err();
    assert!(error.to_string().starts_with("the gradient of "), "{error}");
    assert!(error.to_string().ends_with(" is not finite"), "{error}");
    assert_eq!((trainer.parameters(), trainer.adam().steps()), (&before, 0));
}

/// Values and their gradients are rounded to eight bits, products and sums of the weight gradient are not.
#[test]
fn gradients_in_bf16_are_those_in_f32_up_to_its_rounding() {
    let reference = reference();
    let mut random = Random(62);
    let (x, v) = (random.numbers(3 * IMAGE), random.numbers(3 * IMAGE));
    for isa in InstructionSet::available() {
        let exact = gradients(&fused(&reference, isa), &x, &v, SHAPE, &[0.7]);
        let lookup = |name: &str| reference.parameters.get(name).cloned();
        let network = FusedNetwork::new(&reference.network, isa, Precision::Bf16, lookup).unwrap();
        for (name, got) in gradients(&network, &x, &v, SHAPE, &[0.7]) {
            let expected: Vec<f64> = exact[&name].iter().map(|&g| f64::from(g)).collect();
            let error = relative(&got, &expected);
            println!("{isa} {name} {error:.1e}");
            assert!(error < 4e-2, "{name} on {isa}: off by {error:.2e}");
        }
    }
}
