//! Builds the reference client for browsers: compiles it to WASM and generates its JavaScript glue.
//!
//! The glue comes from wasm-bindgen used as a library, of the very version that the client is locked to. The result
//! lies where the npm package expects it, in `reference-client/js/wasm/`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use wasm_bindgen_cli_support::Bindgen;

use crate::setup::wasm;
use crate::{process, workspace};

/// The name of the generated files: `gosync_client.js`, `gosync_client.d.ts`, `gosync_client_bg.wasm`.
pub const NAME: &str = "gosync_client";

/// The folder of the npm package's sources.
pub fn js() -> PathBuf {
    workspace::root().join("reference-client/js")
}

/// Compiles the client and writes WASM, JavaScript and types to `reference-client/js/wasm/`.
pub fn build() -> Result<()> {
    let toolchain = wasm::ensure()?;
    // The client is an ordinary library to everybody else: only here is it linked into one module.
    process::run(
        workspace::cargo()
            .current_dir(workspace::root())
            .envs(toolchain.env())
            .args([
                "rustc",
                "--package",
                "gosync-client",
                "--lib",
                "--crate-type",
                "cdylib",
            ])
            .args(["--profile", "wasm", "--target", wasm::TARGET]),
    )?;
    let module = workspace::target()
        .join(wasm::TARGET)
        .join("wasm")
        .join(NAME)
        .with_extension("wasm");
    let out = js().join("wasm");
    generate(&module, &out)
        .with_context(|| format!("wasm-bindgen cannot process {}", module.display()))?;
    let size = fs::metadata(out.join(format!("{NAME}_bg.wasm")))?.len();
    eprintln!("  {NAME}_bg.wasm: {} KiB", size.div_ceil(1024));
    Ok(())
}

fn generate(module: &Path, out: &Path) -> Result<()> {
    let mut bindgen = Bindgen::new();
    bindgen
        .input_path(module)
        .web(true)?
        .typescript(true)
        .remove_name_section(true)
        .remove_producers_section(true);
    bindgen.generate(out)
}
