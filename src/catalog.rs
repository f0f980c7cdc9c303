//! Everything that has a name.

use crate::samplers::{BuildSampler, SAMPLERS};
use crate::solvers::{BuildSolver, SOLVERS};
use tweedie_operators::{BuildNoise, BuildOperator, Entry, NOISES, OPERATORS};

/// What configurations and the command line can name.
///
/// A program that has an operator of its own pushes an entry and calls [`cli::run`](crate::cli::run):
///
/// ```no_run
/// use tweedie::Catalog;
/// use tweedie_operators::{BuildOperator, Entry, forward::Identity};
///
/// fn main() -> std::process::ExitCode {
///     let mut catalog = Catalog::default();
///     catalog.operators.push(Entry {
///         name: "nothing",
///         about: "Does nothing, as an example",
///         fields: &[],
///         example: "",
///         build: BuildOperator::same_shape(|_, site| Ok(Box::new(Identity::new(site)?))),
///     });
///     tweedie::cli::run(&catalog)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Catalog {
    /// Measurement operators.
    pub operators: Vec<Entry<BuildOperator>>,
    /// Noise models.
    pub noises: Vec<Entry<BuildNoise>>,
    /// Sampling methods.
    pub samplers: Vec<Entry<BuildSampler>>,
    /// Methods that draw from the prior alone.
    pub solvers: Vec<Entry<BuildSolver>>,
}

/// What is built in.
impl Default for Catalog {
    fn default() -> Self {
        Self {
            operators: OPERATORS.to_vec(),
            noises: NOISES.to_vec(),
            samplers: SAMPLERS.to_vec(),
            solvers: SOLVERS.to_vec(),
        }
    }
}
