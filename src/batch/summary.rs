//! How a run ends, and what is told then.

use crate::image::ImageError;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

/// Who asked a run to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM: a scheduler.
    Terminate,
}

/// Why a run ended before every photo had its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// A signal came.
    Signal(Signal),
    /// The time for all photos is over.
    Deadline,
    /// A photo failed, and the run was to end with the first one.
    FirstFailure,
    /// Outputs cannot be written any more.
    DiskFull,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signal(Signal::Interrupt) => "interrupted",
            Self::Signal(Signal::Terminate) => "terminated",
            Self::Deadline => "the time limit is reached",
            Self::FirstFailure => "a photo failed",
            Self::DiskFull => "the disk is full",
        })
    }
}

/// What every stage looks at: whether the run goes on.
pub(super) struct Halt<'a> {
    stop: &'a (dyn Fn() -> Option<Signal> + Sync),
    deadline: Option<Instant>,
    fail_fast: bool,
    /// The first reason that was met, by its number; 0 is none.
    met: AtomicU8,
}

impl fmt::Debug for Halt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Halt").field("met", &self.stopped()).finish_non_exhaustive()
    }
}

/// Every reason; its number is its place here, from 1.
const REASONS: [Stopped; 5] = [
    Stopped::Signal(Signal::Interrupt),
    Stopped::Signal(Signal::Terminate),
    Stopped::Deadline,
    Stopped::FirstFailure,
    Stopped::DiskFull,
];

impl<'a> Halt<'a> {
    pub(super) fn new(
        stop: &'a (dyn Fn() -> Option<Signal> + Sync),
        deadline: Option<Instant>,
        fail_fast: bool,
    ) -> Self {
        Self { stop, deadline, fail_fast, met: AtomicU8::new(0) }
    }

    /// Ends the run, unless something else did before.
    pub(super) fn end(&self, reason: Stopped) {
        let number = 1 + REASONS.iter().position(|&of| of == reason).unwrap_or(0) as u8;
        let _ = self.met.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// A photo failed.
    pub(super) fn failed(&self) {
        if self.fail_fast {
            self.end(Stopped::FirstFailure);
        }
    }

    /// # Errors
    /// `Interrupted` once the run is to end.
    pub(super) fn check(&self) -> Result<()> {
        if self.met.load(Ordering::Relaxed) == 0 {
            if let Some(signal) = (self.stop)() {
                self.end(Stopped::Signal(signal));
            } else if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                self.end(Stopped::Deadline);
            }
        }
        if self.stopped().is_none() { Ok(()) } else { Err(Error::Interrupted) }
    }

    /// Why the run is to end, if it is.
    pub(super) fn stopped(&self) -> Option<Stopped> {
        REASONS.get(usize::from(self.met.load(Ordering::Relaxed)).wrapping_sub(1)).copied()
    }
}

/// Whether memory, disk space, a device or time was lacking: worth another try elsewhere.
pub fn lacks_resources(error: &Error) -> bool {
    match error {
        Error::Image(error) => error.is_resource(),
        Error::Io { source, .. } => source.kind() == ErrorKind::OutOfMemory || is_full_kind(source.kind()),
        Error::Memory { .. }
        | Error::Time { .. }
        | Error::Cache { .. }
        | Error::Device { .. }
        | Error::Locked { .. } => true,
        Error::Tensor(error) => error.to_string().to_ascii_lowercase().contains("out of memory"),
        _ => false,
    }
}

/// How many photos in a row found the disk full.
#[derive(Debug, Default)]
pub(super) struct FullDisk(usize);

/// So many in a row end the run: the others would be restored for nothing. One may be larger than what is left for the next.
const FULL: usize = 3;

impl FullDisk {
    /// Counts what came of writing one photo. A file that is too large for a limit of its own says nothing about the next.
    pub(super) fn count(&mut self, error: Option<&ImageError>) {
        let is_full = matches!(error, Some(ImageError::Write { source, .. })
            if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded));
        self.0 = if is_full { self.0 + 1 } else { 0 };
    }

    /// Whether it is to be taken for full.
    pub(super) fn is_certain(&self) -> bool {
        self.0 >= FULL
    }
}

fn is_full_kind(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

/// Photos that failed for the same reason, or have the same warning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// How many.
    pub count: usize,
    /// The first of them.
    pub first: Vec<PathBuf>,
}

/// Of so many photos that failed alike the names are kept.
const NAMES: usize = 10;

impl Failures {
    /// Counts one more.
    pub fn add(&mut self, relative: &Path) {
        self.count += 1;
        if self.first.len() < NAMES {
            self.first.push(relative.into());
        }
    }
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Photos that were restored, and are safely on the disk.
    pub done: usize,
    /// Photos that were done before.
    pub skipped: usize,
    /// Photos that failed.
    pub failed: usize,
    /// Photos whose turn did not come, or that were dropped half done: the next run does them.
    pub left: usize,
    /// Of the photos that failed, those that lacked memory, disk space or time.
    pub resources: usize,
    /// Of the photos that failed, those that are left until someone decides: a retry leaves them again.
    pub undecided: usize,
    /// Why the run ended before its time.
    pub stopped: Option<Stopped>,
    /// The photos that failed, by what was wrong with them.
    pub failures: BTreeMap<String, Failures>,
    /// Network evaluations.
    pub evaluations: usize,
    /// Seconds of the whole run.
    pub seconds: f64,
    /// Seconds of sampling, added up over photos.
    pub sampling_seconds: f64,
    /// Largest number of bytes that the photos in flight were planned to need at a time.
    pub memory: u64,
}

impl Summary {
    /// Counts a photo that failed; `message` may begin with its path.
    pub(super) fn fail(&mut self, relative: &Path, path: &Path, message: &str, is_resource: bool) {
        self.failed += 1;
        self.resources += usize::from(is_resource);
        let prefix = format!("{}: ", path.display());
        let reason = message.strip_prefix(&prefix).unwrap_or(message);
        self.failures.entry(reason.to_owned()).or_default().add(relative);
    }

    /// What the process ends with: 130 or 143 after a signal, 5 if memory, disk or time ran out, 1 if a photo failed, else 0.
    pub fn exit_code(&self) -> u8 {
        match self.stopped {
            Some(Stopped::Signal(Signal::Interrupt)) => 130,
            Some(Stopped::Signal(Signal::Terminate)) => 143,
            Some(Stopped::Deadline | Stopped::DiskFull) => 5,
            _ if self.resources > 0 => 5,
            _ => u8::from(self.failed > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_to_end_stays_the_reason() {
        let stop = || Some(Signal::Terminate);
        let halt = Halt::new(&stop, Some(Instant::now()), true);
        assert_eq!(halt.stopped(), None);
        assert!(matches!(halt.check(), Err(Error::Interrupted)));
        halt.failed();
        halt.end(Stopped::DiskFull);
        assert_eq!(halt.stopped(), Some(Stopped::Signal(Signal::Terminate)));
        let quiet = || None;
        let halt = Halt::new(&quiet, None, false);
        halt.failed();
        halt.check().unwrap();
        for reason in REASONS {
            let halt = Halt::new(&quiet, None, false);
            halt.end(reason);
            assert_eq!(halt.stopped(), Some(reason));
        }
    }

    #[test]
    fn a_disk_is_full_when_three_photos_in_a_row_find_it_so() {
        let error = |kind: ErrorKind| ImageError::Write { path: "out/a.png".into(), source: kind.into() };
        let (full, quota, large) =
            (error(ErrorKind::StorageFull), error(ErrorKind::QuotaExceeded), error(ErrorKind::FileTooLarge));
        for (photos, expected) in [
            (vec![Some(&full), Some(&full)], false),
            (vec![Some(&full), Some(&quota), Some(&full)], true),
            (vec![Some(&full), Some(&full), None, Some(&full)], false),
            (vec![Some(&large); 5], false),
        ] {
            let mut disk = FullDisk::default();
            photos.iter().for_each(|photo| disk.count(*photo));
            assert_eq!(disk.is_certain(), expected, "{photos:?}");
        }
    }

    #[test]
    fn failures_are_grouped_and_the_code_says_whether_a_retry_helps() {
        let mut summary = Summary::default();
        assert_eq!(summary.exit_code(), 0);
        for name in 0..12 {
            let path = PathBuf::from(format!("in/{name}.png"));
            summary.fail(Path::new(&format!("{name}.png")), &path, &format!("in/{name}.png: empty file"), false);
        }
        assert_eq!(summary.failures.len(), 1);
        let group = &summary.failures["empty file"];
        assert_eq!((group.count, group.first.len(), summary.exit_code()), (12, 10, 1));
        summary.fail(Path::new("a"), Path::new("in/a"), "cannot write out/a: no space left on device", true);
        assert_eq!(summary.exit_code(), 5);
        summary.stopped = Some(Stopped::Signal(Signal::Interrupt));
        assert_eq!(summary.exit_code(), 130);
        summary.stopped = Some(Stopped::Signal(Signal::Terminate));
        assert_eq!(summary.exit_code(), 143);
    }
}
