//! Node and the few npm tools of the project (buf, TypeScript, wasm-opt), pinned in `xtask/node/`.

use std::fs;
use std::path::PathBuf;
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
    runtime()?;
    let dir = workspace::root().join("xtask/node");
    let modules = dir.join("node_modules");
    let wanted = fs::read_to_string(dir.join("package-lock.json"))
        .context("cannot read xtask/node/package-lock.json")?;
    let installed = modules.join(".installed-from");
    if fs::read_to_string(&installed).ok().as_deref() != Some(&wanted) {
        eprintln!("setup: installing buf, TypeScript and wasm-opt into xtask/node/node_modules");
        // Not `npm ci`: it refuses a lock file made where packages for other platforms were not to be had.
        process::run(Command::new("npm").current_dir(&dir).args([
            "install",
            "--no-save",
            "--ignore-scripts",
        ]))?;
        fs::write(&installed, &wanted)?;
    }
    Ok(Node {
        bin: modules.join(".bin"),
    })
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
    fn the_lock_file_pins_exact_versions_and_no_host() {
        let dir = workspace::root().join("xtask/node");
        let lock = fs::read_to_string(dir.join("package-lock.json")).unwrap();
        assert!(
            !lock.contains("\"resolved\""),
            "the lock file must not depend on where it was made"
        );
        let package: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(dir.join("package.json")).unwrap()).unwrap();
        for (name, version) in package["devDependencies"].as_object().unwrap() {
            let version = version.as_str().unwrap();
            assert!(
                version.starts_with(|c: char| c.is_ascii_digit()),
                "{name} is not pinned: {version}"
            );
        }
    }
}
