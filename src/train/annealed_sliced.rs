//! Sliced score matching at many noise levels.

use super::divergence::{Directions, Divergence, Square};
use super::explicit::check_step;
use super::levels::NoiseLevels;
use super::objective::{
    BuildObjective, Draw, Objective, chances, noised, overlaid, settings, share, table, unsuitable,
};
use super::sliced::check_count;
use crate::Result;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use tweedie_operators::{Entry, Rng};

/// `σ² (½‖s‖² + vᵀ∇s v)` at a noised example, σ from a distribution of levels; `½(vᵀs)²` for the square without `reduced`.
///
/// Of all levels alike, since the score of a noised density is of the size 1/σ. Unlike denoising it does not know what noise
/// was added.
///
/// Song and Ermon (2019), <https://arxiv.org/abs/1907.05600>, appendix A.2
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AnnealedSliced {
    /// How σ is drawn.
    #[serde(rename = "noise")]
    pub levels: NoiseLevels,
    /// Directions of an example.
    pub count: usize,
    /// How they are drawn.
    pub directions: Directions,
    /// Step of the differences, over σ.
    pub step: f64,
    /// Whether the loss is divided by the numbers of an image.
    pub mean: bool,
    /// Whether the square of the score is not sliced.
    pub reduced: bool,
}

impl Objective for AnnealedSliced {
    fn draw(&self, clean: &Tensor, rng: &mut Rng) -> Result<Draw> {
        let sigmas = self.levels.sigmas(chances(clean, rng)?.into_iter());
        let scale = share(clean, self.mean);
        Divergence {
            x: noised(clean, &sigmas, rng)?,
            directions: (0..self.count).map(|_| self.directions.draw(clean, rng)).collect::<Result<_>>()?,
            share: 1.0 / self.count as f64,
            square: if self.reduced { Square::Whole } else { Square::Projected },
            weights: sigmas.iter().map(|sigma| scale * sigma * sigma).collect(),
            sigmas,
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
    name: "annealed_sliced",
    about: "Sliced score matching at a sequence of noise levels, as in NCSN",
    fields: &[
        ("noise", "how noise levels are drawn, a table as that of annealed; default as there"),
        ("count", "directions of an example, 1 to 1024; default 1"),
        ("directions", "how they are drawn, gaussian or rademacher; default gaussian"),
        ("step", "step of the central differences over sigma, 1e-4 to 1; default 0.01"),
        ("mean", "whether the loss is divided by the numbers of an image; default true"),
        ("reduced", "whether the square of the score is not sliced; default true"),
    ],
    example: r#"noise = { kind = "geometric", sigma_min = 0.02, sigma_max = 2.0, count = 10 }
count = 1
directions = "gaussian"
step = 0.01
mean = true
reduced = true"#,
    build: |table| {
        let sliced: AnnealedSliced = settings(ENTRY.name, overlaid(ENTRY.example, table))?;
        let checked = sliced.levels.check().and_then(|()| check_count(sliced.count));
        let checked = checked.and_then(|()| check_step(sliced.step));
        checked.map_err(|reason| unsuitable(ENTRY.name, &reason))?;
        Ok(Box::new(sliced))
    },
};
