//! The rules and the engine are sans-IO: their sources use no clock, thread, file, process or network of the standard
//! library. What crates could bring of these is `deps`' to know.

use std::fs;

use anyhow::{Context, Result};

use crate::{files, workspace};

/// Folders that are to be pure, each with what in it is not about the rules: tests, and the switch for deliberate
/// errors, which no installed build has.
const PURE: &[(&str, &[&str])] = &[
    ("proto/src", &["mutant/", "merkle/tests.rs"]),
    ("reference-client/src/engine", &["tests/"]),
    ("reference-client/src/replica", &[]),
];

const FORBIDDEN: &[&str] = &[
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::io",
    "Instant",
    "SystemTime",
];

/// Looks at every source of these folders.
pub fn check() -> Result<()> {
    let mut problems = Vec::new();
    for (folder, others) in PURE {
        let dir = workspace::root().join(folder);
        for file in files::walk(&dir)? {
            let name = file.to_string_lossy().replace('\\', "/");
            if !name.ends_with(".rs") || others.iter().any(|other| name.starts_with(other)) {
                continue;
            }
            let source = fs::read_to_string(dir.join(&file))
                .with_context(|| format!("cannot read {folder}/{name}"))?;
            problems.extend(impure(&format!("{folder}/{name}"), &source));
        }
    }
    super::none("not sans-IO", &problems)
}

/// The lines that use what is forbidden; comments may speak of it.
fn impure(name: &str, source: &str) -> Vec<String> {
    let lines = source.lines().enumerate().filter_map(|(i, line)| {
        let code = line.split("//").next().unwrap_or_default();
        let word = FORBIDDEN.iter().find(|word| code.contains(**word))?;
        Some(format!("{name}:{}: {word}", i + 1))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_and_the_engine_are_pure() {
        check().unwrap();
    }

    #[test]
    fn a_clock_is_found_with_its_line_and_a_comment_about_one_is_not() {
        let source = "// no SystemTime here\nlet now = std::time::SystemTime::now();\n";
        assert_eq!(impure("a.rs", source), ["a.rs:2: SystemTime"]);
    }
}
