//! Denoising score matching, at one noise level, many, or a continuum of them.

use super::levels::{EARLIEST, NoiseLevels};
use super::objective::{
    BuildObjective, Draw, Loss, Objective, chances, check_positive, column, noised, overlaid, settings, share, sums,
    table, unsuitable,
};
use crate::Result;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use tweedie_operators::{Entry, Rng};

/// `w(σ) ‖D(x₀ + σz; σ) − x₀‖²`, σ from a distribution of levels.
///
/// With `s = (D − x)/σ²` and `ε̂ = (x − D)/σ` the expression `‖D − x₀‖²/σ²` is `‖σs + z‖²` and `‖ε̂ − z‖²`: denoising and
/// annealed score matching, the loss of score SDEs and that of DDPM differ in how σ is drawn and in the weight alone.
///
/// Vincent (2011), <https://doi.org/10.1162/NECO_a_00142>; Song and Ermon (2019), <https://arxiv.org/abs/1907.05600>
///
/// With `importance`, [`Weight::Likelihood`] has its time drawn in proportion to `g(t)²/std(t)²`. That is the derivative of
/// `ln σ²` in every process, since `d(σ²)/dt = g²/α²` and `σ = std/α`: σ is log-uniform and `w = ln(σ_max²/σ_min²)/σ²`, the
/// same expectation with less variance (Song et al., 2021, <https://arxiv.org/abs/2101.09258>, section 4.1).
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Denoising {
    /// How σ is drawn.
    #[serde(rename = "noise")]
    pub levels: NoiseLevels,
    /// `w(σ)`.
    pub weight: Weight,
    /// Whether squares are averaged over the numbers of an image; summed otherwise.
    pub mean: bool,
    /// Whether the time of a process is drawn so that the weight of the likelihood is even.
    #[serde(default)]
    pub importance: bool,
}

/// What the squared error of a denoised image counts at a noise level.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Weight {
    /// `½ σ^(p − 4)`; p = 2 keeps the loss of all levels alike. Song and Ermon (2020), <https://arxiv.org/abs/2006.09011>
    Annealed {
        /// p.
        power: f64,
    },
    /// `1/σ²`: of the noise that is predicted.
    Noise,
    /// `g(t)²/std(t)²` of the process, over that of [`Noise`](Self::Noise) again `1/σ²`: the bound of the likelihood of Song
    /// et al. (2021), <https://arxiv.org/abs/2101.09258>.
    Likelihood,
    /// `(σ² + σ_d²)/(σ σ_d)²`: EDM's.
    Edm {
        /// σ_d, the spread of the data.
        sigma_data: f64,
    },
    /// EDM's times `(σ σ_d)²/(σ² + σ_d²)²`: the softened signal-to-noise ratio of Crowson's k-diffusion.
    SoftMinSnr {
        /// σ_d, the spread of the data.
        sigma_data: f64,
    },
}

impl Weight {
    /// `w(σ)` with σ from `levels`.
    pub fn at(&self, sigma: f64, levels: &NoiseLevels) -> f64 {
        let square = sigma * sigma;
        let edm = |data: f64| (square + data * data) / (square * data * data);
        match *self {
            Self::Annealed { power } => 0.5 * sigma.powf(power - 4.0),
            Self::Noise => 1.0 / square,
            Self::Likelihood => levels.rate(sigma) / square,
            Self::Edm { sigma_data } => edm(sigma_data),
            Self::SoftMinSnr { sigma_data } => {
                let total = square + sigma_data * sigma_data;
                edm(sigma_data) * square * sigma_data * sigma_data / (total * total)
            }
        }
    }
}

impl Denoising {
    /// Whether levels can be drawn and weighed like this.
    ///
    /// # Errors
    /// A sentence with what cannot be.
    pub fn check(&self) -> Result<(), String> {
        self.levels.check()?;
        match self.weight {
            Weight::Edm { sigma_data } | Weight::SoftMinSnr { sigma_data } => check_positive("sigma_data", sigma_data)?,
            Weight::Annealed { power } if !power.is_finite() => {
                return Err(format!("power = {power}, expected a finite number"));
            }
            Weight::Likelihood if !self.levels.is_process() => {
                return Err("the weight likelihood with levels that are those of no continuous process, expected noise of the kind variance_exploding or linear".into());
            }
            Weight::Annealed { .. } | Weight::Noise | Weight::Likelihood => {}
        }
        match self.importance && self.weight != Weight::Likelihood {
            true => Err("importance with another weight than likelihood, expected that one".into()),
            false => Ok(()),
        }
    }

    /// σ and its weight, of uniform and standard normal numbers.
    fn levels(&self, numbers: impl Iterator<Item = (f64, f64)>) -> Vec<(f64, f64)> {
        if self.importance {
            let (low, high) = self.levels.ends();
            let span = (high / low).ln();
            let rate = 2.0 * span / (1.0 - EARLIEST);
            let level = |(uniform, _): (f64, f64)| low * (span * uniform).exp();
            return numbers.map(level).map(|sigma| (sigma, rate / (sigma * sigma))).collect();
        }
        let sigmas = self.levels.sigmas(numbers);
        sigmas.into_iter().map(|sigma| (sigma, self.weight.at(sigma, &self.levels))).collect()
    }
}

impl Objective for Denoising {
    fn draw(&self, clean: &Tensor, rng: &mut Rng) -> Result<Draw> {
        let levels = self.levels(chances(clean, rng)?.into_iter());
        let (sigmas, weights): (Vec<f64>, Vec<f64>) = levels.into_iter().unzip();
        let x = noised(clean, &sigmas, rng)?;
        let scale = share(clean, self.mean);
        let weights: Vec<f64> = weights.into_iter().map(|weight| scale * weight).collect();
        let (clean, batch) = (clean.clone(), sigmas.len() as f64);
        let loss = move |denoised: &Tensor| {
            let error = (denoised - &clean)?;
            let values = sums(&error.sqr()?)?.into_iter().zip(&weights).map(|(sum, weight)| weight * sum).collect();
            let factors = weights.iter().map(|weight| 2.0 * weight / batch);
            Ok(Loss { values, gradient: error.broadcast_mul(&column(factors, &error)?)? })
        };
        Ok(Draw { x, sigmas, loss: Box::new(loss) })
    }

    fn settings(&self) -> toml::Table {
        table(self)
    }
}

const FIELDS: &[(&str, &str)] = &[
    (
        "noise",
        "how noise levels are drawn, a table of kind one, log_normal, geometric, variance_exploding, linear, discrete or cosine",
    ),
    (
        "weight",
        "what a squared error counts at a level, a table of kind annealed, noise, likelihood, edm or soft_min_snr",
    ),
    ("mean", "whether squares are averaged over the numbers of an image rather than summed; default true"),
    ("importance", "whether times are drawn so that the weight likelihood is even; default false"),
];

/// These settings in the place of the defaults of `entry`.
fn build(entry: &Entry<BuildObjective>, over: toml::Table) -> Result<Box<dyn Objective>> {
    let denoising: Denoising = settings(entry.name, overlaid(entry.example, over))?;
    denoising.check().map_err(|reason| unsuitable(entry.name, &reason))?;
    Ok(Box::new(denoising))
}

/// `½‖s(x + σz) + z/σ‖²` at one level.
pub(super) const ONE_LEVEL: Entry<BuildObjective> = Entry {
    name: "denoising",
    about: "Denoising score matching at one noise level",
    fields: FIELDS,
    example: r#"noise = { kind = "one", sigma = 0.1 }
weight = { kind = "annealed", power = 0.0 }
mean = true"#,
    build: |table| build(&ONE_LEVEL, table),
};

/// Ten levels as in NCSN, 1 to 0.01 for pixels in [0, 1].
pub(super) const ANNEALED: Entry<BuildObjective> = Entry {
    name: "annealed",
    about: "Denoising score matching at a geometric sequence of noise levels, as in NCSN",
    fields: FIELDS,
    example: r#"noise = { kind = "geometric", sigma_min = 0.02, sigma_max = 2.0, count = 10 }
weight = { kind = "annealed", power = 2.0 }
mean = true"#,
    build: |table| build(&ANNEALED, table),
};

/// σ as for the photos of 32 × 32 of score_sde, 0.01 to 50 for pixels in [0, 1].
pub(super) const VARIANCE_EXPLODING: Entry<BuildObjective> = Entry {
    name: "ve",
    about: "Denoising along a variance exploding process in continuous time",
    fields: FIELDS,
    example: r#"noise = { kind = "variance_exploding", sigma_min = 0.02, sigma_max = 100.0 }
weight = { kind = "noise" }
mean = true"#,
    build: |table| build(&VARIANCE_EXPLODING, table),
};

pub(super) const VARIANCE_PRESERVING: Entry<BuildObjective> = Entry {
    name: "vp",
    about: "Denoising along a variance preserving process in continuous time",
    fields: FIELDS,
    example: r#"noise = { kind = "linear", beta_min = 0.1, beta_max = 20.0 }
weight = { kind = "noise" }
mean = true"#,
    build: |table| build(&VARIANCE_PRESERVING, table),
};

pub(super) const SUB_VARIANCE_PRESERVING: Entry<BuildObjective> = Entry {
    name: "sub_vp",
    about: "Denoising along the sub-VP process in continuous time",
    fields: FIELDS,
    example: r#"noise = { kind = "linear", beta_min = 0.1, beta_max = 20.0, sub = true }
weight = { kind = "noise" }
mean = true"#,
    build: |table| build(&SUB_VARIANCE_PRESERVING, table),
};

pub(super) const DDPM: Entry<BuildObjective> = Entry {
    name: "ddpm",
    about: "Prediction of the noise at the levels of a discrete process, as in DDPM",
    fields: FIELDS,
    example: r#"noise = { kind = "discrete", count = 1000 }
weight = { kind = "noise" }
mean = true"#,
    build: |table| build(&DDPM, table),
};

pub(super) const EDM: Entry<BuildObjective> = Entry {
    name: "edm",
    about: "Denoising at log-normal noise levels, weighted for a target of unit variance, as in EDM",
    fields: FIELDS,
    example: r#"noise = { kind = "log_normal", mean = -1.2, std = 1.2 }
weight = { kind = "edm", sigma_data = 0.5 }
mean = true"#,
    build: |table| build(&EDM, table),
};

/// The levels of simple diffusion's cosine, as in k-diffusion.
pub(super) const SOFT_MIN_SNR: Entry<BuildObjective> = Entry {
    name: "soft_min_snr",
    about: "Denoising at cosine noise levels, weighted by a softened signal-to-noise ratio, as in k-diffusion",
    fields: FIELDS,
    example: r#"noise = { kind = "cosine", sigma_data = 0.5, sigma_min = 0.001, sigma_max = 1000.0 }
weight = { kind = "soft_min_snr", sigma_data = 0.5 }
mean = true"#,
    build: |table| build(&SOFT_MIN_SNR, table),
};
