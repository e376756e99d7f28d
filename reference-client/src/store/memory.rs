//! A store in memory: for tests, simulations and replicas that need not
//! survive their process.

use super::{
    Changes, Counts, Leaf, Meta, Page, Quarantined, Reads, Store, StoreError, Stored, View, Write,
    WriteId,
};
use crate::platform::MaybeSend;
use gosync_proto::{Content, Key, KeyRange};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

/// Keeps everything in memory. Clones share their data, as tabs share a
/// store.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    data: Arc<Mutex<Data>>,
}

#[derive(Debug, Default)]
struct Data {
    meta: Meta,
    clean: BTreeMap<Key, Stored>,
    writes: BTreeMap<WriteId, Write>,
    by_key: BTreeSet<(Key, WriteId)>,
    offers: BTreeSet<Key>,
    quarantine: BTreeMap<Key, Quarantined>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    fn with<T>(&self, f: impl FnOnce(&mut Data) -> T) -> T {
        // changes are applied by code that cannot panic half-way
        f(&mut self.data.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn bounds<'a>(range: &'a KeyRange, after: Option<&'a Key>) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    let (start, end) = range.bounds();
    match after {
        Some(key) if key.as_bytes() >= range.start() => (Bound::Excluded(key.as_bytes()), end),
        _ => (start, end),
    }
}

/// `BTreeMap::range` panics when the bounds are inverted, as they are once the
/// last key of a range was passed.
fn is_empty((start, end): (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    match (start, end) {
        (Bound::Excluded(s), Bound::Excluded(e)) => s >= e,
        _ => false,
    }
}

impl Data {
    fn writes_of(&self, range: &KeyRange, after: Option<&Key>) -> Vec<Write> {
        let mut out: Vec<Write> = self
            .writes
            .values()
            .filter(|w| {
                range.contains(w.record.key.as_bytes()) && after.is_none_or(|a| w.record.key > *a)
            })
            .cloned()
            .collect();
        out.sort_by_key(|w| w.id);
        out
    }

    fn page(&self, range: &KeyRange, after: Option<&Key>, limit: usize) -> Page {
        let bounds = bounds(range, after);
        if is_empty(bounds) {
            return Page::default();
        }
        let limit = limit.max(1);
        let mut rows = self.clean.range::<[u8], _>(bounds);
        let clean: Vec<Stored> = rows.by_ref().take(limit).map(|(_, s)| s.clone()).collect();
        let next = rows
            .next()
            .and_then(|_| clean.last().map(|s| s.record.key.clone()));
        let covered = |key: &Key| next.as_ref().is_none_or(|n| key <= n);
        let mut writes = self.writes_of(range, after);
        writes.retain(|w| covered(&w.record.key));
        let quarantine = self
            .quarantine
            .range::<[u8], _>(bounds)
            .map(|(_, q)| q.clone())
            .filter(|q| covered(&q.record.key))
            .collect();
        Page {
            clean,
            writes,
            quarantine,
            next,
        }
    }

    fn view(&self, reads: &Reads) -> View {
        let mut view = View {
            meta: self.meta.clone(),
            ..View::default()
        };
        for key in &reads.keys {
            if let Some(s) = self.clean.get(key) {
                view.clean.insert(key.clone(), s.clone());
            }
            if let Some(q) = self.quarantine.get(key) {
                view.quarantine.insert(key.clone(), q.clone());
            }
            if self.offers.contains(key) {
                view.offers.insert(key.clone());
            }
            let ids = (key.clone(), WriteId(0))..=(key.clone(), WriteId(u64::MAX));
            for (_, id) in self.by_key.range(ids) {
                if let Some(w) = self.writes.get(id) {
                    view.writes.insert(*id, w.clone());
                }
            }
        }
        for range in &reads.ranges {
            let page = self.page(range, None, usize::MAX);
            view.clean
                .extend(page.clean.into_iter().map(|s| (s.record.key.clone(), s)));
            view.writes
                .extend(page.writes.into_iter().map(|w| (w.id, w)));
            view.quarantine.extend(
                page.quarantine
                    .into_iter()
                    .map(|q| (q.record.key.clone(), q)),
            );
            view.offers
                .extend(self.offers.range::<[u8], _>(range.bounds()).cloned());
        }
        for id in &reads.writes {
            if let Some(w) = self.writes.get(id) {
                view.writes.insert(*id, w.clone());
            }
        }
        if reads.all_writes {
            view.writes = self.writes.clone();
        }
        view.offers
            .extend(self.offers.iter().take(reads.offers).cloned());
        if reads.all_quarantined {
            view.quarantine = self.quarantine.clone();
        }
        view
    }

    fn apply(&mut self, changes: Changes) {
        if let Some(meta) = changes.meta {
            self.meta = meta;
        }
        for key in changes.remove {
            self.clean.remove(&key);
        }
        for s in changes.put {
            self.clean.insert(s.record.key.clone(), s);
        }
        for id in changes.remove_writes {
            if let Some(w) = self.writes.remove(&id) {
                self.by_key.remove(&(w.record.key, id));
            }
        }
        for w in changes.put_writes {
            self.by_key.insert((w.record.key.clone(), w.id));
            let old = self.writes.insert(w.id, w.clone());
            if let Some(old) = old.filter(|old| old.record.key != w.record.key) {
                self.by_key.remove(&(old.record.key, old.id));
            }
        }
        for key in changes.remove_offers {
            self.offers.remove(&key);
        }
        self.offers.extend(changes.put_offers);
        for key in changes.remove_quarantine {
            self.quarantine.remove(&key);
        }
        for q in changes.put_quarantine {
            self.quarantine.insert(q.record.key.clone(), q);
        }
    }
}

impl Store for MemoryStore {
    async fn transact<T, F>(&self, reads: Reads, decide: F) -> Result<T, StoreError>
    where
        T: MaybeSend + 'static,
        F: FnOnce(&View) -> (Changes, T) + MaybeSend + 'static,
    {
        Ok(self.with(|data| {
            let (changes, result) = decide(&data.view(&reads));
            data.apply(changes);
            result
        }))
    }

    async fn page(
        &self,
        range: &KeyRange,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        Ok(self.with(|data| data.page(range, after, limit)))
    }

    async fn leaves(
        &self,
        range: &KeyRange,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Leaf>, StoreError> {
        let bounds = bounds(range, after);
        if is_empty(bounds) {
            return Ok(Vec::new());
        }
        Ok(self.with(|data| {
            let rows = data.clean.range::<[u8], _>(bounds);
            rows.take(limit.max(1))
                .map(|(_, s)| Leaf::from(s))
                .collect()
        }))
    }

    async fn writes(&self, after: Option<WriteId>, limit: usize) -> Result<Vec<Write>, StoreError> {
        Ok(self.with(|data| {
            let above = after.map_or(Bound::Unbounded, Bound::Excluded);
            let rows = data.writes.range((above, Bound::Unbounded));
            rows.take(limit).map(|(_, w)| w.clone()).collect()
        }))
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        Ok(self.with(|data| {
            let waiting = data.writes.values().filter(|w| w.is_waiting()).count();
            Counts {
                waiting: waiting as u64,
                rejected: (data.writes.len() - waiting) as u64,
                in_doubt: data.writes.values().filter(|w| w.in_doubt).count() as u64,
                offers: data.offers.len() as u64,
                quarantined: data.quarantine.len() as u64,
            }
        }))
    }

    async fn damage(&self, keys: &[Key]) -> Result<(), StoreError> {
        self.with(|data| {
            for key in keys {
                if let Some(s) = data.clean.get_mut(key) {
                    let mut value = s.record.content.value().to_vec();
                    match value.first_mut() {
                        Some(byte) => *byte ^= 0xff,
                        None => value.push(0xff),
                    }
                    s.record.content = Content::Put(value.into());
                }
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_memory_store_keeps_the_contract() {
        let places: Mutex<BTreeMap<String, MemoryStore>> = Mutex::default();
        super::super::contract::check("memory", async |name| {
            places.lock().unwrap().entry(name).or_default().clone()
        })
        .await;
    }
}
