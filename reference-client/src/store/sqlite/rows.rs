//! Tables, rows and statements of the native store. Knows no threads and no
//! transactions: every function works on the connection it is given.

use super::super::{Changes, Meta, Reads, StoreError, Stored, View, Write, WriteId, WriteState};
use gosync_proto::history::{Epoch, Point};
use gosync_proto::{Content, Key, KeyRange, Reason, Record, ReplicaId, Time, Version};
use rusqlite::{Connection, OptionalExtension, Row, params};

pub(super) const TABLES: &str = "
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

/// What may be added to a store of any version without changing what it means.
/// Few writes are ever rejected: with this index, counting them, and so the
/// waiting ones, takes no look at the writes.
pub(super) const INDEXES: &str = "
CREATE INDEX IF NOT EXISTS writes_rejected ON writes (id) WHERE rejected IS NOT NULL;
";

pub(super) const CLEAN: &str = "key, time, replica, tombstone, value, digest, epoch, sequence, era";
pub(super) const WRITE: &str =
    "id, key, time, replica, tombstone, value, batch, rejected, detail, in_doubt";
pub(super) const QUARANTINED: &str = "key, time, replica, tombstone, value";

pub(super) fn version(time: i64, replica: i64) -> Version {
    Version {
        time: Time(time as u64),
        replica: ReplicaId(replica as u64),
    }
}

/// A blob column whatever its type turned out to be: a row that somebody else
/// changed is damaged, not an error.
pub(super) fn blob(row: &Row<'_>, i: usize) -> rusqlite::Result<Vec<u8>> {
    Ok(match row.get_ref(i)? {
        rusqlite::types::ValueRef::Blob(b) | rusqlite::types::ValueRef::Text(b) => b.to_vec(),
        _ => Vec::new(),
    })
}

/// Likewise a number.
pub(super) fn number(row: &Row<'_>, i: usize) -> rusqlite::Result<i64> {
    Ok(match row.get_ref(i)? {
        rusqlite::types::ValueRef::Integer(n) => n,
        _ => 0,
    })
}

/// `None` for a row whose key cannot be a key: nobody can ask for it.
pub(super) fn key(row: &Row<'_>, i: usize) -> rusqlite::Result<Option<Key>> {
    Ok(Key::new(blob(row, i)?).ok())
}

pub(super) fn stored(row: &Row<'_>) -> rusqlite::Result<Option<Stored>> {
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
pub(super) fn record(row: &Row<'_>, i: usize) -> rusqlite::Result<Option<Record>> {
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

pub(super) fn write(row: &Row<'_>) -> rusqlite::Result<Option<Write>> {
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

pub(super) fn read_meta(c: &Connection) -> Result<Meta, StoreError> {
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
pub(super) fn lower(range: &KeyRange, after: Option<&Key>) -> Vec<u8> {
    match after {
        Some(a) if a.as_bytes() >= range.start() => a.successor(),
        _ => range.start().to_vec(),
    }
}

/// Rows of `sql`, whose parameters 1 and 2 bound the key (`NULL`: no upper
/// bound).
pub(super) fn in_range<T>(
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

pub(super) fn writes_in(
    c: &Connection,
    lower: &[u8],
    end: Option<&[u8]>,
) -> Result<Vec<Write>, StoreError> {
    let sql = format!("SELECT {WRITE} FROM writes WHERE {{range}} ORDER BY id");
    in_range(c, &sql, lower, end, write, usize::MAX)
}

pub(super) fn quarantined_in(
    c: &Connection,
    lower: &[u8],
    end: Option<&[u8]>,
) -> Result<Vec<Record>, StoreError> {
    let sql = format!("SELECT {QUARANTINED} FROM quarantine WHERE {{range}} ORDER BY key");
    in_range(c, &sql, lower, end, |r| record(r, 0), usize::MAX)
}

pub(super) fn clean_in(
    c: &Connection,
    lower: &[u8],
    end: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<Stored>, StoreError> {
    let sql = format!("SELECT {CLEAN} FROM clean WHERE {{range}} ORDER BY key");
    in_range(c, &sql, lower, end, stored, limit)
}

pub(super) fn is_empty(c: &Connection, table: &str) -> Result<bool, StoreError> {
    let sql = format!("SELECT NOT EXISTS (SELECT 1 FROM {table})");
    Ok(c.prepare_cached(&sql)?.query_row([], |r| r.get(0))?)
}

pub(super) fn read_view(c: &Connection, reads: &Reads) -> Result<View, StoreError> {
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

pub(super) fn read_keys(c: &Connection, keys: &[Key], view: &mut View) -> Result<(), StoreError> {
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

pub(super) fn apply(c: &Connection, changes: &Changes) -> Result<(), StoreError> {
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
        let sql = "DELETE FROM writes WHERE id BETWEEN ?1 AND ?2";
        let mut statement = c.prepare_cached(sql)?;
        // a push settles its writes in their order: mostly one run
        let runs = changes.remove_writes.chunk_by(|a, b| a.0 + 1 == b.0);
        for run in runs {
            statement.execute(params![run[0].0 as i64, run[run.len() - 1].0 as i64])?;
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

pub(super) fn delete(c: &Connection, table: &str, keys: &[Key]) -> Result<(), StoreError> {
    if keys.is_empty() {
        return Ok(());
    }
    let mut statement = c.prepare_cached(&format!("DELETE FROM {table} WHERE key = ?1"))?;
    for key in keys {
        statement.execute(params![key.as_bytes()])?;
    }
    Ok(())
}
