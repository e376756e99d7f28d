//! Watch, Snapshot, Hello and Reconcile.

use super::*;
use gosync_proto::merkle::{Summary, Tree};
use gosync_proto::{RangeSet, reconcile};

fn checkpoint(events: &[Event]) -> &wire::Checkpoint {
    match events.last() {
        Some(Event::Checkpoint(c)) => c,
        other => panic!("no checkpoint at the end: {other:?}"),
    }
}

fn summary(records: &[wire::Record]) -> Summary {
    let mut tree = Tree::new();
    for record in records {
        let record = Record::try_from(record.clone()).unwrap();
        tree.insert(record.key.as_bytes(), record.digest());
    }
    tree.settle();
    tree.total()
}

#[test]
fn a_watch_catches_up_then_says_what_the_replica_should_hold() {
    let w = world();
    w.push(vec![put("a", 1, "1"), put("b", 1, "2")]);
    w.push(vec![put("a", 2, "3"), tombstone("c", 1)]);
    let mut watch = w.watch(all_from(None)).unwrap();
    let events = drain(&mut watch);
    let records = changed(&events);
    assert_eq!(keys(&records), ["b", "a", "c"]);
    let Event::Changes(changes) = &events[0] else {
        panic!("{events:?}")
    };
    assert_eq!(changes.cursor, Some(w.head()));
    let checkpoint = checkpoint(&events);
    assert_eq!(checkpoint.position.unwrap().head, Some(w.head()));
    let expected = summary(&records);
    assert_eq!(checkpoint.ranges[0].count, expected.count);
    assert_eq!(checkpoint.ranges[0].fingerprint, expected.fingerprint.0);
    // then live
    assert_eq!(watch.step(NOW).unwrap(), None);
    w.push(vec![put("d", 1, "")]);
    assert_eq!(keys(&changed(&drain(&mut watch))), ["d"]);
    watch.want_checkpoint();
    assert_eq!(drain(&mut watch).len(), 1);
}

#[test]
fn a_push_wakes_the_feed() {
    let w = world();
    let watch = w.watch(all_from(None)).unwrap();
    let mut feed = watch.feed();
    feed.mark_unchanged();
    w.push(vec![put("a", 1, "")]);
    assert!(feed.has_changed().unwrap());
    feed.mark_unchanged();
    w.push(vec![put("a", 1, "")]);
    assert!(!feed.has_changed().unwrap(), "nothing was committed");
}

#[test]
fn small_messages_end_with_commits_where_they_can() {
    let w = world();
    for commit in 0..3 {
        let key = |i| format!("{commit}{i}");
        let big = "x".repeat(20_000);
        w.push((0..5).map(|i| put(&key(i), 1, &big)).collect());
    }
    let request = wire::WatchRequest {
        space: "space".into(),
        held: all_from(None),
        max_response_bytes: 150_000,
        until_caught_up: true,
        ..Default::default()
    };
    let mut watch = w.service.watch(&Access::full(), request.clone()).unwrap();
    let events = drain(&mut watch);
    let cursors = |events: &[Event]| -> Vec<(usize, Option<u64>)> {
        let changes = events.iter().filter_map(|e| match e {
            Event::Changes(c) => Some((c.records.len(), c.cursor.map(|c| c.sequence))),
            _ => None,
        });
        changes.collect()
    };
    assert_eq!(
        cursors(&events),
        [(5, Some(5)), (5, Some(10)), (5, Some(15))]
    );
    assert_eq!(events.last(), Some(&Event::End(wire::StreamEnd::default())));
    assert!(watch.finished());
    // a commit that does not fit goes on in the next message
    let request = wire::WatchRequest {
        max_response_bytes: 70_000,
        ..request
    };
    let mut watch = w.service.watch(&Access::full(), request).unwrap();
    let events = drain(&mut watch);
    assert_eq!(changed(&events).len(), 15);
    let ends: Vec<_> = cursors(&events).iter().map(|(_, c)| *c).collect();
    assert_eq!(ends.last(), Some(&Some(15)));
    assert_eq!(ends[0], None, "the first commit was cut");
    let ended: Vec<_> = ends.into_iter().flatten().collect();
    assert!(ended.iter().all(|c| c % 5 == 0), "{ended:?}");
}

#[test]
fn ranges_with_different_cursors_each_get_what_they_lack() {
    let w = world();
    w.push(vec![put("a1", 1, ""), put("b1", 1, "")]);
    let first = w.head();
    w.push(vec![put("a2", 1, ""), put("b2", 1, ""), put("c", 1, "")]);
    let held = vec![
        HeldRanges {
            ranges: vec![range("b", "c")],
            cursor: Some(first),
        },
        HeldRanges {
            ranges: vec![range("a", "b")],
            cursor: None,
        },
    ];
    let mut watch = w.watch(held).unwrap();
    let events = drain(&mut watch);
    assert_eq!(keys(&changed(&events)), ["a1", "a2", "b2"]);
    let counts: Vec<_> = checkpoint(&events).ranges.iter().map(|r| r.count).collect();
    assert_eq!(counts, [2, 2], "in the order of the request");
    // what happens elsewhere moves the cursor without a message
    w.push(vec![put("d", 1, "")]);
    assert_eq!(drain(&mut watch), []);
    let Some(Event::Heartbeat(beat)) = watch.heartbeat(NOW).event else {
        panic!()
    };
    assert_eq!(beat.cursor, Some(w.head()));
    let Some(Event::Heartbeat(set_back)) = watch.heartbeat(NOW - 60_000).event else {
        panic!()
    };
    assert_eq!(set_back.server_time_ms, NOW, "as versions are judged");
}

/// `clocks`, seed 0 of the simulation: every replica refused those records as dated
/// too far ahead, until that time came.
#[test]
fn what_a_clock_that_ran_ahead_let_in_lies_within_the_time_that_is_told_once_it_is_right() {
    let w = world();
    let ahead = NOW + 3_600_000;
    let taken = w.push_at(vec![put("a", ahead, "")], ahead);
    assert_eq!(outcomes(&taken), [Outcome::Applied]);
    let hello = w.hello(all_from(None)).server_time_ms;
    let push = w.push(vec![put("b", 1, "")]).server_time_ms;
    let mut watch = w.watch(all_from(None)).unwrap();
    let checkpoint = checkpoint(&drain(&mut watch)).server_time_ms;
    let Some(Event::Heartbeat(beat)) = watch.heartbeat(NOW).event else {
        panic!()
    };
    assert_eq!([hello, push, checkpoint, beat.server_time_ms], [ahead; 4]);
}

#[test]
fn damage_met_by_a_watch_is_set_aside_and_shows_in_the_checkpoint() {
    for make in [contract::memory, contract::sqlite] {
        let w = world_on(make(), Limits::default());
        w.push(vec![put("a", 1, "1"), put("b", 1, "2")]);
        let mut follower = w.watch(all_from(None)).unwrap();
        let events = drain(&mut follower);
        assert_eq!(checkpoint(&events).ranges[0].count, 2);
        w.subject.rot(&space(), &Key::new(*b"a").unwrap());
        let events = drain(&mut w.watch(all_from(None)).unwrap());
        assert_eq!(keys(&changed(&events)), ["b"]);
        assert_eq!(checkpoint(&events).ranges[0].count, 1);
        assert_eq!(w.service.damage_found(), 1);
        // nothing was committed: whoever holds the record learns all the same
        // that it is missed
        let events = drain(&mut follower);
        assert_eq!(checkpoint(&events).ranges[0].count, 1);
        let (events, _) = w.snapshot(wire::SnapshotRequest {
            held: all_from(None),
            ..Default::default()
        });
        let SnapshotEvent::Start(start) = &events[0] else {
            panic!("{events:?}")
        };
        assert_eq!(start.wanted, [range("a", "a\0")]);
        // a replica that has it heals it
        w.push(vec![put("a", 1, "1")]);
        follower.want_checkpoint();
        let events = drain(&mut follower);
        assert_eq!(keys(&changed(&events)), ["a"]);
        assert_eq!(checkpoint(&events).ranges[0].count, 2);
    }
}

#[test]
fn a_snapshot_is_in_key_order_complete_and_resumable() {
    for make in [contract::memory, contract::sqlite] {
        let w = world_on(make(), Limits::default());
        let key = |i: u64| format!("{:04}", i * 7919 % 1000);
        w.push((0..1000).map(|i| put(&key(i), 1, "value")).collect());
        w.push(vec![tombstone("0500", 2), tombstone("9999", 2)]);
        let request = wire::SnapshotRequest {
            held: all_from(Some(w.head())),
            max_response_bytes: 4096,
            ..Default::default()
        };
        let (events, end) = w.snapshot(request.clone());
        assert_eq!(end, None);
        let (start, records, complete) = parts(&events);
        assert!(events.len() > 10, "many small messages");
        assert_eq!(records.len(), 1001);
        assert!(records.is_sorted_by(|a, b| a.key < b.key));
        assert_eq!(start.total_records, 1001);
        let bytes: usize = records.iter().map(|r| r.key.len() + r.value.len()).sum();
        assert_eq!(start.total_bytes, bytes as u64);
        assert_eq!(start.held[0].lineage(), wire::Lineage::Same);
        let expected = summary(&records);
        assert_eq!(complete.ranges[0].fingerprint, expected.fingerprint.0);
        let resumed = wire::SnapshotRequest {
            after_key: Some(b"0500".to_vec()),
            ..request
        };
        let (events, end) = w.snapshot(resumed);
        assert_eq!(end, None);
        let (start, rest, complete) = parts(&events);
        assert_eq!(rest, records[501..]);
        assert_eq!(start.total_records, 500);
        assert_eq!(complete.ranges[0].count, 1001, "of the whole range");
    }
}

fn parts(
    events: &[SnapshotEvent],
) -> (
    &wire::SnapshotStart,
    Vec<wire::Record>,
    &wire::SnapshotComplete,
) {
    let [
        SnapshotEvent::Start(start),
        chunks @ ..,
        SnapshotEvent::Complete(complete),
        SnapshotEvent::End(end),
    ] = events
    else {
        panic!("{events:?}")
    };
    assert_eq!(*end, wire::StreamEnd::default());
    let mut records = Vec::new();
    for chunk in chunks {
        match chunk {
            SnapshotEvent::Chunk(c) => records.extend(c.records.iter().cloned()),
            other => panic!("{other:?}"),
        }
    }
    (start, records, complete)
}

/// Everything, seeds 37637 and 40913 of the simulation: the tombstone came from
/// a device that had left it in a range which it did not hold for a while. Where
/// it was compacted, the replica that had the record took it for deleted, and
/// nobody had it any more.
#[test]
fn damage_is_asked_back_although_an_older_tombstone_came_and_was_compacted() {
    for make in [contract::memory, contract::sqlite] {
        let w = world_on(make(), Limits::default());
        w.push(vec![put("a", 5, "1"), put("b", 9, "2")]);
        w.subject.rot(&space(), &Key::new(*b"a").unwrap());
        let pushed = w.push(vec![tombstone("a", 4)]);
        assert_eq!(outcomes(&pushed), [Outcome::Applied]);
        w.compact_until(8);
        let (events, _) = w.snapshot(wire::SnapshotRequest {
            held: all_from(None),
            ..Default::default()
        });
        let (start, records, _) = parts(&events);
        assert_eq!(keys(&records), ["b"]);
        assert!(start.held[0].behind_compaction);
        assert_eq!(start.wanted, [range("a", "a\0")]);
    }
}

#[test]
fn damage_met_by_a_snapshot_ends_it_and_the_resumed_one_lists_it() {
    let w = world();
    w.push(vec![put("a", 1, "1"), put("b", 1, "2"), put("c", 1, "3")]);
    w.subject.rot(&space(), &Key::new(*b"b").unwrap());
    let request = wire::SnapshotRequest {
        held: all_from(None),
        ..Default::default()
    };
    let (events, end) = w.snapshot(request.clone());
    assert_eq!(end.unwrap().reason, Reason::Storage);
    assert!(!matches!(events.last(), Some(SnapshotEvent::Complete(_))));
    let (events, end) = w.snapshot(request);
    assert_eq!(end, None);
    let (start, records, complete) = parts(&events);
    assert_eq!(keys(&records), ["a", "c"]);
    assert_eq!(start.wanted, [range("b", "b\0")]);
    assert_eq!(
        complete.ranges[0].fingerprint,
        summary(&records).fingerprint.0
    );
}

#[test]
fn a_snapshot_ascends_whatever_the_order_of_the_request() {
    let w = world();
    w.push(["a", "b", "c"].map(|k| put(k, 1, "")).to_vec());
    let held = [range("c", "d"), range("a", "b")].map(|r| HeldRanges {
        ranges: vec![r],
        cursor: None,
    });
    let (events, _) = w.snapshot(wire::SnapshotRequest {
        held: held.to_vec(),
        after_key: Some(vec![]),
        ..Default::default()
    });
    let (start, records, complete) = parts(&events);
    assert_eq!(keys(&records), ["a", "c"]);
    assert_eq!(start.total_records, 2);
    let c = summary(&records[1..]).fingerprint.0;
    assert_eq!(complete.ranges[0].fingerprint, c, "in the request's order");
}

#[test]
fn a_snapshot_nobody_listens_to_stops() {
    let w = world();
    w.push((0..100).map(|i| put(&format!("{i}"), 1, "v")).collect());
    let request = wire::SnapshotRequest {
        space: "space".into(),
        held: all_from(None),
        max_response_bytes: 1,
        ..Default::default()
    };
    let mut seen = 0;
    w.service
        .snapshot(&Access::full(), &request, NOW, &mut |_| {
            seen += 1;
            if seen == 3 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .unwrap();
    assert_eq!(seen, 3);
}

#[test]
fn hello_tells_where_the_space_stands_and_what_is_equal() {
    let w = world();
    w.push(vec![put("a", 1, "1"), put("b", 1, "2")]);
    let mut request = wire::HelloRequest {
        versions: vec![1, 9],
        features: vec![2, 77],
        space: "space".into(),
        held: vec![HeldRanges {
            ranges: vec![range("a", "b"), range("b", "c")],
            cursor: Some(w.head()),
        }],
        fingerprints: vec![
            summary(&[put("a", 1, "1")]).fingerprint.0.to_vec(),
            vec![9; 32],
        ],
        ..Default::default()
    };
    let hello =
        |request: &wire::HelloRequest| w.service.hello(&Access::full(), request.clone(), NOW);
    let answer = hello(&request).unwrap();
    assert_eq!(answer.equal, [true, false]);
    assert_eq!(answer.version, 1);
    assert_eq!(answer.features, [2]);
    assert_eq!(answer.total_records, 2);
    assert_eq!(answer.held.len(), 1);
    assert_eq!(answer.limits, Some(Limits::default().to_wire()));
    assert_eq!(answer.server_time_ms, NOW);
    let set_back = w
        .service
        .hello(&Access::full(), request.clone(), NOW - 60_000)
        .unwrap();
    assert_eq!(set_back.server_time_ms, NOW, "as versions are judged");
    assert_eq!(answer.grants.len(), 1);
    request.horizon = 1;
    assert!(hello(&request).unwrap().equal.is_empty(), "another horizon");
    request.fingerprints.pop();
    assert_eq!(hello(&request).unwrap_err().reason, Reason::Malformed);
    request.versions = vec![2];
    let refused = hello(&request).unwrap_err();
    assert_eq!(refused.reason, Reason::UnsupportedVersion);
}

#[test]
fn a_space_that_does_not_exist_reads_as_empty() {
    let w = world();
    let hello = w.hello(all_from(None));
    assert_eq!(hello.position.unwrap().head.unwrap().sequence, 0);
    let events = drain(&mut w.watch(all_from(None)).unwrap());
    assert_eq!(checkpoint(&events).ranges[0].count, 0);
    assert_eq!(checkpoint(&events).ranges[0].fingerprint, [0; 32]);
    assert!(w.subject.store.spaces().unwrap().is_empty());
}

#[test]
fn ranges_outside_the_grant_are_refused_by_every_reading_call() {
    let w = world();
    let access = Access::new(vec![(b"mine/".to_vec(), Right::Write)]);
    let held = || all_from(None);
    let space = || "space".to_owned();
    let watch = wire::WatchRequest {
        space: space(),
        held: held(),
        ..Default::default()
    };
    let hello = wire::HelloRequest {
        versions: vec![1],
        space: space(),
        held: held(),
        ..Default::default()
    };
    let snapshot = wire::SnapshotRequest {
        space: space(),
        held: held(),
        ..Default::default()
    };
    let reconcile = wire::ReconcileRequest {
        space: space(),
        held: held(),
        ..Default::default()
    };
    let s = &w.service;
    let mut ignore = |_| ControlFlow::Continue(());
    for refused in [
        s.watch(&access, watch).err(),
        s.hello(&access, hello, NOW).err(),
        s.snapshot(&access, &snapshot, NOW, &mut ignore).err(),
        s.reconcile(&access, &reconcile, NOW).err(),
    ] {
        assert_eq!(refused.unwrap().reason, Reason::NoAccess);
    }
}

#[test]
fn a_reconcile_request_of_another_horizon_or_without_sense_is_refused() {
    let w = world();
    w.push(vec![put("a", 1, "")]);
    let request = wire::ReconcileRequest {
        space: "space".into(),
        held: all_from(None),
        horizon: 5,
        ..Default::default()
    };
    let reconcile =
        |r: &wire::ReconcileRequest| w.service.reconcile(&Access::full(), r, NOW).unwrap_err();
    let refused = reconcile(&request);
    assert_eq!(refused.reason, Reason::HorizonChanged);
    let history = refused.history.unwrap();
    assert_eq!(history.position.unwrap().head, Some(w.head()));
    let nonsense = wire::ReconcileRequest {
        horizon: 0,
        parts: vec![0xff; 30],
        ..request
    };
    assert_eq!(reconcile(&nonsense).reason, Reason::Malformed);
}

#[test]
fn a_descent_finds_what_differs_and_lists_what_is_damaged() {
    for make in [contract::memory, contract::sqlite] {
        let w = world_on(make(), Limits::default());
        let record = |i: u32| put(&format!("{i:05}"), 1, "value");
        w.push((0..3000).map(record).collect());
        w.subject.rot(&space(), &Key::new(*b"00100").unwrap());
        // the replica lacks 7 and has 5000 and 100 (which rotted on the server)
        let mut tree = Tree::new();
        for i in (0..3000).filter(|&i| i != 7).chain([5000]) {
            let r = Record::try_from(record(i)).unwrap();
            tree.insert(r.key.as_bytes(), r.digest());
        }
        tree.settle();
        let found = session(&w, &tree);
        assert_eq!(keys(&found.received), ["00007"]);
        assert_eq!(found.lacking, [b"05000".to_vec()]);
        // nothing reads the value of an equal record: the damage stays unseen
        // until somebody does, here another replica's bootstrap
        w.snapshot(wire::SnapshotRequest {
            held: all_from(None),
            ..Default::default()
        });
        let found = session(&w, &tree);
        assert_eq!(found.lacking, [b"00100".to_vec(), b"05000".to_vec()]);
        assert_eq!(found.wanted, [range("00100", "00100\0")]);
    }
}

struct Found {
    received: Vec<wire::Record>,
    lacking: Vec<Vec<u8>>,
    wanted: Vec<Range>,
}

/// One whole session of a replica that holds `tree`.
fn session(w: &World, tree: &Tree) -> Found {
    let mut found = Found {
        received: Vec::new(),
        lacking: Vec::new(),
        wanted: Vec::new(),
    };
    let options = reconcile::Options::new(&Limits::default());
    let mut initiator = reconcile::Initiator::new(&RangeSet::all(), 99, options);
    while let Some(request) = initiator.next_request(tree).unwrap() {
        let request = wire::ReconcileRequest {
            space: "space".into(),
            held: all_from(None),
            ..request
        };
        let answer = w.service.reconcile(&Access::full(), &request, NOW).unwrap();
        assert_eq!(answer.position.unwrap().head, Some(w.head()));
        let step = initiator.handle_response(tree, answer).unwrap();
        found
            .received
            .extend(step.records.into_iter().map(Into::into));
        found.wanted.extend(step.wanted.iter().map(Range::from));
        let lacking = step.lacking.into_iter();
        found
            .lacking
            .extend(lacking.map(|l| l.key.as_bytes().to_vec()));
    }
    assert!(initiator.is_done());
    found
}
