//! Python with the packages that the examples name, in a virtual environment in the project's cache: nothing is
//! installed into the machine's own Python.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::system;
use crate::{files, process, workspace};

const REQUIREMENTS: &str = "conformance/examples/python/requirements.txt";
const CHECKING: &str = "checking the vectors and running the examples in Python";
const OLDEST: (u32, u32) = (3, 10);

/// An interpreter that finds the packages.
pub struct Python {
    interpreter: PathBuf,
}

impl Python {
    /// The interpreter's path.
    pub fn interpreter(&self) -> &Path {
        &self.interpreter
    }

    /// The interpreter, for people.
    pub fn describe(&self) -> String {
        self.interpreter.display().to_string()
    }
}

/// The machine's own interpreter, for scripts that need the standard library only.
pub fn bare() -> Result<Command> {
    runtime(CHECKING)?;
    Ok(Command::new("python3"))
}

/// Finds the environment of these requirements, or makes it.
pub fn ensure() -> Result<Python> {
    let version = runtime(CHECKING)?;
    let requirements = workspace::root().join(REQUIREMENTS);
    let wanted = fs::read_to_string(&requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    let cache = workspace::cache()?;
    let dir = cache.join(folder(&version, &wanted));
    let python = Python {
        interpreter: dir.join("bin/python"),
    };
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    // Two commands that start together install once.
    let lock = File::create(cache.join("python.lock"))?;
    lock.lock()?;
    let done = dir.join(".installed");
    if !done.exists() {
        eprintln!("setup: installing Python packages into {}", dir.display());
        files::remove_dir(&dir)?;
        make(&dir, "running the examples in Python")?;
        process::run(
            Command::new(&python.interpreter)
                .args(["-m", "pip", "install", "--quiet", "--requirement"])
                .arg(&requirements),
        )?;
        fs::write(&done, wanted)?;
    }
    Ok(python)
}

/// One folder for each interpreter and list of packages, so that work trees with other lists do not disturb each other.
fn folder(version: &str, requirements: &str) -> String {
    let mut hasher = DefaultHasher::new();
    requirements.hash(&mut hasher);
    format!("python-{version}-{:016x}", hasher.finish())
}

/// Makes an empty environment, which has pip, and returns its interpreter.
pub(super) fn environment(dir: &Path, what_for: &str) -> Result<PathBuf> {
    runtime(what_for)?;
    make(dir, what_for)?;
    Ok(dir.join("bin/python"))
}

/// Debian leaves a part of `venv` to a package of its own.
fn make(dir: &Path, what_for: &str) -> Result<()> {
    let venv = || process::output(Command::new("python3").args(["-m", "venv"]).arg(dir));
    if venv().is_ok() {
        return Ok(());
    }
    if system::has_apt() {
        system::install(what_for, &["python3-venv"])?;
    }
    files::remove_dir(dir)?;
    venv().map(|_| ())
}

fn runtime(what_for: &str) -> Result<String> {
    if !process::exists("python3") && system::has_apt() {
        system::install(what_for, &["python3", "python3-venv"])?;
    }
    let said = process::output(Command::new("python3").arg("--version")).unwrap_or_default();
    match said.strip_prefix("Python ") {
        Some(version) if parts(version) >= Some(OLDEST) => Ok(version.trim().to_owned()),
        _ => bail!(
            "python3 of version {}.{} or newer is needed: see https://python.org",
            OLDEST.0,
            OLDEST.1
        ),
    }
}

fn parts(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.trim().split('.').map(|part| part.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_number_by_number() {
        assert!(parts("3.9.18") < Some(OLDEST));
        assert!(parts("3.11.7") >= Some(OLDEST));
        assert_eq!(parts("three"), None);
    }

    #[test]
    fn another_list_of_packages_has_another_folder() {
        assert_eq!(folder("3.11.7", "a==1\n"), folder("3.11.7", "a==1\n"));
        assert_ne!(folder("3.11.7", "a==1\n"), folder("3.11.7", "a==2\n"));
    }

    #[test]
    fn every_package_is_pinned() {
        let text = fs::read_to_string(workspace::root().join(REQUIREMENTS)).unwrap();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            assert!(line.contains("=="), "{line} is not pinned");
        }
    }
}
