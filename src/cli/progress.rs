//! What somebody who waits sees: a bar with the time left on a terminal, nothing elsewhere.

use super::terminal::Console;
use crate::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

/// Parts of the whole that the bar can tell apart.
const SHARES: u64 = 100_000;

/// A line that shows what is being done, later how far it is. It disappears when dropped.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: ProgressBar,
    samples: usize,
}

impl Bar {
    /// Appears at once: the first sign of life must not wait for a large photo to be decoded.
    pub(crate) fn new(console: Console, samples: usize) -> Self {
        let visible = std::io::stderr().is_terminal() && !console.is_quiet();
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        if visible {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Self { bar, samples }
    }

    /// Says what is being done now; nobody knows how long it takes.
    pub(crate) fn phase(&self, what: &'static str) {
        self.bar.set_style(style("{spinner} {msg}"));
        self.bar.set_message(what);
    }

    /// Lets `write` print on stderr without leaving parts of the bar behind.
    pub(crate) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }

    /// Sampling begins: a fixed number of equal steps, so the time left is honest.
    pub(crate) fn begin(&self, total: usize) {
        self.bar.set_length(total as u64);
        self.bar.reset();
        self.bar.set_style(style("{bar:32} {pos}/{len} steps{msg}, {elapsed} gone, {eta} left"));
        self.bar.set_message("");
    }

    /// Training begins, `done` of its steps having been taken before: how long it takes is told by who counts its pauses.
    pub(crate) fn begin_training(&self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.reset();
        self.bar.set_style(style("{bar:24} {pos}/{len} steps{msg}"));
        self.bar.set_message("");
        self.training(done);
    }

    /// So many steps of training are taken.
    pub(crate) fn training(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// What follows the number of steps.
    pub(crate) fn say(&self, what: String) {
        self.bar.set_message(what);
    }

    /// Whether anybody sees it.
    pub(crate) fn is_visible(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// Work of many kinds begins, whose share that is done is known.
    pub(crate) fn begin_shares(&self) {
        self.bar.set_length(SHARES);
        self.bar.reset();
        self.bar.set_style(style("{bar:32} {percent} %{msg}, {elapsed} gone, {eta} left"));
        self.bar.set_message("");
    }

    /// How much of it is done, 0 to 1, and what is being done now.
    pub(crate) fn share(&self, done: f64, what: String) {
        self.bar.set_message(what);
        self.bar.set_position((done * SHARES as f64) as u64);
    }

    /// A file begins to arrive, `present` of its bytes being there.
    #[cfg(feature = "hub")]
    pub(crate) fn begin_bytes(&self, what: String, size: Option<u64>, present: u64) {
        self.bar.set_length(size.unwrap_or(0));
        self.bar.reset();
        self.bar.set_position(present);
        self.bar.set_style(style(match size {
            Some(_) => "{bar:32} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left, {msg}",
            None => "{spinner} {bytes}, {bytes_per_sec}, {msg}",
        }));
        self.bar.set_message(what);
    }

    /// So many bytes are there.
    #[cfg(feature = "hub")]
    pub(crate) fn bytes(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// A step is done.
    pub(crate) fn step(&self, progress: Progress) {
        if self.samples > 1 {
            self.bar.set_message(format!(", sample {} of {}", progress.sample + 1, self.samples));
        }
        self.bar.set_length(progress.total as u64);
        self.bar.set_position(progress.done as u64);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A style of a bar.
pub(super) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
