//! Records as tables.

use super::{Budget, Evaluator, Figures, Outcome, Record};
use crate::metrics::{Coverage, Residual};
use serde::Serialize;
use std::fmt::Write;

/// All records of an evaluation, with what they were made by.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of the program.
    pub version: &'static str,
    /// What the evaluation is for.
    pub about: Option<String>,
    /// Name of the prior.
    pub model: String,
    /// SHA-256 of its file.
    pub model_hash: String,
    /// Photos with the width and height of what is used of them.
    pub images: Vec<(String, usize, usize)>,
    /// Samples of each measurement.
    pub samples: usize,
    /// Seed of everything.
    pub seed: u64,
    /// What decided the noise levels.
    pub budget: Budget,
    /// A table for each task.
    pub tasks: Vec<TaskTable>,
    /// Means over the tasks, methods that did most of them first.
    pub overall: Vec<Row>,
    /// What the tables are made of.
    pub records: Vec<Record>,
}

/// The methods on one task.
#[derive(Clone, Debug, Serialize)]
pub struct TaskTable {
    /// Its name.
    pub name: String,
    /// What it is.
    pub about: Option<String>,
    /// Best PSNR first; methods without figures last.
    pub rows: Vec<Row>,
}

/// One method: means over photos, or over tasks.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its label.
    pub sampler: String,
    /// Photos, or tasks, that it has figures of.
    pub of: usize,
    /// The figures; `None` without any.
    pub mean: Option<Mean>,
    /// Why figures are missing.
    pub note: Option<String>,
}

/// Means of [`Figures`].
#[derive(Clone, Debug, Serialize)]
pub struct Mean {
    /// dB.
    pub psnr: f64,
    /// Structural similarity.
    pub ssim: f64,
    /// Gradient magnitude similarity deviation.
    pub gmsd: f64,
    /// Mean of the residuals that are normalised.
    pub residual: Option<f64>,
    /// Mean of the others.
    pub rms_residual: Option<f64>,
    /// Network calls a sample.
    pub evaluations: f64,
    /// Applications of the pullback, a sample.
    pub pullbacks: f64,
    /// A sample.
    pub seconds: f64,
    /// The largest of all.
    pub peak_memory: Option<u64>,
    /// PSNR of the mean of the samples, dB.
    pub psnr_of_mean: Option<f64>,
    /// Standard deviation of the samples, 8-bit levels.
    pub spread: Option<f64>,
    /// Errors are those of the mean.
    pub coverage: Vec<Coverage>,
    /// Whether spread and coverage are of hidden values only, wherever that is the same for all.
    pub hidden_only: Option<bool>,
}

impl Mean {
    fn of_figures(figures: &Figures) -> Self {
        let statistics = figures.statistics.as_ref();
        let (residual, rms_residual) = match figures.residual {
            Residual::Normalised(value) => (Some(value), None),
            Residual::Rms(value) => (None, Some(value)),
        };
        Self {
            psnr: figures.psnr,
            ssim: figures.ssim,
            gmsd: figures.gmsd,
            residual,
            rms_residual,
            evaluations: figures.evaluations as f64,
            pullbacks: figures.pullbacks as f64,
            seconds: figures.seconds,
            peak_memory: figures.peak_memory,
            psnr_of_mean: statistics.map(|of| of.psnr_of_mean),
            spread: statistics.map(|of| of.spread),
            coverage: statistics.map(|of| of.coverage.clone()).unwrap_or_default(),
            hidden_only: statistics.map(|of| of.hidden_only),
        }
    }

    fn over(all: &[Self]) -> Option<Self> {
        let first = all.first()?;
        let count = all.len() as f64;
        let mean = |of: &dyn Fn(&Self) -> f64| all.iter().map(of).sum::<f64>() / count;
        let mean_if_all = |of: &dyn Fn(&Self) -> Option<f64>| {
            all.iter().map(of).collect::<Option<Vec<_>>>().map(|values| values.iter().sum::<f64>() / count)
        };
        let mean_where = |of: &dyn Fn(&Self) -> Option<f64>| {
            let values: Vec<f64> = all.iter().filter_map(of).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        let same_levels = all.iter().all(|one| one.coverage.len() == first.coverage.len());
        let coverage = (0..if same_levels { first.coverage.len() } else { 0 }).map(|k| Coverage {
            level: first.coverage[k].level,
            share: mean(&|one| one.coverage[k].share),
            error: all.iter().map(|one| one.coverage[k].error.powi(2)).sum::<f64>().sqrt() / count,
        });
        Some(Self {
            psnr: mean(&|one| one.psnr),
            ssim: mean(&|one| one.ssim),
            gmsd: mean(&|one| one.gmsd),
            residual: mean_where(&|one| one.residual),
            rms_residual: mean_where(&|one| one.rms_residual),
            evaluations: mean(&|one| one.evaluations),
            pullbacks: mean(&|one| one.pullbacks),
            seconds: mean(&|one| one.seconds),
            peak_memory: all.iter().filter_map(|one| one.peak_memory).max(),
            psnr_of_mean: mean_if_all(&|one| one.psnr_of_mean),
            spread: mean_if_all(&|one| one.spread),
            coverage: coverage.collect(),
            hidden_only: first.hidden_only.filter(|_| all.iter().all(|one| one.hidden_only == first.hidden_only)),
        })
    }
}

impl Report {
    /// Of `records`, those of all runs of the evaluator in their order.
    pub fn new(evaluator: &Evaluator<'_>, model: (&str, &str), records: Vec<Record>) -> Self {
        let evaluation = evaluator.evaluation();
        let photos = evaluation.images.len();
        let mut tasks = Vec::new();
        for task in &evaluation.tasks {
            let mut rows: Vec<Row> = Vec::new();
            for method in &evaluation.methods {
                let of: Vec<&Record> = records
                    .iter()
                    .filter(|record| record.task == task.name && record.sampler == method.label)
                    .collect();
                rows.push(Row::of_records(&method.label, &of, photos));
            }
            sort(&mut rows);
            tasks.push(TaskTable { name: task.name.clone(), about: task.description.about.clone(), rows });
        }
        let mut overall: Vec<Row> = Vec::new();
        for method in &evaluation.methods {
            let means: Vec<Mean> = tasks
                .iter()
                .flat_map(|task| &task.rows)
                .filter(|row| row.sampler == method.label && row.of == photos)
                .filter_map(|row| row.mean.clone())
                .collect();
            overall.push(Row {
                sampler: method.label.clone(),
                of: means.len(),
                mean: Mean::over(&means),
                note: means.is_empty().then(|| "no task".into()),
            });
        }
        sort(&mut overall);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            about: evaluation.about.clone(),
            model: model.0.into(),
            model_hash: model.1.into(),
            images: evaluator.images().map(|(name, width, height)| (name.into(), width, height)).collect(),
            samples: evaluation.samples,
            seed: evaluation.seed,
            budget: evaluation.budget,
            tasks,
            overall,
            records,
        }
    }

    /// The tables as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = String::from("# Evaluation\n\n");
        if let Some(about) = &self.about {
            let _ = writeln!(text, "{about}\n");
        }
        let budget = match self.budget {
            Budget::Calls(calls) => format!("at most {calls} network calls a sample"),
            Budget::Steps(steps) => format!("{steps} noise levels"),
        };
        let images: Vec<String> =
            self.images.iter().map(|(name, width, height)| format!("{name} ({width}×{height})")).collect();
        let _ = writeln!(
            text,
            "tweedie {}, model {}, {budget} (`auto` as it is), {} of each measurement, seed {}. Images: {}. Means over the \
             images; NFE, pullbacks and seconds are of one sample. docs/evaluate.md says what the figures are.",
            self.version,
            self.model,
            if self.samples == 1 { "1 sample".into() } else { format!("{} samples", self.samples) },
            self.seed,
            images.join(", ")
        );
        for task in &self.tasks {
            let _ = writeln!(text, "\n## {}\n", task.name);
            if let Some(about) = &task.about {
                let _ = writeln!(text, "{about}\n");
            }
            text += &table(&task.rows, None);
            let judged = task.rows.iter().find_map(|row| row.mean.as_ref()?.hidden_only);
            if let Some(hidden_only) = judged {
                let of = if hidden_only { "the values that the mask hides" } else { "all values of the image" };
                let _ = writeln!(text, "\nSpread and coverage are of {of}.");
            }
        }
        text += "\n## All tasks\n\nMeans over the tasks that a method has figures of for every image, of the residual over those \
                 with noise.\n\n";
        text += &table(&self.overall, Some(self.tasks.len()));
        text
    }
}

impl Row {
    fn of_records(label: &str, records: &[&Record], photos: usize) -> Self {
        let mut notes: Vec<&str> = Vec::new();
        let mut means = Vec::new();
        for record in records {
            match &record.outcome {
                Outcome::Figures(figures) => means.push(Mean::of_figures(figures)),
                Outcome::Unsuitable(note) | Outcome::Failed(note) if notes.contains(&&**note) => {}
                Outcome::Unsuitable(note) | Outcome::Failed(note) => notes.push(note),
            }
        }
        let mut note = (!notes.is_empty()).then(|| notes.join("; "));
        if !means.is_empty() && means.len() < photos {
            note = note.map(|note| format!("{} of {photos} images; {note}", means.len()));
        }
        Self { sampler: label.into(), of: means.len(), mean: Mean::over(&means), note }
    }
}

/// Rows of most figures first, then of the best PSNR.
fn sort(rows: &mut [Row]) {
    let psnr = |row: &Row| row.mean.as_ref().map_or(f64::NEG_INFINITY, |mean| mean.psnr);
    rows.sort_by(|a, b| b.of.cmp(&a.of).then(psnr(b).total_cmp(&psnr(a))));
}

/// A Markdown table; with `tasks`, their number, a column says how many a method did.
fn table(rows: &[Row], tasks: Option<usize>) -> String {
    let means: Vec<&Mean> = rows.iter().filter_map(|row| row.mean.as_ref()).collect();
    let rms = means.iter().all(|mean| mean.residual.is_none()) && !means.is_empty();
    let of_samples = means.iter().any(|mean| mean.spread.is_some());
    let levels: Vec<f64> = means
        .iter()
        .map(|mean| &mean.coverage)
        .find(|of| !of.is_empty())
        .into_iter()
        .flatten()
        .map(|of| of.level)
        .collect();
    let mut head: Vec<String> = vec!["sampler".into()];
    if tasks.is_some() {
        head.push("tasks".into());
    }
    let residual = if rms { "residual (RMS)" } else { "residual" };
    head.extend(["PSNR", "SSIM", "GMSD", residual, "NFE", "pullbacks", "seconds", "memory"].map(String::from));
    if of_samples {
        head.extend(["PSNR of mean".into(), "spread".into()]);
        head.extend(levels.iter().map(|level| format!("coverage of {:.0} %", 100.0 * level)));
    }
    let columns = head.len();
    let mut text = line(&head);
    text += &format!("| --- |{}\n", " ---: |".repeat(columns - 1));
    for row in rows {
        let mut cells = vec![row.sampler.replace('|', "\\|")];
        if let Some(tasks) = tasks {
            cells.push(format!("{} of {tasks}", row.of));
        }
        match &row.mean {
            Some(mean) => cells.extend(mean.cells(rms, of_samples, levels.len())),
            None => cells.push(row.note.clone().unwrap_or_default().replace('|', "\\|")),
        }
        cells.resize(columns, String::new());
        if let (Some(note), true) = (&row.note, row.mean.is_some()) {
            cells[0] += &format!(" ({})", note.replace('|', "\\|"));
        }
        text += &line(&cells);
    }
    text
}

fn line(cells: &[String]) -> String {
    format!("| {} |\n", cells.join(" | "))
}

impl Mean {
    fn cells(&self, rms: bool, of_samples: bool, levels: usize) -> Vec<String> {
        let absent = || "–".to_string();
        let whole = |value: f64| if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") };
        let residual = match (rms, self.residual, self.rms_residual) {
            (true, _, Some(value)) => format!("{value:.1e}"),
            (false, Some(value), _) => format!("{value:.3}"),
            _ => absent(),
        };
        let mut cells = vec![
            format!("{:.2}", self.psnr),
            format!("{:.4}", self.ssim),
            format!("{:.4}", self.gmsd),
            residual,
            whole(self.evaluations),
            whole(self.pullbacks),
            if self.seconds < 1.0 { format!("{:.2}", self.seconds) } else { format!("{:.1}", self.seconds) },
            self.peak_memory.map_or_else(absent, |bytes| format!("{} MiB", bytes >> 20)),
        ];
        if of_samples {
            cells.push(self.psnr_of_mean.map_or_else(absent, |value| format!("{value:.2}")));
            cells.push(self.spread.map_or_else(absent, |value| format!("{value:.2}")));
            let share = |of: &Coverage| format!("{:.1} ± {:.2} %", 100.0 * of.share, 100.0 * of.error);
            cells.extend(self.coverage.iter().map(share));
            cells.resize(10 + levels, absent());
        }
        cells
    }
}
