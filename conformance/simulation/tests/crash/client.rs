//! The client's store: writes, their acknowledgements, records from the
//! server with cursors, offers, quarantine.

use super::Subject;
use futures::executor::block_on;
use gosync_client::store::{
    Changes, Quarantined, Reads, SqliteStore, Store, StoreError, Stored, Write, WriteId,
};
use gosync_faulty_disk::Disk;
use gosync_proto::history::{Epoch, Point};
use gosync_proto::{Content, Key, KeyRange, Record, ReplicaId, Time, Version};
use rusqlite::Connection;

struct Client;

fn key(n: usize) -> Key {
    Key::new(format!("k{n}").into_bytes()).unwrap()
}

fn record(step: usize, n: usize) -> Record {
    Record {
        key: key(n),
        version: Version {
            time: Time(step as u64 + 1),
            replica: ReplicaId(7),
        },
        content: match n % 5 {
            4 => Content::Tombstone,
            n => Content::Put(vec![step as u8; n * n * 700].into()),
        },
    }
}

fn write(step: usize, n: usize) -> Write {
    Write::new(WriteId((step * 10 + n) as u64), record(step, n), None)
}

fn stored(step: usize, n: usize) -> Stored {
    let point = Point {
        epoch: Epoch(3),
        sequence: step as u64,
    };
    Stored::new(record(step, n), point, 0)
}

fn changes(step: usize) -> Changes {
    match step % 4 {
        // the application writes
        0 => Changes {
            put_writes: (0..5).map(|n| write(step, n)).collect(),
            ..Changes::default()
        },
        // the server acknowledges
        1 => Changes {
            put: (0..5).map(|n| stored(step, n)).collect(),
            remove_writes: (0..5).map(|n| write(step - 1, n).id).collect(),
            ..Changes::default()
        },
        // a reconciliation ends
        2 => Changes {
            remove: vec![key(0)],
            put_offers: vec![key(1), key(2)],
            put_quarantine: vec![Quarantined::unwritable(record(step, 0))],
            ..Changes::default()
        },
        _ => Changes {
            put: (3..8).map(|n| stored(step, n)).collect(),
            remove_offers: vec![key(1)],
            remove_quarantine: vec![key(0)],
            ..Changes::default()
        },
    }
}

impl Subject for Client {
    type Store = SqliteStore;
    type Error = StoreError;
    const STOPS: bool = false;
    const STEPS: usize = 12;

    fn open(disk: &Disk) -> Result<SqliteStore, StoreError> {
        SqliteStore::open(disk.path("db"))
    }

    fn in_doubt(_: usize) -> bool {
        false
    }

    fn step(store: &mut SqliteStore, step: usize) -> Result<(), StoreError> {
        block_on(store.transact(Reads::meta(), move |view| {
            let mut changes = changes(step);
            let mut meta = view.meta.clone();
            meta.next_write = step as u64;
            meta.floor = Time(step as u64);
            changes.meta = Some(meta);
            (changes, ())
        }))
    }

    fn content(store: &mut SqliteStore) -> Result<String, StoreError> {
        let everything = Reads {
            ranges: vec![KeyRange::all()],
            all_writes: true,
            offers: usize::MAX,
            all_quarantined: true,
            ..Reads::default()
        };
        let view = store.transact(everything, |view| {
            assert!(view.clean.values().all(Stored::intact));
            (Changes::default(), format!("{view:?}"))
        });
        let counts = block_on(store.counts())?;
        Ok(format!("{} {counts:?}", block_on(view)?))
    }

    fn stopped(_: &SqliteStore) -> bool {
        false
    }

    /// Schema 1; nothing is in quarantine at that time.
    fn age(disk: &Disk) {
        let older = Connection::open(disk.path("db")).unwrap();
        older
            .execute_batch(
                "BEGIN;
                 ALTER TABLE writes DROP COLUMN digest;
                 ALTER TABLE quarantine DROP COLUMN reason;
                 ALTER TABLE quarantine DROP COLUMN detail;
                 PRAGMA user_version = 1;
                 COMMIT;",
            )
            .unwrap();
    }
}

#[test]
fn the_clients_store_survives_a_crash_at_each_change_of_the_disk() {
    super::survives_a_crash_at_each_change::<Client>();
}

#[test]
fn the_clients_store_survives_a_failure_of_each_operation_of_the_disk() {
    super::survives_a_failure_of_each_operation::<Client>();
}
