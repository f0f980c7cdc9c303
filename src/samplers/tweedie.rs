//! The posterior mean by Tweedie's formula, for measurements that are noise and nothing else.

use super::{Annealing, BuildSampler, Needs, Noise, Observer, Problem, Sampler, Step, Structure, settings};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use std::ops::RangeInclusive;
use tweedie_operators::{Entry, ForwardOperator, LinearOperator, Measurement, Rng};

/// `E[x₀ | y] = D(A⁺ y; σ_y / s)` for an operator all of whose singular values are `s`, one evaluation: white noise seen through
/// such an operator is white noise of the image. Every sample is this mean; it has the least squared error of all estimates.
///
/// Robbins (1956), "An empirical Bayes approach to statistics"; Efron (2011), "Tweedie's formula and selection bias".
#[derive(Clone, Debug)]
pub struct Tweedie {
    /// One level, for who asks.
    annealing: Annealing,
}

impl Sampler for Tweedie {
    fn sample(
        &self,
        problem: &Problem<'_>,
        _: (usize, usize, usize),
        _: &mut Rng,
        observer: &mut dyn Observer,
    ) -> Result<Tensor> {
        let measurement = problem.measurement;
        let sigma_y = measurement.gaussian_sigma("tweedie")?;
        let gain = even_gain(measurement.operator)?;
        let (Some(gain), true) = (gain, sigma_y > 0.0) else { return refuse() };
        let x = measurement.spectral("tweedie")?.pseudo_inverse(&measurement.y)?;
        let range = problem.prior.sigma_range();
        // Less noise than the prior was trained for is treated as the least it knows.
        let sigma = (sigma_y / gain).max(*range.start());
        if sigma > *range.end() {
            return Err(Error::Config {
                name: "noise".into(),
                got: format!("{sigma}"),
                expected: format!("at most {}, what the prior was made for", range.end()),
            });
        }
        let x0 = problem.prior.denoise(&x, sigma)?;
        crate::solvers::check_finite(&x0, 0, sigma)?;
        observer.step(&Step { index: 0, total: 1, sigma, x: &x, x0: &x0 })?;
        Ok(x0)
    }

    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs(&self) -> Needs {
        Needs { structure: Structure::SingularValues, noise: Noise::GaussianAboveZero, noiseless: false }
    }

    fn check(&self, measurement: &Measurement<'_>) -> Result<()> {
        match (even_gain(measurement.operator)?, measurement.noise.gaussian_sigma()) {
            (Some(_), Some(sigma)) if sigma > 0.0 => Ok(()),
            _ => refuse(),
        }
    }

    fn annealing(&self) -> &Annealing {
        &self.annealing
    }

    fn steps(&self, _: &RangeInclusive<f64>) -> usize {
        1
    }
}

fn refuse<T>() -> Result<T> {
    let needs = "an operator whose singular values are all the same, as the identity's, and noise of sigma above 0";
    Err(tweedie_operators::Error::Unsupported { method: "tweedie", needs }.into())
}

/// The singular value of an operator that has only one, above zero, in an image's every direction.
///
/// # Errors
/// `Tensor` if memory runs out.
pub(crate) fn even_gain(operator: &dyn ForwardOperator) -> Result<Option<f64>> {
    let Some(spectral) = operator.as_linear().and_then(LinearOperator::as_spectral) else { return Ok(None) };
    let s =
        spectral.singular_values().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let (least, most) = s.iter().fold((f64::INFINITY, 0.0f64), |(least, most), &s| (least.min(s), most.max(s)));
    Ok((least > 0.0 && most - least <= 1e-6 * most).then_some(most))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {}

pub(super) const ENTRY: Entry<BuildSampler> = Entry {
    name: "tweedie",
    about: "Tweedie's formula: the posterior mean in one evaluation, for noise without any other damage",
    fields: &[],
    example: "",
    build: |table| {
        let Config {} = settings("tweedie", table)?;
        Ok(Box::new(Tweedie { annealing: Annealing { steps: 1, ..Annealing::default() } }))
    },
};
