//! A device: the real client over a store that outlives it, with a user who
//! writes. Knows the network only as its own link.

use crate::chance::Chance;
use crate::executor::{Executor, Process};
use crate::household::Household;
use crate::ledger::Ledger;
use crate::net::{Link, Net};
use crate::server::EPOCH_MS;
use crate::store::SimStore;
use crate::trace::Trace;
use futures::{FutureExt as _, StreamExt as _};
use gosync_client::client::Event;
use gosync_client::documents::DocumentId;
use gosync_client::engine::Phase;
use gosync_client::engine::{Healed, Report};
use gosync_client::platform::{BoxFuture, Moment, NoRandomness, Runtime};
use gosync_client::replica::edit::Edit;
use gosync_client::store::{Changes, HeldRange, MemoryStore, Reads, Store as _, Stored};
use gosync_client::{Client, Config};
use gosync_proto::history::Cursor;
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
    /// Edits of documents that several people edit, of a thousand writes.
    pub documents: u64,
}

#[derive(Default)]
struct State {
    report: Option<Result<Report, String>>,
    /// Nothing is followed yet: what comes is the first sync, by whatever call.
    fresh: bool,
    healed: u64,
    /// Reconciliations since somebody asked.
    healings: Vec<Healed>,
}

/// Clones are the same device.
#[derive(Clone)]
pub struct Device {
    index: usize,
    space: SpaceId,
    home: Household,
    state: Arc<Mutex<State>>,
    clock_offset_ms: Arc<AtomicI64>,
    /// Its clocks gain so many millionths.
    drift_ppm: i64,
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
    drift_ppm: i64,
}

/// What a clock that gains so many millionths makes of a time.
pub(crate) fn drifted(ms: u64, ppm: i64) -> u64 {
    let gained = i128::from(ms) * i128::from(ppm) / 1_000_000;
    ms.saturating_add_signed(gained as i64)
}

impl Runtime for SimRuntime {
    fn moment(&self) -> Moment {
        let now = drifted(self.executor.now_ms(), self.drift_ppm);
        let offset = self.clock_offset_ms.load(Ordering::Relaxed);
        Moment {
            mono_ms: now,
            wall_ms: (EPOCH_MS + now).saturating_add_signed(offset),
            entropy: self.chance.bits(),
        }
    }

    fn sleep(&self, ms: u64) -> BoxFuture<'static, ()> {
        Box::pin(self.executor.sleep(drifted(ms, -self.drift_ppm)))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.executor.spawn_boxed(self.process, task);
    }

    fn replica_id(&self) -> Result<u64, NoRandomness> {
        Ok(self.chance.bits())
    }
}

impl Device {
    /// A device, not opened yet, on a store that others may share.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        index: usize,
        space: SpaceId,
        home: Household,
        executor: Executor,
        chance: Chance,
        net: Net,
        ledger: Ledger,
        trace: Trace,
        habits: Habits,
        drift_ppm: i64,
    ) -> Device {
        Device {
            drift_ppm,
            index,
            space,
            home,
            state: Arc::default(),
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

    /// Its space.
    pub fn space(&self) -> &SpaceId {
        &self.space
    }

    /// The store that it has open, or opens next.
    pub fn home(&self) -> &Household {
        &self.home
    }

    /// Whether it is the one that syncs its store.
    pub fn leads(&self) -> bool {
        self.home.leads(self.index)
    }

    /// Sets its wall clock so far off.
    pub fn set_clock(&self, offset_ms: i64) {
        self.clock_offset_ms.store(offset_ms, Ordering::Relaxed);
    }

    /// Whether its user writes.
    pub fn set_writing(&self, writing: bool) {
        self.writing.store(writing, Ordering::Relaxed);
    }

    /// Records that healing moved or dropped here, the first sync apart: where
    /// enough was written before it, that is a reconciliation too.
    pub fn healed(&self) -> u64 {
        self.state().healed
    }

    /// What its reconciliations found, since this was asked last.
    pub fn take_healings(&self) -> Vec<Healed> {
        std::mem::take(&mut self.state().healings)
    }

    /// Opens it, unless it is open.
    pub fn open(&self) {
        let process = self.executor.new_process();
        let Some(leads) = self.home.open(self.index, process) else {
            return;
        };
        self.note(format_args!("opens"));
        let (device, disk) = (self.clone(), self.home.disk());
        self.executor.spawn(
            process,
            async move { device.live(process, disk, leads).await },
        );
    }

    /// Ends it without ceremony. Its store stays.
    pub fn crash(&self) {
        if let Some(process) = self.home.process(self.index) {
            self.note(format_args!("crashes"));
            // first it stops, then others may take over
            self.executor.kill(process);
            self.home.close(self.index);
        }
    }

    /// Its store is gone. Nobody may have it open.
    pub fn lose_store(&self) {
        self.note(format_args!("loses its store"));
        self.ledger.lost(self.home.number());
        self.home.lose();
    }

    /// Switches syncing on or off.
    pub fn set_online(&self, online: bool) {
        let client = self.client().filter(|_| self.leads());
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
        self.home.client(self.index)
    }

    /// Begins a verification; [`Device::report`] has what came of it.
    pub fn verify(&self) {
        let process = self.home.process(self.index);
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

    /// Its clean records in the ranges that it holds, damaged ones apart.
    pub fn records(&self) -> BTreeMap<Key, Record> {
        let sound = !self.home.was_damaged();
        let held = self.held().into_iter();
        held.filter(|(_, s)| sound || s.intact())
            .map(|(key, s)| (key, s.record))
            .collect()
    }

    /// Its clean records in the ranges that it holds, damaged ones included.
    pub fn held(&self) -> BTreeMap<Key, Stored> {
        let ranges = self.home.ranges();
        let mut held = self.stored();
        held.retain(|key, _| ranges.contains(key.as_bytes()));
        held
    }

    fn stored(&self) -> BTreeMap<Key, Stored> {
        let disk = self.home.disk();
        // a store in memory never waits
        let page = disk.page(&KeyRange::all(), None, usize::MAX).now_or_never();
        let clean = page.and_then(Result::ok).unwrap_or_default().clean;
        let keyed = clean.into_iter().map(|s| (s.record.key.clone(), s));
        keyed.collect()
    }

    /// What it follows, each range with its cursor; and all clean records.
    pub fn followed(&self) -> (Vec<(KeyRange, Cursor)>, BTreeMap<Key, Record>) {
        let disk = self.home.disk();
        // a store in memory never waits
        let meta = disk
            .transact(Reads::meta(), |view| {
                (Default::default(), view.meta.clone())
            })
            .now_or_never()
            .and_then(Result::ok)
            .unwrap_or_default();
        let ranges = meta.ranges.into_iter();
        let followed = ranges.filter_map(|h| Some((h.range, h.cursor?))).collect();
        let records = self.stored().into_iter().map(|(key, s)| (key, s.record));
        (followed, records.collect())
    }

    /// Spoils stored content under its digest.
    pub fn damage(&self, key: &Key) {
        self.home.damage(key);
    }

    /// Puts a clean record under a key, or nothing, past everything that would
    /// note it.
    pub fn tamper(&self, key: &Key, record: Option<&Record>) {
        let (disk, key) = (self.home.disk(), key.clone());
        let record = record.cloned();
        let tampered = disk.transact(Reads::keys([key.clone()]), move |view| {
            let of = |h: &&HeldRange| h.range.contains(key.as_bytes());
            let cursor = view.meta.ranges.iter().find(of).and_then(|h| h.cursor);
            let stood = view.clean.get(&key).map(|s| s.point);
            let point = stood.or(cursor.map(|c| c.point));
            let put = record.zip(point);
            let put = put.map(|(r, point)| Stored::new(r, point, view.meta.era));
            let changes = Changes {
                remove: match put {
                    Some(_) => Vec::new(),
                    None => vec![key.clone()],
                },
                put: put.into_iter().collect(),
                ..Changes::default()
            };
            (changes, ())
        });
        // a store in memory neither waits nor fails
        let _ = tampered.now_or_never();
    }

    async fn live(self, process: Process, disk: MemoryStore, leads: bool) {
        let link: Link = self.net.link(self.index);
        let runtime = SimRuntime {
            executor: self.executor.clone(),
            process,
            chance: self.chance.clone(),
            clock_offset_ms: Arc::clone(&self.clock_offset_ms),
            drift_ppm: self.drift_ppm,
        };
        let store = SimStore::new(
            self.home.number(),
            disk,
            self.executor.clone(),
            self.chance.clone(),
            self.ledger.clone(),
        );
        let config = Config {
            space: self.space.clone(),
            ranges: self.home.ranges(),
            auth: None,
            online: leads,
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
        self.home.opened(self.index, &client);
        self.use_it(client).await;
    }

    fn watch_events(&self, process: Process, client: &Client<SimStore>) {
        let (device, mut events) = (self.clone(), client.events());
        self.executor.spawn(process, async move {
            while let Some(event) = events.next().await {
                if matches!(
                    event,
                    Event::Wrote { .. } | Event::Changed(_) | Event::Settled(_) | Event::Missed
                ) {
                    device.home.tell(device.index, &event);
                }
                if let Event::Healed(healed) = &event {
                    device.note(format_args!("healed: {healed:?}"));
                    let mut state = device.state();
                    if !state.fresh {
                        state.healed += healed.received + healed.offered + healed.dropped;
                    }
                    state.healings.push(healed.clone());
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
                    if status.phase == Phase::Healing {
                        let (followed, _) = device.followed();
                        device.state().fresh = followed.is_empty();
                    }
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
            if edits.is_empty() {
                continue;
            }
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
        if self.chance.permille(self.habits.documents) {
            return self.document();
        }
        let count = match self.chance.between(0, 999) {
            x if x < self.habits.imports => self.chance.between(20, 90),
            x if x < 150 => self.chance.between(2, 6),
            _ => 1,
        };
        let import = count > 6;
        (0..count).filter_map(|_| self.edit(import)).collect()
    }

    /// A key in the ranges that are held here; `None` where there are hardly
    /// any.
    fn key(&self, import: Option<u64>) -> Option<Key> {
        let ranges = self.home.ranges();
        for _ in 0..30 {
            let key = match import {
                Some(n) => format!("import/{}/{n:05}", self.index),
                None => format!("k{:03}", self.chance.skewed(self.habits.hot_keys)),
            };
            if ranges.contains(key.as_bytes()) {
                return Key::new(key.as_bytes()).ok();
            }
        }
        None
    }

    fn edit(&self, import: bool) -> Option<Edit> {
        let n = self.written.fetch_add(1, Ordering::Relaxed);
        let key = self.key(import.then_some(n))?;
        if self.chance.permille(200) {
            return Some(Edit::Delete(key));
        }
        Some(Edit::Put(key, self.value(n)))
    }

    /// No two values alike: content tells who wrote it.
    fn value(&self, n: u64) -> bytes::Bytes {
        let mut value = format!("d{}.{n} ", self.index).into_bytes();
        let more = match self.chance.permille(10) {
            true => 20_000,
            false => self.chance.skewed(300),
        };
        value.resize(value.len() + more as usize, b'.');
        value.into()
    }

    /// A document is created, one of its fields set, or all of it deleted:
    /// each of its fields is a record, and so is that it exists.
    fn document(&self) -> Vec<Edit> {
        let id = format!("d{}", self.chance.skewed(6));
        let Ok(document) = DocumentId::new("doc", &id) else {
            return Vec::new();
        };
        let fields = ["title", "text", "done"].map(|name| document.field(name));
        let mut keys: Vec<Key> = fields.into_iter().filter_map(Result::ok).collect();
        let n = self.written.fetch_add(1, Ordering::Relaxed);
        let what = self.chance.between(0, 9);
        let only = self.chance.between(0, keys.len() as u64 - 1) as usize;
        if what > 2 {
            keys = vec![keys.swap_remove(only)];
        } else if let Ok(existence) = document.existence() {
            keys.insert(0, existence);
        }
        let ranges = self.home.ranges();
        keys.retain(|key| ranges.contains(key.as_bytes()));
        let edit = |key| match what {
            0 => Edit::Delete(key),
            _ => Edit::Put(key, self.value(n)),
        };
        keys.into_iter().map(edit).collect()
    }
}
