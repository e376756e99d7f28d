//! What the server keeps in memory of the spaces in use: the fingerprint tree
//! and the feed that wakes watchers. All of it can be dropped at any time; the
//! store alone is the truth. Knows no requests.
//!
//! A tree is never trusted to be current: each use opens a state of the store,
//! and the tree first reads what was committed since. So it is right also when
//! several servers write to one database.

use crate::store::{ReadTx, Result, SpaceState, Store};
use gosync_proto::history::Cursor;
use gosync_proto::merkle::Tree;
use gosync_proto::{KeyRange, SpaceId, Time};
use std::collections::HashMap;
use std::ops::{ControlFlow, Deref};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::watch;

/// What a record costs in a tree, roughly: 96 bytes and a key.
const BYTES_PER_RECORD: u64 = 144;

/// The spaces in use.
pub struct Spaces {
    spaces: Mutex<HashMap<SpaceId, Arc<Space>>>,
    tree_memory_bytes: u64,
    /// Ticks with each use, so that the least recently used tree is known.
    uses: AtomicU64,
}

struct Space {
    tree: RwLock<Option<CachedTree>>,
    /// Records in the tree; 0 when there is none.
    size: AtomicU64,
    used: AtomicU64,
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

    /// Drops the tree of a space, as memory pressure would.
    pub fn forget(&self, id: &SpaceId) {
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(space) = spaces.get(id) {
            space.drop_tree();
            if space.idle() {
                spaces.remove(id);
            }
        }
    }

    /// Drops the least recently used trees until the rest fits, sparing that
    /// of `in_use`; and spaces of which nothing is kept.
    fn tidy(&self, in_use: &SpaceId) {
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        let size = |s: &Space| s.size.load(Ordering::Relaxed) * BYTES_PER_RECORD;
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
        spaces.retain(|id, s| id == in_use || !s.idle());
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
            if kept.as_ref().is_some_and(|c| c.made_from == now) {
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
        self.size.store(updated.len() as u64, Ordering::Relaxed);
        *slot = Some(CachedTree {
            made_from: (&state).into(),
            tree: updated,
        });
        Ok((RwLockWriteGuard::downgrade(slot), tx))
    }

    fn drop_tree(&self) {
        *write(&self.tree) = None;
        self.size.store(0, Ordering::Relaxed);
    }

    /// Whether nothing would be lost with it.
    fn idle(&self) -> bool {
        self.size.load(Ordering::Relaxed) == 0 && self.feed.receiver_count() == 0
    }
}

/// A panic while a tree was being changed cannot have left it in the slot:
/// changes are made to a tree that was taken out.
fn write(tree: &RwLock<Option<CachedTree>>) -> RwLockWriteGuard<'_, Option<CachedTree>> {
    tree.write().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a tree can be brought from its state to a newer one by reading the
/// changes between.
fn follows(tx: &mut dyn ReadTx, from: &MadeFrom, to: &SpaceState) -> Result<bool> {
    let (old, new) = (from.head, to.position.head);
    Ok(old.point.epoch == new.point.epoch
        && from.horizon == to.position.horizon
        && from.generation == to.generation
        && old.point.sequence <= new.point.sequence
        && (old.point.sequence == 0 || tx.tag_at(old.point.sequence)? == Some(old.tag)))
}

fn catch_up(tx: &mut dyn ReadTx, tree: &mut Tree, from: &MadeFrom) -> Result<()> {
    tx.changed_digests(from.head.point.sequence, &mut |d| {
        if d.counts_at(from.horizon) {
            tree.insert(d.key, d.digest);
        } else {
            tree.remove(d.key);
        }
        ControlFlow::Continue(())
    })?;
    tree.settle();
    Ok(())
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
