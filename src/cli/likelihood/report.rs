//! What is told of the images.

use super::subject::{Head, Subject};
use crate::cli::ExitCode;
use crate::cli::columns::{aligned, width};
use crate::cli::events::{Event, Likely, Name};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::terminal::{count, duration};
use crate::likelihood::Density;

/// What was found out.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) rows: Vec<Row>,
    pub(super) plans: Vec<Plan>,
    pub(super) failed: usize,
}

/// An image.
#[derive(Debug)]
pub(super) struct Row {
    subject: Head,
    levels: usize,
    density: Density,
    bits: f64,
    standard_error: Option<f64>,
    seconds: f64,
}

/// What an image would cost.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) subject: Head,
    /// Of all evaluations, and of one.
    pub(super) seconds: f64,
    pub(super) evaluation: f64,
}

impl Row {
    pub(super) fn new(subject: &Subject, density: &Density, seconds: f64) -> Self {
        let dimensions = subject.dimensions();
        let bit = dimensions as f64 * std::f64::consts::LN_2;
        Self {
            subject: subject.head(),
            levels: subject.levels.count(),
            density: *density,
            bits: subject.levels.bits_per_dimension(density.nats, dimensions),
            standard_error: density.standard_error.map(|error| error / bit),
            seconds,
        }
    }

    pub(super) fn event(&self, seed: u64) -> Event<'static> {
        let input = Name::new(&self.subject.path);
        let Head { width, height, channels, .. } = self.subject;
        Event::Likely(Box::new(Likely {
            lossy_name: input.lossy,
            input,
            width,
            height,
            channels,
            levels: self.levels,
            seed,
            bits_per_dimension: self.bits,
            standard_error: self.standard_error,
            log_density: self.density.nats,
            evaluations: self.density.evaluations,
            pullbacks: self.density.pullbacks,
            seconds: self.seconds,
            peak_memory: crate::evaluate::memory::largest(),
        }))
    }
}

/// The mean over images and its standard error, as far as there are any.
fn mean(values: &[f64]) -> Option<(f64, Option<f64>)> {
    let number = values.len() as f64;
    if values.is_empty() {
        return None;
    }
    let mean = values.iter().sum::<f64>() / number;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    Some((mean, (values.len() > 1).then(|| (squares / (number - 1.0) / number).sqrt())))
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.4}"))
}

fn size(head: &Head) -> String {
    format!("{}x{}", head.width, head.height)
}

impl Report {
    fn mean(&self) -> Option<(f64, Option<f64>)> {
        mean(&self.rows.iter().map(|row| row.bits).collect::<Vec<_>>())
    }

    /// A line for every image, and their mean.
    pub(super) fn table(&self) -> String {
        let head = ["image", "size", "bits/dim", "±", "evaluations", "seconds"].map(String::from);
        let mut lines = vec![head];
        lines.extend(self.rows.iter().map(|row| {
            [
                row.subject.path.display().to_string(),
                size(&row.subject),
                number(Some(row.bits)),
                number(row.standard_error),
                row.density.evaluations.to_string(),
                format!("{:.1}", row.seconds),
            ]
        }));
        if let (Some((mean, error)), true) = (self.mean(), self.rows.len() > 1) {
            let evaluations: usize = self.rows.iter().map(|row| row.density.evaluations).sum();
            let seconds: f64 = self.rows.iter().map(|row| row.seconds).sum();
            let name = format!("mean of {}", self.rows.len());
            let cells = [String::new(), number(Some(mean)), number(error), evaluations.to_string()];
            let [size, bits, error, evaluations] = cells;
            lines.push([name, size, bits, error, evaluations, format!("{seconds:.1}")]);
        }
        text(&lines)
    }

    /// A line for every image that would be measured.
    pub(super) fn plan(&self) -> String {
        let mut lines = vec![["image", "size", "numbers", "about", "a pixel"].map(String::from)];
        lines.extend(self.plans.iter().map(|Plan { subject, seconds, evaluation }| {
            let pixels = (subject.width * subject.height) as f64;
            [
                subject.path.display().to_string(),
                size(subject),
                (pixels as usize * subject.channels).to_string(),
                duration(*seconds),
                format!("{:.2} ms, {:.2} µs of them an evaluation", 1e3 * seconds / pixels, 1e6 * evaluation / pixels),
            ]
        }));
        text(&lines)
    }

    /// An error if some of the images could not be measured.
    pub(super) fn check(&self, images: usize) -> Outcome<()> {
        if self.failed == 0 {
            return Ok(());
        }
        let message = format!("{} of {} could not be measured", self.failed, count(images, "image"));
        Err(Failure::new(ExitCode::Failed, message))
    }

    pub(super) fn summary(&self, dry_run: bool, seconds: f64) -> Event<'static> {
        let mean = self.mean();
        Event::LikelihoodSummary {
            images: self.rows.len(),
            dry_run,
            bits_per_dimension: mean.map(|mean| mean.0),
            standard_error: mean.and_then(|mean| mean.1),
            estimated_seconds: dry_run.then(|| self.plans.iter().map(|plan| plan.seconds).sum()),
            seconds,
            exit_code: 0,
        }
    }
}

fn text<const N: usize>(lines: &[[String; N]]) -> String {
    let cells: Vec<[&str; N]> = lines.iter().map(|line| std::array::from_fn(|column| line[column].as_str())).collect();
    aligned(&cells, 0, width())
}
