//! How a picture came to be, for its metadata.

use super::Plan;
use crate::models::Model;
use std::fmt;

/// Which picture of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Picture {
    /// Sample `k`.
    Sample(usize),
    /// Their mean.
    Mean,
    /// Their standard deviation.
    Std,
    /// A sheet of before and after.
    Sheet,
}

impl Picture {
    /// `sample`, `mean`, `std` or `sheet`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sample(_) => "sample",
            Self::Mean => "mean",
            Self::Std => "std",
            Self::Sheet => "sheet",
        }
    }

    /// The sample that says how it was drawn; what is made of all was drawn as most were.
    pub fn sample(self) -> usize {
        match self {
            Self::Sample(k) => k,
            Self::Sheet => 0,
            Self::Mean | Self::Std => 1,
        }
    }

    /// Whether the picture shows the photo itself, so that its known pixels are the photo's.
    pub fn is_photo(self) -> bool {
        matches!(self, Self::Sample(_) | Self::Mean)
    }
}

/// How a picture came to be, as one line that is enough to make it again: version, command, model with its hash, sampler,
/// steps, windows, kernels, precision, seed.
#[derive(Clone, Copy, Debug)]
pub struct Provenance<'a> {
    /// What was done, such as `inpaint` or `deblur (blur disk:2, noise of 1.00 levels)`.
    pub command: &'a str,
    /// The prior.
    pub model: &'a Model,
    /// What was planned and done.
    pub plan: &'a Plan,
    /// Seed of the run.
    pub seed: u64,
    /// Samples drawn in all.
    pub samples: usize,
    /// Which picture it is.
    pub picture: Picture,
}

impl fmt::Display for Provenance<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, model, plan, seed, samples, picture } = *self;
        let (sampler, steps) = plan.of_sample(picture.sample());
        write!(f, "tweedie {} {command}, model {}", env!("CARGO_PKG_VERSION"), model.name)?;
        if !model.hash.is_empty() {
            write!(f, " sha256 {}", model.hash)?;
        }
        if let Some(class) = model.class() {
            write!(f, ", class {class}")?;
        }
        write!(
            f,
            ", sampler {sampler}, steps {steps}, windows of {}, kernels {}, precision {}, seed {seed}, ",
            plan.tile,
            model.instruction_set(),
            model.precision()
        )?;
        match picture {
            Picture::Sample(k) => write!(f, "sample {k} of {samples}"),
            other => write!(f, "{} of {samples}", other.name()),
        }
    }
}
