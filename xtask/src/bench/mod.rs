//! `cargo xtask bench`: measurements, each a program of its own that is built with full optimisation.
//!
//! Only the command line is here: what is measured, and how, is written beside the code that it measures.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{process, workspace};

/// Measure: reconciliation beside the `negentropy` crate, first syncs beside raw SQLite
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(clap::Subcommand)]
enum Bench {
    /// Bytes, round trips and CPU of reconciliation, beside the `negentropy` crate on the same records
    Reconcile(Options),
    /// First pull and first push of 100,000 records between a native client and the server, beside raw SQLite
    Sync(Options),
}

#[derive(clap::Args)]
struct Options {
    /// Also write the results to FILE, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Options of the benchmark itself, after `--`; `-- --help` lists them
    #[arg(last = true, value_name = "OPTION")]
    rest: Vec<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    match &args.bench {
        Bench::Reconcile(options) => example("gosync-proto", "bench_reconcile", options),
        Bench::Sync(options) => example("gosync-simulation", "bench_sync", options),
    }
}

/// Builds an example of a crate with full optimisation and runs it from the folder that the user is in.
fn example(package: &str, name: &str, options: &Options) -> Result<()> {
    let manifest = workspace::root().join("Cargo.toml");
    let mut cargo = Command::new(workspace::cargo());
    cargo
        .args(["run", "--release", "--manifest-path"])
        .arg(manifest);
    cargo.args(["--package", package, "--example", name, "--"]);
    if let Some(file) = &options.json {
        let file =
            std::path::absolute(file).with_context(|| format!("cannot use {}", file.display()))?;
        cargo.arg("--json").arg(file);
    }
    process::run(cargo.args(&options.rest))
}
