//! What the process says when it ends.

use crate::Error;

/// The exit code of the command, a promise to scripts and schedulers.
///
/// | code | meaning | would a retry help? |
/// | --- | --- | --- |
/// | 0 | everything done, or already complete | – |
/// | 1 | some files failed; the others are done | no: the inputs are bad |
/// | 2 | usage or configuration; nothing was started | no |
/// | 3 | nothing matched | no |
/// | 4 | model or weights | no |
/// | 5 | resources: device, memory, disk, time limit | elsewhere |
/// | 101 | a bug: the program panicked | no |
/// | 130 | interrupted by SIGINT | yes |
/// | 143 | interrupted by SIGTERM | yes |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[non_exhaustive]
pub enum ExitCode {
    /// Everything is done.
    Success = 0,
    /// Some files failed; the others are done.
    Failed = 1,
    /// The command makes no sense as given; nothing was started.
    Usage = 2,
    /// No input matched.
    NothingMatched = 3,
    /// A model or its weights cannot be used.
    Model = 4,
    /// A device, memory or disk space is missing.
    Resources = 5,
    /// Stopped by SIGINT.
    Interrupted = 130,
    /// Stopped by SIGTERM.
    Terminated = 143,
}

impl ExitCode {
    /// The code of an error of the library.
    pub fn of(error: &Error) -> Self {
        match error {
            Error::Image(error) if error.is_usage() => Self::Usage,
            Error::Image(error) if error.is_resource() => Self::Resources,
            // The plan is checked before anything is computed, so a limit that is too small is a usage error.
            Error::Config { .. } | Error::Unknown { .. } | Error::Memory { .. } => Self::Usage,
            Error::Model { .. } => Self::Model,
            Error::Device { .. } => Self::Resources,
            Error::Io { source, .. } if is_full(source) => Self::Resources,
            Error::Interrupted => super::interrupt::exit_code(),
            Error::Tensor(error) if error.to_string().to_ascii_lowercase().contains("out of memory") => Self::Resources,
            _ => Self::Failed,
        }
    }
}

/// Whether the disk has no room for a file.
pub(crate) fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}
