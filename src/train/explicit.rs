//! Explicit score matching.

use super::divergence::{Divergence, Square};
use super::objective::{BuildObjective, Draw, Objective, check_positive, overlaid, settings, share, table, unsuitable};
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};
use tweedie_operators::{Entry, Rng};

/// `½‖s‖² + tr ∇s` on clean examples, the trace from the derivatives along all axes.
///
/// Its expectation is `½ E‖s − ∇log p‖² − ½ E‖∇log p‖²`. There is no noise: σ only says how the network is read, by
/// `s = (D(x; σ) − x)/σ²`, and is to be the smallest length over which the density varies.
///
/// An example of d numbers takes 2 d + 1 evaluations, so that it is for points and very small images.
///
/// Hyvärinen (2005), <https://jmlr.org/papers/v6/hyvarinen05a.html>
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Explicit {
    /// The nominal noise level.
    pub sigma: f64,
    /// Step of the differences, over σ.
    pub step: f64,
    /// Whether the loss is divided by the numbers of an image.
    pub mean: bool,
}

/// Most numbers of an example.
const MOST: usize = 1024;

impl Objective for Explicit {
    fn draw(&self, clean: &Tensor, _: &mut Rng) -> Result<Draw> {
        let (batch, channels, height, width) = clean.dims4()?;
        let numbers = channels * height * width;
        if numbers > MOST {
            return Err(Error::Config {
                name: "objective explicit".into(),
                got: format!("examples of {numbers} numbers, for each of which it takes two evaluations"),
                expected: format!("{MOST} at most; sliced score matching takes a direction or a few"),
            });
        }
        let axes = Tensor::eye(numbers, DType::F32, clean.device())?.to_dtype(clean.dtype())?;
        let axis = |k: usize| axes.narrow(0, k, 1)?.reshape((1, channels, height, width));
        let weight = share(clean, self.mean);
        Divergence {
            x: clean.clone(),
            sigmas: vec![self.sigma; batch],
            directions: (0..numbers).map(axis).collect::<candle_core::Result<_>>()?,
            share: 1.0,
            square: Square::Whole,
            weights: vec![weight; batch],
            step: self.step,
        }
        .draw()
    }

    fn settings(&self) -> toml::Table {
        table(self)
    }

    fn differences(&self) -> bool {
        true
    }
}

pub(super) const ENTRY: Entry<BuildObjective> = Entry {
    name: "explicit",
    about: "Explicit score matching on clean data, with the exact trace of the derivative",
    fields: &[
        ("sigma", "nominal noise level, the smallest length over which the density varies; default 0.1"),
        ("step", "step of the central differences over sigma, 1e-4 to 1; default 0.01"),
        ("mean", "whether the loss is divided by the numbers of an image; default true"),
    ],
    example: "sigma = 0.1
step = 0.01
mean = true",
    build: |table| {
        let explicit: Explicit = settings(ENTRY.name, overlaid(ENTRY.example, table))?;
        let checked = check_positive("sigma", explicit.sigma).and_then(|()| check_step(explicit.step));
        checked.map_err(|reason| unsuitable(ENTRY.name, &reason))?;
        Ok(Box::new(explicit))
    },
};

/// Whether a difference with this step is still a number, and still a derivative.
pub(super) fn check_step(step: f64) -> Result<(), String> {
    match (1e-4..=1.0).contains(&step) {
        true => Ok(()),
        false => Err(format!("step = {step}, expected 1e-4 to 1")),
    }
}
