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
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is done to whole files beside SQLite's own work on them. A seam, so
/// that the disk that tests crash is asked as well.
pub trait WholeFiles {
    /// Whether there is such a file.
    fn exists(&self, path: &Path) -> bool;

    /// Makes a file's content durable.
    ///
    /// # Errors
    /// There is none, or the disk fails.
    fn sync(&self, path: &Path) -> io::Result<()>;

    /// Gives a file another name, in place of whoever has that.
    ///
    /// # Errors
    /// There is none, or the disk fails.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes the names in this file's folder durable.
    ///
    /// # Errors
    /// The disk fails.
    fn sync_folder(&self, of: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// There is none, or the disk fails.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// The files of this machine.
#[derive(Clone, Copy, Debug)]
pub struct OsFiles;

impl WholeFiles for OsFiles {
    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        std::fs::File::open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    #[cfg(unix)]
    fn sync_folder(&self, of: &Path) -> io::Result<()> {
        let folder = match of.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        std::fs::File::open(folder)?.sync_all()
    }

    #[cfg(not(unix))]
    fn sync_folder(&self, _of: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
}

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
        self.backup_on(&OsFiles, to, progress)
    }

    /// The same on a disk of the caller's.
    ///
    /// # Errors
    /// As [`SqliteStore::backup`].
    pub fn backup_on(
        &self,
        files: &dyn WholeFiles,
        to: &Path,
        progress: &mut OnProgress<'_>,
    ) -> Result<()> {
        if files.exists(to) {
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
        copy(files, &source, &partial, progress)
            .and_then(|()| name(files, &partial, to))
            .and_then(|()| {
                files.sync_folder(to).map_err(|e| {
                    // a copy that a crash may take away again is none
                    let _ = files.remove(to);
                    io_failed(to, &e)
                })
            })
            .inspect_err(|_| drop(files.remove(&partial)))
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
/// no usable backup. In all these cases `to` stays as it was; it does so too
/// when the disk fails, unless all that failed is to make its new name durable:
/// then it is what was restored, until a crash may bring the old one back.
pub fn restore(
    from: &Path,
    to: &Path,
    overwrite: bool,
    new_epoch: Epoch,
    now_ms: u64,
    progress: &mut OnProgress<'_>,
) -> Result<Restored> {
    restore_on(&OsFiles, from, to, overwrite, new_epoch, now_ms, progress)
}

/// The same on a disk of the caller's.
///
/// # Errors
/// As [`restore`].
pub fn restore_on(
    files: &dyn WholeFiles,
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
    if files.exists(to) {
        if !overwrite {
            return Err(StoreError::Failed(format!(
                "{} exists already; say --overwrite to replace it",
                to.display()
            )));
        }
        check_unused(to)?;
    }
    let partial = beside(to, ".restoring");
    let restored = copy(files, &source, &partial, progress)
        .and_then(|()| renew_epoch(&partial, new_epoch, now_ms))
        .and_then(|restored| {
            // a log left by the old file would be taken for one of the new file
            for suffix in ["-wal", "-shm"] {
                remove_if_there(files, &beside(to, suffix))?;
            }
            name(files, &partial, to)?;
            Ok(restored)
        })
        .inspect_err(|_| drop(files.remove(&partial)))?;
    files.sync_folder(to).map_err(|e| io_failed(to, &e))?;
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
fn copy(
    files: &dyn WholeFiles,
    source: &Connection,
    to: &Path,
    progress: &mut OnProgress<'_>,
) -> Result<()> {
    remove_if_there(files, to)?;
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

/// Gives a finished copy its name, which is durable once its folder is.
fn name(files: &dyn WholeFiles, partial: &Path, to: &Path) -> Result<()> {
    files
        .sync(partial)
        .and_then(|()| files.rename(partial, to))
        .map_err(|e| io_failed(to, &e))
}

fn io_failed(path: &Path, e: &io::Error) -> StoreError {
    StoreError::Failed(format!("{}: {e}", path.display()))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn remove_if_there(files: &dyn WholeFiles, path: &Path) -> Result<()> {
    match files.remove(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::Failed(format!(
            "cannot remove {}: {e}",
            path.display()
        ))),
        _ => Ok(()),
    }
}
