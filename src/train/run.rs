//! The loop: batches, gradients, steps, and what is written on the way.

use super::average;
use super::batches::Batches;
use super::claim::Claim;
use super::config::{Method, TrainConfig};
use super::examples::Data;
use super::initial::initial_parameters;
use super::journal::{Journal, Line, Progress, Validation};
use super::learner::{Learner, gradients, learner};
use super::muon::matrices;
use super::objective::Objective;
use super::report::{Page, keep_few, write_pictures};
use super::state::{State, adam_options, checkpoints};
use super::subject::Subject;
use super::tensorboard::Events;
use super::validation::{HeldOut, draw};
use crate::digest::number;
use crate::image::write_atomically_with;
use crate::models::{Checkpoint, Model, ModelOptions};
use crate::{Error, Result};
use safetensors::tensor::Dtype;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tweedie_kernels::{Parameters, Precision};
use tweedie_operators::Rng;

/// A run of training in a folder: `log.jsonl`, `checkpoint-*.safetensors`, `model.safetensors`, `report.html` with its
/// pictures, `events.out.tfevents.*`.
#[derive(Debug)]
pub struct Training {
    config: TrainConfig,
    folder: PathBuf,
    options: ModelOptions,
    subject: Subject,
    objective: Arc<dyn Objective>,
    learner: Box<dyn Learner>,
    state: State,
    /// The parameters that Muon moves.
    matrices: BTreeMap<String, [usize; 2]>,
    batches: Batches,
    held_out: HeldOut,
    journal: Journal,
    events: Events,
    /// What was passed over in the folder of photos, with the reason.
    pub skipped: Vec<(PathBuf, String)>,
    _claim: Claim,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All steps were taken.
    Done,
    /// Somebody asked for it; everything is saved.
    Interrupted,
}

impl Training {
    /// Prepares a run in `folder` on the photos of the configuration: from the newest checkpoint there with `resume`, from the
    /// beginning otherwise.
    ///
    /// # Errors
    /// `Config` if the folder has a run and `resume` is false, or another one; and those of reading photos and networks.
    pub fn open(config: TrainConfig, folder: &Path, options: &ModelOptions, resume: bool) -> Result<Self> {
        let data = |config: &TrainConfig, subject: &Subject| Data::of_photos(config, &subject.network);
        Self::open_with(config, data, folder, options, resume)
    }

    /// The same on other data, which `data` makes for the configuration and the network: examples in memory, say.
    ///
    /// # Errors
    /// As [`open`](Self::open), and those of `data`.
    pub fn open_with(
        config: TrainConfig,
        data: impl FnOnce(&TrainConfig, &Subject) -> Result<Data>,
        folder: &Path,
        options: &ModelOptions,
        resume: bool,
    ) -> Result<Self> {
        config.check()?;
        let failed = |source| Error::Io { path: folder.into(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let claim = Claim::of(folder)?;
        let found = checkpoints(folder)?.pop();
        if let (Some((step, _)), false) = (&found, resume) {
            return Err(Error::Config {
                name: format!("folder {}", folder.display()),
                got: format!("one with a run of {step} steps"),
                expected: "another folder, or --resume to go on with that run".into(),
            });
        }
        let (subject, initial) = Subject::of(&config.model)?;
        let data = data(&config, &subject)?;
        let state = match found {
            Some((_, path)) => State::read(&path, &config)?,
            None => {
                let drawn = || initial_parameters(&subject.network, number(&[b"network", &config.seed.to_le_bytes()]));
                State::new(initial.map_or_else(drawn, Ok)?, &config, data.digest.clone())
            }
        };
        if state.data != data.digest {
            return Err(Error::Config {
                name: format!("data.folder {}", config.data.folder.display()),
                got: "other data than those that the run began with".into(),
                expected: "the same, or a folder of its own for a run with others".into(),
            });
        }
        let matrices = match config.optimiser.method {
            Method::Adam => BTreeMap::new(),
            Method::Muon => matrices(&subject.network),
        };
        if config.optimiser.method == Method::Muon && matrices.is_empty() {
            return Err(Error::Config {
                name: "optimiser.method".into(),
                got: "muon".into(),
                expected: "adam: the network has no convolution between 16 channels or more".into(),
            });
        }
        let precision = Precision::from(config.precision);
        let learner = learner(&subject, &state.parameters, options, precision)?;
        let mut journal = Journal::open(&folder.join("log.jsonl"), state.step)?;
        let validations = journal.lines.iter().filter(|line| matches!(line, Line::Validation(_))).count();
        let events = Events::open(folder, state.step, validations as u64)?;
        journal.write(Line::Start {
            step: state.step,
            steps: config.steps,
            parameters: state.parameters.values().map(Vec::len).sum(),
            photos: data.count,
            pixels: data.pixels,
            time: SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs_f64(),
        })?;
        let first = state.step * config.examples();
        let Data { examples, held_out, skipped, .. } = data;
        let batches = Batches::new(examples, first, config.optimiser.batch);
        let objective = config.objective.objective();
        let (folder, options) = (folder.to_path_buf(), options.clone());
        Ok(Self {
            config,
            folder,
            options,
            subject,
            objective,
            learner,
            state,
            matrices,
            batches,
            held_out,
            journal,
            events,
            skipped,
            _claim: claim,
        })
    }

    /// Where it stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What is trained.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The log so far.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Photos that turned out not to be readable while they were trained on, with the reason.
    pub fn unreadable(&self) -> &[(PathBuf, String)] {
        &self.batches.failed
    }

    /// What [`run`](Self::run) would write of `steps` steps, which are written nowhere; one more is taken before them, in
    /// which memory is asked for and photos are decoded.
    ///
    /// # Errors
    /// Those of a step.
    pub fn rehearse(&mut self, steps: u64) -> Result<Progress> {
        self.step(&mut Tally::new(Instant::now(), self.batches.waited))?;
        let start = Instant::now();
        let mut tally = Tally::new(start, self.batches.waited);
        for _ in 0..steps.max(1) {
            self.step(&mut tally)?;
        }
        Ok(tally.progress(&self.state, &self.config, &self.batches, start))
    }

    /// Trains to the end, or until `stop`, which is asked before every step, says so. `observe` sees every line of the log.
    ///
    /// # Errors
    /// `NonFinite` with step and noise level, before the step is taken; those of writing.
    pub fn run(&mut self, stop: &dyn Fn() -> bool, observe: &mut dyn FnMut(&Line)) -> Result<End> {
        let start = Instant::now();
        let mut since = Tally::new(start, self.batches.waited);
        let end = loop {
            if self.state.step >= self.config.steps {
                break End::Done;
            }
            if stop() {
                break End::Interrupted;
            }
            self.step(&mut since)?;
            let step = self.state.step;
            let last = step == self.config.steps;
            let due = |every: u64| every > 0 && step.is_multiple_of(every) || last;
            if due(self.config.log_every) {
                let now = Tally::new(Instant::now(), self.batches.waited);
                let progress =
                    std::mem::replace(&mut since, now).progress(&self.state, &self.config, &self.batches, start);
                self.log(Line::Step(progress), observe)?;
            }
            if due(self.config.validation.every) {
                let before = Instant::now();
                let validation = self.validate()?;
                self.log(Line::Validation(validation), observe)?;
                self.report()?;
                since.pause(before.elapsed());
            }
            if due(self.config.checkpoint.every) {
                let before = Instant::now();
                self.save(observe)?;
                since.pause(before.elapsed());
            }
        };
        if end == End::Interrupted {
            self.save(observe)?;
        }
        let why = if end == End::Done { "done" } else { "interrupted" }.to_owned();
        self.log(Line::End { step: self.state.step, why, seconds: start.elapsed().as_secs_f64() }, observe)?;
        self.report()?;
        Ok(end)
    }

    /// Writes the page, and keeps few of its pictures.
    fn report(&self) -> Result<()> {
        let lines = &self.journal.lines;
        let skipped: Vec<_> = self.skipped.iter().chain(&self.batches.failed).cloned().collect();
        let (family, held_out) = (self.subject.family(), self.held_out.crops.len());
        let page = Page { config: &self.config, family, held_out, skipped: &skipped, lines, folder: &self.folder };
        page.write()?;
        keep_few(&self.folder, lines)
    }

    fn log(&mut self, line: Line, observe: &mut dyn FnMut(&Line)) -> Result<()> {
        observe(&line);
        self.events.line(&line)?;
        self.journal.write(line)
    }

    /// One step of the optimiser.
    fn step(&mut self, tally: &mut Tally) -> Result<()> {
        let optimiser = self.config.optimiser;
        let noise = number(&[b"noise", &self.config.seed.to_le_bytes()]);
        let mut sum: Option<Parameters> = None;
        for pass in 0..optimiser.accumulate {
            let first = self.state.step * self.config.examples() + (pass * optimiser.batch) as u64;
            let clean = self.batches.next()?;
            let mut rng = Rng::new(noise, first..first + optimiser.batch as u64);
            let draw = self.objective.draw(&clean, &mut rng)?;
            let points = (&draw.x, &draw.sigmas[..]);
            let (loss, found) = gradients(self.learner.as_ref(), &self.subject.parameterization, points, &draw.loss)?;
            if let Some(index) = loss.values.iter().position(|value| !value.is_finite()) {
                let first = index * draw.sigmas.len() / loss.values.len();
                return Err(Error::NonFinite { step: self.state.step as usize, sigma: draw.sigmas[first] });
            }
            tally.add(&loss.values, &draw.sigmas);
            match &mut sum {
                None => sum = Some(found),
                Some(sum) => {
                    for (name, values) in sum {
                        values.iter_mut().zip(&found[name]).for_each(|(sum, value)| *sum += value);
                    }
                }
            }
        }
        let mut gradient = sum.unwrap_or_default();
        let square = |values: &Vec<f32>| values.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>();
        let norm = gradient.values().map(square).sum::<f64>().sqrt() / optimiser.accumulate as f64;
        if !norm.is_finite() {
            return Err(Error::NonFinite { step: self.state.step as usize, sigma: f64::NAN });
        }
        let shorten = if optimiser.clip > 0.0 && norm > optimiser.clip { optimiser.clip / norm } else { 1.0 };
        let factor = (shorten / optimiser.accumulate as f64) as f32;
        if factor != 1.0 {
            gradient.values_mut().flatten().for_each(|g| *g *= factor);
        }
        let state = &mut self.state;
        state.adam.options = adam_options(&self.config);
        state.adam.options.learning_rate = optimiser.learning_rate.at(state.step, self.config.steps);
        let rate = state.adam.options.learning_rate;
        let names = self.matrices.keys();
        let mut matrices: Parameters = names.filter_map(|name| state.parameters.remove_entry(name)).collect();
        let moved = state.muon.step((rate, optimiser.weight_decay), &self.matrices, &mut matrices, &gradient);
        let others = state.adam.step(&mut state.parameters, &gradient).map_err(candle_core::Error::wrap);
        state.parameters.append(&mut matrices);
        moved?;
        others?;
        self.learner.set_parameters(&state.parameters)?;
        let updates = state.step;
        state.step += 1;
        let images = state.step * self.config.examples();
        for (average, decay) in state.averages.iter_mut().zip(&self.config.average) {
            average::update(average, &state.parameters, decay.rate(updates, images, self.config.examples() as usize));
        }
        tally.steps += 1;
        tally.norm += norm;
        tally.learning_rate = state.adam.options.learning_rate;
        Ok(())
    }

    /// Measures the first average on held-out photos, and draws from it.
    fn validate(&mut self) -> Result<Validation> {
        let model = self.model(Dtype::F32)?;
        let denoiser = model.denoiser();
        let (mut validation, shown) =
            self.held_out.measure(denoiser, self.objective.as_ref(), &self.config, self.state.step)?;
        let samples = draw(denoiser, &self.held_out.examples, &self.config)?;
        write_pictures(&self.folder, &mut validation, &shown, samples.as_ref())?;
        Ok(validation)
    }

    /// The first average as a model, in the numbers that it would be written in.
    ///
    /// # Errors
    /// Those of writing and reading a model.
    pub fn model(&self, dtype: Dtype) -> Result<Model> {
        let mut bytes = Vec::new();
        let path = self.folder.join("model.safetensors");
        self.export(dtype, (&mut bytes, &path))?;
        Model::new(&Checkpoint::from_native(bytes, &path.to_string_lossy())?, &self.options)
    }

    fn export(&self, dtype: Dtype, to: (&mut dyn std::io::Write, &Path)) -> Result<()> {
        let step = self.state.step;
        let examples = step * self.config.examples();
        let side = self.config.data.patch;
        let provenance = format!("{step} steps of training, {examples} patches of {side}x{side} pixels");
        self.subject.write(&self.config.name, &self.state.averages[0], &[("provenance", provenance)], dtype, to)
    }

    /// Writes the checkpoint and the model.
    fn save(&mut self, observe: &mut dyn FnMut(&Line)) -> Result<()> {
        let path = self.folder.join("model.safetensors");
        write_atomically_with(&path, true, |file, _| self.export(Dtype::F32, (file, &path)))?;
        self.state.write(&self.folder, &self.config, self.journal.best())?;
        self.log(Line::Checkpoint { step: self.state.step }, observe)
    }
}

/// What happened since the last line of the log.
#[derive(Debug)]
struct Tally {
    start: Instant,
    waited: Duration,
    paused: Duration,
    steps: u64,
    norm: f64,
    learning_rate: f64,
    /// (σ, loss) of every example.
    losses: Vec<(f64, f64)>,
}

impl Tally {
    fn new(start: Instant, waited: Duration) -> Self {
        Self { start, waited, paused: Duration::ZERO, steps: 0, norm: 0.0, learning_rate: 0.0, losses: Vec::new() }
    }

    fn add(&mut self, values: &[f64], sigmas: &[f64]) {
        // Of several points for an example the first is taken.
        let each = sigmas.len() / values.len().max(1);
        self.losses.extend(
            values.iter().enumerate().map(|(index, value)| (sigmas[index * each.max(1) % sigmas.len()], *value)),
        );
    }

    /// Time that was spent on something else.
    fn pause(&mut self, time: Duration) {
        self.paused += time;
    }

    fn progress(mut self, state: &State, config: &TrainConfig, batches: &Batches, start: Instant) -> Progress {
        self.losses.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mean = |losses: &[(f64, f64)]| losses.iter().map(|(_, loss)| loss).sum::<f64>() / losses.len() as f64;
        let quarters = self.losses.chunks(self.losses.len().div_ceil(4).max(1));
        let quarters = quarters.map(|quarter| (quarter[quarter.len() - 1].0, mean(quarter))).collect();
        let seconds = self.start.elapsed().saturating_sub(self.paused).as_secs_f64().max(1e-9);
        let waited = batches.waited.saturating_sub(self.waited).as_secs_f64();
        Progress {
            step: state.step,
            images: state.step * config.examples(),
            loss: mean(&self.losses),
            quarters,
            gradient_norm: self.norm / self.steps.max(1) as f64,
            learning_rate: self.learning_rate,
            images_per_second: (self.steps * config.examples()) as f64 / seconds,
            waiting: waited / seconds,
            seconds: start.elapsed().as_secs_f64(),
        }
    }
}
