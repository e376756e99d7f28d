//! Snapshot: all records of the ranges in key order, from one state of the
//! store, cut into messages.

use super::{
    Access, Asked, Refusal, Service, Standing, range_states, ranges_to_wire, told_position, wanted,
};
use crate::store::{ReadTx, StoreError};
use gosync_proto::limits::Limits;
use gosync_proto::wire;
use gosync_proto::wire::snapshot_response::Event;
use gosync_proto::{Key, KeyRange, Reason, Record, SpaceId, Time, mutant};
use std::ops::ControlFlow;

/// The messages of the stream go through this, one by one; it may block, and
/// breaks when nobody listens any more.
pub type Emit<'e> = dyn FnMut(wire::SnapshotResponse) -> ControlFlow<()> + 'e;

impl Service {
    /// Streams the whole snapshot through `emit`, the end included. One state
    /// of the store stays open until it returns.
    ///
    /// # Errors
    /// Before the first message: MALFORMED, LIMIT_EXCEEDED, NO_ACCESS,
    /// SPACE_RETIRED, LAGGING. After it: STORAGE, also when damaged content
    /// was met on the way: it has been set aside then, and a resumed stream
    /// lists it.
    pub fn snapshot(
        &self,
        access: &Access,
        request: &wire::SnapshotRequest,
        now_ms: u64,
        emit: &mut Emit<'_>,
    ) -> Result<(), Refusal> {
        let asked = Asked::check_ranges(self, access, &request.space, &request.held)?;
        // the empty string is below every key and excludes nothing
        let after = match request.after_key.as_deref() {
            None => None,
            Some([]) if !mutant!(EmptyAfterKeyRefused) => None,
            Some(key) => Some(Key::new(key).map_err(|e| e.within("after_key"))?),
        };
        let newest = request.newest_commit.map(Into::into);
        let authoritative = self.store().authoritative();
        let (prepared, mut tx) = self.with_tree(&asked.space, |tree, tx| {
            let standing = Standing::judge(tx, &asked.held, newest, authoritative)?;
            let states = match mutant!(SnapshotOfNothing) {
                false => range_states(tree, asked.ranges()),
                true => range_states(&Default::default(), asked.ranges()),
            };
            Ok::<_, Refusal>((standing, states))
        })?;
        let (standing, states) = prepared?;
        if mutant!(SnapshotNeedsOrder) {
            standing.check_in_order()?;
        }
        // the entries of the request may come in any order
        let mut scope: Vec<&KeyRange> = asked.ranges().collect();
        if mutant!(FirstRangeOnly) {
            scope.truncate(1);
        }
        scope.sort();
        let rest: Vec<KeyRange> = scope
            .iter()
            .filter_map(|range| rest_of(range, after.as_ref()))
            .collect();
        let horizon = standing.state.position.horizon;
        let counted = if mutant!(SnapshotTotalOfAll) {
            scope.iter().map(|&range| range.clone()).collect()
        } else {
            rest.clone()
        };
        let (total_records, total_bytes) = totals(&mut *tx, &counted, horizon)?;
        let start = wire::SnapshotStart {
            position: (!mutant!(SnapshotNowhere)).then(|| told_position(&standing.state)),
            held: standing.held_to_wire(),
            restore_points: standing.lineage_to_wire(),
            total_records: match mutant!(TotalsUntold) {
                false => total_records,
                true => 0,
            },
            total_bytes,
            wanted: ranges_to_wire(&wanted(&mut *tx, scope.into_iter())?),
        };
        let mut emit = |event| emit(wire::SnapshotResponse { event: Some(event) });
        if !mutant!(SnapshotStartUnsaid) && emit(Event::Start(start)).is_break() {
            return Ok(());
        }
        let budget = self.message_bytes(request.max_response_bytes);
        let sent = send_records(&mut *tx, &rest, horizon, budget, &mut |mut records| {
            if mutant!(SnapshotBackwards) {
                records.reverse();
            }
            if mutant!(SnapshotBySignedBytes) {
                records.sort_by_key(|r| r.key.iter().map(|b| *b as i8).collect::<Vec<_>>());
            }
            if mutant!(RecordsReadLater) {
                self.read_anew(&asked.space, &mut records);
            }
            emit(Event::Chunk(wire::SnapshotChunk { records }))
        })?;
        let damage = tx.take_damage();
        drop(tx);
        if self.quarantine(&asked.space, damage, now_ms)? {
            return Err(Refusal {
                retry_after_ms: 1,
                ..Refusal::new(
                    Reason::Storage,
                    "damaged content was met and set aside; resume after the last key",
                )
            });
        }
        if sent.is_continue() {
            let mut states = match mutant!(StatesReadLater) {
                false => states,
                true => {
                    let later =
                        self.with_tree(&asked.space, |tree, _| range_states(tree, asked.ranges()));
                    later?.0
                }
            };
            if mutant!(FingerprintsOfSpace) {
                salt(&mut states, &asked.space);
            }
            let complete = Event::Complete(wire::SnapshotComplete { ranges: states });
            let _ = (mutant!(SnapshotCompleteUnsaid) || emit(complete).is_continue())
                && emit(Event::End(Default::default())).is_continue();
        }
        Ok(())
    }
}

/// Fingerprints that no other space has: for a mutant.
fn salt(states: &mut [wire::RangeState], space: &SpaceId) {
    for state in states {
        let bytes = state.fingerprint.iter_mut();
        bytes
            .zip(space.as_str().bytes().rev())
            .for_each(|(byte, salt)| *byte ^= salt);
    }
}

impl Service {
    /// The records as they are now: for a mutant.
    fn read_anew(&self, space: &SpaceId, records: &mut [wire::Record]) {
        let Ok(mut now) = self.store().read(space) else {
            return;
        };
        for record in records {
            let key = Key::new(&record.key[..]);
            if let Some(Ok(Some(stored))) = key.ok().map(|key| now.get(&key)) {
                *record = stored.record.into();
            }
        }
    }
}

/// The part of a range above a key.
fn rest_of(range: &KeyRange, after: Option<&Key>) -> Option<KeyRange> {
    match after {
        None => Some(range.clone()),
        Some(_) if mutant!(SnapshotNeverResumed) => Some(range.clone()),
        Some(key) if mutant!(SnapshotAfterInclusive) => KeyRange::new(key.as_bytes(), None)
            .ok()
            .and_then(|above| above.intersect(range)),
        Some(key) => KeyRange::new(&key.successor(), None)
            .ok()
            .and_then(|above| above.intersect(range)),
    }
}

/// Records and bytes that are going to be sent. Damaged ones are counted,
/// since no value is read.
fn totals(
    tx: &mut dyn ReadTx,
    ranges: &[KeyRange],
    horizon: Time,
) -> Result<(u64, u64), StoreError> {
    let (mut records, mut bytes) = (0, 0);
    for range in ranges {
        tx.digests(range, &mut |d| {
            if d.counts_at(horizon) {
                records += 1;
                bytes += d.size;
            }
            ControlFlow::Continue(())
        })?;
    }
    Ok((records, bytes))
}

fn send_records(
    tx: &mut dyn ReadTx,
    ranges: &[KeyRange],
    horizon: Time,
    budget: usize,
    send: &mut dyn FnMut(Vec<wire::Record>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, StoreError> {
    let mut chunk: Vec<wire::Record> = Vec::new();
    let mut bytes = 0;
    let mut flow = ControlFlow::Continue(());
    for range in ranges {
        tx.scan(range, None, &mut |stored| {
            let record: Record = stored.record;
            let old = record.version.time < horizon
                && !(mutant!(SnapshotWithOldTombstones) || mutant!(HorizonWithoutEffect));
            if record.is_tombstone() && (old || mutant!(SnapshotWithoutTombstones)) {
                return ControlFlow::Continue(());
            }
            let size = Limits::encoded_bound(&record.key, record.content.value().len());
            if bytes + size > budget && !chunk.is_empty() && !mutant!(OneChunk) {
                bytes = 0;
                flow = send(std::mem::take(&mut chunk));
                if mutant!(SnapshotOmits) {
                    return flow;
                }
            }
            bytes += size;
            chunk.push(record.into());
            flow
        })?;
        if flow.is_break() {
            return Ok(flow);
        }
    }
    if !chunk.is_empty() {
        flow = send(chunk);
    }
    Ok(flow)
}
