//! What a device keeps its records in, whoever opens it: the store in memory, or
//! the one over SQLite on a disk that loses or tears at a crash what was not
//! synced. No operation waits, as time is virtual. Knows nothing of sync.

use crate::chance::Chance;
use futures::executor::block_on;
use gosync_client::store::{
    Changes, Counts, Leaf, MemoryStore, Page, Reads, SqliteStore, Store, StoreError, View, Write,
    WriteId,
};
use gosync_faulty_disk::{Crash, Disk, Image};
use gosync_proto::{Key, KeyRange};

/// See the module. Clones are the same drive.
#[derive(Clone)]
pub struct Drive(Kind);

#[derive(Clone)]
enum Kind {
    Memory(MemoryStore),
    Sqlite(SqliteStore, Disk),
}

/// The file's name on the disk.
const FILE: &str = "device.db";

impl Drive {
    /// Empty, in memory.
    pub fn memory() -> Drive {
        Drive(Kind::Memory(MemoryStore::new()))
    }

    /// Empty, SQLite.
    ///
    /// # Errors
    /// The store cannot be made.
    pub fn sqlite() -> Result<Drive, StoreError> {
        Drive::on(Disk::new(Image::default()))
    }

    fn on(disk: Disk) -> Result<Drive, StoreError> {
        Ok(Drive(Kind::Sqlite(
            SqliteStore::open(disk.uri(FILE))?,
            disk,
        )))
    }

    /// An empty one of the same kind.
    ///
    /// # Errors
    /// The store cannot be made.
    pub fn another(&self) -> Result<Drive, StoreError> {
        match &self.0 {
            Kind::Memory(_) => Ok(Drive::memory()),
            Kind::Sqlite(..) => Drive::sqlite(),
        }
    }

    /// What is left once the device has died, opened again.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub fn crashed(&self, chance: &Chance) -> Result<Drive, StoreError> {
        match &self.0 {
            Kind::Memory(_) => Ok(self.clone()),
            // whoever has it open goes on with a disk that nobody reads again
            Kind::Sqlite(_, disk) => {
                let way = match chance.between(0, 3) {
                    0 => Crash::Lost,
                    1 => Crash::Kept,
                    _ => Crash::Torn(chance.bits()),
                };
                Drive::on(Disk::new(disk.crash(way)))
            }
        }
    }
}

/// The stores over SQLite work on threads of their own: this one waits for them,
/// so that nothing runs beside.
macro_rules! on {
    ($drive:expr, $store:ident => $operation:expr) => {
        match &$drive.0 {
            Kind::Memory($store) => $operation.await,
            Kind::Sqlite($store, _) => block_on($operation),
        }
    };
}

impl Store for Drive {
    async fn transact<T, F>(&self, reads: Reads, decide: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&View) -> (Changes, T) + Send + 'static,
    {
        on!(self, store => store.transact(reads, decide))
    }

    async fn page(
        &self,
        range: &KeyRange,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        on!(self, store => store.page(range, after, limit))
    }

    async fn leaves(
        &self,
        range: &KeyRange,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Leaf>, StoreError> {
        on!(self, store => store.leaves(range, after, limit))
    }

    async fn writes(&self, after: Option<WriteId>, limit: usize) -> Result<Vec<Write>, StoreError> {
        on!(self, store => store.writes(after, limit))
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        on!(self, store => store.counts())
    }

    async fn damage(&self, keys: &[Key]) -> Result<(), StoreError> {
        on!(self, store => store.damage(keys))
    }
}
