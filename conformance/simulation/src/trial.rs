//! The last trial of a run: all is at rest and equal, then some records are
//! damaged in one place. Healing must find just them, move little more than
//! them, and end with both sides equal and nothing lost. Knows the stores only
//! as places whose content can be tampered with.

use crate::chance::Chance;
use crate::damage::{Kind, Side};
use crate::device::Device;
use crate::executor::Spinning;
use crate::ledger::{Ledger, newer};
use crate::run::{Stage, TO_REST_MS};
use crate::server::EPOCH_MS;
use gosync_proto::{Content, Key, Record, ReplicaId, SpaceId, Time, Version};
use gosync_server::store::StoreError;
use std::collections::{BTreeMap, BTreeSet};

/// The most records of one trial.
const MOST: usize = 20;
/// Records that pass at most, for each device and each damaged record: one is
/// offered, comes back by Watch, and small ranges are sent whole.
const MOVED_PER_DAMAGE: u64 = 4;
/// And so many more for each device: what stands beside the damage.
const MOVED_BESIDE: u64 = 24;
/// Round trips of one reconciliation: two where all fits, and one more for each
/// split that does not.
const ROUNDS: u32 = 6;
/// What an answer holds at least, half of its budget.
const ANSWER_BYTES: u64 = 32 << 10;

/// By then everybody has met the damaged place again, or was told.
const NOTICED_MS: u64 = 20_000;

struct Trial<'s> {
    stage: &'s Stage,
    space: &'s SpaceId,
    ledger: &'s Ledger,
    /// Where the damage is; `None`: on the server.
    device: Option<&'s Device>,
    kind: Kind,
    chance: Chance,
    horizon: Time,
}

impl Stage {
    /// One trial.
    pub(crate) fn trial(&self) -> Result<(), Spinning> {
        let chance = self.chance.fork();
        match self.prepare(&chance) {
            Ok(Some((trial, damage, expected))) => trial.hold(&damage, &expected),
            Ok(None) => Ok(()),
            Err(error) => {
                self.fails(error);
                Ok(())
            }
        }
    }

    /// Chooses what is damaged where: never what only one place holds.
    #[allow(clippy::type_complexity)]
    fn prepare(
        &self,
        chance: &Chance,
    ) -> Result<Option<(Trial<'_>, BTreeSet<Key>, BTreeMap<Key, Record>)>, StoreError> {
        let leads: Vec<&Device> = self.devices.iter().filter(|d| d.leads()).collect();
        let Some(device) = chance.pick(&leads).copied() else {
            return Ok(None);
        };
        let spaces = self.spaces.iter();
        let Some((space, ledger)) = spaces.into_iter().find(|(s, _)| s == device.space()) else {
            return Ok(None);
        };
        let at_server = chance.permille(500);
        let kind = chance.pick(&Kind::ALL).copied().unwrap_or(Kind::Drop);
        let horizon = self.server.position(space)?.horizon;
        let mut expected = self.server.records(space)?;
        expected.retain(|_, r| r.in_fingerprints(horizon));
        let ranges = device.home().ranges();
        let held: Vec<&Key> = expected
            .keys()
            .filter(|k| ranges.contains(k.as_bytes()))
            .collect();
        let most = (held.len() / 10).clamp(1, MOST);
        let mut damage = BTreeSet::new();
        for _ in 0..chance.between(1, most as u64) {
            let Some(key) = chance.pick(&held) else { break };
            let key = match kind {
                Kind::Add => Key::new([key.as_bytes(), b"+"].concat()).ok(),
                _ => Some((*key).clone()),
            };
            damage.extend(key.filter(|k| ranges.contains(k.as_bytes())));
        }
        let trial = Trial {
            stage: self,
            space,
            ledger,
            device: (!at_server).then_some(device),
            kind,
            chance: chance.clone(),
            horizon,
        };
        Ok((!damage.is_empty()).then_some((trial, damage, expected)))
    }
}

impl Trial<'_> {
    fn hold(&self, damage: &BTreeSet<Key>, before: &BTreeMap<Key, Record>) -> Result<(), Spinning> {
        let stage = self.stage;
        let place = self
            .device
            .map_or("the server".into(), |d| format!("d{}", d.index()));
        let keys: Vec<String> = damage.iter().map(Key::to_string).collect();
        stage.note(format_args!(
            "trial: {:?} at {place}: {}",
            self.kind,
            keys.join(" ")
        ));
        for device in &stage.devices {
            device.take_healings();
        }
        // what is lost is taken anew
        self.ledger.set_server_keeps(false);
        let mut expected = before.clone();
        if let Err(error) = self.stop() {
            stage.fails(error);
            return Ok(());
        }
        for key in damage {
            if let Err(error) = self.damage(key, &mut expected) {
                stage.fails(error);
                return Ok(());
            }
        }
        stage.net.meter();
        self.start();
        // a stream that a dead server left open is given up after 10 s
        stage.wait(NOTICED_MS)?;
        if self.kind == Kind::Corrupt {
            // nobody reads all the time
            match self.device {
                Some(device) => device.verify(),
                None => match self.scrub(damage) {
                    Ok((found, left)) if found == left => {}
                    Ok((found, left)) => {
                        self.complain(format!("the server sets {found} of {left} records aside"));
                    }
                    Err(error) => stage.fails(error),
                },
            }
            stage.wait(NOTICED_MS)?;
        }
        if !stage.rest_within(TO_REST_MS)? {
            stage.complain();
            return Ok(());
        }
        if let Err(error) = self.judge(damage, &expected) {
            stage.fails(error);
        }
        Ok(())
    }

    /// How many records the server's operator sets aside, and how many there
    /// are to be: those that no call met before.
    fn scrub(&self, damage: &BTreeSet<Key>) -> Result<(usize, usize), StoreError> {
        let server = &self.stage.server;
        let left = server.spoilt(self.space, damage)?;
        Ok((server.scrub(self.space)?, left))
    }

    fn complain(&self, what: String) {
        let kind = self.kind;
        self.ledger.violation(format!("trial {kind:?}: {what}"));
    }

    /// Nobody is at work where the damage is done.
    fn stop(&self) -> anyhow::Result<()> {
        let Some(device) = self.device else {
            return self.stage.server.stop();
        };
        let number = device.home().number();
        for tab in &self.stage.devices {
            if tab.home().number() == number {
                tab.crash();
            }
        }
        Ok(())
    }

    fn start(&self) {
        match self.device {
            None => self.stage.server.start(),
            Some(device) => {
                device.open();
                self.stage.devices.iter().for_each(Device::open);
            }
        }
    }

    fn side(&self) -> Side<'_> {
        match self.device {
            Some(device) => Side::Device(device),
            None => Side::Server(&self.stage.server, self.space),
        }
    }

    fn damage(&self, key: &Key, expected: &mut BTreeMap<Key, Record>) -> anyhow::Result<()> {
        let record = match (self.kind, expected.get(key)) {
            (Kind::Corrupt, _) => return self.side().spoil(key),
            (Kind::Drop, _) => None,
            (Kind::RollBack, Some(now)) => Some(self.older(now)),
            (Kind::RollBack | Kind::Add, _) => Some(self.stranger(key)),
        };
        let there = self.side().put(key, record.as_ref())?;
        if let Some(record) = record.filter(|_| there) {
            self.ledger.planted(&record);
            let wins = expected.get(key).is_none_or(|now| newer(&record, now));
            if wins {
                expected.insert(key.clone(), record);
            }
        }
        Ok(())
    }

    /// What stood there before, or could have.
    fn older(&self, now: &Record) -> Record {
        self.ledger.before(now).unwrap_or_else(|| Record {
            key: now.key.clone(),
            version: Version {
                time: Time(now.version.time.0.saturating_sub(1)),
                replica: now.version.replica,
            },
            content: Content::Put(format!("before {}", self.chance.bits()).into()),
        })
    }

    fn stranger(&self, key: &Key) -> Record {
        let now = Time::from_millis(EPOCH_MS + self.stage.executor.now_ms());
        Record {
            key: key.clone(),
            version: Version {
                time: now.max(self.horizon),
                replica: ReplicaId(self.chance.bits()),
            },
            content: Content::Put(format!("added {}", self.chance.bits()).into()),
        }
    }

    fn judge(
        &self,
        damage: &BTreeSet<Key>,
        expected: &BTreeMap<Key, Record>,
    ) -> Result<(), StoreError> {
        let mut found = self.stage.server.records(self.space)?;
        found.retain(|_, r| r.in_fingerprints(self.horizon));
        self.compare("the server", &found, expected);
        let traffic = self.stage.net.take_traffic();
        let bytes: usize = damage
            .iter()
            .filter_map(|key| expected.get(key))
            .map(Record::size)
            .sum();
        let rounds = ROUNDS + (bytes as u64 / ANSWER_BYTES) as u32;
        let moved = MOVED_BESIDE + MOVED_PER_DAMAGE * damage.len() as u64;
        for device in self
            .stage
            .devices
            .iter()
            .filter(|d| d.space() == self.space)
        {
            let name = format!("device {}", device.index());
            let ranges = device.home().ranges();
            let mut theirs = expected.clone();
            theirs.retain(|key, _| ranges.contains(key.as_bytes()));
            let mut held = device.records();
            held.retain(|_, r| r.in_fingerprints(self.horizon));
            self.compare(&name, &held, &theirs);
            for healed in device.take_healings() {
                if healed.rounds > rounds {
                    self.complain(format!("{name} took {} round trips", healed.rounds));
                }
                let sound = |r: &&gosync_proto::KeyRange| {
                    !damage.iter().any(|key| r.contains(key.as_bytes()))
                };
                if let Some(range) = healed.ranges.iter().find(sound) {
                    self.complain(format!("{name} heals {range:?}, which is sound"));
                }
            }
            let passed = traffic.get(&device.index()).copied().unwrap_or_default();
            if passed.records > moved {
                let (of, records) = (damage.len(), passed.records);
                self.complain(format!("{name} moved {records} records for {of}"));
            }
        }
        Ok(())
    }

    fn compare(&self, name: &str, found: &BTreeMap<Key, Record>, expected: &BTreeMap<Key, Record>) {
        let keys = found.keys().chain(expected.keys());
        let differs = |key: &&Key| found.get(*key) != expected.get(*key);
        if let Some(key) = keys.into_iter().find(differs) {
            self.complain(format!("{name} does not hold what is expected at {key}"));
        }
    }
}
