//! Cursors against the history: compaction, restored backups, foreign stores.

use super::*;
use gosync_proto::history::Point;

fn refused(w: &World, held: Vec<HeldRanges>) -> wire::HistoryDetail {
    let refusal = w.watch(held).err().expect("must be refused");
    assert_eq!(refusal.reason, Reason::HistoryChanged);
    *refusal.history.unwrap()
}

#[test]
fn a_cursor_of_another_history_is_never_accepted() {
    let w = world();
    w.push(vec![put("a", 1, "")]);
    let head = w.head();
    let wrong_tag = wire::Cursor {
        tag: head.tag ^ 1,
        ..head
    };
    let ahead = wire::Cursor {
        sequence: 9,
        ..head
    };
    let foreign = wire::Cursor {
        epoch: head.epoch ^ 1,
        ..head
    };
    for cursor in [wrong_tag, ahead, foreign] {
        let detail = refused(&w, all_from(Some(cursor)));
        assert_eq!(detail.held[0].lineage(), wire::Lineage::Unknown);
        let hello = w.hello(all_from(Some(cursor)));
        assert_eq!(hello.held[0], detail.held[0]);
    }
    assert!(w.watch(all_from(Some(head))).is_ok());
    // the newest known commit counts as well
    let request = wire::WatchRequest {
        space: "space".into(),
        held: all_from(Some(head)),
        newest_commit: Some(ahead),
        ..Default::default()
    };
    let refusal = w.service.watch(&Access::full(), request).err().unwrap();
    assert_eq!(refusal.reason, Reason::HistoryChanged);
}

#[test]
fn a_restored_backup_is_seen_as_rewound_to_its_point() {
    let store = MemoryStore::new(Epoch(1));
    let service = |store: MemoryStore| {
        let store = Arc::new(store);
        Service::new(store, ServiceConfig::default(), counter())
    };
    let push = |service: &Service, record| {
        let request = wire::PushRequest {
            space: "space".into(),
            records: vec![record],
            ..Default::default()
        };
        let answer = service.push(&Access::full(), request, NOW).unwrap();
        answer.position.unwrap().head
    };
    let original = service(store.clone());
    let before = push(&original, put("a", 1, ""));
    let backup = store_of(&original);
    let after = push(&original, put("b", 1, ""));
    let restored = backup.clone();
    restored.begin_epoch(Epoch(2), NOW).unwrap();
    let restored = service(restored);
    let hello = |service: &Service, cursor| {
        let request = wire::HelloRequest {
            versions: vec![1],
            space: "space".into(),
            held: all_from(cursor),
            ..Default::default()
        };
        service.hello(&Access::full(), request, NOW).unwrap()
    };
    for (cursor, mapped) in [(before, 1), (after, 1)] {
        let hello = hello(&restored, cursor);
        assert_eq!(hello.held[0].lineage(), wire::Lineage::Rewound);
        assert_eq!(hello.held[0].mapped_sequence, mapped);
        assert_eq!(
            hello.restore_points,
            [wire::RestorePoint {
                epoch: 1,
                sequence: 1
            }]
        );
    }
    // a copy that nobody declared as restored: found out by the tag
    let copied = service(backup);
    push(&copied, put("c", 1, ""));
    let hello = hello(&copied, after);
    assert_eq!(hello.held[0].lineage(), wire::Lineage::Unknown);
}

/// A copy of what the service stores, as a backup is.
fn store_of(service: &Service) -> MemoryStore {
    let copy = MemoryStore::new(service.store().epoch().unwrap());
    let id = space();
    let mut tx = service.store().read(&id).unwrap();
    let head = tx.state().unwrap().position.head;
    let mut applied = Vec::new();
    tx.changes(0, &gosync_proto::RangeSet::all(), &mut |s| {
        applied.push(crate::store::Applied {
            record: s.record,
            digest: s.digest,
            replaces: None,
        });
        ControlFlow::Continue(())
    })
    .unwrap();
    drop(tx);
    let store: &dyn Store = &copy;
    let at = store
        .write(&id, move |tx| tx.commit(&applied, head.tag, NOW))
        .unwrap();
    assert_eq!(at.point, Point { ..head.point });
    copy
}

#[test]
fn compaction_puts_replicas_behind_that_have_not_seen_what_went() {
    let w = world();
    w.push(vec![put("a", 10, ""), put("b", 10, "")]);
    let early = w.head();
    w.push(vec![tombstone("a", 20)]);
    let seen = w.head();
    w.push(vec![put("c", 30, "")]);
    let mut follower = w.watch(all_from(Some(early))).unwrap();
    w.compact_until(25);
    let detail = refused(&w, all_from(Some(early)));
    assert_eq!(detail.held[0].lineage(), wire::Lineage::Same);
    assert!(detail.held[0].behind_compaction);
    assert_eq!(detail.position.unwrap().horizon, time(25));
    assert!(refused(&w, all_from(None)).held[0].behind_compaction);
    assert!(w.watch(all_from(Some(seen))).is_ok());
    // a watch that had not come past it yet ends
    let refusal = follower.step(NOW).unwrap_err();
    assert_eq!(refusal.reason, Reason::HistoryChanged);
}

#[test]
fn writes_below_the_horizon_are_refused_for_those_behind_only() {
    let w = world();
    w.push(vec![put("a", 10, ""), put("b", 10, "")]);
    let early = w.head();
    w.push(vec![tombstone("a", 20), put("c", 30, "")]);
    let seen = w.head();
    w.compact_until(25);
    let push = |held: Vec<HeldRanges>| {
        let request = wire::PushRequest {
            space: "space".into(),
            records: vec![
                put("a", 15, ""),
                put("b", 10, ""),
                put("b2", 24, ""),
                put("d", 25, ""),
            ],
            held,
            ..Default::default()
        };
        w.service.push(&Access::full(), request, NOW).unwrap()
    };
    let behind = Some(Reason::BehindCompaction);
    let response = push(all_from(Some(early)));
    assert_eq!(reasons(&response), [behind, None, behind, None]);
    assert_eq!(
        outcomes(&response)[1],
        Outcome::Unchanged,
        "merge comes first"
    );
    assert!(response.held[0].behind_compaction);
    // a key outside every range counts as behind
    let held = vec![HeldRanges {
        ranges: vec![range("a", "b")],
        cursor: Some(seen),
    }];
    assert_eq!(reasons(&push(held)), [None, None, behind, None]);
    assert_eq!(reasons(&push(all_from(Some(seen)))), [None; 4]);
}

#[test]
fn what_is_restamped_at_the_horizon_is_exempt_from_the_clock() {
    let w = world();
    let ahead = NOW + 250_000;
    w.push(vec![tombstone("a", ahead - 1), put("b", ahead, "")]);
    w.compact_until(ahead);
    let response = w.push_at(vec![put("a", ahead, "")], NOW);
    assert_eq!(outcomes(&response), [Outcome::Applied]);
}

#[test]
fn fingerprints_leave_out_tombstones_below_the_horizon() {
    let w = world();
    w.push(vec![
        tombstone("a", 10),
        tombstone("b", 30),
        put("c", 40, ""),
    ]);
    let count = || {
        let mut watch = w.watch(all_from(Some(w.head()))).unwrap();
        match drain(&mut watch).pop() {
            Some(Event::Checkpoint(c)) => (c.ranges[0].count, c.position.unwrap().horizon),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(count(), (3, 0));
    // the horizon passes a tombstone that is too young to be removed
    let options = CompactOptions {
        retention_ms: 1_000,
        max_step_ms: u64::MAX,
        reach: Reach::Until(Time::from_millis(20)),
    };
    let done = compact(&*w.subject.store, &space(), NOW, options).unwrap();
    assert_eq!((done.removed, done.to), (0, Time::from_millis(20)));
    assert_eq!(count(), (2, time(20)));
    // but a watch still delivers it
    let mut watch = w.watch(all_from(None)).unwrap();
    assert_eq!(keys(&changed(&drain(&mut watch))), ["a", "b", "c"]);
}

#[test]
fn a_follower_that_lags_asks_for_patience() {
    let w = world();
    w.push(vec![put("a", 1, "")]);
    let ahead = wire::Cursor {
        sequence: 9,
        ..w.head()
    };
    let held = Held::list_from_wire(&all_from(Some(ahead)), 9).unwrap();
    let mut tx = w.subject.store.read(&space()).unwrap();
    let refused = Standing::judge(&mut *tx, &held, None, false).unwrap_err();
    assert_eq!(refused.reason, Reason::Lagging);
    assert!(refused.retry_after_ms > 0);
}
