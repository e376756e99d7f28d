//! What a replica does with its store: each decision is a function of a
//! [`View`](crate::store::View) that runs inside one transaction. Knows no
//! network and no particular store.
//!
//! | module | decides |
//! |---|---|
//! | [`edit`] | local writes: versions, batches, discard and retry |
//! | [`merge`] | how records from the server change what is held |
//! | [`parcel`] | what to send next |
//! | [`push`] | what verdicts mean |
//! | [`session`] | the end of a reconciliation: dropped, offered, re-stamped |
//! | [`upkeep`] | opening, horizon, verification |
//! | [`ops`] | all of these as data, for the engine to ask for |

pub mod edit;
pub mod merge;
pub mod ops;
pub mod parcel;
pub mod push;
pub mod session;
pub mod upkeep;

use crate::platform::MaybeSend;
use crate::store::{Changes, Leaf, Meta, Reads, Store, StoreError, View, WriteId};
use gosync_proto::{Key, Reason, ReplicaId};

/// What became of a write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// The server holds it.
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
/// taken over the exchange with the server. Returns its result and the meta
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
            if view.meta.active != me.0 {
                return (Changes::default(), Err(StoreError::Displaced));
            }
            let (changes, result) = decide(view);
            let meta = changes.meta.clone().unwrap_or_else(|| view.meta.clone());
            (changes, Ok((result, meta)))
        })
        .await?
}
