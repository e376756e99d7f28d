//! A device: the real client over a store that outlives it, with a user who
//! writes. Knows the network only as its own link.

use crate::chance::Chance;
use crate::executor::{Executor, Process};
use crate::ledger::Ledger;
use crate::net::{Link, Net};
use crate::server::EPOCH_MS;
use crate::store::SimStore;
use crate::trace::Trace;
use futures::{FutureExt as _, StreamExt as _};
use gosync_client::client::Event;
use gosync_client::engine::Report;
use gosync_client::platform::{BoxFuture, Moment, NoRandomness, Runtime};
use gosync_client::replica::edit::Edit;
use gosync_client::store::{MemoryStore, Store as _};
use gosync_client::{Client, Config};
use gosync_proto::{Key, KeyRange, Record, SpaceId};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How busy users are.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// Keys that are written again and again.
    pub hot_keys: u64,
    /// The longest pause between two writes, milliseconds.
    pub pause_ms: u64,
    /// Imports of many keys at once, of a thousand writes.
    pub imports: u64,
}

struct State {
    disk: MemoryStore,
    opening: Option<(Process, Option<Client<SimStore>>)>,
    report: Option<Result<Report, String>>,
    healed: u64,
}

/// Clones are the same device.
#[derive(Clone)]
pub struct Device {
    index: usize,
    space: SpaceId,
    state: Arc<Mutex<State>>,
    clock_offset_ms: Arc<AtomicI64>,
    writing: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    executor: Executor,
    chance: Chance,
    net: Net,
    ledger: Ledger,
    trace: Trace,
    habits: Habits,
}

/// Time, timers and tasks of one opening.
#[derive(Clone)]
struct SimRuntime {
    executor: Executor,
    process: Process,
    chance: Chance,
    clock_offset_ms: Arc<AtomicI64>,
}

impl Runtime for SimRuntime {
    fn moment(&self) -> Moment {
        let now = self.executor.now_ms();
        let offset = self.clock_offset_ms.load(Ordering::Relaxed);
        Moment {
            mono_ms: now,
            wall_ms: (EPOCH_MS + now).saturating_add_signed(offset),
            entropy: self.chance.bits(),
        }
    }

    fn sleep(&self, ms: u64) -> BoxFuture<'static, ()> {
        Box::pin(self.executor.sleep(ms))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.executor.spawn_boxed(self.process, task);
    }

    fn replica_id(&self) -> Result<u64, NoRandomness> {
        Ok(self.chance.bits())
    }
}

impl Device {
    /// A device with an empty store, not opened yet.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        index: usize,
        space: SpaceId,
        executor: Executor,
        chance: Chance,
        net: Net,
        ledger: Ledger,
        trace: Trace,
        habits: Habits,
    ) -> Device {
        Device {
            index,
            space,
            state: Arc::new(Mutex::new(State {
                disk: MemoryStore::new(),
                opening: None,
                report: None,
                healed: 0,
            })),
            clock_offset_ms: Arc::default(),
            writing: Arc::new(AtomicBool::new(true)),
            written: Arc::default(),
            executor,
            chance,
            net,
            ledger,
            trace,
            habits,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, what: std::fmt::Arguments<'_>) {
        let now = self.executor.now_ms();
        self.trace.line(now, format_args!("d{} {what}", self.index));
    }

    /// Its place among the devices.
    pub fn index(&self) -> usize {
        self.index
    }

    /// What it keeps.
    pub fn disk(&self) -> MemoryStore {
        self.state().disk.clone()
    }

    /// Sets its wall clock so far off.
    pub fn set_clock(&self, offset_ms: i64) {
        self.clock_offset_ms.store(offset_ms, Ordering::Relaxed);
    }

    /// Whether its user writes.
    pub fn set_writing(&self, writing: bool) {
        self.writing.store(writing, Ordering::Relaxed);
    }

    /// Records that healing moved or dropped here.
    pub fn healed(&self) -> u64 {
        self.state().healed
    }

    /// Opens it, unless it is open.
    pub fn open(&self) {
        let process = self.executor.new_process();
        let disk = {
            let mut state = self.state();
            if state.opening.is_some() {
                return;
            }
            state.opening = Some((process, None));
            state.disk.clone()
        };
        self.note(format_args!("opens"));
        let device = self.clone();
        self.executor
            .spawn(process, async move { device.live(process, disk).await });
    }

    /// Ends it without ceremony. Its store stays.
    pub fn crash(&self) {
        let opening = self.state().opening.take();
        if let Some((process, client)) = opening {
            self.note(format_args!("crashes"));
            self.executor.kill(process);
            drop(client);
        }
    }

    /// Crashes, and its store is gone too.
    pub fn lose_store(&self) {
        self.crash();
        self.note(format_args!("loses its store"));
        self.ledger.lost(self.index);
        self.state().disk = MemoryStore::new();
    }

    /// Switches syncing on or off.
    pub fn set_online(&self, online: bool) {
        let client = self.client();
        if let Some(client) = client {
            self.note(format_args!(
                "goes {}",
                if online { "online" } else { "offline" }
            ));
            client.set_online(online);
        }
    }

    /// The client, while it is open.
    pub fn client(&self) -> Option<Client<SimStore>> {
        self.state().opening.as_ref()?.1.clone()
    }

    /// Begins a verification; [`Device::report`] has what came of it.
    pub fn verify(&self) {
        let process = self.state().opening.as_ref().map(|(p, _)| *p);
        let (Some(client), Some(process)) = (self.client(), process) else {
            return;
        };
        let device = self.clone();
        self.executor.spawn(process, async move {
            let report = client.verify().await.map_err(|e| e.to_string());
            device.note(format_args!("verified: {report:?}"));
            device.state().report = Some(report);
        });
    }

    /// What the last verification found.
    pub fn report(&self) -> Option<Result<Report, String>> {
        self.state().report.take()
    }

    /// Its clean records, damaged ones apart.
    pub fn records(&self) -> BTreeMap<Key, Record> {
        let disk = self.disk();
        let all = KeyRange::all();
        // a store in memory never waits
        let page = disk.page(&all, None, usize::MAX).now_or_never();
        let clean = page.and_then(Result::ok).unwrap_or_default().clean;
        clean
            .into_iter()
            .filter(|s| s.intact())
            .map(|s| (s.record.key.clone(), s.record))
            .collect()
    }

    /// Spoils stored content under its digest.
    pub fn damage(&self, key: &Key) {
        let disk = self.disk();
        // a store in memory neither waits nor fails
        let _ = disk.damage(std::slice::from_ref(key)).now_or_never();
    }

    async fn live(self, process: Process, disk: MemoryStore) {
        let link: Link = self.net.link(self.index);
        let runtime = SimRuntime {
            executor: self.executor.clone(),
            process,
            chance: self.chance.clone(),
            clock_offset_ms: Arc::clone(&self.clock_offset_ms),
        };
        let store = SimStore::new(
            self.index,
            disk,
            self.executor.clone(),
            self.chance.clone(),
            self.ledger.clone(),
        );
        let config = Config {
            space: self.space.clone(),
            ranges: gosync_proto::RangeSet::all(),
            auth: None,
            online: true,
            software: "simulation".into(),
        };
        let client = match Client::open(store, link, runtime, config).await {
            Ok(client) => client,
            Err(error) => {
                self.ledger
                    .violation(format!("device {} cannot open: {error}", self.index));
                return;
            }
        };
        self.watch_events(process, &client);
        if let Some(opening) = &mut self.state().opening {
            opening.1 = Some(client.clone());
        }
        self.use_it(client).await;
    }

    fn watch_events(&self, process: Process, client: &Client<SimStore>) {
        let (device, mut events) = (self.clone(), client.events());
        self.executor.spawn(process, async move {
            while let Some(event) = events.next().await {
                if let Event::Healed(healed) = &event {
                    device.note(format_args!("healed: {healed:?}"));
                    device.state().healed += healed.received + healed.offered + healed.dropped;
                }
                if let Event::Damaged(keys) = &event {
                    device.note(format_args!("found damage: {keys:?}"));
                }
            }
        });
        let (device, mut statuses) = (self.clone(), client.statuses());
        self.executor.spawn(process, async move {
            let mut last = None;
            while let Some(status) = statuses.next().await {
                let told = (status.phase, status.problem.clone());
                if last.as_ref() != Some(&told) {
                    let problem = status.problem.map(|p| p.message).unwrap_or_default();
                    device.note(format_args!("is {:?} {problem}", status.phase));
                    last = Some(told);
                }
            }
        });
    }

    /// The user.
    async fn use_it(self, client: Client<SimStore>) {
        loop {
            let pause = self.chance.skewed(self.habits.pause_ms);
            self.executor.sleep(pause + 1).await;
            if !self.writing.load(Ordering::Relaxed) {
                continue;
            }
            let edits = self.edits();
            let keys: Vec<String> = edits.iter().map(|e| e.key().to_string()).collect();
            let shown = match keys.len() {
                0..=5 => keys.join(" "),
                n => format!("{} ({n} keys)", keys[0]),
            };
            match client.batch(edits).await {
                Ok(_) => self.note(format_args!("writes {shown}")),
                Err(error) => self
                    .ledger
                    .violation(format!("device {} cannot write: {error}", self.index)),
            }
        }
    }

    fn edits(&self) -> Vec<Edit> {
        let count = match self.chance.between(0, 999) {
            x if x < self.habits.imports => self.chance.between(20, 90),
            x if x < 150 => self.chance.between(2, 6),
            _ => 1,
        };
        let import = count > 6;
        (0..count).filter_map(|_| self.edit(import)).collect()
    }

    fn edit(&self, import: bool) -> Option<Edit> {
        let n = self.written.fetch_add(1, Ordering::Relaxed);
        let key = match import {
            true => format!("import/{}/{n:05}", self.index),
            false => format!("k{:03}", self.chance.skewed(self.habits.hot_keys)),
        };
        let key = Key::new(key.as_bytes()).ok()?;
        if self.chance.permille(200) {
            return Some(Edit::Delete(key));
        }
        // no two values alike: content tells who wrote it
        let mut value = format!("d{}.{n} ", self.index).into_bytes();
        let more = match self.chance.permille(10) {
            true => 20_000,
            false => self.chance.skewed(300),
        };
        value.resize(value.len() + more as usize, b'.');
        Some(Edit::Put(key, value.into()))
    }
}
