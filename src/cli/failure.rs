//! An error on its way to the user: a text, what to do about it, and the exit code.

use super::exit::ExitCode;
use crate::Error;

/// Why a command stops.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: ExitCode,
    /// What went wrong, and below it why, outermost first.
    pub(crate) chain: Vec<String>,
    /// What the user can do, one line each.
    pub(crate) hints: Vec<String>,
    /// Whoever read our output has gone: nothing to tell, and nothing went wrong.
    pub(crate) broken_pipe: bool,
}

pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// The command makes no sense as given.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Usage, message)
    }

    pub(crate) fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self { code, chain: vec![message.into()], hints: Vec::new(), broken_pipe: false }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The whole chain in one line.
    pub(crate) fn message(&self) -> String {
        self.chain.join(": ")
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let mut failure = Self::new(ExitCode::of(&error), error.to_string());
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            let text = cause.to_string();
            // Many texts already end with their cause's; saying it twice helps nobody.
            if !failure.chain.last().is_some_and(|last| last.contains(&text)) {
                failure.chain.push(text);
            }
            source = cause.source();
        }
        failure
    }
}

impl From<crate::image::ImageError> for Failure {
    fn from(error: crate::image::ImageError) -> Self {
        Error::from(error).into()
    }
}

/// Only writing the result to stdout fails with a bare I/O error.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        let code = if super::exit::is_full(&error) { ExitCode::Resources } else { ExitCode::Failed };
        let broken_pipe = error.kind() == std::io::ErrorKind::BrokenPipe;
        Self { broken_pipe, ..Self::new(code, format!("cannot write to standard output: {error}")) }
    }
}
