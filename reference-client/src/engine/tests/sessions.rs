//! Long sessions: what goes before them, and when a Snapshot takes their place.

use super::rig::*;
use crate::engine::{Answer, Phase, Request};
use crate::replica::Fate;
use crate::replica::edit::Edit;
use gosync_proto::{Reason, Record, Time, wire};
use wire::Lineage::{Rewound, Same};

fn many(n: u64, value: &str) -> Vec<Record> {
    (0..n)
        .map(|i| record(&format!("k{i:05}"), 1, Some(value)))
        .collect()
}

fn snapshot(rig: &Rig) -> &wire::SnapshotRequest {
    match rig.last_call().1 {
        Request::Snapshot(request) => request,
        other => panic!("no snapshot: {other:?}"),
    }
}

/// A new replica with a write, before a server with many records.
fn before_a_long_snapshot() -> Rig {
    let mut rig = Rig::new();
    rig.put("mine", "v");
    rig.online();
    rig.greet(Greeting {
        total: 5_000,
        ..Greeting::at(position(1, 9, 0))
    });
    assert_eq!(rig.phase(), Phase::Pushing);
    assert_eq!(rig.pushed().records.len(), 1);
    rig
}

#[test]
fn what_waits_is_pushed_before_a_long_snapshot() {
    let mut rig = before_a_long_snapshot();
    rig.judge(position(1, 10, 0), vec![held(10)]);
    assert_eq!(rig.fates(), [Fate::Applied]);
    assert_eq!(rig.phase(), Phase::Bootstrapping);
    assert!(snapshot(&rig).held.iter().all(|h| h.cursor.is_none()));
}

#[test]
fn a_refused_write_does_not_keep_a_replica_from_its_snapshot() {
    for reason in [
        Reason::BehindCompaction,
        Reason::NoAccess,
        Reason::Unavailable,
    ] {
        let mut rig = before_a_long_snapshot();
        rig.judge(position(1, 9, 0), vec![rejected(reason)]);
        assert_eq!(rig.phase(), Phase::Bootstrapping, "{reason:?}");
    }
}

#[test]
fn a_history_that_changes_beside_the_early_push_begins_the_session_anew() {
    for answer in [position(2, 10, 0), position(1, 10, 7)] {
        let mut rig = before_a_long_snapshot();
        rig.judge(answer, vec![held(10)]);
        assert_eq!(rig.phase(), Phase::Authenticating, "{answer:?}");
    }
}

#[test]
fn a_short_session_and_one_without_writes_begin_at_once() {
    let mut rig = Rig::new();
    rig.put("mine", "v");
    rig.online();
    rig.greet(Greeting {
        total: 20,
        ..Greeting::at(position(1, 9, 0))
    });
    snapshot(&rig);
    let mut rig = Rig::new();
    rig.online();
    rig.greet(Greeting {
        total: 5_000,
        ..Greeting::at(position(1, 9, 0))
    });
    snapshot(&rig);
}

/// CLIENT-029, and nothing overtakes an older write.
#[test]
fn writes_below_the_horizon_and_what_comes_after_wait_for_the_reconciliation() {
    let horizon = Time((NOON + 1_000) << 16);
    let mut rig = Rig::new();
    rig.put("old", "v");
    rig.now.wall_ms += 5_000;
    rig.put("new", "v");
    rig.online();
    let greeting = Greeting {
        total: 5_000,
        status: status(Same, true),
        ..Greeting::at(position(1, 9, horizon.0))
    };
    rig.greet(greeting.clone());
    rig.greet(greeting);
    snapshot(&rig);
    assert_eq!(rig.writes().len(), 2);
}

#[test]
fn cursors_do_not_follow_the_early_push() {
    let mut rig = Rig::new();
    rig.hold(many(300, "v"), cursor(1, 9));
    rig.write(vec![Edit::Put(key("mine"), "v".into())]);
    rig.online();
    let behind = Greeting {
        total: 300,
        status: status(Same, true),
        ..Greeting::at(position(1, 9, 0))
    };
    rig.greet(behind);
    let held_at = |rig: &Rig| rig.engine.meta().ranges[0].cursor;
    let answer = wire::PushResponse {
        verdicts: vec![held(10)],
        position: Some(position(1, 10, 0).to_wire()),
        server_time_ms: NOON,
        held: vec![status(Same, true)],
    };
    rig.answer(Ok(Answer::Push(answer)));
    assert_eq!(rig.phase(), Phase::Healing);
    assert_eq!(held_at(&rig), Some(cursor(1, 9)));
    rig.reconcile(&rig.clean(), position(1, 10, 0), status(Same, true));
    assert_eq!(held_at(&rig), Some(cursor(1, 10)));
}

/// The newest commit that it knows may be all that shows the change.
#[test]
fn nothing_is_pushed_before_a_changed_history_is_reconciled() {
    let mut rig = Rig::new();
    rig.hold(many(300, "v"), cursor(1, 9));
    rig.put("mine", "v");
    rig.online();
    rig.greet(Greeting {
        total: 300,
        status: status(Rewound, false),
        ..Greeting::at(position(2, 9, 0))
    });
    assert_eq!(rig.phase(), Phase::Healing);
}

/// A replica with 2,000 records before a server that went back.
fn healing() -> Rig {
    let mut rig = Rig::new();
    rig.hold(many(2_000, "v"), cursor(1, 9));
    rig.online();
    rig.greet(Greeting {
        total: 2_000,
        status: status(Rewound, false),
        ..Greeting::at(position(2, 9, 0))
    });
    assert_eq!(rig.phase(), Phase::Healing);
    rig
}

#[test]
fn a_session_that_leads_nowhere_is_given_up_for_a_snapshot() {
    let mut rig = healing();
    for i in 1..=64 {
        assert_eq!(rig.phase(), Phase::Healing, "{i}");
        let answer = wire::ReconcileResponse {
            position: Some(position(2, 9, 0).to_wire()),
            held: vec![status(Rewound, false)],
            parts: vec![4 + 2],
            resume_at: Some(vec![0; i]),
            ..Default::default()
        };
        rig.answer(Ok(Answer::Reconcile(answer)));
    }
    snapshot(&rig);
    assert_eq!(rig.engine.meta().ranges[0].cursor, Some(cursor(1, 9)));
}
