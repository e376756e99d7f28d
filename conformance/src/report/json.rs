//! The report for programs: the result as it is, with what a reader who knows
//! nothing of the suite needs beside it.

use crate::suite::{RunResult, Verdict, requirement};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    run: &'a RunResult,
    /// The text of each requirement that a check or a monitor's sentence cites.
    requirements_cited: BTreeMap<&'a str, &'static str>,
    /// Of each case, over each transport, that is not as it should be: the
    /// command that runs it again.
    again: BTreeMap<String, String>,
}

/// The file.
pub fn report(run: &RunResult) -> serde_json::Result<String> {
    let checks = run.cases.iter().flat_map(|case| &case.checks);
    let cites = checks.flat_map(|check| check.cites.iter().map(String::as_str));
    let violations = run.cases.iter().flat_map(|case| &case.violations);
    let cited = cites.chain(violations.flat_map(|sentence| super::cited(sentence)));
    let bad = run.cases.iter().filter(|c| c.verdict >= Verdict::NonStrict);
    serde_json::to_string_pretty(&Report {
        run,
        requirements_cited: cited
            .filter_map(|id| Some((id, requirement(id)?.text)))
            .collect(),
        again: bad
            .map(|case| {
                (
                    format!("{}@{}", case.name, case.wire),
                    super::again(run, case),
                )
            })
            .collect(),
    })
}
