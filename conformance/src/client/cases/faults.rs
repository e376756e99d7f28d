//! Networks and proxies at their worst: calls that are reset, pages in the place of
//! answers, streams that break off.

use super::tools::fill;
use super::{others, same_as_server, sync_patiently, time};
use crate::client::Cx;
use crate::net::Wire;
use crate::oracle::Record;
use crate::peer::{Action, Refusal};
use crate::schema::v1;
use crate::suite::{Case, Profile, Stop, positive};
use prost::Message;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
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
                "after a Snapshot, a Hello comes before the next",
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
        name: "faults/odd-delivery",
        profile: Profile::Core,
        needs: &[],
        about: "Every answer comes in pieces of three bytes; then with trailers that carry fields which nobody knows, over gRPC-web with blanks around their values.",
        checks: &[positive(
            "complete",
            &["TRANS-005"],
            "an answer is whole all the same",
        )],
        run: |cx| Box::pin(odd_delivery(cx)),
    },
    Case {
        name: "faults/passing-errors",
        profile: Profile::Core,
        needs: &[],
        about: "Pushes are refused once with each reason that passes by itself, Watch with four of them.",
        checks: &[
            positive(
                "arrive",
                &["ERR-009", "CLIENT-031"],
                "each write is sent again, and arrives",
            ),
            positive(
                "none-rejected",
                &["PUSH-032"],
                "none is shown as rejected meanwhile",
            ),
            positive("goes-on", &["CLIENT-032"], "what others write comes"),
        ],
        run: |cx| Box::pin(passing_errors(cx)),
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

async fn reset(cx: Cx) -> Result<(), Stop> {
    every_call_fails_once(&cx, Action::Reset).await?;
    let seen = cx.seen().await;
    // no replica hears of what a browser repeats by itself
    let repeats = |i: usize| {
        let (before, after) = (&seen[i - 1], &seen[i]);
        let same = before.method == after.method && before.message == after.message;
        let at_once = after.at.saturating_sub(before.at) < Duration::from_millis(50);
        cx.wire() == Wire::GrpcWeb && same && at_once
    };
    // a Push and a Watch may be made again within the session (section 12.3)
    let mut snapshots = (0..seen.len())
        .filter(|i| seen[*i].method == "Snapshot")
        .filter(|i| *i == 0 || !repeats(*i));
    if let (Some(broken), Some(next)) = (snapshots.next(), snapshots.next()) {
        let between = seen[broken..next].iter().any(|s| s.method == "Hello");
        cx.check(
            "hello-again",
            between,
            "a Hello between two Snapshots",
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
            // what a connection that it kept has lost a browser repeats at once by
            // itself, twice at most: so that the replica hears of one loss
            if matches!(action, Action::Reset) && cx.wire() == Wire::GrpcWeb {
                s.next("Snapshot", action.clone());
                s.next("Snapshot", action.clone());
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

async fn odd_delivery(cx: Cx) -> Result<(), Stop> {
    let deviates = async |action: Action| {
        cx.server(|p| {
            p.script(|s| {
                for method in ["Hello", "Push", "Watch", "Reconcile", "Snapshot"] {
                    s.always(method, action.clone());
                }
            });
        })
        .await;
    };
    deviates(Action::Drip).await;
    cx.server_writes(&others(12)).await;
    let replica = cx.open("a").await?;
    replica.put("mine", "v").await?;
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "complete", &replica).await?;
    deviates(Action::OddTrailers).await;
    cx.server_writes(&[Record::put("k001", time(5_000), 77, "changed")])
        .await;
    replica.put("mine", "again").await?;
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "complete", &replica).await
}

async fn passing_errors(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    let mut rejected = Vec::new();
    for (i, reason) in [
        "RATE_LIMITED",
        "UNAVAILABLE",
        "STORAGE",
        "INTERNAL",
        "LAGGING",
    ]
    .into_iter()
    .enumerate()
    {
        let refusal = Refusal::new(reason, "once");
        cx.server(|p| p.script(|s| s.next("Push", Action::Refuse(refusal))))
            .await;
        replica.put(format!("mine-{i}"), reason).await?;
        // the first try fails; what is shown then is what counts
        replica.try_sync(cx.patience()).await?;
        let pending = replica.contents().await?.pending;
        rejected.extend(pending.into_iter().filter(|w| !w.rejected.is_empty()));
    }
    for reason in ["STREAM_EXPIRED", "SLOW_READER", "STORAGE", "INTERNAL"] {
        let refusal = Refusal::new(reason, "once");
        cx.server(|p| p.script(|s| s.next("Watch", Action::Refuse(refusal))))
            .await;
    }
    cx.server_writes(&others(5)).await;
    for _ in 0..3 {
        sync_patiently(&replica, &cx).await?;
    }
    same_as_server(&cx, "goes-on", &replica).await?;
    let mine = cx.server_records().await;
    let mine = mine.iter().filter(|r| r.key.starts_with(b"mine")).count();
    cx.equal("arrive", 5, mine);
    cx.equal("none-rejected", Vec::new(), rejected);
    Ok(())
}

async fn snapshot_broken_off(cx: Cx) -> Result<(), Stop> {
    fill(&cx).await;
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
