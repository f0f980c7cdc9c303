//! From an evaluation to its records.

use super::budget::{Fitted, fitted};
use super::config::refuse;
use super::subject::Subject;
use super::{AUTO, Evaluation, Figures, Journal, Method, Outcome, Record, memory};
use crate::digest::{hexadecimal, sha256};
use crate::metrics::{Levels, Residual, Statistics, gmsd, observed, psnr, ssim};
use crate::models::Model;
use crate::samplers::Choice;
use crate::{Case, Catalog, Error, Measured, Progress, Restoration, RestoreOptions, Result, degrade};
use candle_core::{DType, Device};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::time::Instant;
use tweedie_operators::{Measurement, Site};

/// A method on a measurement of a photo.
#[derive(Clone, Debug)]
pub struct Run {
    /// Index of the task.
    pub task: usize,
    /// Index of the photo.
    pub image: usize,
    /// Index of the method.
    pub method: usize,
    /// Hash of all that decides its record.
    pub key: String,
    /// What the method needs and does not get.
    pub obstacle: Option<String>,
    /// Network calls of a sample; `None` for `auto`, which chooses while it runs, and where there is an obstacle.
    pub evaluations: Option<usize>,
}

/// An evaluation whose photos are read and measured.
#[derive(Debug)]
pub struct Evaluator<'a> {
    evaluation: &'a Evaluation,
    catalog: &'a Catalog,
    model: &'a Model,
    subjects: Vec<Subject>,
    /// Of every task and photo, in this order.
    measured: Vec<Measurable>,
    runs: Vec<Run>,
    /// The measurement that was restored last, ready for the next method.
    case: Option<(usize, Case)>,
}

/// A measurement and the seed of its noise.
#[derive(Debug)]
struct Measurable {
    seed: u64,
    measured: Measured,
}

impl<'a> Evaluator<'a> {
    /// Reads the photos, measures them, and checks every method against every measurement.
    ///
    /// # Errors
    /// `Image` for a photo that cannot be read; `Config` for one that is smaller than the crop, for two of the same name,
    /// and for settings out of range; `Operator` for an operator or noise that cannot be, or does not fit a photo.
    pub fn new(evaluation: &'a Evaluation, catalog: &'a Catalog, model: &'a Model) -> Result<Self> {
        let mut subjects: Vec<Subject> = Vec::new();
        for path in &evaluation.images {
            let subject = Subject::open(path, evaluation.crop)?;
            if subjects.iter().any(|other| other.name == subject.name) {
                return refuse("images", format!("`{}` twice", subject.name), "photos with file names of their own");
            }
            subjects.push(subject);
        }
        let range = model.denoiser().sigma_range();
        let fit = |method: &Method| -> Result<Option<Option<Fitted>>> {
            if method.name == AUTO {
                return Ok(None);
            }
            fitted(&catalog.samplers, &method.name, &method.settings, evaluation.budget, &range).map(Some)
        };
        let fitted = evaluation.methods.iter().map(fit).collect::<Result<Vec<_>>>()?;
        let mut measured = Vec::new();
        let mut runs = Vec::new();
        for (task, of) in evaluation.tasks.iter().enumerate() {
            for (image, subject) in subjects.iter().enumerate() {
                let shape = subject.shape();
                let site = Site { operators: &catalog.operators, ..Site::new(shape, &Device::Cpu, DType::F32) };
                let (operator, noise) = of.description.build(site, &catalog.noises)?;
                let seed = measurement_seed(evaluation.seed, &subject.hash);
                let y = degrade(&subject.photo, &*operator, &*noise, seed)?.y;
                let measurement = Measurement { operator: &*operator, noise: &*noise, y };
                let values = hash_of_values(&measurement)?;
                for (method, fitted) in fitted.iter().enumerate() {
                    let obstacle = match fitted {
                        Some(None) => Some("needs more network calls for a single noise level".into()),
                        Some(Some((sampler, _))) => obstacle(sampler.check(&measurement))?,
                        None => None,
                    };
                    let settings = match fitted {
                        Some(Some((_, settings))) => settings,
                        _ => &evaluation.methods[method].settings,
                    };
                    let key = Decisive {
                        version: env!("CARGO_PKG_VERSION"),
                        model: &model.name,
                        model_hash: &model.hash,
                        device: format!("{:?}", model.device().location()),
                        precision: model.precision().to_string(),
                        image: &subject.hash,
                        operator: &of.description.operator,
                        noise: of.description.noise.as_ref(),
                        measurement: &values,
                        sampler: &evaluation.methods[method].name,
                        settings,
                        obstacle: obstacle.as_deref(),
                        samples: evaluation.samples,
                        seed: evaluation.seed,
                    };
                    let evaluations = match fitted {
                        Some(Some((sampler, _))) if obstacle.is_none() => Some(sampler.evaluations(&range)),
                        _ => None,
                    };
                    runs.push(Run { task, image, method, key: key.hash(), obstacle, evaluations });
                }
                let Measurement { y, .. } = measurement;
                let measured_y = Measured { y, description: String::new(), folder: String::new(), image: shape };
                measured.push(Measurable { seed, measured: measured_y });
            }
        }
        Ok(Self { evaluation, catalog, model, subjects, measured, runs, case: None })
    }

    /// The evaluation.
    pub fn evaluation(&self) -> &'a Evaluation {
        self.evaluation
    }

    /// All runs: task by task, photo by photo, in the order of the methods.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// File names and sizes (width, height) of what is used of the photos.
    pub fn images(&self) -> impl Iterator<Item = (&str, usize, usize)> {
        self.subjects.iter().map(|subject| (&*subject.name, subject.photo.width(), subject.photo.height()))
    }

    /// The record of a run as the journal has it, with the names of today.
    pub fn recorded(&self, run: &Run, journal: &Journal) -> Option<Record> {
        let record = journal.get(&run.key)?;
        Some(self.record(run, record.outcome.clone()))
    }

    fn record(&self, run: &Run, outcome: Outcome) -> Record {
        Record {
            key: run.key.clone(),
            task: self.evaluation.tasks[run.task].name.clone(),
            image: self.subjects[run.image].name.clone(),
            sampler: self.evaluation.methods[run.method].label.clone(),
            measurement_seed: self.measured[self.place(run)].seed,
            outcome,
        }
    }

    fn place(&self, run: &Run) -> usize {
        run.task * self.subjects.len() + run.image
    }

    /// Does a run. A method whose needs are not met, or that gives up, is a record too.
    ///
    /// # Errors
    /// What is not the method's: `Memory`, `Tensor`, `Io`, and the observer's.
    pub fn run(&mut self, run: &Run, observer: &mut dyn FnMut(Progress) -> Result<()>) -> Result<Record> {
        if let Some(obstacle) = &run.obstacle {
            return Ok(self.record(run, Outcome::Unsuitable(obstacle.clone())));
        }
        let place = self.place(run);
        let case = match self.case.take() {
            Some((of, case)) if of == place => case,
            _ => {
                let description = &self.evaluation.tasks[run.task].description;
                Case::measured(&self.measured[place].measured, description, self.catalog)?
            }
        };
        let outcome = match self.restored(run, &case, observer) {
            Ok(figures) => Outcome::Figures(Box::new(figures)),
            Err(Error::Unsuitable { needs, .. }) => Outcome::Unsuitable(format!("needs {needs}")),
            Err(error @ Error::Operator(tweedie_operators::Error::Tensor(_))) => return Err(error),
            Err(error @ (Error::NonFinite { .. } | Error::Operator(_))) => Outcome::Failed(error.to_string()),
            Err(other) => return Err(other),
        };
        self.case = Some((place, case));
        Ok(self.record(run, outcome))
    }

    fn restored(&self, run: &Run, case: &Case, observer: &mut dyn FnMut(Progress) -> Result<()>) -> Result<Figures> {
        let Self { evaluation, catalog, model, .. } = self;
        let method = &evaluation.methods[run.method];
        let options = RestoreOptions {
            samples: evaluation.samples,
            seed: evaluation.seed,
            samplers: &catalog.samplers,
            settings: method.settings.clone(),
            ..RestoreOptions::default()
        };
        let range = model.denoiser().sigma_range();
        let restoration = if method.name == AUTO {
            Restoration::new(case, &options, model)?
        } else {
            let fitted = fitted(&catalog.samplers, &method.name, &method.settings, evaluation.budget, &range)?;
            let (_, settings) = fitted.expect("a method that is too expensive has an obstacle");
            Restoration::with_choice(case, Choice::of(&method.name, settings), &options, model)?
        };
        let counted = memory::start_counting();
        let start = Instant::now();
        let samples = restoration.tensors(observer)?;
        let seconds = start.elapsed().as_secs_f64() / samples.len() as f64;
        let peak_memory = if counted { memory::largest() } else { None };

        let subject = &self.subjects[run.image];
        let measurement = Measurement { operator: &*case.operator, noise: &*case.noise, y: case.y.clone() };
        let seen = observed(&*case.operator, subject.shape())?;
        let truth = Levels::of(&subject.truth)?;
        let (mut decibels, mut similarity, mut deviation, mut residuals) = (0.0, 0.0, 0.0, Vec::new());
        for sample in &samples {
            let levels = Levels::of(sample)?;
            decibels += psnr(&truth, &levels)?;
            similarity += ssim(&truth, &levels)?;
            deviation += gmsd(&truth, &levels)?;
            residuals.push(Residual::of(&measurement, sample, seen.as_deref())?);
        }
        let count = samples.len() as f64;
        let residual = residuals.iter().map(|residual| residual.value()).sum::<f64>() / count;
        let sampler = restoration.sampler();
        let steps = sampler.annealing().sigmas(&range).len() - 1;
        let figures = Figures {
            method: sampler.name().into(),
            samples: samples.len(),
            steps,
            evaluations: sampler.evaluations(&range),
            pullbacks: sampler.pullbacks() * steps,
            seconds,
            peak_memory,
            psnr: decibels / count,
            ssim: similarity / count,
            gmsd: deviation / count,
            residual: match residuals[0] {
                Residual::Normalised(_) => Residual::Normalised(residual),
                Residual::Rms(_) => Residual::Rms(residual),
            },
            statistics: Statistics::of(&samples, &subject.truth, seen.as_deref())?,
        };
        Ok(figures.rounded())
    }
}

/// What is missing, in a few words, if that is what `check` says.
fn obstacle(check: Result<()>) -> Result<Option<String>> {
    match check {
        Ok(()) => Ok(None),
        Err(Error::Operator(tweedie_operators::Error::Unsupported { needs, .. })) => Ok(Some(format!("needs {needs}"))),
        Err(other) => Err(other),
    }
}

/// All that decides a record.
#[derive(Serialize)]
struct Decisive<'a> {
    version: &'a str,
    model: &'a str,
    model_hash: &'a str,
    device: String,
    precision: String,
    image: &'a str,
    operator: &'a toml::Table,
    noise: Option<&'a toml::Table>,
    /// Holds what the operator read from files.
    measurement: &'a str,
    sampler: &'a str,
    settings: &'a toml::Table,
    obstacle: Option<&'a str>,
    samples: usize,
    seed: u64,
}

impl Decisive<'_> {
    fn hash(&self) -> String {
        let text = serde_json::to_string(self).expect("tables of TOML are JSON");
        let mut hash = sha256(text.as_bytes());
        hash.truncate(32);
        hash
    }
}

/// Another seed than that of the samplers, whose first noise would else be that of the measurement, and another for each
/// photo; of 32 bits, so that people can type it.
fn measurement_seed(seed: u64, image: &str) -> u64 {
    let digest = Sha256::new_with_prefix(format!("measurement {seed} {image}")).finalize();
    u64::from(u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]))
}

fn hash_of_values(measurement: &Measurement<'_>) -> Result<String> {
    let mut hasher = Sha256::new();
    let values = measurement.y.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
    values.iter().for_each(|value| hasher.update(value.to_le_bytes()));
    Ok(hexadecimal(&hasher.finalize()))
}
