//! The command line.
use std::process::ExitCode;

/// Parses the arguments, runs the command, reports.
pub fn run() -> ExitCode {
    ExitCode::SUCCESS
}
