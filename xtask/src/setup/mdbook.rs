//! mdBook, which makes the specification's book: built once into the project's cache.

use std::env;
use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{process, workspace};

const VERSION: &str = "0.5.4";

/// The program, built first where it is missing.
pub fn ensure() -> Result<PathBuf> {
    let cache = workspace::cache()?;
    let dir = cache.join(format!("mdbook-{VERSION}"));
    let program = dir.join(format!("bin/mdbook{}", env::consts::EXE_SUFFIX));
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    // Two commands that start together build once.
    let lock = File::create(cache.join("mdbook.lock"))?;
    lock.lock()?;
    if !program.exists() {
        eprintln!(
            "setup: building mdBook {VERSION} once (about 3 minutes), into {}",
            dir.display()
        );
        process::run(
            // Elsewhere than in the project, whose settings and lock file are not its own.
            workspace::cargo()
                .current_dir(&cache)
                .args(["install", "mdbook", "--version", VERSION, "--locked"])
                .args(["--no-default-features", "--features", "search", "--root"])
                .arg(&dir),
        )?;
    }
    Ok(program)
}
