//! Streams that misbehave: commits torn apart, cursors that go back or elsewhere,
//! snapshots that change their terms; and the client's manners when it has to try
//! again.

use super::tools::{
    bend, bend_changes, calls, cursors, from_hello, head, held_of, server_loses, until,
};
use super::{others, same_as_server, sync_patiently, time};
use crate::client::Cx;
use crate::oracle::Record;
use crate::peer::{Action, Refusal, Script};
use crate::schema::v1;
use crate::suite::{Case, Need, Profile, Stop, positive};
use prost::Message;
use std::sync::Arc;
use std::time::Duration;

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "watch/torn-commit",
        profile: Profile::Core,
        needs: &[],
        about: "A commit comes in several messages, and the stream breaks before its end, again and again.",
        checks: &[
            positive(
                "not-stored",
                &["WATCH-010", "WATCH-009"],
                "no record of it is seen before its end has come",
            ),
            positive("complete", &["WATCH-009"], "then all of them are"),
        ],
        run: |cx| Box::pin(torn_commit(cx)),
    },
    Case {
        name: "watch/cursor-back",
        profile: Profile::Hardened,
        needs: &[Need::Live],
        about: "A cursor goes back within a stream.",
        checks: &[
            positive("begins-anew", &["WATCH-014"], "a new session begins"),
            positive(
                "not-lowered",
                &["WATCH-011"],
                "no later request has the lower cursor",
            ),
            positive("complete", &["WATCH-042"], "nothing is missed"),
        ],
        run: |cx| Box::pin(odd_cursor(cx, |c| c.sequence = 1)),
    },
    Case {
        name: "watch/cursor-of-another-epoch",
        profile: Profile::Hardened,
        needs: &[Need::Live],
        about: "A cursor names another epoch within a stream.",
        checks: &[
            positive("begins-anew", &["WATCH-013"], "a new session begins"),
            positive(
                "not-lowered",
                &["WATCH-013", "HIST-006"],
                "no later request has that cursor",
            ),
            positive("complete", &["WATCH-042"], "nothing is missed"),
        ],
        run: |cx| Box::pin(odd_cursor(cx, |c| c.epoch ^= 0xff)),
    },
    Case {
        name: "watch/difference-healed",
        profile: Profile::Heal,
        needs: &[Need::Live],
        about: "A checkpoint of a live stream differs from what the client holds.",
        checks: &[
            positive(
                "compared",
                &["WATCH-023", "WATCH-024"],
                "the client reconciles by itself",
            ),
            positive(
                "equal",
                &["WATCH-026"],
                "and calls itself verified afterwards, not before",
            ),
        ],
        run: |cx| Box::pin(difference_healed(cx)),
    },
    Case {
        name: "watch/unknown-end",
        profile: Profile::Hardened,
        needs: &[Need::Live],
        about: "A stream ends with a reason of a later version.",
        checks: &[positive(
            "goes-on",
            &["WATCH-039"],
            "another stream follows, and brings what is new",
        )],
        run: |cx| Box::pin(unknown_end(cx)),
    },
    Case {
        name: "watch/retry-after",
        profile: Profile::Core,
        needs: &[Need::Live],
        about: "A stream ends with retry_after_ms of three seconds.",
        checks: &[positive(
            "waits",
            &["WATCH-040", "CLIENT-034"],
            "no call comes earlier",
        )],
        run: |cx| Box::pin(retry_after(cx)),
    },
    Case {
        name: "watch/no-deadline",
        profile: Profile::Live,
        needs: &[Need::Live],
        about: "What a client sends with a Watch.",
        checks: &[positive("none", &["TRANS-028"], "no grpc-timeout")],
        run: |cx| Box::pin(no_deadline(cx)),
    },
    Case {
        name: "manners/backoff",
        profile: Profile::Core,
        needs: &[Need::Live],
        about: "The server refuses every Hello for eight seconds.",
        checks: &[
            positive("few", &["CLIENT-032"], "there are few tries"),
            positive("growing", &["CLIENT-032"], "with growing pauses"),
            positive(
                "first",
                &["CLIENT-036"],
                "the first of which is at most 2 s",
            ),
        ],
        run: |cx| Box::pin(backoff(cx)),
    },
    Case {
        name: "manners/jitter",
        profile: Profile::Core,
        needs: &[Need::Live],
        about: "Eight replicas fail at the same time.",
        checks: &[positive(
            "spread",
            &["CLIENT-033"],
            "they do not come back at the same time",
        )],
        run: |cx| Box::pin(jitter(cx)),
    },
    Case {
        name: "manners/text-of-errors",
        profile: Profile::Hardened,
        needs: &[],
        about: "A refusal's message speaks of other things than its reason, and has details that nobody knows.",
        checks: &[positive(
            "by-reason",
            &["ERR-008", "ERR-010", "ERR-012"],
            "the client does what the reason says",
        )],
        run: |cx| Box::pin(text_of_errors(cx)),
    },
    Case {
        name: "manners/nothing-of-the-device",
        profile: Profile::Hardened,
        needs: &[],
        about: "What Hello tells of the client.",
        checks: &[
            positive(
                "client",
                &["SEC-015"],
                "a short name and version, without user, host or path",
            ),
            positive(
                "replicas",
                &["CLOCK-001", "SEC-014"],
                "each opening writes with a replica id of its own",
            ),
            positive("versions", &["HELLO-002"], "it offers version 1"),
        ],
        run: |cx| Box::pin(nothing_of_the_device(cx)),
    },
    Case {
        name: "snapshot/resumed-cursor",
        profile: Profile::Core,
        needs: &[Need::Live],
        about: "A Snapshot breaks off; before it is resumed, records below the key of resumption change.",
        checks: &[
            positive(
                "first-position",
                &["SNAP-017", "SNAP-020"],
                "the cursor is that of the first stream",
            ),
            positive("complete", &["SNAP-018"], "nothing is missed"),
        ],
        run: |cx| Box::pin(resumed_cursor(cx)),
    },
    Case {
        name: "snapshot/lying-fingerprint",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "The fingerprint at the end of a Snapshot is not that of its records.",
        checks: &[
            positive(
                "anew",
                &["SNAP-021", "SNAP-022"],
                "nothing is built on it: the next call is a Hello",
            ),
            positive(
                "complete",
                &["SNAP-018"],
                "and the store is complete in the end",
            ),
        ],
        run: |cx| Box::pin(lying_snapshot(cx)),
    },
    Case {
        name: "snapshot/other-terms",
        profile: Profile::Core,
        needs: &[Need::Live],
        about: "Between two streams of a Snapshot the server is restored: another epoch.",
        checks: &[positive(
            "anew",
            &["SNAP-016"],
            "the Snapshot begins anew, and the store is right",
        )],
        run: |cx| Box::pin(other_terms(cx)),
    },
    Case {
        name: "snapshot/unsent-kept",
        profile: Profile::Core,
        needs: &[],
        about: "A client with unsent writes takes a Snapshot that holds older and newer records of their keys.",
        checks: &[
            positive(
                "kept",
                &["SNAP-019", "CLIENT-003"],
                "writes that win are kept and arrive",
            ),
            positive("merged", &["SNAP-018"], "both sides hold the newer of each"),
        ],
        run: |cx| Box::pin(unsent_kept(cx)),
    },
    Case {
        name: "snapshot/newer-here",
        profile: Profile::Heal,
        needs: &[],
        about: "The server went back in time without knowing it; a Snapshot holds older records than the client.",
        checks: &[positive(
            "offered",
            &["SNAP-032", "SNAP-018"],
            "the newer ones are offered, and stand on both sides",
        )],
        run: |cx| Box::pin(newer_here(cx)),
    },
    Case {
        name: "history/future-horizon",
        profile: Profile::Hardened,
        needs: &[],
        about: "Hello names a horizon of the year 3000.",
        checks: &[
            positive("not-followed", &["SEC-013"], "nothing else is called"),
            positive("kept", &["SEC-013", "CLIENT-003"], "nothing is dropped"),
            positive(
                "afterwards",
                &["CLIENT-031"],
                "with a proper answer the session succeeds",
            ),
        ],
        run: |cx| Box::pin(future_horizon(cx)),
    },
    Case {
        name: "history/old-tombstones",
        profile: Profile::Heal,
        needs: &[],
        about: "A tombstone that the client holds is compacted; then a record older than it comes.",
        checks: &[
            positive(
                "shown",
                &["HIST-031"],
                "the record is shown: the tombstone is no more",
            ),
            positive(
                "equal",
                &["HIST-029", "HIST-031"],
                "both sides hold the same",
            ),
        ],
        run: |cx| Box::pin(old_tombstones(cx)),
    },
    Case {
        name: "history/range-added",
        profile: Profile::Core,
        needs: &[Need::Ranges, Need::DurableStore],
        about: "A replica of one range is opened again with a second one.",
        checks: &[
            positive(
                "own-cursors",
                &["HIST-007", "HIST-008", "CLIENT-028"],
                "the first range keeps its cursor, the second begins without",
            ),
            positive(
                "complete",
                &["CLIENT-026"],
                "both ranges are complete, nothing else is held",
            ),
        ],
        run: |cx| Box::pin(range_added(cx)),
    },
    Case {
        name: "tabs/one-speaks",
        profile: Profile::Core,
        needs: &[Need::TwoOpenings, Need::Live],
        about: "Two openings of one store, both live.",
        checks: &[
            positive("shared", &["CLIENT-001"], "what one writes the other sees"),
            positive(
                "once",
                &["CLIENT-005"],
                "each write is pushed by one of them",
            ),
            positive(
                "one-stream",
                &["TRANS-021"],
                "no more than one Watch is open for both",
            ),
            positive("complete", &["CLIENT-013"], "and arrives"),
        ],
        run: |cx| Box::pin(one_speaks(cx)),
    },
    Case {
        name: "tabs/other-takes-over",
        profile: Profile::Core,
        needs: &[Need::TwoOpenings, Need::Live],
        about: "The opening that speaks is closed.",
        checks: &[positive(
            "goes-on",
            &["CLIENT-005", "CLIENT-006"],
            "the other syncs on, from the same cursor",
        )],
        run: |cx| Box::pin(other_takes_over(cx)),
    },
    Case {
        name: "sync/two-thousand",
        profile: Profile::Hardened,
        needs: &[],
        about: "Two thousand records come, three hundred go.",
        checks: &[positive(
            "all",
            &["SNAP-018", "LIMIT-006"],
            "both sides hold the same",
        )],
        run: |cx| Box::pin(two_thousand(cx)),
    },
];

async fn keys(replica: &crate::client::Replica) -> Result<Vec<String>, Stop> {
    Ok(replica
        .entries()
        .await?
        .into_iter()
        .map(|(k, _)| k)
        .collect())
}

/// Until the application sees the key, or patience runs out.
async fn until_seen(cx: &Cx, replica: &crate::client::Replica, key: &str) -> Result<(), Stop> {
    let deadline = std::time::Instant::now() + cx.patience();
    while std::time::Instant::now() < deadline && !keys(replica).await?.contains(&key.to_owned()) {
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    Ok(())
}

async fn torn_commit(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(3)).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    let large: Vec<Record> = (0..6)
        .map(|i| Record::put(format!("torn{i}"), time(9_000), 77, vec![b'x'; 120_000]))
        .collect();
    cx.server_writes(&large).await;
    cx.server(|p| p.script(|s| s.always("Watch", Action::EndAfter(1))))
        .await;
    let _ = replica.try_sync(Duration::from_millis(1_500)).await?;
    let torn = keys(&replica)
        .await?
        .into_iter()
        .filter(|k| k.starts_with("torn"))
        .count();
    cx.equal("not-stored", 0, torn);
    cx.server(|p| p.script(Script::clear)).await;
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "complete", &replica).await
}

async fn odd_cursor(cx: Cx, change: fn(&mut v1::Cursor)) -> Result<(), Stop> {
    cx.server_writes(&others(3)).await;
    cx.server_writes(&[Record::put("second", time(100), 77, "v")])
        .await;
    cx.server_writes(&[Record::put("third", time(100), 77, "v")])
        .await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    // no stream of that session is to take what is meant for the next
    replica.close().await?;
    let replica = cx.open("a").await?;
    let at_least = head(&cx).await;
    let before = cx.seen().await.len();
    cx.server(|p| {
        p.script(|s| {
            s.next(
                "Watch",
                bend_changes(move |c| {
                    if let Some(cursor) = &mut c.cursor {
                        change(cursor);
                    }
                }),
            );
        });
    })
    .await;
    replica.watch().await?;
    until(&cx, |seen| !calls(&seen[before..], "Watch").is_empty()).await?;
    cx.server_writes(&[Record::put("fourth", time(200), 77, "v")])
        .await;
    let again = until(&cx, |seen| calls(&seen[before..], "Watch").len() > 1).await?;
    cx.check("begins-anew", again, "another Watch", "none");
    cx.server_writes(&[Record::put("fifth", time(300), 77, "v")])
        .await;
    until_seen(&cx, &replica, "fifth").await?;
    let odd: Vec<v1::Cursor> = cursors(&cx.seen().await)
        .into_iter()
        .filter(|(i, c)| {
            *i >= before && (c.epoch != at_least.epoch || c.sequence < at_least.sequence)
        })
        .map(|(_, c)| c)
        .collect();
    cx.check(
        "not-lowered",
        odd.is_empty(),
        "cursors at or above the one before",
        format!("{odd:?}"),
    );
    same_as_server(&cx, "complete", &replica).await
}

async fn difference_healed(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(30)).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    server_loses(&cx, &["k011"]).await;
    let before = cx.seen().await.len();
    replica.watch().await?;
    let heals = until(&cx, |seen| {
        seen[before..]
            .iter()
            .any(|s| matches!(s.method.as_str(), "Reconcile" | "Snapshot"))
    })
    .await?;
    cx.check("compared", heals, "Reconcile or Snapshot", "neither");
    let back = until(&cx, |seen| !calls(&seen[before..], "Push").is_empty()).await?;
    cx.check("compared", back, "the lost record is pushed", "it is not");
    let deadline = std::time::Instant::now() + cx.patience();
    let mut verified = false;
    while !verified && std::time::Instant::now() < deadline {
        verified = replica.contents().await?.verified;
        let complete = cx.server_records().await.len() == 30;
        cx.check(
            "equal",
            complete || !verified,
            "not verified while one is missing",
            "verified",
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cx.check("equal", verified, "verified in the end", "never");
    Ok(())
}

/// Replaces the first message of a Watch by a StreamEnd.
fn ends_with(end: v1::StreamEnd) -> Action {
    Action::Rewrite(Arc::new(move |i, message| {
        let end = v1::WatchResponse {
            event: Some(v1::watch_response::Event::End(end.clone())),
        };
        match i {
            0 => vec![end.encode_to_vec()],
            _ => vec![message],
        }
    }))
}

async fn unknown_end(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(3)).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    // no stream of that session is to take what is meant for the next
    replica.close().await?;
    let replica = cx.open("a").await?;
    let end = v1::StreamEnd {
        reason: 999,
        ..v1::StreamEnd::default()
    };
    cx.server(|p| p.script(|s| s.next("Watch", ends_with(end))))
        .await;
    replica.watch().await?;
    cx.server_writes(&[Record::put("new", time(9_000), 77, "v")])
        .await;
    until_seen(&cx, &replica, "new").await?;
    same_as_server(&cx, "goes-on", &replica).await
}

async fn retry_after(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    let end = v1::StreamEnd {
        reason: v1::Reason::Unavailable as i32,
        detail: "moving".into(),
        retry_after_ms: 3_000,
        ..v1::StreamEnd::default()
    };
    let before = cx.seen().await.len();
    cx.server(|p| p.script(|s| s.next("Watch", ends_with(end))))
        .await;
    replica.watch().await?;
    let again = until(&cx, |seen| calls(&seen[before..], "Watch").len() > 1).await?;
    let seen = cx.seen().await;
    let first = seen
        .iter()
        .skip(before)
        .position(|s| s.method == "Watch")
        .map_or(before, |i| i + before);
    let gap = seen
        .get(first + 1)
        .map(|next| next.at.saturating_sub(seen[first].at));
    cx.check(
        "waits",
        again && gap.is_some_and(|g| g >= Duration::from_millis(2_950)),
        "the next call 3 s later or more",
        format!("{gap:?}"),
    );
    Ok(())
}

async fn no_deadline(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    replica.watch().await?;
    replica.await_idle().await?;
    let seen = cx.seen().await;
    let watches = calls(&seen, "Watch");
    let timed = watches
        .iter()
        .filter(|s| s.header("grpc-timeout").is_some())
        .count();
    cx.equal("none", (false, 0), (watches.is_empty(), timed));
    Ok(())
}

async fn backoff(cx: Cx) -> Result<(), Stop> {
    let refusal = Refusal::new("UNAVAILABLE", "come back later");
    cx.server(|p| p.script(|s| s.always("Hello", Action::Refuse(refusal))))
        .await;
    let replica = cx.open("a").await?;
    replica.watch().await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let times: Vec<Duration> = cx.seen().await.iter().map(|s| s.at).collect();
    let gaps: Vec<Duration> = times
        .windows(2)
        .map(|w| w[1].saturating_sub(w[0]))
        .collect();
    cx.check(
        "few",
        (2..=12).contains(&times.len()),
        "2 to 12 calls in 8 s",
        times.len(),
    );
    let (first, last) = (gaps.first().copied(), gaps.last().copied());
    let growing = first
        .zip(last)
        .is_some_and(|(f, l)| gaps.len() < 3 || l >= f * 2);
    cx.check(
        "growing",
        growing,
        "the last pause at least twice the first",
        format!("{gaps:?}"),
    );
    let soon = first.is_some_and(|f| f <= Duration::from_millis(2_200));
    cx.check("first", soon, "at most 2 s", format!("{first:?}"));
    Ok(())
}

async fn jitter(cx: Cx) -> Result<(), Stop> {
    const N: usize = 8;
    let refusal = Refusal::new("UNAVAILABLE", "come back later");
    cx.server(|p| p.script(|s| s.always("Hello", Action::Refuse(refusal))))
        .await;
    let space = |i: usize| format!("{}-{i}", cx.space());
    for i in 0..N {
        let name = format!("r{i}");
        let own = space(i);
        let replica = cx.open_with(&name, &name, |open| open.space = own).await?;
        replica.watch().await?;
    }
    let of = |seen: &[crate::peer::Seen], i: usize| -> Vec<Duration> {
        let own = space(i);
        seen.iter()
            .filter(|s| s.method == "Hello")
            .filter(|s| {
                v1::HelloRequest::decode(s.message.as_slice()).is_ok_and(|h| h.space == own)
            })
            .map(|s| s.at)
            .collect()
    };
    until(&cx, |seen| (0..N).all(|i| of(seen, i).len() > 1)).await?;
    let seen = cx.seen().await;
    let pauses: Vec<Duration> = (0..N)
        .filter_map(|i| {
            let times = of(&seen, i);
            Some(times.get(1)?.saturating_sub(*times.first()?))
        })
        .collect();
    let (least, most) = (pauses.iter().min(), pauses.iter().max());
    let spread = least.zip(most).is_some_and(|(l, m)| *m - *l > *m / 6);
    cx.check(
        "spread",
        spread && pauses.len() == N,
        "pauses that differ by a sixth of the longest",
        format!("{pauses:?}"),
    );
    Ok(())
}

async fn text_of_errors(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(3)).await;
    cx.server(|p| {
        p.script(|s| {
            s.next(
                "Hello",
                Action::Refuse(Refusal::new(
                    "UNAVAILABLE",
                    "SPACE_RETIRED: upgrade, token expired",
                )),
            );
            s.next(
                "Watch",
                Action::Refuse(Refusal::new("UNAVAILABLE", "UNSUPPORTED_VERSION NO_ACCESS")),
            );
            s.next(
                "Snapshot",
                Action::Refuse(Refusal::new("UNAVAILABLE", "UNAUTHENTICATED")),
            );
        });
    })
    .await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "by-reason", &replica).await
}

async fn nothing_of_the_device(cx: Cx) -> Result<(), Stop> {
    let first = cx.open("a").await?;
    first.put("k", "v").await?;
    sync_patiently(&first, &cx).await?;
    first.close().await?;
    let again = cx.open("a").await?;
    again.put("l", "v").await?;
    sync_patiently(&again, &cx).await?;
    let seen = cx.seen().await;
    let user = ["USER", "HOSTNAME", "HOME"].map(|n| std::env::var(n).unwrap_or_default());
    for hello in calls(&seen, "Hello") {
        let request = v1::HelloRequest::decode(hello.message.as_slice()).unwrap_or_default();
        let told = &request.client;
        let personal = user
            .iter()
            .any(|u| u.len() > 4 && told.contains(u.as_str()));
        cx.check(
            "client",
            told.len() <= 64 && !personal && !told.contains('@'),
            "name and version",
            told,
        );
        cx.check(
            "versions",
            request.versions.contains(&1),
            "1 among them",
            format!("{:?}", request.versions),
        );
    }
    let mut ids: Vec<u64> = crate::client::context::pushed(&seen)
        .into_iter()
        .map(|(_, r)| r.replica)
        .collect();
    ids.sort_unstable();
    ids.dedup();
    let random = ids.iter().all(|id| *id > u64::from(u32::MAX));
    cx.check(
        "replicas",
        ids.len() == 2 && random,
        "two random ids",
        format!("{ids:x?}"),
    );
    Ok(())
}

/// 200 records of 20 KB each: many messages.
async fn fill(cx: &Cx) {
    for i in 0..20u64 {
        let batch: Vec<Record> = (0..10)
            .map(|n| Record::put(format!("k{i:02}{n}"), time(i), 77, vec![b'v'; 20_000]))
            .collect();
        cx.server_writes(&batch).await;
    }
}

async fn resumed_cursor(cx: Cx) -> Result<(), Stop> {
    fill(&cx).await;
    let first = head(&cx).await;
    cx.server(|p| {
        p.script(|s| {
            s.next("Snapshot", Action::BreakAfter(4));
            s.next("Hello", Action::Pass);
            s.next("Hello", Action::Delay(Duration::from_millis(1_200)));
        });
    })
    .await;
    let replica = cx.open("a").await?;
    let syncing = replica.watch();
    syncing.await?;
    until(&cx, |seen| calls(seen, "Hello").len() > 1).await?;
    cx.server_writes(&[Record::put("k000", time(9_000), 77, "changed meanwhile")])
        .await;
    until(&cx, |seen| !calls(seen, "Watch").is_empty()).await?;
    let seen = cx.seen().await;
    let starts = calls(&seen, "Snapshot").len();
    let resumed = calls(&seen, "Snapshot").iter().any(|s| {
        v1::SnapshotRequest::decode(s.message.as_slice())
            .is_ok_and(|r| r.after_key.is_some_and(|k| !k.is_empty()))
    });
    let watch = seen.iter().find(|s| s.method == "Watch");
    let cursor = watch.and_then(|s| held_of("Watch", &s.message).first()?.cursor);
    cx.check(
        "first-position",
        !resumed || cursor.is_some_and(|c| c.sequence <= first.sequence),
        format!("at most {}", first.sequence),
        format!("{:?} after {starts} streams", cursor.map(|c| c.sequence)),
    );
    replica.await_idle().await?;
    same_as_server(&cx, "complete", &replica).await
}

async fn lying_snapshot(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(30)).await;
    cx.server(|p| {
        p.script(|s| {
            s.next(
                "Snapshot",
                bend(|_, m: &mut v1::SnapshotResponse| {
                    if let Some(v1::snapshot_response::Event::Complete(c)) = &mut m.event {
                        for state in &mut c.ranges {
                            state.fingerprint = vec![7; 32];
                        }
                    }
                }),
            );
        });
    })
    .await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    let seen = cx.seen().await;
    let at = seen.iter().position(|s| s.method == "Snapshot");
    let next = at.and_then(|at| seen.get(at + 1)).map(|s| s.method.clone());
    cx.equal("anew", Some("Hello".to_owned()), next);
    same_as_server(&cx, "complete", &replica).await
}

async fn other_terms(cx: Cx) -> Result<(), Stop> {
    fill(&cx).await;
    let space = cx.space().to_owned();
    cx.server(|p| {
        p.script(|s| {
            s.next("Snapshot", Action::BreakAfter(4));
            s.next("Hello", Action::Pass);
            s.next("Hello", Action::Delay(Duration::from_millis(1_200)));
        });
    })
    .await;
    let replica = cx.open("a").await?;
    replica.watch().await?;
    until(&cx, |seen| calls(seen, "Hello").len() > 1).await?;
    cx.server(|p| {
        let epoch = p.service.random();
        p.service.with_space(&space, |s| {
            s.records.remove(b"k000".as_slice());
            s.restored(epoch);
        });
    })
    .await;
    until(&cx, |seen| !calls(seen, "Watch").is_empty()).await?;
    replica.await_idle().await?;
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "anew", &replica).await?;
    let snapshots = calls(&cx.seen().await, "Snapshot").len();
    cx.check("anew", snapshots >= 2, "another stream", snapshots);
    Ok(())
}

async fn unsent_kept(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    replica.put("k001", "mine is newer").await?;
    replica.put("only-mine", "v").await?;
    cx.server_writes(&others(40)).await;
    sync_patiently(&replica, &cx).await?;
    sync_patiently(&replica, &cx).await?;
    let there = cx.server_records().await;
    let value = |key: &[u8]| there.iter().find(|r| r.key == key).map(|r| r.value.clone());
    cx.equal("kept", Some(b"mine is newer".to_vec()), value(b"k001"));
    cx.equal("kept", Some(b"v".to_vec()), value(b"only-mine"));
    same_as_server(&cx, "merged", &replica).await
}

async fn newer_here(cx: Cx) -> Result<(), Stop> {
    // a server without Reconcile: a Snapshot is all there is
    cx.server(|p| p.service.with_settings(|s| s.features.clear()))
        .await;
    cx.server_writes(&others(10)).await;
    let space = cx.space().to_owned();
    let old = cx
        .server(|p| p.service.with_space(&space, |s| s.clone()))
        .await;
    cx.server_writes(&[Record::put("k003", time(9_000), 77, "newer")])
        .await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    cx.server(|p| p.service.with_space(&space, |s| *s = old))
        .await;
    for _ in 0..3 {
        sync_patiently(&replica, &cx).await?;
    }
    let there = cx.server_records().await;
    let newer = there
        .iter()
        .any(|r| r.key == b"k003" && r.value == b"newer");
    cx.check(
        "offered",
        newer,
        "the newer record at the server",
        "the older one",
    );
    same_as_server(&cx, "offered", &replica).await
}

async fn future_horizon(cx: Cx) -> Result<(), Stop> {
    let mut records = others(5);
    records.push(Record::tombstone("gone", time(9), 77));
    cx.server_writes(&records).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    cx.server(|p| {
        p.script(|s| {
            s.always(
                "Hello",
                bend(|_, m: &mut v1::HelloResponse| {
                    if let Some(position) = &mut m.position {
                        position.horizon = 32_503_680_000_000 << 16;
                    }
                }),
            );
        });
    })
    .await;
    let before = cx.seen().await.len();
    replica.put("mine", "v").await?;
    let _ = replica.try_sync(Duration::from_millis(1_500)).await?;
    let others = from_hello(&cx.seen().await[before..])
        .iter()
        .filter(|s| s.method != "Hello")
        .count();
    cx.equal("not-followed", 0, others);
    cx.equal("kept", 6, replica.entries().await?.len());
    cx.server(|p| p.script(Script::clear)).await;
    replica.close().await?;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "afterwards", &replica).await
}

async fn old_tombstones(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(5)).await;
    cx.server_writes(&[Record::tombstone("k002", time(1_000), 77)])
        .await;
    cx.server_writes(&[Record::put("later", time(9_000), 77, "v")])
        .await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    let space = cx.space().to_owned();
    cx.server(|p| p.service.with_space(&space, |s| s.compact(time(5_000))))
        .await;
    sync_patiently(&replica, &cx).await?;
    // from a replica that was offline, and is not behind
    cx.server(|p| {
        p.service.with_space(&space, |s| {
            s.records.remove(b"k002".as_slice());
        });
    })
    .await;
    let cursor = head(&cx).await;
    let old = Record::put("k002", time(500), 78, "older than the tombstone");
    let request = v1::PushRequest {
        space: space.clone(),
        records: vec![old.to_wire()],
        held: vec![v1::HeldRanges {
            ranges: vec![v1::Range::default()],
            cursor: Some(cursor),
        }],
        ..v1::PushRequest::default()
    };
    cx.server(|p| {
        let tag = p.service.random();
        let limits = p.service.with_settings(|s| s.limits);
        p.service.with_space(&space, |s| {
            let clock = s.clock;
            s.push(&request, &limits, u64::MAX >> 20, tag, |_| true);
            s.clock = clock;
        });
    })
    .await;
    for _ in 0..3 {
        sync_patiently(&replica, &cx).await?;
    }
    let shown = keys(&replica).await?.contains(&"k002".to_owned());
    cx.check("shown", shown, "k002", "it is hidden");
    same_as_server(&cx, "equal", &replica).await
}

async fn range_added(cx: Cx) -> Result<(), Stop> {
    let records: Vec<Record> = ["a/1", "a/2", "b/1", "c/1"]
        .map(|k| Record::put(k, time(1), 77, "v"))
        .into();
    cx.server_writes(&records).await;
    let first = cx
        .open_with("a", "a", |o| o.key_prefixes = vec![b"a/".to_vec()])
        .await?;
    sync_patiently(&first, &cx).await?;
    first.close().await?;
    let before = cx.seen().await.len();
    let both = cx
        .open_with("a", "a", |o| {
            o.key_prefixes = vec![b"a/".to_vec(), b"b/".to_vec()]
        })
        .await?;
    sync_patiently(&both, &cx).await?;
    let seen = cx.seen().await;
    let hello = seen.iter().skip(before).find(|s| s.method == "Hello");
    let held = hello
        .map(|s| held_of("Hello", &s.message))
        .unwrap_or_default();
    let cursor_of = |key: &[u8]| {
        let entry = held
            .iter()
            .find(|h| h.ranges.iter().any(|r| crate::oracle::contains(r, key)));
        entry.map(|h| h.cursor.is_some())
    };
    cx.equal(
        "own-cursors",
        (Some(true), Some(false)),
        (cursor_of(b"a/1"), cursor_of(b"b/1")),
    );
    cx.equal(
        "complete",
        vec!["a/1".to_owned(), "a/2".into(), "b/1".into()],
        keys(&both).await?,
    );
    Ok(())
}

async fn one_speaks(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(5)).await;
    let a = cx.open_with("a", "shared", |_| {}).await?;
    let b = cx.open_with("b", "shared", |_| {}).await?;
    a.watch().await?;
    b.watch().await?;
    // whichever of them speaks
    until_seen(&cx, &a, "k004").await?;
    a.put("from-a", "v").await?;
    b.put("from-b", "v").await?;
    for replica in [&a, &b] {
        let all = keys(replica).await?;
        let both = ["from-a", "from-b"]
            .iter()
            .all(|k| all.contains(&(*k).to_owned()));
        cx.check("shared", both, "both writes", format!("{all:?}"));
    }
    let sent = |seen: &[crate::peer::Seen]| -> Vec<Vec<u8>> {
        crate::client::context::pushed(seen)
            .into_iter()
            .map(|(_, r)| r.key)
            .collect()
    };
    let deadline = std::time::Instant::now() + cx.patience();
    while std::time::Instant::now() < deadline && cx.server_records().await.len() < 7 {
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let mut all = sent(&cx.seen().await);
    all.sort();
    cx.equal("once", vec![b"from-a".to_vec(), b"from-b".to_vec()], all);
    let open = |seen: &[crate::peer::Seen]| {
        let watches = super::tools::calls(seen, "Watch");
        watches.iter().filter(|w| w.is_under_way()).count()
    };
    // one may still be on its way out
    let one = super::tools::until(&cx, |seen| open(seen) <= 1).await?;
    cx.check("one-stream", one, "at most 1", open(&cx.seen().await));
    cx.equal("complete", 7, cx.server_records().await.len());
    Ok(())
}

async fn other_takes_over(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(5)).await;
    let a = cx.open_with("a", "shared", |_| {}).await?;
    let b = cx.open_with("b", "shared", |_| {}).await?;
    a.watch().await?;
    a.await_idle().await?;
    b.watch().await?;
    a.close().await?;
    b.put("after", "v").await?;
    cx.server_writes(&[Record::put("theirs", time(9_000), 77, "v")])
        .await;
    let deadline = std::time::Instant::now() + cx.patience();
    let mut both = (false, false);
    while std::time::Instant::now() < deadline && both != (true, true) {
        let here = keys(&b).await?.contains(&"theirs".to_owned());
        let there = cx.server_records().await;
        both = (here, there.iter().any(|r| r.key == b"after"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cx.equal("goes-on", (true, true), both);
    Ok(())
}

async fn two_thousand(cx: Cx) -> Result<(), Stop> {
    let all: Vec<Record> = (0..2_000)
        .map(|i| Record::put(format!("k{i:05}"), time(i), 77, format!("value {i}")))
        .collect();
    cx.server(|p| {
        p.service
            .with_settings(|s| s.limits.max_push_records = 2_000)
    })
    .await;
    cx.server_writes(&all).await;
    cx.server(|p| p.service.with_settings(|s| s.limits.max_push_records = 200))
        .await;
    let replica = cx.open("a").await?;
    for i in 0..300 {
        replica.put(format!("mine{i:03}"), "v").await?;
    }
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "all", &replica).await?;
    cx.equal("all", 2_300, replica.entries().await?.len());
    Ok(())
}
