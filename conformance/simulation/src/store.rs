//! A device's store: the one in memory, slowed down, so that a device can die
//! before an operation, or after it was durable but before anybody knew; and
//! watched by the ledger. Knows nothing of sync.

use crate::chance::Chance;
use crate::executor::Executor;
use crate::ledger::Ledger;
use gosync_client::store::{
    Changes, Counts, Leaf, MemoryStore, Page, Reads, Store, StoreError, View, Write, WriteId,
};
use gosync_proto::{Key, KeyRange};

/// See the module.
#[derive(Clone)]
pub struct SimStore {
    device: usize,
    disk: MemoryStore,
    executor: Executor,
    chance: Chance,
    ledger: Ledger,
}

impl SimStore {
    /// Over what the device keeps.
    pub fn new(
        device: usize,
        disk: MemoryStore,
        executor: Executor,
        chance: Chance,
        ledger: Ledger,
    ) -> SimStore {
        SimStore {
            device,
            disk,
            executor,
            chance,
            ledger,
        }
    }

    async fn linger(&self) {
        if self.chance.permille(200) {
            self.executor.sleep(self.chance.skewed(20)).await;
        }
    }
}

impl Store for SimStore {
    async fn transact<T, F>(&self, reads: Reads, decide: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&View) -> (Changes, T) + Send + 'static,
    {
        self.linger().await;
        let watched = move |view: &View| {
            let (changes, result) = decide(view);
            let put = changes.put_writes.iter();
            let put: Vec<_> = put.map(|w| (w.id, w.record.clone())).collect();
            let stored: Vec<_> = changes.put.iter().map(|s| s.record.clone()).collect();
            let removed = changes.remove_writes.clone();
            (changes, (result, put, removed, stored))
        };
        let (result, put, removed, stored) = self.disk.transact(reads, watched).await?;
        self.ledger
            .stored(self.device, &self.disk, put, removed, stored);
        self.linger().await;
        Ok(result)
    }

    async fn page(
        &self,
        range: &KeyRange,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.linger().await;
        self.disk.page(range, after, limit).await
    }

    async fn leaves(
        &self,
        range: &KeyRange,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Leaf>, StoreError> {
        self.linger().await;
        self.disk.leaves(range, after, limit).await
    }

    async fn writes(&self, after: Option<WriteId>, limit: usize) -> Result<Vec<Write>, StoreError> {
        self.linger().await;
        self.disk.writes(after, limit).await
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        self.disk.counts().await
    }

    async fn damage(&self, keys: &[Key]) -> Result<(), StoreError> {
        self.disk.damage(keys).await
    }
}
