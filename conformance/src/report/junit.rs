//! The report for CI systems.

use super::escape;
use crate::suite::{CaseResult, RunResult, Verdict};
use std::fmt::Write;

/// JUnit's XML: one suite, one test case for each case and transport.
pub fn report(run: &RunResult) -> String {
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"gosync-conformance {}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{:.3}\">\n",
        escape(&run.mode),
        run.cases.len(),
        run.count(Verdict::Failed),
        run.count(Verdict::Inconclusive),
        run.count(Verdict::NotRun),
        run.took.as_secs_f32()
    );
    for case in &run.cases {
        let _ = write!(
            text,
            "  <testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\"",
            escape(&case.wire),
            escape(&case.name),
            case.took.as_secs_f32()
        );
        let (element, kind) = match case.verdict {
            Verdict::Passed => {
                text.push_str("/>\n");
                continue;
            }
            Verdict::NonStrict => {
                // JUnit knows no warning: a test that passes, and says something
                let _ = writeln!(
                    text,
                    ">\n    <system-out>{}: {}</system-out>\n  </testcase>",
                    case.verdict.word(),
                    escape(&details(case, run))
                );
                continue;
            }
            Verdict::NotRun => ("skipped", ""),
            Verdict::Inconclusive => ("error", "inconclusive"),
            Verdict::Failed => ("failure", "not conformant"),
        };
        let _ = writeln!(
            text,
            ">\n    <{element} type=\"{kind}\" message=\"{}\">{}</{element}>\n  </testcase>",
            escape(&case.reason),
            escape(&details(case, run))
        );
    }
    text.push_str("</testsuite>\n");
    text
}

/// What the report for people says of it; nothing where it did not run.
fn details(case: &CaseResult, run: &RunResult) -> String {
    match case.verdict >= Verdict::NonStrict {
        true => super::text::details(case, run),
        false => String::new(),
    }
}
