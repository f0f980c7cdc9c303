//! `tweedie completions`: a script that teaches a shell the command line.

use super::failure::Outcome;
use clap::CommandFactory;
use clap_complete::Shell;

/// Print a script that completes tweedie's arguments in a shell
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, after_long_help = EXAMPLES)]
pub(crate) struct Completions {
    /// Shell to write the script for
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  tweedie completions bash > ~/.local/share/bash-completion/completions/tweedie
  tweedie completions zsh > ~/.zfunc/_tweedie
  tweedie completions fish > ~/.config/fish/completions/tweedie.fish";

pub(crate) fn run(arguments: &Completions) -> Outcome<()> {
    // Into memory first: the generator panics when its reader has gone, and that is no failure of ours.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut super::CommandLine::command(), "tweedie", &mut script);
    super::events::print(&script)
}
