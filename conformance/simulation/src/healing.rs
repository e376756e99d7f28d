//! A server and a device that hold the same records, damage to either side
//! behind the back of everything that would note it, and the meeting in which
//! they mend it. Real client, real server logic, virtual time. Knows what was
//! damaged, and so what both must hold in the end.

use crate::chance::Chance;
pub use crate::damage::Kind;
use crate::damage::Side as Place;
use crate::device::Device;
use crate::drive::Drive;
use crate::executor::Executor;
use crate::household::Household;
use crate::ledger::Ledger;
use crate::net::Net;
use crate::server::{Company, EPOCH_MS, Server};
use crate::storage::Keeps;
use crate::trace::Trace;
use crate::user::Habits;
use anyhow::{Context as _, Result, bail, ensure};
use gosync_client::engine::Phase;
use gosync_client::replica::edit::Edit;
use gosync_proto::limits::Limits;
use gosync_proto::{Content, Key, Record, ReplicaId, SpaceId, Time, Version};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where something is damaged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[allow(missing_docs)]
pub enum Side {
    Server,
    Device,
}

/// Virtual milliseconds after which a sync has hung.
const PATIENCE_MS: u64 = 3_600_000;
/// By then the device has given up the stream that a dead server left open.
const NOTICED_MS: u64 = 60_000;

/// What one healing took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cost {
    /// Reconciliations.
    pub sessions: usize,
    /// Their Reconcile calls.
    pub rounds: u32,
    /// Calls of any kind.
    pub calls: u64,
    /// Of all messages.
    pub bytes: u64,
    /// Records that passed, either way.
    pub moved: u64,
}

/// What one side holds under a key, as far as it is damaged: the record, and
/// whether it is intact; `None` where there is none.
type Copy = Option<(Record, bool)>;

/// See the module.
pub struct Pair {
    executor: Executor,
    server: Server,
    net: Net,
    device: Device,
    space: SpaceId,
    ledger: Ledger,
    /// What both held before.
    sound: BTreeMap<Key, Record>,
    /// What is not what it was.
    copies: BTreeMap<(Key, Side), Copy>,
}

impl Pair {
    /// Both are there, at rest, and hold nothing, in memory.
    ///
    /// # Errors
    /// They do not come to rest.
    pub fn new(limits: Limits) -> Result<Pair> {
        Pair::over(limits, Keeps::Memory)
    }

    /// Likewise, with a server that keeps its data in that.
    ///
    /// # Errors
    /// They do not come to rest; the database file cannot be made.
    pub fn over(limits: Limits, keeps: Keeps) -> Result<Pair> {
        let chance = Chance::new(1);
        let executor = Executor::new(chance.fork());
        let space = SpaceId::new("bench")?;
        let ledger = Ledger::new(false);
        let trace = Trace::new(false);
        let server = Server::new(
            executor.clone(),
            chance.fork(),
            limits,
            Company::ALONE,
            keeps,
        )?;
        let net = Net::new(
            executor.clone(),
            chance.fork(),
            server.clone(),
            1,
            BTreeMap::from([(space.to_string(), ledger.clone())]),
            trace.clone(),
        );
        let habits = Habits {
            hot_keys: 1,
            pause_ms: 60_000,
            imports: 0,
            documents: 0,
        };
        let device = Device::new(
            0,
            space.clone(),
            Household::new(0, Drive::memory()),
            executor.clone(),
            chance.fork(),
            net.clone(),
            ledger.clone(),
            trace,
            habits,
            0,
        );
        device.set_writing(false);
        let pair = Pair {
            executor,
            server,
            net,
            device,
            space,
            ledger,
            sound: BTreeMap::new(),
            copies: BTreeMap::new(),
        };
        pair.device.open();
        pair.rest()?;
        Ok(pair)
    }

    /// The device's user writes this, in batches, and the server takes it.
    ///
    /// # Errors
    /// The two do not come to hold the same.
    pub fn write(&mut self, batches: impl IntoIterator<Item = Vec<Edit>>) -> Result<()> {
        let client = self.device.client().context("the device is not open")?;
        let (written, mut begun) = (Arc::new(AtomicUsize::new(0)), 0);
        for edits in batches {
            begun += 1;
            let (client, written) = (client.clone(), Arc::clone(&written));
            let process = self.executor.new_process();
            self.executor.spawn(process, async move {
                let taken = client.batch(edits).await.is_ok();
                written.fetch_add(usize::from(taken), Ordering::Relaxed);
            });
            self.wait(100)?;
        }
        self.rest()?;
        let written = written.load(Ordering::Relaxed);
        ensure!(
            written == begun,
            "the device took {written} of {begun} batches"
        );
        self.sound = self.server.records(&self.space)?;
        ensure!(
            self.device.records() == self.sound,
            "the two sides do not come to hold the same"
        );
        Ok(())
    }

    /// What both hold.
    pub fn records(&self) -> &BTreeMap<Key, Record> {
        &self.sound
    }

    /// Ends both without ceremony; only then may something be damaged.
    ///
    /// # Errors
    /// The server's store cannot be opened again.
    pub fn part(&self) -> Result<()> {
        self.device.crash();
        self.server.stop()
    }

    /// Damages what one side holds under a key. What is not there cannot be
    /// spoilt, dropped or set back; what is added stands where nothing stood.
    ///
    /// # Errors
    /// The damage cannot be done.
    pub fn damage(&mut self, side: Side, kind: Kind, key: &Key) -> Result<()> {
        let copy = self.copy(side, key);
        let (record, intact) = match (kind, copy) {
            (Kind::Add, None) => (Some(self.stranger(side, key)), true),
            (Kind::RollBack, Some((now, _))) => (Some(older(&now)), true),
            (Kind::Drop, Some(_)) => (None, true),
            (Kind::Corrupt, Some((now, true))) => (Some(now), false),
            _ => return Ok(()),
        };
        let place = match side {
            Side::Server => Place::Server(&self.server, &self.space),
            Side::Device => Place::Device(&self.device),
        };
        if intact {
            let there = place.put(key, record.as_ref())?;
            ensure!(there, "there is no place for {key}");
        } else {
            place.spoil(key)?;
        }
        if let Some(record) = &record {
            self.ledger.planted(record);
        }
        let copy = record.map(|r| (r, intact));
        self.copies.insert((key.clone(), side), copy);
        Ok(())
    }

    fn copy(&self, side: Side, key: &Key) -> Copy {
        match self.copies.get(&(key.clone(), side)) {
            Some(copy) => copy.clone(),
            None => self.sound.get(key).map(|r| (r.clone(), true)),
        }
    }

    fn stranger(&self, side: Side, key: &Key) -> Record {
        let now = Time::from_millis(EPOCH_MS + self.executor.now_ms());
        Record {
            key: key.clone(),
            version: Version {
                time: now,
                replica: ReplicaId(1 + side as u64),
            },
            content: Content::Put(vec![b'+'; 219].into()),
        }
    }

    /// What both must hold when they have met: of each record the newest that
    /// is left intact anywhere.
    pub fn expected(&self) -> BTreeMap<Key, Record> {
        let mut expected = self.sound.clone();
        for (key, _) in self.copies.keys() {
            let copies = [Side::Server, Side::Device].map(|side| self.copy(side, key));
            let intact = copies.into_iter().flatten().filter(|(_, intact)| *intact);
            match intact.map(|(r, _)| r).max_by_key(|r| r.version) {
                Some(record) => expected.insert(key.clone(), record),
                None => expected.remove(key),
            };
        }
        expected
    }

    /// Starts both, lets them find their damage and heal it.
    ///
    /// # Errors
    /// They do not come to rest, or hold something else than they must.
    pub fn meet(&mut self) -> Result<Cost> {
        let spoilt = |side| {
            let of = |((_, s), copy): (&(Key, Side), &Copy)| {
                *s == side && copy.as_ref().is_some_and(|(_, intact)| !intact)
            };
            self.copies.iter().any(of)
        };
        self.device.take_healings();
        self.net.meter();
        self.server.start();
        if spoilt(Side::Server) {
            // nobody reads all the time: its operator does
            self.server.scrub(&self.space)?;
        }
        self.device.open();
        self.wait(NOTICED_MS)?;
        self.rest()?;
        if spoilt(Side::Device) {
            self.device.verify();
            self.wait(NOTICED_MS)?;
            self.rest()?;
            let report = self.device.report().context("the device did not verify")?;
            report.map_err(anyhow::Error::msg)?;
        }
        let traffic = self.net.take_traffic();
        let traffic = traffic.get(&0).copied().unwrap_or_default();
        let healings = self.device.take_healings();
        let expected = self.expected();
        self.judge(&expected)?;
        self.sound = expected;
        self.copies.clear();
        Ok(Cost {
            sessions: healings.len(),
            rounds: healings.iter().map(|h| h.rounds).sum(),
            calls: traffic.requests,
            bytes: traffic.bytes,
            moved: traffic.records,
        })
    }

    fn judge(&self, expected: &BTreeMap<Key, Record>) -> Result<()> {
        let held = self.device.held();
        if let Some((key, _)) = held.iter().find(|(_, s)| !s.intact()) {
            bail!("the device holds damaged content at {key}");
        }
        let device = held.into_iter().map(|(key, s)| (key, s.record)).collect();
        for (name, found) in [
            ("the server", self.server.records(&self.space)?),
            ("the device", device),
        ] {
            let keys = found.keys().chain(expected.keys());
            for key in keys {
                let (is, ought) = (found.get(key), expected.get(key));
                ensure!(is == ought, "{name} holds {is:?} at {key}, not {ought:?}");
            }
        }
        let keys = self.copies.keys().map(|(key, _)| key.clone()).collect();
        let left = self.server.spoilt(&self.space, &keys)?;
        ensure!(left == 0, "the server holds {left} damaged records");
        if let Some((kept, computed)) = self.server.roots(&self.space)? {
            ensure!(kept == computed, "the server's tree is not of its records");
        }
        Ok(())
    }

    fn wait(&self, ms: u64) -> Result<()> {
        Ok(self.executor.run_until(self.executor.now_ms() + ms)?)
    }

    /// Until the device knows that both sides are equal.
    fn rest(&self) -> Result<()> {
        for _ in 0..PATIENCE_MS / 100 {
            self.wait(100)?;
            let status = self.device.client().map(|c| c.status());
            if status.is_some_and(|s| s.phase == Phase::Live && s.verified && s.pending == 0) {
                return Ok(());
            }
        }
        bail!("the two sides do not come to rest")
    }
}

/// What could have stood there before.
fn older(now: &Record) -> Record {
    Record {
        key: now.key.clone(),
        version: Version {
            time: Time(now.version.time.0.saturating_sub(1)),
            ..now.version
        },
        content: Content::Put("before".into()),
    }
}
