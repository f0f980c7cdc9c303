//! Photos on their way through the pipeline of a batch, and everything that can stop them there.
//!
//! The prior is a formula, so that nothing here is about networks; numbers are those of `docs/faults.md`.

use crate::harness::{self, Kind};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tweedie::batch::{
    Event, FolderLock, Item, Limits, Manifest, Naming, Pipeline, Plan, Policy, Prepared, Recipe, Record, Shard, Signal,
    Status, Stopped, Summary,
};
use tweedie::image::{DecodeOptions, EncodeOptions, Mask, OutputFormat, Photo};
use tweedie::models::{Model, ModelOptions};
use tweedie::{Case, Error, RestoreOptions, Result, Work};

/// Fills a bar across every photo, or takes noise away, with so many noise levels.
#[derive(Clone)]
struct Bars {
    sampler: &'static str,
    steps: Option<usize>,
    denoise: bool,
    samples: usize,
}

impl Default for Bars {
    fn default() -> Self {
        Self { sampler: "auto", steps: Some(3), denoise: false, samples: 1 }
    }
}

impl Recipe for Bars {
    fn options_hash(&self, _: &Item) -> Result<String> {
        Ok(format!("{} {:?} {}", self.sampler, self.steps, self.samples))
    }

    fn decoding(&self, item: &Item) -> Result<DecodeOptions> {
        let max_pixels = if item.relative == Path::new("long.png") { 1 } else { 1 << 20 };
        Ok(DecodeOptions { max_pixels, ..DecodeOptions::default() })
    }

    fn prepare(&self, item: &Item, content: &[u8]) -> Result<Prepared<'_>> {
        assert!(!item.relative.to_string_lossy().contains("panic"), "a decoder that gave up");
        let photo = Photo::decode(content, &item.path(), &Default::default())?;
        let (width, height) = (photo.width() as u32, photo.height() as u32);
        let work = match self.denoise {
            true => Work::Whole(Box::new(Case::denoise(&photo, 8.0)?)),
            false => Work::Holes(Mask::from_fn(photo.width(), photo.height(), |x, y| {
                harness::masked(x as u32, y as u32, width, height)
            })),
        };
        let options = RestoreOptions {
            seed: item.seed,
            samples: self.samples,
            sampler: self.sampler.into(),
            steps: self.steps,
            ..RestoreOptions::default()
        };
        Ok(Prepared {
            photo,
            work,
            command: "inpaint".into(),
            options,
            time_limit: None,
            format: OutputFormat::Png,
            encoding: EncodeOptions::default(),
        })
    }
}

/// A folder with photos, and one for what becomes of them.
struct Batch {
    folder: tempfile::TempDir,
    plan: Plan,
    recipe: Bars,
    model: &'static str,
    jobs: usize,
    memory: Option<u64>,
    fail_fast: bool,
    policy: Policy,
}

type Watch<'a> = &'a (dyn Fn(Event<'_>) + Sync);

impl Batch {
    fn new(names: &[&str], size: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (k, name) in names.iter().enumerate() {
            let path = folder.path().join("in").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            // Other pixels in each.
            harness::photo(size + k as u32 % 7, size, Kind::Rgb8).save(path).unwrap();
        }
        Self::in_folder(folder, names)
    }

    fn in_folder(folder: tempfile::TempDir, names: &[&str]) -> Self {
        let plan = plan(folder.path(), names);
        Self {
            folder,
            plan,
            recipe: Bars::default(),
            model: "gaussian:mean=0.2,std=0.3",
            jobs: 2,
            memory: None,
            fail_fast: false,
            policy: Policy::default(),
        }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    fn input(&self, name: &str) -> PathBuf {
        self.folder.path().join("in").join(name)
    }

    fn run(&self) -> Summary {
        self.run_watched(&|_| {}, &|| None)
    }

    fn run_watched(&self, watch: Watch<'_>, stop: &(dyn Fn() -> Option<Signal> + Sync)) -> Summary {
        run(&self.out(), &self.plan, self, watch, stop)
    }

    /// The manifest, by the photos' names, without what the clock decides.
    fn records(&self) -> BTreeMap<String, Record> {
        records(&self.out())
    }

    /// Everything that is in the folder of the outputs, but the record.
    fn outputs(&self) -> BTreeMap<String, Vec<u8>> {
        outputs(&self.out())
    }
}

fn plan(folder: &Path, names: &[&str]) -> Plan {
    let root: Arc<Path> = folder.join("in").into();
    let items = names.iter().map(|name| Item::new(Arc::clone(&root), name.into(), 7)).collect::<Vec<_>>();
    let total = items.len();
    Plan {
        items,
        skipped: Vec::new(),
        naming: Naming::default(),
        shard: Shard::All,
        total,
        others: BTreeMap::new(),
        hidden: 0,
        folders: 0,
    }
}

fn run(
    out: &Path,
    plan: &Plan,
    batch: &Batch,
    watch: Watch<'_>,
    stop: &(dyn Fn() -> Option<Signal> + Sync),
) -> Summary {
    let model = Model::open(batch.model, &ModelOptions::default()).unwrap();
    fs::create_dir_all(out).unwrap();
    let lock = FolderLock::acquire(out, plan.shard, Duration::from_secs(60), &mut |_| Ok(())).unwrap();
    let manifest = Manifest::open(&lock).unwrap();
    let pipeline = Pipeline {
        plan,
        policy: batch.policy,
        recipe: &batch.recipe,
        model: &model,
        limits: Limits { jobs: batch.jobs, memory: batch.memory, deadline: None, fail_fast: batch.fail_fast, stop },
        observer: watch,
    };
    pipeline.run(&manifest).unwrap()
}

fn records(out: &Path) -> BTreeMap<String, Record> {
    let text = fs::read_to_string(out.join(".tweedie/manifest/all.jsonl")).unwrap();
    text.lines()
        .map(|line| {
            let record: Record = serde_json::from_str(line).unwrap();
            (record.input.path().display().to_string(), record.without_times())
        })
        .collect()
}

fn outputs(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![out.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with(".tweedie") {
                folders.push(path);
            } else if path.is_file() {
                let name = path.strip_prefix(out).unwrap().display().to_string();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Makes sure that nothing lies around that is no output.
#[track_caller]
fn check_clean(out: &Path) {
    assert!(!out.join(".tweedie/parts/all").exists(), "incomplete outputs were left");
}

#[test]
fn every_photo_is_done_once_and_recorded() {
    let batch = Batch::new(&["a.png", "sub/b.png", "sub/deep/er/c.png"], 24);
    let counted = AtomicUsize::new(0);
    let summary = batch.run_watched(
        &|event| {
            if let Event::Finished { item, record } = event {
                counted.fetch_add(1, Ordering::Relaxed);
                // What is told is on the disk.
                assert!(
                    batch.out().join(&item.relative).exists()
                        && batch.records().contains_key(&item.relative.display().to_string())
                );
                assert_eq!(record.status, Status::Done);
            }
        },
        &|| None,
    );
    assert_eq!((summary.done, summary.failed, summary.left, summary.exit_code()), (3, 0, 0, 0));
    assert_eq!(counted.into_inner(), 3);
    let names: Vec<String> = batch.outputs().into_keys().collect();
    assert_eq!(names, ["a.png", "sub/b.png", "sub/deep/er/c.png"]);
    for (name, record) in batch.records() {
        let output = &record.outputs[0];
        assert_eq!(output.sha256, tweedie::batch::sha256(&fs::read(batch.out().join(&name)).unwrap()));
        assert_eq!(record.sha256.unwrap(), tweedie::batch::sha256(&fs::read(batch.input(&name)).unwrap()));
        assert_eq!((record.residual, record.steps, record.evaluations), (Some(0.0), Some(3), Some(3)));
    }
    check_clean(&batch.out());
    let before = batch.outputs();
    let summary = batch.run();
    assert_eq!((summary.done, summary.skipped, summary.exit_code()), (0, 3, 0));
    assert_eq!(batch.outputs(), before);
}

#[test]
fn the_seed_of_the_record_repeats_a_photo_alone() {
    let mut batch = Batch::new(&["a.png", "b.png"], 24);
    batch.recipe = Bars { sampler: "score_sde", ..Bars::default() };
    batch.run();
    let folder = harness::Folder::new();
    fs::copy(batch.input("b.png"), folder.path("b.png")).unwrap();
    let size = image::image_dimensions(batch.input("b.png")).unwrap();
    harness::mask(size.0, size.1).save(folder.path("mask.png")).unwrap();
    let seed = batch.records()["b.png"].seed;
    folder.succeed(&format!(
        "inpaint b.png --mask mask.png --model {} --sampler score_sde --steps 3 --seed {seed} -o alone.png",
        batch.model
    ));
    assert_eq!(folder.bytes("alone.png"), batch.outputs()["b.png"]);
}

// Item 57 of the faults.
#[test]
fn the_bytes_depend_on_neither_jobs_nor_order_nor_memory() {
    let names = ["a.png", "b.png", "c.png", "d.png", "e.png", "f.png"];
    let mut batch = Batch::new(&names, 40);
    batch.recipe = Bars { sampler: "score_sde", steps: Some(2), ..Bars::default() };
    (batch.model, batch.jobs) = ("embedded", 1);
    if cfg!(not(feature = "embedded-prior")) {
        batch.model = "gaussian";
    }
    batch.run();
    let expected = batch.outputs();
    assert_eq!(expected.len(), names.len());
    let expected_records = batch.records();
    for (jobs, memory, reversed) in [(4, None, false), (2, Some(1 << 30), true), (3, Some(200 << 20), false)] {
        fs::remove_dir_all(batch.out()).unwrap();
        (batch.jobs, batch.memory) = (jobs, memory);
        if reversed {
            batch.plan.items.reverse();
        }
        let summary = batch.run();
        assert_eq!(summary.done, names.len(), "{:?}", summary.failures);
        assert!(memory.is_none_or(|memory| summary.memory <= memory), "{} of {memory:?}", summary.memory);
        assert!(batch.outputs() == expected, "{jobs} jobs, memory {memory:?}, reversed {reversed}");
        assert_eq!(batch.records(), expected_records);
    }
}

/// Runs the test binary again, for a test that is a process of its own; `limit` is a command of the shell before it.
fn child(test: &str, folder: &Path, variables: &[(&str, &str)], limit: &str) -> Command {
    let mut command = Command::new("sh");
    let script = format!("{limit} exec \"$0\" --exact \"batch_pipeline::{test}\" --ignored --nocapture");
    command.args(["-c", &script]).arg(std::env::current_exe().unwrap());
    command.env("TWEEDIE_TEST_FOLDER", folder).envs(variables.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn folder_of_child() -> Option<PathBuf> {
    std::env::var_os("TWEEDIE_TEST_FOLDER").map(PathBuf::from)
}

/// The batch of a child process, whose folder belongs to its parent.
fn batch_of_child(folder: &Path, names: &[&str]) -> Batch {
    let mut batch = Batch::in_folder(tempfile::tempdir().unwrap(), &[]);
    batch.plan = plan(folder, names);
    batch
}

#[test]
#[ignore = "the part of the next test that runs in a process of its own"]
fn a_process_with_its_number_of_threads() {
    let Some(folder) = folder_of_child() else { return };
    let mut batch = batch_of_child(&folder, &["a.png", "b.png", "c.png"]);
    batch.model = if cfg!(feature = "embedded-prior") { "embedded" } else { "gaussian" };
    let out = folder.join(std::env::var("TWEEDIE_TEST_OUT").unwrap());
    assert_eq!(run(&out, &batch.plan, &batch, &|_| {}, &|| None).done, 3);
}

// Item 57 of the faults.
#[test]
fn the_bytes_do_not_depend_on_the_number_of_threads() {
    let batch = Batch::new(&["a.png", "b.png", "c.png"], 40);
    for threads in ["1", "5"] {
        let variables = [("RAYON_NUM_THREADS", threads), ("TWEEDIE_TEST_OUT", threads)];
        let ran = child("a_process_with_its_number_of_threads", batch.folder.path(), &variables, "").output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }
    let [one, five] = ["1", "5"].map(|out| outputs(&batch.folder.path().join(out)));
    assert_eq!(one.len(), 3);
    assert!(one == five);
}

// Items 1, 2, 7, 11, 30 and 67 of the faults, and a decoder that panics.
#[test]
fn what_is_wrong_with_one_photo_costs_no_other() {
    let names = [
        "changed.png",
        "deleted.png",
        "empty.png",
        "gone.png",
        "good.png",
        "long.png",
        "panic.png",
        "text.png",
        "torn.png",
        "well.png",
    ];
    let mut batch = Batch::new(&names, 32);
    batch.jobs = 1;
    fs::write(batch.input("empty.png"), "").unwrap();
    fs::remove_file(batch.input("gone.png")).unwrap();
    fs::write(batch.input("text.png"), "<html>not found</html>").unwrap();
    let whole = fs::read(batch.input("torn.png")).unwrap();
    fs::write(batch.input("torn.png"), &whole[..whole.len() / 2]).unwrap();
    fs::OpenOptions::new().write(true).open(batch.input("long.png")).unwrap().set_len(1 << 27).unwrap();
    let summary = batch.run_watched(
        &|event| {
            let Event::Begun { item, .. } = event else { return };
            match item.relative.to_str() {
                Some("changed.png") => fs::write(item.path(), &whole).unwrap(),
                Some("deleted.png") => fs::remove_file(item.path()).unwrap(),
                _ => {}
            }
        },
        &|| None,
    );
    assert_eq!((summary.done, summary.failed, summary.left, summary.exit_code()), (2, 8, 0, 1));
    let names: Vec<String> = batch.outputs().into_keys().collect();
    assert_eq!(names, ["good.png", "well.png"]);
    let records = batch.records();
    let expected = [
        ("changed.png", "changed while it was being restored"),
        ("deleted.png", "deleted while it was being restored"),
        ("empty.png", "empty file"),
        ("gone.png", "No such file or directory"),
        ("long.png", "134217728 bytes, at most 67108880 are read; --max-pixels raises that, too"),
        ("panic.png", "the program failed on this photo (a decoder that gave up): that is a bug, please report it"),
        ("text.png", "not an image (looks like HTML)"),
        ("torn.png", "truncated"),
    ];
    for (name, message) in expected {
        let record = &records[name];
        assert_eq!((record.status, record.code, record.outputs.len()), (Status::Failed, 1, 0), "{name}");
        let error = record.error.as_deref().unwrap();
        assert!(error.contains(message), "{name}: {error}");
    }
    assert_eq!(summary.failures["empty file"].first, [PathBuf::from("empty.png")]);
    check_clean(&batch.out());

    // What is well again is done when that is asked for, and by then only that.
    for name in ["empty.png", "gone.png"] {
        fs::write(batch.input(name), &whole).unwrap();
    }
    batch.policy.retry_failed = true;
    let summary = batch.run();
    assert_eq!((summary.skipped, summary.done, summary.failed), (2, 3, 5), "{:?}", summary.failures);
}

// Item 55 of the faults.
#[test]
fn a_result_that_is_no_number_is_an_error_and_no_file() {
    let mut batch = Batch::new(&["a.png", "b.png"], 24);
    // The mean is a number, but none of single precision.
    batch.model = "gaussian:mean=1e300,std=0.5";
    let summary = batch.run();
    assert_eq!((summary.failed, summary.exit_code()), (2, 1));
    assert!(batch.outputs().is_empty());
    let error = batch.records()["a.png"].error.clone().unwrap();
    assert!(error.starts_with("model produced an invalid image: not finite at step 0"), "{error}");
}

// Item 65 of the faults.
#[test]
fn a_photo_without_enough_memory_fails_alone_and_no_other_exceeds_the_limit() {
    let mut batch = Batch::new(&["a.png", "b.png", "c.png"], 48);
    harness::photo(900, 900, Kind::Rgb8).save(batch.input("b.png")).unwrap();
    batch.recipe = Bars { denoise: true, steps: None, ..Bars::default() };
    batch.memory = Some(150 << 20);
    let summary = batch.run();
    assert_eq!((summary.done, summary.failed, summary.resources, summary.exit_code()), (2, 1, 1, 5));
    assert!(summary.memory <= 150 << 20);
    let record = &batch.records()["b.png"];
    assert_eq!(record.code, 5);
    let error = record.error.as_deref().unwrap();
    assert!(error.starts_with("needs ") && error.ends_with("allow more with --memory"), "{error}");
    // With more the same command does it, and what was done stays.
    batch.memory = Some(1 << 30);
    let summary = batch.run();
    assert_eq!((summary.done, summary.skipped, summary.exit_code()), (1, 2, 0));
}

#[test]
#[ignore = "the part of the next test that runs in a process of its own"]
fn a_process_whose_files_may_not_grow() {
    let Some(folder) = folder_of_child() else { return };
    let batch = batch_of_child(&folder, &["a.png", "large.png", "z.png"]);
    let summary = run(&folder.join("out"), &batch.plan, &batch, &|_| {}, &|| None);
    std::process::exit(summary.exit_code().into());
}

// Item 61 of the faults.
#[test]
fn a_file_that_cannot_be_written_costs_its_photo_alone() {
    let batch = Batch::new(&["a.png", "large.png", "z.png"], 24);
    harness::photo(200, 200, Kind::Rgb8).save(batch.input("large.png")).unwrap();
    // 16 KiB in the shell's units of 512 or 1024 bytes; the noise of the large photo needs more.
    let limit = "trap '' XFSZ; ulimit -f 32;";
    let ran = child("a_process_whose_files_may_not_grow", batch.folder.path(), &[], limit).output().unwrap();
    assert_eq!(ran.status.code(), Some(5), "{}", String::from_utf8_lossy(&ran.stderr));
    let names: Vec<String> = batch.outputs().into_keys().collect();
    assert_eq!(names, ["a.png", "z.png"]);
    let record = &batch.records()["large.png"];
    assert_eq!((record.status, record.code), (Status::Failed, 5));
    assert!(record.error.as_deref().unwrap().starts_with("cannot write "), "{record:?}");
    check_clean(&batch.out());
    // With room, the same command does it.
    let summary = batch.run();
    assert_eq!((summary.done, summary.skipped, summary.exit_code()), (1, 2, 0));
}

// Items 62 and 63 of the faults: what a signal asks of the library.
#[test]
fn a_stop_drops_the_photos_in_flight_and_keeps_the_others() {
    let names: Vec<String> = (0..30).map(|k| format!("{k:02}.png")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (signal, code) in [(Signal::Interrupt, 130), (Signal::Terminate, 143)] {
        let mut batch = Batch::new(&names, 40);
        batch.recipe = Bars { sampler: "score_sde", steps: Some(20), ..Bars::default() };
        let steps = AtomicUsize::new(0);
        let watch = |event: Event<'_>| {
            if let Event::Step { .. } = event {
                steps.fetch_add(1, Ordering::Relaxed);
            }
        };
        let summary = batch.run_watched(&watch, &|| (steps.load(Ordering::Relaxed) >= 200).then_some(signal));
        assert_eq!((summary.stopped, summary.exit_code()), (Some(Stopped::Signal(signal)), code));
        assert_eq!(summary.done + summary.left, 30);
        assert!(summary.failed == 0 && summary.left > 0 && summary.done > 0, "{summary:?}");
        let found = steps.load(Ordering::Relaxed);
        assert!(found <= 200 + batch.jobs, "{found} steps, expected to stop within one of each job");
        assert_eq!(batch.outputs().len(), summary.done);
        assert_eq!(batch.records().len(), summary.done);
        check_clean(&batch.out());
        // The next run does the others.
        let rest = batch.run();
        assert_eq!((rest.skipped, rest.done), (summary.done, summary.left));
    }
}

#[test]
fn the_end_of_the_time_and_the_first_failure_end_a_run() {
    let names: Vec<String> = (0..20).map(|k| format!("{k:02}.png")).collect();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.insert(3, "panic.png");
    let mut batch = Batch::new(&names, 24);
    (batch.fail_fast, batch.jobs) = (true, 1);
    let summary = batch.run();
    assert_eq!((summary.failed, summary.exit_code(), summary.stopped), (1, 1, Some(Stopped::FirstFailure)));
    assert!(summary.left > 10, "{summary:?}");

    let model = Model::open(batch.model, &ModelOptions::default()).unwrap();
    let lock = FolderLock::acquire(&batch.out(), Shard::All, Duration::ZERO, &mut |_| Ok(())).unwrap();
    let manifest = Manifest::open(&lock).unwrap();
    let limits = Limits { jobs: 1, memory: None, deadline: Some(Instant::now()), fail_fast: false, stop: &|| None };
    let pipeline = Pipeline {
        plan: &batch.plan,
        policy: batch.policy,
        recipe: &batch.recipe,
        model: &model,
        limits,
        observer: &|_| {},
    };
    let summary = pipeline.run(&manifest).unwrap();
    assert_eq!((summary.done, summary.exit_code(), summary.stopped), (0, 5, Some(Stopped::Deadline)));
}

/// Photos of the batch that is killed.
const KILLED: usize = 40;

fn names_of_killed() -> Vec<String> {
    (0..KILLED).map(|k| format!("{}/{k:02}.png", k % 3)).collect()
}

fn recipe_of_killed() -> Bars {
    Bars { sampler: "score_sde", steps: Some(12), ..Bars::default() }
}

#[test]
#[ignore = "the part of the next test that runs in a process of its own"]
fn a_process_that_is_killed() {
    let Some(folder) = folder_of_child() else { return };
    let names = names_of_killed();
    let mut batch = batch_of_child(&folder, &names.iter().map(String::as_str).collect::<Vec<_>>());
    batch.recipe = recipe_of_killed();
    let begun = fs::File::options().append(true).create(true).open(folder.join("begun")).unwrap();
    let begun = Mutex::new(begun);
    let watch = |event: Event<'_>| {
        if let Event::Begun { item, .. } = event {
            writeln!(begun.lock().unwrap(), "{}", item.relative.display()).unwrap();
        }
    };
    assert_eq!(run(&folder.join("out"), &batch.plan, &batch, &watch, &|| None).exit_code(), 0);
}

// Item 64 of the faults, and 66: what is recorded is never done again.
#[test]
fn a_batch_that_is_killed_goes_on_and_ends_as_if_nothing_had_been() {
    let names = names_of_killed();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut undisturbed = Batch::new(&names, 64);
    undisturbed.recipe = recipe_of_killed();
    let clock = Instant::now();
    assert_eq!(undisturbed.run().done, KILLED);
    let whole = clock.elapsed();
    let (expected, expected_records) = (undisturbed.outputs(), undisturbed.records());
    let manifest = |out: &Path| -> Vec<Record> {
        let text = fs::read_to_string(out.join(".tweedie/manifest/all.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str::<Record>(line).ok()).map(Record::without_times).collect()
    };
    let in_order = manifest(&undisturbed.out());

    // The same photos, with their times, which the record has.
    fs::rename(undisturbed.out(), undisturbed.folder.path().join("undisturbed")).unwrap();
    let out = undisturbed.out();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut killed = 0;
    for round in 0.. {
        fs::write(undisturbed.folder.path().join("begun"), "").unwrap();
        let recorded: HashSet<String> =
            manifest(&out).iter().map(|record| record.input.path().display().to_string()).collect();
        let mut process = child("a_process_that_is_killed", undisturbed.folder.path(), &[], "").spawn().unwrap();
        let status = if round < 8 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // Somewhere in what is left of the work.
            std::thread::sleep(whole.mul_f64(random as f64 / u64::MAX as f64 * 0.25));
            let _ = process.kill();
            process.wait().unwrap()
        } else {
            process.wait().unwrap()
        };
        let begun = fs::read_to_string(undisturbed.folder.path().join("begun")).unwrap();
        let again: Vec<&str> = begun.lines().filter(|name| recorded.contains(*name)).collect();
        assert!(again.is_empty(), "done before, and begun again: {again:?}");
        // Whatever has its name has its content.
        for (name, content) in outputs(&out) {
            assert!(content == expected[&name], "{name} is not what it should be after kill {round}");
        }
        for record in manifest(&out) {
            let name = record.input.path().display().to_string();
            assert!(out.join(&name).exists(), "{name} is recorded and not there");
        }
        if status.success() {
            break;
        }
        assert!(status.code().is_none(), "ended with {status} instead of being killed");
        killed += 1;
    }
    assert!(killed >= 3, "{killed} kills: the process ends before it is killed");
    assert_eq!(outputs(&out), expected);
    assert_eq!(manifest(&out), in_order);
    assert_eq!(records(&out), expected_records);
    check_clean(&out);
}

#[test]
fn an_input_that_is_no_file_blocks_nobody() {
    let batch = Batch::new(&["a.png", "pipe.png"], 24);
    fs::remove_file(batch.input("pipe.png")).unwrap();
    let made = Command::new("mkfifo").arg(batch.input("pipe.png")).status().unwrap();
    assert!(made.success());
    let summary = batch.run();
    assert_eq!((summary.done, summary.failed), (1, 1));
    let error = batch.records()["pipe.png"].error.clone().unwrap();
    assert!(error.ends_with("is a pipe, a socket or a device, expected a file"), "{error}");
}

#[test]
fn several_samples_and_their_sides_are_written_together() {
    let mut batch = Batch::new(&["a.png"], 24);
    batch.recipe = Bars { samples: 3, ..Bars::default() };
    batch.plan.naming = Naming { samples: 3, mean: true, std: true, sheet: true, ..Naming::default() };
    batch.run();
    let names: Vec<String> = batch.outputs().into_keys().collect();
    assert_eq!(names, ["a-0000.png", "a-0001.png", "a-0002.png", "a-mean.png", "a-sheet.png", "a-std.png"]);
    assert_eq!(batch.records()["a.png"].outputs.len(), 6);
}

#[test]
fn an_error_of_the_record_ends_the_run() {
    let batch = Batch::new(&["a.png", "b.png"], 24);
    // The folder for incomplete outputs cannot be made.
    fs::create_dir_all(batch.out().join(".tweedie")).unwrap();
    fs::write(batch.out().join(".tweedie/parts"), "").unwrap();
    let model = Model::open(batch.model, &ModelOptions::default()).unwrap();
    let lock = FolderLock::acquire(&batch.out(), Shard::All, Duration::ZERO, &mut |_| Ok(())).unwrap();
    let manifest = Manifest::open(&lock).unwrap();
    let limits = Limits { jobs: 1, memory: None, deadline: None, fail_fast: false, stop: &|| None };
    let pipeline = Pipeline {
        plan: &batch.plan,
        policy: batch.policy,
        recipe: &batch.recipe,
        model: &model,
        limits,
        observer: &|_| {},
    };
    assert!(matches!(pipeline.run(&manifest), Err(Error::Io { .. })));
}
