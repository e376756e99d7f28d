//! The native store: one SQLite file, written by one thread and read by
//! another (WAL), synced to disk at each commit. Its tables are readable with
//! any SQLite tool; 64-bit numbers stand in them as signed ones.

use super::{
    Changes, Counts, Leaf, Meta, Page, Reads, SCHEMA_VERSION, Store, StoreError, Stored, View,
    Write, WriteId, WriteState,
};
use crate::platform::MaybeSend;
use futures::channel::oneshot;
use gosync_proto::history::{Epoch, Point};
use gosync_proto::{Content, Digest, Key, KeyRange, Reason, Record, ReplicaId, Time, Version};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, TransactionBehavior, params};
use std::path::Path;
use std::sync::{Arc, mpsc};

const TABLES: &str = "
CREATE TABLE meta (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  row BLOB NOT NULL
);
-- acknowledged by the server or received from it
CREATE TABLE clean (
  key BLOB PRIMARY KEY,
  time INTEGER NOT NULL,
  replica INTEGER NOT NULL,
  tombstone INTEGER NOT NULL,
  value BLOB NOT NULL,
  digest BLOB NOT NULL,
  epoch INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  era INTEGER NOT NULL
) WITHOUT ROWID;
-- not acknowledged, in the order of writing
CREATE TABLE writes (
  id INTEGER PRIMARY KEY,
  key BLOB NOT NULL,
  time INTEGER NOT NULL,
  replica INTEGER NOT NULL,
  tombstone INTEGER NOT NULL,
  value BLOB NOT NULL,
  batch INTEGER,
  rejected INTEGER,
  detail TEXT,
  in_doubt INTEGER NOT NULL
);
CREATE INDEX writes_by_key ON writes (key);
-- keys of clean records that the server lost
CREATE TABLE offers (key BLOB PRIMARY KEY) WITHOUT ROWID;
-- lost by the server and not writable here
CREATE TABLE quarantine (
  key BLOB PRIMARY KEY,
  time INTEGER NOT NULL,
  replica INTEGER NOT NULL,
  tombstone INTEGER NOT NULL,
  value BLOB NOT NULL
) WITHOUT ROWID;
";

const CLEAN: &str = "key, time, replica, tombstone, value, digest, epoch, sequence, era";
const WRITE: &str = "id, key, time, replica, tombstone, value, batch, rejected, detail, in_doubt";
const QUARANTINED: &str = "key, time, replica, tombstone, value";

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
        tx.pragma_update(None, "user_version", SCHEMA_VERSION)
            .map_err(|e| at(name, e))?;
    }
    // refuses a meta row of a newer schema, or none at all
    read_meta(&tx)?;
    tx.commit().map_err(|e| at(name, e))
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
        let (done, result) = oneshot::channel();
        self.jobs
            .send(Box::new(move |c| {
                // nobody may be waiting any more: the job is done all the same
                let _ = done.send(job(c));
            }))
            .map_err(|_| StoreError::Closed)?;
        result.await.map_err(|_| StoreError::Closed)?
    }
}

fn version(time: i64, replica: i64) -> Version {
    Version {
        time: Time(time as u64),
        replica: ReplicaId(replica as u64),
    }
}

/// A blob column whatever its type turned out to be: a row that somebody else
/// changed is damaged, not an error.
fn blob(row: &Row<'_>, i: usize) -> rusqlite::Result<Vec<u8>> {
    Ok(match row.get_ref(i)? {
        rusqlite::types::ValueRef::Blob(b) | rusqlite::types::ValueRef::Text(b) => b.to_vec(),
        _ => Vec::new(),
    })
}

/// Likewise a number.
fn number(row: &Row<'_>, i: usize) -> rusqlite::Result<i64> {
    Ok(match row.get_ref(i)? {
        rusqlite::types::ValueRef::Integer(n) => n,
        _ => 0,
    })
}

/// `None` for a row whose key cannot be a key: nobody can ask for it.
fn key(row: &Row<'_>, i: usize) -> rusqlite::Result<Option<Key>> {
    Ok(Key::new(blob(row, i)?).ok())
}

fn stored(row: &Row<'_>) -> rusqlite::Result<Option<Stored>> {
    let Some(key) = key(row, 0)? else {
        return Ok(None);
    };
    Ok(Some(Stored::from_parts(
        key,
        version(number(row, 1)?, number(row, 2)?),
        number(row, 3)? != 0,
        blob(row, 4)?.into(),
        &blob(row, 5)?,
        Point {
            epoch: Epoch(number(row, 6)? as u64),
            sequence: number(row, 7)? as u64,
        },
        number(row, 8)? as u64,
    )))
}

/// Columns key, time, replica, tombstone, value from `i` on.
fn record(row: &Row<'_>, i: usize) -> rusqlite::Result<Option<Record>> {
    let Some(key) = key(row, i)? else {
        return Ok(None);
    };
    Ok(Some(Record {
        key,
        version: version(number(row, i + 1)?, number(row, i + 2)?),
        content: match number(row, i + 3)? {
            0 => Content::Put(blob(row, i + 4)?.into()),
            _ => Content::Tombstone,
        },
    }))
}

fn write(row: &Row<'_>) -> rusqlite::Result<Option<Write>> {
    let id = WriteId(row.get::<_, i64>(0)? as u64);
    let Some(record) = record(row, 1)? else {
        return Ok(None);
    };
    let rejected: Option<i32> = row.get(7)?;
    let detail: Option<String> = row.get(8)?;
    Ok(Some(Write {
        id,
        record,
        batch: row.get::<_, Option<i64>>(6)?.map(|b| WriteId(b as u64)),
        state: match rejected {
            None => WriteState::Waiting,
            Some(reason) => WriteState::Rejected {
                reason: Reason::from_wire(reason),
                detail: detail.unwrap_or_default(),
            },
        },
        in_doubt: number(row, 9)? != 0,
    }))
}

fn read_meta(c: &Connection) -> Result<Meta, StoreError> {
    let bytes: Option<Vec<u8>> = c
        .prepare_cached("SELECT row FROM meta WHERE id = 1")?
        .query_row([], |r| blob(r, 0))
        .optional()?;
    let name = c.path().unwrap_or("in memory");
    match bytes {
        Some(bytes) => Meta::decode(name, &bytes),
        None => Err(StoreError::Corrupt("the meta row is gone".into())),
    }
}

/// `key > after` where that is the tighter bound, else `key >= start`.
fn lower(range: &KeyRange, after: Option<&Key>) -> Vec<u8> {
    match after {
        Some(a) if a.as_bytes() >= range.start() => a.successor(),
        _ => range.start().to_vec(),
    }
}

/// Rows of `sql`, whose parameters 1 and 2 bound the key (`NULL`: no upper
/// bound).
fn in_range<T>(
    c: &Connection,
    sql: &str,
    lower: &[u8],
    end: Option<&[u8]>,
    map: fn(&Row<'_>) -> rusqlite::Result<Option<T>>,
    limit: usize,
) -> Result<Vec<T>, StoreError> {
    let bound = match end {
        Some(_) => "AND key < ?2",
        None => "AND ?2 IS NULL",
    };
    let sql = sql.replace("{range}", &format!("key >= ?1 {bound}"));
    let mut statement = c.prepare_cached(&sql)?;
    let mut rows = statement.query(params![lower, end])?;
    let mut out = Vec::new();
    while out.len() < limit
        && let Some(row) = rows.next()?
    {
        out.extend(map(row)?);
    }
    Ok(out)
}

fn writes_in(c: &Connection, lower: &[u8], end: Option<&[u8]>) -> Result<Vec<Write>, StoreError> {
    let sql = format!("SELECT {WRITE} FROM writes WHERE {{range}} ORDER BY id");
    in_range(c, &sql, lower, end, write, usize::MAX)
}

fn quarantined_in(
    c: &Connection,
    lower: &[u8],
    end: Option<&[u8]>,
) -> Result<Vec<Record>, StoreError> {
    let sql = format!("SELECT {QUARANTINED} FROM quarantine WHERE {{range}} ORDER BY key");
    in_range(c, &sql, lower, end, |r| record(r, 0), usize::MAX)
}

fn clean_in(
    c: &Connection,
    lower: &[u8],
    end: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<Stored>, StoreError> {
    let sql = format!("SELECT {CLEAN} FROM clean WHERE {{range}} ORDER BY key");
    in_range(c, &sql, lower, end, stored, limit)
}

fn is_empty(c: &Connection, table: &str) -> Result<bool, StoreError> {
    let sql = format!("SELECT NOT EXISTS (SELECT 1 FROM {table})");
    Ok(c.prepare_cached(&sql)?.query_row([], |r| r.get(0))?)
}

fn read_view(c: &Connection, reads: &Reads) -> Result<View, StoreError> {
    let mut view = View {
        meta: read_meta(c)?,
        ..View::default()
    };
    if !reads.keys.is_empty() {
        read_keys(c, &reads.keys, &mut view)?;
    }
    for range in &reads.ranges {
        let (start, end) = (range.start(), range.end());
        let clean = clean_in(c, start, end, usize::MAX)?;
        view.clean
            .extend(clean.into_iter().map(|s| (s.record.key.clone(), s)));
        let writes = writes_in(c, start, end)?;
        view.writes.extend(writes.into_iter().map(|w| (w.id, w)));
        let quarantine = quarantined_in(c, start, end)?;
        view.quarantine
            .extend(quarantine.into_iter().map(|r| (r.key.clone(), r)));
        let sql = "SELECT key FROM offers WHERE {range} ORDER BY key";
        view.offers
            .extend(in_range(c, sql, start, end, |r| key(r, 0), usize::MAX)?);
    }
    if !reads.writes.is_empty() {
        let sql = format!("SELECT {WRITE} FROM writes WHERE id = ?1");
        let mut statement = c.prepare_cached(&sql)?;
        for id in &reads.writes {
            let row = statement
                .query_row(params![id.0 as i64], write)
                .optional()?;
            if let Some(w) = row.flatten() {
                view.writes.insert(w.id, w);
            }
        }
    }
    if reads.all_writes {
        let all = writes_in(c, &[], None)?;
        view.writes = all.into_iter().map(|w| (w.id, w)).collect();
    }
    if reads.offers > 0 {
        let sql = "SELECT key FROM offers WHERE {range} ORDER BY key";
        view.offers
            .extend(in_range(c, sql, &[], None, |r| key(r, 0), reads.offers)?);
    }
    if reads.all_quarantined {
        let all = quarantined_in(c, &[], None)?;
        view.quarantine = all.into_iter().map(|r| (r.key.clone(), r)).collect();
    }
    Ok(view)
}

fn read_keys(c: &Connection, keys: &[Key], view: &mut View) -> Result<(), StoreError> {
    {
        let sql = format!("SELECT {CLEAN} FROM clean WHERE key = ?1");
        let mut statement = c.prepare_cached(&sql)?;
        for key in keys {
            let row = statement
                .query_row(params![key.as_bytes()], stored)
                .optional()?;
            if let Some(s) = row.flatten() {
                view.clean.insert(key.clone(), s);
            }
        }
    }
    // the other tables are empty most of the time: one look spares thousands
    if !is_empty(c, "writes")? {
        let sql = format!("SELECT {WRITE} FROM writes WHERE key = ?1 ORDER BY id");
        let mut statement = c.prepare_cached(&sql)?;
        for key in keys {
            let mut rows = statement.query(params![key.as_bytes()])?;
            while let Some(row) = rows.next()? {
                view.writes.extend(write(row)?.map(|w| (w.id, w)));
            }
        }
    }
    if !is_empty(c, "offers")? {
        let mut statement = c.prepare_cached("SELECT 1 FROM offers WHERE key = ?1")?;
        for key in keys {
            if statement.exists(params![key.as_bytes()])? {
                view.offers.insert(key.clone());
            }
        }
    }
    if !is_empty(c, "quarantine")? {
        let sql = format!("SELECT {QUARANTINED} FROM quarantine WHERE key = ?1");
        let mut statement = c.prepare_cached(&sql)?;
        for key in keys {
            let row = statement
                .query_row(params![key.as_bytes()], |r| record(r, 0))
                .optional()?;
            if let Some(r) = row.flatten() {
                view.quarantine.insert(key.clone(), r);
            }
        }
    }
    Ok(())
}

fn apply(c: &Connection, changes: &Changes) -> Result<(), StoreError> {
    if let Some(meta) = &changes.meta {
        c.prepare_cached("UPDATE meta SET row = ?1 WHERE id = 1")?
            .execute(params![meta.encode()])?;
    }
    delete(c, "clean", &changes.remove)?;
    if !changes.put.is_empty() {
        let sql =
            format!("INSERT OR REPLACE INTO clean ({CLEAN}) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9)");
        let mut statement = c.prepare_cached(&sql)?;
        for s in &changes.put {
            let r = &s.record;
            statement.execute(params![
                r.key.as_bytes(),
                r.version.time.0 as i64,
                r.version.replica.0 as i64,
                r.is_tombstone(),
                r.content.value(),
                s.digest.0,
                s.point.epoch.0 as i64,
                s.point.sequence as i64,
                s.era as i64,
            ])?;
        }
    }
    if !changes.remove_writes.is_empty() {
        let mut statement = c.prepare_cached("DELETE FROM writes WHERE id = ?1")?;
        for id in &changes.remove_writes {
            statement.execute(params![id.0 as i64])?;
        }
    }
    if !changes.put_writes.is_empty() {
        let sql = format!(
            "INSERT OR REPLACE INTO writes ({WRITE}) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)"
        );
        let mut statement = c.prepare_cached(&sql)?;
        for w in &changes.put_writes {
            let r = &w.record;
            let (rejected, detail) = match &w.state {
                WriteState::Waiting => (None, None),
                WriteState::Rejected { reason, detail } => {
                    (Some(reason.map_or(0, |r| r.to_wire() as i32)), Some(detail))
                }
            };
            statement.execute(params![
                w.id.0 as i64,
                r.key.as_bytes(),
                r.version.time.0 as i64,
                r.version.replica.0 as i64,
                r.is_tombstone(),
                r.content.value(),
                w.batch.map(|b| b.0 as i64),
                rejected,
                detail,
                w.in_doubt,
            ])?;
        }
    }
    delete(c, "offers", &changes.remove_offers)?;
    if !changes.put_offers.is_empty() {
        let mut statement = c.prepare_cached("INSERT OR IGNORE INTO offers (key) VALUES (?1)")?;
        for key in &changes.put_offers {
            statement.execute(params![key.as_bytes()])?;
        }
    }
    delete(c, "quarantine", &changes.remove_quarantine)?;
    if !changes.put_quarantine.is_empty() {
        let sql =
            format!("INSERT OR REPLACE INTO quarantine ({QUARANTINED}) VALUES (?1,?2,?3,?4,?5)");
        let mut statement = c.prepare_cached(&sql)?;
        for r in &changes.put_quarantine {
            statement.execute(params![
                r.key.as_bytes(),
                r.version.time.0 as i64,
                r.version.replica.0 as i64,
                r.is_tombstone(),
                r.content.value(),
            ])?;
        }
    }
    Ok(())
}

fn delete(c: &Connection, table: &str, keys: &[Key]) -> Result<(), StoreError> {
    if keys.is_empty() {
        return Ok(());
    }
    let mut statement = c.prepare_cached(&format!("DELETE FROM {table} WHERE key = ?1"))?;
    for key in keys {
        statement.execute(params![key.as_bytes()])?;
    }
    Ok(())
}

impl Store for SqliteStore {
    async fn transact<T, F>(&self, reads: Reads, decide: F) -> Result<T, StoreError>
    where
        T: MaybeSend + 'static,
        F: FnOnce(&View) -> (Changes, T) + MaybeSend + 'static,
    {
        self.writer
            .run(move |c| {
                let tx = c.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let view = read_view(&tx, &reads)?;
                let (changes, result) = decide(&view);
                apply(&tx, &changes)?;
                tx.commit().map_err(|e| match StoreError::from(e) {
                    StoreError::Io(detail) => StoreError::InDoubt(detail),
                    other => other,
                })?;
                Ok(result)
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
                digest: Digest::try_from(&blob(row, 1)?[..]).unwrap_or(Digest::ZERO),
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
                Ok(out)
            })
            .await
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        self.reader
            .run(|c| {
                let sql = "SELECT (SELECT count(*) FROM writes WHERE rejected IS NULL), \
                           (SELECT count(*) FROM writes WHERE rejected IS NOT NULL), \
                           (SELECT count(*) FROM offers), \
                           (SELECT count(*) FROM quarantine)";
                Ok(c.prepare_cached(sql)?.query_row([], |r| {
                    let n = |i| r.get::<_, i64>(i).map(|n| n as u64);
                    Ok(Counts {
                        waiting: n(0)?,
                        rejected: n(1)?,
                        offers: n(2)?,
                        quarantined: n(3)?,
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
