//! What a replica checks of everything that a server sends, before any of it
//! is stored.

use super::Engine;
use crate::transport::CallError;
use gosync_proto::history::{Cursor, HistoryStatus, Position};
use gosync_proto::version::skew_bound;
use gosync_proto::{Record, mutant, wire};

impl Engine {
    /// Records as the protocol allows them: well-formed, in the held ranges,
    /// and not too far in the future.
    pub(super) fn check_records(
        &self,
        records: Vec<wire::Record>,
    ) -> Result<Vec<Record>, CallError> {
        let read =
            |r| Record::try_from(r).map_err(|e| CallError::misbehaved(format!("a record's {e}")));
        let taken = |r: &Result<Record, CallError>| match r {
            Ok(record) if mutant!(SkewSkipped) => self.check_skew(record).is_ok(),
            _ => true,
        };
        let checked = |r: Result<Record, CallError>| {
            let record = r?;
            self.check_record(&record)?;
            Ok(record)
        };
        let records = records.into_iter().map(read);
        records.filter(taken).map(checked).collect()
    }

    /// One record of the held ranges, or under a key of the session under way.
    pub(super) fn check_record(&self, record: &Record) -> Result<(), CallError> {
        let key = record.key.as_bytes();
        let held = self.meta.ranges.iter().any(|h| h.range.contains(key));
        let healed = self.healing.as_ref();
        let asked = held || healed.is_some_and(|h| h.strays.contains(&record.key));
        if !asked && !mutant!(StrangersAccepted) {
            return Err(CallError::misbehaved(format!(
                "the record {} lies outside of what was asked for",
                record.key
            )));
        }
        self.check_skew(record)
    }

    /// A version that is too far ahead would rule its key for ever.
    pub(super) fn check_skew(&self, record: &Record) -> Result<(), CallError> {
        let Some(session) = &self.session else {
            return Ok(());
        };
        let now = self.now.wall_ms.max(self.server_now_ms());
        let bound = skew_bound(now, session.limits.max_clock_skew_ms);
        if record.version.time > bound && !mutant!(SkewAccepted) {
            return Err(CallError::misbehaved(format!(
                "the record {} is dated too far ahead, at {} ms; check the clocks of this device and of the server",
                record.key,
                record.version.time.millis()
            )));
        }
        Ok(())
    }

    /// The server's clock by now, from what it last said.
    pub(super) fn server_now_ms(&self) -> u64 {
        self.session.as_ref().map_or(0, |s| {
            let (server_ms, mono_ms) = s.server_clock;
            server_ms.saturating_add(self.now.mono_ms.saturating_sub(mono_ms))
        })
    }

    /// Notes the server's clock.
    pub(super) fn server_clock(&mut self, server_ms: u64) {
        let mono_ms = self.now.mono_ms;
        if let Some(session) = &mut self.session
            && server_ms > 0
        {
            session.server_clock = (server_ms, mono_ms);
        }
    }
}

/// A position, which every answer has.
pub(super) fn position(position: Option<&wire::Position>) -> Result<Position, CallError> {
    position
        .and_then(Position::from_wire)
        .ok_or_else(|| CallError::misbehaved("the answer has no position"))
}

/// One status for each entry of the request's `held`.
pub(super) fn statuses(
    held: &[wire::HistoryStatus],
    asked: usize,
) -> Result<Vec<HistoryStatus>, CallError> {
    if held.len() != asked && !mutant!(StatusesUncounted) {
        return Err(CallError::misbehaved(format!(
            "the answer judges {} cursors of {asked}",
            held.len()
        )));
    }
    Ok(held.iter().map(HistoryStatus::from_wire).collect())
}

/// Whether `cursor` may follow `held` within one stream.
pub(super) fn advances(held: Option<Cursor>, cursor: Cursor) -> bool {
    held.is_none_or(|h| {
        (h.point.epoch == cursor.point.epoch || mutant!(ForeignEpochFollowed))
            && (h.point.sequence <= cursor.point.sequence || mutant!(CursorGoesBack))
    })
}
