//! Everything that the engine may ask of the store, as data: so that the
//! engine needs no store, and a driver no rules.

use super::edit::Author;
use super::merge::{Incoming, Merged};
use super::parcel::{Parcel, Room, Wanted};
use super::push::{Aftermath, Answer};
use super::session::{Concluded, Conclusion};
use super::upkeep::{Horizon, Loaded, Verified};
use super::{Outcome, merge, parcel, push, session, upkeep};
use crate::store::{Meta, Store, StoreError, WriteId};
use gosync_proto::limits::Limits;
use gosync_proto::{Key, Reason, Time};

/// What is to be done. Each is one transaction, or several that are each
/// complete in themselves.
#[derive(Clone, PartialEq, Debug)]
pub enum Op {
    /// Take over the exchange with the server; read what is held.
    Activate,
    /// Merge what the server sent.
    Merge(Incoming),
    /// Take what is to be pushed next. With a write: only writes behind it,
    /// which is on its way.
    Take(Room, Option<WriteId>),
    /// Bring the answer to a push into the store, and take what is wanted
    /// behind the parcel that is on its way meanwhile.
    Settle(Parcel, Answer, Option<Box<Wanted>>),
    /// Mark every write of a parcel as refused.
    Refuse(Parcel, Option<Reason>, String),
    /// End a reconciliation.
    Conclude(Conclusion),
    /// End one of single keys outside the held ranges; the server has nothing
    /// under the second; at this horizon.
    RestampStrays(Vec<Key>, Vec<Key>, Time),
    /// Follow the server's horizon.
    FollowHorizon(Horizon),
    /// Hash every stored record again.
    Verify,
    /// Remove those of these records that are damaged.
    RemoveDamaged(Vec<Key>),
    /// Forget how far a bootstrap came: what it took was refused as a whole.
    ForgetSnapshot,
    /// Note the server's limits, and the wall clock at which both sides were
    /// seen to be equal.
    Note(Option<Limits>, Option<u64>),
}

/// What came of an [`Op`] of the same name. Those that may change the meta row
/// bring it along.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs)]
pub enum Reply {
    Active(Loaded),
    Merged(Merged, Meta),
    Taken(Parcel),
    Settled(Aftermath, Meta),
    Refused(Outcome, Meta),
    Concluded(Concluded, Meta),
    HorizonFollowed(Outcome, Meta),
    Verified(Verified),
    DamagedRemoved(Vec<Key>),
    Noted,
}

/// Does what is asked.
///
/// # Errors
/// As the operation's own function says.
pub async fn run<S: Store>(store: &S, author: Author, op: Op) -> Result<Reply, StoreError> {
    let me = author.replica;
    Ok(match op {
        Op::Activate => Reply::Active(upkeep::activate(store, me).await?),
        Op::Merge(incoming) => {
            let (merged, meta) = merge::merge(store, me, incoming).await?;
            Reply::Merged(merged, meta)
        }
        Op::Take(room, behind) => Reply::Taken(parcel::take(store, me, room, behind).await?),
        Op::Settle(parcel, answer, ahead) => {
            let (aftermath, meta) = push::settle(store, author, parcel, answer, ahead).await?;
            Reply::Settled(aftermath, meta)
        }
        Op::Refuse(parcel, reason, detail) => {
            let (outcome, meta) = push::refuse_all(store, me, parcel, reason, detail).await?;
            Reply::Refused(outcome, meta)
        }
        Op::Conclude(conclusion) => {
            let (concluded, meta) = session::conclude(store, me, conclusion).await?;
            Reply::Concluded(concluded, meta)
        }
        Op::RestampStrays(keys, lacking, horizon) => {
            let (concluded, meta) =
                session::restamp_strays(store, me, keys, lacking, horizon).await?;
            Reply::Concluded(concluded, meta)
        }
        Op::FollowHorizon(horizon) => {
            let (outcome, meta) = upkeep::follow_horizon(store, me, horizon).await?;
            Reply::HorizonFollowed(outcome, meta)
        }
        Op::Verify => Reply::Verified(upkeep::verify(store, me).await?),
        Op::RemoveDamaged(keys) => {
            Reply::DamagedRemoved(upkeep::remove_damaged(store, me, keys).await?)
        }
        Op::ForgetSnapshot => {
            upkeep::forget_snapshot(store, me).await?;
            Reply::Noted
        }
        Op::Note(limits, synced_ms) => {
            upkeep::note(store, limits, synced_ms).await?;
            Reply::Noted
        }
    })
}
