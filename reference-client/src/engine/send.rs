//! Pushing: one call at a time, first before the replica catches up, then
//! beside Watch. While a parcel is on its way the next one is taken from the
//! store, and while an answer is settled the next parcel is on its way; the
//! server still judges one before it is sent the next.

use super::{Engine, Notice, Phase, Request, check};
use crate::replica::ops::Op;
use crate::replica::parcel::{Parcel, Room, Run, Wanted};
use crate::replica::push::{Aftermath, Answer, Ruling};
use crate::store::WriteId;
use crate::transport::{CallError, Cause};
use gosync_proto::history::HistoryStatus;
use gosync_proto::limits::Limits;
use gosync_proto::reason::Action;
use gosync_proto::{Reason, Record, Time, mutant, wire};

/// Whether the verdict lets a batch pass (PUSH-022).
fn is_merged(outcome: wire::Outcome) -> bool {
    use wire::Outcome as O;
    matches!(outcome, O::Applied | O::Unchanged | O::Superseded)
}

/// What is being sent.
#[derive(Debug)]
pub(super) struct Sending {
    /// Sent, not answered.
    parcel: Option<Parcel>,
    /// Taken from the store while `parcel` is on its way: sent next, provided
    /// that the server accepts all of `parcel`.
    next: Option<Ahead>,
    /// What waits behind `next`, read while an answer was settled.
    read: Option<Box<Run>>,
    /// A parcel is being taken from the store.
    taking: bool,
    /// An answer is being brought into the store.
    settling: bool,
    /// There may be more to send.
    more: bool,
    /// There may be clean records that the server does not hold yet.
    offers: bool,
    /// The most records of a parcel: lowered when a call is refused for its
    /// size.
    cap: usize,
    /// Batches up to this write are sent one by one: together, they were
    /// refused.
    alone_to: Option<WriteId>,
    /// The last answer led to new versions, and to nothing else.
    restamped: bool,
    /// A long session follows: only writes that need no reconciliation first,
    /// those at or above this horizon.
    early: Option<Time>,
    /// The newest write that there was when this began: whoever goes on writing
    /// does not keep what comes after it waiting.
    until: Option<WriteId>,
    /// What is being settled reached that one.
    reached: bool,
}

/// A parcel that was taken from the store, and the cursors that the replica had
/// then: what Watch brings before it is sent may beat what is in it, and the
/// server judges what is old by the cursors of the request.
#[derive(Debug)]
struct Ahead {
    parcel: Parcel,
    held: Vec<wire::HeldRanges>,
}

impl Default for Sending {
    fn default() -> Self {
        Sending {
            parcel: None,
            next: None,
            read: None,
            taking: false,
            settling: false,
            more: true,
            offers: true,
            cap: usize::MAX,
            alone_to: None,
            restamped: false,
            early: None,
            until: None,
            reached: false,
        }
    }
}

impl Sending {
    /// The call is gone; what was sent is still in the store.
    pub(super) fn interrupt(&mut self) {
        self.parcel = None;
        self.next = None;
        self.read = None;
        self.taking = false;
        self.settling = false;
        self.more = true;
        self.early = None;
        self.until = None;
        self.reached = false;
    }

    /// What was taken ahead is not sent as it is: it is taken anew.
    fn forget_next(&mut self) {
        self.more |= self.next.take().is_some();
        self.read = None;
    }

    /// Writes may have changed: what was read of them is read anew.
    pub(super) fn forget_read(&mut self) {
        self.read = None;
    }

    fn room(&self, limits: Limits) -> Room {
        Room {
            limits,
            at_most: self.cap,
            not_below: self.early,
            alone_to: self.alone_to,
        }
    }

    /// Clean records were queued for the server.
    pub(super) fn offered(&mut self) {
        self.offers = true;
    }

    /// Whether there may be clean records that the server does not hold yet:
    /// then both sides differ, and it is known why.
    pub(super) fn offers(&self) -> bool {
        self.offers
    }

    /// Whether there may be more to send.
    pub(super) fn more(&self) -> bool {
        self.more
    }

    /// Whether everything was sent and answered.
    pub(super) fn is_idle(&self) -> bool {
        let under_way = self.parcel.is_some() || self.next.is_some();
        !under_way && !self.taking && !self.settling && !self.more
    }
}

impl Engine {
    /// There may be something to push.
    pub(super) fn wrote(&mut self) {
        self.sending.more = true;
        if matches!(self.phase, Phase::CatchingUp | Phase::Live) {
            self.push_next();
        }
    }

    /// Before the replica catches up, it sends what it has.
    pub(super) fn push_first(&mut self) {
        self.phase = Phase::Pushing;
        self.sending.interrupt();
        if mutant!(UnhealedPushesNothing) && self.unequal > 0 {
            return self.follow();
        }
        self.push_next();
    }

    /// Before a long reconciliation, it sends what needs none.
    pub(super) fn push_early(&mut self) {
        self.phase = Phase::Pushing;
        self.sending.interrupt();
        self.sending.early = Some(self.meta.horizon);
        self.push_next();
    }

    /// Takes the next parcel from the store, to be sent at once or, while
    /// another is on its way, after that one.
    pub(super) fn push_next(&mut self) {
        let pushing = matches!(self.phase, Phase::Pushing | Phase::CatchingUp | Phase::Live)
            && !(mutant!(UnhealedPushesNothing) && self.unequal > 0);
        let sending = &mut self.sending;
        if !pushing || sending.taking || sending.settling || sending.next.is_some() {
            return;
        }
        let Some(session) = &self.session else {
            return;
        };
        let room = sending.room(session.limits);
        let behind = match &sending.parcel {
            // what is written meanwhile is better sent as one
            Some(parcel) if !parcel.more => return,
            Some(parcel) => parcel.last_write(),
            None => {
                sending.more = false;
                None
            }
        };
        sending.taking = true;
        self.ops.push_back(Op::Take(room, behind));
    }

    pub(super) fn parcel_taken(&mut self, parcel: Parcel) {
        self.sending.taking = false;
        if !parcel.damaged.is_empty() {
            // without them, the session begins anew
            self.sending.more = true;
            self.ops.push_back(Op::RemoveDamaged(parcel.damaged));
            return;
        }
        if self.sending.parcel.is_some() {
            // an empty one is confirmed once the other is settled
            self.keep_ahead(parcel);
            return;
        }
        self.sending.until = self.sending.until.or(parcel.newest);
        // offers are taken before anything else, save by an early push
        let offers = parcel.items.iter().any(|i| i.write.is_none());
        self.sending.offers = offers || self.sending.offers && self.sending.early.is_some();
        match self.phase {
            Phase::Pushing if parcel.items.is_empty() && self.sending.early.is_some() => {
                self.heal_after_push();
            }
            Phase::Pushing if parcel.items.is_empty() => {
                if self.verified && self.sending.is_idle() {
                    self.in_sync();
                }
                self.follow();
            }
            Phase::Pushing | Phase::CatchingUp | Phase::Live if !parcel.items.is_empty() => {
                let (held, _) = self.held(None);
                self.send(Ahead { parcel, held });
                self.push_next();
            }
            Phase::CatchingUp | Phase::Live if self.sending.more => self.push_next(),
            _ => {}
        }
    }

    /// To be sent after the one that is on its way.
    fn keep_ahead(&mut self, parcel: Parcel) {
        let (held, _) = self.held(None);
        self.sending.next = (!parcel.items.is_empty()).then_some(Ahead { parcel, held });
    }

    fn send(&mut self, ahead: Ahead) {
        let Ahead { parcel, mut held } = ahead;
        if mutant!(HeldWithoutCursor) {
            held.iter_mut().for_each(|h| h.cursor = None);
        }
        self.call(Request::Push(wire::PushRequest {
            space: self.settings.space.to_string(),
            records: parcel
                .items
                .iter()
                .map(|i| wire::Record::from(i.record.clone()))
                .collect(),
            atomic: parcel.atomic,
            held,
            newest_commit: self.newest_commit(),
        }));
        self.sending.parcel = Some(parcel);
    }

    pub(super) fn push_answered(&mut self, response: wire::PushResponse) {
        let Some(parcel) = self.sending.parcel.take() else {
            return self.fail(CallError::misbehaved("an answer to no push"));
        };
        let refuses = (response.verdicts.iter()).any(|v| !is_merged(v.outcome()));
        match self.read_answer(&parcel, response) {
            Ok((answer, statuses))
                if parcel.joined && refuses && !mutant!(JoinedRefusedTogether) =>
            {
                self.server_clock(answer.server_now_ms);
                if !self.goes_on(&answer, &statuses) {
                    return self.start_over();
                }
                self.push_one_by_one(&parcel);
            }
            Err(error) if mutant!(FailedPushRejects) => {
                self.sending.settling = true;
                self.ops.push_back(Op::Refuse(parcel, None, error.message));
            }
            Err(error) => self.fail(error),
            Ok((mut answer, statuses)) => {
                self.server_clock(answer.server_now_ms);
                let same_history = self.goes_on(&answer, &statuses);
                let all_held = answer
                    .rulings
                    .iter()
                    .all(|ruling| matches!(ruling, Ruling::Held(_)));
                answer.moves_cursors =
                    same_history && self.phase == Phase::Pushing && self.sending.early.is_none();
                let until = self.sending.until.zip(parcel.last_write());
                self.sending.reached = until.is_some_and(|(until, sent)| sent >= until);
                let waits = self.sending.reached && self.sending.early.is_some();
                let mut ahead = None;
                if waits || !(same_history && all_held) {
                    self.sending.forget_next();
                } else if let Some(next) = self.sending.next.take() {
                    ahead = self.wanted_behind(&next.parcel);
                    self.send(next);
                }
                if same_history || !mutant!(StatusVoidsVerdicts) {
                    self.sending.settling = true;
                    self.ops.push_back(Op::Settle(parcel, answer, ahead));
                } else {
                    return self.start_over();
                }
                if !same_history {
                    // what was pushed counts; then the session starts again
                    self.sending.more = false;
                    self.restart_after_settling();
                }
            }
        }
    }

    /// Of batches that were sent together, one had all of them refused: which,
    /// each of them tells alone (PUSH-041).
    fn push_one_by_one(&mut self, parcel: &Parcel) {
        self.sending.forget_next();
        self.sending.alone_to = parcel.last_write();
        self.sending.more = true;
        self.push_next();
    }

    /// Whether the history is what it was when the session began: in order, or,
    /// before a reconciliation, as it was found.
    fn goes_on(&self, answer: &Answer, statuses: &[HistoryStatus]) -> bool {
        if self.sending.early.is_some() {
            let every: Vec<usize> = (0..self.meta.ranges.len()).collect();
            return self.same_history(answer.position, statuses, &every).is_ok();
        }
        let session = self.session.as_ref();
        let epoch = session.map(|s| s.position.head.point.epoch);
        statuses.iter().all(HistoryStatus::in_order)
            && epoch == Some(answer.position.head.point.epoch)
            || mutant!(PushStatusIgnored)
    }

    /// What is to be taken behind a parcel that is sent now.
    fn wanted_behind(&mut self, parcel: &Parcel) -> Option<Box<Wanted>> {
        let read = self.sending.read.take();
        let session = self.session.as_ref().filter(|_| parcel.more)?;
        Some(Box::new(Wanted {
            room: self.sending.room(session.limits),
            behind: parcel.last_write()?,
            read,
        }))
    }

    /// Lets Hello find out what became of the history.
    fn restart_after_settling(&mut self) {
        if let Some(session) = &mut self.session {
            session.statuses.clear();
        }
    }

    fn read_answer(
        &self,
        parcel: &Parcel,
        mut response: wire::PushResponse,
    ) -> Result<(Answer, Vec<HistoryStatus>), CallError> {
        let position = check::position(response.position.as_ref())?;
        let (held, _) = self.held(None);
        let statuses = check::statuses(&response.held, held.len())?;
        if mutant!(MissingIsApplied) {
            let applied = wire::Verdict {
                outcome: wire::Outcome::Applied as i32,
                ..wire::Verdict::default()
            };
            response.verdicts.resize(parcel.items.len(), applied);
        }
        if response.verdicts.len() != parcel.items.len() && !mutant!(VerdictsUncounted) {
            return Err(CallError::misbehaved(format!(
                "{} verdicts for {} records",
                response.verdicts.len(),
                parcel.items.len()
            )));
        }
        let rulings = parcel
            .items
            .iter()
            .zip(response.verdicts)
            .map(|(item, verdict)| self.read_verdict(&item.record, verdict))
            .collect();
        let answer = Answer {
            rulings,
            position,
            moves_cursors: false,
            reconciles: self.session.as_ref().is_some_and(|s| s.reconcile),
            server_now_ms: response.server_time_ms,
        };
        Ok((answer, statuses))
    }

    fn read_verdict(&self, sent: &Record, verdict: wire::Verdict) -> Ruling {
        match verdict.outcome() {
            wire::Outcome::Applied | wire::Outcome::Unchanged if mutant!(HeldIsRefused) => {
                Ruling::Refused {
                    reason: None,
                    detail: verdict.detail,
                }
            }
            wire::Outcome::Applied | wire::Outcome::Unchanged => Ruling::Held(verdict.sequence),
            wire::Outcome::Superseded => match self.read_winner(sent, verdict.winner) {
                Some(winner) => Ruling::Beaten(winner, verdict.sequence),
                // the answer's budget was spent, or the winner is none: the
                // write stays and is sent again
                None => Ruling::Refused {
                    reason: Some(Reason::Unavailable),
                    detail: verdict.detail,
                },
            },
            wire::Outcome::Unspecified if mutant!(UnknownOutcomeApplied) => {
                Ruling::Held(verdict.sequence)
            }
            // an outcome that this version does not know counts as a refusal
            wire::Outcome::Rejected | wire::Outcome::Unspecified => Ruling::Refused {
                reason: Reason::from_wire(verdict.reason),
                detail: verdict.detail,
            },
        }
    }

    /// The record that is said to win over `sent`, if it does.
    fn read_winner(&self, sent: &Record, winner: Option<wire::Record>) -> Option<Record> {
        let winner = Record::try_from(winner?).ok()?;
        self.check_skew(&winner).ok()?;
        let wins =
            winner.key == sent.key && winner.merge_against(sent) == gosync_proto::Merge::Wins;
        wins.then_some(winner)
    }

    pub(super) fn parcel_settled(&mut self, aftermath: Aftermath) {
        self.sending.settling = false;
        self.keep_ahead(aftermath.next);
        self.sending.read = aftermath.following;
        let accepted = aftermath.accepted;
        self.publish(aftermath.outcome);
        if !matches!(self.phase, Phase::Pushing | Phase::CatchingUp | Phase::Live) {
            return;
        }
        if accepted > 0 {
            self.sending.cap = usize::MAX;
        }
        let ranges = self.meta.ranges.len();
        let restart = self
            .session
            .as_ref()
            .is_none_or(|s| s.statuses.len() != ranges);
        let early = self.sending.early.is_some() && !restart;
        if early && (accepted == 0 || aftermath.reconcile || !aftermath.strays.is_empty()) {
            // the others wait for the reconciliation
            return self.heal_after_push();
        }
        if restart || aftermath.reconcile {
            // the history changed, or records need a reconciliation first
            let message = "the server's history changed";
            return self.fail(CallError::new(
                Cause::Refused(Reason::HistoryChanged),
                message,
            ));
        }
        let restamped = accepted == 0 && aftermath.restamped > 0;
        // by the server's own clock, the new versions pass; a server that
        // refuses them too is asked again after a pause
        let anew = restamped && !aftermath.again && !self.sending.restamped;
        self.sending.restamped = restamped;
        if mutant!(StraysNotReconciled) && !aftermath.strays.is_empty() {
            let keys = aftermath.strays;
            let op = Op::RestampStrays(keys.clone(), keys, self.meta.horizon);
            return self.ops.push_back(op);
        }
        if !aftermath.strays.is_empty() {
            return self.reconcile_strays(aftermath.strays);
        }
        if (aftermath.again || restamped) && accepted == 0 && !anew {
            // not at once: the same would be refused again
            let pause = self.backoff.next(self.now.entropy, 0);
            self.sending.more = true;
            if self.phase == Phase::Pushing {
                return self.follow();
            }
            self.retry_at = Some(self.now.mono_ms.saturating_add(pause));
            return;
        }
        if std::mem::take(&mut self.sending.reached) && self.phase == Phase::Pushing {
            // what was written meanwhile is sent beside what comes now
            if early {
                return self.heal_after_push();
            }
            self.follow();
        }
        self.push_next();
    }

    /// The whole call was refused, or did not come through.
    pub(super) fn push_failed(&mut self, error: CallError) {
        let Some(parcel) = self.sending.parcel.take() else {
            return self.fail(error);
        };
        self.sending.forget_next();
        let reason = error.reason();
        let blames_records = error.action() == Action::Report
            && !matches!(reason, None | Some(Reason::NoAccess))
            || mutant!(FailedPushRejects);
        if !blames_records {
            self.sending.more = true;
            return self.fail(error);
        }
        let sought = !mutant!(FaultNotSought) && !mutant!(FailedPushRejects);
        if parcel.joined && sought {
            return self.push_one_by_one(&parcel);
        }
        if parcel.items.len() > 1 && !parcel.atomic && sought {
            // one of them is the reason: find out which
            self.sending.cap = parcel.items.len() / 2;
            self.sending.more = true;
            return self.push_next();
        }
        self.sending.settling = true;
        self.ops
            .push_back(Op::Refuse(parcel, reason, error.message));
    }

    /// The writes of a refused call were marked; the next ones may pass.
    pub(super) fn parcel_refused(&mut self) {
        self.sending.settling = false;
        self.push_next();
    }

    /// Tells about writes that may have been deleted elsewhere.
    pub(super) fn tell_doubts(&mut self, ids: Vec<WriteId>) {
        if !ids.is_empty() {
            self.notify(Notice::InDoubt(ids));
        }
    }
}
