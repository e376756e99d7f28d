//! Coming online, Hello and what follows from it, and every way of failing.

use super::{Effect, Engine, Notice, Phase, Problem, Report, Request, backoff, check};
use crate::replica::ops::Op;
use crate::replica::session::Conclusion;
use crate::replica::upkeep::{Horizon, Verified};
use crate::store::StoreError;
use crate::transport::{CallError, Cause};
use gosync_proto::history::{Ancestry, Cursor, HistoryStatus, Lineage, Position};
use gosync_proto::limits::Limits;
use gosync_proto::reason::Action;
use gosync_proto::version::skew_bound;
use gosync_proto::{Key, KeyRange, PROTOCOL_VERSION, RangeSet, Reason, mutant, wire};

/// What Hello established.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub version: u32,
    /// Whether Reconcile and checkpoints are in force.
    pub reconcile: bool,
    pub limits: Limits,
    pub position: Position,
    pub ancestry: Ancestry,
    /// By held range.
    pub statuses: Vec<HistoryStatus>,
    pub writable: RangeSet,
    /// The server's wall clock, and the monotonic reading when it was told.
    pub server_clock: (u64, u64),
    pub total_records: u64,
}

/// The least pause after a failure, even when the user asks, milliseconds.
const LEAST_PAUSE_MS: u64 = 1_000;

/// A server that calls for a new session is followed at once as often as this,
/// milliseconds, and otherwise after a pause.
const RESYNC_INTERVAL_MS: u64 = 60_000;

/// How often the horizon may move in a row before the replica gives up for now.
const MAX_HORIZONS: u32 = 4;

impl Engine {
    pub(super) fn go_online(&mut self) {
        self.online = true;
        match self.phase {
            Phase::Offline => self.open(),
            // the user did something about it
            Phase::NeedsAuth | Phase::UpgradeRequired | Phase::StorageError | Phase::Waiting => {
                self.renewed = false;
                self.backoff.reset();
                self.open();
            }
            _ => {}
        }
    }

    pub(super) fn open(&mut self) {
        self.halt(Phase::Opening);
        self.ops.push_back(Op::Activate);
        if !self.suspects.is_empty() {
            let suspects = std::mem::take(&mut self.suspects);
            self.ops
                .push_back(Op::RemoveDamaged(suspects.into_iter().collect()));
        }
    }

    /// Ends whatever is under way.
    pub(super) fn halt(&mut self, phase: Phase) {
        self.cancel_call();
        self.cancel_stream();
        self.retry_at = None;
        self.compare_at = None;
        self.comparing = false;
        self.healing = None;
        self.partial.clear();
        self.sending.interrupt();
        self.received = 0;
        self.phase = phase;
        if matches!(phase, Phase::Offline | Phase::Stopped) {
            self.session = None;
            self.bootstrap = None;
            self.image = super::Image::default();
        }
    }

    /// Begins a session anew, at once.
    pub(super) fn start_over(&mut self) {
        self.backoff.reset();
        self.authenticate(false);
    }

    /// Somebody wants to sync and not to wait for the backoff. But whoever asks
    /// again and again does not hammer the server.
    pub(super) fn try_sooner(&mut self) {
        let due = self.failed_at.saturating_add(LEAST_PAUSE_MS);
        self.retry_at = self.retry_at.map(|at| at.min(due));
        self.tick();
    }

    /// Asks for a token, and then says Hello.
    pub(super) fn authenticate(&mut self, refused: bool) {
        self.halt(Phase::Authenticating);
        self.effects.push(Effect::Authenticate { refused });
    }

    pub(super) fn connect(&mut self) {
        if self.now.mono_ms < self.not_before {
            self.halt(Phase::Waiting);
            self.retry_at = Some(self.not_before);
            return self.interrupted("the server asked to be left alone for a while");
        }
        if mutant!(HelloOnce) && self.session.is_some() {
            return self.push_first();
        }
        self.phase = Phase::Connecting;
        self.horizon_followed = false;
        self.hello();
    }

    pub(super) fn hello(&mut self) {
        let (held, order) = self.held(None);
        let fingerprints = order
            .iter()
            .map(|i| {
                let range = match mutant!(RangesUnbounded) {
                    true => KeyRange::all(),
                    false => self.meta.ranges[*i].range.clone(),
                };
                self.image.summary(&range).fingerprint.0.to_vec()
            })
            .collect();
        self.call(Request::Hello(wire::HelloRequest {
            versions: match mutant!(VersionsMadeUp) {
                true => vec![PROTOCOL_VERSION + 1],
                false => vec![PROTOCOL_VERSION],
            },
            features: vec![wire::Feature::Reconcile as i32, wire::Feature::Live as i32],
            space: self.settings.space.to_string(),
            held,
            newest_commit: self.newest_commit(),
            horizon: match mutant!(HorizonUntold) {
                true => 0,
                false => self.meta.horizon.0,
            },
            fingerprints,
            client: match mutant!(UserTold) {
                true => format!("{}, of {}", self.settings.client, user()),
                false => self.settings.client.clone(),
            },
        }));
    }

    /// The held ranges (those of `only`) as requests carry them, each with its
    /// own cursor; and the index of each. Those with equal cursors could be
    /// joined, but cursors move while an answer is on its way, and it tells
    /// what it tells in the order of the request.
    pub(super) fn held(&self, only: Option<&[usize]>) -> (Vec<wire::HeldRanges>, Vec<usize>) {
        let asked = |i: &usize| only.is_none_or(|o| o.contains(i));
        let order: Vec<usize> = (0..self.meta.ranges.len()).filter(asked).collect();
        let held = order.iter().map(|i| {
            let held = &self.meta.ranges[*i];
            wire::HeldRanges {
                ranges: vec![wire::Range::from(&held.range)],
                cursor: held.cursor.map(|mut cursor| {
                    cursor.tag ^= u64::from(mutant!(TagsAltered));
                    cursor.to_wire()
                }),
            }
        });
        (held.collect(), order)
    }

    /// The statuses of an answer, as one for each held range. Ranges that were
    /// not asked about keep the session's.
    pub(super) fn spread(
        &self,
        statuses: &[HistoryStatus],
        only: Option<&[usize]>,
    ) -> Vec<HistoryStatus> {
        let (_, order) = self.held(only);
        let mut by_range = match &self.session {
            Some(s) if s.statuses.len() == self.meta.ranges.len() => s.statuses.clone(),
            _ => vec![UNPLACED; self.meta.ranges.len()],
        };
        for (i, status) in order.into_iter().zip(statuses) {
            if let Some(slot) = by_range.get_mut(i) {
                *slot = *status;
            }
        }
        by_range
    }

    /// The newest commit that the replica knows, unless every cursor has come
    /// past it: then it tells nothing more, and the server would judge by it
    /// that the replica is behind.
    pub(super) fn newest_commit(&self) -> Option<wire::Cursor> {
        let passed = |n: &Cursor| {
            let mut held = self.meta.ranges.iter();
            held.all(|h| {
                h.cursor.is_some_and(|c| {
                    c.point.epoch == n.point.epoch && c.point.sequence >= n.point.sequence
                })
            })
        };
        let newest = self.meta.newest_commit;
        let told = newest.filter(|n| !passed(n) || mutant!(NewestCommitAlwaysTold));
        told.filter(|_| !mutant!(NewestCommitUntold))
            .map(Cursor::to_wire)
    }

    pub(super) fn hello_answered(&mut self, hello: wire::HelloResponse) {
        if let Err(error) = self.enter_session(&hello) {
            if mutant!(FailedHelloIgnored) {
                return self.follow();
            }
            return self.fail(error);
        }
        self.renewed = false;
        let Some(session) = self.session.clone() else {
            return;
        };
        if self.meta.limits != Some(session.limits) {
            self.meta.limits = Some(session.limits);
            self.ops.push_back(Op::Note(Some(session.limits), None));
        }
        // tombstones below a horizon that is known already came with Watch or from
        // the user, or their range is held again; looked at once in each session,
        // since those that are offered stay
        let time = session.position.horizon;
        let moved = time != self.meta.horizon;
        let left = !self.horizon_followed && !self.image.tombstones_below(time).is_empty();
        if (moved || left) && !mutant!(HorizonNotFollowed) {
            self.horizons += u32::from(moved);
            if self.horizons > MAX_HORIZONS {
                return self.fail(CallError::misbehaved("the horizon does not come to rest"));
            }
            self.horizon_followed = true;
            self.ops.push_back(Op::FollowHorizon(Horizon {
                time,
                ancestry: session.ancestry,
                statuses: session.statuses,
                tombstones: self.image.tombstones_below(time),
                writable: session.writable,
            }));
            return;
        }
        let ranges = self.meta.ranges.len();
        let counted = hello.equal.len() == ranges || mutant!(EqualUncounted);
        if counted && hello.equal.iter().all(|e| *e) {
            return self.found_equal(&session);
        }
        self.verified = false;
        if let Some(report) = &mut self.verifying {
            report.equal = false;
            self.heal_all();
        } else if self.in_order() {
            self.push_first();
        } else {
            self.heal_all();
        }
    }

    fn enter_session(&mut self, hello: &wire::HelloResponse) -> Result<(), CallError> {
        if hello.version != PROTOCOL_VERSION && !mutant!(VersionUnchecked) {
            return Err(CallError::new(
                Cause::Refused(Reason::UnsupportedVersion),
                format!("the server chose version {}", hello.version),
            ));
        }
        let position = check::position(hello.position.as_ref())?;
        let limits = Limits::from_wire(&hello.limits.unwrap_or_default());
        let now = self.now.wall_ms.max(hello.server_time_ms);
        let bound = skew_bound(now, limits.max_clock_skew_ms);
        if position.horizon > bound && !mutant!(FutureHorizonFollowed) {
            return Err(CallError::misbehaved(
                "the server's horizon lies in the future",
            ));
        }
        let (held, _) = self.held(None);
        let groups = check::statuses(&hello.held, held.len())?;
        if position.head.point.sequence == 0 && mutant!(UnwrittenSpaceStops) {
            let cause = Cause::Refused(Reason::SpaceRetired);
            return Err(CallError::new(cause, "there is no such space"));
        }
        self.session = None;
        let writable = hello
            .grants
            .iter()
            .filter(|g| {
                let unknown = g.access != wire::Access::Read as i32;
                g.access() == wire::Access::Write || unknown && mutant!(UnknownAccessWrites)
            })
            .filter_map(|g| KeyRange::prefix(&g.key_prefix).ok())
            .collect();
        self.session = Some(Session {
            version: hello.version,
            reconcile: hello.features.contains(&(wire::Feature::Reconcile as i32))
                || mutant!(FeatureAssumed),
            limits,
            position,
            ancestry: Ancestry::from_wire(position.head.point.epoch, &hello.restore_points),
            statuses: self.spread(&groups, None),
            writable: RangeSet::union(writable),
            server_clock: (hello.server_time_ms, self.now.mono_ms),
            total_records: hello.total_records,
        });
        Ok(())
    }

    /// Whether every range may go on from its cursor.
    fn in_order(&self) -> bool {
        let Some(session) = &self.session else {
            return false;
        };
        let cursors = self.meta.ranges.iter().all(|h| h.cursor.is_some());
        let relies = |s: &HistoryStatus| {
            s.in_order()
                || mutant!(LineageIgnored) && !s.behind_compaction
                || mutant!(CompactionIgnored) && s.lineage == Lineage::Same
        };
        let whole = session.reconcile || self.damaged.is_empty() || mutant!(DamageForgotten);
        cursors && whole && session.statuses.iter().all(relies)
    }

    /// Both sides hold the same: whatever the history was, there is nothing to
    /// reconcile, and the replica has followed up to here.
    fn found_equal(&mut self, session: &Session) {
        self.problem = None;
        self.unequal = 0;
        self.verified = true;
        let head = session.position.head;
        let followed = self.meta.ranges.iter().all(|h| h.cursor == Some(head));
        if followed && self.in_order() {
            self.meta.last_synced_ms = Some(self.now.wall_ms);
            self.ops.push_back(Op::Note(None, Some(self.now.wall_ms)));
            return self.push_first();
        }
        self.ops.push_back(Op::Conclude(Conclusion {
            ancestry: session.ancestry.clone(),
            statuses: session.statuses.clone(),
            horizon: session.position.horizon,
            cursor: head,
            ranges: (0..self.meta.ranges.len()).collect(),
            missing: Vec::new(),
            ahead: Vec::new(),
            wanted: RangeSet::default(),
            writable: session.writable.clone(),
            now_ms: self.now.wall_ms,
            equal: true,
        }));
    }

    // ---- failures ----

    /// A call or stream failed: what follows depends on the reason only.
    pub(super) fn fail(&mut self, error: CallError) {
        let reason = error.reason();
        let lost = reason.is_none() && error.action() == Action::Retry;
        let ended = matches!(error.cause, Cause::Status(0));
        if self.phase == Phase::Connecting && mutant!(FailedHelloIgnored) {
            return self.follow();
        }
        if error.cause == Cause::Misbehaved && mutant!(MisbehaviourDropsUnsent) {
            self.wait(reason, &error.to_string(), None);
            return self.ops.push_back(Op::Note(None, None));
        }
        let named = error.retry_after_ms.filter(|_| !mutant!(RetryAfterIgnored));
        if let Some(named) = named.filter(|ms| *ms > 0) {
            // also where a new session would begin at once (CLIENT-034)
            let pause = backoff::named(self.now.entropy, named);
            self.not_before = self.now.mono_ms.saturating_add(pause);
        }
        if lost && (mutant!(GoneForGood) || ended && mutant!(UnknownEndFatal)) {
            return self.fail_for_good(Phase::Stopped, reason, &error.to_string());
        }
        match error.action() {
            Action::Authenticate if self.renewed && mutant!(SignInUntold) => {
                self.wait(reason, &error.to_string(), None);
            }
            Action::Authenticate if self.renewed && !mutant!(TokensWithoutEnd) => {
                self.fail_for_good(Phase::NeedsAuth, reason, &error.to_string());
            }
            Action::Authenticate => {
                self.renewed = true;
                self.authenticate(true);
            }
            Action::Report if reason == Some(Reason::NoAccess) || reason.is_none() => {
                self.fail_for_good(Phase::NeedsAuth, reason, &error.to_string());
            }
            Action::Upgrade => {
                self.fail_for_good(Phase::UpgradeRequired, reason, &error.to_string());
            }
            Action::Resync if mutant!(ResyncStops) => {
                self.fail_for_good(Phase::Stopped, reason, &error.to_string());
            }
            Action::Stop => self.fail_for_good(Phase::Stopped, reason, &error.to_string()),
            Action::Resync if self.resyncs_at_once() => self.authenticate(false),
            // a stream that came to its end was no failure
            Action::Retry if reason == Some(Reason::StreamExpired) && self.phase == Phase::Live => {
                self.authenticate(false);
            }
            Action::Retry | Action::Resync | Action::Restamp | Action::Report => {
                self.wait(reason, &error.to_string(), error.retry_after_ms);
            }
        }
    }

    /// Whether a new session may begin without a pause: once a minute.
    fn resyncs_at_once(&mut self) -> bool {
        let now = self.now.mono_ms;
        let rests = |at: u64| now.saturating_sub(at) < RESYNC_INTERVAL_MS;
        let rests = self.resynced_at.is_some_and(rests);
        if !rests {
            self.resynced_at = Some(now);
        }
        !rests
    }

    /// Tries again after a pause.
    pub(super) fn wait(&mut self, reason: Option<Reason>, message: &str, at_least: Option<u64>) {
        self.halt(Phase::Waiting);
        self.horizons = 0;
        let at_least = at_least.filter(|_| !mutant!(RetryAfterIgnored));
        let pause = self
            .backoff
            .next(self.now.entropy, at_least.unwrap_or_default());
        self.failed_at = self.now.mono_ms;
        self.retry_at = Some(self.now.mono_ms.saturating_add(pause));
        self.report_problem(reason, message);
        self.interrupted(message);
    }

    pub(super) fn fail_for_good(&mut self, phase: Phase, reason: Option<Reason>, message: &str) {
        self.halt(phase);
        if mutant!(StopDropsUnsent) {
            self.ops.push_back(Op::Note(None, None));
        }
        self.report_problem(reason, message);
        self.interrupted(message);
    }

    /// The records that are held are others: they are read again, and a session
    /// begins with them. Who waits for a verification gets one of them.
    pub(super) fn ranges_changed(&mut self) {
        let wanted = self.hashing || self.ops.contains(&Op::Verify);
        let verifies = self.verifying.take().is_some() || wanted;
        self.ops.clear();
        self.bootstrap = None;
        self.concluding = None;
        self.open();
        if verifies {
            self.ops.push_back(Op::Verify);
        }
    }

    pub(super) fn storage_failed(&mut self, error: &StoreError) {
        self.ops.clear();
        self.halt(Phase::StorageError);
        // it goes on from what is stored, not from what came
        self.bootstrap = None;
        let pause = self.backoff.next(self.now.entropy, 1_000);
        self.retry_at = Some(self.now.mono_ms.saturating_add(pause));
        self.report_problem(None, &error.to_string());
        self.interrupted(&error.to_string());
    }

    fn report_problem(&mut self, reason: Option<Reason>, message: &str) {
        self.problem = Some(Problem {
            reason,
            message: message.to_owned(),
        });
    }

    pub(super) fn interrupted(&mut self, message: &str) {
        self.verifying = None;
        // whoever waited for this sees the state that it led to
        self.tell_state();
        self.notify(Notice::Interrupted(message.to_owned()));
    }

    // ---- verification ----

    /// Every stored byte was looked at: the tree is built anew, and compared
    /// with the server's.
    pub(super) fn store_verified(&mut self, verified: Verified) {
        let fresh = super::Image::new(verified.leaves, self.meta.horizon);
        let mut kept = std::mem::replace(&mut self.image, fresh);
        // the kept tree still has what was damaged: that is another finding
        let gone: Vec<_> = verified.damaged.iter().map(|k| (k.clone(), None)).collect();
        kept.update(&gone);
        let ranges: Vec<KeyRange> = self.meta.ranges.iter().map(|h| h.range.clone()).collect();
        let intact = ranges
            .iter()
            .all(|r| kept.summary(r) == self.image.summary(r));
        if !verified.damaged.is_empty() {
            self.verified = false;
            self.notify(Notice::Damaged(verified.damaged.clone()));
        }
        if !self.online {
            return;
        }
        self.verifying = Some(Report {
            records: verified.records,
            tree_intact: intact,
            equal: verified.damaged.is_empty(),
            damaged: verified.damaged,
            ..Report::default()
        });
        self.start_over();
    }

    /// Damaged records were removed: the difference to the server is found and
    /// healed by an ordinary session.
    pub(super) fn damage_removed(&mut self, keys: Vec<Key>) {
        if keys.is_empty() {
            // whoever found them waits to go on
            if self.sending.more() {
                self.push_next();
            }
            return;
        }
        let gone: Vec<_> = keys.iter().map(|k| (k.clone(), None)).collect();
        self.image.update(&gone);
        self.verified = false;
        self.damaged.extend(keys.iter().cloned());
        self.notify(Notice::Damaged(keys));
        if !matches!(
            self.phase,
            Phase::Offline | Phase::NeedsAuth | Phase::UpgradeRequired | Phase::Waiting
        ) {
            self.start_over();
        }
    }

    /// Both sides are equal and nothing waits: whoever asked for it is told.
    pub(super) fn in_sync(&mut self) {
        self.tell_state();
        if let Some(report) = self.verifying.take() {
            self.notify(Notice::Verified(report));
        }
        self.notify(Notice::InSync);
    }
}

/// What nobody has to know: for a mutant.
fn user() -> String {
    let name = std::env::var("USER").unwrap_or_else(|_| "somebody".into());
    format!("{name}@{}", std::env::consts::OS)
}

/// Before Hello nothing is known.
const UNPLACED: HistoryStatus = HistoryStatus {
    lineage: gosync_proto::history::Lineage::Unknown,
    mapped_sequence: 0,
    behind_compaction: true,
};
