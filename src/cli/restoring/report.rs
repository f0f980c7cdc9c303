//! What is told about a run before it starts.

use super::job::Job;
use crate::Plan;
use crate::cli::events::{Engine, Event, Name, Start};
use crate::cli::models::table;
use crate::cli::outputs::Target;
use crate::cli::terminal::{bytes, count, duration, escape};
use crate::image::{Depth, Mask, Photo};
use crate::models::Model;
use std::path::Path;

/// Everything that is known once the plan is made.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) job: &'a Job<'a>,
    pub(super) photo: &'a Photo,
    /// The pixels that are filled; without one, every pixel is new.
    pub(super) mask: Option<&'a Mask>,
    /// Where the mask, the hints or the operator come from.
    pub(super) second: Option<&'a Path>,
    /// What was measured, in a few words.
    pub(super) measurement: &'a str,
    /// What the result is painted on.
    pub(super) canvas: &'a Photo,
    pub(super) model: &'a Model,
    pub(super) plan: &'a Plan,
    pub(super) device: String,
}

impl Report<'_> {
    pub(super) fn start<'a>(&'a self, warnings: &'a [String]) -> Event<'a> {
        let arguments = self.job.arguments;
        let input = Name::new(self.job.input.name());
        let second = self.second.map(Name::new);
        let outputs: Vec<_> = self.job.outputs.files().map(Name::new).collect();
        Event::Start(Box::new(Start {
            version: env!("CARGO_PKG_VERSION"),
            command: self.job.verb,
            lossy_name: input.lossy
                || second.as_ref().is_some_and(|name| name.lossy)
                || outputs.iter().any(|name| name.lossy),
            input,
            mask: if self.mask.is_some() { second } else { None },
            measurement: self.measurement,
            outputs,
            width: self.photo.width(),
            height: self.photo.height(),
            masked_pixels: self.mask.map(Mask::count),
            output_width: self.canvas.width(),
            output_height: self.canvas.height(),
            engine: Engine::new(self.model, &self.device),
            seed: arguments.sampler.seed,
            samples: arguments.samples,
            sampler: self.plan.sampler,
            steps: self.plan.steps,
            regions: self.plan.regions,
            windows: self.plan.windows,
            tile: self.plan.tile,
            evaluations: self.plan.evaluations,
            estimated_seconds: self.plan.seconds,
            estimated_memory: self.plan.memory,
            warnings,
        }))
    }

    /// The plan as people read it.
    pub(super) fn describe(&self) -> String {
        let Self { photo, plan, .. } = self;
        let input = self.job.input.name().display().to_string();
        let stdout = self.job.outputs.samples.contains(&Target::Stdout).then(|| Path::new("-"));
        let names = self.job.outputs.files().chain(stdout);
        let mut text: String =
            names.map(|name| format!("{} -> {}\n", escape(&input), escape(&name.display().to_string()))).collect();
        let seen = match self.mask {
            Some(mask) => {
                let masked = mask.count();
                let share = 100.0 * masked as f64 / (photo.width() * photo.height()) as f64;
                ("masked", format!("{masked} pixels ({share:.1} %)"))
            }
            None => ("measurement", self.measurement.to_string()),
        };
        let mut size = format!("{}x{}, {}", photo.width(), photo.height(), kind(photo));
        let (width, height) = (self.canvas.width(), self.canvas.height());
        if (width, height) != (photo.width(), photo.height()) {
            size += &format!(", becomes {width}x{height}");
        }
        let samples = self.job.arguments.samples;
        text += &table(&[
            ("size", size),
            seen,
            ("model", self.model.name.clone()),
            (
                "device",
                format!(
                    "{}, {}, {} with {}",
                    self.device,
                    count(rayon::current_num_threads(), "thread"),
                    self.model.precision(),
                    self.model.instruction_set()
                ),
            ),
            (
                "sampler",
                format!(
                    "{}, {}, {}, seed {}",
                    plan.sampler,
                    count(plan.steps, "step"),
                    count(samples, "sample"),
                    self.job.arguments.sampler.seed
                ),
            ),
            ("windows", format!("{} in {}", plan.windows, count(plan.regions, "region"))),
            ("evaluations", plan.evaluations.to_string()),
            ("time", format!("about {}", duration(plan.seconds))),
            ("memory", format!("about {}", bytes(plan.memory))),
        ]);
        text
    }
}

/// What a run will cost, in one line.
pub(super) fn estimate(plan: &Plan) -> String {
    format!(
        "{}, {}, about {}, {}",
        count(plan.windows, "window"),
        count(plan.evaluations, "network evaluation"),
        duration(plan.seconds),
        bytes(plan.memory)
    )
}

fn kind(photo: &Photo) -> String {
    let colour = if photo.channels() < 3 { "grey" } else { "RGB" };
    let alpha = if photo.has_alpha() { " with alpha" } else { "" };
    let bits = if photo.depth() == Depth::Sixteen { 16 } else { 8 };
    format!("{bits}-bit {colour}{alpha}")
}
