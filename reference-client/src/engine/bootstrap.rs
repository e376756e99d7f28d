//! Bulk bootstrap: everything of the ranges from a snapshot, merged into what
//! is there, and resumed where it broke off.

use super::heal::{Healing, narrowed};
use super::{Engine, Phase, Progress, Request, check, follow};
use crate::replica::merge::{Incoming, Merged};
use crate::replica::ops::Op;
use crate::store::SnapshotProgress;
use crate::transport::CallError;
use gosync_proto::history::{Cursor, Lineage, Position};
use gosync_proto::merkle::Stream;
use gosync_proto::{Digest, Key, KeyRange, Record, Time, mutant, wire};
use std::collections::BTreeSet;

const AFTER_ITS_END: &str = "a snapshot that goes on after its end";

/// A bootstrap under way; it survives a broken stream.
#[derive(Debug)]
pub(super) struct Bootstrap {
    ranges: Vec<usize>,
    /// Horizon and standing when it began: it is resumed under the same only.
    terms: (Time, Vec<(Lineage, bool)>),
    /// The state that the first stream was read from.
    first: Option<Cursor>,
    /// That of the present stream.
    position: Option<Position>,
    /// The last key that was stored.
    after: Option<Vec<u8>>,
    /// The store held nothing in the ranges when it began, so nothing can be
    /// missing on the server, and it may go on after a restart.
    fresh: bool,
    resumed: bool,
    done: u64,
    total: u64,
    missing: Vec<(Key, Digest)>,
    ahead: Vec<Key>,
    wanted: Vec<KeyRange>,
    complete: bool,
    equal: bool,
    /// Fingerprints of what came, by range; none where the store was empty, so
    /// that it holds what came and nothing else.
    received: Vec<Stream>,
}

impl Bootstrap {
    pub(super) fn progress(&self) -> Progress {
        Progress {
            done: self.done,
            total: self.total.max(self.done),
        }
    }
}

impl Engine {
    /// Takes everything in these held ranges from a snapshot.
    pub(super) fn bootstrap_from(&mut self, ranges: Vec<usize>) {
        if mutant!(SnapshotUnspoken) {
            return self.fail_for_good(Phase::Stopped, None, "Snapshot is not spoken");
        }
        let epoch = self.session.as_ref().map(|s| s.position.head.point.epoch);
        let terms = self.terms(&ranges);
        // what was found missing is judged by the standing at the first stream
        let resumable = self.bootstrap.take().filter(|b| {
            let same = b.first.map(|c| c.point.epoch) == epoch && b.terms == terms;
            let same = same || mutant!(OtherTermsResumed);
            b.ranges == ranges && same && !b.complete
        });
        let bootstrap = match resumable {
            Some(b) => Bootstrap { resumed: true, ..b },
            None => self.new_bootstrap(ranges, epoch, terms),
        };
        let (held, _) = self.held(Some(&bootstrap.ranges));
        let limit = self
            .session
            .as_ref()
            .map_or(0, |s| s.limits.max_response_bytes);
        let mut after_key = bootstrap.after.clone();
        if mutant!(AfterKeyAhead)
            && let Some(key) = &mut after_key
        {
            key.push(0xff);
        }
        self.phase = Phase::Bootstrapping;
        self.bootstrap = Some(Bootstrap {
            position: None,
            ..bootstrap
        });
        self.open_stream(Request::Snapshot(wire::SnapshotRequest {
            space: self.settings.space.to_string(),
            held,
            newest_commit: self.newest_commit(),
            after_key,
            max_response_bytes: follow::STREAM_MESSAGE_BYTES
                .min(u32::try_from(limit).unwrap_or(u32::MAX)),
        }));
    }

    /// The horizon, and the standing in each of these ranges.
    fn terms(&self, ranges: &[usize]) -> (Time, Vec<(Lineage, bool)>) {
        let standing = |i: &usize| {
            let status = self.session.as_ref().and_then(|s| s.statuses.get(*i));
            status.map(|s| (s.lineage, s.behind_compaction))
        };
        let standings = ranges.iter().filter_map(standing).collect();
        (self.meta.horizon, standings)
    }

    fn new_bootstrap(
        &self,
        ranges: Vec<usize>,
        epoch: Option<gosync_proto::history::Epoch>,
        terms: (Time, Vec<(Lineage, bool)>),
    ) -> Bootstrap {
        let held: u64 = ranges
            .iter()
            .map(|i| self.image.tree().count(&self.meta.ranges[*i].range))
            .sum();
        // only a bootstrap of an empty store leaves this behind
        let left = self
            .meta
            .snapshot
            .clone()
            .filter(|s| Some(s.cursor.point.epoch) == epoch);
        let fresh = held == 0 || left.is_some();
        let received = if fresh { 0 } else { ranges.len() };
        Bootstrap {
            ranges,
            terms,
            first: left.as_ref().map(|s| s.cursor),
            position: None,
            fresh,
            resumed: left.is_some(),
            done: if left.is_some() { held } else { 0 },
            after: left.map(|s| s.after),
            total: 0,
            missing: Vec::new(),
            ahead: Vec::new(),
            wanted: Vec::new(),
            complete: false,
            equal: false,
            received: vec![Stream::new(); received],
        }
    }

    pub(super) fn snapshot_came(&mut self, message: wire::SnapshotResponse) {
        self.feed_watchdog();
        use wire::snapshot_response::Event;
        let result = match message.event {
            Some(Event::Start(start)) => self.snapshot_start(start),
            Some(Event::Chunk(chunk)) => self.snapshot_chunk(chunk.records),
            Some(Event::Complete(complete)) => self.snapshot_complete(&complete.ranges),
            Some(Event::End(end)) => self.snapshot_end(end),
            None => Ok(()),
        };
        if let Err(error) = result {
            self.fail(error);
        }
    }

    fn snapshot_start(&mut self, start: wire::SnapshotStart) -> Result<(), CallError> {
        let position = check::position(start.position.as_ref())?;
        let Some(bootstrap) = &self.bootstrap else {
            return Ok(());
        };
        let ranges = bootstrap.ranges.clone();
        let (held, _) = self.held(Some(&ranges));
        let groups = check::statuses(&start.held, held.len())?;
        self.same_history(position, &groups, &ranges)?;
        let Some(bootstrap) = &mut self.bootstrap else {
            return Ok(());
        };
        if bootstrap.position.is_some() && !mutant!(SecondStartTaken) {
            return Err(CallError::misbehaved("a snapshot with two beginnings"));
        }
        bootstrap.position = Some(position);
        bootstrap.first.get_or_insert(position.head);
        if mutant!(SnapshotLastPosition) {
            bootstrap.first = Some(position.head);
        }
        bootstrap.total = bootstrap.done.saturating_add(start.total_records);
        for range in &start.wanted {
            let range = KeyRange::try_from(range)
                .map_err(|e| CallError::misbehaved(format!("wanted: {e}")))?;
            bootstrap.wanted.push(range);
        }
        Ok(())
    }

    fn snapshot_chunk(&mut self, records: Vec<wire::Record>) -> Result<(), CallError> {
        let records = self.check_records(records)?;
        let Some(bootstrap) = &mut self.bootstrap else {
            return Ok(());
        };
        let (Some(position), Some(first)) = (bootstrap.position, bootstrap.first) else {
            return Err(CallError::misbehaved("a snapshot without its start"));
        };
        let mut last = bootstrap.after.clone();
        for r in &records {
            let ascends = |last: &[u8]| match mutant!(BytesSigned) {
                true => (r.key.as_bytes().iter().map(|b| b.cast_signed()))
                    .gt(last.iter().map(|b| b.cast_signed())),
                false => r.key.as_bytes() > last,
            };
            let ascends = last.as_deref().is_none_or(ascends);
            if !ascends && !mutant!(SnapshotInAnyOrder) {
                return Err(CallError::misbehaved("a snapshot that is out of order"));
            }
            last = Some(r.key.as_bytes().to_vec());
        }
        if bootstrap.complete && !mutant!(AfterTheEndTaken) {
            return Err(CallError::misbehaved(AFTER_ITS_END));
        }
        let Some(last) = last else {
            return Ok(());
        };
        let horizon = self.meta.horizon;
        let counted = |r: &&Record| !r.is_tombstone() || r.version.time >= horizon;
        for (i, stream) in bootstrap.ranges.iter().zip(&mut bootstrap.received) {
            let range = &self.meta.ranges[*i].range;
            let here = records.iter().filter(|r| range.contains(r.key.as_bytes()));
            for r in here.filter(counted) {
                stream
                    .push(r.key.as_bytes(), r.digest())
                    .map_err(|e| CallError::misbehaved(e.to_string()))?;
            }
        }
        if !bootstrap.fresh {
            let until = Some([&last[..], &[0]].concat());
            let found = missing(
                self.image.tree(),
                &self.meta.ranges,
                bootstrap,
                until.as_deref(),
                &records,
            );
            bootstrap.missing.extend(found);
        }
        bootstrap.done += records.len() as u64;
        if bootstrap.done > bootstrap.total && mutant!(TotalsBelieved) {
            return Err(CallError::misbehaved("more records than were announced"));
        }
        bootstrap.after = Some(last.clone());
        let early = bootstrap.ranges.iter();
        let early = early.filter(|_| mutant!(SnapshotCursorEarly));
        let cursors = early.map(|i| (*i, first)).collect();
        let snapshot = bootstrap.fresh.then_some(SnapshotProgress {
            cursor: first,
            after: last,
        });
        let point = position.head.point;
        self.ops.push_back(Op::Merge(Incoming {
            records: records.into_iter().map(|r| (r, point)).collect(),
            cursors,
            snapshot,
        }));
        Ok(())
    }

    pub(super) fn bootstrap_merged(&mut self, merged: Merged) {
        if let Some(bootstrap) = &mut self.bootstrap {
            let ahead = merged.ahead.into_iter();
            bootstrap
                .ahead
                .extend(ahead.filter(|_| !mutant!(AheadKept)));
        }
        self.publish(merged.outcome);
    }

    fn snapshot_complete(&mut self, ranges: &[wire::RangeState]) -> Result<(), CallError> {
        let Some(bootstrap) = &mut self.bootstrap else {
            return Ok(());
        };
        if bootstrap.position.is_none() {
            return Err(CallError::misbehaved("a snapshot without its start"));
        }
        if bootstrap.complete {
            return Err(CallError::misbehaved(AFTER_ITS_END));
        }
        if !bootstrap.fresh {
            let found = missing(self.image.tree(), &self.meta.ranges, bootstrap, None, &[]);
            bootstrap.missing.extend(found);
        }
        bootstrap.complete = true;
        let resumed = bootstrap.resumed;
        let (_, order) = self.held(Some(&self.bootstrap_ranges()));
        let told = !self.tells_nothing(ranges);
        let equal = told && (self.equals_in(&order, ranges)? || mutant!(SnapshotUncompared));
        let received = self.bootstrap.as_ref().map_or(&[][..], |b| &b.received);
        let as_told = match received {
            [] => equal,
            came => same(came, ranges) || mutant!(SnapshotUncompared),
        };
        if told && !as_told && !resumed {
            // these are not the server's records, and nothing is to be built on
            // them (SNAP-022), also not by whoever opens the store next
            self.meta.snapshot = None;
            self.snapshot_refused = true;
            self.ops.push_back(Op::ForgetSnapshot);
            return Err(CallError::misbehaved(
                "the snapshot's fingerprint is not that of its records",
            ));
        }
        if let Some(bootstrap) = &mut self.bootstrap {
            // a resumed one is compared at the first checkpoint: its parts come
            // from several states
            bootstrap.equal = equal && !resumed;
        }
        Ok(())
    }

    fn bootstrap_ranges(&self) -> Vec<usize> {
        self.bootstrap
            .as_ref()
            .map_or_else(Vec::new, |b| b.ranges.clone())
    }

    fn snapshot_end(&mut self, end: wire::StreamEnd) -> Result<(), CallError> {
        let complete = end.reason == 0 && end.retry_after_ms == 0;
        let error = follow::stream_end(end);
        if !self.snapshot_is_whole() {
            return Err(error);
        }
        self.snapshot_taken((!complete && !mutant!(SnapshotEndUnheard)).then_some(error));
        Ok(())
    }

    /// Whether all that a snapshot is for has come.
    pub(super) fn snapshot_is_whole(&self) -> bool {
        self.bootstrap.as_ref().is_some_and(|b| b.complete)
    }

    /// The stream is over, and nothing is missing; what its end said besides is
    /// done when the content is stored.
    pub(super) fn snapshot_taken(&mut self, ended: Option<CallError>) {
        self.cancel_stream();
        let Some(bootstrap) = self.bootstrap.take() else {
            return;
        };
        self.snapshot_refused = false;
        let lacking = bootstrap.missing.iter().map(|(key, _)| key);
        let found: BTreeSet<&Key> = lacking.chain(&bootstrap.ahead).collect();
        let ranges = bootstrap.ranges.iter();
        let held = ranges.filter_map(|i| Some(&self.meta.ranges.get(*i)?.range));
        let differ = |range: &&KeyRange| found.iter().any(|k| range.contains(k.as_bytes()));
        let differing = held.filter(differ).map(|r| narrowed(r, &found)).collect();
        let mut healing = Healing::new(bootstrap.ranges, None);
        healing.healed.ranges = differing;
        healing.cursor = bootstrap.first;
        healing.missing = bootstrap.missing;
        healing.ahead = bootstrap.ahead;
        healing.wanted = bootstrap.wanted;
        healing.equal = bootstrap.equal;
        healing.ended = ended;
        self.healing = Some(healing);
        self.conclude();
    }
}

/// Whether the fingerprints are those that the server told.
fn same(received: &[Stream], told: &[wire::RangeState]) -> bool {
    let own = received.iter().map(|s| s.clone().finish().fingerprint);
    received.len() == told.len() && own.zip(told).all(|(own, t)| t.fingerprint == own.0)
}

/// The replica's records between the last key of the chunk before and `until`
/// that the snapshot does not have.
fn missing(
    tree: &gosync_proto::merkle::Tree,
    held: &[crate::store::HeldRange],
    bootstrap: &Bootstrap,
    until: Option<&[u8]>,
    records: &[Record],
) -> Vec<(Key, Digest)> {
    let from = match &bootstrap.after {
        Some(after) => [&after[..], &[0]].concat(),
        None => Vec::new(),
    };
    let Ok(window) = KeyRange::new(&from, until) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    if mutant!(SnapshotLacksIgnored) {
        return found;
    }
    for i in &bootstrap.ranges {
        let Some(range) = held.get(*i).and_then(|h| h.range.intersect(&window)) else {
            continue;
        };
        for (key, digest) in tree.iter(&range) {
            let came = records
                .binary_search_by(|r| r.key.as_bytes().cmp(key))
                .is_ok();
            if !came && let Ok(key) = Key::new(key) {
                found.push((key, *digest));
            }
        }
    }
    found
}
