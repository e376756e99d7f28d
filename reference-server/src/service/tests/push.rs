//! Verdicts and their order.

use super::*;
use crate::store::sqlite::{SqliteOptions, SqliteStore};
use Outcome::{Applied, Rejected, Superseded, Unchanged};

#[test]
fn the_same_record_again_is_unchanged_and_costs_no_commit() {
    let w = world();
    let first = w.push(vec![put("a", 1, "x"), put("b", 1, "y")]);
    assert_eq!(outcomes(&first), [Applied, Applied]);
    assert_eq!(first.verdicts[1].sequence, 2);
    let again = w.push(vec![put("b", 1, "y"), put("a", 1, "x")]);
    assert_eq!(outcomes(&again), [Unchanged, Unchanged]);
    assert_eq!(again.verdicts[0].sequence, 2);
    assert_eq!(again.position, first.position);
}

#[test]
fn a_loser_is_told_the_winner() {
    let w = world();
    w.push(vec![put("a", 5, "new")]);
    let response = w.push(vec![put("a", 4, "old"), put("b", 1, "")]);
    assert_eq!(outcomes(&response), [Superseded, Applied]);
    assert_eq!(response.verdicts[0].winner, Some(put("a", 5, "new")));
    assert_eq!(response.verdicts[0].sequence, 1);
}

#[test]
fn at_equal_versions_a_tombstone_wins_then_the_greater_hash() {
    let w = world();
    w.push(vec![put("a", 5, "x")]);
    assert_eq!(outcomes(&w.push(vec![tombstone("a", 5)])), [Applied]);
    assert_eq!(outcomes(&w.push(vec![put("a", 5, "x")])), [Superseded]);
    let values = ["p", "q"];
    for v in values {
        w.push(vec![put("b", 5, v)]);
    }
    let kept = w.push(vec![put("b", 4, "")]).verdicts[0].winner.clone();
    let hash = |v: &str| Content::Put(v.to_owned().into()).value_hash();
    let greater = values.into_iter().max_by_key(|v| hash(v)).unwrap();
    assert_eq!(kept.unwrap().value, greater.as_bytes());
}

#[test]
fn one_bad_record_blocks_nothing() {
    let limits = Limits {
        max_value_bytes: 64 << 10,
        ..Default::default()
    };
    let w = world_on(contract::memory(), limits);
    let flagged = wire::Record {
        flags: 2,
        ..put("b", 1, "")
    };
    let versionless = wire::Record {
        version: None,
        ..put("c", 1, "")
    };
    let long_key = put(&"k".repeat(513), 1, "");
    let big = put("d", 1, &"v".repeat((64 << 10) + 1));
    let response = w.push(vec![flagged, put("a", 1, ""), versionless, long_key, big]);
    assert_eq!(
        reasons(&response),
        [
            Some(Reason::Malformed),
            None,
            Some(Reason::Malformed),
            Some(Reason::LimitExceeded),
            Some(Reason::LimitExceeded)
        ]
    );
    assert_eq!(outcomes(&response)[1], Applied);
    assert!(!response.verdicts[4].detail.is_empty());
}

#[test]
fn a_key_twice_or_too_many_records_refuse_the_call() {
    let limits = Limits {
        max_push_records: 2,
        ..Default::default()
    };
    let w = world_on(contract::memory(), limits);
    let push = |space: &str, records| {
        let request = wire::PushRequest {
            space: space.into(),
            records,
            ..Default::default()
        };
        w.service.push(&Access::full(), request, NOW)
    };
    let twice = push("space", vec![put("a", 1, ""), put("a", 2, "")]).unwrap_err();
    assert_eq!(twice.reason, Reason::Malformed);
    assert_eq!(twice.field.as_deref(), Some("records[1].key"));
    let many = push("space", ["a", "b", "c"].map(|k| put(k, 1, "")).to_vec()).unwrap_err();
    assert_eq!(many.reason, Reason::LimitExceeded);
    let limit = many.limit.unwrap();
    assert_eq!((&limit.limit[..], limit.allowed), ("max_push_records", 2));
    let nameless = push("no such/name", vec![]).unwrap_err();
    assert_eq!(nameless.reason, Reason::Malformed);
    assert!(push("space", vec![]).unwrap().verdicts.is_empty());
    assert!(w.subject.store.spaces().unwrap().is_empty());
}

#[test]
fn only_granted_keys_are_written() {
    let w = world();
    let push = |access: Access| {
        let request = wire::PushRequest {
            space: "space".into(),
            records: vec![put("a/1", 1, ""), put("b/1", 1, "")],
            ..Default::default()
        };
        w.service.push(&access, request, NOW)
    };
    let read_only = Access::new(vec![(vec![], Right::Read)]);
    let no_access = Some(Reason::NoAccess);
    assert_eq!(reasons(&push(read_only).unwrap()), [no_access; 2]);
    let none = push(Access::new(vec![])).unwrap_err();
    assert_eq!(none.reason, Reason::NoAccess);
    let some = Access::new(vec![
        (b"a/".to_vec(), Right::Write),
        (b"b/".to_vec(), Right::Read),
    ]);
    let response = push(some).unwrap();
    assert_eq!(reasons(&response), [None, Some(Reason::NoAccess)]);
}

#[test]
fn a_version_too_far_ahead_is_refused_but_only_if_it_would_win() {
    let w = world();
    let skew = Limits::default().max_clock_skew_ms;
    let at_bound = put("a", NOW + skew, "");
    let beyond = put("b", NOW + skew + 1, "");
    let response = w.push(vec![at_bound.clone(), beyond]);
    assert_eq!(reasons(&response), [None, Some(Reason::ClockSkew)]);
    // the same clock reading went with the commit: a clock set back does not
    // make the key unwritable, and what is there stays unchanged
    let response = w.push_at(
        vec![
            at_bound,
            put("c", NOW + skew, ""),
            put("d", NOW + skew + 1, ""),
        ],
        NOW - 1_000_000,
    );
    assert_eq!(outcomes(&response), [Unchanged, Applied, Rejected]);
    // and this reading is told, so that replicas accept what the server did
    assert_eq!(response.server_time_ms, NOW);
    // record times do not move the bound
    let response = w.push_at(vec![put("d", NOW + skew + 1, "")], NOW);
    assert_eq!(reasons(&response), [Some(Reason::ClockSkew)]);
}

#[test]
fn old_versions_are_welcome() {
    let w = world();
    assert_eq!(outcomes(&w.push(vec![put("a", 0, "")])), [Applied]);
}

#[test]
fn winners_are_sent_within_the_budget_and_one_always() {
    let limits = Limits {
        max_response_bytes: 64 << 10,
        ..Default::default()
    };
    let w = world_on(contract::memory(), limits);
    let big = "x".repeat(40 << 10);
    w.push(["a", "b"].map(|k| put(k, 5, &big)).to_vec());
    w.push(vec![put("huge", 5, &"x".repeat(100 << 10))]);
    let winners = |records| {
        let response = w.push(records);
        assert!(outcomes(&response).iter().all(|o| *o == Superseded));
        let has = |v: &wire::Verdict| v.winner.is_some();
        response.verdicts.iter().map(has).collect::<Vec<_>>()
    };
    assert_eq!(
        winners(vec![put("a", 1, ""), put("b", 1, "")]),
        [true, false]
    );
    assert_eq!(
        winners(vec![put("huge", 1, ""), put("a", 1, "")]),
        [true, false]
    );
}

#[test]
fn an_atomic_batch_is_all_or_nothing() {
    let w = world();
    w.push(vec![put("same", 1, ""), put("newer", 9, "")]);
    let before = w.head();
    let request = |bad: bool| wire::PushRequest {
        space: "space".into(),
        records: vec![
            put("a", 1, ""),
            put("same", 1, ""),
            put("newer", 1, ""),
            put("z", if bad { NOW * 2 } else { 1 }, ""),
        ],
        atomic: true,
        ..Default::default()
    };
    let access = Access::full();
    let response = w.service.push(&access, request(true), NOW).unwrap();
    assert_eq!(
        outcomes(&response),
        [Rejected, Unchanged, Superseded, Rejected]
    );
    assert_eq!(
        reasons(&response),
        [
            Some(Reason::BatchAborted),
            None,
            None,
            Some(Reason::ClockSkew)
        ]
    );
    assert_eq!(w.head(), before);
    let response = w.service.push(&access, request(false), NOW).unwrap();
    assert_eq!(
        outcomes(&response),
        [Applied, Unchanged, Superseded, Applied]
    );
    assert_eq!(w.head().sequence, before.sequence + 2);
}

#[test]
fn a_full_space_refuses_growth_only() {
    let limits = Limits {
        max_space_records: 2,
        max_space_bytes: 10,
        ..Default::default()
    };
    let w = world_on(contract::memory(), limits);
    let response = w.push(vec![
        put("a", 1, "1234"),
        put("b", 1, "1234"),
        put("c", 1, ""),
    ]);
    assert_eq!(
        reasons(&response),
        [None, None, Some(Reason::QuotaExceeded)]
    );
    let response = w.push(vec![put("a", 2, "12345")]);
    assert_eq!(reasons(&response), [Some(Reason::QuotaExceeded)]);
    let response = w.push(vec![tombstone("a", 3), put("b", 3, "12345678")]);
    assert_eq!(outcomes(&response), [Applied, Applied]);
}

#[test]
fn damaged_content_never_wins_and_is_asked_back_until_something_as_new_is_there() {
    for make in [contract::memory, contract::sqlite] {
        let w = world_on(make(), Limits::default());
        let key = |k: &str| Key::new(k.as_bytes()).unwrap();
        w.push(vec![
            put("same", 5, "v"),
            put("older", 5, "v"),
            put("far", 5, "v"),
        ]);
        for k in ["same", "older", "far"] {
            w.subject.rot(&space(), &key(k));
        }
        let response = w.push(vec![
            put("same", 5, "v"),
            put("older", 4, "w"),
            put("far", NOW * 2, "x"),
        ]);
        assert_eq!(outcomes(&response), [Applied, Applied, Rejected]);
        let mut tx = w.subject.store.read(&space()).unwrap();
        assert_eq!(tx.quarantined(&KeyRange::all(), 9).unwrap(), [b"older"]);
        let older = tx.get(&key("older")).unwrap().unwrap();
        assert_eq!(older.record.content.value(), b"w");
        assert_eq!(tx.state().unwrap().damaged, 1);
        drop(tx);
        // what nobody pushed over is set aside when it is met, and wanted
        w.push(vec![put("far", 4, "too old to win, were it intact")]);
        let mut tx = w.subject.store.read(&space()).unwrap();
        assert!(tx.get(&key("far")).unwrap().is_some());
        let aside = tx.quarantined(&KeyRange::all(), 9).unwrap();
        assert_eq!(aside, [&b"far"[..], b"older"]);
        assert_eq!(
            (tx.state().unwrap().records, tx.state().unwrap().bytes),
            (3, 44)
        );
        drop(tx);
        w.push(vec![put("older", 5, "v"), put("far", 6, "w")]);
        let mut tx = w.subject.store.read(&space()).unwrap();
        assert_eq!(tx.quarantined(&KeyRange::all(), 9).unwrap().len(), 0);
        assert_eq!(tx.state().unwrap().damaged, 0);
    }
}

#[test]
fn a_retired_space_takes_nothing() {
    let w = world();
    w.push(vec![put("a", 1, "")]);
    crate::maintenance::retire(&*w.subject.store, &space(), NOW).unwrap();
    let request = wire::PushRequest {
        space: "space".into(),
        records: vec![put("a", 2, "")],
        ..Default::default()
    };
    let refused = w.service.push(&Access::full(), request, NOW).unwrap_err();
    assert_eq!(refused.reason, Reason::SpaceRetired);
    let refused = w.watch(all_from(None)).err().unwrap();
    assert_eq!(refused.reason, Reason::SpaceRetired);
}

/// Regression: the old record was gone when storing the new one failed. Found
/// by the conformance suite.
#[test]
fn a_push_whose_storing_fails_leaves_everything_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let options = SqliteOptions {
        readers: 2,
        new_epoch: 1,
        now_ms: 1,
    };
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&path, options).unwrap());
    let service = Service::new(store.clone(), ServiceConfig::default(), counter());
    let push = |records| {
        let request = wire::PushRequest {
            space: "space".into(),
            records,
            ..Default::default()
        };
        service.push(&Access::full(), request, NOW)
    };
    push(vec![put("a", 1, "old")]).unwrap();
    let failing = "CREATE TRIGGER failing BEFORE INSERT ON records
        BEGIN SELECT RAISE(ABORT, 'storing fails'); END";
    let db = rusqlite::Connection::open(&path).unwrap();
    db.execute_batch(failing).unwrap();
    let refused = push(vec![put("a", 2, "new"), put("b", 2, "new")]).unwrap_err();
    assert_eq!(refused.reason, Reason::Storage);
    let mut tx = store.read(&space()).unwrap();
    let held = tx.get(&Key::new(*b"a").unwrap()).unwrap();
    assert_eq!(held.unwrap().record, put("a", 1, "old").try_into().unwrap());
    assert_eq!(tx.state().unwrap().head(), 1);
}
