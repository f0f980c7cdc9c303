//! What `auto` stands for: a table of measured choices, the first row that fits.

use super::{BuildSampler, Sampler, Structure, even_gain, find_sampler};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};
use std::fmt;
use tweedie_operators::forward::LinearOperator;
use tweedie_operators::{Entry, Measurement, gains};

/// The rows, chosen by the measurements in `docs/samplers.md`.
const TABLE: &str = include_str!("../../configs/auto.toml");

/// Three points on the measured curve of time and error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Quality {
    /// A look at what comes out, in about a third of the time.
    Draft,
    /// Where more time begins to gain little.
    #[default]
    Standard,
    /// Three times the time, for the last tenths of a decibel.
    Best,
}

impl fmt::Display for Quality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Draft => "draft",
            Self::Standard => "standard",
            Self::Best => "best",
        })
    }
}

/// What has happened to a photo, where that decides more than the operator's structure does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Damage {
    /// Values are missing, the others are as they were or noisy.
    Holes,
    /// Only brightness is known, and perhaps some colours.
    Colours,
    /// White noise of one level, and nothing else.
    Noise,
    /// Fine detail, as by a blur or a smaller picture; what is smooth survived.
    Detail,
    /// Anything else.
    Other,
}

/// All that the choice depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Facts {
    /// What has happened.
    pub damage: Damage,
    /// What is known of the operator.
    pub structure: Structure,
    /// Whether the noise is additive, white and Gaussian, σ = 0 included.
    pub gaussian: bool,
    /// Numbers of an image.
    pub values: usize,
    /// Numbers that were measured of it.
    pub measured: usize,
}

impl Facts {
    /// What a measurement of an image of `shape` (C, H, W) says of itself: anything but [`Damage::Colours`].
    ///
    /// # Errors
    /// `Tensor` if memory runs out.
    pub fn of(measurement: &Measurement<'_>, shape: (usize, usize, usize)) -> Result<Self> {
        let (channels, height, width) = shape;
        let sigma = measurement.noise.gaussian_sigma();
        // A decomposition may have to be found first: nothing but an operator that keeps the shape can be the identity.
        let keeps_shape = measurement.y.dims()[1..] == [channels, height, width];
        let noise = keeps_shape && sigma.is_some_and(|sigma| sigma > 0.0) && even_gain(measurement.operator)?.is_some();
        let linear = measurement.operator.as_linear();
        let structure = match linear {
            None => Structure::Derivative,
            Some(linear) if height.max(width) <= LONGEST && LinearOperator::as_spectral(linear).is_some() => {
                Structure::SingularValues
            }
            Some(_) => Structure::Linear,
        };
        let damage = match noise {
            true => Damage::Noise,
            false if keeps_shape && linear.is_some() && hides(measurement, shape)? => Damage::Holes,
            false if linear.is_some() && loses_detail(measurement, shape)? => Damage::Detail,
            false => Damage::Other,
        };
        let measured = measurement.y.dims()[1..].iter().product();
        Ok(Self { damage, structure, gaussian: sigma.is_some(), values: channels * height * width, measured })
    }
}

/// Whether the operator takes every value as it is or hides it.
fn hides(measurement: &Measurement<'_>, shape: (usize, usize, usize)) -> Result<bool> {
    let Some(gains) = gains(measurement.operator, shape, measurement.y.device())? else { return Ok(false) };
    let neither = (&gains * gains.affine(-1.0, 1.0)?)?.abs()?.max_all()?.to_device(&Device::Cpu)?;
    Ok(neither.to_scalar::<f32>()? == 0.0)
}

/// Photos with a longer side are not asked for singular values, which some operators find by decomposing matrices of that side.
const LONGEST: usize = 2048;

/// Whether of a soft spot in the middle of the image much more is left than of one of the finest patterns under the same spot:
/// rows, columns or a chessboard of alternating sign.
///
/// A spot is many frequencies near zero, a pattern under it as many near the highest one: an operator that takes frequencies at
/// random keeps like parts of all.
fn loses_detail(measurement: &Measurement<'_>, (channels, height, width): (usize, usize, usize)) -> Result<bool> {
    let radius = (height.min(width) as f64 / 16.0).max(2.0);
    let bell = |at: usize, size: usize| {
        let distance = (at as f64 - (size as f64 - 1.0) / 2.0) / radius;
        (-0.5 * distance * distance).exp()
    };
    let sign = |odd: bool| if odd { -1.0 } else { 1.0 };
    // One after the other: four photos at once would be four times the memory.
    let mut left = [0.0; 4];
    for (pattern, left) in left.iter_mut().enumerate() {
        let spot = (0..height * width).map(|index| {
            let (y, x) = (index / width, index % width);
            let spot = bell(y, height) * bell(x, width);
            (spot * sign(pattern & 1 == 1 && x % 2 == 1) * sign(pattern & 2 == 2 && y % 2 == 1)) as f32
        });
        let spot = Tensor::from_vec(spot.collect::<Vec<_>>(), (1, 1, height, width), measurement.y.device())?;
        let spot = spot.broadcast_as((1, channels, height, width))?.contiguous()?.to_dtype(measurement.y.dtype())?;
        *left = measurement.operator.forward(&spot)?.sqr()?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
    }
    let finest = left[1..].iter().copied().fold(f64::INFINITY, f64::min);
    Ok(MUCH * finest < left[0])
}

/// A box of 2 × 2 pixels leaves nothing of the patterns, a quarter of all frequencies about a quarter.
const MUCH: f64 = 16.0;

/// What a row asks of the facts; what it does not name does not matter.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct When {
    damage: Option<Damage>,
    /// At least so much is known of the operator, or no more than that.
    structure: Option<Known>,
    gaussian: Option<bool>,
    values_at_most: Option<usize>,
    measured_at_most: Option<usize>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Known {
    DerivativeOnly,
    Linear,
    SingularValues,
}

impl When {
    fn fits(&self, facts: &Facts) -> bool {
        let structure = match self.structure {
            None => true,
            Some(Known::DerivativeOnly) => facts.structure == Structure::Derivative,
            Some(Known::Linear) => facts.structure >= Structure::Linear,
            Some(Known::SingularValues) => facts.structure >= Structure::SingularValues,
        };
        self.damage.is_none_or(|damage| damage == facts.damage)
            && structure
            && self.gaussian.is_none_or(|gaussian| gaussian == facts.gaussian)
            && self.values_at_most.is_none_or(|most| facts.values <= most)
            && self.measured_at_most.is_none_or(|most| facts.measured <= most)
    }
}

/// One row of the table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    #[serde(default)]
    when: When,
    sampler: String,
    /// Those of the standard quality.
    #[serde(default)]
    settings: toml::Table,
    /// What is different for a draft.
    #[serde(default)]
    draft: toml::Table,
    /// What is different for the best.
    #[serde(default)]
    best: toml::Table,
    /// Another method, or other settings, for all samples but the first.
    others: Option<Others>,
}

/// How all samples but the first are drawn.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Others {
    /// Left out, that of the first.
    sampler: Option<String>,
    /// What is different from those of the first; all of them where the sampler is another.
    settings: toml::Table,
    /// As for the first, where the sampler is another.
    #[serde(default)]
    draft: toml::Table,
    #[serde(default)]
    best: toml::Table,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    row: Vec<Row>,
}

/// A sampler by its name, with the settings that replace its defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Its name.
    pub sampler: String,
    /// Its settings.
    pub settings: toml::Table,
    /// How all samples but the first are drawn, where that differs: the first is the one that is closest to the truth, since
    /// who asks for one picture wants that; the others spread as the posterior does. So sample `k` is the same however many
    /// are drawn.
    pub others: Option<Box<Self>>,
}

impl Choice {
    /// What `auto` stands for.
    ///
    /// # Errors
    /// `Config` if the table inside the program has no row that fits, which a test rules out.
    pub fn auto(facts: &Facts, quality: Quality) -> Result<Self> {
        let refuse = |got: String| Error::Config {
            name: "configs/auto.toml".into(),
            got,
            expected: "rows of a sampler and its settings, the last one for everything".into(),
        };
        let table: Table = toml::from_str(TABLE).map_err(|error| refuse(error.message().into()))?;
        let row = table.row.into_iter().find(|row| row.when.fits(facts));
        let Row { sampler, mut settings, draft, best, others, .. } = row.ok_or_else(|| refuse(format!("{facts:?}")))?;
        let pick = |draft: toml::Table, best: toml::Table| match quality {
            Quality::Draft => draft,
            Quality::Standard => toml::Table::new(),
            Quality::Best => best,
        };
        merge(&mut settings, pick(draft, best));
        let others = others.map(|others| {
            let Others { sampler: other, settings: mut changes, draft, best } = others;
            match other {
                Some(sampler) => {
                    merge(&mut changes, pick(draft, best));
                    Box::new(Self { sampler, settings: changes, others: None })
                }
                None => {
                    let mut settings = settings.clone();
                    merge(&mut settings, changes);
                    Box::new(Self { sampler: sampler.clone(), settings, others: None })
                }
            }
        });
        Ok(Self { sampler, settings, others })
    }

    /// The method `sampler` with these settings, for every sample.
    pub fn of(sampler: &str, settings: toml::Table) -> Self {
        Self { sampler: sampler.into(), settings, others: None }
    }

    /// The same with `changes` in the place of its own settings, table by table; other samples take them if their method is the
    /// same.
    #[must_use]
    pub fn with(mut self, changes: toml::Table) -> Self {
        if let Some(others) = self.others.as_mut().filter(|others| others.sampler == self.sampler) {
            merge(&mut others.settings, changes.clone());
        }
        merge(&mut self.settings, changes);
        self
    }

    /// The same with so many noise levels.
    #[must_use]
    pub fn with_steps(mut self, steps: usize) -> Self {
        if let Some(others) = self.others.take() {
            self.others = Some(Box::new(others.with_steps(steps)));
        }
        let steps = toml::Table::from_iter([("steps".into(), toml::Value::Integer(steps as i64))]);
        merge(&mut self.settings, toml::Table::from_iter([("annealing".into(), toml::Value::Table(steps))]));
        self
    }

    /// The sampler, one of `list`.
    ///
    /// # Errors
    /// As [`find_sampler`].
    pub fn build(&self, list: &[Entry<BuildSampler>]) -> Result<Box<dyn Sampler>> {
        find_sampler(list, &self.sampler, self.settings.clone())
    }
}

/// Puts the entries of `changes` in the place of those of `table`, sub-table by sub-table.
fn merge(table: &mut toml::Table, changes: toml::Table) {
    for (key, change) in changes {
        match (table.get_mut(&key), change) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(change)) => merge(inner, change),
            (_, change) => {
                table.insert(key, change);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samplers::SAMPLERS;
    use tweedie_operators::noise::Gaussian;
    use tweedie_operators::{OPERATORS, Site, find};

    /// Everything that can be.
    fn all_facts() -> Vec<Facts> {
        let mut all = Vec::new();
        for damage in [Damage::Holes, Damage::Colours, Damage::Noise, Damage::Detail, Damage::Other] {
            for structure in [Structure::Derivative, Structure::Linear, Structure::SingularValues] {
                for gaussian in [true, false] {
                    for measured in [1, 192, 100_000] {
                        all.push(Facts { damage, structure, gaussian, values: 4 * measured, measured });
                    }
                }
            }
        }
        all
    }

    /// What is seen of an operator with a little noise.
    fn damage(name: &str, settings: &str) -> Damage {
        let site = Site::new((3, 48, 40), &Device::Cpu, DType::F32);
        let operator = find(OPERATORS, name).unwrap().create(settings.parse().unwrap(), site).unwrap();
        let noise = Gaussian::new(0.05).unwrap();
        let image = Tensor::zeros((1, 3, 48, 40), DType::F32, &Device::Cpu).unwrap();
        let y = operator.forward(&image).unwrap();
        Facts::of(&Measurement { operator: &*operator, noise: &noise, y }, (3, 48, 40)).unwrap().damage
    }

    #[test]
    fn blurs_and_smaller_pictures_lose_detail_and_transforms_do_not() {
        for (name, settings) in [
            ("blur", "kernel = { shape = 'gaussian', sigma = 1.5 }\npadding = 'reflect'"),
            ("blur", "kernel = { shape = 'trajectory', size = 21, intensity = 0.5, seed = 0 }\npadding = 'circular'"),
            ("blur_separable", "sigma = 2.0"),
            ("downsample_box", "factor = 2"),
            ("downsample", "factor = 4"),
            ("downsample_kernel", "factor = 2\nkernel = 'bicubic'"),
        ] {
            assert_eq!(damage(name, settings), Damage::Detail, "{name}: {settings}");
        }
        for (name, settings, expected) in [
            ("identity", "", Damage::Noise),
            ("inpaint_random", "missing = 0.7", Damage::Holes),
            ("compressed_sensing", "keep = 0.25", Damage::Other),
            ("fourier_subsample", "keep = 0.25", Damage::Other),
            ("grayscale", "", Damage::Other),
        ] {
            assert_eq!(damage(name, settings), expected, "{name}: {settings}");
        }
    }

    #[test]
    fn every_case_has_a_row_whose_sampler_can_do_it() {
        for facts in all_facts() {
            for quality in [Quality::Draft, Quality::Standard, Quality::Best] {
                let choice = Choice::auto(&facts, quality).unwrap();
                for choice in [&choice].into_iter().chain(choice.others.as_deref()) {
                    let needs = choice.build(SAMPLERS).unwrap().needs();
                    // What is only noise has singular values, all the same, asked for or not.
                    let alike = facts.damage == Damage::Noise && facts.structure == Structure::Linear;
                    assert!(needs.structure <= facts.structure || alike, "{facts:?}: {choice:?}");
                    let any = matches!(needs.noise, crate::samplers::Noise::Any);
                    assert!(facts.gaussian || any, "{facts:?}: {choice:?}");
                }
            }
        }
    }

    #[test]
    fn a_draft_costs_less_and_the_best_more() {
        for facts in all_facts() {
            let cost = |quality| {
                let choice = Choice::auto(&facts, quality).unwrap();
                let sampler = choice.build(SAMPLERS).unwrap();
                sampler.evaluations(&(0.002..=80.0)) * (1 + sampler.pullbacks())
            };
            let [draft, standard, best] = [Quality::Draft, Quality::Standard, Quality::Best].map(cost);
            let one = standard == 1;
            assert!(one || (2 * draft <= standard && 2 * standard <= best), "{facts:?}: {draft} {standard} {best}");
        }
    }
}
