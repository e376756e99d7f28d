//! Snapshots that break off, lie, or meet what the replica holds.

use super::streams::keys;
use super::tools::{bend, calls, fill, granted, head, reconciles, settled, until};
use super::{others, same_as_server, sync_patiently, time};
use crate::client::Cx;
use crate::oracle::Record;
use crate::peer::{Action, Script, Seen};
use crate::schema::v1;
use crate::suite::{Case, Need, Profile, Stop, positive};
use prost::Message;
use std::time::Duration;

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
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
            positive("complete", &["SNAP-018", "SNAP-029"], "nothing is missed"),
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
        name: "snapshot/lying-over-held",
        profile: Profile::Heal,
        needs: &[Need::Reconcile, Need::Live],
        about: "The same of a Snapshot that is taken since two sessions did not make the sides equal.",
        checks: &[positive(
            "anew",
            &["SNAP-021", "SNAP-022"],
            "nothing is built on it: the next call is a Hello, or another Snapshot",
        )],
        run: |cx| Box::pin(lying_over_held(cx)),
    },
    Case {
        name: "snapshot/other-terms",
        profile: Profile::Core,
        needs: &[Need::Live],
        about: "Between two streams of a Snapshot the server is restored: another epoch.",
        checks: &[
            positive(
                "anew",
                &["SNAP-016", "SNAP-029"],
                "another stream follows, and the store is right",
            ),
            positive(
                "from-the-start",
                &["SNAP-016"],
                "the one that is completed begins at the start",
            ),
        ],
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
        checks: &[
            positive(
                "aside",
                &["SNAP-034"],
                "who may not write them puts them aside, and pushes nothing",
            ),
            positive(
                "offered",
                &["SNAP-032", "SNAP-018", "MODEL-018"],
                "from another, the newer ones are offered, and stand on both sides",
            ),
        ],
        run: |cx| Box::pin(newer_here(cx)),
    },
    Case {
        name: "snapshot/outside-ranges",
        profile: Profile::Hardened,
        needs: &[Need::Ranges],
        about: "A chunk of a Snapshot ends with a record outside of the range that was asked for.",
        checks: &[
            positive(
                "broken",
                &["SNAP-023", "SNAP-029"],
                "the Snapshot is broken off, and begun again",
            ),
            positive("inside", &["SNAP-018"], "what lies inside is seen"),
            positive("not-stored", &["SNAP-023"], "what lies outside never is"),
        ],
        run: |cx| Box::pin(outside_ranges(cx)),
    },
];

async fn resumed_cursor(cx: Cx) -> Result<(), Stop> {
    fill(&cx).await;
    let first = head(&cx).await;
    cx.server(|p| {
        p.script(|s| {
            s.next("Snapshot", Action::BreakAfter(4));
            s.next("Hello", Action::Pass);
            s.if_called("Hello", Action::Delay(Duration::from_millis(1_200)));
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
    let cursor = watch.and_then(|s| s.held().first()?.cursor);
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

async fn lying_over_held(cx: Cx) -> Result<(), Stop> {
    let replica = settled(&cx, 30).await?;
    super::doubts::lie(&cx).await;
    let before = cx.seen().await.len();
    replica.watch().await?;
    let next = |seen: &[Seen]| {
        let own = &seen[before..];
        let at = own.iter().position(|s| s.method == "Snapshot")?;
        own.get(at + 1).map(|s| s.method.clone())
    };
    until(&cx, |seen| next(seen).is_some()).await?;
    let next = next(&cx.seen().await);
    cx.check(
        "anew",
        matches!(next.as_deref(), Some("Hello" | "Snapshot")),
        "Hello or Snapshot",
        format!("{next:?}"),
    );
    Ok(())
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
    let seen = cx.seen().await;
    let snapshots = calls(&seen, "Snapshot");
    cx.check(
        "anew",
        snapshots.len() >= 2,
        "another stream",
        snapshots.len(),
    );
    // the start of a resumed stream may be what tells of the other epoch
    let complete = |s: &&&Seen| {
        let mut events = s.answers.iter().filter_map(|a| {
            let message = v1::SnapshotResponse::decode(a.as_slice());
            message.ok()?.event
        });
        events.any(|e| matches!(e, v1::snapshot_response::Event::Complete(_)))
    };
    let last = snapshots.iter().rev().find(complete);
    let last = last.and_then(|s| v1::SnapshotRequest::decode(s.message.as_slice()).ok());
    let after = last.and_then(|r| r.after_key).unwrap_or_default();
    cx.check(
        "from-the-start",
        after.is_empty(),
        "no after_key",
        after.escape_ascii(),
    );
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

async fn outside_ranges(cx: Cx) -> Result<(), Stop> {
    let records: Vec<Record> = ["a/1", "a/2", "b/1"]
        .map(|k| Record::put(k, time(1), 77, "v"))
        .into();
    cx.server_writes(&records).await;
    let stranger = records[2].to_wire();
    let strange = bend(move |_, m: &mut v1::SnapshotResponse| {
        if let Some(v1::snapshot_response::Event::Chunk(chunk)) = &mut m.event {
            chunk.records.push(stranger.clone());
        }
    });
    cx.server(|p| p.script(|s| s.next("Snapshot", strange)))
        .await;
    let replica = cx
        .open_with("a", "a", |open| open.key_prefixes = vec![b"a/".to_vec()])
        .await?;
    sync_patiently(&replica, &cx).await?;
    let seen = cx.seen().await;
    // who reads by Watch has nothing to break off
    let snapshots = calls(&seen, "Snapshot").len();
    let all = snapshots + reconciles(&seen).len();
    cx.check(
        "broken",
        snapshots == 0 || all >= 2,
        "another Snapshot, or a Reconcile in its place",
        format!("{all} in all"),
    );
    let keys = keys(&replica).await?;
    let (inside, outside): (Vec<&str>, Vec<&str>) = keys
        .iter()
        .map(String::as_str)
        .partition(|k| k.starts_with("a/"));
    cx.equal("inside", "a/1 a/2".to_owned(), inside.join(" "));
    cx.check(
        "not-stored",
        outside.is_empty(),
        "none",
        format!("{outside:?}"),
    );
    Ok(())
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
    let reader = cx.open("b").await?;
    sync_patiently(&reader, &cx).await?;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    cx.server(|p| p.service.with_space(&space, |s| *s = old))
        .await;
    granted(&cx, v1::Access::Read as i32).await;
    for _ in 0..2 {
        sync_patiently(&reader, &cx).await?;
    }
    let aside = reader.contents().await?.quarantined;
    cx.equal(
        "aside",
        (1, 0),
        (aside, calls(&cx.seen().await, "Push").len()),
    );
    cx.server(|p| p.script(Script::clear)).await;
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
