//! What the server's verdicts on a parcel mean.

use super::edit::{Author, restamp};
use super::merge::Merger;
use super::parcel::{Item, Parcel, Run, Wanted};
use super::{Fate, Outcome, Settled, fenced, set_aside, torn};
use crate::store::{
    Changes, Meta, Quarantined, Reads, Store, StoreError, View, Write, WriteId, WriteState,
};
use futures::join;
use gosync_proto::history::{Cursor, Point, Position};
use gosync_proto::reason::Action;
use gosync_proto::{Key, Reason, Record, ReplicaId, mutant};
use std::collections::HashSet;

/// What the server said about one record.
#[derive(Clone, PartialEq, Debug)]
pub enum Ruling {
    /// It holds the record, committed at this sequence.
    Held(u64),
    /// It holds another one, which wins, committed at this sequence.
    Beaten(Record, u64),
    /// It refused.
    Refused {
        /// Why; `None` for a reason that this version does not know.
        reason: Option<Reason>,
        /// Its sentence for people.
        detail: String,
    },
}

/// The answer to a parcel.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// One for each item, in order.
    pub rulings: Vec<Ruling>,
    /// Where the server stands after the push.
    pub position: Position,
    /// Cursors may follow it: the server places all of them in its history,
    /// and no Watch moves them meanwhile.
    pub moves_cursors: bool,
    /// The server answers Reconcile.
    pub reconciles: bool,
    /// Its clock.
    pub server_now_ms: u64,
}

/// What the answer leads to, beyond what was changed.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Aftermath {
    /// What changed.
    pub outcome: Outcome,
    /// Some records need a reconciliation before they are accepted.
    pub reconcile: bool,
    /// Keys outside the held ranges with writes that are too old for the
    /// server to judge: they are reconciled one by one, then sent anew.
    pub strays: Vec<Key>,
    /// Some records have to be sent again, after a pause.
    pub again: bool,
    /// Writes that got a new version, because theirs was too far ahead.
    pub restamped: usize,
    /// Records that the server accepted.
    pub accepted: usize,
    /// What is to be pushed next but one, if that was asked for and the server
    /// accepted everything.
    pub next: Parcel,
    /// What waits behind that, read meanwhile.
    pub following: Option<Box<Run>>,
}

/// Brings an answer into the store: in one transaction, what the server holds
/// becomes clean, and what it refused is marked. With `ahead`, writes behind
/// one that is on its way are taken in the same transaction; what waits behind
/// those is read beside it.
///
/// # Errors
/// [`StoreError::Displaced`], or the store failed; nothing changed.
pub async fn settle<S: Store>(
    store: &S,
    author: Author,
    parcel: Parcel,
    answer: Answer,
    ahead: Option<Box<Wanted>>,
) -> Result<(Aftermath, Meta), StoreError> {
    let run = match ahead {
        Some(wanted) => Some(wanted.run(store).await?),
        None => None,
    };
    let following = run.as_ref().and_then(Run::following);
    let reads = Reads::keys(parcel.items.iter().map(|i| i.record.key.clone()));
    let settle = move |view: &View| {
        let (mut changes, mut aftermath) = decide(view, author, &parcel, answer);
        if let Some(run) = run.filter(|_| aftermath.accepted == parcel.items.len()) {
            let meta = changes.meta.get_or_insert_with(|| view.meta.clone());
            aftermath.next = run.select(meta);
        }
        (changes, aftermath)
    };
    // what cannot be read now is read when it is wanted, and then reported
    let read_on = async { following?.run(store).await.ok().map(Box::new) };
    let settled = async {
        match mutant!(VerdictsTorn) {
            false => fenced(store, author.replica, reads, settle).await,
            true => torn(store, author.replica, reads, settle).await,
        }
    };
    let (settled, following) = join!(settled, read_on);
    let (mut aftermath, meta) = settled?;
    aftermath.following = following;
    Ok((aftermath, meta))
}

fn decide(view: &View, author: Author, parcel: &Parcel, answer: Answer) -> (Changes, Aftermath) {
    let mut merger = Merger::new(view);
    let mut aftermath = Aftermath::default();
    let mut known = Vec::with_capacity(parcel.items.len());
    let mut refused: Vec<(&Item, Option<Reason>, String)> = Vec::new();
    let at = |sequence| Point {
        epoch: answer.position.head.point.epoch,
        sequence,
    };
    for (item, ruling) in parcel.items.iter().zip(answer.rulings) {
        match ruling {
            Ruling::Held(sequence) => {
                aftermath.accepted += 1;
                known.push(sequence);
                merger.take_known(item.record.clone(), item.digest, at(sequence));
                if item.write.is_none() {
                    confirm_offer(view, &mut merger.changes, item, at(sequence));
                }
            }
            Ruling::Beaten(winner, sequence) => {
                aftermath.accepted += 1;
                known.push(sequence);
                merger.take(winner, at(sequence));
            }
            Ruling::Refused { reason, detail } => refused.push((item, reason, detail)),
        }
    }
    let mut changes = merger.changes;
    aftermath.outcome = merger.merged.outcome;
    let removed: HashSet<WriteId> = match refused.is_empty() {
        true => HashSet::new(),
        false => changes.remove_writes.iter().copied().collect(),
    };
    let mut skewed = Vec::new();
    // a batch that may pass later is kept as it is, whatever its other writes
    // were told
    let held = view.meta.range_set();
    let is_held = |item: &Item| held.contains(item.record.key.as_bytes());
    // a key that is not held is reconciled alone; a write that is not below the
    // horizon would be refused for ever
    let is_stray = |item: &Item| {
        answer.reconciles
            && item.write.is_some()
            && item.record.version.time < answer.position.horizon
    };
    let temporary = |item: &Item, reason: Reason| match reason.action() {
        Action::Retry | Action::Restamp | Action::Authenticate => true,
        Action::Resync => is_held(item) || is_stray(item),
        _ => false,
    };
    let waits = |(item, reason, _): &(&Item, Option<Reason>, String)| {
        reason.is_some_and(|reason| temporary(item, reason))
    };
    let batch_waits = parcel.atomic && refused.iter().any(waits);
    for (item, reason, detail) in refused {
        match reason.map(Reason::action) {
            Some(Action::Restamp) if item.write.is_some() && !mutant!(SkewRejects) => {
                skewed.extend(item.write)
            }
            Some(Action::Resync) if is_held(item) => aftermath.reconcile = true,
            Some(Action::Resync) if is_stray(item) => {
                aftermath.strays.push(item.record.key.clone());
            }
            Some(Action::Restamp) if mutant!(SkewRejects) => refuse(
                view,
                &mut changes,
                &mut aftermath.outcome,
                &removed,
                item,
                reason,
                detail,
            ),
            Some(Action::Retry | Action::Authenticate | Action::Restamp) => aftermath.again = true,
            _ if batch_waits => {}
            _ => refuse(
                view,
                &mut changes,
                &mut aftermath.outcome,
                &removed,
                item,
                reason,
                detail,
            ),
        }
    }
    if mutant!(AllRestamped) && !skewed.is_empty() {
        skewed = parcel.items.iter().filter_map(|i| i.write).collect();
    }
    let mut meta = view.meta.clone();
    if !skewed.is_empty() {
        let now_ms = match mutant!(RestampedByOwnClock) {
            true => author.now_ms,
            false => answer.server_now_ms,
        };
        let stamped = restamp(view, author, &skewed, now_ms);
        aftermath.restamped = stamped.put_writes.len();
        changes.put_writes.extend(stamped.put_writes);
        meta = stamped.meta.unwrap_or(meta);
    }
    known.sort_unstable();
    known.dedup();
    meta.newest_commit = newer(meta.newest_commit, answer.position.head);
    for held in &mut meta.ranges {
        let joins = held
            .cursor
            .is_some_and(|c| leads_to(c, answer.position.head, &known));
        if (answer.moves_cursors && joins) || mutant!(PushMovesCursor) {
            held.cursor = Some(answer.position.head);
        }
    }
    if meta != view.meta {
        changes.meta = Some(meta);
    }
    (changes, aftermath)
}

/// Whether the replica, which holds everything up to `cursor`, holds everything
/// up to `head` as well: every sequence between them is one that the answer
/// named: `known`, in order, each once. Sequences have no gaps, so nothing of
/// others lies there (PUSH-037).
fn leads_to(cursor: Cursor, head: Cursor, known: &[u64]) -> bool {
    let (from, to) = (cursor.point.sequence, head.point.sequence);
    let up_to = |sequence: u64| known.partition_point(|k| *k <= sequence) as u64;
    cursor.point.epoch == head.point.epoch && from < to && up_to(to) - up_to(from) == to - from
}

/// A clean record that the server took again was acknowledged there and then.
fn confirm_offer(view: &View, changes: &mut Changes, item: &Item, point: Point) {
    let key = &item.record.key;
    if let Some(s) = view.clean.get(key).filter(|s| s.record == item.record) {
        changes.put.push(crate::store::Stored {
            point,
            era: view.meta.era,
            ..s.clone()
        });
    }
}

/// Marks a write as refused, and puts a refused offer into quarantine.
fn refuse(
    view: &View,
    changes: &mut Changes,
    outcome: &mut Outcome,
    removed: &HashSet<WriteId>,
    item: &Item,
    reason: Option<Reason>,
    detail: String,
) {
    let key = &item.record.key;
    match item.write {
        Some(id) => {
            let Some(w) = view.writes.get(&id).filter(|_| !removed.contains(&id)) else {
                return;
            };
            outcome.settled.push(Settled {
                id,
                key: key.clone(),
                fate: Fate::Rejected {
                    reason,
                    detail: detail.clone(),
                },
            });
            if mutant!(RejectedForgotten) {
                changes.remove_writes.push(id);
                return;
            }
            changes.put_writes.push(Write {
                state: WriteState::Rejected { reason, detail },
                ..w.clone()
            });
        }
        None => {
            changes.remove_offers.push(key.clone());
            let same = view.clean.get(key).is_some_and(|s| s.record == item.record)
                && !mutant!(RefusedOfferKept);
            if same {
                changes.remove.push(key.clone());
                let aside = Quarantined {
                    record: item.record.clone(),
                    reason,
                    detail,
                };
                set_aside(view, changes, aside);
                outcome.leaves.push((key.clone(), None));
            }
        }
    }
    outcome.changed.push(key.clone());
}

/// Marks every write of a parcel as refused: the call itself was.
///
/// # Errors
/// [`StoreError::Displaced`], or the store failed; nothing changed.
pub async fn refuse_all<S: Store>(
    store: &S,
    me: ReplicaId,
    parcel: Parcel,
    reason: Option<Reason>,
    detail: String,
) -> Result<(Outcome, Meta), StoreError> {
    let reads = Reads::keys(parcel.items.iter().map(|i| i.record.key.clone()));
    let refuse_each = move |view: &View| {
        let mut changes = Changes::default();
        let mut outcome = Outcome::default();
        let none = HashSet::new();
        for item in &parcel.items {
            let detail = detail.clone();
            refuse(
                view,
                &mut changes,
                &mut outcome,
                &none,
                item,
                reason,
                detail,
            );
        }
        (changes, outcome)
    };
    fenced(store, me, reads, refuse_each).await
}

/// The newer of two commits: sequences compare within one epoch only, and what
/// was heard last counts otherwise.
fn newer(known: Option<Cursor>, heard: Cursor) -> Option<Cursor> {
    match known {
        Some(k)
            if k.point.epoch == heard.point.epoch && k.point.sequence > heard.point.sequence =>
        {
            Some(k)
        }
        _ => Some(heard),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parcel::{
        Room, take,
        tests::{ME, keys, written},
    };
    use super::*;
    use futures::executor::block_on;
    use gosync_proto::Time;
    use gosync_proto::limits::Limits;

    const AUTHOR: Author = Author {
        replica: ME,
        now_ms: 1_000,
    };

    /// All that waits may be taken.
    fn everything() -> Room {
        Room {
            limits: Limits::default(),
            at_most: usize::MAX,
            not_below: None,
            alone_to: None,
        }
    }

    /// An answer that refuses so many records, each for the same reason.
    fn refused(records: usize, reason: Reason, horizon: Time) -> Answer {
        let ruling = Ruling::Refused {
            reason: Some(reason),
            detail: String::new(),
        };
        Answer {
            rulings: vec![ruling; records],
            position: Position {
                head: Cursor::origin(gosync_proto::history::Epoch(1)),
                horizon,
            },
            moves_cursors: false,
            reconciles: false,
            server_now_ms: 1_000,
        }
    }

    /// It was sent again and again, without a pause: its keys are not held, so
    /// that no reconciliation could let it pass.
    #[test]
    fn a_batch_outside_of_what_is_held_ends_refused_when_it_is_behind_the_compaction() {
        let store = written(&[&keys("b", 2)]);
        let parcel = block_on(take(&store, ME, everything(), None)).unwrap();
        assert!(parcel.atomic);
        let answer = refused(2, Reason::BehindCompaction, Time(1 << 40));
        let (aftermath, _) = block_on(settle(&store, AUTHOR, parcel, answer, None)).unwrap();
        assert!(!aftermath.reconcile && !aftermath.again);
        let writes = block_on(store.writes(None, 10)).unwrap();
        assert!(writes.iter().all(|w| !w.is_waiting()));
    }

    /// A quarantined record is what its user sees, so that a write exceeds it
    /// whatever the clock (CLOCK-002).
    #[test]
    fn a_write_with_a_new_version_exceeds_what_is_in_quarantine() {
        let store = written(&[&keys("b", 1)]);
        let (key, time) = (keys("b", 1).remove(0), Time::from_millis(2_000));
        let aside = Record {
            key: Key::new(key.as_bytes()).unwrap(),
            version: gosync_proto::Version {
                time,
                replica: ReplicaId(9),
            },
            content: gosync_proto::Content::Tombstone,
        };
        let put = Changes {
            put_quarantine: vec![Quarantined::unwritable(aside)],
            ..Changes::default()
        };
        block_on(store.transact(Reads::meta(), move |_| (put, ()))).unwrap();
        let parcel = block_on(take(&store, ME, everything(), None)).unwrap();
        let answer = refused(1, Reason::ClockSkew, Time(0));
        let (aftermath, _) = block_on(settle(&store, AUTHOR, parcel, answer, None)).unwrap();
        assert_eq!(aftermath.restamped, 1);
        let writes = block_on(store.writes(None, 10)).unwrap();
        assert_eq!(writes[0].record.version.time, Time(time.0 + 1));
    }

    /// Its application has to be able to tell why (CLIENT-048).
    #[test]
    fn an_offer_that_is_refused_goes_into_quarantine_with_the_reason() {
        let store = crate::store::MemoryStore::new();
        let record = Record {
            key: Key::new(&b"lost"[..]).unwrap(),
            version: gosync_proto::Version {
                time: Time(5),
                replica: ReplicaId(9),
            },
            content: gosync_proto::Content::Tombstone,
        };
        let origin = Cursor::origin(gosync_proto::history::Epoch(1));
        let put = Changes {
            meta: Some(Meta {
                active: ME.0,
                ..Meta::default()
            }),
            put: vec![crate::store::Stored::new(record.clone(), origin.point, 0)],
            put_offers: vec![record.key.clone()],
            ..Changes::default()
        };
        block_on(store.transact(Reads::meta(), move |_| (put, ()))).unwrap();
        let parcel = block_on(take(&store, ME, everything(), None)).unwrap();
        let mut answer = refused(1, Reason::QuotaExceeded, Time(0));
        if let Ruling::Refused { detail, .. } = &mut answer.rulings[0] {
            *detail = "full".into();
        }
        block_on(settle(&store, AUTHOR, parcel, answer, None)).unwrap();
        let all = Reads {
            all_quarantined: true,
            ..Reads::default()
        };
        let aside = |view: &View| view.quarantine.values().cloned().collect::<Vec<_>>();
        let look = move |view: &View| (Changes::default(), aside(view));
        let told = Quarantined {
            record,
            reason: Some(Reason::QuotaExceeded),
            detail: "full".into(),
        };
        assert_eq!(block_on(store.transact(all, look)).unwrap(), [told]);
    }

    #[test]
    fn a_cursor_follows_a_push_only_over_sequences_that_the_answer_named() {
        let at = |epoch, sequence| Cursor {
            point: Point {
                epoch: gosync_proto::history::Epoch(epoch),
                sequence,
            },
            tag: 0,
        };
        assert!(leads_to(at(1, 4), at(1, 6), &[5, 6]));
        // an earlier push of its own, of which the answer was lost
        assert!(leads_to(at(1, 4), at(1, 6), &[2, 5, 6]));
        // somebody else's commit lies between, or behind
        assert!(!leads_to(at(1, 4), at(1, 7), &[5, 7]));
        assert!(!leads_to(at(1, 4), at(1, 7), &[5, 6]));
        // nothing was applied; another history; behind the cursor
        assert!(!leads_to(at(1, 4), at(1, 5), &[]));
        assert!(!leads_to(at(1, 4), at(2, 5), &[5]));
        assert!(!leads_to(at(1, 6), at(1, 5), &[5]));
    }
}
