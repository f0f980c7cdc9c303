//! What is timed.

use super::SIGMA;
use crate::models::{Checkpoint, Model};
use crate::priors::Scalings;
use crate::{Error, Result};
use candle_core::Tensor;
use tweedie_kernels::{Adam, AdamOptions, Parameters, Trainer};
use tweedie_operators::Rng;

/// Too small to move the weights, so that every step works on the same numbers, as in `benches/peers/training.py`.
const LEARNING_RATE: f64 = 1e-8;

/// What can be timed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum What {
    #[default]
    Denoise,
    Pullback,
    Train,
}

impl What {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Denoise => "denoise",
            Self::Pullback => "pullback",
            Self::Train => "train",
        }
    }

    /// Its operations, in those of one evaluation.
    pub(super) fn evaluations(self) -> f64 {
        match self {
            Self::Denoise => 1.0,
            Self::Pullback => 2.0,
            Self::Train => 3.0,
        }
    }

    /// The call for `batch` images of `size × size`; `name` is how the model was named.
    pub(super) fn prepare<'a>(self, model: &'a Model, name: &str, batch: usize, size: usize) -> Result<Call<'a>> {
        let images = |seed| images(model, seed, batch, size);
        Ok(match self {
            Self::Denoise => Call::Denoise { model, x: images(0)? },
            Self::Pullback => Call::Pullback { model, x: images(0)?, v: images(1)? },
            Self::Train => Call::Train(Box::new(Training::new(model, name, batch, size)?)),
        })
    }
}

/// Noise: the time does not depend on what is in the images.
pub(super) fn images(model: &Model, seed: u64, batch: usize, size: usize) -> Result<Tensor> {
    let channels = model.denoiser().channels().unwrap_or(3);
    Ok(Rng::new(seed, 0..batch as u64).normal((batch, channels, size, size), model.device())?)
}

/// One call with its arguments, to be repeated.
#[derive(Debug)]
pub(super) enum Call<'a> {
    Denoise { model: &'a Model, x: Tensor },
    Pullback { model: &'a Model, x: Tensor, v: Tensor },
    Train(Box<Training>),
}

impl Call<'_> {
    pub(super) fn run(&mut self) -> Result<()> {
        match self {
            Self::Denoise { model, x } => {
                model.denoiser().denoise(x, SIGMA)?;
                Ok(model.device().synchronize()?)
            }
            Self::Pullback { model, x, v } => {
                let (_, pullback) = model.denoiser().denoise_with_pullback(x, SIGMA)?;
                pullback.apply(v)?;
                Ok(model.device().synchronize()?)
            }
            Self::Train(training) => training.step(),
        }
    }
}

/// A step of Adam on the denoising loss, on the CPU.
#[derive(Debug)]
pub(super) struct Training {
    trainer: Trainer,
    scalings: Scalings,
    clean: Vec<f32>,
    noise: Vec<f32>,
    shape: [usize; 4],
}

impl Training {
    fn new(model: &Model, name: &str, batch: usize, size: usize) -> Result<Self> {
        let checkpoint = Checkpoint::named(name)?;
        let network = &checkpoint.network;
        let parameters: Parameters = network
            .parameters()
            .into_iter()
            .filter_map(|parameter| Some((parameter.name.clone(), checkpoint.parameter(&parameter.name)?)))
            .collect();
        let adam = Adam::new(AdamOptions { learning_rate: LEARNING_RATE, ..AdamOptions::default() });
        let trainer = Trainer::new(network, model.instruction_set(), model.precision(), parameters, adam);
        let flat = |seed| Ok::<_, Error>(images(model, seed, batch, size)?.flatten_all()?.to_vec1()?);
        Ok(Self {
            trainer: trainer.map_err(candle_core::Error::wrap)?,
            scalings: checkpoint.parameterization.scalings(SIGMA),
            clean: flat(0)?,
            noise: flat(1)?,
            shape: [batch, network.channels, size, size],
        })
    }

    /// `λ |D(x₀ + σ n; σ) − x₀|²`, averaged, with the weight `λ = 1/out²` of Karras et al. (2022): `|F − target|²`.
    fn step(&mut self) -> Result<()> {
        let Self { trainer, scalings, clean, noise, shape } = self;
        let Scalings { skip, out, input, shift, noise: coordinate, offset } = *scalings;
        let noisy: Vec<f32> = clean.iter().zip(&*noise).map(|(x0, n)| x0 + SIGMA as f32 * n).collect();
        let x: Vec<f32> = noisy.iter().map(|x| input as f32 * x + shift as f32).collect();
        let (skip, out, offset, count) = (skip as f32, out as f32, offset as f32, clean.len() as f64);
        // A noise level for each image, as in training.
        let levels = vec![coordinate as f32; shape[0]];
        let loss = |output: &[f32]| {
            let targets = noisy.iter().zip(&*clean).map(|(x, x0)| (x0 - skip * x - offset) / out);
            let difference: Vec<f32> = output.iter().zip(targets).map(|(f, target)| f - target).collect();
            let square: f64 = difference.iter().map(|d| f64::from(*d) * f64::from(*d)).sum();
            let factor = (2.0 / count) as f32;
            (square / count, difference.into_iter().map(|d| factor * d).collect())
        };
        trainer.step(&x, *shape, &levels, loss).map_err(candle_core::Error::wrap)?;
        Ok(())
    }
}
