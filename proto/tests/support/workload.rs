//! The reconciliation workload: n records over a replica and a server, d of them on one side only, and one
//! session between them with everything counted that a real replica and server send. Shared by the benchmark
//! and by the test that pins its bytes.

use bytes::Bytes;
use gosync_proto::key::{Key, RangeSet};
use gosync_proto::limits::Limits;
use gosync_proto::merkle::Tree;
use gosync_proto::reconcile::{Budget, Confirmation, Initiator, Options, respond};
use gosync_proto::record::{Content, Digest, Record};
use gosync_proto::version::{ReplicaId, Time, Version};
use gosync_proto::wire;
use prost::Message;
use std::convert::Infallible;

/// Where the differences lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spread {
    /// Anywhere.
    Uniform,
    /// The newest records.
    Recent,
}

impl Spread {
    /// As in the name of a case.
    pub fn name(self) -> &'static str {
        match self {
            Spread::Uniform => "uniform",
            Spread::Recent => "recent",
        }
    }
}

/// SplitMix64: the same numbers everywhere.
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Two sides that differ.
pub struct Workload {
    /// Every record of either side, in key order.
    pub records: Vec<Record>,
    /// Of `records`, index by index: whether the replica holds it.
    pub on_replica: Vec<bool>,
    /// Likewise the server.
    pub on_server: Vec<bool>,
    /// What the replica lacks, in key order.
    pub only_on_server: Vec<Record>,
    /// The replica's tree.
    pub replica: Tree,
    /// The server's tree.
    pub server: Tree,
    /// The tree of both once everything has moved.
    pub merged: Tree,
}

/// 2025-01-01, Unix milliseconds.
pub const START_MS: u64 = 1_735_689_600_000;
/// A year of writing.
pub const SPAN_MS: u64 = 365 * 24 * 3_600_000;

/// A UUID of version 7 in text form.
pub fn uuid_v7(ms: u64, random: &mut Random) -> String {
    let (a, b) = (random.next(), random.next());
    format!(
        "{:08x}-{:04x}-7{:03x}-{:04x}-{:012x}",
        ms >> 16,
        ms & 0xffff,
        a & 0xfff,
        0x8000 | (a >> 12) & 0x3fff,
        b & 0xffff_ffff_ffff
    )
}

impl Workload {
    /// `n` distinct records, `d` of them on one side only, sides alternating.
    pub fn new(n: usize, d: usize, spread: Spread) -> Workload {
        let mut random = Random(n as u64);
        let mut records: Vec<Record> = (0..n)
            .map(|_| {
                let ms = START_MS + random.next() % SPAN_MS;
                let value: Vec<u8> = (0..25).flat_map(|_| random.next().to_be_bytes()).collect();
                Record {
                    key: Key::new(uuid_v7(ms, &mut random).into_bytes()).unwrap(),
                    version: Version {
                        time: Time::from_millis(ms),
                        replica: ReplicaId(random.next()),
                    },
                    content: Content::Put(Bytes::from(value)),
                }
            })
            .collect();
        records.sort_by(|a, b| a.key.cmp(&b.key));
        let differing: Vec<usize> = match spread {
            Spread::Recent => (n - d..n).collect(),
            Spread::Uniform => {
                // a partial shuffle
                let mut all: Vec<usize> = (0..n).collect();
                for i in 0..d {
                    let j = i + random.next() as usize % (n - i);
                    all.swap(i, j);
                }
                all.truncate(d);
                all.sort_unstable();
                all
            }
        };
        let (mut on_replica, mut on_server) = (vec![true; n], vec![true; n]);
        for (turn, i) in differing.into_iter().enumerate() {
            let side = if turn % 2 == 0 {
                &mut on_replica
            } else {
                &mut on_server
            };
            side[i] = false;
        }
        let digests: Vec<Digest> = records.iter().map(Record::digest).collect();
        let tree = |held: &dyn Fn(usize) -> bool| {
            let held = (0..n).filter(|&i| held(i));
            Tree::from_sorted(held.map(|i| (records[i].key.as_bytes(), digests[i])))
        };
        Workload {
            replica: tree(&|i| on_replica[i]),
            server: tree(&|i| on_server[i]),
            merged: tree(&|_| true),
            only_on_server: (0..n)
                .filter(|&i| !on_replica[i])
                .map(|i| records[i].clone())
                .collect(),
            records,
            on_replica,
            on_server,
        }
    }
}

/// What a session cost and found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Encoded requests and answers, the final comparison included, without the bodies of records that the
    /// replica lacked.
    pub bytes: usize,
    /// Requests before the final comparison.
    pub round_trips: usize,
    /// Records that the replica received.
    pub received: usize,
    /// Records that the replica learned to offer.
    pub to_offer: usize,
}

/// What a replica puts into each request besides its question, and a server into each answer.
fn with_headers(request: wire::ReconcileRequest) -> wire::ReconcileRequest {
    wire::ReconcileRequest {
        space: "team-notes".into(),
        held: vec![wire::HeldRanges {
            ranges: vec![wire::Range::default()],
            cursor: Some(cursor(9_812)),
        }],
        horizon: Time::from_millis(START_MS - SPAN_MS).0,
        ..request
    }
}

fn cursor(sequence: u64) -> wire::Cursor {
    wire::Cursor {
        epoch: 0x1d87_6ba1_77f2_3c4d,
        sequence,
        tag: 0x8e0a_53c1_0f77_d92b,
    }
}

fn answer_headers(response: wire::ReconcileResponse) -> wire::ReconcileResponse {
    wire::ReconcileResponse {
        position: Some(wire::Position {
            head: Some(cursor(10_411)),
            horizon: Time::from_millis(START_MS - SPAN_MS).0,
        }),
        held: vec![wire::HistoryStatus {
            lineage: wire::Lineage::Same as i32,
            mapped_sequence: 9_812,
            behind_compaction: false,
        }],
        ..response
    }
}

/// One call: encodes, decodes and answers the request as a server does, and decodes the answer as a replica
/// does. Adds to the bytes.
fn call(
    workload: &Workload,
    server: &Tree,
    request: wire::ReconcileRequest,
    bytes: &mut usize,
) -> wire::ReconcileResponse {
    let sent = with_headers(request).encode_to_vec();
    let received = wire::ReconcileRequest::decode(&sent[..]).unwrap();
    let mut load = store(workload);
    let load = |key: &[u8]| Ok::<_, Infallible>(load(key));
    let budget = Budget::new(&Limits::default());
    let answer = respond(
        &received,
        &RangeSet::all(),
        server,
        &RangeSet::default(),
        &budget,
        load,
    );
    let answer = answer_headers(answer.unwrap()).encode_to_vec();
    *bytes += sent.len() + answer.len();
    wire::ReconcileResponse::decode(Bytes::from(answer)).unwrap()
}

/// Looks records up; keys are asked for in ascending order, as a store's cursor likes it.
fn store(workload: &Workload) -> impl FnMut(&[u8]) -> Option<Record> {
    let mut rows = workload.only_on_server.iter();
    move |key| rows.find(|r| r.key.as_bytes() == key).cloned()
}

/// Only the moving of the records that the replica lacks: loads, encodes, decodes and checks them.
pub fn move_records(workload: &Workload) -> usize {
    let mut load = store(workload);
    let keys = workload.only_on_server.iter().map(|r| r.key.as_bytes());
    let message = wire::ReconcileResponse {
        records: keys.filter_map(&mut load).map(Into::into).collect(),
        ..Default::default()
    };
    let encoded = Bytes::from(message.encode_to_vec());
    let decoded = wire::ReconcileResponse::decode(encoded).unwrap();
    let records = decoded.records.into_iter().map(Record::try_from);
    records.collect::<Result<Vec<_>, _>>().unwrap().len()
}

/// One session, from the first question to the full comparison after everything has moved.
pub fn session(workload: &Workload, options: Options) -> Outcome {
    let salt = 0x0123_4567_89ab_cdef;
    let mut outcome = Outcome::default();
    let mut initiator = Initiator::new(&RangeSet::all(), salt, options);
    while let Ok(Some(request)) = initiator.next_request(&workload.replica) {
        let response = call(workload, &workload.server, request, &mut outcome.bytes);
        // the bodies; their frames in the message count
        let bodies: usize = response.records.iter().map(Message::encoded_len).sum();
        outcome.bytes -= bodies;
        outcome.round_trips += 1;
        let step = initiator
            .handle_response(&workload.replica, response)
            .unwrap();
        outcome.received += step.records.len();
        outcome.to_offer += step.lacking.len();
    }
    let confirmation = Confirmation::new(&workload.merged, &RangeSet::all(), salt).unwrap();
    let response = call(
        workload,
        &workload.merged,
        confirmation.request(),
        &mut outcome.bytes,
    );
    assert!(confirmation.outcome(&response).unwrap().is_empty());
    outcome
}
