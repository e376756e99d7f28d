//! `cargo xtask simulate`: the simulation, built with full optimisation.
//!
//! Only the command line is here: worlds, oracles and options are beside the code in `conformance/simulation/`.

use std::process::Command;

use anyhow::Result;

use crate::{process, workspace};

/// Simulate client and server under every fault, in virtual time: `--seeds N`, `--from S`, `--world NAME`, `--list`
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    /// Options of the simulation; `--help` lists them
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "OPTION"
    )]
    rest: Vec<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    simulation(&args.rest)
}

/// The seeds that are part of the tests.
pub fn test() -> Result<()> {
    simulation(&["--seeds".to_owned(), "2000".to_owned()])
}

fn simulation(options: &[String]) -> Result<()> {
    let manifest = workspace::root().join("Cargo.toml");
    let mut cargo = Command::new(workspace::cargo());
    cargo
        .args(["run", "--release", "--quiet", "--manifest-path"])
        .arg(manifest);
    cargo.args(["--package", "gosync-simulation", "--"]);
    cargo.args(options);
    if options.iter().any(|o| o.starts_with("--campaign")) {
        cargo.args(["--build", &commit()?]);
    }
    process::run(&mut cargo)
}

/// The commit of the working copy, and whether it has changes.
fn commit() -> Result<String> {
    let mut git = Command::new("git");
    git.current_dir(workspace::root());
    process::output(git.args(["describe", "--always", "--dirty", "--exclude", "*"]))
}
