//! Node and npm packages: the project's few npm tools (buf, TypeScript, wasm-opt), pinned in `xtask/node/`, and what
//! the tests of the client's package need.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::system;
use crate::{process, workspace};

const OLDEST: u32 = 20;

/// The installed npm tools.
pub struct Node {
    bin: PathBuf,
}

impl Node {
    /// One of the pinned tools, by the name of its command.
    pub fn tool(&self, name: &str) -> Command {
        Command::new(self.bin.join(name))
    }

    /// The tools, for people.
    pub fn describe(&self) -> String {
        format!("buf, tsc and wasm-opt in {}", self.bin.display())
    }
}

/// Finds Node, or installs it, and installs the pinned tools where they are not those of the lock file.
pub fn ensure() -> Result<Node> {
    let dir = workspace::root().join("xtask/node");
    packages(&dir)?;
    Ok(Node {
        bin: dir.join("node_modules/.bin"),
    })
}

/// Installs what the lock file in `dir` names, unless that is what is installed.
pub fn packages(dir: &Path) -> Result<()> {
    runtime()?;
    let lock = dir.join("package-lock.json");
    let wanted =
        fs::read_to_string(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    let installed = dir.join("node_modules/.installed-from");
    if fs::read_to_string(&installed).ok().as_deref() != Some(&wanted) {
        eprintln!(
            "setup: installing npm packages into {}",
            dir.join("node_modules").display()
        );
        // Not `npm ci`: it refuses a lock file made where packages for other platforms were not to be had.
        process::run(Command::new("npm").current_dir(dir).args([
            "install",
            "--no-save",
            "--ignore-scripts",
        ]))?;
        fs::write(&installed, &wanted)?;
    }
    Ok(())
}

fn runtime() -> Result<()> {
    if present().is_none() && system::has_apt() {
        system::install("testing the npm package", &["nodejs", "npm"])?;
    }
    match present() {
        Some(version) if version >= OLDEST && process::exists("npm") => Ok(()),
        Some(version) if version >= OLDEST => bail!("node is there but npm is not: install npm"),
        Some(version) => bail!(
            "node is version {version}, and {OLDEST} or newer is needed: see https://nodejs.org"
        ),
        None => bail!("node {OLDEST} or newer is needed, with npm: see https://nodejs.org"),
    }
}

fn present() -> Option<u32> {
    major(&process::output(Command::new("node").arg("--version")).ok()?)
}

fn major(said: &str) -> Option<u32> {
    said.strip_prefix('v')?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_of_node_is_read() {
        assert_eq!(major("v20.20.2"), Some(20));
        assert_eq!(major("20.20.2"), None);
        assert_eq!(major("vnext"), None);
    }

    #[test]
    fn lock_files_pin_exact_versions_and_no_host() {
        for dir in [
            "xtask/node",
            "reference-client/js",
            "conformance/examples/typescript",
        ] {
            let dir = workspace::root().join(dir);
            let lock = fs::read_to_string(dir.join("package-lock.json")).unwrap();
            assert!(
                !lock.contains("\"resolved\""),
                "the lock file must not depend on where it was made"
            );
            let package: serde_json::Value =
                serde_json::from_str(&fs::read_to_string(dir.join("package.json")).unwrap())
                    .unwrap();
            for (name, version) in package["devDependencies"].as_object().unwrap() {
                let version = version.as_str().unwrap();
                assert!(
                    version.starts_with(|c: char| c.is_ascii_digit()),
                    "{name} is not pinned: {version}"
                );
            }
        }
    }
}
