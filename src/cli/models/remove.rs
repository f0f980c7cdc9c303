//! Taking a model out of the cache.

use super::path::wanted;
use crate::cli::exit::ExitCode;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::terminal::{Console, bytes, count};
use crate::hub::{Cache, Removed, Settings};

/// Take a model out of the cache
///
/// The cache is shared with other programs: of a repository that is named as owner/repo everything goes, of a name only the
/// files that make that model.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_long_help = EXAMPLES)]
pub(super) struct Remove {
    /// Name of `tweedie models list`, or owner/repo[@revision] of the hub
    #[arg(value_name = "NAME")]
    name: String,
}

const EXAMPLES: &str = "\
Examples:
  tweedie models remove ddpm-cifar10-32
  tweedie models remove google/ncsnpp-ffhq-256
  tweedie models remove google/ncsnpp-ffhq-256@0123456789abcdef0123456789abcdef01234567";

pub(super) fn run(arguments: &Remove, console: Console) -> Outcome<()> {
    let wanted = wanted(&arguments.name)?;
    let cache = Cache::new(Settings::from_env().cache);
    let absent = || {
        let message = format!("model {}: is not in the cache {}", wanted.name, cache.root().display());
        Failure::new(ExitCode::NothingMatched, message)
    };
    let commit = match wanted.is_pinned() {
        true => Some(cache.commit(&wanted.repository).ok_or_else(absent)?),
        false => None,
    };
    let files = wanted.entry.map(|entry| entry.files.as_slice()).filter(|files| !files.is_empty());
    let Removed { files, bytes: size } = cache.remove(&wanted.repository, commit.as_deref(), files)?;
    // What was never fetched to its end has no files yet and takes room all the same.
    if files == 0 && size == 0 {
        return Err(absent());
    }
    console.note(&format!("{}: removed {}, {}", wanted.name, count(files, "file"), bytes(size)));
    Ok(())
}
