//! What a replica tells of itself with its pushes, and what it makes of odd
//! answers to them.

use super::tools::{bend, cursors, head, nothing_more, reply, server_loses, until};
use super::{others, same_as_server, sync_patiently, time};
use crate::client::Cx;
use crate::client::context::pushed;
use crate::oracle::{Record, contains};
use crate::peer::{Action, Refusal, Script, Seen};
use crate::schema::v1;
use crate::suite::{Case, Need, Profile, Stop, positive};
use prost::Message;
use std::time::Duration;

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "push/what-is-sent",
        profile: Profile::Core,
        needs: &[],
        about: "Writes and deletions are pushed by a replica that follows others.",
        checks: &[
            positive(
                "held",
                &["PUSH-004"],
                "every Push names a range for each of its keys, with the cursor that the replica has",
            ),
            positive("flags", &["EXT-007"], "no record has an unknown flag"),
            positive(
                "version",
                &["HELLO-006"],
                "every call after Hello carries gosync-version 1",
            ),
        ],
        run: |cx| Box::pin(what_is_sent(cx)),
    },
    Case {
        name: "push/newest-commit",
        profile: Profile::Core,
        needs: &[],
        about: "A write is acknowledged beyond what the replica has followed; then it catches up.",
        checks: &[
            positive(
                "remembered",
                &["PUSH-030", "PUSH-040"],
                "the next Hello names the commit that acknowledged it",
            ),
            positive(
                "passed",
                &["PUSH-039"],
                "once the cursor is past it, no request names it",
            ),
        ],
        run: |cx| Box::pin(newest_commit(cx)),
    },
    Case {
        name: "push/newest-commit-forgotten",
        profile: Profile::Core,
        needs: &[],
        about: "The server is restored to a state before the commit that acknowledged a write.",
        checks: &[
            positive(
                "noticed",
                &["PUSH-030", "PUSH-040", "HIST-020"],
                "the replica reconciles, though its cursor is older than the restore point",
            ),
            positive(
                "forgotten",
                &["PUSH-036"],
                "after the reconciliation no request names the lost commit",
            ),
        ],
        run: |cx| Box::pin(newest_commit_forgotten(cx)),
    },
    Case {
        name: "push/status-not-in-order",
        profile: Profile::Core,
        needs: &[Need::Live],
        about: "The answer to a Push says LINEAGE_UNKNOWN, while a Watch is open.",
        checks: &[
            positive("begins-anew", &["PUSH-035", "PUSH-038"], "a Hello follows"),
            positive(
                "settled",
                &["PUSH-035"],
                "the verdict counts: the write is not sent again",
            ),
        ],
        run: |cx| Box::pin(status_not_in_order(cx)),
    },
    Case {
        name: "push/verdicts-alone",
        profile: Profile::Core,
        needs: &[],
        about: "A Push is answered; after that Watch brings nothing, and Reconcile is refused.",
        checks: &[positive(
            "settled",
            &["PUSH-027"],
            "what is APPLIED is not pending any more, and not refused",
        )],
        run: |cx| Box::pin(verdicts_alone(cx)),
    },
    Case {
        name: "push/odd-verdicts",
        profile: Profile::Hardened,
        needs: &[],
        about: "One write is refused with CLOCK_SKEW; the others are SUPERSEDED without a winner, by a winner of another key, and by one that does not win.",
        checks: &[
            positive(
                "restamped",
                &["PUSH-027"],
                "the refused write comes with another version",
            ),
            positive(
                "unchanged",
                &["CLIENT-020", "PUSH-038"],
                "the others come again with the versions that they had",
            ),
            positive(
                "done",
                &["PUSH-038"],
                "in the end everything has arrived, and nothing else is shown",
            ),
        ],
        run: |cx| Box::pin(odd_verdicts(cx)),
    },
    Case {
        name: "push/odd-answers",
        profile: Profile::Hardened,
        needs: &[],
        about: "Verdicts of a later version, and an answer with a status too many.",
        checks: &[
            positive(
                "outcome",
                &["EXT-004", "PUSH-038"],
                "an outcome that nobody knows is a refusal: the write is kept as rejected",
            ),
            positive(
                "statuses",
                &["PUSH-038"],
                "an answer with a status too many is none: the writes are sent again, unchanged",
            ),
        ],
        run: |cx| Box::pin(odd_answers(cx)),
    },
    Case {
        name: "push/record-at-fault",
        profile: Profile::Hardened,
        needs: &[],
        about: "The server refuses as a whole every Push that holds one certain key.",
        checks: &[
            positive(
                "others",
                &["CLIENT-045", "PUSH-038"],
                "all other writes arrive",
            ),
            positive(
                "found",
                &["CLIENT-045", "CLIENT-044"],
                "the one at fault is told as rejected, with the reason",
            ),
        ],
        run: |cx| Box::pin(record_at_fault(cx)),
    },
    Case {
        name: "push/verdicts-on-offers",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "The server lost three records; offered again, one is refused with CLOCK_SKEW, one with QUOTA_EXCEEDED, one is taken.",
        checks: &[
            positive(
                "unchanged",
                &["CLIENT-048", "CLIENT-025"],
                "the one that is too new is offered again as it was",
            ),
            positive(
                "quarantined",
                &["CLIENT-048"],
                "the refused one is in quarantine, and shown",
            ),
        ],
        run: |cx| Box::pin(verdicts_on_offers(cx)),
    },
];

fn pushes(seen: &[Seen]) -> Vec<(usize, v1::PushRequest)> {
    seen.iter()
        .enumerate()
        .filter(|(_, s)| s.method == "Push")
        .filter_map(|(i, s)| Some((i, v1::PushRequest::decode(s.message.as_slice()).ok()?)))
        .collect()
}

/// The `newest_commit` of a request that has one.
fn newest_of(call: &Seen) -> Option<v1::Cursor> {
    let bytes = call.message.as_slice();
    match call.method.as_str() {
        "Hello" => v1::HelloRequest::decode(bytes).ok()?.newest_commit,
        "Push" => v1::PushRequest::decode(bytes).ok()?.newest_commit,
        "Watch" => v1::WatchRequest::decode(bytes).ok()?.newest_commit,
        "Snapshot" => v1::SnapshotRequest::decode(bytes).ok()?.newest_commit,
        _ => v1::ReconcileRequest::decode(bytes).ok()?.newest_commit,
    }
}

/// Changes the verdicts of the next Push, each by its record.
async fn next_verdicts(
    cx: &Cx,
    change: impl Fn(&v1::Record, &mut v1::Verdict) + Send + Sync + 'static,
) {
    let action = reply(
        move |request: &v1::PushRequest, answer: &mut v1::PushResponse| {
            for (record, verdict) in request.records.iter().zip(&mut answer.verdicts) {
                change(record, verdict);
            }
        },
    );
    cx.server(|p| p.script(|s| s.next("Push", action))).await;
}

fn refused(reason: v1::Reason) -> v1::Verdict {
    v1::Verdict {
        outcome: v1::Outcome::Rejected as i32,
        reason: reason as i32,
        ..v1::Verdict::default()
    }
}

async fn what_is_sent(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(5)).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    let reached = head(&cx).await;
    replica.put("mine", "v").await?;
    replica.delete("k001").await?;
    sync_patiently(&replica, &cx).await?;
    let seen = cx.seen().await;
    for (at, push) in pushes(&seen) {
        let named = push.records.iter().all(|r| {
            let entry = push
                .held
                .iter()
                .find(|h| h.ranges.iter().any(|range| contains(range, &r.key)));
            entry.is_some_and(|h| h.cursor.is_some_and(|c| c.sequence >= reached.sequence))
        });
        cx.check(
            "held",
            named,
            format!("an entry for each key, at {} at least", reached.sequence),
            format!("call {at}: {:?}", push.held),
        );
        let flags: Vec<u32> = push.records.iter().map(|r| r.flags).collect();
        cx.check(
            "flags",
            flags.iter().all(|f| *f <= 1),
            "0 or 1",
            format!("{flags:?}"),
        );
    }
    for call in seen.iter().filter(|s| s.method != "Hello") {
        cx.equal("version", Some("1"), call.header("gosync-version"));
    }
    Ok(())
}

async fn newest_commit(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(5)).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    // others come between, and no Watch tells of them
    cx.server_writes(&[Record::put("theirs", time(9_000), 77, "v")])
        .await;
    let later = Refusal::new("UNAVAILABLE", "later");
    cx.server(|p| {
        p.script(|s| {
            for method in ["Watch", "Snapshot", "Reconcile"] {
                s.always(method, Action::Refuse(later.clone()));
            }
        });
    })
    .await;
    replica.put("mine", "v").await?;
    let _ = replica.try_sync(Duration::from_millis(900)).await?;
    let acknowledged = head(&cx).await;
    cx.server(|p| p.script(Script::clear)).await;
    let before = cx.seen().await.len();
    sync_patiently(&replica, &cx).await?;
    let seen = cx.seen().await;
    let hello = seen[before..].iter().find(|s| s.method == "Hello");
    if pushes(&seen[..before]).is_empty() {
        return Err(Stop::Peer("nothing is pushed".into()));
    }
    cx.equal("remembered", Some(acknowledged), hello.and_then(newest_of));
    let before = seen.len();
    sync_patiently(&replica, &cx).await?;
    let seen = cx.seen().await;
    let own: Vec<(usize, v1::Cursor)> = cursors(&seen)
        .into_iter()
        .filter(|(i, _)| *i >= before)
        .collect();
    let useless: Vec<String> = seen[before..]
        .iter()
        .filter_map(|s| Some((s.method.clone(), newest_of(s)?)))
        .filter(|(_, n)| {
            own.iter()
                .all(|(_, c)| c.epoch == n.epoch && c.sequence >= n.sequence)
        })
        .map(|(method, n)| format!("{method} {n:?}"))
        .collect();
    cx.check(
        "passed",
        useless.is_empty() && !own.is_empty(),
        "cursors, and no newest commit below them",
        format!("{} cursors, {useless:?}", own.len()),
    );
    Ok(())
}

async fn newest_commit_forgotten(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(5)).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    let space = cx.space().to_owned();
    let backup = cx
        .server(|p| p.service.with_space(&space, |s| s.clone()))
        .await;
    let old = head(&cx).await;
    cx.server_writes(&[Record::put("theirs", time(9_000), 77, "v")])
        .await;
    let later = Refusal::new("UNAVAILABLE", "later");
    cx.server(|p| p.script(|s| s.always("Watch", Action::Refuse(later))))
        .await;
    replica.put("mine", "v").await?;
    let _ = replica.try_sync(Duration::from_millis(900)).await?;
    let before = cx.seen().await.len();
    cx.server(|p| {
        let epoch = p.service.random();
        p.script(Script::clear);
        p.service.with_space(&space, |s| {
            // with the records, so that the replica has nothing to offer: a new
            // write would be a new commit to remember
            let records = std::mem::replace(s, backup).records;
            let sequence = s.head().sequence;
            let kept = records.into_iter().map(|(key, stored)| {
                let sequence = stored.sequence.min(sequence);
                (key, crate::peer::Stored { sequence, ..stored })
            });
            s.records = kept.collect();
            s.restored(epoch);
        });
    })
    .await;
    for _ in 0..3 {
        sync_patiently(&replica, &cx).await?;
    }
    let heals = cx.seen().await[before..]
        .iter()
        .filter(|s| matches!(s.method.as_str(), "Reconcile" | "Snapshot"))
        .count();
    cx.check("noticed", heals > 0, "a Reconcile or a Snapshot", "none");
    let before = cx.seen().await.len();
    sync_patiently(&replica, &cx).await?;
    let stale: Vec<String> = cx.seen().await[before..]
        .iter()
        .filter(|s| newest_of(s).is_some_and(|n| n.epoch == old.epoch))
        .map(|s| s.method.clone())
        .collect();
    cx.equal("forgotten", Vec::<String>::new(), stale);
    Ok(())
}

async fn verdicts_alone(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    cx.server_down().await;
    replica.put("k", "one").await?;
    replica.put("l", "two").await?;
    cx.server(|p| p.script(nothing_more)).await;
    cx.server_up().await?;
    let _ = replica.try_sync(Duration::from_millis(2_000)).await?;
    let sent = pushed(&cx.seen().await).len();
    let pending = replica.contents().await?.pending.len();
    cx.check(
        "settled",
        sent >= 2 && pending == 0,
        "two that were sent, and are not pending",
        format!("{sent} sent, {pending} pending"),
    );
    Ok(())
}

async fn status_not_in_order(cx: Cx) -> Result<(), Stop> {
    // the verdict alone tells of the write, not a Watch
    let watch = bend(|_, message: &mut v1::WatchResponse| {
        if let Some(v1::watch_response::Event::Changes(changes)) = &mut message.event
            && changes.records.iter().any(|r| r.key == b"mine")
        {
            message.event = None;
        }
    });
    cx.server(|p| p.script(|s| s.next("Watch", watch))).await;
    cx.server_writes(&others(5)).await;
    let replica = cx.open("a").await?;
    replica.watch().await?;
    replica.await_idle().await?;
    let before = cx.seen().await.len();
    let action = reply(|_: &v1::PushRequest, answer: &mut v1::PushResponse| {
        for status in &mut answer.held {
            status.lineage = v1::Lineage::Unknown as i32;
            status.mapped_sequence = 0;
        }
    });
    cx.server(|p| p.script(|s| s.next("Push", action))).await;
    replica.put("mine", "v").await?;
    let anew = until(&cx, |seen| {
        let own = &seen[before..];
        let push = own.iter().position(|s| s.method == "Push");
        // a Hello alone may only compare
        push.is_some_and(|at| {
            let then: Vec<&str> = own[at..].iter().map(|s| s.method.as_str()).collect();
            let hello = then.iter().position(|m| *m == "Hello");
            hello.is_some_and(|at| then[at..].contains(&"Watch"))
        })
    })
    .await?;
    cx.check(
        "begins-anew",
        anew,
        "Hello and Watch after the Push",
        "none",
    );
    sync_patiently(&replica, &cx).await?;
    let sent = pushed(&cx.seen().await)
        .iter()
        .filter(|(_, r)| r.key == b"mine")
        .count();
    cx.equal("settled", 1, sent);
    same_as_server(&cx, "settled", &replica).await
}

async fn odd_verdicts(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    let keys = ["a-skewed", "b-none", "c-other", "d-loses"];
    for key in keys {
        replica.put(key, "mine").await?;
    }
    let space = cx.space().to_owned();
    let service = cx.server(|p| p.service.clone()).await;
    next_verdicts(&cx, move |record, verdict| {
        // the server holds nothing of what it refuses
        service.with_space(&space, |s| s.records.remove(&record.key));
        let superseded = |winner: Option<Record>| v1::Verdict {
            outcome: v1::Outcome::Superseded as i32,
            sequence: 1,
            winner: winner.map(|w| w.to_wire()),
            ..v1::Verdict::default()
        };
        let newer = record.version.map_or(1, |v| v.time.saturating_add(1));
        *verdict = match record.key.as_slice() {
            b"a-skewed" => refused(v1::Reason::ClockSkew),
            b"b-none" => superseded(None),
            b"c-other" => superseded(Some(Record::put("c-else", newer, 77, "odd"))),
            _ => superseded(Some(Record::put("d-loses", 1, 77, "odd"))),
        };
    })
    .await;
    for _ in 0..3 {
        sync_patiently(&replica, &cx).await?;
    }
    let sent = pushed(&cx.seen().await);
    let of = |key: &str| -> Vec<(u64, u64)> {
        let own = sent.iter().filter(|(_, r)| r.key == key.as_bytes());
        own.map(|(_, r)| (r.time, r.replica)).collect()
    };
    let skewed = of(keys[0]);
    cx.check(
        "restamped",
        skewed.len() > 1 && skewed[1] != skewed[0],
        "another version",
        format!("{skewed:?}"),
    );
    for key in &keys[1..] {
        let mut versions = of(key);
        let times = versions.len();
        versions.dedup();
        cx.check(
            "unchanged",
            times > 1 && versions.len() == 1,
            "one version, sent again",
            format!("{key}: {times} times, {versions:?}"),
        );
    }
    same_as_server(&cx, "done", &replica).await?;
    cx.equal("done", 4, replica.entries().await?.len());
    Ok(())
}

async fn odd_answers(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    replica.put("k", "v").await?;
    let space = cx.space().to_owned();
    let service = cx.server(|p| p.service.clone()).await;
    next_verdicts(&cx, move |record, verdict| {
        // or it would come back by Watch, and settle the write
        service.with_space(&space, |s| s.records.remove(&record.key));
        *verdict = v1::Verdict {
            outcome: 99,
            ..v1::Verdict::default()
        };
    })
    .await;
    sync_patiently(&replica, &cx).await?;
    let pending = replica.contents().await?.pending;
    let told = pending
        .iter()
        .any(|p| p.key == b"k" && !p.rejected.is_empty());
    cx.check("outcome", told, "k as rejected", format!("{pending:?}"));
    let action = reply(|_: &v1::PushRequest, answer: &mut v1::PushResponse| {
        answer.held.push(v1::HistoryStatus::default());
    });
    cx.server(|p| p.script(|s| s.next("Push", action))).await;
    replica.put("l", "v").await?;
    sync_patiently(&replica, &cx).await?;
    let sent: Vec<(u64, u64)> = pushed(&cx.seen().await)
        .into_iter()
        .filter(|(_, r)| r.key == b"l")
        .map(|(_, r)| (r.time, r.replica))
        .collect();
    cx.check(
        "statuses",
        sent.len() == 2 && sent[0] == sent[1],
        "two tries of one version",
        format!("{sent:?}"),
    );
    Ok(())
}

async fn record_at_fault(cx: Cx) -> Result<(), Stop> {
    let judge = |message: &[u8]| {
        v1::PushRequest::decode(message).is_ok_and(|p| p.records.iter().any(|r| r.key == b"k13"))
    };
    let refusal = Refusal::new("MALFORMED", "no sentence says which");
    cx.server(|p| {
        p.script(|s| {
            s.always(
                "Push",
                Action::RefuseIf(std::sync::Arc::new(judge), refusal),
            )
        })
    })
    .await;
    let replica = cx.open("a").await?;
    for i in 0..20 {
        replica.put(format!("k{i:02}"), "v").await?;
    }
    sync_patiently(&replica, &cx).await?;
    cx.equal("others", 19, cx.server_records().await.len());
    let pending: Vec<(Vec<u8>, String)> = replica
        .contents()
        .await?
        .pending
        .into_iter()
        .map(|p| (p.key, p.rejected))
        .collect();
    cx.equal(
        "found",
        vec![(b"k13".to_vec(), "MALFORMED".to_owned())],
        pending,
    );
    Ok(())
}

async fn verdicts_on_offers(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(40)).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    let before = cx.server_records().await;
    server_loses(&cx, &["k003", "k004", "k005"]).await;
    let space = cx.space().to_owned();
    let service = cx.server(|p| p.service.clone()).await;
    let action = reply(
        move |request: &v1::PushRequest, answer: &mut v1::PushResponse| {
            for (record, verdict) in request.records.iter().zip(&mut answer.verdicts) {
                let reason = match record.key.as_slice() {
                    b"k003" => v1::Reason::ClockSkew,
                    b"k004" => v1::Reason::QuotaExceeded,
                    _ => continue,
                };
                *verdict = refused(reason);
                service.with_space(&space, |s| s.records.remove(&record.key));
            }
        },
    );
    cx.server(|p| p.script(|s| s.next("Push", action))).await;
    for _ in 0..4 {
        sync_patiently(&replica, &cx).await?;
    }
    let original = before.iter().find(|r| r.key == b"k003");
    let sent: Vec<Record> = pushed(&cx.seen().await)
        .into_iter()
        .map(|(_, r)| r)
        .filter(|r| r.key == b"k003")
        .collect();
    cx.check(
        "unchanged",
        sent.len() > 1 && sent.iter().all(|r| Some(r) == original),
        "offered more than once, always as it was",
        format!("{sent:?}"),
    );
    let contents = replica.contents().await?;
    let shown = contents.entries.iter().any(|e| e.key == b"k004");
    cx.equal("quarantined", (1, true), (contents.quarantined, shown));
    Ok(())
}
