//! The five calls as functions of (access, request, time, store): what a
//! request means, in which order it is judged, what the answer says. Must not
//! know networks, tokens, clocks or runtimes; time and entropy come in as
//! arguments, so that a simulation runs the same code in one thread.
//!
//! Each answer is computed from one state of the store, the status of the
//! replica's cursors included.

pub mod access;
mod hello;
mod push;
mod reconcile;
pub mod refusal;
mod snapshot;
pub mod standing;
#[cfg(test)]
mod tests;
mod watch;

pub use access::{Access, Right};
pub use refusal::Refusal;
pub use standing::Standing;
pub use watch::Watch;

use crate::space::Spaces;
use crate::store::{Damage, ReadTx, SpaceState, Store, StoreError};
use gosync_proto::limits::Limits;
use gosync_proto::merkle::Tree;
use gosync_proto::wire::{self, Held};
use gosync_proto::{KeyRange, SpaceId, mutant};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch as feed;

/// Where the tags of commits come from: 64 random bits a call.
pub type Entropy = Box<dyn Fn() -> u64 + Send + Sync>;

/// The size of a stream's message where the replica does not say.
const STREAM_MESSAGE_BYTES: u64 = 256 << 10;

/// Left in a message for a cursor and the lengths around the records.
const FRAME_BYTES: usize = 64;

/// So many ranges of damaged content an answer lists; nearby keys are joined
/// beyond that.
const WANTED_RANGES: usize = 256;

/// How a service behaves.
#[derive(Clone, Copy, Debug)]
pub struct ServiceConfig {
    /// What Hello advertises and every call enforces.
    pub limits: Limits,
    /// Trees of spaces are dropped, least recently used first, above this.
    pub tree_memory_bytes: u64,
}

impl Default for ServiceConfig {
    fn default() -> ServiceConfig {
        ServiceConfig {
            limits: Limits::default(),
            tree_memory_bytes: 512 << 20,
        }
    }
}

/// The server behind its network. A clone is another handle of the same.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    spaces: Spaces,
    config: ServiceConfig,
    entropy: Entropy,
    damage_found: AtomicU64,
}

impl Service {
    /// A service over a store.
    pub fn new(store: Arc<dyn Store>, config: ServiceConfig, entropy: Entropy) -> Service {
        Service(Arc::new(Inner {
            store,
            spaces: Spaces::new(config.tree_memory_bytes),
            config,
            entropy,
            damage_found: AtomicU64::new(0),
        }))
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.0.config.limits
    }

    /// Changes whenever this process commits something to the space.
    pub fn feed(&self, space: &SpaceId) -> feed::Receiver<u64> {
        self.0.spaces.feed(space)
    }

    /// What is kept in memory of the spaces.
    pub fn spaces(&self) -> &Spaces {
        &self.0.spaces
    }

    /// The store.
    pub fn store(&self) -> &dyn Store {
        &*self.0.store
    }

    /// How many damaged records calls have met and set aside.
    pub fn damage_found(&self) -> u64 {
        self.0.damage_found.load(Ordering::Relaxed)
    }

    fn entropy(&self) -> u64 {
        (self.0.entropy)()
    }

    /// A state of the store, and the answer to a question about the tree of
    /// that state.
    fn with_tree<T>(
        &self,
        space: &SpaceId,
        question: impl FnOnce(&Tree, &mut dyn ReadTx) -> T,
    ) -> Result<(T, Box<dyn ReadTx + '_>), StoreError> {
        self.0
            .spaces
            .with_tree(self.store(), space, |tree, tx| question(tree, tx))
    }

    /// Sets aside what a read found damaged, so that it reads as absent
    /// everywhere and is asked back from the replicas. Returns whether there
    /// was any.
    fn quarantine(
        &self,
        space: &SpaceId,
        damage: Vec<Damage>,
        now_ms: u64,
    ) -> Result<bool, StoreError> {
        if damage.is_empty() {
            return Ok(false);
        }
        report_damage(space, &damage);
        let moved = self
            .store()
            .write(space, move |tx| tx.quarantine(&damage, now_ms))?;
        self.0
            .damage_found
            .fetch_add(moved as u64, Ordering::Relaxed);
        self.0.spaces.committed(space);
        Ok(true)
    }

    /// The budget of the records in a stream's message: what was wished for,
    /// without what else the message holds.
    fn message_bytes(&self, wished: u32) -> usize {
        let most = self.limits().max_response_bytes;
        let bytes = match u64::from(wished) {
            0 => STREAM_MESSAGE_BYTES.min(most),
            wished => wished.min(most),
        };
        usize::try_from(bytes)
            .unwrap_or(usize::MAX)
            .saturating_sub(FRAME_BYTES)
    }
}

/// For people: which keys, not their content.
fn report_damage(space: &SpaceId, damage: &[Damage]) {
    for found in damage {
        tracing::error!(
            %space,
            key = %found.key.escape_ascii(),
            sequence = found.sequence,
            "stored content does not match its digest; it counts as absent and is asked back from the replicas"
        );
    }
}

/// Space and ranges of a request, checked against access and limits.
struct Asked {
    space: SpaceId,
    held: Vec<Held>,
}

impl Asked {
    fn check(
        service: &Service,
        access: &Access,
        space: &str,
        held: &[wire::HeldRanges],
    ) -> Result<Asked, Refusal> {
        let space = SpaceId::new(space)?;
        access.check_any()?;
        let held = Held::list_from_wire(held, service.limits().max_ranges)?;
        access.check_held(&held)?;
        Ok(Asked { space, held })
    }

    /// As [`Asked::check`], for calls that are about ranges.
    fn check_ranges(
        service: &Service,
        access: &Access,
        space: &str,
        held: &[wire::HeldRanges],
    ) -> Result<Asked, Refusal> {
        if held.is_empty() && !mutant!(RangesOptional) {
            return Err(gosync_proto::Invalid::malformed("held", "is empty").into());
        }
        Asked::check(service, access, space, held)
    }

    /// All ranges, in the order of the request.
    fn ranges(&self) -> impl Iterator<Item = &KeyRange> {
        self.held.iter().flat_map(|h| &h.ranges)
    }
}

/// Count and fingerprint of each range.
fn range_states<'a>(
    tree: &Tree,
    ranges: impl Iterator<Item = &'a KeyRange>,
) -> Vec<wire::RangeState> {
    ranges
        .map(|range| {
            let summary = tree.summary(range);
            wire::RangeState {
                count: summary.count,
                fingerprint: summary.fingerprint.0.to_vec(),
            }
        })
        .collect()
}

/// The damaged content within `ranges`: single keys, joined into wider ranges
/// where they are many. Too wide is harmless: it only keeps deletions from
/// being inferred.
fn wanted<'a>(
    tx: &mut dyn ReadTx,
    ranges: impl Iterator<Item = &'a KeyRange>,
) -> Result<Vec<KeyRange>, StoreError> {
    let mut wanted = Vec::new();
    if tx.state()?.damaged == 0 || mutant!(DamageNotWanted) {
        return Ok(wanted);
    }
    for range in ranges {
        let room = WANTED_RANGES.saturating_sub(wanted.len());
        let keys = tx.quarantined(range, room + 1)?;
        if keys.len() > room {
            wanted.push(range.clone());
            continue;
        }
        for key in keys {
            // keys that are themselves damaged need not be keys
            let end = [&key[..], &[0]].concat();
            wanted.extend(KeyRange::new(&key, Some(&end)).ok());
        }
    }
    Ok(wanted)
}

/// The position that goes with fingerprints: it names their horizon.
fn told_position(state: &SpaceState) -> wire::Position {
    let mut told = state.position.to_wire();
    if mutant!(HorizonUnnamed) {
        told.horizon = 0;
    }
    told
}

fn ranges_to_wire(ranges: &[KeyRange]) -> Vec<wire::Range> {
    let mut told: Vec<wire::Range> = ranges.iter().map(Into::into).collect();
    if mutant!(WantedTwice) {
        told.extend_from_within(..);
    }
    told
}
