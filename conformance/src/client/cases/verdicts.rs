//! What becomes of writes that a server judged: beaten, refused, dated anew,
//! given up.

use super::tools::until;
use super::writes::now;
use super::{others, same_as_server, sync_patiently, time};
use crate::client::Cx;
use crate::client::context::{pushed, visible_entries};
use crate::oracle::Record;
use crate::peer::Action;
use crate::suite::{Case, Need, Profile, Stop, positive};
use std::collections::BTreeMap;
use std::time::Duration;

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "writes/verdict-first",
        profile: Profile::Core,
        needs: &[],
        about: "The answer to a write is lost; the same key is written again.",
        checks: &[
            positive(
                "awaited",
                &["CLIENT-014", "CLIENT-012"],
                "the first write is sent again before the second is sent",
            ),
            positive(
                "same-version",
                &["PUSH-031"],
                "with the version that it had",
            ),
            positive("done", &["CLIENT-013"], "the second wins"),
        ],
        run: |cx| Box::pin(verdict_first(cx)),
    },
    Case {
        name: "writes/restamped-in-order",
        profile: Profile::Core,
        needs: &[Need::ClientClock],
        about: "Five keys are written while the clock is a day ahead.",
        checks: &[
            positive(
                "ascending",
                &["CLIENT-018"],
                "their new versions ascend in the order in which they were made",
            ),
            positive("within", &["CLIENT-018"], "at the server's time"),
        ],
        run: |cx| Box::pin(restamped_in_order(cx)),
    },
    Case {
        name: "writes/same-version",
        profile: Profile::Core,
        needs: &[],
        about: "A faulty replica used one version twice: other content comes under the version that the client holds.",
        checks: &[
            positive(
                "tombstone",
                &["MODEL-018", "WATCH-012"],
                "a tombstone beats the put",
            ),
            positive(
                "hash",
                &["MODEL-018", "MODEL-019"],
                "of two puts the greater value hash wins, whichever came first",
            ),
            positive(
                "replica",
                &["MODEL-017"],
                "at the same time, the greater replica id wins, as an unsigned number",
            ),
        ],
        run: |cx| Box::pin(same_version(cx)),
    },
    Case {
        name: "writes/beaten-on-the-way",
        profile: Profile::Live,
        needs: &[Need::Live, Need::ClientClock],
        about: "While a write waits for its answer, a newer record of its key arrives.",
        checks: &[
            positive("removed", &["CLIENT-015"], "the write is no longer pending"),
            positive("shown", &["MODEL-018"], "the newer record is shown"),
        ],
        run: |cx| Box::pin(beaten_on_the_way(cx)),
    },
    Case {
        name: "writes/rejected",
        profile: Profile::Core,
        needs: &[],
        about: "The server lowers a limit, and rejects one of three writes for it.",
        checks: &[
            positive(
                "told",
                &["CLIENT-050", "PUSH-027", "LIMIT-009", "CLIENT-044"],
                "it is kept, and told with its reason",
            ),
            positive(
                "others",
                &["CLIENT-016"],
                "the others arrive, also one that is made afterwards",
            ),
            positive(
                "not-again",
                &["ERR-009"],
                "and the rejected one is not dropped by syncing again",
            ),
        ],
        run: |cx| Box::pin(rejected(cx)),
    },
    Case {
        name: "writes/retried",
        profile: Profile::Core,
        needs: &[Need::Retry],
        about: "A write was rejected for a limit; the server raises it, and then the user tries again.",
        checks: &[
            positive(
                "not-by-itself",
                &["PUSH-027"],
                "before, it stays rejected, and is not sent",
            ),
            positive("sent", &["CLIENT-051"], "then it arrives"),
        ],
        run: |cx| Box::pin(retried(cx)),
    },
    Case {
        name: "writes/discarded",
        profile: Profile::Core,
        needs: &[Need::Discard],
        about: "The user gives a write up that the server has not taken yet.",
        checks: &[
            positive("pending", &["CLIENT-010"], "before, it is told as pending"),
            positive(
                "gone",
                &["CLIENT-011"],
                "then it is gone, and what the server holds is shown",
            ),
        ],
        run: |cx| Box::pin(discarded(cx)),
    },
    Case {
        name: "writes/old-and-behind",
        profile: Profile::Heal,
        needs: &[Need::ClientClock],
        about: "Writes older than the horizon; meanwhile their keys were deleted and the tombstones compacted.",
        checks: &[
            positive(
                "at-horizon",
                &["CLIENT-022", "CLIENT-023"],
                "the put is pushed with the horizon as its time",
            ),
            positive(
                "deletes-nothing",
                &["CLIENT-022"],
                "the tombstone is not pushed",
            ),
            positive("arrives", &["CLIENT-022", "PUSH-027"], "the put arrives"),
        ],
        run: |cx| Box::pin(old_and_behind(cx)),
    },
];

async fn verdict_first(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    replica.put("k", "first").await?;
    cx.server(|p| p.script(|s| s.always("Push", Action::Reset)))
        .await;
    let _ = replica.try_sync(Duration::from_millis(700)).await?;
    replica.put("k", "second").await?;
    cx.server(|p| p.script(crate::peer::Script::clear)).await;
    let before = cx.seen().await.len();
    sync_patiently(&replica, &cx).await?;
    sync_patiently(&replica, &cx).await?;
    let sent = pushed(&cx.seen().await);
    let at = |value: &[u8]| {
        sent.iter()
            .filter(|(_, r)| r.value == value)
            .map(|(i, _)| *i)
            .collect::<Vec<_>>()
    };
    let (first, second) = (at(b"first"), at(b"second"));
    let attempted = first.iter().any(|i| *i < before);
    let again = first.iter().find(|i| **i >= before);
    let awaited = match (again, second.first()) {
        (Some(again), Some(second)) => again < second,
        _ => false,
    };
    // a client that never sent the first may send the second alone
    cx.check(
        "awaited",
        awaited || !attempted,
        "the first again, then the second",
        format!("{first:?}, {second:?}"),
    );
    let mut versions: Vec<(u64, u64)> = sent
        .iter()
        .filter(|(_, r)| r.value == b"first")
        .map(|(_, r)| (r.time, r.replica))
        .collect();
    versions.dedup();
    cx.check(
        "same-version",
        versions.len() <= 1,
        "one version",
        format!("{versions:?}"),
    );
    // a client that writes nothing agrees with a server that holds nothing
    let arrived = visible_entries(&cx.server_records().await);
    cx.check(
        "done",
        arrived == [("k".to_owned(), "second".to_owned())],
        "the server holds the second write",
        format!("{arrived:?}"),
    );
    same_as_server(&cx, "done", &replica).await
}

async fn restamped_in_order(cx: Cx) -> Result<(), Stop> {
    cx.set_clock(now() + 86_400_000).await?;
    let replica = cx.open("a").await?;
    for key in ["e", "d", "c", "b", "a"] {
        replica.put(key, "v").await?;
    }
    sync_patiently(&replica, &cx).await?;
    sync_patiently(&replica, &cx).await?;
    let there = cx.server_records().await;
    let times: Vec<u64> = ["e", "d", "c", "b", "a"]
        .iter()
        .filter_map(|k| there.iter().find(|r| r.key == k.as_bytes()).map(|r| r.time))
        .collect();
    let ascending = times.len() == 5 && times.windows(2).all(|w| w[0] < w[1]);
    cx.check(
        "ascending",
        ascending,
        "five times, ascending",
        format!("{times:?}"),
    );
    let bound = crate::oracle::skew_bound(now(), 300_000);
    let last: BTreeMap<Vec<u8>, u64> = pushed(&cx.seen().await)
        .into_iter()
        .map(|(_, r)| (r.key, r.time))
        .collect();
    cx.check(
        "within",
        last.values().all(|t| *t <= bound),
        format!("at most {bound}"),
        format!("{last:?}"),
    );
    Ok(())
}

async fn same_version(cx: Cx) -> Result<(), Stop> {
    let puts = |value: &str| Record::put("puts", time(1), 77, value);
    let (mut smaller, mut greater) = (puts("one"), puts("other"));
    if smaller.value_hash() > greater.value_hash() {
        std::mem::swap(&mut smaller, &mut greater);
    }
    let by = |replica: u64, value: &str| Record::put("by", time(1), replica, value);
    let gone = Record::put("gone", time(1), 77, "v");
    cx.server_writes(&[smaller, gone, by(77, "smaller id")])
        .await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    let want = greater.value.escape_ascii().to_string();
    let gone = Record::tombstone("gone", time(1), 77);
    cx.server_writes(&[greater, gone, by(u64::MAX - 7, "greater id")])
        .await;
    sync_patiently(&replica, &cx).await?;
    let entries = replica.entries().await?;
    let gone = !entries.iter().any(|(k, _)| k == "gone");
    cx.check("tombstone", gone, "no record", format!("{entries:?}"));
    let value = |key: &str| {
        let entry = entries.iter().find(|(k, _)| k == key);
        entry.map(|(_, v)| v.clone())
    };
    cx.equal("hash", Some(want), value("puts"));
    cx.equal("replica", Some("greater id".to_owned()), value("by"));
    Ok(())
}

async fn beaten_on_the_way(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(3)).await;
    cx.set_clock(now() - 3_600_000).await?;
    let replica = cx.open("a").await?;
    replica.watch().await?;
    replica.await_idle().await?;
    cx.server(|p| p.script(|s| s.next("Push", Action::Delay(Duration::from_secs(4)))))
        .await;
    replica.put("k", "mine, an hour ago").await?;
    until(&cx, |seen| seen.iter().any(|s| s.method == "Push")).await?;
    cx.server_writes(&[Record::put("k", now() << 16, 77, "theirs, now")])
        .await;
    let deadline = std::time::Instant::now() + Duration::from_millis(2_500);
    let (mut pending, mut shown) = (usize::MAX, String::new());
    while std::time::Instant::now() < deadline && (pending, shown.as_str()) != (0, "theirs, now") {
        let contents = replica.contents().await?;
        pending = contents.pending.len();
        let entry = contents.entries.iter().find(|e| e.key == b"k");
        shown = entry.map_or(String::new(), |e| e.value.escape_ascii().to_string());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cx.equal("removed", 0, pending);
    cx.equal("shown", "theirs, now".to_owned(), shown);
    Ok(())
}

async fn rejected(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    // within the limits that the client knows, not within those to come
    replica.put("k", vec![b'v'; 200_000]).await?;
    for key in ["l", "m"] {
        replica.put(key, "v").await?;
    }
    cx.server(|p| {
        p.service
            .with_settings(|s| s.limits.max_value_bytes = 64 << 10)
    })
    .await;
    sync_patiently(&replica, &cx).await?;
    let told = |contents: &crate::schema::driver::StoreContents| -> Vec<(Vec<u8>, String)> {
        contents
            .pending
            .iter()
            .map(|p| (p.key.clone(), p.rejected.clone()))
            .collect()
    };
    let want = vec![(b"k".to_vec(), "LIMIT_EXCEEDED".to_owned())];
    let contents = replica.contents().await?;
    cx.equal("told", want.clone(), told(&contents));
    let there = cx.server_records().await;
    let others = ["l", "m"]
        .iter()
        .all(|k| there.iter().any(|r| r.key == k.as_bytes()));
    cx.check("others", others, "l and m at the server", "not both");
    sync_patiently(&replica, &cx).await?;
    cx.equal("not-again", want, told(&replica.contents().await?));
    replica.put("n", "v").await?;
    let _ = replica.try_sync(Duration::from_secs(3)).await?;
    let there = cx.server_records().await;
    let later = there.iter().any(|r| r.key == b"n");
    cx.check("others", later, "n at the server", "it is missing");
    Ok(())
}

async fn retried(cx: Cx) -> Result<(), Stop> {
    let limit = |bytes: u64| {
        cx.server(move |p| {
            p.service
                .with_settings(|s| s.limits.max_value_bytes = bytes)
        })
    };
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    replica.put("k", vec![b'v'; 200_000]).await?;
    limit(64 << 10).await;
    sync_patiently(&replica, &cx).await?;
    limit(1 << 20).await;
    sync_patiently(&replica, &cx).await?;
    let rejected = replica.contents().await?.pending;
    let rejected = rejected.iter().filter(|p| !p.rejected.is_empty()).count();
    let there = cx.server_records().await.len();
    cx.equal("not-by-itself", (1, 0), (rejected, there));
    replica.retry("k").await?;
    sync_patiently(&replica, &cx).await?;
    let pending = replica.contents().await?.pending.len();
    cx.equal("sent", 0, pending);
    same_as_server(&cx, "sent", &replica).await?;
    cx.equal("sent", 1, cx.server_records().await.len());
    Ok(())
}

async fn discarded(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&[Record::put("k", time(1), 77, "theirs")])
        .await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    replica.put("k", "mine").await?;
    let pending = replica.contents().await?.pending.len();
    cx.equal("pending", 1, pending);
    replica.discard("k").await?;
    let contents = replica.contents().await?;
    let shown: Vec<Vec<u8>> = contents.entries.iter().map(|e| e.value.clone()).collect();
    cx.equal(
        "gone",
        (0, vec![b"theirs".to_vec()]),
        (contents.pending.len(), shown),
    );
    sync_patiently(&replica, &cx).await?;
    let sent = pushed(&cx.seen().await).len();
    cx.equal("gone", 0, sent);
    Ok(())
}

async fn old_and_behind(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(10)).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    // the same day as the records, long ago
    cx.set_clock(time(500) >> 16).await?;
    replica.put("k001", "written long ago").await?;
    replica.delete("k002").await?;
    cx.server_writes(&[
        Record::tombstone("k001", time(60_000), 77),
        Record::tombstone("k002", time(60_000), 77),
    ])
    .await;
    cx.server_writes(&[Record::put("later", time(200_000), 77, "v")])
        .await;
    let space = cx.space().to_owned();
    cx.server(|p| p.service.with_space(&space, |s| s.compact(time(100_000))))
        .await;
    let horizon = cx
        .server(|p| p.service.with_space(&space, |s| s.horizon))
        .await;
    cx.set_clock(0).await?;
    for _ in 0..3 {
        sync_patiently(&replica, &cx).await?;
    }
    let sent = pushed(&cx.seen().await);
    let last = sent
        .iter()
        .rev()
        .find(|(_, r)| r.key == b"k001")
        .map(|(_, r)| r.time);
    cx.equal("at-horizon", Some(horizon), last);
    let there = cx.server_records().await;
    let gone = !there.iter().any(|r| r.key == b"k002");
    cx.check(
        "deletes-nothing",
        gone,
        "no tombstone of k002 at the server",
        "one",
    );
    let arrived = there
        .iter()
        .any(|r| r.key == b"k001" && r.value == b"written long ago");
    cx.check("arrives", arrived, "the put at the server", "it is missing");
    Ok(())
}
