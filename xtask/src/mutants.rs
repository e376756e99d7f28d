//! `cargo xtask mutants`: the reference implementations, made wrong on purpose, one rule at a time, judged by the
//! conformance suite. Knows neither the mutants nor the cases.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{conformance, process, test, workspace};

/// Make the reference server and client wrong, one rule at a time, and see that the suite catches each
#[derive(clap::Args)]
pub struct Args {
    /// Write the tables to conformance/MUTANTS.md
    #[arg(long)]
    write: bool,
}

/// One of so many shares of the mutants runs with the tests: another one for another commit, and always the same for
/// the same.
const SHARES: u64 = 24;

const HEAD: &str = "# Mutants

The reference server and the reference client, made wrong on purpose, one rule at a time, and the check of the suite
that catches each: `cargo xtask mutants --write` makes this. Each requirement that a mutant breaks has to be cited by a
check that fails, as far as it binds that side; where all of them bind the other side only, each of them. The mutant that
changes nothing must survive. The list stands in [`proto/src/mutant/`](../proto/src/mutant), with those that nothing
outside can show, and why.
";

/// Runs the command: all of them.
pub fn run(args: &Args) -> Result<()> {
    test::programs()?;
    let server = side("server", "0/1")?;
    let client = side("client", "0/1")?;
    if args.write {
        let text = format!("{HEAD}\n## Server\n\n{server}\n## Client\n\n{client}");
        let path = workspace::root().join("conformance/MUTANTS.md");
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// A share of them, with the tests.
pub fn some() -> Result<()> {
    test::programs()?;
    let share = format!("{}/{SHARES}", commit() % SHARES);
    side("server", &share)?;
    side("client", &share)?;
    Ok(())
}

/// The commit's number, as far as it fits; 0 where nothing is under version control.
fn commit() -> u64 {
    let mut git = Command::new("git");
    git.current_dir(workspace::root())
        .args(["rev-parse", "HEAD"]);
    let text = process::output(&mut git).unwrap_or_default();
    let number = text.get(..8).and_then(|t| u64::from_str_radix(t, 16).ok());
    number.unwrap_or_default()
}

/// Runs a share of the mutants of one side, and gives the table.
fn side(name: &str, share: &str) -> Result<String> {
    let adapter = workspace::program("debug", &format!("gosync-adapter-{name}"));
    let table: PathBuf = workspace::target().join(format!("test/mutants-{name}.md"));
    let command = conformance::word(&adapter);
    let shown = table.display().to_string();
    // each runs its cases side by side already: of servers, more would only keep one another waiting; clients wait for
    // the suite's timeouts most of the time
    let jobs = ["--jobs", if name == "client" { "4" } else { "2" }];
    let options = ["--side", name, "--share", share, "--table", &shown];
    process::run(
        conformance::command("mutants")?
            .args(["--exec", &command])
            .args(jobs)
            .args(options),
    )?;
    fs::read_to_string(&table).with_context(|| format!("cannot read {shown}"))
}
