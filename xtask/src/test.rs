//! `cargo xtask test`: every test. `.ci/run` asks for formatting, clippy and `cargo xtask check` besides.
//!
//! A table of steps; to add one, add a row. Each gets what it needs from `setup` by itself, so that
//! `--only STEP` works on a fresh machine.

use std::process::Command;

use anyhow::Result;

use crate::setup::{browser, node};
use crate::steps::{self, Step};
use crate::{
    bench, browsers, build_wasm, conformance, demo, examples, mutants, package, process, simulate,
    web_tests, workspace,
};

const STEPS: &[Step] = &[
    Step {
        name: "rust",
        about: "unit and integration tests of all crates",
        run: rust,
    },
    Step {
        name: "simulation",
        about: "client and server converge under every fault, in 2,000 simulated worlds and in those that failed once, and mutants do not",
        run: simulate::test,
    },
    Step {
        name: "healing",
        about: "healing costs what the committed table says, as far as that is soon told",
        run: bench::healing,
    },
    Step {
        name: "wasm",
        about: "the client builds for the browser",
        run: build_wasm::build,
    },
    Step {
        name: "js",
        about: "the npm package on Node, without and with a server",
        run: js,
    },
    Step {
        name: "package",
        about: "the npm package can be packed, and an application compiles against its types",
        run: package::test,
    },
    Step {
        name: "web",
        about: "the client's browser parts in Chromium",
        run: web,
    },
    Step {
        name: "conformance-server",
        about: "the reference server follows the specification",
        run: conformance::server,
    },
    Step {
        name: "conformance-client",
        about: "the native client follows the specification",
        run: conformance::client,
    },
    Step {
        name: "mutants",
        about: "the suite catches reference implementations that are made wrong: a share of them, by the commit",
        run: mutants::some,
    },
    Step {
        name: "conformance-wasm",
        about: "the WASM client, on Node, follows the specification",
        run: conformance::wasm,
    },
    Step {
        name: "conformance-browser",
        about: "the WASM client, in Chromium, follows the specification",
        run: browsers::chromium,
    },
    Step {
        name: "examples",
        about: "the implementations in other languages follow the specification",
        run: examples::run,
    },
    Step {
        name: "browser",
        about: "the demo in Chromium, with real processes",
        run: chromium,
    },
];

/// Run every test: Rust, the WASM client, the npm package, conformance, the demo in a real browser
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

fn cargo() -> Command {
    let mut cargo = workspace::cargo();
    cargo.current_dir(workspace::root());
    cargo
}

fn rust() -> Result<()> {
    process::run(cargo().args(["test", "--workspace", "--no-fail-fast"]))
}

/// Builds every program. Everything, as the `rust` step does: one alone would be built once more, with other features.
pub fn programs() -> Result<()> {
    process::run(cargo().args(["build", "--workspace", "--all-targets"]))
}

fn js() -> Result<()> {
    let node = node::packages(&build_wasm::js())?;
    build_wasm::build()?;
    programs()?;
    let server = workspace::program("debug", "gosync-server");
    process::run(
        node.npm()?
            .current_dir(build_wasm::js())
            .env("GOSYNC_SERVER", server)
            .arg("test"),
    )
}

fn web() -> Result<()> {
    web_tests::run("gosync-client", "web", "contract")
}

/// Tests that drive the page find the browser, the server's program and the page's files by variables, as those of the
/// package find the server's.
fn chromium() -> Result<()> {
    let browser = browser::ensure()?;
    let node = node::packages(&build_wasm::js())?;
    build_wasm::build()?;
    let site = demo::site(&workspace::target().join("test"))?;
    programs()?;
    let server = workspace::program("debug", "gosync-server");
    process::run(
        node.npm()?
            .current_dir(build_wasm::js())
            .envs(browser.env())
            .env("GOSYNC_SERVER", server)
            .env("GOSYNC_SITE", site)
            .args(["run", "test:browser"]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It named a step that was none.
    #[test]
    fn the_readme_names_steps_that_there_are() {
        let readme = std::fs::read_to_string(workspace::root().join("README.md")).unwrap();
        let named: Vec<&str> = (readme.split("--only ").skip(1))
            .filter_map(|rest| rest.split_whitespace().next())
            .collect();
        assert!(!named.is_empty());
        for name in named {
            assert!(STEPS.iter().any(|step| step.name == name), "{name}");
        }
    }
}
