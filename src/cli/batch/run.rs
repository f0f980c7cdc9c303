//! A run: from the arguments to the summary.

use super::flags::SettingsFlags;
use super::forecast::forecast;
use super::watch::Watch;
use crate::batch::{
    BatchError, BySettings, Changed, FolderLock, Intent, Item, Limits, Manifest, Masks, Pipeline, Plan, Policy, Recipe,
    Request, Selection, Settings, Shard, Skipped, Unpaired, Wanted, check_output_folder, read_list,
};
use crate::cli::ExitCode;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::flags::{DeviceFlags, MemoryFlags, ModelFlags, range};
use crate::cli::restoring::Session;
use crate::cli::terminal::{Console, count};
use crate::cli::{DIAGNOSTICS, INPUT_OUTPUT, MASK, SAMPLER, amount, device, interrupt};
use crate::image::MaskSource;
use crate::{Error, Task};
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Debug, clap::Args)]
pub(super) struct Run {
    /// Photos, folders or patterns, and last the output folder
    #[arg(value_name = "IN… OUT", required = true)]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    settings: SettingsFlags,

    /// Look into sub-folders; their tree is mirrored
    #[arg(short, long, help_heading = INPUT_OUTPUT)]
    recursive: bool,
    /// Names of photos from a file, or - for standard input
    ///
    /// One a line, or separated by NUL; relative to the current folder, which their outputs mirror.
    #[arg(long, value_name = "LIST", help_heading = INPUT_OUTPUT)]
    files_from: Option<PathBuf>,
    /// Folder that the names of the list are below
    ///
    /// Instead of the current folder; outputs mirror what is below it.
    #[arg(long, value_name = "FOLDER", requires = "files_from", help_heading = INPUT_OUTPUT)]
    base: Option<PathBuf>,
    /// Follow symbolic links in folders
    #[arg(long, help_heading = INPUT_OUTPUT)]
    follow_links: bool,
    /// A folder, a file, alpha or color:#RRGGBB
    ///
    /// Where the masks are. A folder has the tree of the photos: the mask of a/cat.jpg is a/cat.jpg there, or the only a/cat.*; anything else is the
    /// mask of every photo.
    #[arg(short, long, value_name = "MASKS", conflicts_with = "mask_suffix", help_heading = MASK)]
    masks: Option<OsString>,
    /// Masks lie beside the photos: .mask.png
    ///
    /// With it the mask of cat.jpg is cat.jpg.mask.png or cat.mask.png.
    #[arg(long, value_name = "SUFFIX", help_heading = MASK)]
    mask_suffix: Option<String>,
    /// Without a mask: refuse or skip
    #[arg(long, value_name = "WHAT", value_enum, default_value_t, hide_possible_values = true, help_heading = MASK)]
    missing_mask: MissingMask,
    /// Do everything anew, and replace files of others
    #[arg(short, long, help_heading = INPUT_OUTPUT)]
    force: bool,
    /// Try again what failed
    #[arg(long, help_heading = INPUT_OUTPUT)]
    retry_failed: bool,
    /// Other settings before: redo or refuse
    ///
    /// Outputs of other settings, another model or seed.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t, hide_possible_values = true,
        help_heading = INPUT_OUTPUT)]
    changed: ChangedFlag,
    /// Compare photos by size and time, not by content
    #[arg(long, help_heading = INPUT_OUTPUT)]
    fast_check: bool,
    /// End with the first photo that fails
    #[arg(long, help_heading = INPUT_OUTPUT)]
    fail_fast: bool,
    /// Do a part: i/n, hash:i/n, slice:i/n or auto[/n]
    ///
    /// Shard i of n, counted from 1, by a hash of the relative path, or every n-th photo. auto asks the variables of Slurm, and
    /// auto/n those of Kubernetes. `batch merge` joins the records.
    #[arg(long, value_name = "SHARD", help_heading = INPUT_OUTPUT)]
    shard: Option<String>,
    /// Go on where the file system has no locks
    ///
    /// Two runs at once would destroy each other's work there: only if no other process works on OUT.
    #[arg(long, help_heading = INPUT_OUTPUT)]
    no_lock: bool,
    /// Print the plan, its time and memory
    #[arg(short = 'n', long, visible_alias = "plan", help_heading = INPUT_OUTPUT)]
    dry_run: bool,

    #[command(flatten)]
    model: ModelFlags,
    /// Time for everything, such as 90m or 8h
    ///
    /// From the start of the program. What is not done then is left for the next run; the exit code is 5.
    #[arg(long, value_name = "TIME", value_parser = amount::parse_time, help_heading = SAMPLER)]
    time_limit: Option<Duration>,
    #[command(flatten)]
    device: DeviceFlags,
    #[command(flatten)]
    memory: MemoryFlags,
    /// Photos at a time, 1 to 256 [default: 2 to 8]
    ///
    /// They share the threads. The results do not depend on it; by default as many as there are threads, 2 to 8.
    #[arg(short, long, value_name = "N", value_parser = range(1, 256), help_heading = super::super::DEVICE)]
    jobs: Option<usize>,

    /// Print one JSON object per event
    #[arg(long, help_heading = DIAGNOSTICS)]
    pub(super) json: bool,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum MissingMask {
    #[default]
    Refuse,
    Skip,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum ChangedFlag {
    #[default]
    Redo,
    Refuse,
}

/// Another process may take this long until the run gives up waiting for it: as long as anybody works on a folder.
const PATIENCE: Duration = Duration::from_secs(30 * 86_400);

/// So many photos that were left out are named.
const NAMED: usize = 10;

impl Run {
    fn selection(&self) -> Outcome<(Selection, &Path)> {
        let Some((out, inputs)) = self.paths.split_last() else {
            return Err(Failure::usage("no output folder was given"));
        };
        let listed = match &self.files_from {
            None if inputs.is_empty() => {
                return Err(Failure::usage(format!("{}: is the output folder, and no input was given", out.display()))
                    .hint("tweedie batch IN OUT, or --files-from LIST"));
            }
            None => Vec::new(),
            Some(list) => {
                let path = list.clone();
                // Whoever writes it may take as long as they like.
                let content = interrupt::waiting(move || match path == Path::new("-") {
                    true => {
                        let mut content = Vec::new();
                        std::io::stdin().lock().read_to_end(&mut content).map(|_| content)
                    }
                    false => std::fs::read(path),
                })?;
                read_list(&content.map_err(|error| Failure::usage(format!("list {}: {error}", list.display())))?)
            }
        };
        let selection = Selection {
            inputs: inputs.to_vec(),
            listed,
            base: self.base.clone(),
            recursive: self.recursive,
            follow_links: self.follow_links,
            ..Selection::default()
        };
        Ok((selection, out))
    }

    fn masks(&self, settings: &Settings) -> Outcome<Masks> {
        let masks = match (&self.masks, &self.mask_suffix) {
            (Some(masks), _) if Path::new(masks).is_dir() => Masks::Folder(masks.into()),
            (Some(masks), _) => Masks::One(match masks.to_str() {
                Some(text) => text.parse()?,
                None => MaskSource::File(masks.into()),
            }),
            (None, Some(suffix)) => Masks::Suffix(suffix.clone()),
            (None, None) => Masks::None,
        };
        if let Masks::One(MaskSource::File(path)) = &masks
            && let Err(error) = path.metadata()
        {
            let reason = match error.kind() {
                std::io::ErrorKind::NotFound => "no such file or folder".into(),
                _ => error.to_string(),
            };
            return Err(Failure::usage(format!("masks {}: {reason}", path.display())));
        }
        let task = settings.task.name();
        match (&settings.task, &masks) {
            (Task::Inpaint(_), Masks::None) if !settings.reading.allow_truncated => {
                Err(Failure::usage("inpaint needs masks, none were given")
                    .hint("--masks FOLDER, --mask-suffix .mask.png, --masks FILE, or --masks alpha"))
            }
            (Task::Inpaint(_), _) | (_, Masks::None) => Ok(masks),
            _ => Err(Failure::usage(format!("{task} restores whole photos and takes no masks"))
                .hint("--task inpaint fills masks")),
        }
    }

    fn policy(&self) -> Policy {
        Policy {
            force: self.force,
            retry_failed: self.retry_failed,
            changed: match self.changed {
                ChangedFlag::Redo => Changed::Redo,
                ChangedFlag::Refuse => Changed::Refuse,
            },
            fast_check: self.fast_check,
        }
    }

    fn jobs(&self) -> usize {
        self.jobs.unwrap_or_else(|| rayon::current_num_threads().clamp(2, 8))
    }
}

/// Runs the command. Whatever can be refused is refused before the model is loaded.
pub(super) fn run(arguments: &Run, session: Session<'_>, started: Instant) -> Outcome<()> {
    let Session { catalog, instruction_set, console, events } = session;
    let settings = arguments.settings.settings(catalog)?;
    let (selection, out) = arguments.selection()?;
    let masks = arguments.masks(&settings)?;
    let shard = match &arguments.shard {
        Some(text) => Shard::parse(text, &|name| std::env::var(name).ok())?,
        None => Shard::All,
    };
    check_output_folder(out, false)?;
    let unpaired = match arguments.missing_mask {
        MissingMask::Refuse => Unpaired::Refuse,
        MissingMask::Skip => Unpaired::Skip,
    };
    let example = masks.example();
    let (naming, seed, folder) = (settings.naming(), settings.sampling.seed, out.to_path_buf());
    // A walk through large or slow folders.
    let plan = interrupt::waiting(move || {
        let (selection, masks, out) = (&selection, &masks, folder.as_path());
        Plan::new(&Request { selection, masks, unpaired, out, naming, seed, shard })
    })??;
    tell_skipped(&plan.skipped, console);
    if plan.total == 0 {
        return Err(nothing(&plan));
    }
    interrupt::check()?;
    arguments.device.start_threads()?;
    let model = arguments.model.open(&arguments.device.open(instruction_set, console)?, console)?;
    let recipe = BySettings { settings: &settings, model: &model, catalog };
    if arguments.dry_run {
        return forecast(&plan, &recipe, out, arguments.memory.memory, arguments.jobs(), session);
    }

    check_output_folder(out, true)?;
    let acquired = FolderLock::acquire(out, shard, PATIENCE, &mut |waiting| {
        interrupt::check()?;
        if started.elapsed() >= arguments.time_limit.unwrap_or(PATIENCE) {
            return Err(Error::Locked { path: out.into(), seconds: started.elapsed().as_secs() });
        }
        if waiting.is_first {
            console.note(&waiting.to_string());
        }
        Ok(())
    });
    let lock = match acquired {
        Err(Error::Batch(BatchError::NoLocks { .. })) if arguments.no_lock => FolderLock::alone(out, shard)?,
        acquired => acquired?,
    };
    let manifest = Manifest::open(&lock)?;
    for damaged in manifest.damaged() {
        console.warn(&format!("{}: the line at byte {}: {}", damaged.path.display(), damaged.offset, damaged.reason));
    }
    let own_hash = |item: &Item| (item.relative.clone(), recipe.options_hash(item).unwrap_or_default());
    let intent = Intent {
        wanted: Wanted { options_hash: &settings.hash(example.as_ref(), &model)?, model_hash: &model.hash },
        seed,
        own_hashes: &plan.items.iter().filter(|item| item.has_sidecar).map(own_hash).collect(),
    };
    manifest.begin(&plan, &intent, arguments.force)?;

    let watch = Watch::new(console, events, &plan);
    watch.start(&settings, &model, &device::name(model.device()), arguments.jobs())?;
    let pipeline = Pipeline {
        plan: &plan,
        policy: arguments.policy(),
        recipe: &recipe,
        model: &model,
        limits: Limits {
            jobs: arguments.jobs(),
            memory: arguments.memory.memory,
            deadline: arguments.time_limit.map(|limit| started + limit),
            fail_fast: arguments.fail_fast,
            stop: &interrupt::signal,
        },
        observer: &|event| watch.tell(&event),
    };
    let summary = pipeline.run(&manifest)?;
    watch.end(&summary, arguments.force, started)
}

fn tell_skipped(skipped: &[Skipped], console: Console) {
    for Skipped { path, why } in skipped.iter().take(NAMED) {
        console.warn(&format!("{}: {why}", path.display()));
    }
    if let Some(more) = skipped.len().checked_sub(NAMED).filter(|&more| more > 0) {
        console.warn(&format!("{} more were left out", count(more, "name")));
    }
}

fn nothing(plan: &Plan) -> Failure {
    let others: usize = plan.others.values().sum();
    let mut failure = Failure::new(ExitCode::NothingMatched, "no photo was found");
    if plan.folders > 0 {
        failure = failure.hint(format!(
            "{} not looked into: -r does",
            if plan.folders == 1 { "1 sub-folder was".into() } else { format!("{} sub-folders were", plan.folders) }
        ));
    }
    if others > 0 {
        let kinds: Vec<&str> = plan.others.keys().map(String::as_str).take(NAMED).collect();
        failure = failure.hint(format!("{} of other kinds: {}", count(others, "file"), kinds.join(", ")));
    }
    failure
}
