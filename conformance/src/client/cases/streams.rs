//! Streams that misbehave: commits torn apart, cursors that go back or elsewhere,
//! snapshots that change their terms; and the client's manners when it has to try
//! again.

use super::tools::{bend, calls, cursors, head, server_loses, until};
use super::{others, same_as_server, sync_patiently, time};
use crate::client::Cx;
use crate::oracle::Record;
use crate::peer::{Action, Script, Seen};
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
            positive(
                "complete",
                &["WATCH-009", "WATCH-042"],
                "then all of them are",
            ),
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
        name: "watch/out-of-order",
        profile: Profile::Heal,
        needs: &[Need::Live, Need::Reconcile],
        about: "The messages of a stream come in another order.",
        checks: &[
            positive("begins-anew", &["WATCH-014"], "a new session begins"),
            positive(
                "complete",
                &["WATCH-024"],
                "what was skipped shows in the fingerprints, and is fetched",
            ),
        ],
        run: |cx| Box::pin(out_of_order(cx)),
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
];

pub(super) async fn keys(replica: &crate::client::Replica) -> Result<Vec<String>, Stop> {
    Ok(replica
        .entries()
        .await?
        .into_iter()
        .map(|(k, _)| k)
        .collect())
}

/// Until the application sees the key, or patience runs out.
pub(super) async fn until_seen(
    cx: &Cx,
    replica: &crate::client::Replica,
    key: &str,
) -> Result<(), Stop> {
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

async fn out_of_order(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(3)).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    // no stream of that session is to take what is meant for the next
    replica.close().await?;
    let replica = cx.open("a").await?;
    for key in ["first", "second"] {
        cx.server_writes(&[Record::put(key, time(100), 77, "v")])
            .await;
    }
    let before = cx.seen().await.len();
    cx.server(|p| p.script(|s| s.next("Watch", Action::Swapped)))
        .await;
    replica.watch().await?;
    let anew = |seen: &[Seen]| {
        let calls = seen[before..].iter().map(|s| s.method.as_str());
        let mut after = calls.skip_while(|m| *m != "Watch").skip(1);
        after.any(|m| m == "Hello")
    };
    let again = until(&cx, anew).await?;
    cx.check("begins-anew", again, "another Hello", "none");
    until_seen(&cx, &replica, "first").await?;
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
                bend(move |_, m: &mut v1::WatchResponse| {
                    use v1::watch_response::Event;
                    let cursor = match &mut m.event {
                        Some(Event::Changes(changes)) => &mut changes.cursor,
                        Some(Event::Heartbeat(beat)) => &mut beat.cursor,
                        _ => return,
                    };
                    cursor.iter_mut().for_each(change);
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
    until_seen(&cx, &replica, "fourth").await?;
    same_as_server(&cx, "complete", &replica).await?;
    // what is stored shows in what the next opening says first
    replica.close().await?;
    let replica = cx.open("a").await?;
    replica.watch().await?;
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
