//! The samplers of a run: one for the first sample, which may be another than that of the rest.

use crate::Result;
use crate::samplers::{BuildSampler, Choice, Sampler};
use std::ops::{Range, RangeInclusive};
use tweedie_operators::Entry;

/// Who draws which sample.
#[derive(Debug)]
pub(super) struct Methods {
    first: Box<dyn Sampler>,
    others: Option<Box<dyn Sampler>>,
}

impl Methods {
    pub(super) fn new(choice: &Choice, list: &[Entry<BuildSampler>]) -> Result<Self> {
        let others = choice.others.as_ref().map(|others| others.build(list)).transpose()?;
        Ok(Self { first: choice.build(list)?, others })
    }

    /// The sampler of sample `k`.
    pub(super) fn of(&self, k: usize) -> &dyn Sampler {
        match &self.others {
            Some(others) if k > 0 => &**others,
            _ => &*self.first,
        }
    }

    /// Those that draw at least one of `samples`, with how many.
    pub(super) fn drawing(&self, samples: usize) -> impl Iterator<Item = (&dyn Sampler, usize)> {
        let of_first = if self.others.is_some() { samples.min(1) } else { samples };
        let pair = [(self.of(0), of_first), (self.of(1), samples - of_first)];
        pair.into_iter().filter(|&(_, count)| count > 0)
    }

    /// Samples from `first` on that one sampler draws, at most `most`.
    pub(super) fn batch(&self, first: usize, samples: usize, most: usize) -> Range<usize> {
        let end = if first == 0 && self.others.is_some() { 1 } else { first + most };
        first..end.min(samples)
    }

    /// Steps of all samples.
    pub(super) fn steps(&self, range: &RangeInclusive<f64>, samples: usize) -> usize {
        self.drawing(samples).map(|(sampler, count)| sampler.steps(range) * count).sum()
    }

    /// Network evaluations of all samples.
    pub(super) fn evaluations(&self, range: &RangeInclusive<f64>, samples: usize) -> usize {
        self.drawing(samples).map(|(sampler, count)| sampler.evaluations(range) * count).sum()
    }
}
