//! The folders and the record of a batch, without any restoration: the work is a stand-in that writes a few bytes which
//! depend on the photo and its seed. Numbers in names of tests are those of the list of faults that the project promises to
//! survive.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tweedie::batch::{
    Decision, FolderLock, Intent, Item, Manifest, Masks, Modified, Name, Naming, Plan, Policy, Record, Request,
    Selection, Shard, Status, Unpaired, Wanted, Written, sha256,
};

mod folders;
mod locks;
mod manifest;
mod masks;
mod names;
mod owned;
mod scale;
mod shards;

const WANTED: Wanted<'static> = Wanted { options_hash: "options", model_hash: "model" };

const INTENT: Intent<'static> = Intent { wanted: WANTED, seed: 0, own_hashes: &BTreeMap::new() };

/// A temporary folder with `in` for photos.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(place.path("in")).unwrap();
        place
    }

    /// In memory where that is to be had, for what a busy disk would take minutes for.
    fn in_memory() -> Self {
        let memory = Path::new("/dev/shm");
        if !memory.is_dir() {
            return Self::new();
        }
        let place = Self(tempfile::tempdir_in(memory).unwrap());
        std::fs::create_dir(place.path("in")).unwrap();
        place
    }

    fn with(photos: &[&str]) -> Self {
        let place = Self::new();
        photos.iter().for_each(|photo| place.photo(photo));
        place
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    fn out(&self) -> PathBuf {
        self.path("out")
    }

    /// A file in `in`, whose content is its name.
    fn photo(&self, name: impl AsRef<Path>) {
        let name = Path::new("in").join(name);
        self.write(&name, name.as_os_str().as_encoded_bytes());
    }

    fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Everything in `in`, sub-folders included.
    fn all(&self) -> Selection {
        Selection { inputs: vec![self.path("in")], recursive: true, ..Selection::default() }
    }

    fn plan(&self) -> Plan {
        self.plan_of(&self.all(), Shard::All).unwrap()
    }

    fn plan_of(&self, selection: &Selection, shard: Shard) -> tweedie::Result<Plan> {
        plan(selection, &Masks::None, Unpaired::Refuse, &self.out(), shard)
    }
}

fn plan(selection: &Selection, masks: &Masks, unpaired: Unpaired, out: &Path, shard: Shard) -> tweedie::Result<Plan> {
    Plan::new(&Request { selection, masks, unpaired, out, naming: Naming::default(), seed: 0, shard })
}

/// Relative paths of a plan.
fn names(plan: &Plan) -> Vec<String> {
    plan.items.iter().map(|item| item.relative.display().to_string()).collect()
}

/// What was left out, by file name, with the reason.
fn skipped(plan: &Plan) -> BTreeMap<String, String> {
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    plan.skipped.iter().map(|skipped| (name(&skipped.path), skipped.why.to_string())).collect()
}

/// Waits a moment: a process that another test is about to start shares the locks of this one until it has started.
fn lock(out: &Path, shard: Shard) -> FolderLock {
    FolderLock::acquire(out, shard, Duration::from_secs(60), &mut |_| Ok(())).unwrap()
}

/// Numbers that are the same in every run: splitmix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// Writes the output of a photo, and says so; what takes the place of a restoration.
fn work(plan: &Plan, item: &Item, out: &Path) -> Record {
    let content = std::fs::read(item.path()).unwrap();
    let metadata = item.path().metadata().unwrap();
    let outputs = plan.outputs(item);
    let mut record = Record {
        size: Some(metadata.len()),
        modified: Modified::of(&metadata),
        sha256: Some(sha256(&content)),
        seconds: 0.25,
        ..Record::new(item, WANTED.options_hash, WANTED.model_hash, Status::Done)
    };
    for name in outputs.files() {
        let made = [&content[..], &item.seed.to_le_bytes()].concat();
        std::fs::create_dir_all(out.join(name).parent().unwrap()).unwrap();
        tweedie::image::write_atomically(&out.join(name), &made, true).unwrap();
        record.outputs.push(Written { name: Name::new(name), size: made.len() as u64, sha256: sha256(&made) });
    }
    record
}

/// A run, which is stopped after `limit` photos: as if killed, without sorting. Returns the relative paths of its work.
fn run(selection: &Selection, out: &Path, shard: Shard, limit: usize) -> Vec<String> {
    run_with(selection, out, shard, limit, Policy::default())
}

fn run_with(selection: &Selection, out: &Path, shard: Shard, limit: usize, policy: Policy) -> Vec<String> {
    let plan = plan(selection, &Masks::None, Unpaired::Refuse, out, shard).unwrap();
    let lock = lock(out, shard);
    let manifest = Manifest::open(&lock).unwrap();
    manifest.begin(&plan, &INTENT, policy.force).unwrap();
    let mut worked = Vec::new();
    for item in &plan.items {
        if !matches!(manifest.decide(item, &plan.outputs(item), WANTED, policy).unwrap(), Decision::Do(_)) {
            continue;
        }
        if worked.len() == limit {
            return worked;
        }
        let record = work(&plan, item, out);
        manifest.append(&[record]).unwrap();
        worked.push(item.relative.display().to_string());
    }
    manifest.sort().unwrap();
    worked
}

/// A failure of a photo that could be read.
fn failure(item: &Item) -> Record {
    let metadata = item.path().metadata().unwrap();
    Record {
        size: Some(metadata.len()),
        modified: Modified::of(&metadata),
        sha256: Some(sha256(&std::fs::read(item.path()).unwrap())),
        error: Some("damaged".into()),
        code: 1,
        ..Record::new(item, WANTED.options_hash, WANTED.model_hash, Status::Failed)
    }
}

/// The lines of a manifest without what the clock decides.
fn timeless(path: &Path) -> Vec<String> {
    let content = std::fs::read_to_string(path).unwrap();
    let line = |line: &str| {
        let record: Record = serde_json::from_str(line).unwrap();
        serde_json::to_string(&record.without_times()).unwrap()
    };
    content.lines().map(line).collect()
}

/// All files below a folder but those of the record, with their content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with(".tweedie") {
                    folders.push(path);
                }
            } else {
                found.insert(path.strip_prefix(folder).unwrap().into(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// A process that runs the test of this name with `task` in its environment: the test then does its other part.
fn child(test: &str, task: &str, folder: &Path) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads", "1"]);
    command.env("TWEEDIE_TEST_TASK", task).env("TWEEDIE_TEST_FOLDER", folder);
    command.stdin(std::process::Stdio::null());
    command
}

/// What this process is to do, and where, if it is such a process.
fn task() -> Option<(String, PathBuf)> {
    Some((std::env::var("TWEEDIE_TEST_TASK").ok()?, std::env::var_os("TWEEDIE_TEST_FOLDER")?.into()))
}
