//! Push: each record judged in order, then committed together. The one place
//! that says in which order the reasons for a refusal are tried.

use super::{Access, Refusal, Service, Standing};
use crate::space::Commit;
use crate::store::{Applied, Kept, StoreError, WriteTx};
use gosync_proto::history::{Cursor, Lineage, behind_for};
use gosync_proto::limits::Limits;
use gosync_proto::record::Merge;
use gosync_proto::version::skew_bound;
use gosync_proto::wire::{self, Held};
use gosync_proto::{Digest, Invalid, Key, KeyRange, Reason, Record, SpaceId, Time, mutant};
use prost::Message;
use std::collections::HashSet;

impl Service {
    /// Judges and stores a batch. Returns after it is durable.
    ///
    /// # Errors
    /// The whole call is refused for a malformed request, for a key that
    /// occurs twice, for missing access to the space, for a retired space, and
    /// when the store fails. What is wrong with one record is its verdict.
    pub fn push(
        &self,
        access: &Access,
        request: wire::PushRequest,
        now_ms: u64,
    ) -> Result<wire::PushResponse, Refusal> {
        let (response, commit) = self.push_only(access, request, now_ms)?;
        self.follow(commit);
        Ok(response)
    }

    /// [`Service::push`], without what is of no matter to whoever waits for the
    /// answer: [`Service::follow`] is to be called afterwards.
    ///
    /// # Errors
    /// As [`Service::push`] says.
    pub(crate) fn push_only(
        &self,
        access: &Access,
        request: wire::PushRequest,
        now_ms: u64,
    ) -> Result<(wire::PushResponse, Option<Committed>), Refusal> {
        let batch = Batch::check(self, access, request, now_ms)?;
        let space = batch.space.clone();
        let outcome = self
            .store()
            .write(&space, move |tx| batch.judge_and_store(tx))?;
        let done = outcome?;
        if !matches!(done.change, Change::None) {
            self.spaces().committed(&space);
        }
        let commit = match done.change {
            Change::Commit(commit) => Some(Committed(space, commit)),
            Change::None | Change::Quarantine => None,
        };
        Ok((done.response, commit))
    }

    /// Brings the space's fingerprints over a commit. Until then, whoever asks
    /// for one reads the commit from the store.
    pub(crate) fn follow(&self, commit: Option<Committed>) {
        if let Some(Committed(space, commit)) = commit {
            self.spaces().advance(&space, &commit);
        }
    }
}

/// What a push committed.
pub(crate) struct Committed(SpaceId, Box<Commit>);

/// A record that passed the checks that need no store, or why it did not.
type Checked = Result<(Record, Digest), Rejection>;

/// A verdict of REJECTED.
struct Rejection {
    reason: Reason,
    detail: String,
}

impl Rejection {
    fn new(reason: Reason, detail: impl Into<String>) -> Rejection {
        Rejection {
            reason,
            detail: detail.into(),
        }
    }
}

impl From<Invalid> for Rejection {
    fn from(e: Invalid) -> Rejection {
        Rejection::new(e.reason, e.to_string())
    }
}

/// A checked request, ready for the writer's thread.
struct Batch {
    space: SpaceId,
    records: Vec<Checked>,
    atomic: bool,
    held: Vec<Held>,
    newest_commit: Option<Cursor>,
    limits: Limits,
    authoritative: bool,
    now_ms: u64,
    /// For the commit, if there is one.
    tag: u64,
}

/// A batch that was judged and stored.
struct Done {
    response: wire::PushResponse,
    change: Change,
}

/// What a push changed in the store.
enum Change {
    None,
    /// Damaged content was set aside, whatever else was stored.
    Quarantine,
    Commit(Box<Commit>),
}

/// What becomes of a record.
enum Fate {
    Apply { replaces: Option<Kept> },
    Unchanged { sequence: u64 },
    Superseded { sequence: u64, winner: Record },
    Reject(Rejection),
}

impl Batch {
    fn check(
        service: &Service,
        access: &Access,
        request: wire::PushRequest,
        now_ms: u64,
    ) -> Result<Batch, Refusal> {
        let limits = *service.limits();
        let space = SpaceId::new(&request.space)?;
        access.check_any()?;
        let count = request.records.len() as u64;
        let most = limits.max_push_records - u64::from(mutant!(MostRecordsRefused));
        if count > most && !mutant!(PushCountUnchecked) {
            let e = Invalid::limit(
                "records",
                "max_push_records",
                limits.max_push_records,
                count,
            );
            return Err(e.into());
        }
        if count == 0 && mutant!(EmptyPushRefused) {
            return Err(Invalid::malformed("records", "is empty").into());
        }
        let held = Held::list_from_wire(&request.held, limits.max_ranges)?;
        access.check_held(&held)?;
        let mut keys = HashSet::with_capacity(request.records.len());
        for (i, record) in request.records.iter().enumerate() {
            if !keys.insert(&record.key[..]) && !mutant!(DuplicateKeysAccepted) {
                let field = format!("records[{i}].key");
                return Err(Invalid::malformed(field, "occurs twice in the batch").into());
            }
        }
        drop(keys);
        let records = request
            .records
            .into_iter()
            .map(|record| check_record(&limits, access, record))
            .collect::<Vec<_>>();
        if mutant!(OneBadRefusesAll)
            && let Some(bad) = records.iter().find_map(|r| r.as_ref().err())
        {
            return Err(Refusal::new(bad.reason, bad.detail.clone()));
        }
        Ok(Batch {
            space,
            records,
            atomic: request.atomic,
            held,
            newest_commit: request.newest_commit.map(Into::into),
            limits,
            authoritative: service.store().authoritative(),
            now_ms,
            tag: if mutant!(SameTag) {
                1
            } else {
                service.entropy()
            },
        })
    }

    /// Returns the answer and what changed in the store, or a refusal before
    /// anything did.
    ///
    /// # Errors
    /// What the store says. A part may be stored by then: it has to be undone.
    fn judge_and_store(self, tx: &mut dyn WriteTx) -> Result<Result<Done, Refusal>, StoreError> {
        let judged = Standing::judge(tx, &self.held, self.newest_commit, self.authoritative)
            .and_then(|standing| {
                if mutant!(PushNeedsOrder) {
                    standing.check_in_order()?;
                }
                Ok((self.judge(tx, &standing)?, standing))
            });
        let (mut fates, standing) = match judged {
            Ok(judged) => judged,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if self.atomic
            && !mutant!(AtomicIgnored)
            && fates.iter().any(|f| matches!(f, Fate::Reject(_)))
        {
            for fate in &mut fates {
                if matches!(fate, Fate::Apply { .. }) {
                    *fate = Fate::Reject(Rejection::new(
                        Reason::BatchAborted,
                        "another record of the atomic batch was refused",
                    ));
                }
            }
        }
        let (now_ms, tag, budget) = (self.now_ms, self.tag, self.limits.max_response_bytes);
        let mut applied = Vec::new();
        let mut verdicts = Vec::with_capacity(fates.len());
        let mut winner_bytes = 0;
        let head = standing.state.head();
        let of_held = |sequence| {
            if mutant!(VerdictOfHeldIsNow) {
                head
            } else {
                sequence
            }
        };
        for (fate, checked) in fates.into_iter().zip(self.records) {
            verdicts.push(match (fate, checked) {
                (Fate::Apply { replaces }, Ok((record, digest))) => {
                    applied.push(Applied {
                        record,
                        digest,
                        replaces,
                    });
                    let outcome = match mutant!(AppliedCalledUnchanged) {
                        false => wire::Outcome::Applied,
                        true => wire::Outcome::Unchanged,
                    };
                    wire::Verdict {
                        outcome: outcome as i32,
                        sequence: match mutant!(SequenceOfHead) {
                            false => head + applied.len() as u64,
                            true => head,
                        },
                        ..Default::default()
                    }
                }
                (Fate::Unchanged { sequence }, _) => wire::Verdict {
                    outcome: wire::Outcome::Unchanged as i32,
                    sequence: of_held(sequence),
                    ..Default::default()
                },
                (Fate::Superseded { sequence, winner }, _) => {
                    let winner = wire::Record::from(winner);
                    let first = winner_bytes == 0;
                    winner_bytes += winner.encoded_len() as u64;
                    wire::Verdict {
                        outcome: wire::Outcome::Superseded as i32,
                        sequence: of_held(sequence),
                        // beyond the budget the replica gets it otherwise: by
                        // Watch, or when it sends the write again
                        winner: (first || winner_bytes <= budget)
                            .then_some(winner)
                            .filter(|_| !mutant!(WinnerLeftOut)),
                        ..Default::default()
                    }
                }
                (Fate::Reject(r), _)
                    if mutant!(AtomicPartReported) && r.reason == Reason::BatchAborted =>
                {
                    wire::Verdict {
                        outcome: wire::Outcome::Applied as i32,
                        sequence: head + 1,
                        ..Default::default()
                    }
                }
                (Fate::Reject(r), _) | (Fate::Apply { .. }, Err(r)) => wire::Verdict {
                    outcome: wire::Outcome::Rejected as i32,
                    reason: match mutant!(VerdictsWithoutReason) {
                        false => r.reason.to_wire() as i32,
                        true => 0,
                    },
                    detail: r.detail,
                    ..Default::default()
                },
            });
        }
        let before = standing.state.position;
        if mutant!(AckWithoutStoring) {
            applied.pop();
        }
        if mutant!(OldTombstonesNotStored) {
            let old = |a: &Applied| a.record.version.time < before.horizon;
            applied.retain(|a| !(a.record.is_tombstone() && old(a)));
        }
        // before what is stored, so that what was there is still known where
        // something older stands now
        let damage = tx.take_damage();
        let healed_or_hidden = !damage.is_empty();
        if healed_or_hidden {
            super::report_damage(&self.space, &damage);
            tx.quarantine(&damage, now_ms)?;
            for a in &mut applied {
                let gone = |k: &Kept| damage.iter().any(|d| d.sequence == k.sequence);
                a.replaces = a.replaces.take().filter(|k| !gone(k));
            }
        }
        let stored = tx.commit(&applied, tag, now_ms);
        if !mutant!(FailureAcknowledged) {
            stored?;
        }
        if mutant!(VerdictsBackwards) {
            verdicts.reverse();
        }
        let after = tx.state()?;
        let response = wire::PushResponse {
            verdicts,
            position: Some(match after.position {
                _ if mutant!(PositionBeforePush) => before.to_wire(),
                after => after.to_wire(),
            }),
            server_time_ms: match mutant!(PushWithoutTime) {
                false => standing.state.told_time(now_ms),
                true => 0,
            },
            held: standing.held_to_wire(),
        };
        let change = match (healed_or_hidden, applied.is_empty()) {
            (true, _) => Change::Quarantine,
            (false, true) => Change::None,
            (false, false) => Change::Commit(Box::new(Commit {
                before: standing.state,
                after,
                applied,
            })),
        };
        Ok(Ok(Done { response, change }))
    }

    fn judge(&self, tx: &mut dyn WriteTx, standing: &Standing) -> Result<Vec<Fate>, Refusal> {
        let keys: Vec<&Key> = self
            .records
            .iter()
            .flatten()
            .map(|(record, _)| &record.key)
            .collect();
        let mut kept = tx.lookup(&keys)?.into_iter();
        let mut room = Room::of(&self.limits, standing);
        let mut clock_ms = standing.state.clock_reading(self.now_ms);
        if mutant!(ClockFollowsRecords) {
            clock_ms = clock_ms.max(standing.state.newest_time.millis());
        }
        let allowed = match mutant!(NoSkewAllowed) {
            false => self.limits.max_clock_skew_ms,
            true => 0,
        };
        let newest_time = skew_bound(clock_ms, allowed);
        self.records
            .iter()
            .map(|checked| match checked {
                Err(r) => Ok(Fate::Reject(Rejection::new(r.reason, r.detail.clone()))),
                Ok((record, digest)) => {
                    let kept = kept.next().flatten();
                    if mutant!(SkewBeforeMerge) && record.version.time > newest_time {
                        let detail = "the version is ahead of the server's clock";
                        return Ok(Fate::Reject(Rejection::new(Reason::ClockSkew, detail)));
                    }
                    if mutant!(DamageRemembered) && set_aside(tx, &record.key)? {
                        let sequence = standing.state.head();
                        return Ok(Fate::Unchanged { sequence });
                    }
                    match merge(tx, record, digest, kept)? {
                        Fate::Apply { replaces } => Ok(self
                            .refuse(record, standing, newest_time, replaces, &mut room)
                            .map_or(Fate::Apply { replaces }, Fate::Reject)),
                        settled => Ok(settled),
                    }
                }
            })
            .collect()
    }

    /// Why a record that wins the merge is refused all the same.
    fn refuse(
        &self,
        record: &Record,
        standing: &Standing,
        newest_time: Time,
        replaces: Option<Kept>,
        room: &mut Room,
    ) -> Option<Rejection> {
        let (time, horizon) = (record.version.time, standing.state.position.horizon);
        // what is re-stamped at the horizon is welcome whatever the clock says
        let exempt = time == horizon && !mutant!(HorizonTimeRefused) || mutant!(SkewUnchecked);
        let skew_ms = self.limits.max_clock_skew_ms;
        let too_old = mutant!(OldVersionsRefused) && time.millis() + skew_ms < self.now_ms;
        if time > newest_time && !exempt || too_old {
            return Some(Rejection::new(
                Reason::ClockSkew,
                format!(
                    "the version is {} ms ahead of the server's clock, allowed are {} ms",
                    time.millis().saturating_sub(self.now_ms),
                    self.limits.max_clock_skew_ms
                ),
            ));
        }
        let status = standing.for_key(&self.held, &record.key);
        let behind = behind_for(status, record.version, horizon) && !mutant!(BehindAccepted)
            || mutant!(BehindRefusesAll) && status.behind_compaction
            || mutant!(BelowHorizonRefused) && time < horizon
            || mutant!(UnknownRefusesAll) && status.lineage == Lineage::Unknown;
        if behind {
            return Some(Rejection::new(
                Reason::BehindCompaction,
                "the version is below the horizon and the replica is behind the compaction",
            ));
        }
        room.take(record, replaces)
    }
}

fn check_record(limits: &Limits, access: &Access, record: wire::Record) -> Checked {
    let told = mutant!(ValuesTold).then(|| String::from_utf8_lossy(&record.value).into_owned());
    let record = Record::try_from(record).map_err(|e| {
        let told = told.map(|value| format!("{e}: {value}"));
        Rejection::new(e.reason, told.unwrap_or_else(|| e.to_string()))
    })?;
    limits.check_record(&record)?;
    if !access.may_write(&record.key) {
        return Err(Rejection::new(
            Reason::NoAccess,
            "the token grants no writing under this key",
        ));
    }
    let digest = record.digest();
    Ok((record, digest))
}

/// Whether what stood under this key was found damaged: for a mutant.
fn set_aside(tx: &mut dyn WriteTx, key: &Key) -> Result<bool, Refusal> {
    let range = KeyRange::new(key.as_bytes(), Some(&key.successor()))?;
    Ok(!tx.quarantined(&range, 1)?.is_empty())
}

/// How the record fares against what stands under its key. Values are read
/// only where the version alone does not make it the winner.
fn merge(
    tx: &mut dyn WriteTx,
    record: &Record,
    digest: &Digest,
    kept: Option<Kept>,
) -> Result<Fate, Refusal> {
    let apply = Fate::Apply { replaces: kept };
    let stands = |k: &Kept| {
        record.version < k.version
            || record.version == k.version && !mutant!(TieByArrival)
            || mutant!(DeletedForGood) && k.tombstone
    };
    let Some(kept) = kept.filter(|k| stands(k) && !mutant!(LastArrivalWins)) else {
        return Ok(apply);
    };
    // damaged content counts as absent, also where its digest is the same
    let Some(stored) = tx.get(&record.key)? else {
        return Ok(match mutant!(DamageStands) {
            false => apply,
            true => Fate::Unchanged {
                sequence: kept.sequence,
            },
        });
    };
    let same = mutant!(SameVersionIsSame) && record.version == kept.version;
    Ok(if stored.digest == *digest || same {
        Fate::Unchanged {
            sequence: kept.sequence,
        }
    } else {
        match record.merge_against(&stored.record) {
            Merge::Wins if !mutant!(DeletedForGood) => apply,
            Merge::Same => Fate::Unchanged {
                sequence: kept.sequence,
            },
            Merge::Wins | Merge::Loses => Fate::Superseded {
                sequence: kept.sequence,
                winner: stored.record,
            },
        }
    })
}

/// What the quota leaves.
struct Room {
    limits: Limits,
    records: u64,
    bytes: u64,
}

impl Room {
    fn of(limits: &Limits, standing: &Standing) -> Room {
        Room {
            limits: *limits,
            records: standing.state.records,
            bytes: standing.state.bytes,
        }
    }

    /// Takes what the record needs. Only growth beyond a quota is refused: a
    /// full space can still be emptied.
    fn take(&mut self, record: &Record, replaces: Option<Kept>) -> Option<Rejection> {
        let old = replaces.map_or((0, 0), |k| (1, k.size));
        let records = (self.records + 1).saturating_sub(old.0);
        let freed = match mutant!(ReplacedStillCounts) {
            false => old.1,
            true => 0,
        };
        let bytes = (self.bytes + record.size() as u64).saturating_sub(freed);
        for (name, quota, before, after) in [
            (
                "max_space_records",
                self.limits.max_space_records,
                self.records,
                records,
            ),
            (
                "max_space_bytes",
                self.limits.max_space_bytes,
                self.bytes,
                bytes,
            ),
        ] {
            let grows = after > before || mutant!(QuotaOnShrink);
            let full = after > quota || mutant!(FullAtQuota) && after == quota;
            if quota != 0 && full && grows && !mutant!(QuotaIgnored) {
                return Some(Rejection::new(
                    Reason::QuotaExceeded,
                    format!("the space is full: {name} is {quota}, this would make it {after}"),
                ));
            }
        }
        (self.records, self.bytes) = (records, bytes);
        None
    }
}
