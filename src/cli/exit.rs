//! What the process says when it ends.

use crate::Error;
use tweedie_operators::Error as OperatorError;

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
            Error::Batch(_)
            | Error::Config { .. }
            | Error::Unknown { .. }
            | Error::Unsuitable { .. }
            | Error::Pickle { .. }
            | Error::Memory { .. } => Self::Usage,
            // What does not fit together is found before anything is sampled.
            Error::Operator(
                OperatorError::Config { .. }
                | OperatorError::Unknown { .. }
                | OperatorError::Shape { .. }
                | OperatorError::Unsupported { .. },
            ) => Self::Usage,
            Error::Model { .. } => Self::Model,
            Error::Device { .. } | Error::Time { .. } | Error::Cache { .. } | Error::Locked { .. } => Self::Resources,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::ImageError;
    use std::io;

    #[test]
    fn errors_have_the_codes_of_the_table() {
        let file = |kind: io::ErrorKind| Error::Io { path: "out.png".into(), source: kind.into() };
        let write = |kind: io::ErrorKind| ImageError::Write { path: "out.png".into(), source: kind.into() };
        let cases = [
            (Error::Image(ImageError::Empty { path: "a.png".into() }), ExitCode::Failed),
            (Error::Image(ImageError::Exists { path: "a.png".into() }), ExitCode::Usage),
            (Error::Image(write(io::ErrorKind::StorageFull)), ExitCode::Resources),
            (Error::Config { name: "steps".into(), got: "0".into(), expected: "1".into() }, ExitCode::Usage),
            (Error::Unknown { kind: "sampler", name: "x".into(), known: "y".into() }, ExitCode::Usage),
            (Error::Model { model: "m".into(), reason: "is damaged".into() }, ExitCode::Model),
            (Error::Pickle { model: "m.pt".into(), command: "convert".into() }, ExitCode::Usage),
            (Error::Device { device: "cuda:0".into(), reason: "none".into() }, ExitCode::Resources),
            (Error::Memory { needs: 2, limit: 1, advice: "-".into() }, ExitCode::Usage),
            (
                Error::Cache { path: "m".into(), needs: 5, source: io::ErrorKind::PermissionDenied.into() },
                ExitCode::Resources,
            ),
            (Error::Locked { path: "m.lock".into(), seconds: 5 }, ExitCode::Resources),
            (Error::NonFinite { step: 3, sigma: 0.5 }, ExitCode::Failed),
            (Error::Operator(OperatorError::config("blur", "no kernel")), ExitCode::Usage),
            (Error::Operator(OperatorError::NoGradient), ExitCode::Failed),
            (Error::Interrupted, ExitCode::Interrupted),
            (file(io::ErrorKind::Other), ExitCode::Failed),
            (file(io::ErrorKind::StorageFull), ExitCode::Resources),
        ];
        for (error, code) in cases {
            assert_eq!(ExitCode::of(&error), code, "{error}");
        }
    }
}
