//! The second stage: samples of what a photo shows.

use super::Item;
use super::budget::{Budget, Loan};
use super::decoder::Memory;
use super::pipeline::Event;
use super::recipe::Prepared;
use super::summary::Halt;
use crate::models::Model;
use crate::priors::Denoiser;
use crate::{Restoration, RestoreOptions, Restored, Result, Work, program_memory};
use std::time::Instant;

/// Restores photos, several at a time.
pub(super) struct Restorer<'a> {
    pub(super) model: &'a Model,
    /// The model's denoiser, with common calls where these are cheaper.
    pub(super) prior: &'a dyn Denoiser,
    pub(super) budget: &'a Budget,
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
        let options = RestoreOptions {
            deadline: prepared.time_limit.map(|limit| Instant::now() + limit),
            // Whatever runs beside it, a photo is cut into the same windows.
            memory: self.budget.limit().map(|limit| limit + own),
            spare: Some(self.spare),
            ..prepared.options.clone()
        };
        let restoration = Restoration::of(work, photo, &options, self.model)?.through(self.prior);
        let plan = restoration.plan().clone();
        let memory = memory.into_run(plan.memory.saturating_sub(own), self.budget, self.halt)?;
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
    let canvas = work.canvas(photo);
    let mut lines: Vec<String> = Vec::new();
    let of_mask = work.mask().map_or(&[][..], |mask| mask.warnings());
    let known = photo.warnings().iter().chain(canvas.warnings()).chain(of_mask).chain(&restored.plan.warnings).cloned();
    let found = canvas.encode_warnings(*format, encoding).into_iter().chain(work.warnings(Some(photo), restored));
    for line in known.chain(found) {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}
