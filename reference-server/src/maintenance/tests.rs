//! Compaction's bounds, and what verification finds and mends.

use super::*;
use crate::service::{Access, Service, ServiceConfig};
use crate::store::contract::{self, key};
use crate::store::{Damage, Store};
use gosync_proto::record::FLAG_TOMBSTONE;
use gosync_proto::{Time, wire};

const DAY: u64 = 24 * 60 * 60 * 1000;
const NOW: u64 = 20_000 * DAY;

fn space() -> SpaceId {
    SpaceId::new("space").unwrap()
}

fn record(key: &str, ms: u64, flags: u32) -> wire::Record {
    wire::Record {
        key: key.into(),
        version: Some(wire::Version {
            time: Time::from_millis(ms).0,
            replica: 1,
        }),
        flags,
        value: Default::default(),
    }
}

fn push(store: &std::sync::Arc<dyn Store>, records: Vec<wire::Record>, now: u64) {
    let service = Service::new(store.clone(), ServiceConfig::default(), Box::new(|| 5));
    let request = wire::PushRequest {
        space: "space".into(),
        records,
        ..Default::default()
    };
    let answer = service.push(&Access::full(), request, now).unwrap();
    let applied = |v: &wire::Verdict| v.outcome() == wire::Outcome::Applied;
    assert!(answer.verdicts.iter().all(applied));
}

#[test]
fn the_horizon_moves_just_above_the_newest_tombstone_that_can_go() {
    let s = contract::memory();
    let old = vec![
        record("a", NOW - 20 * DAY, FLAG_TOMBSTONE),
        record("b", NOW - 10 * DAY, FLAG_TOMBSTONE),
    ];
    push(&s.store, old, NOW);
    push(&s.store, vec![record("c", NOW, FLAG_TOMBSTONE)], NOW + DAY);
    push(&s.store, vec![record("d", NOW + DAY, 0)], NOW + DAY);
    let run = |now| compact(&*s.store, &space(), now, CompactOptions::default()).unwrap();
    assert_eq!(run(NOW + 89 * DAY).removed, 0, "not old enough");
    assert_eq!(run(NOW + 89 * DAY).to, Time::ZERO);
    let done = run(NOW + 90 * DAY);
    assert_eq!(done.removed, 2);
    assert_eq!(done.to, Time(Time::from_millis(NOW - 10 * DAY).0 + 1));
    let done = run(NOW + 91 * DAY);
    assert_eq!(done.removed, 1);
    assert_eq!(run(NOW + 900 * DAY).from, done.to, "nothing more to do");
}

#[test]
fn the_horizon_moves_by_bounded_steps_and_never_past_the_newest_version() {
    let s = contract::memory();
    let tombstones = (0..10).map(|i| {
        let ms = NOW - 200 * DAY + i * 20 * DAY;
        record(&format!("{i}"), ms, FLAG_TOMBSTONE)
    });
    push(&s.store, tombstones.collect(), NOW);
    let mut steps = Vec::new();
    for _ in 0..20 {
        let options = CompactOptions {
            retention_ms: 0,
            ..Default::default()
        };
        let done = compact(&*s.store, &space(), NOW, options).unwrap();
        if done.removed == 0 {
            break;
        }
        if done.from > Time::ZERO {
            assert!(done.to.millis() - done.from.millis() <= 30 * DAY);
        }
        steps.push(done.removed);
    }
    // the newest version is a tombstone itself: it stays
    assert_eq!(steps.iter().sum::<u64>(), 9, "{steps:?}");
    let until = CompactOptions {
        retention_ms: 0,
        max_step_ms: u64::MAX,
        reach: Reach::Until(Time(u64::MAX)),
    };
    let done = compact(&*s.store, &space(), NOW, until).unwrap();
    assert_eq!(done.to, Time::from_millis(NOW - 20 * DAY));
}

#[test]
fn a_large_compaction_goes_in_batches() {
    let s = contract::sqlite();
    let keys = |range: std::ops::Range<u64>| {
        range
            .map(|i| record(&format!("{i:05}"), NOW - DAY, FLAG_TOMBSTONE))
            .collect()
    };
    push(&s.store, keys(0..4_500), NOW);
    push(&s.store, vec![record("z", NOW, 0)], NOW);
    let options = CompactOptions {
        retention_ms: 0,
        ..Default::default()
    };
    let done = compact(&*s.store, &space(), NOW, options).unwrap();
    assert_eq!(done.removed, 4_500);
    let state = s.store.read(&space()).unwrap().state().unwrap();
    assert_eq!((state.records, state.compacted_through), (1, 4_500));
}

#[test]
fn spaces_without_content_are_left_alone() {
    let s = contract::memory();
    let options = CompactOptions {
        retention_ms: 0,
        max_step_ms: u64::MAX,
        reach: Reach::Until(Time(u64::MAX)),
    };
    let done = compact(&*s.store, &space(), NOW, options).unwrap();
    assert_eq!((done.removed, done.to), (0, Time::ZERO));
    assert!(s.store.spaces().unwrap().is_empty());
}

#[test]
fn verify_names_what_is_damaged_and_repair_sets_it_aside() {
    for make in [contract::memory, contract::sqlite] {
        let s = make();
        let records: Vec<_> = ["a", "b", "c"]
            .map(|k| wire::Record {
                value: "value".into(),
                ..record(k, NOW, 0)
            })
            .to_vec();
        push(&s.store, records, NOW);
        let report = verify(&*s.store, &space()).unwrap();
        assert!(report.sound());
        assert_eq!(report.computed.count, 3);
        s.rot(&space(), &key("b"));
        let report = verify(&*s.store, &space()).unwrap();
        assert!(!report.sound());
        let expected = Damage {
            key: b"b".to_vec(),
            sequence: 2,
        };
        assert_eq!(report.damage, [expected]);
        assert_eq!(report.computed, report.kept);
        assert_eq!(repair(&*s.store, &report, NOW).unwrap(), 1);
        let report = verify(&*s.store, &space()).unwrap();
        assert!(report.sound(), "{report:?}");
        assert_eq!((report.computed.count, report.state.damaged), (2, 1));
    }
}

#[test]
fn a_tree_that_answers_otherwise_than_the_stored_bytes_is_no_sound_one() {
    for make in [contract::memory, contract::sqlite] {
        let s = make();
        let old = record("a", NOW - 10 * DAY, FLAG_TOMBSTONE);
        push(&s.store, vec![old, record("b", NOW, 0)], NOW);
        let options = CompactOptions {
            retention_ms: 0,
            ..Default::default()
        };
        compact(&*s.store, &space(), NOW, options).unwrap();
        push(&s.store, vec![record("c", NOW, FLAG_TOMBSTONE)], NOW);
        let report = verify(&*s.store, &space()).unwrap();
        assert_eq!(report.answered.count, 2);
        assert_eq!(report.answered, report.computed);
        assert!(report.sound());
        let mut other = report;
        other.answered.count += 1;
        assert!(!other.sound());
    }
}
