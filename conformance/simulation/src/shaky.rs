//! The server's store on a disk that fails at times: any call may end with a
//! typed error, before its work or in the midst of it, and works again when it
//! is tried again. A commit whose end nobody could tell stops all writing until
//! the server is started anew, as in the store over SQLite. Knows no records.

use crate::chance::Chance;
use crate::failing::Failing;
use gosync_proto::history::{Ancestry, Cursor, Epoch};
use gosync_proto::{Key, KeyRange, RangeSet, SpaceId, Time};
use gosync_server::store::{
    Applied, Compaction, Damage, Kept, KeyDigest, ReadTx, Result, SpaceState, Store, StoreError,
    Stored, Work, WriteTx,
};
use std::ops::{ControlFlow, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// Why calls fail, and when.
#[derive(Clone)]
struct Disk {
    failing: Failing,
    chance: Chance,
}

impl Disk {
    fn work(&self) -> Result<()> {
        if !self.failing.strikes(&self.chance) {
            return Ok(());
        }
        let why = "the simulated disk failed".to_owned();
        Err(match self.chance.between(0, 2) {
            0 => StoreError::Full(why),
            1 => StoreError::Busy(why),
            _ => StoreError::Failed(why),
        })
    }
}

/// See the module.
pub struct ShakyStore {
    inner: Arc<dyn Store>,
    disk: Disk,
    poison: Mutex<Option<String>>,
}

impl ShakyStore {
    /// A store over a disk that fails like that.
    pub fn new(inner: Arc<dyn Store>, failing: Failing, chance: Chance) -> ShakyStore {
        ShakyStore {
            inner,
            disk: Disk { failing, chance },
            poison: Mutex::default(),
        }
    }
}

impl Store for ShakyStore {
    fn epoch(&self) -> Result<Epoch> {
        self.disk.work()?;
        self.inner.epoch()
    }

    fn read(&self, space: &SpaceId) -> Result<Box<dyn ReadTx + '_>> {
        self.disk.work()?;
        Ok(Box::new(ShakyTx {
            tx: self.inner.read(space)?,
            disk: self.disk.clone(),
        }))
    }

    fn write_boxed(&self, space: &SpaceId, work: Work) -> Result<()> {
        if let Some(why) = self.poisoned() {
            return Err(StoreError::Poisoned(why));
        }
        self.disk.work()?;
        let disk = self.disk.clone();
        let shaken: Work = Box::new(move |tx| work(&mut ShakyTx { tx, disk }));
        self.inner.write_boxed(space, shaken)?;
        // what was done is durable, and nobody can know it
        if self.disk.work().is_err() {
            let why = "the simulated disk failed at a commit".to_owned();
            let mut poison = self.poison.lock().unwrap_or_else(PoisonError::into_inner);
            *poison = Some(why.clone());
            return Err(StoreError::Poisoned(why));
        }
        Ok(())
    }

    fn authoritative(&self) -> bool {
        self.inner.authoritative()
    }

    fn poisoned(&self) -> Option<String> {
        let poison = self.poison.lock().unwrap_or_else(PoisonError::into_inner);
        poison.clone().or_else(|| self.inner.poisoned())
    }

    fn spaces(&self) -> Result<Vec<SpaceId>> {
        self.disk.work()?;
        self.inner.spaces()
    }

    fn begin_epoch(&self, epoch: Epoch, now_ms: u64) -> Result<()> {
        self.disk.work()?;
        self.inner.begin_epoch(epoch, now_ms)
    }
}

struct ShakyTx<T> {
    tx: T,
    disk: Disk,
}

impl<T> ReadTx for ShakyTx<T>
where
    T: DerefMut,
    T::Target: ReadTx,
{
    fn state(&mut self) -> Result<SpaceState> {
        self.disk.work()?;
        self.tx.state()
    }

    fn ancestry(&mut self) -> Result<Ancestry> {
        self.disk.work()?;
        self.tx.ancestry()
    }

    fn tag_at(&mut self, sequence: u64) -> Result<Option<u64>> {
        self.disk.work()?;
        self.tx.tag_at(sequence)
    }

    fn commit_until(&mut self, sequence: u64) -> Result<Option<Cursor>> {
        self.disk.work()?;
        self.tx.commit_until(sequence)
    }

    fn lookup(&mut self, keys: &[&Key]) -> Result<Vec<Option<Kept>>> {
        self.disk.work()?;
        self.tx.lookup(keys)
    }

    fn get(&mut self, key: &Key) -> Result<Option<Stored>> {
        self.disk.work()?;
        self.tx.get(key)
    }

    fn scan(
        &mut self,
        range: &KeyRange,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(Stored) -> ControlFlow<()>,
    ) -> Result<()> {
        self.disk.work()?;
        self.tx.scan(range, after, visit)?;
        self.disk.work()
    }

    fn digests(
        &mut self,
        range: &KeyRange,
        visit: &mut dyn FnMut(KeyDigest<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        self.disk.work()?;
        self.tx.digests(range, visit)?;
        self.disk.work()
    }

    fn changes(
        &mut self,
        sequence: u64,
        ranges: &RangeSet,
        visit: &mut dyn FnMut(Stored) -> ControlFlow<()>,
    ) -> Result<()> {
        self.disk.work()?;
        self.tx.changes(sequence, ranges, visit)?;
        self.disk.work()
    }

    fn changed_digests(
        &mut self,
        sequence: u64,
        visit: &mut dyn FnMut(KeyDigest<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        self.disk.work()?;
        self.tx.changed_digests(sequence, visit)?;
        self.disk.work()
    }

    fn quarantined(&mut self, range: &KeyRange, limit: usize) -> Result<Vec<Vec<u8>>> {
        self.disk.work()?;
        self.tx.quarantined(range, limit)
    }

    fn take_damage(&mut self) -> Vec<Damage> {
        self.tx.take_damage()
    }
}

impl<T> WriteTx for ShakyTx<T>
where
    T: DerefMut,
    T::Target: WriteTx,
{
    fn commit(&mut self, records: &[Applied], tag: u64, now_ms: u64) -> Result<Cursor> {
        let end = self.tx.commit(records, tag, now_ms)?;
        self.disk.work()?;
        Ok(end)
    }

    fn quarantine(&mut self, damage: &[Damage], now_ms: u64) -> Result<usize> {
        let moved = self.tx.quarantine(damage, now_ms)?;
        self.disk.work()?;
        Ok(moved)
    }

    fn tombstone_times(
        &mut self,
        below: Time,
        arrived_until_ms: u64,
    ) -> Result<Option<(Time, Time)>> {
        self.disk.work()?;
        self.tx.tombstone_times(below, arrived_until_ms)
    }

    fn compact(&mut self, step: Compaction) -> Result<usize> {
        let removed = self.tx.compact(step)?;
        self.disk.work()?;
        Ok(removed)
    }

    fn recount(&mut self) -> Result<()> {
        self.tx.recount()?;
        self.disk.work()
    }

    fn retire(&mut self, now_ms: u64) -> Result<()> {
        self.tx.retire(now_ms)?;
        self.disk.work()
    }
}
