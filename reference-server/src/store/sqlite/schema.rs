//! The tables, their version, and how a file is recognised as ours. Knows no
//! meaning beyond the columns.
//!
//! Anyone may open the file: `SELECT * FROM readable` shows the records with
//! their spaces' names and times as text.

use super::error::failed;
use crate::store::{Result, StoreError};
use rusqlite::Connection;

/// `PRAGMA application_id` of our files: "GSYN".
const APPLICATION_ID: i64 = 0x4753_594e;

/// `PRAGMA user_version`: the version of the tables below.
pub const SCHEMA_VERSION: i64 = 1;

/// How many low bits of a record's id are its sequence. The id is
/// `space << SEQUENCE_BITS | sequence`, so that a space's records lie in the
/// table in the order of commit: following a space reads neighbours, and no
/// further index is needed.
pub const SEQUENCE_BITS: u32 = 40;

/// 64-bit values (epochs, tags, version times, replicas) are stored as the
/// signed integer with the same bits.
const TABLES: &str = "
CREATE TABLE epochs (
  ordinal   INTEGER PRIMARY KEY,     -- 1, 2, ...; the last is the present epoch
  epoch     INTEGER NOT NULL UNIQUE, -- 64 random bits
  began_ms  INTEGER NOT NULL         -- server's clock, Unix milliseconds
) STRICT;

CREATE TABLE spaces (
  id                 INTEGER PRIMARY KEY,
  name               TEXT NOT NULL UNIQUE,
  status             TEXT NOT NULL CHECK (status IN ('ACTIVE', 'RETIRED')),
  head               INTEGER NOT NULL,  -- sequence of the newest commit
  tag                INTEGER NOT NULL,  -- its tag
  horizon            INTEGER NOT NULL,  -- version time; tombstones below may be gone
  compacted_through  INTEGER NOT NULL,  -- highest sequence of any compacted tombstone
  newest_time        INTEGER NOT NULL,  -- highest version time ever committed
  clock_ms           INTEGER NOT NULL,  -- highest own clock reading stored with a commit
  records            INTEGER NOT NULL,  -- tombstones included
  bytes              INTEGER NOT NULL,  -- key and value bytes of these
  damaged            INTEGER NOT NULL,  -- rows in the table damaged
  generation         INTEGER NOT NULL   -- how often records went without a commit
) STRICT;

-- How far the history of an earlier epoch was kept, where that is not 0.
CREATE TABLE restore_points (
  space     INTEGER NOT NULL REFERENCES spaces (id),
  ordinal   INTEGER NOT NULL REFERENCES epochs (ordinal),
  sequence  INTEGER NOT NULL,
  PRIMARY KEY (space, ordinal)
) STRICT, WITHOUT ROWID;

CREATE TABLE commits (
  space     INTEGER NOT NULL REFERENCES spaces (id),
  sequence  INTEGER NOT NULL,  -- of the commit's last record
  tag       INTEGER NOT NULL,  -- 64 random bits
  clock_ms  INTEGER NOT NULL,  -- server's clock, Unix milliseconds
  PRIMARY KEY (space, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE records (
  id          INTEGER PRIMARY KEY,  -- space << 40 | sequence
  space       INTEGER NOT NULL,
  sequence    INTEGER NOT NULL GENERATED ALWAYS AS (id & 0xffffffffff) VIRTUAL,
  key         BLOB NOT NULL,
  flags       INTEGER NOT NULL,     -- 1: tombstone
  time        INTEGER NOT NULL,     -- version: Unix milliseconds << 16 | counter
  replica     INTEGER NOT NULL,     -- version: who wrote it
  size        INTEGER NOT NULL,     -- key and value bytes
  digest      BLOB NOT NULL,        -- SHA-256, computed when the record was stored
  arrived_ms  INTEGER NOT NULL,     -- server's clock, Unix milliseconds
  value       BLOB NOT NULL
) STRICT;

-- Covers what lookups and fingerprints need, so that they read no values.
CREATE INDEX records_by_key ON records (space, key, flags, time, replica, size, digest);

CREATE INDEX tombstones ON records (space, time, arrived_ms) WHERE flags = 1;

-- Content that no longer matched its digest, kept for the operator. A record
-- pushed under the key takes its row away, unless it is older.
CREATE TABLE damaged (
  space       INTEGER NOT NULL,
  key         BLOB NOT NULL,
  sequence    INTEGER NOT NULL,
  found_ms    INTEGER NOT NULL,
  flags       INTEGER NOT NULL,
  time        INTEGER NOT NULL,
  replica     INTEGER NOT NULL,
  digest      BLOB NOT NULL,
  value       BLOB NOT NULL,
  PRIMARY KEY (space, key)
) STRICT;

CREATE VIEW readable AS
  SELECT s.name AS space, r.sequence, json_quote(CAST(r.key AS TEXT)) AS key,
         CASE r.flags WHEN 0 THEN 'record' ELSE 'tombstone' END AS kind,
         CASE r.flags WHEN 0 THEN CAST(r.value AS TEXT) END AS value,
         datetime((r.time >> 16) / 1000, 'unixepoch') AS written,
         datetime(r.arrived_ms / 1000, 'unixepoch') AS arrived,
         printf('%016x', r.replica) AS replica, lower(hex(r.digest)) AS digest
  FROM records r JOIN spaces s ON s.id = r.space
  ORDER BY s.name, r.key;
";

/// Makes sure that the connection's file has our tables: creates them in an
/// empty file, accepts our own version, refuses anything else. `epoch` is that
/// of a new store.
///
/// # Errors
/// [`StoreError::Foreign`], [`StoreError::NewerSchema`], or what the database
/// says.
pub fn prepare(conn: &mut Connection, path: &str, epoch: u64, now_ms: u64) -> Result<()> {
    if check(conn, path)? {
        return Ok(());
    }
    let tx = conn
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
        .map_err(failed)?;
    // another process may have been quicker
    if !check(&tx, path)? {
        tx.execute_batch(TABLES).map_err(failed)?;
        tx.execute(
            "INSERT INTO epochs (ordinal, epoch, began_ms) VALUES (1, ?1, ?2)",
            (epoch as i64, now_ms as i64),
        )
        .map_err(failed)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)
            .map_err(failed)?;
        tx.pragma_update(None, "user_version", SCHEMA_VERSION)
            .map_err(failed)?;
    }
    tx.commit().map_err(failed)
}

/// Whether the file has our tables; `false` when it is empty.
///
/// # Errors
/// As [`prepare`].
pub fn check(conn: &Connection, path: &str) -> Result<bool> {
    let foreign = |problem: &str| StoreError::Foreign {
        path: path.to_owned(),
        problem: problem.to_owned(),
    };
    let number = |pragma: &str| {
        conn.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0))
            .map_err(|e| match e.sqlite_error_code() {
                Some(rusqlite::ErrorCode::NotADatabase) => foreign("it is not an SQLite file"),
                _ => failed(e),
            })
    };
    let application = number("application_id")?;
    let version = number("user_version")?;
    if application == APPLICATION_ID {
        return match version {
            SCHEMA_VERSION => Ok(true),
            v if v > SCHEMA_VERSION => Err(StoreError::NewerSchema {
                path: path.to_owned(),
                found: version,
                known: SCHEMA_VERSION,
            }),
            _ => Err(foreign("its schema version makes no sense")),
        };
    }
    let tables: i64 = conn
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed)?;
    if tables == 0 && application == 0 && version == 0 {
        Ok(false)
    } else {
        Err(foreign("it holds the tables of another program"))
    }
}
