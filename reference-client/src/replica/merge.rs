//! How records from the server change what is held: merge with the clean
//! record, and with writes and quarantined records under the same key.

use super::{Fate, Outcome, Settled, fenced};
use crate::store::{Changes, Leaf, Meta, Reads, Store, StoreError, Stored, View, Write};
use gosync_proto::history::{Cursor, Point};
use gosync_proto::{Digest, Key, Merge, Record, ReplicaId, mutant};
use std::collections::HashMap;

/// Records that the server sent.
#[derive(Clone, PartialEq, Debug)]
pub struct Incoming {
    /// Each with the point at which it counts as received.
    pub records: Vec<(Record, Point)>,
    /// How far the replica has followed once they are stored: by index of the
    /// held range.
    pub cursors: Vec<(usize, Cursor)>,
    /// Where an interrupted bootstrap would go on.
    pub snapshot: Option<crate::store::SnapshotProgress>,
}

/// What merging did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Merged {
    /// What changed.
    pub outcome: Outcome,
    /// Keys under which the replica holds a newer clean record than the server
    /// sent.
    pub ahead: Vec<Key>,
}

/// Merges what the server sent, in one transaction with the cursors.
///
/// # Errors
/// [`StoreError::Displaced`], or the store failed; nothing changed.
pub async fn merge<S: Store>(
    store: &S,
    me: ReplicaId,
    incoming: Incoming,
) -> Result<(Merged, Meta), StoreError> {
    let reads = Reads::keys(incoming.records.iter().map(|(r, _)| r.key.clone()));
    fenced(store, me, reads, |view| decide(view, incoming)).await
}

/// [`merge`] as a function of the view.
pub fn decide(view: &View, incoming: Incoming) -> (Changes, Merged) {
    let mut merger = Merger::new(view);
    for (record, point) in incoming.records {
        merger.take(record, point);
    }
    let mut meta = view.meta.clone();
    for (i, cursor) in incoming.cursors {
        if let Some(held) = meta.ranges.get_mut(i) {
            held.cursor = Some(cursor);
        }
    }
    if mutant!(SnapshotOverwrites) && incoming.snapshot.is_some() {
        merger.changes.remove_writes.extend(view.writes.keys());
    }
    if incoming.snapshot.is_some() {
        meta.snapshot = incoming.snapshot;
    }
    if meta != view.meta {
        merger.changes.meta = Some(meta);
    }
    (merger.changes, merger.merged)
}

/// Collects the changes of one transaction. Each key may come several times;
/// the later ones see what the earlier ones did.
pub struct Merger<'a> {
    view: &'a View,
    keys: HashMap<Key, Under<'a>>,
    /// What has to be written.
    pub changes: Changes,
    /// What to tell.
    pub merged: Merged,
}

/// What there is under a key, so far.
#[derive(Default)]
struct Under<'a> {
    /// Its writes, in order.
    writes: Vec<&'a Write>,
    /// Where in `changes.put` it was put.
    placed: Option<usize>,
}

impl<'a> Merger<'a> {
    /// Of a view that holds everything under the keys to come.
    pub fn new(view: &'a View) -> Merger<'a> {
        let mut keys: HashMap<Key, Under<'_>> = HashMap::with_capacity(view.writes.len());
        for w in view.writes.values() {
            let under = keys.entry(w.record.key.clone()).or_default();
            under.writes.push(w);
        }
        Merger {
            view,
            keys,
            changes: Changes::default(),
            merged: Merged::default(),
        }
    }

    /// The view's meta row.
    pub fn meta(&self) -> &'a Meta {
        &self.view.meta
    }

    /// A record that the server holds, as it was at `point`.
    pub fn take(&mut self, record: Record, point: Point) {
        self.merge(record, None, point);
    }

    /// Likewise, one whose digest was computed before.
    pub fn take_known(&mut self, record: Record, digest: Digest, point: Point) {
        self.merge(record, Some(digest), point);
    }

    fn merge(&mut self, record: Record, digest: Option<Digest>, point: Point) {
        if record.is_tombstone() && digest.is_none() && mutant!(TombstonesIgnored) {
            return;
        }
        let key = record.key.clone();
        let under = self.keys.entry(key.clone()).or_default();
        let beats = |w: &&Write| record.merge_against(&w.record) == Merge::Wins;
        if mutant!(UnsentShields) && under.writes.iter().any(beats) {
            return;
        }
        settle_writes(
            &mut under.writes,
            &record,
            &mut self.changes,
            &mut self.merged.outcome,
        );
        settle_quarantine(
            self.view,
            &record,
            &mut self.changes,
            &mut self.merged.outcome,
        );
        let held = match under.placed {
            Some(i) => Some(&self.changes.put[i]),
            // damaged content counts as absent
            None => {
                let held = self.view.clean.get(&key);
                held.filter(|s| s.intact() || mutant!(DamageKept))
            }
        };
        let merge = match held {
            Some(held) if mutant!(VersionIsIdentity) && held.record.version == record.version => {
                Merge::Same
            }
            Some(held) if !mutant!(ServerAlwaysWins) => record.merge_against(&held.record),
            _ => Merge::Wins,
        };
        match merge {
            Merge::Loses => {
                self.merged.ahead.push(key);
                return;
            }
            Merge::Same => {}
            Merge::Wins => {
                let stored = Stored {
                    digest: digest.unwrap_or_else(|| record.digest()),
                    record,
                    point,
                    era: self.view.meta.era,
                };
                let leaf = Leaf::from(&stored);
                self.merged.outcome.leaves.push((key.clone(), Some(leaf)));
                self.merged.outcome.changed.push(key.clone());
                match under.placed {
                    Some(i) => self.changes.put[i] = stored,
                    None => {
                        under.placed = Some(self.changes.put.len());
                        self.changes.put.push(stored);
                    }
                }
            }
        }
        // the server holds this record or a newer one
        if self.view.offers.contains(&key) {
            self.changes.remove_offers.push(key);
        }
    }
}

/// Removes the writes that the record equals or beats.
fn settle_writes(
    writes: &mut Vec<&Write>,
    record: &Record,
    changes: &mut Changes,
    outcome: &mut Outcome,
) {
    writes.retain(|w| {
        let fate = match record.merge_against(&w.record) {
            Merge::Loses => return true,
            Merge::Same => Fate::Applied,
            Merge::Wins if mutant!(BeatenWritesStay) => return true,
            Merge::Wins => Fate::Superseded,
        };
        changes.remove_writes.push(w.id);
        outcome.settled.push(Settled {
            id: w.id,
            key: record.key.clone(),
            fate,
        });
        outcome.changed.push(record.key.clone());
        false
    });
}

fn settle_quarantine(view: &View, record: &Record, changes: &mut Changes, outcome: &mut Outcome) {
    let aside = view.quarantine.get(&record.key);
    if aside.is_some_and(|q| record.merge_against(&q.record) != Merge::Loses) {
        changes.remove_quarantine.push(record.key.clone());
        outcome.changed.push(record.key.clone());
    }
}
