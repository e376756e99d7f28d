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

/// Mutants of the server and of the client that few seeds give away, of every kind: they show that the simulation still notices
/// anything. `simulate --mutants` hunts all.
const SOON: &[&str] = &[
    "ack-before-durable",
    "beaten-writes-stay",
    "damage-served",
    "epoch-ignored",
    "sent-is-accepted",
    "tie-by-arrival",
    "young-tombstones-compacted",
];

/// The seeds that are part of the tests, 5 of each world run twice; some of the worlds that no campaign comes by; then each
/// run of the campaign that failed once, lest what was mended comes back; then mutants that must be noticed.
pub fn test() -> Result<()> {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    simulation(&words("--seeds 2000 --twice 19"))?;
    simulation(&words("--seeds 40 --by-name"))?;
    let campaign = workspace::root().join("conformance/simulation/campaign.json");
    simulation(&["--failed".to_owned(), campaign.display().to_string()])?;
    let mut hunt = words("--seeds 100");
    for name in SOON {
        hunt.extend(["--mutant".to_owned(), (*name).to_owned()]);
    }
    simulation(&hunt)
}

fn simulation(options: &[String]) -> Result<()> {
    let manifest = workspace::root().join("Cargo.toml");
    let mut cargo = workspace::cargo();
    cargo
        .args(["run", "--profile=quick", "--quiet", "--manifest-path"])
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
