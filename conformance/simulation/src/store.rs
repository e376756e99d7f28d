//! A device's store: its drive, slowed down, so that a device can die
//! before an operation, or after it was durable but before anybody knew; on a
//! disk that fails now and then; and watched by the ledger. Knows nothing of
//! sync.

use crate::chance::Chance;
use crate::drive::Drive;
use crate::executor::Executor;
use crate::failing::Failing;
use crate::ledger::{Done, Ledger};
use gosync_client::store::{
    Changes, Counts, Leaf, Page, Reads, Store, StoreError, View, Write, WriteId,
};
use gosync_proto::{Key, KeyRange};

/// See the module.
#[derive(Clone)]
pub struct SimStore {
    device: usize,
    disk: Drive,
    failing: Failing,
    executor: Executor,
    chance: Chance,
    ledger: Ledger,
}

/// What a simulated disk says of itself.
const FAILED: &str = "the simulated disk failed";

/// Whether an error is one that a simulated disk made.
pub fn is_simulated(error: &StoreError) -> bool {
    use StoreError::{Full, InDoubt, Io};
    matches!(error, Full(why) | Io(why) | InDoubt(why) if why == FAILED)
}

impl SimStore {
    /// Over what the device keeps, on a disk that fails like that.
    pub fn new(
        device: usize,
        disk: Drive,
        failing: Failing,
        executor: Executor,
        chance: Chance,
        ledger: Ledger,
    ) -> SimStore {
        SimStore {
            device,
            disk,
            failing,
            executor,
            chance,
            ledger,
        }
    }

    /// An operation begins: it takes time, and may fail.
    async fn begin(&self) -> Result<(), StoreError> {
        self.linger().await;
        match self.failing.strikes(&self.chance) {
            false => Ok(()),
            true if self.chance.permille(300) => Err(StoreError::Full(FAILED.into())),
            true => Err(StoreError::Io(FAILED.into())),
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
        self.begin().await?;
        // the commit fails: what it was to write is there, or is not
        let doubtful = self.failing.strikes(&self.chance);
        let lost = doubtful && self.chance.permille(500);
        let watched = move |view: &View| {
            let (changes, result) = decide(view);
            let changes = match lost {
                true => Changes::default(),
                false => changes,
            };
            let writes = !changes.is_empty() || lost;
            let done = Done::of(&changes, view);
            (changes, (result, writes, done))
        };
        let (result, writes, done) = self.disk.transact(reads, watched).await?;
        let now = self.executor.now_ms();
        self.ledger.stored(self.device, &self.disk, done, now);
        self.linger().await;
        match doubtful && writes {
            true => Err(StoreError::InDoubt(FAILED.into())),
            false => Ok(result),
        }
    }

    async fn page(
        &self,
        range: &KeyRange,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.begin().await?;
        self.disk.page(range, after, limit).await
    }

    async fn leaves(
        &self,
        range: &KeyRange,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Leaf>, StoreError> {
        self.begin().await?;
        self.disk.leaves(range, after, limit).await
    }

    async fn writes(&self, after: Option<WriteId>, limit: usize) -> Result<Vec<Write>, StoreError> {
        self.begin().await?;
        self.disk.writes(after, limit).await
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        self.begin().await?;
        self.disk.counts().await
    }

    async fn damage(&self, keys: &[Key]) -> Result<(), StoreError> {
        self.disk.damage(keys).await
    }
}
