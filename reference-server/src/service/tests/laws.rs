//! Random histories against a naive map: last writer wins, key by key.

use super::*;
use gosync_proto::merkle::Stream;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Act {
    Push(Vec<Record>, bool),
    Compact { until_ms: u64, retention_ms: u64 },
    Forget,
    Reopen(u64),
}

fn record() -> impl Strategy<Value = Record> {
    let key = prop::collection::vec(0u8..3, 1..4);
    let content = prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..3));
    (key, 1u64..30, 0u64..3, content).prop_map(|(key, ms, replica, value)| Record {
        key: Key::new(key).unwrap(),
        version: Version {
            time: Time::from_millis(ms),
            replica: ReplicaId(replica),
        },
        content: value.map_or(Content::Tombstone, |v| Content::Put(v.into())),
    })
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (prop::collection::vec(record(), 0..8), any::<bool>()).prop_map(|(mut records, atomic)| {
            records.sort_by(|a, b| a.key.cmp(&b.key));
            records.dedup_by(|a, b| a.key == b.key);
            Act::Push(records, atomic)
        }),
        1 => (0u64..35, 0u64..3).prop_map(|(until_ms, retention_ms)| Act::Compact { until_ms, retention_ms }),
        1 => Just(Act::Forget),
        1 => any::<u64>().prop_map(Act::Reopen),
    ]
}

/// Everything that can be asked about a state, against the model.
fn check(w: &World, model: &BTreeMap<Key, Record>, split: &[u8]) -> Result<(), TestCaseError> {
    let mut tx = w.subject.store.read(&space()).unwrap();
    let state = tx.state().unwrap();
    let horizon = state.position.horizon;
    let mut found = BTreeMap::new();
    let mut last = 0;
    tx.changes(0, &gosync_proto::RangeSet::all(), &mut |s| {
        assert!(s.sequence > last && s.sequence <= state.head());
        last = s.sequence;
        found.insert(s.record.key.clone(), s.record);
        ControlFlow::Continue(())
    })
    .unwrap();
    prop_assert_eq!(&found, model);
    prop_assert_eq!(state.records, model.len() as u64);
    let bytes: usize = model.values().map(Record::size).sum();
    prop_assert_eq!(state.bytes, bytes as u64);
    drop(tx);
    for range in [
        KeyRange::all(),
        KeyRange::new(split, None).unwrap(),
        KeyRange::new(b"", Some(split)).unwrap(),
    ] {
        let mut naive = Stream::new();
        for (key, record) in model {
            let counts = !(record.is_tombstone() && record.version.time < horizon);
            if range.contains(key.as_bytes()) && counts {
                naive.push(key.as_bytes(), record.digest()).unwrap();
            }
        }
        let (cached, _) = w
            .service
            .with_tree(&space(), |tree, _| tree.summary(&range))
            .unwrap();
        prop_assert_eq!(cached, naive.finish(), "{:?}", range);
    }
    Ok(())
}

fn run(subject: Subject, acts: Vec<Act>, split: Vec<u8>) -> Result<(), TestCaseError> {
    let w = world_on(subject, Limits::default());
    let mut model: BTreeMap<Key, Record> = BTreeMap::new();
    let mut cursors = vec![None];
    let mut sequence = 0;
    for (i, act) in acts.into_iter().enumerate() {
        match act {
            Act::Push(records, atomic) => {
                let request = wire::PushRequest {
                    space: "space".into(),
                    records: records.iter().cloned().map(Into::into).collect(),
                    atomic,
                    // up to date: nothing is refused for compaction
                    held: all_from(Some(w.head())),
                    ..Default::default()
                };
                let response = w.service.push(&Access::full(), request, NOW + i as u64);
                for (record, verdict) in records.into_iter().zip(response.unwrap().verdicts) {
                    let wins = model
                        .get(&record.key)
                        .is_none_or(|held| record.merge_against(held) == gosync_proto::Merge::Wins);
                    prop_assert_eq!(verdict.outcome() == Outcome::Applied, wins);
                    if wins {
                        sequence += 1;
                        prop_assert_eq!(verdict.sequence, sequence, "gap-free");
                        model.insert(record.key.clone(), record);
                    }
                }
                prop_assert_eq!(w.head().sequence, sequence);
                cursors.push(Some(w.head()));
            }
            Act::Compact {
                until_ms,
                retention_ms,
            } => {
                let options = CompactOptions {
                    retention_ms,
                    max_step_ms: u64::MAX,
                    reach: Reach::Until(Time::from_millis(until_ms)),
                };
                compact(&*w.subject.store, &space(), NOW + i as u64, options).unwrap();
                let mut tx = w.subject.store.read(&space()).unwrap();
                let newest = tx.state().unwrap().newest_time;
                prop_assert!(tx.state().unwrap().position.horizon <= newest);
                // what went is what the store says went: never a put
                let mut left = Vec::new();
                tx.digests(&KeyRange::all(), &mut |d| {
                    left.push(d.key.to_vec());
                    ControlFlow::Continue(())
                })
                .unwrap();
                let horizon = tx.state().unwrap().position.horizon;
                model.retain(|key, record| {
                    let kept = left.contains(&key.as_bytes().to_vec());
                    assert!(kept || record.is_tombstone() && record.version.time < horizon);
                    kept
                });
            }
            Act::Forget => w.service.spaces().forget(&space()),
            Act::Reopen(split) => {
                // from any cursor a watch yields exactly what the replica lacks
                let cursor = cursors[(split % cursors.len() as u64) as usize];
                let after = cursor.map_or(0, |c: wire::Cursor| c.sequence);
                match w.watch(all_from(cursor)) {
                    Err(refusal) => prop_assert_eq!(refusal.reason, Reason::HistoryChanged),
                    Ok(mut watch) => {
                        let got = changed(&drain(&mut watch));
                        let mut tx = w.subject.store.read(&space()).unwrap();
                        let mut expected = Vec::new();
                        tx.changes(after, &gosync_proto::RangeSet::all(), &mut |s| {
                            expected.push(wire::Record::from(s.record));
                            ControlFlow::Continue(())
                        })
                        .unwrap();
                        prop_assert_eq!(got, expected);
                    }
                }
            }
        }
        check(&w, &model, &split)?;
    }
    let report = crate::maintenance::verify(&*w.subject.store, &space()).unwrap();
    prop_assert!(report.sound(), "{:?}", report);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_history_in_memory_equals_the_naive_map(acts in prop::collection::vec(act(), 1..25), split in prop::collection::vec(0u8..3, 1..3)) {
        run(contract::memory(), acts, split)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_history_in_sqlite_equals_the_naive_map(acts in prop::collection::vec(act(), 1..15), split in prop::collection::vec(0u8..3, 1..3)) {
        run(contract::sqlite(), acts, split)?;
    }
}
