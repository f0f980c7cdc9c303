//! The event stream of `--json`: one object per line on standard output.
//!
//! Every object begins with `"schema": 1` and its `"event"`: `start` once, `step` after every step, `file` for every
//! picture written, and at the end either `summary` or `error`. `evaluate` has `plan` once in the place of `start`, and
//! `record` for every method on every measurement. `likelihood` has `file` for every image that was measured, and `failed` for
//! one that could not be. `batch` has no steps, and the record of a photo in `file`, or `skipped` or `refused`
//! for one that is left as it is; its plan has `plan`
//! for every photo and `total` at the end, its status `failed` and `missing` for photos and `status` at the end.

use super::failure::{Failure, Outcome};
use crate::batch;
use crate::evaluate::Record;
use crate::models::Model;
use serde::Serialize;
use std::io::Write;
use std::path::Path;

/// Version of the events; it changes when a field changes its meaning or goes.
const SCHEMA: u32 = 1;

/// What can be told.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Event<'a> {
    Start(Box<Start<'a>>),
    #[serde(rename = "start")]
    Drawing(Box<Drawing<'a>>),
    Step {
        done: usize,
        total: usize,
        sample: usize,
        sigma: f64,
    },
    File(Box<Written<'a>>),
    #[serde(rename = "file")]
    Drawn(Box<Drawn<'a>>),
    #[serde(rename = "start")]
    Measuring(Box<Measuring<'a>>),
    #[serde(rename = "file")]
    Likely(Box<Likely>),
    /// An image that could not be measured.
    #[serde(rename = "failed")]
    Unmeasured {
        input: Name,
        #[serde(skip_serializing_if = "is_false")]
        lossy_name: bool,
        message: String,
    },
    #[serde(rename = "summary")]
    LikelihoodSummary {
        images: usize,
        dry_run: bool,
        /// Mean over the images, and its standard error as that of a sample of them.
        bits_per_dimension: Option<f64>,
        standard_error: Option<f64>,
        /// Of a dry run.
        estimated_seconds: Option<f64>,
        seconds: f64,
        exit_code: u8,
    },
    Plan {
        runs: usize,
        recorded: usize,
        outputs: Vec<Name>,
    },
    Record {
        done: usize,
        total: usize,
        new: bool,
        record: &'a Record,
    },
    #[serde(rename = "start")]
    Batch(Box<BatchStart<'a>>),
    #[serde(rename = "file")]
    Photo {
        done: usize,
        total: usize,
        record: &'a batch::Record,
    },
    /// A photo that was done before.
    Skipped {
        done: usize,
        total: usize,
        input: batch::Name,
    },
    /// A photo that failed before, or about which someone has to decide.
    Refused {
        done: usize,
        total: usize,
        input: batch::Name,
        reason: &'a str,
    },
    #[serde(rename = "plan")]
    Forecast(Box<Forecasted>),
    Total(Total),
    Failed {
        record: &'a batch::Record,
    },
    Missing {
        input: &'a batch::Name,
    },
    Status {
        planned: usize,
        done: usize,
        failed: usize,
        missing: usize,
        /// Photos of earlier runs that the last one did not take.
        unplanned: usize,
        complete: bool,
        shards: Vec<ShardState>,
    },
    #[serde(rename = "summary")]
    BatchSummary {
        done: usize,
        /// Photos that were done before.
        skipped: usize,
        failed: usize,
        /// Photos whose turn did not come.
        left: usize,
        evaluations: usize,
        seconds: f64,
        sampling_seconds: f64,
        peak_memory: Option<u64>,
        exit_code: u8,
    },
    Summary {
        files: usize,
        dry_run: bool,
        seconds: f64,
        sampling_seconds: f64,
        exit_code: u8,
    },
    Error {
        message: String,
        hints: &'a [String],
        exit_code: u8,
    },
}

/// What computes: a network, and where and how it runs.
#[derive(Debug, Serialize)]
pub(crate) struct Engine<'a> {
    model: &'a str,
    model_hash: &'a str,
    device: &'a str,
    instruction_set: String,
    precision: String,
    threads: usize,
}

impl<'a> Engine<'a> {
    pub(crate) fn new(model: &'a Model, device: &'a str) -> Self {
        Self {
            model: &model.name,
            model_hash: &model.hash,
            device,
            instruction_set: model.instruction_set().to_string(),
            precision: model.precision().to_string(),
            threads: rayon::current_num_threads(),
        }
    }
}

/// What is about to be done.
#[derive(Debug, Serialize)]
pub(crate) struct Start<'a> {
    pub(crate) version: &'static str,
    pub(crate) command: &'static str,
    pub(crate) input: Name,
    pub(crate) mask: Option<Name>,
    pub(crate) outputs: Vec<Name>,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) lossy_name: bool,
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// Size of the result.
    pub(crate) output_width: usize,
    pub(crate) output_height: usize,
    /// Pixels to be filled; `null` where all are new.
    pub(crate) masked_pixels: Option<usize>,
    /// What the photo is taken for, in a few words.
    pub(crate) measurement: &'a str,
    #[serde(flatten)]
    pub(crate) engine: Engine<'a>,
    pub(crate) seed: u64,
    pub(crate) samples: usize,
    pub(crate) sampler: &'a str,
    pub(crate) steps: usize,
    pub(crate) regions: usize,
    pub(crate) windows: usize,
    pub(crate) tile: usize,
    pub(crate) evaluations: usize,
    pub(crate) estimated_seconds: f64,
    pub(crate) estimated_memory: u64,
    pub(crate) warnings: &'a [String],
}

/// A picture that is on the disk.
#[derive(Debug, Serialize)]
pub(crate) struct Written<'a> {
    pub(crate) input: Name,
    pub(crate) output: Name,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) lossy_name: bool,
    /// sample, mean, std or sheet.
    pub(crate) kind: &'static str,
    /// Index of the sample; `null` for what is made of all of them.
    pub(crate) sample: Option<usize>,
    pub(crate) seed: u64,
    pub(crate) sampler: &'a str,
    pub(crate) steps: usize,
    /// Network evaluations that went into this picture.
    pub(crate) evaluations: usize,
    /// Seconds of sampling that went into this picture.
    pub(crate) seconds: f64,
    /// Largest resident memory of the process so far, in bytes; `null` where the system does not say.
    pub(crate) peak_memory: Option<u64>,
    /// Largest difference of a sample outside the mask between the input and the written file, decoded again, in
    /// levels of the file's depth; `null` for pictures that do not show the photo.
    pub(crate) largest_known_change: Option<u16>,
    pub(crate) warnings: &'a [String],
}

/// What is about to be drawn, from no photo.
#[derive(Debug, Serialize)]
pub(crate) struct Drawing<'a> {
    pub(crate) version: &'static str,
    pub(crate) command: &'static str,
    pub(crate) outputs: Vec<Name>,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) lossy_name: bool,
    pub(crate) width: usize,
    pub(crate) height: usize,
    #[serde(flatten)]
    pub(crate) engine: Engine<'a>,
    pub(crate) seed: u64,
    pub(crate) samples: usize,
    pub(crate) sampler: &'a str,
    pub(crate) steps: usize,
    /// Network evaluations of all samples; `null` if the method decides while it runs.
    pub(crate) evaluations: Option<usize>,
}

/// A drawn picture that is on the disk.
#[derive(Debug, Serialize)]
pub(crate) struct Drawn<'a> {
    pub(crate) output: Name,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) lossy_name: bool,
    /// sample or sheet.
    pub(crate) kind: &'static str,
    /// Index of the sample; `null` for the sheet.
    pub(crate) sample: Option<usize>,
    pub(crate) seed: u64,
    pub(crate) sampler: &'a str,
    pub(crate) steps: usize,
    /// Network evaluations of one sample; `null` if the method decides while it runs.
    pub(crate) evaluations: Option<usize>,
    /// Seconds of sampling that went into this picture; `null` for the sheet.
    pub(crate) seconds: Option<f64>,
    /// Largest resident memory of the process so far, in bytes; `null` where the system does not say.
    pub(crate) peak_memory: Option<u64>,
}

/// Images that are about to be measured.
#[derive(Debug, Serialize)]
pub(crate) struct Measuring<'a> {
    pub(crate) version: &'static str,
    pub(crate) command: &'static str,
    pub(crate) images: Vec<Name>,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) lossy_name: bool,
    #[serde(flatten)]
    pub(crate) engine: Engine<'a>,
    pub(crate) seed: u64,
    /// Random probes; `null` for an exact trace.
    pub(crate) probes: Option<usize>,
    pub(crate) probe_kind: &'static str,
    pub(crate) tolerance: f64,
    pub(crate) sigma_min: f64,
    pub(crate) sigma_max: f64,
    pub(crate) draws: usize,
    pub(crate) dequantized: bool,
}

/// An image that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Likely {
    pub(crate) input: Name,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) lossy_name: bool,
    /// Size of what was measured, and its numbers per pixel.
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) channels: usize,
    /// Values that a number can have.
    pub(crate) levels: usize,
    /// Of the run.
    pub(crate) seed: u64,
    pub(crate) bits_per_dimension: f64,
    /// Of the bits; `null` for one probe.
    pub(crate) standard_error: Option<f64>,
    /// In nats, of the whole image in [-1, 1].
    pub(crate) log_density: f64,
    /// Network evaluations of all draws, and applications of their pullbacks.
    pub(crate) evaluations: usize,
    pub(crate) pullbacks: usize,
    pub(crate) seconds: f64,
    /// Largest resident memory of the process so far, in bytes; `null` where the system does not say.
    pub(crate) peak_memory: Option<u64>,
}

/// A batch that begins.
#[derive(Debug, Serialize)]
pub(crate) struct BatchStart<'a> {
    pub(crate) version: &'static str,
    pub(crate) command: &'static str,
    pub(crate) settings: &'a batch::Settings,
    /// Photos of this run, and of all shards.
    pub(crate) photos: usize,
    pub(crate) total: usize,
    pub(crate) shard: String,
    /// Names that were met and are no photos to be done.
    pub(crate) left_out: usize,
    #[serde(flatten)]
    pub(crate) engine: Engine<'a>,
    pub(crate) jobs: usize,
}

/// What a photo of a batch would cost; `null` what is not known because of `error`.
#[derive(Debug, Serialize)]
pub(crate) struct Forecasted {
    pub(crate) input: batch::Name,
    pub(crate) source: batch::Name,
    pub(crate) mask: Option<batch::Name>,
    pub(crate) outputs: Vec<batch::Name>,
    pub(crate) seed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    pub(crate) width: Option<usize>,
    pub(crate) height: Option<usize>,
    pub(crate) output_width: Option<usize>,
    pub(crate) output_height: Option<usize>,
    pub(crate) masked_pixels: Option<usize>,
    pub(crate) windows: Option<usize>,
    pub(crate) tile: Option<usize>,
    pub(crate) steps: Option<usize>,
    pub(crate) evaluations: Option<usize>,
    pub(crate) estimated_seconds: Option<f64>,
    pub(crate) estimated_memory: Option<u64>,
}

/// What a batch would cost.
#[derive(Debug, Serialize)]
pub(crate) struct Total {
    /// Photos of this run, and of all shards.
    pub(crate) photos: usize,
    pub(crate) total: usize,
    pub(crate) failed: usize,
    pub(crate) evaluations: usize,
    #[serde(rename = "estimated_seconds")]
    pub(crate) seconds: f64,
    #[serde(rename = "estimated_memory")]
    pub(crate) memory: u64,
}

/// How far a shard is.
#[derive(Debug, Serialize)]
pub(crate) struct ShardState {
    pub(crate) shard: String,
    pub(crate) planned: usize,
    pub(crate) done: usize,
    pub(crate) failed: usize,
}

/// A file name as text; what is no valid text is replaced.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Name {
    text: String,
    #[serde(skip)]
    pub(crate) lossy: bool,
}

impl Name {
    pub(crate) fn new(path: &Path) -> Self {
        Self { text: path.to_string_lossy().into_owned(), lossy: path.to_str().is_none() }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Where events go; nowhere without `--json`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Events {
    pub(crate) wanted: bool,
}

impl Events {
    /// A reader that has gone misses the events; the work itself goes on.
    pub(crate) fn emit(self, event: &Event<'_>) -> Outcome<()> {
        if !self.wanted {
            return Ok(());
        }
        print_json(event).or_else(|failure| if failure.broken_pipe { Ok(()) } else { Err(failure) })
    }

    /// The last event of a command that failed.
    pub(crate) fn fail(self, failure: &Failure) {
        let event = Event::Error { message: failure.message(), hints: &failure.hints, exit_code: failure.code as u8 };
        // The error itself is what must be reported, not that its report could not be written.
        let _ = self.emit(&event);
    }
}

/// Prints `value` as one line with the schema's version in front.
pub(crate) fn print_json(value: &impl Serialize) -> Outcome<()> {
    #[derive(Serialize)]
    struct Line<'a, T> {
        schema: u32,
        #[serde(flatten)]
        value: &'a T,
    }
    let mut line = serde_json::to_vec(&Line { schema: SCHEMA, value }).map_err(std::io::Error::from)?;
    line.push(b'\n');
    print(&line)
}

/// Writes a result to standard output.
pub(crate) fn print(bytes: &[u8]) -> Outcome<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()?;
    Ok(())
}
