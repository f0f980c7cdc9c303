//! Adam, Kingma and Ba (2015), <https://arxiv.org/abs/1412.6980>.

use crate::fused::{Error, Parameters};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Hyper-parameters of [`Adam`]; the defaults are those of the paper.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamOptions {
    /// α, no unit; default 1e-3.
    pub learning_rate: f64,
    /// β₁, decay of the first moment; default 0.9.
    pub first_decay: f64,
    /// β₂, decay of the second moment; default 0.999.
    pub second_decay: f64,
    /// ε, added to the root of the second moment; default 1e-8.
    pub epsilon: f64,
    /// λ, decoupled weight decay as in AdamW (Loshchilov and Hutter, <https://arxiv.org/abs/1711.05101>): parameters are
    /// multiplied by `1 − α λ` before a step; default 0.
    pub weight_decay: f64,
}

impl Default for AdamOptions {
    fn default() -> Self {
        Self { learning_rate: 1e-3, first_decay: 0.9, second_decay: 0.999, epsilon: 1e-8, weight_decay: 0.0 }
    }
}

/// Running means of a parameter's gradient and of its square.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moments {
    /// `m`.
    pub first: Vec<f32>,
    /// `v`.
    pub second: Vec<f32>,
}

/// The optimiser with its state, for parameters with names.
///
/// `m ← β₁ m + (1 − β₁) g`, `v ← β₂ v + (1 − β₂) g²`, `θ ← θ − α m̂ / (√v̂ + ε)` with `m̂ = m / (1 − β₁ᵗ)`,
/// `v̂ = v / (1 − β₂ᵗ)` in step t = 1, 2, …
///
/// Kingma and Ba (2015), <https://arxiv.org/abs/1412.6980>, Algorithm 1
#[derive(Clone, Debug)]
pub struct Adam {
    /// May be changed between two steps, as a schedule of the learning rate does.
    pub options: AdamOptions,
    steps: u64,
    moments: BTreeMap<String, Moments>,
}

impl Adam {
    /// Before its first step.
    pub fn new(options: AdamOptions) -> Self {
        Self { options, steps: 0, moments: BTreeMap::new() }
    }

    /// After `steps` steps that left these moments, as a checkpoint holds them.
    pub fn resume(options: AdamOptions, steps: u64, moments: BTreeMap<String, Moments>) -> Self {
        Self { options, steps, moments }
    }

    /// Steps so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The state of every parameter that has taken a step.
    pub fn moments(&self) -> &BTreeMap<String, Moments> {
        &self.moments
    }

    /// One step of all `parameters`.
    ///
    /// # Errors
    /// `Missing` if a parameter has no gradient, `Elements` if its gradient or its moments have another size; nothing
    /// has been changed then.
    pub fn step(&mut self, parameters: &mut Parameters, gradients: &Parameters) -> Result<(), Error> {
        for (name, values) in parameters.iter() {
            let gradient = gradients.get(name).ok_or_else(|| Error::Missing(name.clone()))?;
            let moments = self.moments.get(name);
            let sizes = [Some(gradient.len()), moments.map(|m| m.first.len()), moments.map(|m| m.second.len())];
            if let Some(got) = sizes.into_iter().flatten().find(|&size| size != values.len()) {
                return Err(Error::Elements { name: name.clone(), expected: vec![values.len()], got });
            }
        }
        self.steps += 1;
        let AdamOptions { learning_rate, first_decay, second_decay, epsilon, weight_decay } = self.options;
        // Both corrections are moved out of the loop: α m̂ / (√v̂ + ε) = (α √c₂ / c₁) m / (√v + ε √c₂) with cᵢ = 1 − βᵢᵗ.
        let t = self.steps as f64;
        let (first, second) = (1.0 - first_decay.powf(t), (1.0 - second_decay.powf(t)).sqrt());
        let (rate, epsilon) = ((learning_rate * second / first) as f32, (epsilon * second) as f32);
        let keep = (1.0 - learning_rate * weight_decay) as f32;
        let (first_new, second_new) = ((1.0 - first_decay) as f32, (1.0 - second_decay) as f32);
        let (first_decay, second_decay) = (first_decay as f32, second_decay as f32);
        for (name, values) in parameters {
            let gradient = &gradients[name];
            let moments = self
                .moments
                .entry(name.clone())
                .or_insert_with(|| Moments { first: vec![0.0; values.len()], second: vec![0.0; values.len()] });
            let chunks = (values.par_chunks_mut(CHUNK), gradient.par_chunks(CHUNK));
            let states = (moments.first.par_chunks_mut(CHUNK), moments.second.par_chunks_mut(CHUNK));
            chunks.0.zip(chunks.1).zip(states.0.zip(states.1)).for_each(|((values, gradient), (m, v))| {
                for (((x, &g), m), v) in values.iter_mut().zip(gradient).zip(m).zip(v) {
                    *m = first_decay * *m + first_new * g;
                    *v = second_decay * *v + second_new * (g * g);
                    *x = keep * *x - rate * *m / (v.sqrt() + epsilon);
                }
            });
        }
        Ok(())
    }
}

/// Elements of a task.
const CHUNK: usize = 1 << 14;
