//! Fewer noise levels, where time is short.

use super::methods::Methods;
use super::plan::tiled;
use super::{Restoration, RestoreOptions};
use crate::samplers::{Choice, Step};
use crate::{Error, Result};
use std::time::Instant;

/// The part of the time that is left for what is not sampling: painting and writing.
const RESERVE: f64 = 0.02;

/// A plan whose estimate needs less than this part of the time is taken as it is, without measuring a step.
const PLENTY: f64 = 0.4;

/// Fewer levels than this are said to be few.
const FEW: usize = 4;

impl Restoration<'_> {
    /// The same with as many of its noise levels as fit before `deadline`, measured on a real step of the largest part.
    ///
    /// # Errors
    /// `Time` if one level is too many; those of a run.
    pub(super) fn within(mut self, deadline: Instant, choice: &Choice, options: &RestoreOptions<'_>) -> Result<Self> {
        let left = || deadline.saturating_duration_since(Instant::now()).as_secs_f64();
        let range = self.model.colour_denoiser().sigma_range();
        let most_steps =
            |methods: &Methods| methods.drawing(self.samples).map(|(s, _)| s.steps(&range)).max().unwrap_or(0);
        let planned = most_steps(&self.methods);
        let pixels = |part: &super::Part| part.region.width * part.region.height;
        let Some(largest) = self.parts.iter().max_by_key(|part| pixels(part)) else { return Ok(self) };
        if self.plan.seconds < PLENTY * left() || planned < 2 {
            return Ok(self);
        }
        // The first step warms up, the second one is timed.
        let probe = Methods::new(&choice.clone().with_steps(planned.clamp(2, 3)), options.samplers)?;
        // The one that draws most of the samples, and costs more where it differs.
        let probe = probe.of(self.samples - 1);
        let prior =
            tiled(self.model.colour_denoiser(), largest, self.plan.tile)?.on(self.model.device())?.keeping(self.kept);
        let seen = self.seen(largest.region)?;
        let mut clock = Vec::new();
        let mut observer = |_: &Step<'_>| {
            clock.push(Instant::now());
            if clock.len() < 2 { Ok(()) } else { Err(Error::Interrupted) }
        };
        match self.draw_rows(probe, &prior, &seen, largest.region, 0..1, &mut observer) {
            Ok(_) | Err(Error::Interrupted) => {}
            Err(error) => return Err(error),
        }
        let [first, second] = clock[..] else { return Ok(self) };
        let all: usize = self.parts.iter().map(pixels).sum();
        let share = all as f64 / pixels(largest) as f64;
        let step = (second - first).as_secs_f64() * share;
        let budget = left() * (1.0 - RESERVE);
        let most = self.methods.of(0).annealing().steps.max(self.methods.of(self.samples - 1).annealing().steps);
        let fits = |steps: usize| -> Result<bool> {
            let methods = Methods::new(&choice.clone().with_steps(steps), options.samplers)?;
            Ok(methods.steps(&range, self.samples) as f64 * step <= budget)
        };
        // More levels never cost less.
        let (mut steps, mut too_many) = (0, most + 1);
        while too_many - steps > 1 {
            let middle = steps + (too_many - steps) / 2;
            if fits(middle)? { steps = middle } else { too_many = middle }
        }
        if steps == 0 {
            let advice = "allow more with --time-limit, draw fewer samples, or take a smaller photo".into();
            let seconds = |s: f64| format!("{s:.1} s");
            return Err(Error::Time {
                needs: seconds(step * self.samples as f64 / (1.0 - RESERVE)),
                limit: seconds(left()),
                advice,
            });
        }
        if steps < most {
            self.methods = Methods::new(&choice.clone().with_steps(steps), options.samplers)?;
        }
        let taken = most_steps(&self.methods);
        if taken < planned && taken < FEW {
            self.plan
                .warnings
                .push(format!("the time limit leaves {taken} of {planned} noise levels: expect a rough result"));
        }
        let before = self.plan.evaluations.max(1);
        self.plan.evaluations = self.methods.evaluations(&range, self.samples);
        self.plan.network_pixels = self.plan.network_pixels / before as u64 * self.plan.evaluations as u64;
        self.plan.steps = self.methods.of(0).steps(&range);
        self.plan.others.1 = self.methods.of(1).steps(&range);
        let all = self.methods.steps(&range, self.samples);
        self.plan.total_steps = all * self.parts.len();
        self.plan.seconds = all as f64 * step;
        Ok(self)
    }
}
