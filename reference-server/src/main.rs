//! The `gosync-server` program. Knows only the library that it starts.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    gosync_server::commands::run(gosync_server::cli::Cli::parse().command)
}
