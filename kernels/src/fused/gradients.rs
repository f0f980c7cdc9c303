//! Gradients of a network's parameters, collected on the way back through its steps.

use super::{ChannelSums, Error, FusedDense, FusedNetwork, FusedStep, Keep, NormState, Tape, forward_offset, planes};
use crate::map::Map;
use crate::network::{Dense, Features, Network, Resample, Source, Step};
use crate::precision::Precision;
use crate::weight_gradient::{PhaseTaps, WeightGradient};
use std::collections::BTreeMap;

/// Numbers by the names of a network's parameters, in the order of the names.
pub type Parameters = BTreeMap<String, Vec<f32>>;

/// Gradients of `Σ v · F(x)`.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// Of every parameter of the network; zeros for one that the output does not depend on.
    pub parameters: Parameters,
    /// Of the input `x`, where it was asked for.
    pub input: Option<Vec<f32>>,
}

impl Gradients {
    /// Euclidean norm of the gradients of all parameters.
    pub fn norm(&self) -> f64 {
        let square = |g: &f32| f64::from(*g).powi(2);
        self.parameters.values().map(|values| values.iter().map(square).sum::<f64>()).sum::<f64>().sqrt()
    }
}

impl FusedNetwork {
    /// Gradients of `Σ v · F` with respect to all parameters, with the tape of
    /// [`forward_for_gradients`](Self::forward_for_gradients); with respect to the input as well where its `factor` in
    /// that pass is given.
    ///
    /// They are sums over the batch, and their bytes do not depend on the number of threads.
    ///
    /// # Shapes
    /// `v`: like the output of that pass
    /// # Errors
    /// `Tape`; `Kept` for a tape of another method; `Length` if `v` has another number of elements than the output;
    /// `Unsupported` for a network with norms that the embedding modulates, sums times a number, filters, learned features or
    /// classes.
    pub fn gradients(&self, tape: &Tape, v: &[f32], factor: Option<f32>) -> Result<Gradients, Error> {
        if tape.keep != Keep::ForGradients {
            return Err(Error::Kept);
        }
        Self::has_gradients(&self.network)?;
        let mut collector = Collector::new(self, tape);
        let input = self.go_back(tape, v, factor, Some(&mut collector))?;
        Ok(Gradients { parameters: collector.finish(tape), input: factor.map(|_| input) })
    }

    /// Whether [`gradients`](Self::gradients) knows every step of a network.
    ///
    /// # Errors
    /// `Unsupported` with the first that only the gradient of the input knows.
    pub fn has_gradients(network: &Network) -> Result<(), Error> {
        let refuse = |what: String| Err(Error::Unsupported(format!("the gradient of the parameters around {what}")));
        if network.embedding.classes.is_some() {
            return refuse("the classes of the embedding".into());
        }
        if let Features::Learned { table } = &network.embedding.features {
            return refuse(format!("the rows of {}", table.name));
        }
        for step in &network.steps {
            match step {
                Step::Resize(_) => return refuse(format!("the {}", step.name())),
                Step::Sum(sum) if sum.scale != 1.0 => return refuse(format!("the factor of {}", step.name())),
                Step::Sum(sum) => {
                    let mut norms = sum.sources.iter().filter_map(|source| source.norm.as_ref());
                    if norms.any(|norm| norm.modulation.is_some()) {
                        return refuse(format!("the modulation in {}", step.name()));
                    }
                }
                Step::Attention(_) => {}
            }
        }
        Ok(())
    }
}

/// What has been found so far.
#[derive(Debug)]
pub(super) struct Collector<'a> {
    network: &'a FusedNetwork,
    parameters: Parameters,
    /// For every noise coordinate the sines and cosines and the results of all layers.
    embeddings: Vec<Vec<Vec<f32>>>,
    /// Gradients of the last of them.
    embedded: Vec<Vec<f32>>,
}

impl<'a> Collector<'a> {
    fn new(network: &'a FusedNetwork, tape: &Tape) -> Self {
        let embeddings: Vec<Vec<Vec<f32>>> = tape
            .noise
            .iter()
            .map(|&noise| {
                let mut values = vec![network.features(noise)];
                for layer in &network.layers {
                    values.push(layer.apply(&values[values.len() - 1]));
                }
                values
            })
            .collect();
        let embedded = embeddings.iter().map(|values| vec![0.0; values[values.len() - 1].len()]).collect();
        Self { network, parameters: Parameters::new(), embeddings, embedded }
    }

    fn add(&mut self, name: &str, gradient: Vec<f32>) {
        match self.parameters.get_mut(name) {
            // A parameter with two uses.
            Some(sum) => sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g),
            None => {
                self.parameters.insert(name.into(), gradient);
            }
        }
    }

    /// Weights, biases and the projection of the embedding of a step whose result has this gradient.
    pub(super) fn step(&mut self, tape: &Tape, index: usize, gradient: &Map) {
        let (FusedStep::Sum(fused), Step::Sum(step)) = (&self.network.steps[index], &self.network.network.steps[index])
        else {
            return;
        };
        let size = (gradient.height, 1);
        let mut row_sums = Map::new(&self.network.pool, Precision::F32, tape.batch, gradient.blocks, size);
        for (number, (source, fused)) in step.sources.iter().zip(&fused.sources).enumerate() {
            let (phases, elements) = taps(source);
            let (read_stride, write_stride) = source.resample.strides();
            let taps = WeightGradient {
                isa: self.network.isa,
                precision: self.network.precision,
                batch: tape.batch,
                input_size: tape.sizes[source.inputs[0]],
                output_size: (gradient.height, gradient.width),
                read_stride,
                write_stride,
                phases: &phases,
                elements: &elements,
                layout: &fused.layout,
                inputs: planes(&tape.values, &source.inputs),
                reading: tape.norms[index][number].as_ref().map(|state| state.reading(source.silu)),
                gradient: (0..gradient.blocks).map(|block| gradient.read(block)).collect(),
                row_sums: (number == 0).then(|| (0..gradient.blocks).map(|block| row_sums.write(block)).collect()),
            }
            .run(&self.network.pool);
            self.add(&source.weight.name, taps.weights(step.channels, &fused.layout));
        }
        // Per image and channel, in the order of the rows and in double precision.
        let sum = |b: usize, c: usize| row_sums.channel(b, c).map(f64::from).sum::<f64>();
        let sums: Vec<Vec<f64>> = (0..tape.batch).map(|b| (0..step.channels).map(|c| sum(b, c)).collect()).collect();
        let total: Vec<f32> =
            (0..step.channels).map(|c| sums.iter().map(|of_image| of_image[c]).sum::<f64>() as f32).collect();
        for source in &step.sources {
            if let Some(bias) = &source.bias {
                self.add(&bias.name, total.clone());
            }
        }
        if let (Some(names), Some(layer)) = (&step.embedding, &fused.embedding) {
            // Images that share a noise coordinate share its embedding.
            let mut of_noise = vec![vec![0.0; step.channels]; tape.noise.len()];
            for (b, sums) in sums.iter().enumerate() {
                of_noise[b.min(tape.noise.len() - 1)].iter_mut().zip(sums).for_each(|(to, sum)| *to += sum);
            }
            let of_noise: Vec<Vec<f32>> =
                of_noise.into_iter().map(|sums| sums.into_iter().map(|sum| sum as f32).collect()).collect();
            let last = self.network.layers.len();
            let arguments: Vec<Vec<f32>> = self.embeddings.iter().map(|values| values[last].clone()).collect();
            let back = self.dense(names, layer, &arguments, &of_noise);
            for (sum, back) in self.embedded.iter_mut().zip(back) {
                sum.iter_mut().zip(back).for_each(|(sum, g)| *sum += g);
            }
        }
    }

    /// Scale and shift of a normalisation, from the sums of its data gradient.
    ///
    /// With `u = ∂L/∂(γ x̂ + β)` and `x̂ = (x − μ) r`: `∂L/∂β = Σ u` and `∂L/∂γ = Σ u x̂ = r (Σ u x − μ Σ u)`.
    pub(super) fn norm(&mut self, (step, source): (usize, usize), state: &NormState, sums: &ChannelSums) {
        let network = self.network;
        let Step::Sum(step) = &network.network.steps[step] else { return };
        let Some(norm) = &step.sources[source].norm else { return };
        let channels = norm.weight.elements();
        let width = channels / norm.groups;
        let mut gradients = vec![(0.0, 0.0); channels];
        for (sums, moments) in sums.chunks(channels).zip(state.moments.chunks(norm.groups)) {
            for (c, (gradient, (u, ux))) in gradients.iter_mut().zip(sums).enumerate() {
                let (mean, inverse) = moments[c / width];
                gradient.0 += inverse * (ux - mean * u);
                gradient.1 += u;
            }
        }
        self.add(&norm.weight.name, gradients.iter().map(|g| g.0 as f32).collect());
        self.add(&norm.bias.name, gradients.iter().map(|g| g.1 as f32).collect());
    }

    /// Gradients of a fully connected layer with these arguments whose results have these gradients; returns those of
    /// the arguments.
    fn dense(
        &mut self,
        names: &Dense,
        layer: &FusedDense,
        arguments: &[Vec<f32>],
        gradients: &[Vec<f32>],
    ) -> Vec<Vec<f32>> {
        let inputs = arguments[0].len();
        let mut weight = vec![0.0; layer.weight.len()];
        let mut bias = vec![0.0; layer.bias.len()];
        let mut back = Vec::with_capacity(arguments.len());
        for (argument, gradient) in arguments.iter().zip(gradients) {
            let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
            let activated: Vec<f32> = match layer.silu {
                true => argument.iter().map(|&x| x * sigmoid(x)).collect(),
                false => argument.clone(),
            };
            let mut of_argument = vec![0.0; inputs];
            for (o, &g) in gradient.iter().enumerate() {
                let row = o * inputs..(o + 1) * inputs;
                weight[row.clone()].iter_mut().zip(&activated).for_each(|(sum, x)| *sum += g * x);
                of_argument.iter_mut().zip(&layer.weight[row]).for_each(|(sum, w)| *sum += g * w);
                bias[o] += g;
            }
            if layer.silu {
                for (sum, &x) in of_argument.iter_mut().zip(argument) {
                    let s = sigmoid(x);
                    *sum *= s * (1.0 + x * (1.0 - s));
                }
            }
            back.push(of_argument);
        }
        self.add(&names.weight.name, weight);
        self.add(&names.bias.name, bias);
        back
    }

    /// The layers of the embedding, and zeros for what the output does not depend on.
    fn finish(mut self, tape: &Tape) -> Parameters {
        let network = self.network;
        let mut gradients = std::mem::take(&mut self.embedded);
        for (index, (names, layer)) in network.network.embedding.layers.iter().zip(&network.layers).enumerate().rev() {
            let arguments: Vec<Vec<f32>> = self.embeddings.iter().map(|values| values[index].clone()).collect();
            gradients = self.dense(names, layer, &arguments, &gradients);
        }
        debug_assert_eq!(gradients.len(), tape.noise.len());
        for parameter in network.network.parameters() {
            let zeros = || vec![0.0; parameter.elements()];
            self.parameters.entry(parameter.name.clone()).or_insert_with(zeros);
        }
        self.parameters
    }
}

/// The phases of a convolution, and for each element of its kernel the taps (counted through all phases) whose matrices
/// it is added to.
fn taps(source: &Source) -> (Vec<PhaseTaps>, Vec<Vec<usize>>) {
    let size = source.kernel();
    let parities: &[usize] = if source.resample == Resample::Up { &[0, 1] } else { &[0] };
    let mut elements = vec![Vec::new(); size * size];
    let mut phases = Vec::new();
    let mut count = 0;
    for &y in parities {
        for &x in parities {
            let mut taps: Vec<(isize, isize)> = Vec::new();
            for (element, of) in elements.iter_mut().enumerate() {
                let offset = |phase, k| forward_offset(source.resample, phase, k, size);
                let tap = (offset(y, element / size), offset(x, element % size));
                let index = taps.iter().position(|&other| other == tap).unwrap_or_else(|| {
                    taps.push(tap);
                    taps.len() - 1
                });
                of.push(count + index);
            }
            count += taps.len();
            phases.push(PhaseTaps { y, x, taps });
        }
    }
    (phases, elements)
}
