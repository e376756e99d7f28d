//! A server that compacted: what a replica makes of its horizon, and of what is
//! older.

use super::standing::{compact, hellos, of_server};
use super::streams::keys;
use super::tools::{calls, from_hello, head, hello_says, reconciles, settled, until};
use super::{others, same_as_server, sync_patiently, time};
use crate::client::context::pushed;
use crate::client::{Cx, Replica};
use crate::oracle::Record;
use crate::peer::{Action, Refusal, Script};
use crate::schema::v1;
use crate::suite::{Case, Need, Profile, Stop, positive};
use std::time::Duration;

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "watch/checkpoint-of-another-horizon",
        profile: Profile::Heal,
        needs: &[Need::Reconcile, Need::Live],
        about: "Between Hello and the checkpoint the server compacts tombstones that the replica holds.",
        checks: &[
            positive(
                "followed",
                &["WATCH-025", "HIST-031"],
                "the replica compares without them, and finds itself equal",
            ),
            positive(
                "no-reconcile",
                &["WATCH-025"],
                "without reconciling anything",
            ),
        ],
        run: |cx| Box::pin(moved_horizon(cx)),
    },
    Case {
        name: "writes/reconciled-first",
        profile: Profile::Core,
        needs: &[Need::ClientClock],
        about: "A replica behind the compaction has a write below the horizon.",
        checks: &[
            positive(
                "reconciled-first",
                &["CLIENT-029"],
                "nothing below the horizon is pushed before a Reconcile or a Snapshot",
            ),
            positive("arrives", &["CLIENT-022"], "then the write arrives"),
        ],
        run: |cx| Box::pin(reconciled_first(cx)),
    },
    Case {
        name: "writes/in-doubt",
        profile: Profile::Core,
        needs: &[Need::ClientClock],
        about: "Two writes below the horizon, under keys that were deleted and compacted: one was attempted, one was not.",
        checks: &[
            positive(
                "told",
                &["CLIENT-024", "CLIENT-044"],
                "the attempted one is told as in doubt",
            ),
            positive("only-that", &["CLIENT-024"], "the other one is not"),
        ],
        run: |cx| Box::pin(in_doubt(cx)),
    },
    Case {
        name: "writes/outside-the-ranges",
        profile: Profile::Heal,
        needs: &[Need::Reconcile, Need::Ranges, Need::ClientClock],
        about: "A replica of one range writes below the horizon under a key outside of it.",
        checks: &[
            positive(
                "one-key",
                &["CLIENT-027"],
                "the key is reconciled as a range of its own, without cursor",
            ),
            positive(
                "restamped",
                &["CLIENT-027"],
                "before the write comes with the horizon as its time",
            ),
            positive(
                "ranges-stay",
                &["CLIENT-049"],
                "each Hello afterwards holds the range as before, with its cursor",
            ),
        ],
        run: |cx| Box::pin(outside_the_ranges(cx)),
    },
    Case {
        name: "history/future-horizon",
        profile: Profile::Hardened,
        needs: &[Need::DurableStore],
        about: "Hello names a horizon of the year 3000.",
        checks: &[
            positive("not-followed", &["SEC-013"], "nothing else is called"),
            positive("kept", &["SEC-013", "CLIENT-003"], "nothing is dropped"),
            positive(
                "afterwards",
                &["CLIENT-031", "ERR-009"],
                "with a proper answer the session succeeds, and what waited arrives",
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
                &["HIST-029", "HIST-031", "SNAP-018"],
                "both sides hold the same",
            ),
        ],
        run: |cx| Box::pin(old_tombstones(cx)),
    },
];

async fn moved_horizon(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&[Record::tombstone("gone", time(1), 77)])
        .await;
    let replica = settled(&cx, 20).await?;
    cx.server_writes(&[Record::put("later", time(9_000), 77, "v")])
        .await;
    sync_patiently(&replica, &cx).await?;
    sync_patiently(&replica, &cx).await?;
    let before = cx.seen().await.len();
    let late = Action::Delay(Duration::from_millis(500));
    cx.server(|p| p.script(|s| s.next("Watch", late))).await;
    replica.watch().await?;
    let came = until(&cx, |seen| !calls(&seen[before..], "Watch").is_empty()).await?;
    compact(&cx, time(5_000)).await;
    replica.await_idle().await?;
    let deadline = std::time::Instant::now() + cx.patience();
    let mut verified = false;
    while std::time::Instant::now() < deadline && !verified {
        verified = replica.contents().await?.verified;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    cx.equal("followed", (true, true), (came, verified));
    same_as_server(&cx, "followed", &replica).await?;
    let seen = cx.seen().await;
    let heals = reconciles(&seen[before..]).len() + calls(&seen[before..], "Snapshot").len();
    cx.equal("no-reconcile", 0, heals);
    Ok(())
}

/// A write of long ago under `key`, which others delete; the deletion is
/// compacted. The client's clock is right again afterwards.
async fn old_write(cx: &Cx, replica: &Replica, keys: &[&str]) -> Result<(), Stop> {
    cx.set_clock(time(500) >> 16).await?;
    for key in keys {
        replica.put(key, "written long ago").await?;
    }
    cx.set_clock(0).await
}

async fn deleted_and_compacted(cx: &Cx, keys: &[&str]) {
    let gone: Vec<Record> = keys
        .iter()
        .map(|k| Record::tombstone(k, time(60_000), 77))
        .collect();
    cx.server_writes(&gone).await;
    cx.server_writes(&[Record::put("later", time(200_000), 77, "v")])
        .await;
    compact(cx, time(100_000)).await;
}

async fn reconciled_first(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 10).await?;
    old_write(&cx, &replica, &["k001"]).await?;
    deleted_and_compacted(&cx, &["k001"]).await;
    let before = cx.seen().await.len();
    for _ in 0..3 {
        sync_patiently(&replica, &cx).await?;
    }
    let seen = cx.seen().await;
    let healed = seen[before..]
        .iter()
        .position(|s| matches!(s.method.as_str(), "Reconcile" | "Snapshot"))
        .map_or(seen.len(), |i| i + before);
    let horizon = of_server(&cx).await.1;
    let early: Vec<(usize, u64)> = pushed(&seen)
        .into_iter()
        .filter(|(i, r)| *i >= before && *i < healed && r.time < horizon)
        .map(|(i, r)| (i, r.time))
        .collect();
    cx.check(
        "reconciled-first",
        early.is_empty(),
        "no such push",
        format!("{early:?} before call {healed}"),
    );
    let there = cx.server_records().await;
    let arrived = there.iter().any(|r| r.key == b"k001" && !r.is_tombstone());
    cx.check("arrives", arrived, "the write", "it is missing");
    Ok(())
}

async fn in_doubt(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 10).await?;
    old_write(&cx, &replica, &["k001"]).await?;
    let later = Refusal::new("UNAVAILABLE", "later");
    cx.server(|p| p.script(|s| s.always("Push", Action::Refuse(later))))
        .await;
    let _ = replica.try_sync(Duration::from_millis(600)).await?;
    let attempted = !calls(&cx.seen().await, "Push").is_empty();
    old_write(&cx, &replica, &["k002"]).await?;
    deleted_and_compacted(&cx, &["k001", "k002"]).await;
    let _ = replica.try_sync(Duration::from_secs(3)).await?;
    let pending = replica.contents().await?.pending;
    let doubted = |key: &[u8]| pending.iter().find(|p| p.key == key).map(|p| p.in_doubt);
    cx.equal("told", (true, Some(true)), (attempted, doubted(b"k001")));
    cx.equal("only-that", Some(false), doubted(b"k002"));
    Ok(())
}

async fn outside_the_ranges(cx: Cx) -> Result<(), Stop> {
    let records: Vec<Record> = ["a/1", "a/2", "b/1"]
        .map(|k| Record::put(k, time(1), 77, "v"))
        .into();
    cx.server_writes(&records).await;
    let replica = cx
        .open_with("a", "a", |o| o.key_prefixes = vec![b"a/".to_vec()])
        .await?;
    sync_patiently(&replica, &cx).await?;
    deleted_and_compacted(&cx, &["b/1"]).await;
    sync_patiently(&replica, &cx).await?;
    let cursor = head(&cx).await;
    old_write(&cx, &replica, &["b/1"]).await?;
    let before = cx.seen().await.len();
    sync_patiently(&replica, &cx).await?;
    sync_patiently(&replica, &cx).await?;
    let seen = cx.seen().await;
    let single = v1::Range {
        start: b"b/1".to_vec(),
        end: Some(b"b/1\0".to_vec()),
    };
    let asked = seen[before..]
        .iter()
        .position(|s| {
            matches!(s.method.as_str(), "Reconcile" | "Snapshot")
                && s.held()
                    .iter()
                    .any(|h| h.ranges == [single.clone()] && h.cursor.is_none())
        })
        .map(|i| i + before);
    cx.check(
        "one-key",
        asked.is_some(),
        "such a Reconcile or Snapshot",
        "none",
    );
    let horizon = of_server(&cx).await.1;
    let sent: Vec<(usize, u64)> = pushed(&seen)
        .into_iter()
        .filter(|(i, r)| *i >= before && r.key == b"b/1")
        .map(|(i, r)| (i, r.time))
        .collect();
    let restamped = sent.iter().find(|(_, t)| *t == horizon).map(|(i, _)| *i);
    cx.check(
        "restamped",
        asked.is_some() && restamped > asked,
        format!("a push at {horizon} after call {asked:?}"),
        format!("{sent:?}"),
    );
    sync_patiently(&replica, &cx).await?;
    let after = hellos(&cx, asked.unwrap_or(seen.len())).await;
    let held: Vec<(usize, Option<u64>)> = after
        .iter()
        .flat_map(|h| &h.held)
        .map(|e| (e.ranges.len(), e.cursor.map(|c| c.sequence)))
        .collect();
    let one_each = after.iter().all(|h| h.held.len() == 1);
    let as_before =
        |(ranges, at): &(usize, Option<u64>)| *ranges == 1 && *at >= Some(cursor.sequence);
    cx.check(
        "ranges-stay",
        one_each && !held.is_empty() && held.iter().all(as_before),
        format!("one range, from {} on", cursor.sequence),
        format!("{held:?}"),
    );
    Ok(())
}

async fn future_horizon(cx: Cx) -> Result<(), Stop> {
    let mut records = others(5);
    records.push(Record::tombstone("gone", time(9), 77));
    cx.server_writes(&records).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    hello_says(&cx, |m| {
        if let Some(position) = &mut m.position {
            position.horizon = 32_503_680_000_000 << 16;
        }
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
    let there = cx.server_records().await.iter().any(|r| r.key == b"mine");
    cx.check("afterwards", there, "the write at the server", "none");
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
