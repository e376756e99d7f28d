//! Servers that lie, speak another version, or send what is no record.

use super::{others, same_as_server, sync_patiently, time};
use crate::client::{Cx, Outcome};
use crate::oracle::Record;
use crate::peer::{Action, Refusal};
use crate::schema::driver::sync_error::Kind;
use crate::schema::v1;
use crate::suite::{Case, Need, Profile, Stop, negative, positive};
use prost::Message;
use std::sync::Arc;
use std::time::Duration;

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "faults/lying-fingerprint",
        profile: Profile::Heal,
        needs: &[Need::Reconcile, Need::Live],
        about: "Every fingerprint that the server tells is wrong.",
        checks: &[
            positive(
                "verified",
                &["WATCH-023", "WATCH-026"],
                "with an honest server the client says verified",
            ),
            negative(
                "not-verified",
                "verified",
                &[
                    "WATCH-026",
                    "RECON-038",
                    "MERKLE-004",
                    "MERKLE-007",
                    "MERKLE-008",
                ],
                "with a lying one it does not",
            ),
            positive(
                "keeps",
                &["CLIENT-041", "CLIENT-052"],
                "and keeps what it has, and goes on pushing",
            ),
        ],
        run: |cx| Box::pin(lying_fingerprint(cx)),
    },
    Case {
        name: "faults/unsupported-version",
        profile: Profile::Core,
        needs: &[],
        about: "The server speaks no version of the client's.",
        checks: &[
            positive(
                "stops",
                &["ERR-008", "CLIENT-045"],
                "the client stops, and tells the reason",
            ),
            positive("keeps", &["ERR-009"], "unsent writes stay"),
            positive("no-calls", &["HELLO-001"], "no call but Hello is made"),
        ],
        run: |cx| Box::pin(unsupported_version(cx)),
    },
    Case {
        name: "faults/odd-hello",
        profile: Profile::Hardened,
        needs: &[Need::DurableStore],
        about: "Hello chooses a version that was not offered; then it answers a wrong number of statuses.",
        checks: &[
            positive(
                "version",
                &["HELLO-008", "HELLO-032"],
                "it is a failed Hello: nothing else is called",
            ),
            positive("statuses", &["HELLO-021", "HELLO-032"], "so is the second"),
            positive(
                "afterwards",
                &["CLIENT-031", "ERR-009"],
                "with a proper answer the session succeeds, and what waited arrives",
            ),
        ],
        run: |cx| Box::pin(odd_hello(cx)),
    },
    Case {
        name: "faults/bad-records",
        profile: Profile::Hardened,
        needs: &[],
        about: "The server sends a record with an unknown flag, one without a version, one without a key, and a tombstone with a value.",
        checks: &[
            positive("good", &["SNAP-018"], "proper records arrive"),
            positive(
                "refused",
                &["MODEL-004", "MODEL-013", "MODEL-014", "MODEL-015"],
                "the others are not stored, and delete nothing",
            ),
        ],
        run: |cx| Box::pin(bad_records(cx)),
    },
];

/// Turns a bit of every fingerprint of a stream.
fn lying() -> Action {
    fn bend(states: &mut [v1::RangeState]) {
        for state in states {
            if let Some(byte) = state.fingerprint.first_mut() {
                *byte ^= 1;
            }
        }
    }
    Action::Rewrite(Arc::new(|_, message| {
        if let Ok(mut event) = v1::WatchResponse::decode(message.as_slice())
            && let Some(v1::watch_response::Event::Checkpoint(checkpoint)) = &mut event.event
        {
            bend(&mut checkpoint.ranges);
            return vec![event.encode_to_vec()];
        }
        vec![message]
    }))
}

fn lying_snapshot() -> Action {
    Action::Rewrite(Arc::new(|_, message| {
        if let Ok(mut event) = v1::SnapshotResponse::decode(message.as_slice())
            && let Some(v1::snapshot_response::Event::Complete(complete)) = &mut event.event
        {
            for state in &mut complete.ranges {
                if let Some(byte) = state.fingerprint.first_mut() {
                    *byte ^= 1;
                }
            }
            return vec![event.encode_to_vec()];
        }
        vec![message]
    }))
}

fn lying_hello() -> Action {
    Action::Rewrite(Arc::new(|_, message| {
        let mut hello = v1::HelloResponse::decode(message.as_slice()).unwrap_or_default();
        hello.equal.iter_mut().for_each(|e| *e = false);
        vec![hello.encode_to_vec()]
    }))
}

/// Whether the client says "verified" before patience runs out.
async fn verified(replica: &crate::client::Replica, cx: &Cx) -> Result<bool, Stop> {
    let deadline = std::time::Instant::now() + cx.patience();
    while std::time::Instant::now() < deadline {
        if replica.contents().await?.verified {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(false)
}

async fn lying_fingerprint(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(20)).await;
    let honest = cx.open("honest").await?;
    honest.watch().await?;
    honest.await_idle().await?;
    cx.equal("verified", true, verified(&honest, &cx).await?);
    honest.close().await?;
    // its first Snapshot is an honest one: where it has a cursor, it can push
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    cx.server(|p| {
        p.script(|s| {
            s.always("Watch", lying());
            s.always("Snapshot", lying_snapshot());
            s.always("Hello", lying_hello());
        });
    })
    .await;
    replica.watch().await?;
    // what an honest server showed holds up to the next comparison
    let deadline = std::time::Instant::now() + cx.patience();
    while replica.contents().await?.verified && std::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        cx.equal("not-verified", false, replica.contents().await?.verified);
    }
    replica.put("mine", "v").await?;
    let kept = replica.entries().await?.iter().any(|(k, _)| k == "mine");
    cx.check(
        "keeps",
        kept,
        "reads and writes go on",
        "the write is not seen",
    );
    let _ = replica.try_sync(Duration::from_millis(2_500)).await?;
    let there = cx.server_records().await.iter().any(|r| r.key == b"mine");
    cx.check("keeps", there, "the write at the server", "it is missing");
    Ok(())
}

async fn unsupported_version(cx: Cx) -> Result<(), Stop> {
    let refusal = Refusal::new("UNSUPPORTED_VERSION", "this server speaks version 9");
    cx.server(|p| p.script(|s| s.always("Hello", Action::Refuse(refusal))))
        .await;
    let replica = cx.open("a").await?;
    replica.put("k", "v").await?;
    let outcome = replica.try_sync(cx.patience()).await?;
    let stopped = matches!(&outcome, Outcome::SyncError(e) if e.kind() == Kind::Stopped && e.reason == "UNSUPPORTED_VERSION");
    cx.check(
        "stops",
        stopped,
        "stopped with UNSUPPORTED_VERSION",
        format!("{outcome:?}"),
    );
    let contents = replica.contents().await?;
    cx.equal(
        "keeps",
        (1, 1),
        (contents.entries.len(), contents.pending.len()),
    );
    let others = cx
        .seen()
        .await
        .iter()
        .filter(|s| s.method != "Hello")
        .count();
    cx.equal("no-calls", 0, others);
    Ok(())
}

async fn odd_hello(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(3)).await;
    let replica = cx.open("a").await?;
    replica.put("mine", "v").await?;
    let bend = |change: fn(&mut v1::HelloResponse)| {
        Action::Rewrite(Arc::new(move |_, message| {
            let mut hello = v1::HelloResponse::decode(message.as_slice()).unwrap_or_default();
            change(&mut hello);
            vec![hello.encode_to_vec()]
        }))
    };
    for (check, action) in [
        ("version", bend(|h| h.version = 7)),
        (
            "statuses",
            bend(|h| h.held.push(v1::HistoryStatus::default())),
        ),
    ] {
        cx.server(|p| p.script(|s| s.always("Hello", action))).await;
        let _ = replica.try_sync(Duration::from_millis(1_500)).await?;
        let others = cx
            .seen()
            .await
            .iter()
            .filter(|s| s.method != "Hello")
            .count();
        cx.equal(check, 0, others);
    }
    cx.server(|p| p.script(crate::peer::Script::clear)).await;
    // a client may have stopped for good; its user opens it again
    replica.close().await?;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    let there = cx.server_records().await.iter().any(|r| r.key == b"mine");
    cx.check("afterwards", there, "the write at the server", "none");
    same_as_server(&cx, "afterwards", &replica).await
}

async fn bad_records(cx: Cx) -> Result<(), Stop> {
    cx.server_writes(&others(3)).await;
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    cx.equal("good", 3, replica.entries().await?.len());
    cx.server_writes(&[Record::put("z", time(5_000), 77, "v")])
        .await;
    // in its proper form, nothing brings it
    let later = || Action::Refuse(Refusal::new("UNAVAILABLE", "later"));
    cx.server(|p| {
        p.script(|s| {
            s.always("Reconcile", later());
            s.always("Snapshot", later());
        });
    })
    .await;
    for change in [
        (|r| r.flags = 6) as fn(&mut v1::Record),
        |r| r.version = None,
        |r| r.key = Vec::new(),
        |r| (r.key, r.flags) = (b"k000".to_vec(), 1),
    ] {
        let action = Action::Rewrite(Arc::new(move |_, message: Vec<u8>| {
            if let Ok(mut event) = v1::WatchResponse::decode(message.as_slice())
                && let Some(v1::watch_response::Event::Changes(changes)) = &mut event.event
            {
                changes.records.iter_mut().for_each(change);
                return vec![event.encode_to_vec()];
            }
            vec![message]
        }));
        cx.server(|p| p.script(|s| s.always("Watch", action))).await;
        let _ = replica.try_sync(Duration::from_secs(2)).await?;
        let keys: Vec<String> = replica
            .entries()
            .await?
            .into_iter()
            .map(|(k, _)| k)
            .collect();
        cx.equal("refused", "k000 k001 k002".to_owned(), keys.join(" "));
    }
    Ok(())
}
