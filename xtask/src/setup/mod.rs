//! `cargo xtask setup`: the tools that other commands need, each fetched once and only where it is missing.

pub mod browser;
pub mod mdbook;
pub mod node;
pub mod python;
mod system;
pub mod wasm;

use anyhow::Result;
use clap::ValueEnum;

/// Get the tools that building and testing need; quick when they are all there
///
/// Every other command calls this for just what it needs, so that running it by hand is optional.
/// System packages are announced before they are installed (with sudo, unless run as root).
#[derive(clap::Args)]
#[command(after_help = "\
Variables:
  GOSYNC_WASM_TOOLCHAIN  where the WASM target comes from: `rustup`, or `debian` for Debian's packages;
                         unset: the first that works
  GOSYNC_CACHE           folder for what is built once [default: ~/.cache/gosync]
  CHROME, CHROMEDRIVER   browser and driver to test with [default: the installed ones]
  FIREFOX, WEBKIT        further browsers for `browsers` [default: the installed ones]")]
pub struct Args {
    /// What to set up [default: everything]
    #[arg(value_enum)]
    tools: Vec<Tool>,
    /// Print `export` lines for a shell: eval "$(cargo xtask setup wasm --env)"
    #[arg(long)]
    env: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Tool {
    /// The standard library for wasm32-unknown-unknown
    Wasm,
    /// Chromium and its WebDriver
    Browser,
    /// Node (fetched into the cache where the machine has none that is new enough), buf, TypeScript and wasm-opt
    Node,
    /// mdBook, for the specification as a book
    Mdbook,
    /// Python and the packages of the examples
    Python,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let tools = if args.tools.is_empty() {
        Tool::value_variants()
    } else {
        &args.tools
    };
    let mut env = Vec::new();
    for tool in tools {
        match tool {
            Tool::Wasm => {
                let toolchain = wasm::ensure()?;
                eprintln!("wasm: ready ({})", toolchain.describe());
                env.extend(toolchain.env());
            }
            Tool::Browser => {
                let browser = browser::ensure()?;
                eprintln!("browser: ready ({})", browser.describe());
                env.extend(browser.env().map(|(name, path)| (name, path.to_owned())));
            }
            Tool::Node => eprintln!("node: ready ({})", node::ensure()?.describe()),
            Tool::Mdbook => eprintln!("mdbook: ready ({})", mdbook::ensure()?.display()),
            Tool::Python => eprintln!("python: ready ({})", python::ensure()?.describe()),
        }
    }
    if args.env {
        for (name, value) in env {
            println!("export {name}='{}'", value.display());
        }
    }
    Ok(())
}
