//! What can go wrong, sorted by whose fault it is.

use std::path::PathBuf;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong; the binary maps each kind to an exit code.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A photo or a mask cannot be used.
    #[error(transparent)]
    Image(#[from] crate::image::ImageError),
    /// A batch cannot be done as it was asked for.
    #[error(transparent)]
    Batch(#[from] crate::batch::BatchError),
    /// A setting is outside what is allowed.
    #[error("{name} is {got}, expected {expected}")]
    Config {
        /// The setting as the user knows it.
        name: String,
        /// What was given.
        got: String,
        /// What is allowed.
        expected: String,
    },
    /// A name is in no list.
    #[error("unknown {kind} `{name}`; known: {known}")]
    Unknown {
        /// What was looked for: sampler, operator, model, …
        kind: &'static str,
        /// The name given.
        name: String,
        /// The names there are, separated by commas.
        known: String,
    },
    /// A method needs more than the measurement offers.
    #[error("{method} needs {needs}; these methods would work: {instead}")]
    Unsuitable {
        /// The method that was asked for.
        method: &'static str,
        /// What is missing.
        needs: &'static str,
        /// Methods that need less, separated by commas.
        instead: String,
    },
    /// A model file cannot be used.
    #[error("model {model}: {reason}")]
    Model {
        /// Its path or name.
        model: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// A model file would have to be converted first.
    #[error(
        "model {model}: is a pickle, which can run code, and is not loaded; `{command}` reads it without executing \
         anything and writes a safetensors file"
    )]
    Pickle {
        /// Its path.
        model: String,
        /// The command that converts it.
        command: String,
    },
    /// A device is not there.
    #[error("device {device} is not available: {reason}")]
    Device {
        /// As it was asked for.
        device: String,
        /// What is missing.
        reason: String,
    },
    /// The work does not fit the memory that was allowed.
    #[error("needs {} of memory, {} allowed; {advice}", mebibytes(*needs), mebibytes(*limit))]
    Memory {
        /// Bytes that the smallest plan needs.
        needs: u64,
        /// Bytes that were allowed.
        limit: u64,
        /// The flag that makes it fit.
        advice: String,
    },
    /// The work does not fit the time that was allowed.
    #[error("needs about {needs}, {limit} are left of the time allowed; {advice}")]
    Time {
        /// What the smallest plan needs.
        needs: String,
        /// What is left.
        limit: String,
        /// What makes it fit.
        advice: String,
    },
    /// A number stopped being one.
    #[error("model produced an invalid image: not finite at step {step}, sigma {sigma}")]
    NonFinite {
        /// Index of the step, from 0.
        step: usize,
        /// Noise level of the step.
        sigma: f64,
    },
    /// The program panicked while it worked on one of several photos; the others go on.
    #[error("{photo}: the program failed on this photo ({reason}): that is a bug, please report it")]
    Panicked {
        /// The photo.
        photo: PathBuf,
        /// The panic's message.
        reason: String,
    },
    /// The run was stopped from outside.
    #[error("interrupted")]
    Interrupted,
    /// A file operation failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The folder of fetched models cannot take a file.
    #[error("{path}: cannot be written, {needs} bytes are needed: {source}")]
    Cache {
        /// The file or the folder.
        path: PathBuf,
        /// Size of what was to be written, in bytes.
        needs: u64,
        /// Why.
        source: std::io::Error,
    },
    /// Another process is at work on the same file.
    #[error("{path}: another process has held this lock for {seconds} s; let it finish, or stop it")]
    Locked {
        /// The lock.
        path: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
    /// An operator or a noise model refused.
    #[error(transparent)]
    Operator(#[from] tweedie_operators::Error),
    /// A tensor operation failed: a bug, or a device out of memory.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// Whole mebibytes, of which never too few are named.
fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}
