//! The suite against itself: its own peer passes every case, one-rule mutants
//! of the peer are caught, crude servers pass no negative check.

use gosync_conformance::crude::{Crude, CrudeServer};
use gosync_conformance::net::Wire;
use gosync_conformance::peer::{Peer, Quirk, Settings};
use gosync_conformance::server::{Plan, TokenFile, cases, run};
use gosync_conformance::suite::{Need, Profile, RunResult, Verdict};
use std::collections::BTreeSet;
use std::time::Duration;

const SEED: u64 = 7;

fn explain(run: &RunResult) -> String {
    run.cases
        .iter()
        .filter(|c| c.verdict >= Verdict::NonStrict)
        .map(|c| {
            let checks: Vec<String> = c
                .checks
                .iter()
                .filter(|k| k.verdict != Verdict::Passed)
                .map(|k| format!("    {}: expected {}, got {}", k.name, k.expected, k.got))
                .collect();
            format!(
                "{} over {}: {}\n{}\n    {:?}\n",
                c.name,
                c.wire,
                c.reason,
                checks.join("\n"),
                c.violations
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_peer_of_the_suite_passes_every_case_that_can_run() {
    let peer = Peer::start(Settings::default(), SEED).await.unwrap();
    let plan = Plan::new(peer.url());
    let result = run(&plan, |_| {}).await.unwrap();
    assert_eq!(result.exit_code(), 0, "{}", explain(&result));
    assert_eq!(result.count(Verdict::NonStrict), 0, "{}", explain(&result));
    assert!(result.count(Verdict::Passed) >= 80, "both transports");
}

/// Regression: the spaces of a run depended on its seed alone, so that whoever
/// replayed a case met what the run before had left, and failed a good server.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_with_the_same_seed_meets_nothing_of_the_first() {
    let peer = Peer::start(Settings::default(), SEED).await.unwrap();
    let mut plan = Plan::new(peer.url());
    plan.choice.only = vec!["push/one".into(), "hello/equal".into()];
    for _ in 0..2 {
        let result = run(&plan, |_| {}).await.unwrap();
        assert_eq!(result.exit_code(), 0, "{}", explain(&result));
        assert_eq!(result.count(Verdict::Passed), 4);
    }
}

#[tokio::test]
async fn what_runs_a_case_again_reaches_the_server_in_the_same_way() {
    let peer = Peer::start(Settings::default(), SEED).await.unwrap();
    let mut plan = Plan::new(peer.url());
    plan.choice.only = vec!["hello/minimal".into()];
    let target = run(&plan, |_| {}).await.unwrap().target;
    assert_eq!(target, format!("--url '{}'", peer.url()));
    plan.token = Some(TokenFile {
        token: "secret".into(),
        path: "my token".into(),
    });
    plan.space_prefix = "mine-".parse().unwrap();
    plan.choice.patience *= 2;
    let target = run(&plan, |_| {}).await.unwrap().target;
    let more = "--token-file 'my token' --space-prefix 'mine-' --timeout 20000";
    assert_eq!(target, format!("--url '{}' {more}", peer.url()));
}

/// Regression: cases of profile `core` demanded fingerprints of servers that
/// keep none. Found by a server in another language.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_keeps_no_fingerprints_conforms_to_core() {
    let settings = Settings {
        features: vec![],
        ..Settings::default()
    };
    let peer = Peer::start(settings, SEED).await.unwrap();
    let mut plan = Plan::new(peer.url());
    plan.choice.profiles = vec![Profile::Core];
    let result = run(&plan, |_| {}).await.unwrap();
    assert_eq!(result.exit_code(), 0, "{}", explain(&result));
    assert!(result.count(Verdict::Passed) >= 70, "both transports");
}

/// The case and the check (or "monitor") that must catch each mutant.
const CAUGHT_BY: &[(Quirk, &str, &str)] = &[
    (
        Quirk::TieByReplicaReversed,
        "conflict/tie-by-replica",
        "greater-wins",
    ),
    (
        Quirk::TieByContentReversed,
        "conflict/tie-by-content",
        "greater-hash-wins",
    ),
    (
        Quirk::TombstoneLosesTie,
        "conflict/tie-by-content",
        "tombstone-wins",
    ),
    (
        Quirk::LastArrivalWins,
        "conflict/newer-and-older",
        "older-superseded",
    ),
    (Quirk::FlagsOutOfDigest, "range/same-count", "tombstone"),
    (Quirk::XorFingerprint, "range/prefix-keys", "fingerprints"),
    (Quirk::RangeEndInclusive, "range/bounds", "end-exclusive"),
    (Quirk::InvertedRangeAccepted, "range/malformed", "inverted"),
    (Quirk::UnsortedRangesAccepted, "range/malformed", "unsorted"),
    (Quirk::AnySpaceId, "hello/space-id", "slash"),
    (
        Quirk::TombstoneWithValue,
        "push/bad-records",
        "tombstone-with-value",
    ),
    (
        Quirk::UnknownFlagsAccepted,
        "push/bad-records",
        "unknown-flag",
    ),
    (Quirk::LongKeysAccepted, "push/bad-records", "long-key"),
    (Quirk::NoClockBound, "clock/far-future", "beyond"),
    (Quirk::OldVersionsRefused, "clock/past", "accepted"),
    (Quirk::SequenceGaps, "push/batch", "consecutive"),
    (Quirk::TagIgnored, "hello/status", "wrong-tag"),
    (Quirk::FutureCursorAccepted, "hello/status", "beyond-head"),
    (Quirk::ForeignEpochAccepted, "hello/status", "foreign-epoch"),
    (
        Quirk::NewestCommitIgnored,
        "hello/newest-commit",
        "worse-counts",
    ),
    (Quirk::AnyVersion, "hello/version-metadata", "wrong"),
    (
        Quirk::VersionsNotListed,
        "hello/unsupported-version",
        "lists-own",
    ),
    (Quirk::FeaturesEchoed, "hello/features", "only-named"),
    (Quirk::AlwaysEqual, "hello/equal", "compared"),
    (
        Quirk::AnyFingerprintLength,
        "hello/fingerprint-form",
        "short",
    ),
    (Quirk::VerdictsSorted, "push/batch", "in-order"),
    (Quirk::AckWithoutStoring, "push/one", "there"),
    (Quirk::RepeatedIsApplied, "push/repeated", "unchanged"),
    (Quirk::WinnerLeftOut, "conflict/newer-and-older", "winner"),
    (
        Quirk::DuplicateKeysAccepted,
        "push/duplicate-key",
        "refused",
    ),
    (
        Quirk::OneBadRecordRefusesAll,
        "push/bad-records",
        "good-applied",
    ),
    (Quirk::AtomicIgnored, "push/atomic", "aborted"),
    (Quirk::AnyNumberOfRecords, "push/too-many", "more"),
    (Quirk::AnyValueSize, "push/bad-records", "big-value"),
    (
        Quirk::WatchWithoutTombstones,
        "tombstone/propagates",
        "in-watch",
    ),
    (Quirk::WatchIgnoresRanges, "watch/ranges", "nothing-else"),
    (Quirk::WatchIgnoresCursor, "watch/resume", "only-newer"),
    (
        Quirk::WatchIgnoresStatus,
        "watch/history-changed",
        "foreign-epoch",
    ),
    (
        Quirk::CursorInsideCommit,
        "watch/large-commit",
        "cursor-at-end",
    ),
    (Quirk::EarlyCheckpoint, "watch/catch-up", "checkpoint"),
    (Quirk::NoStreamEnd, "watch/catch-up", "end"),
    (Quirk::NoHeartbeat, "watch/heartbeat", "beats"),
    (Quirk::LateChanges, "watch/live", "at-once"),
    (Quirk::SnapshotByArrival, "snapshot/many-chunks", "ordered"),
    (
        Quirk::SnapshotWithoutTombstones,
        "tombstone/propagates",
        "in-snapshot",
    ),
    (Quirk::SnapshotResumesInclusive, "snapshot/resume", "above"),
    (Quirk::SnapshotFingerprintOfRest, "snapshot/resume", "state"),
    (Quirk::SnapshotTotalsOfSpace, "snapshot/resume", "totals"),
    (Quirk::BigChunks, "snapshot/many-chunks", "size"),
    (Quirk::StreamsBuffered, "http/not-buffered", "header"),
    (Quirk::StreamsUntold, "http/concurrent-streams", "same"),
    (Quirk::NoPreflight, "http/preflight", "method"),
    (Quirk::StatusHidden, "http/preflight", "exposed"),
    (Quirk::LongAfterKeyAccepted, "snapshot/after-key", "longer"),
    (Quirk::OneTag, "history/tags", "distinct"),
    (Quirk::TotalsOfSpace, "hello/totals", "counted"),
    (Quirk::BareErrors, "malformed/undecodable", "cut"),
    (
        Quirk::WrongStatus,
        "hello/unsupported-version",
        "none-common",
    ),
];

async fn one_case(quirk: Quirk, case: &str) -> RunResult {
    let settings = Settings {
        quirks: BTreeSet::from([quirk]),
        ..Settings::default()
    };
    let peer = Peer::start(settings, SEED).await.unwrap();
    let of_web = cases::all()
        .iter()
        .any(|c| c.name == case && c.needs.contains(&Need::GrpcWeb));
    let wire = match of_web {
        true => Wire::GrpcWeb,
        false => Wire::Grpc,
    };
    let mut plan = Plan::new(peer.url());
    plan.choice.only = vec![case.to_owned()];
    plan.choice.wires = vec![wire];
    plan.choice.patience = Duration::from_secs(3);
    run(&plan, |_| {}).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_one_rule_mutant_is_caught_by_its_named_check() {
    for (quirk, case, check) in CAUGHT_BY {
        let result = one_case(*quirk, case).await;
        let caught = result.cases[0]
            .checks
            .iter()
            .any(|c| c.name == *check && c.missed());
        assert!(
            caught,
            "{} survives {case} {check}\n{}",
            quirk.name(),
            explain(&result)
        );
        // the same check lets the peer without a quirk pass
        let result = one_case(Quirk::Nothing, case).await;
        assert_eq!(result.count(Verdict::Passed), 1, "{}", explain(&result));
        assert_eq!(result.exit_code(), 0, "{}", explain(&result));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_must_stands_in_the_way_of_a_claim() {
    // HELLO-022 is a recommendation
    let result = one_case(Quirk::TotalsOfSpace, "hello/totals").await;
    assert_eq!(result.cases[0].verdict, Verdict::NonStrict);
    assert_eq!(result.exit_code(), 0);
    // PUSH-005 is none
    let result = one_case(Quirk::VerdictsSorted, "push/batch").await;
    assert_eq!(result.cases[0].verdict, Verdict::Failed);
    assert_eq!(result.exit_code(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_run_counts_recommendations_too() {
    let settings = Settings {
        quirks: BTreeSet::from([Quirk::TotalsOfSpace]),
        ..Settings::default()
    };
    let peer = Peer::start(settings, SEED).await.unwrap();
    let judged = async |case: &str, more: &[&str]| {
        let mut suite = tokio::process::Command::new(env!("CARGO_BIN_EXE_gosync-conformance"));
        suite.args(["server", "--transport", "grpc", "--url", &peer.url()]);
        let output = suite.args(["--only", case]).args(more).output();
        output.await.unwrap().status.code()
    };
    assert_eq!(judged("hello/totals", &[]).await, Some(0));
    assert_eq!(judged("hello/totals", &["--strict"]).await, Some(1));
    assert_eq!(judged("hello/minimal", &["--strict"]).await, Some(0));
}

#[test]
fn every_mutant_of_the_peer_is_caught_by_a_check_that_cites_its_rule() {
    let cites = |case: &str, check: &str| {
        let case = cases::all().into_iter().find(|c| c.name == case)?;
        let check = case.checks.iter().find(|k| k.name == check)?;
        Some(check.cites)
    };
    let unguarded: Vec<_> = (Quirk::ALL.iter().filter(|q| **q != Quirk::Nothing))
        .filter(|quirk| {
            let named = CAUGHT_BY.iter().find(|(q, _, _)| q == *quirk);
            let cites = named.and_then(|(_, case, check)| cites(case, check));
            !cites.is_some_and(|cites| cites.contains(&quirk.breaks()))
        })
        .map(|quirk| (quirk.name(), quirk.breaks()))
        .collect();
    assert!(unguarded.is_empty(), "{unguarded:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn crude_servers_pass_no_negative_check_and_no_case() {
    for kind in Crude::ALL {
        let server = CrudeServer::start(kind).await.unwrap();
        let mut plan = Plan::new(server.url());
        plan.choice.patience = Duration::from_millis(60);
        plan.choice.jobs = 16;
        let result = run(&plan, |_| {}).await.unwrap();
        let negatives: Vec<String> = result
            .cases
            .iter()
            .flat_map(|c| c.checks.iter().map(move |k| (c, k)))
            .filter(|(_, k)| k.negative && k.verdict == Verdict::Passed)
            .map(|(c, k)| format!("{} {}", c.name, k.name))
            .collect();
        assert!(negatives.is_empty(), "{kind:?} passes {negatives:?}");
        let passed: Vec<&str> = result
            .cases
            .iter()
            .filter(|c| c.verdict == Verdict::Passed)
            .map(|c| c.name.as_str())
            .collect();
        assert!(passed.is_empty(), "{kind:?} passes {passed:?}");
        let checks = result.cases.iter().flat_map(|c| &c.checks);
        let of_all = checks.clone().count();
        let passed = checks.filter(|k| k.verdict == Verdict::Passed).count();
        println!("{kind:?}: {passed} of {of_all} checks");
        assert!(passed * 10 < of_all, "{kind:?}: {passed} of {of_all}");
        assert_eq!(result.exit_code(), 1, "{kind:?}");
    }
}

#[test]
fn negative_checks_name_a_positive_twin_of_their_case() {
    use gosync_conformance::suite::Kind;
    for case in cases::all() {
        let mut names = BTreeSet::new();
        for check in case.checks {
            assert!(
                names.insert(check.name),
                "{} {} twice",
                case.name,
                check.name
            );
            if let Kind::Negative { twin } = check.kind {
                let positive = case
                    .checks
                    .iter()
                    .any(|c| c.name == twin && c.kind == Kind::Positive);
                assert!(positive, "{} {} has no twin {twin}", case.name, check.name);
            }
            assert!(
                !check.cites.is_empty(),
                "{} {} cites nothing",
                case.name,
                check.name
            );
        }
    }
}

#[test]
fn case_names_are_unique() {
    let names: Vec<&str> = cases::all().iter().map(|c| c.name).collect();
    let distinct: BTreeSet<&&str> = names.iter().collect();
    assert_eq!(names.len(), distinct.len());
}

#[tokio::test]
async fn cases_that_need_control_are_reported_as_not_run_at_a_url() {
    let peer = Peer::start(Settings::default(), SEED).await.unwrap();
    let mut plan = Plan::new(peer.url());
    plan.choice.only = vec!["resume/*".into(), "hello/minimal".into()];
    let result = run(&plan, |_| {}).await.unwrap();
    assert_eq!(result.count(Verdict::NotRun), result.cases.len() - 2);
    assert!(!gosync_conformance::report::earns_badge(&result));
    assert!(cases::all().iter().any(|c| c.needs.contains(&Need::Kill)));
    assert_eq!(result.exit_code(), 0);
}

#[tokio::test]
async fn cases_about_grpc_web_do_not_run_where_it_is_not_chosen() {
    let peer = Peer::start(Settings::default(), SEED).await.unwrap();
    let mut plan = Plan::new(peer.url());
    plan.choice.only = vec!["http/preflight".into(), "http/web-over-http2".into()];
    plan.choice.wires = vec![Wire::Grpc];
    let result = run(&plan, |_| {}).await.unwrap();
    assert_eq!(result.count(Verdict::NotRun), 2);
    assert_eq!(result.cases[0].reason, "needs grpc-web");
}
