//! Reconciliation: a session of Reconcile calls, each answer merged before the
//! next question, and its conclusion.

use super::follow::MAX_UNEQUAL;
use super::{Engine, Healed, Notice, Phase, Request, check};
use crate::replica::merge::{Incoming, Merged};
use crate::replica::ops::Op;
use crate::replica::session::{Concluded, Conclusion};
use crate::store::HeldRange;
use crate::transport::{CallError, Cause};
use gosync_proto::history::{Cursor, HistoryStatus, Lineage};
use gosync_proto::reconcile::{Initiator, Options, TurnError};
use gosync_proto::{Digest, Key, KeyRange, RangeSet, Reason, mutant, wire};
use std::collections::BTreeSet;

/// A session under way, of Reconcile or Snapshot.
#[derive(Debug)]
pub(super) struct Healing {
    /// The held ranges that it is about.
    pub ranges: Vec<usize>,
    /// Or the single keys outside of them.
    pub strays: Vec<Key>,
    /// `None` for a bootstrap.
    descent: Option<Initiator>,
    /// The lowest position of the answers.
    pub cursor: Option<Cursor>,
    pub missing: Vec<(Key, Digest)>,
    pub ahead: Vec<Key>,
    pub wanted: Vec<KeyRange>,
    pub healed: Healed,
    /// Both sides were seen to be equal at the end.
    pub equal: bool,
    /// What the Snapshot's end said, to be done once all of it is stored.
    pub ended: Option<CallError>,
}

/// A session over so many records is a long one.
pub(super) const LONG: u64 = 256;

/// How what is not in order is healed.
struct Plan {
    ranges: Vec<usize>,
    /// By a Snapshot.
    bulk: bool,
    /// About how many records it takes.
    records: u64,
}

impl Healing {
    pub(super) fn new(ranges: Vec<usize>, descent: Option<Initiator>) -> Healing {
        Healing {
            ranges,
            strays: Vec::new(),
            descent,
            cursor: None,
            missing: Vec::new(),
            ahead: Vec::new(),
            wanted: Vec::new(),
            healed: Healed::default(),
            equal: false,
            ended: None,
        }
    }
}

impl Engine {
    /// Reconciles the ranges that are not in order; all of them where the
    /// order is not the question. Before a long session, what may be pushed is
    /// pushed (CLIENT-030), and before one that may be in vain (CLIENT-052).
    pub(super) fn heal_all(&mut self) {
        let Some(plan) = self.plan_healing() else {
            return self.start_over();
        };
        let long = plan.records >= LONG && !mutant!(LongSessionFirst);
        if (long || self.snapshot_refused) && self.may_push_first() {
            self.push_early();
        } else {
            self.heal(plan);
        }
    }

    /// The early push is over.
    pub(super) fn heal_after_push(&mut self) {
        self.sending.interrupt();
        match self.plan_healing() {
            Some(plan) => self.heal(plan),
            None => self.start_over(),
        }
    }

    /// In a history that changed, the newest commit that the replica knows is
    /// part of what shows the change; a push would replace it.
    fn may_push_first(&self) -> bool {
        self.session.as_ref().is_some_and(|s| {
            let mut statuses = s.statuses.iter();
            statuses.all(|status| status.lineage == Lineage::Same)
        })
    }

    fn plan_healing(&self) -> Option<Plan> {
        let session = self.session.as_ref()?;
        let every = 0..self.meta.ranges.len();
        let broken: Vec<usize> = every
            .clone()
            .filter(|i| {
                let status = session.statuses.get(*i);
                let held = &self.meta.ranges[*i];
                let damaged = || {
                    self.damaged
                        .iter()
                        .any(|k| held.range.contains(k.as_bytes()))
                };
                held.cursor.is_none()
                    || !status.is_some_and(|s| s.in_order())
                    || !session.reconcile && damaged()
            })
            .collect();
        let ranges = if broken.is_empty() {
            every.collect()
        } else {
            broken
        };
        let held: u64 = ranges
            .iter()
            .map(|i| self.image.tree().count(&self.meta.ranges[*i].range))
            .sum();
        // most would have to come anyway, or the rest of it
        let begun = self.bootstrap.is_some() || self.meta.snapshot.is_some();
        let bulk = held == 0 || begun || session.total_records / 8 > held;
        let in_vain = self.unequal >= MAX_UNEQUAL && !mutant!(SessionsWithoutEnd);
        let bulk = bulk || !session.reconcile || in_vain;
        let records = match bulk {
            true => session.total_records,
            false => held,
        };
        Some(Plan {
            ranges,
            bulk,
            records,
        })
    }

    fn heal(&mut self, plan: Plan) {
        if plan.bulk {
            self.bootstrap_from(plan.ranges);
        } else {
            self.reconcile(plan.ranges);
        }
    }

    /// Begins a session over these held ranges.
    pub(super) fn reconcile(&mut self, ranges: Vec<usize>) {
        if mutant!(ReconcileUnspoken) {
            return self.fail_for_good(Phase::Stopped, None, "Reconcile is not spoken");
        }
        let Some(session) = &self.session else {
            return self.start_over();
        };
        let mut options = Options::new(&session.limits);
        if self.unequal > 0 && !mutant!(ShortDigestsOnly) {
            // what short digests may have overlooked
            options.digest_len = 32;
        }
        let mut asked: Vec<KeyRange> = ranges
            .iter()
            .map(|i| self.meta.ranges[*i].range.clone())
            .collect();
        if mutant!(GapsAsked)
            && let [first, .., last] = &asked[..]
        {
            asked.extend(KeyRange::new(first.start(), last.end()));
        }
        let set = RangeSet::union(asked);
        let descent = Initiator::new(&set, self.now.entropy, options);
        self.phase = Phase::Healing;
        self.healing = Some(Healing::new(ranges, Some(descent)));
        self.ask();
    }

    /// Begins a session over single keys outside the held ranges, beside which
    /// nothing is watched. Those that one request cannot name come next time.
    pub(super) fn reconcile_strays(&mut self, mut keys: Vec<Key>) {
        let Some(session) = &self.session else {
            return self.start_over();
        };
        // requests name ranges in order, writes come as they were made
        keys.sort();
        keys.dedup();
        keys.truncate(usize::try_from(session.limits.max_ranges).unwrap_or(usize::MAX));
        let set = RangeSet::union(keys.iter().map(KeyRange::single).collect());
        let options = Options::new(&session.limits);
        let descent = Initiator::new(&set, self.now.entropy, options);
        self.cancel_stream();
        self.partial.clear();
        self.phase = Phase::Healing;
        self.healing = Some(Healing {
            strays: keys,
            ..Healing::new(Vec::new(), Some(descent))
        });
        self.ask();
    }

    /// What a session's requests name as held: for single keys no cursor.
    fn held_in(&self, healing: &Healing) -> Vec<wire::HeldRanges> {
        if healing.strays.is_empty() {
            return self.held(Some(&healing.ranges)).0;
        }
        let ranges = healing.strays.iter().map(KeyRange::single);
        vec![wire::HeldRanges {
            ranges: ranges.map(|r| wire::Range::from(&r)).collect(),
            cursor: None,
        }]
    }

    /// The session's next question, or its end.
    fn ask(&mut self) {
        let tree = self.image.settled();
        let Some(mut healing) = self.healing.take() else {
            return;
        };
        let request = healing.descent.as_mut().map(|d| d.next_request(tree));
        let held = self.held_in(&healing);
        self.healing = Some(healing);
        match request {
            None => {}
            Some(Ok(None)) => self.conclude(),
            Some(Ok(Some(request))) => {
                let limit = self
                    .session
                    .as_ref()
                    .map_or(0, |s| s.limits.max_response_bytes);
                self.call(Request::Reconcile(wire::ReconcileRequest {
                    space: self.settings.space.to_string(),
                    held,
                    newest_commit: self.newest_commit(),
                    horizon: self.meta.horizon.0,
                    max_response_bytes: u32::try_from(limit).unwrap_or(u32::MAX),
                    ..request
                }));
            }
        }
    }

    pub(super) fn reconciled(&mut self, response: wire::ReconcileResponse) {
        if let Err(error) = self.take_answer(response) {
            self.healing = None;
            self.fail(error);
        }
    }

    fn take_answer(&mut self, response: wire::ReconcileResponse) -> Result<(), CallError> {
        let Some(healing) = &self.healing else {
            return Ok(());
        };
        let position = check::position(response.position.as_ref())?;
        let asked = self.held_in(healing).len();
        let groups = check::statuses(&response.held, asked)?;
        self.same_history(position, &groups, &healing.ranges.clone())?;
        let Some(healing) = &mut self.healing else {
            return Ok(());
        };
        let statuses = self.session.as_ref().map_or(&[][..], |s| &s.statuses);
        if behind(&self.meta.ranges, statuses, &healing.ranges, position.head) {
            if mutant!(LaggingHammered) {
                self.ask();
                return Ok(());
            }
            return Err(CallError::new(
                Cause::Refused(Reason::Lagging),
                "the server answers from a state before the replica's cursor",
            ));
        }
        let Some(descent) = &mut healing.descent else {
            return Ok(());
        };
        let step = match descent.handle_response(self.image.tree(), response) {
            Ok(step) => step,
            Err(TurnError::Peer(e)) if e.leads_nowhere() && healing.strays.is_empty() => {
                self.take_snapshot_instead();
                return Ok(());
            }
            Err(e) => return Err(CallError::misbehaved(e.to_string())),
        };
        healing.healed.rounds = descent.rounds();
        let found: BTreeSet<&Key> = step
            .records
            .iter()
            .map(|r| &r.key)
            .chain(step.lacking.iter().map(|l| &l.key))
            .chain(&step.conflicts)
            .collect();
        let ranges = step.different.iter().map(|r| narrowed(r, &found));
        healing.healed.ranges.extend(ranges);
        healing.healed.received += step.records.len() as u64;
        healing.wanted.extend(step.wanted.iter().cloned());
        let tree = self.image.tree();
        let lacking = step.lacking.into_iter();
        healing.missing.extend(
            lacking
                .filter(|_| !mutant!(LacksIgnored))
                .filter_map(|l| tree.get(l.key.as_bytes()).map(|d| (l.key, *d))),
        );
        healing.cursor = Some(match healing.cursor {
            Some(lowest)
                if lowest.point.sequence <= position.head.point.sequence
                    && !mutant!(LastPositionAdopted) =>
            {
                lowest
            }
            _ => position.head,
        });
        let early = healing
            .ranges
            .iter()
            .filter(|_| mutant!(SessionCursorEarly));
        let cursors = early.map(|i| (*i, position.head)).collect();
        for record in &step.records {
            self.check_record(record)?;
        }
        let point = position.head.point;
        let records = step.records.into_iter();
        let records = records.filter(|_| !mutant!(AnswersNotMerged));
        self.ops.push_back(Op::Merge(Incoming {
            records: records.map(|r| (r, point)).collect(),
            cursors,
            snapshot: None,
        }));
        Ok(())
    }

    /// Gives the session up; what it brought stays.
    fn take_snapshot_instead(&mut self) {
        if let Some(healing) = self.healing.take() {
            self.bootstrap_from(healing.ranges);
        }
    }

    /// A session lives in one history, at one horizon.
    pub(super) fn same_history(
        &self,
        position: gosync_proto::history::Position,
        groups: &[HistoryStatus],
        ranges: &[usize],
    ) -> Result<(), CallError> {
        let Some(session) = &self.session else {
            return Ok(());
        };
        let now = self.spread(groups, Some(ranges));
        let same = position.horizon == self.meta.horizon
            && position.head.point.epoch == session.position.head.point.epoch
            && ranges.iter().all(|i| {
                let (a, b) = (session.statuses.get(*i), now.get(*i));
                a.zip(b).is_some_and(|(a, b)| {
                    a.lineage == b.lineage && a.behind_compaction == b.behind_compaction
                })
            });
        if same || mutant!(MixedHistories) {
            Ok(())
        } else {
            Err(CallError::new(
                Cause::Refused(Reason::HistoryChanged),
                "the server's history changed during the session",
            ))
        }
    }

    pub(super) fn heal_merged(&mut self, merged: Merged) {
        if let Some(healing) = &mut self.healing {
            healing.ahead.extend(merged.ahead);
        }
        self.publish(merged.outcome);
        self.ask();
    }

    /// Every range is resolved: what was found missing is decided about.
    pub(super) fn conclude(&mut self) {
        let (Some(session), Some(healing)) = (&self.session, &mut self.healing) else {
            return self.start_over();
        };
        if !healing.strays.is_empty() {
            let keys = std::mem::take(&mut healing.strays);
            let missing = std::mem::take(&mut healing.missing).into_iter();
            let lacking = missing.map(|(key, _)| key).collect();
            return self
                .ops
                .push_back(Op::RestampStrays(keys, lacking, self.meta.horizon));
        }
        let found = Healed {
            offered: healing.missing.len() as u64,
            ranges: joined(healing.healed.ranges.clone()),
            ..healing.healed
        };
        self.concluding = (found != Healed::default()).then_some((self.meta.era, found));
        let cursor = healing.cursor.unwrap_or(session.position.head);
        self.ops.push_back(Op::Conclude(Conclusion {
            ancestry: session.ancestry.clone(),
            statuses: session.statuses.clone(),
            horizon: self.meta.horizon,
            cursor,
            ranges: healing.ranges.clone(),
            missing: std::mem::take(&mut healing.missing),
            ahead: std::mem::take(&mut healing.ahead),
            wanted: RangeSet::union(std::mem::take(&mut healing.wanted)),
            writable: session.writable.clone(),
            now_ms: self.now.wall_ms,
            equal: healing.equal,
        }));
    }

    /// The store failed at the end of a session, and is open again: where that
    /// end was durable all the same, no later session finds what was healed.
    pub(super) fn tell_of_doubtful_end(&mut self) {
        let ended = self.concluding.take();
        if let Some((_, healed)) = ended.filter(|(era, _)| self.meta.era > *era) {
            self.notify(Notice::Healed(healed));
        }
    }

    pub(super) fn concluded(&mut self, concluded: Concluded) {
        self.concluding = None;
        if concluded.offered > 0 {
            self.sending.offered();
        }
        let mut healing = self.healing.take();
        let ended = healing.as_mut().and_then(|h| h.ended.take());
        let of_ranges = healing.as_ref().is_none_or(|h| !h.ranges.is_empty());
        if let Some(healing) = healing {
            let healed = Healed {
                offered: concluded.offered as u64,
                dropped: concluded.dropped.len() as u64,
                quarantined: concluded.quarantined as u64,
                ranges: joined(healing.healed.ranges),
                ..healing.healed
            };
            if let Some(report) = &mut self.verifying {
                report.healed_ranges.extend(healed.ranges.iter().cloned());
                report.rounds += healed.rounds;
            }
            if healed != Healed::default() {
                self.notify(Notice::Healed(healed));
            }
            self.verified = (healing.equal || mutant!(ShortDigestsVerify)) && of_ranges;
        }
        self.publish(concluded.outcome);
        if !concluded.damaged.is_empty() {
            self.notify(Notice::Damaged(concluded.damaged));
        }
        self.tell_doubts(concluded.in_doubt);
        if !matches!(
            self.phase,
            Phase::Connecting | Phase::Healing | Phase::Bootstrapping
        ) {
            return;
        }
        if of_ranges {
            self.damaged.clear();
        }
        // the session is over: the replica is where the server is
        if let Some(session) = self.session.as_mut().filter(|_| of_ranges) {
            for status in &mut session.statuses {
                status.lineage = gosync_proto::history::Lineage::Same;
                status.behind_compaction = false;
            }
        }
        match ended {
            Some(error) => self.fail(error),
            None => self.push_first(),
        }
    }
}

/// Whether an answer comes from a state before what the replica followed of
/// the present history (RECON-035). Of a history that the server cannot place
/// it followed nothing, whatever its cursor says.
fn behind(held: &[HeldRange], statuses: &[HistoryStatus], ranges: &[usize], head: Cursor) -> bool {
    ranges.iter().any(|i| {
        let followed = match statuses.get(*i) {
            Some(status) if status.lineage != Lineage::Same => status.mapped_sequence,
            _ => held
                .get(*i)
                .and_then(|h| h.cursor)
                .filter(|c| c.point.epoch == head.point.epoch)
                .map_or(0, |c| c.point.sequence),
        };
        followed > head.point.sequence && !mutant!(LaggingBelieved)
    })
}

/// From the first to the last key that differed, where some are known.
pub(super) fn narrowed(range: &KeyRange, found: &BTreeSet<&Key>) -> KeyRange {
    let mut within = found.iter().filter(|k| range.contains(k.as_bytes()));
    let narrow = within.next().and_then(|first| {
        let last = within.next_back().unwrap_or(first);
        KeyRange::new(first.as_bytes(), Some(&last.successor())).ok()
    });
    narrow.unwrap_or_else(|| range.clone())
}

/// Neighbouring ranges as one, for people.
fn joined(ranges: Vec<KeyRange>) -> Vec<KeyRange> {
    RangeSet::union(ranges).as_slice().to_vec()
}
