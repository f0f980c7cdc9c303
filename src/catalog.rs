//! What the command line can name.

use crate::samplers::{BuildSampler, SAMPLERS};
use tweedie_operators::{BuildNoise, BuildOperator, Entry, NOISES, OPERATORS};

/// The operators, noise models and samplers that have a name.
///
/// A program that adds its own operator pushes one entry and calls [`cli::run`](crate::cli::run).
#[derive(Clone, Debug)]
pub struct Catalog {
    /// Operators.
    pub operators: Vec<Entry<BuildOperator>>,
    /// Noise models.
    pub noises: Vec<Entry<BuildNoise>>,
    /// Samplers.
    pub samplers: Vec<Entry<BuildSampler>>,
}

impl Default for Catalog {
    /// Everything that is built in.
    fn default() -> Self {
        Self { operators: OPERATORS.to_vec(), noises: NOISES.to_vec(), samplers: SAMPLERS.to_vec() }
    }
}
