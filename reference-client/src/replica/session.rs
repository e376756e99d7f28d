//! The end of a reconciliation: which clean records were deleted and which the
//! server lost, which unsent writes are re-stamped, and the new cursor. All in
//! one transaction; until it, the old status stands.

use super::{Fate, Outcome, Settled, fenced, set_aside, torn};
use crate::documents::is_existence;
use crate::store::{
    Changes, Confirmed, Meta, Quarantined, Reads, Store, StoreError, Stored, View, Write, WriteId,
};
use gosync_proto::history::{Ancestry, Cursor, HistoryStatus, Lineage, Missing, missing_record};
use gosync_proto::{Digest, Key, RangeSet, ReplicaId, Time, Version, mutant};
use std::collections::{HashMap, HashSet};

/// Everything that a completed session established.
#[derive(Clone, PartialEq, Debug)]
pub struct Conclusion {
    /// The server's lineage.
    pub ancestry: Ancestry,
    /// The replica's standing in each held range when the session began.
    pub statuses: Vec<HistoryStatus>,
    /// The horizon of the session.
    pub horizon: Time,
    /// The lowest position of the session's answers: everything up to here is
    /// stored.
    pub cursor: Cursor,
    /// The held ranges that the session was about, by index.
    pub ranges: Vec<usize>,
    /// Clean records that the server has nothing for, as they were found.
    pub missing: Vec<(Key, Digest)>,
    /// Keys under which the replica holds a newer clean record than the
    /// server.
    pub ahead: Vec<Key>,
    /// Where the server knows its content to be damaged: absence says nothing.
    pub wanted: RangeSet,
    /// What the token may write.
    pub writable: RangeSet,
    /// Wall clock, Unix milliseconds.
    pub now_ms: u64,
    /// Whether both sides were seen to be equal.
    pub equal: bool,
}

/// How the session's decisions turned out.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Concluded {
    /// What changed.
    pub outcome: Outcome,
    /// Clean records that were dropped: deleted while the replica was away.
    pub dropped: Vec<Key>,
    /// Clean records that neither side holds intact: removed.
    pub damaged: Vec<Key>,
    /// Clean records that the server lost and gets again.
    pub offered: usize,
    /// Clean records that the server lost and that may not be written.
    pub quarantined: usize,
    /// Unsent writes of which nobody can say whether they were deleted since.
    pub in_doubt: Vec<WriteId>,
}

/// How many writes are looked at in one read.
const PAGE: usize = 2_000;

/// Ends a session.
///
/// # Errors
/// [`StoreError::Displaced`], or the store failed; nothing changed.
pub async fn conclude<S: Store>(
    store: &S,
    me: ReplicaId,
    conclusion: Conclusion,
) -> Result<(Concluded, Meta), StoreError> {
    let mut keys: Vec<Key> = conclusion.missing.iter().map(|(k, _)| k.clone()).collect();
    keys.extend(conclusion.ahead.iter().cloned());
    if conclusion.statuses.iter().any(|s| s.behind_compaction) {
        let mut after = None;
        loop {
            let page = store.writes(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            let old = page
                .into_iter()
                .filter(|w| w.record.version.time < conclusion.horizon);
            keys.extend(old.map(|w| w.record.key));
        }
    }
    let reads = Reads {
        all_writes: mutant!(UnsentForgotten),
        ..Reads::keys(keys)
    };
    let decide = move |view: &View| decide(view, me, &conclusion);
    match mutant!(ConclusionTorn) {
        false => fenced(store, me, reads, decide).await,
        true => torn(store, me, reads, decide).await,
    }
}

/// [`conclude`] as a function of the view.
pub fn decide(view: &View, me: ReplicaId, c: &Conclusion) -> (Changes, Concluded) {
    let mut changes = Changes::default();
    let mut concluded = Concluded::default();
    let mut meta = view.meta.clone();
    meta.era += 1;
    for (key, digest) in &c.missing {
        let Some(stored) = view.clean.get(key).filter(|s| s.digest == *digest) else {
            // replaced or removed since it was found missing
            continue;
        };
        if !stored.intact() && !mutant!(DamageOffered) {
            // there is nothing to decide about, and nothing to give back
            drop_clean(&mut changes, &mut concluded, key);
            concluded.damaged.push(key.clone());
            continue;
        }
        let point = view.meta.point_of(stored);
        let status = status_of(view, c, key);
        let present = c.ancestry.contains(point, status.lineage);
        // what was found lost before stays so until the server has it again
        let wanted = c.wanted.contains(key.as_bytes()) && !mutant!(WantedIgnored);
        let offered = view.offers.contains(key) && !mutant!(KnownLossForgotten);
        let known_lost = offered || wanted;
        let verdict = if known_lost {
            Missing::Lost
        } else {
            missing_record(
                present,
                status.behind_compaction,
                stored.record.version,
                c.horizon,
            )
        };
        let verdict = match verdict {
            Missing::Lost if mutant!(MissingDropped) => Missing::Deleted,
            Missing::Deleted if mutant!(MissingOffered) => Missing::Lost,
            verdict => verdict,
        };
        match verdict {
            Missing::Deleted => {
                drop_clean(&mut changes, &mut concluded, key);
                concluded.dropped.push(key.clone());
            }
            Missing::Lost => offer(view, c, &mut changes, &mut concluded, stored, meta.era),
        }
    }
    for key in &c.ahead {
        if let Some(stored) = view.clean.get(key).filter(|s| s.intact()) {
            offer(view, c, &mut changes, &mut concluded, stored, meta.era);
        }
    }
    if !mutant!(OldWritesKept) {
        let old = Old {
            horizon: c.horizon,
            behind: &|key| status_of(view, c, key).behind_compaction,
            lacking: None,
        };
        restamp_old_writes(view, me, &old, &mut changes, &mut concluded);
    }
    if mutant!(UnsentForgotten) && c.statuses.iter().any(|s| s.lineage != Lineage::Same) {
        changes.remove_writes.extend(view.writes.keys());
    }
    let point = c.cursor.point;
    for i in &c.ranges {
        let Some(held) = meta.ranges.get_mut(*i) else {
            continue;
        };
        held.cursor = Some(c.cursor);
        if mutant!(PointsNotConfirmed) {
            continue;
        }
        held.confirmed = Some(Confirmed {
            era: meta.era,
            point,
        });
    }
    // a commit of a history that is no more would hold the replica back
    let same_history = c.statuses.iter().all(|s| s.lineage == Lineage::Same);
    meta.newest_commit = meta.newest_commit.filter(|n| {
        mutant!(NewestCommitKept)
            || same_history && n.point.epoch == point.epoch && n.point.sequence > point.sequence
    });
    meta.horizon = c.horizon;
    meta.snapshot = None;
    if c.equal {
        meta.last_synced_ms = Some(c.now_ms);
    }
    changes.meta = Some(meta);
    (changes, concluded)
}

/// Ends a session about single keys outside the held ranges: what the server
/// holds there is merged, so what is left of their old writes gets new
/// versions. Cursors and ranges stay as they are (CLIENT-027, CLIENT-049).
///
/// # Errors
/// [`StoreError::Displaced`], or the store failed; nothing changed.
pub async fn restamp_strays<S: Store>(
    store: &S,
    me: ReplicaId,
    keys: Vec<Key>,
    lacking: Vec<Key>,
    horizon: Time,
) -> Result<(Concluded, Meta), StoreError> {
    let reads = Reads::keys(keys.iter().cloned());
    fenced(store, me, reads, move |view| {
        let mut changes = Changes::default();
        let mut concluded = Concluded::default();
        let old = Old {
            horizon,
            behind: &|key| keys.contains(key),
            lacking: Some(&lacking),
        };
        restamp_old_writes(view, me, &old, &mut changes, &mut concluded);
        if mutant!(StraysMoveCursors) {
            let mut meta = view.meta.clone();
            meta.ranges.iter_mut().for_each(|h| h.cursor = None);
            changes.meta = Some(meta);
        }
        (changes, concluded)
    })
    .await
}

/// The standing in the range that holds `key`. Outside of all of them nothing
/// is known: nothing counts as deleted there.
fn status_of(view: &View, c: &Conclusion, key: &Key) -> HistoryStatus {
    let ranges = &view.meta.ranges;
    let index = ranges.iter().position(|h| h.range.contains(key.as_bytes()));
    index
        .and_then(|i| c.statuses.get(i).copied())
        .unwrap_or(HistoryStatus {
            lineage: Lineage::Unknown,
            mapped_sequence: 0,
            behind_compaction: false,
        })
}

fn drop_clean(changes: &mut Changes, concluded: &mut Concluded, key: &Key) {
    changes.remove.push(key.clone());
    changes.remove_offers.push(key.clone());
    concluded.outcome.leaves.push((key.clone(), None));
    concluded.outcome.changed.push(key.clone());
}

/// Queues a clean record for the server, or puts it into quarantine where it
/// may not be written.
fn offer(
    view: &View,
    c: &Conclusion,
    changes: &mut Changes,
    concluded: &mut Concluded,
    stored: &Stored,
    era: u64,
) {
    let key = &stored.record.key;
    let writable = c.writable.contains(key.as_bytes()) && !mutant!(LostPutAside);
    if writable || mutant!(ReadOnlyOffered) {
        changes.put_offers.push(key.clone());
        // not confirmed by this session: it keeps its own point
        changes.put.push(Stored {
            point: view.meta.point_of(stored),
            era,
            ..stored.clone()
        });
        concluded.offered += 1;
    } else {
        changes.remove.push(key.clone());
        changes.remove_offers.push(key.clone());
        if !mutant!(QuarantineDropped) {
            set_aside(
                view,
                changes,
                Quarantined::unwritable(stored.record.clone()),
            );
        }
        concluded.quarantined += 1;
        concluded.outcome.leaves.push((key.clone(), None));
    }
}

/// Which unsent writes are old.
struct Old<'a> {
    horizon: Time,
    /// Whether the replica was behind the compaction for a key.
    behind: &'a dyn Fn(&Key) -> bool,
    /// Single keys outside the held ranges were reconciled: those of them under
    /// which the server has nothing, whatever is left here of a time when they
    /// were held.
    lacking: Option<&'a [Key]>,
}

/// Unsent writes below the horizon, under keys for which the replica was behind
/// the compaction. Where a record stands, the ordinary merge has decided or will.
/// Where nothing stands, the last put of a key gets the smallest version that
/// beats every vanished tombstone and loses to any later one; a tombstone has
/// nothing left to delete. The last of all: a later write speaks for the
/// earlier ones also where it is not moved itself, and might even bear the very
/// version that they would get.
///
/// Outside of the held ranges the replica stays behind, for lack of a cursor:
/// there the last write is moved also where an older record stands, since it
/// would be refused for ever.
fn restamp_old_writes(
    view: &View,
    me: ReplicaId,
    old: &Old<'_>,
    changes: &mut Changes,
    concluded: &mut Concluded,
) {
    let gone: HashSet<&Key> = changes.remove.iter().collect();
    let stands = |key: &Key| {
        let standing = view.clean.get(key).filter(|s| s.intact());
        let lacking = old.lacking.is_some_and(|l| l.contains(key));
        standing.is_some() && !gone.contains(key) && !lacking
    };
    let (horizon, stray) = (old.horizon, old.lacking.is_some());
    let below = |w: &&Write| w.record.version.time < horizon;
    // what was refused is sent only if its author wants it
    let waiting = || view.writes.values().filter(|w| w.is_waiting());
    let last_of: HashMap<&Key, WriteId> = waiting().map(|w| (&w.record.key, w.id)).collect();
    let is_last = |w: &Write| last_of.get(&w.record.key) == Some(&w.id);
    let old: Vec<&Write> = waiting()
        .filter(below)
        .filter(|w| (old.behind)(&w.record.key))
        .collect();
    // the fields of a document would fall below its existence record
    let revived: Vec<&Key> = old
        .iter()
        .filter(|w| is_last(w) && !w.record.is_tombstone())
        .map(|w| &w.record.key)
        .filter(|key| is_existence(key) && !stands(key))
        .collect();
    let revives = |w: &Write| {
        let key = w.record.key.as_bytes();
        let of = |e: &&Key| key.starts_with(e.as_bytes());
        !mutant!(FieldsLeftBehind) && !w.record.is_tombstone() && revived.iter().any(of)
    };
    let moved = old
        .into_iter()
        .filter(|w| stray || !stands(&w.record.key) || revives(w));
    let (last, earlier): (Vec<&Write>, Vec<&Write>) = moved.partition(|w| is_last(w));
    let settle = |w: &Write, fate| Settled {
        id: w.id,
        key: w.record.key.clone(),
        fate,
    };
    let mut remove = Vec::new();
    let mut left_over = Vec::new();
    for w in earlier {
        remove.push(w.id);
        concluded.outcome.settled.push(settle(w, Fate::Superseded));
    }
    for w in last {
        concluded.outcome.changed.push(w.record.key.clone());
        if w.record.is_tombstone() && !stands(&w.record.key) {
            remove.push(w.id);
            // what is left here of a time when its key was held is deleted too
            let left = view.clean.get(&w.record.key);
            if left.is_some_and(|s| s.record.version < w.record.version)
                && !gone.contains(&w.record.key)
            {
                left_over.push(w.record.key.clone());
            }
            concluded.outcome.settled.push(settle(w, Fate::Applied));
            continue;
        }
        let attempted = w.id.0 <= view.meta.attempted || mutant!(AllDoubted);
        let in_doubt = attempted && !mutant!(DoubtUntold);
        if in_doubt {
            concluded.in_doubt.push(w.id);
        }
        let version = Version {
            time: horizon,
            replica: me,
        };
        changes.put_writes.push(Write {
            in_doubt,
            ..w.restamped(version)
        });
    }
    changes.remove_writes.extend(remove);
    for key in left_over {
        drop_clean(changes, concluded, &key);
    }
}
