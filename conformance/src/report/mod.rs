//! Reports of a run: for people, for programs, for CI, for the browser. Knows
//! results, not how they came about.

mod html;
mod junit;
mod text;

use crate::suite::{CaseResult, RunResult};
use std::io;
use std::path::Path;

pub use text::{case_line, summary};

/// A form of report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// On the terminal.
    Text,
    /// `report.json`.
    Json,
    /// `junit.xml`.
    Junit,
    /// `report.html`, one page with every exchange of what went wrong.
    Html,
}

/// Writes a report into a folder; the text report goes to stdout.
///
/// # Errors
/// When a file cannot be written.
pub fn write(form: Form, run: &RunResult, out: &Path) -> io::Result<()> {
    let (name, text) = match form {
        Form::Text => {
            print!("{}", text::report(run));
            return Ok(());
        }
        Form::Json => (
            "report.json",
            serde_json::to_string_pretty(run).map_err(io::Error::other)?,
        ),
        Form::Junit => ("junit.xml", junit::report(run)),
        Form::Html => ("report.html", html::report(run)),
    };
    std::fs::create_dir_all(out)?;
    std::fs::write(out.join(name), text)
}

/// The command that runs just this case again.
fn again(run: &RunResult, case: &CaseResult) -> String {
    format!(
        "gosync-conformance {} --only '{}' --transport {} --seed {} …",
        run.mode, case.name, case.wire, run.seed
    )
}

/// Text with the five characters of XML and HTML escaped, and control
/// characters replaced.
fn escape(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '&' => "&amp;".to_owned(),
            '<' => "&lt;".to_owned(),
            '>' => "&gt;".to_owned(),
            '"' => "&quot;".to_owned(),
            '\'' => "&#39;".to_owned(),
            c if c.is_control() && c != '\n' && c != '\t' => "\u{fffd}".to_owned(),
            c => c.to_string(),
        })
        .collect()
}
