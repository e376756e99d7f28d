//! `cargo xtask setup`: the tools that other commands need, each fetched once and only where it is missing.

mod system;
pub mod wasm;

use anyhow::Result;
use clap::ValueEnum;

/// Get the tools that building and testing needs; quick when they are all there.
///
/// Every other command calls this for just what it needs, so that running it by hand is optional.
/// System packages are announced before they are installed (with sudo, unless run as root).
#[derive(clap::Args)]
pub struct Args {
    /// What to set up [default: everything]
    #[arg(value_enum)]
    tools: Vec<Tool>,
    /// Print `export` lines that make the WASM target available to a shell: eval "$(cargo xtask setup wasm --env)"
    #[arg(long)]
    env: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tool {
    /// The standard library for wasm32-unknown-unknown
    Wasm,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let wanted = |tool| args.tools.is_empty() || args.tools.contains(&tool);
    if wanted(Tool::Wasm) {
        let toolchain = wasm::ensure()?;
        eprintln!("wasm: ready ({})", toolchain.describe());
        if args.env {
            for (name, value) in toolchain.env() {
                println!("export {name}='{}'", value.display());
            }
        }
    }
    Ok(())
}
