//! What a step costs on paper, and that a run can be watched step by step.

use crate::reference::{Random, Reference, Sketch};
use tweedie_kernels::network::Resample;
use tweedie_kernels::{FusedNetwork, InstructionSet, Precision};

/// Every change of resolution, a value that two sources read, a residual that is an input and one that is not.
fn sketch() -> Sketch {
    let mut sketch = Sketch::new(3);
    let a = sketch.push(vec![sketch.source(&[0], 8, 3, Resample::Same, 0, false)], true, None);
    let b = sketch.push(vec![sketch.source(&[a], 4, 3, Resample::Down { before: 1 }, 4, true)], false, None);
    let c = sketch.push(vec![sketch.source(&[b], 8, 3, Resample::Up, 2, true)], false, Some(a));
    let sources = vec![
        sketch.source(&[c, a], 8, 3, Resample::Same, 4, true),
        sketch.source(&[a], 8, 1, Resample::Same, 0, false),
    ];
    sketch.push(sources, false, Some(c));
    sketch
}

#[test]
fn the_work_of_every_step_is_that_counted_by_hand() {
    let network = sketch().network;
    network.check().unwrap();
    let names: Vec<&str> = network.steps.iter().map(|step| step.name()).collect();
    assert_eq!(names, ["0.3.1", "1.3.1", "2.3.1", "3.3.2"]);
    let work = network.work(10, 6);
    let (full, half) = (60.0, 15.0);
    let sizes: Vec<_> = work.iter().map(|w| (w.input_channels, w.output_channels, w.size)).collect();
    assert_eq!(sizes, [(3, 8, (10, 6)), (8, 4, (5, 3)), (4, 8, (10, 6)), (16, 8, (10, 6))]);
    let weights = [9.0 * 3.0 * 8.0, 9.0 * 8.0 * 4.0, 9.0 * 4.0 * 8.0, 9.0 * 16.0 * 8.0 + 8.0 * 8.0];
    let read = [3.0 * full, 8.0 * full, 4.0 * half + 8.0 * full, 16.0 * full];
    let written = [8.0 * full, 4.0 * half, 8.0 * full, 8.0 * full];
    for (k, work) in work.iter().enumerate() {
        let area = if k == 1 { half } else { full };
        assert_eq!((work.weights, work.read, work.written), (weights[k], read[k], written[k]), "step {k}");
        assert_eq!(work.operations, 2.0 * area * weights[k], "step {k}");
        assert_eq!(work.bytes(3, 4, 2), 12.0 * (read[k] + written[k]) + 2.0 * weights[k], "step {k}");
    }
    assert_eq!(network.operations(10, 6), work.iter().map(|work| work.operations).sum::<f64>());
}

#[test]
fn the_kernels_take_fewer_products_where_they_can() {
    let reference = Reference::new(sketch().network, &mut Random(20));
    let lookup = |name: &str| reference.parameters.get(name).cloned();
    for isa in InstructionSet::available() {
        let network = FusedNetwork::new(&reference.network, isa, Precision::F32, lookup).unwrap();
        let taken = network.step_operations(10, 6);
        let written: Vec<f64> = reference.network.work(10, 6).iter().map(|work| work.operations).collect();
        // Three channels are too few for Winograd's way, and there is none for a stride of two.
        assert_eq!(taken[..2], written[..2]);
        // Four phases with four taps, instead of nine.
        assert_eq!(taken[2], written[2] * 4.0 / 9.0);
        // Sixteen products of a window instead of 36 for four pixels, and one of a point for each.
        assert_eq!(taken[3], 2.0 * 60.0 * 8.0 * (16.0 * 4.0 + 8.0));
    }
}

#[test]
fn the_work_of_an_attention_is_that_of_its_two_products() {
    let mut sketch = Sketch::new(6);
    let wide = sketch.push(vec![sketch.source(&[0], 10, 1, Resample::Down { before: 0 }, 0, false)], false, None);
    let narrow = sketch.push(vec![sketch.source(&[0], 6, 1, Resample::Down { before: 0 }, 0, false)], false, None);
    sketch.attention([narrow, narrow, wide], 2);
    sketch.network.check().unwrap();
    let work = sketch.network.work(10, 6)[2];
    let pixels = 15.0;
    assert_eq!(sketch.network.steps[2].name(), "attention");
    assert_eq!((work.input_channels, work.output_channels, work.size), (16, 10, (5, 3)));
    assert_eq!((work.read, work.written, work.weights), (16.0 * pixels, 10.0 * pixels, 0.0));
    assert_eq!(work.operations, 2.0 * pixels * pixels * (6.0 + 10.0));
    let reference = Reference::new(sketch.network, &mut Random(23));
    let lookup = |name: &str| reference.parameters.get(name).cloned();
    let network = FusedNetwork::new(&reference.network, InstructionSet::detect(), Precision::F32, lookup).unwrap();
    assert_eq!(network.step_operations(10, 6)[2], work.operations);
}

#[test]
fn an_observer_sees_every_step_once_and_changes_nothing() {
    let reference = Reference::new(sketch().network, &mut Random(21));
    let x = Random(22).numbers(2 * 3 * 4 * 6);
    let lookup = |name: &str| reference.parameters.get(name).cloned();
    let network = FusedNetwork::new(&reference.network, InstructionSet::detect(), Precision::F32, lookup).unwrap();
    let mut seen = Vec::new();
    let start = std::time::Instant::now();
    let mut observer = |index, time| seen.push((index, time));
    let watched = network.forward_observed(&x, [2, 3, 4, 6], &[0.3], 1.0, &mut observer).unwrap();
    let whole = start.elapsed();
    assert_eq!(watched, network.forward(&x, [2, 3, 4, 6], &[0.3], 1.0).unwrap());
    assert_eq!(seen.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(seen.iter().map(|(_, time)| *time).sum::<std::time::Duration>() <= whole);
}
