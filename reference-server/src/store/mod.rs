//! The storage seam: what the server asks of a database, at the level of
//! meaning. Knows records, commits and history; must not know requests,
//! grants, clocks of its own or randomness (both come in as arguments).
//!
//! Every store keeps one contract, and one file of tests runs on each of them:
//! memory, SQLite and whatever comes later. What they promise:
//!
//! - A [`ReadTx`] sees one consistent state of one space, however long it
//!   lives and whatever is committed meanwhile.
//! - [`Store::write`] runs its work with the space locked against other
//!   writers. When the work fails, nothing of it remains. When `write`
//!   returns `Ok`, what was done is durable.
//! - Content whose digest no longer matches is never returned: it is skipped,
//!   and reported by [`ReadTx::take_damage`].
//!
//! All calls block. A server calls them on threads that may block.

#[cfg(test)]
pub(crate) mod contract;
#[cfg(test)]
mod failing;
pub mod memory;
pub mod sqlite;

use gosync_proto::history::{Ancestry, Cursor, Epoch, Position};
use gosync_proto::record::{Content, FLAG_TOMBSTONE, Record};
use gosync_proto::{Digest, Key, KeyRange, RangeSet, SpaceId, Time, Version, mutant};
use std::ops::ControlFlow;

/// Why a store could not do what was asked. Bad *requests* never get here.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is something else than a GoSync store.
    #[error(
        "{path} is not a GoSync database ({problem}); name another file, or move this one away"
    )]
    Foreign {
        /// Which file.
        path: String,
        /// How this was noticed.
        problem: String,
    },
    /// A newer server wrote the file.
    #[error(
        "{path} has schema version {found}, this server knows versions up to {known}; start the newer server, or restore a backup that the older one made"
    )]
    NewerSchema {
        /// Which file.
        path: String,
        /// Its version.
        found: i64,
        /// The newest version this code can use.
        known: i64,
    },
    /// The database found its own pages inconsistent.
    #[error(
        "the database is corrupt ({0}); stop the server, run `gosync-server verify`, and restore a backup if it reports errors"
    )]
    Corrupt(String),
    /// No space left, for the database or for its log.
    #[error("the disk is full ({0}); nothing was stored. Free some space and retry")]
    Full(String),
    /// Somebody else holds the database, or all readers are in use.
    #[error("the database is busy ({0}); retry")]
    Busy(String),
    /// A commit may or may not have reached the disk, so that no further
    /// write is accepted until the store is opened again. Reads go on.
    #[error(
        "writing stopped after a commit failed ({0}); nothing since was acknowledged. Check the disk, then restart the server"
    )]
    Poisoned(String),
    /// Anything else from the database or the file system.
    #[error("the database failed: {0}")]
    Failed(String),
    /// A caller of the seam broke its rules: a fault of this program.
    #[error("internal error of the server: {0}")]
    Misuse(&'static str),
}

/// What [`Store`] and its transactions return.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Whether a space can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpaceStatus {
    /// No authorised write has come yet. It reads as an empty space.
    Absent,
    /// In use.
    Active,
    /// Deleted for good; it stays known, so that a returning replica does not
    /// refill it.
    Retired,
}

/// Everything about a space that is not in its records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpaceState {
    /// Whether it can be used.
    pub status: SpaceStatus,
    /// The newest commit, and the horizon h.
    pub position: Position,
    /// M: the highest sequence of any compacted tombstone; 0 if none.
    pub compacted_through: u64,
    /// The highest version time ever committed.
    pub newest_time: Time,
    /// The highest reading of the server's own clock stored with a commit,
    /// Unix milliseconds.
    pub clock_ms: u64,
    /// Records, tombstones included.
    pub records: u64,
    /// Their key and value bytes.
    pub bytes: u64,
    /// Keys in quarantine: content that was found damaged.
    pub damaged: u64,
    /// Counts the times that records vanished without a commit (quarantine).
    /// What is cached for another count is void.
    pub generation: u64,
}

impl SpaceState {
    /// The clock by which this space judges versions: a wall clock that was set
    /// back does not go back for those whose records it already took.
    pub fn clock_reading(&self, wall_ms: u64) -> u64 {
        match mutant!(ClockForgotten) {
            false => self.clock_ms.max(wall_ms),
            true => wall_ms,
        }
    }

    /// The clock that replicas are told: the same, since they judge by it what
    /// this space took.
    pub fn told_time(&self, wall_ms: u64) -> u64 {
        match mutant!(PresentClockTold) {
            false => self.clock_reading(wall_ms),
            true => wall_ms,
        }
    }

    /// The state of a space that nobody has written to.
    pub fn absent(epoch: Epoch) -> SpaceState {
        SpaceState {
            status: SpaceStatus::Absent,
            position: Position {
                head: Cursor::origin(epoch),
                horizon: Time::ZERO,
            },
            compacted_through: 0,
            newest_time: Time::ZERO,
            clock_ms: 0,
            records: 0,
            bytes: 0,
            damaged: 0,
            generation: 0,
        }
    }

    /// The sequence of the newest commit.
    pub fn head(&self) -> u64 {
        self.position.head.point.sequence
    }
}

/// What a store knows of a record without loading its value. Not checked
/// against the content: only [`ReadTx::get`] and the scans do that.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kept {
    /// When it was committed.
    pub sequence: u64,
    /// Its version.
    pub version: Version,
    /// Whether it is a tombstone.
    pub tombstone: bool,
    /// Its digest, as computed when it was stored.
    pub digest: Digest,
    /// Key and value bytes.
    pub size: u64,
}

/// A record as it stands, its content checked against its digest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    /// The record.
    pub record: Record,
    /// Its digest.
    pub digest: Digest,
    /// When it was committed.
    pub sequence: u64,
}

/// A key and digest, for trees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyDigest<'a> {
    /// The key's bytes.
    pub key: &'a [u8],
    /// As computed when the record was stored.
    pub digest: Digest,
    /// Key and value bytes.
    pub size: u64,
    /// The version's time and whether it is a tombstone: together they say
    /// whether a fingerprint counts the record.
    pub time: Time,
    /// See `time`.
    pub tombstone: bool,
    /// When it was committed.
    pub sequence: u64,
}

impl KeyDigest<'_> {
    /// Whether fingerprints at `horizon` count this record.
    pub fn counts_at(&self, horizon: Time) -> bool {
        counts(self.tombstone, self.time, horizon)
    }
}

/// Whether fingerprints at `horizon` count a record of this time.
fn counts(tombstone: bool, time: Time, horizon: Time) -> bool {
    let old = time < horizon && !(mutant!(OldTombstonesInTree) || mutant!(HorizonWithoutEffect));
    !(tombstone && (old || mutant!(TombstonesOutOfTree)))
}

/// Content found damaged: its digest does not match.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The key under which it stands. It may itself be what was damaged, so
    /// it is not a checked [`Key`].
    pub key: Vec<u8>,
    /// The sequence of the damaged row.
    pub sequence: u64,
}

/// Whether a record of this version answers the question what became of
/// damaged content that was kept with the version `damaged`: an older one does
/// not, it stood there before. A version above `newest`, the newest that was
/// committed, was never written and is damaged itself: then any does.
fn answers_for(version: Version, damaged: Version, newest: Time) -> bool {
    version >= damaged || damaged.time > newest || mutant!(OlderHeals)
}

/// Checks the parts of a record as a database returned them: lengths, flags,
/// and the digest over all of it. The one place where stores decide what is
/// damaged.
fn intact(
    sequence: u64,
    key: &[u8],
    flags: i64,
    version: Version,
    digest: &[u8],
    value: &[u8],
) -> std::result::Result<Stored, Damage> {
    let damage = || Damage {
        key: key.to_vec(),
        sequence,
    };
    let content = match flags {
        0 => Content::Put(bytes::Bytes::copy_from_slice(value)),
        f if f == i64::from(FLAG_TOMBSTONE) && value.is_empty() => Content::Tombstone,
        _ => return Err(damage()),
    };
    let record = Record {
        key: Key::new(key).map_err(|_| damage())?,
        version,
        content,
    };
    let computed = record.digest();
    if computed.0 != *digest && !mutant!(DamageServed) {
        return Err(damage());
    }
    Ok(Stored {
        record,
        digest: computed,
        sequence,
    })
}

/// One consistent state of one space.
pub trait ReadTx {
    /// Everything about the space but its records.
    fn state(&mut self) -> Result<SpaceState>;

    /// The store's lineage, with the restore points of this space.
    fn ancestry(&mut self) -> Result<Ancestry>;

    /// The tag of the commit that ends at `sequence`.
    fn tag_at(&mut self, sequence: u64) -> Result<Option<u64>>;

    /// The newest commit that ends at or before `sequence`.
    fn commit_until(&mut self, sequence: u64) -> Result<Option<Cursor>>;

    /// What is kept under each key, values apart. In the order of `keys`.
    fn lookup(&mut self, keys: &[&Key]) -> Result<Vec<Option<Kept>>>;

    /// The record under a key. `None` when there is none or when it is
    /// damaged.
    fn get(&mut self, key: &Key) -> Result<Option<Stored>>;

    /// The records of `range` above `after` in key order, until `visit`
    /// breaks.
    fn scan(
        &mut self,
        range: &KeyRange,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(Stored) -> ControlFlow<()>,
    ) -> Result<()>;

    /// Keys and digests of `range` in key order, until `visit` breaks. Values
    /// are neither read nor checked.
    fn digests(
        &mut self,
        range: &KeyRange,
        visit: &mut dyn FnMut(KeyDigest<'_>) -> ControlFlow<()>,
    ) -> Result<()>;

    /// What was committed after `sequence` to keys in `ranges`, each record as
    /// it stands now, in order of commit, until `visit` breaks.
    fn changes(
        &mut self,
        sequence: u64,
        ranges: &RangeSet,
        visit: &mut dyn FnMut(Stored) -> ControlFlow<()>,
    ) -> Result<()>;

    /// As [`ReadTx::changes`], for all keys, without reading or checking
    /// values.
    fn changed_digests(
        &mut self,
        sequence: u64,
        visit: &mut dyn FnMut(KeyDigest<'_>) -> ControlFlow<()>,
    ) -> Result<()>;

    /// Keys in quarantine within `range`, in key order, at most `limit`.
    fn quarantined(&mut self, range: &KeyRange, limit: usize) -> Result<Vec<Vec<u8>>>;

    /// The damage that reads of this transaction met, each once; the caller
    /// hands it to [`WriteTx::quarantine`].
    fn take_damage(&mut self) -> Vec<Damage>;
}

/// A record to be stored.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The record.
    pub record: Record,
    /// Its digest.
    pub digest: Digest,
    /// What [`ReadTx::lookup`] said stands under its key, in the same
    /// transaction.
    pub replaces: Option<Kept>,
}

impl Applied {
    /// Whether fingerprints at `horizon` count this record.
    pub fn counts_at(&self, horizon: Time) -> bool {
        counts(
            self.record.is_tombstone(),
            self.record.version.time,
            horizon,
        )
    }
}

/// One compaction step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compaction {
    /// The new horizon; not below the present one.
    pub horizon: Time,
    /// Only tombstones that arrived at or before this time are removed, Unix
    /// milliseconds.
    pub arrived_until_ms: u64,
    /// At most so many.
    pub limit: usize,
}

/// One space, locked against other writers.
pub trait WriteTx: ReadTx {
    /// Stores the records in order as one commit: consecutive sequences, and
    /// `tag` at their end. Creates the space if need be. No key may occur
    /// twice; `records` may be empty, then nothing happens. What is in
    /// quarantine under their keys leaves it, unless it is newer. Returns the
    /// end of the commit.
    fn commit(&mut self, records: &[Applied], tag: u64, now_ms: u64) -> Result<Cursor>;

    /// Moves what is indeed damaged under these keys into quarantine and
    /// returns how many that were. Intact records are left alone. Of two under
    /// one key the newer stays there.
    fn quarantine(&mut self, damage: &[Damage], now_ms: u64) -> Result<usize>;

    /// The lowest and the highest version time of the tombstones below `below`
    /// that arrived at or before `arrived_until_ms`.
    fn tombstone_times(
        &mut self,
        below: Time,
        arrived_until_ms: u64,
    ) -> Result<Option<(Time, Time)>>;

    /// Advances the horizon and removes tombstones below it. Returns how many
    /// were removed; M covers them.
    fn compact(&mut self, step: Compaction) -> Result<usize>;

    /// Counts records and bytes anew, where a fault of the disk left the totals
    /// wrong.
    fn recount(&mut self) -> Result<()>;

    /// Deletes the space's content for good and marks it retired.
    fn retire(&mut self, now_ms: u64) -> Result<()>;
}

/// The work of one write transaction. It may run on another thread.
pub type Work = Box<dyn FnOnce(&mut dyn WriteTx) -> Result<()> + Send>;

/// A database of spaces.
pub trait Store: Send + Sync {
    /// The present epoch.
    fn epoch(&self) -> Result<Epoch>;

    /// Opens a consistent state of one space.
    fn read(&self, space: &SpaceId) -> Result<Box<dyn ReadTx + '_>>;

    /// Runs `work` in a transaction of one space. Returns after it is durable.
    /// Work of several callers may share one commit of the database; each
    /// succeeds or fails alone, unless that commit fails.
    fn write_boxed(&self, space: &SpaceId, work: Work) -> Result<()>;

    /// Whether nobody knows more than this store. A follower of another one is
    /// not: a cursor beyond its head asks for patience, not for healing.
    fn authoritative(&self) -> bool {
        true
    }

    /// Why nothing can be written any more, where that is so. For probes.
    fn poisoned(&self) -> Option<String> {
        None
    }

    /// Every space ever written to, by id.
    fn spaces(&self) -> Result<Vec<SpaceId>>;

    /// Begins a new epoch and notes, for every space, its head as the restore
    /// point of the old one. For restoring backups.
    fn begin_epoch(&self, epoch: Epoch, now_ms: u64) -> Result<()>;
}

impl dyn Store + '_ {
    /// [`Store::write_boxed`] with a result.
    ///
    /// # Errors
    /// Those of the work and of the store; then nothing was stored.
    pub fn write<T: Send + 'static>(
        &self,
        space: &SpaceId,
        work: impl FnOnce(&mut dyn WriteTx) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (put, taken) = std::sync::mpsc::sync_channel(1);
        self.write_boxed(
            space,
            Box::new(move |tx| {
                let result = work(tx)?;
                put.send(result)
                    .map_err(|_| StoreError::Misuse("nobody waits for the write"))
            }),
        )?;
        taken
            .recv()
            .map_err(|_| StoreError::Misuse("the store did not run the work"))
    }
}
