//! The server's store: commits, deletions, compaction, a new epoch.

use super::Subject;
use gosync_proto::history::Epoch;
use gosync_proto::{Content, Key, KeyRange, RangeSet, Record, ReplicaId, SpaceId, Time, Version};
use gosync_server::store::sqlite::{SqliteOptions, SqliteStore};
use gosync_server::store::{Applied, Compaction, Store, StoreError, WriteTx};
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::Path;

struct Server;

fn space(name: &str) -> SpaceId {
    SpaceId::new(name).unwrap()
}

/// Puts and deletions of a step, the values of every size.
fn records(step: usize) -> Vec<Record> {
    let record = |i: usize| {
        let content = match (step + i) % 4 {
            3 => Content::Tombstone,
            n => Content::Put(vec![step as u8; n * n * 700].into()),
        };
        Record {
            key: Key::new(format!("k{}", (step * 3 + i) % 10).into_bytes()).unwrap(),
            version: Version {
                time: Time((step * 10 + i + 1) as u64),
                replica: ReplicaId(7),
            },
            content,
        }
    };
    (0..3).map(record).collect()
}

fn commit(tx: &mut dyn WriteTx, step: usize) -> Result<(), StoreError> {
    let records = records(step);
    let keys: Vec<&Key> = records.iter().map(|r| &r.key).collect();
    let kept = tx.lookup(&keys)?;
    let applied: Vec<Applied> = records
        .into_iter()
        .zip(kept)
        .map(|(record, replaces)| Applied {
            digest: record.digest(),
            record,
            replaces,
        })
        .collect();
    tx.commit(&applied, step as u64 * 77, step as u64)?;
    Ok(())
}

impl Subject for Server {
    type Store = SqliteStore;
    type Error = StoreError;
    const STOPS: bool = true;
    const STEPS: usize = 10;

    fn open(path: &Path) -> Result<SqliteStore, StoreError> {
        let options = SqliteOptions {
            readers: 1,
            new_epoch: 11,
            now_ms: 1,
        };
        SqliteStore::open(path, options)
    }

    fn step(store: &SqliteStore, step: usize) -> Result<(), StoreError> {
        let store: &dyn Store = store;
        match step {
            4 => store.begin_epoch(Epoch(12), 5),
            7 => store.write(&space("a"), |tx| {
                tx.compact(Compaction {
                    horizon: Time(45),
                    arrived_until_ms: u64::MAX,
                    limit: 2,
                })?;
                Ok(())
            }),
            _ => {
                let space = space(if step % 3 == 2 { "b" } else { "a" });
                store.write(&space, move |tx| commit(tx, step))
            }
        }
    }

    fn content(store: &SqliteStore) -> Result<String, StoreError> {
        let store: &dyn Store = store;
        let mut text = format!("{:?}", store.epoch()?);
        for space in store.spaces()? {
            let mut tx = store.read(&space)?;
            let (state, ancestry) = (tx.state()?, tx.ancestry()?);
            let _ = write!(text, "\n{space} {state:?} {ancestry:?}");
            let head = state.head();
            let mut scanned = 0;
            tx.scan(&KeyRange::all(), None, &mut |_| {
                scanned += 1;
                ControlFlow::Continue(())
            })?;
            tx.changes(0, &RangeSet::all(), &mut |stored| {
                scanned -= 1;
                let _ = write!(text, "\n  {} {:?}", stored.sequence, stored.digest);
                ControlFlow::Continue(())
            })?;
            assert_eq!(scanned, 0, "both orders hold the same records");
            let _ = write!(text, "\n  head {:?}", tx.commit_until(head)?);
        }
        Ok(text)
    }

    fn stopped(store: &SqliteStore) -> bool {
        store.poisoned().is_some()
    }
}

#[test]
fn the_servers_store_survives_a_crash_at_each_change_of_the_disk() {
    super::survives_a_crash_at_each_change::<Server>();
}

#[test]
fn the_servers_store_survives_a_failure_of_each_operation_of_the_disk() {
    super::survives_a_failure_of_each_operation::<Server>();
}
