//! A Reconcile session in which the server splits a range, and breaks the last answer off: two round trips, column by
//! column. The columns are written here by the words of chapter 7, and answered by the rules' own crate.

use std::convert::Infallible;

use anyhow::{Result, ensure};
use gosync_proto::limits::Limits;
use gosync_proto::merkle::Tree;
use gosync_proto::reconcile::{Budget, respond};
use gosync_proto::{Digest, KeyRange, RangeSet, Record, wire};

use crate::dump::hex;
use crate::messages::{SALT, stretched, tree};
use crate::world::{SPACE, held, in_order, position, put};

/// Bytes of a short in this session.
const SHORT: usize = 6;
/// Where the server splits, which the example's text says too.
const INNER: [&str; 2] = ["b/4", "b/8"];

/// The two round trips.
pub struct Session {
    replica: Tree,
    server: Tree,
    pub first: (wire::ReconcileRequest, wire::ReconcileResponse),
    pub second: (wire::ReconcileRequest, wire::ReconcileResponse),
}

impl Session {
    pub fn run() -> Result<Session> {
        let both = |key: String| put(&key, 1, "1");
        let mut records = vec![both("a/1".to_owned())?, both("a/2".to_owned())?];
        for i in 1..=9 {
            records.push(both(format!("b/{i}"))?);
        }
        let replica = tree(&records);
        // newer under one key; what was under another one is damaged and counts as absent
        records.retain(|r| r.key.as_bytes() != b"b/5");
        for r in records.iter_mut().filter(|r| r.key.as_bytes() == b"b/4") {
            *r = put("b/4", 2, "two")?;
        }
        let server = tree(&records);

        let whole = [("a", "b"), ("b", "c")].map(|(from, to)| range(from, to));
        let mut digests = Vec::new();
        for part in whole {
            digests.extend(short(&replica.summary(&part?).fingerprint));
        }
        let request = wire::ReconcileRequest {
            turns_left: 2,
            parts: vec![1 << 2, 2 << 2 | 1, 1 << 2],
            bounds: [bound("", "a"), bound("a", "b"), bound("b", "c")].concat(),
            digests,
            ..asked()
        };
        let answer = answered(&request, &server, &records, u64::MAX)?;

        let mut digests = Vec::new();
        for (_, digest) in replica.iter(&range(INNER[0], INNER[1])?) {
            digests.extend(short(digest));
        }
        let items = wire::ReconcileRequest {
            max_response_bytes: 65_536,
            parts: vec![1 << 2, 4 << 2 | 2, 1 << 2],
            bounds: [bound("", INNER[0]), bound(INNER[0], INNER[1])].concat(),
            digests,
            ..asked()
        };
        // a server that looks at one record for a request
        let cut = answered(&items, &server, &records, 1)?;
        Ok(Session {
            replica,
            server,
            first: (request, answer),
            second: (items, cut),
        })
    }
}

fn asked() -> wire::ReconcileRequest {
    wire::ReconcileRequest {
        space: SPACE.to_owned(),
        held: held(Some(7)),
        salt: SALT,
        digest_len: SHORT as u32,
        ..Default::default()
    }
}

fn answered(
    request: &wire::ReconcileRequest,
    server: &Tree,
    records: &[Record],
    max_hashes: u64,
) -> Result<wire::ReconcileResponse> {
    let budget = Budget {
        max_hashes,
        ..Budget::new(&Limits::default())
    };
    let damaged = RangeSet::union(vec![range("b/5", "b/5\0")?]);
    let load =
        |key: &[u8]| Ok::<_, Infallible>(records.iter().find(|r| r.key.as_bytes() == key).cloned());
    let columns = respond(request, &RangeSet::all(), server, &damaged, &budget, load)?;
    Ok(wire::ReconcileResponse {
        position: Some(position(12)),
        held: in_order(7),
        ..columns
    })
}

fn range(from: &str, to: &str) -> Result<KeyRange> {
    Ok(KeyRange::new(from.as_bytes(), Some(to.as_bytes()))?)
}

fn short(digest: &Digest) -> Vec<u8> {
    stretched(digest).to_be_bytes()[..SHORT].to_vec()
}

/// A bound of a few bytes, by section 7.2.
fn bound(lower: &str, upper: &str) -> Vec<u8> {
    let (dropped, added) = steps(lower, upper);
    let head = (dropped * 16 + added) as u8;
    [&[head], &upper.as_bytes()[upper.len() - added..]].concat()
}

/// How many bytes to drop from the lower bound, and to add.
fn steps(lower: &str, upper: &str) -> (usize, usize) {
    let pairs = lower.bytes().zip(upper.bytes());
    let common = pairs.take_while(|(a, b)| a == b).count();
    (lower.len() - common, upper.len() - common)
}

/// What the columns of the session mean.
pub fn columns() -> Result<String> {
    let Session {
        replica,
        server,
        first,
        second,
    } = Session::run()?;
    let mut out = Table::default();
    out.title("first request");
    let said = |lower: &str, upper: &str| {
        let (dropped, added) = steps(lower, upper);
        format!("drop {dropped}, add {added}: \"{upper}\"")
    };
    let request = &first.0.parts;
    out.line(
        "parts",
        &request[..1],
        "1 * 4 + 0: nothing is said of one part, up to \"a\"",
    );
    out.line(
        "parts",
        &request[1..2],
        "2 * 4 + 1: two parts with a fingerprint each, up to \"b\" and up to \"c\"",
    );
    out.line(
        "parts",
        &request[2..],
        "1 * 4 + 0: nothing is said of the rest, up to infinity",
    );
    for (lower, upper) in [("", "a"), ("a", "b"), ("b", "c")] {
        out.line("bounds", &bound(lower, upper), &said(lower, upper));
    }
    for (short, (from, to)) in first.0.digests.chunks(SHORT).zip([("a", "b"), ("b", "c")]) {
        let count = replica.count(&range(from, to)?);
        out.line(
            "digests",
            short,
            &format!("\"{from}\" to \"{to}\", {count} records of the replica's"),
        );
    }

    out.title("first answer");
    let answer = &first.1;
    ensure!(
        answer.parts == [4, 13],
        "one part is equal, one split into three"
    );
    out.line(
        "parts",
        &answer.parts[..1],
        "1 * 4 + 0: one part is equal, \"a\" to \"b\"",
    );
    out.line(
        "parts",
        &answer.parts[1..],
        "3 * 4 + 1: one part differs and is split into 3, \"b\" to \"c\"",
    );
    let ends = ["b", INNER[0], INNER[1], "c"];
    let inner = [bound(ends[0], ends[1]), bound(ends[1], ends[2])].concat();
    ensure!(
        answer.bounds == inner,
        "the documented rule gives the bounds"
    );
    for pair in ends[..3].windows(2) {
        out.line("bounds", &bound(pair[0], pair[1]), &said(pair[0], pair[1]));
    }
    let mut differing = Vec::new();
    for (given, pair) in answer.digests.chunks(SHORT).zip(ends.windows(2)) {
        let part = range(pair[0], pair[1])?;
        let (theirs, own) = (server.summary(&part), replica.summary(&part));
        ensure!(
            short(&theirs.fingerprint) == given,
            "the documented rule gives the short"
        );
        let equal = short(&own.fingerprint) == given;
        if !equal {
            differing.push(pair[0]);
        }
        out.line(
            "digests",
            given,
            &format!(
                "\"{}\" to \"{}\", {} records of the server's: the replica has {}",
                pair[0],
                pair[1],
                theirs.count,
                if equal { "the same" } else { "another" }
            ),
        );
    }
    ensure!(differing == [INNER[0]], "one part differs: {differing:?}");

    out.title("second request");
    let request = &second.0;
    out.line(
        "parts",
        &request.parts[..1],
        "1 * 4 + 0: nothing is said of one part, up to \"b/4\"",
    );
    out.line(
        "parts",
        &request.parts[1..2],
        "4 * 4 + 2: one part with 4 items, up to \"b/8\"",
    );
    out.line(
        "parts",
        &request.parts[2..],
        "1 * 4 + 0: nothing is said of the rest",
    );
    for (lower, upper) in [("", INNER[0]), (INNER[0], INNER[1])] {
        out.line("bounds", &bound(lower, upper), &said(lower, upper));
    }
    for (given, (key, digest)) in request
        .digests
        .chunks(SHORT)
        .zip(replica.iter(&range(INNER[0], INNER[1])?))
    {
        ensure!(short(digest) == given, "the items are in key order");
        out.line(
            "digests",
            given,
            &format!("the digest of \"{}\"", key.escape_ascii()),
        );
    }

    out.title("second answer");
    let answer = &second.1;
    ensure!(
        answer.parts == [6] && answer.lacking == [0, 4],
        "one part is resolved"
    );
    ensure!(answer.resume_at.as_deref() == Some(b"b/6"), "it ends early");
    out.line(
        "parts",
        &answer.parts,
        "1 * 4 + 2: one part is resolved, as far as resume_at",
    );
    out.line(
        "lacking",
        &answer.lacking,
        "the server has 0 items, then lacks 4; of \"b/6\" and \"b/7\" this is void",
    );
    for record in &answer.records {
        out.line(
            "records",
            &[],
            &format!(
                "\"{}\", newer than the replica's",
                record.key.escape_ascii()
            ),
        );
    }
    for wanted in &answer.wanted {
        out.line(
            "wanted",
            &[],
            &format!(
                "\"{}\" alone: its content is damaged",
                wanted.start.escape_ascii()
            ),
        );
    }
    out.line(
        "resume_at",
        b"b/6",
        "\"b/6\": from here on nothing was processed",
    );
    Ok(format!("```\n{}```", out.0.trim_start_matches('\n')))
}

/// Lines of a column's name, bytes and meaning.
#[derive(Default)]
struct Table(String);

impl Table {
    fn title(&mut self, title: &str) {
        self.0 += &format!("\n{title}\n");
    }

    fn line(&mut self, column: &str, bytes: &[u8], note: &str) {
        self.0 += &format!("  {column:<11}{:<14}{note}\n", hex(bytes));
    }
}
