//! What somebody who waits for a batch sees: two bars on a terminal, a line a photo elsewhere, events with `--json`.

use crate::batch::{Event, Failures, Name, Plan, Record, Settings, Status, Stopped, Summary};
use crate::cli::ExitCode;
use crate::cli::events::{BatchStart, Engine, Event as Told, Events};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::progress::style;
use crate::cli::terminal::{Console, count, duration, escape};
use crate::models::Model;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};
use std::collections::BTreeMap;
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
    /// Photos with a warning, by its text.
    warnings: BTreeMap<String, Failures>,
    /// Warnings beyond so many texts.
    more_warnings: usize,
    /// The first event that could not be told, for a reason other than a reader that has gone.
    untold: Option<Failure>,
}

/// So many texts of warnings are kept, and so many of them are shown at the end.
const KEPT: usize = 1000;
const TOLD: usize = 10;

impl State {
    fn warn(&mut self, relative: &Path, warnings: &[String]) {
        for warning in warnings {
            if self.warnings.len() < KEPT || self.warnings.contains_key(warning) {
                self.warnings.entry(warning.clone()).or_default().add(relative);
            } else {
                self.more_warnings += 1;
            }
        }
    }
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
            engine: Engine::new(model, device),
            jobs,
        })))
    }

    /// Something happened; any thread may say so.
    pub(super) fn tell(&self, event: &Event<'_>) {
        match event {
            Event::Skipped { item } => self.finish(false, |state| {
                let (done, total) = (state.finished, self.plan.items.len());
                self.emit(state, &Told::Skipped { done, total, input: Name::new(&item.relative) });
            }),
            Event::Refused { item, reason } => self.finish(true, |state| {
                self.line(&item.relative, &format!("left: {reason}"));
                let (done, total) = (state.finished, self.plan.items.len());
                self.emit(state, &Told::Refused { done, total, input: Name::new(&item.relative), reason });
            }),
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
                state.warn(&item.relative, &record.warnings);
                let (done, total) = (state.finished, self.plan.items.len());
                self.emit(state, &Told::Photo { done, total, record });
            }),
        }
    }

    fn emit(&self, state: &mut State, told: &Told<'_>) {
        if let Err(failure) = self.events.emit(told) {
            state.untold.get_or_insert(failure);
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
    pub(super) fn end(self, summary: &Summary, force: bool, started: Instant) -> Outcome<()> {
        if let Some(bars) = &self.bars {
            bars.steps.finish_and_clear();
            bars.photos.finish_and_clear();
        }
        let State { warnings, more_warnings, untold, .. } =
            self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut warnings: Vec<_> = warnings.iter().collect();
        warnings.sort_by_key(|(_, photos)| std::cmp::Reverse(photos.count));
        for (text, photos) in warnings.iter().take(TOLD) {
            self.console.warn(&grouped(text, photos));
        }
        let more = more_warnings + warnings.iter().skip(TOLD).map(|(_, photos)| photos.count).sum::<usize>();
        if more > 0 {
            self.console.warn(&format!("{} of other kinds: see the record", count(more, "warning")));
        }
        for (reason, failures) in &summary.failures {
            self.console.warn(&grouped(reason, failures));
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
            ExitCode::Success if self.plan.has_errors() => ExitCode::Failed,
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
        if let Some(untold) = untold {
            return Err(untold);
        }
        match failure(code, summary, force) {
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
fn failure(code: ExitCode, summary: &Summary, force: bool) -> Option<Failure> {
    // With it all is done anew.
    let continues = if force { "without --force the same command continues" } else { "the same command continues" };
    let Summary { done, skipped, failed, left, undecided, .. } = *summary;
    let all = count(done + skipped + failed + left, "photo");
    if code == ExitCode::Success {
        return None;
    }
    Some(match summary.stopped {
        Some(Stopped::FirstFailure) => {
            Failure::new(code, format!("a photo failed, and {left} of {all} are left")).hint(continues)
        }
        Some(stopped) => {
            let failure = Failure::new(code, format!("{stopped}, {left} of {all} are left"));
            match stopped {
                Stopped::DiskFull => failure.hint(format!("make room, then {continues}")),
                _ => failure.hint(continues),
            }
        }
        None if failed > 0 => {
            let failure = Failure::new(code, format!("{failed} of {all} failed"));
            match failed - undecided {
                0 => failure.hint("a retry leaves them again: the reasons above say what to decide"),
                again if undecided > 0 => failure
                    .hint(format!("--retry-failed tries {again} of them again, the others are left until you decide")),
                _ => failure.hint("--retry-failed tries them again, `tweedie batch status OUT` lists them"),
            }
        }
        None => Failure::new(code, "some names could not be read, see above"),
    })
}

/// `3 photos: the reason (a.png, b.png and 1 more)`.
fn grouped(reason: &str, photos: &Failures) -> String {
    let names: Vec<String> = photos.first.iter().map(|path| shown(path)).collect();
    let more = match photos.count - names.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}: {reason} ({}{more})", count(photos.count, "photo"), names.join(", "))
}

fn shown(path: &Path) -> String {
    escape(&path.display().to_string()).into_owned()
}
