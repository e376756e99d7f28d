//! Whether a JSON report is what this suite would have written: whole, with
//! verdicts that follow from its checks. Knows what cases declare, not what
//! they do, and cannot know whether the run took place.

use crate::suite::{CaseResult, Declaration, Kind, Provenance, RunResult, Verdict};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Why nothing can be said about a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unjudged {
    /// It is no report.
    Unreadable(String),
    /// Another version of the suite wrote it: that one can judge it.
    Foreign(String),
}

/// Reads a report.
///
/// # Errors
/// [`Unjudged`].
pub fn read(text: &str) -> Result<RunResult, Unjudged> {
    let unreadable = |e: serde_json::Error| Unjudged::Unreadable(format!("no report: {e}"));
    let value: Value = serde_json::from_str(text).map_err(unreadable)?;
    match value.get("format").and_then(Value::as_u64) {
        None => Err(Unjudged::Unreadable("no report: it names no format".into())),
        Some(format) if format != u64::from(Provenance::FORMAT) => Err(Unjudged::Foreign(format!(
            "its format is {format}, this suite reads {}",
            Provenance::FORMAT
        ))),
        Some(_) => {
            let run: RunResult = serde_json::from_value(value).map_err(unreadable)?;
            let own = Provenance::own();
            if run.provenance.suite != own.suite {
                return Err(Unjudged::Foreign(format!(
                    "suite {} wrote it, this is {}",
                    run.provenance.suite, own.suite
                )));
            }
            Ok(run)
        }
    }
}

/// Everything in the report that this suite cannot have written, in words.
/// `declared` are the cases of the report's mode.
pub fn contradictions(run: &RunResult, declared: &[Declaration]) -> Vec<String> {
    let mut found = Vec::new();
    if run.provenance != Provenance::own() {
        found.push("it was made with another text of the requirements".to_owned());
    }
    let cases: BTreeMap<&str, &Declaration> = declared.iter().map(|d| (d.name, d)).collect();
    let mut seen = BTreeSet::new();
    for case in &run.cases {
        let name = format!("{} over {}", case.name, case.wire);
        if !seen.insert((case.name.as_str(), case.wire.as_str())) {
            found.push(format!("{name} stands in it twice"));
        }
        match cases.get(case.name.as_str()) {
            None => found.push(format!("{name} is no case of this suite")),
            Some(declaration) => {
                found.extend(differences(case, declaration).map(|d| format!("{name}: {d}")));
            }
        }
    }
    let wires: BTreeSet<&str> = run.cases.iter().map(|c| c.wire.as_str()).collect();
    if wires.iter().any(|w| !["grpc", "grpc-web"].contains(w)) {
        found.push(format!("unknown transports: {wires:?}"));
    }
    if !run.filtered {
        let optional = |d: &&Declaration| !d.profile.optional() || touches(run, d);
        for declaration in declared.iter().filter(optional) {
            for wire in wires
                .iter()
                .filter(|w| !seen.contains(&(declaration.name, **w)))
            {
                found.push(format!("{} over {wire} is missing", declaration.name));
            }
        }
    }
    found
}

/// Whether a case of the declaration's profile was asked for.
fn touches(run: &RunResult, declaration: &Declaration) -> bool {
    let profile = declaration.profile.name();
    run.cases.iter().any(|c| c.profile == profile)
}

fn differences<'a>(
    case: &'a CaseResult,
    declared: &'a Declaration,
) -> impl Iterator<Item = String> + 'a {
    let mut found = Vec::new();
    if case.profile != declared.profile.name() {
        found.push(format!("its profile is {}", declared.profile.name()));
    }
    if case.verdict == Verdict::NotRun {
        found.extend(not_run(case, declared));
    } else if case.checks.is_empty() {
        // the driver or the server did not start
        if case.verdict != case.conclusion() || case.reason.is_empty() {
            found.push("a verdict without a check".into());
        }
    } else {
        found.extend(checks(case, declared));
        let follows = case.conclusion();
        if case.verdict != follows {
            found.push(format!(
                "called {} where its checks say {}",
                case.verdict.word(),
                follows.word()
            ));
        }
    }
    found.into_iter()
}

/// A case is left out for something that it needs, or by a baseline, which
/// leaves its checks.
fn not_run(case: &CaseResult, declared: &Declaration) -> Option<String> {
    let legal = match case.reason.strip_prefix("needs ") {
        Some(missing) => missing
            .split(", ")
            .all(|m| declared.needs.iter().any(|n| n.name() == m)),
        None => !case.checks.is_empty(),
    };
    (!legal).then(|| format!("not run for no reason that there is: {:?}", case.reason))
}

fn checks(case: &CaseResult, declared: &Declaration) -> Vec<String> {
    let mut found = Vec::new();
    let names = |list: &[&str]| list.join(", ");
    let got: Vec<&str> = case.checks.iter().map(|c| c.name.as_str()).collect();
    let want: Vec<&str> = declared.checks.iter().map(|c| c.name).collect();
    if !got.starts_with(&want) {
        found.push(format!(
            "its checks are {}, not {}",
            names(&want),
            names(&got)
        ));
        return found;
    }
    for (result, check) in case.checks.iter().zip(declared.checks) {
        let twin = match check.kind {
            Kind::Positive => None,
            Kind::Negative { twin } => Some(twin),
        };
        if result.cites != check.cites
            || result.expects != check.expects
            || result.negative != twin.is_some()
        {
            found.push(format!("{}: not as it is declared", check.name));
        }
        if result.missed() && result.verdict != result.failure() {
            found.push(format!(
                "{} is called {} where what it cites makes it {}",
                check.name,
                result.verdict.word(),
                result.failure().word()
            ));
        }
        let passed = |name| {
            let mut all = case.checks.iter();
            all.any(|c| c.name == name && c.verdict == Verdict::Passed)
        };
        if result.verdict == Verdict::Passed && twin.is_some_and(|t| !passed(t)) {
            found.push(format!(
                "{} is called passed without its positive twin",
                check.name
            ));
        }
    }
    found
}
