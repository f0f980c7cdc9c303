//! The second stage: samples of what a photo shows.

use super::Item;
use super::budget::{Budget, Loan};
use super::decoder::Memory;
use super::fitting::fitted;
use super::pipeline::Event;
use super::recipe::Prepared;
use super::summary::Halt;
use crate::models::Model;
use crate::priors::Denoiser;
use crate::{RestoreOptions, Restored, Result, Work, program_memory};
use std::time::Instant;

/// Restores photos, several at a time.
pub(super) struct Restorer<'a> {
    pub(super) model: &'a Model,
    /// The model's denoiser, with common calls where these are cheaper.
    pub(super) prior: &'a dyn Denoiser,
    pub(super) budget: &'a Budget,
    /// Bytes that the run may use, if they are limited. Whatever runs beside it, a photo is cut into the same windows.
    pub(super) memory: Option<u64>,
    /// Bytes that one photo may fill where that makes it only faster.
    pub(super) spare: u64,
    pub(super) halt: &'a Halt<'a>,
    pub(super) observer: &'a (dyn Fn(Event<'_>) + Sync),
}

/// A photo that is restored.
#[derive(Debug)]
pub(super) struct Done<'a> {
    pub(super) restored: Restored,
    /// Lines for the user, each once.
    pub(super) warnings: Vec<String>,
    /// What is left of the measurement, see [`Case::residual`](crate::Case::residual).
    pub(super) residual: Option<f64>,
    pub(super) memory: Loan<'a>,
}

impl<'a> Restorer<'a> {
    /// Restores one photo, once there is memory for it.
    ///
    /// # Errors
    /// Those of a restoration; `Interrupted` if the run ends before.
    pub(super) fn restore(&self, item: &Item, prepared: &Prepared<'_>, memory: Memory<'a>) -> Result<Done<'a>> {
        self.halt.check()?;
        let Prepared { photo, work, .. } = prepared;
        let own = program_memory(self.model);
        let mut options = RestoreOptions { spare: Some(self.spare), ..prepared.options.clone() };
        let mut restoration = fitted(work, photo, &options, self.model, self.memory)?;
        let memory = memory.into_run(restoration.plan().memory.saturating_sub(own), self.budget, self.halt)?;
        // The photo's time begins when it need not wait any more; fewer levels take no more memory.
        if let Some(limit) = prepared.time_limit {
            options.deadline = Some(Instant::now() + limit);
            restoration = fitted(work, photo, &options, self.model, self.memory)?;
        }
        let restoration = restoration.through(self.prior);
        let plan = restoration.plan().clone();
        (self.observer)(Event::Begun { item, plan: &plan });
        let restored = restoration.run(&mut |progress| {
            self.halt.check()?;
            (self.observer)(Event::Step { item, progress });
            Ok(())
        })?;
        let residual = match work {
            Work::Whole(case) => case.residual(restored.sample(0))?,
            // What is known is the photo's own.
            Work::Holes(_) => Some(0.0),
        };
        let warnings = warnings(prepared, &restored);
        Ok(Done { restored, warnings, residual, memory })
    }
}

/// What the user should know of a photo, each line once.
fn warnings(prepared: &Prepared<'_>, restored: &Restored) -> Vec<String> {
    let Prepared { photo, work, format, encoding, .. } = prepared;
    let mut lines = work.remarks(photo, &restored.plan, &[*format], encoding);
    for line in work.warnings(Some(photo), restored) {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}
