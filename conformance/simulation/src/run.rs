//! One run: a world is set up, things happen to it, then nothing happens any
//! more, and everything must come to rest, equal, with nothing lost.

use crate::chance::Chance;
use crate::device::Device;
use crate::executor::{Executor, Spinning};
use crate::ledger::Ledger;
use crate::net::{Net, Weather};
use crate::server::Server;
use crate::trace::Trace;
use crate::world::World;
use gosync_client::engine::Phase;
use gosync_proto::limits::Limits;
use gosync_proto::mutant::Mutant;
use gosync_proto::{Key, Record, SpaceId};
use std::collections::BTreeMap;

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
    /// What happened which must not; empty when all is well.
    pub violations: Vec<String>,
    /// The last lines of the trace.
    pub tail: Vec<String>,
}

/// How a run is carried out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Show the trace as it grows.
    pub print: bool,
    /// The implementations are made wrong in this way.
    pub mutant: Option<Mutant>,
}

/// After the faults the last call that was lost is given up (60 s), the last
/// message arrives, and then everything must be at rest within so long: the
/// longest pause before a retry is 30 s, and a silent stream is given up after
/// 10 s.
const TO_REST_MS: u64 = 60_000;
/// Calls that were lost are given up after this long, messages are delayed by
/// at most as much.
const AFTERMATH_MS: u64 = 60_000;
/// One device makes no more calls than this in one virtual second.
const BUSIEST: u64 = 60;

struct Stage {
    world: &'static World,
    executor: Executor,
    chance: Chance,
    server: Server,
    net: Net,
    devices: Vec<Device>,
    ledger: Ledger,
    trace: Trace,
    /// When faults end.
    until_ms: u64,
}

/// Runs one seed of a world.
///
/// # Errors
/// What belongs to this machine, not to the run: a folder that cannot be made.
pub fn run(world: &'static World, seed: u64, options: &Options) -> anyhow::Result<Outcome> {
    gosync_proto::mutant::set_thread(options.mutant);
    let chance = Chance::new(seed);
    let trace = Trace::new(options.print);
    let ledger = Ledger::default();
    let executor = Executor::new(chance.fork());
    let space = SpaceId::new("world")?;
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
        space.clone(),
        world.sqlite,
    )?;
    let count = chance.between(3, world.devices) as usize;
    let net = Net::new(
        executor.clone(),
        chance.fork(),
        server.clone(),
        count,
        ledger.clone(),
        trace.clone(),
    );
    let device = |index| {
        Device::new(
            index,
            space.clone(),
            executor.clone(),
            chance.fork(),
            net.clone(),
            ledger.clone(),
            trace.clone(),
            world.habits,
        )
    };
    let stage = Stage {
        world,
        until_ms: chance.between(20_000, world.minutes * 60_000),
        devices: (0..count).map(device).collect(),
        executor,
        chance,
        server,
        net,
        ledger,
        trace,
    };
    if let Err(spinning) = stage.play() {
        stage.ledger.violation(spinning.to_string());
    }
    stage.executor.end();
    Ok(Outcome {
        seed,
        hash: stage.trace.hash(),
        virtual_ms: stage.executor.now_ms(),
        writes: stage.ledger.writes(),
        violations: stage.ledger.violations(),
        tail: stage.trace.tail(),
    })
}

impl Stage {
    fn note(&self, what: std::fmt::Arguments<'_>) {
        self.trace.line(self.executor.now_ms(), what);
    }

    fn wait(&self, ms: u64) -> Result<(), Spinning> {
        self.executor.run_until(self.executor.now_ms() + ms)
    }

    fn play(&self) -> Result<(), Spinning> {
        self.note(format_args!(
            "world {} with {} devices",
            self.world.name,
            self.devices.len()
        ));
        for device in &self.devices {
            device.open();
        }
        let mut next_fault = Fate::new(self);
        while self.executor.now_ms() < self.until_ms && self.ledger.violations().is_empty() {
            let pause = self.chance.skewed(15_000);
            self.wait(pause.min(self.until_ms - self.executor.now_ms()))?;
            if let Err(error) = next_fault.strike() {
                self.ledger.violation(format!("the server failed: {error}"));
            }
        }
        next_fault.make_good();
        if !self.ledger.violations().is_empty() {
            return Ok(());
        }
        self.come_to_rest()
    }

    fn come_to_rest(&self) -> Result<(), Spinning> {
        self.note(format_args!("no more faults"));
        for device in &self.devices {
            device.set_writing(false);
        }
        self.wait(AFTERMATH_MS)?;
        if self.world.faults.server_rot + self.world.faults.device_rot > 0 {
            self.look_at_every_byte();
            self.wait(10_000)?;
        }
        let mut rested = None;
        for _ in 0..TO_REST_MS / 1_000 {
            if self.at_rest() {
                rested = Some(self.executor.now_ms());
                break;
            }
            self.wait(1_000)?;
        }
        let (busiest, _) = self.net.take_busiest();
        if busiest > BUSIEST {
            let what = format!("a device made {busiest} calls in one second");
            self.ledger.violation(what);
        }
        match rested {
            Some(at) => {
                self.note(format_args!("at rest at {at} ms"));
                self.judge();
                // and it stays so
                self.wait(60_000)?;
                let (_, calls) = self.net.take_busiest();
                if calls > 0 {
                    let what = format!("{calls} calls although nothing was to be done");
                    self.ledger.violation(what);
                }
                self.verify()
            }
            None => {
                self.complain();
                Ok(())
            }
        }
    }

    /// Damage that nobody reads is not noticed: whoever wants to know looks.
    fn look_at_every_byte(&self) {
        match self.server.scrub() {
            Ok(found) => self.note(format_args!("the server sets {found} records aside")),
            Err(error) => self.ledger.violation(format!("the server failed: {error}")),
        }
        for device in &self.devices {
            device.verify();
        }
    }

    /// Everybody is online, verified, has nothing to say, and holds what the
    /// server holds.
    fn at_rest(&self) -> bool {
        self.ledger.waiting().is_empty()
            && self.devices.iter().all(|device| {
                device.client().is_some_and(|client| {
                    let status = client.status();
                    status.phase == Phase::Live
                        && status.verified
                        && status.pending == 0
                        && status.rejected == 0
                        && status.quarantined == 0
                })
            })
    }

    /// What keeps it from resting.
    fn complain(&self) {
        for (device, record) in self.ledger.waiting() {
            let what = format!("device {device} still waits with a write of {}", record.key);
            self.ledger.violation(what);
        }
        for device in &self.devices {
            let status = device.client().map(|c| c.status());
            let what = format!("device {} is not at rest: {status:?}", device.index());
            self.ledger.violation(what);
        }
    }

    fn judge(&self) {
        let (records, horizon) = match (self.server.records(), self.server.horizon()) {
            (Ok(records), Ok(horizon)) => (records, horizon),
            (Err(error), _) | (_, Err(error)) => {
                self.ledger.violation(format!("the server failed: {error}"));
                return;
            }
        };
        self.ledger.judge(&records, horizon, self.world.forgiving);
        match self.server.roots() {
            Ok(Some((kept, computed))) if kept != computed => self
                .ledger
                .violation("the server's tree is not that of its records".into()),
            _ => {}
        }
        let counts = |r: &Record| r.in_fingerprints(horizon);
        let filter = |records: BTreeMap<Key, Record>| -> BTreeMap<Key, Record> {
            records.into_iter().filter(|(_, r)| counts(r)).collect()
        };
        let records = filter(records);
        for device in &self.devices {
            let held = filter(device.records());
            for key in held.keys().chain(records.keys()) {
                if held.get(key) != records.get(key) {
                    self.ledger.violation(format!(
                        "device {} and the server differ at {key}, and both believe that they are equal",
                        device.index()
                    ));
                    break;
                }
            }
            if self.world.nothing_to_heal && device.healed() > 0 {
                self.ledger.violation(format!(
                    "device {} had {} records healed although nothing was ever lost or damaged",
                    device.index(),
                    device.healed()
                ));
            }
        }
    }

    fn verify(&self) -> Result<(), Spinning> {
        for device in &self.devices {
            device.verify();
        }
        self.wait(20_000)?;
        for device in &self.devices {
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

/// What happens to a world, and is made good in the end.
struct Fate<'s> {
    stage: &'s Stage,
    /// What ends by itself, and when: device and server troubles.
    troubles: Vec<(u64, Trouble)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trouble {
    Cut(usize),
    Crashed(usize),
    Away(usize),
    ServerDown,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Weather,
    Cut,
    Crash,
    Away,
    LoseStore,
    Clock,
    ServerClock,
    Restart,
    Wipe,
    Restore,
    Compact,
    ServerRot,
    DeviceRot,
}

impl<'s> Fate<'s> {
    fn new(stage: &'s Stage) -> Fate<'s> {
        Fate {
            stage,
            troubles: Vec::new(),
        }
    }

    /// Ends what is over, and begins something new, now and then.
    fn strike(&mut self) -> anyhow::Result<()> {
        let now = self.stage.executor.now_ms();
        let (over, on): (Vec<_>, Vec<_>) = self.troubles.iter().partition(|(at, _)| *at <= now);
        self.troubles = on;
        for (_, trouble) in over {
            self.end(trouble);
        }
        match self.choose() {
            Some(fault) => self.begin(fault),
            None => Ok(()),
        }
    }

    fn choose(&self) -> Option<Fault> {
        let f = &self.stage.world.faults;
        let weights = [
            (Fault::Weather, f.weather),
            (Fault::Cut, f.cut),
            (Fault::Crash, f.crash),
            (Fault::Away, f.away),
            (Fault::LoseStore, f.lose_store),
            (Fault::Clock, f.clock),
            (Fault::ServerClock, f.server_clock),
            (Fault::Restart, f.restart),
            (Fault::Wipe, f.wipe),
            (Fault::Restore, f.restore),
            (Fault::Compact, f.compact),
            (Fault::ServerRot, f.server_rot),
            (Fault::DeviceRot, f.device_rot),
        ];
        let total: u64 = weights.iter().map(|(_, w)| w).sum();
        if total == 0 {
            return None;
        }
        let mut at = self.stage.chance.between(0, total - 1);
        for (fault, weight) in weights {
            if at < weight {
                return Some(fault);
            }
            at -= weight;
        }
        None
    }

    fn begin(&mut self, fault: Fault) -> anyhow::Result<()> {
        let stage = self.stage;
        let chance = &stage.chance;
        let Some(device) = chance.pick(&stage.devices) else {
            return Ok(());
        };
        let offset = |most: i64| match chance.permille(300) {
            true => 0,
            false => chance.between(0, 2 * most.unsigned_abs()) as i64 - most,
        };
        match fault {
            Fault::Weather => {
                let weather = match chance.permille(300) {
                    true => Weather::CALM,
                    false => Weather {
                        lost: chance.skewed(200),
                        twice: chance.skewed(200),
                        slow: chance.skewed(200),
                        longest_ms: 50 + chance.skewed(60_000 - 50),
                        reset: chance.skewed(100),
                    },
                };
                stage.note(format_args!("{weather:?}"));
                stage.net.set_weather(weather);
            }
            Fault::Cut => {
                stage.note(format_args!("d{} is cut off", device.index()));
                stage.net.cut(device.index(), true);
                self.until(60_000, Trouble::Cut(device.index()));
            }
            Fault::Crash => {
                device.crash();
                self.until(20_000, Trouble::Crashed(device.index()));
            }
            Fault::Away => {
                device.set_online(false);
                self.until(300_000, Trouble::Away(device.index()));
            }
            Fault::LoseStore => {
                device.lose_store();
                self.until(20_000, Trouble::Crashed(device.index()));
            }
            Fault::Clock => {
                let ms = offset(stage.world.faults.clock_ms);
                stage.note(format_args!("d{}'s clock is {ms} ms off", device.index()));
                device.set_clock(ms);
            }
            Fault::ServerClock => {
                let ms = offset(stage.world.faults.clock_ms);
                stage.note(format_args!("the server's clock is {ms} ms off"));
                stage.server.set_clock(ms);
            }
            Fault::Restart | Fault::Wipe | Fault::Restore => {
                stage.note(format_args!("the server stops: {fault:?}"));
                stage.server.stop();
                match fault {
                    Fault::Wipe => stage.server.wipe()?,
                    // without a backup it is a restart
                    Fault::Restore => stage.server.restore().map(drop)?,
                    _ => {}
                }
                self.until(30_000, Trouble::ServerDown);
            }
            Fault::Compact => {
                let done = stage.server.compact(chance.skewed(60_000))?;
                stage.note(format_args!("{done:?}"));
            }
            Fault::ServerRot | Fault::DeviceRot => self.rot(matches!(fault, Fault::ServerRot))?,
        }
        let keeps_backups = stage.world.faults.restore > 0;
        if keeps_backups && chance.permille(250) {
            stage.note(format_args!("a backup is made"));
            stage.server.back_up()?;
        }
        Ok(())
    }

    fn until(&mut self, most_ms: u64, trouble: Trouble) {
        let now = self.stage.executor.now_ms();
        let at = now + self.stage.chance.skewed(most_ms);
        self.troubles.push((at, trouble));
    }

    fn end(&self, trouble: Trouble) {
        let stage = self.stage;
        let device = |index: usize| stage.devices.get(index);
        match trouble {
            Trouble::Cut(index) => {
                stage.note(format_args!("d{index} is back"));
                stage.net.cut(index, false);
            }
            Trouble::Crashed(index) => device(index).into_iter().for_each(Device::open),
            Trouble::Away(index) => device(index).into_iter().for_each(|d| d.set_online(true)),
            Trouble::ServerDown => {
                if stage.server.running().is_none() {
                    stage.note(format_args!("the server starts"));
                    stage.server.start();
                }
            }
        }
    }

    /// Spoils some records in one place, where another place has them too.
    fn rot(&self, at_server: bool) -> anyhow::Result<()> {
        let stage = self.stage;
        let server = stage.server.records()?;
        let held: Vec<BTreeMap<Key, Record>> = stage.devices.iter().map(Device::records).collect();
        let victim = stage.chance.between(0, held.len() as u64 - 1) as usize;
        let place = match at_server {
            true => &server,
            false => &held[victim],
        };
        let keys: Vec<&Key> = place.keys().collect();
        for _ in 0..stage.chance.between(1, 8) {
            let Some(key) = stage.chance.pick(&keys) else {
                return Ok(());
            };
            let newest = stage.ledger.newest(key);
            let elsewhere = |records: &BTreeMap<Key, Record>| {
                newest.is_some() && records.get(*key) == newest.as_ref()
            };
            let survives = (!at_server && elsewhere(&server))
                || held
                    .iter()
                    .enumerate()
                    .any(|(i, records)| (at_server || i != victim) && elsewhere(records));
            if !survives {
                continue;
            }
            match at_server {
                true => {
                    stage.note(format_args!("rot at the server: {key}"));
                    stage.server.damage(key);
                }
                false => {
                    stage.note(format_args!("rot at d{victim}: {key}"));
                    stage.devices[victim].damage(key);
                }
            }
        }
        Ok(())
    }

    /// Ends everything. Clocks of devices stay as they are: a wrong clock is
    /// no reason not to converge.
    fn make_good(&mut self) {
        for (_, trouble) in std::mem::take(&mut self.troubles) {
            self.end(trouble);
        }
        let stage = self.stage;
        stage.net.set_weather(Weather::CALM);
        stage.server.set_clock(0);
        if stage.server.running().is_none() {
            stage.server.start();
        }
        for device in &stage.devices {
            stage.net.cut(device.index(), false);
            device.open();
            device.set_online(true);
        }
    }
}
