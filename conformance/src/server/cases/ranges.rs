//! Ranges and their fingerprints: bounds, order, keys that are prefixes, sets
//! that weaker fingerprints confuse.

use crate::oracle::Record;
use crate::schema::v1;
use crate::server::{Cx, Space, everything, held, key_range, time};
use crate::suite::{Case, Profile, Stop, negative, positive};

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "range/bounds",
        profile: Profile::Core,
        needs: &[],
        about: "A range holds its start and not its end; neighbours leave no gap; an absent end is infinity.",
        checks: &[
            positive(
                "start-inclusive",
                &["MODEL-006"],
                "the key that equals the start is in the range",
            ),
            positive(
                "end-exclusive",
                &["MODEL-006", "MERKLE-002"],
                "the key that equals the end is not",
            ),
            positive(
                "no-end",
                &["MODEL-006"],
                "a range without end reaches the highest key",
            ),
        ],
        run: |cx| Box::pin(bounds(cx)),
    },
    Case {
        name: "range/malformed",
        profile: Profile::Hardened,
        needs: &[],
        about: "Ranges that are inverted, empty, unsorted, overlapping, or none at all, and bounds that are too long.",
        checks: &[
            positive(
                "sorted",
                &["MODEL-011"],
                "sorted and disjoint ranges that touch are accepted",
            ),
            positive(
                "longest-bound",
                &["MODEL-009"],
                "a bound of 513 bytes is accepted",
            ),
            negative(
                "inverted",
                "sorted",
                &["MODEL-008"],
                "MALFORMED for an end below the start",
            ),
            negative(
                "empty",
                "sorted",
                &["MODEL-008"],
                "MALFORMED for an end equal to the start",
            ),
            negative(
                "unsorted",
                "sorted",
                &["MODEL-011"],
                "MALFORMED for ranges out of order",
            ),
            negative(
                "overlap",
                "sorted",
                &["MODEL-012"],
                "MALFORMED for ranges that overlap",
            ),
            negative(
                "overlap-of-entries",
                "sorted",
                &["MODEL-012"],
                "MALFORMED for two entries that cover a key twice",
            ),
            negative(
                "none",
                "sorted",
                &["MODEL-010"],
                "MALFORMED for an entry without ranges",
            ),
            negative(
                "long-bound",
                "longest-bound",
                &["MODEL-009"],
                "LIMIT_EXCEEDED for a bound of 514 bytes",
            ),
        ],
        run: |cx| Box::pin(malformed(cx)),
    },
    Case {
        name: "range/too-many",
        profile: Profile::Hardened,
        needs: &[],
        about: "As many ranges as the server advertises, and one more.",
        checks: &[
            positive("most", &["LIMIT-002"], "max_ranges ranges are accepted"),
            negative(
                "more",
                "most",
                &["LIMIT-004"],
                "LIMIT_EXCEEDED for one more",
            ),
            negative(
                "named",
                "most",
                &["LIMIT-005"],
                "the refusal's LimitDetail names max_ranges and its value",
            ),
        ],
        run: |cx| Box::pin(too_many(cx)),
    },
    Case {
        name: "range/prefix-keys",
        profile: Profile::Heal,
        needs: &[],
        about: "Keys that are prefixes of each other, with zero and 0xff bytes: the fingerprint of many ranges is the oracle's.",
        checks: &[positive(
            "fingerprints",
            &["MERKLE-001", "MERKLE-002", "MODEL-007"],
            "every range has the oracle's count and fingerprint",
        )],
        run: |cx| Box::pin(prefix_keys(cx)),
    },
    Case {
        name: "range/same-count",
        profile: Profile::Heal,
        needs: &[],
        about: "Two spaces with the same keys and as many records, of which one differs in a single field.",
        checks: &[
            positive(
                "equal-sets",
                &["MERKLE-001"],
                "the same records have the same fingerprint in two spaces",
            ),
            positive(
                "value",
                &["MODEL-020"],
                "another value changes the fingerprint as the oracle says",
            ),
            positive("replica", &["MODEL-020"], "another replica id changes it"),
            positive(
                "tombstone",
                &["MODEL-020"],
                "a tombstone instead of an empty value changes it",
            ),
        ],
        run: |cx| Box::pin(same_count(cx)),
    },
    Case {
        name: "range/random",
        profile: Profile::Heal,
        needs: &[],
        about: "Random keys and random ranges.",
        checks: &[positive(
            "fingerprints",
            &["MERKLE-001", "MERKLE-002"],
            "every range has the oracle's count and fingerprint",
        )],
        run: |cx| Box::pin(random(cx)),
    },
];

async fn bounds(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let keys: [&[u8]; 5] = [b"a", b"b", b"b\0", b"c", b"\xff\xff"];
    let records: Vec<Record> = keys
        .iter()
        .map(|k| Record::put(k, time(1), 1, "v"))
        .collect();
    space.seed(&records).await?;
    let keys_in = async |range: v1::Range| -> Result<Vec<Vec<u8>>, Stop> {
        let seen = cx.snapshot(&space.snapshot_request(vec![range])).await?;
        Ok(seen.records().into_iter().map(|r| r.key).collect())
    };
    let got = keys_in(key_range("b", "c")).await?;
    cx.equal("start-inclusive", Some(&b"b".to_vec()), got.first());
    cx.equal("end-exclusive", vec![b"b".to_vec(), b"b\0".to_vec()], got);
    let got = keys_in(key_range("a", "b\0")).await?;
    cx.equal("end-exclusive", vec![b"a".to_vec(), b"b".to_vec()], got);
    let open = v1::Range {
        start: b"c".to_vec(),
        end: None,
    };
    let got = keys_in(open).await?;
    cx.equal("no-end", vec![b"c".to_vec(), b"\xff\xff".to_vec()], got);
    Ok(())
}

async fn malformed(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    space.seed(&[Record::put("k", time(1), 1, "v")]).await?;
    let longest = vec![0x6b; 513];
    for (check, entries) in [
        (
            "sorted",
            vec![
                held(vec![key_range("a", "b"), key_range("b", "c")], None),
                held(vec![key_range("c", "d")], None),
            ],
        ),
        (
            "longest-bound",
            vec![held(vec![key_range("a", &longest)], None)],
        ),
    ] {
        let answer = cx.hello(&space.hello_request(entries)).await;
        cx.check(
            check,
            answer.message.is_some(),
            "an answer",
            answer.reply.summary(),
        );
    }
    let bad: [(&'static str, &str, Vec<v1::HeldRanges>); 7] = [
        (
            "inverted",
            "MALFORMED",
            vec![held(vec![key_range("b", "a")], None)],
        ),
        (
            "empty",
            "MALFORMED",
            vec![held(vec![key_range("b", "b")], None)],
        ),
        (
            "unsorted",
            "MALFORMED",
            vec![held(vec![key_range("c", "d"), key_range("a", "b")], None)],
        ),
        (
            "overlap",
            "MALFORMED",
            vec![held(vec![key_range("a", "c"), key_range("b", "d")], None)],
        ),
        (
            "overlap-of-entries",
            "MALFORMED",
            vec![
                held(vec![everything()], None),
                held(vec![key_range("b", "d")], None),
            ],
        ),
        ("none", "MALFORMED", vec![held(vec![], None)]),
        (
            "long-bound",
            "LIMIT_EXCEEDED",
            vec![held(vec![key_range("a", vec![0x6b; 514])], None)],
        ),
    ];
    for (check, reason, entries) in bad {
        let reply = cx.hello(&space.hello_request(entries.clone())).await.reply;
        space.refused(check, &reply, reason).await;
        let request = v1::SnapshotRequest {
            held: entries,
            ..space.snapshot_request(vec![])
        };
        let reply = cx
            .stream_to_end("Snapshot", &request, &crate::server::Options::default())
            .await;
        space.refused(check, &reply, reason).await;
    }
    Ok(())
}

async fn too_many(cx: Cx) -> Result<(), Stop> {
    let space = Space::fresh(&cx);
    let most = cx.limits().max_ranges.clamp(1, 50_000) as u32;
    let ranges = |n: u32| -> Vec<v1::Range> {
        (0..n)
            .map(|i| key_range((2 * i).to_be_bytes(), (2 * i + 1).to_be_bytes()))
            .collect()
    };
    let answer = cx
        .hello(&space.hello_request(vec![held(ranges(most), None)]))
        .await;
    cx.check(
        "most",
        answer.message.is_some(),
        "an answer",
        answer.reply.summary(),
    );
    let reply = cx
        .hello(&space.hello_request(vec![held(ranges(most + 1), None)]))
        .await
        .reply;
    space.refused("more", &reply, "LIMIT_EXCEEDED").await;
    let detail = reply
        .status
        .and_then(|s| s.detail::<v1::LimitDetail>("gosync.v1.LimitDetail"))
        .map(|d| (d.limit, d.allowed));
    cx.equal(
        "named",
        Some(("max_ranges".to_owned(), u64::from(most))),
        detail,
    );
    Ok(())
}

/// Asks Snapshot for the states of ranges and compares them with the oracle.
async fn compare_states(space: &Space, ranges: Vec<v1::Range>) -> Result<(), Stop> {
    for range in ranges {
        let seen = space
            .cx
            .snapshot(&space.snapshot_request(vec![range.clone()]))
            .await?;
        space.cx.check(
            "fingerprints",
            seen.complete.ranges == [space.state(&range)],
            format!("{:?}", space.state(&range)),
            format!("{:?} for {range:?}", seen.complete.ranges),
        );
    }
    Ok(())
}

async fn prefix_keys(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let keys: [&[u8]; 12] = [
        b"a",
        b"a\0",
        b"a\0\0",
        b"a\xff",
        b"ab",
        b"abc",
        b"b",
        b"\0",
        b"\0\0",
        b"\xff",
        b"\xff\xff",
        "\u{ffff}\u{10000}".as_bytes(),
    ];
    let records: Vec<Record> = keys
        .iter()
        .enumerate()
        .map(|(i, k)| Record::put(k, time(i as u64), 7, k))
        .collect();
    space.seed(&records).await?;
    let tail = v1::Range {
        start: b"ab".to_vec(),
        end: None,
    };
    compare_states(
        &space,
        vec![
            everything(),
            key_range("a", "b"),
            key_range("a\0", "a\0\0"),
            key_range("a\0", "ab"),
            key_range("", "a"),
            key_range("aa", "aaa"),
            tail,
        ],
    )
    .await
}

async fn same_count(cx: Cx) -> Result<(), Stop> {
    let base: Vec<Record> = (0..6)
        .map(|i| Record::put(format!("k{i}"), time(1), 5, ""))
        .collect();
    let mut first = Space::fresh(&cx);
    first.seed(&base).await?;
    let mut second = Space::fresh(&cx);
    second.seed(&base).await?;
    let fingerprint = async |space: &Space| -> Result<Vec<u8>, Stop> {
        let seen = cx
            .snapshot(&space.snapshot_request(vec![everything()]))
            .await?;
        let state = seen.complete.ranges.into_iter().next();
        Ok(state.map(|s| s.fingerprint).unwrap_or_default())
    };
    cx.check(
        "equal-sets",
        fingerprint(&first).await? == fingerprint(&second).await?,
        "the same fingerprint",
        "different ones",
    );
    let mut value = base[2].clone();
    value.value = b"x".to_vec();
    let mut replica = base[2].clone();
    replica.replica = 6;
    let tombstone = Record::tombstone("k2", base[2].time, 5);
    for (check, other) in [
        ("value", value),
        ("replica", replica),
        ("tombstone", tombstone),
    ] {
        let mut records = base.clone();
        records[2] = other;
        let mut space = Space::fresh(&cx);
        space.seed(&records).await?;
        let got = fingerprint(&space).await?;
        cx.check(
            check,
            got == space.state(&everything()).fingerprint,
            crate::schema::hex(&space.state(&everything()).fingerprint),
            crate::schema::hex(&got),
        );
    }
    Ok(())
}

async fn random(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let mut records = Vec::new();
    for i in 0..120 {
        let length = 1 + cx.below(6) as usize;
        let key: Vec<u8> = (0..length).map(|_| (cx.below(4) * 85) as u8).collect();
        if records.iter().all(|r: &Record| r.key != key) {
            records.push(Record::put(key, time(i), cx.random(), i.to_string()));
        }
    }
    space.seed(&records).await?;
    let mut ranges = vec![everything()];
    for _ in 0..12 {
        let bound = || {
            let length = cx.below(4) as usize;
            (0..length)
                .map(|_| (cx.below(4) * 85) as u8)
                .collect::<Vec<u8>>()
        };
        let (a, b) = (bound(), bound());
        if a < b {
            ranges.push(key_range(a, b));
        }
    }
    compare_states(&space, ranges).await
}
