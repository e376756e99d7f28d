//! Numbers, orders and additions: tags, totals, keys as bytes, pages of streams,
//! many records, fields of later versions.

use crate::net::framing;
use crate::oracle::{Record, contains};
use crate::schema::v1;
use crate::server::{Cx, Options, Space, everything, held, key_range, time};
use crate::suite::{Case, Need, Profile, Stop, negative, positive};
use prost::Message;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "history/tags",
        profile: Profile::Core,
        needs: &[],
        about: "Sixteen commits, and their ends as Push and Watch tell them.",
        checks: &[
            positive("distinct", &["HIST-004"], "no two commits have one tag"),
            positive(
                "same",
                &["HIST-005", "WATCH-006"],
                "Watch tells the same ends as Push did",
            ),
        ],
        run: |cx| Box::pin(tags(cx)),
    },
    Case {
        name: "history/visible-in-order",
        profile: Profile::Core,
        needs: &[],
        about: "Eight writers at once; one replica follows.",
        checks: &[
            positive(
                "all",
                &["HIST-003", "WATCH-003"],
                "everything comes: no cursor skips what becomes visible later",
            ),
            positive(
                "ascending",
                &["HIST-003", "WATCH-004"],
                "the cursors ascend",
            ),
        ],
        run: |cx| Box::pin(visible_in_order(cx)),
    },
    Case {
        name: "watch/paged",
        profile: Profile::Core,
        needs: &[],
        about: "Forty commits in messages so small that they hold a few each; the stream is followed again from every cursor.",
        checks: &[
            positive(
                "pages",
                &["WATCH-008"],
                "there are several messages, none too large",
            ),
            positive(
                "cursors",
                &["WATCH-006"],
                "each cursor stands for exactly what came up to it",
            ),
        ],
        run: |cx| Box::pin(paged(cx)),
    },
    Case {
        name: "watch/at-once",
        profile: Profile::Live,
        needs: &[Need::Stop, Need::Limits, Need::Live],
        about: "Heartbeats are 20 seconds apart; something is committed.",
        checks: &[positive(
            "at-once",
            &["WATCH-027"],
            "it arrives within 5 seconds",
        )],
        run: |cx| Box::pin(at_once(cx)),
    },
    Case {
        name: "watch/checkpoint-again",
        profile: Profile::Live,
        needs: &[Need::Stop, Need::Limits, Need::Live, Need::Reconcile],
        about: "A stream is idle after a change.",
        checks: &[
            positive("again", &["WATCH-019"], "another checkpoint comes"),
            positive(
                "right",
                &["WATCH-020", "MERKLE-005"],
                "with the fingerprint after the change",
            ),
        ],
        run: |cx| Box::pin(checkpoint_again(cx)),
    },
    Case {
        name: "hello/totals",
        profile: Profile::Core,
        needs: &[],
        about: "Hello about ranges of a space with tombstones.",
        checks: &[positive(
            "counted",
            &["HELLO-022"],
            "total_records counts records and tombstones of the ranges",
        )],
        run: |cx| Box::pin(totals(cx)),
    },
    Case {
        name: "hello/profile-features",
        profile: Profile::Live,
        needs: &[Need::Live, Need::Reconcile],
        about: "A replica names each feature alone, and both.",
        checks: &[
            positive(
                "reconcile",
                &["EXT-002"],
                "FEATURE_RECONCILE is answered where it is named",
            ),
            positive(
                "live",
                &["EXT-003"],
                "FEATURE_LIVE is answered where it is named",
            ),
            positive("only-named", &["HELLO-010"], "and nothing else"),
        ],
        run: |cx| Box::pin(profile_features(cx)),
    },
    Case {
        name: "push/statuses",
        profile: Profile::Core,
        needs: &[],
        about: "A Push that names two ranges, one with a cursor of a foreign epoch.",
        checks: &[
            positive("applied", &["PUSH-008"], "its records are APPLIED"),
            positive("told", &["PUSH-034"], "both statuses are told, in order"),
        ],
        run: |cx| Box::pin(statuses(cx)),
    },
    Case {
        name: "push/keys-as-bytes",
        profile: Profile::Core,
        needs: &[],
        about: "Keys that differ in case, in normalisation, by a zero byte, and that are no text.",
        checks: &[
            positive(
                "apart",
                &["MODEL-007"],
                "each is a record of its own, byte for byte",
            ),
            positive(
                "ordered",
                &["MODEL-006", "SNAP-009"],
                "in the order of unsigned bytes",
            ),
        ],
        run: |cx| Box::pin(keys_as_bytes(cx)),
    },
    Case {
        name: "snapshot/after-key",
        profile: Profile::Hardened,
        needs: &[],
        about: "An after_key of 512 bytes, and of 513.",
        checks: &[
            positive("longest", &["SNAP-014"], "512 bytes are a key"),
            negative("longer", "longest", &["SNAP-030"], "513 are LIMIT_EXCEEDED"),
        ],
        run: |cx| Box::pin(after_key(cx)),
    },
    Case {
        name: "scale/five-thousand",
        profile: Profile::Hardened,
        needs: &[],
        about: "Five thousand records are pushed, read, followed and compared.",
        checks: &[
            positive(
                "snapshot",
                &["SNAP-007", "SNAP-009", "SNAP-013"],
                "the snapshot holds them, with the right fingerprint",
            ),
            positive(
                "watch",
                &["WATCH-003"],
                "so does a watch from the beginning",
            ),
        ],
        run: |cx| Box::pin(scale(cx)),
    },
    Case {
        name: "extension/fields-of-records",
        profile: Profile::Hardened,
        needs: &[],
        about: "Records with fields that version 1 does not know.",
        checks: &[
            positive("applied", &["EXT-006", "TRANS-030"], "they are APPLIED"),
            positive(
                "same",
                &["EXT-008", "MODEL-019"],
                "with and without them the record is the same",
            ),
            positive("dropped", &["EXT-009"], "they are not sent on"),
        ],
        run: |cx| Box::pin(fields_of_records(cx)),
    },
    Case {
        name: "security/figures-of-own-ranges",
        profile: Profile::Hardened,
        needs: &[Need::Tokens],
        about: "A token for some keys asks for everything that counts.",
        checks: &[
            positive(
                "own",
                &["SEC-005"],
                "totals and states are those of its own keys",
            ),
            negative(
                "others",
                "own",
                &["SEC-004", "SEC-005"],
                "NO_ACCESS where a range reaches beyond them",
            ),
        ],
        run: |cx| Box::pin(figures_of_own(cx)),
    },
];

pub(super) fn numbered(n: usize) -> Vec<Record> {
    (0..n)
        .map(|i| {
            Record::put(
                format!("key-{i:05}"),
                time(i as u64),
                1,
                format!("value {i}"),
            )
        })
        .collect()
}

pub(super) fn head(answer: &v1::PushResponse) -> Result<v1::Cursor, Stop> {
    answer
        .position
        .and_then(|p| p.head)
        .ok_or_else(|| Stop::Peer("Push without position.head".into()))
}

async fn tags(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let mut ends = Vec::new();
    for record in numbered(16) {
        ends.push(head(&space.seed(&[record]).await?)?);
    }
    let distinct: BTreeSet<u64> = ends.iter().map(|c| c.tag).collect();
    cx.equal("distinct", 16, distinct.len());
    for pair in ends.windows(2) {
        let seen = cx.catch_up(&space.catch_up_request(Some(pair[0]))).await?;
        let told: Vec<v1::Cursor> = seen.changes.iter().filter_map(|(_, c)| *c).collect();
        let known = told.iter().all(|c| ends.contains(c));
        cx.check(
            "same",
            known && !told.is_empty(),
            "ends that Push told",
            format!("{told:?}"),
        );
    }
    Ok(())
}

/// Answers of calls that overlap come in any order: the monitors, which expect
/// the server's, are not to look.
pub(super) fn side_by_side() -> Options {
    Options {
        faulty: true,
        ..Options::default()
    }
}

async fn visible_in_order(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    space.seed(&numbered(1)).await?;
    let writers = (0..8u64).map(|w| {
        let space = space.clone();
        async move {
            for n in 0..6u64 {
                let record = Record::put(format!("w{w}-{n}"), time(n), w, "v");
                space.push_with(&[record], &side_by_side()).await.good()?;
            }
            Ok::<_, Stop>(())
        }
    });
    let follower = async {
        let (mut cursor, mut sequences, mut keys) = (None, Vec::new(), BTreeSet::new());
        let deadline = Instant::now() + cx.target().patience;
        while Instant::now() < deadline {
            let seen = cx.catch_up(&space.catch_up_request(cursor)).await?;
            for (records, end) in seen.changes {
                keys.extend(records.into_iter().map(|r| r.key));
                sequences.extend(end.map(|c| c.sequence));
                cursor = end.or(cursor);
            }
            if keys.len() >= 49 {
                break;
            }
        }
        Ok::<_, Stop>((keys.len(), sequences))
    };
    let (wrote, followed) = tokio::join!(futures::future::try_join_all(writers), follower);
    wrote?;
    let (count, sequences) = followed?;
    cx.equal("all", 49, count);
    cx.check(
        "ascending",
        sequences.windows(2).all(|w| w[0] < w[1]),
        "strictly ascending sequences",
        format!("{sequences:?}"),
    );
    Ok(())
}

async fn paged(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    for i in 0..40u64 {
        space
            .seed(&[Record::put(format!("k{i:02}"), time(i), 1, vec![b'x'; 400])])
            .await?;
    }
    let request = v1::WatchRequest {
        max_response_bytes: 2_000,
        ..space.catch_up_request(None)
    };
    let seen = cx.catch_up(&request).await?;
    let largest = seen.sizes.iter().max().copied().unwrap_or(0);
    cx.check(
        "pages",
        seen.changes.len() > 4 && largest <= 2_000,
        "more than 4 messages of at most 2,000 bytes",
        format!(
            "{} messages, the largest of {largest} bytes",
            seen.changes.len()
        ),
    );
    let mut came = BTreeSet::new();
    for (records, cursor) in &seen.changes {
        came.extend(records.iter().map(|r| r.key.clone()));
        let Some(cursor) = cursor else { continue };
        let rest = cx.catch_up(&space.catch_up_request(Some(*cursor))).await?;
        let rest: BTreeSet<Vec<u8>> = rest.records().into_iter().map(|r| r.key).collect();
        let all: BTreeSet<Vec<u8>> = came.union(&rest).cloned().collect();
        cx.check(
            "cursors",
            all.len() == 40 && came.is_disjoint(&rest),
            "40 records, each either before the cursor or after it",
            format!(
                "{} before, {} after, {} in all",
                came.len(),
                rest.len(),
                all.len()
            ),
        );
    }
    Ok(())
}

async fn at_once(cx: Cx) -> Result<(), Stop> {
    let slow = [("heartbeat_interval_ms", 20_000), ("watchdog_ms", 60_000)];
    cx.with_limits(&slow, |cx| async move {
        let mut space = Space::fresh(&cx);
        let request = v1::WatchRequest {
            until_caught_up: false,
            ..space.catch_up_request(None)
        };
        let mut stream = cx.open("Watch", &request, &Options::default()).await;
        stream.until_checkpoint().await?;
        let began = Instant::now();
        space.seed(&numbered(1)).await?;
        let came = stream.changes(Duration::from_secs(5)).await;
        cx.check(
            "at-once",
            came.is_ok(),
            "within 5 s",
            format!("not after {:?}", began.elapsed()),
        );
        Ok(())
    })
    .await
}

async fn checkpoint_again(cx: Cx) -> Result<(), Stop> {
    let quick = [("heartbeat_interval_ms", 200), ("watchdog_ms", 1_000)];
    cx.with_limits(&quick, |cx| async move {
        let mut space = Space::fresh(&cx);
        let request = v1::WatchRequest {
            until_caught_up: false,
            ..space.catch_up_request(None)
        };
        let mut stream = cx.open("Watch", &request, &Options::default()).await;
        stream.until_checkpoint().await?;
        space.seed(&numbered(3)).await?;
        let again = tokio::time::timeout(Duration::from_secs(8), stream.until_checkpoint()).await;
        cx.check("again", matches!(again, Ok(Ok(_))), "within 8 s", "none");
        let ranges = again.ok().and_then(Result::ok).map(|c| c.ranges);
        cx.equal("right", Some(space.states(&[&everything()])), ranges);
        Ok(())
    })
    .await
}

async fn totals(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let mut records = numbered(30);
    records.push(Record::tombstone("key-gone", time(1), 1));
    records.push(Record::put("other", time(1), 1, "v"));
    space.seed(&records).await?;
    for (ranges, want) in [
        (vec![everything()], 32),
        (vec![key_range("key-", "key.")], 31),
        (
            vec![key_range("key-00010", "key-00020"), key_range("o", "p")],
            11,
        ),
        (vec![key_range("x", "y")], 0),
    ] {
        let hello = space.hello_request(vec![held(ranges, None)]);
        let answer = cx.hello(&hello).await.good()?;
        cx.equal("counted", want, answer.total_records);
    }
    Ok(())
}

async fn profile_features(cx: Cx) -> Result<(), Stop> {
    let space = Space::fresh(&cx);
    let (reconcile, live) = (v1::Feature::Reconcile as i32, v1::Feature::Live as i32);
    for named in [vec![reconcile], vec![live], vec![live, reconcile], vec![]] {
        let request = v1::HelloRequest {
            features: named.clone(),
            ..space.hello_request(vec![])
        };
        let told = cx.hello(&request).await.good()?.features;
        for (check, feature) in [("reconcile", reconcile), ("live", live)] {
            let both = (named.contains(&feature), told.contains(&feature));
            cx.check(
                check,
                both.0 == both.1,
                format!("{named:?}"),
                format!("{told:?}"),
            );
        }
        let strangers = told.iter().any(|f| !named.contains(f));
        cx.check(
            "only-named",
            !strangers,
            format!("{named:?}"),
            format!("{told:?}"),
        );
    }
    Ok(())
}

async fn statuses(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let good = head(&space.seed(&numbered(3)).await?)?;
    let foreign = v1::Cursor {
        epoch: !good.epoch,
        ..good
    };
    let records = [
        Record::put("a", time(1), 1, "v"),
        Record::put("z", time(1), 1, "v"),
    ];
    let request = v1::PushRequest {
        held: vec![
            held(vec![key_range("m", "zz")], Some(foreign)),
            held(vec![key_range("a", "m")], Some(good)),
        ],
        ..space.push_request(&records)
    };
    let answer = cx.push(&request).await.good()?;
    let applied = answer
        .verdicts
        .iter()
        .all(|v| v.outcome() == v1::Outcome::Applied);
    cx.check(
        "applied",
        applied,
        "twice APPLIED",
        format!("{:?}", answer.verdicts),
    );
    let told: Vec<v1::Lineage> = answer.held.iter().map(v1::HistoryStatus::lineage).collect();
    cx.equal("told", vec![v1::Lineage::Unknown, v1::Lineage::Same], told);
    Ok(())
}

async fn keys_as_bytes(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let keys: [&[u8]; 14] = [
        b"\x00",
        b"\x00\x00",
        b"\x7f",
        b"\x80",
        b"\xff",
        b"\xff\xff",
        b"A",
        b"a",
        b"a\x00",
        b"a\x00b",
        "\u{e9}".as_bytes(),
        "e\u{301}".as_bytes(),
        b"\xc3",
        b"%41",
    ];
    let records: Vec<Record> = keys.iter().map(|k| Record::put(k, time(1), 1, k)).collect();
    space.seed(&records).await?;
    space.verify("apart").await;
    let seen = cx
        .snapshot(&space.snapshot_request(vec![everything()]))
        .await?;
    let got: Vec<Vec<u8>> = seen.records().into_iter().map(|r| r.key).collect();
    let mut want: Vec<Vec<u8>> = keys.iter().map(|k| k.to_vec()).collect();
    want.sort();
    cx.equal("ordered", want, got);
    Ok(())
}

async fn after_key(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    space
        .seed(&[
            Record::put("a", time(1), 1, "v"),
            Record::put("z", time(1), 1, "v"),
        ])
        .await?;
    let request = |n: usize| v1::SnapshotRequest {
        after_key: Some(vec![b'm'; n]),
        ..space.snapshot_request(vec![everything()])
    };
    let seen = cx.snapshot(&request(512)).await?;
    let keys: Vec<Vec<u8>> = seen.records().into_iter().map(|r| r.key).collect();
    cx.equal("longest", vec![b"z".to_vec()], keys);
    let reply = cx
        .stream_to_end("Snapshot", &request(513), &Options::default())
        .await;
    space.refused("longer", &reply, "LIMIT_EXCEEDED").await;
    Ok(())
}

async fn scale(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    space.seed(&numbered(5_000)).await?;
    space.verify("snapshot").await;
    let seen = cx.catch_up(&space.catch_up_request(None)).await?;
    cx.equal("watch", 5_000, seen.records().len());
    Ok(())
}

/// A message with a field that nobody knows behind it.
fn with_stranger(message: &impl Message) -> Vec<u8> {
    let mut bytes = message.encode_to_vec();
    // field 1999, length-delimited
    bytes.extend([0xfa, 0x7c, 5]);
    bytes.extend(b"later");
    bytes
}

async fn fields_of_records(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let record = Record::put("k", time(1), 1, "v");
    let plain = space.push_request(&[]);
    let push = async |bytes: Vec<u8>| -> Result<v1::PushResponse, Stop> {
        // field 2 of PushRequest: records
        let mut body = plain.encode_to_vec();
        body.push(0x12);
        body.push(bytes.len() as u8);
        body.extend(bytes);
        let reply = cx
            .raw("Push", framing::encode(0, &body), &Options::default())
            .await;
        let message = reply.messages.first().cloned().unwrap_or_default();
        if !reply.is_ok() {
            return Err(Stop::Peer(reply.summary()));
        }
        v1::PushResponse::decode(message).map_err(|e| Stop::Peer(e.to_string()))
    };
    let outcome = |a: &v1::PushResponse| a.verdicts.first().map(v1::Verdict::outcome);
    let answer = push(with_stranger(&record.to_wire())).await?;
    cx.equal("applied", Some(v1::Outcome::Applied), outcome(&answer));
    space.expect(&record);
    let answer = push(record.to_wire().encode_to_vec()).await?;
    cx.equal("same", Some(v1::Outcome::Unchanged), outcome(&answer));
    let request = space.snapshot_request(vec![everything()]);
    let reply = cx
        .stream_to_end("Snapshot", &request, &Options::default())
        .await;
    let sent_on = reply
        .messages
        .iter()
        .any(|m| m.windows(5).any(|w| w == b"later"));
    cx.check(
        "dropped",
        reply.is_ok() && !sent_on,
        "the known fields only",
        "the unknown field as well",
    );
    Ok(())
}

async fn figures_of_own(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let mut records: Vec<Record> = (0..7)
        .map(|i| Record::put(format!("p/{i}"), time(1), 1, "v"))
        .collect();
    records.extend((0..20).map(|i| Record::put(format!("q/{i}"), time(1), 1, "secret")));
    space.seed(&records).await?;
    let options = Options::token(cx.token_for(&space.id, b"p/", true).await?);
    let own = key_range("p/", "p0");
    let hello = space.hello_request(vec![held(vec![own.clone()], None)]);
    let answer: v1::HelloResponse = cx.unary("Hello", &hello, &options).await.good()?;
    cx.equal("own", 7, answer.total_records);
    let request = space.snapshot_request(vec![own.clone()]);
    let seen = cx.snapshot_with(&request, &options).await?;
    cx.equal(
        "own",
        (7, 7),
        (seen.start.total_records, seen.records().len() as u64),
    );
    cx.equal("own", space.states(&[&own]), seen.complete.ranges.clone());
    let inside = seen.records().iter().all(|r| contains(&own, &r.key));
    cx.check("own", inside, "its own keys", "others");
    let wide = key_range("p/", "r");
    let reply = cx
        .stream_to_end(
            "Snapshot",
            &space.snapshot_request(vec![wide.clone()]),
            &options,
        )
        .await;
    space.refused("others", &reply, "NO_ACCESS").await;
    let hello = space.hello_request(vec![held(vec![wide], None)]);
    let reply = cx
        .unary::<_, v1::HelloResponse>("Hello", &hello, &options)
        .await
        .reply;
    space.refused("others", &reply, "NO_ACCESS").await;
    Ok(())
}
