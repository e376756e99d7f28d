//! Snapshot: one consistent state, in key order, resumable, verifiable.

use crate::oracle::Record;
use crate::schema::v1;
use crate::server::{Cx, Options, Space, everything, held, key_range, time};
use crate::suite::{Case, Profile, Stop, negative, positive};
use prost::Message;

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "snapshot/empty",
        profile: Profile::Core,
        needs: &[],
        about: "A Snapshot of an empty space.",
        checks: &[
            positive(
                "form",
                &["SNAP-002", "SNAP-012", "SNAP-033"],
                "SnapshotStart, SnapshotComplete, StreamEnd, no chunk with records",
            ),
            positive("state", &["SNAP-013"], "count 0 and 32 zero bytes"),
        ],
        run: |cx| Box::pin(empty(cx)),
    },
    Case {
        name: "snapshot/many-chunks",
        profile: Profile::Core,
        needs: &[],
        about: "Some hundred records, written in no order, asked for in small messages.",
        checks: &[
            positive(
                "ordered",
                &["SNAP-007", "SNAP-009", "MODEL-006"],
                "all records in key order over all chunks",
            ),
            positive("size", &["SNAP-010"], "no chunk is larger than asked for"),
            positive(
                "totals",
                &["SNAP-011"],
                "the totals are those of the stream",
            ),
            positive("position", &["SNAP-003"], "the position is the head"),
            positive(
                "state",
                &["SNAP-013", "MERKLE-001"],
                "count and fingerprint at the end are the oracle's",
            ),
        ],
        run: |cx| Box::pin(many_chunks(cx)),
    },
    Case {
        name: "snapshot/resume",
        profile: Profile::Core,
        needs: &[],
        about: "Streams that go on after a key, at the first, in the middle, behind the last, and with an empty key.",
        checks: &[
            positive("above", &["SNAP-014"], "exactly the keys above after_key"),
            positive(
                "empty-key",
                &["SNAP-014"],
                "an empty after_key excludes nothing",
            ),
            positive(
                "behind-last",
                &["SNAP-028"],
                "behind the last key nothing comes, and the stream is complete",
            ),
            positive(
                "totals",
                &["SNAP-011"],
                "the totals are those of this stream",
            ),
            positive(
                "state",
                &["SNAP-013"],
                "count and fingerprint are those of the whole range all the same",
            ),
        ],
        run: |cx| Box::pin(resume(cx)),
    },
    Case {
        name: "snapshot/ranges",
        profile: Profile::Core,
        needs: &[],
        about: "Two entries, the one with higher keys first.",
        checks: &[
            positive("inside", &["SNAP-007"], "exactly the records of the ranges"),
            positive(
                "ordered",
                &["SNAP-009"],
                "in key order whatever the order of the entries",
            ),
            positive(
                "states",
                &["SNAP-013"],
                "one state for each range in the order of the request",
            ),
        ],
        run: |cx| Box::pin(ranges(cx)),
    },
    Case {
        name: "snapshot/no-ranges",
        profile: Profile::Hardened,
        needs: &[],
        about: "A Snapshot without held.",
        checks: &[
            positive("with", &["SNAP-002"], "with an entry it is answered"),
            negative("without", "with", &["SNAP-006"], "MALFORMED"),
        ],
        run: |cx| Box::pin(no_ranges(cx)),
    },
    Case {
        name: "snapshot/status",
        profile: Profile::Core,
        needs: &[],
        about: "A replica whose cursor is of another lineage, and one with a good cursor.",
        checks: &[
            positive(
                "unknown-told",
                &["SNAP-004", "SNAP-005"],
                "UNKNOWN is told, not refused",
            ),
            positive(
                "same-told",
                &["SNAP-004"],
                "SAME is told, in the order of the entries",
            ),
        ],
        run: |cx| Box::pin(status(cx)),
    },
    Case {
        name: "snapshot/consistent",
        profile: Profile::Core,
        needs: &[],
        about: "Records are overwritten, added and deleted while the stream is being read.",
        checks: &[
            positive(
                "one-state",
                &["SNAP-001", "HIST-019"],
                "the stream shows the state of its position, whole",
            ),
            positive(
                "fingerprint",
                &["SNAP-001", "SNAP-013", "HIST-019"],
                "and its fingerprint",
            ),
        ],
        run: |cx| Box::pin(consistent(cx)),
    },
];

/// Records whose keys arrive in no order.
fn scattered(n: u64) -> Vec<Record> {
    (0..n)
        .map(|i| {
            let scrambled = (i * 7919) % n;
            Record::put(format!("key-{scrambled:05}"), time(i), 1, vec![b'v'; 200])
        })
        .collect()
}

async fn empty(cx: Cx) -> Result<(), Stop> {
    let space = Space::fresh(&cx);
    let seen = cx
        .snapshot(&space.snapshot_request(vec![everything()]))
        .await?;
    cx.equal("form", (0, 0), (seen.records().len(), seen.end.reason));
    cx.equal(
        "state",
        space.states(&[&everything()]),
        seen.complete.ranges,
    );
    Ok(())
}

async fn many_chunks(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let answer = space.seed(&scattered(300)).await?;
    let request = v1::SnapshotRequest {
        max_response_bytes: 8_000,
        ..space.snapshot_request(vec![everything()])
    };
    let seen = cx.snapshot(&request).await?;
    let want: Vec<Record> = space.records.values().cloned().collect();
    let got = seen.records();
    cx.check(
        "ordered",
        got == want && seen.chunks.len() > 1,
        format!("{} records in key order, in several chunks", want.len()),
        format!("{} records in {} chunks", got.len(), seen.chunks.len()),
    );
    let largest = seen.sizes.iter().max().copied().unwrap_or(0);
    cx.check(
        "size",
        largest <= 8_000,
        "at most 8,000 bytes",
        format!("{largest} bytes"),
    );
    let bytes: usize = want.iter().map(|r| r.key.len() + r.value.len()).sum();
    cx.equal(
        "totals",
        (want.len() as u64, bytes as u64),
        (seen.start.total_records, seen.start.total_bytes),
    );
    cx.equal(
        "position",
        answer.position.and_then(|p| p.head),
        seen.start.position.and_then(|p| p.head),
    );
    cx.equal(
        "state",
        space.states(&[&everything()]),
        seen.complete.ranges,
    );
    Ok(())
}

async fn resume(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    space.seed(&scattered(60)).await?;
    let keys: Vec<Vec<u8>> = space.records.keys().cloned().collect();
    for (check, after, from) in [
        ("above", keys[0].clone(), 1),
        ("above", keys[30].clone(), 31),
        ("above", b"key-00030\0".to_vec(), 31),
        ("behind-last", b"z".to_vec(), 60),
        ("empty-key", vec![], 0),
    ] {
        let request = v1::SnapshotRequest {
            after_key: Some(after),
            ..space.snapshot_request(vec![everything()])
        };
        let seen = cx.snapshot(&request).await?;
        let got: Vec<Vec<u8>> = seen.records().into_iter().map(|r| r.key).collect();
        cx.check(
            check,
            got == keys[from..],
            format!("{} keys", keys.len() - from),
            format!(
                "{} keys, the first {:?}",
                got.len(),
                got.first().map(|k| k.escape_ascii().to_string())
            ),
        );
        cx.equal("totals", got.len() as u64, seen.start.total_records);
        cx.equal(
            "state",
            space.states(&[&everything()]),
            seen.complete.ranges,
        );
    }
    Ok(())
}

async fn ranges(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let records: Vec<Record> = ["a1", "b1", "c1", "d1", "e1"]
        .iter()
        .map(|k| Record::put(k, time(1), 1, "v"))
        .collect();
    space.seed(&records).await?;
    let (high, low, middle) = (
        key_range("e", "f"),
        key_range("a", "b"),
        key_range("c", "d"),
    );
    let request = v1::SnapshotRequest {
        held: vec![
            held(vec![high.clone()], None),
            held(vec![low.clone(), middle.clone()], None),
        ],
        ..space.snapshot_request(vec![])
    };
    let seen = cx.snapshot(&request).await?;
    let got: Vec<String> = seen
        .records()
        .iter()
        .map(|r| r.key.escape_ascii().to_string())
        .collect();
    let mut sorted = got.clone();
    sorted.sort();
    cx.equal(
        "inside",
        vec!["a1".to_owned(), "c1".into(), "e1".into()],
        sorted.clone(),
    );
    cx.equal("ordered", sorted, got);
    cx.equal(
        "states",
        space.states(&[&high, &low, &middle]),
        seen.complete.ranges,
    );
    Ok(())
}

async fn no_ranges(cx: Cx) -> Result<(), Stop> {
    let space = Space::fresh(&cx);
    let seen = cx
        .snapshot(&space.snapshot_request(vec![everything()]))
        .await;
    cx.check(
        "with",
        seen.is_ok(),
        "a complete stream",
        format!("{:?}", seen.err()),
    );
    let request = v1::SnapshotRequest {
        held: vec![],
        ..space.snapshot_request(vec![])
    };
    let reply = cx
        .stream_to_end("Snapshot", &request, &Options::default())
        .await;
    space.refused("without", &reply, "MALFORMED").await;
    Ok(())
}

async fn status(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let answer = space.seed(&[Record::put("a", time(1), 1, "v")]).await?;
    let head = answer
        .position
        .and_then(|p| p.head)
        .ok_or_else(|| Stop::Peer("Push without position.head".into()))?;
    let foreign = v1::Cursor {
        epoch: !head.epoch,
        ..head
    };
    let request = v1::SnapshotRequest {
        held: vec![
            held(vec![key_range("a", "b")], Some(foreign)),
            held(vec![key_range("c", "d")], Some(head)),
        ],
        ..space.snapshot_request(vec![])
    };
    let seen = cx.snapshot(&request).await?;
    let lineage = |i: usize| seen.start.held.get(i).map(v1::HistoryStatus::lineage);
    cx.equal("unknown-told", Some(v1::Lineage::Unknown), lineage(0));
    cx.equal("same-told", Some(v1::Lineage::Same), lineage(1));
    Ok(())
}

async fn consistent(cx: Cx) -> Result<(), Stop> {
    use v1::snapshot_response::Event;
    let mut space = Space::fresh(&cx);
    let records: Vec<Record> = (0..400)
        .map(|i| Record::put(format!("key-{i:05}"), time(1), 1, vec![b'a'; 4_000]))
        .collect();
    for part in records.chunks(50) {
        space.seed(part).await?;
    }
    let before = space.clone();
    let request = v1::SnapshotRequest {
        max_response_bytes: 65_536,
        ..space.snapshot_request(vec![everything()])
    };
    // the server cannot send all of it ahead
    let options = Options {
        narrow: true,
        ..Options::default()
    };
    let mut stream = cx.open("Snapshot", &request, &options).await;
    let decode = |bytes: bytes::Bytes| {
        v1::SnapshotResponse::decode(bytes)
            .ok()
            .and_then(|m| m.event)
            .ok_or_else(|| Stop::Peer("a message that is no SnapshotResponse".into()))
    };
    let Event::Start(_) = decode(stream.bytes().await?)? else {
        return Err(Stop::Peer("no SnapshotStart first".into()));
    };
    // the stream has begun; now the space changes under it
    for n in 0..5u64 {
        space
            .seed(&[
                Record::put(format!("key-{:05}", 399 - n), time(50), 1, "changed"),
                Record::put(format!("key-{:05}x", 390 - n), time(50), 1, "added"),
                Record::tombstone(format!("key-{:05}", 380 - n), time(50), 1),
            ])
            .await?;
    }
    let mut got = Vec::new();
    let complete = loop {
        match decode(stream.bytes().await?)? {
            Event::Chunk(chunk) => {
                got.extend(
                    chunk
                        .records
                        .iter()
                        .filter_map(|r| Record::from_wire(r).ok()),
                );
            }
            Event::Complete(complete) => break complete,
            other => return Err(Stop::Peer(format!("an event out of place: {other:?}"))),
        }
    };
    let want: Vec<Record> = before.records.values().cloned().collect();
    let odd = got.iter().filter(|r| !want.contains(r)).count();
    cx.check(
        "one-state",
        got == want,
        "the 400 records as they were when the stream began",
        format!("{} records, {odd} of them of a later state", got.len()),
    );
    cx.equal(
        "fingerprint",
        before.states(&[&everything()]),
        complete.ranges,
    );
    Ok(())
}
