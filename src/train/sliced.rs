//! Sliced score matching.

use super::divergence::{Directions, Divergence, Square};
use super::explicit::check_step;
use super::objective::{BuildObjective, Draw, Objective, check_positive, overlaid, settings, share, table, unsuitable};
use crate::Result;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use tweedie_operators::{Entry, Rng};

/// `½(vᵀs)² + vᵀ∇s v` on clean examples, on average over a few random directions; `½‖s‖² + vᵀ∇s v` with `reduced`, of less
/// variance.
///
/// Its expectation is that of [`Explicit`](super::Explicit), and σ is what it is there.
///
/// Song et al. (2019), <https://arxiv.org/abs/1905.07088>
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Sliced {
    /// The nominal noise level.
    pub sigma: f64,
    /// Directions of an example.
    pub count: usize,
    /// How they are drawn.
    pub directions: Directions,
    /// Step of the differences, over σ.
    pub step: f64,
    /// Whether the loss is divided by the numbers of an image.
    pub mean: bool,
    /// Whether `½‖s‖²` stands in the place of its expectation.
    #[serde(skip)]
    pub reduced: bool,
}

/// Most directions of an example.
pub(super) const MOST_DIRECTIONS: usize = 1024;

impl Objective for Sliced {
    fn draw(&self, clean: &Tensor, rng: &mut Rng) -> Result<Draw> {
        let batch = clean.dim(0)?;
        let weight = share(clean, self.mean);
        Divergence {
            x: clean.clone(),
            sigmas: vec![self.sigma; batch],
            directions: (0..self.count).map(|_| self.directions.draw(clean, rng)).collect::<Result<_>>()?,
            share: 1.0 / self.count as f64,
            square: if self.reduced { Square::Whole } else { Square::Projected },
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

const FIELDS: &[(&str, &str)] = &[
    ("sigma", "nominal noise level, the smallest length over which the density varies; default 0.1"),
    ("count", "directions of an example, 1 to 1024; default 1"),
    ("directions", "how they are drawn, gaussian or rademacher; default rademacher, of sliced_vr gaussian"),
    ("step", "step of the central differences over sigma, 1e-4 to 1; default 0.01"),
    ("mean", "whether the loss is divided by the numbers of an image; default true"),
];

fn build(entry: &Entry<BuildObjective>, reduced: bool, over: toml::Table) -> Result<Box<dyn Objective>> {
    let sliced: Sliced = settings(entry.name, overlaid(entry.example, over))?;
    let checked = check_positive("sigma", sliced.sigma).and_then(|()| check_step(sliced.step));
    let checked = checked.and_then(|()| check_count(sliced.count));
    checked.map_err(|reason| unsuitable(entry.name, &reason))?;
    Ok(Box::new(Sliced { reduced, ..sliced }))
}

/// Whether so many directions can be drawn.
pub(super) fn check_count(count: usize) -> Result<(), String> {
    match (1..=MOST_DIRECTIONS).contains(&count) {
        true => Ok(()),
        false => Err(format!("count = {count}, expected 1 to {MOST_DIRECTIONS}")),
    }
}

pub(super) const ENTRY: Entry<BuildObjective> = Entry {
    name: "sliced",
    about: "Sliced score matching on clean data: derivatives along random directions",
    fields: FIELDS,
    example: r#"sigma = 0.1
count = 1
directions = "rademacher"
step = 0.01
mean = true"#,
    build: |table| build(&ENTRY, false, table),
};

pub(super) const REDUCED: Entry<BuildObjective> = Entry {
    name: "sliced_vr",
    about: "Sliced score matching of reduced variance: the square of the score is not sliced",
    fields: FIELDS,
    example: r#"sigma = 0.1
count = 1
directions = "gaussian"
step = 0.01
mean = true"#,
    build: |table| build(&REDUCED, true, table),
};
