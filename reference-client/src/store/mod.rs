//! The seam between a replica and what keeps its data: what a store must hold
//! and what it must do atomically. Knows no sync: what to change is decided by
//! the functions of [`crate::replica`], which run inside a store's transaction.
//!
//! A store holds
//! - **clean** records: acknowledged by the server or received from it, one
//!   per key, each with its digest;
//! - **writes** that the server has not acknowledged, in the order in which
//!   they were made: an overlay that reads see and fingerprints do not;
//! - **offers**: keys of clean records that the server lost and gets again;
//! - **quarantined** records: lost by the server, which this replica may not
//!   write or the server refused, each with the reason;
//! - one [`Meta`] row: clock, cursors, horizon, lineage.
//!
//! Every method sees one consistent state; [`Store::transact`] is atomic and
//! durable, also against other openings (tabs, processes) of the same store.

#[cfg(any(test, feature = "contract"))]
pub mod contract;
#[cfg(target_arch = "wasm32")]
mod indexeddb;
mod memory;
mod meta;
#[cfg(any(target_arch = "wasm32", test))]
mod pages;
#[cfg(not(target_arch = "wasm32"))]
mod sqlite;

#[cfg(target_arch = "wasm32")]
pub use indexeddb::IndexedDbStore;
pub use memory::MemoryStore;
pub use meta::{Confirmed, HeldRange, Meta, NOBODY, SCHEMA_VERSION, SnapshotProgress};
#[cfg(not(target_arch = "wasm32"))]
pub use sqlite::SqliteStore;

use crate::platform::{MaybeSend, MaybeSync};
use gosync_proto::history::Point;
use gosync_proto::{Content, Digest, Key, KeyRange, Reason, Record, Time, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

/// Names one unsent write. Rises with the order of writing; never reused
/// within a store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WriteId(pub u64);

impl std::fmt::Display for WriteId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A clean record as the store keeps it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    /// What is held.
    pub record: Record,
    /// The digest that was computed when the record was stored. Content that
    /// no longer matches it is damaged.
    pub digest: Digest,
    /// Where the server acknowledged or sent it.
    pub point: Point,
    /// The reconcile session count when it was stored: a range that was
    /// confirmed in a later session has a newer point for it.
    pub era: u64,
}

impl Stored {
    /// A record as it is stored first.
    pub fn new(record: Record, point: Point, era: u64) -> Stored {
        Stored {
            digest: record.digest(),
            record,
            point,
            era,
        }
    }

    /// Whether the content still matches its digest.
    pub fn intact(&self) -> bool {
        self.record.digest() == self.digest
    }
}

/// What a fingerprint needs to know of a clean record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// Its key.
    pub key: Key,
    /// Its kept digest.
    pub digest: Digest,
    /// The time of its version.
    pub time: Time,
    /// Whether it is a tombstone (below the horizon, fingerprints leave it
    /// out).
    pub tombstone: bool,
}

impl From<&Stored> for Leaf {
    fn from(s: &Stored) -> Leaf {
        Leaf {
            key: s.record.key.clone(),
            digest: s.digest,
            time: s.record.version.time,
            tombstone: s.record.is_tombstone(),
        }
    }
}

/// A write that the server has not acknowledged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// Its place in the order of writing.
    pub id: WriteId,
    /// The record to be pushed.
    pub record: Record,
    /// Its digest, computed when it was written: whoever pushes thousands of
    /// writes has to compute none.
    pub digest: Digest,
    /// Writes of one batch carry the id of its first: they are pushed
    /// together, all or none.
    pub batch: Option<WriteId>,
    /// What is known of it.
    pub state: WriteState,
    /// It had been sent without an answer when it was given a new version
    /// after a long absence: the server may have had it, and it may have been
    /// deleted there since.
    pub in_doubt: bool,
}

/// What is known of an unsent write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WriteState {
    /// Waits to be sent, or for an answer.
    Waiting,
    /// The server refused it; it stays until it is retried or discarded.
    Rejected {
        /// Why; `None` for a reason that this version does not know.
        reason: Option<Reason>,
        /// The server's sentence for people.
        detail: String,
    },
}

impl Write {
    /// A write that was never sent.
    pub fn new(id: WriteId, record: Record, batch: Option<WriteId>) -> Write {
        Write {
            id,
            digest: record.digest(),
            record,
            batch,
            state: WriteState::Waiting,
            in_doubt: false,
        }
    }

    /// The same write with a new version.
    pub fn restamped(&self, version: Version) -> Write {
        let record = Record {
            version,
            ..self.record.clone()
        };
        Write {
            digest: record.digest(),
            record,
            ..self.clone()
        }
    }

    /// Whether it waits for the server.
    pub fn is_waiting(&self) -> bool {
        self.state == WriteState::Waiting
    }
}

/// A clean record that the server does not have and will not get from here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quarantined {
    /// What the server lost.
    pub record: Record,
    /// Why it does not get it again; `None` for a reason that this version
    /// does not know.
    pub reason: Option<Reason>,
    /// A sentence for people.
    pub detail: String,
}

impl Quarantined {
    /// A record under a key that this replica may not write.
    pub fn unwritable(record: Record) -> Quarantined {
        Quarantined {
            record,
            reason: Some(Reason::NoAccess),
            detail: "the server lost this record, and the token does not allow to write it again"
                .into(),
        }
    }
}

/// What a transaction wants to see.
#[derive(Clone, Debug, Default)]
pub struct Reads {
    /// Everything held under these keys: clean, writes, offers, quarantined.
    pub keys: Vec<Key>,
    /// Everything held in these ranges.
    pub ranges: Vec<KeyRange>,
    /// These writes, where they still exist.
    pub writes: Vec<WriteId>,
    /// Every write.
    pub all_writes: bool,
    /// This many offers, lowest keys first (the keys, not the records).
    pub offers: usize,
    /// Every quarantined record.
    pub all_quarantined: bool,
}

impl Reads {
    /// Only the meta row, which every view has.
    pub fn meta() -> Reads {
        Reads::default()
    }

    /// Everything held under `keys`.
    pub fn keys(keys: impl IntoIterator<Item = Key>) -> Reads {
        Reads {
            keys: keys.into_iter().collect(),
            ..Reads::default()
        }
    }
}

/// What a transaction sees: at least what its [`Reads`] named.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The meta row.
    pub meta: Meta,
    /// Clean records.
    pub clean: BTreeMap<Key, Stored>,
    /// Unsent writes, in order.
    pub writes: BTreeMap<WriteId, Write>,
    /// Keys to be offered.
    pub offers: BTreeSet<Key>,
    /// Quarantined records.
    pub quarantine: BTreeMap<Key, Quarantined>,
}

/// What a transaction writes. Removals happen before puts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Replaces the meta row.
    pub meta: Option<Meta>,
    /// Clean records to remove.
    pub remove: Vec<Key>,
    /// Clean records to insert or replace.
    pub put: Vec<Stored>,
    /// Writes to remove.
    pub remove_writes: Vec<WriteId>,
    /// Writes to insert, or to replace by id.
    pub put_writes: Vec<Write>,
    /// Offers to remove.
    pub remove_offers: Vec<Key>,
    /// Offers to add; adding one twice is no error.
    pub put_offers: Vec<Key>,
    /// Quarantined records to remove.
    pub remove_quarantine: Vec<Key>,
    /// Quarantined records to insert or replace.
    pub put_quarantine: Vec<Quarantined>,
}

impl Changes {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }

    /// Each change by itself, as nobody but a mutant makes them.
    pub(crate) fn apart(self) -> Vec<Changes> {
        fn each<T>(list: Vec<T>, put: impl Fn(&mut Changes, T)) -> impl Iterator<Item = Changes> {
            list.into_iter().map(move |one| {
                let mut piece = Changes::default();
                put(&mut piece, one);
                piece
            })
        }
        let mut pieces = Vec::new();
        pieces.extend(each(self.remove_writes, |c, x| c.remove_writes.push(x)));
        pieces.extend(each(self.remove, |c, x| c.remove.push(x)));
        pieces.extend(each(self.put, |c, x| c.put.push(x)));
        pieces.extend(each(self.put_writes, |c, x| c.put_writes.push(x)));
        pieces.extend(each(self.remove_offers, |c, x| c.remove_offers.push(x)));
        pieces.extend(each(self.put_offers, |c, x| c.put_offers.push(x)));
        pieces.extend(each(self.remove_quarantine, |c, x| {
            c.remove_quarantine.push(x);
        }));
        pieces.extend(each(self.put_quarantine, |c, x| c.put_quarantine.push(x)));
        pieces.extend(each(Vec::from_iter(self.meta), |c, x| c.meta = Some(x)));
        pieces
    }
}

/// A consistent piece of everything that is held in a range, in key order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    /// Clean records, at most the limit.
    pub clean: Vec<Stored>,
    /// Writes under the keys that the page covers, in order of writing.
    pub writes: Vec<Write>,
    /// Quarantined records under the keys that the page covers.
    pub quarantine: Vec<Quarantined>,
    /// The last key that the page covers; `None` when it reaches the end of
    /// the range.
    pub next: Option<Key>,
}

/// How much a store holds beside its clean records.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Writes that wait for the server.
    pub waiting: u64,
    /// Writes that the server refused.
    pub rejected: u64,
    /// Of both, those that are in doubt: see [`Write::in_doubt`].
    pub in_doubt: u64,
    /// Records to be offered again.
    pub offers: u64,
    /// Records that the server lost and does not get again.
    pub quarantined: u64,
}

/// Keeps a replica's data. One per space and device; several openings of the
/// same store (tabs, processes) may exist.
pub trait Store: MaybeSend + MaybeSync + 'static {
    /// Reads, decides and writes in one transaction: what `decide` sees does
    /// not change before what it returns is durable. Empty [`Changes`] write
    /// nothing. `decide` runs at most once; its second result is handed back
    /// after the commit.
    ///
    /// # Errors
    /// Nothing was written, except for [`StoreError::InDoubt`].
    fn transact<T, F>(
        &self,
        reads: Reads,
        decide: F,
    ) -> impl Future<Output = Result<T, StoreError>> + MaybeSend
    where
        T: MaybeSend + 'static,
        F: FnOnce(&View) -> (Changes, T) + MaybeSend + 'static;

    /// What is held in `range` above `after`, with at most `limit` clean
    /// records (at least 1).
    fn page(
        &self,
        range: &KeyRange,
        after: Option<&Key>,
        limit: usize,
    ) -> impl Future<Output = Result<Page, StoreError>> + MaybeSend;

    /// At most `limit` leaves of the clean records in `range` above `after`,
    /// in key order, without a look at their values.
    fn leaves(
        &self,
        range: &KeyRange,
        after: Option<&Key>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Leaf>, StoreError>> + MaybeSend;

    /// At most `limit` writes above `after`, in order.
    fn writes(
        &self,
        after: Option<WriteId>,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Write>, StoreError>> + MaybeSend;

    /// Likewise, and has `work` look at them: on the store's own thread where
    /// there is one, so that what takes long keeps nobody else waiting.
    fn work_on_writes<T, F>(
        &self,
        after: Option<WriteId>,
        limit: usize,
        work: F,
    ) -> impl Future<Output = Result<T, StoreError>> + MaybeSend
    where
        T: MaybeSend + 'static,
        F: FnOnce(Vec<Write>) -> T + MaybeSend + 'static,
    {
        async move { Ok(work(self.writes(after, limit).await?)) }
    }

    /// How much is held.
    fn counts(&self) -> impl Future<Output = Result<Counts, StoreError>> + MaybeSend;

    /// Spoils the stored bytes of clean records without touching their kept
    /// digests, as a failing disk would: for demonstrations and tests. Keys
    /// that are not held are passed over.
    fn damage(&self, keys: &[Key]) -> impl Future<Output = Result<(), StoreError>> + MaybeSend;
}

/// Why a store could not do what it was asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    /// A newer version of the software wrote this store.
    #[error(
        "the store {store} has schema version {found}; this software knows up to {supported}: upgrade it, or open another store"
    )]
    NewerSchema {
        /// Which store.
        store: String,
        /// Its schema version.
        found: u32,
        /// The newest that is known here.
        supported: u32,
    },
    /// The store belongs to another space.
    #[error("the store holds the space {found}, not {wanted}: use one store for each space")]
    OtherSpace {
        /// The space whose data it holds.
        found: String,
        /// The space that it was opened for.
        wanted: String,
    },
    /// There is no room left.
    #[error("the device has no room left for the store ({0}): free some, then retry")]
    Full(String),
    /// What is not a record cannot be read.
    #[error("the store is damaged ({0}): restore it, or remove it and sync anew")]
    Corrupt(String),
    /// Another opening of the same store talks to the server now.
    #[error("another opening of this store talks to the server now")]
    Displaced,
    /// Another opening of the same store holds other ranges now: what is held has
    /// to be read again.
    #[error("another opening of this store holds other ranges now")]
    RangesChanged,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The device failed in some other way; nothing was written.
    #[error("the store failed: {0}")]
    Io(String),
    /// The device failed at the commit: what was to be written may or may not
    /// be there. Open the store again to find out.
    #[error("the store failed while it committed: {0}; open it again")]
    InDoubt(String),
}

/// Everything that is held under one key, and what a reader sees of it.
#[derive(Clone, Debug, Default)]
pub struct Held<'a> {
    /// The clean record.
    pub clean: Option<&'a Stored>,
    /// Its writes, in order.
    pub writes: Vec<&'a Write>,
    /// The quarantined record.
    pub quarantined: Option<&'a Quarantined>,
}

/// Where a record stands.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// The server has it.
    Clean,
    /// It is a write that the server has not taken.
    Write(&'a Write),
    /// The server lost it, and does not get it again.
    Quarantine,
}

impl<'a> Held<'a> {
    /// The record that counts, and where it stands: the greatest version of
    /// all that is intact, or else what is in quarantine.
    pub fn visible(&self) -> Option<(&'a Record, Source<'a>)> {
        let clean = self.clean.filter(|s| s.intact()).map(|s| &s.record);
        let clean = clean.map(|r| (r, Source::Clean));
        let writes = self.writes.iter().map(|w| (&w.record, Source::Write(w)));
        clean
            .into_iter()
            .chain(writes)
            .max_by_key(|(r, _)| r.version)
            .or(self.quarantined.map(|q| (&q.record, Source::Quarantine)))
    }
}

impl View {
    /// What is held under `key`.
    pub fn held(&self, key: &Key) -> Held<'_> {
        Held {
            clean: self.clean.get(key),
            writes: self
                .writes
                .values()
                .filter(|w| w.record.key == *key)
                .collect(),
            quarantined: self.quarantine.get(key),
        }
    }
}

impl Stored {
    /// A row as it was found. Parts that cannot be what was written make the
    /// record damaged, never an error: it is then treated as absent and
    /// healed.
    pub fn from_parts(
        key: Key,
        version: Version,
        tombstone: bool,
        value: bytes::Bytes,
        digest: &[u8],
        point: Point,
        era: u64,
    ) -> Stored {
        let content = match tombstone {
            true if value.is_empty() => Content::Tombstone,
            _ => Content::Put(value),
        };
        Stored {
            record: Record {
                key,
                version,
                content,
            },
            digest: Digest::try_from(digest).unwrap_or(Digest::ZERO),
            point,
            era,
        }
    }
}
