//! The server's store: commits, deletions, compaction, a new epoch, quarantine,
//! totals, a retired space, and whole files: backup and restore.

use super::{Subject, disk};
use gosync_faulty_disk::{Crash, Disk, Image};
use gosync_proto::history::Epoch;
use gosync_proto::{
    Content, Digest, Key, KeyRange, RangeSet, Record, ReplicaId, SpaceId, Time, Version,
};
use gosync_server::store::sqlite::{SqliteOptions, SqliteStore, WholeFiles, restore_on};
use gosync_server::store::{Applied, Compaction, Store, StoreError, WriteTx};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// A database and what it takes to replace its file, for which it is closed.
struct Server {
    disk: Disk,
    open: Option<SqliteStore>,
}

impl Server {
    /// Opened again where a step left it closed.
    fn store(&mut self) -> Result<&SqliteStore, StoreError> {
        let store = match self.open.take() {
            Some(store) => store,
            None => open(&self.disk)?,
        };
        Ok(self.open.insert(store))
    }

    fn write(
        &mut self,
        name: &str,
        work: impl FnOnce(&mut dyn WriteTx) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        let store: &dyn Store = self.store()?;
        store.write(&space(name), work)
    }
}

fn open(disk: &Disk) -> Result<SqliteStore, StoreError> {
    let options = SqliteOptions {
        readers: 1,
        new_epoch: 11,
        now_ms: 1,
    };
    SqliteStore::open(&disk.path("db"), options)
}

/// The files of a disk that crashes.
struct Files<'d>(&'d Disk);

impl WholeFiles for Files<'_> {
    fn exists(&self, path: &Path) -> bool {
        self.0.exists(path)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        self.0.sync(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn sync_folder(&self, _of: &Path) -> io::Result<()> {
        self.0.sync_folder()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
}

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
    let mut applied: Vec<Applied> = records
        .into_iter()
        .zip(kept)
        .map(|(record, replaces)| Applied {
            digest: record.digest(),
            record,
            replaces,
        })
        .collect();
    match step {
        // rots before anybody reads it
        SPOILS => applied[0].digest = Digest::ZERO,
        // totals that no longer say what is there
        MISCOUNTS => {
            for replaced in applied.iter_mut().filter_map(|a| a.replaces.as_mut()) {
                replaced.size += 1;
            }
        }
        _ => {}
    }
    tx.commit(&applied, step as u64 * 77, step as u64)?;
    Ok(())
}

fn quarantine(tx: &mut dyn WriteTx) -> Result<(), StoreError> {
    tx.scan(&KeyRange::all(), None, &mut |_| ControlFlow::Continue(()))?;
    let found = tx.take_damage();
    assert_eq!(tx.quarantine(&found, 6)?, 1);
    Ok(())
}

fn compact(tx: &mut dyn WriteTx) -> Result<(), StoreError> {
    let removed = tx.compact(Compaction {
        horizon: Time(45),
        arrived_until_ms: u64::MAX,
        limit: 2,
    })?;
    assert!(removed > 0);
    Ok(())
}

const SPOILS: usize = 3;
const MISCOUNTS: usize = 6;
const RESTORES: usize = 13;

impl Subject for Server {
    type Store = Server;
    type Error = StoreError;
    const STOPS: bool = true;
    const STEPS: usize = 16;

    fn open(disk: &Disk) -> Result<Server, StoreError> {
        Ok(Server {
            open: Some(open(disk)?),
            disk: disk.clone(),
        })
    }

    fn step(server: &mut Server, step: usize) -> Result<(), StoreError> {
        match step {
            4 => server.store()?.begin_epoch(Epoch(12), 5),
            5 => server.write("a", quarantine),
            7 => server.write("a", compact),
            8 => server.write("a", |tx| tx.recount()),
            9 => {
                let (disk, to) = (server.disk.clone(), server.disk.path("copy"));
                let store = server.store()?;
                store.backup_on(&Files(&disk), &to, &mut |_| ())
            }
            11 => server.store()?.rebuild_indexes(),
            12 => server.write("b", |tx| tx.retire(7)),
            RESTORES => {
                drop(server.open.take());
                let (from, to) = (server.disk.path("copy"), server.disk.path("db"));
                let files = Files(&server.disk);
                restore_on(&files, &from, &to, true, Epoch(13), 8, &mut |_| ())?;
                Ok(())
            }
            _ => server.write(if step % 3 == 2 { "b" } else { "a" }, move |tx| {
                commit(tx, step)
            }),
        }
    }

    fn in_doubt(step: usize) -> bool {
        step == RESTORES
    }

    fn content(server: &mut Server) -> Result<String, StoreError> {
        let mut text = content(server.store()?)?;
        // as it would be restored elsewhere; this disk is left as it is
        let image = server.disk.crash(Crash::Kept);
        if let Some(copy) = image.files.get("copy") {
            let elsewhere = disk(Image {
                files: BTreeMap::from([("db".to_owned(), Arc::clone(copy))]),
            });
            let _ = write!(text, "\nbackup: {}", content(&open(&elsewhere)?)?);
        }
        Ok(text)
    }

    fn stopped(server: &Server) -> bool {
        let store = server.open.as_ref();
        store.is_some_and(|store| store.poisoned().is_some())
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
        let set_aside = tx.quarantined(&KeyRange::all(), usize::MAX)?;
        let _ = write!(text, "\n  set aside {set_aside:?}");
        let _ = write!(text, "\n  head {:?}", tx.commit_until(head)?);
    }
    Ok(text)
}

#[test]
fn the_script_of_the_servers_store_reaches_what_it_is_to_reach() {
    let disk = disk(Image::default());
    let mut server = Server::open(&disk).unwrap();
    let mut contents = Vec::new();
    for step in 0..Server::STEPS {
        Server::step(&mut server, step).unwrap();
        contents.push(Server::content(&mut server).unwrap());
    }
    assert!(contents[5].contains("damaged: 1"));
    assert_ne!(contents[7], contents[8], "totals were wrong and are right");
    assert!(contents[9].contains("backup: Epoch(12)"));
    assert!(contents[12].contains("Retired"));
    let restored = contents[RESTORES].split("\nbackup").next().unwrap();
    assert!(restored.starts_with("Epoch(13)") && !restored.contains("Retired"));
}

#[test]
fn the_servers_store_survives_a_crash_at_each_change_of_the_disk() {
    super::survives_a_crash_at_each_change::<Server>();
}

#[test]
fn the_servers_store_survives_a_failure_of_each_operation_of_the_disk() {
    super::survives_a_failure_of_each_operation::<Server>();
}
