//! Excerpts of the schema: whole messages and enums with their comments, and the comment of one entry.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::root;

const FILES: [&str; 2] = ["proto/gosync/v1/types.proto", "proto/gosync/v1/sync.proto"];

/// The named messages and enums as a code block, in the order of the names.
pub fn excerpt(names: &[&str]) -> Result<String> {
    if names.is_empty() {
        bail!("no message is named");
    }
    let source = source()?;
    let parts = names
        .iter()
        .map(|name| definition(&source, name))
        .collect::<Result<Vec<_>>>()?;
    Ok(format!("```proto\n{}\n```", parts.join("\n\n")))
}

/// The comment above the entry `entry` (a field or an enum value) of `parent`, as one line.
pub fn comment(parent: &str, entry: &str) -> Result<String> {
    let definition = definition(&source()?, parent)?;
    let lines: Vec<&str> = definition.lines().map(str::trim).collect();
    let is_entry = |line: &str| {
        line.split_once('=')
            .is_some_and(|(left, _)| left.split_whitespace().last() == Some(entry))
    };
    let at = lines
        .iter()
        .position(|line| !line.starts_with("//") && is_entry(line))
        .with_context(|| format!("{parent} has no entry {entry}"))?;
    Ok(above(&lines[..at])
        .iter()
        .map(|line| line.trim_start_matches('/').trim())
        .collect::<Vec<_>>()
        .join(" "))
}

fn source() -> Result<String> {
    let mut all = String::new();
    for file in FILES {
        let path = root().join(file);
        all += &fs::read_to_string(path).with_context(|| format!("cannot read {file}"))?;
    }
    Ok(all)
}

/// A top-level message or enum with the comment directly above it.
fn definition(source: &str, name: &str) -> Result<String> {
    let lines: Vec<&str> = source.lines().collect();
    let heads = [format!("message {name} {{"), format!("enum {name} {{")];
    let at = lines
        .iter()
        .position(|line| heads.iter().any(|head| line.starts_with(head)))
        .with_context(|| format!("the schema has no message or enum {name}"))?;
    let end = at
        + lines[at..]
            .iter()
            .position(|line| line.starts_with('}') || line.ends_with("{}"))
            .with_context(|| format!("{name} has no end"))?;
    let start = at - above(&lines[..at]).len();
    Ok(lines[start..=end].join("\n"))
}

/// The comment lines at the end of `lines`.
fn above<'a>(lines: &'a [&'a str]) -> &'a [&'a str] {
    let from = lines
        .iter()
        .rposition(|line| !line.starts_with("//"))
        .map_or(0, |at| at + 1);
    &lines[from..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_comes_with_its_comment_and_nothing_else() {
        let source = "// about A\nmessage A {\n  // f\n  bytes f = 1;\n}\n\n// about B\n// more\nenum B {\n}\n";
        assert_eq!(
            definition(source, "B").unwrap(),
            "// about B\n// more\nenum B {\n}"
        );
        assert!(
            definition(source, "A")
                .unwrap()
                .starts_with("// about A\nmessage A")
        );
        assert!(definition(source, "C").is_err());
    }

    #[test]
    fn the_comment_of_a_field_is_one_line() {
        assert!(
            comment("Limits", "max_message_bytes")
                .unwrap()
                .starts_with("Encoded bytes")
        );
        assert!(comment("Limits", "no_such_field").is_err());
    }
}
