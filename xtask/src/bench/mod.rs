//! `cargo xtask bench`: measurements, each a program of its own that is built with full optimisation.
//!
//! Only the command line is here: what is measured, and how, is written beside the code that it measures.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::setup::{browser, node};
use crate::{build_wasm, demo, process, workspace};

/// Measure: reconciliation beside the `negentropy` crate, first syncs beside raw SQLite, the browser's store beside
/// raw IndexedDB
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(clap::Subcommand)]
enum Bench {
    /// Bytes, round trips and CPU of reconciliation, beside the `negentropy` crate on the same records; `-- --check`
    /// fails where a goal is missed
    Reconcile(Options),
    /// First pull and first push of 100,000 records between a native client and the server, beside raw SQLite
    Sync(Options),
    /// Writes of 10,000 records by the WASM client in Chromium, beside raw IndexedDB
    Browser(Output),
    /// Round trips, bytes and records moved when damage to some of 100,000 records is healed; `-- --write` renews
    /// the table
    Heal(Options),
}

#[derive(clap::Args)]
struct Output {
    /// Also write the results to FILE, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Output {
    /// Hands the wish on, with a path that holds in every folder.
    fn pass(&self, command: &mut Command) -> Result<()> {
        if let Some(file) = &self.json {
            let file = std::path::absolute(file)
                .with_context(|| format!("cannot use {}", file.display()))?;
            command.arg("--json").arg(file);
        }
        Ok(())
    }
}

#[derive(clap::Args)]
struct Options {
    #[command(flatten)]
    output: Output,
    /// Options of the benchmark itself, after `--`; `-- --help` lists them
    #[arg(last = true, value_name = "OPTION")]
    rest: Vec<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    match &args.bench {
        Bench::Reconcile(options) => {
            program("gosync-proto", "--example", "bench_reconcile", options)
        }
        Bench::Sync(options) => program("gosync-simulation", "--example", "bench_sync", options),
        Bench::Browser(output) => in_browser(output),
        Bench::Heal(options) => heal(options),
    }
}

/// Few rows of the table of what healing costs, beside those that were committed.
pub fn healing() -> Result<()> {
    let options = Options {
        output: Output { json: None },
        rest: vec!["--check".to_owned()],
    };
    heal(&options)
}

/// Counts, and measures no time: with what the simulation is compiled with.
fn heal(options: &Options) -> Result<()> {
    in_profile("quick", "gosync-simulation", "--bin", "healing", options)
}

/// Builds a program or an example of a crate with full optimisation and runs it from the folder that the user is in.
fn program(package: &str, kind: &str, name: &str, options: &Options) -> Result<()> {
    in_profile("release", package, kind, name, options)
}

fn in_profile(
    profile: &str,
    package: &str,
    kind: &str,
    name: &str,
    options: &Options,
) -> Result<()> {
    let manifest = workspace::root().join("Cargo.toml");
    let mut cargo = workspace::cargo();
    cargo
        .args(["run", "--profile", profile, "--manifest-path"])
        .arg(manifest);
    cargo.args(["--package", package, kind, name, "--"]);
    options.output.pass(&mut cargo)?;
    process::run(cargo.args(&options.rest))
}

/// Puts the page together and lets Node drive it in the browser.
fn in_browser(output: &Output) -> Result<()> {
    let browser = browser::ensure()?;
    let node = node::packages(&build_wasm::js())?;
    build_wasm::build()?;
    let site = demo::site(&workspace::target().join("bench"))?;
    let mut command = node.node()?;
    command
        .current_dir(build_wasm::js())
        .envs(browser.env())
        .env("GOSYNC_SITE", site)
        .arg("bench/bulk.js");
    output.pass(&mut command)?;
    process::run(&mut command)
}
