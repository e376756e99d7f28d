//! One space of the peer: records in a map, history as a list, every rule by
//! the oracle.

use super::quirk::Quirk;
use super::refusal::{Detail, Refusal};
use crate::oracle::{self, Merge, Record, contains, reason_name};
use crate::schema::v1;
use std::collections::{BTreeMap, BTreeSet};

/// A record and where in the history it stands.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The record.
    pub record: Record,
    /// Of its arrival.
    pub sequence: u64,
}

/// The state of a space.
#[derive(Clone, Debug)]
pub struct Space {
    /// The lineage's random identity.
    pub epoch: u64,
    /// (epoch, sequence) of each earlier epoch, oldest first.
    pub restore_points: Vec<(u64, u64)>,
    /// What is held.
    pub records: BTreeMap<Vec<u8>, Stored>,
    /// (sequence, tag) of each commit's end.
    pub commits: Vec<(u64, u64)>,
    /// Tombstones with a lower time are not counted.
    pub horizon: u64,
    /// The highest sequence of a compacted tombstone.
    pub compacted_through: u64,
    /// The highest clock reading stored with a commit.
    pub clock: u64,
    /// Keys that it refuses to take, each with the reason.
    pub refuses: BTreeMap<Vec<u8>, &'static str>,
    /// Which rules it breaks.
    pub quirks: BTreeSet<Quirk>,
}

/// Whether some range of the entry holds the key.
pub fn covers(held: &v1::HeldRanges, key: &[u8]) -> bool {
    held.ranges.iter().any(|r| contains(r, key))
}

/// Whether a replica may go on from its cursor.
pub fn status_in_order(status: &v1::HistoryStatus) -> bool {
    status.lineage() == v1::Lineage::Same && !status.behind_compaction
}

impl Space {
    /// An empty space of a new lineage.
    pub fn new(epoch: u64) -> Space {
        Space {
            epoch,
            restore_points: Vec::new(),
            records: BTreeMap::new(),
            commits: Vec::new(),
            horizon: 0,
            compacted_through: 0,
            clock: 0,
            refuses: BTreeMap::new(),
            quirks: BTreeSet::new(),
        }
    }

    fn quirk(&self, quirk: Quirk) -> bool {
        self.quirks.contains(&quirk)
    }

    /// The newest commit's end.
    pub fn head(&self) -> v1::Cursor {
        let (sequence, tag) = self.commits.last().copied().unwrap_or((0, 0));
        v1::Cursor {
            epoch: self.epoch,
            sequence,
            tag,
        }
    }

    /// Head and horizon.
    pub fn position(&self) -> v1::Position {
        v1::Position {
            head: Some(self.head()),
            horizon: self.horizon,
        }
    }

    /// The lineage as answers carry it.
    pub fn lineage(&self) -> Vec<v1::RestorePoint> {
        self.restore_points
            .iter()
            .map(|(epoch, sequence)| v1::RestorePoint {
                epoch: *epoch,
                sequence: *sequence,
            })
            .collect()
    }

    /// Begins a new epoch, as a restored backup does.
    pub fn restored(&mut self, epoch: u64) {
        self.restore_points.push((self.epoch, self.head().sequence));
        self.epoch = epoch;
    }

    /// Judges a cursor, as the authority for this history.
    pub fn status(&self, cursor: Option<&v1::Cursor>) -> v1::HistoryStatus {
        use v1::Lineage::{Rewound, Same, Unknown};
        let (lineage, mapped) = match cursor {
            None => (Same, 0),
            Some(c) if c.epoch == self.epoch && c.sequence > self.head().sequence => {
                if self.quirk(Quirk::FutureCursorAccepted) {
                    (Same, c.sequence)
                } else {
                    (Unknown, 0)
                }
            }
            Some(c) if c.epoch == self.epoch => {
                let genuine = c.sequence == 0
                    || self.quirk(Quirk::TagIgnored)
                    || self.commits.contains(&(c.sequence, c.tag));
                if genuine {
                    (Same, c.sequence)
                } else {
                    (Unknown, 0)
                }
            }
            Some(c) => match self.restore_points.iter().position(|p| p.0 == c.epoch) {
                Some(at) => {
                    let kept = self.restore_points[at..].iter().map(|p| p.1).min();
                    let kept = kept.unwrap_or(0);
                    let genuine = c.sequence == 0
                        || c.sequence > kept
                        || self.quirk(Quirk::TagIgnored)
                        || self.commits.contains(&(c.sequence, c.tag));
                    if genuine {
                        (Rewound, c.sequence.min(kept))
                    } else {
                        (Unknown, 0)
                    }
                }
                None if self.quirk(Quirk::ForeignEpochAccepted) => (Same, 0),
                None => (Unknown, 0),
            },
        };
        v1::HistoryStatus {
            lineage: lineage as i32,
            mapped_sequence: mapped,
            behind_compaction: mapped < self.compacted_through,
        }
    }

    /// The statuses of a request's entries.
    pub fn statuses(
        &self,
        held: &[v1::HeldRanges],
        newest: Option<&v1::Cursor>,
    ) -> Vec<v1::HistoryStatus> {
        let newest = newest.filter(|_| !self.quirk(Quirk::NewestCommitIgnored));
        held.iter()
            .map(|h| self.worse(self.status(h.cursor.as_ref()), newest))
            .collect()
    }

    fn worse(&self, status: v1::HistoryStatus, newest: Option<&v1::Cursor>) -> v1::HistoryStatus {
        let Some(newest) = newest else { return status };
        let other = self.status(Some(newest));
        v1::HistoryStatus {
            lineage: status.lineage.max(other.lineage),
            mapped_sequence: status.mapped_sequence.min(other.mapped_sequence),
            behind_compaction: status.behind_compaction || other.behind_compaction,
        }
    }

    /// What goes with HISTORY_CHANGED.
    pub fn history_changed(&self, statuses: Vec<v1::HistoryStatus>) -> Refusal {
        Refusal {
            reason: "HISTORY_CHANGED",
            text: "reconcile first".into(),
            detail: Some(Box::new(Detail::History(v1::HistoryDetail {
                position: Some(self.position()),
                held: statuses,
                restore_points: self.lineage(),
            }))),
        }
    }

    /// The clock by which versions are judged, and which is told.
    pub fn reading(&self, now_ms: u64) -> u64 {
        now_ms.max(self.clock)
    }

    /// Merges a batch that was checked for form, and says each verdict.
    pub fn push(
        &mut self,
        request: &v1::PushRequest,
        limits: &v1::Limits,
        now_ms: u64,
        tag: u64,
        may_write: impl Fn(&[u8]) -> bool,
    ) -> Vec<v1::Verdict> {
        let reading = self.reading(now_ms);
        let bound = oracle::skew_bound(reading, limits.max_clock_skew_ms);
        let mut verdicts: Vec<Result<Option<Record>, v1::Verdict>> = request
            .records
            .iter()
            .map(|r| self.judge(r, request, limits, bound, &may_write))
            .collect();
        let rejected = |v: &Result<_, v1::Verdict>| matches!(v, Err(v) if v.outcome() == v1::Outcome::Rejected);
        if request.atomic && !self.quirk(Quirk::AtomicIgnored) && verdicts.iter().any(rejected) {
            for verdict in &mut verdicts {
                if verdict.is_ok() {
                    *verdict = Err(reject("BATCH_ABORTED", "another record was refused"));
                }
            }
        }
        let mut applied = false;
        let mut next = self.head().sequence;
        let mut out = Vec::new();
        for verdict in verdicts {
            match verdict {
                Err(verdict) => out.push(verdict),
                Ok(None) => out.push(v1::Verdict::default()),
                Ok(Some(record)) => {
                    next += if self.quirk(Quirk::SequenceGaps) {
                        2
                    } else {
                        1
                    };
                    applied = true;
                    out.push(v1::Verdict {
                        outcome: v1::Outcome::Applied as i32,
                        sequence: next,
                        ..v1::Verdict::default()
                    });
                    if !self.quirk(Quirk::AckWithoutStoring) {
                        self.records.insert(
                            record.key.clone(),
                            Stored {
                                record,
                                sequence: next,
                            },
                        );
                    }
                }
            }
        }
        if applied {
            self.commits.push((next, tag));
            self.clock = reading;
        }
        out
    }

    fn judge(
        &self,
        message: &v1::Record,
        request: &v1::PushRequest,
        limits: &v1::Limits,
        bound: u64,
        may_write: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<Record>, v1::Verdict> {
        let record = self
            .read(message)
            .map_err(|d| reject(d.reason(), d.name()))?;
        let size = record.value.len() as u64;
        if size > limits.max_value_bytes && !self.quirk(Quirk::AnyValueSize) {
            return Err(reject("LIMIT_EXCEEDED", "max_value_bytes"));
        }
        if let Some(reason) = self.refuses.get(&record.key) {
            return Err(reject(reason, "not this key"));
        }
        if !may_write(&record.key) {
            return Err(reject("NO_ACCESS", "no grant to write this key"));
        }
        let skewed =
            record.time > bound && record.time != self.horizon && !self.quirk(Quirk::NoClockBound);
        if let Some(held) = self.records.get(&record.key) {
            match self.merge(&record, &held.record) {
                Merge::Wins => {}
                Merge::Same if self.quirk(Quirk::RepeatedIsApplied) => {}
                Merge::Same => {
                    return Err(v1::Verdict {
                        outcome: v1::Outcome::Unchanged as i32,
                        sequence: held.sequence,
                        ..v1::Verdict::default()
                    });
                }
                Merge::Loses => {
                    let winner = held.record.to_wire();
                    return Err(v1::Verdict {
                        outcome: v1::Outcome::Superseded as i32,
                        sequence: held.sequence,
                        winner: (!self.quirk(Quirk::WinnerLeftOut)).then_some(winner),
                        ..v1::Verdict::default()
                    });
                }
            }
        }
        if skewed {
            return Err(reject("CLOCK_SKEW", "too far in the future"));
        }
        if self.quirk(Quirk::OldVersionsRefused) && record.time < 1 << 32 {
            return Err(reject("CLOCK_SKEW", "too old"));
        }
        if record.time < self.horizon && self.behind_for(request, &record.key) {
            return Err(reject("BEHIND_COMPACTION", "reconcile first"));
        }
        Ok(Some(record))
    }

    fn read(&self, message: &v1::Record) -> Result<Record, oracle::Defect> {
        let result = Record::from_wire(message);
        let tolerated = match result {
            Err(oracle::Defect::TombstoneWithValue) => Quirk::TombstoneWithValue,
            Err(oracle::Defect::UnknownFlag) => Quirk::UnknownFlagsAccepted,
            Err(oracle::Defect::LongKey) => Quirk::LongKeysAccepted,
            other => return other,
        };
        match (self.quirk(tolerated), message.version) {
            (true, Some(version)) => Ok(Record {
                key: message.key.clone(),
                time: version.time,
                replica: version.replica,
                flags: message.flags,
                value: message.value.clone(),
            }),
            _ => result,
        }
    }

    fn merge(&self, offered: &Record, held: &Record) -> Merge {
        let honest = oracle::merge(offered, held);
        let same_version = (offered.time, offered.replica) == (held.time, held.replica);
        let same_kind = offered.is_tombstone() == held.is_tombstone();
        let reversed = (self.quirk(Quirk::TieByReplicaReversed)
            && offered.time == held.time
            && offered.replica != held.replica)
            || (self.quirk(Quirk::TieByContentReversed) && same_version && same_kind)
            || (self.quirk(Quirk::TombstoneLosesTie) && same_version && !same_kind);
        match honest {
            Merge::Same => Merge::Same,
            _ if self.quirk(Quirk::LastArrivalWins) => Merge::Wins,
            Merge::Wins if reversed => Merge::Loses,
            Merge::Loses if reversed => Merge::Wins,
            honest => honest,
        }
    }

    fn behind_for(&self, request: &v1::PushRequest, key: &[u8]) -> bool {
        let entry = request.held.iter().find(|h| covers(h, key));
        let cursor = entry.and_then(|h| h.cursor.as_ref());
        let status = self.worse(self.status(cursor), request.newest_commit.as_ref());
        status.behind_compaction || status.lineage() == v1::Lineage::Unknown
    }

    /// Whether a range holds a key.
    pub fn inside(&self, range: &v1::Range, key: &[u8]) -> bool {
        contains(range, key)
            || (self.quirk(Quirk::RangeEndInclusive) && range.end.as_deref() == Some(key))
    }

    /// Count and fingerprint of a range.
    pub fn range_state(&self, range: &v1::Range) -> v1::RangeState {
        let mut inside: Vec<Record> = self
            .records
            .values()
            .map(|s| &s.record)
            .filter(|r| self.inside(range, &r.key) && oracle::visible(r, self.horizon))
            .cloned()
            .collect();
        if self.quirk(Quirk::FlagsOutOfDigest) {
            inside.iter_mut().for_each(|r| r.flags = 0);
        }
        let refs: Vec<&Record> = inside.iter().collect();
        let fingerprint = if self.quirk(Quirk::XorFingerprint) {
            let mut sum = [0u8; 32];
            for record in &refs {
                sum.iter_mut()
                    .zip(record.digest())
                    .for_each(|(s, d)| *s ^= d);
            }
            sum
        } else {
            oracle::fingerprint(&refs)
        };
        v1::RangeState {
            count: refs.len() as u64,
            fingerprint: fingerprint.to_vec(),
        }
    }

    /// Removes tombstones with a time below `before`, and raises the horizon
    /// to it, as far as there are commits that high.
    pub fn compact(&mut self, before: u64) {
        let newest = self.records.values().map(|s| s.record.time).max();
        self.horizon = self.horizon.max(before.min(newest.unwrap_or(0)));
        let horizon = self.horizon;
        let gone: Vec<Stored> = self
            .records
            .values()
            .filter(|s| !oracle::visible(&s.record, horizon))
            .cloned()
            .collect();
        for stored in gone {
            self.compacted_through = self.compacted_through.max(stored.sequence);
            self.records.remove(&stored.record.key);
        }
    }

    /// What a stream that has sent everything up to `sent` still has to send,
    /// by sequence: for each entry, what its ranges hold above its cursor.
    pub fn changes(&self, held: &[v1::HeldRanges], sent: u64) -> Vec<Stored> {
        let wanted = |entry: &v1::HeldRanges, stored: &Stored| {
            let after = entry.cursor.as_ref().map_or(0, |c| c.sequence);
            (stored.sequence > after || self.quirk(Quirk::WatchIgnoresCursor))
                && entry
                    .ranges
                    .iter()
                    .any(|r| self.inside(r, &stored.record.key))
        };
        let mut found: Vec<Stored> = self
            .records
            .values()
            .filter(|s| s.sequence > sent)
            .filter(|s| self.quirk(Quirk::WatchIgnoresRanges) || held.iter().any(|h| wanted(h, s)))
            .filter(|s| !(self.quirk(Quirk::WatchWithoutTombstones) && s.record.is_tombstone()))
            .cloned()
            .collect();
        found.sort_by_key(|s| s.sequence);
        found
    }

    /// The end of the commit that a sequence lies in.
    pub fn commit_end(&self, sequence: u64) -> v1::Cursor {
        let (sequence, tag) = self
            .commits
            .iter()
            .copied()
            .find(|(end, _)| *end >= sequence)
            .unwrap_or((0, 0));
        v1::Cursor {
            epoch: self.epoch,
            sequence,
            tag,
        }
    }
}

fn reject(reason: &str, detail: &str) -> v1::Verdict {
    let value = (1..=20).find(|v| reason_name(*v) == reason).unwrap_or(0);
    v1::Verdict {
        outcome: v1::Outcome::Rejected as i32,
        reason: value,
        detail: detail.to_owned(),
        ..v1::Verdict::default()
    }
}
