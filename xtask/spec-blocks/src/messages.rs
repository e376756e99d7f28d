//! One example of each message of the wire, and a Reconcile exchange column by column.

use std::convert::Infallible;

use anyhow::{Context, Result, bail, ensure};
use gosync_proto::limits::Limits;
use gosync_proto::merkle::{Summary, Tree};
use gosync_proto::reconcile::{Budget, DEFAULT_DIGEST_LEN, Initiator, Options, respond};
use gosync_proto::{Digest, PROTOCOL_VERSION, RangeSet, Record, wire};
use prost::Message;
use wire::snapshot_response::Event as Snapshot;
use wire::watch_response::Event as Watch;

use crate::dump::{self, hex};
use crate::split::Session;
use crate::world::{NOW_MS, SPACE, cursor, held, in_order, position, put, sha256};

/// The salt of all Reconcile examples.
pub const SALT: u64 = 0x5eed_0123_4567_89ab;

/// The example `name` as text, as bytes and explained. A name is a message, or a message and one of its arms after a
/// dot.
pub fn message(name: &str) -> Result<String> {
    let (message, _) = name.split_once('.').unwrap_or((name, ""));
    dump::render(message, &example(name)?)
}

/// The bytes of that example.
pub fn example(name: &str) -> Result<Vec<u8>> {
    Ok(match name {
        "HelloRequest" => hello_request()?.encode_to_vec(),
        "Grant" => wire::Grant {
            key_prefix: b"todos\0".to_vec(),
            access: wire::Access::Write as i32,
        }
        .encode_to_vec(),
        "Limits" => quotas().encode_to_vec(),
        "HelloResponse" => hello_response().encode_to_vec(),
        "PushRequest" => push_request()?.encode_to_vec(),
        "PushRequest.atomic" => wire::PushRequest {
            records: vec![done()?.into(), title()?.into()],
            atomic: true,
            newest_commit: Some(cursor(8)),
            ..push_request()?
        }
        .encode_to_vec(),
        "PushResponse" => push_response().encode_to_vec(),
        "WatchRequest" => watch_request().encode_to_vec(),
        "WatchRequest.until_caught_up" => wire::WatchRequest {
            max_response_bytes: 65_536,
            until_caught_up: true,
            ..watch_request()
        }
        .encode_to_vec(),
        "WatchResponse.changes" => watch(Watch::Changes(wire::Changes {
            records: vec![title()?.into(), done()?.into()],
            cursor: Some(cursor(9)),
        })),
        "WatchResponse.checkpoint" => watch(Watch::Checkpoint(wire::Checkpoint {
            position: Some(position(9)),
            ranges: vec![state(&[done()?, title()?])],
            server_time_ms: NOW_MS + 900,
        })),
        "WatchResponse.heartbeat" => watch(Watch::Heartbeat(wire::Heartbeat {
            server_time_ms: NOW_MS + 15_900,
            cursor: Some(cursor(12)),
        })),
        "WatchResponse.end" => watch(Watch::End(wire::StreamEnd {
            reason: wire::Reason::StreamExpired as i32,
            detail: "the stream has reached its lifetime; open it again".to_owned(),
            ..Default::default()
        })),
        "WatchResponse.unavailable" => watch(Watch::End(wire::StreamEnd {
            reason: wire::Reason::Unavailable as i32,
            detail: "the server is stopping; connect again".to_owned(),
            retry_after_ms: 500,
            ..Default::default()
        })),
        "SnapshotRequest" => snapshot_request().encode_to_vec(),
        "SnapshotResponse.start" => snapshot(Snapshot::Start(wire::SnapshotStart {
            position: Some(position(9)),
            held: in_order(0),
            total_records: 2,
            total_bytes: [done()?, title()?].iter().map(|r| r.size() as u64).sum(),
            ..Default::default()
        })),
        "SnapshotResponse.chunk" => snapshot(Snapshot::Chunk(wire::SnapshotChunk {
            records: vec![done()?.into(), title()?.into()],
        })),
        "SnapshotResponse.complete" => snapshot(Snapshot::Complete(wire::SnapshotComplete {
            ranges: vec![state(&[done()?, title()?])],
        })),
        "ReconcileRequest.fingerprints" => Session::run()?.first.0.encode_to_vec(),
        "ReconcileResponse.split" => Session::run()?.first.1.encode_to_vec(),
        "ReconcileRequest.items" => Session::run()?.second.0.encode_to_vec(),
        "ReconcileResponse.cut" => Session::run()?.second.1.encode_to_vec(),
        "ReconcileRequest" => Exchange::run()?.request.encode_to_vec(),
        "ReconcileResponse" => Exchange::run()?.response.encode_to_vec(),
        _ => bail!("there is no example of `{name}`"),
    })
}

/// A Hello over gRPC-web as it stands in the bodies of request and answer.
pub fn framing() -> Result<String> {
    let frame = |flag: u8, body: &[u8], note: &str| {
        let head = [&[flag][..], &(body.len() as u32).to_be_bytes()].concat();
        format!("{}  {note}\n{}\n", hex(&head), indented(body))
    };
    let request = frame(
        0,
        &hello_request()?.encode_to_vec(),
        "flag 0: a message, its length: the HelloRequest of section 4.8",
    );
    let answer = frame(
        0,
        &hello_response().encode_to_vec(),
        "flag 0: a message, its length: the HelloResponse",
    );
    let trailers = b"grpc-status:0\r\n";
    let end = frame(
        0x80,
        trailers,
        "flag 0x80: the trailers, their length: \"grpc-status:0\\r\\n\"",
    );
    Ok(format!(
        "```\nPOST /gosync.v1.SyncService/Hello HTTP/1.1\nhost: sync.example.org\ncontent-type: application/grpc-web+proto\n\
         x-grpc-web: 1\nauthorization: Bearer ...\n\n{request}\nHTTP/1.1 200 OK\ncontent-type: application/grpc-web+proto\n\
         cache-control: no-store, no-transform\n\n{answer}{end}```"
    ))
}

fn indented(bytes: &[u8]) -> String {
    let lines = bytes.chunks(32).map(|chunk| format!("  {}", hex(chunk)));
    lines.collect::<Vec<_>>().join("\n")
}

/// The keys of the salt, by section 7.2.
fn keys() -> [u128; 5] {
    let stem = [b"gosync.v1.shorts".as_slice(), &SALT.to_be_bytes()].concat();
    let block = |i| sha256([&stem[..], &[i]].concat()).0;
    let stream = [0, 1, 2].map(block).concat();
    std::array::from_fn(|i| number(&stream[16 * i..][..16]))
}

fn number(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |n, byte| n << 8 | u128::from(*byte))
}

/// What the short of a digest or fingerprint is the beginning of, by section 7.2.
pub fn stretched(digest: &Digest) -> u128 {
    let keys = keys();
    let words = digest.0.chunks(8).zip(&keys[1..]);
    words.fold(keys[0], |sum, (word, key)| {
        sum.wrapping_add(key.wrapping_mul(number(word)))
    })
}

/// What the columns of the Reconcile example mean.
pub fn columns() -> Result<String> {
    let exchange = Exchange::run()?;
    let (request, response) = (&exchange.request, &exchange.response);
    let mut out = String::from("```\nthe replica holds\n");
    out += &holdings(&exchange.replica);
    out += "the server holds\n";
    out += &holdings(&exchange.server);
    out += &format!("\nsalt as 8 bytes  {}\n", hex(&SALT.to_be_bytes()));
    let keys = keys();
    for (i, key) in keys.iter().enumerate() {
        out += &format!("k{i}               {key:032x}\n");
    }
    out += "\nrequest\n";
    let items = exchange.replica.len() as u8;
    ensure!(
        request.parts == [items * 4 + 2] && request.bounds.is_empty(),
        "the request lists items"
    );
    out += &format!(
        "  parts    {:<14}{items} * 4 + 2: one part, up to infinity, with {items} items\n",
        hex(&request.parts)
    );
    let shorts = request.digests.chunks(DEFAULT_DIGEST_LEN);
    for (short, record) in shorts.zip(&exchange.replica) {
        let sum = stretched(&record.digest());
        ensure!(
            sum.to_be_bytes().starts_with(short),
            "the documented rule does not give the short"
        );
        out += &format!(
            "  digests  {:<14}the first {DEFAULT_DIGEST_LEN} bytes of h of the digest of \"{}\", {sum:032x}\n",
            hex(short),
            record.key
        );
    }
    out += "\nanswer\n";
    ensure!(
        response.parts == [6] && response.lacking == [1, 2],
        "one part is resolved, two items are lacked"
    );
    out += &format!(
        "  parts    {:<14}1 * 4 + 2: one part is resolved\n",
        hex(&response.parts)
    );
    out += &format!(
        "  lacking  {:<14}the server has 1 item (\"a\"), then lacks 2 (\"ab\" and \"b\")\n",
        hex(&response.lacking)
    );
    for record in &response.records {
        out += &format!("  records  \"{}\"\n", record.key.escape_ascii());
    }
    Ok(out + "```")
}

fn holdings(records: &[Record]) -> String {
    records
        .iter()
        .map(|r| {
            format!(
                "  {:<6}{:?}  digest {}\n",
                format!("\"{}\"", r.key),
                r.version.time,
                r.digest().to_hex()
            )
        })
        .collect()
}

/// A replica and a server that differ, and one round trip between them.
struct Exchange {
    replica: Vec<Record>,
    server: Vec<Record>,
    request: wire::ReconcileRequest,
    response: wire::ReconcileResponse,
}

impl Exchange {
    fn run() -> Result<Exchange> {
        let replica = vec![put("a", 1, "1")?, put("ab", 2, "2")?, put("b", 3, "3")?];
        let server = vec![put("a", 1, "1")?, put("ab", 5, "two")?, put("c", 4, "4")?];
        let (ours, theirs) = (tree(&replica), tree(&server));
        let ranges = RangeSet::all();
        let mut session = Initiator::new(&ranges, SALT, Options::new(&Limits::default()));
        let asked = session
            .next_request(&ours)?
            .context("there is something to ask")?;
        let request = wire::ReconcileRequest {
            space: SPACE.to_owned(),
            held: held(Some(7)),
            ..asked
        };
        let budget = Budget::new(&Limits::default());
        let load = |key: &[u8]| {
            Ok::<_, Infallible>(server.iter().find(|r| r.key.as_bytes() == key).cloned())
        };
        let answered = respond(
            &request,
            &ranges,
            &theirs,
            &RangeSet::default(),
            &budget,
            load,
        )?;
        let response = wire::ReconcileResponse {
            position: Some(position(9)),
            held: in_order(7),
            ..answered
        };
        session.handle_response(&ours, response.clone())?;
        ensure!(session.is_done(), "the example ends after one round trip");
        Ok(Exchange {
            replica,
            server,
            request,
            response,
        })
    }
}

/// The tree of sorted records.
pub fn tree(records: &[Record]) -> Tree {
    Tree::from_sorted(records.iter().map(|r| (r.key.as_bytes(), r.digest())))
}

fn title() -> Result<Record> {
    put("todos\0t1\0title", 2, "\"Milk\"")
}

fn done() -> Result<Record> {
    put("todos\0t1\0done", 5, "true")
}

fn state(records: &[Record]) -> wire::RangeState {
    let Summary { count, fingerprint } = tree(records).total();
    wire::RangeState {
        count,
        fingerprint: fingerprint.0.to_vec(),
    }
}

fn watch(event: Watch) -> Vec<u8> {
    wire::WatchResponse { event: Some(event) }.encode_to_vec()
}

fn snapshot(event: Snapshot) -> Vec<u8> {
    wire::SnapshotResponse { event: Some(event) }.encode_to_vec()
}

fn hello_request() -> Result<wire::HelloRequest> {
    Ok(wire::HelloRequest {
        versions: vec![PROTOCOL_VERSION],
        features: vec![wire::Feature::Reconcile as i32, wire::Feature::Live as i32],
        space: SPACE.to_owned(),
        held: held(Some(7)),
        fingerprints: vec![title()?.digest().0.to_vec()],
        client: "todo-app/1.2".to_owned(),
        ..Default::default()
    })
}

fn hello_response() -> wire::HelloResponse {
    wire::HelloResponse {
        version: PROTOCOL_VERSION,
        features: vec![wire::Feature::Reconcile as i32, wire::Feature::Live as i32],
        server_time_ms: NOW_MS,
        limits: Some(Limits::default().to_wire()),
        grants: vec![wire::Grant {
            key_prefix: Vec::new(),
            access: wire::Access::Write as i32,
        }],
        position: Some(position(8)),
        held: in_order(7),
        equal: vec![false],
        total_records: 2,
        ..Default::default()
    }
}

/// Of a server with quotas.
fn quotas() -> wire::Limits {
    wire::Limits {
        max_space_records: 100_000,
        max_space_bytes: 64 << 20,
        max_calls_per_second: 20,
        ..Limits::default().to_wire()
    }
}

fn push_request() -> Result<wire::PushRequest> {
    Ok(wire::PushRequest {
        space: SPACE.to_owned(),
        records: vec![title()?.into()],
        held: held(Some(7)),
        ..Default::default()
    })
}

fn push_response() -> wire::PushResponse {
    wire::PushResponse {
        verdicts: vec![wire::Verdict {
            outcome: wire::Outcome::Applied as i32,
            sequence: 8,
            ..Default::default()
        }],
        position: Some(position(8)),
        server_time_ms: NOW_MS + 40,
        held: in_order(7),
    }
}

fn watch_request() -> wire::WatchRequest {
    wire::WatchRequest {
        space: SPACE.to_owned(),
        held: held(Some(7)),
        newest_commit: Some(cursor(8)),
        ..Default::default()
    }
}

fn snapshot_request() -> wire::SnapshotRequest {
    wire::SnapshotRequest {
        space: SPACE.to_owned(),
        held: held(None),
        after_key: Some(b"todos\0t1\0done".to_vec()),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_example_is_an_error() {
        assert!(message("NoSuchMessage").is_err());
        assert!(message("WatchResponse.nothing").is_err());
    }

    #[test]
    fn the_exchange_carries_what_the_replica_lacks() {
        let exchange = Exchange::run().unwrap();
        let keys: Vec<&[u8]> = exchange
            .response
            .records
            .iter()
            .map(|r| &r.key[..])
            .collect();
        assert_eq!(keys, [&b"ab"[..], b"c"]);
    }
}
