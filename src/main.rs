//! The `tweedie` command.
use std::process::ExitCode;

fn main() -> ExitCode {
    tweedie::cli::run(&tweedie::Catalog::default())
}
