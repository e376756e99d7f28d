//! Every dependency in every crate's manifest says in a comment why it is there.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{process, workspace};

/// Reads the manifests of all members.
pub fn check() -> Result<()> {
    let root = workspace::root();
    let manifests = process::output(Command::new("git").current_dir(root).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
        "*/Cargo.toml",
    ]))?;
    let mut problems = Vec::new();
    for manifest in manifests.lines() {
        let text = fs::read_to_string(root.join(manifest))
            .with_context(|| format!("cannot read {manifest}"))?;
        problems.extend(
            uncommented(&text)
                .into_iter()
                .map(|(line, name)| format!("{manifest}:{line}: {name}")),
        );
    }
    super::none(
        "dependencies without a comment that says why (beside or above it)",
        &problems,
    )
}

/// The line number and name of each dependency that has no comment on its line nor directly above.
fn uncommented(manifest: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut inside = false;
    let mut above = false;
    let mut depth = 0;
    // Whether the value that is open at the moment is in `found`.
    let mut unexplained = false;
    for (index, line) in manifest.lines().enumerate() {
        let (code, comment) = split_comment(line);
        let code = code.trim();
        let explained = comment.is_some_and(|text| !text.trim().is_empty());
        if depth > 0 {
            // The rest of a value of several lines, any of which may explain it.
            if explained && unexplained {
                found.pop();
                unexplained = false;
            }
        } else if let Some(header) = code.strip_prefix('[') {
            let header = header.trim_end_matches(']');
            inside = is_table(header);
            if let Some(name) = single(header) {
                inside = false;
                if !explained && !above {
                    found.push((index + 1, name));
                }
            }
        } else if inside && !code.is_empty() && !explained && !above {
            let name = code.split(['=', '.']).next().unwrap_or(code).trim();
            found.push((index + 1, name));
            unexplained = true;
        } else {
            unexplained = false;
        }
        depth += nesting(code);
        above = code.is_empty() && explained;
    }
    found
}

/// Whether a header opens a table of dependencies, such as `target.'cfg(unix)'.dev-dependencies`.
fn is_table(header: &str) -> bool {
    let last = header.rsplit('.').next().unwrap_or(header);
    matches!(
        last,
        "dependencies" | "dev-dependencies" | "build-dependencies"
    ) && !header.starts_with("workspace")
}

/// The dependency that a header of its own describes, such as `dependencies.serde`.
fn single(header: &str) -> Option<&str> {
    let (table, name) = header.rsplit_once('.')?;
    is_table(table).then_some(name)
}

/// Splits a line of TOML at the `#` that begins a comment, which is none inside quotes.
fn split_comment(line: &str) -> (&str, Option<&str>) {
    let mut quote = None;
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (None, '#') => return (&line[..at], Some(&line[at + 1..])),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            _ => {}
        }
    }
    (line, None)
}

/// How many brackets of values `code` leaves open; headers close theirs.
fn nesting(code: &str) -> i32 {
    code.chars()
        .map(|c| i32::from("[{".contains(c)) - i32::from("]}".contains(c)))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manifest_of_the_workspace_explains_its_dependencies() {
        check().unwrap();
    }

    #[test]
    fn a_comment_on_the_line_or_above_it_explains() {
        let manifest = "[dependencies]\na = \"1\" # why\n# because\nb = { workspace = true }\nc.workspace = true # why\n";
        assert_eq!(uncommented(manifest), []);
    }

    #[test]
    fn a_dependency_without_a_comment_is_named_with_its_line() {
        let manifest = "[package]\nname = \"x\"\n[dev-dependencies]\na = \"1\"\nb.workspace = true\n#\nc = \"1\"\n";
        assert_eq!(uncommented(manifest), [(4, "a"), (5, "b"), (7, "c")]);
    }

    #[test]
    fn a_hash_inside_quotes_is_no_comment() {
        let manifest = "[dependencies]\na = { git = \"https://example.org/#a\" }\n";
        assert_eq!(uncommented(manifest), [(2, "a")]);
    }

    #[test]
    fn values_of_several_lines_and_headers_of_one_dependency_are_understood() {
        let manifest = "\
[target.'cfg(unix)'.dependencies]
a = { version = \"1\", features = [ # why
  \"x\",
] }
d = { features = [
  \"y\",
] } # why
e = { features = [
  \"y\",
] }
[dependencies.b] # why
version = \"1\"
[dependencies.c]
version = \"1\"
[features]
f = []
";
        assert_eq!(uncommented(manifest), [(8, "e"), (13, "c")]);
    }

    #[test]
    fn versions_of_the_workspace_need_no_reason() {
        assert_eq!(uncommented("[workspace.dependencies]\na = \"1\"\n"), []);
    }
}
