//! What happens to a world: faults come one after the other, most of them end by
//! themselves, and all are made good in the end. Knows what can be done to
//! whom, and nothing of what must hold.

use crate::chance::Chance;
use crate::device::Device;
use crate::ledger::Ledger;
use crate::net::{Cut, Weather};
use crate::run::Stage;
use crate::world::Faults;
use gosync_client::store::Stored;
use gosync_client::transport::{CallMetadata, Transport as _};
use gosync_proto::{Content, Key, KeyRange, Record, SpaceId, wire};
use std::collections::{BTreeMap, BTreeSet};

/// What happens to a world, and is made good in the end.
pub(crate) struct Fate<'s> {
    stage: &'s Stage,
    faults: Faults,
    /// Each fault has a stream of its own, so that one that is left out
    /// changes nothing about the others.
    chance: Chance,
    /// What ends by itself, and when: device and server troubles.
    troubles: Vec<(u64, Trouble)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trouble {
    Cut(usize),
    Crashed(usize),
    Away(usize),
    BadDisk(usize),
    ServerDown,
    OneServerDown(u64),
    BadServerDisk,
}

/// A place that holds records.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Keeper {
    Server,
    /// A store on a device, by its number.
    Home(usize),
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Weather,
    Cut,
    HalfOpen,
    Reuse,
    Crash,
    Away,
    LoseStore,
    Clock,
    ServerClock,
    Restart,
    RestartOne,
    Wipe,
    Restore,
    Compact,
    ServerRot,
    DeviceRot,
    DeviceDisk,
    ServerDisk,
}

impl Fault {
    fn befalls_a_device(self) -> bool {
        use Fault::{Away, Clock, Crash, Cut, DeviceDisk, HalfOpen, LoseStore};
        matches!(
            self,
            Away | Clock | Crash | Cut | DeviceDisk | HalfOpen | LoseStore
        )
    }
}

impl<'s> Fate<'s> {
    /// Nothing has happened yet.
    pub(crate) fn new(stage: &'s Stage, faults: Faults) -> Fate<'s> {
        Fate {
            stage,
            faults,
            chance: stage.chance.fork(),
            troubles: Vec::new(),
        }
    }

    /// Ends what is over, and begins something new, now and then.
    pub(crate) fn strike(&mut self) -> anyhow::Result<()> {
        let now = self.stage.executor.now_ms();
        let (over, on): (Vec<_>, Vec<_>) = self.troubles.iter().partition(|(at, _)| *at <= now);
        self.troubles = on;
        for (_, trouble) in over {
            self.end(trouble);
        }
        self.chance = self.stage.chance.fork();
        let Some(fault) = self.choose() else {
            return Ok(());
        };
        let number = self.stage.faults.get();
        self.stage.faults.set(number + 1);
        match self.stage.part.has_fault(number) {
            true => self.begin(number, fault),
            false => Ok(()),
        }
    }

    fn choose(&self) -> Option<Fault> {
        let f = &self.faults;
        let weights = [
            (Fault::Weather, f.weather),
            (Fault::Cut, f.cut),
            (Fault::HalfOpen, f.half_open),
            (Fault::Reuse, f.reuse),
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
            (Fault::DeviceDisk, f.device_disk),
            (Fault::ServerDisk, f.server_disk),
            (Fault::RestartOne, f.restart_one),
        ];
        let total: u64 = weights.iter().map(|(_, w)| w).sum();
        if total == 0 {
            return None;
        }
        let mut at = self.chance.between(0, total - 1);
        for (fault, weight) in weights {
            if at < weight {
                return Some(fault);
            }
            at -= weight;
        }
        None
    }

    fn begin(&mut self, number: u64, fault: Fault) -> anyhow::Result<()> {
        let stage = self.stage;
        let chance = self.chance.clone();
        let drawn = stage.device_at(chance.bits());
        let any = stage.devices.first().filter(|_| !fault.befalls_a_device());
        let Some(device) = drawn.or(any) else {
            return Ok(());
        };
        stage.note(format_args!("fault {number}: {fault:?}"));
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
                stage.net.cut(device.index(), Cut::Both);
                self.until(60_000, Trouble::Cut(device.index()));
            }
            Fault::HalfOpen => {
                stage.note(format_args!("d{} hears nothing any more", device.index()));
                stage.net.cut(device.index(), Cut::HalfOpen);
                self.until(60_000, Trouble::Cut(device.index()));
            }
            Fault::Reuse => self.reuse(),
            Fault::Crash => {
                stage.check_cursor(device);
                device.crash();
                if stage.world.partial
                    && chance.permille(300)
                    && self.can_do_without(Keeper::Home(device.home().number()))
                {
                    self.hold_other_ranges(device);
                }
                self.until(20_000, Trouble::Crashed(device.index()));
            }
            Fault::Away => {
                device.set_online(false);
                self.until(300_000, Trouble::Away(device.index()));
            }
            Fault::LoseStore => {
                let number = device.home().number();
                for tab in &stage.devices {
                    if tab.home().number() == number {
                        tab.crash();
                        self.until(20_000, Trouble::Crashed(tab.index()));
                    }
                }
                device.lose_store();
            }
            Fault::Clock => {
                let ms = offset(self.faults.clock_ms);
                stage.note(format_args!("d{}'s clock is {ms} ms off", device.index()));
                device.set_clock(ms);
            }
            Fault::ServerClock => {
                let ms = offset(self.faults.clock_ms);
                stage.note(format_args!("the server's clock is {ms} ms off"));
                stage.server.set_clock(ms);
            }
            Fault::Restart | Fault::Wipe | Fault::Restore => {
                let loses = !matches!(fault, Fault::Restart) && self.can_do_without(Keeper::Server);
                stage.note(format_args!("the server stops: {fault:?}"));
                stage.server.stop()?;
                match fault {
                    Fault::Wipe if loses => stage.server.wipe()?,
                    // without a backup it is a restart
                    Fault::Restore if loses => stage.server.restore().map(drop)?,
                    _ => {}
                }
                self.until(30_000, Trouble::ServerDown);
            }
            Fault::RestartOne => {
                let number = stage.server.stop_one(chance.bits());
                stage.note(format_args!("server {number} stops, the others go on"));
                self.until(30_000, Trouble::OneServerDown(number));
            }
            Fault::Compact => {
                let retention_ms = chance.skewed(60_000 * stage.pace);
                for (space, ledger) in &stage.spaces {
                    match stage.compact(space, ledger, retention_ms) {
                        Err(error) if self.has(Trouble::BadServerDisk) => {
                            stage.note(format_args!("compaction failed: {error}"));
                        }
                        done => done?,
                    }
                }
            }
            Fault::ServerRot | Fault::DeviceRot => self.rot(matches!(fault, Fault::ServerRot))?,
            Fault::DeviceDisk => {
                let share = 1 + chance.skewed(300);
                let number = device.home().number();
                stage.note(format_args!("store {number} fails, {share} of 1000 times"));
                device.home().failing().set(share);
                self.until(30_000, Trouble::BadDisk(number));
            }
            Fault::ServerDisk => {
                let share = 1 + chance.skewed(300);
                stage.note(format_args!(
                    "the server's disk fails, {share} of 1000 times"
                ));
                stage.server.fail(share);
                self.until(30_000, Trouble::BadServerDisk);
            }
        }
        // nobody makes one of a disk that fails
        let keeps_backups = self.faults.restore > 0 && !self.has(Trouble::BadServerDisk);
        if keeps_backups && chance.permille(250) {
            stage.note(format_args!("a backup is made"));
            stage.server.back_up()?;
        }
        Ok(())
    }

    fn until(&mut self, most_ms: u64, trouble: Trouble) {
        let now = self.stage.executor.now_ms();
        let at = now + self.chance.skewed(most_ms * self.stage.pace);
        self.troubles.push((at, trouble));
    }

    fn has(&self, trouble: Trouble) -> bool {
        self.troubles.iter().any(|(_, t)| *t == trouble)
    }

    fn end(&self, trouble: Trouble) {
        let stage = self.stage;
        let device = |index: usize| stage.devices.iter().find(|d| d.index() == index);
        match trouble {
            Trouble::Cut(index) => {
                stage.note(format_args!("d{index} is back"));
                stage.net.cut(index, Cut::No);
            }
            Trouble::Crashed(index) => device(index).into_iter().for_each(Device::open),
            Trouble::Away(index) => device(index).into_iter().for_each(|d| d.set_online(true)),
            Trouble::ServerDown => {
                if stage.server.running().is_none() || stage.server.is_short() {
                    stage.note(format_args!("the server starts"));
                    stage.server.start();
                }
            }
            // the database is down: it starts with the others
            Trouble::OneServerDown(_) if self.has(Trouble::ServerDown) => {}
            Trouble::OneServerDown(number) => {
                stage.note(format_args!("server {number} starts"));
                stage.server.start_one(number);
            }
            Trouble::BadDisk(number) => {
                let mut homes = stage.devices.iter().map(Device::home);
                if let Some(home) = homes.find(|home| home.number() == number) {
                    stage.note(format_args!("store {number} is sound again"));
                    home.failing().set(0);
                }
            }
            Trouble::BadServerDisk => {
                stage.note(format_args!("the server's disk is sound again"));
                if !stage.server.mend() {
                    stage.note(format_args!("the server is started anew"));
                    match stage.server.stop() {
                        Ok(()) => stage.server.start(),
                        Err(error) => stage.fails(error),
                    }
                }
            }
        }
    }

    /// A faulty replica gives a version that exists to other content. Whoever
    /// has either must come to the same.
    fn reuse(&self) {
        let stage = self.stage;
        let Some((space, ledger)) = self.chance.pick(&stage.spaces) else {
            return;
        };
        let Some(mut record) = ledger.any_taken(self.chance.bits()) else {
            return;
        };
        let value = format!("other {}", self.chance.bits() % 1_000);
        record.content = match self.chance.permille(300) {
            true => Content::Tombstone,
            false => Content::Put(value.into()),
        };
        stage.note(format_args!("another content for {}", record.key));
        ledger.made(record.clone());
        let request = wire::PushRequest {
            space: space.to_string(),
            records: vec![record.into()],
            ..Default::default()
        };
        // a device of its own, that nothing else befalls
        let link = stage.net.link(stage.places);
        let process = stage.executor.new_process();
        stage.executor.spawn(process, async move {
            // whatever comes of it
            let _ = link.push(&CallMetadata::default(), request).await;
        });
    }

    /// From its next opening on, other ranges.
    fn hold_other_ranges(&self, device: &Device) {
        let chance = &self.chance;
        let all = [
            "import/0", "import/1", "import", "k00", "k01", "k02", "k", "doc\0d1", "doc",
        ];
        let mut ranges = Vec::new();
        for _ in 0..chance.between(0, 3) {
            let prefix = chance.pick(&all).map_or(&b""[..], |p| p.as_bytes());
            ranges.extend(KeyRange::prefix(prefix).ok());
        }
        if ranges.is_empty() {
            ranges.push(KeyRange::all());
        }
        self.stage
            .note(format_args!("d{} is to hold {ranges:?}", device.index()));
        device.home().set_ranges(ranges);
    }

    /// Whether each record that counts is intact somewhere else, where data is
    /// damaged at all: otherwise the one place may be the last that has it.
    fn can_do_without(&self, keeper: Keeper) -> bool {
        let faults = &self.stage.world.faults;
        faults.server_rot + faults.device_rot == 0
            || self.stage.spaces.iter().all(|(space, ledger)| {
                let newest = ledger.all_newest();
                let copies = self.copies(space, &newest);
                // a deletion that is forgotten loses nothing
                let mut puts = copies.iter().filter(|(k, _)| !newest[*k].is_tombstone());
                puts.all(|(_, keepers)| keepers.iter().any(|k| *k != keeper))
            })
    }

    /// Who holds the newest record of each key, intact.
    fn copies(
        &self,
        space: &SpaceId,
        newest: &BTreeMap<Key, Record>,
    ) -> BTreeMap<Key, BTreeSet<Keeper>> {
        let stage = self.stage;
        let mut copies: BTreeMap<Key, BTreeSet<Keeper>> = BTreeMap::new();
        for key in newest.keys() {
            copies.insert(key.clone(), BTreeSet::new());
        }
        let mut note = |keeper, records: BTreeMap<Key, Record>| {
            for (key, record) in records {
                if newest.get(&key) == Some(&record)
                    && let Some(keepers) = copies.get_mut(&key)
                {
                    keepers.insert(keeper);
                }
            }
        };
        note(
            Keeper::Server,
            stage.server.records(space).unwrap_or_default(),
        );
        for device in stage.devices.iter().filter(|d| d.space() == space) {
            note(Keeper::Home(device.home().number()), device.records());
        }
        copies
    }

    /// Spoils some records in one place, where another place has them too.
    fn rot(&self, at_server: bool) -> anyhow::Result<()> {
        let stage = self.stage;
        let victim = self.chance.pick(&stage.devices);
        let Some(victim) = victim else { return Ok(()) };
        let of = |(space, _): &&(SpaceId, Ledger)| space == victim.space();
        let Some((space, ledger)) = stage.spaces.iter().find(of) else {
            return Ok(());
        };
        let place = match at_server {
            true => Keeper::Server,
            false => Keeper::Home(victim.home().number()),
        };
        let copies = self.copies(space, &ledger.all_newest());
        let held = victim.held();
        let server = stage.server.records(space)?;
        let keys: Vec<&Key> = match at_server {
            true => server.keys().collect(),
            false => held.keys().collect(),
        };
        for _ in 0..self.chance.between(1, 8) {
            let Some(key) = self.chance.pick(&keys) else {
                return Ok(());
            };
            let mut keepers = copies.get(*key).into_iter().flatten();
            let survives = keepers.any(|k| *k != place);
            // what is damaged already would be mended
            let whole = at_server || held.get(*key).is_some_and(Stored::intact);
            if !survives || !whole {
                continue;
            }
            match at_server {
                true => {
                    stage.note(format_args!("rot at the server: {key}"));
                    stage.server.damage(space, key)?;
                }
                false => {
                    stage.note(format_args!("rot at d{}: {key}", victim.index()));
                    victim.damage(key);
                }
            }
        }
        Ok(())
    }

    /// Ends everything. Clocks of devices stay as they are: a wrong clock is
    /// no reason not to converge.
    pub(crate) fn make_good(&mut self) {
        for (_, trouble) in std::mem::take(&mut self.troubles) {
            self.end(trouble);
        }
        let stage = self.stage;
        stage.net.set_weather(Weather::CALM);
        stage.server.set_clock(0);
        if stage.server.running().is_none() || stage.server.is_short() {
            stage.server.start();
        }
        for device in &stage.devices {
            stage.net.cut(device.index(), Cut::No);
            device.open();
            device.set_online(true);
        }
    }
}
