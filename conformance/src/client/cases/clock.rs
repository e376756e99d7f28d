//! Clocks that are wrong, here and there.

use super::{same_as_server, sync_patiently, time};
use crate::client::Cx;
use crate::client::context::pushed;
use crate::oracle::Record;
use crate::suite::{Case, Need, Profile, Stop, positive};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "clock/ahead-here",
        profile: Profile::Core,
        needs: &[Need::ClientClock],
        about: "The client's clock is an hour ahead; its writes are refused with CLOCK_SKEW.",
        checks: &[
            positive(
                "restamped",
                &["CLIENT-018", "PUSH-027"],
                "the writes arrive with versions that the server accepts",
            ),
            positive(
                "in-order",
                &["CLIENT-018"],
                "and the last write of each key wins",
            ),
            positive("seen", &["CLIENT-003"], "nothing is lost here"),
        ],
        run: |cx| Box::pin(ahead_here(cx)),
    },
    Case {
        name: "clock/set-back-here",
        profile: Profile::Core,
        needs: &[Need::ClientClock, Need::DurableStore],
        about: "The client's clock is set back by a day, and the process is killed in between.",
        checks: &[positive(
            "rises",
            &["CLOCK-002", "CLOCK-003", "CLIENT-001"],
            "versions go on rising",
        )],
        run: |cx| Box::pin(set_back_here(cx)),
    },
    Case {
        name: "clock/end-of-time",
        profile: Profile::Hardened,
        needs: &[Need::ClientClock],
        about: "The client's clock is at the end of the times that there are, and so is the version of a record that it holds.",
        checks: &[positive(
            "refused",
            &["CLOCK-004"],
            "a write over it is refused, since no version is left; one of another key is taken",
        )],
        run: |cx| Box::pin(end_of_time(cx)),
    },
    Case {
        name: "clock/future-from-server",
        profile: Profile::Hardened,
        needs: &[],
        about: "The server sends a record from the year 2200 among others.",
        checks: &[
            positive("good-arrive", &["SNAP-018"], "before it, records arrive"),
            positive("refused", &["CLOCK-011"], "the record is not stored"),
            positive(
                "cursor-waits",
                &["CLOCK-012", "HIST-009"],
                "no cursor beyond its commit is used",
            ),
        ],
        run: |cx| Box::pin(future_from_server(cx)),
    },
];

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64)
}

async fn end_of_time(cx: Cx) -> Result<(), Stop> {
    cx.set_clock((1 << 48) - 1).await?;
    let replica = cx.open("a").await?;
    cx.server_writes(&[Record::put("k", u64::MAX, 77, "last")])
        .await;
    sync_patiently(&replica, &cx).await?;
    let shown = |entries: &[(String, String)]| entries.iter().any(|(_, value)| value == "last");
    let entries = replica.entries().await?;
    if !shown(&entries) {
        // it is no future record: CLOCK-011 goes by the client's clock as well
        return Err(Stop::Peer(format!("k=last does not arrive: {entries:?}")));
    }
    let over = replica.put("k", "later").await;
    let still = shown(&replica.entries().await?);
    let other = replica.put("other", "v").await;
    cx.check(
        "refused",
        over.is_err() && still && other.is_ok(),
        "refused, and nothing changed; the other one taken",
        format!("{over:?}; the record stays: {still}; the other: {other:?}"),
    );
    Ok(())
}

async fn ahead_here(cx: Cx) -> Result<(), Stop> {
    let hour = 3_600_000;
    cx.set_clock(now() + hour).await?;
    let replica = cx.open("a").await?;
    replica.put("k", "first").await?;
    replica.put("k", "second").await?;
    replica.put("l", "other").await?;
    sync_patiently(&replica, &cx).await?;
    sync_patiently(&replica, &cx).await?;
    let server = cx.server_records().await;
    let bound = crate::oracle::skew_bound(now(), 300_000);
    cx.check(
        "restamped",
        server.len() == 2 && server.iter().all(|r| r.time <= bound),
        "two records within the bound",
        format!(
            "{:?}",
            server.iter().map(|r| r.time >> 16).collect::<Vec<_>>()
        ),
    );
    let value = server
        .iter()
        .find(|r| r.key == b"k")
        .map(|r| r.value.clone());
    cx.equal("in-order", Some(b"second".to_vec()), value);
    same_as_server(&cx, "seen", &replica).await
}

async fn set_back_here(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    replica.put("k", "one").await?;
    cx.crash().await?;
    cx.set_clock(now() - 86_400_000).await?;
    let replica = cx.open("a").await?;
    replica.put("other", "two").await?;
    replica.put("k", "three").await?;
    sync_patiently(&replica, &cx).await?;
    let server = cx.server_records().await;
    let find = |key: &str| server.iter().find(|r| r.key == key.as_bytes()).cloned();
    let today = now().saturating_sub(3_600_000) << 16;
    let fine = find("other").is_some_and(|r| r.time > today)
        && find("k").is_some_and(|r| r.value == b"three");
    cx.check(
        "rises",
        fine,
        "versions above those before the clock was set back",
        format!(
            "{:?}",
            server.iter().map(|r| r.time >> 16).collect::<Vec<_>>()
        ),
    );
    Ok(())
}

async fn future_from_server(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&[Record::put("good", time(1), 77, "v")])
        .await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    let keys =
        |entries: Vec<(String, String)>| entries.into_iter().map(|(k, _)| k).collect::<Vec<_>>();
    cx.equal(
        "good-arrive",
        vec!["good".to_owned()],
        keys(replica.entries().await?),
    );
    let year_2200 = 7_258_118_400_000u64 << 16;
    cx.server_writes(&[Record::put("future", year_2200, 77, "v")])
        .await;
    let calls = cx.seen().await.len();
    // the client cannot finish; what counts is what it keeps
    for _ in 0..2 {
        let _ = replica.try_sync(Duration::from_secs(3)).await?;
    }
    cx.equal(
        "refused",
        vec!["good".to_owned()],
        keys(replica.entries().await?),
    );
    let seen = cx.seen().await;
    let beyond = seen[calls..]
        .iter()
        .flat_map(|s| s.held())
        .filter_map(|h| h.cursor)
        .any(|c| c.sequence >= 2);
    cx.check(
        "cursor-waits",
        !beyond,
        "cursors before the commit",
        "one beyond it",
    );
    let offered = pushed(&seen).iter().any(|(_, r)| r.key == b"future");
    cx.check("refused", !offered, "never pushed either", "it was pushed");
    Ok(())
}
