//! Reconcile: one turn of a descent, answered from one state of the store.
//! The descent itself is the protocol library's.

use super::{Access, Asked, Refusal, Service, Standing, told_position, wanted};
use crate::store::{ReadTx, StoreError};
use gosync_proto::merkle::Tree;
use gosync_proto::reconcile::{Budget, RespondError, respond};
use gosync_proto::wire;
use gosync_proto::{Key, RangeSet, Reason, Time, mutant};

impl Service {
    /// Answers one request.
    ///
    /// # Errors
    /// HORIZON_CHANGED when the request was computed at another horizon;
    /// MALFORMED, LIMIT_EXCEEDED, NO_ACCESS, SPACE_RETIRED, LAGGING, and what
    /// the store says.
    pub fn reconcile(
        &self,
        access: &Access,
        request: &wire::ReconcileRequest,
        now_ms: u64,
    ) -> Result<wire::ReconcileResponse, Refusal> {
        let asked = Asked::check_ranges(self, access, &request.space, &request.held)?;
        let (answer, mut tx) = self.with_tree(&asked.space, |tree, tx| {
            self.answer(request, &asked, tree, tx)
        })?;
        let answer = answer?;
        // what was met just now is in the answer's `wanted` already
        let damage = tx.take_damage();
        drop(tx);
        let damaged = self.quarantine(&asked.space, damage, now_ms)?;
        // full fingerprints are compared when short ones found no more: what
        // differs even then may be a fault of the tree
        let differs = [&answer.digests, &answer.lacking]
            .iter()
            .any(|c| !c.is_empty());
        if request.digest_len == 32 && (differs || !answer.records.is_empty()) && !damaged {
            self.spaces().disputed(&asked.space);
        }
        Ok(answer)
    }

    fn answer(
        &self,
        request: &wire::ReconcileRequest,
        asked: &Asked,
        tree: &Tree,
        tx: &mut dyn ReadTx,
    ) -> Result<wire::ReconcileResponse, Refusal> {
        let newest = request.newest_commit.map(Into::into);
        let authoritative = self.store().authoritative() && !mutant!(LaggingInOneCall);
        let standing = Standing::judge(tx, &asked.held, newest, authoritative)?;
        if mutant!(ReconcileNeedsOrder) {
            standing.check_in_order()?;
        }
        let same_horizon = Time(request.horizon) == standing.state.position.horizon;
        if !same_horizon && !mutant!(HorizonUnchecked) || mutant!(HorizonNeverRight) {
            return Err(Refusal::new(
                Reason::HorizonChanged,
                "the fingerprints were computed at another horizon than the server's",
            )
            .with_history(standing.detail()));
        }
        let scope = RangeSet::union(asked.ranges().cloned().collect());
        let damaged = RangeSet::union(wanted(tx, scope.iter())?);
        let budget = Budget::new(self.limits());
        let answer = respond(request, &scope, tree, &damaged, &budget, |key| {
            // keys of the tree are keys
            let Ok(key) = Key::new(key) else {
                return Ok(None);
            };
            Ok::<_, StoreError>(tx.get(&key)?.map(|stored| stored.record))
        });
        match answer {
            Ok(answer) => Ok(wire::ReconcileResponse {
                position: (!mutant!(AnswerFromNowhere)).then(|| told_position(&standing.state)),
                held: match mutant!(AnswerWithoutStatus) {
                    false => standing.held_to_wire(),
                    true => Vec::new(),
                },
                restore_points: standing.lineage_to_wire(),
                ..answer
            }),
            Err(RespondError::Request(e)) => Err(e.into()),
            Err(RespondError::Load(e)) => Err(e.into()),
            Err(RespondError::View(never)) => match never {},
        }
    }
}
