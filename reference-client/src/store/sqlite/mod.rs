//! The native store: one SQLite file, written by one thread and read by
//! another (WAL), synced to disk at each commit. Its tables are readable with
//! any SQLite tool; 64-bit numbers stand in them as signed ones.

mod rows;

use super::{
    Changes, Counts, Leaf, Meta, Page, Reads, SCHEMA_VERSION, Store, StoreError, View, Write,
    WriteId,
};
use crate::platform::MaybeSend;
use futures::channel::oneshot;
use gosync_proto::{Digest, Key, KeyRange, Time, mutant};
use rows::*;
use rusqlite::{Connection, OpenFlags, Row, TransactionBehavior, params};
use std::path::Path;
use std::sync::{Arc, mpsc};

/// A store in one SQLite file (beside it, while it is open, SQLite keeps
/// `-wal` and `-shm` files). Clones share the two connections.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    writer: Worker,
    reader: Worker,
}

impl SqliteStore {
    /// Opens the file, or makes it with an empty store.
    ///
    /// # Errors
    /// [`StoreError::NewerSchema`] for a file of a newer version of the
    /// software; [`StoreError::Io`] when the path cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<SqliteStore, StoreError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let mut writer = Connection::open(path).map_err(|e| at(&name, e))?;
        prepare(&mut writer, &name)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let reader = Connection::open_with_flags(path, flags).map_err(|e| at(&name, e))?;
        configure(&reader).map_err(|e| at(&name, e))?;
        Ok(SqliteStore {
            writer: Worker::start(writer, "gosync-store-write")?,
            reader: Worker::start(reader, "gosync-store-read")?,
        })
    }
}

fn at(path: &str, e: rusqlite::Error) -> StoreError {
    match StoreError::from(e) {
        StoreError::Io(detail) => StoreError::Io(format!("{path}: {detail}")),
        other => other,
    }
}

fn configure(c: &Connection) -> rusqlite::Result<()> {
    c.busy_timeout(std::time::Duration::from_secs(10))?;
    c.set_prepared_statement_cache_capacity(64);
    c.pragma_update(None, "cache_size", -16_000)
}

fn prepare(c: &mut Connection, name: &str) -> Result<(), StoreError> {
    configure(c).map_err(|e| at(name, e))?;
    // no mutation before the version is known
    let found: u32 = c
        .pragma_query_value(None, "user_version", |r| r.get(0))
        .map_err(|e| at(name, e))?;
    if found > SCHEMA_VERSION {
        return Err(StoreError::NewerSchema {
            store: name.to_owned(),
            found,
            supported: SCHEMA_VERSION,
        });
    }
    c.pragma_update(None, "journal_mode", "WAL")
        .map_err(|e| at(name, e))?;
    c.pragma_update(None, "synchronous", "FULL")
        .map_err(|e| at(name, e))?;
    // pages that change often are copied back less often: 16 MiB of log
    c.pragma_update(None, "wal_autocheckpoint", 4096)
        .map_err(|e| at(name, e))?;
    let tx = c
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(|e| at(name, e))?;
    // another process may have made the tables meanwhile
    let found: u32 = tx
        .pragma_query_value(None, "user_version", |r| r.get(0))
        .map_err(|e| at(name, e))?;
    if found == 0 {
        tx.execute_batch(TABLES).map_err(|e| at(name, e))?;
        tx.execute(
            "INSERT INTO meta (id, row) VALUES (1, ?1)",
            params![Meta::default().encode()],
        )
        .map_err(|e| at(name, e))?;
    }
    for (version, step) in [(2, SCHEMA_2), (3, SCHEMA_3)] {
        if (1..version).contains(&found) {
            tx.execute_batch(step).map_err(|e| at(name, e))?;
        }
    }
    if found < SCHEMA_VERSION {
        tx.pragma_update(None, "user_version", SCHEMA_VERSION)
            .map_err(|e| at(name, e))?;
    }
    tx.execute_batch(INDEXES).map_err(|e| at(name, e))?;
    // refuses a meta row of a newer schema, or none at all
    read_meta(&tx)?;
    tx.commit().map_err(|e| at(name, e))?;
    check_log(c, name)
}

/// When the switch to a write-ahead log fails, SQLite goes on without one and
/// says nothing; a commit may then be lost in a crash.
fn check_log(c: &Connection, name: &str) -> Result<(), StoreError> {
    let frames: i64 = c
        .query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get(1))
        .map_err(|e| at(name, e))?;
    match frames {
        ..0 => Err(StoreError::Io(format!(
            "{name}: SQLite cannot keep a write-ahead log there: the disk failed, or is a network's"
        ))),
        _ => Ok(()),
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(e: rusqlite::Error) -> StoreError {
        use rusqlite::ErrorCode::{DatabaseCorrupt, DiskFull, NotADatabase};
        match e.sqlite_error_code() {
            Some(DiskFull) => StoreError::Full(e.to_string()),
            Some(DatabaseCorrupt | NotADatabase) => StoreError::Corrupt(e.to_string()),
            _ => StoreError::Io(e.to_string()),
        }
    }
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A thread that owns a connection. It ends when the last handle is dropped.
#[derive(Clone, Debug)]
struct Worker {
    jobs: Arc<mpsc::Sender<Job>>,
}

impl Worker {
    fn start(mut connection: Connection, name: &str) -> Result<Worker, StoreError> {
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                for job in queue {
                    job(&mut connection);
                }
            })
            .map_err(|e| StoreError::Io(format!("cannot start the store's thread: {e}")))?;
        Ok(Worker {
            jobs: Arc::new(jobs),
        })
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run_and_clear(move |c| job(c).map(|result| (result, ())))
            .await
    }

    /// Likewise, for a job that leaves something behind: it is dropped when the
    /// result is on its way, since thousands of records take their time.
    async fn run_and_clear<T: Send + 'static, L>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<(T, L), StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (done, result) = oneshot::channel();
        self.jobs
            .send(Box::new(move |c| {
                let (result, _left) = match job(c) {
                    Ok((result, left)) => (Ok(result), Some(left)),
                    Err(error) => (Err(error), None),
                };
                // nobody may be waiting any more: the job is done all the same
                let _ = done.send(result);
            }))
            .map_err(|_| StoreError::Closed)?;
        result.await.map_err(|_| StoreError::Closed)?
    }
}

impl Store for SqliteStore {
    async fn transact<T, F>(&self, reads: Reads, decide: F) -> Result<T, StoreError>
    where
        T: MaybeSend + 'static,
        F: FnOnce(&View) -> (Changes, T) + MaybeSend + 'static,
    {
        self.writer
            .run_and_clear(move |c| {
                if mutant!(CommittedLater) && !c.is_autocommit() {
                    c.execute_batch("COMMIT")?;
                }
                let tx = c.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let view = read_view(&tx, &reads)?;
                let (changes, result) = decide(&view);
                apply(&tx, &changes)?;
                if mutant!(CommittedLater) && !changes.put_writes.is_empty() {
                    std::mem::forget(tx);
                    return Ok((result, (view, changes)));
                }
                tx.commit().map_err(|e| match StoreError::from(e) {
                    StoreError::Io(detail) => StoreError::InDoubt(detail),
                    other => other,
                })?;
                Ok((result, (view, changes)))
            })
            .await
    }

    async fn page(
        &self,
        range: &KeyRange,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let (start, end) = (lower(range, after), range.end().map(<[u8]>::to_vec));
        let limit = limit.max(1);
        self.reader
            .run(move |c| {
                // one snapshot for all tables
                let tx = c.transaction()?;
                let mut clean = clean_in(&tx, &start, end.as_deref(), limit.saturating_add(1))?;
                let next = (clean.len() > limit).then(|| {
                    clean.truncate(limit);
                    clean[limit - 1].record.key.clone()
                });
                let covered = next.as_ref().map(Key::successor).or(end);
                Ok(Page {
                    clean,
                    writes: writes_in(&tx, &start, covered.as_deref())?,
                    quarantine: quarantined_in(&tx, &start, covered.as_deref())?,
                    next,
                })
            })
            .await
    }

    async fn leaves(
        &self,
        range: &KeyRange,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Leaf>, StoreError> {
        fn leaf(row: &Row<'_>) -> rusqlite::Result<Option<Leaf>> {
            let Some(key) = key(row, 0)? else {
                return Ok(None);
            };
            Ok(Some(Leaf {
                key,
                digest: Digest::try_from(bytes(row, 1)?).unwrap_or(Digest::ZERO),
                time: Time(number(row, 2)? as u64),
                tombstone: number(row, 3)? != 0,
            }))
        }
        let (start, end) = (lower(range, after), range.end().map(<[u8]>::to_vec));
        let limit = limit.max(1);
        self.reader
            .run(move |c| {
                let sql =
                    "SELECT key, digest, time, tombstone FROM clean WHERE {range} ORDER BY key";
                in_range(c, sql, &start, end.as_deref(), leaf, limit)
            })
            .await
    }

    async fn writes(&self, after: Option<WriteId>, limit: usize) -> Result<Vec<Write>, StoreError> {
        self.work_on_writes(after, limit, |writes| writes).await
    }

    async fn work_on_writes<T, F>(
        &self,
        after: Option<WriteId>,
        limit: usize,
        work: F,
    ) -> Result<T, StoreError>
    where
        T: MaybeSend + 'static,
        F: FnOnce(Vec<Write>) -> T + MaybeSend + 'static,
    {
        self.reader
            .run(move |c| {
                let sql = format!("SELECT {WRITE} FROM writes WHERE id > ?1 ORDER BY id LIMIT ?2");
                let mut statement = c.prepare_cached(&sql)?;
                let after = after.map_or(-1, |id| id.0 as i64);
                let limit = i64::try_from(limit).unwrap_or(i64::MAX);
                let mut rows = statement.query(params![after, limit])?;
                let mut out = Vec::new();
                while let Some(row) = rows.next()? {
                    out.extend(write(row)?);
                }
                Ok(work(out))
            })
            .await
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        self.reader
            .run(|c| {
                // without a condition SQLite counts by pages, not by rows
                let sql = "SELECT (SELECT count(*) FROM writes), \
                           (SELECT count(*) FROM writes WHERE rejected IS NOT NULL), \
                           (SELECT count(*) FROM writes WHERE in_doubt <> 0), \
                           (SELECT count(*) FROM offers), \
                           (SELECT count(*) FROM quarantine)";
                Ok(c.prepare_cached(sql)?.query_row([], |r| {
                    let n = |i| r.get::<_, i64>(i).map(|n| n as u64);
                    let rejected = n(1)?;
                    Ok(Counts {
                        waiting: n(0)?.saturating_sub(rejected),
                        rejected,
                        in_doubt: n(2)?,
                        offers: n(3)?,
                        quarantined: n(4)?,
                    })
                })?)
            })
            .await
    }

    async fn damage(&self, keys: &[Key]) -> Result<(), StoreError> {
        let keys = keys.to_vec();
        self.writer
            .run(move |c| {
                let tx = c.transaction()?;
                {
                    let mut statement = tx.prepare_cached(
                        "UPDATE clean SET tombstone = 0, value = value || x'ff' WHERE key = ?1",
                    )?;
                    for key in &keys {
                        statement.execute(params![key.as_bytes()])?;
                    }
                }
                Ok(tx.commit()?)
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Quarantined, Stored};
    use gosync_proto::history::{Epoch, Point};
    use gosync_proto::{Content, Record};

    #[tokio::test]
    async fn the_sqlite_store_keeps_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        super::super::contract::check("sqlite", async |name| {
            SqliteStore::open(dir.path().join(name)).unwrap()
        })
        .await;
    }

    #[test]
    fn a_file_of_a_newer_version_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("newer.db");
        drop(SqliteStore::open(&path).unwrap());
        let c = Connection::open(&path).unwrap();
        c.pragma_update(None, "user_version", SCHEMA_VERSION + 1)
            .unwrap();
        drop(c);
        let error = SqliteStore::open(&path).unwrap_err();
        assert!(
            matches!(error, StoreError::NewerSchema { found, .. } if found == SCHEMA_VERSION + 1),
            "{error}"
        );
    }

    /// A store that somebody else changed past the software.
    fn changed(sql: &str) -> (tempfile::TempDir, std::path::PathBuf, Connection) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.db");
        drop(SqliteStore::open(&path).unwrap());
        let c = Connection::open(&path).unwrap();
        c.execute_batch(sql).unwrap();
        (dir, path, c)
    }

    #[tokio::test]
    async fn a_store_of_schema_1_keeps_its_quarantine_and_takes_reasons_from_now_on() {
        let (_dir, path, c) = changed(
            "ALTER TABLE writes DROP COLUMN digest;
             ALTER TABLE quarantine DROP COLUMN reason;
             ALTER TABLE quarantine DROP COLUMN detail;
             INSERT INTO quarantine VALUES (x'6b', 5, 6, 1, x'');
             PRAGMA user_version = 1;",
        );
        drop(c);
        let record = Record {
            key: Key::new(&b"k"[..]).unwrap(),
            version: version(5, 6),
            content: Content::Tombstone,
        };
        let old = Quarantined {
            record: record.clone(),
            reason: None,
            detail: String::new(),
        };
        let new = Quarantined::unwritable(record);
        for (found, put) in [(old, new.clone()), (new.clone(), new)] {
            let store = SqliteStore::open(&path).unwrap();
            let page = store.page(&KeyRange::all(), None, 9).await.unwrap();
            assert_eq!(page.quarantine, [found]);
            let put = Changes {
                put_quarantine: vec![put],
                ..Changes::default()
            };
            store
                .transact(Reads::meta(), move |_| (put, ()))
                .await
                .unwrap();
        }
    }

    #[tokio::test]
    async fn writes_of_schema_2_get_their_digests_when_they_are_read() {
        let (_dir, path, c) = changed(
            "ALTER TABLE writes DROP COLUMN digest;
             INSERT INTO writes VALUES (1, x'6b', 5, 6, 0, x'76', NULL, NULL, NULL, 0);
             PRAGMA user_version = 2;",
        );
        let record = Record {
            key: Key::new(&b"k"[..]).unwrap(),
            version: version(5, 6),
            content: Content::Put("v".into()),
        };
        let write = Write::new(WriteId(1), record, None);
        let store = SqliteStore::open(&path).unwrap();
        let read = store.writes(None, 9).await.unwrap();
        assert_eq!(read, std::slice::from_ref(&write));
        // a new version brings another one, which is kept
        let later = write.restamped(version(7, 6));
        assert_ne!(later.digest, write.digest);
        let put = Changes {
            put_writes: vec![later.clone()],
            ..Changes::default()
        };
        store
            .transact(Reads::meta(), move |_| (put, ()))
            .await
            .unwrap();
        let read = store.writes(None, 9).await.unwrap();
        assert_eq!(read, std::slice::from_ref(&later));
        let kept: Vec<u8> = c
            .query_row("SELECT digest FROM writes", [], |row| row.get(0))
            .unwrap();
        assert_eq!(kept, later.digest.0);
    }

    /// Where files have no shared memory, SQLite keeps a rollback journal and calls
    /// that a success; a commit could then be rolled back by a crash.
    #[cfg(unix)]
    #[test]
    fn a_store_that_cannot_keep_a_write_ahead_log_does_not_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let without_log = format!("file:{}?vfs=unix-dotfile", path.display());
        let refused = SqliteStore::open(without_log).unwrap_err();
        assert!(refused.to_string().contains("write-ahead log"), "{refused}");
        // and on files that have it, it does
        SqliteStore::open(path).unwrap();
    }

    #[test]
    fn what_is_no_store_is_a_typed_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text.db");
        std::fs::write(&path, "this is no database, whatever its name says").unwrap();
        assert!(matches!(
            SqliteStore::open(&path),
            Err(StoreError::Corrupt(_))
        ));
        assert!(matches!(
            SqliteStore::open(dir.path().join("no/such/folder")),
            Err(StoreError::Io(_))
        ));
    }

    #[tokio::test]
    async fn rows_that_somebody_else_spoiled_are_damaged_and_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.db");
        let store = SqliteStore::open(&path).unwrap();
        let record = Record {
            key: Key::new(&b"k"[..]).unwrap(),
            version: version(5, 6),
            content: Content::Put("v".into()),
        };
        let point = Point {
            epoch: Epoch(1),
            sequence: 1,
        };
        let put = Changes {
            put: vec![Stored::new(record, point, 0)],
            ..Changes::default()
        };
        store
            .transact(Reads::meta(), move |_| (put, ()))
            .await
            .unwrap();
        let c = Connection::open(&path).unwrap();
        for spoil in [
            "value = 'x'",
            "digest = x'00'",
            "tombstone = 'yes'",
            "time = 'never'",
        ] {
            c.execute(&format!("UPDATE clean SET {spoil}"), []).unwrap();
            let page = store.page(&KeyRange::all(), None, 9).await.unwrap();
            assert!(!page.clean[0].intact(), "{spoil}");
        }
    }
}
