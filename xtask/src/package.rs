//! `cargo xtask package`: the npm package of the client, ready for `npm pack` or `npm publish`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::setup::node;
use crate::{build_wasm, files, process, workspace};

/// Build the npm package of the client into target/npm, optimised for size, ready for `npm pack` or `npm publish`
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_: &Args) -> Result<()> {
    let folder = assemble()?;
    println!("{}", folder.display());
    Ok(())
}

/// Builds the package, lets npm pack it without keeping the archive, and compiles an application against its types.
pub fn test() -> Result<()> {
    let folder = assemble()?;
    let application = build_wasm::js().join("test/types");
    let node = node::ensure()?;
    process::run(node.tool("tsc")?.arg("--project").arg(application))?;
    process::run(node.npm()?.current_dir(folder).args(["pack", "--dry-run"]))
}

/// Builds the package and returns its folder.
fn assemble() -> Result<PathBuf> {
    let node = node::ensure()?;
    build_wasm::build()?;
    let source = build_wasm::js();
    let manifest = source.join("package.json");
    let text = fs::read_to_string(&manifest)
        .with_context(|| format!("cannot read {}", manifest.display()))?;
    same_version(&text, env!("CARGO_PKG_VERSION"))?;
    let folder = workspace::target().join("npm");
    files::remove_dir(&folder)?;
    for part in ["dist", "wasm"] {
        files::copy_dir(&source.join(part), &folder.join(part))?;
    }
    copy(&manifest, &folder.join("package.json"))?;
    copy(&source.join("README.md"), &folder.join("README.md"))?;
    copy(&workspace::root().join("LICENSE"), &folder.join("LICENSE"))?;
    // Not --all-features: browsers refuse what it then produces.
    let module = folder
        .join("wasm")
        .join(format!("{}_bg.wasm", build_wasm::NAME));
    process::run(
        node.tool("wasm-opt")?
            .arg("-Oz")
            .arg(&module)
            .arg("-o")
            .arg(&module),
    )?;
    eprintln!(
        "  after wasm-opt: {} KiB",
        fs::metadata(&module)?.len().div_ceil(1024)
    );
    Ok(folder)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// The package and the crates are released together, under one version.
fn same_version(manifest: &str, version: &str) -> Result<()> {
    #[derive(Deserialize)]
    struct Manifest {
        version: String,
    }
    let manifest: Manifest =
        serde_json::from_str(manifest).context("reference-client/js/package.json")?;
    if manifest.version != version {
        bail!(
            "reference-client/js/package.json says version {}, the workspace {version}",
            manifest.version
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_of_another_version_than_the_workspace_is_refused() {
        assert!(same_version(r#"{"name": "x", "version": "0.1.0"}"#, "0.1.0").is_ok());
        assert!(same_version(r#"{"name": "x", "version": "0.2.0"}"#, "0.1.0").is_err());
        assert!(same_version("{}", "0.1.0").is_err());
    }
}
