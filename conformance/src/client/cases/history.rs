//! A server that lost its store, went back in time, or compacted.

use super::tools::{server_loses, settled};
use super::{others, same_as_server, sync_patiently, time};
use crate::client::Cx;
use crate::client::context::pushed;
use crate::oracle::Record;
use crate::peer::{Action, Refusal, Script};
use crate::suite::{Case, Need, Profile, Stop, positive};
use std::time::Duration;

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "history/wiped",
        profile: Profile::Core,
        needs: &[],
        about: "The server comes back with an empty store of a new lineage.",
        checks: &[
            positive("kept", &["HIST-035"], "no record is lost here"),
            positive(
                "offered",
                &["HIST-037"],
                "the server holds everything again",
            ),
            positive(
                "same-versions",
                &["HIST-037", "CLIENT-025"],
                "with the versions that the records had",
            ),
            positive(
                "unsent-too",
                &["CLIENT-003"],
                "unsent writes arrive as well",
            ),
        ],
        run: |cx| Box::pin(wiped(cx)),
    },
    Case {
        name: "history/restored",
        profile: Profile::Core,
        needs: &[],
        about: "The server goes back to a backup that lacks the newest records.",
        checks: &[
            positive(
                "kept",
                &["HIST-020", "HIST-035"],
                "what the backup lacks is still here",
            ),
            positive("offered", &["HIST-037"], "and is at the server again"),
        ],
        run: |cx| Box::pin(restored(cx)),
    },
    Case {
        name: "history/replaced",
        profile: Profile::Core,
        needs: &[],
        about: "The server lost commits without a restore: the same epoch, a shorter history.",
        checks: &[
            positive("kept", &["HIST-014", "HIST-035"], "no record is lost here"),
            positive(
                "offered",
                &["HIST-037"],
                "the server holds everything again",
            ),
        ],
        run: |cx| Box::pin(replaced(cx)),
    },
    Case {
        name: "history/compacted",
        profile: Profile::Heal,
        needs: &[],
        about: "While the client is away, records are deleted and their tombstones compacted.",
        checks: &[
            positive(
                "deleted",
                &["HIST-020", "HIST-034", "HIST-036"],
                "the deleted records are dropped here, and not offered",
            ),
            positive("others-stay", &["HIST-035"], "the others stay"),
            positive(
                "old-write",
                &["CLIENT-022"],
                "an unsent write of the same key, above the horizon, arrives",
            ),
        ],
        run: |cx| Box::pin(compacted(cx)),
    },
    Case {
        name: "history/lost-and-then-compacted",
        profile: Profile::Heal,
        needs: &[Need::Reconcile],
        about: "The server lost a record, which waits to be offered; before it is, the client falls behind a compaction.",
        checks: &[positive(
            "still-lost",
            &["HIST-034", "HIST-035"],
            "the record is offered in the end: what was lost is not taken as deleted later",
        )],
        run: |cx| Box::pin(lost_and_then_compacted(cx)),
    },
    Case {
        name: "history/damaged-here",
        profile: Profile::Heal,
        needs: &[Need::Damage],
        about: "A stored value of the client is damaged behind its back, and the client comes back.",
        checks: &[
            positive(
                "healed",
                &["MODEL-023", "WATCH-024"],
                "the record is as the server holds it",
            ),
            positive(
                "not-offered",
                &["MODEL-022"],
                "the damaged bytes are never sent",
            ),
        ],
        run: |cx| Box::pin(damaged_here(cx)),
    },
];

async fn lost_and_then_compacted(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 30).await?;
    server_loses(&cx, &["k007"]).await;
    let later = Refusal::new("UNAVAILABLE", "later");
    cx.server(|p| p.script(|s| s.always("Push", Action::Refuse(later))))
        .await;
    for _ in 0..3 {
        let _ = replica.try_sync(Duration::from_millis(700)).await?;
    }
    let seen = cx.seen().await;
    if !pushed(&seen).iter().any(|(_, r)| r.key == b"k007") {
        return Err(Stop::Peer("it does not offer what was lost".into()));
    }
    let deleted = Record::tombstone("gone", time(5_000), 77);
    cx.server_writes(&[deleted, Record::put("later", time(9_000), 77, "v")])
        .await;
    let space = cx.space().to_owned();
    cx.server(|p| {
        p.script(Script::clear);
        p.service.with_space(&space, |s| s.compact(time(6_000)));
    })
    .await;
    for _ in 0..3 {
        sync_patiently(&replica, &cx).await?;
    }
    cx.equal("still-lost", 31, cx.server_records().await.len());
    same_as_server(&cx, "still-lost", &replica).await
}

async fn wiped(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(30)).await;
    let replica = cx.open("a").await?;
    replica.put("mine", "v").await?;
    sync_patiently(&replica, &cx).await?;
    let before = cx.server_records().await;
    cx.server_down().await;
    replica
        .put("unsent", "written while the server was gone")
        .await?;
    cx.server(|p| p.service.wipe()).await;
    cx.server_up().await?;
    sync_patiently(&replica, &cx).await?;
    // offers may follow the session that found them missing
    sync_patiently(&replica, &cx).await?;
    cx.equal("kept", 32, replica.entries().await?.len());
    same_as_server(&cx, "offered", &replica).await?;
    let after = cx.server_records().await;
    let same = before.iter().filter(|r| after.contains(r)).count();
    cx.equal("same-versions", before.len(), same);
    cx.check(
        "unsent-too",
        after.iter().any(|r| r.key == b"unsent"),
        "the unsent write at the server",
        "it is missing",
    );
    Ok(())
}

async fn restored(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(10)).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    let space = cx.space().to_owned();
    let backup = cx
        .server(|p| p.service.with_space(&space, |s| s.clone()))
        .await;
    cx.server_writes(&[
        Record::put("late", time(5_000), 77, "in no backup"),
        Record::put("k001", time(5_000), 77, "changed after the backup"),
    ])
    .await;
    sync_patiently(&replica, &cx).await?;
    cx.server(|p| {
        let epoch = p.service.random();
        p.service.with_space(&space, |s| {
            *s = backup;
            s.restored(epoch);
        });
    })
    .await;
    sync_patiently(&replica, &cx).await?;
    sync_patiently(&replica, &cx).await?;
    let entries = replica.entries().await?;
    let has = |k: &str, v: &str| entries.contains(&(k.to_owned(), v.to_owned()));
    cx.check(
        "kept",
        has("late", "in no backup") && has("k001", "changed after the backup"),
        "both newer records",
        format!("{entries:?}"),
    );
    same_as_server(&cx, "offered", &replica).await
}

async fn replaced(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(10)).await;
    let space = cx.space().to_owned();
    let old = cx
        .server(|p| p.service.with_space(&space, |s| s.clone()))
        .await;
    cx.server_writes(&[Record::put("late", time(5_000), 77, "v")])
        .await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    cx.server(|p| p.service.with_space(&space, |s| *s = old))
        .await;
    sync_patiently(&replica, &cx).await?;
    sync_patiently(&replica, &cx).await?;
    cx.equal("kept", 11, replica.entries().await?.len());
    same_as_server(&cx, "offered", &replica).await
}

async fn compacted(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(10)).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    replica.put("k002", "written while away").await?;
    cx.server_writes(&[
        Record::tombstone("k001", time(1_000), 77),
        Record::tombstone("k002", time(1_000), 77),
    ])
    .await;
    cx.server_writes(&[Record::put("later", time(9_000), 77, "v")])
        .await;
    let space = cx.space().to_owned();
    cx.server(|p| p.service.with_space(&space, |s| s.compact(time(5_000))))
        .await;
    sync_patiently(&replica, &cx).await?;
    sync_patiently(&replica, &cx).await?;
    let keys: Vec<String> = replica
        .entries()
        .await?
        .into_iter()
        .map(|(k, _)| k)
        .collect();
    let offered = pushed(&cx.seen().await)
        .iter()
        .any(|(_, r)| r.key == b"k001");
    cx.check(
        "deleted",
        !keys.contains(&"k001".to_owned()) && !offered,
        "k001 neither here nor offered",
        format!("{keys:?}, offered: {offered}"),
    );
    cx.equal("others-stay", 10, keys.len());
    let arrived = cx
        .server_records()
        .await
        .iter()
        .any(|r| r.key == b"k002" && r.value == b"written while away");
    cx.check(
        "old-write",
        arrived,
        "the write at the server",
        "it is missing",
    );
    Ok(())
}

async fn damaged_here(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(10)).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    replica.damage("k004").await?;
    // a client that hashes what it reads finds it now, at the latest
    let _ = replica.entries().await?;
    sync_patiently(&replica, &cx).await?;
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "healed", &replica).await?;
    let odd: Vec<Record> = pushed(&cx.seen().await)
        .into_iter()
        .map(|(_, r)| r)
        .filter(|r| r.key == b"k004" && r.value != b"value 4")
        .collect();
    cx.check(
        "not-offered",
        odd.is_empty(),
        "no such push",
        format!("{odd:?}"),
    );
    Ok(())
}
