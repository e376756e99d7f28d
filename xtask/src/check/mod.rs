//! `cargo xtask check`: rules about the repository that no compiler enforces.
//!
//! Each rule is a pure function over what is read from disk, tested on small examples beside it; those that need
//! nothing but cargo also hold as plain tests of this crate.

mod buf;
mod comments;
mod deps;
pub mod docs;
mod layout;
mod pure;
mod wasm;

use anyhow::{Result, bail};

use crate::generate;
use crate::steps::{self, Step};

const CHECKS: &[Step] = &[
    Step {
        name: "layout",
        about: "the top level holds exactly the agreed entries",
        run: layout::check,
    },
    Step {
        name: "deps",
        about: "crates depend only on what the architecture allows",
        run: deps::check,
    },
    Step {
        name: "pure",
        about: "the rules and the engine use no clock, thread, file or network",
        run: pure::check,
    },
    Step {
        name: "comments",
        about: "every dependency says why it is there",
        run: comments::check,
    },
    Step {
        name: "docs",
        about: "links in Markdown files lead somewhere",
        run: docs::check,
    },
    Step {
        name: "spec",
        about: "requirements have ids, one key word and something that guards them; generated parts are current",
        run: generate::check_spec,
    },
    Step {
        name: "vectors",
        about: "a second implementation of the rules, in Python, computes the same vectors",
        run: generate::check_vectors,
    },
    Step {
        name: "buf",
        about: "the schema is clean, and compatible with the last release",
        run: buf::check,
    },
    Step {
        name: "wasm",
        about: "the rules build for the browser, and its part of the client has no lint",
        run: wasm::check,
    },
    Step {
        name: "generated",
        about: "generated files are what their sources generate",
        run: generate::check,
    },
];

/// Check the repository's own rules: layout, dependencies, schema, generated files, links
#[derive(clap::Args)]
pub struct Args {
    /// Checks to run [default: all]
    #[arg(value_name = "CHECK", value_parser = steps::names(CHECKS))]
    only: Vec<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    steps::run(CHECKS, &args.only)
}

/// Fails with all of `problems`, one a line, under the sentence `what`.
fn none(what: &str, problems: &[String]) -> Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    bail!("{what}:\n  {}", problems.join("\n  "))
}
