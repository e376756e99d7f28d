//! Watch: catching up, then live; checkpoints compared.

use super::{Engine, Phase, Request, check};
use crate::replica::merge::Incoming;
use crate::replica::ops::Op;
use crate::transport::{CallError, Cause};
use gosync_proto::history::{Cursor, Epoch};
use gosync_proto::{Digest, Reason, Record, mutant, wire};

/// The greatest message that is asked for: some thousand records, one
/// transaction.
pub(super) const STREAM_MESSAGE_BYTES: u32 = 1 << 20;

/// The most records of one commit that are kept until its end comes.
const MAX_PARTIAL: usize = 1_000_000;

/// After so many comparisons in a row that found a difference only a snapshot is
/// left to try; after one more the replica rests (RECON-045, RECON-046).
pub(super) const MAX_UNEQUAL: u32 = 2;

/// A live replica compares again after so much quiet, milliseconds: long before
/// the server's next checkpoint, so that people see what is verified.
pub(super) const QUIET_MS: u64 = 500;

/// How long after the last note both sides are noted to be equal again,
/// milliseconds.
const NOTE_INTERVAL_MS: u64 = 10_000;

impl Engine {
    pub(super) fn follow(&mut self) {
        self.phase = Phase::CatchingUp;
        self.partial.clear();
        self.received = 0;
        self.streamed = None;
        let (held, _) = self.held(None);
        let limit = self
            .session
            .as_ref()
            .map_or(0, |s| s.limits.max_response_bytes);
        self.open_stream(Request::Watch(wire::WatchRequest {
            space: self.settings.space.to_string(),
            held,
            newest_commit: self.newest_commit(),
            max_response_bytes: STREAM_MESSAGE_BYTES.min(u32::try_from(limit).unwrap_or(u32::MAX)),
            until_caught_up: false,
        }));
        if self.sending.more() {
            self.push_next();
        }
    }

    pub(super) fn watched(&mut self, message: wire::WatchResponse) {
        self.feed_watchdog();
        if mutant!(LiveUnread) && self.phase == Phase::Live {
            return;
        }
        use wire::watch_response::Event;
        let result = match message.event {
            Some(Event::Changes(changes)) => self.changes(changes),
            Some(Event::Checkpoint(checkpoint)) => self.checkpoint(checkpoint),
            Some(Event::Heartbeat(heartbeat)) => {
                self.server_clock(heartbeat.server_time_ms);
                match heartbeat.cursor {
                    Some(cursor) => self.adopt(cursor.into()),
                    None => Ok(()),
                }
            }
            Some(Event::End(end)) => Err(stream_end(end)),
            // an arm that this version does not know
            None if mutant!(UnknownEventsRefused) => {
                Err(CallError::misbehaved("an event that is none"))
            }
            None => Ok(()),
        };
        if let Err(error) = result {
            self.fail(error);
        }
    }

    fn changes(&mut self, changes: wire::Changes) -> Result<(), CallError> {
        let records = self.check_records(changes.records)?;
        let held = |r: &Record| self.image.tree().get(r.key.as_bytes()) == Some(&r.digest());
        if mutant!(HeldAgainRefused) && records.iter().any(held) {
            return Err(CallError::misbehaved("a record that is held"));
        }
        self.received += records.len() as u64;
        self.partial.extend(records);
        let Some(cursor) = changes.cursor.map(Cursor::from) else {
            if self.partial.len() > MAX_PARTIAL {
                return Err(CallError::misbehaved("a commit without an end"));
            }
            if mutant!(CommitTorn) {
                let point = self.meta.ranges.iter().find_map(|h| h.cursor);
                let point = point.unwrap_or(Cursor::origin(Epoch(0))).point;
                let records = std::mem::take(&mut self.partial);
                self.ops.push_back(Op::Merge(Incoming {
                    records: records.into_iter().map(|r| (r, point)).collect(),
                    cursors: Vec::new(),
                    snapshot: None,
                }));
            }
            return Ok(());
        };
        self.may_follow(cursor)?;
        if mutant!(CursorFirst) {
            self.ops.push_back(Op::Merge(Incoming {
                records: Vec::new(),
                cursors: self.raised(cursor),
                snapshot: None,
            }));
        }
        let mut records = std::mem::take(&mut self.partial);
        if mutant!(CommitInPieces) {
            let alone = |r: Record| Incoming {
                records: vec![(r, cursor.point)],
                cursors: Vec::new(),
                snapshot: None,
            };
            let pieces = records.drain(..).map(alone).map(Op::Merge);
            self.ops.extend(pieces);
        }
        self.ops.push_back(Op::Merge(Incoming {
            records: records.into_iter().map(|r| (r, cursor.point)).collect(),
            cursors: self.raised(cursor),
            snapshot: None,
        }));
        Ok(())
    }

    /// The ranges that `cursor` brings further. A stream over ranges with
    /// several cursors begins at the lowest, and passes the others on its way.
    fn raised(&self, cursor: Cursor) -> Vec<(usize, Cursor)> {
        let held = self.meta.ranges.iter().enumerate();
        held.filter(|(_, h)| h.cursor != Some(cursor) && check::advances(h.cursor, cursor))
            .map(|(i, _)| (i, cursor))
            .collect()
    }

    /// Within a stream, cursors never go back.
    fn may_follow(&mut self, cursor: Cursor) -> Result<(), CallError> {
        let lowest = self
            .meta
            .ranges
            .iter()
            .filter_map(|h| h.cursor)
            .min_by_key(|c| c.point.sequence);
        if !check::advances(self.streamed.or(lowest), cursor) {
            return Err(CallError::misbehaved(format!(
                "the cursor goes back, or to another epoch: {cursor:?}"
            )));
        }
        self.streamed = Some(cursor);
        Ok(())
    }

    /// Nothing in the ranges is newer than `cursor`, and everything up to it
    /// is stored.
    fn adopt(&mut self, cursor: Cursor) -> Result<(), CallError> {
        if !self.partial.is_empty() {
            return Err(CallError::misbehaved("a cursor inside of a commit"));
        }
        self.may_follow(cursor)?;
        let cursors = self.raised(cursor);
        if !cursors.is_empty() {
            self.ops.push_back(Op::Merge(Incoming {
                records: Vec::new(),
                cursors,
                snapshot: None,
            }));
        }
        Ok(())
    }

    fn checkpoint(&mut self, checkpoint: wire::Checkpoint) -> Result<(), CallError> {
        self.server_clock(checkpoint.server_time_ms);
        let position = check::position(checkpoint.position.as_ref())?;
        if position.horizon != self.meta.horizon && !mutant!(CheckpointHorizonIgnored) {
            return Err(CallError::new(
                Cause::Refused(Reason::HorizonChanged),
                "the server's horizon moved",
            ));
        }
        self.adopt(position.head)?;
        if self.phase == Phase::CatchingUp {
            self.phase = Phase::Live;
            self.publish_held_back();
            self.backoff.reset();
            self.horizons = 0;
            self.problem = None;
        }
        // what the replica holds clean may be newer than the checkpoint: then
        // the next one tells
        let newer = self.meta.newest_commit.is_some_and(|n| {
            n.point.epoch == position.head.point.epoch
                && n.point.sequence > position.head.point.sequence
        });
        if newer || self.sending.offers() {
            self.compare_at = Some(self.now.mono_ms + QUIET_MS);
            return Ok(());
        }
        if self.tells_nothing(&checkpoint.ranges) {
            // caught up is all that can be known
            if self.sending.is_idle() {
                self.in_sync();
            }
        } else if self.equals(&checkpoint.ranges)? || mutant!(CheckpointBelieved) {
            self.agreed();
        } else if !mutant!(DifferenceIgnored) {
            self.verified = false;
            self.unequal += 1;
            if self.unequal > MAX_UNEQUAL && !mutant!(HealsWithoutRest) {
                // not even a snapshot helped: say so, and rest before the next
                self.unequal = MAX_UNEQUAL - 1;
                let message = "the replica and the server differ, and reconciling does not mend it";
                self.wait(Some(Reason::Internal), message, Some(super::CAP_MS));
            } else {
                self.cancel_stream();
                self.cancel_call();
                self.sending.interrupt();
                self.heal_all();
            }
        }
        Ok(())
    }

    /// Whether there is nothing to compare: a server that does not offer
    /// Reconcile may keep no fingerprints (EXT-001).
    pub(super) fn tells_nothing(&self, ranges: &[wire::RangeState]) -> bool {
        let nothing = ranges.is_empty() && !mutant!(EmptyStatesRefused);
        nothing && self.session.as_ref().is_some_and(|s| !s.reconcile)
    }

    /// Compares the fingerprints of all held ranges with the replica's own.
    pub(super) fn equals(&mut self, ranges: &[wire::RangeState]) -> Result<bool, CallError> {
        let (_, order) = self.held(None);
        self.equals_in(&order, ranges)
    }

    pub(super) fn equals_in(
        &mut self,
        order: &[usize],
        ranges: &[wire::RangeState],
    ) -> Result<bool, CallError> {
        if ranges.len() != order.len() {
            return Err(CallError::misbehaved(format!(
                "{} fingerprints for {} ranges",
                ranges.len(),
                order.len()
            )));
        }
        for (i, theirs) in order.iter().zip(ranges) {
            let count = theirs.count;
            let theirs = Digest::try_from(&theirs.fingerprint[..])
                .map_err(|e| CallError::misbehaved(e.to_string()))?;
            let range = self.meta.ranges[*i].range.clone();
            let own = self.image.summary(&range);
            let same_count = mutant!(CountsSuffice) && own.count == count;
            if own.fingerprint != theirs && !same_count {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Asks whether both sides are equal, beside Watch.
    pub(super) fn compare(&mut self) {
        let quiet = self.call.is_none() && self.sending.is_idle() && self.partial.is_empty();
        if self.phase != Phase::Live {
            self.compare_at = None;
        } else if quiet {
            self.compare_at = None;
            self.comparing = true;
            self.hello();
        } else {
            self.compare_at = Some(self.now.mono_ms + QUIET_MS);
        }
    }

    /// Equal is what counts. A difference may be what the server committed a
    /// moment ago: the next checkpoint tells.
    pub(super) fn compared(&mut self, hello: &wire::HelloResponse) {
        let ranges = self.meta.ranges.len();
        let equal = hello.equal.len() == ranges && hello.equal.iter().all(|e| *e);
        if !std::mem::take(&mut self.comparing) {
            return;
        }
        if equal {
            self.agreed();
        } else if self.tells_nothing(&[]) && self.sending.is_idle() {
            self.in_sync();
        }
    }

    /// Both sides hold the same.
    fn agreed(&mut self) {
        self.unequal = 0;
        self.verified = true;
        self.bootstrap = None;
        let now = self.now.wall_ms;
        let noted = self.meta.last_synced_ms;
        self.meta.last_synced_ms = Some(now);
        if noted.is_none_or(|t| now.saturating_sub(t) >= NOTE_INTERVAL_MS) {
            self.ops.push_back(Op::Note(None, Some(now)));
        }
        if self.sending.is_idle() {
            self.in_sync();
        }
    }

    /// How many commits the replica was behind when the session began.
    pub(super) fn sequences_behind(&self) -> u64 {
        self.session.as_ref().map_or(0, |s| {
            let held = self.meta.ranges.iter().filter_map(|h| h.cursor);
            let lowest = held.map(|c| c.point.sequence).min().unwrap_or_default();
            s.position.head.point.sequence.saturating_sub(lowest)
        })
    }
}

/// The last message of a stream, as a failure: also a stream that says that it
/// is complete has to be opened again. What is allowed now that a grant was
/// withdrawn is for Hello to tell.
pub(super) fn stream_end(end: wire::StreamEnd) -> CallError {
    let error = CallError::from_end(end);
    match error.reason() {
        Some(Reason::NoAccess) if !mutant!(WithdrawnIsRefused) => CallError {
            cause: Cause::Refused(Reason::HistoryChanged),
            ..error
        },
        _ => error,
    }
}
