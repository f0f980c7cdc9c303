//! Denoising score matching, at one noise level, many, or a continuum of them.

use super::levels::NoiseLevels;
use super::objective::{Draw, Loss, Objective, column, sums};
use crate::Result;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use tweedie_operators::Rng;

/// `w(σ) ‖D(x₀ + σz; σ) − x₀‖²`, σ from a distribution of levels.
///
/// With `s = (D − x)/σ²` and `ε̂ = (x − D)/σ` the expression `‖D − x₀‖²/σ²` is `‖σs + z‖²` and `‖ε̂ − z‖²`: denoising and
/// annealed score matching, the loss of score SDEs and that of DDPM differ in how σ is drawn and in the weight alone.
///
/// Vincent (2011), <https://doi.org/10.1162/NECO_a_00142>; Song and Ermon (2019), <https://arxiv.org/abs/1907.05600>
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Denoising {
    /// How σ is drawn.
    pub levels: NoiseLevels,
    /// `w(σ)`.
    pub weight: Weight,
    /// Whether squares are averaged over the numbers of an image; summed otherwise.
    pub mean: bool,
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

impl Objective for Denoising {
    fn draw(&self, clean: &Tensor, rng: &mut Rng) -> Result<Draw> {
        let shape = (rng.streams(), 1, 1, 1);
        let uniform = rng.uniform(shape, clean.device())?.flatten_all()?.to_vec1::<f32>()?;
        let normal = rng.normal(shape, clean.device())?.flatten_all()?.to_vec1::<f32>()?;
        let draw = |(u, n): (&f32, &f32)| self.levels.sigma(f64::from(*u), f64::from(*n));
        let sigmas: Vec<f64> = uniform.iter().zip(&normal).map(draw).collect();
        let x = (clean + rng.normal_like(clean)?.broadcast_mul(&column(sigmas.iter().copied(), clean)?)?)?;
        let numbers: usize = clean.dims()[1..].iter().product();
        let scale = if self.mean { 1.0 / numbers as f64 } else { 1.0 };
        let weights: Vec<f64> = sigmas.iter().map(|&sigma| scale * self.weight.at(sigma, &self.levels)).collect();
        let (clean, batch) = (clean.clone(), sigmas.len() as f64);
        let loss = move |denoised: &Tensor| {
            let error = (denoised - &clean)?;
            let values = sums(&error.sqr()?)?.into_iter().zip(&weights).map(|(sum, weight)| weight * sum).collect();
            let factors = weights.iter().map(|weight| 2.0 * weight / batch);
            Ok(Loss { values, gradient: error.broadcast_mul(&column(factors, &error)?)? })
        };
        Ok(Draw { x, sigmas, loss: Box::new(loss) })
    }
}
