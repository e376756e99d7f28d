//! Where a replica stands in the history of its space, judged in the very
//! transaction that an answer is computed from. Knows no particular call.

use super::Refusal;
use crate::store::{ReadTx, SpaceState, SpaceStatus};
use gosync_proto::history::{Ancestry, Cursor, HistoryStatus, Judge, Judgement};
use gosync_proto::wire::{self, Held};
use gosync_proto::{Key, Reason, mutant};

/// The standing of one request's ranges.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The space in the state that was judged.
    pub state: SpaceState,
    /// Its lineage.
    pub ancestry: Ancestry,
    /// Of the request's ranges, index by index.
    pub held: Vec<HistoryStatus>,
    /// Of a key outside all of them.
    outside: HistoryStatus,
}

impl Standing {
    /// Judges the cursors of `held`, each together with `newest_commit`.
    ///
    /// # Errors
    /// [`Reason::SpaceRetired`]; [`Reason::Lagging`] when a cursor is ahead of
    /// a store that is not authoritative; and what the store says.
    pub fn judge(
        tx: &mut dyn ReadTx,
        held: &[Held],
        newest_commit: Option<Cursor>,
        authoritative: bool,
    ) -> Result<Standing, Refusal> {
        let state = tx.state()?;
        if state.status == SpaceStatus::Retired && !mutant!(RetiredServed) {
            return Err(Refusal::new(
                Reason::SpaceRetired,
                "the space was deleted for good",
            ));
        }
        let ancestry = tx.ancestry()?;
        let judge = Judge {
            ancestry: &ancestry,
            head: state.head(),
            compacted_through: match mutant!(AllBehind) {
                false => state.compacted_through,
                true => u64::MAX,
            },
        };
        let mut place = |cursor: Option<Cursor>| -> Result<HistoryStatus, Refusal> {
            let tag = match cursor {
                Some(_) if mutant!(TagsForgotten) => None,
                Some(c) => tx.tag_at(c.point.sequence)?,
                None => None,
            };
            match judge.place(cursor, |_| tag) {
                Judgement::Status(status) => Ok(status),
                Judgement::Ahead if authoritative => Ok(judge.unknown()),
                Judgement::Ahead => Err(Refusal {
                    retry_after_ms: 500,
                    ..Refusal::new(
                        Reason::Lagging,
                        "this server has not caught up with the replica's cursor yet",
                    )
                }),
            }
        };
        let newest = newest_commit.map(|c| place(Some(c))).transpose()?;
        let newest = newest.map(|status| match mutant!(NewestCommitDoubted) {
            false => status,
            true => judge.unknown(),
        });
        let newest = newest.filter(|_| !mutant!(NewestCommitIgnored));
        let worst = |status: HistoryStatus| newest.map_or(status, |n| status.worse(n));
        let outside = worst(place(None)?);
        let held = held
            .iter()
            .map(|h| place(h.cursor).map(worst))
            .collect::<Result<_, _>>()?;
        Ok(Standing {
            state,
            ancestry,
            held,
            outside,
        })
    }

    /// The status that counts for a key: that of the ranges that hold it, or
    /// that of no cursor at all.
    pub fn for_key(&self, held: &[Held], key: &Key) -> &HistoryStatus {
        held.iter()
            .position(|h| h.ranges.contains(key.as_bytes()))
            .and_then(|i| self.held.get(i))
            .unwrap_or(&self.outside)
    }

    /// That the replica may go on from its cursors.
    ///
    /// # Errors
    /// [`Reason::HistoryChanged`], with the details.
    pub fn check_in_order(&self) -> Result<(), Refusal> {
        if self.held.iter().all(HistoryStatus::in_order) || mutant!(WatchIgnoresHistory) {
            return Ok(());
        }
        Err(Refusal::new(
            Reason::HistoryChanged,
            "the replica's cursors do not continue the server's history: reconcile first",
        )
        .with_history(self.detail()))
    }

    /// As refusals carry it.
    pub fn detail(&self) -> wire::HistoryDetail {
        wire::HistoryDetail {
            position: Some(self.state.position.to_wire()),
            held: self.held_to_wire(),
            restore_points: self.lineage_to_wire(),
        }
    }

    /// The lineage as answers and refusals carry it.
    pub fn lineage_to_wire(&self) -> Vec<wire::RestorePoint> {
        match mutant!(LineageInHelloOnly) {
            false => self.ancestry.to_wire(),
            true => Vec::new(),
        }
    }

    /// The statuses as answers carry them.
    pub fn held_to_wire(&self) -> Vec<wire::HistoryStatus> {
        let mut held: Vec<_> = self.held.iter().map(|s| s.to_wire()).collect();
        if mutant!(StatusUnasked) && held.is_empty() {
            held.push(self.outside.to_wire());
        }
        if mutant!(StatusesBackwards) {
            held.reverse();
        }
        held
    }
}
