//! What can go wrong, sorted by whose fault it is.

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor has another shape than the one that is needed.
    #[error("{what} has shape {got:?}, expected {expected}")]
    Shape {
        /// The tensor, with the operator it was given to.
        what: String,
        /// The shape it has.
        got: Vec<usize>,
        /// The shape it should have; `_` stands for any number.
        expected: String,
    },
    /// A setting is unknown, missing or outside what is allowed.
    #[error("{name}: {reason}")]
    Config {
        /// The entry or the type that refused.
        name: String,
        /// The setting, what was given and what is allowed.
        reason: String,
    },
    /// A name is in no list.
    #[error("unknown name `{name}`; known: {known}")]
    Unknown {
        /// The name given.
        name: String,
        /// The names there are, separated by commas.
        known: String,
    },
    /// A method needs more of the operator or of the noise than it offers.
    #[error("{method} needs {needs}")]
    Unsupported {
        /// The method that was asked for.
        method: &'static str,
        /// What is missing.
        needs: &'static str,
    },
    /// The result of a function does not depend on its argument in a way that candle can differentiate.
    #[error("no gradient reaches the input: an operation on the way has no derivative")]
    NoGradient,
    /// A number stopped being one.
    #[error("{what} is not finite")]
    NonFinite {
        /// The quantity, with the place where it was computed.
        what: String,
    },
    /// An iteration ended without reaching its tolerance.
    #[error(
        "{method} stopped after {iterations} iterations with a relative residual of {residual:e}, above {tolerance:e}"
    )]
    NotConverged {
        /// The iteration.
        method: &'static str,
        /// Iterations done.
        iterations: usize,
        /// Largest relative residual of a row.
        residual: f64,
        /// The tolerance that was asked for.
        tolerance: f64,
    },
    /// An operator, a noise model or a pullback from outside this crate failed.
    #[error(transparent)]
    External(Box<dyn std::error::Error + Send + Sync>),
    /// A tensor operation failed: a bug, or a device out of memory.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    /// A [`Config`](Self::Config) error; the registry puts the entry's name in the place of `name`.
    pub fn config(name: &str, reason: impl Into<String>) -> Self {
        Self::Config { name: name.into(), reason: reason.into() }
    }
}

impl From<toml::de::Error> for Error {
    fn from(error: toml::de::Error) -> Self {
        let lines: Vec<_> = error.to_string().lines().map(str::to_owned).collect();
        Self::config("configuration", lines.join(" "))
    }
}
