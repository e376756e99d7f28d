//! The standard library for `wasm32-unknown-unknown`, from wherever this machine can get it.
//!
//! In this order: the toolchain has it; an earlier run built it; Debian's packages, where
//! `GOSYNC_WASM_TOOLCHAIN=debian` says so or there is no rustup; `rustup target add`, and Debian's packages
//! again where rustup cannot fetch it.
//!
//! Debian ships the sources of the standard library rather than a build for this target. It is built once,
//! offline, into a private sysroot in the user's cache, beside `rustc` and `rustdoc` wrappers that use it:
//! an ordinary `cargo build --target wasm32-unknown-unknown` with `RUSTC` set to the wrapper then works.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::system;
use crate::{files, process, workspace};

/// The target's name.
pub const TARGET: &str = "wasm32-unknown-unknown";

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CLIPPY: &str = "/usr/bin/cargo-clippy";
const DEBIAN_LIBRARY: &str = "/usr/lib/rustlib/src/rust/library";
const DEBIAN_LLD: &str = "/usr/bin/rust-lld";
const RUSTUP_LIMIT: Duration = Duration::from_secs(180);

/// A Rust compiler that can build for the WASM target.
pub struct Toolchain {
    /// The folder of the wrappers; none where the default compiler suffices.
    wrappers: Option<PathBuf>,
}

impl Toolchain {
    /// The variables that make cargo use this toolchain; none where the default one suffices.
    pub fn env(&self) -> Vec<(&'static str, PathBuf)> {
        match &self.wrappers {
            Some(dir) => vec![
                ("RUSTC", dir.join("rustc")),
                ("RUSTDOC", dir.join("rustdoc")),
            ],
            None => Vec::new(),
        }
    }

    /// Clippy for this toolchain; on Debian's it is installed first where it is missing.
    pub fn clippy(&self) -> Result<Command> {
        let Some(wrappers) = &self.wrappers else {
            let mut clippy = workspace::cargo();
            clippy.arg("clippy");
            return Ok(clippy);
        };
        if !Path::new(DEBIAN_CLIPPY).exists() {
            system::install("linting WebAssembly", &["rust-web-clippy"])?;
        }
        let mut clippy = Command::new(DEBIAN_CLIPPY);
        // It has a compiler inside and takes no notice of the wrapper.
        clippy
            .arg("clippy")
            .envs(self.env())
            .env("SYSROOT", wrappers.join(".."));
        Ok(clippy)
    }

    /// Where the standard library comes from, for people.
    pub fn describe(&self) -> String {
        match &self.wrappers {
            Some(dir) => format!(
                "{TARGET} from Debian's sources, RUSTC={}",
                dir.join("rustc").display()
            ),
            None => format!("{TARGET} of the default toolchain"),
        }
    }
}

/// Finds, fetches or builds what the WASM target needs.
pub fn ensure() -> Result<Toolchain> {
    let route = Route::chosen(env::var("GOSYNC_WASM_TOOLCHAIN").ok().as_deref())?;
    let default = env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
    if has_std(&default) {
        return Ok(Toolchain { wrappers: None });
    }
    if route != Route::Rustup
        && let Some(toolchain) = cached()?
    {
        return Ok(toolchain);
    }
    let rustup = route != Route::Debian && process::exists("rustup");
    if rustup {
        eprintln!("setup: adding the {TARGET} target with rustup");
        let added = process::run_within(
            Command::new("rustup").args(["target", "add", TARGET]),
            RUSTUP_LIMIT,
        )?;
        if added && has_std(&default) {
            return Ok(Toolchain { wrappers: None });
        }
        eprintln!("setup: rustup could not add it");
    }
    if route == Route::Rustup || !system::has_apt() {
        bail!(
            "the Rust target {TARGET} is missing: run `rustup target add {TARGET}` \
             (https://rustup.rs), then this command again"
        );
    }
    debian()
}

/// Which way the user chose with `GOSYNC_WASM_TOOLCHAIN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Any,
    Debian,
    Rustup,
}

impl Route {
    fn chosen(variable: Option<&str>) -> Result<Self> {
        match variable {
            None | Some("") => Ok(Self::Any),
            Some("debian") => Ok(Self::Debian),
            Some("rustup") => Ok(Self::Rustup),
            Some(other) => {
                bail!("GOSYNC_WASM_TOOLCHAIN is `{other}`: it must be `debian`, `rustup` or unset")
            }
        }
    }
}

/// Whether `rustc` finds a standard library for the target.
fn has_std(rustc: &Path) -> bool {
    let asked =
        process::output(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]));
    let Ok(entries) = asked.and_then(|dir| Ok(fs::read_dir(dir)?)) else {
        return false;
    };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libstd-") && name.ends_with(".rlib")
    })
}

/// What an earlier run built, if it was built by the compiler that is installed now.
fn cached() -> Result<Option<Toolchain>> {
    let Ok(identity) = identity() else {
        return Ok(None);
    };
    let sysroot = sysroot(&identity)?;
    Ok(usable(&sysroot, &identity).then(|| Toolchain {
        wrappers: Some(sysroot.join("bin")),
    }))
}

fn usable(sysroot: &Path, identity: &str) -> bool {
    fs::read_to_string(complete(sysroot)).is_ok_and(|built_by| built_by == identity)
        && has_std(&sysroot.join("bin/rustc"))
}

/// Names the compiler that built a sysroot: libraries fit exactly one compiler.
fn complete(sysroot: &Path) -> PathBuf {
    sysroot.join("built-by")
}

fn identity() -> Result<String> {
    process::output(Command::new(DEBIAN_RUSTC).arg("-vV"))
}

fn field<'a>(identity: &'a str, name: &str) -> Result<&'a str> {
    identity
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .with_context(|| format!("`{DEBIAN_RUSTC} -vV` names no {name}"))
}

fn sysroot(identity: &str) -> Result<PathBuf> {
    let name = format!(
        "wasm-sysroot-{}-{}",
        field(identity, "release")?,
        field(identity, "host")?
    );
    Ok(workspace::cache()?.join(name))
}

/// Installs Debian's compiler and sources and builds the standard library from them.
fn debian() -> Result<Toolchain> {
    let present = || {
        Path::new(DEBIAN_RUSTC).exists()
            && Path::new(DEBIAN_LIBRARY).join("std/Cargo.toml").exists()
            && Path::new(DEBIAN_LLD).exists()
    };
    if !present() {
        let packages = ["rustc-web", "cargo-web", "rust-web-src", "rust-web-llvm"];
        system::install("building Rust for WebAssembly", &packages)?;
    }
    if !present() {
        // The linker is a link into the package lld-NN of the LLVM in use, which nothing depends on.
        let lld = fs::read_link(DEBIAN_LLD).with_context(|| format!("{DEBIAN_LLD} is missing"))?;
        let lld = lld
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
            .to_owned();
        system::install("linking WebAssembly", &[&lld])?;
    }
    let identity = identity()?;
    let oldest = env!("CARGO_PKG_RUST_VERSION");
    let release = field(&identity, "release")?;
    if older(release, oldest) {
        bail!(
            "Debian's rustc-web is {release} and GoSync needs {oldest}: run `rustup target add {TARGET}` instead"
        );
    }
    let sysroot = sysroot(&identity)?;
    let cache = workspace::cache()?;
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    // Two commands that start together build once.
    let lock = File::create(cache.join("wasm-sysroot.lock"))?;
    lock.lock()?;
    if !usable(&sysroot, &identity) {
        build(&sysroot, &identity)?;
    }
    Ok(Toolchain {
        wrappers: Some(sysroot.join("bin")),
    })
}

/// Whether version `a` comes before version `b`, comparing numbers part by part.
fn older(a: &str, b: &str) -> bool {
    let parts = |text: &str| -> Vec<u64> {
        let digits = text.split(|c: char| !c.is_ascii_digit());
        let mut parts: Vec<u64> = digits.map_while(|part| part.parse().ok()).collect();
        parts.resize(3, 0);
        parts
    };
    parts(a) < parts(b)
}

fn build(sysroot: &Path, identity: &str) -> Result<()> {
    eprintln!(
        "setup: building the standard library for {TARGET} once (2 to 3 minutes), into {}",
        sysroot.display()
    );
    let work = workspace::cache()?.join("wasm-sysroot.new");
    files::remove_dir(&work)?;
    files::remove_dir(sysroot)?;
    let stub = work.join("stub");
    fs::create_dir_all(stub.join("src"))?;
    fs::write(stub.join("src/lib.rs"), "")?;
    fs::write(
        stub.join("Cargo.toml"),
        "[package]\nname = \"stub\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[workspace]\n\
         [profile.release]\ncodegen-units = 1\n",
    )?;
    // A clean environment: no flags, wrapper or configuration of the caller reaches this build.
    // The bitcode lets a client that is built with link-time optimisation use these libraries.
    let mut cargo = Command::new("/usr/bin/cargo");
    cargo
        .current_dir(&stub)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", &work)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC", DEBIAN_RUSTC)
        .env("RUSTFLAGS", "-Cembed-bitcode=yes")
        .args([
            "build",
            "--quiet",
            "--release",
            "--offline",
            "--target",
            TARGET,
        ])
        .arg("--target-dir")
        .arg(work.join("target"))
        .arg("-Zbuild-std=std,panic_abort,test")
        .args(["--config", "source.crates-io.replace-with=\"vendored\""])
        .arg("--config")
        .arg(format!(
            "source.vendored.directory=\"{DEBIAN_LIBRARY}/vendor\""
        ));
    process::run(&mut cargo).context("the standard library did not build")?;
    assemble(&work, identity)?;
    // Whoever finds the final folder finds it whole.
    let done = work.join("sysroot");
    fs::write(complete(&done), identity)?;
    write_wrappers(&done, sysroot)?;
    fs::rename(&done, sysroot)
        .with_context(|| format!("cannot move the result to {}", sysroot.display()))?;
    files::remove_dir(&work)?;
    if !usable(sysroot, identity) {
        bail!(
            "the standard library was built into {} but {TARGET} is not usable with it",
            sysroot.display()
        );
    }
    Ok(())
}

/// Gathers the libraries of a finished build in the layout that the compiler expects.
fn assemble(work: &Path, identity: &str) -> Result<()> {
    let rustlib = work.join("sysroot/lib/rustlib");
    let lib = rustlib.join(TARGET).join("lib");
    fs::create_dir_all(&lib)?;
    let deps = work.join("target").join(TARGET).join("release/deps");
    for entry in fs::read_dir(&deps).with_context(|| format!("cannot read {}", deps.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".rlib") && !name.starts_with("libstub-") {
            fs::copy(entry.path(), lib.join(name))?;
        }
    }
    // Build scripts and procedural macros run on the host, with the host's own libraries.
    let host = field(identity, "host")?;
    symlink(
        &Path::new("/usr/lib/rustlib").join(host),
        &rustlib.join(host),
    )
}

fn write_wrappers(into: &Path, sysroot: &Path) -> Result<()> {
    fs::create_dir_all(into.join("bin"))?;
    for tool in ["rustc", "rustdoc"] {
        let wrapper = into.join("bin").join(tool);
        let script = format!(
            "#!/bin/sh\nexec /usr/bin/{tool} --sysroot \"{}\" \"$@\"\n",
            sysroot.display()
        );
        fs::write(&wrapper, script)?;
        executable(&wrapper)?;
    }
    Ok(())
}

#[cfg(unix)]
fn symlink(to: &Path, at: &Path) -> Result<()> {
    std::os::unix::fs::symlink(to, at).with_context(|| format!("cannot link {}", at.display()))
}

#[cfg(unix)]
fn executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(
        path,
        fs::Permissions::from_mode(0o755),
    )?)
}

#[cfg(not(unix))]
fn symlink(_: &Path, at: &Path) -> Result<()> {
    bail!(
        "cannot link {}: Debian's packages need a Unix",
        at.display()
    )
}

#[cfg(not(unix))]
fn executable(_: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: &str = "rustc 1.96.0 (built from a source tarball)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\nrelease: 1.96.0";

    #[test]
    fn the_route_is_open_unless_the_variable_says_otherwise() {
        assert_eq!(Route::chosen(None).unwrap(), Route::Any);
        assert_eq!(Route::chosen(Some("")).unwrap(), Route::Any);
        assert_eq!(Route::chosen(Some("debian")).unwrap(), Route::Debian);
        assert_eq!(Route::chosen(Some("rustup")).unwrap(), Route::Rustup);
    }

    #[test]
    fn an_unknown_route_is_refused_with_the_choices() {
        let error = Route::chosen(Some("fedora")).unwrap_err().to_string();
        assert!(
            error.contains("fedora") && error.contains("debian") && error.contains("rustup"),
            "{error}"
        );
    }

    #[test]
    fn a_sysroot_belongs_to_one_release_and_host() {
        assert!(
            sysroot(IDENTITY)
                .unwrap()
                .ends_with("wasm-sysroot-1.96.0-x86_64-unknown-linux-gnu")
        );
        assert!(sysroot("rustc 1.96.0").is_err());
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(older("1.85.0", "1.95"));
        assert!(!older("1.96.0", "1.95"));
        assert!(!older("1.100.0", "1.95"));
        assert!(!older("1.95.0-beta.1", "1.95"));
    }

    #[test]
    fn a_folder_without_the_compilers_name_is_not_a_usable_sysroot() {
        assert!(!usable(Path::new("no-such-folder"), IDENTITY));
    }
}
