//! The record of a shard, on the disk.

use super::index::{Damaged, Index, Place};
use super::lines::check;
use super::plan::is_same_file;
use super::planned::{Intent, Planned};
use super::record::LastMask;
use super::{
    BatchError, FolderLock, Item, MaskFile, Modified, Outputs, Plan, Record, Shard, Status, Written, folder, relative,
};
use crate::digest::sha256_of_file;
use crate::image::{ImageError, MaskSource, write_atomically_with};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The record of a shard: one line a photo, behind those of earlier runs.
///
/// Lines of other shards and of runs of everything count, too, so that the work goes on where it was when the division
/// changes. All methods may be called by several threads.
#[derive(Debug)]
pub struct Manifest {
    out: PathBuf,
    path: PathBuf,
    state: Mutex<State>,
    pub(super) mask: LastMask,
}

#[derive(Debug)]
struct State {
    index: Index,
    /// The number of the own file in the index.
    own: usize,
    /// Its bytes.
    length: u64,
}

/// What outputs must have been made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// Hash of the settings, those of the photo's own file of settings included.
    pub options_hash: &'a str,
    /// Hash of the model.
    pub model_hash: &'a str,
}

/// What is done with photos that have a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Everything is done anew, and files that no batch wrote are replaced.
    pub force: bool,
    /// Photos that failed are tried again.
    pub retry_failed: bool,
    /// What was made with other settings.
    pub changed: Changed,
    /// A photo of the same size and time is taken for the same, without reading it.
    pub fast_check: bool,
}

/// What is done with outputs that were made with other settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Changed {
    /// They are made anew.
    #[default]
    Redo,
    /// The photo is refused.
    Refuse,
}

/// What is to be done with a photo.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The work.
    Do(Cause),
    /// Nothing: its outputs are there.
    Done,
    /// Nothing: it failed with this error and exit code, and nobody asked to try again.
    Failed {
        /// Why it failed.
        error: String,
        /// The exit code of its failure.
        code: u8,
    },
    /// Nothing before the user has decided: why, and how to decide.
    Refuse(String),
}

/// Why a photo is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// There is no record of it.
    New,
    /// Everything is done anew.
    Forced,
    /// It failed before.
    Retry,
    /// Its outputs were made with other settings, another model or another seed.
    Settings,
    /// The photo or its mask is not what it was.
    Input,
    /// An output is gone.
    OutputMissing,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::New => "new",
            Self::Forced => "forced",
            Self::Retry => "failed before",
            Self::Settings => "made with other settings",
            Self::Input => "the photo changed",
            Self::OutputMissing => "the output is gone",
        })
    }
}

impl Manifest {
    /// Opens or makes the manifest of the lock's shard. What follows the last complete line is cut off: the process that wrote
    /// it was stopped, and the photo counts as not done. Damaged lines are kept until [`Manifest::sort`], and count as nothing.
    ///
    /// # Errors
    /// `Io` if a manifest cannot be read or written; [`BatchError::LaterVersion`] if a later version wrote in one.
    pub fn open(lock: &FolderLock) -> Result<Self> {
        let (out, shard) = (lock.out(), lock.shard());
        let folder = folder::manifests(out);
        folder::make(&folder)?;
        let path = folder.join(format!("{}.jsonl", shard.name()));
        let failed = |source| Error::Io { path: path.clone(), source };
        let mut index = Index::default();
        for (other, path) in folder::shards(&folder)? {
            // By hash a photo of this shard is in no other of the same division.
            let is_beside = matches!(shard, Shard::Hash { .. }) && other.division() == shard.division();
            if other != shard && !is_beside {
                index.read_path(&path)?;
            }
        }
        let file = open(&path).map_err(failed)?;
        let (own, length) = index.read(&path, file)?;
        let file = index.file(own);
        if file.metadata().map_err(failed)?.len() > length {
            file.set_len(length).and_then(|()| file.sync_all()).map_err(failed)?;
        }
        folder::sync(&folder)?;
        let state = Mutex::new(State { index, own, length });
        Ok(Self { out: out.into(), path, state, mask: LastMask::default() })
    }

    /// The output folder.
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// The file of this shard.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lines that were no records when the manifests were opened.
    pub fn damaged(&self) -> Vec<Damaged> {
        self.state().index.damaged.clone()
    }

    /// The newest record of a photo.
    ///
    /// # Errors
    /// `Io` if its line cannot be read again.
    pub fn get(&self, relative: &Path) -> Result<Option<Record>> {
        let state = self.state();
        state.index.get(&relative::key(relative)).map(|place| state.index.record(place)).transpose()
    }

    /// Notes on the disk what `plan` is going to write and with what, after making sure that for photos without a record it replaces nothing
    /// but outputs of a batch; those with a record are decided one by one.
    ///
    /// An output without a record is of a batch if an earlier plan meant to write a file of this name: its run was stopped
    /// between the file and its line. Everything else belongs to someone.
    ///
    /// # Errors
    /// [`BatchError::Exist`] with the files that would be replaced, unless `force`; `Io`.
    pub fn begin(&self, plan: &Plan, intent: &Intent<'_>, force: bool) -> Result<()> {
        let mut strange: BTreeMap<Vec<u8>, Vec<PathBuf>> = BTreeMap::new();
        if !force {
            let state = self.state();
            for item in plan.items.iter().filter(|item| state.index.get(&relative::key(&item.relative)).is_none()) {
                let outputs = plan.outputs(item);
                // Not `exists`: a dangling link would be replaced, too.
                let there = outputs.files().filter(|name| self.out.join(name).symlink_metadata().is_ok());
                let there: Vec<PathBuf> = there.map(Path::to_path_buf).collect();
                if !there.is_empty() {
                    strange.insert(relative::key(&item.relative), there);
                }
            }
        }
        if !strange.is_empty() {
            Planned::names_of_all(&self.out, |name, naming| {
                if let Some(there) = strange.get_mut(&relative::key(name.path())) {
                    let meant = naming.outputs(name.path());
                    there.retain(|file| meant.files().all(|name| name != file));
                }
            })?;
        }
        let paths: Vec<PathBuf> = strange.into_values().flatten().map(|name| self.out.join(name)).collect();
        if !paths.is_empty() {
            return Err(BatchError::Exist { paths }.into());
        }
        let mut state = self.state();
        state.index.reserve(plan.items.len());
        Planned::write(&self.out, plan, intent, &|key| state.index.get(key).is_some())
    }

    /// What is to be done with a photo that becomes `outputs`. Reads the photo, and its mask, unless size and time are enough.
    ///
    /// * No record, or `force`: it is done.
    /// * Other settings, another model or another seed: done, or refused if there are outputs and the policy says so.
    /// * Another content of the photo or its mask: done.
    /// * Failed: left alone; done with `retry_failed`, or if memory, disk or time had run out.
    /// * An output is gone: done.
    ///
    /// Without `force`, what would be done is refused if that would replace a file that no batch wrote, one that has another
    /// size than was written (someone has worked on it), or the result of another photo that is still there.
    ///
    /// # Errors
    /// `Io` if the record cannot be read again. What is wrong with the photo is for who does the work.
    pub fn decide(&self, item: &Item, outputs: &Outputs, wanted: Wanted<'_>, policy: Policy) -> Result<Decision> {
        let Some(record) = self.get(&item.relative)? else { return Ok(Decision::Do(Cause::New)) };
        if policy.force {
            return Ok(Decision::Do(Cause::Forced));
        }
        Ok(match self.compare(item, &record, wanted, policy) {
            Decision::Do(cause) => match self.obstacle(item, outputs, &record) {
                Some(reason) => Decision::Refuse(reason),
                None => Decision::Do(cause),
            },
            decision => decision,
        })
    }

    /// What is to be done by the record, whatever it would replace.
    fn compare(&self, item: &Item, record: &Record, wanted: Wanted<'_>, policy: Policy) -> Decision {
        let is_same = record.options_hash == wanted.options_hash
            && record.model_hash == wanted.model_hash
            && record.seed == item.seed;
        if !is_same {
            return match (record.status, policy.changed) {
                (Status::Done, Changed::Refuse) => Decision::Refuse(format!(
                    "made with other settings ({}); --changed redo makes it anew",
                    difference(record, item, wanted)
                )),
                _ => Decision::Do(Cause::Settings),
            };
        }
        if !self.is_same_input(item, record, policy.fast_check) {
            return Decision::Do(Cause::Input);
        }
        if record.status == Status::Failed {
            // What memory, disk or time were too little for may fit now.
            return match policy.retry_failed || record.code == 5 {
                true => Decision::Do(Cause::Retry),
                false => Decision::Failed { error: record.error.clone().unwrap_or_default(), code: record.code },
            };
        }
        if let Some(reason) = record.outputs.iter().find_map(|output| self.changed(output.name.path(), record)) {
            return Decision::Refuse(reason);
        }
        let is_gone = |output: &Written| self.out.join(output.name.path()).symlink_metadata().is_err();
        match record.outputs.iter().any(is_gone) {
            true => Decision::Do(Cause::OutputMissing),
            false => Decision::Done,
        }
    }

    /// Why the photo's outputs must not be replaced, if there is a reason.
    fn obstacle(&self, item: &Item, outputs: &Outputs, record: &Record) -> Option<String> {
        let of_other = || {
            let (source, path) = (record.source.path(), item.path());
            let metadata = source.metadata().ok()?;
            let is_as_recorded = record.size == Some(metadata.len()) && record.modified == Modified::of(&metadata);
            let file = record.written().map(|file| self.out.join(file.name.path())).find(|file| file.exists())?;
            (is_as_recorded && !is_same_file(source, &path)).then(|| {
                format!(
                    "{} is the result of {}, not of {}; choose another output folder, or use --force",
                    file.display(),
                    source.display(),
                    path.display()
                )
            })
        };
        of_other().or_else(|| outputs.files().find_map(|name| self.changed(name, record)))
    }

    /// In what way a file is not what a batch wrote; `None` if it is, or is not there.
    fn changed(&self, name: &Path, record: &Record) -> Option<String> {
        let path = self.out.join(name);
        let metadata = path.symlink_metadata().ok()?;
        let sizes = || record.written().filter(|file| file.name.path() == name).map(|file| file.size);
        match sizes().next() {
            None => Some(format!("{} exists, and no batch has written it; --force replaces it", path.display())),
            Some(_) if metadata.is_file() && sizes().any(|size| size == metadata.len()) => None,
            Some(size) => Some(format!(
                "{} has {} bytes, {size} were written: someone has changed it; delete it to have it made anew, or use --force",
                path.display(),
                metadata.len()
            )),
        }
    }

    fn is_same_input(&self, item: &Item, record: &Record, fast: bool) -> bool {
        let Ok(metadata) = item.path().metadata() else { return false };
        let modified = Modified::of(&metadata);
        let is_untouched = record.size == Some(metadata.len()) && modified.is_some() && record.modified == modified;
        let is_same = match &record.sha256 {
            // A photo that could not be read: whether it can be now shows in its size or time.
            None => is_untouched,
            Some(_) if fast && is_untouched => true,
            Some(hash) => {
                record.size == Some(metadata.len()) && sha256_of_file(&item.path()).is_ok_and(|found| found == *hash)
            }
        };
        is_same && self.is_same_mask(item.mask.as_deref(), record.mask.as_ref(), record.status, fast)
    }

    fn is_same_mask(&self, now: Option<&MaskSource>, then: Option<&MaskFile>, status: Status, fast: bool) -> bool {
        let path = match (now, then) {
            (Some(MaskSource::File(path)), Some(_)) => path,
            // A photo can fail before its mask is read.
            (Some(MaskSource::File(_)), None) => return status == Status::Failed,
            (_, then) => return then.is_none(),
        };
        let then = then.expect("matched above");
        let Ok(metadata) = path.metadata() else { return false };
        if metadata.len() != then.size {
            return false;
        }
        let modified = Modified::of(&metadata);
        if fast && modified.is_some() && modified == then.modified {
            return true;
        }
        self.mask.file(path).is_some_and(|now| now.sha256 == then.sha256)
    }

    /// Adds records, and returns when they are on the disk. If that fails, the file is as it was.
    ///
    /// # Errors
    /// `Io` if they cannot be written, or are no records: done without an output, a name outside of the folder, no hash.
    pub fn append(&self, records: &[Record]) -> Result<()> {
        let failed = |source| Error::Io { path: self.path.clone(), source };
        let mut lines = Vec::new();
        let mut ends = Vec::with_capacity(records.len());
        for record in records {
            check(record).map_err(|reason| failed(io::Error::new(io::ErrorKind::InvalidData, reason)))?;
            serde_json::to_writer(&mut lines, record).map_err(|error| failed(error.into()))?;
            lines.push(b'\n');
            ends.push(lines.len() as u64);
        }
        let mut state = self.state();
        let State { own, length, .. } = *state;
        let mut file = state.index.file(own);
        let written = file.seek(SeekFrom::Start(length)).and_then(|_| file.write_all(&lines));
        if let Err(error) = written.and_then(|()| file.sync_data()) {
            // A torn line would be cut off by the next run, too.
            let _ = file.set_len(length);
            return Err(failed(error));
        }
        let mut begin = 0;
        for (record, end) in records.iter().zip(ends) {
            state.index.add(own, length + begin, end - begin, record);
            begin = end;
        }
        state.length = length + begin;
        Ok(())
    }

    /// Writes the file anew in the order of the relative paths, with the newest record of each photo alone: what a run leaves
    /// then depends on neither its order nor its interruptions. The file is old or new at every moment.
    ///
    /// # Errors
    /// `Io` if that cannot be done; the file is then as it was.
    pub fn sort(&self) -> Result<()> {
        let mut state = self.state();
        let own = state.own;
        let places = state.index.sorted(|place| place.source == own);
        write_lines(&self.path, &state.index, &places)?;
        let file = open(&self.path).map_err(|source| Error::Io { path: self.path.clone(), source })?;
        state.length = state.index.replace(own, file, &places);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

/// Copies lines into a file that appears whole.
pub(super) fn write_lines(path: &Path, index: &Index, places: &[Place]) -> Result<()> {
    let failed = |source| ImageError::Write { path: path.into(), source };
    write_atomically_with::<Error>(path, true, |file, _| {
        let mut writer = BufWriter::with_capacity(1 << 16, file);
        for &place in places {
            writer.write_all(&index.line(place)?).map_err(failed)?;
        }
        Ok(writer.flush().map_err(failed)?)
    })
}

/// What of the settings is another.
fn difference(record: &Record, item: &Item, wanted: Wanted<'_>) -> String {
    let short = |hash: &str| hash.chars().take(12).collect::<String>();
    if record.model_hash != wanted.model_hash {
        format!("model {}, now {}", short(&record.model_hash), short(wanted.model_hash))
    } else if record.seed != item.seed {
        format!("seed {}, now {}", record.seed, item.seed)
    } else {
        format!("options {}, now {}", short(&record.options_hash), short(wanted.options_hash))
    }
}
