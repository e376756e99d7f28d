//! The way of a session when all goes well.

use super::rig::*;
use crate::engine::{Answer, Effect, Event, Notice, Phase, Request, Streamed, TokenNews};
use crate::replica::Fate;
use crate::replica::edit::Edit;
use crate::replica::ops::Op;
use crate::store::{WriteId, WriteState};
use crate::transport::{CallError, Cause};
use gosync_proto::{Key, KeyRange, Reason, Record, wire};
use wire::snapshot_response::Event as Snap;

#[test]
fn equal_fingerprints_end_in_one_round_trip() {
    let mut rig = Rig::new();
    rig.online();
    let (_, version, request) = rig.calls.last().unwrap();
    assert_eq!(*version, None);
    let Request::Hello(hello) = request else {
        panic!()
    };
    assert_eq!(hello.fingerprints, [vec![0; 32]]);
    rig.greet(Greeting::at(position(1, 4, 0)).equal());
    assert!(rig.verified());
    assert!(rig.notices.contains(&Notice::InSync));
    let held = &rig.engine.meta().ranges[0];
    assert_eq!(held.cursor, Some(cursor(1, 4)));
    let (_, version, watch) = rig.calls.last().unwrap();
    assert!(matches!(watch, Request::Watch(_)));
    assert_eq!(*version, Some(1));
}

#[test]
fn a_cursor_in_order_is_followed_after_the_outbox_was_sent() {
    let mut rig = Rig::new();
    rig.hold(vec![record("a", 1, Some("v"))], cursor(1, 4));
    rig.put("k", "mine");
    rig.online();
    rig.greet(Greeting::at(position(1, 9, 0)));
    assert_eq!(rig.phase(), Phase::Pushing);
    rig.judge(position(1, 10, 0), vec![held(10)]);
    assert_eq!(rig.phase(), Phase::CatchingUp);
    assert_eq!(rig.fates(), [Fate::Applied]);
    let mine: Vec<Record> = rig.clean();
    let theirs = record("b", 2, Some("theirs"));
    rig.changes(vec![theirs.clone(), mine[1].clone()], Some(cursor(1, 10)));
    assert_eq!(rig.clean().len(), 3);
    rig.checkpoint(position(1, 10, 0));
    assert_eq!(rig.phase(), Phase::Live);
    assert!(rig.verified());
    assert_eq!(rig.engine.meta().ranges[0].cursor, Some(cursor(1, 10)));
}

#[test]
fn an_empty_replica_takes_a_snapshot() {
    let mut rig = Rig::new();
    rig.online();
    rig.greet(Greeting {
        total: 3,
        ..Greeting::at(position(1, 9, 0))
    });
    assert_eq!(rig.phase(), Phase::Bootstrapping);
    snapshot_start(&mut rig, 9, 3);
    chunk(&mut rig, &["a", "b"]);
    chunk(&mut rig, &["c"]);
    let fingerprint = rig.fingerprint();
    snapshot_end(&mut rig, fingerprint);
    assert_eq!(rig.phase(), Phase::CatchingUp);
    assert_eq!(rig.clean().len(), 3);
    assert!(rig.verified());
    assert_eq!(rig.engine.meta().ranges[0].cursor, Some(cursor(1, 9)));
    assert_eq!(rig.engine.meta().snapshot, None);
}

/// Regression: the records of such a snapshot were taken, and its cursor
/// adopted. Found by the conformance suite (SNAP-022).
#[test]
fn a_snapshot_whose_fingerprint_is_not_that_of_its_records_begins_anew() {
    let mut rig = Rig::new();
    rig.online();
    rig.greet(Greeting {
        total: 2,
        ..Greeting::at(position(1, 9, 0))
    });
    snapshot_start(&mut rig, 9, 2);
    chunk(&mut rig, &["a", "b"]);
    snapshot_end(&mut rig, vec![7; 32]);
    assert_eq!(rig.phase(), Phase::Waiting);
    assert_eq!(rig.engine.meta().ranges[0].cursor, None);
    rig.wait();
    rig.event(Event::Token(crate::engine::TokenNews::Ready));
    rig.greet(Greeting {
        total: 2,
        ..Greeting::at(position(1, 9, 0))
    });
    let Request::Snapshot(again) = &rig.calls.last().unwrap().2 else {
        panic!("{:?}", rig.calls.last())
    };
    assert_eq!(again.after_key, None);
}

/// Regression: a server of profile `core` was taken to break the protocol, for
/// ever. Found by the conformance suite (EXT-001).
#[test]
fn a_server_without_reconcile_tells_no_fingerprints_and_is_followed() {
    let mut rig = Rig::new();
    rig.online();
    rig.greet(Greeting {
        total: 1,
        features: vec![],
        ..Greeting::at(position(1, 9, 0))
    });
    snapshot_start(&mut rig, 9, 1);
    chunk(&mut rig, &["a"]);
    rig.snapshot(Snap::Complete(wire::SnapshotComplete::default()));
    rig.snapshot(Snap::End(wire::StreamEnd::default()));
    assert_eq!(rig.phase(), Phase::CatchingUp);
    rig.watch(wire::watch_response::Event::Checkpoint(wire::Checkpoint {
        position: Some(position(1, 9, 0).to_wire()),
        ranges: vec![],
        server_time_ms: NOON,
    }));
    assert_eq!(rig.phase(), Phase::Live);
    assert!(rig.notices.contains(&Notice::InSync));
    assert!(!rig.verified(), "nothing was compared");
    assert_eq!(rig.engine.meta().ranges[0].cursor, Some(cursor(1, 9)));
}

#[test]
fn a_broken_snapshot_goes_on_after_the_last_key_even_after_a_restart() {
    let mut rig = Rig::new();
    rig.online();
    let greeting = Greeting {
        total: 3,
        ..Greeting::at(position(1, 9, 0))
    };
    rig.greet(greeting.clone());
    snapshot_start(&mut rig, 9, 3);
    chunk(&mut rig, &["a", "b"]);
    // the process ends; another one opens the store
    let mut rig = Rig::on(rig.store.clone());
    rig.online();
    rig.greet(Greeting {
        position: position(1, 12, 0),
        ..greeting
    });
    let Request::Snapshot(request) = rig.last_call().1 else {
        panic!("{:?}", rig.last_call())
    };
    assert_eq!(request.after_key.as_deref(), Some(&b"b"[..]));
    snapshot_start(&mut rig, 12, 1);
    chunk(&mut rig, &["c"]);
    let fingerprint = rig.fingerprint();
    snapshot_end(&mut rig, fingerprint);
    // Watch goes on from the state of the first stream
    assert_eq!(rig.engine.meta().ranges[0].cursor, Some(cursor(1, 9)));
    assert!(!rig.verified());
}

/// Regression: it went on after the keys that had come, which were nowhere, and
/// the cursor passed them.
#[test]
fn a_snapshot_that_could_not_be_stored_goes_on_from_what_was() {
    let mut rig = Rig::new();
    rig.online();
    let greeting = Greeting {
        total: 3,
        ..Greeting::at(position(1, 9, 0))
    };
    rig.greet(greeting.clone());
    snapshot_start(&mut rig, 9, 3);
    chunk(&mut rig, &["a"]);
    rig.failing = true;
    chunk(&mut rig, &["b"]);
    assert_eq!(rig.phase(), Phase::StorageError);
    rig.failing = false;
    rig.wait();
    rig.event(Event::Token(TokenNews::Ready));
    rig.greet(greeting);
    let Request::Snapshot(request) = rig.last_call().1 else {
        panic!("{:?}", rig.last_call())
    };
    assert_eq!(request.after_key.as_deref(), Some(&b"a"[..]));
}

/// They may have been deleted, and forgotten (HIST section 2.7): whoever shows
/// them again has to know where.
#[test]
fn what_a_snapshot_shows_to_be_lost_is_told_with_its_ranges() {
    let mut rig = Rig::new();
    let both = vec![record("a", 5, Some("v")), record("b", 2, Some("w"))];
    rig.hold(both, cursor(1, 9));
    let unknown = status(wire::Lineage::Unknown, false);
    rig.online();
    rig.greet(Greeting {
        features: vec![],
        total: 1,
        status: unknown,
        ..Greeting::at(position(2, 3, 0))
    });
    assert_eq!(rig.phase(), Phase::Bootstrapping);
    rig.snapshot(Snap::Start(wire::SnapshotStart {
        position: Some(position(2, 3, 0).to_wire()),
        held: vec![unknown],
        total_records: 1,
        ..wire::SnapshotStart::default()
    }));
    chunk(&mut rig, &["a"]);
    rig.snapshot(Snap::Complete(wire::SnapshotComplete::default()));
    rig.snapshot(Snap::End(wire::StreamEnd::default()));
    let healed = rig.notices.iter().find_map(|n| match n {
        Notice::Healed(h) => Some(h.clone()),
        _ => None,
    });
    let healed = healed.expect("a report");
    assert_eq!(healed.offered, 1);
    assert!(healed.ranges.iter().any(|r| r.contains(b"b")));
    assert!(!healed.ranges.iter().any(|r| r.contains(b"a")));
}

/// Two-acts, seed 2932 of the simulation: the records were offered after the
/// store was opened again, and nobody was told.
#[test]
fn what_was_healed_is_told_although_the_store_did_not_say_that_it_was_kept() {
    let mut rig = Rig::new();
    let both = vec![record("a", 5, Some("v")), record("b", 2, Some("w"))];
    rig.hold(both, cursor(1, 9));
    rig.online();
    rig.greet(Greeting {
        features: vec![],
        status: status(wire::Lineage::Unknown, false),
        ..Greeting::at(position(2, 3, 0))
    });
    let healed = |rig: &Rig| {
        let told = rig.notices.iter().filter_map(|n| match n {
            Notice::Healed(h) => Some(h.clone()),
            _ => None,
        });
        told.collect::<Vec<_>>()
    };
    let empty_server = |rig: &mut Rig| {
        rig.snapshot(Snap::Start(wire::SnapshotStart {
            position: Some(position(2, 3, 0).to_wire()),
            held: vec![status(wire::Lineage::Unknown, false)],
            ..wire::SnapshotStart::default()
        }));
        rig.snapshot(Snap::Complete(wire::SnapshotComplete::default()));
        rig.snapshot(Snap::End(wire::StreamEnd::default()));
    };
    rig.end_in_doubt = true;
    empty_server(&mut rig);
    assert_eq!(rig.phase(), Phase::StorageError);
    assert_eq!(healed(&rig), [], "nobody knows yet");
    rig.end_in_doubt = false;
    rig.wait();
    let told = healed(&rig);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].offered, 2);
    assert!(told[0].ranges.iter().any(|r| r.contains(b"b")));
}

fn snapshot_start(rig: &mut Rig, sequence: u64, total: u64) {
    rig.snapshot(Snap::Start(wire::SnapshotStart {
        position: Some(position(1, sequence, 0).to_wire()),
        held: vec![same()],
        total_records: total,
        ..wire::SnapshotStart::default()
    }));
}

fn chunk(rig: &mut Rig, keys: &[&str]) {
    rig.snapshot(Snap::Chunk(wire::SnapshotChunk {
        records: keys
            .iter()
            .map(|k| record(k, 5, Some("v")).into())
            .collect(),
    }));
}

fn snapshot_end(rig: &mut Rig, fingerprint: Vec<u8>) {
    rig.snapshot(Snap::Complete(wire::SnapshotComplete {
        ranges: vec![wire::RangeState {
            count: 3,
            fingerprint,
        }],
    }));
    rig.snapshot(Snap::End(wire::StreamEnd::default()));
}

/// A connection that breaks behind the last word costs nothing.
#[test]
fn a_snapshot_whose_end_gets_lost_is_complete() {
    let lost = CallError::new(Cause::Status(14), "connection reset");
    for end in [Streamed::Ended, Streamed::Failed(lost)] {
        let mut rig = Rig::new();
        rig.online();
        rig.greet(Greeting::at(position(1, 9, 0)));
        snapshot_start(&mut rig, 9, 1);
        chunk(&mut rig, &["a"]);
        assert_eq!(rig.engine.meta().ranges[0].cursor, None);
        let fingerprint = rig.fingerprint();
        rig.snapshot(Snap::Complete(wire::SnapshotComplete {
            ranges: vec![wire::RangeState {
                count: 1,
                fingerprint,
            }],
        }));
        rig.streamed(end);
        assert_eq!(rig.engine.meta().ranges[0].cursor, Some(cursor(1, 9)));
        assert_eq!(rig.phase(), Phase::CatchingUp);
    }
}

#[test]
fn readers_are_told_of_a_catch_up_once_when_it_is_done() {
    let mut rig = Rig::new();
    rig.hold(vec![record("a", 1, Some("old"))], cursor(1, 4));
    rig.online();
    rig.greet(Greeting::at(position(1, 9, 0)));
    rig.changes(vec![record("a", 2, Some("new"))], Some(cursor(1, 6)));
    rig.changes(vec![record("b", 2, Some("new"))], Some(cursor(1, 9)));
    assert_eq!(rig.changed(), Vec::<Vec<Key>>::new());
    rig.checkpoint(position(1, 9, 0));
    assert_eq!(rig.phase(), Phase::Live);
    assert_eq!(rig.changed(), [vec![key("a"), key("b")]]);
    // a caught-up replica tells of each commit
    rig.changes(vec![record("c", 3, Some("new"))], Some(cursor(1, 10)));
    assert_eq!(rig.changed().len(), 2);
}

#[test]
fn readers_are_told_of_what_came_before_a_catch_up_broke_off() {
    let mut rig = Rig::new();
    rig.hold(vec![record("a", 1, Some("old"))], cursor(1, 4));
    rig.online();
    rig.greet(Greeting::at(position(1, 9, 0)));
    rig.changes(vec![record("a", 2, Some("new"))], Some(cursor(1, 6)));
    rig.event(Event::Online(false));
    assert_eq!(rig.changed(), [vec![key("a")]]);
}

#[test]
fn a_commit_is_stored_when_its_end_has_come() {
    let mut rig = Rig::new();
    rig.live();
    rig.changes(vec![record("a", 1, Some("v"))], None);
    assert_eq!(rig.clean(), []);
    rig.changes(vec![record("b", 1, Some("v"))], Some(cursor(1, 2)));
    assert_eq!(rig.clean().len(), 2);
}

#[test]
fn a_difference_at_a_checkpoint_is_healed_range_by_range() {
    let mut rig = Rig::new();
    rig.live();
    let all: Vec<Record> = (0..200)
        .map(|i| record(&format!("k{i:03}"), 5, Some("v")))
        .collect();
    rig.changes(all.clone(), Some(cursor(1, 200)));
    // one record is lost in the store, unnoticed
    let mut rig2 = Rig::new();
    rig2.hold(all[..199].to_vec(), cursor(1, 200));
    rig2.online();
    rig2.greet(Greeting {
        total: 200,
        ..Greeting::at(position(1, 200, 0))
    });
    assert_eq!(rig2.phase(), Phase::CatchingUp);
    rig2.checkpoint_of(position(1, 200, 0), rig.fingerprint());
    assert_eq!(rig2.phase(), Phase::Healing);
    assert!(!rig2.verified());
    for _ in 0..10 {
        if rig2.phase() == Phase::Healing {
            rig2.reconcile(&all, position(1, 200, 0), same());
        }
    }
    assert_eq!(rig2.phase(), Phase::CatchingUp);
    rig2.checkpoint_of(position(1, 200, 0), rig.fingerprint());
    assert!(rig2.verified());
    let healed = rig2.notices.iter().find_map(|n| match n {
        Notice::Healed(h) => Some(h.clone()),
        _ => None,
    });
    let healed = healed.expect("a report");
    assert_eq!((healed.received, healed.offered), (1, 0));
    assert!(healed.ranges.iter().any(|r| r.contains(b"k199")));
    assert!(!healed.ranges.iter().any(|r| r.contains(b"k000")));
}

#[test]
fn a_checkpoint_before_the_newest_commit_is_not_compared() {
    let mut rig = Rig::new();
    rig.live();
    rig.put("k", "v");
    rig.judge(position(1, 5, 0), vec![held(5)]);
    rig.checkpoint_of(position(1, 4, 0), vec![0; 32]);
    assert_eq!(rig.phase(), Phase::Live);
    rig.checkpoint_of(position(1, 5, 0), vec![0; 32]);
    assert_eq!(rig.phase(), Phase::Healing);
}

#[test]
fn writes_to_one_key_that_were_never_sent_travel_as_the_last_of_them() {
    let mut rig = Rig::new();
    for i in 0..5 {
        rig.put("k", &format!("v{i}"));
    }
    rig.put("other", "v");
    rig.live_with_pending();
    let values: Vec<_> = rig
        .pushed()
        .records
        .iter()
        .map(|r| r.value.clone())
        .collect();
    assert_eq!(values, ["v4", "v"]);
    rig.judge(position(1, 2, 0), vec![held(1), held(2)]);
    assert_eq!(rig.writes(), []);
    let superseded = rig
        .fates()
        .iter()
        .filter(|f| **f == Fate::Superseded)
        .count();
    assert_eq!(superseded, 4);
}

impl Rig {
    fn live_with_pending(&mut self) {
        self.online();
        self.greet(Greeting::at(position(1, 0, 0)).equal());
        assert_eq!(self.phase(), Phase::Pushing);
    }
}

#[test]
fn a_refused_write_stays_and_blocks_nothing() {
    let mut rig = Rig::new();
    rig.put("a", "1");
    rig.put("b", "2");
    rig.live_with_pending();
    rig.judge(
        position(1, 1, 0),
        vec![rejected(Reason::QuotaExceeded), held(1)],
    );
    assert_eq!(rig.phase(), Phase::CatchingUp);
    let writes = rig.writes();
    assert_eq!(writes.len(), 1);
    assert_eq!(
        writes[0].state,
        WriteState::Rejected {
            reason: Some(Reason::QuotaExceeded),
            detail: "no".into()
        }
    );
    // given another chance, it is sent as it was
    let version = writes[0].record.version;
    let retry = |rig: &Rig, id| {
        futures::executor::block_on(crate::replica::edit::retry(&rig.store, id)).unwrap()
    };
    assert_eq!(retry(&rig, writes[0].id), Some(vec![key("a")]));
    assert_eq!(retry(&rig, writes[0].id), Some(vec![]), "it waits already");
    assert_eq!(retry(&rig, WriteId(99)), None, "it is not there");
    rig.event(Event::Wrote);
    assert_eq!(rig.pushed().records[0].version, Some(version.into()));
}

#[test]
fn a_batch_is_pushed_alone_and_refused_as_a_whole() {
    let mut rig = Rig::new();
    rig.put("a", "1");
    let edit = |k: &str| Edit::Put(key(k), "batch".into());
    rig.write(vec![edit("b"), edit("c")]);
    rig.put("d", "4");
    rig.live_with_pending();
    let keys = |rig: &Rig| -> Vec<Key> {
        let records = rig.pushed().records.iter();
        records.map(|r| Key::new(r.key.clone()).unwrap()).collect()
    };
    assert_eq!(keys(&rig), [key("a")]);
    rig.judge(position(1, 1, 0), vec![held(1)]);
    assert_eq!(keys(&rig), [key("b"), key("c")]);
    assert!(rig.pushed().atomic);
    rig.judge(
        position(1, 1, 0),
        vec![rejected(Reason::NoAccess), rejected(Reason::BatchAborted)],
    );
    assert_eq!(keys(&rig), [key("d")]);
    assert!(!rig.pushed().atomic);
    rig.judge(position(1, 2, 0), vec![held(2)]);
    let states: Vec<_> = rig.writes().into_iter().map(|w| w.state).collect();
    assert_eq!(states.len(), 2);
    assert!(
        states
            .iter()
            .all(|s| matches!(s, WriteState::Rejected { .. }))
    );
}

/// Two batches that both write `x` and another key.
fn two_batches(rig: &mut Rig) {
    for (other, value) in [("y", "1"), ("z", "2")] {
        let edit = |k: &str| Edit::Put(key(k), value.into());
        rig.write(vec![edit("x"), edit(other)]);
    }
    rig.live_with_pending();
}

#[test]
fn the_next_parcel_is_sent_before_the_answer_is_settled() {
    let mut rig = Rig::new();
    two_batches(&mut rig);
    let answer = wire::PushResponse {
        verdicts: vec![held(1), held(1)],
        position: Some(position(1, 1, 0).to_wire()),
        server_time_ms: NOON,
        held: vec![same(); rig.pushed().held.len()],
    };
    let id = rig.last_call().0;
    let event = Event::Answered(id, Box::new(Ok(Answer::Push(answer))));
    let effects = rig.engine.handle(event, rig.now);
    let first = |is: fn(&Effect) -> bool| effects.iter().position(is).unwrap();
    let sent = first(
        |e| matches!(e, Effect::Call { request, .. } if matches!(**request, Request::Push(_))),
    );
    let settled = first(|e| matches!(e, Effect::Store(Op::Settle(..))));
    assert!(sent < settled);
}

/// Regression: it was sent with the cursors of that moment, so that the server
/// took an old write for one that had seen a deletion which was compacted
/// meanwhile, and undid it. Found by the simulation (`left-keys`).
#[test]
fn a_parcel_that_was_taken_ahead_is_sent_with_the_cursors_of_when_it_was_taken() {
    let mut rig = Rig::new();
    rig.live();
    for value in ["1", "2", "3"] {
        let edit = |k: &str| Edit::Put(key(k), value.into());
        rig.write(vec![edit("x"), edit(value)]);
    }
    rig.judge(position(1, 1, 0), vec![held(1), held(1)]);
    let sent = |rig: &Rig| {
        let push = rig.pushed();
        let cursor = push.held[0].cursor.map(|c| c.sequence);
        (push.records[1].key.to_vec(), cursor)
    };
    // the third is taken while the second is on its way
    assert_eq!(sent(&rig), (b"2".to_vec(), Some(0)));
    rig.changes(vec![record("z", 1, None)], Some(cursor(1, 5)));
    rig.judge(position(1, 6, 0), vec![held(6), held(6)]);
    assert_eq!(sent(&rig), (b"3".to_vec(), Some(0)));
    assert_eq!(rig.engine.meta().ranges[0].cursor, Some(cursor(1, 5)));
}

#[test]
fn what_was_pushed_before_the_watch_is_not_asked_for_again() {
    let watched_from = |head: u64| {
        let mut rig = Rig::new();
        rig.put("a", "1");
        rig.put("b", "2");
        rig.live_with_pending();
        rig.judge(position(1, head, 0), vec![held(1), held(2)]);
        let Request::Watch(watch) = rig.last_call().1 else {
            panic!("no watch: {:?}", rig.last_call());
        };
        watch.held[0].cursor.map(|c| c.sequence)
    };
    assert_eq!(watched_from(2), Some(2));
    // somebody else wrote meanwhile
    assert_eq!(watched_from(3), Some(0));
}

#[test]
fn whoever_goes_on_writing_does_not_keep_the_replica_from_following() {
    let mut rig = Rig::new();
    rig.put("a", "1");
    rig.live_with_pending();
    rig.put("b", "2");
    rig.judge(position(1, 1, 0), vec![held(1)]);
    assert_eq!(rig.phase(), Phase::CatchingUp);
    let watches = |(_, _, r): &(_, _, Request)| matches!(r, Request::Watch(_));
    assert!(rig.calls.iter().any(watches));
    // and what was written meanwhile is sent beside
    assert_eq!(rig.pushed().records[0].key, b"b");
}

/// What waits behind the next parcel is read while an answer is settled; what
/// Watch brings before it is taken may beat it.
#[test]
fn what_was_read_ahead_is_read_anew_when_something_else_changed_the_store() {
    let sent_after = |news: bool| {
        let mut rig = Rig::new();
        rig.live();
        for value in ["1", "2", "3", "4", "5"] {
            let edit = |k: &str| Edit::Put(key(k), value.into());
            rig.write(vec![edit("x"), edit(value)]);
        }
        let held = || vec![held(1), held(1)];
        rig.judge(position(1, 1, 0), held());
        rig.judge(position(1, 1, 0), held());
        // the third is on its way, the fourth is taken, the fifth is read
        if news {
            let fifth = rig.writes().into_iter().find(|w| w.record.key == key("5"));
            let time = fifth.unwrap().record.version.time.0;
            rig.changes(vec![record("5", time + 1, None)], Some(cursor(1, 5)));
        }
        rig.judge(position(1, 6, 0), held());
        rig.judge(position(1, 7, 0), held());
        let push = rig.pushed();
        push.records
            .iter()
            .map(|r| r.key.to_vec())
            .collect::<Vec<_>>()
    };
    assert_eq!(sent_after(false), [b"x", b"5"]);
    assert_eq!(sent_after(true), [b"x"]);
}

#[test]
fn a_parcel_that_was_taken_ahead_is_taken_anew_after_a_verdict_that_changes_it() {
    let mut rig = Rig::new();
    two_batches(&mut rig);
    let second = rig.writes()[2].record.clone();
    let winner = record("x", second.version.time.0 + 1, Some("theirs"));
    let beaten = wire::Verdict {
        outcome: wire::Outcome::Superseded as i32,
        sequence: 1,
        winner: Some(winner.clone().into()),
        ..wire::Verdict::default()
    };
    rig.judge(position(1, 2, 0), vec![beaten, held(2)]);
    // the winner beats the second batch's write as well
    let keys: Vec<&[u8]> = rig.pushed().records.iter().map(|r| &r.key[..]).collect();
    assert_eq!(keys, [b"z"]);
    rig.judge(position(1, 3, 0), vec![held(3)]);
    assert!(rig.writes().is_empty());
    assert_eq!(rig.clean()[0], winner);
}

#[test]
fn a_winner_replaces_the_write_that_lost() {
    let mut rig = Rig::new();
    rig.live();
    rig.put("k", "mine");
    let mine = rig.writes()[0].record.clone();
    let winner = record("k", mine.version.time.0 + 1, Some("theirs"));
    rig.judge(
        position(1, 8, 0),
        vec![wire::Verdict {
            outcome: wire::Outcome::Superseded as i32,
            sequence: 7,
            winner: Some(winner.clone().into()),
            ..wire::Verdict::default()
        }],
    );
    assert_eq!(rig.clean(), [winner]);
    assert_eq!(rig.fates(), [Fate::Superseded]);
    assert_eq!(rig.writes(), []);
}

#[test]
fn the_echo_of_a_write_settles_it_when_the_answer_was_lost() {
    let mut rig = Rig::new();
    rig.live();
    rig.put("k", "v");
    let sent = rig.writes()[0].record.clone();
    rig.changes(vec![sent.clone()], Some(cursor(1, 1)));
    assert_eq!(rig.fates(), [Fate::Applied]);
    // the late answer changes nothing
    rig.judge(position(1, 1, 0), vec![held(1)]);
    assert_eq!(rig.clean(), [sent]);
    assert_eq!(rig.fates(), [Fate::Applied]);
}

#[test]
fn two_ranges_at_different_cursors_are_followed_together() {
    let mut rig = Rig::new();
    let store = rig.store.clone();
    let ranges = gosync_proto::RangeSet::new(vec![
        gosync_proto::KeyRange::new(b"a", Some(b"m")).unwrap(),
        gosync_proto::KeyRange::new(b"m", None).unwrap(),
    ])
    .unwrap();
    let space = gosync_proto::SpaceId::new("test").unwrap();
    futures::executor::block_on(crate::replica::upkeep::bind(&store, space, ranges)).unwrap();
    rig.hold(vec![], cursor(1, 5));
    futures::executor::block_on(crate::store::Store::transact(
        &store,
        crate::store::Reads::meta(),
        |view| {
            let mut meta = view.meta.clone();
            meta.ranges[1].cursor = Some(cursor(1, 50));
            let changes = crate::store::Changes {
                meta: Some(meta),
                ..Default::default()
            };
            (changes, ())
        },
    ))
    .unwrap();
    rig.online();
    rig.greet(Greeting::at(position(1, 60, 0)));
    assert_eq!(rig.phase(), Phase::CatchingUp);
    rig.changes(vec![record("b", 1, Some("v"))], Some(cursor(1, 20)));
    let cursors = |rig: &Rig| -> Vec<u64> {
        let ranges = rig.engine.meta().ranges.iter();
        ranges.map(|h| h.cursor.unwrap().point.sequence).collect()
    };
    assert_eq!(cursors(&rig), [20, 50]);
    // the ranges come to one cursor while a push is on its way: its answer
    // still tells a status for each entry of the request
    rig.put("c", "v");
    assert_eq!(rig.pushed().held.len(), 2);
    rig.changes(vec![record("z", 1, Some("v"))], Some(cursor(1, 60)));
    assert_eq!(cursors(&rig), [60, 60]);
    assert_eq!(rig.phase(), Phase::CatchingUp);
    rig.judge(position(1, 61, 0), vec![held(61)]);
    assert_eq!(rig.phase(), Phase::CatchingUp);
    assert_eq!(rig.fates(), [Fate::Applied]);
}

/// Ranges with equal cursors were joined in requests. By the time of the
/// checkpoint more of them were equal, and the fingerprints were compared in
/// another order than they were asked for.
#[test]
fn fingerprints_are_compared_in_the_order_of_the_request() {
    let range = |a: &str, b: &str| KeyRange::new(a.as_bytes(), Some(b.as_bytes())).unwrap();
    let ranges = vec![range("a", "b"), range("c", "d"), range("e", "f")];
    let mut rig = Rig::holding(
        gosync_proto::RangeSet::new(ranges).unwrap(),
        Default::default(),
    );
    let records = ["a", "c", "e"].map(|k| record(k, 1, Some("v")));
    rig.hold(records.to_vec(), cursor(1, 5));
    let middle_is_ahead = |view: &crate::store::View| {
        let mut meta = view.meta.clone();
        meta.ranges[1].cursor = Some(cursor(1, 9));
        let changes = crate::store::Changes {
            meta: Some(meta),
            ..Default::default()
        };
        (changes, ())
    };
    let meta = crate::store::Reads::meta();
    futures::executor::block_on(crate::store::Store::transact(
        &rig.store,
        meta,
        middle_is_ahead,
    ))
    .unwrap();
    rig.online();
    rig.greet(Greeting::at(position(1, 9, 0)));
    let Request::Watch(watch) = rig.last_call().1 else {
        panic!("no watch: {:?}", rig.last_call());
    };
    let asked: Vec<_> = watch.held.iter().flat_map(|h| h.ranges.clone()).collect();
    let of = |r: &wire::Range| {
        let record = records
            .iter()
            .find(|k| k.key.as_bytes() == r.start)
            .unwrap();
        wire::RangeState {
            count: 1,
            fingerprint: record.digest().0.to_vec(),
        }
    };
    let ranges = asked.iter().map(of).collect();
    rig.changes(vec![], Some(cursor(1, 9)));
    rig.watch(wire::watch_response::Event::Checkpoint(wire::Checkpoint {
        position: Some(position(1, 9, 0).to_wire()),
        ranges,
        server_time_ms: NOON,
    }));
    assert_eq!(rig.phase(), Phase::Live);
    assert!(rig.verified());
}

#[test]
fn a_live_replica_is_verified_again_soon_after_a_change() {
    let mut rig = Rig::new();
    rig.live();
    assert!(rig.verified());
    rig.changes(vec![record("a", 1, Some("v"))], Some(cursor(1, 1)));
    assert!(!rig.verified());
    rig.wait();
    rig.greet(Greeting::at(position(1, 1, 0)).equal());
    assert!(rig.verified());
    // what changed while the question was under way is not vouched for
    rig.changes(vec![record("b", 1, Some("v"))], Some(cursor(1, 2)));
    rig.wait();
    let question = rig.last_call().0;
    rig.changes(vec![record("c", 1, Some("v"))], Some(cursor(1, 3)));
    rig.greet(Greeting::at(position(1, 2, 0)).equal());
    assert_eq!(rig.last_call().0, question);
    assert!(!rig.verified());
    assert_eq!(rig.phase(), Phase::Live);
}

/// A batch is refused for what is in it, never for its company.
#[test]
fn batches_that_are_refused_together_are_each_judged_alone() {
    let mut rig = Rig::new();
    for name in ["a", "b", "c", "d"] {
        let edit = |n: u8| Edit::Put(key(&format!("{name}{n}")), "v".into());
        rig.write(vec![edit(1), edit(2)]);
    }
    rig.live_with_pending();
    let sent = |rig: &Rig| -> Vec<String> {
        let records = rig.pushed().records.iter();
        let text = |key: &[u8]| String::from_utf8(key.to_vec()).unwrap();
        records.map(|r| text(&r.key)).collect()
    };
    assert_eq!(sent(&rig).len(), 8);
    assert!(rig.pushed().atomic);
    let mut verdicts = vec![rejected(Reason::BatchAborted); 8];
    verdicts[3] = rejected(Reason::QuotaExceeded);
    rig.judge(position(1, 0, 0), verdicts);
    assert_eq!(sent(&rig), ["a1", "a2"]);
    rig.judge(position(1, 2, 0), vec![held(1), held(2)]);
    assert_eq!(sent(&rig), ["b1", "b2"]);
    let verdicts = [Reason::BatchAborted, Reason::QuotaExceeded].map(rejected);
    rig.judge(position(1, 2, 0), verdicts.to_vec());
    assert_eq!(sent(&rig), ["c1", "c2"]);
    rig.judge(position(1, 4, 0), vec![held(3), held(4)]);
    assert_eq!(sent(&rig), ["d1", "d2"]);
    rig.judge(position(1, 6, 0), vec![held(5), held(6)]);
    let left: Vec<_> = rig.writes().into_iter().map(|w| w.record.key).collect();
    assert_eq!(left, [key("b1"), key("b2")]);
}
