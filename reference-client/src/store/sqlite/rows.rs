//! Tables, rows and statements of the native store. Knows no threads and no
//! transactions: every function works on the connection it is given.

use super::super::{
    Changes, Meta, Quarantined, Reads, StoreError, Stored, View, Write, WriteId, WriteState,
};
use gosync_proto::history::{Epoch, Point};
use gosync_proto::{Content, Digest, Key, KeyRange, Reason, Record, ReplicaId, Time, Version};
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
  in_doubt INTEGER NOT NULL,
  digest BLOB
);
CREATE INDEX writes_by_key ON writes (key);
-- keys of clean records that the server lost
CREATE TABLE offers (key BLOB PRIMARY KEY) WITHOUT ROWID;
-- lost by the server, which does not get it again
CREATE TABLE quarantine (
  key BLOB PRIMARY KEY,
  time INTEGER NOT NULL,
  replica INTEGER NOT NULL,
  tombstone INTEGER NOT NULL,
  value BLOB NOT NULL,
  reason INTEGER,
  detail TEXT
) WITHOUT ROWID;
";

/// From schema 1 to 2: why a record is in quarantine.
pub(super) const SCHEMA_2: &str = "
ALTER TABLE quarantine ADD COLUMN reason INTEGER;
ALTER TABLE quarantine ADD COLUMN detail TEXT;
";

/// From schema 2 to 3: the digest of a write, none for one that is there.
pub(super) const SCHEMA_3: &str = "ALTER TABLE writes ADD COLUMN digest BLOB;";

/// What may be added to a store of any version without changing what it means.
/// Few writes are ever rejected or in doubt: with these indexes, counting them,
/// and so the waiting ones, takes no look at the writes.
pub(super) const INDEXES: &str = "
CREATE INDEX IF NOT EXISTS writes_rejected ON writes (id) WHERE rejected IS NOT NULL;
CREATE INDEX IF NOT EXISTS writes_in_doubt ON writes (id) WHERE in_doubt <> 0;
";

pub(super) const CLEAN: &str = "key, time, replica, tombstone, value, digest, epoch, sequence, era";
pub(super) const WRITE: &str =
    "id, key, time, replica, tombstone, value, batch, rejected, detail, in_doubt, digest";
pub(super) const QUARANTINED: &str = "key, time, replica, tombstone, value, reason, detail";

pub(super) fn version(time: i64, replica: i64) -> Version {
    Version {
        time: Time(time as u64),
        replica: ReplicaId(replica as u64),
    }
}

/// A blob column whatever its type turned out to be: a row that somebody else
/// changed is damaged, not an error.
pub(super) fn bytes<'a>(row: &'a Row<'_>, i: usize) -> rusqlite::Result<&'a [u8]> {
    Ok(match row.get_ref(i)? {
        rusqlite::types::ValueRef::Blob(b) | rusqlite::types::ValueRef::Text(b) => b,
        _ => &[],
    })
}

/// [`bytes`], copied.
pub(super) fn blob(row: &Row<'_>, i: usize) -> rusqlite::Result<Vec<u8>> {
    Ok(bytes(row, i)?.to_vec())
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
    Ok(Key::new(bytes(row, i)?).ok())
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
        bytes(row, 5)?,
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
        digest: Digest::try_from(bytes(row, 10)?).unwrap_or_else(|_| record.digest()),
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

fn quarantined(row: &Row<'_>) -> rusqlite::Result<Option<Quarantined>> {
    let Some(record) = record(row, 0)? else {
        return Ok(None);
    };
    Ok(Some(Quarantined {
        record,
        reason: row.get::<_, Option<i32>>(5)?.and_then(Reason::from_wire),
        detail: row.get::<_, Option<String>>(6)?.unwrap_or_default(),
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
) -> Result<Vec<Quarantined>, StoreError> {
    let sql = format!("SELECT {QUARANTINED} FROM quarantine WHERE {{range}} ORDER BY key");
    in_range(c, &sql, lower, end, quarantined, usize::MAX)
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
            .extend(quarantine.into_iter().map(|q| (q.record.key.clone(), q)));
        let sql = "SELECT key FROM offers WHERE {range} ORDER BY key";
        view.offers
            .extend(in_range(c, sql, start, end, |r| key(r, 0), usize::MAX)?);
    }
    read_writes(c, &reads.writes, &mut view)?;
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
        view.quarantine = all.into_iter().map(|q| (q.record.key.clone(), q)).collect();
    }
    Ok(view)
}

fn read_keys(c: &Connection, keys: &[Key], view: &mut View) -> Result<(), StoreError> {
    let mut keys: Vec<&Key> = keys.iter().collect();
    keys.sort_unstable();
    at_keys(c, "clean", CLEAN, &keys, |row| {
        let found = stored(row)?.map(|s| (s.record.key.clone(), s));
        view.clean.extend(found);
        Ok(())
    })?;
    let mut ids = Vec::new();
    at_keys(c, "writes", "key, id", &keys, |row| {
        ids.push(WriteId(row.get::<_, i64>(1)? as u64));
        Ok(())
    })?;
    ids.sort_unstable();
    read_writes(c, &ids, view)?;
    at_keys(c, "offers", "key", &keys, |row| {
        view.offers.extend(key(row, 0)?);
        Ok(())
    })?;
    at_keys(c, "quarantine", QUARANTINED, &keys, |row| {
        let found = quarantined(row)?.map(|q| (q.record.key.clone(), q));
        view.quarantine.extend(found);
        Ok(())
    })
}

/// Visits the rows of a table whose first column is among `keys`, which are in
/// order. Keys that follow each other closely are met by walking on, which is
/// much cheaper than a look for each; a table with nothing there costs one
/// look for all of them.
fn at_keys(
    c: &Connection,
    table: &str,
    columns: &str,
    keys: &[&Key],
    mut visit: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
) -> Result<(), StoreError> {
    /// Rows under other keys that are passed before the next key is looked up.
    const STEPS: usize = 2;
    let sql = format!("SELECT {columns} FROM {table} WHERE key >= ?1 ORDER BY key");
    let mut statement = c.prepare_cached(&sql)?;
    let mut keys = keys.iter().peekable();
    'look: while let Some(first) = keys.peek() {
        let mut rows = statement.query(params![first.as_bytes()])?;
        let mut passed = 0;
        while let Some(row) = rows.next()? {
            // rows of another type sort elsewhere: nobody can ask for them
            let Ok(here) = row.get_ref(0)?.as_bytes() else {
                continue;
            };
            while keys.next_if(|wanted| wanted.as_bytes() < here).is_some() {}
            match keys.peek() {
                None => return Ok(()),
                Some(wanted) if wanted.as_bytes() == here => {
                    visit(row)?;
                    passed = 0;
                }
                Some(_) if passed == STEPS => continue 'look,
                Some(_) => passed += 1,
            }
        }
        return Ok(());
    }
    Ok(())
}

/// Puts the writes with these ids, which are in order, into the view.
fn read_writes(c: &Connection, ids: &[WriteId], view: &mut View) -> Result<(), StoreError> {
    let sql = format!("SELECT {WRITE} FROM writes WHERE id BETWEEN ?1 AND ?2");
    let mut statement = c.prepare_cached(&sql)?;
    for (first, last) in runs(ids) {
        let mut rows = statement.query(params![first, last])?;
        while let Some(row) = rows.next()? {
            view.writes.extend(write(row)?.map(|w| (w.id, w)));
        }
    }
    Ok(())
}

/// The first and the last of each run of consecutive ids.
fn runs(ids: &[WriteId]) -> impl Iterator<Item = (i64, i64)> {
    ids.chunk_by(|a, b| a.0 + 1 == b.0)
        .map(|run| (run[0].0 as i64, run[run.len() - 1].0 as i64))
}

pub(super) fn apply(c: &Connection, changes: &Changes) -> Result<(), StoreError> {
    if let Some(meta) = &changes.meta {
        c.prepare_cached("UPDATE meta SET row = ?1 WHERE id = 1")?
            .execute(params![meta.encode()])?;
    }
    delete(c, "clean", &changes.remove)?;
    if !changes.put.is_empty() {
        let mut statement = c.prepare_cached(&upsert("clean", CLEAN))?;
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
        for (first, last) in runs(&changes.remove_writes) {
            statement.execute(params![first, last])?;
        }
    }
    if !changes.put_writes.is_empty() {
        let mut statement = c.prepare_cached(&upsert("writes", WRITE))?;
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
                w.digest.0,
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
        let mut statement = c.prepare_cached(&upsert("quarantine", QUARANTINED))?;
        for q in &changes.put_quarantine {
            let r = &q.record;
            statement.execute(params![
                r.key.as_bytes(),
                r.version.time.0 as i64,
                r.version.replica.0 as i64,
                r.is_tombstone(),
                r.content.value(),
                q.reason.map(|r| r.to_wire() as i32),
                q.detail,
            ])?;
        }
    }
    Ok(())
}

/// The statement that puts a row in the place of the one with the same key,
/// the first column. `INSERT OR REPLACE` would say the same, but may fail half
/// way, so that SQLite keeps a copy of each page that it touches.
fn upsert(table: &str, columns: &str) -> String {
    let names: Vec<&str> = columns.split(", ").collect();
    let values: Vec<String> = (1..=names.len()).map(|i| format!("?{i}")).collect();
    let others: Vec<String> = names[1..]
        .iter()
        .map(|name| format!("{name} = excluded.{name}"))
        .collect();
    format!(
        "INSERT INTO {table} ({columns}) VALUES ({}) ON CONFLICT ({}) DO UPDATE SET {}",
        values.join(", "),
        names[0],
        others.join(", ")
    )
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
