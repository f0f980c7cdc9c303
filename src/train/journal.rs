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
    /// A picture beside the log: photos, noisy and denoised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<String>,
    /// Another: images drawn from the prior.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<String>,
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
        // A line that was torn is one of steps that are taken again. Those that stay do as they were written: numbers that were
        // read may differ in their last digit.
        let read = |text| serde_json::from_str(text).ok().map(|line: Line| (line, format!("{text}\n")));
        let (lines, kept): (Vec<Line>, String) =
            text.lines().filter_map(read).filter(|(line, _)| line.step() <= step).unzip();
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

    /// Steps taken at the validation with the lowest loss.
    pub(super) fn best(&self) -> Option<u64> {
        let validations = self.lines.iter().filter_map(|line| match line {
            Line::Validation(validation) => Some(validation),
            _ => None,
        });
        validations.min_by(|a, b| a.loss.total_cmp(&b.loss)).map(|validation| validation.step)
    }
}

/// Seconds that all processes of a run have worked, as far as their last lines tell.
pub(super) fn machine_seconds(lines: &[Line]) -> f64 {
    let (mut before, mut now) = (0.0, 0.0);
    for line in lines {
        match line {
            Line::Start { .. } => {
                before += now;
                now = 0.0;
            }
            Line::Step(Progress { seconds, .. }) | Line::End { seconds, .. } => now = *seconds,
            Line::Validation(_) | Line::Checkpoint { .. } => {}
        }
    }
    before + now
}

fn json(line: &Line) -> String {
    let mut text = serde_json::to_string(line).expect("a line of the log is JSON");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_step_is_that_of_the_lowest_loss() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&folder.path().join("log.jsonl"), 0).unwrap();
        assert_eq!(journal.best(), None);
        for (step, loss) in [(10, 0.5), (20, 0.25), (30, 0.75), (40, f64::NAN)] {
            let validation = Validation { step, psnr: Vec::new(), loss, picture: None, samples: None };
            journal.lines.push(Line::Validation(validation));
            journal.lines.push(Line::Checkpoint { step: step + 5 });
        }
        assert_eq!(journal.best(), Some(20));
    }

    #[test]
    fn seconds_of_all_processes_are_added() {
        let start = |step| Line::Start { step, steps: 9, parameters: 1, photos: 1, pixels: 1, time: 0.0 };
        let step = |step, seconds| {
            let quarters = Vec::new();
            Line::Step(Progress {
                step,
                images: step,
                loss: 1.0,
                quarters,
                gradient_norm: 1.0,
                learning_rate: 1.0,
                images_per_second: 1.0,
                waiting: 0.0,
                seconds,
            })
        };
        // One that was killed, one that was stopped, one at work.
        let end = Line::End { step: 5, why: "interrupted".into(), seconds: 8.0 };
        let lines = [start(0), step(1, 2.0), step(2, 4.0), start(2), step(3, 7.5), end, start(5), step(6, 1.5)];
        assert!((machine_seconds(&lines) - (4.0 + 8.0 + 1.5)).abs() < 1e-12);
    }
}
