//! Client mode against drivers that are no client: nothing passes, and a
//! driver that fails is told apart from a client that does.

use gosync_conformance::client::crude::Crude;
use gosync_conformance::client::{Launch, Plan, cases, run};
use gosync_conformance::suite::{CheckResult, Kind, Verdict};
use std::collections::BTreeSet;
use std::time::Duration;

fn plan(kind: &str) -> Plan {
    let exec = format!(
        "'{}' crude-driver {kind}",
        env!("CARGO_BIN_EXE_gosync-conformance")
    );
    let mut plan = Plan::new(Launch::exec(exec));
    plan.choice.patience = Duration::from_millis(150);
    plan.choice.jobs = 8;
    plan
}

#[tokio::test(flavor = "multi_thread")]
async fn crude_drivers_pass_no_case_and_no_check_of_a_requirement() {
    // no mutant of a client fails what is about the driver
    let mut about_drivers = BTreeSet::new();
    for (name, kind) in Crude::ALL {
        let mut plan = plan(name);
        if kind == Crude::Silent {
            // each command costs seconds of patience
            plan.choice.only = vec!["sync/first".into(), "faults/reset".into()];
        }
        let result = run(&plan, |_| {}).await.unwrap();
        let passed: Vec<&str> = result
            .cases
            .iter()
            .filter(|c| matches!(c.verdict, Verdict::Passed | Verdict::NonStrict))
            .map(|c| c.name.as_str())
            .collect();
        assert!(passed.is_empty(), "{name} passes {passed:?}");
        let of_requirements =
            |k: &&CheckResult| !k.cites.is_empty() && k.verdict == Verdict::Passed;
        let cases = result.cases.iter();
        let passed: Vec<_> = (cases.flat_map(|c| &c.checks))
            .filter(of_requirements)
            .collect();
        assert!(passed.is_empty(), "{name} passes {passed:?}");
        assert_ne!(result.exit_code(), 0, "{name}");
        let cases = result.cases.into_iter();
        let checks = cases.flat_map(|c| c.checks).filter(|k| k.cites.is_empty());
        let failed = checks.filter(|k| k.verdict == Verdict::Failed);
        about_drivers.extend(failed.map(|k| k.name));
    }
    assert!(about_drivers.iter().eq(["goes-on", "unsupported"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_dies_is_inconclusive_and_no_verdict_on_the_client() {
    let mut plan = plan("hang-up");
    plan.choice.only = vec!["sync/*".into()];
    let result = run(&plan, |_| {}).await.unwrap();
    assert_eq!(result.count(Verdict::Failed), 0);
    assert_eq!(result.exit_code(), 3);
}

#[tokio::test]
async fn a_command_that_does_not_start_is_an_error() {
    assert!(
        run(&Plan::new(Launch::exec("no-such-program-anywhere")), |_| {})
            .await
            .is_err()
    );
}

#[test]
fn client_cases_are_well_formed() {
    let mut names = BTreeSet::new();
    for case in cases::all() {
        assert!(names.insert(case.name), "{} twice", case.name);
        let mut checks = BTreeSet::new();
        for check in case.checks {
            assert!(
                checks.insert(check.name),
                "{} {} twice",
                case.name,
                check.name
            );
            assert!(
                !check.cites.is_empty() || case.name.starts_with("driver/"),
                "{} {} cites nothing",
                case.name,
                check.name
            );
            if let Kind::Negative { twin } = check.kind {
                assert!(
                    case.checks
                        .iter()
                        .any(|c| c.name == twin && c.kind == Kind::Positive)
                );
            }
        }
    }
}
