//! Opening a store, following the horizon, and verification: what is not part
//! of the exchange of records.

use super::{Outcome, fenced, set_aside};
use crate::store::{
    Changes, HeldRange, Leaf, Meta, NOBODY, Quarantined, Reads, Store, StoreError, View,
};
use gosync_proto::history::{Ancestry, HistoryStatus, Lineage};
use gosync_proto::limits::Limits;
use gosync_proto::{Key, KeyRange, RangeSet, Record, ReplicaId, SpaceId, Time, mutant};

/// How many leaves or records are read at once.
const PAGE: usize = 10_000;
/// How many records are hashed again between two looks at anything else.
const VERIFY_PAGE: usize = 1_000;

/// Binds a store to its space and ranges, at its opening. Ranges that were
/// held before keep their cursors; new ones begin without; records outside
/// stay in the store, and are no longer synced. Who talks to the server then
/// reads anew what is held.
///
/// # Errors
/// [`StoreError::OtherSpace`], or the store failed; nothing changed.
pub async fn bind<S: Store>(
    store: &S,
    space: SpaceId,
    ranges: RangeSet,
) -> Result<Meta, StoreError> {
    store
        .transact(Reads::meta(), move |view| {
            let mut meta = view.meta.clone();
            match &meta.space {
                Some(found) if found != space.as_str() => {
                    let error = StoreError::OtherSpace {
                        found: found.clone(),
                        wanted: space.to_string(),
                    };
                    return (Changes::default(), Err(error));
                }
                _ => meta.space = Some(space.to_string()),
            }
            let ranges = match mutant!(RangesNeverLeft) {
                true => {
                    let before = meta.ranges.iter().map(|h| &h.range);
                    RangeSet::union(before.chain(&ranges).cloned().collect())
                }
                false if mutant!(EverythingHeld) => RangeSet::all(),
                false => ranges,
            };
            meta.ranges = rebind(&meta.ranges, &ranges);
            if meta.ranges != view.meta.ranges {
                meta.snapshot = None;
                // whoever syncs knows the records of other ranges
                meta.active = NOBODY;
            }
            let changes = Changes {
                meta: (meta != view.meta).then(|| meta.clone()),
                ..Changes::default()
            };
            (changes, Ok(meta))
        })
        .await?
}

/// A wanted range keeps the cursor of a held one that covers it. The parts of
/// a wanted range that were held before stand apart from those that were not,
/// each with its own cursor.
fn rebind(held: &[HeldRange], wanted: &RangeSet) -> Vec<HeldRange> {
    let mut out = Vec::new();
    let held = if mutant!(RangesStartAnew) { &[] } else { held };
    for range in wanted {
        let mut from = range.start().to_vec();
        let mut open = true;
        for h in held {
            let Some(shared) = h.range.intersect(range) else {
                continue;
            };
            if let Ok(gap) = KeyRange::new(&from, Some(shared.start())) {
                out.push(unfollowed(gap));
            }
            match shared.end() {
                Some(end) => from = end.to_vec(),
                None => open = false,
            }
            out.push(HeldRange {
                range: shared,
                ..h.clone()
            });
        }
        if open && let Ok(rest) = KeyRange::new(&from, range.end()) {
            out.push(unfollowed(rest));
        }
    }
    if mutant!(NewRangeFollows) {
        let known = out.iter().find_map(|h| h.cursor);
        out.iter_mut().for_each(|h| h.cursor = h.cursor.or(known));
    }
    out
}

fn unfollowed(range: KeyRange) -> HeldRange {
    HeldRange {
        range,
        cursor: None,
        confirmed: None,
    }
}

/// What a session starts from.
#[derive(Clone, PartialEq, Debug)]
pub struct Loaded {
    /// The meta row.
    pub meta: Meta,
    /// Every leaf of the held ranges, in key order.
    pub leaves: Vec<Leaf>,
}

/// Takes over the exchange with the server for this opening, and reads what
/// fingerprints are computed from.
///
/// # Errors
/// The store failed.
pub async fn activate<S: Store>(store: &S, me: ReplicaId) -> Result<Loaded, StoreError> {
    let meta = store
        .transact(Reads::meta(), move |view| {
            let first = view.meta.active == NOBODY || !mutant!(FirstOpeningOnly);
            let meta = Meta {
                active: if first { me.0 } else { view.meta.active },
                ..view.meta.clone()
            };
            let changes = Changes {
                meta: Some(meta.clone()),
                ..Changes::default()
            };
            (changes, meta)
        })
        .await?;
    let mut leaves = leaves(store, &meta).await?;
    if mutant!(UnsentCounted) {
        let writes = store.writes(None, PAGE).await?.into_iter();
        count_also(&mut leaves, writes.map(|w| w.record).collect());
    }
    if mutant!(QuarantineCounted) {
        let reads = Reads {
            all_quarantined: true,
            ..Reads::default()
        };
        let aside = |view: &View| {
            let records = view.quarantine.values().map(|q| q.record.clone());
            records.collect()
        };
        let look = move |view: &View| (Changes::default(), aside(view));
        count_also(&mut leaves, store.transact(reads, look).await?);
    }
    Ok(Loaded { meta, leaves })
}

/// What fingerprints leave out, for mutants that do not.
fn count_also(leaves: &mut Vec<Leaf>, records: Vec<Record>) {
    for record in records {
        leaves.retain(|l| l.key != record.key);
        leaves.push(Leaf {
            digest: record.digest(),
            time: record.version.time,
            tombstone: record.is_tombstone(),
            key: record.key,
        });
    }
    leaves.sort_by(|a, b| a.key.cmp(&b.key));
}

async fn leaves<S: Store>(store: &S, meta: &Meta) -> Result<Vec<Leaf>, StoreError> {
    let mut leaves: Vec<Leaf> = Vec::new();
    for held in &meta.ranges {
        let mut after: Option<Key> = None;
        loop {
            let page = store.leaves(&held.range, after.as_ref(), PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            leaves.extend(page);
        }
    }
    Ok(leaves)
}

/// The horizon as a server told it.
#[derive(Clone, PartialEq, Debug)]
pub struct Horizon {
    /// Tombstones below this are gone from every fingerprint.
    pub time: Time,
    /// The server's lineage.
    pub ancestry: Ancestry,
    /// The replica's standing, by held range.
    pub statuses: Vec<HistoryStatus>,
    /// The replica's clean tombstones below it.
    pub tombstones: Vec<Key>,
    /// What the token may write.
    pub writable: RangeSet,
}

/// Follows the horizon: drops the clean tombstones below it whose point lies
/// in the server's present history, and offers the others.
///
/// # Errors
/// [`StoreError::Displaced`], or the store failed; nothing changed.
pub async fn follow_horizon<S: Store>(
    store: &S,
    me: ReplicaId,
    horizon: Horizon,
) -> Result<(Outcome, Meta), StoreError> {
    let reads = Reads::keys(horizon.tombstones.iter().cloned());
    let follow = move |view: &View| {
        let mut changes = Changes::default();
        let mut outcome = Outcome::default();
        for key in &horizon.tombstones {
            if mutant!(OldTombstonesKept) {
                break;
            }
            let Some(s) = view
                .clean
                .get(key)
                .filter(|s| s.record.is_tombstone() && s.record.version.time < horizon.time)
            else {
                continue;
            };
            let range = view
                .meta
                .ranges
                .iter()
                .position(|h| h.range.contains(key.as_bytes()));
            let lineage = range
                .and_then(|i| horizon.statuses.get(i))
                .map_or(Lineage::Unknown, |s| s.lineage);
            let known = horizon.ancestry.contains(view.meta.point_of(s), lineage)
                || mutant!(ForeignTombstoneForgotten);
            if !known && horizon.writable.contains(key.as_bytes()) {
                changes.put_offers.push(key.clone());
            } else {
                changes.remove.push(key.clone());
                changes.remove_offers.push(key.clone());
                outcome.leaves.push((key.clone(), None));
                if !known {
                    let aside = Quarantined::unwritable(s.record.clone());
                    set_aside(view, &mut changes, aside);
                }
            }
        }
        changes.meta = Some(Meta {
            horizon: horizon.time,
            ..view.meta.clone()
        });
        (changes, outcome)
    };
    fenced(store, me, reads, follow).await
}

/// What a look at every stored byte found.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Verified {
    /// Records whose content no longer matched its digest. They were removed,
    /// and come back from the server.
    pub damaged: Vec<Key>,
    /// How many records were hashed.
    pub records: u64,
    /// The leaves as they are stored, in key order.
    pub leaves: Vec<Leaf>,
}

/// Hashes every stored record of the held ranges again and removes what is
/// damaged.
///
/// # Errors
/// [`StoreError::Displaced`], or the store failed.
pub async fn verify<S: Store>(store: &S, me: ReplicaId) -> Result<Verified, StoreError> {
    let meta = store
        .transact(Reads::meta(), |view| {
            (Changes::default(), view.meta.clone())
        })
        .await?;
    let mut verified = Verified::default();
    for held in &meta.ranges {
        let mut after: Option<Key> = None;
        loop {
            let page = store.page(&held.range, after.as_ref(), VERIFY_PAGE).await?;
            verified.records += page.clean.len() as u64;
            let mut suspects = Vec::new();
            for s in &page.clean {
                if s.intact() || mutant!(VerifyLooksAtNothing) {
                    verified.leaves.push(Leaf::from(s));
                } else {
                    suspects.push(s.record.key.clone());
                }
            }
            if !suspects.is_empty() {
                verified
                    .damaged
                    .extend(remove_damaged(store, me, suspects).await?);
            }
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
    }
    Ok(verified)
}

/// Removes those of `suspects` that are damaged, and returns them.
///
/// # Errors
/// [`StoreError::Displaced`], or the store failed; nothing changed.
pub async fn remove_damaged<S: Store>(
    store: &S,
    me: ReplicaId,
    suspects: Vec<Key>,
) -> Result<Vec<Key>, StoreError> {
    let remove = |view: &View| {
        let damaged: Vec<Key> = view
            .clean
            .values()
            .filter(|s| !s.intact())
            .map(|s| s.record.key.clone())
            .collect();
        let changes = Changes {
            remove: damaged.clone(),
            remove_offers: damaged.clone(),
            ..Changes::default()
        };
        (changes, damaged)
    };
    let (damaged, _) = fenced(store, me, Reads::keys(suspects), remove).await?;
    Ok(damaged)
}

/// Forgets how far a bootstrap came, so that it is not resumed (SNAP-022).
///
/// # Errors
/// [`StoreError::Displaced`], or the store failed; nothing changed.
pub async fn forget_snapshot<S: Store>(store: &S, me: ReplicaId) -> Result<(), StoreError> {
    let forget = |view: &View| {
        let meta = Meta {
            snapshot: None,
            ..view.meta.clone()
        };
        let changes = Changes {
            meta: Some(meta),
            ..Changes::default()
        };
        (changes, ())
    };
    fenced(store, me, Reads::meta(), forget).await?;
    Ok(())
}

/// Notes the server's limits, and when the replica was last seen equal to it.
///
/// # Errors
/// The store failed.
pub async fn note<S: Store>(
    store: &S,
    limits: Option<Limits>,
    synced_ms: Option<u64>,
) -> Result<(), StoreError> {
    let drops = mutant!(StopDropsUnsent) || mutant!(MisbehaviourDropsUnsent);
    let stopped = drops && limits.is_none() && synced_ms.is_none();
    let reads = Reads {
        all_writes: stopped,
        ..Reads::meta()
    };
    store
        .transact(reads, move |view| {
            if stopped {
                let changes = Changes {
                    remove_writes: view.writes.keys().copied().collect(),
                    ..Changes::default()
                };
                return (changes, ());
            }
            let mut meta = view.meta.clone();
            meta.limits = limits.or(meta.limits);
            meta.last_synced_ms = synced_ms.or(meta.last_synced_ms);
            let changes = Changes {
                meta: (meta != view.meta).then_some(meta),
                ..Changes::default()
            };
            (changes, ())
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use gosync_proto::history::{Cursor, Epoch};

    fn range(a: &str, b: &str) -> KeyRange {
        KeyRange::new(a.as_bytes(), Some(b.as_bytes())).unwrap()
    }

    fn followed(range: KeyRange) -> HeldRange {
        HeldRange {
            range,
            cursor: Some(Cursor::origin(Epoch(1))),
            confirmed: None,
        }
    }

    #[test]
    fn an_added_range_begins_without_a_cursor_and_the_old_one_keeps_its_own() {
        let held = [followed(range("c", "f"))];
        let wanted = RangeSet::new(vec![range("a", "d"), range("e", "z")]).unwrap();
        assert_eq!(
            rebind(&held, &wanted),
            vec![
                unfollowed(range("a", "c")),
                followed(range("c", "d")),
                followed(range("e", "f")),
                unfollowed(range("f", "z")),
            ]
        );
    }

    #[test]
    fn the_same_ranges_keep_their_cursors() {
        let held = [HeldRange {
            range: KeyRange::all(),
            ..followed(range("a", "b"))
        }];
        assert_eq!(rebind(&held, &RangeSet::all()), held);
        assert_eq!(rebind(&[], &RangeSet::all()), [unfollowed(KeyRange::all())]);
    }
}
