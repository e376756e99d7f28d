//! `report verify`: a report of a whole, conformant run is believed as far as
//! it can be; whatever was changed in it by hand is noticed.

use gosync_conformance::client::cases;
use gosync_conformance::report::{self, Form};
use gosync_conformance::suite::{
    CaseResult, CheckResult, Exchange, Kind, Message, Provenance, RunResult, Verdict, requirement,
};
use std::process::Command;
use std::time::Duration;

/// What the suite writes when every client case passes over both transports.
fn whole() -> RunResult {
    let wires = ["grpc", "grpc-web"];
    let of = |wire: &&'static str| {
        cases::all()
            .into_iter()
            .map(|c| (c, *wire))
            .collect::<Vec<_>>()
    };
    RunResult {
        provenance: Provenance::own(),
        mode: "client".into(),
        subject: "somebody's client 1.0".into(),
        target: "--exec 'somebody'".into(),
        seed: 7,
        filtered: false,
        cases: wires
            .iter()
            .flat_map(of)
            .map(|(case, wire)| CaseResult {
                name: case.name.into(),
                wire: wire.into(),
                profile: case.profile.name().into(),
                about: case.about.into(),
                verdict: Verdict::Passed,
                reason: String::new(),
                known: false,
                checks: case
                    .checks
                    .iter()
                    .map(|check| CheckResult {
                        verdict: Verdict::Passed,
                        ..CheckResult::declared(check)
                    })
                    .collect(),
                violations: Vec::new(),
                notes: Vec::new(),
                exchanges: Vec::new(),
                took: Duration::from_millis(3),
            })
            .collect(),
        took: Duration::from_secs(1),
    }
}

/// The command's exit code, and everything that it says.
fn verify(text: &str) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report.json");
    std::fs::write(&file, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_gosync-conformance"))
        .args(["report", "verify"])
        .arg(&file)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// A report after a change.
fn changed(change: impl FnOnce(&mut RunResult)) -> (i32, String) {
    let mut run = whole();
    change(&mut run);
    verify(&serde_json::to_string(&run).unwrap())
}

#[test]
fn a_whole_conformant_report_is_believed() {
    let (code, said) = changed(|_| {});
    assert_eq!(code, 0, "{said}");
}

#[test]
fn a_report_that_tells_of_a_failure_is_consistent_and_not_conformant() {
    let (code, said) = changed(|run| {
        run.cases[3].checks[0].verdict = Verdict::Failed;
        run.cases[3].verdict = Verdict::Failed;
    });
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("consistent"), "{said}");
}

/// The file that is written.
fn shown(run: &RunResult, form: Form, file: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    report::write(form, run, dir.path()).unwrap();
    std::fs::read_to_string(dir.path().join(file)).unwrap()
}

/// Makes each check that expects a recommendation to be followed non-strict.
fn depart(run: &mut RunResult) -> usize {
    let advised = |k: &&mut CheckResult| k.failure() == Verdict::NonStrict;
    for case in &mut run.cases {
        for check in case.checks.iter_mut().filter(advised) {
            check.verdict = Verdict::NonStrict;
        }
        case.verdict = case.conclusion();
    }
    run.count(Verdict::NonStrict)
}

#[test]
fn recommendations_that_are_not_followed_stand_in_the_way_of_no_claim() {
    let (code, said) = changed(|run| assert!(depart(run) > 0));
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("non-strict"), "{said}");
}

#[test]
fn every_form_of_report_shows_what_is_non_strict() {
    let mut run = whole();
    for departs in [false, true] {
        if departs {
            assert!(depart(&mut run) > 0);
        }
        assert!(report::earns_badge(&run));
        assert!(report::summary(&run).ends_with("CONFORMANT\n"));
        let line = run.cases.iter().map(report::case_line).max();
        assert_eq!(line.unwrap().starts_with('~'), departs);
        let junit = shown(&run, Form::Junit, "junit.xml");
        assert!(junit.contains("failures=\"0\" errors=\"0\" skipped=\"0\""));
        assert_eq!(junit.contains("<system-out>non-strict: "), departs);
        let json = shown(&run, Form::Json, "report.json");
        assert_eq!(json.contains("\"verdict\": \"non-strict\""), departs);
        let html = shown(&run, Form::Html, "report.html");
        assert!(html.contains("<span class=\"verdict b-passed\">conformant</span>"));
        assert_eq!(
            html.contains("<span class=\"non-strict\">non-strict</span>"),
            departs
        );
        let badge = shown(&run, Form::Badge, "badge.svg");
        assert_eq!(badge.contains("non-strict"), departs);
    }
}

#[test]
fn cases_that_were_filtered_out_or_excused_earn_nothing() {
    let (code, said) = changed(|run| {
        run.filtered = true;
        run.cases.truncate(5);
    });
    assert_eq!(code, 1, "{said}");
    let (code, said) = changed(|run| {
        run.filtered = true;
        run.cases[0].verdict = Verdict::NotRun;
        run.cases[0].reason = "known to fail: later".into();
    });
    assert_eq!(code, 1, "{said}");
}

#[test]
fn what_was_left_out_for_want_of_a_capability_earns_nothing() {
    let (code, said) = changed(|run| {
        let case = run.cases.iter_mut().find(|c| c.name == "tabs/one-speaks");
        let case = case.unwrap();
        case.verdict = Verdict::NotRun;
        case.checks.clear();
        case.reason = "needs twoopenings".into();
    });
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("consistent"), "{said}");
}

#[test]
fn a_report_that_was_changed_by_hand_is_noticed() {
    type Change = Box<dyn FnOnce(&mut RunResult)>;
    let negative = |run: &RunResult| {
        run.cases
            .iter()
            .position(|c| c.checks.iter().any(|k| k.negative))
            .unwrap()
    };
    let tampered: Vec<(&str, Change)> = vec![
        (
            "called passed where",
            Box::new(|run| {
                run.cases[3].checks[0].verdict = Verdict::Failed;
            }),
        ),
        (
            "called passed where",
            Box::new(|run| {
                run.cases[3].violations.push("[TRANS-008] seen".into());
            }),
        ),
        (
            "is missing",
            Box::new(|run| {
                run.cases.remove(3);
            }),
        ),
        (
            "stands in it twice",
            Box::new(|run| {
                let again = run.cases[3].clone();
                run.cases.push(again);
            }),
        ),
        (
            "is no case",
            Box::new(|run| run.cases[3].name = "easy/one".into()),
        ),
        (
            "its checks are",
            Box::new(|run| {
                run.cases[3].checks.remove(0);
            }),
        ),
        (
            "a verdict without a check",
            Box::new(|run| run.cases[3].checks.clear()),
        ),
        (
            "not as it is declared",
            Box::new(|run| {
                run.cases[3].checks[0].cites = vec!["MODEL-001".into()];
            }),
        ),
        (
            "without its positive twin",
            Box::new(move |run| {
                let at = negative(run);
                let case = cases::all()[at];
                let twin = case.checks.iter().find_map(|c| match c.kind {
                    Kind::Negative { twin } => Some(twin),
                    Kind::Positive => None,
                });
                for check in &mut run.cases[at].checks {
                    if Some(check.name.as_str()) == twin {
                        check.verdict = Verdict::Failed;
                    }
                }
                run.cases[at].verdict = Verdict::Failed;
            }),
        ),
        (
            "makes it failed",
            Box::new(|run| {
                run.cases[3].checks[0].verdict = Verdict::NonStrict;
                run.cases[3].verdict = Verdict::NonStrict;
            }),
        ),
        (
            "not run for no reason",
            Box::new(|run| {
                run.cases[3].verdict = Verdict::NotRun;
                run.cases[3].checks.clear();
                run.cases[3].reason = "needs time".into();
            }),
        ),
        (
            "another text of the requirements",
            Box::new(|run| {
                run.provenance.requirements = "00".repeat(32);
            }),
        ),
        (
            "unknown transports",
            Box::new(|run| {
                run.cases.iter_mut().for_each(|c| c.wire = "pigeon".into());
                let half = run.cases.len() / 2;
                run.cases.truncate(half);
            }),
        ),
    ];
    for (says, change) in tampered {
        let (code, said) = changed(change);
        assert_eq!(code, 1, "{says}: {said}");
        assert!(said.contains(says), "{says}: {said}");
    }
}

#[test]
fn what_is_no_report_of_this_suite_is_not_judged() {
    assert_eq!(verify("hello").0, 2);
    assert_eq!(verify("{}").0, 2);
    assert_eq!(verify(r#"{"format": 2, "suite": "0.1.0"}"#).0, 2);
    assert_eq!(verify(r#"{"format": 99}"#).0, 3);
    assert_eq!(verify(r#"{"format": 1}"#).0, 3);
    let (code, said) = changed(|run| run.provenance.suite = "0.0.1".into());
    assert_eq!(code, 3, "{said}");
    assert_eq!(changed(|run| run.mode = "dinner".into()).0, 2);
}

/// Whoever knows nothing of the case reads in each form what was demanded, what
/// came instead, what went over the wire, and how to see it again.
#[test]
fn a_failure_explains_itself_in_every_form() {
    let mut run = whole();
    let mut cases = run.cases.iter_mut();
    let case = cases.find(|case| !case.checks[0].cites.is_empty()).unwrap();
    let (name, cited) = (case.name.clone(), case.checks[0].cites[0].clone());
    case.verdict = Verdict::Failed;
    case.checks[0].verdict = Verdict::Failed;
    case.checks[0].expected = "what-was-wanted".into();
    case.checks[0].got = "what-came".into();
    case.violations = vec!["[SNAP-009] what-a-monitor-saw".into()];
    case.notes = vec!["what-is-remarked".into()];
    case.exchanges = vec![Exchange {
        at: Duration::ZERO,
        wire: "grpc".into(),
        method: "Push".into(),
        metadata: Vec::new(),
        request: Message {
            kind: "gosync.v1.PushRequest".into(),
            text: "space: what-was-sent".into(),
            hex: "0a0477686174".into(),
        },
        answers: Vec::new(),
        end: "OK".into(),
    }];
    let again = format!("--only '{name}' --transport grpc --seed 7");
    let texts = [cited.as_str(), "SNAP-009"].map(|id| requirement(id).unwrap().text);
    let wanted = [
        "what-was-wanted",
        "what-came",
        "what-a-monitor-saw",
        "what-is-remarked",
        "what-was-sent",
        "0a0477686174",
        &again,
        texts[0],
        texts[1],
    ];
    let said = [
        report::text(&run),
        shown(&run, Form::Junit, "junit.xml"),
        shown(&run, Form::Json, "report.json"),
        shown(&run, Form::Html, "report.html"),
    ];
    for form in said {
        let form = form
            .replace("&#39;", "'")
            .replace("&quot;", "\"")
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&")
            .replace("\\\"", "\"");
        for part in wanted {
            assert!(form.contains(part), "{part} is not in {form:.3000}");
        }
    }
    // and this suite reads what it wrote
    assert_eq!(verify(&shown(&run, Form::Json, "report.json")).0, 1);
}
