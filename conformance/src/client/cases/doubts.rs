//! Reconcile with a server that lies, lags, moves or never comes to be equal:
//! what a client believes, how often it asks, and what it says of the result.

use super::tools::{bend, calls, cursors, head, heal, reconciles, server_loses, settled, until};
use super::{others, same_as_server, sync_patiently, time};
use crate::client::Cx;
use crate::oracle::Record;
use crate::peer::Seen;
use crate::schema::v1;
use crate::suite::{Case, Need, Profile, Stop, negative, positive};
use prost::Message;
use std::collections::BTreeSet;
use std::time::Duration;

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "reconcile/salt",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "Three sessions, one after the other.",
        checks: &[positive(
            "fresh",
            &["RECON-004"],
            "each has a salt of its own",
        )],
        run: |cx| Box::pin(salt(cx)),
    },
    Case {
        name: "reconcile/never-equal",
        profile: Profile::Heal,
        needs: &[Need::Live, Need::Reconcile],
        about: "The server's fingerprints are wrong for ever.",
        checks: &[
            positive(
                "then-snapshot",
                &["RECON-045", "CLIENT-040"],
                "after at most two sessions comes a Snapshot",
            ),
            positive(
                "then-rest",
                &["RECON-046"],
                "and then nothing heals for a while",
            ),
        ],
        run: |cx| Box::pin(never_equal(cx)),
    },
    Case {
        name: "reconcile/lagging-answer",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "An answer names a position before the client's cursor.",
        checks: &[
            positive(
                "not-lowered",
                &["RECON-035", "RECON-041"],
                "no later request has a lower cursor",
            ),
            positive("done", &["RECON-044"], "the session ends well"),
        ],
        run: |cx| Box::pin(lagging(cx)),
    },
    Case {
        name: "reconcile/lagging-for-ever",
        profile: Profile::Heal,
        needs: &[Need::Reconcile, Need::Live],
        about: "Every answer names a position before the client's cursor.",
        checks: &[positive(
            "waits",
            &["RECON-056"],
            "it is not asked again at once: at most a few times within two seconds",
        )],
        run: |cx| Box::pin(lagging_for_ever(cx)),
    },
    Case {
        name: "reconcile/other-status",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "A client that is behind the compaction reconciles; an answer says that it is not.",
        checks: &[
            positive("begins-anew", &["RECON-034"], "a Hello follows"),
            positive("done", &["RECON-044"], "the next session ends well"),
        ],
        run: |cx| Box::pin(other_status(cx)),
    },
    Case {
        name: "reconcile/moving-server",
        profile: Profile::Heal,
        needs: &[Need::Reconcile, Need::Live],
        about: "While a session goes on, others write where it has been already.",
        checks: &[
            positive(
                "first-position",
                &["RECON-041"],
                "the cursor is the position of the session's first answer, not of a later one",
            ),
            positive("done", &["RECON-044", "WATCH-012"], "nothing is missed"),
        ],
        run: |cx| Box::pin(moving_server(cx)),
    },
    Case {
        name: "reconcile/other-epoch",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "An answer in the middle names another epoch.",
        checks: &[
            positive("begins-anew", &["RECON-034"], "a Hello follows"),
            positive(
                "not-adopted",
                &["RECON-034", "RECON-043"],
                "that epoch is in no cursor",
            ),
            positive("done", &["RECON-044"], "the next session ends well"),
        ],
        run: |cx| Box::pin(other_epoch(cx)),
    },
    Case {
        name: "reconcile/malformed-answers",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "Answers with a part missing, a part too many, a record out of order, a kind that is none, a varint that is longer than it need be, a bound that is not above the one before it, and with ranges that are wanted and overlap or are not in order.",
        checks: &[
            positive(
                "nothing-used",
                &[
                    "RECON-002",
                    "RECON-003",
                    "RECON-029",
                    "RECON-030",
                    "RECON-054",
                    "SEC-011",
                ],
                "nothing of them is stored",
            ),
            positive(
                "done",
                &["RECON-050", "ERR-013"],
                "with a proper answer the session ends well",
            ),
        ],
        run: |cx| Box::pin(malformed_answers(cx)),
    },
    Case {
        name: "reconcile/unequal-again",
        profile: Profile::Heal,
        needs: &[Need::Reconcile, Need::Live],
        about: "The server is another one, with the same records; after the session the fingerprint differs.",
        checks: &[
            positive("session", &["RECON-031"], "the replica reconciles"),
            positive(
                "full-digests",
                &["RECON-039"],
                "the session after the one that ended unequal has digests of 32 bytes",
            ),
        ],
        run: |cx| Box::pin(unequal_again(cx)),
    },
    Case {
        name: "reconcile/not-yet-verified",
        profile: Profile::Heal,
        needs: &[Need::Reconcile, Need::Live],
        about: "A session with short digests is over, and the next comparison of whole fingerprints has to wait.",
        checks: &[
            positive(
                "verified",
                &["WATCH-023"],
                "after it, the range is verified",
            ),
            negative(
                "not-verified",
                "verified",
                &["MERKLE-008"],
                "before it, the range is not",
            ),
        ],
        run: |cx| Box::pin(not_yet_verified(cx)),
    },
];

async fn salt(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 40).await?;
    let mut salts = Vec::new();
    for key in ["k001", "k011", "k021"] {
        let before = cx.seen().await.len();
        server_loses(&cx, &[key]).await;
        heal(&cx, &replica).await?;
        let seen = cx.seen().await;
        let own: BTreeSet<u64> = reconciles(&seen[before..]).iter().map(|r| r.salt).collect();
        salts.push(own);
    }
    let distinct: BTreeSet<u64> = salts.iter().flatten().copied().collect();
    let enough = salts.iter().all(|s| !s.is_empty()) && distinct.len() >= 3;
    cx.check(
        "fresh",
        enough,
        "a salt for each session",
        format!("{salts:x?}"),
    );
    Ok(())
}

/// Turns a bit of the fingerprints of checkpoints and ends of snapshots.
pub(super) async fn lie(cx: &Cx) {
    fn turn(states: &mut [v1::RangeState]) {
        for state in states {
            if let Some(byte) = state.fingerprint.last_mut() {
                *byte ^= 1;
            }
        }
    }
    cx.server(|p| {
        p.script(|s| {
            s.always(
                "Watch",
                bend(|_, m: &mut v1::WatchResponse| {
                    if let Some(v1::watch_response::Event::Checkpoint(c)) = &mut m.event {
                        turn(&mut c.ranges);
                    }
                }),
            );
            s.always(
                "Snapshot",
                bend(|_, m: &mut v1::SnapshotResponse| {
                    if let Some(v1::snapshot_response::Event::Complete(c)) = &mut m.event {
                        turn(&mut c.ranges);
                    }
                }),
            );
            s.always(
                "Hello",
                bend(|_, m: &mut v1::HelloResponse| m.equal.fill(false)),
            );
        });
    })
    .await;
}

async fn never_equal(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 30).await?;
    let before = cx.seen().await.len();
    lie(&cx).await;
    replica.watch().await?;
    let came = until(&cx, |seen| !calls(&seen[before..], "Snapshot").is_empty()).await?;
    let seen = cx.seen().await;
    let at = seen
        .iter()
        .skip(before)
        .position(|s| s.method == "Snapshot")
        .map_or(seen.len(), |i| i + before);
    let own = reconciles(&seen[before..at]);
    let sessions: BTreeSet<u64> = own.iter().map(|r| r.salt).collect();
    cx.check(
        "then-snapshot",
        came && !sessions.is_empty() && sessions.len() <= 2,
        "one or two sessions, then a Snapshot",
        format!("{} sessions, snapshot: {came}", sessions.len()),
    );
    // what follows the Snapshot at once belongs to it
    tokio::time::sleep(Duration::from_secs(1)).await;
    let then = cx.seen().await.len();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let later = cx.seen().await;
    let heals = later[then..]
        .iter()
        .filter(|s| matches!(s.method.as_str(), "Snapshot" | "Reconcile"))
        .count();
    cx.equal("then-rest", 0, heals);
    Ok(())
}

/// An answer that says that the server stands there.
fn answered_at(head: v1::Cursor) -> crate::peer::Action {
    bend(move |_, m: &mut v1::ReconcileResponse| {
        if let Some(position) = &mut m.position {
            position.head = Some(head);
        }
    })
}

async fn lagging(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(20)).await;
    let early = head(&cx).await;
    let replica = cx.open("a").await?;
    for i in 0..4u64 {
        cx.server_writes(&[Record::put(format!("later{i}"), time(7_000 + i), 77, "v")])
            .await;
    }
    sync_patiently(&replica, &cx).await?;
    let highest = head(&cx).await.sequence;
    let before = cx.seen().await.len();
    server_loses(&cx, &["k003"]).await;
    cx.server(|p| p.script(|s| s.next("Reconcile", answered_at(early))))
        .await;
    heal(&cx, &replica).await?;
    let seen = cx.seen().await;
    let lower: Vec<u64> = cursors(&seen)
        .into_iter()
        .filter(|(i, c)| *i >= before && c.sequence < highest)
        .map(|(_, c)| c.sequence)
        .collect();
    cx.check(
        "not-lowered",
        lower.is_empty(),
        format!("at least {highest}"),
        format!("{lower:?}"),
    );
    same_as_server(&cx, "done", &replica).await?;
    cx.equal("done", 24, replica.entries().await?.len());
    Ok(())
}

async fn lagging_for_ever(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(20)).await;
    let early = head(&cx).await;
    cx.server_writes(&[Record::put("later", time(7_000), 77, "v")])
        .await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    server_loses(&cx, &["k003"]).await;
    let before = cx.seen().await.len();
    cx.server(|p| p.script(|s| s.always("Reconcile", answered_at(early))))
        .await;
    replica.watch().await?;
    let asks = until(&cx, |seen| !calls(&seen[before..], "Reconcile").is_empty()).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let asked = calls(&cx.seen().await[before..], "Reconcile").len();
    cx.check(
        "waits",
        asks && asked <= 8,
        "at most 8 questions in two seconds",
        asked,
    );
    Ok(())
}

async fn other_status(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 30).await?;
    let deleted: Vec<Record> = (0..3u64)
        .map(|i| Record::tombstone(format!("k00{i}"), time(5_000 + i), 77))
        .collect();
    cx.server_writes(&deleted).await;
    cx.server_writes(&[Record::put("later", time(9_000), 77, "v")])
        .await;
    super::standing::compact(&cx, time(6_000)).await;
    let before = cx.seen().await.len();
    let in_order = bend(|_, m: &mut v1::ReconcileResponse| {
        m.held.iter_mut().for_each(|h| h.behind_compaction = false);
    });
    cx.server(|p| p.script(|s| s.if_called("Reconcile", in_order)))
        .await;
    heal(&cx, &replica).await?;
    let seen = cx.seen().await;
    let own = &seen[before..];
    let asked = own.iter().position(|s| s.method == "Reconcile");
    let next = asked.and_then(|at| own.get(at + 1)).map(|s| &s.method[..]);
    cx.check(
        "begins-anew",
        asked.is_none() || next == Some("Hello"),
        "a Hello after the answer",
        format!("{next:?}"),
    );
    same_as_server(&cx, "done", &replica).await
}

async fn moving_server(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 900).await?;
    let first = head(&cx).await.sequence;
    let before = cx.seen().await.len();
    server_loses(&cx, &["k850"]).await;
    cx.server(|p| {
        p.script(|s| {
            s.next("Reconcile", crate::peer::Action::Pass);
            let late = crate::peer::Action::Delay(Duration::from_millis(1_200));
            s.if_called("Reconcile", late);
        });
    })
    .await;
    replica.watch().await?;
    let second = until(&cx, |seen| calls(&seen[before..], "Reconcile").len() > 1).await?;
    cx.server_writes(&[Record::put("a-first", time(9_000), 77, "meanwhile")])
        .await;
    let after = |seen: &[crate::peer::Seen]| -> Option<v1::Cursor> {
        let last = seen.iter().rposition(|s| s.method == "Reconcile")?;
        let watch = seen.iter().skip(last).find(|s| s.method == "Watch")?;
        watch.held().first()?.cursor
    };
    until(&cx, |seen| after(&seen[before..]).is_some()).await?;
    let cursor = after(&cx.seen().await[before..]).map(|c| c.sequence);
    // a session of one answer has one position
    cx.check(
        "first-position",
        !second || cursor.is_some_and(|c| c <= first),
        format!("at most {first}"),
        format!("{cursor:?}"),
    );
    replica.await_idle().await?;
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "done", &replica).await
}

async fn other_epoch(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 40).await?;
    let genuine = head(&cx).await;
    server_loses(&cx, &["k003", "k030"]).await;
    let foreign = v1::Cursor {
        epoch: genuine.epoch ^ 0xff,
        ..genuine
    };
    cx.server(|p| p.script(|s| s.next("Reconcile", answered_at(foreign))))
        .await;
    heal(&cx, &replica).await?;
    let seen = cx.seen().await;
    let first = seen
        .iter()
        .position(|s| s.method == "Reconcile")
        .unwrap_or(seen.len());
    let hello = seen.iter().skip(first).any(|s| s.method == "Hello");
    cx.check("begins-anew", hello, "a Hello after the answer", "none");
    let adopted = cursors(&seen)
        .iter()
        .filter(|(_, c)| c.epoch == foreign.epoch)
        .count();
    cx.equal("not-adopted", 0, adopted);
    same_as_server(&cx, "done", &replica).await?;
    cx.equal("done", 40, replica.entries().await?.len());
    Ok(())
}

/// The same number in one byte more.
fn stretch(varint: &mut Vec<u8>) {
    if let Some(end) = varint.iter().position(|b| b & 0x80 == 0) {
        varint[end] |= 0x80;
        varint.insert(end + 1, 0);
    }
}

/// Makes the first bound equal to the one below it. Keys are short here: how many
/// bytes are dropped and added stands in the first byte.
fn lower_bound(bounds: &mut Vec<u8>) {
    if let Some(head) = bounds.first() {
        let length = 1 + usize::from(head & 15);
        bounds.splice(..length, [0]);
    }
}

/// Whether the first answer to Reconcile splits a part.
fn has_bounds(seen: &[Seen]) -> bool {
    let first = calls(seen, "Reconcile").into_iter().next();
    first
        .and_then(|s| v1::ReconcileResponse::decode(s.answers.first()?.as_slice()).ok())
        .is_some_and(|answer| !answer.bounds.is_empty())
}

async fn malformed_answers(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 300).await?;
    let planted = Record::put("k0301", time(1), 5, "planted").to_wire();
    let range = |start: &str, end: &str| v1::Range {
        start: start.into(),
        end: Some(end.into()),
    };
    let overlapping = vec![range("k0100", "k0300"), range("k0200", "k0400")];
    let unsorted = vec![range("k0300", "k0400"), range("k0100", "k0200")];
    let wanted = [overlapping, unsorted];
    type Change = fn(&mut v1::ReconcileResponse, &v1::Record);
    let changes: [Change; 6] = [
        |m, _| m.parts.truncate(m.parts.len().saturating_sub(1)),
        |m, _| m.parts.push(4),
        |m, r| m.records.extend([r.clone(), r.clone()]),
        |m, _| m.parts = vec![7],
        |m, _| stretch(&mut m.parts),
        |m, _| lower_bound(&mut m.bounds),
    ];
    const LOW_BOUND: usize = 5;
    let bent = changes.map(|change| {
        let planted = planted.clone();
        bend(move |_, m: &mut v1::ReconcileResponse| change(m, &planted))
    });
    let odd = wanted
        .map(|wanted| bend(move |_, m: &mut v1::ReconcileResponse| m.wanted.clone_from(&wanted)));
    // what is wanted may be read in any order
    let steps = bent.map(|action| (action, true)).into_iter();
    let steps = steps.chain(odd.map(|action| (action, false)));
    for (i, (action, refused)) in steps.enumerate() {
        server_loses(&cx, &[&format!("k0{}0", i + 1)]).await;
        let before = cx.seen().await.len();
        cx.server(|p| p.script(|s| s.next("Reconcile", action)))
            .await;
        heal(&cx, &replica).await?;
        // the session is over: what follows begins with Hello
        let seen = cx.seen().await;
        let calls = seen[before..].iter().map(|s| s.method.as_str());
        let mut after = calls.skip_while(|m| *m != "Reconcile").skip(1);
        let follows = after.find(|m| matches!(*m, "Hello" | "Reconcile" | "Push"));
        // whoever is told all records of a part is told no bound that could be wrong
        let tried = i != LOW_BOUND || has_bounds(&seen[before..]);
        if refused && tried {
            cx.equal("nothing-used", Some("Hello"), follows);
        }
        let entries = replica.entries().await?;
        let odd = entries.iter().filter(|(_, v)| v == "planted").count();
        cx.equal("nothing-used", (300, 0), (entries.len(), odd));
    }
    same_as_server(&cx, "done", &replica).await
}

async fn unequal_again(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 300).await?;
    cx.server(|p| p.service.wipe()).await;
    cx.server_writes(&others(300)).await;
    let before = cx.seen().await.len();
    lie(&cx).await;
    replica.watch().await?;
    // a Snapshot may take the place of the second session
    let salts = |seen: &[crate::peer::Seen]| {
        let mut salts: Vec<u64> = reconciles(seen).iter().map(|r| r.salt).collect();
        salts.dedup();
        salts
    };
    until(&cx, |seen| {
        let own = &seen[before..];
        salts(own).len() > 1 || !calls(own, "Snapshot").is_empty()
    })
    .await?;
    let seen = cx.seen().await;
    let own = reconciles(&seen[before..]);
    let salts = salts(&seen[before..]);
    let others = !calls(&seen[before..], "Snapshot").is_empty();
    cx.check(
        "session",
        !salts.is_empty() || others,
        "a Reconcile, or a Snapshot",
        format!("{} sessions", salts.len()),
    );
    let second = salts.get(1).copied();
    let lengths: BTreeSet<u32> = own
        .iter()
        .filter(|r| Some(r.salt) == second)
        .map(|r| r.digest_len)
        .collect();
    cx.check(
        "full-digests",
        second.is_none() || lengths == BTreeSet::from([32]),
        "digest_len 32",
        format!("{lengths:?}"),
    );
    Ok(())
}

async fn not_yet_verified(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 40).await?;
    server_loses(&cx, &["k003"]).await;
    let before = cx.seen().await.len();
    cx.server(|p| {
        p.script(|s| {
            s.next("Watch", crate::peer::Action::Pass);
            let late = crate::peer::Action::Delay(Duration::from_secs(2));
            s.next("Watch", late);
        });
    })
    .await;
    replica.watch().await?;
    until(&cx, |seen| {
        let healed = seen.iter().rposition(|s| s.method == "Reconcile");
        healed.is_some_and(|at| seen[at..].iter().any(|s| s.method == "Push"))
    })
    .await?;
    // a Hello, or what a Watch answers, may have compared in full
    let compared = |seen: &[crate::peer::Seen]| {
        let healed = seen.iter().rposition(|s| s.method == "Reconcile");
        let after = &seen[healed.unwrap_or(before)..];
        let told = |s: &crate::peer::Seen| s.method == "Watch" && !s.answers.is_empty();
        after.iter().any(|s| s.method == "Hello" || told(s))
    };
    let deadline = std::time::Instant::now() + cx.patience();
    let mut early = false;
    while std::time::Instant::now() < deadline {
        let verified = replica.contents().await?.verified;
        if compared(&cx.seen().await) {
            break;
        }
        early |= verified;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut verified = false;
    while std::time::Instant::now() < deadline && !verified {
        verified = replica.contents().await?.verified;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cx.equal("verified", true, verified);
    cx.equal("not-verified", false, early);
    Ok(())
}
