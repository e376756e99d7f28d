//! Whole sessions: what is there is brought here, and what is here there.

use super::{others, same_as_server, sync_patiently, time};
use crate::client::Cx;
use crate::client::context::pushed;
use crate::oracle::Record;
use crate::peer::{Action, Refusal};
use crate::schema::v1;
use crate::suite::{Case, Need, Profile, Stop, positive};
use prost::Message;

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "sync/first",
        profile: Profile::Core,
        needs: &[],
        about: "A new store and a server with some hundred records and tombstones.",
        checks: &[
            positive("hello-first", &["HELLO-001"], "the first call is Hello"),
            positive("offers-1", &["HELLO-002"], "it offers version 1"),
            positive(
                "all",
                &["SNAP-018", "WATCH-009"],
                "afterwards the store holds what the server holds",
            ),
            positive("nothing-pushed", &["PUSH-032"], "nothing is pushed"),
        ],
        run: |cx| Box::pin(first(cx)),
    },
    Case {
        name: "sync/empty",
        profile: Profile::Core,
        needs: &[],
        about: "A new store and an empty space.",
        checks: &[
            positive("asked", &["HELLO-001"], "the server is asked"),
            positive(
                "done",
                &["MODEL-002"],
                "the session succeeds, and shows nothing",
            ),
        ],
        run: |cx| Box::pin(empty(cx)),
    },
    Case {
        name: "sync/offline-edits",
        profile: Profile::Core,
        needs: &[],
        about: "Writes while the server is down, over records that came from it.",
        checks: &[
            positive(
                "written",
                &["CLIENT-007"],
                "each write completes without the server",
            ),
            positive("visible", &["CLIENT-008"], "and is seen at once"),
            positive("pending", &["CLIENT-010"], "and is told as pending"),
            positive(
                "pushed",
                &["PUSH-027"],
                "with the server back, both hold the same",
            ),
            positive(
                "versions-rise",
                &["CLOCK-002"],
                "each write has a version above what it replaces",
            ),
        ],
        run: |cx| Box::pin(offline_edits(cx)),
    },
    Case {
        name: "sync/crash-after-write",
        profile: Profile::Core,
        needs: &[Need::DurableStore],
        about: "The process is killed right after a write, before any session.",
        checks: &[
            positive(
                "there",
                &["CLIENT-008"],
                "the write is there when the store is opened again",
            ),
            positive("pushed", &["PUSH-027"], "and reaches the server"),
            positive(
                "own-id",
                &["CLOCK-001"],
                "each opening writes under a replica id of its own",
            ),
        ],
        run: |cx| Box::pin(crash_after_write(cx)),
    },
    Case {
        name: "sync/crash-before-verdict",
        profile: Profile::Core,
        needs: &[Need::DurableStore],
        about: "The server takes a Push and the process is killed before the answer; another replica overwrites the record meanwhile.",
        checks: &[
            positive(
                "same-version",
                &["PUSH-031", "CLIENT-012"],
                "the write is sent again with its version",
            ),
            positive(
                "not-overwritten",
                &["MODEL-018"],
                "the other replica's newer record stays, and is seen",
            ),
        ],
        run: |cx| Box::pin(crash_before_verdict(cx)),
    },
    Case {
        name: "sync/conflict",
        profile: Profile::Core,
        needs: &[],
        about: "Two replicas of the client and a third writer change the same keys.",
        checks: &[
            positive(
                "converge",
                &["MODEL-018"],
                "both replicas and the server end with the same",
            ),
            positive(
                "greater-wins",
                &["MODEL-017"],
                "the greater version is the one that stays",
            ),
        ],
        run: |cx| Box::pin(conflict(cx)),
    },
    Case {
        name: "sync/superseded",
        profile: Profile::Core,
        needs: &[],
        about: "The server holds a newer record than the one that is pushed.",
        checks: &[
            positive("winner-seen", &["PUSH-027"], "the winner is seen"),
            positive(
                "not-pending",
                &["PUSH-027"],
                "the write is not pending any more",
            ),
        ],
        run: |cx| Box::pin(superseded(cx)),
    },
    Case {
        name: "sync/tombstones",
        profile: Profile::Core,
        needs: &[],
        about: "A delete here, a delete there, and a delete of what never was.",
        checks: &[
            positive(
                "there",
                &["WATCH-012", "MODEL-018"],
                "the server holds tombstones for what was deleted here",
            ),
            positive(
                "here",
                &["SNAP-018"],
                "what was deleted there is not seen here any more",
            ),
            positive(
                "version",
                &["CLOCK-002"],
                "the tombstone's version is above that of the record",
            ),
        ],
        run: |cx| Box::pin(tombstones(cx)),
    },
    Case {
        name: "sync/one-key-often",
        profile: Profile::Core,
        needs: &[],
        about: "One key is written again and again before a session, and between sessions.",
        checks: &[
            positive("last", &["PUSH-005"], "the last value is at the server"),
            positive(
                "in-order",
                &["PUSH-005", "CLOCK-002"],
                "versions of the key were sent in rising order",
            ),
        ],
        run: |cx| Box::pin(one_key_often(cx)),
    },
    Case {
        name: "sync/rejected-blocks-nothing",
        profile: Profile::Core,
        needs: &[],
        about: "A value was within the limits when it was written, and the server has lowered them since.",
        checks: &[
            positive(
                "others-go-on",
                &["CLIENT-016"],
                "the other writes reach the server",
            ),
            positive(
                "kept",
                &["LIMIT-009", "ERR-009"],
                "the write is kept, seen and told as rejected",
            ),
        ],
        run: |cx| Box::pin(rejected_blocks_nothing(cx)),
    },
    Case {
        name: "sync/too-large",
        profile: Profile::Hardened,
        needs: &[],
        about: "A value over the limit that the server advertised.",
        checks: &[
            positive(
                "largest",
                &["LIMIT-002"],
                "a value at the limit is written and pushed",
            ),
            positive(
                "refused",
                &["LIMIT-008"],
                "one over it is refused to the application, or kept as rejected, and never sent",
            ),
        ],
        run: |cx| Box::pin(too_large(cx)),
    },
    Case {
        name: "sync/retired",
        profile: Profile::Core,
        needs: &[],
        about: "The space was deleted for good.",
        checks: &[
            positive(
                "stops",
                &["ERR-008", "CLIENT-045"],
                "the session ends for good, with the reason SPACE_RETIRED",
            ),
            positive("keeps", &["ERR-009"], "data and unsent writes stay"),
        ],
        run: |cx| Box::pin(retired(cx)),
    },
    Case {
        name: "sync/ranges",
        profile: Profile::Core,
        needs: &[Need::Ranges],
        about: "A store that holds the keys of one prefix only.",
        checks: &[
            positive("only-prefix", &["WATCH-015"], "only these keys are seen"),
            positive(
                "asks-only-prefix",
                &["HIST-007"],
                "no request names a key range beyond the prefix",
            ),
        ],
        run: |cx| Box::pin(ranges(cx)),
    },
];

async fn first(cx: Cx) -> Result<(), Stop> {
    let mut records = others(300);
    records.push(Record::tombstone("k000", time(9_000), 77));
    records.push(Record::tombstone("never", time(9_000), 77));
    for batch in records.chunks(50) {
        cx.server_writes(batch).await;
    }
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "all", &replica).await?;
    let seen = cx.seen().await;
    cx.equal(
        "hello-first",
        Some("Hello"),
        seen.first().map(|s| s.method.as_str()),
    );
    let versions = seen
        .first()
        .and_then(|s| v1::HelloRequest::decode(s.message.as_slice()).ok())
        .map(|h| h.versions)
        .unwrap_or_default();
    cx.check(
        "offers-1",
        versions.contains(&1),
        "versions with 1",
        format!("{versions:?}"),
    );
    cx.equal("nothing-pushed", 0, pushed(&seen).len());
    Ok(())
}

async fn empty(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    cx.equal("done", 0, replica.entries().await?.len());
    let first = cx.seen().await.first().map(|s| s.method.clone());
    cx.equal("asked", Some("Hello".to_owned()), first);
    Ok(())
}

async fn offline_edits(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(5)).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    cx.server_down().await;
    replica.put("k001", "edited offline").await?;
    replica.put("new", "written offline").await?;
    replica.delete("k002").await?;
    cx.check("written", true, "three writes", "three writes");
    let entries = replica.entries().await?;
    let has = |k: &str, v: &str| entries.contains(&(k.to_owned(), v.to_owned()));
    let visible = has("k001", "edited offline")
        && has("new", "written offline")
        && entries.iter().all(|(k, _)| k != "k002");
    cx.check(
        "visible",
        visible,
        "the three writes",
        format!("{entries:?}"),
    );
    cx.equal("pending", 3, replica.contents().await?.pending.len());
    cx.server_up().await?;
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "pushed", &replica).await?;
    let server = cx.server_records().await;
    let above = |key: &str, than: u64| {
        server
            .iter()
            .find(|r| r.key == key.as_bytes())
            .is_some_and(|r| r.replica != 77 && r.time > than)
    };
    cx.check(
        "versions-rise",
        above("k001", time(1)) && above("k002", time(2)),
        "versions above the replaced ones",
        "a version that is not",
    );
    Ok(())
}

async fn crash_after_write(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    replica.put("k", "before the crash").await?;
    cx.crash().await?;
    let replica = cx.open("a").await?;
    cx.equal(
        "there",
        vec![("k".to_owned(), "before the crash".to_owned())],
        replica.entries().await?,
    );
    replica.put("l", "after the crash").await?;
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "pushed", &replica).await?;
    let writers: Vec<u64> = cx
        .server_records()
        .await
        .iter()
        .map(|r| r.replica)
        .collect();
    cx.check(
        "own-id",
        writers.len() == 2 && writers[0] != writers[1],
        "two replica ids",
        format!("{writers:x?}"),
    );
    Ok(())
}

async fn crash_before_verdict(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    replica.put("k", "mine").await?;
    // the server does what is asked, and the answer never arrives
    cx.server(|p| p.script(|s| s.always("Push", Action::CommitThenReset)))
        .await;
    let _ = replica.try_sync(std::time::Duration::from_secs(2)).await?;
    cx.crash().await?;
    cx.server(|p| p.script(crate::peer::Script::clear)).await;
    let mine = pushed(&cx.seen().await)
        .first()
        .map(|(_, r)| r.clone())
        .ok_or_else(|| Stop::Peer("the write was never sent".into()))?;
    let newer = Record::put("k", mine.time.saturating_add(1), 77, "theirs");
    cx.server_writes(std::slice::from_ref(&newer)).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    let versions: Vec<(u64, u64)> = pushed(&cx.seen().await)
        .iter()
        .map(|(_, r)| (r.time, r.replica))
        .collect();
    cx.check(
        "same-version",
        versions.iter().all(|v| *v == (mine.time, mine.replica)),
        format!("only version ({}, {:x})", mine.time, mine.replica),
        format!("{versions:x?}"),
    );
    cx.equal(
        "not-overwritten",
        vec![("k".to_owned(), "theirs".to_owned())],
        replica.entries().await?,
    );
    Ok(())
}

async fn conflict(cx: Cx) -> Result<(), Stop> {
    let (a, b) = (cx.open("a").await?, cx.open("b").await?);
    for (replica, name) in [(&a, "a"), (&b, "b")] {
        for i in 0..10 {
            replica.put(format!("k{i}"), format!("{name}{i}")).await?;
        }
    }
    b.put("k3", "b again").await?;
    a.put("k4", "a again").await?;
    b.delete("k5").await?;
    cx.server_writes(&[Record::put("k6", time(1), 77, "old")])
        .await;
    for replica in [&a, &b, &a, &b] {
        sync_patiently(replica, &cx).await?;
    }
    same_as_server(&cx, "converge", &a).await?;
    same_as_server(&cx, "converge", &b).await?;
    let sent: Vec<Record> = pushed(&cx.seen().await)
        .into_iter()
        .map(|(_, r)| r)
        .collect();
    let want = crate::client::context::visible_entries(&sent);
    cx.equal("greater-wins", want, a.entries().await?);
    Ok(())
}

async fn superseded(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    replica.put("k", "loses").await?;
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64);
    // within the allowed skew, and newer than what was just written
    cx.server_writes(&[Record::put("k", (now + 60_000) << 16, 77, "wins")])
        .await;
    sync_patiently(&replica, &cx).await?;
    cx.equal(
        "winner-seen",
        vec![("k".to_owned(), "wins".to_owned())],
        replica.entries().await?,
    );
    cx.equal("not-pending", 0, replica.contents().await?.pending.len());
    Ok(())
}

async fn tombstones(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(4)).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    replica.delete("k000").await?;
    replica.delete("never").await?;
    cx.server_writes(&[Record::tombstone("k001", time(9_000), 77)])
        .await;
    sync_patiently(&replica, &cx).await?;
    let server = cx.server_records().await;
    let dead = |key: &str| {
        server
            .iter()
            .find(|r| r.key == key.as_bytes())
            .is_some_and(Record::is_tombstone)
    };
    cx.check("there", dead("k000"), "a tombstone under k000", "none");
    let above = server.iter().any(|r| r.key == b"k000" && r.time > time(0));
    cx.check(
        "version",
        above,
        "a version above the record's",
        "one that is not",
    );
    let keys: Vec<String> = replica
        .entries()
        .await?
        .into_iter()
        .map(|(k, _)| k)
        .collect();
    cx.equal("here", vec!["k002".to_owned(), "k003".into()], keys);
    Ok(())
}

async fn one_key_often(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    for i in 0..10 {
        replica.put("k", format!("value {i}")).await?;
    }
    sync_patiently(&replica, &cx).await?;
    for i in 10..13 {
        replica.put("k", format!("value {i}")).await?;
        sync_patiently(&replica, &cx).await?;
    }
    let server = cx.server_records().await;
    let value = server.first().map(|r| r.value.escape_ascii().to_string());
    cx.equal("last", Some("value 12".to_owned()), value);
    let versions: Vec<(u64, u64)> = pushed(&cx.seen().await)
        .iter()
        .map(|(_, r)| (r.time, r.replica))
        .collect();
    cx.check(
        "in-order",
        versions.is_sorted(),
        "rising versions",
        format!("{versions:?}"),
    );
    Ok(())
}

async fn rejected_blocks_nothing(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    replica.put("before", "small").await?;
    replica.put("big", vec![b'x'; 100_000]).await?;
    replica.put("after", "small").await?;
    cx.server(|p| {
        p.service
            .with_settings(|s| s.limits.max_value_bytes = 64 << 10)
    })
    .await;
    sync_patiently(&replica, &cx).await?;
    let keys: Vec<String> = cx
        .server_records()
        .await
        .iter()
        .map(|r| r.key.escape_ascii().to_string())
        .collect();
    cx.equal(
        "others-go-on",
        vec!["after".to_owned(), "before".into()],
        keys,
    );
    let contents = replica.contents().await?;
    let seen = contents.entries.iter().any(|e| e.key == b"big");
    let rejected: Vec<&str> = contents
        .pending
        .iter()
        .filter(|p| p.key == b"big")
        .map(|p| p.rejected.as_str())
        .collect();
    cx.check(
        "kept",
        seen && rejected == ["LIMIT_EXCEEDED"],
        "seen, and rejected with LIMIT_EXCEEDED",
        format!("seen: {seen}, {rejected:?}"),
    );
    Ok(())
}

async fn too_large(cx: Cx) -> Result<(), Stop> {
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    let most = cx
        .server(|p| p.service.with_settings(|s| s.limits.max_value_bytes))
        .await as usize;
    replica.put("largest", vec![b'x'; most]).await?;
    sync_patiently(&replica, &cx).await?;
    let sizes = |records: Vec<Record>| records.iter().map(|r| r.value.len()).collect::<Vec<_>>();
    cx.equal("largest", vec![most], sizes(cx.server_records().await));
    // a refusal by the client is the right answer, and so is keeping it
    let refused = replica.put("larger", vec![b'x'; most + 1]).await.is_err();
    if !refused {
        sync_patiently(&replica, &cx).await?;
    }
    let sent = pushed(&cx.seen().await)
        .iter()
        .any(|(_, r)| r.value.len() > most);
    let rejected = replica
        .contents()
        .await?
        .pending
        .iter()
        .any(|p| !p.rejected.is_empty());
    cx.check(
        "refused",
        !sent && (refused || rejected),
        "refused or rejected, and never sent",
        format!("refused: {refused}, rejected: {rejected}, sent: {sent}"),
    );
    Ok(())
}

async fn retired(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(3)).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    replica.put("k", "unsent").await?;
    let refusal = || Action::Refuse(Refusal::new("SPACE_RETIRED", "deleted for good"));
    cx.server(|p| {
        p.script(|s| {
            for method in ["Hello", "Push", "Watch", "Snapshot", "Reconcile"] {
                s.always(method, refusal());
            }
        });
    })
    .await;
    let outcome = replica.try_sync(cx.patience()).await?;
    use crate::schema::driver::sync_error::Kind;
    let stopped = matches!(&outcome, crate::client::Outcome::SyncError(e) if e.kind() == Kind::Stopped && e.reason == "SPACE_RETIRED");
    cx.check(
        "stops",
        stopped,
        "stopped with SPACE_RETIRED",
        format!("{outcome:?}"),
    );
    let contents = replica.contents().await?;
    cx.equal(
        "keeps",
        (4, 1),
        (contents.entries.len(), contents.pending.len()),
    );
    Ok(())
}

async fn ranges(cx: Cx) -> Result<(), Stop> {
    let records: Vec<Record> = ["a/1", "a/2", "b/1", "a", "a0"]
        .iter()
        .map(|k| Record::put(k, time(1), 77, "v"))
        .collect();
    cx.server_writes(&records).await;
    let replica = cx
        .open_with("a", "a", |open| open.key_prefixes = vec![b"a/".to_vec()])
        .await?;
    sync_patiently(&replica, &cx).await?;
    let keys: Vec<String> = replica
        .entries()
        .await?
        .into_iter()
        .map(|(k, _)| k)
        .collect();
    cx.equal("only-prefix", vec!["a/1".to_owned(), "a/2".into()], keys);
    let outside: Vec<v1::Range> = cx
        .seen()
        .await
        .iter()
        .flat_map(|s| s.held())
        .flat_map(|h| h.ranges)
        .filter(|r| {
            !(r.start.starts_with(b"a/")
                && r.end
                    .as_ref()
                    .is_some_and(|e| e.as_slice() <= b"a0".as_slice()))
        })
        .collect();
    cx.check(
        "asks-only-prefix",
        outside.is_empty(),
        "ranges within a/",
        format!("{outside:?}"),
    );
    Ok(())
}
