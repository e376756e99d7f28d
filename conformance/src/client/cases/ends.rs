//! How streams end: a Snapshot of which all has come, an end that names a delay,
//! a grant that is withdrawn.

use super::tools::{bend, calls, granted, nothing_more, until};
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
        name: "snapshot/broken-at-the-end",
        profile: Profile::Core,
        needs: &[],
        about: "After SnapshotComplete the stream just ends; another one breaks within a frame.",
        checks: &[
            positive(
                "complete",
                &["SNAP-029"],
                "each Snapshot is complete: none is taken again",
            ),
            positive("stored", &["SNAP-018"], "and the store is as the server's"),
        ],
        run: |cx| Box::pin(broken_at_the_end(cx)),
    },
    Case {
        name: "snapshot/goes-on-after-its-end",
        profile: Profile::Hardened,
        needs: &[],
        about: "After SnapshotComplete comes another chunk.",
        checks: &[
            positive("unused", &["SNAP-029"], "its record is never seen"),
            positive(
                "complete",
                &["SNAP-018"],
                "and the store is complete in the end",
            ),
        ],
        run: |cx| Box::pin(goes_on_after_its_end(cx)),
    },
    Case {
        name: "snapshot/end-names-a-delay",
        profile: Profile::Core,
        needs: &[],
        about: "After SnapshotComplete the stream ends with UNAVAILABLE, and a delay of three seconds.",
        checks: &[positive(
            "waits",
            &["WATCH-040", "CLIENT-034"],
            "no call comes earlier",
        )],
        run: |cx| Box::pin(end_names_a_delay(cx)),
    },
    Case {
        name: "watch/changed-history-names-a-delay",
        profile: Profile::Core,
        needs: &[Need::Live],
        about: "A stream ends with HISTORY_CHANGED, and a delay of three seconds.",
        checks: &[positive(
            "waits",
            &["WATCH-040", "CLIENT-034"],
            "the new session begins no earlier",
        )],
        run: |cx| Box::pin(changed_history_names_a_delay(cx)),
    },
    Case {
        name: "watch/grant-withdrawn",
        profile: Profile::Core,
        needs: &[Need::Live],
        about: "A stream ends with NO_ACCESS: the token may write no more, and still read.",
        checks: &[
            positive(
                "begins-anew",
                &["WATCH-042"],
                "a Hello follows, which tells the grants that are left",
            ),
            positive("goes-on", &["WATCH-042"], "and a Watch brings what is new"),
        ],
        run: |cx| Box::pin(grant_withdrawn(cx)),
    },
];

async fn broken_at_the_end(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(30)).await;
    for (name, end) in [("a", Action::EndAfter(3)), ("b", Action::HalfFrameAfter(3))] {
        let before = cx.seen().await.len();
        // equal fingerprints would show that nothing is missing
        let silent = bend(|_, m: &mut v1::HelloResponse| m.equal.clear());
        cx.server(|p| {
            p.script(|s| {
                s.always("Hello", silent);
                s.next("Snapshot", end);
            });
        })
        .await;
        let replica = cx.open(name).await?;
        sync_patiently(&replica, &cx).await?;
        let taken = calls(&cx.seen().await[before..], "Snapshot").len();
        cx.equal("complete", 1, taken);
        same_as_server(&cx, "stored", &replica).await?;
    }
    Ok(())
}

async fn goes_on_after_its_end(cx: Cx) -> Result<(), Stop> {
    use v1::snapshot_response::Event;
    cx.server_writes(&others(30)).await;
    let planted = v1::SnapshotResponse {
        event: Some(Event::Chunk(v1::SnapshotChunk {
            records: vec![Record::put("planted", time(1), 77, "v").to_wire()],
        })),
    };
    let action = Action::Rewrite(Arc::new(move |_, message| {
        let read = v1::SnapshotResponse::decode(message.as_slice());
        let last = read.is_ok_and(|m| matches!(m.event, Some(Event::Complete(_))));
        match last {
            true => vec![message, planted.encode_to_vec()],
            false => vec![message],
        }
    }));
    let script = |s: &mut Script| {
        s.next("Snapshot", action);
        nothing_more(s);
    };
    cx.server(|p| p.script(script)).await;
    let replica = cx.open("a").await?;
    let _ = replica.try_sync(Duration::from_millis(700)).await?;
    let shown = super::streams::keys(&replica).await?;
    cx.server(|p| p.script(Script::clear)).await;
    sync_patiently(&replica, &cx).await?;
    let later = super::streams::keys(&replica).await?;
    let planted = [shown, later].concat();
    cx.check(
        "unused",
        !planted.contains(&"planted".to_owned()),
        "no such record",
        "it is there",
    );
    same_as_server(&cx, "complete", &replica).await
}

/// What the end of a stream says that is named so.
fn told(reason: v1::Reason, retry_after_ms: u64) -> v1::StreamEnd {
    v1::StreamEnd {
        reason: reason as i32,
        detail: "moving".into(),
        retry_after_ms,
        ..v1::StreamEnd::default()
    }
}

/// How long after the first call of `method` the next one came.
fn gap(seen: &[Seen], method: &str) -> Option<Duration> {
    let at = seen.iter().position(|s| s.method == method)?;
    Some(seen.get(at + 1)?.at.saturating_sub(seen[at].at))
}

async fn end_names_a_delay(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(30)).await;
    let end = told(v1::Reason::Unavailable, 3_000);
    let action = bend(move |_, m: &mut v1::SnapshotResponse| {
        if let Some(v1::snapshot_response::Event::End(there)) = &mut m.event {
            *there = end.clone();
        }
    });
    cx.server(|p| p.script(|s| s.next("Snapshot", action)))
        .await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    let seen = cx.seen().await;
    let gap = gap(&seen, "Snapshot");
    cx.check(
        "waits",
        gap.is_some_and(|g| g >= Duration::from_millis(2_950)),
        "the next call 3 s later or more",
        format!("{gap:?}"),
    );
    Ok(())
}

/// The next Watch is no more than this end.
async fn next_watch_ends(cx: &Cx, end: v1::StreamEnd) {
    let only = Action::Rewrite(Arc::new(move |i, _| {
        let end = v1::WatchResponse {
            event: Some(v1::watch_response::Event::End(end.clone())),
        };
        match i {
            0 => vec![end.encode_to_vec()],
            _ => Vec::new(),
        }
    }));
    cx.server(|p| p.script(|s| s.next("Watch", only))).await;
}

async fn changed_history_names_a_delay(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    next_watch_ends(&cx, told(v1::Reason::HistoryChanged, 3_000)).await;
    replica.watch().await?;
    let again = until(&cx, |seen| calls(seen, "Watch").len() > 1).await?;
    let gap = gap(&cx.seen().await, "Watch");
    cx.check(
        "waits",
        again && gap.is_some_and(|g| g >= Duration::from_millis(2_950)),
        "the next call 3 s later or more",
        format!("{gap:?}"),
    );
    Ok(())
}

async fn grant_withdrawn(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(10)).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    // no stream of that session is to take what is meant for the next
    replica.close().await?;
    let replica = cx.open("a").await?;
    let before = cx.seen().await.len();
    granted(&cx, v1::Access::Read as i32).await;
    next_watch_ends(&cx, told(v1::Reason::NoAccess, 0)).await;
    replica.watch().await?;
    let again = until(&cx, |seen| calls(&seen[before..], "Watch").len() > 1).await?;
    let seen = cx.seen().await;
    let first = seen[before..].iter().position(|s| s.method == "Watch");
    let next = first.and_then(|at| seen[before..].get(at + 1));
    cx.check(
        "begins-anew",
        next.is_some_and(|s| s.method == "Hello"),
        "a Hello",
        format!("{:?}", next.map(|s| &s.method)),
    );
    cx.check("goes-on", again, "another Watch", "none");
    cx.server_writes(&[Record::put("new", time(9_000), 77, "v")])
        .await;
    super::streams::until_seen(&cx, &replica, "new").await?;
    same_as_server(&cx, "goes-on", &replica).await
}
