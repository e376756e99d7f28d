//! What a simulated server keeps its data in, and what befalls that: a crash,
//! damage, records that no commit tells of. Knows stores, and the tables of the
//! one over SQLite, since it spoils them behind its back.

use crate::chance::Chance;
use gosync_faulty_disk::{Crash, Disk, Fault, Image};
use gosync_proto::history::Epoch;
use gosync_proto::{Key, Record, SpaceId};
use gosync_server::store::memory::MemoryStore;
use gosync_server::store::sqlite::{self, SqliteOptions, SqliteStore};
use gosync_server::store::{Store, StoreError};
use rusqlite::{Connection, OptionalExtension as _, params};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// In what a world's server keeps its data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keeps {
    /// The store in memory.
    Memory,
    /// SQLite, in a file of this machine.
    File,
    /// SQLite, on a disk that fails, and loses or tears at a crash what was not
    /// synced.
    FaultyDisk,
}

/// The data of a server.
pub(crate) enum Storage {
    Memory(Arc<MemoryStore>),
    File(Arc<SqliteStore>, PathBuf),
    Faulty(Arc<SqliteStore>, Disk),
}

/// A copy of the data at some time.
pub(crate) enum Backup {
    Memory(MemoryStore),
    File(PathBuf),
}

/// Where new data goes.
pub(crate) enum Place {
    Memory,
    Folder(tempfile::TempDir),
    FaultyDisk,
}

impl Place {
    /// # Errors
    /// No folder can be made.
    pub(crate) fn new(keeps: Keeps) -> std::io::Result<Place> {
        // in memory where the system offers that: time of a disk is not virtual
        let folder = || tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Ok(match keeps {
            Keeps::Memory => Place::Memory,
            Keeps::File => Place::Folder(folder()?),
            Keeps::FaultyDisk => Place::FaultyDisk,
        })
    }
}

/// The file's name on a faulty disk.
const FILE: &str = "server.db";

impl Storage {
    /// Empty, a lineage of its own.
    pub(crate) fn new(
        place: &Place,
        number: u64,
        chance: &Chance,
        now_ms: u64,
    ) -> Result<Storage, StoreError> {
        Ok(match place {
            Place::Memory => Storage::Memory(Arc::new(MemoryStore::new(Epoch(chance.bits())))),
            Place::Folder(folder) => {
                let path = folder.path().join(format!("server-{number}.db"));
                Storage::File(open(&path, chance, now_ms)?, path)
            }
            Place::FaultyDisk => Storage::on(Disk::new(Image::default()), chance, now_ms)?,
        })
    }

    fn on(disk: Disk, chance: &Chance, now_ms: u64) -> Result<Storage, StoreError> {
        let store = open(&disk.uri(FILE), chance, now_ms)?;
        Ok(Storage::Faulty(store, disk))
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        match self {
            Storage::Memory(store) => Arc::clone(store) as Arc<dyn Store>,
            Storage::File(store, _) | Storage::Faulty(store, _) => {
                Arc::clone(store) as Arc<dyn Store>
            }
        }
    }

    /// The server has died. What was not durable is gone; on a faulty disk it
    /// is gone, there, or there in parts.
    pub(crate) fn crashed(self, chance: &Chance, now_ms: u64) -> Result<Storage, StoreError> {
        match self {
            Storage::Memory(store) => Ok(Storage::Memory(store)),
            Storage::File(store, path) => {
                // closed before it is opened
                drop(store);
                Ok(Storage::File(open(&path, chance, now_ms)?, path))
            }
            Storage::Faulty(store, disk) => {
                let way = match chance.between(0, 3) {
                    0 => Crash::Lost,
                    1 => Crash::Kept,
                    _ => Crash::Torn(chance.bits()),
                };
                let left = disk.crash(way);
                drop(store);
                Storage::on(Disk::new(left), chance, now_ms)
            }
        }
    }

    /// # Errors
    /// The store failed.
    pub(crate) fn back_up(&self, number: u64) -> Result<Option<Backup>, StoreError> {
        Ok(match self {
            Storage::Memory(store) => Some(Backup::Memory(MemoryStore::clone(store))),
            Storage::File(store, path) => {
                let to = path.with_file_name(format!("backup-{number}.db"));
                store.backup(&to, &mut |_| ())?;
                Some(Backup::File(to))
            }
            // whole files are copied with the system's calls, which it has not
            Storage::Faulty(..) => None,
        })
    }

    /// # Errors
    /// The store failed.
    pub(crate) fn restored(
        backup: &Backup,
        number: u64,
        epoch: Epoch,
        chance: &Chance,
        now_ms: u64,
    ) -> Result<Storage, StoreError> {
        match backup {
            Backup::Memory(copy) => {
                let store = MemoryStore::clone(copy);
                store.begin_epoch(epoch, now_ms)?;
                Ok(Storage::Memory(Arc::new(store)))
            }
            Backup::File(from) => {
                let to = from.with_file_name(format!("server-{number}.db"));
                sqlite::restore(from, &to, false, epoch, now_ms, &mut |_| ())?;
                Ok(Storage::File(open(&to, chance, now_ms)?, to))
            }
        }
    }

    /// The disk fails: once after some operations, or is full from then on.
    /// `false` where the disk is not simulated.
    pub(crate) fn fail(&self, chance: &Chance) -> bool {
        let Storage::Faulty(_, disk) = self else {
            return false;
        };
        let fault = match chance.between(0, 2) {
            0 => Fault::Io,
            1 => Fault::Full,
            _ => Fault::Sync,
        };
        disk.fail(fault, chance.skewed(200));
        true
    }

    /// The disk is sound again.
    pub(crate) fn mend(&self) {
        if let Storage::Faulty(_, disk) = self {
            disk.mend();
        }
    }

    /// Looks at what is stored as if the disk were sound.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&dyn Store) -> T) -> T {
        match self {
            Storage::Faulty(store, disk) => disk.without_faults(|| look(&**store)),
            _ => look(&*self.store()),
        }
    }

    fn path(&self) -> Option<PathBuf> {
        match self {
            Storage::Memory(_) => None,
            Storage::File(_, path) => Some(path.clone()),
            Storage::Faulty(_, disk) => Some(disk.uri(FILE)),
        }
    }

    /// Spoils stored content under its digest; `false` when there was nothing
    /// to spoil.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn damage(&self, space: &SpaceId, key: &Key) -> anyhow::Result<bool> {
        match (self, self.path()) {
            (Storage::Memory(store), _) => Ok(store.damage(space, key)),
            (_, Some(path)) => Ok(self.look(|_| damage_row(&path, space, key))?),
            (_, None) => Ok(false),
        }
    }

    /// Puts a record under `key`, or nothing, without a commit; `false` when
    /// there is no place for it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn tamper(
        &self,
        space: &SpaceId,
        key: &Key,
        record: Option<&Record>,
    ) -> anyhow::Result<bool> {
        match (self, self.path()) {
            (Storage::Memory(store), _) => {
                store.tamper(space, key, record);
                Ok(true)
            }
            (_, Some(path)) => Ok(self.look(|_| tamper_row(&path, space, key, record))?),
            (_, None) => Ok(false),
        }
    }
}

fn open(path: &Path, chance: &Chance, now_ms: u64) -> Result<Arc<SqliteStore>, StoreError> {
    let options = SqliteOptions {
        readers: 4,
        new_epoch: chance.bits(),
        now_ms,
    };
    Ok(Arc::new(SqliteStore::open(path, options)?))
}

/// The row under a key: its id, value and digest.
type Row = (i64, Vec<u8>, Vec<u8>);

fn row(conn: &Connection, space: &SpaceId, key: &Key) -> rusqlite::Result<Option<Row>> {
    conn.query_row(
        "SELECT r.id, r.value, r.digest FROM records r JOIN spaces s ON s.id = r.space
         WHERE s.name = ?1 AND r.key = ?2",
        params![space.as_str(), key.as_bytes()],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )
    .optional()
}

fn damage_row(path: &Path, space: &SpaceId, key: &Key) -> rusqlite::Result<bool> {
    let conn = Connection::open(path)?;
    let Some((id, mut value, mut digest)) = row(&conn, space, key)? else {
        return Ok(false);
    };
    match value.last_mut() {
        Some(byte) => *byte ^= 1,
        None => digest[0] ^= 1,
    }
    conn.execute(
        "UPDATE records SET value = ?2, digest = ?3 WHERE id = ?1",
        params![id, value, digest],
    )?;
    Ok(true)
}

fn tamper_row(
    path: &Path,
    space: &SpaceId,
    key: &Key,
    record: Option<&Record>,
) -> rusqlite::Result<bool> {
    let conn = Connection::open(path)?;
    let stood = row(&conn, space, key)?;
    let (space_id, head): (i64, i64) = conn.query_row(
        "SELECT id, head FROM spaces WHERE name = ?1",
        [space.as_str()],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let id = match &stood {
        Some((id, ..)) => {
            conn.execute("DELETE FROM records WHERE id = ?1", [id])?;
            *id
        }
        None => {
            // the place of a record that was replaced: its commit is long past
            let free = |sequence: &i64| {
                let id = space_id << 40 | sequence;
                let there = "SELECT 1 FROM records WHERE id = ?1";
                let taken = conn.query_row(there, [id], |_| Ok(())).optional();
                matches!(taken, Ok(None))
            };
            match (1..=head).find(free) {
                Some(sequence) => space_id << 40 | sequence,
                None => return Ok(false),
            }
        }
    };
    if let Some(record) = record {
        conn.execute(
            "INSERT INTO records
               (id, space, key, flags, time, replica, size, digest, arrived_ms, value)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, ?9)",
            params![
                id,
                space_id,
                key.as_bytes(),
                record.content.flags(),
                record.version.time.0 as i64,
                record.version.replica.0 as i64,
                record.size() as i64,
                &record.digest().0[..],
                record.content.value(),
            ],
        )?;
    }
    conn.execute(
        "UPDATE spaces SET
           records = (SELECT count(*) FROM records WHERE space = ?1),
           bytes = (SELECT coalesce(sum(size), 0) FROM records WHERE space = ?1)
         WHERE id = ?1",
        [space_id],
    )?;
    Ok(true)
}
