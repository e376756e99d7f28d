//! Work that fails at each single operation of a transaction, by an error and
//! by a panic, on every store: nothing of it may remain.

use super::contract::{Subject, key, memory, sqlite};
use super::*;
use gosync_proto::version::ReplicaId;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How work ends before its time.
#[derive(Clone, Copy, PartialEq, Debug)]
enum End {
    Error,
    Panic,
}

/// A transaction in which only so many operations succeed.
struct Failing<'t> {
    tx: &'t mut dyn WriteTx,
    left: usize,
    end: End,
}

impl<'t> Failing<'t> {
    /// The next operation, or the end.
    fn next(&mut self) -> Result<&mut (dyn WriteTx + 't)> {
        match (self.left, self.end) {
            (0, End::Error) => Err(StoreError::Failed("on purpose".into())),
            (0, End::Panic) => panic!("on purpose"),
            _ => {
                self.left -= 1;
                Ok(self.tx)
            }
        }
    }

    fn put(&mut self, name: &str, time: u64, content: Content) -> Result<()> {
        let record = Record {
            key: key(name),
            version: Version {
                time: Time(time),
                replica: ReplicaId(3),
            },
            content,
        };
        let replaces = self.next()?.lookup(&[&record.key])?[0];
        let digest = match name.starts_with("spoilt") {
            true => Digest::ZERO,
            false => record.digest(),
        };
        let applied = Applied {
            record,
            digest,
            replaces,
        };
        self.next()?.commit(&[applied], time, time)?;
        Ok(())
    }
}

/// Everything that a transaction can do, and once more over what it did.
fn work(tx: &mut Failing<'_>) -> Result<()> {
    for round in 0..2u64 {
        let time = 100 + 10 * round;
        tx.put("old", time, Content::Tombstone)?;
        tx.put("new", time + 1, Content::Put("v".into()))?;
        tx.put("spoilt1", time + 2, Content::Put("v".into()))?;
        let damage = {
            let tx = tx.next()?;
            tx.scan(&KeyRange::all(), None, &mut |_| ControlFlow::Continue(()))?;
            tx.take_damage()
        };
        assert!(tx.next()?.quarantine(&damage, 5)? > 0);
        let compaction = Compaction {
            horizon: Time(time + 1),
            arrived_until_ms: u64::MAX,
            limit: 1,
        };
        assert_eq!(tx.next()?.compact(compaction)?, 1);
        tx.next()?.recount()?;
    }
    tx.next()?.retire(9)?;
    tx.next().map(drop)
}

/// Everything that a reader can see of a space.
fn content(store: &dyn Store, space: &SpaceId) -> String {
    let mut tx = store.read(space).unwrap();
    let mut seen = Vec::new();
    let all = KeyRange::all();
    tx.digests(&all, &mut |d| {
        seen.push(format!("{d:?}"));
        ControlFlow::Continue(())
    })
    .unwrap();
    tx.changed_digests(0, &mut |d| {
        seen.push(format!("{d:?}"));
        ControlFlow::Continue(())
    })
    .unwrap();
    let state = tx.state().unwrap();
    let commits: Vec<_> = (0..=state.head() + 5)
        .map(|at| (tx.tag_at(at).unwrap(), tx.commit_until(at).unwrap()))
        .collect();
    let quarantined = tx.quarantined(&all, usize::MAX).unwrap();
    let ancestry = tx.ancestry().unwrap();
    let spaces = store.spaces().unwrap();
    format!("{state:?} {ancestry:?} {commits:?} {quarantined:?} {seen:?} {spaces:?}")
}

fn leaves_nothing_behind(subject: &Subject) {
    let store = &*subject.store;
    let before = SpaceId::new("before").unwrap();
    // something stands there already, some of it damaged and some set aside
    for round in 0..3 {
        store
            .write(&before, move |tx| {
                let mut tx = Failing {
                    tx,
                    left: usize::MAX,
                    end: End::Error,
                };
                tx.put("old", round + 1, Content::Tombstone)?;
                let name = format!("spoilt{round}");
                tx.put(&name, round + 1, Content::Put("v".into()))?;
                if round == 1 {
                    let damage = vec![Damage {
                        key: name.into_bytes(),
                        sequence: tx.tx.state()?.head(),
                    }];
                    tx.tx.quarantine(&damage, 4)?;
                }
                Ok(())
            })
            .unwrap();
    }
    for (space, end) in [
        (before.clone(), End::Error),
        (before, End::Panic),
        (SpaceId::new("none").unwrap(), End::Error),
        (SpaceId::new("none").unwrap(), End::Panic),
    ] {
        let stood = content(store, &space);
        let mut operations = 0;
        loop {
            let attempt = catch_unwind(AssertUnwindSafe(|| {
                store.write(&space, move |tx| {
                    let left = operations;
                    work(&mut Failing { tx, left, end })?;
                    // all succeeded; the last to fail is the work itself
                    Err::<(), _>(StoreError::Misuse("at the end"))
                })
            }));
            let told = format!("{space} after {operations} operations, {end:?}");
            let failed = attempt.expect("whoever writes is told").unwrap_err();
            assert_eq!(content(store, &space), stood, "{told}");
            if matches!(failed, StoreError::Misuse("at the end")) {
                break;
            }
            operations += 1;
        }
        assert!(operations > 20, "only {operations} operations");
    }
}

#[test]
fn work_that_fails_at_any_operation_leaves_nothing_behind_in_memory() {
    leaves_nothing_behind(&memory());
}

#[test]
fn work_that_fails_at_any_operation_leaves_nothing_behind_in_sqlite() {
    leaves_nothing_behind(&sqlite());
}
