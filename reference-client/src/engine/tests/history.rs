//! Restored, wiped and compacted servers: what was deleted, what was lost, and
//! what becomes of unsent writes.

use super::rig::*;
use crate::engine::{Event, Notice, Phase, Request, TokenNews};
use crate::replica::Fate;
use crate::replica::edit::Edit;
use crate::replica::session::restamp_strays;
use crate::replica::upkeep::bind;
use crate::store::{Changes, MemoryStore, Meta, Reads, Store as _};
use futures::executor::block_on;
use gosync_proto::{KeyRange, RangeSet, Reason, Record, ReplicaId, SpaceId, Time, wire};

const H: u64 = 1 << 40;

fn heal(
    rig: &mut Rig,
    server: &[Record],
    at: gosync_proto::history::Position,
    s: wire::HistoryStatus,
) {
    for _ in 0..20 {
        if rig.phase() != Phase::Healing {
            return;
        }
        rig.reconcile(server, at, s);
    }
    panic!("the session does not end");
}

#[test]
fn a_wiped_server_is_filled_again() {
    let mut rig = Rig::new();
    let all = vec![record("a", 1, Some("v")), record("b", 2, None)];
    rig.hold(all.clone(), cursor(5, 9));
    rig.online();
    let unknown = status(wire::Lineage::Unknown, false);
    rig.greet(Greeting {
        status: unknown,
        ..Greeting::at(position(6, 0, 0))
    });
    heal(&mut rig, &[], position(6, 0, 0), unknown);
    assert_eq!(rig.phase(), Phase::Pushing);
    let records = rig.pushed().records.clone();
    assert_eq!(records, [all[0].clone().into(), all[1].clone().into()]);
    rig.judge(position(6, 2, 0), vec![held(1), held(2)]);
    assert_eq!(rig.clean(), all);
    assert_eq!(rig.phase(), Phase::CatchingUp);
    rig.checkpoint(position(6, 2, 0));
    assert!(rig.verified());
}

/// A file put back by hand: the same epoch, a shorter history. The replica took
/// every answer for one of a lagging server, since its cursor lay beyond the
/// head, and never came to an end.
#[test]
fn a_server_that_lost_commits_without_a_restore_is_filled_again() {
    let mut rig = Rig::new();
    let all = vec![record("a", 1, Some("v")), record("b", 2, Some("lost"))];
    rig.hold(all.clone(), cursor(5, 9));
    rig.online();
    let unknown = status(wire::Lineage::Unknown, false);
    rig.greet(Greeting {
        status: unknown,
        ..Greeting::at(position(5, 8, 0))
    });
    heal(&mut rig, &all[..1], position(5, 8, 0), unknown);
    assert_eq!(rig.phase(), Phase::Pushing);
    assert_eq!(rig.pushed().records, [all[1].clone().into()]);
}

#[test]
fn a_replica_behind_the_compaction_drops_what_was_deleted_and_keeps_what_was_lost() {
    let mut rig = Rig::new();
    let old = record("old", H - 5, Some("deleted meanwhile"));
    let new = record("new", H + 5, Some("no tombstone could beat it"));
    let both = record("both", H - 9, Some("still there"));
    rig.hold(vec![both.clone(), new.clone(), old], cursor(1, 9));
    rig.online();
    let behind = status(wire::Lineage::Same, true);
    let greeting = Greeting {
        status: behind,
        total: 1,
        ..Greeting::at(position(1, 50, H))
    };
    rig.greet(greeting.clone());
    // the horizon is new: followed first, then Hello again
    rig.greet(greeting);
    assert_eq!(rig.phase(), Phase::Healing);
    heal(
        &mut rig,
        std::slice::from_ref(&both),
        position(1, 50, H),
        behind,
    );
    assert_eq!(rig.clean(), [both, new.clone()]);
    assert_eq!(rig.pushed().records, [new.into()]);
}

#[test]
fn what_a_restored_server_lost_is_offered_even_if_it_is_old() {
    let mut rig = Rig::new();
    let lost = record("lost", H - 5, Some("after the backup"));
    rig.hold(vec![lost.clone()], cursor(1, 90));
    rig.online();
    let rewound = status(wire::Lineage::Rewound, true);
    let greeting = Greeting {
        status: rewound,
        total: 1,
        restore_points: vec![wire::RestorePoint {
            epoch: 1,
            sequence: 40,
        }],
        ..Greeting::at(position(2, 40, H))
    };
    rig.greet(greeting.clone());
    rig.greet(greeting);
    heal(&mut rig, &[], position(2, 40, H), rewound);
    assert_eq!(rig.clean(), std::slice::from_ref(&lost));
    assert_eq!(rig.pushed().records, [lost.into()]);
}

#[test]
fn a_replica_that_may_not_write_keeps_what_the_server_lost_in_quarantine() {
    let mut rig = Rig::new();
    rig.hold(vec![record("a", 1, Some("v"))], cursor(5, 9));
    rig.online();
    let unknown = status(wire::Lineage::Unknown, false);
    rig.greet(Greeting {
        status: unknown,
        access: wire::Access::Read,
        ..Greeting::at(position(6, 0, 0))
    });
    heal(&mut rig, &[], position(6, 0, 0), unknown);
    assert_eq!(rig.phase(), Phase::CatchingUp);
    assert_eq!(rig.clean(), []);
    let counts = futures::executor::block_on(crate::store::Store::counts(&rig.store)).unwrap();
    assert_eq!((counts.quarantined, counts.offers), (1, 0));
    rig.checkpoint(position(6, 0, 0));
    assert!(rig.verified());
}

#[test]
fn tombstones_below_a_new_horizon_are_dropped() {
    let mut rig = Rig::new();
    rig.hold(
        vec![record("a", H - 1, None), record("b", H + 1, None)],
        cursor(1, 9),
    );
    rig.online();
    rig.greet(Greeting::at(position(1, 9, H)));
    assert_eq!(rig.clean(), [record("b", H + 1, None)]);
    assert_eq!(rig.phase(), Phase::Connecting);
    let Request::Hello(hello) = rig.last_call().1 else {
        panic!()
    };
    assert_eq!(hello.horizon, H);
}

/// It lay outside of the held ranges when the horizon was learnt. It stood in
/// the way of a write that was older than what the server had forgotten.
#[test]
fn a_tombstone_left_below_a_known_horizon_is_dropped_and_old_writes_of_its_key_are_kept() {
    let mut rig = Rig::new();
    rig.now.wall_ms = 10;
    rig.put("k", "kept");
    let other = record("x", H + 1, Some("v"));
    rig.hold(vec![record("k", 1, None), other.clone()], cursor(1, 1));
    rig.know_horizon(Time(H));
    rig.online();
    let behind = status(wire::Lineage::Same, true);
    let greeting = Greeting {
        status: behind,
        total: 1,
        ..Greeting::at(position(1, 50, H))
    };
    rig.greet(greeting.clone());
    assert_eq!(rig.clean(), std::slice::from_ref(&other));
    rig.greet(greeting);
    heal(&mut rig, &[other], position(1, 50, H), behind);
    let pushed = &rig.pushed().records;
    let sent: Vec<Record> = pushed
        .iter()
        .map(|r| Record::try_from(r.clone()).unwrap())
        .collect();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].version.time, Time(H));
}

#[test]
fn a_session_that_begins_after_a_refused_push_drops_tombstones_below_the_known_horizon() {
    let mut rig = Rig::new();
    let other = record("x", H + 1, Some("v"));
    rig.hold(vec![other.clone()], cursor(1, 1));
    rig.know_horizon(Time(H));
    rig.online();
    rig.greet(Greeting::at(position(1, 1, H)).equal());
    rig.checkpoint(position(1, 1, H));
    // a deletion from below the horizon arrives, and is still there to be seen
    rig.changes(vec![record("k", 1, None)], Some(cursor(1, 2)));
    rig.now.wall_ms = 10;
    rig.put("k", "kept");
    // then a newer one that nobody can see any more
    rig.judge(position(1, 3, H), vec![rejected(Reason::BehindCompaction)]);
    rig.event(Event::Token(TokenNews::Ready));
    let behind = status(wire::Lineage::Same, true);
    let greeting = Greeting {
        status: behind,
        total: 1,
        ..Greeting::at(position(1, 3, H))
    };
    rig.greet(greeting.clone());
    assert_eq!(rig.clean(), std::slice::from_ref(&other));
    rig.greet(greeting);
    heal(&mut rig, &[other], position(1, 3, H), behind);
    assert_eq!(rig.pushed().records.len(), 1);
    let sent = Record::try_from(rig.pushed().records[0].clone()).unwrap();
    assert_eq!(sent.version.time, Time(H));
}

#[test]
fn a_horizon_that_moves_during_a_watch_starts_the_session_again() {
    let mut rig = Rig::new();
    rig.live();
    rig.checkpoint(position(1, 0, H));
    assert_eq!(rig.phase(), Phase::Authenticating);
}

#[test]
fn unsent_writes_from_before_the_horizon_are_kept_where_nothing_stands() {
    let mut rig = Rig::new();
    rig.now.wall_ms = 10;
    rig.put("gone", "kept");
    rig.put("gone", "kept, the last");
    rig.put("stands", "loses");
    rig.write(vec![Edit::Delete(key("nothing"))]);
    rig.now.wall_ms = NOON;
    rig.put("fresh", "above the horizon");
    let fresh = rig.writes().last().unwrap().record.version;
    rig.hold(vec![record("x", H + 1, Some("v"))], cursor(1, 1));
    rig.online();
    let behind = status(wire::Lineage::Same, true);
    let greeting = Greeting {
        status: behind,
        total: 2,
        ..Greeting::at(position(1, 50, H))
    };
    rig.greet(greeting.clone());
    rig.greet(greeting);
    let server = [
        record("stands", H + 7, Some("newer")),
        record("x", H + 1, Some("v")),
    ];
    heal(&mut rig, &server, position(1, 50, H), behind);
    let sent: Vec<_> = rig
        .pushed()
        .records
        .iter()
        .map(|r| Record::try_from(r.clone()).unwrap())
        .collect();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].key, key("gone"));
    assert_eq!(sent[0].content.value(), b"kept, the last");
    assert_eq!(sent[0].version.time, Time(H));
    assert_eq!(sent[0].version.replica, ReplicaId(ME.0));
    assert_eq!(sent[1].version, fresh);
    let fates = rig.fates();
    let superseded = fates.iter().filter(|f| **f == Fate::Superseded).count();
    // the earlier write of the key, and the one that a newer record beat
    assert_eq!(superseded, 2);
    assert_eq!(fates.iter().filter(|f| **f == Fate::Applied).count(), 1);
    assert!(!rig.notices.iter().any(|n| matches!(n, Notice::InDoubt(_))));
}

/// The later write was made in the very millisecond of the horizon, and both
/// got one version: the server took the first for the second.
#[test]
fn unsent_writes_from_before_the_horizon_give_way_to_later_ones_above_it() {
    let mut rig = Rig::new();
    let h = Time::from_millis(NOON);
    rig.now.wall_ms = NOON - 5;
    rig.put("k", "first");
    rig.put("other", "kept");
    rig.now.wall_ms = NOON;
    rig.put("k", "second");
    assert_eq!(rig.writes()[2].record.version.time, h);
    rig.hold(vec![record("x", h.0 + 1, Some("v"))], cursor(1, 1));
    rig.online();
    let behind = status(wire::Lineage::Same, true);
    let greeting = Greeting {
        status: behind,
        total: 2,
        ..Greeting::at(position(1, 50, h.0))
    };
    rig.greet(greeting.clone());
    rig.greet(greeting);
    let server = [record("x", h.0 + 1, Some("v"))];
    heal(&mut rig, &server, position(1, 50, h.0), behind);
    let sent = &rig.pushed().records;
    let sent: Vec<_> = sent.iter().map(|r| (&r.key[..], &r.value[..])).collect();
    assert_eq!(sent, [(&b"other"[..], &b"kept"[..]), (b"k", b"second")]);
    assert_eq!(rig.fates(), [Fate::Superseded]);
}

/// Sent all the same, it let the server judge the replica by it: behind a
/// compaction that the cursor had passed, to be reconciled for nothing.
#[test]
fn a_newest_commit_that_the_cursor_has_passed_is_not_sent() {
    let mut rig = Rig::new();
    rig.live();
    rig.put("a", "v");
    rig.judge(position(1, 3, 0), vec![held(3)]);
    rig.put("b", "v");
    let sent = rig.pushed().newest_commit;
    assert_eq!(sent, Some(cursor(1, 3).to_wire()), "beyond the cursor");
    rig.judge(position(1, 4, 0), vec![held(4)]);
    let others = vec![record("c", 9, Some("v"))];
    rig.changes(others, Some(cursor(1, 5)));
    rig.put("d", "v");
    assert_eq!(rig.pushed().newest_commit, None);
}

/// The put was moved to the horizon with the document that it belongs to, and
/// so above the later deletion, which then lost.
#[test]
fn a_field_of_a_revived_document_does_not_overtake_its_later_deletion() {
    let mut rig = Rig::new();
    let document = crate::documents::DocumentId::new("doc", "d").unwrap();
    let (existence, field) = (document.existence().unwrap(), document.field("f").unwrap());
    let stands = Record {
        key: field.clone(),
        ..record("x", 1, Some("old"))
    };
    rig.hold(vec![stands.clone()], cursor(1, 1));
    rig.now.wall_ms = 10;
    rig.write(vec![Edit::Put(existence.clone(), "".into())]);
    rig.write(vec![Edit::Put(field.clone(), "put".into())]);
    rig.write(vec![Edit::Delete(field.clone())]);
    let deletion = rig.writes()[2].record.clone();
    rig.now.wall_ms = NOON;
    rig.online();
    let behind = status(wire::Lineage::Same, true);
    let greeting = Greeting {
        status: behind,
        total: 1,
        ..Greeting::at(position(1, 50, H))
    };
    rig.greet(greeting.clone());
    rig.greet(greeting);
    heal(&mut rig, &[stands], position(1, 50, H), behind);
    let left: Vec<Record> = rig.writes().into_iter().map(|w| w.record).collect();
    assert_eq!(left.len(), 2);
    assert_eq!((&left[0].key, left[0].version.time), (&existence, Time(H)));
    assert_eq!(left[1], deletion);
    assert_eq!(rig.fates(), [Fate::Superseded]);
}

#[test]
fn an_answer_from_before_the_cursor_is_discarded_and_asked_again_after_a_pause() {
    let mut rig = Rig::new();
    rig.hold(vec![record("a", 1, Some("v"))], cursor(1, 9));
    rig.online();
    rig.greet(Greeting {
        total: 1,
        ..Greeting::at(position(1, 9, 0))
    });
    rig.checkpoint_of(position(1, 9, 0), vec![8; 32]);
    assert_eq!(rig.phase(), Phase::Healing);
    // a node that lags behind
    rig.reconcile(&[], position(1, 3, 0), same());
    assert_eq!(rig.phase(), Phase::Waiting);
    assert_eq!(rig.clean().len(), 1);
    assert!(rig.wait() > 0);
    assert_eq!(rig.phase(), Phase::Authenticating);
}

/// What is compacted while its offer waits must not turn a loss into a deletion
/// (HIST-034).
#[test]
fn what_was_found_lost_stays_lost_when_the_replica_falls_behind_a_compaction() {
    let mut rig = Rig::new();
    let lost = record("lost", H - 5, Some("v"));
    rig.hold(vec![lost.clone()], cursor(1, 9));
    rig.online();
    rig.greet(Greeting::at(position(1, 9, 0)));
    rig.checkpoint_of(position(1, 9, 0), vec![0; 32]);
    heal(&mut rig, &[], position(1, 9, 0), same());
    assert_eq!(rig.pushed().records, [lost.clone().into()]);
    // the push comes to nothing, and the next session meets a compaction
    rig.answer(Err(refused(Reason::Unavailable)));
    rig.wait();
    rig.event(Event::Token(TokenNews::Ready));
    let behind = status(wire::Lineage::Same, true);
    let greeting = Greeting {
        status: behind,
        total: 1,
        ..Greeting::at(position(1, 20, H))
    };
    rig.greet(greeting.clone());
    rig.greet(greeting);
    heal(&mut rig, &[], position(1, 20, H), behind);
    assert_eq!(rig.clean(), std::slice::from_ref(&lost));
    assert_eq!(rig.pushed().records, [lost.into()]);
}

#[test]
fn a_history_that_changes_during_a_session_starts_it_again() {
    let mut rig = Rig::new();
    rig.hold(vec![record("a", 1, Some("v"))], cursor(5, 9));
    rig.online();
    let unknown = status(wire::Lineage::Unknown, false);
    rig.greet(Greeting {
        status: unknown,
        ..Greeting::at(position(6, 0, 0))
    });
    rig.reconcile(&[], position(7, 0, 0), unknown);
    assert_eq!(rig.phase(), Phase::Authenticating);
    assert_eq!(rig.clean().len(), 1);
}

#[test]
fn offers_that_the_server_has_not_taken_yet_are_no_reason_to_heal() {
    let mut rig = Rig::new();
    rig.hold(vec![record("a", 1, Some("v"))], cursor(5, 9));
    rig.online();
    let unknown = status(wire::Lineage::Unknown, false);
    rig.greet(Greeting {
        status: unknown,
        ..Greeting::at(position(6, 0, 0))
    });
    heal(&mut rig, &[], position(6, 0, 0), unknown);
    // refused for now: it is offered again after a pause
    rig.judge(
        position(6, 0, 0),
        vec![rejected(gosync_proto::Reason::RateLimited)],
    );
    assert_eq!(rig.phase(), Phase::CatchingUp);
    rig.judge(
        position(6, 0, 0),
        vec![rejected(gosync_proto::Reason::RateLimited)],
    );
    rig.checkpoint_of(position(6, 0, 0), vec![0; 32]);
    assert_eq!(rig.phase(), Phase::Live);
    assert!(!rig.verified());
    rig.wait();
    rig.judge(position(6, 1, 0), vec![held(1)]);
    rig.checkpoint(position(6, 1, 0));
    assert!(rig.verified());
}

/// The first Hello after a reader had met damage offline still carried the
/// damaged record in its fingerprint, the server answered "equal", and nothing
/// was healed.
#[test]
fn damage_that_was_met_offline_is_healed_by_the_next_session() {
    let mut rig = Rig::new();
    let all = vec![record("a", 1, Some("v")), record("b", 2, Some("w"))];
    rig.hold(all.clone(), cursor(1, 2));
    futures::executor::block_on(rig.store.damage(&[key("a")])).unwrap();
    rig.event(Event::Damaged(vec![key("a"), key("b")]));
    assert_eq!(rig.phase(), Phase::Offline);
    rig.online();
    assert!(rig.notices.contains(&Notice::Damaged(vec![key("a")])));
    assert_eq!(rig.clean(), all[1..]);
    let digest = all[1].digest();
    let Request::Hello(hello) = rig.last_call().1 else {
        panic!("no Hello: {:?}", rig.last_call());
    };
    assert_eq!(hello.fingerprints, [digest.0.to_vec()]);
    rig.greet(Greeting::at(position(1, 2, 0)));
    assert_eq!(rig.phase(), Phase::CatchingUp);
    rig.checkpoint_of(position(1, 2, 0), vec![7; 32]);
    heal(&mut rig, &all, position(1, 2, 0), same());
    assert_eq!(rig.clean(), all);
}

/// What rotted while the server was being refilled was written back as clean,
/// under its old digest, and was offered by nobody: fingerprints differed for
/// ever.
#[test]
fn damaged_records_are_removed_and_not_offered_to_a_server_that_lost_them() {
    let mut rig = Rig::new();
    let all = vec![record("a", 1, Some("v")), record("b", 2, Some("w"))];
    rig.hold(all.clone(), cursor(5, 9));
    rig.online();
    let unknown = status(wire::Lineage::Unknown, false);
    futures::executor::block_on(rig.store.damage(&[key("a")])).unwrap();
    rig.greet(Greeting {
        status: unknown,
        ..Greeting::at(position(6, 0, 0))
    });
    heal(&mut rig, &[], position(6, 0, 0), unknown);
    assert_eq!(rig.clean(), all[1..]);
    assert!(rig.notices.contains(&Notice::Damaged(vec![key("a")])));
    assert_eq!(rig.pushed().records, [all[1].clone().into()]);
    rig.judge(position(6, 1, 0), vec![held(1)]);
    rig.checkpoint(position(6, 1, 0));
    assert!(rig.verified());
}

/// As above, where the damage came after the decision to offer.
#[test]
fn offers_that_were_damaged_since_are_removed() {
    let mut rig = Rig::new();
    let all = vec![record("a", 1, Some("v")), record("b", 2, Some("w"))];
    rig.hold(all.clone(), cursor(5, 9));
    rig.online();
    let unknown = status(wire::Lineage::Unknown, false);
    rig.greet(Greeting {
        status: unknown,
        ..Greeting::at(position(6, 0, 0))
    });
    heal(&mut rig, &[], position(6, 0, 0), unknown);
    assert_eq!(rig.pushed().records.len(), 2);
    futures::executor::block_on(rig.store.damage(&[key("a")])).unwrap();
    rig.event(Event::Online(false));
    rig.online();
    rig.greet(Greeting::at(position(6, 0, 0)));
    // found when the offers were taken: the session begins anew, without it
    assert!(rig.notices.contains(&Notice::Damaged(vec![key("a")])));
    assert_eq!(rig.clean(), all[1..]);
    rig.event(Event::Token(TokenNews::Ready));
    rig.greet(Greeting::at(position(6, 0, 0)));
    assert_eq!(rig.pushed().records, [all[1].clone().into()]);
}

/// Holds `h/…`, and has written `x` long before the server's horizon.
fn with_an_old_stray() -> (Rig, Record, u64) {
    with_an_old_stray_of(Edit::Put(key("x"), "mine".into()), vec![])
}

/// Beside it, this is left of a time when its key was held.
fn with_an_old_stray_of(edit: Edit, left: Vec<Record>) -> (Rig, Record, u64) {
    let held = RangeSet::union(vec![KeyRange::prefix(b"h/").unwrap()]);
    let mut rig = Rig::holding(held, MemoryStore::new());
    rig.write(vec![edit]);
    let mine = rig.writes()[0].record.clone();
    let horizon = mine.version.time.0 + 1_000;
    rig.hold(left, cursor(1, 10));
    block_on(rig.store.transact(Reads::meta(), move |view| {
        let meta = Meta {
            horizon: Time(horizon),
            ..view.meta.clone()
        };
        let changes = Changes {
            meta: Some(meta),
            ..Changes::default()
        };
        (changes, ())
    }))
    .unwrap();
    rig.online();
    rig.greet(Greeting::at(position(1, 10, horizon)).equal());
    rig.judge(
        position(1, 10, horizon),
        vec![rejected(Reason::BehindCompaction)],
    );
    assert_eq!(rig.phase(), Phase::Healing);
    let Request::Reconcile(asked) = rig.last_call().1 else {
        panic!("no reconcile: {:?}", rig.last_call());
    };
    let [group] = &asked.held[..] else {
        panic!("one group: {:?}", asked.held);
    };
    assert_eq!(group.cursor, None);
    let only = wire::Range::from(&KeyRange::single(&key("x")));
    assert_eq!(group.ranges, [only]);
    (rig, mine, horizon)
}

#[test]
fn an_old_write_outside_the_held_ranges_is_reconciled_as_one_key_and_sent_anew() {
    let (mut rig, mine, horizon) = with_an_old_stray();
    let behind = status(wire::Lineage::Same, true);
    while rig.phase() == Phase::Healing {
        rig.reconcile(&[], position(1, 10, horizon), behind);
    }
    let sent = Record::try_from(rig.pushed().records[0].clone()).unwrap();
    assert_eq!(sent.version.time, Time(horizon));
    assert_eq!(sent.content, mine.content);
    // the held range stands where it stood (CLIENT-049)
    assert_eq!(rig.pushed().held[0].cursor, Some(cursor(1, 10).to_wire()));
    rig.judge(position(1, 11, horizon), vec![held(11)]);
    assert!(rig.writes().is_empty());
    assert_eq!(rig.phase(), Phase::CatchingUp);
}

/// Named as they were written, they were refused as malformed, again and again.
#[test]
fn old_writes_outside_the_held_ranges_are_reconciled_in_key_order() {
    let held = RangeSet::union(vec![KeyRange::prefix(b"h/").unwrap()]);
    let mut rig = Rig::holding(held, MemoryStore::new());
    rig.put("y", "first");
    rig.put("x", "second");
    let horizon = rig.writes()[1].record.version.time.0 + 1_000;
    rig.hold(vec![], cursor(1, 10));
    block_on(rig.store.transact(Reads::meta(), move |view| {
        let meta = Meta {
            horizon: Time(horizon),
            ..view.meta.clone()
        };
        let changes = Changes {
            meta: Some(meta),
            ..Changes::default()
        };
        (changes, ())
    }))
    .unwrap();
    rig.online();
    rig.greet(Greeting::at(position(1, 10, horizon)).equal());
    let refused = vec![rejected(Reason::BehindCompaction); 2];
    rig.judge(position(1, 10, horizon), refused);
    let Request::Reconcile(asked) = rig.last_call().1 else {
        panic!("no reconcile: {:?}", rig.last_call());
    };
    let starts: Vec<_> = asked.held[0].ranges.iter().map(|r| &r.start[..]).collect();
    assert_eq!(starts, [b"x", b"y"]);
}

/// It was pushed as it was, and refused and reconciled again, without an end.
#[test]
fn an_old_write_outside_the_held_ranges_is_sent_anew_where_an_older_record_stands() {
    let (mut rig, mine, horizon) = with_an_old_stray();
    let theirs = record("x", mine.version.time.0 - 1, Some("theirs"));
    let behind = status(wire::Lineage::Same, true);
    while rig.phase() == Phase::Healing {
        rig.reconcile(
            std::slice::from_ref(&theirs),
            position(1, 10, horizon),
            behind,
        );
    }
    let sent = Record::try_from(rig.pushed().records[0].clone()).unwrap();
    assert_eq!(sent.version.time, Time(horizon));
    assert_eq!(sent.content, mine.content);
}

/// Regression: the deletion had nothing to delete on the server, and what it
/// deleted here was seen again.
#[test]
fn an_old_deletion_outside_the_held_ranges_takes_what_is_left_there_along() {
    let left = record("x", 1, Some("left"));
    let (rig, _, horizon) = with_an_old_stray_of(Edit::Delete(key("x")), vec![left]);
    let x = || vec![key("x")];
    block_on(restamp_strays(&rig.store, ME, x(), x(), Time(horizon))).unwrap();
    assert!(rig.writes().is_empty());
    assert_eq!(rig.clean(), []);
}

#[test]
fn an_old_write_outside_the_held_ranges_loses_to_what_the_server_holds() {
    let (mut rig, mine, horizon) = with_an_old_stray();
    let theirs = record("x", mine.version.time.0 + 1, Some("theirs"));
    let behind = status(wire::Lineage::Same, true);
    while rig.phase() == Phase::Healing {
        rig.reconcile(
            std::slice::from_ref(&theirs),
            position(1, 10, horizon),
            behind,
        );
    }
    assert_eq!(rig.phase(), Phase::CatchingUp);
    assert!(rig.writes().is_empty());
    assert_eq!(rig.fates(), [Fate::Superseded]);
    assert_eq!(rig.clean(), [theirs]);
}

/// It stayed missing: no fingerprint tells, and the cursor says that the
/// replica had it.
#[test]
fn damage_is_healed_by_a_snapshot_where_the_server_does_not_reconcile() {
    let core = || Greeting {
        features: vec![],
        total: 2,
        ..Greeting::at(position(1, 9, 0))
    };
    let mut rig = Rig::new();
    rig.hold(
        vec![record("a", 1, Some("v")), record("b", 2, Some("w"))],
        cursor(1, 9),
    );
    rig.online();
    rig.greet(core());
    assert_eq!(rig.phase(), Phase::CatchingUp);
    block_on(rig.store.damage(&[key("b")])).unwrap();
    rig.event(Event::Damaged(vec![key("b")]));
    rig.event(Event::Token(TokenNews::Ready));
    rig.greet(core());
    assert_eq!(rig.phase(), Phase::Bootstrapping);
    assert!(matches!(rig.last_call().1, Request::Snapshot(_)));
}

/// Live, with these records in its store, and those of `a` to `c` held.
fn follows_a_to_c(stored: Vec<Record>) -> Rig {
    let narrow = RangeSet::new(vec![KeyRange::new(b"a", Some(b"c")).unwrap()]).unwrap();
    let mut rig = Rig::holding(narrow, MemoryStore::new());
    rig.hold(stored, cursor(1, 0));
    rig.online();
    rig.greet(Greeting::at(position(1, 0, 0)).equal());
    rig.checkpoint(position(1, 0, 0));
    rig
}

fn another_opening_holds_everything(rig: &Rig) {
    let space = SpaceId::new("test").unwrap();
    block_on(bind(&rig.store, space, RangeSet::all())).unwrap();
}

/// Everything, seed 6137 of the simulation: the session knew nothing of what had
/// been left in the store, confirmed it, and a later one took it for deleted.
#[test]
fn what_was_left_in_the_store_is_known_as_soon_as_another_opening_holds_its_range() {
    let left = record("x", 2, Some("left"));
    let mut rig = follows_a_to_c(vec![record("b", 1, Some("v")), left]);
    assert_eq!(rig.phase(), Phase::Live);
    assert_eq!(rig.engine.image().tree().len(), 1);

    another_opening_holds_everything(&rig);
    rig.put("b", "w");
    assert_eq!(rig.phase(), Phase::Authenticating, "a session begins anew");
    assert_eq!(rig.engine.image().tree().len(), 2);
    rig.event(Event::Token(TokenNews::Ready));
    let Request::Hello(hello) = rig.last_call().1 else {
        panic!("no Hello");
    };
    let ranges: usize = hello.held.iter().map(|h| h.ranges.len()).sum();
    assert_eq!(ranges, 3, "what was held keeps its cursor");
}

/// Everything, seed 9899 of the simulation: it ended with an error.
#[test]
fn a_verification_begins_anew_when_another_opening_holds_other_ranges() {
    let mut rig = follows_a_to_c(vec![record("b", 1, Some("v"))]);
    another_opening_holds_everything(&rig);

    rig.event(Event::Verify);
    rig.event(Event::Token(TokenNews::Ready));
    rig.greet(Greeting::at(position(1, 0, 0)));
    heal(&mut rig, &[], position(1, 0, 0), same());
    assert_eq!(
        rig.phase(),
        Phase::Authenticating,
        "the session was the old ranges'"
    );
    let interrupted = |n: &Notice| matches!(n, Notice::Interrupted(_));
    assert!(!rig.notices.iter().any(interrupted), "{:?}", rig.notices);
    rig.event(Event::Token(TokenNews::Ready));
    rig.greet(Greeting::at(position(1, 0, 0)).equal());
    heal(
        &mut rig,
        &[record("b", 1, Some("v"))],
        position(1, 0, 0),
        same(),
    );
    rig.checkpoint(position(1, 0, 0));
    let verified = |n: &Notice| matches!(n, Notice::Verified(_));
    assert!(rig.notices.iter().any(verified), "{:?}", rig.notices);
}

/// Everything, seed 38105 of the simulation: it was the verification itself that
/// met the other ranges, and nobody hashed anything.
#[test]
fn a_verification_that_finds_damage_in_other_ranges_than_it_knew_is_carried_out() {
    let mut rig = follows_a_to_c(vec![record("b", 1, Some("v"))]);
    another_opening_holds_everything(&rig);
    block_on(rig.store.damage(&[key("b")])).unwrap();

    rig.event(Event::Verify);
    let damaged = |n: &Notice| matches!(n, Notice::Damaged(keys) if *keys == [key("b")]);
    assert!(rig.notices.iter().any(damaged), "{:?}", rig.notices);
    assert_eq!(rig.phase(), Phase::Authenticating);
}
