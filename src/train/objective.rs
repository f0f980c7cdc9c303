//! What a network is trained to do.

use super::{annealed_sliced, denoising, explicit, sliced};
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use std::fmt;
use tweedie_operators::{Entry, Rng};

/// A loss whose minimum is the score of the data.
///
/// Every objective of score matching is a function of the denoised images at some points: of one for each example in
/// denoising score matching, of several where a derivative of the score is a difference. So a network in training has to
/// give nothing but its outputs and the gradient of a weighted sum of them, whatever it is trained for.
///
/// [`draw`](Self::draw) and [`settings`](Self::settings) are required.
///
/// # Laws
/// * `gradient` is the derivative of the mean of `values` with respect to the denoised images;
/// * an example's loss depends on that example and its own stream alone, and its points lie side by side;
/// * the entry of its name builds it again from its settings.
pub trait Objective: fmt::Debug + Send + Sync {
    /// The points for a batch of examples and what is lost there.
    ///
    /// # Shapes
    /// `clean`: `[B, C, H, W]`, pixels in [-1, 1]; `rng` has B streams
    /// # Errors
    /// Those of tensor operations.
    fn draw(&self, clean: &Tensor, rng: &mut Rng) -> Result<Draw>;

    /// All of its settings, defaults included.
    fn settings(&self) -> toml::Table;

    /// Whether it takes differences between outputs at neighbouring points, which are lost in numbers of 8 bits; by default
    /// not.
    fn differences(&self) -> bool {
        false
    }
}

/// Builds an objective from its settings.
pub type BuildObjective = fn(toml::Table) -> Result<Box<dyn Objective>>;

/// All objectives, by name: the ladder from one noise level, or none, to a continuum of them.
pub const OBJECTIVES: &[Entry<BuildObjective>] = &[
    explicit::ENTRY,
    denoising::ONE_LEVEL,
    sliced::ENTRY,
    sliced::REDUCED,
    denoising::ANNEALED,
    annealed_sliced::ENTRY,
    denoising::VARIANCE_EXPLODING,
    denoising::VARIANCE_PRESERVING,
    denoising::SUB_VARIANCE_PRESERVING,
    denoising::DDPM,
    denoising::EDM,
    denoising::SOFT_MIN_SNR,
];

/// The objective of `list` called `name`, with these settings in the place of its defaults.
///
/// # Errors
/// `Unknown` with the names there are; `Config` naming a setting that is unknown or out of range.
pub fn find_objective(list: &[Entry<BuildObjective>], name: &str, settings: toml::Table) -> Result<Box<dyn Objective>> {
    let entry = list.iter().find(|entry| entry.name == name).ok_or_else(|| Error::Unknown {
        kind: "objective",
        name: name.into(),
        known: list.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", "),
    })?;
    (entry.build)(settings)
}

/// `over` in the place of what `defaults` says.
pub(super) fn overlaid(defaults: &str, over: toml::Table) -> toml::Table {
    let mut table = defaults.parse().expect("the defaults of an objective are TOML");
    overlay(&mut table, over);
    table
}

/// `over` in the place of what `table` says, table by table; a table of another `kind` replaces the whole.
pub(super) fn overlay(table: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(over))
                if over.get("kind").is_none_or(|kind| inner.get("kind") == Some(kind)) =>
            {
                overlay(inner, over);
            }
            (_, value) => drop(table.insert(key, value)),
        }
    }
}

/// A table of settings as those of the objective `name`.
pub(super) fn settings<C: serde::de::DeserializeOwned>(name: &str, table: toml::Table) -> Result<C> {
    let got = table.to_string().trim().replace('\n', ", ");
    table.try_into().map_err(|error: toml::de::Error| refuse(name, &got, error.message()))
}

/// A setting of the objective `name` that cannot be.
pub(super) fn refuse(name: &str, got: &str, expected: &str) -> Error {
    Error::Config { name: format!("objective {name}"), got: got.into(), expected: expected.into() }
}

/// The same for a sentence that says what was got, and after `, expected ` what can be.
pub(super) fn unsuitable(name: &str, reason: &str) -> Error {
    let (got, expected) = expectation(reason);
    refuse(name, got, expected)
}

/// What a sentence says was got, and what it says can be.
pub(super) fn expectation(reason: &str) -> (&str, &str) {
    reason.split_once(", expected ").unwrap_or((reason, "another, docs/training.md says which"))
}

/// Settings as a table.
pub(super) fn table(settings: &impl serde::Serialize) -> toml::Table {
    toml::Table::try_from(settings).expect("settings are TOML")
}

/// Whether a number is finite and above 0.
pub(super) fn check_positive(name: &str, value: f64) -> Result<(), String> {
    match value > 0.0 && value.is_finite() {
        true => Ok(()),
        false => Err(format!("{name} = {value}, expected a finite number above 0")),
    }
}

/// What is lost at some points, of the denoised images there.
pub type LossOf = Box<dyn Fn(&Tensor) -> Result<Loss> + Send>;

/// Where the network is to be evaluated for some examples.
pub struct Draw {
    /// `[N, C, H, W]`.
    pub x: Tensor,
    /// Noise level of each of the N points.
    pub sigmas: Vec<f64>,
    /// Takes `D(x; σ)`, of the shape of `x`.
    pub loss: LossOf,
}

impl fmt::Debug for Draw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draw").field("x", &self.x.shape()).field("sigmas", &self.sigmas).finish_non_exhaustive()
    }
}

/// What a batch lost.
#[derive(Clone, Debug)]
pub struct Loss {
    /// Of every example; the loss of the batch is their mean.
    pub values: Vec<f64>,
    /// Of the batch's loss with respect to the denoised images, in their shape.
    pub gradient: Tensor,
}

/// A uniform and a standard normal number for every stream, of which noise levels are made; two draws.
///
/// # Errors
/// Those of drawing numbers.
pub(super) fn chances(clean: &Tensor, rng: &mut Rng) -> Result<Vec<(f64, f64)>> {
    let shape = (rng.streams(), 1, 1, 1);
    let uniform = rng.uniform(shape, clean.device())?.flatten_all()?.to_vec1::<f32>()?;
    let normal = rng.normal(shape, clean.device())?.flatten_all()?.to_vec1::<f32>()?;
    Ok(uniform.iter().zip(&normal).map(|(u, n)| (f64::from(*u), f64::from(*n))).collect())
}

/// `x₀ + σ z`, z one draw.
///
/// # Errors
/// Those of drawing numbers.
pub(super) fn noised(clean: &Tensor, sigmas: &[f64], rng: &mut Rng) -> Result<Tensor> {
    Ok((clean + rng.normal_like(clean)?.broadcast_mul(&column(sigmas.iter().copied(), clean)?)?)?)
}

/// What a sum over the numbers of an image is multiplied by: for its `mean` one over their number, else 1.
pub(super) fn share(clean: &Tensor, mean: bool) -> f64 {
    let numbers: usize = clean.dims()[1..].iter().product();
    if mean { 1.0 / numbers as f64 } else { 1.0 }
}

/// `[N, 1, 1, 1]` of one number for each of N images.
pub(crate) fn column(values: impl IntoIterator<Item = f64>, like: &Tensor) -> candle_core::Result<Tensor> {
    let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
    let count = values.len();
    Tensor::from_vec(values, (count, 1, 1, 1), like.device())?.to_dtype(like.dtype())
}

/// Sum over all numbers of each image.
pub(crate) fn sums(x: &Tensor) -> candle_core::Result<Vec<f64>> {
    x.flatten_from(1)?.to_dtype(DType::F64)?.sum(1)?.to_vec1()
}
