//! Push: verdicts, batches, repetition, what is wrong with single records.

use crate::oracle::{KEY_BYTES, Record, reason_name};
use crate::schema::v1;
use crate::server::{Cx, Space, time};
use crate::suite::{Case, Profile, Stop, negative, positive};
use v1::Outcome::{Applied, Rejected, Superseded, Unchanged};

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "push/one",
        profile: Profile::Core,
        needs: &[],
        about: "One record into an empty space.",
        checks: &[
            positive("applied", &["PUSH-010"], "the verdict is APPLIED"),
            positive(
                "first-sequence",
                &["HIST-001", "PUSH-013"],
                "its sequence is 1",
            ),
            positive(
                "head",
                &["PUSH-020", "PUSH-021"],
                "position.head is this commit's end",
            ),
            positive(
                "there",
                &["PUSH-018", "MODEL-016"],
                "the record can be read, byte for byte",
            ),
        ],
        run: |cx| Box::pin(one(cx)),
    },
    Case {
        name: "push/empty",
        profile: Profile::Core,
        needs: &[],
        about: "A Push without records.",
        checks: &[
            positive(
                "accepted",
                &["PUSH-003"],
                "it is answered, without verdicts",
            ),
            positive("head-stays", &["PUSH-020"], "the head does not move"),
        ],
        run: |cx| Box::pin(empty(cx)),
    },
    Case {
        name: "push/batch",
        profile: Profile::Core,
        needs: &[],
        about: "Records in no order of keys, in one Push, twice.",
        checks: &[
            positive(
                "in-order",
                &["PUSH-009"],
                "verdicts come in the order of the records",
            ),
            positive(
                "consecutive",
                &["HIST-001", "HIST-002"],
                "sequences are consecutive, without gaps, over two pushes",
            ),
            positive(
                "head-is-last",
                &["PUSH-021"],
                "the head is the last sequence",
            ),
            positive("there", &["PUSH-018"], "all records can be read"),
        ],
        run: |cx| Box::pin(batch(cx)),
    },
    Case {
        name: "push/repeated",
        profile: Profile::Core,
        needs: &[],
        about: "The same Push again, as after an answer that was lost.",
        checks: &[
            positive(
                "first",
                &["PUSH-010"],
                "the first time each record is APPLIED",
            ),
            positive(
                "unchanged",
                &["PUSH-010", "MODEL-019"],
                "the second time each is UNCHANGED",
            ),
            positive(
                "same-sequence",
                &["PUSH-014"],
                "with the sequence of the first time",
            ),
            positive("head-stays", &["HIST-001"], "the head does not move"),
        ],
        run: |cx| Box::pin(repeated(cx)),
    },
    Case {
        name: "push/duplicate-key",
        profile: Profile::Hardened,
        needs: &[],
        about: "A batch with one key twice.",
        checks: &[
            positive(
                "distinct",
                &["PUSH-010"],
                "the same batch with distinct keys is applied",
            ),
            negative(
                "refused",
                "distinct",
                &["PUSH-001"],
                "MALFORMED, and nothing of it is stored",
            ),
        ],
        run: |cx| Box::pin(duplicate_key(cx)),
    },
    Case {
        name: "push/too-many",
        profile: Profile::Hardened,
        needs: &[],
        about: "As many records as the server advertises, and one more.",
        checks: &[
            positive(
                "most",
                &["LIMIT-002"],
                "max_push_records records are applied",
            ),
            negative(
                "more",
                "most",
                &["PUSH-002", "LIMIT-004"],
                "LIMIT_EXCEEDED for one more, and nothing of it is stored",
            ),
            negative(
                "named",
                "most",
                &["LIMIT-005"],
                "LimitDetail names max_push_records and its value",
            ),
        ],
        run: |cx| Box::pin(too_many(cx)),
    },
    Case {
        name: "push/bad-records",
        profile: Profile::Core,
        needs: &[],
        about: "A batch in which good records stand between bad ones of every kind.",
        checks: &[
            positive(
                "good-applied",
                &["PUSH-007", "PUSH-010"],
                "the good records are APPLIED",
            ),
            negative(
                "no-version",
                "good-applied",
                &["MODEL-013", "PUSH-010", "PUSH-016"],
                "REJECTED MALFORMED without version",
            ),
            negative(
                "unknown-flag",
                "good-applied",
                &["MODEL-014"],
                "REJECTED MALFORMED for an unknown flag",
            ),
            negative(
                "tombstone-with-value",
                "good-applied",
                &["MODEL-015"],
                "REJECTED MALFORMED for a tombstone with a value",
            ),
            negative(
                "empty-key",
                "good-applied",
                &["MODEL-004"],
                "REJECTED MALFORMED for an empty key",
            ),
            negative(
                "long-key",
                "good-applied",
                &["MODEL-005", "LIMIT-010"],
                "REJECTED LIMIT_EXCEEDED for a key of 513 bytes",
            ),
            negative(
                "big-value",
                "good-applied",
                &["PUSH-010", "LIMIT-004"],
                "REJECTED LIMIT_EXCEEDED for a value over max_value_bytes",
            ),
            positive(
                "only-good-there",
                &["PUSH-007"],
                "exactly the good records can be read",
            ),
        ],
        run: |cx| Box::pin(bad_records(cx)),
    },
    Case {
        name: "push/largest",
        profile: Profile::Core,
        needs: &[],
        about: "The longest key, the largest value, an empty value, every byte in a key.",
        checks: &[
            positive("applied", &["LIMIT-002", "LIMIT-010"], "all are APPLIED"),
            positive(
                "there",
                &["MODEL-007", "MODEL-016"],
                "and can be read, byte for byte, in the order of unsigned bytes",
            ),
        ],
        run: |cx| Box::pin(largest(cx)),
    },
    Case {
        name: "push/atomic",
        profile: Profile::Core,
        needs: &[],
        about: "Atomic batches: a good one, one with a bad record, one whose records are already there or superseded.",
        checks: &[
            positive("good", &["PUSH-010"], "a good atomic batch is applied"),
            negative(
                "aborted",
                "good",
                &["PUSH-022"],
                "one bad record: nothing is stored",
            ),
            negative(
                "reasons",
                "good",
                &["PUSH-023"],
                "the bad one keeps its reason, the others are BATCH_ABORTED",
            ),
            positive(
                "merged-counts",
                &["PUSH-022", "PUSH-023"],
                "UNCHANGED and SUPERSEDED abort nothing",
            ),
        ],
        run: |cx| Box::pin(atomic(cx)),
    },
    Case {
        name: "push/spaces-apart",
        profile: Profile::Core,
        needs: &[],
        about: "The same key in two spaces.",
        checks: &[
            positive("apart", &["MODEL-002"], "each space holds its own record"),
            positive(
                "own-sequences",
                &["HIST-001"],
                "each counts its own sequences",
            ),
        ],
        run: |cx| Box::pin(spaces_apart(cx)),
    },
    Case {
        name: "push/concurrent",
        profile: Profile::Core,
        needs: &[],
        about: "Sixteen pushes at once into one space, to distinct keys and to one common key.",
        checks: &[
            positive(
                "gap-free",
                &["HIST-001", "HIST-002"],
                "all sequences are distinct, without gaps, consecutive within a push",
            ),
            positive(
                "there",
                &["PUSH-018"],
                "every record is there, the newest under the common key",
            ),
        ],
        run: |cx| Box::pin(concurrent(cx)),
    },
];

fn outcomes(answer: &v1::PushResponse) -> Vec<v1::Outcome> {
    answer.verdicts.iter().map(v1::Verdict::outcome).collect()
}

fn head(answer: &v1::PushResponse) -> u64 {
    answer
        .position
        .and_then(|p| p.head)
        .map_or(0, |h| h.sequence)
}

async fn one(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let record = Record::put("key", time(1), 0xfeed, b"\0\xff value");
    let answer = space.push(std::slice::from_ref(&record)).await.good()?;
    space.expect(&record);
    cx.equal("applied", vec![Applied], outcomes(&answer));
    cx.equal(
        "first-sequence",
        Some(1),
        answer.verdicts.first().map(|v| v.sequence),
    );
    cx.equal("head", 1, head(&answer));
    space.verify("there").await;
    Ok(())
}

async fn empty(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let before = space.seed(&[Record::put("k", time(1), 1, "v")]).await?;
    let answer = space.push(&[]).await.good()?;
    cx.equal("accepted", 0, answer.verdicts.len());
    cx.equal("head-stays", head(&before), head(&answer));
    Ok(())
}

async fn batch(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let list = |prefix: &str| -> Vec<Record> {
        [5, 2, 9, 0, 7]
            .iter()
            .map(|i| Record::put(format!("{prefix}{i}"), time(*i), 1, format!("value {i}")))
            .collect()
    };
    let (first, second) = (list("a"), list("b"));
    let answer = space.push(&first).await.good()?;
    let sequences: Vec<u64> = answer.verdicts.iter().map(|v| v.sequence).collect();
    // one repeated record between new ones shows whose verdict is whose
    let mut mixed = second.clone();
    mixed.insert(1, first[3].clone());
    let next = space.push(&mixed).await.good()?;
    first.iter().chain(&second).for_each(|r| space.expect(r));
    let mut expected = vec![Applied; 6];
    expected[1] = Unchanged;
    cx.equal("in-order", expected, outcomes(&next));
    cx.equal(
        "in-order",
        sequences.get(3).copied(),
        next.verdicts.get(1).map(|v| v.sequence),
    );
    let mut all = sequences;
    all.extend(
        next.verdicts
            .iter()
            .filter(|v| v.outcome() == Applied)
            .map(|v| v.sequence),
    );
    all.sort_unstable();
    cx.equal("consecutive", (1..=10).collect::<Vec<u64>>(), all);
    cx.equal("head-is-last", (5, 10), (head(&answer), head(&next)));
    space.verify("there").await;
    Ok(())
}

async fn repeated(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let records = [
        Record::put("a", time(1), 1, "v"),
        Record::tombstone("b", time(2), 1),
        Record::put("c", time(3), 1, ""),
    ];
    let first = space.push(&records).await.good()?;
    cx.equal("first", vec![Applied; 3], outcomes(&first));
    let again = space.push(&records).await.good()?;
    cx.equal("unchanged", vec![Unchanged; 3], outcomes(&again));
    let sequences =
        |a: &v1::PushResponse| a.verdicts.iter().map(|v| v.sequence).collect::<Vec<_>>();
    cx.equal("same-sequence", sequences(&first), sequences(&again));
    cx.equal("head-stays", head(&first), head(&again));
    records.iter().for_each(|r| space.expect(r));
    Ok(())
}

async fn duplicate_key(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let (a, b) = (
        Record::put("a", time(1), 1, "v"),
        Record::put("b", time(1), 1, "v"),
    );
    let answer = space.seed(&[a, b.clone()]).await?;
    cx.equal("distinct", vec![Applied; 2], outcomes(&answer));
    let twice = [
        Record::put("c", time(2), 1, "first"),
        b,
        Record::put("c", time(3), 1, "second"),
    ];
    let reply = space.push(&twice).await.reply;
    space.refused("refused", &reply, "MALFORMED").await;
    Ok(())
}

async fn too_many(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let most = cx.limits().max_push_records;
    if most == 0 || most > 20_000 {
        cx.recorder()
            .note("max_push_records is too high to be tried; 100 records were");
    }
    let most = if most == 0 { 100 } else { most.min(20_000) };
    let list = |n: u64, prefix: &str| -> Vec<Record> {
        (0..n)
            .map(|i| Record::put(format!("{prefix}{i:06}"), time(i), 1, ""))
            .collect()
    };
    let records = list(most, "a");
    let answer = space.push(&records).await;
    let applied = answer
        .message
        .as_ref()
        .is_some_and(|a| a.verdicts.iter().all(|v| v.outcome() == Applied));
    cx.check(
        "most",
        applied,
        format!("{most} times APPLIED"),
        answer.reply.summary(),
    );
    records.iter().for_each(|r| space.expect(r));
    let reply = space.push(&list(most + 1, "b")).await.reply;
    space.refused("more", &reply, "LIMIT_EXCEEDED").await;
    let detail = reply
        .status
        .and_then(|s| s.detail::<v1::LimitDetail>("gosync.v1.LimitDetail"))
        .map(|d| (d.limit, d.allowed));
    cx.equal("named", Some(("max_push_records".to_owned(), most)), detail);
    Ok(())
}

async fn bad_records(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let good = |key: &str| Record::put(key, time(1), 1, "good");
    let bad = |key: &str, change: fn(&mut v1::Record)| {
        let mut record = good(key).to_wire();
        change(&mut record);
        record
    };
    let too_big = cx.limits().max_value_bytes as usize + 1;
    let mut big = good("bad-6").to_wire();
    big.value = vec![7; too_big];
    let fits = too_big + 4096 < cx.limits().max_message_bytes as usize;
    let tried: Vec<(&'static str, &str, v1::Record)> = vec![
        (
            "no-version",
            "MALFORMED",
            bad("bad-1", |r| r.version = None),
        ),
        ("unknown-flag", "MALFORMED", bad("bad-2", |r| r.flags = 2)),
        (
            "tombstone-with-value",
            "MALFORMED",
            bad("bad-3", |r| r.flags = 1),
        ),
        ("empty-key", "MALFORMED", bad("bad-4", |r| r.key.clear())),
        (
            "long-key",
            "LIMIT_EXCEEDED",
            bad("bad-5", |r| r.key = vec![1; KEY_BYTES + 1]),
        ),
        ("big-value", "LIMIT_EXCEEDED", big),
    ];
    let mut request = space.push_request(&[]);
    for (i, (check, _, record)) in tried.iter().enumerate() {
        let fine = good(&format!("good-{i}"));
        request.records.push(fine.to_wire());
        space.expect(&fine);
        if *check != "big-value" || fits {
            request.records.push(record.clone());
        }
    }
    let answer = cx.push(&request).await.good()?;
    let mut verdicts = answer.verdicts.iter();
    for (check, reason, _) in &tried {
        let fine = verdicts.next().map(v1::Verdict::outcome);
        cx.equal("good-applied", Some(Applied), fine);
        if *check == "big-value" && !fits {
            cx.check(
                "big-value",
                true,
                "",
                "a value over the limit does not fit into a message",
            );
            continue;
        }
        let got = verdicts
            .next()
            .map(|v| (v.outcome(), reason_name(v.reason)));
        cx.equal(check, Some((Rejected, *reason)), got);
    }
    space.verify("only-good-there").await;
    Ok(())
}

async fn largest(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let limits = cx.limits();
    let most = (limits.max_value_bytes as usize)
        .min((limits.max_message_bytes as usize).saturating_sub(4096));
    let mut records = vec![
        Record::put(vec![0xff; KEY_BYTES], time(1), 1, "long key"),
        Record::put("largest", time(1), 1, vec![0xa5; most]),
        Record::put("empty", time(1), 1, ""),
        Record::put(b"\0", time(1), 1, "zero"),
        Record::put("\u{ffff}", time(1), 1, "before the next in bytes"),
        Record::put("\u{10000}", time(1), 1, "before the last in UTF-16"),
    ];
    records.extend((0..=255).map(|b: u8| Record::put([b'#', b], time(2), 1, [b])));
    for batch in [
        &records[..1],
        &records[1..2],
        &records[2..6],
        &records[6..106],
        &records[106..206],
        &records[206..],
    ] {
        let answer = space.push(batch).await.good()?;
        cx.equal("applied", vec![Applied; batch.len()], outcomes(&answer));
        batch.iter().for_each(|r| space.expect(r));
    }
    space.verify("there").await;
    Ok(())
}

async fn atomic(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let good = [
        Record::put("a", time(5), 1, "v"),
        Record::put("b", time(5), 1, "v"),
    ];
    let request = v1::PushRequest {
        atomic: true,
        ..space.push_request(&good)
    };
    let answer = cx.push(&request).await.good()?;
    cx.equal("good", vec![Applied; 2], outcomes(&answer));
    good.iter().for_each(|r| space.expect(r));
    let fresh = Record::put("c", time(6), 1, "v");
    let mut request = v1::PushRequest {
        atomic: true,
        ..space.push_request(&[fresh.clone(), fresh.clone(), good[0].clone()])
    };
    request.records[1].key = b"d".to_vec();
    request.records[1].flags = 4;
    let answer = cx.push(&request).await.good()?;
    let got: Vec<(v1::Outcome, &str)> = answer
        .verdicts
        .iter()
        .map(|v| (v.outcome(), reason_name(v.reason)))
        .collect();
    cx.equal(
        "reasons",
        vec![
            (Rejected, "BATCH_ABORTED"),
            (Rejected, "MALFORMED"),
            (Unchanged, ""),
        ],
        got,
    );
    let state = space.as_expected().await;
    cx.check(
        "aborted",
        state.is_ok(),
        "the space as before",
        state.err().unwrap_or_else(|| "as before".into()),
    );
    let merged = [fresh, good[0].clone(), Record::put("b", time(1), 1, "old")];
    let request = v1::PushRequest {
        atomic: true,
        ..space.push_request(&merged)
    };
    let answer = cx.push(&request).await.good()?;
    cx.equal(
        "merged-counts",
        vec![Applied, Unchanged, Superseded],
        outcomes(&answer),
    );
    space.expect(&merged[0]);
    Ok(())
}

async fn spaces_apart(cx: Cx) -> Result<(), Stop> {
    let (mut first, mut second) = (Space::fresh(&cx), Space::fresh(&cx));
    first
        .seed(&[
            Record::put("k", time(1), 1, "first"),
            Record::put("l", time(1), 1, ""),
        ])
        .await?;
    let answer = second
        .seed(&[Record::put("k", time(2), 1, "second")])
        .await?;
    cx.equal("own-sequences", 1, head(&answer));
    first.verify("apart").await;
    second.verify("apart").await;
    Ok(())
}

async fn concurrent(cx: Cx) -> Result<(), Stop> {
    let mut space = Space::fresh(&cx);
    let batches: Vec<Vec<Record>> = (0..16u64)
        .map(|n| {
            let mut batch: Vec<Record> = (0..5)
                .map(|i| Record::put(format!("{n:02}-{i}"), time(i), n, "v"))
                .collect();
            batch.push(Record::put("common", time(100 + n), n, n.to_string()));
            batch
        })
        .collect();
    // monitors expect calls one after the other
    let options = crate::server::Options {
        faulty: true,
        ..crate::server::Options::default()
    };
    let answers =
        futures::future::join_all(batches.iter().map(|b| space.push_with(b, &options))).await;
    let mut all = Vec::new();
    for answer in answers {
        let answer = answer.good()?;
        let own: Vec<u64> = answer
            .verdicts
            .iter()
            .filter(|v| v.outcome() == Applied)
            .map(|v| v.sequence)
            .collect();
        let consecutive = own.windows(2).all(|w| w[1] == w[0] + 1);
        cx.check(
            "gap-free",
            consecutive,
            "consecutive sequences",
            format!("{own:?}"),
        );
        all.extend(own);
    }
    all.sort_unstable();
    let want: Vec<u64> = (1..=all.len() as u64).collect();
    cx.check("gap-free", all == want, "1, 2, 3, …", format!("{all:?}"));
    batches.iter().flatten().for_each(|r| space.expect(r));
    space.verify("there").await;
    Ok(())
}
