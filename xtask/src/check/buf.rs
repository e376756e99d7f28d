//! The schemas by buf's rules: their style, and that of the wire compatible with the last release.

use std::process::Command;

use anyhow::Result;

use crate::setup::node;
use crate::{process, workspace};

/// Folders with schemas: the wire, and the suite's own protocols with drivers.
const SCHEMAS: [&str; 2] = ["proto", "conformance/proto"];

/// Lints the schemas, and compares the wire's with that of the newest release tag where there is one.
pub fn check() -> Result<()> {
    let node = node::ensure()?;
    let root = workspace::root();
    for schema in SCHEMAS {
        process::run(node.tool("buf")?.current_dir(root).args(["lint", schema]))?;
    }
    // Before the first release nothing depends on the schema, so there is nothing to break.
    if let Some(tag) = last_release()? {
        let against = format!(".git#tag={tag},subdir=proto");
        process::run(node.tool("buf")?.current_dir(root).args([
            "breaking",
            "proto",
            "--against",
            &against,
        ]))?;
    }
    Ok(())
}

/// The newest tag of the form `v1.2.3` that this commit descends from.
fn last_release() -> Result<Option<String>> {
    let tags = process::output(Command::new("git").current_dir(workspace::root()).args([
        "tag",
        "--merged",
        "HEAD",
        "--sort=-version:refname",
        "--list",
        "v[0-9]*",
    ]))?;
    Ok(tags.lines().next().map(str::to_owned))
}
