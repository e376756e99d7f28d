//! The two sides of the worked session, as small as it allows: one space, all keys, a server that is never restored.
//! Merging, fingerprints, reconciling and what is deleted or lost are the rules' own; nothing here decides them.

use std::collections::BTreeMap;
use std::convert::Infallible;

use anyhow::{Context, Result, ensure};
use gosync_proto::history::{Missing, missing_record};
use gosync_proto::limits::Limits;
use gosync_proto::merkle::Tree;
use gosync_proto::reconcile::{Budget, Initiator, Options, respond};
use gosync_proto::version::{Clock, ReplicaId, Time};
use gosync_proto::{Content, Digest, Key, Merge, PROTOCOL_VERSION, RangeSet, Record, wire};

use crate::world::{SPACE, cursor, held};

/// A fingerprint's input: the records that it covers at a horizon.
fn tree<'a>(records: impl Iterator<Item = &'a Record>, horizon: Time) -> Tree {
    let covered = records.filter(|r| r.in_fingerprints(horizon));
    Tree::from_sorted(covered.map(|r| (r.key.as_bytes(), r.digest())))
}

fn record(message: &wire::Record) -> Result<Record> {
    Record::try_from(message.clone()).context("a record of the session is malformed")
}

fn features() -> Vec<i32> {
    vec![wire::Feature::Reconcile as i32, wire::Feature::Live as i32]
}

/// The server's store.
#[derive(Default)]
pub struct Server {
    /// Each record with the sequence at which it was committed.
    pub records: BTreeMap<Key, (Record, u64)>,
    /// The newest commit.
    pub head: u64,
    /// What compaction removed tombstones below.
    pub horizon: Time,
    /// M: the highest sequence of a removed tombstone.
    compacted: u64,
}

impl Server {
    /// Its fingerprint of all keys.
    pub fn fingerprint(&self) -> Digest {
        self.tree().total().fingerprint
    }

    fn tree(&self) -> Tree {
        tree(self.records.values().map(|(r, _)| r), self.horizon)
    }

    fn position(&self) -> wire::Position {
        wire::Position {
            head: Some(cursor(self.head)),
            horizon: self.horizon.0,
        }
    }

    fn status(
        &self,
        held: &[wire::HeldRanges],
        newest: Option<&wire::Cursor>,
    ) -> Vec<wire::HistoryStatus> {
        let one = |h: &wire::HeldRanges| {
            let own = h.cursor.as_ref().map_or(0, |c| c.sequence);
            let mapped_sequence = newest.map_or(own, |n| own.min(n.sequence));
            wire::HistoryStatus {
                lineage: wire::Lineage::Same as i32,
                mapped_sequence,
                behind_compaction: mapped_sequence < self.compacted,
            }
        };
        held.iter().map(one).collect()
    }

    pub fn hello(&self, request: &wire::HelloRequest, now_ms: u64) -> wire::HelloResponse {
        let same = |f: &Vec<u8>| f[..] == self.fingerprint().0;
        let comparable = request.horizon == self.horizon.0;
        wire::HelloResponse {
            version: PROTOCOL_VERSION,
            features: features(),
            server_time_ms: now_ms,
            limits: Some(Limits::default().to_wire()),
            grants: vec![wire::Grant {
                key_prefix: Vec::new(),
                access: wire::Access::Write as i32,
            }],
            position: Some(self.position()),
            held: self.status(&request.held, request.newest_commit.as_ref()),
            equal: request
                .fingerprints
                .iter()
                .filter(|_| comparable)
                .map(same)
                .collect(),
            total_records: self.records.len() as u64,
            ..Default::default()
        }
    }

    pub fn push(&mut self, request: &wire::PushRequest, now_ms: u64) -> Result<wire::PushResponse> {
        let mut verdicts = Vec::new();
        for message in &request.records {
            let pushed = record(message)?;
            let stands = self.records.get(&pushed.key);
            let verdict = match stands {
                Some((r, sequence)) if pushed.merge_against(r) == Merge::Loses => wire::Verdict {
                    outcome: wire::Outcome::Superseded as i32,
                    sequence: *sequence,
                    winner: Some(r.clone().into()),
                    ..Default::default()
                },
                _ => {
                    self.head += 1;
                    self.records.insert(pushed.key.clone(), (pushed, self.head));
                    wire::Verdict {
                        outcome: wire::Outcome::Applied as i32,
                        sequence: self.head,
                        ..Default::default()
                    }
                }
            };
            verdicts.push(verdict);
        }
        Ok(wire::PushResponse {
            verdicts,
            position: Some(self.position()),
            server_time_ms: now_ms,
            held: self.status(&request.held, request.newest_commit.as_ref()),
        })
    }

    /// One message with all changes, and the checkpoint.
    pub fn watch(&self, request: &wire::WatchRequest, now_ms: u64) -> Vec<wire::WatchResponse> {
        use wire::watch_response::Event;
        let after = request.held[0].cursor.as_ref().map_or(0, |c| c.sequence);
        let mut changed: Vec<_> = self.records.values().filter(|(_, s)| *s > after).collect();
        changed.sort_by_key(|(_, sequence)| *sequence);
        let total = self.tree().total();
        let changes = wire::Changes {
            records: changed.iter().map(|(r, _)| r.clone().into()).collect(),
            cursor: Some(cursor(self.head)),
        };
        let checkpoint = wire::Checkpoint {
            position: Some(self.position()),
            ranges: vec![wire::RangeState {
                count: total.count,
                fingerprint: total.fingerprint.0.to_vec(),
            }],
            server_time_ms: now_ms,
        };
        [Event::Changes(changes), Event::Checkpoint(checkpoint)]
            .map(|event| wire::WatchResponse { event: Some(event) })
            .to_vec()
    }

    /// Start, one chunk, complete, end.
    pub fn snapshot(&self, request: &wire::SnapshotRequest) -> Vec<wire::SnapshotResponse> {
        use wire::snapshot_response::Event;
        let records: Vec<&Record> = self.records.values().map(|(r, _)| r).collect();
        let total = self.tree().total();
        let start = wire::SnapshotStart {
            position: Some(self.position()),
            held: self.status(&request.held, request.newest_commit.as_ref()),
            total_records: records.len() as u64,
            total_bytes: records.iter().map(|r| r.size() as u64).sum(),
            ..Default::default()
        };
        let chunk = wire::SnapshotChunk {
            records: records.into_iter().map(|r| r.clone().into()).collect(),
        };
        let complete = wire::SnapshotComplete {
            ranges: vec![wire::RangeState {
                count: total.count,
                fingerprint: total.fingerprint.0.to_vec(),
            }],
        };
        [
            Event::Start(start),
            Event::Chunk(chunk),
            Event::Complete(complete),
            Event::End(wire::StreamEnd::default()),
        ]
        .map(|event| wire::SnapshotResponse { event: Some(event) })
        .to_vec()
    }

    pub fn reconcile(&self, request: &wire::ReconcileRequest) -> Result<wire::ReconcileResponse> {
        let load = |key: &[u8]| Ok::<_, Infallible>(self.records.get(key).map(|(r, _)| r.clone()));
        let budget = Budget::new(&Limits::default());
        let none = RangeSet::default();
        let answer = respond(
            request,
            &RangeSet::all(),
            &self.tree(),
            &none,
            &budget,
            load,
        )?;
        Ok(wire::ReconcileResponse {
            position: Some(self.position()),
            held: self.status(&request.held, request.newest_commit.as_ref()),
            ..answer
        })
    }

    /// Removes tombstones below `horizon`.
    pub fn compact(&mut self, horizon: Time) -> Result<()> {
        let newest = self.records.values().map(|(r, _)| r.version.time).max();
        ensure!(Some(horizon) <= newest, "HIST-024 bounds the horizon");
        let old = |r: &Record| r.is_tombstone() && r.version.time < horizon;
        let gone = self.records.values().filter(|(r, _)| old(r));
        self.compacted = gone.map(|(_, s)| *s).max().unwrap_or(self.compacted);
        self.records.retain(|_, (r, _)| !old(r));
        self.horizon = horizon;
        Ok(())
    }
}

/// A replica's store.
pub struct Replica {
    clock: Clock,
    /// Each clean record with the sequence of its point.
    pub clean: BTreeMap<Key, (Record, u64)>,
    /// Unsent writes, oldest first.
    pub outbox: Vec<Record>,
    pub cursor: Option<u64>,
    newest: Option<u64>,
    pub horizon: Time,
}

impl Replica {
    pub fn new(id: u64) -> Replica {
        Replica {
            clock: Clock::new(ReplicaId(id), Time(0)),
            clean: BTreeMap::new(),
            outbox: Vec::new(),
            cursor: None,
            newest: None,
            horizon: Time(0),
        }
    }

    /// Its fingerprint of all keys.
    pub fn fingerprint(&self) -> Digest {
        self.tree().total().fingerprint
    }

    fn tree(&self) -> Tree {
        tree(self.clean.values().map(|(r, _)| r), self.horizon)
    }

    /// A write of the application; a tombstone without a value.
    pub fn write(&mut self, now_ms: u64, key: &str, value: Option<&str>) -> Result<()> {
        let key = Key::new(key.as_bytes())?;
        let replaced = self.clean.get(&key).map(|(r, _)| r.version);
        let content = match value {
            Some(value) => Content::Put(value.as_bytes().to_vec().into()),
            None => Content::Tombstone,
        };
        self.outbox.push(Record {
            version: self.clock.issue(now_ms, replaced)?,
            key,
            content,
        });
        Ok(())
    }

    pub fn hello(&self, client: &str) -> wire::HelloRequest {
        wire::HelloRequest {
            versions: vec![PROTOCOL_VERSION],
            features: features(),
            space: SPACE.to_owned(),
            held: held(self.cursor),
            newest_commit: self.newest.map(cursor),
            horizon: self.horizon.0,
            fingerprints: vec![self.fingerprint().0.to_vec()],
            client: client.to_owned(),
        }
    }

    /// HIST-031: tombstones below a horizon go; each point lies in the present history here.
    pub fn learn_horizon(&mut self, horizon: u64) {
        self.horizon = Time(horizon);
        self.clean
            .retain(|_, (r, _)| r.in_fingerprints(Time(horizon)));
    }

    pub fn push(&self) -> wire::PushRequest {
        wire::PushRequest {
            space: SPACE.to_owned(),
            records: self.outbox.iter().cloned().map(Into::into).collect(),
            held: held(self.cursor),
            newest_commit: self.newest.map(cursor),
            ..Default::default()
        }
    }

    pub fn verdicts(&mut self, answer: &wire::PushResponse) -> Result<()> {
        ensure!(
            answer.verdicts.len() == self.outbox.len(),
            "one verdict each"
        );
        for (own, verdict) in std::mem::take(&mut self.outbox)
            .into_iter()
            .zip(&answer.verdicts)
        {
            let stands = match &verdict.winner {
                Some(winner) => record(winner)?,
                None => own,
            };
            self.merge(stands, verdict.sequence);
        }
        self.newest = head(answer.position.as_ref());
        Ok(())
    }

    fn merge(&mut self, came: Record, sequence: u64) {
        let wins = |(held, _): &(Record, u64)| came.merge_against(held) == Merge::Loses;
        if !self.clean.get(&came.key).is_some_and(wins) {
            self.clean.insert(came.key.clone(), (came, sequence));
        }
    }

    pub fn watch(&self) -> wire::WatchRequest {
        wire::WatchRequest {
            space: SPACE.to_owned(),
            held: held(self.cursor),
            newest_commit: self.newest.map(cursor),
            ..Default::default()
        }
    }

    /// Takes changes in; compares at a checkpoint.
    pub fn watched(&mut self, message: &wire::WatchResponse) -> Result<()> {
        use wire::watch_response::Event;
        match message.event.as_ref().context("a message without event")? {
            Event::Changes(changes) => {
                let end = changes.cursor.as_ref().map_or(0, |c| c.sequence);
                for message in &changes.records {
                    self.merge(record(message)?, end);
                }
                self.cursor = Some(end);
            }
            Event::Checkpoint(checkpoint) => ensure!(
                checkpoint.ranges[0].fingerprint == self.fingerprint().0,
                "the session's checkpoints are equal"
            ),
            _ => {}
        }
        Ok(())
    }

    pub fn snapshot(&self) -> wire::SnapshotRequest {
        wire::SnapshotRequest {
            space: SPACE.to_owned(),
            held: held(self.cursor),
            ..Default::default()
        }
    }

    pub fn copied(&mut self, messages: &[wire::SnapshotResponse]) -> Result<()> {
        use wire::snapshot_response::Event;
        let mut first = None;
        for message in messages {
            match message.event.as_ref().context("a message without event")? {
                Event::Start(start) => first = head(start.position.as_ref()),
                Event::Chunk(chunk) => {
                    for message in &chunk.records {
                        self.merge(record(message)?, first.unwrap_or_default());
                    }
                }
                Event::Complete(complete) => ensure!(
                    complete.ranges[0].fingerprint == self.fingerprint().0,
                    "the session's snapshot is what it says"
                ),
                Event::End(_) => self.cursor = first,
            }
        }
        Ok(())
    }

    /// A whole reconcile session of one exchange: its messages, and the keys that were dropped.
    pub fn reconcile(
        &mut self,
        salt: u64,
        server: &Server,
    ) -> Result<(wire::ReconcileRequest, wire::ReconcileResponse, Vec<Key>)> {
        let ours = self.tree();
        let mut session = Initiator::new(&RangeSet::all(), salt, Options::new(&Limits::default()));
        let asked = session
            .next_request(&ours)?
            .context("there is something to ask")?;
        let request = wire::ReconcileRequest {
            space: SPACE.to_owned(),
            held: held(self.cursor),
            newest_commit: self.newest.map(cursor),
            horizon: self.horizon.0,
            ..asked
        };
        let answer = server.reconcile(&request)?;
        let step = session.handle_response(&ours, answer.clone())?;
        ensure!(session.is_done(), "the session ends after one exchange");
        let head = head(answer.position.as_ref()).unwrap_or_default();
        for came in step.records {
            self.merge(came, head);
        }
        let mut dropped = Vec::new();
        for lacking in step.lacking {
            let (record, _) = &self.clean[&lacking.key];
            let behind = answer.held[0].behind_compaction;
            let fate = missing_record(true, behind, record.version, self.horizon);
            ensure!(fate == Missing::Deleted, "nothing is lost in this session");
            self.clean.remove(&lacking.key);
            dropped.push(lacking.key);
        }
        for (_, point) in self.clean.values_mut() {
            *point = head;
        }
        self.cursor = Some(head);
        Ok((request, answer, dropped))
    }
}

fn head(position: Option<&wire::Position>) -> Option<u64> {
    Some(position?.head.as_ref()?.sequence)
}
