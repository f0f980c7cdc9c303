//! Where a model is.

use crate::cli::events::print;
use crate::cli::exit::ExitCode;
use crate::cli::failure::{Failure, Outcome};
use crate::hub::{Settings, Wanted};

/// Print where a model lies in the cache
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_long_help = EXAMPLES)]
pub(super) struct Path {
    /// Name of `tweedie models list`, or owner/repo[@revision] of the hub
    #[arg(value_name = "NAME")]
    name: String,
}

const EXAMPLES: &str = "\
Examples:
  tweedie models path ddpm-cifar10-32
  tweedie models path google/ncsnpp-ffhq-256@main
  tweedie models convert \"$(tweedie models path adm-ffhq-256)\" ffhq.safetensors";

pub(super) fn run(arguments: &Path) -> Outcome<()> {
    let wanted = wanted(&arguments.name)?;
    let path = wanted.open(&Settings::from_env())?;
    print(format!("{}\n", path.display()).as_bytes())
}

/// What a name stands for that has to be one.
pub(super) fn wanted(name: &str) -> Outcome<Wanted> {
    match Wanted::parse(name) {
        Some(wanted) => Ok(wanted?),
        None => {
            let message = format!("model {name}: is no name of the index and no owner/repo[@revision] of the hub");
            Err(Failure::new(ExitCode::Usage, message).hint("`tweedie models list` shows the names"))
        }
    }
}
