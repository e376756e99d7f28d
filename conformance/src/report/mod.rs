//! Reports of a run: for people, for programs, for CI, for the browser. Knows
//! results, not how they came about.

mod html;
mod json;
mod junit;
mod text;
pub mod verify;

use crate::suite::{CaseResult, RunResult, Verdict, requirement};
use std::io;
use std::path::Path;

pub use text::{case_line, report as text, summary};

/// A form of report that is a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `report.json`.
    Json,
    /// `junit.xml`.
    Junit,
    /// `report.html`, one page with every exchange of what went wrong.
    Html,
    /// `badge.svg`, for those who [earn it](earns_badge).
    Badge,
}

/// Whether the run was whole (nothing filtered, no baseline), every case ran
/// and none failed. What is only recommended counts not: a claim is about
/// `MUST`.
pub fn earns_badge(run: &RunResult) -> bool {
    let good = [Verdict::Passed, Verdict::NonStrict];
    let all = run.cases.iter().all(|c| good.contains(&c.verdict));
    !run.cases.is_empty() && all && !run.filtered && run.exit_code() == 0
}

/// Words on two fields; no script, no font of its own.
fn badge(run: &RunResult) -> String {
    let mut label = format!("GoSync {} · {} cases", run.mode, run.cases.len());
    match run.count(Verdict::NonStrict) {
        0 => {}
        some => label.push_str(&format!(", {some} non-strict")),
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"320\" height=\"20\" role=\"img\">\
         <rect width=\"240\" height=\"20\" fill=\"#444\"/>\
         <rect x=\"240\" width=\"80\" height=\"20\" fill=\"#2b9348\"/>\
         <g fill=\"#fff\" text-anchor=\"middle\" font-family=\"sans-serif\" font-size=\"11\">\
         <text x=\"120\" y=\"14\">{}</text><text x=\"280\" y=\"14\">conformant</text></g></svg>\n",
        escape(&label)
    )
}

/// Writes a report into a folder.
///
/// # Errors
/// When a file cannot be written.
pub fn write(form: Form, run: &RunResult, out: &Path) -> io::Result<()> {
    let (name, text) = match form {
        Form::Json => ("report.json", json::report(run).map_err(io::Error::other)?),
        Form::Junit => ("junit.xml", junit::report(run)),
        Form::Html => ("report.html", html::report(run)),
        Form::Badge => ("badge.svg", badge(run)),
    };
    std::fs::create_dir_all(out)?;
    std::fs::write(out.join(name), text)
}

/// The command that runs just this case again.
fn again(run: &RunResult, case: &CaseResult) -> String {
    format!(
        "gosync-conformance {} {} --only '{}' --transport {} --seed {}",
        run.mode, run.target, case.name, case.wire, run.seed
    )
}

/// The requirements that a monitor's sentence names, as `[PUSH-001]`.
fn cited(sentence: &str) -> impl Iterator<Item = &str> {
    let parts = sentence.split('[').skip(1);
    let ids = parts.filter_map(|part| part.split_once(']').map(|(id, _)| id));
    ids.filter(|id| requirement(id).is_some())
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
