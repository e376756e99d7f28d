//! What the server keeps in memory of the spaces in use: the fingerprint tree
//! and the feed that wakes watchers. All of it can be dropped at any time; the
//! store alone is the truth. Knows no requests.
//!
//! A tree is never trusted to be current: each use opens a state of the store,
//! and the tree first reads what was committed since. So it is right also when
//! several servers write to one database.
//!
//! It has a node for each record, and no buckets that are read again on demand:
//! what is equal is compared without reading records, and all trees together
//! stay within `tree_memory_bytes`.

use crate::store::{Applied, ReadTx, Result, SpaceState, Store};
use gosync_proto::history::Cursor;
use gosync_proto::merkle::Tree;
use gosync_proto::{Digest, KeyRange, SpaceId, Time, mutant};
use std::collections::HashMap;
use std::ops::{ControlFlow, Deref};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::watch;

/// A tree is built anew after so many disputes: seldom enough to cost nothing,
/// soon enough to end what a fault of the memory might have begun.
const DISPUTES: u64 = 16;

/// A commit of so many records is hashed into the tree at once, while its
/// replica is busy with the answer: whoever asks next would wait for it. What
/// small commits change is hashed together when somebody asks.
const HASHED_AT_ONCE: usize = 256;

/// The spaces in use.
pub struct Spaces {
    spaces: Mutex<HashMap<SpaceId, Arc<Space>>>,
    tree_memory_bytes: u64,
    /// Ticks with each use, so that the least recently used tree is known.
    uses: AtomicU64,
}

struct Space {
    tree: RwLock<Option<CachedTree>>,
    /// Bytes of memory that the tree takes; 0 when there is none.
    size: AtomicU64,
    used: AtomicU64,
    disputes: AtomicU64,
    feed: watch::Sender<u64>,
}

/// The state of the store that a tree was made from.
#[derive(Clone, Copy, PartialEq, Eq)]
struct MadeFrom {
    head: Cursor,
    horizon: Time,
    generation: u64,
}

impl From<&SpaceState> for MadeFrom {
    fn from(state: &SpaceState) -> MadeFrom {
        MadeFrom {
            head: state.position.head,
            horizon: state.position.horizon,
            generation: state.generation,
        }
    }
}

/// The tree, for reading.
type Shared<'t> = RwLockReadGuard<'t, Option<CachedTree>>;

struct CachedTree {
    made_from: MadeFrom,
    tree: Tree,
    /// Whether no fingerprint in it waits to be computed.
    settled: bool,
}

/// What one commit did to a space.
pub struct Commit {
    /// The state that it met.
    pub before: SpaceState,
    /// The state that it left: nothing else was changed in between.
    pub after: SpaceState,
    /// What it stored.
    pub applied: Vec<Applied>,
}

impl Spaces {
    /// `tree_memory_bytes`: least recently used trees are dropped above this.
    pub fn new(tree_memory_bytes: u64) -> Spaces {
        Spaces {
            spaces: Mutex::new(HashMap::new()),
            tree_memory_bytes,
            uses: AtomicU64::new(0),
        }
    }

    fn space(&self, id: &SpaceId) -> Arc<Space> {
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        let space = spaces.entry(id.clone()).or_insert_with(|| {
            Arc::new(Space {
                tree: RwLock::new(None),
                size: AtomicU64::new(0),
                used: AtomicU64::new(0),
                disputes: AtomicU64::new(0),
                feed: watch::Sender::new(0),
            })
        });
        let now = self.uses.fetch_add(1, Ordering::Relaxed) + 1;
        space.used.store(now, Ordering::Relaxed);
        space.clone()
    }

    /// Changes whenever something was committed to the space by this process.
    pub fn feed(&self, id: &SpaceId) -> watch::Receiver<u64> {
        self.space(id).feed.subscribe()
    }

    /// Wakes those who wait on the feed. Called after each commit.
    pub fn committed(&self, id: &SpaceId) {
        let spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(space) = spaces.get(id) {
            space.feed.send_modify(|n| *n = n.wrapping_add(1));
        }
    }

    /// Brings the kept tree over a commit of this process, so that a later
    /// question need not read what it wrote. A tree that is of another state is
    /// left as it is: that question brings it up to date.
    pub fn advance(&self, id: &SpaceId, commit: &Commit) {
        let space = self.space(id);
        let mut slot = write(&space.tree);
        let before = MadeFrom::from(&commit.before);
        if let Some(mut cached) = slot.take_if(|cached| cached.made_from == before) {
            let horizon = commit.before.position.horizon;
            for a in &commit.applied {
                let key = a.record.key.as_bytes();
                follow(&mut cached.tree, key, a.digest, a.counts_at(horizon));
            }
            cached.made_from = (&commit.after).into();
            cached.settled = commit.applied.len() >= HASHED_AT_ONCE;
            if cached.settled {
                cached.tree.settle();
                let memory = cached.tree.memory() as u64;
                space.size.store(memory, Ordering::Relaxed);
            }
            *slot = Some(cached);
        }
    }

    /// Opens a state of the store and hands it on with the tree of exactly
    /// that state. `question` should be quick: it keeps others from updating
    /// the tree.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn with_tree<'s, T>(
        &self,
        store: &'s dyn Store,
        id: &SpaceId,
        question: impl FnOnce(&Tree, &mut (dyn ReadTx + 's)) -> T,
    ) -> Result<(T, Box<dyn ReadTx + 's>)> {
        let space = self.space(id);
        let result = {
            let (cached, mut tx) = space.current(store, id)?;
            match cached.deref() {
                Some(cached) => Ok((question(&cached.tree, &mut *tx), tx)),
                None => Err(crate::store::StoreError::Misuse("the tree was not made")),
            }
        };
        drop(space);
        self.tidy(id);
        result
    }

    /// Notes that a replica compares a range of the space with full
    /// fingerprints: it did not come to agree with this server by short ones.
    /// When that happens again and again, the tree is dropped, so that the
    /// next question builds it anew from the records.
    pub fn disputed(&self, id: &SpaceId) {
        let disputes = self.space(id).disputes.fetch_add(1, Ordering::Relaxed) + 1;
        if disputes.is_multiple_of(DISPUTES) {
            tracing::warn!(space = %id, disputes, "replicas keep disagreeing; the fingerprint tree is built anew");
            self.forget(id);
        }
    }

    /// Drops the tree of a space, as memory pressure would.
    pub fn forget(&self, id: &SpaceId) {
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(space) = spaces.get(id) {
            space.drop_tree();
            if idle(space) {
                spaces.remove(id);
            }
        }
    }

    /// Drops the least recently used trees until the rest fits, sparing that
    /// of `in_use`; and spaces of which nothing is kept.
    fn tidy(&self, in_use: &SpaceId) {
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        let size = |s: &Space| s.size.load(Ordering::Relaxed);
        let mut total: u64 = spaces.values().map(|s| size(s)).sum();
        if total <= self.tree_memory_bytes {
            return;
        }
        let mut by_use: Vec<_> = spaces
            .iter()
            .filter(|(id, s)| *id != in_use && size(s) > 0)
            .map(|(_, s)| (s.used.load(Ordering::Relaxed), s.clone()))
            .collect();
        by_use.sort_by_key(|(used, _)| *used);
        for (_, space) in by_use {
            if total <= self.tree_memory_bytes {
                break;
            }
            total -= size(&space);
            space.drop_tree();
        }
        spaces.retain(|id, s| id == in_use || !idle(s));
    }
}

impl Space {
    /// A state of the store, and the tree made current for it.
    fn current<'s>(
        &self,
        store: &'s dyn Store,
        id: &SpaceId,
    ) -> Result<(Shared<'_>, Box<dyn ReadTx + 's>)> {
        {
            let kept = self.tree.read().unwrap_or_else(PoisonError::into_inner);
            let mut tx = store.read(id)?;
            let now = MadeFrom::from(&tx.state()?);
            if kept
                .as_ref()
                .is_some_and(|c| c.made_from == now && c.settled)
            {
                return Ok((kept, tx));
            }
        }
        // The state is opened under the lock: it cannot be older than the tree.
        let mut slot = write(&self.tree);
        let mut tx = store.read(id)?;
        let state = tx.state()?;
        let updated = match slot.take() {
            Some(mut cached) if follows(&mut *tx, &cached.made_from, &state)? => {
                catch_up(&mut *tx, &mut cached.tree, &cached.made_from)?;
                cached.tree
            }
            _ => build(&mut *tx, &state)?,
        };
        self.size.store(updated.memory() as u64, Ordering::Relaxed);
        *slot = Some(CachedTree {
            made_from: (&state).into(),
            tree: updated,
            settled: true,
        });
        Ok((RwLockWriteGuard::downgrade(slot), tx))
    }

    fn drop_tree(&self) {
        *write(&self.tree) = None;
        self.size.store(0, Ordering::Relaxed);
    }
}

/// Whether nothing would be lost with it, and nobody is about to use it: asked
/// under the lock of the map, where alone it is handed out.
fn idle(space: &Arc<Space>) -> bool {
    space.size.load(Ordering::Relaxed) == 0
        && space.feed.receiver_count() == 0
        && Arc::strong_count(space) == 1
}

/// A panic while a tree was being changed cannot have left it in the slot:
/// changes are made to a tree that was taken out.
fn write(tree: &RwLock<Option<CachedTree>>) -> RwLockWriteGuard<'_, Option<CachedTree>> {
    tree.write().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a tree can be brought from its state to a newer one by reading the
/// changes between: not when a tombstone came and was compacted between, since
/// it left no change to be read, and the tree would keep what it deleted.
fn follows(tx: &mut dyn ReadTx, from: &MadeFrom, to: &SpaceState) -> Result<bool> {
    let (old, new) = (from.head, to.position.head);
    Ok(old.point.epoch == new.point.epoch
        && from.horizon == to.position.horizon
        && from.generation == to.generation
        && old.point.sequence <= new.point.sequence
        && to.compacted_through <= old.point.sequence
        && (old.point.sequence == 0 || tx.tag_at(old.point.sequence)? == Some(old.tag)))
}

fn catch_up(tx: &mut dyn ReadTx, tree: &mut Tree, from: &MadeFrom) -> Result<()> {
    tx.changed_digests(from.head.point.sequence, &mut |d| {
        follow(tree, d.key, d.digest, d.counts_at(from.horizon));
        ControlFlow::Continue(())
    })?;
    tree.settle();
    Ok(())
}

/// Brings one changed record into the tree.
fn follow(tree: &mut Tree, key: &[u8], digest: Digest, counts: bool) {
    if mutant!(TreeNotUpdated) {
        return;
    }
    if counts {
        tree.insert(key, digest);
    } else {
        tree.remove(key);
    }
}

fn build(tx: &mut dyn ReadTx, state: &SpaceState) -> Result<Tree> {
    let mut records = Vec::with_capacity(usize::try_from(state.records).unwrap_or(0));
    tx.digests(&KeyRange::all(), &mut |d| {
        if d.counts_at(state.position.horizon) {
            records.push((Box::<[u8]>::from(d.key), d.digest));
        }
        ControlFlow::Continue(())
    })?;
    Ok(Tree::from_sorted(records))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maintenance::{self, CompactOptions};
    use crate::store::memory::MemoryStore;
    use crate::store::{Applied, Store, contract};
    use gosync_proto::Key;
    use gosync_proto::history::Epoch;
    use gosync_proto::record::{Content, Record};
    use gosync_proto::version::{ReplicaId, Version};

    fn id(name: &str) -> SpaceId {
        SpaceId::new(name).unwrap()
    }

    fn records(keys: std::ops::Range<u32>) -> Vec<Applied> {
        keys.map(|i| {
            let record = Record {
                key: Key::new(i.to_be_bytes().to_vec()).unwrap(),
                version: Version {
                    time: Time(1),
                    replica: ReplicaId(1),
                },
                content: Content::Put(Default::default()),
            };
            Applied {
                digest: record.digest(),
                record,
                replaces: None,
            }
        })
        .collect()
    }

    fn fill(store: &dyn Store, space: &SpaceId, applied: Vec<Applied>) {
        store
            .write(space, move |tx| tx.commit(&applied, 7, 1))
            .unwrap();
    }

    fn count(spaces: &Spaces, store: &dyn Store, id: &SpaceId) -> u64 {
        let (count, _) = spaces
            .with_tree(store, id, |tree, _| tree.total().count)
            .unwrap();
        count
    }

    fn kept(spaces: &Spaces) -> Vec<String> {
        let spaces = spaces.spaces.lock().unwrap();
        let has = |s: &Arc<Space>| s.size.load(Ordering::Relaxed) > 0;
        let mut names: Vec<_> = spaces.iter().filter(|(_, s)| has(s)).collect();
        names.sort_by_key(|(id, _)| id.as_str().to_owned());
        names.into_iter().map(|(id, _)| id.to_string()).collect()
    }

    /// A replica that was behind the compaction confirmed a put that had been
    /// deleted, since the tree still had it, and later offered it again.
    #[test]
    fn a_tombstone_that_came_and_was_compacted_since_is_not_missed() {
        for make in [contract::memory, contract::sqlite] {
            let subject = make();
            let store = &*subject.store;
            let space = id("s");
            let write = |key: u8, time: u64, content| {
                let record = Record {
                    key: Key::new([key]).unwrap(),
                    version: Version {
                        time: Time(time),
                        replica: ReplicaId(1),
                    },
                    content,
                };
                store
                    .write(&space, move |tx| {
                        let applied = Applied {
                            digest: record.digest(),
                            replaces: tx.lookup(&[&record.key])?.remove(0),
                            record,
                        };
                        tx.commit(&[applied], 7, 1)
                    })
                    .unwrap();
            };
            let compact = || {
                let options = CompactOptions {
                    retention_ms: 0,
                    ..CompactOptions::default()
                };
                maintenance::compact(store, &space, 10, options).unwrap()
            };
            write(1, 5, Content::Put(Default::default()));
            write(2, 9, Content::Tombstone);
            write(3, 15, Content::Put(Default::default()));
            assert_eq!(compact().to, Time(10));
            let spaces = Spaces::new(u64::MAX);
            assert_eq!(count(&spaces, store, &space), 2);
            write(1, 7, Content::Tombstone);
            write(4, 20, Content::Put(Default::default()));
            let compacted = compact();
            assert_eq!((compacted.removed, compacted.to), (1, Time(10)));
            let keys = |tree: &Tree| -> Vec<u8> {
                let all = KeyRange::all();
                tree.iter(&all).map(|(key, _)| key[0]).collect()
            };
            let (kept, _) = spaces
                .with_tree(store, &space, |tree, _| keys(tree))
                .unwrap();
            assert_eq!(kept, [3, 4]);
        }
    }

    #[test]
    fn the_least_recently_used_trees_go_when_memory_is_short() {
        let store = MemoryStore::new(Epoch(1));
        let names = ["a", "b", "c"].map(id);
        for name in &names {
            fill(&store, name, records(0..100));
        }
        let roomy = Spaces::new(u64::MAX);
        count(&roomy, &store, &names[0]);
        let one = roomy.space(&names[0]).size.load(Ordering::Relaxed);
        let spaces = Spaces::new(one * 5 / 2);
        count(&spaces, &store, &names[0]);
        count(&spaces, &store, &names[1]);
        count(&spaces, &store, &names[0]);
        count(&spaces, &store, &names[2]);
        assert_eq!(kept(&spaces), ["a", "c"]);
        // one that is too large alone is still answered for
        fill(&store, &names[1], records(100..400));
        assert_eq!(count(&spaces, &store, &names[1]), 400);
        assert_eq!(kept(&spaces), ["b"]);
    }

    #[test]
    fn a_feed_survives_the_loss_of_its_tree() {
        let store = MemoryStore::new(Epoch(1));
        let space = id("a");
        fill(&store, &space, records(0..10));
        let spaces = Spaces::new(1);
        let mut feed = spaces.feed(&space);
        feed.mark_unchanged();
        count(&spaces, &store, &space);
        spaces.forget(&space);
        count(&spaces, &store, &id("b"));
        spaces.committed(&space);
        assert!(feed.has_changed().unwrap());
    }

    #[test]
    fn a_tree_follows_the_store_also_when_another_process_wrote() {
        let store = MemoryStore::new(Epoch(1));
        let space = id("a");
        let spaces = Spaces::new(u64::MAX);
        assert_eq!(count(&spaces, &store, &space), 0);
        fill(&store, &space, records(0..10));
        assert_eq!(count(&spaces, &store, &space), 10);
        // a restored store is another history: the tree starts anew
        let other = MemoryStore::new(Epoch(2));
        fill(&other, &space, records(0..3));
        assert_eq!(count(&spaces, &other, &space), 3);
    }

    /// A push does not make the next question read what it wrote, and a commit
    /// that does not follow on the tree's state changes nothing in it.
    #[test]
    fn a_tree_is_brought_over_the_commits_of_this_process() {
        let store = MemoryStore::new(Epoch(1));
        let space = id("a");
        let spaces = Spaces::new(u64::MAX);
        let state = || store.read(&space).unwrap().state().unwrap();
        let commit = |keys: std::ops::Range<u32>| {
            let before = state();
            let applied = records(keys);
            fill(&store, &space, applied.clone());
            Commit {
                before,
                after: state(),
                applied,
            }
        };
        assert_eq!(count(&spaces, &store, &space), 0);
        let [first, second, third] = [commit(0..10), commit(10..15), commit(15..17)];
        let kept = || {
            let slot = spaces.space(&space);
            let slot = slot.tree.read().unwrap();
            slot.as_ref().unwrap().tree.len()
        };
        spaces.advance(&space, &second);
        assert_eq!(kept(), 0);
        spaces.advance(&space, &first);
        assert_eq!(kept(), 10);
        spaces.advance(&space, &second);
        assert_eq!(kept(), 15);
        assert_eq!(count(&spaces, &store, &space), 17);
        spaces.advance(&space, &third);
        assert_eq!(kept(), 17);
        let fingerprint = |spaces: &Spaces| {
            let total = |tree: &Tree, _: &mut dyn ReadTx| tree.total();
            spaces
                .with_tree(&store, &space, |t, tx| total(t, tx))
                .unwrap()
                .0
        };
        assert_eq!(fingerprint(&spaces), fingerprint(&Spaces::new(u64::MAX)));
    }

    /// Whoever asks after a first push would wait for all of its hashes.
    #[test]
    fn a_large_commit_is_hashed_into_the_tree_at_once() {
        let store = MemoryStore::new(Epoch(1));
        let space = id("a");
        let spaces = Spaces::new(u64::MAX);
        count(&spaces, &store, &space);
        let state = || store.read(&space).unwrap().state().unwrap();
        for (keys, at_once) in [(0..255, false), (255..511, true), (511..512, false)] {
            let before = state();
            let applied = records(keys);
            fill(&store, &space, applied.clone());
            let after = state();
            spaces.advance(
                &space,
                &Commit {
                    before,
                    after,
                    applied,
                },
            );
            let slot = spaces.space(&space);
            let kept = slot.tree.read().unwrap();
            let cached = kept.as_ref().unwrap();
            assert_eq!(cached.settled, at_once);
            let size = slot.size.load(Ordering::Relaxed);
            assert!(!at_once || size == cached.tree.memory() as u64);
        }
        assert_eq!(count(&spaces, &store, &space), 512);
    }

    #[test]
    fn a_tree_that_is_disputed_again_and_again_is_built_anew() {
        let store = MemoryStore::new(Epoch(1));
        let space = id("a");
        fill(&store, &space, records(0..10));
        let spaces = Spaces::new(u64::MAX);
        count(&spaces, &store, &space);
        for _ in 1..DISPUTES {
            spaces.disputed(&space);
        }
        assert_eq!(kept(&spaces), ["a"]);
        spaces.disputed(&space);
        assert!(kept(&spaces).is_empty());
        assert_eq!(count(&spaces, &store, &space), 10);
    }
}
