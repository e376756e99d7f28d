//! One run: a world is set up, things happen to it, then nothing happens any
//! more, and everything must come to rest, equal, with nothing lost.

use crate::chance::Chance;
use crate::device::Device;
use crate::drive::Drive;
use crate::executor::{Executor, Spinning};
use crate::fate::Fate;
use crate::household::Household;
use crate::ledger::{self, Ledger};
use crate::net::Net;
use crate::papers;
use crate::server::{Company, Server};
use crate::trace::Trace;
use crate::user::Habits;
use crate::world::{Faults, World};
use gosync_client::engine::Phase;
use gosync_proto::limits::Limits;
use gosync_proto::mutant::Mutant;
use gosync_proto::{Key, Record, SpaceId};
use gosync_server::store::StoreError;
use std::any::Any;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a run showed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The hash of its trace.
    pub hash: String,
    /// Virtual milliseconds.
    pub virtual_ms: u64,
    /// Writes that users made.
    pub writes: u64,
    /// How many devices there were, those that were left out included.
    pub devices: u64,
    /// How many faults happened, those that were left out included.
    pub faults: u64,
    /// When faults ended, virtual seconds.
    pub seconds: u64,
    /// What happened which must not; empty when all is well.
    pub violations: Vec<String>,
    /// The last lines of the trace.
    pub tail: Vec<String>,
}

/// How a run is carried out.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Show the trace as it grows.
    pub print: bool,
    /// The implementations are made wrong in this way.
    pub mutant: Option<Mutant>,
    /// What is left of the world.
    pub part: Part,
}

/// The part of a world that takes part in a run: all of it, unless somebody
/// looks for the least that still fails. What is left out changes nothing that
/// is drawn for the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Faults end after so many virtual seconds, if not before.
    pub seconds: Option<u64>,
    /// Only these devices are ever switched on.
    pub devices: Option<BTreeSet<u64>>,
    /// Only these faults happen, by their number in the trace.
    pub faults: Option<BTreeSet<u64>>,
}

impl Part {
    pub(crate) fn has_device(&self, index: usize) -> bool {
        self.devices
            .as_ref()
            .is_none_or(|d| d.contains(&(index as u64)))
    }

    pub(crate) fn has_fault(&self, number: u64) -> bool {
        self.faults.as_ref().is_none_or(|f| f.contains(&number))
    }
}

/// After the faults the last call that was lost is given up (60 s), the last
/// message arrives, and then everything must be at rest within so long: the
/// longest pause before a retry is 30 s, and a silent stream is given up after
/// 10 s.
pub(crate) const TO_REST_MS: u64 = 60_000;
/// Calls that were lost are given up after 60 s of a clock that may be slow,
/// messages are delayed by at most as much.
const AFTERMATH_MS: u64 = 60_000 + 60_000 * MOST_DRIFT_PPM / 1_000_000 + 1;
/// One device makes no more calls than this in ten virtual seconds, unless one
/// of them tells the server something new. A loop that waits for its answers
/// makes about 200; the busiest of some thousand honest devices made 26.
const MOST_CALLS: usize = 100;
/// And is sent no more messages of streams in that time; 129 were the most.
const MOST_MESSAGES: usize = 400;

/// Everything that takes part in a run.
pub(crate) struct Stage {
    pub(crate) world: &'static World,
    pub(crate) executor: Executor,
    pub(crate) chance: Chance,
    pub(crate) server: Server,
    pub(crate) net: Net,
    pub(crate) devices: Vec<Device>,
    /// How many there would be if none were left out.
    pub(crate) places: usize,
    pub(crate) part: Part,
    /// How many faults happened.
    pub(crate) faults: Cell<u64>,
    /// Each with its books; the violations are everybody's.
    pub(crate) spaces: Vec<(SpaceId, Ledger)>,
    pub(crate) ledger: Ledger,
    trace: Trace,
    /// Deletions may be forgotten.
    forgiving: Cell<bool>,
    /// Long runs are calmer: by how much.
    pub(crate) pace: u64,
    /// How long faults last, in each act.
    act_ms: u64,
}

/// Clocks gain or lose at most 1 %, ten times what a bad quartz does.
const MOST_DRIFT_PPM: u64 = 10_000;
/// How many of 1,000 runs end with a trial of healing.
const TRIALS: u64 = 25;

/// Runs one seed of a world.
///
/// # Errors
/// What belongs to this machine, not to the run: a folder that cannot be made.
pub fn run(world: &'static World, seed: u64, options: &Options) -> anyhow::Result<Outcome> {
    gosync_proto::mutant::set_thread(options.mutant);
    Ok(set_up(world, seed, options)?.carry_out(seed))
}

/// Everything that a seed draws for a world, before its time begins.
fn set_up(world: &'static World, seed: u64, options: &Options) -> anyhow::Result<Stage> {
    let chance = Chance::new(seed);
    let trace = Trace::new(options.print);
    let faults = &world.faults;
    let ledger = Ledger::new(faults.wipe + faults.restore + faults.server_rot == 0);
    let executor = Executor::new(chance.fork());
    let spaces = (0..world.spaces)
        .map(|n| Ok((SpaceId::new(&format!("world-{n}"))?, ledger.beside())))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let books = spaces.iter().map(|(s, l)| (s.to_string(), l.clone()));
    let limits = Limits {
        max_push_records: Limits::FLOOR.max_push_records,
        max_response_bytes: Limits::FLOOR.max_response_bytes,
        max_reconcile_entries: Limits::FLOOR.max_reconcile_entries,
        heartbeat_interval_ms: 3_000,
        watchdog_ms: 10_000,
        ..Limits::default()
    };
    let server = Server::new(
        executor.clone(),
        chance.fork(),
        limits,
        Company {
            count: chance.between(world.servers.min(2), world.servers),
            apart_ms: world.apart_ms,
        },
        world.keeps,
    )?;
    let count = chance.between(3, world.devices) as usize;
    let net = Net::new(
        executor.clone(),
        chance.fork(),
        server.clone(),
        count + 1,
        books.collect(),
        trace.clone(),
    );
    let usual = world.minutes * 60_000;
    // most runs take minutes, some hours, a few a day
    let (until_ms, pace) = match chance.between(0, 999) {
        0 => (24 * 3_600_000, 24 * 3_600_000 / usual),
        1..=15 => (3 * 3_600_000, 3 * 3_600_000 / usual),
        _ => (chance.between(20_000, usual), 1),
    };
    let until_ms = options
        .part
        .seconds
        .map_or(until_ms, |s| until_ms.min(s.saturating_mul(1_000)));
    // what happens does not hang on how many devices there are
    let fates = chance.fork();
    let habits = Habits {
        pause_ms: world.habits.pause_ms * pace,
        ..world.habits
    };
    // where clocks go wrong, they also run fast or slow
    let drift = |wrong: u64| match wrong {
        0 => 0,
        _ => chance.between(0, 2 * MOST_DRIFT_PPM) as i64 - MOST_DRIFT_PPM as i64,
    };
    server.set_drift(drift(faults.server_clock));
    let mut homes: Vec<Household> = Vec::new();
    let mut room = 0;
    let device = |index| {
        if room == 0 {
            room = chance.between(world.tabs.min(2), world.tabs);
            let drive = match world.device_sqlite {
                true => Drive::sqlite()?,
                false => Drive::memory(),
            };
            homes.push(Household::new(homes.len(), drive));
        }
        room -= 1;
        let home = homes[homes.len() - 1].clone();
        // tabs of one store are of one space
        let (space, ledger) = &spaces[home.number() % spaces.len()];
        anyhow::Ok(Device::new(
            index,
            space.clone(),
            home,
            executor.clone(),
            chance.fork(),
            net.clone(),
            ledger.clone(),
            trace.clone(),
            habits,
            drift(faults.clock),
        ))
    };
    let mut devices: Vec<Device> = (0..count).map(device).collect::<anyhow::Result<_>>()?;
    devices.retain(|d| options.part.has_device(d.index()));
    Ok(Stage {
        world,
        act_ms: until_ms,
        forgiving: Cell::new(world.forgiving),
        pace,
        devices,
        places: count,
        part: options.part.clone(),
        faults: Cell::new(0),
        spaces,
        executor,
        chance: fates,
        server,
        net,
        ledger,
        trace,
    })
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("something that is no text")
}

impl Stage {
    /// Plays it to its end. A panic is what a run showed, like anything else:
    /// it must not hide which run that was.
    fn carry_out(self, seed: u64) -> Outcome {
        match catch_unwind(AssertUnwindSafe(|| self.play())) {
            Ok(Ok(())) => {}
            Ok(Err(spinning)) => self.ledger.violation(spinning.to_string()),
            Err(panic) => {
                let what = format!("it panicked: {}", message(&*panic));
                self.note(format_args!("{what}"));
                self.ledger.violation(what);
            }
        }
        self.executor.end();
        Outcome {
            seed,
            hash: self.trace.hash(),
            virtual_ms: self.executor.now_ms(),
            writes: self.spaces.iter().map(|(_, ledger)| ledger.writes()).sum(),
            devices: self.places as u64,
            faults: self.faults.get(),
            seconds: self.act_ms / 1_000,
            violations: self.ledger.violations(),
            tail: self.trace.tail(),
        }
    }

    pub(crate) fn note(&self, what: std::fmt::Arguments<'_>) {
        self.trace.line(self.executor.now_ms(), what);
    }

    pub(crate) fn wait(&self, ms: u64) -> Result<(), Spinning> {
        self.executor.run_until(self.executor.now_ms() + ms)
    }

    fn play(&self) -> Result<(), Spinning> {
        self.note(format_args!(
            "world {} with {} of {} devices",
            self.world.name,
            self.devices.len(),
            self.places
        ));
        for device in &self.devices {
            device.open();
        }
        self.act(self.world.faults)?;
        if !self.is_sound() || !self.come_to_rest()? {
            return Ok(());
        }
        if let Some(faults) = self.world.then {
            self.begin_anew();
            self.act(faults)?;
            if !self.is_sound() || !self.come_to_rest()? {
                return Ok(());
            }
        }
        // and it stays so
        self.wait(60_000)?;
        let (_, calls) = self.net.take_busiest();
        if calls > 0 {
            let what = format!("{calls} calls although nothing was to be done");
            self.ledger.violation(what);
        }
        self.compact_all();
        self.verify()?;
        self.look_for_old_tombstones();
        // it takes longer than all that went before
        match self.is_sound() && self.chance.permille(TRIALS) {
            true => self.trial(),
            false => Ok(()),
        }
    }

    fn is_sound(&self) -> bool {
        self.ledger.violations().is_empty()
    }

    /// Faults, one after the other, until their time is over.
    fn act(&self, faults: Faults) -> Result<(), Spinning> {
        let until_ms = self.executor.now_ms() + self.act_ms;
        for device in &self.devices {
            device.set_writing(true);
        }
        let mut next_fault = Fate::new(self, faults);
        while self.executor.now_ms() < until_ms && self.is_sound() {
            let pause = self.chance.skewed(15_000 * self.pace);
            self.wait(pause.min(until_ms - self.executor.now_ms()))?;
            let (looks, place) = (self.chance.permille(100), self.chance.bits());
            if let Some(device) = self.device_at(place).filter(|_| looks) {
                self.check_cursor(device);
            }
            if let Err(error) = next_fault.strike() {
                self.fails(error);
            }
        }
        next_fault.make_good();
        Ok(())
    }

    /// All agree: from here on the books are kept strictly.
    fn begin_anew(&self) {
        self.note(format_args!("the second act"));
        for (space, ledger) in &self.spaces {
            match self.server.records(space) {
                Ok(records) => ledger.begin_anew(&records),
                Err(error) => self.fails(error),
            }
        }
        self.forgiving.set(false);
        self.ledger.set_server_keeps(true);
    }

    pub(crate) fn fails(&self, error: impl std::fmt::Display) {
        self.ledger.violation(format!("the server failed: {error}"));
    }

    /// Compacts a space, and looks at what that removed.
    pub(crate) fn compact(
        &self,
        space: &SpaceId,
        ledger: &Ledger,
        retention_ms: u64,
    ) -> Result<(), StoreError> {
        let before = self.server.committed_records(space)?;
        ledger.saw(&before);
        let done = self.server.compact(space, retention_ms)?;
        self.note(format_args!("{done:?}"));
        // what arrived at one server may be compacted by the clock of another
        let by_now_ms = self.executor.now_ms() + 2 * self.world.apart_ms;
        let until_ms = by_now_ms.saturating_sub(retention_ms);
        // damage that was met goes too, and a wrong clock says nothing
        let faults = &self.world.faults;
        if faults.server_rot + faults.server_clock == 0 {
            let after = self.server.committed_records(space)?;
            ledger.compacted(&before, &after, done.to, until_ms);
        }
        Ok(())
    }

    /// At rest, every tombstone may go.
    fn compact_all(&self) {
        for (space, ledger) in &self.spaces {
            let swept = self.compact(space, ledger, 0).and_then(|()| {
                let horizon = self.server.position(space)?.horizon;
                Ok((horizon, self.server.records(space)?))
            });
            let old = |records: BTreeMap<Key, Record>, horizon| {
                let mut records = records.into_values();
                records.find(|r| r.is_tombstone() && r.version.time < horizon)
            };
            match swept {
                // one that arrived while the clock ran ahead is still young
                Ok(_) if self.world.faults.server_clock > 0 => {}
                Ok((horizon, records)) => {
                    if let Some(kept) = old(records, horizon) {
                        let what = format!("the server keeps the old tombstone of {}", kept.key);
                        self.ledger.violation(what);
                    }
                }
                Err(error) => self.fails(error),
            }
        }
    }

    /// A replica that has learnt the horizon keeps nothing below it.
    fn look_for_old_tombstones(&self) {
        for device in &self.devices {
            let horizon = match self.server.position(device.space()) {
                Ok(position) => position.horizon,
                Err(error) => return self.fails(error),
            };
            let mut held = device.records().into_values();
            if let Some(r) = held.find(|r| r.is_tombstone() && r.version.time < horizon) {
                self.ledger.violation(format!(
                    "device {} keeps the old tombstone of {}",
                    device.index(),
                    r.key
                ));
            }
        }
    }

    /// The device of a place among all; `None` for one that was left out.
    pub(crate) fn device_at(&self, place: u64) -> Option<&Device> {
        let index = (place % self.places as u64) as usize;
        self.devices.iter().find(|d| d.index() == index)
    }

    /// Whether it did.
    fn come_to_rest(&self) -> Result<bool, Spinning> {
        self.note(format_args!("no more faults"));
        for device in &self.devices {
            device.set_writing(false);
        }
        self.wait(AFTERMATH_MS)?;
        if self.world.faults.server_rot + self.world.faults.device_rot > 0 {
            self.look_at_every_byte();
            self.wait(10_000)?;
        }
        let rested = self.rest_within(TO_REST_MS)?;
        let (busiest, _) = self.net.take_busiest();
        if busiest.calls > MOST_CALLS || busiest.messages > MOST_MESSAGES {
            let what = format!("a device was too busy for ten seconds: {busiest:?}");
            self.ledger.violation(what);
        }
        match rested {
            true => {
                self.note(format_args!("at rest"));
                self.judge();
            }
            false => self.complain(),
        }
        Ok(rested)
    }

    /// Whether all is at rest before so much time has passed.
    pub(crate) fn rest_within(&self, ms: u64) -> Result<bool, Spinning> {
        for _ in 0..ms / 1_000 {
            if self.at_rest() {
                return Ok(true);
            }
            self.wait(1_000)?;
        }
        Ok(false)
    }

    /// Damage that nobody reads is not noticed: whoever wants to know looks.
    fn look_at_every_byte(&self) {
        for (space, _) in &self.spaces {
            match self.server.scrub(space) {
                Ok(found) => self.note(format_args!("the server sets {found} records aside")),
                Err(error) => self.fails(error),
            }
        }
        for device in &self.devices {
            device.verify();
        }
    }

    /// Everybody is online, verified, has nothing to say, and holds what the
    /// server holds.
    fn at_rest(&self) -> bool {
        let syncs = |d: &&Device| d.leads();
        self.nothing_waits()
            && self.devices.iter().filter(syncs).all(|device| {
                device.client().is_some_and(|client| {
                    let status = client.status();
                    let refused = status.rejected + status.quarantined;
                    status.phase == Phase::Live
                        && status.verified
                        && status.pending == 0
                        && (refused == 0 || self.world.leaves_keys)
                })
            })
    }

    /// No write waits; or only such as the server refused, where that may be: a
    /// key that is not held any more, and was deleted and compacted, can neither
    /// be reconciled nor be written, and its author is told.
    fn nothing_waits(&self) -> bool {
        let waiting: usize = self.spaces.iter().map(|(_, l)| l.count_waiting()).sum();
        let syncing = self.devices.iter().filter(|d| d.leads());
        let refused = syncing.filter_map(|d| Some(d.client()?.status().rejected));
        waiting == 0 || self.world.leaves_keys && refused.sum::<u64>() == waiting as u64
    }

    /// What keeps it from resting.
    pub(crate) fn complain(&self) {
        let waiting = self.spaces.iter().flat_map(|(_, l)| l.waiting());
        for (store, record) in waiting {
            let what = format!("store {store} still waits with a write of {}", record.key);
            self.ledger.violation(what);
        }
        for device in self.devices.iter().filter(|d| d.leads()) {
            let status = device.client().map(|c| c.status());
            let what = format!("device {} is not at rest: {status:?}", device.index());
            self.ledger.violation(what);
        }
    }

    fn judge(&self) {
        for (space, ledger) in &self.spaces {
            if let Err(error) = self.judge_space(space, ledger) {
                self.fails(error);
            }
        }
        for device in &self.devices {
            self.check_cursor(device);
        }
    }

    fn judge_space(&self, space: &SpaceId, ledger: &Ledger) -> Result<(), StoreError> {
        let records = self.server.records(space)?;
        let horizon = self.server.position(space)?.horizon;
        ledger.judge(&records, horizon, self.forgiving.get());
        match self.server.roots(space)? {
            Some((kept, computed)) if kept != computed => self
                .ledger
                .violation("the server's tree is not that of its records".into()),
            _ => {}
        }
        let counts = |r: &Record| r.in_fingerprints(horizon);
        for device in self.devices.iter().filter(|d| d.space() == space) {
            let ranges = device.home().ranges();
            let mut theirs = records.clone();
            theirs.retain(|key, r| counts(r) && ranges.contains(key.as_bytes()));
            let mut held = device.records();
            held.retain(|_, r| counts(r));
            for key in held.keys().chain(theirs.keys()) {
                if held.get(key) != theirs.get(key) {
                    self.ledger.violation(format!(
                        "device {} and the server differ at {key}, and both believe that they are equal",
                        device.index()
                    ));
                    break;
                }
            }
            self.compare_papers(device, &theirs);
            if self.world.nothing_to_heal && device.healed() > 0 {
                self.ledger.violation(format!(
                    "device {} had {} records healed although nothing was ever lost or damaged",
                    device.index(),
                    device.healed()
                ));
            }
        }
        Ok(())
    }

    /// The application sees the documents that these records make up, unless a
    /// write that was refused still shows there.
    fn compare_papers(&self, device: &Device, records: &BTreeMap<Key, Record>) {
        let refused = device.client().map_or(0, |c| c.status().rejected);
        let ranges = device.home().ranges();
        let mut shown = device.papers();
        shown.retain(|id, _| ranges.contains(format!("doc\0{id}\0").as_bytes()));
        if refused == 0 && shown != papers::naive(records) {
            let what = "does not show the documents that its records make up";
            self.ledger
                .violation(format!("device {} {what}", device.index()));
        }
    }

    /// A cursor stands for what is stored: everything that the server has up to
    /// it lies in the device's store, or something newer.
    pub(crate) fn check_cursor(&self, device: &Device) {
        let faults = &self.world.faults;
        // damage makes holes behind cursors; and where deletions are forgotten,
        // an older record may come back that loses against a tombstone here,
        // which then goes below the horizon. Comparing heals both.
        if faults.server_rot + faults.device_rot > 0 || self.forgiving.get() {
            return;
        }
        let known = self.server.committed_records(device.space());
        let (Ok(known), Ok(position)) = (known, self.server.position(device.space())) else {
            return;
        };
        let (ranges, all) = device.followed();
        for (range, cursor) in ranges {
            let (head, at) = (position.head.point, cursor.point);
            if at.epoch != head.epoch || at.sequence > head.sequence {
                continue;
            }
            let passed = known.iter().filter(|(record, sequence)| {
                *sequence <= at.sequence
                    && range.contains(record.key.as_bytes())
                    && record.in_fingerprints(position.horizon)
            });
            // both lie in the order of keys
            let mut all = all.iter().map(|s| &s.record).peekable();
            for (record, _) in passed {
                while all.next_if(|held| held.key < record.key).is_some() {}
                let held = all.peek().filter(|held| held.key == record.key);
                if !held.is_some_and(|h| *h == record || ledger::newer(h, record)) {
                    self.ledger.violation(format!(
                        "the cursor of device {} passed {} at {}, which it does not hold",
                        device.index(),
                        record.key,
                        at.sequence
                    ));
                    return;
                }
            }
        }
    }

    fn verify(&self) -> Result<(), Spinning> {
        for device in self.devices.iter().filter(|d| d.leads()) {
            device.verify();
        }
        self.wait(20_000)?;
        for device in self.devices.iter().filter(|d| d.leads()) {
            match device.report() {
                Some(Ok(r)) if r.equal && r.tree_intact && r.damaged.is_empty() => {}
                report => self.ledger.violation(format!(
                    "device {} does not verify: {report:?}",
                    device.index()
                )),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world;

    /// It ended the program, and a campaign lost everything since its last save.
    #[test]
    fn a_run_that_panics_fails_and_names_its_seed() {
        let calm = world::find("calm").unwrap();
        let stage = set_up(calm, 7, &Options::default()).unwrap();
        let executor = stage.executor.clone();
        executor.spawn(executor.new_process(), async { panic!("on purpose") });
        let outcome = stage.carry_out(7);
        assert_eq!(outcome.seed, 7);
        assert_eq!(outcome.violations, ["it panicked: on purpose"]);
        assert!(outcome.tail.iter().any(|line| line.contains("on purpose")));
    }
}
