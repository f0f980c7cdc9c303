//! Outputs that are old or new, never partial, for several photos at a time.

use crate::image::{ImageError, write_atomically};
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Puts files into a folder: all are written under other names, one sync makes them durable, then each gets its name, and the
/// folders are synced. At every moment a name holds what it held before, or all of the new content; when
/// [`commit`](Self::commit) returns, both survive a loss of power.
///
/// The other names lie in a folder beside the record, which nobody else writes to, so that what a killed process leaves is
/// found and removed.
#[derive(Debug)]
pub(super) struct Writer {
    out: PathBuf,
    staging: PathBuf,
    /// Names given so far.
    count: u64,
}

/// A photo's outputs.
#[derive(Debug)]
pub(super) struct Job {
    /// Names below the folder, and contents.
    pub(super) files: Vec<(PathBuf, Vec<u8>)>,
    /// The first that went wrong with them; their names then hold what they held before, or all of the new content.
    pub(super) error: Option<ImageError>,
}

/// A file under its other name.
#[derive(Debug)]
struct Staged {
    job: usize,
    file: File,
    temporary: PathBuf,
    path: PathBuf,
}

/// From this number of files or folders on one sync of the file system is cheaper than one of each.
const MANY: usize = 4;

impl Writer {
    /// For files below `out`, with `staging` for those that are not complete: a folder of this process alone, which is
    /// emptied.
    ///
    /// # Errors
    /// `Io` if a folder cannot be made or emptied.
    pub(super) fn new(out: &Path, staging: PathBuf) -> Result<Self> {
        let failed = |source| Error::Io { path: staging.clone(), source };
        fs::create_dir_all(&staging).map_err(failed)?;
        for entry in fs::read_dir(&staging).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "part") {
                fs::remove_file(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
            }
        }
        Ok(Self { out: out.into(), staging, count: 0 })
    }

    /// Puts the files of all jobs in their places. What goes wrong with one job is told in it, and the others go on.
    pub(super) fn commit(&mut self, jobs: &mut [Job]) {
        let mut staged = Vec::new();
        for (index, job) in jobs.iter_mut().enumerate() {
            let before = staged.len();
            for (name, bytes) in &job.files {
                let path = self.out.join(name);
                match self.stage(bytes, &path) {
                    Ok((file, temporary)) => staged.push(Staged { job: index, file, temporary, path }),
                    Err(error) => {
                        job.error = Some(error);
                        // Its other files would only be work to remove later.
                        staged.drain(before..).for_each(|staged: Staged| remove(&staged.temporary));
                        break;
                    }
                }
            }
        }
        self.sync(&staged, jobs);
        let mut folders = BTreeSet::new();
        for Staged { job, temporary, path, .. } in &staged {
            let job = &mut jobs[*job];
            if job.error.is_some() {
                remove(temporary);
                continue;
            }
            match self.rename(temporary, path) {
                Ok(made) => {
                    folders.extend(made.iter().filter_map(|path| path.parent()).map(Path::to_path_buf));
                    folders.extend(path.parent().map(Path::to_path_buf));
                }
                Err(error) => {
                    remove(temporary);
                    job.error = Some(error);
                }
            }
        }
        if let Err((folder, source)) = self.sync_folders(&folders) {
            // Nobody can tell which of the names would be lost.
            for job in jobs.iter_mut().filter(|job| job.error.is_none() && !job.files.is_empty()) {
                let source = io::Error::new(source.kind(), source.to_string());
                job.error = Some(ImageError::Write { path: folder.clone(), source });
            }
        }
    }

    fn stage(&mut self, bytes: &[u8], path: &Path) -> Result<(File, PathBuf), ImageError> {
        let failed = |source| ImageError::Write { path: path.into(), source };
        if path.is_dir() {
            return Err(failed(ErrorKind::IsADirectory.into()));
        }
        let temporary = self.staging.join(format!("{}.part", self.count));
        self.count += 1;
        step("create");
        let mut file = File::create_new(&temporary).map_err(failed)?;
        match write_in_pieces(&mut file, bytes) {
            Ok(()) => Ok((file, temporary)),
            Err(source) => {
                remove(&temporary);
                Err(failed(source))
            }
        }
    }

    /// Makes the content of the files durable.
    fn sync(&self, staged: &[Staged], jobs: &mut [Job]) {
        if staged.is_empty() {
            return;
        }
        step("sync");
        if staged.len() >= MANY && sync_file_system(&self.staging).is_ok() {
            return;
        }
        for Staged { job, file, path, .. } in staged {
            if let Err(source) = file.sync_all() {
                jobs[*job].error.get_or_insert(ImageError::Write { path: path.clone(), source });
            }
        }
    }

    /// Gives a file its name; the folders that had to be made for it.
    fn rename(&self, temporary: &Path, path: &Path) -> Result<Vec<PathBuf>, ImageError> {
        let failed = |source| ImageError::Write { path: path.into(), source };
        let mut made = Vec::new();
        let mut folder = path.parent();
        while let Some(missing) = folder.filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
            made.push(missing.to_path_buf());
            folder = missing.parent();
        }
        for folder in made.iter().rev() {
            step("make a folder");
            match fs::create_dir(folder) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(error)),
                _ => {}
            }
        }
        step("rename");
        match fs::rename(temporary, path) {
            Ok(()) => {}
            // A folder below may be of another disk, which a file cannot be moved to in one step.
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                let bytes = fs::read(temporary).map_err(failed)?;
                write_atomically(path, &bytes, true)?;
                remove(temporary);
            }
            Err(error) => return Err(failed(error)),
        }
        Ok(made)
    }

    /// Makes the names durable.
    fn sync_folders(&self, folders: &BTreeSet<PathBuf>) -> Result<(), (PathBuf, io::Error)> {
        if folders.is_empty() {
            return Ok(());
        }
        step("sync the folders");
        if folders.len() >= MANY && sync_file_system(&self.out).is_ok() {
            return Ok(());
        }
        for folder in folders.iter().filter(|_| cfg!(unix)) {
            match File::open(folder).and_then(|folder| folder.sync_all()) {
                // Not every file system can sync a folder.
                Err(e) if !matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::PermissionDenied) => {
                    return Err((folder.clone(), e));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Nothing is left under the other names of a run that ends by itself.
impl Drop for Writer {
    fn drop(&mut self) {
        // Not empty if something could not be removed: the next run tries again.
        let _ = fs::remove_dir(&self.staging);
    }
}

fn remove(path: &Path) {
    // What stays is removed when the next run begins.
    let _ = fs::remove_file(path);
}

fn write_in_pieces(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    for piece in bytes.chunks(PIECE) {
        step("write");
        file.write_all(piece)?;
    }
    Ok(())
}

/// Bytes that are written at a time; few in a test, which looks between them.
const PIECE: usize = if cfg!(test) { 64 } else { 1 << 20 };

/// Makes everything on the file system of `path` durable, with the errors of writing it.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn sync_file_system(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(path)?)?)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn sync_file_system(_: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// Called before every change of the disk: where a test ends the process.
#[cfg(not(test))]
fn step(_: &str) {}

#[cfg(test)]
use tests::step;

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Which step ends the process, counted from 1; set for a child process alone.
    const LAST: &str = "TWEEDIE_TEST_LAST_STEP";
    const FOLDER: &str = "TWEEDIE_TEST_FOLDER";
    static STEPS: AtomicUsize = AtomicUsize::new(0);

    pub(super) fn step(_: &str) {
        let Some(last) = std::env::var(LAST).ok().and_then(|last| last.parse::<usize>().ok()) else { return };
        if STEPS.fetch_add(1, Ordering::SeqCst) + 1 == last {
            // As SIGKILL does: nothing is cleaned up.
            std::process::exit(9);
        }
    }

    fn old(name: &str) -> Vec<u8> {
        format!("what {name} held before").into_bytes()
    }

    fn new(name: &str) -> Vec<u8> {
        format!("{name}: ").repeat(20).into_bytes()
    }

    /// Photos with one or two outputs, some of which are there already.
    const PHOTOS: [&[&str]; 4] = [&["a.png", "a-mean.png"], &["sub/b.png"], &["sub/deep/er/c.png"], &["d.png"]];

    fn jobs() -> Vec<Job> {
        let job = |names: &&[&str]| Job {
            files: names.iter().map(|name| (PathBuf::from(name), new(name))).collect(),
            error: None,
        };
        PHOTOS.iter().map(job).collect()
    }

    fn with_old_files() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        for name in ["a.png", "sub/b.png"] {
            fs::write(folder.path().join(name), old(name)).unwrap();
        }
        folder
    }

    fn commit(out: &Path) {
        let mut jobs = jobs();
        let mut writer = Writer::new(out, out.join(".tweedie/parts/all")).unwrap();
        writer.commit(&mut jobs);
        assert!(jobs.iter().all(|job| job.error.is_none()), "{jobs:?}");
    }

    #[test]
    #[ignore = "the part of the next test that runs in a process of its own"]
    fn a_process_that_ends_at_some_step() {
        if let Some(folder) = std::env::var_os(FOLDER) {
            commit(Path::new(&folder));
        }
    }

    // Item 64 of the faults.
    #[test]
    fn a_name_holds_the_old_or_the_new_content_wherever_the_process_ends() {
        let mut ended = 0;
        for last in 1.. {
            let folder = with_old_files();
            let status = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "batch::writer::tests::a_process_that_ends_at_some_step", "--ignored"])
                .env(LAST, last.to_string())
                .env(FOLDER, folder.path())
                .output()
                .unwrap()
                .status;
            for name in PHOTOS.iter().copied().flatten() {
                match fs::read(folder.path().join(name)) {
                    Ok(content) => {
                        let was_there = ["a.png", "sub/b.png"].contains(name);
                        assert!(content == new(name) || was_there && content == old(name), "step {last}, {name}");
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "step {last}, {name}"),
                }
            }
            // The next run does it all, and removes what was left.
            commit(folder.path());
            assert!(
                PHOTOS.iter().copied().flatten().all(|name| fs::read(folder.path().join(name)).unwrap() == new(name))
            );
            assert!(!folder.path().join(".tweedie/parts/all").exists(), "step {last}");
            match status.code() {
                Some(9) => ended += 1,
                code => {
                    assert_eq!(code, Some(0));
                    break;
                }
            }
        }
        // Every file is created, written in pieces and renamed; folders are made; all is synced twice.
        assert!(ended > 5 * 4 + 2, "{ended} steps: are they still counted?");
    }

    #[test]
    fn what_goes_wrong_with_one_photo_costs_no_other() {
        let folder = with_old_files();
        // A folder where a file should go, and a file where a folder should be.
        fs::create_dir(folder.path().join("d.png")).unwrap();
        fs::write(folder.path().join("sub/deep"), "").unwrap();
        let mut jobs = jobs();
        let mut writer = Writer::new(folder.path(), folder.path().join("parts")).unwrap();
        writer.commit(&mut jobs);
        let failed: Vec<bool> = jobs.iter().map(|job| job.error.is_some()).collect();
        assert_eq!(failed, [false, false, true, true]);
        assert_eq!(fs::read(folder.path().join("sub/b.png")).unwrap(), new("sub/b.png"));
        drop(writer);
        assert!(!folder.path().join("parts").exists(), "something was left under another name");
    }

    #[test]
    fn nothing_to_write_is_nothing_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let mut jobs = [Job { files: Vec::new(), error: None }];
        Writer::new(folder.path(), folder.path().join("parts")).unwrap().commit(&mut jobs);
        assert!(jobs[0].error.is_none());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
