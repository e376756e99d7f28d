//! The conformance suite, pointed at the reference implementations.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::setup::node;
use crate::{build_wasm, files, process, test, workspace};

/// Judges the reference server.
pub fn server() -> Result<()> {
    test::programs()?;
    let adapter = workspace::program("debug", "gosync-adapter-server");
    suite("server", &["--exec", &word(&adapter)], &["--strict"])
}

/// Judges the reference client as a native program.
pub fn client() -> Result<()> {
    test::programs()?;
    let adapter = workspace::program("debug", "gosync-adapter-client");
    suite("client", &["--exec", &word(&adapter)], &["--strict"])
}

/// Judges the reference client as the npm package has it, on Node.
pub fn wasm() -> Result<()> {
    let node = node::packages(&build_wasm::js())?;
    build_wasm::build()?;
    test::programs()?;
    let driver = workspace::root().join("conformance/adapters/wasm/driver.mjs");
    let command = [node.program().as_path(), driver.as_path()]
        .map(word)
        .join(" ");
    suite(
        "client",
        &["--exec", &command],
        &["--format", "json", "--strict"],
    )
}

/// A command of the suite, in an empty folder: that is where drivers keep their stores.
pub fn command(mode: &str) -> Result<Command> {
    let dir = workspace::target().join("test/conformance");
    files::remove_dir(&dir)?;
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let mut suite = Command::new(workspace::program("debug", "gosync-conformance"));
    suite.current_dir(dir).arg(mode);
    Ok(suite)
}

/// Runs the suite.
pub fn suite(mode: &str, target: &[&str], options: &[&str]) -> Result<()> {
    process::run(command(mode)?.arg("--quiet").args(target).args(options))
}

/// A path as one word of the suite's command lines.
pub fn word(path: &Path) -> String {
    format!("'{}'", path.display())
}
