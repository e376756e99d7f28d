//! The store in one SQLite file: WAL, `synchronous=FULL`, one writer with
//! group commit, readers beside it. See `schema.rs` for the tables.

mod error;
mod files;
mod pool;
mod read;
mod schema;
#[cfg(test)]
mod tests;
mod write;
mod writer;

pub use files::{CopyProgress, OnProgress, OsFiles, Restored, WholeFiles, restore, restore_on};
pub use schema::SCHEMA_VERSION;
pub use writer::WriterStats;

use crate::store::{ReadTx, Result, Store, StoreError, Work};
use error::failed;
use gosync_proto::SpaceId;
use gosync_proto::history::Epoch;
use pool::Pool;
use read::Session;
use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};
use std::time::Duration;
use writer::Writer;

/// How to open a store.
#[derive(Clone, Copy, Debug)]
pub struct SqliteOptions {
    /// The most connections that read at once, at least 1.
    pub readers: usize,
    /// The epoch of a store that does not exist yet: 64 random bits.
    pub new_epoch: u64,
    /// The server's clock, Unix milliseconds; noted in a new store.
    pub now_ms: u64,
}

/// A store in one SQLite file (and its `-wal` and `-shm` beside it).
pub struct SqliteStore {
    path: PathBuf,
    // before the pool: the last connection to close tidies the log away
    writer: Writer,
    readers: Pool,
}

impl SqliteStore {
    /// Opens the file; creates it when there is none.
    ///
    /// # Errors
    /// [`StoreError::Foreign`] and [`StoreError::NewerSchema`] for a file that
    /// is not ours to write, and what the database or the file system says.
    pub fn open(path: &Path, options: SqliteOptions) -> Result<SqliteStore> {
        let shown = path.display().to_string();
        let mut conn = open_file(path, true)?;
        // before anything is written: a foreign file stays untouched
        schema::check(&conn, &shown)?;
        configure(&conn, WRITER_CACHE_KIB)?;
        schema::prepare(&mut conn, &shown, options.new_epoch, options.now_ms)?;
        check_log(&conn)?;
        Ok(SqliteStore {
            path: path.to_owned(),
            writer: Writer::start(conn)?,
            readers: Pool::new(path.to_owned(), options.readers),
        })
    }

    /// Opens a store that must exist, for maintenance. A server may have it
    /// open at the same time.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when there is no file; otherwise as
    /// [`SqliteStore::open`].
    pub fn open_existing(path: &Path) -> Result<SqliteStore> {
        let shown = path.display().to_string();
        if !path.is_file() {
            return Err(StoreError::Failed(format!("there is no file {shown}")));
        }
        let conn = open_file(path, false)?;
        if !schema::check(&conn, &shown)? {
            return Err(StoreError::Foreign {
                path: shown,
                problem: "it is empty".into(),
            });
        }
        configure(&conn, WRITER_CACHE_KIB)?;
        check_log(&conn)?;
        Ok(SqliteStore {
            path: path.to_owned(),
            writer: Writer::start(conn)?,
            readers: Pool::new(path.to_owned(), 4),
        })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Figures of the writer since the store was opened.
    pub fn writer_stats(&self) -> &WriterStats {
        self.writer.stats()
    }
}

/// Opens a connection to a file that exists, or creates the file.
fn open_file(path: &Path, create: bool) -> Result<Connection> {
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if create {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let conn =
        Connection::open_with_flags(path, flags).map_err(|e| match e.sqlite_error_code() {
            Some(rusqlite::ErrorCode::CannotOpen) => StoreError::Failed(format!(
                "cannot open {}: check that its folder exists and may be written",
                path.display()
            )),
            _ => failed(e),
        })?;
    conn.busy_timeout(Duration::from_secs(10)).map_err(failed)?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}

/// Pages that the writer keeps: the index of a million records fits.
const WRITER_CACHE_KIB: u32 = 128 << 10;
/// Pages that each reader keeps; the system's cache does the rest.
const READER_CACHE_KIB: u32 = 8 << 10;

/// What every connection of a store wants. The log is folded into the file at
/// 64 MiB: keys in no order change most of the index in each commit, and what
/// is changed again before that is written to the file once.
fn configure(conn: &Connection, cache_kib: u32) -> Result<()> {
    conn.execute_batch(&format!(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -{cache_kib};
         PRAGMA wal_autocheckpoint = 16384;
         PRAGMA journal_size_limit = 67108864;"
    ))
    .map_err(failed)
}

/// When the switch to a write-ahead log fails, SQLite goes on without one and
/// says nothing; a commit may then be lost in a crash.
fn check_log(conn: &Connection) -> Result<()> {
    let frames: i64 = conn
        .query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get(1))
        .map_err(failed)?;
    match frames {
        ..0 => Err(StoreError::Failed(
            "SQLite cannot keep a write-ahead log there: the disk failed, or is a network's; use a local disk".into(),
        )),
        _ => Ok(()),
    }
}

/// A further connection to an open store.
fn connect(path: &Path) -> Result<Connection> {
    let conn = open_file(path, false)?;
    configure(&conn, READER_CACHE_KIB)?;
    Ok(conn)
}

impl Store for SqliteStore {
    fn poisoned(&self) -> Option<String> {
        self.writer.poisoned()
    }

    fn epoch(&self) -> Result<Epoch> {
        read::present_epoch(&*self.readers.take()?)
    }

    fn read(&self, space: &SpaceId) -> Result<Box<dyn ReadTx + '_>> {
        let conn = self.readers.take()?;
        conn.execute_batch("BEGIN").map_err(failed)?;
        Ok(Box::new(Session::open(conn, space)?))
    }

    fn write_boxed(&self, space: &SpaceId, work: Work) -> Result<()> {
        self.writer.space(space, work)
    }

    fn spaces(&self) -> Result<Vec<SpaceId>> {
        let conn = self.readers.take()?;
        let mut statement = conn
            .prepare_cached("SELECT name FROM spaces ORDER BY name")
            .map_err(failed)?;
        let names = statement
            .query_map([], |row| row.get::<_, String>(0))
            .and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>)
            .map_err(failed)?;
        names
            .iter()
            .map(|name| {
                SpaceId::new(name)
                    .map_err(|_| StoreError::Corrupt(format!("a space is named {name:?}")))
            })
            .collect()
    }

    fn begin_epoch(&self, epoch: Epoch, now_ms: u64) -> Result<()> {
        self.writer.global(Box::new(move |conn| {
            write::begin_epoch(conn, epoch, now_ms)
        }))
    }
}
