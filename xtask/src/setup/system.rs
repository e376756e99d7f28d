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
