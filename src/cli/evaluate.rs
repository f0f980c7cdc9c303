//! `tweedie evaluate`: compares methods on measurements that a file describes.

use super::columns::{aligned, width};
use super::events::{Event, Name, print};
use super::failure::{Failure, Outcome};
use super::flags::{DeviceFlags, ModelFlags};
use super::outputs::{Outputs, Target};
use super::progress::Bar;
use super::restoring::Session;
use super::terminal::{bytes, count, duration};
use super::{INPUT_OUTPUT, interrupt};
use crate::Progress;
use crate::evaluate::{AUTO, Evaluation, Evaluator, Journal, Outcome as Found, Record, Report, Run};
use crate::image::write_atomically;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Compare methods on tasks and photos, in figures
///
/// Measures photos with the operators of a TOML file, restores every measurement with every method, and writes tables of
/// PSNR, SSIM, residual, cost and calibration. What is done is kept: a run that was stopped goes on where it was, and a
/// changed file does again what the change concerns. docs/evaluate.md says what the file can hold and the figures mean.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_long_help = EXAMPLES)]
pub(crate) struct Evaluate {
    /// Images, tasks and samplers, a TOML file
    #[arg(value_name = "CONFIG")]
    config: PathBuf,
    /// Name of the tables [default: <stem>.evaluate]
    ///
    /// OUT.md holds the tables, OUT.json the same and all records, OUT.records.jsonl what is done so far.
    #[arg(short, long, value_name = "OUT", help_heading = INPUT_OUTPUT)]
    output: Option<PathBuf>,
    /// Overwrite tables of another evaluation
    #[arg(short, long, help_heading = INPUT_OUTPUT)]
    force: bool,
    /// Forget what is done and do it again
    #[arg(long, help_heading = INPUT_OUTPUT)]
    restart: bool,
    /// Print what would be done
    #[arg(short = 'n', long, visible_alias = "plan", help_heading = INPUT_OUTPUT)]
    dry_run: bool,

    #[command(flatten)]
    model: ModelFlags,
    #[command(flatten)]
    device: DeviceFlags,

    /// Print one JSON object per event
    #[arg(long, help_heading = super::DIAGNOSTICS)]
    pub(crate) json: bool,
}

const EXAMPLES: &str = "\
Examples:
  tweedie evaluate configs/evaluate/quick.toml -o quick
  tweedie evaluate configs/evaluate/quick.toml --dry-run
  tweedie evaluate configs/evaluate/tasks.toml -o results/tasks
  tweedie evaluate tasks.toml --model prior.safetensors --json -o results/prior";

/// The files of one evaluation.
#[derive(Debug)]
struct Files {
    markdown: PathBuf,
    json: PathBuf,
    records: PathBuf,
}

impl Files {
    fn new(arguments: &Evaluate) -> Self {
        let stem = match &arguments.output {
            Some(output) => output.clone(),
            None => {
                let mut name = arguments.config.file_stem().unwrap_or_default().to_owned();
                name.push(".evaluate");
                arguments.config.with_file_name(name)
            }
        };
        let with = |extension: &str| {
            let mut name = OsString::from(&stem);
            name.push(extension);
            PathBuf::from(name)
        };
        Self { markdown: with(".md"), json: with(".json"), records: with(".records.jsonl") }
    }

    /// Refuses names that cannot be written, and tables that are not ours to replace.
    fn check(&self, config: &Path, force: bool) -> Outcome<()> {
        let target = |path: &PathBuf| Target::File(path.clone());
        let tables =
            Outputs { samples: vec![target(&self.markdown), target(&self.json)], mean: None, std: None, sheet: None };
        // Tables beside records are those of an earlier run.
        tables.check(&[config], force || self.records.is_file())?;
        let records = Outputs { samples: vec![target(&self.records)], mean: None, std: None, sheet: None };
        records.check(&[config], true)
    }
}

/// Runs the command.
pub(crate) fn run(
    arguments: &Evaluate,
    Session { catalog, instruction_set, console, events }: Session<'_>,
) -> Outcome<()> {
    let clock = Instant::now();
    if let Err(error) = arguments.config.metadata() {
        let reason = match error.kind() {
            std::io::ErrorKind::NotFound => "no such file".into(),
            _ => error.to_string(),
        };
        return Err(Failure::usage(format!("{}: {reason}", arguments.config.display())));
    }
    let evaluation = Evaluation::open(&arguments.config, &catalog.samplers)?;
    let files = Files::new(arguments);
    files.check(&arguments.config, arguments.force)?;
    let bar = Bar::new(console, 1);
    arguments.device.start_threads()?;
    bar.phase("loading the model");
    let model = bar.aside(|| {
        let options = arguments.device.open(instruction_set, console)?;
        arguments.model.open(&options, console)
    })?;
    interrupt::check()?;
    bar.phase("measuring the photos");
    let mut evaluator = Evaluator::new(&evaluation, catalog, &model)?;
    interrupt::check()?;
    // A dry run leaves no file behind.
    let mut journal = match arguments.dry_run && !files.records.is_file() {
        true => None,
        false => Some(Journal::open(&files.records)?),
    };
    if let Some(journal) = &mut journal {
        if journal.damaged() > 0 {
            let lines = count(journal.damaged(), "line");
            bar.aside(|| console.warn(&format!("{}: {lines} ignored: no records", files.records.display())));
        }
        if arguments.restart && !arguments.dry_run {
            journal.clear()?;
        }
    }
    let known = |evaluator: &Evaluator<'_>, run: &Run| match &journal {
        Some(journal) if !arguments.restart => evaluator.recorded(run, journal),
        _ => None,
    };
    let runs = evaluator.runs().to_vec();
    let mut records: Vec<Option<Record>> = runs.iter().map(|run| known(&evaluator, run)).collect();
    let recorded = records.iter().flatten().count();
    events.emit(&Event::Plan {
        runs: runs.len(),
        recorded,
        outputs: [&files.markdown, &files.json, &files.records].map(|path| Name::new(path)).into(),
    })?;
    let summary = |written: usize, sampling_seconds: f64| {
        let seconds = clock.elapsed().as_secs_f64();
        let dry_run = arguments.dry_run;
        events.emit(&Event::Summary { files: written, dry_run, seconds, sampling_seconds, exit_code: 0 })
    };
    let Some(mut journal) = journal.filter(|_| !arguments.dry_run) else {
        drop(bar);
        if !arguments.json {
            print(describe(&evaluator, &records).as_bytes())?;
        }
        return summary(0, 0.0);
    };

    let total = runs.len();
    bar.begin_shares();
    let mut sampling_seconds = 0.0;
    for (index, run) in runs.iter().enumerate() {
        let new = records[index].is_none();
        if new {
            let name = format!(", {} on {}", evaluation.methods[run.method].label, evaluation.tasks[run.task].name);
            let mut unreported = None;
            let mut observer = |Progress { done, total: steps, sample, sigma }: Progress| {
                interrupt::check()?;
                let here = done as f64 / steps.max(1) as f64;
                bar.share((index as f64 + here) / total as f64, name.clone());
                events.emit(&Event::Step { done, total: steps, sample, sigma }).map_err(|failure| {
                    unreported = Some(failure);
                    crate::Error::Interrupted
                })
            };
            let done = evaluator.run(run, &mut observer);
            let record = match (unreported, done) {
                (Some(failure), _) => return Err(failure),
                (None, Err(crate::Error::Interrupted)) => return Err(stopped(&records)),
                (None, done) => done?,
            };
            match &record.outcome {
                Found::Figures(figures) => sampling_seconds += figures.seconds * figures.samples as f64,
                Found::Failed(reason) => {
                    let what = format!("{} on {} of {}: {reason}", record.sampler, record.task, record.image);
                    bar.aside(|| console.warn(&what));
                }
                Found::Unsuitable(_) => {}
            }
            journal.append(record.clone())?;
            records[index] = Some(record);
        }
        if let Some(record) = &records[index] {
            events.emit(&Event::Record { done: index + 1, total, new, record })?;
        }
        bar.share((index + 1) as f64 / total as f64, String::new());
        if interrupt::check().is_err() {
            return Err(stopped(&records));
        }
    }
    bar.phase("writing");
    let report = Report::new(&evaluator, (&model.name, &model.hash), records.into_iter().flatten().collect());
    let markdown = report.markdown();
    let mut json = serde_json::to_vec_pretty(&report).map_err(std::io::Error::from)?;
    json.push(b'\n');
    write_atomically(&files.markdown, markdown.as_bytes(), true)?;
    write_atomically(&files.json, &json, true)?;
    drop(bar);
    if !arguments.json {
        print(markdown.as_bytes())?;
    }
    let new = total - recorded;
    let longest = report.records.iter().filter_map(|record| match &record.outcome {
        Found::Figures(figures) => figures.peak_memory,
        _ => None,
    });
    let memory = longest.max().map_or_else(String::new, |most| format!(", at most {}", bytes(most)));
    console.note(&format!(
        "wrote {} and {} ({} new, {recorded} kept, {} of sampling{memory})",
        files.markdown.display(),
        files.json.display(),
        count(new, "run"),
        duration(sampling_seconds)
    ));
    summary(2, sampling_seconds)
}

/// An interruption, and what it leaves.
fn stopped(records: &[Option<Record>]) -> Failure {
    let (kept, all) = (records.iter().flatten().count(), records.len());
    Failure::from(crate::Error::Interrupted)
        .hint(format!("{kept} of {all} runs are kept: the same command goes on from there"))
}

/// What would be done, a line for each run.
fn describe(evaluator: &Evaluator<'_>, records: &[Option<Record>]) -> String {
    let evaluation = evaluator.evaluation();
    let images: Vec<&str> = evaluator.images().map(|(name, ..)| name).collect();
    let lines: Vec<[String; 5]> = evaluator
        .runs()
        .iter()
        .zip(records)
        .map(|(run, record)| {
            let method = &evaluation.methods[run.method];
            let what = match (&run.obstacle, record, run.evaluations) {
                (Some(obstacle), ..) => format!("left out: {obstacle}"),
                (None, Some(_), _) => "done".into(),
                (None, None, Some(calls)) => format!("{} a sample", count(calls, "call")),
                (None, None, None) => format!("as many calls as `{AUTO}` takes"),
            };
            let samples = count(evaluation.samples, "sample");
            let task = evaluation.tasks[run.task].name.clone();
            [task, images[run.image].into(), method.label.clone(), samples, what]
        })
        .collect();
    let rows: Vec<[&str; 5]> = lines.iter().map(|line| line.each_ref().map(String::as_str)).collect();
    let left = records.iter().filter(|record| record.is_none()).count();
    let done = records.len() - left;
    format!("{}{}, {done} done\n", aligned(&rows, 0, width()), count(records.len(), "run"))
}
