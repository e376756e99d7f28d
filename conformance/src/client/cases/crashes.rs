//! A client that dies while it applies an answer: afterwards all of that is in
//! its store, or nothing. Nobody outside can choose the moment between two
//! transactions, so it is killed at several; whoever stores one piece after the
//! other is caught by one of them.

use super::standing::compact;
use super::tools::{calls, fill, until};
use super::{same_as_server, sync_patiently, time};
use crate::client::{Cx, Replica};
use crate::oracle::Record;
use crate::peer::{Action, Refusal, Script, Seen};
use crate::schema::v1;
use crate::suite::{Case, Need, Profile, Stop, positive};
use prost::Message;
use std::collections::BTreeSet;
use std::time::Duration;

/// The cases of this area.
pub const CASES: &[Case<Cx>] = &[
    Case {
        name: "crash/verdicts",
        profile: Profile::Core,
        needs: &[Need::DurableStore],
        about: "The client is killed soon after a Push was answered, several times.",
        checks: &[
            positive(
                "whole",
                &["PUSH-028"],
                "of the writes of a Push all are pending, or none",
            ),
            positive(
                "shown",
                &["PUSH-028"],
                "and all are seen, one way or other; in the end all are at the server",
            ),
        ],
        run: |cx| Box::pin(verdicts(cx)),
    },
    Case {
        name: "crash/reconciled",
        profile: Profile::Heal,
        needs: &[Need::DurableStore, Need::Reconcile],
        about: "The client is killed soon after it learnt by Reconcile that many records were deleted and compacted, several times.",
        checks: &[
            positive(
                "whole",
                &["RECON-040"],
                "all of them are still there, or none",
            ),
            positive(
                "healed",
                &["CLIENT-031", "HIST-034"],
                "in the end all are gone",
            ),
        ],
        run: |cx| Box::pin(deletions(cx, "Reconcile")),
    },
    Case {
        name: "crash/snapshot",
        profile: Profile::Heal,
        needs: &[Need::DurableStore],
        about: "The same, learnt by Snapshot from a server that does not offer Reconcile.",
        checks: &[
            positive(
                "whole",
                &["SNAP-025"],
                "all of them are still there, or none",
            ),
            positive(
                "healed",
                &["CLIENT-031", "HIST-034"],
                "in the end all are gone",
            ),
        ],
        run: |cx| Box::pin(deletions(cx, "Snapshot")),
    },
    Case {
        name: "crash/within-snapshot",
        profile: Profile::Core,
        needs: &[Need::DurableStore],
        about: "The client is killed within a Snapshot, several times, after more of it each time.",
        checks: &[positive(
            "no-cursor",
            &["SNAP-020"],
            "what comes next names no cursor, and in the end all is there",
        )],
        run: |cx| Box::pin(within_snapshot(cx)),
    },
];

/// When it is killed, in milliseconds after the answer was sent: whoever is
/// done by then is killed idle.
const MOMENTS: [u64; 10] = [0, 2, 4, 8, 16, 32, 64, 125, 250, 500];

fn is_answered(call: &Seen) -> bool {
    call.end.starts_with("OK") && !call.answers.is_empty()
}

/// Has the client sync, and kills it so long after the first call of a method
/// was answered. Returns whether its session was still under way.
async fn dies(cx: &Cx, replica: &Replica, method: &str, after: u64) -> Result<bool, Stop> {
    let before = cx.seen().await.len();
    let moment = async {
        let of_method = |s: &Seen| s.method == method && is_answered(s);
        while !cx.seen().await[before..].iter().any(of_method) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(after)).await;
    };
    let under_way = tokio::select! {
        outcome = replica.try_sync(cx.patience()) => outcome.map(|_| false)?,
        () = moment => true,
    };
    cx.crash().await?;
    Ok(under_way)
}

/// Whoever is never killed at work has shown nothing.
fn died(times: usize) -> Result<(), Stop> {
    match times {
        0 => Err(Stop::Suite(
            "each session was over before the client could be killed".into(),
        )),
        _ => Ok(()),
    }
}

async fn verdicts(cx: Cx) -> Result<(), Stop> {
    let mut replica = cx.open("a").await?;
    let mut at_work = 0;
    for (round, after) in MOMENTS.into_iter().enumerate() {
        let keys: BTreeSet<Vec<u8>> = (0..50)
            .map(|i| format!("{round}-{i:03}").into_bytes())
            .collect();
        for key in &keys {
            replica.put(key, "v").await?;
        }
        let before = cx.seen().await.len();
        at_work += usize::from(dies(&cx, &replica, "Push", after).await?);
        replica = cx.open("a").await?;
        let contents = replica.contents().await?;
        let pending: BTreeSet<&[u8]> = contents.pending.iter().map(|w| &w.key[..]).collect();
        let seen = cx.seen().await;
        for push in calls(&seen[before..], "Push") {
            let push = v1::PushRequest::decode(push.message.as_slice());
            let sent = push.map(|p| p.records).unwrap_or_default();
            let left = sent.iter().filter(|r| pending.contains(&r.key[..]));
            let left = left.count();
            cx.check(
                "whole",
                left == 0 || left == sent.len(),
                format!("{} pending, or none", sent.len()),
                format!("{left} of them, killed after {after} ms"),
            );
        }
        let shown = contents.entries.iter().filter(|e| keys.contains(&e.key));
        cx.equal("shown", keys.len(), shown.count());
    }
    died(at_work)?;
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "shown", &replica).await
}

async fn within_snapshot(cx: Cx) -> Result<(), Stop> {
    fill(&cx).await;
    for messages in [1, 2, 3] {
        let replica = cx.open("a").await?;
        let stalls = Action::StallAfter(messages);
        cx.server(|p| p.script(|s| s.next("Snapshot", stalls)))
            .await;
        let before = cx.seen().await.len();
        let sent = |seen: &[Seen]| {
            let snapshots = calls(&seen[before..], "Snapshot");
            snapshots.iter().any(|s| s.answers.len() == messages)
        };
        let within = tokio::select! {
            // a replica may read by Watch instead, and has the cursor of that
            outcome = replica.try_sync(cx.patience()) => {
                outcome?;
                false
            }
            arrived = until(&cx, sent) => {
                let arrived = arrived?;
                // so that it is stored as well, if it is to be
                tokio::time::sleep(Duration::from_millis(100)).await;
                arrived
            }
        };
        cx.crash().await?;
        let before = cx.seen().await.len();
        let replica = cx.open("a").await?;
        let busy = Action::Refuse(Refusal::new("UNAVAILABLE", "busy"));
        cx.server(|p| p.script(|s| s.always("Snapshot", busy)))
            .await;
        replica.try_sync(Duration::from_millis(500)).await?;
        until(&cx, |seen| seen.len() > before).await?;
        cx.server(|p| p.script(Script::clear)).await;
        cx.crash().await?;
        let seen = cx.seen().await;
        let named = seen[before..]
            .iter()
            .flat_map(Seen::held)
            .filter(|h| h.cursor.is_some())
            .count();
        if within {
            cx.equal("no-cursor", 0, named);
        }
    }
    let replica = cx.open("a").await?;
    sync_patiently(&replica, &cx).await?;
    same_as_server(&cx, "no-cursor", &replica).await
}

async fn deletions(cx: Cx, method: &str) -> Result<(), Stop> {
    const N: u64 = 200;
    if method == "Snapshot" {
        cx.server(|p| p.service.with_settings(|s| s.features.clear()))
            .await;
    }
    let mut replica = cx.open("a").await?;
    let mut at_work = 0;
    for (round, after) in MOMENTS.into_iter().enumerate() {
        // each round is later than the horizon of the one before
        let at = |ms: u64| time(round as u64 * 10_000 + ms);
        let key = |i: u64| format!("k{i:03}");
        let puts = (0..N).map(|i| Record::put(key(i), at(1), 77, "v"));
        cx.server_writes(&puts.collect::<Vec<_>>()).await;
        sync_patiently(&replica, &cx).await?;
        let gone = (0..N).map(|i| Record::tombstone(key(i), at(2), 77));
        cx.server_writes(&gone.collect::<Vec<_>>()).await;
        let later = Record::put(format!("later-{round}"), at(9_000), 77, "v");
        cx.server_writes(&[later]).await;
        compact(&cx, at(5_000)).await;
        at_work += usize::from(dies(&cx, &replica, method, after).await?);
        replica = cx.open("a").await?;
        let entries = replica.entries().await?;
        let left = entries.iter().filter(|(key, _)| key.starts_with('k'));
        let left = left.count() as u64;
        cx.check(
            "whole",
            left == 0 || left == N,
            format!("{N} of them, or none"),
            format!("{left} of them, killed after {after} ms"),
        );
    }
    died(at_work)?;
    sync_patiently(&replica, &cx).await?;
    let entries = replica.entries().await?;
    let left = entries.iter().filter(|(key, _)| key.starts_with('k'));
    cx.equal("healed", 0, left.count());
    same_as_server(&cx, "healed", &replica).await
}
