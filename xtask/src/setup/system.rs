//! System packages: announced, then installed with apt-get where the machine has it.

use std::process::Command;

use anyhow::{Context, Result};

use crate::process;

/// Whether this machine's packages come from apt.
pub fn has_apt() -> bool {
    process::exists("apt-get")
}

/// Installs Debian packages after saying which and what for.
pub fn install(what_for: &str, packages: &[&str]) -> Result<()> {
    eprintln!(
        "setup: {what_for} needs system packages; installing with apt-get: {}",
        packages.join(" ")
    );
    let failed = || {
        format!(
            "cannot install {}; install them by hand and run this again",
            packages.join(" ")
        )
    };
    // A package list that is out of date names files that the mirror no longer has.
    process::run(apt()?.args(["update", "-qq"])).with_context(failed)?;
    process::run(
        apt()?
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(packages),
    )
    .with_context(failed)
}

/// The version of a package that apt would install; `None` where there is no apt, or no such package.
pub fn candidate(package: &str) -> Option<String> {
    if !has_apt() {
        return None;
    }
    let ask = || {
        let said = process::output(
            Command::new("apt-cache")
                .env("LC_ALL", "C")
                .args(["policy", package]),
        );
        offered(&said.ok()?)
    };
    ask().or_else(|| {
        // A new machine's lists are empty until they are fetched.
        eprintln!("setup: asking apt-get which {package} there is");
        process::run(apt().ok()?.args(["update", "-qq"])).ok()?;
        ask()
    })
}

/// Reads what `apt-cache policy` said of one package.
fn offered(said: &str) -> Option<String> {
    let version = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate:"))?
        .trim();
    (version != "(none)").then(|| version.to_owned())
}

fn apt() -> Result<Command> {
    let root = process::output(Command::new("id").arg("-u"))? == "0";
    let mut command = if root {
        Command::new("env")
    } else {
        Command::new("sudo")
    };
    if !root {
        command.arg("env");
    }
    // Another installation may be under way; it is waited for.
    command.args([
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "-o",
        "DPkg::Lock::Timeout=600",
    ]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_that_apt_offers_is_read() {
        let said = "nodejs:\n  Installed: (none)\n  Candidate: 18.20.4+dfsg-1\n  Version table:\n";
        assert_eq!(offered(said).as_deref(), Some("18.20.4+dfsg-1"));
        assert_eq!(
            offered("nodejs:\n  Installed: (none)\n  Candidate: (none)\n"),
            None
        );
        assert_eq!(offered(""), None);
    }
}
