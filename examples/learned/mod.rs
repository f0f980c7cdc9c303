//! Scores that a small network learns from points, by the objectives of `tweedie train` and its loop.
#![allow(dead_code, reason = "every example needs a part of this")]

use candle_core::{DType, Tensor};
use safetensors::tensor::Dtype;
use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;
use tweedie::models::{Model, ModelOptions};
use tweedie::train::{Data, HeldOut, Line, TrainConfig, Training};

type Failure = Box<dyn std::error::Error>;

/// What is learned, and how.
pub(crate) struct Lesson<'a, const N: usize> {
    /// What examples are made of.
    pub(crate) points: Vec<[f64; N]>,
    /// TOML of the objective.
    pub(crate) objective: &'a str,
    /// Standard deviation of a coordinate of the points.
    pub(crate) spread: f64,
    /// Steps of the optimiser.
    pub(crate) steps: u64,
    /// Examples of a step.
    pub(crate) batch: usize,
}

/// A run that can be looked at on its way.
pub(crate) struct Pupil {
    training: Training,
    /// Examples of a step.
    batch: usize,
    /// (Step, loss of an example), on average over the steps since the one before.
    pub(crate) losses: Vec<[f64; 2]>,
    /// Removed when the run is over.
    _folder: tempfile::TempDir,
}

impl<const N: usize> Lesson<'_, N> {
    /// Before the first step.
    pub(crate) fn begin(self) -> Result<Pupil, Failure> {
        let Self { points, objective, spread, steps, batch } = self;
        let text = format!(
            "name = 'points'\nsteps = {steps}\nlog_every = 25\naverage = [{{ power = 0.6667 }}]\n\
             data = {{ folder = '', patch = 1 }}\nobjective = {{ {objective} }}\n\
             [model]\narchitecture = 'Perceptron'\n\
             config = {{ channels = {N}, width = 64, blocks = 2, parameterization = {{ edm = {{ sigma_data = {spread} }} }} }}\n\
             [optimiser]\nbatch = {batch}\nlearning_rate = {{ rate = 4e-3, warm_up = 50, decay = {steps} }}\n\
             [validation]\nevery = 0\nsamples = 0\n[checkpoint]\nevery = {steps}\n"
        );
        let config: TrainConfig = toml::from_str(&text)?;
        let folder = tempfile::tempdir()?;
        let points = Arc::new(points);
        let data = |_: &TrainConfig, _: &_| {
            let held_out = batch_of(&points, 0..64)?;
            let (count, pixels) = (points.len(), points.len() as u64);
            Ok(Data {
                examples: Box::new(move |range: Range<u64>| batch_of(&points, range)),
                held_out: HeldOut { crops: Vec::new(), examples: held_out },
                digest: "points".into(),
                count,
                pixels,
                skipped: Vec::new(),
            })
        };
        let training = Training::open_with(config, data, folder.path(), &ModelOptions::default(), false)?;
        Ok(Pupil { training, batch, losses: Vec::new(), _folder: folder })
    }

    /// After the last step.
    pub(crate) fn learn(self) -> Result<Model, Failure> {
        let steps = self.steps;
        let mut pupil = self.begin()?;
        pupil.go_on(steps)?;
        pupil.model()
    }
}

impl Pupil {
    /// So many more steps.
    pub(crate) fn go_on(&mut self, steps: u64) -> Result<(), Failure> {
        let left = Cell::new(steps);
        let stop = || left.replace(left.get().saturating_sub(1)) == 0;
        let Self { training, losses, .. } = self;
        training.run(&stop, &mut |line| {
            if let Line::Step(progress) = line {
                losses.push([progress.step as f64, progress.loss]);
            }
        })?;
        Ok(())
    }

    /// What it has learned, averaged over the latest steps.
    pub(crate) fn model(&self) -> Result<Model, Failure> {
        Ok(self.training.model(Dtype::F32)?)
    }

    /// Examples that it has seen.
    pub(crate) fn seen(&self) -> usize {
        self.training.state().step as usize * self.batch
    }
}

/// Points one after the other, over and over, in single precision.
fn batch_of<const N: usize>(points: &[[f64; N]], range: Range<u64>) -> tweedie::Result<Tensor> {
    let chosen: Vec<[f64; N]> = range.map(|k| points[(k % points.len() as u64) as usize]).collect();
    Ok(crate::plane::tensor(&chosen)?.to_dtype(DType::F32)?)
}

/// `∇ log p_σ` at points as a network has learned it.
pub(crate) fn scores<const N: usize>(model: &Model, at: &[[f64; N]], sigma: f64) -> tweedie::Result<Vec<[f64; N]>> {
    let x = crate::plane::tensor(at)?.to_dtype(DType::F32)?;
    crate::plane::points(&model.denoiser().score(&x, sigma)?)
}

/// `√(E‖a − b‖²/E‖b‖²)`.
pub(crate) fn relative_error<const N: usize>(a: &[[f64; N]], b: &[[f64; N]]) -> f64 {
    let square = |v: [f64; N]| v.iter().map(|x| x * x).sum::<f64>();
    let wrong: f64 = a.iter().zip(b).map(|(a, b)| square(crate::plane::difference(*a, *b))).sum();
    (wrong / b.iter().map(|b| square(*b)).sum::<f64>()).sqrt()
}

/// Relative errors at points as shades: 0 is 1 %, ½ is 10 % and 1 is 100 %.
pub(crate) fn shades(found: &[[f64; 2]], exact: &[[f64; 2]]) -> Vec<f64> {
    let error =
        |(a, b): (&[f64; 2], &[f64; 2])| crate::plane::norm(crate::plane::difference(*a, *b)) / crate::plane::norm(*b);
    found.iter().zip(exact).map(|pair| 0.5 * (error(pair).log10() + 2.0)).collect()
}
