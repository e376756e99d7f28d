//! Where things are: the project's root and the folder that receives build products.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of the root manifest.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or_else(|| Path::new("."))
}

/// The folder of build products: `CARGO_TARGET_DIR` where the caller set it, `target/` otherwise.
pub fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(dir) if !dir.is_empty() => root().join(dir),
        _ => root().join("target"),
    }
}

/// A program of the workspace as the build profile `profile` (its folder's name) leaves it.
pub fn program(profile: &str, name: &str) -> PathBuf {
    target()
        .join(profile)
        .join(format!("{name}{}", env::consts::EXE_SUFFIX))
}

/// The cargo that runs this program, so that a nested build uses the same toolchain; in the caller's folder.
///
/// What cargo tells this program about its own package is taken out: build scripts look at it, and everything behind
/// them would be built anew whenever cargo is called by hand and by this program in turns.
pub fn cargo() -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = Command::new(program);
    for (name, _) in env::vars_os() {
        if is_of_a_package(&name.to_string_lossy()) {
            cargo.env_remove(name);
        }
    }
    cargo
}

fn is_of_a_package(variable: &str) -> bool {
    variable.starts_with("CARGO_MANIFEST_") || variable.starts_with("CARGO_PKG_")
}

/// The project's folder in the user's cache, for tools that are built or unpacked once.
pub fn cache() -> anyhow::Result<PathBuf> {
    cache_in(
        env::var_os("GOSYNC_CACHE").map(PathBuf::from),
        env::var_os("XDG_CACHE_HOME").map(PathBuf::from),
        env::home_dir(),
    )
    .ok_or_else(|| {
        anyhow::anyhow!("no home directory is known: set GOSYNC_CACHE to a writable folder")
    })
}

fn cache_in(own: Option<PathBuf>, xdg: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let given = |path: &PathBuf| path.is_absolute();
    own.filter(given)
        .or_else(|| xdg.filter(given).map(|dir| dir.join("gosync")))
        .or_else(|| home.filter(given).map(|dir| dir.join(".cache/gosync")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_the_folder_of_the_workspace_manifest() {
        let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[workspace]"));
    }

    #[test]
    fn the_cache_prefers_its_own_variable_then_the_desktop_standard_then_home() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(
            cache_in(path("/own"), path("/xdg"), path("/home/a")),
            path("/own")
        );
        assert_eq!(
            cache_in(None, path("/xdg"), path("/home/a")),
            path("/xdg/gosync")
        );
        assert_eq!(
            cache_in(path("relative"), path(""), path("/home/a")),
            path("/home/a/.cache/gosync")
        );
        assert_eq!(cache_in(None, None, None), None);
    }

    /// Regression: `ring` and all that needs TLS was built anew, minutes each time, after every change between `cargo build`
    /// and `cargo xtask test`.
    #[test]
    fn a_nested_cargo_does_not_hear_of_this_package() {
        assert!(env::var_os("CARGO_MANIFEST_DIR").is_some());
        let cargo = cargo();
        let removed: Vec<_> = (cargo.get_envs())
            .filter(|(_, value)| value.is_none())
            .map(|(name, _)| name.to_string_lossy())
            .collect();
        assert!(removed.iter().any(|name| name == "CARGO_MANIFEST_DIR"));
        assert!(removed.iter().any(|name| name == "CARGO_PKG_NAME"));
        assert!(!removed.iter().any(|name| name.starts_with("CARGO_TARGET_")));
    }
}
