//! The server of a simulated world: the real request logic over a real store,
//! with what happens to servers done to it: restarts, wipes, restored backups,
//! compaction, rot. Knows no network.

use crate::chance::Chance;
use crate::device::drifted;
use crate::executor::{Executor, Process};
use gosync_proto::history::{Epoch, Position};
use gosync_proto::limits::Limits;
use gosync_proto::merkle::{Stream, Summary};
use gosync_proto::{Key, KeyRange, Record, SpaceId};
use gosync_server::maintenance::{self, CompactOptions, Compacted, Reach};
use gosync_server::service::{Service, ServiceConfig};
use gosync_server::store::memory::MemoryStore;
use gosync_server::store::sqlite::{self, SqliteOptions, SqliteStore};
use gosync_server::store::{Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Unix milliseconds at virtual time 0.
pub const EPOCH_MS: u64 = 1_767_225_600_000;

/// What a world's server keeps its data in.
enum Disk {
    Memory(Arc<MemoryStore>),
    Sqlite(Arc<SqliteStore>, PathBuf),
}

impl Disk {
    fn store(&self) -> Arc<dyn Store> {
        match self {
            Disk::Memory(store) => Arc::clone(store) as Arc<dyn Store>,
            Disk::Sqlite(store, _) => Arc::clone(store) as Arc<dyn Store>,
        }
    }
}

/// A copy of the data at some time.
enum Backup {
    Memory(MemoryStore),
    Sqlite(PathBuf),
}

struct State {
    disk: Disk,
    /// The servers over this one store; none while they are down.
    services: Vec<Service>,
    /// What belongs to the present run of it.
    process: Process,
    clock_offset_ms: i64,
    drift_ppm: i64,
    backup: Option<Backup>,
    files: u64,
    /// Content was damaged: what is stored has to be hashed before it counts.
    damaged: bool,
}

/// See the module. Clones are the same server.
#[derive(Clone)]
pub struct Server {
    state: Arc<Mutex<State>>,
    executor: Executor,
    chance: Chance,
    limits: Limits,
    /// How many servers work on the store.
    count: u64,
    /// Where database files go; `None`: in memory.
    folder: Option<Arc<tempfile::TempDir>>,
}

impl Server {
    /// A running server with nothing in it.
    ///
    /// # Errors
    /// The database file cannot be made.
    pub fn new(
        executor: Executor,
        chance: Chance,
        limits: Limits,
        count: u64,
        sqlite: bool,
    ) -> anyhow::Result<Server> {
        let folder = match sqlite {
            true => Some(Arc::new(folder()?)),
            false => None,
        };
        let process = executor.new_process();
        let disk = new_disk(folder.as_deref(), 0, &chance, EPOCH_MS)?;
        let server = Server {
            state: Arc::new(Mutex::new(State {
                disk,
                services: Vec::new(),
                process,
                clock_offset_ms: 0,
                drift_ppm: 0,
                backup: None,
                files: 0,
                damaged: false,
            })),
            executor,
            chance,
            limits,
            count,
            folder,
        };
        server.start();
        Ok(server)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The limits that it advertises.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Its wall clock, Unix milliseconds.
    pub fn wall_ms(&self) -> u64 {
        let now = self.executor.now_ms();
        let state = self.state();
        (EPOCH_MS + drifted(now, state.drift_ppm)).saturating_add_signed(state.clock_offset_ms)
    }

    /// Lets its clock gain so many millionths, from the beginning on.
    pub fn set_drift(&self, ppm: i64) {
        self.state().drift_ppm = ppm;
    }

    /// Sets its clock so far off.
    pub fn set_clock(&self, offset_ms: i64) {
        self.state().clock_offset_ms = offset_ms;
    }

    /// What answers a call, and the process that its streams belong to; `None`
    /// while it is down.
    pub fn running(&self) -> Option<(Service, Process)> {
        let state = self.state();
        let service = match state.services.len() {
            0 | 1 => state.services.first(),
            _ => self.chance.pick(&state.services),
        };
        Some((service?.clone(), state.process))
    }

    /// One server committed: the others hear of it, as from their database.
    pub fn committed(&self, space: &SpaceId) {
        let services = self.state().services.clone();
        for service in services {
            service.spaces().committed(space);
        }
    }

    /// Whether several servers work on the store.
    pub fn is_several(&self) -> bool {
        self.count > 1
    }

    /// Ends it without ceremony. What was durable in its store stays, and
    /// nothing else.
    ///
    /// # Errors
    /// The database file cannot be opened again.
    pub fn stop(&self) -> anyhow::Result<()> {
        let process = {
            let mut state = self.state();
            state.services.clear();
            state.process
        };
        self.executor.kill(process);
        let now = self.wall_ms();
        let mut state = self.state();
        if let Disk::Sqlite(_, path) = &state.disk {
            let path = path.clone();
            // closed before it is opened: what is not durable is gone with it
            state.disk = Disk::Memory(Arc::new(MemoryStore::new(Epoch(0))));
            state.disk = Disk::Sqlite(Arc::new(open(&path, &self.chance, now)?), path);
        }
        Ok(())
    }

    /// Starts it over whatever is in its store.
    pub fn start(&self) {
        let process = self.executor.new_process();
        let mut state = self.state();
        for _ in 0..self.count {
            let chance = self.chance.fork();
            let config = ServiceConfig {
                limits: self.limits,
                ..ServiceConfig::default()
            };
            let entropy = Box::new(move || chance.bits());
            let service = Service::new(state.disk.store(), config, entropy);
            state.services.push(service);
        }
        state.process = process;
    }

    /// Starts it with nothing in its store: a new lineage. Must be stopped.
    ///
    /// # Errors
    /// The database file cannot be made.
    pub fn wipe(&self) -> anyhow::Result<()> {
        let now = self.wall_ms();
        let mut state = self.state();
        state.files += 1;
        state.disk = new_disk(self.folder.as_deref(), state.files, &self.chance, now)?;
        Ok(())
    }

    /// Makes a copy, and forgets the one before.
    ///
    /// # Errors
    /// The store failed.
    pub fn back_up(&self) -> anyhow::Result<()> {
        let mut state = self.state();
        state.files += 1;
        state.backup = Some(match &state.disk {
            Disk::Memory(store) => Backup::Memory(MemoryStore::clone(store)),
            Disk::Sqlite(store, path) => {
                let to = path.with_file_name(format!("backup-{}.db", state.files));
                store.backup(&to, &mut |_| ())?;
                Backup::Sqlite(to)
            }
        });
        Ok(())
    }

    /// Goes back to the copy, in a new epoch. Must be stopped. `false` when
    /// there is none.
    ///
    /// # Errors
    /// The store failed.
    pub fn restore(&self) -> anyhow::Result<bool> {
        let now = self.wall_ms();
        let epoch = Epoch(self.chance.bits());
        let mut state = self.state();
        state.files += 1;
        let disk = match &state.backup {
            None => return Ok(false),
            Some(Backup::Memory(copy)) => {
                let store = MemoryStore::clone(copy);
                store.begin_epoch(epoch, now)?;
                Disk::Memory(Arc::new(store))
            }
            Some(Backup::Sqlite(from)) => {
                let to = from.with_file_name(format!("server-{}.db", state.files));
                sqlite::restore(from, &to, false, epoch, now, &mut |_| ())?;
                Disk::Sqlite(Arc::new(open(&to, &self.chance, now)?), to)
            }
        };
        state.disk = disk;
        Ok(true)
    }

    /// Compacts, with so short a retention.
    ///
    /// # Errors
    /// The store failed.
    pub fn compact(&self, space: &SpaceId, retention_ms: u64) -> Result<Compacted, StoreError> {
        let now = self.wall_ms();
        let store = self.state().disk.store();
        let options = CompactOptions {
            retention_ms,
            max_step_ms: u64::MAX,
            reach: Reach::AsNeeded,
        };
        maintenance::compact(&*store, space, now, options)
    }

    /// Hashes everything stored again and sets aside what is damaged, as its
    /// operator does. Returns how many records that were.
    ///
    /// # Errors
    /// The store failed.
    pub fn scrub(&self, space: &SpaceId) -> Result<usize, StoreError> {
        let now = self.wall_ms();
        let store = self.state().disk.store();
        let report = maintenance::verify(&*store, space)?;
        let found = maintenance::repair(&*store, &report, now)?;
        self.committed(space);
        Ok(found)
    }

    /// How many of these keys hold content that is damaged and was not set
    /// aside yet.
    ///
    /// # Errors
    /// The store failed.
    pub fn spoilt(&self, space: &SpaceId, keys: &BTreeSet<Key>) -> Result<usize, StoreError> {
        let store = self.state().disk.store();
        let mut tx = store.read(space)?;
        for key in keys {
            tx.get(key)?;
        }
        Ok(tx.take_damage().len())
    }

    /// Spoils stored content under its digest. Only in memory; `false` when
    /// there was nothing to spoil.
    pub fn damage(&self, space: &SpaceId, key: &Key) -> bool {
        let mut state = self.state();
        let damaged = match &state.disk {
            Disk::Memory(store) => store.damage(space, key),
            Disk::Sqlite(..) => false,
        };
        state.damaged |= damaged;
        damaged
    }

    /// Puts a record under `key`, or nothing, without a commit. Only in memory.
    pub fn tamper(&self, space: &SpaceId, key: &Key, record: Option<&Record>) {
        if let Disk::Memory(store) = &self.state().disk {
            store.tamper(space, key, record);
        }
    }

    /// Every intact record, as it stands, with the sequence at which it was
    /// committed.
    ///
    /// # Errors
    /// The store failed.
    pub fn committed_records(
        &self,
        space: &SpaceId,
    ) -> Result<BTreeMap<Key, (Record, u64)>, StoreError> {
        let store = {
            let state = self.state();
            match &state.disk {
                Disk::Memory(store) if !state.damaged => {
                    let records = store.unchecked(space).into_iter();
                    return Ok(records.map(|(r, at)| (r.key.clone(), (r, at))).collect());
                }
                disk => disk.store(),
            }
        };
        let mut records = BTreeMap::new();
        let mut tx = store.read(space)?;
        tx.scan(&KeyRange::all(), None, &mut |stored| {
            let key = stored.record.key.clone();
            records.insert(key, (stored.record, stored.sequence));
            ControlFlow::Continue(())
        })?;
        Ok(records)
    }

    /// Every intact record, as it stands.
    ///
    /// # Errors
    /// The store failed.
    pub fn records(&self, space: &SpaceId) -> Result<BTreeMap<Key, Record>, StoreError> {
        let records = self.committed_records(space)?;
        Ok(records.into_iter().map(|(k, (r, _))| (k, r)).collect())
    }

    /// The newest commit, and the horizon, as they stand.
    ///
    /// # Errors
    /// The store failed.
    pub fn position(&self, space: &SpaceId) -> Result<Position, StoreError> {
        let store = self.state().disk.store();
        let mut tx = store.read(space)?;
        Ok(tx.state()?.position)
    }

    /// The root that the tree kept in memory has, and the one that the stored
    /// records give.
    ///
    /// # Errors
    /// The store failed.
    pub fn roots(&self, space: &SpaceId) -> Result<Option<(Summary, Summary)>, StoreError> {
        let Some((service, _)) = self.running() else {
            return Ok(None);
        };
        let kept = service
            .spaces()
            .with_tree(service.store(), space, |tree, _| tree.total())?
            .0;
        let horizon = self.position(space)?.horizon;
        let mut computed = Stream::new();
        for (key, record) in self.records(space)? {
            if record.in_fingerprints(horizon) {
                // in key order, as a map gives them
                let _ = computed.push(key.as_bytes(), record.digest());
            }
        }
        Ok(Some((kept, computed.finish())))
    }
}

/// In memory where the system offers that: what a disk does is tested
/// elsewhere, and its time is not virtual.
fn folder() -> std::io::Result<tempfile::TempDir> {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())
}

fn open(path: &std::path::Path, chance: &Chance, now_ms: u64) -> Result<SqliteStore, StoreError> {
    let options = SqliteOptions {
        readers: 4,
        new_epoch: chance.bits(),
        now_ms,
    };
    SqliteStore::open(path, options)
}

fn new_disk(
    folder: Option<&tempfile::TempDir>,
    number: u64,
    chance: &Chance,
    now_ms: u64,
) -> anyhow::Result<Disk> {
    Ok(match folder {
        None => Disk::Memory(Arc::new(MemoryStore::new(Epoch(chance.bits())))),
        Some(folder) => {
            let path = folder.path().join(format!("server-{number}.db"));
            Disk::Sqlite(Arc::new(open(&path, chance, now_ms)?), path)
        }
    })
}
