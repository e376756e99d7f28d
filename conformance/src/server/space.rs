//! A fresh space and what the suite knows must be in it.

use super::context::{Answer, Cx, Options};
use crate::net::Reply;
use crate::oracle::{Merge, Record, fingerprint, merge, visible};
use crate::schema::v1;
use crate::suite::{Need, Stop};
use std::collections::BTreeMap;

/// Every key.
pub fn everything() -> v1::Range {
    v1::Range {
        start: vec![],
        end: None,
    }
}

/// `[start, end)`.
pub fn key_range(start: impl AsRef<[u8]>, end: impl AsRef<[u8]>) -> v1::Range {
    v1::Range {
        start: start.as_ref().to_vec(),
        end: Some(end.as_ref().to_vec()),
    }
}

/// Ranges with a cursor.
pub fn held(ranges: Vec<v1::Range>, cursor: Option<v1::Cursor>) -> v1::HeldRanges {
    v1::HeldRanges { ranges, cursor }
}

/// A version time: `ms` milliseconds after a moment in 2023.
pub fn time(ms: u64) -> u64 {
    (1_700_000_000_000 + ms) << 16
}

/// A space and its expected contents.
#[derive(Clone)]
pub struct Space {
    /// To work with.
    pub cx: Cx,
    /// Its id.
    pub id: String,
    /// What the server must hold.
    pub records: BTreeMap<Vec<u8>, Record>,
}

impl Space {
    /// One that nobody has used.
    pub fn fresh(cx: &Cx) -> Space {
        Space {
            cx: cx.clone(),
            id: cx.fresh_space(),
            records: BTreeMap::new(),
        }
    }

    /// A Push request by a replica that holds all keys and has no cursor.
    pub fn push_request(&self, records: &[Record]) -> v1::PushRequest {
        v1::PushRequest {
            space: self.id.clone(),
            records: records.iter().map(Record::to_wire).collect(),
            held: vec![held(vec![everything()], None)],
            ..v1::PushRequest::default()
        }
    }

    /// A Hello request about some ranges.
    pub fn hello_request(&self, held: Vec<v1::HeldRanges>) -> v1::HelloRequest {
        v1::HelloRequest {
            versions: vec![1],
            features: vec![v1::Feature::Reconcile as i32, v1::Feature::Live as i32],
            space: self.id.clone(),
            held,
            client: "gosync-conformance".into(),
            ..v1::HelloRequest::default()
        }
    }

    /// A Snapshot request for some ranges.
    pub fn snapshot_request(&self, ranges: Vec<v1::Range>) -> v1::SnapshotRequest {
        v1::SnapshotRequest {
            space: self.id.clone(),
            held: vec![held(ranges, None)],
            ..v1::SnapshotRequest::default()
        }
    }

    /// A Watch request for all keys that ends when caught up.
    pub fn catch_up_request(&self, cursor: Option<v1::Cursor>) -> v1::WatchRequest {
        v1::WatchRequest {
            space: self.id.clone(),
            held: vec![held(vec![everything()], cursor)],
            until_caught_up: true,
            ..v1::WatchRequest::default()
        }
    }

    /// Pushes; nothing is expected.
    pub async fn push(&self, records: &[Record]) -> Answer<v1::PushResponse> {
        self.cx.push(&self.push_request(records)).await
    }

    /// Merges into what is expected.
    pub fn expect(&mut self, record: &Record) {
        let wins = self
            .records
            .get(&record.key)
            .is_none_or(|held| merge(record, held) == Merge::Wins);
        if wins {
            self.records.insert(record.key.clone(), record.clone());
        }
    }

    /// Pushes records that must all be merged, in as many calls as the limits
    /// demand.
    ///
    /// # Errors
    /// [`Stop::Peer`] when one is rejected.
    pub async fn seed(&mut self, records: &[Record]) -> Result<v1::PushResponse, Stop> {
        let most = self.cx.limits().max_push_records.clamp(1, 1000) as usize;
        let mut last = v1::PushResponse::default();
        for batch in records.chunks(most) {
            last = self.push(batch).await.good()?;
            if last.verdicts.len() != batch.len() {
                return Err(Stop::Peer(format!(
                    "{} verdicts for {} records",
                    last.verdicts.len(),
                    batch.len()
                )));
            }
            for (record, verdict) in batch.iter().zip(&last.verdicts) {
                if verdict.outcome() == v1::Outcome::Rejected {
                    return Err(Stop::Peer(format!(
                        "an ordinary record is rejected: {} {}",
                        verdict.reason().as_str_name(),
                        verdict.detail
                    )));
                }
                self.expect(record);
            }
        }
        Ok(last)
    }

    /// Pushes records that nobody has pushed yet, and emits a positive check
    /// that all of them are APPLIED.
    ///
    /// # Errors
    /// [`Stop::Peer`] when the call is refused.
    pub async fn seed_as(&mut self, check: &'static str, records: &[Record]) -> Result<(), Stop> {
        let answer = self.push(records).await;
        let told = answer.message.iter().flat_map(|a| &a.verdicts);
        let told: Vec<v1::Outcome> = told.map(v1::Verdict::outcome).collect();
        self.cx.check(
            check,
            told == vec![v1::Outcome::Applied; records.len()],
            format!("{} times APPLIED", records.len()),
            format!("{told:?}, {}", answer.reply.summary()),
        );
        answer.good()?;
        records.iter().for_each(|r| self.expect(r));
        Ok(())
    }

    /// The expected records of some ranges, in key order.
    pub fn inside(&self, ranges: &[v1::Range]) -> Vec<Record> {
        self.records
            .values()
            .filter(|r| {
                ranges
                    .iter()
                    .any(|range| crate::oracle::contains(range, &r.key))
            })
            .cloned()
            .collect()
    }

    /// The expected state of a range at horizon 0.
    pub fn state(&self, range: &v1::Range) -> v1::RangeState {
        let (count, fingerprint) = crate::oracle::range_state(self.records.values(), range, 0);
        v1::RangeState {
            count,
            fingerprint: fingerprint.to_vec(),
        }
    }

    /// The states that a Checkpoint or SnapshotComplete must give for these
    /// ranges: none from a server without FEATURE_RECONCILE, which keeps no
    /// fingerprints (section 15.1).
    pub fn states(&self, ranges: &[&v1::Range]) -> Vec<v1::RangeState> {
        if self.cx.target().meets(Need::Reconcile) {
            ranges.iter().map(|range| self.state(range)).collect()
        } else {
            Vec::new()
        }
    }

    /// Reads the whole space and compares it with what is expected.
    ///
    /// # Errors
    /// The difference in words; [`Stop`] is not used, since this is itself
    /// what a check is about.
    pub async fn as_expected(&self) -> Result<(), String> {
        self.holds(&self.records).await
    }

    /// Reads the whole space and compares it with `records`.
    ///
    /// # Errors
    /// The difference in words.
    pub async fn holds(&self, records: &BTreeMap<Vec<u8>, Record>) -> Result<(), String> {
        let request = self.snapshot_request(vec![everything()]);
        let seen = match self.cx.snapshot(&request).await {
            Ok(seen) => seen,
            Err(Stop::Peer(why) | Stop::Suite(why)) => {
                return Err(format!("the space cannot be read: {why}"));
            }
        };
        let horizon = seen.start.position.map_or(0, |p| p.horizon);
        let want: Vec<Record> = records
            .values()
            .filter(|r| visible(r, horizon))
            .cloned()
            .collect();
        let got = seen.records();
        if got != want {
            return Err(difference(&want, &got));
        }
        let state = v1::RangeState {
            count: want.len() as u64,
            fingerprint: fingerprint(&want.iter().collect::<Vec<_>>()).to_vec(),
        };
        let states: &[_] = if self.cx.target().meets(Need::Reconcile) {
            &[state]
        } else {
            &[]
        };
        if seen.complete.ranges == states {
            Ok(())
        } else {
            Err("the records are right, but the snapshot's fingerprint or count is not".into())
        }
    }

    /// Emits a negative check: the reply refuses with exactly this reason and
    /// its status, and the space holds what it held before.
    pub async fn refused(&self, check: &'static str, reply: &Reply, reason: &str) {
        let expected = format!("{reason} with its status, and an unchanged space");
        match Cx::refusal(reply, reason) {
            Err(got) => self.cx.check(check, false, expected, got),
            Ok(status) => match self.as_expected().await {
                Ok(()) => self.cx.check(check, true, expected, status),
                Err(difference) => {
                    self.cx.check(
                        check,
                        false,
                        expected,
                        format!("{status}; but then {difference}"),
                    );
                }
            },
        }
    }

    /// Emits a positive check: the space holds what is expected.
    pub async fn verify(&self, check: &'static str) {
        let result = self.as_expected().await;
        self.cx.check(
            check,
            result.is_ok(),
            format!("exactly the {} expected records", self.records.len()),
            result.err().unwrap_or_else(|| "exactly these".into()),
        );
    }

    /// A unary call with options, for this space.
    pub async fn push_with(
        &self,
        records: &[Record],
        options: &Options,
    ) -> Answer<v1::PushResponse> {
        self.cx
            .unary("Push", &self.push_request(records), options)
            .await
    }
}

fn difference(want: &[Record], got: &[Record]) -> String {
    let find = |list: &[Record], key: &[u8]| list.iter().find(|r| r.key == key).cloned();
    for record in want {
        match find(got, &record.key) {
            None => {
                return format!(
                    "the record under key {} is missing",
                    record.key.escape_ascii()
                );
            }
            Some(other) if other != *record => {
                return format!(
                    "key {} holds {} instead of {}",
                    record.key.escape_ascii(),
                    describe(&other),
                    describe(record)
                );
            }
            Some(_) => {}
        }
    }
    for record in got {
        if find(want, &record.key).is_none() {
            return format!("there is a record under key {}", record.key.escape_ascii());
        }
    }
    "the records come in another order".into()
}

/// A record in one line.
pub fn describe(record: &Record) -> String {
    let what = if record.is_tombstone() {
        "a tombstone".to_owned()
    } else {
        let shown = &record.value[..record.value.len().min(40)];
        format!("value \"{}\"", shown.escape_ascii())
    };
    format!("{what} of version ({}, {:x})", record.time, record.replica)
}
