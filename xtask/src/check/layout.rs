//! The visible top level of the repository: one folder for each room of the architecture and nothing else.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::Result;

use crate::{process, workspace};

const VISIBLE: [&str; 10] = [
    "spec",
    "proto",
    "reference-server",
    "reference-client",
    "conformance",
    "xtask",
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "LICENSE",
];

/// Compares the files of the work tree, except ignored ones, with the agreed entries.
pub fn check() -> Result<()> {
    let files = process::output(Command::new("git").current_dir(workspace::root()).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    super::none("the top level is not as agreed", &problems(files.lines()))
}

fn problems<'a>(files: impl Iterator<Item = &'a str>) -> Vec<String> {
    let there: BTreeSet<&str> = files
        .filter_map(|file| file.split('/').next())
        .filter(|entry| !entry.starts_with('.'))
        .collect();
    let agreed = BTreeSet::from(VISIBLE);
    let missing = agreed
        .difference(&there)
        .map(|entry| format!("{entry} is missing"));
    let extra = there
        .difference(&agreed)
        .map(|entry| format!("{entry} does not belong there"));
    missing.chain(extra).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed() -> Vec<&'static str> {
        vec![
            "spec/01-model.md",
            "proto/Cargo.toml",
            "reference-server/Cargo.toml",
            "reference-client/Cargo.toml",
            "conformance/Cargo.toml",
            "xtask/Cargo.toml",
            "Cargo.toml",
            "Cargo.lock",
            "README.md",
            "LICENSE",
            ".gitignore",
            ".ci/run",
        ]
    }

    #[test]
    fn the_agreed_entries_and_hidden_ones_are_fine() {
        assert_eq!(problems(agreed().into_iter()), [""; 0]);
    }

    #[test]
    fn a_visible_stranger_is_named() {
        let mut files = agreed();
        files.push("scripts/build.sh");
        assert_eq!(
            problems(files.into_iter()),
            ["scripts does not belong there"]
        );
    }

    #[test]
    fn a_missing_entry_is_named() {
        let files = agreed().into_iter().filter(|file| *file != "README.md");
        assert_eq!(problems(files), ["README.md is missing"]);
    }
}
