//! The way of the photos: read and decoded, restored, encoded, written, recorded, all at the same time.
//!
//! | stage | threads | photos that it holds |
//! | --- | --- | --- |
//! | read and decode | one for four jobs | one each, and as many as jobs that wait to be restored |
//! | restore | one a job | one each |
//! | encode | one for four jobs | one each, and as many that wait |
//! | write and record | the caller's | what came while the last group was written, at most 64 or about 64 MiB |
//!
//! The network's own work is done by the one pool of threads that all share. Jobs are there so that the pool is busy while one
//! of them does what only one thread can do.
//!
//! Nothing here decides a byte of an output: that does the recipe, of an item and the content of its files.

use super::budget::{Budget, Loan};
use super::decoder::{Decoder, Memory, Source, guarded};
use super::encoder::encode;
use super::recipe::{Prepared, Recipe};
use super::restorer::{Done, Restorer};
use super::summary::{FullDisk, Halt, Signal, Stopped, Summary, lacks_resources};
use super::writer::{Job, Writer};
use super::{Decision, Item, Manifest, Name, Plan, Policy, Record, Status, Wanted, Written, folder, sha256};
use crate::models::Model;
use crate::priors::{Denoiser, Gathered};
use crate::{Error, Progress, Result, program_memory};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

/// What a run may use, and when it ends.
#[derive(Clone, Copy)]
pub struct Limits<'a> {
    /// Photos that are restored at the same time, ≥ 1.
    pub jobs: usize,
    /// Bytes of memory for the program with everything in flight; `None` is no limit.
    pub memory: Option<u64>,
    /// When the run ends, done or not.
    pub deadline: Option<Instant>,
    /// Whether the first photo that fails ends the run.
    pub fail_fast: bool,
    /// The signal that came, if one did. Photos in flight are dropped within a step, those restored are written.
    pub stop: &'a (dyn Fn() -> Option<Signal> + Sync),
}

impl fmt::Debug for Limits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { jobs, memory, deadline, fail_fast, .. } = self;
        f.debug_struct("Limits")
            .field("jobs", jobs)
            .field("memory", memory)
            .field("deadline", deadline)
            .field("fail_fast", fail_fast)
            .finish_non_exhaustive()
    }
}

/// Something that happened to a photo, told by the thread to which it happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// It was done before.
    Skipped {
        /// The photo.
        item: &'a Item,
    },
    /// It is left as it is, which is no success: it failed before, or someone has to decide.
    Refused {
        /// The photo.
        item: &'a Item,
        /// Why.
        reason: &'a str,
    },
    /// It is being restored.
    Begun {
        /// The photo.
        item: &'a Item,
        /// What will be done, and what it will cost.
        plan: &'a crate::Plan,
    },
    /// A step is done.
    Step {
        /// The photo.
        item: &'a Item,
        /// Which one.
        progress: Progress,
    },
    /// It is done or failed, which is safely on the disk.
    Finished {
        /// The photo.
        item: &'a Item,
        /// What the manifest says of it.
        record: &'a Record,
    },
}

/// A run: photos, what is made of them, and with what.
pub struct Pipeline<'a> {
    /// The photos and the names of their outputs.
    pub plan: &'a Plan,
    /// What is done with photos that have a record.
    pub policy: Policy,
    /// What is made of them.
    pub recipe: &'a dyn Recipe,
    /// The prior.
    pub model: &'a Model,
    /// What it may use.
    pub limits: Limits<'a>,
    /// Who is told what happens.
    pub observer: &'a (dyn Fn(Event<'_>) + Sync),
}

impl fmt::Debug for Pipeline<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").field("policy", &self.policy).field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Bytes for photos that are decoded ahead, where memory has no limit.
const AHEAD: u64 = 512 << 20;

/// The part of the memory that is for photos decoded ahead, where it has a limit.
pub(super) const AHEAD_SHARE: u64 = 8;

/// Bytes that the plan of one photo may come to in a run that may use `memory` bytes; both with the program's `own`.
pub(super) fn memory_of_photo(memory: Option<u64>, own: u64) -> Option<u64> {
    memory.map(|memory| {
        let bytes = memory.saturating_sub(own);
        own + bytes - bytes / AHEAD_SHARE
    })
}

/// Bytes that photos may fill together where that makes them only faster.
const SPARE: u64 = 3 << 29;

/// Photos that go to the disk together, at most, and about how many bytes.
const GROUP: usize = 64;
const GROUP_BYTES: usize = 64 << 20;

/// Images of one network call on a device where a call costs the same for one as for some.
const ROWS: usize = 8;

/// A photo that waits to be restored.
struct Ready<'a> {
    index: usize,
    prepared: Prepared<'a>,
    source: Source,
    options_hash: String,
    memory: Memory<'a>,
    seconds: f64,
}

/// A photo that waits to be encoded.
struct Drawn<'a> {
    index: usize,
    prepared: Prepared<'a>,
    source: Source,
    options_hash: String,
    done: Done<'a>,
    seconds: f64,
}

/// A photo that waits to be written and recorded.
struct Finished<'a> {
    index: usize,
    source: Option<Source>,
    outcome: Outcome<'a>,
}

enum Outcome<'a> {
    Skipped,
    /// It is left as it is, and a retry is or is not another try.
    Refused {
        reason: String,
        code: u8,
        can_retry: bool,
    },
    Failed {
        error: Error,
        options_hash: String,
    },
    Encoded(Box<Encoded<'a>>),
}

struct Encoded<'a> {
    record: Record,
    files: Vec<(PathBuf, Vec<u8>)>,
    sampling_seconds: f64,
    /// For the files, until they are written.
    memory: Loan<'a>,
}

impl<'a> Pipeline<'a> {
    /// Restores the photos that the manifest does not have, and sorts it when all had their turn.
    ///
    /// # Errors
    /// If nothing more can be recorded; what is wrong with single photos is in the [`Summary`] and in the manifest.
    pub fn run(&self, manifest: &Manifest) -> Result<Summary> {
        let clock = Instant::now();
        let Limits { jobs, memory, deadline, fail_fast, stop } = self.limits;
        let jobs = jobs.max(1);
        let halt = Halt::new(stop, deadline, fail_fast);
        let own = program_memory(self.model);
        let (ahead, run) = match memory.map(|bytes| bytes.saturating_sub(own)) {
            None => (Budget::new(Some(AHEAD)), Budget::new(None)),
            Some(bytes) => {
                let ahead = bytes / AHEAD_SHARE;
                (Budget::new(Some(ahead)), Budget::new(Some(bytes - ahead)))
            }
        };
        let prior = self.model.colour_denoiser();
        // One image fills every core of a CPU; elsewhere a call costs about the same for some.
        let gathered = (jobs > 1 && !self.model.device().is_cpu()).then(|| Gathered::new(prior, ROWS, 1));
        let restorer = Restorer {
            model: self.model,
            prior: gathered.as_ref().map_or(prior, |gathered| gathered as &dyn Denoiser),
            budget: &run,
            memory,
            spare: run.limit().unwrap_or(SPARE).min(SPARE) / jobs as u64,
            halt: &halt,
            observer: self.observer,
        };
        let decoder = Decoder {
            memory,
            own,
            ahead: &ahead,
            run: &run,
            halt: &halt,
            gate: Mutex::default(),
            mask: &manifest.mask,
        };
        let mut writer = Writer::new(manifest.out(), folder::parts(manifest.out(), self.plan.shard))?;
        let next = AtomicUsize::new(0);

        let mut summary = Summary::default();
        let helpers = jobs.div_ceil(4);
        thread::scope(|scope| -> Result<()> {
            let (to_restore, ready) = queue::<Ready<'_>>(jobs);
            let (to_encode, drawn) = queue::<Drawn<'_>>(helpers);
            let (to_write, finished) = sync_channel::<Finished<'_>>(GROUP);
            for _ in 0..helpers {
                let (to_restore, to_write) = (to_restore.clone(), to_write.clone());
                let (next, decoder) = (&next, &decoder);
                scope.spawn(move || self.decode(next, decoder, manifest, &to_restore, &to_write));
            }
            for _ in 0..helpers {
                let (drawn, to_write, halt) = (Arc::clone(&drawn), to_write.clone(), &halt);
                scope.spawn(move || self.encode(halt, &drawn, &to_write));
            }
            for _ in 0..jobs {
                let (ready, to_encode, to_write) = (Arc::clone(&ready), to_encode.clone(), to_write.clone());
                let restorer = &restorer;
                scope.spawn(move || self.restore(restorer, &ready, &to_encode, &to_write));
            }
            // The stages end when those before them have: only they may hold these now.
            drop((to_restore, ready, to_encode, drawn, to_write));
            let written = self.write(&mut writer, &finished, manifest, &halt, &mut summary);
            if written.is_err() {
                halt.end(Stopped::DiskFull);
            }
            // Who waits to hand something over finds nobody there, and ends.
            drop(finished);
            written
        })?;

        summary.stopped = halt.stopped();
        if summary.stopped.is_none() {
            manifest.sort()?;
        }
        summary.left = self.plan.items.len() - summary.done - summary.skipped - summary.failed;
        summary.seconds = clock.elapsed().as_secs_f64();
        summary.memory = own + ahead.most() + run.most();
        Ok(summary)
    }
}

/// A queue that several threads take from. It closes when all of either side are gone.
fn queue<T>(length: usize) -> (SyncSender<T>, Arc<Mutex<Receiver<T>>>) {
    let (sender, receiver) = sync_channel(length);
    (sender, Arc::new(Mutex::new(receiver)))
}

/// The next of a queue, once it is there; `None` if nothing will come any more.
fn take<T>(queue: &Mutex<Receiver<T>>) -> Option<T> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

/// The stages. Each ends when the one before has ended, or when the one behind is gone.
impl<'a> Pipeline<'a> {
    fn decode<'b>(
        &'b self,
        next: &AtomicUsize,
        decoder: &Decoder<'b>,
        manifest: &Manifest,
        to_restore: &SyncSender<Ready<'b>>,
        to_write: &SyncSender<Finished<'b>>,
    ) {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = self.plan.items.get(index) else { return };
            let mut source = None;
            let mut options_hash = String::new();
            let outcome = match self.decision(item, decoder.halt, manifest, &mut options_hash) {
                Ok(Decision::Do(_)) => match self.prepare(index, item, decoder, &options_hash, &mut source) {
                    Ok(ready) => Ok(ready),
                    Err(Error::Interrupted) => return,
                    Err(error) => Err(Outcome::Failed { error, options_hash }),
                },
                Ok(Decision::Done) => Err(Outcome::Skipped),
                Ok(Decision::Failed { error: reason, code }) => Err(Outcome::Refused { reason, code, can_retry: true }),
                Ok(Decision::Refuse(reason)) => Err(Outcome::Refused { reason, code: 1, can_retry: false }),
                Err(Error::Interrupted) => return,
                Err(error) => Err(Outcome::Failed { error, options_hash }),
            };
            let is_open = match outcome {
                Ok(ready) => to_restore.send(ready).is_ok(),
                Err(outcome) => {
                    if matches!(outcome, Outcome::Failed { .. }) {
                        decoder.halt.failed();
                    }
                    to_write.send(Finished { index, source, outcome }).is_ok()
                }
            };
            if !is_open {
                return;
            }
        }
    }

    fn decision(
        &self,
        item: &Item,
        halt: &Halt<'_>,
        manifest: &Manifest,
        options_hash: &mut String,
    ) -> Result<Decision> {
        halt.check()?;
        *options_hash = guarded(item, || self.recipe.options_hash(item))?;
        manifest.decide(
            item,
            &self.plan.outputs(item),
            Wanted { options_hash, model_hash: &self.model.hash },
            self.policy,
        )
    }

    fn prepare<'b>(
        &'b self,
        index: usize,
        item: &Item,
        decoder: &Decoder<'b>,
        options_hash: &str,
        source: &mut Option<Source>,
    ) -> Result<Ready<'b>> {
        let options = guarded(item, || self.recipe.decoding(item))?;
        let content = decoder.read(item, &options)?;
        // A photo that cannot be decoded has a size and a hash all the same.
        *source = Some(content.source.clone());
        let clock = Instant::now();
        let (prepared, source, memory) = content.prepare(item, self.recipe)?;
        let seconds = clock.elapsed().as_secs_f64();
        Ok(Ready { index, prepared, source, options_hash: options_hash.into(), memory, seconds })
    }

    fn restore<'b>(
        &'b self,
        restorer: &Restorer<'b>,
        ready: &Mutex<Receiver<Ready<'b>>>,
        to_encode: &SyncSender<Drawn<'b>>,
        to_write: &SyncSender<Finished<'b>>,
    ) {
        while let Some(ready) = take(ready) {
            let Ready { index, prepared, source, options_hash, memory, seconds } = ready;
            let item = &self.plan.items[index];
            let clock = Instant::now();
            let is_open = match guarded(item, || restorer.restore(item, &prepared, memory)) {
                Ok(done) => {
                    let seconds = seconds + clock.elapsed().as_secs_f64();
                    to_encode.send(Drawn { index, prepared, source, options_hash, done, seconds }).is_ok()
                }
                // The others in the queue are dropped as well, each as soon as it is looked at.
                Err(Error::Interrupted) => true,
                Err(error) => {
                    restorer.halt.failed();
                    let outcome = Outcome::Failed { error, options_hash };
                    to_write.send(Finished { index, source: Some(source), outcome }).is_ok()
                }
            };
            if !is_open {
                return;
            }
        }
    }

    fn encode<'b>(&'b self, halt: &Halt<'_>, drawn: &Mutex<Receiver<Drawn<'b>>>, to_write: &SyncSender<Finished<'b>>) {
        while let Some(drawn) = take(drawn) {
            let Drawn { index, prepared, source, options_hash, done, seconds } = drawn;
            let item = &self.plan.items[index];
            let clock = Instant::now();
            let Done { restored, warnings, residual, mut memory } = done;
            let encoded = guarded(item, || {
                let files = encode(&self.plan.outputs(item), &prepared, &restored, self.model)?;
                let photo = &prepared.photo;
                let written = |(name, bytes): &(PathBuf, Vec<u8>)| Written {
                    name: Name::new(name),
                    size: bytes.len() as u64,
                    sha256: sha256(bytes),
                };
                let record = Record {
                    seed: prepared.options.seed,
                    warnings,
                    outputs: files.iter().map(written).collect(),
                    width: Some(photo.width()),
                    height: Some(photo.height()),
                    sampler: Some(restored.plan.sampler.into()),
                    steps: Some(restored.plan.steps),
                    tile: Some(restored.plan.tile),
                    evaluations: Some(restored.plan.evaluations),
                    residual,
                    ..Record::new(item, &options_hash, &self.model.hash, Status::Done)
                };
                Ok((record, files))
            });
            let sampling_seconds = restored.seconds;
            drop((prepared, restored));
            let outcome = match encoded {
                Ok((mut record, files)) => {
                    memory.shrink(record.outputs.iter().map(|file| file.size).sum());
                    record.seconds = seconds + clock.elapsed().as_secs_f64();
                    Outcome::Encoded(Box::new(Encoded { record, files, sampling_seconds, memory }))
                }
                Err(error) => {
                    halt.failed();
                    Outcome::Failed { error, options_hash }
                }
            };
            if to_write.send(Finished { index, source: Some(source), outcome }).is_err() {
                return;
            }
        }
    }

    /// Writes and records what comes, in groups.
    fn write(
        &self,
        writer: &mut Writer,
        finished: &Receiver<Finished<'_>>,
        manifest: &Manifest,
        halt: &Halt<'_>,
        summary: &mut Summary,
    ) -> Result<()> {
        let mut disk = FullDisk::default();
        while let Ok(first) = finished.recv() {
            let mut bytes = first.bytes();
            let mut group = vec![first];
            while group.len() < GROUP && bytes < GROUP_BYTES {
                let Ok(next) = finished.try_recv() else { break };
                bytes += next.bytes();
                group.push(next);
            }
            self.commit(writer, group, manifest, halt, summary, &mut disk)?;
            if disk.is_certain() {
                halt.end(Stopped::DiskFull);
            }
        }
        Ok(())
    }

    fn commit(
        &self,
        writer: &mut Writer,
        group: Vec<Finished<'_>>,
        manifest: &Manifest,
        halt: &Halt<'_>,
        summary: &mut Summary,
        disk: &mut FullDisk,
    ) -> Result<()> {
        // A photo that fails has no files, and one that was done before not even a record.
        let mut jobs = Vec::with_capacity(group.len());
        let mut waiting = Vec::with_capacity(group.len());
        for Finished { index, source, outcome } in group {
            let item = &self.plan.items[index];
            let (files, state) = match outcome {
                Outcome::Skipped => {
                    summary.skipped += 1;
                    (self.observer)(Event::Skipped { item });
                    continue;
                }
                Outcome::Refused { reason, code, can_retry } => {
                    summary.undecided += usize::from(!can_retry);
                    summary.fail(&item.relative, &item.path(), &reason, code == 5);
                    (self.observer)(Event::Refused { item, reason: &reason });
                    continue;
                }
                Outcome::Failed { error, options_hash } => {
                    let record = Record::new(item, &options_hash, &self.model.hash, Status::Failed);
                    (Vec::new(), (record, Some(error), None))
                }
                Outcome::Encoded(encoded) => {
                    let Encoded { record, files, sampling_seconds, memory } = *encoded;
                    match source.as_ref().map_or(Ok(()), |source| source.stamp.check(&item.path())) {
                        Ok(()) => (files, (record, None, Some((sampling_seconds, memory)))),
                        Err(error) => (Vec::new(), (record, Some(error), None)),
                    }
                }
            };
            jobs.push(Job { files, error: None });
            waiting.push((item, source, state));
        }
        let mut before = Vec::with_capacity(jobs.len());
        for (item, ..) in &waiting {
            before.push(manifest.get(&item.relative)?);
        }
        let replacing = jobs.iter().zip(&waiting).zip(&before).filter(|((job, _), _)| !job.files.is_empty());
        let replacing =
            replacing.filter_map(|((_, (_, _, (record, ..))), before)| Some(record.replacing(before.as_ref()?)));
        let replacing: Vec<Record> = replacing.collect();
        if !replacing.is_empty() {
            manifest.append(&replacing)?;
        }
        writer.commit(&mut jobs);

        let mut items = Vec::with_capacity(jobs.len());
        let mut records = Vec::with_capacity(jobs.len());
        let mut loans = Vec::with_capacity(jobs.len());
        let ended = jobs.into_iter().zip(waiting).zip(before);
        for ((Job { error, .. }, (item, source, (mut record, earlier, drawn))), before) in ended {
            if let Some(source) = source {
                (record.size, record.modified) = (Some(source.stamp.size), source.stamp.modified);
                record.sha256 = Some(source.sha256);
                record.mask = source.mask;
            }
            match earlier.is_none() {
                true => disk.count(error.as_ref()),
                // Nothing of it was to be written.
                false => record.outputs.clear(),
            }
            match earlier.or(error.map(Error::Image)) {
                None => {
                    summary.done += 1;
                    summary.evaluations += record.evaluations.unwrap_or(0);
                    summary.sampling_seconds += drawn.as_ref().map_or(0.0, |(seconds, _)| *seconds);
                }
                Some(error) => {
                    halt.failed();
                    let message = error.to_string();
                    let is_resource = lacks_resources(&error);
                    summary.fail(&item.relative, &item.path(), &message, is_resource);
                    record.status = Status::Failed;
                    record.code = if is_resource { 5 } else { 1 };
                    record.error = Some(message);
                    record.unsettle();
                }
            }
            if let Some(before) = before {
                record.succeed(&before);
            }
            loans.push(drawn);
            items.push(item);
            records.push(record);
        }
        // What is in the manifest is on the disk, and what is told is in the manifest.
        manifest.append(&records)?;
        drop(loans);
        for (item, record) in items.into_iter().zip(&records) {
            (self.observer)(Event::Finished { item, record });
        }
        Ok(())
    }
}

impl Finished<'_> {
    fn bytes(&self) -> usize {
        match &self.outcome {
            Outcome::Encoded(encoded) => encoded.files.iter().map(|(_, bytes)| bytes.len()).sum(),
            _ => 0,
        }
    }
}
