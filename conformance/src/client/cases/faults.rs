//! Networks, proxies and servers at their worst.

use super::{others, same_as_server, sync_patiently, time};
use crate::client::context::pushed;
use crate::client::{Cx, Outcome};
use crate::net::Wire;
use crate::oracle::Record;
use crate::peer::{Action, Refusal};
use crate::schema::driver::sync_error::Kind;
use crate::schema::v1;
use crate::suite::{Case, Need, Profile, Stop, negative, positive};
use prost::Message;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "faults/ack-lost",
        profile: Profile::Core,
        needs: &[],
        about: "The server stores a Push, and the answer is lost.",
        checks: &[
            positive(
                "same-version",
                &["PUSH-031"],
                "the writes are sent again, with their versions",
            ),
            positive("done", &["PUSH-027"], "and are not pending afterwards"),
        ],
        run: |cx| Box::pin(push_fails(cx, Action::CommitThenReset)),
    },
    Case {
        name: "faults/push-refused",
        profile: Profile::Core,
        needs: &[],
        about: "A Push is refused with UNAVAILABLE.",
        checks: &[
            positive(
                "same-version",
                &["PUSH-031", "ERR-008"],
                "the writes are sent again, with their versions",
            ),
            positive(
                "done",
                &["PUSH-032", "ERR-009"],
                "and are not pending afterwards",
            ),
        ],
        run: |cx| {
            Box::pin(push_fails(
                cx,
                Action::Refuse(Refusal::new("UNAVAILABLE", "busy")),
            ))
        },
    },
    Case {
        name: "faults/unknown-reason",
        profile: Profile::Hardened,
        needs: &[],
        about: "A Push is refused with a reason of a later version, and status UNAVAILABLE.",
        checks: &[
            positive(
                "same-version",
                &["ERR-011", "EXT-004"],
                "the status decides: the writes are sent again, with their versions",
            ),
            positive("done", &["ERR-009"], "and are not pending afterwards"),
        ],
        run: |cx| Box::pin(unknown_reason(cx)),
    },
    Case {
        name: "faults/no-trailers",
        profile: Profile::Hardened,
        needs: &[],
        about: "The answer to a Push ends without trailers.",
        checks: &[
            positive(
                "same-version",
                &["TRANS-005", "PUSH-031"],
                "the writes keep their versions, if they are sent again",
            ),
            positive(
                "done",
                &["ERR-009", "PUSH-027"],
                "and are not pending afterwards",
            ),
        ],
        run: |cx| Box::pin(push_fails(cx, Action::NoTrailers)),
    },
    Case {
        name: "faults/odd-frame",
        profile: Profile::Hardened,
        needs: &[],
        about: "The answer to a Push comes in a frame with unknown flags.",
        checks: &[
            positive(
                "same-version",
                &["ERR-013", "PUSH-031"],
                "the writes keep their versions, if they are sent again",
            ),
            positive(
                "done",
                &["ERR-009", "PUSH-027"],
                "and are not pending afterwards",
            ),
        ],
        run: |cx| Box::pin(push_fails(cx, Action::OddFlag)),
    },
    Case {
        name: "faults/verdicts-missing",
        profile: Profile::Hardened,
        needs: &[],
        about: "The answer to a Push has no verdicts.",
        checks: &[
            positive(
                "same-version",
                &["PUSH-026", "PUSH-031", "PUSH-032", "PUSH-038"],
                "it is no answer: the writes are sent again, with their versions",
            ),
            positive(
                "done",
                &["ERR-009", "PUSH-027"],
                "and are not pending afterwards",
            ),
        ],
        run: |cx| Box::pin(push_fails(cx, without_verdicts())),
    },
    Case {
        name: "faults/verdicts-never",
        profile: Profile::Hardened,
        needs: &[],
        about: "Answers to Pushes have no verdicts, for a while.",
        checks: &[
            positive(
                "pending",
                &["PUSH-026"],
                "as long as they have none, the writes are pending",
            ),
            positive("done", &["PUSH-027"], "and are not pending afterwards"),
        ],
        run: |cx| Box::pin(verdicts_never(cx)),
    },
    Case {
        name: "faults/html",
        profile: Profile::Hardened,
        needs: &[],
        about: "A proxy answers 503 with an HTML page, to Hello, Push, Watch and Snapshot.",
        checks: &[positive(
            "retried",
            &["CLIENT-032", "ERR-011"],
            "the client tries again until the proxy lets it through",
        )],
        run: |cx| Box::pin(async move { every_call_fails_once(&cx, Action::Html(503)).await }),
    },
    Case {
        name: "faults/reset",
        profile: Profile::Core,
        needs: &[],
        about: "Each kind of call is reset once.",
        checks: &[
            positive(
                "retried",
                &["CLIENT-031", "CLIENT-032"],
                "the client begins again, and gets through",
            ),
            positive(
                "hello-again",
                &["CLIENT-031", "HELLO-001"],
                "after each, a Hello comes before another call of the kind",
            ),
        ],
        run: |cx| Box::pin(reset(cx)),
    },
    Case {
        name: "faults/snapshot-broken-off",
        profile: Profile::Core,
        needs: &[],
        about: "Snapshots are broken off after a few messages, again and again.",
        checks: &[
            positive(
                "complete",
                &["SNAP-029"],
                "in the end the store holds what the server holds",
            ),
            positive(
                "resumed-honestly",
                &["SNAP-015"],
                "after_key is a key that was sent",
            ),
            positive(
                "no-cursor",
                &["SNAP-020"],
                "before a Snapshot is complete, no cursor is sent",
            ),
        ],
        run: |cx| Box::pin(snapshot_broken_off(cx)),
    },
    Case {
        name: "faults/half-frame",
        profile: Profile::Hardened,
        needs: &[],
        about: "Streams end in the middle of a frame.",
        checks: &[positive(
            "complete",
            &["WATCH-038", "SNAP-029"],
            "in the end the store holds what the server holds",
        )],
        run: |cx| Box::pin(half_frame(cx)),
    },
    Case {
        name: "faults/lying-fingerprint",
        profile: Profile::Heal,
        needs: &[Need::Reconcile, Need::Live],
        about: "Every fingerprint that the server tells is wrong.",
        checks: &[
            positive(
                "verified",
                &["WATCH-023", "WATCH-026"],
                "with an honest server the client says verified",
            ),
            negative(
                "not-verified",
                "verified",
                &["WATCH-026", "RECON-038", "MERKLE-007", "MERKLE-008"],
                "with a lying one it does not",
            ),
            positive(
                "keeps",
                &["CLIENT-041"],
                "and keeps what it has, and goes on pushing",
            ),
        ],
        run: |cx| Box::pin(lying_fingerprint(cx)),
    },
    Case {
        name: "faults/unsupported-version",
        profile: Profile::Core,
        needs: &[],
        about: "The server speaks no version of the client's.",
        checks: &[
            positive(
                "stops",
                &["ERR-008", "CLIENT-045"],
                "the client stops, and tells the reason",
            ),
            positive("keeps", &["ERR-009"], "unsent writes stay"),
            positive("no-calls", &["HELLO-001"], "no call but Hello is made"),
        ],
        run: |cx| Box::pin(unsupported_version(cx)),
    },
    Case {
        name: "faults/odd-hello",
        profile: Profile::Hardened,
        needs: &[],
        about: "Hello chooses a version that was not offered; then it answers a wrong number of statuses.",
        checks: &[
            positive(
                "version",
                &["HELLO-008", "HELLO-032"],
                "it is a failed Hello: nothing else is called",
            ),
            positive("statuses", &["HELLO-021", "HELLO-032"], "so is the second"),
            positive(
                "afterwards",
                &["CLIENT-031"],
                "with a proper answer the session succeeds",
            ),
        ],
        run: |cx| Box::pin(odd_hello(cx)),
    },
    Case {
        name: "faults/bad-records",
        profile: Profile::Hardened,
        needs: &[],
        about: "The server sends a record with an unknown flag, and one without a version.",
        checks: &[
            positive("good", &["SNAP-018"], "proper records arrive"),
            positive(
                "refused",
                &["MODEL-013", "MODEL-014"],
                "the others are not stored",
            ),
        ],
        run: |cx| Box::pin(bad_records(cx)),
    },
    Case {
        name: "faults/snapshot-out-of-order",
        profile: Profile::Hardened,
        needs: &[],
        about: "Of one Snapshot the beginning comes twice, of the next the chunks.",
        checks: &[
            positive(
                "broken",
                &["SNAP-023", "SNAP-029"],
                "each is broken off: it is begun again",
            ),
            positive(
                "refused-then-complete",
                &["SNAP-023", "SNAP-029"],
                "a proper one completes the store",
            ),
        ],
        run: |cx| Box::pin(snapshot_out_of_order(cx)),
    },
];

fn without_verdicts() -> Action {
    Action::Rewrite(Arc::new(|_, message| {
        let mut answer = v1::PushResponse::decode(message.as_slice()).unwrap_or_default();
        answer.verdicts.clear();
        vec![answer.encode_to_vec()]
    }))
}

async fn push_fails(cx: Cx, action: Action) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    cx.server(|p| p.script(|s| s.next("Push", action))).await;
    replica.put("k", "one").await?;
    replica.put("l", "two").await?;
    sync_patiently(&replica, &cx).await?;
    sync_patiently(&replica, &cx).await?;
    let sent = pushed(&cx.seen().await);
    let versions = |key: &str| -> BTreeSet<(u64, u64)> {
        sent.iter()
            .filter(|(_, r)| r.key == key.as_bytes())
            .map(|(_, r)| (r.time, r.replica))
            .collect()
    };
    cx.check(
        "same-version",
        versions("k").len() == 1 && versions("l").len() == 1,
        "one version of each key, however often it is sent",
        format!("{:?}, {:?}", versions("k"), versions("l")),
    );
    cx.equal("done", 2, cx.server_records().await.len());
    same_as_server(&cx, "done", &replica).await
}

async fn verdicts_never(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    cx.server(|p| p.script(|s| s.always("Push", without_verdicts())))
        .await;
    replica.put("k", "one").await?;
    replica.put("l", "two").await?;
    let _ = replica.try_sync(Duration::from_millis(1_500)).await?;
    let sent = pushed(&cx.seen().await).len();
    let pending = replica.contents().await?.pending.len();
    cx.check(
        "pending",
        sent > 0 && pending == 2,
        "two that were sent, and are pending",
        format!("{sent} sent, {pending} pending"),
    );
    cx.server(|p| p.script(crate::peer::Script::clear)).await;
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "done", &replica).await
}

async fn unknown_reason(cx: Cx) -> Result<(), Stop> {
    let refusal = Refusal::new("SHEDDING_LOAD_SINCE_V1_4", "later");
    let action = Action::RefuseAs(crate::oracle::Code::Unavailable, refusal);
    push_fails(cx, action).await
}

async fn reset(cx: Cx) -> Result<(), Stop> {
    every_call_fails_once(&cx, Action::Reset).await?;
    let seen = cx.seen().await;
    // a browser by itself repeats at once what a connection that it kept has
    // lost; no replica hears of it
    let repeats = |i: usize| {
        let (before, after) = (&seen[i - 1], &seen[i]);
        let same = before.method == after.method && before.message == after.message;
        let at_once = after.at.saturating_sub(before.at) < Duration::from_millis(50);
        cx.wire() == Wire::GrpcWeb && same && at_once
    };
    for method in ["Push", "Watch", "Snapshot"] {
        let of_method = |i: &usize| seen[*i].method == method;
        let mut calls = (0..seen.len())
            .filter(of_method)
            .filter(|i| *i == 0 || !repeats(*i));
        let (Some(broken), Some(next)) = (calls.next(), calls.next()) else {
            continue;
        };
        let between = seen[broken..next].iter().any(|s| s.method == "Hello");
        cx.check(
            "hello-again",
            between,
            format!("a Hello between two calls of {method}"),
            "none",
        );
    }
    Ok(())
}

async fn every_call_fails_once(cx: &Cx, action: Action) -> Result<(), Stop> {
    cx.server_writes(&others(20)).await;
    let replica = cx.open("a").await?;
    replica.put("mine", "v").await?;
    cx.server(|p| {
        p.script(|s| {
            for method in ["Hello", "Push", "Watch", "Snapshot"] {
                s.next(method, action.clone());
            }
        });
    })
    .await;
    sync_patiently(&replica, cx).await?;
    cx.server_writes(&[Record::put("k001", time(5_000), 77, "changed")])
        .await;
    replica.put("mine", "again").await?;
    sync_patiently(&replica, cx).await?;
    same_as_server(cx, "retried", &replica).await
}

async fn snapshot_broken_off(cx: Cx) -> Result<(), Stop> {
    for i in 0..20u64 {
        let batch: Vec<Record> = (0..10)
            .map(|n| Record::put(format!("k{i:02}{n}"), time(i), 77, vec![b'v'; 20_000]))
            .collect();
        cx.server_writes(&batch).await;
    }
    cx.server(|p| {
        p.script(|s| {
            for n in [2, 3, 4] {
                s.next("Snapshot", Action::BreakAfter(n));
            }
            s.next("Watch", Action::BreakAfter(5));
        });
    })
    .await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "complete", &replica).await?;
    let chunk_of = |answer: &[u8]| {
        let message = v1::SnapshotResponse::decode(answer);
        message.ok().and_then(|m| m.event)
    };
    let mut sent: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut honest = true;
    let mut complete = None;
    let seen = cx.seen().await;
    for (i, call) in seen.iter().enumerate() {
        if call.method != "Snapshot" {
            continue;
        }
        let after = v1::SnapshotRequest::decode(call.message.as_slice())
            .ok()
            .and_then(|r| r.after_key)
            .unwrap_or_default();
        honest &= after.is_empty() || sent.contains(&after);
        for event in call.answers.iter().filter_map(|a| chunk_of(a)) {
            match event {
                v1::snapshot_response::Event::Chunk(chunk) => {
                    sent.extend(chunk.records.into_iter().map(|r| r.key));
                }
                v1::snapshot_response::Event::Complete(_) => {
                    complete.get_or_insert(i);
                }
                _ => {}
            }
        }
    }
    cx.check(
        "resumed-honestly",
        honest,
        "after_key is a key that was sent",
        "another",
    );
    let first = |method: &str| seen.iter().position(|s| s.method == method);
    // who reads by Watch has the cursors of that
    let until = match (first("Watch"), first("Snapshot")) {
        (Some(watch), snapshot) if snapshot.is_none_or(|s| watch < s) => Some(watch),
        _ => complete,
    };
    let early = super::tools::cursors(&seen)
        .into_iter()
        .filter(|(i, _)| until.is_none_or(|until| *i < until))
        .count();
    cx.equal("no-cursor", 0, early);
    Ok(())
}

async fn half_frame(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(50)).await;
    cx.server(|p| {
        p.script(|s| {
            s.next("Snapshot", Action::HalfFrameAfter(1));
            s.next("Watch", Action::HalfFrameAfter(0));
            s.next("Watch", Action::HalfFrameAfter(1));
        });
    })
    .await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    cx.server_writes(&[Record::put("k001", time(5_000), 77, "changed")])
        .await;
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "complete", &replica).await
}

/// Turns a bit of every fingerprint of a stream.
fn lying() -> Action {
    fn bend(states: &mut [v1::RangeState]) {
        for state in states {
            if let Some(byte) = state.fingerprint.first_mut() {
                *byte ^= 1;
            }
        }
    }
    Action::Rewrite(Arc::new(|_, message| {
        if let Ok(mut event) = v1::WatchResponse::decode(message.as_slice())
            && let Some(v1::watch_response::Event::Checkpoint(checkpoint)) = &mut event.event
        {
            bend(&mut checkpoint.ranges);
            return vec![event.encode_to_vec()];
        }
        vec![message]
    }))
}

fn lying_snapshot() -> Action {
    Action::Rewrite(Arc::new(|_, message| {
        if let Ok(mut event) = v1::SnapshotResponse::decode(message.as_slice())
            && let Some(v1::snapshot_response::Event::Complete(complete)) = &mut event.event
        {
            for state in &mut complete.ranges {
                if let Some(byte) = state.fingerprint.first_mut() {
                    *byte ^= 1;
                }
            }
            return vec![event.encode_to_vec()];
        }
        vec![message]
    }))
}

fn lying_hello() -> Action {
    Action::Rewrite(Arc::new(|_, message| {
        let mut hello = v1::HelloResponse::decode(message.as_slice()).unwrap_or_default();
        hello.equal.iter_mut().for_each(|e| *e = false);
        vec![hello.encode_to_vec()]
    }))
}

/// Whether the client says "verified" before patience runs out.
async fn verified(replica: &crate::client::Replica, cx: &Cx) -> Result<bool, Stop> {
    let deadline = std::time::Instant::now() + cx.patience();
    while std::time::Instant::now() < deadline {
        if replica.contents().await?.verified {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(false)
}

async fn lying_fingerprint(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(20)).await;
    let honest = cx.open("honest").await?;
    honest.watch().await?;
    honest.await_idle().await?;
    cx.equal("verified", true, verified(&honest, &cx).await?);
    honest.close().await?;
    cx.server(|p| {
        p.script(|s| {
            s.always("Watch", lying());
            s.always("Snapshot", lying_snapshot());
            s.always("Hello", lying_hello());
        });
    })
    .await;
    let replica = cx.open("a").await?;
    replica.watch().await?;
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        cx.equal("not-verified", false, replica.contents().await?.verified);
    }
    replica.put("mine", "v").await?;
    let kept = replica.entries().await?.iter().any(|(k, _)| k == "mine");
    cx.check(
        "keeps",
        kept,
        "reads and writes go on",
        "the write is not seen",
    );
    let _ = replica.try_sync(Duration::from_millis(2_500)).await?;
    let there = cx.server_records().await.iter().any(|r| r.key == b"mine");
    cx.check("keeps", there, "the write at the server", "it is missing");
    Ok(())
}

async fn unsupported_version(cx: Cx) -> Result<(), Stop> {
    let refusal = Refusal::new("UNSUPPORTED_VERSION", "this server speaks version 9");
    cx.server(|p| p.script(|s| s.always("Hello", Action::Refuse(refusal))))
        .await;
    let replica = cx.open("a").await?;
    replica.put("k", "v").await?;
    let outcome = replica.try_sync(cx.patience()).await?;
    let stopped = matches!(&outcome, Outcome::SyncError(e) if e.kind() == Kind::Stopped && e.reason == "UNSUPPORTED_VERSION");
    cx.check(
        "stops",
        stopped,
        "stopped with UNSUPPORTED_VERSION",
        format!("{outcome:?}"),
    );
    let contents = replica.contents().await?;
    cx.equal(
        "keeps",
        (1, 1),
        (contents.entries.len(), contents.pending.len()),
    );
    let others = cx
        .seen()
        .await
        .iter()
        .filter(|s| s.method != "Hello")
        .count();
    cx.equal("no-calls", 0, others);
    Ok(())
}

async fn odd_hello(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(3)).await;
    let replica = cx.open("a").await?;
    let bend = |change: fn(&mut v1::HelloResponse)| {
        Action::Rewrite(Arc::new(move |_, message| {
            let mut hello = v1::HelloResponse::decode(message.as_slice()).unwrap_or_default();
            change(&mut hello);
            vec![hello.encode_to_vec()]
        }))
    };
    for (check, action) in [
        ("version", bend(|h| h.version = 7)),
        (
            "statuses",
            bend(|h| h.held.push(v1::HistoryStatus::default())),
        ),
    ] {
        cx.server(|p| p.script(|s| s.always("Hello", action))).await;
        let _ = replica.try_sync(Duration::from_millis(1_500)).await?;
        let others = cx
            .seen()
            .await
            .iter()
            .filter(|s| s.method != "Hello")
            .count();
        cx.equal(check, 0, others);
    }
    cx.server(|p| p.script(crate::peer::Script::clear)).await;
    // a client may have stopped for good; its user opens it again
    replica.close().await?;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "afterwards", &replica).await
}

async fn bad_records(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(3)).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    cx.equal("good", 3, replica.entries().await?.len());
    cx.server_writes(&[Record::put("z", time(5_000), 77, "v")])
        .await;
    // in its proper form, nothing brings it
    let later = || Action::Refuse(Refusal::new("UNAVAILABLE", "later"));
    cx.server(|p| {
        p.script(|s| {
            s.always("Reconcile", later());
            s.always("Snapshot", later());
        });
    })
    .await;
    for change in [
        (|r| r.flags = 6) as fn(&mut v1::Record),
        |r| r.version = None,
        |r| r.key = Vec::new(),
    ] {
        let action = Action::Rewrite(Arc::new(move |_, message: Vec<u8>| {
            if let Ok(mut event) = v1::WatchResponse::decode(message.as_slice())
                && let Some(v1::watch_response::Event::Changes(changes)) = &mut event.event
            {
                changes.records.iter_mut().for_each(change);
                return vec![event.encode_to_vec()];
            }
            vec![message]
        }));
        cx.server(|p| p.script(|s| s.always("Watch", action))).await;
        let _ = replica.try_sync(Duration::from_secs(2)).await?;
        let keys: Vec<String> = replica
            .entries()
            .await?
            .into_iter()
            .map(|(k, _)| k)
            .collect();
        let odd: Vec<&String> = keys.iter().filter(|k| !k.starts_with('k')).collect();
        cx.check("refused", odd.is_empty(), "none", format!("{odd:?}"));
    }
    Ok(())
}

async fn snapshot_out_of_order(cx: Cx) -> Result<(), Stop> {
    let records: Vec<Record> = (0..120)
        .map(|i| Record::put(format!("k{i:03}"), time(i), 77, vec![b'v'; 20_000]))
        .collect();
    cx.server_writes(&records).await;
    let of_chunks = |twice: bool| {
        Action::Rewrite(Arc::new(move |_, message: Vec<u8>| {
            let decoded = v1::SnapshotResponse::decode(message.as_slice());
            let event = decoded.ok().and_then(|m| m.event);
            let chunk = matches!(event, Some(v1::snapshot_response::Event::Chunk(_)));
            let start = matches!(event, Some(v1::snapshot_response::Event::Start(_)));
            match chunk && twice || start && !twice {
                true => vec![message.clone(), message],
                false => vec![message],
            }
        }))
    };
    cx.server(|p| {
        p.script(|s| {
            s.next("Snapshot", of_chunks(false));
            s.next("Snapshot", of_chunks(true));
        });
    })
    .await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    sync_patiently(&replica, &cx).await?;
    let seen = cx.seen().await;
    // who reads by Watch has nothing to break off
    let snapshots = super::tools::calls(&seen, "Snapshot").len();
    let all = snapshots + super::tools::reconciles(&seen).len();
    cx.check(
        "broken",
        snapshots == 0 || all >= 3,
        "a third Snapshot, or a Reconcile in its place",
        all,
    );
    same_as_server(&cx, "refused-then-complete", &replica).await
}
