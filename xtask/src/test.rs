//! `cargo xtask test`: everything that must hold before a change lands.

use std::process::Command;

use anyhow::Result;

use crate::steps::{self, Step};
use crate::{build_wasm, process, workspace};

const STEPS: &[Step] = &[
    Step {
        name: "rust",
        about: "unit and integration tests of all crates",
        run: rust,
    },
    Step {
        name: "wasm",
        about: "the client builds for the browser",
        run: build_wasm::build,
    },
];

/// Run every test: Rust, the WASM client, browsers
#[derive(clap::Args)]
pub struct Args {
    /// Run this step only; may be given several times
    #[arg(long, value_name = "STEP", value_parser = steps::names(STEPS))]
    only: Vec<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    steps::run(STEPS, &args.only)
}

fn rust() -> Result<()> {
    process::run(
        Command::new(workspace::cargo())
            .current_dir(workspace::root())
            .args(["test", "--quiet", "--workspace"]),
    )
}
