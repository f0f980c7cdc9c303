//! The log of a run, one JSON object a line.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A line of the log.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Line {
    /// A process has begun to train.
    Start {
        /// Steps taken before.
        step: u64,
        /// Steps in all.
        steps: u64,
        /// Parameters of the network.
        parameters: usize,
        /// Photos that are trained on.
        photos: usize,
        /// Pixels of these.
        pixels: u64,
        /// Seconds since 1970.
        time: f64,
    },
    /// Some steps.
    Step(Progress),
    /// What was measured on held-out photos.
    Validation(Validation),
    /// A checkpoint was written.
    Checkpoint {
        /// Steps it holds.
        step: u64,
    },
    /// A process has ended.
    End {
        /// Steps taken.
        step: u64,
        /// Why: `done` or `interrupted`.
        why: String,
        /// Seconds since the process began.
        seconds: f64,
    },
}

/// Some steps of training, on average.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Progress {
    /// Steps taken.
    pub step: u64,
    /// Examples seen.
    pub images: u64,
    /// Loss of an example.
    pub loss: f64,
    /// Loss of the examples in each quarter of the range of noise levels, as their logarithm is distributed: `(largest σ,
    /// loss)`; the smallest noise first.
    pub quarters: Vec<(f64, f64)>,
    /// Norm of the gradient before it was shortened.
    pub gradient_norm: f64,
    /// The learning rate of the last step.
    pub learning_rate: f64,
    /// Examples a second.
    pub images_per_second: f64,
    /// Share of the time that was spent waiting for data.
    pub waiting: f64,
    /// Seconds since the process began.
    pub seconds: f64,
}

/// What was measured on held-out photos.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Validation {
    /// Steps taken.
    pub step: u64,
    /// `(σ, PSNR in dB)` of denoised photos, the mean over them.
    pub psnr: Vec<(f64, f64)>,
    /// Loss of held-out examples, with noise that is the same every time.
    pub loss: f64,
    /// A picture beside the log: photos, noisy and denoised, and samples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<String>,
}

impl Line {
    /// Steps taken when it was written.
    pub fn step(&self) -> u64 {
        match self {
            Self::Start { step, .. } | Self::Checkpoint { step } | Self::End { step, .. } => *step,
            Self::Step(progress) => progress.step,
            Self::Validation(validation) => validation.step,
        }
    }
}

/// The file of a run's log.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// All lines so far.
    pub lines: Vec<Line>,
}

impl Journal {
    /// Opens a log, without what was written after `step`: those steps are taken again.
    ///
    /// # Errors
    /// `Io` if it cannot be read or written.
    pub fn open(path: &Path, step: u64) -> Result<Self> {
        let failed = |source| Error::Io { path: path.into(), source };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(failed(source)),
        };
        // A line that was torn is one of steps that are taken again.
        let lines: Vec<Line> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let lines: Vec<Line> = lines.into_iter().filter(|line: &Line| line.step() <= step).collect();
        let kept: String = lines.iter().map(json).collect();
        if kept != text {
            crate::image::write_atomically(path, kept.as_bytes(), true)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        Ok(Self { path: path.into(), file, lines })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// `Io` if it cannot be written.
    pub fn write(&mut self, line: Line) -> Result<()> {
        let written = self.file.write_all(json(&line).as_bytes());
        written.map_err(|source| Error::Io { path: self.path.clone(), source })?;
        self.lines.push(line);
        Ok(())
    }
}

fn json(line: &Line) -> String {
    let mut text = serde_json::to_string(line).expect("a line of the log is JSON");
    text.push('\n');
    text
}
