//! `cargo xtask generate`: everything that is generated and checked in, made anew from its source.
//!
//! Each crate guards its generated Rust with a test named `generated`, which rewrites the files when
//! `GOSYNC_GENERATE` is set; a test named `spec` does so for the specification, whose blocks come from the schema
//! and the rules, its vectors from the suite's oracle; the TypeScript surface of the client is compiled by tsc.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::setup::{node, python};
use crate::{build_wasm, files, process, workspace};

/// Regenerate the checked-in generated files from their sources, after a change of the schema, the rules or the
/// TypeScript
///
/// `cargo xtask check` fails where one of them is out of date.
#[derive(clap::Args)]
pub struct Args {
    /// What to regenerate [default: everything]
    #[arg(value_enum)]
    only: Vec<Part>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The Rust code of the schemas
    Rust,
    /// The tables, excerpts, worked bytes and vectors of the specification
    Spec,
    /// The JavaScript of the client's TypeScript surface
    Js,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let wanted = |part| args.only.is_empty() || args.only.contains(&part);
    if wanted(Part::Rust) {
        tests("generated", true)?;
    }
    if wanted(Part::Spec) {
        tests("spec", true)?;
    }
    if wanted(Part::Js) {
        let dist = build_wasm::js().join("dist");
        let fresh = typescript()?;
        files::remove_dir(&dist)?;
        files::copy_dir(&fresh, &dist)?;
    }
    Ok(())
}

/// Fails where a generated file that is checked in is not what its source generates now.
pub fn check() -> Result<()> {
    tests("generated", false)?;
    let stale = differences(&build_wasm::js().join("dist"), &typescript()?)?;
    if !stale.is_empty() {
        bail!(
            "out of date in reference-client/js/dist: {}; run `cargo xtask generate`",
            stale.join(", ")
        );
    }
    Ok(())
}

/// Fails where a block or a vector of the specification is out of date, or a requirement has not the agreed form.
pub fn check_spec() -> Result<()> {
    tests("spec", false)
}

/// Fails where a vector is not what the rules give in a second language, which shares no code with the oracle.
pub fn check_vectors() -> Result<()> {
    let script = workspace::root().join("spec/vectors/regenerate.py");
    process::run(python::bare()?.arg(script).arg("--check"))
}

/// Runs the tests of this name, of all crates; they rewrite what they guard when they are asked to.
///
/// With the features that they have in all tests: a crate alone would have others, and be built for this once more.
fn tests(name: &str, rewrite: bool) -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo
        .current_dir(workspace::root())
        .args(["test", "--quiet", "--workspace", "--test", name]);
    if rewrite {
        cargo.env("GOSYNC_GENERATE", "1");
    }
    process::run(&mut cargo)
}

/// Compiles the TypeScript surface into a folder of its own and returns that.
fn typescript() -> Result<PathBuf> {
    let node = node::ensure()?;
    // The surface is typed against the glue that wasm-bindgen generates.
    build_wasm::build()?;
    let out = workspace::target().join("js-dist");
    files::remove_dir(&out)?;
    process::run(
        node.tool("tsc")?
            .arg("--project")
            .arg(build_wasm::js())
            .arg("--outDir")
            .arg(&out),
    )?;
    Ok(out)
}

/// The files that differ, with what is wrong with each.
fn differences(kept: &Path, fresh: &Path) -> Result<Vec<String>> {
    let (old, new) = (files::walk(kept)?, files::walk(fresh)?);
    let mut all: Vec<&PathBuf> = old.iter().chain(&new).collect();
    all.sort();
    all.dedup();
    let mut found = Vec::new();
    for file in all {
        let wrong = match (old.contains(file), new.contains(file)) {
            (true, false) => "no longer generated",
            (false, true) => "missing",
            _ if read(kept, file)? != read(fresh, file)? => "changed",
            _ => continue,
        };
        found.push(format!("{} ({wrong})", file.display()));
    }
    Ok(found)
}

fn read(dir: &Path, file: &Path) -> Result<Vec<u8>> {
    let path = dir.join(file);
    fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_stale_file_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let (kept, fresh) = (temp.path().join("kept"), temp.path().join("fresh"));
        fs::create_dir_all(&kept).unwrap();
        fs::create_dir_all(fresh.join("deep")).unwrap();
        for (dir, file, text) in [
            (&kept, "same.js", "1"),
            (&fresh, "same.js", "1"),
            (&kept, "edited.js", "1"),
            (&fresh, "edited.js", "2"),
            (&kept, "removed.js", "1"),
            (&fresh, "deep/new.js", "1"),
        ] {
            fs::write(dir.join(file), text).unwrap();
        }
        assert_eq!(
            differences(&kept, &fresh).unwrap(),
            [
                "deep/new.js (missing)",
                "edited.js (changed)",
                "removed.js (no longer generated)"
            ]
        );
    }
}
