//! What only the browser runs is held to the same standard as the rest, and the rules run there by themselves.

use anyhow::Result;

use crate::setup::wasm;
use crate::{process, workspace};

/// Compiles the rules alone for the browser, and lints the client's browser code and its tests.
pub fn check() -> Result<()> {
    let toolchain = wasm::ensure()?;
    let root = workspace::root();
    process::run(
        workspace::cargo()
            .current_dir(root)
            .envs(toolchain.env())
            .args([
                "check",
                "--package",
                "gosync-proto",
                "--target",
                wasm::TARGET,
            ]),
    )?;
    process::run(
        toolchain
            .clippy()?
            .current_dir(root)
            .args([
                "--package",
                "gosync-client",
                "--lib",
                "--test",
                "web",
                "--features",
                "contract",
                "--target",
                wasm::TARGET,
            ])
            .args(["--", "-D", "warnings"]),
    )
}
