//! What is refused, and in which words.

use crate::reference::{Random, Reference, Sketch, sum};
use tweedie_kernels::network::{Attention, Features, Network, Parameter, Resample, Step};
use tweedie_kernels::{Error, FusedNetwork, InstructionSet, Precision};

fn reference() -> Reference {
    let mut sketch = Sketch::new(3);
    let a = sketch.push(vec![sketch.source(&[0], 4, 3, Resample::Down { before: 1 }, 0, false)], true, None);
    let b = sketch.push(vec![sketch.source(&[a], 2, 3, Resample::Up, 2, true)], false, None);
    sketch.attention([b, b, b], 2);
    Reference::new(sketch.network, &mut Random(21))
}

fn fused(reference: &Reference) -> Result<FusedNetwork, Error> {
    FusedNetwork::new(&reference.network, InstructionSet::Portable, Precision::F32, |name| {
        reference.parameters.get(name).cloned()
    })
}

#[test]
fn a_missing_parameter_is_named() {
    let mut reference = reference();
    reference.parameters.remove("1.3.1.norm.bias");
    let error = fused(&reference).unwrap_err();
    assert_eq!(error, Error::Missing("1.3.1.norm.bias".into()));
    assert_eq!(error.to_string(), "missing parameter 1.3.1.norm.bias");
}

#[test]
fn a_parameter_of_another_size_is_named_with_both_sizes() {
    let mut reference = reference();
    reference.parameters.get_mut("0.3.1.weight").unwrap().pop();
    let error = fused(&reference).unwrap_err();
    assert_eq!(error.to_string(), "parameter 0.3.1.weight: expected shape [4, 3, 3, 3], got 107 elements");
    assert!(matches!(error, Error::Elements { got: 107, .. }));
}

#[test]
fn an_input_of_the_wrong_shape_is_refused() {
    let network = fused(&reference()).unwrap();
    let forward = |shape: [usize; 4]| {
        network.forward(&vec![0.0; shape.iter().product()], shape, &[0.0], 1.0).unwrap_err().to_string()
    };
    let expected = "expected [B, 3, multiple of 2, multiple of 2]";
    for shape in [[1, 4, 4, 4], [1, 3, 5, 4], [1, 3, 4, 7], [0, 3, 4, 4], [1, 3, 0, 4], [1, 3, 4, 0]] {
        assert_eq!(forward(shape), format!("input of shape {shape:?}, {expected}"));
    }
}

#[test]
fn the_number_of_elements_has_to_be_that_of_the_shape() {
    let network = fused(&reference()).unwrap();
    let shape = [1, 3, 4, 4];
    let error = network.forward(&[0.0; 47], shape, &[0.0], 1.0).unwrap_err();
    assert_eq!(error, Error::Length { got: 47, shape });
    assert_eq!(error.to_string(), "47 elements for shape [1, 3, 4, 4]");
    // 3 · 2⁶² · 4 wraps around to zero.
    let shape = [1 << 62, 3, 2, 2];
    assert_eq!(network.forward(&[], shape, &[0.0], 1.0).unwrap_err(), Error::Length { got: 0, shape });

    let (_, tape) = network.forward_with_tape(&[0.0; 96], [2, 3, 4, 4], &[0.0], 1.0).unwrap();
    let error = network.pullback(&tape, &[0.0; 65], 1.0).unwrap_err();
    assert_eq!(error.to_string(), "65 elements for shape [2, 2, 4, 4]");
}

#[test]
fn noise_is_one_number_or_one_per_image() {
    let network = fused(&reference()).unwrap();
    for got in [0, 2, 4] {
        let error = network.forward(&[0.0; 144], [3, 3, 4, 4], &vec![0.0; got], 1.0).unwrap_err();
        assert_eq!(error, Error::Noise { got, batch: 3 });
        assert_eq!(error.to_string(), format!("{got} noise coordinates for a batch of 3, expected 1 or 3"));
    }
}

#[test]
fn the_tape_of_another_network_is_refused() {
    let (one, other) = (fused(&reference()).unwrap(), fused(&reference()).unwrap());
    let (value, tape) = one.forward_with_tape(&[0.5; 48], [1, 3, 4, 4], &[0.0], 1.0).unwrap();
    let error = other.pullback(&tape, &value, 1.0).unwrap_err();
    assert_eq!(error, Error::Tape);
    assert_eq!(error.to_string(), "the tape belongs to another network");
    // A network that has moved is the same one.
    let moved = Box::new(one);
    assert!(moved.pullback(&tape, &value, 1.0).is_ok());
}

fn attention(network: &mut Network) -> &mut Attention {
    match &mut network.steps[2] {
        Step::Attention(attention) => attention,
        step => panic!("{} is no attention", step.name()),
    }
}

fn features(network: &mut Network, channels: usize) {
    network.embedding.features = Features::Positional { channels, cosine_first: true, frequency_shift: 0.0 };
}

/// What the kernels would otherwise read or write outside their memory for.
#[test]
fn a_description_that_does_not_fit_together_is_refused() {
    type Change = fn(&mut Network);
    let changes: [(Change, &str); 26] = [
        (|n| features(n, 7), "embedding: 7 channels, expected an even number"),
        (|n| features(n, 6), "layer 1 of the embedding: embedding.weight has shape [10, 8], expected [10, 6]"),
        (|n| sum(n, 0).sources.clear(), "step 1: no source"),
        (|n| sum(n, 1).sources[0].inputs.clear(), "step 2: a source without inputs"),
        (|n| sum(n, 1).sources[0].inputs[0] = 2, "step 2: value 2 is not an earlier one"),
        (|n| sum(n, 1).sources[0].inputs[0] = 9, "step 2: value 9 is not an earlier one"),
        (|n| sum(n, 1).sources[0].inputs.push(0), "step 2: value 0 has another resolution than the other inputs"),
        (|n| sum(n, 1).residual = Some(2), "step 2: value 2 is not an earlier one"),
        (|n| sum(n, 1).residual = Some(0), "step 2: residual value 0 has another shape than the result"),
        (|n| sum(n, 0).residual = Some(0), "step 1: residual value 0 has another shape than the result"),
        (|n| sum(n, 0).channels = 5, "step 1: 0.3.1.weight has shape [4, 3, 3, 3], expected [5, 3, 3, 3]"),
        (|n| n.channels = 2, "step 1: 0.3.1.weight has shape [4, 3, 3, 3], expected [4, 2, 3, 3]"),
        (
            |n| sum(n, 0).sources[0].weight.shape = vec![4, 3, 3],
            "step 1: 0.3.1.weight has shape [4, 3, 3], expected [4, 3, 3, 3]",
        ),
        (
            |n| {
                let source = &mut sum(n, 0).sources[0];
                source.resample = Resample::Same;
                source.weight.shape = vec![4, 3, 2, 2];
            },
            "step 1: a kernel of 2 × 2, expected an odd size",
        ),
        (|n| sum(n, 0).sources[0].bias = Some(Parameter::new("b", &[3])), "step 1: b has shape [3], expected [4]"),
        (
            |n| {
                let mut source = sum(n, 1).sources[0].clone();
                source.resample = Resample::Same;
                sum(n, 1).sources.push(source);
            },
            "step 2: sources with Up and Same",
        ),
        (|n| sum(n, 1).sources[0].norm.as_mut().unwrap().groups = 0, "step 2: 4 channels in 0 groups"),
        (|n| sum(n, 1).sources[0].norm.as_mut().unwrap().groups = 3, "step 2: 4 channels in 3 groups"),
        (
            |n| sum(n, 0).embedding.as_mut().unwrap().weight.shape = vec![4, 9],
            "step 1: 0.projection.weight has shape [4, 9], expected [4, 10]",
        ),
        (
            |n| sum(n, 0).sources[0].weight.shape = vec![4, 3, 1],
            "step 1: 0.3.1.weight has shape [4, 3, 1], expected [4, 3, 1, 1]",
        ),
        (|n| sum(n, 0).sources[0].weight.shape = vec![3, 4], "step 1: 0.3.1.weight has shape [3, 4], expected [4, 3]"),
        (|n| attention(n).key = 3, "step 3: value 3 is not an earlier one"),
        (|n| attention(n).value = 1, "step 3: value 1 has another resolution than the other inputs"),
        (|n| attention(n).heads = 0, "step 3: 2 channels in 0 heads"),
        (|n| attention(n).heads = 4, "step 3: 2 channels in 4 heads"),
        (|n| (attention(n).key, attention(n).heads) = (0, 1), "step 3: queries of 2 and keys of 3 channels"),
    ];
    for (change, expected) in changes {
        let mut reference = reference();
        change(&mut reference.network);
        let error = fused(&reference).unwrap_err();
        assert!(matches!(error, Error::Network(_)));
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn an_instruction_set_that_the_machine_lacks_is_refused() {
    assert_eq!(
        "sse9".parse::<InstructionSet>().unwrap_err().to_string(),
        "unknown instruction set `sse9`; known: portable, avx2, avx512, avx512-bf16, amx-bf16"
    );
    use InstructionSet::{Amx, Avx2, Avx512, Avx512Bf16, Portable};
    let all = [Portable, Avx2, Avx512, Avx512Bf16, Amx];
    for isa in all {
        assert_eq!(isa.to_string().parse(), Ok(isa));
        let reference = reference();
        let network =
            FusedNetwork::new(&reference.network, isa, Precision::F32, |name| reference.parameters.get(name).cloned());
        match InstructionSet::available().contains(&isa) {
            true => assert_eq!(network.unwrap().instruction_set(), isa),
            false => assert_eq!(network.unwrap_err().to_string(), format!("this machine has no {isa}")),
        }
    }
}

/// The variable is read once per process, so every value gets a process of its own: this test, run again.
#[test]
fn the_environment_chooses_the_instruction_set() {
    const SHOW: &str = "TWEEDIE_TEST_SHOW_INSTRUCTION_SET";
    if std::env::var_os(SHOW).is_some() {
        let requested = InstructionSet::requested().map(|r| r.map_or_else(|e| e.to_string(), |isa| isa.to_string()));
        println!("<{}|{}>", requested.unwrap_or("nothing".into()), InstructionSet::detect());
        return;
    }
    // AMX is there for who asks for it.
    let best = InstructionSet::available().into_iter().rfind(|&isa| isa != InstructionSet::Amx).unwrap();
    let name = std::thread::current().name().unwrap().to_string();
    let shown = |value: Option<&str>| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command
            .args([&name, "--exact", "--nocapture", "--test-threads=1"])
            .env(SHOW, "1")
            .env_remove("TWEEDIE_CPU_FEATURES");
        command.envs(value.map(|value| ("TWEEDIE_CPU_FEATURES", value)));
        let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let from = output.find('<').expect(&output);
        output[from..=output.find('>').unwrap()].to_string()
    };
    assert_eq!(shown(None), format!("<nothing|{best}>"));
    assert_eq!(shown(Some("")), format!("<nothing|{best}>"));
    assert_eq!(shown(Some("portable")), "<portable|portable>");
    let unknown = "unknown instruction set `avx1024`; known: portable, avx2, avx512, avx512-bf16, amx-bf16";
    assert_eq!(shown(Some("avx1024")), format!("<{unknown}|{best}>"));
    let expected = match InstructionSet::available().contains(&InstructionSet::Avx512) {
        true => "<avx512|avx512>".to_string(),
        false => format!("<this machine has no avx512|{best}>"),
    };
    assert_eq!(shown(Some("avx512")), expected);
}
