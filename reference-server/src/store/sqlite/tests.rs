//! What only a file can do: group commit, crashes, foreign and newer files,
//! rot, backup and restore.

use super::*;
use crate::store::contract::{key, spoil_file};
use crate::store::{Applied, WriteTx};
use gosync_proto::history::Cursor;
use gosync_proto::record::{Content, Record};
use gosync_proto::version::{ReplicaId, Time, Version};
use gosync_proto::{KeyRange, RangeSet};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Barrier, mpsc};

const OPTIONS: SqliteOptions = SqliteOptions {
    readers: 4,
    new_epoch: 11,
    now_ms: 1,
};

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn space() -> SpaceId {
    SpaceId::new("space").unwrap()
}

fn put(tx: &mut dyn WriteTx, name: &str, tag: u64) -> Result<Cursor> {
    let record = Record {
        key: key(name),
        version: Version {
            time: Time(tag),
            replica: ReplicaId(1),
        },
        content: Content::Put(name.to_owned().into()),
    };
    let replaces = tx.lookup(&[&record.key])?[0];
    let digest = record.digest();
    let applied = Applied {
        record,
        digest,
        replaces,
    };
    tx.commit(&[applied], tag, 1)
}

fn write(store: &SqliteStore, name: &str, tag: u64) -> Result<Cursor> {
    let name = name.to_owned();
    let store: &dyn Store = store;
    store.write(&space(), move |tx| put(tx, &name, tag))
}

fn names(store: &SqliteStore) -> Vec<String> {
    let mut found = Vec::new();
    let mut tx = store.read(&space()).unwrap();
    tx.changes(0, &RangeSet::all(), &mut |s| {
        found.push(s.record.key.to_string());
        ControlFlow::Continue(())
    })
    .unwrap();
    found
}

#[test]
fn concurrent_writers_share_commits_and_fail_alone() {
    let folder = folder();
    let store = SqliteStore::open(&folder.path().join("db"), OPTIONS).unwrap();
    let writers = 32;
    let each = 20;
    // holds the writer's thread until all have queued up once
    let (release, held) = mpsc::channel::<()>();
    let start = Barrier::new(writers + 1);
    std::thread::scope(|scope| {
        let (store, start) = (&store, &start);
        scope.spawn(move || {
            let gate: &dyn Store = store;
            gate.write(&SpaceId::new("gate").unwrap(), move |_| {
                let _ = held.recv();
                Ok(())
            })
            .unwrap();
        });
        for writer in 0..writers {
            scope.spawn(move || {
                start.wait();
                for i in 0..each {
                    write(store, &format!("{writer}/{i}"), 1).unwrap();
                    let failing: &dyn Store = store;
                    let failed = failing.write(&space(), move |tx| {
                        put(tx, &format!("{writer}/{i}/never"), 1)?;
                        Err::<(), _>(StoreError::Misuse("on purpose"))
                    });
                    assert!(matches!(failed, Err(StoreError::Misuse("on purpose"))));
                }
            });
        }
        start.wait();
        release.send(()).unwrap();
    });
    let state = store.read(&space()).unwrap().state().unwrap();
    assert_eq!(state.head(), (writers * each) as u64);
    assert_eq!(state.records, (writers * each) as u64);
    assert!(names(&store).iter().all(|name| !name.ends_with("never")));
    let stats = store.writer_stats();
    let commits = stats.commits.load(Ordering::Relaxed);
    let callers = stats.callers.load(Ordering::Relaxed);
    assert_eq!(callers, 2 * (writers * each) as u64 + 1);
    assert!(
        commits * 3 < callers,
        "{commits} commits for {callers} callers"
    );
}

#[test]
fn work_that_panics_leaves_nothing_and_stops_nobody() {
    let folder = folder();
    let store = SqliteStore::open(&folder.path().join("db"), OPTIONS).unwrap();
    let as_dyn: &dyn Store = &store;
    let outcome = as_dyn.write(&space(), |tx| -> Result<()> {
        put(tx, "a", 1)?;
        panic!("on purpose")
    });
    assert!(matches!(outcome, Err(StoreError::Misuse(_))));
    write(&store, "b", 1).unwrap();
    assert_eq!(names(&store), ["b"]);
}

#[test]
fn what_was_acknowledged_survives_a_crash_and_nothing_else_does() {
    let folder = folder();
    let path = folder.path().join("db");
    let store = SqliteStore::open(&path, OPTIONS).unwrap();
    let copy_to = |name: &str| {
        let crashed = folder.path().join(name);
        for suffix in ["", "-wal"] {
            let from = format!("{}{suffix}", path.display());
            std::fs::copy(from, format!("{}{suffix}", crashed.display())).unwrap();
        }
        crashed
    };
    let mut crashes = Vec::new();
    for i in 0..5u64 {
        write(&store, &format!("{i}"), i + 1).unwrap();
        // as the files lie on the disk after the acknowledgement
        crashes.push((copy_to(&format!("after{i}")), i + 1));
        // and in the middle of the next transaction
        let middle = folder.path().join(format!("middle{i}"));
        let (path, target) = (path.clone(), middle.clone());
        let as_dyn: &dyn Store = &store;
        let outcome = as_dyn.write(&space(), move |tx| {
            put(tx, "unfinished", 99)?;
            for suffix in ["", "-wal"] {
                let from = format!("{}{suffix}", path.display());
                let to = format!("{}{suffix}", target.display());
                std::fs::copy(from, to).map_err(|_| StoreError::Misuse("copy"))?;
            }
            Err::<(), _>(StoreError::Misuse("on purpose"))
        });
        assert!(matches!(outcome, Err(StoreError::Misuse("on purpose"))));
        crashes.push((middle, i + 1));
    }
    for (crashed, expected) in crashes {
        let store = SqliteStore::open(&crashed, OPTIONS).unwrap();
        let expected: Vec<_> = (0..expected).map(|i| i.to_string()).collect();
        assert_eq!(names(&store), expected, "{}", crashed.display());
        assert!(store.check_file().unwrap().is_empty());
        let state = store.read(&space()).unwrap().state().unwrap();
        assert_eq!(state.head(), expected.len() as u64);
        write(&store, "next", 50).unwrap();
    }
}

#[test]
fn a_torn_log_loses_no_more_than_what_was_torn() {
    let folder = folder();
    let path = folder.path().join("db");
    let store = SqliteStore::open(&path, OPTIONS).unwrap();
    for i in 0..10 {
        write(&store, &format!("{i}"), i + 1).unwrap();
    }
    let wal = std::fs::read(folder.path().join("db-wal")).unwrap();
    for cut in (0..wal.len()).step_by(wal.len() / 37) {
        let torn = folder.path().join(format!("torn{cut}"));
        std::fs::copy(&path, &torn).unwrap();
        std::fs::write(format!("{}-wal", torn.display()), &wal[..cut]).unwrap();
        match SqliteStore::open(&torn, OPTIONS) {
            // before the tables were made
            Ok(store) => {
                let found = names(&store);
                let expected: Vec<_> = (0..found.len()).map(|i| i.to_string()).collect();
                assert_eq!(found, expected, "a prefix of what was committed");
                assert!(store.check_file().unwrap().is_empty());
            }
            Err(e) => panic!("cut at {cut}: {e}"),
        }
    }
}

#[test]
fn a_store_keeps_its_epoch_over_restarts() {
    let folder = folder();
    let path = folder.path().join("db");
    for epoch in [11, 22] {
        let options = SqliteOptions {
            new_epoch: epoch,
            ..OPTIONS
        };
        let store = SqliteStore::open(&path, options).unwrap();
        assert_eq!(store.epoch().unwrap(), Epoch(11));
        write(&store, "a", epoch).unwrap();
    }
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let folder = folder();
    let path = folder.path().join("db");
    drop(SqliteStore::open(&path, OPTIONS).unwrap());
    let conn = Connection::open(&path).unwrap();
    conn.pragma_update(None, "user_version", SCHEMA_VERSION + 1)
        .unwrap();
    drop(conn);
    let before = std::fs::read(&path).unwrap();
    for refused in [
        SqliteStore::open(&path, OPTIONS).err(),
        SqliteStore::open_existing(&path).err(),
    ] {
        let refused = refused.unwrap();
        assert!(matches!(
            refused,
            StoreError::NewerSchema { found, known, .. } if found == known + 1
        ));
        assert!(refused.to_string().contains("start the newer server"));
    }
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn files_of_others_are_refused_and_left_alone() {
    let folder = folder();
    let text = folder.path().join("text");
    std::fs::write(
        &text,
        "this is no database, but it is long enough to look at\n".repeat(99),
    )
    .unwrap();
    let other = folder.path().join("other");
    Connection::open(&other)
        .unwrap()
        .execute_batch("CREATE TABLE t (x)")
        .unwrap();
    for path in [text, other] {
        let before = std::fs::read(&path).unwrap();
        let refused = SqliteStore::open(&path, OPTIONS).err().unwrap();
        assert!(matches!(refused, StoreError::Foreign { .. }), "{refused}");
        assert!(refused.to_string().contains(path.to_str().unwrap()));
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
    let missing = folder.path().join("no/such/folder/db");
    let refused = SqliteStore::open(&missing, OPTIONS).err().unwrap();
    assert!(refused.to_string().contains("check that its folder exists"));
    let refused = SqliteStore::open_existing(&missing).err().unwrap();
    assert!(refused.to_string().contains("there is no file"));
    // an empty file is a store that has not begun
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    assert!(SqliteStore::open(&empty, OPTIONS).is_ok());
}

#[test]
fn rotten_pages_are_an_error_and_never_a_panic() {
    let folder = folder();
    let path = folder.path().join("db");
    let store = SqliteStore::open(&path, OPTIONS).unwrap();
    for i in 0..500 {
        write(&store, &format!("{i:05}"), i + 1).unwrap();
    }
    drop(store);
    let sound = std::fs::read(&path).unwrap();
    let mut found = 0;
    for page in 1..sound.len() / 4096 {
        let mut rotten = sound.clone();
        rotten[page * 4096..(page + 1) * 4096].fill(0xa5);
        let copy = folder.path().join(format!("rotten{page}"));
        std::fs::write(&copy, rotten).unwrap();
        let outcome = SqliteStore::open(&copy, OPTIONS).and_then(|store| {
            let mut tx = store.read(&space())?;
            let mut seen = 0;
            let mut count = |_| {
                seen += 1;
                ControlFlow::Continue(())
            };
            tx.scan(&KeyRange::all(), None, &mut count)?;
            tx.changes(0, &RangeSet::all(), &mut |_| ControlFlow::Continue(()))?;
            let problems = store.check_file()?;
            Ok(seen < 500 || !problems.is_empty() || !tx.take_damage().is_empty())
        });
        match outcome {
            Ok(noticed) => found += usize::from(noticed),
            Err(StoreError::Corrupt(_) | StoreError::Foreign { .. } | StoreError::Failed(_)) => {
                found += 1;
            }
            Err(other) => panic!("page {page}: {other}"),
        }
    }
    assert!(found > 10, "{found} of {} pages", sound.len() / 4096);
}

#[test]
fn a_backup_is_one_moment_while_writers_go_on() {
    let folder = folder();
    let store = SqliteStore::open(&folder.path().join("db"), OPTIONS).unwrap();
    for i in 0..50 {
        write(&store, &format!("{i}"), i + 1).unwrap();
    }
    let backup = folder.path().join("backup");
    let mut during = 0;
    store
        .backup(&backup, &mut |progress| {
            during += 1;
            write(&store, &format!("during {during}"), 999).unwrap();
            assert!(progress.done <= progress.total && progress.total > 0);
        })
        .unwrap();
    assert!(during > 0);
    let again = store.backup(&backup, &mut |_| {}).unwrap_err();
    assert!(again.to_string().contains("exists already"));
    assert!(!folder.path().join("backup-wal").exists());
    let copy = SqliteStore::open_existing(&backup).unwrap();
    assert_eq!(names(&copy).len(), 50);
    assert!(copy.check_file().unwrap().is_empty());
}

/// The files of this machine, but names in folders cannot be made durable.
struct NamesAreLost;

impl WholeFiles for NamesAreLost {
    fn exists(&self, path: &Path) -> bool {
        OsFiles.exists(path)
    }

    fn sync(&self, path: &Path) -> std::io::Result<()> {
        OsFiles.sync(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        OsFiles.rename(from, to)
    }

    fn sync_folder(&self, _of: &Path) -> std::io::Result<()> {
        Err(std::io::Error::other("on purpose"))
    }

    fn remove(&self, path: &Path) -> std::io::Result<()> {
        OsFiles.remove(path)
    }
}

#[test]
fn a_backup_that_is_said_to_have_failed_is_not_there_and_is_made_by_the_next_try() {
    let folder = folder();
    let store = SqliteStore::open(&folder.path().join("db"), OPTIONS).unwrap();
    write(&store, "k", 1).unwrap();
    let backup = folder.path().join("backup");
    let failed = store.backup_on(&NamesAreLost, &backup, &mut |_| {});
    assert!(failed.unwrap_err().to_string().contains("on purpose"));
    assert!(!backup.exists());
    store.backup(&backup, &mut |_| {}).unwrap();
    assert_eq!(names(&SqliteStore::open_existing(&backup).unwrap()), ["k"]);
}

/// Where files have no shared memory, SQLite keeps a rollback journal and calls that
/// a success; a commit could then be rolled back by a crash.
#[cfg(unix)]
#[test]
fn a_store_that_cannot_keep_a_write_ahead_log_does_not_open() {
    let folder = folder();
    let file = folder.path().join("db");
    let without_log = format!("file:{}?vfs=unix-dotfile", file.display());
    let opened = SqliteStore::open(Path::new(&without_log), OPTIONS);
    let refused = opened.err().expect("no store");
    assert!(refused.to_string().contains("write-ahead log"), "{refused}");
    // and on files that have it, it does
    SqliteStore::open(&file, OPTIONS).unwrap();
}

#[test]
fn a_restore_begins_an_epoch_that_remembers_the_old_one() {
    let folder = folder();
    let path = folder.path().join("db");
    let backup = folder.path().join("backup");
    let store = SqliteStore::open(&path, OPTIONS).unwrap();
    write(&store, "kept", 1).unwrap();
    store.backup(&backup, &mut |_| {}).unwrap();
    write(&store, "lost", 2).unwrap();

    let bring_back = |overwrite| {
        let mut quiet = |_| {};
        restore(&backup, &path, overwrite, Epoch(22), 5, &mut quiet)
    };
    let refused = bring_back(false).unwrap_err();
    assert!(refused.to_string().contains("--overwrite"));
    let refused = bring_back(true).unwrap_err();
    assert!(matches!(refused, StoreError::Busy(_)), "{refused}");
    assert_eq!(names(&store), ["kept", "lost"], "it stayed as it was");
    drop(store);

    let done = bring_back(true).unwrap();
    assert_eq!((done.old_epoch, done.new_epoch), (Epoch(11), Epoch(22)));
    assert_eq!(done.spaces, [(space(), 1)]);
    assert_eq!(done.newest_commit_ms, Some(1));
    let store = SqliteStore::open(&path, OPTIONS).unwrap();
    assert_eq!(names(&store), ["kept"]);
    let ancestry = store.read(&space()).unwrap().ancestry().unwrap();
    assert_eq!(ancestry.epoch, Epoch(22));
    assert_eq!(ancestry.kept_until(Epoch(11)), Some(1));
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .filter(|e| {
            let name = e.as_ref().unwrap().file_name();
            name.to_string_lossy().contains("restoring")
        })
        .collect();
    assert!(left.is_empty());
}

#[test]
fn what_is_no_sound_backup_is_not_restored() {
    let folder = folder();
    let path = folder.path().join("db");
    let store = SqliteStore::open(&path, OPTIONS).unwrap();
    for i in 0..300 {
        write(&store, &format!("{i}"), i + 1).unwrap();
    }
    let backup = folder.path().join("backup");
    store.backup(&backup, &mut |_| {}).unwrap();
    drop(store);
    let before = std::fs::read(&path).unwrap();
    let mut bytes = std::fs::read(&backup).unwrap();
    let pages = bytes.len() / 4096;
    bytes[(pages - 3) * 4096..(pages - 1) * 4096].fill(0xff);
    let broken = folder.path().join("broken");
    std::fs::write(&broken, bytes).unwrap();
    let text = folder.path().join("text");
    std::fs::write(&text, "no database at all, only text\n".repeat(99)).unwrap();
    for from in [broken, text, folder.path().join("missing"), path.clone()] {
        let refused = restore(&from, &path, true, Epoch(3), 5, &mut |_| {});
        assert!(refused.is_err(), "{}", from.display());
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
    // a store beyond repair, on the other hand, may be replaced
    std::fs::write(&path, "wrecked".repeat(999)).unwrap();
    restore(&backup, &path, true, Epoch(3), 5, &mut |_| {}).unwrap();
    assert_eq!(
        names(&SqliteStore::open(&path, OPTIONS).unwrap()).len(),
        300
    );
}

#[test]
fn a_full_disk_refuses_writes_loses_nothing_and_ends_with_the_cause() {
    let folder = folder();
    let store = SqliteStore::open(&folder.path().join("db"), OPTIONS).unwrap();
    let limit = |pages: u32| {
        let set = move |conn: &Connection| {
            conn.pragma_update(None, "max_page_count", pages)
                .map_err(failed)
        };
        store.writer.global(Box::new(set)).unwrap();
    };
    limit(60);
    let mut acknowledged = Vec::new();
    let refused = loop {
        let name = format!("{:0200}", acknowledged.len());
        match write(&store, &name, 1) {
            Ok(_) => acknowledged.push(name),
            Err(e) => break e,
        }
    };
    assert!(matches!(refused, StoreError::Full(_)), "{refused}");
    assert_eq!(names(&store), acknowledged);
    assert!(store.poisoned().is_none());
    // callers that share the transaction fail together or succeed alone
    let more = std::sync::Mutex::new(acknowledged);
    std::thread::scope(|scope| {
        for i in 0..64 {
            let (store, more) = (&store, &more);
            scope.spawn(move || {
                let name = format!("{i:0400}");
                match write(store, &name, 1) {
                    Ok(_) => more.lock().unwrap().push(name),
                    Err(StoreError::Full(_)) => {}
                    Err(other) => panic!("{other}"),
                }
            });
        }
    });
    let mut acknowledged = more.into_inner().unwrap();
    let mut found = names(&store);
    acknowledged.sort();
    found.sort();
    assert_eq!(found, acknowledged);
    assert!(store.check_file().unwrap().is_empty());
    limit(10_000);
    write(&store, "after", 1).unwrap();
    assert_eq!(names(&store).len(), acknowledged.len() + 1);
}

#[test]
fn anyone_can_read_the_file() {
    let folder = folder();
    let path = folder.path().join("db");
    let store = SqliteStore::open(&path, OPTIONS).unwrap();
    write(&store, "todos\0one", 1 << 40).unwrap();
    let conn = Connection::open(&path).unwrap();
    let row: (String, i64, String, String, String) = conn
        .query_row(
            "SELECT space, sequence, key, kind, value FROM readable",
            [],
            |row| {
                Ok((
                    row.get(0)?,
                    row.get(1)?,
                    row.get(2)?,
                    row.get(3)?,
                    row.get(4)?,
                ))
            },
        )
        .unwrap();
    assert_eq!((&row.0[..], row.1, &row.3[..]), ("space", 1, "record"));
    assert_eq!(row.2, r#""todos\u0000one""#);
    assert!(row.4.starts_with("todos"));
}

#[test]
fn readers_are_lent_up_to_the_limit_and_come_back() {
    let folder = folder();
    let options = SqliteOptions {
        readers: 1,
        ..OPTIONS
    };
    let store = SqliteStore::open(&folder.path().join("db"), options).unwrap();
    write(&store, "a", 1).unwrap();
    for _ in 0..50 {
        assert_eq!(names(&store), ["a"]);
    }
    let (opened, wait_open) = mpsc::channel();
    let (close, wait_close) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let store = &store;
        scope.spawn(move || {
            let tx = store.read(&space()).unwrap();
            opened.send(()).unwrap();
            let _ = wait_close.recv();
            drop(tx);
        });
        wait_open.recv().unwrap();
        let waiting = scope.spawn(|| names(store));
        close.send(()).unwrap();
        assert_eq!(waiting.join().unwrap(), ["a"]);
    });
}

#[test]
fn content_spoiled_in_the_file_is_set_aside_in_the_file() {
    let folder = folder();
    let path = folder.path().join("db");
    let store = SqliteStore::open(&path, OPTIONS).unwrap();
    write(&store, "a", 1).unwrap();
    spoil_file(&path, &space(), &key("a"));
    let mut tx = store.read(&space()).unwrap();
    assert_eq!(tx.get(&key("a")).unwrap(), None);
    let damage = tx.take_damage();
    drop(tx);
    let as_dyn: &dyn Store = &store;
    let moved = as_dyn.write(&space(), move |tx| tx.quarantine(&damage, 7));
    assert_eq!(moved.unwrap(), 1);
    let conn = Connection::open(&path).unwrap();
    let found: (Vec<u8>, i64) = conn
        .query_row("SELECT key, found_ms FROM damaged", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!(found, (b"a".to_vec(), 7), "the evidence is kept");
}
