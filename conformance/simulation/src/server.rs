//! The server of a simulated world: the real request logic over a real store,
//! with what happens to servers done to it: restarts, wipes, restored backups,
//! compaction, rot. Knows no network.

use crate::chance::Chance;
use crate::device::drifted;
use crate::executor::{Executor, Process};
use crate::failing::Failing;
use crate::shaky::ShakyStore;
use crate::storage::{Backup, Keeps, Place, Storage};
use gosync_proto::history::{Epoch, Position};
use gosync_proto::limits::Limits;
use gosync_proto::merkle::{Stream, Summary};
use gosync_proto::{Key, KeyRange, Record, SpaceId};
use gosync_server::maintenance::{self, CompactOptions, Compacted, Reach};
use gosync_server::service::{Service, ServiceConfig};
use gosync_server::store::memory::MemoryStore;
use gosync_server::store::{Store, StoreError};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Unix milliseconds at virtual time 0.
pub const EPOCH_MS: u64 = 1_767_225_600_000;

struct State {
    storage: Storage,
    /// How its disk fails; the store over SQLite may have a disk of its own that
    /// does.
    failing: Failing,
    /// The servers over this one store.
    members: Vec<Member>,
    /// What they work on, since they were all down.
    store: Option<Arc<dyn Store>>,
    clock_offset_ms: i64,
    drift_ppm: i64,
    backup: Option<Backup>,
    files: u64,
    /// Where content was damaged: there it is hashed before it counts.
    damaged: BTreeSet<Key>,
}

/// One of the servers that work on a store.
struct Member {
    /// `None` while it is down.
    service: Option<Service>,
    /// What belongs to its present run, or belonged to the last one.
    process: Process,
    /// How far its clock is off, beside what is wrong with everybody's.
    offset_ms: i64,
}

/// A server that runs, as a call meets it.
pub struct Running {
    /// What answers.
    pub service: Service,
    /// What its streams belong to.
    pub process: Process,
    /// Its clock.
    pub clock: ServerClock,
}

/// The clock of one of the servers.
#[derive(Clone)]
pub struct ServerClock {
    server: Server,
    offset_ms: i64,
}

impl ServerClock {
    /// What it reads, Unix milliseconds.
    pub fn wall_ms(&self) -> u64 {
        self.server.wall_ms().saturating_add_signed(self.offset_ms)
    }
}

/// The servers that work on one store.
#[derive(Clone, Copy, Debug)]
pub struct Company {
    /// How many there are.
    pub count: u64,
    /// How far the clock of each is off, at most, milliseconds; 0 where they share
    /// one.
    pub apart_ms: u64,
}

impl Company {
    /// One server.
    pub const ALONE: Company = Company {
        count: 1,
        apart_ms: 0,
    };
}

/// See the module. Clones are the same server.
#[derive(Clone)]
pub struct Server {
    state: Arc<Mutex<State>>,
    executor: Executor,
    chance: Chance,
    limits: Limits,
    place: Arc<Place>,
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
        company: Company,
        keeps: Keeps,
    ) -> anyhow::Result<Server> {
        let place = Place::new(keeps)?;
        let process = executor.new_process();
        let storage = Storage::new(&place, 0, &chance, EPOCH_MS)?;
        let member = |_| Member {
            service: None,
            process,
            offset_ms: match company.apart_ms {
                0 => 0,
                most => chance.between(0, 2 * most) as i64 - most as i64,
            },
        };
        let members = (0..company.count).map(member).collect();
        let server = Server {
            state: Arc::new(Mutex::new(State {
                storage,
                failing: Failing::default(),
                members,
                store: None,
                clock_offset_ms: 0,
                drift_ppm: 0,
                backup: None,
                files: 0,
                damaged: BTreeSet::new(),
            })),
            executor,
            chance,
            limits,
            place: Arc::new(place),
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

    /// The server that a call meets: any of them; `None` where that is down.
    pub fn running(&self) -> Option<Running> {
        let state = self.state();
        let member = match &state.members[..] {
            members if members.iter().all(|m| m.service.is_none()) => None,
            [member] => Some(member),
            members => self.chance.pick(members),
        }?;
        Some(Running {
            service: member.service.clone()?,
            process: member.process,
            clock: ServerClock {
                server: self.clone(),
                offset_ms: member.offset_ms,
            },
        })
    }

    /// Whether any of them is down.
    pub fn is_short(&self) -> bool {
        self.state().members.iter().any(|m| m.service.is_none())
    }

    /// One server committed: the others hear of it, as from their database.
    pub fn committed(&self, space: &SpaceId) {
        let services: Vec<Service> = {
            let state = self.state();
            let running = state.members.iter().filter_map(|m| m.service.clone());
            running.collect()
        };
        for service in services {
            service.spaces().committed(space);
        }
    }

    /// Whether several servers work on the store.
    pub fn is_several(&self) -> bool {
        self.state().members.len() > 1
    }

    /// Ends one of them without ceremony, and says which; the others go on.
    pub fn stop_one(&self, place: u64) -> u64 {
        let (number, process) = {
            let mut state = self.state();
            let number = place % state.members.len() as u64;
            let member = &mut state.members[number as usize];
            member.service = None;
            (number, member.process)
        };
        self.executor.kill(process);
        number
    }

    /// Ends all without ceremony. What was durable in their store stays, and
    /// nothing else.
    ///
    /// # Errors
    /// The database file cannot be opened again.
    pub fn stop(&self) -> anyhow::Result<()> {
        let processes: BTreeSet<Process> = {
            let mut state = self.state();
            // closed before it is opened
            state.store = None;
            let members = state.members.iter_mut();
            let stopped = members.map(|member| {
                member.service = None;
                member.process
            });
            stopped.collect()
        };
        processes.into_iter().for_each(|p| self.executor.kill(p));
        let now = self.wall_ms();
        let mut state = self.state();
        let nothing = Storage::Memory(Arc::new(MemoryStore::new(Epoch(0))));
        let storage = std::mem::replace(&mut state.storage, nothing);
        state.storage = storage.crashed(&self.chance, now)?;
        Ok(())
    }

    /// Its disk begins to fail: so many of a thousand operations, or as the
    /// simulated disk under SQLite has it.
    pub fn fail(&self, permille: u64) {
        let state = self.state();
        if !state.storage.fail(&self.chance) {
            state.failing.set(permille);
        }
    }

    /// Its disk is sound again. `false` when it has to be started anew, since it
    /// no longer writes.
    pub fn mend(&self) -> bool {
        let state = self.state();
        state.storage.mend();
        state.failing.set(0);
        let stopped = |service: &Service| service.store().poisoned().is_some();
        let mut running = state.members.iter().filter_map(|m| m.service.as_ref());
        !running.any(stopped)
    }

    /// Starts whichever are down, over whatever is in their store.
    pub fn start(&self) {
        let mut state = self.state();
        for number in 0..state.members.len() {
            self.start_member(&mut state, number);
        }
    }

    /// Starts this one, if it is down.
    pub fn start_one(&self, number: u64) {
        self.start_member(&mut self.state(), number as usize);
    }

    fn start_member(&self, state: &mut State, number: usize) {
        if state.members[number].service.is_some() {
            return;
        }
        // one database, whoever works on it: where it is stopped, it is for all
        let store = match &state.store {
            Some(store) => Arc::clone(store),
            None => Arc::new(ShakyStore::new(
                state.storage.store(),
                state.failing.clone(),
                self.chance.fork(),
            )),
        };
        state.store = Some(Arc::clone(&store));
        let chance = self.chance.fork();
        let config = ServiceConfig {
            limits: self.limits,
            ..ServiceConfig::default()
        };
        let entropy = Box::new(move || chance.bits());
        let member = &mut state.members[number];
        member.service = Some(Service::new(store, config, entropy));
        member.process = self.executor.new_process();
    }

    /// Starts it with nothing in its store: a new lineage. Must be stopped.
    ///
    /// # Errors
    /// The database file cannot be made.
    pub fn wipe(&self) -> anyhow::Result<()> {
        let now = self.wall_ms();
        let mut state = self.state();
        state.files += 1;
        state.storage = Storage::new(&self.place, state.files, &self.chance, now)?;
        Ok(())
    }

    /// Makes a copy, and forgets the one before.
    ///
    /// # Errors
    /// The store failed.
    pub fn back_up(&self) -> anyhow::Result<()> {
        let mut state = self.state();
        state.files += 1;
        if let Some(backup) = state.storage.back_up(state.files)? {
            state.backup = Some(backup);
        }
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
        let Some(backup) = &state.backup else {
            return Ok(false);
        };
        let restored = Storage::restored(backup, state.files, epoch, &self.chance, now)?;
        state.storage = restored;
        Ok(true)
    }

    /// Compacts, with so short a retention.
    ///
    /// # Errors
    /// The store failed.
    pub fn compact(&self, space: &SpaceId, retention_ms: u64) -> Result<Compacted, StoreError> {
        let options = CompactOptions {
            retention_ms,
            max_step_ms: u64::MAX,
            reach: Reach::AsNeeded,
        };
        let compact = |store: &dyn Store, now| maintenance::compact(store, space, now, options);
        // whoever compacts beside a server works on the same disk, and by its clock
        match self.running() {
            Some(met) => compact(met.service.store(), met.clock.wall_ms()),
            None => {
                let now = self.wall_ms();
                self.state().storage.look(|store| compact(store, now))
            }
        }
    }

    /// Hashes everything stored again and sets aside what is damaged, as its
    /// operator does. Returns how many records that were.
    ///
    /// # Errors
    /// The store failed.
    pub fn scrub(&self, space: &SpaceId) -> Result<usize, StoreError> {
        let now = self.wall_ms();
        let found = self.state().storage.look(|store| {
            let report = maintenance::verify(store, space)?;
            maintenance::repair(store, &report, now)
        })?;
        self.committed(space);
        Ok(found)
    }

    /// How many of these keys hold content that is damaged and was not set
    /// aside yet.
    ///
    /// # Errors
    /// The store failed.
    pub fn spoilt(&self, space: &SpaceId, keys: &BTreeSet<Key>) -> Result<usize, StoreError> {
        self.state().storage.look(|store| {
            let mut tx = store.read(space)?;
            for key in keys {
                tx.get(key)?;
            }
            Ok(tx.take_damage().len())
        })
    }

    /// Spoils stored content under its digest; `false` when there was nothing to
    /// spoil.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn damage(&self, space: &SpaceId, key: &Key) -> anyhow::Result<bool> {
        let mut state = self.state();
        let damaged = state.storage.damage(space, key)?;
        if damaged {
            state.damaged.insert(key.clone());
        }
        Ok(damaged)
    }

    /// Puts a record under `key`, or nothing, without a commit; `false` when
    /// there is no place for it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn tamper(
        &self,
        space: &SpaceId,
        key: &Key,
        record: Option<&Record>,
    ) -> anyhow::Result<bool> {
        self.state().storage.tamper(space, key, record)
    }

    /// Every intact record, as it stands, with the sequence at which it was
    /// committed, in the order of keys.
    ///
    /// # Errors
    /// The store failed.
    pub fn committed_records(&self, space: &SpaceId) -> Result<Vec<(Record, u64)>, StoreError> {
        let state = self.state();
        let Storage::Memory(store) = &state.storage else {
            return state.storage.look(|store| scan(store, space));
        };
        let mut records = store.unchecked(space);
        if !state.damaged.is_empty() {
            let mut tx = store.read(space)?;
            let mut spoilt = BTreeSet::new();
            for key in &state.damaged {
                if tx.get(key)?.is_none() {
                    spoilt.insert(key);
                }
            }
            records.retain(|(record, _)| !spoilt.contains(&record.key));
        }
        Ok(records)
    }

    /// Every intact record, as it stands.
    ///
    /// # Errors
    /// The store failed.
    pub fn records(&self, space: &SpaceId) -> Result<BTreeMap<Key, Record>, StoreError> {
        let records = self.committed_records(space)?.into_iter();
        Ok(records.map(|(r, _)| (r.key.clone(), r)).collect())
    }

    /// The newest commit, and the horizon, as they stand.
    ///
    /// # Errors
    /// The store failed.
    pub fn position(&self, space: &SpaceId) -> Result<Position, StoreError> {
        let look = |store: &dyn Store| Ok(store.read(space)?.state()?.position);
        self.state().storage.look(look)
    }

    /// The root that the tree kept in memory has, and the one that the stored
    /// records give.
    ///
    /// # Errors
    /// The store failed.
    pub fn roots(&self, space: &SpaceId) -> Result<Option<(Summary, Summary)>, StoreError> {
        let Some(Running { service, .. }) = self.running() else {
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

/// Every intact record, and when it was committed.
fn scan(store: &dyn Store, space: &SpaceId) -> Result<Vec<(Record, u64)>, StoreError> {
    let mut records = Vec::new();
    store
        .read(space)?
        .scan(&KeyRange::all(), None, &mut |stored| {
            records.push((stored.record, stored.sequence));
            ControlFlow::Continue(())
        })?;
    Ok(records)
}
