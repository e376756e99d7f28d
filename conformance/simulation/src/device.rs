//! A device: the real client over a store that outlives it, and what runs it.
//! Knows the network only as its own link.

use crate::chance::Chance;
use crate::drive::Drive;
use crate::executor::{Executor, Process};
use crate::household::Household;
use crate::ledger::Ledger;
use crate::net::Net;
use crate::papers::{self, Papers};
use crate::server::EPOCH_MS;
use crate::store::{SimStore, is_simulated};
use crate::trace::Trace;
use crate::user::{Habits, User};
use futures::{FutureExt as _, StreamExt as _};
use gosync_client::client::{Event, OpenError};
use gosync_client::engine::Phase;
use gosync_client::engine::{Healed, Report};
use gosync_client::platform::{BoxFuture, Moment, NoRandomness, Runtime};
use gosync_client::store::{Changes, HeldRange, Reads, Store as _, Stored};
use gosync_client::{Client, Config};
use gosync_proto::history::Cursor;
use gosync_proto::{Key, KeyRange, Record, SpaceId};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    user: User,
    executor: Executor,
    chance: Chance,
    net: Net,
    ledger: Ledger,
    trace: Trace,
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
        net.set_home(index, home.number());
        let user = User::new(
            index,
            executor.clone(),
            chance.clone(),
            ledger.clone(),
            trace.clone(),
            habits,
        );
        Device {
            drift_ppm,
            index,
            space,
            home,
            state: Arc::default(),
            clock_offset_ms: Arc::default(),
            user,
            executor,
            chance,
            net,
            ledger,
            trace,
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
        self.user.set_writing(writing);
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
            if self.leads() {
                self.ledger.nobody_was_told(self.home.number());
            }
            self.home.close(self.index);
            if let Err(error) = self.home.crashed(&self.chance) {
                let what = format!("device {} has no store after a crash: {error}", self.index);
                self.ledger.violation(what);
            }
        }
    }

    /// Its store is gone. Nobody may have it open.
    pub fn lose_store(&self) {
        self.note(format_args!("loses its store"));
        self.ledger.lost(self.home.number());
        if let Err(error) = self.home.lose() {
            let what = format!("device {} cannot make a store: {error}", self.index);
            self.ledger.violation(what);
        }
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
        let held = self.held().into_iter();
        held.filter(|(_, s)| self.home.is_intact(s))
            .map(|(key, s)| (key, s.record))
            .collect()
    }

    /// Its clean records in the ranges that it holds, damaged ones included.
    pub fn held(&self) -> BTreeMap<Key, Stored> {
        let ranges = self.home.ranges();
        let stored = self.stored().into_iter();
        let held = stored.filter(|s| ranges.contains(s.record.key.as_bytes()));
        held.map(|s| (s.record.key.clone(), s)).collect()
    }

    /// All clean records, in the order of keys.
    fn stored(&self) -> Vec<Stored> {
        let disk = self.home.disk();
        // a drive never waits
        let page = disk.page(&KeyRange::all(), None, usize::MAX).now_or_never();
        page.and_then(Result::ok).unwrap_or_default().clean
    }

    /// The documents that its application sees.
    pub(crate) fn papers(&self) -> Papers {
        let disk = self.home.disk();
        // a drive never waits
        let page = disk.page(&KeyRange::all(), None, usize::MAX).now_or_never();
        papers::shown(&page.and_then(Result::ok).unwrap_or_default())
    }

    /// What it follows, each range with its cursor; and all clean records, in
    /// the order of keys.
    pub fn followed(&self) -> (Vec<(KeyRange, Cursor)>, Vec<Stored>) {
        (self.follows(), self.stored())
    }

    fn follows(&self) -> Vec<(KeyRange, Cursor)> {
        let disk = self.home.disk();
        // a drive never waits
        let meta = disk
            .transact(Reads::meta(), |view| {
                (Default::default(), view.meta.clone())
            })
            .now_or_never()
            .and_then(Result::ok)
            .unwrap_or_default();
        let ranges = meta.ranges.into_iter();
        ranges.filter_map(|h| Some((h.range, h.cursor?))).collect()
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
        // a drive neither waits nor fails
        let _ = tampered.now_or_never();
    }

    async fn live(self, process: Process, disk: Drive, leads: bool) {
        let link = self.net.link(self.index);
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
            self.home.failing(),
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
        let client = loop {
            let (store, link) = (store.clone(), link.clone());
            match Client::open(store, link, runtime.clone(), config.clone()).await {
                Ok(client) => break client,
                // its application tries again
                Err(OpenError::Store(error)) if is_simulated(&error) => {
                    self.note(format_args!("cannot open: {error}"));
                    self.executor.sleep(1_000).await;
                }
                Err(error) => {
                    let what = format!("device {} cannot open: {error}", self.index);
                    return self.ledger.violation(what);
                }
            }
        };
        self.watch_events(process, &client);
        self.home.opened(self.index, &client);
        self.user.use_it(self.home.clone(), client).await;
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
                    if healed.offered > 0 {
                        let number = device.home.number();
                        device.ledger.told_of_offers(number, &healed.ranges);
                    }
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
                        device.state().fresh = device.follows().is_empty();
                    }
                    last = Some(told);
                }
            }
        });
    }
}
