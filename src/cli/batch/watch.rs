//! What somebody who waits for a batch sees: two bars on a terminal, a line a photo elsewhere, events with `--json`.

use crate::batch::{Event, Plan, Record, Settings, Status, Stopped, Summary};
use crate::cli::ExitCode;
use crate::cli::events::{BatchStart, Event as Told, Events};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::progress::style;
use crate::cli::terminal::{Console, count, duration, escape};
use crate::models::Model;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};
use std::io::IsTerminal;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Tells how a run goes.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    console: Console,
    events: Events,
    plan: &'a Plan,
    bars: Option<Bars>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    finished: usize,
    failed: usize,
    /// The first event that could not be told, for a reason other than a reader that has gone.
    untold: Option<Failure>,
}

/// All photos, and the one that moved last.
#[derive(Debug)]
struct Bars {
    both: MultiProgress,
    photos: ProgressBar,
    steps: ProgressBar,
}

impl Bars {
    fn new(photos: usize) -> Self {
        let both = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let photos = both.add(ProgressBar::new(photos as u64));
        photos.set_style(style("{bar:32} {pos} of {len} photos{msg}, {elapsed} gone, {eta} left"));
        let steps = both.add(ProgressBar::new(1));
        steps.set_style(style("{bar:32} {pos}/{len} steps of {msg}"));
        photos.enable_steady_tick(Duration::from_millis(200));
        Self { both, photos, steps }
    }
}

impl<'a> Watch<'a> {
    pub(super) fn new(console: Console, events: Events, plan: &'a Plan) -> Self {
        let visible = std::io::stderr().is_terminal() && !console.is_quiet();
        let bars = visible.then(|| Bars::new(plan.items.len()));
        Self { console, events, plan, bars, state: Mutex::default() }
    }

    /// The run begins.
    pub(super) fn start(&self, settings: &Settings, model: &Model, device: &str, jobs: usize) -> Outcome<()> {
        let photos = self.plan.items.len();
        let shard = match self.plan.shard.count() {
            1 => String::new(),
            _ => format!(" of {}, shard {}", self.plan.total, self.plan.shard),
        };
        self.aside(|| {
            let seed = settings.sampling.seed;
            let photos = count(photos, "photo");
            self.console.note(&format!("{}: {photos}{shard}, model {}, seed {seed}", settings.task.name(), model.name));
        });
        self.events.emit(&Told::Batch(Box::new(BatchStart {
            version: env!("CARGO_PKG_VERSION"),
            command: "batch",
            settings,
            photos,
            total: self.plan.total,
            shard: self.plan.shard.to_string(),
            left_out: self.plan.skipped.len(),
            model: &model.name,
            model_hash: &model.hash,
            device,
            instruction_set: model.instruction_set().to_string(),
            precision: model.precision().to_string(),
            threads: rayon::current_num_threads(),
            jobs,
        })))
    }

    /// Something happened; any thread may say so.
    pub(super) fn tell(&self, event: &Event<'_>) {
        match event {
            Event::Skipped { .. } => self.finish(false, |_| ()),
            Event::Refused { item, reason } => {
                self.finish(true, |_| self.line(&item.relative, &format!("left: {reason}")))
            }
            Event::Begun { item, plan } => {
                let name = shown(&item.relative);
                let steps = count(plan.total_steps, "step");
                self.aside(|| self.console.detail(&format!("{name}: {steps}, about {}", duration(plan.seconds))));
            }
            Event::Step { item, progress } => {
                if let Some(bars) = &self.bars {
                    bars.steps.set_length(progress.total as u64);
                    bars.steps.set_position(progress.done as u64);
                    bars.steps.set_message(shown(&item.relative));
                }
            }
            Event::Finished { item, record } => self.finish(record.status == Status::Failed, |state| {
                self.told(&item.relative, record);
                let (done, total) = (state.finished, self.plan.items.len());
                let told = self.events.emit(&Told::Photo { done, total, record });
                if let Err(failure) = told {
                    state.untold.get_or_insert(failure);
                }
            }),
        }
    }

    fn told(&self, relative: &Path, record: &Record) {
        match (&record.error, record.status) {
            (Some(error), Status::Failed) => self.line(relative, &format!("failed: {error}")),
            // On a terminal the bar tells enough of what went well.
            _ if self.bars.is_some() && !self.console.is_verbose() => {}
            _ => self.line(relative, &format!("done in {}", duration(record.seconds))),
        }
        if self.bars.is_none() || self.console.is_verbose() {
            for warning in &record.warnings {
                self.aside(|| self.console.detail(&format!("{}: {warning}", shown(relative))));
            }
        }
    }

    fn line(&self, relative: &Path, what: &str) {
        self.aside(|| self.console.note(&format!("{}: {what}", shown(relative))));
    }

    fn finish(&self, is_failed: bool, tell: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.finished += 1;
        state.failed += usize::from(is_failed);
        tell(&mut state);
        if let Some(bars) = &self.bars {
            bars.photos.set_position(state.finished as u64);
            if state.failed > 0 {
                bars.photos.set_message(format!(", {} failed", state.failed));
            }
        }
    }

    /// Lets `write` print on stderr without leaving parts of the bars behind.
    fn aside(&self, write: impl FnOnce()) {
        match &self.bars {
            Some(bars) => bars.both.suspend(write),
            None => write(),
        }
    }

    /// The summary, and the exit code as a failure.
    pub(super) fn end(self, summary: &Summary, has_errors: bool, started: Instant) -> Outcome<()> {
        if let Some(bars) = &self.bars {
            bars.steps.finish_and_clear();
            bars.photos.finish_and_clear();
        }
        for (reason, failures) in &summary.failures {
            let names: Vec<String> = failures.first.iter().map(|path| shown(path)).collect();
            let more = match failures.count - names.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            self.console.warn(&format!("{}: {reason} ({}{more})", count(failures.count, "photo"), names.join(", ")));
        }
        let seconds = started.elapsed().as_secs_f64();
        let Summary { done, skipped, failed, left, evaluations, .. } = *summary;
        let mut text = format!("{done} done");
        for (number, what) in [(skipped, "done before"), (failed, "failed"), (left, "left")] {
            if number > 0 {
                text += &format!(", {number} {what}");
            }
        }
        self.console.note(&format!("{text}, {} in {}", count(evaluations, "network evaluation"), duration(seconds)));
        let code = match exit_code(summary) {
            ExitCode::Success if has_errors => ExitCode::Failed,
            code => code,
        };
        self.events.emit(&Told::BatchSummary {
            done,
            skipped,
            failed,
            left,
            evaluations,
            seconds,
            sampling_seconds: summary.sampling_seconds,
            peak_memory: crate::evaluate::memory::largest(),
            exit_code: code as u8,
        })?;
        if let Some(untold) = self.state.into_inner().unwrap_or_else(PoisonError::into_inner).untold {
            return Err(untold);
        }
        match failure(code, summary) {
            None => Ok(()),
            Some(failure) => Err(failure),
        }
    }
}

fn exit_code(summary: &Summary) -> ExitCode {
    match summary.exit_code() {
        0 => ExitCode::Success,
        5 => ExitCode::Resources,
        130 => ExitCode::Interrupted,
        143 => ExitCode::Terminated,
        _ => ExitCode::Failed,
    }
}

/// Why the run was no success, and what to do.
fn failure(code: ExitCode, summary: &Summary) -> Option<Failure> {
    const CONTINUES: &str = "the same command continues";
    let Summary { done, skipped, failed, left, .. } = *summary;
    let all = count(done + skipped + failed + left, "photo");
    if code == ExitCode::Success {
        return None;
    }
    Some(match summary.stopped {
        Some(Stopped::FirstFailure) => {
            Failure::new(code, format!("a photo failed, and {left} of {all} are left")).hint(CONTINUES)
        }
        Some(stopped) => {
            let failure = Failure::new(code, format!("{stopped}, {left} of {all} are left"));
            match stopped {
                Stopped::DiskFull => failure.hint(format!("make room, then {CONTINUES}")),
                _ => failure.hint(CONTINUES),
            }
        }
        None if failed > 0 => Failure::new(code, format!("{failed} of {all} failed"))
            .hint("--retry-failed tries them again, `tweedie batch status OUT` lists them"),
        None => Failure::new(code, "some names could not be read, see above"),
    })
}

fn shown(path: &Path) -> String {
    escape(&path.display().to_string()).into_owned()
}
