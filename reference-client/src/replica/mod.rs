//! What a replica does with its store: each decision is a function of a
//! [`View`](crate::store::View) that runs inside one transaction. Knows no
//! network and no particular store.
//!
//! | module | decides |
//! |---|---|
//! | [`edit`] | local writes: versions, batches, discard and retry |
//! | [`aside`] | records in quarantine: offered again, given up |
//! | [`merge`] | how records from the server change what is held |
//! | [`parcel`] | what to send next |
//! | [`push`] | what verdicts mean |
//! | [`session`] | the end of a reconciliation: dropped, offered, re-stamped |
//! | [`upkeep`] | opening, horizon, verification |
//! | [`ops`] | all of these as data, for the engine to ask for |

pub mod aside;
pub mod edit;
pub mod merge;
pub mod ops;
pub mod parcel;
pub mod push;
pub mod session;
pub mod upkeep;

use crate::platform::MaybeSend;
use crate::store::{
    Changes, Leaf, Meta, NOBODY, Quarantined, Reads, Store, StoreError, View, WriteId,
};
use gosync_proto::{Key, Merge, Reason, ReplicaId, mutant};

/// What became of a write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// The server holds it, or it deletes what the server does not hold.
    Applied,
    /// A later version of the key won; the write changed nothing.
    Superseded,
    /// The server refused it; it stays until it is retried or discarded.
    Rejected {
        /// Why; `None` for a reason that this version does not know.
        reason: Option<Reason>,
        /// The server's sentence for people.
        detail: String,
    },
    /// It was discarded on this device.
    Discarded,
}

/// News of one write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settled {
    /// Which write.
    pub id: WriteId,
    /// Its key.
    pub key: Key,
    /// What became of it.
    pub fate: Fate,
}

/// Puts a record into quarantine. Of two under one key the greater stays
/// (HIST-046): the lesser one lost against it already.
fn set_aside(view: &View, changes: &mut Changes, comes: Quarantined) {
    let greater = view
        .quarantine
        .get(&comes.record.key)
        .is_some_and(|q| comes.record.merge_against(&q.record) == Merge::Loses);
    if !greater || mutant!(QuarantineOverwritten) {
        changes.put_quarantine.push(comes);
    }
}

/// What a transaction changed, for whoever keeps something that is derived
/// from the store.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Clean records that changed: as they are now, `None` where removed.
    pub leaves: Vec<(Key, Option<Leaf>)>,
    /// Writes whose fate is known.
    pub settled: Vec<Settled>,
    /// Keys of which a reader may see something else now.
    pub changed: Vec<Key>,
}

impl Outcome {
    /// Adds what another transaction changed.
    pub fn extend(&mut self, other: Outcome) {
        self.leaves.extend(other.leaves);
        self.settled.extend(other.settled);
        self.changed.extend(other.changed);
    }
}

/// Runs a decision that may change clean records, unless another opening has
/// taken over the exchange with the server, or changed what is held. Returns its result and the meta
/// row as it is afterwards.
async fn fenced<S, T, F>(
    store: &S,
    me: ReplicaId,
    reads: Reads,
    decide: F,
) -> Result<(T, Meta), StoreError>
where
    S: Store,
    T: MaybeSend + 'static,
    F: FnOnce(&View) -> (Changes, T) + MaybeSend + 'static,
{
    store
        .transact(reads, move |view| {
            if view.meta.active == NOBODY {
                return (Changes::default(), Err(StoreError::RangesChanged));
            }
            if view.meta.active != me.0 && !mutant!(DisplacedGoesOn) {
                return (Changes::default(), Err(StoreError::Displaced));
            }
            let (changes, result) = decide(view);
            let meta = changes.meta.clone().unwrap_or_else(|| view.meta.clone());
            (changes, Ok((result, meta)))
        })
        .await?
}

/// As [`fenced`], one piece after the other: a mutant's.
async fn torn<S, T, F>(
    store: &S,
    me: ReplicaId,
    reads: Reads,
    decide: F,
) -> Result<(T, Meta), StoreError>
where
    S: Store,
    T: MaybeSend + 'static,
    F: FnOnce(&View) -> (Changes, T) + MaybeSend + 'static,
{
    let decide = move |view: &View| (Changes::default(), decide(view));
    let ((changes, result), meta) = fenced(store, me, reads, decide).await?;
    let meta = changes.meta.clone().unwrap_or(meta);
    for piece in changes.apart() {
        store.transact(Reads::meta(), move |_| (piece, ())).await?;
    }
    Ok((result, meta))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Held;
    use gosync_proto::{Content, Record, Time, Version};

    fn record(time: u64) -> Record {
        Record {
            key: Key::new(&b"k"[..]).unwrap(),
            version: Version {
                time: Time(time),
                replica: ReplicaId(1),
            },
            content: Content::Put(vec![time as u8].into()),
        }
    }

    /// The later one replaced it, and what the device alone still had was gone.
    #[test]
    fn of_two_records_in_quarantine_the_greater_stays() {
        for (there, comes, stays) in [(5, 9, 9), (9, 5, 9)] {
            let mut view = View::default();
            let aside = |time| Quarantined::unwritable(record(time));
            view.quarantine.insert(record(there).key, aside(there));
            let mut changes = Changes::default();
            set_aside(&view, &mut changes, aside(comes));
            let put = changes.put_quarantine.pop();
            assert_eq!(put.unwrap_or(aside(there)), aside(stays));
        }
    }

    #[test]
    fn what_is_in_quarantine_is_seen_only_where_nothing_else_stands() {
        let (older, newer) = (record(5), Quarantined::unwritable(record(9)));
        let clean = crate::store::Stored::new(
            older.clone(),
            gosync_proto::history::Point {
                epoch: gosync_proto::history::Epoch(1),
                sequence: 1,
            },
            0,
        );
        let mut held = Held {
            quarantined: Some(&newer),
            ..Held::default()
        };
        assert_eq!(held.visible().map(|(r, _)| r), Some(&newer.record));
        held.clean = Some(&clean);
        assert_eq!(held.visible().map(|(r, _)| r), Some(&older));
    }
}
