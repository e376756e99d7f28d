//! The store in memory: for tests and simulations, and the plainest statement
//! of what a store does.

use super::{
    Applied, Compaction, Damage, Kept, KeyDigest, ReadTx, Result, SpaceState, SpaceStatus, Store,
    StoreError, Stored, Work, WriteTx, answers_for, intact,
};
use gosync_proto::history::{Ancestry, Cursor, Epoch, Point};
use gosync_proto::{Content, Key, KeyRange, RangeSet, Record, SpaceId, Time, Version, mutant};
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow, Deref};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A record as a database would keep it: parts that may rot one by one.
#[derive(Clone, Debug)]
struct Row {
    sequence: u64,
    flags: i64,
    version: Version,
    digest: gosync_proto::Digest,
    arrived_ms: u64,
    value: bytes::Bytes,
}

impl Row {
    fn check(&self, key: &Key) -> std::result::Result<Stored, Damage> {
        intact(
            self.sequence,
            key.as_bytes(),
            self.flags,
            self.version,
            &self.digest.0,
            &self.value,
        )
    }

    fn unchecked(&self, key: &Key) -> Record {
        Record {
            key: key.clone(),
            version: self.version,
            content: match self.flags {
                0 => Content::Put(self.value.clone()),
                _ => Content::Tombstone,
            },
        }
    }

    fn kept(&self, key: &Key) -> Kept {
        Kept {
            sequence: self.sequence,
            version: self.version,
            tombstone: self.flags != 0,
            digest: self.digest,
            size: (key.as_bytes().len() + self.value.len()) as u64,
        }
    }

    fn key_digest<'a>(&self, key: &'a Key) -> KeyDigest<'a> {
        let kept = self.kept(key);
        KeyDigest {
            key: key.as_bytes(),
            digest: kept.digest,
            size: kept.size,
            time: kept.version.time,
            tombstone: kept.tombstone,
            sequence: kept.sequence,
        }
    }
}

#[derive(Clone, Debug)]
struct Space {
    state: SpaceState,
    rows: BTreeMap<Key, Row>,
    by_sequence: BTreeMap<u64, Key>,
    tags: BTreeMap<u64, u64>,
    quarantine: BTreeMap<Key, Row>,
    /// Heads at the ends of the earlier epochs.
    restore_points: BTreeMap<Epoch, u64>,
}

impl Space {
    fn absent(epoch: Epoch) -> Space {
        Space {
            state: SpaceState::absent(epoch),
            rows: BTreeMap::new(),
            by_sequence: BTreeMap::new(),
            tags: BTreeMap::new(),
            quarantine: BTreeMap::new(),
            restore_points: BTreeMap::new(),
        }
    }

    /// Sets or removes a row and returns the one that stood there.
    fn put_row(&mut self, key: Key, row: Option<Row>) -> Option<Row> {
        let sequence = row.as_ref().map(|row| row.sequence);
        let old = match row {
            Some(row) => self.rows.insert(key.clone(), row),
            None => self.rows.remove(&key),
        };
        if let Some(old) = &old {
            self.by_sequence.remove(&old.sequence);
        }
        if let Some(sequence) = sequence {
            self.by_sequence.insert(sequence, key);
        }
        old
    }

    fn range(&self, range: &KeyRange) -> impl Iterator<Item = (&Key, &Row)> {
        self.rows.range::<[u8], _>(range.bounds())
    }

    fn after(&self, sequence: u64) -> impl Iterator<Item = (&Key, &Row)> {
        self.by_sequence
            .range((Bound::Excluded(sequence), Bound::Unbounded))
            .filter_map(|(_, key)| self.rows.get_key_value(key))
    }

    fn old_tombstones(
        &self,
        below: Time,
        arrived_until_ms: u64,
    ) -> impl Iterator<Item = (&Key, &Row)> {
        self.rows.iter().filter(move |(_, row)| {
            row.flags != 0 && row.version.time < below && row.arrived_ms <= arrived_until_ms
        })
    }
}

#[derive(Clone, Debug)]
struct Database {
    /// Oldest first; the last is the present one. Never empty.
    epochs: Vec<Epoch>,
    spaces: BTreeMap<SpaceId, Arc<Space>>,
}

impl Database {
    fn epoch(&self) -> Epoch {
        self.epochs.last().copied().unwrap_or(Epoch(0))
    }

    fn ancestry(&self, space: &Space) -> Ancestry {
        let (present, earlier) = match self.epochs.split_last() {
            Some((present, earlier)) => (*present, earlier),
            None => (Epoch(0), &[][..]),
        };
        Ancestry {
            epoch: present,
            restore_points: earlier
                .iter()
                .map(|&epoch| Point {
                    epoch,
                    sequence: space.restore_points.get(&epoch).copied().unwrap_or(0),
                })
                .collect(),
        }
    }
}

/// Spaces in memory. A clone of the handle is a *copy* of the content, as a
/// backup is.
#[derive(Debug)]
pub struct MemoryStore(Mutex<Database>);

impl Clone for MemoryStore {
    fn clone(&self) -> MemoryStore {
        MemoryStore(Mutex::new(self.lock().clone()))
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new(epoch: Epoch) -> MemoryStore {
        MemoryStore(Mutex::new(Database {
            epochs: vec![epoch],
            spaces: BTreeMap::new(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Database> {
        // nothing that runs while it is held panics half-way
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every record of a space with its sequence, in key order, damaged ones
    /// included: nothing is hashed. For simulations, which look often and know
    /// what they damaged.
    pub fn unchecked(&self, space: &SpaceId) -> Vec<(Record, u64)> {
        let db = self.lock();
        let rows = db.spaces.get(space).into_iter().flat_map(|s| &s.rows);
        rows.map(|(key, row)| (row.unchecked(key), row.sequence))
            .collect()
    }

    /// Spoils the last byte of the stored value under `key`, or the digest of
    /// an empty one, as a failing disk would. Returns whether there was a
    /// record. For tests and simulations.
    pub fn damage(&self, space: &SpaceId, key: &Key) -> bool {
        let mut db = self.lock();
        let found = db
            .spaces
            .get_mut(space)
            .and_then(|s| Arc::make_mut(s).rows.get_mut(key));
        let Some(row) = found else { return false };
        let mut value = row.value.to_vec();
        match value.last_mut() {
            Some(byte) => *byte ^= 1,
            None => row.digest.0[0] ^= 1,
        }
        row.value = value.into();
        true
    }

    /// Puts a record under `key`, or nothing, without a commit that would tell
    /// of it, as a program that is wrong would. For tests and simulations.
    pub fn tamper(&self, space: &SpaceId, key: &Key, record: Option<&Record>) {
        let mut db = self.lock();
        let Some(space) = db.spaces.get_mut(space).map(Arc::make_mut) else {
            return;
        };
        let old = space.rows.get(key);
        let (sequence, arrived_ms) = old.map_or((0, 0), |row| (row.sequence, row.arrived_ms));
        let freed = old.map(|row| row.kept(key).size);
        let row = record.map(|record| Row {
            sequence,
            flags: record.content.flags().into(),
            version: record.version,
            digest: record.digest(),
            arrived_ms,
            value: bytes::Bytes::copy_from_slice(record.content.value()),
        });
        let taken = row.as_ref().map(|row| row.kept(key).size);
        match row {
            // no sequence is its own: only who compares finds it
            Some(row) if sequence == 0 => drop(space.rows.insert(key.clone(), row)),
            row => drop(space.put_row(key.clone(), row)),
        }
        let state = &mut space.state;
        state.records = state.records + u64::from(taken.is_some()) - u64::from(freed.is_some());
        state.bytes = (state.bytes + taken.unwrap_or(0)).saturating_sub(freed.unwrap_or(0));
    }
}

impl Store for MemoryStore {
    fn epoch(&self) -> Result<Epoch> {
        Ok(self.lock().epoch())
    }

    fn read(&self, space: &SpaceId) -> Result<Box<dyn ReadTx + '_>> {
        let db = self.lock();
        let found = db.spaces.get(space).cloned();
        let space = found.unwrap_or_else(|| Arc::new(Space::absent(db.epoch())));
        let ancestry = db.ancestry(&space);
        Ok(Box::new(Session::new(space, ancestry)))
    }

    fn write_boxed(&self, space: &SpaceId, work: Work) -> Result<()> {
        let mut db = self.lock();
        let mut kept = db
            .spaces
            .remove(space)
            .unwrap_or_else(|| Arc::new(Space::absent(db.epoch())));
        let ancestry = db.ancestry(&kept);
        // copies only while a reader holds the old state
        let mut session = Session::new(Arc::make_mut(&mut kept), ancestry);
        let outcome = catch_unwind(AssertUnwindSafe(|| work(&mut session)))
            .unwrap_or(Err(StoreError::Misuse("the work of a write panicked")));
        if outcome.is_err() {
            session.undo_all();
        }
        if kept.state.status != SpaceStatus::Absent {
            db.spaces.insert(space.clone(), kept);
        }
        outcome
    }

    fn spaces(&self) -> Result<Vec<SpaceId>> {
        Ok(self.lock().spaces.keys().cloned().collect())
    }

    fn begin_epoch(&self, epoch: Epoch, _now_ms: u64) -> Result<()> {
        if mutant!(RestoreKeepsEpoch) {
            return Ok(());
        }
        let mut db = self.lock();
        let old = db.epoch();
        for space in db.spaces.values_mut() {
            let space = Arc::make_mut(space);
            space.restore_points.insert(old, space.state.head());
            space.state.position.head.point.epoch = epoch;
        }
        db.epochs.push(epoch);
        Ok(())
    }
}

/// What a failed write has to put back.
#[derive(Debug)]
enum Undo {
    State(SpaceState),
    Row(Key, Option<Row>),
    Tag(u64),
    Quarantine(Key, Option<Row>),
}

/// A transaction of one space. Reads share the space, a write owns it.
struct Session<S> {
    space: S,
    ancestry: Ancestry,
    damage: Vec<Damage>,
    undo: Vec<Undo>,
}

impl<S: Deref<Target = Space>> Session<S> {
    fn new(space: S, ancestry: Ancestry) -> Session<S> {
        Session {
            space,
            ancestry,
            damage: Vec::new(),
            undo: Vec::new(),
        }
    }

    fn note(&mut self, found: Vec<Damage>) {
        for damage in found {
            if !self.damage.contains(&damage) {
                self.damage.push(damage);
            }
        }
    }
}

impl<S: Deref<Target = Space>> ReadTx for Session<S> {
    fn state(&mut self) -> Result<SpaceState> {
        Ok(self.space.state)
    }

    fn ancestry(&mut self) -> Result<Ancestry> {
        Ok(self.ancestry.clone())
    }

    fn tag_at(&mut self, sequence: u64) -> Result<Option<u64>> {
        Ok(self.space.tags.get(&sequence).copied())
    }

    fn commit_until(&mut self, sequence: u64) -> Result<Option<Cursor>> {
        let epoch = self.ancestry.epoch;
        let end = self.space.tags.range(..=sequence).next_back();
        Ok(end.map(|(&sequence, &tag)| Cursor {
            point: Point { epoch, sequence },
            tag,
        }))
    }

    fn lookup(&mut self, keys: &[&Key]) -> Result<Vec<Option<Kept>>> {
        let rows = &self.space.rows;
        Ok(keys
            .iter()
            .map(|key| rows.get(*key).map(|row| row.kept(key)))
            .collect())
    }

    fn get(&mut self, key: &Key) -> Result<Option<Stored>> {
        match self.space.rows.get(key).map(|row| row.check(key)) {
            Some(Ok(stored)) => Ok(Some(stored)),
            Some(Err(damage)) => {
                self.note(vec![damage]);
                Ok(None)
            }
            None => Ok(None),
        }
    }

    fn scan(
        &mut self,
        range: &KeyRange,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(Stored) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut found = Vec::new();
        for (key, row) in self.space.range(range) {
            if after.is_some_and(|a| key.as_bytes() <= a) {
                continue;
            }
            match row.check(key) {
                Ok(stored) => {
                    if visit(stored).is_break() {
                        break;
                    }
                }
                Err(damage) => found.push(damage),
            }
        }
        self.note(found);
        Ok(())
    }

    fn digests(
        &mut self,
        range: &KeyRange,
        visit: &mut dyn FnMut(KeyDigest<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        for (key, row) in self.space.range(range) {
            if visit(row.key_digest(key)).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn changes(
        &mut self,
        sequence: u64,
        ranges: &RangeSet,
        visit: &mut dyn FnMut(Stored) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut found = Vec::new();
        for (key, row) in self.space.after(sequence) {
            if !ranges.contains(key.as_bytes()) {
                continue;
            }
            match row.check(key) {
                Ok(stored) => {
                    if visit(stored).is_break() {
                        break;
                    }
                }
                Err(damage) => found.push(damage),
            }
        }
        self.note(found);
        Ok(())
    }

    fn changed_digests(
        &mut self,
        sequence: u64,
        visit: &mut dyn FnMut(KeyDigest<'_>) -> ControlFlow<()>,
    ) -> Result<()> {
        for (key, row) in self.space.after(sequence) {
            if visit(row.key_digest(key)).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn quarantined(&mut self, range: &KeyRange, limit: usize) -> Result<Vec<Vec<u8>>> {
        let keys = self.space.quarantine.keys();
        Ok(keys
            .filter(|key| range.contains(key.as_bytes()))
            .take(limit)
            .map(|key| key.as_bytes().to_vec())
            .collect())
    }

    fn take_damage(&mut self) -> Vec<Damage> {
        std::mem::take(&mut self.damage)
    }
}

impl Session<&mut Space> {
    /// Everything that the transaction did, undone in reverse.
    fn undo_all(&mut self) {
        while let Some(step) = self.undo.pop() {
            match step {
                Undo::State(state) => self.space.state = state,
                Undo::Row(key, old) => {
                    self.space.put_row(key, old);
                }
                Undo::Tag(sequence) => {
                    self.space.tags.remove(&sequence);
                }
                Undo::Quarantine(key, Some(row)) => {
                    self.space.quarantine.insert(key, row);
                }
                Undo::Quarantine(key, None) => {
                    self.space.quarantine.remove(&key);
                }
            }
        }
    }

    fn set_row(&mut self, key: Key, row: Option<Row>) {
        let old = self.space.put_row(key.clone(), row);
        self.undo.push(Undo::Row(key, old));
    }

    fn set_quarantine(&mut self, key: Key, row: Option<Row>) {
        let quarantine = &mut self.space.quarantine;
        let old = match row {
            Some(row) => quarantine.insert(key.clone(), row),
            None => quarantine.remove(&key),
        };
        self.undo.push(Undo::Quarantine(key, old));
        self.space.state.damaged = self.space.quarantine.len() as u64;
    }
}

impl WriteTx for Session<&mut Space> {
    fn commit(&mut self, records: &[Applied], tag: u64, now_ms: u64) -> Result<Cursor> {
        if records.is_empty() {
            return Ok(self.space.state.position.head);
        }
        if self.space.state.status == SpaceStatus::Retired {
            return Err(StoreError::Misuse("a commit to a retired space"));
        }
        self.undo.push(Undo::State(self.space.state));
        let mut sequence = self.space.state.head();
        for applied in records {
            let record = &applied.record;
            let state = &mut self.space.state;
            sequence += 1;
            if let Some(old) = &applied.replaces {
                state.records -= 1;
                state.bytes = state.bytes.saturating_sub(old.size);
            }
            state.records += 1;
            state.bytes += record.size() as u64;
            state.newest_time = state.newest_time.max(record.version.time);
            let row = Row {
                sequence,
                flags: record.content.flags().into(),
                version: record.version,
                digest: applied.digest,
                arrived_ms: now_ms,
                value: bytes::Bytes::copy_from_slice(record.content.value()),
            };
            self.set_row(record.key.clone(), Some(row));
            let newest = self.space.state.newest_time;
            let aside = self.space.quarantine.get(&record.key);
            if aside.is_some_and(|row| answers_for(record.version, row.version, newest)) {
                self.set_quarantine(record.key.clone(), None);
            }
        }
        self.space.tags.insert(sequence, tag);
        self.undo.push(Undo::Tag(sequence));
        let state = &mut self.space.state;
        state.status = SpaceStatus::Active;
        state.clock_ms = state.clock_ms.max(now_ms);
        state.position.head = Cursor {
            point: Point {
                epoch: self.ancestry.epoch,
                sequence,
            },
            tag,
        };
        Ok(state.position.head)
    }

    fn quarantine(&mut self, damage: &[Damage], _now_ms: u64) -> Result<usize> {
        self.undo.push(Undo::State(self.space.state));
        let mut moved = 0;
        for found in damage {
            let Ok(key) = Key::new(found.key.clone()) else {
                continue;
            };
            let standing = self.space.rows.get(&key).cloned();
            let Some(row) = standing.filter(|row| row.sequence == found.sequence) else {
                continue;
            };
            if row.check(&key).is_ok() {
                continue;
            }
            let size = row.kept(&key).size;
            self.set_row(key.clone(), None);
            let newest = self.space.state.newest_time;
            let aside = self.space.quarantine.get(&key);
            if aside.is_none_or(|kept| answers_for(row.version, kept.version, newest)) {
                self.set_quarantine(key, Some(row));
            }
            let state = &mut self.space.state;
            state.records -= 1;
            state.bytes = state.bytes.saturating_sub(size);
            moved += 1;
        }
        if moved > 0 {
            self.space.state.generation += 1;
        }
        Ok(moved)
    }

    fn tombstone_times(
        &mut self,
        below: Time,
        arrived_until_ms: u64,
    ) -> Result<Option<(Time, Time)>> {
        let times = || {
            let old = self.space.old_tombstones(below, arrived_until_ms);
            old.map(|(_, row)| row.version.time)
        };
        Ok(times().min().zip(times().max()))
    }

    fn compact(&mut self, step: Compaction) -> Result<usize> {
        self.undo.push(Undo::State(self.space.state));
        let removed: Vec<_> = self
            .space
            .old_tombstones(step.horizon, step.arrived_until_ms)
            .take(step.limit)
            .map(|(key, row)| (key.clone(), row.kept(key)))
            .collect();
        for (key, kept) in &removed {
            self.set_row(key.clone(), None);
            let state = &mut self.space.state;
            if !mutant!(CompactionForgotten) {
                state.compacted_through = state.compacted_through.max(kept.sequence);
            }
            state.records -= 1;
            state.bytes = state.bytes.saturating_sub(kept.size);
        }
        let position = &mut self.space.state.position;
        position.horizon = position.horizon.max(step.horizon);
        Ok(removed.len())
    }

    fn recount(&mut self) -> Result<()> {
        self.undo.push(Undo::State(self.space.state));
        let sizes = self.space.rows.iter().map(|(key, row)| row.kept(key).size);
        self.space.state.bytes = sizes.sum();
        self.space.state.records = self.space.rows.len() as u64;
        Ok(())
    }

    fn retire(&mut self, now_ms: u64) -> Result<()> {
        self.undo.push(Undo::State(self.space.state));
        for key in self.space.rows.keys().cloned().collect::<Vec<_>>() {
            self.set_row(key, None);
        }
        for key in self.space.quarantine.keys().cloned().collect::<Vec<_>>() {
            self.set_quarantine(key, None);
        }
        let state = &mut self.space.state;
        state.status = SpaceStatus::Retired;
        state.records = 0;
        state.bytes = 0;
        state.generation += 1;
        state.clock_ms = state.clock_ms.max(now_ms);
        Ok(())
    }
}
