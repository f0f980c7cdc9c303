//! The numbers that training starts from.

use candle_core::Device;
use std::collections::BTreeSet;
use tweedie_kernels::Parameters;
use tweedie_kernels::network::{Features, Network, Step};
use tweedie_operators::{Result, Rng};

/// Standard deviation of the frequencies of Fourier features, as in NCSN++ (Song et al., 2021,
/// <https://arxiv.org/abs/2011.13456>).
const FREQUENCIES: f64 = 16.0;

/// Parameters of a network that has learned nothing: weights of variance `1/fan_in`, uniform, biases 0, scales of norms 1.
///
/// The last convolution of every residual branch and of the network is 0, so that a deep network starts as the identity
/// whatever its depth and its normalisation (Zhang et al., 2019, <https://arxiv.org/abs/1901.09321>).
///
/// # Errors
/// Those of drawing numbers.
pub fn initial_parameters(network: &Network, seed: u64) -> Result<Parameters> {
    let (mut zeros, mut ones) = (BTreeSet::new(), BTreeSet::new());
    for (index, step) in network.steps.iter().enumerate() {
        match step {
            Step::Sum(sum) => {
                let branch = sum.residual.is_some() || sum.sources.len() > 1;
                for (number, source) in sum.sources.iter().enumerate() {
                    ones.extend(source.norm.as_ref().map(|norm| norm.weight.name.as_str()));
                    let activated = source.silu && number == 0;
                    if branch && activated || index + 1 == network.steps.len() {
                        zeros.insert(source.weight.name.as_str());
                    }
                }
            }
            Step::Resize(resize) => ones.extend(resize.norm.as_ref().map(|norm| norm.weight.name.as_str())),
            Step::Attention(_) => {}
        }
    }
    let frequencies = match &network.embedding.features {
        Features::Fourier { frequencies, .. } => Some(frequencies.name.as_str()),
        _ => None,
    };
    let mut parameters = Parameters::new();
    for (index, parameter) in network.parameters().into_iter().enumerate() {
        let (name, count) = (parameter.name.as_str(), parameter.elements());
        let shape = (1, 1, 1, count);
        let mut rng = Rng::new(seed, index as u64..index as u64 + 1);
        let fan_in: usize = parameter.shape[1..].iter().product();
        let values = if frequencies == Some(name) {
            (rng.normal(shape, &Device::Cpu)? * FREQUENCIES)?.flatten_all()?.to_vec1()?
        } else if ones.contains(name) {
            vec![1.0; count]
        } else if zeros.contains(name) || parameter.shape.len() < 2 {
            vec![0.0; count]
        } else {
            let bound = (3.0 / fan_in as f64).sqrt();
            rng.uniform(shape, &Device::Cpu)?.affine(2.0 * bound, -bound)?.flatten_all()?.to_vec1()?
        };
        parameters.insert(name.into(), values);
    }
    Ok(parameters)
}
