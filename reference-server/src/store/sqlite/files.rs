//! Whole files: backup while the server runs, restore while it does not, and
//! SQLite's own check of the pages.

use super::error::failed;
use super::{SqliteStore, open_file, read, schema, write};
use crate::store::{Result, StoreError};
use gosync_proto::SpaceId;
use gosync_proto::history::Epoch;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Pages between two reports of progress: 8 MiB.
const PAGES_PER_STEP: i32 = 2048;

/// How far a copy has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CopyProgress {
    /// Pages copied.
    pub done: u64,
    /// Pages in all.
    pub total: u64,
}

/// Told now and then how far a copy has come.
pub type OnProgress<'p> = dyn FnMut(CopyProgress) + 'p;

/// What a restore did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restored {
    /// The epoch that the backup was made in.
    pub old_epoch: Epoch,
    /// The one that begins with it.
    pub new_epoch: Epoch,
    /// When the server that made the backup committed last, by its own clock;
    /// `None` for an empty store. An operator is warned of a backup that is
    /// older than the retention of tombstones: deletions may come undone.
    pub newest_commit_ms: Option<u64>,
    /// The spaces and the sequences up to which their history was kept.
    pub spaces: Vec<(SpaceId, u64)>,
}

impl SqliteStore {
    /// Writes a copy of the whole store, as it is at one moment, to a new
    /// file. Readers and writers go on meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when `to` exists already; otherwise what the
    /// database or the file system says. Then there is no file `to`.
    pub fn backup(&self, to: &Path, progress: &mut OnProgress<'_>) -> Result<()> {
        if to.exists() {
            return Err(StoreError::Failed(format!(
                "{} exists already; a backup does not overwrite",
                to.display()
            )));
        }
        let partial = beside(to, ".partial");
        let source = self.readers.take()?;
        // a read transaction pins the moment; commits beside it do not make
        // the copy start anew
        source.execute_batch("BEGIN").map_err(failed)?;
        read::present_epoch(&source)?;
        let copied = copy(&source, &partial, progress);
        finish(copied, &partial, to)
    }

    /// SQLite's check of the file's pages and indexes: what is wrong, one
    /// sentence each.
    ///
    /// # Errors
    /// When not even the check can run.
    pub fn check_file(&self) -> Result<Vec<String>> {
        let conn = self.readers.take()?;
        integrity(&conn, "integrity_check")
    }

    /// Makes the indexes anew from the records.
    ///
    /// # Errors
    /// What the database says.
    pub fn rebuild_indexes(&self) -> Result<()> {
        self.writer.global(Box::new(|conn| {
            conn.execute_batch("REINDEX").map_err(failed)
        }))
    }
}

/// Puts the content of a backup in place of the store at `to`, with a new
/// epoch that remembers how far the backup's history came. No server may be
/// running on `to`.
///
/// # Errors
/// [`StoreError::Failed`] when `to` exists and `overwrite` is false;
/// [`StoreError::Busy`] when a server has it open; [`StoreError::Foreign`],
/// [`StoreError::NewerSchema`] and [`StoreError::Corrupt`] for a file that is
/// no usable backup. In all these cases `to` stays as it was.
pub fn restore(
    from: &Path,
    to: &Path,
    overwrite: bool,
    new_epoch: Epoch,
    now_ms: u64,
    progress: &mut OnProgress<'_>,
) -> Result<Restored> {
    let same = |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
    if same(from, to) {
        return Err(StoreError::Failed(format!(
            "{} cannot be restored from itself",
            to.display()
        )));
    }
    let source = open_backup(from)?;
    if to.exists() {
        if !overwrite {
            return Err(StoreError::Failed(format!(
                "{} exists already; say --overwrite to replace it",
                to.display()
            )));
        }
        check_unused(to)?;
    }
    let partial = beside(to, ".restoring");
    let copied =
        copy(&source, &partial, progress).and_then(|()| renew_epoch(&partial, new_epoch, now_ms));
    let restored = match copied {
        Ok(restored) => restored,
        Err(e) => {
            let _ = std::fs::remove_file(&partial);
            return Err(e);
        }
    };
    // a log left by the old file would be taken for one of the new file
    for suffix in ["-wal", "-shm"] {
        remove_if_there(&beside(to, suffix))?;
    }
    finish(Ok(()), &partial, to)?;
    Ok(restored)
}

fn open_backup(from: &Path) -> Result<Connection> {
    let shown = from.display().to_string();
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(from, flags)
        .map_err(|e| StoreError::Failed(format!("cannot open {shown}: {e}")))?;
    if !schema::check(&conn, &shown)? {
        return Err(StoreError::Foreign {
            path: shown,
            problem: "it is empty".into(),
        });
    }
    Ok(conn)
}

/// That no server has the file open. A file that is no database, or a broken
/// one, may be replaced: that is what restoring is for.
fn check_unused(path: &Path) -> Result<()> {
    let conn = open_file(path, false)?;
    conn.busy_timeout(Duration::ZERO).map_err(failed)?;
    let locked = conn
        .execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; ROLLBACK;")
        .map_err(failed);
    match locked {
        Err(StoreError::Busy(_)) => Err(StoreError::Busy(format!(
            "{} is open in a running server; stop it first",
            path.display()
        ))),
        _ => Ok(()),
    }
}

/// Copies a database, whatever is in its log included, to a new file.
fn copy(source: &Connection, to: &Path, progress: &mut OnProgress<'_>) -> Result<()> {
    remove_if_there(to)?;
    let mut target = open_file(to, true)?;
    {
        let backup = Backup::new(source, &mut target).map_err(failed)?;
        loop {
            let step = backup.step(PAGES_PER_STEP).map_err(failed)?;
            let p = backup.progress();
            let total = u64::try_from(p.pagecount).unwrap_or(0);
            progress(CopyProgress {
                done: total.saturating_sub(u64::try_from(p.remaining).unwrap_or(0)),
                total,
            });
            match step {
                StepResult::Done => break,
                StepResult::More => {}
                _ => {
                    return Err(StoreError::Busy(
                        "the database was locked during the copy".into(),
                    ));
                }
            }
        }
    }
    // one file, without a log beside it
    target
        .execute_batch("PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL;")
        .map_err(failed)
}

/// Checks a restored copy and begins its new epoch.
fn renew_epoch(path: &Path, new_epoch: Epoch, now_ms: u64) -> Result<Restored> {
    let mut conn = open_file(path, false)?;
    conn.execute_batch("PRAGMA synchronous = FULL")
        .map_err(failed)?;
    let problems = integrity(&conn, "quick_check")?;
    if let Some(problem) = problems.first() {
        return Err(StoreError::Corrupt(format!("in the backup: {problem}")));
    }
    let tx = conn.transaction().map_err(failed)?;
    let old_epoch = read::present_epoch(&tx)?;
    write::begin_epoch(&tx, new_epoch, now_ms)?;
    let spaces = tx
        .prepare("SELECT name, head FROM spaces ORDER BY name")
        .and_then(|mut s| {
            s.query_map([], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
            })?
            .collect::<rusqlite::Result<Vec<_>>>()
        })
        .map_err(failed)?;
    let newest: Option<i64> = tx
        .query_row("SELECT max(clock_ms) FROM commits", [], |row| row.get(0))
        .map_err(failed)?;
    tx.commit().map_err(failed)?;
    Ok(Restored {
        newest_commit_ms: newest.map(|ms| ms as u64),
        old_epoch,
        new_epoch,
        spaces: spaces
            .into_iter()
            .filter_map(|(name, head)| Some((SpaceId::new(&name).ok()?, head as u64)))
            .collect(),
    })
}

fn integrity(conn: &Connection, pragma: &str) -> Result<Vec<String>> {
    let lines = conn
        .prepare(&format!("PRAGMA {pragma}"))
        .and_then(|mut s| {
            s.query_map([], |row| row.get::<_, String>(0))?
                .collect::<rusqlite::Result<Vec<_>>>()
        })
        .map_err(failed)?;
    Ok(lines.into_iter().filter(|line| line != "ok").collect())
}

/// Gives a finished copy its name, durably; removes it after a failure.
fn finish(copied: Result<()>, partial: &Path, to: &Path) -> Result<()> {
    let io = |e: std::io::Error| StoreError::Failed(format!("{}: {e}", to.display()));
    let named = copied.and_then(|()| {
        std::fs::File::open(partial)
            .and_then(|f| f.sync_all())
            .and_then(|()| std::fs::rename(partial, to))
            .and_then(|()| sync_folder(to))
            .map_err(io)
    });
    if named.is_err() {
        let _ = std::fs::remove_file(partial);
    }
    named
}

#[cfg(unix)]
fn sync_folder(file: &Path) -> std::io::Result<()> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_file: &Path) -> std::io::Result<()> {
    Ok(())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn remove_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::Failed(format!(
            "cannot remove {}: {e}",
            path.display()
        ))),
        _ => Ok(()),
    }
}
