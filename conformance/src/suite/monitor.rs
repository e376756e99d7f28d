//! What must hold in every exchange of every case.

use crate::net::{Call, Reply};
use crate::oracle::{Merge, Record, merge, reason_name, status_of};
use crate::schema::v1;
use prost::Message;
use std::collections::BTreeMap;

/// Watches all exchanges of one case.
#[derive(Default)]
pub struct Monitor {
    /// Of each space: the highest head seen, by epoch.
    heads: BTreeMap<(String, u64), u64>,
    /// Of each space: the greatest acknowledged record of each key.
    acknowledged: BTreeMap<String, BTreeMap<Vec<u8>, Record>>,
}

impl Monitor {
    /// Looks at a call that is over. Returns what is wrong.
    pub fn look(&mut self, call: &Call, reply: &Reply) -> Vec<String> {
        let mut wrong = Vec::new();
        let method = &call.method;
        for problem in &reply.problems {
            wrong.push(format!("{method}: {problem}"));
        }
        if let Some(status) = &reply.status {
            for problem in &status.problems {
                wrong.push(format!("{method}: {problem}"));
            }
            if status.code != 0 && !status.reason.is_empty() {
                match status_of(&status.reason) {
                    None => wrong.push(format!(
                        "[ERR-004] {method}: the reason {:?} is not in the list of version 1",
                        status.reason
                    )),
                    Some(code) if code as u32 != status.code => wrong.push(format!(
                        "[ERR-002] {method}: {} comes with status {}, not {code:?}",
                        status.reason, status.code
                    )),
                    Some(_) => {}
                }
            }
        }
        wrong.extend(self.token(call, reply));
        match method.as_str() {
            "Hello" => wrong.extend(self.hello(call, reply)),
            "Push" => wrong.extend(self.push(call, reply)),
            "Snapshot" => wrong.extend(snapshot(call, reply)),
            "Watch" => wrong.extend(watch(reply)),
            "Reconcile" => wrong.extend(self.reconcile(call, reply)),
            _ => {}
        }
        wrong
    }

    /// A token belongs into request metadata and nowhere else.
    fn token(&self, call: &Call, reply: &Reply) -> Option<String> {
        let token = call
            .metadata
            .iter()
            .find(|(n, _)| n == "authorization")
            .and_then(|(_, v)| v.strip_prefix("Bearer "))
            .filter(|t| t.len() >= 8)?;
        let needle = token.as_bytes();
        let told = reply
            .messages
            .iter()
            .any(|m| m.windows(needle.len()).any(|w| w == needle));
        let said = reply
            .status
            .as_ref()
            .is_some_and(|s| s.message.contains(token));
        let headed = reply.headers.iter().any(|(_, v)| v.contains(token));
        (told || said || headed)
            .then(|| format!("[ERR-006] {}: the answer contains the token", call.method))
    }

    fn head(&mut self, space: &str, position: Option<&v1::Position>) -> Vec<String> {
        let Some(head) = position.and_then(|p| p.head.as_ref()) else {
            return vec!["an answer has no position.head".into()];
        };
        let seen = self
            .heads
            .entry((space.to_owned(), head.epoch))
            .or_insert(head.sequence);
        if head.sequence < *seen {
            return vec![format!(
                "[HIST-003] the head of epoch {:016x} went back from {seen} to {}",
                head.epoch, head.sequence
            )];
        }
        *seen = head.sequence;
        Vec::new()
    }

    fn hello(&mut self, call: &Call, reply: &Reply) -> Vec<String> {
        let Some((request, answer)) = unary::<v1::HelloRequest, v1::HelloResponse>(call, reply)
        else {
            return one_message(reply);
        };
        let mut wrong = one_message(reply);
        wrong.extend(self.head(&request.space, answer.position.as_ref()));
        wrong.extend(statuses("HELLO-018", request.held.len(), answer.held.len()));
        if answer.limits.is_none() {
            wrong.push("[HELLO-013] no limits".into());
        }
        wrong
    }

    fn push(&mut self, call: &Call, reply: &Reply) -> Vec<String> {
        let Some((request, answer)) = unary::<v1::PushRequest, v1::PushResponse>(call, reply)
        else {
            return one_message(reply);
        };
        let mut wrong = one_message(reply);
        wrong.extend(self.head(&request.space, answer.position.as_ref()));
        if answer.verdicts.len() != request.records.len() {
            wrong.push(format!(
                "[PUSH-009] {} verdicts for {} records",
                answer.verdicts.len(),
                request.records.len()
            ));
        }
        let kept = self.acknowledged.entry(request.space).or_default();
        for (verdict, record) in answer.verdicts.iter().zip(&request.records) {
            match verdict.outcome() {
                v1::Outcome::Applied | v1::Outcome::Unchanged => {
                    if let Ok(record) = Record::from_wire(record) {
                        remember(kept, record);
                    }
                }
                v1::Outcome::Superseded => match verdict.winner.as_ref().map(Record::from_wire) {
                    Some(Ok(winner)) if winner.key == record.key => remember(kept, winner),
                    Some(_) => wrong
                        .push("[PUSH-015] the winner of SUPERSEDED is no record of the key".into()),
                    None => wrong.push("[PUSH-015] SUPERSEDED without the winner".into()),
                },
                v1::Outcome::Rejected => {
                    if reason_name(verdict.reason).is_empty() {
                        wrong.push(format!(
                            "[PUSH-016] REJECTED with reason {}",
                            verdict.reason
                        ));
                    }
                }
                v1::Outcome::Unspecified => wrong.push(format!(
                    "[PUSH-010] a verdict has outcome {}",
                    verdict.outcome
                )),
            }
        }
        wrong
    }

    fn reconcile(&mut self, call: &Call, reply: &Reply) -> Vec<String> {
        let Some((request, answer)) =
            unary::<v1::ReconcileRequest, v1::ReconcileResponse>(call, reply)
        else {
            return one_message(reply);
        };
        let mut wrong = one_message(reply);
        wrong.extend(self.head(&request.space, answer.position.as_ref()));
        wrong.extend(statuses("RECON-016", request.held.len(), answer.held.len()));
        if !answer.records.is_sorted_by(|a, b| a.key < b.key) {
            wrong.push("[RECON-021] keys do not ascend".into());
        }
        for record in &answer.records {
            if let Err(defect) = Record::from_wire(record) {
                wrong.push(format!("Reconcile: a record is {}", defect.name()));
            }
        }
        wrong
    }

    /// The spaces that were written to, and what was acknowledged there.
    pub fn acknowledged(&self) -> &BTreeMap<String, BTreeMap<Vec<u8>, Record>> {
        &self.acknowledged
    }

    /// Which acknowledged records of a space are gone, given all that the
    /// server holds at some horizon.
    pub fn disappeared(&self, space: &str, held: &[Record], horizon: u64) -> Vec<String> {
        let held: BTreeMap<&[u8], &Record> = held.iter().map(|r| (r.key.as_slice(), r)).collect();
        self.acknowledged
            .get(space)
            .into_iter()
            .flat_map(|records| records.values())
            .filter(|record| match held.get(record.key.as_slice()) {
                Some(now) => merge(now, record) == Merge::Loses,
                None => !(record.is_tombstone() && record.time < horizon),
            })
            .map(|record| {
                format!(
                    "the acknowledged record under key {} is gone",
                    record.key.escape_ascii()
                )
            })
            .collect()
    }
}

fn remember(kept: &mut BTreeMap<Vec<u8>, Record>, record: Record) {
    let newer = kept
        .get(&record.key)
        .is_none_or(|held| merge(&record, held) == Merge::Wins);
    if newer {
        kept.insert(record.key.clone(), record);
    }
}

fn unary<Q: Message + Default, A: Message + Default>(call: &Call, reply: &Reply) -> Option<(Q, A)> {
    let request = Q::decode(call.body.get(5..)?).ok()?;
    let answer = A::decode(reply.messages.first()?.as_ref()).ok()?;
    reply.is_ok().then_some((request, answer))
}

/// One for each entry of `held`.
fn statuses(id: &str, entries: usize, statuses: usize) -> Option<String> {
    (statuses != entries)
        .then(|| format!("[{id}] {statuses} statuses for {entries} entries of held"))
}

fn one_message(reply: &Reply) -> Vec<String> {
    if reply.is_ok() && reply.messages.len() != 1 {
        vec![format!(
            "a unary call answers OK with {} messages",
            reply.messages.len()
        )]
    } else {
        Vec::new()
    }
}

fn snapshot(call: &Call, reply: &Reply) -> Vec<String> {
    use v1::snapshot_response::Event;
    let mut wrong = Vec::new();
    let request = call
        .body
        .get(5..)
        .and_then(|b| v1::SnapshotRequest::decode(b).ok())
        .unwrap_or_default();
    let mut last: Option<Vec<u8>> = None;
    for (i, message) in reply.messages.iter().enumerate() {
        let Ok(message) = v1::SnapshotResponse::decode(message.as_ref()) else {
            wrong.push("Snapshot: a message cannot be decoded".into());
            continue;
        };
        match message.event {
            Some(Event::Start(start)) if i == 0 => {
                wrong.extend(statuses("SNAP-004", request.held.len(), start.held.len()));
            }
            Some(Event::Start(_)) => wrong.push("[SNAP-002] a second SnapshotStart".into()),
            Some(Event::Chunk(chunk)) => {
                if i == 0 {
                    wrong.push("[SNAP-002] a chunk comes before SnapshotStart".into());
                }
                for record in chunk.records {
                    if last.as_ref().is_some_and(|l| *l >= record.key) {
                        wrong.push("[SNAP-009] keys do not ascend".into());
                    }
                    last = Some(record.key.clone());
                    if let Err(defect) = Record::from_wire(&record) {
                        wrong.push(format!("Snapshot: a record is {}", defect.name()));
                    }
                }
            }
            Some(Event::Complete(complete)) => {
                if complete.ranges.iter().any(|r| r.fingerprint.len() != 32) {
                    wrong.push("Snapshot: a fingerprint is not 32 bytes long".into());
                }
            }
            Some(Event::End(_)) => {
                if i + 1 != reply.messages.len() {
                    wrong.push("[SNAP-033] something follows StreamEnd".into());
                }
            }
            None => wrong.push("Snapshot: a message without a known event".into()),
        }
    }
    wrong
}

fn watch(reply: &Reply) -> Vec<String> {
    use v1::watch_response::Event;
    let mut wrong = Vec::new();
    let mut last: Option<v1::Cursor> = None;
    for (i, message) in reply.messages.iter().enumerate() {
        let Ok(message) = v1::WatchResponse::decode(message.as_ref()) else {
            wrong.push("Watch: a message cannot be decoded".into());
            continue;
        };
        let cursor = match message.event {
            Some(Event::Changes(changes)) => {
                for record in &changes.records {
                    if let Err(defect) = Record::from_wire(record) {
                        wrong.push(format!("Watch: a record is {}", defect.name()));
                    }
                }
                changes.cursor
            }
            Some(Event::Checkpoint(checkpoint)) => {
                if checkpoint.ranges.iter().any(|r| r.fingerprint.len() != 32) {
                    wrong.push("Watch: a fingerprint is not 32 bytes long".into());
                }
                checkpoint.position.and_then(|p| p.head)
            }
            Some(Event::Heartbeat(beat)) => beat.cursor,
            Some(Event::End(_)) => {
                if i + 1 != reply.messages.len() {
                    wrong.push("[WATCH-036] something follows StreamEnd".into());
                }
                None
            }
            None => {
                wrong.push("Watch: a message without a known event".into());
                None
            }
        };
        if let Some(cursor) = cursor {
            if let Some(before) = last
                && (before.epoch != cursor.epoch || before.sequence > cursor.sequence)
            {
                wrong.push(format!(
                    "[WATCH-004] the cursor went back from {} to {}",
                    before.sequence, cursor.sequence
                ));
            }
            last = Some(cursor);
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Status;
    use std::time::Duration;

    /// What the monitor says of an answer to a Reconcile that holds one entry.
    fn of_reconcile(monitor: &mut Monitor, answer: &v1::ReconcileResponse) -> Vec<String> {
        let request = v1::ReconcileRequest {
            held: vec![v1::HeldRanges::default()],
            ..v1::ReconcileRequest::default()
        };
        let reply = Reply {
            messages: vec![answer.encode_to_vec().into()],
            status: Some(Status::ok()),
            ..Reply::default()
        };
        let call = Call::new("Reconcile", &request.encode_to_vec(), Duration::ZERO);
        monitor.look(&call, &reply)
    }

    fn at(sequence: u64) -> v1::ReconcileResponse {
        v1::ReconcileResponse {
            position: Some(v1::Position {
                head: Some(v1::Cursor {
                    sequence,
                    ..v1::Cursor::default()
                }),
                ..v1::Position::default()
            }),
            held: vec![v1::HistoryStatus::default()],
            ..v1::ReconcileResponse::default()
        }
    }

    /// Regression: answers to Reconcile were not looked at.
    #[test]
    fn answers_to_reconcile_are_looked_at() {
        let record = |key: &str| Record::put(key, 1, 1, "v").to_wire();
        let mut monitor = Monitor::default();
        let good = v1::ReconcileResponse {
            records: vec![record("a"), record("b")],
            ..at(5)
        };
        assert_eq!(of_reconcile(&mut monitor, &good), [""; 0]);
        let mut nameless = record("a");
        nameless.version = None;
        let records = |records| v1::ReconcileResponse { records, ..at(5) };
        let unanswered = v1::ReconcileResponse {
            held: Vec::new(),
            ..at(5)
        };
        for (answer, says) in [
            (at(4), "[HIST-003]"),
            (records(vec![record("b"), record("a")]), "[RECON-021]"),
            (records(vec![nameless]), "a record is"),
            (unanswered, "[RECON-016]"),
        ] {
            let said = of_reconcile(&mut monitor, &answer);
            assert!(
                said.len() == 1 && said[0].contains(says),
                "{says}: {said:?}"
            );
        }
    }
}
